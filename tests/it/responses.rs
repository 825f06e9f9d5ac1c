//! What the response says to browsers and caches, whatever kind of response it is.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, get};
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, SET_COOKIE, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use redis_session::{ClearSiteData, CsrfToken, Error, Flash, KeyRing, RedisSessionLayer, Renew, Session};
use redis_session_testkit::{Browser, Page};
use serde::{Deserialize, Serialize};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::watched::{Calls, Watched};

const NAME: &str = "__Host-id";
const DAY: Duration = Duration::from_secs(86_400);

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Visitor {
    visits: u64,
}

fn layer(store: &Watched) -> RedisSessionLayer {
    RedisSessionLayer::with_store(store.clone(), KeyRing::random().unwrap())
}

fn lines(page: &Page, name: impl http::header::AsHeaderName) -> Vec<&str> {
    page.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

/// Everything by which a handler can look at its session, by name.
fn looks() -> Vec<(&'static str, MethodRouter)> {
    fn on<F, Fut>(name: &'static str, look: F) -> (&'static str, MethodRouter)
    where
        F: Fn(Session) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + Send,
    {
        (name, get(look))
    }
    vec![
        ("extractor", get(async |_: Session| ())),
        ("typed extractor", get(async |_: Session<Visitor>| ())),
        ("optional extractor", get(async |_: Option<Session>| ())),
        ("optional typed extractor", get(async |_: Option<Session<Visitor>>| ())),
        ("deref", get(async |visitor: Session<Visitor>| visitor.visits.to_string())),
        ("debug", get(async |session: Session| format!("{session:?}"))),
        ("clone", get(async |session: Session| drop(session.clone()))),
        (
            "from_extensions",
            get(async |request: Request| {
                Session::<redis_session::Untyped>::from_extensions(request.extensions()).await.map(drop)
            }),
        ),
        ("csrf token", get(async |_: CsrfToken| ())),
        ("flash", get(async |_: Flash| ())),
        ("session", get(async |visitor: Session<Visitor>| drop(visitor.session()))),
        ("update", get(async |mut visitor: Session<Visitor>| visitor.update(|visitor| visitor.visits += 1))),
        (
            "update_with",
            get(async |mut visitor: Session<Visitor>| visitor.update_with(2, |visitor, n| visitor.visits += n)),
        ),
        (
            "transaction",
            get(async |mut visitor: Session<Visitor>| visitor.transaction(|_| Err::<(), _>(Stop)).await.unwrap_or(())),
        ),
        ("typed refresh", get(async |mut visitor: Session<Visitor>| visitor.refresh().await)),
        on("durability", async |session| session.durability(redis_session::Durability::Fast)),
        on("tenant", async |session| {
            let _ = session.tenant();
            Ok(())
        }),
        on("view", async |session| session.view::<Visitor>().map(drop)),
        on("get", async |session| session.get::<u64>("visits").map(drop)),
        on("fields", async |session| session.fields().map(drop)),
        on("insert", async |session| session.insert("a", &1)),
        on("remove", async |session| session.remove("a")),
        on("increment", async |session| session.increment("visits", 1)),
        on("clear", async |session| session.clear()),
        on("status", async |session| {
            let _ = session.status();
            Ok(())
        }),
        on("expires_at", async |session| {
            let _ = session.expires_at();
            Ok(())
        }),
        on("expire_after", async |session| session.expire_after(DAY)),
        on("save", async |session| session.save().await),
        on("rotate", async |session| session.rotate().await),
        on("remember", async |session| session.remember(DAY).await),
        on("refresh", async |session| session.refresh().await),
        on("destroy", async |session| session.destroy().await),
        on("log_in", async |session| session.log_in("ada").await),
        on("log_out", async |session| session.log_out().await),
        on("user", async |session| session.user::<String>().map(drop)),
        on("pending_user", async |session| session.pending_user::<String>().map(drop)),
        on("level", async |session| {
            let _ = session.level();
            Ok(())
        }),
        on("logged_in_at", async |session| {
            let _ = session.logged_in_at();
            Ok(())
        }),
        on("note_client", async |session| session.note_client("a network").map(drop)),
        on("is_alive", async |session| session.is_alive().await.map(drop)),
        on("handle", async |session| {
            let _ = session.handle();
            Ok(())
        }),
    ]
}

struct Stop;

impl From<Error> for Stop {
    fn from(_: Error) -> Self {
        Self
    }
}

#[tokio::test]
async fn r61_whoever_looks_at_the_session_makes_the_response_vary_by_cookie() {
    let store = Watched::new();
    let mut app = Router::new().route("/visit", get(async |session: Session| session.increment("visits", 1)));
    for (name, look) in looks() {
        app = app.route(&format!("/{}", name.replace(' ', "-")), look);
    }
    let app = app.layer(layer(&store));
    for (name, _) in looks() {
        let path = format!("/{}", name.replace(' ', "-"));
        let visitor = Browser::new(app.clone());
        visitor.get("/visit").await;
        for (who, browser) in [("a visitor", visitor), ("a stranger", Browser::new(app.clone()))] {
            let page = browser.get(&path).await;
            assert_eq!(page.status, 200, "{name} by {who}");
            assert_eq!(lines(&page, VARY), ["cookie"], "{name} by {who}");
        }
    }
}

#[test]
fn r61_no_public_method_is_forgotten() {
    // These two are for tests, and need no layer; the third one is for after the response; the last one is for before the
    // session, of which it says nothing.
    let exempt = ["detached", "attach", "ended", "presented"];
    let tested: Vec<_> = looks().into_iter().map(|(name, _)| name).collect();
    // A login's settings are on the way to what looks: it is awaited.
    let people = include_str!("../../crates/redis-session/src/people.rs").split("pub struct LoggingIn").next().unwrap();
    let session = include_str!("../../crates/redis-session/src/session.rs");
    let client = include_str!("../../crates/redis-session/src/client.rs");
    let ended = include_str!("../../crates/redis-session/src/ended.rs");
    let methods = session.lines().chain(people.lines()).chain(ended.lines()).chain(client.lines()).filter_map(|line| {
        let rest = line.strip_prefix("    pub fn ").or_else(|| line.strip_prefix("    pub async fn "))?;
        Some(&rest[..rest.find(['(', '<'])?])
    });
    let methods: Vec<_> = methods.collect();
    assert!(methods.len() > 15, "{methods:?}");
    for method in methods {
        assert!(tested.contains(&method) || exempt.contains(&method), "{method} is public and not tested");
    }
}

#[tokio::test]
async fn r61_a_response_that_does_not_depend_on_the_session_does_not_vary() {
    let pages = || Router::new().route("/", get(async || "hello")).route("/visit", get(visit));
    for renew in [Renew::WhenAsked, Renew::OnEveryRequest] {
        let store = Watched::new();
        let browser = Browser::new(pages().layer(layer(&store).renew(renew)));
        assert!(lines(&browser.get("/").await, VARY).is_empty(), "{renew:?}");
        browser.get("/visit").await;
        store.clock().advance(Duration::from_secs(120));
        store.calls();
        let page = browser.get("/").await;
        assert!(page.status == 200 && lines(&page, VARY).is_empty(), "{renew:?}: {page:?}");
        let renewed = u32::from(renew == Renew::OnEveryRequest);
        assert_eq!(store.calls(), Calls { loads: renewed, saves: renewed, ..Calls::default() }, "{renew:?}");
    }
}

async fn visit(session: Session) -> Result<&'static str, Error> {
    session.increment("visits", 1)?;
    Ok("welcome")
}

