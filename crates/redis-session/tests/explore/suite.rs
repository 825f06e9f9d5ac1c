//! Which scenarios are explored: a bounded set by default, a larger one by hand.
//!
//! `EXPLORE_PAIRS` and `EXPLORE_TRIPLES` say how much may go wrong in a schedule of two and of three requests (faults and
//! leaps of time together). By default 1 and 0; three requests are then of the main kinds only. On two processors that
//! were not idle, measured:
//!
//! - the default: 1,476 scenarios, 3,284,858 states; 54 seconds in a release build, 66 seconds of processor time as the
//!   tests are built.
//! - `EXPLORE_PAIRS=2`: the first 900 of the 1,003 scenarios of two requests, 59,132,068 states in 15 minutes in a release
//!   build.
//! - `EXPLORE_TRIPLES=1`: 20 of the 2,907 scenarios of three requests, drawn by chance, 2,140,132 states.

use crate::acts::Act;
use crate::scenario::{Ground, Scenario};

/// Requests of every kind.
const EVERY: [Act; 17] = [
    Act::Read,
    Act::Insert,
    Act::Increment,
    Act::Push,
    Act::Transaction,
    Act::Rotate,
    Act::LogIn,
    Act::Destroy,
    Act::Goodbye,
    Act::Save,
    Act::SaveMore,
    Act::SaveRefresh,
    Act::Refresh,
    Act::Touch,
    Act::TouchMore,
    Act::Remember,
    Act::Fail,
];

/// Those of which three are explored by default.
const MAIN: [Act; 11] = [
    Act::Read,
    Act::Insert,
    Act::Increment,
    Act::Push,
    Act::Transaction,
    Act::LogIn,
    Act::Destroy,
    Act::Goodbye,
    Act::SaveMore,
    Act::Touch,
    Act::Remember,
];

/// Those that are only worth while beside another one.
const SPECIAL: [Act; 5] = [Act::Count, Act::Text, Act::Number, Act::FourSaves, Act::FourTouches];

const GROUNDS: [Ground; 5] = [Ground::Living, Ground::Aged, Ground::Nothing, Ground::JustEnded, Ground::Unknown];

/// All scenarios, in parts that have names.
pub(crate) fn suite() -> Vec<(&'static str, Vec<Scenario>)> {
    let (pairs, triples) = (setting("EXPLORE_PAIRS"), setting("EXPLORE_TRIPLES"));
    let acts: &[Act] = if triples.is_some() { &EVERY } else { &MAIN };
    vec![
        ("two requests", two(pairs.unwrap_or(1))),
        ("three requests", three(acts, triples.unwrap_or(0))),
        ("a planted cookie", fixation(pairs.unwrap_or(1))),
        ("of their own kind", single()),
    ]
}

fn setting(name: &str) -> Option<u8> {
    std::env::var(name).ok().map(|value| value.parse().expect("a small number"))
}

fn two(budget: u8) -> Vec<Scenario> {
    let mut all = Vec::new();
    for (one, other) in pairs(&EVERY) {
        all.extend(GROUNDS.map(|ground| Scenario::new(ground, &[one, other]).both(budget)));
        // Two processes have two queues, which matter only where there is one session.
        all.push(Scenario::new(Ground::Living, &[one, other]).both(budget).apart());
    }
    for special in SPECIAL {
        all.extend(EVERY.map(|other| Scenario::new(Ground::Living, &[other, special]).both(budget).apart()));
    }
    all
}

fn three(acts: &[Act], budget: u8) -> Vec<Scenario> {
    let mut all = Vec::new();
    for (at, one) in acts.iter().enumerate() {
        for (two, three) in pairs(&acts[at..]) {
            all.push(Scenario::new(Ground::Living, &[*one, two, three]).both(budget));
            if budget > 0 {
                all.push(Scenario::new(Ground::Living, &[*one, two, three]).both(budget).apart());
                all.push(Scenario::new(Ground::Nothing, &[*one, two, three]).both(budget));
            }
        }
    }
    all
}

/// An attacker has planted the cookie of his session into the victim's browser.
fn fixation(budget: u8) -> Vec<Scenario> {
    let mut all = Vec::new();
    for attack in EVERY {
        for victim in [Act::Rotate, Act::LogIn] {
            all.push(Scenario::fixation(&[victim], &[attack]).both(budget));
            all.push(Scenario::fixation(&[victim], &[attack]).both(budget).apart());
        }
    }
    all.extend(pairs(&MAIN).map(|(one, other)| Scenario::fixation(&[Act::LogIn], &[one, other])));
    all
}

/// What needs more to go wrong, or other settings.
fn single() -> Vec<Scenario> {
    let writers = [Act::Insert, Act::Increment, Act::Push, Act::Transaction, Act::Save];
    let mut all = vec![
        Scenario::new(Ground::Nothing, &[Act::Insert, Act::Destroy]).both(2),
        Scenario::new(Ground::Living, &[Act::Increment, Act::Destroy]).both(2),
        Scenario::new(Ground::Living, &[Act::LogIn, Act::Push]).both(2),
        Scenario::new(Ground::Living, &[Act::Rotate, Act::Goodbye]).both(2),
        Scenario::fixation(&[Act::Rotate], &[Act::Remember]).both(2).apart(),
        Scenario::new(Ground::Living, &[Act::Count, Act::Text, Act::Number]).faults(1).apart(),
    ];
    for act in EVERY {
        all.push(Scenario::new(Ground::Living, &[Act::Read, act]).jumps(1).stricter());
    }
    for (one, other) in pairs(&writers) {
        all.push(Scenario::new(Ground::Nothing, &[one, other]).two_visitors().repeats_ids());
        all.push(Scenario::new(Ground::Living, &[one, other]).faults(1).failovers(1).apart());
    }
    all
}

/// Every two of them, in one order, and each beside itself.
fn pairs(acts: &[Act]) -> impl Iterator<Item = (Act, Act)> {
    acts.iter().enumerate().flat_map(|(at, one)| acts[at..].iter().map(|other| (*one, *other)))
}
