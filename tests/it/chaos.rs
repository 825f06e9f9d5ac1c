//! A cluster whose servers die, freeze, hand over, are cut off and move slots; two servers of an application before it;
//! and users who log in, write, rotate and log out: every answer is compared with what the ones before it allow.
//!
//! Faults happen for `CHAOS_SECONDS`, 25 by default, with writes that wait for replicas and with writes that do not; and
//! for two fifths of that where no replica is to take over. They are drawn by lot from `CHAOS_SEED`, which is printed:
//! the same seed gives the same faults in the same order and the same wishes of the users, not the same moments.

#![allow(clippy::print_stdout)] // figures

mod faults;
mod life;
mod report;
mod shop;
mod user;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use fastrand::Rng;
use redis_session::{Durability, KeyRing, RedisSessionLayer, RedisStore};
use redis_session_testkit::Cluster;
use tokio::task::JoinSet;
use tower::{ServiceExt, service_fn};

use faults::Fault;
use report::Chaos;
use user::User;

const USERS: usize = 50;
const SECOND: Duration = Duration::from_secs(1);
/// How long everybody goes on after the last fault: what failed is tried again, and must succeed.
const CALM: Duration = Duration::from_secs(4);

/// On the one replica of each primary.
const ON_ALL: Durability = Durability::Replicated { replicas: 1, within: Duration::from_millis(300) };

#[tokio::test(flavor = "multi_thread")]
async fn r83_r85_r86_in_all_chaos_nobody_gets_what_is_anothers_and_only_a_failover_loses_anything() {
    let chaos = chaos(&Fault::ALL, seconds(), Durability::Fast).await;
    chaos.nothing_is_wrong();
    chaos.every_loss_is_a_failover_s();
    assert!(chaos.losses().next().is_some(), "what a primary had ahead of its replica is lost, and that is seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn r38_r84_r88_in_all_chaos_what_was_on_all_replicas_when_it_was_acknowledged_is_lost_with_no_server() {
    let chaos = chaos(&Fault::ALL, seconds(), ON_ALL).await;
    chaos.nothing_is_wrong();
    chaos.nothing_acknowledged_is_lost();
    chaos.every_loss_is_a_failover_s();
}

#[tokio::test(flavor = "multi_thread")]
async fn r38_where_no_replica_takes_over_nothing_is_lost_and_no_session_comes_back() {
    let chaos = chaos(&Fault::WITHOUT_FAILOVER, seconds() * 2 / 5, Durability::Fast).await;
    chaos.nothing_is_wrong();
    // A busy machine may bring about one all the same.
    chaos.every_loss_is_a_failover_s();
}

fn seconds() -> u64 {
    setting("CHAOS_SECONDS", 25)
}

fn setting(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")),
        Err(_) => default,
    }
}

/// One of two servers of the application, by lot, for each request.
async fn application(cluster: &Cluster, durability: Durability) -> Router {
    let (keys, mut servers) = (KeyRing::random().unwrap(), Vec::new());
    for _ in 0..2 {
        let store = RedisStore::options(&cluster.url()).connect_deadline(20 * SECOND).connect().await.unwrap();
        servers.push(shop::shop(RedisSessionLayer::with_store(store, keys.clone()).durability(durability)));
    }
    let server = move |request: Request| servers[fastrand::usize(..servers.len())].clone().oneshot(request);
    Router::new().fallback_service(service_fn(server))
}

async fn chaos(faults: &'static [Fault], seconds: u64, durability: Durability) -> Chaos {
    let seed = setting("CHAOS_SEED", fastrand::u64(..1 << 32));
    println!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}, {durability:?}");
    let options = Cluster::options().node_timeout(SECOND).without_full_coverage().lines();
    let cluster = Arc::new(tokio::task::spawn_blocking(move || options.start()).await.unwrap());
    let (app, stop) = (application(&cluster, durability).await, Arc::new(AtomicBool::new(false)));
    let mut users = JoinSet::new();
    for number in 0..USERS {
        users.spawn(User::new(number, app.clone(), seed, stop.clone(), durability).live());
    }
    let (of_faults, until) = (cluster.clone(), Instant::now() + Duration::from_secs(seconds));
    let torment = move || faults::torment(&of_faults, faults, Rng::with_seed(seed), until);
    let happened = tokio::task::spawn_blocking(torment).await.unwrap();
    let over = Instant::now();
    tokio::time::sleep(CALM).await;
    stop.store(true, Ordering::Relaxed);
    let mut users = users.join_all().await;
    for user in &mut users {
        user.look_back().await;
    }
    let chaos = Chaos { cluster, users, happened, over };
    chaos.print();
    chaos
}
