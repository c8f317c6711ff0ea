//! A file's columns, batch by batch, by ranged GETs.

use std::fmt;

use arrow_array::RecordBatch;
use futures::stream::{BoxStream, Stream, StreamExt, TryStreamExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use recount_schemas::archive;

use super::ranged::Ranged;
use super::{RowsError, metadata};
use crate::bucket::{BucketError, Objects};
use crate::log::AddedFile;

/// Rows of a batch.
const BATCH: usize = 8_192;

/// A file's rows, some columns of them, in the file's order.
pub type Batches = BoxStream<'static, Result<RecordBatch, RowsError>>;

/// Reads some columns of a live file, which is at its target, or at its source while it is unpublished. Memory: a row
/// group of these columns.
pub fn read<O: Objects>(
    objects: &O,
    file: &AddedFile,
    columns: &[&str],
) -> impl Stream<Item = Result<RecordBatch, RowsError>> + Send + 'static {
    let (objects, file) = (objects.clone(), file.clone());
    let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    let open = async move {
        let opened = Opened::new(&objects, &file, PageIndexPolicy::Skip).await?;
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        opened.batches(&columns, None)
    };
    futures::stream::once(open).try_flatten()
}

/// Which rows of an opened file are wanted: row groups, and rows counted through these.
pub(super) struct Wanted {
    pub(super) row_groups: Vec<usize>,
    pub(super) rows: RowSelection,
}

/// A file whose footer has been read and whose format this program reads.
pub(super) struct Opened<O> {
    name: String,
    reader: Ranged<O>,
    metadata: ArrowReaderMetadata,
}

impl<O> fmt::Debug for Opened<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<O: Objects> Opened<O> {
    pub(super) async fn new(objects: &O, file: &AddedFile, page_index: PageIndexPolicy) -> Result<Self, RowsError> {
        let name = file.target.clone();
        let mut reader = Ranged::new(objects.clone(), file);
        let options = ArrowReaderOptions::new().with_page_index_policy(page_index);
        let metadata = ArrowReaderMetadata::load_async(&mut reader, options).await.map_err(|e| failed(&name, e))?;
        let opened = Self { name, reader, metadata };
        opened.check(file)?;
        Ok(opened)
    }

    /// The file is of a format that we read, and has as many rows as the log says.
    fn check(&self, file: &AddedFile) -> Result<(), RowsError> {
        let footer = self.footer().file_metadata();
        let said = footer.key_value_metadata().into_iter().flatten();
        let format =
            said.filter(|pair| pair.key == metadata::FORMAT).find_map(|pair| pair.value.as_ref()?.parse().ok());
        match format {
            Some(format) if format > archive::FORMAT => {
                return Err(RowsError::Newer { file: self.name.clone(), format });
            }
            Some(_) => {}
            None => return Err(self.damaged("does not say its format")),
        }
        if u64::try_from(footer.num_rows()) != Ok(file.rows) {
            return Err(self.damaged(format_args!("has {} rows, the log says {}", footer.num_rows(), file.rows)));
        }
        Ok(())
    }

    pub(super) fn damaged(&self, why: impl fmt::Display) -> RowsError {
        RowsError::Damaged { file: self.name.clone(), why: why.to_string() }
    }

    pub(super) fn failed(&self, error: ParquetError) -> RowsError {
        failed(&self.name, error)
    }

    pub(super) fn footer(&self) -> &ParquetMetaData {
        self.metadata.metadata()
    }

    pub(super) fn metadata(&self) -> &ArrowReaderMetadata {
        &self.metadata
    }

    /// The rows, or those wanted, with these columns in the order of the file.
    pub(super) fn batches(self, columns: &[&str], wanted: Option<Wanted>) -> Result<Batches, RowsError> {
        for column in columns {
            if self.metadata.schema().field_with_name(column).is_err() {
                return Err(self.damaged(format_args!("has no column {column}")));
            }
        }
        let name = self.name.clone();
        let mask = ProjectionMask::columns(self.metadata.parquet_schema(), columns.iter().copied());
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader, self.metadata)
            .with_projection(mask)
            .with_batch_size(BATCH);
        if let Some(Wanted { row_groups, rows }) = wanted {
            builder = builder.with_row_groups(row_groups).with_row_selection(rows);
        }
        let stream = builder.build().map_err(|error| failed(&name, error))?;
        Ok(stream.map_err(move |error| failed(&name, error)).boxed())
    }
}

/// A failure of the Parquet reader; where it was the bucket's, that.
fn failed(file: &str, error: ParquetError) -> RowsError {
    match error {
        ParquetError::External(inner) => match inner.downcast::<BucketError>() {
            Ok(error) => RowsError::Bucket(*error),
            Err(inner) => RowsError::Parquet { file: file.to_owned(), source: ParquetError::External(inner) },
        },
        source => RowsError::Parquet { file: file.to_owned(), source },
    }
}
