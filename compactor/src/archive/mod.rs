//! A run that brings what is new in the stream into the archive, and publishes it.
//!
//! The rules are in the pure modules, the order of things in [`run`]:
//!
//! - [`plan`]: which shards can be read, parents before children; what a commit's ranges are. Pure.
//! - [`whole`]: whether retention may have passed over records that nobody had read. Pure.
//! - [`life`]: how long a run may write.
//! - [`source`], [`kinesis`]: what a run needs of a stream, and Kinesis.
//! - [`read`]: one shard's records up to a budget, at a pace that leaves room for others.
//! - [`gather`]: all shards that can be read, for one commit.
//! - [`sort`]: rows, duplicates, conflicts, and what cannot be judged.
//! - [`finish`]: publishing an entry, by anybody, any number of times.
//! - [`shown`]: what a month's location shows, and since when it shows nothing older. Pure.
//! - [`run`]: the run. [`metrics`]: what CloudWatch is told of it.
//! - [`tidy`]: uploads that can never be committed.

pub mod finish;
pub mod gather;
pub mod kinesis;
pub mod life;
pub mod metrics;
pub mod plan;
pub mod read;
pub mod report;
pub mod run;
pub mod shown;
pub mod sort;
pub mod source;
pub mod tidy;
pub mod whole;

#[cfg(test)]
pub(crate) mod memory_stream;
#[cfg(test)]
mod run_tests;
#[cfg(test)]
mod silence_tests;
#[cfg(test)]
pub(crate) mod world;

use std::time::Duration;

pub use kinesis::Kinesis;
pub use report::ArchiveReport;
pub use run::{Archiver, Until};

use recount_schemas::SetName;

use crate::bucket::BucketError;
use crate::log::{LogError, StoreError};
use crate::rows::RowsError;

/// The bounds of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of records in a commit. A single page of records may go beyond it, if it is smaller than that.
    pub commit_bytes: u64,
    /// The most records that a GetRecords asks for (Kinesis: at most 10,000).
    pub page_records: i32,
    /// The shortest time between two GetRecords of a shard. Kinesis allows five a second, for all readers together.
    pub page_pause: Duration,
    /// The most bytes a second that are read of a shard. Kinesis gives 2 MB/s, for all readers together.
    pub bytes_per_second: u64,
    /// How many shards are read at a time.
    pub shards_at_once: usize,
    /// How often a shard from which nothing comes is said again to be read to its tip.
    pub renewal: Duration,
    /// How long a run may write, by the wall clock or the monotonic one, whichever has gone farther. Shorter than the grace
    /// after which a removed file is deleted.
    pub life: Duration,
}

/// The most that a commit may be set to, in bytes: what a Lambda of 1 GB can hold and sort.
pub const MAX_COMMIT_BYTES: u64 = 256 << 20;

impl Default for Limits {
    /// The limits of a deployment: half of each shard's reads are left to the consumer.
    fn default() -> Self {
        Self {
            commit_bytes: 64 << 20,
            page_records: 10_000,
            page_pause: Duration::from_secs(1),
            bytes_per_second: 1_000_000,
            shards_at_once: 8,
            renewal: Duration::from_secs(3_600),
            life: Duration::from_secs(15 * 60),
        }
    }
}

impl Limits {
    /// The same without a pace, for a stream that nobody else reads and for local mode.
    pub fn unpaced(self) -> Self {
        Self { page_pause: Duration::ZERO, bytes_per_second: u64::MAX, ..self }
    }
}

/// A run failed. What it had committed stays; the next run finishes and goes on.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The stream failed.
    #[error(transparent)]
    Source(#[from] source::SourceError),
    /// Rows could not be written or looked up.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The log is damaged, or the planned entry would damage it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Whether an entry was put cannot be known.
    #[error("whether log entry {n} was put cannot be known ({why}); the next run will find out")]
    Undecided {
        /// The entry.
        n: u64,
        /// The last failure.
        why: String,
    },
    /// The run's time is up: no failure, its report says so.
    #[error("the run's time is up; the next run goes on")]
    TimeIsUp,
    /// The archive is another definition's. Nothing was put: entries of two definitions in one log could never be taken back.
    #[error(
        "log entry {n} was made by definition {found}, not by this one ({ours}); nothing was archived: use the definition that \
         made the archive, or a new bucket and new tables for this one"
    )]
    OtherDefinition {
        /// The entry.
        n: u64,
        /// Its definition's hash.
        found: String,
        /// The hash of the definition in use.
        ours: String,
    },
    /// The archive of a set has not been seeded.
    #[error("the archive of set {0} is empty; it begins with `recount rebuild --into {0} --confirm`")]
    NotSeeded(SetName),
    /// A live file is nowhere.
    #[error("log entry {n} added {target}, which has neither been published nor is its upload there; restore either")]
    Stuck {
        /// The entry.
        n: u64,
        /// The file.
        target: String,
    },
    /// The catalog could not be told.
    #[error("the catalog was not updated: {0}; the next run tries again")]
    Catalog(String),
    /// The record could not be written as JSON.
    #[error("a quarantined record has no JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<StoreError> for ArchiveError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Bucket(error) => Self::Bucket(error),
            StoreError::Log(error) => Self::Log(error),
            StoreError::Undecided { n, why } => Self::Undecided { n, why },
            StoreError::TimeIsUp => Self::TimeIsUp,
        }
    }
}
