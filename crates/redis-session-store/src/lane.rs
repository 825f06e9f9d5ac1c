//! Connections on which writes wait for replicas.
//!
//! `WAIT` counts what its own connection has written, so both go as one pipeline: a server that took over in between cannot
//! answer for the one that made the write. It also holds up all that is behind it, so each write has a connection to itself
//! for as long as it waits. They are made when they are needed, and kept.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::clients::Client;
use fred::error::Error as FredError;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};
use redis_session_core::Replication;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::node::{AbortOnDrop, Answer, Ask, Named, asking, failure, options, word};
use crate::server::{Copies, Failure};
use crate::target::{Settings, Target};

/// How many writes wait at a time for each server. Where a replica is away, more would only wait in a longer row.
const MOST: usize = 16;
/// What is between us and Redis may have forgotten a connection that was not used for longer.
const STALE: Duration = Duration::from_secs(60);
/// How often it is looked whether a connection is there.
const LOOK: Duration = Duration::from_millis(1);
/// What `WAIT` does not say.
const ODD: &str = "an odd reply";

/// The connections to one server.
pub(crate) struct Lanes {
    target: Target,
    settings: Settings,
    idle: Mutex<Idle>,
    room: Semaphore,
}

/// The connections that wait for a write.
#[derive(Default)]
struct Idle {
    lanes: Vec<Lane>,
    /// How often one was doubted: those that were in use then do not come back.
    doubts: u64,
}

/// One connection. It is not made anew: another takes its place.
struct Lane {
    client: Client,
    connection: AbortOnDrop<Result<(), FredError>>,
    used: Instant,
    /// How many doubts there were when it was taken.
    doubts: u64,
}

/// A connection that nobody else uses.
pub(crate) struct Taken<'a> {
    lane: Lane,
    lanes: &'a Lanes,
    _room: SemaphorePermit<'a>,
}

impl Lanes {
    pub(crate) fn new(target: &Target, settings: &Settings) -> Self {
        Self { target: target.clone(), settings: *settings, idle: Mutex::default(), room: Semaphore::new(MOST) }
    }

    /// A connection, kept or new. `None`: there was none in time.
    pub(crate) async fn take(&self, by: Instant) -> Option<Taken<'_>> {
        let room = tokio::time::timeout_at(by.into(), self.room.acquire()).await.ok()?.ok()?;
        let lane = match self.kept() {
            Ok(lane) => lane,
            Err(doubts) => self.connect(doubts, by).await?,
        };
        Some(Taken { lane, lanes: self, _room: room })
    }

    /// One that was used before. Without one, tells how many doubts there were.
    fn kept(&self) -> Result<Lane, u64> {
        let mut idle = self.idle();
        idle.lanes.retain(|lane| lane.is_connected() && lane.used.elapsed() < STALE);
        idle.lanes.pop().ok_or(idle.doubts)
    }

    fn keep(&self, lane: Lane) {
        let mut idle = self.idle();
        if lane.doubts == idle.doubts {
            idle.lanes.push(Lane { used: Instant::now(), ..lane });
        }
    }

    /// A reply was not one to its command, perhaps of one of these: others take the place of all of them.
    pub(crate) fn doubt(&self) {
        let mut idle = self.idle();
        idle.doubts += 1;
        idle.lanes.clear();
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self, doubts: u64, by: Instant) -> Option<Lane> {
        let client = self.target.client(&self.settings, true).ok()?;
        let connection = AbortOnDrop(client.connect());
        let lane = Lane { client, connection, used: Instant::now(), doubts };
        while !lane.client.is_connected() {
            if Instant::now() >= by || lane.connection.0.is_finished() {
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
        Some(lane)
    }
}

impl Lane {
    fn is_connected(&self) -> bool {
        self.client.is_connected() && !self.connection.0.is_finished()
    }

    async fn put(
        &mut self,
        ask: &Ask<'_>,
        wait: Replication,
        named: Named,
        after_asking: bool,
        by: Instant,
    ) -> Result<Answer, Failure> {
        let pipeline = self.client.pipeline().with_options(&options(by)?);
        if after_asking {
            let _queued = asking(&pipeline).await;
        }
        let _queued = ask.put(&pipeline, named).await;
        let command = CustomCommand::new_static("WAIT", ClusterHash::FirstKey, false);
        let words = [wait.replicas.to_string(), millis(wait.within, by).to_string()];
        let words: Vec<_> = words.into_iter().map(|word| Value::Bytes(Bytes::from(word))).collect();
        let _queued = pipeline.custom::<Value, Value>(command, words).await;
        let mut answers = tokio::select! {
            biased;
            answers = pipeline.try_all::<Value>() => answers,
            // A primary that becomes a replica lets those go who wait; fred forgets them with their connection.
            _ = &mut self.connection.0 => return Err(Failure::Lost(None)),
        };
        match (answers.pop(), answers.pop()) {
            (Some(waited), Some(written)) => Ok(Answer { value: written.map_err(failure)?, copies: copies(waited) }),
            // All of it failed.
            (Some(Err(error)), None) => Err(failure(error)),
            _ => Err(Failure::Odd),
        }
    }
}

impl Taken<'_> {
    /// Makes the write, and waits.
    pub(crate) async fn send(
        mut self,
        ask: &Ask<'_>,
        wait: Replication,
        after_asking: bool,
        by: Instant,
    ) -> Result<Answer, Failure> {
        let sent = Instant::now();
        let mut answer = self.lane.put(ask, wait, Named::ByHash, after_asking, by).await;
        if let Err(Failure::Refused("NOSCRIPT")) = &answer {
            // The wait behind it took its time too: for what others have written, which tells as much of the replicas.
            let within = wait.within.saturating_sub(sent.elapsed());
            let wait = Replication { within, ..wait };
            answer = self.lane.put(ask, wait, Named::ByText, after_asking, by).await;
        }
        let is_in_step = match &answer {
            Ok(answer) => answer.copies != Err(ODD),
            Err(failure) => matches!(failure, Failure::Refused(_) | Failure::Elsewhere(_)),
        };
        // Of one that was silent nobody knows what it answers next.
        if is_in_step {
            self.lanes.keep(self.lane);
        }
        answer
    }
}

/// For how long to wait, in Redis's milliseconds: not longer than anybody waits for the answer, and never 0, which is for
/// ever.
fn millis(within: Duration, by: Instant) -> u128 {
    within.min(by.saturating_duration_since(Instant::now())).as_millis().max(1)
}

/// What `WAIT` says. The write is made, whatever that is.
fn copies(waited: Result<Value, FredError>) -> Copies {
    match waited {
        Ok(Value::Integer(there)) => u32::try_from(there).map_err(|_| ODD),
        Ok(_) => Err(ODD),
        Err(error) => Err(word(error.details()).unwrap_or("an error")),
    }
}
