//! One Redis server through one or two `fred` clients. The only module that knows fred, and works around its traps.
//!
//! A client connects and reconnects in the background, for ever; a command to one that is not connected fails at once.
//! fred does not notice a server that is silent under steady traffic, so each client has a health check. Its `TIME`s also
//! set the clock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error as FredError, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface, HashesInterface};
use fred::types::config::{Options, Server};
use fred::types::{ClusterHash, CustomCommand, Value};
use redis_session_core::{Error, Replication, Time};
use tokio::sync::broadcast::Receiver as BroadcastReceiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::task::JoinHandle;

use crate::clock::ServerClock;
use crate::health::{Health, Unwell};
use crate::lane::Lanes;
use crate::script::Script;
use crate::server::{Cause, Copies, Elsewhere, Failure, Pairs, Reply};
use crate::status::Counts;
use crate::target::{Settings, Target};

/// How often a client is asked for the time, and so whether it is well.
const EVERY: Duration = Duration::from_millis(250);
/// The same as long as the clock is not known.
const SOON: Duration = Duration::from_millis(20);
/// How long the first answer of all may take until it is asked for again.
const PATIENCE: Duration = Duration::from_millis(150);

/// One server.
pub(crate) struct Node {
    seats: Vec<Arc<Seat>>,
    next: AtomicUsize,
    lanes: Lanes,
    clock: Arc<ServerClock>,
    place: String,
    counts: Arc<Counts>,
    _tasks: Vec<AbortOnDrop<()>>,
}

/// One client, and how its server is.
struct Seat {
    client: Client,
    health: Health,
    /// Why the last connection failed. `None`: there is one.
    trouble: Mutex<Trouble>,
}

/// Why a server could not be connected. `None`: it could, or nobody knows yet.
pub(crate) type Trouble = Option<FredError>;

