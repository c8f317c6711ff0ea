//! Holding the archive against the source table itself.
//!
//! Totals that equal the archive prove the consumer; whether the archive has everything, only the table can tell: capture may
//! have been off, or have skipped a record. That shows here, before any stream.
//!
//! - [`compare`]: one item against its archived changes. Pure, with its truth table.
//! - [`run`]: the steps in their order.
//! - [`again`]: the second look at what is suspected.
//! - [`report`]: what it says.
//!
//! What it cannot see: an item that came and went while capture was off; a change that was undone before the table was read.

pub mod again;
pub mod compare;
pub mod report;
pub mod run;

pub use compare::Kind;
pub use report::{Finding, Report};
pub use run::{AuditError, Options, audit};
