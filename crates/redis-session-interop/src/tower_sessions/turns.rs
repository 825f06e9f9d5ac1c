//! Writes of one process to one session, one after the other.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use redis_session_core::SessionKey;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout_at};

/// Whose turn it is, for each session that somebody writes to; and what one leaves to the next.
pub(super) struct Turns<T>(Mutex<HashMap<SessionKey, Arc<AsyncMutex<T>>>>);

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Turns<T> {
    /// Waits for the turn, until then at most.
    pub(super) async fn enter(self: &Arc<Self>, key: &SessionKey, by: Instant) -> Option<Turn<T>> {
        let lock = self.map().entry(key.clone()).or_default().clone();
        // From here on it is taken out again, also where this is dropped half-way.
        let mut turn = Turn { turns: self.clone(), key: key.clone(), guard: None };
        turn.guard = timeout_at(by, lock.lock_owned()).await.ok();
        turn.guard.is_some().then_some(turn)
    }
}

impl<T> Turns<T> {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<SessionKey, Arc<AsyncMutex<T>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn, until it is dropped.
pub(super) struct Turn<T> {
    turns: Arc<Turns<T>>,
    key: SessionKey,
    /// `None`: it has not come yet.
    guard: Option<OwnedMutexGuard<T>>,
}

impl<T> Deref for Turn<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_deref().expect("whoever has the turn has its guard")
    }
}

impl<T> DerefMut for Turn<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_deref_mut().expect("whoever has the turn has its guard")
    }
}

impl<T> Drop for Turn<T> {
    fn drop(&mut self) {
        self.guard = None;
        let mut map = self.turns.map();
        // Whoever waits has a copy; nobody gets another while the map is locked.
        if map.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            map.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use redis_session_core::{Random, SessionId};

    use super::*;

    #[tokio::test]
    async fn one_after_the_other_and_nothing_stays() {
        let turns = Arc::new(Turns::<u32>::default());
        let key = || SessionId::random(&Random::system()).unwrap().key(&"main".into());
        let (here, there) = (key(), key());
        let soon = || Instant::now() + Duration::from_millis(5);
        let mut first = turns.enter(&here, soon()).await.unwrap();
        *first = 7;
        assert!(turns.enter(&here, soon()).await.is_none(), "not yet");
        assert!(turns.enter(&there, soon()).await.is_some(), "another session");
        let later = Instant::now() + Duration::from_secs(60);
        let (second, ()) = tokio::join!(turns.enter(&here, later), async {
            tokio::task::yield_now().await;
            drop(first);
        });
        assert_eq!(second.as_deref(), Some(&7), "what the first has left");
        drop(second);
        assert_eq!(turns.map().len(), 0);
    }
}
