//! A store of ours under their layer, with edits that merge: what a request has read travels in its record.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis_session_core::{
    Change, Changes, Create, Created, End, Error, Expiry, Fields, Found, Kind, Life, Random, Reason, Save, Saved,
    SessionId, SessionKey, Step, Store, Time, Token, Whose, WishChange, look_at,
};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use tokio::time::Instant;
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store;

use super::names::{Data, date, decoded, failed, left_until};
use super::turns::Turns;

/// The entry of their record's data that says what was read: `{"version": …, "data": …}`. It is never stored.
const READ: &str = "@read";
/// How many new ids are tried.
const NEW_IDS: usize = 4;
/// Before what has lost its reply is sent again.
const PAUSE: Duration = Duration::from_millis(5);
const DOUBT: &str = "the reply to a write was lost, and whether it was made cannot be found out";

/// Any store of ours under tower-sessions' own `SessionManagerLayer`, for those who keep that layer.
///
/// ```
/// use axum::{Router, routing::get};
/// use redis_session::MemoryStore;
/// use redis_session_interop::tower_sessions::UnderTowerSessions;
/// use tower_sessions::{Session, SessionManagerLayer};
///
/// async fn count(session: Session) -> Result<String, tower_sessions::session::Error> {
///     let visits: u32 = session.get("visits").await?.unwrap_or_default();
///     session.insert("visits", visits + 1).await?;
///     Ok(format!("visit {}", visits + 1))
/// }
///
/// // In production: RedisStore::connect("redis://127.0.0.1").await?
/// let store = UnderTowerSessions::new(MemoryStore::new());
/// let app: Router = Router::new()
///     .route("/", get(async |session: Session| count(session).await.unwrap_or_else(|error| error.to_string())))
///     .layer(SessionManagerLayer::new(store));
/// ```
///
/// # What it gives
///
/// - Edits merge: what a request has changed since it read its record is written, and nothing else. Parallel requests that
///   change different keys are all kept; of one key, the last save counts, as a whole.
/// - What was deleted or has expired stays so: a request that saves it later writes nothing, and is told nothing.
/// - A new session never takes the place of another. Each write is one atomic step, and is made once.
/// - Redis holds nothing that works as a cookie: where a session is, and what proves the right to it, are hashes of its id.
///
/// # What it cannot give
///
/// That takes our layer ([`TowerSessionsLayer`](super::TowerSessionsLayer) runs the same handlers on it):
///
/// - `cycle_id` is an end and a beginning, as everywhere under their layer: what parallel requests save to the session of
///   before is lost, and a process that dies in between loses the session.
/// - Their layer sends a cookie with every response whose session was changed, also where nothing was written, since the
///   session was gone; and the cookie of a request that was overtaken by a logout or a login.
/// - No list of a user's sessions, no end from elsewhere, no idle timeout beside theirs: a session ends at the expiry date
///   of its last save, 400 days from there at most.
///
/// # In the record
///
/// What was read travels in the record's data under the name `@read`, and is not stored. Other names that begin with `@` are
/// refused. `clear` takes it away, and then removes also what others have added meanwhile. Do not put a
/// `CachingSessionStore` before it: that serves sessions which have ended elsewhere, and takes edits of before for new ones.
///
/// # Errors
/// `Backend`: the store failed, or the outcome of a write is not known. `Encode`: a reserved name, or more than the size
/// limit; nothing was written. `Decode`: a field is no JSON.
#[derive(Clone)]
pub struct UnderTowerSessions {
    store: Arc<dyn Store>,
    realm: Arc<str>,
    size_limit: usize,
    /// Each leaves the version that it wrote.
    turns: Arc<Turns<Option<Token>>>,
}

impl UnderTowerSessions {
    /// On this store: `RedisStore`, `MemoryStore`, or any other.
    pub fn new(store: impl Store) -> Self {
        Self { store: Arc::new(store), realm: "tower-sessions".into(), size_limit: 64 * 1024, turns: Arc::default() }
    }

