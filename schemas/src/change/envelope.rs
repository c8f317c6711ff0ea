//! What a record has besides its key, its images and its event ID, kept word for word for the archive, and the way back.

use std::borrow::Cow;
use std::fmt::Write;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members that have columns of their own: `eventID` at the top, these inside `dynamodb`.
const OWN_COLUMN: [&str; 3] = ["Keys", "NewImage", "OldImage"];

/// The record without what the archive keeps in columns of its own. Unknown members stay.
pub fn strip(record: &str) -> Result<String, serde_json::Error> {
    let mut out = String::with_capacity(320);
    write_object(&mut out, members(record)?.into_iter().filter(|(name, _)| name != "eventID"), |out, name, raw| {
        if name == "dynamodb" {
            let body = members(raw)?.into_iter().filter(|(name, _)| !OWN_COLUMN.contains(&name.as_ref()));
            write_object(out, body, verbatim)
        } else {
            verbatim(out, name, raw)
        }
    })?;
    Ok(out)
}

/// The record again, from a stripped envelope and the columns: images byte for byte, the rest equal as JSON.
pub fn restore(
    envelope: &str,
    event_id: &str,
    keys: Option<&str>,
    new_image: Option<&str>,
    old_image: Option<&str>,
) -> Result<String, serde_json::Error> {
    let mut out = String::with_capacity(envelope.len() + 1024);
    let event_id = serde_json::to_string(event_id)?;
    let mut top = members(envelope)?;
    top.insert(0, (Cow::Borrowed("eventID"), event_id.as_str()));
    write_object(&mut out, top.into_iter(), |out, name, raw| {
        if name == "dynamodb" {
            let mut body = members(raw)?;
            for (name, image) in OWN_COLUMN.into_iter().zip([keys, new_image, old_image]) {
                if let Some(image) = image {
                    body.push((Cow::Borrowed(name), image));
                }
            }
            write_object(out, body.into_iter(), verbatim)
        } else {
            verbatim(out, name, raw)
        }
    })?;
    Ok(out)
}

/// A member's value as it came.
fn verbatim(out: &mut String, _name: &str, raw: &str) -> Result<(), serde_json::Error> {
    out.push_str(raw);
    Ok(())
}

fn write_object<'a>(
    out: &mut String,
    members: impl Iterator<Item = (Cow<'a, str>, &'a str)>,
    mut value: impl FnMut(&mut String, &str, &'a str) -> Result<(), serde_json::Error>,
) -> Result<(), serde_json::Error> {
    out.push('{');
    for (i, (name, raw)) in members.enumerate() {
        if i > 0 {
            out.push(',');
        }
        let name_json = serde_json::to_string(name.as_ref())?;
        let _ = write!(out, "{name_json}:"); // writing to a String cannot fail
        value(out, name.as_ref(), raw)?;
    }
    out.push('}');
    Ok(())
}

/// The members of a JSON object, values as their text.
fn members(object: &str) -> Result<Vec<(Cow<'_, str>, &str)>, serde_json::Error> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(Cow<'de, str>, &'de str)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::with_capacity(12);
            while let Some(name) = map.next_key::<super::decode::Text<'de>>()? {
                members.push((name.0, map.next_value::<&'de RawValue>()?.get()));
            }
            Ok(members)
        }
    }
    let mut json = serde_json::Deserializer::from_str(object);
    json.deserialize_map(Members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Change;
    use serde_json::Value;

    const RECORD: &str = r#"{"awsRegion":"us-east-2","eventID":"a\"b","eventName":"MODIFY","userIdentity":null,"recordFormat":"application/json",
        "tableName":"scans","novel":{"deep":[1,2.50,"é"]},"dynamodb":{"ApproximateCreationDateTime":1721011165891550,
        "Keys":{"pk":{"S":"a"}},"NewImage":{"pk":{"S":"a"}, "x":{"N":"1"}},"OldImage":{"pk":{"S":"a"}},"SizeBytes":7,
        "ApproximateCreationDateTimePrecision":"MICROSECOND","Later":true},"eventSource":"aws:dynamodb"}"#;

    #[test]
    fn a_record_is_rebuilt_from_its_row() {
        let change = Change::decode(RECORD.as_bytes()).unwrap();
        let envelope = strip(RECORD).unwrap();
        assert!(envelope.contains(r#""novel":{"deep":[1,2.50,"é"]}"#) && envelope.contains(r#""Later":true"#));
        assert!(!envelope.contains("Image") && !envelope.contains("eventID"));
        let back = restore(&envelope, &change.event_id, change.keys, change.new_image, change.old_image).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&back).unwrap(), serde_json::from_str::<Value>(RECORD).unwrap());
        let again = Change::decode(back.as_bytes()).unwrap();
        assert_eq!(again, change, "images byte for byte");
    }
}
