//! Asking until the answer is about the archive as the log has it.

use std::time::Duration;

use recount_schemas::Month;

use super::asker::Asker;
use super::cover::{Cover, Read, Taking};
use super::{Asked, AthenaError, Place};
use crate::context::Context;
use crate::contributions::reader::live_files;
use crate::log::{LogStore, State};
use crate::progress::{Says, Work};

/// How often it is asked, where what was read is in no state of the log.
const TRIES: u32 = 3;
/// The pause before it is asked again: an archive run publishes its entry meanwhile, a compaction moves its months.
const AGAIN: Duration = Duration::from_secs(10);

/// Asks `sql`, of one month or of all, and reads the answer into what `fresh` makes. `state` is the log before it, and is the log after
/// it then. Each month is as it was in some state from the one to the other; else it is asked again, and in the end nothing is said.
pub async fn about<T: Taking>(
    context: &Context,
    sql: &str,
    only: Option<Month>,
    state: &mut State,
    fresh: impl Fn() -> T + Send,
    says: &Says<'_>,
) -> Result<(T, Asked), AthenaError> {
    let asker = Asker::new(context, Place::of(context)?);
    let log = LogStore::new(context.bucket.clone(), context.host.clone());
    let uri = |target: &str| context.bucket.uri(target);
    let mut wrong = Vec::new();
    for attempt in 1..=TRIES {
        // Rows of another definition are refused here.
        live_files(state, &context.definition)?;
        says(Work::Step("asking Athena"));
        let done = asker.ask(sql).await?;
        let (mut taking, mut read) = (fresh(), Read::default());
        asker.read(&done.id, |line| taking.take(line, &mut read)).await?;
        read.is_whole(T::KINDS)?;
        says(Work::Step("holding its files against the log"));
        let mut cover = Cover::new(&read, &context.definition, T::KEYS, only, &uri, state)?;
        let mut refused = Ok(());
        let followed = log.follow(state, |state| {
            if refused.is_ok() {
                refused = cover.entry(state);
            }
        });
        followed.await.map_err(|error| AthenaError::Context(Box::new(error.into())))?;
        refused?;
        match cover.entries(state) {
            Ok(entries) => {
                let (files, rows) = read.size();
                return Ok((taking, Asked { query: done.id, scanned_bytes: done.scanned, files, rows, entries }));
            }
            Err(months) => wrong = months,
        }
        if attempt < TRIES {
            context.host.sleep(AGAIN).await;
        }
    }
    Err(AthenaError::OtherFiles(wrong))
}

#[cfg(test)]
#[path = "about_tests.rs"]
pub(crate) mod tests;
