//! The contract of a store: load, create, save and end one record, each in one atomic step, and the clock.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::durability::{Replication, Waited};
use crate::error::{Error, Kind};
use crate::expiry::{Life, Wishes};
use crate::fields::{Changes, Fields};
use crate::id::{Proof, SessionKey};
use crate::index::Index;
use crate::read_from::Replicas;
use crate::record::{Level, Login, Previous, Reason, Record, ReplacedBy, Stored, Token, Tombstone};
use crate::rules::Rule;
use crate::time::Time;
use crate::user::User;

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where sessions are kept. [`MemoryStore`](crate::MemoryStore) and the crate `redis-session-store` have one each.
///
/// Every operation is one atomic step and makes its checks in the order that its reply enum lists them. An error with
/// [`is_unavailable`](Error::is_unavailable) says that nothing was changed; one with
/// [`is_outcome_unknown`](Error::is_outcome_unknown) says that the step may have run, and the caller sends the same
/// again. The crate `redis-session-testkit` has the contract as a suite that runs on any store.
pub trait Store: Send + Sync + 'static {
    /// The store's clock. `None`: not known yet, which is so only before the first answer.
    fn now(&self) -> Option<Time>;

    /// The longest that one operation takes: it answers by then, whatever happens. Whoever writes also has this long
    /// in all, tries again included. Default: 250 milliseconds.
    fn deadline(&self) -> Duration {
        Duration::from_millis(250)
    }

    /// Reads what is at a key; `None` if nothing is. Writes nothing.
    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>>;

    /// Writes a new record, only where there is nothing.
    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, Error>>;

    /// Changes a living record: fields, proof, wishes, and its idle timeout.
    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>>;

    /// Puts a tombstone in the place of a record.
    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>>;

    /// As [`create`](Self::create), and then waits until the record is on so many replicas: the answer comes within the
    /// deadline and the time to wait. Default: a create, for stores whose answered writes are as safe as they will be.
    fn create_durably<'a>(
        &'a self,
        key: &'a SessionKey,
        create: &'a Create,
        replication: Replication,
    ) -> BoxFuture<'a, Result<Waited<Created>, Error>> {
        let _ = replication;
        Box::pin(async move { self.create(key, create).await.map(Waited::enough) })
    }

    /// As [`save`](Self::save), and then waits, as [`create_durably`](Self::create_durably) does. Also for a write that an
    /// earlier copy has made. Default: a save.
    fn save_durably<'a>(
        &'a self,
        key: &'a SessionKey,
        save: &'a Save,
        replication: Replication,
    ) -> BoxFuture<'a, Result<Waited<Saved>, Error>> {
        let _ = replication;
        Box::pin(async move { self.save(key, save).await.map(Waited::enough) })
    }

    /// As [`end`](Self::end), and then waits, as [`create_durably`](Self::create_durably) does. Also for a session that had
    /// ended already. Default: an end.
    fn end_durably<'a>(
        &'a self,
        key: &'a SessionKey,
        end: &'a End,
        replication: Replication,
    ) -> BoxFuture<'a, Result<Waited<Ended>, Error>> {
        let _ = replication;
        Box::pin(async move { self.end(key, end).await.map(Waited::enough) })
    }

    /// As [`load`](Self::load), without the application's fields: for lists of sessions. Default: a load.
    fn glance<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        self.load(key)
    }

    /// Its replicas, where it knows of some. Default: `None`, and so every read is one of the server that makes the writes.
    fn replicas(&self) -> Option<&dyn Replicas> {
        None
    }

    /// Which sessions a user has. Default: `None`, and so nobody can be logged in.
    fn index(&self) -> Option<&dyn Index> {
        None
    }

    /// Tells a listener of the sessions that are ended from now on, by whatever server. A store may miss some, so whoever
    /// waits for an end also looks by himself once in a while. Default: tells nothing.
    fn on_end(&self, listener: EndListener) {
        let _ = listener;
    }

    /// Some of the sessions of a realm, whoever's they are: all of them in as many calls as it takes, from `None` until
    /// none is next. Sessions that begin meanwhile may be missed. Default: an error, since not every store can.
    fn page<'a>(&'a self, realm: &'a Arc<str>, from: Option<PageMark>) -> BoxFuture<'a, Result<Page, Error>> {
        let _ = (realm, from);
        Box::pin(async { Err(Error::new(Kind::Config, "this store cannot go through all of its sessions")) })
    }
}

