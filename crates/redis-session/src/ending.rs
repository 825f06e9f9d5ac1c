//! Ends a session at once, and goes on trying in the background where the store fails.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis_session_core::{
    Durability, Ended, Fields, Found, Reason, Rule, SessionId, SessionKey, User, Whose, WishChange,
};
use tokio::time::Instant;
use tracing::Instrument;

use crate::adopt;
use crate::commit::bury;
use crate::error::Error;
use crate::events::Event;
use crate::handle::{Handle, Loaded, Outgoing};
use crate::layer::Settings;
use crate::listing::{self, Ending};

/// Ends the session for this reason, whatever this request has done with it.
pub(crate) async fn end(handle: &Arc<Handle>, reason: Reason) -> Result<(), Error> {
    // Where that fails, it is a session that could not be read.
    let _unread = handle.confirm().await;
    let waits = handle.durability() != Durability::Fast;
    let (going, outgoing, unread) = {
        let state = handle.state();
        let removal = if state.presented { Outgoing::Remove } else { Outgoing::Nothing };
        let (going, outgoing) = match (&state.found, &state.id) {
            (Found::Alive(record), Some(id)) => (Some((id.clone(), record.user().cloned())), Outgoing::Remove),
            // Its cookie may be the one of a newer login.
            (Found::Replaced { .. }, _) if Rule::ReplacedEndsNothing.holds() => return Err(Error::gone()),
            // Somebody has ended it, perhaps not where this end is to be: who is told now that it ended relies on that.
            (Found::Ended { lately: true, .. }, Some(id)) if waits => (Some((id.clone(), None)), removal),
            _ => (None, removal),
        };
        (going, outgoing, state.was_read().err().map(|error| (error, state.id.clone())))
    };
    let present = going.as_ref().map(|(id, _)| id.clone());
    let ended = match (going, unread) {
        (Some((id, user)), _) => end_at_once(handle, Going::new(handle, &id, user.as_ref(), reason)).await,
        (None, Some((error, id))) => {
            if let Some(id) = id {
                handle.settings.under_way.spawn(read_and_go_on(handle.clone(), id, reason));
            }
            Err(error)
        }
        (None, None) => Ok(()),
    };
    let ended = match ended {
        // What could not be read is ended with what is beside it.
        Err(error) if error.is_gone() || present.is_none() => Err(error),
        ended => end_beside_at_once(handle, present, reason).await.and(ended),
    };
    if let Err(error) = &ended
        && error.is_gone()
    {
        bury(handle, Found::Replaced { lately: true, by: None })?;
        return ended;
    }
    handle.working()?.reset(Fields::default());
    let mut state = handle.state();
    state.loaded = Loaded::Done;
    state.found = Found::Absent;
    state.stand_on(None);
    state.wish = WishChange::default();
    // What became of earlier writes matters no more.
    state.doubt = None;
    state.ended_here = Some(reason);
    // Also where the store failed: what can be done for the visitor is done.
    state.outgoing = outgoing;
    drop(state);
    ended
}

/// A session that is to be ended.
#[derive(Clone)]
struct Going {
    key: SessionKey,
    whose: Whose,
    user: Option<User>,
    reason: Reason,
    durability: Durability,
}

impl Going {
    fn new(handle: &Handle, id: &SessionId, user: Option<&User>, reason: Reason) -> Self {
        // Of nobody's session, who loaded it before a login must not end the login: an attacker may have planted the
        // cookie of before.
        let whose = user.map_or_else(|| Whose::Nobodys(id.proof()), |user| Whose::Users(user.clone()));
        Self { key: handle.key(id), whose, user: user.cloned(), reason, durability: handle.durability() }
    }

    fn event(&self) -> Event {
        match self.reason {
            Reason::LoggedOut => Event::LoggedOut,
            Reason::Destroyed => Event::Destroyed,
            reason => Event::Revoked(reason),
        }
    }

