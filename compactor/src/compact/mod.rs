//! Compaction: the many small files of a month become few large ones, with the same rows; and what it leaves is deleted.
//!
//! An archiver adds a file to a month with each commit. A reader opens each of them, so they are merged now and then, while
//! archivers, other compactors and readers go on.
//!
//! - [`mod@choose`]: which files of a month are merged. Pure.
//! - [`merge`]: sorted files as fewer sorted files, in bounded memory.
//! - [`replace`]: the entry that gives a month a new version: what was merged, and all else as it is.
//! - [`run`]: a run: choose, merge, prove, upload, put the entry.
//! - [`delete`]: removed files, once nobody reads them any more.
//! - [`report`]: what a run would do or did.
//!
//! The rules:
//!
//! 1. What is to be put is proven first: the merged files are decoded again from their bytes, and their rows, as a multiset,
//!    must be those that the log says of the files they came from. The log's own check refuses anything else.
//! 2. One entry makes its own number the month's version, removes *all* live files of the month, and adds the merged ones and,
//!    as plain copies, all others, also those that came while it merged. So a version's directory is whole, and a reader by
//!    location moves from a whole one to a whole one.
//! 3. A race lost: while all that was merged is still live, the same merge goes under the next number; else it is dropped.
//! 4. A removed file is deleted when the month's location has shown newer versions only for the grace; without a catalog, when
//!    the last file of the version that took its place was written so long ago. Oldest version first: see [`crate::archive::finish`].
//! 5. A month is compacted again only when its last compaction has been shown for the grace: each one is paid for by a copy of the
//!    whole month that stays so long. What is due by then is deleted first. An erasure puts it off no more than a commit
//!    does: a month in which something is erased each day is compacted each day.
//! 6. Where readers find months by a catalog, a run that was not told of it merges and deletes nothing ([`crate::catalog::noted`]), and a
//!    grace shorter than a query may take is refused ([`check_grace`]).

pub mod choose;
pub mod delete;
pub mod merge;
pub mod replace;
pub mod report;
pub mod run;
#[cfg(test)]
mod run_tests;

use std::time::Duration;

use recount_schemas::Month;

pub use report::{CompactReport, MonthReport, Outcome};
pub use run::Compactor;

use crate::archive::ArchiveError;
use crate::archive::finish::Catalog;
use crate::bucket::BucketError;
use crate::contributions::ReadError;
use crate::log::StoreError;
use crate::rows::RowsError;

/// How long a removed file stays, and how long a month is left alone, unless it is said otherwise: longer than any query of
/// a reader by location, and than any run lives.
pub const GRACE: Duration = Duration::from_secs(24 * 3_600);

/// The least grace where readers go by location. Athena ends a query after 30 minutes, unless the account's quota "DML query timeout"
/// was raised (Athena User Guide, "Service Quotas"); one that began just before a location moved reads on from what it showed.
pub const LEAST_GRACE: Duration = Duration::from_secs(3_600);

/// Refuses a grace in which removed files would go from under readers by location, unless that is asked for.
pub fn check_grace(grace: Duration, catalog: Option<&dyn Catalog>, under_readers: bool) -> Result<(), CompactError> {
    match catalog {
        Some(catalog) if grace < LEAST_GRACE && !under_readers => {
            Err(CompactError::ShortGrace { seconds: grace.as_secs(), catalog: catalog.name() })
        }
        _ => Ok(()),
    }
}

/// The bounds of a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// About how large a merged file gets, in bytes. It is held in memory until it is uploaded in one request. A file of at
    /// least half of it is not merged any more.
    pub file_bytes: u64,
    /// The most files that are merged at a time. Of each, one row group is held as it is stored, and one batch of rows.
    pub inputs: usize,
    /// The most stored bytes of these row groups together.
    pub input_bytes: u64,
    /// Fewer files of a month are not worth an entry.
    pub least_files: usize,
    /// See [`GRACE`]. Zero deletes at once: for local mode, and where nobody reads by location.
    pub grace: Duration,
    /// How long a run may write.
    pub life: Duration,
}

/// A row group of ours has about so many bytes at most, as stored.
pub const GROUP_BYTES: u64 = 64 << 20;

impl Default for Limits {
    /// About 1 GiB at the most: 256 MiB each for the row groups, the file in the making and its proof, the rest for batches.
    fn default() -> Self {
        Self {
            file_bytes: 256 << 20,
            inputs: 64,
            input_bytes: 256 << 20,
            least_files: 2,
            grace: GRACE,
            life: Duration::from_secs(15 * 60),
        }
    }
}

/// A compaction failed. What it had committed stays; uploads that no entry names are deleted by a later run.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The log, the bucket, or the time.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The files could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The rows could not be laid out.
    #[error("merged rows could not be laid out as columns: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// The grace is shorter than a query.
    #[error(
        "a grace of {seconds} s deletes files that queries may still read: months are found by {catalog}, and Athena lets a query \
         run for 30 minutes or more; give --grace {least}h or more, or --under-readers where queries may fail",
        least = LEAST_GRACE.as_secs() / 3_600
    )]
    ShortGrace {
        /// The grace.
        seconds: u64,
        /// Where months are found.
        catalog: String,
    },
    /// An event stands in two files of a month.
    #[error("event {key} stands twice in month {month}: the archive is damaged, and was left as it is")]
    Twice {
        /// Its key.
        key: String,
        /// The month.
        month: Month,
    },
    /// What was written is not what was read.
    #[error(
        "the rows written for month {month} are not those that the log says of the files they come from ({what}); nothing was \
         put: one of these files is not what the log says"
    )]
    Differs {
        /// The month.
        month: Month,
        /// What differs.
        what: String,
    },
}

impl From<BucketError> for CompactError {
    fn from(error: BucketError) -> Self {
        Self::Archive(error.into())
    }
}

impl From<StoreError> for CompactError {
    fn from(error: StoreError) -> Self {
        Self::Archive(error.into())
    }
}

impl From<RowsError> for CompactError {
    fn from(error: RowsError) -> Self {
        Self::Read(error.into())
    }
}
