//! How long and how hard, from environment variables.

use std::env;

use crate::contender::Contender;
use crate::load::Route;

pub(crate) struct Settings {
    /// `BENCH_ROUNDS`: in each, every contender serves every route once. Default: 11.
    pub(crate) rounds: usize,
    /// `BENCH_REQUESTS`: of a contender, route and round. Default: 6,000.
    pub(crate) requests: usize,
    /// `BENCH_CONNECTIONS`. Default: 16.
    pub(crate) connections: usize,
    /// `BENCH_VISITORS`: sessions of each contender. Default: 64.
    pub(crate) visitors: usize,
    /// `BENCH_ONLY`: the names of those to measure. `BENCH_ALSO`: more of them, as `name=path of a program`.
    pub(crate) contenders: Vec<Contender>,
    /// `BENCH_ROUTES`: one of them alone is what a profiler wants to see.
    pub(crate) routes: Vec<Route>,
}

impl Settings {
    /// With few requests where it is only to be seen that all of it works: as a test, as `cargo test` runs it.
    pub(crate) fn from_env(to_measure: bool) -> Result<Self, String> {
        let (rounds, requests) = if to_measure { (11, 6_000) } else { (1, 160) };
        Ok(Self {
            rounds: number("BENCH_ROUNDS", rounds)?,
            requests: number("BENCH_REQUESTS", requests)?,
            connections: number("BENCH_CONNECTIONS", 16)?,
            visitors: number("BENCH_VISITORS", 64)?,
            contenders: contenders()?,
            routes: routes()?,
        })
    }
}

fn contenders() -> Result<Vec<Contender>, String> {
    let mut contenders = Contender::all();
    match Contender::peers() {
        Some(peers) => contenders.extend(peers),
        None => println!(
            "The other libraries are left out; they are built by: \
             cargo build --release --locked --manifest-path benches/peers/Cargo.toml"
        ),
    }
    for also in list("BENCH_ALSO") {
        let (name, program) =
            also.split_once('=').ok_or_else(|| format!("BENCH_ALSO takes name=program, not {also:?}"))?;
        contenders.push(Contender::of_program(name, program));
    }
    let only = list("BENCH_ONLY");
    if let Some(unknown) = only.iter().find(|name| contenders.iter().all(|contender| contender.name != **name)) {
        return Err(format!("BENCH_ONLY names {unknown:?}, which is no contender"));
    }
    contenders.retain(|contender| only.is_empty() || only.contains(&contender.name));
    Ok(contenders)
}

fn routes() -> Result<Vec<Route>, String> {
    let only = list("BENCH_ROUTES");
    if let Some(unknown) = only.iter().find(|name| Route::ALL.iter().all(|route| route.name() != **name)) {
        return Err(format!("BENCH_ROUTES names {unknown:?}, which is no route"));
    }
    let wanted = |route: &Route| only.is_empty() || only.iter().any(|name| name == route.name());
    Ok(Route::ALL.into_iter().filter(wanted).collect())
}

/// Words with commas or spaces between them.
fn list(variable: &str) -> Vec<String> {
    let words = env::var(variable).unwrap_or_default();
    words.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn number(variable: &str, default: usize) -> Result<usize, String> {
    let Ok(text) = env::var(variable) else { return Ok(default) };
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{variable} takes a number above 0, not {text:?}")),
    }
}
