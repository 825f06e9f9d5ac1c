//! The store of redis-session on Redis: keys, Lua scripts, replies and the way to the servers.
//!
//! Applications use the crate `redis-session`, which makes a [`RedisStore`] from a URL. This crate is for those who
//! want its settings, or the store without HTTP.
//!
//! It needs one Redis server (tested with version 7), and a user who may do this, for the default prefix:
//!
//! ```text
//! ACL SETUSER shop on >password ~sess:* &sess:ended +hgetall +time +evalsha +eval
//!     +hmget +hget +hkeys +hset +hdel +hincrby +exists +del +pexpire +pexpireat
//!     +zadd +zscore +zrange +zrangebyscore +zrem +zremrangebyscore +scan +publish +subscribe +ping +hello
//!     +client|id +info
//! ```
//!
//! (and `+select` for another database than 0).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod advice;
mod bell;
mod clock;
mod health;
mod index;
mod node;
mod options;
mod script;
mod server;
mod store;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod url;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis_session_core::{
    BoxFuture, Create, Created, Doom, Doomed, End, EndListener, Ended, Enter, Entered, Error, Index, Page, PageMark,
    Prolong, Prolonged, Save, Saved, SessionHandle, SessionKey, Standing, Store, Stored, Time, UserKey,
};

/// The Redis client in the version that [`RedisStore::from_pool`] takes pools of.
pub use fred;

pub use crate::advice::Advice;
pub use crate::options::RedisStoreOptions;
#[cfg(feature = "tls")]
pub use crate::tls::Tls;

use crate::bell::Bell;
use crate::node::{Node, Target};
use crate::store::Operations;

/// Sessions in Redis, each a hash with a time to live, changed only by scripts that check first.
///
/// Cheap to clone; the clones share the connection, which closes with the last of them. Every operation ends within
/// the deadline (250 milliseconds by default), whatever Redis does, and the connection is made anew by itself.
///
/// ```no_run
/// use redis_session_core::{Random, SessionId, Store};
/// use redis_session_store::RedisStore;
///
/// # async fn look() -> Result<(), redis_session_core::Error> {
/// let store = RedisStore::connect("redis://127.0.0.1").await?;
/// let key = SessionId::random(&Random::system())?.key(&"main".into());
/// assert_eq!(store.load(&key).await?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    operations: Arc<Operations<Node>>,
    bell: Arc<Bell>,
    place: Arc<str>,
}

impl RedisStore {
    /// Connects to `redis://[[user]:password@]host[:port][/database]` with the default settings, or by TLS to
    /// `rediss://…` (feature `tls`), or to the unix socket `redis+unix://[[user]:password@]/path[?db=1&user=…&pass=…]`.
    ///
    /// # Errors
    /// As [`RedisStoreOptions::connect`].
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::options(url).connect().await
    }

    /// Settings, and then [`connect`](RedisStoreOptions::connect), which also tells what is wrong with the URL.
    pub fn options(url: &str) -> RedisStoreOptions {
        RedisStoreOptions::new(url::Url::parse(url).map(Target::of_url))
    }

    /// Connects to where a pool of the application's does: its server, user, password, database and TLS. The pool
    /// itself is left alone: sessions need other settings, and get a connection of their own.
    ///
    /// # Errors
    /// As [`RedisStoreOptions::connect`]; also [`is_config`](Error::is_config) if it is a pool of a cluster or of
    /// Sentinel.
    pub async fn from_pool(pool: &fred::clients::Pool) -> Result<Self, Error> {
        Self::pool_options(pool).connect().await
    }

    /// As [`from_pool`](Self::from_pool), with settings.
    pub fn pool_options(pool: &fred::clients::Pool) -> RedisStoreOptions {
        RedisStoreOptions::new(Target::of_pool(pool))
    }

    /// Asks Redis for the time, for a health check of the application's. Changes nothing.
    ///
    /// # Errors
    /// [`is_unavailable`](Error::is_unavailable): it did not answer within the deadline.
    pub async fn ping(&self) -> Result<Time, Error> {
        self.operations.ping().await
    }

    /// Waits until Redis answers, for as long as it takes, after a
    /// [start without it](RedisStoreOptions::start_without_redis). Put a timeout around it where that is too long; then
    /// [`ping`](Self::ping) says why there was no answer.
    ///
    /// ```no_run
    /// # use redis_session_store::RedisStore;
    /// # async fn start() -> Result<(), redis_session_core::Error> {
    /// let store = RedisStore::options("redis://127.0.0.1").start_without_redis().connect().await?;
    /// // … what else has to be started …
    /// store.ready().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ready(&self) {
        let mut pause = Duration::from_millis(10);
        while self.ping().await.is_err() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// What to change about this Redis: a policy that evicts sessions of visitors who are logged in, nothing on disk, a
    /// setting that costs memory. Nothing if all is well. To be logged at start:
    ///
    /// ```no_run
    /// # use redis_session_store::RedisStore;
    /// # async fn start() -> Result<(), redis_session_core::Error> {
    /// let store = RedisStore::connect("redis://127.0.0.1").await?;
    /// for advice in store.advise().await? {
    ///     tracing::warn!("{advice}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It runs `INFO` and `CONFIG GET`. The printed rule does not allow the second, since settings hold passwords: then
    /// [`Advice::NotAllowed`] says what was not looked at, and Redis writes an entry into its `ACL LOG`.
    ///
    /// # Errors
    /// [`is_unavailable`](Error::is_unavailable): it did not answer within the deadline.
    pub async fn advise(&self) -> Result<Vec<Advice>, Error> {
        self.operations.advise().await
    }
}

