//! What the shop does at each address. Forms change the session and redirect; pages show it.

use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use maud::Markup;
use redis_session::{Error, Flash, Session};

use crate::catalogue::find;
use crate::forms::{Change, Delivery, Drawer, Step, Wanted};
use crate::layout::{anonymous, page};
use crate::pages;
use crate::shopper::{EmptyCart, Shopper};

pub(crate) fn all() -> Router {
    Router::new()
        .route("/", get(catalogue))
        .route("/plants/{slug}", get(product))
        .route("/about", get(about))
        .route("/cart", get(cart).post(add))
        .route("/cart/{slug}", post(change))
        .route("/checkout", get(checkout).post(order))
        .route("/orders/{number}", get(show_order))
        .route("/drawer", post(drawer))
        .route("/session/end", post(end))
        .route("/shop.css", get(style))
        .route("/icon.svg", get(icon))
        .fallback(not_found)
}

/// Why a request does not get what it asked for.
enum Problem {
    NotFound,
    EmptyCart,
    Session(Error),
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

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, anonymous("Not found", &pages::not_found())).into_response(),
            // That page says so.
            Self::EmptyCart => Redirect::to("/cart").into_response(),
            Self::Session(error) => error.into_response(),
        }
    }
}

type Answer<T = Response> = Result<T, Problem>;

async fn catalogue(shopper: Session<Shopper>) -> Answer {
    show(&shopper, "House plants in good pots", &pages::catalogue())
}

async fn product(shopper: Session<Shopper>, Path(slug): Path<String>) -> Answer {
    let product = find(&slug).ok_or(Problem::NotFound)?;
    show(&shopper, product.name, &pages::product(product))
}

/// Does not ask for the session, and so costs the store nothing.
async fn about() -> Response {
    anonymous("About", &pages::about())
}

async fn cart(shopper: Session<Shopper>) -> Answer {
    show(&shopper, "Your cart", &pages::cart(&shopper.cart))
}

/// Two windows may do this at once: the closure is run again on what the other one saved.
async fn add(mut shopper: Session<Shopper>, Form(wanted): Form<Wanted>) -> Answer<Redirect> {
    let product = wanted.product().ok_or(Problem::NotFound)?;
    shopper.update_with(wanted, |shopper, wanted| shopper.cart.add(&wanted.slug, wanted.quantity))?;
    say(&shopper, &format!("{} is in your cart.", product.name))?;
    Ok(Redirect::to("/cart"))
}

async fn change(
    mut shopper: Session<Shopper>,
    Path(slug): Path<String>,
    Form(Change { step }): Form<Change>,
) -> Answer<Redirect> {
    let product = find(&slug).ok_or(Problem::NotFound)?;
    shopper.update_with(product.slug, move |shopper, slug| match step {
        Step::More => shopper.cart.add(slug, 1),
        Step::Fewer => shopper.cart.take_one_out(slug),
        Step::Remove => shopper.cart.remove(slug),
    })?;
    if matches!(step, Step::Remove) {
        say(&shopper, &format!("{} is out of your cart.", product.name))?;
    }
    Ok(Redirect::to("/cart"))
}

async fn checkout(shopper: Session<Shopper>) -> Answer {
    if shopper.cart.count() == 0 {
        return Err(Problem::EmptyCart);
    }
    show(&shopper, "Checkout", &pages::checkout(&shopper.cart, &Delivery::new(), &[]))
}

/// A transaction, and no update: before the visitor reads "thank you", it must be certain.
async fn order(mut shopper: Session<Shopper>, Form(delivery): Form<Delivery>) -> Answer {
    let problems = delivery.problems();
    if !problems.is_empty() {
        let form = pages::checkout(&shopper.cart, &delivery, &problems);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, show(&shopper, "Checkout", &form)?).into_response());
    }
    let order = format!("/orders/{}", delivery.number);
    let check_out = move |shopper: &mut Shopper| -> Answer<()> {
        let Delivery { number, name, address, .. } = &delivery;
        Ok(shopper.check_out(number, name.trim(), address.trim())?)
    };
    shopper.transaction(check_out).await?;
    Ok(Redirect::to(&order).into_response())
}

async fn show_order(shopper: Session<Shopper>, Path(number): Path<String>) -> Answer {
    let order = shopper.order(&number).ok_or(Problem::NotFound)?;
    show(&shopper, "Thank you", &pages::order(order))
}

async fn drawer(mut shopper: Session<Shopper>, Form(drawer): Form<Drawer>) -> Answer<Redirect> {
    shopper.update_with(drawer.open, |shopper, open| shopper.drawer_open = open)?;
    Ok(Redirect::to(drawer.page()))
}

async fn end(session: Session) -> Answer<Redirect> {
    session.destroy().await?;
    Ok(Redirect::to("/"))
}

/// Leaves a line for the next page, whichever that is.
fn say(shopper: &Session<Shopper>, line: &str) -> Result<(), Error> {
    Flash::of(&shopper.session()).success(line)
}

fn show(shopper: &Session<Shopper>, title: &str, main: &Markup) -> Answer {
    let said = Flash::of(&shopper.session()).take()?;
    Ok(page(shopper, title, &said, main))
}

async fn not_found() -> Problem {
    Problem::NotFound
}

async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css"), (header::CACHE_CONTROL, "max-age=60")], include_str!("shop.css"))
}

async fn icon() -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, "max-age=3600")];
    (headers, include_str!("pictures/icon.svg"))
}

/// Errors of the session, also those of the commit, get the shop's own page; status and headers stay.
pub(crate) async fn explain_errors(mut response: Response) -> Response {
    if let Some(error) = response.extensions().get::<Error>() {
        let shown = anonymous("Just a moment", &pages::problem(error.is_unavailable()));
        let (parts, body) = shown.into_parts();
        response.headers_mut().extend(parts.headers);
        *response.body_mut() = body;
    }
    response
}

/// No page of this shop has a script, or anything from elsewhere.
pub(crate) async fn harden(mut response: Response) -> Response {
    const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
                          frame-ancestors 'none'";
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}
