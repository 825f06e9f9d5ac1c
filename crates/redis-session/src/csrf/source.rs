//! Where a request comes from, by what the browser says and no page can change. Pure.

use http::header::{AsHeaderName, HOST, ORIGIN};
use http::{HeaderMap, Uri};

use crate::events::CsrfRefusal;

const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// From the application's own pages, or from the visitor himself: the browser says so.
    Own,
    /// The client does not say: no browser of today.
    Unknown,
}

/// Looks where a request comes from; `listed` are origins that count as the application's own.
///
/// `Sec-Fetch-Site` goes first, since it knows redirects and schemes. Browsers send it to HTTPS and to loopback only;
/// elsewhere there is `Origin`, with each request that is not GET or HEAD.
///
/// # Errors
/// From another site. What no browser sends counts as that, too.
pub(super) fn look(headers: &HeaderMap, uri: &Uri, listed: &[String]) -> Result<Source, CsrfRefusal> {
    let origin = only(headers, ORIGIN);
    let is_listed = || origin.is_some_and(|origin| listed.iter().any(|own| own.as_bytes() == origin));
    match only(headers, SEC_FETCH_SITE) {
        Some(b"same-origin" | b"none") => return Ok(Source::Own),
        Some(b"same-site") if is_listed() => return Ok(Source::Own),
        Some(_) => return Err(CsrfRefusal::CrossSite),
        None => {}
    }
    match origin {
        None => Ok(Source::Unknown),
        Some(origin) if is_listed() || is_addressed(origin, headers, uri) => Ok(Source::Own),
        Some(_) => Err(CsrfRefusal::ForeignOrigin),
    }
}

/// The only line of this name; of several an empty one, which nothing is equal to. `None`: there is none.
fn only(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&[u8]> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    Some(if lines.next().is_some() { b"" } else { first.as_bytes() })
}

/// Whether the request is addressed to this origin's host and port. Its scheme is not known behind a proxy.
fn is_addressed(origin: &[u8], headers: &HeaderMap, uri: &Uri) -> bool {
    // HTTP/2 and the absolute form have it in the URI, which then counts (RFC 9112, section 3.2.2).
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes()).or_else(|| only(headers, HOST));
    let (Some(authority), Some((host, default_port))) = (authority, split(origin)) else { return false };
    // Browsers leave out the scheme's own port, and some clients do not.
    let authority = authority.strip_suffix(default_port).unwrap_or(authority);
    !host.is_empty() && authority.eq_ignore_ascii_case(host)
}

/// Host and port of an origin, and what its scheme's own port would add.
fn split(origin: &[u8]) -> Option<(&[u8], &'static [u8])> {
    let https = origin.strip_prefix(b"https://").map(|host| (host, b":443".as_slice()));
    https.or_else(|| origin.strip_prefix(b"http://").map(|host| (host, b":80".as_slice())))
}

