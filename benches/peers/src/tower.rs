//! tower-sessions on its Redis store, and the same handlers on this project's layer.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use redis_session::{Cookie, KeyRing, RedisSessionLayer, RedisStore};
use redis_session_interop::tower_sessions::TowerSessionsLayer;
use tower_sessions::{Expiry, Session, SessionManagerLayer};
use tower_sessions_redis_store::RedisStore as TheirStore;
use tower_sessions_redis_store::fred::prelude::{ClientLike as _, Config, Pool};

use crate::shopper::Shopper;
use crate::untouched;

/// Half an hour without use, as this project's default; sliding with every request, or with writes only.
pub(crate) async fn router(redis: &str, sliding: bool) -> Result<Router, Box<dyn Error>> {
    // A pool of six, as in its README.
    let pool = Pool::new(Config::from_url(redis)?, None, None, None, 6)?;
    pool.init().await?;
    let layer = SessionManagerLayer::new(TheirStore::new(pool))
        .with_secure(false)
        .with_expiry(Expiry::OnInactivity(time::Duration::minutes(30)))
        .with_always_save(sliding);
    Ok(routes().layer(layer))
}

/// Their extractor on our layer, with default settings but for the deadlines, as `redis` in `benches/http`.
pub(crate) async fn router_on_ours(redis: &str) -> Result<Router, Box<dyn Error>> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let store = RedisStore::options(redis).deadline(PATIENCE).connect_deadline(PATIENCE).connect().await?;
    let layer = RedisSessionLayer::with_store(store, KeyRing::random()?).cookie(Cookie::insecure_for_development());
    Ok(routes().layer(TowerSessionsLayer::new()).layer(layer))
}

fn routes() -> Router {
    Router::new()
        .route("/begin", post(begin))
        .route("/untouched", get(untouched))
        .route("/read", get(read))
        .route("/write", post(write))
}

struct Failed;

impl From<tower_sessions::session::Error> for Failed {
    fn from(_: tower_sessions::session::Error) -> Self {
        Self
    }
}

impl axum::response::IntoResponse for Failed {
    fn into_response(self) -> axum::response::Response {
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

async fn begin(session: Session) -> Result<(), Failed> {
    let Shopper { name, email, language, visits, cart, seen, voucher, address } = Shopper::example();
    session.insert("name", name).await?;
    session.insert("email", email).await?;
    session.insert("language", language).await?;
    session.insert("visits", visits).await?;
    session.insert("cart", cart).await?;
    session.insert("seen", seen).await?;
    session.insert("voucher", voucher).await?;
    session.insert("address", address).await?;
    Ok(())
}

async fn read(session: Session) -> Result<String, Failed> {
    session.get("name").await?.ok_or(Failed)
}

async fn write(session: Session) -> Result<String, Failed> {
    let visits: u64 = session.get::<u64>("visits").await?.ok_or(Failed)? + 1;
    session.insert("visits", visits).await?;
    Ok(visits.to_string())
}