#[tokio::test]
async fn r62_what_the_application_says_about_vary_stays() {
    let says = |value: &'static str| {
        get(async move |session: Session| {
            session.increment("visits", 1)?;
            Ok::<_, Error>(([(VARY, value)], ""))
        })
    };
    let app = Router::new()
        .route("/accept", says("Accept"))
        .route("/cookie", says("Accept, Cookie"))
        .route("/all", says("*"))
        .layer(layer(&Watched::new()));
    let browser = Browser::new(app);
    assert_eq!(lines(&browser.get("/accept").await, VARY), ["Accept", "cookie"]);
    assert_eq!(lines(&browser.get("/cookie").await, VARY), ["Accept, Cookie"]);
    assert_eq!(lines(&browser.get("/all").await, VARY), ["*"]);
}

/// What a shared cache does with a response to a GET, as generously as RFC 9111 lets it.
fn may_be_stored(headers: &HeaderMap) -> bool {
    let directives = headers.get_all(CACHE_CONTROL).iter().flat_map(|line| line.to_str().unwrap().split(','));
    let forbidden = ["no-store", "private"];
    !directives
        .map(|directive| directive.trim().to_lowercase())
        .any(|directive| forbidden.contains(&directive.as_str()))
}

#[tokio::test]
async fn r63_no_shared_cache_ever_gives_a_session_s_cookie_to_another_visitor() {
    const PUBLIC: &str = "public, max-age=3600";
    async fn act(session: Session, what: axum::extract::Path<String>) -> Result<impl IntoResponse, Error> {
        match what.as_str() {
            "visit" => session.increment("visits", 1)?,
            "rotate" => session.rotate().await?,
            "remember" => session.remember(DAY).await?,
            "log-out" => session.destroy().await?,
            _ => {}
        }
        Ok(([(CACHE_CONTROL, PUBLIC), (CONTENT_TYPE, "text/css")], ""))
    }
    let app = Router::new()
        .route("/{what}", get(act))
        .route(
            "/strict",
            get(async |session: Session| {
                session.increment("visits", 1)?;
                Ok::<_, Error>([(CACHE_CONTROL, "private, no-store, max-age=0")])
            }),
        )
        .layer(layer(&Watched::new()));
    let browser = Browser::new(app);
    let mut with_cookie = 0;
    for path in ["/visit", "/visit", "/read", "/rotate", "/remember", "/log-out", "/read"] {
        let page = browser.get(path).await;
        assert_eq!(lines(&page, VARY), ["cookie"], "{path}");
        if page.headers.contains_key(SET_COOKIE) {
            with_cookie += 1;
            assert_eq!(lines(&page, CACHE_CONTROL), ["no-store"], "{path}");
            assert!(!may_be_stored(&page.headers), "{path}");
        } else {
            assert_eq!(lines(&page, CACHE_CONTROL), [PUBLIC], "{path}");
        }
    }
    assert_eq!(with_cookie, 4);
    assert_eq!(lines(&browser.get("/strict").await, CACHE_CONTROL), ["private, no-store, max-age=0"]);
}

