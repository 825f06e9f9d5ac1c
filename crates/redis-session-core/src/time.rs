//! Points in the store's time, and the clock of a store that has none of its own.

use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in the store's time, in milliseconds since 1970. Never an application server's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The farthest point that every part of the way can hold: Lua's numbers are exact up to here.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// From milliseconds since 1970; clamped to [`Time::MAX`].
    pub fn from_millis(millis: u64) -> Self {
        Self(millis.min(Self::MAX.0))
    }

    /// Milliseconds since 1970.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(millis(duration)))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

/// Whole milliseconds of a duration, clamped.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(Time::MAX.0)
}

/// The clock of a [`MemoryStore`](crate::MemoryStore): the system's, or one that a test moves by hand.
///
/// ```
/// use redis_session_core::Clock;
/// use std::time::Duration;
///
/// let clock = Clock::manual();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().since(before), Duration::from_secs(60));
/// ```
#[derive(Clone, Debug)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until [`advance`](Self::advance) moves it.
    pub fn manual() -> Self {
        Self(Some(Arc::new(AtomicU64::new(1_700_000_000_000))))
    }

    /// What this clock shows.
    pub fn now(&self) -> Time {
        match &self.0 {
            Some(manual) => Time(manual.load(Ordering::SeqCst)),
            None => Time::from_millis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)),
        }
    }

    /// Moves a manual clock on. The system's clock cannot be moved: then nothing happens.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.0 {
            manual.fetch_add(millis(by), Ordering::SeqCst);
        }
    }
}
