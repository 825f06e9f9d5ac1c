//! Replies that belong to another command: whatever they say, nobody gets another's record, and the connection is remade.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis_session_core::{Error, Kind, Replication, Save, Saved, Store, Stored};
use redis_session_store::RedisStore;
use redis_session_testkit::{Action, Proxy, RedisServer};

use crate::{Visitor, set, until};

struct Behind {
    redis: RedisServer,
    proxy: Proxy,
}

impl Behind {
    fn start() -> Self {
        let redis = RedisServer::start();
        let proxy = Proxy::start(redis.address());
        Self { redis, proxy }
    }

    async fn store(&self) -> RedisStore {
        RedisStore::options(&self.proxy.url()).deadline(Duration::from_secs(2)).connect().await.unwrap()
    }
}

/// A visitor whose record holds the name of its own key, so that whose it is shows.
async fn visitor(store: &RedisStore) -> Visitor {
    let visitor = Visitor::new();
    visitor.born(store, &[("whose", &visitor.name())]).await;
    visitor
}

/// Whether the answer is this visitor's own record; else its error. Anybody else's ends the test.
fn own(visitor: &Visitor, answer: Result<Option<Stored>, Error>) -> Result<bool, Error> {
    Ok(match answer? {
        Some(Stored::Record(record)) => {
            let whose = record.fields.get(b"whose").unwrap();
            assert_eq!(whose, visitor.name().as_bytes(), "another visitor's record");
            true
        }
        _ => false,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn r85_two_reads_whose_replies_are_swapped_are_two_errors_and_nobodys_record() {
    let behind = Behind::start();
    let (one, two) = (behind.store().await, behind.store().await);
    let (a, b) = (visitor(&one).await, visitor(&two).await);
    let swapped = AtomicUsize::new(0);
    behind.proxy.fault(move |command| match command.name() {
        "HGETALL" if swapped.fetch_add(1, Ordering::Relaxed) < 2 => Action::Swap,
        _ => Action::Pass,
    });
    let answers = tokio::join!(one.load(&a.key), two.load(&b.key));
    for (answer, visitor) in [(answers.0, &a), (answers.1, &b)] {
        let error = own(visitor, answer).unwrap_err();
        assert!(error.is_corrupt() && error.to_string().contains("another key"), "{error:?}");
    }
    assert!(own(&a, one.load(&a.key).await).unwrap() && own(&b, two.load(&b.key).await).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn r85_two_writes_whose_replies_are_swapped_are_two_errors_and_each_ran_on_its_own_record() {
    let behind = Behind::start();
    let (one, two) = (behind.store().await, behind.store().await);
    let (a, b) = (Visitor::new(), Visitor::new());
    let (of_a, of_b) = (a.born(&one, &[]).await, b.born(&two, &[]).await);
    let saves = (a.merge(of_a, set("n", "1")), b.merge(of_b, set("n", "2")));
    // The script is known to Redis, so that each write is one command.
    one.save(&a.key, &a.merge(of_a, set("m", "0"))).await.unwrap();
    let swapped = AtomicUsize::new(0);
    behind.proxy.fault(move |command| match command.name() {
        "EVALSHA" if swapped.fetch_add(1, Ordering::Relaxed) < 2 => Action::Swap,
        _ => Action::Pass,
    });
    let answers = tokio::join!(one.save(&a.key, &saves.0), two.save(&b.key, &saves.1));
    for error in [answers.0.unwrap_err(), answers.1.unwrap_err()] {
        assert!(error.is_corrupt() && error.to_string().contains("another key"), "{error:?}");
    }
    // The same bytes again tell that they ran, once and in their place.
    assert!(matches!(one.save(&a.key, &saves.0).await.unwrap(), Saved::Saved { .. }));
    assert!(matches!(two.save(&b.key, &saves.1).await.unwrap(), Saved::Saved { .. }));
    for (visitor, wanted) in [(&a, "1"), (&b, "2")] {
        assert_eq!(behind.redis.run(&["HGET", &visitor.name(), "n"]).text(), wanted);
    }
}

/// From some command on, every reply on the connection is that of the command before it, or of the one after it.
#[tokio::test(flavor = "multi_thread")]
async fn r85_a_connection_whose_replies_shift_serves_nobodys_record_and_is_remade() {
    let table = [
        ("by a reply too many", Action::AnswerAndShift(b"*0\r\n".to_vec())),
        ("by a reply too many, a record's", Action::AnswerAndShift(Vec::new())),
        ("by a reply too few", Action::LoseReply),
    ];
    for (what, shift) in table {
        let behind = Behind::start();
        let store = behind.store().await;
        let mut visitors = Vec::new();
        for _ in 0..16 {
            visitors.push(Arc::new(visitor(&store).await));
        }
        let shift = match shift {
            Action::AnswerAndShift(empty) if empty.is_empty() => {
                Action::AnswerAndShift(record_of(&behind.redis, &visitors[1]))
            }
            other => other,
        };
        let connections = behind.proxy.connections();
        let shifted = AtomicBool::new(false);
        behind.proxy.fault(move |command| match command.name() {
            "HGETALL" if !shifted.swap(true, Ordering::Relaxed) => shift.clone(),
            _ => Action::Pass,
        });
        let (mut own_ones, mut errors, mut unavailable, mut empty) = (0, 0, 0, 0);
        // All at once, so that each has the others' replies before and behind his own.
        let mut round = async || {
            let mut asks = tokio::task::JoinSet::new();
            for visitor in &visitors {
                let (store, visitor) = (store.clone(), visitor.clone());
                asks.spawn(async move { own(&visitor, store.load(&visitor.key).await) });
            }
            let answers = asks.join_all().await;
            let all = answers.iter().all(|answer| matches!(answer, Ok(true)));
            for answer in answers {
                match answer {
                    Ok(true) => own_ones += 1,
                    Ok(false) => empty += 1,
                    Err(error) if error.kind() == Kind::Corrupt => errors += 1,
                    Err(error) => {
                        assert!(error.is_unavailable(), "{what}: {error:?}");
                        unavailable += 1;
                    }
                }
            }
            all
        };
        let mut rounds = 0;
        while !round().await {
            rounds += 1;
            assert!(rounds < 2000, "{what}: it never recovers");
        }
        assert!(behind.proxy.connections() > connections, "{what}: the connection was made anew");
        assert!(errors > 0, "{what}: {own_ones} {errors} {unavailable} {empty}");
        // Only what was put in without a name of its own passed for nothing.
        assert!(empty <= 1, "{what}: {empty}");
    }
}

/// A write that waits for replicas, though there are none.
async fn saved_durably(store: &RedisStore, visitor: &Visitor, save: &Save) -> Result<Saved, Error> {
    let wait = Replication { replicas: 0, within: Duration::from_millis(1) };
    store.save_durably(&visitor.key, save, wait).await.map(|waited| waited.outcome)
}

/// What `save.lua` answers, as bytes.
fn reply_of_save(name: &str) -> Vec<u8> {
    format!("*4\r\n${}\r\n{name}\r\n$5\r\nsaved\r\n:1800000000000\r\n$0\r\n\r\n", name.len()).into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn r85_a_connection_to_wait_on_whose_replies_shift_or_are_anothers_is_not_used_again() {
    let table = [
        ("a wait's reply too many", "WAIT", Action::AnswerAndShift(b":0\r\n".to_vec())),
        ("a reply to another's write", "EVALSHA", Action::Answer(reply_of_save(&Visitor::new().name()))),
    ];
    for (what, command, action) in table {
        let behind = Behind::start();
        let store = behind.store().await;
        let visitor = Visitor::new();
        let save = visitor.merge(visitor.born(&store, &[]).await, set("n", "1"));
        // The script is known to Redis, so that each write is one command, and there is a connection.
        saved_durably(&store, &visitor, &save).await.unwrap();
        let connections = behind.proxy.connections();
        behind.proxy.fault_next(command, action);
        let (mut saves, mut error) = (0, None);
        while error.is_none() {
            error = saved_durably(&store, &visitor, &save).await.err();
            saves += 1;
            assert!(saves < 3, "{what}: no error");
        }
        assert!(error.is_some_and(|error| error.is_corrupt()), "{what}");
        for _ in 0..3 {
            assert!(matches!(saved_durably(&store, &visitor, &save).await.unwrap(), Saved::Saved { .. }), "{what}");
        }
        assert_eq!(behind.proxy.connections(), connections + 1, "{what}: another one, which is kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r85_a_connection_to_wait_on_that_is_in_use_when_another_is_doubted_is_not_used_again() {
    let behind = Behind::start();
    let store = behind.store().await;
    let (one, other) = (Visitor::new(), Visitor::new());
    let save = |visitor: &Visitor, base| visitor.merge(base, set("n", "1"));
    let (of_one, of_other) = (save(&one, one.born(&store, &[]).await), save(&other, other.born(&store, &[]).await));
    saved_durably(&store, &one, &of_one).await.unwrap();
    let (anothers, name, mut first) = (reply_of_save(&Visitor::new().name()), other.name(), true);
    behind.proxy.fault(move |command| match command.name() {
        "WAIT" if std::mem::take(&mut first) => Action::HoldThenSend { after: Duration::MAX, cut: false },
        "EVALSHA" if command.has(&name) => Action::Answer(anothers.clone()),
        _ => Action::Pass,
    });
    let doubt = async {
        behind.proxy.until_held(1).await;
        let error = saved_durably(&store, &other, &of_other).await.unwrap_err();
        assert!(error.is_corrupt(), "{error:?}");
        behind.proxy.release();
    };
    let (held, ()) = tokio::join!(saved_durably(&store, &one, &of_one), doubt);
    assert!(matches!(held.unwrap(), Saved::Saved { .. }));
    let connections = behind.proxy.connections();
    for _ in 0..3 {
        saved_durably(&store, &one, &of_one).await.unwrap();
    }
    assert_eq!(behind.proxy.connections(), connections + 1, "another one, which is kept");
}

/// What Redis says of a record, as bytes.
fn record_of(redis: &RedisServer, visitor: &Visitor) -> Vec<u8> {
    let parts = redis.run(&["HGETALL", &visitor.name()]);
    let mut bytes = format!("*{}\r\n", parts.list().len()).into_bytes();
    for part in parts.list() {
        bytes.extend(format!("${}\r\n", part.bytes().len()).into_bytes());
        bytes.extend(part.bytes());
        bytes.extend(b"\r\n");
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn r85_a_record_that_was_copied_to_another_key_is_an_error_and_costs_no_connection() {
    let behind = Behind::start();
    let store = behind.store().await;
    let (a, b) = (visitor(&store).await, visitor(&store).await);
    behind.redis.run(&["COPY", &a.name(), &b.name(), "REPLACE"]);
    // One for writes that wait is there too.
    let other = Visitor::new();
    let save = other.merge(other.born(&store, &[]).await, set("n", "1"));
    saved_durably(&store, &other, &save).await.unwrap();
    let connections = behind.proxy.connections();
    for _ in 0..20 {
        assert!(own(&b, store.load(&b.key).await).unwrap_err().is_corrupt());
        saved_durably(&store, &other, &save).await.unwrap();
    }
    until("the question whether the connection is in step", async || behind.proxy.count("PING") > 0).await;
    assert!(own(&a, store.load(&a.key).await).unwrap());
    assert_eq!(behind.proxy.connections(), connections);
}
