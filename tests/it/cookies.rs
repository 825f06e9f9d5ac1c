//! The session's cookie as browsers and attackers meet it: what is sent, what is taken, and what it costs.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{AppendHeaders, IntoResponse};
use axum::routing::{any, get};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Request;
use redis_session::{
    Clock, Cookie, Error, Event, Expiry, KeyRing, Kind, MemoryStore, RedisSessionLayer, Refusal, SameSite, Session,
    Status,
};
use redis_session_core::{Error as CoreError, Random, SessionId};
use redis_session_testkit::{Browser, Page, RedisServer};

use crate::visitor::{Place, Visitor, on_both_stores};
use crate::watched::{Calls, Seen, Watched, forged, patient};

const NAME: &str = "__Host-id";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn keys() -> KeyRing {
    KeyRing::random().unwrap()
}

fn layer(store: &Watched) -> RedisSessionLayer {
    RedisSessionLayer::with_store(store.clone(), keys())
}

fn app(layer: RedisSessionLayer) -> Router {
    let status = |session: &Session| match session.status() {
        Status::New => "new",
        Status::Alive => "alive",
        Status::Ended(_) => "ended",
        _ => "replaced",
    };
    Router::new()
        .route("/", any(async move |session: Session| status(&session)))
        .route("/visit", any(async |session: Session| session.increment("visits", 1)))
        .route("/rotate", get(async |session: Session| session.rotate().await))
        .route("/log-out", get(async |session: Session| session.destroy().await))
        .route("/remember/{days}", get(remember))
        .layer(layer)
}

async fn remember(
    session: Session,
    axum::extract::Path(days): axum::extract::Path<u32>,
) -> Result<(), redis_session::Error> {
    session.remember((days > 0).then_some(days * DAY)).await
}

fn with_cookies<'a>(path: &str, lines: impl IntoIterator<Item = &'a [u8]>) -> Request<Body> {
    let mut request = Request::get(path);
    for line in lines {
        request = request.header("cookie", line);
    }
    request.body(Body::empty()).unwrap()
}

async fn with_value(browser: &Browser<Router>, path: &str, value: &str) -> Page {
    browser.ask(with_cookies(path, [format!("{NAME}={value}").as_bytes()])).await
}

/// A browser that has a session, and its cookie's value.
async fn visitor(app: Router) -> (Browser<Router>, String) {
    let browser = Browser::new(app);
    assert_eq!(browser.get("/visit").await.status, 200);
    let value = browser.cookie(NAME).unwrap();
    (browser, value)
}

#[tokio::test]
async fn r01_two_applications_of_the_same_keys_and_one_stopped_clock_give_different_ids() {
    const VISITORS: usize = 200;
    let (keys, clock) = (keys(), Clock::manual());
    let mut halves = HashSet::new();
    for _ in 0..2 {
        let store = MemoryStore::new().clock(clock.clone());
        let app = app(RedisSessionLayer::with_store(store, keys.clone()));
        for _ in 0..VISITORS {
            let (browser, value) = visitor(app.clone()).await;
            browser.get("/rotate").await;
            let rotated = browser.cookie(NAME).unwrap();
            let [first, second] = [value, rotated].map(|value| URL_SAFE_NO_PAD.decode(&value[1..]).unwrap());
            // After four bytes of the key's id: which session it is, which stays at a rotation, and what proves the right to it.
            assert_eq!(first[4..20], second[4..20]);
            halves.extend([&first[4..20], &first[20..36], &second[20..36]].map(<[u8]>::to_vec));
        }
    }
    assert_eq!(halves.len(), 2 * VISITORS * 3);
}

#[tokio::test]
async fn r02_a_generator_that_fails_gives_no_session_and_no_cookie() {
    // It works so many times; an id takes two, a write one more.
    for works in 0..3 {
        let store = Watched::new();
        let left = Arc::new(AtomicUsize::new(works));
        let random = Random::scripted(move |bytes| {
            bytes.fill(7);
            let took = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            took.map(|_| ()).map_err(|_| CoreError::new(Kind::Random, "the generator is broken"))
        });
        let browser = Browser::new(app(layer(&store).random(random)));
        let page = browser.get("/visit").await;
        assert_eq!((page.status.as_u16(), page.body.as_str(), page.set_cookies().len()), (500, "", 0), "{works}");
        assert_eq!((store.len(), store.calls()), (0, Calls::default()), "{works}");
    }
}

