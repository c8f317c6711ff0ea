//! The sorted files of one month as one stream of rows in the order (group, event key).
//!
//! Each file's own order is checked on the way, strictly: so a key that stands twice in one group shows, in one file as an
//! error and across files as two equal neighbours. Memory: one batch of each file.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use futures::StreamExt;
use futures::stream::BoxStream;
use recount_schemas::{Definition, EventKey, Month};

use super::ReadError;
use super::columns::Rows;

/// The rows of one file, batch by batch.
pub type Batches = BoxStream<'static, Result<RecordBatch, ReadError>>;

/// One row: a batch and its index there.
#[derive(Debug, Clone)]
pub struct Row {
    /// The batch.
    pub rows: Arc<Rows>,
    /// The row's index.
    pub index: usize,
    /// Its group.
    pub group: Option<Arc<str>>,
    /// Its key.
    pub key: EventKey,
}

type Position = (Option<Arc<str>>, EventKey);

struct Cursor {
    file: Arc<str>,
    month: Month,
    batches: Batches,
    rows: Option<Arc<Rows>>,
    index: usize,
    last: Option<Position>,
}

impl Cursor {
    /// Goes to the next row; `None` at the end of the file.
    async fn advance(&mut self, definition: &Definition) -> Result<Option<Position>, ReadError> {
        let rows = loop {
            if let Some(rows) = self.rows.as_ref().filter(|rows| self.index + 1 < rows.len()) {
                self.index += 1;
                break Arc::clone(rows);
            }
            let Some(batch) = self.batches.next().await else {
                self.rows = None;
                return Ok(None);
            };
            let rows = Arc::new(Rows::new(&batch?, Arc::clone(&self.file), self.month, definition)?);
            self.index = 0;
            if !rows.is_empty() {
                self.rows = Some(Arc::clone(&rows));
                break rows;
            }
            self.rows = None;
        };
        // Rows of one group share its text.
        let group = match (rows.group(self.index), &self.last) {
            (Some(group), Some((Some(last), _))) if **last == *group => Some(Arc::clone(last)),
            (group, _) => group.map(Arc::from),
        };
        let position = (group, rows.key(self.index)?);
        if self.last.as_ref().is_some_and(|last| *last >= position) {
            return Err(ReadError::Unsorted { file: self.file.to_string(), event_key: position.1.to_string() });
        }
        self.last = Some(position.clone());
        Ok(Some(position))
    }
}

/// The merged rows.
pub struct Merged {
    definition: Arc<Definition>,
    cursors: Vec<Cursor>,
    heads: BinaryHeap<Reverse<(Position, usize)>>,
    started: bool,
}

impl Merged {
    /// Merges files of one month.
    pub fn new(definition: Arc<Definition>, month: Month, files: Vec<(Arc<str>, Batches)>) -> Self {
        let cursor = |(file, batches)| Cursor { file, month, batches, rows: None, index: 0, last: None };
        let cursors: Vec<Cursor> = files.into_iter().map(cursor).collect();
        Self { definition, heads: BinaryHeap::with_capacity(cursors.len()), cursors, started: false }
    }

    /// The next row.
    pub async fn next(&mut self) -> Result<Option<Row>, ReadError> {
        if !self.started {
            self.started = true;
            for (index, cursor) in self.cursors.iter_mut().enumerate() {
                if let Some(position) = cursor.advance(&self.definition).await? {
                    self.heads.push(Reverse((position, index)));
                }
            }
        }
        let Some(Reverse(((group, key), at))) = self.heads.pop() else { return Ok(None) };
        let Some(cursor) = self.cursors.get_mut(at) else { return Ok(None) };
        let Some(rows) = cursor.rows.clone() else { return Ok(None) };
        let row = Row { rows, index: cursor.index, group, key };
        if let Some(position) = cursor.advance(&self.definition).await? {
            self.heads.push(Reverse((position, at)));
        }
        Ok(Some(row))
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
