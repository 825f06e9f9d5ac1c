//! What can be at a session's key in Redis, and for how long.

use std::time::Duration;

use redis_session_core::{End, Ended, Error, Life, Reason, Save, Saved, Store, Stored, Whose, WishChange};
use redis_session_store::RedisStore;
use redis_session_testkit::RedisServer;

use crate::{LONG, Visitor, destroy, patient, set, token};

async fn start() -> (RedisServer, RedisStore) {
    let redis = RedisServer::start();
    let store = patient(&redis.url()).await;
    (redis, store)
}

/// No operation takes what is at the key, and none changes it.
async fn is_refused(redis: &RedisServer, store: &RedisStore, visitor: &Visitor, create_says: &str) {
    let dump = || redis.run(&["DUMP", &visitor.name()]);
    let before = dump();
    let save = visitor.merge(token(), set("a", "2"));
    let corrupt = |error: Error| assert!(error.is_corrupt(), "{error}");
    corrupt(store.load(&visitor.key).await.unwrap_err());
    corrupt(store.save(&visitor.key, &save).await.unwrap_err());
    corrupt(store.save(&visitor.key, &Save { token: None, ..save }).await.unwrap_err());
    corrupt(store.end(&visitor.key, &destroy()).await.unwrap_err());
    let created = store.create(&visitor.key, &visitor.create(&[])).await;
    assert_eq!(created.map_or_else(|error| format!("{:?}", error.kind()), |there| format!("{there:?}")), create_says);
    assert_eq!(dump(), before);
}

#[tokio::test]
async fn r72_what_is_not_a_record_is_refused_and_left_alone() {
    let (redis, store) = start().await;
    let strange = Visitor::new();
    redis.run(&["SET", &strange.name(), "somebody else's"]);
    is_refused(&redis, &store, &strange, "Corrupt").await;
    redis.run(&["DEL", &strange.name()]);
    redis.run(&["HSET", &strange.name(), "a", "1"]);
    is_refused(&redis, &store, &strange, "Exists").await;
    for meta in ["", "nonsense", "2 a b c", "1 AAAAAA x y z", &"x".repeat(100)] {
        redis.run(&["HSET", &strange.name(), "@", meta]);
        is_refused(&redis, &store, &strange, "Exists").await;
    }
}

#[tokio::test]
async fn r85_the_record_of_another_key_is_refused() {
    let (redis, store) = start().await;
    let (owner, other) = (Visitor::new(), Visitor::new());
    owner.born(&store, &[("secret", "1")]).await;
    redis.run(&["COPY", &owner.name(), &other.name()]);
    is_refused(&redis, &store, &other, "Exists").await;
    assert!(store.load(&owner.key).await.is_ok());
}

#[tokio::test]
async fn r54_a_persisted_key_is_gone_at_its_deadline_all_the_same() {
    let (redis, store) = start().await;
    let visitor = Visitor::new();
    let life = Life { idle: 100, ..LONG };
    let create = redis_session_core::Create { life, ..visitor.create(&[("a", "1")]) };
    store.create(&visitor.key, &create).await.unwrap();
    redis.run(&["PERSIST", &visitor.name()]);
    tokio::time::sleep(Duration::from_millis(150)).await;
    let save = Save { life, ..visitor.merge(create.token, set("a", "2")) };
    assert_eq!(store.save(&visitor.key, &save).await.unwrap(), Saved::Gone);
    assert_eq!(store.save(&visitor.key, &Save { token: None, ..save }).await.unwrap(), Saved::Gone);
    assert_eq!(redis.run(&["HGET", &visitor.name(), "a"]).text(), "1");
    let end = End { reason: Reason::Expired, whose: Whose::Expired(life), ..destroy() };
    assert_eq!(store.end(&visitor.key, &end).await.unwrap(), Ended::Ended);
    assert!(matches!(store.load(&visitor.key).await.unwrap(), Some(Stored::Ended(_))));
}

