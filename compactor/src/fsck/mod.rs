//! Whether the archive is what its log says: log, objects, bytes, rows.
//!
//! Reads only. What the totals say is not asked: that is reconcile's part.
//!
//! - [`finding`]: the kinds of findings, and what to do about each.
//! - [`run`]: the order of things: listings, then the log, then the files, two at a time, then what they come to together.
//! - [`names`]: what the names under a prefix say of objects, by the log. Pure.
//! - [`file`](mod@file): one file: where it is, its bytes, its rows. [`spool`]: an object, fetched once.
//! - [`tally`]: rows against the log. Pure. [`columns`]: the rows, typed. [`mod@derive`]: a row made anew from its own record.
//! - [`keys`]: the event keys that stand twice, whatever their files and months.
//! - [`aside`]: quarantine and conflicts against the log's counters.
//! - [`mod@mend`]: the little that can safely be repaired here.
//!
//! The rules of the log themselves (dense, chained, ranges that tile, parents before children, records accounted for, removals of
//! live files, names that fit) are those by which everybody reads it, `log/check.rs`; fsck holds every entry against them from
//! the first one on. The listings come before the log: an object that is listed was named before it was there, so what no entry
//! names is foreign, also while commits go on. What seems missing is looked for again in the log as it is then.

pub mod aside;
pub mod columns;
pub mod derive;
pub mod file;
pub mod finding;
pub mod keys;
pub mod mend;
pub mod names;
pub mod run;
pub mod spool;
pub mod tally;

#[cfg(test)]
mod fsck_tests;

use std::collections::BTreeMap;

use recount_schemas::Month;
use serde::{Deserialize, Serialize};

pub use finding::{Finding, Kind};
pub use mend::{Step, mend};
pub use run::fsck;

use crate::archive::ArchiveError;
use crate::bucket::BucketError;
use crate::log::StoreError;
use crate::reconcile::Verdict;
use crate::reconcile::evidence::EvidenceError;
use crate::rows::RowsError;

/// How far fsck looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Only this month's files are read; the log and all names are looked at anyway.
    pub month: Option<Month>,
    /// Each row is made anew from its own record, and each kept record is read.
    pub deep: bool,
}

/// What was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checked {
    /// Entries of the log.
    pub entries: u64,
    /// Folded logs.
    pub states: u64,
    /// Live files.
    pub files: u64,
    /// Removed files that were still there.
    pub removed: u64,
    /// Bytes of files, read and hashed.
    pub bytes: u64,
    /// Rows of live files.
    pub rows: u64,
    /// Objects under `events/` and `_staging/`.
    pub objects: u64,
    /// Records in quarantine.
    pub quarantined: u64,
    /// Conflicting variants.
    pub conflicts: u64,
    /// The only month whose files were read; `None`: of all months.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month: Option<Month>,
    /// Whether rows were made anew from their records.
    pub deep: bool,
}

/// What fsck says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Clean, or findings; undecided where nothing is of the month that was asked for.
    pub verdict: Verdict,
    /// What was looked at.
    pub checked: Checked,
    /// What is wrong, by kind and object.
    pub findings: Vec<Finding>,
    /// Of some kinds, how many more there are than are listed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub more: BTreeMap<Kind, u64>,
    /// Why no file was looked at, where the log cannot be followed or has none of the month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// What `--repair` would do, or has done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repair: Vec<Step>,
}

/// Fsck could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The log could not be read, or is newer than this program.
    #[error(transparent)]
    Log(#[from] StoreError),
    /// A file was written by a newer program, or could not be read.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// An object could not be fetched.
    #[error(transparent)]
    Spool(#[from] spool::SpoolError),
    /// The temporary directory failed.
    #[error("sorting keys in the temporary directory failed: {0}")]
    Keys(#[from] std::io::Error),
    /// What is kept beside the archive could not be listed.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// There are more objects than can be held.
    #[error("there are more than {most} objects under {prefix}; find out why before checking the rest")]
    TooMany {
        /// Where.
        prefix: &'static str,
        /// The limit.
        most: usize,
    },
    /// The archive is another definition's.
    #[error(
        "{file} was made under definition {found}, not under this one ({ours}); use the definition that made the archive"
    )]
    OtherDefinition {
        /// The file.
        file: String,
        /// Its definition's hash.
        found: String,
        /// The hash of the definition in use.
        ours: String,
    },
    /// The catalog did not answer.
    #[error("what the catalog shows could not be read: {0}")]
    Catalog(String),
    /// The check of a file was broken off.
    #[error("the check of {file} was broken off: {why}")]
    BrokenOff {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
    /// The repair failed.
    #[error(transparent)]
    Mend(#[from] ArchiveError),
}
