//! `recount-local demo`: the main job on one machine, and an incident.
//!
//! - here: the acts, in order.
//! - `incident`: what goes wrong, one thing after the other.
//! - `report`: what is said of it, to people and to programs.

mod incident;
mod report;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use recount_compactor::contributions::Scope;
use recount_compactor::reconcile::{ReconcileError, reconcile};
use recount_compactor::repair::{RepairError, repair};
use recount_compactor::usage::{UsageError, usage};
use recount_producer::drive::Pace;
use recount_producer::load::{LoadError, LoadSettings, into_table};
use recount_producer::scan::{OccurredAt, ProjectFrom, ScanError, ScanSettings, scan};
use recount_producer::table::{Table, TableError};
use recount_schemas::host::SharedHost;
use recount_schemas::{Definition, Settings};

use crate::engines::{Engines, OpenError, Options as EngineOptions};
use crate::pipeline::{Options, Pipeline, PipelineError, SCANS};

pub use report::{DemoReport, Format};
use report::{Rates, Say};

/// What a directory has in it that a demo made, and that the next one may delete.
const MARKER: &str = "made-by-recount-demo";
/// The most events: they go through one machine's SQLite.
const MOST_EVENTS: u64 = 10_000_000;

/// What the demo does.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  recount-local demo\n  recount-local demo --events 100000 --projects 50 --months 6\n  \
    recount-local demo --scan ~/src --format json\n\nExit codes: 0 the last reconcile was clean, 1 it was not, 2 it could not be done, 3 bad usage"
)]
pub struct DemoArgs {
    /// Directory of all data. A directory of an earlier demo is emptied; any other must be new or empty.
    #[arg(long, value_name = "DIR", default_value = "recount-data")]
    pub data: PathBuf,
    /// Scans to record, before the incident.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=MOST_EVENTS))]
    pub events: u64,
    /// Projects that they are spread over, unevenly.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub projects: u32,
    /// Months that they are spread over, the last being this one.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=120))]
    pub months: u32,
    /// What all choices are drawn from.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Count the files of this directory instead of invented ones: a project for each directory in it.
    #[arg(long, value_name = "DIR")]
    pub scan: Option<PathBuf>,
    /// How to say it: `json` puts one object on the last line.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// Why there was no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The directory is somebody else's.
    #[error("{0} is not empty and no demo made it; take another directory with --data")]
    NotOurs(String),
    /// The directory cannot be used.
    #[error("cannot use {path}: {source}")]
    Directory {
        /// The directory.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The directory to scan cannot be read.
    #[error("cannot scan {path}: {source}; name a directory that can be read")]
    Unscannable {
        /// The directory.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The engines.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The pipeline.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The built-in definition.
    #[error(transparent)]
    Definition(#[from] recount_schemas::definition::DefinitionError),
    /// The scans could not be recorded.
    #[error(transparent)]
    Load(#[from] LoadError<TableError>),
    /// The directory could not be scanned.
    #[error(transparent)]
    Scan(#[from] ScanError<TableError>),
    /// Totals could not be read.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// Reconcile.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// Repair.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// A step of the incident.
    #[error("the incident could not be staged: {0}")]
    Incident(String),
}

impl DemoError {
    /// Whether the command line asked for something that cannot be.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::NotOurs(_) | Self::Unscannable { .. })
    }
}

/// What was recorded.
struct Recorded {
    items: u64,
    seconds: f64,
}

/// Runs the demo.
///
/// # Errors
/// When the directory is not ours to use, or a part fails.
pub async fn demo(args: &DemoArgs, host: SharedHost) -> Result<DemoReport, DemoError> {
    let say = Say::new(args.format);
    let began = host.monotonic();
    if let Some(dir) = &args.scan {
        // Before an earlier demo is deleted.
        std::fs::read_dir(dir).map_err(|source| DemoError::Unscannable { path: dir.display().to_string(), source })?;
    }
    prepare(&args.data)?;
    let definition = Definition::parse(SCANS, "recount.toml")?;
    let engines = Engines::open(&args.data, Arc::clone(&host), EngineOptions::default())?;
    let sdk = crate::client::in_process(engines.door()).await;
    let options = Options { retries: 2, archive_every: None, ..Options::default() };
    let positions = args.data.join("positions.sqlite");
    let settings = Settings::default();
    let pipeline =
        Pipeline::start(&engines, &sdk, &positions, settings, definition, Arc::clone(&host), &options).await?;

    say.act("1. An application records scans; the consumer counts them, the compactor archives them");
    let recorded = record(args, &pipeline, &host).await?;
    let behind = pipeline.behind()?;
    let draining = host.monotonic();
    pipeline.drained().await?;
    let drained = host.monotonic().saturating_sub(draining).as_secs_f64();
    let archiving = host.monotonic();
    let archived = pipeline.archive().await?;
    let rates = Rates {
        items: recorded.items,
        record_seconds: recorded.seconds,
        behind,
        drain_seconds: drained,
        archived: archived.records,
        archive_seconds: host.monotonic().saturating_sub(archiving).as_secs_f64(),
    };
    let context = pipeline.context();
    let totals = usage(&context.totals, None, None).await?;
    say.totals(&totals, &context.definition);
    say.rates(&rates);

    say.act("2. An incident");
    let incident = incident::stage(&pipeline, &host, args.seed, &|line| say.line(line)).await?;

    say.act("3. Are the totals right?  recount reconcile");
    let before = reconcile(context, &Scope::all(), &|_| {}).await?.report;
    say.reconciliation(&before);

    say.act("4. Put them right  recount repair --confirm");
    let repaired = repair(context, &Scope::all(), true, &|_| {}).await?;
    say.repair(&repaired);

    say.act("5. And now?  recount reconcile");
    let after = reconcile(context, &Scope::all(), &|_| {}).await?.report;
    say.reconciliation(&after);

    let archive = context.log().await.map_err(ReconcileError::from)?;
    let tally = pipeline.tally();
    let repaired_events = repaired.plans.iter().flat_map(|p| &p.plan.cells).map(|c| c.missing.len() as u64).sum();
    let counted = usage(&context.totals, None, None).await?.months.iter().map(|line| line.events).sum::<i64>();
    let report = DemoReport {
        produced: recorded.items + incident.items,
        // By the totals, which the repair has put right, and not by the consumer's tally: where the answer to a write is lost, as on a
        // busy machine, it finds its own keys when it asks again, and has them for duplicates.
        applied: u64::try_from(counted).unwrap_or(0).saturating_sub(repaired_events),
        duplicates: tally.duplicates,
        ignored: tally.ignored_total(),
        quarantined: tally.quarantined_total(),
        archived: archive.live().map(|live| live.file.rows).sum(),
        cells: after.cells,
        findings_before: before.findings.len() as u64,
        findings_after: after.findings.len() as u64,
        clean: after.verdict == recount_compactor::reconcile::Verdict::Clean,
        repaired_events,
        events_per_second: rates.overall(),
        bounded_by: rates.bound(),
        seconds: host.monotonic().saturating_sub(began).as_secs_f64(),
        data: args.data.display().to_string(),
    };
    pipeline.stop().await;
    say.end(&report);
    Ok(report)
}

/// A fresh directory: new, empty, or left by an earlier demo.
fn prepare(data: &Path) -> Result<(), DemoError> {
    let failed = |source| DemoError::Directory { path: data.display().to_string(), source };
    let marker = data.join(MARKER);
    match std::fs::read_dir(data) {
        Ok(mut entries) => {
            if marker.exists() {
                // Whoever still works on it holds its lock: the engines' own check speaks before anything is deleted.
                drop(Engines::lock_only(data)?);
                std::fs::remove_dir_all(data).map_err(failed)?;
            } else if entries.next().is_some() {
                return Err(DemoError::NotOurs(data.display().to_string()));
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    std::fs::create_dir_all(data).map_err(failed)?;
    std::fs::write(&marker, "`recount-local demo` may delete this directory.\n").map_err(failed)?;
    std::fs::write(data.join("recount.toml"), SCANS).map_err(failed)
}

async fn record(args: &DemoArgs, pipeline: &Pipeline, host: &SharedHost) -> Result<Recorded, DemoError> {
    let context = pipeline.context();
    let table = Table::new(pipeline.clients().dynamodb.clone(), &context.definition.table, Arc::clone(host));
    let bar = bar(args);
    let recorded = match &args.scan {
        Some(dir) => {
            let settings = ScanSettings {
                dir: dir.clone(),
                project_from: ProjectFrom::TopDir,
                occurred_at: OccurredAt::Mtime,
                run: format!("demo {}", args.seed),
                readers: 8,
            };
            let report = scan(&table, &settings, host, &|progress| bar.set_position(progress.written)).await?;
            Recorded { items: report.inserted, seconds: report.seconds }
        }
        None => {
            let settings = LoadSettings {
                projects: args.projects,
                months: args.months,
                seed: args.seed,
                zone: context.definition.zone.rules().clone(),
                ..LoadSettings::new(args.events, host.now_us())
            };
            let report =
                into_table(&table, &settings, Pace::default(), &**host, &|done| bar.set_position(done)).await?;
            Recorded { items: report.inserts, seconds: report.driven.seconds }
        }
    };
    bar.finish_and_clear();
    Ok(recorded)
}

/// A bar on a terminal, nothing elsewhere.
fn bar(args: &DemoArgs) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = if args.scan.is_some() { ProgressBar::new_spinner() } else { ProgressBar::new(args.events) };
    let style = ProgressStyle::with_template("   {bar:40} {pos}/{len} scans  {per_sec}");
    if let (Ok(style), None) = (style, &args.scan) { bar.with_style(style) } else { bar }
}
