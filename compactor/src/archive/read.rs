//! One shard's records up to a budget, at a pace that leaves room for others.
//!
//! Kinesis gives a shard's readers five GetRecords and 2 MB a second together, so by default a run takes one of each. An
//! empty page is not the end: the tip is a page that is not behind, the end of a closed shard one without a next iterator.
//! A shard that is refused too often is left with what was read of it, neither at its tip nor closed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use recount_schemas::bugs::{self, Bug};
use recount_schemas::host::SharedHost;
use recount_schemas::{SequenceNumber, ShardId};
use tokio::sync::Notify;

use super::life::Life;
use super::source::{ListedShard, Record, Source, SourceError, Start};
use super::whole;
use super::{ArchiveError, Limits};
use crate::log::{Lost, ShardEnd};

/// The most bytes of a GetRecords answer (Kinesis: 10 MB; with the size that a record counts here beyond its data).
const PAGE_BYTES: u64 = 12 << 20;
/// How often a page is asked for that is refused as too fast, or fails.
const TRIES: u32 = 8;
/// The longest pause before such a try.
const PAUSE: Duration = Duration::from_secs(10);
/// How many pages without a record a closed shard may give at its tip before it is left for the next run.
const EMPTY_AT_END: u32 = 1_000;

/// What is left of a commit's bytes. A page's bytes are set aside before it is asked for; who finds too little left waits
/// until others have given back what their pages did not take.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    spent: Mutex<Spent>,
    given_back: Notify,
}

#[derive(Debug, Default)]
struct Spent {
    used: u64,
    aside: u64,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, spent: Mutex::default(), given_back: Notify::new() }
    }

    fn spent(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a page aside; `false` when nothing more fits. The first page always fits, so that a small budget still gets on.
    async fn set_aside(&self) -> bool {
        loop {
            let given_back = self.given_back.notified();
            {
                let mut spent = self.spent();
                let first = spent.used == 0 && spent.aside == 0;
                if first || spent.used.saturating_add(spent.aside).saturating_add(PAGE_BYTES) <= self.limit {
                    spent.aside += PAGE_BYTES;
                    return true;
                }
                if spent.aside == 0 {
                    return false;
                }
            }
            given_back.await;
        }
    }

    /// Gives back what a page did not take.
    fn settle(&self, taken: u64) {
        let mut spent = self.spent();
        spent.aside = spent.aside.saturating_sub(PAGE_BYTES);
        spent.used = spent.used.saturating_add(taken);
        drop(spent);
        self.given_back.notify_waiters();
    }
}

/// What was read of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The shard.
    pub shard: ShardId,
    /// Its parents.
    pub parents: Vec<ShardId>,
    /// The last record read before.
    pub from: Option<SequenceNumber>,
    /// The records, in their order.
    pub records: Vec<Record>,
    /// Whether the end of the closed shard was reached.
    pub closed: bool,
    /// Whether the tip was reached.
    pub at_tip: bool,
    /// What to note as the time up to which everything was read; see [`whole::after_reading`].
    pub caught_up_ms: Option<i64>,
    /// A hole before the first record.
    pub lost: Option<Lost>,
    /// Why reading stopped where it did, if the stream refused to go on after all tries. What was read before is good.
    pub gave_up: Option<SourceError>,
}

impl Reading {
    /// The last record read.
    pub fn to(&self) -> Option<SequenceNumber> {
        self.records.last().map(|record| record.sequence.clone()).or_else(|| self.from.clone())
    }
}

/// What a shard is read with.
#[derive(Debug)]
pub struct Reader<'r, S> {
    /// The stream.
    pub source: &'r S,
    /// Time and sleep.
    pub host: &'r SharedHost,
    /// The pace.
    pub limits: &'r Limits,
    /// The bytes of this commit.
    pub budget: &'r Budget,
    /// The run's time.
    pub life: &'r Life,
    /// The stream's retention, in ms.
    pub retention_ms: i64,
}

