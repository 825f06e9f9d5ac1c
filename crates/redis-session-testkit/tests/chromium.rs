//! Tests of the real browser, before a small shop on loopback.

#![allow(clippy::unwrap_used)]

use axum::{
    Form, Router,
    http::{HeaderMap, header::SET_COOKIE},
    response::{AppendHeaders, Html, IntoResponse, Redirect},
    routing::{get, post},
};
use redis_session_testkit::Chromium;

const PAGE: &str = r#"<!doctype html><title>Shop</title>
<style>body { background: white } @media (prefers-color-scheme: dark) { body { background: black } }</style>
<h1>Shop</h1><p id="cookie">COOKIE</p><ul><li>tea</li><li>milk</li></ul>
<p id="script">no script</p><p id="late"></p>
<form method="post" action="/name"><input name="name" value="nobody"><button>Save</button></form>
<script>
    document.querySelector('#script').textContent = "script";
    setTimeout(() => document.querySelector('#late').innerHTML = "<b>here</b>", 100);
</script>"#;

#[derive(serde::Deserialize)]
struct Name {
    name: String,
}

async fn home(headers: HeaderMap) -> Html<String> {
    let cookie = headers.get("cookie").map(|line| line.to_str().unwrap()).unwrap_or("none");
    Html(PAGE.replace("COOKIE", cookie))
}

async fn name(Form(form): Form<Name>) -> impl IntoResponse {
    let cookie = format!("__Host-name={}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=60", form.name);
    (AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to("/"))
}

/// The shop's address. On `localhost`, where browsers take `Secure` cookies without TLS.
async fn shop() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = Router::new().route("/", get(home)).route("/name", post(name));
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://localhost:{port}/")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_windows_are_one_visitor_and_two_browsers_are_two() {
    let shop = shop().await;
    let browser = Chromium::start().await;
    browser.open(&shop).await;
    assert_eq!(browser.text("#cookie").await, "none");
    assert_eq!(browser.title().await, "Shop");
    browser.fill("input[name=name]", "ada").await;
    browser.click("button").await;
    assert_eq!(browser.url().await, shop);
    assert_eq!(browser.text("#cookie").await, "__Host-name=ada");

    let first = browser.window().await;
    let second = browser.new_window().await;
    assert_ne!(first, second);
    browser.open(&shop).await;
    assert_eq!(browser.text("#cookie").await, "__Host-name=ada");
    browser.fill("input[name=name]", "grace").await;
    browser.click("button").await;

    browser.switch_to(&first).await;
    assert_eq!(browser.text("#cookie").await, "__Host-name=ada", "still the page from before");
    browser.reload().await;
    assert_eq!(browser.text("#cookie").await, "__Host-name=grace");

    let cookies = browser.cookies().await;
    let [cookie] = &cookies[..] else { panic!("{cookies:?}") };
    assert_eq!((cookie.name.as_str(), cookie.value.as_str()), ("__Host-name", "grace"));
    assert!(cookie.secure && cookie.http_only && cookie.host_only && cookie.expires.is_some());
    assert_eq!(cookie.same_site.as_deref(), Some("lax"));

    let other = Chromium::start().await;
    other.open(&shop).await;
    assert_eq!(other.text("#cookie").await, "none");
}

#[tokio::test]
async fn a_page_is_read_looked_at_and_scripted() {
    let shop = shop().await;
    let browser = Chromium::start().await;
    browser.open(&shop).await;
    assert_eq!(browser.texts("li").await, ["tea", "milk"]);
    assert!(browser.texts("li.none").await.is_empty());
    assert!(browser.source().await.contains("<h1>Shop</h1>"));
    assert_eq!(browser.text("#late b").await, "here");
    browser.until_text("#late", "here").await;
    assert_eq!(browser.script("return [1, await Promise.resolve('two')]").await, serde_json::json!([1, "two"]));

    browser.resize(320, 480).await;
    assert_eq!(browser.script("return [innerWidth, innerHeight]").await, serde_json::json!([320, 480]));
    let path = std::env::temp_dir().join(format!("redis-session-testkit-{}.png", std::process::id()));
    browser.screenshot(&path).await;
    let image = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(image.starts_with(b"\x89PNG"));
    // The size, where PNG has it.
    assert_eq!((&image[16..20], &image[20..24]), (&320_u32.to_be_bytes()[..], &480_u32.to_be_bytes()[..]));

    let background = "return getComputedStyle(document.body).backgroundColor";
    browser.dark(true).await;
    assert_eq!(browser.script(background).await, "rgb(0, 0, 0)");
    browser.dark(false).await;
    assert_eq!(browser.script(background).await, "rgb(255, 255, 255)");

    assert_eq!(browser.text("#script").await, "script");
    browser.javascript(false).await;
    browser.reload().await;
    assert_eq!(browser.text("#script").await, "no script");
    assert_eq!(browser.texts("li").await, ["tea", "milk"]);
    browser.javascript(true).await;
    browser.reload().await;
    assert_eq!(browser.text("#script").await, "script");
}

const LINKS: &str = r##"<!doctype html><title>Links</title>
<a id="link" href="/slow">go</a> <a id="kept" href="/slow">stay</a> <a id="within" href="#here">within</a>
<form action="/slow"><button id="send">Send</button></form>
<form action="/slow" id="caught"><button id="catch">Catch</button></form>
<form action="/slow"><input name="must" required><button id="invalid">Invalid</button></form>
<p id="said"></p>
<script>
    const keep = event => { event.preventDefault(); event.stopImmediatePropagation(); said.textContent += '.' };
    kept.addEventListener('click', keep);
    caught.addEventListener('submit', keep);
</script>"##;

#[tokio::test]
async fn a_click_waits_for_the_page_that_it_opens_and_for_no_other() {
    let slow = async || {
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        Html("<!doctype html><title>Slow</title>")
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}/", listener.local_addr().unwrap());
    let app = Router::new().route("/", get(async || Html(LINKS))).route("/slow", get(slow));
    tokio::spawn(async move { axum::serve(listener, app).await });

    let browser = Chromium::start().await;
    for scripts in [true, false] {
        browser.javascript(scripts).await;
        for opens in ["#link", "#send"] {
            browser.open(&origin).await;
            browser.click(opens).await;
            assert_eq!(browser.title().await, "Slow", "{opens}");
        }
        browser.open(&origin).await;
        for stays in ["#within", "#invalid"] {
            browser.click(stays).await;
            assert_eq!(browser.title().await, "Links", "{stays}");
        }
    }
    browser.javascript(true).await;
    browser.open(&origin).await;
    browser.click("#kept").await;
    browser.click("#catch").await;
    assert_eq!(browser.text("#said").await, "..");
    assert_eq!(browser.url().await, origin);
}

#[tokio::test]
async fn a_dropped_browser_leaves_nothing_behind() {
    let browser = Chromium::start().await;
    browser.open("chrome://version").await;
    let profile = browser.text("#profile_path").await;
    let dir = profile.strip_suffix("/profile/Default").expect("the profile is in a directory of its own").to_owned();
    assert!(processes_with(&dir).len() > 1);
    drop(browser);
    // They are killed; on a busy machine the kernel takes a moment to bury them.
    for _ in 0..100 {
        if processes_with(&dir).is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(processes_with(&dir), [""; 0]);
    assert!(!std::path::Path::new(&dir).exists());
}

fn processes_with(text: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(text)).collect()
}
