//! The rows of one file held against what the log says of them. Pure.
//!
//! | what | how |
//! | --- | --- |
//! | number, key range, group range | counted while passing |
//! | order | each row against the one before: by group, those without one first, then by event key |
//! | fingerprint | made anew from content hashes, event keys and measures |
//! | positions | each in a range of an entry by which the file's rows came |
//! | where fsck looks deep, each row | made anew from its own record, see [`derive`](super::derive) |
//!
//! Equal neighbours are in order here: that a key stands twice is another finding.

use recount_schemas::position::is_beside_the_stream;
use recount_schemas::{Amount, Definition, EventKey, Month};

use super::columns::{Columns, amount, text};
use super::derive::Deriver;
use super::finding::{Finding, Kind};
use crate::history::Positions;
use crate::log::{AddedFile, Fingerprint};
use crate::rows::row::{ERASED, row_hash};

/// Where a file's rows may stand in the stream.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// The ranges of the entries that read them.
    pub read: Positions,
    /// For a file with rows that entries brought by another way: the ranges of the whole log, where redriven records stood. Those
    /// that were backfilled, or too large for the stream, stand beside it.
    pub anywhere: Option<Positions>,
}

impl Allowed {
    fn has(&self, shard: &str, sequence: &str) -> bool {
        self.read.has(shard, sequence)
            || self.anywhere.as_ref().is_some_and(|all| is_beside_the_stream(shard) || all.has(shard, sequence))
    }
}

/// The first of some rows that are not as they must be, and how many there are.
#[derive(Debug, Default)]
struct First {
    example: Option<String>,
    rows: u64,
}

impl First {
    fn note(&mut self, example: impl FnOnce() -> String) {
        self.rows += 1;
        if self.example.is_none() {
            self.example = Some(example());
        }
    }

    fn finding(self, kind: Kind, object: &str) -> Option<Finding> {
        let example = self.example?;
        let more = match self.rows {
            1 => String::new(),
            rows => format!(", and {} more rows", rows - 1),
        };
        Some(Finding::new(kind, object, format!("{example}{more}")))
    }
}

/// The rows of one file, passed in their order.
#[derive(Debug)]
pub struct Tally<'d> {
    definition: &'d Definition,
    month: Month,
    allowed: &'d Allowed,
    rows: u64,
    erased: u64,
    hash: u128,
    counts: Option<u128>,
    sums: Vec<Option<i128>>,
    keys: Option<(EventKey, EventKey)>,
    groups: Option<(String, String)>,
    before: Option<(Option<String>, EventKey)>,
    order: First,
    position: First,
    row: First,
    deriver: Option<Deriver>,
}

impl<'d> Tally<'d> {
    /// No row yet. Deep: each row is made anew from its record.
    pub fn new(definition: &'d Definition, month: Month, allowed: &'d Allowed, deep: bool) -> Self {
        Self {
            definition,
            month,
            allowed,
            rows: 0,
            erased: 0,
            hash: 0,
            counts: deep.then_some(0),
            sums: vec![Some(0); definition.measures.len()],
            keys: None,
            groups: None,
            before: None,
            order: First::default(),
            position: First::default(),
            row: First::default(),
            deriver: deep.then(Deriver::default),
        }
    }

    /// Passes a batch; its event keys go to `keys`.
    pub fn pass(&mut self, columns: &Columns, keys: &mut Vec<EventKey>) {
        keys.clear();
        for i in 0..columns.rows {
            let number = self.rows;
            self.rows += 1;
            let (Some(key), Some(content)) = (columns.key(i), columns.content(i)) else {
                self.row.note(|| format!("row {number} has no event key or no content hash of 16 bytes"));
                continue;
            };
            keys.push(key);
            self.erased += u64::from(content == ERASED);
            self.hash = self.hash.wrapping_add(row_hash(&content, key));
            self.sum(columns, i);
            self.keys = Some(self.keys.map_or((key, key), |(least, greatest)| (least.min(key), greatest.max(key))));
            self.pass_order(number, columns.group(i), key);
            self.pass_position(number, key, text(&columns.shards, i), text(&columns.sequences, i));
            if let Some(deriver) = &mut self.deriver {
                let derived = deriver.derive(columns, i, key, content, self.month, self.definition);
                let derived = derived.unwrap_or_else(|why| {
                    self.row.note(|| format!("row {number}, event {key}: {why}"));
                    None
                });
                self.counts = self.counts.zip(derived).map(|(all, row)| all.wrapping_add(row));
            }
        }
    }

