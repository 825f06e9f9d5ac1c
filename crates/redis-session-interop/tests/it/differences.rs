//! tower-sessions on its Redis store beside its extractor on our layer: the same handlers, the same requests. The tables in
//! `docs/tower-sessions-differences.md` are what is found here.

#![allow(clippy::print_stdout)]

use std::fmt::Write as _;

use futures_util::stream::{self, StreamExt as _};

mod answers;
mod commands;
mod cookies;
mod handler;
mod lives;
mod methods;
mod outages;
mod parallel;
mod script;
mod sides;
mod values;

use script::{Seen, Step, run};
use sides::{Setting, Side};

/// Cases that are looked at side by side.
const AT_ONCE: usize = 2;
/// How often a case is looked at again, alone, before what is wrong with it counts: a busy machine makes anybody late.
const TRIES: usize = 2;

/// Requests, what they must come to on our layer, and how tower-sessions compares.
struct Case {
    what: &'static str,
    setting: Setting,
    steps: Vec<Step>,
    ours: &'static str,
    verdict: Verdict,
    /// What handlers of `Session<T>` get. `None`: they are not asked.
    typed: Option<&'static str>,
    /// Whether ours may answer with a 5xx, since Redis fails or a value is refused.
    may_fail: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    /// Ours is better, and why.
    Ours(&'static str),
    /// Another choice: what follows from it.
    Choice(&'static str),
    /// Theirs is better, or we lack it.
    Theirs(&'static str),
}

use Verdict::{Choice, Ours, Same, Theirs};

fn case(what: &'static str, steps: impl Into<Vec<Step>>, ours: &'static str, verdict: Verdict) -> Case {
    let (setting, steps) = (Setting::HalfAnHour, steps.into());
    Case { what, setting, steps, ours, verdict, typed: None, may_fail: false }
}

impl Case {
    fn setting(self, setting: Setting) -> Self {
        Self { setting, ..self }
    }

    fn typed(self, typed: &'static str) -> Self {
        Self { typed: Some(typed), ..self }
    }

    fn may_fail(self) -> Self {
        Self { may_fail: true, ..self }
    }
}

/// Each part of the page, with its cases.
fn parts() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        ("The methods", methods::cases()),
        ("Values", values::cases()),
        ("At the same time", parallel::cases()),
        ("Cookies", cookies::cases()),
        ("What a handler answers", answers::cases()),
        ("Commands to Redis", commands::cases()),
        ("How long a session lives", lives::cases()),
        ("When Redis or a record fails", outages::cases()),
    ]
}

/// What both sides have shown of a case.
struct Row {
    theirs: Seen,
    ours: Seen,
    typed: Option<Seen>,
}

async fn look_at(setting: Setting, steps: Vec<Step>, typed: bool) -> Row {
    let theirs = run(Side::Theirs, setting, &steps).await;
    let ours = run(Side::Ours, setting, &steps).await;
    let typed = if typed { Some(run(Side::Typed, setting, &steps).await) } else { None };
    Row { theirs, ours, typed }
}

impl Case {
    /// What is wrong with what was seen: nothing of ours may fail, lose, revive or differ unnamed.
    fn faults(&self, row: &Row) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |what: String| faults.push(format!("{}: {what}", self.what));
        if row.ours.text != self.ours {
            fault(format!("ours shows {:?}, not {:?}", row.ours.text, self.ours));
        }
        if (row.theirs.text == row.ours.text) != (self.verdict == Same) {
            fault(format!("theirs shows {:?}, ours {:?}", row.theirs.text, row.ours.text));
        }
        if !self.may_fail && !row.ours.failures.is_empty() {
            fault(format!("ours fails: {:?}", row.ours.failures));
        }
        if row.typed.as_ref().map(|typed| &*typed.text) != self.typed {
            fault(format!("Session<T> shows {:?}, not {:?}", row.typed.as_ref().map(|typed| &typed.text), self.typed));
        }
        faults
    }