/// Begins a session and answers in some way.
fn answers() -> Vec<(&'static str, u16, MethodRouter)> {
    fn with<R: IntoResponse + 'static>(answer: fn() -> R) -> MethodRouter {
        get(move |session: Session| async move {
            session.increment("visits", 1)?;
            Ok::<_, Error>(answer())
        })
    }
    let events = || stream::iter(["data: 1\n\n", "data: 2\n\n"].map(Ok::<_, Infallible>));
    let frames = || stream::iter([Frame::data(Bytes::from("body")), trailers()].map(Ok::<_, Infallible>));
    vec![
        ("a redirect", 303, with(|| Redirect::to("/"))),
        ("a moved page", 308, with(|| Redirect::permanent("/"))),
        ("nothing", 204, with(|| StatusCode::NO_CONTENT)),
        ("not modified", 304, with(|| (StatusCode::NOT_MODIFIED, [(ETAG, "\"1\"")]))),
        ("switching protocols", 101, with(|| StatusCode::SWITCHING_PROTOCOLS)),
        ("an early hint", 103, with(|| StatusCode::EARLY_HINTS)),
        ("a part", 206, with(|| (StatusCode::PARTIAL_CONTENT, "part"))),
        ("not found", 404, with(|| StatusCode::NOT_FOUND)),
        ("a page", 200, with(|| "page")),
        (
            "events",
            200,
            get(async move |session: Session| {
                session.increment("visits", 1)?;
                Ok::<_, Error>(([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events())))
            }),
        ),
        (
            "trailers",
            200,
            get(async move |session: Session| {
                session.increment("visits", 1)?;
                Ok::<_, Error>(Body::new(StreamBody::new(frames())))
            }),
        ),
    ]
}

fn trailers() -> Frame<Bytes> {
    Frame::trailers(HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), HeaderValue::from_static("1"))]))
}

