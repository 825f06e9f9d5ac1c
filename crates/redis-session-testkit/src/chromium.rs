//! A real browser: headless Chromium, driven through chromedriver by a few WebDriver calls.

use std::{
    fmt, fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use axum_core::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower_service::Service as _;

use crate::{
    browser::Wire,
    jar::Cookie,
    process::{Process, TempDir},
};

/// How long an element may take to appear before the test ends.
const PATIENCE: Duration = Duration::from_secs(10);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// What WebDriver calls an element in its answers.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Marks the page, notes the events of the coming click, and says whether that should open a page in this window.
// The events are kept, not judged: what prevents them may come after us, and may stop them from going further.
const EXPECT_PAGE: &str = r"
    const click = window.redisSessionTestkitClick = {};
    for (const kind of ['click', 'submit'])
        addEventListener(kind, event => click[kind] = event, { capture: true, once: true });

    const here = target => !target || target === '_self';
    const link = arguments[0].closest('a[href]');
    if (link) {
        const withinPage = link.href.includes('#') && link.href.split('#')[0] === location.href.split('#')[0];
        return here(link.target) && !link.hasAttribute('download') && /^https?:/.test(link.href) && !withinPage;
    }
    const button = arguments[0].closest('button, input');
    const form = button && ['submit', 'image'].includes(button.type) && !button.disabled && button.form;
    if (!form) return false;
    const setting = name => button.getAttribute('form' + name) ?? form.getAttribute(name);
    const valid = form.matches(':valid') || setting('novalidate') !== null;
    return valid && here(setting('target')) && setting('method')?.toLowerCase() !== 'dialog';
";

/// Whether the mark is gone with its page and the next one is loaded, or the page has kept the click to itself.
const CLICK_IS_OVER: &str = r"
    const click = window.redisSessionTestkitClick;
    if (!click) return document.readyState === 'complete';
    return Boolean(click.click?.defaultPrevented || click.submit?.defaultPrevented);
";

/// A headless Chromium with a profile of its own and no network beyond what the test opens; dropping it ends it.
///
/// Calls act on the current window, wait for what they name to appear, and panic with the browser's own words if it
/// does not. Elements are named by CSS selectors.
///
/// ```
/// # use axum::{Router, response::Html, routing::get};
/// use redis_session_testkit::Chromium;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
/// # let shop = format!("http://{}", listener.local_addr().unwrap());
/// # const FORM: &str = "<form><input name=item><button>Add</button></form><ul><li>tea</ul>";
/// # tokio::spawn(async move { axum::serve(listener, Router::new().route("/", get(async || Html(FORM)))).await });
/// let browser = Chromium::start().await;
/// browser.open(&shop).await;
/// browser.fill("input[name=item]", "tea").await;
/// browser.click("button").await;
/// assert_eq!(browser.texts("li").await, ["tea"]);
/// assert!(browser.url().await.ends_with("?item=tea"));
/// # });
/// ```
pub struct Chromium {
    wire: Wire,
    port: u16,
    session: String,
    // Dropped in this order: the profile goes when nobody writes into it any more.
    _driver: Process,
    dir: TempDir,
}

/// A window (a tab) of a [`Chromium`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window(String);

impl Chromium {
    /// Starts chromedriver and a new browser with an empty profile.
    pub async fn start() -> Self {
        let dir = TempDir::new();
        let (driver, port) = start_driver(&dir).await;
        let mut browser = Self { wire: Wire::new(), port, session: String::new(), _driver: driver, dir };
        let wishes = browser.wishes();
        let answer = browser.ask(Method::POST, "/session", &wishes).await;
        let answer = answer.unwrap_or_else(|error| {
            let missing = error.message.contains("cannot find Chrome binary");
            let hint = if missing { "; is it installed? apt-get install chromium" } else { "" };
            panic!("chromium does not start: {error}{hint}")
        });
        browser.session = text_of(&answer["sessionId"]);
        browser
    }

    fn wishes(&self) -> Value {
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
        ];
        let profile = format!("--user-data-dir={}", self.dir.path().join("profile").display());
        let args: Vec<_> = args.into_iter().chain([profile.as_str()]).collect();
        json!({ "capabilities": { "alwaysMatch": { "browserName": "chrome", "goog:chromeOptions": { "args": args } } } })
    }

    /// Opens a page and waits until it is loaded.
    pub async fn open(&self, url: &str) {
        self.post("/url", json!({ "url": url })).await;
    }

    /// Goes back one page, as the button does.
    pub async fn back(&self) {
        self.post("/back", json!({})).await;
    }

    /// Loads the page again.
    pub async fn reload(&self) {
        self.post("/refresh", json!({})).await;
    }

    /// Clicks on an element; if it is a link or a form's button that opens a page here, waits until that is loaded.
    ///
    /// What a page's scripts open is not waited for: [`until_text`](Self::until_text) is for that. Panics if no page
    /// comes; where that is wanted (an answer of 204, a server that hangs), click by [`script`](Self::script).
    pub async fn click(&self, css: &str) {
        let deadline = Instant::now() + PATIENCE;
        let opens_page = loop {
            match self.try_click(css).await {
                Ok(opens_page) => break opens_page,
                Err(error) if error.may_pass() && Instant::now() < deadline => sleep(BETWEEN_LOOKS).await,
                Err(error) => panic!("chromium cannot click {css}: {error}"),
            }
        };
        while opens_page && !self.click_is_over().await {
            assert!(Instant::now() < deadline, "the click on {css} opened no page");
            sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Clicks, and says whether a page should come of it.
    // chromedriver waits for pages that it sees coming, and a form is sent only after it has looked.
    async fn try_click(&self, css: &str) -> Result<bool, WebDriverError> {
        let element = self.find(css).await?;
        let expect = json!({ "script": EXPECT_PAGE, "args": [{ ELEMENT: element }] });
        let opens_page = self.ask(Method::POST, &self.path("/execute/sync"), &expect).await?;
        self.ask(Method::POST, &self.path(&format!("/element/{element}/click")), &json!({})).await?;
        Ok(opens_page == true)
    }

    async fn click_is_over(&self) -> bool {
        let over = json!({ "script": CLICK_IS_OVER, "args": [] });
        // An error is the old page going away under the script.
        self.ask(Method::POST, &self.path("/execute/sync"), &over).await.is_ok_and(|over| over == true)
    }

    /// Replaces the text of an input by typing.
    pub async fn fill(&self, css: &str, text: &str) {
        self.with(css, Method::POST, "/clear", json!({})).await;
        self.with(css, Method::POST, "/value", json!({ "text": text })).await;
    }

    /// The text of the first such element, as it is shown.
    pub async fn text(&self, css: &str) -> String {
        text_of(&self.with(css, Method::GET, "/text", Value::Null).await)
    }

    /// Waits until the first such element shows exactly this text: for pages that change by themselves.
    pub async fn until_text(&self, css: &str, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.text(css).await;
            if text == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "chromium shows {text:?} in {css}, not {wanted:?}");
            sleep(BETWEEN_LOOKS).await;
        }
    }

    /// The texts of all such elements there are now.
    pub async fn texts(&self, css: &str) -> Vec<String> {
        let all = "return Array.from(document.querySelectorAll(arguments[0]), one => one.innerText)";
        let texts = self.post("/execute/sync", json!({ "script": all, "args": [css] })).await;
        texts.as_array().into_iter().flatten().map(text_of).collect()
    }

    /// The page as HTML, as it is now.
    pub async fn source(&self) -> String {
        text_of(&self.get("/source").await)
    }

    /// The address of the page.
    pub async fn url(&self) -> String {
        text_of(&self.get("/url").await)
    }

    /// The title of the page.
    pub async fn title(&self) -> String {
        text_of(&self.get("/title").await)
    }

    /// Runs the body of a function in the page, and gives what it returns; promises are awaited.
    pub async fn script(&self, js: &str) -> Value {
        self.post("/execute/sync", json!({ "script": js, "args": [] })).await
    }

    /// Opens an empty window of the same profile and goes there.
    pub async fn new_window(&self) -> Window {
        let answer = self.post("/window/new", json!({ "type": "tab" })).await;
        let window = Window(text_of(&answer["handle"]));
        self.switch_to(&window).await;
        window
    }

    /// The current window.
    pub async fn window(&self) -> Window {
        Window(text_of(&self.get("/window").await))
    }

    /// Goes to another window.
    pub async fn switch_to(&self, window: &Window) {
        self.post("/window", json!({ "handle": window.0 })).await;
    }

    /// Writes a PNG of what the window shows.
    pub async fn screenshot(&self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        let image = text_of(&self.get("/screenshot").await);
        let image = STANDARD.decode(image).unwrap_or_else(|error| panic!("the screenshot is not base64: {error}"));
        fs::write(path, image).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }

    /// The cookies that go to the current page, those that scripts may not see too.
    pub async fn cookies(&self) -> Vec<Cookie> {
        let cookies = self.get("/cookie").await;
        cookies.as_array().into_iter().flatten().map(cookie_of).collect()
    }

    /// Gives the page of this window a size, in CSS pixels; small ones too, which a real window would refuse.
    pub async fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Whether pages in this window see `prefers-color-scheme: dark` or `light`.
    pub async fn dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// Whether pages that are opened in this window from now on may run scripts; [`script`](Self::script) always may.
    pub async fn javascript(&self, on: bool) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": !on })).await;
    }

    /// Calls a method of the DevTools protocol in this window.
    pub async fn devtools(&self, method: &str, params: Value) -> Value {
        self.post("/goog/cdp/execute", json!({ "cmd": method, "params": params })).await
    }

    /// Acts on the first such element, once there is one that can be acted on.
    async fn with(&self, css: &str, method: Method, action: &str, body: Value) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_with(css, method.clone(), action, &body).await {
                Ok(value) => return value,
                Err(error) if error.may_pass() && Instant::now() < deadline => sleep(BETWEEN_LOOKS).await,
                Err(error) => panic!("chromium cannot {} {css}: {error}", action.trim_start_matches('/')),
            }
        }
    }

    async fn try_with(&self, css: &str, method: Method, action: &str, body: &Value) -> Result<Value, WebDriverError> {
        let element = self.find(css).await?;
        self.ask(method, &self.path(&format!("/element/{element}{action}")), body).await
    }

    async fn find(&self, css: &str) -> Result<String, WebDriverError> {
        let find = json!({ "using": "css selector", "value": css });
        let element = self.ask(Method::POST, &self.path("/element"), &find).await?;
        Ok(text_of(&element[ELEMENT]))
    }

    async fn get(&self, path: &str) -> Value {
        self.must(Method::GET, path, &Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.must(Method::POST, path, &body).await
    }

    async fn must(&self, method: Method, path: &str, body: &Value) -> Value {
        let answer = self.ask(method, &self.path(path), body).await;
        answer.unwrap_or_else(|error| panic!("chromium cannot {} {body}: {error}", path.trim_start_matches('/')))
    }

    fn path(&self, rest: &str) -> String {
        format!("/session/{}{rest}", self.session)
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value, WebDriverError> {
        let body = if method == Method::GET { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}{path}", self.port))
            .header("content-type", "application/json")
            .body(body)
            .unwrap_or_else(|error| panic!("{path} is not a path: {error}"));
        let answer = self.wire.clone().call(request).await;
        let answer = answer.unwrap_or_else(|error| panic!("chromedriver does not answer {path}: {error}"));
        let failed = !answer.status().is_success();
        let body = answer.into_body().collect().await.map(|body| body.to_bytes());
        let body = body.unwrap_or_else(|error| panic!("chromedriver broke off its answer to {path}: {error}"));
        let answer: Value = serde_json::from_slice(&body).unwrap_or_else(|error| {
            panic!("chromedriver answered {path} with {:?}: {error}", String::from_utf8_lossy(&body))
        });
        let value = answer["value"].clone();
        if failed { Err(WebDriverError::from(&value)) } else { Ok(value) }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // So that chromedriver waits for the browser's processes; what remains is killed with it.
            let _ = end_session(self.port, &self.session);
        }
    }
}

