//! Cells compared without their rows: what the [summaries](crate::rows::summary) of the files say of a cell, or
//! [Athena](super::by_athena), held against its ledger and its number.
//!
//! The files without a summary are compared row by row, and what they add is taken out of this. (Of Athena there are none.) Of the rest a
//! cell is clean, just as it would be by its rows, if its number is their sum and
//!
//! - the keys left of its ledger are as many as the rows and have the same sum of hashes: they are the same keys; or
//! - each of them is among the greatest keys that are named, and every other archived key is older than the ledger
//!   reaches back, and passed by the consumer: its page may have expired, and it is taken as counted.
//!
//! Everything else is looked at again, event by event: a cell that was written to meanwhile, a month whose pages are expiring, a
//! conflict, a void key, and of course damage. So this decides nothing but what need not be read. It relies on what
//! the archive promises by itself, and fsck proves: that a file's summary is that of its rows, and that no key stands twice.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;

use futures::StreamExt;
use recount_schemas::definition::Count;
use recount_schemas::{Cell, Definition, Delta, EventKey, Group, Month};

use super::by_athena::Answered;
use super::diff::Passed;
use crate::bucket::Objects;
use crate::contributions::Scope;
use crate::log::AddedFile;
use crate::progress::{Says, Work};
use crate::rows::summary::{CellSummary, LEAST_ROWS, Summary, key_hash};
use crate::rows::{RowsError, reader};

/// The most bytes of summaries that are held. Files beyond are read row by row.
pub const MAX_HELD: usize = 256 << 20;
/// Files whose summaries are read at a time.
const AT_ONCE: usize = 8;

/// A hash of a key. Equal sums of it say that two sets of keys are the same.
pub type KeyHash = fn(&EventKey) -> u128;

/// What is said of one cell, and what its ledger says to it.
#[derive(Debug, Clone)]
pub struct Bulk {
    /// The cell.
    pub cell: Cell,
    /// How many rows.
    pub rows: u64,
    /// What they add; `None` beyond all bounds.
    pub adds: Option<Delta>,
    /// The least of their keys.
    pub least: EventKey,
    hash: u128,
    hash_of: KeyHash,
    /// Whether the consumer has passed all of them.
    passed: bool,
    /// Their greatest keys, and whether the ledger has each.
    tail: BTreeMap<EventKey, bool>,
    /// The tail is whole at or above this key; `None` where it has all.
    whole_from: Option<EventKey>,
    seen: u64,
    seen_hash: u128,
    /// Whether the ledger has a key that is not in the tail.
    beyond: bool,
    /// Whether something was seen that is for the rows to judge.
    odd: bool,
}

impl Bulk {
    /// Of what is said of a cell, the keys hashed so; and whether the consumer has passed all of it.
    pub fn of(summary: CellSummary, hash_of: KeyHash, passed: bool) -> Self {
        let CellSummary { cell, rows, hash, adds, least, tail } = summary;
        let all = rows == tail.len() as u64;
        let whole_from = (!all).then(|| tail.first().copied().unwrap_or(EventKey::MAX));
        let tail = tail.into_iter().map(|key| (key, false)).collect();
        let adds = Some(adds);
        Self {
            cell,
            rows,
            adds,
            least,
            hash,
            hash_of,
            passed,
            tail,
            whole_from,
            seen: 0,
            seen_hash: 0,
            beyond: false,
            odd: false,
        }
    }

    /// What is said of more rows of the same cell.
    pub fn add(&mut self, other: Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.adds = self.adds.take().zip(other.adds).and_then(|(a, b)| a.checked_add(&b));
        self.least = self.least.min(other.least);
        self.hash = self.hash.wrapping_add(other.hash);
        self.passed &= other.passed;
        self.tail.extend(other.tail);
        self.whole_from = self.whole_from.max(other.whole_from);
        if let Some(from) = self.whole_from {
            self.tail = self.tail.split_off(&from);
        }
    }

    /// Takes a key of the cell's ledger that no row has.
    pub fn ledger(&mut self, key: EventKey) {
        self.seen += 1;
        self.seen_hash = self.seen_hash.wrapping_add((self.hash_of)(&key));
        match self.tail.get_mut(&key) {
            Some(seen) => *seen = true,
            None => self.beyond = true,
        }
    }

    /// Something that only the rows can tell.
    pub fn odd(&mut self) {
        self.odd = true;
    }

    /// Whether every one of its rows is counted, or taken as counted. See the top of this module.
    pub fn is_counted(&self, horizon: Option<EventKey>) -> bool {
        if self.odd || self.adds.is_none() {
            return false;
        }
        if self.seen == self.rows && self.seen_hash == self.hash {
            return true;
        }
        let old = |key: EventKey| horizon.is_some_and(|horizon| key < horizon);
        let unseen_are_old = self.tail.iter().all(|(key, seen)| *seen || old(*key));
        let others_are_old = self.whole_from.is_none_or(|from| horizon.is_some_and(|horizon| from <= horizon));
        self.passed && !self.beyond && unseen_are_old && others_are_old
    }
}

