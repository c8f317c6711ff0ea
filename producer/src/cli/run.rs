//! Carries out a command line.

use std::error::Error;
use std::fs::File;
use std::path::Path;

use aws_config::{BehaviorVersion, SdkConfig};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::tz::TimeZone;
use recount_schemas::definition::file::MAX_FILE;
use recount_schemas::host::SharedHost;
use recount_schemas::{Definition, bounded};
use serde::Serialize;

use super::{Cli, Command, Format, LoadArgs, RecordArgs, ScanArgs, show};
use crate::clients;
use crate::drive::Pace;
use crate::items::KEY;
use crate::load::{self, LoadError, LoadReport, LoadSettings};
use crate::record::{RecordSettings, record};
use crate::scan::{ScanSettings, scan};
use crate::stream::{Sender, Sending};
use crate::table::Table;

/// The definition that is read where none is named, if it is there.
const DEFAULT_DEFINITION: &str = "recount.toml";

const DAY_US: i64 = 86_400_000_000;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is done.
    Clean = 0,
    /// Done, but something is to be looked at.
    Findings = 1,
    /// Not done.
    Undecided = 2,
    /// It cannot be done as asked.
    Usage = 3,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// It cannot be done as asked.
    #[error("{0}")]
    Usage(String),
    /// A file that was named cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// AWS or the way to it failed.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
}

