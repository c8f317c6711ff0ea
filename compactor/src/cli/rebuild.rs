//! `recount rebuild`: totals made anew beside the old ones.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;

use clap::Args;
use recount_schemas::definition::file::MAX_FILE;
use recount_schemas::terminal::{shown, shown_line};
use recount_schemas::{SetName, bounded};

use super::args::Format;
use super::commands::{CommandError, Exit, exit_of_context, write};
use super::tables::{self, drawn, grouped, header, table};
use crate::bucket::Objects;
use crate::context::{Context, ContextError};
use crate::progress::Says;
use crate::rebuild::compare::{Comparison, Level};
use crate::rebuild::{LoadReport, RebuildError, Report, Request, Seeded, rebuild};
use crate::sets::{HomeError, home};

/// Differences that a table shows. JSON has more.
const SHOWN: usize = 20;

/// What is typed.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(after_help = "Without --definition it is the one in use: for totals that were lost.

Examples:
  recount rebuild --definition tokyo.toml --into tokyo            what it would be; nothing is changed
  recount rebuild --definition tokyo.toml --into tokyo --confirm  make it; broken off, the same command goes on
  recount rebuild --into tokyo --compare                          hold it against the old totals
  recount --set tokyo reconcile                                   every command works on a set
  recount switch --to tokyo --confirm                             readers go by it

Ends as the reconcile of the set does: 0 clean, 1 findings or differences, 2 could not decide.")]
pub struct RebuildArgs {
    /// The set to make: 1 to 32 of a-z, 0-9 and -.
    #[arg(long, value_name = "NAME")]
    pub into: SetName,
    /// Make it.
    #[arg(long)]
    pub confirm: bool,
    /// Hold the new archive against the old one, where their definitions should give equal numbers.
    #[arg(long)]
    pub compare: bool,
    /// Count rows that no longer hold all of their change by what is left of them.
    #[arg(long)]
    pub accept_incomplete: bool,
    /// The file of `--definition`: of the new totals.
    #[arg(skip)]
    pub definition: Option<String>,
}

/// Runs it.
pub async fn run(
    context: &Context,
    args: RebuildArgs,
    format: Format,
    out: &mut (dyn Write + Send),
    says: &Says<'_>,
) -> Result<Exit, CommandError> {
    let read = |path: &str| {
        let text = File::open(path).and_then(|file| bounded::text(file, MAX_FILE));
        text.map_err(|source| ContextError::Unreadable { path: path.to_owned(), source })
    };
    let in_use = match &context.settings.set {
        None => read(&context.settings.definition)?,
        Some(set) => {
            let kept = context.bucket.get(home::DEFINITION, MAX_FILE as u64).await?;
            let kept = kept.ok_or_else(|| ContextError::from(HomeError::NoSuchSet(set.clone())))?;
            String::from_utf8_lossy(&kept).into_owned()
        }
    };
    let request = Request {
        into: args.into,
        text: args.definition.as_deref().map(read).transpose()?,
        in_use,
        confirm: args.confirm,
        compare: args.compare,
        accept_incomplete: args.accept_incomplete,
    };
    let report = rebuild(context, &request, says).await.map_err(|error| CommandError::Rebuild(Box::new(error)))?;
    write(out, format, &report, shown_report)?;
    Ok(report.verdict().into())
}

/// How a rebuild that failed ends.
pub fn exit(error: &RebuildError) -> Exit {
    match error {
        RebuildError::Context(error) => exit_of_context(error),
        RebuildError::Itself(_)
        | RebuildError::NotASeed(_)
        | RebuildError::Home(HomeError::NoSuchSet(_) | HomeError::OtherDefinition { .. } | HomeError::Definition(_)) => {
            Exit::Usage
        }
        _ => Exit::Undecided,
    }
}

fn count(n: u64) -> String {
    grouped(i64::try_from(n).unwrap_or(i64::MAX))
}

