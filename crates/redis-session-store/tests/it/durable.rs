//! Writes that wait for replicas: what is waited for, what is told where they do not come, and what that costs.

#![allow(clippy::print_stdout)] // figures

use std::time::{Duration, Instant};

use redis_session_core::{
    Created, Doom, Doomed, End, Ended, Enter, Entered, Index, Reason, Replication, Save, Saved, Step, Store, Stored,
    Time, Token, User, UserKey, Waited, Which, Whose,
};
use redis_session_store::RedisStore;
use redis_session_testkit::{Action, Cluster, Proxy, RedisServer, Replicas};

use crate::deploy::{USERS, rights};
use crate::{Visitor, count, destroy, new_proof, patient, set};

const MS: Duration = Duration::from_millis(1);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(1);

fn on(replicas: u32) -> Replication {
    Replication { replicas, within: 10_000 * MS }
}

fn soon(replicas: u32) -> Replication {
    Replication { replicas, within: 200 * MS }
}

/// What was written is where it was to be.
fn reached<T>(waited: Waited<T>) -> T {
    assert!(waited.missed.is_none(), "{:?}", waited.missed);
    waited.outcome
}

/// What was written is not.
fn missed<T>(waited: Waited<T>, text: &str) -> T {
    let error = waited.missed.expect("it is not there");
    assert!(error.is_not_replicated() && error.to_string().contains(text), "{error}");
    waited.outcome
}

fn version(server: &RedisServer, visitor: &Visitor) -> String {
    server.run(&["HGET", &visitor.name(), "n"]).text()
}

