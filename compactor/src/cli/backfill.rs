//! `recount backfill`: the items whose INSERT was never captured.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use clap::Args;
use recount_schemas::terminal::{shown, shown_line};
use recount_schemas::{Delta, Group, Month};
use serde::Serialize;

use super::args::Format;
use super::audit::ReadingArgs;
use super::commands::{CommandError, Exit, write};
use super::tables::{count, drawn, header, plural, table};
use crate::backfill::{Applied, BackfillError, Named, Pacing, apply, fetch, make, report, settled_us};
use crate::context::Context;
use crate::progress::Says;
use crate::reconcile::diff::in_words;
use crate::table::time;

/// Months of groups that a table shows.
const SHOWN: usize = 200;

/// What is typed behind `recount backfill`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(
    after_help = "Makes a plan of the items whose INSERT the archive lacks, keeps it under backfills/ and shows it. With --confirm each gets its
row in the archive and is counted, once, however often this is run and whatever comes meanwhile.

An item that was inserted just before it was read may be on its way still: see the runbook on what --settle must be.

Examples:
  recount backfill --rate 200                          make a plan and show it; count nothing
  recount backfill --plan HASH --confirm               apply just that plan; after a crash, the same again
  recount backfill --export s3://exports/AWSDynamoDB/01693685827463-2d8752fd --confirm

Ends with 0 if nothing is left to do, else 1."
)]
pub struct BackfillArgs {
    /// How the table is read.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// How long a change may take from the table into the stream, in seconds: so long after the reading nothing is applied.
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(0..=1_209_600))]
    pub settle: u64,
    /// Where the definition names no occurred_at: let all items count in the present month.
    #[arg(long)]
    pub this_month: bool,
    /// A kept plan, by its hash, instead of a new one.
    #[arg(long, value_name = "HASH", value_parser = hash, conflicts_with_all = ["export", "work", "this_month"])]
    pub plan: Option<String>,
    /// Apply it.
    #[arg(long)]
    pub confirm: bool,
    /// Events counted a second at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub events_per_second: Option<u32>,
}

fn hash(text: &str) -> Result<String, &'static str> {
    let is_hash = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_hash { Ok(text.to_owned()) } else { Err("a plan is named by 64 lower-case hexadecimal digits") }
}

/// What a backfill did, or would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Report {
    confirmed: bool,
    /// The plan's hash.
    plan: String,
    /// How the table was read, and when.
    source: String,
    read_from: String,
    read_to: String,
    /// Items that are missing and can be counted.
    items: u64,
    /// Of these: without any archived change; captured from the middle; come back behind a removal.
    never_captured: u64,
    insert_missing: u64,
    came_back: u64,
    months: Vec<Line>,
    refused: Vec<crate::backfill::plan::Refused>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<Applied>,
    /// Whether an earlier run applied it to its end, and this one had nothing to do.
    applied_before: bool,
    /// Before this nothing is applied, where that is to come.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Line {
    group: Group,
    month: Month,
    #[serde(flatten)]
    add: Delta,
}

impl Report {
    fn new(named: &Named, confirmed: bool, applied: Option<Applied>) -> Self {
        let plan = &named.plan;
        let mut months: BTreeMap<(Group, Month), Delta> = BTreeMap::new();
        for sum in &plan.cells {
            let line = months.entry((sum.cell.group.clone(), sum.cell.month)).or_default();
            *line = line.checked_add(&sum.add).unwrap_or_else(|| line.clone());
        }
        Self {
            confirmed,
            plan: named.hash.clone(),
            source: plan.source.clone(),
            read_from: time(plan.read_us.0),
            read_to: time(plan.read_us.1),
            items: plan.items(),
            never_captured: plan.whole,
            insert_missing: plan.before,
            came_back: plan.behind,
            months: months.into_iter().map(|((group, month), add)| Line { group, month, add }).collect(),
            refused: plan.refused.clone(),
            applied,
            applied_before: false,
            not_before: None,
        }
    }

    fn exit(&self) -> Exit {
        let left = match &self.applied {
            Some(applied) => applied.moved > 0 || applied.too_old > 0 || applied.uncounted > 0,
            None => self.items > 0,
        };
        if left || !self.refused.is_empty() { Exit::Findings } else { Exit::Clean }
    }
}