    /// A name that tells these sessions from others in the same store. Default: `tower-sessions`.
    pub fn realm(self, realm: impl AsRef<str>) -> Self {
        Self { realm: realm.as_ref().into(), ..self }
    }

    /// The most bytes that the keys and JSON texts of one session may take. Default: 64 KiB.
    pub fn size_limit(self, bytes: usize) -> Self {
        Self { size_limit: bytes, ..self }
    }

    fn place(&self, id: Id) -> Place<'_> {
        let id = SessionId::derived("tower-sessions", &id.0.to_le_bytes());
        Place { store: &*self.store, turns: &self.turns, key: id.key(&self.realm), id, size_limit: self.size_limit }
    }
}

/// No ids, no data.
impl fmt::Debug for UnderTowerSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnderTowerSessions").field("realm", &self.realm).finish_non_exhaustive()
    }
}

#[async_trait]
impl SessionStore for UnderTowerSessions {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        record.data.remove(READ);
        // Their own stores let it expire at once.
        let Some(left) = left_until(record.expiry_date) else { return Ok(()) };
        for _ in 0..NEW_IDS {
            if let Some(version) = self.place(record.id).create(&record.data, left).await? {
                record.data.insert(READ.to_owned(), read(version, record.data.clone()));
                return Ok(());
            }
            record.id = Id::default();
        }
        Err(session_store::Error::Backend("the random generator gives the same ids again and again".to_owned()))
    }

    async fn save(&self, record: &Record) -> session_store::Result<()> {
        match left_until(record.expiry_date) {
            Some(left) => self.place(record.id).save(&record.data, left).await,
            None => self.place(record.id).end().await,
        }
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let loaded = self.place(*id).load().await?;
        Ok(loaded.map(|(data, expiry_date)| Record { id: *id, data, expiry_date }))
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        self.place(*id).end().await
    }
}

/// One session, and the right to it.
struct Place<'a> {
    store: &'a dyn Store,
    turns: &'a Arc<Turns<Option<Token>>>,
    id: SessionId,
    key: SessionKey,
    size_limit: usize,
}

