//! The invariants of the protocol, part B, as an onlooker checks them: which sessions a user has, and who ended them.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use redis_session::Expiry;
use redis_session_core::{Doomed, ENTRY_STAYS, Reason, SessionHandle, SessionKey, Time, UserKey, Which};

use crate::acts::{Act, OfPeople, Word};
use crate::facts::{Story, Violation, violated};
use crate::wire::{Op, Outcome, Who};

use super::visit::Progress;
use super::{World, look, tasks_are_alive};

/// The store counts in whole milliseconds, so a login's age is counted by so much longer than it is.
const CLOCKS_ARE_COARSE: Duration = Duration::from_millis(2);

/// What an onlooker knows of revocations.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Revocations {
    dooms: Vec<Dooming>,
    /// Since whose start, by number of the request, somebody else has doomed or ended something.
    disturbed: Vec<usize>,
}

/// A step that doomed sessions of a user.
#[derive(Clone, Debug, Hash)]
struct Dooming {
    by: Who,
    user: UserKey,
    /// Whether it is about one session, so that no login is concerned.
    one: bool,
    /// Which session was to stay. `None`: none.
    stays: Option<SessionKey>,
    /// The sessions that were to go and lived then.
    go: Vec<SessionKey>,
    /// Which requests had arrived.
    arrived: Vec<usize>,
    at: Time,
    /// Whether who asked for it was told that it is done.
    is_done: bool,
}

