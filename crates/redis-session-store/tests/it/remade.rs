//! What turns out to be another than before: Sentinels and clusters that are made anew, others' at an address that was one of
//! ours, all servers at other addresses.

#![allow(clippy::print_stdout)] // figures

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis_session_core::Store;
use redis_session_store::{RedisStore, RedisStoreOptions};
use redis_session_testkit::{Cluster, Proxy, RedisServer, Sentinels};

use crate::promotion::goes_to;
use crate::{Visitor, until, until_within};

const SECOND: Duration = Duration::from_secs(1);
/// How long Sentinels must name others than before to be believed whatever their epoch.
const REMADE: Duration = Duration::from_secs(15);
/// How long nobody must know a cluster of the same servers for it to be taken for one that was made anew.
const REBUILT: Duration = Duration::from_secs(15);

async fn connect(options: RedisStoreOptions) -> RedisStore {
    options.connect_deadline(SECOND * 10).connect().await.unwrap()
}

fn seeds(ports: &[u16], all: &Sentinels) -> String {
    let seeds: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("redis-sentinel://{}/{}", seeds.join(","), all.name())
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_whose_memory_was_made_anew_are_believed_after_a_while_by_whatever_addresses_they_are_reached() {
    let all = Sentinels::start();
    let old = all.failover();
    let proxies: Vec<_> = all.sentinels().iter().map(|sentinel| Proxy::start(sentinel.address())).collect();
    let ports: Vec<_> = proxies.iter().map(Proxy::port).collect();
    let announced: Vec<_> = all.sentinels().iter().map(RedisServer::port).collect();
    // As where the Sentinels announce addresses of a network of their own.
    let from_outside = |ports: &[u16]| {
        let announced = announced.clone();
        let nowhere = move |host: &str, port| {
            let sentinel = (1..).zip(&announced).find(|(_, announced)| **announced == port);
            (host.to_owned(), sentinel.map_or(port, |(number, _)| number))
        };
        RedisStore::options(&seeds(ports, &all)).map_address(nowhere)
    };
    let stores = [
        ("all", connect(RedisStore::options(&seeds(&announced, &all))).await),
        ("all by other addresses than they announce", connect(from_outside(&ports)).await),
        ("one of them", connect(from_outside(&ports[..1])).await),
    ];

    all.sentinels().iter().for_each(|sentinel| drop(sentinel.run(&["SENTINEL", "REMOVE", all.name()])));
    let (new, port) =
        all.servers().iter().find(|server| server.port() != old.port()).map(|new| (new, new.port())).unwrap();
    new.run(&["REPLICAOF", "NO", "ONE"]);
    let others = all.servers().iter().filter(|server| server.port() != port);
    others.for_each(|other| drop(other.run(&["REPLICAOF", "127.0.0.1", &port.to_string()])));
    let begun = Instant::now();
    let monitor = ["SENTINEL", "MONITOR", all.name(), "127.0.0.1", &port.to_string(), "2"];
    all.sentinels().iter().for_each(|sentinel| drop(sentinel.run(&monitor)));
    for (reached, store) in &stores {
        let what = format!("the new primary, with {reached} of the Sentinels,");
        until_within(REMADE * 2, &what, async || goes_to(store) == port).await;
        let waited = begun.elapsed();
        println!("Sentinels with a new memory, {reached} reached: believed after {waited:?}");
        assert!(waited >= REMADE, "{waited:?}: a few of them may have been cut off");
        Visitor::new().born(store, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_peoples_sentinels_at_an_address_that_was_one_of_ours_lead_nowhere() {
    let all = Sentinels::start();
    // A newer word, for whoever does not look whose it is.
    let strange = Sentinels::options().replicas(1).sentinels(1).start();
    strange.failover();
    let (stays, goes) = (&all.sentinels()[0], &all.sentinels()[2]);
    let proxy = Proxy::start(goes.address());
    let (of_sentinel, of_proxy) = (goes.port(), proxy.port());
    let options = RedisStore::options(&seeds(&[stays.port()], &all))
        .map_address(move |host, port| (host.to_owned(), if port == of_sentinel { of_proxy } else { port }));
    let store = connect(options).await;
    let asked = async |times| {
        let wanted = proxy.count("SENTINEL") + times;
        until_within(SECOND * 10, "questions", async || proxy.count("SENTINEL") >= wanted).await;
    };
    asked(4).await;
    let visitor = Visitor::new();
    visitor.born(&store, &[]).await;

    goes.kill();
    proxy.lead_to(strange.sentinels()[0].address());
    // The first answer to each of four questions, and two more.
    asked(12).await;
    assert_eq!(goes_to(&store), all.primary().port());
    assert_eq!(store.servers().len(), 3, "{:?}", store.servers());
    assert!(store.load(&visitor.key).await.unwrap().is_some(), "the visitor is logged out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_is_found_again_by_the_sentinels_of_the_url_where_all_addresses_have_changed() {
    let all = Sentinels::start();
    let proxies = || -> Vec<_> { all.servers().iter().map(|server| Proxy::start(server.address())).collect() };
    let (old, new) = (proxies(), proxies());
    let ports = |proxies: &[Proxy]| proxies.iter().map(Proxy::port).collect::<Vec<_>>();
    let announced: Vec<_> = all.servers().iter().map(RedisServer::port).collect();
    let (before, after, have_moved) = (ports(&old), ports(&new), Arc::new(AtomicBool::new(false)));
    let moved = have_moved.clone();
    let map = move |host: &str, port| {
        let now = if moved.load(Ordering::Relaxed) { &after } else { &before };
        let number = announced.iter().position(|announced| *announced == port);
        (host.to_owned(), number.map_or(port, |number| now[number]))
    };
    let store = connect(RedisStore::options(&all.url()).map_address(map)).await;
    let visitor = Visitor::new();
    visitor.born(&store, &[]).await;

    have_moved.store(true, Ordering::Relaxed);
    old.iter().for_each(|proxy| proxy.lead_to(([127, 0, 0, 1], 1)));
    until("its server", async || matches!(store.load(&visitor.key).await, Ok(Some(_)))).await;
}

/// A cluster's seeds.
fn cluster_at(ports: &[u16]) -> RedisStoreOptions {
    let seeds: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    RedisStore::options(&format!("redis-cluster://{}", seeds.join(",")))
}

#[tokio::test(flavor = "multi_thread")]
async fn another_clusters_server_at_an_address_that_was_one_of_ours_gets_nothing_and_leads_nowhere() {
    let cluster = Cluster::options().replicas(0).without_full_coverage().start();
    // One primary more has an epoch more: a newer word, for whoever does not look whose it is.
    let strange = Cluster::options().primaries(4).replicas(0).start();
    let [goes, stay @ ..] = cluster.nodes() else { panic!("three nodes") };
    let proxy = Proxy::start(goes.address());
    let (of_node, of_proxy) = (goes.port(), proxy.port());
    let options = cluster_at(&[stay[0].port(), stay[1].port()])
        .map_address(move |host, port| (host.to_owned(), if port == of_node { of_proxy } else { port }));
    let store = connect(options).await;
    let visitors: Vec<_> = (0..20).map(|_| Visitor::new()).collect();
    for visitor in &visitors {
        visitor.born(&store, &[]).await;
    }
    let is_away = |visitor: &&Visitor| cluster.primary_of(&visitor.name()).port() == of_node;
    let (away, there): (Vec<_>, Vec<_>) = visitors.iter().partition(is_away);

    goes.kill();
    proxy.lead_to(strange.nodes()[0].address());
    // Two questions each time that it is looked.
    let wanted = proxy.count("CLUSTER") + 8;
    let looked = async || {
        // In the first moments nobody knows yet whose server it is.
        let _first = store.load(&away[0].key).await;
        proxy.count("CLUSTER") >= wanted
    };
    until("a few looks", looked).await;
    for visitor in there {
        assert!(store.load(&visitor.key).await.unwrap().is_some(), "a visitor is logged out");
    }
    for visitor in &away {
        let error = store.load(&visitor.key).await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
    }
    // One that the stranger named in those moments is known for a few seconds.
    let primaries = store.servers().into_iter().filter(|server| server.is_primary);
    let is_strange = |server: &str| strange.nodes().iter().any(|node| server.ends_with(&format!(":{}", node.port())));
    assert_eq!(primaries.map(|primary| is_strange(&primary.server)).collect::<Vec<_>>(), [false; 3]);
    assert!(strange.nodes().iter().all(|node| node.run(&["DBSIZE"]).int() == 0));

    goes.restart();
    proxy.lead_to(goes.address());
    for visitor in &away {
        until("the server", async || store.create(&visitor.key, &visitor.create(&[])).await.is_ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_made_anew_of_the_same_servers_is_believed_after_a_while() {
    let cluster = Cluster::options().replicas(0).start();
    let store = connect(RedisStore::options(&cluster.url())).await;
    let nodes = cluster.nodes();
    let bus = |node: &RedisServer| {
        let nodes = node.run(&["CLUSTER", "NODES"]).text();
        let line = nodes.lines().find(|line| line.contains("myself")).unwrap().to_owned();
        line.split(['@', ' ', ',']).nth(2).unwrap().to_owned()
    };
    let buses: Vec<_> = nodes.iter().map(bus).collect();

    let begun = Instant::now();
    for (number, node) in nodes.iter().enumerate() {
        node.run(&["FLUSHALL"]);
        node.run(&["CLUSTER", "RESET", "HARD"]);
        node.run(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
    }
    // The other way around than before.
    for (node, slots) in nodes.iter().rev().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
        node.run(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]);
    }
    for (node, bus) in nodes.iter().zip(&buses).skip(1) {
        nodes[0].run(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), bus]);
    }
    for _ in 0..10 {
        let visitor = Visitor::new();
        let lives = async || store.create(&visitor.key, &visitor.create(&[])).await.is_ok();
        until_within(REBUILT * 2, "the new cluster", lives).await;
    }
    println!("a cluster that was made anew: believed after {:?}", begun.elapsed());
    assert!(begun.elapsed() >= REBUILT, "{:?}: it may be another one", begun.elapsed());
    assert_eq!(store.servers().iter().filter(|server| server.is_primary).count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_all_of_whose_addresses_have_changed_is_found_again_by_its_seeds() {
    let cluster = Cluster::options().replicas(0).start();
    let proxies = || -> Vec<_> { cluster.nodes().iter().map(|node| Proxy::start(node.address())).collect() };
    let (seed, old, new) = (Proxy::start(cluster.nodes()[0].address()), proxies(), proxies());
    let ports = |proxies: &[Proxy]| proxies.iter().map(Proxy::port).collect::<Vec<_>>();
    let announced: Vec<_> = cluster.nodes().iter().map(RedisServer::port).collect();
    let (before, after, have_moved) = (ports(&old), ports(&new), Arc::new(AtomicBool::new(false)));
    let moved = have_moved.clone();
    let options = cluster_at(&[seed.port()]).map_address(move |host, port| {
        let now = if moved.load(Ordering::Relaxed) { &after } else { &before };
        let number = announced.iter().position(|announced| *announced == port).unwrap();
        (host.to_owned(), now[number])
    });
    let store = connect(options).await;
    let visitors: Vec<_> = (0..10).map(|_| Visitor::new()).collect();
    for visitor in &visitors {
        visitor.born(&store, &[]).await;
    }

    have_moved.store(true, Ordering::Relaxed);
    old.iter().for_each(|proxy| proxy.lead_to(([127, 0, 0, 1], 1)));
    for visitor in &visitors {
        until("its server", async || matches!(store.load(&visitor.key).await, Ok(Some(_)))).await;
    }
}
