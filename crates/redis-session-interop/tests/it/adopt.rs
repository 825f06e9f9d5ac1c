//! Sessions of tower-sessions-redis-store taken over: what goes along, exactly once, bad input, death at each command.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Form, Router};
use axum_login::{AuthManagerLayerBuilder, AuthSession};
use redis_session::fred::clients::Pool;
use redis_session::{
    Clock, Cookie, Event, Expiry, Fresh, IfReused, IfUnavailable, KeyRing, MemoryStore, RedisSessionLayer, RedisStore,
    Refusal, Session as Ours, Tenant,
};
use redis_session_interop::tower_sessions::{FromTowerSessions, IfNotUnderstood, OldTowerSessions, TowerSessionsLayer};
use redis_session_testkit::{Action, Browser, Proxy, RedisServer};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::Barrier;
use tower_sessions::cookie::Key;
use tower_sessions::session::{Id, Record};
use tower_sessions::{Session, SessionManagerLayer};
use tower_sessions_redis_store::RedisStore as TheirRedis;

use crate::app::{Credentials, Users};
use crate::from::their_pool;
use crate::place::{COOKIE, Events};

pub(crate) const OLD: &str = "id";
const MOVED: &str = "__Host-id-moved";

/// The application: the same handlers on servers of before and on new ones.
pub(crate) fn routes() -> Router {
    Router::new()
        .route("/who", get(answer))
        .route("/write/{key}", get(write))
        .route("/cart", get(cart))
        .route("/keys", get(keys))
        .route("/login/{user}", get(log_in))
        .route("/logout", get(log_out))
}

async fn answer(session: Session) -> Result<String, StatusCode> {
    Ok(who(&session).await?.unwrap_or("nobody".to_owned()))
}

async fn who(session: &Session) -> Result<Option<String>, StatusCode> {
    let user: Option<Value> = session.get("user").await.map_err(failed)?;
    Ok(user.map(|user| user["id"].as_str().unwrap().to_owned()))
}

/// Only for who has something already, so that nobody gets a second session by it.
async fn write(session: Session, Path(key): Path<String>) -> Result<(), StatusCode> {
    if who(&session).await?.is_none() && session.get_value("cart").await.unwrap().is_none() {
        return Err(StatusCode::UNAUTHORIZED);
    }
    session.insert(&key, true).await.map_err(failed)
}

async fn keys(session: Session) -> String {
    let mut there = Vec::new();
    for n in 0..40 {
        let key = format!("key{n}");
        if session.get_value(&key).await.unwrap().is_some() {
            there.push(n.to_string());
        }
    }
    there.join(" ")
}

async fn cart(session: Session) -> Result<(), StatusCode> {
    session.insert("cart", true).await.map_err(failed)
}

async fn log_in(session: Session, Path(user): Path<String>) -> Result<(), StatusCode> {
    session.cycle_id().await.map_err(failed)?;
    session.insert("user", json!({"id": user})).await.map_err(failed)
}

async fn log_out(session: Session) -> Result<(), StatusCode> {
    session.flush().await.map_err(failed)
}

fn failed(error: tower_sessions::session::Error) -> StatusCode {
    eprintln!("{error}");
    StatusCode::INTERNAL_SERVER_ERROR
}

pub(crate) fn named_by(user: &Value) -> Option<String> {
    Some(user.get("id")?.as_str()?.to_owned())
}

pub(crate) fn old_server(pool: Pool) -> Router {
    routes().layer(SessionManagerLayer::new(TheirRedis::new(pool)))
}

pub(crate) fn under(sessions: RedisSessionLayer) -> Router {
    let status = get(async |session: Ours| format!("{:?}", session.status()));
    let fresh = get(async |_: Fresh<String, 5>| "fresh");
    let ours =
        Router::new().route("/status", status).route("/fresh", fresh).route("/ours", get(fields)).merge(routes());
    ours.layer(TowerSessionsLayer::new().user("user", named_by)).layer(sessions)
}

async fn fields(session: Ours) -> String {
    session.fields().unwrap().into_iter().map(|(name, text)| format!("{name}={text}")).collect::<Vec<_>>().join(" ")
}

pub(crate) fn old(pool: Pool) -> OldTowerSessions<Pool> {
    OldTowerSessions::new(pool).user("user", named_by)
}

/// A Redis with sessions of before, and what is to take them over.
struct Move {
    redis: RedisServer,
    pool: Pool,
    keys: KeyRing,
    events: Events,
}

impl Move {
    async fn begin() -> Self {
        let redis = RedisServer::start();
        let pool = their_pool(&redis.url()).await;
        Self { redis, pool, keys: KeyRing::random().unwrap(), events: Events::default() }
    }

    fn before(&self) -> Browser<Router> {
        Browser::new(old_server(self.pool.clone()))
    }

    async fn layer(&self) -> RedisSessionLayer {
        let layer = RedisSessionLayer::connect(&self.redis.url(), self.keys.clone()).await.unwrap();
        layer.observer(self.events.clone())
    }

