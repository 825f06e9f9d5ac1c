//! Our store under their layer: what merges, what stays gone, what is refused.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get};
use redis_session::{Clock, MemoryStore, RedisStore};
use redis_session_core::{
    BoxFuture, Create, Created, End, Ended, Error, Kind, Save, Saved, SessionKey, Store, Stored, Time,
};
use redis_session_interop::tower_sessions::UnderTowerSessions;
use redis_session_testkit::{Action, Browser, Proxy, RedisServer};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::Barrier;
use tower_sessions::session::{Id, Record};
use tower_sessions::{Expiry, Session, SessionManagerLayer, SessionStore};

const COOKIE: &str = "id";

/// Runs a test on a store of ours in memory and on a Redis of its own.
async fn on_both_stores(test: impl AsyncFn(UnderTowerSessions, Option<RedisServer>)) {
    eprintln!("in memory:");
    test(UnderTowerSessions::new(MemoryStore::new()), None).await;
    eprintln!("on Redis:");
    let redis = RedisServer::start();
    let store = RedisStore::connect(&redis.url()).await.unwrap();
    test(UnderTowerSessions::new(store), Some(redis)).await;
}

/// Handlers by name, under their own layer.
fn app(store: UnderTowerSessions, routes: &[(&str, MethodRouter)]) -> Browser<Router> {
    app_under(SessionManagerLayer::new(store), routes)
}

fn app_under(layer: SessionManagerLayer<UnderTowerSessions>, routes: &[(&str, MethodRouter)]) -> Browser<Router> {
    let all = [("/add/{key}", get(add)), ("/show/{key}", get(show))];
    let routes = all.iter().chain(routes);
    let router = routes.fold(Router::new(), |router, (path, route)| router.route(path, route.clone()));
    Browser::new(router.layer(layer))
}

