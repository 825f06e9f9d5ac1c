//! Lets no other site use a visitor's session: the layer that checks where unsafe requests come from, and their token.

mod form;
mod service;
mod source;
mod token;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use http::HeaderName;
use redis_session_core::Kind;
use tower_layer::Layer;

use crate::error::Error;
use crate::events::{CsrfRefusal, Event};
use crate::handle::Handle;
use crate::layer::Main;

pub use self::service::{Csrf, CsrfFuture};
pub use self::token::CsrfToken;

/// Refuses requests that another site has made the visitor's browser send (cross-site request forgery).
///
/// Put it inside the session's layer, around all routes that change something. GET, HEAD, OPTIONS and TRACE pass, and do
/// not even load the session; so they must not change anything. All other requests have to
///
/// 1. come from the application's own pages, as far as the browser tells: `Sec-Fetch-Site`, or else `Origin`;
/// 2. where the visitor has a living session, bring the [token](CsrfToken) of his own page: in the header `X-CSRF-Token`, or
///    in the field `csrf_token` of a form.
///
/// ```
/// use axum::{Form, Router, response::Html, routing::get};
/// use redis_session::{CsrfLayer, CsrfToken, Error, KeyRing, MemoryStore, RedisSessionLayer, Session};
///
/// async fn page(token: CsrfToken) -> Html<String> {
///     Html(format!(r#"<form method="post"><input type="hidden" name="csrf_token" value="{token}"><button>Buy</button></form>"#))
/// }
///
/// async fn buy(session: Session) -> Result<&'static str, Error> {
///     session.increment("bought", 1)?;
///     Ok("thank you")
/// }
///
/// # fn main() -> Result<(), Error> {
/// let sessions = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?);
/// let app: Router = Router::new().route("/", get(page).post(buy)).layer(CsrfLayer::new()).layer(sessions);
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let visitor = redis_session_testkit::Browser::new(app);
/// # assert_eq!(visitor.post_form("/", &[]).await.status, 200); // no session yet
/// # let page = visitor.get("/").await.body;
/// # let token = page.split('"').nth(7).unwrap();
/// assert_eq!(visitor.post_form("/", &[]).await.status, 403);
/// assert_eq!(visitor.post_form("/", &[("csrf_token", token)]).await.status, 200);
/// # });
/// # Ok(())
/// # }
/// ```
///
/// A refused request gets 403 (a form that is too large 413) with an empty body and the [`Error`] in the response's
/// extensions, so that the application can render its own page: `is_csrf`. No handler is run.
///
/// # Forms
///
/// The field is looked for in bodies of the type `application/x-www-form-urlencoded` only, and only where the header is
/// absent; the handler gets the body as it came. For `multipart/form-data` send the header, or leave the layer out and
/// [`verify`](CsrfToken::verify) in the handler.
///
/// # Security
///
/// Without a session there is nothing that another site could use but the login itself (logging a visitor in as somebody
/// else), and the first check stops that in every browser since 2020. What sends neither `Sec-Fetch-Site` nor `Origin` is
/// no such browser; it passes the first check, as in Go's `http.CrossOriginProtection`, and still needs the token.
///
/// A layer for the sessions of a second [`RedisSessionLayer`](crate::RedisSessionLayer) takes its marker:
/// `CsrfLayer::new().marker::<Office>()`.
pub struct CsrfLayer<L = Main> {
    settings: Arc<Settings>,
    marker: PhantomData<fn() -> L>,
}

#[derive(Clone, Debug)]
struct Settings {
    origins: Vec<String>,
    header: HeaderName,
    field: String,
    form_limit: usize,
}

impl CsrfLayer {
    /// The header `X-CSRF-Token`, the field `csrf_token`, forms of up to 2 MiB.
    pub fn new() -> Self {
        let settings = Settings {
            origins: Vec::new(),
            header: HeaderName::from_static("x-csrf-token"),
            field: "csrf_token".into(),
            form_limit: 2 * 1024 * 1024,
        };
        Self { settings: Arc::new(settings), marker: PhantomData }
    }
}

impl<L> CsrfLayer<L> {
    /// One more origin that requests may come from: the application's own, where a proxy changes the `Host` header, or that
    /// of a sister page on the same site (`https://www.shop.example` for `https://app.shop.example`). Default: the one
    /// that the request itself is addressed to.
    ///
    /// # Errors
    /// `is_config`: not of the form `https://host` or `https://host:port`, as browsers write it.
    pub fn origin(self, origin: &str) -> Result<Self, Error> {
        if !source::is_origin(origin) {
            let message =
                format!("{origin:?} is not an origin such as \"https://shop.example\": small letters, no path");
            return Err(Error::new(Kind::Config, message));
        }
        Ok(self.with(|settings| settings.origins.push(origin.to_owned())))
    }

    /// The header that brings the token. Default: `X-CSRF-Token`.
    pub fn header(self, name: HeaderName) -> Self {
        self.with(|settings| settings.header = name)
    }

    /// The field of a form that brings the token. Default: `csrf_token`.
    pub fn field(self, name: impl Into<String>) -> Self {
        self.with(|settings| settings.field = name.into())
    }

    /// The largest form that is read to look for its token. Default: 2 MiB, the most that axum's `Form` takes.
    pub fn form_limit(self, bytes: usize) -> Self {
        self.with(|settings| settings.form_limit = bytes)
    }

    /// For the sessions of the layer with this marker.
    pub fn marker<M>(self) -> CsrfLayer<M> {
        CsrfLayer { settings: self.settings, marker: PhantomData }
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl Default for CsrfLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S, L> Layer<S> for CsrfLayer<L> {
    type Service = Csrf<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Csrf::new(inner, self.settings.clone())
    }
}

impl<L> Clone for CsrfLayer<L> {
    fn clone(&self) -> Self {
        Self { settings: self.settings.clone(), marker: PhantomData }
    }
}

impl<L> fmt::Debug for CsrfLayer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CsrfLayer").field(&self.settings).finish()
    }
}

/// Tells of a refusal, and makes it an error. Nothing of the request is in its text.
fn refuse(handle: &Handle, refusal: CsrfRefusal) -> Error {
    handle.tell(Event::RequestRefused(refusal));
    match refusal {
        CsrfRefusal::CrossSite | CsrfRefusal::ForeignOrigin => {
            Error::new(Kind::Csrf, "the request comes from another site")
        }
        CsrfRefusal::NoToken => Error::new(Kind::Csrf, "the request brings no token of a page of the visitor's"),
        CsrfRefusal::WrongToken => {
            Error::new(Kind::Csrf, "the token is not of this session, or of the time before the login")
        }
        CsrfRefusal::FormTooLarge => Error::new(Kind::TooLarge, "the form is too large to look for its token"),
    }
}
