//! The frame of every page. It is sent in two parts: the drawer at its end is made when the commit is done.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use redis_session::{FlashMessage, Session};

use crate::drawer::{self, drawer};
use crate::shopper::Shopper;
use crate::watch::Watch;

/// A page of a visitor whose session was asked for.
pub(crate) fn page(shopper: &Session<Shopper>, title: &str, said: &[FlashMessage], main: &Markup) -> Response {
    let top = top(title, Some(shopper.cart.count()), said, main);
    let (session, watch) = (shopper.session(), Watch::current());
    let is_open = shopper.drawer_open;
    in_two_parts(top, move || drawer(&drawer::whole(&session, is_open, &watch), is_open, &watch))
}

/// A page that does not know who sees it.
pub(crate) fn anonymous(title: &str, main: &Markup) -> Response {
    let watch = Watch::current();
    in_two_parts(top(title, None, &[], main), move || drawer(&drawer::without_session(), false, &watch))
}

/// A body is sent when the session layer is done with the response, so what is made then knows all.
fn in_two_parts(top: Markup, end: impl FnOnce() -> Markup + Send + 'static) -> Response {
    let top = stream::iter([top]);
    let end = stream::once(async { end() });
    let parts = top.chain(end).map(|part| Ok::<_, Infallible>(part.into_string()));
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(parts)).into_response()
}

/// HTML lets `body` and the ends of `body` and `html` be left out, which a page in two parts is glad of.
fn top(title: &str, in_cart: Option<u32>, said: &[FlashMessage], main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        (PreEscaped(r#"<html lang="en">"#))
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " · Fern & Clay" }
            link rel="icon" type="image/svg+xml" href="/icon.svg";
            link rel="stylesheet" href="/shop.css";
        }
        a.skip href="#main" { "Skip to the content" }
        header.top {
            a.brand href="/" { (PreEscaped(include_str!("pictures/icon.svg"))) "Fern & Clay" }
            nav aria-label="Shop" {
                a href="/" { "Plants" }
                a href="/about" { "About" }
                a.to-cart href="/cart" {
                    "Cart"
                    @if let Some(count @ 1..) = in_cart {
                        span.count { (count) span.unseen { @if count == 1 { " item" } @else { " items" } } }
                    }
                }
            }
        }
        @for message in said { p.flash role="status" { (message.text) } }
        main #main { (main) }
        footer.bottom {
            p { "Fern & Clay is an example of the library " code { "redis-session" } ". Nothing is for sale." }
        }
    }
}
