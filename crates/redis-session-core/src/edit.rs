//! One edit of a session: what a handler asked for, kept so that it can be made again on a newer version.

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

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
    let mut net = Net::default();
    for edit in edits {
        match edit {
            Edit::Set(name, value) => net.put(name, Change::Set(value.clone())),
            Edit::Remove(name) => net.put(name, Change::Remove),
            Edit::Increment(name, by) => {
                let folded = net.fold(name, *by)?;
                net.put(name, folded);
            }
            Edit::Clear => net = Net { changes: Changes { clear: true, fields: Vec::new() }, ..Net::default() },
            Edit::Update(_) => return None,
        }
    }
    Some(net.changes)
}

#[derive(Default)]
struct Net<'a> {
    changes: Changes,
    /// Where the change of a field is.
    places: HashMap<&'a Bytes, usize>,
}

impl<'a> Net<'a> {
    fn put(&mut self, name: &'a Bytes, change: Change) {
        match self.places.entry(name) {
            Entry::Occupied(place) => self.changes.fields[*place.get()].1 = change,
            Entry::Vacant(place) => {
                place.insert(self.changes.fields.len());
                self.changes.fields.push((name.clone(), change));
            }
        }
    }

    fn fold(&self, name: &Bytes, by: i64) -> Option<Change> {
        let before = self.places.get(name).map(|place| &self.changes.fields[*place].1);
        let mut scratch = Fields::default();
        match before {
            Some(Change::Increment(sum)) => return sum.checked_add(by).map(Change::Increment),
            None if !self.changes.clear => return Some(Change::Increment(by)),
            Some(Change::Set(value)) => scratch.set(name.clone(), value.clone()),
            Some(Change::Remove) | None => {}
        }
        scratch.increment(name, by).ok()?;
        scratch.get(name).map(|value| Change::Set(value.clone()))
    }
}
