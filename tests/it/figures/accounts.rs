//! What a user can do, one path each; and a look at all users' sessions from behind.
//!
//! The figures of users are short by default. `PEOPLE_FULL=1` makes them as long as they are to be shown.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Path, Request};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use redis_session::{Error, Session, Sessions};
use redis_session_testkit::{Page, RedisServer};

use super::setting;

/// So many in full, or so many by default.
pub(super) fn rounds(in_full: usize, by_default: usize) -> usize {
    if setting("PEOPLE_FULL", 0) == 1 { in_full } else { by_default }
}

/// Under `/people`: log in and out, list, revoke. Each answers when it began, by the clock that the machine's processes
/// share, and which session it was about or how many ended.
pub(super) fn paths() -> Router {
    Router::new()
        .route("/people/log-in/{user}", get(log_in))
        .route("/people/log-out", get(log_out))
        .route("/people/user", get(async |session: Session| session.user::<String>().map(Option::unwrap_or_default)))
        .route("/people/list/{user}", get(list))
        .route("/people/revoke/{user}/{session}", get(revoke))
        .route("/people/revoke-others", get(revoke_others))
        .route("/people/revoke-all/{user}", get(revoke_all))
}

/// When a handler began, in microseconds, and what it answers.
pub(super) type Told = Json<(u64, String)>;

pub(super) fn told(page: &Page) -> (u64, String) {
    serde_json::from_str(&page.body).unwrap()
}

/// By the clock of `Told`.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// A header: a request waits so many microseconds between what it loads and what it does. Its answer says in the header
/// `ARRIVED` when it had come.
pub(super) const WAITS: &str = "waits";
pub(super) const ARRIVED: &str = "arrived";

pub(super) async fn wait(session: Session, request: Request, next: Next) -> Response {
    let arrived = now();
    let waits = request.headers().get(WAITS).and_then(|micros| micros.to_str().ok()?.parse().ok());
    if let Some(micros) = waits {
        let _ = session.status();
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
    let mut response = next.run(request).await;
    response.headers_mut().insert(ARRIVED, arrived.into());
    response
}

async fn log_in(Path(user): Path<String>, session: Session) -> Result<Told, Error> {
    let began = now();
    session.log_in(user).await?;
    Ok(Json((began, handle(&session))))
}

async fn log_out(session: Session) -> Result<Told, Error> {
    let (began, ended) = (now(), handle(&session));
    session.log_out().await?;
    Ok(Json((began, ended)))
}

async fn list(Path(user): Path<String>, sessions: Sessions) -> Result<Json<Vec<String>>, Error> {
    Ok(Json(sessions.list(user).await?.iter().map(|listing| listing.handle().to_string()).collect()))
}

async fn revoke(Path((user, session)): Path<(String, String)>, sessions: Sessions) -> Result<Told, Error> {
    let began = now();
    Ok(Json((began, sessions.revoke(user, session.parse()?).await?.to_string())))
}

async fn revoke_others(session: Session, sessions: Sessions) -> Result<Told, Error> {
    let began = now();
    sessions.revoke_others(&session).await?;
    Ok(Json((began, handle(&session))))
}

async fn revoke_all(Path(user): Path<String>, sessions: Sessions) -> Result<Told, Error> {
    let began = now();
    Ok(Json((began, sessions.revoke_all(user).await?.to_string())))
}

fn handle(session: &Session) -> String {
    session.handle().map(|handle| handle.to_string()).unwrap_or_default()
}

/// All that Redis has of users.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The records of sessions with a user, by their handles: to which user.
    pub(super) living: BTreeMap<String, String>,
    /// The entries of all lists, by their handles: their scores.
    pub(super) entries: BTreeMap<String, i64>,
    /// Lists that Redis would never drop.
    pub(super) endless: usize,
}

impl Kept {
    pub(super) fn of(redis: &RedisServer) -> Self {
        let mut kept = Self::default();
        for key in redis.run(&["KEYS", "*"]).texts() {
            if key.contains(":user:") {
                kept.endless += usize::from(redis.run(&["PTTL", &key]).int() == -1);
                let list = redis.run(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]).texts();
                let entries = list.chunks(2).filter(|entry| entry[0] != "!");
                kept.entries.extend(entries.map(|entry| (entry[0].clone(), entry[1].parse::<i64>().unwrap())));
            } else if let Some(user) = redis.run(&["HGETALL", &key]).map().get("@user") {
                kept.living.insert(key.rsplit(':').next().unwrap().to_owned(), user.rsplit(' ').next().unwrap().into());
            }
        }
        kept
    }

    /// Living sessions that are in no list.
    pub(super) fn unlisted(&self) -> usize {
        self.living.keys().filter(|session| !self.entries.contains_key(*session)).count()
    }
}
