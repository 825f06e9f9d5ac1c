//! Messages for the next page: shown once, after the redirect.

use std::fmt;
use std::fmt::Write;
use std::marker::PhantomData;
use std::sync::Arc;

use axum_core::extract::FromRequestParts;
use bytes::Bytes;
use http::request::Parts;
use redis_session_core::{Edit, Working};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::handle::Handle;
use crate::layer::Main;
use crate::session::{Session, Untyped};

/// The fields that messages are begin with this.
const PREFIX: &str = "flash.";
/// The most messages that wait.
const MOST: usize = 16;

/// Messages that the visitor sees once, on the next page that shows them: "Saved", after the redirect. An extractor.
///
/// ```
/// use axum::response::{Html, Redirect};
/// use redis_session::{Error, Flash};
///
/// async fn save(flash: Flash) -> Result<Redirect, Error> {
///     flash.success("Your address is saved.")?;
///     Ok(Redirect::to("/account"))
/// }
///
/// async fn account(flash: Flash) -> Result<Html<String>, Error> {
///     let lines = flash.take()?.into_iter();
///     // The text is as it was given: escape what a visitor may have written.
///     Ok(Html(lines.map(|message| format!("<p class={}>{}</p>", message.level, message.text)).collect()))
/// }
/// # use redis_session::Session;
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let session = Session::detached(std::collections::BTreeMap::<String, u8>::new()).await?;
/// save(Flash::of(&session)).await?;
/// assert_eq!(account(Flash::of(&session)).await?.0, "<p class=success>Your address is saved.</p>");
/// assert_eq!(account(Flash::of(&session)).await?.0, "");
/// # Ok::<(), Error>(()) }).unwrap();
/// ```
///
/// Each message is a field of the session of its own, `flash.` and 28 more characters, whose name no other message has: two
/// tabs add theirs at the same time, and a page takes away just those that it has shown. Names of that form are not for
/// the application, and a map that views the whole session sees them. At most 16 messages wait, and the oldest go first.
///
/// A message begins a session for a visitor without one. A page that looks and finds none writes nothing. What a page has
/// taken counts as shown when its response leaves; if that fails (5xx), or the store does, the next page shows it again.
/// Two pages that are loaded at the same moment may both show it.
///
/// After `log_out` a message is that of a new session, and says goodbye. To clear the browser's cookies with
/// [`ClearSiteData::Everything`](crate::ClearSiteData::Everything) may take it away.
pub struct Flash<L = Main> {
    handle: Arc<Handle>,
    /// The page that it speaks for. `None`: none in particular.
    page: Option<String>,
    /// Whether what is added is for that page alone.
    bound: bool,
    marker: PhantomData<fn() -> L>,
}

/// What is said to the visitor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlashMessage {
    /// What kind of message it is.
    pub level: FlashLevel,
    /// The text, as it was given.
    pub text: String,
}

/// The kind of a message. Its text (`info`, `success`, `warning`, `error`) is fit for a class name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlashLevel {
    /// Something to know.
    Info,
    /// Something was done.
    Success,
    /// Something to look at.
    Warning,
    /// Something was not done.
    Error,
}

impl<L> Flash<L> {
    /// The messages of this session, of no page in particular: for middleware and tests.
    pub fn of(session: &Session<Untyped, L>) -> Self {
        Self::new(session.handle.clone(), None, false)
    }

    fn new(handle: Arc<Handle>, page: Option<String>, bound: bool) -> Self {
        Self { handle, page, bound, marker: PhantomData }
    }

    /// The same for one page: messages that are added are shown there only, so that another tab does not take them.
    ///
    /// ```
    /// # use axum::response::Redirect;
    /// # use redis_session::{Error, Flash};
    /// async fn add(flash: Flash) -> Result<Redirect, Error> {
    ///     flash.for_path("/cart").success("Tea is in your cart.")?;
    ///     Ok(Redirect::to("/cart"))
    /// }
    /// # use redis_session::Session;
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let session = Session::detached(std::collections::BTreeMap::<String, u8>::new()).await?;
    /// # add(Flash::of(&session)).await?;
    /// # assert!(Flash::of(&session).take()?.is_empty());
    /// # assert_eq!(Flash::of(&session).for_path("/cart").take()?.len(), 1);
    /// # Ok::<(), Error>(()) }).unwrap();
    /// ```
    ///
    /// Paths are compared as they are, without a query. A page's own path is the one that its handler sees, so in a nested
    /// router the page names itself: `flash.for_path("/shop/cart").take()`.
    pub fn for_path(&self, path: &str) -> Self {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        Self::new(self.handle.clone(), Some(path.to_owned()), true)
    }

