//! The session cookie's settings, what must be so about them, and its Set-Cookie line.

use std::time::Duration;

use cookie::time::Duration as CookieDuration;
use http::HeaderValue;
use redis_session_core::{Kind, SessionId, Signer};

use crate::error::Error;

/// The cookie that carries the session's id.
///
/// The default is `__Host-id`, with `Secure`, `HttpOnly`, `SameSite=Lax` and `Path=/`, and it ends with the browser: what
/// OWASP and NIST SP 800-63B-4 (section 5.1.1) ask for. `HttpOnly` and an explicit `SameSite` are always sent.
///
/// ```
/// use redis_session::{Cookie, SameSite};
///
/// let cookie = Cookie::named("__Host-office").same_site(SameSite::Strict);
/// assert!(cookie.check().is_ok());
///
/// // What browsers would silently drop is an error at start:
/// let error = Cookie::named("__Host-office").path("/office").check().unwrap_err();
/// assert!(error.to_string().contains("Path=/"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    name: String,
    path: String,
    /// `None`: for the host that set it only.
    domain: Option<String>,
    same_site: SameSite,
    partitioned: bool,
    persistent: bool,
    secure: bool,
}

/// Whether the cookie goes along with requests that come from other sites (RFC 6265bis, section 5.6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// With links from other sites, and not with forms posted from there. A callback by POST from another site (SAML,
    /// some OAuth) comes without a session.
    #[default]
    Lax,
    /// Never with a request that another site began: also a visitor who follows a link comes without a session.
    Strict,
    /// With all. Every form of every other site then comes with the session: needs a defence against CSRF.
    None,
}

impl Default for Cookie {
    fn default() -> Self {
        Self::named("__Host-id")
    }
}

