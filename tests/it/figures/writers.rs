//! Many writers of one session at once, on two servers: nothing is lost, nobody waits long, and nobody else notices.

use std::time::{Duration, Instant};

use redis_session_testkit::{HttpBrowser, RedisServer};
use tokio::task::JoinSet;

use super::processes::{Server, shared_key};
use super::{Visitor, percentile, setting};

const EDITS: u64 = 200;
const WRITERS: usize = 64;
/// Between two clicks of a quiet visitor.
const BREATH: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn parallel_pushes_and_increments_over_two_processes_are_all_kept() {
    let (redis, key) = (RedisServer::start(), shared_key());
    let servers = [Server::start(&redis, &key), Server::start(&redis, &key)];
    let browser = servers[0].browser();
    browser.get("/hammered/push/0").await;
    let visitors = servers.each_ref().map(|server| server.visited_by(&browser));

    let mut edits = JoinSet::new();
    for (edit, visitor) in (1..=EDITS).zip(visitors.iter().cycle()) {
        for path in [format!("/hammered/push/{edit}"), "/hammered/count".to_owned()] {
            let visitor = visitor.clone();
            edits.spawn(async move { visitor.get(&path).await });
        }
    }
    let answers = edits.join_all().await;
    assert!(answers.iter().all(|page| page.status == 200 && page.set_cookies().is_empty()));

    let mut visitor = Visitor::on(&browser.get("/hammered/read").await);
    visitor.cart.sort_unstable();
    let (commits, tries) = tally(&servers).await;
    println!(
        "{EDITS} pushes and {EDITS} increments over two processes: {} and {} kept, {} answers 200, \
         {commits} commits in {tries} tries",
        visitor.cart.len() - 1,
        visitor.visits,
        answers.len(),
    );
    assert_eq!(visitor, Visitor { visits: EDITS, cart: (0..=EDITS).collect() });
}

/// Lasts twice `HAMMER_SECONDS`, which is 1 by default and 5 in the figures that are shown.
#[tokio::test(flavor = "multi_thread")]
async fn writers_that_hammer_one_session_need_few_tries_and_all_get_in() {
    let (redis, key) = (RedisServer::start(), shared_key());
    let servers = [Server::start(&redis, &key), Server::start(&redis, &key)];
    let duration = Duration::from_secs_f64(setting("HAMMER_SECONDS", 1.0));
    let hammered = servers[0].browser();
    hammered.get("/hammered/visit").await;
    let quiet: Vec<HttpBrowser> = servers.iter().cycle().take(WRITERS).map(Server::browser).collect();
    for visitor in &quiet {
        visitor.get("/quiet/visit").await;
    }

    let mut clicks = 0;
    for hammers in [0, WRITERS] {
        let before = (tally(&servers).await, redis.used_cpu_micros());
        let (mut hammer, mut calm) = (JoinSet::new(), JoinSet::new());
        for server in servers.iter().cycle().take(hammers) {
            hammer.spawn(visit(server.visited_by(&hammered), "/hammered/visit", duration, Duration::ZERO));
        }
        for (nth, visitor) in quiet.iter().cloned().enumerate() {
            calm.spawn(async move {
                // Not all at the same moments.
                tokio::time::sleep(BREATH * nth as u32 / WRITERS as u32).await;
                visit(visitor, "/quiet/visit", duration, BREATH).await
            });
        }
        let (hammer, calm) = (sorted(hammer).await, sorted(calm).await);
        let after = (tally(&servers).await, redis.used_cpu_micros());
        let (commits, tries) = (after.0.0 - before.0.0, after.0.1 - before.0.1);
        assert_eq!(commits, hammer.len() as u64);
        println!(
            "{hammers} writers for {duration:?} beside {WRITERS} quiet visitors: {:.1} us of Redis's CPU a commit; \
             the quiet ones' {} answers p50 {:?}, p99 {:?}",
            (after.1 - before.1) as f64 / (hammer.len() + calm.len()) as f64,
            calm.len(),
            percentile(&calm, 50),
            percentile(&calm, 99),
        );
        if hammers > 0 {
            let average = tries as f64 / commits as f64;
            println!(
                "{commits} commits of the hammered session, {average:.2} tries each; answers p50 {:?}, p99 {:?}",
                percentile(&hammer, 50),
                percentile(&hammer, 99),
            );
            assert!(average <= 3.0, "{average} tries a commit");
            assert_eq!(Visitor::on(&hammered.get("/hammered/read").await).visits, 1 + commits);
        }
        clicks += calm.len();
    }
    let mut kept = 0;
    for visitor in &quiet {
        kept += Visitor::on(&visitor.get("/quiet/read").await).visits as usize;
    }
    assert_eq!(kept, WRITERS + clicks);
}

/// Commits and tries of the hammered sessions of all servers.
async fn tally(servers: &[Server; 2]) -> (u64, u64) {
    let (one, other) = (servers[0].tally().await, servers[1].tally().await);
    (one.0 + other.0, one.1 + other.1)
}

/// Visits a path again and again, and tells how long each answer took.
async fn visit(visitor: HttpBrowser, path: &'static str, duration: Duration, pause: Duration) -> Vec<Duration> {
    let (until, mut times) = (Instant::now() + duration, Vec::new());
    while Instant::now() < until {
        let start = Instant::now();
        let page = visitor.get(path).await;
        times.push(start.elapsed());
        assert_eq!(page.status, 200);
        tokio::time::sleep(pause).await;
    }
    times
}

async fn sorted(visits: JoinSet<Vec<Duration>>) -> Vec<Duration> {
    let mut times = visits.join_all().await.concat();
    times.sort_unstable();
    times
}
