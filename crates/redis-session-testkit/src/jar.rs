//! A cookie jar that keeps what a browser would keep, after RFC 6265bis.

use std::time::{Duration, SystemTime};

use http::Uri;

/// Browsers keep no cookie longer: RFC 6265bis, section 5.5.
const LONGEST_LIFE: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// The cookies of one browser.
///
/// Not known: public suffixes, which requests come from another site (`SameSite` is kept and not acted upon), and
/// `Partitioned`. As in browsers, loopback counts as secure without TLS.
///
/// ```
/// use redis_session_testkit::{CookieJar, Received};
///
/// let mut jar = CookieJar::new();
/// let url = "https://shop.example/account".parse().unwrap();
/// jar.receive(&url, "__Host-sid=abc; Path=/; Secure; HttpOnly; Max-Age=1800");
/// assert_eq!(jar.header(&url).unwrap(), "__Host-sid=abc");
///
/// let refused = jar.receive(&url, "__Host-other=abc; Path=/");
/// assert_eq!(refused, Received::Refused("a cookie whose name begins with __Host- must be Secure"));
///
/// jar.advance(std::time::Duration::from_secs(1800));
/// assert_eq!(jar.header(&url), None);
/// ```
#[derive(Clone, Debug, Default)]
pub struct CookieJar {
    /// In the order of their first arrival.
    cookies: Vec<Cookie>,
    refusals: Vec<String>,
    ahead: Duration,
}

/// A cookie as a browser keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cookie {
    /// The name; empty for a line without `=`.
    pub name: String,
    /// The value.
    pub value: String,
    /// The host that set it, or the domain that it is for.
    pub domain: String,
    /// Whether it goes to exactly that host, since it came without a `Domain`.
    pub host_only: bool,
    /// The path that it is for.
    pub path: String,
    /// Whether it goes over secure connections only.
    pub secure: bool,
    /// Whether scripts may not see it.
    pub http_only: bool,
    /// The `SameSite` attribute in lower case; `None` if there was none that browsers know.
    pub same_site: Option<String>,
    /// When it ends; `None` if it ends with the browser.
    pub expires: Option<SystemTime>,
}

/// What became of a `Set-Cookie` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// The cookie is kept; one of the same name, domain and path is replaced.
    Stored,
    /// The line took the cookie away, or would have if it had been there.
    Removed,
    /// A browser would ignore the line, for this reason.
    Refused(&'static str),
}

impl CookieJar {
    /// An empty jar.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one `Set-Cookie` line of an answer from `url`, an absolute one.
    pub fn receive(&mut self, url: &Uri, line: &str) -> Received {
        let received = match parse(url, line, self.now()) {
            Ok(cookie) => self.keep(cookie, is_secure(url)),
            Err(reason) => Received::Refused(reason),
        };
        if let Received::Refused(reason) = received {
            self.refusals.push(format!("{reason}: {line}"));
        }
        received
    }

    /// The `Cookie` line for a request to `url`, an absolute one; `None` if no cookie is for it.
    #[must_use]
    pub fn header(&self, url: &Uri) -> Option<String> {
        let mut fitting: Vec<_> = self.living().filter(|cookie| cookie.is_for(url)).collect();
        // A stable sort: of two equally long paths the older cookie goes first.
        fitting.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs: Vec<_> = fitting.into_iter().map(Cookie::pair).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// The living cookie of that name; of several, the one whose path is longest.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Cookie> {
        // Of equal ones the first, which is what a server would see first.
        self.living()
            .filter(|cookie| cookie.name == name)
            .reduce(|best, cookie| if cookie.path.len() > best.path.len() { cookie } else { best })
    }

    /// All living cookies, in the order of their first arrival.
    #[must_use]
    pub fn cookies(&self) -> Vec<&Cookie> {
        self.living().collect()
    }

    /// Puts a cookie in for a host and all paths by hand, as somebody who steals or fixes a session would.
    pub fn put(&mut self, host: &str, name: &str, value: &str) {
        self.replace(Cookie {
            name: name.to_owned(),
            value: value.to_owned(),
            domain: host.to_ascii_lowercase(),
            host_only: true,
            path: "/".to_owned(),
            secure: false,
            http_only: false,
            same_site: None,
            expires: None,
        });
    }

    /// Takes out all cookies of that name.
    pub fn forget(&mut self, name: &str) {
        self.cookies.retain(|cookie| cookie.name != name);
    }

    /// Takes out all cookies that end with the browser, as closing and opening it does.
    pub fn end_browser_session(&mut self) {
        self.cookies.retain(|cookie| cookie.expires.is_some());
    }

