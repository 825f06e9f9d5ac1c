//! The contract of an index: which sessions a user has, in one atomic step each, apart from the sessions themselves.
//!
//! A cluster keeps a user's index and his sessions on different servers, so no step touches both. What keeps them
//! together is the order of the steps: a session's entry is written before the session, and an end first *dooms* the
//! entry, so that a login which is under way finds out.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::durability::{Replication, Waited};
use crate::error::{Error, Kind};
use crate::id::SessionKey;
use crate::store::BoxFuture;
use crate::time::Time;
use crate::user::UserKey;

/// A session in a user's list: opaque, and worth nothing as a cookie.
///
/// ```
/// use redis_session_core::SessionHandle;
///
/// let text = "zV8xZ0m3TwKq1pQeN5rYbA"; // from the page that lists the user's devices
/// let handle: SessionHandle = text.parse()?;
/// assert_eq!(handle.to_string(), text);
/// assert!("../admin".parse::<SessionHandle>().is_err());
/// # Ok::<(), redis_session_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionHandle(pub(crate) [u8; 16]);

impl SessionHandle {
    /// Where this session's record is.
    pub fn key(&self, realm: &Arc<str>) -> SessionKey {
        SessionKey::new(realm, self.0)
    }

    /// Base64url, 22 characters.
    pub fn to_text(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

impl fmt::Display for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// Who has a handle can ask who uses it, where he may ask; so none is in a log by accident.
impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionHandle(…)")
    }
}

impl FromStr for SessionHandle {
    type Err = Error;

    /// # Errors
    /// [`is_field`](Error::is_field): no text that a handle has.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut bytes = [0; 16];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(16) => Ok(Self(bytes)),
            _ => Err(Error::new(Kind::Field, "this is not the handle of a session")),
        }
    }
}

/// A list of each user's sessions. [`Store::index`](crate::Store::index) has it.
///
/// Every step first drops the entries that are past their time, and the list of a user ends with its last entry. Times
/// are the index's own clock; only durations come from outside.
pub trait Index: Send + Sync {
    /// Writes the entry of a session that is about to be logged in.
    fn enter<'a>(&'a self, user: &'a UserKey, enter: &'a Enter) -> BoxFuture<'a, Result<Entered, Error>>;

    /// As [`enter`](Self::enter), and then waits until the entry is on so many replicas; not where sessions are always on the
    /// same server as the index, since what waits for the session waits for both. Default: an enter, for indexes whose
    /// answered writes are as safe as they will be.
    fn enter_durably<'a>(
        &'a self,
        user: &'a UserKey,
        enter: &'a Enter,
        replication: Replication,
    ) -> BoxFuture<'a, Result<Waited<Entered>, Error>> {
        let _ = replication;
        Box::pin(async move { self.enter(user, enter).await.map(Waited::enough) })
    }

    /// Prolongs the entry of a living session.
    fn prolong<'a>(&'a self, user: &'a UserKey, prolong: &'a Prolong) -> BoxFuture<'a, Result<Prolonged, Error>>;

    /// Marks entries of sessions that are about to be ended.
    fn doom<'a>(&'a self, user: &'a UserKey, doom: &'a Doom) -> BoxFuture<'a, Result<Doomed, Error>>;

    /// As [`doom`](Self::doom), and then waits until the marks are on so many replicas. Default: a doom.
    fn doom_durably<'a>(
        &'a self,
        user: &'a UserKey,
        doom: &'a Doom,
        replication: Replication,
    ) -> BoxFuture<'a, Result<Waited<Doomed>, Error>> {
        let _ = replication;
        Box::pin(async move { self.doom(user, doom).await.map(Waited::enough) })
    }

    /// Takes entries away. What is not there is no error.
    fn leave<'a>(&'a self, user: &'a UserKey, sessions: &'a [SessionHandle]) -> BoxFuture<'a, Result<(), Error>>;

    /// How one session stands.
    fn standing<'a>(
        &'a self,
        user: &'a UserKey,
        session: SessionHandle,
    ) -> BoxFuture<'a, Result<Option<Standing>, Error>>;

    /// All sessions of a user that are not doomed. Writes nothing.
    fn sessions<'a>(&'a self, user: &'a UserKey) -> BoxFuture<'a, Result<Vec<SessionHandle>, Error>>;
}

/// How long the revocation of a user's sessions is remembered: longer than any login may be under way.
pub const REVOCATION_STAYS: Duration = Duration::from_secs(120);

/// How long the entry of a session stays after it: an entry must not go before its session. It covers the deadline of an
/// operation, and what the clocks of two servers gain on each other in the life of a session.
pub const ENTRY_STAYS: Duration = Duration::from_secs(60);

/// A session that is about to be logged in.
#[derive(Clone, Debug)]
pub struct Enter {
    /// Which session.
    pub session: SessionHandle,
    /// How long the entry stays.
    pub life: Duration,
    /// The most sessions that the user may have. `None`: any number.
    pub cap: Option<usize>,
    /// How old what the login relies on is: its request, or the check of the password.
    pub age: Duration,
    /// An entry of the same login that came to nothing. `None`: there is none.
    pub instead_of: Option<SessionHandle>,
    /// Not to be run later.
    pub not_after: Time,
}

/// How an enter ended. Checked in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It came after its `not_after`; nothing was written.
    Late,
    /// The user's sessions were ended after what the login relies on.
    Revoked,
    /// This very session is about to be ended.
    Doomed,
    /// The entry is there.
    Entered {
        /// How long ago the user's sessions were ended. `None`: not lately.
        since_revoked: Option<Duration>,
        /// Sessions that are about to be ended: by this login over the cap, or left so by a process that died.
        doomed: Vec<SessionHandle>,
    },
}

/// The entry of a living session is to stay longer.
#[derive(Clone, Debug)]
pub struct Prolong {
    /// Which session.
    pub session: SessionHandle,
    /// How long the entry stays.
    pub life: Duration,
    /// Whether the entry is written where there is none. Only by who knows that the session is this user's and lives.
    pub add: bool,
    /// Not to be run later.
    pub not_after: Time,
}

/// How a prolong ended. Checked in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prolonged {
    /// It came after its `not_after`; nothing was written.
    Late,
    /// The session is about to be ended.
    Doomed,
    /// There is no entry.
    Missing,
    /// The entry stays.
    Prolonged,
}

/// Sessions are to be ended.
#[derive(Clone, Debug)]
pub struct Doom {
    /// Which ones.
    pub which: Which,
    /// Not to be run later.
    pub not_after: Time,
}

/// Which of a user's sessions are to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// This one. Logins under way are not concerned.
    Only(SessionHandle),
    /// All but this one, and the logins under way.
    AllBut(SessionHandle),
    /// All, and the logins under way.
    All,
}

/// How a doom ended. Checked in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doomed {
    /// It came after its `not_after`; nothing was written.
    Late,
    /// The session that was to stay is itself about to be ended.
    Yourself,
    /// The session that was to stay, or the one that was to go, has no entry.
    Missing,
    /// These are doomed: end them, then let them leave.
    Doomed(Vec<SessionHandle>),
}

/// How a session stands in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is one of the user's sessions.
    Listed,
    /// It is about to be ended.
    Doomed,
}
