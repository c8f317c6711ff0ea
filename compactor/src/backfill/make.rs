//! Making a plan: read the table, archive to the tip, and look for each item whether its INSERT is missing.
//!
//! Nothing is counted here. The plan and its parts are put into the bucket, so that they can be read, and applied from
//! anywhere. Memory: the sort's buffer, one part, and the keys of items that were captured from the middle of their lives.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::{Array, BinaryArray, RecordBatch, StringArray};
use bytes::Bytes;
use futures::TryStreamExt;
use recount_schemas::archive::column;
use recount_schemas::definition::OccurredAt;
use recount_schemas::{Cell, Delta, EventKey};

use super::BackfillError;
use super::gap::{Gap, Life};
use super::plan::{
    CellSum, FORMAT, Missing, Packer, PartName, Plan, Refused, event_id, judge, object_key, part_key, sha256,
};
use crate::audit::again::{Waiting, quarantined};
use crate::audit::run::{files, to_the_tip};
use crate::bucket::Objects;
use crate::context::Context;
use crate::contributions::ReadError;
use crate::contributions::spill::Sorter;
use crate::items::change::Said;
use crate::items::read::{changes, without};
use crate::items::walk::{push_change, push_seen};
use crate::items::{Seen, Side, Unnamed, Walk};
use crate::log::AddedFile;
use crate::progress::{self, Says, Work};
use crate::rows;
use crate::table::item::{Binary, Item, ItemHash, hash, item_hash, key_of, key_text, parse};
use crate::table::{Reading, Table, read};

/// Most items captured from the middle of their lives that one plan takes; the next plan takes the next.
pub const MAX_BEFORE: usize = 1_000_000;
/// Keys that are named of the items that cannot be counted, for each reason.
const NAMED: usize = 20;

/// A plan, kept in the bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Its name.
    pub hash: String,
    /// What it says.
    pub plan: Plan,
}

/// What is being put together.
struct Making<'a> {
    context: &'a Context,
    created_us: i64,
    packer: Packer,
    parts: Vec<PartName>,
    cells: BTreeMap<Cell, Delta>,
    refused: BTreeMap<String, Refused>,
    kinds: [u64; 3],
    unnamed: Unnamed,
    waiting: BTreeMap<ItemHash, Waiting>,
}

/// Makes a plan and keeps it. `this_month`: where items have no time of their own, they count in the plan's month.
pub async fn make(
    context: &Context,
    reading: &Reading,
    this_month: bool,
    says: &Says<'_>,
) -> Result<Named, BackfillError> {
    let definition = &context.definition;
    if definition.occurred_at == OccurredAt::CreationTime && !this_month {
        return Err(BackfillError::NoTime);
    }
    let table = read(context, reading, says).await?;
    let mut sorter = Sorter::new();
    push_table(context, &table, &mut sorter)?;
    let Some(state) = to_the_tip(context, says).await? else { return Err(BackfillError::Behind) };
    says(Work::Step("reading the archive"));
    let files = files(&state, context)?;
    let push = |change: crate::items::Change| Ok(push_change(&mut sorter, &change)?);
    let mut unnamed = Unnamed::default();
    changes(&context.bucket, definition, progress::files(&files, says), &[], &mut unnamed, push).await?;

    says(Work::Step("looking for what is missing"));
    let mut making = Making {
        context,
        created_us: context.host.now_us(),
        packer: Packer::default(),
        parts: Vec::new(),
        cells: BTreeMap::new(),
        refused: BTreeMap::new(),
        kinds: [0; 3],
        unnamed,
        waiting: waiting(context).await?,
    };
    let mut before: BTreeMap<EventKey, (String, i64)> = BTreeMap::new();
    let mut current: Option<Life> = None;
    for side in Walk::new(sorter.finish()?) {
        let (hash, side) = side?;
        if current.as_ref().is_none_or(|life| life.hash != hash) {
            let seen = match &side {
                Side::Table(seen) => Some(seen.clone()),
                Side::Change(_) => None,
            };
            if let Some(life) = current.replace(Life::new(hash, seen, table.window.1)) {
                making.item(&table, &life, &mut before).await?;
            }
        }
        if let (Some(life), Side::Change(change)) = (&mut current, &side) {
            life.take(change);
        }
    }
    if let Some(life) = current {
        making.item(&table, &life, &mut before).await?;
    }
    making.before(&files, &before).await?;
    making.close_part().await?;

    let plan = Plan {
        format: FORMAT,
        definition: definition.hash().to_owned(),
        source: table.source.source.clone(),
        read_us: table.window,
        created_us: making.created_us,
        entries: state.next,
        whole: making.kinds[0],
        before: making.kinds[1],
        behind: making.kinds[2],
        parts: making.parts,
        cells: making.cells.into_iter().map(|(cell, add)| CellSum { cell, add }).collect(),
        refused: making.refused.into_values().collect(),
    };
    let bytes = plan.to_bytes()?;
    let hash = sha256(&bytes);
    // Named by its content: whoever kept it before kept the same.
    context.bucket.put_if_absent(&object_key(&hash), Bytes::from(bytes)).await?;
    Ok(Named { hash, plan })
}

