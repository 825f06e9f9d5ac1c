//! What the log and the observers are told, and what they are never told.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Request;
use redis_session::{
    Cookie, Error, Event, Expiry, KeyRing, Kind, MemoryStore, Observer, RedisSessionLayer, RedisStore, Refusal,
    Session, Store, Why,
};
use redis_session_core::{
    Changes, Create, End, Fields, Level, LogIn, Previous, Proof, Random, Reason, Record, ReplacedBy, Save, SessionId,
    Staged, Step, Stored, Time, Token, Tokens, User, Whose, WishChange, Wishes, Working,
};
use redis_session_testkit::{Browser, RedisServer};
use serde::{Deserialize, Serialize};
use tower::Layer;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::visitor::make_older;
use crate::watched::{Seen, Watched, forged};

const NAME: &str = "__Host-id";

/// All that was logged on this thread, one event or span a line.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
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
        String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap()
    }

    /// The names of the life-cycle events, in their order.
    fn events(&self) -> Vec<String> {
        let name = |line: &str| Some(line.split_once(" event=\"")?.1.split_once('"')?.0.to_owned());
        self.text().lines().filter(|line| line.contains("redis_session:")).filter_map(name).collect()
    }
}

#[tokio::test]
async fn r57_a_record_from_the_future_is_told_to_the_log() {
    let redis = RedisServer::start();
    let layer = RedisSessionLayer::connect(&redis.url(), KeyRing::random().unwrap()).await.unwrap();
    let browser = Browser::new(app(layer));
    browser.get("/visit").await;
    make_older(&redis, -600_000);
    let (log, _guard) = Log::listen();
    browser.get("/visitor").await;
    let text = log.text();
    let told: Vec<_> = text.lines().filter(|line| line.contains("from the future")).collect();
    assert!(matches!(&told[..], [line] if line.contains(" WARN ") && line.contains("corrupt record")), "{told:?}");
}