#[tokio::test]
async fn r02_a_generator_that_fails_at_a_rotation_leaves_the_session_as_it_was() {
    let store = Watched::new();
    let (keys, broken) = (keys(), Random::scripted(|_| Err(CoreError::new(Kind::Random, "the generator is broken"))));
    let whole = RedisSessionLayer::with_store(store.clone(), keys.clone());
    let (browser, value) = visitor(app(whole)).await;
    let broken = Browser::new(app(RedisSessionLayer::with_store(store.clone(), keys).random(broken)));
    for path in ["/rotate", "/visit"] {
        let page = with_value(&broken, path, &value).await;
        assert_eq!((page.status.as_u16(), page.set_cookies().len()), (500, 0), "{path}");
    }
    assert_eq!(browser.get("/").await.body, "alive");
}

/// A generator whose first so many ids are one and the same. Versions of records differ.
fn repeats_ids(times: usize) -> Random {
    let left = AtomicUsize::new(2 * times);
    Random::scripted(move |bytes| {
        let half_of_an_id = bytes.len() == 16;
        if half_of_an_id && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            bytes.fill(7);
            return Ok(());
        }
        Random::system().array::<16>().map(|random| bytes.copy_from_slice(&random[..bytes.len()]))
    })
}

#[tokio::test]
async fn r05_where_the_generator_repeats_an_id_its_session_stays_whole_and_nobody_else_gets_it() {
    on_both_stores(async |place| {
        let server = |repeats| place.layer.clone().random(repeats_ids(repeats));
        let (stuck, once) = (server(usize::MAX / 2), || server(1));
        let ada = place.visitor().before(&stuck);
        ada.visit(async |session| session.insert("cart", &["tea"])).await;
        let adas = (ada.cookie(), ada.fields().await);
        let begins = async |session: Session| session.insert("cart", &["poison"]);
        let logs_in = |user| async move |session: Session| session.log_in(user).await;

        for answer in [
            place.visitor().before(&stuck).try_visit(begins).await,
            place.visitor().before(&stuck).try_visit(logs_in("bob")).await,
        ] {
            assert_eq!((answer.page.status.as_u16(), answer.page.set_cookies().len()), (500, 0));
            assert!(answer.error.unwrap().to_string().contains("the same ids again and again"));
        }
        assert!(place.layer.sessions().list("bob").await.unwrap().is_empty());
        place.layer.sessions().revoke_all("bob").await.unwrap();
        assert_eq!((ada.cookie(), ada.fields().await), adas);

        // The next id is another one.
        let (begun, logged_in) = (place.visitor().before(&once()), place.visitor().before(&once()));
        begun.visit(begins).await;
        logged_in.visit(logs_in("carl")).await;
        assert_eq!(logged_in.visit(async |session| session.user::<String>()).await.as_deref(), Some("carl"));
        assert_eq!((ada.cookie(), ada.fields().await), adas);
    })
    .await;
}

