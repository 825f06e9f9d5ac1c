//! A store of theirs under our layer: our record whole inside theirs, read and written back in two commands.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use redis_session_core::{
    BoxFuture, Clock, Create, Created, End, Ended, Error, Kept, Kind, Save, Saved, SessionKey, Store, Stored, Time,
};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store;

use super::names::{date, hashed};
use super::turns::Turns;

/// The entries of their record's data: our own fields, the application's, and the time when all is to go.
const META: &str = "@";
const USER: &str = "@user";
const LABEL: &str = "@label";
const ENDED: &str = "@ended";
const FIELDS: &str = "@fields";
const DEADLINE: &str = "@deadline";
/// Some of their stores keep whole seconds; the exact deadline is among the data.
const A_SECOND: Duration = Duration::from_secs(1);

// No error of theirs is kept as a cause. They are texts, whoever wrote the store, and session data may be in all of them: a
// decoder names the value that does not fit, and a database that refuses a command may repeat its arguments.
const FAILED: &str = "the store of tower-sessions failed; why is left out, since session data may be in its text";
const FAILED_TO_WRITE: &str =
    "the store of tower-sessions failed while it wrote; why is left out, since session data may be in its text";

/// Any store of tower-sessions under our layer: for moving step by step, or where there is no Redis. The contract of a store
/// was run on theirs in memory and on theirs for Redis; those for Postgres, SQLite and other databases were not tried.
///
/// ```
/// use axum::{Router, routing::get};
/// use redis_session::{KeyRing, RedisSessionLayer, Session};
/// use redis_session_interop::tower_sessions::FromTowerSessions;
///
/// async fn count(session: Session) -> Result<String, redis_session::Error> {
///     session.increment("visits", 1)?;
///     Ok(format!("visit {}", session.get::<u64>("visits")?.unwrap_or(0)))
/// }
///
/// # fn main() -> Result<(), redis_session::Error> {
/// let store = FromTowerSessions::new(tower_sessions::MemoryStore::default());
/// let layer = RedisSessionLayer::with_store(store, KeyRing::random()?);
/// let app: Router = Router::new().route("/", get(count)).layer(layer);
/// # Ok(())
/// # }
/// ```
///
/// # Limits
///
/// Their stores can read and overwrite a record, and cannot check it in the same step. So each write here is two commands,
/// and one process makes those to one session one after the other. Within one process all that the layer promises holds.
/// **Where several processes write to one session at the same time, the last write wins, as a whole**: an edit of another one
/// may be lost, and a logout may be undone by a write that another process had begun before it. A balancer that keeps each
/// visitor on one server avoids that.
///
/// - There is no index, so nobody can be logged in: `log_in` is an error that says so, and there is nothing to revoke.
///   `ended()` learns of an end by looking once in a while.
/// - The clock is this server's. Those of several servers should agree within seconds.
/// - Only their own layer reads what `SessionManagerLayer` wrote: this one finds none of it, and its records hold nothing
///   under names that handlers there ask for. Who knows a session's handle could end it or write over it by such a layer on
///   the same store: give each a store of its own. To take those over, see
///   [`OldTowerSessions`](super::OldTowerSessions).
///
/// # Errors
/// `is_unavailable`: their store failed, or did not answer in time. `is_outcome_unknown`: it failed while it wrote.
/// `is_corrupt`: a record that does not decode; it is left alone. What their store says of a failure is in none of them,
/// since session data may be in it: to see it, put a store of your own around theirs that logs what fits.
pub struct FromTowerSessions<S> {
    theirs: Arc<S>,
    clock: Clock,
    deadline: Duration,
    turns: Arc<Turns<()>>,
}

impl<S: SessionStore> FromTowerSessions<S> {
    /// On this store of theirs.
    pub fn new(theirs: S) -> Self {
        let deadline = Duration::from_secs(1);
        Self { theirs: Arc::new(theirs), clock: Clock::system(), deadline, turns: Arc::default() }
    }

