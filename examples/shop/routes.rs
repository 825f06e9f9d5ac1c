//! What the shop does at each address. Forms change the session and redirect; pages show it.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use redis_session::{CsrfToken, Flash, Fresh, RedisStore, Session};
use tokio::sync::watch;

use crate::accounts::{Accounts, Name};
use crate::answer::{Answer, Problem, show, show_again};
use crate::catalogue::find;
use crate::forms::{Change, Delivery, Drawer, Step, Wanted};
use crate::layout::anonymous;
use crate::shopper::Shopper;
use crate::{devices, live, pages, people};

/// What handlers need beside the session.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) accounts: Accounts,
    /// Its sender is gone when the process is to end.
    pub(crate) closing: watch::Receiver<()>,
}

pub(crate) fn all(shop: Shop) -> Router {
    Router::new()
        .route("/", get(catalogue))
        .route("/plants/{slug}", get(product))
        .route("/about", get(about))
        .route("/cart", get(cart).post(add))
        .route("/cart/{slug}", post(change))
        .route("/checkout", get(checkout).post(order))
        .route("/orders/{number}", get(show_order))
        .route("/signup", get(people::sign_up_page).post(people::sign_up))
        .route("/login", get(people::log_in_page).post(people::log_in))
        .route("/logout", post(people::log_out))
        .route("/confirm", get(people::confirm_page).post(people::confirm))
        .route("/account", get(devices::account))
        .route("/account/password", post(devices::change_password))
        .route("/account/devices/end", post(devices::end))
        .route("/account/devices/end-others", post(devices::end_others))
        .route("/live/{session}", get(live::news))
        .route("/drawer", post(drawer))
        .route("/session/end", post(end))
        .route("/shop.css", get(style))
        .route("/live.js", get(script))
        .route("/icon.svg", get(icon))
        .fallback(not_found)
        .with_state(shop)
}

/// Who balances the load asks this one. Not whether the process is to be started again: that does not bring Redis back.
pub(crate) async fn readiness(redis: Option<&RedisStore>) -> StatusCode {
    match redis {
        Some(redis) if redis.ping().await.is_err() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::NO_CONTENT,
    }
}

async fn catalogue(shopper: Session<Shopper>, token: CsrfToken) -> Answer {
    show(&shopper, "House plants in good pots", &pages::catalogue(&token))
}

async fn product(shopper: Session<Shopper>, token: CsrfToken, Path(slug): Path<String>) -> Answer {
    let product = find(&slug).ok_or(Problem::NotFound)?;
    show(&shopper, product.name, &pages::product(product, &token))
}

/// Does not ask for the session, and so costs the store nothing.
async fn about() -> Response {
    anonymous("About", &pages::about())
}

async fn cart(shopper: Session<Shopper>, token: CsrfToken) -> Answer {
    show(&shopper, "Your cart", &pages::cart(&shopper.cart, &token))
}

/// Two windows may do this at once: the closure is run again on what the other one saved.
async fn add(mut shopper: Session<Shopper>, flash: Flash, Form(wanted): Form<Wanted>) -> Answer<Redirect> {
    let product = wanted.product().ok_or(Problem::NotFound)?;
    shopper.update_with(wanted, |shopper, wanted| shopper.cart.add(&wanted.slug, wanted.quantity))?;
    flash.success(format!("{} is in your cart.", product.name))?;
    Ok(Redirect::to("/cart"))
}

async fn change(
    mut shopper: Session<Shopper>,
    flash: Flash,
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
        flash.success(format!("{} is out of your cart.", product.name))?;
    }
    Ok(Redirect::to("/cart"))
}

/// Who is not logged in is sent to the log-in page and comes back; who has not typed the password lately, to another.
async fn checkout(_: Fresh<Name, 10>, shopper: Session<Shopper>, token: CsrfToken) -> Answer {
    if shopper.cart.count() == 0 {
        return Err(Problem::EmptyCart);
    }
    show(&shopper, "Checkout", &pages::checkout(&shopper.cart, &Delivery::new(), &[], &token))
}

/// A transaction, and no update: before the visitor reads "thank you", it must be certain. The form may have taken its
/// time: whoever sees it has an hour to fill it in.
async fn order(
    _: Fresh<Name, 70>,
    mut shopper: Session<Shopper>,
    token: CsrfToken,
    Form(delivery): Form<Delivery>,
) -> Answer {
    let problems = delivery.problems();
    if !problems.is_empty() {
        return show_again(&shopper, "Checkout", &pages::checkout(&shopper.cart, &delivery, &problems, &token));
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

async fn not_found() -> Problem {
    Problem::NotFound
}

async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css"), (header::CACHE_CONTROL, "max-age=60")], include_str!("shop.css"))
}

async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript"), (header::CACHE_CONTROL, "max-age=60")], include_str!("live.js"))
}

async fn icon() -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, "max-age=3600")];
    (headers, include_str!("pictures/icon.svg"))
}
