//! Carries out what the plan says: one atomic step in the store, again where the session moved or a reply was lost.

use std::time::Duration;

use redis_session_core::{
    Changes, Create, Created, Durability, Error as CoreError, Fields, Found, Kind, LogIn, Plan, Reason, Record,
    ReplacedBy, Rule, Save, Saved, SessionId, SessionKey, Staged, Step, Time, Token, Tokens, Why, Wish, WishChange,
    Wishes, Working,
};
use tracing::Instrument;

use crate::error::Error;
use crate::events::Event;
use crate::handle::{Handle, Outgoing, State};
use crate::listing::{self, Listed};
use crate::queue::Turn;
use crate::tries::{Again, Tries, not_after};

/// How many new ids are tried: two that are the same are a generator that is broken.
const NEW_IDS: usize = 4;

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
    /// The response that this write is for can bring a new id to the browser.
    pub(crate) brings_ids: bool,
}

/// What must happen, by what is known now.
pub(crate) fn plan(handle: &Handle, order: Order) -> Result<Plan, Error> {
    let changed = handle.working()?.is_changed() || order.changes;
    let state = handle.state();
    state.may_write()?;
    // A wish alone begins no session: a middleware may give one to every visitor.
    let changed = changed || matches!(state.found, Found::Alive(_)) && !state.wish.is_empty();
    let touch_due = touch_due(handle, &state) || order.brings_ids && renewal_due(handle, &state);
    Ok(Plan::decide(&state.found, Wish { changed, asked: order.asked, dropped: order.dropped, touch_due }))
}

pub(crate) fn touch_due(handle: &Handle, state: &State) -> bool {
    let Found::Alive(record) = &state.found else { return false };
    if brings_a_renewed_proof(state) {
        return true;
    }
    let interval = Duration::from_millis(handle.life().touch_of(&record.wishes));
    handle.settings.store.now().is_none_or(|now| now.since(record.seen) >= interval)
}

/// Whether this request is the first to come with the proof that a timed renewal has handed out.
fn brings_a_renewed_proof(state: &State) -> bool {
    let Found::Alive(record) = &state.found else { return false };
    has_unseen_proof(record) && state.id.as_ref().is_some_and(|id| id.proof() == record.proof)
}

/// Whether the session of a user is to get a new id: nobody comes with one that he was not given yet.
fn renewal_due(handle: &Handle, state: &State) -> bool {
    let (Found::Alive(record), Some(id)) = (&state.found, &state.id) else { return false };
    let Some(interval) = handle.settings.expiry.renewal().filter(|_| record.login.is_some()) else { return false };
    let is_old = || handle.settings.store.now().is_some_and(|now| now.since(record.replaced()) >= interval);
    // One at a time: the id before is good until this one was seen.
    state.outgoing == Outgoing::Nothing && id.proof() == record.proof && !has_unseen_proof(record) && is_old()
}

/// Whether no request has come yet with the proof that a timed renewal has handed out.
fn has_unseen_proof(record: &Record) -> bool {
    record.previous.is_some_and(|previous| previous.by == ReplacedBy::Renewal)
}

/// Carries out a plan on the edits as they are. The caller has the turn.
pub(crate) async fn carry_out(handle: &Handle, plan: Plan, order: Order) -> Result<(), Error> {
    carry_out_with(handle, plan, order, &mut |working| Ok(working.stage())).await
}

/// Carries out a plan on what `stage` makes of the working copy.
pub(crate) async fn carry_out_with(
    handle: &Handle,
    plan: Plan,
    order: Order,
    stage: &mut Stage<'_>,
) -> Result<(), Error> {
    let gives = || {
        let state = handle.state();
        let is_due = order.brings_ids && renewal_due(handle, &state);
        let renewed = if is_due { handle.renewed_id(&state) } else { None };
        renewed.map_or(Gives::Nothing, Gives::Renewal)
    };
    match plan {
        Plan::Nothing => Ok(()),
        Plan::Create => create(handle, order, stage).instrument(handle.span("create")).await,
        Plan::Save => save(handle, stage, gives()).await,
        Plan::Touch => touch(handle, gives()).instrument(handle.span("touch")).await,
        Plan::Drop(why) => {
            drop_edits(handle, why)?;
            if why == Why::Dead { Err(Error::gone()) } else { Ok(()) }
        }
    }
}

fn drop_edits(handle: &Handle, why: Why) -> Result<(), Error> {
    handle.working()?.drop_edits();
    handle.state().wish = WishChange::default();
    handle.tell(Event::Dropped(why));
    Ok(())
}

async fn create(handle: &Handle, order: Order, stage: &mut Stage<'_>) -> Result<(), Error> {
    for _ in 0..NEW_IDS {
        let id = match handle.state().id.clone() {
            // Only where a test takes the rule out.
            Some(presented) if !Rule::UnknownIdsAreNotAdopted.holds() => presented,
            _ => SessionId::random(&handle.settings.random)?,
        };
        let staged = handle.working().and_then(|mut working| stage(&mut working))?;
        // What a closure that changes nothing answered is no reason to begin a session.
        if order.changes && staged.changes.is_empty() {
            return Ok(());
        }
        if create_at(handle, id, staged, None, handle.durability()).await? {
            return Ok(());
        }
    }
    Err(ids_repeat())
}

