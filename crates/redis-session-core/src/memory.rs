//! A store in this process's memory: bounded, expires by itself, for development and tests.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::id::SessionKey;
use crate::index::{Doom, Doomed, Enter, Entered, Index, Prolong, Prolonged, SessionHandle, Standing};
use crate::record::Stored;
use crate::rules::Rule;
use crate::steps::Kept;
use crate::store::{BoxFuture, Create, Created, End, EndListener, Ended, Page, PageMark, Save, Saved, Store};
use crate::time::{Clock, Time};
use crate::user::UserKey;

mod index;

use index::Lists;

/// Sessions in memory, with all the guarantees of the store on Redis but one: they end with the process.
///
/// Bounded: at 64 MiB (settable) the sessions that would expire first go, as if they had, and with them their places in
/// the lists of their users. Not counted is what stays in these lists of sessions that have expired, for a minute.
///
/// ```
/// use redis_session_core::{Clock, MemoryStore};
///
/// let clock = Clock::manual(); // a test moves it with `clock.advance(…)`
/// let store = MemoryStore::new().clock(clock.clone()).capacity(1024 * 1024);
/// assert!(store.is_empty());
/// ```
pub struct MemoryStore {
    clock: Clock,
    capacity: usize,
    shelf: Mutex<Shelf>,
    listeners: Mutex<Vec<EndListener>>,
}

/// What a session costs beside what is counted below: key, record and the entry by deadline, at the moment at which the
/// table that has them grows.
const SESSION: usize = 1024;
/// What a field costs beside its name and value.
const FIELD: usize = 96;
/// What a login costs beside its texts: in the record, and in a list of the user's.
const LOGIN: usize = 1536;

#[derive(Default)]
struct Shelf {
    entries: HashMap<SessionKey, Kept>,
    by_deadline: BTreeSet<(Time, SessionKey)>,
    size: usize,
    lists: Lists,
}

fn size_of(stored: &Stored) -> usize {
    let Stored::Record(record) = stored else { return SESSION };
    let login = record.login.as_ref();
    let login =
        login.map_or(0, |login| LOGIN + login.user.as_str().len() + login.label.as_ref().map_or(0, String::len));
    SESSION + record.fields.size() + FIELD * record.fields.len() + login
}

impl Shelf {
    fn remove(&mut self, key: &SessionKey) {
        if let Some(kept) = self.entries.remove(key) {
            self.size -= size_of(&kept.stored);
            self.by_deadline.remove(&(kept.deadline, key.clone()));
        }
    }

    fn put(&mut self, key: &SessionKey, kept: Kept, capacity: usize) {
        self.remove(key);
        let size = size_of(&kept.stored);
        while self.size + size > capacity {
            let Some((_, soonest)) = self.by_deadline.first().cloned() else { break };
            self.evict(&soonest);
        }
        self.size += size;
        self.by_deadline.insert((kept.deadline, key.clone()));
        self.entries.insert(key.clone(), kept);
    }

    /// Also from the list of its user, whose entry the session has paid for and who would not come to leave it.
    fn evict(&mut self, key: &SessionKey) {
        if let Some(Kept { stored: Stored::Record(record), .. }) = self.entries.get(key)
            && let Some(user) = record.user()
        {
            self.lists.leave(&user.key(key.realm()), &[key.handle()]);
        }
        self.remove(key);
    }

    fn drop_expired(&mut self, now: Time) {
        while let Some((deadline, key)) = self.by_deadline.first().cloned() {
            if deadline > now {
                break;
            }
            self.remove(&key);
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self { clock: Clock::system(), capacity: 64 << 20, shelf: Mutex::default(), listeners: Mutex::default() }
    }
}

impl MemoryStore {
    /// An empty store of at most 64 MiB on the system's clock.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another clock.
    pub fn clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Another bound, in bytes. Default: 64 MiB. A session that is larger on its own is kept alone.
    pub fn capacity(self, bytes: usize) -> Self {
        Self { capacity: bytes, ..self }
    }

