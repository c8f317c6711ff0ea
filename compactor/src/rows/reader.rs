//! A file's columns, batch by batch, by ranged GETs.
//!
//! The Parquet library is careful with damaged files, but not everywhere: some of its decoders panic on bytes that no writer
//! makes. A file is only data, so a panic inside the library is a damaged file and nothing more.

use std::any::Any;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};

use arrow_array::RecordBatch;
use futures::future::FutureExt;
use futures::stream::{BoxStream, Stream, StreamExt, TryStreamExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use recount_schemas::archive;

use super::ranged::{Altered, Ranged};
use super::summary::{self, Summary};
use super::{RowsError, claims, metadata};
use crate::bucket::{BucketError, Objects};
use crate::log::{AddedFile, Digest};

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
    read_by(objects, file, columns, BATCH)
}

/// The same in batches of so many rows.
pub fn read_by<O: Objects>(
    objects: &O,
    file: &AddedFile,
    columns: &[&str],
    batch: usize,
) -> impl Stream<Item = Result<RecordBatch, RowsError>> + Send + 'static {
    let (objects, file) = (objects.clone(), file.clone());
    let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    let open = async move {
        let opened = Opened::new(&objects, &file, PageIndexPolicy::Skip).await?;
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        opened.batches_of(&columns, None, batch)
    };
    futures::stream::once(open).try_flatten()
}

/// The summary of a live file; `None` where it has none. Reads the file's end, and of a large summary the bytes before it.
pub async fn summary<O: Objects>(objects: &O, file: &AddedFile, measures: usize) -> Result<Option<Summary>, RowsError> {
    if file.rows < summary::LEAST_ROWS {
        return Ok(None);
    }
    Opened::new(objects, file, PageIndexPolicy::Skip).await?.summary(measures).await
}

