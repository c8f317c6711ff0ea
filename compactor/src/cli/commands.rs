//! Each command: a library function, its report, its exit code.

use std::fs::File;
use std::io::Write;

use recount_schemas::terminal::shown_line;
use recount_schemas::{Month, bounded};
use serde::Serialize;

use super::args::{Command, Engine, Format, PlanSource, Which, plan_source};
use super::tables;
use super::titled::{Titled, is_of_one_home};
use crate::archive::{ArchiveError, ArchiveReport};
use crate::athena::AthenaError;
use crate::audit::AuditError;
use crate::backfill::BackfillError;
use crate::bucket::BucketError;
use crate::context::{Context, ContextError};
use crate::contributions::Scope;
use crate::erase::{EraseError, KeyError};
use crate::explain::AsOfError;
use crate::fsck::FsckError;
use crate::progress::{Says, Work};
use crate::rebuild::RebuildError;
use crate::recompute::{self, RecomputeError};
use crate::reconcile::{ReconcileError, Verdict, evidence, reconcile, reconcile_by_athena};
use crate::repair::plan::{Plan, PlanError};
use crate::repair::proof::{Proof, ProofError};
use crate::repair::{Options, RepairError, Report as Repair, fetch, repair, repair_by};
use crate::sets::{HomeError, SwitchError};
use crate::stack::StackError;
use crate::usage::{UsageError, usage};
use crate::why::WhyError;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Nothing is wrong.
    Clean,
    /// Something is.
    Findings,
    /// It cannot be said.
    Undecided,
    /// It was not asked well.
    Usage,
}

impl Exit {
    /// The process's exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Findings => 1,
            Self::Undecided => 2,
            Self::Usage => 3,
        }
    }
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Clean => Self::Clean,
            Verdict::Findings => Self::Findings,
            Verdict::Undecided => Self::Undecided,
        }
    }
}

/// A range that may have lost records is a finding, whether or not the run came to the tip.
impl From<&ArchiveReport> for Exit {
    fn from(report: &ArchiveReport) -> Self {
        match (report.lost.is_empty(), report.reached_tip) {
            (false, _) => Self::Findings,
            (true, false) => Self::Undecided,
            (true, true) => Self::Clean,
        }
    }
}

/// What reconcile says; of a saved plan that is only shown, whether anything is left of it to do.
impl From<&Repair> for Exit {
    fn from(report: &Repair) -> Self {
        match &report.reconciled {
            Some(reconciled) => reconciled.verdict.into(),
            None if report.is_done() => Self::Clean,
            None => Self::Findings,
        }
    }
}

