//! Decides what must happen to a session once the handler is done. Pure: no store, no clock, no cookie.

use std::time::Duration;

use crate::expiry::Life;
use crate::id::Proof;
use crate::record::{Reason, Record, ReplacedBy, Stored, Tombstone};
use crate::rules::Rule;
use crate::time::Time;
use crate::user::User;

/// App servers' and Redis's clocks are compared nowhere; this is what a failover to another Redis may differ by.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// What a request's id led to.
#[derive(Clone, Debug)]
pub enum Found {
    /// The request came without an id of ours.
    Absent,
    /// Nothing is stored for the id.
    Gone,
    /// A record past its deadline, or from the future: to be ended.
    Expired,
    /// The session ended; `lately` if less than a minute before the request arrived.
    Ended {
        /// Why.
        reason: Reason,
        /// Whether another answer may still be on its way to this browser.
        lately: bool,
    },
    /// The proof was replaced; `lately` as above.
    Replaced {
        /// Whether another answer may still be on its way to this browser.
        lately: bool,
        /// What is known of the proof that took its place. `None`: nothing.
        by: Option<Successor>,
    },
    /// A living session.
    Alive(Box<Record>),
}

/// What took the place of a request's proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Successor {
    /// That of this user's login, less than a minute before the request arrived: this may be his second click.
    Login(User),
    /// That of a timed renewal, which its visitor has come back with since, and whose grace was over when the request
    /// arrived: somebody has kept a copy of this user's cookie.
    Renewal(User),
}

/// How long the old proof is good after the one of a timed renewal was seen.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// What the stored record means for a request that shows this proof.
///
/// `now` is the store's time, `waited` how long ago the request arrived: ages count back from its arrival, so that a
/// slow request does not see its minute pass while it waits.
pub fn look_at(stored: Option<Stored>, proof: Proof, life: &Life, now: Option<Time>, waited: Duration) -> Found {
    let lately = |since: Time| {
        let waited = if Rule::AgesCountFromArrival.holds() { waited } else { Duration::ZERO };
        Rule::DeadIdsCreateNothing.holds() && now.is_none_or(|now| (now - waited).since(since) < Tombstone::STAYS)
    };
    let record = match stored {
        // Since it arrived, a tombstone may have come and gone.
        None if waited >= Tombstone::STAYS && Rule::AgesCountFromArrival.holds() => {
            return Found::Ended { reason: Reason::Expired, lately: true };
        }
        None => return Found::Gone,
        Some(Stored::Ended(Tombstone { reason, at })) => return Found::Ended { reason, lately: lately(at) },
        Some(Stored::Record(record)) => record,
    };
    if now.is_some_and(|now| !stands(&record, life, now)) {
        return Found::Expired;
    }
    if record.proof == proof || !Rule::ProofIsCheckedAtLoad.holds() {
        return Found::Alive(Box::new(record));
    }
    let within = |time, since: Time| now.is_none_or(|now| (now - waited).since(since) < time);
    let previous = record.previous.filter(|previous| previous.proof == proof);
    let by = match (previous.map(|previous| (previous.by, previous.at)), record.user().cloned()) {
        (Some((ReplacedBy::Renewal, _)), _) => return Found::Alive(Box::new(record)),
        (Some((ReplacedBy::SeenRenewal, at)), _) if within(GRACE, at) => return Found::Alive(Box::new(record)),
        (Some((ReplacedBy::SeenRenewal, _)), Some(user)) => Some(Successor::Renewal(user)),
        (Some((ReplacedBy::Login, at)), Some(user)) if within(Tombstone::STAYS, at) => Some(Successor::Login(user)),
        _ => None,
    };
    Found::Replaced { lately: lately(record.replaced()), by }
}

/// Whether a record is neither past its deadline nor from the future.
pub(crate) fn stands(record: &Record, life: &Life, now: Time) -> bool {
    let past = life.deadline(record.created, record.seen, &record.wishes) <= now;
    let expired = past && Rule::DeadlinesAreChecked.holds();
    let from_the_future = record.created > now + CLOCK_TOLERANCE || record.seen > now + CLOCK_TOLERANCE;
    !expired && !from_the_future
}

/// What a request wants, once its handler is done or has asked for a save.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Its edits lead to other fields, or to other wishes of the session.
    pub changed: bool,
    /// It asked for a save by name, and is told how it ended.
    pub asked: bool,
    /// The answer is one whose edits are not kept (a 5xx, by default).
    pub dropped: bool,
    /// The idle timeout is due to be renewed.
    pub touch_due: bool,
}

/// What must happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: no command, no cookie.
    Nothing,
    /// A new session, with a new id and its cookie.
    Create,
    /// The living one is saved.
    Save,
    /// Its idle timeout is renewed, and no more.
    Touch,
    /// The edits are dropped.
    Drop(Why),
}

/// Why edits are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The answer's status says that the request failed.
    Failed,
    /// The session ended or its id was replaced lately: a new cookie would take the place of the one that replaced it.
    Dead,
}