/// Is told which session has ended; `None`: any may have, since news were lost.
pub type EndListener = Arc<dyn Fn(Option<&SessionKey>) + Send + Sync>;

/// Where a [`Page`] begins; its meaning is the store's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageMark(pub String);

/// Some of a store's sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Where they are. One may come twice.
    pub sessions: Vec<SessionKey>,
    /// Where the next page begins. `None`: this was the last one.
    pub next: Option<PageMark>,
}

/// A new record.
#[derive(Clone, Debug)]
pub struct Create {
    /// Its first version.
    pub token: Token,
    /// Not to be run later.
    pub not_after: Time,
    /// The hash of its proving half.
    pub proof: Proof,
    /// The layer's policy.
    pub life: Life,
    /// What the session itself asks for; `remember` counts from the creation.
    pub wish: WishChange,
    /// Who is logged in. `None`: nobody.
    pub login: Option<LogIn>,
    /// Its fields.
    pub fields: Fields,
}

/// A login, as a write brings it.
#[derive(Clone, PartialEq, Eq)]
pub struct LogIn {
    /// Who.
    pub user: User,
    /// How well he has proved it.
    pub level: Level,
    /// What the application calls the device. `None`: nothing.
    pub label: Option<String>,
    /// How long ago the request arrived that logs him in.
    pub waited: Duration,
}

/// Without the label, which tells something about its user.
impl fmt::Debug for LogIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogIn").field("level", &self.level).field("waited", &self.waited).finish_non_exhaustive()
    }
}

impl LogIn {
    /// The login after a write at `now`.
    pub fn at(&self, now: Time) -> Login {
        let Self { user, level, label, waited } = self.clone();
        Login { user, at: now, arrived: now - waited, level, label }
    }
}

/// How a create ended. Checked in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there; also when the same create ran before and its reply was lost.
    Created {
        /// The creation time.
        at: Time,
    },
    /// Something else is at the key.
    Exists,
    /// It came after its `not_after`.
    Late,
}

/// A change to a record.
#[derive(Clone, Debug)]
pub struct Save {
    /// The version that this write gives the record. `None`: a touch, which renews the idle timeout and no more.
    pub token: Option<Token>,
    /// Tokens under which this request tried before, with unknown outcome.
    pub earlier: Vec<Token>,
    /// Not to be run later.
    pub not_after: Time,
    /// The proof that the request came with.
    pub proof: Proof,
    /// The version that the request read.
    pub base: Token,
    /// Whether the changes mean the same on any recent version, and not only on `base`.
    pub merges: bool,
    /// What happens to the fields.
    pub changes: Changes,
    /// What becomes of the proof.
    pub step: Step,
    /// Whether the idle timeout is renewed. Sessions with a user are renewed in step with their entry in the index.
    pub renews: bool,
    /// What changes in the session's own wishes.
    pub wish: WishChange,
    /// The layer's policy.
    pub life: Life,
    /// The most bytes that names and values may have afterwards. Not checked on the very version that is `base`: there
    /// the caller knows the size, and may shrink what a smaller limit finds too large.
    pub limit: usize,
}

/// What a save does to the proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// The request came with the proof that a timed renewal has handed out: the one before it has had its time.
    Seen,
    /// A new one, and the old one is worth nothing from then on.
    Rotate(Proof),
    /// A new one; the old one stays good until the new one was seen, and for a short grace after that.
    Renew(Proof),
    /// A new one, and a user, who has the whole absolute timeout before him. From a session of nobody the old one is kept, for a second click: who comes with it and logs
    /// the same user in gets the same answer, for a minute. It is good for nothing else.
    LogIn(Proof, LogIn),
}

impl Step {
    /// The proof that takes the place of the present one. `None`: it stays.
    pub fn new_proof(&self) -> Option<Proof> {
        match self {
            Self::Keep | Self::Seen => None,
            Self::Rotate(proof) | Self::Renew(proof) | Self::LogIn(proof, _) => Some(*proof),
        }
    }