impl Place<'_> {
    /// What there is of a living session, and until when it lives.
    async fn load(&self) -> session_store::Result<Option<(Data, OffsetDateTime)>> {
        let stored = self.store.load(&self.key).await.map_err(failed)?;
        let found = look_at(stored, self.id.proof(), &life(), self.store.now(), Duration::ZERO);
        let Found::Alive(record) = found else { return Ok(None) };
        // An empty text stands for a field that is explicitly absent.
        let fields = record.fields.iter().filter(|(_, text)| !text.is_empty());
        let named = fields.map(|(name, text)| (String::from_utf8_lossy(name), text));
        let named: Vec<_> = named.collect();
        let mut data = decoded(named.iter().map(|(name, text)| (name.as_ref(), text.as_ref())))?;
        data.insert(READ.to_owned(), read(record.tokens.newest(), data.clone()));
        let ends = life().deadline(record.created, record.seen, &record.wishes);
        Ok(Some((data, date(std::time::UNIX_EPOCH + Duration::from_millis(ends.as_millis())))))
    }

    /// Answers the first version; `None`: there is something already.
    async fn create(&self, data: &Data, left: Duration) -> session_store::Result<Option<Token>> {
        let fields =
            data.iter().map(|(name, value)| Ok((named(name)?, text(value)))).collect::<session_store::Result<_>>();
        let fields = Fields::from_pairs(fields?);
        self.check_size(fields.size())?;
        let mut create = Create {
            token: token()?,
            not_after: self.not_after().await?,
            proof: self.id.proof(),
            life: life(),
            wish: until(left),
            login: None,
            fields,
        };
        let mut tries = self.tries();
        loop {
            match self.store.create(&self.key, &create).await {
                Ok(Created::Created { .. }) => return Ok(Some(create.token)),
                Ok(Created::Exists) => return Ok(None),
                Ok(Created::Late) => create.not_after = tries.new_time(self).await?,
                Err(error) => tries.after(error).await?,
            }
        }
    }

    async fn save(&self, data: &Data, left: Duration) -> session_store::Result<()> {
        let (base, changes) = changes(data)?;
        if !changes.is_empty() {
            let size =
                data.iter().filter(|(name, _)| *name != READ).map(|(name, value)| name.len() + text(value).len());
            self.check_size(size.sum())?;
        }
        let mut tries = self.tries();
        let mut turn = self.turns.enter(&self.key, tries.by).await.ok_or_else(contended)?;
        let base = turn.or(base);
        let mut is_based = base.is_some();
        let mut save = Save {
            // Nothing but a new expiry date changes no version.
            token: (!changes.is_empty()).then(token).transpose()?,
            earlier: Vec::new(),
            not_after: self.not_after().await?,
            proof: self.id.proof(),
            // One that nobody has is answered with the record as it is.
            base: base.map_or_else(token, Ok)?,
            merges: true,
            changes,
            step: Step::Keep,
            renews: true,
            wish: until(left),
            life: life(),
            limit: self.size_limit,
        };
        loop {
            match self.store.save(&self.key, &save).await {
                Ok(Saved::Saved { .. }) => {
                    *turn = save.token.or(*turn);
                    return Ok(());
                }
                // It stays so, and their layer would make a 500 of an error.
                Ok(Saved::Gone | Saved::Ended(_) | Saved::Replaced | Saved::LoggedInAlready) => return Ok(()),
                Ok(Saved::Late) => save.not_after = tries.new_time(self).await?,
                Ok(Saved::Moved(record)) => {
                    // What ran stands above the version that it was based on. That one is no longer among the last, so nobody
                    // can tell any more. On a version that nobody had, nothing has run.
                    if tries.unknown && is_based {
                        return Err(doubt());
                    }
                    tries.time_is_left()?;
                    tries.unknown = false;
                    (save.base, save.token) = (record.tokens.newest(), Some(token()?));
                    is_based = true;
                }
                // A first copy that is held somewhere may yet run, on a version that does not refuse it.
                Ok(Saved::TooLarge | Saved::Refused(_)) if tries.unknown => return Err(doubt()),
                Ok(Saved::TooLarge) => return Err(self.too_large()),
                Ok(Saved::Refused(name)) => return Err(failed(Error::field(&name, "cannot be changed like that"))),
                Err(error) => tries.after(error).await?,
            }
        }
    }

    async fn end(&self) -> session_store::Result<()> {
        let whose = Whose::Nobodys(self.id.proof());
        let mut end = End { not_after: self.not_after().await?, reason: Reason::Destroyed, whose };
        let mut tries = self.tries();
        loop {
            match self.store.end(&self.key, &end).await {
                Ok(redis_session_core::Ended::Late) => end.not_after = tries.new_time(self).await?,
                Ok(_) => return Ok(()),
                Err(error) => tries.after(error).await?,
            }
        }
    }

    /// Until when a write may run, in the store's time.
    async fn not_after(&self) -> session_store::Result<Time> {
        if self.store.now().is_none() {
            // It learns the time with its first answer.
            self.store.load(&self.key).await.map_err(failed)?;
        }
        let unknown = || failed(Error::new(Kind::Unavailable, "the store does not know its time yet"));
        self.store.now().map(|now| now + self.store.deadline()).ok_or_else(unknown)
    }

    fn check_size(&self, size: usize) -> session_store::Result<()> {
        if size > self.size_limit { Err(self.too_large()) } else { Ok(()) }
    }

    fn too_large(&self) -> session_store::Error {
        let limit = self.size_limit;
        session_store::Error::Encode(format!(
            "the session would take more than its limit of {limit} bytes: keep less in it, or raise `size_limit`"
        ))
    }

    fn tries(&self) -> Tries {
        Tries { by: Instant::now() + self.store.deadline(), unknown: false }
    }
}

