//! The live fold: applies every change of the stream exactly once to the running totals.
//!
//! In reading order:
//!
//! - [`cell`]: the protocol of one cell, pure. The rule that everything else serves.
//! - [`tuning`]: every number that can be tuned, and why it is what it is.
//! - [`expressions`]: from a step of the protocol to the expressions of one UpdateItem.
//! - [`totals`]: the I/O around it: apply, look, pages, scan. [`tables`]: the tables that it needs.
//! - [`envelope`]: the event that Lambda hands over, read record by record.
//! - [`millis`]: the times of records and streams, the same for everybody who reads them.
//! - [`batch`]: its records judged and folded by cell, and their verdicts. Pure.
//! - [`handler`]: the I/O of a batch, and the answer to Lambda.
//! - [`progress`], [`quarantine`]: how far each shard is done; records that can never be counted.
//! - [`report`], [`metrics`]: what a batch came to, and the line of metrics.
//! - [`retry`]: what an error of AWS means, and how often to try again.

pub mod batch;
pub mod cell;
pub mod envelope;
pub mod expressions;
pub mod handler;
pub mod metrics;
pub mod millis;
pub mod progress;
pub mod quarantine;
pub mod report;
pub mod retry;
pub mod tables;
pub mod totals;
pub mod tuning;
