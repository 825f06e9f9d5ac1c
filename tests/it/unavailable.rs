//! What a request gets whose session cannot be read, where its layer or its route asks for an anonymous visitor.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::routing::{get, post};
use axum::{Extension, Router};
use redis_session::{
    CsrfLayer, Error, Event, Flash, IfUnavailable, KeyRing, Kind, LoggedIn, RedisSessionLayer, RequireLogin, Session,
    Status,
};
use redis_session_testkit::{Browser, Page, RedisServer};

use crate::watched::{Seen, Watched, patient};

const NAME: &str = "__Host-id";
const REMOVAL: &str = "__Host-id=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0";

/// Pages that do without their session, and some that do not.
fn app(layer: RedisSessionLayer, runs: &Arc<AtomicUsize>) -> Router {
    let counted = runs.clone();
    let account = async move |LoggedIn { user, .. }: LoggedIn<String>| {
        counted.fetch_add(1, Ordering::SeqCst);
        user
    };
    let home = async |session: Session, flash: Flash| {
        let visits: Option<u64> = session.get("visits")?;
        Ok::<_, Error>(format!("{:?}, visits {visits:?}, {} messages", session.status(), flash.take()?.len()))
    };
    let everything = async |session: Session| {
        let refused = [
            session.insert("a", &1),
            session.remove("a"),
            session.increment("a", 1),
            session.clear(),
            session.expire_after(Duration::from_secs(60)),
            session.save().await,
            session.rotate().await,
            session.remember(Duration::from_secs(60)).await,
            session.remember(None).await,
            session.log_in("ada").await,
            session.is_alive().await.map(drop),
            session.refresh().await,
        ];
        let unavailable = refused.iter().filter(|answer| answer.as_ref().is_err_and(|error| error.is_unavailable()));
        format!("{} of {}", unavailable.count(), refused.len())
    };
    let anonymous = Router::new()
        .route("/", get(home))
        .route("/maybe", get(async |session: Option<Session>| session.is_some().to_string()))
        .route("/everything", get(everything))
        .route("/ended", get(async |session: Session| format!("{:?}", session.ended().await)))
        .route(
            "/refresh",
            get(async |session: Session| session.refresh().await.map(|()| format!("{:?}", session.status()))),
        )
        .route("/account", get(account))
        .route("/office", get(async || "salaries").route_layer(RequireLogin::new()))
        .route("/log-out", post(async |session: Session| session.log_out().await))
        .route_layer(Extension(IfUnavailable::Anonymous));
    Router::new()
        .route("/visit", get(async |session: Session| session.increment("visits", 1)))
        .route("/log-in", get(async |session: Session| session.log_in("ada").await))
        .merge(anonymous)
        .layer(CsrfLayer::new())
        .layer(layer)
}

/// A logout by a form of the site that the browser names. `None`: it names none.
async fn log_out(browser: &Browser<Router>, site: Option<&str>) -> Page {
    let mut request = Request::post("/log-out");
    if let Some(site) = site {
        request = request.header("sec-fetch-site", site);
    }
    browser.send(request.body(Body::empty()).unwrap()).await
}

fn keys() -> KeyRing {
    KeyRing::random().unwrap()
}

struct Place {
    store: Watched,
    seen: Seen,
    runs: Arc<AtomicUsize>,
    browser: Browser<Router>,
}

/// A visitor who has been here twice and is logged in, and whose store fails from now on.
async fn place(settings: impl FnOnce(RedisSessionLayer) -> RedisSessionLayer) -> Place {
    let (store, seen, runs) = (Watched::new(), Seen::default(), Arc::default());
    let layer = RedisSessionLayer::with_store(store.clone(), keys()).observer(seen.clone());
    let browser = Browser::new(app(settings(layer), &runs));
    for path in ["/visit", "/visit", "/log-in"] {
        assert_eq!(browser.get(path).await.status, 200);
    }
    seen.take();
    store.fail(Kind::Unavailable);
    Place { store, seen, runs, browser }
}

