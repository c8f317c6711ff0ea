//! A judged record as a row of the archive.

use recount_schemas::change::envelope;
use recount_schemas::fold::Group;
use recount_schemas::{Amount, EventKey, EventName, Judged, Month, SequenceNumber, ShardId};
use smallvec::SmallVec;

/// Where a record stood in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The shard that it was read from.
    pub shard: ShardId,
    /// Its sequence number.
    pub sequence: SequenceNumber,
    /// When it arrived in the stream, µs since 1970.
    pub arrived_us: i64,
}

/// One row of the archive: everything from which the record can be made again.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchivedRow {
    /// The identity of the change.
    pub key: EventKey,
    /// Its partition.
    pub month: Month,
    /// The group; `None` where the row's image does not give one.
    pub group: Option<Group>,
    /// The record's event ID.
    pub event_id: String,
    /// What happened.
    pub event_name: EventName,
    /// `insert`, `modify`, `remove`, `ttl`.
    pub class: &'static str,
    /// The event's time, µs since 1970.
    pub occurred_us: i64,
    /// The change's creation time, µs since 1970.
    pub created_us: i64,
    /// The source table.
    pub table: String,
    /// Where the record stood.
    pub place: Place,
    /// JSON text as it came, and likewise the next three.
    pub keys: Option<String>,
    /// The item after the change.
    pub new_image: Option<String>,
    /// The item before the change.
    pub old_image: Option<String>,
    /// Who made the change.
    pub user_identity: Option<String>,
    /// All else of the record.
    pub envelope: String,
    /// The hash of the canonical change.
    pub content: [u8; 16],
    /// One amount per measure; empty where the image could not be read.
    pub measures: SmallVec<[Amount; 2]>,
}

impl ArchivedRow {
    /// The row of a record: `raw` is the text that was judged, `content` its change's content hash.
    pub fn new(judged: &Judged<'_>, content: [u8; 16], raw: &str, place: Place) -> Self {
        let change = &judged.change;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            key: judged.key,
            month: judged.month,
            group: judged.group.clone(),
            event_id: change.event_id.to_string(),
            event_name: change.event_name,
            class: change.class(),
            occurred_us: judged.occurred_us,
            created_us: change.created_us,
            table: change.table.to_string(),
            place,
            keys: owned(change.keys),
            new_image: owned(change.new_image),
            old_image: owned(change.old_image),
            user_identity: owned(change.user_identity),
            // What was judged can be stripped; should that ever not hold, the whole record is kept instead.
            envelope: envelope::strip(raw).unwrap_or_else(|_| raw.to_owned()),
            content,
            measures: judged.measures.clone(),
        }
    }

    /// The order of rows in a file: by group, those without one first, then by event key.
    pub fn order(&self, other: &Self) -> std::cmp::Ordering {
        (self.group.as_ref(), self.key).cmp(&(other.group.as_ref(), other.key))
    }

    /// What this row adds to the hash of a file's [`Fingerprint`](crate::log::Fingerprint).
    pub fn fingerprint(&self) -> u128 {
        row_hash(&self.content, self.key)
    }
}

/// 128 bits of BLAKE3 over a row's content hash and event key.
pub fn row_hash(content: &[u8; 16], key: EventKey) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(content).update(key.as_bytes());
    let mut reader = hasher.finalize_xof();
    let mut bytes = [0; 16];
    reader.fill(&mut bytes);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
