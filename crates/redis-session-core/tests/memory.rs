//! The store in memory stays under its bound, whatever its sessions are made of.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use redis_session_core::{
    BoxFuture, Clock, Create, Created, End, Ended, Enter, Entered, Error, Fields, Index, Level, Life, LogIn,
    MemoryStore, Random, Reason, SessionId, SessionKey, Store, Time, Token, User, UserKey, Whose, WishChange,
};

const CAPACITY: usize = 1 << 20;
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// What this store does, it does at once.
fn now<A>(mut step: BoxFuture<'_, Result<A, Error>>) -> A {
    match step.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer.unwrap(),
        Poll::Pending => unreachable!("nothing here waits"),
    }
}

fn store() -> MemoryStore {
    MemoryStore::new().clock(Clock::manual()).capacity(CAPACITY)
}

fn realm() -> Arc<str> {
    "main".into()
}

fn key() -> SessionKey {
    SessionId::random(&Random::system()).unwrap().key(&realm())
}

/// Begins a session, with a login if there is a user.
fn begin(store: &MemoryStore, user: Option<&User>, idle: Duration, fields: &[(&str, &str)]) -> SessionKey {
    let random = Random::system();
    let id = SessionId::random(&random).unwrap();
    let key = id.key(&realm());
    let fields = fields.iter().map(|(name, value)| (Bytes::copy_from_slice(name.as_bytes()), value.to_string().into()));
    let login = user.map(|user| LogIn {
        user: user.clone(),
        level: Level::FULL,
        label: Some("Firefox on Linux".repeat(10)),
        waited: Duration::ZERO,
    });
    if let Some(user) = user {
        let entered = now(store.enter(&user.key(&realm()), &enter(&key, idle + MINUTE)));
        assert!(matches!(entered, Entered::Entered { .. }));
    }
    let millis = u64::try_from(idle.as_millis()).unwrap();
    let create = Create {
        token: Token::random(&random).unwrap(),
        not_after: Time::MAX,
        proof: id.proof(),
        life: Life { idle: millis, absolute: millis, touch: 0 },
        wish: WishChange::default(),
        login,
        fields: Fields::from_pairs(fields.collect()),
    };
    assert!(matches!(now(store.create(&key, &create)), Created::Created { .. }));
    key
}

fn enter(key: &SessionKey, life: Duration) -> Enter {
    Enter { session: key.handle(), life, cap: None, age: Duration::ZERO, instead_of: None, not_after: Time::MAX }
}

fn user(id: impl std::fmt::Display) -> (User, UserKey) {
    let user = User::new(id).unwrap();
    let key = user.key(&realm());
    (user, key)
}

/// Begins the nth session, or leaves what is left of one.
type Begin<'a> = &'a dyn Fn(&MemoryStore, u64);

#[test]
fn however_many_sessions_there_are_their_bytes_stay_under_the_bound() {
    let names: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let tiny: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let large = "x".repeat(10_000);
    let shapes: [(&str, Begin<'_>); 6] = [
        ("without a field", &|store, _| drop(begin(store, None, DAY, &[]))),
        ("with a large field", &|store, _| drop(begin(store, None, DAY, &[("page", &large)]))),
        ("with many small fields", &|store, _| drop(begin(store, None, DAY, &tiny))),
        ("of one user each", &|store, nth| drop(begin(store, Some(&user(nth).0), 30 * DAY, &[("cart", "[1,2,3]")]))),
        ("of one user", &|store, _| drop(begin(store, Some(&user("ada").0), 30 * DAY, &[]))),
        ("that have ended", &|store, _| {
            let end = End { not_after: Time::MAX, whose: Whose::Users(user("ada").0), reason: Reason::Revoked };
            assert_eq!(now(store.end(&key(), &end)), Ended::Gone);
        }),
    ];
    for (shape, begin) in shapes {
        let bytes = measure(|| {
            let store = store();
            (0..8_000).for_each(|nth| begin(&store, nth));
            assert!(!store.is_empty() && store.len() < 8_000, "{shape}: {store:?}");
        });
        assert!(bytes.bytes_max < CAPACITY as u64, "{shape}: {bytes:?}");
    }
}

#[test]
fn the_session_that_would_expire_first_makes_room_and_leaves_the_list_of_its_user() {
    let clock = Clock::manual();
    let store = store().clock(clock.clone());
    let (ada, adas) = user("ada");
    let (bob, bobs) = user("bob");
    let kept = begin(&store, Some(&bob), 30 * DAY, &[]);
    let (short, long) = (begin(&store, Some(&ada), DAY, &[]), begin(&store, Some(&ada), 30 * DAY, &[]));
    let mut others = Vec::new();
    while now(store.load(&short)).is_some() {
        clock.advance(Duration::from_secs(1));
        others.push(begin(&store, None, 2 * DAY, &[]));
        assert_eq!(store.len(), others.len() + 2 + usize::from(now(store.load(&short)).is_some()));
    }
    assert_eq!(now(store.sessions(&adas)), [long.handle()]);
    assert_eq!(now(store.standing(&adas, short.handle())), None);
    // Of the others, the oldest ones from now on.
    for _ in 0..others.len() {
        clock.advance(Duration::from_secs(1));
        others.push(begin(&store, None, 2 * DAY, &[]));
    }
    let there: Vec<bool> = others.iter().map(|key| now(store.load(key)).is_some()).collect();
    assert!(there.is_sorted() && there.contains(&true) && there.contains(&false), "{there:?}");
    assert!([&kept, &long].iter().all(|key| now(store.load(key)).is_some()));
    assert_eq!(now(store.sessions(&bobs)), [kept.handle()]);
}

#[test]
fn a_list_has_no_more_sessions_than_there_are() {
    let (store, (ada, adas)) = (store(), user("ada"));
    for _ in 0..8_000 {
        begin(&store, Some(&ada), 30 * DAY, &[]);
    }
    assert_eq!(now(store.sessions(&adas)).len(), store.len());
}
