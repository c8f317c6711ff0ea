//! An item in one form, whatever way it came: by a Scan, out of an export, or as an image in the archive.
//!
//! | what differs between them | canonical |
//! | --- | --- |
//! | order of attributes, of the members of maps | sorted |
//! | order of the elements of sets | sorted |
//! | spelling of numbers: `1.50`, `15E-1` | digits without zeros at either end, and an exponent |
//! | binary: base64 twice in records of Kinesis Data Streams for DynamoDB, else once (DynamoDB Developer Guide, "kds") | once |

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// An item as DynamoDB JSON: names to `{"TYPE": value}`, binary in base64 once.
pub type Item = Map<String, Value>;

/// How often a text of JSON has its binary values in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// DynamoDB's own JSON: requests, exports, DynamoDB Streams.
    Once,
    /// Records of Kinesis Data Streams for DynamoDB.
    Twice,
}

/// The first 128 bits of BLAKE3 over a canonical item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemHash(pub [u8; 16]);

/// 128 bits of BLAKE3.
pub fn hash(bytes: &[u8]) -> ItemHash {
    let mut short = [0; 16];
    blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut short);
    ItemHash(short)
}

/// An item of the SDK. `None` for a type that this program does not know: it is newer.
pub fn from_sdk(item: &HashMap<String, AttributeValue>) -> Option<Item> {
    item.iter().map(|(name, value)| Some((name.clone(), value_of(value)?))).collect()
}

fn value_of(value: &AttributeValue) -> Option<Value> {
    let typed = |kind: &str, value: Value| Some(Value::Object(Map::from_iter([(kind.to_owned(), value)])));
    let base64 = |blob: &Blob| Value::String(STANDARD.encode(blob.as_ref()));
    let texts = |texts: &[String]| Value::from(texts.to_vec());
    match value {
        AttributeValue::S(text) => typed("S", text.as_str().into()),
        AttributeValue::N(number) => typed("N", number.as_str().into()),
        AttributeValue::B(blob) => typed("B", base64(blob)),
        AttributeValue::Bool(bool) => typed("BOOL", (*bool).into()),
        AttributeValue::Null(null) => typed("NULL", (*null).into()),
        AttributeValue::Ss(set) => typed("SS", texts(set)),
        AttributeValue::Ns(set) => typed("NS", texts(set)),
        AttributeValue::Bs(set) => typed("BS", set.iter().map(base64).collect::<Vec<_>>().into()),
        AttributeValue::L(list) => typed("L", Value::Array(list.iter().map(value_of).collect::<Option<_>>()?)),
        AttributeValue::M(map) => typed("M", Value::Object(from_sdk(map)?)),
        _ => None,
    }
}

/// A key for the SDK: its attributes are strings, numbers or binary. `None` for anything else.
pub fn key_for_sdk(key: &Item) -> Option<HashMap<String, AttributeValue>> {
    let value = |typed: &Value| {
        let (kind, value) = typed.as_object().filter(|typed| typed.len() == 1)?.iter().next()?;
        let text = value.as_str()?;
        match kind.as_str() {
            "S" => Some(AttributeValue::S(text.to_owned())),
            "N" => Some(AttributeValue::N(text.to_owned())),
            "B" => Some(AttributeValue::B(Blob::new(STANDARD.decode(text).ok()?))),
            _ => None,
        }
    };
    key.iter().map(|(name, typed)| Some((name.clone(), value(typed)?))).collect()
}

/// Reads a text of JSON as an item, with its binary in base64 once. `None` where it is none, or nested more than 128 deep.
pub fn parse(text: &str, binary: Binary) -> Option<Item> {
    let Value::Object(mut item) = serde_json::from_str(text).ok()? else { return None };
    if binary == Binary::Twice {
        item.values_mut().for_each(decode_once);
    }
    Some(item)
}

