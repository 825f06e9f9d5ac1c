//! Whether a server answers: a breaker. What opens it is evidence from commands and from the health check; what closes it
//! is an answered health check and nothing else, so no crowd of requests tries whether a server is well again.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::server::Failure;

/// So many commands in a row without an answer are evidence. A single slow one is not: its own reply may be large.
const SILENT: u32 = 3;
/// The least time between two looks: what is asked for in between is looked at together.
const BREATH: Duration = Duration::from_millis(10);
/// A health check is not less patient than this, however short the deadline of an operation is.
const LEAST: Duration = Duration::from_millis(50);
/// A silent server is known after this, where that is sooner than a third of the deadline.
const USUAL: Duration = Duration::from_secs(1);

/// The health of one connection's server. Closed (well) at first.
pub(crate) struct Health {
    /// How long a health check may take.
    pub(crate) patience: Duration,
    /// Commands in a row that waited for so long in vain.
    silent: AtomicU32,
    open: AtomicBool,
    /// A reply was not one to its command.
    doubted: AtomicBool,
    /// Wakes who looks after the connection.
    look: Notify,
}

impl Health {
    /// For operations with this deadline. An answer that is slower than that is of no use to any. Who has more time than
    /// usual waits for a busy machine; two checks in vain, after which the connection is made anew, leave him a third of it
    /// to ask again.
    pub(crate) fn new(deadline: Duration) -> Self {
        let patience = (deadline / 3).max(deadline.clamp(LEAST, USUAL));
        let (silent, open, doubted) = (AtomicU32::new(0), AtomicBool::new(false), AtomicBool::new(false));
        Self { patience, silent, open, doubted, look: Notify::new() }
    }

    /// Whether nothing is to be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether the last command that counts waited in vain.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed) > 0
    }

    /// Takes note of what a command that was sent then came to.
    pub(crate) fn note<T>(&self, answer: &Result<T, Failure>, sent: Instant) {
        match answer {
            // A caller that gave up sooner has seen nothing yet.
            Err(Failure::Silent(_)) if sent.elapsed() >= self.patience * 3 / 4 => {
                if self.silent.fetch_add(1, Ordering::Relaxed) + 1 == SILENT {
                    self.open.store(true, Ordering::Relaxed);
                    self.look.notify_one();
                }
            }
            // Of a lost connection the client itself knows.
            Err(Failure::Silent(_) | Failure::NotSent(_) | Failure::Lost(_)) => {}
            // Not a write each time: many share this line of memory.
            Ok(_) | Err(Failure::Refused(_) | Failure::Elsewhere(_) | Failure::Odd)
                if self.silent.load(Ordering::Relaxed) == 0 => {}
            Ok(_) | Err(Failure::Refused(_) | Failure::Elsewhere(_) | Failure::Odd) => {
                self.silent.store(0, Ordering::Relaxed)
            }
        }
    }

    /// The health check was answered in time. Tells whether that is news.
    pub(crate) fn well(&self) -> bool {
        self.silent.store(0, Ordering::Relaxed);
        self.open.swap(false, Ordering::Relaxed)
    }

    /// The health check was not answered in time. Tells whether that is news.
    pub(crate) fn unwell(&self) -> bool {
        !self.open.swap(true, Ordering::Relaxed)
    }

    /// A reply belonged to another command, or a record to another key: the connection may be out of step.
    pub(crate) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
        self.look.notify_one();
    }

    /// Whether there was a doubt since it was last asked.
    pub(crate) fn take_doubt(&self) -> bool {
        self.doubted.swap(false, Ordering::Relaxed)
    }

    /// Waits until it is time to look again, or until there is a reason.
    pub(crate) async fn until_due(&self, every: Duration) {
        tokio::time::sleep(BREATH).await;
        // Whichever it was, now is the time.
        let _ = tokio::time::timeout(every, self.look.notified()).await;
    }
}

/// Why nothing was sent to a server that is connected.
#[derive(Debug)]
pub(crate) struct Unwell;

impl fmt::Display for Unwell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it does not answer its health check")
    }
}

impl std::error::Error for Unwell {}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_millis(250);

    fn silent() -> Result<(), Failure> {
        Err(Failure::Silent(None))
    }

    fn ago(waited: Duration) -> Instant {
        Instant::now().checked_sub(waited).unwrap()
    }

    #[test]
    fn three_commands_in_a_row_without_an_answer_open_it_and_only_the_health_check_closes_it() {
        let health = Health::new(DEADLINE);
        for _ in 0..2 {
            for _ in 0..2 {
                health.note(&silent(), ago(DEADLINE));
                assert!(!health.is_open());
            }
            health.note(&Ok(()), ago(DEADLINE));
        }
        for _ in 0..3 {
            health.note(&silent(), ago(DEADLINE));
        }
        assert!(health.is_open());
        health.note(&Ok(()), ago(DEADLINE));
        assert!(health.is_open(), "it was sent before");
        assert!(health.well() && !health.is_open() && !health.well());
        assert!(health.unwell() && health.is_open() && !health.unwell());
    }

    #[test]
    fn what_proves_nothing_does_not_open_it() {
        let health = Health::new(DEADLINE);
        for _ in 0..10 {
            health.note(&silent(), ago(DEADLINE / 2));
            health.note::<()>(&Err(Failure::Lost(None)), ago(DEADLINE));
            health.note::<()>(&Err(Failure::NotSent(None)), ago(DEADLINE));
            health.note::<()>(&Err(Failure::Refused("LOADING")), ago(DEADLINE));
        }
        assert!(!health.is_open());
    }

    #[test]
    fn a_health_check_may_take_as_long_as_an_operation_within_bounds() {
        let table = [(10, 50), (250, 250), (900, 900), (1000, 1000), (3000, 1000), (12_000, 4000), (30_000, 10_000)];
        for (deadline, patience) in table {
            assert_eq!(Health::new(Duration::from_millis(deadline)).patience, Duration::from_millis(patience));
        }
    }
}
