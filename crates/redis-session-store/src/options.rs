//! How to reach Redis, and how long to wait for it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis_session_core::{Error, Kind};

use crate::RedisStore;
use crate::bell::Bell;
use crate::store::Operations;
use crate::target::{Settings, Target, Way};
use crate::tls::Tls;
use crate::topology::Topology;

/// The settings of a [`RedisStore`], from [`RedisStore::options`].
///
/// ```no_run
/// use redis_session_store::RedisStore;
/// use std::time::Duration;
///
/// # async fn connect() -> Result<(), redis_session_core::Error> {
/// let store = RedisStore::options("redis://:password@10.0.0.5:6379/2")
///     .prefix("shop:")
///     .deadline(Duration::from_millis(500))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "nothing is connected before `connect`"]
pub struct RedisStoreOptions {
    way: Result<Way, Error>,
    prefix: String,
    settings: Settings,
    pub(crate) tls: Tls,
    plain: Plain,
    wait: bool,
}

/// Where no TLS is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plain {
    Anywhere,
    /// Only where nobody is between us and Redis: on a unix socket, or on this machine.
    AtHome,
}

impl RedisStoreOptions {
    pub(crate) fn new(way: Result<Way, Error>) -> Self {
        let settings =
            Settings { deadline: Duration::from_millis(250), connect_deadline: Duration::from_secs(1), clients: 1 };
        let (prefix, tls, plain) = ("sess:".to_owned(), Tls::default(), Plain::Anywhere);
        Self { way, prefix, settings, tls, plain, wait: true }
    }

    /// Who to be to Redis. Default: what the URL says. Rather than writing it there in percent-encoding.
    pub fn user(self, user: impl Into<String>) -> Self {
        self.with(|target| target.user(user.into()))
    }

    /// The password. Default: the URL's.
    pub fn password(self, password: impl Into<String>) -> Self {
        self.with(|target| target.password(password.into()))
    }

    /// The database, from 0. Default: the URL's, which is 0 where it says nothing.
    pub fn database(self, database: u8) -> Self {
        self.with(|target| target.database(database))
    }

    fn with(self, change: impl FnOnce(Target) -> Target) -> Self {
        self.with_way(|way| Way { target: change(way.target), ..way })
    }

    fn with_way(self, change: impl FnOnce(Way) -> Way) -> Self {
        Self { way: self.way.map(change), ..self }
    }

    /// Who to be to Sentinels, where they ask for it. Default: nobody; they are not told the user of the servers.
    pub fn sentinel_user(self, user: impl Into<String>) -> Self {
        self.with_way(|way| Way { sentinel: (Some(user.into()), way.sentinel.1), ..way })
    }

    /// The password of Sentinels. Default: none; they are not told that of the servers.
    pub fn sentinel_password(self, password: impl Into<String>) -> Self {
        self.with_way(|way| Way { sentinel: (way.sentinel.0, Some(password.into())), ..way })
    }

    /// Says where we reach a server that the others announce at a host and a port: behind NAT, in Docker, or by a name
    /// that its certificate is for. Default: where it is announced. Those that the URL names are taken as they are until others name them.
    ///
    /// ```no_run
    /// # use redis_session_store::RedisStore;
    /// let options = RedisStore::options("rediss-cluster://redis.example.com")
    ///     .map_address(|_, port| ("redis.example.com".to_owned(), port));
    /// ```
    pub fn map_address(self, map: impl Fn(&str, u16) -> (String, u16) + Send + Sync + 'static) -> Self {
        self.with_way(|way| Way { map: Some(Arc::new(map)), ..way })
    }

    /// Refuses to connect where sessions and the password would leave this machine in clear: by TCP without TLS to
    /// another host than `localhost`, `127.0.0.1` and the like, or `[::1]`. Default: it is for you to know the network.
    pub fn refuse_plain_tcp(self) -> Self {
        Self { plain: Plain::AtHome, ..self }
    }

    /// What the names of all keys begin with. Default: `sess:`. Two applications on one Redis database take two.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// The longest that an operation takes, whatever Redis does. Default: 250 milliseconds, many times what Redis needs
    /// and short enough for a visitor not to notice. From 10 milliseconds to 30 seconds: a tombstone lives for a minute.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// The longest that [`connect`](Self::connect) waits, and that each later try to connect again takes. Where a cluster or
    /// Sentinels cannot be used by then, it asks them why, for up to 300 milliseconds more. Default: one second, which leaves
    /// room for one lost packet. From 10 milliseconds to one minute.
    pub fn connect_deadline(mut self, deadline: Duration) -> Self {
        self.settings.connect_deadline = deadline;
        self
    }

    /// How many connections: 1, the default, or 2, so that one serves while the other connects again. All requests
    /// share them; more would be slower, since each would carry less at a time.
    pub fn clients(mut self, clients: usize) -> Self {
        self.settings.clients = clients;
        self
    }

    /// Lets [`connect`](Self::connect) succeed at once, whether Redis is there or not, and wrong credentials show in
    /// operations only. Default: `connect` waits and says what is wrong. Either way the store connects by itself as
    /// soon as Redis is there, and again whenever it was away.
    pub fn start_without_redis(self) -> Self {
        Self { wait: false, ..self }
    }

    /// Connects. Call it inside a Tokio runtime, which then also runs the connection.
    ///
    /// # Errors
    /// [`is_config`](Error::is_config): a setting, the URL, the password or a certificate is wrong; the text says what
    /// to write.
    /// [`is_unavailable`](Error::is_unavailable): Redis cannot be reached within the connect deadline; the text says
    /// which one.
    pub async fn connect(self) -> Result<RedisStore, Error> {
        let way = self.way?;
        check(&self.settings)?;
        let way = way.ready(self.tls, self.plain == Plain::AtHome).await?;
        let wait_by = self.wait.then(|| Instant::now() + self.settings.connect_deadline);
        let server = Topology::start(&way, &self.settings, wait_by).await?;
        let operations = Operations { server, prefix: self.prefix.clone(), deadline: self.settings.deadline };
        let operations = Arc::new(operations);
        let servers = Arc::downgrade(&operations);
        let post = move |now: Option<&Target>| servers.upgrade()?.server.listening_post(now);
        let bell = Arc::new(Bell::new(post, self.settings, self.prefix));
        Ok(RedisStore { operations, bell, place: way.to_string().into() })
    }
}

fn check(settings: &Settings) -> Result<(), Error> {
    let wrong = |text| Err(Error::new(Kind::Config, text));
    let least = Duration::from_millis(10);
    if !(least..=Duration::from_secs(30)).contains(&settings.deadline) {
        return wrong("the deadline of the Redis store must be between 10 milliseconds and 30 seconds");
    }
    if !(least..=Duration::from_secs(60)).contains(&settings.connect_deadline) {
        return wrong("the connect deadline of the Redis store must be between 10 milliseconds and one minute");
    }
    if !(1..=2).contains(&settings.clients) {
        return wrong("the Redis store takes 1 or 2 clients: more are slower");
    }
    Ok(())
}

/// Without credentials.
impl fmt::Debug for RedisStoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreOptions")
            .field("redis", &self.way.as_ref().map(ToString::to_string))
            .field("prefix", &self.prefix)
            .field("settings", &self.settings)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
