//! What is explored: who asks for what, on which ground, and how much may go wrong.

use std::fmt;

use crate::acts::Act;

/// What there is when the requests begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Every browser has the cookie of one living session. With two browsers it was planted by the second one.
    Living,
    /// The same, and its idle timeout is due to be renewed.
    Aged,
    /// No browser has a cookie.
    Nothing,
    /// The cookie of a session that has ended just now.
    JustEnded,
    /// A cookie of ours whose id the store does not know.
    Unknown,
    /// Every browser has the cookie of a session of user 1. With two browsers each has one of its own.
    User,
    /// The same, and the user has one more session.
    UserTwice,
    /// The browsers have the cookie of a session of nobody, and user 1 has one elsewhere.
    Elsewhere,
    /// No browser has a cookie, and user 1 has a session.
    Away,
}

/// A request that is to come, and from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) act: Act,
    pub(crate) browser: usize,
}

/// How much may go wrong in one schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Calls that fail, lose their reply, are held, are slow or time out; requests whose client goes away.
    pub(crate) faults: u8,
    /// Leaps of time, while handlers take theirs.
    pub(crate) jumps: u8,
    /// Of both together.
    pub(crate) both: u8,
    /// Writes that a failover undoes.
    pub(crate) failovers: u8,
    /// Processes that die.
    pub(crate) crashes: u8,
}

/// What is explored, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) ground: Ground,
    pub(crate) requests: Vec<Planned>,
    pub(crate) budget: Budget,
    /// Whether the requests go to two processes in turn.
    pub(crate) apart: bool,
    /// Whether the second process has a shorter idle timeout.
    pub(crate) stricter: bool,
    /// Whether the generator gives the second request the id that it gave the first one.
    pub(crate) repeats_ids: bool,
    /// Whether the idle timeouts of users' sessions are due to be renewed.
    pub(crate) aged: bool,
    /// The most sessions that a user may have. `None`: any number.
    pub(crate) cap: Option<usize>,
    /// Whether the ids of users' sessions are renewed, and due to be.
    pub(crate) renews: bool,
}

impl Scenario {
    /// Of one browser's requests.
    pub(crate) fn new(ground: Ground, acts: &[Act]) -> Self {
        let requests = acts.iter().map(|act| Planned { act: *act, browser: 0 }).collect();
        let budget = Budget::default();
        Self {
            ground,
            requests,
            budget,
            apart: false,
            stricter: false,
            repeats_ids: false,
            aged: false,
            cap: None,
            renews: false,
        }
    }

    /// A victim's requests, and those of an attacker who has planted the cookie of his session.
    pub(crate) fn fixation(victim: &[Act], attacker: &[Act]) -> Self {
        let mut scenario = Self::new(Ground::Living, victim);
        scenario.requests.extend(attacker.iter().map(|act| Planned { act: *act, browser: 1 }));
        scenario
    }

    pub(crate) fn faults(mut self, faults: u8) -> Self {
        self.budget.faults = faults;
        self.budget.both = self.budget.both.max(faults);
        self
    }

    pub(crate) fn jumps(mut self, jumps: u8) -> Self {
        self.budget.jumps = jumps;
        self.budget.both += jumps;
        self
    }

    /// So many faults and jumps in all.
    pub(crate) fn both(mut self, both: u8) -> Self {
        self.budget = Budget { faults: both, jumps: both, both, ..self.budget };
        self
    }

    pub(crate) fn failovers(mut self, failovers: u8) -> Self {
        self.budget.failovers = failovers;
        self
    }

    pub(crate) fn crashes(mut self, crashes: u8) -> Self {
        self.budget.crashes = crashes;
        self
    }

    pub(crate) fn aged(self) -> Self {
        Self { aged: true, ..self }
    }

    pub(crate) fn cap(self, cap: usize) -> Self {
        Self { cap: Some(cap), ..self }
    }

    pub(crate) fn renews(self) -> Self {
        Self { aged: true, renews: true, ..self }
    }

    /// Whether it is about users, so that their lists matter.
    pub(crate) fn has_users(&self) -> bool {
        use Ground::{Away, Elsewhere, User, UserTwice};
        let grounds = matches!(self.ground, User | UserTwice | Elsewhere | Away);
        grounds || self.requests.iter().any(|request| request.act.user().is_some())
    }

    pub(crate) fn apart(self) -> Self {
        Self { apart: true, ..self }
    }

    pub(crate) fn stricter(self) -> Self {
        Self { apart: true, stricter: true, ..self }
    }

    pub(crate) fn two_visitors(mut self) -> Self {
        self.requests.iter_mut().enumerate().for_each(|(browser, request)| request.browser = browser);
        self
    }

    pub(crate) fn repeats_ids(self) -> Self {
        Self { repeats_ids: true, ..self }
    }

    pub(crate) fn browsers(&self) -> usize {
        self.requests.iter().map(|request| request.browser + 1).max().unwrap_or(1)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, request) in self.requests.iter().enumerate() {
            let between = if at == 0 { "" } else { " | " };
            let whose = if request.browser == 0 { "" } else { "the other's " };
            write!(f, "{between}{whose}{:?}", request.act)?;
        }
        let Budget { faults, jumps, both, failovers, crashes } = self.budget;
        write!(f, " on {:?}", self.ground)?;
        write!(f, ", {faults} faults, {jumps} jumps, {both} in all")?;
        if failovers > 0 {
            write!(f, ", {failovers} failovers")?;
        }
        if crashes > 0 {
            write!(f, ", {crashes} crashes")?;
        }
        if let Some(cap) = self.cap {
            write!(f, ", a cap of {cap}")?;
        }
        for (is, what) in [
            (self.aged, "aged"),
            (self.renews, "with timed renewal"),
            (self.apart, "two processes"),
            (self.stricter, "one of them stricter"),
            (self.repeats_ids, "ids that repeat"),
        ] {
            if is {
                write!(f, ", {what}")?;
            }
        }
        Ok(())
    }
}
