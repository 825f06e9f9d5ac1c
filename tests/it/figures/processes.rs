//! Servers in processes of their own, for what several servers on one Redis do to each other: this test program, run again.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::middleware::from_fn;
use axum::routing::get;
use axum::{Json, Router};
use redis_session::{Event, Expiry, KeyRing, Observer, RedisSessionLayer};
use redis_session_testkit::{HttpBrowser, RedisServer};

use super::accounts::wait;
use super::{paths, patient_store};

/// The test below, which is a server where it finds this variable.
const TEST: &str = "figures::processes::a_server_is_a_process_of_its_own_and_ends_with_its_test";
const REDIS: &str = "TEST_SERVER_REDIS";
const KEY: &str = "TEST_SERVER_KEY";
const ANNOUNCED: &str = "listening on ";

/// A key that the servers of one test share; base64 by its letters.
pub(super) fn shared_key() -> String {
    let random = redis_session_core::Random::system().array::<24>().unwrap();
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A server with the paths of a shop under `/hammered`, `/quiet` and `/touched` (where every request renews the timeout
/// and may wait), each with sessions of its own on one connection, and `/tally`, the number of commits under `/hammered` and how often
/// they were tried.
pub(super) struct Server {
    child: Child,
    origin: String,
    /// The server ends when this is closed. `None`: it was.
    stdin: Option<ChildStdin>,
    /// Kept open: a closed one would end the server's test with an error.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    pub(super) fn start(redis: &RedisServer, key: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([TEST, "--exact", "--nocapture"])
            .env(REDIS, redis.url())
            .env(KEY, key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let origin = loop {
            line.clear();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the server does not start");
            // The test harness may have begun this line with words of its own.
            if let Some((_, origin)) = line.split_once(ANNOUNCED) {
                break origin.trim().to_owned();
            }
        };
        Self { stdin: child.stdin.take(), child, origin, _stdout: stdout }
    }

    pub(super) fn browser(&self) -> HttpBrowser {
        HttpBrowser::connect(&self.origin)
    }

    /// The same visitor, with his cookies, before this server.
    pub(super) fn visited_by(&self, browser: &HttpBrowser) -> HttpBrowser {
        browser.clone().at(&self.origin)
    }

    /// How many commits under `/hammered` there were, and in how many tries.
    pub(super) async fn tally(&self) -> (u64, u64) {
        serde_json::from_str(&self.browser().get("/tally").await.body).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Default)]
struct Tally {
    commits: Arc<AtomicU64>,
    tries: Arc<AtomicU64>,
}

impl Observer for Tally {
    fn observe(&self, event: Event) {
        if let Event::Saved { tries } = event {
            self.commits.fetch_add(1, Ordering::Relaxed);
            self.tries.fetch_add(tries.into(), Ordering::Relaxed);
        }
    }
}

/// Serves until its standard input ends, which it also does when the test's process dies.
#[tokio::main]
async fn serve(redis: &str) {
    let (store, tally) = (patient_store(redis).await, Tally::default());
    let layer = |realm| RedisSessionLayer::with_store(store.clone(), KeyRing::from_env(KEY).unwrap()).realm(realm);
    let told = tally.clone();
    let told = async move || Json((told.commits.load(Ordering::Relaxed), told.tries.load(Ordering::Relaxed)));
    let app = Router::new()
        .nest("/hammered", paths().layer(layer("hammered").observer(tally)))
        .nest("/quiet", paths().layer(layer("quiet")))
        .nest(
            "/touched",
            paths().layer(from_fn(wait)).layer(layer("touched").expiry(Expiry::default().touch_every(Duration::ZERO))),
        )
        .route("/tally", get(told));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{ANNOUNCED}http://{}", listener.local_addr().unwrap());
    let parent = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    tokio::select! {
        served = axum::serve(listener, app) => served.unwrap(),
        _ = parent => {}
    }
}

#[test]
fn a_server_is_a_process_of_its_own_and_ends_with_its_test() {
    if let Ok(redis) = std::env::var(REDIS) {
        return serve(&redis);
    }
    let redis = RedisServer::start();
    let mut server = Server::start(&redis, &shared_key());
    let address = server.origin.strip_prefix("http://").unwrap().to_owned();
    assert_ne!(server.child.id(), std::process::id());
    assert!(TcpStream::connect(&address).is_ok());
    // As the end of the test's process closes it.
    drop(server.stdin.take());
    assert!(server.child.wait().unwrap().success());
    assert!(TcpStream::connect(&address).is_err());
}
