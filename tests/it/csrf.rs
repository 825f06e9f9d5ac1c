//! Requests that another site makes a visitor's browser send, and the tokens of forms, on both stores.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use futures_util::stream;
use http::header::{CONTENT_TYPE, ORIGIN, VARY};
use http::{HeaderName, Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use redis_session::{
    CsrfLayer, CsrfRefusal, CsrfToken, Error, Event, Expiry, KeyRing, Main, RedisSessionLayer, Session, Untyped,
};
use redis_session_core::Kind;
use redis_session_testkit::{Action, Browser, Page, Proxy, RedisServer};

use crate::visitor::{Place, on_both_stores};
use crate::watched::{Calls, Seen, Watched, patient};

const MINUTE: Duration = Duration::from_secs(60);
const FORM: &str = "application/x-www-form-urlencoded";

type Visitor = Browser<Router>;

/// Pages with forms. What is under `/open` is not under the layer.
fn app(csrf: CsrfLayer, sessions: RedisSessionLayer) -> Router {
    Router::new()
        .route("/echo", any(async |body: Bytes| body))
        .layer(csrf)
        .route("/form", get(async |token: CsrfToken| token.to_string()))
        .route("/open/begin", post(async |session: Session| session.insert("cart", &["tea"])))
        .route("/open/rotate", post(async |session: Session| session.rotate().await))
        .route("/open/log-in/{user}", post(async |session: Session, user: Path<String>| session.log_in(&*user).await))
        .route("/open/log-out", post(async |session: Session| session.log_out().await))
        .route("/open/verify", post(async |token: CsrfToken, sent: String| token.verify(&sent)))
        .layer(sessions)
}

fn visitor_of(place: &Place) -> Visitor {
    Browser::new(app(CsrfLayer::new(), place.layer.clone()))
}

async fn with_session(place: &Place) -> Visitor {
    let visitor = visitor_of(place);
    done(&visitor, "/open/begin").await;
    visitor
}

async fn done(visitor: &Visitor, path: &str) {
    assert_eq!(visitor.post_form(path, &[]).await.status, 200, "{path}");
}

async fn token(visitor: &Visitor) -> String {
    let page = visitor.get("/form").await;
    assert_eq!(page.status, 200);
    page.body
}

fn request(method: Method, headers: &[(&str, &str)], body: impl Into<Body>) -> Request {
    let mut request = http::Request::builder().method(method).uri("/echo");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

/// A `fetch` from a page that has this token.
async fn fetch(visitor: &Visitor, token: &str) -> StatusCode {
    visitor.send(request(Method::POST, &[("x-csrf-token", token)], "")).await.status
}

/// The same, with the browser's word that it is the application's own page.
async fn fetch_from_own_page(visitor: &Visitor, token: &str) -> StatusCode {
    let headers = [("x-csrf-token", token), ("sec-fetch-site", "same-origin")];
    visitor.send(request(Method::POST, &headers, "")).await.status
}

fn refused(page: &Page) {
    assert_eq!((page.status.as_u16(), page.body.as_str()), (403, ""));
    assert!(page.set_cookies().is_empty());
}

#[tokio::test]
async fn r66_safe_methods_are_free_and_do_not_even_load_the_session() {
    let store = Watched::new();
    let layer = RedisSessionLayer::with_store(store.clone(), KeyRing::random().unwrap());
    let visitor = Browser::new(app(CsrfLayer::new(), layer));
    done(&visitor, "/open/begin").await;
    store.calls();
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE] {
        let page = visitor.send(request(method.clone(), &[("sec-fetch-site", "cross-site")], "")).await;
        assert_eq!(page.status, 200, "{method}");
        assert!(!page.headers.contains_key(VARY), "{method}");
    }
    assert_eq!(store.calls(), Calls::default());
}

#[tokio::test]
async fn r66_an_unsafe_request_from_another_site_is_refused_even_with_the_right_token_and_before_anything_is_read() {
    let (store, seen) = (Watched::new(), Seen::default());
    let layer = RedisSessionLayer::with_store(store.clone(), KeyRing::random().unwrap()).observer(seen.clone());
    let visitor = Browser::new(app(CsrfLayer::new(), layer));
    done(&visitor, "/open/begin").await;
    let token = token(&visitor).await;
    store.calls();
    seen.take();
    let foreign = [
        (("sec-fetch-site", "cross-site"), CsrfRefusal::CrossSite),
        (("sec-fetch-site", "same-site"), CsrfRefusal::CrossSite),
        (("origin", "https://evil.example"), CsrfRefusal::ForeignOrigin),
        (("origin", "null"), CsrfRefusal::ForeignOrigin),
    ];
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::from_bytes(b"BREW").unwrap()] {
        for (says, refusal) in foreign {
            for who in [visitor.clone(), visitor.stranger()] {
                let page = who.send(request(method.clone(), &[says, ("x-csrf-token", &token)], "")).await;
                refused(&page);
                assert_eq!(seen.take(), [Event::RequestRefused(refusal)], "{method} {says:?}");
            }
        }
        let own = [("origin", "https://localhost"), ("x-csrf-token", &*token)];
        assert_eq!(visitor.send(request(method.clone(), &own, "")).await.status, 200, "{method}");
        assert_eq!(store.calls(), Calls { loads: 1, ..Calls::default() }, "{method}");
    }
}

