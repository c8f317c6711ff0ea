//! A reconcile as one line of metrics, in CloudWatch's embedded metric format, beside the consumer's own.
//!
//! | metric | unit | what |
//! | --- | --- | --- |
//! | `Undecided` | count | 1 where nothing could be said, else 0; of the others then none |
//! | `Findings` | count | findings |
//! | `Cells`, `Events`, `VerifiedEvents` | count | cells compared; events archived or in a ledger; those verified |
//! | `VerifiedPercent` | percent | rounded down, so that 100 means all |
//! | `OldestUnverifiedSeconds` | seconds | the age of the oldest event that is not verified; 0 where all are |

use std::time::{Duration, UNIX_EPOCH};

use metrique::unit::{Count, Percent, Second};
use metrique::writer::value::MetricValue;
use metrique::writer::{Entry, EntryWriter};
use recount_consumer::metrics::{Metrics, MetricsError, STREAM};

use super::{Report, Verdict};

struct Line<'r> {
    stream: &'r str,
    /// `None` where the reconcile failed.
    report: Option<&'r Report>,
    now_ms: i64,
}

/// Writes the line of a reconcile of `stream` that ended at `now_ms`, ms since 1970; `report` is `None` where it failed.
pub fn emit(metrics: &Metrics, stream: &str, report: Option<&Report>, now_ms: i64) -> Result<(), MetricsError> {
    metrics.write(&Line { stream, report, now_ms })
}

impl Entry for Line<'_> {
    fn write<'a>(&'a self, writer: &mut impl EntryWriter<'a>) {
        writer.timestamp(UNIX_EPOCH + Duration::from_millis(u64::try_from(self.now_ms).unwrap_or_default()));
        writer.value(STREAM, self.stream);
        let decided = self.report.filter(|report| report.verdict != Verdict::Undecided);
        writer.value("Undecided", &u64::from(decided.is_none()).with_unit::<Count>());
        let Some(report) = decided else { return };
        writer.value("Findings", &(report.findings.len() as u64).with_unit::<Count>());
        writer.value("Cells", &report.cells.with_unit::<Count>());
        let Some(coverage) = &report.coverage else { return };
        writer.value("Events", &coverage.events.with_unit::<Count>());
        writer.value("VerifiedEvents", &coverage.verified.with_unit::<Count>());
        writer.value("VerifiedPercent", &coverage.percent().with_unit::<Percent>());
        let age = coverage.oldest_unverified_age_s.unwrap_or(0);
        writer.value("OldestUnverifiedSeconds", &age.with_unit::<Second>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::Coverage;
    use crate::testing::Lines;

    #[test]
    fn one_line_per_reconcile() {
        let lines = Lines::default();
        let metrics = Metrics::to(lines.clone());
        let coverage =
            Coverage { events: 3, verified: 2, oldest_unverified_ms: Some(5), oldest_unverified_age_s: Some(840) };
        let report = Report {
            verdict: Verdict::Clean,
            undecided_because: None,
            cells: 1,
            events: 3,
            coverage: Some(coverage),
            quarantined: 0,
            findings: Vec::new(),
            more_cells: 0,
            athena: None,
        };
        emit(&metrics, "recount-changes", Some(&report), 1_795_350_000_123).unwrap();
        emit(&metrics, "recount-changes", None, 1_795_350_000_123).unwrap();
        let lines = lines.parsed();
        let named = ["Undecided", "Findings", "Cells", "Events", "VerifiedEvents", "OldestUnverifiedSeconds"];
        assert_eq!(named.map(|name| lines[0][name].as_u64()), [0, 0, 1, 3, 2, 840].map(Some));
        assert_eq!((&lines[0]["VerifiedPercent"], &lines[0]["Stream"]), (&66.66.into(), &"recount-changes".into()));
        assert_eq!((&lines[1]["Undecided"], lines[1].get("Events")), (&1.into(), None));
        assert_eq!(lines[0]["_aws"]["CloudWatchMetrics"][0]["Namespace"], "Recount");
    }
}
