//! The events that make a number: every archived event of a group's month, counted or not, and why.
//!
//! - `listing`: what is said of each event, by what the ledger has. Pure.
//! - `rows`: the archived events of a group's month, by creation time.
//!
//! Reads only. What the stream has and the archive does not have yet is not listed, but counted: keys of the ledger without
//! a row. Events come sorted by creation time through the external sort, so their number is not bounded by memory.

mod listing;
mod rows;

use std::collections::BTreeSet;
use std::sync::Arc;

use recount_schemas::{Cell, Delta, Group, Month, SequenceNumber, ShardId};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::contributions::Scope;
use crate::contributions::spill::Sorter;
use crate::reconcile::ReconcileError;
use crate::reconcile::diff::horizon;
use crate::reconcile::evidence;
use crate::reconcile::look::read_cells;
use crate::reconcile::standing::Standings;
use crate::repair::applied;

/// One archived event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its event ID.
    pub event_id: String,
    /// The event's time, UTC.
    pub occurred_at: String,
    /// The change's creation time, UTC.
    pub created_at: String,
    /// The shard that it was archived from.
    pub shard_id: ShardId,
    /// Its sequence number there.
    pub sequence_number: SequenceNumber,
    /// Whether it is in the number.
    pub counted: bool,
    /// Why, as a token: `counted`, `taken_as_counted`, `not_yet`, `missing`, `quarantined`, `too_old`, or why it counts
    /// nothing in this cell: `adds_nothing`, `counts_elsewhere`.
    pub why: String,
    /// What it adds to the number; `None` where it adds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adds: Option<Delta>,
}

/// What is said besides the events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The group.
    pub group: Group,
    /// The month.
    pub month: Month,
    /// The number in the totals table, all lanes.
    pub number: Delta,
    /// Archived events listed.
    pub archived: u64,
    /// Of these, those in the number.
    pub counted: u64,
    /// Keys of the ledger that no archived event of the cell has: not archived yet, or unbacked; reconcile tells.
    pub unarchived: u64,
}

/// Gives every archived event of a group's month to `take`, by creation time.
pub async fn explain(
    context: &Context,
    group: &Group,
    month: Month,
    take: impl FnMut(Event) -> Result<(), ReconcileError>,
) -> Result<Summary, ReconcileError> {
    context.check_definition().await?;
    let now_ms = context.host.now_ms();
    let passed = context.passed().await?;
    // Every lane, whether or not it has an item.
    let lanes: BTreeSet<Cell> =
        (0..context.definition.lanes).map(|lane| Cell { group: group.clone(), month, lane }).collect();
    let cells = Scope { group: Some(group.clone()), month: Some(month), cells: Some(Arc::new(lanes)) };
    let mut sorter = Sorter::new();
    let read = read_cells(&context.totals, &cells, &mut sorter).await?;
    if let Some(unusable) = read.unusable.first() {
        return Err(ReconcileError::Unusable(unusable.why.clone()));
    }
    let quarantined = evidence::quarantined(&context.bucket).await?;
    let settled = applied::settled(&context.bucket).await?.settled;
    let state = context.log().await?;

    let events = rows::events(&context.bucket, &context.definition, group, month, &state).await?;
    let known = listing::Known {
        group,
        month,
        measures: context.definition.measures.len(),
        horizon: horizon(now_ms, context.definition.ledger_days),
        passed: &passed,
        quarantined: &quarantined,
        settled: &settled,
    };
    listing::list(&known, Standings::new(sorter.finish()?), events, take)
}
