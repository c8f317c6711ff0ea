//! Which of some keys a file holds, reading as little of it as its statistics allow.
//!
//! A file is sorted by group, then by key, so within a group keys rise with time. Row groups and pages of `event_key`
//! whose least and greatest keys leave no wanted key between them are not read. Statistics may be cut short by a writer:
//! as bounds they hold all the same, and they are used as nothing else.

use std::collections::BTreeSet;
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use futures::stream::TryStreamExt;
use parquet::arrow::arrow_reader::RowSelection;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::PageIndexPolicy;
use recount_schemas::EventKey;
use recount_schemas::archive::column::{CONTENT_HASH, EVENT_KEY};

use super::RowsError;
use super::reader::{Opened, Wanted};
use crate::bucket::Objects;
use crate::log::AddedFile;

/// A row with one of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Its key.
    pub key: EventKey,
    /// The hash of its content: equal for a duplicate, another for a conflict, [`ERASED`](super::row::ERASED) for either.
    pub content: [u8; 16],
}

/// The rows of a live file whose key is one of `keys`.
pub async fn lookup<O: Objects>(
    objects: &O,
    file: &AddedFile,
    keys: &BTreeSet<EventKey>,
) -> Result<Vec<Found>, RowsError> {
    if keys.range(file.first_key..=file.last_key).next().is_none() {
        return Ok(Vec::new());
    }
    let opened = Opened::new(objects, file, PageIndexPolicy::Optional).await?;
    let wanted = opened.guarded(|| wanted(&opened, keys))?;
    if wanted.row_groups.is_empty() {
        return Ok(Vec::new());
    }
    let name = file.target.clone();
    let mut batches = opened.batches(&[EVENT_KEY, CONTENT_HASH], Some(wanted))?;
    let mut found = Vec::new();
    while let Some(batch) = batches.try_next().await? {
        for (key, content) in keys_of(&name, &batch)? {
            if keys.contains(&key) {
                found.push(Found { key, content });
            }
        }
    }
    Ok(found)
}

/// Where the rows of a live file with one of these keys stand: row group, and row through all row groups. Reads the keys of
/// the row groups that may have one.
pub async fn places<O: Objects>(
    objects: &O,
    file: &AddedFile,
    keys: &BTreeSet<EventKey>,
) -> Result<Vec<(EventKey, u32, u64)>, RowsError> {
    let opened = Opened::new(objects, file, PageIndexPolicy::Optional).await?;
    let wanted = opened.guarded(|| wanted(&opened, keys))?.row_groups;
    let sizes: Vec<u64> =
        opened.footer().row_groups().iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).collect();
    let mut found = Vec::new();
    for group in wanted {
        let rows = sizes.get(group).copied().unwrap_or(0);
        let mut row: u64 = sizes.iter().take(group).sum();
        let all = RowSelection::from_consecutive_ranges(std::iter::once(0..rows as usize), rows as usize);
        let opened = Opened::new(objects, file, PageIndexPolicy::Skip).await?;
        let mut batches =
            opened.batches(&[EVENT_KEY, CONTENT_HASH], Some(Wanted { row_groups: vec![group], rows: all }))?;
        while let Some(batch) = batches.try_next().await? {
            for (key, _) in keys_of(&file.target, &batch)? {
                if keys.contains(&key) {
                    found.push((key, u32::try_from(group).unwrap_or(u32::MAX), row));
                }
                row += 1;
            }
        }
    }
    Ok(found)
}

/// The event keys and content hashes of a batch that has these columns.
fn keys_of(name: &str, batch: &RecordBatch) -> Result<Vec<(EventKey, [u8; 16])>, RowsError> {
    let damaged = |why: &str| RowsError::Damaged { file: name.to_owned(), why: why.to_owned() };
    let column = |column: &str| {
        let array = batch.column_by_name(column).and_then(|array| array.as_binary_opt::<i32>());
        array.ok_or_else(|| damaged("has a key column of another type"))
    };
    let (keys, contents) = (column(EVENT_KEY)?, column(CONTENT_HASH)?);
    let pairs = keys.iter().zip(contents.iter()).map(|(key, content)| {
        let key = key.and_then(EventKey::from_slice);
        let content = content.and_then(|content| <[u8; 16]>::try_from(content).ok());
        key.zip(content).ok_or_else(|| damaged("has a key or a content hash that is not 16 bytes"))
    });
    pairs.collect()
}