    /// A new server.
    async fn server(&self, old: OldTowerSessions<Pool>) -> Router {
        under(self.layer().await.adopt(old))
    }

    async fn new_server(&self) -> Router {
        self.server(old(self.pool.clone())).await
    }

    /// The keys of living sessions of ours.
    fn living(&self) -> Vec<String> {
        let keys = self.redis.run(&["KEYS", "sess:main:*"]).texts();
        let lives = |key: &String| {
            self.redis.run(&["TYPE", key]).text() == "hash" && self.redis.run(&["HEXISTS", key, "@"]).int() == 1
        };
        keys.into_iter().filter(lives).collect()
    }

    fn has(&self, key: &str) -> bool {
        self.redis.run(&["EXISTS", key]).int() == 1
    }
}

/// The same cookies at another server.
fn moved(browser: &Browser<Router>, server: &Router) -> Browser<Router> {
    let there = Browser::new(server.clone());
    for name in [OLD, COOKIE] {
        if let Some(value) = browser.cookie(name) {
            there.set_cookie(name, &value);
        }
    }
    there
}

async fn ok(browser: &Browser<Router>, path: &str) -> String {
    let page = browser.get(path).await;
    assert_eq!(page.status, 200, "{path}: {page:?}");
    page.body
}

#[tokio::test]
async fn data_user_and_remaining_time_go_along_and_the_old_session_ends() {
    let place = Move::begin().await;
    let before = place.before();
    ok(&before, "/login/ada").await;
    ok(&before, "/write/key1").await;
    let id = before.cookie(OLD).unwrap();
    let after = moved(&before, &place.new_server().await);
    let page = after.get("/who").await;
    assert_eq!((page.status.as_u16(), page.body.as_str()), (200, "ada"));
    assert_eq!(page.set_cookies().len(), 1, "{page:?}");
    assert_eq!(after.get("/who").await.set_cookies().len(), 0, "once");
    assert_eq!(ok(&after, "/ours").await, "key1=true user={\"id\":\"ada\"}");
    assert_eq!(place.living().len(), 1);
    assert!(!place.has(&id) && !place.has(&format!("{{{id}}}:taken-over")));
    assert_eq!(place.events.take().iter().filter(|event| **event == Event::TakenOver).count(), 1);

    // Two weeks, as their layer says without an expiry; then no time is lost by further requests.
    let ends = place.redis.run(&["PTTL", &place.living()[0]]).int();
    let two_weeks = 14 * 24 * 3_600_000;
    assert!((two_weeks - 60_000..=two_weeks).contains(&ends), "{ends}");

    // The old cookie alone finds it again, and a server of before does not.
    let again = after.stranger();
    again.set_cookie(OLD, &id);
    assert_eq!(ok(&again, "/who").await, "ada");
    assert_eq!(ok(&before, "/who").await, "nobody");
    // He is in the list of his sessions, and can be logged out from elsewhere.
    let devices = place.layer().await.sessions();
    assert_eq!(devices.list("ada").await.unwrap().len(), 1);
    devices.revoke_all("ada").await.unwrap();
    assert_eq!(ok(&after, "/who").await, "nobody");
    assert_eq!(ok(&again, "/status").await, "Ended(Revoked)");
}

#[tokio::test]
async fn the_browser_gets_a_cookie_of_its_own_for_it_and_ours_with_a_new_id() {
    let place = Move::begin().await;
    let (ends_with_browser, outlives_it) = (old(place.pool.clone()).ends_with_browser(), old(place.pool.clone()));
    for (old, persists) in [(ends_with_browser, false), (outlives_it, true)] {
        let server = place.server(old).await;
        let before = place.before();
        ok(&before, "/login/ada").await;
        let browser = moved(&before, &server);
        let [line] = browser.get("/write/key1").await.set_cookies().try_into().unwrap();
        assert!(line.starts_with("__Host-id-moved=") && line.contains("Max-Age") == persists, "{line}");
        // As servers of before do, of which one has found nobody.
        browser.jar().forget(OLD);
        assert_eq!(ok(&browser, "/keys").await, "1");
        let copy = browser.copy();
        // It is worth nothing under our own name.
        let thief = browser.stranger();
        thief.set_cookie(COOKIE, &browser.cookie(MOVED).unwrap());
        assert_eq!(ok(&thief, "/who").await, "nobody");
        ok(&browser, "/login/ada").await;
        assert!(browser.cookie(COOKIE).is_some());
        assert_eq!(ok(&browser, "/keys").await, "1");
        assert_eq!(ok(&copy, "/who").await, "nobody", "the id of before");
        assert_eq!(ok(&moved(&before, &server), "/who").await, "nobody", "the old cookie");
    }
}