async fn add(session: Session, Path(key): Path<String>) -> Result<(), StatusCode> {
    session.insert(&key, true).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn show(session: Session, Path(key): Path<String>) -> String {
    session.get_value(&key).await.unwrap().unwrap_or_default().to_string()
}

async fn ok(browser: &Browser<Router>, path: &str) -> String {
    let page = browser.get(path).await;
    assert_eq!(page.status, 200, "{path}");
    page.body
}

fn record(data: &[(&str, Value)], left: time::Duration) -> Record {
    let data = data.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Record { id: Id::default(), data, expiry_date: OffsetDateTime::now_utc() + left }
}

/// Without what travels in it.
async fn loaded(store: &UnderTowerSessions, id: &Id) -> Option<Value> {
    let mut record = store.load(id).await.unwrap()?;
    assert_eq!(record.id, *id);
    assert!(record.data.remove("@read").is_some());
    Some(serde_json::to_value(record.data).unwrap())
}

const HOUR: time::Duration = time::Duration::HOUR;

#[tokio::test]
async fn their_layer_works_on_it_as_on_its_own_stores() {
    on_both_stores(async |store, redis| {
        let flush = get(async |session: Session| session.flush().await.unwrap());
        let clear = get(async |session: Session| session.clear().await);
        let cycle = get(async |session: Session| session.cycle_id().await.unwrap());
        let twice = get(async |session: Session| {
            session.insert("n", 1).await.unwrap();
            session.save().await.unwrap();
            session.insert("n", 2).await.unwrap();
            session.load().await.unwrap();
            assert_eq!(session.get::<u8>("n").await.unwrap(), Some(1), "as it was saved");
            session.remove::<u8>("n").await.unwrap();
            session.save().await.unwrap();
        });
        let routes = [("/flush", flush), ("/clear", clear), ("/cycle", cycle), ("/twice", twice)];
        let browser = app(store.clone(), &routes);
        assert_eq!(ok(&browser, "/show/a").await, "null");
        assert_eq!(browser.cookie(COOKIE), None);
        ok(&browser, "/add/a").await;
        assert_eq!(ok(&browser, "/show/a").await, "true");
        ok(&browser, "/twice").await;
        assert_eq!((ok(&browser, "/show/n").await, ok(&browser, "/show/a").await), ("null".into(), "true".into()));

        let old = browser.copy();
        ok(&browser, "/cycle").await;
        assert_ne!(old.cookie(COOKIE), browser.cookie(COOKIE));
        assert_eq!((ok(&old, "/show/a").await, ok(&browser, "/show/a").await), ("null".into(), "true".into()));

        ok(&browser, "/clear").await;
        assert_eq!(ok(&browser, "/show/a").await, "null");
        assert!(browser.cookie(COOKIE).is_some(), "the session stays");
        ok(&browser, "/add/b").await;
        let copy = browser.copy();
        ok(&browser, "/flush").await;
        assert_eq!(browser.cookie(COOKIE), None);
        assert_eq!(ok(&copy, "/show/b").await, "null");
        if let Some(redis) = redis {
            let keys = redis.run(&["KEYS", "*"]).texts();
            let is_a_tombstone = |key: &String| redis.run(&["HKEYS", key]).texts() == ["@ended"];
            assert!(keys.iter().all(is_a_tombstone), "nothing else is left: {keys:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn two_hundred_parallel_edits_of_different_keys_are_all_kept() {
    on_both_stores(async |store, _| {
        let together = Arc::new(Barrier::new(200));
        let edit = get(async move |session: Session, Path(n): Path<u32>| {
            assert_eq!(session.get_value("first").await.unwrap(), Some(json!(true)));
            together.wait().await;
            session.insert(&format!("key{n}"), n).await.unwrap();
        });
        let browser = app(store.clone(), &[("/edit/{n}", edit)]);
        ok(&browser, "/add/first").await;
        let edits = (0..200).map(|n| {
            let browser = browser.clone();
            async move { browser.get(&format!("/edit/{n}")).await.status }
        });
        let statuses = futures_util::future::join_all(edits).await;
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 200);
        let id: Id = browser.cookie(COOKIE).unwrap().parse().unwrap();
        let kept = loaded(&store, &id).await.unwrap();
        assert_eq!(kept.as_object().unwrap().len(), 201);
        assert!((0..200).all(|n| kept[format!("key{n}")] == json!(n)));
    })
    .await;
}

#[tokio::test]
async fn what_a_request_did_not_change_it_does_not_write_back() {
    on_both_stores(async |store, _| {
        let mut first = record(&[("a", json!(1)), ("b", json!(1)), ("gone", json!(1))], HOUR);
        store.create(&mut first).await.unwrap();
        let mut slow = store.load(&first.id).await.unwrap().unwrap();
        let mut fast = store.load(&first.id).await.unwrap().unwrap();
        fast.data.insert("a".into(), json!(2));
        fast.data.insert("new".into(), json!(2));
        fast.data.remove("gone");
        store.save(&fast).await.unwrap();
        // More versions than a record keeps.
        for n in 0..6 {
            let mut record = store.load(&first.id).await.unwrap().unwrap();
            record.data.insert("n".into(), json!(n));
            store.save(&record).await.unwrap();
        }
        slow.data.insert("b".into(), json!(3));
        store.save(&slow).await.unwrap();
        let all = json!({"a": 2, "b": 3, "n": 5, "new": 2});
        assert_eq!(loaded(&store, &first.id).await, Some(all));
        // What was never read is cleared as a whole.
        let cleared = Record { data: [("c".to_owned(), json!(1))].into(), ..slow };
        store.save(&cleared).await.unwrap();
        assert_eq!(loaded(&store, &first.id).await, Some(json!({"c": 1})));
    })
    .await;
}

#[tokio::test]
async fn r38_a_session_that_is_gone_stays_gone_and_nobody_gets_a_500() {
    on_both_stores(async |store, _| {
        let meanwhile = Arc::new(Barrier::new(2));
        let slow = {
            let meanwhile = meanwhile.clone();
            get(async move |session: Session| {
                session.insert("b", true).await.unwrap();
                meanwhile.wait().await;
                meanwhile.wait().await;
            })
        };
        let flush = get(async |session: Session| session.flush().await.unwrap());
        let browser = app(store.clone(), &[("/slow", slow), ("/flush", flush)]);
        ok(&browser, "/add/a").await;
        let (copy, id) = (browser.copy(), browser.cookie(COOKIE).unwrap().parse().unwrap());
        let (page, ()) = tokio::join!(browser.get("/slow"), async {
            meanwhile.wait().await;
            ok(&copy, "/flush").await;
            meanwhile.wait().await;
        });
        assert_eq!(page.status, 200);
        assert_eq!(loaded(&store, &id).await, None);
        assert_eq!(ok(&browser, "/show/b").await, "null");
    })
    .await;
}

#[tokio::test]
async fn a_new_session_takes_no_other_s_place() {
    on_both_stores(async |store, _| {
        let mut first = record(&[("a", json!(1))], HOUR);
        store.create(&mut first).await.unwrap();
        let mut second = Record { data: [("b".to_owned(), json!(2))].into(), ..first.clone() };
        store.create(&mut second).await.unwrap();
        assert_ne!(second.id, first.id);
        assert_eq!(loaded(&store, &first.id).await, Some(json!({"a": 1})));
        assert_eq!(loaded(&store, &second.id).await, Some(json!({"b": 2})));
        // Nor that of one which has ended: what is still on its way to it would write to the new one.
        store.delete(&first.id).await.unwrap();
        let mut third = Record { data: [("c".to_owned(), json!(3))].into(), ..first.clone() };
        store.create(&mut third).await.unwrap();
        assert_ne!(third.id, first.id);
        assert_eq!(loaded(&store, &first.id).await, None);
    })
    .await;
}

/// A store in which every place is taken.
struct Full(MemoryStore);

impl Store for Full {
    fn now(&self) -> Option<Time> {
        self.0.now()
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        self.0.load(key)
    }

    fn create<'a>(&'a self, _: &'a SessionKey, _: &'a Create) -> BoxFuture<'a, Result<Created, Error>> {
        Box::pin(async { Ok(Created::Exists) })
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>> {
        self.0.save(key, save)
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>> {
        self.0.end(key, end)
    }
}

#[tokio::test]
async fn r05_where_every_id_is_taken_a_new_session_is_an_error_after_few_tries() {
    let store = UnderTowerSessions::new(Full(MemoryStore::new()));
    let error = store.create(&mut record(&[("a", json!(1))], HOUR)).await.unwrap_err();
    assert!(error.to_string().contains("the same ids again and again"), "{error}");
    let page = app(store, &[]).get("/add/a").await;
    assert_eq!((page.status.as_u16(), page.set_cookies().len()), (500, 0));
}

#[tokio::test]
async fn r68_redis_holds_nothing_that_works_as_a_cookie() {
    let redis = RedisServer::start();
    let store = UnderTowerSessions::new(RedisStore::connect(&redis.url()).await.unwrap());
    let browser = app(store, &[]);
    ok(&browser, "/add/a").await;
    let id = browser.cookie(COOKIE).unwrap();
    let key = redis.run(&["KEYS", "*"]).texts().remove(0);
    let place = key.strip_prefix("sess:tower-sessions:").unwrap();
    let all = redis.run(&["HGETALL", &key]).map();
    assert_eq!(all.keys().collect::<Vec<_>>(), ["@", "a"]);
    assert!(!format!("{key} {all:?}").contains(&id));
    for text in all["@"].split(' ').chain([place]).filter(|word| word.len() == 22) {
        let thief = browser.stranger();
        thief.set_cookie(COOKIE, text);
        assert_eq!(ok(&thief, "/show/a").await, "null", "{text}");
    }
}

#[tokio::test]
async fn a_session_ends_at_the_expiry_date_of_its_last_save() {
    let clock = Clock::manual();
    let store = UnderTowerSessions::new(MemoryStore::new().clock(clock.clone()));
    let layer = SessionManagerLayer::new(store.clone())
        .with_expiry(Expiry::OnInactivity(time::Duration::minutes(10)))
        .with_always_save(true);
    let browser = app_under(layer, &[]);
    ok(&browser, "/add/a").await;
    for _ in 0..5 {
        clock.advance(Duration::from_secs(9 * 60));
        assert_eq!(ok(&browser, "/show/a").await, "true");
    }
    clock.advance(Duration::from_secs(11 * 60));
    assert_eq!(ok(&browser, "/show/a").await, "null");
}

#[tokio::test]
async fn r52_expiry_dates_in_the_past_or_beyond_all_bounds_are_harmless() {
    let clock = Clock::manual();
    let store = UnderTowerSessions::new(MemoryStore::new().clock(clock.clone()));
    let mut past = record(&[("a", json!(1))], -HOUR);
    store.create(&mut past).await.unwrap();
    assert_eq!(loaded(&store, &past.id).await, None);

    let end_of_time = time::PrimitiveDateTime::MAX.assume_utc();
    let mut endless = Record { expiry_date: end_of_time, ..record(&[("a", json!(1))], HOUR) };
    store.create(&mut endless).await.unwrap();
    clock.advance(Duration::from_secs(399 * 86_400));
    assert_eq!(loaded(&store, &endless.id).await, Some(json!({"a": 1})));
    clock.advance(Duration::from_secs(2 * 86_400));
    assert_eq!(loaded(&store, &endless.id).await, None);

    let mut living = record(&[("a", json!(1))], HOUR);
    store.create(&mut living).await.unwrap();
    store.save(&Record { expiry_date: time::PrimitiveDateTime::MIN.assume_utc(), ..living.clone() }).await.unwrap();
    assert_eq!(loaded(&store, &living.id).await, None);
}

#[tokio::test]
async fn a_write_whose_reply_was_lost_is_made_once() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let store = UnderTowerSessions::new(RedisStore::connect(&proxy.url()).await.unwrap());
    let browser = app(store, &[]);
    for key in ["created", "saved"] {
        proxy.fault_next("EVALSHA", Action::DropReply);
        ok(&browser, &format!("/add/{key}")).await;
        assert_eq!(ok(&browser, &format!("/show/{key}")).await, "true");
    }
    assert_eq!(redis.run(&["DBSIZE"]).int(), 1);
}

/// Another process saves a session four times: what was written before is no longer among the last versions.
async fn others_save(store: &UnderTowerSessions, id: &Id) {
    for (name, value) in [("k", 2), ("n", 1), ("n", 2), ("n", 3)] {
        let mut record = store.load(id).await.unwrap().unwrap();
        record.data.insert(name.into(), json!(value));
        store.save(&record).await.unwrap();
    }
}

#[tokio::test]
async fn r84_an_edit_whose_reply_was_lost_does_not_undo_what_others_have_saved_since() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let other = UnderTowerSessions::new(RedisStore::connect(&redis.url()).await.unwrap());
    let patient = RedisStore::options(&proxy.url()).deadline(Duration::from_secs(10));
    let store = UnderTowerSessions::new(patient.connect().await.unwrap());
    let mut first = record(&[("k", json!(0))], HOUR);
    other.create(&mut first).await.unwrap();
    // Redis knows the script from then on.
    others_save(&other, &first.id).await;
    let mut edited = store.load(&first.id).await.unwrap().unwrap();
    edited.data.insert("k".into(), json!(1));
    // The first copy runs and its reply is lost; the second one is on its way while others save.
    let mut scripts = 0;
    proxy.fault(move |command| {
        scripts += u32::from(command.name() == "EVALSHA");
        match (command.name(), scripts) {
            ("EVALSHA", 1) => Action::DropReply,
            ("EVALSHA", 2) => Action::HoldThenSend { after: Duration::MAX, cut: false },
            _ => Action::Pass,
        }
    });
    let (saved, ()) = tokio::join!(store.save(&edited), async {
        proxy.until_held(1).await;
        assert_eq!(loaded(&other, &first.id).await, Some(json!({"k": 1, "n": 3})), "it has run");
        others_save(&other, &first.id).await;
        proxy.release();
    });
    let error = saved.unwrap_err().to_string();
    assert!(error.contains("whether it was made cannot be found out"), "{error}");
    assert_eq!(loaded(&other, &first.id).await, Some(json!({"k": 2, "n": 3})));
}

/// A store in memory that several processes share, and what happens to the next saves of one of them.
#[derive(Clone)]
struct Shared {
    store: Arc<MemoryStore>,
    happens: Arc<Mutex<VecDeque<Happens>>>,
    deadline: Duration,
}

enum Happens {
    /// Its reply is lost.
    Lost,
    /// Nobody waits for it any more while it is still on its way, and others save.
    Held(BoxFuture<'static, ()>),
    /// It is too late, and so is the answer that says so.
    Late,
}

impl Shared {
    fn new(deadline: Duration) -> Self {
        Self { store: Arc::default(), happens: Arc::default(), deadline }
    }

    fn happen(&self, what: impl IntoIterator<Item = Happens>) {
        self.happens.lock().unwrap().extend(what);
    }
}

impl Store for Shared {
    fn now(&self) -> Option<Time> {
        self.store.now()
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        self.store.load(key)
    }

    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, Error>> {
        self.store.create(key, create)
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>> {
        let next = self.happens.lock().unwrap().pop_front();
        Box::pin(async move {
            match next {
                None => return self.store.save(key, save).await,
                Some(Happens::Lost) => drop(self.store.save(key, save).await?),
                Some(Happens::Held(others)) => others.await,
                Some(Happens::Late) => {
                    tokio::time::sleep(self.deadline).await;
                    return Ok(Saved::Late);
                }
            }
            Err(Error::new(Kind::OutcomeUnknown, "the connection was lost"))
        })
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>> {
        self.store.end(key, end)
    }
}

#[tokio::test]
async fn r84_what_is_told_of_a_write_whose_reply_was_lost_is_true() {
    let shared = Shared::new(Duration::from_secs(10));
    let store = UnderTowerSessions::new(shared.clone()).size_limit(100);
    let other = UnderTowerSessions::new(Shared { happens: Arc::default(), ..shared.clone() });
    let mut first = record(&[("k", json!(0))], HOUR);
    other.create(&mut first).await.unwrap();
    let edited = async |name: &str, value: Value| {
        let mut record = store.load(&first.id).await.unwrap().unwrap();
        record.data.insert(name.to_owned(), value);
        record
    };

    shared.happen([Happens::Lost, Happens::Lost]);
    store.save(&edited("k", json!(1)).await).await.unwrap();
    assert_eq!(loaded(&other, &first.id).await, Some(json!({"k": 1})), "once, and it is known");

    // What was never read is based on nothing: of it, the first copy only asked what there is.
    let cleared = Record { data: [("c".to_owned(), json!(1))].into(), ..first.clone() };
    shared.happen([Happens::Lost]);
    store.save(&cleared).await.unwrap();
    assert_eq!(loaded(&other, &first.id).await, Some(json!({"c": 1})));

    // That is too large by now, as others have saved; but the first copy may run without them.
    let large = json!("x".repeat(60));
    let (others, id) = (other.clone(), first.id);
    let others = async move {
        let mut record = others.load(&id).await.unwrap().unwrap();
        record.data.insert("large".into(), json!("x".repeat(60)));
        others.save(&record).await.unwrap();
    };
    let record = edited("mine", large).await;
    shared.happen([Happens::Held(Box::pin(others))]);
    let error = store.save(&record).await.unwrap_err().to_string();
    assert!(error.contains("whether it was made cannot be found out"), "{error}");
}

#[tokio::test]
async fn r84_a_write_that_may_have_run_is_not_said_to_have_come_too_late() {
    let shared = Shared::new(Duration::from_millis(100));
    let store = UnderTowerSessions::new(shared.clone());
    let mut first = record(&[("k", json!(0))], HOUR);
    store.create(&mut first).await.unwrap();
    first.data.insert("k".into(), json!(1));
    shared.happen([Happens::Lost, Happens::Late]);
    let error = store.save(&first).await.unwrap_err().to_string();
    assert!(error.contains("whether it was made cannot be found out"), "{error}");
    assert_eq!(loaded(&store, &first.id).await, Some(json!({"k": 1})));
}

#[tokio::test]
async fn reserved_names_and_too_much_are_refused_and_nothing_is_lost() {
    on_both_stores(async |store, _| {
        let store = store.size_limit(100);
        let browser = app(store.clone(), &[]);
        ok(&browser, "/add/a").await;
        assert_eq!(browser.get("/add/@").await.status, 500);
        assert_eq!(browser.get(&format!("/add/{}", "x".repeat(100))).await.status, 500);
        assert_eq!(ok(&browser, "/show/a").await, "true");
        let id: Id = browser.cookie(COOKIE).unwrap().parse().unwrap();
        let refusal = async |name: &str| {
            let mut record = store.load(&id).await.unwrap().unwrap();
            record.data.insert(name.to_owned(), json!(true));
            store.save(&record).await.unwrap_err().to_string()
        };
        assert!(
            refusal("@user").await.contains("names that begin with \"@\" are reserved: give \"@user\" another one")
        );
        assert!(refusal(&"y".repeat(99)).await.contains("limit of 100 bytes"));
        assert_eq!(loaded(&store, &id).await, Some(json!({"a": true})));
        let mut new = record(&[("@", json!(1))], HOUR);
        assert!(store.create(&mut new).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn while_redis_is_away_requests_fail_and_no_session_is_lost() {
    let redis = RedisServer::start();
    let store = UnderTowerSessions::new(RedisStore::connect(&redis.url()).await.unwrap());
    let browser = app(store.clone(), &[]);
    ok(&browser, "/add/a").await;
    let id: Id = browser.cookie(COOKIE).unwrap().parse().unwrap();
    redis.pause();
    assert!(store.load(&id).await.is_err());
    assert_eq!(browser.get("/add/b").await.status, 500);
    assert!(browser.cookie(COOKIE).is_some());
    redis.resume();
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while store.load(&id).await.is_err() {
        assert!(std::time::Instant::now() < until, "it does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ok(&browser, "/show/a").await, "true");
}
