//! The one handler of both sides: it carries out a request's body, word by word, on a `tower_sessions::Session`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use redis_session::Session as Ours;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::{Barrier, Semaphore};
use tower_sessions::session::Error;
use tower_sessions::{Expiry, Session};

/// The header that says which gate a request waits at.
pub(super) const GATE: &str = "x-gate";
/// The keys that `keys` looks for: theirs has no list of them.
const KEYS: [&str; 6] = ["a", "b", "c", "d", "", "two words, ü"];

/// What requests meet at.
#[derive(Default)]
pub(super) struct Gates {
    gates: Mutex<HashMap<String, Arc<Gate>>>,
    /// Where all requests of one step wait for each other. `None`: they are not together.
    together: Mutex<Option<Arc<Barrier>>>,
}

/// Where one request stops until it is told to go on.
pub(super) struct Gate {
    pub(super) arrived: Semaphore,
    pub(super) open: Semaphore,
}

impl Gates {
    pub(super) fn gate(&self, name: &str) -> Arc<Gate> {
        let new = || Arc::new(Gate { arrived: Semaphore::new(0), open: Semaphore::new(0) });
        self.gates.lock().unwrap().entry(name.to_owned()).or_insert_with(new).clone()
    }

    pub(super) fn gather(&self, requests: usize) {
        *self.together.lock().unwrap() = Some(Arc::new(Barrier::new(requests)));
    }

    async fn wait_at(&self, name: &str) {
        let gate = self.gate(name);
        gate.arrived.add_permits(1);
        gate.open.acquire().await.unwrap().forget();
    }

    async fn meet(&self) {
        let barrier = self.together.lock().unwrap().clone();
        barrier.expect("requests that meet are sent together").wait().await;
    }
}

/// The handler, at every path.
pub(super) fn router(gates: Arc<Gates>) -> Router {
    let handler = async |State(gates): State<Arc<Gates>>, session: Session, headers: HeaderMap, body: String| {
        let at = headers.get(GATE).and_then(|gate| gate.to_str().ok()).unwrap_or_default();
        Work { gates: &gates, session: &session, gate: at, said: Vec::new() }.carry_out(&body).await
    };
    Router::new().fallback(post(handler)).with_state(gates)
}

/// The same, but that it counts as one does with `Session<T>`.
pub(super) fn typed_router(gates: Arc<Gates>) -> Router {
    #[derive(Clone, Default, Serialize, Deserialize)]
    #[serde(default)]
    struct Counts {
        a: u64,
    }
    let count = async |State(gates): State<Arc<Gates>>, mut counts: Ours<Counts>| {
        gates.meet().await;
        counts.update(|counts| counts.a += 1)
    };
    Router::new().route("/count", post(count)).with_state(gates.clone()).merge(router(gates))
}

struct Work<'a> {
    gates: &'a Gates,
    session: &'a Session,
    gate: &'a str,
    said: Vec<String>,
}

/// How the handler ends before its last word.
enum Early {
    /// An error of theirs, which the handler answers with a 500, as one does.
    Failed,
    Status(StatusCode),
}

impl From<Error> for Early {
    fn from(_: Error) -> Self {
        Self::Failed
    }
}

impl Work<'_> {
    async fn carry_out(mut self, body: &str) -> Response {
        let mut status = StatusCode::OK;
        for word in body.split(';').map(str::trim).filter(|word| !word.is_empty()) {
            match self.word(word).await {
                Ok(()) => {}
                Err(Early::Failed) => return (StatusCode::INTERNAL_SERVER_ERROR, "an error").into_response(),
                Err(Early::Status(of_answer)) => status = of_answer,
            }
        }
        (status, self.said.join(", ")).into_response()
    }

    fn say(&mut self, what: impl Into<String>) {
        self.said.push(what.into());
    }

    fn say_value(&mut self, value: Option<Value>) {
        self.say(value.map_or_else(|| "none".to_owned(), |value| value.to_string()));
    }

    async fn word(&mut self, word: &str) -> Result<(), Early> {
        let session = self.session;
        let (verb, rest) = word.split_once(' ').unwrap_or((word, ""));
        let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
        match verb {
            "get" => self.say_value(session.get_value(key).await?),
            "number" => match session.get::<u64>(key).await {
                Err(Error::SerdeJson(_)) => self.say("not a number"),
                number => self.say_value(number?.map(Value::from)),
            },
            "insert" => session.insert_value(key, serde_json::from_str(value).unwrap()).await.map(drop)?,
            "replace" => self.say_value(session.insert_value(key, serde_json::from_str(value).unwrap()).await?),
            "remove" => self.say_value(session.remove_value(key).await?),
            "count" => {
                let count: u64 = session.get(key).await?.unwrap_or_default();
                self.gates.meet().await;
                session.insert(key, count + 1).await?;
            }
            "many" => {
                for n in 0..value.parse().unwrap() {
                    session.insert(&format!("{key}{n}"), n).await?;
                }
            }
            "how-many" => {
                let (mut there, all) = (0, value.parse::<u32>().unwrap());
                for n in 0..all {
                    there += u32::from(session.get_value(&format!("{key}{n}")).await?.is_some());
                }
                self.say(format!("{there} of {all} keys"));
            }
            "large" => session.insert(key, "x".repeat(value.parse().unwrap())).await?,
            "deep" => session.insert_value(key, deep(value.parse().unwrap())).await.map(drop)?,
            "not-a-number" => session.insert(key, f64::NAN).await?,
            "how-long" => {
                let long = session.get_value(key).await?.map_or(0, |value| value.to_string().len());
                self.say(format!("{long} bytes"));
            }
            "clear" => session.clear().await,
            "flush" => session.flush().await?,
            "delete" => session.delete().await?,
            "cycle" => session.cycle_id().await?,
            "save" => session.save().await?,
            "load" => session.load().await?,
            "inactivity" => session.set_expiry(Some(Expiry::OnInactivity(seconds(key)))),
            "until" => session.set_expiry(Some(Expiry::AtDateTime(OffsetDateTime::now_utc() + seconds(key)))),
            "for-ever" => session.set_expiry(Some(Expiry::AtDateTime(time::PrimitiveDateTime::MAX.assume_utc()))),
            "browser-end" => session.set_expiry(Some(Expiry::OnSessionEnd)),
            "id" => self.say(if session.id().is_some() { "an id" } else { "no id" }),
            // For the test's eyes: it replaces ids by words.
            "name" => self.say(session.id().map_or_else(|| "no id".to_owned(), |id| id.to_string())),
            "empty" => self.say(if session.is_empty().await { "empty" } else { "not empty" }),
            "modified" => self.say(if session.is_modified() { "modified" } else { "not modified" }),
            "age" => self.say(super::script::span(session.expiry_age().whole_seconds())),
            "keys" => self.keys().await?,
            "wait" => self.gates.wait_at(self.gate).await,
            "meet" => self.gates.meet().await,
            "status" => return Err(Early::Status(key.parse().unwrap())),
            "panic" => panic!("a handler that panics"),
            _ => panic!("no such word: {word}"),
        }
        Ok(())
    }

    async fn keys(&mut self) -> Result<(), Error> {
        let mut there = Vec::new();
        for key in KEYS {
            if let Some(value) = self.session.get_value(key).await? {
                there.push(format!("{key}={value}"));
            }
        }
        self.say(if there.is_empty() { "nothing".to_owned() } else { there.join(" ") });
        Ok(())
    }
}

fn seconds(text: &str) -> time::Duration {
    time::Duration::seconds(text.parse().unwrap())
}

fn deep(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}