impl Seat {
    /// Takes note of why the client is not connected, which fred tells its listeners only. Answers with what is new.
    fn note_trouble(&self, errors: &mut BroadcastReceiver<(FredError, Option<Server>)>) -> Option<FredError> {
        let mut latest = None;
        loop {
            match errors.try_recv() {
                Ok((error, _)) => latest = Some(error),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let mut trouble = self.trouble();
        if self.client.is_connected() {
            *trouble = None;
            return None;
        }
        let news = latest.filter(|latest| trouble.as_ref() != Some(latest))?;
        *trouble = Some(news.clone());
        Some(news)
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, ask: &Ask<'_>, after_asking: bool, by: Instant) -> Result<Value, Failure> {
        match self.put(ask, Named::ByHash, after_asking, by).await {
            // To the same client at once: this also makes the script known to this server.
            Err(Failure::Refused("NOSCRIPT")) => self.put(ask, Named::ByText, after_asking, by).await,
            answer => answer,
        }
    }

    async fn put(&self, ask: &Ask<'_>, named: Named, after_asking: bool, by: Instant) -> Result<Value, Failure> {
        let options = options(by)?;
        let sent = Instant::now();
        let answer = if after_asking {
            // One behind the other on the wire, with nothing in between.
            let pipeline = self.client.pipeline().with_options(&options);
            let _queued = asking(&pipeline).await;
            let _queued = ask.put(&pipeline, named).await;
            pipeline.last::<Value>().await
        } else {
            ask.put(&self.client.with_options(&options), named).await
        };
        let answer = answer.map_err(failure);
        self.health.note(&answer, sent);
        answer
    }
}

impl Node {
    /// Begins to connect, and does not wait for it. Must be called within a runtime.
    pub(crate) fn start(target: &Target, settings: &Settings) -> Result<Self, Error> {
        Self::start_after(target, settings, Arc::default(), None)
    }

    /// The same where others were before: goes on with their counts, and does not tell the log of their trouble again.
    pub(crate) fn start_after(
        target: &Target,
        settings: &Settings,
        counts: Arc<Counts>,
        trouble: Trouble,
    ) -> Result<Self, Error> {
        let clock = Arc::<ServerClock>::default();
        let seat = |_| {
            let (client, health) = (target.client(settings, false)?, Health::new(settings.deadline));
            Ok::<_, Error>(Arc::new(Seat { client, health, trouble: Mutex::new(trouble.clone()) }))
        };
        let seats = (0..settings.clients).map(seat).collect::<Result<Vec<_>, _>>()?;
        let tasks = seats.iter().flat_map(|seat| {
            [
                AbortOnDrop(tokio::spawn(stay_connected(seat.client.clone(), EVERY))),
                AbortOnDrop(tokio::spawn(watch(seat.clone(), clock.clone(), target.place().to_owned()))),
            ]
        });
        let lanes = Lanes::new(target, settings);
        let place = target.place().to_owned();
        Ok(Self { _tasks: tasks.collect(), seats, next: AtomicUsize::new(0), lanes, clock, place, counts })
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

    /// Asks, and after `ASKING` first where another server of the cluster sent us here for once.
    pub(crate) async fn send(&self, ask: &Ask<'_>, after_asking: bool, by: Instant) -> Result<Answer, Failure> {
        let sent = Instant::now();
        let answer = self.put(ask, after_asking, by).await;
        self.counts.note(&answer);
        let answer = answer?;
        if let Some(now) = late(&answer.value) {
            // Perhaps it is our idea of its clock that is wrong: the caller's next try is by the right one.
            self.clock.learn(now, sent);
        }
        Ok(answer)
    }

    async fn put(&self, ask: &Ask<'_>, after_asking: bool, by: Instant) -> Result<Answer, Failure> {
        let seat = self.seat()?;
        let Some(wait) = ask.wait else {
            return Ok(Answer { value: seat.send(ask, after_asking, by).await?, copies: Ok(0) });
        };
        // The time to wait is kept for that.
        let now = Instant::now();
        let soon = now + by.saturating_duration_since(now).saturating_sub(wait.within) / 2;
        match self.lanes.take(soon).await {
            Some(lane) => lane.send(ask, wait, after_asking, by).await,
            // It is better made than not.
            None => {
                let value = seat.send(ask, after_asking, by).await?;
                Ok(Answer { value, copies: Err("no connection was free to wait on") })
            }
        }
    }

    /// A command without a key.
    pub(crate) async fn tell(&self, name: &'static str, args: Vec<Bytes>, by: Instant) -> Result<Reply, Failure> {
        let (options, seat, sent) = (options(by)?, self.seat()?, Instant::now());
        let args: Vec<_> = args.into_iter().map(Value::Bytes).collect();
        let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
        let answer = seat.client.with_options(&options).custom(command, args).await.map(reply).map_err(failure);
        seat.health.note(&answer, sent);
        answer
    }

    pub(crate) async fn time(&self, by: Instant) -> Result<Time, Failure> {
        let (seat, sent) = (self.seat()?, Instant::now());
        let answer = ask_time(&seat.client, &self.clock, by).await;
        seat.health.note(&answer, sent);
        answer
    }

    /// The server's clock, as far as it is known.
    pub(crate) fn clock(&self) -> &Arc<ServerClock> {
        &self.clock
    }

    /// Where it is reached.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// What became of what was sent.
    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Why it cannot be connected.
    pub(crate) fn trouble(&self) -> Trouble {
        self.seats.iter().find_map(|seat| seat.trouble().clone())
    }

    /// Whether something sent now would go out.
    pub(crate) fn is_well(&self) -> bool {
        self.seat().is_ok()
    }

    /// A reply was not one to its command: looks in the background whether connections are in step.
    pub(crate) fn doubt(&self) {
        self.seats.iter().for_each(|seat| seat.health.doubt());
    }

    /// The same of a write that waited: the connections for these are made anew.
    pub(crate) fn doubt_waits(&self) {
        self.lanes.doubt();
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
        Err(Failure::NotSent(cause.or_else(|| self.trouble().map(Into::into))))
    }
}

/// Runs a client's connection. fred's own policy reconnects; this starts the task anew should it ever end, after a pause.
pub(crate) async fn stay_connected(client: impl ClientLike, pause: Duration) {
    loop {
        let mut connection = AbortOnDrop(client.connect());
        let _ended = (&mut connection.0).await;
        tracing::warn!("the connection task of a Redis client ended; it is started again");
        tokio::time::sleep(pause).await;
    }
}

/// Asks for the time for ever: sets the clock, opens and closes the breaker, and remakes a connection that is silent or
/// out of step.
async fn watch(seat: Arc<Seat>, clock: Arc<ServerClock>, place: String) {
    let Seat { client, health, .. } = &*seat;
    let mut errors = client.error_rx();
    let mut missed = 0;
    // It returns once connected again, which may take for ever.
    let mut remaking: Option<AbortOnDrop<()>> = None;
    loop {
        let mut in_step = true;
        let mut tells_the_time = true;
        let answer = match client.is_connected() {
            true => ask_time(client, &clock, Instant::now() + health.patience).await,
            false => Err(Failure::NotSent(None)),
        };
        match answer {
            Ok(_) | Err(Failure::Refused(_)) => {
                missed = 0;
                // A Sentinel does not know the command; a user may not have the right.
                tells_the_time = !matches!(answer, Err(Failure::Refused("ERR" | "NOPERM")));
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
            Err(Failure::Odd | Failure::Elsewhere(_)) => in_step = false,
            // The client itself knows, and connects again.
            Err(Failure::NotSent(_) | Failure::Lost(_)) => missed = 0,
        }
        if let Some(error) = seat.note_trouble(&mut errors) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(redis = place, error, "Redis cannot be connected; it is tried again and again");
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
        let well = (clock.is_known() || !tells_the_time) && client.is_connected() && !health.is_open();
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
    Ok(Time::from_millis(u64::try_from(seconds.saturating_mul(1000).saturating_add(micros / 1000)).unwrap_or(0)))
}

/// What is asked of the server that has a key.
pub(crate) struct Ask<'a> {
    pub(crate) key: &'a Bytes,
    pub(crate) what: What<'a>,
    /// What is waited for afterwards. `None`: nothing.
    pub(crate) wait: Option<Replication>,
}

/// What it answered.
pub(crate) struct Answer {
    pub(crate) value: Value,
    /// On how many replicas the write is, where that was waited for.
    pub(crate) copies: Copies,
}

/// A command, without its key.
#[derive(Clone, Copy)]
pub(crate) enum What<'a> {
    Load,
    Script(&'static Script, &'a [Bytes]),
    Command(&'static str, &'a [Bytes]),
}

/// How a script is named.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    ByHash,
    ByText,
}

impl Ask<'_> {
    /// Of a script nobody knows here whether a second run would do no more.
    pub(crate) fn may_run_twice(&self) -> bool {
        !matches!(self.what, What::Script(..))
    }

    pub(crate) async fn put<C: HashesInterface>(&self, client: &C, named: Named) -> Result<Value, FredError> {
        let custom = async |name, first: &[&'static str], args: &[Bytes]| {
            let mut all = Vec::with_capacity(first.len() + 1 + args.len());
            all.extend(first.iter().map(|text| Value::from_static_str(text)));
            all.push(Value::Bytes(self.key.clone()));
            all.extend(args.iter().cloned().map(Value::Bytes));
            let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
            client.custom::<Value, _>(command, all).await
        };
        match self.what {
            What::Load => client.hgetall(self.key.clone()).await,
            What::Script(script, args) if named == Named::ByHash => custom("EVALSHA", &[script.sha, "1"], args).await,
            What::Script(script, args) => custom("EVAL", &[script.lua, "1"], args).await,
            What::Command(name, args) => custom(name, &[], args).await,
        }
    }
}

/// Before what another server of the cluster has, as long as it is on its way here.
pub(crate) async fn asking<C: ClientLike>(client: &C) -> Result<Value, FredError> {
    client.custom(CustomCommand::new_static("ASKING", ClusterHash::FirstKey, false), Vec::<Value>::new()).await
}

/// Not sent at all where there is no connection; no timeout would mean for ever.
pub(crate) fn options(by: Instant) -> Result<Options, Failure> {
    let left = by.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Failure::NotSent(None));
    }
    Ok(Options { timeout: Some(left), fail_fast: true, ..Options::default() })
}

