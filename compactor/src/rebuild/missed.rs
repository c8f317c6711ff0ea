//! What readers would miss behind a switch: events that were backfilled or redriven in one home, and so are in that one alone.
//!
//! What comes by the stream comes to every home. What a command brings into an archive is in that archive, and in the sets that are
//! seeded from it later; no reconcile sees that, since it holds a home against its own archive. So of each home it follows from the
//! seeds which entries of which logs it holds:
//!
//! | home | it holds |
//! | --- | --- |
//! | the base | all entries of its own log |
//! | a set | all entries of its own log; of the home that it was seeded from, what that one held of its first entries, as many as the seed names |
//!
//! Missed are the additions that the home which readers leave holds, and the other does not. The same events may have been brought
//! into both, each by its own command: that the logs cannot tell, so what is found is put before people, and not judged.
//!
//! A home that was deleted says no more what it was seeded from. What stood behind it is taken to be the base, wholly held by the
//! home that readers leave, and not at all by the other: rather asked too often than not at all. Not seen is what is brought in while
//! the switch is made.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use recount_schemas::Home;
use serde::{Deserialize, Serialize};

use super::RebuildError;
use crate::archive::ArchiveError;
use crate::bucket::Bucket;
use crate::context::Context;
use crate::log::{Entry, Kind, LogError, LogStore};
use crate::progress::{Says, Work};

/// Most sets that were each made from the next.
const LONGEST_LINE: usize = 64;
/// Entries that are read at once.
const AT_ONCE: usize = 32;
/// Most additions that are listed.
pub const MAX_LISTED: usize = 1_000;

/// Events that were brought into one archive by a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// The home.
    pub home: Home,
    /// The number of its log's entry.
    pub entry: u64,
    /// When, ms since 1970, by the clock of who did it.
    pub at_ms: i64,
    /// What did it: a redrive, a plan of a backfill.
    pub origin: String,
    /// Its events.
    pub events: u64,
}

/// What a home may miss that another has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// The additions: at most [`MAX_LISTED`], by home and entry.
    pub additions: Vec<Brought>,
    /// All their events.
    pub events: u64,
    /// Homes that are no more, so that nobody can say what was brought into them.
    pub gone: Vec<Home>,
}

impl Missed {
    /// Whether nothing can be missed.
    pub fn is_nothing(&self) -> bool {
        self.events == 0 && self.gone.is_empty()
    }
}

/// How many of the first entries of which logs a home holds.
type Held = BTreeMap<Home, u64>;

/// Where sets were made from, and how many entries that one's log had then. Sets that are no more are not in it.
type Origins = BTreeMap<Home, (Home, u64)>;

/// What `home` holds. Behind a home whose origin is not known stands the base, of which `unknown` entries are held.
fn held(home: &Home, origins: &Origins, unknown: u64) -> Held {
    let (mut held, mut at, mut first) = (Held::new(), home, u64::MAX);
    loop {
        if held.contains_key(at) {
            return held;
        }
        held.insert(at.clone(), first);
        match origins.get(at) {
            Some((parent, entries)) => (at, first) = (parent, *entries),
            None => break,
        }
    }
    if *at != Home::Base {
        held.entry(Home::Base).or_insert(unknown);
    }
    held
}

/// The entries that `from` holds and `to` does not: of each home, from the first to before the second number.
fn missing(from: &Home, to: &Home, origins: &Origins) -> Vec<(Home, u64, u64)> {
    let to = held(to, origins, 0);
    let of = |(home, end): (Home, u64)| {
        let first = to.get(&home).copied().unwrap_or(0);
        (first < end).then_some((home, first, end))
    };
    held(from, origins, u64::MAX).into_iter().filter_map(of).collect()
}