/// fred tells nobody why it does not connect again, and a password that is wrong looks like a Redis that is away.
#[tokio::test]
async fn why_redis_cannot_be_connected_is_told_once_and_by_each_answer() {
    let (log, _guard) = Log::listen();
    let redis = RedisServer::start();
    redis.run(&["CONFIG", "SET", "requirepass", "canary-password"]);
    let url = format!("redis://:canary-wrong@127.0.0.1:{}", redis.port());
    let store = RedisStore::options(&url).start_without_redis().connect().await.unwrap();
    let causes = |error: redis_session_core::Error| {
        let mut text = error.to_string();
        let mut cause = StdError::source(&error);
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    };
    let mut answer = String::new();
    for _ in 0..400 {
        answer = causes(store.ping().await.unwrap_err());
        if answer.contains("WRONGPASS") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(answer.contains("Redis is not connected") && answer.contains("WRONGPASS"), "{answer}");
    // It is tried again each fifth of a second, and told once.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let text = log.text();
    let told: Vec<_> = text.lines().filter(|line| line.contains("cannot be connected")).collect();
    assert!(told.len() == 1 && told[0].contains(" WARN ") && told[0].contains("WRONGPASS"), "{told:?}");
    assert!(!format!("{answer}{told:?}").contains("canary"));
    redis.command(&["AUTH", "canary-password"]);
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Visitor {
    visits: u64,
    secret: String,
}

fn app(layer: RedisSessionLayer) -> Router {
    let update = async |mut visitor: Session<Visitor>| {
        visitor.update(|visitor| visitor.visits += 1)?;
        visitor
            .transaction(|visitor| {
                visitor.secret.push_str("canary-data");
                Ok::<_, Error>(())
            })
            .await
    };
    let fail = async |session: Session| {
        session.increment("visits", 1)?;
        Ok::<_, Error>(http::StatusCode::INTERNAL_SERVER_ERROR)
    };
    Router::new()
        .route("/", get(async |session: Session| format!("{:?}", session.status())))
        .route("/visit", get(async |session: Session| session.insert("secret", "canary-data")))
        .route("/update", get(update))
        .route("/visitor", get(async |_: Session<Visitor>| ()))
        .route("/rotate", get(async |session: Session| session.rotate().await))
        .route("/remember", get(async |session: Session| session.remember(Duration::from_secs(99_999)).await))
        .route("/large", get(async |session: Session| session.insert("secret", &"canary-data".repeat(9000))))
        .route("/fail", get(fail))
        .route("/log-out", get(async |session: Session| session.destroy().await))
        .layer(layer)
}

fn with_value(path: &str, value: &str) -> Request<axum::body::Body> {
    let line = format!("other=canary-cookie; {NAME}={value}");
    Request::get(path).header("cookie", line).body(Default::default()).unwrap()
}

/// Everything that must not be told, and its parts where a part would do.
#[derive(Default)]
struct Canaries(HashSet<String>);

impl Canaries {
    fn add(&mut self, text: &str) {
        self.0.insert(text.to_owned());
    }

    /// Runs of twelve characters of a secret.
    fn add_parts(&mut self, secret: &str) {
        let parts = secret.as_bytes().windows(12).filter_map(|part| std::str::from_utf8(part).ok());
        self.0.extend(parts.map(str::to_owned));
    }

    fn add_bytes(&mut self, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        for text in [STANDARD.encode(bytes), URL_SAFE_NO_PAD.encode(bytes), hex.to_uppercase(), hex] {
            self.add_parts(&text);
        }
        let list = format!("{bytes:?}");
        self.add(&list[1..list.len() - 1]);
    }

    fn assert_absent(&self, text: &str) {
        for line in text.lines() {
            for canary in &self.0 {
                assert!(!line.contains(canary), "{canary} is in {line}");
            }
        }
    }
}

struct Panics;

impl Observer for Panics {
    fn observe(&self, _: Event) {
        panic!("this observer always does");
    }
}

#[tokio::test]
async fn r92_no_secret_is_in_any_log_span_error_or_debug_text() {
    let (log, _guard) = Log::listen();
    let mut canaries = Canaries::default();
    for text in ["canary-data", "canary-password", "canary-cookie"] {
        canaries.add(text);
    }
    let master: [u8; 32] = Random::system().array().unwrap();
    canaries.add_bytes(&master);
    let keys = KeyRing::new(master).unwrap();
    let mut told = format!("{keys:?} {:?}", keys.signer("main", NAME));

    let redis = RedisServer::start();
    redis.run(&["CONFIG", "SET", "requirepass", "canary-password"]);
    redis.command(&["AUTH", "canary-password"]);
    let url = format!("redis://:canary-password@127.0.0.1:{}", redis.port());
    let wrong = RedisStore::connect(&url.replace("-password", "-password-wrong")).await.unwrap_err();
    told += &in_full(&wrong);
    let options = RedisStore::options(&url).deadline(Duration::from_secs(2));
    told += &format!("{options:?}");
    let store = options.connect().await.unwrap();
    told += &format!("{store:?}");
    let layer = RedisSessionLayer::with_store(store.clone(), keys.clone()).observer(Panics);
    told += &format!("{layer:?} {:?}", layer.layer(()));
    let browser = Browser::new(app(layer));

    // A life, with all that can go wrong in it.
    let mut values = Vec::new();
    for path in
        ["/", "/visit", "/visit", "/update", "/visitor", "/rotate", "/update", "/remember", "/large", "/fail", "/"]
    {
        let page = browser.get(path).await;
        told += &format!("{:?}", page.headers);
        values.extend(browser.cookie(NAME));
    }
    let key = redis.run(&["KEYS", "*"]).texts().remove(0);
    canaries.add(&key);
    canaries.add_parts(key.rsplit(':').next().unwrap());
    canaries.add(redis.run(&["HGET", &key, "@"]).text().split(' ').nth(2).unwrap());
    let old = values[0].clone();
    let forged = format!("{}{}", &values[1][..50], &values[3][50..]);
    for value in [old.as_str(), &forged, "canary-cookie", "", &old[..50]] {
        for path in ["/", "/visit", "/log-out"] {
            browser.ask(with_value(path, value)).await;
        }
    }
    redis.run(&["HSET", &key, "secret", "canary-data, which is no JSON"]);
    browser.get("/visitor").await;
    redis.run(&["HSET", &key, "@", "canary-data"]);
    browser.get("/visitor").await;
    redis.run(&["DEL", &key]);
    redis.run(&["SET", &key, "canary-data"]);
    browser.get("/visitor").await;
    redis.run(&["DEL", &key]);
    for path in ["/", "/visit", "/log-out"] {
        browser.get(path).await;
        values.extend(browser.cookie(NAME));
    }
    browser.get("/visit").await;
    values.extend(browser.cookie(NAME));
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    browser.get("/update").await;
    browser.get("/log-out").await;
    redis.kill();
    browser.get("/visit").await;
    Browser::new(Router::new().route("/", get(async |_: Session<Visitor>| ()))).get("/").await;
    values.dedup();
    assert!(values.len() >= 4, "{}", values.len());
    for value in &values {
        canaries.add_parts(&value[1..]);
    }

    told += &debug_texts(&mut canaries).await;
    told += &log.text();
    assert!(told.lines().count() > 100 && told.contains("store failed") && told.contains("the store"), "{told}");
    for (library, at_least) in [("redis_session", 50), ("fred", 1)] {
        assert!(log.text().matches(library).count() >= at_least, "nothing of {library} was heard");
    }
    canaries.assert_absent(&told);
}

fn in_full(error: &dyn StdError) -> String {
    let mut text = format!("{error} {error:?}\n");
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!("{cause} {cause:?}\n");
        source = cause.source();
    }
    text
}

/// Every public type that has a text form, around a session with canaries.
async fn debug_texts(canaries: &mut Canaries) -> String {
    let random = Random::system();
    let (id, token) = (SessionId::random(&random).unwrap(), Token::random(&random).unwrap());
    let key = id.key(&"main".into());
    let signer = KeyRing::random().unwrap().signer("main", NAME);
    canaries.add_parts(&signer.sign(&id)[1..]);
    canaries.add_parts(key.to_text().rsplit(':').next().unwrap());
    canaries.add(&id.proof().to_text());
    let proof: Proof = id.proof();
    let fields = Fields::from_pairs(vec![("secret".into(), "\"canary-data\"".into())]);
    let wish = WishChange { idle: Some(Some(60_000)), remember: None };
    let now = Time::from_millis(1_800_000_000_000);
    let life = Expiry::default().life();
    let user = User::new("canary-user").unwrap();
    canaries.add("canary-user");
    canaries.add("canary-label");
    let label = Some("canary-label".to_owned());
    let log_in = LogIn { user: user.clone(), level: Level::FULL, label, waited: Duration::ZERO };
    let record = Record {
        tokens: Tokens::first(token),
        proof,
        proved: now,
        previous: Some(Previous { proof, by: ReplacedBy::Login, at: now }),
        created: now,
        seen: now,
        wishes: Wishes::default(),
        login: Some(Box::new(log_in.at(now))),
        fields: fields.clone(),
    };
    let mut working = Working::new(Fields::default());
    working.insert("secret", "canary-data").unwrap();
    let staged: Staged = working.stage();
    let changes: Changes = staged.changes.clone();
    let create =
        Create { token, not_after: now, proof, life, wish, login: Some(log_in.clone()), fields: fields.clone() };
    let save = Save {
        token: Some(token),
        earlier: vec![token],
        not_after: now,
        proof,
        base: token,
        merges: true,
        changes: changes.clone(),
        step: Step::LogIn(proof, log_in.clone()),
        renews: true,
        wish,
        life,
        limit: 1,
    };
    let end = End { not_after: now, reason: Reason::Destroyed, whose: Whose::Users(user.clone()) };
    let memory = MemoryStore::new();
    memory.create(&key, &create).await.unwrap();
    let session = Session::detached(Visitor { visits: 1, secret: "canary-data".into() }).await.unwrap();
    let view = session.view::<Visitor>().unwrap();
    let found = memory.load(&key).await.unwrap();
    let stored = Stored::Record(record.clone());
    let look = redis_session_core::look_at(found.clone(), proof, &life, None, Duration::ZERO);
    let cookie = Cookie::default();
    let mut text = format!("{id:?} {proof:?} {key:?} {signer:?} {random:?} {fields:?} {record:?} {stored:?} {found:?}");
    text += &format!("{staged:?} {changes:?} {create:?} {save:?} {end:?} {memory:?} {look:?} {cookie:?}");
    text += &format!("{session:?} {view:?} {:?} {:?}", session.status(), session.expires_at());
    let sessions = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random().unwrap()).sessions();
    text += &format!("{user:?} {:?} {sessions:?} {:?}", user.key(&"main".into()), session.handle());
    let errors = [
        session.get::<u64>("secret").unwrap_err(),
        session.insert("@secret", "canary-data").unwrap_err(),
        session.increment("secret", 1).unwrap_err(),
        session.view::<std::collections::BTreeMap<String, u64>>().unwrap_err(),
        KeyRing::new("canary-data").unwrap_err().into(),
        Error::from(redis_session_core::Error::field(b"secret", "does not fit")),
    ];
    for error in &errors {
        text += &in_full(error);
    }
    text
}