#[tokio::test]
async fn r85_r86_a_route_may_do_without_its_session_while_it_cannot_be_read() {
    let place = place(|layer| layer).await;
    let (browser, cookie) = (&place.browser, place.browser.cookie(NAME));
    for (path, body) in [
        ("/", "Unavailable, visits None, 0 messages"),
        ("/maybe", "false"),
        ("/everything", "12 of 12"),
        ("/ended", "Unavailable"),
    ] {
        let page = browser.get(path).await;
        assert_eq!((page.status.as_u16(), page.body.as_str()), (200, body), "{path}");
        assert!(page.set_cookies().is_empty(), "{path}: {page:?}");
        // The same cookie has another page in a moment.
        assert_eq!(page.header("cache-control").as_deref(), Some("no-store"), "{path}");
        assert_eq!(place.seen.take()[0], Event::StoreFailed(Kind::Unavailable), "{path}");
    }
    assert_eq!(browser.get("/visit").await.status, 503, "this route has the layer's policy");
    place.store.heal();
    assert_eq!(browser.get("/").await.body, "Alive, visits Some(2), 0 messages");
    assert_eq!(browser.cookie(NAME), cookie);
}

#[tokio::test]
async fn r85_no_guard_lets_anybody_through_and_none_says_that_he_is_not_logged_in() {
    let place = place(|layer| layer.log_in_page("/log-in-page")).await;
    for path in ["/account", "/office"] {
        let page = place.browser.get(path).await;
        assert_eq!((page.status.as_u16(), page.body.as_str()), (503, ""), "{path}: {page:?}");
        assert_eq!(page.header("retry-after").as_deref(), Some("1"), "{path}");
    }
    assert_eq!(place.runs.load(Ordering::SeqCst), 0);
    place.store.heal();
    assert_eq!(place.browser.get("/account").await.body, "ada");
}

#[tokio::test]
async fn a_layer_may_do_without_sessions_on_all_its_routes_and_a_route_may_not() {
    let place = place(|layer| layer.if_unavailable(IfUnavailable::Anonymous)).await;
    // It wants to write, and is told so.
    let page = place.browser.get("/visit").await;
    assert_eq!((page.status.as_u16(), page.header("retry-after").as_deref()), (503, Some("1")), "{page:?}");
    let app = Router::new()
        .route("/", get(async |session: Session| format!("{:?}", session.status())))
        .route("/strict", get(async |_: Session| "run").route_layer(Extension(IfUnavailable::Refuse)));
    let layer = RedisSessionLayer::with_store(place.store.clone(), keys()).if_unavailable(IfUnavailable::Anonymous);
    let layer = layer.check().unwrap();
    let browser = Browser::new(app.layer(layer));
    // Without a cookie there is nothing to read, and so nothing that fails.
    assert_eq!((browser.get("/").await.body.as_str(), browser.get("/strict").await.body.as_str()), ("New", "run"));
}

/// It is no outage, and does not end by itself: a logout is its visitor's way out.
#[tokio::test]
async fn who_has_a_damaged_record_sees_what_does_without_it_and_a_logout_takes_his_cookie_away() {
    let place = place(|layer| layer).await;
    let (browser, cookie) = (&place.browser, place.browser.cookie(NAME));
    place.store.fail(Kind::Corrupt);
    for (path, status, body) in [
        ("/", 200, "Unavailable, visits None, 0 messages"),
        ("/maybe", 200, "false"),
        ("/everything", 200, "0 of 12"),
        ("/account", 500, ""),
        ("/office", 500, ""),
        ("/visit", 500, ""),
    ] {
        let page = browser.get(path).await;
        assert_eq!((page.status.as_u16(), page.body.as_str()), (status, body), "{path}");
        assert_eq!((page.header("retry-after"), page.set_cookies().len()), (None, 0), "{path}: {page:?}");
    }
    assert_eq!((browser.cookie(NAME), place.runs.load(Ordering::SeqCst)), (cookie, 0));
    let page = log_out(browser, Some("same-origin")).await;
    assert_eq!((page.status.as_u16(), page.set_cookies()), (500, vec![REMOVAL.to_owned()]), "{page:?}");
    assert_eq!(browser.get("/").await.body, "New, visits None, 0 messages");
}

