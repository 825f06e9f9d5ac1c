//! The contract of a store: load, create, save and end one record, each in one atomic step, and the clock.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Error;
use crate::expiry::{Life, Wishes};
use crate::fields::{Changes, Fields};
use crate::id::{Proof, SessionKey};
use crate::record::{Reason, Record, Stored, Token, Tombstone};
use crate::time::Time;

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
    /// Its fields.
    pub fields: Fields,
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
    /// The proof that takes the place of the present one.
    pub new_proof: Option<Proof>,
    /// What changes in the session's own wishes.
    pub wish: WishChange,
    /// The layer's policy.
    pub life: Life,
    /// The most bytes that names and values may have afterwards. Not checked on the very version that is `base`: there
    /// the caller knows the size, and may shrink what a smaller limit finds too large.
    pub limit: usize,
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
        /// The store's time.
        at: Time,
    },
    /// It came after its `not_after`; nothing was written.
    Late,
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
    /// The proof that the request came with: who knows only one that was replaced meanwhile ends nothing. `None`: it
    /// ends whatever its proof is.
    pub proof: Option<Proof>,
    /// For [`Reason::Expired`]: the policy by which it is past its deadline, so that one that was renewed meanwhile
    /// stays. `None`: it ends whatever its deadline is.
    pub expired_by: Option<Life>,
}

/// How an end ended. Checked in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// There was nothing.
    Gone,
    /// It had ended already.
    Already(Tombstone),
    /// It came after its `not_after`; nothing was written.
    Late,
    /// The proof is not, or no longer, the record's; nothing was written.
    Replaced,
    /// It is not past its deadline; nothing was written.
    Alive,
    /// It ended now.
    Ended,
}
