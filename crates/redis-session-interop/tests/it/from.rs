//! Their stores under our layer: the contract, what holds in one process, and what several cannot have.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use redis_session::{KeyRing, RedisSessionLayer, Session, Status};
use redis_session_core::Store;
use redis_session_interop::tower_sessions::FromTowerSessions;
use redis_session_testkit::{Action, Browser, Proxy, RedisServer, store_contract};
use tokio::sync::{Notify, Semaphore};
use tower_sessions::session::{Id, Record};
use tower_sessions::{SessionStore, session_store};
use tower_sessions_redis_store::RedisStore as TheirRedis;
use tower_sessions_redis_store::fred::prelude::{ClientLike, Config, Pool};

use crate::place::COOKIE;

pub(crate) async fn their_pool(url: &str) -> Pool {
    let pool = Pool::new(Config::from_url(url).unwrap(), None, None, None, 1).unwrap();
    pool.connect();
    pool.wait_for_connect().await.unwrap();
    pool
}

/// A store of theirs that several share, and whose saves may be made to wait.
#[derive(Clone, Debug)]
struct Theirs {
    store: Arc<dyn SessionStore>,
    /// `None`: nothing waits.
    gate: Option<Arc<Gate>>,
}

#[derive(Debug)]
struct Gate {
    open: Semaphore,
    waiting: Notify,
}

impl Theirs {
    fn shared(store: impl SessionStore) -> Self {
        Self { store: Arc::new(store), gate: None }
    }
}

#[async_trait::async_trait]
impl SessionStore for Theirs {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        self.store.create(record).await
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        if let Some(gate) = &self.gate {
            gate.waiting.notify_one();
            gate.open.acquire().await.unwrap().forget();
        }
        self.store.save(record).await
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        self.store.load(id).await
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        self.store.delete(id).await
    }
}

/// Runs a test on tower-sessions' own store in memory and on its store on a Redis.
async fn on_both_stores(test: impl AsyncFn(Theirs)) {
    eprintln!("in memory:");
    test(Theirs::shared(tower_sessions::MemoryStore::default())).await;
    eprintln!("on Redis:");
    let redis = RedisServer::start();
    test(Theirs::shared(TheirRedis::new(their_pool(&redis.url()).await))).await;
}

fn app(store: impl Store) -> Browser<Router> {
    let add = get(async |session: Session, Path(key): Path<String>| session.insert(&key, &true).unwrap());
    let show = get(async |session: Session| {
        let names: Vec<String> = session.fields().unwrap().into_iter().map(|(name, _)| name).collect();
        names.join(" ")
    });
    let router = Router::new()
        .route("/add/{key}", add)
        .route("/show", show)
        .route("/rotate", get(async |session: Session| session.rotate().await.unwrap()))
        .route("/destroy", get(async |session: Session| session.destroy().await.unwrap()))
        .route(
            "/log-in",
            get(async |session: Session| session.log_in("ada").await.map_err(|error| error.to_string()).unwrap_err()),
        )
        .route("/status", get(async |session: Session| format!("{:?}", session.status())));
    Browser::new(router.layer(RedisSessionLayer::with_store(store, KeyRing::random().unwrap())))
}

#[tokio::test]
async fn in_one_process_a_store_of_theirs_keeps_the_contract() {
    on_both_stores(async |theirs| {
        let store = FromTowerSessions::new(theirs).deadline(Duration::from_secs(10));
        store_contract(store, tokio::time::sleep).await;
    })
    .await;
}

#[tokio::test]
async fn sessions_work_and_nobody_can_be_logged_in() {
    on_both_stores(async |theirs| {
        let browser = app(FromTowerSessions::new(theirs));
        assert_eq!(browser.get("/add/a").await.status, 200);
        let old = browser.copy();
        browser.get("/rotate").await;
        assert_ne!(old.cookie(COOKIE), browser.cookie(COOKIE));
        assert_eq!(browser.get("/show").await.body, "a");
        assert_eq!(old.get("/show").await.body, "");
        let refusal = browser.get("/log-in").await.body;
        assert!(refusal.contains("no index of users' sessions, so nobody can be logged in"), "{refusal}");
        let copy = browser.copy();
        browser.get("/destroy").await;
        assert_eq!(browser.cookie(COOKIE), None);
        assert_eq!(copy.get("/add/b").await.status, 200);
        assert_eq!(copy.get("/status").await.body, format!("{:?}", Status::Ended(redis_session::Reason::Destroyed)));
        assert_eq!(copy.get("/show").await.body, "", "what ended stays so");
    })
    .await;
}

