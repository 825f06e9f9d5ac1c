//! The way to the store, with every call in the explorer's hand: a call waits until the explorer says what becomes of it.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use redis_session_core::{
    BoxFuture, Clock, Create, Created, End, Ended, Error, MemoryStore, Save, Saved, SessionKey, Store, Stored, Time,
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
}

/// What the store answers.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Loaded(Option<Stored>),
    Created(Created),
    Saved(Saved),
    Ended(Ended),
}

impl Op {
    pub(crate) fn key(&self) -> &SessionKey {
        match self {
            Self::Load(key) | Self::Create(key, _) | Self::Save(key, _) | Self::End(key, _) => key,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Load(_) => "load",
            Self::Create(..) => "create",
            Self::Save(..) if self.is_touch() => "touch",
            Self::Save(_, save) if save.step.new_proof().is_some() => "rotate",
            Self::Save(..) => "save",
            Self::End(..) => "end",
        }
    }

    pub(crate) fn is_touch(&self) -> bool {
        matches!(self, Self::Save(_, save) if save.token.is_none())
    }

    pub(crate) fn not_after(&self) -> Option<Time> {
        match self {
            Self::Load(_) => None,
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
}