    /// Takes out all cookies.
    pub fn clear(&mut self) {
        self.cookies.clear();
    }

    /// The lines that were refused so far, each with its reason: what a test wants to be empty.
    #[must_use]
    pub fn refusals(&self) -> &[String] {
        &self.refusals
    }

    /// Moves the jar's clock forward.
    pub fn advance(&mut self, by: Duration) {
        self.ahead += by;
    }

    /// The time as the jar sees it.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        SystemTime::now() + self.ahead
    }

    fn living(&self) -> impl Iterator<Item = &Cookie> {
        let now = self.now();
        self.cookies.iter().filter(move |cookie| cookie.expires.is_none_or(|expires| expires > now))
    }

    fn keep(&mut self, cookie: Cookie, from_secure: bool) -> Received {
        let hides_secure_one = |old: &Cookie| {
            old.secure
                && old.name == cookie.name
                && (domain_matches(&old.domain, &cookie.domain) || domain_matches(&cookie.domain, &old.domain))
                && path_matches(&cookie.path, &old.path)
        };
        if !from_secure && self.living().any(hides_secure_one) {
            return Received::Refused("an insecure answer may not overlay a Secure cookie");
        }
        if cookie.expires.is_some_and(|expires| expires <= self.now()) {
            self.cookies.retain(|old| !old.is_same(&cookie));
            return Received::Removed;
        }
        self.replace(cookie);
        Received::Stored
    }

    fn replace(&mut self, cookie: Cookie) {
        match self.cookies.iter_mut().find(|old| old.is_same(&cookie)) {
            Some(old) => *old = cookie,
            None => self.cookies.push(cookie),
        }
    }
}

impl Cookie {
    fn is_same(&self, other: &Self) -> bool {
        (&self.name, &self.domain, self.host_only, &self.path)
            == (&other.name, &other.domain, other.host_only, &other.path)
    }

    fn is_for(&self, url: &Uri) -> bool {
        let host = host_of(url);
        let host_fits = if self.host_only { self.domain == host } else { domain_matches(&host, &self.domain) };
        host_fits && path_matches(url.path(), &self.path) && (!self.secure || is_secure(url))
    }

    fn pair(&self) -> String {
        match self.name.as_str() {
            "" => self.value.clone(),
            name => format!("{name}={}", self.value),
        }
    }
}

/// RFC 6265bis, sections 5.6 and 5.7, as far as one line and its URL go.
fn parse(url: &Uri, line: &str, now: SystemTime) -> Result<Cookie, &'static str> {
    if line.chars().any(|c| c.is_ascii_control() && c != '\t') {
        return Err("a control character");
    }
    let host = host_of(url);
    let mut parts = line.split(';');
    let pair = parts.next().unwrap_or_default();
    let (name, value) = pair.split_once('=').map_or(("", pair.trim()), |(name, value)| (name.trim(), value.trim()));
    if name.is_empty() && value.is_empty() {
        return Err("neither a name nor a value");
    }
    if name.len() + value.len() > 4096 {
        return Err("name and value are longer than 4096 bytes");
    }

    let attributes = Attributes::parse(parts, now);
    check_prefix(name, value, &attributes)?;
    let (domain, host_only) = match attributes.domain {
        // A domain without a dot is a public suffix, and good for the host of that very name only.
        Some(domain) if domain == host && (!domain.contains('.') || is_address(&host)) => (domain, true),
        Some(domain) if !domain.contains('.') || !domain_matches(&host, &domain) => {
            return Err("Domain is not a domain of the host");
        }
        Some(domain) => (domain, false),
        None => (host, true),
    };
    if attributes.secure && !is_secure(url) {
        return Err("Secure, over a connection that is not");
    }
    if attributes.same_site.as_deref() == Some("none") && !attributes.secure {
        return Err("SameSite=None without Secure");
    }
    Ok(Cookie {
        name: name.to_owned(),
        value: value.to_owned(),
        domain,
        host_only,
        path: attributes.path.unwrap_or_else(|| default_path(url.path())),
        secure: attributes.secure,
        http_only: attributes.http_only,
        same_site: attributes.same_site,
        expires: attributes.max_age.or(attributes.expires).map(|end| end.min(now + LONGEST_LIFE)),
    })
}

