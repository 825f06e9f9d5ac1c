//! Sessions for Axum, kept in Redis: no lost write, no session that comes back, no cost before it is used.
//!
//! Add a [`RedisSessionLayer`] to a router, and extract a [`Session`] in its handlers:
//!
//! ```
//! use axum::{Form, Router, response::Redirect, routing::{get, post}};
//! use redis_session::{Error, Expiry, KeyRing, MemoryStore, RedisSessionLayer, Session};
//! use serde::{Deserialize, Serialize};
//! use std::time::Duration;
//!
//! #[derive(Clone, Default, Serialize, Deserialize)]
//! #[serde(default)]
//! struct Visitor {
//!     cart: Vec<Item>,
//! }
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Item {
//!     name: String,
//! }
//!
//! async fn add(mut visitor: Session<Visitor>, Form(item): Form<Item>) -> Result<Redirect, Error> {
//!     visitor.update_with(item, |visitor, item| visitor.cart.push(item))?;
//!     Ok(Redirect::to("/cart"))
//! }
//!
//! async fn cart(visitor: Session<Visitor>) -> String {
//!     format!("{} things in your cart", visitor.cart.len())
//! }
//!
//! # fn main() -> Result<(), Error> {
//! // In production: RedisSessionLayer::connect("redis://127.0.0.1", KeyRing::from_env("SESSION_KEY")?).await?
//! let sessions = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?)
//!     .expiry(Expiry::idle(Duration::from_secs(1800)).absolute(Duration::from_secs(12 * 3600)));
//! let app: Router = Router::new().route("/add", post(add)).route("/cart", get(cart)).layer(sessions);
//! # Ok(())
//! # }
//! ```
//!
//! # What happens in a request
//!
//! 1. The layer puts a handle into the request. The cookie is not even looked at.
//! 2. The first extractor reads the session: one `HGETALL`, and none for a visitor without a session's cookie.
//! 3. Handlers work on a copy; every change is kept as an edit.
//! 4. When the response leaves, one script checks that the session lives, that its id holds and that nobody saved
//!    meanwhile, and writes what changed. If somebody did, the edits are made again on what is there now. A session that
//!    ended stays ended: nothing is written, and the response is served as it is.
//!
//! Nothing is written for a request that only reads, but for the idle timeout once in a while ([`Expiry::touch_every`]).
//!
//! # Where to go from here
//!
//! - [`Session`]: what handlers can do. [`RedisSessionLayer`]: settings, and two layers in one application.
//! - [`CsrfLayer`], [`Flash`], [`ClearSiteData`]: forms, what is said on the next page, a logout that clears the browser.
//! - [`Expiry`], [`Cookie`], [`KeyRing`]: timeouts, attributes, keys. [`Tenant`]: one application, many customers.
//! - [`RedisStore::options`]: deadlines, prefix, start without Redis. [`RedisSessionLayer::close`]: the end of a process.
//!   [`Store`]: a store of your own. [`Durability`]: writes that a failover does not undo.
//! - [`Error`]: what can go wrong, and a page of your own for it. [`Observer`]: metrics and audit logs.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod adopt;
mod clear;
mod client;
mod commit;
mod cookie;
mod csrf;
mod ended;
mod ending;
mod error;
mod events;
mod extract;
mod finish;
mod flash;
mod guards;
mod handle;
mod headers;
mod layer;
mod listing;
mod log_in;
mod people;
mod queue;
mod return_to;
mod scan;
mod service;
mod session;
mod sessions;
mod tenants;
mod tries;

pub use redis_session_core::{
    Clock, Durability, Expiry, KeyRing, Kind, Level, MemoryStore, ReadFrom, Reason, SessionHandle, State, Store, Why,
    or_default,
};
#[cfg(feature = "tls")]
pub use redis_session_store::Tls;
pub use redis_session_store::{Advice, RedisStore, RedisStoreOptions, ServerStatus, fred};

pub use crate::adopt::{Lives, OldSession, Predecessor};
pub use crate::clear::ClearSiteData;
pub use crate::cookie::{Cookie, SameSite};
pub use crate::csrf::{Csrf, CsrfFuture, CsrfLayer, CsrfToken};
pub use crate::error::Error;
pub use crate::events::{CsrfRefusal, Event, Observer, Refusal};
pub use crate::flash::{Flash, FlashLevel, FlashMessage};
pub use crate::guards::{Denied, Fresh, LoggedIn, LoginRequired, RequireLogin};
pub use crate::layer::{IfNotSaved, IfReused, IfUnavailable, Main, RedisSessionLayer, Renew, SaveOn};
pub use crate::people::LoggingIn;
pub use crate::return_to::ReturnTo;
pub use crate::service::{RedisSession, ResponseFuture};
pub use crate::session::{Session, Status, Untyped};
pub use crate::sessions::{Exported, Listing, Progress, Sessions};
pub use crate::tenants::Tenant;
