//! What a compaction would do, or did.

use std::collections::BTreeMap;

use recount_schemas::Month;
use serde::Serialize;

/// What a compaction would do, or did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CompactReport {
    /// Whether it was to change anything.
    pub confirmed: bool,
    /// The months with files that are worth merging.
    pub months: BTreeMap<Month, MonthReport>,
    /// Files that an earlier compaction or erasure removed: deleted, or, in a plan, to be deleted now.
    pub deleted: u64,
    /// Their size.
    pub deleted_bytes: u64,
    /// Files that were removed and stay until their month's grace is over.
    pub waiting: u64,
    /// The catalog by which readers find the months, where this run was not told of it: nothing is compacted, and no removed file
    /// deleted, then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_catalog: Option<String>,
    /// Uploads deleted that could never have been committed.
    pub tidied: u64,
    /// The numbers that somebody else's entry got first.
    pub races: u64,
    /// Whether nothing is left to do that could be done now.
    pub finished: bool,
    /// The number of entries in the log at the end.
    pub log_entries: u64,
}

/// A month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MonthReport {
    /// What became of it.
    pub outcome: Outcome,
    /// Its live files before.
    pub live: u64,
    /// Those that are merged.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Their size.
    pub bytes: u64,
    /// The files that they became; of a plan, the least that they can become.
    pub into: u64,
    /// The size of these; of a plan, 0.
    pub into_bytes: u64,
}

/// What became of a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It would be compacted.
    Planned,
    /// It was, by this entry.
    Compacted(u64),
    /// Its last compaction is younger than the grace; it may be compacted from then on, ms since 1970.
    NotDue(i64),
    /// Somebody else replaced its files meanwhile.
    Overtaken,
    /// The log went too far on while its files were merged: its uploads can not be committed any more.
    TooLate,
    /// The run's time was up.
    NoTime,
}
