//! The working copy of a request: one ordered list of edits over what was loaded, shared by all views.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::depth::check_depth;
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
    /// The most bytes that names and values may have. `None`: any number.
    limit: Option<usize>,
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

    /// Refuses edits that would make names and values grow over so many bytes.
    pub fn limit(self, bytes: usize) -> Self {
        Self { limit: Some(bytes), ..self }
    }

    /// The value of a field; `None` if it is absent.
    ///
    /// # Errors
    /// [`is_field`](Error::is_field): it does not decode as `V`.
    pub fn get<V: DeserializeOwned>(&self, name: &str) -> Result<Option<V>, Error> {
        match self.fields.get(name.as_bytes()) {
            Some(json) if !json.is_empty() => serde_json::from_slice(json).map(Some).map_err(|error| {
                let problem = if error.is_data() { "does not fit the type asked for" } else { "is not valid JSON" };
                Error::field(name.as_bytes(), problem)
            }),
            _ => Ok(None),
        }
    }

    /// Sets a field to a value.
    ///
    /// # Errors
    /// [`is_field`](Error::is_field): it cannot be JSON, or is nested deeper than 127 levels, which could not be read again;
    /// or the name begins with `@`. [`is_too_large`](Error::is_too_large): over the limit. Nothing is changed then.
    pub fn insert<V: Serialize + ?Sized>(&mut self, name: &str, value: &V) -> Result<(), Error> {
        let json = serde_json::to_vec(value).map_err(|_| Error::field(name.as_bytes(), "cannot be written as JSON"))?;
        check_depth(name.as_bytes(), &json)?;
        self.edit(Edit::Set(Bytes::copy_from_slice(name.as_bytes()), json.into()))
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

    /// Whether the edits lead anywhere else than where they began.
    pub fn is_changed(&self) -> bool {
        self.is_edited() && self.fields != self.base
    }

    /// Makes an edit that merges, and keeps it.
    ///
    /// # Errors
    /// As [`insert`](Self::insert); or an increment of what is no integer. Nothing is changed then.
    pub fn edit(&mut self, edit: Edit) -> Result<(), Error> {
        if let Edit::Set(name, _) | Edit::Remove(name) | Edit::Increment(name, _) = &edit {
            check_name(name)?;
        }
        match &edit {
            Edit::Set(name, value) => self.check_size_with(name, value)?,
            Edit::Increment(name, by) => self.check_size_with(name, &self.fields.incremented(name, *by)?)?,
            Edit::Remove(_) | Edit::Clear | Edit::Update(_) => {}
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
    /// An edit that cannot be made there, a closure that panics, or more bytes than the limit. The edits are kept, the
    /// fields are as before.
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
        // What others added meanwhile counts too.
        self.check_growth(base.size(), fields.size())?;
        self.base = base;
        self.fields = fields;
        self.staged = 0;
        self.revision += 1;
        Ok(())
    }

    /// Drops the edits and starts over from `base`.
    pub fn reset(&mut self, base: Fields) {
        let (revision, views) = (self.revision + 1, std::mem::take(&mut self.views));
        *self = Self { revision, views, limit: self.limit, ..Self::new(base) };
    }

    /// Drops the edits and goes back to what was loaded.
    pub fn drop_edits(&mut self) {
        let base = std::mem::take(&mut self.base);
        self.reset(base);
    }

    /// Whether fields of so many bytes may be kept.
    pub(crate) fn check_size(&self, size: usize) -> Result<(), Error> {
        self.check_growth(self.base.size(), size)
    }

    fn check_size_with(&self, name: &Bytes, value: &Bytes) -> Result<(), Error> {
        let old = self.fields.get(name).map_or(0, |old| name.len() + old.len());
        self.check_size(self.fields.size() - old + name.len() + value.len())
    }

    /// What is over the limit already may shrink.
    fn check_growth(&self, before: usize, after: usize) -> Result<(), Error> {
        match self.limit {
            Some(limit) if after > limit && after > before => Err(too_large(limit)),
            _ => Ok(()),
        }
    }
}

fn too_large(limit: usize) -> Error {
    Error::new(Kind::TooLarge, format!("the session would take more than its limit of {limit} bytes"))
}

/// Names that begin with `@` are the library's own.
pub(crate) fn check_name(name: &[u8]) -> Result<(), Error> {
    if name.first() == Some(&b'@') {
        return Err(Error::field(name, "begins with \"@\", which is reserved"));
    }
    Ok(())
}
