//! The archived events of a group's month, by creation time: those that are of it by their own image, and those that add
//! to one of its cells. Under `count = "net"` these are not the same: a change that moves an item takes it from the cell of
//! the image before.

use std::io;
use std::sync::Arc;

use futures::StreamExt;
use recount_schemas::definition::Count;
use recount_schemas::{Definition, EventKey, Group, Month};
use serde::{Deserialize, Serialize};

use super::Event;
use super::as_of::{AsOf, Was};
use crate::bucket::Objects;
use crate::contributions::columns::{Needs, Rows};
use crate::contributions::reader::{live_files, open};
use crate::contributions::spill::Sorter;
use crate::contributions::{ReadError, Scope};
use crate::log::State;

/// An event, and what the listing must know of it besides.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The event; nothing is said yet of whether it is counted.
    pub(super) event: Event,
    /// The lane of the cell that it adds to.
    pub(super) lane: u16,
    /// Whether it adds to cells, but to none of this group's month.
    pub(super) elsewhere: bool,
    /// Why it is not in the number, where that needs no ledger.
    pub(super) told: Option<String>,
}

/// Which events are wanted besides those of the group's month.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted<'a> {
    /// Also those of the group in other months.
    pub(super) other_months: bool,
    /// Only those that were there at a moment.
    pub(super) as_of: Option<&'a AsOf<'a>>,
}

/// The events of a listing, by key, and how many rows are left out since nobody can say when they came.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) sorter: Sorter,
    pub(super) undated: u64,
}

impl Listed {
    /// One more event.
    pub(super) fn push(&mut self, key: EventKey, kept: &Kept) -> Result<(), ReadError> {
        let value = serde_json::to_vec(kept).map_err(io::Error::other)?;
        Ok(self.sorter.push(key.as_bytes().to_vec(), value)?)
    }

    /// All of them, in the order of their keys.
    pub(super) fn finish(self) -> io::Result<impl Iterator<Item = Sourced>> {
        Ok(self.sorter.finish()?.map(decode))
    }
}

/// An event by its key, or why there is none.
pub(super) type Sourced = io::Result<(EventKey, Kept)>;

/// The archived events of a group's month.
pub(super) async fn events<O: Objects>(
    objects: &O,
    definition: &Definition,
    group: &Group,
    month: Month,
    state: &State,
    wanted: Wanted<'_>,
) -> Result<Listed, ReadError> {
    let scope = Scope { group: Some(group.clone()), month: Some(month), cells: None };
    let columns = Needs { origin: true, content: false, times: true }.columns(definition);
    let in_any_month = Scope { month: None, ..scope.clone() };
    let mut listed = Listed { sorter: Sorter::new(), undated: 0 };
    for (of_month, files) in live_files(state, definition)? {
        for file in files {
            // Under `net` a row may add to a cell of another month, and of another group than its file's.
            let may_be_in = match definition.count {
                Count::Inserts if wanted.other_months => in_any_month.may_be_in(&file),
                Count::Inserts => scope.may_be_in(&file),
                Count::Net { .. } => true,
            };
            if !may_be_in {
                continue;
            }
            let target: Arc<str> = Arc::from(file.target.as_str());
            let mut batches = open(objects, &file, &columns);
            while let Some(batch) = batches.next().await {
                let rows = Rows::new(&batch?, Arc::clone(&target), of_month, definition)?;
                for i in 0..rows.len() {
                    push(&mut listed, &rows, i, definition, &scope, wanted)?;
                }
            }
        }
    }
    Ok(listed)
}

fn push(
    listed: &mut Listed,
    rows: &Rows,
    i: usize,
    definition: &Definition,
    scope: &Scope,
    wanted: Wanted<'_>,
) -> Result<(), ReadError> {
    let of_group = scope.group.as_ref().map(Group::as_str) == rows.group(i);
    let of_month = scope.month == Some(rows.month);
    let contributions = rows.contributions(i, definition)?;
    let of_cell = contributions.iter().find(|(cell, _)| scope.has(cell));
    if !(of_group && (of_month || wanted.other_months)) && of_cell.is_none() {
        return Ok(());
    }
    let time = |us: Option<i64>| {
        let instant = us.and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
        instant.map_or_else(String::new, |instant| instant.to_string())
    };
    let (key, origin) = (rows.key(i)?, rows.origin(i)?);
    match wanted.as_of.map(|as_of| as_of.was(&rows.file, &origin.shard_id, &origin.sequence_number)) {
        None | Some(Was::There) => {}
        Some(Was::Later) => return Ok(()),
        Some(Was::Undated) => {
            listed.undated += 1;
            return Ok(());
        }
    }
    let event = Event {
        event_id: origin.event_id,
        event_name: rows.event_name(i).unwrap_or_default().to_owned(),
        month: (!of_month).then_some(rows.month),
        occurred_at: time(rows.occurred_us(i)),
        created_at: time(rows.created_us(i)),
        shard_id: origin.shard_id,
        sequence_number: origin.sequence_number,
        counted: false,
        why: String::new(),
        adds: of_cell.map(|(_, delta)| delta.clone()),
    };
    let elsewhere = of_cell.is_none() && !contributions.is_empty();
    let told = (of_cell.is_none() && !of_month).then(|| "other_month".to_owned());
    let kept = Kept { event, lane: of_cell.map_or(0, |(cell, _)| cell.lane), elsewhere, told };
    listed.push(key, &kept)
}

fn decode(entry: io::Result<(Vec<u8>, Vec<u8>)>) -> Sourced {
    let (key, value) = entry?;
    let damaged = || io::Error::other("an entry of the temporary file is damaged");
    let key = EventKey::from_slice(&key).ok_or_else(damaged)?;
    Ok((key, serde_json::from_slice(&value).map_err(io::Error::other)?))
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
