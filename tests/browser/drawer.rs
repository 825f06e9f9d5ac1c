//! The drawer "your session": what is stored, and what each request cost.

use std::collections::BTreeMap;

use redis_session_testkit::Chromium;

use crate::shop::{Shop, add, browser};

/// The figures of one request in the drawer.
pub(crate) async fn trace(browser: &Chromium, when: &str) -> BTreeMap<String, String> {
    let script = format!(
        "const traces = [...document.querySelectorAll('.trace')];
         const trace = traces.find(one => one.querySelector('.when').textContent == '{when}');
         const rows = trace ? [...trace.querySelectorAll('.facts div')] : [];
         return Object.fromEntries(rows.map(row => [row.children[0].textContent, row.children[1].textContent]))"
    );
    serde_json::from_value(browser.script(&script).await).unwrap()
}

/// Names and JSON texts that it shows.
async fn fields(browser: &Chromium) -> Vec<(String, String)> {
    let script = "return [...document.querySelectorAll('.drawer tbody tr')]
        .map(row => [row.children[0].textContent, row.children[1].textContent])";
    serde_json::from_value(browser.script(script).await).unwrap()
}

/// The text of a part of the drawer, which may be closed.
async fn inside(browser: &Chromium, css: &str) -> String {
    let script = format!("return document.querySelector('.drawer {css}')?.textContent ?? 'absent'");
    browser.script(&script).await.as_str().unwrap().to_owned()
}

fn check(trace: &BTreeMap<String, String>, loaded: &str, plan: &str, calls: &str) {
    assert_eq!(
        (&*trace["Session loaded"], &*trace["Plan"], &*trace["Store calls"]),
        (loaded, plan, calls),
        "{trace:?}"
    );
}

#[tokio::test]
async fn the_drawer_tells_what_each_request_did_and_what_is_stored() {
    let (shop, browser) = (Shop::start(), browser().await);
    browser.open(&shop.page("/")).await;
    assert!(inside(&browser, ".none").await.starts_with("You have none"));
    check(&trace(&browser, "This page").await, "no", "nothing to write", "0");
    assert!(browser.cookies().await.is_empty());

    add(&browser, &shop, "aloe", 2).await;
    check(&trace(&browser, "The last form").await, "no", "created", "1");
    // This page took the flash line out.
    check(&trace(&browser, "This page").await, "yes", "saved", "2");
    assert_eq!(fields(&browser).await, [("cart".to_owned(), r#"{"aloe":2}"#.to_owned())]);
    let left = inside(&browser, "#time-left").await;
    assert!(left.starts_with("30 min") || left.starts_with("31 min"), "{left}");
    let version = inside(&browser, "#version").await;
    assert_eq!(version.len(), 8, "{version}");

    browser.reload().await;
    let reader = trace(&browser, "This page").await;
    check(&reader, "yes", "nothing to write", "1");
    assert_eq!(reader["Bytes of fields"], (r#"cart{"aloe":2}"#.len()).to_string());
    assert_eq!(inside(&browser, "#version").await, version);

    browser.click("[value=more]").await;
    check(&trace(&browser, "The last form").await, "yes", "saved", "2");
    assert_ne!(inside(&browser, "#version").await, version);

    browser.open(&shop.page("/about")).await;
    check(&trace(&browser, "This page").await, "no", "nothing to write", "0");
    assert!(inside(&browser, ".none").await.contains("did not ask for your session"));
}

#[tokio::test]
async fn the_drawer_stays_open_where_the_visitor_wants_it_and_ends_the_session() {
    let (shop, browser) = (Shop::start(), browser().await);
    add(&browser, &shop, "cactus", 1).await;
    browser.open(&shop.page("/plants/cactus")).await;
    browser.click(".drawer summary").await;
    browser.click(".drawer [name=open]").await;
    assert_eq!(browser.url().await, shop.page("/plants/cactus"));
    browser.open(&shop.page("/cart")).await;
    assert_eq!(browser.text(".drawer[open] #version").await.len(), 8);
    browser.click(".drawer [name=open]").await;
    assert_eq!(browser.texts(".drawer[open]").await, [""; 0], "it is closed");

    browser.click(".drawer summary").await;
    browser.click(".drawer [action='/session/end'] button").await;
    check(&trace(&browser, "The last form").await, "yes", "destroyed", "2");
    assert!(inside(&browser, ".none").await.starts_with("You have none"));
    let names: Vec<_> = browser.cookies().await.into_iter().map(|cookie| cookie.name).collect();
    assert_eq!(names, ["last-form"]);
    browser.open(&shop.page("/cart")).await;
    assert_eq!(browser.text("h1").await, "Your cart is empty");
}