#[tokio::test]
async fn r101_who_comes_while_the_key_is_changed_stays_and_with_the_old_key_goes_who_has_no_new_cookie() {
    let (old, new): ([u8; 32], [u8; 32]) = (Random::system().array().unwrap(), Random::system().array().unwrap());
    let store = Watched::new();
    let server = |keys: Result<KeyRing, CoreError>| RedisSessionLayer::with_store(store.clone(), keys.unwrap());
    let user = async |visitor: &Visitor| visitor.visit(async |session| session.user::<String>()).await;
    let signed_by = |visitor: &Visitor| visitor.cookie().unwrap()[..6].to_owned();
    let before = Place::around(server(KeyRing::new(old)), None);
    let (ada, bob) = (before.visitor(), before.visitor());
    for (visitor, name) in [(&ada, "ada"), (&bob, "bob")] {
        visitor.visit(async |session| session.log_in(name).await).await;
    }
    let (cookie, old_key) = (ada.cookie(), signed_by(&ada));

    let both = server(KeyRing::new(new).and_then(|keys| keys.previous(old)));
    let (ada, bob) = (ada.before(&both), bob.before(&both));
    ada.visit(async |session| session.insert("cart", &["tea"])).await;
    assert_eq!((user(&ada).await.as_deref(), user(&bob).await.as_deref()), (Some("ada"), Some("bob")));
    assert_eq!(ada.cookie(), cookie, "it is signed anew only when it is sent anyway");
    ada.visit(async |session| session.rotate().await).await;
    assert_ne!(signed_by(&ada), old_key);

    let after = server(KeyRing::new(new));
    let (ada, bob) = (ada.before(&after), bob.before(&after));
    assert_eq!((user(&ada).await.as_deref(), user(&bob).await), (Some("ada"), None));
    bob.visit(async |session| session.log_in("bob").await).await;
    assert_eq!((signed_by(&bob), user(&bob).await.as_deref()), (signed_by(&ada), Some("bob")));
}

#[tokio::test]
async fn r03_the_cookie_says_nothing() {
    const CANARIES: [&str; 4] = ["ada@example.com", "user-4711", "admin", "sess:"];
    let store = Watched::new();
    let login = async |session: Session| {
        session.insert("user", &CANARIES)?;
        session.insert("id", "user-4711")
    };
    let app = Router::new().route("/", get(login)).layer(layer(&store));
    let mut values = Vec::new();
    for _ in 0..20 {
        let browser = Browser::new(app.clone());
        browser.get("/").await;
        values.push(browser.cookie(NAME).unwrap());
    }
    let time = store.clock().now().as_millis();
    let times = [time.to_string().into_bytes(), time.to_be_bytes()[2..].to_vec(), time.to_le_bytes()[..6].to_vec()];
    for value in &values {
        let decoded = URL_SAFE_NO_PAD.decode(&value[1..]).unwrap();
        let hex: String = decoded.iter().map(|byte| format!("{byte:02x}")).collect();
        let forms = [value.as_bytes(), &decoded, hex.as_bytes()];
        for canary in CANARIES.iter().map(|text| text.as_bytes().to_vec()).chain(times.clone()) {
            let coded = [STANDARD.encode(&canary), URL_SAFE_NO_PAD.encode(&canary)].map(String::into_bytes);
            for canary in coded.into_iter().chain([canary]) {
                let found = forms.iter().any(|form| form.windows(canary.len()).any(|part| part == canary));
                assert!(!found, "{:?} is in {value}", String::from_utf8_lossy(&canary));
            }
        }
    }
    // The same state, the same moment: only the version and the key's id are alike.
    for (one, other) in values.iter().zip(&values[1..]) {
        let alike = one.bytes().zip(other.bytes()).skip(7).filter(|(a, b)| a == b).count();
        assert!(alike < 16, "{one} {other}");
    }
}

#[tokio::test]
async fn r04_a_signed_id_that_is_not_stored_is_never_adopted() {
    let redis = RedisServer::start();
    let layer = RedisSessionLayer::with_store(patient(&redis.url(), MINUTE / 3).await, keys());
    let (browser, value) = visitor(app(layer)).await;
    let key = redis.run(&["KEYS", "*"]).texts();
    redis.run(&["FLUSHALL"]);

    let page = browser.get("/").await;
    assert_eq!((page.body.as_str(), page.set_cookies().len()), ("ended", 0));
    assert_eq!(browser.get("/visit").await.status, 200);
    assert_ne!(browser.cookie(NAME).unwrap(), value);
    let new_key = redis.run(&["KEYS", "*"]).texts();
    assert_eq!(new_key.len(), 1);
    assert_ne!(new_key, key);
    assert_eq!(with_value(&browser, "/", &value).await.body, "ended");
}

