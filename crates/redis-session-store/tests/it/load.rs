//! Writers and readers for a while, whose every answer is checked: for topologies that change under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis_session_core::{Durability, Error, Save, Saved, Store, Stored, Waited};
use redis_session_store::RedisStore;
use tokio::task::JoinSet;

use crate::{Visitor, count};

/// Begun load: each visitor has one task that counts and one that reads.
pub(crate) struct Load {
    store: RedisStore,
    stop: Arc<AtomicBool>,
    operations: Arc<AtomicU64>,
    tasks: JoinSet<Seen>,
}

/// What the tasks of one visitor saw.
pub(crate) struct Seen {
    pub(crate) visitor: Arc<Visitor>,
    writes: bool,
    /// Counted, as it was told.
    pub(crate) counted: u64,
    /// Perhaps counted, or perhaps not for long: nobody could tell, or it was not on its replicas in time.
    pub(crate) unknown: u64,
    /// When which operation failed, and with what.
    pub(crate) errors: Vec<(Instant, Error)>,
    pub(crate) slowest: Duration,
    /// The longest time from one good answer to the next, and when it ended.
    pub(crate) gap: (Duration, Instant),
}

impl Seen {
    fn new(visitor: &Arc<Visitor>, writes: bool) -> Self {
        let gap = (Duration::ZERO, Instant::now());
        Self {
            visitor: visitor.clone(),
            writes,
            counted: 0,
            unknown: 0,
            errors: Vec::new(),
            slowest: Duration::ZERO,
            gap,
        }
    }

    fn answer<T>(&mut self, sent: Instant, last: &mut Instant, answer: &Result<T, Error>) {
        self.slowest = self.slowest.max(sent.elapsed());
        match answer {
            Ok(_) => {
                self.gap = self.gap.max((last.elapsed(), Instant::now()));
                *last = Instant::now();
            }
            Err(error) => self.errors.push((sent, error.clone())),
        }
    }
}

impl Load {
    /// One operation of a task about every `pace`.
    pub(crate) async fn start(store: &RedisStore, visitors: &[Arc<Visitor>], pace: Duration) -> Self {
        Self::start_with(store, visitors, pace, Durability::Fast).await
    }

    /// With writes that wait for so much.
    pub(crate) async fn start_with(
        store: &RedisStore,
        visitors: &[Arc<Visitor>],
        pace: Duration,
        durability: Durability,
    ) -> Self {
        let (stop, operations) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for visitor in visitors {
            visitor.born(store, &[("name", &format!("\"{}\"", visitor.name()))]).await;
            let (store, stop, operations) = (store.clone(), stop.clone(), operations.clone());
            let task = Task { store, stop, operations, pace, durability };
            tasks.spawn(write(task.clone(), visitor.clone()));
            tasks.spawn(read(task, visitor.clone()));
        }
        Self { store: store.clone(), stop, operations, tasks }
    }

    /// How many operations there were.
    pub(crate) fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// Waits for so many operations more.
    pub(crate) async fn goes_on(&self, operations: u64) {
        let wanted = self.operations() + operations;
        while self.operations() < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it; of each visitor, tells how many acknowledged counts are not there, beside what his tasks saw. More than
    /// were sent, or another visitor's record, end the test.
    pub(crate) async fn end(self) -> Vec<(Seen, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for seen in self.tasks.join_all().await {
            let Some(Stored::Record(record)) = self.store.load(&seen.visitor.key).await.unwrap() else {
                panic!("a session is gone")
            };
            let there: u64 = record.fields.get(b"n").map_or(0, |n| std::str::from_utf8(n).unwrap().parse().unwrap());
            assert!(!seen.writes || there <= seen.counted + seen.unknown, "{there} of {}", seen.counted);
            let lost = seen.counted.saturating_sub(there);
            all.push((seen, lost));
        }
        all
    }
}

#[derive(Clone)]
struct Task {
    store: RedisStore,
    stop: Arc<AtomicBool>,
    operations: Arc<AtomicU64>,
    pace: Duration,
    durability: Durability,
}

impl Task {
    async fn save(&self, visitor: &Visitor, save: &Save) -> Result<Waited<Saved>, Error> {
        match self.durability.replication() {
            None => self.store.save(&visitor.key, save).await.map(Waited::enough),
            Some(replication) => self.store.save_durably(&visitor.key, save, replication).await,
        }
    }

    async fn goes_on(&self) -> bool {
        self.operations.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.pace).await;
        !self.stop.load(Ordering::Relaxed)
    }
}

/// Counts, and sends the same bytes again as long as nobody knows whether it was counted.
async fn write(task: Task, visitor: Arc<Visitor>) -> Seen {
    let mut seen = Seen::new(&visitor, true);
    let mut last = Instant::now();
    while task.goes_on().await {
        let sent = Instant::now();
        let answer = task.store.load(&visitor.key).await;
        seen.answer(sent, &mut last, &answer);
        let base = match answer {
            Ok(Some(Stored::Record(record))) => record.tokens.newest(),
            Ok(other) => panic!("{}: {other:?}", visitor.name()),
            Err(_) => continue,
        };
        let save = visitor.merge(base, count("n"));
        let mut unknown = false;
        loop {
            let sent = Instant::now();
            let answer = task.save(&visitor, &save).await;
            // What the same bytes find out in the end is no error.
            if answer.as_ref().is_err_and(|error| error.is_outcome_unknown() || unknown) {
                unknown = true;
                seen.slowest = seen.slowest.max(sent.elapsed());
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            seen.answer(sent, &mut last, &answer);
            match answer.map(|waited| (waited.outcome, waited.missed)) {
                Ok((Saved::Saved { .. }, None)) => seen.counted += 1,
                Ok((Saved::Saved { .. }, Some(_))) => seen.unknown += 1,
                // What it was based on went with a primary: it was not counted, or that is lost as well.
                Ok((Saved::Moved(_), _)) => seen.unknown += 1,
                Ok((other, _)) => panic!("{}: {other:?}", visitor.name()),
                Err(_) => {}
            }
            break;
        }
    }
    seen
}

/// Reads, and looks whether it is the visitor's own.
async fn read(task: Task, visitor: Arc<Visitor>) -> Seen {
    let mut seen = Seen::new(&visitor, false);
    let (name, mut last) = (format!("\"{}\"", visitor.name()), Instant::now());
    while task.goes_on().await {
        let sent = Instant::now();
        let answer = task.store.load(&visitor.key).await;
        seen.answer(sent, &mut last, &answer);
        match answer {
            Ok(Some(Stored::Record(record))) => assert_eq!(record.fields.get(b"name"), Some(&name.clone().into())),
            Ok(other) => panic!("{name}: {other:?}"),
            Err(error) => assert!(error.is_unavailable(), "{error:?}"),
        }
    }
    seen
}
