//! Who has an account: names and the hashes of passwords, in this process, or in Redis beside the sessions.
//!
//! A real shop has more: it slows down who guesses passwords, refuses those that everybody knows, and has a way back for
//! those who forgot theirs.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis_session::fred::clients::Client;
use redis_session::fred::interfaces::{ClientLike, HashesInterface, LuaInterface};
use redis_session::fred::types::Builder;
use redis_session::fred::types::config::{Config, ReconnectPolicy};

use crate::passwords::Password;
use crate::settings::{Login, Start};

/// An account is a hash in Redis: its key begins with this, and ends with the name.
const PREFIX: &str = "shop:account:";
/// The field of the password's hash.
const PASSWORD: &str = "password";
/// KEYS: the account. ARGV: the field, the hash that must be there, the one that takes its place. Reply: 1, or 0.
const REPLACE: &str = "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1";
/// How long an answer of Redis may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// The name of an account, by which its user is known to the sessions: small letters, digits, `.`, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(String);

/// It is no name that an account may have.
#[derive(Debug)]
pub(crate) struct NoName;

impl FromStr for Name {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, NoName> {
        let name = text.trim().to_ascii_lowercase();
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if (2..=32).contains(&name.len()) && name.bytes().all(fits) { Ok(Self(name)) } else { Err(NoName) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All accounts. Clones are the same ones.
#[derive(Clone)]
pub(crate) struct Accounts {
    place: Arc<Place>,
    /// What a password is compared with where there is no such account, so that the answer takes as long.
    nobody: Arc<str>,
}

enum Place {
    Memory(Mutex<BTreeMap<Name, String>>),
    Redis(Client),
}

impl Accounts {
    pub(crate) async fn in_memory() -> Result<Self, Failed> {
        Self::at(Place::Memory(Mutex::default())).await
    }

    /// In the Redis at this URL.
    pub(crate) async fn in_redis(url: &str, login: &Login, start: Start) -> Result<Self, Failed> {
        Self::at(Place::Redis(connect(url, login, start).await?)).await
    }

    async fn at(place: Place) -> Result<Self, Failed> {
        Ok(Self { place: Arc::new(place), nobody: Password::default().hash().await?.into() })
    }

    /// Opens an account. `false`: the name is taken.
    pub(crate) async fn sign_up(&self, name: &Name, password: &Password) -> Result<bool, Failed> {
        let hash = password.hash().await?;
        Ok(match &*self.place {
            Place::Memory(accounts) => match lock(accounts).entry(name.clone()) {
                Entry::Vacant(free) => {
                    free.insert(hash);
                    true
                }
                Entry::Occupied(_) => false,
            },
            Place::Redis(client) => client.hsetnx(key(name), PASSWORD, hash).await?,
        })
    }

    /// Whose name and password these are. `None`: nobody's, and nothing tells which of the two is wrong.
    pub(crate) async fn check(&self, name: &str, password: &Password) -> Result<Option<Name>, Failed> {
        Ok(self.verified(name, password).await?.map(|(name, _)| name))
    }

    /// Gives an account another password. `false`: this is not the present one, or is not any more.
    pub(crate) async fn change(&self, name: &Name, present: &Password, new: &Password) -> Result<bool, Failed> {
        let Some((name, verified)) = self.verified(&name.0, present).await? else { return Ok(false) };
        let hash = new.hash().await?;
        // Whoever changes it at the same time knows the present one as well: only the first of the two gets it done.
        Ok(match &*self.place {
            Place::Memory(accounts) => match lock(accounts).get_mut(&name).filter(|there| **there == verified) {
                Some(there) => {
                    *there = hash;
                    true
                }
                None => false,
            },
            Place::Redis(client) => {
                let replaced: i64 = client.eval(REPLACE, key(&name), vec![PASSWORD, &verified, &hash]).await?;
                replaced == 1
            }
        })
    }

    /// The account, with its hash, if the password is right.
    async fn verified(&self, name: &str, password: &Password) -> Result<Option<(Name, String)>, Failed> {
        let name = name.parse::<Name>().ok();
        let hash = match &name {
            Some(name) => self.hash_of(name).await?,
            None => None,
        };
        let is_right = password.has_hash(hash.clone().unwrap_or_else(|| self.nobody.to_string())).await?;
        Ok(name.zip(hash).filter(|_| is_right))
    }

    async fn hash_of(&self, name: &Name) -> Result<Option<String>, Failed> {
        Ok(match &*self.place {
            Place::Memory(accounts) => lock(accounts).get(name).cloned(),
            Place::Redis(client) => client.hget(key(name), PASSWORD).await?,
        })
    }
}

async fn connect(url: &str, login: &Login, start: Start) -> Result<Client, Failed> {
    let mut config = Config::from_url(url)?;
    config.username = login.user.clone().or(config.username);
    config.password = login.password.clone().or(config.password);
    config.fail_fast = start == Start::WithRedis;
    let mut builder = Builder::from_config(config);
    builder.with_performance_config(|performance| performance.default_command_timeout = PATIENCE);
    builder.with_connection_config(|connection| {
        connection.connection_timeout = Duration::from_secs(1);
        connection.internal_command_timeout = Duration::from_secs(1);
        connection.max_command_attempts = 1;
        // A silent server is one to leave: without this, commands would wait for it.
        connection.unresponsive.max_timeout = Some(Duration::from_secs(2));
    });
    builder.set_policy(ReconnectPolicy::new_exponential(0, 10, 1000, 2));
    let client = builder.build()?;
    match start {
        Start::WithRedis => drop(client.init().await?),
        Start::Anyway => drop(client.connect()),
    }
    Ok(client)
}

fn key(name: &Name) -> String {
    format!("{PREFIX}{name}")
}

fn lock(accounts: &Mutex<BTreeMap<Name, String>>) -> std::sync::MutexGuard<'_, BTreeMap<Name, String>> {
    accounts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accounts cannot be read or written.
#[derive(Debug)]
pub(crate) struct Failed(Box<dyn StdError + Send + Sync>);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("accounts cannot be read or written")
    }
}

impl StdError for Failed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

impl From<redis_session::fred::error::Error> for Failed {
    fn from(error: redis_session::fred::error::Error) -> Self {
        Self(error.into())
    }
}

impl From<argon2::password_hash::Error> for Failed {
    fn from(error: argon2::password_hash::Error) -> Self {
        Self(error.into())
    }
}