#[tokio::test]
async fn r06_a_token_anywhere_but_in_its_cookie_is_not_looked_at() {
    let store = Watched::new();
    let (browser, value) = visitor(app(layer(&store))).await;
    store.calls();
    let pair = format!("{NAME}={value}");
    let get = |uri: String| Request::get(uri);
    let requests = [
        get(format!("/?{pair}")).body(Body::empty()),
        get(format!("/?id={value}&session={value}&sid={value}")).body(Body::empty()),
        get(format!("/;{pair}")).body(Body::empty()),
        get("/".into()).header("x-session-id", &value).body(Body::empty()),
        get("/".into()).header("authorization", format!("Bearer {value}")).body(Body::empty()),
        get("/".into()).header("authorization", format!("Basic {}", STANDARD.encode(&pair))).body(Body::empty()),
        get("/".into()).header("cookie2", &pair).body(Body::empty()),
        get("/".into()).header("set-cookie", &pair).body(Body::empty()),
        get("/".into()).header("x-cookie", &pair).body(Body::empty()),
        get("/".into()).header(NAME.to_lowercase(), &value).body(Body::empty()),
        get("/".into()).header("cookie", format!("id={value}; session={value}")).body(Body::empty()),
        Request::post("/")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(format!("{pair}&id={value}"))),
        Request::post("/")
            .header("content-type", "application/json")
            .body(Body::from(format!("{{\"{NAME}\":\"{value}\"}}"))),
    ];
    let stranger = browser.stranger();
    for request in requests {
        let request = request.unwrap();
        let asked = format!("{request:?}");
        let page = stranger.ask(request).await;
        assert!(page.status == 404 || page.body == "new", "{asked}: {page:?}");
        assert_eq!(store.calls(), Calls::default(), "{asked}");
    }
}

#[tokio::test]
async fn r07_a_token_leaves_in_set_cookie_and_nowhere_else() {
    let store = Watched::new();
    let fail = async |session: Session| session.insert("@reserved", &1);
    let show = async |session: Session| {
        session.increment("visits", 1)?;
        session.rotate().await?;
        Ok::<_, Error>(format!("{session:?} {:?} {:?} {:?}", session.status(), session.fields()?, session.expires_at()))
    };
    let app = app(layer(&store))
        .merge(Router::new().route("/fail", get(fail)).route("/show", get(show)).layer(layer(&Watched::new())));
    let browser = Browser::new(app);
    let mut values = Vec::new();
    let mut pages = Vec::new();
    for path in ["/visit", "/", "/rotate", "/show", "/show", "/fail", "/log-out", "/visit", "/nowhere"] {
        pages.push(browser.get(path).await);
        values.extend(browser.cookie(NAME));
    }
    store.fail(Kind::Unavailable);
    pages.push(browser.get("/visit").await);
    values.dedup();
    assert!(values.len() >= 5);
    for page in &pages {
        let mut elsewhere = page.headers.clone();
        elsewhere.remove("set-cookie");
        let text = format!("{elsewhere:?} {}", page.body);
        for value in &values {
            // A run of eight characters of an id would do.
            let mut parts = value.as_bytes()[7..].windows(8).map(|part| std::str::from_utf8(part).unwrap());
            assert!(!parts.any(|part| text.contains(part)), "{text}");
        }
    }
}

/// Does not compile if the type has the trait: two impls would fit then.
macro_rules! is_not {
    ($type:ty: $($trait:path),+) => {$({
        trait Either<A> {
            const YES: () = ();
        }
        struct Does;
        impl<T: ?Sized> Either<()> for T {}
        impl<T: ?Sized + $trait> Either<Does> for T {}
        <$type as Either<_>>::YES
    })+};
}

#[test]
fn r07_ids_and_sessions_cannot_be_written_as_text() {
    is_not!(SessionId: std::fmt::Display, serde::Serialize, std::ops::Deref<Target = str>, AsRef<str>, AsRef<[u8]>);
    is_not!(SessionId: Into<String>, Into<Vec<u8>>, std::borrow::Borrow<str>, std::hash::Hash, PartialOrd, Copy);
    is_not!(Session: std::fmt::Display, serde::Serialize, AsRef<str>, Into<String>, PartialEq, std::hash::Hash);
    let id = SessionId::random(&Random::system()).unwrap();
    assert_eq!(format!("{id:?}"), "SessionId(…)");
}

