//! R100: whether the time that a forged cookie takes tells where its tag is wrong, after dudect (Reparaz et al., 2017).
//!
//! `cargo bench --bench timing` prints Welch's t of cookies whose tag is wrong in its first byte against those where it is
//! the last one. Under 4.5 nothing can be told. On one processor of a machine that has nothing else to do, please:
//! `taskset -c 1 cargo bench --bench timing`. The last line is the check of the check: a comparison that stops at the
//! first difference, whose t must be far above.

#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::hint::black_box;
use std::time::Instant;

use redis_session_core::{Error, KeyRing, Random, SessionId};

/// Above this a difference is taken for real.
const TELLING: f64 = 4.5;
/// Samples of a round.
const ROUND: usize = 6_400;

fn main() -> Result<(), Error> {
    // `cargo test --benches` only looks whether it runs.
    let samples = if std::env::args().any(|arg| arg == "--bench") { 2_000_000 } else { ROUND };
    let signer = KeyRing::random()?.signer("main", "__Host-id");
    let random = Random::system();
    let right = signer.sign(&SessionId::random(&random)?).into_bytes();
    let wrong_at = |at: usize| {
        let mut value = right.clone();
        value[at] = if value[at] == b'A' { b'B' } else { b'A' };
        value
    };
    // The tag is the last 22 characters; the last one of all has bits that must be zero.
    let [first, last] = [right.len() - 22, right.len() - 2].map(wrong_at);
    let verify = |value: &[u8]| drop(black_box(signer.verify(black_box(value))));
    let (t, by) = compare(&random, samples, [&first, &last], verify)?;
    println!("verify: |t| = {t:.2} in {samples} samples, the means are {by:.2} ns apart; {}", told(t));
    let naive = |value: &[u8]| {
        black_box(stops_early(black_box(&right), black_box(value)));
    };
    let (t, by) = compare(&random, samples, [&first, &last], naive)?;
    println!("one that stops at the first difference: |t| = {t:.2}, {by:.2} ns; {}", told(t));
    Ok(())
}

fn told(t: f64) -> &'static str {
    if t < TELLING { "nothing can be told" } else { "the times differ" }
}

/// How sure it is that two inputs take different times: the t of many short rounds, in which a machine is much the same
/// from beginning to end, put together (Stouffer's method).
fn compare(random: &Random, samples: usize, inputs: [&[u8]; 2], run: impl Fn(&[u8])) -> Result<(f64, f64), Error> {
    let rounds = samples.div_ceil(ROUND);
    let (mut sum, mut apart) = (0.0, 0.0);
    for _ in 0..rounds {
        let (t, by) = round(random, inputs, &run)?;
        sum += t;
        apart += by;
    }
    Ok((sum.abs() / (rounds as f64).sqrt(), apart.abs() / rounds as f64))
}

/// Welch's t of one round, its inputs drawn in a random order, and how far the means are apart.
fn round(random: &Random, inputs: [&[u8]; 2], run: impl Fn(&[u8])) -> Result<(f64, f64), Error> {
    let mut times = [Vec::with_capacity(ROUND), Vec::with_capacity(ROUND)];
    let mut input = inputs[0].to_vec();
    for _ in 0..ROUND / 64 {
        let order = u64::from_le_bytes(random.array()?);
        for bit in 0..64 {
            let class = usize::from(order >> bit & 1 == 1);
            // In the same place in memory, whichever it is.
            input.copy_from_slice(inputs[class]);
            let begun = Instant::now();
            run(&input);
            times[class].push(begun.elapsed().as_nanos() as f64);
        }
    }
    // What an interrupt has lengthened says nothing about the code.
    let mut all: Vec<f64> = times.iter().flatten().copied().collect();
    all.sort_unstable_by(f64::total_cmp);
    let most = all[all.len() * 9 / 10];
    let [one, other] = times.map(|times| Moments::of(times.into_iter().filter(|time| *time <= most)));
    let error = (one.variance / one.count + other.variance / other.count).sqrt().max(f64::MIN_POSITIVE);
    Ok(((one.mean - other.mean) / error, one.mean - other.mean))
}

struct Moments {
    count: f64,
    mean: f64,
    variance: f64,
}

impl Moments {
    fn of(times: impl Iterator<Item = f64>) -> Self {
        let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
        for time in times {
            count += 1.0;
            let off = time - mean;
            mean += off / count;
            squares += off * (time - mean);
        }
        Self { count, mean, variance: squares / (count - 1.0) }
    }
}

#[inline(never)]
fn stops_early(right: &[u8], value: &[u8]) -> bool {
    right.iter().zip(value).all(|(a, b)| a == b)
}
