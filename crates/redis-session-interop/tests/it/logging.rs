//! What stores of others say of a failure is in no log and no error: old ids and session data may be in it.

use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, Mutex, Once};

use axum::Router;
use axum::routing::get;
use redis_session::{KeyRing, MemoryStore, Predecessor, RedisSessionLayer, Session};
use redis_session_core::{Error, Store};
use redis_session_interop::tower_sessions::FromTowerSessions;
use redis_session_testkit::{Browser, RedisServer};
use time::OffsetDateTime;
use tower_sessions::session::{Id, Record};
use tower_sessions::{SessionStore, session_store};
use tower_sessions_redis_store::RedisStore as TheirRedis;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::adopt::{OLD, old, old_server, under};
use crate::from::their_pool;
use crate::place::COOKIE;

const CANARY: &str = "canary-data";

/// All that was logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Listens to everything, also to what libraries tell the crate `log`, until the guard goes.
    fn listen() -> (Self, DefaultGuard) {
        static EVERYBODY: Once = Once::new();
        EVERYBODY.call_once(|| {
            tracing_log::LogTracer::init().unwrap();
            // A test that nobody listens to, and that is the first at some event, would switch it off for all threads.
            tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap();
        });
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn in_full(error: &Error) -> String {
    let mut text = format!("{error} {error:?}\n");
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!("{cause} {cause:?}\n");
        source = cause.source();
    }
    text
}

#[track_caller]
fn assert_absent(secret: &str, text: &str) {
    for line in text.lines() {
        assert!(!line.contains(secret), "{secret} is in {line}");
    }
}

/// A Redis, or a proxy before it, that does not know a command repeats its arguments.
#[tokio::test]
async fn r92_an_old_id_that_works_as_a_cookie_is_in_no_log_and_no_error() {
    for unknown in ["GETRANGE", "RENAME", "DEL"] {
        let redis = RedisServer::start_with(&[("rename-command", &format!("{unknown} \"\""))]);
        let before = Browser::new(old_server(their_pool(&redis.url()).await));
        assert_eq!(before.get("/cart").await.status, 200);
        let id = before.cookie(OLD).unwrap();
        let arguments = match unknown {
            "GETRANGE" => vec![unknown, &id, "0", "1"],
            "RENAME" => vec![unknown, &id, "other"],
            _ => vec![unknown, &id],
        };
        let refusal = format!("{:?}", redis.command(&arguments));
        assert!(refusal.contains("unknown command") && refusal.contains(&id), "{refusal}");

        let (log, _guard) = Log::listen();
        let pool = their_pool(&redis.url()).await;
        let layer = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random().unwrap());
        let browser = Browser::new(under(layer.adopt(old(pool.clone()))));
        browser.set_cookie(OLD, &id);
        let page = browser.get("/status").await;
        assert_eq!(page.status, 503, "{unknown}");
        let mut told = format!("{page:?}");

        let old = old(pool);
        let id_bytes = id.as_bytes();
        let errors = [
            old.look(id_bytes).await.err(),
            old.claim(id_bytes).await.err(),
            old.claimed(id_bytes).await.err(),
            old.end(id_bytes).await.err(),
        ];
        let failed = errors.iter().flatten().inspect(|error| {
            assert!(error.is_unavailable() && error.to_string().ends_with("refused the command: ERR"), "{error}");
            told += &in_full(error);
        });
        assert_eq!(failed.count(), if unknown == "GETRANGE" { 2 } else { 1 }, "{unknown}");
        let log = log.text();
        let warned = |line: &str| line.contains(" WARN ") && line.contains("refused the command: ERR");
        assert!(log.lines().any(warned) && log.contains("fred"), "{log}");
        assert_absent(&id, &(told + &log));
    }
}

/// A store of theirs that always fails, and says what it was about.
#[derive(Debug)]
struct Failing {
    with: fn(String) -> session_store::Error,
    /// Whether reads find nothing instead.
    only_writes: bool,
}

impl Failing {
    fn error(&self) -> session_store::Error {
        (self.with)(CANARY.to_owned())
    }
}

#[async_trait::async_trait]
impl SessionStore for Failing {
    async fn create(&self, _: &mut Record) -> session_store::Result<()> {
        Err(self.error())
    }

    async fn save(&self, _: &Record) -> session_store::Result<()> {
        Err(self.error())
    }

    async fn load(&self, _: &Id) -> session_store::Result<Option<Record>> {
        if self.only_writes { Ok(None) } else { Err(self.error()) }
    }

    async fn delete(&self, _: &Id) -> session_store::Result<()> {
        Err(self.error())
    }
}

/// An application whose handlers tell the errors that they get.
fn app(store: impl Store, keys: &KeyRing) -> Browser<Router> {
    let save = get(async |session: Session| {
        session.insert("secret", CANARY).unwrap();
        session.save().await.map_err(|error| format!("{error} {error:?} {:?}", error.source()))
    });
    let show = get(async |session: Session| format!("{:?}", session.status()));
    let router = Router::new().route("/save", save).route("/show", show);
    Browser::new(router.layer(RedisSessionLayer::with_store(store, keys.clone())))
}

#[tokio::test]
async fn r92_what_a_store_of_theirs_says_of_a_failure_is_in_no_log_and_no_error() {
    let (log, _guard) = Log::listen();
    let keys = KeyRing::random().unwrap();
    let elsewhere = app(MemoryStore::new(), &keys);
    elsewhere.get("/save").await;
    let mut told = String::new();
    for with in [session_store::Error::Encode, session_store::Error::Decode, session_store::Error::Backend] {
        for (only_writes, path) in [(true, "/save"), (false, "/show")] {
            let browser = app(FromTowerSessions::new(Failing { with, only_writes }), &keys);
            if !only_writes {
                browser.set_cookie(COOKIE, &elsewhere.cookie(COOKIE).unwrap());
            }
            let page = browser.get(path).await;
            assert!(page.status != 200 || page.body.contains("the store of tower-sessions"), "{page:?}");
            told += &format!("{page:?}\n");
        }
    }
    told += &log.text();
    for part in ["failed while it wrote", "cannot encode the session", "does not decode", "failed; why is left out"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_absent(CANARY, &told);
}

#[tokio::test]
async fn r92_session_data_that_a_decoder_names_is_in_no_log() {
    let redis = RedisServer::start();
    let pool = their_pool(&redis.url()).await;
    let (log, _guard) = Log::listen();
    let keys = KeyRing::random().unwrap();
    let browser = app(FromTowerSessions::new(TheirRedis::new(pool.clone())), &keys);
    browser.get("/save").await;
    let key = redis.run(&["KEYS", "*"]).texts().remove(0);
    // A record whose data is a text: the decoder says which.
    let (id, date): (Id, _) = (key.parse().unwrap(), OffsetDateTime::now_utc());
    redis.run(&[b"SET".as_slice(), key.as_bytes(), &rmp_serde::to_vec(&(id, CANARY, date)).unwrap()]);
    let theirs = TheirRedis::new(pool).load(&id).await.unwrap_err();
    assert!(theirs.to_string().contains(CANARY), "{theirs}");
    let page = browser.get("/show").await;
    assert_eq!(page.status, 500);
    assert!(log.text().contains("does not decode"), "{}", log.text());
    assert_absent(CANARY, &(format!("{page:?}\n") + &log.text()));
}
