//! What a record has besides its key, its images and its event ID, kept word for word for the archive, and the way back.

use std::borrow::Cow;
use std::fmt::Write;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members that have columns of their own: `eventID` at the top, these inside `dynamodb`.
const OWN_COLUMN: [&str; 3] = ["Keys", "NewImage", "OldImage"];

/// The record without what the archive keeps in columns of its own. Unknown members stay, and so does an own one that is
/// `null`: its column cannot tell that from an absent one.
pub fn strip(record: &str) -> Result<String, serde_json::Error> {
    let mut out = String::with_capacity(320);
    write_object(&mut out, members(record)?.into_iter().filter(|(name, _)| name != "eventID"), |out, name, raw| {
        if name == "dynamodb" {
            let own = |name: &str, raw: &str| OWN_COLUMN.contains(&name) && raw != "null";
            let body = members(raw)?.into_iter().filter(|(name, raw)| !own(name, raw));
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
pub(super) fn verbatim(out: &mut String, _name: &str, raw: &str) -> Result<(), serde_json::Error> {
    out.push_str(raw);
    Ok(())
}

pub(super) fn write_object<'a>(
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
pub(super) fn members(object: &str) -> Result<Vec<(Cow<'_, str>, &str)>, serde_json::Error> {
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
    use proptest::prelude::Strategy;
    use serde_json::Value;

    use super::*;
    use crate::Change;

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

    #[test]
    fn a_member_that_is_null_is_not_forgotten() {
        let record = RECORD.replace(r#""OldImage":{"pk":{"S":"a"}}"#, r#""OldImage":null"#);
        assert_eq!(rebuilt(&record), serde_json::from_str::<Value>(&record).unwrap());
    }

    /// The record, put together again from what the archive keeps of it.
    fn rebuilt(record: &str) -> Value {
        let change = Change::decode(record.as_bytes()).unwrap();
        let envelope = strip(record).unwrap();
        let back = restore(&envelope, &change.event_id, change.keys, change.new_image, change.old_image).unwrap();
        assert_eq!(Change::decode(back.as_bytes()).unwrap(), change);
        assert_eq!(strip(&back).unwrap(), envelope, "what was rebuilt is kept as the record was");
        serde_json::from_str(&back).unwrap()
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        /// Whatever members a record has, in whatever order, with whatever white space.
        #[test]
        fn any_record_is_rebuilt(
            order in proptest::prelude::Just((0..9).collect::<Vec<usize>>()).prop_shuffle(),
            inner in proptest::prelude::Just((0..6).collect::<Vec<usize>>()).prop_shuffle(),
            space in "[ \\n\\t]{0,3}",
            name in "[a-z\"\\\\é\u{1}]{1,5}",
            image in 0usize..4,
        ) {
            let images = [r#"{"pk":{"S":"a\"\u00e9"}, "n":{"N":"1.50"}}"#, "null", r#"{ }"#, r#"{"x":{"L":[{"M":{}}]}}"#];
            let body = [
                r#""ApproximateCreationDateTime":1721011165891550"#.to_owned(),
                format!(r#""NewImage":{space}{}{space}"#, images[image]),
                format!(r#""OldImage" :{}"#, images[(image + 1) % 4]),
                r#""Keys":{"pk":{"S":"a"}}"#.to_owned(),
                r#""SizeBytes":7"#.to_owned(),
                format!(r#"{}:[1, 2.50]"#, serde_json::to_string(&format!("in {name}")).unwrap()),
            ];
            let body: Vec<&str> = inner.iter().map(|i| body[*i].as_str()).collect();
            let top = [
                r#""awsRegion":"us-east-2""#.to_owned(),
                r#""eventID":"a\"b\u0041""#.to_owned(),
                r#""eventName":"MODIFY""#.to_owned(),
                format!(r#""userIdentity":{space}null"#),
                r#""recordFormat":"application/json""#.to_owned(),
                r#""tableName":"scans""#.to_owned(),
                format!(r#"{}:{{"deep":[null]}}"#, serde_json::to_string(&format!("out {name}")).unwrap()),
                format!(r#""dynamodb":{space}{{{}}}"#, body.join(&format!(",{space}"))),
                r#""eventSource":"aws:dynamodb""#.to_owned(),
            ];
            let top: Vec<&str> = order.iter().map(|i| top[*i].as_str()).collect();
            let record = format!("{space}{{{}{space}}}", top.join(&format!("{space},")));
            proptest::prop_assert_eq!(rebuilt(&record), serde_json::from_str::<Value>(&record).unwrap());
        }
    }
}
