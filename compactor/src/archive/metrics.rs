//! An archive run as one line of metrics, in CloudWatch's embedded metric format, beside the consumer's own.
//!
//! | metric | unit | what |
//! | --- | --- | --- |
//! | `ArchiveLagSeconds` | seconds | 0 where the run read every shard to its tip; else the time since the shard that is furthest behind was last known to be read to its tip, or its parents if nothing of it was read yet. Absent where one never was: a new archive's first runs, or two generations of shards that nobody read. That is noted hourly for a shard that is at its tip, so this can say up to an hour too much |
//! | `ArchiveRows`, `ArchiveDuplicates`, `ArchiveConflicts`, `ArchiveQuarantined` | count | what the run's records came to |
//! | `ArchiveLost` | count | places where records may be missing since the stream dropped them unread |
//!
//! A run that failed says nothing: where the lag is missing, the archive is behind.

use std::time::{Duration, UNIX_EPOCH};

use metrique::unit::{Count, Second};
use metrique::writer::value::MetricValue;
use metrique::writer::{Entry, EntryWriter};
use recount_consumer::metrics::{Metrics, MetricsError, STREAM};

use super::ArchiveReport;

struct Line<'r> {
    stream: &'r str,
    report: &'r ArchiveReport,
    now_ms: i64,
}

/// Writes the line of a run on `stream` that ended at `now_ms`, ms since 1970.
pub fn emit(metrics: &Metrics, stream: &str, report: &ArchiveReport, now_ms: i64) -> Result<(), MetricsError> {
    metrics.write(&Line { stream, report, now_ms })
}

/// How far the archive is behind the stream, in seconds; `None` where nobody knows yet.
pub(super) fn lag_seconds(report: &ArchiveReport, now_ms: i64) -> Option<u64> {
    if report.reached_tip {
        return Some(0);
    }
    let open = report.shards.values().filter(|shard| !shard.closed);
    let oldest = open.map(|shard| shard.caught_up_ms).collect::<Option<Vec<_>>>()?.into_iter().min()?;
    Some(u64::try_from(now_ms.saturating_sub(oldest)).unwrap_or(0) / 1_000)
}

impl Entry for Line<'_> {
    fn write<'a>(&'a self, writer: &mut impl EntryWriter<'a>) {
        let report = self.report;
        writer.timestamp(UNIX_EPOCH + Duration::from_millis(u64::try_from(self.now_ms).unwrap_or_default()));
        writer.value(STREAM, self.stream);
        if let Some(lag) = lag_seconds(report, self.now_ms) {
            writer.value("ArchiveLagSeconds", &lag.with_unit::<Second>());
        }
        for (name, value) in [
            ("ArchiveRows", report.rows),
            ("ArchiveDuplicates", report.duplicates),
            ("ArchiveConflicts", report.conflicts),
            ("ArchiveQuarantined", report.quarantined),
            ("ArchiveLost", report.lost.len() as u64),
        ] {
            writer.value(name, &value.with_unit::<Count>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::ShardReport;
    use super::*;
    use crate::testing::Lines;

    fn behind(shards: &[(bool, Option<i64>)]) -> ArchiveReport {
        let shard = |(i, (closed, caught_up_ms)): (usize, &(bool, Option<i64>))| {
            let report = ShardReport { to: None, closed: *closed, caught_up_ms: *caught_up_ms };
            (format!("shardId-{i:012}").parse().unwrap(), report)
        };
        ArchiveReport { shards: shards.iter().enumerate().map(shard).collect(), ..ArchiveReport::default() }
    }

    #[test]
    fn the_lag_is_that_of_the_open_shard_that_is_furthest_behind() {
        let lag = |shards: &[(bool, Option<i64>)]| lag_seconds(&behind(shards), 100_000);
        assert_eq!(lag(&[(false, Some(90_000)), (false, Some(40_999)), (true, Some(1))]), Some(59));
        assert_eq!(lag(&[(false, Some(90_000)), (false, None)]), None, "one was never read to its tip");
        assert_eq!(lag(&[(true, None), (false, Some(100_500))]), Some(0), "a clock that is ahead");
        assert_eq!(lag(&[]), None);
        assert_eq!(lag_seconds(&ArchiveReport { reached_tip: true, ..behind(&[(false, None)]) }, 100_000), Some(0));
    }

    #[test]
    fn one_line_per_run() {
        let lines = Lines::default();
        let metrics = Metrics::to(lines.clone());
        let report = ArchiveReport { rows: 7, duplicates: 2, quarantined: 1, reached_tip: true, ..behind(&[]) };
        emit(&metrics, "recount-changes", &report, 1_795_350_000_123).unwrap();
        emit(&metrics, "recount-changes", &behind(&[]), 1_795_350_000_123).unwrap();
        let lines = lines.parsed();
        let named = ["ArchiveLagSeconds", "ArchiveRows", "ArchiveDuplicates", "ArchiveQuarantined", "ArchiveLost"];
        assert_eq!(named.map(|name| lines[0][name].as_u64()), [0, 7, 2, 1, 0].map(Some));
        assert_eq!((&lines[0]["Stream"], lines[1].get("ArchiveLagSeconds")), (&"recount-changes".into(), None));
        assert_eq!(lines[0]["_aws"]["CloudWatchMetrics"][0]["Namespace"], "Recount");
    }
}
