//! What is lost with a primary, and for how long nobody is served: writes that wait for all replicas beside writes that do not,
//! under the same failover, and beside them a plain connection that says when the servers themselves took writes.

#![allow(clippy::print_stdout)] // figures

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redis_session_core::Durability;
use redis_session_store::RedisStore;
use redis_session_testkit::{Cluster, RedisServer, Sentinels, slack};

use crate::Visitor;
use crate::load::{Load, Seen};

const MS: Duration = Duration::from_millis(1);
/// The longest that an operation waits for Redis: the default.
const DEADLINE: Duration = Duration::from_millis(250);
/// The longest that a write waits for replicas.
const WITHIN: Duration = Duration::from_millis(300);
/// How much later than its deadline an answer may be.
const LATE: Duration = Duration::from_millis(50);
/// How much longer than the servers took no write a task of ours may be without a good answer: a tenth of a second, and what
/// lies between its answers and those of a plain connection.
const BACK: Duration = Duration::from_millis(100 + 50);
/// How many visitors of each kind there are.
const VISITORS: usize = 4;

/// How a primary goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Going {
    /// `CLUSTER FAILOVER` or `SENTINEL FAILOVER`.
    ByHand,
    /// `CLUSTER FAILOVER FORCE`: its replica does not wait for it.
    Forced,
    /// `CLUSTER FAILOVER TAKEOVER`: its replica asks nobody.
    TakenOver,
    Killed,
    Frozen,
    /// Killed while its replicas have lost the way to it a tenth of a second before.
    KilledAhead,
    /// The first Sentinel that the application was told of is frozen before.
    KilledAndASentinelFrozen,
}

/// The same load twice: with writes that wait for all replicas, and with writes that do not.
struct Both {
    fast: Load,
    durable: Load,
}

/// What was seen of one load.
struct Sum {
    acknowledged: usize,
    unknown: usize,
    lost: u64,
    gap: Duration,
    slowest: Duration,
}

impl Both {
    async fn start(store: &RedisStore, replicas: u32, visitor: impl Fn() -> Arc<Visitor>) -> Self {
        let load = async |durability| {
            let visitors: Vec<_> = (0..VISITORS).map(|_| visitor()).collect();
            Load::start_with(store, &visitors, MS, durability).await
        };
        let durable = Durability::Replicated { replicas, within: WITHIN };
        Self { fast: load(Durability::Fast).await, durable: load(durable).await }
    }

    async fn goes_on(&self, operations: u64) {
        tokio::join!(self.fast.goes_on(operations), self.durable.goes_on(operations));
    }

    /// Ends both, tells what became of them, and holds it against what must hold.
    async fn end(self, place: &str, going: Going, truth: Truth) {
        let outage = truth.end();
        let sum = |all: Vec<(Seen, u64)>| Sum {
            acknowledged: all.iter().map(|(seen, _)| seen.acknowledged.len()).sum(),
            unknown: all.iter().map(|(seen, _)| seen.unknown.len()).sum(),
            lost: all.iter().map(|(_, lost)| lost).sum(),
            gap: all.iter().map(|(seen, _)| seen.gap.0).max().unwrap_or_default(),
            slowest: all.iter().map(|(seen, _)| seen.slowest).max().unwrap_or_default(),
        };
        let (fast, durable) = (sum(self.fast.end().await), sum(self.durable.end().await));
        // A row of each table in `docs/durability.md`.
        let of = |sum: &Sum| format!("{} of {}, and {} others", sum.lost, sum.acknowledged, sum.unknown);
        println!("lost: | {place}{going:?} | {} | {} |", of(&fast), of(&durable));
        let times = [outage, fast.gap, durable.gap, fast.slowest, durable.slowest];
        println!("times: | {place}{going:?} | {} ms |", times.map(|time| time.as_millis().to_string()).join(" ms | "));
        assert!(
            fast.acknowledged > 100 && durable.acknowledged > 100,
            "{} {}",
            fast.acknowledged,
            durable.acknowledged
        );
        assert_eq!(durable.lost, 0, "{going:?}: of {} that were on all replicas", durable.acknowledged);
        assert!(going != Going::KilledAhead || fast.lost > 0, "what else is shown?");
        let (late, back) = (LATE + slack(700 * MS), BACK + slack(900 * MS));
        assert!(fast.slowest < DEADLINE + late, "{going:?}: {:?}", fast.slowest);
        assert!(durable.slowest < DEADLINE + WITHIN + late, "{going:?}: {:?}", durable.slowest);
        assert!(fast.gap < outage + back, "{going:?}: {:?} without service, the servers {outage:?}", fast.gap);
        // A write that was sent before that may wait for its deadline first, and for replicas then.
        let durable_back = DEADLINE + WITHIN + back;
        assert!(durable.gap < outage + durable_back, "{going:?}: {:?}, the servers {outage:?}", durable.gap);
    }
}

/// Plain connections to the servers of one shard, on which a write is tried again and again that changes nothing.
struct Truth {
    stop: Arc<AtomicBool>,
    /// When each server took the write.
    probes: Vec<JoinHandle<Vec<Instant>>>,
}

impl Truth {
    fn watch<'a>(servers: impl IntoIterator<Item = &'a RedisServer>, key: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let probe = |server: &RedisServer| {
            let (address, key, stop) = (server.address(), key.to_owned(), stop.clone());
            thread::spawn(move || probe(address, &key, &stop))
        };
        Self { probes: servers.into_iter().map(probe).collect(), stop }
    }

    /// The longest time in which no server took it.
    fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let mut taken: Vec<_> = self.probes.into_iter().flat_map(|probe| probe.join().unwrap()).collect();
        taken.sort();
        taken.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default()
    }
}