impl fmt::Debug for Chromium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chromium").field("port", &self.port).field("session", &self.session).finish_non_exhaustive()
    }
}

/// Starts chromedriver, which finds a free port by itself and prints it.
async fn start_driver(dir: &TempDir) -> (Process, u16) {
    // Into a file: a pipe that nobody reads to its end would stop it some day.
    let log = dir.path().join("chromedriver.log");
    let stdout = fs::File::create(&log).unwrap_or_else(|error| panic!("cannot write {}: {error}", log.display()));
    let mut command = Command::new("chromedriver");
    command.arg("--port=0").stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
    // Crash reports, caches and lists of fonts go there too, and not into the home of whoever runs the tests.
    command.env("TMPDIR", dir.path()).env("XDG_CACHE_HOME", dir.path()).env("XDG_CONFIG_HOME", dir.path());
    let mut driver = Process::start(&mut command, "chromium-driver", dir);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = fs::read_to_string(&log).unwrap_or_default();
        if let Some(port) = port_in(&said) {
            return (driver, port);
        }
        let ended = driver.ended().is_some() || Instant::now() > deadline;
        assert!(!ended, "chromedriver does not start:\n{said}");
        sleep(BETWEEN_LOOKS).await;
    }
}

fn port_in(said: &str) -> Option<u16> {
    let (_, rest) = said.split_once("started successfully on port ")?;
    rest.split_once('.')?.0.parse().ok()
}

