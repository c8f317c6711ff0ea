//! `recount switch` and `recount sets`: which home readers go by.

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;
use recount_schemas::Home;
use recount_schemas::terminal::{shown, shown_line};
use serde::Serialize;

use super::args::Format;
use super::commands::{CommandError, Exit, write};
use super::tables::{self, count, drawn, header, plural, table};
use crate::context::Context;
use crate::contributions::Scope;
use crate::progress::Says;
use crate::rebuild::{Missed, missed};
use crate::reconcile::{Report as Reconciliation, Verdict, reconcile};
use crate::sets::{self, HomeLine, Sets, home};
use crate::table::time;

/// What is typed.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(
    after_help = "Every command without --set works on the home that was switched to last; so does `recount usage`.
What feeds the homes is not touched: the one that was left stays fed, and `recount switch --to base --confirm` is the way back.
What was backfilled or redriven in one home is in no other, but in sets made from it later. Where readers would leave such events it lists
them, and ends with 2 unless they are accepted: compare the homes, or bring the events in there too.

Examples:
  recount switch --to tokyo              hold it against its archive; change nothing
  recount switch --to tokyo --confirm    the same, and switch if it is clean
  recount sets                           all homes, and how far each of them is"
)]
pub struct SwitchArgs {
    /// The set, or base.
    #[arg(long, value_name = "NAME")]
    pub to: Home,
    /// Switch.
    #[arg(long)]
    pub confirm: bool,
    /// Switch also if events were backfilled or redriven in the home that is left only.
    #[arg(long)]
    pub accept_missed: bool,
    /// Switch without a reconcile, and without a look at what was backfilled or redriven.
    #[arg(long)]
    pub unchecked: bool,
}

/// Why readers stay, where something may be missed.
const UNKNOWN: &str =
    "whether it has what is listed above, the logs cannot tell; --accept-missed if that is understood";
/// Additions that a table shows. JSON has more.
const SHOWN: usize = 20;

#[derive(Debug, Serialize)]
struct Report {
    from: Home,
    to: Home,
    confirmed: bool,
    switched: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_because: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reconciled: Option<Reconciliation>,
    /// What was backfilled or redriven in the home that is left, or in one that it was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<Missed>,
}

/// Runs `switch`.
pub async fn run(
    context: &Context,
    args: SwitchArgs,
    format: Format,
    out: &mut (dyn Write + Send),
    says: &Says<'_>,
) -> Result<Exit, CommandError> {
    let root = context.root();
    let current = sets::current(&root).await?;
    let (from, to) = (current.home.clone(), args.to);
    let mut report = Report {
        from,
        to,
        confirmed: args.confirm,
        switched: false,
        refused_because: None,
        reconciled: None,
        missed: None,
    };
    if !args.unchecked {
        let target = target(context, &report.to).await?;
        if let Some(set) = report.to.set()
            && home::loaded(&target.bucket, set).await?.is_none()
        {
            report.refused_because = Some("its totals are not loaded; go on with `recount rebuild --into`");
        } else {
            let reconciled = reconcile(&target, &Scope::all(), says).await?.report;
            if reconciled.verdict != Verdict::Clean {
                report.refused_because =
                    Some("it is not clean; `recount --set NAME repair`, or --unchecked if that is understood");
            }
            report.reconciled = Some(reconciled);
        }
        let found = missed(context, &report.from, &report.to, says).await?;
        if !found.is_nothing() {
            if !args.accept_missed && report.refused_because.is_none() {
                report.refused_because = Some(UNKNOWN);
            }
            report.missed = Some(found);
        }
    }
    if args.confirm && report.refused_because.is_none() {
        sets::switch(&root, &context.host, &current, &report.to).await?;
        report.switched = report.from != report.to;
    }
    write(out, format, &report, shown_report)?;
    Ok(match (&report.reconciled, report.refused_because) {
        (Some(reconciled), _) if reconciled.verdict != Verdict::Clean => reconciled.verdict.into(),
        (None, Some(_)) => Exit::Findings,
        // It is clean, and something may be missed.
        (Some(_), Some(_)) => Exit::Undecided,
        (_, None) => Exit::Clean,
    })
}

/// What readers are to go by, with the definition that is in use there.
async fn target(context: &Context, to: &Home) -> Result<Context, CommandError> {
    if context.home() == *to {
        return Ok(context.clone());
    }
    let given = super::given(&context.sdk, context.stack.as_ref(), to, None).await?;
    let target = Context::open(&context.sdk, &context.settings.base(), to, given, context.host.clone()).await?;
    Ok(Context { stack: context.stack.clone(), ..target })
}

