//! What lost replies and wrong clocks mean for a write: whether it is sent again, and what is told if it is not.

use std::future::Future;
use std::time::Duration;

use redis_session_core::{Durability, Error as CoreError, Kind, Replication, Rule, SessionKey, Time};
use tokio::time::Instant;

use crate::error::Error;
use crate::handle::Handle;
use crate::layer::Settings;

/// How often a write is sent with a new `not_after`, where our idea of the store's clock was wrong.
pub(crate) const NEW_TIMES: usize = 2;
/// Before a write whose reply was lost is sent again; the store needs some 20 milliseconds for a new connection.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

/// The store's time, which it learns with its first answer: to this question, where it does not know it yet.
pub(crate) async fn time_of_store<T, F>(settings: &Settings, question: impl FnOnce() -> F) -> Result<Time, Error>
where
    F: Future<Output = Result<T, CoreError>>,
{
    let store = &settings.store;
    if store.now().is_none() {
        question().await.map_err(|error| settings.store_failed(error))?;
    }
    store.now().ok_or_else(|| Error::new(Kind::Unavailable, "the store does not know its time yet"))
}

/// Until when a write may run, in the store's time.
pub(crate) async fn not_after(handle: &Handle, key: &SessionKey) -> Result<Time, Error> {
    let store = &handle.settings.store;
    Ok(time_of_store(&handle.settings, || store.load(key)).await? + store.deadline())
}

/// For how long a write may wait, beside the store's deadline.
pub(crate) fn time_to_wait(durability: Durability) -> Duration {
    durability.replication().map_or(Duration::ZERO, |replication| replication.within)
}

/// What a try waits for that is sent now, where all of them end by a point in time.
pub(crate) fn replication(durability: Durability, by: Instant) -> Option<Replication> {
    let Replication { replicas, within } = durability.replication()?;
    let left = by.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    Some(Replication { replicas, within: within.min(left) })
}

/// What is left to wait for, since then, by the next write of the same caller: on a cluster two servers may have to wait, and
/// the time is for both.
pub(crate) fn rest(durability: Durability, since: Instant) -> Durability {
    match durability {
        Durability::Fast => Durability::Fast,
        Durability::Replicated { replicas, within } => {
            let left = within.saturating_sub(since.elapsed()).as_millis().max(1);
            Durability::Replicated { replicas, within: Duration::from_millis(u64::try_from(left).unwrap_or(u64::MAX)) }
        }
    }
}

/// What lost replies and wrong clocks mean for a write that is sent again with the same bytes.
pub(crate) struct Tries {
    pub(crate) by: Instant,
    pub(crate) sent: u32,
    new_times: usize,
    /// Whether a copy that was sent may have run, or may yet run.
    pub(crate) unknown: bool,
    /// Whether it writes what must not be written twice, so that nothing more is written once its outcome is unknown.
    counts: bool,
    pause: Duration,
    durability: Durability,
}

/// What to do about an answer that is none.
pub(crate) enum Again {
    SameBytes,
    Fail(Error),
}

impl Tries {
    pub(crate) fn begin(handle: &Handle, counts: bool, durability: Durability) -> Self {
        let by = Instant::now() + handle.settings.store.deadline() + time_to_wait(durability);
        Self { by, sent: 0, new_times: NEW_TIMES, unknown: false, counts, pause: PAUSE, durability }
    }

    /// What the next try waits for, in the time that is left.
    pub(crate) fn replication(&self) -> Option<Replication> {
        replication(self.durability, self.by)
    }

    pub(crate) fn time_is_left(&self) -> bool {
        Instant::now() < self.by
    }

    /// After an error: the same again, as long as nothing is known and there is time.
    pub(crate) async fn after(&mut self, handle: &Handle, error: CoreError) -> Again {
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
    pub(crate) fn doubt(&self, handle: &Handle, cause: Option<CoreError>) -> Error {
        let message = "the reply to a write was lost, and whether it was made cannot be found out";
        let error = match cause {
            Some(cause) => CoreError::caused(Kind::OutcomeUnknown, message, cause),
            None => CoreError::new(Kind::OutcomeUnknown, message),
        };
        let error = handle.store_failed(error);
        if self.counts {
            handle.doubt(error.clone());
        }
        error
    }

    /// After a late write of edits: whether a new time may help. A first copy may have run, and be forgotten: others have
    /// saved so often since, or the session has expired.
    pub(crate) fn late(&mut self, handle: &Handle) -> Result<(), Error> {
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
