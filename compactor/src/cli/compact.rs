//! `recount compact`.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use clap::Args;
use recount_schemas::Month;
use recount_schemas::host::Deadline;

use super::args::Format;
use super::commands::{CommandError, Exit, write};
use super::tables::{count, drawn, plural, table};
use crate::catalog::noted;
use crate::compact::{CompactReport, LEAST_GRACE, Limits, Outcome, check_grace};
use crate::context::Context;
use crate::daily::{Daily, DailyReport};
use crate::erase::{EraseError, Retention};
use crate::progress::Says;

/// The longest a run of the command line lives: an upload must be committed before the log is 64 entries farther, and a
/// schedule may put one each minute.
const LIFE: Duration = Duration::from_secs(40 * 60);

/// What can be typed behind `recount compact`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(
    after_help = "Merges a month's small files into few large ones with the same rows, and deletes what earlier compactions removed, once
its month has shown the new version for the grace. Before that it erases images of months older than `[archive] retain_months`. It may run beside archivers, readers and other compactors.

A month is compacted again only when its last compaction is older than the grace. With --grace 0 removed files are deleted at once:
only where nobody reads by location or by a glob at that moment. Where months are found by a catalog (--stack, or RECOUNT_GLUE_DATABASE)
a grace below 1h is refused, since queries run that long; and a run that was not told of the archive's catalog deletes nothing.

Examples:
  recount compact                             say what would be merged and deleted; change nothing
  recount compact --confirm                   do it
  recount compact --month 2026-11 --confirm   only this month
  recount compact --grace 0 --confirm         local mode: merge, and delete at once

Ends with 0 when nothing is left to do now, with 1 when a plan is shown that has something to do, with 2 when the time was up, or files
were kept for a catalog that it was not told of."
)]
pub struct Compact {
    /// Only this month, as 2026-11.
    #[arg(long)]
    pub month: Option<Month>,
    /// How long a removed file stays, and a month is left alone: 24h, 90m, 30s, 0.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "24h")]
    pub grace: Duration,
    /// Delete by a shorter grace than a query may take: queries that run meanwhile may fail.
    #[arg(long)]
    pub under_readers: bool,
    /// Do it.
    #[arg(long)]
    pub confirm: bool,
}

/// `24h`, `90m`, `30s`, `2d`, `0`. At most ten years.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration; write 24h, 90m, 30s or 0");
    let (digits, unit) = text.split_at(text.len() - text.bytes().rev().take_while(|b| !b.is_ascii_digit()).count());
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let seconds = match unit {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        "s" => 1,
        "" if number == 0 => 1,
        _ => return Err(bad()),
    };
    let seconds = number.checked_mul(seconds).filter(|seconds| *seconds <= 10 * 366 * 86_400).ok_or_else(bad)?;
    Ok(Duration::from_secs(seconds))
}

/// Runs it.
pub async fn run(
    context: &Context,
    args: &Compact,
    format: Format,
    out: &mut (dyn Write + Send),
    says: &Says<'_>,
) -> Result<Exit, CommandError> {
    check_grace(args.grace, context.catalog.as_deref(), args.under_readers).map_err(EraseError::from)?;
    let limits = Limits { grace: args.grace, life: LIFE, ..Limits::default() };
    let (definition, host) = (context.definition.clone(), context.host.clone());
    let daily = Daily::new(context.bucket.clone(), definition, host, limits).with_catalog(context.catalog.as_ref());
    let report = match args.confirm {
        true => daily.run_telling(args.month, Deadline::NONE, says).await?,
        false => daily.plan(args.month).await?,
    };
    let short = context.catalog.is_some() && args.grace < LEAST_GRACE;
    write(out, format, &report, |report| if short { all(report) + UNDER_READERS } else { all(report) })?;
    Ok(exit(&report.compaction))
}

/// What a grace that is shorter than a query means.
const UNDER_READERS: &str = "a query that runs while its files are deleted fails, and is to be run again\n";

fn exit(report: &CompactReport) -> Exit {
    let kept = report.unknown_catalog.is_some();
    match (report.finished, report.confirmed) {
        (true, _) if !kept => Exit::Clean,
        (false, false) => Exit::Findings,
        _ => Exit::Undecided,
    }
}

/// A report for people.
fn all(report: &DailyReport) -> String {
    report.retention.as_ref().map_or_else(String::new, |told| retained(told, report.compaction.confirmed))
        + &shown(&report.compaction)
}

fn retained(retention: &Retention, confirmed: bool) -> String {
    let mut text = String::new();
    let verb = if confirmed { "erased" } else { "to be erased" };
    // Writing to a string cannot fail.
    for (month, told) in &retention.months {
        let (rows, files) = (plural(told.rows, "row"), plural(told.files, "file"));
        let _ = writeln!(text, "{month}: the images of {rows} in {files} {verb}");
    }
    if retention.waiting > 0 {
        let (months, since) = (plural(retention.waiting, "more month"), retention.kept_since);
        let _ = writeln!(text, "for a later run: {months} before {since}");
    }
    text
}

