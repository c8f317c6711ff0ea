//! Erasure: rows of the archive lose what says who they are about, and count as before.
//!
//! - [`select`]: which rows: an item's, by its key; or all of the months before one.
//! - [`strip`]: what such a row loses.
//! - [`aside`]: the same for records kept in quarantine and as conflicts.
//! - [`retain`]: retention: the months that are older than the definition keeps, some a run.
//! - [`source`]: whether the source table still has the item.
//! - [`run`]: a run: find the rows, write their files anew, prove, put one entry a month, delete the old files.
//!
//! | of a row | after an erasure |
//! | --- | --- |
//! | keys, images, user identity | gone. Under `count = "net"` the images keep the attributes that the definition counts by: group, time, measures |
//! | envelope | `{"erased":true}` |
//! | content hash | zeros, the mark of an erased row: a hash of all that was there could be guessed at. A record that comes again with its key is a duplicate, whatever it holds |
//! | event key and ID, name, class, group, times, table, place in the stream, measures | kept: totals, ledgers and positions depend on them |
//!
//! So no total changes: the log refuses an erasure whose rows do not count as those before. What remains is a count under the
//! row's group; where the group itself names a person, only another definition, and a rebuild, can take that away.

pub mod aside;
pub mod retain;
#[cfg(test)]
mod retain_tests;
pub mod run;
#[cfg(test)]
mod run_tests;
pub mod select;
pub mod source;
pub mod strip;

pub use retain::Retention;
pub use run::{EraseReport, Eraser};
pub use select::{ItemKey, KeyError, Rows};

use recount_schemas::{Definition, Month};

use crate::archive::ArchiveError;
use crate::compact::CompactError;

impl EraseError {
    /// Whether it was not asked well: by a definition that is not the archive's, or with too short a grace.
    pub fn is_usage(&self) -> bool {
        use CompactError::{Archive, ShortGrace};
        matches!(
            self,
            Self::Present { .. } | Self::Compact(Archive(ArchiveError::OtherDefinition { .. }) | ShortGrace { .. })
        )
    }
}

/// Whether rows of the months before this one may still come, since the present month is one of them.
pub fn takes_in_present(before: Month, now_us: i64, definition: &Definition) -> Option<Month> {
    Month::of(now_us, definition.zone.rules()).filter(|present| before > *present)
}

/// An erasure failed. What it had committed stays; run again, it goes on.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The log, the bucket, the files.
    #[error(transparent)]
    Compact(#[from] CompactError),
    /// The log does not say what a file's rows count.
    #[error(
        "files of month {0} were written before the log said what rows count, so that an erasure could not be proven to change no \
         total; run `recount compact --month {0} --confirm` first"
    )]
    Unproven(Month),
    /// The month goes on.
    #[error(
        "--before {before} takes in the present month, {present}: rows that come into it later would keep their data; --before \
         {present} erases the months that are over, --with-present-month these too"
    )]
    Present {
        /// What was asked for.
        before: Month,
        /// The present month, by the definition's time zone.
        present: Month,
    },
    /// A kept record could not be understood.
    #[error("{key} is no kept record: {why}; it was left as it is")]
    Aside {
        /// The object.
        key: String,
        /// What is wrong.
        why: String,
    },
}
