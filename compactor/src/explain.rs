//! The events that make a number: every archived event of a group's month, counted or not, and why.
//!
//! Reads only. What the stream has and the archive does not have yet is not listed, but counted: keys of the ledger without
//! a row. Events come sorted by creation time through the external sort, so their number is not bounded by memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use recount_schemas::definition::Count;
use recount_schemas::{Cell, Delta, EventKey, Group, Month, SequenceNumber, ShardId};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::contributions::columns::{Needs, Rows};
use crate::contributions::reader::{live_files, open};
use crate::contributions::spill::Sorter;
use crate::contributions::{ReadError, Scope};
use crate::reconcile::ReconcileError;
use crate::reconcile::diff::{Archived, KeyFacts, KeyVerdict, horizon, judge};
use crate::reconcile::evidence;
use crate::reconcile::look::read_cells;
use crate::reconcile::standing::{Mark, Standing, Standings};
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

#[derive(Serialize, Deserialize)]
struct Kept {
    event: Event,
    lane: u16,
    group: bool,
}

/// Gives every archived event of a group's month to `take`, by creation time.
pub async fn explain(
    context: &Context,
    group: &Group,
    month: Month,
    mut take: impl FnMut(Event) -> Result<(), ReconcileError>,
) -> Result<Summary, ReconcileError> {
    context.check_definition().await?;
    let scope = Scope { group: Some(group.clone()), month: Some(month), cells: None };
    let now_ms = context.host.now_ms();
    let passed = context.passed().await?;
    // Every lane, whether or not it has an item.
    let lanes: BTreeSet<Cell> =
        (0..context.definition.lanes).map(|lane| Cell { group: group.clone(), month, lane }).collect();
    let mut sorter = Sorter::new();
    read_cells(&context.totals, &Scope { cells: Some(Arc::new(lanes)), ..scope.clone() }, &mut sorter).await?;
    let quarantined = evidence::quarantined(&context.bucket).await?;
    let settled = applied::settled(&context.bucket).await?;
    let state = context.log().await?;
    let horizon = horizon(now_ms, context.definition.ledger_days);

    let mut events = events(context, &scope, &state).await?.peekable();
    let mut summary = Summary {
        group: group.clone(),
        month,
        number: Delta::zero(context.definition.measures.len()),
        archived: 0,
        counted: 0,
        unarchived: 0,
    };
    let mut standings = Standings::new(sorter.finish()?).peekable();
    while let Some(Ok(Standing::Cell(_, head))) =
        standings.next_if(|standing| matches!(standing, Ok(Standing::Cell(..))))
    {
        let out_of_range = || crate::reconcile::diff::OutOfRange(Cell { group: group.clone(), month, lane: 0 });
        summary.number = summary.number.checked_add(&head.number).ok_or_else(out_of_range)?;
    }
    loop {
        let marked = match standings.peek() {
            Some(Ok(Standing::Key(_, key, _))) => Some(*key),
            Some(Ok(Standing::Cell(..))) => None,
            Some(Err(_)) => {
                standings.next().transpose()?;
                None
            }
            None => None,
        };
        let archived = match events.peek() {
            Some(Ok((key, _))) => Some(*key),
            Some(Err(_)) => {
                events.next().transpose()?;
                None
            }
            None => None,
        };
        let Some(key) = [marked, archived].into_iter().flatten().min() else { break };
        let (mut kept_lanes, mut listed_lanes) = (BTreeSet::new(), BTreeSet::new());
        while let Some(Ok(Standing::Key(cell, _, mark))) =
            standings.next_if(|standing| matches!(standing, Ok(Standing::Key(_, of, _)) if *of == key))
        {
            match mark {
                Mark::Kept | Mark::Exposed => kept_lanes.insert(cell.lane),
                Mark::Listed => listed_lanes.insert(cell.lane),
                Mark::Ahead => false,
            };
        }
        let mut matched = false;
        while let Some(Ok((_, kept))) = events.next_if(|event| matches!(event, Ok((of, _)) if *of == key)) {
            let Kept { mut event, lane, group: in_group } = kept;
            if let Some(delta) = event.adds.clone() {
                matched = true;
                let cell = Cell { group: group.clone(), month, lane };
                let position = (event.shard_id.clone(), event.sequence_number.clone());
                let origin = crate::reconcile::finding::Origin {
                    event_id: event.event_id.clone(),
                    shard_id: position.0.clone(),
                    sequence_number: position.1.clone(),
                    file: String::new(),
                };
                let settled = settled.settled.get(&cell).is_some_and(|keys| keys.contains(&key));
                let facts = KeyFacts {
                    key,
                    in_ledger: kept_lanes.contains(&lane),
                    archived: &[Archived { delta, origin, variant: false }],
                    passed: passed.covers(&position.0, &position.1),
                    old: key < horizon,
                    quarantined: quarantined.contains(&position),
                    listed: listed_lanes.contains(&lane) && !settled,
                    voided: false,
                };
                (event.counted, event.why) = why(&facts);
            } else {
                let token = if in_group { "adds_nothing" } else { "counts_elsewhere" };
                (event.counted, event.why) = (false, token.to_owned());
            }
            summary.archived += 1;
            summary.counted += u64::from(event.counted);
            take(event)?;
        }
        if !matched && !kept_lanes.is_empty() {
            summary.unarchived += 1;
        }
    }
    Ok(summary)
}

