//! Servers that are reached by IPv6, and name each other so.

#![allow(clippy::print_stdout)] // what was left out, and why

use std::net::{Ipv6Addr, TcpListener};

use redis_session_core::Store;
use redis_session_testkit::{Cluster, RedisServer, store_contract};

use crate::replicas::until;
use crate::{Visitor, patient};

const BOTH: (&str, &str) = ("bind", "127.0.0.1 ::1");

fn is_there() -> bool {
    let there = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !there {
        println!("left out: this machine has no ::1");
    }
    there
}

/// How many clients have come by IPv6.
fn by_ipv6(server: &RedisServer) -> usize {
    server.run(&["CLIENT", "LIST"]).text().matches(" addr=[::1]:").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_reached_by_ipv6() {
    if !is_there() {
        return;
    }
    let redis = RedisServer::start_with(&[BOTH]);
    let store = patient(&format!("redis://[::1]:{}", redis.port())).await;
    store_contract(store.clone(), tokio::time::sleep).await;
    assert!(by_ipv6(&redis) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_announces_ipv6_addresses_is_reached_by_them_also_where_it_says_moved() {
    if !is_there() {
        return;
    }
    let cluster = Cluster::options().primaries(2).replicas(0).start_with(|options| options.setting(BOTH.0, BOTH.1));
    for node in cluster.nodes() {
        node.run(&["CONFIG", "SET", "cluster-announce-ip", "::1"]);
    }
    let names_both = |node: &RedisServer| node.run(&["CLUSTER", "NODES"]).text().matches(" ::1:").count() == 2;
    until("the new addresses", async || cluster.nodes().iter().all(names_both)).await;
    let store = patient(&format!("redis-cluster://[::1]:{}", cluster.nodes()[0].port())).await;
    let visitors: Vec<_> = (0..30).map(|_| Visitor::new()).collect();
    for visitor in &visitors {
        visitor.born(&store, &[("n", "1")]).await;
    }
    // Each has its slot elsewhere, which the store is told only when it asks.
    for visitor in &visitors[..2] {
        let slot = cluster.slot_of(&visitor.name());
        let from = cluster.primary_of_slot(slot).port();
        cluster.move_slot(slot, cluster.nodes().iter().find(|node| node.port() != from).unwrap());
    }
    for visitor in &visitors {
        assert!(store.load(&visitor.key).await.unwrap().is_some());
    }
    assert!(cluster.nodes().iter().all(|node| by_ipv6(node) > 0));
}
