//! Redis is killed, or stopped, while many write: what was acknowledged, and what is there when it is started again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis_session_core::{Change, Changes, Saved, Store, Stored};
use redis_session_store::{Advice, RedisStore};
use redis_session_testkit::{Cluster, RedisOptions, RedisServer, Sentinels};

use crate::{Visitor, patient, text};

/// Writers that write at the same time, and the sessions of each.
const WRITERS: usize = 8;
const SESSIONS: usize = 10;

/// A session, and when each of its writes was acknowledged; the first is its creation.
struct Written {
    visitor: Visitor,
    acknowledged: Vec<Instant>,
}

/// Writes to its sessions in turn, until a write is not acknowledged or it is told to stop. Each write sets two fields to
/// its number.
async fn write(store: RedisStore, stop: Arc<AtomicBool>) -> Vec<Written> {
    let mut all = Vec::new();
    for _ in 0..SESSIONS {
        let visitor = Visitor::new();
        let base = visitor.born(&store, &[("a", "0"), ("b", "0")]).await;
        all.push((Written { visitor, acknowledged: vec![Instant::now()] }, base));
    }
    'writing: while !stop.load(Ordering::Relaxed) {
        for (written, base) in &mut all {
            let number = written.acknowledged.len().to_string();
            let set = |name| (text(name), Change::Set(text(&number)));
            let save = written.visitor.merge(*base, Changes { clear: false, fields: vec![set("a"), set("b")] });
            match store.save(&written.visitor.key, &save).await {
                Ok(Saved::Saved { .. }) => written.acknowledged.push(Instant::now()),
                Ok(other) => panic!("{other:?}"),
                Err(error) if error.is_unavailable() || error.is_outcome_unknown() => break 'writing,
                Err(error) => panic!("{error}"),
            }
            *base = save.token.unwrap();
        }
    }
    all.into_iter().map(|(written, _)| written).collect()
}

/// How Redis keeps its data, how it goes away, and which acknowledged writes may be missing afterwards.
struct Case {
    name: &'static str,
    settings: &'static [(&'static str, &'static str)],
    goes: Goes,
    may_lose: MayLose,
}

#[derive(Clone, Copy)]
enum Goes {
    Killed,
    Stopped,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MayLose {
    Nothing,
    /// Those of so long before the end: Redis puts off what it writes to its file for so long at most.
    Since(Duration),
    /// Those since a snapshot that the test orders.
    SinceTheSnapshot,
    Everything,
}

const CASES: [Case; 6] = [
    Case {
        name: "appendfsync always, SIGKILL",
        settings: &[("appendonly", "yes"), ("appendfsync", "always")],
        goes: Goes::Killed,
        may_lose: MayLose::Nothing,
    },
    Case {
        name: "appendfsync everysec, SIGKILL",
        settings: &[("appendonly", "yes"), ("appendfsync", "everysec")],
        goes: Goes::Killed,
        may_lose: MayLose::Since(Duration::from_secs(2)),
    },
    Case {
        name: "appendfsync everysec, SIGTERM",
        settings: &[("appendonly", "yes"), ("appendfsync", "everysec")],
        goes: Goes::Stopped,
        may_lose: MayLose::Nothing,
    },
    Case {
        name: "snapshots, SIGKILL",
        settings: &[("save", "3600 1000000")],
        goes: Goes::Killed,
        may_lose: MayLose::SinceTheSnapshot,
    },
    Case {
        name: "snapshots, SIGTERM",
        settings: &[("save", "3600 1000000")],
        goes: Goes::Stopped,
        may_lose: MayLose::Nothing,
    },
    Case { name: "neither, SIGTERM", settings: &[], goes: Goes::Stopped, may_lose: MayLose::Everything },
];

/// Each case writes for `PERSISTENCE_SECONDS`, 0.6 by default.
#[tokio::test(flavor = "multi_thread")]
async fn r82_a_restart_loses_of_what_was_acknowledged_what_its_persistence_says_and_no_half() {
    let seconds = std::env::var("PERSISTENCE_SECONDS").map_or(0.6, |text| text.parse().unwrap());
    eprintln!("{:<32}{:>14}{:>8}{:>18}", "", "acknowledged", "lost", "the oldest lost");
    for case in CASES {
        let redis = Arc::new(RedisServer::start_with(case.settings));
        let store = patient(&redis.url()).await;
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(write(store.clone(), stop.clone()))).collect();
        tokio::time::sleep(Duration::from_secs_f64(seconds / 2.0)).await;
        let snapshot = Instant::now();
        if case.may_lose == MayLose::SinceTheSnapshot {
            redis.run(&["SAVE"]);
        }
        tokio::time::sleep(Duration::from_secs_f64(seconds / 2.0)).await;
        let end = Instant::now();
        match case.goes {
            Goes::Killed => redis.kill(),
            Goes::Stopped => redis.stop(),
        }
        stop.store(true, Ordering::Relaxed);
        let mut sessions = Vec::new();
        for writer in writers {
            sessions.extend(writer.await.unwrap());
        }
        redis.restart();
        store.ready().await;

        let acknowledged: usize = sessions.iter().map(|session| session.acknowledged.len()).sum();
        let mut lost: Vec<Instant> = Vec::new();
        for session in &sessions {
            let kept = kept(&store, &session.visitor).await;
            lost.extend(session.acknowledged.iter().skip(kept).copied());
            // One more may have been written, whose reply was lost.
            assert!(kept <= session.acknowledged.len() + 1, "{}: {kept}", case.name);
        }
        let oldest = lost.iter().min().map(|written| end.saturating_duration_since(*written));
        let shown = oldest.map_or_else(|| "-".to_owned(), |age| format!("{age:.0?} before"));
        eprintln!("{:<32}{acknowledged:>14}{:>8}{shown:>18}", case.name, lost.len());
        assert!(acknowledged > WRITERS * SESSIONS * 3, "{}: {acknowledged}", case.name);
        match case.may_lose {
            MayLose::Nothing => assert!(lost.is_empty(), "{}: {}", case.name, lost.len()),
            MayLose::Since(age) => assert!(oldest.is_none_or(|oldest| oldest < age), "{}: {oldest:?}", case.name),
            MayLose::SinceTheSnapshot => assert!(lost.iter().all(|written| *written >= snapshot) && !lost.is_empty()),
            MayLose::Everything => assert_eq!(lost.len(), acknowledged),
        }
    }
}

