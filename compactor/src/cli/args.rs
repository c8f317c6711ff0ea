//! The command line of `recount`, as typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use recount_schemas::{Group, Home, Month, Year};

use super::rebuild::RebuildArgs;
use super::switch::SwitchArgs;

use super::compact::Compact;
use super::definition::DefinitionArgs;
use super::doctor::Doctor;
use super::estimate::EstimateArgs;
use super::explain::Explain;
use super::fsck::Fsck;
use super::why::Why;

/// Exact totals of a DynamoDB table's changes: counted live, archived, recounted, compared and put right.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "recount",
    version,
    after_help = "Things are found by --stack, or by RECOUNT_DEFINITION, RECOUNT_TOTALS_TABLE, RECOUNT_LEDGER_TABLE, RECOUNT_PROGRESS_TABLE,
RECOUNT_STREAM, RECOUNT_BUCKET, RECOUNT_SET, RECOUNT_GLUE_DATABASE (where months are partitions of a Glue table), RECOUNT_ATHENA_WORKGROUP (for
--engine athena) and the SDK's own variables (AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL, …).

Examples:
  recount usage acme --year 2026        live totals of a group, months and year, against its quota
  recount reconcile                     hold every total against the archive, exactly, while the pipeline runs
  recount repair                        say what would put it right, change nothing
  recount repair --confirm              put it right, and prove it
  recount explain acme 2026-11          the events that make a number
  recount why EVENT_ID                  what became of one event
  recount fsck                          hold the archive against its own log, every byte and row"
)]
pub struct Cli {
    /// How to write the report.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// The definition of what is counted [default: the stack's, else RECOUNT_DEFINITION, else recount.toml].
    #[arg(long, global = true, value_name = "FILE")]
    pub definition: Option<String>,
    /// The home to work on: `base` or a set [default: RECOUNT_SET, else the one that was switched to last].
    #[arg(long, global = true, value_name = "NAME")]
    pub set: Option<Home>,
    /// The deployment to work on, by its stack: names and definition come from there.
    #[arg(long, global = true, value_name = "NAME", env = crate::stack::VARIABLE)]
    pub stack: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What each command's help ends with.
pub const EXIT_CODES: &str = "Exit codes: 0 clean, 1 findings, 2 could not decide, 3 bad usage.";

impl Cli {
    /// The command line with all of its help.
    pub fn whole() -> clap::Command {
        with_exit_codes(Self::command().mut_subcommands(with_exit_codes))
    }

    /// What was typed.
    pub fn typed(line: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&Self::whole().try_get_matches_from(line)?)
    }
}

fn with_exit_codes(command: clap::Command) -> clap::Command {
    let help = command.get_after_help().map_or_else(String::new, |help| format!("{help}\n\n"));
    command.after_help(format!("{help}{EXIT_CODES}"))
}

/// How to write a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people.
    Table,
    /// One JSON document on standard output.
    Json,
}

/// What reads the archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// This program.
    #[default]
    Own,
    /// Athena, by RECOUNT_ATHENA_WORKGROUP and RECOUNT_GLUE_DATABASE.
    Athena,
}

/// Which cells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Which {
    /// Only this group.
    #[arg(long)]
    pub group: Option<Group>,
    /// Only this month, as 2026-11.
    #[arg(long)]
    pub month: Option<Month>,
}

/// The commands.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Live totals by month and year, against the quota.
    #[command(after_help = "A group without any event is no error: that is said, and the exit code is 0.

Example: recount usage acme --year 2026 --format json")]
    Usage {
        /// The group; all groups where absent.
        group: Option<Group>,
        /// Only this year, as 2026.
        #[arg(long)]
        year: Option<Year>,
    },
    /// Archive the stream to its tip.
    #[command(after_help = "Runs the same code as the scheduled compactor; both may run at once.
Ends with 1 where the stream may have dropped records before this run read them, with 2 where it did not reach the tip.")]
    Archive,
    /// Fold the archive into monthly and yearly totals, and write them as totals/monthly and totals/yearly.
    #[command(after_help = "Examples:
  recount recompute                     by our own fold, which also proves that no event key stands twice
  recount recompute --engine athena     by one query over all months, whose files and rows are held against the log; for count = \"inserts\"")]
    Recompute {
        /// What folds.
        #[arg(long, value_enum, default_value_t = Engine::Own)]
        engine: Engine,
    },
    /// Hold the live totals against the archive.
    #[command(after_help = "Exact while events flow; archives to the tip first.
Finding kinds: missing doubled damaged unbacked conflicting wrong_cell quarantined too_old unusable lost.
Of all cells, what it finds is also kept as findings/findings.parquet, an event a row; a part, by --month or --group, leaves that as it is.

Examples:
  recount reconcile --month 2026-11 --format json
  recount reconcile --engine athena --month 2026-10
                                             for closed months beyond one machine: by one query, whose files and rows are held against the
                                             log, then event by event on this machine where a cell is not shown to be clean, as in the running
                                             month nearly every busy one; for count = \"inserts\"
  recount reconcile --quarantined            the records in quarantine, and why; nothing is compared")]
    Reconcile {
        /// Which cells.
        #[command(flatten)]
        which: Which,
        /// What reads the archive first.
        #[arg(long, value_enum, default_value_t = Engine::Own, conflicts_with = "quarantined")]
        engine: Engine,
        /// List the records that are in quarantine, and compare nothing.
        #[arg(long, conflicts_with_all = ["group", "month"])]
        quarantined: bool,
    },
    /// Say what would put the totals right; with --confirm, do it.
    #[command(after_help = "Examples:
  recount repair                             make a plan, keep it under plans/ and show it; change nothing
  recount repair --plan HASH                 show a kept plan
  recount repair --plan HASH --confirm       apply just that plan; a second time changes nothing
  recount repair --confirm                   plan, apply, reconcile, until nothing is left to repair
  recount repair --report HASH               show what a repair did, and check that nobody changed its report

