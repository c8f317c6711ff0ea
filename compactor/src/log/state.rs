//! The log folded up: what is live, and how far each shard has been read. Pure.

use std::collections::BTreeMap;

use recount_schemas::{Month, SequenceNumber, ShardId, bugs};
use serde::{Deserialize, Serialize};

use super::check::{self, LogError};
use super::entry::{AddedFile, Digest, Entry, Kind, Lost, Stream};

/// A plan whose uploads began when the log had `base` entries is put at most under number `base + WINDOW - 1`, which is
/// 64 beyond the head of that moment. So who finds the log past that knows the uploads for garbage.
pub const WINDOW: u64 = 64;

/// [`WINDOW`]; a few in simulated histories that want it so, since hardly any has 64 entries.
pub fn window() -> u64 {
    bugs::number(WINDOW, 6)
}

/// A file that is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveFile {
    /// The entry that added it.
    pub n: u64,
    /// The definition that its rows were made under.
    pub definition: String,
    /// The file.
    pub file: AddedFile,
}

/// How far a shard has been read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ShardEnd {
    /// The last record read; `None` where none has been.
    pub to: Option<SequenceNumber>,
    /// Whether it has been read to the end of a closed shard.
    pub closed: bool,
    /// See [`ShardRange::caught_up_ms`](super::ShardRange::caught_up_ms).
    pub caught_up_ms: Option<i64>,
}

/// The shards of one life of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StreamEnd {
    /// The shortest retention under which it was ever read, in hours: what a longer one would have kept was gone.
    pub retention_hours: Option<u32>,
    /// How far each shard has been read.
    pub shards: BTreeMap<ShardId, ShardEnd>,
}

/// Records may be missing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The entry that found it.
    pub n: u64,
    /// The stream.
    pub stream: Stream,
    /// The shard.
    pub shard: ShardId,
    /// Between which records and times.
    pub lost: Lost,
}

/// The log folded up to its head.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// The number of entries; the next one's number.
    pub next: u64,
    /// The SHA-256 of the last entry.
    pub head: Option<Digest>,
    /// The last entry: whoever wants to add one finishes it first.
    pub last: Option<Entry>,
    /// The live files of each month, by target.
    pub files: BTreeMap<Month, BTreeMap<String, LiveFile>>,
    /// Each month's version: the number of its last compaction; a month that is not here has 0.
    pub versions: BTreeMap<Month, u64>,
    /// The streams that were read.
    #[serde(with = "as_pairs")]
    pub streams: BTreeMap<Stream, StreamEnd>,
    /// Every hole ever found.
    pub lost: Vec<Hole>,
}

pub(super) mod as_pairs {
    use super::{BTreeMap, Stream, StreamEnd};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        map: &BTreeMap<Stream, StreamEnd>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Stream, StreamEnd>, D::Error> {
        Vec::<(Stream, StreamEnd)>::deserialize(deserializer).map(|pairs| pairs.into_iter().collect())
    }
}

impl State {
    /// The state with one entry more, whose stored bytes have the digest `digest`. An entry that cannot follow is an
    /// error, and the state stays as it is: see [`check`].
    pub fn apply(&mut self, entry: Entry, digest: Digest) -> Result<(), LogError> {
        check::follows(self, &entry)?;
        for target in &entry.removed {
            for files in self.files.values_mut() {
                files.remove(target);
            }
        }
        self.files.retain(|_, files| !files.is_empty());
        self.versions.extend(entry.versions.iter().map(|(month, version)| (*month, *version)));
        for file in &entry.added {
            let live = LiveFile { n: entry.n, definition: entry.definition.clone(), file: file.clone() };
            self.files.entry(file.month).or_default().insert(file.target.clone(), live);
        }
        if let Some(seed) = &entry.seed {
            self.streams.clone_from(&seed.streams);
            self.lost.clone_from(&seed.lost);
        }
        if let Some(stream) = &entry.stream {
            let end = self.streams.entry(stream.clone()).or_default();
            end.retention_hours = match (end.retention_hours, entry.retention_hours) {
                (Some(before), Some(now)) => Some(before.min(now)),
                (before, now) => before.or(now),
            };
            for range in &entry.ranges {
                let shard = ShardEnd { to: range.to.clone(), closed: range.closed, caught_up_ms: range.caught_up_ms };
                end.shards.insert(range.shard.clone(), shard);
                if let Some(lost) = &range.lost {
                    let (stream, shard) = (stream.clone(), range.shard.clone());
                    self.lost.push(Hole { n: entry.n, stream, shard, lost: lost.clone() });
                }
            }
        }
        self.next = entry.n + 1;
        self.head = Some(digest);
        self.last = Some(entry);
        Ok(())
    }

    /// The version of a month.
    pub fn version(&self, month: Month) -> u64 {
        self.versions.get(&month).copied().unwrap_or(0)
    }

    /// All live files, by month and target.
    pub fn live(&self) -> impl Iterator<Item = &LiveFile> {
        self.files.values().flat_map(BTreeMap::values)
    }

    /// The live file of that target.
    pub fn find(&self, target: &str) -> Option<&LiveFile> {
        let month = super::names::parse_target(target)?.month;
        self.files.get(&month)?.get(target)
    }

    /// How far the shards of a stream have been read.
    pub fn stream(&self, stream: &Stream) -> Option<&StreamEnd> {
        self.streams.get(stream)
    }

    /// Whether the last entry was a compaction.
    pub fn last_is_compaction(&self) -> bool {
        self.last.as_ref().is_some_and(|entry| entry.kind == Kind::Compaction)
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
pub(crate) mod tests;
