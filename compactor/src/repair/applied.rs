//! What applied plans have said: void keys, and too-old events that are in the number.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use recount_schemas::{Cell, EventKey};
use serde::{Deserialize, Serialize};

use super::apply::{CellReport, Step};
use super::plan::{self, Plan};
use crate::bucket::{BucketError, Listing, Objects, Put};
use crate::reconcile::Verdict;

/// Most reports that are read.
pub const MAX_REPORTS: usize = 100_000;
/// The most keys of all reports together that are held in memory.
pub const MAX_KEYS: usize = 4_000_000;

/// Most attempts to keep a report: one for each other application that keeps its own at the same time.
const TRIES: u32 = 32;

/// What became of an applied plan, as kept beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// [`plan::FORMAT`].
    pub format: u32,
    /// The plan's name.
    pub plan: String,
    /// The cells.
    pub cells: Vec<CellReport>,
    /// What the reconcile after it said; `None` where it has not been made yet.
    pub verified: Option<Verdict>,
}

/// The reports could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AppliedError {
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A report is not understood.
    #[error("{key} is not a repair's report of format {} or older: {why}", plan::FORMAT)]
    Malformed {
        /// The object.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// There are too many.
    #[error("there are more than {MAX_REPORTS} repair reports, or {MAX_KEYS} keys in them, under {}", plan::PREFIX)]
    TooMany,
    /// Others kept theirs all the time.
    #[error(
        "{0} was replaced {TRIES} times while it was written: the plan is being applied by many at once; apply it again"
    )]
    Busy(String),
}

/// What all applied plans have said about cells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Void keys.
    pub void: BTreeMap<Cell, BTreeSet<EventKey>>,
    /// Too-old events that are in the number.
    pub settled: BTreeMap<Cell, BTreeSet<EventKey>>,
}

impl Settled {
    /// Takes one cell's report.
    pub fn add(&mut self, cell: &CellReport) {
        for (keys, into) in [(&cell.void, &mut self.void), (&cell.settled, &mut self.settled)] {
            if !keys.is_empty() {
                into.entry(cell.cell.clone()).or_default().extend(keys);
            }
        }
    }
}

fn read(key: &str, bytes: &[u8]) -> Result<Applied, AppliedError> {
    let malformed = |why: String| AppliedError::Malformed { key: key.to_owned(), why };
    let applied: Applied = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
    if applied.format > plan::FORMAT {
        Err(malformed(format!("it is of format {}", applied.format)))
    } else {
        Ok(applied)
    }
}

/// What all applied plans have said.
pub async fn settled<O: Objects>(objects: &O) -> Result<Settled, AppliedError> {
    let mut settled = Settled::default();
    let (mut seen, mut keys) = (0, 0usize);
    let mut listing = Listing::new(objects, plan::PREFIX);
    while let Some(page) = listing.next_page().await? {
        for listed in page.iter().filter(|listed| Plan::reported(&listed.key).is_some()) {
            seen += 1;
            if seen > MAX_REPORTS {
                return Err(AppliedError::TooMany);
            }
            if let Some(bytes) = objects.get(&listed.key, plan::MAX_BYTES).await? {
                let applied = read(&listed.key, &bytes)?;
                keys = applied.cells.iter().fold(keys, |keys, cell| keys + cell.void.len() + cell.settled.len());
                if keys > MAX_KEYS {
                    return Err(AppliedError::TooMany);
                }
                applied.cells.iter().for_each(|cell| settled.add(cell));
            }
        }
    }
    Ok(settled)
}

/// What became of a plan; `None` if it was never applied to its end.
pub async fn kept<O: Objects>(objects: &O, hash: &str) -> Result<Option<Applied>, AppliedError> {
    let key = Plan::report_key(hash);
    objects.get(&key, plan::MAX_BYTES).await?.map(|bytes| read(&key, &bytes)).transpose()
}

