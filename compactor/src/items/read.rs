//! The changes of the archive's files. One pass over the columns that a history needs; memory: one batch.

use arrow_array::types::Int32Type;
use arrow_array::{Array, BinaryArray, DictionaryArray, Int64Array, RecordBatch, StringArray};
use futures::TryStreamExt;
use recount_schemas::archive::column;
use recount_schemas::position::BACKFILL_PREFIX;
use recount_schemas::{Definition, EventKey, EventName, Group, Month, SequenceNumber};

use super::change::{Change, Order, Said, State};
use super::unnamed::Unnamed;
use crate::bucket::Objects;
use crate::contributions::ReadError;
use crate::log::AddedFile;
use crate::rows;
use crate::table::item::{Item, item_hash, key_text, parse};

const COLUMNS: [&str; 11] = [
    column::EVENT_KEY,
    column::EVENT_NAME,
    column::GROUP_KEY,
    column::CREATED_AT_US,
    column::OCCURRED_AT_US,
    column::SOURCE_TABLE,
    column::SHARD_ID,
    column::SEQUENCE_NUMBER,
    column::KEYS,
    column::NEW_IMAGE,
    column::ENVELOPE,
];

/// Gives every change of the definition's table in these files to `take`; those whose item cannot be told, since they have
/// neither keys nor an image that has them, to `unnamed`.
pub async fn changes<O: Objects>(
    objects: &O,
    definition: &Definition,
    files: impl IntoIterator<Item = &AddedFile>,
    omitted: &[String],
    unnamed: &mut Unnamed,
    take: impl FnMut(Change) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    changes_where(objects, definition, files, omitted, unnamed, |_, _| true, take).await
}

/// The same, of those rows whose shard and sequence number are `wanted`.
pub async fn changes_where<O: Objects>(
    objects: &O,
    definition: &Definition,
    files: impl IntoIterator<Item = &AddedFile>,
    omitted: &[String],
    unnamed: &mut Unnamed,
    wanted: impl Fn(&str, &str) -> bool,
    mut take: impl FnMut(Change) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    for file in files {
        let mut batches = std::pin::pin!(rows::read(objects, file, &COLUMNS));
        while let Some(batch) = batches.try_next().await? {
            let columns = Columns::new(&batch, &file.target)?;
            for i in 0..batch.num_rows() {
                if columns.table.value(i) != definition.table
                    || !wanted(columns.shards.value(i), columns.sequences.value(i))
                {
                    continue;
                }
                match columns.change(i, definition, file.month, omitted)? {
                    Some(change) => take(change)?,
                    None => unnamed.take(columns.insert(i, file.month)),
                }
            }
        }
    }
    Ok(())
}

struct Columns<'b> {
    file: &'b str,
    keys: &'b BinaryArray,
    names: &'b StringArray,
    groups: Groups<'b>,
    created: &'b Int64Array,
    occurred: &'b Int64Array,
    table: &'b StringArray,
    shards: &'b StringArray,
    sequences: &'b StringArray,
    item_keys: &'b StringArray,
    images: &'b StringArray,
    envelopes: &'b StringArray,
}

enum Groups<'b> {
    Dictionary(&'b DictionaryArray<Int32Type>, &'b StringArray),
    Plain(&'b StringArray),
}

