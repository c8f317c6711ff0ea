//! Sets: complete second homes of totals and archive, beside the first.
//!
//! The *base* is what a deployment begins with. A set has tables of its own, named after the base's with `-<name>` behind,
//! and an archive of its own under `sets/<name>/` in the base's bucket: log, events, quarantine, conflicts and plans stand there
//! under the same names as in the base. So whatever works on the base works on a set.

use std::fmt;
use std::str::FromStr;

/// Where the sets are, in the base's bucket.
pub const PREFIX: &str = "sets/";
/// What the base is called where a set is asked for.
pub const BASE: &str = "base";
/// The longest name of a set, in bytes.
pub const MAX_NAME: usize = 32;

/// The name of a set: 1 to 32 of `a-z`, `0-9` and `-`. Not `base`.
///
/// It becomes part of table names and of object names, so nothing else is let in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetName(Box<str>);

impl SetName {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where its objects are: `sets/<name>/`.
    pub fn prefix(&self) -> String {
        format!("{PREFIX}{}/", self.0)
    }

    /// The set that an object belongs to; `None` for an object of the base.
    pub fn of_object(key: &str) -> Option<Self> {
        key.strip_prefix(PREFIX)?.split_once('/')?.0.parse().ok()
    }
}

/// The text names no set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be the name of a set: it has 1 to {MAX_NAME} of a-z, 0-9 and -, and is not {BASE:?}")]
pub struct NotASetName(String);

impl FromStr for SetName {
    type Err = NotASetName;

    fn from_str(text: &str) -> Result<Self, NotASetName> {
        let plain = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !plain || !(1..=MAX_NAME).contains(&text.len()) || text == BASE {
            return Err(NotASetName(text.chars().take(2 * MAX_NAME).collect()));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl serde::Serialize for SetName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for SetName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The base, or a set: as people write it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Home {
    /// The base.
    #[default]
    Base,
    /// A set.
    Set(SetName),
}

impl Home {
    /// The set; `None` for the base.
    pub fn set(&self) -> Option<&SetName> {
        match self {
            Self::Base => None,
            Self::Set(name) => Some(name),
        }
    }
}

impl From<Option<SetName>> for Home {
    fn from(set: Option<SetName>) -> Self {
        set.map_or(Self::Base, Self::Set)
    }
}

impl FromStr for Home {
    type Err = NotASetName;

    fn from_str(text: &str) -> Result<Self, NotASetName> {
        if text == BASE { Ok(Self::Base) } else { text.parse().map(Self::Set) }
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.set().map_or(BASE, SetName::as_str))
    }
}

impl serde::Serialize for Home {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Home {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        let name: SetName = "tokyo-2".parse().unwrap();
        assert_eq!(name.prefix(), "sets/tokyo-2/");
        assert_eq!(SetName::of_object("sets/tokyo-2/_log/000000000000.json"), Some(name));
        let long = "a".repeat(MAX_NAME + 1);
        for text in ["", "base", "Tokyo", "a/b", "..", ".", "a_b", "é", "a b", "a\n", &long] {
            assert!(text.parse::<SetName>().is_err(), "{text:?}");
        }
        for key in ["sets/", "sets//x", "sets/../x", "sets/tokyo-2", "events/tokyo-2/x"] {
            assert_eq!(SetName::of_object(key), None, "{key}");
        }
        assert_eq!("base".parse::<Home>().unwrap(), Home::Base);
        assert_eq!("x".parse::<Home>().unwrap().to_string(), "x");
        assert_eq!(serde_json::to_string(&[Home::Base, "x".parse().unwrap()]).unwrap(), r#"["base","x"]"#);
    }
}
