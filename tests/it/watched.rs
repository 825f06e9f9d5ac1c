//! Stores for tests: one in memory that counts what it is asked and fails when told to, one on Redis that has time; and an
//! observer that writes down what it sees.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis_session::{Clock, Event, MemoryStore, Observer, RedisStore, Store};
use redis_session_core::{
    BoxFuture, Create, Created, Doom, Doomed, End, Ended, Enter, Entered, Error, Index, Kind, Prolong, Prolonged, Save,
    Saved, SessionHandle, SessionKey, Standing, Stored, Time, UserKey,
};

/// Clones share one store.
#[derive(Clone)]
pub(crate) struct Watched(Arc<Inner>);

struct Inner {
    store: MemoryStore,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: Calls,
    /// What every operation on sessions answers instead. `None`: it works.
    failure: Option<Kind>,
    /// The same for every step on users' lists.
    failure_of_lists: Option<Kind>,
}

/// How often each operation was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) loads: u32,
    pub(crate) creates: u32,
    pub(crate) saves: u32,
    pub(crate) ends: u32,
}

impl Watched {
    /// An empty store whose clock stands still.
    pub(crate) fn new() -> Self {
        let clock = Clock::manual();
        let store = MemoryStore::new().clock(clock.clone());
        Self(Arc::new(Inner { store, clock, state: Mutex::default() }))
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// How many sessions and tombstones there are.
    pub(crate) fn len(&self) -> usize {
        self.0.store.len()
    }

    /// The calls since the last time.
    pub(crate) fn calls(&self) -> Calls {
        std::mem::take(&mut self.state().calls)
    }

    /// Lets all operations on sessions fail like this from now on.
    pub(crate) fn fail(&self, kind: Kind) {
        self.state().failure = Some(kind);
    }

    /// Lets all steps on users' lists fail like this from now on, as where these are on another server.
    pub(crate) fn fail_lists(&self, kind: Kind) {
        self.state().failure_of_lists = Some(kind);
    }

    /// Lets all work again.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        (state.failure, state.failure_of_lists) = (None, None);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn called(&self, count: impl FnOnce(&mut Calls)) -> Result<&MemoryStore, Error> {
        let mut state = self.state();
        count(&mut state.calls);
        state.failure.map_or(Ok(&self.0.store), |kind| Err(Error::new(kind, "the test wants it so")))
    }

    fn lists(&self) -> Result<&dyn Index, Error> {
        match self.state().failure_of_lists {
            None => Ok(self.0.store.index().unwrap()),
            Some(kind) => Err(Error::new(kind, "the test wants it so of lists")),
        }
    }
}

impl Store for Watched {
    fn now(&self) -> Option<Time> {
        Some(self.0.clock.now())
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        Box::pin(async move { self.called(|calls| calls.loads += 1)?.load(key).await })
    }

    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, Error>> {
        Box::pin(async move { self.called(|calls| calls.creates += 1)?.create(key, create).await })
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>> {
        Box::pin(async move { self.called(|calls| calls.saves += 1)?.save(key, save).await })
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>> {
        Box::pin(async move { self.called(|calls| calls.ends += 1)?.end(key, end).await })
    }

    fn index(&self) -> Option<&dyn Index> {
        Some(self)
    }
}

impl Index for Watched {
    fn enter<'a>(&'a self, user: &'a UserKey, enter: &'a Enter) -> BoxFuture<'a, Result<Entered, Error>> {
        Box::pin(async move { self.lists()?.enter(user, enter).await })
    }

    fn prolong<'a>(&'a self, user: &'a UserKey, prolong: &'a Prolong) -> BoxFuture<'a, Result<Prolonged, Error>> {
        Box::pin(async move { self.lists()?.prolong(user, prolong).await })
    }

    fn doom<'a>(&'a self, user: &'a UserKey, doom: &'a Doom) -> BoxFuture<'a, Result<Doomed, Error>> {
        Box::pin(async move { self.lists()?.doom(user, doom).await })
    }

    fn leave<'a>(&'a self, user: &'a UserKey, sessions: &'a [SessionHandle]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.lists()?.leave(user, sessions).await })
    }

    fn standing<'a>(
        &'a self,
        user: &'a UserKey,
        session: SessionHandle,
    ) -> BoxFuture<'a, Result<Option<Standing>, Error>> {
        Box::pin(async move { self.lists()?.standing(user, session).await })
    }

    fn sessions<'a>(&'a self, user: &'a UserKey) -> BoxFuture<'a, Result<Vec<SessionHandle>, Error>> {
        Box::pin(async move { self.lists()?.sessions(user).await })
    }
}

/// A store on Redis whose operations may take this long: where a busy machine must not decide the outcome, seconds.
pub(crate) async fn patient(url: &str, deadline: Duration) -> RedisStore {
    RedisStore::options(url).deadline(deadline).connect_deadline(Duration::from_secs(20)).connect().await.unwrap()
}

/// What happened, in its order. Clones share one list.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<Event>>>);

impl Seen {
    /// The events since the last time.
    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Seen {
    fn observe(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

/// A cookie's value with one sign of its id changed.
pub(crate) fn forged(value: &str) -> String {
    let other = if value.as_bytes()[30] == b'A' { 'B' } else { 'A' };
    format!("{}{other}{}", &value[..30], &value[31..])
}
