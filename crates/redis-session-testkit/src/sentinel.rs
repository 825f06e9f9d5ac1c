//! A primary and replicas that sentinels look after.

use std::time::Duration;

use crate::{
    redis::{Kind, RedisOptions, RedisServer, quoted, start_all, until, until_found},
    replicas::{Replicas, Role, RoleKind},
    resp::Reply,
};

/// What the sentinels call the primary.
const NAME: &str = "sessions";

/// A primary, its replicas, and sentinels that know them all. Dropping it ends them.
///
/// Each is a [`RedisServer`], to be killed, paused, resumed and started again. Methods block (briefly) and panic when
/// something does not come about.
///
/// ```
/// use redis_session_testkit::Sentinels;
///
/// let redis = Sentinels::start();
/// assert!(redis.url().starts_with("redis-sentinel://127.0.0.1:"));
/// assert!(redis.url().ends_with("/sessions"));
///
/// let old = redis.primary();
/// assert_ne!(redis.failover().port(), old.port());
/// assert_ne!(redis.primary().port(), old.port());
/// ```
#[derive(Debug)]
pub struct Sentinels {
    // They go first, or they would begin a failover.
    sentinels: Vec<RedisServer>,
    redis: Replicas,
}

/// A [`Sentinels`] that is still to be started, from [`Sentinels::options`].
///
/// ```
/// use redis_session_testkit::Sentinels;
///
/// let options = Sentinels::options().replicas(1).sentinels(1).sentinel_password("guard");
/// let redis = options.start_with(|options| options.password("secret"));
/// assert!(redis.url().starts_with("redis-sentinel://:secret@127.0.0.1:"));
/// assert_eq!(redis.sentinel_password(), Some("guard"));
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is started before `start`"]
pub struct SentinelOptions {
    replicas: usize,
    sentinels: usize,
    down_after: Duration,
    sentinel_password: Option<String>,
}

impl SentinelOptions {
    /// How many replicas. Default: 2.
    pub fn replicas(self, replicas: usize) -> Self {
        Self { replicas, ..self }
    }

    /// How many sentinels; more than half of them must agree. Default: 3.
    pub fn sentinels(self, sentinels: usize) -> Self {
        Self { sentinels, ..self }
    }

    /// After how long without an answer a sentinel takes a server to be down. Default: one second.
    pub fn down_after(self, down_after: Duration) -> Self {
        Self { down_after, ..self }
    }

    /// The password of the sentinels themselves. Default: none.
    pub fn sentinel_password(self, password: &str) -> Self {
        Self { sentinel_password: Some(password.to_owned()), ..self }
    }

    /// Starts them, and waits until the replicas are in sync and the sentinels know all.
    #[must_use]
    pub fn start(self) -> Sentinels {
        self.start_with(|options| options)
    }

    /// The same with settings for each server that holds data: a [password](RedisOptions::password), users, TLS.
    #[must_use]
    pub fn start_with(self, configure: impl Fn(RedisOptions) -> RedisOptions) -> Sentinels {
        let redis = Replicas::start_with(self.replicas, configure);
        let sentinels = start_all((0..self.sentinels).map(|_| self.sentinel(redis.primary())));
        let this = Sentinels { sentinels, redis };
        until("the sentinels do not get to know all servers", || {
            this.sentinels.iter().all(|sentinel| knows(sentinel, self.replicas, self.sentinels - 1))
        });
        this
    }

    fn sentinel(&self, primary: &RedisServer) -> RedisOptions {
        let quorum = self.sentinels / 2 + 1;
        let mut options = RedisServer::options().kind(Kind::Sentinel);
        options = options
            .setting("sentinel", &format!("monitor {NAME} 127.0.0.1 {} {quorum}", primary.port()))
            .setting("sentinel", &format!("down-after-milliseconds {NAME} {}", self.down_after.as_millis()))
            // Also the time until a failover that came to nothing is tried again (twice this).
            .setting("sentinel", &format!("failover-timeout {NAME} 5000"))
            .setting("sentinel", &format!("parallel-syncs {NAME} {}", self.replicas.max(1)));
        if let Some(password) = primary.password() {
            options = options.setting("sentinel", &format!("auth-pass {NAME} {}", quoted(password)));
        }
        match &self.sentinel_password {
            Some(password) => {
                options.password(password).setting("sentinel", &format!("sentinel-pass {}", quoted(password)))
            }
            None => options,
        }
    }
}

