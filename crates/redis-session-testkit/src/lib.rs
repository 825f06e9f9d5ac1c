//! Tests for redis-session and its users: a store contract as a suite, an own redis-server, browsers and faults.
//!
//! - [`RedisServer`]: a redis-server of the test's own, which can be paused, killed and restarted.
//! - [`Replicas`], [`Sentinels`], [`Cluster`]: several of them, as a primary and its replicas, guarded, or sharded.
//! - [`Proxy`]: stands before a Redis, counts commands, and loses, delays or answers single ones.
//! - [`Browser`]: cookies as a browser keeps them, before a router in the same process or ([`HttpBrowser`]) a server.
//! - [`slack`]: what a busy machine may add to a bound of time.
//! - `Authority` (feature `tls`): certificates for a redis-server with TLS.
//! - `Chromium` (feature `chromium`): a real browser.
//!
//! What a test cannot go on without panics, with a line that says what is missing.
//!
//! ```
//! use redis_session_testkit::{Action, Proxy, RedisServer};
//!
//! let redis = RedisServer::start();
//! let proxy = Proxy::start(redis.address());
//! proxy.fault_next("EVALSHA", Action::DropReply);
//! // … connect the application to `proxy.url()`, act, and look into Redis:
//! assert!(redis.run(&["HGETALL", "sess:nobody"]).map().is_empty());
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod browser;
#[cfg(feature = "chromium")]
mod chromium;
mod cluster;
mod connection;
mod contract;
mod jar;
mod lines;
mod process;
mod proxy;
mod redis;
mod replicas;
mod resp;
mod sentinel;
mod slack;
#[cfg(feature = "tls")]
mod tls;

pub use browser::{Browser, HttpBrowser, Page, Wire};
#[cfg(feature = "chromium")]
pub use chromium::{Chromium, Window};
pub use cluster::{Cluster, ClusterOptions, SlotMove};
pub use contract::{fast_contract, store_contract};
pub use jar::{Cookie, CookieJar, Received};
pub use proxy::{Action, Command, Proxy};
pub use redis::{RedisOptions, RedisServer};
pub use replicas::Replicas;
pub use resp::Reply;
pub use sentinel::{SentinelOptions, Sentinels};
pub use slack::slack;
#[cfg(feature = "tls")]
pub use tls::{Authority, Identity};
