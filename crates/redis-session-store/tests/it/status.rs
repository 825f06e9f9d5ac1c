//! How the servers are, as a metrics collector is told.

use std::time::{Duration, UNIX_EPOCH};

use redis_session_core::Store;
use redis_session_store::{RedisStore, ServerStatus};
use redis_session_testkit::{Cluster, RedisServer, Sentinels};

use crate::replicas::until;
use crate::{Visitor, patient};

async fn impatient(url: &str) -> RedisStore {
    RedisStore::options(url).connect_deadline(Duration::from_secs(10)).connect().await.unwrap()
}

fn of(store: &RedisStore, server: &RedisServer) -> ServerStatus {
    let mut servers = store.servers().into_iter();
    servers.find(|status| status.server.ends_with(&format!(":{}", server.port()))).expect("the store knows the server")
}

fn primaries(store: &RedisStore) -> usize {
    store.servers().iter().filter(|status| status.is_primary).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_silent_or_refuses_is_told_of_and_so_is_its_return() {
    let redis = RedisServer::start();
    let store = impatient(&redis.url()).await;
    let (visitor, other) = (Visitor::new(), Visitor::new());
    visitor.born(&store, &[("n", "1")]).await;
    for _ in 0..9 {
        store.load(&visitor.key).await.unwrap();
    }
    let status = of(&store, &redis);
    assert!(status.is_primary && status.is_well && store.servers().len() == 1, "{status:?}");
    assert_eq!((status.commands, status.unanswered, status.refused), (10, 0, 0));
    let seconds = status.time.unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let told: u64 = redis.run(&["TIME"]).texts()[0].parse().unwrap();
    assert!(told.abs_diff(seconds) <= 2, "{told} {seconds}");

    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    store.create(&other.key, &other.create(&[])).await.unwrap_err();
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(of(&store, &redis).refused, 1);

    redis.pause();
    store.load(&visitor.key).await.unwrap_err();
    until("that it is silent", async || !of(&store, &redis).is_well).await;
    let silent = of(&store, &redis);
    assert_eq!((silent.commands, silent.unanswered), (12, 1));
    // What is not even sent is not counted.
    store.load(&visitor.key).await.unwrap_err();
    assert_eq!(of(&store, &redis).commands, 12);
    redis.resume();
    until("that it is back", async || of(&store, &redis).is_well).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_cluster_all_servers_are_told_of_and_who_takes_over() {
    let cluster = Cluster::start();
    let store = patient(&cluster.url()).await;
    // A cluster names no replica to which nothing was written.
    let visitors: Vec<_> = (0..60).map(|_| Visitor::new()).collect();
    for visitor in &visitors {
        visitor.born(&store, &[]).await;
    }
    until("all six", async || store.servers().len() == 6 && primaries(&store) == 3).await;
    let visitor = &visitors[0];
    let old = cluster.primary_of(&visitor.name());
    assert!(of(&store, old).is_primary && of(&store, old).commands > 0);
    let new = cluster.failover(&visitor.name());
    store.load(&visitor.key).await.unwrap();
    until("the new primary", async || of(&store, new).is_primary && !of(&store, old).is_primary).await;
    assert_eq!(primaries(&store), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_sentinels_the_primary_and_its_replicas_are_told_of_and_who_is_gone() {
    let sentinels = Sentinels::start();
    let store = patient(&sentinels.url()).await;
    until("all three", async || store.servers().len() == 3 && store.servers().iter().all(|status| status.is_well))
        .await;
    let (old, new) = (sentinels.primary(), sentinels.failover());
    until("the new primary", async || of(&store, new).is_primary && primaries(&store) == 1).await;
    old.kill();
    until("that it is gone", async || !of(&store, old).is_well).await;
}
