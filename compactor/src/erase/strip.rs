//! What an erased row loses: see the table in [`super`].

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray};
use recount_schemas::Definition;
use recount_schemas::archive::column;
use recount_schemas::definition::Count;
use serde_json::Value;

use super::select::Rows;
use crate::compact::CompactError;
use crate::contributions::ReadError;
use crate::rows::row::ERASED;

/// What the envelope of an erased row says.
const ENVELOPE: &str = r#"{"erased":true}"#;

/// The columns by which [`chosen`] chooses.
pub const BY: [&str; 5] =
    [column::SOURCE_TABLE, column::KEYS, column::NEW_IMAGE, column::OLD_IMAGE, column::CONTENT_HASH];

fn typed<'b, T: 'static>(batch: &'b RecordBatch, name: &str, file: &str) -> Result<&'b T, CompactError> {
    let column = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref::<T>());
    column.ok_or_else(|| ReadError::Column { file: file.to_owned(), column: name.to_owned() }.into())
}

/// Which rows of a batch are to be erased, and have not been. The batch has at least the columns [`BY`].
pub fn chosen(
    batch: &RecordBatch,
    rows: &Rows,
    definition: &Definition,
    file: &str,
) -> Result<Vec<bool>, CompactError> {
    let contents: &BinaryArray = typed(batch, column::CONTENT_HASH, file)?;
    let fresh = |i: usize| contents.is_valid(i) && contents.value(i) != ERASED;
    let Rows::Item(key) = rows else { return Ok((0..batch.num_rows()).map(fresh).collect()) };
    let tables: &StringArray = typed(batch, column::SOURCE_TABLE, file)?;
    let texts: [&StringArray; 3] = [
        typed(batch, column::KEYS, file)?,
        typed(batch, column::NEW_IMAGE, file)?,
        typed(batch, column::OLD_IMAGE, file)?,
    ];
    let of_item = |i: usize| {
        let ours = tables.is_valid(i) && tables.value(i) == definition.table;
        ours && texts.iter().any(|text| text.is_valid(i) && key.is_in(text.value(i)))
    };
    Ok((0..batch.num_rows()).map(|i| fresh(i) && of_item(i)).collect())
}

/// The batch with the chosen rows erased.
pub fn strip(
    batch: &RecordBatch,
    chosen: &[bool],
    definition: &Definition,
    file: &str,
) -> Result<RecordBatch, CompactError> {
    let keeps: Vec<&str> = match definition.count {
        Count::Inserts => Vec::new(),
        Count::Net { .. } => {
            let measures = definition.measures.iter().map(|measure| measure.attribute.as_str());
            let time = definition.occurred_at.attribute();
            std::iter::once(definition.group_by.as_str()).chain(time).chain(measures).collect()
        }
    };
    let is_chosen = |i: usize| chosen.get(i).copied().unwrap_or(false);
    let schema = batch.schema();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        let name = field.name().as_str();
        let texts = || typed::<StringArray>(batch, name, file);
        columns.push(match name {
            column::KEYS | column::USER_IDENTITY => {
                let texts = texts()?.iter().enumerate();
                Arc::new(texts.map(|(i, text)| text.filter(|_| !is_chosen(i))).collect::<StringArray>())
            }
            column::NEW_IMAGE | column::OLD_IMAGE => {
                let texts = texts()?.iter().enumerate();
                let kept = texts.map(|(i, text)| match is_chosen(i) {
                    true => text.and_then(|text| only(text, &keeps)),
                    false => text.map(str::to_owned),
                });
                Arc::new(kept.collect::<StringArray>())
            }
            column::ENVELOPE => {
                let texts = texts()?.iter().enumerate();
                Arc::new(
                    texts.map(|(i, text)| if is_chosen(i) { Some(ENVELOPE) } else { text }).collect::<StringArray>(),
                )
            }
            column::CONTENT_HASH => {
                let hashes = typed::<BinaryArray>(batch, name, file)?.iter().enumerate();
                let hash = hashes.map(|(i, hash)| if is_chosen(i) { Some(ERASED.as_slice()) } else { hash });
                Arc::new(hash.collect::<BinaryArray>())
            }
            _ => Arc::clone(array),
        });
    }
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// An image with these attributes only; `None` where none is to be kept.
fn only(image: &str, names: &[&str]) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let Ok(Value::Object(mut attributes)) = serde_json::from_str(image) else { return None };
    attributes.retain(|name, _| names.contains(&name.as_str()));
    Some(Value::Object(attributes).to_string())
}
