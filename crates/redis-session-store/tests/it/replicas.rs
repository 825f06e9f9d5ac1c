//! Reads that replicas answer, on a cluster and behind Sentinels: who answers what, and what a replica that is behind, silent
//! or gone costs.

#![allow(clippy::print_stdout)] // figures

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis_session_core::{Read, ReplicaRead, Saved, Store, Stored, Token};
use redis_session_store::RedisStore;
use redis_session_testkit::{Cluster, RedisServer, Sentinels};

use crate::deploy::{USERS, rights};
use crate::{LONG, Visitor, destroy, new_proof, set, until_within};

const SECOND: Duration = Duration::from_secs(1);
const BEHIND: Duration = Duration::from_secs(2);

async fn connect(url: &str) -> RedisStore {
    RedisStore::options(url).deadline(SECOND * 10).connect_deadline(SECOND * 10).connect().await.unwrap()
}

fn asks(visitor: &Visitor) -> ReplicaRead {
    ReplicaRead { proof: visitor.id.proof(), life: LONG, behind: BEHIND }
}

async fn read_as(store: &RedisStore, visitor: &Visitor, read: &ReplicaRead) -> Read {
    store.replicas().expect("it knows its replicas").read(&visitor.key, read).await.unwrap()
}

async fn read(store: &RedisStore, visitor: &Visitor) -> Read {
    read_as(store, visitor, &asks(visitor)).await
}

/// The field `n`, by a replica.
async fn by_replica(store: &RedisStore, visitor: &Visitor) -> Option<String> {
    match read(store, visitor).await {
        Read::Replica(record) => Some(String::from_utf8(record.fields.get(b"n")?.to_vec()).unwrap()),
        Read::Primary(_) => None,
    }
}

fn is_primarys(read: &Read) -> bool {
    matches!(read, Read::Primary(_))
}

/// Waits until a condition holds: a cluster names a new replica only after some seconds, and is asked every five.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    until_within(SECOND * 30, what, condition).await;
}

/// A visitor whose session a replica has, and has answered for.
async fn known_to_replicas(store: &RedisStore) -> (Visitor, Token) {
    let visitor = Visitor::new();
    let token = visitor.born(store, &[("n", "1")]).await;
    until("a replica's answer", async || by_replica(store, &visitor).await.is_some()).await;
    (visitor, token)
}

fn loads(server: &RedisServer) -> u64 {
    server.command_count("HGETALL")
}

/// Holds up what the primary has written on its way into a replica, which goes on answering reads: `false` lets it go on.
fn hold_up(replica: &RedisServer, held: bool) {
    match held {
        true => replica.run(&["CLIENT", "PAUSE", "60000", "WRITE"]),
        false => replica.run(&["CLIENT", "UNPAUSE"]),
    };
}

