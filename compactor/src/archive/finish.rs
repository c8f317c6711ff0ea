//! Publishing an entry: by anybody, any number of times, also by somebody who is late.
//!
//! In this order, for the last entry of the log:
//!
//! 1. Each added file that is live: copy its upload to its target. Where the upload is gone, it must be at its target.
//! 2. The catalog, where there is one: each month's location.
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
//! | a live file that a compaction takes over | there | – | done, else copy |

use std::collections::BTreeSet;
use std::fmt::Debug;

use futures::future::BoxFuture;
use recount_schemas::Month;
use recount_schemas::bugs::{self, Bug};

use super::ArchiveError;
use super::life::Life;
use crate::bucket::{Copied, Objects};
use crate::log::{AddedFile, LogStore, State, names};

/// Where months have a location that readers go by, such as partitions in Glue.
pub trait Catalog: Send + Sync + Debug {
    /// Makes the months show the versions that the state gives them. Never back to a smaller version.
    fn place<'c>(&'c self, state: &'c State, months: &'c BTreeSet<Month>) -> BoxFuture<'c, Result<(), String>>;
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
        for file in &entry.added {
            if state.find(&file.target).is_some() {
                publish(objects, log, state, entry.n, file, life).await?;
            }
        }
        if let Some(catalog) = catalog {
            let months: BTreeSet<Month> =
                entry.added.iter().map(|file| file.month).chain(entry.versions.keys().copied()).collect();
            life.check()?;
            catalog.place(state, &months).await.map_err(ArchiveError::Catalog)?;
        }
        for file in entry.added.iter().filter(|file| file.source.starts_with(names::STAGING)) {
            life.check()?;
            objects.delete(&file.source).await?;
        }
        if state.next == entry.n + 1 {
            return Ok(());
        }
    }
}

async fn publish<O: Objects>(
    objects: &O,
    log: &LogStore<O>,
    state: &mut State,
    n: u64,
    file: &AddedFile,
    life: &Life,
) -> Result<(), ArchiveError> {
    if !file.source.starts_with(names::STAGING) && objects.head(&file.target).await?.is_some() {
        return Ok(());
    }
    life.check()?;
    if bugs::on(Bug::UploadDeletedBeforeCopy)
        && let Some(bytes) = objects.get(&file.source, file.bytes).await?
    {
        objects.delete(&file.source).await?;
        return Ok(objects.put(&file.target, bytes).await?);
    }
    let copied = objects.copy(&file.source, &file.target).await;
    if bugs::on(Bug::FailedCopyIsDone) || copied? == Copied::Done {
        return Ok(());
    }
    // Somebody was faster: the source is deleted only after the target is there.
    if objects.head(&file.target).await?.is_some() {
        return Ok(());
    }
    log.catch_up(state).await?;
    if state.find(&file.target).is_none() || objects.head(&file.target).await?.is_some() {
        return Ok(());
    }
    Err(ArchiveError::Stuck { n, target: file.target.clone() })
}