#[tokio::test]
async fn r08_bad_cookies_are_anonymous_and_counted_and_the_store_is_not_asked() {
    let (store, seen) = (Watched::new(), Seen::default());
    let keys = keys();
    let here = RedisSessionLayer::with_store(store.clone(), keys.clone()).observer(seen.clone());
    let (browser, good) = visitor(app(here)).await;
    let of = async |layer: RedisSessionLayer| visitor(app(layer)).await.1;
    let foreign = of(layer(&Watched::new())).await;
    let other_realm = of(RedisSessionLayer::with_store(Watched::new(), keys.clone()).realm("office")).await;
    let other = browser.stranger();
    other.get("/visit").await;
    let other = other.cookie(NAME).unwrap();
    let forged = format!("{}{}", &good[..40], &other[40..]);
    store.calls();
    seen.take();

    let line = |value: &str| format!("{NAME}={value}").into_bytes();
    let table = [
        ("forged", line(&forged), Refusal::BadSignature),
        ("of another realm", line(&other_realm), Refusal::BadSignature),
        ("of another key", line(&foreign), Refusal::UnknownKey),
        ("truncated", line(&good[..60]), Refusal::Malformed),
        ("empty", line(""), Refusal::Malformed),
        ("oversized", line(&"x".repeat(5000)), Refusal::Malformed),
        ("not UTF-8", [line(""), vec![0xff; 71]].concat(), Refusal::Malformed),
        ("not base64", line(&format!("{}*", &good[..70])), Refusal::Malformed),
        ("two of two sessions", [line(&good), b"; ".to_vec(), line(&other)].concat(), Refusal::SeveralIds),
        (
            "in a header over 128 KiB",
            [line(&good), b"; a=".to_vec(), vec![b'x'; 131_072]].concat(),
            Refusal::HeaderTooLarge,
        ),
    ];
    for (what, cookies, refusal) in table {
        for path in ["/", "/log-out"] {
            let page = browser.ask(with_cookies(path, [cookies.as_slice()])).await;
            assert_eq!(page.status, 200, "{what}");
            assert!(path != "/" || page.body == "new" && page.set_cookies().is_empty(), "{what}: {page:?}");
            assert_eq!(
                (seen.take(), store.calls()),
                (vec![Event::Refused(refusal)], Calls::default()),
                "{what} {path}"
            );
        }
    }
    assert_eq!(browser.get("/").await.body, "alive");
    assert_eq!(store.calls(), Calls { loads: 1, ..Calls::default() });
}

#[tokio::test]
async fn r08_no_byte_of_a_cookie_can_be_changed() {
    let store = Watched::new();
    let (browser, good) = visitor(app(layer(&store))).await;
    store.calls();
    for at in 0..good.len() {
        for byte in *b"AZaz09-_+/=.,~% \"" {
            let mut changed = good.clone().into_bytes();
            if changed[at] == byte {
                continue;
            }
            changed[at] = byte;
            let line = [format!("{NAME}=").as_bytes(), &changed].concat();
            let page = browser.ask(with_cookies("/", [line.as_slice()])).await;
            assert_eq!(page.body, "new", "{}", String::from_utf8_lossy(&line));
        }
    }
    assert_eq!(store.calls(), Calls::default());
}

#[tokio::test]
async fn r24_r25_the_cookie_is_found_in_any_line_and_duplicates_count_once() {
    let (browser, good) = visitor(app(layer(&Watched::new()))).await;
    let ours = format!("{NAME}={good}");
    let forged = format!("{NAME}={}", forged(&good));
    let tables: [&[&str]; 6] = [
        &["a=b", &ours, "c=d"],
        &["a=b", "c=d", &ours],
        &[&ours, &ours, &ours],
        &[&forged, &ours],
        &[&ours, "x=\"y", &forged],
        &["=; ;;", &ours],
    ];
    for lines in tables {
        let page = browser.ask(with_cookies("/", lines.iter().map(|line| line.as_bytes()))).await;
        assert_eq!((page.body.as_str(), page.set_cookies().len()), ("alive", 0), "{lines:?}");
    }
}

