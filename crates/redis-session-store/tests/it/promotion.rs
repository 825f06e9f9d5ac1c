//! Failovers by hand, in which the moment of the promotion and the one at which Sentinel knows of it are far enough apart to
//! see which of them the store follows.

#![allow(clippy::print_stdout)] // figures

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis_session_store::RedisStore;
use redis_session_testkit::{Action, Proxy, RedisServer, Sentinels};

use crate::until_within;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// The same servers and Sentinels, so far away that each answer takes this long.
struct Far {
    sentinels: Vec<Proxy>,
    servers: Vec<Proxy>,
}

impl Far {
    fn away(all: &Sentinels, round_trip: Duration) -> Self {
        let proxy = |server: &RedisServer| {
            let proxy = Proxy::start(server.address());
            proxy.fault(move |command| match command.name() {
                // It has several replies, and what is published is not delayed by them.
                "SUBSCRIBE" | "PING" => Action::Pass,
                _ => Action::Delay(round_trip),
            });
            proxy
        };
        let of = |servers: &[RedisServer]| servers.iter().map(proxy).collect();
        Self { sentinels: of(all.sentinels()), servers: of(all.servers()) }
    }

    async fn store(&self, all: &Sentinels) -> RedisStore {
        let servers = all.sentinels().iter().zip(&self.sentinels).chain(all.servers().iter().zip(&self.servers));
        let ports: BTreeMap<_, _> = servers.map(|(server, proxy)| (server.port(), proxy.port())).collect();
        let seeds: Vec<_> = self.sentinels.iter().map(|proxy| proxy.address().to_string()).collect();
        RedisStore::options(&format!("redis-sentinel://{}/{}", seeds.join(","), all.name()))
            .map_address(move |host, port| (host.to_owned(), *ports.get(&port).unwrap_or(&port)))
            .connect_deadline(SECOND * 10)
            .connect()
            .await
            .unwrap()
    }

    /// How often the Sentinels were asked so far.
    fn asked(&self) -> u64 {
        self.sentinels.iter().map(|proxy| proxy.count("SENTINEL")).sum()
    }
}

/// When a replica was promoted, a Sentinel first named it, and the store first went there.
struct Promotion {
    promoted: Instant,
    told: Instant,
    followed: Instant,
}

