//! What can go wrong with the totals.

use recount_schemas::Cell;
use recount_schemas::items::FORMAT;

use crate::expressions::TooLarge;
use crate::retry::{Class, Failure};
use aws_sdk_dynamodb::error::ProvideErrorMetadata;

/// Why an item was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// It was written by a newer version.
    #[error("its format {0} is newer than {FORMAT}, the newest that this program reads; use a newer program")]
    Newer(u64),
    /// An attribute is missing or has the wrong shape.
    #[error("attribute {attribute:?} is not {expected}")]
    Attribute {
        /// The attribute.
        attribute: String,
        /// What it should be.
        expected: &'static str,
    },
    /// It takes no update as it is: it is too large, or a number in it is.
    #[error("DynamoDB takes no update of it: {0:?}")]
    TakesNoUpdate(String),
    /// Its keys are not those of a cell.
    #[error("it is not a cell: its keys are not a group and a month with a lane")]
    NotACell,
}

/// What can go wrong with the totals.
#[derive(Debug, thiserror::Error)]
pub enum TotalsError {
    /// A request failed, after all attempts.
    #[error("{what} failed: {detail}")]
    Request {
        /// What was attempted, on what.
        what: String,
        /// The last answer.
        detail: String,
        /// Whether the same may succeed later.
        may_pass: bool,
    },
    /// Other writers were always faster, or the cell is full and could not be sealed.
    #[error("cell {month}#{lane} was refused {refusals} times; other writers were faster, or it is full and cannot be sealed", month = .cell.month, lane = .cell.lane)]
    Contended {
        /// The cell.
        cell: Cell,
        /// How often an update was refused.
        refusals: u32,
    },
    /// An item was not understood; it was neither used nor changed.
    #[error("item {pk:?} {sk:?} of {table} cannot be used: {why}")]
    Item {
        /// The table.
        table: String,
        /// Its partition key.
        pk: String,
        /// Its sort key; of the ledger in hexadecimal.
        sk: String,
        /// Why.
        why: ItemError,
    },
    /// The sums of one write are out of range.
    #[error("the sums of one write to cell {month}#{lane} are out of range", month = .0.month, lane = .0.lane)]
    SumOutOfRange(Cell),
    /// An expression is too large.
    #[error(transparent)]
    Expression(#[from] TooLarge),
    /// The totals were made by another definition.
    #[error(
        "the totals in {table} were made by definition {found}, not by {ours}; a changed definition needs a rebuild into new tables"
    )]
    OtherDefinition {
        /// The table.
        table: String,
        /// The hash that stands there.
        found: String,
        /// The hash of the definition at hand.
        ours: String,
    },
}

impl TotalsError {
    /// Whether the same may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Request { may_pass, .. } => *may_pass,
            Self::Contended { .. } => true,
            _ => false,
        }
    }

    /// Whether an item was written by something else, or damaged: nobody can count in it until it is mended or deleted, and
    /// no other item is concerned. An item of a newer format is none of these: a newer program counts in it.
    pub fn is_unusable(&self) -> bool {
        matches!(self, Self::Item { why, .. } if !matches!(why, ItemError::Newer(_)))
    }

    pub(crate) fn request<E: ProvideErrorMetadata>(what: impl Into<String>, failure: &Failure<E>) -> Self {
        let may_pass = failure.class() == Class::MayPass;
        Self::Request { what: what.into(), detail: failure.to_string(), may_pass }
    }
}
