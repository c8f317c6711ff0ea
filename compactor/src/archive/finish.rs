//! Publishing an entry: by anybody, any number of times, also by somebody who is late.
//!
//! In this order, for the last entry of the log:
//!
//! 1. Each added file that is live: copy its upload to its target. Where the upload is gone, it must be at its target.
//! 2. The catalog, where there is one: that there is one is noted, then each month's location.
//! 3. Delete the entry's staged sources.
//!
//! Step 3 is the fence: once the sources are gone, whoever is late has nothing to copy, and cannot bring back a file that
//! a later entry removed. An object that somebody put under the target's name beforehand is replaced: the log gave the name to
//! this file, and taking the other for it would delete the only upload. Nobody puts the next entry before this one is finished, so a reader by listing sees the commits
//! of a month in their order.
//!
//! | source | target | the file in the log, read on | then |
//! | --- | --- | --- | --- |
//! | an upload, there | any | – | copy |
//! | gone | there | – | done |
//! | gone | not there | removed meanwhile | done |
//! | gone | not there, also on a second look | live | stuck: a finding |
//!
//! A compaction or an erasure takes most files of its month over as they are: their source is a file that was live. It is not
//! deleted here, so its copy is not repeated where the target was written since the entry was put, by S3's own clock.
//! A removed file is deleted only once the entry that removed it is finished, oldest version first: so a late publisher finds
//! the source of a file that was removed again gone before its target.

use std::collections::BTreeSet;
use std::fmt::Debug;

use futures::future::BoxFuture;
use futures::stream::{StreamExt, TryStreamExt};
use recount_schemas::Month;
use recount_schemas::bugs::{self, Bug};

use super::ArchiveError;
use super::life::Life;
pub use super::shown::Shown;
use crate::bucket::{Copied, Objects};
use crate::catalog::noted;
use crate::log::{AddedFile, Entry, LogStore, State, names};

/// How many copies, or deletions, are under way at a time.
const AT_ONCE: usize = 8;

/// Where months have a location that readers go by, such as partitions in Glue.
///
/// What an implementation must do, whoever else calls it at the same time:
///
/// - A month's location, its version, the time of the move and the earlier moves are set by *one* call (in Glue: the partition's
///   `Location` with the parameters `recount_version`, `recount_moved_at` and `recount_before`, by one UpdatePartition or
///   CreatePartition), so that no reader sees the one without the others.
/// - It is never moved to a smaller version than it shows. Glue has no conditional update: two that race may still set it
///   back for a moment; the next run puts it right, and what it showed then is not deleted before the grace from that move.
///   A run lives shorter than the grace.
/// - A month that shows its version already stays where it is, and the time of its move stands.
pub trait Catalog: Send + Sync + Debug {
    /// What it is called, for people: it is noted in the archive (see [`noted`]).
    fn name(&self) -> String;

    /// Makes the months show the versions that the state gives them.
    fn place<'c>(&'c self, state: &'c State, months: &'c BTreeSet<Month>) -> BoxFuture<'c, Result<(), String>>;

    /// What a month's location shows; `None` where it has none.
    fn shown(&self, month: Month) -> BoxFuture<'_, Result<Option<Shown>, String>>;
}

/// Finishes the last entry of the log. If the log has gone on meanwhile, `state` is brought to the new head and that entry
/// is finished.
pub async fn finish<O: Objects>(
    objects: &O,
    log: &LogStore<O>,
    catalog: Option<&dyn Catalog>,
    state: &mut State,
    life: &Life,
) -> Result<(), ArchiveError> {
    loop {
        let Some(entry) = state.last.clone() else { return Ok(()) };
        for file in publish(objects, state, &entry, life).await? {
            // Somebody was faster: the source is deleted only after the target is there.
            if objects.head(&file.target).await?.is_some() {
                continue;
            }
            log.catch_up(state).await?;
            if state.find(&file.target).is_some() && objects.head(&file.target).await?.is_none() {
                return Err(ArchiveError::Stuck { n: entry.n, target: file.target.clone() });
            }
        }
        // The log went on, so somebody else has finished this entry. The version that the state gives a month by now may be a later
        // entry's, whose files are not published yet: nothing is placed before they are.
        if state.next != entry.n + 1 {
            continue;
        }
        if let Some(catalog) = catalog {
            let months: BTreeSet<Month> =
                entry.added.iter().map(|file| file.month).chain(entry.versions.keys().copied()).collect();
            life.check()?;
            noted::note(objects, &catalog.name()).await?;
            life.check()?;
            catalog.place(state, &months).await.map_err(ArchiveError::Catalog)?;
        }
        for file in entry.added.iter().filter(|file| is_upload(file)) {
            life.check()?;
            objects.delete(&file.source).await?;
        }
        return Ok(());
    }
}