    fn sum(&mut self, columns: &Columns, i: usize) {
        for (sum, column) in self.sums.iter_mut().zip(&columns.measures) {
            *sum = sum.and_then(|sum| sum.checked_add(amount(column, i).unwrap_or(0)));
        }
    }

    fn pass_order(&mut self, number: u64, group: Option<&str>, key: EventKey) {
        match &mut self.before {
            Some((of, before)) if of.as_deref() == group => {
                if *before > key {
                    self.order.note(|| format!("row {number}, event {key}, stands behind event {before}"));
                }
                *before = key;
                return;
            }
            Some((of, _)) if of.as_deref() > group => {
                self.order
                    .note(|| format!("row {number}, event {key}, is of a group before that of the row before it"));
            }
            _ => {}
        }
        // A new group: there are few of these, so their names may take memory.
        if let Some(group) = group {
            self.groups = Some(match self.groups.take() {
                None => (group.to_owned(), group.to_owned()),
                Some((least, greatest)) if group < least.as_str() => (group.to_owned(), greatest),
                Some((least, greatest)) if group > greatest.as_str() => (least, group.to_owned()),
                Some(both) => both,
            });
        }
        self.before = Some((group.map(str::to_owned), key));
    }

    fn pass_position(&mut self, number: u64, key: EventKey, shard: Option<&str>, sequence: Option<&str>) {
        let (shard, sequence) = (shard.unwrap_or_default(), sequence.unwrap_or_default());
        if !self.allowed.has(shard, sequence) {
            self.position.note(|| {
                format!("row {number}, event {key}, stands at {shard} {sequence}, which none of its entries read")
            });
        }
    }

    /// What does not agree with the log.
    pub fn finish(self, file: &AddedFile) -> Vec<Finding> {
        let object = file.target.as_str();
        let mut findings = Vec::new();
        let mut differs = |kind, agrees: bool, detail: &dyn Fn() -> String| {
            if !agrees {
                findings.push(Finding::new(kind, object, detail()));
            }
        };
        differs(Kind::Rows, self.rows == file.rows, &|| format!("{} rows, the log says {}", self.rows, file.rows));
        let keys = Some((file.first_key, file.last_key));
        differs(Kind::KeyRange, self.keys == keys, &|| {
            let range =
                self.keys.map_or_else(|| "none".to_owned(), |(least, greatest)| format!("{least} to {greatest}"));
            format!("event keys {range}, the log says {} to {}", file.first_key, file.last_key)
        });
        let groups = file.first_group.clone().zip(file.last_group.clone());
        differs(Kind::GroupRange, self.groups == groups, &|| {
            let range = |groups: &Option<(String, String)>| match groups {
                Some((least, greatest)) => format!("{least:?} to {greatest:?}"),
                None => "none".to_owned(),
            };
            format!("groups {}, the log says {}", range(&self.groups), range(&groups))
        });
        // What is wrong with single rows or their number shows in the fingerprint, too: it is said once.
        if self.rows == file.rows && self.row.rows == 0 {
            let same = self.is(&file.fingerprint);
            differs(Kind::Fingerprint, same, &|| "its rows are not the multiset that the log says".to_owned());
        }
        findings.extend(self.order.finding(Kind::Order, object));
        findings.extend(self.position.finding(Kind::Position, object));
        findings.extend(self.row.finding(Kind::Row, object));
        findings
    }

    fn is(&self, said: &Fingerprint) -> bool {
        let measures = self.definition.measures.iter().zip(&self.sums);
        let sums: Option<std::collections::BTreeMap<String, Amount>> =
            measures.map(|(m, sum)| Some((m.column.clone(), Amount::from_billionths((*sum)?)))).collect();
        let counts = self.counts.is_none() || said.counts.is_none() || self.counts == said.counts;
        // Of a file of an older version the log does not say it. That it says too many would keep an erasure from them.
        let erased = said.erased <= self.erased;
        erased && (self.rows, self.hash) == (said.rows, said.hash) && sums.as_ref() == Some(&said.sums) && counts
    }
}
