//! How the shop starts: where it is, which cookie it asks for, and what it refuses.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use redis_session_testkit::{Authority, Cluster, HttpBrowser, RedisServer, Sentinels};

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
    let table: [(&[(&str, &str)], &str); 7] = [
        (&[("PORT", "http")], "PORT must be a number up to 65535, not \"http\""),
        (&[("BIND", "localhost")], "BIND must be an IP address, not \"localhost\""),
        (&[("PUBLIC_URL", "http://shop.example")], "PUBLIC_URL must begin with https://"),
        (&[("PUBLIC_URL", "shop")], "PUBLIC_URL must begin with https://"),
        (&[("SESSION_KEY", TOO_SHORT)], "SESSION_KEY"),
        (&[("REDIS_URL", "redis://127.0.0.1:1")], "Redis at 127.0.0.1:1 cannot be reached"),
        (&[("REDIS_URL", "redis-cluster://127.0.0.1:1")], "set ACCOUNTS_URL=redis://host:6379"),
    ];
    for (variables, line) in table {
        let said = refusal(variables);
        assert!(said.contains(line) && said.lines().count() == 1, "{variables:?}: {said}");
    }
}

#[tokio::test]
async fn an_instance_is_ready_while_redis_answers_and_alive_whether_or_not() {
    let redis = RedisServer::start();
    redis.kill();
    let shop = Shop::start_with(&[("REDIS_URL", &redis.url()), ("START_WITHOUT_REDIS", "yes")]);
    let prober = HttpBrowser::connect(&shop.url);
    let is_alive = async || prober.get("/about").await.status == StatusCode::OK;
    let becomes = async |wanted: StatusCode| {
        let start = Instant::now();
        while prober.get("/ready").await.status != wanted {
            assert!(start.elapsed() < Duration::from_secs(10), "not {wanted}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert_eq!(prober.get("/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(is_alive().await);
    redis.restart();
    becomes(StatusCode::NO_CONTENT).await;
    let form = [("name", "Ada"), ("password", PASSWORD)];
    assert_eq!(post(&prober, "/signup", &form).await.status, StatusCode::SEE_OTHER, "accounts are reached too");
    redis.pause();
    becomes(StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(is_alive().await);
    redis.resume();
    becomes(StatusCode::NO_CONTENT).await;
    let of_its_own = Shop::start();
    let ready = HttpBrowser::connect(&of_its_own.url).get("/ready").await;
    assert_eq!(ready.status, StatusCode::NO_CONTENT, "there is no Redis to wait for");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_may_be_in_a_cluster_or_behind_sentinels_and_accounts_elsewhere() {
    const ALL: &str = "~* &* +@all";
    let cluster = Cluster::options().replicas(0).start_with(|options| options.user("shop", "p/w", ALL));
    let sentinels = Sentinels::options().replicas(1).sentinels(1).sentinel_password("guard");
    let sentinels = sentinels.start_with(|options| options.user("shop", "p/w", ALL));
    let accounts = RedisServer::options().user("shop", "p/w", ALL).start();
    for url in [cluster.url(), sentinels.url()] {
        let shop = Shop::start_with(&[
            ("REDIS_URL", &url),
            ("REDIS_USER", "shop"),
            ("REDIS_PASSWORD", "p/w"),
            ("REDIS_SENTINEL_PASSWORD", "guard"),
            ("ACCOUNTS_URL", &accounts.url()),
        ]);
        let place = url.split_once("://").unwrap().1;
        assert!(shop.greeting.starts_with(&format!("Sessions are in Redis at {place}")), "{}", shop.greeting);
        let browser = HttpBrowser::connect(&shop.url);
        post(&browser, "/cart", &[("slug", "fern")]).await;
        let form = [("name", "ada"), ("password", PASSWORD)];
        let door = if url == cluster.url() { "/signup" } else { "/login" };
        assert_eq!(post(&browser, door, &form).await.status, StatusCode::SEE_OTHER, "{url}");
        assert!(browser.get("/cart").await.body.contains("Boston fern"));
    }
    assert_eq!(accounts.run(&["EXISTS", "shop:account:ada"]).int(), 1);
}

#[tokio::test]
async fn r78_sessions_and_accounts_are_reached_by_tls_under_the_authority_that_a_variable_names() {
    let (authority, other) = (Authority::new(), Authority::new());
    let redis = RedisServer::options().tls(&authority.server("127.0.0.1"), &authority).start();
    let file = |name: &str, of: &Authority| {
        let path = std::env::temp_dir().join(format!("redis-session-shop-{}-{name}.crt", std::process::id()));
        std::fs::write(&path, of.pem()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (ours, theirs) = (file("ours", &authority), file("theirs", &other));
    let url = redis.tls_url();
    let shop = Shop::start_with(&[("REDIS_URL", &url), ("SSL_CERT_FILE", &ours)]);
    let form = [("name", "Ada"), ("password", PASSWORD)];
    let signed_up = post(&HttpBrowser::connect(&shop.url), "/signup", &form).await;
    assert_eq!(signed_up.status, StatusCode::SEE_OTHER);
    let said = refusal(&[("REDIS_URL", &url), ("SSL_CERT_FILE", &theirs)]);
    assert!(said.contains("authority that is not trusted here"), "{said}");
    for file in [ours, theirs] {
        std::fs::remove_file(file).unwrap();
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