#[tokio::test]
async fn in_one_process_parallel_edits_are_all_kept() {
    on_both_stores(async |theirs| {
        let browser = app(FromTowerSessions::new(theirs).deadline(Duration::from_secs(10)));
        browser.get("/add/first").await;
        let edits = (0..100).map(|n| {
            let browser = browser.clone();
            async move { browser.get(&format!("/add/key{n}")).await.status }
        });
        let statuses = futures_util::future::join_all(edits).await;
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 100);
        assert_eq!(browser.get("/show").await.body.split(' ').count(), 101);
    })
    .await;
}

#[tokio::test]
async fn of_two_processes_the_last_write_wins_as_the_docs_say() {
    on_both_stores(async |theirs| {
        let keys = KeyRing::random().unwrap();
        let gate = Arc::new(Gate { open: Semaphore::new(0), waiting: Notify::new() });
        let server = |store: FromTowerSessions<Theirs>| {
            let add = get(async |session: Session, Path(key): Path<String>| session.insert(&key, &true).unwrap());
            let show = get(async |session: Session| session.fields().unwrap().len().to_string());
            let router = Router::new().route("/add/{key}", add).route("/show", show);
            Browser::new(router.layer(RedisSessionLayer::with_store(store, keys.clone())))
        };
        let one = server(FromTowerSessions::new(theirs.clone()));
        let other = server(FromTowerSessions::new(Theirs { gate: Some(gate.clone()), ..theirs }));
        one.get("/add/first").await;
        other.set_cookie(COOKIE, &one.cookie(COOKIE).unwrap());
        let (page, ()) = tokio::join!(other.get("/add/slow"), async {
            gate.waiting.notified().await;
            assert_eq!(one.get("/add/fast").await.status, 200);
            gate.open.add_permits(1);
        });
        assert_eq!(page.status, 200);
        assert_eq!(one.get("/show").await.body, "2", "of first, fast and slow");
    })
    .await;
}

#[tokio::test]
async fn r72_records_that_are_none_of_ours_are_an_error_and_left_alone() {
    let redis = RedisServer::start();
    let pool = their_pool(&redis.url()).await;
    let browser = app(FromTowerSessions::new(TheirRedis::new(pool)));
    browser.get("/add/a").await;
    let key = redis.run(&["KEYS", "*"]).texts().remove(0);
    let expiry_date = time::OffsetDateTime::now_utc() + time::Duration::HOUR;
    let theirs = Record { id: key.parse().unwrap(), data: [("a".to_owned(), 1.into())].into(), expiry_date };
    let bytes = [
        b"no MessagePack at all".to_vec(),
        rmp_serde::to_vec(&theirs).unwrap(),
        rmp_serde::to_vec(&Record { data: [("@".to_owned(), 7.into())].into(), ..theirs.clone() }).unwrap(),
        rmp_serde::to_vec(&Record { data: [("@fields".to_owned(), "x".into())].into(), ..theirs.clone() }).unwrap(),
    ];
    for bytes in bytes {
        redis.run(&[b"SET".as_slice(), key.as_bytes(), &bytes]);
        assert_eq!(browser.get("/show").await.status, 500);
        assert_eq!(browser.get("/add/b").await.status, 500);
        assert_eq!(redis.run(&["STRLEN", &key]).int(), i64::try_from(bytes.len()).unwrap());
    }
}

#[tokio::test]
async fn a_store_of_theirs_that_is_silent_is_an_error_in_time() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let pool = their_pool(&proxy.url()).await;
    let browser = app(FromTowerSessions::new(TheirRedis::new(pool)).deadline(Duration::from_millis(100)));
    browser.get("/add/a").await;
    proxy.fault(|_| Action::HoldThenSend { after: Duration::MAX, cut: false });
    let began = std::time::Instant::now();
    assert_eq!(browser.get("/show").await.status, 503);
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(browser.cookie(COOKIE).is_some());
}
