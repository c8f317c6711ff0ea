//! A run: find the rows, write their files anew, prove, put one entry a month, delete the old files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use recount_schemas::archive::events_schema;
use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::{Definition, Month};
use serde::Serialize;

use super::select::Rows;
use super::source::InSource;
use super::strip::{BY, chosen, strip};
use super::{EraseError, aside};
use crate::archive::ArchiveError;
use crate::archive::finish::Catalog;
use crate::archive::life::Life;
use crate::archive::tidy::tidy;
use crate::backfill::plan::PARTS;
use crate::bucket::{Bucket, Listing, Objects};
use crate::catalog::noted;
use crate::commit::{self, Committer};
use crate::compact::CompactError;
use crate::compact::delete::{delete, removed};
use crate::compact::replace::Replacement;
use crate::log::state::WINDOW;
use crate::log::{AddedFile, Kind, LiveFile, LogStore, State, names};
use crate::rows::{FileWriter, Written, prove, read_by};

/// Rows of a batch.
const BATCH: usize = 1_024;
/// How often a month is begun again because somebody replaced its files meanwhile, or put too many entries.
const TRIES: usize = 5;
/// See `compact`: others may put entries faster than files are written.
const WINDOW_LEFT: u64 = 16;

/// What an erasure would do, or did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EraseReport {
    /// Whether it was to change anything.
    pub confirmed: bool,
    /// Of each month, the rows and the files they are in.
    pub months: BTreeMap<Month, Erased>,
    /// The records kept in quarantine and as conflicts: the names of their objects.
    pub kept: Vec<String>,
    /// How many of these there are.
    pub kept_count: u64,
    /// Replaced files deleted.
    pub deleted: u64,
    /// Replaced files that still hold what was erased: the next compaction after the grace deletes them.
    pub waiting: u64,
    /// The catalog by which readers find the months, where this run was not told of it: no replaced file is deleted then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_catalog: Option<String>,
    /// Uploads under `_staging/`: of runs that go on, or that died or were overtaken. They may hold the data, until the log is
    /// past their window and any run deletes them.
    pub uploads: u64,
    /// Parts of backfill plans that were not applied: they hold whole items.
    pub parts: u64,
    /// Whether nothing is left to erase.
    pub finished: bool,
    /// Whether the source table still has the item, where one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<InSource>,
}

/// Of one month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Erased {
    /// The rows.
    pub rows: u64,
    /// The files that they are in.
    pub files: u64,
    /// The size of these, in bytes.
    pub bytes: u64,
}

/// Erases personal data from an archive.
#[derive(Debug, Clone)]
pub struct Eraser<O = Bucket> {
    pub(super) objects: O,
    pub(super) definition: Arc<Definition>,
    pub(super) host: SharedHost,
    life: Duration,
    deadline: Deadline,
    catalog: Option<Arc<dyn Catalog>>,
}

impl<O: Objects> Eraser<O> {
    /// An eraser whose runs may write for `life`.
    pub fn new(objects: O, definition: Arc<Definition>, host: SharedHost, life: Duration) -> Self {
        Self { objects, definition, host, life, deadline: Deadline::NONE, catalog: None }
    }

    /// The same with a catalog that is kept in step, where there is one.
    pub fn with_catalog(self, catalog: Option<Arc<dyn Catalog>>) -> Self {
        Self { catalog, ..self }
    }

    /// The same, which writes nothing after the deadline.
    pub(super) fn until(&self, deadline: Deadline) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// What a run would erase. Nothing is written.
    pub async fn plan(&self, rows: &Rows) -> Result<EraseReport, EraseError> {
        let log = LogStore::new(self.objects.clone(), self.host.clone());
        let state = log.read_to_head().await.map_err(CompactError::from)?;
        let mut report = EraseReport::default();
        for month in months(&state, rows) {
            let found = self.find(&state, month, rows).await?;
            note(&mut report, month, &found);
        }
        self.kept(rows, false, &mut report).await?;
        for month in months(&state, rows) {
            let old = removed(&self.objects, &log, &state, month).await?;
            report.waiting += old.values().map(Vec::len).sum::<usize>() as u64;
        }
        self.elsewhere(&mut report).await?;
        report.finished = report.months.is_empty() && report.kept_count == 0;
        Ok(report)
    }

