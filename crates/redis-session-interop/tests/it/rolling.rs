//! Browsers that move through a rolling deployment, old and new servers side by side behind one balancer.
//!
//! `MOVING_BROWSERS` says how many; the figure of the project is made with 500.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use futures_util::StreamExt as _;
use redis_session::{Event, KeyRing, RedisSessionLayer, RedisStore};
use redis_session_testkit::{Action, Browser, Page, Proxy, RedisServer};
use tokio::sync::Semaphore;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt as _, service_fn};
use tower_sessions::session::Record;

use crate::adopt::{OLD, old, old_server, under};
use crate::from::their_pool;
use crate::place::{COOKIE, Events};

const PARALLEL: usize = 20;
/// So many of them are answered before the one that logs in or out is sent.
const BEFORE_A_LOGIN: u32 = 8;
const SERVERS: usize = 4;

/// A server with the name of its side in each answer.
#[derive(Clone)]
struct Server {
    app: Router,
    is_new: bool,
}

/// The balancer of the docs: who has a cookie of ours, and who logs in or out, goes to new servers.
#[derive(Clone)]
struct Balancer {
    old: Vec<Server>,
    new: Vec<Server>,
    /// How many servers were replaced.
    replaced: Arc<AtomicUsize>,
    turn: Arc<AtomicUsize>,
    splits: Splits,
}

/// Where all others go.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Splits {
    /// Each visitor to servers of one side, by his old cookie, as the docs say.
    Visitors,
    /// Each request anywhere.
    Requests,
}

impl Balancer {
    fn pick(&self, request: &Request<Body>) -> Server {
        let replaced = self.replaced.load(Ordering::SeqCst);
        let cookies = request.headers().get("cookie").map(|line| line.to_str().unwrap().to_owned()).unwrap_or_default();
        let path = request.uri().path();
        let is_ours = cookies.contains(COOKIE) || path.starts_with("/login") || path.starts_with("/logout");
        let turn = self.turn.fetch_add(1, Ordering::SeqCst);
        let place = match self.splits {
            Splits::Requests => turn % SERVERS,
            Splits::Visitors => cookies.bytes().map(usize::from).sum::<usize>() % SERVERS,
        };
        if replaced > 0 && (is_ours || place < replaced) {
            self.new[turn % replaced].clone()
        } else {
            self.old[place.max(replaced)].clone()
        }
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let server = self.pick(&request);
        let mut response = server.app.oneshot(request).await?;
        response.headers_mut().insert("x-server", if server.is_new { "new" } else { "old" }.parse().unwrap());
        Ok(response)
    }
}

type Balanced = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// What a visitor does while he is moved.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    ReadsAndWrites,
    LogsInAgain,
    LogsOut,
    LogsInFirst,
}

const KINDS: [Kind; 4] = [Kind::ReadsAndWrites, Kind::LogsInAgain, Kind::LogsOut, Kind::LogsInFirst];

#[derive(Default)]
struct Counts {
    logged_out: AtomicUsize,
    lost: AtomicUsize,
    acknowledged_before: AtomicUsize,
    acknowledged_by_new: AtomicUsize,
    nobody_on_old: AtomicUsize,
    old_alive: AtomicUsize,
    failed: AtomicUsize,
    failed_on_old: AtomicUsize,
    left_bare: AtomicUsize,
}

fn count(counter: &AtomicUsize, by: usize) {
    counter.fetch_add(by, Ordering::SeqCst);
}

/// One of a visitor's parallel requests.
#[derive(Debug)]
struct Answer {
    path: String,
    page: Page,
    /// Whether it was answered before a login or a logout was sent.
    before_a_new_id: bool,
}

/// One visitor: begins on old servers, comes with 20 parallel requests while servers are replaced, and comes again.
struct Visit<'a> {
    balancer: &'a Balancer,
    /// What old records held when they were claimed.
    claims: &'a Mutex<HashMap<String, Vec<usize>>>,
    redis: &'a RedisServer,
    counts: &'a Counts,
    kind: Kind,
}

