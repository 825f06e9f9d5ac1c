//! Ends a session at once, and goes on trying in the background where the store fails.

use std::sync::Arc;
use std::time::Duration;

use redis_session_core::{End, Ended, Error as CoreError, Fields, Found, Reason, Rule, SessionId, Time, WishChange};
use tokio::time::Instant;
use tracing::Instrument;

use crate::commit::bury;
use crate::error::Error;
use crate::events::Event;
use crate::handle::{Handle, Outgoing};
use crate::tries::{Again, Tries};

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
