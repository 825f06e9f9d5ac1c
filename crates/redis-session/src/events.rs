//! What happens to sessions, told to the log and to an observer of the application's. Fixed words only: no ids, no data.

use redis_session_core::{Kind, Reason, Why};

/// Something that happened to a session.
///
/// Every event is a `tracing` event too, of the target `redis_session`, with the fields `event`, `realm` and, where
/// there is one, `reason`. None carries ids, field names or data, so all are fit for metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// A visitor got a session.
    Created,
    /// The edits of a request were saved, in so many tries; more than one where others saved at the same time.
    Saved {
        /// Commands sent.
        tries: u32,
    },
    /// The idle timeout of a session was renewed, and nothing else.
    Touched,
    /// The id of a session was replaced.
    Rotated,
    /// A session is remembered beyond its timeouts, or no longer.
    Remembered,
    /// A user was logged in.
    LoggedIn,
    /// A login was refused, since its user's sessions were ended meanwhile.
    LoginRefused,
    /// A user logged out.
    LoggedOut,
    /// The session of a user was ended from elsewhere, or for the sake of another one.
    Revoked(Reason),
    /// Somebody came with a cookie that a timed renewal had replaced long before: a copy that was kept. See
    /// [`Observer::reused`] for whose it was.
    Reused,
    /// A session is used from another network or browser than before: see [`Session::note_client`](crate::Session::note_client).
    ClientChanged,
    /// The application ended a session.
    Destroyed,
    /// A session was found past its deadline.
    Expired,
    /// A cookie did not lead to a session.
    Refused(Refusal),
    /// A [`CsrfLayer`](crate::CsrfLayer) let a request not through.
    RequestRefused(CsrfRefusal),
    /// A session of the software that was here before was taken over.
    TakenOver,
    /// The edits of a request were dropped.
    Dropped(Why),
    /// A request of no known tenant asked for a session. See [`RedisSessionLayer::tenants`](crate::RedisSessionLayer::tenants).
    UnknownTenant,
    /// A write was made and stands, but was not on as many replicas in time as it was to be ([`Durability`](crate::Durability)).
    NotReplicated,
    /// The store failed, or its record was refused.
    StoreFailed(Kind),
}

/// Why a cookie did not lead to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Its value is of no form that this library writes.
    Malformed,
    /// It is signed with a key that is not, or no longer, in the ring.
    UnknownKey,
    /// It is not signed by us for this realm and cookie name.
    BadSignature,
    /// There were several valid ones, or more than four different ones.
    SeveralIds,
    /// The Cookie lines have more than 128 KiB.
    HeaderTooLarge,
    /// Nothing is stored for its id, which expired, was evicted, or is of another database.
    Unknown,
    /// Its session has ended lately.
    Ended,
    /// Its id was replaced.
    Replaced,
}

/// Why a request was not let through by a [`CsrfLayer`](crate::CsrfLayer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CsrfRefusal {
    /// The browser says that another site has made it send the request (`Sec-Fetch-Site`).
    CrossSite,
    /// Its `Origin` is another one than the application's.
    ForeignOrigin,
    /// There is a session, and no token.
    NoToken,
    /// The token is none of ours, of another session, or of the time before the login.
    WrongToken,
    /// The form has more bytes than are read to look for its token.
    FormTooLarge,
}

/// Is told what happens to the sessions of a layer: for metrics, audit logs, alarms.
///
/// It is called within requests, so it must not block. A panic in it is caught and logged.
///
/// ```
/// use redis_session::{Event, MemoryStore, KeyRing, Observer, RedisSessionLayer, Refusal};
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// static FORGED: AtomicU64 = AtomicU64::new(0);
///
/// struct Metrics;
///
/// impl Observer for Metrics {
///     fn observe(&self, event: Event) {
///         if event == Event::Refused(Refusal::BadSignature) {
///             FORGED.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let layer = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?).observer(Metrics);
/// # let _: RedisSessionLayer = layer;
/// # Ok::<(), redis_session::Error>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn observe(&self, event: Event);

    /// Somebody has a copy of an old cookie of this user, named as in [`log_in`](crate::Session::log_in): a stolen cookie
    /// looks like that, and a restored backup of a browser. Told beside [`Event::Reused`]. Default: nothing.
    ///
    /// # Security
    /// This is the only place where an observer gets to know a user. Keep it out of metric labels.
    fn reused(&self, user: &str) {
        let _ = user;
    }
}

