//! Passwords: which ones will do, and their hashes by Argon2id, with the crate's default costs (those of OWASP).

use std::fmt;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{Error as Failure, PasswordHasher, PasswordVerifier};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// How many characters it needs.
pub(crate) const SHORTEST: usize = 8;
/// How many it may have. A limit there must be: all of it is hashed.
pub(crate) const LONGEST: usize = 128;

/// Each takes 19 MiB and a processor, so that more at once would cost memory and be no faster.
static AT_ONCE: Semaphore = Semaphore::const_new(4);

/// A password as it was typed.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Password(String);

impl Password {
    /// Whether it may be that of an account.
    pub(crate) fn will_do(&self) -> bool {
        (SHORTEST..=LONGEST).contains(&self.0.chars().count())
    }

    /// What is kept in its place, with a salt of its own.
    pub(crate) async fn hash(&self) -> Result<String, Failure> {
        let password = self.0.clone();
        aside(move || Ok(Argon2::default().hash_password(password.as_bytes())?.to_string())).await
    }

    /// Whether this is the password of that hash.
    pub(crate) async fn has_hash(&self, hash: String) -> Result<bool, Failure> {
        if self.0.chars().count() > LONGEST {
            return Ok(false);
        }
        let password = self.0.clone();
        aside(move || match Argon2::default().verify_password(password.as_bytes(), &PasswordHash::new(&hash)?) {
            Ok(()) => Ok(true),
            Err(Failure::PasswordInvalid) => Ok(false),
            Err(error) => Err(error),
        })
        .await
    }
}

/// On a thread where it keeps no other request waiting.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    let _place = AT_ONCE.acquire().await.map_err(|_| Failure::Internal)?;
    spawn_blocking(work).await.map_err(|_| Failure::Internal)?
}

/// Without the password.
impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}
