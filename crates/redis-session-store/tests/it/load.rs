//! Writers and readers for a while, whose every answer is checked: for topologies that change under them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis_session_core::{Change, Changes, Durability, Error, Fields, Save, Saved, Store, Stored, Waited};
use redis_session_store::RedisStore;
use tokio::task::JoinSet;

use crate::{Visitor, text};

/// Begun load: each visitor has one task that writes and one that reads.
pub(crate) struct Load {
    store: RedisStore,
    stop: Arc<AtomicBool>,
    operations: Arc<AtomicU64>,
    tasks: JoinSet<Seen>,
}

/// What the tasks of one visitor saw.
pub(crate) struct Seen {
    pub(crate) visitor: Arc<Visitor>,
    /// The numbers of the writes that were made, as it was told. None of a reader's.
    pub(crate) acknowledged: BTreeSet<u64>,
    /// Perhaps made, or perhaps not for long: nobody could tell, or it was not on its replicas in time.
    pub(crate) unknown: BTreeSet<u64>,
    /// When which operation failed, and with what.
    pub(crate) errors: Vec<(Instant, Error)>,
    pub(crate) slowest: Duration,
    /// The longest time from one good answer to the next, and when it ended.
    pub(crate) gap: (Duration, Instant),
}

impl Seen {
    fn new(visitor: &Arc<Visitor>) -> Self {
        Self {
            visitor: visitor.clone(),
            acknowledged: BTreeSet::new(),
            unknown: BTreeSet::new(),
            errors: Vec::new(),
            slowest: Duration::ZERO,
            gap: (Duration::ZERO, Instant::now()),
        }
    }

    /// How many acknowledged writes are not there.
    ///
    /// # Errors
    /// One is there that nobody made: or another one was made twice.
    fn lost(&self, there: &BTreeSet<u64>) -> Result<u64, u64> {
        let made = |number: &&u64| self.acknowledged.contains(number) || self.unknown.contains(number);
        match there.iter().find(|number| !made(number)) {
            Some(strange) => Err(*strange),
            None => Ok(self.acknowledged.difference(there).count() as u64),
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

    /// Ends it; of each task, tells how many acknowledged writes are not there, beside what it saw. One that nobody made,
    /// or another visitor's record, ends the test.
    pub(crate) async fn end(self) -> Vec<(Seen, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for seen in self.tasks.join_all().await {
            let Some(Stored::Record(record)) = self.store.load(&seen.visitor.key).await.unwrap() else {
                panic!("a session is gone")
            };
            let is_a_reader = seen.acknowledged.is_empty() && seen.unknown.is_empty();
            let lost = if is_a_reader { Ok(0) } else { seen.lost(&marks(&record.fields)) };
            let name = seen.visitor.name();
            let lost = lost.unwrap_or_else(|number| panic!("{name}: {number} was not made, or one before it twice"));
            all.push((seen, lost));
        }
        all
    }
}

/// How many writes have their marks in one field.
const IN_A_FIELD: u64 = 60;

/// What a write of this number does: it counts a bit of its own, so that it can be told from all others and the record stays
/// small. Made twice, it is another one's.
fn mark(number: u64) -> Changes {
    let name = text(&format!("n{}", number / IN_A_FIELD));
    Changes { clear: false, fields: vec![(name, Change::Increment(1 << (number % IN_A_FIELD)))] }
}

/// The numbers of all writes that are there.
fn marks(fields: &Fields) -> BTreeSet<u64> {
    let number = |name: &[u8]| std::str::from_utf8(name).ok()?.strip_prefix('n')?.parse::<u64>().ok();
    let of_field = |(name, bits): (&bytes::Bytes, &bytes::Bytes)| {
        let first = number(name)? * IN_A_FIELD;
        let bits: u64 = std::str::from_utf8(bits).unwrap().parse().unwrap();
        Some((0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| first + bit))
    };
    fields.iter().filter_map(of_field).flatten().collect()
}

#[test]
fn a_lost_write_is_missed_however_many_others_are_there() {
    let fields = |numbers: &[u64]| {
        let mut fields = Fields::from_pairs(vec![(text("name"), text("\"n1\""))]);
        for number in numbers {
            let [(name, Change::Increment(by))] = &mark(*number).fields[..] else { panic!("a count") };
            let before = fields.get(name).map_or(0, |n| std::str::from_utf8(n).unwrap().parse::<i64>().unwrap());
            fields.set(name.clone(), (before + by).to_string().into());
        }
        fields
    };
    let seen = Seen {
        acknowledged: [0, 1, 58, 59, 60, 200].into(),
        unknown: [2, 3, 61, 119].into(),
        ..Seen::new(&Arc::new(Visitor::new()))
    };
    let lost = |numbers: &[u64]| seen.lost(&marks(&fields(numbers)));
    assert_eq!(lost(&[0, 1, 58, 59, 60, 200]), Ok(0));
    assert_eq!(lost(&[0, 1, 58, 59, 60, 200, 2, 3, 61, 119]), Ok(0));
    // As many as were acknowledged, and not the same.
    assert_eq!(lost(&[0, 1, 2, 3, 61, 119]), Ok(4));
    assert_eq!(lost(&[]), Ok(6));
    assert_eq!(lost(&[0, 1, 4]), Err(4), "nobody made it");
    assert_eq!(lost(&[0, 1, 58, 59, 60, 200, 200]), Err(201), "made twice");
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

/// Writes, and sends the same bytes again as long as nobody knows whether they were taken.
async fn write(task: Task, visitor: Arc<Visitor>) -> Seen {
    let mut seen = Seen::new(&visitor);
    let (mut last, mut numbers) = (Instant::now(), 0..);
    while task.goes_on().await {
        let sent = Instant::now();
        let answer = task.store.load(&visitor.key).await;
        seen.answer(sent, &mut last, &answer);
        let base = match answer {
            Ok(Some(Stored::Record(record))) => record.tokens.newest(),
            Ok(other) => panic!("{}: {other:?}", visitor.name()),
            Err(_) => continue,
        };
        let number = numbers.next().expect("without end");
        let save = visitor.merge(base, mark(number));
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
                Ok((Saved::Saved { .. }, None)) => drop(seen.acknowledged.insert(number)),
                // In the second case, what it was based on went with a primary: it was not made, or that is lost as well.
                Ok((Saved::Saved { .. }, Some(_)) | (Saved::Moved(_), _)) => drop(seen.unknown.insert(number)),
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
    let mut seen = Seen::new(&visitor);
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
