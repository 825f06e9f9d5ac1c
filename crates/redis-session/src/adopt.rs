//! Takes over sessions of the software that was here before, one by one as their visitors come.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use redis_session_core::{
    BoxFuture, Create, Created, Durability, Enter, Entered, Error as CoreError, Expiry, Fields, Found, Kind, Level,
    LogIn, REVOCATION_STAYS, Reason, SessionId, Standing, Successor, Time, Token, User, WishChange, Wishes,
};
use tracing::Instrument;

use crate::cookie::Cookie;
use crate::error::Error;
use crate::events::{Event, Refusal};
use crate::handle::{Handle, Outgoing, State};
use crate::listing;
use crate::scan::{scan, scan_foreign};
use crate::tries::not_after;

/// How often a take-over is begun: others may take the same session over, or end it, meanwhile.
const TIMES: usize = 4;
/// A take-over has the time of so many deadlines of our store: it asks that of before three times.
const DEADLINES: u32 = 6;
/// At most, whatever the deadline: what ends meanwhile leaves a tombstone that stays longer.
const LONGEST: Duration = Duration::from_secs(30);

/// The sessions of the software that was here before: what
/// [`RedisSessionLayer::adopt`](crate::RedisSessionLayer::adopt) takes over. The crate `redis-session-interop` has that of
/// tower-sessions.
///
/// ```
/// use redis_session::{Cookie, KeyRing, Lives, MemoryStore, OldSession, Predecessor, RedisSessionLayer, Refusal};
/// use redis_session_core::{BoxFuture, Error};
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use std::time::Duration;
///
/// /// Names by id, which the cookie `old` holds in clear.
/// struct Names(Cookie, Mutex<HashMap<Vec<u8>, String>>);
///
/// impl Predecessor for Names {
///     fn name(&self) -> &str {
///         "names"
///     }
///
///     fn cookie(&self) -> &Cookie {
///         &self.0
///     }
///
///     fn id(&self, value: &[u8]) -> Result<Vec<u8>, Refusal> {
///         if value.len() == 32 { Ok(value.to_owned()) } else { Err(Refusal::Malformed) }
///     }
///
///     fn look<'a>(&'a self, id: &'a [u8]) -> BoxFuture<'a, Result<Option<OldSession>, Error>> {
///         let name = self.1.lock().unwrap().get(id).cloned();
///         let fields = name.map(|name| vec![("name".to_owned(), format!("{name:?}"))]);
///         let lives = Lives::Idle(Duration::from_secs(3600));
///         Box::pin(async move { Ok(fields.map(|fields| OldSession { fields, user: None, lives })) })
///     }
///
///     // Nobody else reads them any more, so there is nothing to be kept from anybody.
///     fn claim<'a>(&'a self, _: &'a [u8]) -> BoxFuture<'a, Result<(), Error>> {
///         Box::pin(async { Ok(()) })
///     }
///
///     fn claimed<'a>(&'a self, id: &'a [u8]) -> BoxFuture<'a, Result<Option<OldSession>, Error>> {
///         self.look(id)
///     }
///
///     fn end<'a>(&'a self, id: &'a [u8]) -> BoxFuture<'a, Result<(), Error>> {
///         self.1.lock().unwrap().remove(id);
///         Box::pin(async { Ok(()) })
///     }
/// }
///
/// # fn main() -> Result<(), redis_session::Error> {
/// let names = Names(Cookie::named("old"), Mutex::default());
/// let sessions = RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random()?).adopt(names);
/// # let _: RedisSessionLayer = sessions;
/// # Ok(())
/// # }
/// ```
pub trait Predecessor: Send + Sync + 'static {
    /// What it is called: part of what the new ids are derived from, so it must not change.
    fn name(&self) -> &str;

    /// Its cookie: the name by which it is recognised, and what is needed to take it away at a logout.
    fn cookie(&self) -> &Cookie;

    /// The id in a value of its cookie, in one form only.
    ///
    /// # Errors
    /// It is none, or not signed as it should be: the visitor counts as one without it.
    fn id(&self, value: &[u8]) -> Result<Vec<u8>, Refusal>;

    /// Reads a session and changes nothing. `None`: there is none, or none that lives.
    ///
    /// # Errors
    /// It cannot be read, or not be understood; the request then fails with this error.
    fn look<'a>(&'a self, id: &'a [u8]) -> BoxFuture<'a, Result<Option<OldSession>, CoreError>>;

    /// Keeps a session that was looked at from whoever does not take it over, in one atomic step: from then on the software
    /// of before neither finds it nor writes to it. No error where it is there no more.
    ///
    /// # Errors
    /// It may or may not be claimed.
    fn claim<'a>(&'a self, id: &'a [u8]) -> BoxFuture<'a, Result<(), CoreError>>;

    /// Reads a session that was claimed, by whatever process. The same again answers the same, until the
    /// [`end`](Self::end). `None`: there is none.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    fn claimed<'a>(&'a self, id: &'a [u8]) -> BoxFuture<'a, Result<Option<OldSession>, CoreError>>;

    /// Removes what was claimed, once all of it has been taken over. No error where there is nothing.
    ///
    /// # Errors
    /// It may still be there. The request fails, and the next one removes it.
    fn end<'a>(&'a self, id: &'a [u8]) -> BoxFuture<'a, Result<(), CoreError>>;
}

