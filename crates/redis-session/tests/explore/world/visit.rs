//! One request on its way, and what it knows.

use std::collections::hash_map::DefaultHasher;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use http::Response;
use redis_session_core::{Created, Ended, Error, Record, ReplacedBy, Saved, Stored, Time, Token};

use crate::acts::{Act, Job, Word};
use crate::facts::{MINUTE, Ticket};
use crate::wire::{Op, Outcome};

use super::fingerprint::{hash_answer, hash_op};

pub(super) type Answering = Pin<Box<dyn Future<Output = Response<String>>>>;

/// Set when a request can go on.
#[derive(Default)]
pub(super) struct Flag(AtomicBool);

impl Flag {
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One request.
pub(super) struct Visit {
    pub(super) act: Act,
    pub(super) browser: usize,
    pub(super) progress: Progress,
    pub(super) flag: Arc<Flag>,
    pub(super) job: Job,
    /// How many leaps of time there had been when its handler began to take its time. `None`: it does not.
    pub(super) dawdles_since: Option<u8>,
    /// Everything that it was told, so everything that it knows.
    pub(super) history: DefaultHasher,
    pub(super) presented: Option<String>,
    /// What it comes with, or was given since.
    pub(super) ticket: Option<Ticket>,
    /// The newest proof of its session that it may know, by number.
    pub(super) generation: usize,
    pub(super) arrived: Time,
    pub(super) answered: Time,
    /// Whether its browser had a session when it came, or had one that was replaced or ended less than a minute ago.
    pub(super) had_a_session: bool,
    /// Whether its proof was replaced already when it was read.
    pub(super) was_replaced: bool,
    /// Whether it had expired, by the policy of its process, when it was read.
    pub(super) found_expired: bool,
    /// Whether it was told that nothing is there, so late that a tombstone may have come and gone.
    pub(super) found_nothing_late: bool,
    /// Whether edits of it that were not made are excused: its session is dead.
    pub(super) excused: bool,
    /// How many saves its session had had, as far as it was told.
    pub(super) known_saves: usize,
    pub(super) writing: Writing,
    /// Whether a reply to it was lost after which it has not asked again.
    pub(super) pauses: bool,
    /// When that was. `None`: never.
    pub(super) lost_at: Option<Time>,
    /// How often it was told what there is.
    pub(super) loads: u8,
    /// Whether its handler was told of an unknown outcome: so its answer says so too.
    pub(super) in_doubt: bool,
    /// How many notes have been checked.
    pub(super) checked: (usize, usize, usize, usize),
    /// The error that its answer carries. `None`: there is none.
    pub(super) said: Option<Word>,
    pub(super) failed: bool,
}

/// How far a request has come.
pub(super) enum Progress {
    NotYet,
    Running(Answering),
    /// The answer has a Set-Cookie line that is on its way.
    Answered(String),
    Over,
    /// Its client went away.
    Abandoned,
    /// Its process died.
    Crashed,
}

/// What a request knows of the write that it is at.
#[derive(Clone, Debug)]
pub(super) struct Writing {
    pub(super) since: Time,
    /// How many replies were lost.
    pub(super) lost: u32,
    pub(super) last: Last,
    /// Under which tokens it was sent.
    pub(super) tokens: Vec<Token>,
}

/// What was heard last of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Last {
    Definite,
    Lost,
    LostTouch,
    /// A reply was lost, and the record has moved on so far that nobody can tell.
    Undecidable,
    /// A reply was lost, and what was sent again came too late to be looked at.
    TooLate,
    /// A copy is lost or held, and what was sent again was refused: the held one may meet what does not refuse it.
    MayYetRun,
}

impl Writing {
    pub(super) fn none(since: Time) -> Self {
        Self { since, lost: 0, last: Last::Definite, tokens: Vec::new() }
    }

    /// Nothing is sent before now, unless it was already.
    fn goes_on(&mut self, now: Time) {
        if self.lost == 0 {
            self.since = now;
        }
    }
}

impl Visit {
    pub(super) fn new(index: usize, act: Act, browser: usize) -> Self {
        Self {
            act,
            browser,
            progress: Progress::NotYet,
            flag: Arc::default(),
            job: Job { act, index, notes: Arc::default(), gate: Arc::default(), sessions: None },
            dawdles_since: None,
            history: DefaultHasher::new(),
            presented: None,
            ticket: None,
            generation: 0,
            arrived: Time::default(),
            answered: Time::default(),
            had_a_session: false,
            was_replaced: false,
            found_expired: false,
            found_nothing_late: false,
            excused: false,
            known_saves: 0,
            writing: Writing::none(Time::default()),
            pauses: false,
            lost_at: None,
            loads: 0,
            in_doubt: false,
            checked: (0, 0, 0, 0),
            said: None,
            failed: false,
        }
    }

