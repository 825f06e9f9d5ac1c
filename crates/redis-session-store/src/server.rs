//! What the store needs of a server: one read, scripts, a few commands, the time. The one border to the Redis client.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis_session_core::{Error, Kind, Replication, Time};

use crate::script::Script;

/// Names and values of a hash, in any order.
pub(crate) type Pairs = Vec<(Bytes, Bytes)>;

/// On how many replicas a write is, or why nobody knows.
pub(crate) type Copies = Result<u32, &'static str>;

/// A way to the server that has a key. Every call ends by its deadline.
pub(crate) trait Server: Send + Sync + 'static {
    /// `HGETALL`.
    fn hgetall(&self, key: &Bytes, by: Instant) -> impl Future<Output = Result<Pairs, Failure>> + Send;

    /// `HGETALL` by a replica that is at most so far behind. `None`: no such one has anything to say.
    fn hgetall_near(&self, key: &Bytes, behind: Duration, by: Instant) -> impl Future<Output = Option<Pairs>> + Send;

    /// A script on one key; then, where that is asked for, waits for replicas on the same connection. An answer that it
    /// came too late feeds the clock of the server that gave it: perhaps it was ours that is wrong.
    fn script(
        &self,
        script: &'static Script,
        key: &Bytes,
        args: Vec<Bytes>,
        wait: Option<Replication>,
        by: Instant,
    ) -> impl Future<Output = Result<(Reply, Copies), Failure>> + Send;

    /// Any other command, whose first argument is a key, and which may as well run twice.
    fn command(
        &self,
        name: &'static str,
        key: &Bytes,
        args: Vec<Bytes>,
        by: Instant,
    ) -> impl Future<Output = Result<Reply, Failure>> + Send;

    /// One step of a `SCAN` over all servers that have keys. Also says where the next one begins, if there is one.
    fn scan(
        &self,
        from: ScanMark,
        args: Vec<Bytes>,
        by: Instant,
    ) -> impl Future<Output = Result<(Vec<Reply>, Option<ScanMark>), Failure>> + Send;

    /// Asks a server for its time, and so feeds the clock.
    fn time(&self, by: Instant) -> impl Future<Output = Result<Time, Failure>> + Send;

    /// Whether two keys may be on different servers.
    fn spreads_keys(&self) -> bool;

    /// What the clock of the servers shows. `None`: it is not known yet.
    fn now(&self) -> Option<Time>;

    /// This moment of [`now`](Self::now)'s clock by the clock of the server that has the key.
    fn by_clock_of(&self, key: &Bytes, moment: Time) -> Time;

    /// A write was made: whoever has the keys is no replica.
    fn wrote(&self);

    /// A reply was not one to its command, or its record was another key's. Looks in the background whether connections
    /// are still in step, and remakes those that are not.
    fn doubt(&self);

    /// The same of those on which writes wait for replicas: all of them are remade.
    fn doubt_waits(&self);
}

/// Where a walk over the keys of all servers goes on. Servers are named by where they are: slots may have others by then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScanMark {
    /// The servers that were walked over.
    pub(crate) visited: Vec<String>,
    /// The one whose turn it is: another one's cursor means nothing. Empty before its beginning.
    pub(crate) server: String,
    pub(crate) cursor: u64,
}

/// A reply of a script or a command.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A text.
    Text(Bytes),
    /// A whole number.
    Number(i64),
    /// Replies in a row.
    List(Vec<Reply>),
    /// A null.
    Nothing,
    /// What no script or command of ours answers.
    Other,
}

/// Why there is no reply.
pub(crate) enum Failure {
    /// Nothing was sent.
    NotSent(Cause),
    /// The connection was lost before the reply.
    Lost(Cause),
    /// No reply in time.
    Silent(Cause),
    /// Redis answered with an error, which this word stands for: it did not run.
    Refused(&'static str),
    /// Another server of the cluster has the key: it did not run.
    Elsewhere(Elsewhere),
    /// A reply of a type that this command does not have.
    Odd,
}

/// Where a server of a cluster sends those who ask it for a key that it does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    /// For this one command only (`ASK`): the slot is on its way there.
    pub(crate) once: bool,
    /// `None`: where the answer came from, at this port.
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
}

/// The client's error, for the log. `None`: the deadline had passed before.
pub(crate) type Cause = Option<Box<dyn std::error::Error + Send + Sync>>;

impl Failure {
    /// Of a command that only reads: nothing was changed.
    pub(crate) fn of_read(self) -> Error {
        match self {
            Self::NotSent(cause) => unavailable("Redis is not connected", cause),
            Self::Lost(cause) => unavailable("the connection to Redis was lost", cause),
            Self::Silent(cause) => unavailable("Redis did not answer in time", cause),
            Self::Refused(word) => refused(word),
            Self::Elsewhere(_) => unavailable(
                "this Redis is part of a cluster and sends us to another server: write redis-cluster://host:port, or \
                 rediss-cluster:// for TLS",
                None,
            ),
            Self::Odd => Error::new(Kind::Corrupt, "Redis's reply is of a type that the command does not have"),
        }
    }

    /// Of a script: what was sent may have run.
    pub(crate) fn of_write(self) -> Error {
        let unknown = |message, cause| caused(Kind::OutcomeUnknown, message, cause);
        match self {
            Self::Lost(cause) => unknown("the connection to Redis was lost before it answered a write", cause),
            Self::Silent(cause) => unknown("Redis did not answer a write in time", cause),
            // A client that is told so drops its connection, and gives the same answer to all that were under way.
            Self::Refused("CLUSTERDOWN") => unknown("Redis answered CLUSTERDOWN while a write was under way", None),
            not_run => not_run.of_read(),
        }
    }
}

/// Only the error's word: the rest of its text may name keys and users.
fn refused(word: &'static str) -> Error {
    match word {
        "WRONGTYPE" => Error::new(Kind::Corrupt, "what is at the session's key in Redis is not a hash (WRONGTYPE)"),
        word => Error::new(Kind::Unavailable, format!("Redis refused the command: {word}")),
    }
}

fn unavailable(message: &'static str, cause: Cause) -> Error {
    caused(Kind::Unavailable, message, cause)
}

fn caused(kind: Kind, message: &'static str, cause: Cause) -> Error {
    match cause {
        Some(cause) => Error::caused(kind, message, cause),
        None => Error::new(kind, message),
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(cause) => write!(f, "NotSent({cause:?})"),
            Self::Lost(cause) => write!(f, "Lost({cause:?})"),
            Self::Silent(cause) => write!(f, "Silent({cause:?})"),
            Self::Refused(word) => write!(f, "Refused({word})"),
            Self::Elsewhere(elsewhere) => write!(f, "{elsewhere:?}"),
            Self::Odd => f.write_str("Odd"),
        }
    }
}

/// Its form only: texts are the visitor's.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text"),
            Self::Number(number) => write!(f, "{number}"),
            Self::List(list) => f.debug_list().entries(list).finish(),
            Self::Nothing => f.write_str("Nothing"),
            Self::Other => f.write_str("Other"),
        }
    }
}
