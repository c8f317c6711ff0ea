//! A scan: the item that the first case's application inserts for each file that it scanned.
//!
//! | attribute | type | what |
//! | --- | --- | --- |
//! | `scan_id` | S | the table's key |
//! | `project_id` | S | who pays for the scan |
//! | `file_name` | S | the file |
//! | `bytes` | N | its size |
//! | `sha256` | S | its digest, 64 hexadecimal digits |
//! | `verdict` | S | what the scan found |
//! | `scanned_at` | S | when, RFC 3339 in UTC, to the microsecond |

use std::collections::HashMap;
use std::fmt::Write;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The attribute that is the table's key.
pub const KEY: &str = "scan_id";

/// One scan of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scan {
    /// The key.
    pub scan_id: String,
    /// Who pays.
    pub project_id: String,
    /// The file.
    pub file_name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, 64 hexadecimal digits.
    pub sha256: String,
    /// What was found.
    pub verdict: String,
    /// When it was scanned, µs since 1970.
    pub scanned_us: i64,
}

enum Attribute<'a> {
    Text(&'a str),
    Number(u64),
}

impl Scan {
    fn attributes(&self) -> [(&'static str, Attribute<'_>); 6] {
        [
            (KEY, Attribute::Text(&self.scan_id)),
            ("project_id", Attribute::Text(&self.project_id)),
            ("file_name", Attribute::Text(&self.file_name)),
            ("bytes", Attribute::Number(self.bytes)),
            ("sha256", Attribute::Text(&self.sha256)),
            ("verdict", Attribute::Text(&self.verdict)),
        ]
    }

    /// `scanned_at`, as RFC 3339. Times that a calendar does not reach are written as its ends.
    pub fn scanned_at(&self) -> String {
        let nearest = if self.scanned_us < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        jiff::Timestamp::from_microsecond(self.scanned_us).unwrap_or(nearest).to_string()
    }

    /// As an item for the SDK.
    pub fn item(&self) -> HashMap<String, AttributeValue> {
        let value = |attribute| match attribute {
            Attribute::Text(text) => AttributeValue::S(String::from(text)),
            Attribute::Number(number) => AttributeValue::N(number.to_string()),
        };
        let mut item: HashMap<_, _> =
            self.attributes().into_iter().map(|(name, attribute)| (name.to_owned(), value(attribute))).collect();
        item.insert("scanned_at".to_owned(), AttributeValue::S(self.scanned_at()));
        item
    }

    /// As an image in a change record.
    pub fn image(&self) -> Value {
        let value = |attribute| match attribute {
            Attribute::Text(text) => json!({"S": text}),
            Attribute::Number(number) => json!({"N": number.to_string()}),
        };
        let mut image: Map<_, _> =
            self.attributes().into_iter().map(|(name, attribute)| (name.to_owned(), value(attribute))).collect();
        image.insert("scanned_at".to_owned(), json!({"S": self.scanned_at()}));
        Value::Object(image)
    }

    /// What DynamoDB counts as the item's size, in bytes: names and texts in UTF-8; a number one byte for each two significant
    /// digits and one more (DynamoDB Developer Guide, "CapacityUnitCalculations").
    pub fn size(&self) -> usize {
        let size = |(name, attribute): (&str, Attribute<'_>)| {
            name.len()
                + match attribute {
                    Attribute::Text(text) => text.len(),
                    Attribute::Number(number) => number_size(number),
                }
        };
        self.attributes().into_iter().map(size).sum::<usize>() + "scanned_at".len() + self.scanned_at().len()
    }

    /// What the key alone counts.
    pub fn key_size(&self) -> usize {
        KEY.len() + self.scan_id.len()
    }
}

fn number_size(number: u64) -> usize {
    let digits = number.to_string().trim_end_matches('0').len();
    digits.div_ceil(2) + 1
}

/// The key of the thing called `name` in a run: the first 128 bits of BLAKE3 over both, each behind its length. The same put
/// repeated writes the same item, and no other run writes it.
pub fn scan_id(run: &str, name: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [run.as_bytes(), name] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex().as_str().chars().take(32).collect()
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn example() -> Scan {
        Scan {
            scan_id: "s1".into(),
            project_id: "acme".into(),
            file_name: "a \"b\" 🦀.bin".into(),
            bytes: 1_200,
            sha256: "00".repeat(32),
            verdict: "clean".into(),
            scanned_us: 1_764_547_199_000_001,
        }
    }

    #[test]
    fn the_shape_of_an_item() {
        insta::assert_snapshot!(example().image(), @r#"{"bytes":{"N":"1200"},"file_name":{"S":"a \"b\" 🦀.bin"},"project_id":{"S":"acme"},"scan_id":{"S":"s1"},"scanned_at":{"S":"2025-11-30T23:59:59.000001Z"},"sha256":{"S":"0000000000000000000000000000000000000000000000000000000000000000"},"verdict":{"S":"clean"}}"#);
        let item = example().item();
        assert_eq!(item.len(), 7);
        for (name, value) in example().image().as_object().unwrap() {
            let same = match &item[name] {
                AttributeValue::S(text) => json!({"S": text}),
                AttributeValue::N(number) => json!({"N": number}),
                other => panic!("{other:?}"),
            };
            assert_eq!(&same, value);
        }
    }

    #[test]
    fn sizes_as_dynamodb_counts_them() {
        assert_eq!([0, 5, 12, 123, 1_200].map(number_size), [1, 2, 2, 3, 2]);
        assert_eq!(example().key_size(), 9);
        assert_eq!(example().size(), 9 + 14 + (9 + 14) + 7 + 70 + 12 + (10 + 27));
    }

    #[test]
    fn an_id_is_of_its_run_and_its_name() {
        assert_eq!(scan_id("r", b"a").len(), 32);
        assert_eq!(scan_id("r", b"a"), scan_id("r", b"a"));
        assert_ne!(scan_id("r", b"ab"), scan_id("ra", b"b"));
    }

    #[test]
    fn times_beyond_the_calendar_are_its_ends() {
        let at = |scanned_us| Scan { scanned_us, ..example() }.scanned_at();
        assert!(at(i64::MIN).starts_with("-009999"));
        assert!(at(i64::MAX).starts_with("9999"));
    }
}
