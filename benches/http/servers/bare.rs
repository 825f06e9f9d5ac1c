//! Axum alone: what a request costs that has nothing to do with sessions.

use axum::Router;
use axum::http::header::SET_COOKIE;
use axum::response::{AppendHeaders, IntoResponse};
use axum::routing::{get, post};
use tower::layer::util::Identity;

use super::untouched;

pub(crate) fn router() -> Router {
    Router::new().route("/begin", post(begin)).route("/untouched", get(untouched))
}

/// With a layer that does nothing: what Axum itself takes for any layer around a route.
pub(crate) fn layered() -> Router {
    router().layer(Identity::new())
}

/// A cookie that nobody looks at, so that all contenders are asked with one.
async fn begin() -> impl IntoResponse {
    AppendHeaders([(SET_COOKIE, "id=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA; Path=/; HttpOnly")])
}