type Order = (Month, Group, u16);

/// What is said of all cells as one stream, a cell at a time, in the order (month, group, lane).
#[derive(Debug, Default)]
pub struct Bulks {
    source: Source,
    head: Option<Bulk>,
}

#[derive(Debug, Default)]
enum Source {
    #[default]
    None,
    Summaries(Summaries),
    Athena(Answered),
}

/// The files of each month.
pub type Months = Vec<(Month, Vec<AddedFile>)>;

impl Bulks {
    /// Reads the summaries of these files. Gives back the files that have none.
    pub async fn read<O: Objects>(
        objects: &O,
        definition: &Definition,
        scope: &Scope,
        passed: &Passed,
        files: Months,
        says: &Says<'_>,
    ) -> Result<(Self, Months), RowsError> {
        let inserts = definition.count == Count::Inserts;
        let measures = definition.measures.len();
        let asked: Vec<&AddedFile> = files
            .iter()
            .flat_map(|(_, files)| files)
            .filter(|file| file.rows >= LEAST_ROWS && (!inserts || scope.may_be_in(file)))
            .collect();
        says(Work::Step("reading the summaries of the files"));
        says(Work::Of(asked.len() as u64, "files"));
        let mut reads = futures::stream::iter(asked)
            .map(|file| async move { (file.target.clone(), reader::summary(objects, file, measures).await) })
            .buffered(AT_ONCE);
        let (mut summaries, mut held, mut summed) = (Vec::new(), 0usize, std::collections::BTreeSet::new());
        while let Some((target, summary)) = reads.next().await {
            let summary: Option<Summary> = summary?;
            says(Work::Done(1));
            let Some(summary) = summary.filter(|summary| held.saturating_add(summary.size()) <= MAX_HELD) else {
                continue;
            };
            held += summary.size();
            let all = summary.reached.iter().all(|(shard, sequence)| passed.covers(shard, sequence));
            summaries.push((summary, all));
            summed.insert(target);
        }
        drop(reads);
        let rest = files
            .into_iter()
            .map(|(month, files)| (month, files.into_iter().filter(|file| !summed.contains(&file.target)).collect()));
        let rest = rest.collect();
        Ok((Self::new(summaries, scope.clone()), rest))
    }

    /// Of these summaries; with each, whether the consumer has passed all that it sums up.
    pub fn new(summaries: Vec<(Summary, bool)>, scope: Scope) -> Self {
        let mut source = Summaries::new(summaries, scope);
        let head = source.next();
        Self { source: Source::Summaries(source), head }
    }

    /// Of what Athena answered.
    pub fn answered(mut answered: Answered) -> io::Result<Self> {
        let head = answered.next().transpose()?;
        Ok(Self { source: Source::Athena(answered), head })
    }

    /// Whether there is nothing that was not compared by its rows.
    pub fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// The month and the group of the next cell.
    pub fn unit(&self) -> Option<(Month, &Group)> {
        self.head.as_ref().map(|bulk| (bulk.cell.month, &bulk.cell.group))
    }

    /// The next cell.
    pub fn pop(&mut self) -> io::Result<Option<Bulk>> {
        let next = match &mut self.source {
            Source::None => None,
            Source::Summaries(summaries) => summaries.next(),
            Source::Athena(answered) => answered.next().transpose()?,
        };
        Ok(std::mem::replace(&mut self.head, next))
    }
}

/// The summaries of all files.
#[derive(Debug)]
struct Summaries {
    summaries: Vec<(Summary, bool)>,
    heads: BinaryHeap<Reverse<(Order, usize)>>,
    /// The next cell of each summary.
    next: BTreeMap<usize, CellSummary>,
    scope: Scope,
}

impl Summaries {
    fn new(summaries: Vec<(Summary, bool)>, scope: Scope) -> Self {
        let mut all = Self { summaries, heads: BinaryHeap::new(), next: BTreeMap::new(), scope };
        (0..all.summaries.len()).for_each(|index| all.advance(index));
        all
    }

    fn advance(&mut self, index: usize) {
        let Some((summary, _)) = self.summaries.get_mut(index) else { return };
        if let Some(cell) = summary.find(|summary| self.scope.has(&summary.cell)) {
            let order = (cell.cell.month, cell.cell.group.clone(), cell.cell.lane);
            self.heads.push(Reverse((order, index)));
            self.next.insert(index, cell);
        }
    }

    fn pop(&mut self) -> Option<Bulk> {
        let Reverse((_, index)) = self.heads.pop()?;
        let passed = self.summaries.get(index).is_some_and(|(_, passed)| *passed);
        let bulk = self.next.remove(&index).map(|summary| Bulk::of(summary, key_hash, passed));
        self.advance(index);
        bulk
    }
}

impl Iterator for Summaries {
    type Item = Bulk;