fn shown(report: &CompactReport) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    if !report.months.is_empty() {
        let mut months = table(&["month", "", "files", "rows", "bytes", "into", "carried"].map(str::to_owned), 2);
        for (month, told) in &report.months {
            months.add_row([
                month.to_string(),
                outcome(&told.outcome),
                count(told.files),
                count(told.rows),
                count(told.bytes),
                count(told.into),
                count(told.live - told.files),
            ]);
        }
        let _ = writeln!(text, "{}\n", drawn(&months));
    }
    let merged = report.months.values().filter(|month| matches!(month.outcome, Outcome::Compacted(_))).count();
    let merged = plural(merged as u64, "month");
    let (deleted, bytes) = (plural(report.deleted, "removed file"), plural(report.deleted_bytes, "byte"));
    if report.confirmed {
        let _ = writeln!(text, "{merged} compacted, {deleted} with {bytes} deleted");
    } else {
        let _ = writeln!(text, "{deleted} with {bytes} can be deleted");
    }
    let waiting = plural(report.waiting, "removed file");
    if let Some(catalog) = &report.unknown_catalog {
        let _ = writeln!(text, "nothing is compacted, and {waiting} kept: {}", noted::why_kept(catalog));
    } else if report.waiting > 0 {
        let _ = writeln!(text, "{waiting} kept until their month's grace is over");
    }
    if report.confirmed && !report.finished {
        let _ = writeln!(text, "the time was up before all was done; run it again");
    }
    if !report.confirmed {
        let next = if report.finished { "nothing to do" } else { "nothing was changed; --confirm does it" };
        let _ = writeln!(text, "{next}");
    }
    text
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Planned => "to be compacted".to_owned(),
        Outcome::Compacted(n) => format!("compacted by entry {n}"),
        Outcome::NotDue(ms) => match jiff::Timestamp::from_millisecond(*ms) {
            Ok(time) => format!("not before {}", time.strftime("%Y-%m-%d %H:%M UTC")),
            Err(_) => "not before its grace is over".to_owned(),
        },
        Outcome::Overtaken => "replaced by another run meanwhile".to_owned(),
        Outcome::TooLate => "too slow: the log went on".to_owned(),
        Outcome::NoTime => "no time left".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compact::{GRACE, MonthReport};

    #[test]
    fn durations_are_numbers_with_a_unit() {
        for (text, seconds) in [("24h", 86_400), ("0", 0), ("90m", 5_400), ("30s", 30), ("2d", 172_800), ("0h", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "5", "-1h", "1w", "1.5h", "99999999999999999999h", "9999999999d", "5 h", "5é"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("24h"), Ok(GRACE));
    }

    #[test]
    fn a_plan_and_a_run_read_well() {
        let month = |outcome| MonthReport {
            outcome,
            live: 1_500,
            files: 1_440,
            rows: 2_000_000,
            bytes: 123_456_789,
            into: 23,
            into_bytes: 0,
        };
        let plan = CompactReport {
            months: [
                ("2026-10".parse().unwrap(), month(Outcome::NotDue(1_793_491_200_000))),
                ("2026-11".parse().unwrap(), month(Outcome::Planned)),
            ]
            .into(),
            deleted: 3,
            deleted_bytes: 4_096,
            waiting: 7,
            ..CompactReport::default()
        };
        insta::assert_snapshot!(shown(&plan), @r"
        ──────────────────────────────────────────────────────────────────────────────────────────────
         month                                       files        rows         bytes   into   carried
        ══════════════════════════════════════════════════════════════════════════════════════════════
         2026-10   not before 2026-11-01 00:00 UTC   1,440   2,000,000   123,456,789     23        60
         2026-11   to be compacted                   1,440   2,000,000   123,456,789     23        60
        ──────────────────────────────────────────────────────────────────────────────────────────────

        3 removed files with 4,096 bytes can be deleted
        7 removed files kept until their month's grace is over
        nothing was changed; --confirm does it
        ");
        let run = CompactReport {
            confirmed: true,
            finished: true,
            months: [("2026-11".parse().unwrap(), month(Outcome::Compacted(77)))].into(),
            ..CompactReport::default()
        };
        insta::assert_snapshot!(shown(&run), @r"
        ────────────────────────────────────────────────────────────────────────────────────
         month                             files        rows         bytes   into   carried
        ════════════════════════════════════════════════════════════════════════════════════
         2026-11   compacted by entry 77   1,440   2,000,000   123,456,789     23        60
        ────────────────────────────────────────────────────────────────────────────────────

        1 month compacted, 0 removed files with 0 bytes deleted
        ");
        assert_eq!((exit(&plan), exit(&run)), (Exit::Findings, Exit::Clean));
    }

    #[test]
    fn a_run_that_was_not_told_of_the_catalog_says_what_it_kept_and_why() {
        let report = |finished, confirmed, waiting| CompactReport {
            finished,
            confirmed,
            waiting,
            unknown_catalog: Some("Glue database lake".to_owned()),
            ..CompactReport::default()
        };
        let codes = [(true, true, 0), (true, true, 3), (true, false, 3), (false, false, 3)];
        let codes = codes.map(|(finished, confirmed, waiting)| exit(&report(finished, confirmed, waiting)));
        assert_eq!(codes, [Exit::Undecided, Exit::Undecided, Exit::Undecided, Exit::Findings]);
        insta::assert_snapshot!(shown(&report(true, true, 3)), @r"
        0 months compacted, 0 removed files with 0 bytes deleted
        nothing is compacted, and 3 removed files kept: readers find this archive's months by Glue database lake, which this run was not told of: a location may still show removed files, so none is deleted. Give --stack, or RECOUNT_GLUE_DATABASE; if nobody reads by it any more, delete _catalog/noted.json from the bucket
        ");
    }
}