async fn n(store: &RedisStore, visitor: &Visitor) -> String {
    match store.load(&visitor.key).await.unwrap() {
        Some(Stored::Record(record)) => String::from_utf8(record.fields.get(b"n").unwrap().to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_write_is_on_its_replicas_when_it_is_answered() {
    let redis = Replicas::start(2);
    let store = patient(&redis.primary().url()).await;
    let on_all = |visitor: &Visitor, command: &str, field: &str, wanted: &str| {
        for replica in redis.replicas() {
            let found = replica.run(&[command, &visitor.name(), field]).text();
            assert!(found.starts_with(wanted), "{found}");
        }
    };
    for _ in 0..20 {
        let visitor = Visitor::new();
        let create = visitor.create(&[("n", "1")]);
        let created = reached(store.create_durably(&visitor.key, &create, on(2)).await.unwrap());
        assert!(matches!(created, Created::Created { .. }));
        on_all(&visitor, "HGET", "n", "1");
        let save = visitor.merge(create.token, count("n"));
        let saved = reached(store.save_durably(&visitor.key, &save, on(2)).await.unwrap());
        assert!(matches!(saved, Saved::Saved { .. }));
        on_all(&visitor, "HGET", "n", "2");
        assert_eq!(reached(store.end_durably(&visitor.key, &destroy(), on(2)).await.unwrap()), Ended::Ended);
        on_all(&visitor, "HGET", "@ended", "destroyed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_reach_its_replicas_in_time_stands_and_is_told() {
    let redis = Replicas::start(2);
    let store = patient(&redis.primary().url()).await;
    let visitor = Visitor::new();
    visitor.born(&store, &[("n", "0")]).await;
    redis.wait_until_in_sync();
    redis.replicas()[0].pause();

    let begun = Instant::now();
    let other = Visitor::new();
    let create = other.create(&[("n", "1")]);
    missed(store.create_durably(&other.key, &create, soon(2)).await.unwrap(), "on 1 of 2 replicas after 200ms");
    let took = begun.elapsed();
    assert!(took >= 200 * MS && took < 200 * MS + SLACK, "{took:?}");
    reached(store.save_durably(&other.key, &other.merge(create.token, count("n")), on(1)).await.unwrap());
    let base = newest(&store, &other).await;
    missed(store.save_durably(&other.key, &other.merge(base, count("n")), soon(2)).await.unwrap(), "on 1 of 2");
    assert_eq!(n(&store, &other).await, "3");
    assert_eq!(missed(store.end_durably(&other.key, &destroy(), soon(2)).await.unwrap(), "on 1 of 2"), Ended::Ended);
    // Of what ended before, too: by whom it was ended, nobody knows where that is.
    let again = missed(store.end_durably(&other.key, &destroy(), soon(2)).await.unwrap(), "on 1 of 2");
    assert!(matches!(again, Ended::Already(tombstone) if tombstone.reason == Reason::Destroyed));
    missed(store.end_durably(&other.key, &destroy(), soon(9)).await.unwrap(), "on 1 of 9");

    redis.replicas()[0].resume();
    reached(store.end_durably(&other.key, &destroy(), on(2)).await.unwrap());
}

async fn newest(store: &RedisStore, visitor: &Visitor) -> Token {
    match store.load(&visitor.key).await.unwrap() {
        Some(Stored::Record(record)) => record.tokens.newest(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_written_misses_nothing() {
    let redis = RedisServer::start();
    let store = patient(&redis.url()).await;
    let visitor = Visitor::new();
    let first = visitor.born(&store, &[("n", "x")]).await;
    let one = Replication { replicas: 1, within: MS };
    let taken = reached(store.create_durably(&visitor.key, &visitor.create(&[]), one).await.unwrap());
    assert_eq!(taken, Created::Exists);
    let save = async |save: Save| reached(store.save_durably(&visitor.key, &save, one).await.unwrap());
    assert!(matches!(save(visitor.merge(first, count("n"))).await, Saved::Refused(_)));
    let late = Save { not_after: Time::from_millis(1), ..visitor.merge(first, set("n", "1")) };
    assert_eq!(save(late).await, Saved::Late);
    let other_base = Save { merges: false, ..visitor.merge(crate::token(), set("n", "1")) };
    assert!(matches!(save(other_base).await, Saved::Moved(_)));
    let proof = Save { proof: new_proof(), ..visitor.merge(first, set("n", "1")) };
    assert_eq!(save(Save { step: Step::Keep, ..proof }).await, Saved::Replaced);
    let others = End { whose: Whose::Nobodys(new_proof()), ..destroy() };
    assert_eq!(reached(store.end_durably(&visitor.key, &others, one).await.unwrap()), Ended::Others);
    let nobody = Visitor::new();
    assert_eq!(reached(store.end_durably(&nobody.key, &destroy(), one).await.unwrap()), Ended::Gone);
    missed(store.save_durably(&visitor.key, &visitor.merge(first, set("n", "1")), one).await.unwrap(), "on 0 of 1");
}

/// `WAIT` counts from the last write of its own connection (from Redis 7.2 on), so a copy that finds its work done has to
/// write, or nothing would be waited for.
#[tokio::test(flavor = "multi_thread")]
async fn r84_a_copy_that_finds_its_work_done_waits_for_it() {
    let redis = Replicas::start(1);
    let store = patient(&redis.primary().url()).await;
    let visitor = Visitor::new();
    let create = visitor.create(&[("n", "0")]);
    store.create(&visitor.key, &create).await.unwrap();
    let save = visitor.merge(create.token, count("n"));
    redis.wait_until_in_sync();
    redis.replicas()[0].pause();

    let writes = || redis.primary().command_count("PEXPIREAT");
    store.save(&visitor.key, &save).await.unwrap();
    let before = writes();
    missed(store.save_durably(&visitor.key, &save, soon(1)).await.unwrap(), "on 0 of 1");
    assert_eq!(writes(), before + 1, "a copy writes what is there");
    missed(store.create_durably(&visitor.key, &create, soon(1)).await.unwrap(), "on 0 of 1");
    assert_eq!(writes(), before + 2);
    let lives = redis.primary().run(&["PTTL", &visitor.name()]).int();
    assert!((600_000..=660_000).contains(&lives), "its time is as it was: {lives}");
    store.end(&visitor.key, &destroy()).await.unwrap();
    missed(store.end_durably(&visitor.key, &destroy(), soon(1)).await.unwrap(), "on 0 of 1");
    assert_eq!(writes(), before + 3);
    let stays = redis.primary().run(&["PTTL", &visitor.name()]).int();
    assert!((50_000..=60_000).contains(&stays), "for no longer than a minute: {stays}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r84_a_durable_write_whose_reply_is_lost_is_made_once_and_then_waited_for() {
    for lost in ["EVALSHA", "WAIT"] {
        let redis = Replicas::start(1);
        let proxy = Proxy::start(redis.primary().address());
        let store = patient(&proxy.url()).await;
        let visitor = Visitor::new();
        let first = visitor.born(&store, &[("n", "0")]).await;
        let save = visitor.merge(first, count("n"));
        proxy.fault_next(lost, Action::DropReply);
        let error = store.save_durably(&visitor.key, &save, on(1)).await.unwrap_err();
        assert!(error.is_outcome_unknown(), "{lost}: {error}");
        reached(store.save_durably(&visitor.key, &save, on(1)).await.unwrap());
        assert_eq!(version(&redis.replicas()[0], &visitor), "1", "{lost}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r83_writes_that_wait_in_vain_hold_up_nobody_and_no_longer_than_they_were_told() {
    let redis = Replicas::start(1);
    let deadline = Duration::from_secs(1);
    let store = RedisStore::options(&redis.primary().url()).deadline(deadline).connect().await.unwrap();
    let visitors: Vec<_> = (0..100).map(|_| Visitor::new()).collect();
    let mut saves = Vec::new();
    for visitor in &visitors {
        saves.push(visitor.merge(visitor.born(&store, &[]).await, count("n")));
    }
    redis.wait_until_in_sync();
    redis.replicas()[0].pause();
    let begun = Instant::now();
    let waits = visitors.iter().zip(&saves).map(|(visitor, save)| store.save_durably(&visitor.key, save, soon(1)));
    let others = async {
        // They are under way.
        tokio::time::sleep(50 * MS).await;
        let begun = Instant::now();
        let fast = Visitor::new();
        fast.born(&store, &[]).await;
        store.load(&fast.key).await.unwrap();
        begun.elapsed()
    };
    let (answers, others) = tokio::join!(futures_util::future::join_all(waits), others);
    let took = begun.elapsed();
    println!(
        "100 writes at once that wait 200 ms for a replica that is away: all told after {took:?}; a write and a read of \
              others beside them took {others:?}"
    );
    for answer in answers {
        let what = answer.unwrap();
        assert!(what.missed.is_some_and(|error| error.is_not_replicated()));
        assert!(matches!(what.outcome, Saved::Saved { .. }));
    }
    assert!(took < deadline + 200 * MS + SLACK, "{took:?}");
    assert!(others < 200 * MS + SLACK / 2, "{others:?}");
    for visitor in &visitors {
        assert_eq!(n(&store, visitor).await, "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r83_a_server_that_does_not_know_the_script_yet_is_not_waited_for_twice() {
    let redis = Replicas::start(1);
    let store = patient(&redis.primary().url()).await;
    let visitor = Visitor::new();
    let save = visitor.merge(visitor.born(&store, &[]).await, count("n"));
    redis.replicas()[0].pause();
    redis.primary().run(&["SCRIPT", "FLUSH"]);
    let within = Duration::from_secs(1);
    let begun = Instant::now();
    missed(store.save_durably(&visitor.key, &save, Replication { replicas: 1, within }).await.unwrap(), "on 0 of 1");
    assert!((within..within + SLACK * 9 / 10).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_wait_on_are_kept_and_made_anew() {
    let redis = Replicas::start(1);
    let store = patient(&redis.primary().url()).await;
    let visitor = Visitor::new();
    let mut base = visitor.born(&store, &[("n", "0")]).await;
    let clients = || redis.primary().run(&["CLIENT", "LIST", "TYPE", "normal"]).text().lines().count();
    let at_first = clients();
    let mut durable = async || {
        let save = visitor.merge(base, count("n"));
        reached(store.save_durably(&visitor.key, &save, on(1)).await.unwrap());
        base = save.token.unwrap();
    };
    for _ in 0..50 {
        durable().await;
    }
    assert_eq!(clients(), at_first + 1, "one after the other needs one");
    redis.primary().run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    crate::until("the store is back", async || store.ping().await.is_ok()).await;
    for _ in 0..5 {
        durable().await;
    }
    redis.primary().run(&["SCRIPT", "FLUSH"]);
    durable().await;
    assert_eq!(version(redis.primary(), &visitor), "56");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_became_a_replica_while_a_write_waited_does_not_count() {
    let (redis, other) = (Replicas::start(1), RedisServer::start());
    let store = patient(&redis.primary().url()).await;
    let visitor = Visitor::new();
    let first = visitor.born(&store, &[]).await;
    redis.wait_until_in_sync();
    redis.replicas()[0].pause();
    let begun = Instant::now();
    let save = visitor.merge(first, set("n", "1"));
    let demote = async {
        crate::until("the wait", async || {
            redis.primary().run(&["INFO", "clients"]).text().contains("blocked_clients:1")
        })
        .await;
        redis.primary().run(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    };
    let (waited, ()) = tokio::join!(store.save_durably(&visitor.key, &save, on(1)), demote);
    match waited {
        Ok(waited) => drop(missed(waited, "UNBLOCKED")),
        Err(error) => assert!(error.is_outcome_unknown(), "{error}"),
    }
    assert!(begun.elapsed() < 8000 * MS, "at once: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn r83_a_durable_write_to_a_frozen_primary_ends_with_its_deadline_and_its_time_to_wait() {
    let redis = Replicas::start(1);
    let deadline = Duration::from_millis(500);
    let store = RedisStore::options(&redis.primary().url()).deadline(deadline).connect().await.unwrap();
    let visitor = Visitor::new();
    let create = visitor.create(&[("n", "0")]);
    reached(store.create_durably(&visitor.key, &create, on(1)).await.unwrap());
    let save = visitor.merge(create.token, count("n"));
    redis.primary().pause();
    let begun = Instant::now();
    let error = store.save_durably(&visitor.key, &save, soon(1)).await.unwrap_err();
    assert!(error.is_outcome_unknown() || error.is_unavailable(), "{error}");
    assert!(begun.elapsed() < deadline + 200 * MS + SLACK, "{:?}", begun.elapsed());
    redis.primary().resume();
    crate::until("the store is back", async || store.ping().await.is_ok()).await;
    reached(store.save_durably(&visitor.key, &save, on(1)).await.unwrap());
    assert_eq!(version(&redis.replicas()[0], &visitor), "1", "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn r79_who_may_not_wait_is_told_what_to_allow() {
    let docs = include_str!("../../src/lib.rs").replace("//!", "");
    let (_, more) = docs.split_once("`Durability::Replicated`) needs").expect("the docs name the right");
    let more = more.split('`').nth(1).expect("in backticks");
    let rights = |more: &str| format!("{} {more}", rights(USERS).join(" "));
    for (rights, may) in [(rights(""), false), (rights(more), true)] {
        let redis = Replicas::start_with(1, |options| options.user("shop", "password", &rights));
        let store = patient(&redis.primary().url_of("shop", "password")).await;
        let visitor = Visitor::new();
        let waited = store.create_durably(&visitor.key, &visitor.create(&[("n", "1")]), on(1)).await.unwrap();
        if may {
            reached(waited);
            assert_eq!(redis.primary().run(&["ACL", "LOG"]).list(), [], "a command was refused");
        } else {
            missed(waited, "allow +wait");
        }
        assert_eq!(n(&store, &visitor).await, "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_each_write_waits_where_it_was_made_also_while_slots_move() {
    let cluster = Cluster::start();
    let store = patient(&cluster.url()).await;
    for round in 0..6 {
        let visitor = Visitor::new();
        let slot = cluster.slot_of(&visitor.name());
        let from = cluster.primary_of_slot(slot);
        let is_primary = |node: &&RedisServer| node.port() != from.port() && !cluster.replicas_of(node).is_empty();
        let to = cluster.nodes().iter().find(is_primary).unwrap();
        let create = visitor.create(&[("n", "1")]);
        if round % 2 == 0 {
            reached(store.create_durably(&visitor.key, &create, on(1)).await.unwrap());
            missed(
                store.save_durably(&visitor.key, &visitor.merge(create.token, count("n")), soon(2)).await.unwrap(),
                "on 1 of 2",
            );
            assert_eq!(n(&store, &visitor).await, "2");
        } else {
            // What is not there yet is made where the slot goes to.
            let moving = cluster.begin_move(slot, to);
            reached(store.create_durably(&visitor.key, &create, on(1)).await.unwrap());
            assert!(to.command(&["EXISTS", &visitor.name()]).error().is_some(), "only after ASKING");
            moving.finish();
            assert_eq!(n(&store, &visitor).await, "1");
        }
    }
}

fn ada() -> UserKey {
    User::new("ada").unwrap().key(&"main".into())
}

pub(crate) fn enter(visitor: &Visitor) -> Enter {
    let (session, life) = (visitor.key.handle(), Duration::from_secs(600));
    Enter { session, life, cap: None, age: Duration::ZERO, instead_of: None, not_after: Time::MAX }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_the_entry_of_a_login_and_a_revocation_wait_on_the_server_of_the_list() {
    let cluster = Cluster::start();
    let store = patient(&cluster.url()).await;
    let (user, visitor) = (ada(), Visitor::new());
    let list = format!("sess:{}", user.to_text());
    let replica = cluster.replicas_of(cluster.primary_of(&list))[0];
    let enter = enter(&visitor);
    let doom = |which| Doom { which, not_after: Time::MAX };
    let entered = Entered::Entered { since_revoked: None, doomed: Vec::new() };
    assert_eq!(reached(store.enter_durably(&user, &enter, on(1)).await.unwrap()), entered);
    replica.run(&["READONLY"]);
    assert_eq!(replica.run(&["ZCARD", &list]).int(), 1);
    replica.pause();
    assert_eq!(missed(store.enter_durably(&user, &enter, soon(1)).await.unwrap(), "on 0 of 1 replicas"), entered);
    let all = missed(store.doom_durably(&user, &doom(Which::All), soon(1)).await.unwrap(), "on 0 of 1 replicas");
    assert_eq!(all, Doomed::Doomed(vec![visitor.key.handle()]));
    // Nothing was written.
    assert_eq!(reached(store.enter_durably(&user, &enter, soon(1)).await.unwrap()), Entered::Doomed);
    let other = doom(Which::Only(Visitor::new().key.handle()));
    assert_eq!(reached(store.doom_durably(&user, &other, soon(1)).await.unwrap()), Doomed::Missing);
    replica.resume();
    assert_eq!(reached(store.doom_durably(&user, &doom(Which::All), on(1)).await.unwrap()), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_one_server_the_session_waits_for_its_entry_and_a_revocation_waits_by_itself() {
    let redis = Replicas::start(1);
    let store = patient(&redis.primary().url()).await;
    let (user, visitor) = (ada(), Visitor::new());
    redis.replicas()[0].pause();
    reached(store.enter_durably(&user, &enter(&visitor), soon(1)).await.unwrap());
    assert_eq!(redis.primary().command_count("WAIT"), 0);
    let all = Doom { which: Which::All, not_after: Time::MAX };
    missed(store.doom_durably(&user, &all, soon(1)).await.unwrap(), "on 0 of 1 replicas");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_save_costs_one_command_and_one_round_trip_to_the_replicas_more() {
    const ROUNDS: u32 = 500;
    for replicas in [1, 2] {
        let redis = Replicas::start(usize::try_from(replicas).unwrap());
        let store = patient(&redis.primary().url()).await;
        let visitor = Visitor::new();
        let mut base = visitor.born(&store, &[("n", "0")]).await;
        reached(store.create_durably(&Visitor::new().key, &visitor.create(&[]), on(replicas)).await.unwrap());
        redis.primary().reset_stats();
        let (mut fast, mut durable) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            for (times, wait) in [(&mut fast, None), (&mut durable, Some(on(replicas)))] {
                let save = visitor.merge(base, count("n"));
                let begun = Instant::now();
                match wait {
                    None => drop(store.save(&visitor.key, &save).await.unwrap()),
                    Some(wait) => drop(reached(store.save_durably(&visitor.key, &save, wait).await.unwrap())),
                }
                times.push(begun.elapsed());
                base = save.token.unwrap();
            }
        }
        let counts = redis.primary().command_counts();
        let sent = |name: &str| counts.get(name).copied().unwrap_or_default();
        fast.sort();
        durable.sort();
        let half = fast.len() / 2;
        println!(
            "{ROUNDS} saves of each kind, {replicas} replicas: median {:?} fast, {:?} durable; {} EVALSHA, {} WAIT",
            fast[half],
            durable[half],
            sent("EVALSHA"),
            sent("WAIT")
        );
        assert_eq!((sent("EVALSHA"), sent("WAIT")), (u64::from(ROUNDS) * 2, u64::from(ROUNDS)));
    }
}
