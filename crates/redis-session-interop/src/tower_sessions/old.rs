//! Sessions that tower-sessions-redis-store has written, taken over by our layer.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::percent_decode;
use redis_session::fred::error::{Error as FredError, ErrorKind};
use redis_session::fred::interfaces::KeysInterface;
use redis_session::{Cookie, Lives, OldSession, Predecessor, Refusal};
use redis_session_core::{BoxFuture, Error, Kind};
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;
use tower_sessions_core::session::{Id, Record};

use super::layer::{AXUM_LOGIN, Users, axum_login_user};
use super::names::left_until;

/// Base64 of the 32 bytes of a tag, in front of a signed value.
const TAG: usize = 44;

/// The sessions that [tower-sessions-redis-store] 0.16 keeps, for
/// [`RedisSessionLayer::adopt`](redis_session::RedisSessionLayer::adopt): each goes on in a session of ours when its visitor
/// comes, with its data, its user and the time that it had left, and the old record is removed.
///
/// ```
/// use redis_session::fred::clients::Pool;
/// use redis_session::{Cookie, KeyRing, RedisSessionLayer};
/// use redis_session_interop::tower_sessions::OldTowerSessions;
///
/// # async fn start(pool: Pool) -> Result<RedisSessionLayer, redis_session::Error> {
/// // `pool` is the one that tower_sessions_redis_store::RedisStore had, "sid" was SessionManagerLayer's `with_name`.
/// let sessions = RedisSessionLayer::connect("redis://127.0.0.1", KeyRing::from_env("SESSION_KEY")?)
///     .await?
///     .adopt(OldTowerSessions::new(pool).cookie(Cookie::named("sid")).axum_login());
/// # Ok(sessions)
/// # }
/// ```
///
/// # What is recognised
///
/// By configuration, never by trial: the name of the cookie, and whether it is signed. A value that is malformed or not
/// signed with this key is that of a visitor without a session, and costs no command. Encrypted cookies (`with_private`) are
/// not supported.
///
/// A record is taken over if it decodes as one that version 0.14 wrote for this id, has not expired, is not larger than
/// [`most`](Self::most), and has neither names that begin with `@` nor values nested deeper than 127 levels. What is not so is
/// left as it is: its visitor is anonymous, or the request fails, as [`if_not_understood`](Self::if_not_understood) says.
/// What is understood and cannot be a session of the layer is left as it is too, and its requests fail in any case: more than
/// [`size_limit`](redis_session::RedisSessionLayer::size_limit), a user whose id is empty, or any user where the layer's store
/// has no index. An expiry date beyond all bounds counts as the longest time that the layer remembers a session.
///
/// # Exactly once
///
/// A take-over renames the record to `{ID}:taken-over` in one command, so that servers of before neither find it nor write to
/// it; what they had saved until then goes along. Then our session is created, only where there is none, and the renamed record
/// is removed. If a process dies in between, the next request goes on from where it was. What is renamed keeps its time to
/// live. The client's Redis user needs `+getrange +rename +del` for both keys.
///
/// # A rolling deployment
///
/// 1. Let the balancer send to new servers what comes with our cookie or with that of sessions that were taken over
///    (`__Host-id` and `__Host-id-moved`), and what logs in or out. Let it send all other visitors to old or to new servers by
///    a hash of their old cookie (nginx: `split_clients`), so that no visitor is on both sides at a time.
/// 2. Replace the servers one by one, with [`TowerSessionsLayer`](super::TowerSessionsLayer) where handlers extract their
///    `Session`, and shift visitors as servers are replaced. Each is taken over with his first request on a new server.
/// 3. When no old server is left and the longest lifetime of an old session has passed, remove `adopt`.
///
/// What cannot be had: requests that are still on old servers while another one of the same browser is taken over find
/// nobody there, or fail as they save (their store answers a save of nothing with an error). An old server that finds nobody
/// also takes the old cookie away. The next answer of a new server brings a cookie, and the session is there as it was; only
/// a login or a logout that the browser sends in between comes as a stranger's, so a login begins a session without what
/// was in the old one, and a logout ends nothing. With the rules of step 1 that concerns the seconds of a shift only.
///
/// There is no way back for those who were taken over: an old server cannot read our sessions. Whoever rolls back logs them
/// out. Nor may old servers keep serving visitors without the rules: a login there is not seen here while a session of
/// ours lives, and a logout there ends nothing here.
///
/// # Security
///
/// When the user of an old session has logged in nobody knows: to [`Fresh`](redis_session::Fresh) it is long ago.
///
/// The old cookie counts for who comes with none of ours. Unless its name begins with `__Host-`, any host under the same
/// domain can plant one, so that a visitor goes on in a session of somebody else's; while sessions are taken over, the
/// `__Host-` of our cookie does not keep that from him.
///
/// The old cookie stays in the browser until a logout, which takes all away and ends what they lead to, and leads to the new session until its id is
/// replaced. Call [`rotate`](redis_session::Session::rotate) where that is too long. Whoever could read records in Redis knew
/// their ids, and so the cookies; of ours he knows nothing, but until its first id is replaced the old one leads to it.
///
/// [tower-sessions-redis-store]: https://docs.rs/tower-sessions-redis-store/0.16
pub struct OldTowerSessions<C> {
    client: C,
    cookie: Cookie,
    /// What signs the cookie. `None`: nothing does.
    key: Option<Hmac<Sha256>>,
    prefix: String,
    users: Option<Users>,
    most: usize,
    ends_with_browser: bool,
    if_not_understood: IfNotUnderstood,
}

