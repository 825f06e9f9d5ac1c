//! Guards over HTTP: who comes in, who is sent to a page and comes back, and who is asked once more.

use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::response::Redirect;
use axum::routing::get;
use http::{Method, Request};
use redis_session::{
    Clock, Denied, Error, Expiry, Fresh, KeyRing, Level, LoggedIn, MemoryStore, RedisSessionLayer, RequireLogin,
    ReturnTo, Session,
};
use redis_session_testkit::{Browser, Page};

const MINUTE: Duration = Duration::from_secs(60);

fn app(layer: RedisSessionLayer) -> Router {
    let inner = Router::new().route("/page", get(async |LoggedIn { user, .. }: LoggedIn<u64>| user.to_string()));
    Router::new()
        .route("/", get(async || "welcome"))
        .route("/account", get(async |user: LoggedIn<u64>| user.to_string()))
        .route("/salaries", get(async |user: LoggedIn<u64, 2>| user.to_string()))
        .route("/second-factor", get(async |user: LoggedIn<u64, 0>| user.to_string()))
        .route(
            "/pay",
            get(async |user: Fresh<u64, 5>| user.to_string()).post(async |user: Fresh<u64, 5>| user.to_string()),
        )
        .route("/visit", get(async |session: Session| session.increment("visits", 1)))
        .route("/enter/{user}/{level}", get(enter))
        .route("/leave", get(async |session: Session| session.log_out().await))
        .route("/come-back", get(async |return_to: ReturnTo| Redirect::to(return_to.as_str())))
        .nest("/nested", inner)
        .merge(
            Router::new()
                .route("/office", get(async || "the office"))
                .route_layer(RequireLogin::new().level(Level(2)).within(5 * MINUTE)),
        )
        .layer(layer)
}

async fn enter(session: Session, Path((user, level)): Path<(String, u8)>) -> Result<(), Error> {
    session.log_in(user).level(Level(level)).await
}

struct Shop {
    clock: Clock,
    browser: Browser<Router>,
}

impl Shop {
    fn new(change: impl FnOnce(RedisSessionLayer) -> RedisSessionLayer) -> Self {
        let clock = Clock::manual();
        let store = MemoryStore::new().clock(clock.clone());
        let layer = RedisSessionLayer::with_store(store, KeyRing::random().unwrap());
        Self { clock, browser: Browser::new(app(change(layer))) }
    }

    fn with_pages() -> Self {
        Self::new(|layer| layer.log_in_page("/login").step_up_page("/confirm?why=old"))
    }

    async fn status(&self, path: &str) -> u16 {
        self.browser.get(path).await.status.as_u16()
    }

    /// As a browser does it for a person.
    async fn navigate(&self, path: &str) -> Page {
        let request = Request::get(path).header("accept", "text/html,application/xhtml+xml;q=0.9");
        self.browser.send(request.body(Default::default()).unwrap()).await
    }
}

#[tokio::test]
async fn r46_only_who_is_logged_in_comes_in() {
    let shop = Shop::new(|layer| layer);
    for path in ["/account", "/salaries", "/second-factor", "/pay", "/nested/page", "/office"] {
        assert_eq!(shop.status(path).await, 401, "{path} by a stranger");
    }
    shop.browser.get("/visit").await;
    for path in ["/account", "/second-factor", "/pay", "/office"] {
        assert_eq!(shop.status(path).await, 401, "{path} by a visitor");
    }
    shop.browser.get("/enter/7/1").await;
    for path in ["/account", "/second-factor", "/pay", "/nested/page"] {
        let page = shop.browser.get(path).await;
        assert_eq!((page.status.as_u16(), page.body.as_str()), (200, "7"), "{path}");
    }
    shop.browser.get("/leave").await;
    assert_eq!(shop.status("/account").await, 401);
}

#[tokio::test]
async fn r32_a_login_that_is_not_done_opens_nothing_but_its_own_next_step() {
    let shop = Shop::new(|layer| layer);
    shop.browser.get("/enter/7/0").await;
    for (path, status) in
        [("/account", 403), ("/salaries", 403), ("/pay", 403), ("/office", 403), ("/second-factor", 200)]
    {
        assert_eq!(shop.status(path).await, status, "{path}");
    }
    shop.browser.get("/enter/7/1").await;
    for (path, status) in [("/account", 200), ("/salaries", 403), ("/office", 403)] {
        assert_eq!(shop.status(path).await, status, "{path}");
    }
    shop.browser.get("/enter/7/2").await;
    for path in ["/account", "/salaries", "/office"] {
        assert_eq!(shop.status(path).await, 200, "{path}");
    }
}

