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
use super::tables::{self, count, drawn, grouped, header, plural, table};
use crate::bucket::Objects;
use crate::context::{Context, ContextError};
use crate::progress::Says;
use crate::rebuild::compare::{Comparison, Level};
use crate::rebuild::{LoadReport, Plan, RebuildError, Report, Request, Seeded, rebuild};
use crate::sets::{HomeError, home};
use crate::stack::find;

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
    let in_use = in_use(context).await?;
    let request = Request {
        into: args.into,
        text: args.definition.as_deref().map(read).transpose()?,
        in_use,
        confirm: args.confirm,
        compare: args.compare,
        accept_incomplete: args.accept_incomplete,
    };
    let mut report = rebuild(context, &request, says).await?;
    if let Some(path) = &args.definition {
        report.next.iter_mut().for_each(|step| name_definition(step, path));
    }
    write(out, format, &report, shown_report)?;
    Ok(report.verdict().into())
}

/// Pasted without it, the command would make the set by the definition in use.
fn name_definition(step: &mut String, path: &str) {
    const BEGINS: &str = "recount rebuild --into";
    if step.starts_with(BEGINS) && step.contains("--confirm") {
        let quoted = if path.contains(char::is_whitespace) { format!("'{path}'") } else { path.to_owned() };
        *step = step.replacen(BEGINS, &format!("recount rebuild --definition {quoted} --into"), 1);
    }
}

fn read(path: &str) -> Result<String, ContextError> {
    let text = File::open(path).and_then(|file| bounded::text(file, MAX_FILE));
    text.map_err(|source| ContextError::Unreadable { path: path.to_owned(), source })
}