pub(crate) fn ids_repeat() -> Error {
    Error::new(Kind::Random, "the random generator gives the same ids again and again")
}

/// Creates the session of this id. `false`: there is something already.
pub(crate) async fn create_at(
    handle: &Handle,
    id: SessionId,
    staged: Staged,
    login: Option<LogIn>,
    durability: Durability,
) -> Result<bool, Error> {
    let (settings, key) = (&handle.settings, handle.key(&id));
    let wish = handle.state().wish;
    let mut create = Create {
        token: Token::random(&settings.random)?,
        not_after: not_after(handle, &key).await?,
        proof: id.proof(),
        life: handle.life(),
        wish,
        login,
        fields: staged.fields.clone(),
    };
    let mut tries = Tries::begin(handle, true, durability);
    loop {
        let answer = match tries.replication() {
            None => settings.store.create(&key, &create).await,
            Some(replication) => {
                let waited = settings.store.create_durably(&key, &create, replication).await;
                waited.map(|waited| handle.outcome(waited))
            }
        };
        match answer {
            Ok(Created::Created { at }) => {
                created(handle, id, &create, staged, at)?;
                return Ok(true);
            }
            Ok(Created::Exists) => return Ok(false),
            Ok(Created::Late) => {
                tries.late(handle)?;
                create.not_after = not_after(handle, &key).await?;
            }
            Err(error) => match tries.after(handle, error).await {
                Again::SameBytes => {}
                Again::Fail(error) => return Err(error),
            },
        }
    }
}

fn created(handle: &Handle, id: SessionId, create: &Create, staged: Staged, at: Time) -> Result<(), Error> {
    let record = Record {
        tokens: Tokens::first(create.token),
        proof: create.proof,
        proved: at,
        previous: None,
        created: at,
        seen: at,
        wishes: create.wish.apply(Wishes::default(), at),
        login: create.login.as_ref().map(|login| Box::new(login.at(at))),
        fields: Fields::default(),
    };
    let mut state = handle.state();
    state.give(id);
    state.stand_on(Some(create.token));
    state.found = Found::Alive(Box::new(record));
    state.wish = WishChange::default();
    state.ended_here = None;
    drop(state);
    handle.tell(Event::Created);
    Ok(handle.working()?.saved(staged)?)
}

/// Renews the idle timeout, and writes nothing else.
async fn touch(handle: &Handle, gives: Gives) -> Result<(), Error> {
    let nothing = Staged { changes: Changes::default(), merges: true, fields: Fields::default() };
    if let Listed::Gone(found) = listing::keep(handle, listing::Need::Renewal).await? {
        return dead(handle, false, found);
    }
    let wrote = write(handle, None, &mut |_| Ok(nothing.clone()), gives, true, handle.durability()).await?;
    settle(handle, false, wrote)
}

/// What a save gives the session beside its edits.
pub(crate) enum Gives {
    Nothing,
    /// A new proof.
    Rotation(SessionId),
    /// A new proof for the browser; this request goes on with the one that it came with.
    Renewal(SessionId),
    /// A new proof, and a user.
    LogIn(SessionId, LogIn),
}

/// Saves the edits, and what else is given.
pub(crate) async fn save(handle: &Handle, stage: &mut Stage<'_>, gives: Gives) -> Result<(), Error> {
    let renews = match listing::keep(handle, listing::Need::WhereDue).await? {
        Listed::Renewed => true,
        Listed::AsItWas => false,
        Listed::Gone(found) => return dead(handle, true, found),
    };
    let token = Token::random(&handle.settings.random)?;
    let write = write(handle, Some(token), stage, gives, renews, handle.durability());
    settle(handle, true, write.instrument(handle.span("save")).await?)
}

/// How a write ended that is neither an error nor a try that is still to be made.
pub(crate) enum Wrote {
    Done,
    /// Nothing was written, since the session is no more what this request has loaded.
    Dead(Found),
    /// Nothing was written, since the same user was logged in with this proof a moment ago.
    LoggedInAlready,
}

fn settle(handle: &Handle, edits: bool, wrote: Wrote) -> Result<(), Error> {
    match wrote {
        Wrote::Done => Ok(()),
        Wrote::Dead(found) => dead(handle, edits, found),
        // Only a login is answered so, and it does not come here: it is the reply to another's.
        Wrote::LoggedInAlready => dead(handle, edits, Found::Replaced { lately: true, by: None }),
    }
}

