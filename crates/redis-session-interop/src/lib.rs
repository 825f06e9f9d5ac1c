//! Other people's sessions on redis-session: what is written for another library runs on its layer. Each feature names the
//! library that it is for; none is on by itself.
//!
//! | feature | what there is |
//! | --- | --- |
//! | `tower-sessions` | `tower_sessions`: their `Session` on our layer, for axum-login, axum-messages and handlers of one's own; our stores under their layer; their stores under ours; and their sessions taken over, live |
//!
//! Whatever extracts a `tower_sessions::Session` works unchanged, here a handler of one's own; for axum-login see
//! `TowerSessionsLayer::axum_login`:
//!
#![cfg_attr(feature = "tower-sessions", doc = "```")]
#![cfg_attr(not(feature = "tower-sessions"), doc = "```ignore")]
//! use axum::{Router, routing::get};
//! use redis_session::{KeyRing, MemoryStore, RedisSessionLayer};
//! use redis_session_interop::tower_sessions::TowerSessionsLayer;
//! use tower_sessions::Session;
//!
//! async fn count(session: Session) -> Result<String, tower_sessions::session::Error> {
//!     let visits: u32 = session.get("visits").await?.unwrap_or_default();
//!     session.insert("visits", visits + 1).await?;
//!     Ok(format!("visit {}", visits + 1))
//! }
//!
//! # fn main() -> Result<(), redis_session::Error> {
//! // In production: RedisSessionLayer::connect("redis://127.0.0.1", KeyRing::from_env("SESSION_KEY")?).await?
//! let sessions = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?);
//! let app: Router = Router::new()
//!     .route("/", get(async |session: Session| count(session).await.unwrap_or_else(|error| error.to_string())))
//!     .layer(TowerSessionsLayer::new()) // in the place of their SessionManagerLayer …
//!     .layer(sessions); // … and ours around it
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(feature = "tower-sessions")]
pub mod tower_sessions;

/// The guide, compiled.
#[cfg(all(doctest, feature = "tower-sessions"))]
#[doc = include_str!("../../../docs/from-tower-sessions.md")]
mod guide {}
