//! What a file's rows come to, cell by cell: kept in the file itself, between its last row group and its footer.
//!
//! A reconcile that finds a cell's ledger and number equal to what the summaries say of it need not read the cell's rows.
//! The place and the SHA-256 of the summary stand in the footer's key-value metadata; other readers of Parquet pass it over.
//! It is part of the object whose SHA-256 the log names, so it is copied, replaced and vouched for with the rows that it
//! was made from, and fsck makes it again from these.
//!
//! | of each cell | what for |
//! | --- | --- |
//! | the number of contributions, the sum modulo 2¹²⁸ of the hashes of their event keys | equal to that of a set of keys only if it is this set. A sum and no XOR: two copies would cancel |
//! | the sum of what they add | what the cell's number must be |
//! | its [`TAIL`] greatest keys | what is left in the ledger of a month whose pages have expired |
//! | its least key | whether all that is not in the tail is older than the ledger reaches |
//!
//! Beside the cells it says how far each shard's records in it go, so that it is known whether the consumer has passed them all.
//!
//! A summary is worth its place only in a file of many rows; a file without one is read row by row.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::RecordBatch;
use recount_schemas::fold::Group;
use recount_schemas::{Amount, Cell, Definition, Delta, EventKey, Month, SequenceNumber, ShardId};
use smallvec::SmallVec;

use crate::contributions::ReadError;
use crate::contributions::columns::Rows;

/// The greatest keys of a cell that a summary names: more than a cell's item holds (`seal_at` in the consumer's tuning).
pub const TAIL: usize = 64;
/// A file with fewer rows has no summary.
pub const LEAST_ROWS: u64 = 256;
/// The largest summary, in bytes.
pub const MAX_BYTES: usize = 32 << 20;
/// The most shards that a summary names.
const MAX_SHARDS: usize = 4_096;
/// The version of the bytes.
const VERSION: u8 = 1;

/// What a file's rows add to one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellSummary {
    /// The cell.
    pub cell: Cell,
    /// How many rows contribute to it.
    pub rows: u64,
    /// The sum modulo 2¹²⁸ of [`key_hash`] over their keys.
    pub hash: u128,
    /// What they add.
    pub adds: Delta,
    /// The least of their keys.
    pub least: EventKey,
    /// The greatest of their keys, ascending, at most [`TAIL`].
    pub tail: Vec<EventKey>,
}

/// 128 bits of BLAKE3 over a key.
pub fn key_hash(key: &EventKey) -> u128 {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(blake3::hash(key.as_bytes()).as_bytes()) {
        *to = *from;
    }
    u128::from_be_bytes(bytes)
}

#[derive(Debug)]
struct Building {
    rows: u64,
    hash: u128,
    adds: Delta,
    least: EventKey,
    tail: BTreeSet<EventKey>,
}

/// Makes the summary of a file while its batches are written, or read again.
#[derive(Debug)]
pub struct Summarizer<'d> {
    definition: &'d Definition,
    month: Month,
    rows: u64,
    cells: BTreeMap<(Month, Group, u16), Building>,
    reached: BTreeMap<ShardId, SequenceNumber>,
    failed: bool,
}

impl<'d> Summarizer<'d> {
    /// Of a file of this month.
    pub fn new(definition: &'d Definition, month: Month) -> Self {
        Self { definition, month, rows: 0, cells: BTreeMap::new(), reached: BTreeMap::new(), failed: false }
    }

    /// Takes the next rows. What cannot be summed up makes a file without a summary, and is told by whoever reads its rows.
    pub fn batch(&mut self, batch: &RecordBatch) {
        if !self.failed {
            self.failed = self.take(batch).is_err() || self.reached.len() > MAX_SHARDS;
        }
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<(), ReadError> {
        let rows = Rows::new(batch, "a new file".into(), self.month, self.definition)?;
        for i in 0..rows.len() {
            self.rows += 1;
            let contributions = rows.contributions(i, self.definition)?;
            if contributions.is_empty() {
                continue;
            }
            let (key, (shard, sequence)) = (rows.key(i)?, rows.position(i)?);
            let added = self.add(key, shard, sequence, contributions);
            added.ok_or_else(|| rows.bad(i, "the sum of its cell is out of range"))?;
        }
        Ok(())
    }

    /// Takes what one row adds to cells.
    fn add(
        &mut self,
        key: EventKey,
        shard: ShardId,
        sequence: SequenceNumber,
        contributions: impl IntoIterator<Item = (Cell, Delta)>,
    ) -> Option<()> {
        if self.reached.get(&shard).is_none_or(|reached| *reached < sequence) {
            self.reached.insert(shard, sequence);
        }
        for (cell, delta) in contributions {
            let zero = || Delta::zero(self.definition.measures.len());
            let fresh = || Building { rows: 0, hash: 0, adds: zero(), least: key, tail: BTreeSet::new() };
            let building = self.cells.entry((cell.month, cell.group, cell.lane)).or_insert_with(fresh);
            building.rows += 1;
            building.hash = building.hash.wrapping_add(key_hash(&key));
            building.adds = building.adds.checked_add(&delta)?;
            building.least = building.least.min(key);
            building.tail.insert(key);
            if building.tail.len() > TAIL {
                building.tail.pop_first();
            }
        }
        Some(())
    }

    /// The summary's bytes; `None` where the file has none: few rows, or more than a summary may hold.
    pub fn finish(self) -> Option<Vec<u8>> {
        if self.failed || self.rows < LEAST_ROWS { None } else { self.bytes() }
    }

    fn bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![VERSION];
        put_u32(&mut bytes, self.reached.len())?;
        for (shard, sequence) in &self.reached {
            put_text(&mut bytes, shard.as_str())?;
            put_text(&mut bytes, sequence.as_str())?;
        }
        put_u32(&mut bytes, self.cells.len())?;
        for ((month, group, lane), cell) in &self.cells {
            bytes.extend(month.to_string().as_bytes());
            put_text(&mut bytes, group.as_str())?;
            bytes.extend(lane.to_be_bytes());
            bytes.extend(cell.rows.to_be_bytes());
            bytes.extend(cell.hash.to_be_bytes());
            bytes.extend(cell.adds.events.to_be_bytes());
            bytes.extend(cell.adds.sums.iter().flat_map(|sum| sum.billionths().to_be_bytes()));
            bytes.extend(cell.least.as_bytes());
            bytes.push(u8::try_from(cell.tail.len()).ok()?);
            bytes.extend(cell.tail.iter().flat_map(EventKey::as_bytes));
            if bytes.len() > MAX_BYTES {
                return None;
            }
        }
        Some(bytes)
    }
}