    fn next(&mut self) -> Option<Bulk> {
        let mut bulk = self.pop()?;
        let same = |order: &Order, bulk: &Bulk| {
            let Cell { group, month, lane } = &bulk.cell;
            (order.0, &order.1, order.2) == (*month, group, *lane)
        };
        while self.heads.peek().is_some_and(|Reverse((order, _))| same(order, &bulk)) {
            if let Some(other) = self.pop() {
                bulk.add(other);
            }
        }
        Some(bulk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::summary::TAIL;

    fn key(ms: i64) -> EventKey {
        EventKey::least_at(ms)
    }

    /// A file's summary of one cell with the keys at these ms.
    fn summary(keys: &[i64]) -> CellSummary {
        let keys: Vec<EventKey> = keys.iter().map(|ms| key(*ms)).collect();
        CellSummary {
            cell: Cell { group: "acme".parse().unwrap(), month: "2026-11".parse().unwrap(), lane: 0 },
            rows: keys.len() as u64,
            hash: keys.iter().fold(0, |sum: u128, key| sum.wrapping_add(key_hash(key))),
            adds: Delta { events: keys.len() as i64, sums: smallvec::SmallVec::new() },
            least: keys[0],
            tail: keys.iter().rev().take(TAIL).rev().copied().collect(),
        }
    }

    fn bulk(files: &[&[i64]], ledger: &[i64]) -> Bulk {
        let mut all = files.iter().map(|keys| Bulk::of(summary(keys), key_hash, true));
        let mut bulk = all.next().unwrap();
        all.for_each(|other| bulk.add(other));
        ledger.iter().for_each(|ms| bulk.ledger(key(*ms)));
        bulk
    }

    #[test]
    fn without_a_tail_only_all_keys_will_do() {
        let bare = |ledger: &[i64]| {
            let mut bulk = Bulk::of(CellSummary { tail: Vec::new(), ..summary(&[1, 2, 3]) }, key_hash, true);
            ledger.iter().for_each(|ms| bulk.ledger(key(*ms)));
            bulk
        };
        assert!(bare(&[1, 2, 3]).is_counted(None));
        for ledger in [&[][..], &[3], &[2, 3], &[1, 2, 4]] {
            assert!(!bare(ledger).is_counted(Some(key(9))), "{ledger:?}");
        }
    }

    #[test]
    fn a_tail_names_what_an_item_holds() {
        assert!(TAIL > recount_consumer::tuning::Tuning::new(35).seal_at);
    }

    #[test]
    fn the_same_keys_are_counted_at_any_age() {
        for horizon in [None, Some(key(0)), Some(key(99))] {
            assert!(bulk(&[&[1, 2], &[3]], &[1, 2, 3]).is_counted(horizon));
        }
        for ledger in [&[1, 2][..], &[1, 2, 4], &[1, 2, 3, 4], &[]] {
            assert!(!bulk(&[&[1, 2], &[3]], ledger).is_counted(None), "{ledger:?}");
        }
    }

    #[test]
    fn what_is_old_may_have_left_the_ledger_but_nothing_else_may_be_in_it() {
        assert!(bulk(&[&[1, 2], &[3]], &[3]).is_counted(Some(key(3))));
        assert!(bulk(&[&[1, 2], &[3]], &[]).is_counted(Some(key(4))));
        assert!(!bulk(&[&[1, 2], &[3]], &[3]).is_counted(Some(key(2))), "2 is not old");
        assert!(!bulk(&[&[1, 2], &[3]], &[3, 4]).is_counted(Some(key(9))), "4 is of no event");
        let mut ahead = bulk(&[&[1, 2], &[3]], &[3]);
        ahead.passed = false;
        assert!(!ahead.is_counted(Some(key(9))), "the consumer may still come to them");
        let mut odd = bulk(&[&[1]], &[1]);
        odd.odd();
        assert!(!odd.is_counted(None));
    }

    #[test]
    fn beyond_the_tail_all_must_be_old() {
        let many: Vec<i64> = (1..=200).collect();
        let least_of_tail = 200 - TAIL as i64 + 1;
        let few: Vec<i64> = (least_of_tail..=200).collect();
        assert!(bulk(&[&many], &few).is_counted(Some(key(least_of_tail))));
        assert!(!bulk(&[&many], &few).is_counted(Some(key(least_of_tail - 1))));
        assert!(!bulk(&[&many], &[5]).is_counted(Some(key(999))), "5 is not named: only the rows can tell");
        // Two files: the tail is whole only from the greater of their first keys.
        let early: Vec<i64> = (1..=100).collect();
        let merged = bulk(&[&many, &early.iter().map(|ms| ms * 1_000).collect::<Vec<_>>()], &[]);
        assert_eq!(merged.whole_from, Some(key((100 - TAIL as i64 + 1) * 1_000)));
        assert!(merged.tail.keys().all(|key| Some(*key) >= merged.whole_from));
    }
}
