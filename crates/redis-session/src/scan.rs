//! Finds our cookie in the raw bytes of a request's Cookie lines (RFC 6265bis, section 4.2), and the id in it.
//!
//! By hand, since jars percent-decode names, give up at one byte that is not UTF-8, and pay for each foreign cookie.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use redis_session_core::{KeyId, SessionId, Signer, Unverified};

use crate::events::Refusal;

/// The longest Cookie lines, together, that are looked at.
const LONGEST: usize = 128 * 1024;
/// How many different values of our name are checked at most.
const CANDIDATES: usize = 4;

/// A request's Cookie lines, kept until somebody asks for the session.
#[derive(Clone, Default)]
pub(crate) struct CookieLines {
    /// Nearly every request has one line at most; HTTP/2 and HTTP/3 may have more.
    first: Option<HeaderValue>,
    more: Vec<HeaderValue>,
}

impl CookieLines {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(COOKIE).iter().cloned().map(|mut line| {
            line.set_sensitive(true);
            line
        });
        Self { first: lines.next(), more: lines.collect() }
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.first.iter().chain(&self.more).map(HeaderValue::as_bytes)
    }
}

/// What the Cookie lines hold.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    /// The id, if exactly one was signed by us.
    pub(crate) id: Option<SessionId>,
    /// The key that signed it. `None` where there is no id.
    pub(crate) signed_by: Option<KeyId>,
    /// Whether a cookie of our name came at all.
    pub(crate) presented: bool,
    /// Why there is no id although a cookie of our name came; or what else was wrong.
    pub(crate) refusal: Option<Refusal>,
}

impl Scanned {
    fn refused(refusal: Refusal) -> Self {
        Self { presented: true, refusal: Some(refusal), ..Self::default() }
    }
}

/// Looks for cookies of this name. The outcome does not depend on their order.
pub(crate) fn scan(lines: &CookieLines, name: &str, signer: &Signer) -> Scanned {
    if lines.iter().map(<[u8]>::len).sum::<usize>() > LONGEST {
        return Scanned::refused(Refusal::HeaderTooLarge);
    }
    let mut scanned = Scanned::default();
    let (mut found, mut count) = ([&b""[..]; CANDIDATES], 0);
    for value in lines.iter().flat_map(|line| values(line, name.as_bytes())) {
        scanned.presented = true;
        if !Signer::is_well_formed(value) {
            scanned.refusal = worst(scanned.refusal, Refusal::Malformed);
        } else if !found[..count].contains(&value) {
            if count == CANDIDATES {
                return Scanned::refused(Refusal::SeveralIds);
            }
            found[count] = value;
            count += 1;
        }
    }
    for value in &found[..count] {
        match signer.verify_and_name_key(value) {
            Ok(_) if scanned.id.is_some() => return Scanned::refused(Refusal::SeveralIds),
            Ok((id, key)) => (scanned.id, scanned.signed_by) = (Some(id), Some(key)),
            Err(unverified) => scanned.refusal = worst(scanned.refusal, unverified.into()),
        }
    }
    scanned
}

/// What the cookies of another software's name stand for. `None`: there is none. What is refused counts only where nothing
/// else is found.
///
/// # Errors
/// There are none but refused ones, several that stand for different things, or too many.
pub(crate) fn scan_foreign<T: PartialEq>(
    lines: &CookieLines,
    name: &str,
    read: impl Fn(&[u8]) -> Result<T, Refusal>,
) -> Result<Option<T>, Refusal> {
    if lines.iter().map(<[u8]>::len).sum::<usize>() > LONGEST {
        return Err(Refusal::HeaderTooLarge);
    }
    let (mut found, mut refusal) = (None, None);
    for (nth, value) in lines.iter().flat_map(|line| values(line, name.as_bytes())).enumerate() {
        if nth == CANDIDATES {
            return Err(Refusal::SeveralIds);
        }
        match (read(value), &found) {
            (Ok(one), None) => found = Some(one),
            (Ok(one), Some(other)) if one == *other => {}
            (Ok(_), Some(_)) => return Err(Refusal::SeveralIds),
            (Err(other), _) => refusal = worst(refusal, other),
        }
    }
    match (found, refusal) {
        (None, Some(refusal)) => Err(refusal),
        (found, _) => Ok(found),
    }
}

/// Whether there is a cookie of a name.
pub(crate) fn has(lines: &CookieLines, name: &str) -> bool {
    lines.iter().flat_map(|line| values(line, name.as_bytes())).next().is_some()
}

/// The values of all cookies of a name in one line.
fn values<'a>(line: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    // Byte for byte: what a server forgives in a name is a way around what browsers promise of `__Host-`.
    line.split(|byte| *byte == b';').filter_map(move |pair| trim(pair).strip_prefix(name)?.strip_prefix(b"="))
}

/// Without spaces and tabs around it.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Of two refusals the one that says more: a forged value rather than one that is merely of no form of ours.
fn worst(one: Option<Refusal>, other: Refusal) -> Option<Refusal> {
    let weight = |refusal: Refusal| match refusal {
        Refusal::BadSignature => 3,
        Refusal::UnknownKey => 2,
        _ => 1,
    };
    Some(one.filter(|one| weight(*one) >= weight(other)).unwrap_or(other))
}

impl From<Unverified> for Refusal {
    fn from(unverified: Unverified) -> Self {
        match unverified {
            Unverified::Malformed => Self::Malformed,
            Unverified::UnknownKey => Self::UnknownKey,
            Unverified::BadSignature => Self::BadSignature,
        }
    }
}

#[cfg(test)]
mod tests;
