//! A store that fails, and records and settings that cannot be: closed, within the deadline, and nothing told to the client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use redis_session::{
    Cookie, Error, Event, Expiry, IfNotSaved, KeyRing, Kind, RedisSessionLayer, RedisStore, SameSite, Session,
};
use redis_session_testkit::{Action, Browser, Page, Proxy, RedisServer};
use serde::{Deserialize, Serialize};

use crate::watched::{Seen, Watched, patient};

const NAME: &str = "__Host-id";
/// The deadline of an operation here: longer than by default, since a busy machine must not decide the outcome.
const DEADLINE: Duration = Duration::from_secs(1);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(1);

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Visitor {
    visits: u64,
    name: String,
}

/// How often a handler that wants a session was run.
type Runs = Arc<AtomicUsize>;

fn app(layer: RedisSessionLayer, runs: &Runs) -> Router {
    let visits = async |State(runs): State<Runs>, visitor: Session<Visitor>| {
        runs.fetch_add(1, Ordering::SeqCst);
        visitor.visits.to_string()
    };
    let maybe = async |State(runs): State<Runs>, session: Option<Session>| {
        runs.fetch_add(1, Ordering::SeqCst);
        session.is_some().to_string()
    };
    let visit = async |State(runs): State<Runs>, session: Session| {
        runs.fetch_add(1, Ordering::SeqCst);
        session.increment("visits", 1)
    };
    Router::new()
        .route("/", get(async || "hello"))
        .route("/visits", get(visits))
        .route("/maybe", get(maybe))
        .route("/visit", get(visit))
        .route("/name", get(async |session: Session| session.get::<String>("name").map(Option::unwrap_or_default)))
        .route("/rename", get(async |session: Session| session.insert("name", "Bob")))
        .route("/rotate", get(async |session: Session| session.rotate().await))
        .route("/log-out", get(log_out))
        .route("/order", get(async |session: Session| order(session, false).await))
        .route("/order-and-more", get(async |session: Session| order(session, true).await))
        .with_state(runs.clone())
        .layer(layer)
        .layer(map_response(name_the_error))
}

async fn log_out(session: Session) -> Result<&'static str, Error> {
    session.destroy().await?;
    Ok("goodbye")
}

/// Has an answer of its own where nobody knows whether the order was made.
async fn order(session: Session, and_more: bool) -> Result<&'static str, Error> {
    session.increment("visits", 1)?;
    match session.save().await {
        Err(error) if error.is_outcome_unknown() => {
            if and_more {
                session.insert("name", "Bob")?;
            }
            Ok("we are not sure: look at your orders before you order again")
        }
        saved => saved.map(|()| "thank you"),
    }
}

/// What an application can tell of an error; the client itself gets an empty body.
async fn name_the_error(mut response: Response) -> Response {
    if let Some(error) = response.extensions().get::<Error>() {
        let text = format!("{:?}: {error}", error.kind());
        response.headers_mut().insert("x-error", text.parse().unwrap());
    }
    response
}

async fn visitor(app: Router) -> Browser<Router> {
    let browser = Browser::new(app);
    assert_eq!(browser.get("/visit").await.status, 200);
    assert_eq!(browser.get("/visits").await.body, "1");
    browser
}

fn keys() -> KeyRing {
    KeyRing::random().unwrap()
}

async fn in_time(browser: &Browser<Router>, path: &str) -> Page {
    within(DEADLINE, browser, path).await
}

async fn within(deadline: Duration, browser: &Browser<Router>, path: &str) -> Page {
    let start = Instant::now();
    let page = browser.get(path).await;
    assert!(start.elapsed() < deadline + SLACK, "{path} took {:?}", start.elapsed());
    page
}

