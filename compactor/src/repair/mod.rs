//! Putting right what reconcile found, by a plan that can be read first.
//!
//! - [`plan`]: what is to be done, named by the hash of its own bytes. Pure.
//! - [`expressions`]: the conditional update that begins each cell's repair. Pure.
//! - [`apply`]: doing it; every step may be done again.
//! - [`holes`]: numbers that are not lowered without being asked, since the archive may have lost their events. Pure.
//! - [`applied`]: what applied plans have said, which reconcile takes into account.
//! - [`proof`]: the report of a repair, named by its own hash.
//!
//! Without `confirm` a plan is made, kept under `plans/` and shown; nothing else is written. With it the plan is applied
//! and reconcile is made again. Where that finds more that repair can do (a cell moved between look and write, or more events than one
//! plan names), the next plan follows, [`ROUNDS`] at most.

pub mod applied;
pub mod apply;
pub mod expressions;
pub mod holes;
pub mod plan;
pub mod proof;

use std::collections::BTreeSet;

use bytes::Bytes;
use recount_schemas::Cell;
use serde::{Deserialize, Serialize};

use crate::bucket::{BucketError, Listing, Objects};
use crate::context::Context;
use crate::contributions::Scope;
use crate::progress::{Says, Work};
use crate::reconcile::{ReconcileError, Reconciled, Report as Reconciliation, Verdict, reconcile};
use applied::{Applied, AppliedError};
use apply::{Applier, ApplyError, CellReport};
use holes::Withheld;
use plan::{FORMAT, MAX_BYTES, Plan, PlanError};
use proof::{Proof, ProofError};

/// How many plans are named where the one that was asked for is not there; and the most pages of names that are looked at for that.
const NEWEST: usize = 3;
const MAX_PAGES: usize = 20;

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
    /// Its report for later could not be kept or read.
    #[error(transparent)]
    Proof(#[from] ProofError),
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

/// What a repair may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Apply the plan; else it is only made and shown.
    pub confirm: bool,
    /// Lower also numbers whose events the archive may have lost: see [`holes`].
    pub accept_loss: bool,
}

impl From<bool> for Options {
    fn from(confirm: bool) -> Self {
        Self { confirm, accept_loss: false }
    }
}

