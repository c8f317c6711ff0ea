//! A change by its content: what tells a duplicate from a conflict.
//!
//! Two records of one change can differ in the order of members and in white space, and a set has no order. The canonical
//! form sorts the members of objects and the elements of sets; numbers are strings on the wire and stay as written.

use serde_json::Value;

use super::Change;

/// The first 128 bits of BLAKE3 over the canonical change: table, keys, event name, full creation time, both images.
/// Not the event ID: so equal content under two event IDs shows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ContentHash(pub [u8; 16]);

impl Change<'_> {
    /// The hash of this change's content.
    pub fn content_hash(&self) -> ContentHash {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        part(self.table.as_bytes());
        part(self.event_name.as_str().as_bytes());
        part(&self.created_us.to_be_bytes());
        for text in [self.keys, self.new_image, self.old_image] {
            match text {
                Some(text) => part(&canonical(text)),
                None => part(b"-"),
            }
        }
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(hasher.finalize().as_bytes()) {
            *to = *from;
        }
        ContentHash(bytes)
    }
}

/// The canonical text of an item's JSON. What cannot be built as a tree (nested more than 128 deep, a bare number beyond
/// floats: DynamoDB writes neither) stands for itself, so that every change has a hash.
fn canonical(text: &str) -> Vec<u8> {
    let tree = |text: &str| {
        let mut value: Value = serde_json::from_str(text)?;
        sort_sets(&mut value);
        // `serde_json::Map` is a B-tree here, so members come out sorted.
        serde_json::to_vec(&value)
    };
    tree(text).unwrap_or_else(|_| text.as_bytes().to_vec())
}

/// Sorts the elements of `SS`, `NS` and `BS`. An attribute may bear such a name too; its value is then an object, not an
/// array, and is left alone.
fn sort_sets(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, inner) in members.iter_mut() {
                match inner {
                    Value::Array(elements) if matches!(name.as_str(), "SS" | "NS" | "BS") => {
                        elements.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
                    }
                    _ => sort_sets(inner),
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(sort_sets),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EventName, Form, Precision};
    use super::*;

    fn change(image: &str) -> Change<'_> {
        Change {
            form: Form::Kinesis,
            event_id: "x".into(),
            event_name: EventName::Insert,
            table: "scans".into(),
            created_us: 1,
            precision: Precision::Microsecond,
            keys: None,
            new_image: Some(image),
            old_image: None,
            user_identity: None,
            ttl: false,
        }
    }

    #[test]
    fn order_of_members_and_of_sets_is_no_content() {
        let a = change(r#"{"a":{"SS":["x","y"]},"b":{"L":[{"N":"1"},{"N":"2"}]}}"#).content_hash();
        let b = change(r#"{ "b":{"L":[{"N":"1"},{"N":"2"}]}, "a":{"SS":["y","x"]} }"#).content_hash();
        assert_eq!(a, b);
        let deep = |set: &str| change(&format!(r#"{{"a":{{"L":[{{"M":{{"s":{{"NS":[{set}]}}}}}}]}}}}"#)).content_hash();
        assert_eq!(deep(r#""1","2""#), deep(r#""2","1""#), "sets within lists");
    }

    #[test]
    fn everything_else_is() {
        let base = change(r#"{"b":{"L":[{"N":"1"},{"N":"2"}]}}"#);
        let hash = base.content_hash();
        assert_ne!(hash, change(r#"{"b":{"L":[{"N":"2"},{"N":"1"}]}}"#).content_hash());
        assert_ne!(hash, Change { created_us: 2, ..base.clone() }.content_hash());
        assert_ne!(hash, Change { old_image: base.new_image, new_image: None, ..base.clone() }.content_hash());
        assert_eq!(hash, Change { event_id: "another".into(), ..base.clone() }.content_hash());
    }
}
