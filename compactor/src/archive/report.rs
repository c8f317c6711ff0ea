//! What a run did.

use std::collections::{BTreeMap, BTreeSet};

use recount_schemas::{Month, SequenceNumber, ShardId};
use serde::Serialize;

use crate::log::state::Hole;

/// What a run did, for people and for programs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ArchiveReport {
    /// The entries that it put, renewals not counted.
    pub commits: u64,
    /// The entries that only say again that nothing came.
    pub renewals: u64,
    /// The numbers that somebody else's entry got first.
    pub races: u64,
    /// The plans that were thrown away.
    pub plans_dropped: u64,
    /// The records read and committed = rows + duplicates + conflicts + quarantined.
    pub records: u64,
    /// The rows archived.
    pub rows: u64,
    /// The files added.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// The months that got rows.
    pub months: BTreeSet<Month>,
    /// Records whose event was archived already.
    pub duplicates: u64,
    /// Records with an archived event's key and another content, kept under `conflicts/`.
    pub conflicts: u64,
    /// Records that cannot be judged, kept under `quarantine/`.
    pub quarantined: u64,
    /// Where records may be missing: the stream's retention passed over them.
    pub lost: Vec<Hole>,
    /// Uploads deleted that could never have been committed.
    pub tidied: u64,
    /// Whether every shard, as listed at the last commit, was read to its tip or its end.
    pub reached_tip: bool,
    /// The number of entries in the log at the end.
    pub log_entries: u64,
    /// How far each shard has been read, also those of which nothing was read yet.
    pub shards: BTreeMap<ShardId, ShardReport>,
}

/// How far a shard has been read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShardReport {
    /// The last record archived.
    pub to: Option<SequenceNumber>,
    /// Whether the shard is closed and read to its end.
    pub closed: bool,
    /// When it was last known to be read to its tip, ms since 1970; of one that was never read, when its parents were.
    pub caught_up_ms: Option<i64>,
}
