//! Redis away, silent, refusing or losing replies: an answer within the deadline, the right kind, and recovery.

use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use redis_session_core::{
    Doom, Doomed, Enter, Entered, Error, Index, Kind, Prolong, Prolonged, Saved, Store, Time, User, UserKey, Which,
};
use redis_session_store::RedisStore;
use redis_session_testkit::{Action, Proxy, RedisServer};

use crate::durable::enter;
use crate::{Visitor, count, destroy, patient, set, until};

/// The deadline, and what a busy machine may add.
const IN_TIME: Duration = Duration::from_millis(250 + 150);

/// One of each operation; all end in time. Answers their kinds of errors.
async fn try_all(store: &RedisStore) -> Vec<Option<Kind>> {
    let visitor = Visitor::new();
    let save = visitor.merge(crate::token(), set("a", "1"));
    let mut kinds = Vec::new();
    for operation in ["load", "create", "save", "end", "ping"] {
        let start = Instant::now();
        let error: Option<Error> = match operation {
            "load" => store.load(&visitor.key).await.err(),
            "create" => store.create(&visitor.key, &visitor.create(&[])).await.err(),
            "save" => store.save(&visitor.key, &save).await.err(),
            "end" => store.end(&visitor.key, &destroy()).await.err(),
            _ => store.ping().await.err(),
        };
        assert!(start.elapsed() < IN_TIME, "{operation} took {:?}", start.elapsed());
        kinds.push(error.map(|error| error.kind()));
    }
    kinds
}

