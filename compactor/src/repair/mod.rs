//! Putting right what reconcile found, by a plan that can be read first.
//!
//! - [`plan`]: what is to be done, named by the hash of its own bytes. Pure.
//! - [`expressions`]: the conditional update that begins each cell's repair. Pure.
//! - [`apply`]: doing it; every step may be done again.
//! - [`applied`]: what applied plans have said, which reconcile takes into account.
//!
//! Without `confirm` a plan is made, kept under `plans/` and shown; nothing else is written. With it the plan is applied
//! and reconcile is made again. Where that finds more that repair can do (a cell moved between look and write, or more events than one
//! plan names), the next plan follows, [`ROUNDS`] at most.

pub mod applied;
pub mod apply;
pub mod expressions;
pub mod plan;

use std::collections::BTreeSet;

use bytes::Bytes;
use recount_schemas::Cell;
use serde::{Deserialize, Serialize};

use crate::bucket::{BucketError, Objects};
use crate::context::Context;
use crate::contributions::Scope;
use crate::reconcile::{ReconcileError, Reconciled, Report as Reconciliation, Verdict, reconcile};
use applied::{Applied, AppliedError};
use apply::{Applier, ApplyError, CellReport};
use plan::{FORMAT, MAX_BYTES, Plan, PlanError};

/// Most plans that one repair applies.
pub const ROUNDS: u32 = 3;

/// A repair failed. What was done stays, and can be done again.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Reconcile failed.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// The plan cannot be used.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Applying it failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Its report could not be kept.
    #[error(transparent)]
    Applied(#[from] AppliedError),
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The plan could not be laid out.
    #[error("the plan could not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// The plan that a report is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its name.
    pub hash: String,
    /// Where it is kept in the bucket.
    pub object: String,
    /// What it says.
    #[serde(flatten)]
    pub plan: Plan,
}

impl Named {
    fn new(plan: Plan) -> Result<Self, serde_json::Error> {
        let hash = plan.hash()?;
        Ok(Self { object: Plan::object_key(&hash), hash, plan })
    }
}

/// What a repair did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether plans were applied.
    pub confirmed: bool,
    /// The plans, in order; empty where there is nothing to repair.
    pub plans: Vec<Named>,
    /// What became of their cells; of a saved plan that is only shown, what became of them when it was applied.
    pub applied: Vec<CellReport>,
    /// The last reconcile: before anything was done, or after everything. `None` for a saved plan that is only shown.
    pub reconciled: Option<Reconciliation>,
}

impl Report {
    /// Whether every cell of its plans has its number.
    pub fn is_done(&self) -> bool {
        let done: BTreeSet<&Cell> = self.applied.iter().filter(|c| c.number.is_done()).map(|c| &c.cell).collect();
        self.plans.iter().flat_map(|named| &named.plan.cells).all(|cell| done.contains(&cell.cell))
    }

    /// The cells that need another plan: somebody came between.
    pub fn refused(&self) -> impl Iterator<Item = &Cell> {
        let undone = |cell: &&CellReport| !cell.number.is_done();
        self.applied.iter().filter(undone).map(|cell| &cell.cell)
    }
}

/// Makes a plan for `scope` and, with `confirm`, applies it, until nothing is left that a plan can do.
pub async fn repair(
    context: &Context,
    scope: &Scope,
    confirm: bool,
    says: &(dyn Fn(&str) + Sync),
) -> Result<Report, RepairError> {
    let mut report = Report { confirmed: confirm, plans: Vec::new(), applied: Vec::new(), reconciled: None };
    let mut latest = Vec::new();
    for round in 0.. {
        let Reconciled { report: reconciliation, found } = reconcile(context, scope, says).await?;
        let undecided = reconciliation.verdict == Verdict::Undecided;
        if let Some(last) = report.plans.last() {
            keep(context, &last.hash, std::mem::take(&mut latest), Some(reconciliation.verdict)).await?;
        }
        report.reconciled = Some(reconciliation);
        let named = Named::new(Plan::make(&context.definition, &found))?;
        if undecided || named.plan.is_empty() || round >= ROUNDS {
            break;
        }
        // Named by its content: whoever kept it before kept the same.
        context.bucket.put_if_absent(&named.object, Bytes::from(named.plan.to_bytes()?)).await?;
        if !confirm {
            report.plans.push(named);
            break;
        }
        latest = apply(context, &named, says).await?;
        report.applied.extend(latest.iter().cloned());
        report.plans.push(named);
    }
    Ok(report)
}

/// Shows a saved plan and, with `confirm`, applies it and makes a reconcile of `scope`.
pub async fn repair_by(
    context: &Context,
    plan: Plan,
    scope: &Scope,
    confirm: bool,
    says: &(dyn Fn(&str) + Sync),
) -> Result<Report, RepairError> {
    let named = Named::new(plan)?;
    let mut report = Report { confirmed: confirm, plans: Vec::new(), applied: Vec::new(), reconciled: None };
    if confirm {
        context.check_definition().await.map_err(ReconcileError::from)?;
        context.bucket.put_if_absent(&named.object, Bytes::from(named.plan.to_bytes()?)).await?;
        report.applied = apply(context, &named, says).await?;
        let reconciliation = reconcile(context, scope, says).await?.report;
        keep(context, &named.hash, report.applied.clone(), Some(reconciliation.verdict)).await?;
        report.reconciled = Some(reconciliation);
    } else if let Some(kept) = applied::kept(&context.bucket, &named.hash).await? {
        report.applied = kept.cells;
    }
    report.plans.push(named);
    Ok(report)
}

/// Fetches a plan by its name from the bucket.
pub async fn fetch(context: &Context, hash: &str) -> Result<Plan, RepairError> {
    let key = Plan::object_key(hash);
    let missing = || PlanError::Malformed { name: key.clone(), why: "it is not in the bucket".to_owned() };
    let bytes = context.bucket.get(&key, MAX_BYTES).await?.ok_or_else(missing)?;
    Ok(Plan::read_named(hash, &bytes, &context.definition)?)
}

/// Applies a plan and keeps what became of it, before anybody verifies: void keys are silent from then on.
async fn apply(context: &Context, named: &Named, says: &(dyn Fn(&str) + Sync)) -> Result<Vec<CellReport>, RepairError> {
    let applier = Applier {
        dynamo: &context.dynamo,
        table: &context.settings.totals,
        totals: &context.totals,
        host: &context.host,
    };
    let cells = named.plan.cells.len();
    let reports =
        applier.plan(&named.plan, &named.hash, |i| says(&format!("repairing cell {} of {cells}", i + 1))).await?;
    keep(context, &named.hash, reports.clone(), None).await?;
    Ok(reports)
}

async fn keep(
    context: &Context,
    hash: &str,
    cells: Vec<CellReport>,
    verified: Option<Verdict>,
) -> Result<(), AppliedError> {
    applied::keep(&context.bucket, Applied { format: FORMAT, plan: hash.to_owned(), cells, verified }).await
}
