//! The keys that sign session cookies, and the signed form of an id.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Kind};
use crate::id::SessionId;
use crate::random::Random;
use crate::user::User;

const VERSION: u8 = b'1';
const KEY_ID: usize = 4;
const TAG: usize = 16;
const SIGNED: usize = KEY_ID + 32 + TAG;
/// One character for the version, and base64url of key id, id and tag.
const TEXT: usize = 1 + (SIGNED * 8).div_ceil(6);

/// The keys of an application: the current one signs, all verify.
///
/// To change keys, deploy with the new one first and the old one as [`previous`](Self::previous); drop the old one
/// after one absolute timeout, or after as long as visitors may be remembered if that is longer: a cookie is signed anew
/// only when it is sent anyway.
///
/// ```
/// use redis_session_core::KeyRing;
///
/// # fn secret(_: &str) -> [u8; 32] { redis_session_core::Random::system().array().unwrap() }
/// let keys = KeyRing::new(secret("session-key"))?.previous(secret("the one that signed until last month"))?;
/// assert_eq!(format!("{keys:?}"), "KeyRing(2 keys)");
/// assert!(KeyRing::new(b"too short").is_err());
/// # Ok::<(), redis_session_core::Error>(())
/// ```
///
/// # Security
///
/// Who has a key can make cookies for ids that exist; he still has to guess one. Keys are at least 32 bytes from a
/// generator (`openssl rand -base64 32`). They are wiped from memory when the ring is dropped.
#[derive(Clone)]
pub struct KeyRing(Vec<Arc<Master>>);

struct Master(Zeroizing<Vec<u8>>);

impl KeyRing {
    /// A ring whose only key signs and verifies.
    ///
    /// # Errors
    /// [`is_config`](Error::is_config): shorter than 32 bytes, or plainly not from a generator.
    pub fn new(current: impl AsRef<[u8]>) -> Result<Self, Error> {
        Ok(Self(vec![master(current.as_ref())?]))
    }

    /// Adds a key that verifies only.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn previous(mut self, old: impl AsRef<[u8]>) -> Result<Self, Error> {
        self.0.push(master(old.as_ref())?);
        Ok(self)
    }

    /// From an environment variable: base64 keys, separated by commas or white space. The first signs.
    ///
    /// # Errors
    /// [`is_config`](Error::is_config): not set, not base64, or as [`new`](Self::new).
    pub fn from_env(variable: &str) -> Result<Self, Error> {
        let text = std::env::var(variable).map_err(|_| {
            config(format!(
                "the environment variable {variable} holds no key: set it to the output of `openssl rand -base64 32`"
            ))
        })?;
        Self::from_base64(Zeroizing::new(text), &format!("the environment variable {variable}"))
    }

    /// From a file: base64 keys, separated by commas or white space. The first signs.
    ///
    /// # Errors
    /// [`is_config`](Error::is_config): not readable, not base64, or as [`new`](Self::new).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::caused(Kind::Config, format!("the key file {} cannot be read", path.display()), e))?;
        Self::from_base64(Zeroizing::new(text), &format!("the key file {}", path.display()))
    }

    /// A ring with a fresh random key, for development and tests: its cookies die with the process.
    ///
    /// # Errors
    /// The system's random generator failed.
    pub fn random() -> Result<Self, Error> {
        Self::new(Random::system().array::<32>()?)
    }

    fn from_base64(text: Zeroizing<String>, place: &str) -> Result<Self, Error> {
        let keys = text
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|word| !word.is_empty())
            .enumerate()
            .map(|(nth, word)| {
                let nth = nth + 1;
                let word = word.trim_end_matches('=').replace('-', "+").replace('_', "/");
                let bytes = STANDARD_NO_PAD
                    .decode(Zeroizing::new(word).as_bytes())
                    .map(Zeroizing::new)
                    .map_err(|_| config(format!("key {nth} in {place} is not base64")))?;
                master(&bytes).map_err(|e| config(format!("key {nth} in {place}: {e}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(config(format!("{place} holds no key: set it to the output of `openssl rand -base64 32`")));
        }
        Ok(Self(keys))
    }

    /// What signs and verifies the cookie of one layer.
    pub fn signer(&self, realm: &str, cookie_name: &str) -> Signer {
        Signer { keys: self.0.iter().map(|key| SigningKey::derive(key, realm, cookie_name)).collect() }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.0.len())
    }
}

fn config(message: String) -> Error {
    Error::new(Kind::Config, message)
}

fn master(bytes: &[u8]) -> Result<Arc<Master>, Error> {
    if bytes.len() < 32 {
        return Err(config(format!(
            "a key needs at least 32 bytes, this one has {}: use `openssl rand -base64 32`",
            bytes.len()
        )));
    }
    if looks_made_up(bytes) {
        return Err(config("a key must come from a generator, this one repeats itself or is from the docs: use `openssl rand -base64 32`".into()));
    }
    Ok(Arc::new(Master(Zeroizing::new(bytes.to_vec()))))
}

/// Fewer different bytes than any generator yields, a run such as 0, 1, 2 …, or the key that documents show.
fn looks_made_up(bytes: &[u8]) -> bool {
    let mut seen = [false; 256];
    for byte in bytes {
        seen[usize::from(*byte)] = true;
    }
    let different = seen.iter().filter(|seen| **seen).count();
    let counts_up = bytes.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1));
    let documented = [
        &b"0123456789abcdef"[..],
        b"0123456789ABCDEF",
        b"correct horse battery",
        b"secret key",
        b"super-secret",
        b"changeme",
        b"change me",
        b"keyboard cat",
        b"from a generator",
    ];
    different < 12 || counts_up || documented.iter().any(|text| bytes.windows(text.len()).any(|part| part == *text))
}

