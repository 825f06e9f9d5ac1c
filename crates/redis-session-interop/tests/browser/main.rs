//! axum-login's and axum-messages' flows on our layer, in a real Chromium: the example `axum_login`.

#![allow(clippy::unwrap_used)]

#[path = "../../examples/axum_login/app.rs"]
mod app;

use redis_session::{KeyRing, RedisSessionLayer};
use redis_session_testkit::{Chromium, RedisServer};

/// On `localhost`, where browsers take `Secure` cookies without TLS.
async fn start(redis: &RedisServer) -> String {
    let sessions = RedisSessionLayer::connect(&redis.url(), KeyRing::random().unwrap()).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = app::app(sessions, app::Users::default());
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://localhost:{port}")
}

async fn log_in(browser: &Chromium, name: &str, password: &str) {
    browser.fill("input[name=username]", name).await;
    browser.fill("input[name=password]", password).await;
    browser.click("button").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_leads_back_says_welcome_once_and_ends_everywhere_with_a_new_password() {
    let redis = RedisServer::start();
    let site = start(&redis).await;
    let laptop = Chromium::start().await;
    laptop.open(&format!("{site}/restricted")).await;
    assert_eq!(laptop.url().await, format!("{site}/login?next=%2Frestricted"));
    log_in(&laptop, "admin", "bogus").await;
    assert_eq!(laptop.text(".message").await, "Invalid credentials");
    assert_eq!(laptop.url().await, format!("{site}/login?next=%2Frestricted"));
    log_in(&laptop, "admin", "hunter42").await;
    assert_eq!(laptop.text("h1").await, "Restricted");
    laptop.open(&site).await;
    assert_eq!(laptop.text(".message").await, "Successfully logged in as admin");
    laptop.reload().await;
    assert!(laptop.texts(".message").await.is_empty());
    let cookies = laptop.cookies().await;
    assert!(cookies.len() == 1 && cookies[0].name == "__Host-id", "one cookie, ours: {cookies:?}");

    let phone = Chromium::start().await;
    phone.open(&format!("{site}/login")).await;
    log_in(&phone, "admin", "hunter42").await;
    assert_eq!(phone.text("h1").await, "Hello, admin");
    phone.open(&format!("{site}/devices")).await;
    let mut devices = phone.texts("li").await;
    devices.sort_unstable();
    assert_eq!(devices, ["elsewhere", "here"]);

    phone.open(&site).await;
    phone.fill("input[name=password]", "correct horse").await;
    phone.click("button").await;
    assert_eq!(phone.text(".message").await, "Password changed");
    laptop.reload().await;
    assert_eq!(laptop.url().await, format!("{site}/login?next=%2F"), "its hash is the old one");
    phone.open(&format!("{site}/devices")).await;
    assert_eq!(phone.texts("li").await, ["here"]);

    phone.open(&format!("{site}/logout")).await;
    assert_eq!(phone.url().await, format!("{site}/login"));
    assert!(phone.cookies().await.is_empty());
}