/// Copies what the entry adds and is live. Returns the files whose source is gone.
async fn publish<'e, O: Objects>(
    objects: &O,
    state: &State,
    entry: &'e Entry,
    life: &Life,
) -> Result<Vec<&'e AddedFile>, ArchiveError> {
    let takes_over = entry.added.iter().any(|file| !is_upload(file));
    let put_ms = match takes_over {
        true => objects.head(&names::entry(entry.n)).await?.map(|meta| meta.modified_ms),
        false => None,
    };
    let left_out = |file: &AddedFile| bugs::on(Bug::CarriedFilesAreNotCopied) && !is_upload(file);
    let live = entry.added.iter().filter(|file| state.find(&file.target).is_some() && !left_out(file));
    let copies: Vec<_> = live.map(|file| copy(objects, file, put_ms, life)).collect();
    let gone: Vec<Option<&AddedFile>> = futures::stream::iter(copies).buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(gone.into_iter().flatten().collect())
}

/// Copies one file to its target, unless it was taken over there already. Gives it back where its source is gone.
async fn copy<'e, O: Objects>(
    objects: &O,
    file: &'e AddedFile,
    put_ms: Option<i64>,
    life: &Life,
) -> Result<Option<&'e AddedFile>, ArchiveError> {
    if !is_upload(file)
        && let Some(there) = objects.head(&file.target).await?
        && put_ms.is_some_and(|put_ms| put_ms <= there.modified_ms)
    {
        return Ok(None);
    }
    life.check()?;
    if bugs::on(Bug::UploadDeletedBeforeCopy)
        && let Some(bytes) = objects.get(&file.source, file.bytes).await?
    {
        objects.delete(&file.source).await?;
        objects.put(&file.target, bytes).await?;
        return Ok(None);
    }
    let copied = objects.copy(&file.source, &file.target).await;
    let done = bugs::on(Bug::FailedCopyIsDone) || copied? == Copied::Done;
    Ok((!done).then_some(file))
}

/// Whether a file was uploaded for its entry; else a compaction or an erasure takes it over.
fn is_upload(file: &AddedFile) -> bool {
    file.source.starts_with(names::STAGING)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use recount_schemas::host::Deadline;

    use super::*;
    use crate::archive::world::{Dice, World, block_on, state};
    use crate::bucket::memory::Memory;
    use crate::rows::testing::{NOVEMBER, record};

    /// Refuses to show a version one of whose files is not at its target.
    struct Whole(Memory);

    impl Debug for Whole {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Whole")
        }
    }

    impl Catalog for Whole {
        fn name(&self) -> String {
            "Whole".to_owned()
        }

        fn place<'c>(&'c self, state: &'c State, months: &'c BTreeSet<Month>) -> BoxFuture<'c, Result<(), String>> {
            let files = months.iter().filter_map(|month| state.files.get(month)).flat_map(|files| files.values());
            let missing = files.map(|live| &live.file.target).find(|target| self.0.bytes(target).is_none());
            Box::pin(std::future::ready(missing.map_or(Ok(()), |target| Err(format!("{target} is not published")))))
        }

        fn shown(&self, _: Month) -> BoxFuture<'_, Result<Option<Shown>, String>> {
            Box::pin(std::future::ready(Ok(None)))
        }
    }

    /// Whoever finishes an entry late may find that its file was removed meanwhile, and that the log's last entry gives the month a
    /// version which nobody has published yet.
    #[test]
    fn a_month_is_never_placed_at_a_version_whose_files_are_not_published() {
        let world = World::new();
        let shard = world.stream.open_shards().remove(0);
        for id in ["e1", "e2"] {
            world.stream.put(&shard, &record(id, Some("acme"), NOVEMBER, "7"));
            world.run();
        }
        let mut late = state(&world.objects, &world.host);
        let mut dice = Dice(1);
        let mut compaction = world.compact(&mut dice, false, Duration::ZERO);
        let mut context = Context::from_waker(Waker::noop());
        while state(&world.objects, &world.host).next == late.next {
            assert!(compaction.as_mut().poll(&mut context).is_pending());
        }
        drop(compaction);
        let target = late.last.iter().flat_map(|entry| &entry.added).next().unwrap().target.clone();
        block_on(world.objects.delete(&target)).unwrap();

        let log = LogStore::new(world.objects.clone(), world.host.clone());
        let life = Life::begin(world.host.clone(), Duration::from_secs(60), Deadline::NONE);
        let catalog: Arc<dyn Catalog> = Arc::new(Whole(world.objects.clone()));
        block_on(finish(&world.objects, &log, Some(&*catalog), &mut late, &life)).unwrap();
        assert_eq!(late.next, state(&world.objects, &world.host).next);
        assert!(late.live().all(|live| world.objects.bytes(&live.file.target).is_some()), "and then it is published");
    }
}
