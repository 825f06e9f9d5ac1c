//! The error that handlers see: the core's, with an answer for the client that tells nothing.

use std::fmt;
use std::ops::Deref;

use axum_core::body::Body;
use axum_core::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use redis_session_core::Kind;

/// What went wrong with a session, and what to do about it: ask the predicates of the core's error, which this one
/// derefs to.
///
/// As a response it has an empty body and says nothing of its cause; the error itself is in the response's extensions,
/// so that a layer of the application can render its own page:
///
/// ```
/// use axum::response::{Html, IntoResponse, Response};
///
/// async fn own_pages(response: Response) -> Response {
///     match response.extensions().get::<redis_session::Error>() {
///         Some(error) if error.is_unavailable() => {
///             (response.status(), Html("<h1>Back in a moment</h1>")).into_response()
///         }
///         _ => response,
///     }
/// }
///
/// let app: axum::Router = axum::Router::new().layer(axum::middleware::map_response(own_pages));
/// ```
///
/// | error | status |
/// | --- | --- |
/// | `is_unavailable`, `is_outcome_unknown`, `is_not_replicated`, `is_contended` | 503, with `Retry-After: 1` |
/// | `is_gone`, `is_login_refused` | 409 |
/// | `is_not_logged_in` | 401 |
/// | `is_step_up`, `is_csrf` | 403 |
/// | `is_unknown_tenant` | 404 |
/// | `is_too_large` | 413 |
/// | all others | 500 |
#[derive(Clone)]
pub struct Error(redis_session_core::Error);

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self(redis_session_core::Error::new(kind, message))
    }

    pub(crate) fn gone() -> Self {
        Self::new(Kind::Gone, "the session ended, or its id was replaced; nothing was saved")
    }

    pub(crate) fn not_logged_in() -> Self {
        Self::new(Kind::NotLoggedIn, "nobody is logged in")
    }

    pub(crate) fn committed() -> Self {
        Self::new(Kind::Committed, "the response has left already, so nothing more can be saved with it")
    }

    /// Whether a session could not be read that may be there: by a store that is away, or since its record is damaged.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.is_unavailable() || self.is_corrupt()
    }

    /// The status that this error is as a response.
    pub fn status(&self) -> StatusCode {
        match self.kind() {
            Kind::Unavailable | Kind::OutcomeUnknown | Kind::NotReplicated | Kind::Contended => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Kind::Gone | Kind::LoginRefused => StatusCode::CONFLICT,
            Kind::NotLoggedIn => StatusCode::UNAUTHORIZED,
            Kind::StepUp | Kind::Csrf => StatusCode::FORBIDDEN,
            Kind::UnknownTenant => StatusCode::NOT_FOUND,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A response with an empty body, and this error in its extensions.
    pub(crate) fn respond<B: Default>(self) -> http::Response<B> {
        let mut response = http::Response::new(B::default());
        *response.status_mut() = self.status();
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl Deref for Error {
    type Target = redis_session_core::Error;

    fn deref(&self) -> &redis_session_core::Error {
        &self.0
    }
}

impl From<redis_session_core::Error> for Error {
    fn from(error: redis_session_core::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.respond::<Body>()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.0)
    }
}
