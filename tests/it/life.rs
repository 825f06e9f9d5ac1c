//! The life of a session over HTTP: logout, timeouts, what a record may say, which answers keep edits.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::extract;
use axum::response::IntoResponse;
use axum::routing::get;
use http::{Request, StatusCode};
use redis_session::{
    Cookie, Error, Event, Expiry, KeyRing, Kind, Observer, RedisSessionLayer, Refusal, SaveOn, Session, Store, Why,
};
use redis_session_testkit::{Browser, RedisServer};
use serde::{Deserialize, Serialize};

use crate::watched::{Seen, Watched, patient};

const NAME: &str = "__Host-id";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Visitor {
    visits: u64,
    cart: Vec<u64>,
}

fn layer(store: impl Store) -> RedisSessionLayer {
    RedisSessionLayer::with_store(store, KeyRing::random().unwrap())
}

fn app(layer: RedisSessionLayer) -> Router {
    Router::new()
        .route("/", get(async |session: Session| format!("{:?}", session.status())))
        .route("/visits", get(async |visitor: Session<Visitor>| visitor.visits.to_string()))
        .route("/visit", get(async |session: Session| session.increment("visits", 1)))
        .route("/push/{item}", get(push))
        .route("/rotate", get(async |session: Session| session.rotate().await))
        .route("/log-out", get(async |session: Session| session.destroy().await))
        .route("/remember", get(async |session: Session| session.remember(Duration::MAX).await))
        .route("/answer/{status}/{what}", get(answer))
        .layer(layer)
}

async fn push(mut visitor: Session<Visitor>, extract::Path(item): extract::Path<u64>) -> Result<(), Error> {
    visitor.update(move |visitor| visitor.cart.push(item))
}

/// Answers with a status, after it has done something to the session.
async fn answer(
    session: Session,
    extract::Path((status, what)): extract::Path<(u16, String)>,
) -> Result<impl IntoResponse, Error> {
    match what.as_str() {
        "edit" => session.increment("visits", 1)?,
        "save" => {
            session.increment("visits", 1)?;
            session.save().await?;
        }
        "rotate" => session.rotate().await?,
        "end" => session.destroy().await?,
        _ => {}
    }
    Ok(StatusCode::from_u16(status).unwrap())
}

async fn visitor(app: Router) -> Browser<Router> {
    let browser = Browser::new(app);
    assert_eq!(browser.get("/visit").await.status, 200);
    assert_eq!(browser.get("/").await.body, ALIVE);
    browser
}

const ALIVE: &str = "Alive";
const EXPIRED: &str = "Ended(Expired)";

/// The name of the only key in Redis.
fn only_key(redis: &RedisServer) -> String {
    let mut keys = redis.run(&["KEYS", "*"]).texts();
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys.remove(0)
}

/// Makes a record older, or (by a negative number) younger: what a backup or another clock might bring.
fn age(redis: &RedisServer, key: &str, by: i64) {
    let record = redis.run(&["HGET", key, "@"]).text();
    let mut words: Vec<_> = record.split(' ').map(str::to_owned).collect();
    words[4] = (words[4].parse::<i64>().unwrap() - by).to_string();
    redis.run(&["HSET", key, "@", &words.join(" ")]);
}

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap()
}

#[tokio::test]
async fn r37_a_cookie_that_is_replayed_after_a_logout_is_worth_nothing() {
    let redis = RedisServer::start();
    let seen = Seen::default();
    let layer = layer(patient(&redis.url(), MINUTE / 3).await);
    let browser = visitor(app(layer.observer(seen.clone()))).await;
    let (thief, key) = (browser.copy(), only_key(&redis));
    let page = browser.get("/log-out").await;
    assert!(page.status == 200 && page.set_cookies()[0].contains("Max-Age=0"), "{page:?}");
    // What is left says why and when, and goes by itself.
    let record = redis.run(&["HGETALL", &key]).map();
    assert!(record.len() == 1 && record["@ended"].starts_with("destroyed "), "{record:?}");
    assert!((50_000..=60_000).contains(&redis.run(&["PTTL", &key]).int()));
    seen.take();

    assert_eq!(thief.get("/").await.body, "Ended(Destroyed)");
    // It revives nothing and begins nothing: the answer would take the place of a newer cookie.
    for path in ["/visit", "/push/1", "/log-out"] {
        let page = thief.get(path).await;
        assert!(page.set_cookies().is_empty() || path == "/log-out", "{path}: {page:?}");
    }
    assert_eq!(redis.run(&["HGETALL", &key]).map(), record);
    assert_eq!(only_key(&redis), key);
    let refused = Event::Refused(Refusal::Ended);
    let dropped = Event::Dropped(Why::Dead);
    assert_eq!(seen.take(), [refused, refused, dropped, refused, dropped, refused]);
}

