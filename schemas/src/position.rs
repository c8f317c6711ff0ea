//! Where a record stands in a Kinesis stream: a shard and a sequence number within it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::bugs::{self, Bug};

/// The most digits that the Kinesis API allows in a sequence number (its model's pattern is `0|([1-9]\d{0,128})`).
const MAX_DIGITS: usize = 129;

/// A Kinesis sequence number: a decimal number that may be far longer than 128 bits (live ones have 56 digits, 186 bits).
///
/// Ordered as a number. The order means something only within one shard and between a shard and its children; numbers are
/// not dense, so a gap between two of them shows nothing.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SequenceNumber(Box<str>);

impl SequenceNumber {
    /// Its decimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A text that sorts, as a string, just as the numbers do: three digits of length, then the digits.
    ///
    /// DynamoDB compares strings by their UTF-8 bytes, so a condition on this text is a condition on the number.
    pub fn sortable(&self) -> String {
        format!("{:03}{}", self.0.len(), self.0)
    }
}

/// The text is not a sequence number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a sequence number: {0:?} (expected 1 to 129 decimal digits without a leading zero)")]
pub struct NotASequenceNumber(String);

impl FromStr for SequenceNumber {
    type Err = NotASequenceNumber;

    fn from_str(text: &str) -> Result<Self, NotASequenceNumber> {
        let digits = !text.is_empty() && text.len() <= MAX_DIGITS && text.bytes().all(|b| b.is_ascii_digit());
        if !digits || (text.len() > 1 && text.starts_with('0')) {
            return Err(NotASequenceNumber(text.chars().take(160).collect()));
        }
        Ok(Self(text.into()))
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        if bugs::on(Bug::SequenceNumbersAsText) {
            return self.0.cmp(&other.0);
        }
        // No leading zeros, so the longer number is the larger.
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The identifier of a shard, as `shardId-000000000006`. Safe as a part of an object's name: the API allows only
/// letters, digits, `_`, `.` and `-`, at most 128 of them; `.` and `..` alone are refused here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(Box<str>);

impl ShardId {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the shard of every record begins with that the relay quarantined: it was never in the Kinesis stream.
pub const RELAY_PREFIX: &str = "relay-";
/// What the shard of every row begins with that was backfilled: its change was never in any stream.
pub const BACKFILL_PREFIX: &str = "backfill-";

impl ShardId {
    /// Whether this is no shard of a stream, but the name of a place beside it. The consumer never comes to a record there: it
    /// is counted by whoever brought it into the archive, or not at all.
    pub fn is_beside_the_stream(&self) -> bool {
        is_beside_the_stream(&self.0)
    }
}

/// The same of a shard's text.
pub fn is_beside_the_stream(shard: &str) -> bool {
    shard.starts_with(RELAY_PREFIX) || shard.starts_with(BACKFILL_PREFIX)
}

/// The text is not a shard identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a shard id: {0:?} (expected 1 to 128 of letters, digits, '_', '.', '-')")]
pub struct NotAShardId(String);

impl FromStr for ShardId {
    type Err = NotAShardId;

    fn from_str(text: &str) -> Result<Self, NotAShardId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let length = (1..=128).contains(&text.len());
        if !length || !text.bytes().all(allowed) || text.bytes().all(|b| b == b'.') {
            return Err(NotAShardId(text.chars().take(160).collect()));
        }
        Ok(Self(text.into()))
    }
}

macro_rules! text_type {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_type!(SequenceNumber);
text_type!(ShardId);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sequence(text: &str) -> SequenceNumber {
        text.parse().unwrap()
    }

    #[test]
    fn numbers_are_compared_as_numbers_not_as_strings() {
        assert!(sequence("9") < sequence("10"));
        let parent = sequence("49654567890123456789012345678901234567890123456789012345");
        let child = sequence("49654567890123456789012345678901234567890123456789012346");
        assert!(parent < child);
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        for text in ["", "01", "-1", "1a", "TRIM_HORIZON", &"9".repeat(130)] {
            assert!(text.parse::<SequenceNumber>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_the_api_allows_is_a_number() {
        for text in ["0", "7", "10", &"9".repeat(129)] {
            assert_eq!(sequence(text).as_str(), text);
        }
    }

    #[test]
    fn shard_ids_cannot_leave_their_folder() {
        for text in ["", ".", "..", "a/b", "../x", "a b", "é"] {
            assert!(text.parse::<ShardId>().is_err(), "{text}");
        }
        let shard: ShardId = "shardId-000000000006".parse().unwrap();
        assert_eq!((shard.as_str(), shard.to_string().as_str()), ("shardId-000000000006", "shardId-000000000006"));
    }

    #[test]
    fn places_beside_the_stream_are_told_by_their_names() {
        for (text, beside) in [("shardId-000000000006", false), ("relay-0a-0b", true), ("backfill-00ff", true)] {
            assert_eq!(text.parse::<ShardId>().unwrap().is_beside_the_stream(), beside, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_sortable_text_sorts_as_the_numbers_do(a in 0u128.., b in 0u128..) {
            let (x, y) = (sequence(&a.to_string()), sequence(&b.to_string()));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.sortable().cmp(&y.sortable()), a.cmp(&b));
        }
    }
}
