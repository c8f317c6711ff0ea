//! A judged record as a row of the archive.

use recount_schemas::change::envelope;
use recount_schemas::change::omit::{Kept, omit};
use recount_schemas::definition::Count;
use recount_schemas::fold::Group;
use recount_schemas::{Amount, Cell, Definition, Delta, EventKey, EventName, Judged, Month, SequenceNumber, ShardId};
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
    /// JSON text as it came, and likewise the next three; the images without what the definition omits.
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
    /// What it adds to which cells, where its own columns do not say so: under `count = "net"`.
    pub contributions: SmallVec<[(Cell, Delta); 2]>,
}

impl ArchivedRow {
    /// The row of a record judged by `definition`: `raw` is the text that was judged, `content` its change's content hash. Of
    /// attributes that the definition omits, only this hash knows.
    pub fn new(definition: &Definition, judged: &Judged<'_>, content: [u8; 16], raw: &str, place: Place) -> Self {
        let change = &judged.change;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        // What was judged can be stripped; should that ever not hold, the whole record is kept instead.
        let envelope = envelope::strip(raw).unwrap_or_else(|_| raw.to_owned());
        let Kept { new_image, old_image, envelope } = match omit(change, &envelope, &definition.archive.omit) {
            Some(kept) => kept,
            None => Kept { new_image: owned(change.new_image), old_image: owned(change.old_image), envelope },
        };
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
            new_image,
            old_image,
            user_identity: owned(change.user_identity),
            envelope,
            content,
            measures: judged.measures.clone(),
            contributions: match definition.count {
                Count::Inserts => SmallVec::new(),
                Count::Net { .. } => SmallVec::from(judged.effect.contributions()),
            },
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

    /// All of this row that a total depends on.
    pub fn counted<'r>(&'r self, measures: &'r [Option<i128>]) -> Counted<'r> {
        Counted {
            key: self.key,
            event_name: self.event_name.as_str(),
            class: self.class,
            table: &self.table,
            group: self.group.as_ref().map(Group::as_str),
            occurred_us: self.occurred_us,
            created_us: self.created_us,
            measures,
            contributions: &self.contributions,
        }
    }
}

/// The content hash of a row whose data was erased. Whatever comes with its key is a duplicate of it.
pub const ERASED: [u8; 16] = [0; 16];

/// 128 bits of BLAKE3 over a row's content hash and event key.
pub fn row_hash(content: &[u8; 16], key: EventKey) -> u128 {
    first_128(blake3::Hasher::new().update(content).update(key.as_bytes()))
}

/// All of a row that a total depends on, its month excepted: a file has one month, and its name and entry say which.
///
/// Under `count = "inserts"` the columns decide; under `"net"` the images do, so there the row's contributions go in as well.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'r> {
    /// The event key.
    pub key: EventKey,
    /// INSERT, MODIFY or REMOVE.
    pub event_name: &'r str,
    /// insert, modify, remove or ttl.
    pub class: &'r str,
    /// The source table.
    pub table: &'r str,
    /// The group.
    pub group: Option<&'r str>,
    /// The event's time, µs since 1970.
    pub occurred_us: i64,
    /// The change's creation time, µs since 1970.
    pub created_us: i64,
    /// The columns of the measures, in billionths.
    pub measures: &'r [Option<i128>],
    /// What it adds to which cells, under `count = "net"`; else empty.
    pub contributions: &'r [(Cell, Delta)],
}

impl Counted<'_> {
    /// 128 bits of BLAKE3 over all of it. Each text goes in with its length before it, so that no two rows read the same.
    pub fn hash(&self) -> u128 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.key.as_bytes());
        for part in [self.event_name, self.class, self.table] {
            text(&mut hasher, part);
        }
        hasher.update(&[u8::from(self.group.is_some())]);
        text(&mut hasher, self.group.unwrap_or_default());
        hasher.update(&self.occurred_us.to_be_bytes()).update(&self.created_us.to_be_bytes());
        for measure in self.measures {
            hasher.update(&[u8::from(measure.is_some())]).update(&measure.unwrap_or_default().to_be_bytes());
        }
        for (cell, delta) in self.contributions {
            text(&mut hasher, cell.group.as_str());
            text(&mut hasher, &cell.month.to_string());
            hasher.update(&cell.lane.to_be_bytes()).update(&delta.events.to_be_bytes());
            for sum in &delta.sums {
                hasher.update(&sum.billionths().to_be_bytes());
            }
        }
        first_128(&hasher)
    }
}

fn text(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
}

fn first_128(hasher: &blake3::Hasher) -> u128 {
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
