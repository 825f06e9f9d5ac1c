//! One session in one request: what was loaded, the working copy, and what the response has to say about it.

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, Uri};
use redis_session_core::{
    Derivation, Durability, End, Ended, Error as CoreError, Fields, Found, Index, KeyId, Kind, Life, Read, ReadFrom,
    Reason, ReplicaRead, Replicas, Rule, SessionId, SessionKey, Stored, Successor, Time, Token, User, Waited, Whose,
    Why, WishChange, Working, look_at,
};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, TryLockError};
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument, Span};

use crate::adopt;
use crate::error::Error;
use crate::events::{Event, Refusal};
use crate::layer::{IfReused, Settings};
use crate::listing;
use crate::scan::{CookieLines, has, scan};

/// One session in one request. All its views, in handlers, middleware and tasks, share it.
///
/// Two locks, never held across an await: the working copy's is taken first, where both are.
pub(crate) struct Handle {
    pub(crate) settings: Arc<Settings>,
    cookies: CookieLines,
    /// Whether the method says that nothing is to be changed.
    is_safe: bool,
    /// What was asked for, before any router took a part of it away. `None`: nobody will be sent elsewhere and back.
    uri: Option<Uri>,
    arrived: Instant,
    /// One load or write at a time.
    turn: AsyncMutex<()>,
    state: Mutex<State>,
    working: Mutex<Working>,
}

/// What is known of the session.
pub(crate) struct State {
    /// Whether anybody but the layer itself wanted the session, so that the response may depend on it.
    pub(crate) asked_for: bool,
    pub(crate) loaded: Loaded,
    /// Whether a replica has told what was found, as it was a moment ago.
    pub(crate) by_replica: bool,
    pub(crate) found: Found,
    /// The id that the request came with, or was given since. `None`: neither.
    pub(crate) id: Option<SessionId>,
    /// The key that signed this id. `None`: it is new, and the current key will sign it.
    pub(crate) signed_by: Option<KeyId>,
    /// The id that a timed renewal made of it, for the browser: this request goes on with the one that it came with.
    /// `None`: there is nothing to offer.
    pub(crate) offer: Option<SessionId>,
    /// The version that the working copy's base shows. `None`: there is no record.
    pub(crate) base: Option<Token>,
    /// The newest version that is known to have been there: the base, or this request's own merge on a version that it
    /// has not seen.
    pub(crate) latest: Option<Token>,
    /// What is to change in the session's own wishes.
    pub(crate) wish: WishChange,
    /// That the outcome of a write is unknown. Nothing more is written then.
    pub(crate) doubt: Option<Doubt>,
    /// What this request's writes wait for. `None`: what the layer says.
    pub(crate) durability: Option<Durability>,
    /// Why a write that was made is not on as many replicas as it was to be, for whoever waits for its answer. `None`: it
    /// is, or he was told.
    pub(crate) missed: Option<Error>,
    /// Whether edits were saved, which replicas may not have yet.
    pub(crate) wrote: bool,
    /// Whether the request's cookie was looked at.
    pub(crate) cookie_read: bool,
    /// Whether several cookies of our name contradict each other, or are more than is looked at.
    pub(crate) is_unclear: bool,
    /// Whether the id is that of a session that was, or is to be, taken over: a cookie beside our own has led to it.
    pub(crate) adopts: bool,
    /// Whether the response tells the browser so, in a cookie of its own.
    pub(crate) tells_moved: bool,
    /// Whether a cookie of our name came along, or one of the software of before.
    pub(crate) presented: bool,
    /// Why this request ended the session. `None`: it did not.
    pub(crate) ended_here: Option<Reason>,
    pub(crate) outgoing: Outgoing,
    /// Whether the response has left, so that edits would be lost.
    pub(crate) left: bool,
}

impl State {
    /// Takes note that the working copy's base shows this version, the newest that is known.
    pub(crate) fn stand_on(&mut self, version: Option<Token>) {
        (self.base, self.latest) = (version, version);
        if version.is_none() {
            self.offer = None;
        }
    }

    /// Goes on with a new id, which the response brings to the browser.
    pub(crate) fn give(&mut self, id: SessionId) {
        (self.id, self.signed_by, self.offer) = (Some(id), None, None);
        self.outgoing = Outgoing::Give;
    }

