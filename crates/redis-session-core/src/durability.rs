//! What a write waits for before it counts as made: nothing more, or a number of replicas.

use std::time::Duration;

use crate::error::{Error, Kind};

/// The longest that a write may wait for replicas.
const LONGEST: Duration = Duration::from_secs(10);
/// Redis counts in milliseconds, and takes none for "for ever".
const SHORTEST: Duration = Duration::from_millis(1);

/// What a write waits for before its caller is told that it was made.
///
/// Redis answers a write before its replicas have it. Where another server takes over in that moment, the write is lost
/// although it was answered: an edit is undone, a session that was ended lives again.
///
/// ```
/// use redis_session_core::Durability;
/// use std::time::Duration;
///
/// let both = Durability::Replicated { replicas: 2, within: Duration::from_millis(500) };
/// assert!(both.check().is_ok());
/// assert!(Durability::Replicated { replicas: 0, within: Duration::from_secs(1) }.check().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Nothing but the answer of the server that made it. The default: one round trip.
    #[default]
    Fast,
    /// So many replicas that have it, too. A write that is not there in time stands all the same, and its caller gets an
    /// error with [`is_not_replicated`](Error::is_not_replicated).
    ///
    /// Only a number of *all* replicas that may take over keeps every write: of two replicas of which one has it, the other
    /// one may become the primary.
    Replicated {
        /// At least one, and no more than there are: a replica that is away is not there in time.
        replicas: u32,
        /// How long to wait for them, in whole milliseconds: up to ten seconds. On top of the store's deadline.
        within: Duration,
    },
}

impl Durability {
    /// Whether this can be.
    ///
    /// # Errors
    /// `is_config`: no replica, or no time or too much of it; the text says what to write.
    pub fn check(self) -> Result<Self, Error> {
        let wrong = |text: &'static str| Err(Error::new(Kind::Config, text));
        match self {
            Self::Replicated { replicas: 0, .. } => {
                wrong("Durability::Replicated waits for no replica: write replicas: 1 or more, or Durability::Fast")
            }
            Self::Replicated { within, .. } if !(SHORTEST..=LONGEST).contains(&within) => wrong(
                "Durability::Replicated waits within 1 millisecond to 10 seconds: write within: Duration::from_millis(500)",
            ),
            _ => Ok(self),
        }
    }

    /// What to wait for. `None`: nothing.
    pub fn replication(self) -> Option<Replication> {
        match self {
            Self::Fast => None,
            Self::Replicated { replicas, within } => Some(Replication { replicas, within }),
        }
    }
}

/// What a durable write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replication {
    /// So many replicas.
    pub replicas: u32,
    /// For so long.
    pub within: Duration,
}

/// How a write ended that waited for replicas.
#[derive(Clone, Debug)]
pub struct Waited<T> {
    /// How the write itself ended.
    pub outcome: T,
    /// Why what was written is not on as many replicas as it was to be, of the kind [`NotReplicated`](Kind::NotReplicated).
    /// `None`: it is, or nothing was written.
    pub missed: Option<Error>,
}

impl<T> Waited<T> {
    /// What was written is where it was to be.
    pub fn enough(outcome: T) -> Self {
        Self { outcome, missed: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_waited_for_is_refused_with_what_to_write() {
        let ms = Duration::from_millis;
        let replicated = |replicas, within| Durability::Replicated { replicas, within };
        let table = [
            (Durability::Fast, None),
            (replicated(1, ms(1)), None),
            (replicated(u32::MAX, ms(10_000)), None),
            (replicated(0, ms(100)), Some("replicas: 1")),
            (replicated(1, Duration::ZERO), Some("within: Duration")),
            (replicated(1, Duration::from_micros(999)), Some("within: Duration")),
            (replicated(1, ms(10_001)), Some("within: Duration")),
            (replicated(1, Duration::MAX), Some("within: Duration")),
        ];
        for (durability, wrong) in table {
            match (durability.check(), wrong) {
                (Ok(same), None) => assert_eq!(same, durability),
                (Err(error), Some(wrong)) => {
                    assert!(error.is_config() && error.to_string().contains(wrong), "{durability:?}: {error}");
                }
                (answer, _) => panic!("{durability:?}: {answer:?}"),
            }
        }
    }
}
