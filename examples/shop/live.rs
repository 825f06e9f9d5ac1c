//! Tells open pages when their session ends, in whatever window, on whatever device and instance that is done.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, StreamExt};
use redis_session::{Reason, Session, SessionHandle, Status};

use crate::routes::Shop;

/// Sent when there is nothing to tell: oftener than what is in between gives up (`deploy/nginx.conf`: 10 seconds).
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Where the news of this session are. Its handle is worth nothing as a cookie.
pub(crate) fn news_of(session: SessionHandle) -> String {
    format!("/live/{session}")
}

/// A stream of one event: the end of the session that the page has shown.
pub(crate) async fn news(State(shop): State<Shop>, session: Session, Path(shown): Path<String>) -> impl IntoResponse {
    let over = async move {
        // Another one may have taken its place, in this very browser, while the window was not looked at.
        let is_shown = session.handle().is_some_and(|handle| handle.to_string() == shown);
        let status = if is_shown && session.level().is_some() { session.ended().await } else { session.status() };
        Event::default().event("over").data(what_happened(status))
    };
    // An open stream would keep the process from ending; the browser asks again, and another instance answers.
    let mut closing = shop.closing;
    let closed = async move { while closing.changed().await.is_ok() {} };
    let events = stream::once(over).take_until(Box::pin(closed)).map(Ok::<_, Infallible>);
    // nginx would collect them.
    let at_once = [("x-accel-buffering", "no")];
    (at_once, Sse::new(events).keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE)))
}

/// For whoever was logged in, and is not any more.
pub(crate) fn what_happened(status: Status) -> &'static str {
    match status {
        Status::Ended(Reason::Revoked | Reason::Refused) => "You were logged out on another device",
        Status::Ended(Reason::LoggedOut | Reason::Destroyed) => "You have logged out in another window",
        Status::Ended(Reason::OtherUser) | Status::Replaced => "Somebody else has logged in in this browser",
        Status::Ended(Reason::Cap) => "You are logged in on too many devices",
        Status::Ended(_) => "You were away for so long that we have logged you out",
        _ => "You are logged out",
    }
}