    /// Goes on with the id that it has; the response brings this one to the browser.
    pub(crate) fn offer(&mut self, id: SessionId) {
        (self.offer, self.outgoing) = (Some(id), Outgoing::Give);
    }

    /// Whether anything may be written: the session was read, and the outcomes of earlier writes are known.
    pub(crate) fn may_write(&self) -> Result<(), Error> {
        self.was_read()?;
        let doubt = self.doubt.as_ref().filter(|_| Rule::DoubtStopsWrites.holds());
        doubt.map_or(Ok(()), |doubt| Err(doubt.error.clone()))
    }

    /// Whether anything may be edited.
    ///
    /// # Errors
    /// `is_committed`: the response has left. `is_unavailable`, `is_corrupt`: the session could not be read, and is served as
    /// empty.
    pub(crate) fn may_edit(&self) -> Result<(), Error> {
        if self.left { Err(Error::committed()) } else { self.was_read() }
    }

    /// Whether anything is known of the session.
    ///
    /// # Errors
    /// `is_unavailable`, `is_corrupt`: it could not be read, and is served as empty.
    pub(crate) fn was_read(&self) -> Result<(), Error> {
        let Loaded::Failed(cause) = &self.loaded else { return Ok(()) };
        let message = "the session could not be read, so nothing is known of it and nothing can be changed in it";
        let kind = if cause.is_corrupt() { Kind::Corrupt } else { Kind::Unavailable };
        Err(CoreError::caused(kind, message, cause.clone()).into())
    }
}

/// A write of which nobody knows whether it was made.
pub(crate) struct Doubt {
    pub(crate) error: Error,
    /// What the working copy and the wishes were then: whoever waited was told of these, and of no later ones.
    revision: u64,
    wish: WishChange,
}

/// Whether the store was asked.
#[derive(Clone)]
pub(crate) enum Loaded {
    NotYet,
    Done,
    Failed(Error),
}

/// Whose word on the session will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// That of the server that makes the writes.
    Primary,
    /// Also a replica's, where the layer and the request allow it.
    Any,
}

/// What the response says about the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outgoing {
    Nothing,
    /// The id as it is now.
    Give,
    Remove,
}

thread_local! {
    /// Whether this thread has locked a working copy, so that a closure that uses a session is told so rather than waits
    /// for itself: its own, or another whose closure uses this one.
    static LOCKED: Cell<bool> = const { Cell::new(false) };
}

/// The working copy, locked.
pub(crate) struct WorkingGuard<'a> {
    working: MutexGuard<'a, Working>,
}

impl std::ops::Deref for WorkingGuard<'_> {
    type Target = Working;

    fn deref(&self) -> &Working {
        &self.working
    }
}

impl std::ops::DerefMut for WorkingGuard<'_> {
    fn deref_mut(&mut self) -> &mut Working {
        &mut self.working
    }
}

impl Drop for WorkingGuard<'_> {
    fn drop(&mut self) {
        LOCKED.set(false);
    }
}

impl Handle {
    pub(crate) fn new(settings: Arc<Settings>, cookies: CookieLines, method: &Method, uri: &Uri) -> Self {
        let sends_away = settings.log_in_page.is_some() || settings.step_up_page.is_some();
        let uri = sends_away.then(|| uri.clone());
        let working = Working::default().limit(settings.size_limit);
        let state = State {
            asked_for: false,
            loaded: Loaded::NotYet,
            by_replica: false,
            found: Found::Absent,
            id: None,
            signed_by: None,
            offer: None,
            base: None,
            latest: None,
            wish: WishChange::default(),
            doubt: None,
            durability: None,
            missed: None,
            wrote: false,
            cookie_read: false,
            is_unclear: false,
            adopts: false,
            tells_moved: false,
            presented: false,
            ended_here: None,
            outgoing: Outgoing::Nothing,
            left: false,
        };
        Self {
            settings,
            cookies,
            is_safe: matches!(*method, Method::GET | Method::HEAD),
            uri,
            arrived: Instant::now(),
            turn: AsyncMutex::new(()),
            state: Mutex::new(state),
            working: Mutex::new(working),
        }
    }

