//! The store of redis-session on Redis: keys, Lua scripts, replies and the way to the servers.
//!
//! Applications use the crate `redis-session`, which makes a [`RedisStore`] from a URL. This crate is for those who
//! want its settings, or the store without HTTP.
//!
//! It needs Redis 7.0 or newer or Valkey (tested with Redis 7 and 8 and Valkey 8), and a user who may do this, for the
//! default prefix:
//!
//! ```text
//! ACL SETUSER shop on >password ~sess:* &sess:ended +hgetall +time +evalsha +eval
//!     +hmget +hget +hkeys +hset +hdel +hincrby +exists +del +pexpire +pexpireat
//!     +zadd +zscore +zrange +zrangebyscore +zrem +zremrangebyscore +scan +publish +subscribe +ping +hello
//!     +client|id +info
//! ```
//!
//! (and `+select` for another database than 0). On a cluster he also needs `+cluster|info +cluster|slots +asking`, and
//! behind Sentinels `+role`. One whose writes wait for replicas (`Durability::Replicated`) needs `+wait`, one who reads from
//! those of a cluster (`ReadFrom::Replicas`) `+readonly`.
//!
//! A user of the Sentinels themselves may do this:
//!
//! ```text
//! ACL SETUSER shop on >password &* +sentinel|get-master-addr-by-name +sentinel|master +sentinel|replicas
//!     +sentinel|sentinels +subscribe +ping +hello +client|id +info
//! ```
//!
//! # Where the servers are
//!
//! | URL | what it reaches |
//! | --- | --- |
//! | `redis://host:6379/0` | one server |
//! | `rediss://host:6379/0` | the same by TLS (feature `tls`); `rediss-cluster` and `rediss-sentinel` as well |
//! | `redis+unix:///run/redis/redis.sock?db=0` | one server by its unix socket |
//! | `redis-cluster://host:6379,host:6379` | a cluster; any of its servers are enough to find the others |
//! | `redis-sentinel://host:26379,host:26379/mymaster/0` | the primary that these Sentinels, and those that they know, name so |
//!
//! Each begins its host with `user:password@` where one is needed.
//!
//! **On a cluster** the servers say themselves which of them has a key, and the newest word counts. A slot on its way
//! from one to another is served from both sides. Where a server goes, the sessions of the others are served as before,
//! if the cluster lets them (`cluster-require-full-coverage no`); its own wait for its replica for as long as one
//! operation may take, and after that get errors at once until the replica serves. A user's list of sessions and the
//! sessions themselves are on different servers, and no step needs two of them.
//!
//! **Behind Sentinels** the way goes to the primary that the newest word names and that calls itself one. While a
//! failover is under way the replicas themselves are asked, each hundredth of a second, so that a promotion is known
//! before Sentinel tells of it: what the old primary still acknowledges after it is lost.
//!
//! Replication is asynchronous in both: a write that a primary acknowledged a moment before it went may be lost. One that
//! [`save_durably`](Store::save_durably) and its like make is acknowledged once it is on so many replicas too: `WAIT` goes
//! behind its script on the same connection, of which there are up to 16 for each server, made when they are needed.
//!
//! Reads go to the primary, unless they are [those that a replica may answer](Replicas::read). From the first of these on,
//! replicas are compared with their primary four times a second (`INFO replication`), and one is asked only if it is known to
//! have all that was written until as long ago as the caller allows. Those of a cluster get a connection more for it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod advice;
mod bell;
mod clock;
mod health;
mod index;
mod lane;
mod node;
mod options;
mod script;
mod server;
mod status;
mod store;
mod subscription;
mod target;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod topology;
mod url;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis_session_core::{
    BoxFuture, Create, Created, Doom, Doomed, End, EndListener, Ended, Enter, Entered, Error, Index, Page, PageMark,
    Prolong, Prolonged, Read, ReplicaRead, Replicas, Replication, Save, Saved, SessionHandle, SessionKey, Standing,
    Store, Stored, Time, UserKey, Waited,
};

/// The Redis client in the version that [`RedisStore::from_pool`] takes pools of.
pub use fred;

pub use crate::advice::Advice;
pub use crate::options::RedisStoreOptions;
pub use crate::status::ServerStatus;
#[cfg(feature = "tls")]
pub use crate::tls::Tls;

use crate::bell::Bell;
use crate::server::Server;
use crate::store::Operations;
use crate::target::Way;
use crate::topology::Topology;

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
    operations: Arc<Operations<Topology>>,
    bell: Arc<Bell>,
    place: Arc<str>,
}

