//! A store whose operations take turns at random, and that knows which ids were created.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis_session::Store;
use redis_session_core::{BoxFuture, Create, Created, End, Ended, Error, Save, Saved, SessionKey, Stored, Time};

#[derive(Clone)]
pub(super) struct Shaken {
    store: Arc<dyn Store>,
    random: Arc<Mutex<fastrand::Rng>>,
    keys: Arc<Mutex<Keys>>,
}

#[derive(Default)]
struct Keys {
    /// Those at which a record was, or was looked for.
    known: Vec<SessionKey>,
    created: Vec<SessionKey>,
    adopted: usize,
}

impl Shaken {
    pub(super) fn new(store: Arc<dyn Store>, seed: u64) -> Self {
        let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        Self { store, random, keys: Arc::default() }
    }

    /// The keys of all sessions that ever began.
    pub(super) fn created(&self) -> Vec<SessionKey> {
        self.keys.lock().unwrap().created.clone()
    }

    /// How many sessions began under a key that a request had come with, or that was in use.
    pub(super) fn adopted(&self) -> usize {
        self.keys.lock().unwrap().adopted
    }

    async fn shake(&self) {
        let turns = self.random.lock().unwrap().usize(0..4);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    async fn shaken<T>(&self, operation: impl Future<Output = T>) -> T {
        self.shake().await;
        let answer = operation.await;
        self.shake().await;
        answer
    }
}

impl Store for Shaken {
    fn now(&self) -> Option<Time> {
        self.store.now()
    }

    /// A busy machine must not decide the outcome.
    fn deadline(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        self.keys.lock().unwrap().known.push(key.clone());
        Box::pin(self.shaken(self.store.load(key)))
    }

    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, Error>> {
        {
            let mut keys = self.keys.lock().unwrap();
            keys.adopted += usize::from(keys.known.contains(key) || keys.created.contains(key));
            keys.created.push(key.clone());
        }
        Box::pin(self.shaken(self.store.create(key, create)))
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>> {
        Box::pin(self.shaken(self.store.save(key, save)))
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>> {
        Box::pin(self.shaken(self.store.end(key, end)))
    }
}
