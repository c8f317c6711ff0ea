//! The archive's rows as contributions to cells, in the order (month, group, event key).
//!
//! - [`columns`]: the columns of a batch of rows, typed; what one row adds to which cells.
//! - [`locate`]: finding single keys, whatever cell they belong to.
//! - [`merge`]: the sorted files of one month as one sorted stream of rows.
//! - [`reader`]: contributions in order, merged where the files' order is the cells' order, sorted outside memory where not.
//! - [`spill`]: the external sort.
//! - [`order`]: keys of bytes that sort as (month, group, …) do.

pub mod columns;
pub mod locate;
pub mod merge;
pub mod order;
pub mod reader;
pub mod spill;

use std::sync::Arc;

use recount_schemas::{Cell, Delta, EventKey, Month};

use crate::bucket::BucketError;
use crate::log::AddedFile;
use crate::reconcile::finding::Origin;

/// The archive could not be read as contributions.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The rows could not be read.
    #[error(transparent)]
    Rows(#[from] crate::rows::RowsError),
    /// A file does not have the columns that it should have.
    #[error(
        "{file}: column {column:?} is missing or of another type; run `recount archive` of the version that wrote it"
    )]
    Column {
        /// The file.
        file: String,
        /// The column.
        column: String,
    },
    /// A row holds something that no archived row can hold.
    #[error("{file}, row of event {event_key}: {why}")]
    Row {
        /// The file.
        file: String,
        /// The event's key.
        event_key: String,
        /// What is wrong.
        why: String,
    },
    /// The rows of a file are not in the order (group, event key), or one stands twice.
    #[error("{file}: its rows are not in strict order of group and event key at {event_key}; the archive is damaged")]
    Unsorted {
        /// The file.
        file: String,
        /// The event key at which it shows.
        event_key: String,
    },
    /// The rows were made under another definition.
    #[error("{file} was made under definition {found}, not under this one ({wanted}); other totals need a rebuild")]
    Definition {
        /// The file.
        file: String,
        /// Its definition's hash.
        found: String,
        /// The hash of the definition in use.
        wanted: String,
    },
    /// The temporary file failed.
    #[error("sorting in the temporary directory failed: {0}")]
    Spill(#[from] std::io::Error),
}

/// One archived event's contribution to one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contribution {
    /// The cell.
    pub cell: Cell,
    /// The event's key.
    pub key: EventKey,
    /// What it adds.
    pub delta: Delta,
    /// Where it stands.
    pub origin: Origin,
}

/// Which cells are looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Only this group.
    pub group: Option<recount_schemas::Group>,
    /// Only this month.
    pub month: Option<Month>,
    /// Only these cells.
    pub cells: Option<Arc<std::collections::BTreeSet<Cell>>>,
}

impl Scope {
    /// Every cell.
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether it has the cell.
    pub fn has(&self, cell: &Cell) -> bool {
        self.group.as_ref().is_none_or(|group| *group == cell.group)
            && self.month.is_none_or(|month| month == cell.month)
            && self.cells.as_ref().is_none_or(|cells| cells.contains(cell))
    }

    /// Whether a cell of that month may be in it.
    pub fn has_month(&self, month: Month) -> bool {
        self.month.is_none_or(|only| only == month)
            && self.cells.as_ref().is_none_or(|cells| cells.iter().any(|cell| cell.month == month))
    }

    /// Whether a file of rows sorted by group may have rows of its cells, where a row's own group and month are those of
    /// the cell (`count = "inserts"`).
    pub fn may_be_in(&self, file: &AddedFile) -> bool {
        let (Some(first), Some(last)) = (&file.first_group, &file.last_group) else { return false };
        let within = |group: &str| first.as_str() <= group && group <= last.as_str();
        self.has_month(file.month)
            && self.group.as_ref().is_none_or(|group| within(group.as_str()))
            && self
                .cells
                .as_ref()
                .is_none_or(|cells| cells.iter().any(|cell| cell.month == file.month && within(cell.group.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Digest, Fingerprint};
    use recount_schemas::EventKey;

    fn cell(group: &str, month: &str) -> Cell {
        Cell { group: group.parse().unwrap(), month: month.parse().unwrap(), lane: 0 }
    }

    /// The scope of a group, a month, and cells; whatever is given must hold.
    fn scope(group: Option<&str>, month: Option<&str>, cells: Option<&[(&str, &str)]>) -> Scope {
        let cells = cells.map(|cells| Arc::new(cells.iter().map(|(group, month)| cell(group, month)).collect()));
        Scope { group: group.map(|text| text.parse().unwrap()), month: month.map(|text| text.parse().unwrap()), cells }
    }

    #[test]
    fn a_scope_has_what_all_its_parts_have() {
        let (mine, theirs) = (cell("b", "2026-11"), cell("c", "2026-12"));
        for (scope, has_theirs) in [
            (Scope::all(), true),
            (scope(Some("b"), None, None), false),
            (scope(None, Some("2026-11"), None), false),
            (scope(None, None, Some(&[("b", "2026-11")])), false),
        ] {
            assert!(scope.has(&mine), "{scope:?}");
            assert_eq!(scope.has(&theirs), has_theirs, "{scope:?}");
        }
        assert!(!scope(Some("b"), Some("2026-12"), None).has(&mine));
        assert!(!scope(Some("c"), Some("2026-11"), Some(&[("b", "2026-11")])).has(&mine));
    }

    #[test]
    fn a_file_is_left_out_only_if_it_can_have_no_row_of_the_scope() {
        let file = |first: Option<&str>, last: Option<&str>| AddedFile {
            source: String::new(),
            target: String::new(),
            month: "2026-11".parse().unwrap(),
            rows: 1,
            bytes: 1,
            sha256: Digest::of(b""),
            first_key: EventKey::MIN,
            last_key: EventKey::MAX,
            first_group: first.map(str::to_owned),
            last_group: last.map(str::to_owned),
            fingerprint: Fingerprint::default(),
        };
        let b_to_d = file(Some("b"), Some("d"));
        for (scope, expected) in [
            (Scope::all(), true),
            (scope(Some("a"), None, None), false),
            (scope(Some("b"), None, None), true),
            (scope(Some("c"), Some("2026-11"), None), true),
            (scope(Some("d"), None, None), true),
            (scope(Some("e"), None, None), false),
            (scope(Some("c"), Some("2026-12"), None), false),
            (scope(None, None, Some(&[("a", "2026-11"), ("c", "2026-12")])), false),
            (scope(None, None, Some(&[("a", "2026-11"), ("c", "2026-11")])), true),
            (scope(Some("a"), None, Some(&[("c", "2026-11")])), false),
        ] {
            assert_eq!(scope.may_be_in(&b_to_d), expected, "{scope:?}");
        }
        assert!(!Scope::all().may_be_in(&file(None, None)), "rows without a group are of no cell");
        let month = |text: &str| text.parse().unwrap();
        let november = scope(None, None, Some(&[("a", "2026-11")]));
        assert!(november.has_month(month("2026-11")) && !november.has_month(month("2026-12")));
    }
}
