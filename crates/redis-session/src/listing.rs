//! Keeps a session of a user in step with its entry in the index: an entry is prolonged before its session is.

use std::future::Future;
use std::time::Duration;

use redis_session_core::{
    Durability, ENTRY_STAYS, End, Ended, Error as CoreError, Found, Kind, Prolong, Prolonged, Reason, Replication,
    Rule, SessionHandle, SessionKey, Stored, Time, User, Waited, Whose, Wishes,
};
use tokio::time::Instant;

use crate::commit::touch_due;
use crate::error::Error;
use crate::events::Event;
use crate::handle::Handle;
use crate::layer::Settings;
use crate::tries::{NEW_TIMES, PAUSE, replication, time_to_wait};

/// How many sessions are looked at, or ended, at a time: a user or an attacker may have thousands, and others' commands are
/// not to wait behind them all.
pub(crate) const AT_ONCE: usize = 64;

/// What a write is going to do to the idle timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To renew it where that is due; an index that fails is no reason not to save.
    WhereDue,
    /// To renew it.
    Renewal,
}

/// What the write may do.
pub(crate) enum Listed {
    /// Renew the idle timeout.
    Renewed,
    /// Leave it.
    AsItWas,
    /// Nothing: the session has ended, or was about to be.
    Gone(Found),
}

/// Prolongs the entry of this request's session, before the session itself is prolonged.
pub(crate) async fn keep(handle: &Handle, need: Need) -> Result<Listed, Error> {
    let settings = &*handle.settings;
    let (key, user, life) = {
        let state = handle.state();
        let (Found::Alive(record), Some(id)) = (&state.found, &state.id) else { return Ok(Listed::Renewed) };
        let Some(user) = record.user() else { return Ok(Listed::Renewed) };
        if need == Need::WhereDue && state.wish.is_empty() && !touch_due(handle, &state) {
            return Ok(Listed::AsItWas);
        }
        let now = settings.store.now().unwrap_or(record.seen);
        let wishes = state.wish.apply(record.wishes, now);
        (handle.key(id), user.clone(), settings.entry_life(record.created, now, &wishes))
    };
    match prolong(settings, &user, &key, life).await {
        Err(error) if need == Need::WhereDue && handle.state().wish.is_empty() && is_no_answer(&error) => {
            Ok(Listed::AsItWas)
        }
        // What is not known of the list says nothing of the session: no write of it was sent.
        Err(error) if error.is_outcome_unknown() => {
            let message = "the list of the user's sessions did not answer, so nothing was written";
            Err(CoreError::caused(Kind::Unavailable, message, error).into())
        }
        listed => listed,
    }
}

/// Whether the list said nothing: its server is away or silent, or what is at its key is none.
fn is_no_answer(error: &Error) -> bool {
    error.is_unavailable() || error.is_outcome_unknown() || error.is_corrupt()
}

async fn prolong(settings: &Settings, user: &User, key: &SessionKey, life: Duration) -> Result<Listed, Error> {
    let (index, of, session) = (settings.index()?, &user.key(&settings.realm), key.handle());
    let prolong = |add| {
        let run = move |not_after| async move { index.prolong(of, &Prolong { session, life, add, not_after }).await };
        step(settings, run, |prolonged| *prolonged == Prolonged::Late)
    };
    let mut prolonged = prolong(false).await?;
    if prolonged == Prolonged::Missing {
        // An entry that was lost is written again, but not one whose session has ended.
        match look(settings, key).await? {
            Some(Stored::Record(record)) if record.user() == Some(user) => prolonged = prolong(true).await?,
            _ => return Ok(Listed::Gone(Found::Ended { reason: Reason::Expired, lately: true })),
        }
    }
    if prolonged == Prolonged::Doomed {
        // Whoever doomed it ends it as well, and waits for what he wants.
        end_and_leave(settings, user, &[key.handle()], Reason::Revoked, Durability::Fast).await?;
        return Ok(Listed::Gone(Found::Ended { reason: Reason::Revoked, lately: true }));
    }
    Ok(Listed::Renewed)
}

/// What the store has at a key, without the application's fields.
pub(crate) async fn look(settings: &Settings, key: &SessionKey) -> Result<Option<Stored>, Error> {
    settings.store.glance(key).await.map_err(|error| settings.store_failed(error))
}

/// Ends these sessions of a user, and then takes their entries away: all but those in which a login may be under way,
/// which then finds its entry doomed. Tells of each that ended now, also where others fail, and answers how many did.
///
/// # Errors
/// `is_not_replicated` only where all of them ended. `is_corrupt` only where all others ended: the entry stays.
pub(crate) async fn end_and_leave(
    settings: &Settings,
    user: &User,
    sessions: &[SessionHandle],
    reason: Reason,
    durability: Durability,
) -> Result<usize, Error> {
    let whose = Whose::Users(user.clone());
    let (mut ended, mut failed, mut missed) = (0, None, None);
    for some in sessions.chunks(AT_ONCE) {
        let ends = futures_util::future::join_all(some.iter().map(|session| {
            let key = session.key(&settings.realm);
            let whose = whose.clone();
            async move { (*session, end(settings, &key, reason, whose, durability).await) }
        }))
        .await;
        let mut leave = Vec::with_capacity(ends.len());
        for (session, answer) in ends {
            match answer {
                Ok(Ending { ended: Ended::Nobodys, .. }) if Rule::EntriesOfNobodyStay.holds() => {}
                Ok(ending) => {
                    if ending.ended == Ended::Ended {
                        settings.tell(Event::Revoked(reason));
                        ended += 1;
                    }
                    match ending.missed {
                        None => leave.push(session),
                        // A failover may bring it back. Who asks again finds it, and waits for its end again.
                        Some(error) => missed = missed.or(Some(error)),
                    }
                }
                // One that cannot be read is not what others wait for.
                Err(error) => failed = failed.filter(|failed: &Error| !failed.is_corrupt()).or(Some(error)),
            }
        }
        if let Err(error) = self::leave(settings, user, &leave).await {
            failed = Some(error);
        }
    }
    failed.or(missed).map_or(Ok(ended), Err)
}