    /// Adds a message of the level `info`.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn info(&self, text: impl AsRef<str>) -> Result<(), Error> {
        self.add(FlashLevel::Info, text)
    }

    /// Adds a message of the level `success`.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn success(&self, text: impl AsRef<str>) -> Result<(), Error> {
        self.add(FlashLevel::Success, text)
    }

    /// Adds a message of the level `warning`.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn warning(&self, text: impl AsRef<str>) -> Result<(), Error> {
        self.add(FlashLevel::Warning, text)
    }

    /// Adds a message of the level `error`.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn error(&self, text: impl AsRef<str>) -> Result<(), Error> {
        self.add(FlashLevel::Error, text)
    }

    /// Adds a message. It is saved when the response leaves, and merges with what other requests do.
    ///
    /// # Errors
    /// `is_too_large`: the session would be over its limit. `is_committed`: the response has left.
    pub fn add(&self, level: FlashLevel, text: impl AsRef<str>) -> Result<(), Error> {
        let path = self.page.clone().filter(|_| self.bound);
        let message = Kept { level, text: text.as_ref().to_owned(), path };
        let settings = &self.handle.settings;
        let random = settings.random.array()?;
        let now = settings.store.now().unwrap_or_default().as_millis();
        let mut working = self.handle.editable()?;
        let waiting = waiting(&working);
        let name = name(now, waiting.last().map(|(name, _)| name), random);
        working.insert(&name, &message)?;
        for (oldest, _) in waiting.into_iter().rev().skip(MOST - 1) {
            working.edit(Edit::Remove(oldest))?;
        }
        Ok(())
    }

    /// Takes the messages that are for this page or for any, the oldest first.
    ///
    /// # Errors
    /// `is_committed`: the response has left. `is_field`: called in the closure of an update.
    pub fn take(&self) -> Result<Vec<FlashMessage>, Error> {
        // A page that is served without its session shows none, rather than an error.
        if !self.handle.state().left && self.handle.state().was_read().is_err() {
            return Ok(Vec::new());
        }
        let mut working = self.handle.editable()?;
        let is_for_here = |message: &Kept| message.path.is_none() || message.path == self.page;
        let mut taken = Vec::new();
        for (name, message) in waiting(&working).into_iter().filter(|(_, message)| is_for_here(message)) {
            working.edit(Edit::Remove(name))?;
            taken.push(FlashMessage { level: message.level, text: message.text });
        }
        Ok(taken)
    }
}

/// A message as it is stored.
#[derive(Serialize, Deserialize)]
struct Kept {
    level: FlashLevel,
    text: String,
    /// The page that it is for. `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

/// `flash.<time>.<number>.<random>`: they sort by when they were added.
///
/// The number is for those of one millisecond; the random part, for those of two requests.
fn name(now: u64, last: Option<&Bytes>, random: [u8; 5]) -> String {
    let last = last.and_then(|last| place(last));
    let (time, number) = match last {
        // Also where the store's clock went back.
        Some((time, number)) if time >= now => (time, (number + 1).min(999)),
        _ => (now, 0),
    };
    let mut name = format!("{PREFIX}{time:013}.{number:03}.");
    for byte in random {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// The time and the number in the name of a message. `None`: it is not one.
fn place(name: &[u8]) -> Option<(u64, u32)> {
    let mut parts = std::str::from_utf8(name.strip_prefix(PREFIX.as_bytes())?).ok()?.split('.');
    let (time, number, random) = (parts.next()?, parts.next()?, parts.next()?);
    let is_ours = (time.len(), number.len(), random.len()) == (13, 3, 10) && parts.next().is_none();
    is_ours.then_some((time.parse().ok()?, number.parse().ok()?))
}

/// The messages that wait, the oldest first. What only looks like one is the application's, and left alone.
fn waiting(working: &Working) -> Vec<(Bytes, Kept)> {
    let names = working.fields().iter().map(|(name, _)| name).filter(|name| place(name).is_some());
    let message = |name: &Bytes| working.get(std::str::from_utf8(name).ok()?).ok()?;
    names.filter_map(|name| Some((name.clone(), message(name)?))).collect()
}

impl FlashLevel {
    /// `info`, `success`, `warning` or `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Success => "success",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for FlashLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<S, L> FromRequestParts<S> for Flash<L>
where
    S: Sync,
    L: 'static,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let session = Session::<Untyped, L>::asked_for_as::<Self>(&parts.extensions).await?;
        Ok(Self::new(session.handle, Some(parts.uri.path().to_owned()), false))
    }
}

impl<L> Clone for Flash<L> {
    fn clone(&self) -> Self {
        Self::new(self.handle.clone(), self.page.clone(), self.bound)
    }
}

/// No texts.
impl<L> fmt::Debug for Flash<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flash").field("page", &self.page).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_when_their_messages_were_added() {
        let mut last: Option<Bytes> = None;
        for now in [0, 1_780_000_000_000, 1_780_000_000_000, 1_780_000_000_001, 1_780_000_000_000, 1_790_000_000_000] {
            let next = Bytes::from(name(now, last.as_ref(), [255; 5]));
            assert!(last.is_none_or(|last| last < next), "{next:?}");
            assert_eq!(next.len(), PREFIX.len() + 28);
            last = Some(next);
        }
    }

    #[test]
    fn what_only_looks_like_a_message_is_none() {
        assert_eq!(place(b"flash.0000000000001.002.00ff00ff00"), Some((1, 2)));
        for other in [
            "flash",
            "flash.",
            "flash.a.b.c",
            "flash.000000000000x.002.00ff00ff00",
            "flash.0000000000001.002.x",
            "flash.0000000000001.002.00ff00ff00.x",
            "xflash.0000000000001.002.00ff00ff00",
        ] {
            assert_eq!(place(other.as_bytes()), None, "{other}");
        }
    }
}
