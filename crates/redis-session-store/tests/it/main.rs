//! The store on a real Redis: the contract, what only Redis can do to a record, faults, and the way to connect.

#![allow(clippy::unwrap_used)]

mod breaker;
mod cluster;
mod connect;
mod deploy;
mod durable;
mod failover;
mod faults;
mod ipv6;
mod load;
mod memory;
mod mixups;
mod persistence;
mod promotion;
mod races;
mod records;
mod remade;
mod replicas;
mod security;
mod sentinel;
mod single;
mod status;

use std::time::Duration;

use bytes::Bytes;
use redis_session_core::{
    Change, Changes, Create, Created, End, Fields, Life, Proof, Random, Reason, Save, SessionId, SessionKey, Step,
    Store, Time, Token, Whose, WishChange,
};
use redis_session_store::RedisStore;
use redis_session_testkit::{RedisServer, Replicas, store_contract};

#[tokio::test(flavor = "multi_thread")]
async fn the_redis_store_keeps_the_contract() {
    let redis = RedisServer::start();
    store_contract(patient(&redis.url()).await, tokio::time::sleep).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_redis_store_keeps_the_contract_on_a_primary_with_replicas() {
    let redis = Replicas::start(2);
    store_contract(patient(&redis.primary().url()).await, tokio::time::sleep).await;
    redis.wait_until_in_sync();
    // Replicas have what the primary has, and nothing outlives it there.
    let on = |server: &RedisServer| server.run(&["DBSIZE"]).int();
    until("the same on all", async || redis.replicas().iter().all(|replica| on(replica) == on(redis.primary()))).await;
}

/// A store that waits for a busy machine: for tests of what is done, not of how long it takes.
async fn patient(url: &str) -> RedisStore {
    let patience = Duration::from_secs(10);
    RedisStore::options(url).deadline(patience).connect_deadline(patience).connect().await.unwrap()
}

const LONG: Life = Life { idle: 600_000, absolute: 3_600_000, touch: 60_000 };

/// One session, and the requests that a visitor of it makes.
struct Visitor {
    id: SessionId,
    key: SessionKey,
}

impl Visitor {
    fn new() -> Self {
        let id = SessionId::random(&Random::system()).unwrap();
        Self { key: id.key(&"main".into()), id }
    }

    /// The key's name in Redis.
    fn name(&self) -> String {
        format!("sess:{}", self.key.to_text())
    }

    fn create(&self, fields: &[(&str, &str)]) -> Create {
        let pairs = fields.iter().map(|(name, value)| (text(name), text(value))).collect();
        Create {
            token: token(),
            not_after: Time::MAX,
            proof: self.id.proof(),
            life: LONG,
            wish: WishChange::default(),
            login: None,
            fields: Fields::from_pairs(pairs),
        }
    }

    async fn born(&self, store: &RedisStore, fields: &[(&str, &str)]) -> Token {
        let create = self.create(fields);
        assert!(matches!(store.create(&self.key, &create).await.unwrap(), Created::Created { .. }));
        create.token
    }

    fn merge(&self, base: Token, changes: Changes) -> Save {
        Save {
            token: Some(token()),
            earlier: Vec::new(),
            not_after: Time::MAX,
            proof: self.id.proof(),
            base,
            merges: true,
            changes,
            step: Step::Keep,
            renews: true,
            wish: WishChange::default(),
            life: LONG,
            limit: 1 << 20,
        }
    }
}

/// By a policy under which nothing lives, so whosever it is.
fn destroy() -> End {
    let life = Life { idle: 0, absolute: 0, touch: 0 };
    End { not_after: Time::MAX, reason: Reason::Destroyed, whose: Whose::Expired(life) }
}

fn token() -> Token {
    Token::random(&Random::system()).unwrap()
}

fn new_proof() -> Proof {
    SessionId::random(&Random::system()).unwrap().proof()
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn set(name: &str, value: &str) -> Changes {
    Changes { clear: false, fields: vec![(text(name), Change::Set(text(value)))] }
}

fn count(name: &str) -> Changes {
    Changes { clear: false, fields: vec![(text(name), Change::Increment(1))] }
}

/// Waits until a condition holds, for at most five seconds.
async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) -> Duration {
    until_within(Duration::from_secs(5), what, condition).await
}

async fn until_within<F: Future<Output = bool>>(most: Duration, what: &str, condition: impl Fn() -> F) -> Duration {
    let start = std::time::Instant::now();
    while !condition().await {
        assert!(start.elapsed() < most, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}
