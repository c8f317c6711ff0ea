//! The few attributes of an image that a definition names; the rest of the image is skipped, not built.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

/// An attribute value as far as the fold can use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// `{"S": text}`.
    Text(Cow<'a, str>),
    /// `{"N": text}`: DynamoDB writes numbers as strings.
    Number(Cow<'a, str>),
    /// `{"NULL": true}`.
    Null,
    /// A value of another type.
    Other,
}

/// The values of the attributes asked for, in the order asked; `None` where the item has no such attribute.
pub type Picked<'a> = SmallVec<[Option<Scalar<'a>>; 6]>;

/// Reads the attributes `names` of an image (a JSON object of attribute values). An error says why the image is none.
pub fn pick<'a>(image: &'a str, names: &[&str]) -> Result<Picked<'a>, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(image);
    let raw = Pick { names }.deserialize(&mut json)?;
    json.end()?;
    raw.into_iter().map(|value| value.map(|value| scalar(value.get())).transpose()).collect()
}

struct Pick<'n> {
    names: &'n [&'n str],
}

type Raw<'a> = SmallVec<[Option<&'a RawValue>; 6]>;

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Raw<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Raw<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map of attribute values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found: Raw<'de> = SmallVec::from_elem(None, self.names.len());
        while let Some(name) = map.next_key::<super::decode::Text<'de>>()? {
            // One attribute can serve twice (group and measure), so every place that asks for it gets it.
            let mut value: Option<&'de RawValue> = None;
            for (slot, wanted) in found.iter_mut().zip(self.names) {
                if *wanted == name.0 {
                    let raw = match value {
                        Some(raw) => raw,
                        None => *value.insert(map.next_value()?),
                    };
                    if slot.replace(raw).is_some() {
                        return Err(serde::de::Error::custom("an attribute stands in the image twice"));
                    }
                }
            }
            if value.is_none() {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Reads `{"TYPE": value}`.
fn scalar(value: &str) -> Result<Scalar<'_>, serde_json::Error> {
    struct One;
    impl<'de> Visitor<'de> for One {
        type Value = Scalar<'de>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an attribute value: an object with one member, its type")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            use super::decode::Text;
            let kind: Text<'de> =
                map.next_key()?.ok_or_else(|| serde::de::Error::custom("an attribute value is empty"))?;
            let scalar = match kind.0.as_ref() {
                "S" => Scalar::Text(map.next_value::<Text<'de>>()?.0),
                "N" => Scalar::Number(map.next_value::<Text<'de>>()?.0),
                "NULL" => {
                    map.next_value::<IgnoredAny>()?;
                    Scalar::Null
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    Scalar::Other
                }
            };
            if map.next_key::<IgnoredAny>()?.is_some() {
                return Err(serde::de::Error::custom("an attribute value has two types"));
            }
            Ok(scalar)
        }
    }
    let mut json = serde_json::Deserializer::from_str(value);
    json.deserialize_map(One)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_what_is_asked_for_in_that_order() {
        let image = r#"{"bytes":{"N":"12"},"other":{"M":{"project_id":{"S":"inner"}}},"project_id":{"S":"a\"b"},"gone":{"NULL":true}}"#;
        let picked = pick(image, &["project_id", "bytes", "absent", "gone", "other", "bytes"]).unwrap();
        assert_eq!(
            picked.as_slice(),
            &[
                Some(Scalar::Text("a\"b".into())),
                Some(Scalar::Number("12".into())),
                None,
                Some(Scalar::Null),
                Some(Scalar::Other),
                Some(Scalar::Number("12".into())),
            ]
        );
    }

    #[test]
    fn escaped_names_are_the_same_names() {
        assert_eq!(pick(r#"{"\u0061":{"S":"x"}}"#, &["a"]).unwrap()[0], Some(Scalar::Text("x".into())));
    }

    #[test]
    fn what_is_no_image_is_refused() {
        for image in [
            "[]",
            "{\"a\":1}",
            r#"{"a":{}}"#,
            r#"{"a":{"S":1}}"#,
            r#"{"a":{"N":1}}"#,
            r#"{"a":{"S":"x","N":"1"}}"#,
            r#"{"a":{"S":"x"},"a":{"S":"y"}}"#,
            r#"{"a":{"S":"x"}} x"#,
        ] {
            assert!(pick(image, &["a"]).is_err(), "{image}");
        }
    }
}