#[tokio::test]
async fn r66_with_a_session_an_unsafe_request_needs_the_token_in_the_header_or_in_the_form() {
    on_both_stores(async |place| {
        let visitor = with_session(&place).await;
        let right = token(&visitor).await;
        assert_eq!(fetch(&visitor, &right).await, 200);
        assert_eq!(visitor.post_form("/echo", &[("a", "1"), ("csrf_token", &right)]).await.status, 200);
        place.events.take();
        refused(&visitor.post_form("/echo", &[]).await);
        refused(&visitor.post_form("/echo", &[("csrf_token", "")]).await);
        refused(&visitor.send(request(Method::POST, &[("sec-fetch-site", "same-origin")], "")).await);
        refused(
            &visitor
                .send(request(Method::POST, &[(CONTENT_TYPE.as_str(), "text/plain")], format!("csrf_token={right}")))
                .await,
        );
        assert_eq!(place.events.take(), [Event::RequestRefused(CsrfRefusal::NoToken); 4]);
        for wrong in ["garbage", &right[1..], &format!("{right}="), &"A".repeat(right.len())] {
            refused(&visitor.post_form("/echo", &[("csrf_token", wrong)]).await);
            assert_eq!(fetch(&visitor, wrong).await, 403, "{wrong}");
            assert_eq!(place.events.take(), [Event::RequestRefused(CsrfRefusal::WrongToken); 2], "{wrong}");
        }
        // The header counts where it is there.
        let both = [("x-csrf-token", "wrong"), (CONTENT_TYPE.as_str(), FORM)];
        refused(&visitor.send(request(Method::POST, &both, format!("csrf_token={right}"))).await);
    })
    .await;
}

#[tokio::test]
async fn r67_each_page_has_another_text_and_all_are_right() {
    on_both_stores(async |place| {
        let visitor = with_session(&place).await;
        let (one, other) = (token(&visitor).await, token(&visitor).await);
        assert_ne!(one, other);
        assert_eq!((fetch(&visitor, &one).await, fetch(&visitor, &other).await), (StatusCode::OK, StatusCode::OK));
    })
    .await;
}

#[tokio::test]
async fn r67_the_token_of_another_session_is_refused() {
    on_both_stores(async |place| {
        let (visitor, other) = (with_session(&place).await, with_session(&place).await);
        let others = token(&other).await;
        assert_eq!(
            (fetch_from_own_page(&visitor, &others).await, fetch(&other, &others).await),
            (StatusCode::FORBIDDEN, StatusCode::OK)
        );
        for who in [&visitor, &other] {
            done(who, "/open/log-in/ada").await;
        }
        let others = token(&other).await;
        assert_eq!(
            (fetch_from_own_page(&visitor, &others).await, fetch(&other, &others).await),
            (StatusCode::FORBIDDEN, StatusCode::OK)
        );
    })
    .await;
}

