//! The response's headers that sessions need: Set-Cookie, Vary, Cache-Control.

use http::header::{CACHE_CONTROL, SET_COOKIE, VARY};
use http::{HeaderMap, HeaderValue};

use crate::handle::{Handle, Outgoing};

/// Writes what this request's session asks for. Somebody asked for it.
pub(crate) fn write(handle: &Handle, headers: &mut HeaderMap) {
    vary_by_cookie(headers);
    let line = {
        let state = handle.state();
        let cookie = &handle.settings.cookie;
        match (state.outgoing, &state.id) {
            (Outgoing::Give, Some(id)) => cookie.line(id, &handle.settings.signer, handle.max_age(&state)),
            (Outgoing::Remove, _) => cookie.removal(),
            _ => return,
        }
    };
    headers.append(SET_COOKIE, line);
    never_store(headers);
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
    let mut directives = headers.get_all(CACHE_CONTROL).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
    if !directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-store")) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}
