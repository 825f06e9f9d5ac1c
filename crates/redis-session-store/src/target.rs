//! Where servers are, who we are to them, and how clients to them are set up.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, SubscriberClient};
use fred::error::{Error as FredError, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::config::{Blocking, Config, Options, ReconnectPolicy, Server, ServerConfig};
use fred::types::{Builder, ClusterHash, CustomCommand, RespVersion, Value};
use redis_session_core::{Error, Kind};

use crate::node::{AbortOnDrop, word};
use crate::tls::{self, Tls};
use crate::url::{Place, Shape, Url, without_brackets};

/// The way to the servers, as a URL or a pool says it.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) shape: Shape,
    /// Who we are to servers with keys. It is at the first of the seeds.
    pub(crate) target: Target,
    /// The servers that are asked where the others are: some of a cluster, or Sentinels.
    pub(crate) seeds: Vec<Address>,
    /// Who we are to Sentinels.
    pub(crate) sentinel: (Option<String>, Option<String>),
    pub(crate) map: Option<MapAddress>,
}

/// Where we reach a server that announces this host and port.
pub(crate) type MapAddress = Arc<dyn Fn(&str, u16) -> (String, u16) + Send + Sync>;

impl Way {
    pub(crate) fn of_url(url: Url) -> Self {
        let seeds = url.servers.iter().filter_map(|place| match place {
            Place::Tcp { host, port, .. } => Some(Address::new(host.clone(), *port)),
            Place::Socket(_) => None,
        });
        let (seeds, shape) = (seeds.collect(), url.shape.clone());
        Self { shape, seeds, target: Target::of_url(url), sentinel: (None, None), map: None }
    }

    pub(crate) fn of_pool(pool: &fred::clients::Pool) -> Self {
        let config = pool.client_config();
        let seeds: Vec<_> =
            config.server.hosts().iter().map(|server| Address::new(server.host.to_string(), server.port)).collect();
        let (shape, sentinel) = match &config.server {
            ServerConfig::Clustered { .. } => (Shape::Cluster, (None, None)),
            ServerConfig::Sentinel { service_name, username, password, .. } => {
                (Shape::Sentinel(service_name.clone()), (username.clone(), password.clone()))
            }
            _ => (Shape::Single, (None, None)),
        };
        let place = match config.server.hosts().first() {
            Some(socket) if config.server.is_unix_socket() => socket.host.to_string(),
            _ => seeds.first().map_or_else(|| "nowhere".to_owned(), ToString::to_string),
        };
        let target = Target { config, place, is_sentinel: false, tls: false, at_home: false, server_name: None };
        Self { shape, target, seeds, sentinel, map: None }
    }

    /// Checks what only a whole way can tell, and adds TLS.
    pub(crate) async fn ready(self, tls: Tls, at_home: bool) -> Result<Self, Error> {
        if self.shape == Shape::Cluster && self.target.config.database.is_some() {
            return Err(Error::new(Kind::Config, "a Redis Cluster has the database 0 only: leave the number out"));
        }
        if self.seeds.is_empty() && self.shape != Shape::Single {
            return Err(Error::new(
                Kind::Config,
                "no server of the cluster and no Sentinel is named: name one or more",
            ));
        }
        if at_home {
            self.target.check_that_nobody_listens()?;
        }
        let target = Target { at_home, ..self.target }.secured(tls).await?;
        Ok(Self { target, ..self })
    }

    /// Where we reach a server that others told us of.
    pub(crate) fn reached_at(&self, announced: &Address) -> Address {
        match &self.map {
            Some(map) => {
                let (host, port) = map(without_brackets(&announced.host), announced.port);
                Address::new(host, port)
            }
            None => announced.clone(),
        }
    }

    /// The Sentinel at an address.
    pub(crate) fn sentinel_at(&self, address: &Address) -> Result<Target, Error> {
        let mut target = self.target.at(address)?;
        (target.config.username, target.config.password) = self.sentinel.clone();
        target.config.database = None;
        target.is_sentinel = true;
        Ok(target)
    }
}