#[tokio::test]
async fn who_is_logged_in_by_axum_login_stays_so_and_is_in_the_list() {
    let place = Move::begin().await;
    let users = Users::default();
    let sessions = SessionManagerLayer::new(TheirRedis::new(place.pool.clone()));
    let log_in = async |mut auth: AuthSession<Users>, Form(credentials): Form<Credentials>| {
        let user = auth.authenticate(credentials).await.unwrap().unwrap();
        auth.login(&user).await.unwrap();
    };
    let before = Router::new()
        .route("/login", post(log_in))
        .layer(AuthManagerLayerBuilder::new(users.clone(), sessions).build());
    let before = Browser::new(before);
    let ferris = [("username", "ferris"), ("password", "hunter42")];
    assert_eq!(before.post_form("/login", &ferris).await.status, 200);
    let id = before.cookie(OLD).unwrap();

    let layer = place.layer().await.adopt(OldTowerSessions::new(place.pool.clone()).axum_login());
    let devices = layer.sessions();
    let browser = moved(&before, &crate::app::app(layer, users));
    assert!(ok(&browser, "/").await.contains("Hello, ferris"));
    assert!(!place.has(&id));
    assert_eq!(devices.list(1).await.unwrap().len(), 1);
    // From another device, everywhere.
    assert_eq!(devices.revoke_all(1).await.unwrap(), 1);
    assert_eq!(browser.get("/").await.header("location").as_deref(), Some("/login?next=https%3A%2F%2Flocalhost%2F"));
}

#[tokio::test]
async fn log_out_everywhere_reaches_old_sessions_that_come_soon_after_it() {
    let place = Move::begin().await;
    let before = place.before();
    ok(&before, "/login/ada").await;
    let server = place.new_server().await;
    let other = Browser::new(server.clone());
    ok(&other, "/login/ada").await;
    place.layer().await.sessions().revoke_all("ada").await.unwrap();
    let browser = moved(&before, &server);
    assert_eq!(ok(&browser, "/status").await, "Ended(Revoked)");
    assert!(!place.has(&before.cookie(OLD).unwrap()), "it has ended too");
    assert_eq!(ok(&before, "/who").await, "nobody");
    assert!(place.living().is_empty());
}

#[tokio::test]
async fn signed_cookies_are_recognised_and_plain_or_forged_ones_are_nobody_s() {
    let place = Move::begin().await;
    let key = Key::generate();
    let layer = SessionManagerLayer::new(TheirRedis::new(place.pool.clone())).with_name("sid").with_signed(key.clone());
    let before = Browser::new(routes().layer(layer));
    ok(&before, "/login/ada").await;
    let signed = before.cookie("sid").unwrap();
    let plain = place.redis.run(&["KEYS", "*"]).texts().remove(0);
    let sid = || old(place.pool.clone()).cookie(Cookie::named("sid"));
    let server = place.server(sid().signed(key.master()).unwrap()).await;
    let come = async |server: &Router, value: &str| {
        let browser = Browser::new(server.clone());
        browser.set_cookie("sid", value);
        (ok(&browser, "/who").await, browser)
    };
    place.redis.reset_stats();
    let other = Key::generate();
    let mut jar = tower_sessions::cookie::CookieJar::new();
    jar.signed_mut(&other).add(("sid", plain.clone()));
    let forged = jar.get("sid").unwrap().value().to_owned();
    let last = if signed.ends_with('A') { "B" } else { "A" };
    let spoilt = format!("{}{last}", &signed[..signed.len() - 1]);
    for wrong in [plain.as_str(), "", "x", &forged, &spoilt, &"A".repeat(5000), &signed[1..]] {
        assert_eq!(come(&server, wrong).await.0, "nobody", "{wrong}");
    }
    assert_eq!(place.redis.command_count("GETRANGE"), 0, "nothing is looked for");
    assert!(place.has(&plain) && place.living().is_empty());
    let told = place.events.take();
    assert!(
        told.contains(&Event::Refused(Refusal::BadSignature)) && told.contains(&Event::Refused(Refusal::Malformed))
    );
    // Where plain ones are configured, a signed one is none.
    assert_eq!(come(&place.server(sid()).await, &signed).await.0, "nobody");
    assert_eq!(come(&server, &signed).await.0, "ada");
    assert!(!place.has(&plain));
    assert!(old(place.pool.clone()).signed(b"too short").is_err());
}

#[tokio::test]
async fn twenty_parallel_requests_meet_in_one_session_and_lose_nothing() {
    for round in 0..5 {
        let place = Move::begin().await;
        let before = place.before();
        ok(&before, if round % 2 == 0 { "/login/ada" } else { "/cart" }).await;
        ok(&before, "/write/key39").await;
        // Of servers that know nothing of each other.
        let servers = [place.new_server().await, place.new_server().await];
        let at = [moved(&before, &servers[0]), moved(&before, &servers[1])];
        let requests = (0..20).map(|n| {
            let browser = at[n % 2].clone();
            async move { browser.get(&format!("/write/key{n}")).await }
        });
        let pages = futures_util::future::join_all(requests).await;
        assert!(pages.iter().all(|page| page.status == 200), "{pages:?}");
        assert!(at[0].cookie(MOVED).is_some() && at[0].cookie(MOVED) == at[1].cookie(MOVED));
        let kept = ok(&at[0], "/keys").await;
        assert_eq!(kept.split(' ').count(), 21, "{kept}");
        assert_eq!(place.living().len(), 1);
        assert_eq!(place.events.take().iter().filter(|event| **event == Event::TakenOver).count(), 1);
        assert!(!place.has(&before.cookie(OLD).unwrap()));
    }
}

