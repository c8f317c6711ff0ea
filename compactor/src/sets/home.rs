//! What a set keeps of itself, below its prefix of the bucket.
//!
//! | object | what | written |
//! | --- | --- | --- |
//! | `recount.toml` | the text of its definition | once, before anything else of the set |
//! | `loaded.json` | that its totals hold all that its archive was seeded with | once, when they do |
//!
//! With the definition's text in the bucket nobody needs the file: `recount --set NAME …` takes this one, and another is refused.

use bytes::Bytes;
use recount_schemas::definition::DefinitionError;
use recount_schemas::definition::file::MAX_FILE;
use recount_schemas::{Definition, SetName};
use serde::{Deserialize, Serialize};

use crate::bucket::{BucketError, Objects, Put};
use crate::log::Digest;

/// The object of the definition's text.
pub const DEFINITION: &str = "recount.toml";
/// The object that says that the totals are loaded.
pub const LOADED: &str = "loaded.json";
/// The format of that object that this code writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// The largest such object, in bytes.
const MAX_LOADED: u64 = 64 << 10;

/// What a set keeps of itself could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// There is no such set.
    #[error("there is no set {0}; `recount sets` lists them, `recount rebuild --into {0}` makes it")]
    NoSuchSet(SetName),
    /// Its definition is damaged.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// Another definition was given than the one that made the set.
    #[error(
        "set {set} was made by definition {found}, not by this one ({ours}); leave --definition out to work with the set, or \
         choose another name for a new one"
    )]
    OtherDefinition {
        /// The set.
        set: SetName,
        /// The hash of its definition.
        found: String,
        /// The hash of the one that was given.
        ours: String,
    },
    /// An object is not what it should be.
    #[error("{object} of set {set} is malformed: {why}")]
    Malformed {
        /// The set.
        set: SetName,
        /// The object.
        object: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// That a set's totals hold all that its archive was seeded with. From then on the live stream may feed them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loaded {
    /// [`FORMAT`].
    pub format: u32,
    /// The SHA-256 of entry 0 of the set's log: the seed that was loaded.
    pub seed: Digest,
    /// When that was done, ms since 1970.
    pub at_ms: i64,
}

/// The definition of the set `name`, whose part of the bucket is `objects`; `None` where there is no such set.
pub async fn definition<O: Objects>(objects: &O, name: &SetName) -> Result<Option<Definition>, HomeError> {
    let Some(bytes) = objects.get(DEFINITION, MAX_FILE as u64).await? else { return Ok(None) };
    let file = format!("{}{DEFINITION}", name.prefix());
    let malformed =
        |_| HomeError::Malformed { set: name.clone(), object: DEFINITION, why: "it is no UTF-8".to_owned() };
    let text = std::str::from_utf8(&bytes).map_err(malformed)?;
    Ok(Some(Definition::parse(text, &file)?))
}

/// Keeps the text of a set's definition, unless one that counts the same is there. The definition of the set, then.
pub async fn keep_definition<O: Objects>(objects: &O, name: &SetName, text: &str) -> Result<Definition, HomeError> {
    let ours = Definition::parse(text, DEFINITION)?;
    if objects.put_if_absent(DEFINITION, Bytes::from(text.to_owned())).await? == Put::Created {
        return Ok(ours);
    }
    let found = definition(objects, name).await?.ok_or_else(|| HomeError::NoSuchSet(name.clone()))?;
    same(name, &found, &ours)?;
    Ok(found)
}

/// Whether two definitions count the same.
pub fn same(set: &SetName, found: &Definition, ours: &Definition) -> Result<(), HomeError> {
    if found.hash() == ours.hash() {
        return Ok(());
    }
    let (found, ours) = (found.hash().to_owned(), ours.hash().to_owned());
    Err(HomeError::OtherDefinition { set: set.clone(), found, ours })
}

/// Whether, and from which seed, a set's totals were loaded.
pub async fn loaded<O: Objects>(objects: &O, name: &SetName) -> Result<Option<Loaded>, HomeError> {
    let Some(bytes) = objects.get(LOADED, MAX_LOADED).await? else { return Ok(None) };
    let malformed = |why: String| HomeError::Malformed { set: name.clone(), object: LOADED, why };
    let loaded: Loaded = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    if loaded.format > FORMAT {
        return Err(malformed(format!("it is of format {}, use a newer program", loaded.format)));
    }
    Ok(Some(loaded))
}

/// Says that a set's totals are loaded.
pub async fn keep_loaded<O: Objects>(objects: &O, name: &SetName, loaded: &Loaded) -> Result<(), HomeError> {
    let malformed =
        |error: serde_json::Error| HomeError::Malformed { set: name.clone(), object: LOADED, why: error.to_string() };
    let bytes = serde_json::to_vec(loaded).map_err(malformed)?;
    Ok(objects.put(LOADED, Bytes::from(bytes)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::memory::Memory;

    const TEXT: &str = "[source]\ntable='t'\nkey=['k']\n[fold]\ngroup_by='g'\n";

    #[tokio::test]
    async fn a_set_keeps_its_own_definition_and_refuses_another() {
        let (objects, name) = (Memory::new(), "x".parse().unwrap());
        assert!(definition(&objects, &name).await.unwrap().is_none());
        let kept = keep_definition(&objects, &name, TEXT).await.unwrap();
        // Quotas and comments count nothing; the text that was kept first stays.
        let commented = format!("# a comment\n{TEXT}[quota]\ndefault=1\n");
        assert_eq!(keep_definition(&objects, &name, &commented).await.unwrap().quota.default, None);
        assert_eq!(definition(&objects, &name).await.unwrap().unwrap().hash(), kept.hash());
        let other = TEXT.replace("'g'", "'h'");
        assert!(matches!(keep_definition(&objects, &name, &other).await, Err(HomeError::OtherDefinition { .. })));

        assert_eq!(loaded(&objects, &name).await.unwrap(), None);
        let done = Loaded { format: FORMAT, seed: Digest::of(b""), at_ms: 1 };
        keep_loaded(&objects, &name, &done).await.unwrap();
        assert_eq!(loaded(&objects, &name).await.unwrap(), Some(done));
        objects.put(LOADED, Bytes::from_static(b"{}")).await.unwrap();
        assert!(loaded(&objects, &name).await.is_err());
    }
}
