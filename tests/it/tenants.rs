//! One application for many: what is one tenant's means nothing to another, by host, path or a proxy's header.

use std::time::Duration;

use axum::extract::Path;
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use redis_session::{
    Cookie, CsrfLayer, CsrfToken, Error, Event, Flash, KeyRing, LoggedIn, MemoryStore, Reason, RedisSessionLayer,
    RedisStore, Refusal, RequireLogin, Session, SessionHandle, Sessions, Status, Tenant, Untyped,
};
use redis_session_testkit::{Browser, Page, RedisServer};
use tokio::task::JoinHandle;

use crate::visitor::{Place, Visitor, on_both_stores};
use crate::watched::{Calls, Seen, Watched, patient};

const NAME: &str = "__Host-id";
const ACME: &str = "https://acme.example";
const GLOBEX: &str = "https://globex.example";
const INITECH: &str = "https://initech.example";
const SECONDS: Duration = Duration::from_secs(5);

fn tenant(name: &str) -> Tenant {
    Tenant::named(name).unwrap()
}

/// The two that there are, by host.
fn by_host(parts: &Parts) -> Option<Tenant> {
    match parts.headers.get("host")?.to_str().ok()? {
        "acme.example" => Some(tenant("acme")),
        "globex.example" => Some(tenant("globex")),
        _ => None,
    }
}

fn in_memory() -> RedisSessionLayer {
    RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random().unwrap())
}

/// With an account, a list of devices, a form under `CsrfLayer`, an office for who is logged in, and a page for all.
fn app(layer: RedisSessionLayer) -> Router {
    Router::new()
        .route("/buy", post(async |session: Session| session.increment("bought", 1)))
        .layer(CsrfLayer::new())
        .route("/", get(async |session: Session| session.tenant().unwrap_or("nobody's").to_owned()))
        .route("/form", get(async |token: CsrfToken| token.to_string()))
        .route("/enter/{user}", get(async |session: Session, user: Path<String>| session.log_in(&*user).await))
        .route("/leave", get(async |session: Session| session.log_out().await))
        .route("/account", get(async |user: LoggedIn<String>| user.to_string()))
        .route("/devices", get(async |user: LoggedIn<String>, sessions: Sessions| names(sessions.list(&*user).await?)))
        .route("/end/{handle}", get(end))
        .route("/everywhere", get(everywhere))
        .route("/say/{text}", get(async |flash: Flash, text: Path<String>| flash.info(&*text)))
        .route("/said", get(said))
        .merge(Router::new().route("/office", get(async || "in")).route_layer(RequireLogin::new()))
        .layer(layer)
        .route("/health", get(async || "well"))
}

fn names(devices: Vec<redis_session::Listing>) -> Result<String, Error> {
    Ok(devices.iter().map(|device| device.handle().to_string()).collect::<Vec<_>>().join(" "))
}

async fn end(user: LoggedIn<String>, sessions: Sessions, handle: Path<String>) -> Result<String, Error> {
    Ok(sessions.revoke(&*user, handle.parse::<SessionHandle>().unwrap()).await?.to_string())
}

async fn everywhere(user: LoggedIn<String>, sessions: Sessions) -> Result<String, Error> {
    Ok(sessions.revoke_all(&*user).await?.to_string())
}

async fn said(flash: Flash) -> Result<String, Error> {
    Ok(flash.take()?.into_iter().map(|message| message.text).collect())
}

/// What is answered to a page that works.
async fn page(browser: &Browser<Router>, path: &str) -> String {
    let page = browser.get(path).await;
    assert_eq!(page.status, 200, "{path} at {}", page.url);
    page.body
}

async fn buy(browser: &Browser<Router>, token: &str) -> StatusCode {
    browser.post_form("/buy", &[("csrf_token", token)]).await.status
}