#[tokio::test]
async fn a_login_is_not_undone_by_the_answer_of_a_slower_request() {
    let place = Move::begin().await;
    let before = place.before();
    ok(&before, "/cart").await;
    let meanwhile = Arc::new(Barrier::new(2));
    let slow = {
        let meanwhile = meanwhile.clone();
        get(async move |_: Ours| {
            meanwhile.wait().await;
            meanwhile.wait().await;
        })
    };
    let layer = place.layer().await.adopt(old(place.pool.clone()));
    let server = Router::new()
        .route("/slow", slow)
        .merge(routes())
        .layer(TowerSessionsLayer::new().user("user", named_by))
        .layer(layer);
    let browser = moved(&before, &server);
    let (page, ()) = tokio::join!(browser.get("/slow"), async {
        meanwhile.wait().await;
        ok(&browser, "/login/ada").await;
        meanwhile.wait().await;
    });
    assert_eq!(page.status, 200);
    assert_eq!(page.set_cookies().len(), 0, "{page:?}");
    assert_eq!(ok(&browser, "/who").await, "ada");
    // The id of before the login is worth nothing, and so is the old cookie that leads to it.
    let thief = browser.stranger();
    thief.set_cookie(OLD, &before.cookie(OLD).unwrap());
    assert_eq!(ok(&thief, "/who").await, "nobody");
    assert_eq!(thief.cookie(COOKIE), None);
}

#[tokio::test]
async fn r37_after_a_logout_neither_cookie_is_worth_anything() {
    let place = Move::begin().await;
    let before = place.before();
    ok(&before, "/login/ada").await;
    let server = place.new_server().await;
    // With the first request, and with a later one.
    for looks_first in [false, true] {
        ok(&before, "/login/ada").await;
        let browser = moved(&before, &server);
        browser.jar().forget(COOKIE);
        if looks_first {
            assert_eq!(ok(&browser, "/who").await, "ada");
        }
        let copy = browser.copy();
        let page = browser.get("/logout").await;
        assert_eq!([OLD, COOKIE, MOVED].map(|name| browser.cookie(name)), [None, None, None], "{page:?}");
        assert_eq!(ok(&copy, "/who").await, "nobody");
        assert_eq!(ok(&moved(&copy, &server), "/status").await, "Ended(LoggedOut)");
        assert_eq!(ok(&moved(&copy, &place.before_server()), "/who").await, "nobody");
        assert_eq!(place.living().len(), 0);
        // The visitor himself begins anew at once.
        ok(&browser, "/cart").await;
        assert!(browser.cookie(COOKIE).is_some());
        browser.get("/logout").await;
    }
}

/// The cookies of a visitor who has a session of ours, and one of before beside it that lives.
async fn beside_a_living_one(place: &Move, server: &Router) -> (Browser<Router>, String) {
    let browser = Browser::new(server.clone());
    ok(&browser, "/login/ada").await;
    let before = place.before();
    ok(&before, "/login/eve").await;
    let old = before.cookie(OLD).unwrap();
    browser.set_cookie(OLD, &old);
    assert_eq!(ok(&browser, "/who").await, "ada");
    assert!(place.has(&old));
    (browser, old)
}

#[tokio::test]
async fn r37_a_logout_ends_an_old_session_beside_a_living_one_of_ours_too() {
    let place = Move::begin().await;
    let server = place.new_server().await;
    let (browser, old) = beside_a_living_one(&place, &server).await;
    let copy = browser.copy();
    ok(&browser, "/logout").await;
    assert_eq!(browser.cookie(OLD), None);
    assert!(!place.has(&old) && place.living().is_empty());
    let thief = browser.stranger();
    thief.set_cookie(OLD, &old);
    assert_eq!(ok(&thief, "/status").await, "Ended(LoggedOut)");
    assert_eq!(ok(&copy, "/who").await, "nobody");
    assert_eq!(place.layer().await.sessions().list("eve").await.unwrap().len(), 0);
}

#[tokio::test]
async fn r37_a_request_that_a_logout_overtakes_takes_nothing_over() {
    let place = Move::begin().await;
    let server = place.new_server().await;
    let browser = Browser::new(server.clone());
    ok(&browser, "/login/ada").await;
    let late = browser.copy();
    ok(&browser, "/logout").await;
    // The old cookie came to the browser after the logout's request was sent.
    let before = place.before();
    ok(&before, "/login/eve").await;
    late.set_cookie(OLD, &before.cookie(OLD).unwrap());
    let page = late.get("/status").await;
    assert_eq!(page.body, "Ended(LoggedOut)");
    assert_eq!((late.cookie(MOVED), place.living().len()), (None, 0), "{page:?}");
    assert!(place.has(&before.cookie(OLD).unwrap()));
}

