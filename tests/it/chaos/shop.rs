//! What a user can do in the chaos, one path each. Each answer tells what its request has loaded.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use redis_session::{Error, RedisSessionLayer, Session, Sessions};
use serde::{Deserialize, Serialize};

/// What a session keeps: each edit in three ways at once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    /// Whose it is, from login to logout.
    pub(super) life: String,
    /// The edits, by their names.
    pub(super) tags: Vec<String>,
    /// How many, by the same closure.
    pub(super) edits: u64,
    /// How many, by an edit that Redis merges.
    pub(super) merged: u64,
}

/// What a request has loaded.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    /// `None`: nobody is logged in.
    pub(super) user: Option<String>,
    /// `None`: there is no session.
    pub(super) handle: Option<String>,
    pub(super) status: String,
    pub(super) kept: Kept,
}

impl Seen {
    fn by(session: &Session<Kept>) -> Result<Self, Error> {
        let (kept, session) = ((**session).clone(), session.session());
        let (handle, status) = (session.handle().map(|handle| handle.to_string()), format!("{:?}", session.status()));
        Ok(Self { user: session.user()?, handle, status, kept })
    }

    fn answer(self) -> Response {
        let status = if self.user.is_some() { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        (status, Json(self)).into_response()
    }
}

pub(super) fn shop(layer: RedisSessionLayer) -> Router {
    Router::new()
        .route("/log-in/{user}/{life}", get(log_in))
        .route("/read", get(async |kept: Session<Kept>| Ok::<_, Error>(Json(Seen::by(&kept)?))))
        .route("/edit/{tag}", get(edit))
        .route("/save/{tag}", get(save))
        .route("/rotate", get(rotate))
        .route("/log-out", get(log_out))
        .route("/revoke/{user}", get(revoke))
        .layer(layer)
}

async fn log_in(Path((user, life)): Path<(String, String)>, mut kept: Session<Kept>) -> Result<Response, Error> {
    kept.update_with(life, |kept, life| *kept = Kept { life: life.clone(), ..Kept::default() })?;
    kept.session().log_in(user).await?;
    Ok(Seen::by(&kept)?.answer())
}

/// Edits; the response itself brings the write.
async fn edit(Path(tag): Path<String>, mut kept: Session<Kept>) -> Result<Response, Error> {
    let seen = Seen::by(&kept)?;
    if seen.user.is_some() {
        kept.session().increment("merged", 1)?;
        kept.update_with(tag, |kept, tag| {
            kept.tags.push(tag.clone());
            kept.edits += 1;
        })?;
    }
    Ok(seen.answer())
}

/// The same, and the handler waits for the write.
async fn save(tag: Path<String>, kept: Session<Kept>) -> Result<Response, Error> {
    let session = kept.session();
    let response = edit(tag, kept).await?;
    if response.status() == StatusCode::OK {
        session.save().await?;
    }
    Ok(response)
}

async fn rotate(kept: Session<Kept>) -> Result<Response, Error> {
    let seen = Seen::by(&kept)?;
    if seen.user.is_some() {
        kept.session().rotate().await?;
    }
    Ok(seen.answer())
}

async fn log_out(kept: Session<Kept>) -> Result<Response, Error> {
    let seen = Seen::by(&kept)?;
    kept.session().log_out().await?;
    Ok(seen.answer())
}

/// Ends all sessions of a user: what somebody who may do that asks for him.
async fn revoke(Path(user): Path<String>, sessions: Sessions) -> Result<String, Error> {
    Ok(sessions.revoke_all(user).await?.to_string())
}
