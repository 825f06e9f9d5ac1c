//! The way to the store, with every call in the explorer's hand: a call waits until the explorer says what becomes of it.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use redis_session_core::{
    BoxFuture, Clock, Create, Created, Doom, Doomed, End, Ended, Enter, Entered, Error, Index, MemoryStore, Prolong,
    Prolonged, Save, Saved, SessionHandle, SessionKey, Standing, Step, Store, Stored, Time, UserKey,
};

/// Who is running: its calls and its random bytes are told by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Request(usize),
    /// A task that outlives its request.
    Background,
}

thread_local! {
    pub(crate) static RUNNING: Cell<Who> = const { Cell::new(Who::Background) };
}

/// What is asked of the store.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Load(SessionKey),
    Create(SessionKey, Create),
    Save(SessionKey, Save),
    End(SessionKey, End),
    Glance(SessionKey),
    Enter(UserKey, Enter),
    Prolong(UserKey, Prolong),
    Doom(UserKey, Doom),
    Leave(UserKey, Vec<SessionHandle>),
    Standing(UserKey, SessionHandle),
    Sessions(UserKey),
}

/// What the store answers.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Loaded(Option<Stored>),
    Created(Created),
    Saved(Saved),
    Ended(Ended),
    Entered(Entered),
    Prolonged(Prolonged),
    Doomed(Doomed),
    Left,
    Standing(Option<Standing>),
    Sessions(Vec<SessionHandle>),
}

impl Op {
    /// Which session it is about. `None`: it is about a user's list.
    pub(crate) fn key(&self) -> Option<&SessionKey> {
        match self {
            Self::Load(key) | Self::Glance(key) => Some(key),
            Self::Create(key, _) | Self::Save(key, _) | Self::End(key, _) => Some(key),
            _ => None,
        }
    }

    /// Whose list it is about. `None`: it is about a session.
    pub(crate) fn user(&self) -> Option<&UserKey> {
        match self {
            Self::Enter(user, _) | Self::Prolong(user, _) | Self::Doom(user, _) | Self::Leave(user, _) => Some(user),
            Self::Standing(user, _) | Self::Sessions(user) => Some(user),
            _ => None,
        }
    }

    /// Whether it changes nothing.
    pub(crate) fn only_reads(&self) -> bool {
        matches!(self, Self::Load(_) | Self::Glance(_) | Self::Standing(..) | Self::Sessions(_))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Load(_) => "load",
            Self::Create(..) => "create",
            Self::Save(..) if self.is_touch() => "touch",
            Self::Save(_, save) => match save.step {
                Step::Keep | Step::Seen => "save",
                Step::Rotate(_) => "rotate",
                Step::Renew(_) => "renew",
                Step::LogIn(..) => "log in",
            },
            Self::End(..) => "end",
            Self::Glance(_) => "glance",
            Self::Enter(..) => "enter",
            Self::Prolong(_, prolong) if prolong.add => "list again",
            Self::Prolong(..) => "prolong",
            Self::Doom(..) => "doom",
            Self::Leave(..) => "leave",
            Self::Standing(..) => "check",
            Self::Sessions(_) => "list",
        }
    }

    pub(crate) fn is_touch(&self) -> bool {
        matches!(self, Self::Save(_, save) if save.token.is_none())
    }

    pub(crate) fn not_after(&self) -> Option<Time> {
        match self {
            Self::Load(_) | Self::Glance(_) | Self::Leave(..) | Self::Standing(..) | Self::Sessions(_) => None,
            Self::Enter(_, enter) => Some(enter.not_after),
            Self::Prolong(_, prolong) => Some(prolong.not_after),
            Self::Doom(_, doom) => Some(doom.not_after),
            Self::Create(_, create) => Some(create.not_after),
            Self::Save(_, save) => Some(save.not_after),
            Self::End(_, end) => Some(end.not_after),
        }
    }

    /// Runs it on the real store, now.
    pub(crate) fn run(&self, store: &MemoryStore) -> Outcome {
        let outcome = at_once(async {
            Ok::<_, Error>(match self {
                Self::Load(key) => Outcome::Loaded(store.load(key).await?),
                Self::Create(key, create) => Outcome::Created(store.create(key, create).await?),
                Self::Save(key, save) => Outcome::Saved(store.save(key, save).await?),
                Self::End(key, end) => Outcome::Ended(store.end(key, end).await?),
                Self::Glance(key) => Outcome::Loaded(store.glance(key).await?),
                Self::Enter(user, enter) => Outcome::Entered(store.enter(user, enter).await?),
                Self::Prolong(user, prolong) => Outcome::Prolonged(store.prolong(user, prolong).await?),
                Self::Doom(user, doom) => Outcome::Doomed(Index::doom(store, user, doom).await?),
                Self::Leave(user, sessions) => {
                    store.leave(user, sessions).await?;
                    Outcome::Left
                }
                Self::Standing(user, session) => Outcome::Standing(store.standing(user, *session).await?),
                Self::Sessions(user) => Outcome::Sessions(store.sessions(user).await?),
            })
        });
        outcome.expect("the store in memory does not fail")
    }
}