/// A hash, as a load answers it.
pub(crate) fn pairs(value: Value) -> Result<Pairs, Failure> {
    let map = value.into_map().map_err(|_| Failure::Odd)?.inner();
    // `convert` to pairs costs seven times as much.
    let mut pairs = Vec::with_capacity(map.len());
    for (name, value) in map {
        pairs.push((name.into_bytes(), bytes(value)?));
    }
    Ok(pairs)
}

fn bytes(value: Value) -> Result<Bytes, Failure> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        Value::String(text) => Ok(text.into_inner()),
        _ => Err(Failure::Odd),
    }
}

pub(crate) fn reply(value: Value) -> Reply {
    match value {
        Value::Bytes(bytes) => Reply::Text(bytes),
        Value::String(text) => Reply::Text(text.into_inner()),
        Value::Integer(number) => Reply::Number(number),
        Value::Array(list) => Reply::List(list.into_iter().map(reply).collect()),
        Value::Null => Reply::Nothing,
        _ => Reply::Other,
    }
}

/// The server's time in microseconds, where a script says that it came too late.
fn late(value: &Value) -> Option<i64> {
    match value {
        Value::Array(parts) => match parts.as_slice() {
            [_, word, Value::Integer(now)] if word.as_bytes() == Some(b"late") => Some(now.saturating_mul(1000)),
            _ => None,
        },
        _ => None,
    }
}