impl Plan {
    /// Decides.
    pub fn decide(found: &Found, wish: Wish) -> Self {
        let wanted = wish.changed || wish.asked;
        match found {
            _ if wish.dropped && wish.changed => Self::Drop(Why::Failed),
            _ if wish.dropped => Self::Nothing,
            Found::Alive(_) if wish.changed => Self::Save,
            Found::Alive(_) if wish.touch_due || wish.asked => Self::Touch,
            Found::Alive(_) => Self::Nothing,
            Found::Ended { lately: true, .. } | Found::Replaced { lately: true, .. } if wanted => Self::Drop(Why::Dead),
            _ if wanted => Self::Create,
            _ => Self::Nothing,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::expiry::{Expiry, Wishes};
    use crate::fields::Fields;
    use crate::id::SessionId;
    use crate::random::Random;
    use crate::record::{Token, Tokens};

    pub(crate) fn record(at: Time, id: &SessionId) -> Record {
        Record {
            tokens: Tokens::first(Token::random(&Random::system()).unwrap()),
            proof: id.proof(),
            proved: at,
            previous: None,
            created: at,
            seen: at,
            wishes: Wishes::default(),
            login: None,
            fields: Fields::default(),
        }
    }

    #[test]
    fn the_plan_is_this_table() {
        let at = Time::from_millis(1 << 40);
        let id = SessionId::random(&Random::system()).unwrap();
        let alive = Found::Alive(Box::new(record(at, &id)));
        let lately = Found::Ended { reason: Reason::Destroyed, lately: true };
        let long_ago = Found::Ended { reason: Reason::Destroyed, lately: false };
        let replaced = Found::Replaced { lately: true, by: None };
        let replaced_before = Found::Replaced { lately: false, by: None };
        let nothing = Wish::default();
        let changed = Wish { changed: true, ..nothing };
        let asked = Wish { asked: true, ..nothing };
        let due = Wish { touch_due: true, ..nothing };
        let failed = Wish { changed: true, dropped: true, touch_due: true, ..nothing };
        use Plan::*;
        let table = [
            //                 nothing  changed         asked           due      failed
            (&alive, [Nothing, Save, Touch, Touch, Drop(Why::Failed)]),
            (&Found::Absent, [Nothing, Create, Create, Nothing, Drop(Why::Failed)]),
            (&Found::Gone, [Nothing, Create, Create, Nothing, Drop(Why::Failed)]),
            (&Found::Expired, [Nothing, Create, Create, Nothing, Drop(Why::Failed)]),
            (&lately, [Nothing, Drop(Why::Dead), Drop(Why::Dead), Nothing, Drop(Why::Failed)]),
            (&long_ago, [Nothing, Create, Create, Nothing, Drop(Why::Failed)]),
            (&replaced, [Nothing, Drop(Why::Dead), Drop(Why::Dead), Nothing, Drop(Why::Failed)]),
            (&replaced_before, [Nothing, Create, Create, Nothing, Drop(Why::Failed)]),
        ];
        for (found, plans) in table {
            for (wish, plan) in [nothing, changed, asked, due, failed].into_iter().zip(plans) {
                assert_eq!(Plan::decide(found, wish), plan, "{found:?} {wish:?}");
            }
        }
        let dropped = Wish { dropped: true, touch_due: true, ..nothing };
        assert_eq!(Plan::decide(&alive, dropped), Nothing);
    }

    #[test]
    fn ages_count_back_from_the_arrival() {
        let at = Time::from_millis(1 << 40);
        let proof = SessionId::random(&Random::system()).unwrap().proof();
        let life = Expiry::default().life();
        let ended = || Some(Stored::Ended(Tombstone { reason: Reason::Destroyed, at }));
        let second = Duration::from_secs(1);
        for (now, waited, expected) in [
            (at + 59 * second, Duration::ZERO, true),
            (at + 61 * second, Duration::ZERO, false),
            (at + 61 * second, 5 * second, true),
            (at + 61 * second, 120 * second, true),
        ] {
            let found = look_at(ended(), proof, &life, Some(now), waited);
            assert!(matches!(found, Found::Ended { lately, .. } if lately == expected), "{now:?} {waited:?} {found:?}");
        }
    }

    #[test]
    fn what_a_request_does_not_find_after_a_minute_may_have_ended_after_its_arrival() {
        let (at, proof) = (Time::from_millis(1 << 40), SessionId::random(&Random::system()).unwrap().proof());
        let look = |waited| look_at(None, proof, &Expiry::default().life(), Some(at), waited);
        assert!(matches!(look(Duration::from_secs(59)), Found::Gone));
        let lately = Found::Ended { reason: Reason::Expired, lately: true };
        assert_eq!(format!("{:?}", look(Duration::from_secs(60))), format!("{lately:?}"));
    }

    #[test]
    fn r57_a_record_past_its_deadline_or_from_the_future_is_expired() {
        let at = Time::from_millis(1 << 40);
        let id = SessionId::random(&Random::system()).unwrap();
        let life = Expiry::default().life();
        let minute = Duration::from_secs(60);
        let look = |now| look_at(Some(Stored::Record(record(at, &id))), id.proof(), &life, Some(now), Duration::ZERO);
        assert!(matches!(look(at), Found::Alive(_)));
        assert!(matches!(look(at - 4 * minute), Found::Alive(_)));
        assert!(matches!(look(at - 6 * minute), Found::Expired));
        assert!(matches!(look(at + 30 * minute), Found::Alive(_)));
        assert!(matches!(look(at + 31 * minute), Found::Expired));
    }
}