    /// How many sessions and tombstones there are.
    pub fn len(&self) -> usize {
        self.shelf().1.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A user's list as it is, for the exploration: each session, until when its entry stays and whether it is doomed; and
    /// when his sessions were last ended.
    #[cfg(feature = "mutants")]
    pub fn list_of(&self, user: &UserKey) -> (Vec<(SessionHandle, Time, bool)>, Option<Time>) {
        let (now, shelf) = self.shelf();
        shelf.lists.list_of(user, now)
    }

    /// The time, and the shelf without what has expired by then.
    fn shelf(&self) -> (Time, MutexGuard<'_, Shelf>) {
        // A panic while the lock was held left at worst one entry counted twice.
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        shelf.drop_expired(now);
        (now, shelf)
    }

    fn load_now(&self, key: &SessionKey) -> Option<Stored> {
        self.shelf().1.entries.get(key).map(|kept| kept.stored.clone())
    }

    fn create_now(&self, key: &SessionKey, create: &Create) -> Created {
        self.step(key, |there, now| create.on(there, now))
    }

    fn save_now(&self, key: &SessionKey, save: &Save) -> Saved {
        self.step(key, |there, now| save.on(there, now))
    }

    fn end_now(&self, key: &SessionKey, end: &End) -> Ended {
        let ended = self.step(key, |there, now| end.on(there, now));
        if ended == Ended::Ended && !Rule::EndsLeaveATombstone.holds() {
            self.shelf().1.remove(key);
        }
        ended
    }

    fn step<A>(&self, key: &SessionKey, step: impl FnOnce(Option<&Stored>, Time) -> (A, Option<Kept>)) -> A {
        let (now, mut shelf) = self.shelf();
        let (answer, kept) = step(shelf.entries.get(key).map(|kept| &kept.stored), now);
        if let Some(kept) = kept {
            shelf.put(key, kept, self.capacity);
        }
        answer
    }

    fn page_now(&self, realm: &Arc<str>) -> Page {
        let (_, shelf) = self.shelf();
        let of_realm = shelf.entries.keys().filter(|key| key.handle().key(realm) == **key);
        Page { sessions: of_realm.cloned().collect(), next: None }
    }
}

impl Store for MemoryStore {
    fn now(&self) -> Option<Time> {
        Some(self.clock.now())
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        Box::pin(async move { Ok(self.load_now(key)) })
    }

    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, Error>> {
        Box::pin(async move { Ok(self.create_now(key, create)) })
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>> {
        Box::pin(async move { Ok(self.save_now(key, save)) })
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>> {
        Box::pin(async move {
            let ended = self.end_now(key, end);
            if ended == Ended::Ended {
                let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone();
                listeners.iter().for_each(|listener| listener(Some(key)));
            }
            Ok(ended)
        })
    }

    fn index(&self) -> Option<&dyn Index> {
        Some(self)
    }

    fn on_end(&self, listener: EndListener) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    fn page<'a>(&'a self, realm: &'a Arc<str>, _: Option<PageMark>) -> BoxFuture<'a, Result<Page, Error>> {
        Box::pin(async move { Ok(self.page_now(realm)) })
    }
}

impl MemoryStore {
    fn lists<A>(&self, step: impl FnOnce(&mut Lists, Time) -> A) -> Result<A, Error> {
        let (now, mut shelf) = self.shelf();
        Ok(step(&mut shelf.lists, now))
    }
}

impl Index for MemoryStore {
    fn enter<'a>(&'a self, user: &'a UserKey, enter: &'a Enter) -> BoxFuture<'a, Result<Entered, Error>> {
        Box::pin(async move { self.lists(|lists, now| lists.enter(user, enter, now)) })
    }

    fn prolong<'a>(&'a self, user: &'a UserKey, prolong: &'a Prolong) -> BoxFuture<'a, Result<Prolonged, Error>> {
        Box::pin(async move { self.lists(|lists, now| lists.prolong(user, prolong, now)) })
    }

    fn doom<'a>(&'a self, user: &'a UserKey, doom: &'a Doom) -> BoxFuture<'a, Result<Doomed, Error>> {
        Box::pin(async move { self.lists(|lists, now| lists.doom(user, doom, now)) })
    }

    fn leave<'a>(&'a self, user: &'a UserKey, sessions: &'a [SessionHandle]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.lists(|lists, _| lists.leave(user, sessions)) })
    }

    fn standing<'a>(
        &'a self,
        user: &'a UserKey,
        session: SessionHandle,
    ) -> BoxFuture<'a, Result<Option<Standing>, Error>> {
        Box::pin(async move { self.lists(|lists, now| lists.standing(user, session, now)) })
    }

    fn sessions<'a>(&'a self, user: &'a UserKey) -> BoxFuture<'a, Result<Vec<SessionHandle>, Error>> {
        Box::pin(async move { self.lists(|lists, now| lists.sessions(user, now)) })
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("sessions", &self.len()).finish()
    }
}