/// The rows of each row group of a live file, in their order.
pub async fn row_groups<O: Objects>(objects: &O, file: &AddedFile) -> Result<Vec<u64>, RowsError> {
    let opened = Opened::new(objects, file, PageIndexPolicy::Skip).await?;
    let groups = opened.footer().row_groups().iter();
    // No number is negative: that was checked on opening.
    Ok(groups.map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).collect())
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
        if !reader.has_its_size().await? {
            return Err(RowsError::Damaged {
                file: name,
                why: format!("does not have the {} bytes that the log says", file.bytes),
            });
        }
        let loading = AssertUnwindSafe(ArrowReaderMetadata::load_async(&mut reader, options)).catch_unwind();
        let metadata = loading.await.map_err(|panic| panicked(&name, &*panic))?.map_err(|e| failed(&name, e))?;
        let opened = Self { name, reader, metadata };
        opened.check(file)?;
        Ok(opened)
    }

    /// What the footer's metadata says under a key.
    fn said(&self, key: &str) -> Option<&str> {
        let pairs = self.footer().file_metadata().key_value_metadata().into_iter().flatten();
        pairs.filter(|pair| pair.key == key).find_map(|pair| pair.value.as_deref())
    }

    /// The file's summary. What is said to be one, and is not what the footer names, is not used: the rows are read.
    pub(super) async fn summary(mut self, measures: usize) -> Result<Option<Summary>, RowsError> {
        let Some(place) = self.said(metadata::SUMMARY).map(str::to_owned) else { return Ok(None) };
        let mut parts = place.split(' ');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let range = number().zip(number()).map(|(offset, length)| offset..offset.saturating_add(length));
        let digest = parts.next().and_then(|text| text.parse::<Digest>().ok());
        let read = match range {
            Some(range) => self.reader.beside(range, summary::MAX_BYTES).await,
            None => Err(ParquetError::General("its place is malformed".to_owned())),
        };
        let bytes = match read.map_err(|error| self.failed(error)) {
            Ok(bytes) => Some(bytes).filter(|bytes| Some(Digest::of(bytes)) == digest),
            Err(error @ (RowsError::Bucket(_) | RowsError::Gone { .. })) => return Err(error),
            Err(_) => None,
        };
        let summary = bytes.and_then(|bytes| Summary::read(bytes, measures));
        if summary.is_none() {
            tracing::warn!(file = self.name, "the summary is not the one that the footer names; the rows are read");
        }
        Ok(summary)
    }

    /// The file is of a format that we read, and of the month and with as many rows as the log says.
    fn check(&self, file: &AddedFile) -> Result<(), RowsError> {
        let footer = self.footer().file_metadata();
        if self.said(metadata::MONTH).is_some_and(|month| month != file.month.to_string()) {
            return Err(self.damaged(format_args!("does not hold {}", file.month)));
        }
        match self.said(metadata::FORMAT).and_then(|format| format.parse().ok()) {
            Some(format) if format > archive::FORMAT => {
                return Err(RowsError::Newer { file: self.name.clone(), format });
            }
            Some(_) => {}
            None => return Err(self.damaged("does not say its format")),
        }
        if u64::try_from(footer.num_rows()) != Ok(file.rows) {
            let (file, rows, said) = (self.name.clone(), footer.num_rows(), file.rows);
            return Err(RowsError::Rows { file, rows, said });
        }
        self.check_groups()
    }

    /// The row groups are within their bounds, and are the file.
    fn check_groups(&self) -> Result<(), RowsError> {
        let (groups, mut rows) = (self.footer().row_groups(), 0i64);
        let chunk = |bytes: i64| u64::try_from(bytes).is_ok_and(|bytes| bytes <= claims::MAX_CHUNK);
        for group in groups {
            if !(0..=claims::MAX_GROUP_ROWS).contains(&group.num_rows()) {
                return Err(self.damaged(format_args!("claims a row group of {} rows", group.num_rows())));
            }
            rows += group.num_rows(); // at most MAX_LIST groups of MAX_GROUP_ROWS
            for column in group.columns() {
                // The last is what its texts come to without a dictionary: a batch has them so.
                let texts = column.unencoded_byte_array_data_bytes().unwrap_or(0);
                let (stored, decompressed) = (column.compressed_size(), column.uncompressed_size());
                if ![stored, decompressed, texts].into_iter().all(chunk) {
                    let why = format_args!(
                        "claims a column of {stored} bytes, decompressed {decompressed}, as texts {texts}"
                    );
                    return Err(self.damaged(why));
                }
            }
        }
        match rows == self.footer().file_metadata().num_rows() {
            true => Ok(()),
            false => Err(self.damaged(format_args!("has row groups of {rows} rows"))),
        }
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
        self.batches_of(columns, wanted, BATCH)
    }

    fn batches_of(self, columns: &[&str], wanted: Option<Wanted>, batch: usize) -> Result<Batches, RowsError> {
        for column in columns {
            if self.metadata.schema().field_with_name(column).is_err() {
                return Err(self.damaged(format_args!("has no column {column}")));
            }
        }
        let name = self.name.clone();
        let mask = ProjectionMask::columns(self.metadata.parquet_schema(), columns.iter().copied());
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader, self.metadata)
            .with_projection(mask)
            .with_batch_size(batch);
        if let Some(Wanted { row_groups, rows }) = wanted {
            builder = builder.with_row_groups(row_groups).with_row_selection(rows);
        }
        let build = panic::catch_unwind(AssertUnwindSafe(|| builder.build()));
        let stream = build.map_err(|panic| panicked(&name, &*panic))?.map_err(|error| failed(&name, error))?;
        let batches = AssertUnwindSafe(stream).catch_unwind().map(move |batch| match batch {
            Ok(batch) => batch.map_err(|error| failed(&name, error)),
            Err(panic) => Err(panicked(&name, &*panic)),
        });
        Ok(batches.boxed())
    }

    /// What the library makes of the file's statistics, in `work`.
    pub(super) fn guarded<T>(&self, work: impl FnOnce() -> Result<T, RowsError>) -> Result<T, RowsError> {
        panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&self.name, &*panic)))
    }
}

/// The library panicked over a file.
fn panicked(file: &str, panic: &(dyn Any + Send)) -> RowsError {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let said: String = said.unwrap_or("it did not say why").chars().take(200).collect();
    RowsError::Damaged { file: file.to_owned(), why: format!("cannot be decoded: {said}") }
}

/// A failure of the Parquet reader; where it was the bucket's, that.
fn failed(file: &str, error: ParquetError) -> RowsError {
    match error {
        ParquetError::External(inner) => match inner.downcast::<BucketError>() {
            Ok(error) if error.is_missing() => RowsError::Gone { file: file.to_owned() },
            Ok(error) => RowsError::Bucket(*error),
            Err(inner) if inner.is::<Altered>() => RowsError::Damaged { file: file.to_owned(), why: inner.to_string() },
            Err(inner) => RowsError::Parquet { file: file.to_owned(), source: ParquetError::External(inner) },
        },
        source => RowsError::Parquet { file: file.to_owned(), source },
    }
}