#[tokio::test]
async fn r37_a_logout_while_redis_is_away_ends_the_old_session_once_it_is_back() {
    let place = Move::begin().await;
    let proxy = Proxy::start(place.redis.address());
    let before = place.before();
    ok(&before, "/login/ada").await;
    let id = before.cookie(OLD).unwrap();
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    let layer = RedisSessionLayer::with_store(store, place.keys.clone()).if_unavailable(IfUnavailable::Anonymous);
    let layer = layer.adopt(old(place.pool.clone()));
    let out = get(async |session: Ours| session.log_out().await.is_err().to_string());
    let browser = Browser::new(Router::new().route("/out", out).layer(layer.clone()));
    browser.set_cookie(OLD, &id);
    proxy.fault(|_| Action::Cut);
    assert_eq!(browser.get("/out").await.body, "true");
    assert!(browser.cookie(OLD).is_none() && place.has(&id));
    proxy.clear_faults();
    layer.close().await.unwrap();
    assert!(!place.has(&id) && place.living().is_empty());
    let thief = Browser::new(place.new_server().await);
    thief.set_cookie(OLD, &id);
    assert_eq!(ok(&thief, "/status").await, "Ended(LoggedOut)");
}

#[tokio::test]
async fn a_session_that_was_taken_over_is_no_fresh_login() {
    let place = Move::begin().await;
    let before = place.before();
    ok(&before, "/login/ada").await;
    let browser = moved(&before, &place.new_server().await);
    assert_eq!(ok(&browser, "/who").await, "ada");
    assert_eq!(browser.get("/fresh").await.status, 403);
    // Nor has its user logged in after whatever "log out everybody" there was.
    let key = &place.living()[0];
    let login = place.redis.run(&["HGET", key, "@user"]).text();
    let arrived = login.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(now - arrived > 399 * 24 * 3_600_000, "{login}");
    ok(&browser, "/logout").await;
    ok(&browser, "/login/ada").await;
    assert_eq!(ok(&browser, "/fresh").await, "fresh");
}

#[tokio::test]
async fn a_tenant_gets_no_session_of_before_and_a_layer_with_both_is_refused() {
    let place = Move::begin().await;
    let layer = place.layer().await.adopt(old(place.pool.clone())).tenants(|_| Tenant::named("acme").ok());
    let error = layer.check().unwrap_err();
    assert!(error.is_config() && error.to_string().contains("remove `adopt`"), "{error}");
}

#[tokio::test]
async fn where_nobody_can_be_logged_in_a_session_of_a_user_is_left_as_it_is() {
    let place = Move::begin().await;
    let before = place.before();
    ok(&before, "/login/ada").await;
    let store = FromTowerSessions::new(tower_sessions::MemoryStore::default());
    let layer = RedisSessionLayer::with_store(store, place.keys.clone()).adopt(old(place.pool.clone()));
    let browser = moved(&before, &under(layer));
    assert_eq!(browser.get("/status").await.status, 500);
    assert_eq!(ok(&before, "/who").await, "ada");
}

#[tokio::test]
async fn an_old_redis_that_is_far_away_is_waited_for() {
    let place = Move::begin().await;
    let proxy = Proxy::start(place.redis.address());
    let server = place.server(old(their_pool(&proxy.url()).await)).await;
    for user in ["/login/ada", "/cart"] {
        let before = place.before();
        ok(&before, user).await;
        proxy.fault(|_| Action::Delay(Duration::from_millis(125)));
        let browser = moved(&before, &server);
        assert_eq!(ok(&browser, "/who").await, if user == "/cart" { "nobody" } else { "ada" });
        proxy.clear_faults();
        assert!(!place.has(&before.cookie(OLD).unwrap()) && browser.cookie(MOVED).is_some());
    }
    assert_eq!(place.living().len(), 2);
}

#[tokio::test]
async fn r25_where_our_own_cookies_contradict_each_other_nothing_is_taken_over() {
    let place = Move::begin().await;
    let server = place.new_server().await;
    let [one, two] = [Browser::new(server.clone()), Browser::new(server.clone())];
    ok(&one, "/login/ada").await;
    ok(&two, "/login/eve").await;
    let before = place.before();
    ok(&before, "/login/bob").await;
    let old = before.cookie(OLD).unwrap();
    let [first, second] = [&one, &two].map(|browser| browser.cookie(COOKIE).unwrap());
    let cookies = format!("{COOKIE}={first}; {COOKIE}={second}; {OLD}={old}");
    let request = axum::http::Request::get("/who").header("cookie", cookies).body(axum::body::Body::empty()).unwrap();
    assert_eq!(Browser::new(server).ask(request).await.body, "nobody");
    assert!(place.has(&old));
}

