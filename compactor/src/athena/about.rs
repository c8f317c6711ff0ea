//! Asking until the answer is about the archive as the log has it.

use std::time::Duration;

use recount_schemas::Month;

use super::asker::Asker;
use super::cover::{Cover, Read, Taking};
use super::{Asked, AthenaError, Place};
use crate::context::Context;
use crate::contributions::reader::live_files;
use crate::log::{Digest, Entry, LogStore, State, StoreError};
use crate::progress::{Says, Work};

/// How often it is asked, where what was read is in no state of the log, and the log goes on meanwhile; where it does not, once less.
const TRIES: u32 = 3;
/// The pause before it is asked again: an archive run publishes its entry meanwhile, a compaction moves its months.
const AGAIN: Duration = Duration::from_secs(10);

/// Asks `sql`, of one month or of all, and reads the answer into what `fresh` makes. Each month is as it was in some state of the log
/// from `first` to the one after the answer; else it is asked again, and in the end nothing is said. `first` stays the first state for
/// all tries: a month's location shows what was so before an entry for as long as somebody finishes that entry.
pub async fn about<T: Taking>(
    context: &Context,
    sql: &str,
    only: Option<Month>,
    first: &State,
    fresh: impl Fn() -> T + Send,
    says: &Says<'_>,
) -> Result<(T, Asked), AthenaError> {
    let asker = Asker::new(context, Place::of(context)?);
    let log = LogStore::new(context.bucket.clone(), context.host.clone());
    let uri = |target: &str| context.bucket.uri(target);
    // Rows of another definition are refused before anything is paid for.
    live_files(first, &context.definition)?;
    // The entries behind `first`, with the digests of their bytes.
    let mut since: Vec<(Entry, Digest)> = Vec::new();
    let mut wrong = Vec::new();
    for attempt in 1..=TRIES {
        says(Work::Step("asking Athena"));
        let done = asker.ask(sql).await?;
        let (mut taking, mut read) = (fresh(), Read::default());
        asker.read(&done.id, |line| taking.take(line, &mut read)).await?;
        read.is_whole(T::KINDS)?;
        says(Work::Step("holding its files against the log"));
        let mut cover = Cover::new(&read, &context.definition, T::KEYS, only, &uri, first)?;
        let mut state = first.clone();
        for (entry, digest) in &since {
            state.apply(entry.clone(), *digest).map_err(|error| failed(error.into()))?;
            cover.entry(&state)?;
        }
        let known = since.len();
        let mut refused = Ok(());
        let followed = log.follow(&mut state, |state| {
            if refused.is_ok() {
                refused = cover.entry(state);
            }
            since.extend(state.last.clone().zip(state.head));
        });
        followed.await.map_err(failed)?;
        refused?;
        match cover.entries(&state) {
            Ok(entries) => {
                let (files, rows) = read.size();
                return Ok((taking, Asked { query: done.id, scanned_bytes: done.scanned, files, rows, entries }));
            }
            Err(months) => wrong = months,
        }
        // A log that stands still is of no compaction under way: what is wrong will not change by itself.
        if attempt == TRIES || (attempt > 1 && since.len() == known) {
            break;
        }
        context.host.sleep(AGAIN).await;
    }
    Err(AthenaError::OtherFiles(wrong))
}

fn failed(error: StoreError) -> AthenaError {
    AthenaError::Context(Box::new(error.into()))
}

#[cfg(test)]
#[path = "about_tests.rs"]
pub(crate) mod tests;
