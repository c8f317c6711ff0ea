//! All shards that can be read, for one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{StreamExt, TryStreamExt};
use recount_schemas::ShardId;
use recount_schemas::host::SharedHost;

use super::life::Life;
use super::read::{Budget, Reader, Reading};
use super::source::{ListedShard, Source, SourceError, Start, Summary};
use super::{ArchiveError, Limits, plan, whole};
use crate::log::{Lost, ShardEnd, State};

/// The readings of one commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gathered {
    /// What goes into the commit, parents before children.
    pub readings: Vec<Reading>,
    /// The shards that were read to their tip, with and without anything to commit.
    pub tips: BTreeSet<ShardId>,
    /// Whether every listed shard has been read to its tip or its end.
    pub reached_tip: bool,
    /// The listed shards of which nothing was ever read, and since when they may hold records, ms since 1970.
    pub unread: BTreeMap<ShardId, Option<i64>>,
}

impl Gathered {
    /// Whether the commit would only say again that shards are read to their tips.
    pub fn is_renewal(&self) -> bool {
        self.readings.iter().all(|r| r.records.is_empty() && !r.closed && r.lost.is_none())
    }
}

/// What the readings of one commit are gathered with.
#[derive(Debug)]
pub struct Gatherer<'g, S> {
    /// The stream.
    pub source: &'g S,
    /// Time and sleep.
    pub host: &'g SharedHost,
    /// The bounds.
    pub limits: &'g Limits,
    /// The run's time.
    pub life: &'g Life,
}

impl<S: Source> Gatherer<'_, S> {
    /// Reads what can be read beyond the log. Shards in `tips` have been read to their tip by this run already.
    pub async fn gather(
        &self,
        summary: &Summary,
        state: &State,
        tips: &BTreeSet<ShardId>,
    ) -> Result<Gathered, ArchiveError> {
        let known = state.stream(&summary.stream);
        let hours = known.and_then(|end| end.retention_hours).unwrap_or(u32::MAX).min(summary.retention_hours);
        let retention_ms = i64::from(hours) * 3_600_000;
        let renewal_ms = renewal_ms(self.limits.renewal, retention_ms);
        let mut ends: BTreeMap<ShardId, ShardEnd> = known.map(|end| end.shards.clone()).unwrap_or_default();
        let mut gathered = Gathered { tips: tips.clone(), ..Gathered::default() };
        let (mut listed, gone) = self.listed(&ends).await?;
        // Who waited longest is first, so that a shard with a long backlog does not starve the others.
        listed.sort_by_key(|shard| ends.get(&shard.id).and_then(|end| end.caught_up_ms));
        for shard in gone {
            let end = ends.entry(shard.clone()).or_default();
            end.closed = true;
            // Of one that nobody ever read, nothing is missing that is older than the stream.
            end.caught_up_ms = end.caught_up_ms.or(Some(summary.stream.created_ms));
            gathered.readings.push(vanished(shard, end, self.host.now_ms()));
        }
        let budget = Budget::new(self.limits.commit_bytes);
        let mut done = tips.clone();
        let mut gave_up = None;
        loop {
            let ready = plan::ready(&listed, &ends, &done);
            if ready.is_empty() {
                break;
            }
            let share = plan::share(self.limits.commit_bytes, ready.len());
            // Futures in a list, not in a borrowing iterator: else the compiler cannot see that this future may change threads.
            let mut reads = Vec::with_capacity(ready.len());
            for shard in ready {
                let end = ends.get(&shard.id);
                let caught_up = whole::caught_up(shard, summary.stream.created_ms, |id| ends.get(id));
                let Self { source, host, limits, life } = *self;
                let reader = Reader { source, host, limits, budget: &budget, life, retention_ms };
                reads.push(async move { reader.read(shard, end, caught_up, share).await });
            }
            let read: Vec<Reading> =
                futures::stream::iter(reads).buffered(self.limits.shards_at_once.max(1)).try_collect().await?;
            for mut reading in read {
                gave_up = gave_up.or(reading.gave_up.take());
                done.insert(reading.shard.clone());
                let before = ends.get(&reading.shard);
                if reading.at_tip {
                    gathered.tips.insert(reading.shard.clone());
                }
                let due = reading.at_tip && is_due(before, &reading, renewal_ms);
                if reading.records.is_empty() && !reading.closed && reading.lost.is_none() && !due {
                    continue;
                }
                let (to, closed, caught_up_ms) = (reading.to(), reading.closed, reading.caught_up_ms);
                ends.insert(reading.shard.clone(), ShardEnd { to, closed, caught_up_ms });
                gathered.readings.push(reading);
            }
        }
        if let Some(error) = gave_up.filter(|_| gathered.readings.is_empty() && gathered.tips.is_empty()) {
            return Err(error.into()); // no shard gave anything
        }
        let over = |shard: &ListedShard| {
            gathered.tips.contains(&shard.id) || ends.get(&shard.id).is_some_and(|end| end.closed)
        };
        gathered.reached_tip = listed.iter().all(over);
        let unread = listed.iter().filter(|shard| !ends.contains_key(&shard.id));
        gathered.unread = unread.map(|shard| (shard.id.clone(), whole::of_parents(shard, |id| ends.get(id)))).collect();
        Ok(gathered)
    }

    /// The shards as listed now; and those that are gone before they were read to their end ([`plan::vanished`]). One that
    /// is missing from the list but can be opened is not gone.
    async fn listed(
        &self,
        ends: &BTreeMap<ShardId, ShardEnd>,
    ) -> Result<(Vec<ListedShard>, Vec<ShardId>), ArchiveError> {
        let mut listed = self.source.shards().await?;
        let mut gone = Vec::new();
        for id in plan::vanished(&listed, ends) {
            match self.source.open(&id, &Start::Horizon).await {
                Ok(_) => listed.push(ListedShard { id, parents: Vec::new(), closed: false }),
                Err(SourceError::NotThere(_)) => gone.push(id),
                Err(error) => return Err(error.into()),
            }
        }
        listed.sort_by(|a, b| a.id.cmp(&b.id));
        Ok((listed, gone))
    }
}

