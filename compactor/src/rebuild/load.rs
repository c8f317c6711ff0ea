//! Loading the totals of a set with what its archive was seeded with.
//!
//! | the event | goes into the totals |
//! | --- | --- |
//! | within the ledger's reach when the archive was seeded | through the consumer's own path: counted once, its key in the ledger |
//! | older | as one number per cell, with `sealed` raised to the greatest of their keys, by one write |
//!
//! That one write is a repair of an empty cell, by a plan that has the digest of the seed for its name. So it is done once, however
//! often it is tried; and where the live stream already feeds the set, so that the cell is not empty, it only raises the cell: a reconcile
//! then finds the number, and a repair puts it right. A late copy of an older event is at or below `sealed`: too old, not counted twice.
//!
//! Events that the set's archive has read from the stream since are left to the stream: the set's consumer counts them.

use futures::stream::{FuturesUnordered, StreamExt};
use recount_consumer::progress::Progress;
use recount_consumer::totals::Entry as Event;
use recount_schemas::host::Deadline;
use recount_schemas::{Cell, Delta, EventKey, Group, Month};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::RebuildError;
use crate::context::Context;
use crate::contributions::Scope;
use crate::contributions::reader::{Reader, live_files};
use crate::log::{Digest, Entry, Seed};
use crate::progress::{Says, Work};
use crate::reconcile::diff::{OutOfRange, horizon};
use crate::reconcile::standing::Raise;
use crate::repair::apply::Applier;
use crate::repair::plan::{CellPlan, RaisePlan};

/// Cells that are written at a time.
const AT_ONCE: usize = 16;
/// Events of a cell that are held before they are counted.
const PORTION: usize = 4_000;

/// What loading came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Whether the totals had been loaded before.
    pub before: bool,
    /// Cells that were written.
    pub cells: u64,
    /// Events that went in as numbers.
    pub as_numbers: u64,
    /// Events that were counted.
    pub counted: u64,
    /// Events that had been counted before.
    pub counted_before: u64,
    /// Cells whose number was not written, since the live stream was faster: the repair behind this has them.
    pub left: u64,
}

/// A part of a cell's work.
struct Job {
    cell: Cell,
    old: Option<(Delta, EventKey)>,
    young: Vec<Event>,
}

/// What a part came to.
#[derive(Default)]
struct Done {
    counted: u64,
    counted_before: u64,
    left: u64,
}

/// Loads the totals. The tables must be there and be the definition's.
pub async fn load(
    target: &Context,
    entry: &Entry,
    digest: Digest,
    says: &Says<'_>,
) -> Result<LoadReport, RebuildError> {
    let Some(seed) = &entry.seed else { return Err(RebuildError::NotASeed(target.home())) };
    let loader =
        Loader { target, plan: digest.to_string(), horizon: horizon(entry.at_ms, target.definition.ledger_days) };
    let report = loader.events(seed, says).await?;
    says(Work::Step("noting how far the shards were read"));
    let progress = Progress::new(target.dynamo.clone(), &target.settings, target.host.clone());
    for (stream, end) in &seed.streams {
        for (shard, end) in &end.shards {
            if let Some(to) = &end.to {
                progress.advance(&target.settings.stream, stream.created_ms, shard, to).await?;
            }
        }
    }
    Ok(report)
}

struct Loader<'a> {
    target: &'a Context,
    /// The plan's name.
    plan: String,
    /// What is created before this goes in as a number.
    horizon: EventKey,
}

/// The lanes of one group's month as their events come by, in the order of the keys: the older ones first.
#[derive(Default)]
struct Lanes {
    old: BTreeMap<u16, (Delta, EventKey)>,
    young: BTreeMap<u16, Vec<Event>>,
}

