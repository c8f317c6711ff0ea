//! Which rows lose their data.

use std::collections::BTreeMap;

use recount_schemas::{Definition, Month};
use serde_json::{Map, Value};

/// Which rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Rows {
    /// Those of one item.
    Item(ItemKey),
    /// All of the months before this one.
    Before(Month),
}

/// The key of an item of the source table.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemKey(BTreeMap<String, Wanted>);

#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    /// A value as DynamoDB types it: `{"S":"x"}`.
    Typed(Value),
    /// A string or a number of this text.
    Text(String),
}

/// What was typed is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is neither JSON nor `name=value`.
    #[error("{0:?} is no key: write name=value for each attribute of the key, or all as JSON")]
    Malformed(String),
    /// It has not just the key's attributes.
    #[error("the key of {table} is {}; these are the attributes to give, each once", wanted.join(" and "))]
    Attributes {
        /// The table.
        table: String,
        /// Its key.
        wanted: Vec<String>,
    },
}

impl ItemKey {
    /// Reads `name=value` for each attribute, or one JSON object: of plain values, or as DynamoDB types them.
    pub fn parse(typed: &[String], definition: &Definition) -> Result<Self, KeyError> {
        let mut key = BTreeMap::new();
        let mut twice = false;
        for text in typed {
            let malformed = || KeyError::Malformed(text.chars().take(200).collect());
            if text.trim_start().starts_with('{') {
                let members: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| malformed())?;
                for (name, value) in members {
                    let wanted = match value {
                        Value::String(text) => Wanted::Text(text),
                        Value::Number(number) => Wanted::Text(number.to_string()),
                        Value::Object(_) => Wanted::Typed(value),
                        _ => return Err(malformed()),
                    };
                    twice |= key.insert(name, wanted).is_some();
                }
            } else {
                let (name, value) = text.split_once('=').ok_or_else(malformed)?;
                twice |= key.insert(name.to_owned(), Wanted::Text(value.to_owned())).is_some();
            }
        }
        let fits =
            !twice && key.len() == definition.key.len() && definition.key.iter().all(|name| key.contains_key(name));
        match fits {
            true => Ok(Self(key)),
            false => Err(KeyError::Attributes { table: definition.table.clone(), wanted: definition.key.clone() }),
        }
    }

    /// The key as DynamoDB types it. A value that was typed as text may be a string or a number: all forms, strings first.
    pub fn forms(&self) -> Vec<Map<String, Value>> {
        let mut forms = vec![Map::new()];
        for (name, wanted) in &self.0 {
            let values = match wanted {
                Wanted::Typed(value) => vec![value.clone()],
                Wanted::Text(text) => {
                    let is_number = text.parse::<f64>().is_ok_and(f64::is_finite);
                    let kinds = if is_number { &["S", "N"][..] } else { &["S"] };
                    kinds.iter().map(|kind| serde_json::json!({ *kind: text })).collect()
                }
            };
            let with = |form: &Map<String, Value>, value: &Value| {
                let mut form = form.clone();
                form.insert(name.clone(), value.clone());
                form
            };
            forms = values
                .iter()
                .flat_map(|value| forms.iter().map(|form| with(form, value)).collect::<Vec<_>>())
                .collect();
        }
        forms
    }

    /// Whether a JSON text of attributes, a key or an image, has this key.
    pub fn is_in(&self, attributes: &str) -> bool {
        serde_json::from_str(attributes).is_ok_and(|attributes| self.is_in_value(&attributes))
    }

    /// Whether an object of attributes has this key.
    pub fn is_in_value(&self, attributes: &Value) -> bool {
        self.0.iter().all(|(name, wanted)| match (attributes.get(name), wanted) {
            (Some(found), Wanted::Typed(wanted)) => found == wanted,
            (Some(found), Wanted::Text(wanted)) => {
                let scalar = found.get("S").or_else(|| found.get("N")).and_then(Value::as_str);
                scalar == Some(wanted.as_str())
            }
            (None, _) => false,
        })
    }

    /// Whether bytes that are no record hold the values of this key somewhere.
    pub fn may_be_in(&self, bytes: &[u8]) -> bool {
        let text = String::from_utf8_lossy(bytes);
        let holds = |value: &str| !value.is_empty() && text.contains(value);
        self.0.values().all(|wanted| match wanted {
            Wanted::Text(value) => holds(value),
            Wanted::Typed(value) => value.as_object().into_iter().flatten().any(|(_, v)| v.as_str().is_some_and(holds)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(key: &str) -> Definition {
        let text = format!("[source]\ntable='t'\nkey=[{key}]\n[fold]\ngroup_by='g'");
        Definition::parse(&text, "recount.toml").unwrap()
    }

    #[test]
    fn a_key_is_typed_as_text_or_as_json() {
        let one = definition("'id'");
        let parse = |texts: &[&str], definition: &Definition| {
            ItemKey::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), definition)
        };
        for typed in ["id=x=1", r#"{"id":"x=1"}"#, r#"{"id":{"S":"x=1"}}"#] {
            let key = parse(&[typed], &one).unwrap();
            assert!(key.is_in(r#"{"id":{"S":"x=1"}}"#) && key.is_in(r#"{"a":{"N":"1"},"id":{"S":"x=1"}}"#), "{typed}");
            assert!(!key.is_in(r#"{"id":{"S":"x=11"}}"#) && !key.is_in("{}") && !key.is_in("no json"), "{typed}");
            assert!(key.may_be_in(b"\xff x=1 ") && !key.may_be_in(b"x=2"), "{typed}");
        }
        assert!(parse(&["id=7"], &one).unwrap().is_in(r#"{"id":{"N":"7"}}"#));
        assert!(!parse(&[r#"{"id":{"N":"7"}}"#], &one).unwrap().is_in(r#"{"id":{"S":"7"}}"#));
        let two = definition("'p','s'");
        let key = parse(&["p=a", "s=b"], &two).unwrap();
        assert!(key.is_in(r#"{"p":{"S":"a"},"s":{"S":"b"}}"#) && !key.is_in(r#"{"p":{"S":"a"},"s":{"S":"c"}}"#));
        let forms = |key: &ItemKey| serde_json::to_string(&key.forms()).unwrap();
        assert_eq!(forms(&key), r#"[{"p":{"S":"a"},"s":{"S":"b"}}]"#);
        let numbers = parse(&["p=7", r#"{"s":{"B":"AA=="}}"#], &two).unwrap();
        assert_eq!(forms(&numbers), r#"[{"p":{"S":"7"},"s":{"B":"AA=="}},{"p":{"N":"7"},"s":{"B":"AA=="}}]"#);
        for wrong in [&["p=a"][..], &["p=a", "x=b"], &["p=a", "s=b", "t=c"], &["p=a", "s=b", "s=c"], &[]] {
            assert!(matches!(parse(wrong, &two), Err(KeyError::Attributes { .. })), "{wrong:?}");
        }
        for wrong in ["id", "{", r#"{"id":[1]}"#, ""] {
            assert!(matches!(parse(&[wrong], &one), Err(KeyError::Malformed(_))), "{wrong}");
        }
    }
}