impl Event {
    /// The name of the event: a fixed word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Saved { .. } => "saved",
            Self::Touched => "touched",
            Self::Rotated => "rotated",
            Self::Remembered => "remembered",
            Self::TakenOver => "taken over",
            Self::LoggedIn => "logged in",
            Self::LoginRefused => "login refused",
            Self::LoggedOut => "logged out",
            Self::Revoked(_) => "revoked",
            Self::Reused => "reused",
            Self::ClientChanged => "client changed",
            Self::Destroyed => "destroyed",
            Self::Expired => "expired",
            Self::Refused(_) => "refused",
            Self::RequestRefused(_) => "request refused",
            Self::Dropped(_) => "dropped",
            Self::UnknownTenant => "unknown tenant",
            Self::NotReplicated => "not replicated",
            Self::StoreFailed(_) => "store failed",
        }
    }

    /// Why, as a fixed word; empty where the name says it all.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.as_str(),
            Self::RequestRefused(refusal) => refusal.as_str(),
            Self::Revoked(reason) => reason.as_str(),
            Self::Dropped(Why::Failed) => "the response says that the request failed",
            Self::Dropped(Why::Dead) => "the session ended or its id was replaced",
            Self::StoreFailed(kind) => match kind {
                Kind::Unavailable => "unavailable",
                Kind::OutcomeUnknown => "outcome unknown",
                Kind::Contended => "contended",
                Kind::TooLarge => "too large",
                Kind::Corrupt => "corrupt record",
                Kind::Field => "field",
                _ => "other",
            },
            _ => "",
        }
    }
}

impl Refusal {
    fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown key",
            Self::BadSignature => "bad signature",
            Self::SeveralIds => "several ids",
            Self::HeaderTooLarge => "header too large",
            Self::Unknown => "unknown",
            Self::Ended => "ended",
            Self::Replaced => "replaced",
        }
    }
}

impl CsrfRefusal {
    fn as_str(self) -> &'static str {
        match self {
            Self::CrossSite => "cross-site",
            Self::ForeignOrigin => "foreign origin",
            Self::NoToken => "no token",
            Self::WrongToken => "wrong token",
            Self::FormTooLarge => "form too large",
        }
    }
}

/// Tells the log of an error of the store, with its causes: they name no ids and no data.
pub(crate) fn log_failure(error: &redis_session_core::Error, realm: &str) {
    let event = Event::StoreFailed(error.kind());
    let (name, reason) = (event.name(), event.reason());
    tracing::warn!(target: "redis_session", event = name, reason, realm, error = error as &dyn std::error::Error);
}

/// Tells the log of a write that is not on as many replicas as it was to be.
pub(crate) fn log_missed(error: &redis_session_core::Error, realm: &str) {
    let event = Event::NotReplicated.name();
    tracing::warn!(target: "redis_session", event, realm, error = error as &dyn std::error::Error);
}

/// Tells the log.
pub(crate) fn log(event: Event, realm: &str) {
    let (name, reason) = (event.name(), event.reason());
    match event {
        Event::Saved { .. } | Event::Touched => {
            tracing::trace!(target: "redis_session", event = name, realm);
        }
        Event::Refused(_) | Event::RequestRefused(_) | Event::Dropped(_) => {
            tracing::debug!(target: "redis_session", event = name, reason, realm);
        }
        // Told with its cause, by who has it.
        Event::StoreFailed(_) | Event::NotReplicated => {}
        _ => tracing::debug!(target: "redis_session", event = name, realm),
    }
}
