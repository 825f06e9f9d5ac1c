//! Connections that live long: they learn that their session has ended, wherever that was.
//!
//! `ENDED_ROUNDS` says how often two servers are tried; default 20.

#![allow(clippy::print_stdout, reason = "a figure is there to be seen")]

use std::time::{Duration, Instant};

use redis_session::{KeyRing, Reason, RedisSessionLayer, RedisStore, Session, Status};
use redis_session_testkit::RedisServer;
use tokio::task::JoinHandle;

use crate::visitor::{Place, Visitor, on_both_stores};

const MINUTE: Duration = Duration::from_secs(60);

/// Of a request that has been answered, as a WebSocket handler holds it.
async fn held(visitor: &Visitor) -> Session {
    visitor.visit(async |session| Ok(session)).await
}

/// Waits for the end, which is begun to be waited for when this returns.
async fn wait(session: Session) -> JoinHandle<Status> {
    let waiting = tokio::spawn(async move { session.ended().await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    waiting
}

async fn soon(waiting: JoinHandle<Status>) -> Status {
    tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("it is told").unwrap()
}

async fn logged_in(place: &Place) -> Visitor {
    let visitor = place.visitor();
    visitor.visit(async |session| session.log_in("ada").await).await;
    visitor
}

#[tokio::test]
async fn r48_a_connection_learns_of_a_logout_a_revocation_and_an_end_by_the_application() {
    on_both_stores(async |place| {
        let one = logged_in(&place).await;
        let waiting = wait(held(&one).await).await;
        one.visit(async |session| session.log_out().await).await;
        assert_eq!(soon(waiting).await, Status::Ended(Reason::LoggedOut));

        let two = logged_in(&place).await;
        let (waiting, other) = (wait(held(&two).await).await, wait(held(&two).await).await);
        let session = held(&two).await;
        assert!(session.is_alive().await.unwrap());
        place.layer.sessions().revoke_all("ada").await.unwrap();
        assert!(!session.is_alive().await.unwrap());
        assert_eq!(
            (soon(waiting).await, soon(other).await),
            (Status::Ended(Reason::Revoked), Status::Ended(Reason::Revoked))
        );
        // Who asks afterwards is told at once.
        assert_eq!(soon(tokio::spawn(async move { session.ended().await })).await, Status::Ended(Reason::Revoked));

        let anonymous = place.visitor();
        anonymous.visit(async |session| session.insert("cart", &["tea"])).await;
        let waiting = wait(held(&anonymous).await).await;
        anonymous.visit(async |session| session.destroy().await).await;
        assert_eq!(soon(waiting).await, Status::Ended(Reason::Destroyed));
    })
    .await;
}

#[tokio::test]
async fn r48_the_connections_of_others_stay() {
    on_both_stores(async |place| {
        let (one, two) = (logged_in(&place).await, logged_in(&place).await);
        let waiting = wait(held(&two).await).await;
        one.visit(async |session| session.log_out().await).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished());
        waiting.abort();
    })
    .await;
}

#[tokio::test]
async fn r48_a_session_goes_on_under_a_new_id_of_its_user_and_not_under_another_s_login() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor.visit(async |session| session.insert("cart", &["tea"])).await;
        let planted = held(&visitor).await;
        visitor.visit(async |session| session.log_in("ada").await).await;
        assert!(!planted.is_alive().await.unwrap());
        let session = held(&visitor).await;
        visitor.visit(async |session| session.rotate().await).await;
        visitor.visit(async |session| session.log_in("ada").await).await;
        assert!(session.is_alive().await.unwrap());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn r48_a_connection_learns_of_a_timeout_by_looking_itself() {
    let place = Place::in_memory();
    let visitor = logged_in(&place).await;
    let session = held(&visitor).await;
    let waiting = tokio::spawn(async move { session.ended().await });
    // The store's clock is not tokio's: it is moved on while the connection waits.
    for _ in 0..31 {
        tokio::time::sleep(MINUTE).await;
        assert!(!waiting.is_finished());
        place.pass(MINUTE);
    }
    tokio::time::sleep(MINUTE).await;
    assert_eq!(waiting.await.unwrap(), Status::Ended(Reason::Expired));
}

#[tokio::test]
async fn nobody_waits_for_the_end_of_what_is_not_there() {
    on_both_stores(async |place| {
        let session = held(&place.visitor()).await;
        assert_eq!(session.ended().await, Status::New);
        assert!(!session.is_alive().await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn r48_while_the_store_fails_nobody_is_told_that_a_session_ended() {
    let redis = RedisServer::start();
    let store = RedisStore::options(&redis.url()).deadline(Duration::from_millis(50)).connect().await.unwrap();
    let place = Place::around(RedisSessionLayer::with_store(store, KeyRing::random().unwrap()), Some(redis));
    let visitor = logged_in(&place).await;
    let session = held(&visitor).await;
    let waiting = wait(session.clone()).await;
    place.redis.as_ref().unwrap().pause();
    assert!(session.is_alive().await.unwrap_err().is_unavailable());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!waiting.is_finished());
    place.redis.as_ref().unwrap().resume();
    let sessions = place.layer.sessions();
    while sessions.revoke_all("ada").await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(matches!(soon(waiting).await, Status::Ended(Reason::Revoked)));
}

/// One server has the connection, another ends the session. Afterwards the subscription's connection is killed before.
#[tokio::test(flavor = "multi_thread")]
async fn r48_news_cross_servers_within_a_second_and_lost_ones_are_late_only() {
    let redis = RedisServer::start();
    let keys = KeyRing::random().unwrap();
    let layer = async || RedisSessionLayer::connect(&redis.url(), keys.clone()).await.unwrap();
    let (here, there) = (Place::around(layer().await, None), layer().await);
    let rounds: usize = std::env::var("ENDED_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    for kills in [false, true] {
        let mut took = Vec::new();
        for _ in 0..rounds {
            let visitor = logged_in(&here).await;
            let waiting = wait(held(&visitor).await).await;
            if kills {
                redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            }
            let began = Instant::now();
            assert_eq!(there.sessions().revoke_all("ada").await.unwrap(), 1);
            let status = tokio::time::timeout(Duration::from_secs(35), waiting).await.unwrap().unwrap();
            assert_eq!(status, Status::Ended(Reason::Revoked));
            took.push(began.elapsed());
            // Whoever logs in within two milliseconds of a revocation is refused.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        took.sort();
        let (p50, p99, most) = (took[rounds / 2], took[rounds * 99 / 100], took[rounds - 1]);
        println!("{rounds} ends, subscription killed before: {kills}: p50 {p50:?}, p99 {p99:?}, at most {most:?}");
        assert!(p99 < if kills { Duration::from_secs(31) } else { Duration::from_secs(1) });
    }
}
