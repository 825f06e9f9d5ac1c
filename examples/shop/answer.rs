//! What every handler answers with: a page of the shop, a redirect, or a problem that has a page of its own.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::Markup;
use redis_session::{Error, Flash, Session};

use crate::accounts;
use crate::layout::{anonymous, page};
use crate::pages;
use crate::shopper::{EmptyCart, Shopper};

pub(crate) type Answer<T = Response> = Result<T, Problem>;

/// Why a request does not get what it asked for.
pub(crate) enum Problem {
    NotFound,
    EmptyCart,
    Session(Error),
    Accounts(accounts::Failed),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

impl From<EmptyCart> for Problem {
    fn from(EmptyCart: EmptyCart) -> Self {
        Self::EmptyCart
    }
}

impl From<accounts::Failed> for Problem {
    fn from(failed: accounts::Failed) -> Self {
        Self::Accounts(failed)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, anonymous("Not found", &pages::not_found())).into_response(),
            // That page says so.
            Self::EmptyCart => Redirect::to("/cart").into_response(),
            Self::Session(error) => error.into_response(),
            Self::Accounts(failed) => {
                tracing::warn!(error = &failed as &dyn std::error::Error);
                let shown = anonymous("Just a moment", &pages::unavailable());
                (StatusCode::SERVICE_UNAVAILABLE, shown).into_response()
            }
        }
    }
}

/// A page, with what forms have left for it.
pub(crate) fn show(shopper: &Session<Shopper>, title: &str, main: &Markup) -> Answer {
    let said = Flash::of(&shopper.session()).take()?;
    Ok(page(shopper, title, &said, main)?)
}

/// The page of a form that could not be used, once more.
pub(crate) fn show_again(shopper: &Session<Shopper>, title: &str, main: &Markup) -> Answer {
    Ok((StatusCode::UNPROCESSABLE_ENTITY, show(shopper, title, main)?).into_response())
}

/// Errors of the session, also those of the commit and of its guards, get the shop's own page; status and headers stay.
pub(crate) async fn explain_errors(mut response: Response) -> Response {
    // Who is sent to the log-in page sees that one.
    if response.status().is_redirection() {
        return response;
    }
    if let Some(error) = response.extensions().get::<Error>() {
        let shown = anonymous("Just a moment", &pages::problem(error));
        let (parts, body) = shown.into_parts();
        response.headers_mut().extend(parts.headers);
        *response.body_mut() = body;
    }
    response
}

/// The shop's pages have one script, which is its own, and nothing from elsewhere.
pub(crate) async fn harden(mut response: Response) -> Response {
    const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; \
                          form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}
