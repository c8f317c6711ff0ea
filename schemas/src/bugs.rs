//! Deliberate bugs: proof that the tests can fail.
//!
//! A test that has never failed shows little. Each [`Bug`] breaks one rule of production code at the place where the rule
//! is kept, and the simulation must find each of them by an invariant (ARCHITECTURE.md numbers those) that some history breaks.
//!
//! | feature `bugs` | [`on`] | cost |
//! | --- | --- | --- |
//! | off, as in every normal build | a constant `false`, and nothing can switch a bug on | none: the compiler drops the branch |
//! | on, for tests only | the bug of this thread (`within`), else that of the process (`set`) | a load |
//!
//! A history of few events never comes to what happens at each hundredth. So some numbers of the protocol can be made
//! small for a thread in such a build ([`number`]); all parts of a history then have the same.
//!
//! To add one: a variant here, and `if bugs::on(Bug::…)` at the true place, one line that a reader can skip.

use std::fmt;
use std::str::FromStr;

/// Whether bugs can be switched on in this build.
pub const ENABLED: bool = cfg!(feature = "bugs");

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $bug:ident = $name:literal breaks [$($invariant:literal),+];)+) => {
        /// A rule of production code that can be broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Bug {
            $($(#[doc = $doc])+ #[doc = concat!("\n\nBreaks invariant", $(" ", $invariant,)+ ".")] $bug,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug),+];

            /// Its name, in kebab case.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$bug => $name,)+ }
            }

            /// The invariants of ARCHITECTURE.md of which it breaks at least one.
            pub const fn invariants(self) -> &'static [u8] {
                match self { $(Self::$bug => &[$($invariant),+],)+ }
            }
        }
    };
}

