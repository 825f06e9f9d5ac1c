//! A store in this process's memory: bounded, expires by itself, for development and tests.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::expiry::Wishes;
use crate::fields::Change;
use crate::id::SessionKey;
use crate::index::{Doom, Doomed, Enter, Entered, Index, Prolong, Prolonged, SessionHandle, Standing};
use crate::record::{Record, ReplacedBy, Stored, Token, Tokens, Tombstone};
use crate::rules::Rule;
use crate::store::{
    BoxFuture, Create, Created, End, EndListener, Ended, Page, PageMark, Save, Saved, Step, Store, Whose,
};
use crate::time::{Clock, Time};
use crate::user::UserKey;

mod index;

use index::Lists;

/// Sessions in memory, with all the guarantees of the store on Redis but one: they end with the process.
///
/// Bounded: at 64 MiB (settable) the sessions that would expire first go.
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

/// What a session costs beside its fields: key, record and the entry by deadline.
const OVERHEAD: usize = 400;

#[derive(Default)]
struct Shelf {
    entries: HashMap<SessionKey, Entry>,
    by_deadline: BTreeSet<(Time, SessionKey)>,
    size: usize,
    lists: Lists,
}

#[derive(Clone)]
struct Entry {
    stored: Stored,
    deadline: Time,
}

impl Entry {
    fn size(&self) -> usize {
        match &self.stored {
            Stored::Record(record) => {
                OVERHEAD + record.fields.size() + record.user().map_or(0, |user| 2 * OVERHEAD + user.as_str().len())
            }
            Stored::Ended(_) => OVERHEAD,
        }
    }
}

impl Shelf {
    fn remove(&mut self, key: &SessionKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.size -= entry.size();
            self.by_deadline.remove(&(entry.deadline, key.clone()));
        }
    }

    fn put(&mut self, key: &SessionKey, entry: Entry, capacity: usize) {
        self.remove(key);
        while self.size + entry.size() > capacity {
            let Some((_, soonest)) = self.by_deadline.first().cloned() else { break };
            self.remove(&soonest);
        }
        self.size += entry.size();
        self.by_deadline.insert((entry.deadline, key.clone()));
        self.entries.insert(key.clone(), entry);
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

    /// Another bound, in bytes.
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
        self.shelf().1.entries.get(key).map(|entry| entry.stored.clone())
    }

    fn create_now(&self, key: &SessionKey, create: &Create) -> Created {
        let (now, mut shelf) = self.shelf();
        match shelf.entries.get(key).map(|entry| &entry.stored) {
            Some(Stored::Record(record)) if record.tokens.contains(create.token) => {
                return Created::Created { at: record.created };
            }
            Some(_) if Rule::CreateNeedsAbsence.holds() => return Created::Exists,
            _ => {}
        }
        if now > create.not_after && Rule::NotAfter.holds() {
            return Created::Late;
        }
        let wishes = create.wish.apply(Wishes::default(), now);
        let record = Record {
            tokens: Tokens::first(create.token),
            proof: create.proof,
            proved: now,
            previous: None,
            created: now,
            seen: now,
            wishes,
            login: create.login.as_ref().map(|login| Box::new(login.at(now))),
            fields: create.fields.clone(),
        };
        let deadline = create.life.deadline(now, now, &wishes);
        shelf.put(key, Entry { stored: Stored::Record(record), deadline }, self.capacity);
        Created::Created { at: now }
    }

    fn save_now(&self, key: &SessionKey, save: &Save) -> Saved {
        let (now, mut shelf) = self.shelf();
        let mut record = match shelf.entries.get(key).map(|entry| &entry.stored) {
            Some(Stored::Record(record)) => record.clone(),
            Some(Stored::Ended(tombstone)) if Rule::SaveStopsAtTombstone.holds() => return Saved::Ended(*tombstone),
            None if Rule::SaveNeedsRecord.holds() => return Saved::Gone,
            // Only where a test took one of the two rules out: the record rises again, as it does in other libraries.
            _ => Record {
                tokens: Tokens::first(save.base),
                proof: save.proof,
                proved: now,
                previous: None,
                created: now,
                seen: now,
                wishes: Wishes::default(),
                login: None,
                fields: Default::default(),
            },
        };
        if save.life.deadline(record.created, record.seen, &record.wishes) <= now && Rule::DeadlinesAreChecked.holds() {
            return Saved::Gone;
        }
        let own = save.token.iter().chain(&save.earlier).find(|token| record.tokens.contains(**token));
        let ran_before = own.filter(|_| Rule::OwnTokenIsSaved.holds()).map(|own| record.tokens.before(*own));
        if let Some(before) = ran_before
            && Rule::OwnTokenComesFirst.holds()
        {
            let changed_the_proof = matches!(save.step, Step::Rotate(_) | Step::LogIn(..));
            return Saved::Saved { before, at: if changed_the_proof { record.proved } else { now } };
        }
        if now > save.not_after && Rule::NotAfter.holds() {
            return Saved::Late;
        }
        match right_of(save, &record, now) {
            Right::Holds => {}
            Right::LoggedInAlready => return Saved::LoggedInAlready,
            Right::Replaced if !Rule::ProofMustHold.holds() => {}
            Right::Replaced => return Saved::Replaced,
        }
        // Before all that, unless a test took the rule out.
        if let Some(before) = ran_before {
            return Saved::Saved { before, at: now };
        }
        if save.token.is_some() && !runs_on(save, &record) {
            return Saved::Moved(Box::new(record));
        }
        let before = Some(record.tokens.newest());
        if let Err(refusal) = carry_out(save, &mut record, now) {
            if !Rule::RefusedWritesNothing.holds() {
                set_what_can_be(save, &mut record);
                let deadline = save.life.deadline(record.created, record.seen, &record.wishes);
                shelf.put(key, Entry { stored: Stored::Record(record), deadline }, self.capacity);
            }
            return refusal;
        }
        let deadline = save.life.deadline(record.created, record.seen, &record.wishes);
        shelf.put(key, Entry { stored: Stored::Record(record), deadline }, self.capacity);
        Saved::Saved { before, at: now }
    }

    fn end_now(&self, key: &SessionKey, end: &End) -> Ended {
        let (now, mut shelf) = self.shelf();
        let answer = match shelf.entries.get(key).map(|entry| &entry.stored) {
            Some(Stored::Ended(tombstone)) => return Ended::Already(*tombstone),
            None if !end.reason.also_ends_what_is_to_come() || !Rule::AbsenceIsMarked.holds() => return Ended::Gone,
            _ if now > end.not_after && Rule::NotAfter.holds() => return Ended::Late,
            None => Ended::Gone,
            Some(Stored::Record(record)) => match whose(&end.whose, record, now) {
                Ended::Ended => Ended::Ended,
                refusal => return refusal,
            },
        };
        if !Rule::EndsLeaveATombstone.holds() {
            shelf.remove(key);
            return answer;
        }
        let tombstone = Tombstone { reason: end.reason, at: now };
        let entry = Entry { stored: Stored::Ended(tombstone), deadline: now + Tombstone::STAYS };
        shelf.put(key, entry, self.capacity);
        answer
    }

    fn page_now(&self, realm: &Arc<str>) -> Page {
        let (_, shelf) = self.shelf();
        let of_realm = shelf.entries.keys().filter(|key| key.handle().key(realm) == **key);
        Page { sessions: of_realm.cloned().collect(), next: None }
    }
}