/// The store in memory answers at once.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the store in memory does not wait"),
    }
}

/// A call that waits for its answer.
pub(crate) struct Call {
    pub(crate) who: Who,
    pub(crate) op: Op,
    /// When it was made: the contract says by when it is answered.
    pub(crate) asked: Time,
    /// What came of it, where it ran and its reply is still on the way.
    pub(crate) ran: Option<Outcome>,
    /// How many saves its session had had then.
    pub(crate) saves: usize,
    slot: Arc<Slot>,
}

type Slot = Mutex<(Option<Result<Outcome, Error>>, Option<Waker>)>;

impl Call {
    pub(crate) fn answer(self, answer: Result<Outcome, Error>) {
        let waker = {
            let mut slot = lock(&self.slot);
            slot.0 = Some(answer);
            slot.1.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

/// A [`Store`] whose calls wait for the explorer.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Inner>);

struct Inner {
    store: Mutex<(Arc<MemoryStore>, Clock)>,
    calls: Mutex<Vec<Call>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    pub(crate) fn new() -> Self {
        let inner = Inner { store: Mutex::new(empty_store()), calls: Mutex::default() };
        Self(Arc::new(inner))
    }

    /// Forgets everything.
    pub(crate) fn reset(&self) {
        lock(&self.0.calls).clear();
        *lock(&self.0.store) = empty_store();
    }

    pub(crate) fn store(&self) -> Arc<MemoryStore> {
        lock(&self.0.store).0.clone()
    }

    /// Puts another store into the place of this one, as a failover does.
    pub(crate) fn replace(&self, store: Arc<MemoryStore>, clock: Clock) {
        *lock(&self.0.store) = (store, clock);
    }

    pub(crate) fn clock(&self) -> Clock {
        lock(&self.0.store).1.clone()
    }

    pub(crate) fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        lock(&self.0.calls)
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock().advance(by);
    }

    async fn ask(&self, op: Op) -> Result<Outcome, Error> {
        let slot = Arc::<Slot>::default();
        let _unasked = Unasked(self, slot.clone());
        let call = Call { who: RUNNING.get(), op, asked: self.clock().now(), ran: None, saves: 0, slot: slot.clone() };
        lock(&self.0.calls).push(call);
        poll_fn(|context| {
            let mut slot = lock(&slot);
            match slot.0.take() {
                Some(answer) => Poll::Ready(answer),
                None => {
                    slot.1 = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

pub(crate) fn empty_store() -> (Arc<MemoryStore>, Clock) {
    let clock = Clock::manual();
    (Arc::new(MemoryStore::new().clock(clock.clone())), clock)
}

/// Takes a call back whose caller is gone.
struct Unasked<'a>(&'a Wire, Arc<Slot>);

impl Drop for Unasked<'_> {
    fn drop(&mut self) {
        lock(&self.0.0.calls).retain(|call| !Arc::ptr_eq(&call.slot, &self.1));
    }
}

impl Store for Wire {
    fn now(&self) -> Option<Time> {
        Some(self.clock().now())
    }

    fn load<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        Box::pin(async move {
            match self.ask(Op::Load(key.clone())).await? {
                Outcome::Loaded(stored) => Ok(stored),
                other => unreachable!("{other:?} to a load"),
            }
        })
    }

    fn create<'a>(&'a self, key: &'a SessionKey, create: &'a Create) -> BoxFuture<'a, Result<Created, Error>> {
        Box::pin(async move {
            match self.ask(Op::Create(key.clone(), create.clone())).await? {
                Outcome::Created(created) => Ok(created),
                other => unreachable!("{other:?} to a create"),
            }
        })
    }

    fn save<'a>(&'a self, key: &'a SessionKey, save: &'a Save) -> BoxFuture<'a, Result<Saved, Error>> {
        Box::pin(async move {
            match self.ask(Op::Save(key.clone(), save.clone())).await? {
                Outcome::Saved(saved) => Ok(saved),
                other => unreachable!("{other:?} to a save"),
            }
        })
    }

    fn end<'a>(&'a self, key: &'a SessionKey, end: &'a End) -> BoxFuture<'a, Result<Ended, Error>> {
        Box::pin(async move {
            match self.ask(Op::End(key.clone(), end.clone())).await? {
                Outcome::Ended(ended) => Ok(ended),
                other => unreachable!("{other:?} to an end"),
            }
        })
    }

    fn glance<'a>(&'a self, key: &'a SessionKey) -> BoxFuture<'a, Result<Option<Stored>, Error>> {
        Box::pin(async move {
            match self.ask(Op::Glance(key.clone())).await? {
                Outcome::Loaded(stored) => Ok(stored),
                other => unreachable!("{other:?} to a glance"),
            }
        })
    }

    fn index(&self) -> Option<&dyn Index> {
        Some(self)
    }
}

