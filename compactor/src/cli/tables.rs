//! Reports as tables for people. What comes from outside goes through [`shown`].

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{CellAlignment, Table, TableComponent, presets};
use recount_schemas::{Amount, Definition, Delta, Group, Year};

use crate::archive::ArchiveReport;
use crate::explain::{Event, Summary};
use crate::recompute::Report as Recomputation;
use crate::reconcile::evidence::Listed as Quarantine;
use crate::reconcile::finding::Kind;
use crate::reconcile::{ByAthena, Finding, Report as Reconciliation, Verdict, finding};
use crate::repair::Report as Repair;
use crate::repair::apply::{CellReport, Step};
use crate::repair::holes::Withheld;
use crate::repair::proof::Proof;
use crate::usage::Usage;
pub(super) use recount_schemas::terminal::{count, grouped, plural};
use recount_schemas::terminal::{shown, shown_line};

/// Event IDs that a table names per finding. JSON has more.
const NAMED: usize = 5;
/// Cells of a plan that a table shows.
const CELLS: usize = 200;

/// A table with a header; the columns from `right` on are numbers.
pub(super) fn table(header: &[String], right: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    for line in [TableComponent::HorizontalLines, TableComponent::MiddleIntersections] {
        table.remove_style(line);
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        if i >= right {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The table without spaces at the ends of its lines.
pub(super) fn drawn(table: &Table) -> String {
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

pub(super) fn header(names: &[&str], measures: &[String]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).chain(measures.iter().map(|measure| shown(measure))).collect()
}

fn measures(definition: &Definition) -> Vec<String> {
    definition.measures.iter().map(|measure| measure.attribute.clone()).collect()
}

fn sums(measures: &[String], sums: &BTreeMap<String, Amount>) -> Vec<String> {
    measures.iter().map(|measure| sums.get(measure).copied().unwrap_or_default().to_string()).collect()
}

/// What is said where there are no totals of a group, or of a year: it may never have existed, and zero is what it has.
pub fn no_totals(group: Option<&Group>, year: Option<Year>) -> String {
    let year = year.map_or_else(String::new, |year| format!(" in {year}"));
    match group {
        Some(group) => {
            let group = shown(group.as_str());
            format!(
                "no event of group {group} has been counted{year}; `recount usage` lists the groups that have any\n"
            )
        }
        None => format!("no event has been counted{year}\n"),
    }
}

/// Live or recounted totals.
pub fn usage(usage: &Usage, definition: &Definition) -> String {
    let measures = measures(definition);
    let mut months = table(&header(&["group", "month", "events", "quota", "used"], &measures), 2);
    for line in &usage.months {
        let quota = line.quota.map_or_else(|| "-".to_owned(), count);
        let used = match line.quota {
            Some(quota) if quota > 0 => format!("{:.1} %", line.events as f64 * 100.0 / quota as f64),
            Some(_) => "over".to_owned(),
            None => "-".to_owned(),
        };
        let mut row = vec![shown(line.group.as_str()), line.month.to_string(), grouped(line.events), quota, used];
        row.extend(sums(&measures, &line.sums));
        months.add_row(row);
    }
    let mut years = table(&header(&["group", "year", "events"], &measures), 2);
    for line in &usage.years {
        let mut row = vec![shown(line.group.as_str()), line.year.to_string(), grouped(line.events)];
        row.extend(sums(&measures, &line.sums));
        years.add_row(row);
    }
    let mut text = format!("{}\n\n{}\n", drawn(&months), drawn(&years));
    for item in &usage.unusable {
        let _ = writeln!(text, "not among these: {}", shown_line(item)); // writing to a string cannot fail
    }
    text
}

/// What a reconcile says.
pub fn reconciliation(report: &Reconciliation) -> String {
    let mut text = String::new();
    if !report.findings.is_empty() {
        let names = ["finding", "group", "month", "lane", "expected", "actual", "effect"];
        let mut table = table(&header(&names, &[]), 4);
        // A cell's numbers stand in the first of its rows.
        let mut before = None;
        for finding in &report.findings {
            let cell = finding.cell();
            table.add_row(finding_row(finding, cell.is_none() || cell != before));
            before = cell;
        }
        let _ = writeln!(text, "{}\n", drawn(&table)); // writing to a string cannot fail
        // Names of events and places are longer than any column.
        for finding in &report.findings {
            text.push_str(&concerned(finding));
        }
        text.push('\n');
    }
    if report.more_cells > 0 {
        let _ = writeln!(text, "not listed: {} with findings", plural(report.more_cells, "more cell"));
    }
    let what = match report.verdict {
        Verdict::Clean => "clean: every total equals its archived events".to_owned(),
        Verdict::Findings => {
            let cells: std::collections::BTreeSet<_> = report.findings.iter().filter_map(Finding::cell).collect();
            format!("{} in {}", plural(report.findings.len() as u64, "finding"), plural(cells.len() as u64, "cell"))
        }
        Verdict::Undecided => {
            format!("undecided: {}", shown(report.undecided_because.as_deref().unwrap_or("the archive is behind")))
        }
    };
    let cells = plural(report.cells, "cell");
    let events = plural(report.events, "archived event");
    let quarantined = plural(report.quarantined, "record");
    let _ = writeln!(text, "{what} ({cells}, {events} compared; {quarantined} in quarantine)");
    if let Some(coverage) = &report.coverage {
        let _ = writeln!(text, "{coverage}");
    }
    if let Some(ByAthena { asked, cells_read }) = &report.athena {
        let (files, rows) = (plural(asked.files, "file"), plural(asked.rows, "row"));
        let (bytes, cells) = (plural(asked.scanned_bytes, "byte"), plural(*cells_read, "cell"));
        let query = shown(&asked.query);
        let _ = writeln!(
            text,
            "Athena read {files} with {rows} ({bytes} scanned, query {query}); the events of {cells} were read here"
        );
    }
    text
}

fn finding_row(finding: &Finding, first: bool) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let number = |events: i64, sums: &BTreeMap<String, Amount>| {
        let sums = sums.iter().map(|(name, sum)| format!("\n{} {sum}", shown(name)));
        std::iter::once(grouped(events)).chain(sums).collect::<String>()
    };
    let numbers = match (finding.cell(), first) {
        // What is not understood has no number.
        (Some(_), _) if finding.kind == Kind::Unusable => ["-", "-", "-"].map(str::to_owned),
        (Some(_), true) => [
            number(finding.expected, &finding.expected_sums),
            number(finding.actual, &finding.actual_sums),
            effect(finding),
        ],
        (Some(_), false) => Default::default(),
        (None, _) => ["-", "-", "-"].map(str::to_owned),
    };
    [
        finding.kind.as_str().to_owned(),
        or_dash(finding.group.as_ref().map(|group| shown(group.as_str()))),
        or_dash(finding.month.map(|month| month.to_string())),
        or_dash(finding.lane.map(|lane| lane.to_string())),
    ]
    .into_iter()
    .chain(numbers)
    .collect()
}

/// Which events a finding concerns, and where they stand.
fn concerned(finding: &Finding) -> String {
    let of = match (&finding.group, finding.month) {
        (Some(group), Some(month)) => format!(" {} {month}", shown(group.as_str())),
        _ => String::new(),
    };
    let lane = finding.lane.filter(|lane| *lane > 0).map_or_else(String::new, |lane| format!(" lane {lane}"));
    let events = match finding.count {
        0 => String::new(),
        n => format!("{}: ", plural(n, "event")),
    };
    let mut text = format!("{}{of}{lane}: {events}{}\n", finding.kind.as_str(), shown_line(&finding.detail));
    for event in finding.events.iter().take(NAMED) {
        let place = event.origin.as_ref().map(|origin| {
            format!(" in {} at {}", shown(origin.shard_id.as_str()), shown(origin.sequence_number.as_str()))
        });
        let _ = writeln!(text, "  {}{}", shown(&event.id()), place.unwrap_or_default());
    }
    if finding.count > NAMED as u64 {
        let more = finding.count - NAMED as u64;
        let _ = writeln!(text, "  … and {} more (--format json names {})", count(more), finding::MAX_NAMED);
    }
    text
}

/// What is wrong with a cell's number, to whoever reads it.
fn effect(finding: &Finding) -> String {
    let off = finding.actual.saturating_sub(finding.expected);
    match off {
        0 if finding.actual_sums != finding.expected_sums => "sums differ".to_owned(),
        0 => "none".to_owned(),
        1.. => format!("{} too many", grouped(off)),
        _ => format!("{} too few", grouped(off.saturating_neg())),
    }
}

/// The records in quarantine.
pub fn quarantined(listed: &Quarantine) -> String {
    if listed.records.is_empty() {
        return "no record is in quarantine\n".to_owned();
    }
    // The object's name has the shard and the sequence number.
    let mut table = table(&header(&["arrived", "object", "why"], &[]), 3);
    for record in &listed.records {
        let arrived = record.arrived_us.and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
        table.add_row(vec![
            arrived.map_or_else(|| "-".to_owned(), |at| at.to_string()),
            shown(&record.object),
            shown_line(&record.reason),
        ]);
    }
    let all = (listed.records.len() as u64).saturating_add(listed.more);
    let more = if listed.more > 0 { format!(", {} of them not listed", listed.more) } else { String::new() };
    format!("{}\n\n{} in quarantine{more}\n", drawn(&table), plural(all, "record"))
}

/// What a recompute found.
pub fn recomputation(report: &Recomputation, definition: &Definition) -> String {
    let mut text = usage(&report.totals, definition);
    let _ = writeln!(
        text,
        "\n{} from {} at log entry {}; no event key stood twice: {}; same change under two event IDs: {}",
        plural(report.rows, "row"),
        plural(report.files, "file"),
        report.entries.saturating_sub(1),
        if report.repeated == 0 { "yes".to_owned() } else { format!("no, {} did", report.repeated) },
        plural(report.same_change_pairs, "pair"),
    );
    for repeated in report.repeated_events.iter().take(NAMED) {
        let _ = writeln!(text, "  {} again in {}", repeated.event_key, shown(&repeated.file));
    }
    let _ = writeln!(text, "wrote {}", shown_line(&report.written.join(", ")));
    text
}

pub(super) fn delta(delta: &Delta) -> String {
    crate::reconcile::diff::in_words(delta)
}

/// What a repair did, or would do.
pub fn repair(report: &Repair) -> String {
    let mut text = String::new();
    for named in &report.plans {
        let names = ["group", "month", "lane", "add to the number", "count", "void", "item"];
        let mut table = table(&header(&names, &[]), 7);
        for cell in named.plan.cells.iter().take(CELLS) {
            table.add_row(vec![
                shown(cell.cell.group.as_str()),
                cell.cell.month.to_string(),
                cell.cell.lane.to_string(),
                delta(&cell.add),
                plural(cell.missing.len() as u64, "missing event"),
                plural(cell.void.len() as u64, "key"),
                cell.raise.as_ref().map_or_else(|| "as it is".to_owned(), |raise| format!("epoch {}", raise.to.epoch)),
            ]);
        }
        let cells = plural(named.plan.cells.len() as u64, "cell");
        let _ = writeln!(text, "plan {} ({cells})\n{}", named.hash, drawn(&table));
        if named.plan.cells.len() > CELLS {
            let _ = writeln!(
                text,
                "… and {} (--format json has all)",
                plural((named.plan.cells.len() - CELLS) as u64, "more cell")
            );
        }
        text.push('\n');
    }
    if !report.applied.is_empty() {
        let count = |step: Step| report.applied.iter().filter(|cell| cell.number == step).count() as u64;
        let counted: u64 = report.applied.iter().map(|cell| cell.counted).sum();
        let _ = writeln!(
            text,
            "applied to {}; done before: {}; only raised: {}; refused: {}; withheld: {}; {} counted",
            plural(count(Step::Done), "cell"),
            count(Step::DoneBefore),
            count(Step::Raised),
            count(Step::Refused) + count(Step::Unusable),
            count(Step::Withheld),
            plural(counted, "missing event")
        );
        let undone = |cell: &&CellReport| !cell.number.is_done() && cell.number != Step::Withheld;
        for cell in report.applied.iter().filter(undone) {
            let (group, month, lane) = (shown(cell.cell.group.as_str()), cell.cell.month, cell.cell.lane);
            let why = match cell.number {
                Step::Unusable => "has an item that is not understood: mend or delete it, then make a new plan",
                _ => "changed since the plan was made: make a new plan",
            };
            let _ = writeln!(text, "  {group} {month} lane {lane} {why}");
        }
    }
    text.push_str(&left_alone(&report.withheld));
    for hash in &report.reports {
        let _ = writeln!(text, "report {hash} (recount repair --report HASH shows and checks it)");
    }
    if let Some(reconciled) = &report.reconciled {
        if !report.applied.is_empty() {
            text.push_str("reconcile after it: ");
        }
        text.push_str(&reconciliation(reconciled));
    }
    if !report.confirmed && report.reconciled.is_none() && report.is_done() {
        text.push_str("nothing is left of it to do\n");
    } else if !report.confirmed && !report.plans.is_empty() {
        text.push_str("nothing was changed; apply it with --plan HASH --confirm, or make and apply with --confirm\n");
    } else if report.plans.is_empty() {
        text.push_str("there is nothing that a plan could repair\n");
    }
    text
}

/// Cells that are withheld, and why.
fn left_alone(withheld: &[Withheld]) -> String {
    let mut text = String::new();
    for cell in withheld.iter().take(CELLS) {
        let (group, month, lane) = (shown(cell.cell.group.as_str()), cell.cell.month, cell.cell.lane);
        let _ = writeln!(text, "withheld: {group} {month} lane {lane}: {}", shown_line(&cell.why));
    }
    if !withheld.is_empty() {
        let cells = plural(withheld.len() as u64, "cell");
        let _ =
            writeln!(text, "{cells} withheld: --accept-loss repairs them too, and takes such events out of the number");
    }
    text
}

/// The report of a repair that was made.
pub fn proof(hash: &str, proof: &Proof) -> String {
    let names = ["group", "month", "lane", "what", "before", "after", "counted", "counted before", "void"];
    let mut table = table(&header(&names, &[]), 4);
    let number = |delta: &Option<Delta>| delta.as_ref().map_or_else(|| "-".to_owned(), |delta| grouped(delta.events));
    for cell in proof.cells.iter().take(CELLS) {
        let what = match cell.number {
            Step::Done => "put right",
            Step::DoneBefore => "done before",
            Step::Raised => "raised",
            Step::Refused => "refused",
            Step::Unusable => "not understood",
            Step::Withheld => "withheld",
        };
        table.add_row(vec![
            shown(cell.cell.group.as_str()),
            cell.cell.month.to_string(),
            cell.cell.lane.to_string(),
            what.to_owned(),
            number(&cell.before),
            number(&cell.after),
            cell.counted.to_string(),
            cell.counted_before.to_string(),
            plural(cell.void.len() as u64, "key"),
        ]);
    }
    let at = jiff::Timestamp::from_millisecond(proof.at_ms).map_or_else(|_| "-".to_owned(), |at| at.to_string());
    let mut text = format!("report {hash}\nof plan {}, applied by {at}\n{}\n", shown(&proof.plan), drawn(&table));
    if proof.cells.len() > CELLS {
        let _ =
            writeln!(text, "… and {} (--format json has all)", plural((proof.cells.len() - CELLS) as u64, "more cell"));
    }
    if proof.accept_loss {
        text.push_str("loss was accepted: numbers were lowered though the archive may have lost their events\n");
    }
    text.push_str(&left_alone(&proof.withheld));
    let after = &proof.reconciled;
    let verdict = match after.verdict {
        Verdict::Clean => "clean".to_owned(),
        Verdict::Findings => plural(after.findings.len() as u64, "finding"),
        Verdict::Undecided => "undecided".to_owned(),
    };
    let (cells, events) = (plural(after.cells, "cell"), plural(after.events, "archived event"));
    let _ = writeln!(text, "reconcile after it: {verdict} ({cells}, {events} compared)");
    if let Some(coverage) = &after.coverage {
        let _ = writeln!(text, "{coverage}");
    }
    text.push_str("its bytes have the hash in its name, and so has its plan: nobody changed them\n");
    text
}

/// Whether neither the totals nor the ledger have anything of it.
fn is_nothing(summary: &Summary) -> bool {
    summary.unarchived == 0 && summary.void == 0 && summary.number == Delta::zero(summary.number.sums.len())
}

/// The events that make a number.
pub fn explanation(summary: &Summary, events: &[Event]) -> String {
    let names = ["created", "occurred", "event", "counted", "why", "shard", "sequence number"];
    let mut table = table(&header(&names, &[]), 7);
    for event in events {
        table.add_row(vec![
            shown(&event.created_at),
            shown(&event.occurred_at),
            shown(&event.event_id),
            if event.counted { "yes" } else { "no" }.to_owned(),
            shown(&event.why),
            shown(event.shard_id.as_str()),
            shown(event.sequence_number.as_str()),
        ]);
    }
    if summary.archived == 0 && summary.undated == 0 && summary.as_of.is_none() && is_nothing(summary) {
        let (group, month) = (shown(summary.group.as_str()), summary.month);
        return format!(
            "no event of group {group} in {month}: none is archived and none is counted; `recount usage` lists the groups and months that have any\n"
        );
    }
    let mut text = format!("{}\n", drawn(&table));
    let more = summary.archived.saturating_sub(events.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "… and {} (--limit, or --format json)", plural(more, "more event"));
    }
    if let Some(as_of) = &summary.as_of {
        let _ = writeln!(
            text,
            "{} {} as of log entry {}, made {}: {}; {}, {} of them in that number{}",
            shown(summary.group.as_str()),
            summary.month,
            as_of.entry,
            as_of.at,
            delta(&summary.number),
            plural(summary.archived, "archived event"),
            summary.counted,
            match summary.undated {
                0 => String::new(),
                n => format!(
                    "; not listed: {}, of which nobody can say any more whether the archive had them then",
                    plural(n, "event")
                ),
            },
        );
        return text;
    }
    let _ = writeln!(
        text,
        "{} {}: the number is {}; {}, {} of them in the number; {} of the ledger not archived{}",
        shown(summary.group.as_str()),
        summary.month,
        delta(&summary.number),
        plural(summary.archived, "archived event"),
        summary.counted,
        plural(summary.unarchived, "key"),
        match summary.void {
            0 => String::new(),
            n => format!(", {n} of them void"),
        },
    );
    text
}

/// What an archive run did.
pub fn archive(report: &ArchiveReport) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}: {} in {}; duplicates {}, conflicts {}, quarantined {}, ranges with losses {}",
        plural(report.commits, "commit"),
        plural(report.rows, "row"),
        plural(report.files, "file"),
        report.duplicates,
        report.conflicts,
        report.quarantined,
        report.lost.len(),
    );
    let _ = writeln!(
        text,
        "{}",
        if report.reached_tip { "reached the tip of the stream" } else { "the tip of the stream was not reached" }
    );
    text
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
