//! Carries out what the plan says: one atomic step in the store, again where the session moved or a reply was lost.

use std::sync::Arc;
use std::time::Duration;

use redis_session_core::{
    Changes, Create, Created, End, Ended, Error as CoreError, Fields, Found, Kind, Plan, Proof, Reason, Record, Rule,
    Save, Saved, SessionId, SessionKey, Staged, Time, Token, Tokens, Why, Wish, WishChange, Wishes, Working,
};
use tokio::time::Instant;
use tracing::Instrument;

use crate::error::Error;
use crate::events::Event;
use crate::handle::{Handle, Outgoing, State};
use crate::queue::Turn;

/// How many new ids are tried: two that are the same are a generator that is broken.
const NEW_IDS: usize = 4;
/// How often a write is sent with a new `not_after`, where our idea of the store's clock was wrong.
const NEW_TIMES: usize = 2;
/// Before a write whose reply was lost is sent again; the store needs some 20 milliseconds for a new connection.
const PAUSE: Duration = Duration::from_millis(5);

/// What the working copy comes to; run again where the session moved.
pub(crate) type Stage<'a> = dyn FnMut(&mut Working) -> Result<Staged, Error> + Send + 'a;

/// What makes this write more than a save of the edits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Order {
    /// Somebody waits for the answer, and wants a session or an error.
    pub(crate) asked: bool,
    /// The response's status says that edits are not kept.
    pub(crate) dropped: bool,
    /// A write is made although there may be no edit: a closure that is yet to be run.
    pub(crate) changes: bool,
}

/// What must happen, by what is known now.
pub(crate) fn plan(handle: &Handle, order: Order) -> Result<Plan, Error> {
    let changed = handle.working()?.is_changed() || order.changes;
    let state = handle.state();
    state.no_doubt()?;
    // A wish alone begins no session: a middleware may give one to every visitor.
    let changed = changed || matches!(state.found, Found::Alive(_)) && !state.wish.is_empty();
    let touch_due = touch_due(handle, &state);
    Ok(Plan::decide(&state.found, Wish { changed, asked: order.asked, dropped: order.dropped, touch_due }))
}

fn touch_due(handle: &Handle, state: &State) -> bool {
    let Found::Alive(record) = &state.found else { return false };
    let interval = Duration::from_millis(handle.life().touch_of(&record.wishes));
    handle.settings.store.now().is_none_or(|now| now.since(record.seen) >= interval)
}

/// Carries out a plan on the edits as they are. The caller has the turn.
pub(crate) async fn carry_out(handle: &Handle, plan: Plan) -> Result<(), Error> {
    carry_out_with(handle, plan, Order::default(), &mut |working| Ok(working.stage())).await
}

/// Carries out a plan on what `stage` makes of the working copy.
pub(crate) async fn carry_out_with(
    handle: &Handle,
    plan: Plan,
    order: Order,
    stage: &mut Stage<'_>,
) -> Result<(), Error> {
    match plan {
        Plan::Nothing => Ok(()),
        Plan::Create => create(handle, order, stage).instrument(handle.span("create")).await,
        Plan::Save => save(handle, stage, None).await,
        Plan::Touch => touch(handle).instrument(handle.span("touch")).await,
        Plan::Drop(why) => {
            handle.working()?.drop_edits();
            handle.state().wish = WishChange::default();
            handle.tell(Event::Dropped(why));
            if why == Why::Dead { Err(Error::gone()) } else { Ok(()) }
        }
    }
}

/// Until when a write may run, in the store's time.
async fn not_after(handle: &Handle, key: &SessionKey) -> Result<Time, Error> {
    let store = &handle.settings.store;
    let now = match store.now() {
        Some(now) => Some(now),
        None => {
            // The store learns the time with its first answer.
            store.load(key).await.map_err(|error| handle.store_failed(error))?;
            store.now()
        }
    };
    let unknown = || Error::new(Kind::Unavailable, "the store does not know its time yet");
    now.map(|now| now + store.deadline()).ok_or_else(unknown)
}

/// What lost replies and wrong clocks mean for a write that is sent again with the same bytes.
struct Tries {
    by: Instant,
    sent: u32,
    new_times: usize,
    /// Whether a copy that was sent may have run, or may yet run.
    unknown: bool,
    /// Whether it writes what must not be written twice, so that nothing more is written once its outcome is unknown.
    counts: bool,
    pause: Duration,
}