#[tokio::test]
async fn r69_the_cookie_of_one_tenant_is_nothing_to_another_and_costs_no_command_there() {
    let store = Watched::new();
    let events = Seen::default();
    let layer = RedisSessionLayer::with_store(store.clone(), KeyRing::random().unwrap()).observer(events.clone());
    let no_tenants = app(layer.clone());
    let app = app(layer.tenants(by_host));
    let [acme, globex] = [ACME, GLOBEX].map(|origin| Browser::new(app.clone()).at(origin));
    assert_eq!((page(&acme, "/").await.as_str(), page(&globex, "/").await.as_str()), ("acme", "globex"));
    page(&acme, "/enter/ada").await;
    assert_eq!(page(&acme, "/account").await, "ada");
    events.take();
    store.calls();

    let cookie = acme.cookie(NAME).unwrap();
    for stranger in [globex, Browser::new(no_tenants).at(ACME)] {
        stranger.set_cookie(NAME, &cookie);
        assert_eq!(stranger.get("/account").await.status, 401);
        assert_eq!(stranger.get("/office").await.status, 401);
        assert_eq!(store.calls(), Calls::default());
        assert_eq!(events.take(), [Event::Refused(Refusal::BadSignature); 2]);
    }
    // Nor the other way round, and its own visitor keeps it.
    assert_eq!(page(&acme, "/account").await, "ada");
}

#[tokio::test]
async fn r42_r44_handles_and_users_of_one_tenant_are_nothing_to_another() {
    on_both_stores(async |place| {
        let app = app(place.layer.clone().tenants(by_host));
        let [acme, globex] = [ACME, GLOBEX].map(|origin| Browser::new(app.clone()).at(origin));
        let (phone, other_phone) = (acme.stranger(), globex.stranger());
        for browser in [&acme, &globex, &phone, &other_phone] {
            page(browser, "/enter/ada").await;
        }
        let handles = page(&acme, "/devices").await;
        let others = page(&globex, "/devices").await;
        assert_eq!((handles.split(' ').count(), others.split(' ').count()), (2, 2));
        for handle in handles.split(' ') {
            assert!(!others.contains(handle));
            assert_eq!(page(&globex, &format!("/end/{handle}")).await, "false");
        }
        assert_eq!(page(&globex, "/everywhere").await, "2");
        for browser in [&globex, &other_phone] {
            assert_eq!(browser.get("/account").await.status, 401);
        }
        assert_eq!((page(&acme, "/account").await, page(&phone, "/account").await), ("ada".into(), "ada".into()));

        // Outside of requests: each has his own, and those of the layer itself are nobody's.
        let of = |name| place.layer.sessions_of(&tenant(name));
        let lengths = async |sessions: Sessions| sessions.list("ada").await.unwrap().len();
        assert_eq!((lengths(of("acme")).await, lengths(of("globex")).await), (2, 0));
        assert_eq!(lengths(place.layer.sessions()).await, 0);
        assert_eq!(of("acme").revoke_all("ada").await.unwrap(), 2);
        assert_eq!(acme.get("/account").await.status, 401);
    })
    .await;
}

/// The second pass begins a minute after the first one.
#[tokio::test(start_paused = true)]
async fn r42_all_users_of_one_tenant_are_logged_out_at_once() {
    let layer = in_memory();
    let app = app(layer.clone().tenants(by_host));
    let [acme, globex] = [ACME, GLOBEX].map(|origin| Browser::new(app.clone()).at(origin));
    for browser in [&acme, &globex] {
        page(browser, "/enter/ada").await;
    }
    // Those whose requests come after the call, within what clocks may differ by, would end as well.
    assert_eq!(layer.sessions().revoke_everybody(|_| {}).await.unwrap(), 0);
    assert_eq!(layer.sessions_of(&tenant("globex")).revoke_everybody(|_| {}).await.unwrap(), 1);
    assert_eq!((acme.get("/account").await.status.as_u16(), globex.get("/account").await.status.as_u16()), (200, 401));
}

fn of_hosts(place: &Place) -> (Visitor, Visitor) {
    let visitor = place.visitor().before(&place.layer.clone().tenants(by_host));
    (visitor.at(ACME), visitor.copy().at(GLOBEX))
}