/// Keeps what became of a plan. What another application said stays said, whether it came before or comes at the same time: a cell
/// that it has put right is refused once another plan came after it, or withheld, and is still put right. So a report is replaced
/// only by one that was made from it; whoever finds another one begins again.
pub async fn keep<O: Objects>(objects: &O, applied: Applied) -> Result<(), AppliedError> {
    let key = Plan::report_key(&applied.plan);
    for _ in 0..TRIES {
        let (report, tag) = match objects.get_tagged(&key, plan::MAX_BYTES).await? {
            Some((bytes, tag)) => (behind(applied.clone(), &read(&key, &bytes)?), Some(tag)),
            None => (applied.clone(), None),
        };
        let malformed = |e: serde_json::Error| AppliedError::Malformed { key: key.clone(), why: e.to_string() };
        let bytes = Bytes::from(serde_json::to_vec_pretty(&report).map_err(malformed)?);
        let put = match tag {
            Some(tag) => objects.put_if_tagged(&key, bytes, &tag).await?,
            None => objects.put_if_absent(&key, bytes).await?,
        };
        if put == Put::Created {
            return Ok(());
        }
    }
    Err(AppliedError::Busy(key))
}

/// What became of a plan, by an application and the one that was kept before it.
fn behind(mut applied: Applied, earlier: &Applied) -> Applied {
    let mut before = Settled::default();
    earlier.cells.iter().for_each(|cell| before.add(cell));
    let done: BTreeSet<&Cell> = earlier.cells.iter().filter(|c| c.number.is_done()).map(|c| &c.cell).collect();
    for cell in &mut applied.cells {
        if !cell.number.is_done() && done.contains(&cell.cell) {
            cell.number = Step::DoneBefore;
        }
        for (keys, earlier) in [(&mut cell.void, &before.void), (&mut cell.settled, &before.settled)] {
            let all: BTreeSet<EventKey> =
                keys.iter().chain(earlier.get(&cell.cell).into_iter().flatten()).copied().collect();
            *keys = all.into_iter().collect();
        }
    }
    applied
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::world::block_on;
    use crate::bucket::memory::Memory;

    #[tokio::test]
    async fn what_an_earlier_application_said_stays_said() {
        let objects = Memory::new();
        let cell = |lane| Cell { group: "acme".parse().unwrap(), month: "2026-11".parse().unwrap(), lane };
        let key = |ms| EventKey::least_at(ms);
        let report = |lane, number, void: &[i64]| CellReport {
            void: void.iter().map(|ms| key(*ms)).collect(),
            ..CellReport::new(cell(lane), number)
        };
        let of = |cells| Applied { format: plan::FORMAT, plan: "0".repeat(64), cells, verified: None };
        assert_eq!(kept(&objects, &"0".repeat(64)).await.unwrap(), None);
        keep(&objects, of(vec![report(0, Step::Done, &[2]), report(1, Step::Refused, &[])])).await.unwrap();
        // Another plan came; then this one again.
        keep(&objects, of(vec![report(0, Step::Refused, &[]), report(1, Step::Done, &[1])])).await.unwrap();
        let kept = kept(&objects, &"0".repeat(64)).await.unwrap().unwrap();
        assert_eq!(kept.cells, [report(0, Step::DoneBefore, &[2]), report(1, Step::Done, &[1])]);
        let all = settled(&objects).await.unwrap();
        assert_eq!(all.void, [(cell(0), [key(2)].into()), (cell(1), [key(1)].into())].into());
    }

    /// Each reads the report before the other has written its own: the later one must not take back what the first one said.
    #[test]
    fn two_applications_at_once_lose_no_void_key_of_each_other() {
        let cell = Cell { group: "acme".parse().unwrap(), month: "2026-11".parse().unwrap(), lane: 0 };
        let key = EventKey::least_at;
        let of = |number, void: Vec<EventKey>| Applied {
            format: plan::FORMAT,
            plan: "0".repeat(64),
            cells: vec![CellReport { void, ..CellReport::new(cell.clone(), number) }],
            verified: None,
        };
        for other in [Step::Refused, Step::Withheld] {
            let (done, other) = (of(Step::Done, vec![key(1)]), of(other, Vec::new()));
            for (first, second) in [(&done, &other), (&other, &done)] {
                let objects = Memory::new();
                let both = futures::future::join(keep(&objects, first.clone()), keep(&objects, second.clone()));
                let (first, second) = block_on(both);
                first.and(second).unwrap();
                let said = block_on(settled(&objects)).unwrap();
                assert_eq!(said.void, [(cell.clone(), [key(1)].into())].into());
                let kept = block_on(kept(&objects, &"0".repeat(64))).unwrap().unwrap();
                assert!(kept.cells.iter().all(|cell| cell.number.is_done()), "{kept:?}");
            }
        }
    }
}
