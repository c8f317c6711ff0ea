//! Finding an event by its ID.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use recount_schemas::archive::column;
use recount_schemas::change::envelope;
use recount_schemas::quarantine::{self, Quarantined};
use recount_schemas::{Cell, Definition, Delta, Effect, EventKey, Group, SequenceNumber, ShardId};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{Kept, Place, WhyError, time_of_us};
use crate::bucket::{Listing, Objects};
use crate::contributions::ReadError;
use crate::contributions::columns::Rows;
use crate::fsck::columns::{Columns, names, number, text};
use crate::history::History;
use crate::log::AddedFile;
use crate::progress::{Says, Work};
use crate::reconcile::ReconcileError;
use crate::reconcile::evidence::{EvidenceError, MAX_OBJECT};
use crate::rows::{self, RowsError};

/// Files that are searched at a time.
const AT_ONCE: usize = 2;
/// Most rows with one event ID that are told of.
const MAX_HITS: usize = 100;
/// Most kept records that are read, of quarantine and of conflicts each.
const MAX_KEPT: u64 = 20_000;
/// How exactly the time of the change must be given.
const AROUND: Duration = Duration::from_secs(3_600);

/// What was looked through.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Searched {
    /// Live files whose event IDs were read.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Kept records that were read.
    pub kept: u64,
    /// Kept records that were not read, since there are too many.
    pub kept_unread: u64,
}

/// The event keys that a change made about some time can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window(EventKey, EventKey);

impl Window {
    /// Those of an hour before to an hour after a time, ms since 1970; without one, all.
    pub fn around(at_ms: Option<i64>) -> Self {
        let hour = i64::try_from(AROUND.as_millis()).unwrap_or(0);
        match at_ms {
            None => Self(EventKey::MIN, EventKey::MAX),
            // The keys of a millisecond end where those of the next begin.
            Some(ms) => {
                Self(EventKey::least_at(ms.saturating_sub(hour)), EventKey::least_at(ms.saturating_add(hour + 1)))
            }
        }
    }

    fn may_be_in(self, file: &AddedFile) -> bool {
        self.0 <= file.last_key && file.first_key <= self.1
    }
}

/// A row with the ID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Its file.
    pub file: AddedFile,
    /// Its number there, from 0.
    pub row: u64,
}

/// The rows with an event ID.
pub async fn rows<O: Objects>(
    objects: &O,
    history: &History,
    event_id: &str,
    window: Window,
    says: &Says<'_>,
) -> Result<(Vec<Hit>, Searched), WhyError> {
    let files: Vec<AddedFile> =
        history.state.live().map(|live| &live.file).filter(|file| window.may_be_in(file)).cloned().collect();
    let mut searched = Searched::default();
    let event_id: Arc<str> = event_id.into();
    says(Work::Step("searching the archive"));
    says(Work::Of(files.len() as u64, "files"));
    let searches = files.into_iter().map(|file| tokio::spawn(search(objects.clone(), file, Arc::clone(&event_id))));
    let mut searches = futures::stream::iter(searches).buffered(AT_ONCE);
    let mut hits = Vec::new();
    while let Some(ended) = searches.next().await {
        let (found, rows) = ended.map_err(|error| WhyError::BrokenOff(error.to_string()))??;
        searched.files += 1;
        says(Work::Done(1));
        searched.rows += rows;
        hits.extend(found);
        hits.truncate(MAX_HITS);
    }
    Ok((hits, searched))
}

async fn search<O: Objects>(objects: O, file: AddedFile, event_id: Arc<str>) -> Result<(Vec<Hit>, u64), RowsError> {
    let mut batches = std::pin::pin!(rows::read(&objects, &file, &[column::EVENT_ID]));
    let (mut hits, mut row) = (Vec::new(), 0);
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        let ids = batch.column_by_name(column::EVENT_ID).and_then(|ids| ids.as_string_opt::<i32>());
        let damaged = || RowsError::Damaged { file: file.target.clone(), why: "has event IDs of another type".into() };
        for id in ids.ok_or_else(damaged)? {
            if id == Some(&*event_id) && hits.len() < MAX_HITS {
                hits.push(Hit { file: file.clone(), row });
            }
            row += 1;
        }
        tokio::task::yield_now().await;
    }
    Ok((hits, row))
}

