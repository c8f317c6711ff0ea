//! Applying a plan, cell by cell, in the plan's order; every step may be done again.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use recount_consumer::cell::Look;
use recount_consumer::retry::{Caller, Failure, Meter};
use recount_consumer::totals::{Entry, Totals, TotalsError};
use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::items::{PK, SK, cell_sk};
use recount_schemas::{Cell, Delta, EventKey};
use serde::{Deserialize, Serialize};

use super::expressions::Expressions;
use super::holes::Withheld;
use super::plan::{CellPlan, Plan};

/// Missing events given to the consumer's path at a time.
const AT_ONCE: usize = 96;

/// Most attempts to raise a cell. Each fails only if a sealing came between look and write.
const RAISES: u32 = 8;

/// What became of a cell's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It was put right now.
    Done,
    /// This plan had done it before.
    DoneBefore,
    /// A cell that must be raised was written to since the plan saw it. It was raised; its number is for the next plan.
    Raised,
    /// The cell is not as the plan saw it: another plan came between. Nothing was done to it.
    Refused,
    /// The cell's item is not understood, see reconcile. Nothing was done to it.
    Unusable,
    /// It would lower a number whose events the archive may have lost: see [`holes`](super::holes). Nothing was done to it.
    Withheld,
}

impl Step {
    /// Whether the number has what the plan adds to it.
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Done | Self::DoneBefore)
    }
}

/// What became of one cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellReport {
    /// The cell.
    pub cell: Cell,
    /// Its number.
    pub number: Step,
    /// The number just before; `None` where there was no item, or none that is understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Delta>,
    /// The number just after, with what consumers counted meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Delta>,
    /// Missing events that were counted.
    pub counted: u64,
    /// Missing events that had been counted meanwhile.
    pub counted_before: u64,
    /// Missing events that are too old by now: on the too-old list.
    pub too_old: u64,
    /// Keys that are void from now on.
    pub void: Vec<EventKey>,
    /// Too-old events that are in the number from now on.
    pub settled: Vec<EventKey>,
}

impl CellReport {
    /// Of a cell to which nothing more was done.
    pub fn new(cell: Cell, number: Step) -> Self {
        Self {
            cell,
            number,
            before: None,
            after: None,
            counted: 0,
            counted_before: 0,
            too_old: 0,
            void: Vec::new(),
            settled: Vec::new(),
        }
    }
}

/// A plan could not be applied. What was done stays; the same plan can be applied again.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The consumer's path failed.
    #[error(transparent)]
    Totals(#[from] TotalsError),
    /// The update of a number failed.
    #[error("updating cell {sk} of {group:?} in {table}: {why}; apply the same plan again")]
    Update {
        /// The table.
        table: String,
        /// The cell's group.
        group: String,
        /// The cell's sort key.
        sk: String,
        /// What happened.
        why: String,
    },
}

/// Applies plans.
#[derive(Debug, Clone, Copy)]
pub struct Applier<'a> {
    /// The client of the totals table.
    pub dynamo: &'a aws_sdk_dynamodb::Client,
    /// The totals table.
    pub table: &'a str,
    /// The consumer's own path.
    pub totals: &'a Totals,
    /// Time and sleep.
    pub host: &'a SharedHost,
}