/// What was brought to other homes.
fn shown_missed(missed: &Missed, to: &Home) -> String {
    let mut text = String::new();
    if missed.events > 0 {
        let _ = writeln!(text, "\nbackfilled or redriven elsewhere, so {to} has it only if the same was done there:");
        let mut lines = table(&header(&["home", "when", "by", "entry", "events"], &[]), 3);
        for brought in missed.additions.iter().take(SHOWN) {
            let at = time(brought.at_ms.saturating_mul(1_000));
            let events = count(brought.events);
            lines.add_row([brought.home.to_string(), at, shown(&brought.origin), brought.entry.to_string(), events]);
        }
        let _ = writeln!(text, "{}", drawn(&lines));
        let more =
            missed.events.saturating_sub(missed.additions.iter().take(SHOWN).map(|brought| brought.events).sum());
        if more > 0 {
            let _ = writeln!(text, "and {} more; --format json lists their additions", plural(more, "event"));
        }
    }
    for home in &missed.gone {
        let _ = writeln!(text, "{home} is no more: nobody can say what was backfilled or redriven there");
    }
    text
}

fn shown_report(report: &Report) -> String {
    let mut text = String::new();
    if let Some(reconciled) = &report.reconciled {
        text.push_str(&tables::reconciliation(reconciled));
    }
    let (from, to) = (&report.from, &report.to);
    if let Some(missed) = &report.missed {
        text.push_str(&shown_missed(missed, to));
    }
    let _ = match (report.refused_because, report.switched) {
        (None, _) if from == to => writeln!(text, "readers go by {to} already"),
        (Some(why), _) => writeln!(text, "readers stay with {from}: {why}"),
        (None, true) => writeln!(text, "readers go by {to} now; back with `recount switch --to {from} --confirm`"),
        (None, false) => writeln!(text, "readers go by {from}; `recount switch --to {to} --confirm` changes that"),
    };
    text
}

/// Runs `sets`.
pub async fn sets(context: &Context, format: Format, out: &mut (dyn Write + Send)) -> Result<Exit, CommandError> {
    let report = sets::list(context).await?;
    write(out, format, &report, shown_sets)?;
    Ok(if report.sets.iter().all(|line| line.error.is_none()) { Exit::Clean } else { Exit::Undecided })
}

fn shown_sets(report: &Sets) -> String {
    let names = ["home", "state", "definition", "totals", "events", "archive behind", "consumer behind"];
    let mut lines = table(&header(&names, &[]), 4);
    let shards = |n: u64| if n == 0 { "no".to_owned() } else { plural(n, "shard") };
    let mut errors = String::new();
    for line in &report.sets {
        lines.add_row([
            line.home.to_string(),
            state(line).to_owned(),
            line.definition.as_deref().unwrap_or("-").chars().take(12).collect(),
            shown(&line.totals),
            count(line.events),
            shards(line.archive_behind),
            shards(line.consumer_behind),
        ]);
        if let Some(error) = &line.error {
            let _ = writeln!(errors, "{}: {}", line.home, shown_line(error));
        }
    }
    let mut text = format!("{}\n{errors}", drawn(&lines));
    let others = |wanted: &str| report.sets.iter().any(|line| state(line) == wanted);
    // Writing to a string cannot fail.
    if others(LOADED) {
        let _ = writeln!(
            text,
            "{LOADED}: `recount switch --to HOME` holds it against its archive; with --confirm readers go by it then"
        );
    }
    if others(LOADING) || others(BEGUN) {
        let _ = writeln!(
            text,
            "{BEGUN}, {LOADING}: `recount rebuild --into HOME --confirm` goes on; until then switch refuses it"
        );
    }
    text
}

/// What a home is fit for.
const IN_USE: &str = "in use";
const LOADED: &str = "loaded";
const LOADING: &str = "loading";
const BEGUN: &str = "begun";

