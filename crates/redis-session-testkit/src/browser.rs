//! A browser without the window: sends requests with its cookies, and keeps those it is given.

use std::{
    error::Error as StdError,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum_core::body::Body;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_TYPE, COOKIE, HOST, LOCATION, SET_COOKIE},
    uri::PathAndQuery,
};
use http_body_util::BodyExt as _;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower_service::Service;

use crate::jar::CookieJar;

type BoxError = Box<dyn StdError + Send + Sync>;

/// One visitor's browser before an application: a `Router` in the same process, or a server ([`HttpBrowser`]).
///
/// Clones share the cookie jar, so several requests of one visitor can be in flight. Nothing follows redirects by
/// itself; [`follow`](Self::follow) does.
///
/// ```
/// use axum::{Router, http::HeaderMap, response::AppendHeaders, routing::{get, post}};
/// use redis_session_testkit::Browser;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let app = Router::new()
///     .route("/log-in", post(|| async { AppendHeaders([("set-cookie", "__Host-sid=abc; Path=/; Secure")]) }))
///     .route("/", get(|headers: HeaderMap| async move { headers["cookie"].to_str().unwrap().to_owned() }));
///
/// let browser = Browser::new(app);
/// browser.post_form("/log-in", &[("name", "ada"), ("password", "…")]).await;
/// assert_eq!(browser.cookie("__Host-sid").unwrap(), "abc");
/// assert_eq!(browser.get("/").await.body, "__Host-sid=abc");
/// # });
/// ```
///
/// Answers that arrive in another order than they were made:
///
/// ```
/// # use axum::{Router, http::Uri, response::AppendHeaders, routing::get};
/// # use redis_session_testkit::Browser;
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let app = Router::new()
/// #     .route("/{value}", get(|uri: Uri| async move { AppendHeaders([("set-cookie", format!("sid={}", &uri.path()[1..]))]) }));
/// # let browser = Browser::new(app);
/// # let request = |path: &str| axum::http::Request::get(path).body(Default::default()).unwrap();
/// let first = browser.ask(request("/first")).await;
/// let second = browser.ask(request("/second")).await;
/// assert_eq!(browser.cookie("sid"), None);
/// browser.receive(&second);
/// browser.receive(&first);
/// assert_eq!(browser.cookie("sid").unwrap(), "first");
/// # });
/// ```
#[derive(Clone)]
pub struct Browser<A> {
    app: A,
    jar: Arc<Mutex<CookieJar>>,
    origin: Uri,
}

/// A browser that speaks HTTP over TCP to a server on this machine.
///
/// ```no_run
/// # async fn example() {
/// use redis_session_testkit::HttpBrowser;
///
/// let browser = HttpBrowser::connect("http://127.0.0.1:3000");
/// assert_eq!(browser.get("/").await.status, 200);
/// # }
/// ```
pub type HttpBrowser = Browser<Wire>;

/// An answer, read to its end.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page {
    /// Where it came from.
    pub url: Uri,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as text, with what is not UTF-8 replaced.
    pub body: String,
}

impl Page {
    /// A header as text, with what is not UTF-8 replaced; `None` if it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// The `Set-Cookie` lines.
    #[must_use]
    pub fn set_cookies(&self) -> Vec<String> {
        let lines = self.headers.get_all(SET_COOKIE).iter();
        lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect()
    }
}

impl HttpBrowser {
    /// A browser for the server at `origin`, such as `http://127.0.0.1:3000`.
    #[must_use]
    pub fn connect(origin: &str) -> Self {
        Self::new(Wire::new()).at(origin)
    }
}

impl<A> Browser<A> {
    /// A browser before an application which it takes to be at `https://localhost`.
    #[must_use]
    pub fn new(app: A) -> Self {
        Self { app, jar: Arc::default(), origin: Uri::from_static("https://localhost") }
    }

    /// The same browser, with the application at another place: `http://shop.example`.
    #[must_use]
    pub fn at(mut self, origin: &str) -> Self {
        let parsed: Option<Uri> = origin.parse().ok();
        self.origin = parsed
            .filter(|uri| uri.scheme().is_some() && uri.host().is_some() && uri.path() == "/" && uri.query().is_none())
            .unwrap_or_else(|| panic!("{origin:?} is not an origin such as http://127.0.0.1:3000"));
        self
    }

    /// The cookie jar. A guard: it must not be held across an `await`.
    pub fn jar(&self) -> MutexGuard<'_, CookieJar> {
        self.jar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a living cookie; `None` if there is none of that name.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<String> {
        self.jar().get(name).map(|cookie| cookie.value.clone())
    }

    /// Puts a cookie in by hand, for all paths of the application.
    pub fn set_cookie(&self, name: &str, value: &str) {
        let host = self.origin.host().unwrap_or_default();
        self.jar().put(host, name, value);
    }

