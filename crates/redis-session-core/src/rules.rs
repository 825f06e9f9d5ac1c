//! The rules that tests take out one at a time, to show that the exploration notices. Without the feature `mutants`
//! every rule holds and the compiler removes the question.

/// A rule of the protocol (design papers, parts A2 to A5) that a test can take out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
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
    /// A save looks for its own token before it looks at the time and the proof.
    OwnTokenComesFirst = 1 << 17,
    /// A record past its deadline is as good as gone.
    DeadlinesAreChecked = 1 << 18,
    /// A save that is refused has written nothing.
    RefusedWritesNothing = 1 << 19,
    /// A save leaves its token.
    SavesPushTheirToken = 1 << 20,
    /// A touch leaves no token.
    TouchesPushNoToken = 1 << 21,
    /// What is sent again under a new token names the earlier ones.
    EarlierTokensAreSent = 1 << 22,
    /// After an unknown outcome the request writes nothing more.
    DoubtStopsWrites = 1 << 23,
    /// Who comes with a replaced proof ends nothing, and no cookie is taken away.
    ReplacedEndsNothing = 1 << 24,
    /// An end leaves a tombstone.
    EndsLeaveATombstone = 1 << 25,
    /// A rotation takes a new proof.
    RotationsTakeANewProof = 1 << 26,
    /// A refresh drops the edits of a save of unknown outcome.
    RefreshDropsTheDoubtful = 1 << 27,
    /// A version that a request has not seen is no base for its next edits.
    UnseenVersionsAreNoBase = 1 << 28,
    /// Sessions that are to be ended are doomed in the index first.
    EndsDoomFirst = 1 << 29,
    /// A login that begins again takes away the entry of the try before.
    StaleEntriesAreDropped = 1 << 30,
    /// A login that relies on something older than the revocation is refused.
    RevocationsAreRemembered = 1 << 31,
    /// The step that enters a session dooms those over the cap.
    CapsDoomInTheEnter = 1 << 32,
    /// A touch that finds no entry asks first whether the session lives and is this user's.
    MissingEntriesAreAskedAfter = 1 << 33,
    /// Who ends the others must be listed, and not about to be ended.
    WhoStaysMustBeListed = 1 << 34,
    /// A revocation leaves a tombstone also where there is nothing.
    AbsenceIsMarked = 1 << 35,
    /// An end names the user whose session it is.
    EndsNameTheirUser = 1 << 36,
    /// A login looks at its entry once more when its session is written.
    LoginsAreCheckedAtTheEnd = 1 << 37,
    /// Sessions over the cap are ended before the new one is written.
    CapsEndBeforeTheWrite = 1 << 38,
    /// The entry that a login may be waiting for stays.
    EntriesOfNobodyStay = 1 << 39,
    /// A session that is over when its answer leaves has no cookie.
    NoCookieAfterTheEnd = 1 << 40,
    /// A rotation leaves nothing of the proof that a timed renewal had replaced.
    RotationsClearThePrevious = 1 << 41,
    /// A login in the user's own session leaves nothing of it either.
    LoginsClearARenewal = 1 << 42,
    /// The proof before a timed renewal does not rotate.
    WhoWasRenewedDoesNotRotate = 1 << 43,
}

#[cfg(feature = "mutants")]
mod switch {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Rule;

    static OUT: AtomicU64 = AtomicU64::new(0);

    impl Rule {
        /// Whether this rule holds.
        pub fn holds(self) -> bool {
            OUT.load(Ordering::Relaxed) & self as u64 == 0
        }

        /// Takes exactly these rules out, for the whole process.
        pub fn take_out(rules: &[Self]) {
            OUT.store(rules.iter().fold(0, |out, rule| out | *rule as u64), Ordering::SeqCst);
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