/// What becomes of a request that comes with a session of before which cannot be read. It is left as it is in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfNotUnderstood {
    /// Its visitor is anonymous, and a warning is logged.
    #[default]
    Anonymous,
    /// The request fails, with `is_corrupt` or `is_too_large`.
    Refuse,
}

impl<C: KeysInterface + Send + Sync + 'static> OldTowerSessions<C> {
    /// In the Redis of this client, in the place that their store chooses: the id's text is the key.
    pub fn new(client: C) -> Self {
        Self {
            client,
            cookie: Cookie::named("id"),
            key: None,
            prefix: String::new(),
            users: None,
            most: 1024 * 1024,
            ends_with_browser: false,
            if_not_understood: IfNotUnderstood::default(),
        }
    }

    /// Their cookie: the name by which it is recognised, and the path and domain with which a logout takes it away. Default:
    /// `id`, as there.
    pub fn cookie(self, cookie: Cookie) -> Self {
        Self { cookie, ..self }
    }

    /// The cookie is signed (`SessionManagerLayer::with_signed`), with this key: what `Key::master` returns. Default: it is
    /// not.
    ///
    /// # Errors
    /// `is_config`: it has less than 64 bytes.
    pub fn signed(self, master: impl AsRef<[u8]>) -> Result<Self, redis_session::Error> {
        let signing = master.as_ref().get(..64).map(|master| &master[..32]);
        let Some(signing) = signing else {
            let message = "the key of a signed cookie of tower-sessions has 64 bytes: give what `Key::master` returns";
            return Err(Error::new(Kind::Config, message).into());
        };
        let key = Hmac::new_from_slice(signing).map_err(|error| Error::caused(Kind::Config, "no key", error))?;
        Ok(Self { key: Some(key), ..self })
    }

    /// What a client of one's own puts before the id in the key. Default: nothing, as there.
    ///
    /// # Errors
    /// `is_config`: it has a brace, and Redis would put the record and its place while it is taken over into two slots.
    pub fn prefix(self, prefix: impl Into<String>) -> Result<Self, redis_session::Error> {
        let prefix = prefix.into();
        if prefix.contains(['{', '}']) {
            let message = "a prefix of sessions that are taken over has neither \"{\" nor \"}\": \"shop:\"";
            return Err(Error::new(Kind::Config, message).into());
        }
        Ok(Self { prefix, ..self })
    }

    /// The user whom axum-login has logged in is logged in here too. Default: nobody is.
    pub fn axum_login(self) -> Self {
        self.user(AXUM_LOGIN, axum_login_user)
    }

    /// The user whom this field names is logged in here too, as in
    /// [`TowerSessionsLayer::user`](super::TowerSessionsLayer::user).
    pub fn user(self, field: &str, names: impl Fn(&Value) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { users: Some(Users::new(field, names)), ..self }
    }

    /// The cookies of before ended with the browser (no expiry, or `Expiry::OnSessionEnd`), and those of ours are to do so too:
    /// a session that is taken over has the time that it had left as an idle timeout, under the layer's absolute timeout.
    /// Default: it is remembered for that time, at most [`Expiry::remembered`](redis_session::Expiry::remembered), and its
    /// cookie outlives the browser.
    pub fn ends_with_browser(self) -> Self {
        Self { ends_with_browser: true, ..self }
    }

    /// The largest record that is read, in bytes. Default: 1 MiB.
    pub fn most(self, bytes: usize) -> Self {
        Self { most: bytes, ..self }
    }

    /// What becomes of a request that comes with a record which cannot be read. Default: its visitor is anonymous.
    pub fn if_not_understood(self, if_not_understood: IfNotUnderstood) -> Self {
        Self { if_not_understood, ..self }
    }

    /// Where a record is, and where it is while it is taken over: in one slot of a cluster.
    fn keys(&self, id: &[u8]) -> (String, String) {
        let id = String::from_utf8_lossy(id);
        let key = format!("{}{id}", self.prefix);
        let claimed = format!("{{{key}}}:taken-over");
        (key, claimed)
    }

    async fn read(&self, key: String, id: &[u8]) -> Result<Option<OldSession>, Error> {
        // What is far too large is not even fetched.
        let bytes: Vec<u8> = self.client.getrange(key, 0, self.most).await.map_err(failed)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        match self.understood(&bytes, id) {
            Ok(session) => Ok(session),
            Err(error) if self.if_not_understood == IfNotUnderstood::Refuse => Err(error),
            Err(error) => {
                tracing::warn!(target: "redis_session", %error, "a session of before is not taken over");
                Ok(None)
            }
        }
    }

    fn understood(&self, bytes: &[u8], id: &[u8]) -> Result<Option<OldSession>, Error> {
        if bytes.len() > self.most {
            let message = format!("a record of tower-sessions has more than {} bytes: raise `most`", self.most);
            return Err(Error::new(Kind::TooLarge, message));
        }
        let corrupt = |message| Error::new(Kind::Corrupt, message);
        let mut rest = bytes;
        // Without the cause, whose text would bring values into the log.
        let record = Record::deserialize(&mut rmp_serde::Deserializer::new(&mut rest))
            .map_err(|_| corrupt("a record of tower-sessions does not decode"))?;
        if !rest.is_empty() || record.id.to_string().as_bytes() != id {
            return Err(corrupt("a record of tower-sessions is not the one of its key"));
        }
        if record.data.keys().any(|name| name.starts_with('@')) {
            return Err(corrupt(
                "a record of tower-sessions has a key that begins with \"@\": such names are reserved",
            ));
        }
        let Some(left) = left_until(record.expiry_date) else { return Ok(None) };
        let lives = if self.ends_with_browser { Lives::Idle(left) } else { Lives::Remembered(left) };
        let user = self.users.as_ref().and_then(|users| users.named_by(record.data.get(users.field())));
        let fields: Vec<_> = record.data.into_iter().map(|(name, value)| (name, value.to_string())).collect();
        // MessagePack is read deeper than JSON.
        if fields.iter().any(|(_, text)| serde_json::from_str::<Value>(text).is_err()) {
            return Err(corrupt("a record of tower-sessions has a value that is nested deeper than 127 levels"));
        }
        Ok(Some(OldSession { fields, user, lives }))
    }
}

