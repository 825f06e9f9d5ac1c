//! The figures of the main job, each printed and asserted: what many writers at once, lost replies, dropped requests and a
//! Redis that goes away cost a visitor; and of logins, lists of sessions and revocations.
//!
//! Some are shorter by default than they can be: environment variables, named where they are read, make them longer.

#![allow(clippy::print_stdout)]

mod accounts;
mod clicks;
mod commands;
mod cuts;
mod drops;
mod faults;
mod late;
mod lists;
mod outages;
mod processes;
mod revocations;
mod rotations;
mod stores;
mod visitors;
mod writers;

use std::str::FromStr;
use std::time::Duration;

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use redis_session::{Error, RedisSessionLayer, RedisStore, Session};
use redis_session_testkit::Page;
use serde::{Deserialize, Serialize};

/// The deadline where a busy machine must not decide the outcome.
const PATIENT: Duration = Duration::from_secs(20);

/// The state of all visitors here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Visitor {
    visits: u64,
    cart: Vec<u64>,
}

impl Visitor {
    /// What `/read` answered.
    fn on(page: &Page) -> Self {
        assert_eq!(page.status, 200, "{}", page.url);
        serde_json::from_str(&page.body).unwrap()
    }
}

/// What a visitor can do, one path each.
fn paths() -> Router {
    Router::new()
        .route("/untouched", get(async || "hello"))
        .route("/read", get(async |visitor: Session<Visitor>| Json((*visitor).clone())))
        .route("/visit", get(async |mut visitor: Session<Visitor>| visitor.update(|visitor| visitor.visits += 1)))
        .route("/count", get(async |session: Session| session.increment("visits", 1)))
        .route("/push/{item}", get(push))
        .route("/rotate", get(async |session: Session| session.rotate().await))
        .route("/destroy", get(async |session: Session| session.destroy().await))
        .merge(accounts::paths())
}

async fn push(Path(item): Path<u64>, mut visitor: Session<Visitor>) -> Result<(), Error> {
    visitor.update_with(item, |visitor, item| visitor.cart.push(item))
}

fn shop(layer: RedisSessionLayer) -> Router {
    paths().layer(layer)
}

/// A store whose operations may take long: for what is not about time.
async fn patient_store(url: &str) -> RedisStore {
    RedisStore::options(url).deadline(PATIENT).connect().await.unwrap()
}

/// Serves an application over HTTP for as long as the test runs, and tells where.
async fn listen(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    origin
}

/// A number that an environment variable may set.
fn setting<T: FromStr>(variable: &str, default: T) -> T {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")),
        Err(_) => default,
    }
}

/// The value that so many percent of a sorted list do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}
