//! The breaker: what a silent, a slow and an unreachable Redis cost those who ask, what is sent to it meanwhile, and how
//! soon it is found again.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis_session_core::Store;
use redis_session_store::RedisStore;
use redis_session_testkit::{Action, Proxy, RedisServer, slack};
use tokio::task::JoinSet;

use crate::{Visitor, until};

/// Visitors who ask at once, again and again.
const TASKS: usize = 64;
/// What the breaker needs to open: a health check that is due within a quarter of a second and waits for another one.
const OPENS_WITHIN: Duration = Duration::from_millis(500);
/// What an answer may cost once it is open.
const COSTS: Duration = Duration::from_millis(1);
/// What a busy machine may add to opening and to closing it.
const BUSY: Duration = Duration::from_millis(1500);

/// What happens to a Redis, and how it ends.
struct Fault {
    name: &'static str,
    begin: fn(&RedisServer, &Proxy),
    end: fn(&RedisServer, &Proxy),
}

const FAULTS: [Fault; 3] = [
    Fault { name: "frozen", begin: |redis, _| redis.pause(), end: |redis, _| redis.resume() },
    Fault {
        name: "in a black hole",
        begin: |_, proxy| proxy.fault(|_| Action::HoldThenSend { after: Duration::MAX, cut: false }),
        end: heal,
    },
    Fault {
        name: "slower than the deadline",
        begin: |_, proxy| proxy.fault(|_| Action::Delay(Duration::from_millis(300))),
        end: heal,
    },
];

fn heal(_: &RedisServer, proxy: &Proxy) {
    proxy.clear_faults();
    proxy.release();
}

/// What 64 tasks saw since it was last taken.
#[derive(Default)]
struct Seen {
    served: AtomicU64,
    refused: AtomicU64,
    /// How many answers cost more than [`COSTS`].
    dear: AtomicU64,
    slowest: AtomicU64,
    stop: AtomicBool,
}

impl Seen {
    fn take(&self) -> (u64, u64, u64, Duration) {
        let take = |of: &AtomicU64| of.swap(0, Ordering::Relaxed);
        (take(&self.served), take(&self.refused), take(&self.dear), Duration::from_micros(take(&self.slowest)))
    }
}