/// Where it begins, without credentials.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds = self.seeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match &self.shape {
            Shape::Single => f.write_str(&self.target.place),
            Shape::Cluster => write!(f, "cluster of {seeds}"),
            Shape::Sentinel(name) => write!(f, "{name} of Sentinels {seeds}"),
        }
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    /// A name or an address; of version 6 in brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    pub(crate) fn new(host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
        Self { host, port }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Where a server is, and who we are to it.
#[derive(Clone)]
pub(crate) struct Target {
    config: Config,
    /// For messages: host and port, or the path of a socket.
    place: String,
    is_sentinel: bool,
    /// Whether the URL asks for TLS. (A pool brings its own.)
    tls: bool,
    /// Whether nothing may be said over a network in clear.
    at_home: bool,
    /// The name that every server's certificate is for. `None`: each server's own host, or what a pool makes of it.
    server_name: Option<String>,
}

impl Target {
    fn of_url(mut url: Url) -> Self {
        let place = url.servers.swap_remove(0);
        let (text, tls) = (place.to_string(), matches!(place, Place::Tcp { tls: true, .. }));
        let config = Config {
            server: server(place),
            username: url.user,
            password: url.password,
            database: (url.database > 0).then_some(url.database),
            ..Config::default()
        };
        Self { config, place: text, is_sentinel: false, tls, at_home: false, server_name: None }
    }

    /// The same at another server.
    pub(crate) fn at(&self, address: &Address) -> Result<Self, Error> {
        let mut target = self.clone();
        let mut server = Server::new(address.host.clone(), address.port);
        if target.config.uses_tls() {
            tls::name(&mut server, self.server_name.as_deref(), &self.config);
        }
        target.config.server = ServerConfig::Centralized { server };
        target.place = address.to_string();
        if self.at_home {
            target.check_that_nobody_listens()?;
        }
        Ok(target)
    }

    pub(crate) fn user(mut self, user: String) -> Self {
        self.config.username = Some(user);
        self
    }

    pub(crate) fn password(mut self, password: String) -> Self {
        self.config.password = Some(password);
        self
    }

    pub(crate) fn database(mut self, database: u8) -> Self {
        self.config.database = (database > 0).then_some(database);
        self
    }

    /// With TLS, where its URL asks for it.
    async fn secured(self, tls: Tls) -> Result<Self, Error> {
        let server_name = tls.name().map(str::to_owned);
        Ok(Self { config: tls.secure(self.config, self.tls).await?, server_name, ..self })
    }

    /// An error if what is said goes over a network in clear.
    fn check_that_nobody_listens(&self) -> Result<(), Error> {
        let at_home = self.config.server.is_unix_socket()
            || self.config.server.hosts().iter().all(|server| is_this_machine(&server.host));
        if at_home || self.tls || self.config.uses_tls() {
            return Ok(());
        }
        let text = format!(
            "Redis at {} would be spoken to in clear, which `refuse_plain_tcp` forbids: write rediss://",
            self.place
        );
        Err(Error::new(Kind::Config, text))
    }

    /// How the URL of a single server begins.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.config.uses_tls() { "rediss" } else { "redis" }
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn client(&self, settings: &Settings, fail_fast: bool) -> Result<Client, Error> {
        self.builder(settings, fail_fast, RespVersion::RESP2).build().map_err(not_built)
    }

    /// A client for a subscription. On RESP3, where it can be asked whether it lives.
    pub(crate) fn subscriber(&self, settings: &Settings) -> Result<SubscriberClient, Error> {
        let mut builder = self.builder(settings, false, RespVersion::RESP3);
        builder.with_performance_config(|performance| performance.broadcast_channel_capacity = 4096);
        builder.build_subscriber_client().map_err(not_built)
    }

    fn builder(&self, settings: &Settings, fail_fast: bool, version: RespVersion) -> Builder {
        let config = Config { fail_fast, blocking: Blocking::Block, version, ..self.config.clone() };
        let mut builder = Builder::from_config(config);
        builder.with_performance_config(|performance| performance.default_command_timeout = settings.deadline);
        builder.with_connection_config(|connection| {
            connection.connection_timeout = settings.connect_deadline;
            connection.internal_command_timeout = settings.connect_deadline;
            // More would run a script twice that was written once.
            connection.max_command_attempts = 1;
            connection.max_redirections = 1;
            connection.max_command_buffer_len = 10_000;
            connection.tcp.nodelay = Some(true);
        });
        if !fail_fast {
            let mut policy = ReconnectPolicy::new_exponential(0, 10, 200, 2);
            policy.set_jitter(10);
            builder.set_policy(policy);
        }
        builder
    }
}

