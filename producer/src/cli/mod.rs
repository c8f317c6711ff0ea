//! The command line of `producer`.
//!
//! - this file: what can be said; checked by clap.
//! - [`run`]: what is then done.
//! - [`show`]: how a report reads as a table.

pub mod run;
pub mod show;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::scan::{OccurredAt, ProjectFrom};

/// Puts scans into the source table, or change records straight into the stream.
#[derive(Debug, Parser)]
#[command(name = "producer", version, after_help = AFTER)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How to print the report: as a table, or as one line of JSON.
    #[arg(long, global = true, help_heading = "Everywhere", value_enum, default_value_t)]
    pub format: Format,
    /// The definition; it names the table and the time zone [default: recount.toml, if it is there].
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        env = "RECOUNT_DEFINITION",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub definition: Option<PathBuf>,
    /// The table, if not the definition's.
    #[arg(long, global = true, help_heading = "Everywhere", value_name = "NAME")]
    pub table: Option<String>,
}

const AFTER: &str = "\
The AWS SDK's own variables apply: AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL and so on.

Exit codes: 0 done; 1 done, with findings (files that could not be read, another item that was there already);
2 not done, AWS or the way to it failed; 3 bad usage.

Examples:
  producer record --project acme
  producer scan ./src --project-from top-dir --occurred-at mtime
  producer load --events 20000 --rate 500 --projects 50 --zipf 1.1 --months 3 --seed 7
  producer load --events 20000 --duplicates 0.02 --out-of-order 0.05 --into-stream";

/// How to print a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: the last line of standard output is one object.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Insert a scan, or many alike.
    Record(RecordArgs),
    /// Insert a scan for each file below a directory.
    Scan(ScanArgs),
    /// Insert, update and delete many invented scans, the same from the same seed.
    Load(LoadArgs),
}

/// `producer record`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// The project that pays for the scan.
    #[arg(long, value_parser = named)]
    pub project: String,
    /// How many scans.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000_000), value_name = "N")]
    pub count: u64,
    /// When it was scanned, as 2026-11-30T23:59:59+08:00 [default: now].
    #[arg(long, value_name = "RFC3339")]
    pub at: Option<Timestamp>,
    /// The file's name.
    #[arg(long, default_value = "by-hand.bin", value_name = "NAME")]
    pub file_name: String,
    /// The file's size in bytes.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub bytes: u64,
    /// What keys are made from; the same run again writes the same items [default: a new one].
    #[arg(long, value_name = "NAME", value_parser = named)]
    pub run: Option<String>,
}

/// `producer scan`.
#[derive(Debug, Args)]
pub struct ScanArgs {
    /// The directory. Symbolic links below it are not followed.
    pub dir: PathBuf,
    /// Whose the files are: `top-dir` for the directory just below DIR (DIR's own name for files that lie in none), or the name
    /// of one project for all.
    #[arg(long, value_name = "top-dir|NAME", value_parser = project_from)]
    pub project_from: ProjectFrom,
    /// When a file counts as scanned: when it was last modified, or now.
    #[arg(long, value_name = "mtime|now", value_parser = occurred_at)]
    pub occurred_at: OccurredAt,
    /// What keys are made from, with each file's path; the same run again writes the same items [default: a new one].
    #[arg(long, value_name = "NAME", value_parser = named)]
    pub run: Option<String>,
    /// How many files are read at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub readers: u16,
}

/// `producer load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Scans inserted; updates, deletes and duplicates come on top.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    pub events: u64,
    /// Operations per second [default: as fast as they are taken].
    #[arg(long, value_name = "R", value_parser = rate)]
    pub rate: Option<f64>,
    /// Projects.
    #[arg(long, default_value_t = 20, value_name = "P")]
    pub projects: u32,
    /// Skew: the project of rank k gets a share in proportion to k^-S. 0: all alike.
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    pub zipf: f64,
    /// Months, the last being that of --until.
    #[arg(long, default_value_t = 3, value_name = "M")]
    pub months: u32,
    /// The last moment of a scan, as 2026-11-30T23:59:59Z [default: now].
    #[arg(long, value_name = "RFC3339")]
    pub until: Option<Timestamp>,
    /// The zone whose clocks end months, in the load and its tally [default: the definition's, else UTC].
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    pub time_zone: Option<TimeZone>,
    /// What everything is drawn from, keys included: with the same seed, settings and --until come the same operations
    /// [default: a new one].
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Updates of earlier items, for each insert: 0 to 1.
    #[arg(long, default_value_t = 0.0, value_name = "F")]
    pub updates: f64,
    /// Deletes of earlier items, for each insert: 0 to 1.
    #[arg(long, default_value_t = 0.0, value_name = "F")]
    pub deletes: f64,
    /// Change records written twice: 0 to 1. Only with --into-stream.
    #[arg(long, default_value_t = 0.0, value_name = "F")]
    pub duplicates: f64,
    /// Change records written later than their turn: 0 to 1. Only with --into-stream.
    #[arg(long, default_value_t = 0.0, value_name = "F")]
    pub out_of_order: f64,
    /// Leave the table alone and write change records, as Kinesis Data Streams for DynamoDB writes them, to the stream.
    #[arg(long)]
    pub into_stream: bool,
    /// The stream.
    #[arg(
        long,
        env = "RECOUNT_STREAM",
        hide_env_values = true,
        default_value = "recount-changes",
        value_name = "NAME"
    )]
    pub stream: String,
    /// How many batches are on their way at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256), value_name = "N")]
    pub in_flight: u16,
}

fn named(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a name has at least one character".to_owned()) } else { Ok(text.to_owned()) }
}

fn project_from(text: &str) -> Result<ProjectFrom, String> {
    match text {
        "top-dir" => Ok(ProjectFrom::TopDir),
        name => named(name).map(ProjectFrom::Name),
    }
}

fn occurred_at(text: &str) -> Result<OccurredAt, String> {
    match text {
        "mtime" => Ok(OccurredAt::Mtime),
        "now" => Ok(OccurredAt::Now),
        _ => Err("it is mtime or now".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.001 => Ok(rate),
        _ => Err("a rate is a number of operations per second, 0.001 or more".to_owned()),
    }
}

fn zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text).map_err(|_| "no such time zone; use an IANA name, as Asia/Singapore".to_owned())
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
