//! Folding the archive into monthly and yearly totals, from nothing but the archive.
//!
//! - [`athena`]: the same put to Athena, for archives beyond one machine.
//! - [`fold`]: rows in order to totals, with the proofs made on the way. Pure.
//! - [`write`](mod@write): totals as `totals/monthly/totals.parquet` and `totals/yearly/totals.parquet`: a table of Athena is all that is below a prefix.
//!
//! A year is the sum of its months: under `count = "inserts"` an event has one month, under `net` each of its
//! contributions has.

pub mod athena;
pub mod fold;
pub mod write;

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use recount_schemas::{Definition, Month};
use serde::{Deserialize, Serialize};

use crate::bucket::{BucketError, Objects};
use crate::context::{Context, ContextError};
use crate::contributions::ReadError;
use crate::contributions::columns::{Needs, Rows};
use crate::contributions::merge::Merged;
use crate::contributions::reader::{MAX_MERGED, live_files, open};
use crate::contributions::spill::Sorter;
use crate::log::{AddedFile, State};
use crate::progress::{Says, Work};
use crate::rows::RowsError;
use crate::rows::row::ERASED;
use crate::usage::{Usage, UsageError};

pub use fold::{Fold, FoldRow, Repeated};

/// What a recompute did and found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The totals.
    #[serde(flatten)]
    pub totals: Usage,
    /// The number of log entries that they are made from.
    pub entries: u64,
    /// The files read.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// How many rows have an event key that stood before in the same group and month; they are not counted.
    pub repeated: u64,
    /// The first of them.
    pub repeated_events: Vec<Repeated>,
    /// How many pairs have the same change under different event IDs. Duplicates that the source wrote under two IDs
    /// would show here, and so do two equal changes in one microsecond.
    pub same_change_pairs: u64,
    /// The objects written.
    pub written: Vec<String>,
}

impl Report {
    /// Whether the archive is as it must be.
    pub fn is_clean(&self) -> bool {
        self.repeated == 0
    }
}

/// A recompute failed.
#[derive(Debug, thiserror::Error)]
pub enum RecomputeError {
    /// The archive's log could not be read.
    #[error(transparent)]
    Context(Box<ContextError>),
    /// The archive could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A sum is out of range.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The totals could not be laid out.
    #[error(transparent)]
    Write(#[from] write::WriteError),
    /// The totals could not be stored.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

impl RecomputeError {
    /// Whether a file was not there any more: one that a compaction removed is in the log no longer.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Read(ReadError::Rows(RowsError::Gone { .. })))
    }
}

impl From<std::io::Error> for RecomputeError {
    fn from(error: std::io::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Recounts the archive of a deployment as its log has it now. It reads every file; so it reads every entry, too, and checks the chain
/// from its beginning.
///
/// Two at once are safe: each writes whole tables, and the last one stands. That may be the one that began first, with the totals
/// of a log some entries shorter; the next recount puts newer ones.
pub async fn of_now(context: &Context, says: &Says<'_>) -> Result<Report, RecomputeError> {
    let whole = async || context.whole_log().await.map_err(|error| RecomputeError::Context(Box::new(error)));
    let mut state = whole().await?;
    loop {
        match recompute(&context.bucket, &context.definition, &state, says).await {
            // A compaction removed a file and deleted it at once. If the log says so, once more by the new one.
            Err(error) if error.is_gone() => {
                let before = std::mem::replace(&mut state, whole().await?);
                if before.versions == state.versions {
                    return Err(error);
                }
            }
            report => return report,
        }
    }
}

/// Folds the live files of the log and writes the totals, each table by one PUT.
pub async fn recompute<O: Objects>(
    objects: &O,
    definition: &Arc<Definition>,
    state: &State,
    says: &Says<'_>,
) -> Result<Report, RecomputeError> {
    let mut fold = Fold::new(definition.measures.len());
    let (mut files, mut rows) = (0, 0);
    let months = live_files(state, definition)?;
    says(Work::Step("folding the archive"));
    says(Work::Of(months.iter().flat_map(|(_, files)| files).map(|file| file.rows).sum(), "rows"));
    for (month, of_month) in months {
        files += of_month.len() as u64;
        rows += of_month.iter().map(|file| file.rows).sum::<u64>();
        fold_month(objects, definition, month, &of_month, &mut fold, says).await?;
    }
    let folded = fold.finish()?;
    says(Work::Step("writing the totals"));
    let mut written = Vec::new();
    for (key, bytes) in [
        (write::MONTHLY, write::monthly(definition, &folded.totals)?),
        (write::YEARLY, write::yearly(definition, &folded.totals)?),
    ] {
        objects.put(key, Bytes::from(bytes)).await?;
        written.push(key.to_owned());
    }
    Ok(Report {
        totals: folded.totals.lines(definition)?,
        entries: state.next,
        files,
        rows,
        repeated: folded.repeated,
        repeated_events: folded.repeated_events,
        same_change_pairs: folded.same_change_pairs,
        written,
    })
}

/// Folds one month: its files merged, or, where there are many, sorted outside memory.
async fn fold_month<O: Objects>(
    objects: &O,
    definition: &Arc<Definition>,
    month: Month,
    files: &[AddedFile],
    fold: &mut Fold,
    says: &Says<'_>,
) -> Result<(), RecomputeError> {
    let columns = Needs { origin: false, content: true, times: false }.columns(definition);
    fold.begin(month);
    if files.len() <= MAX_MERGED {
        let sources = files.iter().map(|file| (Arc::from(file.target.as_str()), open(objects, file, &columns)));
        let mut merged = Merged::new(Arc::clone(definition), month, sources.collect());
        while let Some(row) = merged.next().await? {
            says(Work::Done(1));
            fold.row(&FoldRow {
                group: row.group.as_deref(),
                key: row.key,
                content: row.rows.content(row.index).filter(|content| *content != ERASED),
                file: &row.rows.file,
                contributions: &row.rows.contributions(row.index, definition)?,
            })?;
        }
        return Ok(());
    }
    let mut sorter = Sorter::new();
    for file in files {
        let target: Arc<str> = Arc::from(file.target.as_str());
        let mut batches = open(objects, file, &columns);
        while let Some(batch) = batches.next().await {
            let rows = Rows::new(&batch?, Arc::clone(&target), month, definition)?;
            says(Work::Done(rows.len() as u64));
            for i in 0..rows.len() {
                let (key, value) = fold::encode(&FoldRow {
                    group: rows.group(i),
                    key: rows.key(i)?,
                    content: rows.content(i).filter(|content| *content != ERASED),
                    file: &target,
                    contributions: &rows.contributions(i, definition)?,
                })?;
                sorter.push(key, value)?;
            }
        }
    }
    for entry in sorter.finish()? {
        let (key, value) = entry?;
        let row = fold::decode(&key, &value)?;
        fold.row(&row.borrow())?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "recompute_tests.rs"]
pub(crate) mod tests;
