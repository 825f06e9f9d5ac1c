//! What can go wrong: one opaque error with predicates for what a caller can act on.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// An error of a session or its store.
///
/// Its text names the thing (`field "cart" is not valid JSON`) and never holds ids, keys or session data. Ask the
/// predicates what to do; the cause, where there is one, is kept as [`source`](StdError::source) for the log.
///
/// ```
/// use redis_session_core::{Error, Kind};
///
/// let error = Error::new(Kind::Unavailable, "the store did not answer in time");
/// assert!(error.is_unavailable());
/// assert_eq!(error.to_string(), "the store did not answer in time");
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: Kind,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kinds of [`Error`], for those who make one: stores of one's own, and the HTTP crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The store cannot be reached, or refuses to work now; nothing was changed.
    Unavailable,
    /// The write may or may not have run, and which of the two cannot be found out.
    OutcomeUnknown,
    /// The write was made, and is not on as many replicas as it was to be.
    NotReplicated,
    /// The session ended, expired, or its id was replaced.
    Gone,
    /// The response has left; an edit would be lost.
    Committed,
    /// The session moved again and again until the deadline.
    Contended,
    /// The state is over the size limit.
    TooLarge,
    /// A field that cannot be decoded, encoded or edited that way.
    Field,
    /// The stored record is not one that this library wrote for this key.
    Corrupt,
    /// A setting that cannot work, found at start.
    Config,
    /// The application's own closure panicked while it was run again.
    Panicked,
    /// The random generator of the system failed.
    Random,
    /// There is no layer for this session around the handler.
    NoLayer,
    /// A user's id that cannot be one, or is not of the type asked for.
    User,
    /// A login that came before, or while, the user's sessions were ended.
    LoginRefused,
    /// Nobody is logged in.
    NotLoggedIn,
    /// Somebody is, but not as freshly or as well as is asked for.
    StepUp,
    /// A request that another site may have made the visitor's browser send.
    Csrf,
    /// A request of nobody whose sessions the layer has.
    UnknownTenant,
}

impl Error {
    /// A new error. The message is lower-case, has no full stop, and holds no secret.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), source: None }))
    }

    /// A new error with its cause. The cause reaches the log, never the client.
    pub fn caused(
        kind: Kind,
        message: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), source: Some(source.into()) }))
    }

    /// An error about one field, named in the text in a bounded and escaped form.
    pub fn field(name: &[u8], problem: impl fmt::Display) -> Self {
        let name: String = String::from_utf8_lossy(name).chars().take(64).collect();
        Self::new(Kind::Field, format!("field {name:?} {problem}"))
    }

    /// What kind of error this is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The store cannot be reached or refuses to work; the session is as it was. Worth a retry later.
    pub fn is_unavailable(&self) -> bool {
        self.0.kind == Kind::Unavailable
    }

    /// The write may or may not have run. Load again to see; do not simply repeat it.
    pub fn is_outcome_unknown(&self) -> bool {
        self.0.kind == Kind::OutcomeUnknown
    }

    /// The write was made and stands, but is not on as many replicas as it was to be: it is lost if another server takes
    /// over now. Do not repeat it.
    pub fn is_not_replicated(&self) -> bool {
        self.0.kind == Kind::NotReplicated
    }

    /// The session ended, expired or was replaced; nothing was written.
    pub fn is_gone(&self) -> bool {
        self.0.kind == Kind::Gone
    }

    /// The response has left already, so that an edit could not be saved with it.
    pub fn is_committed(&self) -> bool {
        self.0.kind == Kind::Committed
    }

    /// Others changed the session again and again until the deadline; nothing was written.
    pub fn is_contended(&self) -> bool {
        self.0.kind == Kind::Contended
    }

    /// The state would be, or is, over the size limit; nothing was written.
    pub fn is_too_large(&self) -> bool {
        self.0.kind == Kind::TooLarge
    }

    /// One field cannot be decoded, encoded or edited that way; the text names it.
    pub fn is_field(&self) -> bool {
        self.0.kind == Kind::Field
    }

    /// The stored record is not one that belongs to this key; it was not served.
    pub fn is_corrupt(&self) -> bool {
        self.0.kind == Kind::Corrupt
    }

    /// A user's id is empty, too long, or not of the type asked for.
    pub fn is_user(&self) -> bool {
        self.0.kind == Kind::User
    }

    /// The login was refused, since the user's sessions were ended meanwhile. Nobody is logged in.
    pub fn is_login_refused(&self) -> bool {
        self.0.kind == Kind::LoginRefused
    }

    /// Nobody is logged in.
    pub fn is_not_logged_in(&self) -> bool {
        self.0.kind == Kind::NotLoggedIn
    }

    /// Somebody is logged in, but not as freshly or as well as is asked for: he has to prove once more who he is.
    pub fn is_step_up(&self) -> bool {
        self.0.kind == Kind::StepUp
    }

    /// The request may be another site's doing: it comes from there, or without the token of the visitor's own page.
    pub fn is_csrf(&self) -> bool {
        self.0.kind == Kind::Csrf
    }

    /// The request is of no tenant that the application knows, so there are no sessions for it.
    pub fn is_unknown_tenant(&self) -> bool {
        self.0.kind == Kind::UnknownTenant
    }

    /// A setting cannot work; the text says what to write instead.
    pub fn is_config(&self) -> bool {
        self.0.kind == Kind::Config
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