impl Index for Wire {
    fn enter<'a>(&'a self, user: &'a UserKey, enter: &'a Enter) -> BoxFuture<'a, Result<Entered, Error>> {
        Box::pin(async move {
            match self.ask(Op::Enter(user.clone(), enter.clone())).await? {
                Outcome::Entered(entered) => Ok(entered),
                other => unreachable!("{other:?} to an enter"),
            }
        })
    }

    fn prolong<'a>(&'a self, user: &'a UserKey, prolong: &'a Prolong) -> BoxFuture<'a, Result<Prolonged, Error>> {
        Box::pin(async move {
            match self.ask(Op::Prolong(user.clone(), prolong.clone())).await? {
                Outcome::Prolonged(prolonged) => Ok(prolonged),
                other => unreachable!("{other:?} to a prolong"),
            }
        })
    }

    fn doom<'a>(&'a self, user: &'a UserKey, doom: &'a Doom) -> BoxFuture<'a, Result<Doomed, Error>> {
        Box::pin(async move {
            match self.ask(Op::Doom(user.clone(), doom.clone())).await? {
                Outcome::Doomed(doomed) => Ok(doomed),
                other => unreachable!("{other:?} to a doom"),
            }
        })
    }

    fn leave<'a>(&'a self, user: &'a UserKey, sessions: &'a [SessionHandle]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { self.ask(Op::Leave(user.clone(), sessions.to_vec())).await.map(drop) })
    }

    fn standing<'a>(
        &'a self,
        user: &'a UserKey,
        session: SessionHandle,
    ) -> BoxFuture<'a, Result<Option<Standing>, Error>> {
        Box::pin(async move {
            match self.ask(Op::Standing(user.clone(), session)).await? {
                Outcome::Standing(standing) => Ok(standing),
                other => unreachable!("{other:?} to a check"),
            }
        })
    }

    fn sessions<'a>(&'a self, user: &'a UserKey) -> BoxFuture<'a, Result<Vec<SessionHandle>, Error>> {
        Box::pin(async move {
            match self.ask(Op::Sessions(user.clone())).await? {
                Outcome::Sessions(sessions) => Ok(sessions),
                other => unreachable!("{other:?} to a list"),
            }
        })
    }
}
