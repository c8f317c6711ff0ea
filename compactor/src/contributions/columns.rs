//! The columns of a batch of archived rows, typed; and what one row adds to which cells.
//!
//! Under `count = "inserts"` a row has its answer in its own columns: an INSERT of the definition's table adds one event
//! and its measures to the cell of its group, its month (the partition) and its lane. The archiver took these columns from the
//! definition's fold; a test holds this fast path against it. Under `net` the fold itself reads the row's images.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{Array, BinaryArray, Decimal128Array, DictionaryArray, Int64Array, RecordBatch, StringArray};
use recount_schemas::archive::column;
use recount_schemas::change::{Form, Precision};
use recount_schemas::definition::Count;
use recount_schemas::{
    Amount, Cell, Change, Definition, Delta, EventKey, EventName, Group, Month, SequenceNumber, ShardId,
};
use smallvec::SmallVec;

use super::ReadError;
use crate::reconcile::finding::Origin;

/// Which columns a reader needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Event ID, shard and sequence number.
    pub origin: bool,
    /// The hash of the content.
    pub content: bool,
    /// The event's and the change's times.
    pub times: bool,
}

impl Needs {
    /// The names of the columns to read under a definition.
    pub fn columns(self, definition: &Definition) -> Vec<String> {
        let mut names = vec![column::EVENT_KEY, column::EVENT_NAME, column::GROUP_KEY, column::SOURCE_TABLE];
        if self.origin {
            names.extend([column::EVENT_ID, column::SHARD_ID, column::SEQUENCE_NUMBER]);
        }
        if self.content {
            names.push(column::CONTENT_HASH);
        }
        if self.times {
            names.extend([column::OCCURRED_AT_US, column::CREATED_AT_US]);
        }
        match definition.count {
            Count::Inserts => names.extend(definition.measures.iter().map(|measure| measure.column.as_str())),
            Count::Net { .. } => {
                names.extend([column::CLASS, column::NEW_IMAGE, column::OLD_IMAGE, column::CREATED_AT_US])
            }
        }
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(str::to_owned).collect()
    }
}

#[derive(Debug)]
enum Groups {
    Dictionary(DictionaryArray<Int32Type>, StringArray),
    Plain(StringArray),
}

/// A batch of rows with its columns at hand. Columns that were not asked for are `None`.
#[derive(Debug)]
pub struct Rows {
    /// The file that the rows are in.
    pub file: Arc<str>,
    /// The file's month.
    pub month: Month,
    /// The batch as it was read.
    pub batch: RecordBatch,
    length: usize,
    keys: BinaryArray,
    names: StringArray,
    groups: Groups,
    tables: StringArray,
    ids: Option<StringArray>,
    shards: Option<StringArray>,
    sequences: Option<StringArray>,
    contents: Option<BinaryArray>,
    occurred: Option<Int64Array>,
    created: Option<Int64Array>,
    classes: Option<StringArray>,
    new_images: Option<StringArray>,
    old_images: Option<StringArray>,
    measures: Vec<Option<Decimal128Array>>,
}