/// What to do about an answer that is none.
enum Again {
    SameBytes,
    Fail(Error),
}

impl Tries {
    fn begin(handle: &Handle, counts: bool) -> Self {
        let by = Instant::now() + handle.settings.store.deadline();
        Self { by, sent: 0, new_times: NEW_TIMES, unknown: false, counts, pause: PAUSE }
    }

    fn time_is_left(&self) -> bool {
        Instant::now() < self.by
    }

    /// After an error: the same again, as long as nothing is known and there is time.
    async fn after(&mut self, handle: &Handle, error: CoreError) -> Again {
        self.unknown |= error.is_outcome_unknown();
        if !self.unknown || !(error.is_outcome_unknown() || error.is_unavailable()) {
            return Again::Fail(handle.store_failed(error));
        }
        if !Rule::LostRepliesAreSentAgain.holds() || Instant::now() + self.pause >= self.by {
            return Again::Fail(self.doubt(handle, Some(error)));
        }
        tokio::time::sleep(self.pause).await;
        self.pause *= 2;
        Again::SameBytes
    }

    /// The error that says that nobody can tell.
    fn doubt(&self, handle: &Handle, cause: Option<CoreError>) -> Error {
        let message = "the reply to a write was lost, and whether it was made cannot be found out";
        let error = match cause {
            Some(cause) => CoreError::caused(Kind::OutcomeUnknown, message, cause),
            None => CoreError::new(Kind::OutcomeUnknown, message),
        };
        let error = handle.store_failed(error);
        if self.counts {
            handle.state().doubt = Some(error.clone());
        }
        error
    }

    /// After a late write of edits: whether a new time may help. A first copy may have run, and be forgotten: others have
    /// saved so often since, or the session has expired.
    fn late(&mut self, handle: &Handle) -> Result<(), Error> {
        self.new_time().map_err(|late| if self.unknown { self.doubt(handle, None) } else { late })
    }

    /// After a late write: whether a new time may help.
    fn new_time(&mut self) -> Result<(), Error> {
        if self.new_times == 0 || !self.time_is_left() {
            return Err(Error::new(Kind::Unavailable, "the write reached the store too late, so it was not made"));
        }
        self.new_times -= 1;
        Ok(())
    }
}

async fn create(handle: &Handle, order: Order, stage: &mut Stage<'_>) -> Result<(), Error> {
    let settings = &handle.settings;
    for _ in 0..NEW_IDS {
        let id = match handle.state().id.clone() {
            // Only where a test takes the rule out.
            Some(presented) if !Rule::UnknownIdsAreNotAdopted.holds() => presented,
            _ => SessionId::random(&settings.random)?,
        };
        let key = handle.key(&id);
        let staged = handle.working().and_then(|mut working| stage(&mut working))?;
        // What a closure that changes nothing answered is no reason to begin a session.
        if order.changes && staged.changes.is_empty() {
            return Ok(());
        }
        let wish = handle.state().wish;
        let mut create = Create {
            token: Token::random(&settings.random)?,
            not_after: not_after(handle, &key).await?,
            proof: id.proof(),
            life: handle.life(),
            wish,
            fields: staged.fields.clone(),
        };
        let mut tries = Tries::begin(handle, true);
        let at = loop {
            match settings.store.create(&key, &create).await {
                Ok(Created::Created { at }) => break Some(at),
                Ok(Created::Exists) => break None,
                Ok(Created::Late) => {
                    tries.late(handle)?;
                    create.not_after = not_after(handle, &key).await?;
                }
                Err(error) => match tries.after(handle, error).await {
                    Again::SameBytes => {}
                    Again::Fail(error) => return Err(error),
                },
            }
        };
        if let Some(at) = at {
            return created(handle, id, &create, staged, at);
        }
    }
    Err(Error::new(Kind::Random, "the random generator gives the same ids again and again"))
}

