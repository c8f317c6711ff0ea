//! `recount doctor`.

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;
use recount_schemas::terminal::shown_line;

use super::args::Format;
use super::commands::{CommandError, Exit, write};
use super::tables::{drawn, table};
use crate::context::Context;
use crate::doctor::{Outcome, Report, check, look};
use crate::progress::Says;

/// What can be typed behind `recount doctor`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
#[command(
    after_help = "Looks at a deployment, changes nothing: capture and its precision, the stream's retention, event source mappings, tables,
bucket, partitions, the definition that each part has, the clock. Each thing that is wrong comes with its cure. What there is nothing
to look at for is `not checked`, never fine: name the stack, so that its functions are looked at.

Examples:
  recount --stack recount doctor
  recount doctor --format json

Ends with 0 if all that was checked is fine, with 1 where something is wrong, with 2 where something could not be seen."
)]
pub struct Doctor {
    /// Show also what is fine.
    #[arg(long)]
    pub all: bool,
}

/// Runs it.
pub async fn run(
    context: &Context,
    args: Doctor,
    format: Format,
    out: &mut (dyn Write + Send),
    says: &Says<'_>,
) -> Result<Exit, CommandError> {
    let facts = look(context, context.stack.as_ref(), says).await;
    let report = Report::new(check(&facts));
    write(out, format, &report, |report| shown(report, args.all))?;
    Ok(match report.verdict {
        Outcome::Fine | Outcome::NotChecked => Exit::Clean,
        Outcome::Wrong => Exit::Findings,
        Outcome::Undecided => Exit::Undecided,
    })
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Wrong => "wrong",
        Outcome::Undecided => "not seen",
        Outcome::NotChecked => "not checked",
        Outcome::Fine => "fine",
    }
}

/// A report for people.
fn shown(report: &Report, all: bool) -> String {
    let mut text = String::new();
    let told: Vec<_> = report.checks.iter().filter(|check| all || check.outcome != Outcome::Fine).collect();
    // Writing to a string cannot fail.
    if !told.is_empty() {
        let mut rows = table(&["check", "", "found"].map(str::to_owned), 3);
        for check in &told {
            rows.add_row([check.what.as_str(), word(check.outcome), &shown_line(&check.found)]);
        }
        let _ = writeln!(text, "{}\n", drawn(&rows));
    }
    for check in told.iter().filter(|check| matches!(check.outcome, Outcome::Wrong | Outcome::Undecided)) {
        let _ = writeln!(text, "{}: {}", check.what, shown_line(&check.cure));
    }
    let count = |outcome| report.checks.iter().filter(|check| check.outcome == outcome).count();
    let outcomes = [Outcome::Fine, Outcome::Wrong, Outcome::Undecided, Outcome::NotChecked];
    let counts: Vec<String> =
        outcomes.iter().map(|outcome| format!("{} {}", count(*outcome), word(*outcome))).collect();
    let _ = writeln!(text, "{}", counts.join(", "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Check;

    #[test]
    fn a_report_says_what_is_wrong_and_its_cure() {
        let check = |what: &str, outcome, found: &str, cure: &str| Check {
            what: what.into(),
            outcome,
            found: found.into(),
            cure: cure.into(),
        };
        let report = Report::new(vec![
            check("capture", Outcome::Fine, "ACTIVE", ""),
            check("capture: precision", Outcome::Wrong, "MILLISECOND", "set it to MICROSECOND"),
            check("ledger table", Outcome::Undecided, "AccessDenied\u{1b}[31m", "allow it to be read, or try again"),
            check("partitions", Outcome::NotChecked, "RECOUNT_GLUE_DATABASE is not set", ""),
        ]);
        insta::assert_snapshot!(shown(&report, false), @r"
        ─────────────────────────────────────────────────────────────────────
         check                              found
        ═════════════════════════════════════════════════════════════════════
         capture: precision   wrong         MILLISECOND
         ledger table         not seen      AccessDenied\u{1b}[31m
         partitions           not checked   RECOUNT_GLUE_DATABASE is not set
        ─────────────────────────────────────────────────────────────────────

        capture: precision: set it to MICROSECOND
        ledger table: allow it to be read, or try again
        1 fine, 1 wrong, 1 not seen, 1 not checked
        ");
        assert!(shown(&report, true).contains("ACTIVE"));
    }
}
