//! This project as an application uses it, on Redis or in memory: default settings, but for the deadlines.

use axum::Router;
use axum::routing::{get, post};
use redis_session::{Cookie, Error, KeyRing, MemoryStore, RedisSessionLayer, RedisStore, Session};

use super::{PATIENCE, untouched};
use crate::shopper::Shopper;

pub(crate) async fn on_redis(redis: &str) -> Result<Router, Error> {
    let store = RedisStore::options(redis).deadline(PATIENCE).connect_deadline(PATIENCE).connect().await?;
    Ok(router(RedisSessionLayer::with_store(store, KeyRing::random()?)))
}

pub(crate) fn in_memory() -> Result<Router, Error> {
    Ok(router(RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?)))
}

fn router(layer: RedisSessionLayer) -> Router {
    Router::new()
        .route("/begin", post(begin))
        .route("/untouched", get(untouched))
        .route("/read", get(read))
        .route("/write", post(write))
        .layer(layer.cookie(Cookie::insecure_for_development()))
}

async fn begin(mut shopper: Session<Shopper>) -> Result<(), Error> {
    shopper.update(|shopper| *shopper = Shopper::example())
}

async fn read(shopper: Session<Shopper>) -> String {
    shopper.name.clone()
}

async fn write(mut shopper: Session<Shopper>) -> Result<String, Error> {
    shopper.update(|shopper| shopper.visits += 1)?;
    Ok(shopper.visits.to_string())
}