/// Ends those that a login is to end before it begins: what it pushes out of the list, and what others have doomed and not
/// ended.
///
/// # Errors
/// One of them may live.
pub(crate) async fn make_room(settings: &Settings, user: &User, doomed: &[SessionHandle]) -> Result<(), Error> {
    if doomed.is_empty() {
        return Ok(());
    }
    let ends = || end_and_leave(settings, user, doomed, Reason::Cap, Durability::Fast);
    match ends().await {
        // A reply that was another command's is told from a record that cannot be read by asking again.
        Err(error) if error.is_corrupt() => match ends().await {
            // It is no session for anybody, and keeps nobody out. Its entry stays doomed.
            Err(error) if error.is_corrupt() => Ok(()),
            ended => ended.map(drop),
        },
        ended => ended.map(drop),
    }
}

/// How an end ended.
pub(crate) struct Ending {
    pub(crate) ended: Ended,
    /// Why it is not on as many replicas as it was to be. `None`: it is, or nothing was written.
    pub(crate) missed: Option<Error>,
}

/// Ends one session, again where a reply was lost.
pub(crate) async fn end(
    settings: &Settings,
    key: &SessionKey,
    reason: Reason,
    whose: Whose,
    durability: Durability,
) -> Result<Ending, Error> {
    let store = &settings.store;
    let run = |not_after, replication| {
        let end = End { not_after, reason, whose: whose.clone() };
        async move {
            match replication {
                None => store.end(key, &end).await.map(Waited::enough),
                Some(replication) => store.end_durably(key, &end, replication).await,
            }
        }
    };
    let is_late = |ended: &Ended| *ended == Ended::Late;
    let Waited { outcome, missed } = step_durably(settings, durability, run, is_late).await?;
    Ok(Ending { ended: outcome, missed: missed.map(|error| settings.not_replicated(error)) })
}

/// Takes entries away.
pub(crate) async fn leave(settings: &Settings, user: &User, sessions: &[SessionHandle]) -> Result<(), Error> {
    if sessions.is_empty() {
        return Ok(());
    }
    let (index, of) = (settings.index()?, &user.key(&settings.realm));
    step(settings, |_| index.leave(of, sessions), |()| false).await
}

/// Makes a step that may be made twice: again where its reply was lost, or where our clock was wrong.
pub(crate) async fn step<T, F>(
    settings: &Settings,
    run: impl Fn(Time) -> F,
    is_late: impl Fn(&T) -> bool,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, CoreError>>,
{
    step_by(settings, Instant::now() + settings.store.deadline(), run, is_late).await
}

/// The same of a step that waits for replicas, each try in the time that is left.
pub(crate) async fn step_durably<T, F>(
    settings: &Settings,
    durability: Durability,
    run: impl Fn(Time, Option<Replication>) -> F,
    is_late: impl Fn(&T) -> bool,
) -> Result<Waited<T>, Error>
where
    F: Future<Output = Result<Waited<T>, CoreError>>,
{
    let by = Instant::now() + settings.store.deadline() + time_to_wait(durability);
    let run = |not_after| run(not_after, replication(durability, by));
    step_by(settings, by, run, |waited| is_late(&waited.outcome)).await
}

async fn step_by<T, F>(
    settings: &Settings,
    by: Instant,
    run: impl Fn(Time) -> F,
    is_late: impl Fn(&T) -> bool,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, CoreError>>,
{
    let store = &settings.store;
    let (mut pause, mut new_times) = (PAUSE, NEW_TIMES);
    let mut unknown = false;
    loop {
        match run(store.now().map_or(Time::MAX, |now| now + store.deadline())).await {
            Ok(answer) if !is_late(&answer) => return Ok(answer),
            Ok(_) if new_times == 0 || Instant::now() >= by => {
                let message = "the step reached the store too late, so it was not made";
                return Err(settings.store_failed(CoreError::new(Kind::Unavailable, message)));
            }
            Ok(_) => new_times -= 1,
            Err(error) => {
                unknown |= error.is_outcome_unknown();
                let is_worth_it = unknown && (error.is_outcome_unknown() || error.is_unavailable());
                if !is_worth_it || Instant::now() + pause >= by {
                    return Err(settings.store_failed(error));
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
    }
}

impl Settings {
    /// How long the entry of a session stays whose idle timeout is renewed now.
    pub(crate) fn entry_life(&self, created: Time, now: Time, wishes: &Wishes) -> Duration {
        self.expiry.life().deadline(created, now, wishes).since(now) + ENTRY_STAYS
    }
}
