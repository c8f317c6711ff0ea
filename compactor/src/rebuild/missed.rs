//! What a home may have missed: events that were backfilled or redriven in another home, and erasures there.
//!
//! What comes by the stream comes to every home. What a command brings into one archive, or takes out of it, is in that one alone,
//! and no reconcile sees it, since that holds a home against its own archive. So before readers change from one home to another:
//!
//! | looked at | from which entry of its log on |
//! | --- | --- |
//! | the home that the other was seeded from, and so on to the base | the first that the seed had not |
//! | the home that readers leave, where it is none of these | the first behind its own seed |
//!
//! Where something was brought, the two archives are compared ([`compare`](super::compare)). The number of events that were
//! brought proves nothing: they may have been brought into both.

use futures::{StreamExt, TryStreamExt, stream};
use recount_schemas::Home;
use serde::{Deserialize, Serialize};

use super::RebuildError;
use super::compare::{Comparison, Level, compare};
use super::seed::seed_of;
use crate::archive::ArchiveError;
use crate::context::Context;
use crate::log::{Entry, Kind, LogStore};
use crate::progress::Says;

/// Most homes in a row that were each made from the next.
const LONGEST_LINE: usize = 16;
/// Entries that are read at once.
const AT_ONCE: usize = 16;

/// What one home has had that another may have missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// The home that had it.
    pub home: Home,
    /// Events that were backfilled or redriven there.
    pub brought: u64,
    /// Entries of its log that erased personal data.
    pub erasures: u64,
    /// The two archives compared; only where events were brought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

impl Missed {
    /// Whether the two homes are known to come to the same numbers, or nothing was brought.
    pub fn is_settled(&self) -> bool {
        self.comparison.as_ref().is_none_or(|found| found.level != Level::Nothing && found.differ == 0)
    }
}

/// The homes to look at, and from which entry on. `line` is where `to` was made from: each home with the number of entries
/// that its log had then.
fn places(from: &Home, line: Vec<(Home, u64)>) -> Vec<(Home, u64)> {
    let mut places = line;
    // Entry 0 of a set's log is its own seed, and the base has none: a switch from it to a set has it in `line`.
    if from.set().is_some() && places.iter().all(|(home, _)| home != from) {
        places.push((from.clone(), 1));
    }
    places
}

/// What `to` may have missed of what other homes had, when readers go over to it from `from`.
///
/// `open` opens a home; `None` if it is no more, and what it had went with it.
pub async fn missed<E: From<RebuildError>, F: Future<Output = Result<Option<Context>, E>>>(
    from: &Home,
    to: &Context,
    open: impl Fn(Home) -> F,
    says: &Says<'_>,
) -> Result<Vec<Missed>, E> {
    let mut line = Vec::new();
    let mut child = Some(to.clone());
    while let Some(of) = child.take_if(|_| line.len() < LONGEST_LINE) {
        let seed = match of.settings.set {
            Some(_) => seed_of(&of).await?.and_then(|(entry, _)| entry.seed),
            None => None,
        };
        let Some(seed) = seed else { break };
        line.push((seed.from.clone(), seed.entries));
        child = open(seed.from).await?;
    }
    let mut found = Vec::new();
    for (home, first) in places(from, line) {
        let Some(context) = open(home.clone()).await? else { continue };
        let (brought, erasures) = since(&context, first).await?;
        if brought + erasures > 0 {
            let comparison = if brought > 0 { Some(compare(&context, to, says).await?) } else { None };
            found.push(Missed { home, brought, erasures, comparison });
        }
    }
    Ok(found)
}

/// The events that were brought, and the erasures, from entry `first` of a home's log on.
async fn since(context: &Context, first: u64) -> Result<(u64, u64), RebuildError> {
    let log = &LogStore::new(context.bucket.clone(), context.host.clone());
    let next = log.read_to_head().await.map_err(ArchiveError::from)?.next;
    let entries = stream::iter(first..next).map(|n| async move {
        let bytes = log.bytes_of(n).await?;
        Ok::<_, ArchiveError>(bytes.map(|bytes| Entry::from_bytes(n, &bytes)).transpose()?)
    });
    let count = |(brought, erasures): (u64, u64), entry: Option<Entry>| async move {
        Ok(match entry {
            Some(entry) if entry.kind == Kind::Addition => {
                (brought + entry.added.iter().map(|file| file.rows).sum::<u64>(), erasures)
            }
            Some(entry) if entry.kind == Kind::Erasure => (brought, erasures + 1),
            _ => (brought, erasures),
        })
    };
    Ok(entries.buffer_unordered(AT_ONCE).try_fold((0, 0), count).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(name: &str) -> Home {
        name.parse().unwrap()
    }

    #[test]
    fn where_is_looked_follows_from_where_a_home_was_made() {
        let base = || (home("base"), 7);
        // From the base to its set, and back.
        assert_eq!(places(&home("base"), vec![base()]), [base()]);
        assert_eq!(places(&home("tokyo"), vec![]), [(home("tokyo"), 1)]);
        // Between two sets of the base; to a set made from a set, from that one and from the base.
        assert_eq!(places(&home("tokyo"), vec![base()]), [base(), (home("tokyo"), 1)]);
        let line = || vec![(home("tokyo"), 4), base()];
        assert_eq!(places(&home("tokyo"), line()), line());
        assert_eq!(places(&home("base"), line()), line());
    }
}