#[tokio::test]
async fn r94_what_happens_is_told_in_its_order_to_the_observer_and_to_the_log() {
    let (log, _guard) = Log::listen();
    let (store, seen) = (Watched::new(), Seen::default());
    let layer = RedisSessionLayer::with_store(store.clone(), KeyRing::random().unwrap());
    let browser = Browser::new(app(layer.observer(seen.clone())));
    let saved = Event::Saved { tries: 1 };
    let refused = |refusal| Event::Refused(refusal);
    let mut all: Vec<&str> = Vec::new();
    let mut told = |expected: &[Event], what: &str| {
        assert_eq!(seen.take(), expected, "{what}");
        all.extend(expected.iter().map(Event::name));
        assert_eq!(log.events(), all, "{what}");
    };
    let at = async |path: &str| drop(browser.get(path).await);

    at("/").await;
    told(&[], "a stranger");
    at("/visit").await;
    told(&[Event::Created], "the first edit");
    at("/visit").await;
    told(&[], "an edit that changes nothing");
    at("/update").await;
    told(&[saved], "an update and a transaction");
    at("/").await;
    told(&[], "a read");
    store.clock().advance(Duration::from_secs(61));
    at("/").await;
    told(&[Event::Touched], "a read when a touch is due");
    let before = browser.copy();
    at("/rotate").await;
    told(&[saved, Event::Rotated], "a rotation");
    before.get("/").await;
    told(&[refused(Refusal::Replaced)], "the old id with nothing to say");
    before.get("/update").await;
    told(&[refused(Refusal::Replaced), Event::Dropped(Why::Dead)], "the old id with an edit");
    at("/remember").await;
    told(&[saved, Event::Remembered], "to be remembered");
    at("/fail").await;
    told(&[Event::Dropped(Why::Failed)], "an answer that failed");
    at("/large").await;
    told(&[], "an edit that was refused at once");
    store.fail(Kind::Unavailable);
    at("/").await;
    told(&[Event::StoreFailed(Kind::Unavailable)], "a store that fails");
    store.heal();
    let value = browser.cookie(NAME).unwrap();
    at("/log-out").await;
    told(&[Event::Destroyed], "a logout");
    browser.ask(with_value("/", &value)).await;
    told(&[refused(Refusal::Ended)], "a replay");
    store.clock().advance(Duration::from_secs(61));
    browser.ask(with_value("/", &value)).await;
    told(&[refused(Refusal::Unknown)], "a replay after a minute");
    for (value, refusal) in [
        ("x".to_owned(), Refusal::Malformed),
        (forged(&value), Refusal::BadSignature),
        (format!("1AAAAAA{}", &value[7..]), Refusal::UnknownKey),
    ] {
        browser.ask(with_value("/", &value)).await;
        told(&[refused(refusal)], &value);
    }
    at("/log-out").await;
    told(&[], "a logout of nobody");
    for line in log.text().lines().filter(|line| line.contains(" event=\"")) {
        assert!(line.contains("realm=\"main\""), "{line}");
    }
    assert_eq!(log.text().matches("the test wants it so").count(), 1, "a failure is told once, with its cause");
}

