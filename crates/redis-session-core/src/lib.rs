//! The rules of redis-session: ids, keys, edits, the typed view, expiry, the plan, and the contract of a store.
//!
//! Applications use the crate `redis-session`, which re-exports what they need. This crate is for those who write a
//! [`Store`] of their own, or who want the rules without HTTP. It does no I/O, knows neither HTTP nor Redis, and reads
//! no clock other than the store's.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod csrf;
mod depth;
mod durability;
mod edit;
mod error;
mod expiry;
mod fields;
mod id;
mod index;
mod key_ring;
mod lenient;
mod memory;
mod plan;
mod random;
mod read_from;
mod record;
mod rules;
mod steps;
mod store;
mod time;
mod user;
mod view;
mod working;

pub use csrf::FormOf;
pub use durability::{Durability, Replication, Waited};
pub use edit::{Edit, Replay};
pub use error::{Error, Kind};
pub use expiry::{Expiry, Life, Wishes};
pub use fields::{Change, Changes, Fields};
pub use id::{Proof, SessionId, SessionKey};
pub use index::{
    Doom, Doomed, ENTRY_STAYS, Enter, Entered, Index, Prolong, Prolonged, REVOCATION_STAYS, SessionHandle, Standing,
    Which,
};
pub use key_ring::{Derivation, KeyId, KeyRing, Signer, Unverified};
pub use lenient::or_default;
pub use memory::MemoryStore;
pub use plan::{Found, Plan, Successor, Why, Wish, look_at};
pub use random::Random;
pub use read_from::{Read, ReadFrom, ReplicaRead, Replicas};
pub use record::{Level, Login, Previous, Reason, Record, ReplacedBy, Stored, Token, Tokens, Tombstone};
#[doc(hidden)]
pub use rules::Rule;
pub use steps::Kept;
pub use store::{
    BoxFuture, Create, Created, End, EndListener, Ended, LogIn, Page, PageMark, Save, Saved, Step, Store, Whose,
    WishChange,
};
pub use time::{Clock, Time};
pub use user::{User, UserKey};
pub use view::{State, View};
pub use working::{Staged, Working};