/// How often it is said again that a shard is read to its tip: at least four times within the retention.
fn renewal_ms(renewal: Duration, retention_ms: i64) -> i64 {
    i64::try_from(renewal.as_millis()).unwrap_or(i64::MAX).min(retention_ms / 4)
}

/// Whether it is time to say again that a shard is read to its tip.
fn is_due(before: Option<&ShardEnd>, reading: &Reading, renewal_ms: i64) -> bool {
    let Some(before) = before else { return true };
    match (before.caught_up_ms, reading.caught_up_ms) {
        (Some(before), Some(now)) => now.saturating_sub(before) >= renewal_ms,
        (None, now) => now.is_some(),
        (Some(_), None) => false,
    }
}

/// The end of a shard that is gone before it was read to its end: what it still held is lost.
pub(super) fn vanished(shard: ShardId, end: &ShardEnd, now_ms: i64) -> Reading {
    let lost = Lost { after: end.to.clone(), before: None, since_ms: end.caught_up_ms, found_ms: now_ms };
    Reading {
        shard,
        parents: Vec::new(),
        from: end.to.clone(),
        records: Vec::new(),
        closed: true,
        at_tip: false,
        caught_up_ms: end.caught_up_ms,
        lost: Some(lost),
        gave_up: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::Record;
    use super::*;

    fn nothing() -> Reading {
        Reading { closed: false, lost: None, ..vanished("s".parse().unwrap(), &ShardEnd::default(), 7) }
    }

    #[test]
    fn a_renewal_has_nothing_but_times() {
        let is_renewal = |reading| Gathered { readings: vec![nothing(), reading], ..Gathered::default() }.is_renewal();
        assert!(is_renewal(nothing()));
        assert!(!is_renewal(Reading { closed: true, ..nothing() }));
        let lost = vanished("s".parse().unwrap(), &ShardEnd::default(), 7).lost;
        assert!(!is_renewal(Reading { lost, ..nothing() }));
        let record = Record {
            sequence: "1".parse().unwrap(),
            arrived_us: 0,
            partition_key: String::new(),
            data: bytes::Bytes::new(),
        };
        assert!(!is_renewal(Reading { records: vec![record], ..nothing() }));
    }

    #[test]
    fn a_renewal_comes_well_within_the_retention() {
        let hour = 3_600_000;
        assert_eq!(renewal_ms(Duration::from_secs(3_600), 24 * hour), hour);
        assert_eq!(renewal_ms(Duration::from_secs(3_600), 2 * hour), hour / 2);
        assert_eq!(renewal_ms(Duration::MAX, 24 * hour), 6 * hour);
    }

    #[test]
    fn the_tip_is_said_again_when_it_is_due() {
        let end = |at: Option<i64>| ShardEnd { caught_up_ms: at, ..ShardEnd::default() };
        let due = |before: Option<&ShardEnd>, now| is_due(before, &Reading { caught_up_ms: now, ..nothing() }, 100);
        assert!(due(None, None), "never said");
        for (before, now, expected) in [
            (Some(50), Some(149), false),
            (Some(50), Some(150), true),
            (None, Some(1), true),
            (None, None, false),
            (Some(50), None, false),
        ] {
            assert_eq!(due(Some(&end(before)), now), expected, "{before:?} {now:?}");
        }
    }
}