/// What there is of a session of a [`Predecessor`].
#[derive(Clone)]
pub struct OldSession {
    /// Names and JSON texts.
    pub fields: Vec<(String, String)>,
    /// Who is logged in, in the text form of his id. `None`: nobody is.
    pub user: Option<String>,
    /// How long it is to live on.
    pub lives: Lives,
}

/// Without names and data.
impl std::fmt::Debug for OldSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OldSession")
            .field("fields", &self.fields.len())
            .field("lives", &self.lives)
            .finish_non_exhaustive()
    }
}

/// How long a session that was taken over lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lives {
    /// For so long, whatever its visitor does: it is remembered, at most for
    /// [`Expiry::remembered`](crate::Expiry::remembered), and its cookie outlives the browser.
    Remembered(Duration),
    /// With an idle timeout of its own, under the layer's absolute timeout. Its cookie is as the layer's are.
    Idle(Duration),
}

impl Lives {
    /// Clamped to what sessions of ours can have.
    fn wish(self, handle: &Handle) -> WishChange {
        let expiry = &handle.settings.expiry;
        match self {
            Self::Remembered(left) => WishChange { idle: None, remember: Some(Some(expiry.own_remembered(left))) },
            Self::Idle(idle) => WishChange {
                idle: expiry.own_idle(Some(idle.clamp(Expiry::SHORTEST, Expiry::LONGEST))).ok(),
                remember: None,
            },
        }
    }
}

/// A session that was taken over, or is to be, by a cookie beside our own.
struct Beside {
    id: SessionId,
    /// The id of before. `None`: the request came without the old cookie.
    old: Option<Vec<u8>>,
    /// Whether the browser has been told, which it is once nothing is left of the old session.
    is_told: bool,
}

/// The sessions that the cookies beside our own lead to: first the one that was taken over already, which the browser has
/// been told.
fn beside(handle: &Handle) -> Vec<Beside> {
    let settings = &handle.settings;
    let Some(predecessor) = &settings.predecessor else { return Vec::new() };
    // Which of several is the visitor's own nobody knows, so nothing beside them is either.
    if handle.state().is_unclear {
        return Vec::new();
    }
    let moved = scan(handle.cookies(), settings.cookie.moved().name(), &settings.moved_signer).id;
    let old = scan_foreign(handle.cookies(), predecessor.cookie().name(), |value| predecessor.id(value));
    let old = old.unwrap_or_else(|refusal| {
        handle.tell(Event::Refused(refusal));
        None
    });
    let old = old.map(|old| (settings.signer.taken_over(predecessor.name(), &old), old));
    match (moved, old) {
        (Some(id), Some((new, old))) if id == new => vec![Beside { id, old: Some(old), is_told: true }],
        (moved, old) => {
            let moved = moved.map(|id| Beside { id, old: None, is_told: true });
            let old = old.map(|(id, old)| Beside { id, old: Some(old), is_told: false });
            moved.into_iter().chain(old).collect()
        }
    }
}