/// Readers go by one; a base is always fit for that; a set has no log yet, or no totals yet, or both.
fn state(line: &HomeLine) -> &'static str {
    match (line.current, line.entries, line.loaded) {
        (true, ..) => IN_USE,
        (_, _, true) => LOADED,
        (_, 0, false) => BEGUN,
        (_, _, false) => LOADING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rebuild::missed::Brought;

    #[test]
    fn a_switch_says_what_no_reconcile_can_see() {
        let report = |from: &str, to: &str, switched| Report {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            confirmed: switched,
            switched,
            refused_because: None,
            reconciled: None,
            missed: None,
        };
        insta::assert_snapshot!(shown_report(&report("base", "tokyo", false)), @"readers go by base; `recount switch --to tokyo --confirm` changes that");
        insta::assert_snapshot!(shown_report(&report("base", "tokyo", true)), @"readers go by tokyo now; back with `recount switch --to base --confirm`");
        for same in [report("base", "base", false), report("base", "base", true), report("tokyo", "tokyo", false)] {
            assert_eq!(shown_report(&same), format!("readers go by {} already\n", same.to));
        }
        let brought = |entry, origin: &str, events| Brought {
            home: "base".parse().unwrap(),
            entry,
            at_ms: 1_794_000_000_000,
            origin: origin.to_owned(),
            events,
        };
        let additions = vec![brought(417, "redrive", 2), brought(1_204, "backfill 0f3a", 1_000)];
        let missed = Missed { additions, events: 1_002, gone: vec!["osaka".parse().unwrap()] };
        let refused = Report { missed: Some(missed), refused_because: Some(UNKNOWN), ..report("base", "tokyo", false) };
        insta::assert_snapshot!(shown_report(&refused), @r"

        backfilled or redriven elsewhere, so tokyo has it only if the same was done there:
        ──────────────────────────────────────────────────────────────
         home   when                   by              entry   events
        ══════════════════════════════════════════════════════════════
         base   2026-11-06T21:20:00Z   redrive           417        2
         base   2026-11-06T21:20:00Z   backfill 0f3a    1204    1,000
        ──────────────────────────────────────────────────────────────
        osaka is no more: nobody can say what was backfilled or redriven there
        readers stay with base: whether it has what is listed above, the logs cannot tell; --accept-missed if that is understood
        ");
    }

    #[test]
    fn homes_as_a_table() {
        let line = |home: &str, current, error: Option<&str>| HomeLine {
            home: home.parse().unwrap(),
            current,
            definition: Some("0123456789abcdef".repeat(4)),
            totals: "recount-totals".to_owned(),
            entries: 3,
            events: 12_345,
            loaded: true,
            archive_behind: 0,
            consumer_behind: u64::from(current) * 2,
            error: error.map(str::to_owned),
        };
        let report = Sets {
            sets: vec![
                line("base", true, Some("gone\u{1b}[31m")),
                line("tokyo", false, None),
                HomeLine { loaded: false, ..line("utc", false, None) },
                HomeLine { loaded: false, entries: 0, ..line("x", false, None) },
            ],
        };
        insta::assert_snapshot!(shown_sets(&report), @r"
        ─────────────────────────────────────────────────────────────────────────────────────────────
         home    state     definition     totals           events   archive behind   consumer behind
        ═════════════════════════════════════════════════════════════════════════════════════════════
         base    in use    0123456789ab   recount-totals   12,345               no          2 shards
         tokyo   loaded    0123456789ab   recount-totals   12,345               no                no
         utc     loading   0123456789ab   recount-totals   12,345               no                no
         x       begun     0123456789ab   recount-totals   12,345               no                no
        ─────────────────────────────────────────────────────────────────────────────────────────────
        base: gone\u{1b}[31m
        loaded: `recount switch --to HOME` holds it against its archive; with --confirm readers go by it then
        begun, loading: `recount rebuild --into HOME --confirm` goes on; until then switch refuses it
        ");
    }

    /// There is no file with the definition where a stack has it.
    #[cfg(feature = "aws")]
    #[tokio::test]
    async fn the_base_of_a_stack_is_opened_by_the_definition_in_use() {
        use recount_schemas::host::SystemHost;

        let toml =
            |group: &str| format!("[source]\ntable = \"scans\"\nkey = [\"id\"]\n[fold]\ngroup_by = \"{group}\"\n");
        let (sdk, stack) = crate::testing_aws::deployed(&toml("project"));
        let set = stack.settings.of_set(&"tokyo".parse().unwrap());
        let settings = recount_schemas::Settings { definition: "there is no such file.toml".to_owned(), ..set };
        let definition = recount_schemas::Definition::parse(&toml("owner"), "tokyo").unwrap();
        let context = Context::new(&sdk, settings, definition, SystemHost::shared());
        let target = target(&Context { stack: Some(stack), ..context }, &Home::Base).await.unwrap();
        assert_eq!((target.home(), target.settings.totals.as_str()), (Home::Base, "totals-1"));
        assert_eq!(target.definition.group_by.to_string(), "project");
        assert!(target.stack.is_some());
    }
}
