//! The working copy of a request: one ordered list of edits over what was loaded, shared by all views.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::edit::{Edit, net_effect};
use crate::error::{Error, Kind};
use crate::fields::{Changes, Fields};
use crate::view::{Closures, State, Update, Views};

/// What was loaded, the edits since, and the fields that they lead to.
#[derive(Default)]
pub struct Working {
    base: Fields,
    fields: Fields,
    edits: Vec<Edit>,
    /// How many of the edits are on their way to the store.
    staged: usize,
    revision: u64,
    views: Views,
}

/// Edits on their way to the store.
#[derive(Clone, Debug)]
pub struct Staged {
    /// What they change.
    pub changes: Changes,
    /// Whether they mean the same on any recent version.
    pub merges: bool,
    /// The fields after them.
    pub fields: Fields,
}

impl Working {
    /// Over what was loaded.
    pub fn new(base: Fields) -> Self {
        Self { fields: base.clone(), base, ..Self::default() }
    }

    /// The fields as the edits so far leave them.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Grows with every change to the fields, so that a view knows when its value is old.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether there are edits that the store does not have.
    pub fn is_edited(&self) -> bool {
        !self.edits.is_empty()
    }

    /// Makes an edit that merges, and keeps it.
    pub fn edit(&mut self, edit: Edit) -> Result<(), Error> {
        if let Edit::Set(name, _) | Edit::Remove(name) | Edit::Increment(name, _) = &edit {
            check_name(name)?;
        }
        edit.apply(&mut self.fields)?;
        self.edits.push(edit);
        self.revision += 1;
        Ok(())
    }

    /// Keeps a closure that a view has run on its value already, with the fields that it led to.
    pub(crate) fn updated<T: State>(&mut self, fields: Fields, closure: Update<T>) {
        self.fields = fields;
        self.revision += 1;
        let last = if self.edits.len() > self.staged { self.edits.last_mut() } else { None };
        if let Some(Edit::Update(replay)) = last
            && let Some(closures) = replay.as_any().downcast_mut::<Closures<T>>()
        {
            closures.push(closure);
            return;
        }
        self.edits.push(Edit::Update(Box::new(Closures::first(closure))));
    }

    /// The types that view this working copy.
    pub(crate) fn views(&mut self) -> &mut Views {
        &mut self.views
    }

    /// What the edits so far come to. They stay until [`saved`](Self::saved).
    pub fn stage(&mut self) -> Staged {
        self.staged = self.edits.len();
        let merged = if self.edits.iter().all(Edit::merges) { net_effect(&self.edits) } else { None };
        let difference = self.fields.changes_since(&self.base);
        let merges = merged.is_some();
        // Edits that lead back to where they began change nothing.
        let changes = if difference.is_empty() { difference } else { merged.unwrap_or(difference) };
        Staged { changes, merges, fields: self.fields.clone() }
    }

    /// What the edits so far and one closure that is not kept come to: a transaction's.
    pub(crate) fn stage_with(&mut self, fields: Fields) -> Staged {
        self.staged = self.edits.len();
        Staged { changes: fields.changes_since(&self.base), merges: false, fields }
    }

    /// The store has what was staged: it is the base for the edits made since.
    ///
    /// # Errors
    /// As [`rebase`](Self::rebase), from edits made while the staged ones were on their way.
    pub fn saved(&mut self, staged: Staged) -> Result<(), Error> {
        self.edits.drain(..self.staged);
        self.staged = 0;
        if !self.edits.is_empty() {
            return self.rebase(staged.fields);
        }
        if self.fields != staged.fields {
            self.fields = staged.fields.clone();
            self.revision += 1;
        }
        self.base = staged.fields;
        Ok(())
    }

    /// Makes all edits again on what is there now.
    ///
    /// # Errors
    /// An edit that cannot be made there, or a closure that panics. The edits are kept, the fields are as before.
    pub fn rebase(&mut self, base: Fields) -> Result<(), Error> {
        let mut fields = base.clone();
        for edit in &self.edits {
            // A panic here is the application's: it must not take the commit down with it.
            catch_unwind(AssertUnwindSafe(|| edit.apply(&mut fields))).map_err(|_| {
                Error::new(
                    Kind::Panicked,
                    "a closure panicked when it was run again on a newer version; nothing was saved",
                )
            })??;
        }
        self.base = base;
        self.fields = fields;
        self.staged = 0;
        self.revision += 1;
        Ok(())
    }

    /// Drops the edits and starts over from `base`.
    pub fn reset(&mut self, base: Fields) {
        let (revision, views) = (self.revision + 1, std::mem::take(&mut self.views));
        *self = Self { revision, views, ..Self::new(base) };
    }
}

/// Names that begin with `@` are the library's own.
pub(crate) fn check_name(name: &[u8]) -> Result<(), Error> {
    if name.first() == Some(&b'@') {
        return Err(Error::field(name, "begins with \"@\", which is reserved"));
    }
    Ok(())
}
