//! Rows to the bytes of a Parquet file.
//!
//! Encodings are PLAIN and dictionary only, and zstd at level 1: every engine reads these. Columns whose values repeat
//! (group, class, names, table, shard) have dictionaries; keys, hashes and images, which never do, have none. The page
//! index of `event_key` lets a lookup skip pages. A file of many rows ends with its [`summary`](super::summary).

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, Decimal128Builder, Int64Builder, StringBuilder, StringDictionaryBuilder, TimestampMillisecondBuilder,
};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use recount_schemas::amount::{PRECISION, SCALE};
use recount_schemas::archive::{self, column, events_schema};
use recount_schemas::{Amount, Definition, EventKey, Month};

use super::summary::Summarizer;
use super::{ArchivedRow, RowsError, metadata};
use crate::log::{AddedFile, Digest, Fingerprint};

/// Rows in a batch on their way into the file.
const BATCH: usize = 4_096;
/// The most rows of a row group; with [`GROUP_BYTES`] it bounds the writer's and every reader's memory.
const GROUP_ROWS: usize = 131_072;
/// The most bytes of a row group before compression is counted out: an estimate of the writer's.
const GROUP_BYTES: usize = 64 << 20;
/// Rows of a page of `event_key`: what a lookup reads at least.
const KEY_PAGE_ROWS: usize = 1_024;

/// A file's bytes, and all that the log says of it but its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub bytes: Bytes,
    /// Its size in bytes, also once `bytes` have been handed on.
    pub size: u64,
    /// Its month.
    pub month: Month,
    /// The SHA-256 of the bytes.
    pub sha256: Digest,
    /// The least event key.
    pub first_key: EventKey,
    /// The greatest event key.
    pub last_key: EventKey,
    /// The least group, if a row has one.
    pub first_group: Option<String>,
    /// The greatest group.
    pub last_group: Option<String>,
    /// The rows as a multiset.
    pub fingerprint: Fingerprint,
}

impl Written {
    /// The file as a log entry adds it.
    pub fn added(&self, source: String, target: String) -> AddedFile {
        AddedFile {
            source,
            target,
            month: self.month,
            rows: self.fingerprint.rows,
            bytes: self.size,
            sha256: self.sha256,
            first_key: self.first_key,
            last_key: self.last_key,
            first_group: self.first_group.clone(),
            last_group: self.last_group.clone(),
            fingerprint: self.fingerprint.clone(),
        }
    }
}

/// Writes the rows of one month, in their order. `None` where there is no row.
pub fn write(definition: &Definition, month: Month, mut rows: Vec<ArchivedRow>) -> Result<Option<Written>, RowsError> {
    rows.sort_by(ArchivedRow::order);
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(None) };
    let least = rows.iter().find_map(|row| row.group.as_ref());
    let (first_group, last_group) = (least.map(ToString::to_string), last.group.as_ref().map(ToString::to_string));
    let keys = || rows.iter().map(|row| row.key);
    let (first_key, last_key) = (keys().min().unwrap_or(first.key), keys().max().unwrap_or(last.key));
    let fingerprint = fingerprint(definition, &rows)?;

    let mut writer = FileWriter::new(definition, month)?;
    for chunk in rows.chunks(BATCH) {
        writer.write(&RecordBatch::try_new(writer.schema(), columns(definition, chunk)?)?)?;
    }
    let bytes = writer.finish()?;
    let (size, sha256) = (bytes.len() as u64, Digest::of(&bytes));
    Ok(Some(Written { bytes, size, month, sha256, first_key, last_key, first_group, last_group, fingerprint }))
}

/// A file in the making: batches of rows in their order, with the summary of them all at the end. Memory: the file as it will
/// be stored, and a row group.
#[derive(Debug)]
pub struct FileWriter<'d> {
    month: Month,
    schema: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
    summarizer: Summarizer<'d>,
}

impl<'d> FileWriter<'d> {
    /// A file of one month's rows under a definition.
    pub fn new(definition: &'d Definition, month: Month) -> Result<Self, RowsError> {
        let schema = events_schema(definition);
        let properties = properties(definition, month).map_err(|source| failed(month, source))?;
        let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties));
        let writer = writer.map_err(|source| failed(month, source))?;
        Ok(Self { month, schema, writer, summarizer: Summarizer::new(definition, month) })
    }

    /// The schema that batches must have.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Takes the next rows.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), RowsError> {
        self.summarizer.batch(batch);
        self.writer.write(batch).map_err(|source| failed(self.month, source))
    }

    /// About how many bytes the file has so far.
    pub fn size(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    /// The file.
    pub fn finish(mut self) -> Result<Bytes, RowsError> {
        embed(&mut self.writer, self.summarizer).map_err(|source| failed(self.month, source))?;
        Ok(Bytes::from(self.writer.into_inner().map_err(|source| failed(self.month, source))?))
    }
}

fn failed(month: Month, source: parquet::errors::ParquetError) -> RowsError {
    RowsError::Parquet { file: format!("the new file of {month}"), source }
}

/// Puts the summary of all rows behind the last row group, where it is worth its place: no more than a quarter of the rows'
/// bytes. Nothing may be written after it but the footer.
pub fn embed<W: std::io::Write + Send>(
    writer: &mut ArrowWriter<W>,
    summarizer: Summarizer<'_>,
) -> Result<(), parquet::errors::ParquetError> {
    writer.flush()?;
    let offset = writer.bytes_written();
    let Some(bytes) = summarizer.finish().filter(|bytes| bytes.len() <= offset / 4) else { return Ok(()) };
    writer.write_all(&bytes)?;
    let place = format!("{offset} {} {}", bytes.len(), Digest::of(&bytes));
    writer.append_key_value_metadata(KeyValue::new(metadata::SUMMARY.to_owned(), place));
    Ok(())
}

