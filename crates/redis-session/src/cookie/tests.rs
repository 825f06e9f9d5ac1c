//! What cookie settings are refused, and that browsers keep all others exactly as they are meant.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use redis_session_core::{KeyRing, Random};
use redis_session_testkit::{CookieJar, Received};

use super::*;

const DAYS_400: Duration = Duration::from_secs(34_560_000);

/// As `insecure_for_development`, which itself lets no other name be chosen.
fn insecure(cookie: Cookie) -> Cookie {
    Cookie { secure: false, ..cookie }
}

fn named(name: &str) -> Cookie {
    Cookie::named(name)
}

#[test]
fn r11_to_r18_r28_r29_settings_that_browsers_or_visitors_would_suffer_from_are_refused() {
    let none = SameSite::None;
    let long = |length: usize| "x".repeat(length);
    let table = [
        // R11: plain HTTP
        (insecure(named("__Host-id")), "must be Secure"),
        (insecure(named("__Secure-id")), "must be Secure"),
        (insecure(named("__Http-id")), "must be Secure"),
        (insecure(named("__Host-Http-id")), "must be Secure"),
        (Cookie::insecure_for_development().domain("shop.example"), "__Secure-"),
        // R12: __Host- is for one host and all of its paths
        (named("__Host-id").domain("shop.example"), "must have no domain"),
        (named("__Host-id").path("/shop"), "must have Path=/"),
        (named("__Host-").path("/"), "needs something after"),
        // R13: what is shared begins with __Secure-
        (named("id").domain("shop.example"), "__Secure-"),
        (named("__Http-id").domain("shop.example"), "__Secure-"),
        (named("__Securid").domain("shop.example"), "__Secure-"),
        // R14: look-alikes
        (named("__HOST-id"), "tell the case apart"),
        (named("__host-id"), "tell the case apart"),
        (named("__secure-id"), "tell the case apart"),
        (named("__SECURE-id").domain("shop.example"), "tell the case apart"),
        (named("__HTTP-id"), "tell the case apart"),
        (named("__Host-http-id"), "tell the case apart"),
        // R16, R28: with requests from other sites only over TLS, and partitioned only then
        (Cookie::insecure_for_development().same_site(none), "SameSite=None must be Secure"),
        (Cookie::insecure_for_development().partitioned(), "partitioned"),
        (Cookie::default().partitioned(), "SameSite::None"),
        (Cookie::default().partitioned().same_site(SameSite::Strict), "SameSite::None"),
        (insecure(named("id")).same_site(none).partitioned(), "Secure"),
        // R17: what newer browsers enforce
        (named("__Host-Http-id").path("/shop"), "must have Path=/"),
        (named("__Host-Http-id").domain("shop.example"), "must have no domain"),
        // R18: what browsers keep
        (named(&long(129)), "128 bytes at most"),
        (named("id").path(format!("/{}", long(1024))), "1024 bytes"),
        (named("__Secure-id").domain(vec!["x"; 128].join(".")), "host name"),
        // R29: what would end the attribute, or the line
        (named(""), "must not be empty"),
        (named("i d"), "letters, digits"),
        (named("id="), "letters, digits"),
        (named("id;"), "letters, digits"),
        (named("id\r\nSet-Cookie: a"), "letters, digits"),
        (named("id\0"), "letters, digits"),
        (named("id,b"), "letters, digits"),
        (named("\"id\""), "letters, digits"),
        (named("ïd"), "letters, digits"),
        (named("id").path(""), "begin with"),
        (named("id").path("shop"), "begin with"),
        (named("id").path("/a;Domain=x"), "neither"),
        (named("id").path("/a, b"), "visible ASCII"),
        (named("id").path("/a\r\nb"), "visible ASCII"),
        (named("id").path("/a\0"), "visible ASCII"),
        (named("id").path("/caf\u{e9}"), "visible ASCII"),
        (named("__Secure-id").domain(""), "host name"),
        (named("__Secure-id").domain(".shop.example"), "host name"),
        (named("__Secure-id").domain("shop.example."), "host name"),
        (named("__Secure-id").domain("shop..example"), "host name"),
        (named("__Secure-id").domain("-shop.example"), "host name"),
        (named("__Secure-id").domain("shop-.example"), "host name"),
        (named("__Secure-id").domain("shop.example:443"), "host name"),
        (named("__Secure-id").domain("shop.example; Path=/"), "host name"),
        (named("__Secure-id").domain("shop.example\r\n"), "host name"),
        (named("__Secure-id").domain("shop.exam\0ple"), "host name"),
        (named("__Secure-id").domain("*.shop.example"), "host name"),
        (named("__Secure-id").domain("sh\u{f6}p.example"), "host name"),
        (named("__Secure-id").domain("[::1]"), "host name"),
    ];
    for (cookie, problem) in table {
        let error = cookie.check().expect_err(&format!("{cookie:?}"));
        assert!(error.is_config() && error.to_string().contains(problem), "{cookie:?}: {error}");
    }
}

