//! The two sides: the same handler under tower-sessions on its Redis store, and under ours, each on a Redis of its own.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use redis_session::{Cookie, IfUnavailable, KeyRing, RedisSessionLayer, RedisStore, SameSite};
use redis_session_interop::tower_sessions::TowerSessionsLayer;
use redis_session_testkit::{Proxy, RedisServer};
use tower_sessions::cookie::SameSite as TheirSameSite;
use tower_sessions::{Expiry, SessionManagerLayer};
use tower_sessions_redis_store::RedisStore as TheirStore;
use tower_sessions_redis_store::fred::prelude::{ClientLike as _, Config, Pool, ReconnectPolicy};

use super::handler::{Gates, router, typed_router};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Theirs,
    /// Their extractor on our layer.
    Ours,
    /// `Session<T>` where a handler counts, else as `Ours`.
    Typed,
}

/// How the application sets sessions up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Setting {
    /// A session ends after 30 minutes without use: what is said of it first in the docs of both.
    HalfAnHour,
    /// After so many seconds.
    Seconds(u32),
    /// The same, and theirs saves with every request (`with_always_save`).
    SecondsAlwaysSave(u32),
    /// The same half an hour, and theirs saves with every request (`with_always_save`).
    AlwaysSave,
    /// The layer of ours is told that the key `user` names who is logged in. Theirs has no such thing.
    Users,
    /// Nothing is set.
    Nothing,
    /// While Redis is away, ours serves visitors as anonymous. Theirs has no such thing.
    Anonymous,
    /// The cookie's name, path and SameSite are set.
    Cookie,
}

/// One side of one case.
pub(super) struct Place {
    pub(super) side: Side,
    pub(super) redis: RedisServer,
    pub(super) proxy: Proxy,
    pub(super) gates: Arc<Gates>,
    pub(super) app: Router,
    /// Another application with sessions, on the same Redis.
    pub(super) other: Router,
    /// The name of the session's cookie.
    pub(super) cookie: &'static str,
}

impl Place {
    /// `deadline` is what Redis may take on our side.
    pub(super) async fn open(side: Side, setting: Setting, deadline: Duration) -> Self {
        let redis = RedisServer::start();
        let proxy = Proxy::start(redis.address());
        let gates = Arc::new(Gates::default());
        let (app, other) = match side {
            Side::Theirs => {
                let pool = pool(&proxy.url()).await;
                (theirs(setting, pool.clone(), &gates), theirs(setting, pool, &gates))
            }
            Side::Ours | Side::Typed => {
                let layer = async || {
                    let store = RedisStore::options(&proxy.url()).deadline(deadline);
                    let store = store.connect_deadline(Duration::from_secs(20)).connect().await.unwrap();
                    RedisSessionLayer::with_store(store, KeyRing::random().unwrap())
                };
                (ours(side, setting, layer().await, &gates), ours(side, setting, layer().await, &gates))
            }
        };
        let cookie = match (setting, side) {
            (Setting::Cookie, _) => "sid",
            (_, Side::Theirs) => "id",
            _ => "__Host-id",
        };
        Self { side, redis, proxy, gates, app, other, cookie }
    }

    /// The Redis keys of sessions.
    pub(super) fn keys(&self) -> Vec<String> {
        self.redis.run(&["KEYS", "*"]).texts()
    }
}

/// As its README has it, but that it connects again, which fred does not by itself.
async fn pool(url: &str) -> Pool {
    let again = ReconnectPolicy::new_constant(0, 50);
    let pool = Pool::new(Config::from_url(url).unwrap(), None, None, Some(again), 6).unwrap();
    pool.init().await.unwrap();
    pool
}

fn theirs(setting: Setting, pool: Pool, gates: &Arc<Gates>) -> Router {
    let layer = SessionManagerLayer::new(TheirStore::new(pool));
    let half_an_hour = Expiry::OnInactivity(time::Duration::minutes(30));
    let seconds = |seconds: u32| Expiry::OnInactivity(time::Duration::seconds(seconds.into()));
    let layer = match setting {
        Setting::Nothing => layer,
        Setting::HalfAnHour | Setting::Users | Setting::Anonymous => layer.with_expiry(half_an_hour),
        Setting::Seconds(few) => layer.with_expiry(seconds(few)),
        Setting::SecondsAlwaysSave(few) => layer.with_expiry(seconds(few)).with_always_save(true),
        Setting::AlwaysSave => layer.with_expiry(half_an_hour).with_always_save(true),
        Setting::Cookie => layer.with_name("sid").with_path("/shop").with_same_site(TheirSameSite::Lax),
    };
    router(gates.clone()).layer(layer)
}

fn ours(side: Side, setting: Setting, layer: RedisSessionLayer, gates: &Arc<Gates>) -> Router {
    let layer = match setting {
        Setting::Nothing | Setting::HalfAnHour | Setting::AlwaysSave | Setting::Users | Setting::Anonymous => layer,
        Setting::Seconds(seconds) | Setting::SecondsAlwaysSave(seconds) => {
            layer.expiry(redis_session::Expiry::idle(Duration::from_secs(seconds.into())))
        }
        Setting::Cookie => layer.cookie(Cookie::named("sid").path("/shop").same_site(SameSite::Lax)),
    };
    let router = if side == Side::Typed { typed_router(gates.clone()) } else { router(gates.clone()) };
    let extractor = match setting {
        Setting::Users => TowerSessionsLayer::new().user("user", |user| user.as_str().map(str::to_owned)),
        _ => TowerSessionsLayer::new(),
    };
    let router = router.layer(extractor);
    match setting {
        Setting::Anonymous => router.layer(Extension(IfUnavailable::Anonymous)).layer(layer),
        _ => router.layer(layer),
    }
}
