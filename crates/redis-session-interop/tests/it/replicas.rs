//! Where replicas answer reads: what is under their layer goes by the primary's word, since their guards read like anybody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::{Router, routing::get};
use redis_session::{KeyRing, MemoryStore, ReadFrom, RedisSessionLayer, Session as Ours};
use redis_session_core::{
    BoxFuture, Create, Created, End, Ended, Error, Read, ReplicaRead, Replicas, Save, Saved, SessionKey, Store, Stored,
    Time,
};
use redis_session_interop::tower_sessions::TowerSessionsLayer;
use redis_session_testkit::Browser;
use tower_sessions::Session;

/// A store that counts the reads that a replica may answer.
#[derive(Clone, Default)]
struct Counting {
    store: Arc<MemoryStore>,
    reads: Arc<AtomicU32>,
}

impl Store for Counting {
    fn now(&self) -> Option<Time> {
        self.store.now()
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        self.store.load(key)
    }

    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, Error>> {
        self.store.create(key, create)
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>> {
        self.store.save(key, save)
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>> {
        self.store.end(key, end)
    }

    fn replicas(&self) -> Option<&dyn Replicas> {
        Some(self)
    }
}

impl Replicas for Counting {
    fn read<'a>(&'a self, key: &'a SessionKey, _: &'a ReplicaRead) -> BoxFuture<'a, Result<Read, Error>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { self.store.load(key).await.map(Read::Primary) })
    }
}

#[tokio::test]
async fn r41_under_their_layer_no_read_is_a_replicas() {
    let store = Counting::default();
    let replicas = ReadFrom::Replicas { behind: Duration::from_secs(2) };
    let ours = RedisSessionLayer::with_store(store.clone(), KeyRing::random().unwrap()).read_from(replicas);
    let theirs = Router::new()
        .route("/add", get(async |session: Session| session.insert("a", 1).await.unwrap()))
        .route("/theirs", get(async |session: Session| format!("{:?}", session.get::<u8>("a").await.unwrap())))
        .route("/both", get(async |session: Ours| format!("{:?}", session.get::<u8>("a").unwrap())))
        .layer(TowerSessionsLayer::new());
    let alone = get(async |session: Ours| format!("{:?}", session.get::<u8>("a").unwrap()));
    let browser = Browser::new(theirs.route("/ours", alone).layer(ours));
    assert_eq!(browser.get("/add").await.status, 200);
    for (path, reads) in [("/theirs", 0), ("/both", 0), ("/ours", 1)] {
        assert_eq!(browser.get(path).await.body, "Some(1)", "{path}");
        assert_eq!(store.reads.swap(0, Ordering::Relaxed), reads, "{path}");
    }
}
