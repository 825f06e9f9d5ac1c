//! A typed view of a session: the fields of one Rust type, laid over its defaults, and what an update changed in them.

mod decode;
mod encode;

use std::any::{Any, TypeId};
use std::ops::Deref;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::depth::check_depth;
use crate::edit::Replay;
use crate::error::{Error, Kind};
use crate::fields::Fields;
use crate::working::{Staged, Working, check_name};

use decode::{Shape, decode};
pub(crate) use encode::Encoded;

/// What a session can be seen as: any struct or map that serde can write, read and make up a default for.
///
/// Implemented for all such types; there is nothing to derive beside serde's.
pub trait State: Serialize + DeserializeOwned + Default + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Default + Send + Sync + 'static> State for T {}

/// A closure over a typed view, kept for running it again.
pub(crate) type Update<T> = Box<dyn Fn(&mut T) + Send>;

/// A value of `T` read from the working copy, which knows when it is old.
///
/// ```
/// use redis_session_core::{Fields, View, Working};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Visitor { visits: u64, name: Option<String> }
///
/// let mut working = Working::new(Fields::default());
/// let mut visitor = View::<Visitor>::open(&mut working)?;
/// visitor.update(&mut working, |visitor| visitor.visits += 1)?;
/// assert_eq!(visitor.visits, 1);
/// assert_eq!(working.fields().get(b"visits").map(AsRef::as_ref), Some(&b"1"[..]));
/// assert_eq!(working.fields().get(b"name"), None); // still the default, so not stored
/// # Ok::<(), redis_session_core::Error>(())
/// ```
#[derive(Debug)]
pub struct View<T> {
    value: T,
    /// The revision that the value shows. `None`: a closure left it in an unknown state.
    shows: Option<u64>,
    /// The value as it was serialised last. `None`: not since it was read.
    encoded: Option<Encoded>,
}

impl<T> Deref for View<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> View<T> {
    /// Around a value that belongs to no session yet; [`refresh`](View::refresh) reads it.
    pub fn unread(value: T) -> Self {
        Self { value, shows: None, encoded: None }
    }
}

impl<T: State> View<T> {
    /// Reads the view's own fields.
    ///
    /// # Errors
    /// [`is_field`](Error::is_field): a field does not decode, or `T` is neither struct nor map.
    /// Or a view of another type is open on this working copy, and one of the two takes every field.
    pub fn open(working: &mut Working) -> Result<Self, Error> {
        working.views().add::<T>()?;
        Self::read(working)
    }

    fn read(working: &Working) -> Result<Self, Error> {
        let (value, _) = decode::<T>(working.fields())?;
        Ok(Self { value, shows: Some(working.revision()), encoded: None })
    }

    /// Reads again if the working copy moved since.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn refresh(&mut self, working: &Working) -> Result<(), Error> {
        if self.shows != Some(working.revision()) {
            *self = Self::read(working)?;
        }
        Ok(())
    }

    /// Runs a closure on the value now, and keeps it for running it again if the session moved meanwhile.
    ///
    /// # Errors
    /// [`is_field`](Error::is_field): what the closure left cannot be stored. [`is_too_large`](Error::is_too_large): it
    /// is over the limit. Nothing is kept of it then.
    pub fn update(&mut self, working: &mut Working, closure: impl Fn(&mut T) + Send + 'static) -> Result<(), Error> {
        self.refresh(working)?;
        let fields = self.run(working.fields().clone(), &closure, working)?;
        working.updated(fields, Box::new(closure));
        self.shows = Some(working.revision());
        Ok(())
    }

    /// Runs a closure once for a write that is made at once; its `Err` aborts, and nothing is kept of it.
    ///
    /// # Errors
    /// The closure's, or as [`update`](Self::update).
    pub fn attempt<R, E: From<Error>>(
        &mut self,
        working: &mut Working,
        closure: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<(R, Staged), E> {
        self.refresh(working)?;
        let mut outcome = None;
        let once = std::cell::Cell::new(Some(closure));
        let mut run = |value: &mut T| outcome = once.take().map(|closure| closure(value));
        let fields = self.run_once(working.fields().clone(), &mut run, working);
        // Until the write is made, the working copy does not have what the closure did.
        self.shows = None;
        match outcome {
            Some(Ok(value)) => Ok((value, working.stage_with(fields?))),
            Some(Err(abort)) => Err(abort),
            None => Err(fields.err().unwrap_or_else(no_run).into()),
        }
    }

    fn run(&mut self, fields: Fields, closure: &dyn Fn(&mut T), working: &Working) -> Result<Fields, Error> {
        self.run_once(fields, &mut |value| closure(value), working)
    }

    fn run_once(
        &mut self,
        mut fields: Fields,
        closure: &mut dyn FnMut(&mut T),
        working: &Working,
    ) -> Result<Fields, Error> {
        let before = match self.encoded.take() {
            Some(encoded) => encoded,
            None => encode::encode(&self.value)?,
        };
        // If the closure panics, or leaves what cannot be stored, the value must be read again.
        self.shows = None;
        closure(&mut self.value);
        let stored = encode::encode(&self.value).and_then(|after| {
            write_difference::<T>(&before, &after, &mut fields)?;
            working.check_size(fields.size())?;
            Ok(after)
        });
        match stored {
            Ok(after) => {
                self.encoded = Some(after);
                Ok(fields)
            }
            Err(error) => {
                *self = Self::read(working)?;
                Err(error)
            }
        }
    }
}

