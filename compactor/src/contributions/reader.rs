//! Contributions in the order (month, group, event key), streamed from the archive.
//!
//! Under `count = "inserts"` a row adds to the cell of its own group and partition, so the merge of a month's sorted files
//! is already in order. Under `net` a row can touch two cells in two months, so all contributions go through the external
//! sort first; so do those of a month with more than [`MAX_MERGED`] files. Memory: one batch of each file that is open, or
//! the buffer of the sort.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use recount_schemas::definition::Count;
use recount_schemas::{Cell, Definition, Delta, EventKey, Month};

use super::columns::{Needs, Rows};
use super::merge::{Batches, Merged};
use super::spill::{Sorted, Sorter};
use super::{Contribution, ReadError, Scope, order};
use crate::bucket::Objects;
use crate::log::{AddedFile, State};
use crate::progress::{Says, Work};
use crate::reconcile::finding::Origin;

/// Most files that are open at one time.
pub const MAX_MERGED: usize = 32;

/// The live files of the archive, by month, all made under this definition.
pub fn live_files(state: &State, definition: &Definition) -> Result<Vec<(Month, Vec<AddedFile>)>, ReadError> {
    let mut months = Vec::new();
    for (month, files) in &state.files {
        let mut of_month = Vec::new();
        for live in files.values() {
            if live.definition != definition.hash() {
                return Err(ReadError::Definition {
                    file: live.file.target.clone(),
                    found: live.definition.clone(),
                    wanted: definition.hash().to_owned(),
                });
            }
            of_month.push(live.file.clone());
        }
        months.push((*month, of_month));
    }
    Ok(months)
}

/// Opens the batches of one file, these columns of them.
pub fn open<O: Objects>(objects: &O, file: &AddedFile, columns: &[String]) -> Batches {
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let batches = crate::rows::read(objects, file, &columns);
    batches.map(|batch| batch.map_err(ReadError::from)).boxed()
}

enum Current {
    None,
    Merged(Merged),
    Sorted(Sorted),
}

/// Reads contributions in order.
pub struct Reader<'s, O> {
    says: Option<&'s Says<'s>>,
    objects: O,
    definition: Arc<Definition>,
    scope: Scope,
    columns: Vec<String>,
    months: VecDeque<(Month, Vec<AddedFile>)>,
    current: Current,
}

impl<'s, O: Objects> Reader<'s, O> {
    /// A reader of these files that gives the contributions to the cells in `scope`.
    pub fn new(objects: O, definition: Arc<Definition>, scope: Scope, files: Vec<(Month, Vec<AddedFile>)>) -> Self {
        let columns = Needs { origin: true, content: false, times: false }.columns(&definition);
        let months = match definition.count {
            Count::Inserts => files
                .into_iter()
                .map(|(month, files)| (month, files.into_iter().filter(|file| scope.may_be_in(file)).collect()))
                .collect(),
            // One sort of all months at once. The month does not matter to a net fold.
            Count::Net { .. } => files
                .first()
                .map(|(month, _)| *month)
                .map(|month| (month, files.into_iter().flat_map(|(_, files)| files).collect()))
                .into_iter()
                .collect(),
        };
        Self { says: None, objects, definition, scope, columns, months, current: Current::None }
    }

    /// The same, which says how many rows it reads, and each that it has read.
    pub fn telling(self, says: &'s Says<'s>) -> Self {
        says(Work::Of(self.months.iter().flat_map(|(_, files)| files).map(|file| file.rows).sum(), "rows"));
        Self { says: Some(says), ..self }
    }

    /// The next contribution.
    pub async fn next(&mut self) -> Result<Option<Contribution>, ReadError> {
        loop {
            match &mut self.current {
                Current::Sorted(sorted) => {
                    if let Some(entry) = sorted.next() {
                        let (key, value) = entry?;
                        return decode(&key, &value).map(Some);
                    }
                }
                Current::Merged(merged) => {
                    while let Some(row) = merged.next().await? {
                        if let Some(says) = self.says {
                            says(Work::Done(1));
                        }
                        for (cell, delta) in row.rows.contributions(row.index, &self.definition)? {
                            if self.scope.has(&cell) {
                                let origin = row.rows.origin(row.index)?;
                                return Ok(Some(Contribution { cell, key: row.key, delta, origin }));
                            }
                        }
                    }
                }
                Current::None => {}
            }
            let Some((month, files)) = self.months.pop_front() else {
                self.current = Current::None;
                return Ok(None);
            };
            self.current = if self.definition.count == Count::Inserts && files.len() <= MAX_MERGED {
                let open =
                    |file: &AddedFile| (Arc::from(file.target.as_str()), open(&self.objects, file, &self.columns));
                let files = files.iter().map(open).collect();
                Current::Merged(Merged::new(Arc::clone(&self.definition), month, files))
            } else {
                Current::Sorted(self.sort(&files).await?)
            };
        }
    }

    async fn sort(&self, files: &[AddedFile]) -> Result<Sorted, ReadError> {
        let mut sorter = Sorter::new();
        for file in files {
            let target: Arc<str> = Arc::from(file.target.as_str());
            let mut batches = open(&self.objects, file, &self.columns);
            while let Some(batch) = batches.next().await {
                let rows = Rows::new(&batch?, Arc::clone(&target), file.month, &self.definition)?;
                if let Some(says) = self.says {
                    says(Work::Done(rows.len() as u64));
                }
                for i in 0..rows.len() {
                    for (cell, delta) in rows.contributions(i, &self.definition)? {
                        if self.scope.has(&cell) {
                            let (key, value) = encode(&cell, rows.key(i)?, &delta, &rows.origin(i)?)?;
                            sorter.push(key, value)?;
                        }
                    }
                }
            }
        }
        Ok(sorter.finish()?)
    }
}

fn encode(cell: &Cell, key: EventKey, delta: &Delta, origin: &Origin) -> Result<(Vec<u8>, Vec<u8>), ReadError> {
    let mut bytes = order::unit(cell.month, &cell.group);
    bytes.extend(key.as_bytes());
    bytes.extend(cell.lane.to_be_bytes());
    let value = serde_json::to_vec(&(delta, origin)).map_err(std::io::Error::other)?;
    Ok((bytes, value))
}

fn decode(key: &[u8], value: &[u8]) -> Result<Contribution, ReadError> {
    let damaged = || std::io::Error::other("an entry of the temporary file is damaged");
    let (month, group, rest) = order::split_unit(key).ok_or_else(damaged)?;
    let (key, lane) = rest.split_at_checked(EventKey::LEN).ok_or_else(damaged)?;
    let lane = u16::from_be_bytes(lane.try_into().map_err(|_| damaged())?);
    let (delta, origin) = serde_json::from_slice(value).map_err(std::io::Error::other)?;
    Ok(Contribution {
        cell: Cell { group, month, lane },
        key: EventKey::from_slice(key).ok_or_else(damaged)?,
        delta,
        origin,
    })
}