    /// How long one operation may take, both commands together. Default: one second.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    async fn read(&self, key: &SessionKey, by: Instant) -> Result<Option<Kept>, Error> {
        let record = match timeout_at(by, self.theirs.load(&id_of(key))).await {
            Ok(Ok(record)) => record,
            Ok(Err(session_store::Error::Decode(_))) => {
                return Err(Error::new(Kind::Corrupt, "the store of tower-sessions has a record that does not decode"));
            }
            Ok(Err(_)) => return Err(Error::new(Kind::Unavailable, FAILED)),
            Err(_) => return Err(Error::new(Kind::Unavailable, "the store of tower-sessions did not answer in time")),
        };
        record.map(|record| unpacked(record, key)).transpose()
    }

    /// One step at a time, as far as this process goes.
    async fn step<A>(
        &self,
        key: &SessionKey,
        decide: impl FnOnce(Option<&Stored>, Time) -> (A, Option<Kept>) + Send,
    ) -> Result<A, Error> {
        let by = Instant::now() + self.deadline;
        let busy = || Error::new(Kind::Unavailable, "others wrote to the session until the deadline");
        let _turn = self.turns.enter(key, by).await.ok_or_else(busy)?;
        let there = self.read(key, by).await?;
        let now = self.clock.now();
        let living = there.as_ref().filter(|kept| kept.deadline > now);
        let (answer, kept) = decide(living.map(|kept| &kept.stored), now);
        if let Some(kept) = kept {
            let written = timeout_at(by, self.write(key, there.is_some(), &kept)).await;
            match written {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    return Err(Error::new(
                        Kind::OutcomeUnknown,
                        "others have created the same session in the store of tower-sessions meanwhile",
                    ));
                }
                Ok(Err(session_store::Error::Encode(_))) => {
                    return Err(Error::new(Kind::Field, "the store of tower-sessions cannot encode the session"));
                }
                Ok(Err(_)) => return Err(Error::new(Kind::OutcomeUnknown, FAILED_TO_WRITE)),
                Err(_) => {
                    return Err(Error::new(
                        Kind::OutcomeUnknown,
                        "the store of tower-sessions did not answer a write in time",
                    ));
                }
            }
        }
        Ok(answer)
    }

    /// `false`: others were first, and it is theirs that stays.
    async fn write(&self, key: &SessionKey, is_there: bool, kept: &Kept) -> session_store::Result<bool> {
        let packed = packed(key, kept);
        if is_there {
            return self.theirs.save(&packed).await.map(|()| true);
        }
        for _ in 0..2 {
            let mut record = packed.clone();
            self.theirs.create(&mut record).await?;
            if record.id == packed.id {
                return Ok(true);
            }
            // They take another id where something is at this one: another process's session, or what they do not show, an
            // expired record.
            self.theirs.delete(&record.id).await?;
            if self.theirs.load(&packed.id).await?.is_some() {
                break;
            }
            self.theirs.delete(&packed.id).await?;
        }
        Ok(false)
    }
}

impl<S: SessionStore> Store for FromTowerSessions<S> {
    fn now(&self) -> Option<Time> {
        Some(self.clock.now())
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        Box::pin(async move {
            let kept = self.read(key, Instant::now() + self.deadline).await?;
            Ok(kept.filter(|kept| kept.deadline > self.clock.now()).map(|kept| kept.stored))
        })
    }

    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, Error>> {
        Box::pin(self.step(key, |there, now| create.on(there, now)))
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>> {
        Box::pin(self.step(key, |there, now| save.on(there, now)))
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>> {
        Box::pin(self.step(key, |there, now| end.on(there, now)))
    }
}

impl<S: fmt::Debug> fmt::Debug for FromTowerSessions<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromTowerSessions").field("theirs", &self.theirs).field("deadline", &self.deadline).finish()
    }
}

/// Where a session of ours is in a store of theirs. Whoever knows its handle can compute this id, so a layer of theirs on the
/// same store would find the record by it, with nothing in it that handlers there ask for.
fn id_of(key: &SessionKey) -> Id {
    hashed("redis-session place in tower-sessions 1", &key.to_text())
}

fn packed(key: &SessionKey, kept: &Kept) -> Record {
    let mut data = std::collections::HashMap::from([(DEADLINE.to_owned(), kept.deadline.as_millis().into())]);
    let mut put = |name: &str, value: Value| data.insert(name.to_owned(), value);
    match &kept.stored {
        Stored::Record(record) => {
            put(META, record.meta(key).into());
            if let Some(login) = &record.login {
                put(USER, login.to_text().into());
                if let Some(label) = &login.label {
                    put(LABEL, label.as_str().into());
                }
            }
            put(FIELDS, record.fields.iter().map(|(name, text)| Value::from(vec![value(name), value(text)])).collect());
        }
        Stored::Ended(tombstone) => {
            put(ENDED, format!("{} {}", tombstone.reason.as_str(), tombstone.at.as_millis()).into());
        }
    }
    let ends = UNIX_EPOCH + Duration::from_millis(kept.deadline.as_millis()) + A_SECOND;
    Record { id: id_of(key), data, expiry_date: date(ends) }
}

fn unpacked(mut record: Record, key: &SessionKey) -> Result<Kept, Error> {
    let corrupt = || Error::new(Kind::Corrupt, "the store of tower-sessions has a record that is none of ours");
    let mut hash = Vec::new();
    for name in [META, USER, LABEL, ENDED] {
        if let Some(text) = record.data.remove(name) {
            hash.push((Bytes::from_static(name.as_bytes()), text_of(&text).ok_or_else(corrupt)?));
        }
    }
    if let Some(fields) = record.data.remove(FIELDS) {
        for pair in fields.as_array().ok_or_else(corrupt)? {
            let [name, text] = pair.as_array().ok_or_else(corrupt)?.as_slice() else { return Err(corrupt()) };
            hash.push((text_of(name).ok_or_else(corrupt)?, text_of(text).ok_or_else(corrupt)?));
        }
    }
    let deadline = record.data.get(DEADLINE).and_then(Value::as_u64).ok_or_else(corrupt)?;
    let stored = Stored::parse(hash, key)?.ok_or_else(corrupt)?;
    Ok(Kept { stored, deadline: Time::from_millis(deadline) })
}

/// Text as text; what is none, as its bytes.
fn value(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.to_vec().into(), Value::from)
}

fn text_of(value: &Value) -> Option<Bytes> {
    match value {
        Value::String(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        Value::Array(bytes) => {
            bytes.iter().map(|byte| byte.as_u64()?.try_into().ok()).collect::<Option<Vec<u8>>>().map(Bytes::from)
        }
        _ => None,
    }
}