/// A command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The definition, AWS, or the archive's log.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The live totals.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// Recompute.
    #[error(transparent)]
    Recompute(#[from] RecomputeError),
    /// Reconcile or explain.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// Repair.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// What the archive had at a moment.
    #[error(transparent)]
    AsOf(#[from] AsOfError),
    /// The life of an event.
    #[error(transparent)]
    Why(#[from] WhyError),
    /// Fsck.
    #[error(transparent)]
    Fsck(#[from] FsckError),
    /// A redrive.
    #[error(transparent)]
    Redrive(Box<crate::redrive::RedriveError>),
    /// A replay.
    #[error(transparent)]
    Replay(Box<crate::replay::ReplayError>),
    /// Erasure, retention or compaction.
    #[error(transparent)]
    Erase(Box<EraseError>),
    /// An item's key, as typed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Audit.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Backfill.
    #[error(transparent)]
    Backfill(#[from] BackfillError),
    /// Rebuild.
    #[error(transparent)]
    Rebuild(Box<RebuildError>),
    /// The switches.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// What a set keeps of itself.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A name that none of ours can have.
    #[error("{0}")]
    Name(#[from] recount_schemas::set::NotASetName),
    /// A plan in a file.
    #[error("plan {path}: {source}; of a plan in the bucket give all 64 digits of its hash")]
    PlanFile {
        /// The file.
        path: String,
        /// What happened.
        source: std::io::Error,
    },
    /// A definition that is right, and cannot be deployed.
    #[error("{path} cannot be deployed: {why}")]
    Undeployable {
        /// The file.
        path: String,
        /// Why not.
        why: String,
    },
    /// A recount by Athena.
    #[error(transparent)]
    Athena(Box<AthenaError>),
    /// The stack.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The bucket.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The report could not be written.
    #[error("the report could not be written: {0}")]
    Output(#[from] std::io::Error),
    /// The report could not be laid out.
    #[error("the report could not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<AthenaError> for CommandError {
    fn from(error: AthenaError) -> Self {
        Self::Athena(Box::new(error))
    }
}

impl From<RebuildError> for CommandError {
    fn from(error: RebuildError) -> Self {
        Self::Rebuild(Box::new(error))
    }
}

impl From<EraseError> for CommandError {
    fn from(error: EraseError) -> Self {
        Self::Erase(Box::new(error))
    }
}

impl CommandError {
    /// The exit code: bad usage where the command line or the definition is wrong, else undecided.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Context(error)
            | Self::AsOf(AsOfError::Explain(ReconcileError::Context(error)))
            | Self::Why(WhyError::Reconcile(ReconcileError::Context(error)))
            | Self::Audit(AuditError::Context(error))
            | Self::Backfill(BackfillError::Context(error))
            | Self::Reconcile(ReconcileError::Context(error))
            | Self::Repair(RepairError::Reconcile(ReconcileError::Context(error))) => exit_of_context(error),
            Self::Athena(error) | Self::Reconcile(ReconcileError::Athena(error)) if error.is_usage() => Exit::Usage,
            Self::Stack(error) if error.is_usage() => Exit::Usage,
            Self::Erase(error) if error.is_usage() => Exit::Usage,
            Self::Redrive(error) => super::redrive::exit(error),
            Self::Replay(error) => super::replay::exit(error),
            Self::Rebuild(error) => super::rebuild::exit(error),
            Self::Home(HomeError::NoSuchSet(_) | HomeError::OtherDefinition { .. } | HomeError::Definition(_))
            | Self::Name(_) => Exit::Usage,
            Self::Undeployable { .. } => Exit::Findings,
            Self::PlanFile { .. }
            | Self::Key(_)
            | Self::Repair(RepairError::Plan(_) | RepairError::Proof(ProofError::Absent(_)))
            | Self::AsOf(AsOfError::Moment(_))
            | Self::Fsck(FsckError::OtherDefinition { .. }) => Exit::Usage,
            Self::Audit(AuditError::NoKey { .. }) => Exit::Usage,
            Self::Audit(AuditError::Table(error)) if error.is_usage() => Exit::Usage,
            Self::Backfill(error) if error.is_usage() => Exit::Usage,
            _ => Exit::Undecided,
        }
    }
}

/// How such an error ends a command.
pub fn exit_of_context(error: &ContextError) -> Exit {
    match error {
        ContextError::Unreadable { .. }
        | ContextError::Definition(_)
        | ContextError::OtherDefinition { .. }
        | ContextError::Home(HomeError::NoSuchSet(_) | HomeError::OtherDefinition { .. })
        | ContextError::Archive(ArchiveError::OtherDefinition { .. }) => Exit::Usage,
        _ => Exit::Undecided,
    }
}

/// What is wrong with a file that the command line names shows before anybody is asked.
pub fn check_files(command: &Command) -> Result<(), CommandError> {
    let Command::Repair { plan: Some(plan), .. } = command else { return Ok(()) };
    let PlanSource::File(path) = plan_source(plan) else { return Ok(()) };
    let unreadable = |source| CommandError::PlanFile { path: plan.clone(), source };
    File::open(path).map(drop).map_err(unreadable)
}

/// Runs a command and writes its report to `out`.
pub async fn run(
    context: &Context,
    command: Command,
    format: Format,
    out: &mut (dyn Write + Send),
    says: &Says<'_>,
) -> Result<Exit, CommandError> {
    let definition = &context.definition;
    let set = context.settings.set.as_ref().filter(|_| is_of_one_home(&command));
    let out: &mut (dyn Write + Send) = &mut Titled::new(out, format, set);
    match command {
        Command::Usage { group, year } => {
            context.check_definition().await?;
            let report = usage(&context.totals, group.as_ref(), year).await?;
            write(out, format, &report, |report| match report.months.is_empty() && report.unusable.is_empty() {
                true => tables::no_totals(group.as_ref(), year),
                false => tables::usage(report, definition),
            })?;
            Ok(if report.unusable.is_empty() { Exit::Clean } else { Exit::Undecided })
        }
        Command::Archive => {
            context.check_definition().await?;
            says(Work::Step("archiving to the tip of the stream"));
            let report = context.archive().await?;
            write(out, format, &report, tables::archive)?;
            Ok((&report).into())
        }
        Command::Recompute { engine: Engine::Athena } => super::recompute::run(context, format, out, says).await,
        Command::Recompute { engine: Engine::Own } => {
            let report = recompute::of_now(context, says).await?;
            write(out, format, &report, |report| tables::recomputation(report, definition))?;
            Ok(if report.is_clean() { Exit::Clean } else { Exit::Findings })
        }
        Command::Reconcile { quarantined: true, .. } => {
            let listed = evidence::listed(&context.bucket).await.map_err(ReconcileError::from)?;
            write(out, format, &listed, tables::quarantined)?;
            Ok(if listed.records.is_empty() { Exit::Clean } else { Exit::Findings })
        }
        Command::Reconcile { which, engine, .. } => {
            let report = match engine {
                Engine::Own => reconcile(context, &scope(which), says).await?.report,
                Engine::Athena => reconcile_by_athena(context, &scope(which), says).await?.report,
            };
            write(out, format, &report, tables::reconciliation)?;
            Ok(report.verdict.into())
        }
        Command::Repair { report: Some(hash), .. } => {
            let proof = Proof::fetch(&context.bucket, &hash).await.map_err(RepairError::from)?;
            write(out, format, &proof, |proof| tables::proof(&hash, proof))?;
            Ok(proof.reconciled.verdict.into())
        }
        Command::Repair { which, plan, confirm, accept_loss, .. } => {
            let options = Options { confirm, accept_loss };
            let report = match plan {
                None => repair(context, &scope(which), options, says).await?,
                Some(plan) => {
                    let plan = read_plan(context, &plan).await?;
                    repair_by(context, plan, &scope(which), options, says).await?
                }
            };
            write(out, format, &report, tables::repair)?;
            Ok((&report).into())
        }
        Command::Explain(args) => super::explain::run(context, &args, format, out).await,
        Command::Why(args) => super::why::run(context, &args, format, out, says).await,
        Command::Fsck(args) => super::fsck::run(context, &args, format, out, says).await,
        Command::Redrive(args) => super::redrive::run(context, args, format, out, says).await,
        Command::Replay(args) => super::replay::run(context, args, format, out, says).await,
        Command::Compact(args) => super::compact::run(context, &args, format, out, says).await,
        Command::Audit(args) => super::audit::run(context, args, format, out, says).await,
        Command::Backfill(args) => super::backfill::run(context, args, format, out, says).await,
        Command::Erase(args) => super::erase::run(context, &args, format, out, says).await,
        Command::Rebuild(args) => super::rebuild::run(context, args, format, out, says).await,
        Command::Switch(args) => super::switch::run(context, args, format, out, says).await,
        Command::Sets => super::switch::sets(context, format, out).await,
        Command::Doctor(args) => super::doctor::run(context, args, format, out, says).await,
        Command::Estimate(args) => super::estimate::run(&args, format, out),
        Command::Definition(args) => super::definition::run(&args, format, out),
        Command::Files { month } => files(context, month, format, out).await,
    }
}

async fn files(
    context: &Context,
    month: Option<Month>,
    format: Format,
    out: &mut (dyn Write + Send),
) -> Result<Exit, CommandError> {
    let state = context.log().await?;
    let live = state.live().filter(|live| month.is_none_or(|month| month == live.file.month));
    let names: Vec<String> = live.map(|live| context.bucket.uri(&live.file.target)).collect();
    #[derive(Serialize)]
    struct Files {
        files: Vec<String>,
    }
    write(out, format, &Files { files: names }, |report| {
        report.files.iter().map(|name| format!("{}\n", shown_line(name))).collect()
    })?;
    Ok(Exit::Clean)
}

fn scope(which: Which) -> Scope {
    Scope { group: which.group, month: which.month, cells: None }
}

async fn read_plan(context: &Context, plan: &str) -> Result<Plan, CommandError> {
    match plan_source(plan) {
        PlanSource::Bucket(hash) => Ok(fetch(context, &hash).await?),
        PlanSource::File(path) => {
            let unreadable = |source| CommandError::PlanFile { path: plan.to_owned(), source };
            let most = usize::try_from(crate::repair::plan::MAX_BYTES).unwrap_or(usize::MAX);
            let bytes = File::open(&path).and_then(|file| bounded::bytes(file, most)).map_err(unreadable)?;
            let read = Plan::read(plan, &bytes, &context.definition);
            Ok(read.map_err(|error: PlanError| RepairError::from(error))?)
        }
    }
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    serde_json::to_string(value)
}

/// Writes a report.
pub(super) fn write<T: Serialize>(
    out: &mut (dyn Write + Send),
    format: Format,
    report: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), CommandError> {
    match format {
        Format::Json => {
            serde_json::to_writer(&mut *out, report)?;
            writeln!(out)?;
        }
        Format::Table => out.write_all(table(report).as_bytes())?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Stream;
    use crate::log::entry::Lost;
    use crate::log::state::Hole;
    use crate::reconcile::Report as Reconciliation;
    use crate::repair::Named;
    use crate::repair::apply::{CellReport, Step};
    use crate::repair::plan::{CellPlan, FORMAT};
    use recount_schemas::{Cell, Delta};

    #[test]
    fn how_an_archive_run_ends() {
        let hole = || Hole {
            n: 3,
            stream: Stream { arn: "arn".to_owned(), created_ms: 1 },
            shard: "shardId-000000000000".parse().unwrap(),
            lost: Lost { after: None, before: None, since_ms: None, found_ms: 1 },
        };
        for (reached_tip, holes, code) in [(true, 0, 0), (false, 0, 2), (true, 1, 1), (false, 1, 1)] {
            let lost = (0..holes).map(|_| hole()).collect();
            let report = ArchiveReport { reached_tip, lost, ..ArchiveReport::default() };
            assert_eq!(Exit::from(&report).code(), code, "tip {reached_tip}, {holes} lost");
        }
    }

    #[test]
    fn another_definition_is_bad_usage() {
        let archive = ArchiveError::OtherDefinition { n: 3, found: "a".into(), ours: "b".into() };
        let totals = ContextError::OtherDefinition { table: "totals".into(), found: "a".into(), ours: "b".into() };
        insta::assert_snapshot!(archive, @"log entry 3 was made by definition a, not by this one (b); nothing was archived: use the definition that made the archive, or a new bucket and new tables for this one");
        for error in [ContextError::Archive(archive), totals] {
            assert_eq!(CommandError::Context(error).exit(), Exit::Usage);
        }
        let other = ContextError::Archive(ArchiveError::TimeIsUp);
        assert_eq!(CommandError::Context(other).exit(), Exit::Undecided);
    }

    #[test]
    fn what_cannot_be_asked_of_athena_is_bad_usage() {
        for (error, exit) in [
            (AthenaError::Net, Exit::Usage),
            (AthenaError::Unset("RECOUNT_GLUE_DATABASE"), Exit::Usage),
            (AthenaError::OtherFiles(vec!["2026-11".into()]), Exit::Undecided),
        ] {
            assert_eq!(CommandError::Reconcile(error.into()).exit(), exit);
        }
    }

    #[test]
    fn how_a_repair_ends() {
        let cell = |lane| Cell { group: "acme".parse().unwrap(), month: "2026-11".parse().unwrap(), lane };
        let plan = |lanes: u16| Named {
            hash: "0".repeat(64),
            object: "plans/0".to_owned(),
            plan: Plan {
                format: FORMAT,
                definition: "d".to_owned(),
                cells: (0..lanes)
                    .map(|lane| CellPlan {
                        cell: cell(lane),
                        seen: None,
                        add: Delta::zero(0),
                        raise: None,
                        missing: Vec::new(),
                        void: Vec::new(),
                        settled: Vec::new(),
                    })
                    .collect(),
            },
        };
        let applied = |steps: &[Step]| -> Vec<CellReport> {
            let report = |(lane, number): (usize, &Step)| CellReport::new(cell(lane as u16), *number);
            steps.iter().enumerate().map(report).collect()
        };
        let verdict = |verdict| {
            Some(Reconciliation {
                verdict,
                undecided_because: None,
                cells: 1,
                events: 1,
                coverage: None,
                quarantined: 0,
                findings: Vec::new(),
                more_cells: 0,
                athena: None,
            })
        };
        for (what, plans, steps, reconciled, code) in [
            ("nothing to repair", None, &[][..], verdict(Verdict::Clean), 0),
            ("findings that no plan repairs", None, &[], verdict(Verdict::Findings), 1),
            ("undecided", None, &[], verdict(Verdict::Undecided), 2),
            ("a new plan, shown", Some(1), &[], verdict(Verdict::Findings), 1),
            ("applied, clean after it", Some(1), &[Step::Done], verdict(Verdict::Clean), 0),
            ("applied, findings left", Some(1), &[Step::Raised], verdict(Verdict::Findings), 1),
            ("a saved plan of nothing, shown", Some(0), &[], None, 0),
            ("a saved plan, shown", Some(1), &[], None, 1),
            ("a saved plan that was applied, shown", Some(2), &[Step::Done, Step::DoneBefore], None, 0),
            ("a saved plan that was applied in part, shown", Some(2), &[Step::Done], None, 1),
            ("a saved plan that was refused in part, shown", Some(2), &[Step::Done, Step::Refused], None, 1),
            ("a saved plan that only raised, shown", Some(1), &[Step::Raised], None, 1),
        ] {
            let (plans, applied) = (plans.map(plan).into_iter().collect(), applied(steps));
            let report = Repair { plans, applied, reconciled, ..Repair::default() };
            assert_eq!(Exit::from(&report).code(), code, "{what}");
        }
    }
}
