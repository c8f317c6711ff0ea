//! `recount audit`: the archive against the source table.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use recount_schemas::terminal::{shown, shown_line};

use super::args::Format;
use super::commands::{CommandError, Exit, write};
use super::tables::{count, drawn, header, plural, table};
use crate::audit::{self, Options, Report};
use crate::context::Context;
use crate::progress::Says;
use crate::reconcile::Verdict;
use crate::table::Reading;
use crate::table::scan::MAX_SEGMENTS;

/// Findings that a table shows.
const SHOWN: usize = 200;

/// How the source table is read.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ReadingArgs {
    /// A point-in-time export instead of a Scan: s3://BUCKET/PREFIX/AWSDynamoDB/ID, FULL_EXPORT in DYNAMODB_JSON.
    #[arg(long, value_name = "ADDRESS")]
    pub export: Option<String>,
    /// Segments of the Scan, read side by side.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_SEGMENTS)))]
    pub segments: u16,
    /// Read units a second at most; all that the table gives where absent.
    #[arg(long, value_name = "UNITS", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Keep what was read in this directory until the command ends with 0 or 1: cut before, the same command goes on there, within
    /// seven days of its beginning. Later, and after an end, it reads the table anew. It takes the table's size.
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
}

impl ReadingArgs {
    /// As the library takes it.
    pub fn reading(&self, consistent: bool) -> Reading {
        Reading {
            export: self.export.clone(),
            segments: self.segments,
            rate: self.rate.map(f64::from),
            consistent,
            work: self.work.clone(),
        }
    }
}

/// What is typed behind `recount audit`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(
    after_help = "Finds what was lost before any stream: totals that equal the archive prove only the consumer. Reads the table, archives to
the tip, compares, and looks again at what differs; changes nothing.
Finding kinds: never_captured differs deletion_missed insert_missing captured_twice quarantined.

Examples:
  recount audit --rate 100 --work /var/tmp/audit        a Scan at 100 read units a second, to be gone on with after a crash
  recount audit --export s3://exports/AWSDynamoDB/01693685827463-2d8752fd
                                                        no load on the table; what is compared is the time of the export"
)]
pub struct AuditArgs {
    /// How the table is read.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// How long a change may take from the table into the stream, in seconds. What is not archived so long after it was seen
    /// a second time is a finding. It is waited for twice at most, and only where something differs.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub settle: u64,
}

/// Runs it.
pub async fn run(
    context: &Context,
    args: AuditArgs,
    format: Format,
    out: &mut (dyn Write + Send),
    says: &Says<'_>,
) -> Result<Exit, CommandError> {
    context.check_definition().await?;
    // Eventually consistent, at half the price: what it shows wrong is read again, consistently.
    let options = Options { reading: args.reading.reading(false), settle: Duration::from_secs(args.settle) };
    let report = audit::audit(context, &options, says).await?;
    write(out, format, &report, shown_report)?;
    if report.verdict != Verdict::Undecided {
        options.reading.answered().map_err(audit::AuditError::from)?;
    }
    Ok(report.verdict.into())
}

