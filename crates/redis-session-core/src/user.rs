//! Users: an application's own ids of them, and the keys under which their sessions are listed.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind};

/// Whose session it is: the text form of the application's own id.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct User(Arc<str>);

impl User {
    /// The most bytes that the text of an id may have.
    pub const LONGEST: usize = 16 * 1024;

    /// From any id that has a text form.
    ///
    /// # Errors
    /// [`is_user`](Error::is_user): an empty text, or more than 16 KiB.
    pub fn new(id: impl fmt::Display) -> Result<Self, Error> {
        let text = id.to_string();
        match text.len() {
            0 => Err(Error::new(Kind::User, "a user's id must not be empty")),
            1..=Self::LONGEST => Ok(Self(text.into())),
            _ => Err(Error::new(Kind::User, "a user's id may have 16 KiB at most")),
        }
    }

    /// The text that it was made of.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where this user's sessions are listed.
    pub fn key(&self, realm: &Arc<str>) -> UserKey {
        UserKey { realm: realm.clone(), hash: Sha256::digest(self.0.as_bytes()).into() }
    }
}

/// Ids are the application's, and some are names or addresses.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("User(…)")
    }
}

/// Where a user's sessions are listed: the realm, and a hash of the id. So nothing in an id can mean anything in a key, a
/// pattern or a cluster's hash tag, and every key is of one length.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserKey {
    realm: Arc<str>,
    hash: [u8; 32],
}

impl UserKey {
    /// `<realm>:user:<43 characters>`. A store puts its own prefix before it.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.realm.len() + 49);
        text.push_str(&self.realm);
        text.push_str(":user:");
        URL_SAFE_NO_PAD.encode_string(self.hash, &mut text);
        text
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserKey({}:…)", self.realm)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn r70_distinct_ids_have_distinct_keys_in_which_nothing_of_them_shows() {
        let long = "x".repeat(10_000);
        let ids = [
            "1",
            "01",
            "1 ",
            " 1",
            "a:b",
            "a",
            "a:",
            ":a",
            "*",
            "?",
            "[a-z]",
            "{a}",
            "{b}",
            "{",
            "}",
            "a\n",
            "a\r\nb",
            "\0",
            "\u{1b}[31m",
            "ä",
            "a\u{308}",
            "user:1",
            "main:user:1",
            "\u{202e}x",
            "../x",
            "%7Ba%7D",
            &long,
            &long[1..],
        ];
        let mut keys = HashSet::new();
        for id in ids {
            for realm in ["main", "office"] {
                let key = User::new(id).unwrap().key(&realm.into()).to_text();
                let (place, hash) = key.split_at(realm.len() + 6);
                assert_eq!(place, format!("{realm}:user:"));
                assert!(
                    hash.len() == 43 && hash.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)),
                    "{key}"
                );
                assert!(keys.insert(key));
            }
        }
        assert_eq!(keys.len(), 2 * ids.len());
    }

    #[test]
    fn empty_and_endless_ids_are_refused_and_none_is_shown() {
        assert!(User::new("").is_err_and(|error| error.is_user()));
        assert!(User::new("x".repeat(User::LONGEST + 1)).is_err_and(|error| error.is_user()));
        let user = User::new("ada@example.org").unwrap();
        assert_eq!(format!("{user:?} {:?}", user.key(&"main".into())), "User(…) UserKey(main:…)");
    }
}
