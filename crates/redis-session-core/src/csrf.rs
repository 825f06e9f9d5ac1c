//! The tokens of forms: bound to a session by a MAC, masked anew for each page, stored nowhere.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac;

use crate::index::SessionHandle;
use crate::key_ring::Signer;
use crate::time::Time;
use crate::user::User;

const TAG: usize = 16;
/// Base64url of a pad and a tag under it.
const TEXT: usize = (2 * TAG * 8).div_ceil(6);

/// What a form's token is bound to.
#[derive(Clone, Copy, Debug)]
pub enum FormOf<'a> {
    /// The page of a visitor who has no session.
    Nobody,
    /// A living session: a login or a rotation makes another one of it for this purpose, a timed renewal does not.
    Session {
        /// The half of the id that finds it.
        session: SessionHandle,
        /// When a login, a rotation or the beginning gave it its proof.
        proved: Time,
        /// Who is logged in. `None`: nobody.
        user: Option<&'a User>,
    },
}

impl Signer {
    /// The token for a page. With a pad of its own in each, the text repeats nowhere that a compressed response could
    /// give it away by its length (BREACH).
    pub fn form_token(&self, of: FormOf<'_>, pad: [u8; TAG]) -> String {
        let mut tag = [0; TAG];
        if let Some(mac) = self.form_macs(&of.to_bytes()).next() {
            tag.copy_from_slice(&mac.finalize().into_bytes()[..TAG]);
        }
        let mut masked = [0; 2 * TAG];
        masked[..TAG].copy_from_slice(&pad);
        masked[TAG..].copy_from_slice(&xor(tag, pad));
        URL_SAFE_NO_PAD.encode(masked)
    }

    /// Whether a text is such a token: its length first, then the alphabet, then the MAC.
    pub fn is_form_token(&self, text: &[u8], of: FormOf<'_>) -> bool {
        let mut masked = [0; 2 * TAG];
        if text.len() != TEXT || URL_SAFE_NO_PAD.decode_slice(text, &mut masked) != Ok(2 * TAG) {
            return false;
        }
        let (mut pad, mut tag) = ([0; TAG], [0; TAG]);
        pad.copy_from_slice(&masked[..TAG]);
        tag.copy_from_slice(&masked[TAG..]);
        let tag = xor(tag, pad);
        self.form_macs(&of.to_bytes()).any(|mac| mac.verify_truncated_left(&tag).is_ok())
    }
}

impl FormOf<'_> {
    /// All parts but the last have a fixed length, and no user's id is empty, so no two are one text.
    fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Nobody => Vec::new(),
            Self::Session { session, proved, user } => {
                let user = user.map_or("", User::as_str);
                [session.0.as_slice(), &proved.as_millis().to_be_bytes(), user.as_bytes()].concat()
            }
        }
    }
}

fn xor(mut one: [u8; TAG], other: [u8; TAG]) -> [u8; TAG] {
    one.iter_mut().zip(other).for_each(|(one, other)| *one ^= other);
    one
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;
    use crate::key_ring::KeyRing;
    use crate::random::Random;

    fn key(seed: u8) -> Vec<u8> {
        (0..32u8).map(|i| i.wrapping_mul(37).wrapping_add(seed.wrapping_mul(91)) ^ seed).collect()
    }

    fn signer(seed: u8, realm: &str) -> Signer {
        KeyRing::new(key(seed)).unwrap().signer(realm, "__Host-id")
    }

    fn session() -> SessionHandle {
        SessionId::random(&Random::system()).unwrap().key(&"main".into()).handle()
    }

    #[test]
    fn r67_a_token_is_right_for_its_session_its_user_and_the_time_since_its_login_only() {
        let (ada, bob) = (User::new("ada").unwrap(), User::new("bob").unwrap());
        let (one, other) = (session(), session());
        let at = Time::from_millis;
        let of = |session, proved, user| FormOf::Session { session, proved, user };
        let all = [
            FormOf::Nobody,
            of(one, at(1), None),
            of(one, at(1), Some(&ada)),
            of(one, at(1), Some(&bob)),
            of(one, at(2), Some(&ada)),
            of(other, at(1), None),
        ];
        let signer = signer(1, "main");
        for (nth, bound) in all.iter().enumerate() {
            let token = signer.form_token(*bound, [nth as u8; TAG]);
            for (other, asked) in all.iter().enumerate() {
                assert_eq!(signer.is_form_token(token.as_bytes(), *asked), nth == other, "{bound:?} as {asked:?}");
            }
        }
    }

    #[test]
    fn r67_a_token_is_masked_anew_for_each_page() {
        let (signer, of) = (signer(1, "main"), FormOf::Nobody);
        let (one, other) = (signer.form_token(of, [1; TAG]), signer.form_token(of, [2; TAG]));
        assert!(one.bytes().zip(other.bytes()).filter(|(one, other)| one == other).count() < TEXT / 2);
        assert!(signer.is_form_token(one.as_bytes(), of) && signer.is_form_token(other.as_bytes(), of));
    }

    #[test]
    fn r67_every_other_text_is_refused() {
        let signer = signer(1, "main");
        let token = signer.form_token(FormOf::Nobody, [7; TAG]);
        assert_eq!(token.len(), TEXT);
        for at in 0..TEXT {
            for byte in (0..=255u8).filter(|byte| *byte != token.as_bytes()[at]) {
                let mut other = token.clone().into_bytes();
                other[at] = byte;
                assert!(!signer.is_form_token(&other, FormOf::Nobody), "byte {byte} at {at}");
            }
        }
        let million = "A".repeat(1_000_000);
        for other in ["", &token[1..], &format!("{token}="), &format!("{token}A"), &million] {
            assert!(!signer.is_form_token(other.as_bytes(), FormOf::Nobody));
        }
    }

    #[test]
    fn r99_a_token_of_another_realm_key_or_purpose_is_refused() {
        let token = signer(1, "main").form_token(FormOf::Nobody, [7; TAG]);
        assert!(!signer(1, "office").is_form_token(token.as_bytes(), FormOf::Nobody));
        assert!(!signer(2, "main").is_form_token(token.as_bytes(), FormOf::Nobody));
    }

    #[test]
    fn r101_tokens_of_the_key_before_are_right() {
        let token = signer(1, "main").form_token(FormOf::Nobody, [7; TAG]);
        let both = KeyRing::new(key(2)).unwrap().previous(key(1)).unwrap().signer("main", "__Host-id");
        assert!(both.is_form_token(token.as_bytes(), FormOf::Nobody));
        let new = both.form_token(FormOf::Nobody, [7; TAG]);
        assert!(new != token && both.is_form_token(new.as_bytes(), FormOf::Nobody));
    }
}
