//! A field that does not decode is read as its default, where the application's type says so.

use serde::de::{Deserialize, Deserializer};

/// For `#[serde(deserialize_with = "redis_session::or_default")]` on a field of a session's state: what does not decode as
/// the field's type reads as the type's default, rather than as an error.
///
/// For fields without which a visitor can go on, such as a list of what he has looked at. Nothing is overwritten because it
/// was read: what is stored stays, also for servers that can read it, until the application changes this field.
///
/// What is stored for the field has to be JSON all the same. Integers of more than 64 bits are not for it, since they read
/// as the default too, nor are floats that may not be finite, which are stored as null. An `Option<V>` whose value does not
/// decode is `None`.
///
/// ```
/// use redis_session_core::{Fields, View, Working, or_default};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Default, Serialize, Deserialize)]
/// #[serde(default)]
/// struct Visitor {
///     #[serde(deserialize_with = "or_default")]
///     seen: Vec<u64>,
///     visits: u64,
/// }
///
/// // As an older version of the application has written it.
/// let stored = Fields::from_pairs(vec![("seen".into(), r#""tea""#.into()), ("visits".into(), "4".into())]);
/// let mut working = Working::new(stored);
/// let mut visitor = View::<Visitor>::open(&mut working)?;
/// assert_eq!((visitor.seen.len(), visitor.visits), (0, 4));
/// visitor.update(&mut working, |visitor| visitor.visits += 1)?;
/// assert_eq!(working.fields().get(b"seen").unwrap(), r#""tea""#, "nobody has changed it");
/// visitor.update(&mut working, |visitor| visitor.seen.push(7))?;
/// assert_eq!(working.fields().get(b"seen").unwrap(), "[7]");
/// # Ok::<(), redis_session_core::Error>(())
/// ```
///
/// # Errors
/// The text is no JSON.
pub fn or_default<'de, D, V>(deserializer: D) -> Result<V, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de> + Default,
{
    // The whole value is taken first, so that what comes after it is read from the right place.
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(V::deserialize(value).unwrap_or_default())
}