/// The report as text.
fn shown_report(report: &Report) -> String {
    let (mut text, plan) = (String::new(), &report.plan);
    let _ = writeln!(text, "rebuild {} from {}, definition {}", plan.into, plan.from, shown(&plan.definition));
    for difference in &plan.differences {
        let _ = writeln!(text, "  {}", shown_line(difference));
    }
    if plan.differences.is_empty() {
        let _ = writeln!(text, "  the same definition");
    }
    let months = match (plan.months.first(), plan.months.last()) {
        (Some(first), Some(last)) => format!("{first} to {last}"),
        _ => "no month".to_owned(),
    };
    let (events, files, mib) = (count(plan.events), count(plan.files), count(plan.bytes.div_ceil(1 << 20)));
    let _ = writeln!(text, "archive: {events} events in {files} files of {mib} MiB, {months}");
    let _ = writeln!(
        text,
        "totals: at most {} events are counted one by one, the older ones go in as one number per cell",
        count(plan.counted_at_most)
    );
    for table in &plan.tables {
        let state = if table.exists { "is there" } else { "is made" };
        let _ = writeln!(text, "table {} {state}", shown(&table.name));
    }
    if !report.confirmed {
        let state = match (plan.seeded, plan.loaded) {
            (_, true) => "the set is made",
            (true, false) => "the set's archive is made, its totals are not loaded",
            (false, false) => "nothing was changed",
        };
        let _ = writeln!(text, "{state}");
    }
    if let Some(seeded) = &report.seeded {
        text.push_str(&shown_seeded(seeded));
    }
    if let Some(loaded) = &report.loaded {
        text.push_str(&shown_loaded(loaded));
    }
    if report.repaired > 0 {
        let _ = writeln!(text, "{} cells were put right by a repair behind it", count(report.repaired));
    }
    if let Some(reconciled) = &report.reconciled {
        let _ = writeln!(text, "\nthe set, held against its own archive:");
        text.push_str(&tables::reconciliation(reconciled));
    }
    if let Some(comparison) = &report.comparison {
        text.push_str(&shown_comparison(comparison));
    }
    if !report.next.is_empty() {
        let _ = writeln!(text, "\nnext:");
    }
    for (i, step) in report.next.iter().enumerate() {
        let _ = writeln!(text, "  {}. {}", i + 1, shown_line(step));
    }
    text
}

fn shown_seeded(seeded: &Seeded) -> String {
    let (rows, files) = (count(seeded.rows), count(seeded.files));
    if seeded.before {
        return format!("archive: was made before, {rows} events in {files} files\n");
    }
    let mut text = format!("archive: made, {rows} events in {files} files\n");
    for (n, what) in [
        (seeded.quarantined, "records that this definition cannot judge: in the set's quarantine"),
        (seeded.rescued, "records from quarantine that this definition can judge"),
        (seeded.duplicates, "records of an event that stands there already"),
        (seeded.conflicts, "records of an event that stands there with another content: among the set's conflicts"),
        (seeded.incomplete, "events no longer hold all of their change, and count by what is left"),
    ] {
        if n > 0 {
            let _ = writeln!(text, "  {} {what}", count(n));
        }
    }
    text
}

fn shown_loaded(loaded: &LoadReport) -> String {
    if loaded.before {
        return "totals: were loaded before\n".to_owned();
    }
    let LoadReport { cells, as_numbers, counted, counted_before, .. } = loaded;
    let mut text = format!(
        "totals: loaded, {} cells; {} events as numbers, {} counted, {} counted before\n",
        count(*cells),
        count(*as_numbers),
        count(*counted),
        count(*counted_before)
    );
    if loaded.left > 0 {
        let _ = writeln!(text, "  {} cells were left to the repair: the live stream was faster", count(loaded.left));
    }
    text
}

fn shown_comparison(comparison: &Comparison) -> String {
    let what = match comparison.level {
        Level::Months => "group and month",
        Level::Groups => "group, over all months",
        Level::All => "all together",
        Level::Nothing => {
            return "\nthe definitions count different things: there is nothing to compare\n".to_owned();
        }
    };
    let (old, new) = (&comparison.old, &comparison.new);
    let (compared, differ) = (count(comparison.compared), count(comparison.differ));
    let mut text = format!("\n{old} against {new}, by {what}: {compared} numbers compared, {differ} differ\n");
    if comparison.differences.is_empty() {
        return text;
    }
    let names = ["group", "month", "events in", "events in", "sums in", "sums in"];
    let mut head = header(&names, &[]);
    for (i, cell) in head.iter_mut().enumerate().skip(2) {
        let _ = write!(cell, " {}", if i % 2 == 0 { old } else { new });
    }
    let mut lines = table(&head, 2);
    for difference in comparison.differences.iter().take(SHOWN) {
        let sums = |numbers: &crate::rebuild::compare::Numbers| {
            let sums = numbers.sums.iter().map(|(name, sum)| format!("{} {sum}", shown(name)));
            sums.collect::<Vec<_>>().join(", ")
        };
        lines.add_row([
            difference.group.as_ref().map_or_else(String::new, |group| shown(group.as_str())),
            difference.month.map_or_else(String::new, |month| month.to_string()),
            grouped(difference.old.events),
            grouped(difference.new.events),
            sums(&difference.old),
            sums(&difference.new),
        ]);
    }
    let _ = writeln!(text, "{}", drawn(&lines));
    let more = comparison.differ.saturating_sub(SHOWN as u64);
    if more > 0 {
        let _ = writeln!(text, "and {} more; --format json lists them", count(more));
    }
    text
}
