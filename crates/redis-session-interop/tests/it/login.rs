//! axum-login's own examples' flows, unchanged, on our layer; and what its users gain: a list of devices.

use axum::Router;
use axum::extract::Request;
use redis_session::Event;
use redis_session_testkit::{Browser, Page};
use tower::ServiceExt as _;
use tower::util::MapRequest;

use crate::app::{Users, app};
use crate::place::{COOKIE, Place, on_both_stores};

async fn log_in(browser: &Browser<App>, name: &str) -> Page {
    let answer = log_in_with(browser, name, "hunter42").await;
    assert_eq!(answer.header("location").as_deref(), Some("/"), "{answer:?}");
    answer
}

async fn log_in_with(browser: &Browser<App>, name: &str, password: &str) -> Page {
    browser.post_form("/login", &[("username", name), ("password", password)]).await
}

/// Requests name their page by its path alone, as they do in HTTP/1: axum-login repeats what it gets.
type App = MapRequest<Router, fn(Request) -> Request>;

fn browser(place: &Place) -> Browser<App> {
    let by_path: fn(Request) -> Request = |mut request| {
        *request.uri_mut() = request.uri().path_and_query().unwrap().as_str().parse().unwrap();
        request
    };
    Browser::new(app(place.layer.clone(), Users::default()).map_request(by_path))
}

/// Where a page sends its visitor. Empty: nowhere.
async fn leads_to(browser: &Browser<App>, path: &str) -> String {
    browser.get(path).await.header("location").unwrap_or_default()
}