    /// Erases. With `at_once` the replaced files are deleted in the end, under whoever reads them at that moment.
    pub async fn run(&self, rows: &Rows, at_once: bool) -> Result<EraseReport, EraseError> {
        let log = LogStore::new(self.objects.clone(), self.host.clone());
        let mut state = log.read_to_head().await.map_err(CompactError::from)?;
        let life = self.begin();
        self.committer(&log, &life).finish(&mut state).await.map_err(CompactError::from)?;
        let mut report = EraseReport { confirmed: true, finished: true, ..EraseReport::default() };
        for month in months(&state, rows) {
            report.finished &= self.month(month, rows, &log, &mut state, &mut report).await?;
        }
        let life = self.begin();
        report.unknown_catalog =
            noted::unknown(&self.objects, self.catalog.as_deref()).await.map_err(CompactError::from)?;
        let at_once = at_once && report.unknown_catalog.is_none();
        // Also of a run that died before it came here.
        for month in months(&state, rows) {
            let old = removed(&self.objects, &log, &state, month).await?;
            if at_once {
                report.deleted += delete(&self.objects, old, &life).await?.files;
            } else {
                report.waiting += old.values().map(Vec::len).sum::<usize>() as u64;
            }
        }
        tidy(&self.objects, &state, &life).await.map_err(CompactError::from)?;
        // Last: an object that is not understood ends it, and must not keep the replaced files.
        self.kept(rows, true, &mut report).await?;
        self.elsewhere(&mut report).await?;
        Ok(report)
    }

    pub(super) fn begin(&self) -> Life {
        Life::begin(self.host.clone(), self.life, self.deadline)
    }

