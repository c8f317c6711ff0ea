//! Whether a deployment is set up so that what the rest of Recount promises holds.
//!
//! - [`facts`]: what a deployment is like, as far as it could be seen.
//! - [`checks`]: what must hold of it, as a function of the facts. Nothing there is asked.
//! - [`policy`]: what a bucket's policy says of the log. Pure.
//! - [`mod@look`]: asking. Only reads, with the rights of whoever calls it: what is refused is said, which is the check of permissions.
//!
//! What is not there to be looked at, such as a mapping where no stack is named, is *not checked*, never fine.

pub mod checks;
pub mod facts;
pub mod look;
pub mod policy;

use serde::{Deserialize, Serialize};

pub use checks::check;
pub use facts::{Fact, Facts};
pub use look::look;

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It must be put right.
    Wrong,
    /// It could not be seen: refused, or failed.
    Undecided,
    /// There is nothing to look at, or this place does not say.
    NotChecked,
    /// As it must be.
    Fine,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked, such as `consumer mapping: batch window`.
    pub what: String,
    /// What it came to.
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// What puts it right; empty where nothing has to.
    pub cure: String,
}

/// A report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The worst of its checks, with what is not checked left out.
    pub verdict: Outcome,
    /// The checks, in the way of the data.
    pub checks: Vec<Check>,
}

impl Report {
    /// Of these checks.
    pub fn new(checks: Vec<Check>) -> Self {
        let seen = checks.iter().map(|check| check.outcome).filter(|outcome| *outcome != Outcome::NotChecked);
        Self { verdict: seen.min().unwrap_or(Outcome::Undecided), checks }
    }
}
