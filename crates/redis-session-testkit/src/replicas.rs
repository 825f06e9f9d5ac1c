//! A primary and its replicas.

use crate::{
    redis::{RedisOptions, RedisServer, start_all, until},
    resp::Reply,
};

/// A primary with replicas, all in sync when it has started. Dropping it ends them.
///
/// Its methods block (briefly) and panic when something does not come about.
///
/// ```
/// use redis_session_testkit::Replicas;
///
/// let redis = Replicas::start(1);
/// redis.primary().run(&["SET", "greeting", "hello"]);
/// redis.wait_until_in_sync();
/// assert_eq!(redis.replicas()[0].run(&["GET", "greeting"]).text(), "hello");
/// assert!(redis.replicas()[0].command(&["DEL", "greeting"]).error().unwrap().starts_with("READONLY"));
/// ```
#[derive(Debug)]
pub struct Replicas {
    /// The primary first.
    servers: Vec<RedisServer>,
}

impl Replicas {
    /// Starts a primary with so many replicas.
    #[must_use]
    pub fn start(replicas: usize) -> Self {
        Self::start_with(replicas, |options| options)
    }

    /// The same with settings for each server: a [password](RedisOptions::password), users, TLS.
    ///
    /// ```
    /// # use redis_session_testkit::Replicas;
    /// let redis = Replicas::start_with(2, |options| options.password("secret").setting("min-replicas-to-write", "1"));
    /// assert!(redis.primary().url().starts_with("redis://:secret@127.0.0.1:"));
    /// ```
    #[must_use]
    pub fn start_with(replicas: usize, configure: impl Fn(RedisOptions) -> RedisOptions) -> Self {
        let servers = start_all((0..=replicas).map(|_| configure(replicating(RedisServer::options()))));
        let this = Self { servers };
        for replica in this.replicas() {
            replica.run(&["REPLICAOF", "127.0.0.1", &this.primary().announced_port().to_string()]);
            // Kept for a restart.
            replica.run(&["CONFIG", "REWRITE"]);
        }
        this.wait_until_in_sync();
        this
    }

    /// The server that was started as the primary.
    #[must_use]
    pub fn primary(&self) -> &RedisServer {
        &self.servers[0]
    }

    /// The servers that were started as replicas.
    #[must_use]
    pub fn replicas(&self) -> &[RedisServer] {
        &self.servers[1..]
    }

    /// Waits until all replicas have what the primary has now.
    pub fn wait_until_in_sync(&self) {
        let has = Role::of(self.primary()).map_or(0, |role| role.offset);
        until("the replicas do not get in sync with the primary", || {
            self.replicas().iter().all(|replica| {
                Role::of(replica).is_some_and(|role| role.kind == RoleKind::Replica && role.offset >= has)
            })
        });
    }

    pub(crate) fn servers(&self) -> &[RedisServer] {
        &self.servers
    }
}

/// Settings of servers that replicate to each other: a test neither waits for more replicas to come before the first
/// gets its data, nor finds on disk what was only on its way.
pub(crate) fn replicating(options: RedisOptions) -> RedisOptions {
    options.setting("repl-diskless-sync-delay", "0").setting("rdb-del-sync-files", "yes")
}

/// What a server says of itself in replication.
pub(crate) struct Role {
    pub(crate) kind: RoleKind,
    /// How many bytes of the stream of writes it has.
    pub(crate) offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoleKind {
    Primary,
    /// A replica whose link is up and in sync.
    Replica,
    /// A replica that is still on its way.
    Cut,
}

impl Role {
    /// `None`: it is dead or frozen.
    pub(crate) fn of(server: &RedisServer) -> Option<Self> {
        let Reply::List(parts) = server.look(&["ROLE"])? else { return None };
        let (kind, offset) = match &parts[..] {
            [role, offset, ..] if role.text() == "master" => (RoleKind::Primary, offset.int()),
            [_, _, _, link, offset] if link.text() == "connected" => (RoleKind::Replica, offset.int()),
            _ => (RoleKind::Cut, -1),
        };
        Some(Self { kind, offset })
    }
}
