//! What both sides call things: ids, fields and errors of theirs and of ours.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis_session_core::SessionHandle;
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tower_sessions_core::session::Id;
use tower_sessions_core::session_store;

/// What their record holds.
pub(super) type Data = HashMap<String, Value>;

/// Their id of a session of ours: a hash of its place, which is worth nothing as a cookie.
pub(super) fn id_of(session: SessionHandle) -> Id {
    hashed("redis-session id for tower-sessions 1", &session.to_text())
}

/// An id of theirs from a text, for one purpose.
pub(super) fn hashed(purpose: &str, text: &str) -> Id {
    let hash = Sha256::new().chain_update(purpose).chain_update(text).finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    Id(i128::from_le_bytes(id))
}

/// Our fields as their data.
///
/// # Errors
/// `Decode`: a field is no JSON.
pub(super) fn decoded<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> session_store::Result<Data> {
    fields
        .map(|(name, text)| match serde_json::from_slice(text) {
            Ok(value) => Ok((name.to_owned(), value)),
            Err(error) => {
                let name: String = name.chars().take(64).collect();
                Err(session_store::Error::Decode(format!("field {name:?} is not valid JSON: {error}")))
            }
        })
        .collect()
}

/// Whether a field's text says what this value is, however it is formatted.
pub(super) fn says(text: &[u8], value: &Value) -> bool {
    serde_json::from_slice::<Value>(text).is_ok_and(|there| there == *value)
}

pub(super) fn failed(error: impl std::fmt::Display) -> session_store::Error {
    session_store::Error::Backend(error.to_string())
}

/// How long until then, by this process's clock; `None`: it has passed.
pub(super) fn left_until(then: OffsetDateTime) -> Option<Duration> {
    Duration::try_from(then - OffsetDateTime::now_utc()).ok().filter(|left| !left.is_zero())
}

/// A point in the store's time as a date; one beyond all calendars is their last day.
pub(super) fn date(at: SystemTime) -> OffsetDateTime {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_or(time::PrimitiveDateTime::MAX.assume_utc(), |date| {
        date + Duration::from_nanos(since.subsec_nanos().into())
    })
}
