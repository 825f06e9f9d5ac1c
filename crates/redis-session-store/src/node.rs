//! One Redis server through one or two `fred` clients. The only module that knows fred, and works around its traps.
//!
//! A client connects and reconnects in the background, for ever; a command to one that is not connected fails at once.
//! fred does not notice a server that is silent under steady traffic, so each client has a health check. Its `TIME`s also
//! set the clock.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::clients::{Client, SubscriberClient};
use fred::error::{Error as FredError, ErrorKind};
use fred::interfaces::{ClientLike, HashesInterface};
use fred::types::config::{Blocking, Config, Options, ReconnectPolicy, ServerConfig};
use fred::types::{Builder, ClusterHash, CustomCommand, RespVersion, Value};
use redis_session_core::{Error, Kind, Time};
use tokio::task::JoinHandle;

use crate::clock::ServerClock;
use crate::health::{Health, Unwell};
use crate::script::Script;
use crate::server::{Cause, Failure, Pairs, Reply, Server};
use crate::tls::{self, Tls};
use crate::url::{Place, Url, without_brackets};

/// How often a client is asked for the time, and so whether it is well.
const EVERY: Duration = Duration::from_millis(250);
/// The same as long as the clock is not known.
const SOON: Duration = Duration::from_millis(20);
/// How long the first answer of all may take until it is asked for again.
const PATIENCE: Duration = Duration::from_millis(150);

/// Where a server is, and who we are to it.
#[derive(Clone)]
pub(crate) struct Target {
    config: Config,
    /// For messages: host and port, or the path of a socket.
    place: String,
    /// Whether the URL asks for TLS. (A pool brings its own.)
    tls: bool,
}

impl Target {
    pub(crate) fn of_url(url: Url) -> Self {
        let place = url.place.to_string();
        let tls = matches!(url.place, Place::Tcp { tls: true, .. });
        let config = Config {
            server: server(url.place),
            username: url.user,
            password: url.password,
            database: (url.database > 0).then_some(url.database),
            ..Config::default()
        };
        Self { config, place, tls }
    }