fn all_unavailable(kinds: &[Option<Kind>]) -> bool {
    kinds.iter().all(|kind| *kind == Some(Kind::Unavailable))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_is_noticed_at_once_and_found_again() {
    let redis = RedisServer::start();
    let store = RedisStore::connect(&redis.url()).await.unwrap();
    redis.kill();
    try_all(&store).await; // the client may learn of it with these
    until("the loss", async || all_unavailable(&try_all(&store).await)).await;
    let start = Instant::now();
    assert!(all_unavailable(&try_all(&store).await) && start.elapsed() < Duration::from_millis(100));
    assert!(store.now().is_some(), "the clock goes on");
    redis.restart();
    until("the recovery", async || try_all(&store).await.iter().all(Option::is_none)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r83_a_silent_redis_is_given_up_and_found_again() {
    let redis = RedisServer::start();
    let store = RedisStore::connect(&redis.url()).await.unwrap();
    let visitor = Visitor::new();
    let first = visitor.born(&store, &[]).await;
    redis.pause();
    let write = store.save(&visitor.key, &visitor.merge(first, set("a", "1"))).await.unwrap_err();
    assert!(write.is_outcome_unknown(), "{write:?}");
    assert!(store.load(&visitor.key).await.unwrap_err().is_unavailable());
    let fast = async || {
        let start = Instant::now();
        all_unavailable(&try_all(&store).await) && start.elapsed() < Duration::from_millis(100)
    };
    until("the watchdog", fast).await;
    redis.resume();
    until("the recovery", async || try_all(&store).await.iter().all(Option::is_none)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r84_a_write_whose_reply_was_lost_is_told_by_the_same_bytes() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    let visitor = Visitor::new();
    let first = visitor.born(&store, &[]).await;
    let save = visitor.merge(first, count("n"));
    store.save(&visitor.key, &visitor.merge(first, set("a", "1"))).await.unwrap();
    proxy.fault_next("EVALSHA", Action::DropReply);
    let start = Instant::now();
    assert!(store.save(&visitor.key, &save).await.unwrap_err().is_outcome_unknown());
    assert!(start.elapsed() < IN_TIME, "{:?}", start.elapsed());
    let again = async || matches!(store.save(&visitor.key, &save).await, Ok(Saved::Saved { .. }));
    until("the answer", again).await;
    assert_eq!(redis.run(&["HGET", &visitor.name(), "n"]).int(), 1);
}

/// A step on the list of a user's sessions.
#[derive(Clone, Copy, Debug)]
enum OnList {
    Enter,
    Prolong,
    Doom,
}

impl OnList {
    /// Answers whether it came too late.
    async fn run(self, store: &RedisStore, user: &UserKey, listed: &Visitor, not_after: Time) -> Result<bool, Error> {
        let session = listed.key.handle();
        match self {
            Self::Enter => {
                let enter = Enter { cap: Some(1), not_after, ..enter(&Visitor::new()) };
                Ok(store.enter(user, &enter).await? == Entered::Late)
            }
            Self::Prolong => {
                let prolong = Prolong { session, life: Duration::from_secs(1200), add: false, not_after };
                Ok(store.prolong(user, &prolong).await? == Prolonged::Late)
            }
            Self::Doom => Ok(store.doom(user, &Doom { which: Which::All, not_after }).await? == Doomed::Late),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r84_what_is_held_on_its_way_to_the_list_of_a_users_sessions_until_its_time_is_over_does_nothing() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let store = patient(&proxy.url()).await;
    let now = || {
        let time = redis.run(&["TIME"]).texts();
        let [seconds, micros] = [0, 1].map(|part| time[part].parse::<u64>().unwrap());
        Time::from_millis(seconds * 1000 + micros / 1000)
    };
    for step in [OnList::Enter, OnList::Prolong, OnList::Doom] {
        // Whether the caller hears of it.
        for cut in [false, true] {
            let listed = Visitor::new();
            let users = ["in time", "late"].map(|when| User::new(format!("{step:?} {cut} {when}")).unwrap());
            let [in_time, late] = users.map(|user| user.key(&"main".into()));
            let list = |user: &UserKey| {
                redis.run(&["ZRANGE", &format!("sess:{}", user.to_text()), "0", "-1", "WITHSCORES"]).texts()
            };
            for user in [&in_time, &late] {
                store.enter(user, &enter(&listed)).await.unwrap();
            }
            // From here on Redis knows the script, so that it is the script that is held.
            let before = list(&in_time);
            assert!(!step.run(&store, &in_time, &listed, Time::MAX).await.unwrap());
            assert_ne!(list(&in_time), before, "{step:?}");

            let (before, not_after) = (list(&late), now() + Duration::from_millis(100));
            proxy.fault_next("EVALSHA", Action::HoldThenSend { after: Duration::MAX, cut });
            let release = async {
                proxy.until_held(1).await;
                until("the end of its time", async || now() > not_after).await;
                proxy.release();
                proxy.until_settled().await;
            };
            let (answer, ()) = tokio::join!(step.run(&store, &late, &listed, not_after), release);
            match cut {
                false => assert!(answer.unwrap(), "{step:?}: the script says that it is late"),
                true => assert!(answer.unwrap_err().is_outcome_unknown(), "{step:?}"),
            }
            assert_eq!(list(&late), before, "{step:?}, cut: {cut}");
            until("the connection", async || store.ping().await.is_ok()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_survives_a_lost_connection() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    let visitor = Visitor::new();
    visitor.born(&store, &[("a", "1")]).await;
    proxy.fault_next("HGETALL", Action::DropReply);
    assert!(store.load(&visitor.key).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_refuses_is_unavailable_and_the_error_names_its_word_only() {
    let redis = RedisServer::start();
    let store = RedisStore::connect(&redis.url()).await.unwrap();
    let visitor = Visitor::new();
    let first = visitor.born(&store, &[("n", "1")]).await;
    let save = visitor.merge(first, count("n"));
    let cases: [(&str, &[&str], &[&str]); 4] = [
        ("OOM", &["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]),
        ("READONLY", &["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]),
        (
            "NOREPLICAS",
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
        ),
        ("NOPERM", &["ACL", "SETUSER", "default", "-evalsha"], &["ACL", "SETUSER", "default", "+evalsha"]),
    ];
    for (word, on, off) in cases {
        redis.run(on);
        let error = store.save(&visitor.key, &save).await.unwrap_err();
        let touch = redis_session_core::Save { token: None, ..visitor.merge(first, Default::default()) };
        let touched = store.save(&visitor.key, &touch).await;
        let created = store.create(&Visitor::new().key, &visitor.create(&[])).await;
        let loaded = store.load(&visitor.key).await;
        redis.run(off);
        assert!(
            error.is_unavailable() && error.to_string() == format!("Redis refused the command: {word}"),
            "{error:?}"
        );
        assert!(touched.is_err_and(|error| error.is_unavailable()), "{word}");
        assert!(created.is_err_and(|error| error.is_unavailable()), "{word}");
        assert!(loaded.is_ok(), "{word}");
        assert_eq!(redis.run(&["HGET", &visitor.name(), "n"]).int(), 1, "{word}");
    }
    assert!(matches!(store.save(&visitor.key, &save).await.unwrap(), Saved::Saved { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_redis_is_unavailable_within_the_deadline() {
    let redis = RedisServer::start();
    let store = RedisStore::connect(&redis.url()).await.unwrap();
    redis.run(&["CLIENT", "PAUSE", "400", "ALL"]);
    let kinds = try_all(&store).await;
    assert!(kinds.iter().any(Option::is_some), "{kinds:?}");
    until("the recovery", async || try_all(&store).await.iter().all(Option::is_none)).await;
}

/// On one thread: nothing is sent before all have asked.
#[tokio::test]
async fn r83_of_12_000_loads_at_once_10_000_wait_for_a_silent_redis_and_the_others_are_refused_at_once() {
    let redis = RedisServer::start();
    let store = RedisStore::options(&redis.url()).deadline(Duration::from_secs(30)).connect().await.unwrap();
    let visitor = Visitor::new();
    visitor.born(&store, &[("a", "1")]).await;
    redis.pause();
    let mut loads: FuturesUnordered<_> = (0..12_000).map(|_| store.load(&visitor.key)).collect();
    let mut refused = 0;
    while let Ok(Some(answer)) = tokio::time::timeout(Duration::from_secs(1), loads.next()).await {
        assert!(answer.unwrap_err().is_unavailable());
        refused += 1;
    }
    // A health check may have been among those that wait.
    assert!((1_990..=2_010).contains(&refused), "{refused}");
    redis.resume();
    while let Some(answer) = loads.next().await {
        assert!(answer.unwrap().is_some());
    }
}