/// Which row group has the row.
pub async fn place<O: Objects>(objects: &O, hit: &Hit) -> Result<Place, RowsError> {
    let (mut row_in_group, mut row_group) = (hit.row, 0);
    for rows in rows::reader::row_groups(objects, &hit.file).await? {
        if row_in_group < rows {
            break;
        }
        row_in_group -= rows;
        row_group += 1;
    }
    Ok(Place { file: hit.file.target.clone(), row_group, row_in_group, row: hit.row })
}

/// An archived event as its row has it.
#[derive(Debug, Clone)]
pub struct Event {
    pub(super) key: EventKey,
    pub(super) name: String,
    pub(super) class: String,
    pub(super) table: String,
    pub(super) group: Option<Group>,
    pub(super) created_us: i64,
    pub(super) occurred_us: i64,
    pub(super) arrived_us: i64,
    pub(super) shard: ShardId,
    pub(super) sequence: SequenceNumber,
    pub(super) contributions: SmallVec<[(Cell, Delta); 2]>,
    pub(super) ignored: Option<String>,
}

/// Reads the row.
pub async fn event<O: Objects>(objects: &O, definition: &Definition, hit: &Hit) -> Result<Event, ReadError> {
    let names = names(definition, true);
    let mut batches = std::pin::pin!(rows::read(objects, &hit.file, &names));
    let mut before = 0;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        let rows = batch.num_rows() as u64;
        match hit.row.checked_sub(before).and_then(|i| usize::try_from(i).ok()).filter(|i| *i < batch.num_rows()) {
            Some(i) => {
                let file: Arc<str> = hit.file.target.as_str().into();
                let missing = |column| ReadError::Column { file: hit.file.target.clone(), column };
                let columns = Columns::new(&batch, definition, true).map_err(missing)?;
                let rows = Rows::new(&batch, file, hit.file.month, definition)?;
                return read_event(&columns, &rows, i, definition);
            }
            None => before += rows,
        }
    }
    let why = "it is gone".to_owned();
    Err(ReadError::Row { file: hit.file.target.clone(), event_key: format!("number {}", hit.row), why })
}

fn read_event(columns: &Columns, rows: &Rows, i: usize, definition: &Definition) -> Result<Event, ReadError> {
    let lacks = |what: &str| rows.bad(i, &format!("it has no {what}"));
    let deep = columns.deep.as_ref().ok_or_else(|| lacks("record"))?;
    let origin = rows.origin(i)?;
    let owned = |array, what| text(array, i).map(str::to_owned).ok_or_else(|| lacks(what));
    let arrived_us = number(&deep.arrived, i).ok_or_else(|| lacks("arrival"))?;
    let contributions = rows.contributions(i, definition)?;
    // The reason needs the whole record; where personal data was erased from it, the row may not judge as it did.
    let record = text(&deep.envelopes, i).and_then(|envelope| {
        let (keys, new, old) = (text(&deep.item_keys, i), text(&deep.new_images, i), text(&deep.old_images, i));
        envelope::restore(envelope, &origin.event_id, keys, new, old).ok()
    });
    let ignored = record.and_then(|record| match definition.judge(record.as_bytes(), arrived_us).ok()?.effect {
        Effect::None(why) => Some(why.code().to_owned()),
        Effect::Adds(_) => None,
    });
    Ok(Event {
        key: rows.key(i)?,
        name: owned(&deep.names, "event name")?,
        class: owned(&deep.classes, "class")?,
        table: owned(&deep.tables, "table")?,
        group: columns.group(i).and_then(|group| group.parse().ok()),
        created_us: number(&deep.created, i).ok_or_else(|| lacks("creation time"))?,
        occurred_us: number(&deep.occurred, i).ok_or_else(|| lacks("time"))?,
        arrived_us,
        shard: origin.shard_id,
        sequence: origin.sequence_number,
        ignored: ignored.filter(|_| contributions.is_empty()),
        contributions,
    })
}