#[tokio::test]
async fn a_copy_of_the_cookie_of_a_session_that_was_taken_over_is_told_and_can_end_it() {
    let place = Move::begin().await;
    let before = place.before();
    ok(&before, "/login/ada").await;
    let (clock, minute) = (Clock::manual(), Duration::from_secs(60));
    let layer = RedisSessionLayer::with_store(MemoryStore::new().clock(clock.clone()), place.keys.clone())
        .observer(place.events.clone())
        .expiry(Expiry::default().new_id_every(10 * minute))
        .if_reused(IfReused::EndSession)
        .adopt(old(place.pool.clone()));
    let browser = moved(&before, &under(layer));
    ok(&browser, "/who").await;
    let copies = [browser.copy(), browser.copy()];
    copies[0].jar().forget(OLD);
    clock.advance(11 * minute);
    ok(&browser, "/who").await;
    assert!(browser.cookie(COOKIE).is_some(), "a renewed id");
    ok(&browser, "/who").await;
    clock.advance(2 * minute);
    place.events.take();
    for (nth, copy) in copies.iter().enumerate() {
        assert_eq!(ok(copy, "/who").await, "nobody");
        assert_eq!(place.events.take().contains(&Event::Reused), nth == 0);
    }
    assert_eq!(ok(&browser, "/who").await, "nobody");
}

impl Move {
    fn before_server(&self) -> Router {
        old_server(self.pool.clone())
    }
}

#[tokio::test]
async fn who_logs_in_on_a_server_of_before_is_taken_over_once_his_own_session_is_over() {
    let place = Move::begin().await;
    let server = place.new_server().await;
    let browser = Browser::new(server.clone());
    ok(&browser, "/cart").await;
    place.redis.run(&["DEL", &place.living()[0]]);
    let before = place.before();
    ok(&before, "/login/ada").await;
    browser.set_cookie(OLD, &before.cookie(OLD).unwrap());
    assert_eq!(ok(&browser, "/who").await, "ada");
    assert_eq!(place.living().len(), 1);
    ok(&browser, "/login/ada").await;
    // A living one counts, whatever else comes along.
    let other = place.before();
    ok(&other, "/login/eve").await;
    browser.set_cookie(OLD, &other.cookie(OLD).unwrap());
    assert_eq!(ok(&browser, "/who").await, "ada");
    assert!(place.has(&other.cookie(OLD).unwrap()));
}

#[tokio::test]
async fn sessions_that_end_with_the_browser_have_the_layer_s_timeouts() {
    let place = Move::begin().await;
    let before = place.before();
    ok(&before, "/login/ada").await;
    let server = place.server(old(place.pool.clone()).ends_with_browser()).await;
    let browser = moved(&before, &server);
    assert_eq!(ok(&browser, "/who").await, "ada");
    // The layer's absolute timeout, since two weeks of idleness are more.
    let ends = place.redis.run(&["PTTL", &place.living()[0]]).int();
    let twelve_hours = 12 * 3_600_000;
    assert!((twelve_hours - 60_000..=twelve_hours).contains(&ends), "{ends}");
}

