//! Several instances of the shop on one Redis.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use redis_session_testkit::{Action, Proxy, RedisServer};

use crate::drawer::trace;
use crate::shop::{Shop, add, browser, cart, log_in, sign_up};

const KEY: &str = "c2hhcmVkIGJ5IGFsbCBpbnN0YW5jZXMgb2YgdGVzdHM=";

fn instance(redis_url: &str) -> Shop {
    Shop::start_with(&[("REDIS_URL", redis_url), ("SESSION_KEY", KEY)])
}

#[tokio::test]
async fn two_instances_share_a_cart_and_both_get_in_when_they_save_at_once() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let (slow, fast) = (instance(&proxy.url()), instance(&redis.url()));
    assert!(
        slow.greeting.contains("Instances with the same REDIS_URL and SESSION_KEY share them"),
        "{}",
        slow.greeting
    );

    let browser = browser().await;
    add(&browser, &slow, "monstera", 1).await;
    browser.open(&fast.page("/cart")).await;
    assert_eq!(cart(&browser).await, [("Monstera".to_owned(), "1".to_owned())]);

    // While the save of one window is on its way to Redis, the same visitor's form reaches the other instance.
    browser.open(&slow.page("/plants/aloe")).await;
    let cookies = browser.cookies().await;
    let cookie = cookies.into_iter().find(|cookie| cookie.name == "id").unwrap().value;
    let token = browser.script("return document.querySelector('[name=csrf_token]').value").await;
    let fern = format!("slug=fern&csrf_token={}", token.as_str().unwrap());
    let other = fast.url.clone();
    let mut is_first = true;
    proxy.fault(move |command| {
        if command.name() == "EVALSHA" && std::mem::take(&mut is_first) {
            let answer = post_at_once(&other, "/cart", &cookie, &fern);
            assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
        }
        Action::Pass
    });
    browser.click(".product button").await;
    let names: Vec<_> = cart(&browser).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["Monstera", "Boston fern", "Aloe"]);
    let form = trace(&browser, "The last form").await;
    assert_eq!(form["Plan"], "saved in 2 tries, since another request saved meanwhile");
    assert_eq!(form["Redis commands"], "3");
}

/// Sends a form and waits for the answer, on the thread that calls: the store's deadline leaves no time for more.
fn post_at_once(origin: &str, path: &str, cookie: &str, body: &str) -> String {
    let host = origin.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nCookie: id={cookie}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn the_drawer_counts_the_commands_that_redis_gets() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let shop = instance(&proxy.url());
    let browser = browser().await;
    add(&browser, &shop, "pilea", 1).await;
    let commands = || proxy.count("HGETALL") + proxy.count("EVALSHA");
    for (path, wanted) in [("/cart", 1), ("/", 1), ("/about", 0)] {
        let before = commands();
        browser.open(&shop.page(path)).await;
        assert_eq!(commands() - before, wanted, "{path}");
        assert_eq!(trace(&browser, "This page").await["Redis commands"], wanted.to_string(), "{path}");
    }
    browser.open(&shop.page("/cart")).await;
    let before = commands();
    browser.click("[value=more]").await;
    // The form reads and saves, and the page reads.
    assert_eq!(commands() - before, 3);
    assert_eq!(trace(&browser, "The last form").await["Redis commands"], "2");
    assert_eq!(trace(&browser, "This page").await["Redis commands"], "1");
}

#[tokio::test]
async fn the_drawer_counts_the_commands_of_logins_too() {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    let shop = instance(&proxy.url());
    let (browser, other) = (browser().await, browser().await);
    // An open window looks by itself.
    browser.javascript(false).await;
    other.javascript(false).await;
    sign_up(&browser, &shop, "ada").await;
    log_in(&other, &shop, "ada").await;
    browser.open(&shop.page("/account")).await;
    // All but those of the store's own watch over its connections, and the text of a script, which is sent once.
    let commands = || -> u64 {
        let counts = proxy.counts().into_iter();
        counts.filter(|(name, _)| !["TIME", "PING", "EVAL"].contains(&&**name)).map(|(_, count)| count).sum()
    };
    let before = commands();
    browser.reload().await;
    let page = trace(&browser, "This page").await;
    assert_eq!((commands() - before).to_string(), page["Redis commands"], "{page:?}");

    let before = commands();
    browser.click("[action$=end-others] button").await;
    let (form, page) = (trace(&browser, "The last form").await, trace(&browser, "This page").await);
    assert!(form["Plan"].starts_with("revoked: revoked"), "{form:?}");
    let shown: u64 = [&form, &page].iter().map(|trace| trace["Redis commands"].parse::<u64>().unwrap()).sum();
    assert_eq!(commands() - before, shown, "{form:?} {page:?}");
}

#[tokio::test]
async fn an_instance_without_the_shared_key_says_so_and_accepts_no_foreign_cookie() {
    let redis = RedisServer::start();
    let (one, other) = (instance(&redis.url()), Shop::start_with(&[("REDIS_URL", &redis.url())]));
    assert!(other.greeting.contains("there is no SESSION_KEY"), "{}", other.greeting);
    let browser = browser().await;
    add(&browser, &one, "pilea", 1).await;
    browser.open(&other.page("/cart")).await;
    assert_eq!(browser.text("h1").await, "Your cart is empty");
    assert_eq!(trace(&browser, "This page").await["Plan"], "refused: unknown key");
    browser.open(&one.page("/cart")).await;
    assert_eq!(cart(&browser).await, [("Pilea".to_owned(), "1".to_owned())], "the cookie was not touched");
}

#[tokio::test]
async fn while_redis_is_silent_visitors_get_a_page_and_keep_their_cart() {
    let redis = RedisServer::start();
    let shop = instance(&redis.url());
    let browser = browser().await;
    add(&browser, &shop, "cactus", 1).await;
    redis.pause();
    browser.open(&shop.page("/cart")).await;
    assert_eq!(browser.text("h1").await, "Our till needs a moment");
    browser.open(&shop.page("/about")).await;
    assert_eq!(browser.text("h1").await, "About the shop", "what asks for no session is not concerned");
    redis.resume();
    let deadline = Instant::now() + Duration::from_secs(10);
    while browser.text("h1").await != "Your cart" {
        assert!(Instant::now() < deadline, "the shop does not come back");
        browser.open(&shop.page("/cart")).await;
    }
    assert_eq!(cart(&browser).await, [("Saguaro".to_owned(), "1".to_owned())]);
}
