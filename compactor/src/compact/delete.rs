//! Deleting removed files, once nobody reads them any more.
//!
//! A file is removed when its month got a greater version than its directory's. It is deleted when only such versions have been
//! shown for the grace; a name that no entry gave out is left for whoever put it there. What is found is what is listed, so a copy
//! that came late into an old directory goes as well, with the next run.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Known;

use futures::stream::{StreamExt, TryStreamExt};
use recount_schemas::Month;

use super::CompactError;
use crate::archive::ArchiveError;
use crate::archive::finish::Catalog;
use crate::archive::life::Life;
use crate::bucket::{Listed, Listing, Objects};
use crate::log::{Entry, LogStore, State, names};

/// How many objects are deleted at a time.
const AT_ONCE: usize = 8;

/// Removed files that are still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// How many.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
}

/// When readers by location were shown this version of a month, or a newer one, ms since 1970, at the latest: by the moves of its
/// location; without a catalog, when the last file of the entry that made the version was written. `None` where they have not been.
pub async fn shown_since<O: Objects>(
    objects: &O,
    catalog: Option<&dyn Catalog>,
    state: &State,
    month: Month,
    version: u64,
) -> Result<Option<i64>, CompactError> {
    if let Some(catalog) = catalog {
        let shown = catalog.shown(month).await.map_err(ArchiveError::Catalog)?;
        let shown = shown.filter(|shown| shown.version == state.version(month));
        return Ok(shown.and_then(|shown| shown.left(version.saturating_sub(1))));
    }
    written_since(objects, month, version).await
}

/// When the last file of the entry that made a month's version was written, ms since 1970.
pub async fn written_since<O: Objects>(objects: &O, month: Month, version: u64) -> Result<Option<i64>, CompactError> {
    let mut since = None;
    let directory = names::version(month, version);
    let mut listing = Listing::new(objects, &directory);
    while let Some(page) = listing.next_page().await? {
        let of_entry = |listed: &&Listed| names::parse_target(&listed.key).is_some_and(|name| name.n == version);
        since = since.max(page.iter().filter(of_entry).map(|listed| listed.meta.modified_ms).max());
    }
    Ok(since)
}

/// The removed files of a month that are still there, by version, oldest first. Every one was named by an entry.
pub async fn removed<O: Objects>(
    objects: &O,
    log: &LogStore<O>,
    state: &State,
    month: Month,
) -> Result<BTreeMap<u64, Vec<Listed>>, CompactError> {
    let version = state.version(month);
    let mut removed: BTreeMap<u64, Vec<Listed>> = BTreeMap::new();
    let mut entries: BTreeMap<u64, Option<Entry>> = BTreeMap::new();
    let directory = names::month(month);
    let mut listing = Listing::new(objects, &directory);
    while let Some(page) = listing.next_page().await? {
        for listed in page {
            let Some(name) = names::parse_target(&listed.key) else { continue };
            if name.version >= version {
                return Ok(removed); // names sort by version
            }
            if name.n >= state.next {
                continue;
            }
            let entry = match entries.entry(name.n) {
                Known::Occupied(known) => known.into_mut(),
                Known::Vacant(unknown) => {
                    let bytes = log.bytes_of(name.n).await?;
                    let entry = bytes.map(|bytes| Entry::from_bytes(name.n, &bytes)).transpose();
                    unknown.insert(entry.map_err(ArchiveError::from)?)
                }
            };
            if entry.as_ref().is_some_and(|entry| entry.added.iter().any(|file| file.target == listed.key)) {
                removed.entry(name.version).or_default().push(listed);
            }
        }
    }
    Ok(removed)
}

/// Deletes them, a version only once those before it are gone: a file that was taken over from one version into the next must
/// not be copied again when it is removed there.
pub async fn delete<O: Objects>(
    objects: &O,
    removed: BTreeMap<u64, Vec<Listed>>,
    life: &Life,
) -> Result<Removed, CompactError> {
    let mut gone = Removed::default();
    for files in removed.into_values() {
        let mut deletions = Vec::with_capacity(files.len());
        for file in &files {
            deletions.push(async move {
                life.check()?;
                objects.delete(&file.key).await?;
                Ok::<(), CompactError>(())
            });
        }
        futures::stream::iter(deletions).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        gone.files += files.len() as u64;
        gone.bytes += files.iter().map(|file| file.meta.bytes).sum::<u64>();
    }
    Ok(gone)
}