/// How many writes of a session are there, counted from its creation; 0 if it is gone.
async fn kept(store: &RedisStore, visitor: &Visitor) -> usize {
    match store.load(&visitor.key).await.unwrap() {
        None => 0,
        Some(Stored::Record(record)) => {
            let field = |name: &[u8]| String::from_utf8(record.fields.get(name).unwrap().to_vec()).unwrap();
            assert_eq!(field(b"a"), field(b"b"), "half a write");
            field(b"a").parse::<usize>().unwrap() + 1
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn r82_who_asks_is_told_which_settings_would_log_visitors_out() {
    let compact = ("hash-max-listpack-value", "1024");
    let evicts = |policy: &str| Advice::Evicts { policy: policy.to_owned() };
    let table = [
        (vec![("appendonly", "yes"), compact], vec![]),
        (vec![compact], vec![Advice::KeepsNothing]),
        (vec![compact, ("save", "3600 1")], vec![Advice::KeepsSnapshots]),
        (vec![("appendonly", "yes"), ("maxmemory-policy", "allkeys-lru"), compact], vec![evicts("allkeys-lru")]),
        (
            vec![("maxmemory-policy", "volatile-ttl")],
            vec![evicts("volatile-ttl"), Advice::KeepsNothing, Advice::Spreads { longest: 64 }],
        ),
    ];
    for (settings, wanted) in table {
        let redis = RedisServer::start_with(&settings);
        assert_eq!(patient(&redis.url()).await.advise().await.unwrap(), wanted, "{settings:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r82_who_asks_a_cluster_is_told_of_all_its_primaries_and_which_one_differs() {
    let cluster = Cluster::options().replicas(0).start_with(kept_well);
    let store = patient(&cluster.url()).await;
    assert_eq!(store.advise().await.unwrap(), [Advice::NeedsFullCoverage]);
    let nodes = cluster.nodes();
    for node in nodes {
        node.run(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    assert_eq!(store.advise().await.unwrap(), []);
    for differs in nodes {
        differs.run(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
        let (server, evicts) = (differs.address().to_string(), Advice::Evicts { policy: "allkeys-lru".to_owned() });
        assert_eq!(store.advise().await.unwrap(), [Advice::At { server, advice: Box::new(evicts) }]);
        differs.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    }
    for node in nodes {
        node.run(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    }
    assert_eq!(store.advise().await.unwrap(), [Advice::Evicts { policy: "volatile-lru".to_owned() }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn r82_who_asks_behind_sentinels_is_told_of_the_primary() {
    let sentinels = Sentinels::options().replicas(1).sentinels(1).start_with(kept_well);
    let store = patient(&sentinels.url()).await;
    let replica = sentinels.servers().iter().find(|server| server.port() != sentinels.primary().port()).unwrap();
    replica.run(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert_eq!(store.advise().await.unwrap(), []);
    sentinels.primary().run(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    assert_eq!(store.advise().await.unwrap(), [Advice::Evicts { policy: "volatile-ttl".to_owned() }]);
}

/// With nothing to be advised.
fn kept_well(options: RedisOptions) -> RedisOptions {
    options.setting("appendonly", "yes").setting("hash-max-listpack-value", "1024")
}

#[tokio::test]
async fn who_may_not_ask_redis_is_told_what_was_not_looked_at() {
    let rights = "~sess:* +hello +ping +time +client|id";
    let settings = RedisServer::options().setting("maxmemory-policy", "allkeys-lru");
    let redis = settings.user("shop", "pw", &format!("{rights} +info")).user("blind", "pw", rights).start();
    let advice = patient(&redis.url_of("shop", "pw")).await.advise().await.unwrap();
    let settings = Advice::NotAllowed { command: "CONFIG GET" };
    let policy = Advice::Evicts { policy: "allkeys-lru".to_owned() };
    assert_eq!(advice, [policy, Advice::KeepsSnapshots, settings.clone()]);
    assert!(settings.to_string().starts_with("this user may not run CONFIG GET, so save and hash-max-listpack-value"));

    let advice = patient(&redis.url_of("blind", "pw")).await.advise().await.unwrap();
    assert_eq!(advice, [Advice::NotAllowed { command: "INFO" }, settings]);

    let store = patient(&redis.url()).await;
    redis.kill();
    assert!(store.advise().await.unwrap_err().is_unavailable());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_started_without_redis_is_ready_once_it_is_there() {
    let redis = RedisServer::start();
    redis.kill();
    let store = RedisStore::options(&redis.url()).start_without_redis().connect().await.unwrap();
    assert!(store.ping().await.unwrap_err().is_unavailable());
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.ready().await }
    });
    let early = tokio::time::timeout(Duration::from_millis(300), store.ready()).await;
    assert!(early.is_err() && !waiting.is_finished());
    redis.restart();
    waiting.await.unwrap();
    store.ping().await.unwrap();
    store.ready().await;
}
