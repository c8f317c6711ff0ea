//! `recount erase`.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use clap::Args;
use recount_schemas::Month;
use recount_schemas::terminal::shown_line;

use super::args::Format;
use super::commands::{CommandError, Exit, write};
use super::tables::{count, drawn, plural, table};
use crate::catalog::noted;
use crate::compact::check_grace;
use crate::context::Context;
use crate::erase::source::{InSource, in_source};
use crate::erase::{EraseError, EraseReport, Eraser, ItemKey, Rows, takes_in_present};
use crate::progress::{Says, Work};

/// See `recount compact`.
const LIFE: Duration = Duration::from_secs(40 * 60);
/// Kept records that a table names.
const NAMED: usize = 20;

/// What can be typed behind `recount erase`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(
    after_help = "Rows of an item lose its key, images, user identity and envelope; they count as before, and no total changes. Records of it in
quarantine and among the conflicts lose their data. With --confirm it archives to the tip first, so that what the stream holds
now is found. What the stream, noncurrent versions and backups still hold: infra/runbooks/erase.md.

Examples:
  recount erase scan_id=s-17                      what would be erased; nothing is changed
  recount erase scan_id=s-17 --confirm            erase it; the replaced files stay for the grace
  recount erase scan_id=s-17 --grace 0 --confirm  and delete the replaced files at once
  recount erase '{\"pk\":\"a\",\"sk\":{\"N\":\"7\"}}'     a key as JSON, plain or as DynamoDB types it
  recount erase --before 2025-01 --confirm        every row of the months before January 2025; no kept records

Where months are found by a catalog, --grace 0 wants --under-readers: queries that run at that moment may fail.

Ends with 0 when nothing is left to erase, with 1 when a plan is shown that has something to erase, with 2 when not all was done."
)]
pub struct Erase {
    /// The item's key: name=value for each of its attributes, or JSON.
    #[arg(value_name = "KEY", required_unless_present = "before", conflicts_with = "before")]
    pub key: Vec<String>,
    /// All rows of the months before this one, as 2025-01.
    #[arg(long, value_name = "MONTH")]
    pub before: Option<Month>,
    /// Let --before take in the present month, and months to come: rows that come later keep their data.
    #[arg(long, requires = "before")]
    pub with_present_month: bool,
    /// Whether the replaced files are deleted at once (0) or by a compaction after this: 24h, 0.
    #[arg(long, value_name = "DURATION", value_parser = super::compact::duration, default_value = "24h")]
    pub grace: Duration,
    /// Delete them at once also where months are found by a catalog: queries that run meanwhile may fail.
    #[arg(long)]
    pub under_readers: bool,
    /// Do it.
    #[arg(long)]
    pub confirm: bool,
}

/// Runs it.
pub async fn run(
    context: &Context,
    args: &Erase,
    format: Format,
    out: &mut (dyn Write + Send),
    says: &Says<'_>,
) -> Result<Exit, CommandError> {
    let rows = match args.before {
        Some(month) => Rows::Before(month),
        None => Rows::Item(ItemKey::parse(&args.key, &context.definition)?),
    };
    if let (Rows::Before(before), false) = (&rows, args.with_present_month) {
        let present = takes_in_present(*before, context.host.now_us(), &context.definition);
        present.map_or(Ok(()), |present| Err(EraseError::Present { before: *before, present }))?;
    }
    let eraser = Eraser::new(context.bucket.clone(), context.definition.clone(), context.host.clone(), LIFE)
        .with_catalog(context.catalog.clone());
    if args.grace.is_zero() {
        check_grace(args.grace, context.catalog.as_deref(), args.under_readers).map_err(EraseError::from)?;
    }
    let mut report = match args.confirm {
        true => {
            says(Work::Step("archiving to the tip of the stream"));
            context.archive().await?;
            says(Work::Step("erasing"));
            eraser.run(&rows, args.grace.is_zero()).await?
        }
        false => eraser.plan(&rows).await?,
    };
    if let Rows::Item(key) = &rows {
        report.source = Some(in_source(&context.dynamo, &context.definition, &context.host, key).await);
    }
    write(out, format, &report, |report| shown(report, &rows))?;
    let kept = args.grace.is_zero() && report.unknown_catalog.is_some() && report.waiting > 0;
    Ok(match (report.finished, report.confirmed) {
        (true, _) if !kept => Exit::Clean,
        (false, false) => Exit::Findings,
        (true, _) | (false, true) => Exit::Undecided,
    })
}