    pub(crate) fn of_pool(pool: &fred::clients::Pool) -> Result<Self, Error> {
        let config = pool.client_config();
        if config.server.is_clustered() || config.server.is_sentinel() {
            return Err(Error::new(
                Kind::Config,
                "this pool is one of a cluster or of Sentinel, which this version does not support: \
                 give a pool of a single Redis server",
            ));
        }
        let place = config.server.hosts().first().map_or_else(|| "its socket".to_owned(), ToString::to_string);
        Ok(Self { config, place, tls: false })
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
    pub(crate) async fn secured(self, tls: Tls) -> Result<Self, Error> {
        Ok(Self { config: tls.secure(self.config, self.tls).await?, ..self })
    }

    /// An error if what is said goes over a network in clear.
    pub(crate) fn check_that_nobody_listens(&self) -> Result<(), Error> {
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

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    fn client(&self, settings: &Settings, fail_fast: bool) -> Result<Client, Error> {
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

/// One server.
pub(crate) struct Node {
    seats: Vec<Arc<Seat>>,
    next: AtomicUsize,
    clock: Arc<ServerClock>,
    _tasks: Vec<AbortOnDrop<()>>,
}

/// One client, and how its server is.
struct Seat {
    client: Client,
    health: Health,
}

impl Node {
    /// Begins to connect, and does not wait for it.
    pub(crate) fn start(target: &Target, settings: &Settings, clock: Arc<ServerClock>) -> Result<Self, Error> {
        let seat = |_| {
            let (client, health) = (target.client(settings, false)?, Health::new(settings.deadline));
            Ok::<_, Error>(Arc::new(Seat { client, health }))
        };
        let seats = (0..settings.clients).map(seat).collect::<Result<Vec<_>, _>>()?;
        let tasks = seats.iter().flat_map(|seat| {
            [
                AbortOnDrop(tokio::spawn(stay_connected(seat.client.clone()))),
                AbortOnDrop(tokio::spawn(watch(seat.clone(), clock.clone(), target.place.clone()))),
            ]
        });
        Ok(Self { _tasks: tasks.collect(), seats, next: AtomicUsize::new(0), clock })
    }

    /// Waits for the first answer, which also sets the clock.
    pub(crate) async fn connected(&self, by: Instant) -> Result<(), Failure> {
        loop {
            match self.time(by.min(Instant::now() + PATIENCE)).await {
                Ok(_) => return Ok(()),
                Err(failure) if Instant::now() >= by => return Err(failure),
                Err(_) => tokio::time::sleep(SOON / 4).await,
            }
        }
    }

    /// The next client that is connected to a server that answers. Without one, nobody waits.
    fn seat(&self) -> Result<&Seat, Failure> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = |i: usize| &*self.seats[(first + i) % self.seats.len()];
        let mut cause: Cause = None;
        for seat in (0..self.seats.len()).map(turn).filter(|seat| seat.client.is_connected()) {
            if !seat.health.is_open() {
                return Ok(seat);
            }
            cause = Some(Unwell.into());
        }
        Err(Failure::NotSent(cause))
    }
}

/// A connection that is made once, to tell at start what is wrong: the clients of a [`Node`] only go on trying.
pub(crate) async fn probe(target: &Target, settings: &Settings) -> Result<(), Error> {
    let client = target.client(settings, true)?;
    let mut connection = AbortOnDrop(client.connect());
    let options = Options { timeout: Some(settings.connect_deadline), ..Options::default() };
    let client = client.with_options(&options);
    let answer = tokio::select! {
        biased; // why a connection failed, rather than that its commands did
        ended = &mut connection.0 => ended.map_err(FredError::from).and_then(|ended| ended).map(|()| Value::Null),
        answer = client.custom::<Value, Value>(time(), Vec::new()) => answer,
    };
    answer.map(|_| ()).map_err(|error| what_is_wrong(error, target.place(), settings.connect_deadline))
}

fn what_is_wrong(error: FredError, place: &str, deadline: Duration) -> Error {
    if let Some(what) = tls::what_is_wrong(error.details()) {
        return Error::caused(Kind::Config, format!("Redis at {place} {what}"), error);
    }
    let (kind, word) = (error.kind().clone(), word(error.details()));
    let (problem, what) = match (kind, word) {
        (_, Some("NOAUTH")) => (Kind::Config, "asks for a password: write redis://:password@host:port".to_owned()),
        (ErrorKind::Auth, _) => (Kind::Config, "refused the user or the password".to_owned()),
        (_, Some("ERR")) if error.details().contains("DB index") => {
            (Kind::Config, "has no database of this number".to_owned())
        }
        (_, Some(word)) => (Kind::Unavailable, format!("refused the first command: {word}")),
        (ErrorKind::Timeout, _) => (Kind::Unavailable, format!("did not answer within {deadline:?}")),
        _ => return Error::caused(Kind::Unavailable, format!("Redis at {place} cannot be reached"), error),
    };
    Error::new(problem, format!("Redis at {place} {what}"))
}

/// Runs a client's connection. fred's own policy reconnects; this starts the task anew should it ever end.
async fn stay_connected(client: Client) {
    loop {
        let mut connection = AbortOnDrop(client.connect());
        let _ended = (&mut connection.0).await;
        tracing::warn!("the connection task of a Redis client ended; it is started again");
        tokio::time::sleep(EVERY).await;
    }
}

/// Asks for the time for ever: sets the clock, opens and closes the breaker, and remakes a connection that is silent or
/// out of step.
async fn watch(seat: Arc<Seat>, clock: Arc<ServerClock>, place: String) {
    let Seat { client, health } = &*seat;
    let mut missed = 0;
    // It returns once connected again, which may take for ever.
    let mut remaking: Option<AbortOnDrop<()>> = None;
    loop {
        let mut in_step = true;
        let answer = match client.is_connected() {
            true => ask_time(client, &clock, Instant::now() + health.patience).await,
            false => Err(Failure::NotSent(None)),
        };
        match answer {
            Ok(_) | Err(Failure::Refused(_)) => {
                missed = 0;
                if health.well() {
                    tracing::info!(redis = place, "Redis answers again");
                }
            }
            Err(Failure::Silent(_)) => {
                missed += 1;
                if health.unwell() {
                    tracing::warn!(redis = place, "Redis is silent; nothing is sent to it until it answers");
                }
            }
            // The reply of something else.
            Err(Failure::Odd) => in_step = false,
            // The client itself knows, and connects again.
            Err(Failure::NotSent(_) | Failure::Lost(_)) => missed = 0,
        }
        if health.take_doubt() && in_step {
            in_step = is_in_step(client, Instant::now() + health.patience).await;
        }
        // A health check alone may have been unlucky.
        let dead = missed == 2 || missed == 1 && health.is_silent();
        if dead || !in_step {
            let why = if dead { "silent" } else { "answering other commands than it was asked" };
            tracing::warn!(redis = place, "Redis is {why}; its connection is closed and made anew");
            let client = client.clone();
            remaking = Some(AbortOnDrop(tokio::spawn(async move { drop(client.force_reconnection().await) })));
            missed = 0;
        }
        if remaking.as_ref().is_some_and(|task| task.0.is_finished()) {
            remaking = None;
        }
        let well = clock.is_known() && client.is_connected() && !health.is_open();
        health.until_due(if well { EVERY } else { SOON }).await;
    }
}

/// Whether replies on this connection are those to its commands: a word that was never said before must come back. No
/// answer says nothing.
async fn is_in_step(client: &Client, by: Instant) -> bool {
    static SAID: AtomicUsize = AtomicUsize::new(0);
    let word = format!("in step {}", SAID.fetch_add(1, Ordering::Relaxed));
    let Ok(options) = options(by) else { return true };
    let ping = CustomCommand::new_static("PING", ClusterHash::FirstKey, false);
    let answer: Result<Value, _> = client.with_options(&options).custom(ping, vec![Value::from(word.as_str())]).await;
    match answer.map_err(failure) {
        Ok(answer) => answer.as_bytes() == Some(word.as_bytes()),
        Err(failure) => !matches!(failure, Failure::Refused(_) | Failure::Odd),
    }
}

fn time() -> CustomCommand {
    CustomCommand::new_static("TIME", ClusterHash::FirstKey, false)
}

async fn ask_time(client: &Client, clock: &ServerClock, by: Instant) -> Result<Time, Failure> {
    let options = options(by)?;
    let sent = Instant::now();
    let value: Value = client.with_options(&options).custom(time(), Vec::<Value>::new()).await.map_err(failure)?;
    let (seconds, micros): (i64, i64) = value.convert().map_err(|_| Failure::Odd)?;
    clock.learn(seconds.saturating_mul(1_000_000).saturating_add(micros), sent);
    Ok(Time::from_millis(u64::try_from(seconds.saturating_mul(1000) + micros / 1000).unwrap_or(0)))
}

impl Server for Node {
    async fn hgetall(&self, key: &Bytes, by: Instant) -> Result<Pairs, Failure> {
        let (options, seat, sent) = (options(by)?, self.seat()?, Instant::now());
        let answer = seat.client.with_options(&options).hgetall::<Value, _>(key.clone()).await.map_err(failure);
        seat.health.note(&answer, sent);
        let map = answer?.into_map().map_err(|_| Failure::Odd)?.inner();
        // `convert` to pairs costs seven times as much.
        let mut pairs = Vec::with_capacity(map.len());
        for (name, value) in map {
            pairs.push((name.into_bytes(), bytes(value)?));
        }
        Ok(pairs)
    }

    async fn script(
        &self,
        script: &'static Script,
        key: &Bytes,
        args: Vec<Bytes>,
        by: Instant,
    ) -> Result<Reply, Failure> {
        let seat = self.seat()?;
        let send = async |command, text: &'static str| {
            let options = options(by)?;
            let mut all = Vec::with_capacity(3 + args.len());
            all.extend([Value::from_static_str(text), Value::from_static_str("1"), Value::Bytes(key.clone())]);
            all.extend(args.iter().cloned().map(Value::Bytes));
            let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
            let sent = Instant::now();
            let answer = seat.client.with_options(&options).custom::<Value, _>(command, all).await.map_err(failure);
            seat.health.note(&answer, sent);
            answer
        };
        let value = match send("EVALSHA", script.sha).await {
            // To the same client at once: this also makes the script known to this server.
            Err(Failure::Refused("NOSCRIPT")) => send("EVAL", script.lua).await,
            answer => answer,
        }?;
        Ok(reply(value))
    }

    async fn command(&self, name: &'static str, key: &Bytes, args: Vec<Bytes>, by: Instant) -> Result<Reply, Failure> {
        let (options, seat, sent) = (options(by)?, self.seat()?, Instant::now());
        let mut all = Vec::with_capacity(1 + args.len());
        all.push(Value::Bytes(key.clone()));
        all.extend(args.into_iter().map(Value::Bytes));
        let command = CustomCommand::new_static(name, fred::util::redis_keyslot(key), false);
        let answer = seat.client.with_options(&options).custom(command, all).await.map(reply).map_err(failure);
        seat.health.note(&answer, sent);
        answer
    }

    async fn time(&self, by: Instant) -> Result<Time, Failure> {
        let (seat, sent) = (self.seat()?, Instant::now());
        let answer = ask_time(&seat.client, &self.clock, by).await;
        seat.health.note(&answer, sent);
        answer
    }

    fn doubt(&self) {
        self.seats.iter().for_each(|seat| seat.health.doubt());
    }
}

/// Not sent at all where there is no connection; no timeout would mean for ever.
fn options(by: Instant) -> Result<Options, Failure> {
    let left = by.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Failure::NotSent(None));
    }
    Ok(Options { timeout: Some(left), fail_fast: true, ..Options::default() })
}