    pub(super) fn started(&self) -> bool {
        !matches!(self.progress, Progress::NotYet)
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.progress, Progress::Running(_))
    }

    /// Whether its handler waits for being let through.
    pub(super) fn is_at_gate(&self) -> bool {
        self.is_running() && self.job.gate.somebody_waits()
    }

    /// Whether its handler goes on when time has passed.
    pub(super) fn dawdles(&self) -> bool {
        self.is_at_gate() && self.dawdles_since.is_some()
    }

    /// Its handler goes on.
    pub(super) fn go_on(&mut self, now: Time) {
        self.dawdles_since = None;
        now.hash(&mut self.history);
        self.writing.goes_on(now);
        self.job.gate.let_through();
    }

    /// Whether its browser may yet get an answer from it.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.progress, Progress::Running(_) | Progress::Answered(_))
    }

    pub(super) fn is_answered(&self) -> bool {
        matches!(self.progress, Progress::Answered(_) | Progress::Over)
    }

    /// Takes note of what it learns of a call. `saves`: how many saves its session had had when it was carried out.
    pub(super) fn is_told(&mut self, op: &Op, answer: &Result<Outcome, Error>, saves: usize, now: Time) {
        hash_op(op, &mut self.history);
        hash_answer(answer, &mut self.history);
        now.hash(&mut self.history);
        if let Op::Save(_, save) = op
            && let Some(token) = save.token
        {
            self.writing.tokens.push(token);
        }
        let was_lost = self.writing.lost > 0;
        if answer.is_err() && (was_lost || answer.as_ref().is_err_and(Error::is_outcome_unknown)) {
            (self.pauses, self.lost_at) = (true, Some(now));
        }
        if matches!(answer, Ok(Outcome::Loaded(None))) {
            self.found_nothing_late |= now.since(self.arrived) >= MINUTE;
        }
        match answer {
            Err(error) if error.is_outcome_unknown() || was_lost => {
                self.writing.last = if op.is_touch() { Last::LostTouch } else { Last::Lost };
                self.writing.lost += 1;
            }
            Ok(Outcome::Saved(Saved::Late) | Outcome::Created(Created::Late) | Outcome::Ended(Ended::Late)) => {
                self.writing.last = if was_lost { Last::TooLate } else { Last::Definite };
            }
            Ok(Outcome::Saved(Saved::Refused(_))) if was_lost => self.writing.last = Last::MayYetRun,
            Ok(Outcome::Saved(Saved::Moved(record))) if was_lost => {
                let ran = self.writing.tokens.iter().any(|token| record.tokens.contains(*token));
                let Op::Save(_, save) = op else { unreachable!("only saves are told so") };
                let decidable = ran || record.tokens.contains(save.base);
                self.writing.last = if decidable { Last::Definite } else { Last::Undecidable };
                self.known_saves = if decidable { saves } else { self.known_saves };
            }
            _ => {
                self.writing = Writing::none(now);
                let is_known = !op.is_touch() && op.key().is_some();
                self.known_saves = if is_known { saves } else { self.known_saves };
                self.is_given(op, answer);
            }
        }
    }

    /// What it has now, after a definite answer.
    fn is_given(&mut self, op: &Op, answer: &Result<Outcome, Error>) {
        match (op, answer) {
            (Op::Create(key, create), Ok(Outcome::Created(Created::Created { .. }))) => {
                self.ticket = Some(Ticket { key: key.clone(), proof: create.proof.to_text() });
                self.generation = 0;
            }
            (Op::Save(key, save), Ok(Outcome::Saved(Saved::Saved { .. }))) => {
                if let Some(proof) = save.step.new_proof() {
                    self.ticket = Some(Ticket { key: key.clone(), proof: proof.to_text() });
                }
            }
            (Op::Load(_), Ok(Outcome::Loaded(Some(Stored::Record(record))))) => self.is_offered(record),
            _ => {}
        }
    }

    /// Who comes with the proof before a renewal is offered the new one; whose login was made already takes it over.
    fn is_offered(&mut self, record: &Record) {
        self.loads += 1;
        let Some(ticket) = &mut self.ticket else { return };
        let Some(previous) = record.previous.filter(|previous| previous.proof.to_text() == ticket.proof) else {
            return;
        };
        let user = record.user().and_then(|user| user.as_str().parse().ok());
        let is_his = match previous.by {
            ReplacedBy::Renewal => true,
            ReplacedBy::SeenRenewal => self.arrived.since(previous.at) < MINUTE,
            ReplacedBy::Login => self.loads > 1 && self.act.logs_in().is_some_and(|me| Some(me) == user),
        };
        if is_his {
            ticket.proof = record.proof.to_text();
        }
    }
}