fn probe(address: SocketAddr, key: &str, stop: &AtomicBool) -> Vec<Instant> {
    let (mut taken, mut connection) = (Vec::new(), None);
    while !stop.load(Ordering::Relaxed) {
        let asked = match connection.take() {
            Some(connection) => Ok(connection),
            None => TcpStream::connect_timeout(&address, 50 * MS),
        };
        let answered = asked.and_then(|mut stream| {
            stream.set_read_timeout(Some(50 * MS))?;
            stream.write_all(format!("HDEL {key} none\r\n").as_bytes())?;
            let mut answer = [0; 256];
            let read = stream.read(&mut answer)?;
            Ok((stream, answer.first_chunk::<4>() == Some(b":0\r\n") && read == 4))
        });
        if let Ok((stream, is_taken)) = answered {
            connection = Some(stream);
            taken.extend(is_taken.then(Instant::now));
        }
        thread::sleep(2 * MS);
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn r84_no_write_that_was_on_all_replicas_is_lost_with_a_primary_of_a_cluster() {
    let cluster = Cluster::options().node_timeout(1000 * MS).without_full_coverage().start();
    let store =
        RedisStore::options(&cluster.url()).deadline(DEADLINE).connect_deadline(10_000 * MS).connect().await.unwrap();
    let goings = [Going::ByHand, Going::Forced, Going::TakenOver, Going::Killed, Going::Frozen, Going::KilledAhead];
    for (number, going) in goings.into_iter().enumerate() {
        // Another shard each time, since no server votes twice for one in a short while.
        let old = &cluster.nodes()[number % 3];
        let old = if cluster.replicas_of(old).is_empty() { &cluster.nodes()[number % 3 + 3] } else { old };
        let key = key_on(&cluster, old);
        let replica = cluster.replicas_of(old)[0];
        let visitor = || loop {
            let visitor = Visitor::new();
            if cluster.primary_of(&visitor.name()).port() == old.port() {
                break Arc::new(visitor);
            }
        };
        let truth = Truth::watch([old, replica], &key);
        let both = Both::start(&store, 1, visitor).await;
        both.goes_on(1000).await;
        match going {
            Going::ByHand => drop(replica.run(&["CLUSTER", "FAILOVER"])),
            Going::Forced => drop(replica.run(&["CLUSTER", "FAILOVER", "FORCE"])),
            Going::TakenOver => drop(replica.run(&["CLUSTER", "FAILOVER", "TAKEOVER"])),
            Going::Killed => old.kill(),
            Going::Frozen => old.pause(),
            Going::KilledAhead => kill_ahead(old, &[replica]).await,
            Going::KilledAndASentinelFrozen => unreachable!("a cluster has none"),
        }
        cluster.wait_for_new_primary(&key, old);
        match going {
            Going::Killed | Going::KilledAhead => old.restart(),
            Going::Frozen => old.resume(),
            _ => {}
        }
        cluster.wait_until_well();
        both.goes_on(1000).await;
        both.end("a cluster: ", going, truth).await;
    }
}

fn key_on(cluster: &Cluster, primary: &RedisServer) -> String {
    let mut names = std::iter::repeat_with(|| Visitor::new().name());
    names.find(|name| cluster.primary_of(name).port() == primary.port()).unwrap()
}

/// Kills it with a tenth of a second of writes that its replicas do not have.
async fn kill_ahead(primary: &RedisServer, replicas: &[&RedisServer]) {
    replicas.iter().for_each(|replica| replica.pause());
    // What was sent, they would find when they go on.
    primary.run(&["CLIENT", "KILL", "TYPE", "replica"]);
    tokio::time::sleep(100 * MS).await;
    primary.kill();
    replicas.iter().for_each(|replica| replica.resume());
}

#[tokio::test(flavor = "multi_thread")]
async fn r79_r84_no_write_that_was_on_all_replicas_is_lost_with_a_primary_behind_sentinels() {
    let goings = [Going::ByHand, Going::Killed, Going::Frozen, Going::KilledAndASentinelFrozen, Going::KilledAhead];
    for going in goings {
        let sentinels = Sentinels::start();
        let store = RedisStore::options(&sentinels.url()).deadline(DEADLINE).connect_deadline(10_000 * MS);
        let store = store.connect().await.unwrap();
        let old = sentinels.primary();
        let truth = Truth::watch(sentinels.servers(), "probe");
        let both = Both::start(&store, 2, || Arc::new(Visitor::new())).await;
        both.goes_on(1000).await;
        match going {
            Going::ByHand => sentinels.begin_failover(),
            Going::Killed => old.kill(),
            Going::Frozen => old.pause(),
            Going::KilledAndASentinelFrozen => {
                sentinels.sentinels()[0].pause();
                old.kill();
            }
            Going::KilledAhead => {
                let replicas = sentinels.servers().iter().filter(|server| server.port() != old.port());
                kill_ahead(old, &replicas.collect::<Vec<_>>()).await;
            }
            Going::Forced | Going::TakenOver => unreachable!("Sentinels know nothing of this"),
        }
        sentinels.wait_for_new_primary(old);
        both.goes_on(1000).await;
        both.end("behind Sentinels: ", going, truth).await;
    }
}
