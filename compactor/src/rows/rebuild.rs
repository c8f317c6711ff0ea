//! A row back to the record that it was made of: images, keys and user identity byte for byte, the rest equal as JSON.
//!
//! The record is what `eventID`, the three columns of JSON and the envelope make together
//! ([`envelope::restore`]). That nothing of the change is lost on the way is not taken
//! for granted: the content hash of what was put together must be the row's. It is not where personal data was erased since,
//! or where the archive was told to leave columns out.

use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{Array, BinaryArray, DictionaryArray, Int64Array, RecordBatch, StringArray};
use recount_schemas::archive::column;
use recount_schemas::change::envelope;
use recount_schemas::{Change, EventKey, SequenceNumber, ShardId};

use crate::contributions::ReadError;

/// The columns that a record is put together from.
pub const COLUMNS: [&str; 11] = [
    column::EVENT_KEY,
    column::EVENT_ID,
    column::GROUP_KEY,
    column::CREATED_AT_US,
    column::SHARD_ID,
    column::SEQUENCE_NUMBER,
    column::KEYS,
    column::NEW_IMAGE,
    column::OLD_IMAGE,
    column::ENVELOPE,
    column::CONTENT_HASH,
];

/// A batch of rows with [`COLUMNS`].
#[derive(Debug)]
pub struct Rebuilder {
    file: Arc<str>,
    rows: usize,
    keys: BinaryArray,
    event_ids: StringArray,
    groups: DictionaryArray<Int32Type>,
    created: Int64Array,
    shards: StringArray,
    sequences: StringArray,
    item_keys: StringArray,
    new_images: StringArray,
    old_images: StringArray,
    envelopes: StringArray,
    contents: BinaryArray,
}

/// What a row says of its record without putting it together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline<'b> {
    /// The event's key.
    pub key: EventKey,
    /// The event's ID.
    pub event_id: &'b str,
    /// The row's group.
    pub group: Option<&'b str>,
    /// When the change was made, µs since 1970.
    pub created_us: i64,
}

/// A record as it was in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// Its shard.
    pub shard: ShardId,
    /// Its sequence number.
    pub sequence: SequenceNumber,
    /// Its text; `None` where the row does not hold all of the change any more.
    pub record: Option<String>,
}

impl Rebuilder {
    /// The batch of a file.
    pub fn new(batch: &RecordBatch, file: Arc<str>) -> Result<Self, ReadError> {
        fn typed<T: Clone + 'static>(batch: &RecordBatch, file: &str, name: &str) -> Result<T, ReadError> {
            let column = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref::<T>());
            column.cloned().ok_or_else(|| ReadError::Column { file: file.to_owned(), column: name.to_owned() })
        }
        Ok(Self {
            rows: batch.num_rows(),
            keys: typed(batch, &file, column::EVENT_KEY)?,
            event_ids: typed(batch, &file, column::EVENT_ID)?,
            groups: typed(batch, &file, column::GROUP_KEY)?,
            created: typed(batch, &file, column::CREATED_AT_US)?,
            shards: typed(batch, &file, column::SHARD_ID)?,
            sequences: typed(batch, &file, column::SEQUENCE_NUMBER)?,
            item_keys: typed(batch, &file, column::KEYS)?,
            new_images: typed(batch, &file, column::NEW_IMAGE)?,
            old_images: typed(batch, &file, column::OLD_IMAGE)?,
            envelopes: typed(batch, &file, column::ENVELOPE)?,
            contents: typed(batch, &file, column::CONTENT_HASH)?,
            file,
        })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// What row `i` says of its record.
    pub fn outline(&self, i: usize) -> Result<Outline<'_>, ReadError> {
        Ok(Outline {
            key: self.key(i).ok_or_else(|| self.bad(i, "its event key does not have 16 bytes"))?,
            event_id: self.text(&self.event_ids, i, "event ID")?,
            group: self.group(i),
            created_us: value(&self.created, i).ok_or_else(|| self.bad(i, "it has no creation time"))?,
        })
    }

    /// Where row `i` stood in the stream.
    pub fn place(&self, i: usize) -> Result<(ShardId, SequenceNumber), ReadError> {
        let shard = self.text(&self.shards, i, "shard")?.parse();
        let sequence = self.text(&self.sequences, i, "sequence number")?.parse();
        Ok((
            shard.map_err(|error| self.bad(i, &format!("{error}")))?,
            sequence.map_err(|error| self.bad(i, &format!("{error}")))?,
        ))
    }

    /// The record of row `i`.
    pub fn rebuild(&self, i: usize) -> Result<Rebuilt, ReadError> {
        let (shard, sequence) = self.place(i)?;
        let record = self.restored(i)?;
        let content = bytes(&self.contents, i);
        let whole = |record: &String| {
            let change = Change::decode(record.as_bytes());
            change.is_ok_and(|change| Some(change.content_hash().0.as_slice()) == content)
        };
        Ok(Rebuilt { shard, sequence, record: record.ok().filter(whole) })
    }

    /// What is left of the record of row `i`, where that is not all of the change any more; `None` where it is no record. And
    /// the hash of what the change was, as the row has it.
    pub fn remains(&self, i: usize) -> Result<(Option<String>, [u8; 16]), ReadError> {
        let content = bytes(&self.contents, i).and_then(|bytes| bytes.try_into().ok());
        Ok((self.restored(i)?.ok(), content.ok_or_else(|| self.bad(i, "its content hash does not have 16 bytes"))?))
    }

    fn restored(&self, i: usize) -> Result<Result<String, serde_json::Error>, ReadError> {
        Ok(envelope::restore(
            self.text(&self.envelopes, i, "envelope")?,
            self.text(&self.event_ids, i, "event ID")?,
            text(&self.item_keys, i),
            text(&self.new_images, i),
            text(&self.old_images, i),
        ))
    }

    fn key(&self, i: usize) -> Option<EventKey> {
        bytes(&self.keys, i).and_then(EventKey::from_slice)
    }

    fn group(&self, i: usize) -> Option<&str> {
        let code = self.groups.keys().values().get(i).filter(|_| self.groups.is_valid(i))?;
        let names = self.groups.values().as_any().downcast_ref::<StringArray>()?;
        text(names, usize::try_from(*code).ok()?)
    }

    fn text<'b>(&self, array: &'b StringArray, i: usize, what: &str) -> Result<&'b str, ReadError> {
        text(array, i).ok_or_else(|| self.bad(i, &format!("it has no {what}")))
    }

    fn bad(&self, i: usize, why: &str) -> ReadError {
        let event_key = self.key(i).map_or_else(|| format!("number {i}"), |key| key.to_string());
        ReadError::Row { file: self.file.to_string(), event_key, why: why.to_owned() }
    }
}

fn text(array: &StringArray, i: usize) -> Option<&str> {
    (i < array.len() && array.is_valid(i)).then(|| array.value(i))
}

fn bytes(array: &BinaryArray, i: usize) -> Option<&[u8]> {
    (i < array.len() && array.is_valid(i)).then(|| array.value(i))
}

fn value(array: &Int64Array, i: usize) -> Option<i64> {
    array.values().get(i).copied().filter(|_| array.is_valid(i))
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