/// RFC 6265bis, section 4.1.3: servers rely on what these names promise.
fn check_prefix(name: &str, value: &str, attributes: &Attributes) -> Result<(), &'static str> {
    let begins =
        |text: &str, prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if name.is_empty() && (begins(value, "__Host-") || begins(value, "__Secure-")) {
        return Err("a cookie without a name must not look like one with a prefix");
    }
    if begins(name, "__Secure-") && !attributes.secure {
        return Err("a cookie whose name begins with __Secure- must be Secure");
    }
    if begins(name, "__Host-") {
        if !attributes.secure {
            return Err("a cookie whose name begins with __Host- must be Secure");
        }
        if attributes.domain.is_some() {
            return Err("a cookie whose name begins with __Host- must have no Domain");
        }
        if attributes.path.as_deref() != Some("/") {
            return Err("a cookie whose name begins with __Host- must have Path=/");
        }
    }
    Ok(())
}

/// The attributes of a line; of two of a name the last counts.
#[derive(Default)]
struct Attributes {
    /// `None` if absent or empty.
    domain: Option<String>,
    /// `None` if absent or not absolute: then it comes from the URL.
    path: Option<String>,
    secure: bool,
    http_only: bool,
    /// `None` if absent or unknown.
    same_site: Option<String>,
    /// `None` if absent or not a number.
    max_age: Option<SystemTime>,
    /// `None` if absent or not a date.
    expires: Option<SystemTime>,
}

impl Attributes {
    fn parse<'a>(parts: impl Iterator<Item = &'a str>, now: SystemTime) -> Self {
        let mut attributes = Self::default();
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim();
            if value.len() > 1024 {
                continue;
            }
            match name.trim().to_ascii_lowercase().as_str() {
                "domain" => {
                    let domain = value.strip_prefix('.').unwrap_or(value).to_ascii_lowercase();
                    attributes.domain = (!domain.is_empty()).then_some(domain);
                }
                "path" => attributes.path = value.starts_with('/').then(|| value.to_owned()),
                "secure" => attributes.secure = true,
                "httponly" => attributes.http_only = true,
                "samesite" => {
                    let value = value.to_ascii_lowercase();
                    attributes.same_site = ["strict", "lax", "none"].contains(&value.as_str()).then_some(value);
                }
                "max-age" => attributes.max_age = end_of_age(value, now).or(attributes.max_age),
                "expires" => attributes.expires = date(value).or(attributes.expires),
                _ => {}
            }
        }
        attributes
    }
}

fn end_of_age(value: &str, now: SystemTime) -> Option<SystemTime> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if value.starts_with('-') || digits.bytes().all(|byte| byte == b'0') {
        return Some(SystemTime::UNIX_EPOCH);
    }
    // More seconds than fit are a long time too.
    let seconds = digits.parse().unwrap_or(u64::MAX);
    Some(now + Duration::from_secs(seconds).min(LONGEST_LIFE))
}

