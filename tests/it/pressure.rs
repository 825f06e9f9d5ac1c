//! Redis short of memory: what is evicted is a visitor logged out, and where nothing is evicted, nobody is.

use std::time::Duration;

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use redis_session::{Error, KeyRing, RedisSessionLayer, Session};
use redis_session_testkit::{Browser, RedisServer};
use serde::{Deserialize, Serialize};

use crate::watched::patient;

/// Two halves of what a visitor has; equal at all times.
#[derive(Clone, Default, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Visitor {
    left: String,
    right: String,
}

const HALF: usize = 1024;

async fn log_in(Path(name): Path<String>, mut visitor: Session<Visitor>) -> Result<(), Error> {
    let half = name[..1].repeat(HALF);
    visitor.update_with(half, |visitor, half| *visitor = Visitor { left: half.clone(), right: half })?;
    visitor.session().log_in(name).await
}

async fn read(visitor: Session<Visitor>) -> Result<Json<(Option<String>, Visitor)>, Error> {
    Ok(Json((visitor.session().user()?, (*visitor).clone())))
}

fn app(layer: RedisSessionLayer) -> Router {
    Router::new()
        .route("/login/{name}", get(log_in))
        .route("/read", get(read))
        .route("/count", get(async |session: Session| session.increment("count", 1)))
        .layer(layer)
}

/// A Redis with room for so many bytes more than it takes now.
fn short_of_memory(policy: &str, room: u64) -> RedisServer {
    let redis = RedisServer::start_with(&[("maxmemory-policy", policy), ("hash-max-listpack-value", "1024")]);
    let used = redis.run(&["INFO", "memory"]).text();
    let used: u64 = used.lines().find_map(|line| line.strip_prefix("used_memory:")?.parse().ok()).unwrap();
    redis.run(&["CONFIG", "SET", "maxmemory", &(used + room).to_string()]);
    redis
}

async fn layer(redis: &RedisServer) -> RedisSessionLayer {
    let store = patient(&redis.url(), Duration::from_secs(20)).await;
    RedisSessionLayer::with_store(store, KeyRing::random().unwrap())
}

/// What a visitor sees of himself: all of it, or a visitor who is not logged in. `true`: he is.
async fn is_logged_in(visitor: &Browser<Router>, name: &str) -> bool {
    let page = visitor.get("/read").await;
    assert_eq!(page.status, 200, "{name}");
    let (user, seen): (Option<String>, Visitor) = serde_json::from_str(&page.body).unwrap();
    let half = name[..1].repeat(HALF);
    match &user {
        Some(user) => assert_eq!((&**user, &seen.left, &seen.right), (name, &half, &half)),
        None => assert_eq!(seen, Visitor::default(), "{name}"),
    }
    user.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn r82_whom_redis_evicts_is_logged_out_and_nobody_gets_an_error_or_half_a_session() {
    for policy in ["volatile-lru", "allkeys-lru", "volatile-ttl"] {
        let redis = short_of_memory(policy, 1 << 20);
        let layer = layer(&redis).await;
        let (app, sessions) = (app(layer.clone()), layer.sessions());
        let mut visitors = Vec::new();
        for number in 0..800 {
            let (visitor, name) = (Browser::new(app.clone()), format!("{}-{number}", ["a", "b", "c"][number % 3]));
            assert_eq!(visitor.get(&format!("/login/{name}")).await.status, 200, "{policy} {name}");
            visitors.push((visitor, name));
        }
        let (mut alive, mut evicted) = (0, 0);
        for (visitor, name) in &visitors {
            let before = visitor.cookie("__Host-id");
            match is_logged_in(visitor, name).await {
                true => alive += 1,
                false => evicted += 1,
            }
            // The cookie is left alone: what is not there today may be a failover's doing.
            assert_eq!(visitor.cookie("__Host-id"), before);
            // The list may be gone, and the session not; or the other way round.
            assert!(sessions.list(name).await.unwrap().len() <= 1);
            assert_eq!(visitor.get("/count").await.status, 200);
        }
        let (visitor, name) = &visitors[0];
        assert_eq!(visitor.get(&format!("/login/{name}")).await.status, 200);
        assert!(is_logged_in(visitor, name).await, "the newest is not the first to go");
        eprintln!("{policy}: of {} visitors {alive} are logged in, {evicted} were evicted", visitors.len());
        assert!(alive > 20 && evicted > 200, "{policy}: {alive} {evicted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r82_where_redis_evicts_nothing_the_full_one_refuses_writes_and_all_stay_logged_in() {
    let redis = short_of_memory("noeviction", 1 << 20);
    let app = app(layer(&redis).await);
    let mut visitors = Vec::new();
    let refused = loop {
        let (visitor, name) = (Browser::new(app.clone()), format!("a-{}", visitors.len()));
        let page = visitor.get(&format!("/login/{name}")).await;
        if page.status != 200 {
            break page;
        }
        visitors.push((visitor, name));
        assert!(visitors.len() < 2000, "it does not get full");
    };
    assert_eq!((refused.status.as_u16(), refused.set_cookies().len()), (503, 0));
    assert_eq!(refused.header("retry-after").as_deref(), Some("1"));
    for (visitor, name) in &visitors {
        assert!(is_logged_in(visitor, name).await);
        let cookie = visitor.cookie("__Host-id");
        assert_eq!(visitor.get("/count").await.status, 503);
        assert_eq!(visitor.cookie("__Host-id"), cookie);
    }
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    for (visitor, name) in &visitors {
        assert_eq!(visitor.get("/count").await.status, 200);
        assert!(is_logged_in(visitor, name).await);
    }
    eprintln!("noeviction: full with {} visitors, all of whom stayed logged in", visitors.len());
}