impl Rows {
    /// The batch of a file, with its columns.
    pub fn new(batch: &RecordBatch, file: Arc<str>, month: Month, definition: &Definition) -> Result<Self, ReadError> {
        let missing = |name: &str| ReadError::Column { file: file.to_string(), column: name.to_owned() };
        fn typed<T: Clone + 'static>(batch: &RecordBatch, name: &str) -> Option<T> {
            batch.column_by_name(name)?.as_any().downcast_ref::<T>().cloned()
        }
        let groups = match typed::<DictionaryArray<Int32Type>>(batch, column::GROUP_KEY) {
            Some(dictionary) => {
                let values = dictionary.values().as_any().downcast_ref::<StringArray>().cloned();
                Groups::Dictionary(dictionary, values.ok_or_else(|| missing(column::GROUP_KEY))?)
            }
            None => Groups::Plain(typed(batch, column::GROUP_KEY).ok_or_else(|| missing(column::GROUP_KEY))?),
        };
        Ok(Self {
            month,
            batch: batch.clone(),
            length: batch.num_rows(),
            keys: typed(batch, column::EVENT_KEY).ok_or_else(|| missing(column::EVENT_KEY))?,
            names: typed(batch, column::EVENT_NAME).ok_or_else(|| missing(column::EVENT_NAME))?,
            tables: typed(batch, column::SOURCE_TABLE).ok_or_else(|| missing(column::SOURCE_TABLE))?,
            groups,
            ids: typed(batch, column::EVENT_ID),
            shards: typed(batch, column::SHARD_ID),
            sequences: typed(batch, column::SEQUENCE_NUMBER),
            contents: typed(batch, column::CONTENT_HASH),
            occurred: typed(batch, column::OCCURRED_AT_US),
            created: typed(batch, column::CREATED_AT_US),
            classes: typed(batch, column::CLASS),
            new_images: typed(batch, column::NEW_IMAGE),
            old_images: typed(batch, column::OLD_IMAGE),
            measures: definition.measures.iter().map(|measure| typed(batch, &measure.column)).collect(),
            file,
        })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The event key of row `i`.
    pub fn key(&self, i: usize) -> Result<EventKey, ReadError> {
        let bytes = bytes(&self.keys, i);
        bytes.and_then(EventKey::from_slice).ok_or_else(|| self.bad(i, "its event key does not have 16 bytes"))
    }

    /// The group of row `i`.
    pub fn group(&self, i: usize) -> Option<&str> {
        match &self.groups {
            Groups::Plain(values) => text(values, i),
            Groups::Dictionary(codes, values) => {
                let code = codes.keys().values().get(i).filter(|_| codes.is_valid(i))?;
                text(values, usize::try_from(*code).ok()?)
            }
        }
    }

    /// The content hash of row `i`.
    pub fn content(&self, i: usize) -> Option<[u8; 16]> {
        bytes(self.contents.as_ref()?, i)?.try_into().ok()
    }

    /// The class of row `i`: insert, modify, remove or ttl.
    pub fn class(&self, i: usize) -> Option<&str> {
        text(self.classes.as_ref()?, i)
    }

    /// Measure `at` of row `i`, in billionths; `None` where the row's image could not be read.
    pub fn measure(&self, at: usize, i: usize) -> Option<i128> {
        let array = self.measures.get(at)?.as_ref().filter(|array| i < array.len() && array.is_valid(i))?;
        array.values().get(i).copied()
    }

    /// The event's time of row `i`, µs since 1970.
    pub fn occurred_us(&self, i: usize) -> Option<i64> {
        self.occurred.as_ref()?.values().get(i).copied()
    }

    /// The creation time of row `i`, µs since 1970.
    pub fn created_us(&self, i: usize) -> Option<i64> {
        self.created.as_ref()?.values().get(i).copied()
    }

    /// What happened, as row `i` spells it.
    pub fn event_name(&self, i: usize) -> Option<&str> {
        text(&self.names, i)
    }

    /// The source table of row `i`.
    pub fn table(&self, i: usize) -> Option<&str> {
        text(&self.tables, i)
    }

    /// The shard and the sequence number of row `i`.
    pub fn position(&self, i: usize) -> Result<(ShardId, SequenceNumber), ReadError> {
        let shard =
            self.needed(&self.shards, column::SHARD_ID, i)?.parse().map_err(|e| self.bad(i, &format!("{e}")))?;
        let sequence = self.needed(&self.sequences, column::SEQUENCE_NUMBER, i)?;
        Ok((shard, sequence.parse().map_err(|e| self.bad(i, &format!("{e}")))?))
    }

    /// Where row `i` stands.
    pub fn origin(&self, i: usize) -> Result<Origin, ReadError> {
        let (shard_id, sequence_number) = self.position(i)?;
        let event_id = self.needed(&self.ids, column::EVENT_ID, i)?.to_owned();
        Ok(Origin { event_id, shard_id, sequence_number, file: self.file.to_string() })
    }

