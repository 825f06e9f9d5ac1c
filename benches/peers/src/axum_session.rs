//! axum_session on its Redis pool. It keeps sessions in the process's memory for an hour, and reads Redis only for those that
//! it does not know.

use std::error::Error;

use axum::Router;
use axum::routing::{get, post};
use axum_session::{Session, SessionConfig, SessionLayer, SessionStore};
use axum_session_redispool::SessionRedisPool;
use redis_pool::SingleRedisPool;

use crate::shopper::Shopper;
use crate::untouched;

pub(crate) async fn router(url: &str) -> Result<Router, Box<dyn Error>> {
    let pool = SingleRedisPool::from(redis::Client::open(url)?);
    let store = SessionStore::<SessionRedisPool>::new(Some(pool.into()), SessionConfig::default()).await?;
    Ok(Router::new()
        .route("/begin", post(begin))
        .route("/untouched", get(untouched))
        .route("/read", get(read))
        .route("/write", post(write))
        .layer(SessionLayer::new(store)))
}

async fn begin(session: Session<SessionRedisPool>) {
    let Shopper { name, email, language, visits, cart, seen, voucher, address } = Shopper::example();
    session.set("name", name);
    session.set("email", email);
    session.set("language", language);
    session.set("visits", visits);
    session.set("cart", cart);
    session.set("seen", seen);
    session.set("voucher", voucher);
    session.set("address", address);
}

async fn read(session: Session<SessionRedisPool>) -> String {
    session.get("name").unwrap_or_default()
}

async fn write(session: Session<SessionRedisPool>) -> String {
    let visits = session.get::<u64>("visits").unwrap_or_default() + 1;
    session.set("visits", visits);
    visits.to_string()
}