#[tokio::test]
async fn r95_what_a_visitor_wrote_is_one_bounded_line_at_most() {
    let (log, _guard) = Log::listen();
    let hostile = format!("a\r\nERROR forged\u{1b}[31m\u{202e}\0{}", "x".repeat(1 << 20));
    let name = hostile.clone();
    let handler = async move |session: Session| {
        let reserved = session.insert(&format!("@{name}"), &1).unwrap_err();
        session.insert(&name, &name).unwrap_err();
        let short: String = name.chars().take(300).collect();
        session.insert(&short, "text").unwrap();
        let (number, count) = (session.get::<u64>(&short).unwrap_err(), session.increment(&short, 1).unwrap_err());
        for error in [&reserved, &number, &count] {
            tracing::error!(error = error as &dyn StdError, "{error} {error:?}");
        }
        number
    };
    let layer = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random().unwrap());
    let browser = Browser::new(Router::new().route("/", get(handler)).layer(layer));
    let value = format!("{NAME}={}", "x".repeat(9000));
    let request = Request::get("/")
        .header("cookie", value)
        .header("user-agent", "\u{202e}".as_bytes())
        .body(Default::default())
        .unwrap();
    assert_eq!(browser.ask(request).await.status, 500);
    let text = log.text();
    assert!(text.contains("forged"), "the errors were logged");
    for line in text.lines() {
        assert!(line.len() < 1000, "{} bytes: {}", line.len(), &line[..300]);
        assert!(line.starts_with("20"), "not a line of its own: {line}");
        assert!(!line.contains(['\u{1b}', '\u{202e}', '\r', '\0']), "{line:?}");
    }
}