/// A plain 503 that says nothing and does nothing.
fn is_unavailable(page: &Page, what: &str) {
    assert_eq!((page.status.as_u16(), page.body.as_str()), (503, ""), "{what}: {page:?}");
    assert_eq!(page.header("retry-after").as_deref(), Some("1"), "{what}");
    assert!(page.set_cookies().is_empty(), "{what}: {page:?}");
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn only_key(redis: &RedisServer) -> String {
    let mut keys = redis.run(&["KEYS", "*"]).texts();
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys.remove(0)
}

/// A visitor of a Redis behind a proxy that passes everything for now.
struct Behind {
    redis: RedisServer,
    proxy: Proxy,
    browser: Browser<Router>,
    seen: Seen,
    runs: Runs,
}

impl Behind {
    async fn start(settings: impl FnOnce(RedisSessionLayer) -> RedisSessionLayer) -> Self {
        let redis = RedisServer::start();
        let proxy = Proxy::start(redis.address());
        let (seen, runs) = (Seen::default(), Runs::default());
        let store = patient(&proxy.url(), DEADLINE).await;
        let layer = RedisSessionLayer::with_store(store, keys()).observer(seen.clone());
        let browser = visitor(app(settings(layer), &runs)).await;
        // So that the scripts are known, and each write is one command.
        browser.get("/rotate").await;
        let other = browser.stranger();
        other.get("/visit").await;
        other.get("/log-out").await;
        for key in redis.run(&["KEYS", "*"]).texts() {
            if redis.run(&["HEXISTS", &key, "@ended"]).int() == 1 {
                redis.run(&["DEL", &key]);
            }
        }
        seen.take();
        runs.store(0, Ordering::SeqCst);
        Self { redis, proxy, browser, seen, runs }
    }

    /// Lets every command of this name be answered like this.
    fn answer(&self, name: &'static str, reply: &str) {
        let reply = reply.as_bytes().to_vec();
        self.proxy.fault(move |command| match command.name() {
            this if this == name => Action::Answer(reply.clone()),
            _ => Action::Pass,
        });
    }

    /// The same cookie works again as soon as the store does, and nothing was counted meanwhile.
    async fn recovers(&self, visits: &str) {
        self.proxy.clear_faults();
        until("the recovery", async || self.browser.get("/visits").await.body == visits).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r83_a_redis_that_is_silent_is_given_up_at_the_deadline() {
    let options = format!("{:?}", RedisStore::options("redis://127.0.0.1"));
    assert!(options.contains("deadline: 250ms") && options.contains("connect_deadline: 1s"), "{options}");

    let (redis, keys, runs) = (RedisServer::start(), keys(), Runs::default());
    let slow = RedisSessionLayer::with_store(patient(&redis.url(), 20 * DEADLINE).await, keys.clone());
    let quick = RedisSessionLayer::with_store(RedisStore::connect(&redis.url()).await.unwrap(), keys);
    let browser = Browser::new(app(quick, &runs));
    browser.set_cookie(NAME, &visitor(app(slow, &Runs::default())).await.cookie(NAME).unwrap());
    let default = Duration::from_millis(250);
    redis.pause();
    for path in ["/visits", "/maybe", "/visit"] {
        is_unavailable(&within(default, &browser, path).await, path);
    }
    assert_eq!(within(default, &browser, "/").await.body, "hello");
    // A crowd is not held up longer than one.
    let one_of_many = || {
        let browser = browser.clone();
        tokio::spawn(async move { within(default, &browser, "/visit").await.status })
    };
    let crowd: Vec<_> = (0..50).map(|_| one_of_many()).collect();
    for one in crowd {
        assert_eq!(one.await.unwrap(), 503);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    redis.resume();
    until("the recovery", async || browser.get("/visits").await.body == "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r84_a_create_whose_reply_is_lost_is_one_session() {
    let behind = Behind::start(|layer| layer).await;
    behind.redis.run(&["FLUSHDB"]);
    let stranger = behind.browser.stranger();
    behind.proxy.fault_next("EVALSHA", Action::DropReply);
    assert_eq!(stranger.get("/visit").await.status, 200);
    assert_eq!(stranger.get("/visits").await.body, "1");
    only_key(&behind.redis);
}

#[tokio::test(flavor = "multi_thread")]
async fn r84_a_rotation_whose_reply_is_lost_leaves_one_live_id() {
    let behind = Behind::start(|layer| layer).await;
    let old = behind.browser.copy();
    behind.proxy.fault_next("EVALSHA", Action::DropReply);
    assert_eq!(behind.browser.get("/rotate").await.status, 200);
    assert_eq!(behind.browser.get("/visits").await.body, "1");
    assert_eq!(old.get("/visits").await.body, "0");
    only_key(&behind.redis);
}

#[tokio::test(flavor = "multi_thread")]
async fn r84_a_write_whose_replies_are_all_lost_is_reported_and_not_repeated() {
    let behind = Behind::start(|layer| layer).await;
    behind.proxy.fault(|command| match command.name() {
        "EVALSHA" => Action::DropReply,
        _ => Action::Pass,
    });
    let page = in_time(&behind.browser, "/visit").await;
    is_unavailable(&page, "lost");
    assert!(page.header("x-error").unwrap().starts_with("OutcomeUnknown: "), "{page:?}");
    assert!(behind.seen.take().contains(&Event::StoreFailed(Kind::OutcomeUnknown)));
    // It ran, and only once, however often it was sent.
    behind.recovers("2").await;
}

/// The page says what its visitor has to do; a 503 would have him order again. But what nobody was told of is not passed over.
#[tokio::test(flavor = "multi_thread")]
async fn r84_a_handler_that_was_told_that_nobody_knows_answers_for_itself() {
    let behind = Behind::start(|layer| layer).await;
    assert_eq!(behind.browser.get("/order").await.body, "thank you");
    behind.proxy.fault(|command| match command.name() {
        "EVALSHA" => Action::DropReply,
        _ => Action::Pass,
    });
    let page = in_time(&behind.browser, "/order").await;
    assert_eq!((page.status.as_u16(), page.set_cookies().len()), (200, 0), "{page:?}");
    assert!(page.body.starts_with("we are not sure"), "{page:?}");
    is_unavailable(&in_time(&behind.browser, "/order-and-more").await, "an edit after that");
    // Each ran once, and the name was not written.
    behind.recovers("4").await;
    assert_eq!(behind.browser.get("/name").await.body, "");
}

/// What Redis, or what stands before it, may answer to a read; and whether it is the store or the record that is broken.
const BAD_ANSWERS: [(&str, &str, u16); 24] = [
    ("loading", "-LOADING Redis is loading the dataset in memory\r\n", 503),
    ("busy", "-BUSY Redis is busy running a script.\r\n", 503),
    ("a replica without its master", "-MASTERDOWN Link with MASTER is down\r\n", 503),
    ("a cluster that is down", "-CLUSTERDOWN The cluster is down\r\n", 503),
    ("a slot that moved", "-MOVED 3999 127.0.0.1:1\r\n", 503),
    ("a slot that is moving", "-ASK 3999 127.0.0.1:1\r\n", 503),
    ("a slot that is being moved", "-TRYAGAIN Multiple keys request during rehashing of slot\r\n", 503),
    ("read-only", "-READONLY You can't write against a read only replica.\r\n", 503),
    ("out of memory", "-OOM command not allowed when used memory > 'maxmemory'.\r\n", 503),
    ("a disk that is full", "-MISCONF Redis is configured to save RDB snapshots\r\n", 503),
    ("too few replicas", "-NOREPLICAS Not enough good replicas to write.\r\n", 503),
    ("no login", "-NOAUTH Authentication required.\r\n", 503),
    ("no permission", "-NOPERM this user has no permissions to run the 'hgetall' command\r\n", 503),
    ("an unknown command", "-ERR unknown command 'HGETALL', with args beginning with: 'sess:canary'\r\n", 503),
    ("too many clients", "-ERR max number of clients reached\r\n", 503),
    ("an error without a code", "-\r\n", 503),
    ("another type at the key", "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", 500),
    ("a status", "+OK\r\n", 503),
    ("a number", ":1\r\n", 503),
    ("half a pair", "*1\r\n$1\r\na\r\n", 503),
    ("a text", "$5\r\nhello\r\n", 503),
    ("a hash without a record", "*2\r\n$1\r\na\r\n$1\r\n1\r\n", 500),
    ("a list in a hash", "*2\r\n$1\r\na\r\n*1\r\n:1\r\n", 500),
    ("a record of no version", "*2\r\n$1\r\n@\r\n$11\r\n9 whatever.\r\n", 500),
];

#[tokio::test(flavor = "multi_thread")]
async fn r85_r86_a_store_that_fails_at_a_read_runs_no_handler_and_takes_no_cookie() {
    let behind = Behind::start(|layer| layer).await;
    for (what, reply, status) in BAD_ANSWERS {
        behind.answer("HGETALL", reply);
        behind.runs.store(0, Ordering::SeqCst);
        for path in ["/visits", "/maybe", "/visit", "/log-out"] {
            let page = in_time(&behind.browser, path).await;
            let shape = (page.status.as_u16(), page.body.as_str(), page.set_cookies().len());
            assert_eq!(shape, (status, "", 0), "{what}, {path}: {page:?}");
        }
        assert_eq!(behind.runs.load(Ordering::SeqCst), 0, "{what}");
        assert!(matches!(behind.seen.take()[0], Event::StoreFailed(_)), "{what}");
        assert_eq!(behind.browser.get("/").await.body, "hello", "{what}");
        behind.recovers("1").await;
        behind.seen.take();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r85_r86_a_connection_that_is_cut_at_every_read_runs_no_handler_and_takes_no_cookie() {
    for action in [Action::Cut, Action::DropReply] {
        let behind = Behind::start(|layer| layer).await;
        let fault = action.clone();
        behind.proxy.fault(move |command| match command.name() {
            "HGETALL" => fault.clone(),
            _ => Action::Pass,
        });
        for path in ["/visits", "/maybe", "/visit", "/log-out"] {
            is_unavailable(&in_time(&behind.browser, path).await, path);
        }
        assert_eq!(behind.runs.load(Ordering::SeqCst), 0, "{action:?}");
        behind.recovers("1").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r85_another_visitor_s_record_is_never_served() {
    let behind = Behind::start(|layer| layer).await;
    let mine = only_key(&behind.redis);
    let other = behind.browser.stranger();
    other.get("/visit").await;
    other.get("/rename").await;
    let theirs = behind.redis.run(&["KEYS", "*"]).texts().into_iter().find(|key| *key != mine).unwrap();
    behind.redis.run(&["COPY", &mine, "mine"]);
    behind.redis.run(&["COPY", &theirs, &mine, "REPLACE"]);
    let page = behind.browser.get("/name").await;
    assert_eq!((page.status.as_u16(), page.body.as_str()), (500, ""));
    assert!(page.header("x-error").unwrap().contains("another key"), "{page:?}");
    behind.redis.run(&["COPY", "mine", &mine, "REPLACE"]);
    assert_eq!(behind.browser.get("/visits").await.body, "1");
    assert_eq!(other.get("/name").await.body, "Bob");
}

#[tokio::test(flavor = "multi_thread")]
async fn r87_a_save_that_fails_replaces_the_answer_and_sends_no_cookie() {
    let behind = Behind::start(|layer| layer).await;
    behind.redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let (visitor, stranger) = (&behind.browser, behind.browser.stranger());
    for (who, browser) in [("a visitor", visitor), ("a stranger", &stranger)] {
        for path in ["/visit", "/rename"] {
            let page = in_time(browser, path).await;
            is_unavailable(&page, &format!("{who}, {path}"));
            assert_eq!(page.header("x-error").unwrap(), "Unavailable: Redis refused the command: OOM");
            assert_eq!(behind.seen.take(), [Event::StoreFailed(Kind::Unavailable)], "{who}, {path}");
        }
    }
    // Reading goes on.
    assert_eq!(visitor.get("/visits").await.body, "1");
    assert_eq!(stranger.get("/visits").await.body, "0");
    behind.redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(visitor.get("/visits").await.body, "1");
    only_key(&behind.redis);
}

#[tokio::test(flavor = "multi_thread")]
async fn r87_an_application_may_keep_its_answer_though_nothing_was_saved() {
    let behind = Behind::start(|layer| layer.if_not_saved(IfNotSaved::KeepResponse)).await;
    behind.answer("EVALSHA", "-OOM command not allowed when used memory > 'maxmemory'.\r\n");
    let (visitor, stranger) = (&behind.browser, behind.browser.stranger());
    for browser in [visitor, &stranger] {
        let page = browser.get("/visit").await;
        assert_eq!((page.status.as_u16(), page.set_cookies().len()), (200, 0));
        assert_eq!(behind.seen.take(), [Event::StoreFailed(Kind::Unavailable)]);
    }
    behind.recovers("1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r88_a_logout_that_fails_tells_so_removes_the_cookie_and_goes_on_trying() {
    let behind = Behind::start(|layer| layer).await;
    let replay = behind.browser.copy();
    behind.answer("EVALSHA", "-READONLY You can't write against a read only replica.\r\n");
    let page = in_time(&behind.browser, "/log-out").await;
    assert_eq!((page.status.as_u16(), page.body.as_str()), (503, ""));
    assert_eq!(page.set_cookies(), ["__Host-id=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0"]);
    assert_eq!(behind.browser.cookie(NAME), None);
    assert_eq!(behind.seen.take(), [Event::StoreFailed(Kind::Unavailable)]);
    assert_eq!(replay.get("/visits").await.body, "1", "nobody could end it yet");
    // Nobody asks again: the layer does.
    behind.proxy.clear_faults();
    let key = only_key(&behind.redis);
    until("the end", async || behind.redis.run(&["HEXISTS", &key, "@ended"]).int() == 1).await;
    // Redis has it a moment before its reply is here.
    until("the event", async || behind.seen.take().last() == Some(&Event::Destroyed)).await;
    assert_eq!(replay.get("/visits").await.body, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn r88_a_logout_whose_reply_is_lost_is_sent_again() {
    let behind = Behind::start(|layer| layer).await;
    behind.proxy.fault_next("EVALSHA", Action::DropReply);
    let page = in_time(&behind.browser, "/log-out").await;
    assert_eq!((page.status.as_u16(), page.body.as_str()), (200, "goodbye"));
    assert_eq!(behind.seen.take(), [Event::Destroyed]);
    assert_eq!(behind.redis.run(&["HEXISTS", &only_key(&behind.redis), "@ended"]).int(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn r89_no_error_tells_the_client_anything() {
    let redis = RedisServer::start();
    redis.run(&["CONFIG", "SET", "requirepass", "canary-password"]);
    let url = format!("redis://:canary-password@127.0.0.1:{}", redis.port());
    redis.command(&["AUTH", "canary-password"]);
    let layer = RedisSessionLayer::with_store(patient(&url, DEADLINE).await, keys()).size_limit(1000);
    let fail = async |session: Session| {
        session.insert("canary-name", "canary-data")?;
        session.get::<u64>("canary-name").map(drop)
    };
    let large = async |session: Session| session.insert("canary-name", &"x".repeat(2000));
    let reserved = async |session: Session| session.remove("@canary");
    let app = Router::new()
        .route("/visit", get(async |session: Session| session.insert("name", "canary-data")))
        .route("/field", get(fail))
        .route("/large", get(large))
        .route("/reserved", get(reserved))
        .route("/end", get(async |session: Session| session.destroy().await))
        .layer(layer);
    let lost = Router::new().route("/lost", get(async |_: Session| ()));
    let browser = Browser::new(app.merge(lost));
    browser.get("/visit").await;
    let (value, key) = (browser.cookie(NAME).unwrap(), only_key(&redis));
    let mut pages = Vec::new();
    for (path, status) in [("/field", 500), ("/large", 413), ("/reserved", 500), ("/lost", 500)] {
        let page = browser.get(path).await;
        assert_eq!(page.status, status, "{path}");
        pages.push(page);
    }
    redis.run(&["DEL", &key]);
    redis.run(&["SET", &key, "canary-data"]);
    pages.push(browser.get("/field").await);
    redis.kill();
    pages.push(browser.get("/visit").await);
    pages.push(browser.get("/end").await);
    for page in pages {
        assert!(page.status.is_client_error() || page.status.is_server_error(), "{page:?}");
        assert_eq!(page.body, "", "{page:?}");
        let head = format!("{:?}", page.headers);
        for canary in ["canary", "127.0.0.1", &redis.port().to_string(), "edis", &value, &key, "sess:"] {
            assert!(!head.contains(canary), "{canary}: {head}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_at_a_session_s_key_and_is_no_session_is_refused_told_and_left_alone() {
    let behind = Behind::start(|layer| layer).await;
    let key = only_key(&behind.redis);
    let record = behind.redis.run(&["HGET", &key, "@"]).text();
    let words: Vec<&str> = record.split(' ').collect();
    let without = |word: usize| {
        words.iter().enumerate().filter(|(at, _)| *at != word).map(|(_, w)| *w).collect::<Vec<_>>().join(" ")
    };
    let with = |word: usize, text: &str| {
        let mut words = words.clone();
        words[word] = text;
        words.join(" ")
    };
    let records = [
        without(4),        // when it was created, so its deadline
        without(8),        // whether it is remembered
        with(4, "-"),      // no creation
        with(5, "soon"),   // seen at no time
        with(1, "AAAAAA"), // another key's
        with(0, "2"),      // of a version to come
        with(2, "short"),  // no proof
        with(3, ""),       // no version
        with(4, "-1"),
        String::new(),
        "x".repeat(10_000),
    ];
    for record in records {
        behind.redis.run(&["HSET", &key, "@", &record]);
        is_refused(&behind, &key, &record).await;
    }
    behind.redis.run(&["HDEL", &key, "@"]);
    is_refused(&behind, &key, "a hash without a record").await;
    for command in [["SET", &key, "1"], ["LPUSH", &key, "1"], ["SADD", &key, "1"]] {
        behind.redis.run(&["DEL", &key]);
        behind.redis.run(&command);
        is_refused(&behind, &key, command[0]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_running_it_names_the_records_that_cannot_be_read_and_no_others() {
    let redis = RedisServer::start();
    let store = patient(&redis.url(), DEADLINE).await;
    let log_in = get(async |session: Session| session.log_in("ada").await);
    let app = app(RedisSessionLayer::with_store(store.clone(), keys()), &Runs::default());
    let app = app.merge(Router::new().route("/log-in", log_in).layer(RedisSessionLayer::with_store(store, keys())));
    let mut damaged = Vec::new();
    for change in ["", "", "", "", "HSET @ nothing", "HDEL @", "SET", "copied"] {
        let before = redis.run(&["KEYS", "sess:main:*"]).texts();
        let browser = Browser::new(app.clone());
        browser.get(if change.is_empty() { "/visit" } else { "/log-in" }).await;
        let is_session = |key: &String| !key.contains(":user:") && !before.contains(key);
        let key = redis.run(&["KEYS", "sess:main:*"]).texts().into_iter().find(is_session).unwrap();
        match change {
            "" => assert_eq!(browser.get(if before.len() < 2 { "/log-out" } else { "/rotate" }).await.status, 200),
            "HSET @ nothing" => drop(redis.run(&["HSET", &key, "@", "nothing"])),
            "HDEL @" => drop(redis.run(&["HDEL", &key, "@"])),
            "SET" => {
                redis.run(&["DEL", &key]);
                redis.run(&["SET", &key, "1"]);
            }
            _ => {
                let copy = format!("sess:main:{}", "x".repeat(22));
                redis.run(&["COPY", &key, &copy]);
                damaged.push(copy);
            }
        }
        if !change.is_empty() && change != "copied" {
            damaged.push(key);
        }
    }
    let page = include_str!("../../docs/running.md");
    let command = page.split("```sh\nredis-cli --scan").nth(1).unwrap().split("```").next().unwrap();
    let command = format!("redis-cli() {{ command redis-cli -p {} \"$@\"; }}\nredis-cli --scan{command}", redis.port());
    let said = std::process::Command::new("bash").args(["-c", &command]).output().unwrap();
    let mut named: Vec<_> = String::from_utf8(said.stdout).unwrap().lines().map(str::to_owned).collect();
    named.sort();
    damaged.sort();
    assert_eq!(named, damaged, "{}", String::from_utf8_lossy(&said.stderr));
}

async fn is_refused(behind: &Behind, key: &str, what: &str) {
    let before = behind.redis.run(&["DUMP", key]);
    behind.seen.take();
    behind.runs.store(0, Ordering::SeqCst);
    for path in ["/visits", "/visit", "/maybe", "/rotate", "/log-out"] {
        let page = behind.browser.get(path).await;
        let shape = (page.status.as_u16(), page.body.as_str(), page.set_cookies().len());
        assert_eq!(shape, (500, "", 0), "{what}, {path}");
        assert!(page.header("x-error").unwrap().starts_with("Corrupt: "), "{what}, {path}: {page:?}");
        assert_eq!(behind.seen.take(), [Event::StoreFailed(Kind::Corrupt)], "{what}, {path}");
    }
    assert_eq!(behind.runs.load(Ordering::SeqCst), 0, "{what}");
    assert_eq!(behind.redis.run(&["DUMP", key]), before, "{what}");
}

#[tokio::test]
async fn r98_wrong_settings_are_errors_at_start_that_say_what_to_do() {
    let layer = || RedisSessionLayer::with_store(Watched::new(), keys());
    let connect = async |url: &str| RedisSessionLayer::connect(url, keys()).await.map(drop);
    let table: [(Result<(), Error>, &str); 17] = [
        (connect("127.0.0.1:6379").await, "write redis://host:6379"),
        (connect("http://127.0.0.1").await, "write redis://host:6379"),
        (connect("redis://").await, "write redis://127.0.0.1:6379"),
        (connect("redis://127.0.0.1:0").await, "write redis://host:6379"),
        (connect("redis://127.0.0.1/first").await, "write redis://host:6379/0"),
        (KeyRing::new("too short").map(drop).map_err(Error::from), "use `openssl rand -base64 32`"),
        (KeyRing::new([7; 32]).map(drop).map_err(Error::from), "use `openssl rand -base64 32`"),
        (KeyRing::from_env("NO_SUCH_VARIABLE").map(drop).map_err(Error::from), "set it to the output of"),
        (layer().cookie(Cookie::named("__Host-id").path("/a")).check().map(drop), "begin it with \"__Secure-\""),
        (layer().cookie(Cookie::named("id").domain("a.example")).check().map(drop), "begins with \"__Secure-\""),
        (layer().cookie(Cookie::named("")).check().map(drop), "must not be empty"),
        (layer().cookie(Cookie::default().partitioned()).check().map(drop), "needs SameSite::None"),
        (
            layer().cookie(Cookie::insecure_for_development().same_site(SameSite::None)).check().map(drop),
            "use SameSite::Lax",
        ),
        (layer().expiry(Expiry::idle(Duration::MAX)).check().map(drop), "must be between"),
        (layer().expiry(Expiry::default().absolute(Duration::ZERO)).check().map(drop), "must be between"),
        (layer().realm("My Shop").check().map(drop), "small letters"),
        (layer().realm("").check().map(drop), "small letters"),
    ];
    for (result, text) in table {
        let error = result.unwrap_err();
        assert!(error.is_config() && error.to_string().contains(text), "{text}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_not_there_at_start_is_an_error_in_time_or_no_obstacle_where_asked() {
    let redis = RedisServer::start();
    redis.kill();
    let start = Instant::now();
    let error = RedisSessionLayer::connect(&redis.url(), keys()).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1) + SLACK, "{:?}", start.elapsed());
    let place = format!("Redis at 127.0.0.1:{} cannot be reached", redis.port());
    assert!(error.is_unavailable() && error.to_string() == place, "{error}");

    let store = RedisStore::options(&redis.url()).deadline(DEADLINE).start_without_redis().connect().await.unwrap();
    let runs = Runs::default();
    let browser = Browser::new(app(RedisSessionLayer::with_store(store, keys()), &runs));
    assert_eq!(in_time(&browser, "/").await.body, "hello");
    // Without a cookie there is nothing to read, and nothing can be written.
    assert_eq!(in_time(&browser, "/visits").await.body, "0");
    is_unavailable(&in_time(&browser, "/visit").await, "no Redis yet");
    redis.restart();
    until("Redis", async || browser.get("/visit").await.status == 200).await;
    assert_eq!(browser.get("/visits").await.body, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_goes_later_is_a_503_in_time_and_the_cookie_is_kept() {
    let behind = Behind::start(|layer| layer).await;
    let cookie = behind.browser.cookie(NAME);
    behind.redis.kill();
    for path in ["/visits", "/maybe", "/visit", "/log-out", "/visits"] {
        is_unavailable(&in_time(&behind.browser, path).await, path);
    }
    assert_eq!(behind.browser.cookie(NAME), cookie);
    behind.redis.restart();
    until("the recovery", async || behind.browser.get("/visits").await.status == 200).await;
    assert_eq!(
        behind.browser.cookie(NAME),
        cookie,
        "nothing is stored for it any more, and still it is not taken away"
    );
    assert_eq!(behind.runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_application_renders_its_own_page_for_an_error_of_the_session() {
    async fn own_pages(response: Response) -> Response {
        match response.extensions().get::<Error>() {
            Some(error) if error.is_unavailable() => {
                let retry = response.headers().get("retry-after").cloned().unwrap();
                (response.status(), [("retry-after", retry)], Html("<h1>Back in a moment</h1>")).into_response()
            }
            Some(error) if error.is_too_large() => (response.status(), "that is too much").into_response(),
            _ => response,
        }
    }
    let store = Watched::new();
    let layer = RedisSessionLayer::with_store(store.clone(), keys()).size_limit(100);
    let large = async |session: Session| session.insert("text", &"x".repeat(200));
    let app = Router::new()
        .route("/visit", get(async |session: Session| session.increment("visits", 1)))
        .route("/large", get(large))
        .layer(layer)
        .layer(map_response(own_pages));
    let browser = Browser::new(app);
    let page = browser.get("/large").await;
    assert_eq!((page.status.as_u16(), page.body.as_str()), (413, "that is too much"));
    browser.get("/visit").await;
    store.fail(Kind::Unavailable);
    // At the read of a visitor, and at the write of a stranger.
    for browser in [browser.clone(), browser.stranger()] {
        let page = browser.get("/visit").await;
        assert_eq!((page.status.as_u16(), page.body.as_str()), (503, "<h1>Back in a moment</h1>"));
        assert_eq!(page.header("retry-after").unwrap(), "1");
    }
    store.heal();
    assert_eq!(browser.get("/visit").await.status, 200);
}
