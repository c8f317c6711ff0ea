//! The order of a replay, and why each item's changes are in theirs.
//!
//! Rows are sorted by sequence number, as a number. Of two changes of one item the earlier has the smaller number:
//!
//! - All changes of an item have one partition key, so at any moment they go to one shard. Within a shard numbers grow.
//! - A split or a merge hands the key's range on to a child. A shard is opened after its parents were closed, and its numbers
//!   begin above their last ones. So the numbers grow along the whole lineage of shards that ever took the item.
//! - A stream that was deleted and made anew repeats shard ids; its numbers are greater, since numbers begin with the time.
//! - Of a record that was in the stream more than once the archive keeps the first.
//!
//! Between items of different shards the order is that of time, roughly: nobody may rely on it. Where the stream was set to spread
//! records whatever their keys (`RecordDistributionStrategy`), it never had an order per item, and neither has the replay.
//!
//! Two kinds of rows were never in the stream, see [`ShardId::is_beside_the_stream`]:
//!
//! - *Backfilled* rows are items that were there before capture began: they come first. One that says so stands for an item that
//!   came back unseen: it comes just behind the removal that it names.
//! - *Strays* were too large for the stream; the relay quarantined them and they were redriven. They have the number that
//!   DynamoDB Streams gave them, and so have all other records of their table's relay, inside the record. A stray comes just before the
//!   first record of its item that has a greater such number; where there is none, at the end.

use recount_schemas::position::{BACKFILL_PREFIX, RELAY_PREFIX};
use recount_schemas::{Change, EventKey, SequenceNumber, ShardId};
use serde::Deserialize;

/// Bytes that sort as a replay goes.
pub type SortKey = Vec<u8>;

/// Backfilled rows.
const FIRST: u8 = 0;
/// Rows of the stream, and the strays among them.
const STREAM: u8 = 1;
/// Strays that have no successor.
const LAST: u8 = 2;
/// A stray, before the record of the same number.
const BEFORE: u8 = 0;
/// The record itself.
const ITSELF: u8 = 1;
/// A backfilled row, behind the removal of that number.
const BEHIND: u8 = 2;

/// What a row is to the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was in the stream.
    Streamed,
    /// It was there before capture began.
    Backfilled,
    /// It was too large for the stream.
    Stray,
}

/// What a row of that shard is.
pub fn standing(shard: &ShardId) -> Standing {
    if shard.as_str().starts_with(RELAY_PREFIX) {
        Standing::Stray
    } else if shard.as_str().starts_with(BACKFILL_PREFIX) {
        Standing::Backfilled
    } else {
        Standing::Streamed
    }
}

/// The place of a row that is no stray. `behind`: of a backfilled row, the removal that it stands behind.
pub fn sort_key(shard: &ShardId, sequence: &SequenceNumber, behind: Option<&SequenceNumber>, key: EventKey) -> SortKey {
    let (class, number, side) = match (standing(shard), behind) {
        (Standing::Backfilled, Some(removal)) => (STREAM, removal, BEHIND),
        (Standing::Backfilled, None) => (FIRST, sequence, ITSELF),
        _ => (STREAM, sequence, ITSELF),
    };
    let mut bytes = vec![class];
    push_number(&mut bytes, number);
    bytes.push(side);
    bytes.extend(shard.as_str().bytes());
    bytes.push(0);
    bytes.extend(key.as_bytes());
    bytes
}

/// The place of a stray before the record at `successor`, which is a [`sort_key`]; or behind everything.
pub fn stray_key(successor: Option<&[u8]>, own: &SequenceNumber, key: EventKey) -> SortKey {
    // Class, length, digits: as [`sort_key`] wrote them.
    let number = successor.and_then(|bytes| bytes.get(..2 + usize::from(*bytes.get(1)?)));
    let mut bytes = number.map_or_else(|| vec![LAST], <[u8]>::to_vec);
    bytes.push(BEFORE);
    push_number(&mut bytes, own);
    bytes.extend(key.as_bytes());
    bytes
}

