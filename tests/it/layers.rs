//! The layer among others: any service, any body, any router, twice, beside another of its kind, under middleware.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::Request;
use redis_session::{
    Cookie, Error, Event, Expiry, KeyRing, Main, RedisSession, RedisSessionLayer, Refusal, Session, Untyped,
};
use redis_session_testkit::{Browser, RedisServer};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use crate::watched::{Calls, Seen, Watched, patient};

const NAME: &str = "__Host-id";

enum Office {}

type OfficeSession<T = Untyped> = Session<T, Office>;

fn layer(store: &Watched) -> RedisSessionLayer {
    RedisSessionLayer::with_store(store.clone(), KeyRing::random().unwrap())
}

/// A body of no HTTP library's.
#[derive(Debug, Default, PartialEq)]
struct Pages(Vec<&'static str>);

/// A service that is neither Axum's nor `Clone`, whose requests have numbers for bodies.
struct HandWritten {
    ready: bool,
}

#[derive(Debug, PartialEq)]
struct Broken;

impl Service<Request<u32>> for HandWritten {
    type Response = http::Response<Pages>;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Broken>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.ready {
            return Poll::Ready(Ok(()));
        }
        self.ready = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, request: Request<u32>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called before it was ready");
        let session = Session::<Untyped>::from_extensions(request.extensions());
        Box::pin(async move {
            if request.uri() == "/untouched" {
                return Ok(http::Response::new(Pages(vec!["untouched"])));
            }
            let session = session.await.map_err(|_| Broken)?;
            session.increment("sum", i64::from(*request.body())).map_err(|_| Broken)?;
            if request.uri() == "/broken" { Err(Broken) } else { Ok(http::Response::new(Pages(vec!["counted"]))) }
        })
    }
}

async fn ask(
    service: &mut RedisSession<HandWritten>,
    path: &str,
    body: u32,
    cookie: Option<&str>,
) -> Result<http::Response<Pages>, Broken> {
    let mut request = Request::get(path);
    if let Some(cookie) = cookie {
        request = request.header("cookie", cookie);
    }
    service.ready().await?.call(request.body(body).unwrap()).await
}

#[tokio::test]
async fn a_hand_written_service_with_bodies_of_its_own_has_sessions() {
    let store = Watched::new();
    let mut service = layer(&store).layer(HandWritten { ready: false });
    let response = ask(&mut service, "/untouched", 1, None).await.unwrap();
    assert!(response.headers().is_empty() && *response.body() == Pages(vec!["untouched"]));
    assert_eq!(ask(&mut service, "/broken", 1, None).await.unwrap_err(), Broken);
    assert_eq!(store.calls(), Calls::default(), "a service that fails keeps no edits");

    let response = ask(&mut service, "/", 2, None).await.unwrap();
    let cookie = response.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(*response.body(), Pages(vec!["counted"]));
    let response = ask(&mut service, "/", 3, Some(&cookie)).await.unwrap();
    assert!(!response.headers().contains_key("set-cookie"));
    assert_eq!(store.calls(), Calls { loads: 1, creates: 1, saves: 1, ends: 0 });
    // What the layer answers itself has the default of this body.
    store.fail(redis_session::Kind::Unavailable);
    let response = ask(&mut service, "/", 4, None).await.unwrap();
    assert_eq!((response.status().as_u16(), response.body()), (503, &Pages(vec![])));
    assert!(response.extensions().get::<Error>().is_some_and(|error| error.is_unavailable()));
}

/// A service whose future is a plain `Ready`, and whose error is any.
#[derive(Clone)]
struct Hello;

impl<B> Service<Request<B>> for Hello {
    type Response = http::Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(http::Response::new("hello".to_owned())))
    }
}