bugs! {
    // The cell: consumer/src/cell, expressions.rs, totals.
    /// A late update does not ask for the epoch: a key that was sealed since the search is counted again.
    LateUpdateIgnoresEpoch = "late-update-ignores-epoch" breaks [2];
    /// A flip does not ask for the epoch: a slow sealer sets `epoch` and `sealed` back.
    FlipIgnoresEpoch = "flip-ignores-epoch" breaks [2, 3];
    /// The flip is sent before the page is put: between them, or for ever if the sealer dies, the keys are nowhere.
    FlipBeforePage = "flip-before-page" breaks [2, 3];
    /// The flip takes one key more than the page has.
    PageMissesAKey = "page-misses-a-key" breaks [2, 3];
    /// A fast update does not ask whether its keys are in `recent`.
    FastUpdateNamesNoKey = "fast-update-names-no-key" breaks [2, 4];
    /// A late update does not ask whether its keys are in `recent`.
    LateUpdateNamesNoKey = "late-update-names-no-key" breaks [2, 4];
    /// A fast update does not ask for `sealed`: a key on a page is counted again.
    FastUpdateIgnoresSealed = "fast-update-ignores-sealed" breaks [2, 4];
    /// A fast update compares `sealed` with the greatest of its keys instead of the least.
    FastUpdateAsksTheGreatest = "fast-update-asks-the-greatest" breaks [2, 4];
    /// An update of many keys does not ask for the size of `recent`: another writer may have added some of them.
    ExactUpdateIgnoresSize = "exact-update-ignores-size" breaks [2, 4];
    /// An update of many keys does not ask for the epoch: some may have been sealed, and as many added.
    ExactUpdateIgnoresEpoch = "exact-update-ignores-epoch" breaks [2, 4];
    /// Pages that were searched once count as searched in later epochs: the pages are read before the item.
    SearchIsNotRepeated = "search-is-not-repeated" breaks [2];
    /// Of the pages that may hold a late key only the first is read.
    SearchReadsOnePage = "search-reads-one-page" breaks [2, 4];
    /// The search begins at the greatest key to do: pages below it are skipped.
    SearchFromTheGreatest = "search-from-the-greatest" breaks [2, 4];
    /// `sealed` becomes the greatest key of this page, though a greater one left before.
    SealedGoesBack = "sealed-goes-back" breaks [2, 4];
    /// `sealed` stays what it was at the first sealing.
    SealedIsNotRaised = "sealed-is-not-raised" breaks [2, 4];
    /// A page's name has no digest of its keys: of two sealers in one epoch the second replaces the first one's page.
    PageNamesCollide = "page-names-collide" breaks [1, 2, 3, 8];
    /// Events older than the ledger reaches back are counted, though their page may have expired.
    TooOldIsCounted = "too-old-is-counted" breaks [2, 4];
    /// An update that was refused is taken for done.
    RefusedIsDone = "refused-is-done" breaks [1, 2, 3];

    // A batch: consumer/src/batch.rs, handler, progress.rs.
    /// A cell that could not be written counts as done.
    FailedCellIsDone = "failed-cell-is-done" breaks [1, 3, 8];
    /// The highest failed sequence number is reported, and those below it never come again.
    ReportsHighestFailed = "reports-highest-failed" breaks [1, 3, 8];
    /// Failed records are not reported.
    ReportsNoFailure = "reports-no-failure" breaks [1, 3, 8];
    /// Progress moves beyond a failed record.
    ProgressPassesAFailure = "progress-passes-a-failure" breaks [1, 8];
    /// A slow batch sets progress back.
    ProgressGoesBack = "progress-goes-back" breaks [1, 8];
    /// A record that could not be written to quarantine counts as done.
    FailedQuarantineIsDone = "failed-quarantine-is-done" breaks [1];
    /// The good records of a batch wait for its bad one: while there is one, none is counted.
    BadRecordHoldsUpItsBatch = "bad-record-holds-up-its-batch" breaks [10];
    /// What could not be written to quarantine takes all of its batch along: it comes again from its first record on.
    BadRecordTakesItsBatchAlong = "bad-record-takes-its-batch-along" breaks [10];
    /// An event that stands in a batch twice adds twice to its cell's sum, under one key.
    FoldsDuplicates = "folds-duplicates" breaks [2, 4];

    // The vocabulary: schemas.
    /// An event's month is that of UTC, not of the definition's zone. Everybody agrees on it but an oracle of its own.
    MonthInUtc = "month-in-utc" breaks [2];
    /// Sequence numbers are compared as texts: `"10" < "9"`. Shows where their lengths differ.
    SequenceNumbersAsText = "sequence-numbers-as-text" breaks [1, 5];

    // The relay: producer/src/relay.
    /// A record that PutRecords refused counts as delivered.
    RefusedPutIsDelivered = "refused-put-is-delivered" breaks [1];
    /// The highest unsettled record is reported, and those below it never come again.
    RelayReportsHighestUnsettled = "relay-reports-highest-unsettled" breaks [1];
    /// A record that the relay cannot name is dropped, instead of failing the invocation.
    RelayDropsUnreadable = "relay-drops-unreadable" breaks [1];
    /// A record too large for the stream that could not be quarantined counts as settled.
    RelayDropsTooLarge = "relay-drops-too-large" breaks [1];

    // The archive: compactor/src/archive, log.
    /// A run does not finish the entry that it finds last.
    PreviousEntryIsNotFinished = "previous-entry-is-not-finished" breaks [1, 6];
    /// The entry is put though an upload that it names failed.
    FailedUploadIsCommitted = "failed-upload-is-committed" breaks [1, 6];
    /// A child is read before its parents were read to their end.
    ChildrenBeforeParents = "children-before-parents" breaks [5];
    /// A number that is taken counts as ours without a look at whose entry it is.
    AnyEntryIsOurs = "any-entry-is-ours" breaks [1, 5, 6];
    /// After a lost answer the uploads are deleted and all is planned anew, though the entry may have been put.
    LostAnswerIsForgotten = "lost-answer-is-forgotten" breaks [1, 6];
    /// A copy to its target that failed counts as done, and its upload is deleted.
    FailedCopyIsDone = "failed-copy-is-done" breaks [1, 6];
    /// An upload is deleted before its bytes are at their target.
    UploadDeletedBeforeCopy = "upload-deleted-before-copy" breaks [1, 6];
    /// Duplicates are looked for only among the records of the same commit, not in the archive.
    DedupesOnlyWithinACommit = "dedupes-only-within-a-commit" breaks [6];
    /// Duplicates are looked for only in the files of the month in which the change was created.
    DedupesOnlyOneMonth = "dedupes-only-one-month" breaks [6];
    /// Duplicates are left out of what a range says it read.
    TallySkipsDuplicates = "tally-skips-duplicates" breaks [5];
    /// Another content under a known event key is dropped as a duplicate, not kept as a conflict.
    ConflictIsADuplicate = "conflict-is-a-duplicate" breaks [1, 8];
    /// Records that expired unread leave no hole in the log.
    LostRangeIsWhole = "lost-range-is-whole" breaks [1];
    /// A record that cannot be judged is tallied, and not kept.
    UndecodableIsSkipped = "undecodable-is-skipped" breaks [1];
    /// A page without a record counts as the shard's tip.
    EmptyPageIsTheTip = "empty-page-is-the-tip" breaks [1, 8];
    /// A range begins one record behind the one before it ended.
    RangeSkipsARecord = "range-skips-a-record" breaks [1, 5];
    /// Of a compaction only what it merged is brought to the month's new place, not what it takes over as it is.
    CarriedFilesAreNotCopied = "carried-files-are-not-copied" breaks [6];
    /// A merge leaves a row out, and nobody holds what was written against what was read.
    MergeIsNotProven = "merge-is-not-proven" breaks [6, 7];
    /// Uploads that may still be committed are deleted.
    TidiesTooEarly = "tidies-too-early" breaks [1, 5, 6];
    /// A plan whose ranges somebody else has committed is committed all the same.
    RangesOverlap = "ranges-overlap" breaks [5, 6];

    // Reconcile and repair: compactor/src/reconcile, repair.
    /// Pages of the item's own epoch count as its ledger.
    PageOfTheSameEpochCounts = "page-of-the-same-epoch-counts" breaks [8];
    /// Progress is read after the cells: what was counted between is missed.
    ProgressAfterCells = "progress-after-cells" breaks [8];
    /// A repair does not ask whether another one, or itself, came before.
    RepairIgnoresSeen = "repair-ignores-seen" breaks [9];
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no bug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no bug is called {0:?}; recount_schemas::bugs has the list")]
pub struct NotABug(String);

impl FromStr for Bug {
    type Err = NotABug;

    fn from_str(text: &str) -> Result<Self, NotABug> {
        let found = Self::ALL.iter().find(|bug| bug.as_str() == text);
        found.copied().ok_or_else(|| NotABug(text.chars().take(80).collect()))
    }
}

/// Whether `bug` is on. Never, in a normal build.
#[cfg(not(feature = "bugs"))]
#[inline(always)]
pub const fn on(_bug: Bug) -> bool {
    false
}

/// A number of the protocol: `normal`, but `small` where this thread's history asked for small ones (`make_small`).
#[cfg(not(feature = "bugs"))]
#[inline(always)]
pub const fn number(normal: u64, _small: u64) -> u64 {
    normal
}

#[cfg(feature = "bugs")]
pub use switch::{make_small, number, on, set, within};

#[cfg(feature = "bugs")]
mod switch {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    /// What stands for none.
    const NONE: u8 = u8::MAX;
    static EVERYWHERE: AtomicU8 = AtomicU8::new(NONE);

    thread_local! {
        static HERE: Cell<u8> = const { Cell::new(NONE) };
        static SMALL: Cell<bool> = const { Cell::new(false) };
    }

    /// Makes the numbers of [`number`] small for this thread, or normal again.
    pub fn make_small(small: bool) {
        SMALL.set(small);
    }

    /// See the other one.
    pub fn number(normal: u64, small: u64) -> u64 {
        if SMALL.get() { small } else { normal }
    }

    /// Whether `bug` is on, for this thread or for the process.
    #[inline]
    pub fn on(bug: Bug) -> bool {
        let here = HERE.get();
        let which = if here == NONE { EVERYWHERE.load(Ordering::Relaxed) } else { here };
        which == bug as u8
    }

    /// Switches this bug on for the whole process, and any other off.
    pub fn set(bug: Option<Bug>) {
        EVERYWHERE.store(bug.map_or(NONE, |bug| bug as u8), Ordering::SeqCst);
    }

    /// Does `work` with this bug on, and any other off, on this thread only: tests beside it are not disturbed.
    pub fn within<T>(bug: Bug, work: impl FnOnce() -> T) -> T {
        struct Back(u8);
        impl Drop for Back {
            fn drop(&mut self) {
                HERE.set(self.0);
            }
        }
        let _back = Back(HERE.replace(bug as u8));
        work()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kebab_case_and_names_one_bug() {
        for bug in Bug::ALL {
            assert_eq!(bug.as_str().parse(), Ok(*bug));
            let mut kebab = String::new();
            for c in format!("{bug:?}").chars() {
                if c.is_ascii_uppercase() && !kebab.is_empty() {
                    kebab.push('-');
                }
                kebab.push(c.to_ascii_lowercase());
            }
            assert_eq!(bug.as_str(), kebab);
            assert!(bug.invariants().iter().all(|n| (1..=10).contains(n)));
        }
        assert!("no-such-bug".parse::<Bug>().is_err());
    }

    #[cfg(not(feature = "bugs"))]
    #[test]
    fn no_bug_is_on_in_a_normal_build() {
        const { assert!(!ENABLED && !on(Bug::MonthInUtc)) }
        assert!(!Bug::ALL.iter().any(|bug| on(*bug)));
    }

    #[cfg(feature = "bugs")]
    #[test]
    fn one_bug_is_on_at_a_time() {
        assert!(!Bug::ALL.iter().any(|bug| on(*bug)));
        for bug in Bug::ALL {
            within(*bug, || assert_eq!(Bug::ALL.iter().filter(|bug| on(**bug)).collect::<Vec<_>>(), [bug]));
        }
        assert!(!on(Bug::MonthInUtc), "it is off again");
    }
}