/// Whether an event is in the number, and the token that says why.
fn why(facts: &KeyFacts<'_>) -> (bool, String) {
    let (counted, token) = match judge(facts) {
        KeyVerdict::Counted => (true, "counted"),
        KeyVerdict::Taken if facts.listed => (false, "too_old"),
        KeyVerdict::Taken => (true, "taken_as_counted"),
        KeyVerdict::NotYet => (false, "not_yet"),
        KeyVerdict::Missing => (false, "missing"),
        KeyVerdict::Quarantined => (false, "quarantined"),
        KeyVerdict::Unmatched | KeyVerdict::Void | KeyVerdict::Absent => (false, "adds_nothing"),
    };
    (counted, token.to_owned())
}

type Sourced = Result<(EventKey, Kept), ReconcileError>;

/// The archived events that are of the group's month by their own image, or add to one of its cells; by key.
async fn events(
    context: &Context,
    scope: &Scope,
    state: &crate::log::State,
) -> Result<impl Iterator<Item = Sourced>, ReconcileError> {
    let definition = &context.definition;
    let columns = Needs { origin: true, content: false, times: true }.columns(definition);
    let mut sorter = Sorter::new();
    for (month, files) in live_files(state, definition)? {
        for file in files {
            if definition.count == Count::Inserts && !scope.may_be_in(&file) {
                continue;
            }
            let target: Arc<str> = Arc::from(file.target.as_str());
            let mut batches = open(&context.bucket, &file, &columns);
            while let Some(batch) = batches.next().await {
                let rows = Rows::new(&batch?, Arc::clone(&target), month, definition)?;
                for i in 0..rows.len() {
                    push(&mut sorter, &rows, i, context, scope)?;
                }
            }
        }
    }
    let decode = |entry: std::io::Result<(Vec<u8>, Vec<u8>)>| -> Sourced {
        let (key, value) = entry?;
        let damaged = || std::io::Error::other("an entry of the temporary file is damaged");
        let key = EventKey::from_slice(&key).ok_or_else(damaged)?;
        Ok((key, serde_json::from_slice(&value).map_err(std::io::Error::other)?))
    };
    Ok(sorter.finish()?.map(decode))
}

fn push(sorter: &mut Sorter, rows: &Rows, i: usize, context: &Context, scope: &Scope) -> Result<(), ReadError> {
    let in_group = scope.month == Some(rows.month) && scope.group.as_ref().map(Group::as_str) == rows.group(i);
    let contributions = rows.contributions(i, &context.definition)?;
    let of_cell = contributions.iter().find(|(cell, _)| scope.has(cell));
    if !in_group && of_cell.is_none() {
        return Ok(());
    }
    let time = |us: Option<i64>| {
        let instant = us.and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
        instant.map_or_else(String::new, |instant| instant.to_string())
    };
    let (key, origin) = (rows.key(i)?, rows.origin(i)?);
    let event = Event {
        event_id: origin.event_id,
        occurred_at: time(rows.occurred_us(i)),
        created_at: time(rows.created_us(i)),
        shard_id: origin.shard_id,
        sequence_number: origin.sequence_number,
        counted: false,
        why: String::new(),
        adds: of_cell.map(|(_, delta)| delta.clone()),
    };
    let kept = Kept { event, lane: of_cell.map_or(0, |(cell, _)| cell.lane), group: contributions.is_empty() };
    let value = serde_json::to_vec(&kept).map_err(std::io::Error::other)?;
    Ok(sorter.push(key.as_bytes().to_vec(), value)?)
}