    pub(super) fn committer<'c>(&'c self, log: &'c LogStore<O>, life: &'c Life) -> Committer<'c, O> {
        let (objects, host, catalog) = (&self.objects, &self.host, self.catalog.as_deref());
        Committer { objects, log, definition: self.definition.hash(), catalog, host, life }
    }

    async fn kept(&self, rows: &Rows, confirmed: bool, report: &mut EraseReport) -> Result<(), EraseError> {
        if let Rows::Item(key) = rows {
            let now =
                jiff::Timestamp::from_millisecond(self.host.now_ms()).map(|now| now.to_string()).unwrap_or_default();
            let kept = aside::erase(&self.objects, key, &now, confirmed, &|| self.begin()).await?;
            (report.kept, report.kept_count) = (kept.names, kept.count);
        }
        Ok(())
    }

    /// Objects that hold items or rows, and are no part of the archive.
    async fn elsewhere(&self, report: &mut EraseReport) -> Result<(), EraseError> {
        for (prefix, count) in [(names::STAGING, &mut report.uploads), (PARTS, &mut report.parts)] {
            let mut listing = Listing::new(&self.objects, prefix);
            while let Some(page) = listing.next_page().await.map_err(CompactError::from)? {
                *count += page.len() as u64;
            }
        }
        Ok(())
    }

    /// The month's files with such rows, and how many.
    async fn find(&self, state: &State, month: Month, rows: &Rows) -> Result<Vec<(AddedFile, u64)>, EraseError> {
        let mut found = Vec::new();
        for live in with_data(state, month) {
            let mut batches = std::pin::pin!(read_by(&self.objects, &live.file, &BY, BATCH));
            let mut count = 0;
            while let Some(batch) = batches.try_next().await.map_err(CompactError::from)? {
                let chosen = chosen(&batch, rows, &self.definition, &live.file.target)?;
                count += chosen.iter().filter(|chosen| **chosen).count() as u64;
            }
            if count > 0 {
                found.push((live.file.clone(), count));
            }
        }
        Ok(found)
    }

    /// Whether nothing is left of the month.
    ///
    /// Finding the rows takes as long as the month is large, and writes nothing: what may be written in is counted from then on.
    pub(super) async fn month(
        &self,
        month: Month,
        rows: &Rows,
        log: &LogStore<O>,
        state: &mut State,
        report: &mut EraseReport,
    ) -> Result<bool, EraseError> {
        let mut lost = 0;
        while lost < TRIES {
            let known = state.next;
            let found = self.find(state, month, rows).await;
            let life = self.begin();
            let committer = self.committer(log, &life);
            log.catch_up(state).await.map_err(CompactError::from)?;
            committer.finish(state).await.map_err(CompactError::from)?;
            let found = match found {
                Ok(found) if found.is_empty() => return Ok(true),
                Ok(found) => found,
                // One of the files was replaced and deleted meanwhile.
                Err(_) if state.next > known => {
                    lost += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut replacement = Replacement {
                kind: Kind::Erasure,
                origin: Some(origin(rows)),
                month,
                base: state.next,
                token: commit::token(&self.host),
                inputs: BTreeSet::new(),
                outputs: Vec::new(),
            };
            let mut done = Vec::new();
            let mut stands = true;
            for (file, count) in found {
                let late = state.next + WINDOW_LEFT >= replacement.base + WINDOW;
                if late || (!done.is_empty() && !life.may_read()) {
                    break; // what is left comes with the next entry
                }
                let source = names::staged(replacement.base, &replacement.token, replacement.outputs.len());
                let written = self.rewrite(&file, rows, &source, &life).await;
                log.catch_up(state).await.map_err(CompactError::from)?;
                committer.finish(state).await.map_err(CompactError::from)?;
                stands = state.find(&file.target).is_some() && replacement.stands(state);
                if !stands {
                    break;
                }
                replacement.outputs.push((source, written?));
                replacement.inputs.insert(file.target.clone());
                done.push((file, count));
            }
            let outcome = match stands {
                true => committer.commit(&replacement, state).await.map_err(CompactError::from)?.outcome,
                false => commit::Outcome::Overtaken,
            };
            match outcome {
                commit::Outcome::Committed(_) => note(report, month, &done),
                commit::Outcome::Overtaken | commit::Outcome::TooLate => lost += 1,
            }
        }
        Ok(self.find(state, month, rows).await?.is_empty())
    }

    /// Writes a file anew without the data of such rows, and proves that it counts as before.
    async fn rewrite(&self, file: &AddedFile, rows: &Rows, source: &str, life: &Life) -> Result<Written, EraseError> {
        if file.fingerprint.counts.is_none() {
            return Err(EraseError::Unproven(file.month));
        }
        let schema = events_schema(&self.definition);
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let mut batches = std::pin::pin!(read_by(&self.objects, file, &columns, BATCH));
        let mut writer = FileWriter::new(&self.definition, file.month).map_err(CompactError::from)?;
        while let Some(batch) = batches.try_next().await.map_err(CompactError::from)? {
            life.check().map_err(CompactError::from)?;
            let chosen = chosen(&batch, rows, &self.definition, &file.target)?;
            writer.write(&strip(&batch, &chosen, &self.definition, &file.target)?).map_err(CompactError::from)?;
        }
        let bytes = writer.finish().map_err(CompactError::from)?;
        let mut written = prove(&self.definition, file.month, bytes).map_err(CompactError::from)?;
        let (before, after) = (&file.fingerprint, &written.fingerprint);
        if (before.rows, before.counts, &before.sums) != (after.rows, after.counts, &after.sums) {
            let what = format!("what the rows of {} count", file.target);
            return Err(CompactError::Differs { month: file.month, what }.into());
        }
        life.check().map_err(CompactError::from)?;
        let put = self.objects.put(source, std::mem::take(&mut written.bytes)).await;
        put.map_err(|error| CompactError::Archive(ArchiveError::Bucket(error)))?;
        Ok(written)
    }
}

/// The month's files with rows that still may have their data, by what the log says.
pub(super) fn with_data(state: &State, month: Month) -> impl Iterator<Item = &LiveFile> {
    let live = state.files.get(&month).into_iter().flat_map(BTreeMap::values);
    live.filter(|live| live.file.fingerprint.erased < live.file.rows)
}

/// What the log says of an erasure: nothing of whom it is about.
fn origin(rows: &Rows) -> String {
    match rows {
        Rows::Item(_) => "erase".to_owned(),
        Rows::Before(month) => format!("erase before {month}"),
    }
}

fn months(state: &State, rows: &Rows) -> Vec<Month> {
    let within = |month: &Month| match rows {
        Rows::Item(_) => true,
        Rows::Before(before) => month < before,
    };
    state.files.keys().copied().filter(within).collect()
}

fn note(report: &mut EraseReport, month: Month, files: &[(AddedFile, u64)]) {
    for (file, rows) in files {
        let told = report.months.entry(month).or_default();
        told.rows += rows;
        told.files += 1;
        told.bytes += file.bytes;
    }
}
