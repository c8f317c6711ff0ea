//! What reconcile reads from the bucket beside the rows: positions in quarantine, and conflicting variants.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use recount_schemas::position::{SequenceNumber, ShardId};
use recount_schemas::quarantine::{self, Quarantined};
use recount_schemas::{Cell, Definition};

use super::diff::Archived;
use super::finding::Origin;
use super::join::VariantKey;
use crate::bucket::{BucketError, Listing, Objects};
use crate::contributions::Scope;

/// Most quarantined records whose positions are held.
pub const MAX_QUARANTINED: usize = 2_000_000;
/// Most conflicting variants that are read.
pub const MAX_VARIANTS: usize = 100_000;
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
