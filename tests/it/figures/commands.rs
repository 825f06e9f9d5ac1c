//! What a request costs Redis: the commands that arrive there, health checks (`TIME`) apart.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use redis_session::{Error, Expiry, KeyRing, RedisSessionLayer, Session};
use redis_session_testkit::{Browser, Proxy, RedisServer};

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