/// The text of the definition in use: a set's own; of a stack's base, its consumer's; else the file of the settings.
async fn in_use(context: &Context) -> Result<String, CommandError> {
    match (&context.settings.set, &context.stack) {
        (Some(set), _) => {
            let kept = context.bucket.get(home::DEFINITION, MAX_FILE as u64).await?;
            let kept = kept.ok_or_else(|| ContextError::from(HomeError::NoSuchSet(set.clone())))?;
            Ok(String::from_utf8_lossy(&kept).into_owned())
        }
        (None, Some(stack)) => Ok(find::definition(&context.sdk, stack).await?.text),
        (None, None) => Ok(read(&context.settings.definition)?),
    }
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
    let (events, files) = (plural(plan.events, "event"), plural(plan.files, "file"));
    let mib = count(plan.bytes.div_ceil(1 << 20));
    let _ = writeln!(text, "archive: {events} in {files} of {mib} MiB together, {months}");
    let _ = writeln!(
        text,
        "totals: {} within the ledger's reach, counted one by one at most; older ones go in as one number per cell",
        plural(plan.counted_at_most, "event")
    );
    for table in &plan.tables {
        let state = if table.exists { "is there" } else { "to be made" };
        let _ = writeln!(text, "table {}: {state}", shown(&table.name));
    }
    if !report.confirmed {
        text.push_str(&steps(plan));
    }
    if let Some(seeded) = &report.seeded {
        text.push_str(&shown_seeded(seeded));
    }
    if let Some(loaded) = &report.loaded {
        text.push_str(&shown_loaded(loaded));
    }
    if report.repaired > 0 {
        let _ = writeln!(text, "a repair behind it put {} right", plural(report.repaired, "cell"));
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

/// What --confirm would do, in order, and what of it is done.
fn steps(plan: &Plan) -> String {
    let (into, from) = (&plan.into, &plan.from);
    if plan.loaded {
        return format!(
            "{into} is made and loaded; --confirm reconciles it with its own archive, and repairs it. Readers go by it after \
             `recount switch --to {into} --confirm`\n"
        );
    }
    let done = |done: bool| if done { " (done)" } else { "" };
    let made = plan.tables.iter().all(|table| table.exists);
    format!(
        "\nnothing was changed. --confirm does this, in this order; broken off, the same command goes on:\n  \
           1. the archive of {from} reads the stream to its tip{seeded}\n  \
           2. the tables of {into} are made{tables}\n  \
           3. {into} gets an archive of its own: every event of {from}'s, judged anew by the {definition} definition{seeded}\n  \
           4. its totals are loaded from that\n  \
           5. it is reconciled with its own archive, and repaired\n\
         {from} stays as it is, and readers go on with it until `recount switch`\n",
        definition = if plan.differences.is_empty() { "same" } else { "new" },
        seeded = done(plan.seeded),
        tables = done(made),
    )
}

fn shown_seeded(seeded: &Seeded) -> String {
    let (rows, files) = (plural(seeded.rows, "event"), plural(seeded.files, "file"));
    if seeded.before {
        return format!("archive: was made before, {rows} in {files}\n");
    }
    let mut text = format!("archive: made, {rows} in {files}\n");
    for (n, what) in [
        (seeded.quarantined, "that this definition cannot judge: in the set's quarantine"),
        (seeded.rescued, "from quarantine that this definition can judge"),
        (seeded.duplicates, "of an event that stands there already"),
        (seeded.conflicts, "of an event that stands there with another content: among the set's conflicts"),
        (seeded.incomplete, "without all of the change, counted by what is left"),
    ] {
        if n > 0 {
            let _ = writeln!(text, "  {} {what}", plural(n, "record"));
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
        "totals: loaded, {}; {} as numbers, {} counted, {} counted before\n",
        plural(*cells, "cell"),
        plural(*as_numbers, "event"),
        count(*counted),
        count(*counted_before)
    );
    if loaded.left > 0 {
        let _ =
            writeln!(text, "  left to the repair: {}, since the live stream was faster", plural(loaded.left, "cell"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rebuild::TablePlan;

    #[test]
    fn the_next_command_names_the_definition() {
        let named = |step: &str, path| {
            let mut step = step.to_owned();
            name_definition(&mut step, path);
            step
        };
        let confirm = "recount rebuild --into tokyo --confirm";
        assert_eq!(named(confirm, "t.toml"), "recount rebuild --definition t.toml --into tokyo --confirm");
        assert_eq!(named(confirm, "a b.toml"), "recount rebuild --definition 'a b.toml' --into tokyo --confirm");
        assert_eq!(named("recount switch --to tokyo --confirm", "t.toml"), "recount switch --to tokyo --confirm");
    }

    #[test]
    fn a_plan_says_what_happens_in_which_order_and_what_of_it_is_done() {
        let plan = |seeded, loaded| Plan {
            from: "base".parse().unwrap(),
            into: "tokyo".parse().unwrap(),
            definition: "0123456789abcdef".to_owned(),
            differences: vec!["time_zone: UTC becomes Asia/Tokyo".to_owned()],
            events: 12_345,
            files: 1,
            bytes: 3 << 20,
            months: ["2026-10".parse().unwrap(), "2026-11".parse().unwrap()].into(),
            counted_at_most: 1,
            tables: vec![TablePlan { name: "recount-totals-tokyo".to_owned(), exists: seeded }],
            seeded,
            loaded,
        };
        let shown = |seeded, loaded| {
            shown_report(&Report {
                confirmed: false,
                plan: plan(seeded, loaded),
                seeded: None,
                loaded: None,
                repaired: 0,
                reconciled: None,
                comparison: None,
                next: Vec::new(),
            })
        };
        insta::assert_snapshot!(shown(false, false), @r"
        rebuild tokyo from base, definition 0123456789abcdef
          time_zone: UTC becomes Asia/Tokyo
        archive: 12,345 events in 1 file of 3 MiB together, 2026-10 to 2026-11
        totals: 1 event within the ledger's reach, counted one by one at most; older ones go in as one number per cell
        table recount-totals-tokyo: to be made

        nothing was changed. --confirm does this, in this order; broken off, the same command goes on:
          1. the archive of base reads the stream to its tip
          2. the tables of tokyo are made
          3. tokyo gets an archive of its own: every event of base's, judged anew by the new definition
          4. its totals are loaded from that
          5. it is reconciled with its own archive, and repaired
        base stays as it is, and readers go on with it until `recount switch`
        ");
        let same = Plan { differences: Vec::new(), ..plan(false, false) };
        assert!(super::steps(&same).contains("every event of base's, judged anew by the same definition\n"));
        let steps = |seeded, loaded| steps(&plan(seeded, loaded));
        assert_eq!(steps(true, false).matches(" (done)").count(), 3);
        insta::assert_snapshot!(steps(true, true), @"tokyo is made and loaded; --confirm reconciles it with its own archive, and repairs it. Readers go by it after `recount switch --to tokyo --confirm`");
    }

    /// There is no file with the definition where a stack has it.
    #[cfg(feature = "aws")]
    #[tokio::test]
    async fn the_definition_in_use_is_that_of_the_stack() {
        let toml = "# said so\n[source]\ntable = \"scans\"\nkey = [\"id\"]\n[fold]\ngroup_by = \"project\"\n";
        let (sdk, stack) = crate::testing_aws::deployed(toml);
        let mut settings = stack.settings.clone();
        settings.definition = "there is no such file.toml".to_owned();
        let definition = recount_schemas::Definition::parse(toml, "recount.toml").unwrap();
        let context = Context::new(&sdk, settings, definition, recount_schemas::host::SystemHost::shared());
        assert!(matches!(in_use(&context).await, Err(CommandError::Context(ContextError::Unreadable { .. }))));
        assert_eq!(in_use(&Context { stack: Some(stack), ..context }).await.unwrap(), toml);
    }
}