fn server(place: Place) -> ServerConfig {
    match place {
        Place::Tcp { host, port, .. } => ServerConfig::new_centralized(host, port),
        #[cfg(unix)]
        Place::Socket(path) => ServerConfig::new_unix_socket(path),
        #[cfg(not(unix))]
        Place::Socket(_) => unreachable!("a URL of a socket is refused on this system"),
    }
}

/// Whether nothing that is sent to this host leaves the machine. A name that only resolves to it does not count: it may
/// resolve otherwise tomorrow.
fn is_this_machine(host: &str) -> bool {
    let bare = without_brackets(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn not_built(error: FredError) -> Error {
    Error::caused(Kind::Config, "the Redis client cannot be built", error)
}

/// What a node is run with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) deadline: Duration,
    pub(crate) connect_deadline: Duration,
    pub(crate) clients: usize,
}

/// A connection that is made once, to tell at start what is wrong: the clients of a [`Node`] only go on trying.
pub(crate) async fn probe(target: &Target, settings: &Settings, command: &'static str) -> Result<(), Error> {
    let client = target.client(settings, true)?;
    let mut connection = AbortOnDrop(client.connect());
    let options = Options { timeout: Some(settings.connect_deadline), ..Options::default() };
    let client = client.with_options(&options);
    let custom = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    let answer = tokio::select! {
        biased; // why a connection failed, rather than that its commands did
        ended = &mut connection.0 => ended.map_err(FredError::from).and_then(|ended| ended).map(|()| Value::Null),
        answer = client.custom::<Value, Value>(custom, Vec::new()) => answer,
    };
    answer.map(|_| ()).map_err(|error| what_is_wrong(error, target, settings.connect_deadline))
}

/// Which command a user may not run. Only its name: the rest of the text may name the user.
fn refused_command(details: &str) -> Option<&str> {
    let (_, rest) = details.rsplit_once("run the '")?;
    let (command, _) = rest.split_once('\'')?;
    command.chars().all(|char| char.is_ascii_alphanumeric() || "|-_.".contains(char)).then_some(command)
}

fn what_is_wrong(error: FredError, target: &Target, deadline: Duration) -> Error {
    let who = format!("{} at {}", if target.is_sentinel { "the Sentinel" } else { "Redis" }, target.place());
    if let Some(what) = tls::what_is_wrong(error.details()) {
        return Error::caused(Kind::Config, format!("{who} {what}"), error);
    }
    let (kind, word) = (error.kind().clone(), word(error.details()));
    let (problem, what) = match (kind, word) {
        (_, Some("NOAUTH")) if target.is_sentinel => {
            (Kind::Config, "asks for a password: give it with `sentinel_password`".to_owned())
        }
        (_, Some("NOAUTH")) => {
            (Kind::Config, "asks for a password: write :password@ before the host in the URL".to_owned())
        }
        (ErrorKind::Auth, _) if target.is_sentinel => (
            Kind::Config,
            "refused the user or the password, which are those of `sentinel_user` and `sentinel_password`".to_owned(),
        ),
        (ErrorKind::Auth, _) => (Kind::Config, "refused the user or the password".to_owned()),
        (_, Some("ERR")) if error.details().contains("DB index") => {
            (Kind::Config, "has no database of this number".to_owned())
        }
        (_, Some("NOPERM")) => {
            let needed = refused_command(error.details()).unwrap_or("what the documentation says");
            (Kind::Config, format!("refused the first command (NOPERM): its user needs +{needed}"))
        }
        (_, Some(word)) => (Kind::Unavailable, format!("refused the first command: {word}")),
        (ErrorKind::Timeout, _) => (Kind::Unavailable, format!("did not answer within {deadline:?}")),
        _ => return Error::caused(Kind::Unavailable, format!("{who} cannot be reached"), error),
    };
    Error::new(problem, format!("{who} {what}"))
}
