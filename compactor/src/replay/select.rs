//! The rows that are asked for: counted first, so that the plan can be read before anything is sent; then put together and sorted
//! outside memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use recount_schemas::{Change, EventKey, SequenceNumber};

use super::ReplayError;
use super::checkpoint::Round;
use super::order::{self, SortKey, Standing};
use super::question::Question;
use super::send::Parcel;
use crate::bucket::Objects;
use crate::contributions::spill::{Sorted, Sorter};
use crate::items::change::Said;
use crate::log::{AddedFile, State};
use crate::progress::{self, Says};
use crate::rows::rebuild::{COLUMNS, Outline, Rebuilder};

/// Most event IDs that a plan names of one kind.
pub(super) const NAMED: usize = 20;
/// Most strays: each is held with its item's numbers.
const MAX_STRAYS: usize = 100_000;
/// Most groups that are told apart; beyond it the count stays there.
const MAX_GROUPS: usize = 4_000_000;

/// Which rows.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'q> {
    /// What is asked for.
    pub question: &'q Question,
    /// Which of it in this pass.
    pub round: &'q Round,
}

/// What a selection comes to.
#[derive(Debug, Default)]
pub struct Survey {
    /// Rows that can be sent.
    pub rows: u64,
    /// Their records with their partition keys, in bytes.
    pub bytes: u64,
    /// Their groups.
    pub groups: u64,
    /// The earliest and the latest creation time among them, µs since 1970.
    pub created_us: Option<(i64, i64)>,
    /// Rows whose record cannot be put together any more: part of it was erased or never kept.
    pub incomplete: u64,
    /// The event IDs of the first of them.
    pub incomplete_ids: Vec<String>,
    /// Rows that the target would refuse for their size.
    pub too_large: u64,
    /// The event ID of one of them.
    pub too_large_id: Option<String>,
    /// Rows whose events are older than the ledger reaches back.
    pub old: u64,
    /// The items that have strays, by partition key.
    strays: BTreeSet<String>,
}

