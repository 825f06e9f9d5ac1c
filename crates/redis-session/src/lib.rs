//! Sessions for Axum, kept in Redis: no lost write, no session that comes back, no cost before it is used.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod commit;
mod cookie;
mod error;
mod events;
mod extract;
mod finish;
mod handle;
mod headers;
mod layer;
mod queue;
mod scan;
mod service;
mod session;

pub use redis_session_core::{Clock, Expiry, KeyRing, Kind, MemoryStore, Reason, State, Store, Why};
pub use redis_session_store::{RedisStore, RedisStoreOptions, fred};

pub use crate::cookie::{Cookie, SameSite};
pub use crate::error::Error;
pub use crate::events::{Event, Observer, Refusal};
pub use crate::layer::{IfNotSaved, Main, RedisSessionLayer, Renew, SaveOn};
pub use crate::service::{RedisSession, ResponseFuture};
pub use crate::session::{Session, Status, Untyped};
