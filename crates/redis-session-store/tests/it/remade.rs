//! What turns out to be another than before: Sentinels and clusters that are made anew, others' at an address that was one of
//! ours, all servers at other addresses.

#![allow(clippy::print_stdout)] // figures

use std::time::{Duration, Instant};

use redis_session_core::Store;
use redis_session_store::{RedisStore, RedisStoreOptions};
use redis_session_testkit::{Proxy, RedisServer, Sentinels};

use crate::promotion::goes_to;
use crate::{Visitor, until_within};

const SECOND: Duration = Duration::from_secs(1);
/// How long Sentinels must name others than before to be believed whatever their epoch.
const REMADE: Duration = Duration::from_secs(15);

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