impl CliError {
    /// The exit code that it means.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Read { .. } => Exit::Usage,
            Self::Failed(_) => Exit::Undecided,
        }
    }

    fn failed(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Does what `cli` says; gives the report as it is to be printed.
pub async fn run(cli: Cli, host: &SharedHost) -> Result<(String, Exit), CliError> {
    let aim = Aim::of(cli.definition.as_deref(), cli.table)?;
    let aws = aws_config::defaults(BehaviorVersion::latest()).load().await;
    match cli.command {
        Command::Record(args) => run_record(args, &aim, &aws, host, cli.format).await,
        Command::Scan(args) => run_scan(args, &aim, &aws, host, cli.format).await,
        Command::Load(args) => run_load(args, &aim, &aws, host, cli.format).await,
    }
}

/// The table that is meant, and the zone of its definition.
struct Aim {
    table: String,
    zone: Option<TimeZone>,
}

impl Aim {
    fn of(definition: Option<&Path>, table: Option<String>) -> Result<Self, CliError> {
        let path = match definition {
            Some(path) => Some(path),
            None => Some(Path::new(DEFAULT_DEFINITION)).filter(|path| path.exists()),
        };
        let definition = path.map(read_definition).transpose()?;
        let table = match (table, &definition) {
            (Some(table), _) => table,
            (None, Some(definition)) if definition.key != [KEY] => {
                let (table, key) = (&definition.table, definition.key.join(", "));
                return Err(CliError::Usage(format!(
                    "the definition's table {table} has the key {key}; scans have the key {KEY}: give a table of scans by --table"
                )));
            }
            (None, Some(definition)) => definition.table.clone(),
            (None, None) => {
                let message = "which table? give --table NAME or --definition FILE (there is no recount.toml here)";
                return Err(CliError::Usage(message.to_owned()));
            }
        };
        Ok(Self { table, zone: definition.map(|definition| definition.zone.rules().clone()) })
    }
}

fn read_definition(path: &Path) -> Result<Definition, CliError> {
    let name = path.display().to_string();
    let text = File::open(path).and_then(|file| bounded::text(file, MAX_FILE));
    let text = text.map_err(|source| CliError::Read { path: name.clone(), source })?;
    Definition::parse(&text, &name).map_err(|error| CliError::Usage(error.to_string()))
}

async fn run_record(
    args: RecordArgs,
    aim: &Aim,
    aws: &SdkConfig,
    host: &SharedHost,
    format: Format,
) -> Result<(String, Exit), CliError> {
    let settings = RecordSettings {
        project: args.project,
        count: args.count,
        at_us: args.at.map_or_else(|| host.now_us(), |at| at.as_microsecond()),
        file_name: args.file_name,
        bytes: args.bytes,
        run: args.run.unwrap_or_else(|| new_run(host)),
    };
    let report = record(&table(aws, aim, host), &settings, &**host).await.map_err(CliError::failed)?;
    let exit = if report.existed { Exit::Findings } else { Exit::Clean };
    Ok((print(&report, show::record(&report), format)?, exit))
}

async fn run_scan(
    args: ScanArgs,
    aim: &Aim,
    aws: &SdkConfig,
    host: &SharedHost,
    format: Format,
) -> Result<(String, Exit), CliError> {
    if !args.dir.is_dir() {
        return Err(CliError::Usage(format!("{} is not a directory that can be read", args.dir.display())));
    }
    let settings = ScanSettings {
        dir: args.dir,
        project_from: args.project_from,
        occurred_at: args.occurred_at,
        run: args.run.unwrap_or_else(|| new_run(host)),
        readers: usize::from(args.readers),
    };
    let bar = bar(None, "{spinner} {pos} files, {msg}");
    let report = scan(&table(aws, aim, host), &settings, host, &|progress| {
        bar.set_position(progress.written);
        bar.set_message(format!("{} bytes", progress.bytes));
    })
    .await;
    bar.finish_and_clear();
    let report = report.map_err(CliError::failed)?;
    let exit = if report.failed > 0 { Exit::Findings } else { Exit::Clean };
    Ok((print(&report, show::scan(&report), format)?, exit))
}

async fn run_load(
    args: LoadArgs,
    aim: &Aim,
    aws: &SdkConfig,
    host: &SharedHost,
    format: Format,
) -> Result<(String, Exit), CliError> {
    if !args.into_stream && (args.duplicates > 0.0 || args.out_of_order > 0.0) {
        let message = "--duplicates and --out-of-order are faults of a stream: they need --into-stream";
        return Err(CliError::Usage(message.to_owned()));
    }
    let now_us = host.now_us();
    let until_us = args.until.map_or(now_us, |until| until.as_microsecond());
    if args.into_stream && until_us > now_us.saturating_add(DAY_US) {
        let message = "--until is more than a day ahead: with --into-stream, changes end then, and the consumer would quarantine them";
        return Err(CliError::Usage(message.to_owned()));
    }
    let settings = LoadSettings {
        events: args.events,
        projects: args.projects,
        zipf: args.zipf,
        months: args.months,
        until_us,
        zone: args.time_zone.or_else(|| aim.zone.clone()).unwrap_or(TimeZone::UTC),
        // Half the bits, so that every reader of JSON reads the seed exactly.
        seed: args.seed.unwrap_or_else(|| host.random_u64() >> 32),
        updates: args.updates,
        deletes: args.deletes,
        duplicates: args.duplicates,
        out_of_order: args.out_of_order,
    };
    let pace = Pace { rate: args.rate, lanes: usize::from(args.in_flight) };
    let bar = bar(Some(args.events), "{wide_bar} {pos}/{len} {per_sec}");
    let progress = |done: u64| {
        // Updates, deletes and duplicates come on top of the events.
        bar.set_length(done.max(args.events));
        bar.set_position(done);
    };
    let report = if args.into_stream {
        let sender = Sender::new(clients::kinesis(aws), args.stream, Sending::default(), host.clone());
        loaded(load::into_stream(&sender, &settings, &aim.table, pace, &**host, &progress).await)
    } else {
        loaded(load::into_table(&table(aws, aim, host), &settings, pace, &**host, &progress).await)
    };
    bar.finish_and_clear();
    let report = report?;
    Ok((print(&report, show::load(&report), format)?, Exit::Clean))
}

fn loaded<E: Error + Send + Sync + 'static>(outcome: Result<LoadReport, LoadError<E>>) -> Result<LoadReport, CliError> {
    outcome.map_err(|error| match error {
        LoadError::Settings(bad) => CliError::Usage(bad.to_string()),
        target => CliError::failed(target),
    })
}

fn table(aws: &SdkConfig, aim: &Aim, host: &SharedHost) -> Table {
    Table::new(clients::dynamo(aws), aim.table.clone(), host.clone())
}

fn new_run(host: &SharedHost) -> String {
    format!("{:016x}{:016x}", host.random_u64(), host.random_u64())
}

/// A progress bar on standard error; invisible unless that is a terminal.
fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar, // the templates are constant; indicatif's own look would do
    }
}

fn print(report: &impl Serialize, table: String, format: Format) -> Result<String, CliError> {
    match format {
        Format::Table => Ok(table),
        Format::Json => serde_json::to_string(report).map_err(CliError::failed),
    }
}