fn fingerprint(definition: &Definition, rows: &[ArchivedRow]) -> Result<Fingerprint, RowsError> {
    let mut all = Fingerprint { rows: rows.len() as u64, ..Fingerprint::default() };
    let mut counts = 0u128;
    let mut measures: Vec<Option<i128>> = Vec::with_capacity(definition.measures.len());
    for row in rows {
        all.hash = all.hash.wrapping_add(row.fingerprint());
        all.erased += u64::from(row.content == super::row::ERASED);
        measures.clear();
        measures.extend((0..definition.measures.len()).map(|i| row.measures.get(i).map(|amount| amount.billionths())));
        counts = counts.wrapping_add(row.counted(&measures).hash());
    }
    all.counts = Some(counts);
    for (i, measure) in definition.measures.iter().enumerate() {
        let amounts = rows.iter().filter_map(|row| row.measures.get(i));
        let sum = amounts.copied().try_fold(Amount::ZERO, Amount::checked_add);
        let sum = sum.ok_or_else(|| RowsError::Overflow(measure.column.clone()))?;
        all.sums.insert(measure.column.clone(), sum);
    }
    Ok(all)
}

fn properties(definition: &Definition, month: Month) -> Result<WriterProperties, parquet::errors::ParquetError> {
    let said = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("recount ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_max_row_group_bytes(Some(GROUP_BYTES))
        .set_column_data_page_row_count_limit(ColumnPath::from(column::EVENT_KEY), KEY_PAGE_ROWS)
        .set_column_data_page_row_count_limit(ColumnPath::from(column::CONTENT_HASH), KEY_PAGE_ROWS)
        .set_write_batch_size(1_024)
        .set_key_value_metadata(Some(vec![
            said(metadata::FORMAT, archive::FORMAT.to_string()),
            said(metadata::DEFINITION, definition.hash().to_owned()),
            said(metadata::MONTH, month.to_string()),
        ]));
    let repeating = [
        column::GROUP_KEY,
        column::EVENT_NAME,
        column::CLASS,
        column::SOURCE_TABLE,
        column::SHARD_ID,
        column::USER_IDENTITY,
    ];
    for name in repeating {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(name), true);
    }
    Ok(properties.build())
}

/// The columns of some rows, in the order of [`events_schema`].
fn columns(definition: &Definition, rows: &[ArchivedRow]) -> Result<Vec<ArrayRef>, RowsError> {
    let mut columns = vec![
        binary(rows, |row| row.key.as_bytes()),
        text(rows, |row| Some(&row.event_id)),
        text(rows, |row| Some(row.event_name.as_str())),
        text(rows, |row| Some(row.class)),
        groups(rows),
        milliseconds(rows),
        number(rows, |row| row.occurred_us),
        number(rows, |row| row.created_us),
        text(rows, |row| Some(&row.table)),
        text(rows, |row| Some(row.place.shard.as_str())),
        text(rows, |row| Some(row.place.sequence.as_str())),
        number(rows, |row| row.place.arrived_us),
        text(rows, |row| row.keys.as_deref()),
        text(rows, |row| row.new_image.as_deref()),
        text(rows, |row| row.old_image.as_deref()),
        text(rows, |row| row.user_identity.as_deref()),
        text(rows, |row| Some(&row.envelope)),
        binary(rows, |row| &row.content),
    ];
    for i in 0..definition.measures.len() {
        // PRECISION and SCALE are 38 and 9: the scale fits an i8.
        let mut builder = Decimal128Builder::new().with_precision_and_scale(PRECISION, SCALE as i8)?;
        rows.iter().for_each(|row| builder.append_option(row.measures.get(i).map(|amount| amount.billionths())));
        columns.push(Arc::new(builder.finish()));
    }
    Ok(columns)
}

fn text<'r>(rows: &'r [ArchivedRow], value: impl Fn(&'r ArchivedRow) -> Option<&'r str>) -> ArrayRef {
    let mut builder = StringBuilder::new();
    rows.iter().for_each(|row| builder.append_option(value(row)));
    Arc::new(builder.finish())
}

fn binary<'r>(rows: &'r [ArchivedRow], value: impl Fn(&'r ArchivedRow) -> &'r [u8; 16]) -> ArrayRef {
    let mut builder = BinaryBuilder::new();
    rows.iter().for_each(|row| builder.append_value(value(row)));
    Arc::new(builder.finish())
}

fn number(rows: &[ArchivedRow], value: impl Fn(&ArchivedRow) -> i64) -> ArrayRef {
    let mut builder = Int64Builder::with_capacity(rows.len());
    rows.iter().for_each(|row| builder.append_value(value(row)));
    Arc::new(builder.finish())
}

fn milliseconds(rows: &[ArchivedRow]) -> ArrayRef {
    let mut builder = TimestampMillisecondBuilder::with_capacity(rows.len());
    rows.iter().for_each(|row| builder.append_value(row.occurred_us.div_euclid(1_000)));
    Arc::new(builder.finish())
}

fn groups(rows: &[ArchivedRow]) -> ArrayRef {
    let mut builder = StringDictionaryBuilder::<Int32Type>::new();
    rows.iter().for_each(|row| builder.append_option(row.group.as_ref().map(|group| group.as_str())));
    Arc::new(builder.finish())
}
