//! Who may come in: extractors and a layer that ask for a login, how fresh it is and how well it was proved.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum_core::body::Body;
use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::header::{ACCEPT, LOCATION};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use redis_session_core::{Kind, Level};
use tower_layer::Layer;
use tower_service::Service;

use crate::error::Error;
use crate::layer::Main;
use crate::return_to::ReturnTo;
use crate::session::{Session, Untyped};

/// What a visitor must have done.
#[derive(Clone, Copy, Debug)]
struct Demand {
    level: Level,
    /// The login may not be older. `None`: it may be of any age.
    within: Option<Duration>,
}

/// Extracts who is logged in; anybody else gets a 401, or, where the layer has a
/// [`log_in_page`](crate::RedisSessionLayer::log_in_page) and it is a page that was asked for, is sent there and comes back
/// after the login. `LEVEL` is the lowest [`Level`] that will do.
///
/// ```
/// use redis_session::LoggedIn;
///
/// async fn account(LoggedIn { user, .. }: LoggedIn<u64>) -> String {
///     format!("the account of user {user}")
/// }
///
/// async fn salaries(user: LoggedIn<u64, 2>) -> String {
///     format!("user {} has shown a second factor", *user)
/// }
/// # let app: axum::Router = axum::Router::new()
/// #     .route("/account", axum::routing::get(account)).route("/salaries", axum::routing::get(salaries));
/// ```
pub struct LoggedIn<U, const LEVEL: u8 = 1, L = Main> {
    /// Who it is.
    pub user: U,
    marker: PhantomData<fn() -> L>,
}

/// Extracts who is logged in if he has proved it within the last `MINUTES`; who has not is asked again: a 403, or the
/// layer's [`step_up_page`](crate::RedisSessionLayer::step_up_page). For what a stolen session should not do: payments, a
/// new password, a new address.
///
/// ```
/// use redis_session::Fresh;
///
/// async fn pay(Fresh { user, .. }: Fresh<u64, 5>) -> String {
///     format!("user {user} has typed the password within five minutes")
/// }
/// # let app: axum::Router = axum::Router::new().route("/pay", axum::routing::post(pay));
/// ```
pub struct Fresh<U, const MINUTES: u64 = 15, L = Main> {
    /// Who it is.
    pub user: U,
    marker: PhantomData<fn() -> L>,
}

/// Why somebody does not come in: the response of [`LoggedIn`] and [`Fresh`].
#[derive(Debug)]
pub struct Denied {
    error: Error,
    /// `None`: a page would be of no use.
    page: Option<HeaderValue>,
}

impl Denied {
    /// What is missing: `is_not_logged_in`, `is_step_up`; or what failed.
    pub fn error(&self) -> &Error {
        &self.error
    }

    fn respond<B: Default>(self) -> http::Response<B> {
        let Some(page) = self.page else { return self.error.respond() };
        let mut response = http::Response::new(B::default());
        *response.status_mut() = StatusCode::SEE_OTHER;
        response.headers_mut().insert(LOCATION, page);
        response.extensions_mut().insert(self.error);
        response
    }
}

impl From<Error> for Denied {
    fn from(error: Error) -> Self {
        Self { error, page: None }
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        self.respond::<Body>()
    }
}

impl Demand {
    async fn check<L: 'static>(&self, request: &Asked<'_>) -> Result<Session<Untyped, L>, Denied> {
        let session: Session<Untyped, L> = Session::by_primary(request.extensions).await?;
        // Of who is not known nobody can say that he is not logged in, and least of all that he is.
        session.handle.state().was_read()?;
        let settings = &session.handle.settings;
        let (kind, message, page) = match session.level() {
            None => (Kind::NotLoggedIn, "nobody is logged in", &settings.log_in_page),
            Some(level) if level < self.level => {
                (Kind::StepUp, "the login is not of the level that is asked for", &settings.step_up_page)
            }
            Some(_) if !self.is_fresh(&session) => {
                (Kind::StepUp, "the login is older than is asked for", &settings.step_up_page)
            }
            Some(_) => return Ok(session),
        };
        let back = ReturnTo::of(session.handle.asked_for_uri().unwrap_or(request.uri));
        let page = page.as_ref().filter(|_| request.is_for_a_page()).map(|page| back.appended_to(page));
        Err(Denied { error: Error::new(kind, message), page: page.and_then(|page| HeaderValue::try_from(page).ok()) })
    }

    fn is_fresh<L>(&self, session: &Session<Untyped, L>) -> bool {
        let Some(within) = self.within else { return true };
        let Some(now) = session.handle.settings.store.now() else { return false };
        let now: SystemTime = UNIX_EPOCH + Duration::from_millis(now.as_millis());
        session.logged_in_at().is_some_and(|at| now.duration_since(at).unwrap_or_default() <= within)
    }
}

/// What is looked at of a request.
struct Asked<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
}

impl<'a> Asked<'a> {
    fn of(parts: &'a Parts) -> Self {
        Self { method: &parts.method, uri: &parts.uri, headers: &parts.headers, extensions: &parts.extensions }
    }

    /// Whether a person looks at the answer, and can be sent to another page: what a script fetches is better told.
    fn is_for_a_page(&self) -> bool {
        let header = |name: &str| self.headers.get(name).map(HeaderValue::as_bytes);
        let navigates = match header("sec-fetch-mode") {
            Some(mode) => mode == b"navigate",
            None => self.headers.get_all(ACCEPT).iter().any(|line| {
                line.as_bytes().split(|b| matches!(b, b',' | b';')).any(|part| part.trim_ascii() == b"text/html")
            }),
        };
        navigates && matches!(*self.method, Method::GET | Method::HEAD)
    }
}