/// The primary's replicas.
fn replicas(sentinels: &Sentinels) -> Vec<&RedisServer> {
    let primary = sentinels.primary().port();
    sentinels.servers().iter().filter(|server| server.port() != primary).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_behind_sentinels_share_the_reads_and_the_primary_has_none() {
    let sentinels = Sentinels::start();
    let store = connect(&sentinels.url()).await;
    let (visitor, _) = known_to_replicas(&store).await;
    let all_answer = async || {
        let before: Vec<_> = replicas(&sentinels).into_iter().map(loads).collect();
        by_replica(&store, &visitor).await;
        by_replica(&store, &visitor).await;
        replicas(&sentinels).into_iter().map(loads).zip(before).all(|(now, before)| now > before)
    };
    until("both replicas", all_answer).await;
    sentinels.servers().iter().for_each(RedisServer::reset_stats);
    for _ in 0..1000 {
        assert_eq!(by_replica(&store, &visitor).await.as_deref(), Some("1"));
    }
    let of_replicas: Vec<_> = replicas(&sentinels).into_iter().map(loads).collect();
    println!("1000 reads: {} by the primary, {of_replicas:?} by its replicas", loads(sentinels.primary()));
    assert_eq!(loads(sentinels.primary()), 0);
    assert!(of_replicas.iter().all(|loads| *loads == 500), "{of_replicas:?}");
    // A mere load is the primary's as before.
    store.load(&visitor.key).await.unwrap();
    assert_eq!(loads(sentinels.primary()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn r71_replicas_of_a_cluster_answer_for_their_primaries_and_a_user_needs_one_right_more() {
    let rule = rights(USERS).join(" ");
    let cluster_rights = "+cluster|info +cluster|slots +asking";
    let cluster = Cluster::options().start_with(|options| {
        options.user("reader", "r", &format!("{rule} {cluster_rights} +readonly")).user(
            "other",
            "o",
            &format!("{rule} {cluster_rights}"),
        )
    });
    let store = connect(&cluster.url_of("reader", "r")).await;
    let mut visitors = Vec::new();
    for _ in 0..60 {
        let visitor = Visitor::new();
        visitor.born(&store, &[("n", "1")]).await;
        visitors.push(visitor);
    }
    for visitor in &visitors {
        until("a replica's answer", async || by_replica(&store, visitor).await.is_some()).await;
    }
    cluster.nodes().iter().for_each(RedisServer::reset_stats);
    for visitor in &visitors {
        assert_eq!(by_replica(&store, visitor).await.as_deref(), Some("1"));
    }
    let counts: Vec<_> = cluster.nodes().iter().map(loads).collect();
    println!("60 reads: {counts:?} by three primaries and their replicas");
    assert_eq!(counts[..3], [0, 0, 0]);
    assert!(counts[3..].iter().all(|loads| *loads > 5) && counts[3..].iter().sum::<u64>() == 60, "{counts:?}");
    for node in cluster.nodes() {
        assert_eq!(node.run(&["ACL", "LOG"]).list(), [], "a command or a key was refused");
    }

    // On a connection that is made anew nobody has said READONLY; who reads there meanwhile is served by the primary.
    for replica in &cluster.nodes()[3..] {
        replica.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }
    for visitor in &visitors {
        assert!(matches!(read(&store, visitor).await, Read::Replica(_) | Read::Primary(Some(_))));
    }
    for visitor in &visitors {
        until("a replica's answer", async || by_replica(&store, visitor).await.is_some()).await;
    }

    // Without the right nothing is lost but the replicas' answers.
    let other = connect(&cluster.url_of("other", "o")).await;
    for _ in 0..100 {
        for visitor in &visitors {
            assert!(matches!(read(&other, visitor).await, Read::Primary(Some(_))));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_does_not_have_alive_is_the_primarys_to_say() {
    let sentinels = Sentinels::options().replicas(1).start();
    let store = connect(&sentinels.url()).await;
    let (visitor, _) = known_to_replicas(&store).await;
    let nobody = Visitor::new();
    assert!(matches!(read(&store, &nobody).await, Read::Primary(None)));
    let other_proof = ReplicaRead { proof: new_proof(), ..asks(&visitor) };
    assert!(matches!(read_as(&store, &visitor, &other_proof).await, Read::Primary(Some(Stored::Record(_)))));
    let short = redis_session_core::Life { idle: 0, ..LONG };
    let past = ReplicaRead { life: short, ..asks(&visitor) };
    assert!(is_primarys(&read_as(&store, &visitor, &past).await));
    // Another key's record, which the tag in it tells.
    let planted = Visitor::new();
    sentinels.primary().run(&["COPY", &visitor.name(), &planted.name()]);
    let answer = store.replicas().unwrap().read(&planted.key, &asks(&planted)).await;
    assert!(answer.unwrap_err().is_corrupt());
    until("the connections are in step", async || by_replica(&store, &visitor).await.is_some()).await;

    store.end(&visitor.key, &destroy()).await.unwrap();
    until("the tombstone", async || {
        let ended = read(&store, &visitor).await;
        assert!(matches!(ended, Read::Primary(Some(Stored::Ended(_))) | Read::Replica(_)), "{ended:?}");
        is_primarys(&ended)
    })
    .await;
    // What only the primary has yet is found there.
    replicas(&sentinels).into_iter().for_each(|replica| hold_up(replica, true));
    let newest = Visitor::new();
    newest.born(&store, &[("n", "1")]).await;
    assert!(matches!(read(&store, &newest).await, Read::Primary(Some(Stored::Record(_)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_too_far_behind_is_not_asked_until_it_has_caught_up() {
    let sentinels = Sentinels::options().replicas(1).start();
    let store = connect(&sentinels.url()).await;
    let (visitor, mut base) = known_to_replicas(&store).await;
    let replica = replicas(&sentinels)[0];
    hold_up(replica, true);
    let (mut newest, mut stale, mut oldest) = (1, 0, Duration::ZERO);
    // When each value was written.
    let mut written = vec![Instant::now(), Instant::now()];
    let held = Instant::now();
    while held.elapsed() < BEHIND * 2 {
        let sent = Instant::now();
        if let Some(n) = by_replica(&store, &visitor).await {
            let n: usize = n.parse().unwrap();
            if n < newest {
                // It was the newest until the next one was written.
                let age = sent.saturating_duration_since(written[n + 1]);
                assert!(age < BEHIND, "{age:?} behind");
                (stale, oldest) = (stale + 1, oldest.max(age));
            }
        }
        let save = visitor.merge(base, set("n", &(newest + 1).to_string()));
        assert!(matches!(store.save(&visitor.key, &save).await.unwrap(), Saved::Saved { .. }));
        (base, newest) = (save.token.unwrap(), newest + 1);
        written.push(Instant::now());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!(
        "a replica that is held up, and may be {BEHIND:?} behind: {stale} old answers, the oldest {oldest:?} behind"
    );
    assert!(stale > 10 && oldest > SECOND, "it answered as long as it may");
    assert_eq!(by_replica(&store, &visitor).await, None);
    hold_up(replica, false);
    until("the replica", async || by_replica(&store, &visitor).await == Some(newest.to_string())).await;

    // One that has lost its primary answers nothing, whatever it has.
    replica.run(&["CONFIG", "SET", "masteruser", "nobody"]);
    replica.run(&["CONFIG", "SET", "masterauth", "a password"]);
    sentinels.primary().run(&["CLIENT", "KILL", "TYPE", "replica"]);
    let cut = Instant::now();
    until("the cut", async || by_replica(&store, &visitor).await.is_none()).await;
    assert!(cut.elapsed() < BEHIND + SECOND, "{:?}", cut.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn r83_a_frozen_and_a_killed_replica_cost_no_error_and_few_short_waits() {
    let sentinels = Sentinels::start();
    // A replica may take a tenth of a second of it.
    let deadline = SECOND * 10;
    let store = connect(&sentinels.url()).await;
    let (visitor, _) = known_to_replicas(&store).await;
    let (frozen, killed) = (replicas(&sentinels)[0], replicas(&sentinels)[1]);
    for (what, replica) in [("frozen", frozen), ("killed", killed)] {
        until("both replicas", async || {
            sentinels.servers().iter().for_each(RedisServer::reset_stats);
            for _ in 0..4 {
                read(&store, &visitor).await;
            }
            replicas(&sentinels).into_iter().all(|replica| loads(replica) > 0)
        })
        .await;
        match what {
            "frozen" => replica.pause(),
            _ => replica.kill(),
        }
        let (mut waits, mut slowest, mut near, mut reads) = (0, Duration::ZERO, 0, 0);
        let begun = Instant::now();
        while begun.elapsed() < SECOND * 3 {
            let sent = Instant::now();
            let answer = store.replicas().unwrap().read(&visitor.key, &asks(&visitor)).await;
            near += match answer {
                Ok(Read::Replica(_)) => 1,
                Ok(Read::Primary(Some(_))) => 0,
                other => panic!("{other:?}"),
            };
            let took = sent.elapsed();
            (waits, slowest, reads) = (waits + u32::from(took >= SECOND / 10), slowest.max(took), reads + 1);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        println!(
            "a replica is {what}: 0 errors in {reads} reads, {near} of them by the other one; {waits} waited for it, and the \
             slowest took {slowest:?}"
        );
        assert!(slowest < deadline / 2, "{slowest:?}");
        assert!(near > reads / 2 && waits <= reads / 20, "the other one goes on");
        if what == "frozen" {
            replica.resume();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_missed_by_replica_reads_while_slots_move() {
    let cluster = Cluster::start();
    let store = Arc::new(connect(&cluster.url()).await);
    let visitors: Arc<Vec<_>> = Arc::new((0..12).map(|_| Visitor::new()).collect());
    for visitor in visitors.iter() {
        visitor.born(&store, &[("n", "1")]).await;
    }
    for visitor in visitors.iter() {
        until("a replica's answer", async || by_replica(&store, visitor).await.is_some()).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    for nth in 0..visitors.len() {
        let (store, visitors, stop) = (store.clone(), visitors.clone(), stop.clone());
        tasks.spawn(async move {
            let (mut all, mut near, mut missing) = (0, 0, 0);
            while !stop.load(Ordering::Relaxed) {
                match read(&store, &visitors[nth]).await {
                    Read::Replica(_) => near += 1,
                    Read::Primary(Some(Stored::Record(_))) => {}
                    Read::Primary(_) => missing += 1,
                }
                all += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (all, near, missing)
        });
    }
    let ports: Vec<_> = cluster.nodes()[..3].iter().map(RedisServer::port).collect();
    for moves in 0..24 {
        let slot = cluster.slot_of(&visitors[moves % visitors.len()].name());
        let from = cluster.primary_of_slot(slot).port();
        let to = ports.iter().cycle().skip(moves).find(|port| **port != from).unwrap();
        let to = cluster.nodes().iter().find(|node| node.port() == *to).unwrap();
        let moving = cluster.begin_move(slot, to);
        moving.move_keys();
        tokio::time::sleep(Duration::from_millis(50)).await;
        moving.finish();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let seen: Vec<(u64, u64, u64)> = tasks.join_all().await;
    let sum = |of: fn(&(u64, u64, u64)) -> u64| seen.iter().map(of).sum::<u64>();
    let (all, near, missing) = (sum(|seen| seen.0), sum(|seen| seen.1), sum(|seen| seen.2));
    println!("24 slots moved under {all} reads, {near} of them by replicas: {missing} missing");
    assert!(missing == 0 && near > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_promoted_is_read_from_as_the_primary_and_the_others_go_on() {
    let sentinels = Sentinels::start();
    let store = connect(&sentinels.url()).await;
    let (visitor, base) = known_to_replicas(&store).await;
    let new = sentinels.failover();
    new.reset_stats();
    let save = visitor.merge(base, set("n", "2"));
    assert!(matches!(store.save(&visitor.key, &save).await.unwrap(), Saved::Saved { .. }));
    until("the new primary's replicas", async || by_replica(&store, &visitor).await.as_deref() == Some("2")).await;
    new.reset_stats();
    for _ in 0..20 {
        assert_eq!(by_replica(&store, &visitor).await.as_deref(), Some("2"));
    }
    assert_eq!(loads(new), 0);
}

/// What a reader saw in one shard while its primary went.
#[derive(Default)]
struct Shown {
    by_replica: u64,
    by_primary: u64,
    errors: u64,
    /// How long ago the oldest answer of a replica was the newest.
    oldest: Duration,
}

/// Writes 1, 2, 3, … and takes note of when each was acknowledged; `None`: nobody knows whether it was written.
async fn count_up(
    store: RedisStore,
    visitor: Arc<Visitor>,
    written: Arc<Mutex<Vec<Option<Instant>>>>,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let Ok(Some(Stored::Record(record))) = store.load(&visitor.key).await else { continue };
        let next = written.lock().unwrap().len();
        let save = visitor.merge(record.tokens.newest(), set("n", &next.to_string()));
        let is_saved = matches!(store.save(&visitor.key, &save).await, Ok(Saved::Saved { .. }));
        written.lock().unwrap().push(is_saved.then(Instant::now));
    }
}

async fn watch(
    store: RedisStore,
    visitor: Arc<Visitor>,
    written: Arc<Mutex<Vec<Option<Instant>>>>,
    stop: Arc<AtomicBool>,
) -> Shown {
    let mut shown = Shown::default();
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        match store.replicas().unwrap().read(&visitor.key, &asks(&visitor)).await {
            Ok(Read::Replica(record)) => {
                let n: usize = std::str::from_utf8(record.fields.get(b"n").unwrap()).unwrap().parse().unwrap();
                let newer = written.lock().unwrap().iter().skip(n + 1).find_map(|written| *written);
                let age = newer.map_or(Duration::ZERO, |newer| sent.saturating_duration_since(newer));
                (shown.by_replica, shown.oldest) = (shown.by_replica + 1, shown.oldest.max(age));
            }
            Ok(Read::Primary(Some(Stored::Record(_)))) => shown.by_primary += 1,
            Ok(other) => panic!("a session is gone: {other:?}"),
            Err(error) => {
                assert!(error.is_unavailable(), "{error:?}");
                shown.errors += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn r83_a_primary_of_a_cluster_that_goes_takes_no_reader_along() {
    let cluster = Cluster::options().node_timeout(SECOND).without_full_coverage().start();
    let store = connect(&cluster.url()).await;
    for (what, shard) in [("hands over", 0), ("is killed", 1), ("is frozen", 2)] {
        let old = &cluster.nodes()[shard];
        let visitor = loop {
            let visitor = Visitor::new();
            if cluster.primary_of(&visitor.name()).port() == old.port() {
                break Arc::new(visitor);
            }
        };
        visitor.born(&store, &[("n", "0")]).await;
        until("a replica's answer", async || by_replica(&store, &visitor).await.is_some()).await;
        let (stop, written) = (Arc::default(), Arc::new(Mutex::new(vec![Some(Instant::now())])));
        let writer = tokio::spawn(count_up(store.clone(), visitor.clone(), Arc::clone(&written), Arc::clone(&stop)));
        let reader = tokio::spawn(watch(store.clone(), visitor.clone(), written.clone(), stop.clone()));
        tokio::time::sleep(SECOND / 2).await;
        let begun = Instant::now();
        match what {
            "hands over" => drop(cluster.replicas_of(old)[0].run(&["CLUSTER", "FAILOVER"])),
            "is killed" => old.kill(),
            _ => old.pause(),
        }
        let new = cluster.wait_for_new_primary(&visitor.name(), old);
        let without = begun.elapsed();
        match what {
            "hands over" => {}
            "is killed" => old.restart(),
            _ => old.resume(),
        }
        cluster.wait_until_well();
        new.reset_stats();
        old.reset_stats();
        until("the old primary's answer, as a replica", async || {
            by_replica(&store, &visitor).await.is_some() && loads(old) > 0
        })
        .await;
        stop.store(true, Ordering::Relaxed);
        writer.await.unwrap();
        let Shown { by_replica, by_primary, errors, oldest } = reader.await.unwrap();
        println!(
            "a primary {what} ({} ms without one): {by_replica} reads by its replica, the oldest answer {} ms behind, \
             {by_primary} by primaries, {errors} errors",
            without.as_millis(),
            oldest.as_millis(),
        );
        assert_eq!(errors, 0);
        assert!(by_replica > 100 && oldest < BEHIND, "{oldest:?}");
    }
}