A number is not lowered where the stream lost records (`lost`): the events may have happened. --accept-loss lowers it all the same.

Ends as the last reconcile does: 0 clean, 1 findings, 2 could not decide. A kept plan that is only shown makes none:
0 if it was applied already or is empty, else 1.")]
    Repair {
        /// Which cells.
        #[command(flatten)]
        which: Which,
        /// A plan: its name in the bucket, or a file.
        #[arg(long, value_name = "HASH|FILE")]
        plan: Option<String>,
        /// Apply it.
        #[arg(long)]
        confirm: bool,
        /// Lower also numbers whose events the archive may have lost.
        #[arg(long)]
        accept_loss: bool,
        /// Show the report of a repair that was made, by its hash.
        #[arg(long, value_name = "HASH", conflicts_with_all = ["plan", "confirm", "accept_loss", "group", "month"])]
        report: Option<String>,
    },
    /// The events that make a group's number of a month.
    Explain(Explain),
    /// One event's whole life: stream, archive, cells, ledger, quarantine, plans.
    Why(Why),
    /// Hold the archive against its log: entries, objects, bytes, rows.
    Fsck(Fsck),
    /// Quarantined records through the path again, after a fix.
    Redrive(super::redrive::RedriveArgs),
    /// Archived changes back into a stream, in order; and from there over to the live stream.
    Replay(super::replay::ReplayArgs),
    /// Merge a month's small files into few large ones; delete what that removed.
    Compact(Compact),
    /// Hold the archive against the source table itself: what was never captured.
    Audit(super::audit::AuditArgs),
    /// Bring in the items whose INSERT was never captured.
    Backfill(super::backfill::BackfillArgs),
    /// Take an item's personal data out of the archive; no total changes.
    Erase(super::erase::Erase),
    /// Make totals anew beside the old ones: for another definition, or since a table was lost.
    Rebuild(RebuildArgs),
    /// Make readers go by another home.
    Switch(SwitchArgs),
    /// All homes of totals and archive, and how far each of them is.
    Sets,
    /// Check a definition; print its hash, and its base64 for a deployment.
    Definition(DefinitionArgs),
    /// Check a deployment: what is wrong with it, and the cure.
    Doctor(Doctor),
    /// What a deployment costs a month, beside two other designs.
    Estimate(EstimateArgs),
    /// The exact list of the archive's live files, one per line.
    #[command(after_help = "While a month is being compacted a glob sees events twice; this list never does.")]
    Files {
        /// Only this month, as 2026-11.
        #[arg(long)]
        month: Option<Month>,
    },
}

/// Whether a plan is named by its hash, or a file's path.
pub fn plan_source(plan: &str) -> PlanSource {
    let is_hash = plan.len() == 64 && plan.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_hash { PlanSource::Bucket(plan.to_owned()) } else { PlanSource::File(PathBuf::from(plan)) }
}

/// Where a plan is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanSource {
    /// In the bucket, under this name.
    Bucket(String),
    /// In a file.
    File(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_every_help_says_the_exit_codes_once() {
        Cli::whole().debug_assert();
        let mut whole = Cli::whole();
        let said = |command: &mut clap::Command| command.render_long_help().to_string().matches(EXIT_CODES).count();
        assert_eq!(said(&mut whole), 1);
        assert!(whole.get_about().unwrap().to_string().starts_with("Exact totals of a DynamoDB table's changes"));
        for command in whole.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            assert_eq!(said(command), 1, "{}", command.get_name());
        }
        let typed = ["recount", "sets"].map(OsString::from);
        assert_eq!(Cli::typed(typed).unwrap().command, Command::Sets);
    }

    #[test]
    fn what_is_typed_is_understood() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
        let group: Group = "acme".parse().unwrap();
        assert_eq!(
            parse("recount usage acme --year 2026 --format json").unwrap(),
            Command::Usage { group: Some(group.clone()), year: Year::new(2026) }
        );
        assert_eq!(
            parse("recount repair --month 2026-11 --confirm").unwrap(),
            Command::Repair {
                which: Which { group: None, month: Month::new(2026, 11) },
                plan: None,
                confirm: true,
                accept_loss: false,
                report: None,
            }
        );
        assert_eq!(
            parse("recount explain acme 2026-11").unwrap(),
            Command::Explain(Explain {
                group,
                month: Month::new(2026, 11).unwrap(),
                limit: 1_000,
                as_of: None,
                all: false
            })
        );
        for wrong in [
            "recount",
            "recount explain acme",
            "recount explain acme 2026-13",
            "recount usage --year x",
            "recount mend",
            "recount explain acme 2026-11 --as-of yesterday",
            "recount explain acme 2026-11 --as-of 1 --all",
            "recount fsck --confirm",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_listing_of_quarantine_needs_no_engine() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
        let engine = |line: &str| match parse(line) {
            Ok(Command::Reconcile { engine, .. }) => Some(engine),
            _ => None,
        };
        assert_eq!(engine("recount reconcile"), Some(Engine::Own));
        assert_eq!(engine("recount reconcile --quarantined"), Some(Engine::Own));
        assert_eq!(engine("recount reconcile --engine athena --month 2026-11 --group acme"), Some(Engine::Athena));
        assert_eq!(engine("recount reconcile --engine athena --quarantined"), None);
    }

    #[test]
    fn a_plan_is_a_hash_or_a_file() {
        let hash = "0123456789abcdef".repeat(4);
        assert_eq!(plan_source(&hash), PlanSource::Bucket(hash));
        assert_eq!(plan_source("plan.json"), PlanSource::File("plan.json".into()));
    }
}
