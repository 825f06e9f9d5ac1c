//! The response's headers that sessions need: Set-Cookie, Vary, Cache-Control.

use http::header::{CACHE_CONTROL, SET_COOKIE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};
use redis_session_core::ReadFrom;

use crate::handle::{Handle, Outgoing, State};
use crate::scan::has;

/// Writes what this request's session asks for. Somebody asked for it.
pub(crate) fn write(handle: &Handle, headers: &mut HeaderMap) {
    vary_by_cookie(headers);
    let lines = {
        let state = handle.state();
        // The same cookie has another page in a moment.
        if state.was_read().is_err() {
            never_store(headers);
        }
        let cookie = &handle.settings.cookie;
        let line = match (state.outgoing, &state.id) {
            // The cookie of a session that is over would take the place of a newer one for nothing.
            (Outgoing::Give, Some(_)) if handle.is_past_its_deadline(&state) => None,
            (Outgoing::Give, Some(id)) => {
                Some(cookie.line(state.offer.as_ref().unwrap_or(id), &handle.settings.signer, handle.max_age(&state)))
            }
            (Outgoing::Remove, _) => {
                // Those beside it would lead to it as well.
                let old = handle.settings.predecessor.as_ref().map(|predecessor| predecessor.cookie().clone());
                for old in old.into_iter().flat_map(|old| [old, cookie.moved()]) {
                    if has(handle.cookies(), old.name()) {
                        headers.append(SET_COOKIE, old.removal());
                    }
                }
                Some(cookie.removal())
            }
            (Outgoing::Nothing, Some(id)) if state.tells_moved => {
                Some(cookie.moved().line(id, &handle.settings.moved_signer, handle.max_age(&state)))
            }
            _ => None,
        };
        line.into_iter().chain(mark(handle, &state))
    };
    for line in lines {
        headers.append(SET_COOKIE, line);
        never_store(headers);
    }
}

/// What lets the browser's next requests be read where these edits surely are.
fn mark(handle: &Handle, state: &State) -> Option<HeaderValue> {
    let ReadFrom::Replicas { behind } = handle.settings.read_from else { return None };
    let mark = handle.settings.cookie.wrote();
    match state.outgoing {
        Outgoing::Remove => handle.has_written_lately().then(|| mark.removal()),
        _ => (state.wrote || state.doubt.is_some()).then(|| mark.mark(behind)),
    }
}

/// A cache must not give one visitor's page to another (RFC 9110, section 12.5.5).
fn vary_by_cookie(headers: &mut HeaderMap) {
    let mut names = headers.get_all(VARY).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
    let there = names.any(|name| {
        let name = name.trim_ascii();
        name == b"*" || name.eq_ignore_ascii_case(b"cookie")
    });
    if !there {
        headers.append(VARY, HeaderValue::from_static("cookie"));
    }
}

/// A cache must not give a Set-Cookie to another visitor (RFC 9111, section 7.3).
fn never_store(headers: &mut HeaderMap) {
    // What is quoted may have commas of its own, so a line with quotes counts for nothing.
    let lines = headers.get_all(CACHE_CONTROL).iter().map(HeaderValue::as_bytes).filter(|line| !line.contains(&b'"'));
    let mut directives = lines.flat_map(|line| line.split(|b| *b == b','));
    if !directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-store")) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    // Caches to which these are addressed heed no Cache-Control beside them (RFC 9213, section 2.2).
    let targeted = |name: &&HeaderName| name.as_str().ends_with("cdn-cache-control") || *name == "surrogate-control";
    for name in headers.keys().filter(targeted).cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Lines = &'static [(&'static str, &'static str)];

    fn headers(lines: Lines) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        HeaderMap::from_iter(lines.iter().map(pair))
    }

    fn lines(headers: &HeaderMap) -> Vec<(&str, &str)> {
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect()
    }

    #[test]
    fn r62_vary_gets_cookie_once_and_keeps_the_rest() {
        let table: [(&[&str], &[&str]); 11] = [
            (&[], &["cookie"]),
            (&["accept"], &["accept", "cookie"]),
            (&["accept, accept-encoding"], &["accept, accept-encoding", "cookie"]),
            (&["cookie"], &["cookie"]),
            (&["Cookie"], &["Cookie"]),
            (&["accept,COOKIE ,origin"], &["accept,COOKIE ,origin"]),
            (&["accept", "cookie"], &["accept", "cookie"]),
            (&["*"], &["*"]),
            (&["accept", " * "], &["accept", " * "]),
            (&["cookie-consent, x-cookie"], &["cookie-consent, x-cookie", "cookie"]),
            (&[""], &["", "cookie"]),
        ];
        for (before, after) in table {
            let mut headers: HeaderMap = before.iter().map(|value| (VARY, HeaderValue::from_static(value))).collect();
            vary_by_cookie(&mut headers);
            assert_eq!(headers.get_all(VARY).iter().collect::<Vec<_>>(), after, "{before:?}");
            vary_by_cookie(&mut headers);
            assert_eq!(headers.get_all(VARY).iter().count(), after.len(), "{before:?} once more");
        }
    }

    #[test]
    fn r63_whatever_the_application_says_no_cache_may_store_a_cookie() {
        const NO_STORE: (&str, &str) = ("cache-control", "no-store");
        let table: [(Lines, Lines); 11] = [
            (&[], &[NO_STORE]),
            (&[("cache-control", "public, max-age=3600")], &[NO_STORE]),
            (&[("cache-control", "private")], &[NO_STORE]),
            (&[("cache-control", "no-cache")], &[NO_STORE]),
            (&[("cache-control", "x-no-store, no-store-x")], &[NO_STORE]),
            (&[("cache-control", "public"), ("cache-control", "max-age=60")], &[NO_STORE]),
            (&[("cache-control", "private, No-Store")], &[("cache-control", "private, No-Store")]),
            (&[("cache-control", "private"), NO_STORE], &[("cache-control", "private"), NO_STORE]),
            (&[("cache-control", "private=\"a, no-store , b\"")], &[NO_STORE]),
            (&[("cdn-cache-control", "max-age=60"), ("x-cdn-cache-control", "max-age=60")], &[NO_STORE]),
            (&[("surrogate-control", "max-age=60"), NO_STORE], &[NO_STORE]),
        ];
        for (before, after) in table {
            let mut headers = headers(before);
            never_store(&mut headers);
            assert_eq!(lines(&headers), after, "{before:?}");
        }
    }
}