#[tokio::test]
async fn r04_what_is_not_understood_is_left_alone_and_adopts_no_id() {
    let place = Move::begin().await;
    let record = Record {
        id: Id::default(),
        data: [("user".to_owned(), json!({"id": "ada"}))].into(),
        expiry_date: OffsetDateTime::now_utc() + time::Duration::HOUR,
    };
    let good = rmp_serde::to_vec(&record).unwrap();
    let with = |change: &dyn Fn(&mut Record)| {
        let mut other = record.clone();
        change(&mut other);
        rmp_serde::to_vec(&other).unwrap()
    };
    let deep = {
        let mut value = Value::Null;
        for _ in 0..200 {
            value = json!([value]);
        }
        with(&|record| drop(record.data.insert("deep".into(), value.clone())))
    };
    let mut bottomless = good[..good.len().min(19)].to_vec();
    bottomless.extend(std::iter::repeat_n(0x91, 900_000));
    let corrupt = [
        ("no MessagePack", b"\xc1\xff not at all".to_vec()),
        ("JSON", serde_json::to_vec(&record).unwrap()),
        ("cut short", good[..good.len() - 3].to_vec()),
        ("with something behind it", [good.as_slice(), b"x"].concat()),
        ("of another version", rmp_serde::to_vec(&(1, 2, 3, 4, 5)).unwrap()),
        ("with names", rmp_serde::to_vec_named(&json!({"id": 1, "data": {}, "expiry": 5})).unwrap()),
        ("of another session", with(&|record| record.id = Id::default())),
        ("with a reserved name", with(&|record| drop(record.data.insert("@".into(), json!(1))))),
        ("nested deeper than JSON is read", deep),
        ("an endless array", [b"\x93\xdd\xff\xff\xff\xff".as_slice(), &[0xc0; 1000]].concat()),
        ("without a bottom", bottomless),
        ("far too large", vec![0x93; 2_000_000]),
        ("too large for the layer", with(&|record| drop(record.data.insert("x".into(), json!("x".repeat(70_000)))))),
    ];
    let anonymous = place.new_server().await;
    let refusing = place.server(old(place.pool.clone()).if_not_understood(IfNotUnderstood::Refuse)).await;
    let key = record.id.to_string();
    let come = async |server: &Router| {
        let browser = Browser::new(server.clone());
        browser.set_cookie(OLD, &key);
        (browser.get("/status").await, browser)
    };
    for (what, bytes) in corrupt {
        place.redis.run(&[b"SET".as_slice(), key.as_bytes(), &bytes, b"EX", b"600"]);
        let (page, _) = come(&refusing).await;
        assert!(matches!(page.status.as_u16(), 500 | 413), "{what}: {page:?}");
        assert!(page.body.is_empty());
        let (page, browser) = come(&anonymous).await;
        // What is understood and does not fit is an error in any case: the layer has a limit of its own.
        if !what.contains("for the layer") {
            assert_eq!((page.status.as_u16(), page.body.as_str()), (200, "Ended(Expired)"), "{what}");
            ok(&browser, "/cart").await;
            let living = place.living();
            assert_eq!(living.len(), 1, "{what}: a new session, under an id of its own");
            place.redis.run(&["DEL", &living[0]]);
        }
        assert_eq!(place.redis.run(&["STRLEN", &key]).int(), i64::try_from(bytes.len()).unwrap(), "{what}");
        assert!(!place.has(&format!("{{{key}}}:taken-over")), "{what}");
    }
    // Past, and far beyond.
    place.redis.run(&[
        b"SET".as_slice(),
        key.as_bytes(),
        &with(&|record| record.expiry_date = OffsetDateTime::UNIX_EPOCH),
    ]);
    assert_eq!(come(&refusing).await.0.body, "Ended(Expired)");
    assert!(place.has(&key));
    let end_of_time = time::PrimitiveDateTime::MAX.assume_utc();
    place.redis.run(&["FLUSHALL"]);
    place.redis.run(&[b"SET".as_slice(), key.as_bytes(), &with(&|record| record.expiry_date = end_of_time)]);
    assert_eq!(come(&refusing).await.0.body, "Alive");
    let ends = place.redis.run(&["PTTL", &place.living()[0]]).int();
    assert!((1..=30 * 24 * 3_600_000).contains(&ends), "{ends}");
    // Pointing to nothing, or several.
    place.redis.run(&["FLUSHALL"]);
    assert_eq!(come(&refusing).await.0.body, "Ended(Expired)");
    assert_eq!(place.redis.run(&["DBSIZE"]).int(), 0);
    let browser = Browser::new(refusing.clone());
    place.redis.run(&[b"SET".as_slice(), key.as_bytes(), &good, b"EX", b"600"]);
    let two = format!("{OLD}={key}; {OLD}={}", Id::default());
    let request = axum::http::Request::get("/who").header("cookie", two).body(axum::body::Body::empty()).unwrap();
    assert_eq!(browser.ask(request).await.body, "nobody");
    assert!(place.has(&key));
}

#[tokio::test]
async fn a_record_of_a_hundred_megabytes_is_not_fetched() {
    let place = Move::begin().await;
    let proxy = Proxy::start(place.redis.address());
    let server = place.server(old(their_pool(&proxy.url()).await)).await;
    let key = Id::default().to_string();
    place.redis.run(&["SETRANGE", &key, "99999999", "x"]);
    let browser = Browser::new(server);
    browser.set_cookie(OLD, &key);
    proxy.reset_counts();
    assert_eq!(ok(&browser, "/who").await, "nobody");
    assert!(proxy.bytes_to_client() < 1_200_000, "{}", proxy.bytes_to_client());
    assert_eq!(place.redis.run(&["STRLEN", &key]).int(), 100_000_000);
}

#[tokio::test]
async fn while_the_old_redis_is_away_requests_fail_and_nobody_is_logged_out() {
    let place = Move::begin().await;
    let proxy = Proxy::start(place.redis.address());
    let before = place.before();
    ok(&before, "/login/ada").await;
    let server = place.server(old(their_pool(&proxy.url()).await)).await;
    let browser = moved(&before, &server);
    proxy.fault(|_| Action::HoldThenSend { after: Duration::MAX, cut: false });
    let began = std::time::Instant::now();
    assert_eq!(browser.get("/status").await.status, 503);
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(browser.cookie(OLD).is_some() && place.has(&before.cookie(OLD).unwrap()));
    proxy.clear_faults();
    proxy.release();
    proxy.until_settled().await;
    assert_eq!(ok(&browser, "/who").await, "ada");
}

