//! An application's sessions, in memory or on a Redis of their own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis_session::{Clock, Event, KeyRing, MemoryStore, Observer, RedisSessionLayer, RedisStore};
use redis_session_testkit::RedisServer;

pub(crate) const COOKIE: &str = "__Host-id";

pub(crate) struct Place {
    pub(crate) layer: RedisSessionLayer,
    pub(crate) events: Events,
    /// Ends with the test. `None`: in memory.
    pub(crate) redis: Option<RedisServer>,
}

/// Runs a test on either store.
pub(crate) async fn on_both_stores(test: impl AsyncFn(Place)) {
    eprintln!("in memory:");
    let layer = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random().unwrap());
    test(Place::around(layer, None)).await;
    eprintln!("on Redis:");
    test(Place::on_redis().await).await;
}

impl Place {
    fn around(layer: RedisSessionLayer, redis: Option<RedisServer>) -> Self {
        let events = Events::default();
        Self { layer: layer.observer(events.clone()), events, redis }
    }

    pub(crate) async fn on_redis() -> Self {
        let redis = RedisServer::start();
        // 200 requests at once take a busy machine longer than the default deadline.
        let store = RedisStore::options(&redis.url()).deadline(Duration::from_secs(5)).connect().await.unwrap();
        Self::around(RedisSessionLayer::with_store(store, KeyRing::random().unwrap()), Some(redis))
    }
}

/// In memory, with a clock to be moved.
pub(crate) fn with_a_clock() -> (Place, impl Fn(Duration)) {
    let clock = Clock::manual();
    let store = MemoryStore::new().clock(clock.clone());
    let layer = RedisSessionLayer::with_store(store, KeyRing::random().unwrap());
    (Place::around(layer, None), move |time| clock.advance(time))
}

/// What happened to sessions since it was last asked.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Observer for Events {
    fn observe(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}