impl Loader<'_> {
    async fn events(&self, seed: &Seed, says: &Says<'_>) -> Result<LoadReport, RebuildError> {
        let (target, mut report) = (self.target, LoadReport::default());
        let files = live_files(&target.log().await?, &target.definition)?;
        let definition = Arc::clone(&target.definition);
        says(Work::Step("loading the totals"));
        let mut reader = Reader::new(target.bucket.clone(), definition, Scope::all(), files).telling(says);
        let mut running = FuturesUnordered::new();
        let mut unit: Option<(Month, Group)> = None;
        let mut lanes = Lanes::default();
        loop {
            let next = reader.next().await?;
            let next_unit = next.as_ref().map(|found| (found.cell.month, found.cell.group.clone()));
            if next_unit != unit {
                if let Some((month, group)) = unit.take() {
                    for job in lanes.take(month, &group) {
                        report.cells += 1;
                        running.push(self.job(job));
                        while running.len() >= AT_ONCE {
                            note(&mut report, running.next().await)?;
                        }
                    }
                }
                unit = next_unit;
            }
            let Some(found) = next else { break };
            if !seed.covers(&found.origin.shard_id, &found.origin.sequence_number) {
                continue;
            }
            let lane = found.cell.lane;
            if found.key < self.horizon {
                report.as_numbers += 1;
                lanes.old(&found.cell, found.key, &found.delta)?;
            } else if let Some(young) = lanes.young(lane, Event { key: found.key, delta: found.delta }) {
                // A cell with many: in order, so that its number goes first.
                while !running.is_empty() {
                    note(&mut report, running.next().await)?;
                }
                let old = lanes.old.remove(&lane);
                let done = self.job(Job { cell: found.cell, old, young }).await;
                note(&mut report, Some(done))?;
            }
        }
        while !running.is_empty() {
            note(&mut report, running.next().await)?;
        }
        Ok(report)
    }

    async fn job(&self, job: Job) -> Result<Done, RebuildError> {
        let (mut done, target) = (Done::default(), self.target);
        if let Some((add, sealed)) = job.old {
            let applier = Applier {
                dynamo: &target.dynamo,
                table: &target.settings.totals,
                totals: &target.totals,
                host: &target.host,
            };
            let raise = RaisePlan { to: Raise { epoch: 1, sealed }, from_epoch: None, recent: 0 };
            let (missing, void, settled) = (Vec::new(), Vec::new(), Vec::new());
            let plan = CellPlan { cell: job.cell.clone(), seen: None, add, raise: Some(raise), missing, void, settled };
            done.left += u64::from(!applier.cell(&plan, &self.plan).await?.number.is_done());
        }
        if !job.young.is_empty() {
            let applied = target.totals.apply(&job.cell, &job.young, Deadline::NONE).await?;
            done.counted += applied.applied.len() as u64;
            // Too old: the load was broken off for longer than the ledger reaches; the repair settles them.
            done.counted_before += applied.duplicates.len() as u64;
        }
        Ok(done)
    }
}

fn note(report: &mut LoadReport, done: Option<Result<Done, RebuildError>>) -> Result<(), RebuildError> {
    let done = done.transpose()?.unwrap_or_default();
    report.counted += done.counted;
    report.counted_before += done.counted_before;
    report.left += done.left;
    Ok(())
}

impl Lanes {
    /// An event that goes in as a number.
    fn old(&mut self, cell: &Cell, key: EventKey, delta: &Delta) -> Result<(), OutOfRange> {
        let (sum, greatest) = self.old.entry(cell.lane).or_insert_with(|| (Delta::default(), key));
        *sum = sum.checked_add(delta).ok_or_else(|| OutOfRange(cell.clone()))?;
        *greatest = key.max(*greatest);
        Ok(())
    }

    /// An event that is counted. A full portion comes back.
    fn young(&mut self, lane: u16, event: Event) -> Option<Vec<Event>> {
        let young = self.young.entry(lane).or_default();
        young.push(event);
        (young.len() >= PORTION).then(|| std::mem::take(young))
    }

    /// What is left to do, cell by cell.
    fn take(&mut self, month: Month, group: &Group) -> Vec<Job> {
        let Self { mut old, mut young } = std::mem::take(self);
        let lanes: std::collections::BTreeSet<u16> = old.keys().chain(young.keys()).copied().collect();
        let job = |lane: u16| Job {
            cell: Cell { group: group.clone(), month, lane },
            old: old.remove(&lane),
            young: young.remove(&lane).unwrap_or_default(),
        };
        lanes.into_iter().map(job).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_has_its_number_and_its_events() {
        let (month, group): (Month, Group) = ("2026-11".parse().unwrap(), "acme".parse().unwrap());
        let cell = |lane| Cell { group: group.clone(), month, lane };
        let (key, delta) = (EventKey::least_at, |events| Delta { events, sums: Default::default() });
        let mut lanes = Lanes::default();
        lanes.old(&cell(0), key(1), &delta(1)).unwrap();
        lanes.old(&cell(0), key(2), &delta(-3)).unwrap();
        lanes.old(&cell(2), key(3), &delta(1)).unwrap();
        for i in 0..PORTION as i64 + 1 {
            let full = lanes.young(1, Event { key: key(10 + i), delta: delta(1) });
            assert_eq!(full.map(|portion| portion.len()), (i + 1 == PORTION as i64).then_some(PORTION));
        }
        let jobs = lanes.take(month, &group);
        let said: Vec<_> = jobs.iter().map(|job| (job.cell.lane, job.old.clone(), job.young.len())).collect();
        assert_eq!(said, [(0, Some((delta(-2), key(2))), 0), (1, None, 1), (2, Some((delta(1), key(3))), 0)]);
        assert!(lanes.take(month, &group).is_empty());
    }
}