// Over a socket of its own: a drop cannot await, and the runtime may be gone.
fn end_session(port: u16, session: &str) -> std::io::Result<()> {
    let limit = Some(Duration::from_secs(5));
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    write!(stream, "DELETE /session/{session} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    stream.read(&mut [0; 256]).map(drop)
}

/// What WebDriver says when it cannot do something.
struct WebDriverError {
    kind: String,
    message: String,
}

impl WebDriverError {
    /// Whether the page may only not be there yet.
    fn may_pass(&self) -> bool {
        ["no such element", "stale element reference", "element not interactable", "element click intercepted"]
            .contains(&self.kind.as_str())
            // What chromedriver says instead of "stale" while a page goes away.
            || self.message.contains("does not belong to the document")
    }
}

impl From<&Value> for WebDriverError {
    fn from(value: &Value) -> Self {
        Self { kind: text_of(&value["error"]), message: text_of(&value["message"]) }
    }
}

impl fmt::Display for WebDriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest of the message is chromedriver's own stack.
        write!(f, "{} ({})", self.kind, self.message.lines().next().unwrap_or_default())
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn cookie_of(value: &Value) -> Cookie {
    let domain = text_of(&value["domain"]);
    let expires = value["expiry"].as_u64().map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    Cookie {
        name: text_of(&value["name"]),
        value: text_of(&value["value"]),
        host_only: !domain.starts_with('.'),
        domain: domain.trim_start_matches('.').to_owned(),
        path: text_of(&value["path"]),
        secure: value["secure"] == true,
        http_only: value["httpOnly"] == true,
        same_site: value["sameSite"].as_str().map(str::to_ascii_lowercase),
        expires,
    }
}