/// The pages that may hold one of the keys.
fn wanted<O: Objects>(opened: &Opened<O>, keys: &BTreeSet<EventKey>) -> Result<Wanted, RowsError> {
    let (metadata, footer) = (opened.metadata(), opened.footer());
    let failed = |error| opened.failed(error);
    let statistics =
        StatisticsConverter::try_new(EVENT_KEY, metadata.schema(), metadata.parquet_schema()).map_err(failed)?;
    let least = statistics.row_group_mins(footer.row_groups()).map_err(failed)?;
    let greatest = statistics.row_group_maxes(footer.row_groups()).map_err(failed)?;
    let mut wanted = Wanted { row_groups: Vec::new(), rows: RowSelection::default() };
    let (mut ranges, mut offset): (Vec<Range<usize>>, usize) = (Vec::new(), 0);
    for (at, group) in footer.row_groups().iter().enumerate() {
        if !may_hold(keys, bound(&least, at), bound(&greatest, at)) {
            continue;
        }
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        let pages = pages(opened, &statistics, at, rows)?;
        let held = pages.into_iter().filter(|page| may_hold(keys, page.least.as_deref(), page.greatest.as_deref()));
        ranges.extend(held.map(|page| offset + page.rows.start..offset + page.rows.end));
        wanted.row_groups.push(at);
        offset += rows;
    }
    wanted.rows = RowSelection::from_consecutive_ranges(ranges.into_iter(), offset);
    Ok(wanted)
}

struct Page {
    rows: Range<usize>,
    least: Option<Vec<u8>>,
    greatest: Option<Vec<u8>>,
}

/// The pages of `event_key` in a row group; one that is the whole row group where the file has no page index.
fn pages<O: Objects>(
    opened: &Opened<O>,
    statistics: &StatisticsConverter<'_>,
    group: usize,
    rows: usize,
) -> Result<Vec<Page>, RowsError> {
    let all = || vec![Page { rows: 0..rows, least: None, greatest: None }];
    let footer = opened.footer();
    let (Some(index), Some(column)) = (footer.page_index(), statistics.parquet_column_index()) else {
        return Ok(all());
    };
    let locations = footer.page_index_for_row_group(group);
    let Some(locations) = locations.page_locations(column) else { return Ok(all()) };
    let failed = |error| opened.failed(error);
    let least = statistics.data_page_mins(index.as_ref(), [&group]).map_err(failed)?;
    let greatest = statistics.data_page_maxes(index.as_ref(), [&group]).map_err(failed)?;
    let starts: Vec<usize> = locations.iter().map(|at| usize::try_from(at.first_row_index).unwrap_or(0)).collect();
    let ranges = page_rows(&starts, rows);
    let ranges = ranges.ok_or_else(|| opened.damaged("has a page index that does not fit its rows"))?;
    let page = |(at, rows)| {
        let owned = |array: &ArrayRef| bound(array, at).map(<[u8]>::to_vec);
        Page { rows, least: owned(&least), greatest: owned(&greatest) }
    };
    Ok(ranges.into_iter().enumerate().map(page).collect())
}

/// The rows of pages that begin at `starts`, in a row group of `rows`; `None` where they leave rows out, do not rise, or go
/// beyond it.
fn page_rows(starts: &[usize], rows: usize) -> Option<Vec<Range<usize>>> {
    if starts.first() != Some(&0) {
        return None;
    }
    let ends = starts.iter().skip(1).copied().chain([rows]);
    let pages = starts.iter().copied().zip(ends).map(|(start, end)| (start <= end).then_some(start..end));
    pages.collect()
}

/// A bound out of the statistics, where there is one.
fn bound(bounds: &ArrayRef, at: usize) -> Option<&[u8]> {
    let bounds = bounds.as_binary_opt::<i32>()?;
    (at < bounds.len() && bounds.is_valid(at)).then(|| bounds.value(at))
}

/// Whether a key lies between the bounds; an absent bound excludes nothing.
fn may_hold(keys: &BTreeSet<EventKey>, least: Option<&[u8]>, greatest: Option<&[u8]>) -> bool {
    let from = least.map_or(EventKey::MIN, |bytes| padded(bytes, 0));
    let to = greatest.map_or(EventKey::MAX, |bytes| padded(bytes, 0xff));
    from <= to && keys.range(from..=to).next().is_some()
}

/// A key out of a bound: what a writer cut off is filled so that the bound is no tighter.
fn padded(bytes: &[u8], fill: u8) -> EventKey {
    let mut key = [fill; EventKey::LEN];
    for (to, from) in key.iter_mut().zip(bytes) {
        *to = *from;
    }
    EventKey::from_bytes(key)
}

#[cfg(test)]
#[path = "lookup_tests.rs"]
mod tests;