/// The id of the session that a cookie beside our own leads to. `None`: the request came without one.
pub(crate) fn presented(handle: &Handle) -> Option<SessionId> {
    let id = beside(handle).into_iter().next()?.id;
    let mut state = handle.state();
    (state.id, state.adopts, state.presented) = (Some(id.clone()), true, true);
    Some(id)
}

/// What this request's own cookie led to, or else one beside it.
pub(crate) async fn look_up(handle: &Handle, id: &SessionId) -> Result<Found, Error> {
    let adopts = handle.state().adopts;
    let (mut found, mut is_told) = (None, !adopts);
    if !adopts {
        let own = handle.look_up(id).instrument(handle.span("load")).await?;
        // Who has logged in on a server of before comes with that one's cookie, and with ours of before. Where ours was
        // ended, the old one may be what a logout is taking away at this moment.
        if !leads_on(&own) {
            return Ok(own);
        }
        found = Some(own);
    }
    for beside in beside(handle) {
        let other = beside.look_up(handle).await?;
        match &other {
            Found::Alive(_) => {
                let mut state = handle.state();
                (state.id, state.signed_by, state.adopts) = (Some(beside.id), None, true);
                return Ok(other);
            }
            Found::Replaced { by: Some(Successor::Renewal(user)), .. } => {
                handle.reused(&handle.key(&beside.id), user).await;
                is_told = true;
            }
            _ => {}
        }
        let goes_on = leads_on(&other);
        found = found.or(Some(other));
        if !goes_on {
            break;
        }
    }
    let found = found.unwrap_or(Found::Absent);
    if !is_told {
        handle.tell_of_refusal(&found);
    }
    Ok(found)
}

/// Whether the next cookie is asked, after one that has led to this.
fn leads_on(found: &Found) -> bool {
    matches!(found, Found::Gone | Found::Expired)
}