/// The item's text as a record of Kinesis Data Streams for DynamoDB would have it: binary in base64 twice.
pub fn encoded_twice(item: &Item) -> Item {
    let mut item = item.clone();
    let encode = |text: &str| Some(STANDARD.encode(text));
    item.values_mut().for_each(|value| each_binary(value, &encode));
    item
}

/// Takes one layer of base64 off every binary value. What is no base64 of a text stays.
fn decode_once(value: &mut Value) {
    let decode = |text: &str| String::from_utf8(STANDARD.decode(text).ok()?).ok();
    each_binary(value, &decode);
}

fn each_binary(typed: &mut Value, change: &dyn Fn(&str) -> Option<String>) {
    let Value::Object(typed) = typed else { return };
    for (kind, value) in typed.iter_mut() {
        match (kind.as_str(), value) {
            ("B", Value::String(text)) => {
                if let Some(changed) = change(text) {
                    *text = changed;
                }
            }
            ("BS", Value::Array(set)) => {
                for element in set.iter_mut() {
                    if let Some(changed) = element.as_str().and_then(change) {
                        *element = Value::String(changed);
                    }
                }
            }
            ("L", Value::Array(list)) => list.iter_mut().for_each(|value| each_binary(value, change)),
            ("M", Value::Object(map)) => map.values_mut().for_each(|value| each_binary(value, change)),
            _ => {}
        }
    }
}

/// The item's canonical form; see the table above.
pub fn canonical(item: &Item) -> Item {
    let mut item = item.clone();
    item.values_mut().for_each(canonicalise);
    item
}

/// The hash of the item's canonical form.
pub fn item_hash(item: &Item) -> ItemHash {
    hash(Value::Object(canonical(item)).to_string().as_bytes())
}

fn canonicalise(typed: &mut Value) {
    let Value::Object(typed) = typed else { return };
    for (kind, value) in typed.iter_mut() {
        match (kind.as_str(), value) {
            ("N", Value::String(text)) => *text = number(text),
            ("NS", Value::Array(set)) => {
                for element in set.iter_mut() {
                    if let Some(text) = element.as_str().map(number) {
                        *element = Value::String(text);
                    }
                }
                sort(set);
            }
            ("SS" | "BS", Value::Array(set)) => sort(set),
            ("L", Value::Array(list)) => list.iter_mut().for_each(canonicalise),
            ("M", Value::Object(map)) => map.values_mut().for_each(canonicalise),
            _ => {}
        }
    }
}

fn sort(set: &mut [Value]) {
    set.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
}

/// A number by its digits and exponent: `-12.50` is `-125e-1`, zero is `0`. What is no decimal number stays as it is.
fn number(text: &str) -> String {
    canonical_number(text).unwrap_or_else(|| text.to_owned())
}

fn canonical_number(text: &str) -> Option<String> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let kept = digits.trim_end_matches('0');
    let exponent = exponent
        .checked_sub(i64::try_from(fraction.len()).ok()?)?
        .checked_add(i64::try_from(digits.len() - kept.len()).ok()?)?;
    let kept = kept.trim_start_matches('0');
    if kept.is_empty() {
        return Some("0".to_owned());
    }
    Some(format!("{}{kept}e{exponent}", if negative { "-" } else { "" }))
}

/// The canonical text of an item's key: what tells items apart. `None` where an attribute of the key is missing.
pub fn key_text(names: &[String], item: &Item) -> Option<String> {
    let key = names.iter().map(|name| Some((name.clone(), item.get(name)?.clone())));
    let key: Item = key.collect::<Option<_>>()?;
    Some(Value::Object(canonical(&key)).to_string())
}

/// The item's key as it stands in the item.
pub fn key_of(names: &[String], item: &Item) -> Option<Item> {
    names.iter().map(|name| Some((name.clone(), item.get(name)?.clone()))).collect()
}

#[cfg(test)]
#[path = "item_tests.rs"]
mod tests;
