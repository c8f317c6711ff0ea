//! The columns of a batch of rows as fsck reads them: typed once per batch, looked at row by row without taking memory.

use arrow_array::types::Int32Type;
use arrow_array::{Array, BinaryArray, Decimal128Array, DictionaryArray, Int64Array, RecordBatch, StringArray};
use recount_schemas::archive::column;
use recount_schemas::{Definition, EventKey};

/// A column is not there, or of another type: its name.
pub type Lacks = String;

/// The names of the columns that fsck reads: of the rows as the log tells of them, or, where it looks deep, all.
pub fn names(definition: &Definition, deep: bool) -> Vec<&str> {
    let mut names =
        vec![column::EVENT_KEY, column::GROUP_KEY, column::SHARD_ID, column::SEQUENCE_NUMBER, column::CONTENT_HASH];
    if deep {
        names.extend([
            column::EVENT_ID,
            column::EVENT_NAME,
            column::CLASS,
            column::OCCURRED_AT_US,
            column::CREATED_AT_US,
            column::SOURCE_TABLE,
            column::ARRIVED_AT_US,
            column::KEYS,
            column::NEW_IMAGE,
            column::OLD_IMAGE,
            column::USER_IDENTITY,
            column::ENVELOPE,
        ]);
    }
    names.extend(definition.measures.iter().map(|measure| measure.column.as_str()));
    names
}

/// A batch of rows.
#[derive(Debug)]
pub struct Columns {
    /// The number of rows.
    pub rows: usize,
    keys: BinaryArray,
    groups: DictionaryArray<Int32Type>,
    group_names: StringArray,
    /// The shards.
    pub shards: StringArray,
    /// The sequence numbers.
    pub sequences: StringArray,
    contents: BinaryArray,
    /// The measures, in the order of the definition.
    pub measures: Vec<Decimal128Array>,
    /// What else a row has, where fsck looks deep.
    pub deep: Option<Deep>,
}

/// All other columns.
#[derive(Debug)]
pub struct Deep {
    /// The event IDs.
    pub ids: StringArray,
    /// INSERT, MODIFY or REMOVE.
    pub names: StringArray,
    /// The classes.
    pub classes: StringArray,
    /// The events' times, µs since 1970.
    pub occurred: Int64Array,
    /// The creation times, µs since 1970.
    pub created: Int64Array,
    /// The source tables.
    pub tables: StringArray,
    /// The arrivals, µs since 1970.
    pub arrived: Int64Array,
    /// The items' keys.
    pub item_keys: StringArray,
    /// The items after the changes.
    pub new_images: StringArray,
    /// The items before the changes.
    pub old_images: StringArray,
    /// Who made the changes.
    pub identities: StringArray,
    /// All else of the records.
    pub envelopes: StringArray,
}

fn typed<T: Clone + 'static>(batch: &RecordBatch, name: &str) -> Result<T, Lacks> {
    let column = batch.column_by_name(name).and_then(|array| array.as_any().downcast_ref::<T>());
    column.cloned().ok_or_else(|| name.to_owned())
}

impl Columns {
    /// The columns of a batch.
    pub fn new(batch: &RecordBatch, definition: &Definition, deep: bool) -> Result<Self, Lacks> {
        let groups: DictionaryArray<Int32Type> = typed(batch, column::GROUP_KEY)?;
        let names = groups.values().as_any().downcast_ref::<StringArray>().cloned();
        Ok(Self {
            rows: batch.num_rows(),
            keys: typed(batch, column::EVENT_KEY)?,
            group_names: names.ok_or_else(|| column::GROUP_KEY.to_owned())?,
            groups,
            shards: typed(batch, column::SHARD_ID)?,
            sequences: typed(batch, column::SEQUENCE_NUMBER)?,
            contents: typed(batch, column::CONTENT_HASH)?,
            measures: definition.measures.iter().map(|m| typed(batch, &m.column)).collect::<Result<_, _>>()?,
            deep: deep.then(|| Deep::new(batch)).transpose()?,
        })
    }

    /// The event key of row `i`; `None` if it does not have 16 bytes.
    pub fn key(&self, i: usize) -> Option<EventKey> {
        bytes(&self.keys, i).and_then(EventKey::from_slice)
    }

    /// The content hash of row `i`; `None` if it does not have 16 bytes.
    pub fn content(&self, i: usize) -> Option<[u8; 16]> {
        bytes(&self.contents, i)?.try_into().ok()
    }

    /// The group of row `i`.
    pub fn group(&self, i: usize) -> Option<&str> {
        let code = self.groups.keys().values().get(i).filter(|_| self.groups.is_valid(i))?;
        text(&self.group_names, usize::try_from(*code).ok()?)
    }
}

impl Deep {
    fn new(batch: &RecordBatch) -> Result<Self, Lacks> {
        Ok(Self {
            ids: typed(batch, column::EVENT_ID)?,
            names: typed(batch, column::EVENT_NAME)?,
            classes: typed(batch, column::CLASS)?,
            occurred: typed(batch, column::OCCURRED_AT_US)?,
            created: typed(batch, column::CREATED_AT_US)?,
            tables: typed(batch, column::SOURCE_TABLE)?,
            arrived: typed(batch, column::ARRIVED_AT_US)?,
            item_keys: typed(batch, column::KEYS)?,
            new_images: typed(batch, column::NEW_IMAGE)?,
            old_images: typed(batch, column::OLD_IMAGE)?,
            identities: typed(batch, column::USER_IDENTITY)?,
            envelopes: typed(batch, column::ENVELOPE)?,
        })
    }
}

/// The text of row `i`; `None` where it is null.
pub fn text(array: &StringArray, i: usize) -> Option<&str> {
    (i < array.len() && array.is_valid(i)).then(|| array.value(i))
}

/// The number of row `i`; `None` where it is null.
pub fn number(array: &Int64Array, i: usize) -> Option<i64> {
    (i < array.len() && array.is_valid(i)).then(|| array.value(i))
}

/// The amount of row `i`, in billionths; `None` where it is null.
pub fn amount(array: &Decimal128Array, i: usize) -> Option<i128> {
    (i < array.len() && array.is_valid(i)).then(|| array.value(i))
}

fn bytes(array: &BinaryArray, i: usize) -> Option<&[u8]> {
    (i < array.len() && array.is_valid(i)).then(|| array.value(i))
}