/// Counts by what a metric would have as its labels.
#[derive(Clone, Default)]
struct Labels(Arc<Mutex<HashSet<(&'static str, &'static str)>>>);

impl Observer for Labels {
    fn observe(&self, event: Event) {
        self.0.lock().unwrap().insert((event.name(), event.reason()));
    }
}

#[tokio::test]
async fn r96_labels_come_from_a_small_fixed_set_however_many_visitors_there_are() {
    let (store, labels) = (Watched::new(), Labels::default());
    let layer = RedisSessionLayer::with_store(store.clone(), KeyRing::random().unwrap()).observer(labels.clone());
    let app = app(layer);
    let count = || labels.0.lock().unwrap().len();
    let mut after_the_first = 0;
    for n in 0..10_000 {
        let browser = Browser::new(app.clone());
        browser.get("/visit").await;
        let value = browser.cookie(NAME).unwrap();
        browser.ask(with_value("/", &forged(&value))).await;
        browser.ask(with_value("/", &n.to_string())).await;
        if n % 10 == 0 {
            for path in ["/update", "/rotate", "/fail", "/log-out", "/"] {
                browser.get(path).await;
            }
            browser.ask(with_value("/", &value)).await;
        }
        if n == 100 {
            after_the_first = count();
        }
    }
    assert_eq!(count(), after_the_first);
    assert!((7..20).contains(&count()), "{:?}", labels.0.lock().unwrap());
}

#[tokio::test]
async fn r97_each_kind_of_a_bad_cookie_is_counted_as_itself() {
    let (store, seen) = (Watched::new(), Seen::default());
    let (old, new) = (KeyRing::random().unwrap(), KeyRing::random().unwrap());
    let app_of = |keys: &KeyRing| {
        let layer = RedisSessionLayer::with_store(store.clone(), keys.clone());
        app(layer.observer(seen.clone()))
    };
    let (one, two) = (Browser::new(app_of(&new)), Browser::new(app_of(&new)));
    one.get("/visit").await;
    two.get("/visit").await;
    let removed = Browser::new(app_of(&old));
    removed.get("/visit").await;
    let (value, other) = (one.cookie(NAME).unwrap(), two.cookie(NAME).unwrap());
    let elsewhere = Browser::new(app(RedisSessionLayer::with_store(MemoryStore::new(), new.clone())));
    elsewhere.get("/visit").await;
    seen.take();
    let classes = [
        ("rubbish".to_owned(), Refusal::Malformed),
        (forged(&value), Refusal::BadSignature),
        (removed.cookie(NAME).unwrap(), Refusal::UnknownKey),
        (elsewhere.cookie(NAME).unwrap(), Refusal::Unknown),
        (format!("{value}; {NAME}={other}"), Refusal::SeveralIds),
        (format!("{value}; x={}", "y".repeat(130 * 1024)), Refusal::HeaderTooLarge),
    ];
    for (value, refusal) in classes {
        let stranger = one.stranger();
        assert_eq!(stranger.ask(with_value("/", &value)).await.status, 200, "{refusal:?}");
        assert_eq!(seen.take(), [Event::Refused(refusal)]);
    }
}