/// A number's length and its digits: they sort as the numbers do, since no number has a leading zero.
fn push_number(bytes: &mut Vec<u8>, number: &SequenceNumber) {
    let digits = number.as_str().as_bytes();
    bytes.push(u8::try_from(digits.len()).unwrap_or(u8::MAX)); // a sequence number has at most 129 digits
    bytes.extend(digits);
}

/// The number that DynamoDB Streams gave to a record of its form.
pub fn streams_sequence(record: &str) -> Option<SequenceNumber> {
    #[derive(Deserialize)]
    struct Record {
        dynamodb: Body,
    }
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "SequenceNumber")]
        sequence: String,
    }
    let record: Record = serde_json::from_str(record).ok()?;
    let digits = record.dynamodb.sequence.trim_start_matches('0'); // local engines write leading zeros
    if digits.is_empty() { "0".parse().ok() } else { digits.parse().ok() }
}

/// The partition key of a change: that of the relay, the same for all changes of an item.
pub fn partition_key(change: &Change<'_>, record: &str) -> String {
    recount_producer::relay::partition::key(&change.table, change.keys.unwrap_or(record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(shard: &str, sequence: &str, id: &str) -> SortKey {
        let event = EventKey::new(1, id.as_bytes()).unwrap();
        sort_key(&shard.parse().unwrap(), &sequence.parse().unwrap(), None, event)
    }

    proptest! {
        #[test]
        fn rows_sort_as_their_numbers_do_whatever_their_shards(a in 0u128.., b in 0u128.., s in 0u8..3, t in 0u8..3) {
            let order = key(&format!("s{s}"), &a.to_string(), "x").cmp(&key(&format!("s{t}"), &b.to_string(), "y"));
            if a != b {
                prop_assert_eq!(order, a.cmp(&b));
            } else if s != t {
                prop_assert_eq!(order, s.cmp(&t));
            }
        }

        #[test]
        fn a_stray_stands_just_before_its_successor(a in 1u64.., b in 1u64.., own in 0u64.., shard in 0u8..3) {
            let (a, b) = (a.min(b), a.max(b));
            let (first, second) = (key("s1", &a.to_string(), "x"), key(&format!("s{shard}"), &b.to_string(), "y"));
            let event = EventKey::new(1, b"z").unwrap();
            let own: SequenceNumber = own.to_string().parse().unwrap();
            let stray = stray_key(Some(&second), &own, event);
            prop_assert!(stray < second);
            prop_assert!(a == b || first < stray);
            let later: SequenceNumber = "99999999999999999999999".parse().unwrap();
            prop_assert!(stray < stray_key(Some(&second), &later, event), "strays of one place keep their own order");
            prop_assert!(second < stray_key(None, &own, event) && key("backfill-00", &b.to_string(), "q") < stray);
        }
    }

    #[test]
    fn what_was_never_in_the_stream_is_told_by_its_shard() {
        for (shard, expected) in [
            ("shardId-000000000001", Standing::Streamed),
            ("relay-00-11", Standing::Stray),
            ("backfill-0123456789abcdef", Standing::Backfilled),
        ] {
            assert_eq!(standing(&shard.parse().unwrap()), expected);
        }
        assert!(key("backfill-ff", "99999999999999999999", "x") < key("s1", "1", "x"));
    }

    #[test]
    fn the_number_of_dynamodb_streams_stands_in_the_record() {
        let number = |text: &str| streams_sequence(text).map(|n| n.to_string());
        assert_eq!(number(r#"{"dynamodb":{"SequenceNumber":"000000000000000000012"}}"#).as_deref(), Some("12"));
        assert_eq!(number(r#"{"dynamodb":{"SequenceNumber":"0"}}"#).as_deref(), Some("0"));
        for none in [r#"{"dynamodb":{}}"#, "[]", r#"{"dynamodb":{"SequenceNumber":"x"}}"#] {
            assert_eq!(number(none), None);
        }
    }
}