#[tokio::test]
async fn a_service_builder_takes_the_layer_between_others() {
    let store = Watched::new();
    let service = ServiceBuilder::new()
        .map_request(|request: Request<&'static str>| request.map(str::len))
        .layer(layer(&store))
        .map_response(|response: http::Response<String>| response.map(String::into_bytes))
        .service(Hello);
    let response = service.clone().oneshot(Request::new("body")).await.unwrap();
    assert_eq!(response.body(), b"hello");
    assert_eq!(service.boxed_clone().oneshot(Request::new("body")).await.unwrap().body(), b"hello");
    assert_eq!(store.calls(), Calls::default());
}

#[derive(Clone)]
struct Shop {
    name: &'static str,
}

async fn visit(State(shop): State<Shop>, session: Session) -> Result<String, Error> {
    session.increment("visits", 1)?;
    Ok(format!("{} {}", shop.name, session.get::<u64>("visits")?.unwrap_or_default()))
}

#[tokio::test]
async fn any_router_takes_the_layer_with_state_and_without_nested_or_merged() {
    let tea = || Shop { name: "tea" };
    let routes = || Router::<Shop>::new().route("/", get(visit));
    let before: Router = routes().layer(layer(&Watched::new())).with_state(tea());
    let after: Router = routes().with_state(tea()).layer(layer(&Watched::new()));
    let route_layer: Router = routes().route_layer(layer(&Watched::new())).with_state(tea());
    let on_one: Router = Router::new().route("/", get(visit).layer(layer(&Watched::new()))).with_state(tea());
    let fallback: Router = Router::new().fallback(get(visit)).with_state(tea()).layer(layer(&Watched::new()));
    for app in [before, after, route_layer, on_one, fallback] {
        let browser = Browser::new(app);
        for visits in 1..4 {
            assert_eq!(browser.get("/").await.body, format!("tea {visits}"));
        }
    }
    let nested = Router::new().nest("/shop", routes()).merge(routes()).layer(layer(&Watched::new())).with_state(tea());
    let browser = Browser::new(nested);
    assert_eq!(browser.get("/shop").await.body, "tea 1");
    assert_eq!(browser.get("/").await.body, "tea 2");
}

/// Counts in both sessions, and ends one by name.
async fn both(shop: Session, office: OfficeSession, Path(what): Path<String>) -> Result<String, Error> {
    match what.as_str() {
        "count" => {
            shop.increment("n", 1)?;
            office.increment("n", 10)?;
        }
        "shop-rotate" => shop.rotate().await?,
        "office-rotate" => office.rotate().await?,
        "shop-end" => shop.destroy().await?,
        "office-end" => office.destroy().await?,
        _ => {}
    }
    let n = (shop.get::<u64>("n")?.unwrap_or_default(), office.get::<u64>("n")?.unwrap_or_default());
    Ok(format!("{} {}", n.0, n.1))
}

fn office(layer: RedisSessionLayer) -> RedisSessionLayer<Office> {
    layer.marker().realm("office").cookie(Cookie::named("__Host-office"))
}

#[tokio::test]
async fn two_layers_have_two_sessions_in_one_handler_whichever_is_inside() {
    for shop_is_inside in [true, false] {
        let (store, keys) = (Watched::new(), KeyRing::random().unwrap());
        let shop = RedisSessionLayer::with_store(store.clone(), keys.clone());
        let office = office(RedisSessionLayer::with_store(store.clone(), keys));
        let app = Router::new().route("/{what}", get(both));
        let app = if shop_is_inside { app.layer(shop).layer(office) } else { app.layer(office).layer(shop) };
        let browser = Browser::new(app);
        let page = browser.get("/count").await;
        assert_eq!((page.body.as_str(), page.set_cookies().len()), ("1 10", 2));
        assert_eq!(page.headers.get_all("vary").iter().count(), 1);
        assert_eq!(page.headers.get_all("cache-control").iter().count(), 1);
        let page = browser.get("/count").await;
        assert_eq!((page.body.as_str(), page.set_cookies().len(), store.len()), ("2 20", 0, 2));
        let [shop, office] = [NAME, "__Host-office"].map(|name| browser.cookie(name).unwrap());
        assert_eq!(browser.get("/shop-rotate").await.body, "2 20");
        assert_ne!(browser.cookie(NAME).unwrap(), shop);
        assert_eq!(browser.cookie("__Host-office").unwrap(), office);
        assert_eq!(browser.get("/shop-end").await.body, "0 20");
        assert_eq!(browser.cookie(NAME), None);
        assert_eq!(browser.get("/read").await.body, "0 20");
        assert_eq!(browser.get("/office-rotate").await.body, "0 20");
        assert_eq!(browser.get("/office-end").await.body, "0 0");
        assert!(browser.jar().cookies().is_empty());
    }
}

#[tokio::test]
async fn two_layers_beside_each_other_do_not_meet() {
    let (store, keys) = (Watched::new(), KeyRing::random().unwrap());
    let shop = RedisSessionLayer::with_store(store.clone(), keys.clone());
    let office = office(RedisSessionLayer::with_store(store.clone(), keys));
    let count = async |session: Session| session.increment("n", 1);
    let app = Router::new().route("/shop", get(count)).layer(shop).merge(
        Router::new().route("/office", get(async |session: OfficeSession| session.increment("n", 1))).layer(office),
    );
    let browser = Browser::new(app);
    assert_eq!(browser.get("/shop").await.set_cookies().len(), 1);
    assert_eq!(browser.get("/office").await.set_cookies().len(), 1);
    let names: Vec<_> = browser.jar().cookies().iter().map(|cookie| cookie.name.clone()).collect();
    assert_eq!(names, [NAME, "__Host-office"]);
    assert_eq!(store.len(), 2);
}

#[tokio::test]
async fn r69_cookies_of_two_layers_on_one_redis_and_one_key_do_not_cross() {
    let redis = RedisServer::start();
    let keys = KeyRing::random().unwrap();
    let store = patient(&redis.url(), Duration::from_secs(20)).await;
    let layer = || RedisSessionLayer::with_store(store.clone(), keys.clone());
    let count = async |session: Session| session.increment("n", 1);
    let show = async |session: Session| Ok::<_, Error>(session.get::<u64>("n")?.unwrap_or_default().to_string());
    let pages = || Router::new().route("/", get(show)).route("/count", get(count));
    // Another realm, another cookie name, both.
    let others = [
        layer().realm("office"),
        layer().cookie(Cookie::named("__Host-office")),
        layer().realm("office").cookie(Cookie::named("__Host-office")),
    ];
    let shop = Browser::new(pages().layer(layer()));
    shop.get("/count").await;
    let value = shop.cookie(NAME).unwrap();
    for other in others {
        let seen = Seen::default();
        let other = Browser::new(pages().layer(other.observer(seen.clone())));
        other.get("/count").await;
        let (name, theirs) = {
            let jar = other.jar();
            let cookie = jar.cookies()[0];
            (cookie.name.clone(), cookie.value.clone())
        };
        seen.take();
        other.set_cookie(&name, &value);
        assert_eq!(other.get("/").await.body, "0");
        assert_eq!(seen.take(), [Event::Refused(Refusal::BadSignature)]);
        let thief = shop.stranger();
        thief.set_cookie(NAME, &theirs);
        assert_eq!(thief.get("/").await.body, "0");
    }
    let mut realms: Vec<_> =
        redis.run(&["KEYS", "*"]).texts().iter().map(|key| key.rsplit_once(':').unwrap().0.to_owned()).collect();
    realms.sort();
    assert_eq!(realms, ["sess:main", "sess:main", "sess:office", "sess:office"]);
}

#[tokio::test]
async fn the_same_layer_twice_commits_once() {
    let (store, seen) = (Watched::new(), Seen::default());
    let once = layer(&store).observer(seen.clone());
    let count = async |session: Session| session.increment("n", 1);
    let app = Router::new().route("/", get(count)).layer(once.clone()).layer(once.clone()).layer(once);
    let browser = Browser::new(app);
    let page = browser.get("/").await;
    assert_eq!((page.status.as_u16(), page.set_cookies().len()), (200, 1));
    assert_eq!(page.headers.get_all("vary").iter().count(), 1);
    assert_eq!((store.calls(), seen.take()), (Calls { creates: 1, ..Calls::default() }, vec![Event::Created]));
    let page = browser.get("/").await;
    assert_eq!((page.status.as_u16(), page.set_cookies().len()), (200, 0));
    assert_eq!(store.calls(), Calls { loads: 1, saves: 1, ..Calls::default() });
}

#[tokio::test]
async fn of_two_layers_with_one_marker_the_outermost_counts() {
    let (inner, outer) = (Watched::new(), Watched::new());
    let count = async |session: Session| session.increment("n", 1);
    let app = Router::new()
        .route("/", get(count))
        .layer(layer(&inner).cookie(Cookie::named("__Host-inner")))
        .layer(layer(&outer).cookie(Cookie::named("__Host-outer")));
    let browser = Browser::new(app);
    assert_eq!(browser.get("/").await.set_cookies().len(), 1);
    assert!(browser.cookie("__Host-outer").is_some());
    assert_eq!((inner.len(), outer.len()), (0, 1));
}

/// Middleware as `tower` has it: counts the pages of each visitor, before and after the page is made.
#[derive(Clone)]
struct CountPages<S>(S);

impl<S, B> Service<Request<B>> for CountPages<S>
where
    S: Service<Request<B>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let session = Session::<Untyped, Main>::from_extensions(request.extensions());
        let page = self.0.call(request);
        Box::pin(async move {
            let session = match session.await {
                Ok(session) => session,
                Err(error) => return Ok(error.into_response()),
            };
            if let Err(error) = session.increment("before", 1) {
                return Ok(error.into_response());
            }
            let page = page.await?;
            Ok(session.increment("after", 1).map_or_else(IntoResponse::into_response, |()| page))
        })
    }
}