/// A report for people.
fn shown(report: &EraseReport, of: &Rows) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    if !report.months.is_empty() {
        let mut months = table(&["month", "rows", "files", "bytes"].map(str::to_owned), 1);
        for (month, told) in &report.months {
            months.add_row([month.to_string(), count(told.rows), count(told.files), count(told.bytes)]);
        }
        let _ = writeln!(text, "{}\n", drawn(&months));
    }
    for name in report.kept.iter().take(NAMED) {
        let _ = writeln!(text, "{}", shown_line(name));
    }
    let rows: u64 = report.months.values().map(|month| month.rows).sum();
    let verb = if report.confirmed { "erased" } else { "to be erased" };
    let _ = match (rows, report.kept_count, of) {
        (0, 0, Rows::Item(_)) => {
            writeln!(
                text,
                "nothing has this key: it is spelt otherwise, was never archived, or was erased before{}",
                tip(report)
            )
        }
        (0, 0, Rows::Before(month)) => writeln!(text, "no row of a month before {month} has its data any more"),
        (_, 0, Rows::Before(_)) => writeln!(text, "{} {verb}", plural(rows, "row")),
        _ => writeln!(text, "{} and {} {verb}", plural(rows, "row"), plural(report.kept_count, "kept record")),
    };
    if report.deleted > 0 {
        let _ = writeln!(text, "{} deleted", plural(report.deleted, "replaced file"));
    }
    if let Some(catalog) = report.unknown_catalog.as_ref().filter(|_| report.waiting > 0) {
        let _ = writeln!(text, "kept: {}; {}", plural(report.waiting, "replaced file"), noted::why_kept(catalog));
    } else if report.waiting > 0 {
        let waiting = plural(report.waiting, "replaced file");
        let _ = writeln!(
            text,
            "{waiting} may still hold the data: `recount compact --confirm` deletes them after the grace"
        );
    }
    if report.uploads > 0 {
        let uploads = plural(report.uploads, "upload");
        let _ = writeln!(
            text,
            "{uploads} of other runs under _staging/ may hold the data, until the log is 64 entries farther"
        );
    }
    if report.parts > 0 {
        let parts = plural(report.parts, "part");
        let _ = writeln!(
            text,
            "{parts} of backfill plans under backfills/parts/ may hold whole items: apply these plans, or delete the parts"
        );
    }
    if let Some(source) = &report.source {
        text.push_str(&comes_again(source));
    }
    if !report.finished {
        let next = if report.confirmed {
            "not all was erased; run it again"
        } else {
            "nothing was changed; --confirm does it"
        };
        let _ = writeln!(text, "{next}");
    }
    text
}

/// A plan reads what is archived, and archives nothing.
fn tip(report: &EraseReport) -> &'static str {
    if report.confirmed { "" } else { "; what the stream holds and is not archived yet, --confirm archives first" }
}

/// What an item that is still in the source table means for its erasure.
fn comes_again(source: &InSource) -> String {
    let table = shown_line(&source.table);
    let again = "its next change, or a backfill, brings its data into the archive again";
    match (source.has, &source.why) {
        (Some(true), _) => format!("the item is still in table {table}: {again}; delete it there, then erase it\n"),
        (Some(false), _) => String::new(),
        (None, why) => format!(
            "whether table {table} still has the item could not be asked ({}); if it has, {again}\n",
            shown_line(why.as_deref().unwrap_or("no answer"))
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erase::run::Erased;
    use recount_schemas::Definition;

    fn definition() -> Definition {
        Definition::parse("[source]\ntable='scans'\nkey=['id']\n[fold]\ngroup_by='g'", "recount.toml").unwrap()
    }

    fn item() -> Rows {
        Rows::Item(ItemKey::parse(&["id=s-17".to_owned()], &definition()).unwrap())
    }

    fn source(has: Option<bool>, why: Option<&str>) -> Option<InSource> {
        Some(InSource { table: "scans".into(), has, why: why.map(str::to_owned) })
    }

    #[test]
    fn that_nothing_has_the_key_is_said() {
        let nothing = EraseReport { finished: true, source: source(Some(false), None), ..EraseReport::default() };
        insta::assert_snapshot!(shown(&nothing, &item()), @"nothing has this key: it is spelt otherwise, was never archived, or was erased before; what the stream holds and is not archived yet, --confirm archives first");
        let confirmed = EraseReport { confirmed: true, ..nothing.clone() };
        insta::assert_snapshot!(shown(&confirmed, &item()), @"nothing has this key: it is spelt otherwise, was never archived, or was erased before");
        let before = Rows::Before("2025-01".parse().unwrap());
        insta::assert_snapshot!(shown(&EraseReport { source: None, ..nothing }, &before), @"no row of a month before 2025-01 has its data any more");
    }

    #[test]
    fn that_the_item_would_come_again_is_said() {
        let months = [("2026-11".parse().unwrap(), Erased { rows: 2, files: 1, bytes: 1_234 })].into();
        let report = EraseReport { months, source: source(Some(true), None), ..EraseReport::default() };
        insta::assert_snapshot!(shown(&report, &item()), @r"
        ────────────────────────────────
         month     rows   files   bytes
        ════════════════════════════════
         2026-11      2       1   1,234
        ────────────────────────────────

        2 rows and 0 kept records to be erased
        the item is still in table scans: its next change, or a backfill, brings its data into the archive again; delete it there, then erase it
        nothing was changed; --confirm does it
        ");
        let unknown = source(None, Some("AccessDeniedException"));
        let report = EraseReport { confirmed: true, finished: true, source: unknown, ..report };
        insta::assert_snapshot!(shown(&report, &item()).lines().last().unwrap(), @"whether table scans still has the item could not be asked (AccessDeniedException); if it has, its next change, or a backfill, brings its data into the archive again");
    }

    #[test]
    fn the_present_month_is_by_the_definitions_zone() {
        let zoned = |zone: &str| {
            let text = format!("[source]\ntable='t'\nkey=['id']\n[fold]\ngroup_by='g'\ntime_zone='{zone}'");
            Definition::parse(&text, "recount.toml").unwrap()
        };
        // 2026-11-30T23:00:00Z.
        let (now_us, month) = (1_796_079_600_000_000, |text: &str| text.parse::<Month>().unwrap());
        let takes_in = |before: &str, zone: &str| takes_in_present(month(before), now_us, &zoned(zone));
        assert_eq!(takes_in("2026-11", "UTC"), None);
        assert_eq!(takes_in("2026-12", "UTC"), Some(month("2026-11")));
        assert_eq!(takes_in("2026-12", "Asia/Tokyo"), None);
        assert_eq!(takes_in("2052-01", "Asia/Tokyo"), Some(month("2026-12")));
        let error = EraseError::Present { before: month("2052-01"), present: month("2026-12") };
        assert!(error.is_usage());
        insta::assert_snapshot!(error, @"--before 2052-01 takes in the present month, 2026-12: rows that come into it later would keep their data; --before 2026-12 erases the months that are over, --with-present-month these too");
    }
}
