//! Bringing in the items whose INSERT was never captured: those that were there before capture began, or that came while it
//! was off. Each gets the INSERT that it lacks, into the archive first, then into the totals.
//!
//! - [`gap`]: whether an item's INSERT is missing. Pure, with its truth table.
//! - [`plan`]: the missing ones, named by the hash of what they are. Pure.
//! - [`mod@make`]: making the plan.
//! - [`mod@apply`]: applying it; every step may be done again.
//!
//! # Why no event and its backfill both count
//!
//! An item is in the plan because the archive, brought to the tip after the item was read, had no INSERT of it. If there is
//! one all the same, it was made before the item was read, and was then still on its way. There are two ways:
//!
//! - *From the stream into the archive.* That one is closed: applying archives to the tip again, and the rows go in by an entry
//!   of the log that is put only behind a look at everything that was archived before it.
//! - *From the table into the stream.* How long that takes nobody promises. Kinesis Data Streams for DynamoDB tries for 168
//!   hours before it gives up (Developer Guide, "kds-using-shards-and-metrics"), DynamoDB Streams keeps changes for 24. No mark
//!   written into the table would show it: each partition is captured by itself, so a mark that came through says nothing of the
//!   others. What does show it are the metrics, AgeOfOldestUnreplicatedRecord for the one, the relay's IteratorAge for the other:
//!   hence `--settle`, which the operator takes from these, and which is counted from the end of the reading. An export that is
//!   older than 168 (24) hours needs no trust at all. Local mode has one partition: there a mark is enough.
//!
//! Whatever is archived by then, step 2 of [`mod@apply`] leaves out. What comes later still, against the metrics, the audit finds
//! and names `captured_twice`.
//!
//! There is a third place where an INSERT may be: in quarantine, from where a redrive counts it. So an item of which a record
//! waits there that would be counted is refused ([`WAITS`](make::WAITS)), or left out if it came there since. One that is not
//! understood holds up nothing: what it says of its item never counts, unless a newer program understands it.
//!
//! Two plans cannot both bring an item in: the second to be put in the log finds the first one's row. And an item that both had
//! would have one event ID.
//!
//! # What a backfilled event is worth
//!
//! Under `count = "inserts"` an item counts in the month of its own time, with the group and the measures that it has now, or
//! had before its first captured change: what it was when it was inserted nobody knows. Under `net` that content is just what
//! the captured changes go on from, so the sum is right; but where a REMOVE or a MODIFY was lost, the archive lacks these
//! still, as the audit says.

pub mod apply;
pub mod gap;
pub mod make;
pub mod plan;

use crate::archive::ArchiveError;
use crate::bucket::{BucketError, Objects};
use crate::context::{Context, ContextError};
use crate::contributions::ReadError;
use crate::log::StoreError;
use crate::rows::RowsError;
use crate::table::TableError;
use recount_consumer::totals::TotalsError;

pub use apply::{Applied, Pacing, apply, report, settled_us};
pub use make::{Named, make};
pub use plan::{Plan, PlanError};

/// A backfill could not be made. What was done stays, and the same plan can be applied again.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// AWS, the definition or the archive.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The table could not be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The archive could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Rows could not be read or written.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] StoreError),
    /// The entry could not be put.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The totals.
    #[error(transparent)]
    Totals(#[from] TotalsError),
    /// The plan cannot be used.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Items have no time of their own.
    #[error(
        "the definition has no occurred_at: all items would count in the present month; \
         say --this-month if that is what is wanted"
    )]
    NoTime,
    /// An item has no key.
    #[error("an item of {table} lacks an attribute of its key; is `key` in the definition's [source] the table's key")]
    NoKey {
        /// The table.
        table: String,
    },
    /// The archive did not reach the tip.
    #[error("the archive did not reach the tip of the stream; run it again")]
    Behind,
    /// The plan is too old to be counted exactly.
    #[error("the plan is older than the ledger reaches back; make a new one")]
    TooOld,
    /// Too much was archived since the plan was made.
    #[error("more changes were archived since the plan was made than can be held against it; make a new one")]
    Stale,
    /// What waits in quarantine cannot all be looked at.
    #[error(
        "more records wait in quarantine than can be held against the items; `recount redrive` puts through what is \
         understood by now"
    )]
    Quarantine,
    /// Others put rows all the time.
    #[error("others put rows into the archive each time; run it again, or pause the compactor's schedule")]
    Busy,
    /// A sum does not fit.
    #[error("a sum of the plan is out of range")]
    OutOfRange,
    /// The plan could not be laid out.
    #[error("the plan could not be written or read as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The temporary directory failed.
    #[error("the temporary directory failed: {0}")]
    Disk(#[from] std::io::Error),
}

impl BackfillError {
    /// Whether what was typed is wrong, not what is there.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::NoTime | Self::NoKey { .. } | Self::Plan(_) => true,
            Self::Table(error) => error.is_usage(),
            _ => false,
        }
    }
}

/// Fetches a plan by its name.
pub async fn fetch(context: &Context, hash: &str) -> Result<Named, BackfillError> {
    let key = plan::object_key(hash);
    let bytes = context.bucket.get(&key, plan::MAX_BYTES).await?.ok_or(PlanError::Missing(key))?;
    let plan = Plan::read(hash, &bytes, &context.definition)?;
    Ok(Named { hash: hash.to_owned(), plan })
}