/// The living sessions that the cookies beside our own lead to, but for this one; sessions of before are taken over first,
/// since one of ours leaves a tombstone where it ends.
pub(crate) async fn living_beside(
    handle: &Handle,
    but: Option<&SessionId>,
) -> Result<Vec<(SessionId, Option<User>)>, Error> {
    let mut living = Vec::new();
    for beside in beside(handle).into_iter().filter(|beside| but != Some(&beside.id)) {
        match beside.look_up(handle).await {
            Ok(Found::Alive(record)) => living.push((beside.id, record.user().cloned())),
            Err(error) if error.is_unavailable() || error.is_outcome_unknown() => return Err(error),
            // What cannot be taken over is good for nothing here.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(living)
}

impl Beside {
    async fn look_up(&self, handle: &Handle) -> Result<Found, Error> {
        match &self.old {
            Some(old) => {
                let step = take_over(handle, old, &self.id, self.is_told).instrument(handle.span("take over"));
                let slow = |_| {
                    let message = format!("a session of before was not taken over within {:?}", time(handle));
                    handle.store_failed(CoreError::new(Kind::Unavailable, message))
                };
                tokio::time::timeout(time(handle), step).await.map_err(slow)?
            }
            None => handle.look(&self.id).instrument(handle.span("load")).await,
        }
    }
}

/// How long a take-over may take.
fn time(handle: &Handle) -> Duration {
    let deadline = handle.settings.store.deadline();
    (deadline * DEADLINES).min(LONGEST).max(deadline)
}

/// Each step may be the last one before this process dies: the old session is whole until it is claimed, what was claimed
/// is whole until the new one is there, and whoever comes next goes on from there. What is left of the old one goes before
/// anything can become of the new one: it would begin anew after a logout.
async fn take_over(handle: &Handle, old: &[u8], id: &SessionId, is_told: bool) -> Result<Found, Error> {
    let (settings, key) = (&handle.settings, handle.key(id));
    let Some(predecessor) = &settings.predecessor else { return Ok(Found::Absent) };
    for _ in 0..TIMES {
        let found = handle.look(id).await?;
        if !matches!(found, Found::Gone) {
            if !is_told {
                in_time(handle, predecessor.end(old)).await?;
            }
            return Ok(found);
        }
        // From before it is read on: what was ended since must not begin anew. Our own deadline alone would be too short
        // where the store of before is far away.
        let by = not_after(handle, &key).await? + (time(handle) - settings.store.deadline());
        if let Some(session) = in_time(handle, predecessor.look(old)).await? {
            check(handle, &session)?;
            in_time(handle, predecessor.claim(old)).await?;
        }
        // Also where nothing was to be seen: another process may have claimed it and died.
        let Some(session) = in_time(handle, predecessor.claimed(old)).await? else {
            return handle.look(id).await;
        };
        check(handle, &session)?;
        match begin(handle, session, id, by).await? {
            // The next look removes what is left.
            Begun::Yes => handle.tell(Event::TakenOver),
            Begun::Refused => {
                in_time(handle, predecessor.end(old)).await?;
                return Ok(Found::Ended { reason: Reason::Revoked, lately: true });
            }
            Begun::Exists | Begun::Late => {}
        }
    }
    let message = "a session of before was not taken over: others did so and ended it, or it took too long each time";
    Err(settings.store_failed(CoreError::new(Kind::Unavailable, message)))
}

/// What the software of before says, within the time that our own store has.
async fn in_time<T>(handle: &Handle, step: impl Future<Output = Result<T, CoreError>>) -> Result<T, Error> {
    let silent = || CoreError::new(Kind::Unavailable, "the store of the sessions of before did not answer in time");
    let answer = tokio::time::timeout(handle.settings.store.deadline(), step).await;
    answer.unwrap_or_else(|_| Err(silent())).map_err(|error| handle.store_failed(error))
}

/// Whether a session can be one of ours, before anything is done to it.
fn check(handle: &Handle, session: &OldSession) -> Result<(), Error> {
    let limit = handle.settings.size_limit;
    if session.fields.iter().any(|(name, _)| name.starts_with('@')) {
        let message = "a session of before has a field whose name begins with \"@\": such names are reserved";
        return Err(handle.store_failed(CoreError::new(Kind::Corrupt, message)));
    }
    if session.fields.iter().map(|(name, text)| name.len() + text.len()).sum::<usize>() > limit {
        let message = format!("a session of before has more than the limit of {limit} bytes: raise `size_limit`");
        return Err(handle.store_failed(CoreError::new(Kind::TooLarge, message)));
    }
    let Some(user) = &session.user else { return Ok(()) };
    // Where nobody can be logged in, it is left as it is.
    handle.index()?;
    User::new(user).map(drop).map_err(|error| handle.store_failed(error))
}

enum Begun {
    Yes,
    /// Another request was first.
    Exists,
    /// It took too long.
    Late,
    /// The user's sessions were ended lately.
    Refused,
}

async fn begin(handle: &Handle, session: OldSession, id: &SessionId, not_after: Time) -> Result<Begun, Error> {
    let (settings, key) = (&handle.settings, handle.key(id));
    let wish = session.lives.wish(handle);
    let user = session.user.map(User::new).transpose()?;
    if let Some(user) = &user
        && !enter(handle, user, id, &wish).await?
    {
        return Ok(Begun::Refused);
    }
    // When its user has proved who he is nobody knows: it counts for nothing that asks for less than all that time.
    let login = user.clone().map(|user| LogIn { user, level: Level::FULL, label: None, waited: Expiry::LONGEST });
    let fields = session.fields.into_iter().map(|(name, text)| (Bytes::from(name), Bytes::from(text))).collect();
    let create = Create {
        token: Token::random(&settings.random)?,
        not_after,
        proof: id.proof(),
        life: handle.life(),
        wish,
        login,
        fields: Fields::from_pairs(fields),
    };
    let created = listing::step(settings, |_| settings.store.create(&key, &create), |_| false).await?;
    match (created, &user) {
        (Created::Created { .. }, Some(user)) => stands(handle, user, id).await,
        (Created::Created { .. }, None) => Ok(Begun::Yes),
        (Created::Exists, user) => {
            if let (Some(user), Found::Ended { .. }) = (user, handle.look(id).await?) {
                listing::leave(settings, user, &[key.handle()]).await?;
            }
            Ok(Begun::Exists)
        }
        // Its entry goes by itself, if nobody comes again.
        (Created::Late, _) => Ok(Begun::Late),
    }
}

/// The entry in the list of the user's sessions comes before the session. Answers whether it may begin.
async fn enter(handle: &Handle, user: &User, id: &SessionId, wish: &WishChange) -> Result<bool, Error> {
    let (settings, session) = (&handle.settings, handle.key(id).handle());
    let now = settings.store.now().unwrap_or_default();
    let life = settings.entry_life(now, now, &wish.apply(Wishes::default(), now));
    let (index, of) = (handle.index()?, &user.key(&settings.realm));
    let run = |not_after| {
        // Its login is older than any revocation that is remembered.
        let enter = Enter { session, life, cap: settings.cap, age: REVOCATION_STAYS, instead_of: None, not_after };
        async move { index.enter(of, &enter).await }
    };
    match listing::step(settings, run, |entered| *entered == Entered::Late).await? {
        Entered::Late | Entered::Revoked | Entered::Doomed => Ok(false),
        Entered::Entered { since_revoked: Some(_), .. } => {
            listing::leave(settings, user, &[session]).await?;
            Ok(false)
        }
        Entered::Entered { doomed, since_revoked: None } => {
            listing::make_room(settings, user, &doomed).await?;
            Ok(true)
        }
    }
}

/// Whether the user's sessions were not ended meanwhile.
async fn stands(handle: &Handle, user: &User, id: &SessionId) -> Result<Begun, Error> {
    let (settings, session) = (&handle.settings, handle.key(id).handle());
    let (index, of) = (handle.index()?, &user.key(&settings.realm));
    match listing::step(settings, |_| index.standing(of, session), |_| false).await? {
        Some(Standing::Listed) => Ok(Begun::Yes),
        _ => {
            listing::end_and_leave(settings, user, &[session], Reason::Refused, Durability::Fast).await?;
            Ok(Begun::Refused)
        }
    }
}

/// The response leaves, and is to tell the browser of a session that was taken over, if that is still there.
///
/// In a cookie of its own, always of the same value: in the place of our own cookie it could follow the answer to a parallel
/// login, and take the place of that one's.
pub(crate) async fn tell_browser(handle: &Handle) {
    let id = {
        let state = handle.state();
        state.id.clone().filter(|_| is_untold(handle, &state))
    };
    let Some(id) = id else { return };
    if matches!(handle.look(&id).await, Ok(Found::Alive(_))) {
        handle.state().tells_moved = true;
    }
}

/// Whether the browser does not know yet that the session was taken over in which this request goes on.
fn is_untold(handle: &Handle, state: &State) -> bool {
    state.adopts
        && state.outgoing == Outgoing::Nothing
        && matches!(state.found, Found::Alive(_))
        && scan(handle.cookies(), handle.settings.cookie.moved().name(), &handle.settings.moved_signer).id != state.id
}
