//! The store on a cluster of three primaries and their replicas: the contract, slots that move, primaries that go.

#![allow(clippy::print_stdout)] // figures

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redis_session_core::{Ended, PageMark, Store, Stored};
use redis_session_store::RedisStore;
use redis_session_testkit::{Action, Cluster, Proxy, RedisServer, SlotMove, slack, store_contract};

use crate::load::{Load, Seen};
use crate::{Visitor, destroy, patient, until};

const SECOND: Duration = Duration::from_secs(1);

/// How often a long test does what it does: a hundredth, unless `TOPOLOGY_FULL` asks for all.
fn times(all: u64) -> u64 {
    if std::env::var_os("TOPOLOGY_FULL").is_some() { all } else { all / 100 }
}

/// Visitors whose sessions are on all primaries: as many on each.
fn visitors(cluster: &Cluster, on_each: usize) -> Vec<Arc<Visitor>> {
    let mut of = BTreeMap::<u16, Vec<_>>::new();
    while of.len() < 3 || of.values().any(|visitors| visitors.len() < on_each) {
        let visitor = Arc::new(Visitor::new());
        let of = of.entry(cluster.primary_of_slot(cluster.slot_of(&visitor.name())).port()).or_default();
        if of.len() < on_each {
            of.push(visitor);
        }
    }
    of.into_values().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_keeps_the_contract_on_a_cluster() {
    let cluster = Cluster::start();
    store_contract(patient(&cluster.url()).await, tokio::time::sleep).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_seed_is_enough_and_a_walk_over_all_sessions_sees_each_once() {
    let cluster = Cluster::start();
    let seed = format!("redis-cluster://127.0.0.1:{}", cluster.nodes()[4].port());
    let store = patient(&seed).await;
    let mut born = BTreeSet::new();
    for _ in 0..300 {
        let visitor = Visitor::new();
        visitor.born(&store, &[]).await;
        born.insert(visitor.key.to_text());
    }
    let (realm, mut from, mut found) = ("main".into(), None, Vec::new());
    loop {
        let page = store.page(&realm, from).await.unwrap();
        found.extend(page.sessions.iter().map(|session| session.to_text()));
        match page.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    assert_eq!(found.len(), born.len(), "each once");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), born);
    let mark = Some(PageMark("no mark".to_owned()));
    assert!(store.page(&realm, mark).await.unwrap_err().is_config());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_misses_nothing_of_a_server_that_gets_a_slot_meanwhile() {
    let cluster = Cluster::options().replicas(0).start();
    let store = patient(&cluster.url()).await;
    let visitors = visitors(&cluster, 5);
    for visitor in &visitors {
        visitor.born(&store, &[]).await;
    }
    let realm = "main".into();
    let (mut found, mut pages) = (BTreeSet::new(), 0);
    let mut next = Some(None);
    while let Some(from) = next {
        let page = store.page(&realm, from).await.unwrap();
        found.extend(page.sessions.iter().map(|session| session.to_text()));
        next = page.next.map(Some);
        pages += 1;
        if pages == 1 {
            // Those of the first server were found. A slot of it goes to the last one.
            let of_first = visitors.iter().find(|visitor| found.contains(&visitor.key.to_text())).unwrap();
            let first = cluster.primary_of(&of_first.name()).port();
            let slot = cluster.slot_of(&of_first.name());
            let last = cluster.nodes().iter().rfind(|node| node.port() != first).unwrap();
            cluster.move_slot(slot, last);
            assert!(store.load(&of_first.key).await.unwrap().is_some());
        }
    }
    let missed: Vec<_> = visitors.iter().filter(|visitor| !found.contains(&visitor.key.to_text())).collect();
    assert!(missed.is_empty(), "{} of {} were not found", missed.len(), visitors.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_told_at_start_with_what_to_write_instead() {
    let alone = RedisServer::start();
    let no_cluster = RedisStore::connect(&format!("redis-cluster://127.0.0.1:{}", alone.port())).await.unwrap_err();
    assert!(no_cluster.is_config() && no_cluster.to_string().contains("write redis://"), "{no_cluster}");

    let database = RedisStore::options("redis-cluster://127.0.0.1:1").database(1).connect().await.unwrap_err();
    assert!(database.is_config() && database.to_string().contains("database 0 only"), "{database}");
    let nobody = RedisStore::connect("redis-cluster://127.0.0.1:1,127.0.0.1:2").await.unwrap_err();
    assert!(nobody.is_unavailable(), "{nobody}");

    let cluster = Cluster::options().primaries(1).replicas(0).without_full_coverage().start();
    let elsewhere = RedisStore::options(&cluster.url()).map_address(|host, _| (host.to_owned(), 1)).connect().await;
    let elsewhere = elsewhere.unwrap_err();
    assert!(elsewhere.is_unavailable() && elsewhere.to_string().contains("map_address"), "{elsewhere}");
    let in_clear = RedisStore::options("redis-cluster://10.0.0.1").refuse_plain_tcp().connect().await.unwrap_err();
    assert!(in_clear.is_config(), "{in_clear}");

    cluster.nodes()[0].run(&["CLUSTER", "DELSLOTSRANGE", "0", "100"]);
    let gap = RedisStore::connect(&cluster.url()).await.unwrap_err();
    assert!(gap.is_unavailable() && gap.to_string().contains("101 of 16384 belong to no server"), "{gap}");
    let store = RedisStore::options(&cluster.url()).start_without_redis().connect().await.unwrap();
    let visitor = loop {
        let visitor = Visitor::new();
        if cluster.slot_of(&visitor.name()) <= 100 {
            break visitor;
        }
    };
    until("the table", async || store.ping().await.is_ok()).await;
    let nowhere = store.load(&visitor.key).await.unwrap_err();
    assert!(nowhere.is_unavailable(), "{nowhere}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_reached_where_the_application_says() {
    let cluster = Cluster::options().primaries(3).replicas(0).start();
    for node in cluster.nodes() {
        node.run(&["CONFIG", "SET", "cluster-announce-hostname", "redis.invalid"]);
        node.run(&["CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname"]);
    }
    let all_say_so = |node: &RedisServer| node.run(&["CLUSTER", "NODES"]).text().matches(",redis.invalid").count() == 3;
    until("the names", async || cluster.nodes().iter().all(all_say_so)).await;
    let seed = format!("redis-cluster://127.0.0.1:{}", cluster.nodes()[0].port());
    let outside = RedisStore::options(&seed).connect_deadline(SECOND).connect().await.unwrap_err();
    assert!(outside.to_string().contains("redis.invalid"), "{outside}");
    let deadline = Duration::from_secs(10);
    let store = RedisStore::options(&seed)
        .map_address(|_, port| ("127.0.0.1".to_owned(), port))
        .deadline(deadline)
        .connect_deadline(deadline)
        .connect()
        .await
        .unwrap();
    for _ in 0..30 {
        let visitor = Visitor::new();
        visitor.born(&store, &[]).await;
        assert!(store.load(&visitor.key).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_on_its_way_is_served_from_both_sides() {
    let cluster = Cluster::options().replicas(0).start();
    let store = patient(&cluster.url()).await;
    let (moved, new) = (Visitor::new(), Visitor::new());
    for visitor in [&moved, &new] {
        let slot = cluster.slot_of(&visitor.name());
        let from = cluster.primary_of_slot(slot).port();
        let to = cluster.nodes().iter().find(|node| node.port() != from).unwrap();
        if std::ptr::eq(visitor, &moved) {
            visitor.born(&store, &[("a", "1")]).await;
            // The new one forgets the scripts, so that ASK and NOSCRIPT meet.
            to.run(&["SCRIPT", "FLUSH"]);
            let moving = cluster.begin_move(slot, to);
            moving.move_keys();
            assert!(matches!(store.load(&visitor.key).await.unwrap(), Some(Stored::Record(_))));
            assert_eq!(store.end(&visitor.key, &destroy()).await.unwrap(), Ended::Ended);
            moving.finish();
        } else {
            let moving = cluster.begin_move(slot, to);
            visitor.born(&store, &[("a", "1")]).await;
            assert!(to.command(&["EXISTS", &visitor.name()]).error().is_some(), "only after ASKING");
            moving.finish();
            assert!(matches!(store.load(&visitor.key).await.unwrap(), Some(Stored::Record(_))));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_its_owner_does_not_know_of_takes_no_other_with_it() {
    let cluster = Cluster::options().replicas(0).without_full_coverage().start();
    let store =
        RedisStore::options(&cluster.url()).deadline(SECOND).connect_deadline(SECOND * 10).connect().await.unwrap();
    let visitors = visitors(&cluster, 3);
    let (lost, others) = visitors.split_first().unwrap();
    lost.born(&store, &[]).await;
    let (owner, slot) = (cluster.primary_of(&lost.name()), cluster.slot_of(&lost.name()).to_string());
    let load = Load::start(&store, others, Duration::from_millis(4)).await;
    owner.run(&["CLUSTER", "DELSLOTS", &slot]);
    let refusals = || {
        let info = owner.run(&["INFO", "errorstats"]).text();
        let count = info.lines().find_map(|line| line.strip_prefix("errorstat_CLUSTERDOWN:count="));
        count.map_or(0, |count| count.trim().parse::<u32>().unwrap())
    };
    let (before, begun) = (refusals(), Instant::now());
    let mut asked = 0;
    while begun.elapsed() < SECOND * 3 {
        assert!(store.load(&lost.key).await.unwrap_err().is_unavailable());
        asked += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refused = refusals() - before;
    let others_say = cluster.nodes().iter().filter(|node| node.port() != owner.port()).all(|node| {
        let refusal = node.command(&["HGETALL", &lost.name()]);
        refusal.error().is_some_and(|error| error.starts_with(&format!("MOVED {slot} ")))
    });
    assert!(others_say, "the other servers go on naming the owner");
    println!(
        "a slot that its owner has dropped, asked for {asked} times in three seconds: its owner was asked {refused} times"
    );
    assert!(refused <= 2, "{refused}");
    owner.run(&["CLUSTER", "ADDSLOTS", &slot]);
    until("the slot", async || store.load(&lost.key).await.is_ok()).await;
    let errors: Vec<_> = load.end().await.into_iter().flat_map(|(seen, _)| seen.errors).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_moments_of_each_outage_are_waited_out() {
    let cluster = Cluster::options().primaries(1).replicas(0).start();
    let deadline = Duration::from_millis(600);
    let store =
        RedisStore::options(&cluster.url()).deadline(deadline).connect_deadline(SECOND * 10).connect().await.unwrap();
    for outage in ["the first one", "the second one", "the third one"] {
        cluster.nodes()[0].kill();
        let begun = Instant::now();
        // Whoever has sent something is told that its connection was lost, or gets no answer.
        let waited = loop {
            match store.ping().await {
                Err(error) if error.to_string().contains("not connected") => break begun.elapsed(),
                Err(error) => assert!(error.is_unavailable(), "{error}"),
                Ok(_) => {}
            }
        };
        let begun = Instant::now();
        assert!(store.ping().await.is_err() && begun.elapsed() < deadline / 3, "{outage}: {:?}", begun.elapsed());
        assert!(waited > deadline / 2, "{outage}: {waited:?}");
        cluster.nodes()[0].restart();
        until("the store is back", async || store.ping().await.is_ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_a_slot_is_on_its_way_to_is_waited_for_until_it_is_connected() {
    let cluster = Cluster::options().primaries(2).replicas(0).start();
    let proxy = Proxy::start(cluster.nodes()[1].address());
    let (of_node, of_proxy) = (cluster.nodes()[1].port(), proxy.port());
    let store = RedisStore::options(&format!("redis-cluster://127.0.0.1:{}", cluster.nodes()[0].port()))
        .map_address(move |host, port| (host.to_owned(), if port == of_node { of_proxy } else { port }))
        .deadline(SECOND * 3)
        .connect_deadline(SECOND * 10)
        .connect()
        .await
        .unwrap();
    let visitor = loop {
        let visitor = Visitor::new();
        if cluster.primary_of(&visitor.name()).port() == cluster.nodes()[0].port() {
            break visitor;
        }
    };
    let moving = cluster.begin_move(cluster.slot_of(&visitor.name()), &cluster.nodes()[1]);
    // Its connection is lost, and the next one comes about later than after five tries.
    let away = Duration::from_millis(300);
    proxy.lead_to(([127, 0, 0, 1], 1));
    // Until the client knows of it, a command waits in it for the next one.
    tokio::time::sleep(away / 3).await;
    let comes_back = async {
        tokio::time::sleep(away).await;
        proxy.lead_to(cluster.nodes()[1].address());
    };
    let begun = Instant::now();
    let (answer, ()) = tokio::join!(store.load(&visitor.key), comes_back);
    println!("a slot on its way to a server that was away for {away:?}: served after {:?}", begun.elapsed());
    assert!(answer.unwrap().is_none());
    moving.finish();
}

/// So it is by TLS, for one, where a connection takes a while.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_is_told_from_the_first_answer_on_also_where_the_servers_were_known_before() {
    let cluster = Cluster::options().primaries(1).replicas(0).start();
    let proxy = Proxy::start(cluster.nodes()[0].address());
    let port = proxy.address().port();
    proxy.fault(|command| match command.name() {
        "TIME" => Action::Answer(b"-LOADING not yet\r\n".to_vec()),
        _ => Action::Pass,
    });
    let store = RedisStore::options(&format!("redis-cluster://127.0.0.1:{port}"))
        .map_address(move |host, _| (host.to_owned(), port))
        .deadline(SECOND * 10)
        .start_without_redis()
        .connect()
        .await
        .unwrap();
    let visitor = Visitor::new();
    let knows_the_servers =
        async || store.load(&visitor.key).await.is_err_and(|error| error.to_string().contains("LOADING"));
    until("the servers", knows_the_servers).await;
    let looks = || proxy.count("CLUSTER");
    let mut seen = looks();
    // All is well, and nobody looks for the next seconds.
    loop {
        tokio::time::sleep(SECOND / 5).await;
        let before = std::mem::replace(&mut seen, looks());
        if before == seen {
            break;
        }
    }
    proxy.clear_faults();
    assert!(store.load(&visitor.key).await.unwrap().is_none());
    assert!(store.now().is_some());
    assert_eq!(looks(), seen, "nobody looked meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_tells_the_time_of_the_server_that_gave_it_and_of_no_other() {
    let cluster = Cluster::options().primaries(2).replicas(0).start();
    let proxies: Vec<_> = cluster.nodes().iter().map(|node| Proxy::start(node.address())).collect();
    let ports: BTreeMap<_, _> =
        cluster.nodes().iter().zip(&proxies).map(|(node, proxy)| (node.port(), proxy.address().port())).collect();
    let seed = format!("redis-cluster://127.0.0.1:{}", proxies[0].address().port());
    let store = RedisStore::options(&seed)
        .map_address(move |host, port| (host.to_owned(), ports[&port]))
        .deadline(SECOND * 10)
        .connect_deadline(SECOND * 10)
        .connect()
        .await
        .unwrap();
    let hour = 3_600_000;
    let of = |node: usize| loop {
        let visitor = Visitor::new();
        if cluster.primary_of(&visitor.name()).port() == cluster.nodes()[node].port() {
            break visitor;
        }
    };
    // How far the store's clock goes when this server says that it is an hour later.
    let goes = async |visitor: &Visitor, asked: &Proxy| {
        let before = store.now().unwrap();
        let (name, then) = (visitor.name(), before.as_millis() + hour);
        let late = format!("*3\r\n${}\r\n{name}\r\n$4\r\nlate\r\n:{then}\r\n", name.len());
        asked.fault_next("EVALSHA", Action::Answer(late.into()));
        assert_eq!(store.end(&visitor.key, &destroy()).await.unwrap(), Ended::Late);
        store.now().unwrap().since(before)
    };
    let mut clock = None;
    // By a health check it may be put right again in the same moment.
    for node in (0..2).cycle().take(6) {
        let visitor = of(node);
        visitor.born(&store, &[]).await;
        let now = store.now().unwrap();
        if goes(&visitor, &proxies[node]).await > SECOND * 60 {
            clock = Some(node);
            until("the right time", async || store.now().unwrap().since(now) < SECOND * 60).await;
        }
    }
    let clock = clock.expect("the store tells the time by one of them");

    let visitor = of(clock);
    visitor.born(&store, &[]).await;
    let moving = cluster.begin_move(cluster.slot_of(&visitor.name()), &cluster.nodes()[1 - clock]);
    moving.move_keys();
    let went = goes(&visitor, &proxies[1 - clock]).await;
    assert!(went < SECOND * 60, "{went:?} by the word of a server that the store does not tell the time by");
    moving.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_slots_move() {
    let cluster = Cluster::options().replicas(0).start();
    let store = patient(&cluster.url()).await;
    let visitors = visitors(&cluster, 11);
    let load = Load::start(&store, &visitors, Duration::from_millis(1)).await;
    let wanted = times(300_000);
    let slots: BTreeSet<_> = visitors.iter().map(|visitor| cluster.slot_of(&visitor.name())).collect();
    let (mut rounds, begun) = (0, load.operations());
    while load.operations() - begun < wanted {
        // All at once, so that nearly all operations are sent on.
        let begin = |slot: &u16| {
            let from = cluster.primary_of_slot(*slot).port();
            let to = cluster.nodes().iter().cycle().skip(rounds).find(|node| node.port() != from).unwrap();
            cluster.begin_move(*slot, to)
        };
        let moving: Vec<_> = slots.iter().map(begin).collect();
        load.goes_on(50).await;
        for slot in &moving {
            slot.move_keys();
        }
        load.goes_on(5_000).await;
        moving.into_iter().for_each(SlotMove::finish);
        rounds += 1;
    }
    let (operations, all) = (load.operations() - begun, load.end().await);
    let told = |word: &str| -> u64 { cluster.nodes().iter().map(|node| errors_told(node, word)).sum() };
    let (asks, moves) = (told("ASK"), rounds * slots.len());
    let errors: Vec<_> = all.iter().flat_map(|(seen, _)| &seen.errors).collect();
    let slowest = all.iter().map(|(seen, _)| seen.slowest).max().unwrap();
    println!(
        "{moves} slots moved under {operations} operations, {asks} ASK and {} MOVED: {} errors, slowest {slowest:?}, {} writes \
         lost",
        told("MOVED"),
        errors.len(),
        all.iter().map(|(_, lost)| lost).sum::<u64>()
    );
    assert!(asks > operations / 4, "{asks} of {operations} are no storm");
    assert!(errors.is_empty(), "{errors:?}");
    assert!(all.iter().all(|(seen, lost)| *lost == 0 && seen.unknown.is_empty()));
}

/// How often a server has answered with this error.
fn errors_told(server: &RedisServer, word: &str) -> u64 {
    let stats = server.run(&["INFO", "errorstats"]).text();
    let count = stats.lines().find_map(|line| line.strip_prefix(&format!("errorstat_{word}:count=")));
    count.map_or(0, |count| count.trim().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_redis_cli_moves_many_slots() {
    let cluster = Arc::new(Cluster::options().replicas(0).start());
    let store = patient(&cluster.url()).await;
    let visitors = visitors(&cluster, 11);
    let load = Load::start(&store, &visitors, Duration::from_millis(1)).await;
    let (slots, begun) = (times(20_000).min(1500), load.operations());
    let of_cli = cluster.clone();
    let cli = tokio::task::spawn_blocking(move || {
        let id = |node: &RedisServer| node.run(&["CLUSTER", "MYID"]).text();
        let [from, to, ..] = of_cli.nodes() else { panic!("three nodes") };
        let output = std::process::Command::new("redis-cli")
            .args(["--cluster", "reshard", &format!("127.0.0.1:{}", from.port()), "--cluster-yes"])
            .args(["--cluster-from", &id(from), "--cluster-to", &id(to), "--cluster-slots", &slots.to_string()])
            .output()
            .expect("redis-cli is there: it comes with redis-server");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    });
    while !cli.is_finished() || load.operations() - begun < times(300_000) {
        load.goes_on(50).await;
    }
    cli.await.unwrap();
    let (operations, all) = (load.operations() - begun, load.end().await);
    let errors: Vec<_> = all.iter().flat_map(|(seen, _)| &seen.errors).collect();
    let lost: u64 = all.iter().map(|(_, lost)| lost).sum();
    let slowest = all.iter().map(|(seen, _)| seen.slowest).max().unwrap();
    println!(
        "redis-cli moved {slots} slots under {operations} operations: {} errors, slowest {slowest:?}, {lost} writes lost",
        errors.len()
    );
    assert!(errors.is_empty() && lost == 0 && all.iter().all(|(seen, _)| seen.unknown.is_empty()), "{errors:?}");
}

/// A cluster with sessions, of which some are read.
struct Filled {
    cluster: Cluster,
    store: RedisStore,
    read: Vec<Visitor>,
}

/// What a read costs, in microseconds.
const COSTS: [&str; 4] = ["for its caller", "of our processor", "of Redis's processor", "in Redis's command"];

impl Filled {
    async fn with(count: usize, read: usize) -> Self {
        const TASKS: usize = 64;
        let cluster = Cluster::options().replicas(0).start();
        let store = patient(&cluster.url()).await;
        let mut tasks = tokio::task::JoinSet::new();
        for first in 0..TASKS {
            let store = store.clone();
            tasks.spawn(async move {
                let mut kept = Vec::new();
                for number in (first..count).step_by(TASKS) {
                    let visitor = Visitor::new();
                    visitor.born(&store, &[("n", "1")]).await;
                    // Evenly from all.
                    if number * read / count != (number + 1) * read / count {
                        kept.push(visitor);
                    }
                }
                kept
            });
        }
        let read = tasks.join_all().await.into_iter().flatten().collect();
        Self { cluster, store, read }
    }

    /// What has been spent since the start.
    fn spent(&self) -> [f64; 3] {
        let in_command = |node: &RedisServer| {
            let info = node.run(&["INFO", "commandstats"]).text();
            let of_reads = info.lines().find_map(|line| line.strip_prefix("cmdstat_hgetall:"));
            let spent =
                of_reads.and_then(|line| line.split(',').find_map(|field| field.strip_prefix("usec=")?.parse().ok()));
            spent.unwrap_or(0.0)
        };
        let nodes = self.cluster.nodes();
        [
            our_processor().as_secs_f64() * 1e6,
            nodes.iter().map(RedisServer::used_cpu_micros).sum::<u64>() as f64,
            nodes.iter().map(in_command).sum(),
        ]
    }

    /// What each of some reads costs: the median as its caller sees it, the rest on average.
    async fn reads(&self, from: usize, count: usize) -> [f64; 4] {
        let (before, mut took) = (self.spent(), Vec::with_capacity(count));
        for visitor in self.read.iter().cycle().skip(from % self.read.len()).take(count) {
            let begun = Instant::now();
            assert!(self.store.load(&visitor.key).await.unwrap().is_some());
            took.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        let after = self.spent();
        let [ours, redis, command] = [0, 1, 2].map(|cost| (after[cost] - before[cost]) / count as f64);
        [median(took), ours, redis, command]
    }
}

/// The processor's time that all threads of this process have had.
fn our_processor() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let spent = threads.filter_map(|thread| {
        let spent = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        spent.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// By hand with `TOPOLOGY_FULL`, alone: a million sessions beside a thousand, at the same time, on two clusters. Each of
/// those that are read of the million is read once, so that nothing that Redis or the processor keeps at hand decides.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_spread_evenly_over_the_servers_and_a_read_costs_as_much_among_many() {
    const READS: usize = 250;
    let many = times(1_000_000) as usize;
    let rounds = (many / READS / 2).min(80);
    let (few, all) = (Filled::with(1_000, 1_000).await, Filled::with(many, rounds * READS).await);
    let sizes: Vec<_> = all.cluster.nodes().iter().map(|node| node.run(&["DBSIZE"]).int() as usize).collect();
    assert_eq!(sizes.iter().sum::<usize>(), many);
    let off = sizes.iter().map(|size| (*size as f64 * 3.0 / many as f64 - 1.0).abs()).fold(0.0, f64::max);
    println!("{many} sessions: {sizes:?} on the three servers, at most {:.2} % off their share", off * 100.0);

    let mut costs = Vec::new();
    for round in 0..rounds {
        let from = round * READS;
        // Whatever else the machine does falls upon both.
        costs.push(match round % 2 {
            0 => (few.reads(from, READS).await, all.reads(from, READS).await),
            _ => {
                let of_all = all.reads(from, READS).await;
                (few.reads(from, READS).await, of_all)
            }
        });
    }
    for (cost, what) in COSTS.iter().enumerate() {
        let of_few = median(costs.iter().map(|(few, _)| few[cost]).collect());
        let of_all = median(costs.iter().map(|(_, all)| all[cost]).collect());
        let mut ratios: Vec<_> = costs.iter().map(|(few, all)| all[cost] / few[cost]).collect();
        ratios.sort_by(f64::total_cmp);
        let [low, half, high] = [1, 2, 3].map(|quarter| ratios[rounds * quarter / 4]);
        println!(
            "a read costs {of_few:.2} µs {what} among 1000 and {of_all:.2} among {many}: {half:.3} ({low:.3} to {high:.3} in the \
             middle half of {rounds} rounds)"
        );
        assert!(cost > 0 || many < 1_000_000 || half <= 1.05, "{half}");
    }
    // Two parts in a hundred of a million; five standard deviations of fewer.
    let bound = if many == 1_000_000 { 0.02 } else { 5.0 * (2.0 / many as f64).sqrt() };
    assert!(off < bound, "{off}");
}

/// When a shard accepts a write again, as a plain connection to each of its servers sees it.
fn watch_truth(cluster: &Arc<Cluster>, key: String, old: u16) -> std::thread::JoinHandle<Instant> {
    let cluster = cluster.clone();
    std::thread::spawn(move || {
        let others: Vec<_> = cluster.nodes().iter().filter(|node| node.port() != old).collect();
        // A write that changes nothing.
        while others.iter().all(|node| node.command(&["HDEL", &key, "no such field"]).error().is_some()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Instant::now()
    })
}

fn is_on(seen: &Seen, cluster: &Cluster, port: u16) -> bool {
    cluster.primary_of(&seen.visitor.name()).port() == port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_goes_takes_nobody_else_with_it_and_its_sessions_are_back_with_the_cluster() {
    for frozen in [false, true] {
        let cluster = Arc::new(Cluster::options().node_timeout(SECOND).without_full_coverage().start());
        // Longer than the default: on a busy machine some answers take longer than that without a fault.
        let deadline = SECOND;
        let store = RedisStore::options(&cluster.url())
            .deadline(deadline)
            .connect_deadline(SECOND * 5)
            .connect()
            .await
            .unwrap();
        let visitors = visitors(&cluster, 3);
        let victim = cluster.primary_of(&visitors[0].name());
        let of_victim: BTreeSet<_> = visitors
            .iter()
            .filter(|v| cluster.primary_of(&v.name()).port() == victim.port())
            .map(|v| v.name())
            .collect();
        let load = Load::start(&store, &visitors, Duration::from_millis(4)).await;
        load.goes_on(500).await;
        let gone = Instant::now();
        if frozen {
            victim.pause()
        } else {
            victim.kill()
        }
        let truth = watch_truth(&cluster, visitors[0].name(), victim.port());
        let new = cluster.wait_for_new_primary(&visitors[0].name(), victim);
        let truth = truth.join().unwrap();
        load.goes_on(1000).await;
        let all = load.end().await;
        let back = all
            .iter()
            .filter(|(seen, _)| of_victim.contains(&seen.visitor.name()))
            .map(|(seen, _)| seen.gap.1)
            .max()
            .unwrap();
        let others: Vec<_> = all.iter().filter(|(seen, _)| !of_victim.contains(&seen.visitor.name())).collect();
        let of_others: Vec<_> = others.iter().flat_map(|(seen, _)| &seen.errors).collect();
        let slowest = all.iter().map(|(seen, _)| seen.slowest).max().unwrap();
        println!(
            "a primary {}: the cluster took writes again after {:?}, the last of our tasks was served {:?} later; \
             slowest answer {slowest:?}; other shards: {} errors, longest gap {:?}; {} acknowledged writes lost",
            if frozen { "frozen" } else { "killed" },
            truth - gone,
            back.saturating_duration_since(truth),
            of_others.len(),
            others.iter().map(|(seen, _)| seen.gap.0).max().unwrap(),
            all.iter().map(|(_, lost)| lost).sum::<u64>()
        );
        assert!(of_others.is_empty(), "{of_others:?}");
        assert!(all.iter().any(|(seen, _)| is_on(seen, &cluster, new.port())));
        let back = back.saturating_duration_since(truth);
        assert!(back < SECOND / 10 + slack(SECOND * 9 / 10), "{back:?} after the cluster");
        assert!(slowest < deadline + Duration::from_millis(50) + slack(SECOND * 7 / 10), "{slowest:?}");
    }
}

/// A plain connection to a server, on which a write is tried again and again that changes nothing.
struct Probe {
    stop: Arc<AtomicBool>,
    /// When the server said `CLUSTERDOWN` for the first time, and for the last.
    refused: std::thread::JoinHandle<Option<(Instant, Instant)>>,
}

impl Probe {
    fn start(cluster: &Arc<Cluster>, port: u16, key: String) -> Self {
        let (stop, cluster) = (Arc::new(AtomicBool::new(false)), cluster.clone());
        let stopped = stop.clone();
        let refused = std::thread::spawn(move || {
            let server = cluster.nodes().iter().find(|node| node.port() == port).unwrap();
            let mut refused: Option<(Instant, Instant)> = None;
            while !stopped.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let answer = server.command(&["HDEL", &key, "no such field"]);
                if answer.error().is_some_and(|error| error.starts_with("CLUSTERDOWN")) {
                    refused = Some((refused.map_or(asked, |(first, _)| first), Instant::now()));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            refused
        });
        Self { stop, refused }
    }

    fn end(self) -> Option<(Instant, Instant)> {
        self.stop.store(true, Ordering::Relaxed);
        self.refused.join().unwrap()
    }
}

/// As Redis has it by default: while slots have no server, nobody serves any.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_cluster_serves_all_slots_or_none_others_are_refused_as_long_as_their_servers_refuse_and_no_longer() {
    let cluster = Arc::new(Cluster::options().node_timeout(SECOND).start());
    let deadline = Duration::from_millis(400);
    let store =
        RedisStore::options(&cluster.url()).deadline(deadline).connect_deadline(SECOND * 10).connect().await.unwrap();
    let visitors = visitors(&cluster, 3);
    let victim = cluster.primary_of(&visitors[0].name());
    let (of_victim, others): (Vec<_>, Vec<_>) =
        visitors.iter().partition(|visitor| cluster.primary_of(&visitor.name()).port() == victim.port());
    let of_victim: BTreeSet<_> = of_victim.into_iter().map(|visitor| visitor.name()).collect();
    let probes: Vec<_> = others
        .iter()
        .map(|visitor| (cluster.primary_of(&visitor.name()).port(), visitor.name()))
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .map(|(port, key)| Probe::start(&cluster, port, key))
        .collect();
    let load = Load::start(&store, &visitors, Duration::from_millis(4)).await;
    load.goes_on(500).await;
    let gone = Instant::now();
    victim.kill();
    let truth = watch_truth(&cluster, visitors[0].name(), victim.port());
    cluster.wait_for_new_primary(&visitors[0].name(), victim);
    let truth = truth.join().unwrap();
    load.goes_on(1000).await;
    let refused: Vec<_> = probes.into_iter().filter_map(Probe::end).collect();
    let first = refused.iter().map(|(first, _)| *first).min().expect("they refuse by default");
    let last = refused.iter().map(|(_, last)| *last).max().unwrap();

    let (mut errors, mut back_others, mut back_victim, mut slowest) = (Vec::new(), gone, gone, Duration::ZERO);
    for (seen, lost) in load.end().await {
        slowest = slowest.max(seen.slowest);
        match of_victim.contains(&seen.visitor.name()) {
            true => back_victim = back_victim.max(seen.gap.1),
            false => {
                assert_eq!(lost, 0, "of a server that did not go");
                back_others = back_others.max(seen.gap.1);
                errors.extend(seen.errors);
            }
        }
    }
    let since = |at: Instant| at.saturating_duration_since(gone).as_millis();
    let sent = |at: Option<&(Instant, redis_session_core::Error)>| at.map(|(sent, _)| since(*sent));
    println!(
        "a primary killed, full coverage: the other servers said CLUSTERDOWN from {} to {} ms; {} errors of their sessions, \
         of operations begun from {:?} to {:?} ms, the last of them served {} ms after the last refusal; the shard took \
         writes after {} ms, the last of its tasks was served {} ms later; slowest answer {slowest:?}",
        since(first),
        since(last),
        errors.len(),
        sent(errors.iter().min_by_key(|(sent, _)| *sent)),
        sent(errors.iter().max_by_key(|(sent, _)| *sent)),
        back_others.saturating_duration_since(last).as_millis(),
        since(truth),
        back_victim.saturating_duration_since(truth).as_millis(),
    );
    // On a busy machine once in a while a look at the servers, and the time to connect again.
    let back = SECOND / 10 + slack(SECOND * 9 / 10);
    for (sent, error) in &errors {
        assert!(*sent + deadline >= first && *sent <= last + back, "{error:?} at {} ms", since(*sent));
    }
    assert!(back_others.saturating_duration_since(last) < back && back_victim.saturating_duration_since(truth) < back);
    assert!(slowest < deadline + Duration::from_millis(50) + slack(SECOND * 7 / 10), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_by_hand_and_a_killed_replica_are_not_noticed() {
    let cluster = Cluster::start();
    let store = patient(&cluster.url()).await;
    let visitors = visitors(&cluster, 3);
    let load = Load::start(&store, &visitors, Duration::from_millis(4)).await;
    load.goes_on(300).await;
    let replica = cluster.replicas_of(cluster.primary_of(&visitors[0].name()))[0];
    replica.kill();
    load.goes_on(300).await;
    replica.restart();
    cluster.wait_until_well();
    // One of each shard: no server votes twice for one within four seconds.
    for visitor in visitors.iter().step_by(3) {
        cluster.failover(&visitor.name());
        load.goes_on(200).await;
    }
    let all = load.end().await;
    let errors: Vec<_> = all.iter().flat_map(|(seen, _)| &seen.errors).collect();
    let lost: u64 = all.iter().map(|(_, lost)| lost).sum();
    let slowest = all.iter().map(|(seen, _)| seen.slowest).max().unwrap();
    println!("3 failovers by hand and a killed replica: {} errors, {lost} lost, slowest {slowest:?}", errors.len());
    assert!(errors.is_empty() && lost == 0, "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_are_heard_of_from_all_servers_also_when_the_one_that_is_listened_to_goes() {
    let cluster = Cluster::options().node_timeout(SECOND).without_full_coverage().start();
    let store = patient(&cluster.url()).await;
    let heard = Arc::new(AtomicUsize::new(0));
    let listener = {
        let heard = heard.clone();
        Arc::new(move |session: Option<&redis_session_core::SessionKey>| {
            heard.fetch_add(usize::from(session.is_some()), Ordering::Relaxed);
        })
    };
    store.on_end(listener);
    let subscribed = || {
        cluster
            .nodes()
            .iter()
            .find(|node| node.command(&["PUBSUB", "CHANNELS"]).texts().contains(&"sess:ended".to_owned()))
    };
    until("the subscription", async || subscribed().is_some()).await;
    let end_one_on_each = async || {
        for visitor in visitors(&cluster, 1) {
            visitor.born(&store, &[]).await;
            store.end(&visitor.key, &destroy()).await.unwrap();
        }
    };
    end_one_on_each().await;
    until("three ends", async || heard.load(Ordering::Relaxed) == 3).await;
    let post = subscribed().unwrap();
    let name = loop {
        let name = Visitor::new().name();
        if cluster.primary_of(&name).port() == post.port() {
            break name;
        }
    };
    post.kill();
    cluster.wait_for_new_primary(&name, post);
    let alive = || cluster.nodes().iter().filter(|node| node.port() != post.port());
    until("another subscription", async || {
        alive().any(|node| node.command(&["PUBSUB", "CHANNELS"]).texts().contains(&"sess:ended".to_owned()))
    })
    .await;
    end_one_on_each().await;
    until("three more", async || heard.load(Ordering::Relaxed) == 6).await;
}
