//! One request after the other: what is written, what is sent, what costs nothing.

use axum::Router;
use axum::routing::get;
use redis_session::{Error, KeyRing, MemoryStore, RedisSessionLayer, Session};
use redis_session_testkit::{Browser, RedisServer};
use serde::{Deserialize, Serialize};

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Visitor {
    visits: u64,
    cart: Vec<String>,
}

fn app(layer: RedisSessionLayer) -> Router {
    Router::new()
        .route("/", get(async || "hello"))
        .route("/read", get(async |visitor: Session<Visitor>| visitor.visits.to_string()))
        .route(
            "/visit",
            get(async |mut visitor: Session<Visitor>| {
                visitor.update(|visitor| visitor.visits += 1)?;
                Ok::<_, Error>(visitor.visits.to_string())
            }),
        )
        .route("/rotate", get(async |session: Session| session.rotate().await))
        .route("/destroy", get(async |session: Session| session.destroy().await))
        .layer(layer)
}

async fn tour(browser: Browser<Router>) {
    assert_eq!(browser.get("/read").await.body, "0");
    assert_eq!(browser.jar().cookies().len(), 0);
    assert_eq!(browser.get("/visit").await.body, "1");
    let first = browser.cookie("__Host-id").unwrap();
    let page = browser.get("/visit").await;
    assert_eq!((page.body.as_str(), page.set_cookies().len()), ("2", 0));
    assert_eq!(browser.get("/rotate").await.status, 200);
    assert_ne!(browser.cookie("__Host-id").unwrap(), first);
    assert_eq!(browser.get("/read").await.body, "2");
    let thief = browser.stranger();
    thief.set_cookie("__Host-id", &first);
    assert_eq!(thief.get("/read").await.body, "0");
    assert_eq!(browser.get("/destroy").await.status, 200);
    assert_eq!(browser.cookie("__Host-id"), None);
    assert_eq!(browser.get("/visit").await.body, "1");
    assert!(browser.jar().refusals().is_empty());
}

#[tokio::test]
async fn a_session_lives_from_its_first_edit_to_its_end() {
    let layer = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random().unwrap());
    tour(Browser::new(app(layer))).await;
    let redis = RedisServer::start();
    let layer = RedisSessionLayer::connect(&redis.url(), KeyRing::random().unwrap()).await.unwrap();
    tour(Browser::new(app(layer))).await;
}

#[test]
fn the_readme_s_first_code_is_the_example_quickstart() {
    let example = include_str!("../../examples/quickstart.rs");
    let (_, code) = example.split_once("\n\n").unwrap();
    assert!(example.lines().count() <= 50);
    assert!(include_str!("../../README.md").contains(&format!("```rust,no_run\n{code}```")));
}