/// Runs it.
pub async fn run(
    context: &Context,
    args: BackfillArgs,
    format: Format,
    out: &mut (dyn Write + Send),
    says: &Says<'_>,
) -> Result<Exit, CommandError> {
    context.check_definition().await?;
    let named = match &args.plan {
        Some(hash) => fetch(context, hash).await?,
        // Consistent: what it shows is written down as an event.
        None => make(context, &args.reading.reading(true), args.this_month, says).await?,
    };
    let pacing = Pacing { settle: Duration::from_secs(args.settle), events: args.events_per_second };
    let before = report(context, &named.hash).await?;
    let applied_before = before.is_some();
    let applied = match before {
        None if args.confirm => Some(apply(context, &named, pacing, says).await?),
        before => before,
    };
    let settled_us =
        settled_us(&named.plan, pacing.settle).filter(|us| applied.is_none() && *us > context.host.now_us());
    let not_before = settled_us.map(time);
    let report = Report { applied_before, not_before, ..Report::new(&named, args.confirm, applied) };
    write(out, format, &report, shown_report)?;
    if args.plan.is_none() {
        args.reading.reading(true).answered().map_err(BackfillError::from)?;
    }
    Ok(report.exit())
}

fn shown_report(report: &Report) -> String {
    let mut text = String::new();
    if !report.months.is_empty() {
        let mut rows = table(&header(&["group", "month", "to be added"], &[]), 2);
        for line in report.months.iter().take(SHOWN) {
            rows.add_row(vec![shown(line.group.as_str()), line.month.to_string(), in_words(&line.add)]);
        }
        let _ = writeln!(text, "{}", drawn(&rows));
        if report.months.len() > SHOWN {
            let _ = writeln!(text, "… and {} more (--format json has all)", report.months.len() - SHOWN);
        }
        text.push('\n');
    }
    for refused in &report.refused {
        let items = plural(refused.items, "item");
        let _ = writeln!(text, "{items} cannot be counted: {}", shown_line(&refused.reason));
        let _ = writeln!(text, "  {}", shown_line(&refused.keys.join(" ")));
    }
    let _ = writeln!(
        text,
        "plan {}: {} to be inserted ({} never captured, {} from the middle, {} come back), by {}, read {} to {}",
        report.plan,
        plural(report.items, "item"),
        count(report.never_captured),
        count(report.insert_missing),
        count(report.came_back),
        shown_line(&report.source),
        report.read_from,
        report.read_to,
    );
    match &report.applied {
        Some(_) if report.items == 0 => text.push_str("there is nothing to bring in\n"),
        Some(applied) => {
            let when = if report.applied_before { "applied by an earlier run" } else { "applied" };
            let _ = writeln!(
                text,
                "{when}: {} added to the archive ({} before), {} counted ({} before)",
                plural(applied.added, "row"),
                count(applied.added_before),
                plural(applied.counted, "event"),
                count(applied.counted_before),
            );
            let left = [
                (
                    applied.uncounted,
                    "not counted, their cell's item is not understood: mend it (`recount reconcile` names it), then apply this plan again",
                ),
                (applied.captured, "captured meanwhile: nothing is missing of them"),
                (applied.backfilled, "brought in by another plan"),
                (applied.moved, "changed meanwhile: make another plan for them"),
                (applied.too_old, "too old for the ledger: `recount repair` puts them into the number"),
            ];
            for (items, why) in left.into_iter().filter(|(items, _)| *items > 0) {
                let _ = writeln!(text, "  {} {why}", plural(items, "item"));
            }
        }
        None if report.items == 0 => text.push_str("there is nothing to bring in\n"),
        None => {
            let wait = report
                .not_before
                .as_ref()
                .map_or_else(String::new, |at| format!(", which waits until {at} (--settle)"));
            let _ = writeln!(text, "nothing was counted; apply it with --plan HASH --confirm{wait}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_for_people_and_for_programs() {
        let mut report = Report {
            confirmed: false,
            plan: "0".repeat(64),
            source: "scan".into(),
            read_from: time(1_793_500_000_000_000),
            read_to: time(1_793_500_060_000_000),
            items: 1_234,
            never_captured: 1_230,
            insert_missing: 3,
            came_back: 1,
            months: vec![Line {
                group: "acme\u{1b}".parse().unwrap(),
                month: "2026-11".parse().unwrap(),
                add: Delta { events: 1_234, sums: smallvec::smallvec!["12.5".parse().unwrap()] },
            }],
            refused: vec![crate::backfill::plan::Refused {
                reason: "no_group: the item has no attribute \"project_id\"".into(),
                items: 1,
                keys: vec![r#"{"scan_id":{"S":"x"}}"#.into()],
            }],
            applied: None,
            applied_before: false,
            not_before: None,
        };
        insta::assert_snapshot!(shown_report(&report), @r###"
        ────────────────────────────────────────────────
         group        month                 to be added
        ════════════════════════════════════════════════
         acme\u{1b}   2026-11   +1234 events, sums 12.5
        ────────────────────────────────────────────────

        1 item cannot be counted: no_group: the item has no attribute "project_id"
          {"scan_id":{"S":"x"}}
        plan 0000000000000000000000000000000000000000000000000000000000000000: 1,234 items to be inserted (1,230 never captured, 3 from the middle, 1 come back), by scan, read 2026-11-01T02:26:40Z to 2026-11-01T02:27:40Z
        nothing was counted; apply it with --plan HASH --confirm
        "###);
        report.not_before = Some(time(1_793_500_960_000_000));
        let text = shown_report(&report);
        insta::assert_snapshot!(text.lines().last().unwrap(), @"nothing was counted; apply it with --plan HASH --confirm, which waits until 2026-11-01T02:42:40Z (--settle)");
        report.not_before = None;
        report.applied = Some(Applied {
            format: 1,
            added: 1_230,
            counted: 1_230,
            moved: 2,
            captured: 2,
            uncounted: 2,
            ..Applied::default()
        });
        let text = shown_report(&report);
        let (_, behind_the_plan) = text.split_once("applied: ").unwrap();
        insta::assert_snapshot!(behind_the_plan, @r"
        1,230 rows added to the archive (0 before), 1,230 events counted (0 before)
          2 items not counted, their cell's item is not understood: mend it (`recount reconcile` names it), then apply this plan again
          2 items captured meanwhile: nothing is missing of them
          2 items changed meanwhile: make another plan for them
        ");
        insta::assert_snapshot!(serde_json::to_string(&report).unwrap().replace('\u{1b}', "<ESC>"), @r###"{"confirmed":false,"plan":"0000000000000000000000000000000000000000000000000000000000000000","source":"scan","read_from":"2026-11-01T02:26:40Z","read_to":"2026-11-01T02:27:40Z","items":1234,"never_captured":1230,"insert_missing":3,"came_back":1,"months":[{"group":"acme\u001b","month":"2026-11","events":1234,"sums":["12.5"]}],"refused":[{"reason":"no_group: the item has no attribute \"project_id\"","items":1,"keys":["{\"scan_id\":{\"S\":\"x\"}}"]}],"applied":{"format":1,"added":1230,"added_before":0,"counted":1230,"counted_before":0,"too_old":0,"uncounted":2,"captured":2,"moved":2,"backfilled":0,"left_out":[]},"applied_before":false}"###);
        report.applied_before = true;
        insta::assert_snapshot!(shown_report(&report).lines().find(|line| line.starts_with("applied")).unwrap(), @"applied by an earlier run: 1,230 rows added to the archive (0 before), 1,230 events counted (0 before)");
        assert_eq!(report.exit(), Exit::Findings);
        report.refused.clear();
        assert_eq!(report.exit(), Exit::Findings, "some moved");
        report.applied = Some(Applied::default());
        assert_eq!(report.exit(), Exit::Clean);
        report.applied = None;
        assert_eq!(report.exit(), Exit::Findings, "a plan that is only shown");
        report.items = 0;
        assert_eq!(report.exit(), Exit::Clean);
        report.applied = Some(Applied::default());
        assert!(shown_report(&report).ends_with("\nthere is nothing to bring in\n"), "not that nothing was added");
    }
}
