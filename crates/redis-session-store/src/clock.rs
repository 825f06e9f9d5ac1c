//! Redis's clock, as this process knows it: the difference to our own monotonic one, from the `TIME`s of the last seconds.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis_session_core::Time;

/// How many samples are kept: four seconds' worth of one client's.
const KEPT: usize = 16;
/// Not known yet.
const UNKNOWN: i64 = i64::MIN;

/// Redis's clock. Cheap to read.
pub(crate) struct ServerClock {
    /// Where our own monotonic time begins.
    start: Instant,
    /// Redis's time at `start`, in microseconds.
    offset: AtomicI64,
    samples: Mutex<VecDeque<Sample>>,
}

/// What one answer says: Redis's time at `start` was `offset`, give or take `error`. All in microseconds.
#[derive(Clone, Copy)]
struct Sample {
    offset: i64,
    error: i64,
}

impl Default for ServerClock {
    fn default() -> Self {
        Self { start: Instant::now(), offset: AtomicI64::new(UNKNOWN), samples: Mutex::default() }
    }
}

impl ServerClock {
    /// Whether there was an answer yet.
    pub(crate) fn is_known(&self) -> bool {
        self.offset.load(Ordering::Relaxed) != UNKNOWN
    }

    /// What it shows. `None`: no answer yet.
    pub(crate) fn now(&self) -> Option<Time> {
        self.micros().map(|micros| Time::from_millis(u64::try_from(micros / 1000).unwrap_or(0)))
    }

    /// A moment of this clock by another one. The same where one of them is not known.
    pub(crate) fn by_clock(&self, other: &Self, moment: Time) -> Time {
        let (ours, theirs) = (self.micros(), other.micros());
        let (Some(ours), Some(theirs)) = (ours, theirs) else { return moment };
        let ahead = Duration::from_micros(theirs.abs_diff(ours));
        if moment == Time::MAX {
            moment
        } else if theirs >= ours {
            moment + ahead
        } else {
            moment - ahead
        }
    }

    /// What it shows, in microseconds.
    fn micros(&self) -> Option<i64> {
        let offset = self.offset.load(Ordering::Relaxed);
        (offset != UNKNOWN).then(|| offset.saturating_add(micros(self.start.elapsed())))
    }

    /// Learns from a server that showed `at` (in microseconds) at some moment between `sent` and now.
    pub(crate) fn learn(&self, at: i64, sent: Instant) {
        let (trip, sent) = (micros(sent.elapsed()), micros(sent.saturating_duration_since(self.start)));
        // A millisecond more: scripts tell whole milliseconds only.
        let sample = Sample { offset: at.saturating_sub(sent + trip / 2), error: trip / 2 + 1000 };
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be true together means that the clock was set, or that another server answers now.
        samples.retain(|old| old.offset.abs_diff(sample.offset) <= old.error.saturating_add(sample.error) as u64);
        samples.truncate(KEPT - 1);
        samples.push_front(sample);
        if let Some(best) = samples.iter().min_by_key(|sample| sample.error) {
            self.offset.store(best.offset, Ordering::Relaxed);
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_800_000_000_000_000;

    fn shows(clock: &ServerClock, micros: i64) -> bool {
        clock.now().is_some_and(|now| now.as_millis().abs_diff(micros as u64 / 1000) < 20)
    }

    #[test]
    fn it_is_unknown_until_the_first_answer() {
        let clock = ServerClock::default();
        assert_eq!(clock.now(), None);
        clock.learn(AT, Instant::now());
        assert!(shows(&clock, AT));
    }

    #[test]
    fn a_slow_answer_does_not_move_it_and_a_jump_is_taken_over_at_once() {
        let clock = ServerClock::default();
        clock.learn(AT, Instant::now());
        let Some(long_ago) = Instant::now().checked_sub(Duration::from_millis(200)) else { return };
        clock.learn(AT, long_ago); // the middle of the trip would be 100 ms off
        assert!(shows(&clock, AT));
        for jump in [3_600_000_000, -7_200_000_000, 50_000] {
            clock.learn(AT + jump, Instant::now());
            assert!(shows(&clock, AT + jump), "{jump}");
        }
    }

    #[test]
    fn a_moment_of_one_server_is_told_by_the_clock_of_another() {
        let [ours, theirs, unknown] = [(); 3].map(|()| ServerClock::default());
        ours.learn(AT, Instant::now());
        let moment = Time::from_millis(5_000_000);
        for ahead in [3_600_000_i64, -2_000, 0] {
            theirs.learn(AT + ahead * 1000, Instant::now());
            let told = ours.by_clock(&theirs, moment).as_millis();
            assert!(told.abs_diff((5_000_000 + ahead) as u64) < 20, "{ahead}: {told}");
            assert_eq!(ours.by_clock(&theirs, Time::MAX), Time::MAX);
        }
        assert_eq!(ours.by_clock(&unknown, moment), moment);
        assert_eq!(unknown.by_clock(&ours, moment), moment);
    }

    #[test]
    fn no_answer_makes_it_panic() {
        let clock = ServerClock::default();
        for at in [i64::MIN, i64::MAX, 0, -1, AT] {
            clock.learn(at, Instant::now());
            let _ = clock.now();
        }
    }
}