fn created(handle: &Handle, id: SessionId, create: &Create, staged: Staged, at: Time) -> Result<(), Error> {
    let record = Record {
        tokens: Tokens::first(create.token),
        proof: create.proof,
        proved: at,
        created: at,
        seen: at,
        wishes: create.wish.apply(Wishes::default(), at),
        fields: Fields::default(),
    };
    let mut state = handle.state();
    state.id = Some(id);
    state.stand_on(Some(create.token));
    state.found = Found::Alive(Box::new(record));
    state.wish = WishChange::default();
    state.ended_here = None;
    state.outgoing = Outgoing::Give;
    drop(state);
    handle.tell(Event::Created);
    Ok(handle.working()?.saved(staged)?)
}

/// Renews the idle timeout, and writes nothing else.
async fn touch(handle: &Handle) -> Result<(), Error> {
    let nothing = Staged { changes: Changes::default(), merges: true, fields: Fields::default() };
    write(handle, None, &mut |_| Ok(nothing.clone()), None).await
}

/// Saves the edits, and gives the session a new proof where one is asked for.
pub(crate) async fn save(handle: &Handle, stage: &mut Stage<'_>, new_id: Option<SessionId>) -> Result<(), Error> {
    let token = Token::random(&handle.settings.random)?;
    write(handle, Some(token), stage, new_id).instrument(handle.span("save")).await
}

async fn write(
    handle: &Handle,
    token: Option<Token>,
    stage: &mut Stage<'_>,
    new_id: Option<SessionId>,
) -> Result<(), Error> {
    let settings = &handle.settings;
    let Some(id) = handle.state().id.clone() else { return Err(Error::gone()) };
    let key = handle.key(&id);
    let mut tries = Tries::begin(handle, token.is_some());
    let mut turn = match token {
        // A touch races with nobody.
        None => None,
        Some(_) => Some(settings.queue.enter(&key, tries.by).await.ok_or_else(contended)?),
    };
    let latest = turn.as_mut().and_then(Turn::take_latest);
    // What the session became after a rotation is not for a request that knows the old id only.
    let same_id = |latest: &Record| latest.proof == id.proof() || !Rule::HandedOverToTheSameId.holds();
    if let Some(latest) = latest.filter(same_id) {
        move_to(handle, latest)?;
    }
    let not_after = not_after(handle, &key).await?;
    let mut staged = handle.working().and_then(|mut working| stage(&mut working))?;
    let mut save = request(handle, &id, token, &staged, new_id.as_ref().map(SessionId::proof), not_after)?;
    loop {
        tries.sent += 1;
        match settings.store.save(&key, &save).await {
            Ok(Saved::Saved { before, at }) => {
                let known = saved(handle, &save, new_id, before, at);
                if save.token.is_none() {
                    handle.tell(Event::Touched);
                    return Ok(());
                }
                handle.tell(Event::Saved { tries: tries.sent });
                if let (true, Some(turn)) = (known, turn) {
                    turn.leave(|| as_it_is_now(handle, staged.fields.clone()));
                }
                return Ok(handle.working()?.saved(staged)?);
            }
            // It lived when it was read, so whatever became of it did lately.
            Ok(Saved::Gone) => return dead(handle, &save, Found::Ended { reason: Reason::Expired, lately: true }),
            Ok(Saved::Ended(tombstone)) => {
                return dead(handle, &save, Found::Ended { reason: tombstone.reason, lately: true });
            }
            Ok(Saved::Replaced) => return dead(handle, &save, Found::Replaced { lately: true }),
            Ok(Saved::Late) => {
                tries.late(handle)?;
                save.not_after = self::not_after(handle, &key).await?;
            }
            Ok(Saved::Moved(record)) => {
                // What ran stands above the version that was there before: where that one is, it has not run.
                let is_known = handle.state().latest.is_some_and(|latest| record.tokens.contains(latest));
                if tries.unknown && !is_known && Rule::UnknownIsReported.holds() {
                    return Err(tries.doubt(handle, None));
                }
                let (mut earlier, not_after) = (std::mem::take(&mut save.earlier), save.not_after);
                // The first copy may be held somewhere, and still run.
                earlier.extend(save.token.filter(|_| tries.unknown && Rule::EarlierTokensAreSent.holds()));
                // Also where it is too late for another try: what this one has learned is the base of the next.
                move_to(handle, *record)?;
                if !tries.time_is_left() {
                    return Err(contended());
                }
                staged = handle.working().and_then(|mut working| stage(&mut working))?;
                let token = Token::random(&settings.random)?;
                save = request(handle, &id, Some(token), &staged, save.new_proof, not_after)?;
                save.earlier = earlier;
            }
            // A first copy that is held somewhere may yet run, on a version that does not refuse it.
            Ok(Saved::Refused(_) | Saved::TooLarge) if tries.unknown => return Err(tries.doubt(handle, None)),
            Ok(Saved::Refused(name)) => {
                return Err(CoreError::field(&name, "is not an integer, so it cannot be incremented").into());
            }
            Ok(Saved::TooLarge) => {
                let limit = settings.size_limit;
                let message = format!("the session would take more than its limit of {limit} bytes");
                return Err(Error::new(Kind::TooLarge, message));
            }
            Err(error) => match tries.after(handle, error).await {
                Again::SameBytes => {}
                Again::Fail(error) => return Err(error),
            },
        }
    }
}

