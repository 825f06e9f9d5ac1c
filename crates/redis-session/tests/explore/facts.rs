//! What an onlooker who sees everything knows, and the invariants that he checks.

use std::collections::BTreeMap;
use std::time::Duration;

use redis_session_core::{Reason, Record, ReplacedBy, SessionKey, Stored, Time};

use crate::acts::DIGIT;

/// An invariant that does not hold.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// Its number in the protocol, part A7.
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
}

pub(crate) fn violated(invariant: &'static str, what: impl Into<String>) -> Result<(), Violation> {
    Err(Violation { invariant, what: what.into() })
}

/// What a cookie's id leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    pub(crate) key: SessionKey,
    pub(crate) proof: String,
}

/// The story of one session.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Story {
    /// Its proofs, and since when each has been the one.
    pub(crate) proofs: Vec<(String, Time)>,
    /// When it ended, or was found to have expired.
    pub(crate) over: Option<Time>,
    /// Whether it left a tombstone.
    pub(crate) by_end: bool,
    /// Its fields, while it lived.
    pub(crate) fields: Vec<(String, String)>,
    /// The proof, by number, with which somebody logged in.
    pub(crate) logged_in: Option<usize>,
    /// How many saves of edits it has had.
    pub(crate) saves: usize,
    /// Whose request made it.
    pub(crate) browser: usize,
    /// Which of its proofs, by number, timed renewals have made: who knows the one before is as good as who knows these.
    pub(crate) renewals: Vec<usize>,
    /// When the proof before the newest renewal ceased to be good, since the new one was seen. `None`: it still is.
    pub(crate) seen: Option<Time>,
    /// Whether it was there from the start.
    pub(crate) is_of_the_ground: bool,
    /// Who is logged in. `None`: nobody was.
    pub(crate) user: Option<u8>,
    /// Why it ended. `None`: it left no tombstone.
    pub(crate) reason: Option<Reason>,
}

impl Story {
    pub(crate) fn generation(&self, proof: &str) -> Option<usize> {
        self.proofs.iter().position(|(known, _)| known == proof)
    }

    /// How often a proof up to this one has taken the right from who knew the one before.
    pub(crate) fn era(&self, generation: usize) -> usize {
        generation - self.renewals.iter().filter(|renewal| **renewal <= generation).count()
    }

    /// Since when the proof of this number is worth nothing, by another proof. `None`: it is good.
    fn replaced(&self, at: usize) -> Option<Time> {
        let mut later = (at + 1..self.proofs.len()).map(|at| (self.renewals.contains(&at), self.proofs[at].1));
        match later.next()? {
            (false, since) => Some(since),
            (true, _) => later.next().map(|(_, since)| since).into_iter().chain(self.seen).min(),
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// How often the edit with this mark was made.
    fn count(&self, mark: u8) -> u64 {
        let digit = |n: &str| (n.parse::<u64>().expect("a number") >> (DIGIT * u32::from(mark))) & ((1 << DIGIT) - 1);
        let pushes = self.field("log").map_or(0, |log| {
            log.trim_matches(['[', ']']).split(',').filter(|pushed| pushed.parse() == Ok(mark)).count() as u64
        });
        self.field("n").map_or(0, digit) + pushes + u64::from(self.field(&format!("own{mark}")).is_some())
    }
}

/// All that happened in the store, and which cookie leads where.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) sessions: BTreeMap<SessionKey, Story>,
    pub(crate) cookies: BTreeMap<String, Ticket>,
    /// Whether a failover has undone writes: then those that were answered may be lost.
    pub(crate) failed_over: bool,
}

/// As long as an ended or replaced id creates nothing.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

impl Facts {
    /// How often the edit with this mark was made, in all sessions.
    pub(crate) fn count(&self, mark: u8) -> u64 {
        self.sessions.values().map(|story| story.count(mark)).sum()
    }

    /// Since when a ticket is worth nothing. `None`: it still is.
    pub(crate) fn dead_since(&self, ticket: &Ticket) -> Option<Time> {
        let Some(story) = self.sessions.get(&ticket.key) else { return Some(Time::default()) };
        let replaced = story.generation(&ticket.proof).map(|at| story.replaced(at));
        match replaced {
            None => Some(Time::default()),
            Some(replaced) => replaced.into_iter().chain(story.over).min(),
        }
    }

    /// Whether a request that arrives now with this ticket may have an answer of its browser's on the way that replaces it.
    pub(crate) fn had_a_session(&self, ticket: &Ticket, now: Time) -> bool {
        let replaced_or_ended = |since: Time| {
            let story = self.sessions.get(&ticket.key);
            let expired = story.is_some_and(|story| story.over == Some(since) && !story.by_end);
            !expired && now.since(since) < MINUTE
        };
        self.dead_since(ticket).is_none_or(replaced_or_ended)
    }

    /// Takes note of what became of a key.
    pub(crate) fn changed(
        &mut self,
        key: &SessionKey,
        after: Option<&Stored>,
        rotated: bool,
        now: Time,
        browser: usize,
    ) {
        match after {
            Some(Stored::Record(record)) => {
                let story = self.sessions.entry(key.clone()).or_insert_with(|| Story { browser, ..Story::default() });
                story.note(record, rotated, now);
            }
            Some(Stored::Ended(tombstone)) => {
                if let Some(story) = self.sessions.get_mut(key).filter(|story| story.over.is_none()) {
                    (story.over, story.by_end, story.reason) = (Some(now), true, Some(tombstone.reason));
                }
            }
            None => {
                if let Some(story) = self.sessions.get_mut(key).filter(|story| story.over.is_none()) {
                    story.over = Some(now);
                }
            }
        }
    }
}

impl Story {
    fn note(&mut self, record: &Record, rotated: bool, now: Time) {
        let proof = record.proof.to_text();
        // Also a rotation to the same proof counts as one: who knew it before is not to profit.
        if rotated || self.generation(&proof).is_none() {
            let before = self.proofs.last().map(|(before, _)| before);
            let renewed = record.previous.is_some_and(|previous| {
                previous.by == ReplacedBy::Renewal && Some(&previous.proof.to_text()) == before
            });
            if renewed {
                self.renewals.push(self.proofs.len());
                self.seen = None;
            }
            self.proofs.push((proof, now));
        }
        let seen = record.previous.filter(|previous| previous.by == ReplacedBy::SeenRenewal);
        self.seen = seen.map(|previous| previous.at + MINUTE).filter(|until| *until <= now);
        self.user = record.user().and_then(|user| user.as_str().parse().ok());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.fields = record.fields.iter().map(|(name, value)| (text(name), text(value))).collect();
        if self.logged_in.is_none() && (self.field("user").is_some() || self.user.is_some()) {
            self.logged_in = Some(self.proofs.len() - 1);
        }
    }
}