/// How often and how long a write is sent again.
struct Tries {
    by: Instant,
    /// Whether a copy that was sent may have run.
    unknown: bool,
}

impl Tries {
    fn time_is_left(&self) -> session_store::Result<()> {
        if Instant::now() < self.by {
            return Ok(());
        }
        Err(contended())
    }

    /// After a late write: another time.
    async fn new_time(&self, place: &Place<'_>) -> session_store::Result<Time> {
        if Instant::now() >= self.by {
            // A first copy may have run, and be forgotten.
            if self.unknown {
                return Err(doubt());
            }
            let message = "the write reached the store too late, so it was not made";
            return Err(failed(Error::new(Kind::Unavailable, message)));
        }
        place.not_after().await
    }

    /// After an error: the same again while nothing is known and there is time.
    async fn after(&mut self, error: Error) -> session_store::Result<()> {
        self.unknown |= error.is_outcome_unknown();
        if !self.unknown || !(error.is_outcome_unknown() || error.is_unavailable()) {
            return Err(failed(error));
        }
        if Instant::now() + PAUSE >= self.by {
            return Err(failed(format!("{DOUBT}: {error}")));
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

/// What a write comes to of which nobody can tell whether it was made: it is not made again.
fn doubt() -> session_store::Error {
    failed(Error::new(Kind::OutcomeUnknown, DOUBT))
}

fn contended() -> session_store::Error {
    let message = "others changed the session again and again until the deadline; nothing was saved";
    failed(Error::new(Kind::Contended, message))
}

/// Their expiry date is the only deadline.
fn life() -> Life {
    Expiry::default().remembered(Expiry::LONGEST).life()
}

fn until(left: Duration) -> WishChange {
    let ms = Expiry::default().remembered(Expiry::LONGEST).own_remembered(left);
    WishChange { idle: None, remember: Some(Some(ms)) }
}

fn token() -> session_store::Result<Token> {
    Token::random(&Random::system()).map_err(failed)
}

fn text(value: &Value) -> Bytes {
    value.to_string().into()
}

fn named(name: &str) -> session_store::Result<Bytes> {
    if name.starts_with('@') {
        let name: String = name.chars().take(64).collect();
        let message = format!("names that begin with \"@\" are reserved: give {name:?} another one");
        return Err(session_store::Error::Encode(message));
    }
    Ok(Bytes::copy_from_slice(name.as_bytes()))
}

fn read(version: Token, data: Data) -> Value {
    let version = String::from_utf8_lossy(version.as_text()).into_owned();
    let data = data.into_iter().collect::<Map<_, _>>();
    Value::Object(Map::from_iter([("version".to_owned(), version.into()), ("data".to_owned(), data.into())]))
}

/// What leads from what was read to this, and the version that was read. `None`: it was cleared without having been read,
/// or with what was read.
fn changes(data: &Data) -> session_store::Result<(Option<Token>, Changes)> {
    let read = data.get(READ);
    let version = read.and_then(|read| Token::from_text(read.get("version")?.as_str()?.as_bytes()));
    let before = read.and_then(|read| read.get("data")?.as_object()).filter(|_| version.is_some());
    let mut changes = Changes { clear: before.is_none(), fields: Vec::new() };
    for name in before.into_iter().flat_map(Map::keys).filter(|name| !data.contains_key(*name)) {
        changes.fields.push((named(name)?, Change::Remove));
    }
    for (name, value) in data.iter().filter(|(name, _)| *name != READ) {
        if before.and_then(|before| before.get(name)) != Some(value) {
            changes.fields.push((named(name)?, Change::Set(text(value))));
        }
    }
    Ok((version, changes))
}