#[test]
fn r10_to_r17_r28_settings_that_work_lead_to_this_line() {
    let domain = || named("__Secure-id").domain("shop.example");
    let partitioned = || Cookie::default().same_site(SameSite::None).partitioned();
    let table = [
        (Cookie::default(), "__Host-id=; HttpOnly; SameSite=Lax; Secure; Path=/"),
        (named("__Host-office"), "__Host-office=; HttpOnly; SameSite=Lax; Secure; Path=/"),
        (named("sid").path("/shop"), "sid=; HttpOnly; SameSite=Lax; Secure; Path=/shop"),
        (domain(), "__Secure-id=; HttpOnly; SameSite=Lax; Secure; Path=/; Domain=shop.example"),
        (domain().path("/a"), "__Secure-id=; HttpOnly; SameSite=Lax; Secure; Path=/a; Domain=shop.example"),
        (Cookie::default().same_site(SameSite::Strict), "__Host-id=; HttpOnly; SameSite=Strict; Secure; Path=/"),
        (Cookie::default().same_site(SameSite::None), "__Host-id=; HttpOnly; SameSite=None; Secure; Path=/"),
        (partitioned(), "__Host-id=; HttpOnly; SameSite=None; Partitioned; Secure; Path=/"),
        (named("__Http-id").path("/a"), "__Http-id=; HttpOnly; SameSite=Lax; Secure; Path=/a"),
        (named("__Host-Http-id"), "__Host-Http-id=; HttpOnly; SameSite=Lax; Secure; Path=/"),
        (Cookie::insecure_for_development(), "id=; HttpOnly; SameSite=Lax; Path=/"),
        (Cookie::insecure_for_development().same_site(SameSite::Strict), "id=; HttpOnly; SameSite=Strict; Path=/"),
    ];
    for (cookie, line) in table {
        cookie.check().unwrap();
        assert_eq!(text(&cookie.build(String::new(), None)), line);
    }
}

#[test]
fn r10_the_default_name_does_not_tell_what_made_it() {
    assert_eq!(Cookie::default().name(), "__Host-id");
    for word in ["redis", "session", "sess", "axum", "rust"] {
        assert!(!Cookie::default().name().to_lowercase().contains(word), "{word}");
    }
}

fn text(line: &HeaderValue) -> String {
    line.to_str().unwrap().to_owned()
}

/// `PROPTEST_CASES` sets how many.
fn properties() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn a_name() -> impl Strategy<Value = String> {
    let prefixes = ["", "__Host-", "__Secure-", "__Http-", "__Host-Http-", "__host-", "__SECURE-", "__Host"];
    let rest = prop_oneof![
        4 => "[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,20}",
        1 => "[a-z]{0,140}",
        1 => any::<String>(),
    ];
    (proptest::sample::select(prefixes.to_vec()), rest).prop_map(|(prefix, rest)| format!("{prefix}{rest}"))
}

fn a_domain() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "([a-zA-Z0-9-]{1,10}[.]){1,4}[a-z]{2,10}",
        1 => "[a-zA-Z0-9.-]{0,300}[.][a-z]{2}",
        1 => any::<String>().prop_map(|text| format!("{text}.example")),
    ]
}

fn a_path() -> impl Strategy<Value = String> {
    prop_oneof![4 => "/[!-~]{0,40}", 1 => "/[a-z/]{0,1100}", 1 => any::<String>()]
}