#[tokio::test]
async fn middleware_and_handler_share_one_session_and_one_write() {
    let store = Watched::new();
    let own = async |request: Request<Body>, next: Next| {
        let session = match Session::<Untyped>::from_extensions(request.extensions()).await {
            Ok(session) => session,
            Err(error) => return error.into_response(),
        };
        session.insert("language", "en").map_or_else(IntoResponse::into_response, |()| ().into_response());
        next.run(request).await
    };
    let show = async |session: Session| {
        session.increment("handler", 1)?;
        let fields = session.fields()?.into_iter().map(|(name, text)| format!("{name}={text}"));
        Ok::<_, Error>(fields.collect::<Vec<_>>().join(" "))
    };
    let app = Router::new()
        .route("/", get(show))
        .layer(from_fn(own))
        .layer(tower::layer::layer_fn(CountPages))
        .layer(layer(&store));
    let browser = Browser::new(app);
    let page = browser.get("/").await;
    assert_eq!((page.body.as_str(), page.set_cookies().len()), ("before=1 handler=1 language=\"en\"", 1));
    assert_eq!(store.calls(), Calls { creates: 1, ..Calls::default() });
    let page = browser.get("/").await;
    assert_eq!(page.body, "after=1 before=2 handler=2 language=\"en\"");
    assert_eq!(store.calls(), Calls { loads: 1, saves: 1, ..Calls::default() });
}

