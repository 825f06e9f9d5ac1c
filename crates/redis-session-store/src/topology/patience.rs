//! How long callers wait for a server that is away: its first moments, in which another may take over, are waited out.
//! Later ones are answered at once, so that an outage does not cost every request a deadline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The first pause before another try, doubled each time.
const FIRST: Duration = Duration::from_millis(5);
/// The longest.
const LONGEST: Duration = Duration::from_millis(20);

/// Since when a server was found away.
#[derive(Default)]
pub(crate) struct Absence {
    since: Mutex<Option<Instant>>,
    /// Whether there is such a time: every good answer asks, and many share this line of memory.
    noted: AtomicBool,
    /// Whether it was well when it was looked at last.
    was_well: AtomicBool,
}

impl Absence {
    /// It is away. Says for how long already.
    fn note(&self) -> Duration {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        self.noted.store(true, Ordering::Relaxed);
        since.elapsed()
    }

    /// For how long it has been away. Zero: it is not.
    pub(crate) fn lasts(&self) -> Duration {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// It is back.
    pub(crate) fn over(&self) {
        if self.noted.load(Ordering::Relaxed) {
            self.noted.store(false, Ordering::Relaxed);
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// It was looked at. One that answers the health check, and goes on refusing what it is asked, is not back.
    pub(crate) fn looked(&self, well: bool) {
        if !self.was_well.swap(well, Ordering::Relaxed) && well {
            self.over();
        }
    }
}

/// One caller's patience.
pub(crate) struct Patience {
    by: Instant,
    pause: Duration,
    /// For how long after a server's going callers wait.
    longest: Duration,
}

impl Patience {
    /// With an operation's deadline, and the time in which another server may take over.
    pub(crate) fn new(by: Instant, longest: Duration) -> Self {
        Self { by, pause: FIRST, longest }
    }

    /// Waits a moment for a server that is away. `false`: it is no use to wait longer.
    pub(crate) async fn wait(&mut self, absence: &Absence) -> bool {
        if absence.note() >= self.longest || Instant::now() + self.pause >= self.by {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = LONGEST.min(self.pause * 2);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_moments_of_an_absence_are_waited_out_and_later_ones_are_not() {
        let absence = Absence::default();
        let longest = Duration::from_millis(60);
        let begun = Instant::now();
        let mut first = Patience::new(begun + Duration::from_secs(9), longest);
        while first.wait(&absence).await {}
        assert!(begun.elapsed() >= longest, "{:?}", begun.elapsed());
        let second = Instant::now();
        assert!(!Patience::new(second + Duration::from_secs(9), longest).wait(&absence).await);
        absence.over();
        assert!(Patience::new(second + Duration::from_secs(9), longest).wait(&absence).await);
    }

    #[tokio::test]
    async fn nobody_waits_beyond_his_deadline() {
        let absence = Absence::default();
        let by = Instant::now() + Duration::from_millis(40);
        let mut patience = Patience::new(by, Duration::from_secs(9));
        while patience.wait(&absence).await {}
        assert!(Instant::now() <= by + Duration::from_millis(30));
    }
}