async fn ask_for_ever(store: RedisStore, visitor: Arc<Visitor>, seen: Arc<Seen>) {
    while !seen.stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let answer = store.load(&visitor.key).await;
        let took = start.elapsed();
        seen.slowest.fetch_max(u64::try_from(took.as_micros()).unwrap(), Ordering::Relaxed);
        seen.dear.fetch_add(u64::from(took > COSTS), Ordering::Relaxed);
        match answer {
            Ok(Some(_)) => seen.served.fetch_add(1, Ordering::Relaxed),
            Ok(None) => panic!("a session is gone"),
            Err(error) => {
                assert!(error.is_unavailable(), "{error:?}");
                seen.refused.fetch_add(1, Ordering::Relaxed)
            }
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Commands of requests: the health check and the handshakes of new connections do not count.
fn of_requests(proxy: &Proxy) -> u64 {
    let counts: BTreeMap<String, u64> = proxy.counts();
    counts
        .iter()
        .filter(|(name, _)| matches!(name.as_str(), "HGETALL" | "EVALSHA" | "EVAL"))
        .map(|(_, count)| count)
        .sum()
}

/// Pages of memory that this process has.
fn memory() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// For `OUTAGE_SECONDS`, 3 by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r83_r91_an_outage_costs_a_deadline_once_and_then_nothing_is_sent_until_the_health_check_is_answered() {
    let seconds = std::env::var("OUTAGE_SECONDS").map_or(3, |seconds| seconds.parse().unwrap());
    for Fault { name, begin, end } in FAULTS {
        let redis = RedisServer::start();
        let proxy = Proxy::start(redis.address());
        let store = RedisStore::connect(&proxy.url()).await.unwrap();
        let (visitor, seen) = (Arc::new(Visitor::new()), Arc::new(Seen::default()));
        visitor.born(&store, &[("a", "1")]).await;
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            tasks.spawn(ask_for_ever(store.clone(), visitor.clone(), seen.clone()));
        }
        until("traffic", async || seen.served.load(Ordering::Relaxed) > 100).await;
        let metrics = tokio::runtime::Handle::current().metrics();
        let (alive, held) = (metrics.num_alive_tasks(), memory());

        begin(&redis, &proxy);
        let begun = Instant::now();
        // Nothing is sent any more once the breaker is open.
        let mut sent = (of_requests(&proxy), Instant::now());
        while sent.1.elapsed() < Duration::from_millis(300) {
            let most = OPENS_WITHIN + slack(BUSY) + Duration::from_millis(300);
            assert!(begun.elapsed() < most, "{name}: the breaker does not open");
            tokio::time::sleep(Duration::from_millis(5)).await;
            let now = of_requests(&proxy);
            if now != sent.0 {
                sent = (now, Instant::now());
            }
        }
        let opened = sent.1.duration_since(begun);
        let (_, _, _, slowest_before) = seen.take();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let (served, refused, dear, slowest) = seen.take();
        let (more_tasks, more_memory) =
            (metrics.num_alive_tasks().saturating_sub(alive), memory().saturating_sub(held));
        assert_eq!(of_requests(&proxy), sent.0, "{name}: nothing was sent to a server that is known to be silent");
        assert_eq!(served, 0, "{name}");
        // Each asks again after a millisecond or two: that is what one deadline each would not allow.
        assert!(refused > seconds * TASKS as u64 * 20, "{name}: {refused} answers");
        assert!(dear * 100 <= refused, "{name}: {dear} of {refused} answers took longer than {COSTS:?}");

        // One at a time, as one request would see it.
        let mut costs: Vec<Duration> = Vec::new();
        for _ in 0..2000 {
            let start = Instant::now();
            assert!(store.load(&visitor.key).await.is_err());
            costs.push(start.elapsed());
        }
        costs.sort();

        end(&redis, &proxy);
        let over = Instant::now();
        until("the recovery", async || store.load(&visitor.key).await.is_ok()).await;
        let back = over.elapsed();
        seen.take();
        until("all of them", async || seen.served.load(Ordering::Relaxed) > 2 * TASKS as u64).await;
        seen.stop.store(true, Ordering::Relaxed);
        tasks.join_all().await;
        println!(
            "Redis {name} for {seconds} s under {TASKS} tasks: the last command was sent after {opened:?}, the slowest answer \
             until then came after {slowest_before:?}; then {refused} answers, {dear} of them after more than {COSTS:?}, the \
             slowest after {slowest:?}, alone {:?} (median) and {:?} (99 %); \
             {more_tasks} more tasks, {} KiB more memory; back {back:?} after the end",
            costs[costs.len() / 2],
            costs[costs.len() * 99 / 100],
            more_memory / 1024,
        );
        assert!(costs[costs.len() / 2] < COSTS, "{name}: {:?}", costs[costs.len() / 2]);
        assert!(more_tasks <= 4 && more_memory < 32 << 20, "{name}: {more_tasks} tasks, {more_memory} bytes");
        assert!(back < Duration::from_millis(500) + slack(BUSY), "{name}: back after {back:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_connections_the_one_that_is_well_serves() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let store = RedisStore::options(&proxy.url()).clients(2).connect().await.unwrap();
    let visitor = Visitor::new();
    visitor.born(&store, &[("a", "1")]).await;
    let connections = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let seen = connections.clone();
    proxy.fault(move |command| {
        if command.name() == "TIME" {
            seen.lock().unwrap().insert(command.connection());
        }
        Action::Pass
    });
    until("both", async || connections.lock().unwrap().len() == 2).await;
    // The first falls silent, and so do those that are made in its place.
    let well = *connections.lock().unwrap().last().unwrap();
    proxy.fault(move |command| match command.connection() {
        this if this == well => Action::Pass,
        _ => Action::HoldThenSend { after: Duration::MAX, cut: false },
    });
    let served = async || {
        let start = Instant::now();
        let mut answers = Vec::new();
        for _ in 0..20 {
            answers.push(store.load(&visitor.key).await.is_ok());
        }
        answers.iter().all(|served| *served) && start.elapsed() < Duration::from_millis(200)
    };
    until("the other one", served).await;
    heal(&redis, &proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_slow_but_within_the_deadline_serves() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    // Slower than the default deadline, which is not theirs; and than a second, for who has ten.
    for (deadline, takes) in [(5000, 300), (10_000, 1500)] {
        let store =
            RedisStore::options(&proxy.url()).deadline(Duration::from_millis(deadline)).connect().await.unwrap();
        let visitor = Visitor::new();
        visitor.born(&store, &[("a", "1")]).await;
        proxy.fault(move |_| Action::Delay(Duration::from_millis(takes)));
        for _ in 0..3 {
            assert!(store.load(&visitor.key).await.unwrap().is_some());
        }
        proxy.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn that_redis_is_frozen_is_known_within_the_deadline_also_where_that_is_long() {
    let redis = RedisServer::start();
    let deadline = Duration::from_secs(6);
    let store = RedisStore::options(&redis.url()).deadline(deadline).connect().await.unwrap();
    let visitor = Visitor::new();
    visitor.born(&store, &[("a", "1")]).await;
    redis.pause();
    let begun = Instant::now();
    let told = async || {
        let asked = Instant::now();
        let answer = tokio::time::timeout(Duration::from_millis(100), store.load(&visitor.key)).await;
        answer.is_ok_and(|answer| answer.is_err()) && asked.elapsed() < Duration::from_millis(50)
    };
    until("an answer at once", told).await;
    assert!(begun.elapsed() < deadline, "{:?}", begun.elapsed());
    redis.resume();
    until("the recovery", async || store.load(&visitor.key).await.is_ok()).await;
}