impl Store for RedisStore {
    fn now(&self) -> Option<Time> {
        self.operations.clock.now()
    }

    fn deadline(&self) -> Duration {
        self.operations.deadline
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        in_place(|| self.operations.load(key))
    }

    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, Error>> {
        in_place(|| self.operations.create(key, create))
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>> {
        in_place(|| self.operations.save(key, save))
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>> {
        in_place(|| self.operations.end(key, end))
    }

    fn glance<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        Box::pin(self.operations.glance(key))
    }

    fn index(&self) -> Option<&dyn Index> {
        Some(self)
    }

    fn on_end(&self, listener: EndListener) {
        self.bell.listen(listener);
    }

    fn page<'a>(&'a self, realm: &'a Arc<str>, from: Option<PageMark>) -> BoxFuture<'a, Result<Page, Error>> {
        Box::pin(self.operations.page(realm, from))
    }
}

impl Index for RedisStore {
    fn enter<'a>(&'a self, user: &'a UserKey, enter: &'a Enter) -> BoxFuture<'a, Result<Entered, Error>> {
        Box::pin(self.operations.enter(user, enter))
    }

    fn prolong<'a>(&'a self, user: &'a UserKey, prolong: &'a Prolong) -> BoxFuture<'a, Result<Prolonged, Error>> {
        Box::pin(self.operations.prolong(user, prolong))
    }

    fn doom<'a>(&'a self, user: &'a UserKey, doom: &'a Doom) -> BoxFuture<'a, Result<Doomed, Error>> {
        Box::pin(self.operations.doom(user, doom))
    }

    fn leave<'a>(&'a self, user: &'a UserKey, sessions: &'a [SessionHandle]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.operations.leave(user, sessions))
    }

    fn standing<'a>(
        &'a self,
        user: &'a UserKey,
        session: SessionHandle,
    ) -> BoxFuture<'a, Result<Option<Standing>, Error>> {
        Box::pin(self.operations.standing(user, session))
    }

    fn sessions<'a>(&'a self, user: &'a UserKey) -> BoxFuture<'a, Result<Vec<SessionHandle>, Error>> {
        Box::pin(self.operations.sessions(user))
    }
}

/// A future made where it stays: `Box::pin` makes it on the stack first, and the Redis client's take five kilobytes.
fn in_place<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(Box::write(Box::new_uninit(), make()))
}

/// Where it is and its prefix; no credentials.
impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("redis", &self.place)
            .field("prefix", &self.operations.prefix)
            .finish_non_exhaustive()
    }
}