/// What readers would miss who go over from one home to another.
pub async fn missed(context: &Context, from: &Home, to: &Home, says: &Says<'_>) -> Result<Missed, RebuildError> {
    says(Work::Step("looking for what was backfilled or redriven"));
    let mut origins = Origins::new();
    for home in [from, to] {
        let mut at = home.clone();
        while origins.len() < LONGEST_LINE && !origins.contains_key(&at) {
            let Some((parent, entries)) = origin(context, &at).await? else { break };
            origins.insert(at, (parent.clone(), entries));
            at = parent;
        }
    }
    let mut found = Missed::default();
    for (home, first, end) in missing(from, to, &origins) {
        let log = log(context, &home);
        let next = log.read_to_head().await.map_err(ArchiveError::from)?.next;
        if next == 0 && home != Home::Base {
            found.gone.push(home);
            continue;
        }
        let entries = stream::iter(first..next.min(end)).map(|n| entry(&log, n)).buffered(AT_ONCE);
        let mut additions = std::pin::pin!(entries);
        while let Some(entry) = additions.try_next().await? {
            if entry.kind == Kind::Addition {
                let events = entry.added.iter().map(|file| file.rows).sum();
                found.events += events;
                if found.additions.len() < MAX_LISTED {
                    let origin = entry.origin.unwrap_or_default();
                    found.additions.push(Brought {
                        home: home.clone(),
                        entry: entry.n,
                        at_ms: entry.at_ms,
                        origin,
                        events,
                    });
                }
            }
        }
    }
    Ok(found)
}

fn log(context: &Context, home: &Home) -> LogStore<Bucket> {
    let base = context.settings.base();
    let settings = home.set().map_or_else(|| base.clone(), |set| base.of_set(set));
    LogStore::new(context.root().below(&settings.prefix()), context.host.clone())
}

/// An entry that must be there, since the log goes on behind it.
async fn entry(log: &LogStore<Bucket>, n: u64) -> Result<Entry, ArchiveError> {
    let bytes = log
        .bytes_of(n)
        .await?
        .ok_or_else(|| LogError::Broken { n, why: "it is not there, and later ones are".to_owned() })?;
    Ok(Entry::from_bytes(n, &bytes)?)
}

async fn origin(context: &Context, home: &Home) -> Result<Option<(Home, u64)>, RebuildError> {
    if home.set().is_none() {
        return Ok(None);
    }
    let Some(bytes) = log(context, home).bytes_of(0).await.map_err(ArchiveError::from)? else { return Ok(None) };
    let entry = Entry::from_bytes(0, &bytes).map_err(ArchiveError::from)?;
    Ok(entry.seed.map(|seed| (seed.from, seed.entries)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(name: &str) -> Home {
        name.parse().unwrap()
    }

    fn of(from: &str, to: &str, origins: &[(&str, &str, u64)]) -> Vec<(String, u64, u64)> {
        let origins = origins.iter().map(|(set, parent, entries)| (home(set), (home(parent), *entries))).collect();
        let missing = missing(&home(from), &home(to), &origins).into_iter();
        let mut all: Vec<_> = missing.map(|(home, a, b)| (home.to_string(), a, b)).collect();
        all.sort();
        all
    }

    fn is(places: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
        places.iter().map(|(home, a, b)| ((*home).to_owned(), *a, *b)).collect()
    }

    const ALL: u64 = u64::MAX;

    #[test]
    fn what_is_missed_follows_from_the_seeds() {
        let a = ("a", "base", 7);
        assert_eq!(of("base", "a", &[a]), is(&[("base", 7, ALL)]), "what the base had behind the seed");
        assert_eq!(of("a", "base", &[a]), is(&[("a", 0, ALL)]), "on the way back what the set had of its own");
        // Two sets of the base: of the base what the younger seed has and the older has not.
        let b = ("b", "base", 9);
        assert_eq!(of("a", "b", &[a, b]), is(&[("a", 0, ALL)]));
        assert_eq!(of("b", "a", &[a, b]), is(&[("b", 0, ALL), ("base", 7, 9)]));
        // A set of a set: what its parent was brought before is in it, and not in the base.
        let c = ("c", "a", 4);
        assert_eq!(of("c", "base", &[a, c]), is(&[("a", 0, 4), ("c", 0, ALL)]));
        assert_eq!(of("base", "c", &[a, c]), is(&[("base", 7, ALL)]));
        assert_eq!(of("a", "c", &[a, c]), is(&[("a", 4, ALL)]));
        assert_eq!(of("c", "b", &[a, b, c]), is(&[("a", 0, 4), ("c", 0, ALL)]));
        // Its parent was deleted: all of the base is asked for, whichever way.
        assert_eq!(of("base", "c", &[c]), is(&[("base", 0, ALL)]));
        assert_eq!(of("c", "base", &[c]), is(&[("a", 0, 4), ("c", 0, ALL)]));
        assert_eq!(of("c", "b", &[b, c]), is(&[("a", 0, 4), ("base", 9, ALL), ("c", 0, ALL)]));
        // What cannot be: a line in a ring ends.
        assert_eq!(of("a", "a", &[("a", "b", 1), ("b", "a", 1)]), is(&[]));
    }
}