impl Promotion {
    /// By the first of the Sentinels. All three are looked for by the same loop, so that a busy machine holds up all.
    async fn by_hand(all: &Sentinels, goes_to: impl Fn() -> u16) -> Self {
        until_within(SECOND * 20, "a Sentinel that looked at the replicas a while ago", async || rested(all)).await;
        let old = all.primary().port();
        assert_eq!(goes_to(), old);
        all.begin_failover();
        let (mut promoted, mut told, mut followed) = (None, None, None);
        let named = |sentinel: &RedisServer| {
            let address = sentinel.run(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", all.name()]).texts();
            address[1].parse::<u16>().unwrap()
        };
        let begun = Instant::now();
        loop {
            let note = |when: &mut Option<Instant>, is_so: bool| *when = when.or_else(|| is_so.then(Instant::now));
            note(&mut followed, goes_to() != old);
            note(&mut promoted, all.who_is_primary().iter().any(|server| server.port() != old));
            note(&mut told, all.sentinels().iter().any(|sentinel| named(sentinel) != old));
            if let (Some(promoted), Some(told), Some(followed)) = (promoted, told, followed) {
                return Self { promoted, told, followed };
            }
            assert!(begun.elapsed() < SECOND * 10, "{promoted:?} {told:?} {followed:?}");
            tokio::time::sleep(MS).await;
        }
    }
}

/// Whether the first Sentinel looks at all replicas when a failover begins, and so not again for a second, and has none under
/// way.
fn rested(all: &Sentinels) -> bool {
    let sentinel = &all.sentinels()[0];
    let replicas = sentinel.run(&["SENTINEL", "REPLICAS", all.name()]);
    let looked = |replica: &BTreeMap<String, String>| replica["info-refresh"].parse::<u64>().unwrap();
    let flags = sentinel.run(&["SENTINEL", "MASTER", all.name()]).map()["flags"].clone();
    flags == "master" && replicas.list().iter().all(|replica| (2000..8000).contains(&looked(&replica.map())))
}

/// The port of the primary of a store, as its server names it.
pub(crate) fn goes_to(store: &RedisStore) -> u16 {
    let primary = store.servers().into_iter().find(|status| status.is_primary).unwrap();
    primary.server.rsplit(':').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_is_followed_before_a_sentinel_knows_of_it_also_where_all_are_far_away() {
    for round_trip in [Duration::ZERO, 30 * MS] {
        let all = Sentinels::start();
        let far = Far::away(&all, round_trip);
        let store = far.store(&all).await;
        let ports: BTreeMap<_, _> =
            far.servers.iter().zip(all.servers()).map(|(proxy, server)| (proxy.port(), server.port())).collect();
        let Promotion { promoted, told, followed } = Promotion::by_hand(&all, || ports[&goes_to(&store)]).await;
        let (window, after) = (told - promoted, followed.saturating_duration_since(promoted));
        println!("{round_trip:?} away: followed {after:?} after the promotion, Sentinel told {window:?} after it");
        // The next look of the Sentinel is a second after the one at the failover's beginning.
        assert!(window > SECOND / 2, "{round_trip:?}: Sentinel told after {window:?} already, which shows nothing");
        // Who waits for Sentinel's word comes after all of it, however fast the machine; who asks the replicas has most of it
        // to spare, however slow.
        assert!(after < window * 3 / 4, "{round_trip:?}: {after:?} of {window:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_of_which_no_sentinel_ever_tells_is_believed_for_three_seconds() {
    let all = Sentinels::start();
    let store = RedisStore::options(&all.url()).connect_deadline(SECOND * 10).connect().await.unwrap();
    until_within(SECOND * 20, "a Sentinel that looked at the replicas a while ago", async || rested(&all)).await;
    let old = all.primary().port();
    all.begin_failover();
    until_within(SECOND * 5, "the promotion", async || goes_to(&store) != old).await;
    let followed = Instant::now();
    // Only this one would have found out, with its next look.
    all.sentinels()[0].pause();
    // The others make a replica of the promoted one again after eight seconds.
    until_within(SECOND * 7, "the way back", async || goes_to(&store) == old).await;
    println!("a promotion of which no Sentinel told: believed for {:?}", followed.elapsed());
    assert!(followed.elapsed() > SECOND * 2, "{:?}", followed.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_that_came_to_nothing_the_sentinels_are_left_in_peace() {
    let all = Sentinels::start();
    let far = Far::away(&all, 40 * MS);
    let _store = far.store(&all).await;
    let primary = all.primary().port();
    // None of them can be promoted.
    all.servers().iter().filter(|server| server.port() != primary).for_each(RedisServer::pause);
    all.begin_failover();
    let is_under_way = || {
        let flags = |sentinel: &RedisServer| sentinel.run(&["SENTINEL", "MASTER", all.name()]).map()["flags"].clone();
        all.sentinels().iter().any(|sentinel| flags(sentinel).contains("failover_in_progress"))
    };
    assert!(is_under_way());
    until_within(SECOND * 15, "the failover's end", async || !is_under_way()).await;
    // Within it the replicas were asked all the time, and they are for three seconds more.
    tokio::time::sleep(SECOND * 4).await;
    let (begun, before) = (Instant::now(), far.asked());
    tokio::time::sleep(SECOND * 3).await;
    let each_second = (far.asked() - before) as f64 / 3.0 / begun.elapsed().as_secs_f64();
    println!("after a failover that came to nothing: each Sentinel was asked {each_second:.1} times a second");
    // Four questions each second; without a pause they are as many as the way allows, above forty.
    assert!(each_second < 12.0, "{each_second}");
}