impl World<'_> {
    /// Runs an operation on a user's list, and looks at what it did.
    pub(super) fn execute_on_list(&mut self, who: Who, op: &Op, user: &UserKey) -> Result<Outcome, Violation> {
        let (store, now) = (self.stage.wire.store(), self.now());
        let before = store.list_of(user);
        let outcome = op.run(&store);
        let after = store.list_of(user);
        if before != after && op.not_after().is_some_and(|not_after| now > not_after) {
            violated("I9", format!("the {} that came after its time changed something", op.name()))?;
        }
        let doomed = |entries: &[(SessionHandle, Time, bool)]| entries.iter().filter(|(.., doomed)| *doomed).count();
        if doomed(&after.0) > doomed(&before.0) || after.1 != before.1 {
            self.disturb(who);
        }
        if let (Op::Doom(_, doom), Outcome::Doomed(Doomed::Doomed(_))) = (op, &outcome) {
            self.disturb(who);
            let stays = if let Which::AllBut(stays) = doom.which { Some(self.key_of(stays)) } else { None };
            let only = if let Which::Only(only) = doom.which { Some(self.key_of(only)) } else { None };
            let goes = |key: &SessionKey| only.as_ref().is_none_or(|only| only == key) && stays.as_ref() != Some(key);
            let go = self.living(user).map(|(key, _)| key.clone()).filter(goes).collect();
            let arrived = (0..self.visits.len()).filter(|at| self.visits[*at].started()).collect();
            let (user, one) = (user.clone(), only.is_some());
            self.revocations.dooms.push(Dooming { by: who, user, one, stays, go, arrived, at: now, is_done: false });
        }
        Ok(outcome)
    }

    fn key_of(&self, session: SessionHandle) -> SessionKey {
        session.key(&self.stage.realm)
    }

    /// The living sessions of a user.
    fn living(&self, user: &UserKey) -> impl Iterator<Item = (&SessionKey, &Story)> {
        let number = self.stage.number_of(user);
        let is_his = move |story: &Story| story.over.is_none() && story.user == Some(number);
        self.facts.sessions.iter().filter(move |(_, story)| is_his(story))
    }

    /// Takes note, for all others who are logging in, that something was doomed or ended.
    pub(super) fn disturb(&mut self, who: Who) {
        for at in 0..self.visits.len() {
            if self.visits[at].is_running() && who != Who::Request(at) && !self.revocations.disturbed.contains(&at) {
                self.revocations.disturbed.push(at);
                self.revocations.disturbed.sort_unstable();
            }
        }
    }

    /// A request begins.
    pub(super) fn arrives_among_people(&mut self, at: usize) {
        let store = self.stage.wire.store();
        let is_doomed = |user| store.list_of(user).0.iter().any(|(.., doomed)| *doomed);
        if !self.held.is_empty() || self.stage.users.iter().any(is_doomed) {
            self.revocations.disturbed.push(at);
            self.revocations.disturbed.sort_unstable();
        }
    }

    fn all_went_well(&self) -> bool {
        self.faults + self.jumps + self.crashes + self.failovers == 0
    }

    /// What a request was told about a user's sessions.
    pub(super) fn check_told_of_people(&mut self, at: usize, told: &OfPeople) -> Result<(), Violation> {
        match told {
            OfPeople::LoggedIn(user, Ok(())) => self.check_login(at, *user),
            OfPeople::LoggedIn(_, Err(Word::Refused)) => self.check_refused(at),
            OfPeople::Revoked(Ok(_)) => self.check_revoked(at),
            // Who is not logged in has no others.
            OfPeople::Revoked(Err(Word::Gone)) => Ok(()),
            OfPeople::LoggedIn(_, Err(word)) | OfPeople::Revoked(Err(word)) if self.all_went_well() => {
                violated("J4", format!("{at} was told {word:?}, and nothing went wrong"))
            }
            OfPeople::LoggedIn(..) | OfPeople::Revoked(_) => Ok(()),
        }
    }

    fn check_login(&self, at: usize, user: u8) -> Result<(), Violation> {
        let visit = &self.visits[at];
        let came_with = visit.presented.as_ref().and_then(|value| self.facts.cookies.get(value));
        let others = came_with.filter(|ticket| self.facts.dead_since(ticket).is_none());
        let story = others.and_then(|ticket| self.facts.sessions.get(&ticket.key));
        if story.and_then(|story| story.user).is_some_and(|other| other != user) {
            return violated("J5", format!("{at} logged another user in, and the session of the one before lives"));
        }
        let Some(story) = visit.ticket.as_ref().and_then(|ticket| self.facts.sessions.get(&ticket.key)) else {
            return violated("J5", format!("{at} logged in, and has no session"));
        };
        if story.user != Some(user) {
            return violated("J5", format!("{at} logged in, and the session is not that user's"));
        }
        if story.over.is_some() && !self.revocations.disturbed.contains(&at) {
            return violated(
                "J1",
                format!("{at} logged in, and nobody ended anything meanwhile, and the session is over"),
            );
        }
        Ok(())
    }

    /// A login is refused only where somebody ended something since its request arrived.
    fn check_refused(&self, at: usize) -> Result<(), Violation> {
        let arrived = self.visits[at].arrived;
        let lately = |doom: &Dooming| !doom.one && doom.at + CLOCKS_ARE_COARSE >= arrived;
        let excused = self.revocations.disturbed.contains(&at) || self.revocations.dooms.iter().any(lately);
        if excused || !self.all_went_well() {
            return Ok(());
        }
        violated("J1", format!("the login of {at} was refused, and nobody ended anything since it arrived"))
    }

    fn check_revoked(&mut self, at: usize) -> Result<(), Violation> {
        let dooms = &mut self.revocations.dooms;
        let Some(own) = dooms.iter().position(|doom| doom.by == Who::Request(at)) else { return Ok(()) };
        // The first one counts: a held copy of it may have run once more since.
        dooms[own].is_done = true;
        let doom = &dooms[own];
        let lives = |key: &SessionKey| self.facts.sessions.get(key).is_some_and(|story| story.over.is_none());
        if doom.go.iter().any(lives) {
            return violated("J1", format!("{at} ended a user's sessions, and one that lived then lives"));
        }
        let ended_by_others = self.revocations.dooms.len() > own + 1 || self.scenario.cap.is_some() || self.jumps > 0;
        let by_others = |act: Act| matches!(act, Act::LogOut | Act::Destroy | Act::Goodbye) || act.user() == Some(2);
        let somebody_leaves = self.scenario.requests.iter().any(|request| by_others(request.act));
        let stays = self.revocations.dooms[own].stays.as_ref();
        if stays.is_some_and(|key| !lives(key)) && !ended_by_others && !somebody_leaves && self.faults == 0 {
            return violated("J7", format!("{at} logged the others out, and its own session is over"));
        }
        Ok(())
    }

    /// What holds at every moment.
    pub(super) fn check_people(&self) -> Result<(), Violation> {
        if !self.scenario.has_users() {
            return Ok(());
        }
        self.check_logins_of_before()?;
        for user in &self.stage.users {
            self.check_list(user)?;
        }
        Ok(())
    }

    /// A login whose request had arrived when a user's sessions were doomed is refused, or dead.
    fn check_logins_of_before(&self) -> Result<(), Violation> {
        for doom in self.revocations.dooms.iter().filter(|doom| doom.is_done && !doom.one) {
            let number = self.stage.number_of(&doom.user);
            for at in &doom.arrived {
                let visit = &self.visits[*at];
                let is_in = visit.job.notes().of_people.contains(&OfPeople::LoggedIn(number, Ok(())));
                let key =
                    visit.ticket.as_ref().map(|ticket| &ticket.key).filter(|key| doom.stays.as_ref() != Some(key));
                let story = key.and_then(|key| self.facts.sessions.get(key));
                if is_in && story.is_some_and(|story| story.over.is_none()) {
                    return violated("J1", format!("{at} had arrived when the sessions were ended, and is logged in"));
                }
            }
        }
        Ok(())
    }

    fn check_list(&self, user: &UserKey) -> Result<(), Violation> {
        let (entries, _) = self.stage.wire.store().list_of(user);
        let (now, life) = (self.now(), Expiry::default().life());
        let longest = life.deadline(now, now, &Default::default()) + ENTRY_STAYS;
        if entries.iter().any(|(_, until, _)| *until > longest) {
            return violated("J3", "an entry stays longer than a session that is renewed now, and its minute");
        }
        let (mut in_use, is_logging_in) = (0, self.somebody_logs_in());
        for (key, story) in self.living(user) {
            let entry = entries.iter().find(|(session, ..)| *session == key.handle());
            let is_owned = self.is_owned(key, story);
            in_use += usize::from(is_owned || entry.is_some_and(|(.., doomed)| !doomed));
            match (entry, look(&self.stage.wire, key)) {
                (None, _) if !is_logging_in => {
                    return violated("J2", "a session of a user lives, and it is not in his list");
                }
                (Some((_, until, _)), Some(redis_session_core::Stored::Record(record)))
                    if *until < life.deadline(record.created, record.seen, &record.wishes) =>
                {
                    return violated("J2", "the entry of a session goes before it");
                }
                _ => {}
            }
        }
        if self.scenario.cap.is_some_and(|cap| in_use > cap) {
            return violated("J4", format!("{in_use} sessions of a user are in use"));
        }
        Ok(())
    }

    /// Whether somebody has been told that this is his session: not so one whose login found, or is to find, that it was
    /// pushed out.
    fn is_owned(&self, key: &SessionKey, story: &Story) -> bool {
        let is_in = |told: &OfPeople| matches!(told, OfPeople::LoggedIn(_, Ok(())));
        let is_his = |visit: &super::Visit| visit.ticket.as_ref().is_some_and(|ticket| ticket.key == *key);
        story.is_of_the_ground
            || self.visits.iter().any(|visit| is_his(visit) && visit.job.notes().of_people.iter().any(is_in))
    }

    fn somebody_logs_in(&self) -> bool {
        self.visits.iter().any(|visit| visit.is_running() && visit.act.logs_in().is_some()) || tasks_are_alive()
    }

    /// What holds when all is over.
    pub(super) fn check_people_at_the_end(&self) -> Result<(), Violation> {
        if !self.scenario.has_users() {
            return Ok(());
        }
        let planned = |matches: fn(Act) -> bool| self.scenario.requests.iter().any(|request| matches(request.act));
        let user = &self.stage.users[0];
        let living = self.living(user).count();
        let is_done = |told: &OfPeople| matches!(told, OfPeople::Revoked(Ok(_)));
        let told = |visit: &super::Visit| visit.job.notes().of_people.iter().any(is_done);
        let others = self.visits.iter().any(|visit| visit.act == Act::RevokeOthers && told(visit));
        let somebody_else_ends = planned(|act| {
            matches!(act, Act::LogInAs(_) | Act::LogOut | Act::Destroy | Act::Goodbye | Act::RevokeAll | Act::RevokeOne)
        });
        if others && !somebody_else_ends && living == 0 && self.jumps == 0 {
            return violated("J7", "each logged the others out, and nobody is left");
        }
        if !self.all_went_well() {
            return Ok(());
        }
        // A login that enters late is refused when it hears so, and leaves the entry of a session that is not its alone.
        let is_refused = |told: &OfPeople| matches!(told, OfPeople::LoggedIn(_, Err(Word::Refused)));
        let refused = self.visits.iter().any(|visit| visit.job.notes().of_people.iter().any(is_refused));
        for user in self.stage.users.iter().filter(|_| !refused) {
            let (entries, _) = self.stage.wire.store().list_of(user);
            let lives = |session: &SessionHandle| self.living(user).any(|(key, _)| key.handle() == *session);
            let mut counted = entries.iter().filter(|(.., doomed)| !doomed);
            if counted.any(|(session, ..)| !lives(session) && !self.was_rotated_under_a_login(session)) {
                return violated("J4", "an entry without a session counts for the cap");
            }
        }
        // Where others end sessions too, a login that is refused may have ended another one for the cap before.
        if planned(|act| matches!(act, Act::LogOut | Act::RevokeAll | Act::RevokeOne | Act::RevokeOthers)) {
            return Ok(());
        }
        let reasons = self.facts.sessions.values().filter(|story| story.user == Some(1)).filter_map(|s| s.reason);
        let (by_cap, otherwise): (Vec<_>, Vec<_>) =
            reasons.filter(|reason| *reason != Reason::Refused).partition(|reason| *reason == Reason::Cap);
        let (entries, _) = self.stage.wire.store().list_of(user);
        let is_left =
            |(session, _, doomed): &&(SessionHandle, Time, bool)| !doomed && self.was_rotated_under_a_login(session);
        let counted = living + entries.iter().filter(is_left).count();
        if !by_cap.is_empty() && otherwise.is_empty() && self.scenario.cap.is_some_and(|cap| counted < cap) {
            return violated("J4", format!("{living} sessions are left, and others were ended for the cap"));
        }
        Ok(())
    }

    /// Whether the entry of this session is one that a login has left: nobody's session, rotated since the login has entered
    /// it. Another login may be entering it under its newer id, so the entry is not for the first one to take away, and it
    /// counts for the cap.
    fn was_rotated_under_a_login(&self, session: &SessionHandle) -> bool {
        let story = self.facts.sessions.iter().find(|(key, _)| key.handle() == *session).map(|(_, story)| story);
        story.is_some_and(|story| story.over.is_none() && story.user.is_none() && story.proofs.len() > 1)
    }

    /// A visitor who was logged in when he came, with a cookie that is good, is shown so.
    pub(super) fn check_seen(&self, at: usize) -> Result<(), Violation> {
        let visit = &self.visits[at];
        let Some(None) = visit.job.notes().seen else { return Ok(()) };
        let came_with = visit.presented.as_ref().and_then(|value| self.facts.cookies.get(value));
        let good = came_with.filter(|ticket| self.facts.dead_since(ticket).is_none());
        let story = good.and_then(|ticket| self.facts.sessions.get(&ticket.key));
        if story.is_some_and(|story| story.is_of_the_ground && story.user.is_some() && story.logged_in == Some(0)) {
            return violated("I7", format!("{at} came with a good cookie, and was not logged in"));
        }
        Ok(())
    }

    /// A process dies: what its requests have begun goes nowhere.
    pub(super) fn crash(&mut self, process: usize) {
        self.crashes += 1;
        self.died = Some(process);
        for at in 0..self.visits.len() {
            if self.process(at) != process || !self.visits[at].is_running() {
                continue;
            }
            if let Progress::Running(answering) = std::mem::replace(&mut self.visits[at].progress, Progress::Crashed) {
                // Not dropped here, where it would go on in a task.
                self.graves.push(answering);
            }
            self.stage.wire.calls().retain(|call| call.who != Who::Request(at));
        }
    }

    /// Which processes can die now: between two commands.
    pub(super) fn mortals(&self) -> impl Iterator<Item = usize> {
        let may = self.crashes < self.scenario.budget.crashes && !tasks_are_alive();
        let is_at_work = |process: usize| {
            (0..self.visits.len())
                .any(|at| self.visits[at].is_running() && self.process(at) == process && self.has_a_call(at))
        };
        (0..2).filter(move |process| may && is_at_work(*process))
    }

    pub(super) fn hash_people(&self, hasher: &mut impl Hasher) {
        if !self.scenario.has_users() {
            return;
        }
        (&self.revocations, self.crashes).hash(hasher);
        let store = self.stage.wire.store();
        for user in &self.stage.users {
            store.list_of(user).hash(hasher);
        }
    }
}