/// Saves by one atomic step, again where the session moved or a reply was lost.
pub(crate) async fn write(
    handle: &Handle,
    token: Option<Token>,
    stage: &mut Stage<'_>,
    gives: Gives,
    renews: bool,
    durability: Durability,
) -> Result<Wrote, Error> {
    let settings = &handle.settings;
    let Some(id) = handle.state().id.clone() else { return Err(Error::gone()) };
    let key = handle.key(&id);
    // A mere touch that is lost costs nobody anything; with a new id it would be a browser's only one.
    let counts = token.is_some() || !matches!(gives, Gives::Nothing);
    let durability = if counts { durability } else { Durability::Fast };
    let mut tries = Tries::begin(handle, token.is_some(), durability);
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
    let mut save = request(handle, &id, token, &mut staged, step(handle, &gives), renews, not_after)?;
    loop {
        tries.sent += 1;
        match send(handle, &key, &save, &tries).await {
            Ok(Saved::Saved { before, at }) => {
                let known = saved(handle, &save, &gives, before, at);
                if save.token.is_none() {
                    handle.tell(Event::Touched);
                    return Ok(Wrote::Done);
                }
                handle.tell(Event::Saved { tries: tries.sent });
                if let (true, Some(turn)) = (known, turn) {
                    turn.leave(|| as_it_is_now(handle, staged.fields.clone()));
                }
                handle.working()?.saved(staged)?;
                return Ok(Wrote::Done);
            }
            // It lived when it was read, so whatever became of it did lately.
            Ok(Saved::Gone) => return Ok(Wrote::Dead(Found::Ended { reason: Reason::Expired, lately: true })),
            Ok(Saved::Ended(tombstone)) => {
                return Ok(Wrote::Dead(Found::Ended { reason: tombstone.reason, lately: true }));
            }
            Ok(Saved::Replaced) => return Ok(Wrote::Dead(Found::Replaced { lately: true, by: None })),
            Ok(Saved::LoggedInAlready) => return Ok(Wrote::LoggedInAlready),
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
                save = request(handle, &id, Some(token), &mut staged, save.step, renews, not_after)?;
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

/// Sends a save, and takes note of it where it is made and not where it was to be.
async fn send(handle: &Handle, key: &SessionKey, save: &Save, tries: &Tries) -> Result<Saved, CoreError> {
    let store = &handle.settings.store;
    match tries.replication() {
        None => store.save(key, save).await,
        Some(replication) => Ok(handle.outcome(store.save_durably(key, save, replication).await?)),
    }
}

/// What becomes of the proof.
fn step(handle: &Handle, gives: &Gives) -> Step {
    match gives {
        Gives::Nothing if brings_a_renewed_proof(&handle.state()) => Step::Seen,
        Gives::Nothing => Step::Keep,
        Gives::Rotation(id) => Step::Rotate(id.proof()),
        Gives::Renewal(id) => Step::Renew(id.proof()),
        Gives::LogIn(id, login) => Step::LogIn(id.proof(), login.clone()),
    }
}

/// Takes the changes out of what is staged; its fields stay for when they are saved.
fn request(
    handle: &Handle,
    id: &SessionId,
    token: Option<Token>,
    staged: &mut Staged,
    step: Step,
    renews: bool,
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
        changes: std::mem::take(&mut staged.changes),
        step,
        renews,
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
fn saved(handle: &Handle, save: &Save, gives: &Gives, before: Option<Token>, at: Time) -> bool {
    let mut state = handle.state();
    state.wrote |= save.token.is_some();
    if let Found::Alive(record) = &mut state.found {
        if save.renews {
            record.seen = at;
        }
        record.wishes = save.wish.apply(record.wishes, at);
        save.step.take(record, save.proof, at);
        if let Some(token) = save.token {
            record.tokens.push(token);
        }
    }
    if state.wish == save.wish {
        state.wish = WishChange::default();
    }
    match gives {
        Gives::Nothing => {}
        Gives::Rotation(id) | Gives::LogIn(id, _) => state.give(id.clone()),
        Gives::Renewal(id) => state.offer(id.clone()),
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
fn dead(handle: &Handle, edits: bool, found: Found) -> Result<(), Error> {
    bury(handle, found)?;
    if edits {
        handle.tell(Event::Dropped(Why::Dead));
    }
    Err(Error::gone())
}

pub(crate) fn bury(handle: &Handle, found: Found) -> Result<(), Error> {
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
    // It came with the id before a timed renewal, which does not rotate: an answer with the renewed one may be on its way, and
    // would take this one's place. The session lives, and the browser is still offered the renewed id, for its next try.
    if handle.state().offer.is_some() && Rule::WhoWasRenewedDoesNotRotate.holds() {
        drop_edits(handle, Why::Dead)?;
        return Err(Error::gone());
    }
    let id = {
        let state = handle.state();
        state.may_write()?;
        match (&state.found, &state.id) {
            (Found::Alive(_), Some(id)) if !Rule::RotationsTakeANewProof.holds() => id.clone(),
            (Found::Alive(_), Some(id)) => id.rotated(&handle.settings.random)?,
            (Found::Ended { lately: true, .. } | Found::Replaced { lately: true, .. }, _) => return Err(Error::gone()),
            // There is nothing to take over: a session that begins later has a new id anyway.
            _ => return Ok(()),
        }
    };
    save(handle, &mut |working| Ok(working.stage()), Gives::Rotation(id)).await?;
    handle.tell(Event::Rotated);
    Ok(())
}
