//! `recount redrive`: the command line, its table, its exit code.

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;
use recount_schemas::terminal::{shown, shown_line};
use recount_schemas::{QuarantineCode, ShardId};

use super::args::Format;
use super::commands::{CommandError, Exit};
use super::tables::{count, plural};
use crate::context::Context;
use crate::progress::Says;
use crate::redrive::{Ask, RedriveError, Report, redrive};

/// What is typed behind `recount redrive`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(after_help = "Examples:
  recount redrive                            judge everything in quarantine again, and say what would become of it
  recount redrive --reason bad_measure       only what was quarantined for that
  recount redrive --confirm                  archive and count what is understood now

Ends with 0 when nothing is left to do, 1 where records are ready and not confirmed, or stay, or are too old for the ledger
(recount repair counts these), 2 where it failed: the same command then goes on.")]
pub struct RedriveArgs {
    /// Only what was quarantined for this reason, such as bad_measure.
    #[arg(long, value_name = "REASON", value_parser = reason)]
    pub reason: Option<QuarantineCode>,
    /// Only what stands under this shard.
    #[arg(long)]
    pub shard: Option<ShardId>,
    /// Archive and count what is understood now.
    #[arg(long)]
    pub confirm: bool,
}

fn reason(text: &str) -> Result<QuarantineCode, String> {
    let known = QuarantineCode::ALL.iter().find(|code| code.as_str() == text);
    known.copied().ok_or_else(|| {
        let all: Vec<&str> = QuarantineCode::ALL.iter().map(|code| code.as_str()).collect();
        format!("expected one of {}", all.join(", "))
    })
}

/// Runs the command.
pub async fn run(
    context: &Context,
    args: RedriveArgs,
    format: Format,
    out: &mut (dyn Write + Send),
    says: &Says<'_>,
) -> Result<Exit, CommandError> {
    let ask = Ask { reason: args.reason, shard: args.shard, confirm: args.confirm };
    let report = redrive(context, &ask, says).await?;
    super::commands::write(out, format, &report, table)?;
    Ok((&report).into())
}

impl From<&Report> for Exit {
    fn from(report: &Report) -> Self {
        let left = if report.confirmed { report.too_old + report.conflicting } else { report.ready() };
        if left + report.stayed() == 0 { Self::Clean } else { Self::Findings }
    }
}

impl From<RedriveError> for CommandError {
    fn from(error: RedriveError) -> Self {
        Self::Redrive(Box::new(error))
    }
}

/// How such an error ends the command.
pub fn exit(error: &RedriveError) -> Exit {
    match error {
        RedriveError::Context(error) => super::commands::exit_of_context(error),
        RedriveError::Archive(crate::archive::ArchiveError::OtherDefinition { .. }) => Exit::Usage,
        _ => Exit::Undecided,
    }
}

/// The report for people.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        let _ = writeln!(text, "{words}"); // writing to a string cannot fail
    };
    let before = count(report.done_before);
    line(match report.others {
        None | Some(0) => format!("{} in quarantine, {before} put through before", plural(report.examined, "record")),
        Some(others) => format!(
            "nothing in quarantine is of the --reason and --shard that were asked for; {} of others, {before} put through before",
            plural(others, "record")
        ),
    });
    for (was, records) in &report.ready {
        line(format!("{records:>8}  {was}: understood now"));
    }
    for stayed in &report.stays {
        let verb = if stayed.records == 1 { "stays" } else { "stay" };
        line(format!("{:>8}  {}: {verb}, {}", stayed.records, shown(&stayed.was), shown(&stayed.is)));
    }
    for staying in &report.staying {
        line(format!("          {}: {}", shown(&staying.object), shown_line(&staying.detail)));
    }
    if report.foreign > 0 {
        let objects = if report.foreign == 1 { "object" } else { "objects" };
        line(format!("{:>8}  {objects} under quarantine/ not ours, left alone", report.foreign));
    }
    match report.confirmed {
        true => {
            line(format!("{} archived now, {} before", report.archived, report.archived_before));
            line(format!(
                "{} counted now, {} before; {} add to no total, {} are too old for the ledger, {} conflict with what is archived",
                report.counted, report.counted_before, report.ignored, report.too_old, report.conflicting
            ));
            if report.too_old > 0 {
                line("recount repair puts the too old ones into their numbers".to_owned());
            }
        }
        false if report.ready() > 0 => line("with --confirm they are archived and counted".to_owned()),
        false => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::redrive::run::{Stayed, Staying};

    #[test]
    fn a_report_says_what_is_ready_and_what_stays() {
        let report = Report {
            examined: 5,
            done_before: 1,
            ready: BTreeMap::from([("too_large".to_owned(), 2)]),
            stays: vec![Stayed { was: "bad_measure".into(), is: "not_a_change".into(), records: 3 }],
            staying: vec![Staying {
                object: "quarantine/s/1".into(),
                was: "bad_measure".into(),
                is: "not_a_change".into(),
                detail: "expected \u{1b}[31m value".into(),
            }],
            ..Report::default()
        };
        insta::assert_snapshot!(table(&report), @r"
        5 records in quarantine, 1 put through before
               2  too_large: understood now
               3  bad_measure: stay, not_a_change
                  quarantine/s/1: expected \u{1b}[31m value
        with --confirm they are archived and counted
        ");
        assert_eq!(Exit::from(&report), Exit::Findings);
        let done = Report { confirmed: true, stays: Vec::new(), counted: 2, archived: 2, ..report };
        assert_eq!(Exit::from(&done), Exit::Clean);
        assert_eq!(Exit::from(&Report { too_old: 1, ..done.clone() }), Exit::Findings);
        assert_eq!(Exit::from(&Report { confirmed: false, ready: BTreeMap::new(), ..done }), Exit::Clean);
    }

    #[test]
    fn that_nothing_matches_is_not_that_nothing_is_there() {
        let nothing = Report { done_before: 2, others: Some(1), ..Report::default() };
        insta::assert_snapshot!(table(&nothing), @"nothing in quarantine is of the --reason and --shard that were asked for; 1 record of others, 2 put through before");
        let empty = Report { others: Some(0), ..Report::default() };
        insta::assert_snapshot!(table(&empty), @"0 records in quarantine, 0 put through before");
    }

    #[test]
    fn reasons_are_the_codes() {
        for code in QuarantineCode::ALL {
            assert_eq!(reason(code.as_str()), Ok(*code));
        }
        assert!(reason("bad").unwrap_err().starts_with("expected one of bad_base64, not_a_change"));
    }
}
