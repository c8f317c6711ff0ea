//! The log as a history: told entry by entry from the first one, without the folded logs. What the log's head alone does not say:
//! which entries a live file's rows came by, where each range began and ended, when each entry was made, what was removed when.
//!
//! - [`positions`]: sets of stream positions. Pure.
//! - [`walk`](mod@walk): reading every entry, and naming the first that is not as it must be.
//!
//! `fsck` checks by it, `explain --as-of` and `why` ask it.

pub mod positions;
pub mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use recount_schemas::{Month, SequenceNumber, ShardId};

use crate::log::{Digest, Entry, LiveFile, LogError, State, Stream, names};
pub use positions::Positions;
pub use walk::{Problem, Walked, walk, whole};

/// The entries whose rows a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origins {
    /// Entries that read them from the stream: each row stands in a range of one of these.
    pub read: BTreeSet<u64>,
    /// Entries that brought rows by another way, redriven or backfilled: of these rows the ranges say nothing.
    pub brought: BTreeSet<u64>,
}

/// What an entry read of one shard, where it read anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The shard.
    pub shard: ShardId,
    /// The last record of the range before.
    pub from: Option<SequenceNumber>,
    /// The last record of this range.
    pub to: SequenceNumber,
    /// How many of its records were quarantined.
    pub quarantined: u64,
    /// How many were conflicts.
    pub conflicts: u64,
}

impl Span {
    /// Whether a position is in it.
    pub fn has(&self, shard: &str, sequence: &str) -> bool {
        self.shard.as_str() == shard
            && positions::is_above(sequence, self.from.as_ref().map(SequenceNumber::as_str))
            && !positions::is_above(sequence, Some(self.to.as_str()))
    }
}

/// One entry, as far as it is asked about later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// When it was made, ms since 1970.
    pub at_ms: i64,
    /// The life of the stream that it read, as an index into [`History::streams`].
    pub stream: Option<usize>,
    /// What it read.
    pub spans: Vec<Span>,
}

/// A file that an entry removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The entry that removed it.
    pub by: u64,
    /// When that entry was made, ms since 1970.
    pub at_ms: i64,
    /// The file as it was live.
    pub live: LiveFile,
}

/// The log, folded and told.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Folded up to its head.
    pub state: State,
    /// The entries, by number.
    pub entries: Vec<Told>,
    /// The lives of streams that were read.
    pub streams: Vec<Stream>,
    /// Where the rows of each live file came from, by target.
    pub origins: BTreeMap<String, Arc<Origins>>,
    /// The files that were removed, by target: those that the caller asked for.
    pub removed: BTreeMap<String, Removed>,
}

impl History {
    /// Takes the next entry, whose stored bytes have the digest `digest`. `remembers` says which removed files are kept.
    pub fn take(&mut self, entry: Entry, digest: Digest, remembers: &dyn Fn(&str) -> bool) -> Result<(), LogError> {
        let before: Vec<(String, LiveFile)> = entry
            .removed
            .iter()
            .filter_map(|target| Some((target.clone(), self.state.find(target)?.clone())))
            .collect();
        let told = self.told(&entry);
        let (n, at_ms) = (entry.n, entry.at_ms);
        // The entry is the state's own once it has been taken: what is needed of it is made before.
        let origins = self.origins_by(&entry);
        self.state.apply(entry, digest)?;
        self.entries.push(told);
        for (target, live) in before {
            self.origins.remove(&target);
            if remembers(&target) {
                self.removed.insert(target, Removed { by: n, at_ms, live });
            }
        }
        self.origins.extend(origins);
        Ok(())
    }