fn any_cookie() -> impl Strategy<Value = Cookie> {
    let same_site = proptest::sample::select(vec![SameSite::Lax, SameSite::Strict, SameSite::None]);
    let path = prop_oneof![3 => Just(None), 2 => a_path().prop_map(Some)];
    let domain = prop_oneof![3 => Just(None), 2 => a_domain().prop_map(Some)];
    // Most names have a prefix, and most prefixes refuse much: more tries there.
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.3), prop::bool::weighted(0.15));
    (a_name(), path, domain, same_site, flags).prop_map(
        |(name, path, domain, same_site, (partitioned, persistent, insecure))| {
            let mut cookie = Cookie { secure: !insecure, ..Cookie::named(name) }.same_site(same_site);
            if let Some(path) = path {
                cookie = cookie.path(path);
            }
            if let Some(domain) = domain {
                cookie = cookie.domain(domain);
            }
            if partitioned {
                cookie = cookie.partitioned();
            }
            if persistent {
                cookie = cookie.persistent();
            }
            cookie
        },
    )
}

/// The attributes of a line, with their values; each once.
fn attributes(line: &str) -> Vec<(&str, &str)> {
    let found: Vec<_> = line.split("; ").skip(1).map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
    for (at, (name, _)) in found.iter().enumerate() {
        assert!(!found[..at].iter().any(|(before, _)| before == name), "{line}");
    }
    found
}

proptest! {
    #![proptest_config(properties())]

    #[test]
    fn r15_r16_r18_r19_r22_r29_browsers_keep_every_setting_that_is_taken_exactly_as_it_is_meant(
        cookie in any_cookie(), max_age in proptest::option::of(1..=DAYS_400.as_secs()),
    ) {
        let Err(refused) = cookie.check() else {
            round_trip(&cookie, max_age);
            return Ok(());
        };
        prop_assert!(refused.is_config());
    }
}

/// Gives and removes a cookie with these settings, to a browser that knows the rules by itself.
fn round_trip(cookie: &Cookie, max_age: Option<u64>) {
    let signer = KeyRing::random().unwrap().signer("main", &cookie.name);
    let id = SessionId::random(&Random::system()).unwrap();
    let given = cookie.line(&id, &signer, max_age.map(Duration::from_secs));
    assert!(given.is_sensitive() && cookie.removal().is_sensitive());
    let line = text(&given);
    let value = signer.sign(&id);

    let attributes_of_line = attributes(&line);
    let has = |name| attributes_of_line.iter().any(|(known, _)| *known == name);
    assert!(has("HttpOnly") && has("SameSite") && has("Path"), "{line}");
    assert_eq!(has("Secure"), cookie.secure, "{line}");
    assert_eq!(has("Partitioned"), cookie.partitioned, "{line}");
    assert_eq!((has("Max-Age"), has("Expires")), (max_age.is_some(), false), "{line}");
    assert!(cookie.name.len() + value.len() <= 256, "{line}");
    assert!(attributes_of_line.iter().all(|(_, value)| value.len() <= 1024), "{line}");

    let host = cookie.domain.as_deref().unwrap_or("shop.example");
    let url = format!("https://{host}/").parse().unwrap();
    let mut jar = CookieJar::new();
    assert_eq!(jar.receive(&url, &line), Received::Stored, "{line}");
    let kept = jar.get(&cookie.name).unwrap();
    assert_eq!((kept.value.as_str(), kept.path.as_str()), (value.as_str(), cookie.path.as_str()), "{line}");
    assert_eq!((kept.secure, kept.http_only, kept.host_only), (cookie.secure, true, cookie.domain.is_none()), "{line}");
    assert!(kept.domain.eq_ignore_ascii_case(host), "{line}");
    assert_eq!(kept.same_site, Some(format!("{:?}", cookie.same_site).to_lowercase()), "{line}");
    assert_eq!(kept.expires.is_some(), max_age.is_some(), "{line}");

    let removal = text(&cookie.removal());
    let without_age = |line| attributes(line).into_iter().filter(|(name, _)| *name != "Max-Age").collect::<Vec<_>>();
    assert_eq!(without_age(&removal), without_age(&line));
    assert!(removal.starts_with(&format!("{}=;", cookie.name)) && removal.ends_with("; Max-Age=0"), "{removal}");
    assert_eq!(jar.receive(&url, &removal), Received::Removed, "{removal}");
    assert!(jar.cookies().is_empty(), "{removal}");
}

#[test]
fn r18_r29_the_property_meets_enough_settings_that_are_taken() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut taken = 0;
    for _ in 0..1000 {
        let cookie = any_cookie().new_tree(&mut runner).unwrap().current();
        taken += u32::from(cookie.check().is_ok());
    }
    assert!(taken > 150, "{taken} of 1000");
}