impl<C: KeysInterface + Send + Sync + 'static> Predecessor for OldTowerSessions<C> {
    fn name(&self) -> &str {
        "tower-sessions"
    }

    fn cookie(&self) -> &Cookie {
        &self.cookie
    }

    fn id(&self, value: &[u8]) -> Result<Vec<u8>, Refusal> {
        // Long enough for a signed one of which every byte is percent-encoded.
        if value.len() > 3 * (TAG + 22) {
            return Err(Refusal::Malformed);
        }
        let value: Vec<u8> = percent_decode(value).collect();
        let text = match &self.key {
            None => value.as_slice(),
            Some(key) => {
                let (tag, text) = value.split_at_checked(TAG).ok_or(Refusal::Malformed)?;
                let tag = STANDARD.decode(tag).map_err(|_| Refusal::Malformed)?;
                key.clone().chain_update(text).verify_slice(&tag).map_err(|_| Refusal::BadSignature)?;
                text
            }
        };
        let id: Id = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Refusal::Malformed)?;
        // One text form for each.
        let id = id.to_string().into_bytes();
        if id == text { Ok(id) } else { Err(Refusal::Malformed) }
    }

    fn look<'a>(&'a self, id: &'a [u8]) -> BoxFuture<'a, Result<Option<OldSession>, Error>> {
        Box::pin(self.read(self.keys(id).0, id))
    }

    fn claim<'a>(&'a self, id: &'a [u8]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let (key, claimed) = self.keys(id);
            match self.client.rename::<(), _, _>(key, claimed).await {
                // Somebody else has claimed it a moment ago.
                Err(error) if !error.details().contains("no such key") => Err(failed(error)),
                _ => Ok(()),
            }
        })
    }

    fn claimed<'a>(&'a self, id: &'a [u8]) -> BoxFuture<'a, Result<Option<OldSession>, Error>> {
        Box::pin(self.read(self.keys(id).1, id))
    }

    fn end<'a>(&'a self, id: &'a [u8]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.client.del::<(), _>(self.keys(id).1).await.map_err(failed) })
    }
}