impl Cookie {
    /// A cookie of another name; the rest as in the default.
    ///
    /// Names that begin with `__Host-`, `__Secure-`, `__Http-` or `__Host-Http-` promise attributes to the server
    /// (RFC 6265bis, section 4.1.3), and settings that break the promise are refused.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            path: "/".to_owned(),
            domain: None,
            same_site: SameSite::Lax,
            partitioned: false,
            persistent: false,
            secure: true,
        }
    }

    /// A cookie named `id` that is sent in clear: for development over plain HTTP on this machine only.
    ///
    /// # Security
    /// Everybody on the way can read it and take the session over.
    pub fn insecure_for_development() -> Self {
        Self { secure: false, ..Self::named("id") }
    }

    /// Which requests from other sites it goes along with. Default: [`SameSite::Lax`].
    pub fn same_site(self, same_site: SameSite) -> Self {
        Self { same_site, ..self }
    }

    /// The part of the site that it is for. Default: `/`. This keeps nobody out: pages under other paths can reach it.
    pub fn path(self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// Shares it with all hosts under a domain. Needs a name that begins with `__Secure-`. Default: this host only.
    ///
    /// # Security
    /// Every host under the domain can read it, and can set one of its own in its place.
    pub fn domain(self, domain: impl Into<String>) -> Self {
        Self { domain: Some(domain.into()), ..self }
    }

    /// Keeps one cookie for each site that embeds this one (CHIPS). Needs [`SameSite::None`].
    pub fn partitioned(self) -> Self {
        Self { partitioned: true, ..self }
    }

    /// Lets it survive the end of the browser, with a `Max-Age` of what remains to the absolute timeout. Default: it ends
    /// with the browser, unless the session asks to be remembered.
    pub fn persistent(self) -> Self {
        Self { persistent: true, ..self }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_persistent(&self) -> bool {
        self.persistent
    }

    /// Whether browsers keep a cookie with these settings.
    ///
    /// # Errors
    /// `is_config`: they would not, or it would be less safe than its name promises. The text says what to write.
    pub fn check(&self) -> Result<(), Error> {
        self.check_syntax()?;
        self.check_prefix()?;
        if self.same_site == SameSite::None && !self.secure {
            return wrong("a cookie with SameSite=None must be Secure: use SameSite::Lax in development");
        }
        if self.partitioned && (self.same_site != SameSite::None || !self.secure) {
            return wrong("a partitioned cookie needs SameSite::None, and Secure");
        }
        Ok(())
    }

    /// Whether it can be written, by whatever rules another software has set it.
    pub(crate) fn check_syntax(&self) -> Result<(), Error> {
        check_name(&self.name)?;
        check_path(&self.path)?;
        if self.domain.as_ref().is_some_and(|domain| !is_host_name(domain)) {
            return wrong("the cookie's domain must be a host name, without a dot before or after it");
        }
        Ok(())
    }

    fn check_prefix(&self) -> Result<(), Error> {
        const PREFIXES: [&str; 4] = ["__Host-Http-", "__Host-", "__Secure-", "__Http-"];
        let begins =
            |prefix: &&str| self.name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        let Some(prefix) = PREFIXES.iter().find(|prefix| begins(prefix)) else {
            return match &self.domain {
                Some(_) => wrong("a cookie with a domain needs a name that begins with \"__Secure-\""),
                None => Ok(()),
            };
        };
        if !self.name.starts_with(prefix) {
            return Err(config(format!("write the cookie's prefix as {prefix:?}: browsers tell the case apart")));
        }
        if self.name.len() == prefix.len() {
            return Err(config(format!("the cookie's name needs something after {prefix:?}")));
        }
        if !self.secure {
            return Err(config(format!(
                "a cookie whose name begins with {prefix:?} must be Secure: in development use a name without a prefix"
            )));
        }
        if self.domain.is_some() && *prefix != "__Secure-" {
            return Err(config(format!(
                "a cookie whose name begins with {prefix:?} must have no domain: begin it with \"__Secure-\""
            )));
        }
        if prefix.starts_with("__Host-") && self.path != "/" {
            return wrong("a cookie whose name begins with \"__Host-\" must have Path=/: begin it with \"__Secure-\"");
        }
        Ok(())
    }

    /// The Set-Cookie line that gives an id to the browser, for so long; `None`: until the browser ends.
    pub(crate) fn line(&self, id: &SessionId, signer: &Signer, max_age: Option<Duration>) -> HeaderValue {
        let max_age = max_age.map(|age| CookieDuration::seconds(i64::try_from(age.as_secs()).unwrap_or(i64::MAX)));
        self.build(signer.sign(id), max_age)
    }

    /// The cookie beside this one that leads to a session which was taken over.
    pub(crate) fn moved(&self) -> Self {
        Self { name: format!("{}-moved", self.name), ..self.clone() }
    }

    /// The cookie beside this one that says that edits were saved a moment ago. Whoever sets it himself is shown no more and no
    /// less than anybody: it is not signed.
    pub(crate) fn wrote(&self) -> Self {
        Self { name: format!("{}-wrote", self.name), ..self.clone() }
    }

    /// The line of such a cookie, for as long as a replica may be behind: whole seconds, and one for the browser's clock.
    pub(crate) fn mark(&self, behind: Duration) -> HeaderValue {
        let seconds = behind.as_secs() + u64::from(behind.subsec_nanos() > 0) + 1;
        self.build("1".to_owned(), Some(CookieDuration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX))))
    }

    /// The Set-Cookie line that takes the cookie away.
    pub(crate) fn removal(&self) -> HeaderValue {
        self.build(String::new(), Some(CookieDuration::ZERO))
    }

    fn build(&self, value: String, max_age: Option<CookieDuration>) -> HeaderValue {
        let mut line = cookie::Cookie::build((self.name.as_str(), value))
            .path(self.path.as_str())
            .http_only(true)
            .secure(self.secure)
            .partitioned(self.partitioned)
            .same_site(match self.same_site {
                SameSite::Lax => cookie::SameSite::Lax,
                SameSite::Strict => cookie::SameSite::Strict,
                SameSite::None => cookie::SameSite::None,
            });
        if let Some(domain) = &self.domain {
            line = line.domain(domain.as_str());
        }
        if let Some(max_age) = max_age {
            line = line.max_age(max_age);
        }
        let mut line = HeaderValue::try_from(line.build().to_string()).expect("the settings were checked to be ASCII");
        line.set_sensitive(true);
        line
    }
}

/// RFC 6265bis, section 4.1.1: a token, short enough for name and value to stay far below what browsers keep.
fn check_name(name: &str) -> Result<(), Error> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    match name.len() {
        0 => wrong("the cookie's name must not be empty"),
        1..=128 if name.bytes().all(token) => Ok(()),
        1..=128 => wrong("the cookie's name may have letters, digits and !#$%&'*+-.^_`|~ only"),
        _ => wrong("the cookie's name may have 128 bytes at most"),
    }
}

/// RFC 6265bis, sections 4.1.1 and 5.7: visible ASCII but for `;`, and 1024 bytes at most.
fn check_path(path: &str) -> Result<(), Error> {
    if path.len() > 1024 || !path.bytes().all(|b| b.is_ascii_graphic() && b != b';' && b != b',') {
        return wrong("the cookie's path may have 1024 bytes of visible ASCII at most, and neither \";\" nor \",\"");
    }
    if path.starts_with('/') { Ok(()) } else { wrong("the cookie's path must begin with \"/\"") }
}

/// RFC 1123, section 2.1. No browser keeps a cookie for anything else.
fn is_host_name(domain: &str) -> bool {
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    domain.len() <= 253 && domain.split('.').all(fits)
}

fn wrong(message: &'static str) -> Result<(), Error> {
    Err(Error::new(Kind::Config, message))
}

fn config(message: String) -> Error {
    Error::new(Kind::Config, message)
}

#[cfg(test)]
mod tests;
