//! What visitors do: put into the cart, change, order; in two windows, and without JavaScript.

use std::time::{Duration, Instant};

use redis_session_testkit::{Action, Chromium, Proxy, RedisServer};

use crate::shop::{PASSWORD, Shop, add, browser, cart, credentials, digits, sign_up};

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, quantity)| ((*name).to_owned(), (*quantity).to_owned())).collect()
}

/// The second window, which the first one has opened, once it shows a page with this heading.
async fn until_second_shows(browser: &Chromium, heading: &str) {
    let look = "return window.open('', 'second').document.querySelector('h1')?.textContent";
    let deadline = Instant::now() + Duration::from_secs(10);
    while browser.script(look).await != heading {
        assert!(Instant::now() < deadline, "the second window does not show {heading}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn two_windows_that_add_at_once_both_find_their_plant_in_the_cart() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let shop = Shop::start_with(&[("REDIS_URL", &proxy.url())]);
    let browser = browser().await;
    add(&browser, &shop, "fern", 1).await;
    for _ in 0..3 {
        browser.open(&shop.page("/plants/monstera")).await;
        browser.script("window.open('/plants/aloe', 'second')").await;
        until_second_shows(&browser, "Aloe").await;
        // So that both have read before either saves: the other's command waits behind this one.
        proxy.fault_next("HGETALL", Action::HoldThenSend { after: Duration::from_millis(100), cut: false });
        let send = "for (const one of [window.open('', 'second'), window])
            one.document.querySelector('.product form').requestSubmit()";
        browser.script(send).await;
        browser.until_text("h1", "Your cart").await;
        until_second_shows(&browser, "Your cart").await;
    }
    browser.open(&shop.page("/cart")).await;
    assert_eq!(cart(&browser).await, pairs(&[("Monstera", "3"), ("Boston fern", "1"), ("Aloe", "3")]));
    assert_eq!(digits(&browser.text(".count").await), "7");
}

#[tokio::test]
async fn a_cart_counts_in_steps_and_adds_up() {
    let (shop, browser) = (Shop::start(), browser().await);
    browser.open(&shop.page("/")).await;
    assert_eq!(browser.texts(".count").await, [""; 0]);
    browser.click("li:nth-child(2) .card button").await;
    add(&browser, &shop, "monstera", 3).await;
    assert_eq!(cart(&browser).await, pairs(&[("Monstera", "3"), ("Saguaro", "1")]));
    assert_eq!(browser.text(".total .sum dd").await, "£117.00");

    browser.click("li:nth-child(1) [value=more]").await;
    browser.click("li:nth-child(1) [value=more]").await;
    browser.click("li:nth-child(1) [value=fewer]").await;
    assert_eq!(cart(&browser).await, pairs(&[("Monstera", "4"), ("Saguaro", "1")]));
    browser.click("li:nth-child(2) [value=fewer]").await;
    assert_eq!(cart(&browser).await, pairs(&[("Monstera", "4")]));
    assert_eq!(browser.text(".total .sum dd").await, "£136.00");
    browser.click("[value=remove]").await;
    assert_eq!(browser.text("h1").await, "Your cart is empty");
    assert_eq!(browser.text(".flash").await, "Monstera is out of your cart.");
}

#[tokio::test]
async fn a_flash_line_is_shown_once() {
    let (shop, browser) = (Shop::start(), browser().await);
    add(&browser, &shop, "pilea", 1).await;
    assert_eq!(browser.texts(".flash").await, ["Pilea is in your cart."]);
    browser.reload().await;
    assert_eq!(browser.texts(".flash").await, [""; 0]);
    assert_eq!(cart(&browser).await, pairs(&[("Pilea", "1")]));
}

#[tokio::test]
async fn a_checkout_makes_one_order_of_a_cart_however_often_it_is_sent() {
    let (shop, browser) = (Shop::start(), browser().await);
    sign_up(&browser, &shop, "ada").await;
    add(&browser, &shop, "snake-plant", 2).await;
    browser.click(".summary .button").await;
    browser.script("document.querySelector('.delivery').noValidate = true").await;
    browser.fill("#name", "Ada <b>Lovelace</b> & \"friends\"").await;
    browser.fill("#email", "nobody").await;
    browser.click(".delivery .button").await;
    assert_eq!(browser.texts(".hint").await.len(), 2, "email and address");
    assert_eq!(
        browser.script("return document.getElementById('name').value").await,
        "Ada <b>Lovelace</b> & \"friends\""
    );

    browser.fill("#email", "ada@example.org").await;
    browser.fill("#address", "12 St James’s Square\nLondon").await;
    browser.click(".delivery .button").await;
    assert_eq!(browser.text("h1").await, "Thank you, Ada <b>Lovelace</b> & \"friends\"");
    assert_eq!(browser.text("address").await, "12 St James’s Square\nLondon");
    assert_eq!(browser.text(".total .sum dd").await, "£44.00");
    assert_eq!(browser.texts(".count").await, [""; 0]);
    let order = browser.url().await;

    // A second click of an impatient visitor, from a page that is still there.
    let number = order.rsplit('/').next().unwrap();
    let token = browser.script("return document.querySelector('[name=csrf_token]').value").await;
    let again = format!(
        "const form = document.createElement('form');
         form.method = 'post'; form.action = '/checkout';
         const fields = {{ number: '{number}', name: 'Ada', email: 'a@b', address: 'London', csrf_token: {token} }};
         for (const [name, value] of Object.entries(fields))
             form.append(Object.assign(document.createElement('input'), {{ name, value }}));
         document.body.append(form); form.submit()"
    );
    browser.open(&shop.page("/about")).await;
    browser.script(&again).await;
    browser.until_text("h1", "Thank you, Ada <b>Lovelace</b> & \"friends\"").await;
    assert_eq!(browser.url().await, order);
}

#[tokio::test]
async fn everything_works_without_javascript() {
    let (shop, browser) = (Shop::start(), browser().await);
    browser.javascript(false).await;
    browser.open(&shop.page("/")).await;
    browser.click("li:nth-child(5) .card button").await;
    browser.click("[value=more]").await;
    assert_eq!(cart(&browser).await, pairs(&[("Boston fern", "2")]));
    browser.click(".drawer summary").await;
    browser.click(".drawer [name=open]").await;
    assert_eq!(browser.texts(".drawer[open] th[scope=row]").await, ["cart", "drawer_open"]);
    browser.click(".summary .button").await;
    assert_eq!(browser.text("h1").await, "Log in");
    browser.click(".other .link").await;
    credentials(&browser, "ada", PASSWORD).await;
    for (field, text) in [("name", "Ada"), ("email", "ada@example.org"), ("address", "London")] {
        browser.fill(&format!("#{field}"), text).await;
    }
    browser.click(".delivery .button").await;
    assert_eq!(browser.text("h1").await, "Thank you, Ada");
    assert_eq!(browser.source().await.matches("<script").count(), 1, "the one that tells of the session's end");
}
