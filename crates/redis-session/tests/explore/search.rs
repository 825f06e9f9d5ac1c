//! Goes through all schedules of a scenario, depth first, each run from its beginning; what was reached before is left.

use std::collections::HashSet;
use std::fmt;

use tokio::runtime::{Builder, Runtime};

use crate::facts::Violation;
use crate::scenario::Scenario;
use crate::world::{Stage, World};

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) scenarios: u64,
    /// Different states.
    pub(crate) states: u64,
    /// Schedules that were run.
    pub(crate) schedules: u64,
    /// Those of them that went to their end, and did not lead to what was known.
    pub(crate) to_the_end: u64,
    /// The most steps of one schedule.
    pub(crate) longest: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.scenarios += other.scenarios;
        self.states += other.states;
        self.schedules += other.schedules;
        self.to_the_end += other.to_the_end;
        self.longest = self.longest.max(other.longest);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenarios, states, schedules, to_the_end, longest } = self;
        write!(
            f,
            "{scenarios} scenarios, {states} states, {schedules} schedules run, {to_the_end} of them to a new end, "
        )?;
        write!(f, "the longest of {longest} steps")
    }
}

/// A schedule that breaks an invariant.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) scenario: String,
    pub(crate) violation: Violation,
    pub(crate) trace: Vec<String>,
    pub(crate) tally: Tally,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, violation, trace, tally } = self;
        writeln!(f, "{} breaks: {} ({} schedules, {scenario})", violation.invariant, violation.what, tally.schedules)?;
        trace.iter().try_for_each(|step| writeln!(f, "    {step}"))
    }
}

/// Where a schedule turned at each of its steps.
struct Turn {
    taken: usize,
    of: usize,
}

/// Looks at all schedules of a scenario.
pub(crate) fn explore(scenario: &Scenario) -> Result<Tally, Box<Finding>> {
    let stage = Stage::new(scenario);
    let mut search = Search { scenario, path: Vec::new(), known: HashSet::new(), tally: Tally::default() };
    search.tally.scenarios = 1;
    let mut runtime = paused_runtime();
    loop {
        // Dropped outside the runtime: what its requests have begun does not go on in tasks.
        let mut world = World::new(scenario, &stage);
        let run = runtime.block_on(tokio::task::unconstrained(search.run(&mut world)));
        drop(world);
        if runtime.metrics().num_alive_tasks() > 0 {
            runtime = paused_runtime();
        }
        if let Err(violation) = run {
            let (scenario, trace, tally) = (scenario.to_string(), search.retell(&stage), search.tally);
            return Err(Box::new(Finding { scenario, violation, trace, tally }));
        }
        if !search.turn() {
            search.tally.states = search.known.len() as u64;
            return Ok(search.tally);
        }
    }
}

fn paused_runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

struct Search<'a> {
    scenario: &'a Scenario,
    path: Vec<Turn>,
    known: HashSet<u64>,
    tally: Tally,
}

impl Search<'_> {
    /// Runs the schedule that the path begins, and goes straight on from its end.
    async fn run(&mut self, world: &mut World<'_>) -> Result<(), Violation> {
        self.tally.schedules += 1;
        for depth in 0.. {
            let actions = world.actions();
            if depth == self.path.len() {
                if !self.known.insert(world.fingerprint()) {
                    return Ok(());
                }
                if actions.is_empty() {
                    world.hangs()?;
                    self.tally.to_the_end += 1;
                    self.tally.longest = self.tally.longest.max(depth);
                    return Ok(());
                }
                self.path.push(Turn { taken: 0, of: actions.len() });
            }
            let turn = &self.path[depth];
            assert_eq!(turn.of, actions.len(), "a schedule that is run again goes the same way");
            world.carry_out(actions[turn.taken]).await?;
            // What was run before was looked at then.
            if depth + 1 == self.path.len() {
                world.check_edits()?;
            }
        }
        Ok(())
    }

    /// Turns to the next schedule. Answers whether there is one.
    fn turn(&mut self) -> bool {
        while let Some(last) = self.path.last_mut() {
            last.taken += 1;
            if last.taken < last.of {
                return true;
            }
            self.path.pop();
        }
        false
    }

    /// The steps of the path in words.
    fn retell(&self, stage: &Stage) -> Vec<String> {
        let mut world = World::new(self.scenario, stage);
        let mut trace = Vec::new();
        paused_runtime().block_on(tokio::task::unconstrained(async {
            for turn in &self.path {
                let action = world.actions()[turn.taken];
                trace.push(world.describe(action));
                // The last one breaks the invariant again.
                let _ = world.carry_out(action).await;
            }
        }));
        trace
    }
}
