//! The source table as it is: read whole, by a Scan or out of an export, into a spool on disk.
//!
//! - [`item`]: an item in one form, its key and its hash.
//! - [`scan`]: a parallel Scan, at a bounded rate, that goes on after a crash.
//! - [`export`], [`manifest`]: a point-in-time export in S3, every file held against its checksum and its count.
//! - [`spool`]: what was read, on disk.
//! - [`pace`]: units per second.
//!
//! [`read`] is how the commands use it.

pub mod export;
pub mod item;
pub mod manifest;
pub mod pace;
pub mod scan;
pub mod spool;

use std::io;
use std::path::PathBuf;

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use recount_consumer::retry::Failure;
use serde::Serialize;

use crate::bucket::BucketError;
use crate::context::Context;
use crate::progress::Says;
use export::Export;
use manifest::{Location, ManifestError};
use pace::Pace;
use scan::Scanner;
use spool::Spool;

/// The table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// DynamoDB refused or did not answer.
    #[error("{action} table {table}: {why}")]
    Dynamo {
        /// What was being done.
        action: &'static str,
        /// The table.
        table: String,
        /// What happened.
        why: String,
    },
    /// An item has an attribute of a type that did not exist when this was written.
    #[error("table {table} has an attribute of a type that this program does not know; use a newer one")]
    UnknownType {
        /// The table.
        table: String,
    },
    /// The export cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file of the export is not what the manifest says.
    #[error("{key}: {why}")]
    Export {
        /// The object.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The working directory is another reading's.
    #[error(
        "{dir} holds a reading of something else, or by other options (--segments, --export, audit or backfill), that was not \
         finished; take another directory, or delete it"
    )]
    OtherReading {
        /// The directory.
        dir: String,
    },
    /// The working directory could not be made.
    #[error("the working directory {dir} could not be made: {source}; the one that it lies in must be there")]
    Unmade {
        /// The directory.
        dir: String,
        /// What happened.
        source: io::Error,
    },
    /// The working directory is damaged.
    #[error("{dir} is damaged; delete it and read the table again")]
    Damaged {
        /// The directory.
        dir: String,
    },
    /// A checkpoint is no key.
    #[error("the checkpoint of table {table} in the working directory is damaged; delete it and read the table again")]
    Checkpoint {
        /// The table.
        table: String,
    },
    /// The working directory failed.
    #[error("the working directory failed: {0}")]
    Disk(#[from] io::Error),
}

impl TableError {
    /// A request that got no good answer.
    pub(crate) fn dynamo<E: ProvideErrorMetadata>(action: &'static str, table: &str, failure: &Failure<E>) -> Self {
        Self::Dynamo { action, table: table.to_owned(), why: failure.to_string() }
    }

    /// Whether what was typed is wrong, not what is there.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Manifest(_) | Self::OtherReading { .. } | Self::Unmade { .. })
    }
}

/// How the table is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The address of an export; `None`: a Scan.
    pub export: Option<String>,
    /// Segments of the Scan, 1 to [`scan::MAX_SEGMENTS`].
    pub segments: u16,
    /// Read units a second at most.
    pub rate: Option<f64>,
    /// Whether a Scan reads consistently.
    pub consistent: bool,
    /// Where what was read is kept, to go on after a crash; a temporary directory where absent.
    pub work: Option<PathBuf>,
}

impl Reading {
    /// Removes what was read, once it has been answered by: the same command then reads the table anew.
    pub fn answered(&self) -> Result<(), TableError> {
        self.work.as_deref().map_or(Ok(()), spool::clear)
    }
}

/// What was read.
#[derive(Debug)]
pub struct Table {
    /// The items.
    pub spool: Spool,
    /// What reports say of it.
    pub source: Source,
    /// The moments that it shows, µs since 1970: of an export one, of a Scan from the first page to the last.
    pub window: (i64, i64),
}

/// What reports say of the source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Source {
    /// `scan`, or the export's address.
    pub source: String,
    /// How many items it has.
    pub items: u64,
    /// The read units of this run.
    pub read_units: f64,
    /// The first moment that it shows, RFC 3339.
    pub from: String,
    /// The last.
    pub to: String,
}

/// A time for people and programs.
pub fn time(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| us.to_string(), |time| time.to_string())
}

/// Reads the whole table.
pub async fn read(context: &Context, reading: &Reading, says: &Says<'_>) -> Result<Table, TableError> {
    let table = context.definition.table.as_str();
    let pace = Pace::new(context.host.clone(), reading.rate);
    let work = reading.work.as_deref();
    let (spool, name, items, window) = match &reading.export {
        Some(address) => {
            let location = Location::parse(address)?;
            let bucket = context.bucket.beside(location.bucket.as_str());
            let export = Export::open(&bucket, location.clone(), table).await?;
            let name = Export::name(&location);
            let spool = Spool::open(work, table, &name, 1, false, context.host.now_us())?;
            let items = export.read(&bucket, &spool, says).await?;
            let at = export.summary.export_us().unwrap_or_default();
            (spool, name, items, (at, at))
        }
        None => {
            let segments = reading.segments.clamp(1, scan::MAX_SEGMENTS);
            let mut spool = Spool::open(work, table, "scan", segments, reading.consistent, context.host.now_us())?;
            // With a rate, a page is small enough that segments share it evenly: 8 KB items cost a unit each.
            let limit = reading.rate.map(|rate| ((rate / f64::from(segments)) as i32).clamp(1, 1_000));
            let dynamo = &context.dynamo;
            let (host, consistent) = (&context.host, reading.consistent);
            let scanner = Scanner { dynamo, table, host, pace: &pace, limit, consistent };
            let items = scanner.scan(&spool, says).await?;
            let window = (spool.header().began_us, spool.ended(context.host.now_us())?);
            (spool, "scan".to_owned(), items, window)
        }
    };
    let (from, to) = (time(window.0), time(window.1));
    let source = Source { source: name, items, read_units: pace.units(), from, to };
    Ok(Table { spool, source, window })
}
