//! Rows of the security requirements that show in Redis itself: what is kept there, and what is read from there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use redis_session_core::{
    Create, Created, End, Ended, Error, KeyRing, Kind, Life, Random, Reason, Save, Saved, SessionId, Step, Store,
    Stored, Time, Whose, WishChange,
};
use redis_session_store::RedisStore;
use redis_session_testkit::{Action, Proxy, RedisServer, store_contract};

use crate::{LONG, Visitor, destroy, patient, set, until};

async fn start() -> (RedisServer, RedisStore) {
    let redis = RedisServer::start();
    let store = patient(&redis.url()).await;
    (redis, store)
}

/// All keys; and all texts in Redis, be they keys, names of fields or values.
fn everything(redis: &RedisServer) -> (Vec<String>, Vec<Vec<u8>>) {
    let keys = redis.run(&["KEYS", "*"]).texts();
    let mut texts: Vec<Vec<u8>> = keys.iter().map(|key| key.clone().into_bytes()).collect();
    for key in &keys {
        texts.extend(redis.run(&["HGETALL", key]).list().iter().map(|part| part.bytes().to_vec()));
    }
    (keys, texts)
}

/// The ways in which bytes may be written down.
fn spellings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut all = vec![bytes.to_vec(), hex.to_uppercase().into(), hex.into()];
    all.extend([&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD].map(|form| form.encode(bytes).into_bytes()));
    all
}

#[tokio::test]
async fn r68_redis_holds_nothing_that_works_as_a_cookie() {
    let (redis, store) = start().await;
    let signer = KeyRing::random().unwrap().signer("main", "__Host-id");
    let mut ids = Vec::new();
    for nth in 0..12 {
        let visitor = Visitor::new();
        let first = visitor.born(&store, &[("cart", "[]")]).await;
        ids.push(visitor.id.clone());
        // A third of them is changed and left, another rotated, the last ended.
        let save = visitor.merge(first, set("name", "\"Ada\""));
        match nth % 3 {
            0 => assert!(matches!(store.save(&visitor.key, &save).await.unwrap(), Saved::Saved { .. })),
            1 => {
                let rotated = visitor.id.rotated(&Random::system()).unwrap();
                let rotate = Save { step: Step::Rotate(rotated.proof()), ..save };
                assert!(matches!(store.save(&visitor.key, &rotate).await.unwrap(), Saved::Saved { .. }));
                ids.push(rotated);
            }
            _ => assert_eq!(store.end(&visitor.key, &destroy()).await.unwrap(), Ended::Ended),
        }
    }
    let (keys, texts) = everything(&redis);
    assert_eq!(keys.len(), 12);

    let find = |secret: &[u8]| texts.iter().any(|text| text.windows(secret.len()).any(|part| part == secret));
    for id in &ids {
        let signed = URL_SAFE_NO_PAD.decode(&signer.sign(id)[1..]).unwrap();
        let id = &signed[4..36];
        assert!(spellings(&id[..16]).iter().any(|half| find(half)), "the half that finds the record is there");
        for secret in [spellings(id), spellings(&id[16..])].concat() {
            assert!(!find(&secret), "{secret:?}");
        }
    }
    // Nor does anything there, or two such things together, pass as a cookie.
    let suffixes = keys.iter().map(|key| key.rsplit(':').next().unwrap().as_bytes().to_vec());
    for suffix in suffixes {
        for text in texts.iter().chain([&Vec::new()]) {
            let both = [suffix.as_slice(), text].concat();
            for value in [both.clone(), [b"1".as_slice(), &both].concat(), text.clone()] {
                assert!(signer.verify(&value).is_err());
            }
        }
    }
}

#[tokio::test]
async fn r69_one_id_in_two_realms_is_two_sessions() {
    let (redis, store) = start().await;
    let id = SessionId::random(&Random::system()).unwrap();
    let [office, shop] = ["office", "shop"].map(|realm| Visitor { key: id.key(&realm.into()), id: id.clone() });
    shop.born(&store, &[("a", "1")]).await;
    assert_eq!(store.load(&office.key).await.unwrap(), None);
    office.born(&store, &[("a", "2")]).await;
    assert_eq!(store.end(&office.key, &destroy()).await.unwrap(), Ended::Ended);
    assert!(matches!(store.load(&shop.key).await.unwrap(), Some(Stored::Record(_))));
    let mut keys = redis.run(&["KEYS", "*"]).texts();
    keys.sort();
    assert_eq!(keys, [&office, &shop].map(|visitor| format!("sess:{}", visitor.key.to_text())));
}

