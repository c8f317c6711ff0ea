//! Events as rows of Parquet files.
//!
//! - [`row`]: a judged record as a row, and the order of rows.
//! - [`writer`]: rows to the bytes of a file.
//! - [`mod@prove`]: what a written file says of itself, from its bytes.
//! - [`reader`]: a file's columns, batch by batch, by ranged GETs.
//! - [`lookup`](mod@lookup): which of some keys a file holds, reading as little of it as its statistics allow.
//! - [`rebuild`]: a row back to the record that it was made of.
//! - [`ranged`]: Parquet's view of an object.
//! - [`summary`]: what a file's rows come to, cell by cell, kept in the file.
//! - [`claims`]: what a file says of its own sizes, held against bounds before it is believed.

pub mod claims;
pub mod lookup;
#[cfg(test)]
mod omit_tests;
pub mod prove;
pub mod ranged;
pub mod reader;
pub mod rebuild;
pub mod row;
pub mod summary;
#[cfg(test)]
pub(crate) mod testing;
pub mod writer;

pub use lookup::{Found, lookup};
pub use prove::prove;
pub use reader::{Batches, read, read_by};
pub use row::{ArchivedRow, Counted};
pub use writer::{FileWriter, Written, write};

use crate::bucket::BucketError;

/// Keys of a file's metadata.
pub mod metadata {
    /// The format of its rows, see [`recount_schemas::archive::FORMAT`].
    pub const FORMAT: &str = "recount.format";
    /// The hash of the definition that its rows were made under.
    pub const DEFINITION: &str = "recount.definition";
    /// Its month.
    pub const MONTH: &str = "recount.month";
    /// Where its [`summary`](super::summary) is: offset, length and SHA-256, separated by spaces. Absent where it has none.
    pub const SUMMARY: &str = "recount.summary";
}

/// Rows could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The file is not where the log said that it is.
    #[error(
        "{file} is not there any more: where a compaction or an erasure removed it meanwhile, the same command reads the new \
         files when it is run again; else restore the object that the log names"
    )]
    Gone {
        /// The file.
        file: String,
    },
    /// The file is no Parquet file that this program can read.
    #[error("{file}: {source}")]
    Parquet {
        /// The file.
        file: String,
        /// What the reader said.
        source: parquet::errors::ParquetError,
    },
    /// The rows do not make a table.
    #[error("rows could not be laid out as columns: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// The file was written by a newer program.
    #[error(
        "{file} has rows of format {format}, this program reads up to {}: use a newer one",
        recount_schemas::archive::FORMAT
    )]
    Newer {
        /// The file.
        file: String,
        /// Its format.
        format: u32,
    },
    /// The file is not one of ours, or damaged.
    #[error("{file} {why}; restore the object that the log names")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file has another number of rows.
    #[error("{file} has {rows} rows, the log says {said}; restore the object that the log names")]
    Rows {
        /// The file.
        file: String,
        /// Its rows, by its footer.
        rows: i64,
        /// The rows that the log says it has.
        said: u64,
    },
    /// A measure's sum does not fit 128 bits.
    #[error("the sum of {0} does not fit 38 digits")]
    Overflow(String),
}