type HmacSha256 = Hmac<Sha256>;

/// Signs and verifies the ids in one layer's cookie: the MAC covers purpose, version, realm, cookie name, key id and id.
#[derive(Clone)]
pub struct Signer {
    /// The first signs.
    keys: Vec<SigningKey>,
}

/// Why a cookie's value is no id of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unverified {
    /// Not of the form that this library writes.
    Malformed,
    /// Signed with a key that is not, or no longer, in the ring.
    UnknownKey,
    /// Not signed by us for this realm and cookie name.
    BadSignature,
}

impl Signer {
    /// The cookie's value for an id.
    pub fn sign(&self, id: &SessionId) -> String {
        let key = &self.keys[0];
        let mut id = id.bytes();
        let mut signed = [0; SIGNED];
        signed[..KEY_ID].copy_from_slice(&key.id);
        signed[KEY_ID..KEY_ID + 32].copy_from_slice(&id);
        signed[KEY_ID + 32..].copy_from_slice(&key.mac(&id).finalize().into_bytes()[..TAG]);
        let mut text = String::with_capacity(TEXT);
        text.push(char::from(VERSION));
        URL_SAFE_NO_PAD.encode_string(signed, &mut text);
        id.zeroize();
        signed.zeroize();
        text
    }

    /// Whether a value has the length and the version of ours: what is cheap to ask before the MAC.
    pub fn is_well_formed(value: &[u8]) -> bool {
        value.len() == TEXT && value[0] == VERSION
    }

    /// The id in a cookie's value: length, alphabet and version first, then the MAC.
    ///
    /// # Errors
    /// It is not an id that this ring signed for this realm and cookie name.
    pub fn verify(&self, value: &[u8]) -> Result<SessionId, Unverified> {
        self.verify_and_name_key(value).map(|(id, _)| id)
    }

