//! What a request costs Redis: the commands that arrive there, health checks (`TIME`) apart.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use redis_session::{Error, Expiry, KeyRing, RedisSessionLayer, Session};
use redis_session_testkit::{Browser, Proxy, RedisServer};

use super::accounts::{Kept, rounds};
use super::{Visitor, paths, patient_store};

const NOTHING: &[(&str, u64)] = &[];
const LOAD: &[(&str, u64)] = &[("HGETALL", 1)];
const SCRIPT: &[(&str, u64)] = &[("EVALSHA", 1)];
const BOTH: &[(&str, u64)] = &[("EVALSHA", 1), ("HGETALL", 1)];

fn app(layer: RedisSessionLayer) -> Router {
    let much = async |mut visitor: Session<Visitor>, session: Session, again: Session<Visitor>| {
        for _ in 0..again.visits + 1000 {
            visitor.update(|visitor| visitor.visits += 1)?;
            session.increment("pages", 1)?;
        }
        Ok::<_, Error>(())
    };
    let same = async |mut visitor: Session<Visitor>| visitor.update(|visitor| visitor.visits += 0);
    let optional = async |session: Option<Session>| session.is_some().to_string();
    Router::new()
        .route("/much", get(much))
        .route("/same", get(same))
        .route("/optional", get(optional))
        .merge(paths())
        .layer(layer)
}

fn counted(proxy: &Proxy) -> BTreeMap<String, u64> {
    proxy.counts().into_iter().filter(|(name, _)| name != "TIME").collect()
}

#[tokio::test]
async fn a_request_sends_the_commands_of_this_table_and_no_other() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let keys = KeyRing::random().unwrap();
    let layer = RedisSessionLayer::with_store(patient_store(&proxy.url()).await, keys);
    let calm = Browser::new(app(layer.clone()));
    let due = Browser::new(app(layer.expiry(Expiry::default().touch_every(Duration::ZERO))));
    // Redis learns the three scripts.
    for path in ["/visit", "/visit", "/destroy", "/visit"] {
        assert_eq!(calm.get(path).await.status, 200);
    }
    let good = calm.cookie("__Host-id").unwrap();
    let stranger =
        Browser::new(app(RedisSessionLayer::with_store(patient_store(&redis.url()).await, KeyRing::random().unwrap())));
    stranger.get("/visit").await;
    let forged = stranger.cookie("__Host-id").unwrap();
    let (good, forged) = (Some(&*good), Some(&*forged));

    let table = [
        ("no cookie, no question", &calm, None, "/untouched", NOTHING),
        ("a cookie, no question", &calm, good, "/untouched", NOTHING),
        ("no cookie", &calm, None, "/read", NOTHING),
        ("no cookie, if there is a session", &calm, None, "/optional", NOTHING),
        ("a forged cookie", &calm, forged, "/read", NOTHING),
        ("a malformed cookie", &calm, Some("1malformed"), "/read", NOTHING),
        ("an empty cookie", &calm, Some(""), "/read", NOTHING),
        ("a logout without a session", &calm, None, "/destroy", NOTHING),
        ("a rotation without a session", &calm, None, "/rotate", NOTHING),
        ("a read", &calm, good, "/read", LOAD),
        ("a read, if there is a session", &calm, good, "/optional", LOAD),
        ("an edit that changes nothing", &calm, good, "/same", LOAD),
        ("a first write", &calm, None, "/visit", SCRIPT),
        ("a first write, with a forged cookie", &calm, forged, "/visit", SCRIPT),
        ("a write with a closure", &calm, good, "/visit", BOTH),
        ("a write that merges", &calm, good, "/count", BOTH),
        ("2,000 edits through three extractors", &calm, good, "/much", BOTH),
        ("a read when a touch is due", &due, good, "/read", BOTH),
        ("a write when a touch is due", &due, good, "/visit", BOTH),
        ("no question when a touch is due", &due, good, "/untouched", NOTHING),
        ("a rotation", &calm, good, "/rotate", BOTH),
        ("a cookie that was replaced", &calm, good, "/read", LOAD),
    ];
    for (what, app, cookie, path, expected) in table {
        let visitor = app.stranger();
        if let Some(value) = cookie {
            visitor.set_cookie("__Host-id", value);
        }
        proxy.reset_counts();
        assert_eq!(visitor.get(path).await.status, 200, "{what}");
        let sent = counted(&proxy);
        println!("{what}: {} commands {sent:?}", sent.values().sum::<u64>());
        assert!(
            sent.iter().map(|(name, count)| (name.as_str(), *count)).eq(expected.iter().copied()),
            "{what}: {sent:?}"
        );
    }
}

/// Sessions of other users, ten each, and their lists; the time that each entry has is the script's own.
const PLANT: &str = "
    local at = redis.call('TIME')[1] * 1000 + 1800000
    for nth = tonumber(ARGV[1]), ARGV[1] + 999 do
        local session = string.format('%022d', nth)
        redis.call('COPY', KEYS[1], 'sess:main:' .. session)
        local list = 'sess:main:user:' .. string.format('%043d', math.floor(nth / 10))
        redis.call('ZADD', list, string.format('%.0f', at), session)
        redis.call('PEXPIREAT', list, string.format('%.0f', at))
    end";

