//! Rows, duplicates, conflicts, and what cannot be judged.
//!
//! | the record's key | its content | it is |
//! | --- | --- | --- |
//! | none: it cannot be judged | – | quarantined |
//! | neither in a live file nor before it in this commit | – | a row |
//! | there already | the same | a duplicate |
//! | there already, erased since | any | a duplicate: what it was cannot be compared any more, and must not come back |
//! | there already | another | a conflict |
//!
//! Files of all months are asked: with another content a change may stand in another month.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use recount_schemas::bugs::{self, Bug};
use recount_schemas::quarantine::{self, Quarantined};
use recount_schemas::{Definition, EventKey, Month, QuarantineCode, QuarantineReason, SequenceNumber, ShardId};

use super::ArchiveError;
use super::life::Life;
use super::read::Reading;
use super::source::Record;
use crate::bucket::Objects;
use crate::log::{ShardRange, State};
use crate::rows::row::{ERASED, Place};
use crate::rows::{ArchivedRow, lookup};

/// Files that are looked into at a time, and objects that are written at a time.
const AT_ONCE: usize = 8;

/// What a commit consists of.
#[derive(Debug, Default)]
pub struct Sorted {
    /// The ranges, with what became of their records.
    pub ranges: Vec<ShardRange>,
    /// The rows of each month.
    pub rows: BTreeMap<Month, Vec<ArchivedRow>>,
    /// What is kept beside the archive, by object name.
    pub aside: Vec<(String, Quarantined)>,
}

/// Judges all records and tells rows from duplicates and conflicts.
pub async fn sort<O: Objects>(
    objects: &O,
    definition: &Definition,
    stream_name: &str,
    state: &State,
    readings: Vec<Reading>,
) -> Result<Sorted, ArchiveError> {
    let mut seen = archived(objects, definition, state, &readings).await?;
    let mut sorted = Sorted::default();
    for reading in readings {
        let mut range = range_of(&reading);
        for record in reading.records {
            range.records += 1;
            let aside = |reason| aside(stream_name, &reading.shard, &record, reason);
            let judged = match definition.judge(&record.data, record.arrived_us) {
                Ok(judged) => judged,
                Err(reason) => {
                    range.quarantined += 1;
                    let name = quarantine::object_key(&reading.shard, &record.sequence);
                    if !bugs::on(Bug::UndecodableIsSkipped) {
                        sorted.aside.push((name, aside(reason)));
                    }
                    continue;
                }
            };
            let content = judged.change.content_hash().0;
            match seen.get(&judged.key) {
                Some(found) if *found == content && bugs::on(Bug::TallySkipsDuplicates) => range.records -= 1,
                Some(found) if *found == content || *found == ERASED || bugs::on(Bug::ConflictIsADuplicate) => {
                    range.duplicates += 1
                }
                Some(_) => {
                    range.conflicts += 1;
                    let name = quarantine::conflict_key(&reading.shard, &record.sequence);
                    sorted.aside.push((name, aside(conflict(judged.key))));
                }
                None => {
                    range.rows += 1;
                    seen.insert(judged.key, content);
                    let place = Place {
                        shard: reading.shard.clone(),
                        sequence: record.sequence.clone(),
                        arrived_us: record.arrived_us,
                    };
                    // What was judged is UTF-8.
                    let text = std::str::from_utf8(&record.data).unwrap_or_default();
                    let row = ArchivedRow::new(definition, &judged, content, text, place);
                    sorted.rows.entry(judged.month).or_default().push(row);
                }
            }
        }
        sorted.ranges.push(range);
    }
    Ok(sorted)
}

/// The content hashes of those events of the readings that are archived already.
async fn archived<O: Objects>(
    objects: &O,
    definition: &Definition,
    state: &State,
    readings: &[Reading],
) -> Result<HashMap<EventKey, [u8; 16]>, ArchiveError> {
    let records = readings.iter().flat_map(|reading| &reading.records);
    let keys: BTreeSet<EventKey> =
        records.filter_map(|record| Some(definition.judge(&record.data, record.arrived_us).ok()?.key)).collect();
    let covering = |first, last| keys.range(first..=last).next().is_some() && !bugs::on(Bug::DedupesOnlyWithinACommit);
    let files = state.live().filter(|live| covering(live.file.first_key, live.file.last_key));
    let month = |key: &EventKey| Month::of(key.created_ms().saturating_mul(1_000), definition.zone.rules());
    let files = files.filter(|live| {
        let mut covered = keys.range(live.file.first_key..=live.file.last_key);
        !bugs::on(Bug::DedupesOnlyOneMonth) || covered.any(|key| month(key) == Some(live.file.month))
    });
    let found: Vec<Vec<lookup::Found>> = futures::stream::iter(files)
        .map(|live| lookup(objects, &live.file, &keys))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().map(|found| (found.key, found.content)).collect())
}

/// Writes what is kept beside the archive, each under its record's position. It is done before the commit: an entry never
/// counts what is not there. What is there already is this record, from an earlier try or from the consumer.
pub async fn write_aside<O: Objects>(
    objects: &O,
    aside: Vec<(String, Quarantined)>,
    life: &Life,
) -> Result<(), ArchiveError> {
    futures::stream::iter(aside)
        .map(|(name, quarantined)| async move {
            let bytes = Bytes::from(serde_json::to_vec(&quarantined)?);
            life.check()?;
            objects.put_if_absent(&name, bytes).await?;
            Ok(())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

fn range_of(reading: &Reading) -> ShardRange {
    ShardRange {
        shard: reading.shard.clone(),
        parents: reading.parents.clone(),
        from: reading.from.clone(),
        to: reading.to(),
        closed: reading.closed,
        caught_up_ms: reading.caught_up_ms,
        records: 0,
        rows: 0,
        duplicates: 0,
        conflicts: 0,
        quarantined: 0,
        lost: reading.lost.clone(),
    }
}

fn conflict(key: EventKey) -> QuarantineReason {
    QuarantineReason::new(QuarantineCode::Conflict, format_args!("event key {key} is archived with another content"))
}

fn aside(stream: &str, shard: &ShardId, record: &Record, reason: QuarantineReason) -> Quarantined {
    let sequence_number: SequenceNumber = record.sequence.clone();
    Quarantined {
        format: quarantine::FORMAT,
        stream: stream.to_owned(),
        shard_id: shard.clone(),
        sequence_number,
        partition_key: record.partition_key.clone(),
        arrived_us: record.arrived_us,
        reason,
        data: STANDARD.encode(&record.data),
        raw: false,
    }
}
