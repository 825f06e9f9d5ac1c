//! The pages of accounts: their forms, with what is wrong about what they held, and the list of devices.

use std::time::SystemTime;

use maud::{Markup, html};
use redis_session::{CsrfToken, Listing, ReturnTo, SessionHandle, Status};

use crate::accounts::Name;
use crate::forms::Credentials;
use crate::layout::csrf;
use crate::live::what_happened;
use crate::passwords::{LONGEST, SHORTEST};

/// A small form that goes to a page and from there back to this one.
pub(crate) fn with_return(page: &str, return_to: &str, button: Markup) -> Markup {
    html! {
        form.inline action=(page) {
            input type="hidden" name="return_to" value=(return_to);
            (button)
        }
    }
}

pub(crate) fn log_in(form: &Credentials, is_wrong: bool, status: Status, token: &CsrfToken) -> Markup {
    html! {
        section.door {
            h1 { "Log in" }
            // Without JavaScript, this is where a visitor gets to know it.
            @if let Status::Ended(_) = status { p.flash.warning role="status" { (what_happened(status)) "." } }
            form.delivery method="post" action="/login" {
                (csrf(token))
                @if is_wrong { p.alert role="alert" { "Name and password do not belong together." } }
                (name(form, None))
                (password("password", "Password", "current-password", is_wrong.then_some("")))
                (remember(form))
                button.button { "Log in" }
            }
            div.other { "New here?" (with_return("/signup", form.return_to.as_str(), html! { button.link { "Make an account" } })) }
        }
    }
}

pub(crate) fn sign_up(form: &Credentials, problems: &[&str], token: &CsrfToken) -> Markup {
    let wrong_name = problems.iter().find_map(|problem| match *problem {
        "name" => Some("Two to 32 letters, digits, dots, dashes or underscores, please."),
        "taken" => Some("Somebody else has that name already."),
        _ => None,
    });
    html! {
        section.door {
            h1 { "New account" }
            p.lead { "What is in your cart stays there." }
            form.delivery method="post" action="/signup" {
                (csrf(token))
                (name(form, wrong_name))
                (password("password", "Password", "new-password", length(problems.contains(&"password")).as_deref()))
                (remember(form))
                button.button { "Make the account" }
            }
            div.other { "You have one?" (with_return("/login", form.return_to.as_str(), html! { button.link { "Log in" } })) }
        }
    }
}

pub(crate) fn confirm(user: &Name, return_to: &ReturnTo, is_wrong: bool, token: &CsrfToken) -> Markup {
    let wrong = is_wrong.then_some("This is not your password.");
    html! {
        section.door {
            h1 { "Is it still you?" }
            p.lead { "You are logged in as " strong { (user) } ", but have not typed your password for a while." }
            form.delivery method="post" action="/confirm" {
                (csrf(token))
                input type="hidden" name="return_to" value=(return_to.as_str());
                // For password managers.
                input type="hidden" name="name" value=(user) autocomplete="username";
                (password("password", "Password", "current-password", wrong))
                button.button { "Go on" }
            }
        }
    }
}

pub(crate) fn account(
    user: &Name,
    devices: &[Listing],
    this: Option<SessionHandle>,
    problem: Option<&str>,
    token: &CsrfToken,
) -> Markup {
    let wrong = |name: &str, hint: &'static str| (problem == Some(name)).then_some(hint);
    let too_short = length(problem == Some("new"));
    let wrong_new = too_short.as_deref().or(wrong("same", "This is the present one."));
    html! {
        div.title {
            h1 { "Your account" }
            form method="post" action="/logout" { (csrf(token)) button.quiet { "Log out" } }
        }
        p.lead { "You are logged in as " strong { (user) } "." }
        div.beside {
            section aria-labelledby="devices-title" {
                h2 #devices-title { "Your devices" }
                ul.devices { @for listing in devices { li { (device(listing, this, token)) } } }
                @if devices.len() > 1 {
                    form method="post" action="/account/devices/end-others" {
                        (csrf(token))
                        button.quiet { "Log out everywhere else" }
                    }
                }
            }
            section.summary aria-labelledby="password-title" {
                h2 #password-title { "Change your password" }
                form.delivery method="post" action="/account/password" {
                    (csrf(token))
                    input type="hidden" name="name" value=(user) autocomplete="username";
                    (password("present", "Present password", "current-password", wrong("present", "This is not it.")))
                    (password("new", "New password", "new-password", wrong_new))
                    button.button { "Change it" }
                    p.note { "All your other devices are logged out with it." }
                }
            }
        }
    }
}

fn device(device: &Listing, this: Option<SessionHandle>, token: &CsrfToken) -> Markup {
    let is_this = Some(device.handle()) == this;
    let label = device.label().unwrap_or("A browser");
    html! {
        div {
            h3 { (label) @if is_this { " " span.badge { "this one" } } }
            p { "Logged in " (ago(device.created())) ", last seen " (ago(device.last_seen())) }
        }
        @if !is_this {
            form method="post" action="/account/devices/end" {
                (csrf(token))
                input type="hidden" name="handle" value=(device.handle());
                button.quiet { "Log out" span.unseen { " " (label) } }
            }
        }
    }
}

/// How long ago that was, as exactly as people say it: the list itself tells five minutes only.
pub(crate) fn ago(time: SystemTime) -> String {
    let minutes = SystemTime::now().duration_since(time).unwrap_or_default().as_secs() / 60;
    let count = |count: u64, what: &str| format!("{count} {what}{} ago", if count == 1 { "" } else { "s" });
    match minutes {
        ..10 => "just now".to_owned(),
        minutes @ ..60 => count(minutes, "minute"),
        minutes @ ..1440 => count(minutes / 60, "hour"),
        minutes => count(minutes / 1440, "day"),
    }
}

fn length(is_wrong: bool) -> Option<String> {
    is_wrong.then(|| format!("{SHORTEST} to {LONGEST} characters, please."))
}

fn name(form: &Credentials, wrong: Option<&str>) -> Markup {
    html! {
        input type="hidden" name="return_to" value=(form.return_to.as_str());
        div.field.wrong[wrong.is_some()] {
            label for="name" { "Name" }
            input #name name="name" autocomplete="username" autocapitalize="none" spellcheck="false" value=(form.name)
                required maxlength="32" aria-invalid=[wrong.map(|_| "true")]
                aria-describedby=[wrong.map(|_| "name-hint")];
            @if let Some(hint) = wrong { p.hint #name-hint { (hint) } }
        }
    }
}

/// Never filled in by us. An empty hint: only the field is marked.
fn password(field: &str, label: &str, autocomplete: &str, wrong: Option<&str>) -> Markup {
    let hint = wrong.filter(|hint| !hint.is_empty());
    let id = format!("{field}-hint");
    html! {
        div.field.wrong[wrong.is_some()] {
            label for=(field) { (label) }
            input id=(field) type="password" name=(field) autocomplete=(autocomplete) required maxlength=(LONGEST)
                minlength=[(autocomplete == "new-password").then_some(SHORTEST)]
                aria-invalid=[wrong.map(|_| "true")] aria-describedby=[hint.map(|_| &id)];
            @if let Some(hint) = hint { p.hint id=(id) { (hint) } }
        }
    }
}

fn remember(form: &Credentials) -> Markup {
    html! {
        label.check {
            input type="checkbox" name="remember" value="true" checked[form.remember];
            "Remember me on this device for a month"
        }
    }
}