/// Of an error of Redis only its word, and the cause only where no reply can be in it: a Redis that refuses a command repeats
/// its arguments, and where the cookie is not signed, the old id among them works as one.
fn failed(error: FredError) -> Error {
    use ErrorKind::{Backpressure, Canceled, IO, Routing, Timeout};
    let message = "the Redis of the sessions of before failed";
    match (error.kind(), word(error.details())) {
        (IO | Timeout | Canceled | Routing | Backpressure, _) => Error::caused(Kind::Unavailable, message, error),
        (_, Some(word)) => {
            Error::new(Kind::Unavailable, format!("the Redis of the sessions of before refused the command: {word}"))
        }
        (kind, None) => Error::new(Kind::Unavailable, format!("{message}: {}", kind.to_str())),
    }
}

/// The word with which Redis's errors begin, in capitals. An id is longer: it has 22 characters.
fn word(details: &str) -> Option<&str> {
    let word = details.split(' ').next()?;
    let is_one = (2..=16).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_uppercase());
    is_one.then_some(word)
}

/// No key, no client.
impl<C> fmt::Debug for OldTowerSessions<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OldTowerSessions")
            .field("cookie", &self.cookie)
            .field("signed", &self.key.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r92_of_an_error_of_redis_its_word_is_kept_and_of_others_the_cause() {
        let id = Id::default().to_string();
        let unknown = format!("ERR unknown command 'RENAME', with args beginning with: '{id}' ");
        let table = [
            (ErrorKind::Unknown, unknown.as_str(), "refused the command: ERR", false),
            (ErrorKind::Unknown, "NOPERM this user has no permissions", "refused the command: NOPERM", false),
            (ErrorKind::Auth, "NOAUTH Authentication required.", "refused the command: NOAUTH", false),
            (ErrorKind::Cluster, "CLUSTERDOWN Hash slot not served", "refused the command: CLUSTERDOWN", false),
            (ErrorKind::Unknown, id.as_str(), "failed: Unknown Error", false),
            (ErrorKind::InvalidCommand, &format!("Invalid command {id}"), "failed: Invalid Command", false),
            (ErrorKind::Protocol, &format!("Error(\"{id}\")"), "failed: Protocol Error", false),
            (ErrorKind::IO, "Connection closed.", "failed", true),
            (ErrorKind::Timeout, "Request timed out.", "failed", true),
        ];
        for (kind, details, told, has_cause) in table {
            let error = failed(FredError::new(kind, details.to_owned()));
            assert!(error.is_unavailable() && error.to_string().ends_with(told), "{details}: {error}");
            assert_eq!(std::error::Error::source(&error).is_some(), has_cause, "{details}");
            assert!(!format!("{error:?}").contains(&id), "{error:?}");
        }
    }
}
