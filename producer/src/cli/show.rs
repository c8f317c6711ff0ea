//! Reports as tables.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use recount_schemas::terminal::{plural, shown};

use crate::load::LoadReport;
use crate::record::RecordReport;
use crate::scan::ScanReport;

/// The most rows of a list; `--format json` has them all.
const MOST: usize = 50;

/// What was recorded.
pub fn record(report: &RecordReport) -> String {
    let RecordReport { inserted, existed, scan_ids, seconds, .. } = report;
    let (table, project, run) = (shown(&report.table), shown(&report.project), shown(&report.run));
    if *existed {
        let id = shown(scan_ids.first().map_or("", String::as_str));
        return format!("another scan {id} of run {run} is in table {table} already; it stays as it is");
    }
    let list = scan_ids.iter().take(3).map(|id| shown(id)).collect::<Vec<_>>().join(", ");
    let more = if *inserted > 3 { ", ..." } else { "" };
    let inserted = plural(*inserted, "scan");
    format!("{inserted} of {project} into table {table} in {seconds:.1} s: {list}{more}")
}

/// What was scanned.
pub fn scan(report: &ScanReport) -> String {
    let mut table = plain(&["project", "files", "bytes"]);
    for (project, tally) in report.projects.iter().take(MOST) {
        table.add_row([shown(project), tally.files.to_string(), tally.bytes.to_string()]);
    }
    let mut text = finish(&table, report.projects.len());
    let ScanReport { inserted, bytes, left_out, failed, seconds, .. } = report;
    let dir = shown(&report.dir);
    let (inserted, bytes) = (plural(*inserted, "file"), plural(*bytes, "byte"));
    text.push_str(&format!("\n\n{inserted}, {bytes} below {dir} in {seconds:.1} s; {left_out} left out"));
    if *failed > 0 {
        text.push_str(&format!("\n{failed} could not be read:"));
        for error in report.errors.iter().take(MOST) {
            text.push_str(&format!("\n  {}: {}", shown(&error.path), shown(&error.error)));
        }
    }
    text
}

/// What was loaded.
pub fn load(report: &LoadReport) -> String {
    let mut table = plain(&["project", "month", "inserts", "their bytes", "in the end", "their bytes"]);
    for row in report.tally.iter().take(MOST) {
        let numbers = [row.inserts, row.inserted_bytes, row.live, row.live_bytes].map(|number| number.to_string());
        table.add_row([shown(&row.project), row.month.clone()].into_iter().chain(numbers));
    }
    let mut text = finish(&table, report.tally.len());
    let LoadReport { target, seed, inserts, updates, deletes, duplicates, out_of_order, driven, .. } = report;
    text.push_str(&format!(
        "\n\n{}, {}, {}; {}, {out_of_order} out of order",
        plural(*inserts, "insert"),
        plural(*updates, "update"),
        plural(*deletes, "delete"),
        plural(*duplicates, "duplicate"),
    ));
    text.push_str(&format!(
        "\n{} into the {target} in {:.1} s: {:.0} a second; seed {seed}",
        driven.operations, driven.seconds, driven.rate
    ));
    text
}

fn plain(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(head);
    for column in table.column_iter_mut().skip_while(|column| column.index == 0) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn finish(table: &Table, rows: usize) -> String {
    let mut text = table.trim_fmt();
    if rows > MOST {
        text.push_str(&format!("\n... and {} more: --format json has them all", rows - MOST));
    }
    text
}