    /// Delivers an answer's cookies to the jar.
    pub fn receive(&self, page: &Page) {
        let mut jar = self.jar();
        for line in page.set_cookies() {
            jar.receive(&page.url, &line);
        }
    }

    /// Where a request goes: an absolute URL stays, a path is one of the application.
    fn url(&self, uri: &Uri) -> Uri {
        if uri.host().is_some() {
            return uri.clone();
        }
        let mut parts = self.origin.clone().into_parts();
        parts.path_and_query = Some(uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
        Uri::from_parts(parts).unwrap_or_else(|error| panic!("{uri} is not a path: {error}"))
    }
}

impl<A: Clone> Browser<A> {
    /// Another visitor: the same application, and no cookies.
    #[must_use]
    pub fn stranger(&self) -> Self {
        Self { app: self.app.clone(), jar: Arc::default(), origin: self.origin.clone() }
    }

    /// The same visitor's cookies as they are now, in a jar of its own: a stolen or restored copy of the browser.
    #[must_use]
    pub fn copy(&self) -> Self {
        let jar = self.jar().clone();
        Self { app: self.app.clone(), jar: Arc::new(Mutex::new(jar)), origin: self.origin.clone() }
    }
}

impl<A> Browser<A>
where
    A: Service<Request<Body>, Response = Response<Body>> + Clone,
    A::Error: Into<BoxError>,
{
    /// Gets a page and keeps its cookies.
    pub async fn get(&self, path: &str) -> Page {
        self.send(request(Method::GET, path, Body::empty())).await
    }

    /// Sends a form and keeps the answer's cookies.
    pub async fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let mut request = request(Method::POST, path, Body::from(form(fields)));
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, form);
        self.send(request).await
    }

    /// Gets the page that a redirect leads to; panics if the answer is none.
    pub async fn follow(&self, page: &Page) -> Page {
        let location = page.headers.get(LOCATION).and_then(|location| location.to_str().ok());
        match location {
            Some(location) if page.status.is_redirection() => self.get(location).await,
            _ => panic!("{} answered {}, which leads nowhere", page.url, page.status),
        }
    }

    /// Sends a request with the jar's cookies (or its own, if it has a `Cookie` line) and keeps the answer's cookies.
    pub async fn send(&self, request: Request<Body>) -> Page {
        let page = self.ask(request).await;
        self.receive(&page);
        page
    }

    /// Like [`send`](Self::send), and leaves the jar alone: the answer is under way until [`receive`](Self::receive).
    pub async fn ask(&self, request: Request<Body>) -> Page {
        let asked = format!("{} {}", request.method(), request.uri());
        self.try_ask(request).await.unwrap_or_else(|error| panic!("{asked} has no answer: {}", in_full(&*error)))
    }

    /// Like [`ask`](Self::ask), for a server that may be down or go down before it has answered in full.
    ///
    /// # Errors
    ///
    /// What the application or the connection says.
    pub async fn try_ask(&self, request: Request<Body>) -> Result<Page, BoxError> {
        let (request, url) = self.prepare(request);
        let mut app = self.app.clone();
        poll_fn(|context| app.poll_ready(context)).await.map_err(Into::into)?;
        let response = app.call(request).await.map_err(Into::into)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Page { url, status: head.status, headers: head.headers, body })
    }

    fn prepare(&self, mut request: Request<Body>) -> (Request<Body>, Uri) {
        let url = self.url(request.uri());
        *request.uri_mut() = url.clone();
        let host = url.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        let cookies = self.jar().header(&url).and_then(|line| HeaderValue::from_bytes(line.as_bytes()).ok());
        for (name, value) in [(HOST, host), (COOKIE, cookies)] {
            if let Some(value) = value.filter(|_| !request.headers().contains_key(&name)) {
                request.headers_mut().insert(name, value);
            }
        }
        (request, url)
    }
}

impl<A> fmt::Debug for Browser<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Browser").field("origin", &self.origin).field("jar", &self.jar).finish_non_exhaustive()
    }
}

fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    let uri: Uri = path.parse().unwrap_or_else(|error| panic!("{path:?} is not a path: {error}"));
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    request
}

fn form(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<_> = fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.join("&")
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        b' ' => "+".to_owned(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn in_full(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// HTTP/1 over TCP, as a service: what an [`HttpBrowser`] has in place of a router.
///
/// Connections are kept, and belong to the runtime that opened them: one test, one `Wire`.
#[derive(Clone, Debug)]
pub struct Wire(Client<HttpConnector, Body>);

impl Wire {
    /// A wire with no connection yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self::new()
    }
}

impl Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.request(request);
        Box::pin(async move { Ok(answer.await?.map(Body::new)) })
    }
}
