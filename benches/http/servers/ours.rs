//! This project as an application uses it, on Redis or in memory: default settings, but for the deadlines.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::routing::{MethodRouter, get, post};
use redis_session::{Cookie, Error, KeyRing, MemoryStore, RedisSessionLayer, RedisStore, Session};

use super::{PATIENCE, untouched};
use crate::shopper::Shopper;

pub(crate) async fn on_redis(redis: &str) -> Result<Router, Error> {
    Ok(router(post(begin), layer(redis).await?))
}

/// The same where everybody is logged in, each as a user of his own.
pub(crate) async fn of_users(redis: &str) -> Result<Router, Error> {
    Ok(router(post(begin_as_user), layer(redis).await?))
}

pub(crate) fn in_memory() -> Result<Router, Error> {
    Ok(router(post(begin), RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?)))
}

async fn layer(redis: &str) -> Result<RedisSessionLayer, Error> {
    let store = RedisStore::options(redis).deadline(PATIENCE).connect_deadline(PATIENCE).connect().await?;
    Ok(RedisSessionLayer::with_store(store, KeyRing::random()?))
}

fn router(begin: MethodRouter, layer: RedisSessionLayer) -> Router {
    Router::new()
        .route("/begin", begin)
        .route("/untouched", get(untouched))
        .route("/read", get(read))
        .route("/write", post(write))
        .layer(layer.cookie(Cookie::insecure_for_development()))
}

async fn begin(mut shopper: Session<Shopper>) -> Result<(), Error> {
    shopper.update(|shopper| *shopper = Shopper::example())
}

async fn begin_as_user(mut shopper: Session<Shopper>) -> Result<(), Error> {
    static USERS: AtomicU64 = AtomicU64::new(0);
    shopper.update(|shopper| *shopper = Shopper::example())?;
    shopper.session().log_in(USERS.fetch_add(1, Ordering::Relaxed)).await
}

async fn read(shopper: Session<Shopper>) -> String {
    shopper.name.clone()
}

async fn write(mut shopper: Session<Shopper>) -> Result<String, Error> {
    shopper.update(|shopper| shopper.visits += 1)?;
    Ok(shopper.visits.to_string())
}