fn parse<U: FromStr, L>(session: &Session<Untyped, L>, partial: bool) -> Result<U, Denied> {
    let user = match session.user()? {
        None if partial => session.pending_user()?,
        user => user,
    };
    user.ok_or_else(|| Error::not_logged_in().into())
}

impl<S, U, const LEVEL: u8, L> FromRequestParts<S> for LoggedIn<U, LEVEL, L>
where
    S: Sync,
    U: FromStr,
    L: 'static,
{
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Denied> {
        let demand = Demand { level: Level(LEVEL), within: None };
        let session = demand.check::<L>(&Asked::of(parts)).await?;
        Ok(Self { user: parse(&session, LEVEL == Level::PARTIAL.0)?, marker: PhantomData })
    }
}

impl<S, U, const MINUTES: u64, L> FromRequestParts<S> for Fresh<U, MINUTES, L>
where
    S: Sync,
    U: FromStr,
    L: 'static,
{
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Denied> {
        let within = Some(Duration::from_secs(MINUTES.saturating_mul(60)));
        let session = Demand { level: Level::FULL, within }.check::<L>(&Asked::of(parts)).await?;
        Ok(Self { user: parse(&session, false)?, marker: PhantomData })
    }
}

impl<U, const LEVEL: u8, L> Deref for LoggedIn<U, LEVEL, L> {
    type Target = U;

    fn deref(&self) -> &U {
        &self.user
    }
}

impl<U, const MINUTES: u64, L> Deref for Fresh<U, MINUTES, L> {
    type Target = U;

    fn deref(&self) -> &U {
        &self.user
    }
}

/// Without the user.
impl<U, const LEVEL: u8, L> fmt::Debug for LoggedIn<U, LEVEL, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggedIn").finish_non_exhaustive()
    }
}

/// Without the user.
impl<U, const MINUTES: u64, L> fmt::Debug for Fresh<U, MINUTES, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fresh").finish_non_exhaustive()
    }
}

/// Lets nobody through to the routes under it who is not logged in, whatever their handlers ask for. It goes inside of the
/// session layer: added to the router before it.
///
/// ```
/// use axum::{Router, routing::get};
/// use redis_session::{KeyRing, Level, MemoryStore, RedisSessionLayer, RequireLogin};
///
/// # fn main() -> Result<(), redis_session::Error> {
/// let sessions = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?).log_in_page("/login");
/// let office = Router::new()
///     .route("/office/salaries", get(|| async { "…" }))
///     .route_layer(RequireLogin::new().level(Level(2)));
/// let app: Router = Router::new().route("/", get(|| async { "welcome" })).merge(office).layer(sessions);
/// # Ok(())
/// # }
/// ```
pub struct RequireLogin<L = Main> {
    demand: Demand,
    marker: PhantomData<fn() -> L>,
}

impl RequireLogin {
    /// Of any age, and of [`Level::FULL`].
    pub fn new() -> Self {
        Self { demand: Demand { level: Level::FULL, within: None }, marker: PhantomData }
    }
}

impl<L> RequireLogin<L> {
    /// The lowest level that will do.
    pub fn level(mut self, level: Level) -> Self {
        self.demand.level = level;
        self
    }

    /// How old the login may be.
    pub fn within(mut self, age: Duration) -> Self {
        self.demand.within = Some(age);
        self
    }

    /// A login in the session of another layer than the first.
    pub fn marker<M>(self) -> RequireLogin<M> {
        RequireLogin { demand: self.demand, marker: PhantomData }
    }
}

impl Default for RequireLogin {
    fn default() -> Self {
        Self::new()
    }
}

impl<S, L> Layer<S> for RequireLogin<L> {
    type Service = LoginRequired<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        LoginRequired { inner, demand: self.demand, marker: PhantomData }
    }
}

/// What [`RequireLogin`] makes of a service.
pub struct LoginRequired<S, L = Main> {
    inner: S,
    demand: Demand,
    marker: PhantomData<fn() -> L>,
}

impl<S, L, ReqBody, ResBody> Service<Request<ReqBody>> for LoginRequired<S, L>
where
    S: Service<Request<ReqBody>, Response = http::Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    ReqBody: Send + 'static,
    ResBody: Default,
    L: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // The one that is ready goes with the request.
        let clone = self.inner.clone();
        let (mut inner, demand) = (std::mem::replace(&mut self.inner, clone), self.demand);
        let (parts, body) = request.into_parts();
        Box::pin(async move {
            match demand.check::<L>(&Asked::of(&parts)).await {
                Ok(_) => inner.call(Request::from_parts(parts, body)).await,
                Err(denied) => Ok(denied.respond()),
            }
        })
    }
}

impl<L> Clone for RequireLogin<L> {
    fn clone(&self) -> Self {
        Self { demand: self.demand, marker: PhantomData }
    }
}

impl<S: Clone, L> Clone for LoginRequired<S, L> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), demand: self.demand, marker: PhantomData }
    }
}

impl<L> fmt::Debug for RequireLogin<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireLogin").field("demand", &self.demand).finish()
    }
}

impl<S: fmt::Debug, L> fmt::Debug for LoginRequired<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginRequired").field("inner", &self.inner).field("demand", &self.demand).finish()
    }
}