    fn told(&mut self, entry: &Entry) -> Told {
        let stream = entry.stream.as_ref().map(|stream| {
            self.streams.iter().position(|known| known == stream).unwrap_or_else(|| {
                self.streams.push(stream.clone());
                self.streams.len() - 1
            })
        });
        let spans = entry.ranges.iter().filter(|range| range.records > 0).filter_map(|range| {
            Some(Span {
                shard: range.shard.clone(),
                from: range.from.clone(),
                to: range.to.clone()?,
                quarantined: range.quarantined,
                conflicts: range.conflicts,
            })
        });
        // A seed takes over what another log read. What of it was quarantined or a conflict there is judged anew: none is counted.
        let taken_over = entry.seed.iter().flat_map(|seed| seed.streams.values()).flat_map(|end| &end.shards);
        let taken_over = taken_over.filter_map(|(shard, end)| {
            Some(Span { shard: shard.clone(), from: None, to: end.to.clone()?, quarantined: 0, conflicts: 0 })
        });
        Told { at_ms: entry.at_ms, stream, spans: spans.chain(taken_over).collect() }
    }

    /// Where the rows of the files come from that an entry adds.
    ///
    /// | the entry | the file | its rows' entries |
    /// | --- | --- | --- |
    /// | removes files | taken over as it is | those of the file that it was |
    /// | removes files | made anew | those of all files of the month that it removes and does not take over |
    /// | removes none, read a shard | – | this one |
    /// | removes none, read no shard | – | this one, which brought them |
    fn origins_by(&self, entry: &Entry) -> Vec<(String, Arc<Origins>)> {
        let taken_over: BTreeSet<&str> = entry.added.iter().map(|file| file.source.as_str()).collect();
        let mut merged: BTreeMap<Month, Origins> = BTreeMap::new();
        for target in entry.removed.iter().filter(|target| !taken_over.contains(target.as_str())) {
            let Some(month) = names::parse_target(target).map(|target| target.month) else { continue };
            let Some(of_file) = self.origins.get(target) else { continue };
            let of_month = merged.entry(month).or_default();
            of_month.read.extend(&of_file.read);
            of_month.brought.extend(&of_file.brought);
        }
        let merged: BTreeMap<Month, Arc<Origins>> = merged.into_iter().map(|(m, o)| (m, Arc::new(o))).collect();
        let own = Arc::new(match entry.ranges.is_empty() {
            false => Origins { read: [entry.n].into(), ..Origins::default() },
            true => Origins { brought: [entry.n].into(), ..Origins::default() },
        });
        let of_file = |file: &crate::log::AddedFile| match entry.removed.is_empty() {
            true => Arc::clone(&own),
            false => {
                let before = self.origins.get(&file.source).or_else(|| merged.get(&file.month));
                before.cloned().unwrap_or_default()
            }
        };
        entry.added.iter().map(|file| (file.target.clone(), of_file(file))).collect()
    }

    /// The positions that these entries read.
    pub fn positions_of<'a>(&self, entries: impl IntoIterator<Item = &'a u64>) -> Positions {
        let told = entries.into_iter().filter_map(|n| self.entries.get(usize::try_from(*n).ok()?));
        Positions::of(told.flat_map(|told| &told.spans))
    }

    /// The positions that were read up to and by entry `n`.
    pub fn positions_up_to(&self, n: u64) -> Positions {
        let entries = usize::try_from(n).unwrap_or(usize::MAX).saturating_add(1);
        Positions::of(self.entries.iter().take(entries).flat_map(|told| &told.spans))
    }

    /// The entry that read a position, and what it is told to be.
    pub fn reader_of(&self, shard: &str, sequence: &str) -> Option<(u64, &Told)> {
        let mut numbered = (0..).zip(&self.entries);
        numbered.find(|(_, told)| told.spans.iter().any(|span| span.has(shard, sequence)))
    }

    /// The last entry made at or before this time, ms since 1970.
    pub fn as_of_ms(&self, at_ms: i64) -> Option<u64> {
        self.entries.iter().rposition(|told| told.at_ms <= at_ms).and_then(|n| u64::try_from(n).ok())
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
pub(crate) mod tests;
