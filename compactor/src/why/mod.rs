//! One event's whole life: where it stood in the stream, what became of it, which file and row has it, which commit brought it, which
//! numbers it is in, and by what.
//!
//! - [`search`]: its rows in the live files, and its records among those that are kept beside the archive.
//! - [`cells`]: how it stands in each cell that it adds to: ledger, too-old list, applied plans.
//!
//! Reads only. An event key needs the creation time, which an event ID does not have, and IDs have no order: so the column of event IDs is
//! read of every file whose key range the time given leaves over. The stream itself is not read: what is not archived yet is not found.

pub mod cells;
pub mod search;

use recount_schemas::{EventKey, Group, Month, QuarantineReason, SequenceNumber, ShardId};
use serde::{Deserialize, Serialize};

pub use cells::Standing;
use search::{Searched, Window};

use crate::context::{Context, ContextError};
use crate::contributions::ReadError;
use crate::explain::Dated;
use crate::history::{History, whole};
use crate::log::StoreError;
use crate::progress::{Says, Work};
use crate::reconcile::ReconcileError;
use crate::rows::RowsError;

/// An event ID, and all that is known of what came under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The ID.
    pub event_id: String,
    /// Archived events with it; one, unless the source gave the ID twice.
    pub archived: Vec<Archived>,
    /// Records with it that are kept beside the archive.
    pub kept: Vec<Kept>,
    /// What was looked through.
    pub searched: Searched,
}

impl Report {
    /// Whether anything was found.
    pub fn is_found(&self) -> bool {
        !self.archived.is_empty() || !self.kept.is_empty()
    }
}

/// An archived event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    /// Its key.
    pub event_key: EventKey,
    /// INSERT, MODIFY or REMOVE.
    pub event_name: String,
    /// insert, modify, remove or ttl.
    pub class: String,
    /// The source table.
    pub table: String,
    /// Its group.
    pub group: Option<Group>,
    /// Its month.
    pub month: Month,
    /// When the change was made, UTC.
    pub created_at: String,
    /// The event's time, UTC.
    pub occurred_at: String,
    /// The shard.
    pub shard_id: ShardId,
    /// Its sequence number there.
    pub sequence_number: SequenceNumber,
    /// When it arrived in the stream, UTC.
    pub arrived_at: String,
    /// Where its row is.
    pub row: Place,
    /// The entry that read it from the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_by: Option<Dated>,
    /// Entries that brought rows of its file by another way: where no entry read it, one of these brought it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brought_by: Vec<u64>,
    /// Why it counts nothing, as a token; `None` where it adds to cells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored: Option<String>,
    /// The cells that it adds to.
    pub cells: Vec<Standing>,
}

/// Where a row is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file.
    pub file: String,
    /// The row group, from 0.
    pub row_group: usize,
    /// The row within it, from 0.
    pub row_in_group: u64,
    /// The row within the file, from 0.
    pub row: u64,
}

/// A record that is kept beside the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The object.
    pub object: String,
    /// Why.
    pub reason: QuarantineReason,
    /// The shard.
    pub shard_id: ShardId,
    /// Its sequence number there.
    pub sequence_number: SequenceNumber,
    /// When it arrived in the stream, UTC.
    pub arrived_at: String,
}

/// An event's life could not be told.
#[derive(Debug, thiserror::Error)]
pub enum WhyError {
    /// The log is not as it must be.
    #[error(transparent)]
    Log(#[from] StoreError),
    /// AWS, the definition, the cells or the evidence.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The search was broken off.
    #[error("the search was broken off: {0}")]
    BrokenOff(String),
}

impl From<ContextError> for WhyError {
    fn from(error: ContextError) -> Self {
        Self::Reconcile(error.into())
    }
}

impl From<RowsError> for WhyError {
    fn from(error: RowsError) -> Self {
        Self::Read(error.into())
    }
}

/// Tells the life of an event. `at_ms`: about when the change was made, ms since 1970; only files that can have it are searched then.
pub async fn why(context: &Context, event_id: &str, at_ms: Option<i64>, says: &Says<'_>) -> Result<Report, WhyError> {
    context.check_definition().await?;
    says(Work::Step("reading every entry of the log"));
    let history = whole(&context.bucket, &context.host).await?;
    let (hits, mut searched) = search::rows(&context.bucket, &history, event_id, Window::around(at_ms), says).await?;
    says(Work::Step("looking through what is kept beside the archive"));
    let kept = search::kept(&context.bucket, event_id, &mut searched).await?;
    let mut archived = Vec::new();
    if !hits.is_empty() {
        says(Work::Step("looking at its cells"));
        let known = cells::Known::read(context).await?;
        for hit in hits {
            archived.push(tell(context, &history, &known, hit).await?);
        }
    }
    Ok(Report { event_id: event_id.to_owned(), archived, kept, searched })
}

async fn tell(
    context: &Context,
    history: &History,
    known: &cells::Known,
    hit: search::Hit,
) -> Result<Archived, WhyError> {
    let event = search::event(&context.bucket, &context.definition, &hit).await?;
    let (shard, sequence) = (event.shard.as_str(), event.sequence.as_str());
    let origins = history.origins.get(&hit.file.target);
    let of_file = origins.map(|origins| history.positions_of(&origins.read));
    let was_read = of_file.is_some_and(|read| read.has(shard, sequence));
    let read_by = history.reader_of(shard, sequence).filter(|_| was_read);
    let read_by = read_by.map(|(entry, told)| Dated { entry, at: time_of_ms(told.at_ms) });
    let brought_by = origins.map(|origins| origins.brought.iter().copied().collect()).unwrap_or_default();
    let mut standings = Vec::new();
    for (cell, adds) in &event.contributions {
        standings.push(known.standing(context, cell, adds, &event).await?);
    }
    Ok(Archived {
        event_key: event.key,
        event_name: event.name,
        class: event.class,
        table: event.table,
        group: event.group,
        month: hit.file.month,
        created_at: time_of_us(event.created_us),
        occurred_at: time_of_us(event.occurred_us),
        shard_id: event.shard,
        sequence_number: event.sequence,
        arrived_at: time_of_us(event.arrived_us),
        row: search::place(&context.bucket, &hit).await?,
        read_by,
        brought_by,
        ignored: event.ignored,
        cells: standings,
    })
}

fn time_of_ms(ms: i64) -> String {
    time_of_us(ms.saturating_mul(1_000))
}

fn time_of_us(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| String::new(), |time| time.to_string())
}
