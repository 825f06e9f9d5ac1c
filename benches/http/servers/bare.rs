//! Axum alone: what a request costs that has nothing to do with sessions.

use axum::Router;
use axum::http::header::SET_COOKIE;
use axum::response::{AppendHeaders, IntoResponse};
use axum::routing::{get, post};

use super::untouched;

pub(crate) fn router() -> Router {
    Router::new().route("/begin", post(begin)).route("/untouched", get(untouched))
}

/// A cookie that nobody looks at, so that all contenders are asked with one.
async fn begin() -> impl IntoResponse {
    AppendHeaders([(SET_COOKIE, "id=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA; Path=/; HttpOnly")])
}