/// RFC 6265bis, section 5.1.1: whatever looks like a time, a day, a month and a year, in any order.
fn date(value: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in value.split(|c: char| !c.is_ascii_alphanumeric() && c != ':').filter(|token| !token.is_empty()) {
        if time.is_none() && token.contains(':') {
            time = time_of_day(token);
        } else if day.is_none() && token.len() <= 2 && token.parse::<i64>().is_ok() {
            day = token.parse::<i64>().ok();
        } else if month.is_none() && MONTHS.iter().any(|name| token.to_ascii_lowercase().starts_with(name)) {
            month = MONTHS.iter().zip(1..).find(|(name, _)| token.to_ascii_lowercase().starts_with(**name));
        } else if year.is_none() {
            year = match token.parse::<i64>().ok() {
                Some(short @ 70..=99) => Some(short + 1900),
                Some(short @ 0..=69) => Some(short + 2000),
                other => other,
            };
        }
    }
    let (time, day, (_, month), year) = (time?, day?, month?, year?);
    if !(1..=31).contains(&day) || !(1601..=9999).contains(&year) {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + time;
    // Before 1970 is over, like 1970.
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn time_of_day(token: &str) -> Option<i64> {
    let parts: Vec<i64> = token.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    match parts[..] {
        [hours @ 0..=23, minutes @ 0..=59, seconds @ 0..=59] => Some(hours * 3600 + minutes * 60 + seconds),
        _ => None,
    }
}

/// The days of the Gregorian calendar, with years that begin in March so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

fn host_of(url: &Uri) -> String {
    url.host().unwrap_or_else(|| panic!("{url} has no host")).to_ascii_lowercase()
}

fn is_secure(url: &Uri) -> bool {
    let host = host_of(url);
    let loopback = host == "localhost" || host.ends_with(".localhost") || host == "[::1]";
    url.scheme_str() == Some("https") || loopback || (host.starts_with("127.") && is_address(&host))
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok()
}

fn domain_matches(host: &str, domain: &str) -> bool {
    let below = || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    host == domain || (below() && !is_address(host))
}

fn path_matches(path: &str, cookie_path: &str) -> bool {
    path.strip_prefix(cookie_path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || cookie_path.ends_with('/'))
}

fn default_path(path: &str) -> String {
    match path.rfind('/') {
        None | Some(0) => "/".to_owned(),
        Some(last) => path[..last].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = "https://shop.example/account/orders";

    fn url(text: &str) -> Uri {
        text.parse().unwrap()
    }

    fn check_refusal(from: &str, line: &str, wanted: Option<&str>) {
        let received = CookieJar::new().receive(&url(from), line);
        match wanted {
            None => assert_eq!(received, Received::Stored, "{line}"),
            Some(part) => match received {
                Received::Refused(reason) => assert!(reason.contains(part), "{line}: {reason}"),
                other => panic!("{line}: {other:?}"),
            },
        }
    }

    #[test]
    fn lines_that_browsers_ignore_are_refused() {
        let long = format!("a={}", "v".repeat(4096));
        let cases = [
            (SHOP, "a=b", None),
            (SHOP, "a=", None),
            (SHOP, "justvalue", None),
            (SHOP, "", Some("neither")),
            (SHOP, "=; Path=/", Some("neither")),
            (SHOP, "a=b\u{1}", Some("control")),
            (SHOP, long.as_str(), Some("4096")),
            (SHOP, "a=b; Domain=example", Some("Domain")),
            (SHOP, "a=b; Domain=other.example", Some("Domain")),
            (SHOP, "a=b; Domain=op.example", Some("Domain")),
            (SHOP, "a=b; Domain=www.shop.example", Some("Domain")),
            (SHOP, "a=b; Domain=.Shop.Example", None),
            ("https://127.0.0.1/", "a=b; Domain=0.0.1", Some("Domain")),
            ("https://127.0.0.1/", "a=b; Domain=127.0.0.1", None),
            ("http://localhost/", "a=b; Domain=localhost; Secure", None),
            ("http://shop.example/", "a=b; Secure", Some("connection")),
            ("http://127.0.0.1:3000/", "a=b; Secure", None),
            (SHOP, "a=b; SameSite=None", Some("SameSite")),
            (SHOP, "a=b; SameSite=None; Secure", None),
            (SHOP, "__Host-a=b; Secure; Path=/", None),
            (SHOP, "__Host-a=b; Secure; Path=/; Domain=", None),
            (SHOP, "__Host-a=b; Path=/", Some("must be Secure")),
            (SHOP, "__Host-a=b; Secure", Some("Path=/")),
            (SHOP, "__Host-a=b; Secure; Path=/account", Some("Path=/")),
            (SHOP, "__Host-a=b; Secure; Path=/; Domain=shop.example", Some("no Domain")),
            ("https://localhost/", "__Host-a=b; Secure; Path=/; Domain=localhost", Some("no Domain")),
            (SHOP, "__host-a=b; Path=/", Some("must be Secure")),
            (SHOP, "__Secure-a=b", Some("must be Secure")),
            (SHOP, "__Secure-a=b; Secure", None),
            (SHOP, "=__Host-a=b", Some("without a name")),
        ];
        for (from, line, wanted) in cases {
            check_refusal(from, line, wanted);
        }
    }

    #[test]
    fn a_cookie_goes_where_its_domain_path_and_secure_flag_say() {
        let cases = [
            ("a=b", SHOP, true),
            ("a=b", "https://shop.example/account", true),
            ("a=b", "https://shop.example/account/", true),
            ("a=b", "https://shop.example/accounting", false),
            ("a=b", "https://shop.example/", false),
            ("a=b; Path=/", "https://shop.example:8443/?q", true),
            ("a=b; Path=/", "http://shop.example/", true),
            ("a=b; Path=/; Secure", "http://shop.example/", false),
            ("a=b; Path=relative", "https://shop.example/account", true),
            ("a=b; Path=/", "https://www.shop.example/", false),
            ("a=b; Path=/; Domain=shop.example", "https://www.shop.example/", true),
            ("a=b; Path=/; Domain=shop.example", "https://WWW.shop.example/", true),
            ("a=b; Path=/; Domain=shop.example", "https://workshop.example/", false),
        ];
        for (line, to, wanted) in cases {
            let mut jar = CookieJar::new();
            assert_eq!(jar.receive(&url(SHOP), line), Received::Stored);
            assert_eq!(jar.header(&url(to)).is_some(), wanted, "{line} to {to}");
        }
    }

    #[test]
    fn a_cookie_ends_when_max_age_or_else_expires_says() {
        let second = Duration::from_secs(1);
        let cases = [
            ("a=b", None),
            ("a=b; Max-Age=60", Some(60)),
            ("a=b; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", Some(60)),
            ("a=b; Max-Age=60; Max-Age=90", Some(90)),
            ("a=b; Max-Age=soon", None),
            ("a=b; Max-Age=99999999999999999999999", Some(LONGEST_LIFE.as_secs())),
            ("a=b; Expires=Fri, 31 Dec 9999 23:59:59 GMT", Some(LONGEST_LIFE.as_secs())),
            ("a=b; Expires=whenever", None),
        ];
        for (line, wanted) in cases {
            let mut jar = CookieJar::new();
            assert_eq!(jar.receive(&url(SHOP), line), Received::Stored, "{line}");
            let Some(seconds) = wanted else {
                assert_eq!(jar.get("a").unwrap().expires, None, "{line}");
                continue;
            };
            jar.advance(Duration::from_secs(seconds) - second);
            assert!(jar.get("a").is_some(), "{line}");
            jar.advance(second);
            assert!(jar.get("a").is_none(), "{line}");
            assert_eq!(jar.header(&url(SHOP)), None, "{line}");
        }
    }

    #[test]
    fn a_cookie_is_removed_by_an_end_in_the_past() {
        for end in ["Max-Age=0", "Max-Age=-1", "Expires=Thu, 01 Jan 1970 00:00:00 GMT", "Max-Age=0; Expires=x"] {
            let mut jar = CookieJar::new();
            jar.receive(&url(SHOP), "a=b; Path=/");
            assert_eq!(jar.receive(&url(SHOP), &format!("a=; {end}")), Received::Removed);
            assert!(jar.get("a").is_some(), "another path");
            assert_eq!(jar.receive(&url(SHOP), &format!("a=; Path=/; {end}")), Received::Removed);
            assert!(jar.cookies().is_empty(), "{end}");
        }
    }

    #[test]
    fn dates_are_read_in_all_their_forms() {
        let cases = [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Tue, 29 Feb 2028 00:00:00 GMT", Some(1_835_395_200)),
            ("Wed, 01 Mar 2000 00:00:00 GMT", Some(951_868_800)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Mon, 01 Jan 1900 00:00:00 GMT", Some(0)),
            ("06 Nov 1994 24:00:00", None),
            ("06 Nov 1994", None),
            ("", None),
        ];
        for (text, wanted) in cases {
            let found = date(text).map(|date| date.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
            assert_eq!(found, wanted, "{text}");
        }
    }

    #[test]
    fn a_cookie_replaces_one_of_its_name_domain_and_path_and_keeps_its_place() {
        let mut jar = CookieJar::new();
        for line in ["a=1; Path=/", "b=1; Path=/", "a=long; Path=/account", "a=2; Path=/"] {
            jar.receive(&url(SHOP), line);
        }
        assert_eq!(jar.header(&url(SHOP)).unwrap(), "a=long; a=2; b=1");
        assert_eq!(jar.header(&url("https://shop.example/")).unwrap(), "a=2; b=1");
        assert_eq!(jar.get("a").unwrap().value, "long");
    }

    #[test]
    fn an_insecure_answer_does_not_overlay_a_secure_cookie() {
        let mut jar = CookieJar::new();
        jar.receive(&url(SHOP), "a=1; Path=/; Secure; Domain=shop.example");
        let received = jar.receive(&url("http://www.shop.example/"), "a=evil; Path=/");
        assert!(matches!(received, Received::Refused(_)), "{received:?}");
        assert_eq!(jar.refusals(), ["an insecure answer may not overlay a Secure cookie: a=evil; Path=/"]);
    }

    #[test]
    fn attributes_are_noted() {
        let mut jar = CookieJar::new();
        jar.receive(&url(SHOP), "a = b=c ;httponly; SECURE ; samesite=LAX; Unknown=1");
        let cookie = jar.get("a").unwrap();
        assert_eq!((cookie.value.as_str(), cookie.path.as_str()), ("b=c", "/account"));
        assert!(cookie.http_only && cookie.secure && cookie.host_only);
        assert_eq!(cookie.same_site.as_deref(), Some("lax"));
    }

    #[test]
    fn cookies_without_an_end_go_with_the_browser() {
        let mut jar = CookieJar::new();
        jar.receive(&url(SHOP), "a=1");
        jar.receive(&url(SHOP), "b=1; Max-Age=60");
        jar.put("shop.example", "c", "1");
        jar.end_browser_session();
        assert_eq!(jar.header(&url(SHOP)).unwrap(), "b=1");
    }
}
