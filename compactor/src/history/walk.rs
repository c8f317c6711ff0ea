//! Reading every entry of the log, and naming what is not as it must be.
//!
//! | found | named | the walk |
//! | --- | --- | --- |
//! | entry n + 1 holds another digest than that of entry n | n as changed; the one between two such links, where there are two | goes on with what stands there |
//! | an entry is not there, and a later one is | it as missing | ends |
//! | an entry cannot be read, or does not follow | it as invalid; where the link before it is broken, that one | ends |
//!
//! Nobody vouches for the last entry: a change of it shows only if it does not follow.

use futures::StreamExt;
use recount_schemas::host::SharedHost;

use super::History;
use crate::bucket::{BucketError, Objects};
use crate::log::{Digest, Entry, LogError, LogStore, State, StoreError};

/// How many entries are asked for at a time.
const AHEAD: u64 = 8;

/// What is wrong with the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Entry `n` is not the one that the entry behind it was put after.
    Changed {
        /// The entry.
        n: u64,
        /// Why the log cannot be followed behind it, if so.
        broken: Option<String>,
    },
    /// Entry `n` is not there.
    Missing {
        /// The entry.
        n: u64,
    },
    /// Entry `n` is none, or does not follow the ones before it.
    Invalid {
        /// The entry.
        n: u64,
        /// What is wrong.
        why: String,
    },
}

/// A log that was walked.
#[derive(Debug, Default)]
pub struct Walked {
    /// What it tells, as far as it could be followed.
    pub history: History,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// Whether it was followed to its end.
    pub whole: bool,
    /// The log folded up to the entries that the caller asked for.
    pub folded: Vec<(u64, State)>,
}

/// What the caller of a walk wants to know.
pub struct Wanted<'a> {
    /// The greatest number of an entry that is known to be there.
    pub last_listed: Option<u64>,
    /// The numbers of entries up to which the folded log is wanted: a few.
    pub folded: &'a [u64],
    /// Which removed files are to be remembered.
    pub removed: &'a dyn Fn(&str) -> bool,
}

/// Reads the log from its first entry to its head.
pub async fn walk<O: Objects>(objects: &O, host: &SharedHost, wanted: &Wanted<'_>) -> Result<Walked, StoreError> {
    let store = LogStore::new(objects.clone(), host.clone());
    let mut walked = Walked::default();
    let mut links = Vec::new();
    let mut invalid = None;
    let mut next = 0;
    'all: loop {
        let batch = next..next + AHEAD;
        let mut entries = futures::stream::iter(batch.map(|n| store.bytes_of(n))).buffered(AHEAD as usize);
        while let Some(bytes) = entries.next().await {
            let bytes = match bytes {
                Ok(Some(bytes)) => bytes,
                Ok(None) => {
                    walked.whole = wanted.last_listed.is_none_or(|last| last < next);
                    break 'all;
                }
                Err(StoreError::Bucket(BucketError::TooLarge { most, .. })) => {
                    invalid = Some((next, format!("it has more than {most} bytes")));
                    break 'all;
                }
                Err(error) => return Err(error),
            };
            match take(&mut walked.history, next, &bytes, wanted, &mut links) {
                Ok(()) => {}
                Err(error @ LogError::Newer { .. }) => return Err(error.into()),
                Err(error) => {
                    invalid = Some((next, error.to_string()));
                    break 'all;
                }
            }
            if wanted.folded.contains(&next) {
                walked.folded.push((next, walked.history.state.clone()));
            }
            next += 1;
        }
    }
    let missing = (invalid.is_none() && !walked.whole).then_some(next);
    walked.problems = problems(&links, missing, invalid);
    Ok(walked)
}

/// The whole history; a log that is not as it must be is an error.
pub async fn whole<O: Objects>(objects: &O, host: &SharedHost) -> Result<History, StoreError> {
    let walked = walk(objects, host, &Wanted { last_listed: None, folded: &[], removed: &|_| false }).await?;
    match walked.problems.into_iter().next() {
        None => Ok(walked.history),
        Some(problem) => Err(problem.into()),
    }
}

impl From<Problem> for StoreError {
    fn from(problem: Problem) -> Self {
        let (n, why) = match problem {
            Problem::Changed { n, .. } => (n, "the entry behind it was put after another one".to_owned()),
            Problem::Missing { n } => (n, "it is not there, and later ones are".to_owned()),
            Problem::Invalid { n, why } => (n, why),
        };
        Self::Log(LogError::Broken { n, why })
    }
}

fn take(
    history: &mut History,
    n: u64,
    bytes: &[u8],
    wanted: &Wanted<'_>,
    links: &mut Vec<u64>,
) -> Result<(), LogError> {
    let entry = Entry::from_bytes(n, bytes)?;
    if n > 0 && entry.previous != history.state.head {
        links.push(n);
        history.state.head = entry.previous;
    }
    history.take(entry, Digest::of(bytes), wanted.removed)
}

/// The problems that broken links, an entry that is missing and one that is invalid come to. `links` holds the entries whose
/// digest of the one before is not that one's, in their order.
fn problems(links: &[u64], missing: Option<u64>, invalid: Option<(u64, String)>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut links = links.iter().copied().peekable();
    let mut invalid = invalid;
    while let Some(link) = links.next() {
        let n = match links.next_if_eq(&(link + 1)) {
            Some(_) => link,
            None => link - 1, // a link has an entry before it
        };
        let broken = invalid.take_if(|(at, _)| *at == n || *at == n + 1).map(|(_, why)| why);
        problems.push(Problem::Changed { n, broken });
    }
    problems.extend(invalid.map(|(n, why)| Problem::Invalid { n, why }));
    problems.extend(missing.map(|n| Problem::Missing { n }));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_entry_is_the_one_between_two_broken_links_or_before_one() {
        let changed = |n| Problem::Changed { n, broken: None };
        assert_eq!(problems(&[], None, None), []);
        assert_eq!(problems(&[5], None, None), [changed(4)]);
        assert_eq!(problems(&[5, 6], None, None), [changed(5)]);
        assert_eq!(problems(&[5, 7], None, None), [changed(4), changed(6)]);
        assert_eq!(problems(&[], Some(3), None), [Problem::Missing { n: 3 }]);
    }

    #[test]
    fn what_follows_from_a_changed_entry_is_said_of_it() {
        let why = || "its range does not begin there".to_owned();
        let one = |n| vec![Problem::Changed { n, broken: Some(why()) }];
        assert_eq!(problems(&[5], None, Some((5, why()))), one(4));
        assert_eq!(problems(&[], None, Some((5, why()))), [Problem::Invalid { n: 5, why: why() }]);
        let both = [Problem::Changed { n: 1, broken: None }, Problem::Invalid { n: 5, why: why() }];
        assert_eq!(problems(&[2], None, Some((5, why()))), both);
    }
}
