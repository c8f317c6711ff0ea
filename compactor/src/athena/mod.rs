//! What is put to Athena: for archives beyond one machine.
//!
//! - [`sql`]: the parts that the questions share. The questions themselves: `infra/aws/athena/engine/`, for people to read.
//! - [`answer`]: the lines of an answer, read with suspicion. Pure.
//! - [`cover`]: what proves that an answer is about the archive, file by file. Pure.
//! - `asker`: running a query and reading its answer; `about`: asking until the answer is about the archive as the log has it. Both only
//!   in a build with the feature `aws`.
//!
//! Who asks: [`recompute::athena`](crate::recompute::athena) and [`reconcile::by_athena`](crate::reconcile::by_athena).

#[cfg(feature = "aws")]
pub mod about;
pub mod answer;
#[cfg(feature = "aws")]
pub mod asker;
pub mod cover;
pub mod sql;

use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::contributions::ReadError;
use crate::usage::UsageError;

/// What Athena was asked to do could not be done.
#[derive(Debug, thiserror::Error)]
pub enum AthenaError {
    /// The columns of the archive do not say it.
    #[error("--engine athena counts inserts only, and this definition has count = \"net\"; leave --engine out")]
    Net,
    /// No workgroup or database is named.
    #[error("--engine athena needs {0}; set it, or name the stack with --stack")]
    Unset(&'static str),
    /// A set has no tables.
    #[error("--engine athena reads the base's archive, and this is set {0}; leave --engine out")]
    OfASet(recount_schemas::SetName),
    /// The log's live files are another definition's.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A sum is out of range.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The answer is not what was asked for.
    #[error("Athena's answer has {0}")]
    Answer(String),
    /// It is about other files than the log's.
    #[error(
        "Athena did not read the archive as the log has it: {}; see `recount doctor` and `recount fsck`, then ask again",
        .0.join("; ")
    )]
    OtherFiles(Vec<String>),
    /// A request, or the query, failed.
    #[error("Athena, workgroup {workgroup}: {why}")]
    Failed {
        /// The workgroup.
        workgroup: String,
        /// What happened.
        why: String,
    },
    /// The answer could not be sorted.
    #[error("sorting in the temporary directory failed: {0}")]
    Spill(#[from] std::io::Error),
    /// The log could not be read.
    #[error(transparent)]
    Context(Box<crate::context::ContextError>),
    /// The totals could not be written.
    #[error(transparent)]
    Recompute(Box<crate::recompute::RecomputeError>),
    /// This program cannot ask.
    #[error("--engine athena: this program was built without the feature `aws`")]
    Unable,
}

impl AthenaError {
    /// Whether the command line or the definition is wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Net | Self::Unset(_) | Self::OfASet(_) | Self::Unable)
    }
}

/// Where Athena is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'c> {
    /// The Glue database with the table `events`.
    pub database: &'c str,
    /// The workgroup.
    pub workgroup: &'c str,
}

impl<'c> Place<'c> {
    /// Of a deployment; an error where nothing can be asked there.
    pub fn of(context: &'c Context) -> Result<Self, AthenaError> {
        if cfg!(not(feature = "aws")) {
            return Err(AthenaError::Unable);
        }
        let settings = &context.settings;
        if let Some(set) = &settings.set {
            return Err(AthenaError::OfASet(set.clone()));
        }
        if context.definition.count != recount_schemas::definition::Count::Inserts {
            return Err(AthenaError::Net);
        }
        let database = settings.glue_database.as_deref().ok_or(AthenaError::Unset("RECOUNT_GLUE_DATABASE"))?;
        let workgroup = settings.athena_workgroup.as_deref().ok_or(AthenaError::Unset("RECOUNT_ATHENA_WORKGROUP"))?;
        Ok(Self { database, workgroup })
    }
}

/// What was asked, and what it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The query's ID.
    pub query: String,
    /// The bytes that Athena says it scanned.
    pub scanned_bytes: u64,
    /// The files read, each of them one of the log's.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// The number of log entries that all months' files have in them; some months' may have later ones, too.
    pub entries: u64,
}
