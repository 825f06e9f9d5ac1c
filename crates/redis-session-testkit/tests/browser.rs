//! Tests of the browser: before a router in the same process, and before a server.

#![allow(clippy::unwrap_used)]

use axum::{
    Form, Router,
    body::Body,
    extract::Path,
    http::{HeaderMap, Request, StatusCode, header::SET_COOKIE},
    response::{AppendHeaders, IntoResponse, Redirect},
    routing::{get, post},
};
use redis_session_testkit::{Browser, HttpBrowser};

fn app() -> Router {
    Router::new()
        .route("/", get(cookies))
        .route("/set/{value}", get(set))
        .route("/two", get(two))
        .route("/form", post(form))
        .route("/host", get(|headers: HeaderMap| async move { headers["host"].to_str().unwrap().to_owned() }))
}

async fn cookies(headers: HeaderMap) -> String {
    headers.get("cookie").map(|line| line.to_str().unwrap().to_owned()).unwrap_or_default()
}

async fn set(Path(value): Path<String>) -> impl IntoResponse {
    (AppendHeaders([(SET_COOKIE, format!("__Host-sid={value}; Path=/; Secure; HttpOnly"))]), Redirect::to("/"))
}

async fn two() -> impl IntoResponse {
    AppendHeaders([(SET_COOKIE, "a=1; Path=/"), (SET_COOKIE, "__Host-sid=; Path=/; Secure; Max-Age=0")])
}

async fn form(Form(fields): Form<Vec<(String, String)>>) -> String {
    format!("{fields:?}")
}

fn get_of(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

/// The same visit, however the application is reached.
macro_rules! visit {
    ($browser:expr) => {
        let browser = $browser;
        assert_eq!(browser.get("/").await.body, "");
        let page = browser.get("/set/abc").await;
        assert_eq!((page.status, page.header("location").as_deref()), (StatusCode::SEE_OTHER, Some("/")));
        assert_eq!(browser.follow(&page).await.body, "__Host-sid=abc");
        assert_eq!(browser.get("/two").await.set_cookies().len(), 2);
        assert_eq!(browser.get("/").await.body, "a=1");
        let page = browser.post_form("/form", &[("name", "A & B=ü+"), ("empty", "")]).await;
        assert_eq!(page.body, r#"[("name", "A & B=ü+"), ("empty", "")]"#);
        assert_eq!(browser.get("/nowhere").await.status, StatusCode::NOT_FOUND);
        assert!(browser.jar().refusals().is_empty());
    };
}

#[tokio::test]
async fn a_visit_to_a_router_keeps_its_cookies() {
    visit!(Browser::new(app()));
}

#[tokio::test]
async fn a_visit_over_the_wire_keeps_its_cookies() {
    visit!(HttpBrowser::connect(&serve().await));
}

async fn serve() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app()).await });
    origin
}

#[tokio::test]
async fn answers_count_in_the_order_in_which_they_are_received() {
    let browser = Browser::new(app());
    let first = browser.ask(get_of("/set/first")).await;
    let second = browser.ask(get_of("/set/second")).await;
    assert_eq!(browser.cookie("__Host-sid"), None);
    browser.receive(&second);
    assert_eq!(browser.get("/").await.body, "__Host-sid=second");
    browser.receive(&first);
    assert_eq!(browser.get("/").await.body, "__Host-sid=first");
}

#[tokio::test]
async fn clones_are_one_visitor_and_may_be_sent_to_tasks() {
    let browser = Browser::new(app());
    let clone = browser.clone();
    tokio::spawn(async move { clone.get("/set/abc").await }).await.unwrap();
    assert_eq!(browser.cookie("__Host-sid").as_deref(), Some("abc"));

    let thief = browser.copy();
    browser.get("/set/new").await;
    assert_eq!(thief.get("/").await.body, "__Host-sid=abc");
    assert_eq!(browser.stranger().get("/").await.body, "");
}

#[tokio::test]
async fn a_request_may_bring_its_own_cookies() {
    let browser = Browser::new(app());
    browser.set_cookie("mine", "1");
    let forged = Request::get("/").header("cookie", "forged=1").body(Body::empty()).unwrap();
    assert_eq!(browser.send(forged).await.body, "forged=1");
    assert_eq!(browser.get("/").await.body, "mine=1");
}

#[tokio::test]
async fn the_application_is_where_the_test_says() {
    let browser = Browser::new(app()).at("http://shop.example:8080");
    assert_eq!(browser.get("/host").await.body, "shop.example:8080");
    browser.get("/set/abc").await;
    assert_eq!(browser.cookie("__Host-sid"), None, "Secure, over http");
    assert_eq!(browser.jar().refusals().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_down_is_an_error_of_try_ask() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert!(HttpBrowser::connect(&origin).try_ask(get_of("/")).await.is_err());
}