/// A reply that was another command's looks like a damaged record, once.
#[tokio::test(start_paused = true)]
async fn a_logout_that_met_what_it_could_not_read_is_tried_again_and_given_up_where_it_stays_so() {
    for is_lasting in [false, true] {
        let place = place(|layer| layer).await;
        let replay = place.browser.copy();
        place.store.fail(Kind::Corrupt);
        let page = log_out(&place.browser, Some("same-origin")).await;
        assert_eq!((page.status.as_u16(), page.set_cookies().len()), (500, 1), "{page:?}");
        if !is_lasting {
            place.store.heal();
        }
        place.store.calls();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let loads = place.store.calls().loads;
        place.store.heal();
        let status = if is_lasting { "Alive, visits Some(2)" } else { "Ended(LoggedOut), visits None" };
        assert_eq!(replay.get("/").await.body, format!("{status}, 0 messages"));
        assert_eq!(loads, if is_lasting { 2 } else { 1 });
    }
}

#[tokio::test]
async fn who_reads_again_in_time_has_the_session() {
    let place = place(|layer| layer).await;
    let (store, browser) = (place.store.clone(), &place.browser);
    let heals = async move |session: Session| {
        let before = session.status();
        store.heal();
        session.refresh().await?;
        session.increment("visits", 1)?;
        Ok::<_, Error>(format!("{before:?}, {:?}, {:?}", session.status(), session.get::<u64>("visits")?))
    };
    let layer = RedisSessionLayer::with_store(place.store.clone(), keys()).if_unavailable(IfUnavailable::Anonymous);
    let app = Router::new()
        .route("/heals", get(heals))
        .route("/visit", get(async |session: Session| session.increment("visits", 1)))
        .layer(layer);
    let other = Browser::new(app);
    place.store.heal();
    other.get("/visit").await;
    place.store.fail(Kind::Unavailable);
    assert_eq!(other.get("/heals").await.body, "Unavailable, Alive, Some(2)");
    assert_eq!(browser.get("/").await.status, 200);
    other.get("/visit").await;
    assert_eq!(other.get("/heals").await.body, "Alive, Alive, Some(4)");
}

#[tokio::test(flavor = "multi_thread")]
async fn r88_a_logout_whose_session_cannot_be_read_removes_the_cookie_and_ends_it_later() {
    let redis = RedisServer::start();
    let (seen, runs) = (Seen::default(), Arc::default());
    let store = patient(&redis.url(), Duration::from_millis(250)).await;
    let browser = Browser::new(app(RedisSessionLayer::with_store(store, keys()).observer(seen.clone()), &runs));
    for path in ["/visit", "/log-in"] {
        assert_eq!(browser.get(path).await.status, 200);
    }
    let replay = browser.copy();
    redis.pause();
    let page = log_out(&browser, Some("same-origin")).await;
    assert_eq!((page.status.as_u16(), page.body.as_str()), (503, ""), "{page:?}");
    assert_eq!(page.set_cookies(), [REMOVAL]);
    // Where the browser does not say where it comes from, there is only the token, which cannot be checked.
    let page = log_out(&replay, None).await;
    assert_eq!((page.status.as_u16(), page.set_cookies().len()), (503, 0), "{page:?}");
    let page = log_out(&replay, Some("cross-site")).await;
    assert_eq!((page.status.as_u16(), page.set_cookies().len()), (403, 0), "{page:?}");
    seen.take();
    redis.resume();
    // Nobody asks again: the layer does.
    for _ in 0..2000 {
        if seen.take().contains(&Event::LoggedOut) {
            assert_eq!(replay.get("/").await.body, "Ended(LoggedOut), visits None, 0 messages");
            assert_eq!(replay.get("/account").await.status, 401);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the session is not ended");
}

#[tokio::test]
async fn a_logout_without_a_session_s_cookie_is_nothing() {
    let place = place(|layer| layer).await;
    let stranger = place.browser.stranger();
    let page = log_out(&stranger, Some("same-origin")).await;
    assert_eq!((page.status.as_u16(), page.set_cookies().len()), (200, 0), "{page:?}");
    assert_eq!(place.seen.take(), []);
    assert_eq!(stranger.get("/").await.body, format!("{:?}, visits None, 0 messages", Status::New));
}
