//! What can happen next in a schedule.

use std::fmt;
use std::time::Duration;

use crate::wire::Who;

use super::visit::{Progress, Visit};
use super::{DEADLINE, World, tasks_are_alive};

/// Leaps past every `not_after`, past the life of a tombstone, past the idle timeout.
const LEAPS: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(61), Duration::from_secs(32 * 60)];
const PAST_STRICT: Duration = Duration::from_secs(6 * 60);

/// Something that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A browser sends a request.
    Start(usize),
    /// A handler goes on.
    GoOn(usize),
    /// A handler takes its time.
    Dawdle(usize),
    /// Something becomes of a call to the store.
    Call(usize, Fate),
    /// A packet that was held arrives.
    Release(usize),
    /// An answer arrives at its browser. One that is lost is one that arrives when all else is over.
    Deliver(usize),
    /// A client goes away before its answer.
    Abandon(usize),
    /// Time leaps.
    Jump(Duration),
    /// Whoever pauses before he sends again has paused long enough.
    Pause,
    /// So many of the last writes are undone.
    Failover(usize),
    /// A process dies.
    Crash(usize),
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It runs, unless it has, and its reply arrives.
    Reply,
    /// It runs, and its reply takes its time.
    Run,
    /// It runs, and the connection breaks.
    LoseReply,
    /// It runs, and nobody answers until the deadline.
    TimeOut,
    /// The connection breaks, and the packet is on its way yet.
    Hold,
    /// Nobody answers until the deadline, and the packet is on its way yet.
    HoldLong,
    /// It is not sent.
    Refuse,
}

