//! The rules that tests take out one at a time, to show that the exploration notices. Without the feature `mutants`
//! every rule holds and the compiler removes the question.

/// A rule of the protocol (design papers, parts A2 to A5) that a test can take out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Rule {
    /// A save is refused where the record is gone.
    SaveNeedsRecord = 1,
    /// A save is refused by a tombstone.
    SaveStopsAtTombstone = 2,
    /// A save whose token is there already is not made again.
    OwnTokenIsSaved = 4,
    /// A write is refused after its `not_after`.
    NotAfter = 8,
    /// A save is refused where its proof was replaced.
    ProofMustHold = 16,
    /// A save with closures is refused on any version but the one it read.
    EditsNeedTheirVersion = 32,
    /// A save that merges is refused where its base is not among the last four versions.
    MergesNeedARecentVersion = 64,
    /// An ended or replaced id creates nothing for a minute.
    DeadIdsCreateNothing = 128,
    /// Ages count back from the request's arrival.
    AgesCountFromArrival = 256,
    /// The proof is checked at load.
    ProofIsCheckedAtLoad = 512,
    /// A create is refused where the key exists.
    CreateNeedsAbsence = 1024,
    /// After a lost reply, a moved session whose base is no longer listed is of unknown outcome.
    UnknownIsReported = 2048,
    /// An id that is signed but not stored is never adopted.
    UnknownIdsAreNotAdopted = 4096,
    /// A session that is not found removes no cookie.
    AbsenceRemovesNoCookie = 8192,
    /// A write whose reply was lost is sent again with the same bytes.
    LostRepliesAreSentAgain = 16384,
    /// An end is refused where its proof was replaced.
    EndsNeedTheProof = 1 << 15,
    /// What one writer leaves to the next in the queue is not for one whose proof it replaced.
    HandedOverToTheSameId = 1 << 16,
}

#[cfg(feature = "mutants")]
mod switch {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Rule;

    static OUT: AtomicU32 = AtomicU32::new(0);

    impl Rule {
        /// Whether this rule holds.
        pub fn holds(self) -> bool {
            OUT.load(Ordering::Relaxed) & self as u32 == 0
        }

        /// Takes exactly these rules out, for the whole process.
        pub fn take_out(rules: &[Self]) {
            OUT.store(rules.iter().fold(0, |out, rule| out | *rule as u32), Ordering::SeqCst);
        }
    }
}

#[cfg(not(feature = "mutants"))]
impl Rule {
    /// Whether this rule holds: always.
    #[inline(always)]
    pub const fn holds(self) -> bool {
        true
    }
}