fn put_u32(to: &mut Vec<u8>, n: usize) -> Option<()> {
    to.extend(u32::try_from(n).ok()?.to_be_bytes());
    Some(())
}

fn put_text(to: &mut Vec<u8>, text: &str) -> Option<()> {
    to.extend(u16::try_from(text.len()).ok()?.to_be_bytes());
    to.extend(text.as_bytes());
    Some(())
}

/// A file's summary, its cells in the order (month, group, lane). What does not read as one is no summary: the rows are read.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The greatest sequence number of each shard among the rows that contribute to a cell.
    pub reached: Vec<(ShardId, SequenceNumber)>,
    bytes: bytes::Bytes,
    at: usize,
    left: u32,
    measures: usize,
}

impl Summary {
    /// Reads a summary. All of it is looked through: what is in it can be relied on.
    pub fn read(bytes: bytes::Bytes, measures: usize) -> Option<Self> {
        let mut from = Cursor(bytes.get(1..).filter(|_| bytes.first() == Some(&VERSION))?);
        let mut reached = Vec::new();
        for _ in 0..from.u32().filter(|n| *n as usize <= MAX_SHARDS)? {
            reached.push((from.text()?.parse().ok()?, from.text()?.parse().ok()?));
        }
        let left = from.u32()?;
        let summary = Self { reached, at: bytes.len() - from.0.len(), left, bytes: bytes.clone(), measures };
        let mut before: Option<(Month, Group, u16)> = None;
        for _ in 0..left {
            let Cell { group, month, lane } = from.cell(measures)?.cell;
            let this = Some((month, group, lane));
            if this <= before {
                return None;
            }
            before = this;
        }
        from.0.is_empty().then_some(summary)
    }

    /// How many bytes it holds.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl Iterator for Summary {
    type Item = CellSummary;

    fn next(&mut self) -> Option<CellSummary> {
        self.left = self.left.checked_sub(1)?;
        let mut from = Cursor(self.bytes.get(self.at..)?);
        let cell = from.cell(self.measures)?;
        self.at = self.bytes.len() - from.0.len();
        Some(cell)
    }
}

struct Cursor<'b>(&'b [u8]);

impl<'b> Cursor<'b> {
    fn take(&mut self, n: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn text(&mut self) -> Option<&'b str> {
        let length = u16::from_be_bytes(self.array()?);
        std::str::from_utf8(self.take(usize::from(length))?).ok()
    }

    fn key(&mut self) -> Option<EventKey> {
        self.array().map(EventKey::from_bytes)
    }

    fn cell(&mut self, measures: usize) -> Option<CellSummary> {
        let month = std::str::from_utf8(self.take(7)?).ok()?.parse().ok()?;
        let group = self.text()?.parse().ok()?;
        let lane = u16::from_be_bytes(self.array()?);
        let rows = u64::from_be_bytes(self.array()?);
        let hash = u128::from_be_bytes(self.array()?);
        let events = i64::from_be_bytes(self.array()?);
        let mut sums = SmallVec::with_capacity(measures);
        for _ in 0..measures {
            sums.push(Amount::from_billionths(i128::from_be_bytes(self.array()?)));
        }
        let least = self.key()?;
        let [length] = self.array()?;
        let tail: Vec<EventKey> = (0..length).map(|_| self.key()).collect::<Option<_>>()?;
        let whole = u64::try_from(tail.len()).ok()? == rows.min(TAIL as u64);
        let ordered = tail.is_sorted_by(|a, b| a < b) && tail.first().is_some_and(|first| least <= *first);
        let cell = Cell { group, month, lane };
        (whole && ordered).then_some(CellSummary { cell, rows, hash, adds: Delta { events, sums }, least, tail })
    }
}

/// The summary of a file with these contributions.
#[cfg(test)]
pub(crate) fn summary_of<'c>(
    definition: &Definition,
    contributions: impl IntoIterator<Item = &'c crate::contributions::Contribution>,
) -> Option<Summary> {
    let mut summarizer = Summarizer::new(definition, Month::new(2026, 11)?);
    for one in contributions {
        let (shard, sequence) = (one.origin.shard_id.clone(), one.origin.sequence_number.clone());
        summarizer.add(one.key, shard, sequence, [(one.cell.clone(), one.delta.clone())])?;
    }
    Summary::read(summarizer.bytes()?.into(), definition.measures.len())
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