/// What a repair did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Whether plans were applied.
    pub confirmed: bool,
    /// The plans, in order; empty where there is nothing to repair.
    pub plans: Vec<Named>,
    /// What became of their cells; of a saved plan that is only shown, what became of them when it was applied.
    pub applied: Vec<CellReport>,
    /// Cells of the plans that are left as they are unless loss is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<Withheld>,
    /// The hashes of the reports that were kept, one for each applied plan: `recount repair --report HASH`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reports: Vec<String>,
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
    options: impl Into<Options>,
    says: &Says<'_>,
) -> Result<Report, RepairError> {
    let options = options.into();
    let mut report = Report { confirmed: options.confirm, ..Report::default() };
    let mut latest = Vec::new();
    for round in 0.. {
        let Reconciled { report: reconciliation, found } = reconcile(context, scope, says).await?;
        let undecided = reconciliation.verdict == Verdict::Undecided;
        if let Some(last) = report.plans.last() {
            let kept = keep(context, last, options, std::mem::take(&mut latest), &report.withheld, &reconciliation);
            let hash = kept.await?;
            report.reports.push(hash);
        }
        report.reconciled = Some(reconciliation);
        let named = Named::new(Plan::make(&context.definition, &found))?;
        // What was withheld is found again, and would be withheld again.
        let again = report.plans.last().is_some_and(|last| last.hash == named.hash);
        if undecided || named.plan.is_empty() || round >= ROUNDS || (again && !report.withheld.is_empty()) {
            break;
        }
        // Named by its content: whoever kept it before kept the same.
        context.bucket.put_if_absent(&named.object, Bytes::from(named.plan.to_bytes()?)).await?;
        report.withheld = withheld(context, &named.plan, options).await?;
        if !options.confirm {
            report.plans.push(named);
            break;
        }
        latest = apply(context, &named, &report.withheld, says).await?;
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
    options: impl Into<Options>,
    says: &Says<'_>,
) -> Result<Report, RepairError> {
    let options = options.into();
    let named = Named::new(plan)?;
    let mut report = Report { confirmed: options.confirm, ..Report::default() };
    report.withheld = withheld(context, &named.plan, options).await?;
    if options.confirm {
        context.check_definition().await.map_err(ReconcileError::from)?;
        context.bucket.put_if_absent(&named.object, Bytes::from(named.plan.to_bytes()?)).await?;
        report.applied = apply(context, &named, &report.withheld, says).await?;
        let reconciliation = reconcile(context, scope, says).await?.report;
        let kept = keep(context, &named, options, report.applied.clone(), &report.withheld, &reconciliation).await?;
        report.reports.push(kept);
        report.reconciled = Some(reconciliation);
    } else if let Some(kept) = applied::kept(&context.bucket, &named.hash).await? {
        report.applied = kept.cells;
    }
    report.plans.push(named);
    Ok(report)
}

/// Fetches a plan by its name from the bucket.
pub async fn fetch(context: &Context, hash: &str) -> Result<Plan, RepairError> {
    match context.bucket.get(&Plan::object_key(hash), MAX_BYTES).await? {
        Some(bytes) => Ok(Plan::read_named(hash, &bytes, &context.definition)?),
        None => {
            let (hash, place) = (hash.to_owned(), context.bucket.uri(plan::PREFIX));
            Err(PlanError::Absent { hash, place, newest: newest(&context.bucket).await? }.into())
        }
    }
}

/// The plans that were kept last, the newest first, by the hashes that are their names.
async fn newest<O: Objects>(objects: &O) -> Result<Vec<String>, BucketError> {
    let mut newest: Vec<(i64, String)> = Vec::new();
    let mut listing = Listing::new(objects, plan::PREFIX);
    for _ in 0..MAX_PAGES {
        let Some(page) = listing.next_page().await? else { break };
        let plans =
            page.iter().filter_map(|listed| Some((listed.meta.modified_ms, Plan::named(&listed.key)?.to_owned())));
        newest.extend(plans);
        newest.sort_by(|a, b| b.cmp(a));
        newest.truncate(NEWEST);
    }
    Ok(newest.into_iter().map(|(_, hash)| hash).collect())
}

/// The cells that are left as they are, as the archive's log says now.
async fn withheld(context: &Context, plan: &Plan, options: Options) -> Result<Vec<Withheld>, RepairError> {
    if options.accept_loss {
        return Ok(Vec::new());
    }
    let state = context.log().await.map_err(ReconcileError::from)?;
    Ok(holes::withheld(plan, &state.lost, &context.definition))
}

/// Applies a plan and keeps what became of it, before anybody verifies: void keys are silent from then on.
async fn apply(
    context: &Context,
    named: &Named,
    withheld: &[Withheld],
    says: &Says<'_>,
) -> Result<Vec<CellReport>, RepairError> {
    let applier = Applier {
        dynamo: &context.dynamo,
        table: &context.settings.totals,
        totals: &context.totals,
        host: &context.host,
    };
    says(Work::Step("repairing"));
    says(Work::Of(named.plan.cells.len() as u64, "cells"));
    let reports = applier.plan(&named.plan, &named.hash, withheld, |_| says(Work::Done(1))).await?;
    let applied = Applied { format: FORMAT, plan: named.hash.clone(), cells: reports.clone(), verified: None };
    applied::keep(&context.bucket, applied).await?;
    Ok(reports)
}

/// Keeps what the reconcile after it said, and the report of it all; says the report's hash.
async fn keep(
    context: &Context,
    named: &Named,
    options: Options,
    cells: Vec<CellReport>,
    withheld: &[Withheld],
    reconciled: &Reconciliation,
) -> Result<String, RepairError> {
    let verified = Some(reconciled.verdict);
    let applied = Applied { format: FORMAT, plan: named.hash.clone(), cells: cells.clone(), verified };
    applied::keep(&context.bucket, applied).await?;
    let proof = Proof {
        format: proof::FORMAT,
        plan: named.hash.clone(),
        definition: context.definition.hash().to_owned(),
        at_ms: context.host.now_ms(),
        accept_loss: options.accept_loss,
        cells,
        withheld: withheld.to_vec(),
        reconciled: reconciled.into(),
    };
    Ok(proof.keep(&context.bucket).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::memory::Memory;

    #[tokio::test]
    async fn a_plan_that_is_not_there_is_said_with_those_that_are() {
        let objects = Memory::new();
        let absent = |newest| PlanError::Absent { hash: "c".repeat(64), place: "s3://b/plans/".to_owned(), newest };
        insta::assert_snapshot!(absent(newest(&objects).await.unwrap()), @"there is no plan cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc in s3://b/plans/, nor any other; `recount repair` makes one, and says its hash");
        for digit in ["a", "b"] {
            objects.put(&Plan::object_key(&digit.repeat(64)), Bytes::new()).await.unwrap();
            objects.put(&Plan::report_key(&digit.repeat(64)), Bytes::new()).await.unwrap();
        }
        insta::assert_snapshot!(absent(newest(&objects).await.unwrap()), @"there is no plan cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc in s3://b/plans/; the newest there: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb, aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; `recount repair` makes one, and says its hash");
    }
}