#[tokio::test]
async fn r33_the_token_of_before_a_login_or_a_rotation_is_refused_after_it() {
    on_both_stores(async |place| {
        let visitor = visitor_of(&place);
        done(&visitor, "/open/begin").await;
        let mut before = Vec::new();
        for step in ["rotate", "log-in/ada", "rotate", "log-in/ada", "log-in/bob", "rotate"] {
            // The store's clock counts in milliseconds.
            place.pass(Duration::from_millis(2));
            before.push(token(&visitor).await);
            assert_eq!(fetch(&visitor, &before[before.len() - 1]).await, 200, "before {step}");
            done(&visitor, &format!("/open/{step}")).await;
            for old in &before {
                assert_eq!(fetch_from_own_page(&visitor, old).await, 403, "after {step}");
            }
        }
        done(&visitor, "/open/log-out").await;
        done(&visitor, "/open/begin").await;
        for old in &before {
            assert_eq!(fetch_from_own_page(&visitor, old).await, 403, "in the next session");
        }
    })
    .await;
}

#[tokio::test]
async fn r33_the_page_that_answers_a_login_has_the_new_token() {
    on_both_stores(async |place| {
        let log_in = async |session: Session, token: CsrfToken| {
            let before = token.to_string();
            session.log_in("ada").await?;
            Ok::<_, Error>(format!("{before} {token}"))
        };
        let pages = Router::new().route("/log-in", post(log_in)).layer(place.layer.clone());
        let visitor = Browser::new(pages.merge(app(CsrfLayer::new(), place.layer.clone())));
        done(&visitor, "/open/begin").await;
        place.pass(Duration::from_millis(2));
        let page = visitor.post_form("/log-in", &[]).await.body;
        let (before, after) = page.split_once(' ').unwrap();
        assert_eq!(
            (fetch(&visitor, before).await, fetch(&visitor, after).await),
            (StatusCode::FORBIDDEN, StatusCode::OK)
        );
    })
    .await;
}

#[tokio::test]
async fn r67_an_open_form_survives_a_timed_renewal() {
    on_both_stores(async |mut place| {
        place.layer = place.layer.expiry(Expiry::default().new_id_every(10 * MINUTE));
        let visitor = visitor_of(&place);
        done(&visitor, "/open/log-in/ada").await;
        place.pass(11 * MINUTE);
        let (old, cookie) = (visitor.copy(), visitor.cookie("__Host-id"));
        let token = token(&visitor).await;
        assert_ne!(visitor.cookie("__Host-id"), cookie);
        assert_eq!(fetch(&visitor, &token).await, 200);
        // A tab whose request was under way.
        assert_eq!(fetch(&old, &token).await, 200);
    })
    .await;
}

#[tokio::test]
async fn without_a_session_only_the_source_counts_and_a_form_begins_none() {
    on_both_stores(async |place| {
        let visitor = visitor_of(&place);
        let page = visitor.get("/form").await;
        assert!(page.set_cookies().is_empty());
        assert_eq!(page.header("vary").as_deref(), Some("cookie"));
        for token in [&*page.body, "garbage", ""] {
            assert_eq!(
                (fetch(&visitor, token).await, fetch_from_own_page(&visitor, token).await),
                (StatusCode::OK, StatusCode::OK)
            );
        }
        assert_eq!(visitor.post_form("/echo", &[]).await.status, 200);
        // A session that has ended is none.
        let left = with_session(&place).await;
        let token = token(&left).await;
        let copy = left.copy();
        done(&left, "/open/log-out").await;
        assert_eq!((fetch(&left, &token).await, fetch(&copy, "garbage").await), (StatusCode::OK, StatusCode::OK));
    })
    .await;
}

