//! What became of the chaos: printed, and held against what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis_session_core::User as UserId;
use redis_session_testkit::Cluster;

use super::faults::{Fault, Happened, culprit};
use super::life::{Life, Loss, Lost, State, Wrong, is_of};
use super::user::{Answer, User};

/// How soon after the last fault everybody must have had a good answer.
const SERVED_AGAIN: Duration = Duration::from_secs(3);

pub(super) struct Chaos {
    pub(super) cluster: Arc<Cluster>,
    pub(super) users: Vec<User>,
    pub(super) happened: Vec<Happened>,
    /// The end of the last fault.
    pub(super) over: Instant,
}

impl Chaos {
    pub(super) fn print(&self) {
        let faults = counted(self.happened.iter().map(|fault| fault.fault));
        println!("{} faults: {faults}", self.happened.len());
        self.print_answers();
        let (made, unknown) = self.lives().map(Life::edits).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        println!("{} sessions: {}", self.lives().count(), counted(self.lives().map(|life| life.state.name())));
        println!("{made} edits acknowledged or seen, {unknown} of unknown outcome and not seen");
        let wrong = |kind: &Wrong| format!("{kind:?} {}", self.wrong().filter(|(wrong, _)| wrong == kind).count());
        println!("wrong: {}", Wrong::ALL.iter().map(wrong).collect::<Vec<_>>().join(", "));
        let lost = self.losses().map(|loss| match self.culprit(loss) {
            Some(fault) => format!("{:?} by {fault:?}", loss.what),
            None => format!("{:?} by nobody", loss.what),
        });
        println!("lost: {}", counted(lost));
        println!("everybody was served again {:.0?} after the last fault", self.served_again());
    }

    fn print_answers(&self) {
        let statuses = counted(self.answers().map(|answer| answer.status));
        println!("{} users had {} answers: {statuses}", self.users.len(), self.answers().count());
        for asked in self.answers().map(|answer| answer.asked).collect::<BTreeSet<_>>() {
            let answers = self.answers().filter(|answer| answer.asked == asked);
            let mut took: Vec<_> = answers.map(|answer| answer.took).collect();
            took.sort();
            let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
            println!("  {asked:?}: {}, median {median:.0?}, longest {longest:.0?}", took.len());
        }
    }

    /// What holds whatever the servers lose.
    pub(super) fn nothing_is_wrong(&self) {
        let wrong: Vec<_> = self.wrong().collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(self.served_again() < SERVED_AGAIN, "{:?}", self.served_again());
        let living = self.lives().filter(|life| life.state == State::Alive).count();
        let records = self.records();
        assert!(living > 0 && records >= living, "{records} of {living}");
    }

    /// What servers acknowledge before their replicas have it goes with them, and nothing else is lost.
    pub(super) fn every_loss_is_a_failover_s(&self) {
        let unexplained = self.losses().filter(|loss| self.culprit(loss).is_none());
        let unexplained: Vec<_> = unexplained.map(Loss::to_string).collect();
        assert!(unexplained.is_empty(), "{unexplained:#?}");
    }

    /// What was on all replicas when it was acknowledged is there, whichever server was lost.
    pub(super) fn nothing_acknowledged_is_lost(&self) {
        let lost = self.losses().filter(|loss| loss.what != Lost::FailedLogOut);
        let lost: Vec<_> = lost.map(|loss| format!("{loss}, {:?}", self.culprit(loss))).collect();
        assert!(lost.is_empty(), "{lost:#?}");
    }

    pub(super) fn losses(&self) -> impl Iterator<Item = &Loss> {
        self.lives().flat_map(|life| &life.losses)
    }

    fn wrong(&self) -> impl Iterator<Item = &(Wrong, String)> {
        self.users.iter().flat_map(|user| &user.wrong).chain(self.lives().flat_map(|life| &life.wrong))
    }

    fn lives(&self) -> impl Iterator<Item = &Life> {
        self.users.iter().flat_map(|user| &user.lives)
    }

    fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.users.iter().flat_map(|user| &user.answers)
    }

    /// After how long the last user had his first good answer; panics if one has none.
    fn served_again(&self) -> Duration {
        let first = |user: &User| {
            let mut good = user.answers.iter().filter(|answer| answer.status == 200 && answer.at >= self.over);
            good.next().unwrap_or_else(|| panic!("{} is not served any more", user.name)).at - self.over
        };
        self.users.iter().map(first).max().unwrap()
    }

    /// Which fault explains a loss: one that lost writes to its session's slot at that time, or to that of its user's
    /// list.
    fn culprit(&self, loss: &Loss) -> Option<Fault> {
        let user = UserId::new(&loss.user).unwrap().key(&"main".into()).to_text();
        let slot = |key: String| self.cluster.slot_of(&key);
        let (session, list) = (slot(format!("sess:main:{}", loss.handle)), slot(format!("sess:{user}")));
        let written = |slot| loss.acknowledged.iter().rev().map(move |at| (slot, *at));
        let entered = loss.entered.map(|at| (list, at));
        let mut times = written(session).chain(written(list)).chain(entered);
        times.find_map(|(slot, at)| culprit(&self.happened, slot, at))
    }

    /// How many records of sessions with a user there are, also of those to which nobody has a cookie; panics if one is
    /// not all one session's.
    fn records(&self) -> usize {
        let is_primary = |role: &str| role == "master";
        let nodes = self.cluster.nodes().iter();
        let mut records = 0;
        for node in nodes.filter(|node| is_primary(&node.run(&["ROLE"]).list()[0].text())) {
            let keys = node.run(&["KEYS", "sess:main:*"]).texts();
            for key in keys.iter().filter(|key| !key.starts_with("sess:main:user:")) {
                let record = node.run(&["HGETALL", key]).map();
                let (Some(user), Some(life)) = (record.get("@user"), record.get("life")) else { continue };
                let (user, life) = (user.rsplit(' ').next(), serde_json::from_str::<String>(life).unwrap());
                let tags = record.get("tags").map_or("[]", String::as_str);
                let tags: Vec<String> = serde_json::from_str(tags).unwrap();
                assert_eq!(life.split('.').next(), user, "{key}: {record:?}");
                assert!(tags.iter().all(|tag| is_of(tag, &life)), "{key}: {record:?}");
                records += 1;
            }
        }
        records
    }
}

/// How many there are of each.
fn counted<T: Debug + Ord>(all: impl Iterator<Item = T>) -> String {
    let mut counts = BTreeMap::<T, usize>::new();
    all.for_each(|one| *counts.entry(one).or_default() += 1);
    let counts: Vec<_> = counts.iter().map(|(one, count)| format!("{count} {one:?}").replace('"', "")).collect();
    if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") }
}
