//! Explores what requests, a store that loses and holds packets, browsers and time can do to each other: all of it, on
//! the real layer, working copy, plan and store in memory.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod acts;
mod facts;
mod mutants;
mod scenario;
mod search;
mod suite;
mod wire;
mod world;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use search::{Tally, explore};

/// Rules are taken out for the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_invariants_hold_in_all_schedules() {
    let _alone = alone();
    let (begun, mut all, mut findings) = (Instant::now(), Tally::default(), Vec::new());
    for (name, scenarios) in suite::suite() {
        let (begun, mut part) = (Instant::now(), Tally::default());
        for scenario in &scenarios {
            match explore(scenario) {
                Ok(tally) => part.add(&tally),
                Err(finding) => findings.push(finding),
            }
        }
        println!("{name}: {part} in {:.1?}", begun.elapsed());
        all.add(&part);
    }
    println!("in all: {all} in {:.1?}; {} scenarios break an invariant", begun.elapsed(), findings.len());
    findings.sort_by_key(|finding| (finding.violation.what.clone(), finding.trace.len()));
    findings.dedup_by_key(|finding| finding.violation.what.clone());
    let text: Vec<String> = findings.iter().map(|finding| finding.to_string()).collect();
    assert!(text.is_empty(), "{}", text.join("\n"));
}