#[tokio::test]
async fn r93_the_log_has_a_name_for_a_session_that_is_worth_nothing() {
    let (log, _guard) = Log::listen();
    let keys = KeyRing::random().unwrap();
    let store = Watched::new();
    let layer_of = |keys: &KeyRing| RedisSessionLayer::with_store(store.clone(), keys.clone());
    let browser = Browser::new(app(layer_of(&keys)));
    browser.get("/visit").await;
    let names = async |browser: &Browser<Router>| {
        let before = log.text().len();
        browser.get("/").await;
        let text = log.text();
        let names: HashSet<String> = text[before..]
            .split("session=\"")
            .skip(1)
            .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
            .collect();
        assert_eq!(names.len(), 1, "{}", &text[before..]);
        names.into_iter().next().unwrap()
    };
    let name = names(&browser).await;
    assert_eq!(names(&browser).await, name);
    let other = browser.stranger();
    other.get("/visit").await;
    assert_ne!(names(&other).await, name);

    let both = KeyRing::new([
        7, 1, 9, 200, 3, 44, 5, 61, 17, 8, 99, 101, 12, 250, 14, 15, 16, 33, 18, 19, 2, 21, 22, 231, 24, 25, 126, 27,
        28, 129, 30, 31,
    ])
    .unwrap();
    let elsewhere = Browser::new(app(layer_of(&both)));
    elsewhere.get("/visit").await;
    assert_ne!(names(&elsewhere).await, name);

    browser.get("/rotate").await;
    let rotated = names(&browser).await;
    assert_ne!(rotated, name);
    for value in [name, rotated] {
        let page = browser.stranger().ask(with_value("/", &value)).await;
        assert_eq!((page.status.as_u16(), page.set_cookies().len()), (200, 0));
    }
}

#[tokio::test]
async fn without_a_layer_a_handler_answers_500_and_one_line_of_the_log_names_the_type() {
    enum Office {}
    type Of<T, L = redis_session::Main> = Session<T, L>;
    let layer = RedisSessionLayer::with_store(Watched::new(), KeyRing::random().unwrap());
    let app = Router::new()
        .route("/office", get(async |_: Of<Visitor, Office>| ()))
        .layer(layer)
        .route("/untyped", get(async |_: Session| ()))
        .route("/typed", get(async |_: Session<Visitor>| ()))
        .route("/optional", get(async |_: Option<Session<Visitor>>| ()));
    for (path, names) in [
        ("/untyped", ["::Session: add", ""]),
        ("/typed", ["::Session<", "logging::Visitor>: add"]),
        ("/optional", ["::Session<", "logging::Visitor>: add"]),
        ("/office", ["logging::Visitor, ", "::Office>: add"]),
    ] {
        let (log, _guard) = Log::listen();
        let page = Browser::new(app.clone()).get(path).await;
        assert_eq!((page.status.as_u16(), page.body.as_str(), page.set_cookies().len()), (500, "", 0), "{path}");
        let text = log.text();
        assert_eq!(text.lines().filter(|line| line.contains("ERROR")).count(), 1, "{path}: {text}");
        assert!(text.contains("add RedisSessionLayer"), "{path}: {text}");
        assert!(names.iter().all(|name| text.contains(name)), "{path}: {text}");
    }
}

#[tokio::test]
async fn r40_an_observer_that_panics_is_in_the_log() {
    let (log, _guard) = Log::listen();
    let layer = RedisSessionLayer::with_store(Watched::new(), KeyRing::random().unwrap()).observer(Panics);
    let browser = Browser::new(app(layer));
    browser.get("/visit").await;
    browser.get("/log-out").await;
    assert_eq!(log.text().matches("an observer panicked").count(), 2, "{}", log.text());
    assert_eq!(log.events().iter().filter(|name| *name == "destroyed").count(), 2, "{:?}", log.events());
}