fn request(
    handle: &Handle,
    id: &SessionId,
    token: Option<Token>,
    staged: &Staged,
    new_proof: Option<Proof>,
    not_after: Time,
) -> Result<Save, Error> {
    let state = handle.state();
    Ok(Save {
        token,
        earlier: Vec::new(),
        not_after,
        proof: id.proof(),
        base: state.base.ok_or_else(Error::gone)?,
        merges: staged.merges,
        changes: staged.changes.clone(),
        new_proof,
        wish: state.wish,
        life: handle.life(),
        limit: handle.settings.size_limit,
    })
}

/// Makes the edits again on a newer version.
fn move_to(handle: &Handle, mut record: Record) -> Result<(), Error> {
    handle.working()?.rebase(std::mem::take(&mut record.fields))?;
    let mut state = handle.state();
    state.stand_on(Some(record.tokens.newest()));
    state.found = Found::Alive(Box::new(record));
    Ok(())
}

/// Takes note of a write that was made. Answers whether it was made on the version that the working copy's base shows, so
/// that all fields are known.
fn saved(handle: &Handle, save: &Save, new_id: Option<SessionId>, before: Option<Token>, at: Time) -> bool {
    let mut state = handle.state();
    if let Found::Alive(record) = &mut state.found {
        record.seen = at;
        record.wishes = save.wish.apply(record.wishes, at);
        if let Some(proof) = save.new_proof {
            (record.proof, record.proved) = (proof, at);
        }
        if let Some(token) = save.token {
            record.tokens.push(token);
        }
    }
    if state.wish == save.wish {
        state.wish = WishChange::default();
    }
    if let Some(id) = new_id {
        state.id = Some(id);
        state.outgoing = Outgoing::Give;
    }
    let known = before == state.base || !Rule::UnseenVersionsAreNoBase.holds();
    // A merge that ran on a version which this request has not seen leaves its base old: the next edit with a closure
    // is then told that the session moved, rather than run on old values.
    if save.token.is_some() {
        state.latest = save.token;
    }
    if known && save.token.is_some() {
        state.base = save.token;
    }
    known
}

fn as_it_is_now(handle: &Handle, fields: Fields) -> Record {
    match &handle.state().found {
        Found::Alive(record) => Record { fields, ..(**record).clone() },
        _ => unreachable!("it was saved just now, and this request has the turn"),
    }
}

/// The session is no more: nothing was written, and no cookie of any kind is sent.
fn dead(handle: &Handle, save: &Save, found: Found) -> Result<(), Error> {
    bury(handle, found)?;
    if save.token.is_some() {
        handle.tell(Event::Dropped(Why::Dead));
    }
    Err(Error::gone())
}

fn bury(handle: &Handle, found: Found) -> Result<(), Error> {
    let mut state = handle.state();
    state.found = found;
    state.stand_on(None);
    state.wish = WishChange::default();
    state.outgoing = if Rule::AbsenceRemovesNoCookie.holds() { Outgoing::Nothing } else { Outgoing::Remove };
    drop(state);
    handle.working()?.reset(Fields::default());
    Ok(())
}

fn contended() -> Error {
    Error::new(Kind::Contended, "others changed the session again and again until the deadline; nothing was saved")
}