    /// The session first, then its entry; one that a failover may bring back stays in the list, so that a revocation finds it.
    async fn end_once(&self, settings: &Settings) -> Result<Ending, Error> {
        let ending = listing::end(settings, &self.key, self.reason, self.whose.clone(), self.durability).await?;
        let leaves = ending.ended != Ended::Nobodys && ending.missed.is_none();
        if let Some(user) = self.user.as_ref().filter(|_| leaves) {
            listing::leave(settings, user, &[self.key.handle()]).await?;
        }
        Ok(ending)
    }
}

async fn end_at_once(handle: &Arc<Handle>, going: Going) -> Result<(), Error> {
    match going.end_once(&handle.settings).instrument(handle.span("end")).await {
        Ok(Ending { ended: Ended::Others | Ended::Nobodys, .. }) => Err(Error::gone()),
        Ok(Ending { missed, .. }) => {
            handle.tell(going.event());
            handle.state().missed = missed;
            Ok(())
        }
        Err(error) => {
            handle.settings.under_way.spawn(go_on(handle.clone(), going));
            Err(error)
        }
    }
}

/// What the cookies beside our own lead to ends with it: they would be good for a login for as long as it lives.
async fn end_beside(handle: &Handle, but: Option<&SessionId>, reason: Reason) -> Result<(), Error> {
    for (id, user) in adopt::living_beside(handle, but).await? {
        let going = Going::new(handle, &id, user.as_ref(), reason);
        let Ending { ended, missed } = going.end_once(&handle.settings).instrument(handle.span("end")).await?;
        if ended == Ended::Ended {
            handle.tell(going.event());
        }
        if missed.is_some() {
            handle.state().missed = missed;
        }
    }
    Ok(())
}

async fn end_beside_at_once(handle: &Arc<Handle>, but: Option<SessionId>, reason: Reason) -> Result<(), Error> {
    let ended = end_beside(handle, but.as_ref(), reason).await;
    if ended.is_err() {
        let handle = handle.clone();
        handle.settings.under_way.clone().spawn(async move {
            tried_again(&handle, || end_beside(&handle, but.as_ref(), reason)).await;
        });
    }
    ended
}

/// Ends a session without anybody waiting for it.
pub(crate) fn go_on_in_background(handle: &Arc<Handle>, id: &SessionId, user: Option<&User>, reason: Reason) {
    handle.settings.under_way.spawn(go_on(handle.clone(), Going::new(handle, id, user, reason)));
}

/// A logout that failed is tried again, in growing intervals, for this long.
pub(crate) const ENDS_ARE_TRIED_FOR: Duration = Duration::from_secs(30);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

async fn go_on(handle: Arc<Handle>, going: Going) {
    match tried_again(&handle, || going.end_once(&handle.settings)).await {
        None | Some(Ending { ended: Ended::Others | Ended::Nobodys, .. }) => {}
        Some(_) => handle.tell(going.event()),
    }
}

/// Ends a session of which nothing is known yet but its id, and those beside it.
async fn read_and_go_on(handle: Arc<Handle>, id: SessionId, reason: Reason) {
    let (handle, id) = (&handle, &id);
    tried_again(handle, || async move {
        if !handle.state().adopts
            && let Found::Alive(record) = handle.look_up(id).await?
        {
            let going = Going::new(handle, id, record.user(), reason);
            if !matches!(going.end_once(&handle.settings).await?.ended, Ended::Others | Ended::Nobodys) {
                handle.tell(going.event());
            }
        }
        end_beside(handle, None, reason).await
    })
    .await;
}

/// The first answer that is no error. `None`: there was none in all the time, or a record that cannot be read; an attempt
/// under way is given up then.
async fn tried_again<T, F>(handle: &Handle, attempt: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = Result<T, Error>>,
{
    let (until, mut pause) = (Instant::now() + ENDS_ARE_TRIED_FOR, Duration::from_millis(100));
    let mut unreadable = 0;
    let answer = tokio::time::timeout_at(until, async {
        // The first such reply may have been another command's.
        while unreadable < 2 {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            match attempt().await {
                Ok(answer) => return Some(answer),
                Err(error) => unreadable += u32::from(error.is_corrupt()),
            }
        }
        None
    });
    if let Ok(Some(answer)) = answer.await {
        return Some(answer);
    }
    tracing::error!(target: "redis_session", realm = &*handle.settings.realm, "a session could not be ended");
    None
}