/// Whether this end is for this record: `Ended` if so.
fn whose(whose: &Whose, record: &Record, now: Time) -> Ended {
    match whose {
        Whose::Nobodys(_) if record.login.is_some() && Rule::EndsNameTheirUser.holds() => Ended::Others,
        Whose::Nobodys(proof) if *proof != record.proof && Rule::EndsNeedTheProof.holds() => Ended::Others,
        Whose::Users(_) | Whose::ArrivedBefore(_) if record.login.is_none() => Ended::Nobodys,
        Whose::Users(user) if record.user() != Some(user) && Rule::EndsNameTheirUser.holds() => Ended::Others,
        Whose::ArrivedBefore(time) if record.login.as_ref().is_some_and(|login| login.arrived >= *time) => {
            Ended::Others
        }
        Whose::Expired(life) if life.deadline(record.created, record.seen, &record.wishes) > now => Ended::Alive,
        _ => Ended::Ended,
    }
}

/// What a request's proof is good for.
enum Right {
    Holds,
    LoggedInAlready,
    Replaced,
}

fn right_of(save: &Save, record: &Record, now: Time) -> Right {
    if save.proof == record.proof {
        return Right::Holds;
    }
    let Some(previous) = record.previous.filter(|previous| previous.proof == save.proof) else {
        return Right::Replaced;
    };
    match (&save.step, previous.by) {
        (Step::Rotate(_), _) => Right::Replaced,
        // Somebody was first, and made the same one.
        (Step::Renew(new), ReplacedBy::Renewal | ReplacedBy::SeenRenewal) if *new != record.proof => Right::Replaced,
        (_, ReplacedBy::Renewal | ReplacedBy::SeenRenewal) => Right::Holds,
        (Step::LogIn(_, login), ReplacedBy::Login)
            if record.user() == Some(&login.user) && (now - login.waited).since(previous.at) < Tombstone::STAYS =>
        {
            Right::LoggedInAlready
        }
        _ => Right::Replaced,
    }
}

/// Whether a save may run on this version of the record.
fn runs_on(save: &Save, record: &Record) -> bool {
    if save.merges {
        record.tokens.contains(save.base) || !Rule::MergesNeedARecentVersion.holds()
    } else {
        record.tokens.newest() == save.base || !Rule::EditsNeedTheirVersion.holds()
    }
}

fn carry_out(save: &Save, record: &mut Record, now: Time) -> Result<(), Saved> {
    for (name, change) in &save.changes.fields {
        if let Change::Increment(by) = change {
            let mut scratch = if save.changes.clear { Default::default() } else { record.fields.clone() };
            scratch.increment(name, *by).map_err(|_| Saved::Refused(name.clone()))?;
        }
    }
    let mut fields = record.fields.clone();
    fields.apply(&save.changes).map_err(|_| Saved::TooLarge)?;
    // On its very base the caller knows the size, and may shrink what was over the limit before.
    if save.base != record.tokens.newest() && !save.changes.is_empty() && fields.size() > save.limit {
        return Err(Saved::TooLarge);
    }
    record.fields = fields;
    if save.renews {
        record.seen = now;
    }
    record.wishes = save.wish.apply(record.wishes, now);
    save.step.take(record, save.proof, now);
    if let Some(token) = save.token.filter(|_| Rule::SavesPushTheirToken.holds()) {
        record.tokens.push(token);
    }
    if save.token.is_none() && !Rule::TouchesPushNoToken.holds() {
        let by_the_clock = format!("{:08}", now.as_millis() % 100_000_000);
        record.tokens.push(Token::from_text(by_the_clock.as_bytes()).unwrap_or(save.base));
    }
    Ok(())
}

/// What a script leaves that gives up half-way: only where a test took out the rule that nothing is left.
fn set_what_can_be(save: &Save, record: &mut Record) {
    for (name, change) in &save.changes.fields {
        if let Change::Set(value) = change {
            record.fields.set(name.clone(), value.clone());
        }
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