#[tokio::test]
async fn a_form_that_was_open_when_the_session_began_is_taken_from_the_own_page_and_not_after_a_login() {
    on_both_stores(async |place| {
        let visitor = visitor_of(&place);
        let early = token(&visitor).await;
        done(&visitor, "/open/begin").await;
        assert_eq!(fetch_from_own_page(&visitor, &early).await, 200);
        let origin = [(ORIGIN.as_str(), "https://localhost"), ("x-csrf-token", &*early)];
        assert_eq!(visitor.send(request(Method::POST, &origin, "")).await.status, 200);
        // Who does not say where he comes from needs the session's own, and nobody gets by without any.
        assert_eq!(fetch(&visitor, &early).await, 403);
        assert_eq!(fetch_from_own_page(&visitor, "").await, 403);
        done(&visitor, "/open/log-in/ada").await;
        assert_eq!(fetch_from_own_page(&visitor, &early).await, 403);
    })
    .await;
}

#[tokio::test]
async fn a_million_bytes_are_no_token_and_a_larger_form_is_not_read() {
    on_both_stores(async |place| {
        let visitor = with_session(&place).await;
        let right = token(&visitor).await;
        let million = "A".repeat(1_000_000);
        assert_eq!(fetch(&visitor, &million).await, 403);
        refused(&visitor.post_form("/echo", &[("csrf_token", &million)]).await);
        place.events.take();
        let large = "A".repeat(2 * 1024 * 1024);
        let page = visitor.post_form("/echo", &[("csrf_token", &right), ("a", &large)]).await;
        assert_eq!((page.status.as_u16(), page.body.as_str()), (413, ""));
        assert_eq!(place.events.take(), [Event::RequestRefused(CsrfRefusal::FormTooLarge)]);
    })
    .await;
}

#[tokio::test]
async fn the_handler_gets_the_body_as_it_came() {
    let place = Place::in_memory();
    let echo = async |request: Request| {
        let body = request.into_body().collect().await.unwrap();
        let trailer = body.trailers().map(|trailers| trailers["x-sum"].to_str().unwrap().to_owned());
        format!("{:?} {trailer:?}", body.to_bytes())
    };
    let inner = Router::new().route("/echo", post(echo)).layer(CsrfLayer::new()).layer(place.layer.clone());
    let visitor = with_session(&place).await;
    let right = token(&visitor).await;
    let echoing = Browser::new(inner);
    echoing.jar().clone_from(&visitor.jar());
    let chunks = ["a=%zz&&=&csrf_to".to_owned(), format!("ken={right}&b=\u{1}")];
    let sum = http::HeaderMap::from_iter([(HeaderName::from_static("x-sum"), "1".parse().unwrap())]);
    let frames = chunks.iter().map(|chunk| Frame::data(Bytes::from(chunk.clone()))).chain([Frame::trailers(sum)]);
    let body = Body::new(StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>).collect::<Vec<_>>())));
    let kind = "Application/X-WWW-Form-urlencoded ; charset=UTF-8";
    let page = echoing.send(request(Method::POST, &[(CONTENT_TYPE.as_str(), kind)], body)).await;
    assert_eq!(page.body, format!("{:?} Some(\"1\")", Bytes::from(chunks.concat())));
}

#[tokio::test]
async fn a_body_that_breaks_off_has_no_token() {
    let place = Place::in_memory();
    let visitor = with_session(&place).await;
    let right = token(&visitor).await;
    let chunks = [Ok(format!("csrf_token={right}&")), Err(std::io::Error::other("the client went away"))];
    let body = Body::from_stream(stream::iter(chunks));
    refused(&visitor.send(request(Method::POST, &[(CONTENT_TYPE.as_str(), FORM)], body)).await);
}

