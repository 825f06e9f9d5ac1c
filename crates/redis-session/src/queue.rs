//! Lets the writes of one process to one session queue here rather than race in the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis_session_core::{Record, SessionKey};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::Instant;

/// The sessions that are being written, each with its line of writers.
#[derive(Default)]
pub(crate) struct Queue {
    lines: Mutex<HashMap<SessionKey, Line>>,
}

struct Line {
    writers: usize,
    /// What the last writer left in the store. `None`: not known.
    turn: Arc<AsyncMutex<Option<Record>>>,
}

/// The turn of one writer. Dropping it lets the next one in.
pub(crate) struct Turn {
    latest: Option<OwnedMutexGuard<Option<Record>>>,
    _place: Place,
}

/// A place in a line, given up by its drop.
struct Place {
    queue: Arc<Queue>,
    key: SessionKey,
}

impl Queue {
    /// Waits for the writers before. `None`: not by then.
    pub(crate) async fn enter(self: &Arc<Self>, key: &SessionKey, by: Instant) -> Option<Turn> {
        let turn = {
            let mut lines = self.lines();
            let line = lines.entry(key.clone()).or_insert_with(|| Line { writers: 0, turn: Arc::default() });
            line.writers += 1;
            line.turn.clone()
        };
        let place = Place { queue: self.clone(), key: key.clone() };
        let latest = match turn.clone().try_lock_owned() {
            Ok(latest) => latest,
            // Boxed, since every commit has room for it, and few wait.
            Err(_) => Box::pin(tokio::time::timeout_at(by, turn.lock_owned())).await.ok()?,
        };
        Some(Turn { latest: Some(latest), _place: place })
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<SessionKey, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// What the writer before left in the store, if there was one and it knows.
    pub(crate) fn take_latest(&mut self) -> Option<Record> {
        self.latest.as_mut().and_then(|latest| latest.take())
    }

    /// Tells the next writer, if one waits, what is in the store now.
    pub(crate) fn leave(mut self, latest: impl FnOnce() -> Record) {
        let Some(mut turn) = self.latest.take() else { return };
        // Who waits has a share of it, beside this writer and the line.
        if Arc::strong_count(OwnedMutexGuard::mutex(&turn)) > 2 {
            *turn = Some(latest());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.queue.lines();
        if let Some(line) = lines.get_mut(&self.key) {
            line.writers -= 1;
            if line.writers == 0 {
                lines.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use redis_session_core::{Random, SessionId, Time, Token, Tokens};

    use super::*;

    fn key() -> SessionKey {
        SessionId::random(&Random::system()).unwrap().key(&"main".into())
    }

    fn record() -> Record {
        let random = Random::system();
        Record {
            tokens: Tokens::first(Token::random(&random).unwrap()),
            proof: SessionId::random(&random).unwrap().proof(),
            proved: Time::default(),
            previous: None,
            created: Time::default(),
            seen: Time::default(),
            wishes: Default::default(),
            login: None,
            fields: Default::default(),
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[tokio::test(start_paused = true)]
    async fn writers_of_one_session_wait_and_those_of_others_do_not() {
        let (queue, key, other) = (Arc::new(Queue::default()), key(), key());
        let first = queue.enter(&key, soon()).await.unwrap();
        assert!(queue.enter(&other, soon()).await.is_some());
        assert!(queue.enter(&key, soon()).await.is_none(), "not before the first has left");
        drop(first);
        assert!(queue.enter(&key, soon()).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_writer_gets_what_the_last_one_left_and_nobody_else_does() {
        let (queue, key, left) = (Arc::new(Queue::default()), key(), record());
        let first = queue.enter(&key, soon()).await.unwrap();
        let (mut second, ()) = tokio::join!(async { queue.enter(&key, soon()).await.unwrap() }, async {
            tokio::task::yield_now().await;
            first.leave(|| left.clone());
        });
        assert_eq!(second.take_latest(), Some(left.clone()));
        second.leave(|| panic!("nobody waits"));
        assert_eq!(queue.enter(&key, soon()).await.unwrap().take_latest(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_of_lines_without_writers() {
        let (queue, key) = (Arc::new(Queue::default()), key());
        let first = queue.enter(&key, soon()).await.unwrap();
        assert!(queue.enter(&key, soon()).await.is_none());
        assert_eq!(queue.lines().len(), 1);
        drop(first);
        assert_eq!(queue.lines().len(), 0);
    }
}