impl World<'_> {
    /// What can happen now. Nothing, if all is over.
    pub(crate) fn actions(&self) -> Vec<Action> {
        // Whether a handler takes its time is decided before anything else happens.
        if let Some(at) = self.visits.iter().position(|visit| visit.is_at_gate() && !visit.dawdles()) {
            return vec![Action::GoOn(at), Action::Dawdle(at)];
        }
        let (budget, may_leap) = (self.scenario.budget, self.may_leap());
        let may_fail = self.faults + self.jumps < budget.both && self.faults < budget.faults;
        let mut actions = self.fates(may_fail);
        actions.extend(self.startable().map(Action::Start));
        for (at, visit) in self.visits.iter().enumerate() {
            if matches!(visit.progress, Progress::Answered(_)) {
                actions.push(Action::Deliver(at));
            }
            // Without a leap it would be as if it had gone on at once.
            if visit.dawdles() && (!may_leap || visit.dawdles_since < Some(self.jumps)) {
                actions.push(Action::GoOn(at));
            }
        }
        actions.extend((0..self.held.len()).map(Action::Release));
        if self.may_pause(actions.is_empty()) {
            actions.push(Action::Pause);
        }
        if actions.is_empty() && !self.visits.iter().any(Visit::dawdles) {
            return actions;
        }
        if may_fail {
            let running = |at: &usize| self.visits[*at].is_running();
            actions.extend((0..self.visits.len()).filter(running).map(Action::Abandon));
        }
        if may_leap && !self.somebody_waits() {
            actions.extend(LEAPS.into_iter().chain(self.scenario.stricter.then_some(PAST_STRICT)).map(Action::Jump));
        }
        actions.extend(self.mortals().map(Action::Crash));
        if self.failovers < budget.failovers {
            // The ground is there on all replicas.
            actions.extend((1..self.log.len()).map(Action::Failover));
        }
        actions
    }

    /// Whether a pause may end next, before the deadline of any call. A task's, which may have a turn that others wait for,
    /// where nothing else can happen.
    fn may_pause(&self, nothing_else: bool) -> bool {
        let waits = |visit: &Visit| visit.is_running() && !visit.is_at_gate();
        let dawdling = self.visits.iter().any(Visit::dawdles);
        let for_tasks = self.visits.iter().any(waits) || dawdling && tasks_are_alive();
        let for_requests = self.pausing() > 0 && self.time_left().is_none_or(|left| left > Duration::ZERO);
        for_requests || nothing_else && for_tasks
    }

    fn fates(&self, may_fail: bool) -> Vec<Action> {
        let mut actions = Vec::new();
        let calls = self.stage.wire.calls();
        let first = calls.iter().map(|call| call.asked).min();
        for (at, call) in calls.iter().enumerate() {
            actions.push(Action::Call(at, Fate::Reply));
            if !may_fail || call.ran.is_some() {
                continue;
            }
            actions.extend([Fate::Refuse, Fate::Run].map(|fate| Action::Call(at, fate)));
            if !call.op.only_reads() {
                actions.extend([Fate::LoseReply, Fate::Hold].map(|fate| Action::Call(at, fate)));
            }
            // Those that were made before it are answered before.
            if !call.op.only_reads() && Some(call.asked) == first {
                actions.extend([Fate::TimeOut, Fate::HoldLong].map(|fate| Action::Call(at, fate)));
            }
        }
        actions
    }

    /// Whether time may leap in what is left of the schedule.
    pub(super) fn may_leap(&self) -> bool {
        let budget = self.scenario.budget;
        self.faults + self.jumps < budget.both && self.jumps < budget.jumps
    }

    /// Whether a call, a pause or a queue has a deadline, so that time cannot leap: the store answers within its own.
    fn somebody_waits(&self) -> bool {
        self.time_left().is_some() || self.somebody_pauses()
    }

    /// Whether somebody goes on by himself when time passes.
    pub(super) fn somebody_pauses(&self) -> bool {
        self.pausing() > 0 || !self.waiting.is_empty() || tasks_are_alive()
    }

    /// Until the first deadline of a call. `None`: there is no call.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let first = self.stage.wire.calls().iter().map(|call| call.asked).min();
        first.map(|asked| (asked + DEADLINE).since(self.now()))
    }

    /// Of requests that are the same, the first goes first.
    fn startable(&self) -> impl Iterator<Item = usize> {
        let plan = &self.scenario.requests;
        let same = |one: usize, other: usize| plan[one] == plan[other] && self.process(one) == self.process(other);
        let not_yet = |at: usize| !self.visits[at].started();
        (0..plan.len()).filter(move |at| not_yet(*at) && !(0..*at).any(|before| not_yet(before) && same(before, *at)))
    }

    /// For a trace.
    pub(crate) fn describe(&self, action: Action) -> String {
        match action {
            Action::Start(at) => format!("{at} {:?} is sent", self.visits[at].act),
            Action::GoOn(at) => format!("{at} goes on"),
            Action::Dawdle(at) => format!("{at} takes its time"),
            Action::Call(at, fate) => {
                let call = &self.stage.wire.calls()[at];
                match call.who {
                    Who::Request(who) => format!("{who} {}: {fate}", call.op.name()),
                    Who::Background => format!("a task's {}: {fate}", call.op.name()),
                }
            }
            Action::Release(at) => match self.held[at].who {
                Who::Request(who) => format!("{who} {}: the held one arrives", self.held[at].op.name()),
                Who::Background => format!("a task's {}: the held one arrives", self.held[at].op.name()),
            },
            Action::Deliver(at) => format!("the answer to {at} arrives"),
            Action::Abandon(at) => format!("the client of {at} goes away"),
            Action::Jump(by) => format!("{by:?} pass"),
            Action::Pause => "a pause".to_owned(),
            Action::Crash(process) => format!("process {process} dies"),
            Action::Failover(undone) => format!("a failover takes {undone} writes back"),
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reply => "answered",
            Self::Run => "runs, its reply is slow",
            Self::LoseReply => "runs, its reply is lost",
            Self::TimeOut => "runs, no reply in time",
            Self::Hold => "held, the connection breaks",
            Self::HoldLong => "held, no reply in time",
            Self::Refuse => "not sent",
        })
    }
}
