//! Two browsers of one user: the list of devices, and the window that is told that it was logged out.

use redis_session_testkit::{Chromium, RedisServer};

use crate::shop::{PASSWORD, Shop, browser, credentials, log_in, sign_up};

const ELSEWHERE: &str = "You were logged out on another device";

/// What the page "Your account" lists, and which of it is this device.
async fn devices(browser: &Chromium, shop: &Shop) -> Vec<(String, bool)> {
    browser.open(&shop.page("/account")).await;
    let names = browser.texts(".devices h3").await;
    names.into_iter().map(|name| (name.replace(" this one", ""), name.ends_with("this one"))).collect()
}

fn chromes(these: &[bool]) -> Vec<(String, bool)> {
    these.iter().map(|this| ("Chrome on Linux".to_owned(), *this)).collect()
}

#[tokio::test]
async fn a_device_that_is_ended_from_another_one_is_told_in_its_open_window() {
    let (shop, first, second) = (Shop::start(), browser().await, browser().await);
    sign_up(&first, &shop, "ada").await;
    assert_eq!(devices(&first, &shop).await, chromes(&[true]));
    assert_eq!(first.texts("[action$=end-others]").await, [""; 0]);
    log_in(&second, &shop, "ada").await;
    assert_eq!(devices(&first, &shop).await, chromes(&[true, false]));
    assert!(first.text(".devices p").await.starts_with("Logged in just now, last seen just now"));

    second.open(&shop.page("/plants/aloe")).await;
    first.click(".devices form .quiet").await;
    assert_eq!(first.texts(".flash").await, ["That device is logged out."]);
    assert_eq!(devices(&first, &shop).await, chromes(&[true]));
    second.until_text("#over h2", ELSEWHERE).await;
    second.click("#over .button").await;
    assert_eq!(second.text("h1").await, "Log in");
    credentials(&second, "ada", PASSWORD).await;
    assert_eq!(second.url().await, shop.page("/plants/aloe"));
}

#[tokio::test]
async fn log_out_everywhere_else_ends_all_windows_but_this_one() {
    let (shop, first) = (Shop::start(), browser().await);
    let (second, third) = (browser().await, browser().await);
    sign_up(&first, &shop, "ada").await;
    for other in [&second, &third] {
        log_in(other, &shop, "ada").await;
    }
    assert_eq!(devices(&first, &shop).await.len(), 3);
    first.click("[action$=end-others] button").await;
    assert_eq!(first.texts(".flash").await, ["2 other devices are logged out."]);
    for other in [&second, &third] {
        other.until_text("#over h2", ELSEWHERE).await;
    }
    assert_eq!(devices(&first, &shop).await, chromes(&[true]));
    assert_eq!(first.script("return document.getElementById('over').open").await, false);
}

#[tokio::test]
async fn a_new_password_logs_the_others_out_and_the_old_one_is_worth_nothing() {
    let (shop, first, second) = (Shop::start(), browser().await, browser().await);
    sign_up(&first, &shop, "ada").await;
    log_in(&second, &shop, "ada").await;
    first.open(&shop.page("/account")).await;
    let change = async |present: &str, new: &str| {
        first.script("document.querySelector('.summary .delivery').noValidate = true").await;
        first.fill("#present", present).await;
        first.fill("#new", new).await;
        first.click(".summary .button").await;
    };
    for (present, new, hint) in [
        ("wrong horse", "battery staple", "This is not it."),
        (PASSWORD, "battery", "8 to 128 characters, please."),
        (PASSWORD, PASSWORD, "This is the present one."),
    ] {
        change(present, new).await;
        assert_eq!(first.texts(".hint").await, [hint]);
    }
    change(PASSWORD, "battery staple").await;
    assert_eq!(first.texts(".flash").await, ["Your password is changed; one other device is logged out."]);
    second.until_text("#over h2", ELSEWHERE).await;
    second.click("#over .button").await;
    credentials(&second, "ada", PASSWORD).await;
    assert_eq!(second.texts(".alert").await.len(), 1);
    credentials(&second, "ada", "battery staple").await;
    second.until_text(".who .name", "ada").await;
}

#[tokio::test]
async fn a_window_of_another_instance_is_told_too() {
    let redis = RedisServer::start();
    let variables: [(&str, &str); 2] =
        [("REDIS_URL", &redis.url()), ("SESSION_KEY", "c2hhcmVkIGJ5IGFsbCBpbnN0YW5jZXMgb2YgdGVzdHM=")];
    let (one, other) = (Shop::start_with(&variables), Shop::start_with(&variables));
    let (first, second) = (browser().await, browser().await);
    sign_up(&first, &one, "ada").await;
    log_in(&second, &other, "ada").await;
    assert_eq!(devices(&first, &one).await.len(), 2);
    first.click("[action$=end-others] button").await;
    assert_eq!(first.texts(".flash").await, ["one other device is logged out."]);
    second.until_text("#over h2", ELSEWHERE).await;
}

#[tokio::test]
async fn without_javascript_the_next_page_says_that_another_device_has_done_it() {
    let (shop, first, second) = (Shop::start(), browser().await, browser().await);
    first.javascript(false).await;
    second.javascript(false).await;
    sign_up(&first, &shop, "ada").await;
    log_in(&second, &shop, "ada").await;
    assert_eq!(devices(&first, &shop).await.len(), 2);
    first.click(".devices form .quiet").await;
    assert_eq!(devices(&first, &shop).await, chromes(&[true]));
    second.open(&shop.page("/account")).await;
    assert_eq!(second.text("h1").await, "Log in");
    assert_eq!(second.texts(".flash").await, [format!("{ELSEWHERE}.")]);
    credentials(&second, "ada", PASSWORD).await;
    assert_eq!(second.url().await, shop.page("/account"));
}

#[tokio::test]
async fn a_logout_in_one_window_of_a_browser_is_told_in_the_other() {
    let (shop, browser) = (Shop::start(), browser().await);
    sign_up(&browser, &shop, "ada").await;
    browser.open(&shop.page("/plants/fern")).await;
    let first = browser.window().await;
    browser.new_window().await;
    browser.open(&shop.page("/account")).await;
    browser.click(".title .quiet").await;
    assert_eq!(browser.texts(".flash").await, ["You are logged out. See you soon."]);
    browser.switch_to(&first).await;
    browser.until_text("#over h2", "You are logged out").await;
}

#[tokio::test]
async fn an_open_window_does_not_keep_the_shop_from_ending() {
    let (shop, browser) = (Shop::start(), browser().await);
    sign_up(&browser, &shop, "ada").await;
    // A stream beside the page's own, and certainly there.
    let open = "return new Promise(done => {
        const news = new EventSource(document.getElementById('over').dataset.news);
        news.onopen = () => done(true);
    })";
    assert_eq!(browser.script(open).await, true);
    shop.stop();
}
