//! What a batch came to, in numbers.

use std::collections::BTreeMap;

use recount_schemas::{QuarantineCode, SequenceNumber, ShardId, Verdict};

/// What a batch came to. The metrics line is made of it; local mode adds them up.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BatchReport {
    /// The stream; of the first record, should there ever be several.
    pub stream: String,
    /// Records in the batch. Each has exactly one of the verdicts below, or failed.
    pub records: u64,
    /// Applied now.
    pub applied: u64,
    /// Applied before. A little high at times: an update whose answer was lost is sent again, and then finds its own keys
    /// and takes them for duplicates. They are counted once.
    pub duplicates: u64,
    /// Older than the ledger reaches back; not counted.
    pub too_old: u64,
    /// Passed by, since the item of their cell was not understood; not counted. Reconcile names the item.
    pub unusable: u64,
    /// Ignored, by [`Ignored::code`](recount_schemas::Ignored::code).
    pub ignored: BTreeMap<&'static str, u64>,
    /// Quarantined, by code.
    pub quarantined: BTreeMap<QuarantineCode, u64>,
    /// Failed: they come again.
    pub failed: u64,
    /// Cells that the batch added to.
    pub cells: u64,
    /// DynamoDB's write units.
    pub write_units: f64,
    /// DynamoDB's read units.
    pub read_units: f64,
    /// Requests sent again by us, and refused updates of cells.
    pub retries: u64,
    /// Cells sealed.
    pub seals: u64,
    /// Cells that could not be sealed: the totals are right, the next writer seals.
    pub failed_seals: u64,
    /// Shards whose progress could not be written: it says less than is true until the next batch.
    pub failed_progress: u64,
    /// From the arrival of the newest record to now, ms. A negative one shows clocks that differ.
    pub lag_ms: Option<i64>,
    /// How long the batch took, ms.
    pub duration_ms: u64,
    /// Per shard, the lowest sequence number that failed.
    pub lowest_failed: BTreeMap<ShardId, SequenceNumber>,
}

impl BatchReport {
    /// Counts one record.
    pub fn count(&mut self, verdict: Option<&Verdict>) {
        self.records += 1;
        match verdict {
            Some(Verdict::Applied) => self.applied += 1,
            Some(Verdict::Duplicate) => self.duplicates += 1,
            Some(Verdict::TooOld) => self.too_old += 1,
            Some(Verdict::Unusable) => self.unusable += 1,
            Some(Verdict::Ignored(why)) => *self.ignored.entry(why.code()).or_default() += 1,
            Some(Verdict::Quarantined(reason)) => *self.quarantined.entry(reason.code).or_default() += 1,
            None => self.failed += 1,
        }
    }

    /// Ignored records of all kinds.
    pub fn ignored_total(&self) -> u64 {
        self.ignored.values().sum()
    }

    /// Quarantined records of all kinds.
    pub fn quarantined_total(&self) -> u64 {
        self.quarantined.values().sum()
    }

    /// Adds the numbers of another batch; of lags and streams, the other's.
    pub fn add(&mut self, other: &Self) {
        self.stream.clone_from(&other.stream);
        self.records += other.records;
        self.applied += other.applied;
        self.duplicates += other.duplicates;
        self.too_old += other.too_old;
        self.unusable += other.unusable;
        for (code, n) in &other.ignored {
            *self.ignored.entry(code).or_default() += n;
        }
        for (code, n) in &other.quarantined {
            *self.quarantined.entry(*code).or_default() += n;
        }
        self.failed += other.failed;
        self.cells += other.cells;
        self.write_units += other.write_units;
        self.read_units += other.read_units;
        self.retries += other.retries;
        self.seals += other.seals;
        self.failed_seals += other.failed_seals;
        self.failed_progress += other.failed_progress;
        self.lag_ms = other.lag_ms;
        self.duration_ms += other.duration_ms;
        self.lowest_failed.clone_from(&other.lowest_failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use recount_schemas::{Ignored, QuarantineReason};

    #[test]
    fn every_record_is_counted_under_exactly_one_verdict() {
        let mut report = BatchReport::default();
        let reason = QuarantineReason::new(QuarantineCode::NoGroup, "x");
        for verdict in [
            Some(Verdict::Applied),
            Some(Verdict::Duplicate),
            Some(Verdict::TooOld),
            Some(Verdict::Unusable),
            Some(Verdict::Ignored(Ignored::OtherTable)),
            Some(Verdict::Quarantined(reason)),
            None,
        ] {
            report.count(verdict.as_ref());
        }
        let mut twice = report.clone();
        twice.add(&report);
        let one_each = |r: &BatchReport| {
            [r.applied, r.duplicates, r.too_old, r.unusable, r.ignored_total(), r.quarantined_total(), r.failed]
        };
        assert_eq!((one_each(&report), report.records), ([1; 7], 7));
        assert_eq!((one_each(&twice), twice.records), ([2; 7], 14));
    }
}