impl RedisStore {
    /// Connects to `redis://[[user]:password@]host[:port][/database]` with the default settings, or by TLS to
    /// `rediss://…` (feature `tls`), or to the unix socket `redis+unix://[[user]:password@]/path[?db=1&user=…&pass=…]`;
    /// to a cluster with `redis-cluster://host:port[,host:port…]`, and to a primary behind Sentinels with
    /// `redis-sentinel://host:port[,host:port…]/name[/database]`.
    ///
    /// # Errors
    /// As [`RedisStoreOptions::connect`].
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::options(url).connect().await
    }

    /// Settings, and then [`connect`](RedisStoreOptions::connect), which also tells what is wrong with the URL.
    pub fn options(url: &str) -> RedisStoreOptions {
        RedisStoreOptions::new(url::Url::parse(url).map(Way::of_url))
    }

    /// Connects to where a pool of the application's does: its server, cluster or Sentinels, users, passwords, database
    /// and TLS, with the names that it has for addresses (`TlsHostMapping`; by `DefaultHost`, all are called as the first
    /// host is; without the feature `tls` of this crate they are not known, and each certificate must be for the host that
    /// its server announces). The pool itself is left alone: sessions need other settings, and get a connection of their own.
    ///
    /// # Errors
    /// As [`RedisStoreOptions::connect`].
    pub async fn from_pool(pool: &fred::clients::Pool) -> Result<Self, Error> {
        Self::pool_options(pool).connect().await
    }

    /// As [`from_pool`](Self::from_pool), with settings.
    pub fn pool_options(pool: &fred::clients::Pool) -> RedisStoreOptions {
        RedisStoreOptions::new(Ok(Way::of_pool(pool)))
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
    /// All primaries of a cluster are asked, and behind Sentinels the primary is; [`Advice::At`] says which one differs.
    /// It runs `INFO` and `CONFIG GET`. The printed rule does not allow the second, since settings hold passwords: then
    /// [`Advice::NotAllowed`] says what was not looked at, and Redis writes an entry into its `ACL LOG`.
    ///
    /// # Errors
    /// [`is_unavailable`](Error::is_unavailable): one of them did not answer within the deadline.
    pub async fn advise(&self) -> Result<Vec<Advice>, Error> {
        self.operations.advise().await
    }

    /// All servers that the store knows, as this process finds them: the single one, those of a cluster, or a primary and
    /// its replicas behind Sentinels. Asks nobody, so it is cheap enough for each look of a metrics collector.
    pub fn servers(&self) -> Vec<ServerStatus> {
        self.operations.server.statuses()
    }
}

impl Store for RedisStore {
    fn now(&self) -> Option<Time> {
        self.operations.server.now()
    }

    fn deadline(&self) -> Duration {
        self.operations.deadline
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        in_place(|| self.operations.load(key))
    }

    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, Error>> {
        in_place(|| async move { Ok(self.operations.create(key, create, None).await?.outcome) })
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>> {
        in_place(|| async move { Ok(self.operations.save(key, save, None).await?.outcome) })
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>> {
        in_place(|| async move { Ok(self.operations.end(key, end, None).await?.outcome) })
    }

    fn create_durably<'a>(
        &'a self,
        key: &'a SessionKey,
        create: &'a Create,
        replication: Replication,
    ) -> BoxFuture<'a, Result<Waited<Created>, Error>> {
        in_place(|| self.operations.create(key, create, Some(replication)))
    }

    fn save_durably<'a>(
        &'a self,
        key: &'a SessionKey,
        save: &'a Save,
        replication: Replication,
    ) -> BoxFuture<'a, Result<Waited<Saved>, Error>> {
        in_place(|| self.operations.save(key, save, Some(replication)))
    }

    fn end_durably<'a>(
        &'a self,
        key: &'a SessionKey,
        end: &'a End,
        replication: Replication,
    ) -> BoxFuture<'a, Result<Waited<Ended>, Error>> {
        in_place(|| self.operations.end(key, end, Some(replication)))
    }

    fn glance<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        Box::pin(self.operations.glance(key))
    }

    fn replicas(&self) -> Option<&dyn Replicas> {
        self.operations.server.knows_replicas().then_some(self)
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

impl Replicas for RedisStore {
    fn read<'a>(&'a self, key: &'a SessionKey, read: &'a ReplicaRead) -> BoxFuture<'a, Result<Read, Error>> {
        in_place(|| self.operations.read(key, read))
    }
}

impl Index for RedisStore {
    fn enter<'a>(&'a self, user: &'a UserKey, enter: &'a Enter) -> BoxFuture<'a, Result<Entered, Error>> {
        in_place(|| async move { Ok(self.operations.enter(user, enter, None).await?.outcome) })
    }

    fn enter_durably<'a>(
        &'a self,
        user: &'a UserKey,
        enter: &'a Enter,
        replication: Replication,
    ) -> BoxFuture<'a, Result<Waited<Entered>, Error>> {
        in_place(|| self.operations.enter(user, enter, Some(replication)))
    }

    fn prolong<'a>(&'a self, user: &'a UserKey, prolong: &'a Prolong) -> BoxFuture<'a, Result<Prolonged, Error>> {
        Box::pin(self.operations.prolong(user, prolong))
    }

    fn doom<'a>(&'a self, user: &'a UserKey, doom: &'a Doom) -> BoxFuture<'a, Result<Doomed, Error>> {
        in_place(|| async move { Ok(self.operations.doom(user, doom, None).await?.outcome) })
    }

    fn doom_durably<'a>(
        &'a self,
        user: &'a UserKey,
        doom: &'a Doom,
        replication: Replication,
    ) -> BoxFuture<'a, Result<Waited<Doomed>, Error>> {
        in_place(|| self.operations.doom(user, doom, Some(replication)))
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
