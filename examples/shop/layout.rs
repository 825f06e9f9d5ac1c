//! The frame of every page. It is sent in two parts: the drawer at its end is made when the commit is done.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use redis_session::{CsrfToken, Error, FlashMessage, Session};

use crate::accounts::Name;
use crate::drawer::{self, drawer};
use crate::live::news_of;
use crate::people_pages::with_return;
use crate::shopper::Shopper;
use crate::watch::Watch;

/// The field without which a form of somebody who has a session is refused.
pub(crate) fn csrf(token: &CsrfToken) -> Markup {
    html! { input type="hidden" name="csrf_token" value=(token); }
}

/// What stands around the content of a page.
#[derive(Default)]
struct Frame<'a> {
    title: &'a str,
    /// `None`: nobody has looked.
    in_cart: Option<u32>,
    /// Who is logged in. `None`: nobody, or nobody has looked.
    user: Option<Name>,
    /// Where the page hears of the end of its session. `None`: nobody is logged in.
    news: Option<String>,
    said: &'a [FlashMessage],
}

/// A page of a visitor whose session was asked for.
pub(crate) fn page(
    shopper: &Session<Shopper>,
    title: &str,
    said: &[FlashMessage],
    main: &Markup,
) -> Result<Response, Error> {
    let (session, watch) = (shopper.session(), Watch::current());
    let user = session.user::<Name>()?;
    let news = session.handle().filter(|_| user.is_some()).map(news_of);
    let top = top(&Frame { title, in_cart: Some(shopper.cart.count()), user, news, said }, main);
    let is_open = shopper.drawer_open;
    Ok(in_two_parts(top, move || drawer(&drawer::whole(&session, is_open, &watch), is_open, &watch)))
}

/// A page that does not know who sees it.
pub(crate) fn anonymous(title: &str, main: &Markup) -> Response {
    let watch = Watch::current();
    let top = top(&Frame { title, ..Frame::default() }, main);
    in_two_parts(top, move || drawer(&drawer::without_session(), false, &watch))
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
fn top(frame: &Frame<'_>, main: &Markup) -> Markup {
    let Frame { title, in_cart, user, news, said } = frame;
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
            @if news.is_some() { script src="/live.js" defer {} }
        }
        a.skip href="#main" { "Skip to the content" }
        header.top {
            a.brand href="/" { (PreEscaped(include_str!("pictures/icon.svg"))) "Fern & Clay" }
            nav aria-label="Shop" {
                a href="/" { "Plants" }
                a href="/about" { "About" }
                @match (user, in_cart) {
                    (Some(name), _) => a.who href="/account" { span.unseen { "Your account: " } span.name { (name) } },
                    (None, Some(_)) => a href="/login" { "Log in" },
                    (None, None) => a href="/account" { "Account" },
                }
                a.to-cart href="/cart" {
                    "Cart"
                    @if let Some(count @ 1..) = in_cart {
                        span.count { (count) span.unseen { @if *count == 1 { " item" } @else { " items" } } }
                    }
                }
            }
        }
        @for message in *said { p class={ "flash " (message.level) } role="status" { (message.text) } }
        main #main { (main) }
        footer.bottom {
            p { "Fern & Clay is an example of the library " code { "redis-session" } ". Nothing is for sale." }
        }
        @if let Some(news) = news { (logged_out(news)) }
    }
}

/// Not seen before the page hears that its session has ended; then `live.js` fills it in and opens it.
fn logged_out(news: &str) -> Markup {
    let request = Watch::current().now().request;
    let page = request.strip_prefix("GET ").unwrap_or("/");
    html! {
        dialog #over data-news=(news) aria-labelledby="over-title" {
            h2 #over-title { "You are logged out" }
            p { "What you see here is not up to date any more." }
            (with_return("/login", page, html! { button.button { "Log in again" } }))
            a href="/" { "Go on without" }
        }
    }
}
