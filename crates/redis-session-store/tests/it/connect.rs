//! Connecting: what is wrong is said at once, and everything closes with the last handle.

use std::time::{Duration, Instant};

use redis_session_core::{Error, Store};
use redis_session_store::RedisStore;
use redis_session_store::fred;
use redis_session_testkit::RedisServer;

use crate::{Visitor, until};

async fn fails(url: &str) -> Error {
    let start = Instant::now();
    let error = RedisStore::connect(url).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_millis(1500), "{url}: {:?}", start.elapsed());
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_at_once_and_names_the_server() {
    let redis = RedisServer::start();
    redis.run(&["CONFIG", "SET", "requirepass", "open sesame"]);
    let (port, at) = (redis.port(), format!("127.0.0.1:{}", redis.port()));
    let table = [
        (format!("redis://{at}"), true, "asks for a password"),
        (format!("redis://:hunter2@{at}"), true, "refused the user or the password"),
        (format!("redis://nobody:hunter2@{at}"), true, "refused the user or the password"),
        (format!("redis://:open%20sesame@{at}/99"), true, "has no database"),
        (format!("redis://:hunter2@127.0.0.1:{}", 1), false, "cannot be reached"),
        ("redis://nobody.invalid".to_owned(), false, "cannot be reached"),
        ("rediss://:hunter2@h".to_owned(), true, "no TLS"),
    ];
    for (url, config, problem) in table {
        let error = fails(&url).await;
        assert_eq!((error.is_config(), error.is_unavailable()), (config, !config), "{url}: {error:?}");
        assert!(error.to_string().contains(problem), "{url}: {error}");
    }
    assert!(fails(&format!("redis://127.0.0.1:{port}")).await.to_string().contains(&at));
    let store = RedisStore::connect(&format!("redis://:open%20sesame@{at}")).await.unwrap();
    store.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_silent_from_the_start_is_given_up_at_the_connect_deadline() {
    let redis = RedisServer::start();
    redis.pause();
    let error = fails(&redis.url()).await;
    assert!(error.is_unavailable() && error.to_string().contains("did not answer within 1s"), "{error}");
    redis.resume();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_work_are_refused() {
    let options = || RedisStore::options("redis://127.0.0.1:1").start_without_redis();
    for wrong in [
        options().clients(0),
        options().clients(3),
        options().deadline(Duration::ZERO),
        options().deadline(Duration::from_secs(31)),
        options().connect_deadline(Duration::MAX),
    ] {
        let error = wrong.connect().await.unwrap_err();
        assert!(error.is_config(), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_may_start_without_redis_and_finds_it_later() {
    let redis = RedisServer::start();
    redis.kill();
    let start = Instant::now();
    let store = RedisStore::options(&redis.url()).clients(2).start_without_redis().connect().await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(50));
    assert_eq!(store.now(), None);
    let visitor = Visitor::new();
    assert!(store.load(&visitor.key).await.unwrap_err().is_unavailable());
    redis.restart();
    until("the connection", async || store.load(&visitor.key).await.is_ok()).await;
    assert!(store.now().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_is_that_of_redis() {
    let redis = RedisServer::start();
    let store = RedisStore::connect(&redis.url()).await.unwrap();
    let shown = store.now().unwrap().as_millis();
    let time = redis.run(&["TIME"]).texts();
    let of_redis: u64 = time[0].parse::<u64>().unwrap() * 1000 + time[1].parse::<u64>().unwrap() / 1000;
    assert!(shown.abs_diff(of_redis) < 50, "{shown} {of_redis}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_close_with_the_last_clone() {
    let redis = RedisServer::start();
    let connections = || redis.run(&["CLIENT", "LIST"]).text().lines().count();
    let alone = connections();
    let store = RedisStore::options(&redis.url()).clients(2).connect().await.unwrap();
    until("two connections", async || connections() == alone + 2).await;
    let clone = store.clone();
    drop(store);
    clone.ping().await.unwrap();
    drop(clone);
    until("the end of both", async || connections() == alone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_gives_its_settings_and_is_left_alone() {
    let redis = RedisServer::start();
    redis.run(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let url = format!("redis://:hunter2@127.0.0.1:{}/3", redis.port());
    let config = fred::types::config::Config::from_url(&url).unwrap();
    // Not even connected.
    let pool = fred::types::Builder::from_config(config).build_pool(4).unwrap();
    let store = RedisStore::from_pool(&pool).await.unwrap();
    let visitor = Visitor::new();
    visitor.born(&store, &[]).await;
    redis.run(&["SELECT", "3"]);
    assert_eq!(redis.run(&["EXISTS", &visitor.name()]).int(), 1);
    let debug = format!("{store:?} {:?}", RedisStore::pool_options(&pool));
    assert!(debug.contains(&redis.port().to_string()) && !debug.contains("hunter2"), "{debug}");

    let cluster = fred::types::config::Config::from_url("redis-cluster://127.0.0.1:1").unwrap();
    let pool = fred::types::Builder::from_config(cluster).build_pool(1).unwrap();
    assert!(RedisStore::from_pool(&pool).await.unwrap_err().is_config());
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_keep_applications_apart() {
    let redis = RedisServer::start();
    let shop = RedisStore::options(&redis.url()).prefix("shop:").connect().await.unwrap();
    let visitor = Visitor::new();
    visitor.born(&shop, &[]).await;
    assert_eq!(redis.run(&["KEYS", "*"]).texts(), [format!("shop:{}", visitor.key.to_text())]);
    let office = RedisStore::connect(&redis.url()).await.unwrap();
    assert_eq!(office.load(&visitor.key).await.unwrap(), None);
}