fn no_run() -> Error {
    Error::new(Kind::Field, "the closure was not run")
}

/// Closures over one type, in their order, run with one read and one write of it.
pub(crate) struct Closures<T>(Vec<Update<T>>);

impl<T: State> Closures<T> {
    pub(crate) fn first(closure: Update<T>) -> Self {
        Self(vec![closure])
    }

    pub(crate) fn push(&mut self, closure: Update<T>) {
        self.0.push(closure);
    }
}

impl<T: State> Replay for Closures<T> {
    fn replay(&self, fields: &mut Fields) -> Result<(), Error> {
        let (mut value, _) = decode::<T>(fields)?;
        let before = encode::encode(&value)?;
        for closure in &self.0 {
            closure(&mut value);
        }
        write_difference::<T>(&before, &encode::encode(&value)?, fields)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Puts what differs between two serialisations of a view into the fields; all other fields stay as they are.
fn write_difference<T: State>(before: &Encoded, after: &Encoded, fields: &mut Fields) -> Result<(), Error> {
    let mut check = false;
    for (at, (name, text)) in after.iter().enumerate() {
        if before.get_near(at, name) != Some(text) {
            check_name(name)?;
            check_depth(name, text)?;
            // serde_json writes numbers that are not finite as null, and so what an option leaves out: only reading
            // it back tells the two apart.
            check |= text.windows(4).any(|part| part == b"null");
            fields.set(name.clone(), after.keep(text));
        }
    }
    let names = before.iter().map(|(name, _)| name).enumerate();
    let gone: Vec<&Bytes> =
        names.filter(|(at, name)| after.get_near(*at, name).is_none()).map(|(_, name)| name).collect();
    if !gone.is_empty() {
        let default = encode::encode(&T::default())?;
        let (_, shape) = decode::<T>(fields)?;
        gone.into_iter().for_each(|name| leave_out(name, &default, shape, fields));
    }
    if check {
        decode::<T>(fields).map_err(|_| {
            Error::new(
                Kind::Field,
                "what the update left cannot be read back (a number that is not finite?); nothing was kept of it",
            )
        })?;
    }
    Ok(())
}

/// Takes away a field that the value no longer writes.
///
/// Where a plain removal would bring another value back (the default's, or one stored under an old name), an empty
/// text says that the field is absent.
fn leave_out(name: &Bytes, default: &Encoded, shape: Shape, fields: &mut Fields) {
    let has_old_name = match shape {
        Shape::Struct(names) => names
            .iter()
            .any(|n| n.as_bytes() != name && fields.get(n.as_bytes()).is_some() && default.get(n.as_bytes()).is_none()),
        Shape::Map => false,
    };
    if default.get(name).is_some() || has_old_name {
        fields.set(name.clone(), Bytes::new());
    } else {
        fields.remove(name);
    }
}

/// Whether a view of `T` takes fields that are not its own, so that it cannot stand beside views of other types.
fn catches_all<T: State>() -> Result<bool, Error> {
    const PROBE: &str = "redis-session probe";
    let (_, shape) = decode::<T>(&Fields::default())?;
    if matches!(shape, Shape::Struct(_)) {
        return Ok(false);
    }
    let mut fields = Fields::default();
    fields.set(PROBE.into(), Bytes::from_static(b"null"));
    // A value type that null does not fit has looked at the field: it catches all.
    Ok(match decode::<T>(&fields) {
        Ok((value, _)) => encode::encode(&value)?.get(PROBE.as_bytes()).is_some(),
        Err(_) => true,
    })
}

/// The types that view one session in one request; refuses a pair that would take each other's fields.
#[derive(Debug, Default)]
pub(crate) struct Views(Vec<Viewer>);

#[derive(Clone, Copy, Debug)]
struct Viewer {
    id: TypeId,
    name: &'static str,
    catches_all: fn() -> Result<bool, Error>,
}

impl Views {
    /// Adds a view of `T`.
    ///
    /// # Errors
    /// [`is_field`](Error::is_field): `T`, or a view that is there already, catches all fields.
    pub(crate) fn add<T: State>(&mut self) -> Result<(), Error> {
        let new = Viewer { id: TypeId::of::<T>(), name: std::any::type_name::<T>(), catches_all: catches_all::<T> };
        if self.0.iter().any(|there| there.id == new.id) {
            return Ok(());
        }
        // Alone, a type may take what it wants: the question, which costs a default and its serialisation, is asked
        // only when a second one comes.
        for there in &self.0 {
            for (one, other) in [(&new, there), (there, &new)] {
                if (one.catches_all)()? {
                    return Err(one.cannot_stand_beside(other));
                }
            }
        }
        self.0.push(new);
        Ok(())
    }
}

impl Viewer {
    fn cannot_stand_beside(&self, other: &Self) -> Error {
        let (catching, beside) = (self.name, other.name);
        Error::new(
            Kind::Field,
            format!(
                "{catching} takes every field of the session (a map, or #[serde(flatten)] of one), so it cannot be used beside {beside} in one request"
            ),
        )
    }
}

#[cfg(test)]
mod tests;
