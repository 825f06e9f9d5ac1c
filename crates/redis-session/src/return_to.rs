//! The page that a visitor comes back to after a login: a path of this site, and nothing else.

use std::convert::Infallible;
use std::fmt;

use axum_core::extract::FromRequestParts;
use http::Uri;
use http::request::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Deserializer};

/// The name of the query parameter.
const NAME: &str = "return_to";
/// Longer ones are ignored.
const LONGEST: usize = 2048;
/// What stays as it is in a query: letters, digits, and what makes a path readable.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Where a login leads back to: `?return_to=` of the log-in page, which [`LoggedIn`](crate::LoggedIn) has written there.
///
/// An extractor for the page, and a field for its form. A path of another origin (`https://evil.example`, `//evil.example`,
/// `/\evil.example`, `javascript:…`) is ignored, like one that is missing: then it is `/`.
///
/// ```
/// use axum::{Form, response::{Html, Redirect}};
/// use redis_session::{Error, ReturnTo, Session};
/// use serde::Deserialize;
///
/// async fn log_in_page(return_to: ReturnTo) -> Html<String> {
///     let return_to = return_to.as_str().replace('&', "&amp;").replace('"', "&quot;");
///     Html(format!(r#"<form method="post"><input type="hidden" name="return_to" value="{return_to}">…</form>"#))
/// }
///
/// #[derive(Deserialize)]
/// struct Credentials { name: String, password: String, #[serde(default)] return_to: ReturnTo }
///
/// async fn log_in(session: Session, Form(form): Form<Credentials>) -> Result<Redirect, Error> {
///     // … check form.password here …
///     session.log_in(form.name).await?;
///     Ok(Redirect::to(form.return_to.as_str()))
/// }
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let session = Session::detached(std::collections::BTreeMap::<String, u8>::new()).await.unwrap();
/// let form: Credentials = serde_json::from_str(r#"{"name": "ada", "password": "…", "return_to": "//evil.example"}"#).unwrap();
/// assert_eq!(form.return_to.as_str(), "/");
/// # let _ = log_in(session, Form(form)).await;
/// # });
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ReturnTo(String);

impl ReturnTo {
    /// A path of this site, with its query; `/` for anything else.
    pub fn new(path: &str) -> Self {
        if is_of_this_site(path) { Self(path.to_owned()) } else { Self::default() }
    }

    /// The path, with its query. Escape it where it goes into a page.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What was asked for, as a path of this site.
    pub(crate) fn of(uri: &Uri) -> Self {
        Self::new(uri.path_and_query().map_or("/", |path| path.as_str()))
    }

    /// This page, with the way back in its query.
    pub(crate) fn appended_to(&self, page: &str) -> String {
        let sign = if page.contains('?') { '&' } else { '?' };
        format!("{page}{sign}{NAME}={}", utf8_percent_encode(&self.0, ENCODED))
    }
}

/// Browsers take `\` for `/`, drop tabs and line ends, and what begins with two slashes names a host (WHATWG URL,
/// section 4.4). So: one slash, and then nothing but visible ASCII without a backslash.
fn is_of_this_site(path: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    path.len() <= LONGEST && path.starts_with('/') && !path.starts_with("//") && path.bytes().all(fits)
}

impl Default for ReturnTo {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl<S: Sync> FromRequestParts<S> for ReturnTo {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let mut pairs = parts.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.find(|(name, _)| *name == NAME).map(|(_, value)| value.replace('+', " "));
        Ok(value.map_or_else(Self::default, |value| Self::new(&percent_decode_str(&value).decode_utf8_lossy())))
    }
}

impl<'de> Deserialize<'de> for ReturnTo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|path| Self::new(&path))
    }
}

/// It may hold what a visitor searched for.
impl fmt::Debug for ReturnTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReturnTo(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_of_this_site_is_one_to_return_to() {
        let long = format!("/{}", "x".repeat(LONGEST));
        let others = [
            "",
            "cart",
            "https://evil.example",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "\t//evil.example",
            " //evil.example",
            "javascript:alert(1)",
            "/cart\r\nset-cookie: a=b",
            "/cart\0",
            "/\u{2028}",
            "/c\u{e4}rt",
            "data:,x",
            "?x=//evil",
            &long,
        ];
        for other in others {
            assert_eq!(ReturnTo::new(other).as_str(), "/", "{other:?}");
        }
        for own in ["/", "/cart", "/cart?item=1&x=https://evil.example", "/a//b", "/%5cevil", "/a#b"] {
            assert_eq!(ReturnTo::new(own).as_str(), own);
        }
    }

    #[tokio::test]
    async fn what_a_page_is_asked_with_is_what_it_was_given() {
        for path in ["/", "/cart?item=1&more=2+3%20&=#x", "/a/b-c_d.e~f"] {
            for page in ["/login", "/login?wrong"] {
                let uri = ReturnTo::new(path).appended_to(page);
                let (mut parts, ()) = http::Request::get(uri).body(()).unwrap().into_parts();
                let Ok(found) = ReturnTo::from_request_parts(&mut parts, &()).await;
                assert_eq!(found.as_str(), path);
            }
        }
        for uri in ["/login", "/login?return_to", "/login?return_to=%2F%2Fevil.example", "/login?return_to=%ff%fe"] {
            let (mut parts, ()) = http::Request::get(uri).body(()).unwrap().into_parts();
            let Ok(found) = ReturnTo::from_request_parts(&mut parts, &()).await;
            assert_eq!(found.as_str(), "/", "{uri}");
        }
    }
}
