//! The end of a process: what requests have begun is written before it, whatever their clients do.

#![allow(clippy::print_stdout)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use redis_session::{Error, KeyRing, Kind, MemoryStore, RedisSessionLayer, Session, Store};
use redis_session_core::{
    BoxFuture, Create, Created, End, Ended, Error as CoreError, Save, Saved, SessionKey, Stored, Time,
};
use redis_session_testkit::{Action, Browser, Proxy, RedisServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tower::ServiceExt;

use crate::watched::{Watched, patient};

const TEST: &str = "closing::a_server_that_is_told_to_end_under_load_loses_no_write_that_a_request_has_begun";
const REDIS: &str = "CLOSING_SERVER_REDIS";
const LISTENING: &str = "listening on ";
const BEGUN: &str = "begun: ";
const NAME: &str = "__Host-id";
/// How long Redis takes for a write, so that some wait for others of their session.
const A_WRITE: Duration = Duration::from_millis(15);

/// A server as an application has it. It tells last how many commits its requests have begun.
#[tokio::main]
async fn serve(redis: &str) {
    use tokio::signal::unix::{SignalKind, signal};
    let store = patient(redis, Duration::from_secs(20)).await;
    let sessions = RedisSessionLayer::with_store(store, KeyRing::random().unwrap());
    let begun = Arc::new(AtomicU64::new(0));
    let count = begun.clone();
    let visit = async move |session: Session| {
        session.increment("visits", 1)?;
        // The commit begins without another await in between.
        count.fetch_add(1, Ordering::SeqCst);
        Ok::<_, Error>("counted")
    };
    let app = Router::new().route("/visit", get(visit)).layer(sessions.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut told = signal(SignalKind::terminate()).unwrap();
    println!("{LISTENING}{}", listener.local_addr().unwrap());
    let ends = async move { told.recv().await.unwrap_or_default() };
    axum::serve(listener, app).with_graceful_shutdown(ends).await.unwrap();
    sessions.close().await.unwrap();
    println!("{BEGUN}{}", begun.load(Ordering::SeqCst));
}

struct Server {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Server {
    fn start(redis: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([TEST, "--exact", "--nocapture"]).env(REDIS, redis).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// What stands behind these words in the next line that has them.
    fn said(&mut self, words: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the server ended without {words:?}");
            // The test harness may have begun this line with words of its own.
            if let Some((_, said)) = line.split_once(words) {
                return said.trim().to_owned();
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request on a connection of its own; its status and the cookie that it brings. `None`: no answer.
async fn visit(address: &str, cookie: &str) -> Option<(u16, Option<String>)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET /visit HTTP/1.1\r\nHost: shop\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")?.split(';').next());
    Some((status, cookie.map(str::to_owned)))
}

/// Eight visitors with eight requests at a time each, of which half are given up before they are answered.
#[test]
fn a_server_that_is_told_to_end_under_load_loses_no_write_that_a_request_has_begun() {
    match std::env::var(REDIS) {
        Ok(redis) => serve(&redis),
        Err(_) => told_to_end_under_load(),
    }
}

#[tokio::main]
async fn told_to_end_under_load() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let mut server = Server::start(&proxy.url());
    let address: Arc<str> = server.said(LISTENING).into();
    proxy.fault(|command| match command.name() {
        "EVALSHA" | "EVAL" => Action::Delay(A_WRITE),
        _ => Action::Pass,
    });
    let (answered, given_up) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let mut visitors = Vec::new();
    for _ in 0..8 {
        let (status, cookie) = visit(&address, "").await.unwrap();
        assert_eq!(status, 200);
        answered.fetch_add(1, Ordering::SeqCst);
        let cookie: Arc<str> = cookie.unwrap().into();
        for number in 0..8 {
            let (address, cookie) = (address.clone(), cookie.clone());
            let (answered, given_up, stop) = (answered.clone(), given_up.clone(), stop.clone());
            let patience = if number % 2 == 0 { Duration::from_secs(20) } else { A_WRITE };
            visitors.push(tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    match timeout(patience, visit(&address, &cookie)).await {
                        Ok(Some((200, _))) => answered.fetch_add(1, Ordering::SeqCst),
                        Ok(Some((status, _))) => panic!("{status}"),
                        // It takes no more requests.
                        Ok(None) => break,
                        Err(_) => given_up.fetch_add(1, Ordering::SeqCst),
                    };
                }
            }));
        }
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    Command::new("kill").arg(server.child.id().to_string()).status().unwrap();
    let begun: u64 = server.said(BEGUN).parse().unwrap();
    assert!(server.child.wait().unwrap().success());
    stop.store(true, Ordering::SeqCst);
    for visitor in visitors {
        visitor.await.unwrap();
    }
    let (answered, given_up) = (answered.load(Ordering::SeqCst), given_up.load(Ordering::SeqCst));
    let keys = redis.run(&["KEYS", "sess:*"]).texts();
    let written: i64 = keys.iter().map(|key| redis.run(&["HGET", key, "visits"]).int()).sum();
    eprintln!(
        "SIGTERM under load: {answered} requests answered, {given_up} given up by their clients; {begun} commits begun, \
         {written} written"
    );
    assert!(answered > 20 && given_up > 50, "{answered} {given_up}");
    assert_eq!(written, i64::try_from(begun).unwrap());
    assert!(begun >= answered);
}

async fn visited(session: Session) -> Result<(), Error> {
    session.increment("visits", 1)
}

/// Two requests at once that are given up as soon as both wait for their commits.
async fn two_given_up(layer: &RedisSessionLayer, cookie: &str) {
    let begun = Arc::new(AtomicU64::new(0));
    let count = begun.clone();
    let visit = async move |session: Session| {
        session.increment("visits", 1)?;
        count.fetch_add(1, Ordering::SeqCst);
        Ok::<_, Error>(())
    };
    let app = Router::new().route("/visit", get(visit)).layer(layer.clone());
    let request = || Request::get("/visit").header("cookie", format!("{NAME}={cookie}")).body(Body::empty()).unwrap();
    let both_begun = async {
        while begun.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        biased;
        _ = app.clone().oneshot(request()) => panic!("it was answered"),
        _ = app.clone().oneshot(request()) => panic!("it was answered"),
        () = both_begun => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r47_closing_waits_for_a_commit_whose_request_was_given_up_and_the_layer_works_on() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let store = patient(&proxy.url(), Duration::from_secs(20)).await;
    let layer = RedisSessionLayer::with_store(store, KeyRing::random().unwrap());
    let visitor = Browser::new(Router::new().route("/visit", get(visited)).layer(layer.clone()));
    visitor.get("/visit").await;
    layer.close().await.unwrap();

    proxy.fault(|command| if command.name() == "EVALSHA" { Action::Delay(A_WRITE * 200) } else { Action::Pass });
    // One of them writes, and the other waits for it.
    two_given_up(&layer, &visitor.cookie(NAME).unwrap()).await;
    layer.close().await.unwrap();
    let key = &redis.run(&["KEYS", "sess:*"]).texts()[0];
    assert_eq!(redis.run(&["HGET", key, "visits"]).int(), 3);

    proxy.clear_faults();
    assert_eq!(visitor.get("/visit").await.status, 200);
    layer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_a_logout_that_is_tried_again_and_no_longer_than_that() {
    for heals_after in [Some(Duration::from_secs(5)), None] {
        let store = Watched::new();
        let layer = RedisSessionLayer::with_store(store.clone(), KeyRing::random().unwrap());
        let failing = store.clone();
        let end = async move |session: Session| {
            failing.fail(Kind::Unavailable);
            session.destroy().await
        };
        let paths = Router::new().route("/visit", get(visited)).route("/end", get(end));
        let visitor = Browser::new(paths.layer(layer.clone()));
        visitor.get("/visit").await;
        assert_eq!(visitor.get("/end").await.status, 503);
        let start = Instant::now();
        if let Some(time) = heals_after {
            let store = store.clone();
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                store.heal();
            });
        }
        layer.close().await.unwrap();
        let took = start.elapsed();
        let wanted = heals_after.unwrap_or(Duration::from_secs(30));
        assert!(took >= wanted && took <= wanted + Duration::from_secs(2), "{took:?}");
    }
}

/// A store that breaks its promise to answer within its deadline.
struct Stuck(MemoryStore);

impl Store for Stuck {
    fn now(&self) -> Option<Time> {
        self.0.now()
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, CoreError>> {
        self.0.load(key)
    }

    fn create<'a>(&'a self, _: &'a SessionKey, _: &'a Create) -> BoxFuture<'a, Result<Created, CoreError>> {
        Box::pin(std::future::pending())
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, CoreError>> {
        self.0.save(key, save)
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, CoreError>> {
        self.0.end(key, end)
    }
}

#[tokio::test(start_paused = true)]
async fn closing_ends_although_the_store_does_not() {
    let layer = RedisSessionLayer::with_store(Stuck(MemoryStore::new()), KeyRing::random().unwrap());
    two_given_up(&layer, "").await;
    let start = Instant::now();
    let error = layer.close().await.unwrap_err();
    assert!(error.is_outcome_unknown() && error.to_string().starts_with("2 writes of sessions were still"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(34), "{:?}", start.elapsed());
}