    fn needed<'a>(&self, array: &'a Option<StringArray>, name: &str, i: usize) -> Result<&'a str, ReadError> {
        let array = array.as_ref().ok_or_else(|| self.lacks(name))?;
        text(array, i).ok_or_else(|| self.bad(i, &format!("it has no {name}")))
    }

    /// What row `i` adds to which cells.
    pub fn contributions(&self, i: usize, definition: &Definition) -> Result<SmallVec<[(Cell, Delta); 2]>, ReadError> {
        match definition.count {
            Count::Inserts => {
                let ours = self.event_name(i) == Some(EventName::Insert.as_str())
                    && self.table(i) == Some(definition.table.as_str());
                let Some(group) = self.group(i).filter(|_| ours) else { return Ok(SmallVec::new()) };
                let group: Group = group.parse().map_err(|e| self.bad(i, &format!("{e}")))?;
                let cell = Cell { group, month: self.month, lane: self.key(i)?.lane(definition.lanes) };
                let mut delta = Delta { events: 1, sums: SmallVec::with_capacity(self.measures.len()) };
                for (array, measure) in self.measures.iter().zip(&definition.measures) {
                    let array = array.as_ref().ok_or_else(|| self.lacks(&measure.column))?;
                    let amount = if array.is_null(i) { 0 } else { array.values().get(i).copied().unwrap_or(0) };
                    delta.sums.push(Amount::from_billionths(amount));
                }
                Ok(SmallVec::from_iter([(cell, delta)]))
            }
            Count::Net { .. } => {
                let effect = definition.effect(&self.change(i)?, self.key(i)?);
                let effect = effect.map_err(|reason| self.bad(i, &format!("it cannot be folded: {reason}")))?;
                Ok(SmallVec::from(effect.contributions()))
            }
        }
    }

    /// As much of the change as the fold looks at.
    fn change(&self, i: usize) -> Result<Change<'_>, ReadError> {
        let name = self.event_name(i).and_then(EventName::parse);
        let image = |images: &'_ Option<StringArray>, name| images.as_ref().ok_or_else(|| self.lacks(name)).map(|_| ());
        image(&self.new_images, column::NEW_IMAGE)?;
        image(&self.old_images, column::OLD_IMAGE)?;
        Ok(Change {
            // Neither decides what a change adds; both decide how a record is decoded and keyed, which is done.
            form: Form::Kinesis,
            precision: Precision::Microsecond,
            event_id: Cow::Borrowed(""),
            event_name: name.ok_or_else(|| self.bad(i, "its event name is none"))?,
            table: Cow::Borrowed(self.table(i).unwrap_or_default()),
            created_us: self.created_us(i).ok_or_else(|| self.lacks(column::CREATED_AT_US))?,
            keys: None,
            new_image: self.new_images.as_ref().and_then(|images| text(images, i)),
            old_image: self.old_images.as_ref().and_then(|images| text(images, i)),
            user_identity: None,
            ttl: self.classes.as_ref().and_then(|classes| text(classes, i)) == Some("ttl"),
        })
    }

    fn lacks(&self, column: &str) -> ReadError {
        ReadError::Column { file: self.file.to_string(), column: column.to_owned() }
    }

    /// An error about row `i`.
    pub fn bad(&self, i: usize, why: &str) -> ReadError {
        let event_key = bytes(&self.keys, i).and_then(EventKey::from_slice);
        let event_key = event_key.map_or_else(|| format!("number {i}"), |key| key.to_string());
        ReadError::Row { file: self.file.to_string(), event_key, why: why.to_owned() }
    }
}

fn text(array: &StringArray, i: usize) -> Option<&str> {
    (i < array.len() && array.is_valid(i)).then(|| array.value(i))
}

fn bytes(array: &BinaryArray, i: usize) -> Option<&[u8]> {
    (i < array.len() && array.is_valid(i)).then(|| array.value(i))
}

#[cfg(test)]
#[path = "columns_tests.rs"]
mod tests;