#[tokio::test]
async fn r65_every_kind_of_response_carries_its_cookie_once() {
    for (what, status, answer) in answers() {
        let browser = Browser::new(Router::new().route("/", answer).layer(layer(&Watched::new())));
        let page = browser.get("/").await;
        assert_eq!((page.status.as_u16(), page.set_cookies().len()), (status, 1), "{what}");
        assert_eq!(lines(&page, CACHE_CONTROL), ["no-store"], "{what}");
        let value = browser.cookie(NAME).unwrap();
        let page = browser.get("/").await;
        assert_eq!((page.status.as_u16(), page.set_cookies().len()), (status, 0), "{what} again");
        assert_eq!(browser.cookie(NAME).unwrap(), value, "{what}");
        assert!(browser.jar().refusals().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn r65_trailers_and_single_frames_pass_as_they_are() {
    let (_, _, answer) = answers().pop().unwrap();
    let app = Router::new().route("/", answer).layer(layer(&Watched::new()));
    let request = Request::get("/").body(Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(app, request).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "1");
    assert_eq!(body.to_bytes(), "body");
}

#[tokio::test]
async fn r65_a_handler_that_panics_keeps_no_edits_and_sends_no_cookie() {
    async fn panics(session: Session) -> Result<(), Error> {
        session.increment("visits", 1)?;
        panic!("the handler's own fault");
    }
    let pages = || {
        Router::new()
            .route("/panic", get(panics))
            .route("/visit", get(visit))
            .route("/visits", get(async |visitor: Session<Visitor>| visitor.visits.to_string()))
    };
    for place in ["outside", "inside"] {
        let store = Watched::new();
        let app = match place {
            "outside" => pages().layer(layer(&store)).layer(CatchPanicLayer::new()),
            _ => pages().layer(CatchPanicLayer::new()).layer(layer(&store)),
        };
        let stranger = Browser::new(app.clone());
        let page = stranger.get("/panic").await;
        assert_eq!((page.status.as_u16(), page.set_cookies().len(), store.len()), (500, 0, 0), "{place}");
        let browser = Browser::new(app);
        browser.get("/visit").await;
        let value = browser.cookie(NAME);
        let page = browser.get("/panic").await;
        assert_eq!((page.status.as_u16(), page.set_cookies().len()), (500, 0), "{place}");
        assert_eq!(browser.cookie(NAME), value, "{place}");
        assert_eq!(browser.get("/visits").await.body, "1", "{place}");
        assert_eq!(browser.get("/visit").await.status, 200, "{place}");
    }
}

#[tokio::test]
async fn r65_what_was_awaited_before_a_panic_stands_and_its_cookie_needs_the_catch_inside() {
    async fn panics(session: Session) -> Result<(), Error> {
        session.increment("visits", 1)?;
        session.save().await?;
        panic!("the handler's own fault");
    }
    for (place, cookies) in [("outside", 0), ("inside", 1)] {
        let store = Watched::new();
        let app = Router::new().route("/", get(panics));
        let app = match place {
            "outside" => app.layer(layer(&store)).layer(CatchPanicLayer::new()),
            _ => app.layer(CatchPanicLayer::new()).layer(layer(&store)),
        };
        let page = Browser::new(app).get("/").await;
        assert_eq!((page.status.as_u16(), page.set_cookies().len(), store.len()), (500, cookies, 1), "{place}");
    }
}

#[tokio::test]
async fn r65_layers_of_the_application_that_set_headers_do_not_lose_the_cookie() {
    let over = |name, value| SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value));
    let replace = async |request: Request, next: Next| {
        let mut response = next.run(request).await;
        *response.headers_mut() = HeaderMap::from_iter([(SET_COOKIE, HeaderValue::from_static("theme=dark"))]);
        response
    };
    let app = Router::new()
        .route("/", get(visit))
        .layer(over(VARY, "origin"))
        .layer(over(CACHE_CONTROL, "public, max-age=60"))
        .layer(from_fn(replace))
        .layer(over(SET_COOKIE, "theme=light"))
        .layer(layer(&Watched::new()));
    let browser = Browser::new(app);
    let page = browser.get("/").await;
    assert_eq!(page.set_cookies()[0], "theme=light");
    assert!(page.set_cookies().len() == 2 && page.set_cookies()[1].starts_with("__Host-id=1"), "{page:?}");
    assert_eq!((lines(&page, VARY), lines(&page, CACHE_CONTROL)), (vec!["cookie"], vec!["no-store"]));
    // Around it, an application may still have its own way with all but the cookie.
    let app = Router::new().route("/", get(visit)).layer(layer(&Watched::new())).layer(over(VARY, "cookie, origin"));
    let page = Browser::new(app).get("/").await;
    assert_eq!((lines(&page, VARY), page.set_cookies().len()), (vec!["cookie, origin"], 1));
}

/// Does one thing to the session when the body is sent, which is after the response has left, and sends what came of it.
async fn later(session: Session, what: axum::extract::Path<String>) -> Response {
    let body = stream::once(async move {
        let outcome = match what.as_str() {
            "insert" => session.insert("late", &1),
            "remove" => session.remove("visits"),
            "increment" => session.increment("visits", 1),
            "clear" => session.clear(),
            "expire_after" => session.expire_after(DAY),
            "update" => {
                session.view::<Visitor>().and_then(|mut visitor| visitor.update(|visitor| visitor.visits += 10))
            }
            "transaction" => match session.view::<Visitor>() {
                Ok(mut visitor) => {
                    let ten_more = |visitor: &mut Visitor| {
                        visitor.visits += 10;
                        Ok(())
                    };
                    visitor.transaction(ten_more).await
                }
                Err(error) => Err(error),
            },
            "save" => session.save().await,
            "refresh" => session.refresh().await,
            "rotate" => session.rotate().await,
            "remember" => session.remember(DAY).await,
            _ => session.destroy().await,
        };
        let outcome = match outcome {
            Ok(()) => "done",
            Err(error) if error.is_committed() => "committed",
            Err(_) => "another error",
        };
        Ok::<_, Infallible>(outcome)
    });
    Body::from_stream(body).into_response()
}

#[tokio::test]
async fn r65_a_streamed_body_that_holds_its_session_is_told_what_cannot_be_saved_any_more() {
    let pages = Router::new()
        .route("/later/{what}", get(later))
        .route("/visit", get(visit))
        .route("/visits", get(async |visitor: Session<Visitor>| visitor.visits.to_string()));
    let table = [
        ("insert", "committed", "committed", "1"),
        ("remove", "committed", "committed", "1"),
        ("increment", "committed", "committed", "1"),
        ("clear", "committed", "committed", "1"),
        ("expire_after", "committed", "committed", "1"),
        ("update", "committed", "committed", "1"),
        ("rotate", "committed", "committed", "1"),
        ("remember", "committed", "committed", "1"),
        ("refresh", "done", "done", "1"),
        ("save", "done", "committed", "1"),
        ("transaction", "done", "committed", "11"),
        ("destroy", "done", "done", "0"),
    ];
    for (what, to_a_visitor, to_a_stranger, visits) in table {
        let store = Watched::new();
        let app = pages.clone().layer(layer(&store));
        let path = format!("/later/{what}");
        let stranger = Browser::new(app.clone());
        let page = stranger.get(&path).await;
        assert_eq!((page.body.as_str(), page.set_cookies().len(), store.len()), (to_a_stranger, 0, 0), "{what}");
        let browser = Browser::new(app);
        browser.get("/visit").await;
        let page = browser.get(&path).await;
        assert_eq!((page.body.as_str(), page.set_cookies().len()), (to_a_visitor, 0), "{what}");
        assert_eq!(browser.get("/visits").await.body, visits, "{what}");
    }
}

#[tokio::test]
async fn a_transaction_is_run_once_by_a_request_that_is_alone() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    async fn count(mut visitor: Session<Visitor>) -> Result<String, Error> {
        let visits = visitor
            .transaction(|visitor| {
                RUNS.fetch_add(1, Ordering::SeqCst);
                visitor.visits += 1;
                Ok::<_, Error>(visitor.visits)
            })
            .await?;
        Ok(visits.to_string())
    }
    let browser = Browser::new(Router::new().route("/", get(count)).layer(layer(&Watched::new())));
    assert_eq!(browser.get("/").await.body, "1");
    assert_eq!(browser.get("/").await.body, "2");
    assert_eq!(RUNS.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn r64_a_logout_may_let_the_browser_forget_what_the_site_has_left_in_it() {
    let log_out = async |session: Session, how: axum::extract::Path<String>| {
        session.log_out().await?;
        Ok::<_, Error>(match how.as_str() {
            "everything" => (ClearSiteData::Everything, Redirect::to("/")).into_response(),
            "all-but-cookies" => (ClearSiteData::AllButCookies, Redirect::to("/")).into_response(),
            _ => Redirect::to("/").into_response(),
        })
    };
    let app = Router::new().route("/visit", get(visit)).route("/log-out/{how}", get(log_out));
    let app = app.layer(layer(&Watched::new()));
    let table = [
        ("everything", Some(r#""cache", "cookies", "storage""#)),
        ("all-but-cookies", Some(r#""cache", "storage""#)),
        // Only where it is asked for.
        ("quietly", None),
    ];
    for (how, expected) in table {
        let browser = Browser::new(app.clone());
        browser.get("/visit").await;
        let page = browser.get(&format!("/log-out/{how}")).await;
        assert_eq!((page.status.as_u16(), browser.cookie(NAME)), (303, None), "{how}");
        assert_eq!(page.header("clear-site-data").as_deref(), expected, "{how}");
    }
}