    /// As [`verify`](Self::verify), and which key it was signed with.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn verify_and_name_key(&self, value: &[u8]) -> Result<(SessionId, KeyId), Unverified> {
        if !Self::is_well_formed(value) {
            return Err(Unverified::Malformed);
        }
        let mut signed = [0; SIGNED];
        if URL_SAFE_NO_PAD.decode_slice(&value[1..], &mut signed) != Ok(SIGNED) {
            return Err(Unverified::Malformed);
        }
        let (key_id, rest) = signed.split_at(KEY_ID);
        let (id, tag) = rest.split_at(32);
        let key = self.keys.iter().find(|key| key.id == key_id).ok_or(Unverified::UnknownKey)?;
        key.mac(id).verify_truncated_left(tag).map_err(|_| Unverified::BadSignature)?;
        let id = <&[u8; 32]>::try_from(id).map(SessionId::from_bytes).map_err(|_| Unverified::Malformed)?;
        Ok((id, KeyId(key.id)))
    }

    /// The MACs of what a form's token is bound to, by all keys; the first is the one that signs.
    pub(crate) fn form_macs(&self, bound_to: &[u8]) -> impl Iterator<Item = HmacSha256> {
        self.keys.iter().map(move |key| with_parts(key.forms.clone(), [bound_to]))
    }

    /// The key that signs.
    pub fn current(&self) -> KeyId {
        KeyId(self.keys[0].id)
    }

    /// The id that takes the place of one that was signed with this key: the same for all requests that come with it, on
    /// whatever server, so that none of their answers takes the session away from the others.
    pub fn successor(&self, id: &SessionId, key: KeyId, of: Derivation<'_>) -> SessionId {
        // A key that is not in the ring has signed nothing that this ring verified.
        let key = self.keys.iter().find(|own| own.id == key.0).unwrap_or(&self.keys[0]);
        let (purpose, user) = match of {
            Derivation::Login(user) => (b"login".as_slice(), user.as_str()),
            Derivation::Renewal => (b"renew".as_slice(), ""),
        };
        let mut old = id.bytes();
        let mac = with_parts(key.proofs.clone(), [purpose, &old, user.as_bytes()]);
        old.zeroize();
        let mut new = [0; 16];
        new.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        id.proved_by(new)
    }

    /// The id under which a session of other software goes on, whose own id this is: the same for all requests that come
    /// with it, on whatever server, so that they meet in one session. `from` names the software.
    ///
    /// By the oldest key of the ring, so that it stays the same when a new key comes first; when the oldest is dropped,
    /// it changes.
    pub fn taken_over(&self, from: &str, old: &[u8]) -> SessionId {
        let key = self.keys.last().unwrap_or(&self.keys[0]);
        let mac = with_parts(key.proofs.clone(), [b"taken over", from.as_bytes(), old]);
        SessionId::from_bytes(&mac.finalize().into_bytes().into())
    }
}

impl Signer {
    /// A name for an id in a log: the same as long as the id is, and of no use as a cookie or a key. Eight characters.
    pub fn log_name(&self, id: &SessionId) -> String {
        let mut bytes = id.bytes();
        let mac = with_parts(self.keys[0].names.clone(), [b"log", &bytes]);
        bytes.zeroize();
        URL_SAFE_NO_PAD.encode(&mac.finalize().into_bytes()[..6])
    }

    /// What is kept of a text that tells by what network and browser a session is used.
    pub fn client_mark(&self, client: &str) -> String {
        self.keys[0].client_mark(client)
    }

    /// Whether this is the mark of such a text, under whichever key.
    pub fn is_mark_of(&self, mark: &str, client: &str) -> bool {
        self.keys.iter().any(|key| key.client_mark(client) == mark)
    }
}

/// Which of a ring's keys has signed an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId([u8; KEY_ID]);

/// What the successor of an id is for.
#[derive(Clone, Copy, Debug)]
pub enum Derivation<'a> {
    /// The login of this user.
    Login(&'a User),
    /// A timed renewal.
    Renewal,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} keys)", self.keys.len())
    }
}