struct Panics;

impl Observer for Panics {
    fn observe(&self, event: Event) {
        panic!("this observer cannot bear {event:?}");
    }
}

#[tokio::test]
async fn r40_an_observer_that_panics_stops_nothing() {
    let (store, before, after) = (Watched::new(), Seen::default(), Seen::default());
    let observed = layer(store.clone()).observer(before.clone()).observer(Panics).observer(after.clone());
    let browser = visitor(app(observed)).await;
    let replay = browser.copy();
    assert_eq!(browser.get("/rotate").await.status, 200);
    let page = browser.get("/log-out").await;
    assert!(page.status == 200 && page.set_cookies()[0].contains("Max-Age=0"), "{page:?}");
    assert_eq!(browser.cookie(NAME), None);
    assert_eq!(replay.get("/").await.body, "Ended(Destroyed)");
    let all = before.take();
    assert!(all.contains(&Event::Rotated) && all.contains(&Event::Destroyed), "{all:?}");
    assert_eq!(after.take(), all);
}

#[tokio::test]
async fn r41_what_one_server_does_the_others_see_at_once() {
    let redis = RedisServer::start();
    let keys = KeyRing::random().unwrap();
    let server = async || RedisSessionLayer::with_store(patient(&redis.url(), MINUTE / 3).await, keys.clone());
    let (here, there) = (visitor(app(server().await)).await, app(server().await));
    let there = |of: &Browser<Router>| {
        let browser = Browser::new(there.clone());
        browser.set_cookie(NAME, &of.cookie(NAME).unwrap());
        browser
    };
    for visits in ["1", "2", "3"] {
        assert_eq!(there(&here).get("/visits").await.body, visits);
        here.get("/visit").await;
    }
    let old = there(&here);
    here.get("/rotate").await;
    assert_eq!(old.get("/").await.body, "Replaced");
    let before = there(&here);
    assert_eq!(before.get("/").await.body, ALIVE);
    here.get("/log-out").await;
    assert_eq!(before.get("/").await.body, "Ended(Destroyed)");
}

#[tokio::test]
async fn r51_cookie_and_time_to_live_name_the_same_deadline() {
    let redis = RedisServer::start();
    let layer = layer(patient(&redis.url(), MINUTE / 3).await);
    let layer = layer.expiry(Expiry::idle(12 * HOUR).absolute(12 * HOUR)).cookie(Cookie::default().persistent());
    let browser = Browser::new(app(layer));
    for path in ["/visit", "/rotate", "/remember"] {
        let line = browser.get(path).await.set_cookies().remove(0);
        let max_age: i64 = line.split_once("Max-Age=").unwrap().1.parse().unwrap();
        let left = redis.run(&["PTTL", &only_key(&redis)]).int();
        assert!((left - max_age * 1000).abs() < 2000, "{path}: {left} {line}");
    }
}

#[tokio::test]
async fn r57_a_record_from_the_future_is_refused() {
    let redis = RedisServer::start();
    let seen = Seen::default();
    let app = app(layer(patient(&redis.url(), MINUTE / 3).await).observer(seen.clone()));
    // A failover may bring another clock: minutes are tolerated.
    for (ahead, status) in [(4 * MINUTE, ALIVE), (10 * MINUTE, EXPIRED), (7 * DAY, EXPIRED)] {
        redis.run(&["FLUSHALL"]);
        let browser = visitor(app.clone()).await;
        age(&redis, &only_key(&redis), -ms(ahead));
        seen.take();
        assert_eq!(browser.get("/").await.body, status, "{ahead:?}");
        // It has not ended: another clock may have it right.
        let refused = vec![Event::StoreFailed(Kind::Corrupt)];
        assert_eq!(seen.take(), if status == ALIVE { Vec::new() } else { refused }, "{ahead:?}");
        assert_eq!(redis.run(&["HEXISTS", &only_key(&redis), "visits"]).int(), 1, "{ahead:?}");
    }
}

#[test]
fn r57_no_code_reads_the_clock_of_the_app_server() {
    // Where that clock is the store's own: that of the store in memory.
    const MAY: &str = "redis-session-core/src/time.rs";
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
    let mut readers = Vec::new();
    for name in ["redis-session", "redis-session-core", "redis-session-store"] {
        walk(&crates.join(name).join("src"), &mut |path| {
            let source = std::fs::read_to_string(path).unwrap();
            if source.contains("SystemTime::now") || source.contains("UtcDateTime::now") || source.contains("Utc::now")
            {
                readers.push(path.strip_prefix(&crates).unwrap().to_owned());
            }
        });
    }
    assert_eq!(readers, [Path::new(MAY)]);
}

fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, visit) } else { visit(&path) }
    }
}

#[tokio::test]
async fn r60_which_answers_keep_edits_and_renew_is_this_table() {
    let (saved, touched, dropped) = (Event::Saved { tries: 1 }, Event::Touched, Event::Dropped(Why::Failed));
    //                 NoServerError        Success             Always
    let kept = |event: Event| [Some(event), Some(event), Some(event)];
    let table = [
        (200, "edit", kept(saved)),
        (204, "edit", kept(saved)),
        (303, "edit", kept(saved)),
        (304, "edit", kept(saved)),
        (400, "edit", [Some(saved), Some(dropped), Some(saved)]),
        (404, "edit", [Some(saved), Some(dropped), Some(saved)]),
        (499, "edit", [Some(saved), Some(dropped), Some(saved)]),
        (500, "edit", [Some(dropped), Some(dropped), Some(saved)]),
        (503, "edit", [Some(dropped), Some(dropped), Some(saved)]),
        (599, "edit", [Some(dropped), Some(dropped), Some(saved)]),
        (200, "read", kept(touched)),
        (303, "read", kept(touched)),
        (404, "read", [Some(touched), None, Some(touched)]),
        (500, "read", [None, None, Some(touched)]),
        // What was awaited stands.
        (200, "save", kept(saved)),
        (404, "save", kept(saved)),
        (500, "save", kept(saved)),
        (503, "save", kept(saved)),
    ];
    for (status, what, events) in table {
        for (save_on, event) in [SaveOn::NoServerError, SaveOn::Success, SaveOn::Always].into_iter().zip(events) {
            let (store, seen) = (Watched::new(), Seen::default());
            let browser = visitor(app(layer(store.clone()).observer(seen.clone()).save_on(save_on))).await;
            store.clock().advance(5 * MINUTE);
            seen.take();
            let page = browser.get(&format!("/answer/{status}/{what}")).await;
            assert_eq!((page.status.as_u16(), page.set_cookies().len()), (status, 0), "{status} {what} {save_on:?}");
            assert_eq!(seen.take(), event.into_iter().collect::<Vec<_>>(), "{status} {what} {save_on:?}");
            let visits = if event == Some(saved) { "2" } else { "1" };
            assert_eq!(browser.get("/visits").await.body, visits, "{status} {what} {save_on:?}");
        }
    }
}

#[tokio::test]
async fn r60_what_was_awaited_stands_and_its_cookie_is_sent_with_any_answer() {
    for status in [404, 500, 503] {
        let browser = Browser::new(app(layer(Watched::new())));
        assert_eq!(browser.get(&format!("/answer/{status}/save")).await.status.as_u16(), status);
        let first = browser.cookie(NAME).unwrap();
        assert_eq!(browser.get("/visits").await.body, "1");
        assert_eq!(browser.get(&format!("/answer/{status}/rotate")).await.status.as_u16(), status);
        assert_ne!(browser.cookie(NAME).unwrap(), first);
        assert_eq!(browser.get("/visits").await.body, "1");
        assert_eq!(browser.get(&format!("/answer/{status}/end")).await.status.as_u16(), status);
        assert_eq!(browser.cookie(NAME), None);
        // An edit alone begins nothing then.
        let dropped = browser.get(&format!("/answer/{status}/edit")).await;
        assert_eq!(dropped.set_cookies().len(), usize::from(status == 404));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r75_parallel_edits_through_two_servers_are_all_kept() {
    let redis = RedisServer::start();
    let keys = KeyRing::random().unwrap();
    let mut servers = Vec::new();
    for _ in 0..2 {
        let store = patient(&redis.url(), MINUTE / 3).await;
        servers.push(app(RedisSessionLayer::with_store(store, keys.clone())));
    }
    let first = visitor(servers[0].clone()).await;
    let value = first.cookie(NAME).unwrap();
    let mut requests = Vec::new();
    for n in 0..50 {
        for path in ["/visit".to_owned(), format!("/push/{n}")] {
            let browser = Browser::new(servers[n % 2].clone());
            let request =
                Request::get(path).header("cookie", format!("{NAME}={value}")).body(Default::default()).unwrap();
            requests.push(tokio::spawn(async move { browser.ask(request).await.status }));
        }
    }
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!(first.get("/visits").await.body, "51");
    let mut cart: Vec<u64> = serde_json::from_str(&redis.run(&["HGET", &only_key(&redis), "cart"]).text()).unwrap();
    cart.sort_unstable();
    assert_eq!(cart, (0..50).collect::<Vec<_>>());
}