/// The items of which a record waits in quarantine. It is asked when the archive is at the tip: what was put through since
/// has its row, and is found by it when the plan is applied.
pub(super) async fn waiting(context: &Context) -> Result<BTreeMap<ItemHash, Waiting>, BackfillError> {
    let waiting = quarantined(&context.bucket, &context.definition, context.host.now_us()).await?;
    waiting.ok_or(BackfillError::Quarantine)
}

fn push_table(context: &Context, table: &Table, sorter: &mut Sorter) -> Result<(), BackfillError> {
    let definition = &context.definition;
    let no_key = || BackfillError::NoKey { table: definition.table.clone() };
    for stored in table.spool.items() {
        let stored = stored?;
        let item = parse(&stored.json, Binary::Once).ok_or_else(no_key)?;
        let text = key_text(&definition.key, &item).ok_or_else(no_key)?;
        let (part, offset, read_us) = (stored.part, stored.offset, stored.read_us);
        push_seen(sorter, &Seen { part, offset, read_us, image: item_hash(&item), item: text })?;
    }
    Ok(())
}

impl Making<'_> {
    /// Takes what is missing of one item. Of one captured from the middle of its life the content stands in the archive:
    /// that is for [`Making::before`].
    async fn item(
        &mut self,
        table: &Table,
        life: &Life,
        before: &mut BTreeMap<EventKey, (String, i64)>,
    ) -> Result<(), BackfillError> {
        let (behind, removal) = match life.gap() {
            None => return Ok(()),
            Some(Gap::Before(key)) => {
                if before.len() < MAX_BEFORE {
                    before.insert(key, (life.item.clone(), life.read_us));
                } else {
                    self.refuse(MORE_BEFORE, life.item.clone());
                }
                return Ok(());
            }
            Some(Gap::Whole) => (None, None),
            Some(Gap::Behind { sequence, removal }) => (Some(sequence), Some(removal.to_string())),
        };
        let Some(seen) = &life.seen else { return Ok(()) };
        let image = table.spool.get(seen.part, seen.offset)?.json;
        let image = parse(&image, Binary::Once).ok_or_else(|| self.no_key())?;
        let kind = if behind.is_some() { CAME_BACK } else { 0 };
        let event_id = event_id(&self.context.definition.table, &life.item, removal.as_deref());
        self.push(kind, event_id, life.item.clone(), image, behind, life.read_us).await
    }

    fn no_key(&self) -> BackfillError {
        BackfillError::NoKey { table: self.context.definition.table.clone() }
    }

    async fn push(
        &mut self,
        kind: usize,
        event_id: String,
        item: String,
        image: Item,
        behind: Option<recount_schemas::SequenceNumber>,
        read_us: i64,
    ) -> Result<(), BackfillError> {
        let definition = &self.context.definition;
        if self.waiting.get(&hash(item.as_bytes())).is_some_and(|waiting| waiting.may_count) {
            self.refuse(WAITS, item);
            return Ok(());
        }
        let keys = key_of(&definition.key, &image).ok_or_else(|| self.no_key())?;
        // The plan is an object of the bucket too.
        let image = without(image, &definition.archive.omit);
        let missing = Missing { event_id, item, keys, image, behind, read_us };
        let record = missing.record(&definition.table, self.created_us, "plan");
        let judged = match judge(definition, &record, self.created_us) {
            Ok(judged) => judged,
            Err(reason) => {
                self.refuse(&reason.to_string(), missing.item);
                return Ok(());
            }
        };
        let own = definition.occurred_at != OccurredAt::CreationTime;
        let erased = judged
            .group
            .as_ref()
            .is_some_and(|group| self.unnamed.may_be(group, judged.month, own.then_some(judged.occurred_us)));
        if erased && kind != CAME_BACK {
            self.refuse(MAY_BE_ERASED, missing.item);
            return Ok(());
        }
        for (cell, delta) in judged.effect.contributions() {
            let sum = self.cells.entry(cell.clone()).or_insert_with(|| Delta::zero(definition.measures.len()));
            *sum = sum.checked_add(delta).ok_or(BackfillError::OutOfRange)?;
        }
        if let Some(kind) = self.kinds.get_mut(kind) {
            *kind += 1;
        }
        if self.packer.push(&missing)? {
            self.close_part().await?;
        }
        Ok(())
    }

    fn refuse(&mut self, reason: &str, key: String) {
        let new = || Refused { reason: reason.to_owned(), items: 0, keys: Vec::new() };
        // The reasons of items of one table are few; a detail that differs for each of them would make a long list.
        let known = self.refused.len() < 1_000 || self.refused.contains_key(reason);
        let name = if known { reason } else { "other reasons" };
        let refused = self.refused.entry(name.to_owned()).or_insert_with(new);
        refused.items += 1;
        if refused.keys.len() < NAMED {
            refused.keys.push(key);
        }
    }

    /// The part is full, or the last one.
    async fn close_part(&mut self) -> Result<(), BackfillError> {
        if let Some((name, bytes)) = std::mem::take(&mut self.packer).finish()? {
            self.context.bucket.put(&part_key(self.created_us, &name), Bytes::from(bytes)).await?;
            self.parts.push(name);
        }
        Ok(())
    }

    /// The items captured from the middle of their lives: each as it was before its first archived change.
    async fn before(
        &mut self,
        files: &[AddedFile],
        wanted: &BTreeMap<EventKey, (String, i64)>,
    ) -> Result<(), BackfillError> {
        let columns = [column::EVENT_KEY, column::KEYS, column::OLD_IMAGE, column::ENVELOPE];
        let keys: BTreeSet<EventKey> = wanted.keys().copied().collect();
        let within = |file: &&AddedFile| keys.range(file.first_key..=file.last_key).next().is_some();
        let mut found = BTreeSet::new();
        for file in files.iter().filter(within) {
            let mut batches = std::pin::pin!(rows::read(&self.context.bucket, file, &columns));
            while let Some(batch) = batches.try_next().await? {
                let columns = Olds::new(&batch, &file.target)?;
                for i in 0..batch.num_rows() {
                    let Some(key) = EventKey::from_slice(columns.keys.value(i)) else { continue };
                    let Some((item, read_us)) = wanted.get(&key) else { continue };
                    found.insert(key);
                    match columns.image(i) {
                        Some(image) => {
                            let id = event_id(&self.context.definition.table, item, None);
                            self.push(1, id, item.clone(), image, None, *read_us).await?;
                        }
                        None => self.refuse(NO_OLD_IMAGE, item.clone()),
                    }
                }
            }
        }
        for (_, (item, _)) in wanted.iter().filter(|(key, _)| !found.contains(key)) {
            self.refuse("its first archived change could not be read again: make another plan", item.clone());
        }
        Ok(())
    }
}