/// Gives a living session a new proof, which ends the old one, and saves the edits with it.
pub(crate) async fn rotate(handle: &Handle) -> Result<(), Error> {
    let id = {
        let state = handle.state();
        state.no_doubt()?;
        match (&state.found, &state.id) {
            (Found::Alive(_), Some(id)) if !Rule::RotationsTakeANewProof.holds() => id.clone(),
            (Found::Alive(_), Some(id)) => id.rotated(&handle.settings.random)?,
            (Found::Ended { lately: true, .. } | Found::Replaced { lately: true }, _) => return Err(Error::gone()),
            // There is nothing to take over: a session that begins later has a new id anyway.
            _ => return Ok(()),
        }
    };
    save(handle, &mut |working| Ok(working.stage()), Some(id)).await?;
    handle.tell(Event::Rotated);
    Ok(())
}

/// Ends the session, whatever this request has done with it.
pub(crate) async fn destroy(handle: &Arc<Handle>) -> Result<(), Error> {
    let (id, outgoing) = {
        let state = handle.state();
        let removal = if state.presented { Outgoing::Remove } else { Outgoing::Nothing };
        match (&state.found, &state.id) {
            (Found::Alive(_), Some(id)) => (Some(id.clone()), Outgoing::Remove),
            // Its cookie may be the one of a newer login.
            (Found::Replaced { .. }, _) if Rule::ReplacedEndsNothing.holds() => return Err(Error::gone()),
            _ => (None, removal),
        }
    };
    let ended = match id {
        Some(id) => end(handle, id).instrument(handle.span("end")).await,
        None => Ok(()),
    };
    if let Err(error) = &ended
        && error.is_gone()
    {
        bury(handle, Found::Replaced { lately: true })?;
        return ended;
    }
    handle.working()?.reset(Fields::default());
    let mut state = handle.state();
    state.found = Found::Absent;
    state.stand_on(None);
    state.wish = WishChange::default();
    // What became of earlier writes matters no more.
    state.doubt = None;
    state.ended_here = Some(Reason::Destroyed);
    // Also where the store failed: what can be done for the visitor is done.
    state.outgoing = outgoing;
    drop(state);
    ended
}

async fn end(handle: &Arc<Handle>, id: SessionId) -> Result<(), Error> {
    let mut tries = Tries::begin(handle, false);
    loop {
        let error = match end_once(handle, &id).await {
            Ok(Ended::Late) => match tries.new_time() {
                Ok(()) => continue,
                Err(error) => error,
            },
            Ok(Ended::Replaced) => return Err(Error::gone()),
            Ok(_) => {
                handle.tell(Event::Destroyed);
                return Ok(());
            }
            Err(error) => match tries.after(handle, error).await {
                Again::SameBytes => continue,
                Again::Fail(error) => error,
            },
        };
        tokio::spawn(go_on_ending(handle.clone(), id));
        return Err(error);
    }
}

async fn end_once(handle: &Handle, id: &SessionId) -> Result<Ended, CoreError> {
    let store = &handle.settings.store;
    // An end may run whenever it arrives within a tombstone's life: nothing can be undone by it.
    let not_after = store.now().map_or(Time::MAX, |now| now + store.deadline());
    // Who loaded the session before a login, and ends it after, must not end the login: an attacker may have planted
    // the cookie of before.
    let end = End { not_after, reason: Reason::Destroyed, proof: Some(id.proof()), expired_by: None };
    store.end(&handle.key(id), &end).await
}

/// A logout that failed is tried again, in growing intervals, for this long.
pub(crate) const ENDS_ARE_TRIED_FOR: Duration = Duration::from_secs(30);

async fn go_on_ending(handle: Arc<Handle>, id: SessionId) {
    let (until, mut pause) = (Instant::now() + ENDS_ARE_TRIED_FOR, Duration::from_millis(100));
    while Instant::now() < until {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
        match end_once(&handle, &id).await {
            Ok(Ended::Late) | Err(_) => {}
            Ok(Ended::Replaced) => return,
            Ok(_) => return handle.tell(Event::Destroyed),
        }
    }
    tracing::error!(target: "redis_session", realm = &*handle.settings.realm, "a session could not be ended");
}
