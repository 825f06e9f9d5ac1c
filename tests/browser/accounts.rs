//! Accounts: made, logged in to, remembered, and proved once more before the checkout.

use std::path::Path;
use std::time::{Duration, SystemTime};

use redis_session_testkit::{Chromium, HttpBrowser, RedisServer};

use crate::drawer::trace;
use crate::shop::{PASSWORD, Shop, add, browser, cart, credentials, log_in, post, sign_up};

async fn value(browser: &Chromium, css: &str) -> String {
    let value = browser.script(&format!("return document.querySelector('{css}').value")).await;
    value.as_str().unwrap().to_owned()
}

/// Lets forms be sent that the browser itself would refuse.
async fn unchecked(browser: &Chromium) {
    browser.script("document.querySelector('.delivery').noValidate = true").await;
}

#[tokio::test]
async fn a_new_account_keeps_the_cart_and_the_drawer_says_who_is_logged_in() {
    let (shop, browser) = (Shop::start(), browser().await);
    add(&browser, &shop, "monstera", 2).await;
    let before = browser.cookies().await.into_iter().find(|cookie| cookie.name == "id").unwrap();

    browser.open(&shop.page("/signup")).await;
    unchecked(&browser).await;
    credentials(&browser, "Ada <b>", "short").await;
    assert_eq!(
        browser.texts(".hint").await,
        ["Two to 32 letters, digits, dots, dashes or underscores, please.", "8 to 128 characters, please."]
    );
    assert_eq!((value(&browser, "#name").await, value(&browser, "#password").await), ("Ada <b>".into(), "".into()));
    credentials(&browser, "Ada", PASSWORD).await;
    assert_eq!(browser.texts(".flash").await, ["Welcome, ada. This is your account."]);
    let form = trace(&browser, "The last form").await;
    assert_eq!((&*form["Plan"], &*form["Session loaded"]), ("saved, logged in, saved", "yes"), "{form:?}");

    let after = browser.cookies().await.into_iter().find(|cookie| cookie.name == "id").unwrap();
    assert_ne!(after.value, before.value, "an id from before the login is worth nothing");
    browser.open(&shop.page("/cart")).await;
    assert_eq!(cart(&browser).await, [("Monstera".to_owned(), "2".to_owned())]);
    browser.click(".drawer summary").await;
    assert_eq!(browser.text("#logged-in").await, "ada, just now");

    browser.open(&shop.page("/account")).await;
    browser.click(".title .quiet").await;
    assert_eq!(browser.texts(".flash").await, ["You are logged out. See you soon."]);
    assert_eq!(trace(&browser, "The last form").await["Plan"], "logged out, created");
    assert_eq!(browser.texts(".who").await, [""; 0]);
    browser.open(&shop.page("/cart")).await;
    assert_eq!(browser.text("h1").await, "Your cart is empty");
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_look_the_same_and_a_taken_name_is_told() {
    let (shop, browser) = (Shop::start(), browser().await);
    let other = HttpBrowser::connect(&shop.url);
    let form = [("name", "ada"), ("password", PASSWORD)];
    assert_eq!(post(&other, "/signup", &form).await.status, 303);

    browser.open(&shop.page("/login")).await;
    for name in ["ada", "nobody", "no body"] {
        credentials(&browser, name, "wrong horse").await;
        assert_eq!(browser.text(".alert").await, "Name and password do not belong together.");
        assert_eq!(value(&browser, "#name").await, name);
        assert_eq!(value(&browser, "#password").await, "");
    }
    credentials(&browser, "ADA ", PASSWORD).await;
    assert_eq!(browser.texts(".flash").await, ["Welcome back, ada."]);
    assert_eq!(browser.url().await, shop.page("/"));

    let taken = post(&other.stranger(), "/signup", &form).await;
    assert_eq!(taken.status, 422);
    assert!(taken.body.contains("Somebody else has that name already."));
}

#[tokio::test]
async fn who_is_remembered_is_logged_in_after_the_browsers_end_and_others_are_not() {
    let (shop, first) = (Shop::start(), browser().await);
    sign_up(&first, &shop, "ada").await;
    first.click(".who").await;
    first.click(".title .quiet").await;
    for is_remembered in [false, true] {
        first.open(&shop.page("/login")).await;
        if is_remembered {
            first.click("[name=remember]").await;
        }
        credentials(&first, "ada", PASSWORD).await;
        first.until_text(".who .name", "ada").await;
        let cookies = first.cookies().await;
        let cookie = cookies.iter().find(|cookie| cookie.name == "id").unwrap();
        assert_eq!(cookie.expires.is_some(), is_remembered);

        // What a browser keeps over its end are the cookies that have an expiry.
        let restarted = browser().await;
        for cookie in cookies.iter().filter(|cookie| cookie.expires.is_some()) {
            let again = serde_json::json!({ "url": shop.url, "name": cookie.name, "value": cookie.value });
            restarted.devtools("Network.setCookie", again).await;
        }
        restarted.open(&shop.page("/account")).await;
        let wanted = if is_remembered { "Your account" } else { "Log in" };
        assert_eq!(restarted.text("h1").await, wanted);
        if let Some(expires) = cookie.expires {
            let days = expires.duration_since(SystemTime::now()).unwrap().as_secs_f64() / 86400.0;
            assert!((29.9..=30.0).contains(&days), "{days}");
            restarted.click(".drawer summary").await;
            assert!(restarted.text("#time-left").await.starts_with("29 days 23 h"));
        }
        first.click(".who").await;
        first.click(".title .quiet").await;
    }
}

/// Lets all logins be that much older than they are.
fn age_logins(redis: &RedisServer, by: Duration) {
    let script = "local aged = 0
        for _, key in ipairs(redis.call('KEYS', 'sess:*')) do
            local login = redis.call('TYPE', key).ok == 'hash' and redis.call('HGET', key, '@user')
            if login then
                local at, arrived, rest = string.match(login, '^(%d+) (%d+)( .*)$')
                local login = string.format('%.0f %.0f', at - ARGV[1], arrived - ARGV[1])
                redis.call('HSET', key, '@user', login .. rest)
                aged = aged + 1
            end
        end
        return tostring(aged)";
    let aged = redis.run(&["EVAL", script, "0", &by.as_millis().to_string()]);
    assert_eq!(aged.text(), "1", "there is one login");
}

#[tokio::test]
async fn the_checkout_asks_for_the_login_and_later_for_the_password_and_comes_back() {
    let redis = RedisServer::start();
    let shop = Shop::start_with(&[("REDIS_URL", &redis.url())]);
    let browser = browser().await;
    add(&browser, &shop, "fern", 1).await;
    browser.click(".summary .button").await;
    assert_eq!(browser.url().await, shop.page("/login?return_to=/checkout"));
    browser.click(".other .link").await;
    assert_eq!(browser.text("h1").await, "New account");
    credentials(&browser, "ada", PASSWORD).await;
    assert_eq!(browser.url().await, shop.page("/checkout"));

    age_logins(&redis, Duration::from_secs(11 * 60));
    browser.open(&shop.page("/cart")).await;
    browser.click(".summary .button").await;
    assert_eq!(browser.url().await, shop.page("/confirm?return_to=/checkout"));
    assert_eq!(browser.text("h1").await, "Is it still you?");
    browser.fill("#password", "wrong horse").await;
    browser.click(".delivery .button").await;
    assert_eq!(browser.texts(".hint").await, ["This is not your password."]);
    browser.fill("#password", PASSWORD).await;
    browser.click(".delivery .button").await;
    assert_eq!(browser.url().await, shop.page("/checkout"));

    let fill = async || {
        for (field, text) in [("name", "Ada"), ("email", "ada@example.org"), ("address", "London")] {
            browser.fill(&format!("#{field}"), text).await;
        }
        browser.click(".delivery .button").await;
    };
    // A form that was left open for an hour and more.
    age_logins(&redis, Duration::from_secs(71 * 60));
    fill().await;
    assert_eq!(browser.text("h1").await, "Is it still you?");
    browser.click(".empty .button").await;
    browser.fill("#password", PASSWORD).await;
    browser.click(".delivery .button").await;
    // A form that was left open for half an hour.
    age_logins(&redis, Duration::from_secs(30 * 60));
    fill().await;
    assert_eq!(browser.text("h1").await, "Thank you, Ada");
}

#[tokio::test]
async fn a_form_without_its_token_gets_the_shops_own_403_page() {
    let (shop, browser) = (Shop::start(), browser().await);
    add(&browser, &shop, "fern", 1).await;
    browser.script("document.querySelectorAll('[name=csrf_token]').forEach(one => one.remove())").await;
    browser.click("[value=more]").await;
    assert_eq!(browser.text("h1").await, "This form is not valid any more");
    assert_eq!(trace(&browser, "This page").await["Plan"], "request refused: no token");
    browser.open(&shop.page("/cart")).await;
    assert_eq!(cart(&browser).await, [("Boston fern".to_owned(), "1".to_owned())]);

    // A form from before the login.
    let stale = browser.script("return document.querySelector('[name=csrf_token]').value").await;
    sign_up(&browser, &shop, "ada").await;
    browser.open(&shop.page("/cart")).await;
    browser.script(&format!("document.querySelector('.steps [name=csrf_token]').value = {stale}")).await;
    browser.click("[value=more]").await;
    assert_eq!(browser.text("h1").await, "This form is not valid any more");

    let visitor = HttpBrowser::connect(&shop.url);
    post(&visitor, "/cart", &[("slug", "fern")]).await;
    for path in ["/cart", "/cart/fern", "/checkout", "/signup", "/login", "/logout", "/drawer", "/session/end"] {
        assert_eq!(visitor.post_form(path, &[]).await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn names_and_passwords_are_the_same_at_both_instances_and_a_name_is_given_once() {
    let redis = RedisServer::start();
    let variables: [(&str, &str); 2] =
        [("REDIS_URL", &redis.url()), ("SESSION_KEY", "c2hhcmVkIGJ5IGFsbCBpbnN0YW5jZXMgb2YgdGVzdHM=")];
    let (one, other) = (Shop::start_with(&variables), Shop::start_with(&variables));
    for name in ["ada", "grace", "edith"] {
        let form = [("name", name), ("password", PASSWORD)];
        let (here, there) = (HttpBrowser::connect(&one.url), HttpBrowser::connect(&other.url));
        let (first, second) = tokio::join!(post(&here, "/signup", &form), post(&there, "/signup", &form));
        let mut statuses = [first.status.as_u16(), second.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [303, 422], "{name}");
    }
    let browser = browser().await;
    log_in(&browser, &one, "ada").await;
    browser.open(&other.page("/account")).await;
    assert_eq!(browser.text("h1").await, "Your account");
    assert!(redis.run(&["HGET", "shop:account:ada", "password"]).text().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
}

#[tokio::test]
async fn the_user_of_the_deployed_redis_may_do_what_accounts_need() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let users = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("users-{}.acl", std::process::id()));
    // The SHA-256 of "password"; and the test itself gets in without one.
    let hash = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
    let rules = std::fs::read_to_string(deploy.join("users.acl")).unwrap();
    let rules = rules.replace("SHA256_OF_REDIS_PASSWORD", hash).replace("default off", "default on nopass");
    let rules: Vec<_> = rules.lines().filter(|line| !line.starts_with('#')).collect();
    std::fs::write(&users, rules.join("\n")).unwrap();
    let (conf, file) = (deploy.join("redis.conf").display().to_string(), users.display().to_string());
    let redis = RedisServer::start_with(&[("include", &conf), ("aclfile", &file)]);

    let shop = Shop::start_with(&[("REDIS_URL", &format!("redis://shop:password@127.0.0.1:{}", redis.port()))]);
    let (visitor, other) = (HttpBrowser::connect(&shop.url), HttpBrowser::connect(&shop.url));
    let form = [("name", "ada"), ("password", PASSWORD)];
    assert_eq!(post(&visitor, "/signup", &form).await.status, 303);
    assert_eq!(post(&other, "/login", &form).await.status, 303);
    let new = [("present", PASSWORD), ("new", "battery staple")];
    assert_eq!(post(&visitor, "/account/password", &new).await.status, 303);
    assert_eq!(post(&other, "/login", &form).await.status, 422);
    assert_eq!(redis.run(&["ACL", "LOG"]).list(), [], "a command or a key was refused");
    std::fs::remove_file(users).unwrap();
}
