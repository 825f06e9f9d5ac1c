//! How the shop starts: where it is, which cookie it asks for, and what it refuses.

use std::net::TcpListener;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use redis_session_testkit::HttpBrowser;

use crate::shop::{PASSWORD, Shop, add, browser, cart, post, refusal};

const TOO_SHORT: &str = "c2hvcnQ=";

#[tokio::test]
async fn on_loopback_the_cookie_goes_over_plain_http() {
    let shop = Shop::start();
    assert!(shop.url.starts_with("http://127.0.0.1:"), "{}", shop.url);
    assert!(shop.greeting.starts_with("Sessions are in the memory of this process"), "{}", shop.greeting);
    let added = HttpBrowser::connect(&shop.url).post_form("/cart", &[("slug", "aloe")]).await;
    let line = &added.set_cookies()[0];
    assert!(line.starts_with("id=") && !line.contains("Secure"), "{line}");
}

#[tokio::test]
async fn elsewhere_the_cookie_is_secure_and_chromium_keeps_it_on_localhost() {
    let shop = Shop::start_with(&[("BIND", "0.0.0.0")]);
    assert!(shop.url.starts_with("http://localhost:"), "{}", shop.url);
    let browser = browser().await;
    add(&browser, &shop, "aloe", 1).await;
    assert_eq!(cart(&browser).await, [("Aloe".to_owned(), "1".to_owned())]);
    let cookies = browser.cookies().await;
    let cookie = cookies.iter().find(|cookie| cookie.name == "__Host-id").unwrap();
    assert!(cookie.secure && cookie.http_only);
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

#[tokio::test]
async fn behind_a_proxy_the_public_address_decides_about_the_cookie() {
    let table = [
        ("https://shop.example", "__Host-id=", true),
        ("http://localhost:8080/", "id=", false),
        ("http://[::1]:80", "id=", false),
    ];
    for (public_url, name, secure) in table {
        let port = free_port();
        let shop = Shop::start_with(&[("BIND", "0.0.0.0"), ("PORT", &port), ("PUBLIC_URL", public_url)]);
        assert_eq!(shop.url, public_url.trim_end_matches('/'));
        let browser = HttpBrowser::connect(&format!("http://127.0.0.1:{port}"));
        let line = browser.post_form("/cart", &[("slug", "aloe")]).await.set_cookies().remove(0);
        assert!(line.starts_with(name) && line.contains("Secure") == secure, "{public_url}: {line}");
    }
}

#[tokio::test]
async fn behind_a_proxy_that_names_another_host_forms_of_the_public_address_are_taken_and_others_are_not() {
    let port = free_port();
    let shop = Shop::start_with(&[("BIND", "0.0.0.0"), ("PORT", &port), ("PUBLIC_URL", "https://shop.example")]);
    assert_eq!(shop.url, "https://shop.example");
    let browser = HttpBrowser::connect(&format!("http://127.0.0.1:{port}"));
    for (origin, status) in [("https://shop.example", 303), ("https://evil.example", 403), ("null", 403)] {
        let form = Request::post("/cart")
            .header("origin", origin)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from("slug=aloe"))
            .unwrap();
        assert_eq!(browser.stranger().ask(form).await.status, status, "{origin}");
    }
}

#[test]
fn what_cannot_work_is_refused_with_a_line_that_says_what_to_write() {
    let table: [(&[(&str, &str)], &str); 6] = [
        (&[("PORT", "http")], "PORT must be a number up to 65535, not \"http\""),
        (&[("BIND", "localhost")], "BIND must be an IP address, not \"localhost\""),
        (&[("PUBLIC_URL", "http://shop.example")], "PUBLIC_URL must begin with https://"),
        (&[("PUBLIC_URL", "shop")], "PUBLIC_URL must begin with https://"),
        (&[("SESSION_KEY", TOO_SHORT)], "SESSION_KEY"),
        (&[("REDIS_URL", "redis://127.0.0.1:1")], "Redis at 127.0.0.1:1 cannot be reached"),
    ];
    for (variables, line) in table {
        let said = refusal(variables);
        assert!(said.contains(line) && said.lines().count() == 1, "{variables:?}: {said}");
    }
}

#[tokio::test]
async fn forms_that_no_page_sends_do_no_harm() {
    let shop = Shop::start();
    let browser = HttpBrowser::connect(&shop.url);
    for (slug, quantity) in [("rose", "1"), ("aloe", "0"), ("aloe", "21")] {
        let answer = post(&browser, "/cart", &[("slug", slug), ("quantity", quantity)]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{slug} {quantity}");
    }
    for page in ["//evil.example", "/\\evil.example", "/\t/evil.example", "https://evil.example", ""] {
        let answer = post(&browser, "/drawer", &[("open", "true"), ("page", page)]).await;
        assert_eq!(answer.header("location").unwrap(), "/", "{page:?}");
    }
    for _ in 0..3 {
        post(&browser, "/cart", &[("slug", "aloe"), ("quantity", "20")]).await;
    }
    assert!(browser.get("/cart").await.body.contains("£280.00"), "20 of one kind are the most");
    let form = [("name", "Ada"), ("password", PASSWORD), ("return_to", "//evil.example")];
    assert_eq!(post(&browser, "/signup", &form).await.header("location").unwrap(), "/");
    let numbers = ["1", "2", "3", "4", "5", "6"];
    for number in numbers {
        post(&browser, "/cart", &[("slug", "fern")]).await;
        let form = [("number", number), ("name", "Ada"), ("email", "a@b"), ("address", "London")];
        let answer = post(&browser, "/checkout", &form).await;
        assert_eq!(answer.header("location").unwrap(), format!("/orders/{number}"));
    }
    let mut kept = Vec::new();
    for number in numbers {
        kept.push(browser.get(&format!("/orders/{number}")).await.status == StatusCode::OK);
    }
    assert_eq!(kept, [false, true, true, true, true, true], "the last five orders");
    assert_eq!(browser.stranger().get("/orders/6").await.status, StatusCode::NOT_FOUND);
}