#[tokio::test]
async fn r55_a_key_without_an_end_gets_one_with_the_next_touch() {
    let (redis, store) = start().await;
    let visitor = Visitor::new();
    let first = visitor.born(&store, &[("a", "1")]).await;
    redis.run(&["PERSIST", &visitor.name()]);
    assert_eq!(redis.run(&["PTTL", &visitor.name()]).int(), -1);
    let touch = Save { token: None, ..visitor.merge(first, Default::default()) };
    assert!(matches!(store.save(&visitor.key, &touch).await.unwrap(), Saved::Saved { .. }));
    assert!((1..=660_000).contains(&redis.run(&["PTTL", &visitor.name()]).int()));
}

#[tokio::test]
async fn keys_live_as_long_as_the_rules_say() {
    let (redis, store) = start().await;
    let (minute, day) = (60_000, 86_400_000);
    let far = Life { idle: 30 * minute, absolute: 1000 * day, touch: minute };
    let idle = |ms| WishChange { idle: Some(Some(ms)), remember: None };
    let remember = |ms| WishChange { idle: None, remember: Some(Some(ms)) };
    let table = [
        (WishChange::default(), far, 31 * minute),
        (WishChange::default(), Life { touch: 1, ..far }, 30 * minute + 1),
        (WishChange::default(), Life { idle: 105, touch: minute, ..far }, 115),
        (WishChange::default(), Life { absolute: 20 * minute, ..far }, 20 * minute),
        (idle(5 * minute), far, 5 * minute + 30_000),
        (idle(500 * day), far, 400 * day + minute),
        (idle(u64::MAX), far, 400 * day + minute),
        (remember(30 * day), Life { idle: 1, absolute: 1, touch: 1 }, 30 * day),
    ];
    for (wish, life, wanted) in table {
        let visitor = Visitor::new();
        let create = redis_session_core::Create { life, wish, ..visitor.create(&[]) };
        store.create(&visitor.key, &create).await.unwrap();
        let left = || u64::try_from(redis.run(&["PTTL", &visitor.name()]).int()).unwrap();
        assert!((wanted.saturating_sub(2000)..=wanted).contains(&left()), "{wish:?} {life:?}: {}", left());
        let Some(Stored::Record(record)) = store.load(&visitor.key).await.unwrap() else { panic!("{wish:?} {life:?}") };
        let deadline = life.deadline(record.created, record.seen, &record.wishes).as_millis();
        assert_eq!(u64::try_from(redis.run(&["PEXPIRETIME", &visitor.name()]).int()).unwrap(), deadline);
    }
    let visitor = Visitor::new();
    visitor.born(&store, &[("a", "1")]).await;
    store.end(&visitor.key, &destroy()).await.unwrap();
    assert!((58_000..=60_000).contains(&redis.run(&["PTTL", &visitor.name()]).int()));
    let hash = redis.run(&["HGETALL", &visitor.name()]).map();
    assert!(hash.len() == 1 && hash["@ended"].starts_with("destroyed 1"), "{hash:?}");
}

#[tokio::test]
async fn a_name_of_our_own_is_refused_before_anything_is_sent() {
    let (redis, store) = start().await;
    let visitor = Visitor::new();
    assert!(store.create(&visitor.key, &visitor.create(&[("@", "1")])).await.unwrap_err().is_field());
    let first = visitor.born(&store, &[]).await;
    let save = visitor.merge(first, set("@ended", "destroyed 1"));
    assert!(store.save(&visitor.key, &save).await.unwrap_err().is_field());
    assert_eq!(redis.run(&["HLEN", &visitor.name()]).int(), 1);
}

#[tokio::test]
async fn a_clear_leaves_what_newer_versions_keep() {
    let (redis, store) = start().await;
    let visitor = Visitor::new();
    let first = visitor.born(&store, &[("a", "1")]).await;
    redis.run(&["HSET", &visitor.name(), "@newer", "7"]);
    let clear = redis_session_core::Changes { clear: true, ..set("b", "2") };
    store.save(&visitor.key, &visitor.merge(first, clear)).await.unwrap();
    let hash = redis.run(&["HGETALL", &visitor.name()]).map();
    assert_eq!(hash.keys().collect::<Vec<_>>(), ["@", "@newer", "b"]);
}