impl<'b> Columns<'b> {
    fn new(batch: &'b RecordBatch, file: &'b str) -> Result<Self, ReadError> {
        let missing = |name: &str| ReadError::Column { file: file.to_owned(), column: name.to_owned() };
        fn typed<'b, T: 'static>(batch: &'b RecordBatch, name: &str) -> Option<&'b T> {
            batch.column_by_name(name)?.as_any().downcast_ref::<T>()
        }
        let text = |name: &str| typed::<StringArray>(batch, name).ok_or_else(|| missing(name));
        let groups = match typed::<DictionaryArray<Int32Type>>(batch, column::GROUP_KEY) {
            Some(codes) => {
                let values = codes.values().as_any().downcast_ref::<StringArray>();
                Groups::Dictionary(codes, values.ok_or_else(|| missing(column::GROUP_KEY))?)
            }
            None => Groups::Plain(text(column::GROUP_KEY)?),
        };
        Ok(Self {
            file,
            keys: typed(batch, column::EVENT_KEY).ok_or_else(|| missing(column::EVENT_KEY))?,
            names: text(column::EVENT_NAME)?,
            groups,
            created: typed(batch, column::CREATED_AT_US).ok_or_else(|| missing(column::CREATED_AT_US))?,
            occurred: typed(batch, column::OCCURRED_AT_US).ok_or_else(|| missing(column::OCCURRED_AT_US))?,
            table: text(column::SOURCE_TABLE)?,
            shards: text(column::SHARD_ID)?,
            sequences: text(column::SEQUENCE_NUMBER)?,
            item_keys: text(column::KEYS)?,
            images: text(column::NEW_IMAGE)?,
            envelopes: text(column::ENVELOPE)?,
        })
    }

    fn group(&self, i: usize) -> Option<Group> {
        let text = match &self.groups {
            Groups::Plain(texts) => texts.is_valid(i).then(|| texts.value(i)),
            Groups::Dictionary(codes, values) => codes
                .is_valid(i)
                .then(|| usize::try_from(codes.keys().value(i)).ok())
                .flatten()
                .filter(|code| *code < values.len())
                .map(|code| values.value(code)),
        };
        text?.parse().ok()
    }

    /// Of a row that is an INSERT of a group, that, its month and the event's time.
    fn insert(&self, i: usize, month: Month) -> Option<(Group, Month, i64)> {
        let insert = self.names.value(i) == EventName::Insert.as_str();
        Some((self.group(i).filter(|_| insert)?, month, self.occurred.value(i)))
    }

    fn change(
        &self,
        i: usize,
        definition: &Definition,
        month: Month,
        omitted: &[String],
    ) -> Result<Option<Change>, ReadError> {
        let bad = |why: &str| ReadError::Row {
            file: self.file.to_owned(),
            event_key: EventKey::from_slice(self.keys.value(i))
                .map_or_else(|| format!("number {i}"), |k| k.to_string()),
            why: why.to_owned(),
        };
        let key =
            EventKey::from_slice(self.keys.value(i)).ok_or_else(|| bad("its event key does not have 16 bytes"))?;
        let name = EventName::parse(self.names.value(i)).ok_or_else(|| bad("its event name is none"))?;
        let sequence: SequenceNumber = self.sequences.value(i).parse().map_err(|e| bad(&format!("{e}")))?;
        let said = Said::read(self.envelopes.value(i));
        let backfilled = self.shards.value(i).starts_with(BACKFILL_PREFIX);
        let optional = |texts: &'b StringArray| texts.is_valid(i).then(|| texts.value(i));
        let image = optional(self.images).and_then(|text| parse(text, said.binary()));
        let keys = optional(self.item_keys).and_then(|text| parse(text, said.binary()));
        // What was omitted once and is not any more: the content cannot be compared.
        let lacks = said.lacks.iter().any(|name| !omitted.contains(name));
        let text = |item: &Item| key_text(&definition.key, item);
        let Some(item) = keys.as_ref().and_then(text).or_else(|| image.as_ref().and_then(text)) else {
            return Ok(None);
        };
        Ok(Some(Change {
            order: if backfilled { Order::backfilled(said.behind.as_ref()) } else { Order::captured(&sequence) },
            name,
            backfilled,
            created_us: self.created.value(i),
            key,
            state: match (name, image) {
                (EventName::Remove, _) => State::Absent,
                (_, Some(_)) if lacks => State::Unknown,
                (_, Some(image)) => State::Image(item_hash(&without(image, omitted))),
                (_, None) => State::Unknown,
            },
            group: self.group(i),
            month,
            item,
        }))
    }
}

/// The item without attributes that the archive does not keep.
pub fn without(mut item: Item, omitted: &[String]) -> Item {
    item.retain(|name, _| !omitted.contains(name));
    item
}
