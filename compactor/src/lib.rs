//! The archive and everything that reads it.
//!
//! The archive:
//!
//! - [`bucket`]: S3, by meaning.
//! - [`log`]: what is in the archive, in which order it came there. The truth that every view follows.
//! - [`rows`]: events as rows of Parquet files, written and read.
//! - [`archive`]: a run that brings what is new in the stream into the archive.

pub mod archive;
pub mod bucket;
pub mod log;
pub mod rows;

#[cfg(test)]
mod testing;
