//! Rows in the order (group, event key) to totals. Pure.
//!
//! Two things are proven on the way, at the cost of a comparison with the row before: that no event key stands twice in a group's
//! month, and how many pairs of rows hold the same change under two event IDs (they have one creation time, so they stand
//! near each other). A key in two groups or months would be two contents under one key, which the archiver refuses; `fsck`
//! checks that across all files.

use std::io;
use std::sync::Arc;

use recount_schemas::{Cell, Delta, EventKey, Group, Month};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::contributions::order;
use crate::usage::{Totalled, UsageError};

/// Most repeated events that are named.
pub const MAX_REPEATED: usize = 1_000;
/// Most rows of one group and millisecond that are held against each other.
const WINDOW: usize = 4_096;

/// One row as the fold needs it.
#[derive(Debug, Clone, Copy)]
pub struct FoldRow<'a> {
    /// The group of its image.
    pub group: Option<&'a str>,
    /// Its event key.
    pub key: EventKey,
    /// The hash of its content.
    pub content: Option<[u8; 16]>,
    /// The file that it is in.
    pub file: &'a Arc<str>,
    /// What it adds.
    pub contributions: &'a [(Cell, Delta)],
}

/// An event key that stands twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeated {
    /// The key.
    pub event_key: EventKey,
    /// The group.
    pub group: Option<String>,
    /// The month.
    pub month: Month,
    /// The file of the row that was not counted.
    pub file: String,
}

/// Totals in the making.
#[derive(Debug)]
pub struct Fold {
    measures: usize,
    month: Option<Month>,
    totals: Totalled,
    /// The sum of a run of rows of one cell, so that a run costs one look-up.
    run: Option<(Group, Month, Delta)>,
    /// The group of the row before.
    group: Option<Arc<str>>,
    /// The key of the row before, in the same month.
    before: Option<EventKey>,
    contents: Vec<[u8; 16]>,
    repeated: u64,
    repeated_events: Vec<Repeated>,
    same_change_pairs: u64,
}

/// What a fold made.
#[derive(Debug)]
pub struct Folded {
    /// The totals.
    pub totals: Totalled,
    /// Rows not counted, since their key stood before.
    pub repeated: u64,
    /// The first of them.
    pub repeated_events: Vec<Repeated>,
    /// Pairs with the same change under different event IDs.
    pub same_change_pairs: u64,
}

impl Fold {
    /// Nothing yet.
    pub fn new(measures: usize) -> Self {
        Self {
            measures,
            month: None,
            totals: Totalled::default(),
            run: None,
            group: None,
            before: None,
            contents: Vec::new(),
            repeated: 0,
            repeated_events: Vec::new(),
            same_change_pairs: 0,
        }
    }

    /// The rows of this month follow.
    pub fn begin(&mut self, month: Month) {
        self.month = Some(month);
        self.before = None;
        self.contents.clear();
    }

    /// Takes one row.
    pub fn row(&mut self, row: &FoldRow<'_>) -> Result<(), UsageError> {
        let same_group = self.group.as_deref() == row.group;
        let before = self.before.filter(|_| same_group);
        if before == Some(row.key) {
            self.repeat(row);
            return Ok(());
        }
        if before.is_none_or(|key| key.created_ms() != row.key.created_ms()) {
            self.contents.clear();
        }
        if let Some(content) = row.content {
            self.same_change_pairs += self.contents.iter().filter(|other| **other == content).count() as u64;
            if self.contents.len() < WINDOW {
                self.contents.push(content);
            }
        }
        if !same_group {
            self.group = row.group.map(Arc::from);
        }
        self.before = Some(row.key);
        for (cell, delta) in row.contributions {
            self.add(cell, delta)?;
        }
        Ok(())
    }

    fn add(&mut self, cell: &Cell, delta: &Delta) -> Result<(), UsageError> {
        if let Some((group, month, sum)) = &mut self.run
            && *group == cell.group
            && *month == cell.month
        {
            let out_of_range = || UsageError::OutOfRange { group: cell.group.clone(), period: cell.month.to_string() };
            *sum = sum.checked_add(delta).ok_or_else(out_of_range)?;
            return Ok(());
        }
        self.end_run()?;
        self.run = Some((cell.group.clone(), cell.month, delta.clone()));
        Ok(())
    }

    fn end_run(&mut self) -> Result<(), UsageError> {
        match self.run.take() {
            Some((group, month, sum)) => self.totals.add(&group, month, &sum),
            None => Ok(()),
        }
    }

    fn repeat(&mut self, row: &FoldRow<'_>) {
        self.repeated += 1;
        if let Some(month) = self.month.filter(|_| self.repeated_events.len() < MAX_REPEATED) {
            let (group, file) = (row.group.map(str::to_owned), row.file.to_string());
            self.repeated_events.push(Repeated { event_key: row.key, group, month, file });
        }
    }

    /// The totals.
    pub fn finish(mut self) -> Result<Folded, UsageError> {
        self.end_run()?;
        // Under `net` a group's month can come to nothing at all; it stays, as it does in the totals table.
        let zero = Delta::zero(self.measures);
        for delta in self.totals.0.values_mut() {
            if let Some(sum) = delta.checked_add(&zero) {
                *delta = sum;
            }
        }
        let Self { totals, repeated, repeated_events, same_change_pairs, .. } = self;
        Ok(Folded { totals, repeated, repeated_events, same_change_pairs })
    }
}

/// A row that owns what it needs: from the external sort.
#[derive(Debug)]
pub struct OwnedRow {
    group: Option<String>,
    key: EventKey,
    content: Option<[u8; 16]>,
    file: Arc<str>,
    contributions: SmallVec<[(Cell, Delta); 2]>,
}

impl OwnedRow {
    /// As the fold takes it.
    pub fn borrow(&self) -> FoldRow<'_> {
        FoldRow {
            group: self.group.as_deref(),
            key: self.key,
            content: self.content,
            file: &self.file,
            contributions: &self.contributions,
        }
    }
}

/// A row as an entry of the external sort, in the order of the files: no group first, then by group, then by key.
pub fn encode(row: &FoldRow<'_>) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(32);
    if let Some(group) = row.group {
        bytes.push(1);
        order::push_text(&mut bytes, group);
    }
    bytes.extend([0, 0]);
    bytes.extend(row.key.as_bytes());
    let value = (row.group, row.content, &**row.file, row.contributions);
    Ok((bytes, serde_json::to_vec(&value).map_err(io::Error::other)?))
}

/// The row of an entry.
pub fn decode(key: &[u8], value: &[u8]) -> io::Result<OwnedRow> {
    type Value = (Option<String>, Option<[u8; 16]>, String, Vec<(Cell, Delta)>);
    let key = key.len().checked_sub(EventKey::LEN).and_then(|at| key.get(at..)).and_then(EventKey::from_slice);
    let key = key.ok_or_else(|| io::Error::other("an entry of the temporary file is damaged"))?;
    let (group, content, file, contributions): Value = serde_json::from_slice(value).map_err(io::Error::other)?;
    Ok(OwnedRow { group, key, content, file: file.into(), contributions: SmallVec::from_vec(contributions) })
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