impl Selection<'_> {
    /// The live files that may have such rows.
    pub fn files(&self, state: &State) -> Vec<AddedFile> {
        let Question { from_us, to_us, group, .. } = self.question;
        let from = from_us.map_or(EventKey::MIN, |us| EventKey::least_at(us.div_euclid(1_000)));
        // A key has the millisecond only: the last one that may still hold a wanted change is that of `to` itself.
        let to = to_us.map_or(EventKey::MAX, |us| EventKey::least_at(us.div_euclid(1_000).saturating_add(1)));
        let may_have = |file: &&AddedFile| {
            let group = group.as_ref().is_none_or(|group| match (&file.first_group, &file.last_group) {
                (Some(first), Some(last)) => first.as_str() <= group.as_str() && group.as_str() <= last.as_str(),
                _ => false,
            });
            group && file.first_key <= to && from <= file.last_key
        };
        state.live().map(|live| &live.file).filter(may_have).cloned().collect()
    }

    /// Gives each row that is asked for to `take`.
    async fn each<O: Objects>(
        &self,
        objects: &O,
        files: &[AddedFile],
        says: &Says<'_>,
        mut take: impl FnMut(&Rebuilder, usize, &Outline<'_>) -> Result<(), ReplayError> + Send,
    ) -> Result<(), ReplayError> {
        for file in progress::files(files, says) {
            let name: Arc<str> = Arc::from(file.target.as_str());
            let mut batches = std::pin::pin!(crate::rows::read(objects, file, &COLUMNS));
            while let Some(batch) = batches.next().await {
                let batch = batch.map_err(crate::contributions::ReadError::from)?;
                let rebuilder = Rebuilder::new(&batch, Arc::clone(&name))?;
                for i in 0..rebuilder.len() {
                    let outline = rebuilder.outline(i)?;
                    if !self.question.wants(outline.created_us, outline.group) {
                        continue;
                    }
                    let (shard, sequence) = rebuilder.place(i)?;
                    if self.round.has(&shard, &sequence) {
                        take(&rebuilder, i, &outline)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts the rows. `most` is what the target takes of a record with its partition key, in bytes; `horizon` the least key that
    /// the ledger reaches back to.
    pub async fn survey<O: Objects>(
        &self,
        objects: &O,
        files: &[AddedFile],
        most: usize,
        horizon: EventKey,
        says: &Says<'_>,
    ) -> Result<Survey, ReplayError> {
        let mut survey = Survey::default();
        let mut groups: HashSet<u64> = HashSet::new();
        let mut strays = BTreeSet::new();
        self.each(objects, files, says, |rebuilder, i, outline| {
            let rebuilt = rebuilder.rebuild(i)?;
            let Some(parcel) = rebuilt.record.and_then(parcel) else {
                survey.incomplete += 1;
                if survey.incomplete_ids.len() < NAMED {
                    survey.incomplete_ids.push(outline.event_id.to_owned());
                }
                return Ok(());
            };
            survey.rows += 1;
            survey.bytes = survey.bytes.saturating_add(parcel.size() as u64);
            let created = outline.created_us;
            let (first, last) = survey.created_us.unwrap_or((created, created));
            survey.created_us = Some((first.min(created), last.max(created)));
            if parcel.size() > most {
                survey.too_large += 1;
                survey.too_large_id.get_or_insert_with(|| outline.event_id.to_owned());
            }
            survey.old += u64::from(outline.key < horizon);
            if let Some(group) = outline.group.filter(|_| groups.len() < MAX_GROUPS) {
                let hash = blake3::hash(group.as_bytes());
                groups.insert(hash.as_bytes().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
            }
            if order::standing(&rebuilt.shard) == Standing::Stray {
                strays.insert(parcel.partition_key);
                if strays.len() > MAX_STRAYS {
                    return Err(ReplayError::TooMany {
                        what: "items with records that were too large for the stream",
                        most: MAX_STRAYS,
                    });
                }
            }
            Ok(())
        })
        .await?;
        survey.groups = groups.len() as u64;
        survey.strays = strays;
        Ok(survey)
    }

    /// The records, in the order of the replay. Memory: a row group of a file and the buffers of two sorts.
    pub async fn sorted<O: Objects>(
        &self,
        objects: &O,
        files: &[AddedFile],
        survey: &Survey,
        says: &Says<'_>,
    ) -> Result<Records, ReplayError> {
        let (mut sorter, mut aside) = (Sorter::new(), Sorter::new());
        let mut numbers: HashMap<String, BTreeMap<SequenceNumber, SortKey>> = HashMap::new();
        self.each(objects, files, says, |rebuilder, i, outline| {
            let rebuilt = rebuilder.rebuild(i)?;
            let number = |record: &str| order::streams_sequence(record);
            let Some(record) = rebuilt.record else { return Ok(()) };
            let own = (!survey.strays.is_empty()).then(|| number(&record)).flatten();
            let standing = order::standing(&rebuilt.shard);
            let behind = (standing == Standing::Backfilled).then(|| Said::read(&record).behind).flatten();
            let Some(parcel) = parcel(record) else { return Ok(()) };
            if standing == Standing::Stray {
                // Without a number of its own it takes the one that it is quarantined under, which is the same.
                let own = own.unwrap_or(rebuilt.sequence);
                sorter_push(&mut aside, stray_entry(&own, outline.key), &parcel)?;
                return Ok(());
            }
            let key = order::sort_key(&rebuilt.shard, &rebuilt.sequence, behind.as_ref(), outline.key);
            if let Some(own) = own.filter(|_| survey.strays.contains(&parcel.partition_key)) {
                numbers.entry(parcel.partition_key.clone()).or_default().insert(own, key.clone());
            }
            sorter_push(&mut sorter, key, &parcel)
        })
        .await?;
        for entry in aside.finish()? {
            let (stray, value) = entry?;
            let (own, key) = read_stray(&stray).ok_or_else(damaged)?;
            let parcel = unpack(&value).ok_or_else(damaged)?;
            let successor = numbers.get(&parcel.partition_key).and_then(|of_item| of_item.range(&own..).next());
            sorter_push(&mut sorter, order::stray_key(successor.map(|(_, key)| key.as_slice()), &own, key), &parcel)?;
        }
        Ok(Records(sorter.finish()?))
    }
}

/// A record and its partition key.
fn parcel(record: String) -> Option<Parcel> {
    let change = Change::decode(record.as_bytes()).ok()?;
    let partition_key = order::partition_key(&change, &record);
    Some(Parcel { partition_key, data: record.into_bytes() })
}

/// Records in the order of a replay.
#[derive(Debug)]
pub struct Records(Sorted);

impl Iterator for Records {
    type Item = Result<(SortKey, Parcel), ReplayError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.0.next()?;
        let read = || {
            let (key, value) = entry?;
            Ok((key, unpack(&value).ok_or_else(damaged)?))
        };
        Some(read())
    }
}

fn damaged() -> std::io::Error {
    std::io::Error::other("an entry of the temporary file is damaged")
}

/// A stray on its way to its place: its number as a text that sorts, and its key.
fn stray_entry(own: &SequenceNumber, key: EventKey) -> Vec<u8> {
    let mut bytes = key.as_bytes().to_vec();
    bytes.extend(own.as_str().bytes());
    bytes
}

fn read_stray(bytes: &[u8]) -> Option<(SequenceNumber, EventKey)> {
    let (key, own) = bytes.split_at_checked(EventKey::LEN)?;
    Some((std::str::from_utf8(own).ok()?.parse().ok()?, EventKey::from_slice(key)?))
}

fn sorter_push(sorter: &mut Sorter, key: SortKey, parcel: &Parcel) -> Result<(), ReplayError> {
    let mut value = Vec::with_capacity(2 + parcel.size());
    let length = u16::try_from(parcel.partition_key.len()).map_err(std::io::Error::other)?;
    value.extend(length.to_be_bytes());
    value.extend(parcel.partition_key.bytes());
    value.extend(&parcel.data);
    Ok(sorter.push(key, value)?)
}

fn unpack(value: &[u8]) -> Option<Parcel> {
    let (length, rest) = value.split_at_checked(2)?;
    let (key, data) = rest.split_at_checked(usize::from(u16::from_be_bytes(length.try_into().ok()?)))?;
    Some(Parcel { partition_key: String::from_utf8(key.to_vec()).ok()?, data: data.to_vec() })
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