impl Applier<'_> {
    /// Applies one cell of the plan called `hash`.
    pub async fn cell(&self, cell: &CellPlan, hash: &str) -> Result<CellReport, ApplyError> {
        // A plan can be old, or come from anywhere: an item that is not understood is not written, and holds up no other cell.
        let before = match self.totals.look(&cell.cell).await {
            Err(error) if error.is_unusable() => return Ok(CellReport::new(cell.cell.clone(), Step::Unusable)),
            looked => looked?.map(number_of),
        };
        let number = self.number(cell, hash).await?;
        let mut report = CellReport { before, ..CellReport::new(cell.cell.clone(), number) };
        if !number.is_done() {
            return Ok(report);
        }
        for missing in cell.missing.chunks(AT_ONCE) {
            let entries: Vec<Entry> =
                missing.iter().map(|event| Entry { key: event.event_key, delta: event.delta.clone() }).collect();
            let applied = self.totals.apply(&cell.cell, &entries, Deadline::NONE).await?;
            report.counted += applied.applied.len() as u64;
            report.counted_before += applied.duplicates.len() as u64;
            report.too_old += applied.too_old.len() as u64;
        }
        report.after = self.totals.look(&cell.cell).await?.map(number_of);
        report.void.clone_from(&cell.void);
        report.settled.clone_from(&cell.settled);
        Ok(report)
    }

    /// Applies a plan, but to the cells that are withheld. Cells of which some are refused are in the report, too.
    pub async fn plan(
        &self,
        plan: &Plan,
        hash: &str,
        withheld: &[Withheld],
        mut progress: impl FnMut(usize),
    ) -> Result<Vec<CellReport>, ApplyError> {
        let mut reports = Vec::with_capacity(plan.cells.len());
        for (i, cell) in plan.cells.iter().enumerate() {
            let left = withheld.iter().any(|withheld| withheld.cell == cell.cell);
            reports.push(match left {
                true => CellReport::new(cell.cell.clone(), Step::Withheld),
                false => self.cell(cell, hash).await?,
            });
            progress(i);
        }
        Ok(reports)
    }

    async fn number(&self, cell: &CellPlan, hash: &str) -> Result<Step, ApplyError> {
        if self.update(&cell.cell, Expressions::correct(cell, hash, self.totals.definition())).await? {
            return Ok(Step::Done);
        }
        // Refused by our own mark is done before: perhaps by this very call, whose answer was lost.
        let mut now = self.totals.look(&cell.cell).await?;
        if now.as_ref().is_some_and(|look| look.repair.as_deref() == Some(hash)) {
            return Ok(Step::DoneBefore);
        }
        let Some(raise) = &cell.raise else { return Ok(Step::Refused) };
        for attempt in 1..=RAISES {
            let look = now.unwrap_or_default();
            let Some(to) = raise.to.over(look.epoch, look.sealed) else { return Ok(Step::Raised) };
            if self.update(&cell.cell, Expressions::raise(&to, look.epoch)).await? {
                return Ok(Step::Raised);
            }
            self.caller(&Meter::default()).pause(attempt).await;
            now = self.totals.look(&cell.cell).await?;
        }
        Ok(Step::Refused)
    }

    fn caller<'a>(&'a self, meter: &'a Meter) -> Caller<'a> {
        Caller { host: self.host.as_ref(), tuning: self.totals.tuning(), deadline: Deadline::NONE, meter }
    }

    /// Sends one conditional update of a cell. Whether its condition held.
    async fn update(&self, cell: &Cell, it: Expressions) -> Result<bool, ApplyError> {
        let update = self
            .dynamo
            .update_item()
            .table_name(self.table)
            .key(PK, AttributeValue::S(cell.group.to_string()))
            .key(SK, AttributeValue::S(cell_sk(cell.month, cell.lane)))
            .update_expression(it.update)
            .condition_expression(it.condition)
            .set_expression_attribute_names(Some(it.names))
            .set_expression_attribute_values(Some(it.values));
        match self.caller(&Meter::default()).call(|| update.clone().send()).await {
            Ok(_) => Ok(true),
            Err(failure) if is_refused(&failure) => Ok(false),
            Err(failure) => Err(ApplyError::Update {
                table: self.table.to_owned(),
                group: cell.group.to_string(),
                sk: cell_sk(cell.month, cell.lane),
                why: match failure {
                    Failure::Deadline => "the time is up".to_owned(),
                    Failure::Sdk(error) => recount_schemas::causes(error.as_ref()),
                },
            }),
        }
    }
}

fn number_of(look: Look) -> Delta {
    Delta { events: look.events, sums: look.sums }
}

fn is_refused(failure: &Failure<UpdateItemError>) -> bool {
    let Failure::Sdk(error) = failure else { return false };
    matches!(error.as_ref(), SdkError::ServiceError(context) if context.err().is_conditional_check_failed_exception())
}
