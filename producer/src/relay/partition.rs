//! The partition key of a change: the same for all changes of one item, so that they stay in order on one shard.
//!
//! BLAKE3 over the table's name and the item's key in canonical JSON (members sorted, escapes resolved, no white space), each
//! behind its length; the first 128 bits as 32 hexadecimal digits. Kinesis hashes it once more to place it. The derivation
//! must never change while a stream lives: an item would move to another shard and its changes could overtake each other.

use serde_json::Value;

/// The number of bytes of a partition key.
pub const LEN: usize = 32;

/// The partition key of the item with this key (the JSON text of `Keys`) in `table`.
pub fn key(table: &str, keys: &str) -> String {
    // `serde_json::Map` is sorted by name. What does not read as JSON stands for itself.
    let canonical = serde_json::from_str::<Value>(keys).map_or_else(|_| keys.to_owned(), |value| value.to_string());
    let mut hasher = blake3::Hasher::new();
    for part in [table, &canonical] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().as_str().chars().take(LEN).collect()
}

/// The table's name in `arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL`; the whole text where it is no such ARN.
pub fn table_of(arn: &str) -> &str {
    let name = arn.split_once(":table/").and_then(|(_, rest)| rest.split('/').next());
    name.unwrap_or(arn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derivation_is_fixed() {
        assert_eq!(key("scans", r#"{"scan_id":{"S":"a"}}"#), "0b1904482a89bc93f809d968ba651036");
    }

    #[test]
    fn one_item_has_one_key_however_it_is_written() {
        let base = key("scans", r#"{"pk":{"S":"aé"},"sk":{"N":"1"}}"#);
        assert_eq!(base.len(), LEN);
        assert_eq!(base, key("scans", r#"{ "sk" : {"N":"1"}, "pk":{"S":"\u0061\u00e9"} }"#));
        assert_ne!(base, key("other", r#"{"pk":{"S":"aé"},"sk":{"N":"1"}}"#));
        assert_ne!(base, key("scans", r#"{"pk":{"S":"aé"},"sk":{"N":"2"}}"#));
        assert_ne!(key("ab", "c"), key("a", "bc"));
    }

    #[test]
    fn the_table_stands_in_the_streams_arn() {
        assert_eq!(table_of("arn:aws:dynamodb:us-west-2:1:table/scans/stream/2026-05-11T21:21:33.291"), "scans");
        assert_eq!(table_of("odd"), "odd");
    }
}