fn shown_report(report: &Report) -> String {
    let mut text = String::new();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    if !report.findings.is_empty() {
        let names = ["finding", "group", "month", "key", "last archived change", "in"];
        let mut rows = table(&header(&names, &[]), 6);
        for finding in report.findings.iter().take(SHOWN) {
            let last = finding.last.as_ref();
            rows.add_row(vec![
                finding.kind.as_str().to_owned(),
                or_dash(finding.group.as_ref().map(|group| shown(group.as_str()))),
                or_dash(finding.month.map(|month| month.to_string())),
                shown_line(&finding.key.to_string()),
                or_dash(last.map(|last| format!("{} {} {}", last.event_name, last.created_at, shown(&last.event_id)))),
                or_dash(last.map(|last| format!("{} at {}", last.shard_id, last.sequence_number))),
            ]);
        }
        let _ = writeln!(text, "{}", drawn(&rows));
        if report.findings.len() > SHOWN {
            let _ = writeln!(text, "… and {} more (--format json has all)", report.findings.len() - SHOWN);
        }
        text.push('\n');
    }
    if !report.counts.is_empty() {
        let mut rows = table(&header(&["group", "month", "items in the table", "in the archive"], &[]), 2);
        for found in report.counts.iter().take(SHOWN) {
            let group = shown(found.group.as_str());
            rows.add_row(vec![group, found.month.to_string(), count(found.in_table), count(found.in_archive)]);
        }
        let _ = writeln!(text, "{}\n", drawn(&rows));
    }
    let what = match report.verdict {
        Verdict::Clean => "clean: the archive has every item of the table".to_owned(),
        Verdict::Findings => plural(report.findings.len() as u64, "finding"),
        Verdict::Undecided => {
            format!("undecided: {}", shown(report.undecided_because.as_deref().unwrap_or("the archive is behind")))
        }
    };
    let (items, changes) = (plural(report.table.items, "item"), plural(report.changes, "archived change"));
    let _ = writeln!(
        text,
        "{what} ({items} by {}, read {} to {}, {changes} of {} compared; {} looked at again; {:.0} read units)",
        shown_line(&report.table.source),
        report.table.from,
        report.table.to,
        plural(report.archived_items, "item"),
        report.looked_at_again,
        report.table.read_units,
    );
    if report.more > 0 {
        let _ = writeln!(text, "{} differed too, and were not looked at again", plural(report.more, "more item"));
    }
    if report.may_be_erased > 0 {
        let _ = writeln!(text, "{} may have been erased from the archive", plural(report.may_be_erased, "item"));
    }
    if report.without_key > 0 {
        let _ = writeln!(text, "{} belong to no item that can be told", plural(report.without_key, "archived change"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::report::{Count, LastChange};
    use crate::audit::{Finding, Kind};
    use crate::table::Source;

    #[test]
    fn a_report_for_people_and_for_programs() {
        let last = LastChange {
            event_id: "f89436e0\u{1b}[2J".into(),
            event_name: "INSERT".into(),
            created_at: "2026-11-04T07:28:34Z".into(),
            shard_id: "shardId-000000000001".parse().unwrap(),
            sequence_number: "4965".parse().unwrap(),
        };
        let finding = |kind: Kind, last| Finding {
            kind,
            key: serde_json::json!({"scan_id": {"S": "s1\u{202e}"}}),
            group: "acme".parse().ok(),
            month: "2026-11".parse().ok(),
            last,
            detail: kind.meaning().to_owned(),
        };
        let source = Source {
            source: "scan".into(),
            items: 1_200,
            read_units: 17.5,
            from: "2026-11-04T07:00:00Z".into(),
            to: "2026-11-04T07:10:00Z".into(),
        };
        let mut report = Report {
            verdict: Verdict::Findings,
            undecided_because: None,
            table: source,
            changes: 1_301,
            archived_items: 1_199,
            looked_at_again: 3,
            without_key: 0,
            may_be_erased: 0,
            findings: vec![finding(Kind::NeverCaptured, None), finding(Kind::DeletionMissed, Some(last))],
            more: 0,
            counts: vec![Count {
                group: "acme".parse().unwrap(),
                month: "2026-11".parse().unwrap(),
                in_table: 7,
                in_archive: 7,
            }],
        };
        let text = shown_report(&report);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()) && !text.contains('\u{202e}'), "{text:?}");
        insta::assert_snapshot!(text, @r###"
        ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         finding           group   month     key                              last archived change                            in
        ═══════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════
         never_captured    acme    2026-11   {"scan_id":{"S":"s1\u{202e}"}}   -                                               -
         deletion_missed   acme    2026-11   {"scan_id":{"S":"s1\u{202e}"}}   INSERT 2026-11-04T07:28:34Z f89436e0\u{1b}[2J   shardId-000000000001 at 4965
        ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

        ───────────────────────────────────────────────────────
         group   month     items in the table   in the archive
        ═══════════════════════════════════════════════════════
         acme    2026-11                    7                7
        ───────────────────────────────────────────────────────

        2 findings (1,200 items by scan, read 2026-11-04T07:00:00Z to 2026-11-04T07:10:00Z, 1,301 archived changes of 1,199 items compared; 3 looked at again; 18 read units)
        "###);
        insta::assert_snapshot!(serde_json::to_string(&report).unwrap().replace('\u{202e}', "<RLO>"), @r###"{"verdict":"findings","table":{"source":"scan","items":1200,"read_units":17.5,"from":"2026-11-04T07:00:00Z","to":"2026-11-04T07:10:00Z"},"changes":1301,"archived_items":1199,"looked_at_again":3,"findings":[{"kind":"never_captured","key":{"scan_id":{"S":"s1<RLO>"}},"group":"acme","month":"2026-11","last":null,"detail":"in the table, but the archive has no content of it"},{"kind":"deletion_missed","key":{"scan_id":{"S":"s1<RLO>"}},"group":"acme","month":"2026-11","last":{"event_id":"f89436e0\u001b[2J","event_name":"INSERT","created_at":"2026-11-04T07:28:34Z","shard_id":"shardId-000000000001","sequence_number":"4965"},"detail":"not in the table, but its last archived change is no REMOVE"}],"counts":[{"group":"acme","month":"2026-11","in_table":7,"in_archive":7}]}"###);
        report.findings.clear();
        report.counts.clear();
        report.verdict = Verdict::Clean;
        insta::assert_snapshot!(shown_report(&report), @"clean: the archive has every item of the table (1,200 items by scan, read 2026-11-04T07:00:00Z to 2026-11-04T07:10:00Z, 1,301 archived changes of 1,199 items compared; 3 looked at again; 18 read units)");
    }
}