/// A process that dies: from its nth command on, nothing that it sends arrives; the last one may have.
async fn dies_at(place: &Move, before: &Browser<Router>, nth: usize, arrives: bool) -> bool {
    let proxy = Proxy::start(place.redis.address());
    let pool = their_pool(&proxy.url()).await;
    let store = RedisStore::connect(&proxy.url()).await.unwrap();
    let layer = RedisSessionLayer::with_store(store, place.keys.clone()).adopt(old(pool));
    let browser = moved(before, &under(layer));
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    proxy.fault(move |command| {
        // Not those of connections and health checks.
        if !matches!(
            command.name(),
            "GETRANGE" | "RENAME" | "DEL" | "HGETALL" | "EVALSHA" | "ZSCORE" | "HGET" | "HMGET"
        ) {
            return if count.load(Ordering::SeqCst) > nth { Action::Cut } else { Action::Pass };
        }
        match count.fetch_add(1, Ordering::SeqCst) {
            sent if sent < nth => Action::Pass,
            sent if sent == nth && arrives => Action::DropReply,
            _ => Action::Cut,
        }
    });
    let page = browser.get("/who").await;
    let died = sent.load(Ordering::SeqCst) > nth;
    assert!(died || page.status == 200, "{page:?}");
    died
}

#[tokio::test]
async fn r47_killed_at_each_command_the_session_is_whole_and_there_is_one() {
    let place = Move::begin().await;
    let next = place.new_server().await;
    for user in ["/login/ada", "/cart"] {
        let mut died_at = 0;
        for nth in 0.. {
            let mut died = false;
            for arrives in [false, true] {
                place.redis.run(&["FLUSHALL"]);
                let before = place.before();
                ok(&before, user).await;
                ok(&before, "/write/key7").await;
                died |= dies_at(&place, &before, nth, arrives).await;
                let what = format!("{user}, command {nth}, arrives: {arrives}");
                let browser = moved(&before, &next);
                assert_eq!(ok(&browser, "/keys").await, "7", "{what}");
                assert_eq!(ok(&browser, "/who").await, if user == "/cart" { "nobody" } else { "ada" }, "{what}");
                assert_eq!(place.living().len(), 1, "{what}");
                let id = before.cookie(OLD).unwrap();
                assert!(!place.has(&id) && !place.has(&format!("{{{id}}}:taken-over")), "{what}");
                assert_eq!(ok(&before, "/keys").await, "", "{what}");
                let devices = place.layer().await.sessions();
                let listed = devices.list("ada").await.unwrap().len();
                assert_eq!(listed, usize::from(user != "/cart"), "{what}");
                // Once he has logged out, nothing comes back, also when its tombstone is gone.
                let copy = browser.copy();
                ok(&browser, "/logout").await;
                place.redis.run(&["DEL", &place.redis.run(&["KEYS", "sess:main:*"]).texts()[0]]);
                assert_eq!(ok(&copy, "/keys").await, "", "{what}");
                assert!(place.living().is_empty(), "{what}");
            }
            if !died {
                died_at = nth;
                break;
            }
        }
        eprintln!("{user}: whole after a death at each of {died_at} commands, sent or not");
        assert!(died_at >= 6);
    }
}

#[tokio::test]
async fn the_two_cookies_must_have_two_names() {
    let place = Move::begin().await;
    let layer = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random().unwrap());
    let error = layer.cookie(Cookie::named("id")).adopt(old(place.pool.clone())).check().unwrap_err();
    assert!(error.is_config() && error.to_string().contains("another one"), "{error}");
}

#[tokio::test]
async fn their_cookie_may_have_what_ours_may_not_and_a_logout_takes_it_away_as_it_was_set() {
    let place = Move::begin().await;
    let theirs = Cookie::named("sid").domain("example.com").path("/shop");
    let server = place.server(old(place.pool.clone()).cookie(theirs)).await;
    let browser = Browser::new(server);
    browser.set_cookie("sid", &Id::default().to_string());
    let lines = browser.get("/logout").await.set_cookies();
    let taken = |line: &String| line.starts_with("sid=;") && line.contains("Domain=example.com; Path=/shop");
    let taken_back = |line: &String| line.starts_with("sid=;") && line.contains("Path=/shop; Domain=example.com");
    assert!(lines.iter().any(|line| taken(line) || taken_back(line)), "{lines:?}");
    for (prefix, fits) in [("shop:", true), ("{shop}", false), ("}", false)] {
        assert_eq!(old(place.pool.clone()).prefix(prefix).is_ok(), fits, "{prefix}");
    }
    let wrong = place.layer().await.adopt(old(place.pool.clone()).cookie(Cookie::named("s d")));
    assert!(wrong.check().unwrap_err().is_config());
}

#[tokio::test]
async fn a_session_that_lives_longer_than_the_layer_allows_is_cut_to_that() {
    let place = Move::begin().await;
    let before = place.before();
    ok(&before, "/login/ada").await;
    let layer = place.layer().await.expiry(Expiry::default().remembered(Duration::from_secs(3600)));
    let browser = moved(&before, &under(layer.adopt(old(place.pool.clone()))));
    assert_eq!(ok(&browser, "/who").await, "ada");
    assert!(place.redis.run(&["PTTL", &place.living()[0]]).int() <= 3_600_000);
}
