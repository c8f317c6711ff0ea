//! The shape of a quarantined record in S3, and of a conflicting one.
//!
//! Both the consumer and the compactor write a record that they cannot count under the one name that its position gives
//! it, with `If-None-Match: *`: who comes second finds it done. Objects are never deleted; a redrive that has put a record through
//! marks it as done by an object of the same position under [`REDRIVEN_PREFIX`]: the record then counts as quarantined no more.

use serde::{Deserialize, Serialize};

use crate::position::{SequenceNumber, ShardId};
use crate::verdict::QuarantineReason;

/// The format that this code writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Where quarantined records are.
pub const PREFIX: &str = "quarantine/";
/// Where the other variants of a change are that came with one event key and different contents.
pub const CONFLICTS_PREFIX: &str = "conflicts/";

/// Where the marks of quarantined records are that a redrive has put through.
pub const REDRIVEN_PREFIX: &str = "redriven/";

/// The name of the mark of a quarantined record that was put through.
pub fn redriven_key(shard: &ShardId, sequence: &SequenceNumber) -> String {
    format!("{REDRIVEN_PREFIX}{shard}/{sequence}")
}

/// The name of a quarantined record's object.
pub fn object_key(shard: &ShardId, sequence: &SequenceNumber) -> String {
    format!("{PREFIX}{shard}/{sequence}")
}

/// The name of a conflicting record's object.
pub fn conflict_key(shard: &ShardId, sequence: &SequenceNumber) -> String {
    format!("{CONFLICTS_PREFIX}{shard}/{sequence}")
}

/// The position that an object's name gives; `None` for a name that is not of this shape.
pub fn position_of(key: &str) -> Option<(ShardId, SequenceNumber)> {
    let rest = [PREFIX, CONFLICTS_PREFIX, REDRIVEN_PREFIX].iter().find_map(|prefix| key.strip_prefix(prefix))?;
    let (shard, sequence) = rest.split_once('/')?;
    Some((shard.parse().ok()?, sequence.parse().ok()?))
}

/// A record that could not be counted, with its raw bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// [`FORMAT`].
    pub format: u32,
    /// The stream's name.
    pub stream: String,
    /// The shard that it was read from.
    pub shard_id: ShardId,
    /// Its sequence number.
    pub sequence_number: SequenceNumber,
    /// Its partition key.
    pub partition_key: String,
    /// When it arrived in the stream, µs since 1970.
    pub arrived_us: i64,
    /// Why it could not be counted.
    pub reason: QuarantineReason,
    /// The record's bytes in base64. Where the envelope itself was not base64, its text as it came: see `raw`.
    pub data: String,
    /// Whether `data` is the text that should have been base64.
    #[serde(default)]
    pub raw: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_the_position_back() {
        let shard: ShardId = "shardId-000000000001".parse().unwrap();
        let sequence: SequenceNumber = "4965".parse().unwrap();
        assert_eq!(object_key(&shard, &sequence), "quarantine/shardId-000000000001/4965");
        assert_eq!(position_of(&object_key(&shard, &sequence)), Some((shard.clone(), sequence.clone())));
        assert_eq!(position_of(&conflict_key(&shard, &sequence)), Some((shard.clone(), sequence.clone())));
        assert_eq!(position_of(&redriven_key(&shard, &sequence)), Some((shard, sequence)));
        assert_eq!(position_of("quarantine/../etc/passwd"), None);
        assert_eq!(position_of("events/x/1"), None);
    }
}
