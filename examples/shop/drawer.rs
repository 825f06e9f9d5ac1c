//! The drawer "your session": what is stored, for how long, and what the last requests did.

use std::time::SystemTime;

use maud::{Markup, html};
use redis_session::{CsrfToken, Session, Status};

use crate::accounts::Name;
use crate::layout::csrf;
use crate::people_pages::ago;
use crate::watch::{Trace, Watch};

/// The drawer around what is known of the session.
pub(crate) fn drawer(session: &Markup, is_open: bool, watch: &Watch) -> Markup {
    html! {
        details.drawer open[is_open] {
            summary { "Your session" }
            div.inside {
                (session)
                @if let Some(before) = watch.before() { (trace(before, "The last form", watch)) }
                (trace(&watch.now(), "This page", watch))
            }
        }
    }
}

/// Of a page that did not ask for the session.
pub(crate) fn without_session() -> Markup {
    html! { p.none { "This page does not need to know who you are, so it did not ask for your session." } }
}

/// What is stored now, after the commit of this very request.
pub(crate) fn whole(session: &Session, is_open: bool, watch: &Watch) -> Markup {
    let is_alive = session.status() == Status::Alive;
    let request = watch.now().request;
    let page = request.split_once(' ').map_or("/", |(_, path)| path);
    // Without random numbers, its forms are refused, and nothing else.
    let token = CsrfToken::of(session).ok();
    let token = html! { @if let Some(token) = &token { (csrf(token)) } };
    html! {
        @match session.status() {
            Status::Alive => (stored(session, watch)),
            Status::New => p.none { "You have none: nothing is stored. It begins with what you put into the cart." },
            _ => p.none { "It has ended. A new one begins with what you put into the cart." },
        }
        div.actions {
            form method="post" action="/drawer" {
                (token)
                input type="hidden" name="page" value=(page);
                button name="open" value=(!is_open) { @if is_open { "Let it close" } @else { "Keep it open" } }
            }
            @if is_alive { form method="post" action="/session/end" { (token) button { "End it" } } }
        }
    }
}

fn stored(session: &Session, watch: &Watch) -> Markup {
    let fields = session.fields().unwrap_or_default();
    html! {
        dl.facts {
            div { dt { "Logged in" } dd #logged-in { (who(session)) } }
            div { dt { "Version" } dd #version { (watch.now().version.as_deref().unwrap_or("unknown")) } }
            div { dt { "Time left" } dd #time-left { (time_left(session)) } }
            div { dt { "Kept in" } dd { (watch.instance.place) } }
        }
        table {
            caption { "Stored fields" }
            thead { tr { th scope="col" { "Field" } th scope="col" { "JSON" } } }
            tbody {
                @for (name, json) in &fields { tr { th scope="row" { (name) } td { code { (json) } } } }
                @if fields.is_empty() { tr { td colspan="2" { "none" } } }
            }
        }
    }
}

/// Who has proved that it is he, and when.
fn who(session: &Session) -> String {
    match (session.user::<Name>(), session.logged_in_at()) {
        (Ok(Some(name)), Some(at)) => format!("{name}, {}", ago(at)),
        _ => "nobody".to_owned(),
    }
}

fn time_left(session: &Session) -> String {
    let left = session.expires_at().and_then(|end| end.duration_since(SystemTime::now()).ok());
    let seconds = left.unwrap_or_default().as_secs();
    match seconds / 60 {
        minutes @ ..120 => format!("{minutes} min {:02} s", seconds % 60),
        minutes @ ..2880 => format!("{} h {:02} min", minutes / 60, minutes % 60),
        minutes => format!("{} days {:02} h", minutes / 1440, minutes / 60 % 24),
    }
}

fn trace(trace: &Trace, when: &str, watch: &Watch) -> Markup {
    let in_redis = watch.instance.place.starts_with("Redis");
    html! {
        section.trace {
            h3 { span.when { (when) } code { (trace.request) } }
            dl.facts {
                div { dt { "Session loaded" } dd { @if trace.loaded { "yes" } @else { "no" } } }
                div { dt { "Plan" } dd.plan { (plan(trace)) } }
                div {
                    dt { @if in_redis { "Redis commands" } @else { "Store calls" } }
                    dd { (trace.commands) }
                }
                div { dt { "Bytes of fields" } dd { (trace.bytes) } }
                div { dt { "Time in the store" } dd { (trace.micros) " µs" } }
                div { dt { "Served by" } dd { (trace.instance) } }
            }
        }
    }
}

fn plan(trace: &Trace) -> String {
    if trace.events.is_empty() { "nothing to write".to_owned() } else { trace.events.join(", ") }
}