#[tokio::test]
async fn r45_what_asks_for_a_fresh_login_refuses_it_a_second_too_late_and_takes_a_new_one() {
    let shop = Shop::new(|layer| layer);
    shop.browser.get("/enter/7/2").await;
    shop.clock.advance(5 * MINUTE);
    assert_eq!((shop.status("/pay").await, shop.status("/office").await), (200, 200));
    shop.clock.advance(Duration::from_secs(1));
    assert_eq!(
        (shop.status("/pay").await, shop.status("/office").await, shop.status("/account").await),
        (403, 403, 200)
    );
    shop.browser.get("/enter/7/2").await;
    assert_eq!((shop.status("/pay").await, shop.status("/office").await), (200, 200));
}

#[tokio::test]
async fn who_asks_for_a_page_is_sent_to_log_in_and_comes_back() {
    let shop = Shop::with_pages();
    for (path, location) in [
        ("/account", "/login?return_to=/account"),
        ("/nested/page?item=1&x=a%20b", "/login?return_to=/nested/page%3Fitem%3D1%26x%3Da%2520b"),
        ("/office", "/login?return_to=/office"),
    ] {
        let page = shop.navigate(path).await;
        assert_eq!((page.status.as_u16(), page.header("location").as_deref()), (303, Some(location)));
        let back = shop.browser.get(&location.replacen("/login", "/come-back", 1)).await;
        assert_eq!(back.header("location").as_deref(), Some(path));
    }
    shop.browser.get("/enter/7/1").await;
    shop.clock.advance(10 * MINUTE);
    let page = shop.navigate("/pay").await;
    let location = page.header("location");
    assert_eq!((page.status.as_u16(), location.as_deref()), (303, Some("/confirm?why=old&return_to=/pay")));
    assert_eq!(page.header("vary").as_deref(), Some("cookie"));
}

#[tokio::test]
async fn what_a_script_fetches_or_a_form_sends_is_told_the_status() {
    let shop = Shop::with_pages();
    let ask = async |method: Method, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri("/pay");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        shop.browser.send(request.body(Default::default()).unwrap()).await.status.as_u16()
    };
    let html = ("accept", "text/html");
    assert_eq!(ask(Method::GET, &[]).await, 401);
    assert_eq!(ask(Method::GET, &[("accept", "application/json, */*")]).await, 401);
    assert_eq!(ask(Method::GET, &[html, ("sec-fetch-mode", "cors")]).await, 401);
    assert_eq!(ask(Method::POST, &[html]).await, 401);
    assert_eq!(ask(Method::GET, &[("accept", "*/*"), ("sec-fetch-mode", "navigate")]).await, 303);
}

#[tokio::test]
async fn an_application_renders_its_own_page_for_who_does_not_come_in() {
    let denied = async |result: Result<LoggedIn<u64>, Denied>| match result {
        Ok(LoggedIn { user, .. }) => format!("user {user}"),
        Err(denied) if denied.error().is_not_logged_in() => "please log in".to_owned(),
        Err(denied) => format!("{denied:?}"),
    };
    let layer = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random().unwrap());
    let browser = Browser::new(Router::new().route("/", get(denied)).layer(layer));
    assert_eq!(browser.get("/").await.body, "please log in");
}

#[tokio::test]
async fn an_id_of_another_type_lets_nobody_in() {
    let shop = Shop::new(|layer| layer);
    shop.browser.get("/enter/ada/1").await;
    let page = shop.browser.get("/account").await;
    assert_eq!((page.status.as_u16(), page.body.as_str()), (500, ""));
}

#[test]
fn pages_of_other_sites_are_refused_at_start() {
    for page in ["https://evil.example/login", "//evil.example", "login", ""] {
        let layer = || RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random().unwrap());
        assert!(layer().log_in_page(page).check().is_err_and(|error| error.is_config()), "{page}");
        assert!(
            layer().step_up_page(page).expiry(Expiry::AAL2).check().is_err_and(|error| error.is_config()),
            "{page}"
        );
    }
}
