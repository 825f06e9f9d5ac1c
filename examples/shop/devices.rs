//! The account: where its user is logged in, how to end that, and a new password, which ends it everywhere else.

use axum::Form;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect};
use maud::Markup;
use redis_session::{CsrfToken, Flash, LoggedIn, Session, SessionHandle, Sessions};

use crate::accounts::Name;
use crate::answer::{Answer, show, show_again};
use crate::forms::{EndDevice, NewPassword};
use crate::people_pages as pages;
use crate::routes::Shop;
use crate::shopper::Shopper;

pub(crate) async fn account(
    LoggedIn { user, .. }: LoggedIn<Name>,
    shopper: Session<Shopper>,
    sessions: Sessions,
    token: CsrfToken,
) -> Answer {
    let main = page(&user, &shopper.session(), &sessions, None, &token).await?;
    show(&shopper, "Your account", &main)
}

/// This device first, then those that were seen last.
async fn page(
    user: &Name,
    session: &Session,
    sessions: &Sessions,
    problem: Option<&str>,
    token: &CsrfToken,
) -> Answer<Markup> {
    let this = session.handle();
    let mut devices = sessions.list(user).await?;
    devices.sort_by_key(|device| Some(device.handle()) != this);
    Ok(pages::account(user, &devices, this, problem, token))
}

/// Of another user, ended already, or nonsense: all the same, there is no such device.
pub(crate) async fn end(
    LoggedIn { user, .. }: LoggedIn<Name>,
    sessions: Sessions,
    flash: Flash,
    Form(form): Form<EndDevice>,
) -> Answer<Redirect> {
    let ended = match form.handle.parse::<SessionHandle>() {
        Ok(session) => sessions.revoke(user, session).await?,
        Err(_) => false,
    };
    match ended {
        true => flash.success("That device is logged out.")?,
        false => flash.info("That device was logged out already.")?,
    }
    Ok(Redirect::to("/account"))
}

pub(crate) async fn end_others(
    _: LoggedIn<Name>,
    session: Session,
    sessions: Sessions,
    flash: Flash,
) -> Answer<Redirect> {
    let ended = sessions.revoke_others(&session).await?;
    flash.success(format!("{} logged out.", others(ended)))?;
    Ok(Redirect::to("/account"))
}

/// Store it, log in, end the others: in another order, whoever knows the old one might get in between.
pub(crate) async fn change_password(
    LoggedIn { user, .. }: LoggedIn<Name>,
    State(shop): State<Shop>,
    shopper: Session<Shopper>,
    sessions: Sessions,
    token: CsrfToken,
    headers: HeaderMap,
    Form(form): Form<NewPassword>,
) -> Answer {
    let session = shopper.session();
    let problem = if !form.new.will_do() {
        "new"
    } else if form.new == form.present {
        "same"
    } else if !shop.accounts.change(&user, &form.present, &form.new).await? {
        "present"
    } else {
        session.log_in(&user).label(label(&headers)).await?;
        let ended = sessions.revoke_others(&session).await?;
        Flash::of(&session).success(format!("Your password is changed; {} logged out.", others(ended)))?;
        return Ok(Redirect::to("/account").into_response());
    };
    let main = page(&user, &session, &sessions, Some(problem), &token).await?;
    show_again(&shopper, "Your account", &main)
}

fn others(count: usize) -> String {
    match count {
        0 => "no other device was".to_owned(),
        1 => "one other device is".to_owned(),
        more => format!("{more} other devices are"),
    }
}

/// What the list calls a device: as much of its `User-Agent` as its user needs, and no more is kept.
pub(crate) fn label(headers: &HeaderMap) -> String {
    // What claims to be several names the one that it is first here.
    const BROWSERS: [(&str, &str); 6] = [
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("Chrom", "Chrome"),
        ("Safari/", "Safari"),
    ];
    const SYSTEMS: [(&str, &str); 7] = [
        ("Android", "Android"),
        ("iPhone", "an iPhone"),
        ("iPad", "an iPad"),
        ("CrOS", "ChromeOS"),
        ("Windows", "Windows"),
        ("Mac OS X", "a Mac"),
        ("Linux", "Linux"),
    ];
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let find =
        |known: &[(&str, &'static str)]| known.iter().find(|(part, _)| agent.contains(part)).map(|(_, name)| *name);
    let browser = find(&BROWSERS).unwrap_or("A browser");
    find(&SYSTEMS).map_or_else(|| browser.to_owned(), |system| format!("{browser} on {system}"))
}
