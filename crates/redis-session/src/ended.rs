//! For connections that live long: waits until a session ends, wherever that happens.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use redis_session_core::{Found, Reason, SessionKey, Stored, Tombstone, User};
use tokio::sync::Notify;

use crate::error::Error;
use crate::handle::Handle;
use crate::layer::Settings;
use crate::listing;
use crate::session::{Session, Status, Untyped};

/// How often who waits looks by himself: what is lost of the news only delays it.
const LOOKS_EVERY: Duration = Duration::from_secs(30);
/// The same while the store fails.
const LOOKS_AGAIN: Duration = Duration::from_secs(1);

impl<L> Session<Untyped, L> {
    /// Whether the session lives now, by one read: for a WebSocket handler, before it does what matters.
    ///
    /// # Errors
    /// `is_unavailable`: nobody knows. Treat it as no.
    pub async fn is_alive(&self) -> Result<bool, Error> {
        Ok(matches!(look(&self.handle).await?, Looked::Alive { .. }))
    }

    /// Waits until the session ends, wherever and however that happens (a logout, a revocation, its timeout, another user's
    /// login), and tells how. A WebSocket or a stream of events that is open must end with the session that opened it: it
    /// asks nothing again by itself.
    ///
    /// The news come by one subscription for the whole process, mostly within milliseconds, and each who waits looks by
    /// himself every 30 seconds and at the session's deadline: news that are lost only delay it. While the store fails it
    /// goes on waiting. A session that goes on under a new id of the same user (a rotation, a second factor) goes on here.
    ///
    /// ```
    /// use axum::response::sse::{Event, Sse};
    /// use futures_util::{Stream, StreamExt};
    /// use redis_session::Session;
    ///
    /// async fn news(session: Session) -> Sse<impl Stream<Item = Result<Event, axum::Error>>> {
    ///     let news = futures_util::stream::pending(); // the application's own
    ///     Sse::new(news.take_until(async move { session.ended().await }))
    /// }
    /// # let app: axum::Router = axum::Router::new().route("/news", axum::routing::get(news));
    /// ```
    pub async fn ended(&self) -> Status {
        let handle = &self.handle;
        let settings = &*handle.settings;
        let Some(key) = handle.present_key() else { return self.status() };
        // Before the first look, so that no news come between the two.
        let watch = settings.watchers.clone().watch(&key);
        settings.watchers.hear_of(settings);
        loop {
            let mut news = pin!(watch.news.notified());
            news.as_mut().enable();
            let again = match look(handle).await {
                Ok(Looked::Over(status)) => return status,
                Ok(Looked::Alive { left }) => left.min(LOOKS_EVERY),
                // It is not mended by itself.
                Err(error) if error.is_corrupt() => LOOKS_EVERY,
                Err(_) => LOOKS_AGAIN,
            };
            // Not before the deadline, which counts in milliseconds.
            let _news = tokio::time::timeout(again + Duration::from_millis(2), news).await;
        }
    }
}

/// How a session stands now.
enum Looked {
    Alive {
        /// Until its deadline.
        left: Duration,
    },
    Over(Status),
}

async fn look(handle: &Handle) -> Result<Looked, Error> {
    let settings = &*handle.settings;
    handle.state().was_read()?;
    let Some(key) = handle.present_key() else { return Ok(Looked::Over(Status::New)) };
    let user = handle.present_user();
    let record = match listing::look(settings, &key).await? {
        None => return Ok(Looked::Over(Status::Ended(Reason::Expired))),
        Some(Stored::Ended(Tombstone { reason, .. })) => return Ok(Looked::Over(Status::Ended(reason))),
        Some(Stored::Record(record)) => record,
    };
    let deadline = handle.life().deadline(record.created, record.seen, &record.wishes);
    let left = settings.store.now().map_or(LOOKS_EVERY, |now| deadline.since(now));
    Ok(match record.user() {
        _ if left.is_zero() => Looked::Over(Status::Ended(Reason::Expired)),
        other if other != user.as_ref() => Looked::Over(Status::Replaced),
        _ => Looked::Alive { left },
    })
}

/// Who waits for the end of which session, in this process.
#[derive(Default)]
pub(crate) struct Watchers {
    waiting: Mutex<HashMap<SessionKey, (Arc<Notify>, usize)>>,
    heard: OnceLock<()>,
}

/// A place among those who wait, given up by its drop.
struct Watch {
    news: Arc<Notify>,
    key: SessionKey,
    watchers: Arc<Watchers>,
}

impl Watchers {
    fn watch(self: Arc<Self>, key: &SessionKey) -> Watch {
        let news = {
            let mut waiting = self.waiting();
            let (news, count) = waiting.entry(key.clone()).or_default();
            *count += 1;
            news.clone()
        };
        Watch { news, key: key.clone(), watchers: self }
    }

    /// Begins to hear the store's news, once.
    fn hear_of(self: &Arc<Self>, settings: &Settings) {
        self.heard.get_or_init(|| {
            let watchers = Arc::downgrade(self);
            settings.store.on_end(Arc::new(move |session| {
                if let Some(watchers) = watchers.upgrade() {
                    watchers.tell(session);
                }
            }));
        });
    }

    fn tell(&self, session: Option<&SessionKey>) {
        let waiting = self.waiting();
        match session {
            Some(key) => waiting.get(key).into_iter().for_each(|(news, _)| news.notify_waiters()),
            None => waiting.values().for_each(|(news, _)| news.notify_waiters()),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<SessionKey, (Arc<Notify>, usize)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiting = self.watchers.waiting();
        if let Some((_, count)) = waiting.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.key);
            }
        }
    }
}

impl Handle {
    /// Where the session is that this request goes on with. `None`: it has none.
    fn present_key(&self) -> Option<SessionKey> {
        let state = self.state();
        match (&state.found, &state.id) {
            (Found::Alive(_), Some(id)) => Some(self.key(id)),
            _ => None,
        }
    }

    fn present_user(&self) -> Option<User> {
        match &self.state().found {
            Found::Alive(record) => record.user().cloned(),
            _ => None,
        }
    }
}