fn plant(redis: &RedisServer, model: &str, sessions: usize) {
    for first in (0..sessions).step_by(1000) {
        redis.run(&["EVAL", PLANT, "1", model, &first.to_string()]);
    }
}

/// What the visitors of the table below come with.
struct People {
    app: Browser<Router>,
    due: Browser<Router>,
    capped: Browser<Router>,
}

impl People {
    async fn log_in(&self, user: &str) -> Browser<Router> {
        let visitor = self.app.stranger();
        assert_eq!(visitor.get(&format!("/people/log-in/{user}")).await.status, 200);
        visitor
    }

    /// The same visitor where each request renews the timeout.
    fn due(&self, visitor: &Browser<Router>) -> Browser<Router> {
        let due = self.due.stranger();
        due.set_cookie("__Host-id", &visitor.cookie("__Host-id").unwrap());
        due
    }
}

/// With `PEOPLE_FULL=1` also among 100,000 sessions of others. A load apart, which every request with a cookie has, the
/// numbers are those of the protocol.
#[tokio::test]
async fn logins_lists_and_ends_send_the_commands_of_this_table_however_many_sessions_there_are() {
    let mut tables = Vec::new();
    for others in [1000, rounds(100_000, 2000)] {
        let redis = RedisServer::start();
        let proxy = Proxy::start(redis.address());
        let layer = RedisSessionLayer::with_store(patient_store(&proxy.url()).await, KeyRing::random().unwrap());
        let people = People {
            app: Browser::new(app(layer.clone())),
            due: Browser::new(app(layer.clone().expiry(Expiry::default().touch_every(Duration::ZERO)))),
            capped: Browser::new(app(layer.sessions_per_user(NonZeroUsize::new(10).unwrap()))),
        };
        people.log_in("model").await;
        let model = redis.run(&["KEYS", "sess:main:??????????????????????"]).texts().remove(0);
        plant(&redis, &model, others);
        assert_eq!(redis.run(&["DBSIZE"]).int() as usize, others + others / 10 + 2);
        // Redis learns the scripts.
        people_table(&people, &redis, &proxy, "learn").await;
        let table = people_table(&people, &redis, &proxy, "ada").await;
        for (what, sent) in &table {
            println!("{what}, among {others} sessions: {} commands {sent:?}", sent.values().sum::<u64>());
        }
        tables.push(table);
    }
    let expected: [(&str, u64); 12] = [
        ("log in", 3),
        ("log in with a cart", 1 + 3),
        ("log in over the cap", 5),
        ("log in as another user", 1 + 3 + 2),
        ("log in again", 1 + 3),
        ("a read", 1),
        ("a read when a touch is due", 1 + 2),
        ("a log-out", 1 + 2),
        ("the list of 10", 1 + 10),
        ("revoke one", 3),
        ("revoke an unknown one", 1),
        ("revoke all of 10", 1 + 10 + 1),
    ];
    for table in &tables {
        let counts = table.iter().map(|(what, sent)| (*what, sent.values().sum::<u64>()));
        assert!(counts.eq(expected), "{table:?}");
    }
    assert_eq!(tables[0], tables[1]);
}

async fn people_table(
    people: &People,
    redis: &RedisServer,
    proxy: &Proxy,
    user: &str,
) -> Vec<(&'static str, BTreeMap<String, u64>)> {
    let mut table = Vec::new();
    let log_in = format!("/people/log-in/{user}");
    let (nobody, cart, switch) = (people.app.stranger(), people.app.stranger(), people.log_in("model").await);
    assert_eq!(cart.get("/push/7").await.status, 200);
    let mut ask = async |what: &'static str, visitor: &Browser<Router>, path: &str| {
        proxy.reset_counts();
        assert_eq!(visitor.get(path).await.status, 200, "{what}");
        table.push((what, counted(proxy)));
    };
    ask("log in", &nobody, &log_in).await;
    ask("log in with a cart", &cart, &log_in).await;
    for _ in 0..8 {
        people.log_in(user).await;
    }
    ask("log in over the cap", &people.capped.stranger(), &log_in).await;
    ask("log in as another user", &switch, &log_in).await;
    ask("log in again", &switch, &log_in).await;
    ask("a read", &switch, "/read").await;
    ask("a read when a touch is due", &people.due(&switch), "/read").await;
    ask("a log-out", &switch, "/people/log-out").await;
    ask("the list of 10", &nobody.stranger(), &format!("/people/list/{user}")).await;
    let one = people.log_in(user).await;
    let list: Vec<String> =
        serde_json::from_str(&nobody.stranger().get(&format!("/people/list/{user}")).await.body).unwrap();
    assert_eq!(list.len(), 11);
    let revoke = format!("/people/revoke/{user}/{}", one.get(&log_in).await.body.split('"').nth(1).unwrap());
    ask("revoke one", &nobody.stranger(), &revoke).await;
    ask("revoke an unknown one", &nobody.stranger(), &revoke).await;
    ask("revoke all of 10", &nobody.stranger(), &format!("/people/revoke-all/{user}")).await;
    assert_eq!(Kept::of(redis).living.values().filter(|of| *of == user).count(), 0);
    table
}
