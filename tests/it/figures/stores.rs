//! Both stores under a layer each, and a look into them from behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis_session::{KeyRing, MemoryStore, RedisSessionLayer, Store};
use redis_session_core::{BoxFuture, Create, Created, End, Ended, Error, Save, Saved, SessionKey, Stored, Time};
use redis_session_testkit::RedisServer;
use tokio::task::yield_now;

use super::{PATIENT, patient_store};

/// A store, the layer on it, and its name.
pub(super) struct Place {
    pub(super) name: &'static str,
    pub(super) layer: RedisSessionLayer,
    back: Back,
}

enum Back {
    Memory(Yielding),
    Redis(RedisServer),
}

/// What a store has for a session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Nothing,
    Tombstone,
    /// The application's fields, as JSON texts.
    Fields(BTreeMap<String, String>),
}

impl Place {
    pub(super) async fn both() -> [Self; 2] {
        let (memory, redis) = (Yielding::default(), RedisServer::start());
        let layer = |store| RedisSessionLayer::with_store(store, KeyRing::random().unwrap());
        let store = patient_store(&redis.url()).await;
        let redis_layer = RedisSessionLayer::with_store(store, KeyRing::random().unwrap());
        [
            Self { name: "memory", layer: layer(memory.clone()), back: Back::Memory(memory) },
            Self { name: "Redis", layer: redis_layer, back: Back::Redis(redis) },
        ]
    }

    /// How many records and tombstones there are.
    pub(super) fn count(&self) -> usize {
        match &self.back {
            Back::Memory(memory) => memory.store.len(),
            Back::Redis(redis) => redis.run(&["DBSIZE"]).int() as usize,
        }
    }

    /// What there is for the session that was begun last.
    pub(super) async fn kept(&self) -> Kept {
        match &self.back {
            Back::Memory(memory) => memory.last().await,
            Back::Redis(redis) => in_redis(redis),
        }
    }

    /// Forgets the sessions that there are.
    pub(super) fn clear(&self) {
        match &self.back {
            Back::Memory(memory) => *memory.created.lock().unwrap() = None,
            Back::Redis(redis) => drop(redis.run(&["FLUSHALL"])),
        }
    }
}

fn in_redis(redis: &RedisServer) -> Kept {
    let keys = redis.run(&["KEYS", "*"]).texts();
    let hash = match &keys[..] {
        [] => return Kept::Nothing,
        [key] => redis.run(&["HGETALL", key]).map(),
        several => panic!("there are several sessions: {several:?}"),
    };
    if hash.contains_key("@ended") {
        return Kept::Tombstone;
    }
    Kept::Fields(hash.into_iter().filter(|(name, _)| name != "@").collect())
}

/// A store in memory that takes its time: each operation lets others in before it runs, and before it answers.
#[derive(Clone, Default)]
pub(super) struct Yielding {
    store: Arc<MemoryStore>,
    created: Arc<Mutex<Option<SessionKey>>>,
}

impl Yielding {
    async fn slowly<T>(&self, operation: impl Future<Output = T>) -> T {
        yield_now().await;
        let answer = operation.await;
        yield_now().await;
        answer
    }

    async fn last(&self) -> Kept {
        let key = self.created.lock().unwrap().clone();
        let Some(key) = key else { return Kept::Nothing };
        match self.store.load(&key).await.unwrap() {
            None => Kept::Nothing,
            Some(Stored::Ended(_)) => Kept::Tombstone,
            Some(Stored::Record(record)) => {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                Kept::Fields(record.fields.iter().map(|(name, value)| (text(name), text(value))).collect())
            }
        }
    }
}

impl Store for Yielding {
    fn now(&self) -> Option<Time> {
        self.store.now()
    }

    fn deadline(&self) -> Duration {
        PATIENT
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        Box::pin(self.slowly(self.store.load(key)))
    }

    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, Error>> {
        *self.created.lock().unwrap() = Some(key.clone());
        Box::pin(self.slowly(self.store.create(key, create)))
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>> {
        Box::pin(self.slowly(self.store.save(key, save)))
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>> {
        Box::pin(self.slowly(self.store.end(key, end)))
    }
}
