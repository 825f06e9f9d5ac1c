//! Explores what requests, a store that loses and holds packets, browsers and time can do to each other: all of it, on
//! the real layer, working copy, plan and store in memory.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod acts;
mod facts;
mod gate;
mod mutants;
mod scenario;
mod search;
mod suite;
mod wire;
mod world;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use scenario::Scenario;
use search::{Finding, Tally, explore};

/// Rules are taken out for the whole process: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_invariants_hold_in_all_schedules() {
    let _alone = alone();
    let (begun, mut all, mut findings) = (Instant::now(), Tally::default(), Vec::new());
    let is_wanted = |of: &str, text: &str| std::env::var(of).map_or(true, |only| text.contains(&only));
    for (name, mut scenarios) in suite::suite() {
        scenarios.retain(|scenario| is_wanted("EXPLORE_SCENARIO", &scenario.to_string()));
        if !is_wanted("EXPLORE_ONLY", name) || scenarios.is_empty() {
            continue;
        }
        let begun = Instant::now();
        let (part, mut broken) = explore_all(name, &scenarios);
        println!("{name}: {part} in {:.1?}", begun.elapsed());
        all.add(&part);
        findings.append(&mut broken);
    }
    println!("in all: {all} in {:.1?}; {} scenarios break an invariant", begun.elapsed(), findings.len());
    findings.sort_by_key(|finding| (finding.violation.what.clone(), finding.trace.len()));
    findings.dedup_by_key(|finding| finding.violation.what.clone());
    let text: Vec<String> = findings.iter().map(|finding| finding.to_string()).collect();
    assert!(text.is_empty(), "{}", text.join("\n"));
}

/// Explores them in as many threads as there are processors. A large exploration takes long, so what is found is told
/// at once, and how far it has come.
fn explore_all(name: &str, scenarios: &[Scenario]) -> (Tally, Vec<Finding>) {
    let (next, explored) = (AtomicUsize::new(0), Mutex::new((Tally::default(), Vec::new())));
    let work = || {
        while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = explore(scenario);
            let (tally, findings) = &mut *explored.lock().unwrap();
            match outcome {
                Ok(part) => tally.add(&part),
                Err(finding) => {
                    println!("{finding}");
                    tally.add(&finding.tally);
                    findings.push(*finding);
                }
            }
            if tally.scenarios % 100 == 0 {
                println!("{name}, of {}: {tally}", scenarios.len());
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    explored.into_inner().unwrap()
}