#[tokio::test]
async fn names_and_limit_are_the_applications_choice() {
    let place = Place::in_memory();
    let csrf = CsrfLayer::new()
        .field("authenticity[token]")
        .header(HeaderName::from_static("x-xsrf-token"))
        .form_limit(200)
        .origin("https://www.localhost")
        .unwrap();
    let visitor = Browser::new(app(csrf, place.layer.clone()));
    done(&visitor, "/open/begin").await;
    let right = token(&visitor).await;
    let by_header = visitor.send(request(Method::POST, &[("x-xsrf-token", &right)], "")).await;
    assert_eq!((by_header.status.as_u16(), fetch(&visitor, &right).await), (200, StatusCode::FORBIDDEN));
    let form = |name| [(name, right.clone())];
    for (name, status) in [("authenticity[token]", 200), ("csrf_token", 403)] {
        let form = form(name);
        assert_eq!(visitor.post_form("/echo", &[(form[0].0, &form[0].1)]).await.status, status, "{name}");
    }
    assert_eq!(visitor.post_form("/echo", &[("a", &"a".repeat(200))]).await.status, 413);
    let sister = [("sec-fetch-site", "same-site"), ("origin", "https://www.localhost"), ("x-xsrf-token", &*right)];
    assert_eq!(visitor.send(request(Method::POST, &sister, "")).await.status, 200);
    assert!(CsrfLayer::new().origin("www.localhost").unwrap_err().is_config());
}

