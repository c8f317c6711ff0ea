//! Quarantined records through the path again, after what made them unreadable was mended: a newer program that understands
//! them, a time that has come.
//!
//! - [`listing`]: the objects under `quarantine/` that have no mark yet, page by page.
//! - [`judge`]: one object as consumer and archiver would judge it now. Pure.
//! - [`add`]: rows into the archive that no reading of the stream brought.
//! - [`run`]: all of it, and the report.
//!
//! What becomes of a record that is understood now, in this order:
//!
//! | step | done again | cut off behind it |
//! | --- | --- | --- |
//! | 1. its row goes into the archive, by an entry of its own kind with the origin `redrive` | its key is found there: no second row | archived and not counted: reconcile says so, the next redrive counts it |
//! | 2. it is counted, through the consumer's own path | its key is found in the cell: a duplicate | counted, and still on the list: the next redrive finds it counted |
//! | 3. its mark is put, `redriven/<shard>/<sequence number>` | it is there | – |
//!
//! So nothing is counted that could not be recounted from the archive, and nothing is counted twice, whatever else delivers the
//! record at the same time: in the archive and in the cell it is told by its event key. The objects under `quarantine/` are never deleted;
//! with its mark a record counts as quarantined no more, for reconcile too.
//!
//! Records that the relay quarantined, too large for the stream, go the same way and not through the stream: that would still refuse them,
//! and if its limit was raised since, they would stand behind changes that came after them. In the archive their shard is
//! `relay-…`, and they belong to no range (invariant 5): the log's ranges are of what was read from the stream.
//!
//! A record whose creation time lay too far ahead of its arrival is judged by the present time instead, and its row has that for its
//! time of arrival.

pub mod add;
pub mod judge;
pub mod listing;
pub mod run;

use recount_consumer::totals::TotalsError;

use crate::archive::ArchiveError;
use crate::bucket::BucketError;
use crate::context::ContextError;
use crate::log::StoreError;

pub use run::{Ask, Report, redrive};

/// A redrive failed. What was done stays; the next one goes on.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// AWS, or the definition.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The archive's log could not be read.
    #[error(transparent)]
    Log(#[from] StoreError),
    /// The rows could not be put into the archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The consumer's path failed.
    #[error(transparent)]
    Totals(#[from] TotalsError),
    /// Others put entry after entry.
    #[error("the archive's log was written by others {0} times in a row; run it again")]
    Overtaken(u32),
    /// A mark could not be laid out.
    #[error("a mark could not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}