#[tokio::test]
async fn r11_every_cookie_is_secure_but_in_the_mode_that_says_that_it_is_not() {
    let store = Watched::new();
    let browser = Browser::new(app(layer(&store)));
    for path in ["/visit", "/rotate", "/remember/3", "/log-out", "/visit", "/log-out"] {
        for line in browser.get(path).await.set_cookies() {
            assert!(line.contains("; Secure;") && line.contains("; HttpOnly;"), "{path}: {line}");
        }
    }
    let plain = layer(&store).cookie(Cookie::insecure_for_development());
    let browser = Browser::new(app(plain)).at("http://shop.example");
    let line = browser.get("/visit").await.set_cookies().remove(0);
    assert!(line.starts_with("id=") && !line.contains("Secure") && line.contains("; HttpOnly;"), "{line}");
    assert_eq!(browser.get("/").await.body, "alive");
}

#[test]
#[should_panic(expected = "must have Path=/")]
fn r12_a_layer_whose_cookie_browsers_would_drop_is_not_added() {
    let _ = app(layer(&Watched::new()).cookie(Cookie::named("__Host-id").path("/shop")));
}

fn max_age(page: &Page) -> Option<Duration> {
    let line = page.set_cookies().remove(0);
    assert!(!line.contains("Expires"), "{line}");
    let (_, age) = line.split_once("; Max-Age=")?;
    Some(Duration::from_secs(age.parse().unwrap()))
}

#[tokio::test]
async fn r20_a_cookie_ends_with_the_browser_unless_asked_otherwise() {
    let browser = Browser::new(app(layer(&Watched::new())));
    for path in ["/visit", "/rotate", "/remember/0"] {
        assert_eq!(max_age(&browser.get(path).await), None, "{path}");
    }
    assert_eq!(max_age(&browser.get("/remember/3").await), Some(3 * DAY));
    browser.jar().end_browser_session();
    assert_eq!(browser.get("/").await.body, "alive");
    assert_eq!(max_age(&browser.get("/remember/0").await), None);
    browser.jar().end_browser_session();
    assert_eq!(browser.get("/").await.body, "new");
}

#[tokio::test]
async fn r19_r21_a_persistent_cookie_lives_as_long_as_its_session_can() {
    let store = Watched::new();
    let expiry = Expiry::idle(10 * HOUR).absolute(24 * HOUR).remembered(400 * DAY);
    let browser = Browser::new(app(layer(&store).expiry(expiry).cookie(Cookie::default().persistent())));
    let advance = |time| {
        store.clock().advance(time);
        browser.jar().advance(time);
    };
    assert_eq!(max_age(&browser.get("/visit").await), Some(24 * HOUR));
    advance(9 * HOUR);
    assert_eq!(max_age(&browser.get("/rotate").await), Some(15 * HOUR));
    advance(90 * MINUTE + Duration::from_millis(1));
    // Rounded down: the cookie goes first.
    assert_eq!(max_age(&browser.get("/rotate").await), Some(13 * HOUR + 30 * MINUTE - Duration::from_secs(1)));
    assert_eq!(max_age(&browser.get("/remember/7").await), Some(7 * DAY));
    assert_eq!(max_age(&browser.get("/rotate").await), Some(7 * DAY));
    advance(DAY);
    assert_eq!(max_age(&browser.get("/rotate").await), Some(6 * DAY));
    assert_eq!(max_age(&browser.get("/remember/1000").await), Some(400 * DAY));
    assert_eq!(max_age(&browser.get("/remember/2").await), Some(2 * DAY));
    advance(2 * DAY - Duration::from_secs(1));
    assert_eq!(browser.get("/").await.body, "alive");
    let value = browser.cookie(NAME).unwrap();
    advance(Duration::from_secs(1));
    assert_eq!(browser.cookie(NAME), None);
    assert_eq!(with_value(&browser, "/", &value).await.body, "ended");
}

