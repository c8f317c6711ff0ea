//! That an archive's months have locations that readers go by, noted in the archive itself.
//!
//! A file that a compaction or an erasure removed is deleted once its month's location shows it no longer. A run that was not told of the
//! catalog cannot ask it; it would go by the age of files alone, and delete what a location that is behind still shows. So whoever
//! keeps a catalog notes it before the first month is placed; and a run without it, or with another one, neither compacts nor deletes
//! there: it would add a copy of each month every time, and move no location to it.
//!
//! The note stays when a catalog is given up, or exchanged. Whoever does that deletes the object.

use bytes::Bytes;
use recount_schemas::terminal::shown;
use serde::{Deserialize, Serialize};

use crate::archive::finish::Catalog;
use crate::bucket::{BucketError, Objects};

/// The object.
pub const NAME: &str = "_catalog/noted.json";

/// Far more than what is written there.
const MAX_BYTES: u64 = 4 << 10;

/// What it says. Members may come; what is not understood is a note all the same.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    format: u32,
    catalog: String,
}

/// Notes the catalog of this name, unless one is noted.
pub async fn note<O: Objects>(objects: &O, catalog: &str) -> Result<(), BucketError> {
    if objects.head(NAME).await?.is_none() {
        let note = Note { format: 1, catalog: catalog.to_owned() };
        // A number and a text: they are always JSON.
        let bytes = serde_json::to_vec(&note).unwrap_or_default();
        objects.put_if_absent(NAME, Bytes::from(bytes)).await?;
    }
    Ok(())
}

/// The catalog that is noted, fit to be shown.
pub async fn noted<O: Objects>(objects: &O) -> Result<Option<String>, BucketError> {
    let Some(meta) = objects.head(NAME).await? else { return Ok(None) };
    let bytes = if meta.bytes > MAX_BYTES { None } else { objects.get(NAME, MAX_BYTES).await? };
    let note = bytes.and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
    Ok(Some(note.map_or_else(|| "a catalog".to_owned(), |note| shown(&note.catalog))))
}

/// The catalog that is noted, where it is not the one that a run keeps.
pub async fn unknown<O: Objects>(objects: &O, kept: Option<&dyn Catalog>) -> Result<Option<String>, BucketError> {
    let known = kept.map(|catalog| shown(&catalog.name()));
    Ok(noted(objects).await?.filter(|noted| known.as_ref() != Some(noted)))
}

/// Why a run that does not keep this catalog deletes no removed file, and what to do.
pub fn why_kept(catalog: &str) -> String {
    format!(
        "readers find this archive's months by {catalog}, which this run was not told of: a location may still show removed files, so none is \
         deleted. Give --stack, or RECOUNT_GLUE_DATABASE; if nobody reads by it any more, delete {NAME} from the bucket"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::world::block_on;
    use crate::bucket::memory::Memory;

    #[test]
    fn the_first_note_stands_whatever_is_in_it() {
        let objects = Memory::new();
        assert_eq!(block_on(noted(&objects)).unwrap(), None);
        block_on(note(&objects, "Glue database lake")).unwrap();
        block_on(note(&objects, "another")).unwrap();
        assert_eq!(block_on(noted(&objects)).unwrap().as_deref(), Some("Glue database lake"));
        for bytes in [&b""[..], b"{}", b"\xff", &[b'x'; 5_000]] {
            block_on(objects.put(NAME, Bytes::copy_from_slice(bytes))).unwrap();
            assert_eq!(block_on(noted(&objects)).unwrap().as_deref(), Some("a catalog"));
        }
        insta::assert_snapshot!(why_kept("Glue database lake"), @"readers find this archive's months by Glue database lake, which this run was not told of: a location may still show removed files, so none is deleted. Give --stack, or RECOUNT_GLUE_DATABASE; if nobody reads by it any more, delete _catalog/noted.json from the bucket");
    }
}