pub(crate) fn failure(error: FredError) -> Failure {
    if let Some(word) = word(error.details()) {
        return elsewhere(error.details()).map_or(Failure::Refused(word), Failure::Elsewhere);
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

/// What `MOVED 3999 10.0.0.7:6381` and `ASK 3999 :6381` say.
fn elsewhere(details: &str) -> Option<Elsewhere> {
    let mut parts = details.split(' ');
    let once = match parts.next()? {
        "MOVED" => false,
        "ASK" => true,
        _ => return None,
    };
    let (host, port) = parts.nth(1)?.rsplit_once(':')?;
    // "?" stands for one that the cluster does not know itself.
    let host = (!host.is_empty() && host != "?").then(|| host.to_owned());
    Some(Elsewhere { once, host, port: port.parse().ok()? })
}

/// The word with which Redis's errors begin. fred's own texts begin otherwise.
pub(crate) fn word(details: &str) -> Option<&'static str> {
    const WORDS: &str = "NOSCRIPT WRONGTYPE READONLY LOADING OOM MISCONF NOPERM NOAUTH WRONGPASS CLUSTERDOWN BUSY MOVED \
                         ASK TRYAGAIN CROSSSLOT MASTERDOWN NOREPLICAS UNBLOCKED UNKILLABLE";
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
    fn a_late_script_tells_the_time() {
        let table = [("late", Some(5000)), ("created", None)];
        for (word, wanted) in table {
            let answer = Value::Array(vec![Value::from("key"), Value::from(word), Value::Integer(5)]);
            assert_eq!(late(&answer), wanted, "{word}");
        }
        for other in [Value::Null, Value::Array(vec![Value::from("key"), Value::from("late")])] {
            assert_eq!(late(&other), None);
        }
    }

    #[test]
    fn a_redirection_names_a_server() {
        let to = |once, host: Option<&str>, port| Some(Elsewhere { once, host: host.map(Into::into), port });
        let table = [
            ("MOVED 3999 127.0.0.1:6381", to(false, Some("127.0.0.1"), 6381)),
            ("ASK 0 redis-2.internal:6379", to(true, Some("redis-2.internal"), 6379)),
            ("MOVED 3999 ::1:6381", to(false, Some("::1"), 6381)),
            ("MOVED 3999 :6381", to(false, None, 6381)),
            ("MOVED 3999 ?:6381", to(false, None, 6381)),
            ("MOVED 3999", None),
            ("MOVED 3999 127.0.0.1", None),
            ("MOVED 3999 127.0.0.1:66000", None),
            ("CLUSTERDOWN Hash slot not served", None),
        ];
        for (details, wanted) in table {
            assert_eq!(elsewhere(details), wanted, "{details}");
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
