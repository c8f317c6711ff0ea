//! The proof that the simulation can fail: every deliberate bug must be found, within a number of seeds.
//!
//! Bugs that no history of it can show are named here with the reason, and with what shows them instead.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use recount_schemas::bugs::{self, Bug};

use crate::faults::{Fault, scenario};
use crate::plan::draw_faults;
use crate::runner::live;

/// What is on in the histories that are meant for a bug: every other one. The rest draw their own.
fn meant(bug: Bug) -> &'static str {
    match bug {
        Bug::LateUpdateIgnoresEpoch | Bug::SearchIsNotRepeated | Bug::LateUpdateNamesNoKey => {
            "latency,lost-answer,two-consumers,redelivery,late,duplicate"
        }
        Bug::FlipIgnoresEpoch | Bug::FlipBeforePage | Bug::PageNamesCollide => {
            "latency,late-request,consumer-dies,two-consumers,redelivery,late"
        }
        Bug::ExactUpdateIgnoresSize | Bug::ExactUpdateIgnoresEpoch => {
            "latency,lost-answer,late-request,two-consumers,redelivery,brownout"
        }
        Bug::SealedGoesBack | Bug::SealedIsNotRaised => "late,redelivery,duplicate",
        Bug::TooOldIsCounted => "ancient,redelivery,duplicate",
        Bug::FailedCellIsDone | Bug::ReportsHighestFailed | Bug::ReportsNoFailure | Bug::ProgressPassesAFailure => {
            "latency,throttle,brownout,late-request"
        }
        Bug::ProgressGoesBack => "latency,late-request,two-consumers,redelivery",
        Bug::FailedQuarantineIsDone | Bug::UndecodableIsSkipped => "poison,quarantine-down,server-error",
        Bug::BadRecordHoldsUpItsBatch | Bug::BadRecordTakesItsBatchAlong => "poison,quarantine-down",
        Bug::RefusedPutIsDelivered | Bug::RelayReportsHighestUnsettled => "partial,throttle,brownout,late-request",
        Bug::ChildrenBeforeParents => "reshard,compactor-dies",
        Bug::AnyEntryIsOurs | Bug::RangesOverlap => "latency,two-compactors,freeze",
        Bug::LostAnswerIsForgotten | Bug::PreviousEntryIsNotFinished | Bug::UploadDeletedBeforeCopy => {
            "lost-answer,server-error,compactor-dies,two-compactors"
        }
        Bug::FailedUploadIsCommitted | Bug::FailedCopyIsDone => "server-error,brownout,late-request,error-in-ok",
        Bug::EmptyPageIsTheTip => "empty-page,latency",
        Bug::DedupesOnlyWithinACommit | Bug::DedupesOnlyOneMonth | Bug::TallySkipsDuplicates => "duplicate,late",
        Bug::ConflictIsADuplicate => "variant",
        Bug::LostRangeIsWhole => "trim",
        Bug::TidiesTooEarly | Bug::CarriedFilesAreNotCopied => "latency,two-compactors,freeze,late-request,compaction",
        Bug::MergeIsNotProven => "compaction,late",
        Bug::ProgressAfterCells => "slow-operator,late",
        Bug::RepairIgnoresSeen => "damage,latency,lost-answer,late-request",
        _ => "latency,redelivery,duplicate",
    }
}

/// Why no history shows a bug, and what does.
pub fn not_here(bug: Bug) -> Option<&'static str> {
    Some(match bug {
        Bug::SequenceNumbersAsText => {
            "the stream's numbers all have 56 digits; shown by recount-consumer's \
             sequence_numbers_are_compared_as_numbers_and_shards_apart"
        }
        Bug::RelayDropsUnreadable => {
            "DynamoDB Streams never leave a sequence number out; shown by recount-producer's \
             what_cannot_be_named_fails_the_invocation"
        }
        Bug::PageOfTheSameEpochCounts => {
            "both looks of a reconcile must read a cell's item, and its pages only when it was sealed again; 200 histories of slow \
             operators did not; shown by recount-compactor's a_page_of_the_items_own_epoch_that_counts_is_found"
        }
        Bug::RelayDropsTooLarge => {
            "no item of a history is above the stream's limit; shown by recount-producer's \
             invariant_1_the_largest_record_is_sent_and_one_more_byte_goes_to_quarantine"
        }
        _ => return None,
    })
}

/// What it took to find a bug.
#[derive(Debug, Clone)]
pub struct Found {
    pub bug: Bug,
    /// How many seeds; `None`: as many as there were did not show it.
    pub seeds: Option<u64>,
    pub invariant: u8,
    pub what: String,
}

/// Looks for each bug, in at most `seeds` histories.
pub fn find(wanted: &[Bug], from: u64, seeds: u64, threads: usize, says: &(dyn Fn(&Found) + Sync)) -> Vec<Found> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(bug) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let one = find_one(*bug, from, seeds);
                    says(&one);
                    found.lock().unwrap().push(one);
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap();
    found.sort_by_key(|found: &Found| found.bug);
    found
}

fn find_one(bug: Bug, from: u64, seeds: u64) -> Found {
    for tried in 0..seeds {
        let seed = from + tried;
        let faults: BTreeSet<Fault> = match tried % 2 {
            0 => meant(bug).split(',').filter_map(scenario).flatten().collect(),
            _ => draw_faults(seed),
        };
        let violations = bugs::within(bug, || live(seed, &faults, 100)).violations;
        let first = violations.into_iter().find(|violation| bug.invariants().contains(&violation.invariant));
        // It is the bug that was found only if the same history without it is well.
        if let Some(violation) = first.filter(|_| live(seed, &faults, 100).violations.is_empty()) {
            return Found { bug, seeds: Some(tried + 1), invariant: violation.invariant, what: violation.what };
        }
    }
    Found { bug, seeds: None, invariant: 0, what: String::new() }
}