#[tokio::test]
async fn r22_a_logout_empties_the_jar_whatever_the_cookie_is_like() {
    let none = SameSite::None;
    let table = [
        (Cookie::default(), "/"),
        (Cookie::default().persistent(), "/"),
        (Cookie::named("__Secure-id").domain("shop.example"), "/"),
        (Cookie::named("__Secure-id").domain("shop.example").path("/shop").same_site(SameSite::Strict), "/shop/"),
        (Cookie::named("sid").path("/shop"), "/shop/"),
        (Cookie::default().same_site(none).partitioned(), "/"),
        (Cookie::insecure_for_development(), "/"),
    ];
    for (cookie, place) in table {
        let inner = app(layer(&Watched::new()).cookie(cookie.clone()));
        let app = if place == "/" { inner } else { Router::new().nest("/shop", inner) };
        let browser = Browser::new(app).at("https://www.shop.example");
        let given = browser.get(&format!("{place}visit")).await.set_cookies().remove(0);
        assert_eq!(browser.jar().cookies().len(), 1, "{given}");
        let removal = browser.get(&format!("{place}log-out")).await.set_cookies().remove(0);
        assert!(browser.jar().cookies().is_empty(), "{removal}");
        assert!(browser.jar().refusals().is_empty());
        let attributes = |line: &str| {
            let mut all: Vec<_> = line.split("; ").skip(1).map(str::to_owned).collect();
            all.retain(|attribute| !attribute.starts_with("Max-Age"));
            all
        };
        assert_eq!(attributes(&removal), attributes(&given), "{cookie:?}");
        assert!(removal.split_once('=').unwrap().1.starts_with(';') && removal.ends_with("; Max-Age=0"), "{removal}");
    }
}

#[tokio::test]
async fn r23_one_line_says_the_last_word_and_the_application_s_own_stay() {
    let many = async |session: Session| {
        session.insert("a", &1)?;
        session.save().await?;
        session.rotate().await?;
        session.rotate().await?;
        session.remember(DAY).await?;
        session.destroy().await?;
        Ok::<_, Error>(
            AppendHeaders([("set-cookie", "theme=dark"), ("set-cookie", "language=en; Path=/")]).into_response(),
        )
    };
    let again = async |session: Session| {
        session.destroy().await?;
        session.insert("flash", "goodbye")?;
        Ok::<_, Error>(AppendHeaders([("set-cookie", "__Host-other=1; Secure; Path=/")]).into_response())
    };
    let app = Router::new().route("/many", get(many)).route("/again", get(again)).layer(layer(&Watched::new()));
    let browser = Browser::new(app);
    let lines = browser.get("/many").await.set_cookies();
    assert_eq!(lines[..2], ["theme=dark", "language=en; Path=/"]);
    assert_eq!(lines[2..], ["__Host-id=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0"]);

    let lines = browser.get("/again").await.set_cookies();
    assert_eq!(lines.len(), 2);
    assert!(lines[0] == "__Host-other=1; Secure; Path=/" && lines[1].starts_with("__Host-id=1"), "{lines:?}");
    let before = browser.cookie(NAME).unwrap();
    let lines = browser.get("/again").await.set_cookies();
    assert!(lines.len() == 2 && lines[1].starts_with("__Host-id=1"), "{lines:?}");
    assert_ne!(browser.cookie(NAME).unwrap(), before);
    assert!(browser.jar().refusals().is_empty());
}

#[tokio::test]
async fn r30_debug_output_of_the_response_hides_the_token() {
    let browser = Browser::new(app(RedisSessionLayer::with_store(MemoryStore::new(), keys())));
    for path in ["/visit", "/rotate", "/log-out"] {
        let page = browser.get(path).await;
        assert!(page.headers["set-cookie"].is_sensitive());
        let debug = format!("{:?}", page.headers);
        assert!(debug.contains("\"set-cookie\": Sensitive") && !debug.contains(NAME), "{debug}");
    }
}