/// Of the three kinds of what is missing, the one whose INSERT cannot have been erased: the removal before it was not.
const CAME_BACK: usize = 2;
/// Why an item is refused of which a record waits in quarantine.
pub const WAITS: &str =
    "a change of it waits in quarantine, and would count as well: put it through first, by recount redrive";
const MAY_BE_ERASED: &str =
    "an INSERT of its group at its time was erased from the archive, and may be its own: it would count twice";
const MORE_BEFORE: &str =
    "more items were captured from the middle of their lives than one plan takes: apply this one, then make another";
const NO_OLD_IMAGE: &str = "its first archived change has no old image: what it was before cannot be told";

struct Olds<'b> {
    keys: &'b BinaryArray,
    images: &'b StringArray,
    envelopes: &'b StringArray,
}

impl<'b> Olds<'b> {
    fn new(batch: &'b RecordBatch, file: &str) -> Result<Self, ReadError> {
        let missing = |name: &str| ReadError::Column { file: file.to_owned(), column: name.to_owned() };
        fn typed<'b, T: 'static>(batch: &'b RecordBatch, name: &str) -> Option<&'b T> {
            batch.column_by_name(name)?.as_any().downcast_ref::<T>()
        }
        Ok(Self {
            keys: typed(batch, column::EVENT_KEY).ok_or_else(|| missing(column::EVENT_KEY))?,
            images: typed(batch, column::OLD_IMAGE).ok_or_else(|| missing(column::OLD_IMAGE))?,
            envelopes: typed(batch, column::ENVELOPE).ok_or_else(|| missing(column::ENVELOPE))?,
        })
    }

    fn image(&self, i: usize) -> Option<Item> {
        let text = self.images.is_valid(i).then(|| self.images.value(i))?;
        parse(text, Said::read(self.envelopes.value(i)).binary())
    }
}