#[derive(Clone)]
struct SigningKey {
    id: [u8; KEY_ID],
    /// Signs ids. Everything but the id is hashed in already.
    begun: HmacSha256,
    /// Derives the proofs that take the place of others.
    proofs: HmacSha256,
    /// Makes the tokens of forms.
    forms: HmacSha256,
    /// Makes names that say nothing of what they stand for.
    names: HmacSha256,
}

impl SigningKey {
    fn derive(master: &Master, realm: &str, cookie_name: &str) -> Self {
        let master = Hkdf::<Sha256>::new(None, &master.0);
        let mut id = [0; KEY_ID];
        master.expand(b"redis-session key id 1", &mut id).expect("4 bytes are fewer than HKDF's limit");
        let keyed = |label: &[u8], purpose: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            master.expand(label, key.as_mut()).expect("32 bytes are fewer than HKDF's limit");
            let mac = HmacSha256::new_from_slice(key.as_ref()).expect("HMAC takes a key of any length");
            with_parts(mac, [purpose, &[VERSION], realm.as_bytes(), cookie_name.as_bytes(), &id])
        };
        let begun = keyed(b"redis-session cookie mac 1", b"session cookie");
        let proofs = keyed(b"redis-session proof 1", b"session proof");
        let forms = keyed(b"redis-session form token 1", b"form token");
        let names = keyed(b"redis-session name 1", b"name");
        Self { id, begun, proofs, forms, names }
    }

    fn client_mark(&self, client: &str) -> String {
        let mac = with_parts(self.names.clone(), [b"client", client.as_bytes()]);
        URL_SAFE_NO_PAD.encode(&mac.finalize().into_bytes()[..12])
    }

    fn mac(&self, id: &[u8]) -> HmacSha256 {
        with_parts(self.begun.clone(), [id])
    }
}