    /// What is known of the session. A panic while it was locked cannot leave it half-changed.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The working copy.
    ///
    /// # Errors
    /// This thread has one already: a closure of an update uses a session.
    pub(crate) fn working(&self) -> Result<WorkingGuard<'_>, Error> {
        if LOCKED.get() {
            return Err(Error::new(
                Kind::Field,
                "the closure of an update uses a session: it may use its argument only",
            ));
        }
        // A closure that panicked has left the working copy as it was.
        let working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        LOCKED.set(true);
        Ok(WorkingGuard { working })
    }

    /// The working copy, for an edit.
    ///
    /// # Errors
    /// Also those of [`State::may_edit`].
    pub(crate) fn editable(&self) -> Result<WorkingGuard<'_>, Error> {
        let working = self.working()?;
        self.state().may_edit()?;
        Ok(working)
    }

    /// Waits until no other load or write of this request is under way.
    pub(crate) async fn turn(&self) -> AsyncMutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Takes note that the outcome of a write is unknown.
    pub(crate) fn doubt(&self, error: Error) {
        let revision = self.working().map_or(0, |working| working.revision());
        let mut state = self.state();
        state.doubt = Some(Doubt { error, revision, wish: state.wish });
    }

    /// Whether all that this request would write was in a write of unknown outcome, of which whoever waited for it was told.
    pub(crate) fn was_told_of_all(&self) -> bool {
        let Ok(working) = self.working() else { return false };
        let state = self.state();
        let doubt = state.doubt.as_ref().filter(|_| Rule::DoubtStopsWrites.holds());
        doubt.is_some_and(|doubt| doubt.revision == working.revision() && doubt.wish == state.wish)
    }

    /// The same for who is going to write: on the primary's word.
    ///
    /// # Errors
    /// Those of [`confirm`](Self::confirm).
    pub(crate) async fn turn_to_write(&self) -> Result<AsyncMutexGuard<'_, ()>, Error> {
        let turn = self.turn().await;
        self.confirm().await?;
        Ok(turn)
    }

    /// The turn, if nobody has it.
    pub(crate) fn try_turn(&self) -> Result<AsyncMutexGuard<'_, ()>, TryLockError> {
        self.turn.try_lock()
    }

    /// For what nobody may cut short.
    pub(crate) fn under_way(&self) -> TaskTrackerToken {
        self.settings.under_way.token()
    }

    pub(crate) fn key(&self, id: &SessionId) -> SessionKey {
        id.key(&self.settings.realm)
    }

    /// The index of users' sessions.
    ///
    /// # Errors
    /// `is_config`: this store has none.
    pub(crate) fn index(&self) -> Result<&dyn Index, Error> {
        self.settings.index()
    }

    /// What was asked for.
    pub(crate) fn asked_for_uri(&self) -> Option<&Uri> {
        self.uri.as_ref()
    }

    /// How long ago the request arrived.
    pub(crate) fn waited(&self) -> Duration {
        self.arrived.elapsed()
    }

    pub(crate) fn life(&self) -> Life {
        self.settings.expiry.life()
    }

    /// What a write of this request waits for.
    pub(crate) fn durability(&self) -> Durability {
        self.state().durability.unwrap_or(self.settings.durability)
    }

    /// How a write ended. Takes note of one that was made and is not where it was to be.
    pub(crate) fn outcome<T>(&self, waited: Waited<T>) -> T {
        if let Some(error) = waited.missed {
            let error = self.settings.not_replicated(error);
            // The first one says for how long it was waited; what comes after it has but the rest of that.
            self.state().missed.get_or_insert(error);
        }
        waited.outcome
    }

    /// What whoever waits for a write is told: also that it was made and is not where it was to be.
    pub(crate) fn told<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        let missed = self.state().missed.take();
        answer.and_then(|answer| missed.map_or(Ok(answer), Err))
    }

    pub(crate) fn tell(&self, event: Event) {
        self.settings.tell(event);
    }

    /// Reads the session, once; and once more where a replica's word was enough before, and is not now.
    ///
    /// # Errors
    /// The store's; the same again without asking it again.
    pub(crate) async fn load(&self, word: Word) -> Result<(), Error> {
        let loaded = |handle: &Self| {
            let state = handle.state();
            match &state.loaded {
                Loaded::NotYet => None,
                Loaded::Done if state.by_replica && word == Word::Primary => None,
                Loaded::Done => Some(Ok(())),
                Loaded::Failed(error) => Some(Err(error.clone())),
            }
        };
        if let Some(answer) = loaded(self) {
            return answer;
        }
        let _turn = self.turn().await;
        match loaded(self) {
            Some(answer) => answer,
            None if matches!(self.state().loaded, Loaded::Done) => self.confirm().await,
            None => self.read_cookie_and_store(word).await,
        }
    }

    /// The id that the request came with or was given since; the cookie is looked at, once, and the store is not asked.
    pub(crate) fn presented_id(&self) -> Option<SessionId> {
        let mut state = self.state();
        if state.cookie_read {
            return state.id.clone();
        }
        let scanned = scan(&self.cookies, self.settings.cookie.name(), &self.settings.signer);
        state.cookie_read = true;
        state.presented = scanned.presented;
        state.is_unclear = matches!(scanned.refusal, Some(Refusal::SeveralIds | Refusal::HeaderTooLarge));
        (state.id, state.signed_by) = (scanned.id.clone(), scanned.signed_by);
        drop(state);
        if let Some(refusal) = scanned.refusal {
            self.tell(Event::Refused(refusal));
        }
        scanned.id.or_else(|| adopt::presented(self))
    }

    async fn read_cookie_and_store(&self, word: Word) -> Result<(), Error> {
        let found = match &self.presented_id() {
            None => Ok(Found::Absent),
            Some(id) => match self.replicas().filter(|_| word == Word::Any) {
                Some((replicas, behind)) => self.look_near(id, replicas, behind).instrument(self.span("load")).await,
                None => self.look_up_all(id).await,
            },
        };
        self.take_in(found)?;
        self.offer_again();
        Ok(())
    }

    /// What the primary has for the request's id, and else for those of the cookies beside it.
    async fn look_up_all(&self, id: &SessionId) -> Result<Found, Error> {
        match self.settings.predecessor {
            Some(_) => adopt::look_up(self, id).await,
            None => self.look_up(id).instrument(self.span("load")).await,
        }
    }

    /// Who may answer this request's read beside the primary, and how far behind. `None`: nobody; it is going to write, its
    /// visitor has written a moment ago, or what comes with it may lead to a session of before.
    fn replicas(&self) -> Option<(&dyn Replicas, Duration)> {
        let ReadFrom::Replicas { behind } = self.settings.read_from else { return None };
        if !self.is_safe || self.settings.predecessor.is_some() || self.has_written_lately() {
            return None;
        }
        Some((self.settings.store.replicas()?, behind))
    }

    /// Whether the browser says that a response had edits saved which replicas may not have yet.
    pub(crate) fn has_written_lately(&self) -> bool {
        has(&self.cookies, self.settings.cookie.wrote().name())
    }

    /// Takes what the primary has in the place of what a replica has told, and makes the edits again on it, as if nothing else
    /// had been read. Before a guard lets anybody through, and before anything is written. The caller has the turn.
    ///
    /// # Errors
    /// The store's, and then nothing is known of the session any more. `is_field`: an edit cannot be made on what is there.
    pub(crate) async fn confirm(&self) -> Result<(), Error> {
        let id = {
            let state = self.state();
            state.id.clone().filter(|_| state.by_replica)
        };
        let Some(id) = id else { return Ok(()) };
        match self.look_up_all(&id).await {
            Ok(mut found) => {
                let fields = match &mut found {
                    Found::Alive(record) => std::mem::take(&mut record.fields),
                    _ => Fields::default(),
                };
                let edited = {
                    let mut working = self.working()?;
                    working.rebase(fields.clone()).inspect_err(|_| working.reset(fields))
                };
                let mut state = self.state();
                state.by_replica = false;
                state.stand_on(version(&found));
                state.found = found;
                drop(state);
                self.offer_again();
                Ok(edited?)
            }
            Err(error) => {
                {
                    let mut working = self.working()?;
                    // Edits stay, so that somebody is told that they are lost.
                    if !working.is_edited() {
                        working.reset(Fields::default());
                    }
                }
                let mut state = self.state();
                state.by_replica = false;
                state.stand_on(None);
                (state.found, state.loaded) = (Found::Absent, Loaded::Failed(error.clone()));
                Err(error)
            }
        }
    }

    /// What a timed renewal makes of this request's id. `None`: it came without one.
    pub(crate) fn renewed_id(&self, state: &State) -> Option<SessionId> {
        let signer = &self.settings.signer;
        let key = state.signed_by.unwrap_or_else(|| signer.current());
        state.id.as_ref().map(|id| signer.successor(id, key, Derivation::Renewal))
    }

    /// Who comes with the id before a timed renewal gets the new one once more: the answer that had it may be lost.
    fn offer_again(&self) {
        let mut state = self.state();
        let Found::Alive(record) = &state.found else { return };
        // Mostly there was no other proof, and nothing to hash to find out.
        if record.previous.is_none() || state.id.as_ref().is_some_and(|id| id.proof() == record.proof) {
            return;
        }
        // Made with another key, it is not ours to offer.
        if let Some(renewed) = self.renewed_id(&state).filter(|renewed| renewed.proof() == record.proof) {
            state.offer(renewed);
        }
    }

    /// Reads the session again, and makes the edits again on what is there; but for edits that may have been written
    /// already, which are dropped.
    pub(crate) async fn read_again(&self) -> Result<(), Error> {
        let id = self.state().id.clone();
        let Some(id) = id.filter(|_| self.state().ended_here.is_none()) else { return Ok(()) };
        let found = self.look_up(&id).instrument(self.span("load")).await?;
        let (in_doubt, lived) = {
            let mut state = self.state();
            (state.loaded, state.by_replica) = (Loaded::Done, false);
            let in_doubt = state.doubt.take().is_some() && Rule::RefreshDropsTheDoubtful.holds();
            (in_doubt, matches!(state.found, Found::Alive(_)))
        };
        match found {
            Found::Alive(mut record) if !in_doubt => {
                self.working()?.rebase(std::mem::take(&mut record.fields))?;
                let mut state = self.state();
                state.stand_on(Some(record.tokens.newest()));
                state.found = Found::Alive(record);
                Ok(())
            }
            found if lived || in_doubt => {
                let edited = self.working()?.is_edited();
                let wished = !std::mem::take(&mut self.state().wish).is_empty();
                if !in_doubt && (edited || wished) {
                    self.tell(Event::Dropped(Why::Dead));
                }
                self.take_in(Ok(found))
            }
            // The edits are those of a session that is yet to begin.
            found => {
                self.state().found = found;
                Ok(())
            }
        }
    }

    /// What the store has for an id, and tells where that is no session.
    pub(crate) async fn look_up(&self, id: &SessionId) -> Result<Found, Error> {
        let found = self.look(id).await?;
        self.tell_of(id, &found).await;
        Ok(found)
    }

    /// The same, where a replica may answer.
    async fn look_near(&self, id: &SessionId, replicas: &dyn Replicas, behind: Duration) -> Result<Found, Error> {
        let read = ReplicaRead { proof: id.proof(), life: self.life(), behind };
        match replicas.read(&self.key(id), &read).await.map_err(|error| self.store_failed(error))? {
            Read::Replica(record) => {
                self.state().by_replica = true;
                Ok(Found::Alive(Box::new(record)))
            }
            Read::Primary(stored) => {
                let found = self.judge(id, stored).await;
                self.tell_of(id, &found).await;
                Ok(found)
            }
        }
    }

    /// What the store has for an id.
    pub(crate) async fn look(&self, id: &SessionId) -> Result<Found, Error> {
        let stored = self.settings.store.load(&self.key(id)).await.map_err(|error| self.store_failed(error))?;
        Ok(self.judge(id, stored).await)
    }

    /// What the primary's word means for an id.
    async fn judge(&self, id: &SessionId, stored: Option<Stored>) -> Found {
        let found = look_at(stored, id.proof(), &self.life(), self.settings.store.now(), self.waited());
        if matches!(found, Found::Expired) {
            self.end_expired(&self.key(id)).await;
        }
        found
    }

    async fn tell_of(&self, id: &SessionId, found: &Found) {
        match found {
            Found::Replaced { by: Some(Successor::Renewal(user)), .. } => self.reused(&self.key(id), user).await,
            found => self.tell_of_refusal(found),
        }
    }

    /// Tells why a cookie led to no session.
    pub(crate) fn tell_of_refusal(&self, found: &Found) {
        match found {
            Found::Gone => self.tell(Event::Refused(Refusal::Unknown)),
            Found::Ended { .. } => self.tell(Event::Refused(Refusal::Ended)),
            Found::Replaced { .. } => self.tell(Event::Refused(Refusal::Replaced)),
            Found::Absent | Found::Expired | Found::Alive(_) => {}
        }
    }

    /// The request's Cookie lines.
    pub(crate) fn cookies(&self) -> &CookieLines {
        &self.cookies
    }

    /// Somebody has a copy of an old cookie of this session.
    pub(crate) async fn reused(&self, key: &SessionKey, user: &User) {
        self.tell(Event::Reused);
        self.settings.tell_of_reuse(user);
        if self.settings.if_reused == IfReused::EndSession {
            // Told and logged where it fails; the old cookie is refused all the same.
            let (settings, sessions) = (&self.settings, [key.handle()]);
            let _ = listing::end_and_leave(settings, user, &sessions, Reason::Reused, settings.durability).await;
        }
    }

    /// A record past its deadline is still there: its time to live was taken away, or the policy became stricter.
    async fn end_expired(&self, key: &SessionKey) {
        let not_after = self.settings.store.now().unwrap_or(Time::MAX) + self.settings.store.deadline();
        let end = End { not_after, reason: Reason::Expired, whose: Whose::Expired(self.life()) };
        match self.settings.store.end(key, &end).await {
            // Not past its deadline: it is from the future, and refused until the store's clock has caught up.
            Ok(Ended::Alive) => {
                let message = "the stored record is from the future of the store's clock, and refused until that comes";
                drop(self.store_failed(CoreError::new(Kind::Corrupt, message)));
            }
            Ok(_) => self.tell(Event::Expired),
            // It is refused all the same, and ended by the next request.
            Err(error) => drop(self.store_failed(error)),
        }
    }

    pub(crate) fn take_in(&self, mut found: Result<Found, Error>) -> Result<(), Error> {
        // The working copy has the fields; the record that is kept has the rest.
        let fields = match &mut found {
            Ok(Found::Alive(record)) => std::mem::take(&mut record.fields),
            _ => Default::default(),
        };
        self.working()?.reset(fields);
        let mut state = self.state();
        state.stand_on(found.as_ref().ok().and_then(version));
        match found {
            Ok(found) => {
                if matches!(found, Found::Gone) && !Rule::AbsenceRemovesNoCookie.holds() {
                    state.outgoing = Outgoing::Remove;
                }
                state.found = found;
                state.loaded = Loaded::Done;
                Ok(())
            }
            Err(error) => {
                state.loaded = Loaded::Failed(error.clone());
                Err(error)
            }
        }
    }

    /// Tells of an error of the store, and makes it ours.
    pub(crate) fn store_failed(&self, error: CoreError) -> Error {
        self.settings.store_failed(error)
    }

    /// A span around what waits for the store, with a name for the session that tells it from others and nothing else.
    pub(crate) fn span(&self, step: &'static str) -> Span {
        let name = || self.state().id.as_ref().map(|id| self.settings.signer.log_name(id));
        tracing::debug_span!(
            target: "redis_session", "session", step, realm = &*self.settings.realm, session = name()
        )
    }

    /// Whether somebody asked for the session.
    pub(crate) fn was_asked_for(&self) -> bool {
        self.state().asked_for
    }

    /// Whether the session is over, by what this request knows: its handler has taken longer than the session lives.
    pub(crate) fn is_past_its_deadline(&self, state: &State) -> bool {
        let (Found::Alive(record), Some(now)) = (&state.found, self.settings.store.now()) else { return false };
        // A version that it has not seen may ask to live longer.
        if state.base != state.latest {
            return false;
        }
        self.life().deadline(record.created, record.seen, &record.wishes) <= now && Rule::NoCookieAfterTheEnd.holds()
    }

    /// How long a cookie that is sent now may promise to live. `None`: until the browser ends.
    pub(crate) fn max_age(&self, state: &State) -> Option<Duration> {
        let Found::Alive(record) = &state.found else { return None };
        if !self.settings.cookie.is_persistent() && record.wishes.remembered.is_none() {
            return None;
        }
        let now = self.settings.store.now().unwrap_or(record.seen);
        let left = self.life().farthest(record.created, &record.wishes).since(now);
        // Zero would take the cookie away.
        Some(left.max(Duration::from_secs(1)))
    }
}

/// The version of a living session.
fn version(found: &Found) -> Option<Token> {
    match found {
        Found::Alive(record) => Some(record.tokens.newest()),
        _ => None,
    }
}