/// Whether this sentinel has found so many replicas and other sentinels, and thinks that all are well.
fn knows(sentinel: &RedisServer, replicas: usize, others: usize) -> bool {
    let all = |what: &str, count: usize| {
        let found = sentinel.run(&["SENTINEL", what, NAME]);
        let well = found.list().iter().map(Reply::map).filter(|one| {
            let link = one.get("master-link-status").is_none_or(|status| status == "ok");
            link && ["slave", "sentinel"].contains(&one["flags"].as_str())
        });
        well.count() == count
    };
    all("REPLICAS", replicas) && all("SENTINELS", others)
}

impl Sentinels {
    /// Starts one primary, two replicas and three sentinels, without passwords.
    #[must_use]
    pub fn start() -> Self {
        Self::options().start()
    }

    /// How many of each, passwords, and then [`start`](SentinelOptions::start).
    pub fn options() -> SentinelOptions {
        SentinelOptions { replicas: 2, sentinels: 3, down_after: Duration::from_secs(1), sentinel_password: None }
    }

    /// The address as an application is told it: `redis-sentinel://[:PASSWORD@]HOST:PORT,HOST:PORT,…/NAME`, with the
    /// addresses of the sentinels and the password of the data's servers.
    #[must_use]
    pub fn url(&self) -> String {
        let credentials = self.redis.primary().password().map(|password| format!(":{password}@")).unwrap_or_default();
        self.url_with(&credentials)
    }

    /// The same for a user of the data's servers.
    #[must_use]
    pub fn url_of(&self, user: &str, password: &str) -> String {
        self.url_with(&format!("{user}:{password}@"))
    }

    fn url_with(&self, credentials: &str) -> String {
        format!("redis-sentinel://{credentials}{}/{NAME}", hosts(&self.sentinels))
    }

    /// The password of the sentinels themselves, which the URL does not say. `None`: they take none.
    #[must_use]
    pub fn sentinel_password(&self) -> Option<&str> {
        self.sentinels.first().and_then(RedisServer::password)
    }

    /// What the sentinels call the primary.
    #[must_use]
    pub fn name(&self) -> &str {
        NAME
    }

    /// The servers that hold data; the one that was started as primary first.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        self.redis.servers()
    }

    /// The sentinels.
    #[must_use]
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// The servers that say now that they are primary (`ROLE`). Two after a failover by hand, and after an old one was
    /// started again: sentinels make a replica of it only after more than eight seconds.
    #[must_use]
    pub fn who_is_primary(&self) -> Vec<&RedisServer> {
        self.servers().iter().filter(|server| says(server, RoleKind::Primary)).collect()
    }

    /// The server of which all sentinels that run say that it is primary, and that says so too; waits until there is one.
    #[must_use]
    pub fn primary(&self) -> &RedisServer {
        until_found("the sentinels do not agree on a primary", || self.agreed())
    }

    /// Lets the sentinels begin a failover by hand (`SENTINEL FAILOVER`), and does not wait for it.
    pub fn begin_failover(&self) {
        until("no sentinel begins a failover", || {
            let command = ["SENTINEL", "FAILOVER", NAME];
            let replies = self.sentinels.iter().filter_map(|sentinel| sentinel.look(&command));
            // Errors: one is under way, or no replica is known to be good enough yet.
            replies.into_iter().any(|reply| reply.error().is_none())
        });
    }

    /// Fails over by hand, and returns the new primary as [`wait_for_new_primary`](Self::wait_for_new_primary) does.
    pub fn failover(&self) -> &RedisServer {
        let old = self.primary();
        self.begin_failover();
        self.wait_for_new_primary(old)
    }

    /// Waits until the sentinels have put another in the place of this primary, and returns it once all sentinels that
    /// run agree on it, and the replicas that run follow it.
    pub fn wait_for_new_primary(&self, old: &RedisServer) -> &RedisServer {
        until_found("the sentinels do not agree on a new primary", || {
            let new = self.agreed().filter(|new| new.port() != old.port())?;
            let mut others = self.servers().iter().filter(|server| ![old.port(), new.port()].contains(&server.port()));
            others.all(|server| !server.is_up() || says(server, RoleKind::Replica)).then_some(new)
        })
    }

    fn agreed(&self) -> Option<&RedisServer> {
        let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
        let replies = self.sentinels.iter().filter_map(|sentinel| sentinel.look(&command));
        let mut ports = replies.map(|reply| reply.list().get(1).map(Reply::int));
        let port = ports.next()??;
        let same = ports.all(|other| other == Some(port));
        let mut servers = self.servers().iter();
        servers.find(|server| same && i64::from(server.port()) == port && says(server, RoleKind::Primary))
    }
}

fn says(server: &RedisServer, kind: RoleKind) -> bool {
    Role::of(server).is_some_and(|role| role.kind == kind)
}

/// Their addresses, as URLs of several hosts have them.
fn hosts(servers: &[RedisServer]) -> String {
    let hosts: Vec<_> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
    hosts.join(",")
}