fn bytes(value: Value) -> Result<Bytes, Failure> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        Value::String(text) => Ok(text.into_inner()),
        _ => Err(Failure::Odd),
    }
}

fn reply(value: Value) -> Reply {
    match value {
        Value::Bytes(bytes) => Reply::Text(bytes),
        Value::String(text) => Reply::Text(text.into_inner()),
        Value::Integer(number) => Reply::Number(number),
        Value::Array(list) => Reply::List(list.into_iter().map(reply).collect()),
        Value::Null => Reply::Nothing,
        _ => Reply::Other,
    }
}

fn failure(error: FredError) -> Failure {
    if let Some(word) = word(error.details()) {
        return Failure::Refused(word);
    }
    match error.kind() {
        ErrorKind::Timeout => Failure::Silent(Some(error.into())),
        // Other cancellations come from a connection task that ended, whatever it had sent.
        ErrorKind::Canceled if error.details() == "Connection closed unexpectedly." => {
            Failure::NotSent(Some(error.into()))
        }
        // The connection went a moment ago, and the client does not call itself disconnected yet.
        ErrorKind::Unknown if error.details() == "Failed to route command." => Failure::NotSent(Some(error.into())),
        ErrorKind::Backpressure => Failure::NotSent(Some(error.into())),
        _ => Failure::Lost(Some(error.into())),
    }
}

