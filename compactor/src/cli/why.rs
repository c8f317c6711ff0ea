//! `recount why`.

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;
use recount_schemas::terminal::{shown, shown_line};

use super::args::Format;
use super::commands::{CommandError, Exit, write};
use super::tables::{count, delta, plural};
use crate::context::Context;
use crate::progress::Says;
use crate::why::cells::Ledger;
use crate::why::{Archived, Kept, Report, Standing, why};

/// What can be typed behind `recount why`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(
    after_help = "Reads only. Without --at it reads the event IDs of the whole archive. What the stream has and the archive does not have yet is
not found: run `recount archive` first.

Ends with 1 where the event is neither archived nor kept aside.

Examples:
  recount why 8d2f9c0e1b7a4f55
  recount why 8d2f9c0e1b7a4f55 --at 2026-11-22T19:00:00Z --format json"
)]
pub struct Why {
    /// The record's event ID.
    pub event_id: String,
    /// About when the change was made, to an hour: only files that can have it are searched.
    #[arg(long, value_name = "TIME")]
    pub at: Option<jiff::Timestamp>,
}

/// Runs it.
pub async fn run(
    context: &Context,
    args: &Why,
    format: Format,
    out: &mut (dyn Write + Send),
    says: &Says<'_>,
) -> Result<Exit, CommandError> {
    let report = why(context, &args.event_id, args.at.map(|at| at.as_millisecond()), says).await?;
    write(out, format, &report, told)?;
    Ok(if report.is_found() { Exit::Clean } else { Exit::Findings })
}

/// A report for people. Writing to a string cannot fail.
fn told(report: &Report) -> String {
    let mut text = String::new();
    for event in &report.archived {
        archived(&mut text, event);
    }
    for record in &report.kept {
        kept(&mut text, record);
    }
    let searched = &report.searched;
    let _ = write!(
        text,
        "{}: {} with {} searched, {} read",
        if report.is_found() { "found" } else { "not found: neither archived nor kept beside the archive" },
        plural(searched.files, "file"),
        plural(searched.rows, "row"),
        plural(searched.kept, "kept record"),
    );
    if searched.kept_unread > 0 {
        let _ = write!(text, ", {} more of them not", count(searched.kept_unread));
    }
    text.push('\n');
    text
}

fn archived(text: &mut String, event: &Archived) {
    let group = event.group.as_ref().map_or_else(|| "no group".to_owned(), |group| shown(group.as_str()));
    let _ = writeln!(
        text,
        "{} of {}: {group}, {}, made {}, event time {}",
        shown(&event.event_name),
        shown(&event.table),
        event.month,
        event.created_at,
        event.occurred_at
    );
    let _ = writeln!(text, "  stream    {} {}, arrived {}", event.shard_id, event.sequence_number, event.arrived_at);
    let row = &event.row;
    let _ = writeln!(
        text,
        "  archive   {}, row {} (row group {}, row {}), key {}",
        shown_line(&row.file),
        row.row,
        row.row_group,
        row.row_in_group,
        event.event_key
    );
    match &event.read_by {
        Some(entry) => drop(writeln!(text, "  commit    log entry {}, made {}", entry.entry, entry.at)),
        None => {
            let entries: Vec<String> = event.brought_by.iter().map(u64::to_string).collect();
            let _ =
                writeln!(text, "  commit    not read from the stream: brought by log entry {}", entries.join(" or "));
        }
    }
    if event.cells.is_empty() {
        let why = event.ignored.as_deref().unwrap_or("adds_nothing");
        let _ = writeln!(text, "  counts    nothing: {why}");
    }
    for cell in &event.cells {
        standing(text, cell);
    }
}

fn standing(text: &mut String, cell: &Standing) {
    let _ = writeln!(
        text,
        "  cell      {} {} lane {}: {}; {}: {}",
        shown(cell.group.as_str()),
        cell.month,
        cell.lane,
        delta(&cell.adds),
        if cell.counted { "in the number" } else { "not in the number" },
        cell.why
    );
    let ledger = match &cell.ledger {
        Some(Ledger::Recent) => "in the cell's item (recent)".to_owned(),
        Some(Ledger::Page(name)) => format!("on page {name}"),
        Some(Ledger::OrphanPage(name)) => format!("not in it; on page {name} of a sealing that broke off"),
        None => "not in it".to_owned(),
    };
    let said = |yes, what: &'static str| if yes { what } else { "" };
    let _ = writeln!(
        text,
        "  ledger    {ledger}; {} its position{}{}",
        if cell.passed { "the consumer has passed" } else { "the consumer has not passed" },
        said(cell.quarantined, "; in quarantine"),
        said(cell.too_old, "; on the too-old list")
    );
    for plan in &cell.plans {
        let _ = writeln!(text, "  plan      {} by {}", shown(&plan.said), shown(&plan.plan));
    }
}

fn kept(text: &mut String, record: &Kept) {
    let _ = writeln!(
        text,
        "kept aside: {}\n  stream    {} {}, arrived {}\n  reason    {}",
        shown_line(&record.object),
        record.shard_id,
        record.sequence_number,
        record.arrived_at,
        shown_line(&record.reason.to_string())
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Dated;
    use crate::why::cells::Said;
    use crate::why::{Place, search::Searched};
    use recount_schemas::{Delta, EventKey};

    #[test]
    fn a_life_is_told_from_stream_to_ledger() {
        let cell = Standing {
            group: "acme".parse().unwrap(),
            month: "2026-11".parse().unwrap(),
            lane: 0,
            adds: Delta { events: 1, ..Delta::zero(0) },
            counted: true,
            why: "counted".into(),
            ledger: Some(Ledger::Page("00ff".into())),
            passed: true,
            quarantined: false,
            too_old: true,
            plans: vec![Said { plan: "ab".into(), said: "settled".into() }],
            number: Delta { events: 7, ..Delta::zero(0) },
        };
        let event = Archived {
            event_key: EventKey::MIN,
            event_name: "INSERT".into(),
            class: "insert".into(),
            table: "scans".into(),
            group: Some("ac\u{1b}me".parse().unwrap()),
            month: "2026-11".parse().unwrap(),
            created_at: "2026-11-01T00:00:00Z".into(),
            occurred_at: "2026-11-01T00:00:00Z".into(),
            shard_id: "s0".parse().unwrap(),
            sequence_number: "7".parse().unwrap(),
            arrived_at: "2026-11-01T00:00:01Z".into(),
            row: Place { file: "events/x".into(), row_group: 1, row_in_group: 2, row: 131_074 },
            read_by: Some(Dated { entry: 4, at: "2026-11-01T00:01:00Z".into() }),
            brought_by: vec![],
            ignored: None,
            cells: vec![cell],
        };
        let searched = Searched { files: 2, rows: 1_000, kept: 3, kept_unread: 0 };
        let report = Report { event_id: "e".into(), archived: vec![event], kept: vec![], searched };
        insta::assert_snapshot!(told(&report), @r"
        INSERT of scans: ac\u{1b}me, 2026-11, made 2026-11-01T00:00:00Z, event time 2026-11-01T00:00:00Z
          stream    s0 7, arrived 2026-11-01T00:00:01Z
          archive   events/x, row 131074 (row group 1, row 2), key 00000000000000000000000000000000
          commit    log entry 4, made 2026-11-01T00:01:00Z
          cell      acme 2026-11 lane 0: +1 event; in the number: counted
          ledger    on page 00ff; the consumer has passed its position; on the too-old list
          plan      settled by ab
        found: 2 files with 1,000 rows searched, 3 kept records read
        ");
    }
}
