//! `recount fsck`.

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;
use recount_schemas::Month;
use recount_schemas::terminal::shown_line;

use super::args::Format;
use super::commands::{CommandError, Exit, write};
use super::tables::{plural, table};
use crate::context::Context;
use crate::fsck::{Options, Report, fsck, mend};
use crate::progress::{Says, Work};
use crate::reconcile::Verdict;

/// Findings of a table; JSON has more.
const SHOWN: usize = 200;

/// What can be typed behind `recount fsck`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(after_help = "Reads only, unless --repair --confirm is given. It may run beside the pipeline, at any time.

Finding kinds, of the log: log_missing log_changed log_invalid state lost; of files: missing unpublished size digest unreadable
rows order key_range group_range fingerprint position repeated row summary compaction; of names: leftover foreign orphan; of what is kept
beside the archive: quarantine conflict aside; of the catalog: location.

Examples:
  recount fsck                        log, names, every byte and row of every live file
  recount fsck --month 2026-11        the same, of the files of one month
  recount fsck --deep                 make each row anew from its own record, too
  recount fsck --repair               say what could safely be repaired; change nothing
  recount fsck --repair --confirm     repair that: finish the last commit, delete uploads that were given up

Ends with 1 where something is wrong, with what to do about it, with 2 where the log has nothing of the month.")]
pub struct Fsck {
    /// Read only this month's files, as 2026-11.
    #[arg(long)]
    pub month: Option<Month>,
    /// Make each row anew from its own record, and read each kept record.
    #[arg(long)]
    pub deep: bool,
    /// Say what can safely be repaired.
    #[arg(long)]
    pub repair: bool,
    /// Do it.
    #[arg(long, requires = "repair")]
    pub confirm: bool,
}

/// Runs it.
pub async fn run(
    context: &Context,
    args: &Fsck,
    format: Format,
    out: &mut (dyn Write + Send),
    says: &Says<'_>,
) -> Result<Exit, CommandError> {
    let options = Options { month: args.month, deep: args.deep };
    let catalog = context.catalog.as_deref();
    let check = || fsck(&context.bucket, &context.host, &context.definition, catalog, options, says);
    let mut report = check().await?;
    if args.repair {
        let steps = mend(&context.bucket, &context.host, catalog, &report, args.confirm).await?;
        if args.confirm && !steps.is_empty() {
            says(Work::Step("checking again"));
            report = check().await?;
        }
        report.repair = steps;
    }
    write(out, format, &report, |report| shown(report, args.confirm))?;
    Ok(report.verdict.into())
}

/// A report for people.
fn shown(report: &Report, confirmed: bool) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    if !report.findings.is_empty() {
        let mut findings = table(&["finding", "object", "what was found"].map(str::to_owned), 3);
        for finding in report.findings.iter().take(SHOWN) {
            findings.add_row([finding.kind.as_str(), &shown_line(&finding.object), &shown_line(&finding.detail)]);
        }
        let _ = writeln!(text, "{}\n", super::tables::drawn(&findings));
        let unlisted = report.findings.len().saturating_sub(SHOWN) as u64 + report.more.values().sum::<u64>();
        if unlisted > 0 {
            let _ = writeln!(text, "not shown: {}; --format json has more\n", plural(unlisted, "more finding"));
        }
        let mut kinds: Vec<_> = report.findings.iter().map(|finding| finding.kind).collect();
        kinds.dedup(); // they are sorted by kind
        for kind in kinds {
            let _ = writeln!(text, "{}: {}", kind.as_str(), kind.remedy());
        }
        text.push('\n');
    }
    for step in &report.repair {
        let action = match (step.action, confirmed) {
            (crate::fsck::mend::Action::Publish, true) => "published",
            (crate::fsck::mend::Action::Publish, false) => "would publish",
            (crate::fsck::mend::Action::Delete, true) => "deleted",
            (crate::fsck::mend::Action::Delete, false) => "would delete",
        };
        let _ = writeln!(text, "{action} {}", shown_line(&step.object));
    }
    if !report.repair.is_empty() && !confirmed {
        let _ = writeln!(text, "nothing was changed; --repair --confirm does it");
    }
    if let Some(why) = &report.stopped {
        let _ = writeln!(text, "{}", shown_line(why));
    }
    let checked = &report.checked;
    let _ = writeln!(
        text,
        "{}: {} of the log, {} with {} and {}{}, {} under events/ and _staging/, {}",
        match report.verdict {
            Verdict::Clean => "clean",
            Verdict::Findings => "findings",
            Verdict::Undecided => "undecided",
        },
        plural(checked.entries, "entry"),
        plural(checked.files, "file"),
        plural(checked.rows, "row"),
        plural(checked.bytes, "byte"),
        checked.month.map_or_else(String::new, |month| format!(" of {month}")),
        plural(checked.objects.saturating_sub(checked.files), "other object"),
        plural(checked.quarantined + checked.conflicts, "kept record"),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsck::mend::{Action, Step};
    use crate::fsck::{Checked, Finding, Kind};

    #[test]
    fn a_report_says_what_is_wrong_and_what_to_do() {
        let findings = vec![
            Finding::new(Kind::Missing, "events/month=2026-11/000000000000/000000000003-0.parquet", "not there"),
            Finding::new(Kind::Orphan, "_staging/000000000000-ab/0", "begun \u{1b}[31m long ago"),
        ];
        let step = Step { action: Action::Delete, object: "_staging/000000000000-ab/0".into() };
        let report = Report {
            verdict: Verdict::Findings,
            checked: Checked { entries: 70, files: 3, rows: 12_345, objects: 4, ..Checked::default() },
            findings,
            more: [(Kind::Orphan, 7)].into(),
            stopped: None,
            repair: vec![step],
        };
        insta::assert_snapshot!(shown(&report, false), @r"
        ────────────────────────────────────────────────────────────────────────────────────────────────
         finding   object                                                     what was found
        ════════════════════════════════════════════════════════════════════════════════════════════════
         missing   events/month=2026-11/000000000000/000000000003-0.parquet   not there
         orphan    _staging/000000000000-ab/0                                 begun \u{1b}[31m long ago
        ────────────────────────────────────────────────────────────────────────────────────────────────

        not shown: 7 more findings; --format json has more

        missing: restore the version of the object that has the log's SHA-256
        orphan: the next archive run, or --repair --confirm, deletes it

        would delete _staging/000000000000-ab/0
        nothing was changed; --repair --confirm does it
        findings: 70 entries of the log, 3 files with 12,345 rows and 0 bytes, 1 other object under events/ and _staging/, 0 kept records
        ");
    }
}
