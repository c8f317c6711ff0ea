//! Sorted files as fewer sorted files, row for row, in bounded memory.
//!
//! The rows stay columns: each batch that goes out is picked together from the batches that came in. What comes in must be in
//! strict order; an event that stands in two files is damage, and nothing is made of it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use bytes::Bytes;
use futures::StreamExt;
use recount_schemas::archive::events_schema;
use recount_schemas::bugs::{self, Bug};
use recount_schemas::{Definition, EventKey, Month};

use super::{CompactError, Limits};
use crate::archive::life::Life;
use crate::bucket::Objects;
use crate::contributions::ReadError;
use crate::contributions::columns::Rows;
use crate::contributions::merge::{Batches, Merged};
use crate::log::AddedFile;
use crate::rows::{FileWriter, read_by};

/// Rows of a batch that comes in, and of one that goes out.
const BATCH: usize = 1_024;
/// About the most bytes of a batch that goes out.
const BATCH_BYTES: usize = 16 << 20;

/// A merge in progress.
pub struct Merger<'m> {
    definition: &'m Definition,
    month: Month,
    file_bytes: u64,
    life: &'m Life,
    merged: Merged,
    last: Option<(Option<Arc<str>>, EventKey)>,
    picked: Picked,
}

impl<'m> Merger<'m> {
    /// Of some files of one month, made under this definition.
    pub fn new<O: Objects>(
        objects: &O,
        definition: &'m Arc<Definition>,
        month: Month,
        files: &[AddedFile],
        limits: &Limits,
        life: &'m Life,
    ) -> Self {
        let schema = events_schema(definition);
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let open = |file: &AddedFile| {
            let batches = read_by(objects, file, &columns, BATCH);
            let batches: Batches = batches.map(|batch| batch.map_err(ReadError::from)).boxed();
            (Arc::from(file.target.as_str()), batches)
        };
        let merged = Merged::new(Arc::clone(definition), month, files.iter().map(open).collect());
        Self { definition, month, file_bytes: limits.file_bytes, life, merged, last: None, picked: Picked::default() }
    }

    /// The next merged file; `None` at the end.
    pub async fn next_file(&mut self) -> Result<Option<Bytes>, CompactError> {
        let mut writer: Option<FileWriter<'m>> = None;
        loop {
            let row = self.merged.next().await?;
            let ended = row.is_none();
            if let Some(row) = row {
                // Neighbours in the order: files hold their own strictly, so equal ones are of two files.
                let place = (row.group, row.key);
                if self.last.as_ref() == Some(&place) {
                    return Err(CompactError::Twice { key: place.1.to_string(), month: self.month });
                }
                self.last = Some(place);
                if !bugs::on(Bug::MergeIsNotProven) || row.index > 0 {
                    self.picked.push(row.rows, row.index);
                }
            }
            if self.picked.is_empty() || !(ended || self.picked.is_full()) {
                if ended {
                    return writer.map(FileWriter::finish).transpose().map_err(CompactError::from);
                }
                continue;
            }
            self.life.check()?;
            let to = match &mut writer {
                Some(writer) => writer,
                None => writer.insert(FileWriter::new(self.definition, self.month)?),
            };
            to.write(&self.picked.take(self.definition)?)?;
            if to.size() >= self.file_bytes {
                return writer.map(FileWriter::finish).transpose().map_err(CompactError::from);
            }
        }
    }
}

/// The rows of the next batch, by the batches that they are in.
#[derive(Default)]
struct Picked {
    batches: Vec<Arc<Rows>>,
    /// Where a batch stands in `batches`, and about how large a row of it is, by its address: it is held there, so no other
    /// batch can have it.
    places: HashMap<usize, (usize, usize)>,
    rows: Vec<(usize, usize)>,
    bytes: usize,
}

impl Picked {
    fn push(&mut self, rows: Arc<Rows>, index: usize) {
        let next = self.batches.len();
        let batches = &mut self.batches;
        let (at, bytes) = *self.places.entry(Arc::as_ptr(&rows).addr()).or_insert_with(|| {
            let bytes = rows.batch.get_array_memory_size() / rows.len().max(1);
            batches.push(rows);
            (next, bytes)
        });
        self.rows.push((at, index));
        self.bytes += bytes;
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= BATCH || self.bytes >= BATCH_BYTES
    }

    /// The batch, and none is picked any more.
    fn take(&mut self, definition: &Definition) -> Result<RecordBatch, CompactError> {
        let Self { batches, rows, .. } = std::mem::take(self);
        let schema = events_schema(definition);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let mut parts: Vec<&dyn Array> = Vec::with_capacity(batches.len());
            for batch in &batches {
                let column = batch
                    .batch
                    .column_by_name(field.name())
                    .ok_or_else(|| ReadError::Column { file: batch.file.to_string(), column: field.name().clone() })?;
                parts.push(column.as_ref());
            }
            columns.push(arrow_select::interleave::interleave(&parts, &rows)?);
        }
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}
