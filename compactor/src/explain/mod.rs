//! The events that make a number: every archived event of a group's month, counted or not, and why.
//!
//! - [`as_of`]: the archive as it was at an entry of its log. Pure.
//! - `listing`: what is said of each event, by what the ledger has. Pure.
//! - `rows`: the archived events of a group's month, by creation time.
//!
//! Reads only. What the stream has and the archive does not have yet is not listed, but counted: keys of the ledger without
//! a row. Events come sorted by creation time through the external sort, so their number is not bounded by memory.

pub mod as_of;
mod listing;
mod rows;

use std::collections::BTreeSet;
use std::sync::Arc;

use recount_schemas::{Cell, Delta, Group, Month, SequenceNumber, ShardId, quarantine};
use serde::{Deserialize, Serialize};

pub(crate) use listing::token;

use as_of::{AsOf, Moment, NoSuchMoment};

use crate::context::Context;
use crate::contributions::Scope;
use crate::contributions::spill::Sorter;
use crate::fsck::aside::places;
use crate::history::whole;
use crate::log::StoreError;
use crate::reconcile::ReconcileError;
use crate::reconcile::diff::{OutOfRange, horizon};
use crate::reconcile::evidence;
use crate::reconcile::look::read_cells;
use crate::reconcile::standing::Standings;
use crate::repair::applied;

/// One archived event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its event ID.
    pub event_id: String,
    /// What happened: INSERT, MODIFY or REMOVE.
    #[serde(default)]
    pub event_name: String,
    /// Its month, where that is not the one that was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month: Option<Month>,
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
    /// nothing in this cell: `adds_nothing`, `counts_elsewhere`, `other_month`, `conflict_variant`.
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
    /// Keys of the ledger that applied plans have declared void: they are in no number.
    #[serde(default)]
    pub void: u64,
    /// The moment that was asked about; `None`: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Dated>,
    /// Rows that may have come before or after that moment: nobody can say any more. They are not listed.
    #[serde(default)]
    pub undated: u64,
}

/// An entry of the archive's log as a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dated {
    /// Its number.
    pub entry: u64,
    /// When it was made, UTC.
    pub at: String,
}

/// Gives every archived event of a group's month to `take`, by creation time.
pub async fn explain(
    context: &Context,
    group: &Group,
    month: Month,
    take: impl FnMut(Event) -> Result<(), ReconcileError>,
) -> Result<Summary, ReconcileError> {
    explain_with(context, group, month, false, take).await
}

/// The same; where `all` are wanted, also those of the group that
/// belong to other months, and the variants that came under a key of the month with another content.
pub async fn explain_with(
    context: &Context,
    group: &Group,
    month: Month,
    all: bool,
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
    let settled = applied::settled(&context.bucket).await?;
    let state = context.log().await?;

    let wanted = rows::Wanted { other_months: all, as_of: None };
    let mut listed = rows::events(&context.bucket, &context.definition, group, month, &state, wanted).await?;
    if all {
        push_variants(context, group, month, &mut listed).await?;
    }
    let void = settled.void.iter().filter(|(cell, _)| cell.group == *group && cell.month == month);
    let void = void.map(|(_, keys)| keys.len() as u64).sum();
    let settled = settled.settled;
    let known = listing::Known {
        group,
        month,
        measures: context.definition.measures.len(),
        horizon: horizon(now_ms, context.definition.ledger_days),
        passed: &passed,
        quarantined: &quarantined,
        settled: &settled,
    };
    let summary = listing::list(&known, Standings::new(sorter.finish()?), listed.finish()?, take)?;
    Ok(Summary { void, ..summary })
}

/// The variants under `conflicts/` that would add to the group's month.
async fn push_variants(
    context: &Context,
    group: &Group,
    month: Month,
    listed: &mut rows::Listed,
) -> Result<(), ReconcileError> {
    let scope = Scope { group: Some(group.clone()), month: Some(month), cells: None };
    let variants = evidence::variants(&context.bucket, &context.definition, &scope).await?;
    for ((_, _, key), of_key) in variants {
        for (lane, variant) in of_key {
            let event = Event {
                event_id: variant.origin.event_id,
                event_name: String::new(),
                month: None,
                occurred_at: String::new(),
                created_at: time(key.created_ms()),
                shard_id: variant.origin.shard_id,
                sequence_number: variant.origin.sequence_number,
                counted: false,
                why: String::new(),
                adds: Some(variant.delta),
            };
            let told = Some("conflict_variant".to_owned());
            listed.push(key, &rows::Kept { event, lane, elsewhere: false, told })?;
        }
    }
    Ok(())
}

/// Gives every event that the archive had of a group's month at a moment to `take`, by creation time. The number is what they come to:
/// what the totals said then, nobody has kept.
pub async fn explain_as_of(
    context: &Context,
    group: &Group,
    month: Month,
    moment: Moment,
    mut take: impl FnMut(Event) -> Result<(), ReconcileError>,
) -> Result<Summary, AsOfError> {
    context.check_definition().await.map_err(ReconcileError::from)?;
    let history = whole(&context.bucket, &context.host).await?;
    // All that ever were, also those that were put through since.
    let (quarantined, _) = places(&context.bucket, quarantine::PREFIX).await.map_err(ReconcileError::from)?;
    let as_of = AsOf::new(&history, moment, &quarantined)?;
    let wanted = rows::Wanted { other_months: false, as_of: Some(&as_of) };
    let (objects, definition, state) = (&context.bucket, &context.definition, &history.state);
    let listed = rows::events(objects, definition, group, month, state, wanted).await.map_err(ReconcileError::from)?;
    let mut summary = Summary {
        group: group.clone(),
        month,
        number: Delta::zero(definition.measures.len()),
        archived: 0,
        counted: 0,
        unarchived: 0,
        void: 0,
        as_of: Some(Dated { entry: as_of.entry(), at: as_of.at_ms().map_or_else(String::new, time) }),
        undated: listed.undated,
    };
    for event in listed.finish().map_err(ReconcileError::from)? {
        let (_, rows::Kept { mut event, lane, elsewhere, .. }) = event.map_err(ReconcileError::from)?;
        let cell = || OutOfRange(Cell { group: group.clone(), month, lane });
        let token = match &event.adds {
            Some(adds) => {
                summary.number = summary.number.checked_add(adds).ok_or_else(cell).map_err(ReconcileError::from)?;
                "counted"
            }
            None if elsewhere => "counts_elsewhere",
            None => "adds_nothing",
        };
        (event.counted, event.why) = (event.adds.is_some(), token.to_owned());
        summary.archived += 1;
        summary.counted += u64::from(event.counted);
        take(event)?;
    }
    Ok(summary)
}

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| String::new(), |time| time.to_string())
}

/// What the archive had at a moment cannot be said.
#[derive(Debug, thiserror::Error)]
pub enum AsOfError {
    /// There was no such moment.
    #[error(transparent)]
    Moment(#[from] NoSuchMoment),
    /// The log is not as it must be.
    #[error(transparent)]
    Log(#[from] StoreError),
    /// All else that can go wrong when events are explained.
    #[error(transparent)]
    Explain(#[from] ReconcileError),
}