    fn line(&self, row: &Row) -> String {
        let cell = |text: &str| if text.is_empty() { "well".to_owned() } else { text.replace('|', "\\|") };
        let ours = match &row.typed {
            Some(typed) => format!("{}; with `Session<T>`: {}", cell(&row.ours.text), cell(&typed.text)),
            None => cell(&row.ours.text),
        };
        let verdict = match self.verdict {
            Same => "same".to_owned(),
            Ours(why) => format!("**ours**: {why}"),
            Choice(why) => format!("**another choice**: {why}"),
            Theirs(why) => format!("**theirs**: {why}"),
        };
        format!("| {} | {} | {ours} | {verdict} |", self.what, cell(&row.theirs.text))
    }
}

/// `WRITE_DIFFERENCES=1` writes the page anew.
#[tokio::test(flavor = "multi_thread")]
async fn each_difference_to_tower_sessions_is_known_and_none_of_ours_fails_loses_or_revives() {
    let parts = parts();
    let cases = || parts.iter().flat_map(|(_, cases)| cases);
    let only = std::env::var("ONLY_DIFFERENCE").unwrap_or_default();
    let chosen: Vec<&Case> = cases().filter(|case| case.what.contains(&only)).collect();
    let runs: Vec<_> = chosen.iter().map(|case| (case.setting, case.steps.clone(), case.typed.is_some())).collect();
    let mut rows: Vec<Row> = stream::iter(runs)
        .map(|(setting, steps, typed)| tokio::spawn(look_at(setting, steps, typed)))
        .buffered(AT_ONCE)
        .map(Result::unwrap)
        .collect()
        .await;
    for (case, row) in chosen.iter().zip(&mut rows) {
        for _ in 0..TRIES {
            let faults = case.faults(row);
            if faults.is_empty() {
                break;
            }
            println!("once more: {}", faults.join("; "));
            *row = look_at(case.setting, case.steps.clone(), case.typed.is_some()).await;
        }
    }
    let faults: Vec<String> = chosen.iter().zip(&rows).flat_map(|(case, row)| case.faults(row)).collect();
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), rows.len(), faults.join("\n"));
    if !only.is_empty() {
        return;
    }

    let mut tables = summary(&chosen);
    let mut rows = rows.iter();
    for (name, cases) in &parts {
        write!(tables, "\n## {name}\n\n{HEAD}").unwrap();
        for (case, row) in cases.iter().zip(&mut rows) {
            writeln!(tables, "{}", case.line(row)).unwrap();
        }
    }
    println!("{}", tables.lines().next().unwrap_or_default());
    compare_with_the_page(&tables);
}

const HEAD: &str = "| what | tower-sessions | redis-session | |\n| --- | --- | --- | --- |\n";

fn summary(cases: &[&Case]) -> String {
    let count = |is: fn(Verdict) -> bool| cases.iter().filter(|case| is(case.verdict)).count();
    format!(
        "{} cases: {} the same, {} where ours is the better answer, {} another choice, {} where theirs is better or ours \
         lacks something.\n",
        cases.len(),
        count(|verdict| verdict == Same),
        count(|verdict| matches!(verdict, Ours(_))),
        count(|verdict| matches!(verdict, Choice(_))),
        count(|verdict| matches!(verdict, Theirs(_))),
    )
}

fn compare_with_the_page(tables: &str) {
    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/tower-sessions-differences.md");
    let page = std::fs::read_to_string(PATH).unwrap();
    let (head, rest) = page.split_once(BEGIN).expect("the beginning of the tables");
    let (_, tail) = rest.split_once(END).expect("the end of the tables");
    let wanted = format!("{head}{BEGIN}{tables}{END}{tail}");
    if std::env::var("WRITE_DIFFERENCES").is_ok() {
        std::fs::write(PATH, wanted).unwrap();
    } else {
        assert_eq!(page, wanted, "the page is not what was found: WRITE_DIFFERENCES=1 writes it anew");
    }
}

const BEGIN: &str = "<!-- The beginning of what tests/it/differences.rs of redis-session-interop found. -->\n\n";
const END: &str = "\n<!-- The end of what it found. -->\n";
