//! The store behind Sentinels: the contract, failovers by hand and by need, Sentinels that are silent.

#![allow(clippy::print_stdout)] // figures

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis_session_core::Store;
use redis_session_store::RedisStore;
use redis_session_testkit::{RedisServer, Sentinels, slack, store_contract};

use crate::load::Load;
use crate::{Visitor, destroy, until};

const SECOND: Duration = Duration::from_secs(1);

async fn store(sentinels: &Sentinels, deadline: Duration) -> RedisStore {
    let options = RedisStore::options(&sentinels.url()).deadline(deadline).connect_deadline(SECOND * 10);
    let options = match sentinels.sentinel_password() {
        Some(password) => options.sentinel_password(password),
        None => options,
    };
    options.connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_keeps_the_contract_behind_sentinels_with_passwords_on_both() {
    let sentinels =
        Sentinels::options().sentinel_password("of sentinels").start_with(|options| options.password("of-servers"));
    let store = store(&sentinels, SECOND * 10).await;
    assert!(!format!("{store:?}").contains("of-servers"), "{store:?}");
    store_contract(store, tokio::time::sleep).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_told_at_start_with_what_to_write_instead() {
    let sentinels = Sentinels::options().replicas(0).sentinels(1).sentinel_password("secret").start();
    let port = sentinels.sentinels()[0].port();
    let url = |name: &str| format!("redis-sentinel://127.0.0.1:{port}/{name}");
    let wrong = async |options: redis_session_store::RedisStoreOptions, text: &str| {
        let error = options.connect_deadline(SECOND * 2).connect().await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        error
    };
    let known = |url: &str| RedisStore::options(url).sentinel_password("secret");
    let unknown =
        wrong(known(&url("other")), &format!("know no primary \"other\"; they know {}", sentinels.name())).await;
    assert!(unknown.is_config());
    // Not even the password of the servers is told them.
    let of_servers = format!("redis-sentinel://:secret@127.0.0.1:{port}/{}", sentinels.name());
    for url in [url(sentinels.name()), of_servers] {
        let text = "asks for a password: give it with `sentinel_password`";
        assert!(wrong(RedisStore::options(&url), text).await.is_config());
    }
    let guessed = RedisStore::options(&url(sentinels.name())).sentinel_password("guess");
    assert!(wrong(guessed, "those of `sentinel_user` and `sentinel_password`").await.is_config());
    let guarded = Sentinels::options().replicas(0).sentinels(1).start_with(|options| options.password("secret"));
    let to_guarded = |credentials: &str| {
        let port = guarded.sentinels()[0].port();
        RedisStore::options(&format!("redis-sentinel://{credentials}127.0.0.1:{port}/{}", guarded.name()))
    };
    for (credentials, text) in [("", "asks for a password: write :password@"), (":guess@", "refused the user")] {
        assert!(wrong(to_guarded(credentials), text).await.is_config(), "{credentials}");
    }
    let redis = RedisServer::start();
    let none = RedisStore::options(&format!("redis-sentinel://127.0.0.1:{}/mymaster", redis.port()));
    assert!(wrong(none, "is none: write redis://host").await.is_config());
    let nobody = wrong(RedisStore::options("redis-sentinel://127.0.0.1:1/mymaster"), "cannot be reached").await;
    assert!(nobody.is_unavailable());
    let elsewhere = known(&url(sentinels.name())).map_address(|host, _| (host.to_owned(), 1));
    assert!(wrong(elsewhere, "map_address").await.is_unavailable());
}

#[tokio::test(flavor = "multi_thread")]
async fn why_the_primary_cannot_be_used_is_told_at_start_and_to_who_did_not_wait_for_it() {
    let sentinels = Sentinels::options()
        .replicas(0)
        .sentinels(1)
        .start_with(|options| options.user("shop", "secret", "~* &* +@all -role"));
    let by = |user: &str, password: &str| {
        let options = RedisStore::options(&sentinels.url()).user(user).password(password);
        options.connect_deadline(SECOND * 2)
    };
    let without_role = by("shop", "secret").connect().await.unwrap_err();
    assert!(without_role.is_config() && without_role.to_string().ends_with("its user needs +role"), "{without_role}");

    let elsewhere = by("shop", "secret").map_address(|host, _| (host.to_owned(), 1));
    for (options, wanted) in
        [(by("shop", "secret"), "+role"), (by("shop", "guess"), "WRONGPASS"), (elsewhere, "refused")]
    {
        let store = options.start_without_redis().connect().await.unwrap();
        let visitor = Visitor::new();
        until(wanted, async || {
            let errors = [store.ping().await.unwrap_err(), store.load(&visitor.key).await.unwrap_err()];
            errors.iter().all(|error| {
                assert!(error.is_unavailable() && !format!("{error:?}").contains("secret"), "{error:?}");
                std::error::Error::source(error).is_some_and(|cause| cause.to_string().contains(wanted))
            })
        })
        .await;
    }
}

/// What happens to the primary, or to those who watch it.
#[derive(Clone, Copy, Debug)]
enum Fault {
    FailoverByHand,
    PrimaryKilled,
    PrimaryFrozen,
    FirstSentinelFrozenAndPrimaryKilled,
}

#[tokio::test(flavor = "multi_thread")]
async fn r79_the_store_follows_the_primary_and_is_back_before_sentinel_tells_of_it() {
    for fault in
        [Fault::FailoverByHand, Fault::PrimaryKilled, Fault::PrimaryFrozen, Fault::FirstSentinelFrozenAndPrimaryKilled]
    {
        let sentinels = Sentinels::start();
        let deadline = Duration::from_millis(250);
        let store = store(&sentinels, deadline).await;
        let visitors: Vec<_> = (0..4).map(|_| Arc::new(Visitor::new())).collect();
        let load = Load::start(&store, &visitors, Duration::from_millis(4)).await;
        load.goes_on(500).await;
        let old = sentinels.primary();
        let begun = Instant::now();
        match fault {
            Fault::FailoverByHand => sentinels.begin_failover(),
            Fault::PrimaryKilled => old.kill(),
            Fault::PrimaryFrozen => old.pause(),
            Fault::FirstSentinelFrozenAndPrimaryKilled => {
                sentinels.sentinels()[0].pause();
                old.kill();
            }
        }
        sentinels.wait_for_new_primary(old);
        let announced = begun.elapsed();
        load.goes_on(500).await;
        let all = load.end().await;
        let (slowest, gap) = all.iter().fold((Duration::ZERO, Duration::ZERO), |(slowest, gap), (seen, _)| {
            (slowest.max(seen.slowest), gap.max(seen.gap.0))
        });
        let sent: usize = all.iter().map(|(seen, _)| seen.acknowledged.len()).sum();
        println!(
            "{fault:?}: Sentinels agree after {announced:?}; longest time without service {gap:?}, slowest answer \
             {slowest:?}; {} of {sent} acknowledged writes lost",
            all.iter().map(|(_, lost)| lost).sum::<u64>()
        );
        assert!(gap < announced + slack(SECOND), "{fault:?}: {gap:?} without service");
        assert!(slowest < deadline + Duration::from_millis(50) + slack(SECOND * 7 / 10), "{fault:?}: {slowest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_are_heard_of_after_a_failover() {
    let sentinels = Sentinels::start();
    let store = store(&sentinels, SECOND * 10).await;
    let heard = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = heard.clone();
    store.on_end(Arc::new(move |session| {
        count.fetch_add(usize::from(session.is_some()), std::sync::atomic::Ordering::Relaxed);
    }));
    let end_one = async || {
        let visitor = Visitor::new();
        visitor.born(&store, &[]).await;
        store.end(&visitor.key, &destroy()).await.unwrap();
    };
    let subscribed =
        |server: &RedisServer| server.command(&["PUBSUB", "CHANNELS"]).texts().contains(&"sess:ended".to_owned());
    until("the subscription", async || subscribed(sentinels.primary())).await;
    end_one().await;
    until("the end", async || heard.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
    let new = sentinels.failover();
    until("the subscription", async || subscribed(new)).await;
    end_one().await;
    until("another end", async || heard.load(std::sync::atomic::Ordering::Relaxed) == 2).await;
}
