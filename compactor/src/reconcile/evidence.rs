//! What reconcile reads from the bucket beside the rows: positions in quarantine, and conflicting variants.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use recount_schemas::position::{SequenceNumber, ShardId};
use recount_schemas::quarantine::{self, Quarantined};
use recount_schemas::{Cell, Definition};
use serde::{Deserialize, Serialize};

use super::diff::Archived;
use super::finding::Origin;
use super::join::VariantKey;
use crate::bucket::{BucketError, Listing, Objects};
use crate::contributions::Scope;

/// Most quarantined records whose positions are held.
pub const MAX_QUARANTINED: usize = 2_000_000;
/// Most conflicting variants that are read.
pub const MAX_VARIANTS: usize = 100_000;
/// Most quarantined records that a listing shows.
pub const MAX_LISTED: usize = 10_000;
/// The largest such object: a record of 10 MiB in base64, and what stands around it.
pub const MAX_OBJECT: u64 = 16 << 20;

/// The evidence could not be read.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// There is more of it than can be held.
    #[error("there are more than {most} objects under {prefix}; find out why before reconciling")]
    TooMany {
        /// Where.
        prefix: &'static str,
        /// The limit.
        most: usize,
    },
    /// An object is none of ours, or newer.
    #[error("{key} is not a record of format {} or older: {why}", quarantine::FORMAT)]
    Malformed {
        /// The object.
        key: String,
        /// What is wrong.
        why: String,
    },
}

/// The positions of all records that are in quarantine and were not put through since, by the names of their objects.
pub async fn quarantined<O: Objects>(objects: &O) -> Result<BTreeSet<(ShardId, SequenceNumber)>, EvidenceError> {
    let mut positions = BTreeSet::new();
    let mut listing = Listing::new(objects, quarantine::PREFIX);
    while let Some(page) = listing.next_page().await? {
        positions.extend(page.iter().filter_map(|listed| quarantine::position_of(&listed.key)));
        if positions.len() > MAX_QUARANTINED {
            return Err(EvidenceError::TooMany { prefix: quarantine::PREFIX, most: MAX_QUARANTINED });
        }
    }
    // Marks are listed behind the objects that they are about: one that is put meanwhile takes nothing away that was not there.
    let mut marks = Listing::new(objects, quarantine::REDRIVEN_PREFIX);
    while let Some(page) = marks.next_page().await? {
        for position in page.iter().filter_map(|listed| quarantine::position_of(&listed.key)) {
            positions.remove(&position);
        }
    }
    Ok(positions)
}

/// Records in quarantine, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Listed {
    /// The first [`MAX_LISTED`], by shard and sequence number as text.
    pub records: Vec<ListedRecord>,
    /// How many more there are.
    #[serde(default)]
    pub more: u64,
}

/// A record in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedRecord {
    /// The object that holds it.
    pub object: String,
    /// The shard that it was read from.
    pub shard_id: ShardId,
    /// Its sequence number.
    pub sequence_number: SequenceNumber,
    /// When it arrived in the stream, µs since 1970; absent where the object is not understood.
    pub arrived_us: Option<i64>,
    /// Why it cannot be counted.
    pub reason: String,
}

/// The records in quarantine, and why. An object that is not understood is listed as such.
pub async fn listed<O: Objects>(objects: &O) -> Result<Listed, EvidenceError> {
    let mut listed = Listed::default();
    let mut listing = Listing::new(objects, quarantine::PREFIX);
    while let Some(page) = listing.next_page().await? {
        for object in page {
            let Some((shard_id, sequence_number)) = quarantine::position_of(&object.key) else { continue };
            if listed.records.len() >= MAX_LISTED {
                listed.more += 1;
                continue;
            }
            let Some(bytes) = objects.get(&object.key, MAX_OBJECT).await? else { continue };
            let (arrived_us, reason) = match serde_json::from_slice::<Quarantined>(&bytes) {
                Ok(kept) if kept.format <= quarantine::FORMAT => (Some(kept.arrived_us), kept.reason.to_string()),
                Ok(kept) => (None, format!("it was kept by a newer program, in format {}", kept.format)),
                Err(error) => (None, format!("the object is none of ours: {error}")),
            };
            let object = object.key;
            listed.records.push(ListedRecord { object, shard_id, sequence_number, arrived_us, reason });
        }
    }
    Ok(listed)
}

/// The variants of changes that came with one event key and different contents, and what each adds to cells in `scope`.
pub async fn variants<O: Objects>(
    objects: &O,
    definition: &Definition,
    scope: &Scope,
) -> Result<BTreeMap<VariantKey, Vec<(u16, Archived)>>, EvidenceError> {
    let mut variants: BTreeMap<VariantKey, Vec<(u16, Archived)>> = BTreeMap::new();
    let mut seen = 0;
    let mut listing = Listing::new(objects, quarantine::CONFLICTS_PREFIX);
    while let Some(page) = listing.next_page().await? {
        for listed in page {
            // An object that somebody else put there is no evidence of ours.
            if quarantine::position_of(&listed.key).is_none() {
                tracing::warn!(key = ?listed.key, "no record of ours; it is left alone");
                continue;
            }
            seen += 1;
            if seen > MAX_VARIANTS {
                return Err(EvidenceError::TooMany { prefix: quarantine::CONFLICTS_PREFIX, most: MAX_VARIANTS });
            }
            let Some(bytes) = objects.get(&listed.key, MAX_OBJECT).await? else { continue };
            for (key, lane, archived) in adds(&listed.key, &bytes, definition, scope)? {
                variants.entry(key).or_default().push((lane, archived));
            }
        }
    }
    Ok(variants)
}

/// What the variant in one object adds.
fn adds(
    object: &str,
    bytes: &[u8],
    definition: &Definition,
    scope: &Scope,
) -> Result<Vec<(VariantKey, u16, Archived)>, EvidenceError> {
    let malformed = |why: String| EvidenceError::Malformed { key: object.to_owned(), why };
    let kept: Quarantined = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
    if kept.format > quarantine::FORMAT {
        return Err(malformed(format!("it is of format {}", kept.format)));
    }
    if kept.data.is_empty() {
        return Ok(Vec::new()); // erased since: of a conflict nothing else is empty
    }
    let record = match kept.raw {
        true => kept.data.into_bytes(),
        false => STANDARD.decode(&kept.data).map_err(|e| malformed(e.to_string()))?,
    };
    let judged = definition.judge(&record, kept.arrived_us).map_err(|reason| malformed(reason.to_string()))?;
    let origin = Origin {
        event_id: judged.change.event_id.to_string(),
        shard_id: kept.shard_id,
        sequence_number: kept.sequence_number,
        file: object.to_owned(),
    };
    let adds = judged.effect.contributions().iter().filter(|(cell, _)| scope.has(cell));
    Ok(adds
        .map(|(Cell { group, month, lane }, delta)| {
            let archived = Archived { delta: delta.clone(), origin: origin.clone(), variant: true };
            ((*month, group.clone(), judged.key), *lane, archived)
        })
        .collect())
}