#[tokio::test]
async fn middleware_that_answers_itself_keeps_its_edits() {
    let store = Watched::new();
    let guard = async |session: Session, request: Request<Body>, next: Next| {
        let tries: u64 = session.get("tries").unwrap().unwrap_or_default();
        if tries < 3 {
            session.increment("tries", 1).unwrap();
            return (http::StatusCode::UNAUTHORIZED, tries.to_string()).into_response();
        }
        next.run(request).await
    };
    let app = Router::new().route("/", get(async || "in")).layer(from_fn(guard)).layer(layer(&store));
    let browser = Browser::new(app);
    for tries in ["0", "1", "2"] {
        let page = browser.get("/").await;
        assert_eq!((page.status.as_u16(), page.body.as_str()), (401, tries));
    }
    assert_eq!(browser.get("/").await.body, "in");
}

#[tokio::test]
async fn an_attached_session_is_left_alone_by_the_layer_around_the_handler() {
    let store = Watched::new();
    let count = async |session: Session| session.increment("n", 1);
    let app = Router::new().route("/", get(count)).layer(layer(&store));
    let session = Session::detached(std::collections::BTreeMap::from([("n".to_owned(), 41)])).await.unwrap();
    let mut request = Request::get("/").body(Body::empty()).unwrap();
    session.attach(&mut request);
    let response = app.oneshot(request).await.unwrap();
    assert!(response.status() == 200 && !response.headers().contains_key("set-cookie"));
    assert_eq!(session.get("n").unwrap(), Some(42));
    assert_eq!((store.len(), store.calls()), (0, Calls::default()));
}

#[test]
#[should_panic(expected = "must be between 100 milliseconds and 400 days")]
fn a_layer_whose_settings_cannot_work_is_not_added_to_a_service() {
    let _ = layer(&Watched::new()).expiry(Expiry::idle(Duration::MAX)).layer(Hello);
}