#[tokio::test]
async fn a_handler_verifies_what_the_layer_cannot_read() {
    on_both_stores(async |place| {
        let visitor = with_session(&place).await;
        let right = token(&visitor).await;
        let verify = async |headers: &[(&str, &str)], sent: &str| {
            let mut request = request(Method::POST, headers, sent.to_owned());
            *request.uri_mut() = "/open/verify".parse().unwrap();
            visitor.send(request).await.status.as_u16()
        };
        assert_eq!((verify(&[], &right).await, verify(&[], "").await, verify(&[], "garbage").await), (200, 403, 403));
        assert_eq!(verify(&[("sec-fetch-site", "cross-site")], &right).await, 403);
        assert_eq!(verify(&[("origin", "https://localhost")], &right).await, 200);
        place.events.take();
        assert_eq!(verify(&[("origin", "null")], &right).await, 403);
        assert_eq!(place.events.take(), [Event::RequestRefused(CsrfRefusal::ForeignOrigin)]);
        assert_eq!(visitor.stranger().post_form("/open/verify", &[]).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn the_application_renders_its_own_page_from_the_error() {
    let place = Place::in_memory();
    let own_page = async |response: Response| match response.extensions().get::<Error>() {
        Some(error) if error.is_csrf() => (response.status(), format!("please try again: {error}")).into_response(),
        _ => response,
    };
    let visitor = Browser::new(app(CsrfLayer::new(), place.layer.clone()).layer(map_response(own_page)));
    done(&visitor, "/open/begin").await;
    let canary = "a-canary-that-a-visitor-wrote";
    let page = visitor.post_form("/echo", &[("csrf_token", canary)]).await;
    assert_eq!(page.status, 403);
    let says = "please try again: the token is not of this session, or of the time before the login";
    assert_eq!(page.body, says);
}

#[tokio::test]
async fn a_store_that_fails_lets_nothing_through() {
    let store = Watched::new();
    let layer = RedisSessionLayer::with_store(store.clone(), KeyRing::random().unwrap());
    static CALLED: AtomicU32 = AtomicU32::new(0);
    let called = any(async || CALLED.fetch_add(1, Ordering::SeqCst).to_string());
    let inner = Router::new().route("/echo", called).layer(CsrfLayer::new()).layer(layer.clone());
    let visitor = Browser::new(app(CsrfLayer::new(), layer));
    done(&visitor, "/open/begin").await;
    let right = token(&visitor).await;
    let counting = Browser::new(inner);
    counting.jar().clone_from(&visitor.jar());
    store.fail(Kind::Unavailable);
    let page = counting.send(request(Method::POST, &[("x-csrf-token", &right)], "")).await;
    assert_eq!((page.status.as_u16(), CALLED.load(Ordering::SeqCst)), (503, 0));
    assert!(page.set_cookies().is_empty());
    // Who brings no cookie has no session to be asked for.
    assert_eq!(fetch(&counting.stranger(), "").await, 200);
    store.heal();
    assert_eq!(fetch(&counting, &right).await, 200);
}

#[tokio::test]
async fn each_layer_has_tokens_of_its_own() {
    enum Office {}
    type OfficeSession = Session<Untyped, Office>;
    let (shop, office) = (Place::in_memory(), Place::in_memory());
    let cookie = redis_session::Cookie::named("__Host-office");
    let office = office.layer.realm("office").cookie(cookie).marker::<Office>();
    let app = Router::new()
        .route("/echo", any(async || ()))
        .layer(CsrfLayer::new().marker::<Office>())
        .route(
            "/begin",
            post(async |session: Session, office: OfficeSession| {
                session.insert("a", &1)?;
                office.insert("a", &1)
            }),
        )
        .route("/form", get(async |shop: CsrfToken<Main>| shop.to_string()))
        .route("/office", get(async |office: CsrfToken<Office>| office.to_string()))
        .layer(office)
        .layer(shop.layer.clone());
    let visitor = Browser::new(app);
    done(&visitor, "/begin").await;
    let (shops, offices) = (token(&visitor).await, visitor.get("/office").await.body);
    assert_eq!(
        (fetch(&visitor, &shops).await, fetch(&visitor, &offices).await),
        (StatusCode::FORBIDDEN, StatusCode::OK)
    );
}

#[tokio::test]
async fn without_a_session_layer_around_it_nothing_unsafe_passes() {
    let app = Router::new().route("/echo", any(async || ())).layer(CsrfLayer::new());
    let visitor = Browser::new(app);
    let status = async |method| visitor.send(request(method, &[], "")).await.status.as_u16();
    assert_eq!((status(Method::GET).await, status(Method::POST).await), (200, 500));
}

/// The token on the page that answers a login is bound to the time of that login, which a resent write must not move.
#[tokio::test(flavor = "multi_thread")]
async fn r67_the_token_of_a_page_whose_login_s_reply_was_lost_is_good() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let store = patient(&proxy.url(), Duration::from_secs(5)).await;
    let layer = RedisSessionLayer::with_store(store, KeyRing::random().unwrap());
    let token_after = |act: &'static str| {
        post(async move |session: Session| {
            match act {
                "log in" => session.log_in("ada").await?,
                _ => session.rotate().await?,
            }
            Ok::<_, Error>(CsrfToken::of(&session)?.to_string())
        })
    };
    let app = app(CsrfLayer::new(), layer.clone()).merge(
        Router::new().route("/log-in", token_after("log in")).route("/rotate", token_after("rotate")).layer(layer),
    );
    let visitor = Browser::new(app);
    // So that the scripts are known, and each write is one command.
    done(&visitor, "/open/begin").await;
    done(&visitor, "/open/log-in/bob").await;
    done(&visitor, "/open/rotate").await;
    done(&visitor, "/open/log-out").await;
    done(&visitor, "/open/begin").await;
    for path in ["/log-in", "/rotate"] {
        // Of the scripts of a login, the second one writes the session.
        let mut scripts = if path == "/log-in" { 2 } else { 1 };
        proxy.fault(move |command| {
            if command.name() == "EVALSHA" && scripts > 0 {
                scripts -= 1;
                if scripts == 0 {
                    return Action::DropReply;
                }
            }
            Action::Pass
        });
        let page = visitor.post_form(path, &[]).await;
        proxy.clear_faults();
        assert_eq!(page.status, 200, "{path}");
        assert_eq!(fetch(&visitor, &page.body).await, 200, "{path}");
    }
}
