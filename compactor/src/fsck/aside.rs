//! What is kept beside the archive, held against the log's counters.
//!
//! The compactor writes a record that it cannot judge, or another variant of a change, under the name of the record's position before
//! it puts the entry that counts it. So each range has at least as many objects as it counts. There can be more: the consumer keeps
//! records there that it could not count though they are archived, and a run that was overtaken may have left a variant that another
//! run took for the first one. The relay's objects stand under shards of its own, `relay-…`, which no range has.

use std::collections::BTreeSet;
use std::ops::Bound;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use recount_schemas::quarantine::{self, Quarantined};
use recount_schemas::{SequenceNumber, ShardId};

use super::FsckError;
use super::finding::{Finding, Kind};
use crate::bucket::{Listing, Objects};
use crate::history::{History, Span};
use crate::reconcile::evidence::{EvidenceError, MAX_OBJECT, MAX_QUARANTINED};

/// Positions, in their order within a shard.
pub type Places = BTreeSet<(ShardId, SequenceNumber)>;

/// The positions of the objects under `prefix`; and what else is there.
pub async fn places<O: Objects>(objects: &O, prefix: &'static str) -> Result<(Places, Vec<Finding>), EvidenceError> {
    let (mut places, mut foreign) = (Places::new(), Vec::new());
    let mut listing = Listing::new(objects, prefix);
    while let Some(page) = listing.next_page().await? {
        for listed in page {
            match quarantine::position_of(&listed.key) {
                Some(place) => drop(places.insert(place)),
                None => foreign.push(Finding::new(Kind::Foreign, listed.key, "no name of ours; nobody reads it")),
            }
        }
        if places.len() + foreign.len() > MAX_QUARANTINED {
            return Err(EvidenceError::TooMany { prefix, most: MAX_QUARANTINED });
        }
    }
    Ok((places, foreign))
}

/// The ranges that count more than there is.
pub fn short(history: &History, quarantined: &Places, conflicts: &Places) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (n, told) in (0u64..).zip(&history.entries) {
        for span in &told.spans {
            for (kind, counted, places, what) in [
                (Kind::Quarantine, span.quarantined, quarantined, "records"),
                (Kind::Conflict, span.conflicts, conflicts, "variants"),
            ] {
                let there = if counted == 0 { 0 } else { within(places, span) };
                if there < counted {
                    let prefix = match kind {
                        Kind::Quarantine => quarantine::PREFIX,
                        _ => quarantine::CONFLICTS_PREFIX,
                    };
                    let from = span.from.as_ref().map_or("its beginning", SequenceNumber::as_str);
                    let detail = format!(
                        "log entry {n} counts {counted} {what} behind {from} up to {}, of which {there} are there",
                        span.to
                    );
                    findings.push(Finding::new(kind, format!("{prefix}{}/", span.shard), detail));
                }
            }
        }
    }
    findings
}

/// How many of the places are in a range.
fn within(places: &Places, span: &Span) -> u64 {
    // The least text that is a sequence number; it always is one.
    let Ok(least) = "0".parse::<SequenceNumber>() else { return 0 };
    let from = match &span.from {
        Some(from) => Bound::Excluded((span.shard.clone(), from.clone())),
        None => Bound::Included((span.shard.clone(), least)),
    };
    places.range((from, Bound::Included((span.shard.clone(), span.to.clone())))).count() as u64
}

/// Reads each object and holds it against its name.
pub async fn read_all<O: Objects>(
    objects: &O,
    places: &Places,
    name: impl Fn(&ShardId, &SequenceNumber) -> String,
) -> Result<Vec<Finding>, FsckError> {
    let mut findings = Vec::new();
    for (shard, sequence) in places {
        let name = name(shard, sequence);
        let Some(bytes) = objects.get(&name, MAX_OBJECT).await? else { continue };
        if let Err(why) = record(&bytes, shard, sequence) {
            findings.push(Finding::new(Kind::Aside, name, why));
        }
    }
    Ok(findings)
}

/// Whether the bytes are a kept record of this position.
fn record(bytes: &[u8], shard: &ShardId, sequence: &SequenceNumber) -> Result<(), String> {
    let kept: Quarantined = serde_json::from_slice(bytes).map_err(|error| format!("it is no kept record: {error}"))?;
    if (&kept.shard_id, &kept.sequence_number) != (shard, sequence) {
        return Err(format!("it holds the record of {} {}", kept.shard_id, kept.sequence_number));
    }
    if !kept.raw && STANDARD.decode(&kept.data).is_err() {
        return Err("its data is no base64".to_owned());
    }
    Ok(())
}