impl<S: Source> Reader<'_, S> {
    /// Reads a shard from where the log ends, at most about `share` bytes. `caught_up_ms` is when it was last known to be
    /// read to its tip ([`whole::caught_up`]).
    pub async fn read(
        &self,
        shard: &ListedShard,
        end: Option<&ShardEnd>,
        caught_up_ms: Option<i64>,
        share: u64,
    ) -> Result<Reading, ArchiveError> {
        let from = end.and_then(|end| end.to.clone());
        let mut reading = Reading {
            shard: shard.id.clone(),
            parents: shard.parents.clone(),
            from: from.clone(),
            records: Vec::new(),
            closed: false,
            at_tip: false,
            caught_up_ms,
            lost: None,
            gave_up: None,
        };
        // Where time alone does not show the range to be whole, reading begins at `from` itself: if it is still there,
        // so is all that came after it.
        let soon_ms = self.host.now_ms().saturating_add(self.retention_ms / 4);
        let by_time = whole::within_retention(caught_up_ms, self.retention_ms, soon_ms);
        let mut start = match &from {
            None => Start::Horizon,
            Some(from) if by_time => Start::After(from.clone()),
            Some(from) => Start::At(from.clone()),
        };
        let (mut iterator, mut begun, mut taken, mut empty, mut last_arrival_ms) = (None, false, 0u64, 0u32, None);
        let (mut pause, mut tries) = (Duration::ZERO, 0u32);
        while self.life.may_read() && (taken == 0 || taken.saturating_add(PAGE_BYTES) <= share) {
            if !pause.is_zero() {
                self.host.sleep(std::mem::take(&mut pause)).await;
            }
            if !self.budget.set_aside().await {
                break;
            }
            let asked_ms = self.host.now_ms();
            let answer = self.ask(&shard.id, &mut iterator, &start).await;
            let page = match answer {
                Ok(page) => page,
                Err(error) => {
                    self.budget.settle(0);
                    match error {
                        SourceError::Expired => iterator = None,
                        // A position that Kinesis no longer keeps: what is still there begins at the horizon.
                        SourceError::NoSuchPosition(_) if !begun && start != Start::Horizon => start = Start::Horizon,
                        SourceError::Throttled(_) | SourceError::Failed { .. } if tries < TRIES => {}
                        // The other shards' records are not thrown away for this one's.
                        error @ (SourceError::Throttled(_) | SourceError::Failed { .. }) => {
                            tracing::warn!(shard = %shard.id, %error, "the shard is left for the next commit");
                            reading.gave_up = Some(error);
                            break;
                        }
                        error => return Err(error.into()),
                    }
                    if tries >= TRIES {
                        return Err(SourceError::Failed {
                            action: format!("reading shard {}", shard.id),
                            why: "no page after many tries".into(),
                        }
                        .into());
                    }
                    tries += 1;
                    pause = self.host.jitter(PAUSE.min(Duration::from_millis(100 << tries.min(10))));
                    continue;
                }
            };
            tries = 0;
            let now_ms = self.host.now_ms();
            let (ended, tip) = (page.next.is_none(), page.behind_ms == Some(0));
            let tip = tip || (bugs::on(Bug::EmptyPageIsTheTip) && page.records.is_empty());
            let mut records = page.records;
            if !begun && (!records.is_empty() || ended || tip) {
                begun = true;
                let from_is_there = from.is_some()
                    && matches!(start, Start::At(_))
                    && records.first().map(|record| &record.sequence) == from.as_ref();
                if !whole::is_whole(from_is_there, caught_up_ms, self.retention_ms, now_ms) {
                    let before = records.iter().map(|r| &r.sequence).find(|sequence| Some(*sequence) > from.as_ref());
                    let (after, before) = (from.clone(), before.cloned());
                    reading.lost = Some(Lost { after, before, since_ms: caught_up_ms, found_ms: now_ms });
                }
            } else if !records.is_empty() && !reading.records.is_empty() {
                // The horizon may have overtaken a slow reader: the next range begins here, and is looked at closely.
                let stood_ms = caught_up_ms.max(last_arrival_ms);
                if !whole::within_retention(stood_ms, self.retention_ms, now_ms) {
                    self.budget.settle(0);
                    break;
                }
            }
            // Never a record twice, whatever an iterator gives.
            let stood = reading.to();
            records.retain(|record| Some(&record.sequence) > stood.as_ref());
            if bugs::on(Bug::RangeSkipsARecord) && from.is_some() && reading.records.is_empty() && records.len() > 1 {
                records.remove(0);
            }
            let bytes: u64 = records.iter().map(Record::size).sum();
            self.budget.settle(bytes);
            taken = taken.saturating_add(bytes);
            empty = if records.is_empty() { empty + 1 } else { 0 };
            if let Some(last) = records.last() {
                last_arrival_ms = last_arrival_ms.max(Some(last.arrived_us.div_euclid(1_000)));
                start = Start::After(last.sequence.clone());
            }
            reading.records.append(&mut records);
            reading.closed = ended;
            reading.at_tip = tip && (!shard.closed || empty > EMPTY_AT_END);
            let tip_ms = reading.at_tip.then_some(asked_ms);
            reading.caught_up_ms = whole::after_reading(caught_up_ms, tip_ms, ended, last_arrival_ms);
            if reading.closed || reading.at_tip {
                break;
            }
            iterator = page.next;
            pause = self.limits.page_pause.max(transfer_time(bytes, self.limits.bytes_per_second));
        }
        Ok(reading)
    }

    async fn ask(
        &self,
        shard: &ShardId,
        iterator: &mut Option<String>,
        start: &Start,
    ) -> Result<super::source::Page, SourceError> {
        let opened = match iterator.take() {
            Some(opened) => opened,
            None => self.source.open(shard, start).await?,
        };
        let page = self.source.page(&opened, self.limits.page_records).await;
        if matches!(page, Err(SourceError::Throttled(_) | SourceError::Failed { .. })) {
            *iterator = Some(opened);
        }
        page
    }
}

fn transfer_time(bytes: u64, per_second: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / per_second.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_budget_is_never_overdrawn_and_its_first_page_always_fits() {
        let budget = Budget::new(3 * PAGE_BYTES - 1);
        assert!(budget.set_aside().await && budget.set_aside().await);
        let mut third = std::pin::pin!(budget.set_aside());
        assert!(futures::poll!(&mut third).is_pending(), "it waits for what is set aside");
        budget.settle(0);
        assert!(third.await);
        budget.settle(PAGE_BYTES);
        budget.settle(PAGE_BYTES);
        assert!(!budget.set_aside().await);

        let small = Budget::new(10);
        assert!(small.set_aside().await);
        small.settle(0);
        assert!(small.set_aside().await);
        small.settle(4);
        assert!(!small.set_aside().await);
    }
}