/// The kept records with an event ID. At most `MAX_KEPT` of each kind are read.
pub async fn kept<O: Objects>(objects: &O, event_id: &str, searched: &mut Searched) -> Result<Vec<Kept>, WhyError> {
    let mut found = Vec::new();
    for prefix in [quarantine::PREFIX, quarantine::CONFLICTS_PREFIX] {
        let mut read = 0;
        let mut listing = Listing::new(objects, prefix);
        while let Some(page) = listing.next_page().await.map_err(EvidenceError::from).map_err(ReconcileError::from)? {
            for listed in page.iter().filter(|listed| quarantine::position_of(&listed.key).is_some()) {
                if read >= MAX_KEPT {
                    searched.kept_unread += 1;
                    continue;
                }
                read += 1;
                searched.kept += 1;
                let bytes = objects.get(&listed.key, MAX_OBJECT).await;
                let bytes = bytes.map_err(EvidenceError::from).map_err(ReconcileError::from)?;
                found.extend(bytes.and_then(|bytes| kept_as(&listed.key, &bytes, event_id)));
            }
        }
    }
    Ok(found)
}

/// A kept record, if it has the event ID: as its own member or, where it is no JSON, anywhere in its bytes.
fn kept_as(object: &str, bytes: &[u8], event_id: &str) -> Option<Kept> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(rename = "eventID")]
        event_id: String,
    }
    let kept: Quarantined = serde_json::from_slice(bytes).ok()?;
    let record = match kept.raw {
        true => kept.data.into_bytes(),
        false => STANDARD.decode(&kept.data).ok()?,
    };
    let is_it = match serde_json::from_slice::<Named>(&record) {
        Ok(named) => named.event_id == event_id,
        Err(_) => !event_id.is_empty() && record.windows(event_id.len()).any(|part| part == event_id.as_bytes()),
    };
    is_it.then(|| Kept {
        object: object.to_owned(),
        reason: kept.reason,
        shard_id: kept.shard_id,
        sequence_number: kept.sequence_number,
        arrived_at: time_of_us(kept.arrived_us),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::{NOVEMBER, definition, record, row};

    #[test]
    fn a_time_leaves_the_files_over_that_can_have_the_event() {
        let file = |first: i64, last: i64| {
            let rows = vec![row("a", Some("acme"), first, "1"), row("b", Some("acme"), last, "1")];
            let written = rows::write(&definition(), "2026-11".parse().unwrap(), rows).unwrap().unwrap();
            written.added("s".into(), "t".into())
        };
        let (hour, ms) = (3_600_000_000, |us: i64| us / 1_000);
        let of_a_day = file(NOVEMBER, NOVEMBER + 24 * hour);
        for (at, inside) in [(-2, false), (-1, true), (0, true), (12, true), (24, true), (26, false)] {
            let window = Window::around(Some(ms(NOVEMBER + at * hour)));
            assert_eq!(window.may_be_in(&of_a_day), inside, "{at} h");
        }
        assert!(Window::around(None).may_be_in(&of_a_day));
    }

    #[test]
    fn a_kept_record_is_known_by_its_member_or_where_it_is_no_json_by_its_bytes() {
        let kept = |data: &str| {
            let data = STANDARD.encode(data);
            format!(
                r#"{{"format":1,"stream":"s","shard_id":"s0","sequence_number":"7","partition_key":"p","arrived_us":1,
                    "reason":{{"code":"conflict","detail":""}},"data":"{data}"}}"#
            )
        };
        let is = |data: &str, id: &str| kept_as("o", kept(data).as_bytes(), id).is_some();
        let whole = record("e1", Some("acme"), NOVEMBER, "1");
        assert!(is(&whole, "e1") && !is(&whole, "e") && !is(&whole, "acme"));
        assert!(is("{cut off: e1", "e1") && !is("{cut off: e1", "e2") && !is("x", ""));
        assert!(kept_as("o", b"no record", "e1").is_none());
    }
}
