//! The live fold: applies every change of the stream exactly once to the running totals.
//!
//! In reading order:
//!
//! - [`cell`]: the protocol of one cell, pure. The rule that everything else serves.
//! - [`tuning`]: every number that can be tuned, and why it is what it is.
//! - [`expressions`]: from a step of the protocol to the expressions of one UpdateItem.
//! - [`totals`]: the I/O around it: apply, look, pages, scan.
//! - [`retry`]: what an error of AWS means, and how often to try again.

pub mod cell;
pub mod expressions;
pub mod retry;
pub mod totals;
pub mod tuning;
