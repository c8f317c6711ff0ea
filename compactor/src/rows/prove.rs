//! What a written file says of itself, read from its bytes before they go anywhere.
//!
//! A compaction deletes the files that it read, and an erasure too. So what they wrote is not believed: the file is decoded
//! again, its order is checked strictly, and its rows are summed up as a multiset from what a reader will find.

use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use recount_schemas::archive::column;
use recount_schemas::definition::Count;
use recount_schemas::{Amount, Cell, Definition, Delta, EventKey, Month};
use smallvec::SmallVec;

use super::row::{Counted, ERASED, row_hash};
use super::{RowsError, Written};
use crate::contributions::ReadError;
use crate::contributions::columns::{Needs, Rows};
use crate::log::{Digest, Fingerprint};

/// The rows of a file in the making, summed up.
#[derive(Debug, Default)]
struct Sums {
    keys: Option<(EventKey, EventKey)>,
    first_group: Option<String>,
    last: Option<(Option<String>, EventKey)>,
    print: Fingerprint,
}

/// All that the log says of a file, from its bytes. They must hold at least one row.
pub fn prove(definition: &Definition, month: Month, bytes: Bytes) -> Result<Written, ReadError> {
    let name = "the new file";
    let failed = |source| RowsError::Parquet { file: format!("{name} of {month}"), source };
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(failed)?;
    let columns = columns(definition);
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().map(String::as_str));
    let reader = builder.with_projection(mask).build().map_err(failed)?;
    let mut sums = Sums::default();
    for measure in &definition.measures {
        sums.print.sums.insert(measure.column.clone(), Amount::ZERO);
    }
    for batch in reader {
        let rows = Rows::new(&batch.map_err(RowsError::from)?, Arc::from(name), month, definition)?;
        for i in 0..rows.len() {
            sums.add(&rows, i, definition)?;
        }
    }
    let Some((first_key, last_key)) = sums.keys else {
        let why = "has no row".to_owned();
        return Err(RowsError::Damaged { file: format!("{name} of {month}"), why }.into());
    };
    let (size, sha256) = (bytes.len() as u64, Digest::of(&bytes));
    let (first_group, last_group) = (sums.first_group, sums.last.and_then(|(group, _)| group));
    Ok(Written { bytes, size, month, sha256, first_key, last_key, first_group, last_group, fingerprint: sums.print })
}

/// The columns that the proof reads.
fn columns(definition: &Definition) -> Vec<String> {
    let mut columns = Needs { origin: false, content: true, times: true }.columns(definition);
    columns.push(column::CLASS.to_owned());
    columns.extend(definition.measures.iter().map(|measure| measure.column.clone()));
    columns.sort_unstable();
    columns.dedup();
    columns
}

impl Sums {
    fn add(&mut self, rows: &Rows, i: usize, definition: &Definition) -> Result<(), ReadError> {
        let (key, group) = (rows.key(i)?, rows.group(i));
        let in_order = self.last.as_ref().is_none_or(|(last, least)| (last.as_deref(), *least) < (group, key));
        if !in_order {
            return Err(ReadError::Unsorted { file: rows.file.to_string(), event_key: key.to_string() });
        }
        match &mut self.last {
            // Rows of one group share its text.
            Some((last, at)) if last.as_deref() == group => *at = key,
            last => *last = Some((group.map(str::to_owned), key)),
        }
        if self.first_group.is_none() {
            self.first_group = group.map(str::to_owned);
        }
        self.keys = Some(self.keys.map_or((key, key), |(first, last)| (first.min(key), last.max(key))));
        let print = &mut self.print;
        let content = rows.content(i).ok_or_else(|| rows.bad(i, "its content hash does not have 16 bytes"))?;
        print.rows += 1; // a file has at most 2⁶³ rows
        print.erased += u64::from(content == ERASED);
        print.hash = print.hash.wrapping_add(row_hash(&content, key));
        let counts = counts(rows, i, definition)?;
        print.counts = print.counts.map(|all| all.wrapping_add(counts));
        for (at, measure) in definition.measures.iter().enumerate() {
            let sum = print.sums.entry(measure.column.clone()).or_default();
            let amount = Amount::from_billionths(rows.measure(at, i).unwrap_or(0));
            *sum = sum.checked_add(amount).ok_or_else(|| RowsError::Overflow(measure.column.clone()))?;
        }
        Ok(())
    }
}

/// The hash over all of row `i` that a total depends on: see [`Counted`].
fn counts(rows: &Rows, i: usize, definition: &Definition) -> Result<u128, ReadError> {
    let key = rows.key(i)?;
    let measures: SmallVec<[Option<i128>; 8]> = (0..definition.measures.len()).map(|at| rows.measure(at, i)).collect();
    let contributions: SmallVec<[(Cell, Delta); 2]> = match definition.count {
        Count::Inserts => SmallVec::new(),
        Count::Net { .. } => rows.contributions(i, definition)?,
    };
    let time = |time: Option<i64>| time.ok_or_else(|| rows.bad(i, "it has no time"));
    let counted = Counted {
        key,
        event_name: rows.event_name(i).unwrap_or_default(),
        class: rows.class(i).unwrap_or_default(),
        table: rows.table(i).unwrap_or_default(),
        group: rows.group(i),
        occurred_us: time(rows.occurred_us(i))?,
        created_us: time(rows.created_us(i))?,
        measures: &measures,
        contributions: &contributions,
    };
    Ok(counted.hash())
}

#[cfg(test)]
#[path = "prove_tests.rs"]
mod tests;