#[tokio::test]
async fn the_flow_of_their_example_sqlite() {
    on_both_stores(async |place| {
        let browser = browser(&place);
        assert_eq!(leads_to(&browser, "/").await, "/login?next=%2F");
        assert_eq!(browser.cookie(COOKIE), None, "nothing is kept for who only looks");

        let answer = log_in_with(&browser, "ferris", "bogus").await;
        assert_eq!(answer.header("location").as_deref(), Some("/login"));
        let anonymous = browser.cookie(COOKIE).expect("the message is kept");
        assert!(browser.follow(&answer).await.body.contains("<p class=message>Invalid credentials</p>"));
        assert!(!browser.get("/login").await.body.contains("message"), "once");

        let answer = log_in(&browser, "ferris").await;
        assert_eq!(answer.set_cookies().len(), 1, "one cookie, ours: {answer:?}");
        assert_ne!(browser.cookie(COOKIE), Some(anonymous.clone()));
        let home = browser.follow(&answer).await;
        assert!(home.body.contains("Successfully logged in as ferris") && home.body.contains("Hello, ferris"));
        let before_login = browser.copy();
        before_login.set_cookie(COOKIE, &anonymous);
        assert_eq!(leads_to(&before_login, "/").await, "/login?next=%2F", "the id of before is worth nothing");

        let copy = browser.copy();
        assert_eq!(leads_to(&browser, "/logout").await, "/login");
        assert_eq!(browser.cookie(COOKIE), None);
        assert_eq!(leads_to(&browser, "/").await, "/login?next=%2F");
        assert_eq!(leads_to(&copy, "/").await, "/login?next=%2F", "a copy of the cookie is over too");
        let events = place.events.take();
        for event in [Event::LoggedIn, Event::LoggedOut] {
            assert_eq!(events.iter().filter(|e| **e == event).count(), 1, "{event:?} in {events:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_flow_of_their_example_permissions() {
    on_both_stores(async |place| {
        let browser = browser(&place);
        log_in(&browser, "ferris").await;
        assert_eq!(leads_to(&browser, "/restricted").await, "/login?next=%2Frestricted");
        // From ferris' session, without a logout.
        log_in(&browser, "admin").await;
        assert_eq!(browser.get("/restricted").await.status, 200);
        assert!(browser.get("/").await.body.contains("Hello, admin"));
        assert_eq!(leads_to(&browser, "/logout").await, "/login");
        assert_eq!(leads_to(&browser, "/restricted").await, "/login?next=%2Frestricted");
    })
    .await;
}

#[tokio::test]
async fn next_leads_back_to_the_page_that_was_asked_for() {
    on_both_stores(async |place| {
        let browser = browser(&place);
        let next = |next: &'static str| [("username", "admin"), ("password", "hunter42"), ("next", next)];
        let answer = browser.post_form("/login", &next("/restricted")).await;
        assert_eq!(browser.follow(&answer).await.body, "<h1>Restricted</h1>");
        let answer = browser.post_form("/login", &next("//evil.example")).await;
        assert_eq!(answer.header("location").as_deref(), Some("/"));
    })
    .await;
}

#[tokio::test]
async fn another_user_in_the_same_browser_takes_nothing_over_and_ends_the_first_one_s_session() {
    on_both_stores(async |place| {
        let browser = browser(&place);
        log_in(&browser, "ferris").await;
        let copy = browser.copy();
        log_in(&browser, "admin").await;
        assert_eq!(leads_to(&copy, "/").await, "/login?next=%2F");
        let devices = place.layer.sessions();
        assert_eq!((devices.list(1).await.unwrap().len(), devices.list(2).await.unwrap().len()), (0, 1));
    })
    .await;
}

#[tokio::test]
async fn its_users_have_a_list_of_devices_and_log_out_everywhere_else() {
    on_both_stores(async |place| {
        let [laptop, phone] = [browser(&place), browser(&place)];
        for device in [&laptop, &phone] {
            log_in(device, "ferris").await;
        }
        let body = laptop.get("/devices").await.body;
        assert_eq!((body.matches("<li>here").count(), body.matches("<li>elsewhere").count()), (1, 1), "{body}");
        laptop.post_form("/devices/others", &[]).await;
        assert_eq!(leads_to(&phone, "/").await, "/login?next=%2F");
        assert_eq!(laptop.get("/").await.status, 200);
        assert_eq!(laptop.get("/devices").await.body.matches("<li>").count(), 1);

        let devices = place.layer.sessions();
        laptop.get("/logout").await;
        assert!(devices.list(1).await.unwrap().is_empty(), "a logout leaves the list");
    })
    .await;
}

#[tokio::test]
async fn an_administrator_logs_its_users_out_everywhere() {
    on_both_stores(async |place| {
        let browser = browser(&place);
        log_in(&browser, "ferris").await;
        assert_eq!(place.layer.sessions().revoke_all(1).await.unwrap(), 1);
        assert_eq!(leads_to(&browser, "/").await, "/login?next=%2F");
    })
    .await;
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions_and_the_list_agrees() {
    on_both_stores(async |place| {
        let laptop = browser(&place);
        let phone = laptop.stranger();
        for device in [&laptop, &phone] {
            log_in(device, "ferris").await;
        }
        let answer = laptop.post_form("/password", &[("password", "correct horse")]).await;
        assert!(laptop.follow(&answer).await.body.contains("Password changed"));
        assert_eq!(leads_to(&phone, "/").await, "/login?next=%2F", "its hash is the old one");
        assert_eq!(phone.cookie(COOKIE), None);
        assert_eq!(place.layer.sessions().list(1).await.unwrap().len(), 1);
        assert_eq!(laptop.get("/").await.status, 200);
        assert_eq!(log_in_with(&phone, "ferris", "hunter42").await.header("location").as_deref(), Some("/login"));
        assert_eq!(log_in_with(&phone, "ferris", "correct horse").await.header("location").as_deref(), Some("/"));
        assert_eq!(place.layer.sessions().list(1).await.unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn both_clicks_of_a_double_click_are_logged_in_with_one_session() {
    on_both_stores(async |place| {
        let browser = browser(&place);
        // A message, so that there is a session.
        log_in_with(&browser, "ferris", "bogus").await;
        let second = browser.copy();
        let (first, late) = tokio::join!(log_in(&browser, "ferris"), log_in(&second, "ferris"));
        assert_eq!(browser.cookie(COOKIE), second.cookie(COOKIE));
        for page in [first, late] {
            browser.receive(&page);
        }
        assert!(browser.get("/").await.body.contains("Hello, ferris"));
        assert_eq!(place.layer.sessions().list(1).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_message_for_the_next_page_does_not_undo_a_logout_in_another_tab() {
    on_both_stores(async |place| {
        let browser = browser(&place);
        log_in(&browser, "ferris").await;
        let tab = browser.copy();
        let (_, answer) = tokio::join!(browser.get("/logout"), log_in_with(&tab, "ferris", "bogus"));
        assert!(answer.status.is_redirection(), "no error either: {answer:?}");
        assert_eq!(leads_to(&browser, "/").await, "/login?next=%2F");
        assert_eq!(leads_to(&tab, "/").await, "/login?next=%2F");
        assert!(place.layer.sessions().list(1).await.unwrap().is_empty());
    })
    .await;
}
