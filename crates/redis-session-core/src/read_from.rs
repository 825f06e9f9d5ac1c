//! Who may answer a read: the server that makes the writes, or a replica of it that is little behind.

use std::time::Duration;

use crate::error::{Error, Kind};
use crate::expiry::Life;
use crate::id::{Proof, SessionKey};
use crate::plan::stands;
use crate::record::{Record, Stored};
use crate::store::BoxFuture;
use crate::time::Time;

/// Replicas are compared with their primary four times a second, so less could not be kept.
const SHORTEST: Duration = Duration::from_secs(1);
/// A visitor would see his own past for longer than he remembers it.
const LONGEST: Duration = Duration::from_secs(60);

/// Who answers the reads of sessions.
///
/// ```
/// use redis_session_core::ReadFrom;
/// use std::time::Duration;
///
/// assert!(ReadFrom::Replicas { behind: Duration::from_secs(2) }.check().is_ok());
/// assert!(ReadFrom::Replicas { behind: Duration::ZERO }.check().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The server that makes the writes. The default: a read shows every write that was answered before it.
    #[default]
    Primary,
    /// A replica, if one is known to have all that was written until so long ago, and has a living session for the id;
    /// else the primary, within the same deadline. What is read may be so old, and never older.
    Replicas {
        /// From one second to one minute.
        behind: Duration,
    },
}

impl ReadFrom {
    /// Whether this can be.
    ///
    /// # Errors
    /// `is_config`: too little, or too much; the text says what to write.
    pub fn check(self) -> Result<Self, Error> {
        match self {
            Self::Replicas { behind } if !(SHORTEST..=LONGEST).contains(&behind) => Err(Error::new(
                Kind::Config,
                "ReadFrom::Replicas lets replicas be behind by 1 second to 1 minute: write behind: Duration::from_secs(2)",
            )),
            _ => Ok(self),
        }
    }
}

/// Reads that replicas may answer, of a store that knows its replicas ([`Store::replicas`](crate::Store::replicas)).
pub trait Replicas: Send + Sync {
    /// As [`Store::load`](crate::Store::load), but that a replica may answer: one that is known to be no further behind than
    /// asked for, and only with a record that the read [takes](ReplicaRead::takes). Anything else that it has or does proves
    /// nothing, and the primary is asked. All of it is within the store's deadline.
    fn read<'a>(&'a self, key: &'a SessionKey, read: &'a ReplicaRead) -> BoxFuture<'a, Result<Read, Error>>;
}

/// A read that a replica may answer.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaRead {
    /// The proof that the request came with.
    pub proof: Proof,
    /// The layer's policy.
    pub life: Life,
    /// How far behind the replica may be.
    pub behind: Duration,
}

impl ReplicaRead {
    /// Whether a replica's record will do: a living one, under the very proof. With any other proof it is for the primary
    /// to say what became of it.
    pub fn takes(&self, record: &Record, now: Option<Time>) -> bool {
        record.proof == self.proof && now.is_some_and(|now| stands(record, &self.life, now))
    }
}

/// Who answered a read, and what.
#[derive(Clone, Debug)]
pub enum Read {
    /// A replica: a living session, as it was a moment ago.
    Replica(Record),
    /// The primary.
    Primary(Option<Stored>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expiry::Expiry;
    use crate::id::SessionId;
    use crate::plan::tests::record;
    use crate::random::Random;
    use crate::record::{Previous, ReplacedBy};

    #[test]
    fn how_far_behind_has_bounds_with_what_to_write() {
        let ms = Duration::from_millis;
        for (behind, fits) in [(0, false), (999, false), (1000, true), (2000, true), (60_000, true), (60_001, false)] {
            match (ReadFrom::Replicas { behind: ms(behind) }).check() {
                Ok(_) => assert!(fits, "{behind}"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(!fits && error.is_config() && text.contains("behind: Duration"), "{behind}: {text}");
                }
            }
        }
        assert_eq!(ReadFrom::default().check().unwrap(), ReadFrom::Primary);
    }

    #[test]
    fn only_a_living_record_under_the_very_proof_will_do() {
        let [id, other] = [(); 2].map(|()| SessionId::random(&Random::system()).unwrap());
        let (at, minute) = (Time::from_millis(1 << 40), Duration::from_secs(60));
        let record = Record {
            // Good for something at the primary, which knows whether it still is.
            previous: Some(Previous { proof: other.proof(), by: ReplacedBy::Renewal, at }),
            ..record(at, &id)
        };
        let read = |id: &SessionId| ReplicaRead { proof: id.proof(), life: Expiry::default().life(), behind: SHORTEST };
        assert!(read(&id).takes(&record, Some(at)));
        assert!(!read(&other).takes(&record, Some(at)));
        assert!(!read(&id).takes(&record, Some(at + 31 * minute)), "past its deadline");
        assert!(!read(&id).takes(&record, Some(at - 6 * minute)), "from the future");
        assert!(!read(&id).takes(&record, None), "nobody knows the time");
    }
}
