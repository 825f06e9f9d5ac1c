//! The application's fields of a session: names and JSON texts, sorted by name, and changes to them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Error;

/// The fields of a session: each top-level attribute by name, as JSON text. Cheap to clone.
#[derive(Clone, Default)]
pub struct Fields {
    /// Shared by a working copy, its base and what is on its way to the store. `None`: there are no fields.
    pairs: Option<Arc<Vec<(Bytes, Bytes)>>>,
}

impl Fields {
    /// From pairs in any order. Of two with one name, the later counts.
    pub fn from_pairs(mut pairs: Vec<(Bytes, Bytes)>) -> Self {
        pairs.reverse();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, first| later.0 == first.0);
        Self { pairs: Some(Arc::new(pairs)) }
    }

    fn pairs(&self) -> &[(Bytes, Bytes)] {
        self.pairs.as_ref().map_or(&[], |pairs| pairs.as_slice())
    }

    fn pairs_mut(&mut self) -> &mut Vec<(Bytes, Bytes)> {
        Arc::make_mut(self.pairs.get_or_insert_default())
    }

    fn position(&self, name: &[u8]) -> Result<usize, usize> {
        self.pairs().binary_search_by(|(n, _)| n.as_ref().cmp(name))
    }

    /// The JSON text of a field. An empty text stands for a field that is explicitly absent.
    pub fn get(&self, name: &[u8]) -> Option<&Bytes> {
        self.position(name).ok().map(|at| &self.pairs()[at].1)
    }

    /// Sets a field.
    pub fn set(&mut self, name: Bytes, value: Bytes) {
        match self.position(&name) {
            Ok(at) => self.pairs_mut()[at].1 = value,
            Err(at) => self.pairs_mut().insert(at, (name, value)),
        }
    }

    /// Removes a field.
    pub fn remove(&mut self, name: &[u8]) {
        if let Ok(at) = self.position(name) {
            self.pairs_mut().remove(at);
        }
    }

    /// Removes all fields.
    pub fn clear(&mut self) {
        self.pairs = None;
    }

    /// Names and JSON texts, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.pairs().iter().map(|(name, value)| (name, value))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.pairs().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs().is_empty()
    }

    /// Bytes of all names and values: what the size limit counts.
    pub fn size(&self) -> usize {
        self.pairs().iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Adds to the integer in a field; an absent one counts as 0.
    pub(crate) fn increment(&mut self, name: &Bytes, by: i64) -> Result<(), Error> {
        let sum = self.incremented(name, by)?;
        self.set(name.clone(), sum);
        Ok(())
    }

    /// What an increment would leave in a field.
    pub(crate) fn incremented(&self, name: &Bytes, by: i64) -> Result<Bytes, Error> {
        let old = match self.get(name) {
            None => 0,
            Some(text) if text.is_empty() => 0,
            Some(text) => {
                integer(text).ok_or_else(|| Error::field(name, "is not an integer, so it cannot be incremented"))?
            }
        };
        let new = old.checked_add(by).ok_or_else(|| Error::field(name, "would leave the range of an i64"))?;
        Ok(Bytes::from(new.to_string()))
    }

    /// Carries out changes. On an error some may have been made: work on a copy.
    pub(crate) fn apply(&mut self, changes: &Changes) -> Result<(), Error> {
        if changes.clear {
            self.clear();
        }
        for (name, change) in &changes.fields {
            match change {
                Change::Set(value) => self.set(name.clone(), value.clone()),
                Change::Remove => self.remove(name),
                Change::Increment(by) => self.increment(name, *by)?,
            }
        }
        Ok(())
    }

    /// What leads from `base` to these fields.
    pub(crate) fn changes_since(&self, base: &Self) -> Changes {
        let mut changes = Changes::default();
        let mut old = base.pairs().iter().peekable();
        for (name, value) in self.pairs() {
            while let Some((gone, _)) = old.next_if(|(n, _)| n < name) {
                changes.fields.push((gone.clone(), Change::Remove));
            }
            match old.next_if(|(n, _)| n == name) {
                Some((_, same)) if same == value => {}
                _ => changes.fields.push((name.clone(), Change::Set(value.clone()))),
            }
        }
        changes.fields.extend(old.map(|(gone, _)| (gone.clone(), Change::Remove)));
        changes
    }
}

/// The integer that Redis's `HINCRBY` would see in this text.
fn integer(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.pairs(), other.pairs()) || self.pairs() == other.pairs()
    }
}

impl Eq for Fields {}

/// Field names only: values are the visitor's.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pairs().iter().map(|(name, _)| String::from_utf8_lossy(name))).finish()
    }
}

/// What happens to one field.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// It gets this JSON text.
    Set(Bytes),
    /// It goes.
    Remove,
    /// The integer in it grows by this much.
    Increment(i64),
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Set(_) => "Set",
            Self::Remove => "Remove",
            Self::Increment(_) => "Increment",
        })
    }
}

/// What a write does to the fields: at most one change a field, so their order does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// All fields go first.
    pub clear: bool,
    /// Then these, each at most once.
    pub fields: Vec<(Bytes, Change)>,
}

impl Changes {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        !self.clear && self.fields.is_empty()
    }
}