impl Visit<'_> {
    async fn begin(&self, nth: usize) -> Browser<Balanced> {
        let balancer = self.balancer.clone();
        let service = service_fn(move |request| balancer.clone().serve(request));
        let browser = Browser::new(BoxCloneSyncService::new(service));
        let first = if self.kind == Kind::LogsInFirst { "/cart".to_owned() } else { format!("/login/user{nth}") };
        assert_eq!(browser.get(&first).await.status, 200);
        for key in [30, 31] {
            assert_eq!(browser.get(&format!("/write/key{key}")).await.status, 200);
        }
        browser
    }

    async fn go_on(&self, nth: usize, browser: Browser<Balanced>) {
        let id = browser.cookie(OLD).unwrap();
        let path = |n: usize| match (n, self.kind) {
            (9, Kind::LogsInAgain | Kind::LogsInFirst) => format!("/login/user{nth}"),
            (9, Kind::LogsOut) => "/logout".to_owned(),
            (n, _) if n % 2 == 0 => format!("/write/key{n}"),
            _ => "/who".to_owned(),
        };
        // A new id ends what is under way with the one of before, so only edits answered by then must be kept.
        let (answered, has_new_id) = (&Semaphore::new(0), &AtomicBool::new(false));
        let requests = (0..PARALLEL).map(|n| {
            let (browser, path) = (browser.clone(), path(n));
            async move {
                if path.starts_with("/log") {
                    let _ = answered.acquire_many(BEFORE_A_LOGIN).await.unwrap();
                    has_new_id.store(true, Ordering::SeqCst);
                }
                let page = browser.get(&path).await;
                answered.add_permits(1);
                Answer { path, page, before_a_new_id: !has_new_id.load(Ordering::SeqCst) }
            }
        });
        let answers: Vec<Answer> = futures_util::future::join_all(requests).await;
        // Parallel requests on servers of before lose each other's edits: what counts is what is left of them.
        let mut kept = self.claims.lock().unwrap().get(&id).cloned().unwrap_or_default();
        if self.kind == Kind::LogsOut {
            kept.clear();
        }
        count(&self.counts.acknowledged_before, kept.len());
        for Answer { path, page, before_a_new_id } in &answers {
            let is_old = page.header("x-server").as_deref() == Some("old");
            if page.status.is_server_error() && is_old {
                count(&self.counts.failed_on_old, 1);
            } else if page.status.is_server_error() {
                eprintln!("{nth} {:?}: {path}: {page:?}", self.kind);
                count(&self.counts.failed, 1);
            }
            let wrote = path.strip_prefix("/write/key").filter(|_| page.status == 200);
            let stays = !is_old && *before_a_new_id && self.kind != Kind::LogsOut;
            let wrote = wrote.filter(|_| stays).map(|n| n.parse::<usize>().unwrap());
            count(&self.counts.acknowledged_by_new, wrote.iter().len());
            kept.extend(wrote);
            let nobody =
                page.status == 401 || path == "/who" && page.body == "nobody" && self.kind != Kind::LogsInFirst;
            count(&self.counts.nobody_on_old, usize::from(is_old && nobody));
        }
        // By now at least one server is new; whoever comes again is moved, if he was not.
        let after = browser.get("/who").await;
        let last = browser.get(&format!("/login/user{nth}")).await;
        assert_eq!(last.status, 200);
        let keys = browser.get("/keys").await.body;
        let there: Vec<usize> = keys.split(' ').filter_map(|n| n.parse().ok()).collect();
        let lost = kept.iter().filter(|n| !there.contains(n)).count();
        let is_as_it_should = match self.kind {
            Kind::LogsOut => after.body == "nobody",
            _ => after.body == format!("user{nth}") && lost == 0,
        };
        // It had no cookie at all for a moment, in which it may have logged in or out as a stranger.
        let was_left_bare =
            answers.iter().any(|answer| answer.page.set_cookies().iter().any(|line| line.starts_with("id=;")));
        if !is_as_it_should && was_left_bare && self.kind != Kind::ReadsAndWrites {
            count(&self.counts.left_bare, 1);
        } else if !is_as_it_should {
            eprintln!("{nth} {:?}: {after:?}, of {kept:?} there are {there:?}: {answers:#?}", self.kind);
            count(&self.counts.lost, lost);
            count(&self.counts.logged_out, 1);
        }
        let alive =
            self.redis.run(&["EXISTS", &id]).int() + self.redis.run(&["EXISTS", &format!("{{{id}}}:taken-over")]).int();
        count(&self.counts.old_alive, usize::try_from(alive).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_logged_out_and_nothing_is_lost_while_visitors_move_one_by_one() {
    roll(Splits::Visitors).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_visitor_s_requests_are_on_old_and_new_servers_at_a_time_his_session_is_still_kept() {
    roll(Splits::Requests).await;
}

async fn roll(splits: Splits) {
    let browsers: usize = std::env::var("MOVING_BROWSERS").map_or(40, |n| n.parse().unwrap());
    let redis = Arc::new(RedisServer::start());
    let proxy = Proxy::start(redis.address());
    let claims: Arc<Mutex<HashMap<String, Vec<usize>>>> = Arc::default();
    let (claimed, there) = (claims.clone(), redis.clone());
    proxy.fault(move |command| {
        // After the rename, it does not change any more.
        let key = command.arg(0);
        if let Some(id) = key.strip_suffix("}:taken-over").filter(|_| command.name() == "GETRANGE") {
            let record = there.run(&["GET", &key]);
            if !record.is_nil() {
                let record: Record = rmp_serde::from_slice(record.bytes()).unwrap();
                let keys = record.data.keys().filter_map(|name| name.strip_prefix("key")?.parse().ok()).collect();
                claimed.lock().unwrap().insert(id[1..].to_owned(), keys);
            }
        }
        Action::Pass
    });
    let (keys, events) = (KeyRing::random().unwrap(), Events::default());
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for _ in 0..SERVERS {
        before.push(Server { app: old_server(their_pool(&redis.url()).await), is_new: false });
        // A machine that is busy with other tests is no fault of what is tested.
        let store = RedisStore::options(&redis.url()).deadline(Duration::from_secs(5)).connect().await.unwrap();
        let layer = RedisSessionLayer::with_store(store, keys.clone()).observer(events.clone());
        after.push(Server { app: under(layer.adopt(old(their_pool(&proxy.url()).await))), is_new: true });
    }
    let balancer = Balancer { old: before, new: after, replaced: Arc::default(), turn: Arc::default(), splits };
    let counts = Counts::default();
    let visit = |nth: usize| Visit {
        balancer: &balancer,
        claims: &claims,
        redis: &redis,
        counts: &counts,
        kind: KINDS[nth % KINDS.len()],
    };
    let mut all = Vec::new();
    for nth in 0..browsers {
        all.push((nth, visit(nth).begin(nth).await));
    }
    assert!(events.take().is_empty(), "nobody has met a new server");
    let done = AtomicUsize::new(0);
    futures_util::stream::iter(all)
        .for_each_concurrent(8, |(nth, browser)| {
            // One server after the other, until all are new for the last quarter.
            let replaced = 1 + done.fetch_add(1, Ordering::SeqCst) * SERVERS / browsers;
            balancer.replaced.store(replaced.min(SERVERS), Ordering::SeqCst);
            let visit = visit(nth);
            async move { visit.go_on(nth, browser).await }
        })
        .await;
    let taken_over = events.take().iter().filter(|event| **event == Event::TakenOver).count();
    let get = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
    eprintln!(
        "by {splits:?}: {browsers} browsers with {PARALLEL} parallel requests each: {} logged out, {} edits lost of {} that old servers had \
         kept until the take-over and {} that new ones acknowledged, {taken_over} taken over, {} old ids alive, {} answers \
         of new servers with 5xx; on old servers {} that knew nobody any more and {} with 5xx; \
         {} visitors whose old cookie they took away at the moment of a login or logout",
        get(&counts.logged_out),
        get(&counts.lost),
        get(&counts.acknowledged_before),
        get(&counts.acknowledged_by_new),
        get(&counts.old_alive),
        get(&counts.failed),
        get(&counts.nobody_on_old),
        get(&counts.failed_on_old),
        get(&counts.left_bare),
    );
    assert_eq!((get(&counts.logged_out), get(&counts.lost), get(&counts.old_alive), get(&counts.failed)), (0, 0, 0, 0));
    assert!(get(&counts.acknowledged_by_new) > browsers / 2, "new servers had to keep something");
    // A logout between the steps of a take-over ends what it has begun, and then it is not told as one.
    let log_out = browsers.div_ceil(KINDS.len());
    assert!((browsers - log_out..=browsers).contains(&taken_over), "each once: {taken_over}");
    if splits == Splits::Visitors {
        assert_eq!(get(&counts.left_bare), 0);
    }
}
