//! The invariants of the protocol, part A7, as an onlooker checks them after each step.

use redis_session::Expiry;
use redis_session_core::{End, Record, Save, Saved, Step, Stored, Whose};

use crate::acts::{Act, OfPeople, Word};
use crate::facts::{MINUTE, Story, Violation, violated};
use crate::wire::{Op, Outcome, Who};

use super::visit::{Last, Visit, Writing};
use super::{DEADLINE, FIRST_PAUSE, STRICT, World, look};

impl World<'_> {
    /// What an operation may change.
    pub(super) fn check_change(
        &self,
        who: Who,
        op: &Op,
        before: Option<&Stored>,
        after: Option<&Stored>,
    ) -> Result<(), Violation> {
        if op.not_after().is_some_and(|not_after| self.now() > not_after) {
            return violated("I9", format!("the {} that came after its time changed something", op.name()));
        }
        let key = op.key().expect("lists are checked elsewhere");
        let story = self.facts.sessions.get(key);
        if story.is_some_and(|story| story.over.is_some()) && matches!(after, Some(Stored::Record(_))) {
            return violated("I1", format!("the {} brought a session back that was over", op.name()));
        }
        if let Op::Create(key, _) = op {
            if before.is_some() {
                return violated("I6", "a new session took the place of another one");
            }
            if self.facts.cookies.values().any(|ticket| ticket.key == *key) {
                return violated("I8", "an id that came with a request was adopted");
            }
            return Ok(());
        }
        self.check_deadline(who, op, before)?;
        if let Op::End(_, End { whose: Whose::Users(user), .. }) = op {
            return match before {
                Some(Stored::Record(record)) if record.user() != Some(user) => {
                    violated("J5", "the end of a user's session ended another's")
                }
                _ => Ok(()),
            };
        }
        if let (Op::Save(_, Save { step: Step::LogIn(..), .. }), Some(Stored::Record(record))) = (op, before) {
            let has_x = |record: &Record| record.fields.iter().any(|(name, _)| name.as_ref() == b"x");
            let is_kept = matches!(after, Some(Stored::Record(after)) if has_x(after) == has_x(record));
            if !is_kept {
                return violated("I5", "a login lost what the session had");
            }
        }
        let newest = story.map_or(0, |story| story.proofs.len().saturating_sub(1));
        let mut authors = self.authors(who, op).peekable();
        let era = |generation| story.map_or(0, |story| story.era(generation));
        if authors.peek().is_some() && !authors.any(|at| era(self.visits[at].generation) == era(newest)) {
            return violated("I3", format!("the {} with a proof that was replaced changed something", op.name()));
        }
        Ok(())
    }

    /// What has expired by the policy of a request's process gets no data from it.
    fn check_deadline(&self, who: Who, op: &Op, before: Option<&Stored>) -> Result<(), Violation> {
        match (who, op, before) {
            (Who::Request(at), Op::Save(..), Some(Stored::Record(record))) if self.has_expired_for(at, record) => {
                violated("I1", format!("the {} changed a session that was past its deadline", op.name()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn has_expired_for(&self, at: usize, record: &Record) -> bool {
        let is_strict = self.scenario.stricter && self.process(at) == 1;
        let life = if is_strict { Expiry::idle(STRICT) } else { Expiry::default() }.life();
        life.deadline(record.created, record.seen, &record.wishes) <= self.now()
    }

    /// Whether a request's session has expired by the policy of its process, and perhaps not by that of the other one.
    pub(super) fn is_past_its_deadline(&self, at: usize) -> bool {
        let stored = self.visits[at].ticket.as_ref().and_then(|ticket| look(&self.stage.wire, &ticket.key));
        matches!(stored, Some(Stored::Record(record)) if self.has_expired_for(at, &record))
    }

    /// Whose a call may be: tasks go on for those who ended their session, or went away.
    fn authors(&self, who: Who, op: &Op) -> impl Iterator<Item = usize> {
        self.visits.iter().enumerate().filter_map(move |(at, visit)| {
            let is_mine = match who {
                Who::Request(author) => author == at,
                Who::Background => {
                    let ends =
                        matches!(op, Op::End(..)) && matches!(visit.act, Act::Destroy | Act::Goodbye | Act::LogOut);
                    let key = visit.ticket.as_ref().map(|ticket| &ticket.key);
                    visit.started() && key == op.key() && (ends || !visit.is_open() && !visit.is_answered())
                }
            };
            is_mine.then_some(at)
        })
    }

    /// A save that is refused, like one that is not made for any other reason, changes nothing.
    pub(super) fn check_refusal(op: &Op, outcome: &Outcome) -> Result<(), Violation> {
        match outcome {
            Outcome::Saved(Saved::Saved { .. }) | Outcome::Created(_) | Outcome::Ended(_) => Ok(()),
            _ => violated("I9", format!("the {} that was not made changed something", op.name())),
        }
    }

    /// What a handler was told and shown since.
    pub(super) fn check_notes(&mut self, at: usize) -> Result<(), Violation> {
        let notes = self.visits[at].job.notes().clone();
        let (told, also_told, shown, of_people) = self.visits[at].checked;
        let words = notes.told[told..].iter().filter_map(|(_, answer)| answer.err()).map(|word| (word, false));
        for (word, may_be_of_a_touch) in words.chain(notes.also_told[also_told..].iter().map(|word| (*word, true))) {
            self.check_word(at, word, may_be_of_a_touch)?;
            // What the handler goes on with is another write.
            let next = Writing::none(self.now());
            let last = std::mem::replace(&mut self.visits[at].writing, next).last;
            let matters = last != Last::LostTouch || self.visits[at].act.only_touches();
            self.visits[at].in_doubt |= word == Word::Unknown && matters;
        }
        for _ in &notes.shown[shown..] {
            self.check_shown(at)?;
        }
        if notes.shown.len() > shown || notes.seen.is_some() {
            self.check_seen(at)?;
        }
        for told in &notes.of_people[of_people..] {
            self.visits[at].writing = Writing::none(self.now());
            let is_unknown = matches!(told, OfPeople::LoggedIn(_, Err(Word::Unknown)));
            self.visits[at].in_doubt |= is_unknown;
            self.check_told_of_people(at, told)?;
        }
        self.visits[at].checked = (notes.told.len(), notes.also_told.len(), notes.shown.len(), notes.of_people.len());
        Ok(())
    }

    /// An error that a request is told must be true.
    pub(super) fn check_word(&self, at: usize, word: Word, may_be_of_a_touch: bool) -> Result<(), Violation> {
        let visit = &self.visits[at];
        match word {
            Word::Gone => {
                let dead = visit.ticket.as_ref().is_some_and(|ticket| self.facts.dead_since(ticket).is_some());
                if self.has_rotated_last(visit) {
                    return violated(
                        "I9",
                        format!("{at} was told that its session is gone, and has rotated it itself"),
                    );
                }
                let has_ended = dead || self.is_past_its_deadline(at) || visit.found_nothing_late;
                if has_ended || self.facts.failed_over || self.rotates_what_was_renewed(visit) {
                    return Ok(());
                }
                violated("I9", format!("{at} was told that its session is gone, and it lives"))
            }
            Word::Unknown => self.check_unknown(at, visit, may_be_of_a_touch),
            Word::NotSaved | Word::Refused => Ok(()),
        }
    }

    /// Whether the living session's proof is from this very request's rotation.
    fn has_rotated_last(&self, visit: &Visit) -> bool {
        let Some(ticket) = &visit.ticket else { return false };
        self.facts.sessions.get(&ticket.key).is_some_and(|story| {
            let came_with = story.generation(&ticket.proof);
            story.over.is_none() && visit.generation + 1 == story.proofs.len() && came_with < Some(visit.generation)
        })
    }

    /// Whether it asks for a rotation, and came with a proof that a timed renewal has replaced, which does not rotate (part
    /// A5): the answer with the renewed id may be on its way, and would take the rotated one out of the browser.
    fn rotates_what_was_renewed(&self, visit: &Visit) -> bool {
        let renewed = |(story, with): (&Story, usize)| story.renewals.contains(&(with + 1));
        visit.act == Act::Rotate && self.came_with(visit).is_some_and(renewed)
    }

    /// Whether it rotates the very renewed id that the other one, who came with the id before, is offered.
    fn rotates_what_is_offered(&self, visit: &Visit, other: &Visit) -> bool {
        let before = self.came_with(other).map(|(_, with)| with + 1);
        let offered = |(story, with): (&Story, usize)| Some(with) == before && story.renewals.contains(&with);
        visit.act == Act::Rotate && self.came_with(visit).is_some_and(offered)
    }

    /// The session whose cookie a request came with, and which of its proofs that has, by number.
    fn came_with(&self, visit: &Visit) -> Option<(&Story, usize)> {
        let ticket = self.facts.cookies.get(visit.presented.as_ref()?)?;
        let story = self.facts.sessions.get(&ticket.key)?;
        Some((story, story.generation(&ticket.proof)?))
    }

    /// That nobody knows is said only where nobody can.
    fn check_unknown(&self, at: usize, visit: &Visit, may_be_of_a_touch: bool) -> Result<(), Violation> {
        let writing = &visit.writing;
        let pause = FIRST_PAUSE * 2_u32.pow(writing.lost.saturating_sub(1));
        let in_time = self.now().since(writing.since) + pause < DEADLINE;
        let what = match writing.last {
            _ if visit.in_doubt => return Ok(()),
            Last::Definite => "and the store has said",
            Last::LostTouch if !may_be_of_a_touch => "and no edit was sent",
            Last::Lost if in_time => "and it did not ask",
            Last::Undecidable if !self.others_saved(visit) => "and fewer than four others saved",
            _ => return Ok(()),
        };
        violated("I9", format!("{at} was told that nobody knows, {what}"))
    }

    /// Whether so many saved since the last version that a request knows that its token may have been there and be gone.
    fn others_saved(&self, visit: &Visit) -> bool {
        let story = visit.ticket.as_ref().and_then(|ticket| self.facts.sessions.get(&ticket.key));
        self.facts.failed_over || story.is_none_or(|story| story.saves >= visit.known_saves + 4)
    }

    /// Who logged in may be seen by those who have that login's cookie, or a later one.
    fn check_shown(&self, at: usize) -> Result<(), Violation> {
        let visit = &self.visits[at];
        let story = visit.ticket.as_ref().and_then(|ticket| self.facts.sessions.get(&ticket.key));
        match story.and_then(|story| story.logged_in) {
            None => violated("I6", format!("{at} was shown a login that is not of its session")),
            Some(since) if story.is_some_and(|story| story.era(visit.generation) < story.era(since)) => {
                violated("I3", format!("{at} was shown a login, and knows the cookie of before only"))
            }
            Some(_) => Ok(()),
        }
    }

    /// A new id is always handed out, and a cookie goes only with its session.
    pub(super) fn check_cookie(&mut self, at: usize, line: Option<&str>) -> Result<(), Violation> {
        let visit = &self.visits[at];
        let came_with = visit.presented.as_ref().and_then(|value| self.facts.cookies.get(value)).cloned();
        let destroyed = visit.job.notes().destroyed;
        match (line.map(value_of), visit.ticket.clone()) {
            (Some(Some(value)), Some(ticket)) => {
                let Some(story) = self.facts.sessions.get(&ticket.key) else {
                    return violated("I8", format!("{at} was given an id that was never stored"));
                };
                let is_others = story.browser != visit.browser && came_with.is_none_or(|ours| ours.key != ticket.key);
                let before = self.facts.cookies.insert(value.to_owned(), ticket.clone());
                if is_others || before.is_some_and(|before| before != ticket) {
                    return violated("I6", format!("{at} was given another visitor's session"));
                }
                Ok(())
            }
            (Some(None), _) if !destroyed => violated("I4", format!("{at} takes a cookie away unasked")),
            // Nobody knows whether such a login may stand, so it is ended, and nobody has it.
            (None, Some(_)) if visit.job.notes().of_people.iter().any(is_a_failed_login) => Ok(()),
            (None, Some(ticket)) if !destroyed && came_with.as_ref() != Some(&ticket) => {
                match self.facts.dead_since(&ticket) {
                    None => violated("I4", format!("{at} was not given its new cookie")),
                    Some(_) => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// A late answer may not take the place of what a newer one has brought, but where the protocol says so (part A6).
    /// Answers whether it does there.
    pub(super) fn check_delivery(&self, at: usize, before: Option<&str>) -> Result<bool, Violation> {
        let (visit, browser) = (&self.visits[at], &self.browsers[self.visits[at].browser]);
        let (Some(from), Some(before)) = (browser.from, before) else { return Ok(false) };
        let ticket = self.facts.cookies.get(before);
        let was_worth_something = ticket.is_some_and(|ticket| self.facts.dead_since(ticket).is_none());
        if !browser.before.contains(&at) || visit.presented.as_deref() == Some(before) {
            return Ok(false);
        }
        let first_edit = !visit.had_a_session || !self.visits[from].had_a_session;
        let log_out = visit.job.notes().destroyed && !visit.was_replaced;
        let remembers = visit.act == Act::Remember;
        // Whoever logs in twice at a time is logged in either way; a login that comes upon an explicit rotation takes
        // a new session, and nobody can tell the browser which of the two came later. Nor whether the renewal that a
        // login in the user's own session has replaced came before it.
        let acts = [visit.act, self.visits[from].act];
        let renews = acts.map(|act| act.logs_in().is_some() || act == Act::Rotate || self.scenario.renews);
        let logs_in = acts.iter().any(|act| act.logs_in().is_some()) && renews == [true, true];
        let offers_too_late = self.rotates_what_is_offered(&self.visits[from], visit);
        let was_under_way_for_long = self.now().since(visit.answered) >= MINUTE;
        if first_edit
            || log_out
            || remembers
            || logs_in
            || offers_too_late
            || was_under_way_for_long
            || browser.from_late
            || !was_worth_something
        {
            return Ok(true);
        }
        violated("I4", format!("the answer to {at} undid what a newer one had brought"))?;
        Ok(false)
    }

    /// No edit is made twice.
    fn check_counts(&self) -> Result<(), Violation> {
        for mark in 0..2 * self.visits.len() as u8 {
            if self.facts.count(mark) > 1 {
                return violated("I9", format!("edit {mark} was made twice"));
            }
        }
        Ok(())
    }

    /// What has become of all edits.
    pub(crate) fn check_edits(&self) -> Result<(), Violation> {
        self.check_counts()?;
        self.check_answers()?;
        self.check_people()
    }

    /// Every edit was made as its request was told.
    fn check_answers(&self) -> Result<(), Violation> {
        for visit in self.visits.iter().filter(|visit| visit.is_answered()) {
            let notes = visit.job.notes();
            for mark in &notes.made {
                let told = notes.told.iter().rev().find(|(told, _)| told == mark).map(|(_, answer)| *answer);
                self.check_edit(visit, *mark, told)?;
            }
        }
        Ok(())
    }

    fn check_edit(&self, visit: &Visit, mark: u8, told: Option<Result<(), Word>>) -> Result<(), Violation> {
        let was_saved = match (told, visit.said) {
            (Some(Ok(())), _) => true,
            (Some(Err(Word::Gone | Word::Unknown)), _) | (_, Some(Word::Gone | Word::Unknown)) => return Ok(()),
            (_, None) if visit.failed => false,
            (_, None) if visit.excused => return Ok(()),
            (_, None) => true,
            (_, Some(Word::NotSaved | Word::Refused)) => false,
        };
        match (was_saved, self.facts.count(mark)) {
            (true, 0) if !self.facts.failed_over => violated("I2", format!("edit {mark} was answered and is lost")),
            (false, 1) => {
                violated("I9", format!("edit {mark} was not saved, as its request was told, and it is there"))
            }
            _ => Ok(()),
        }
    }
}

fn is_a_failed_login(told: &OfPeople) -> bool {
    matches!(told, OfPeople::LoggedIn(_, Err(_)))
}

/// The value that a Set-Cookie line gives. `None`: it takes the cookie away.
fn value_of(line: &str) -> Option<&str> {
    let pair = line.split(';').next()?;
    pair.split_once('=').map(|(_, value)| value).filter(|value| !value.is_empty())
}
