//! Session ids: a half that finds the record and a half that proves the right to it.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::error::Error;
use crate::index::SessionHandle;
use crate::random::Random;

/// The id of a session: 16 bytes that find its record, 16 bytes that prove the right to it.
///
/// There is no text form, no `Display` and no `Serialize`: an id leaves the server inside a signed cookie only, and
/// comes back through [`Signer::verify`](crate::Signer::verify) only.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionId {
    find: [u8; 16],
    prove: [u8; 16],
}

impl SessionId {
    /// A new id, straight from the generator.
    pub fn random(random: &Random) -> Result<Self, Error> {
        Ok(Self { find: random.array()?, prove: random.array()? })
    }

    /// The same record with a new proving half: what a rotation hands out.
    pub fn rotated(&self, random: &Random) -> Result<Self, Error> {
        Ok(Self { find: self.find, prove: random.array()? })
    }

    /// The id that goes with a secret of another kind, such as the id of a session elsewhere: the same each time, and
    /// nothing of the secret shows in either half. `purpose` keeps those of different uses apart.
    ///
    /// # Security
    /// Who knows the secret has the session, so it must be as hard to guess as an id: 128 bits from a generator.
    pub fn derived(purpose: &str, secret: &[u8]) -> Self {
        let mut hash = Sha256::new().chain_update(b"redis-session derived id 1");
        for part in [purpose.as_bytes(), secret] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self::from_bytes(&hash.finalize().into())
    }

    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Self {
        let (mut find, mut prove) = ([0; 16], [0; 16]);
        find.copy_from_slice(&bytes[..16]);
        prove.copy_from_slice(&bytes[16..]);
        Self { find, prove }
    }

    pub(crate) fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.find);
        bytes[16..].copy_from_slice(&self.prove);
        bytes
    }

    /// Where the record of this session is.
    pub fn key(&self, realm: &Arc<str>) -> SessionKey {
        SessionKey::new(realm, self.find)
    }

    /// The same record with this proving half.
    pub(crate) fn proved_by(&self, prove: [u8; 16]) -> Self {
        Self { find: self.find, prove }
    }

    /// What the record holds of the proving half.
    pub fn proof(&self) -> Proof {
        let hash = Sha256::new().chain_update(b"redis-session proof 1").chain_update(self.prove).finalize();
        let mut proof = [0; 16];
        proof.copy_from_slice(&hash[..16]);
        Proof(proof)
    }
}

impl Drop for SessionId {
    fn drop(&mut self) {
        self.prove.zeroize();
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(…)")
    }
}

/// A hash of the proving half of an id: what the record keeps, and what a write has to show.
#[derive(Clone, Copy)]
pub struct Proof([u8; 16]);

impl Proof {
    /// Base64url, 22 characters.
    pub fn to_text(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The same as an array.
    pub fn to_ascii(self) -> [u8; 22] {
        let mut text = [0; 22];
        let written = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text);
        debug_assert_eq!(written, Ok(22));
        text
    }

    /// From [`to_text`](Self::to_text)'s form.
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let mut proof = [0; 16];
        (URL_SAFE_NO_PAD.decode_slice(text, &mut proof) == Ok(16)).then_some(Self(proof))
    }
}

impl PartialEq for Proof {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Proof {}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(…)")
    }
}

/// Where a session's record is: the realm of its layer and the finding half of its id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    realm: Arc<str>,
    find: [u8; 16],
}

impl SessionKey {
    pub(crate) fn new(realm: &Arc<str>, find: [u8; 16]) -> Self {
        Self { realm: realm.clone(), find }
    }

    pub(crate) fn realm(&self) -> &Arc<str> {
        &self.realm
    }

    /// This session in the list of its user's sessions.
    pub fn handle(&self) -> SessionHandle {
        SessionHandle(self.find)
    }

    /// From the text after the realm: what a store finds among its keys.
    pub fn from_text(realm: &Arc<str>, handle: &str) -> Option<Self> {
        handle.parse::<SessionHandle>().ok().map(|handle| handle.key(realm))
    }

    /// The realm and the finding half in base64url: `<realm>:<22 characters>`. A store puts its own prefix before it.
    pub fn to_text(&self) -> String {
        self.to_text_after("")
    }

    /// The same with a store's prefix.
    pub fn to_text_after(&self, prefix: &str) -> String {
        let mut text = String::with_capacity(prefix.len() + self.realm.len() + 23);
        text.push_str(prefix);
        text.push_str(&self.realm);
        text.push(':');
        URL_SAFE_NO_PAD.encode_string(self.find, &mut text);
        text
    }

    /// A few characters that name this key inside its own record, so that a reply that belongs to another key is seen.
    pub fn tag(&self) -> [u8; 6] {
        let mut text = [0; 22];
        let written = URL_SAFE_NO_PAD.encode_slice(self.find, &mut text);
        debug_assert_eq!(written, Ok(22));
        let mut tag = [0; 6];
        tag.copy_from_slice(&text[..6]);
        tag
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey({}:…)", self.realm)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Display;
    use std::ops::Deref;

    use serde::Serialize;
    use static_assertions::assert_not_impl_any;

    use super::*;
    use crate::error::Kind;

    #[test]
    fn r02_where_the_generator_fails_there_is_no_id() {
        // It fails at once, or with the second half.
        for works in 0..2 {
            let left = std::sync::atomic::AtomicI32::new(works);
            let random = Random::scripted(move |bytes| {
                bytes.fill(1);
                match left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) {
                    1.. => Ok(()),
                    _ => Err(Error::new(Kind::Random, "the generator failed")),
                }
            });
            assert_eq!(SessionId::random(&random).unwrap_err().kind(), Kind::Random);
            let id = SessionId::random(&Random::system()).unwrap();
            assert_eq!(id.rotated(&random).unwrap_err().kind(), Kind::Random);
            assert_eq!(crate::Token::random(&random).unwrap_err().kind(), Kind::Random);
        }
    }

    #[test]
    fn r07_an_id_has_no_text_form() {
        assert_not_impl_any!(SessionId: Copy, Display, Serialize, Deref, AsRef<[u8]>, AsRef<str>, Into<String>);
        let id = SessionId::random(&Random::system()).unwrap();
        let shown = format!("{id:?} {:?} {:?}", id.proof(), id.key(&"main".into()));
        assert_eq!(shown, "SessionId(…) Proof(…) SessionKey(main:…)");
    }

    #[test]
    fn r68_a_derived_id_is_the_same_each_time_and_shows_nothing_of_its_secret() {
        let id = |purpose, secret: &[u8]| SessionId::derived(purpose, secret).bytes();
        assert_eq!(id("a", b"secret"), id("a", b"secret"));
        let others = [("a", &b"secre"[..]), ("b", b"secret"), ("as", b"ecret"), ("", b"asecret"), ("asecret", b"")];
        for (purpose, secret) in others {
            assert_ne!(id(purpose, secret), id("a", b"secret"), "{purpose}");
        }
        assert!(!id("a", b"secret").windows(6).any(|part| part == b"secret"));
    }

    #[test]
    fn r69_no_two_realms_or_ids_share_a_key() {
        let ids: Vec<SessionId> = (0..20).map(|_| SessionId::random(&Random::system()).unwrap()).collect();
        let realms = ["", ":", "a", "a:", "a:b", "b", "main", "main:AAAAAAAAAAAAAAAAAAAAAA"];
        let mut keys = std::collections::HashSet::new();
        for id in &ids {
            for realm in realms {
                assert!(keys.insert(id.key(&realm.into()).to_text()));
            }
        }
        assert_eq!(keys.len(), ids.len() * realms.len());
    }
}