/// Each part after its length, so that no two lists of parts are one text.
fn with_parts<const N: usize>(mut mac: HmacSha256, parts: [&[u8]; N]) -> HmacSha256 {
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use std::fmt::Display;
    use std::ops::Deref;

    use base64::engine::general_purpose::STANDARD;
    use serde::Serialize;
    use static_assertions::{assert_impl_all, assert_not_impl_any};
    use zeroize::ZeroizeOnDrop;

    use super::*;

    fn ring(seed: u8) -> KeyRing {
        KeyRing::new(key(seed)).unwrap()
    }

    fn key(seed: u8) -> Vec<u8> {
        (0..32u8).map(|i| i.wrapping_mul(37).wrapping_add(seed.wrapping_mul(91)) ^ seed).collect()
    }

    #[test]
    fn what_was_signed_verifies_and_has_one_text_form() {
        let signer = ring(1).signer("main", "__Host-id");
        for _ in 0..100 {
            let id = SessionId::random(&Random::system()).unwrap();
            let text = signer.sign(&id);
            assert_eq!(text.len(), TEXT);
            assert_eq!(signer.verify(text.as_bytes()), Ok(id));
        }
    }

    #[test]
    fn r09_every_other_spelling_of_an_id_is_refused() {
        let signer = ring(1).signer("main", "id");
        let text = signer.sign(&SessionId::random(&Random::system()).unwrap());
        for at in 0..text.len() {
            for byte in 0..=255u8 {
                let mut other = text.clone().into_bytes();
                if other[at] == byte {
                    continue;
                }
                other[at] = byte;
                assert!(signer.verify(&other).is_err(), "byte {byte} at {at}");
            }
        }
        for other in [format!("{text}="), format!(" {text}"), text[1..].to_owned(), String::new(), text.to_uppercase()]
        {
            assert!(signer.verify(other.as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn r99_a_value_of_another_realm_name_or_boundary_is_refused() {
        let keys = ring(1);
        let text = keys.signer("ab", "c").sign(&SessionId::random(&Random::system()).unwrap());
        for (realm, name) in [("ab", "d"), ("x", "c"), ("a", "bc"), ("abc", ""), ("", "abc")] {
            assert_eq!(keys.signer(realm, name).verify(text.as_bytes()), Err(Unverified::BadSignature));
        }
    }

    #[test]
    fn what_is_taken_over_has_one_id_on_all_servers_and_while_keys_change() {
        let taken = |ring: KeyRing, realm, from, old: &[u8]| ring.signer(realm, "id").taken_over(from, old).bytes();
        let here = taken(ring(1), "main", "theirs", b"old");
        assert_eq!(here, taken(ring(1), "main", "theirs", b"old"));
        assert_eq!(here, taken(ring(2).previous(key(1)).unwrap(), "main", "theirs", b"old"), "a newer key signs");
        for other in [
            taken(ring(2), "main", "theirs", b"old"),
            taken(ring(1), "office", "theirs", b"old"),
            taken(ring(1), "main", "theirsold", b""),
            taken(ring(1), "main", "theirs", b"older"),
        ] {
            assert_ne!(here, other);
        }
    }

    #[test]
    fn r101_the_newest_signs_all_verify_and_removed_keys_stop() {
        let id = SessionId::random(&Random::system()).unwrap();
        let old = ring(1).signer("main", "id").sign(&id);
        let both = ring(2).previous(key(1)).unwrap().signer("main", "id");
        assert_eq!(both.verify(old.as_bytes()), Ok(id.clone()));
        let new = both.sign(&id);
        assert_ne!(new, old);
        let only_new = ring(2).signer("main", "id");
        assert_eq!(only_new.verify(new.as_bytes()), Ok(id));
        assert_eq!(only_new.verify(old.as_bytes()), Err(Unverified::UnknownKey));
    }

    #[test]
    fn r98_keys_that_no_generator_made_are_refused() {
        let bad: [&[u8]; 7] = [
            // The documentation of this type had it once.
            b"\x8f\x1d the bytes of a real key come \xe1 \x05 from a generator",
            b"",
            &key(1)[..31],
            &[7; 32],
            b"0123456789abcdef0123456789abcdef",
            b"this is a very secret key, honest!!",
            &(0..64).collect::<Vec<u8>>(),
        ];
        for bytes in bad {
            assert!(KeyRing::new(bytes).is_err_and(|e| e.is_config()), "{bytes:?}");
        }
    }

    #[test]
    fn r99_r103_the_mac_is_over_parts_with_their_lengths_under_a_key_of_its_own() {
        let derived = |label: &[u8]| {
            let mut bytes = [0; 32];
            Hkdf::<Sha256>::new(None, &key(3)).expand(label, &mut bytes).unwrap();
            bytes
        };
        let (id_key, mac_key) = (derived(b"redis-session key id 1"), derived(b"redis-session cookie mac 1"));
        assert_ne!(id_key[..4], mac_key[..4]);
        let mut mac = HmacSha256::new_from_slice(&mac_key).unwrap();
        for part in [b"session cookie".as_slice(), b"1", b"main", b"id", &id_key[..4], &[9; 32]] {
            mac.update(&[0, 0, 0, 0, 0, 0, 0, u8::try_from(part.len()).unwrap()]);
            mac.update(part);
        }
        let tag = &mac.finalize().into_bytes()[..TAG];
        // Changing this text logs every visitor of every deployment out.
        assert_eq!(
            (&id_key[..4], URL_SAFE_NO_PAD.encode(tag).as_str()),
            ([229, 206, 132, 192].as_slice(), "cDcLWRbZw959D7W3VFwz9g")
        );

        let text = ring(3).signer("main", "id").sign(&SessionId::from_bytes(&[9; 32]));
        let signed = [&id_key[..4], &[9; 32], tag].concat();
        assert_eq!(text, format!("1{}", URL_SAFE_NO_PAD.encode(signed)));
    }

    #[test]
    fn r102_r106_the_version_comes_first_and_no_other_version_or_key_is_tried() {
        let signer = ring(1).previous(key(2)).unwrap().signer("main", "id");
        let id = SessionId::random(&Random::system()).unwrap();
        let good = signer.sign(&id);
        assert_eq!(good.as_bytes()[0], b'1');
        let with_version = |version: u8| [&[version], &good.as_bytes()[1..]].concat();
        for version in (0..=255).filter(|version| *version != b'1') {
            assert_eq!(signer.verify(&with_version(version)), Err(Unverified::Malformed), "{version}");
        }
        let with_key_id = |key_id: &[u8]| {
            let mut signed = URL_SAFE_NO_PAD.decode(&good[1..]).unwrap();
            signed[..KEY_ID].copy_from_slice(key_id);
            format!("1{}", URL_SAFE_NO_PAD.encode(signed)).into_bytes()
        };
        let [first, second] = signer.keys.as_slice() else { panic!("two keys") };
        assert_eq!(signer.verify(&with_key_id(&first.id)), Ok(id));
        assert_eq!(signer.verify(&with_key_id(&second.id)), Err(Unverified::BadSignature));
        for unknown in [[0; KEY_ID], [255; KEY_ID], *b"none"] {
            assert_eq!(signer.verify(&with_key_id(&unknown)), Err(Unverified::UnknownKey));
        }
    }

    /// The crates say of their types whether dropping wipes them, and of ours, all that is in them is looked at.
    #[test]
    fn r105_keys_are_wiped_and_cannot_be_copied_serialised_or_shown() {
        fn is_wiped(_: &impl ZeroizeOnDrop) {}
        // What an HMAC keeps of its key is the state of two of these; of itself the crate does not say it.
        assert_impl_all!(Sha256: ZeroizeOnDrop);
        fn is_of_wiped_states(_: &Hmac<Sha256>) {}
        let ring = ring(1);
        let Master(bytes) = &*ring.0[0];
        is_wiped(bytes);
        let SigningKey { id: _, begun, proofs, forms, names } = &ring.signer("main", "id").keys[0];
        [begun, proofs, forms, names].into_iter().for_each(is_of_wiped_states);
        assert_not_impl_any!(KeyRing: Copy, Serialize, Display, Deref, AsRef<[u8]>);
        assert_not_impl_any!(Signer: Copy, Serialize, Display, Deref, AsRef<[u8]>);
        let keys = ring.previous(key(2)).unwrap();
        assert_eq!(format!("{keys:?} {:?}", keys.signer("main", "id")), "KeyRing(2 keys) Signer(2 keys)");
    }

    /// A comparison that ends at the first difference tells how much of a forged tag was right.
    #[test]
    fn r100_tags_and_proofs_are_compared_in_constant_time() {
        let body = |source: &'static str, begin: &str| {
            let (_, rest) = source.split_once(begin).unwrap_or_else(|| panic!("there is no {begin:?} any more"));
            rest.split_once("\n    }\n").unwrap().0
        };
        let verify = body(include_str!("key_ring.rs"), "pub fn verify_and_name_key(&self, value: &[u8])");
        assert!(verify.contains("verify_truncated_left(tag)") && !verify.contains("== tag"), "{verify}");
        let form = body(include_str!("csrf.rs"), "pub fn is_form_token(&self, text: &[u8], of: FormOf<'_>)");
        assert!(form.contains("verify_truncated_left(&tag)") && !form.contains("== tag"), "{form}");
        let equal = body(include_str!("id.rs"), "impl PartialEq for Proof {");
        assert!(equal.contains("ct_eq") && !equal.contains("self.0 =="), "{equal}");
    }

    #[test]
    fn the_successor_of_an_id_depends_on_it_on_its_key_its_purpose_and_its_user_and_on_nothing_else() {
        let id = SessionId::random(&Random::system()).unwrap();
        let (ada, bob) = (User::new("ada").unwrap(), User::new("bob").unwrap());
        let old = ring(2).signer("main", "id");
        let both = ring(1).previous(key(2)).unwrap().signer("main", "id");
        let other_order = ring(2).previous(key(1)).unwrap().signer("main", "id");
        let (same, by) = both.verify_and_name_key(old.sign(&id).as_bytes()).unwrap();
        assert_eq!(same, id);
        let login = both.successor(&id, by, Derivation::Login(&ada));
        // During a deployment one server signs with the new key already, and another does not know it yet.
        for signer in [&old, &other_order] {
            assert_eq!(signer.successor(&id, by, Derivation::Login(&ada)), login);
        }
        let (_, new_key) = both.verify_and_name_key(both.sign(&id).as_bytes()).unwrap();
        let others = [
            id.clone(),
            both.successor(&id, by, Derivation::Login(&bob)),
            both.successor(&id, by, Derivation::Renewal),
            both.successor(&id, new_key, Derivation::Login(&ada)),
            both.successor(&id.rotated(&Random::system()).unwrap(), by, Derivation::Login(&ada)),
            ring(2).signer("office", "id").successor(&id, by, Derivation::Login(&ada)),
            ring(2).signer("main", "other").successor(&id, by, Derivation::Login(&ada)),
        ];
        for other in others {
            assert_ne!(other.proof(), login.proof());
            assert_eq!(other.key(&"main".into()), login.key(&"main".into()));
        }
    }

    #[test]
    fn keys_come_from_a_file_or_a_variable_in_base64() {
        let path = std::env::temp_dir().join(format!("redis-session-key-{}", std::process::id()));
        std::fs::write(&path, format!("{}\n{}\n", STANDARD.encode(key(1)), URL_SAFE_NO_PAD.encode(key(2)))).unwrap();
        let keys = KeyRing::from_file(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(format!("{keys:?}"), "KeyRing(2 keys)");
        let id = SessionId::random(&Random::system()).unwrap();
        let text = ring(2).signer("main", "id").sign(&id);
        assert_eq!(keys.signer("main", "id").verify(text.as_bytes()), Ok(id));
        assert!(KeyRing::from_file(&path).is_err_and(|e| e.is_config()));
        assert!(KeyRing::from_env("REDIS_SESSION_NO_SUCH_VARIABLE").is_err_and(|e| e.is_config()));
    }

    #[test]
    fn r01_a_million_ids_are_distinct_and_every_bit_is_fair() {
        const IDS: u32 = 1_000_000;
        let random = Random::system();
        let mut ids: Vec<[u8; 32]> = (0..IDS).map(|_| SessionId::random(&random).unwrap().bytes()).collect();
        // How often each byte has each value, which costs less than to count the bits of each.
        let mut counts = [[0u32; 256]; 32];
        for id in &ids {
            for (counts, byte) in counts.iter_mut().zip(id) {
                counts[usize::from(*byte)] += 1;
            }
        }
        for (bit, counts) in (0..256).map(|bit| (bit, &counts[bit / 8])) {
            let ones: u32 =
                counts.iter().enumerate().filter(|(byte, _)| byte >> (bit % 8) & 1 == 1).map(|(_, n)| n).sum();
            // Eight standard deviations: chance alone does not come there.
            let share = f64::from(ones) / f64::from(IDS);
            assert!((share - 0.5).abs() < 0.004, "bit {bit}: {share}");
        }
        ids.sort_unstable();
        assert!(ids.windows(2).all(|two| two[0] != two[1]));
    }

    #[test]
    fn r01_two_key_rings_have_different_keys() {
        let id = SessionId::random(&Random::system()).unwrap();
        let signed = || KeyRing::random().unwrap().signer("main", "id").sign(&id);
        assert_ne!(signed(), signed());
    }
}
