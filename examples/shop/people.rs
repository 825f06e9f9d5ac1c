//! Who is who: new accounts, logging in and out, and the password once more before what a stolen session should not do.

use std::time::Duration;

use axum::Form;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use redis_session::{ClearSiteData, CsrfToken, Error, Flash, LoggedIn, ReturnTo, Session};

use crate::accounts::Name;
use crate::answer::{Answer, show, show_again};
use crate::devices::label;
use crate::forms::{Confirmation, Credentials};
use crate::people_pages as pages;
use crate::routes::Shop;
use crate::shopper::Shopper;

/// How long "remember me" lasts.
const A_MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

pub(crate) async fn sign_up_page(shopper: Session<Shopper>, token: CsrfToken, return_to: ReturnTo) -> Answer {
    if shopper.session().user::<Name>()?.is_some() {
        return Ok(back(&return_to));
    }
    let empty = Credentials { return_to, ..Credentials::default() };
    show(&shopper, "New account", &pages::sign_up(&empty, &[], &token))
}

pub(crate) async fn sign_up(
    State(shop): State<Shop>,
    shopper: Session<Shopper>,
    token: CsrfToken,
    headers: HeaderMap,
    Form(form): Form<Credentials>,
) -> Answer {
    let problems = match form.for_new_account() {
        Err(problems) => problems,
        Ok(name) if shop.accounts.sign_up(&name, &form.password).await? => {
            enter(&shopper.session(), &name, &form, &headers).await?;
            Flash::of(&shopper.session()).success(format!("Welcome, {name}. This is your account."))?;
            return Ok(back(&form.return_to));
        }
        Ok(_) => vec!["taken"],
    };
    show_again(&shopper, "New account", &pages::sign_up(&form, &problems, &token))
}

pub(crate) async fn log_in_page(shopper: Session<Shopper>, token: CsrfToken, return_to: ReturnTo) -> Answer {
    let session = shopper.session();
    if session.user::<Name>()?.is_some() {
        return Ok(back(&return_to));
    }
    let empty = Credentials { return_to, ..Credentials::default() };
    show(&shopper, "Log in", &pages::log_in(&empty, false, session.status(), &token))
}

pub(crate) async fn log_in(
    State(shop): State<Shop>,
    shopper: Session<Shopper>,
    token: CsrfToken,
    headers: HeaderMap,
    Form(form): Form<Credentials>,
) -> Answer {
    let session = shopper.session();
    let Some(name) = shop.accounts.check(&form.name, &form.password).await? else {
        return show_again(&shopper, "Log in", &pages::log_in(&form, true, session.status(), &token));
    };
    enter(&session, &name, &form, &headers).await?;
    Flash::of(&session).success(format!("Welcome back, {name}."))?;
    Ok(back(&form.return_to))
}

/// The one place where somebody gets in. What an anonymous visitor has in the cart stays there.
async fn enter(session: &Session, name: &Name, form: &Credentials, headers: &HeaderMap) -> Result<(), Error> {
    session.log_in(name).label(label(headers)).await?;
    if form.remember {
        session.remember(A_MONTH).await?;
    }
    Ok(())
}

/// Over HTTPS, the browser also forgets the pages that its back button would show.
pub(crate) async fn log_out(session: Session) -> Answer {
    session.log_out().await?;
    Flash::of(&session).info("You are logged out. See you soon.")?;
    Ok((ClearSiteData::AllButCookies, Redirect::to("/")).into_response())
}

/// The step-up page: whoever is logged in, but has not typed the password lately, is sent here.
pub(crate) async fn confirm_page(
    LoggedIn { user, .. }: LoggedIn<Name>,
    shopper: Session<Shopper>,
    token: CsrfToken,
    return_to: ReturnTo,
) -> Answer {
    show(&shopper, "Is it still you?", &pages::confirm(&user, &return_to, false, &token))
}

pub(crate) async fn confirm(
    LoggedIn { user, .. }: LoggedIn<Name>,
    State(shop): State<Shop>,
    shopper: Session<Shopper>,
    token: CsrfToken,
    headers: HeaderMap,
    Form(form): Form<Confirmation>,
) -> Answer {
    if shop.accounts.check(&user.to_string(), &form.password).await?.is_none() {
        return show_again(&shopper, "Is it still you?", &pages::confirm(&user, &form.return_to, true, &token));
    }
    shopper.session().log_in(&user).label(label(&headers)).await?;
    Ok(back(&form.return_to))
}

fn back(return_to: &ReturnTo) -> Response {
    Redirect::to(return_to.as_str()).into_response()
}