    /// What a save at `now` makes of the record's proofs, user and beginning, for a request that came with this proof.
    pub fn take(&self, record: &mut Record, presented: Proof, now: Time) {
        let old = record.proof;
        let previous = |by| Some(Previous { proof: old, by, at: now });
        match self {
            Self::Keep => {}
            Self::Seen => {
                if let Some(previous) = record.previous.as_mut().filter(|_| presented == old)
                    && previous.by == ReplacedBy::Renewal
                {
                    (previous.by, previous.at) = (ReplacedBy::SeenRenewal, now);
                }
            }
            Self::Rotate(new) => {
                let left = record.previous.filter(|_| !Rule::RotationsClearThePrevious.holds());
                (record.proof, record.previous, record.proved) = (*new, left, now);
            }
            Self::Renew(new) if *new == old => {}
            Self::Renew(new) => (record.proof, record.previous) = (*new, previous(ReplacedBy::Renewal)),
            Self::LogIn(new, login) => {
                let left = record.previous.filter(|_| !Rule::LoginsClearARenewal.holds());
                record.previous = if record.login.is_none() { previous(ReplacedBy::Login) } else { left };
                // Who has just proved who he is gets the whole absolute timeout (NIST SP 800-63B, 5.2).
                (record.created, record.seen) = (now, now);
                let mut login = login.at(now);
                if login.label.is_none() {
                    let before = record.login.take().filter(|before| before.user == login.user);
                    login.label = before.and_then(|before| before.label);
                }
                (record.proof, record.proved, record.login) = (*new, now, Some(Box::new(login)));
            }
        }
    }
}

/// What a write changes in a session's [`Wishes`]. The outer `None` leaves a wish as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WishChange {
    /// Its own idle timeout in milliseconds, or the layer's again.
    pub idle: Option<Option<u64>>,
    /// To be remembered for so many milliseconds from this write on, or not any more.
    pub remember: Option<Option<u64>>,
}

impl WishChange {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The wishes after a write at `now`.
    pub fn apply(&self, wishes: Wishes, now: Time) -> Wishes {
        Wishes {
            idle: self.idle.unwrap_or(wishes.idle),
            remembered: match self.remember {
                None => wishes.remembered,
                Some(remember) => remember.map(|ms| now + Duration::from_millis(ms)),
            },
        }
    }
}

/// How a save ended. Checked in this order, but for `Saved`, which also stands for "ran before".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saved {
    /// There is no record, or it is past its deadline.
    Gone,
    /// The session ended less than a minute ago.
    Ended(Tombstone),
    /// Done, now or by an earlier copy of the same request.
    Saved {
        /// The version before this write. `None`: older than what is kept. A touch names the present version.
        before: Option<Token>,
        /// The store's time; of a rotation or a login that ran before, the time when it did.
        at: Time,
    },
    /// It came after its `not_after`; nothing was written.
    Late,
    /// The same user was logged in with this very proof less than a minute before the request arrived; nothing was
    /// written.
    LoggedInAlready,
    /// The proof is not, or no longer, the record's.
    Replaced,
    /// The record has moved on from the base; here it is.
    Moved(Box<Record>),
    /// This field cannot be incremented; nothing was written.
    Refused(Bytes),
    /// The fields would be over the limit; nothing was written.
    TooLarge,
}

/// The end of a record.
#[derive(Clone, Debug)]
pub struct End {
    /// Not to be run later.
    pub not_after: Time,
    /// Why it ends.
    pub reason: Reason,
    /// Whose record ends; any other stays.
    pub whose: Whose,
}

/// Whose record an end is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Nobody's, and with this proof: who knows only one that was replaced meanwhile ends nothing.
    Nobodys(Proof),
    /// This user's.
    Users(User),
    /// That of any user who logged in by a request that had arrived before.
    ArrivedBefore(Time),
    /// Whosever, if it is past its deadline by this policy, so that one that was renewed meanwhile stays.
    Expired(Life),
}

/// How an end ended. Checked in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// There was nothing. A tombstone was left all the same where its reason asks for that.
    Gone,
    /// It had ended already.
    Already(Tombstone),
    /// It came after its `not_after`; nothing was written.
    Late,
    /// It is nobody's any more, or nobody's yet; nothing was written.
    Nobodys,
    /// It is somebody else's, or its proof was replaced; nothing was written.
    Others,
    /// It is not past its deadline; nothing was written.
    Alive,
    /// It ended now.
    Ended,
}
