//! Recounted totals as Parquet, in the schema of [`recount_schemas::archive::totals_schema`].

use std::sync::Arc;

use arrow_array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use recount_schemas::amount::{PRECISION, SCALE};
use recount_schemas::archive::{FORMAT, totals_schema};
use recount_schemas::{Amount, Definition, Delta};

use crate::rows::metadata;
use crate::usage::{Totalled, UsageError};

/// The monthly totals.
pub const MONTHLY: &str = "totals/monthly/totals.parquet";
/// The yearly totals.
pub const YEARLY: &str = "totals/yearly/totals.parquet";

/// The totals could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// They do not fit their columns.
    #[error("the totals could not be laid out as columns: {0}")]
    Arrow(#[from] ArrowError),
    /// The Parquet writer failed.
    #[error("the totals could not be written as Parquet: {0}")]
    Parquet(#[from] ParquetError),
    /// A sum is out of range.
    #[error(transparent)]
    Usage(#[from] UsageError),
}

/// The monthly totals, sorted by group and month.
pub fn monthly(definition: &Definition, totals: &Totalled) -> Result<Vec<u8>, WriteError> {
    let lines = totals.0.iter().map(|((group, month), delta)| (group.as_str(), month.to_string(), delta));
    file(definition, lines.collect())
}

/// The yearly totals, sorted by group and year.
pub fn yearly(definition: &Definition, totals: &Totalled) -> Result<Vec<u8>, WriteError> {
    let years = totals.years()?;
    let lines = years.iter().map(|((group, year), delta)| (group.as_str(), year.to_string(), delta));
    file(definition, lines.collect())
}

fn file(definition: &Definition, lines: Vec<(&str, String, &Delta)>) -> Result<Vec<u8>, WriteError> {
    let schema = totals_schema(definition);
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(lines.iter().map(|(group, ..)| group))),
        Arc::new(StringArray::from_iter_values(lines.iter().map(|(_, period, _)| period))),
        Arc::new(Int64Array::from_iter_values(lines.iter().map(|(.., delta)| delta.events))),
    ];
    for i in 0..definition.measures.len() {
        let sums = lines.iter().map(|(.., delta)| delta.sums.get(i).copied().unwrap_or(Amount::ZERO).billionths());
        // SCALE is 9: it fits an i8.
        let array = Decimal128Array::from_iter_values(sums).with_precision_and_scale(PRECISION, SCALE as i8)?;
        columns.push(Arc::new(array));
    }
    parquet(definition, &RecordBatch::try_new(schema, columns)?, [])
}

/// A small table of these rows, with what else its metadata says.
pub fn parquet(
    definition: &Definition,
    batch: &RecordBatch,
    also: impl IntoIterator<Item = KeyValue>,
) -> Result<Vec<u8>, WriteError> {
    let mut said = vec![
        KeyValue::new(metadata::FORMAT.to_owned(), FORMAT.to_string()),
        KeyValue::new(metadata::DEFINITION.to_owned(), definition.hash().to_owned()),
    ];
    said.extend(also);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_key_value_metadata(Some(said))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties))?;
    writer.write(batch)?;
    Ok(writer.into_inner()?)
}