#[tokio::test]
async fn r48_connections_learn_of_the_ends_of_their_own_tenants_sessions() {
    on_both_stores(async |place| {
        let (acme, globex) = of_hosts(&place);
        let mut waiting: Vec<JoinHandle<Status>> = Vec::new();
        for visitor in [&acme, &globex] {
            visitor.visit(async |session| session.log_in("ada").await).await;
            let session = visitor.visit(async |session| Ok(session)).await;
            waiting.push(tokio::spawn(async move { session.ended().await }));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        acme.visit(async |session| session.log_out().await).await;
        let [told, other] = waiting.try_into().unwrap();
        let told = tokio::time::timeout(SECONDS, told).await.expect("it is told").unwrap();
        assert_eq!(told, Status::Ended(Reason::LoggedOut));
        assert!(globex.visit(async |session| session.is_alive().await).await && !other.is_finished());
        place.layer.sessions_of(&tenant("globex")).revoke_all("ada").await.unwrap();
        let told = tokio::time::timeout(SECONDS, other).await.expect("it is told").unwrap();
        assert_eq!(told, Status::Ended(Reason::Revoked));
    })
    .await;
}

#[tokio::test]
async fn r67_the_token_of_a_tenants_page_is_nothing_to_another() {
    on_both_stores(async |place| {
        let app = app(place.layer.clone().tenants(by_host));
        let [acme, globex] = [ACME, GLOBEX].map(|origin| Browser::new(app.clone()).at(origin));
        for browser in [&acme, &globex] {
            page(browser, "/enter/ada").await;
        }
        let (token, other) = (page(&acme, "/form").await, page(&globex, "/form").await);
        assert_eq!(
            (buy(&acme, &other).await, buy(&globex, &token).await),
            (StatusCode::FORBIDDEN, StatusCode::FORBIDDEN)
        );
        assert_eq!((buy(&acme, &token).await, buy(&globex, &other).await), (StatusCode::OK, StatusCode::OK));
        // Nor is the token of a page without a session.
        let [new, others] = [ACME, GLOBEX].map(|origin| Browser::new(app.clone()).at(origin));
        let token = page(&new, "/form").await;
        for browser in [&new, &others] {
            page(browser, "/say/hello").await;
        }
        assert_eq!((buy(&new, &token).await, buy(&others, &token).await.as_u16()), (StatusCode::FORBIDDEN, 403));
        // Messages are those of their own session.
        assert_eq!((page(&new, "/said").await.as_str(), page(&acme, "/said").await.as_str()), ("hello", ""));
    })
    .await;
}

#[tokio::test]
async fn a_request_of_no_known_tenant_has_no_session_and_gets_404_where_one_is_asked_for() {
    let (store, events) = (Watched::new(), Seen::default());
    let layer = RedisSessionLayer::with_store(store.clone(), KeyRing::random().unwrap()).observer(events.clone());
    let app = app(layer.tenants(by_host));
    let acme = Browser::new(app.clone()).at(ACME);
    page(&acme, "/enter/ada").await;
    store.calls();
    events.take();

    let stranger = Browser::new(app).at(INITECH);
    stranger.set_cookie(NAME, &acme.cookie(NAME).unwrap());
    let mut asked = 0;
    for path in ["/", "/form", "/enter/ada", "/account", "/office", "/devices", "/everywhere", "/said"] {
        let page = stranger.get(path).await;
        assert_eq!(
            (page.status, page.body.as_str(), page.set_cookies().len()),
            (StatusCode::NOT_FOUND, "", 0),
            "{path}"
        );
        asked += 1;
    }
    assert_eq!(buy(&stranger, "x").await, 404);
    assert_eq!(events.take(), vec![Event::UnknownTenant; asked + 1]);
    assert_eq!(page(&stranger, "/health").await, "well");
    // Hosts are the visitor's to choose.
    for number in 0..1000 {
        let host = format!("{number}.example");
        let request = Request::get("/").header("host", &host).body(Default::default()).unwrap();
        assert_eq!(stranger.send(request).await.status, 404);
    }
    for odd in ["", "acme.example.evil.example", "ACME.EXAMPLE", "acme.example:8080", "evil.example/acme.example"] {
        let request = Request::get("/").header("host", odd).body(Default::default()).unwrap();
        assert_eq!(stranger.send(request).await.status, 404, "{odd:?}");
    }
    assert_eq!((store.calls(), store.len()), (Calls::default(), 1));
}

#[tokio::test]
async fn a_request_of_no_known_tenant_is_told_so_by_the_error_itself() {
    let place = Place::in_memory();
    let stranger = place.visitor().before(&place.layer.clone().tenants(by_host)).at(INITECH);
    let answer = stranger.try_visit(async |_| Ok(())).await;
    let error = answer.error.unwrap();
    assert!(error.is_unknown_tenant() && !error.is_config(), "{error:?}");
    assert_eq!((error.status(), answer.page.status), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
    assert!(!error.to_string().contains("initech"), "{error}");
    stranger
        .request(async |request| {
            let presented = Session::<Untyped>::presented(request.extensions());
            assert!(presented.unwrap_err().is_unknown_tenant());
        })
        .await;
}

/// The first segment of the path, of those that there are.
fn by_path(parts: &Parts) -> Option<Tenant> {
    let name = parts.uri.path().split('/').nth(1)?;
    let known = ["acme", "globex"].contains(&name);
    let tenant = Tenant::named(name).ok().filter(|_| known)?;
    tenant.cookie(Cookie::named(format!("__Host-{name}"))).ok()?.log_in_page(format!("/{name}/login")).ok()
}

async fn page_of(browser: &Browser<Router>, path: &str) -> Page {
    let mut request = Request::get(path).body(Default::default()).unwrap();
    request.headers_mut().insert("accept", http::HeaderValue::from_static("text/html"));
    browser.send(request).await
}

#[tokio::test]
async fn tenants_of_one_host_have_cookies_and_log_in_pages_of_their_own() {
    let routes = Router::new()
        .route(
            "/enter/{user}",
            get(async |session: Session, user: Path<(String, String)>| session.log_in(&user.1).await),
        )
        .route("/account", get(async |user: LoggedIn<String>| user.to_string()))
        .route("/leave", get(async |session: Session| session.log_out().await));
    let browser = Browser::new(Router::new().nest("/{tenant}", routes).layer(in_memory().tenants(by_path)));
    let page = page_of(&browser, "/acme/account").await;
    assert_eq!(page.status, 303);
    assert_eq!(page.header("location").unwrap(), "/acme/login?return_to=/acme/account");
    for (path, user) in [("/acme", "ada"), ("/globex", "bob")] {
        assert_eq!(browser.get(&format!("{path}/enter/{user}")).await.status, 200);
    }
    let names: Vec<_> = browser.jar().cookies().iter().map(|cookie| cookie.name.clone()).collect();
    assert_eq!(names, ["__Host-acme", "__Host-globex"]);
    assert_eq!(browser.get("/acme/account").await.body, "ada");
    assert_eq!(browser.get("/globex/account").await.body, "bob");
    assert_eq!(browser.get("/acme/leave").await.status, 200);
    assert_eq!(browser.get("/globex/account").await.body, "bob");
    let page = page_of(&browser, "/acme/account").await;
    assert_eq!((page.status.as_u16(), browser.cookie("__Host-acme")), (303, None));
    for path in ["/initech/account", "//acme/account", "/ACME/account", "/acme%2f/account"] {
        assert_eq!(browser.get(path).await.status, 404, "{path}");
    }
}

/// What a proxy says that takes this header away from its visitors' requests.
fn by_header(parts: &Parts) -> Option<Tenant> {
    let mut lines = parts.headers.get_all("x-tenant").iter();
    match (lines.next(), lines.next()) {
        (Some(name), None) => Tenant::named(name.to_str().ok()?).ok(),
        _ => None,
    }
}

#[tokio::test]
async fn a_header_of_a_proxy_names_the_tenant_and_two_of_them_name_nobody() {
    let browser = Browser::new(app(in_memory().tenants(by_header)));
    let status = async |lines: &[&str]| {
        let mut request = Request::builder().method(Method::GET).uri("/");
        for line in lines {
            request = request.header("x-tenant", *line);
        }
        let page = browser.send(request.body(Default::default()).unwrap()).await;
        (page.status.as_u16(), page.body)
    };
    assert_eq!(status(&["acme"]).await, (200, "acme".to_owned()));
    for lines in [&[][..], &["acme", "globex"], &["acme", "acme"], &[""], &["acme:user"], &["*"], &["Acme"]] {
        assert_eq!(status(lines).await, (404, String::new()), "{lines:?}");
    }
}

#[tokio::test]
async fn a_layer_around_may_have_looked_the_tenant_up() {
    let layer = in_memory().tenants(|parts| parts.extensions.get::<Tenant>().cloned());
    let app = app(layer);
    let known = Browser::new(app.clone().layer(Extension(tenant("acme"))));
    assert_eq!(page(&known, "/").await, "acme");
    assert_eq!(Browser::new(app).get("/").await.status, 404);
}

enum Office {}

#[tokio::test]
async fn two_layers_that_have_the_same_tenants_share_nothing_of_them() {
    let (store, keys) = (Watched::new(), KeyRing::random().unwrap());
    let shop = RedisSessionLayer::with_store(store.clone(), keys.clone()).tenants(by_host);
    let office = RedisSessionLayer::with_store(store.clone(), keys)
        .marker::<Office>()
        .realm("office")
        .cookie(Cookie::named("__Host-office"))
        .tenants(by_host);
    let log_in = async |shop: Session, office: Session<Untyped, Office>| {
        shop.log_in("ada").await?;
        office.log_in("ada").await
    };
    let routes = Router::new().route("/enter", get(log_in)).route(
        "/",
        get(async |shop: Session, office: Session<Untyped, Office>| {
            Ok::<_, Error>(format!("{:?} {:?}", shop.user::<String>()?, office.user::<String>()?))
        }),
    );
    let browser = Browser::new(routes.layer(shop.clone()).layer(office.clone())).at(ACME);
    page(&browser, "/enter").await;
    assert_eq!(page(&browser, "/").await, r#"Some("ada") Some("ada")"#);
    assert_eq!(office.sessions_of(&tenant("acme")).revoke_all("ada").await.unwrap(), 1);
    assert_eq!(page(&browser, "/").await, r#"Some("ada") None"#);
    assert_eq!(shop.sessions_of(&tenant("acme")).list("ada").await.unwrap().len(), 1);
}

#[tokio::test]
async fn settings_that_are_changed_after_the_tenants_count_for_them() {
    let layer = in_memory().tenants(by_host);
    let before = Browser::new(app(layer.clone())).at(ACME);
    page(&before, "/enter/ada").await;
    let after = Browser::new(app(layer.cookie(Cookie::named("__Host-other")))).at(ACME);
    page(&after, "/enter/ada").await;
    assert!(before.cookie(NAME).is_some() && after.cookie("__Host-other").is_some() && after.cookie(NAME).is_none());
}

#[test]
fn a_name_that_cannot_be_one_and_settings_that_cannot_work_are_errors_that_say_so() {
    let (long, longest) = ("x".repeat(65), "x".repeat(64));
    for name in ["", " ", "Acme", "acme:user", "acme*", "a/b", "ac me", "acmé", "a\n", "[a]", "a?", "{a}", "\0", &long]
    {
        let error = Tenant::named(name).unwrap_err();
        assert!(error.is_config(), "{name:?}");
        assert!(error.to_string().contains("small letters, digits"), "{error}");
    }
    for name in ["a", "acme", "acme.example", "xn--acm-dma.example", "10.0.0.1", "a_b", &longest] {
        assert_eq!(Tenant::named(name).unwrap().name(), name);
    }
    let error = tenant("acme").cookie(Cookie::named("__Host-id").path("/acme")).unwrap_err();
    assert!(error.is_config() && error.to_string().contains("Path=/"), "{error}");
    for page in ["login", "//evil.example", "https://evil.example/"] {
        assert!(tenant("acme").log_in_page(page).unwrap_err().is_config(), "{page}");
        assert!(tenant("acme").step_up_page(page).unwrap_err().is_config(), "{page}");
    }
    assert_eq!(format!("{:?}", tenant("acme")), "Tenant { name: \"acme\", cookie: None, .. }");
}

/// What the guide prints for one tenant, `sess:` being the prefix.
fn rights_of(name: &str) -> String {
    let rule = include_str!("../../docs/tenants.md").split("ACL SETUSER acme on >password ").nth(1).unwrap();
    rule.split("```").next().unwrap().replace("acme", name).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn r71_r79_a_redis_user_for_each_tenant_is_kept_to_its_keys_and_needs_no_more() {
    let rights = ["acme", "globex"].map(rights_of);
    let redis = RedisServer::options().user("acme", "one", &rights[0]).user("globex", "two", &rights[1]).start();
    let [acme, globex] = [("acme", "one"), ("globex", "two")].map(async |(name, password)| {
        let store = patient(&redis.url_of(name, password), SECONDS).await;
        Tenant::named(name).unwrap().store(store)
    });
    let (acme, globex) = (acme.await, globex.await);
    // What is of no tenant is kept nowhere.
    let store = RedisStore::options("redis://127.0.0.1:1").start_without_redis().connect().await.unwrap();
    let layer = RedisSessionLayer::with_store(store, KeyRing::random().unwrap());
    let both = (acme.clone(), globex.clone());
    let layer = layer.tenants(move |parts| match by_host(parts)?.name() {
        "acme" => Some(both.0.clone()),
        _ => Some(both.1.clone()),
    });
    let app = app(layer.clone());
    let browsers = [ACME, GLOBEX].map(|origin| Browser::new(app.clone()).at(origin));
    for browser in &browsers {
        page(browser, "/enter/ada").await;
        page(&browser.stranger(), "/enter/ada").await;
        let token = page(browser, "/form").await;
        assert_eq!(buy(browser, &token).await, 200);
        page(browser, "/say/hello").await;
        assert_eq!(page(browser, "/said").await, "hello");
    }
    // A logout in one window is told to the other.
    let visitor = Place::around(layer.clone(), None).visitor().at(ACME);
    visitor.visit(async |session| session.log_in("bob").await).await;
    let session = visitor.visit(async |session| Ok(session)).await;
    let waiting = tokio::spawn(async move { session.ended().await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    visitor.visit(async |session| session.log_out().await).await;
    let told = tokio::time::timeout(SECONDS, waiting).await.expect("it is told").unwrap();
    assert_eq!(told, Status::Ended(Reason::LoggedOut));

    let mut keys = redis.run(&["KEYS", "*"]).texts();
    keys.sort();
    let count = |name: &str| keys.iter().filter(|key| key.starts_with(&format!("sess:main.{name}:"))).count();
    assert!(count("acme") >= 3 && count("globex") >= 3 && count("acme") + count("globex") == keys.len(), "{keys:?}");
    assert_eq!(page(&browsers[0], "/everywhere").await, "2");
    assert_eq!(page(&browsers[1], "/account").await, "ada");
    assert_eq!(page(&browsers[1], "/leave").await, "");
    assert_eq!(redis.run(&["ACL", "LOG"]).list(), [], "a command or a key was refused");

    // Its rights end where its keys do.
    for (name, other) in [("acme", "globex"), ("globex", "acme")] {
        for key in keys.iter().filter(|key| key.contains(other)) {
            let refused = redis.run(&["ACL", "DRYRUN", name, "HGETALL", key]).text();
            assert!(refused.contains("no permissions to access"), "{refused}");
        }
        let own = keys.iter().find(|key| key.contains(name)).unwrap();
        assert_eq!(redis.run(&["ACL", "DRYRUN", name, "HGETALL", own]).text(), "OK");
        assert_ne!(redis.run(&["ACL", "DRYRUN", name, "SCAN", "0"]).text(), "OK");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tenant_may_have_a_database_of_its_own() {
    let redis = RedisServer::start();
    let in_database = async |name, database| {
        let options = RedisStore::options(&redis.url()).database(database).deadline(SECONDS);
        tenant(name).store(options.connect().await.unwrap())
    };
    let both = (in_database("acme", 1).await, in_database("globex", 2).await);
    let layer = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random().unwrap());
    let app = app(layer.tenants(move |parts| match by_host(parts)?.name() {
        "acme" => Some(both.0.clone()),
        _ => Some(both.1.clone()),
    }));
    let [acme, globex] = [ACME, GLOBEX].map(|origin| Browser::new(app.clone()).at(origin));
    for browser in [&acme, &globex] {
        page(browser, "/enter/ada").await;
    }
    let space = redis.run(&["INFO", "keyspace"]).text();
    for database in ["db1:keys=2,", "db2:keys=2,"] {
        assert!(space.contains(database), "{space}");
    }
    assert!(!space.contains("db0:"), "{space}");
    assert_eq!(page(&acme, "/everywhere").await, "1");
    assert_eq!(page(&globex, "/account").await, "ada");
}