/// Whether a text is an origin as browsers write it.
pub(super) fn is_origin(text: &str) -> bool {
    let Some((host, default_port)) = split(text.as_bytes()) else { return false };
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let port = uri.port_u16().map_or(String::new(), |port| format!(":{port}"));
    let is_plain = uri.host().is_some_and(|name| format!("{name}{port}").as_bytes() == host);
    is_plain && !host.iter().any(u8::is_ascii_uppercase) && !host.contains(&b'*') && !host.ends_with(default_port)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    type Lines = &'static [(&'static str, &'static str)];

    fn check(lines: Lines, uri: &str, expected: Result<Source, CsrfRefusal>) {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers = HeaderMap::from_iter(lines.iter().map(line));
        let listed = ["https://www.shop.example".to_owned(), "https://shop.example:8443".to_owned()];
        assert_eq!(look(&headers, &uri.parse().unwrap(), &listed), expected, "{lines:?} to {uri}");
    }

    #[test]
    fn r66_requests_of_other_sites_are_refused_by_what_the_browser_says() {
        const OWN: Result<Source, CsrfRefusal> = Ok(Source::Own);
        const CROSS: Result<Source, CsrfRefusal> = Err(CsrfRefusal::CrossSite);
        const FOREIGN: Result<Source, CsrfRefusal> = Err(CsrfRefusal::ForeignOrigin);
        let table: &[(Lines, Result<Source, CsrfRefusal>)] = &[
            (&[], Ok(Source::Unknown)),
            (&[("host", "a.example")], Ok(Source::Unknown)),
            (&[("sec-fetch-site", "same-origin")], OWN),
            (&[("sec-fetch-site", "none")], OWN),
            (&[("sec-fetch-site", "same-site")], CROSS),
            (&[("sec-fetch-site", "cross-site")], CROSS),
            (&[("sec-fetch-site", "")], CROSS),
            (&[("sec-fetch-site", "Same-Origin")], CROSS),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")], CROSS),
            // It goes before the origin, in both directions.
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")], OWN),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://a.example"), ("host", "a.example")], CROSS),
            (&[("sec-fetch-site", "same-site"), ("origin", "https://www.shop.example")], OWN),
            (&[("sec-fetch-site", "same-site"), ("origin", "https://evil.shop.example")], CROSS),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://www.shop.example")], CROSS),
            (&[("origin", "https://a.example"), ("host", "a.example")], OWN),
            (&[("origin", "http://a.example"), ("host", "a.example")], OWN),
            (&[("origin", "https://a.example"), ("host", "A.Example:443")], OWN),
            (&[("origin", "http://a.example:8080"), ("host", "a.example:8080")], OWN),
            (&[("origin", "http://[::1]:8080"), ("host", "[::1]:8080")], OWN),
            (&[("origin", "https://www.shop.example"), ("host", "inner:3000")], OWN),
            (&[("origin", "https://shop.example:8443"), ("host", "inner:3000")], OWN),
            (&[("origin", "https://shop.example"), ("host", "inner:3000")], FOREIGN),
            (&[("origin", "https://a.example"), ("host", "a.example:80")], FOREIGN),
            (&[("origin", "https://a.example:8443"), ("host", "a.example")], FOREIGN),
            (&[("origin", "https://evil.example"), ("host", "a.example")], FOREIGN),
            (&[("origin", "https://a.example.evil.example"), ("host", "a.example")], FOREIGN),
            (&[("origin", "https://xa.example"), ("host", "a.example")], FOREIGN),
            (&[("origin", "https://a.example"), ("host", "xa.example")], FOREIGN),
            (&[("origin", "null"), ("host", "a.example")], FOREIGN),
            (&[("origin", "null"), ("host", "null")], FOREIGN),
            (&[("origin", ""), ("host", "")], FOREIGN),
            (&[("origin", "https://"), ("host", "")], FOREIGN),
            (&[("origin", "https://"), ("host", ":443")], FOREIGN),
            (&[("origin", "a.example"), ("host", "a.example")], FOREIGN),
            (&[("origin", "moz-extension://a.example"), ("host", "a.example")], FOREIGN),
            (&[("origin", "https://a.example https://b.example"), ("host", "a.example")], FOREIGN),
            (&[("origin", "https://a.example")], FOREIGN),
            (&[("origin", "https://a.example"), ("origin", "https://a.example"), ("host", "a.example")], FOREIGN),
            (&[("origin", "https://a.example"), ("host", "a.example"), ("host", "a.example")], FOREIGN),
        ];
        for (lines, expected) in table {
            check(lines, "/", *expected);
        }
        check(&[("origin", "https://a.example"), ("host", "b.example")], "https://a.example/", OWN);
        check(&[("origin", "https://b.example"), ("host", "b.example")], "https://a.example/", FOREIGN);
        check(&[("sec-fetch-site", "none"), ("origin", "null")], "https://a.example/", OWN);
    }

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for good in ["https://shop.example", "http://localhost:3000", "https://shop.example:8443", "http://[::1]:8080"]
        {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "",
            "shop.example",
            "https://",
            "https://shop.example/",
            "https://Shop.example",
            "null",
            "*",
            "https://shop.example:443",
            "http://shop.example:80",
            "https://shop.example/cart",
            "https://a@shop.example",
            "https://shop.example?x",
            "ftp://shop.example",
            "https://*.shop.example",
            "https://shop.example:",
            "http://[::1]:80a",
            "https://shop.example#a",
            "https://a.example, https://b.example",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
