//! Holding the live totals against the archive, exactly, while the pipeline runs.
//!
//! - [`diff`]: the comparison of one cell, pure, with its truth table.
//! - [`bulk`]: cells that need no reading of rows, by the files' summaries or by Athena. [`by_athena`]: what Athena says of them.
//! - [`coverage`]: how much of the archive is verified, as a number.
//! - [`finding`]: what is wrong, by kind and by event.
//! - [`join`]: the comparison of all cells as a merge join of two sorted streams.
//! - [`look`], [`standing`]: what DynamoDB says, read and sorted.
//! - [`evidence`]: quarantine and conflicts.
//! - [`places`]: in which row of its file an event stands.
//! - [`table`]: findings as Parquet.
//! - [`metrics`]: a reconcile as a line of metrics.
//! - [`run`]: the steps in their order.

pub mod bulk;
pub mod by_athena;
pub mod coverage;
pub mod diff;
pub mod evidence;
pub mod finding;
pub mod join;
pub mod look;
pub mod metrics;
pub mod places;
pub mod run;
pub mod standing;
pub mod table;

use serde::{Deserialize, Serialize};

pub use coverage::Coverage;
pub use finding::{Finding, Kind};
pub use run::{ReconcileError, Reconciled, reconcile, reconcile_by_athena};

use crate::athena::Asked;

/// What a reconcile says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is wrong.
    Clean,
    /// Something is.
    Findings,
    /// It cannot be said.
    Undecided,
}

/// The report of a reconcile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// Why nothing can be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecided_because: Option<String>,
    /// How many cells were compared.
    pub cells: u64,
    /// How many archived events were.
    pub events: u64,
    /// How much of it is verified; absent where nothing can be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// How many records are in quarantine; those that cannot be judged belong to no cell and are no finding here.
    pub quarantined: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// How many cells with findings are not listed, for want of room.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_cells: u64,
    /// What Athena was asked; absent where it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub athena: Option<ByAthena>,
}

/// What Athena did of a reconcile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByAthena {
    /// What was asked.
    #[serde(flatten)]
    pub asked: Asked,
    /// How many cells it did not show to be clean: their events were read by this program.
    pub cells_read: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature that serde asks for
fn is_zero(n: &u64) -> bool {
    *n == 0
}