/// The word with which Redis's errors begin. fred's own texts begin otherwise.
fn word(details: &str) -> Option<&'static str> {
    const WORDS: &str = "NOSCRIPT WRONGTYPE READONLY LOADING OOM MISCONF NOPERM NOAUTH WRONGPASS CLUSTERDOWN BUSY MOVED \
                         ASK TRYAGAIN CROSSSLOT MASTERDOWN NOREPLICAS UNKILLABLE";
    let known = |text: &str| WORDS.split(' ').find(|word| text.split(' ').next() == Some(word));
    let rest = details.strip_prefix("ERR ");
    // Before Redis 7: "ERR Error running script (…): @user_script:1: OOM command not allowed …".
    let inner = rest.and_then(|rest| rest.split(": ").find_map(known));
    known(details).or(inner).or(rest.map(|_| "ERR"))
}

/// A task that ends with whoever holds this.
pub(crate) struct AbortOnDrop<T>(pub(crate) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_words_of_redis_are_named() {
        let table = [
            ("NOSCRIPT No matching script.", Some("NOSCRIPT")),
            ("OOM command not allowed … script: f00, on @user_script:50.", Some("OOM")),
            ("ERR Error running script (call to f_1): @user_script:9: OOM command not allowed.", Some("OOM")),
            ("ERR user_script:9: attempt to index a nil value script: f00", Some("ERR")),
            ("ERR unknown command 'EVALSHA', with args beginning with: 'sess:secret'", Some("ERR")),
            ("Failed to route command.", None),
            ("OOMPH", None),
            ("", None),
        ];
        for (details, wanted) in table {
            assert_eq!(word(details), wanted, "{details}");
        }
    }

    #[test]
    fn only_what_was_surely_not_sent_counts_as_not_sent() {
        let table = [
            (ErrorKind::Canceled, "Connection closed unexpectedly.", "NotSent"),
            (ErrorKind::Canceled, "Canceled.", "Lost"),
            (ErrorKind::Unknown, "Failed to route command.", "NotSent"),
            (ErrorKind::Unknown, "Too many failed write attempts.", "Lost"),
            (ErrorKind::Backpressure, "Max command queue length exceeded.", "NotSent"),
            (ErrorKind::IO, "Connection Closed", "Lost"),
            (ErrorKind::Timeout, "Request timed out.", "Silent"),
            (ErrorKind::Unknown, "READONLY You can't write against a read only replica.", "Refused(READONLY)"),
        ];
        for (kind, details, wanted) in table {
            let found = format!("{:?}", failure(FredError::new(kind, details)));
            assert!(found.starts_with(wanted), "{details}: {found}");
        }
    }
}
