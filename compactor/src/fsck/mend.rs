//! The little that can be repaired without anybody's judgement: what the next archive run would do anyway.
//!
//! | finding | step |
//! | --- | --- |
//! | `unpublished`, of the last entry | finish that entry: copy its uploads to their targets, then delete the uploads |
//! | `orphan` | delete the upload: no entry can name it any more |
//!
//! Both are done by the archiver's own functions, which any number of runs may do at the same time, and again.

use std::time::Duration;

use recount_schemas::host::{Deadline, SharedHost};
use serde::{Deserialize, Serialize};

use super::finding::{Finding, Kind};
use super::{FsckError, Report};
use crate::archive::finish::{Catalog, finish};
use crate::archive::life::Life;
use crate::archive::tidy::tidy;
use crate::bucket::Objects;
use crate::log::{LogStore, State};

/// How long a repair may write.
const LIFE: Duration = Duration::from_secs(15 * 60);

/// What is to be done about one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is copied from its upload.
    Publish,
    /// It is deleted.
    Delete,
}

/// One step of a repair.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// To which object.
    pub object: String,
}

/// What would repair these findings, as far as it is safe. `state` is the log at its head.
pub fn plan(findings: &[Finding], state: &State) -> Vec<Step> {
    let last = state.last.iter().flat_map(|entry| &entry.added);
    let last: std::collections::BTreeSet<&str> = last.map(|file| file.target.as_str()).collect();
    let step = |finding: &Finding| {
        let action = match finding.kind {
            Kind::Unpublished if last.contains(finding.object.as_str()) => Action::Publish,
            Kind::Orphan => Action::Delete,
            _ => return None,
        };
        Some(Step { action, object: finding.object.clone() })
    };
    findings.iter().filter_map(step).collect()
}

/// The steps that would repair what the report says; with `confirmed`, they are done. A log that cannot be followed is written to
/// by nobody.
pub async fn mend<O: Objects>(
    objects: &O,
    host: &SharedHost,
    catalog: Option<&dyn Catalog>,
    report: &Report,
    confirmed: bool,
) -> Result<Vec<Step>, FsckError> {
    if report.findings.iter().any(|f| matches!(f.kind, Kind::LogMissing | Kind::LogChanged | Kind::LogInvalid)) {
        return Ok(Vec::new());
    }
    let log = LogStore::new(objects.clone(), host.clone());
    let mut state = log.read_whole().await?;
    let steps = plan(&report.findings, &state);
    if confirmed && !steps.is_empty() {
        let life = Life::begin(host.clone(), LIFE, Deadline::NONE);
        finish(objects, &log, catalog, &mut state, &life).await?;
        tidy(objects, &state, &life).await?;
    }
    Ok(steps)
}
