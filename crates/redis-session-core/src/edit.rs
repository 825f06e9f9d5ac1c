//! One edit of a session: what a handler asked for, kept so that it can be made again on a newer version.

use std::any::Any;

use bytes::Bytes;

use crate::error::Error;
use crate::fields::{Change, Changes, Fields};

/// One edit. All but [`Edit::Update`] merge: they do not depend on what was read.
pub enum Edit {
    /// Sets a field to this JSON text.
    Set(Bytes, Bytes),
    /// Removes a field.
    Remove(Bytes),
    /// Adds to the integer in a field.
    Increment(Bytes, i64),
    /// Removes all fields.
    Clear,
    /// Closures over a typed view, run again where the session moved.
    Update(Box<dyn Replay>),
}

/// Closures over one type of state, in their order.
pub trait Replay: Send {
    /// Runs them on these fields.
    fn replay(&self, fields: &mut Fields) -> Result<(), Error>;

    /// For adding one more closure of the same type.
    fn as_any(&mut self) -> &mut dyn Any;
}

impl Edit {
    /// Whether this edit means the same on any version.
    pub fn merges(&self) -> bool {
        !matches!(self, Self::Update(_))
    }

    /// Makes this edit.
    pub fn apply(&self, fields: &mut Fields) -> Result<(), Error> {
        match self {
            Self::Set(name, value) => fields.set(name.clone(), value.clone()),
            Self::Remove(name) => fields.remove(name),
            Self::Increment(name, by) => fields.increment(name, *by)?,
            Self::Clear => fields.clear(),
            Self::Update(closures) => closures.replay(fields)?,
        }
        Ok(())
    }
}

/// The net effect of edits that merge: the last set or removal of a field, and the increments after it.
///
/// `None` where an increment cannot be folded into what was set before it; the working copy has refused that already.
pub(crate) fn net_effect(edits: &[Edit]) -> Option<Changes> {
    let mut changes = Changes::default();
    for edit in edits {
        match edit {
            Edit::Set(name, value) => put(&mut changes, name, Change::Set(value.clone())),
            Edit::Remove(name) => put(&mut changes, name, Change::Remove),
            Edit::Increment(name, by) => {
                let folded = fold(&changes, name, *by)?;
                put(&mut changes, name, folded);
            }
            Edit::Clear => changes = Changes { clear: true, fields: Vec::new() },
            Edit::Update(_) => return None,
        }
    }
    Some(changes)
}

fn put(changes: &mut Changes, name: &Bytes, change: Change) {
    match changes.fields.iter_mut().find(|(n, _)| n == name) {
        Some((_, old)) => *old = change,
        None => changes.fields.push((name.clone(), change)),
    }
}

fn fold(changes: &Changes, name: &Bytes, by: i64) -> Option<Change> {
    let before = changes.fields.iter().find(|(n, _)| n == name).map(|(_, change)| change);
    let mut scratch = Fields::default();
    match before {
        Some(Change::Increment(sum)) => return sum.checked_add(by).map(Change::Increment),
        None if !changes.clear => return Some(Change::Increment(by)),
        Some(Change::Set(value)) => scratch.set(name.clone(), value.clone()),
        Some(Change::Remove) | None => {}
    }
    scratch.increment(name, by).ok()?;
    scratch.get(name).map(|value| Change::Set(value.clone()))
}