#[tokio::test]
async fn r56_no_timeout_makes_redis_fail_or_a_key_outlive_its_deadline() {
    let (redis, store) = start().await;
    let extremes = [0, 1, 99, 999, 1000, u64::from(u32::MAX), 1 << 53, i64::MAX as u64, u64::MAX];
    let idle = |ms| WishChange { idle: Some(Some(ms)), remember: None };
    let remember = |ms| WishChange { idle: None, remember: Some(Some(ms)) };
    let lives = extremes.iter().flat_map(|one| {
        extremes.iter().flat_map(move |two| {
            let life = Life { idle: *one, absolute: *two, touch: *one };
            [(WishChange::default(), life), (idle(*two), life), (remember(*two), life), (remember(*two), LONG)]
        })
    });
    for (wish, life) in lives {
        let visitor = Visitor::new();
        let create = Create { wish, life, ..visitor.create(&[("a", "1")]) };
        let Created::Created { at } = store.create(&visitor.key, &create).await.unwrap() else { panic!("{life:?}") };
        let save = Save { life, wish, ..visitor.merge(create.token, set("a", "2")) };
        let saved = store.save(&visitor.key, &save).await.unwrap();
        assert!(matches!(saved, Saved::Saved { .. } | Saved::Gone), "{wish:?} {life:?}: {saved:?}");
        let touched = store.save(&visitor.key, &Save { token: None, wish: WishChange::default(), ..save }).await;
        assert!(matches!(touched, Ok(Saved::Saved { .. } | Saved::Gone)), "{wish:?} {life:?}: {touched:?}");
        let left = redis.run(&["PTTL", &visitor.name()]).int();
        let absolute = wish.remember.flatten().unwrap_or(life.absolute);
        // -2: it is gone. -1 would be a key without an end.
        assert!(left == -2 || left >= 0 && left as u64 <= absolute, "{wish:?} {life:?}: {left} of {at:?}");
        let end = End { reason: Reason::Expired, whose: Whose::Expired(life), ..destroy() };
        let ended = store.end(&visitor.key, &end).await;
        assert!(matches!(ended, Ok(Ended::Gone | Ended::Alive | Ended::Ended)), "{wish:?} {life:?}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r80_the_scripts_that_are_sent_are_six_constant_texts_whatever_they_work_on() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let (hashes, texts) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(Mutex::new(BTreeSet::new())));
    let (sent, loaded) = (hashes.clone(), texts.clone());
    proxy.fault(move |command| {
        let of = match command.name() {
            "EVALSHA" => &sent,
            "EVAL" => &loaded,
            _ => return Action::Pass,
        };
        of.lock().unwrap().insert(command.arg(0));
        // One key, and everything else after it.
        assert_eq!(command.arg(1), "1");
        Action::Pass
    });
    store_contract(patient(&proxy.url()).await, tokio::time::sleep).await;
    let (hashes, texts) = (hashes.lock().unwrap(), texts.lock().unwrap());
    assert_eq!(hashes.len(), 6, "{hashes:?}");
    let known: BTreeSet<String> = texts.iter().map(|text| redis.run(&["SCRIPT", "LOAD", text]).text()).collect();
    assert_eq!(known, *hashes);
}

#[tokio::test(flavor = "multi_thread")]
async fn r82_a_session_that_redis_evicts_is_gone_and_never_an_error_or_a_half() {
    for policy in ["allkeys-lru", "volatile-lru", "volatile-ttl"] {
        let redis = RedisServer::start();
        let used = redis.run(&["INFO", "memory"]).text();
        let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        // Room for about a thousand of them.
        redis.run(&["CONFIG", "SET", "maxmemory", &(used.parse::<u64>().unwrap() + (2 << 20)).to_string()]);
        redis.run(&["CONFIG", "SET", "maxmemory-policy", policy]);
        let store = patient(&redis.url()).await;
        let large = "x".repeat(1024);
        let mut visitors = Vec::new();
        for _ in 0..3000 {
            let visitor = Visitor::new();
            let first = visitor.born(&store, &[("a", &large), ("b", &large)]).await;
            visitors.push((visitor, first));
        }
        let (mut alive, mut gone) = (0, 0);
        for (visitor, first) in &visitors {
            let save = visitor.merge(*first, set("c", "1"));
            match store.load(&visitor.key).await.unwrap() {
                Some(Stored::Record(record)) => {
                    assert_eq!(record.fields.get(b"a"), record.fields.get(b"b"));
                    assert_eq!(record.fields.get(b"a").unwrap(), large.as_bytes());
                    alive += 1;
                    // It may be evicted between the two.
                    let saved = store.save(&visitor.key, &save).await.unwrap();
                    assert!(matches!(saved, Saved::Saved { .. } | Saved::Gone), "{saved:?}");
                }
                None => {
                    gone += 1;
                    assert_eq!(store.save(&visitor.key, &save).await.unwrap(), Saved::Gone);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(alive > 100 && gone > 1000, "{policy}: {alive} alive, {gone} gone");
    }
}

/// The contents of the field `@`, with some bytes put in, taken out or replaced, or made of words like its own.
fn metas(good: String) -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<String> = good.split(' ').map(str::to_owned).collect();
    let odd =
        ["", "-", "--", "5-", "0", "01", "1e3", "0x10", "9007199254740992", "99999999999999999999999", "nan", "inf"];
    let word = prop_oneof![select(words), select(odd.to_vec()).prop_map(str::to_owned)];
    let rewritten = vec(word, 7..11).prop_map(|words| words.join(" ").into_bytes());
    let edits = vec((any::<Index>(), any::<u8>(), 0..3), 1..4);
    let edited = edits.prop_map(move |edits| {
        let mut bytes = good.clone().into_bytes();
        for (place, byte, what) in edits {
            let at = place.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    });
    prop_oneof![rewritten, edited]
}

#[tokio::test]
async fn r72_r90_no_stored_text_makes_a_script_fail() {
    let (redis, store) = start().await;
    let mut runner = TestRunner::deterministic();
    let visitor = Visitor::new();
    let first = visitor.born(&store, &[("a", "1")]).await;
    let good = redis.run(&["HGET", &visitor.name(), "@"]).text();
    let strategy = metas(good);
    let (mut refused, mut served) = (0, 0);
    for _ in 0..2_000 {
        let meta = strategy.new_tree(&mut runner).unwrap().current();
        let plant = || {
            redis.run(&["DEL", &visitor.name()]);
            redis.run(&[b"HSET".as_slice(), visitor.name().as_bytes(), b"a", b"1", b"@", &meta]);
        };
        plant();
        let loaded = store.load(&visitor.key).await.map(|_| ());
        let edit = Save { merges: false, ..visitor.merge(first, set("a", "2")) };
        let saved = store.save(&visitor.key, &edit).await.map(|_| ());
        plant();
        let touched = store.save(&visitor.key, &Save { token: None, ..edit }).await.map(|_| ());
        plant();
        let created = store.create(&visitor.key, &visitor.create(&[])).await.map(|_| ());
        let ended = store.end(&visitor.key, &End { whose: Whose::Expired(LONG), ..destroy() }).await.map(|_| ());
        plant();
        redis.run(&[b"HSET".as_slice(), visitor.name().as_bytes(), b"@user", &meta]);
        let arrived = End { whose: Whose::ArrivedBefore(Time::MAX), ..destroy() };
        let revoked = store.end(&visitor.key, &arrived).await.map(|_| ());
        for answer in [&loaded, &saved, &touched, &created, &ended, &revoked] {
            let fine = |error: &Error| error.kind() == Kind::Corrupt;
            assert!(answer.as_ref().err().is_none_or(fine), "{answer:?} of {}", String::from_utf8_lossy(&meta));
        }
        *if loaded.is_ok() { &mut served } else { &mut refused } += 1;
    }
    assert!(refused > 1_000 && served > 20, "{refused} refused, {served} served");
}

/// The limit is kept at every write, so such a record was planted by somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn r73_a_planted_value_of_100_mb_is_given_up_in_time_and_the_others_are_served_again() {
    let redis = RedisServer::start();
    let store = RedisStore::connect(&redis.url()).await.unwrap();
    let (quiet, planted) = (Visitor::new(), Visitor::new());
    quiet.born(&store, &[("a", "1")]).await;
    let first = planted.born(&store, &[]).await;
    let value = Bytes::from(vec![b'x'; 100 << 20]);
    redis.run(&[Bytes::from("HSET"), planted.name().into(), "a".into(), value]);
    for _ in 0..3 {
        let start = Instant::now();
        let loaded = store.load(&planted.key).await;
        // A fast machine may get it in time; no machine waits longer.
        assert!(loaded.is_ok() || loaded.is_err_and(|error| error.is_unavailable()));
        // The deadline, and what a busy machine may add to it with so many bytes.
        assert!(start.elapsed() < Duration::from_millis(250 + 750), "{:?}", start.elapsed());
        until("the next answer", async || store.load(&quiet.key).await.is_ok()).await;
    }
    // It can still be ended, and is small enough then.
    until("the end", async || store.end(&planted.key, &destroy()).await.is_ok()).await;
    let save = planted.merge(first, set("b", "1"));
    assert!(matches!(store.save(&planted.key, &save).await.unwrap(), Saved::Ended(_)));
    assert!(redis.memory_of(&planted.name()) < 1024);
}
