//! Retention: the images of months that are older than `[archive] retain_months` says are erased, as `recount erase --before` does.
//!
//! 1. By the definition's clocks the present month and the N before it are kept: a month goes when it ended N months ago.
//! 2. The log says of each file how many of its rows have lost their data, so a month that was erased costs nothing. Rows that came late
//!    into such a month are erased by the next run.
//! 3. Some months a run, oldest first; what remains is for the next run.
//! 4. The replaced files hold the data until a compaction deletes them after the grace.

use std::collections::BTreeMap;

use recount_schemas::host::Deadline;
use recount_schemas::{Definition, Month};
use serde::Serialize;

use super::run::{EraseReport, Erased, Eraser, with_data};
use super::{EraseError, Rows};
use crate::archive::ArchiveError;
use crate::bucket::Objects;
use crate::compact::CompactError;
use crate::log::{LogStore, State};

/// The most months of a run: the first run over a long archive shares its days with compaction.
pub const MONTHS: usize = 3;

/// What retention would do, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retention {
    /// The first month whose images are kept.
    pub kept_since: Month,
    /// Of each month, what is erased; of a plan, what has data yet.
    pub months: BTreeMap<Month, Erased>,
    /// Older months that still have data, for a later run.
    pub waiting: u64,
    /// Whether there is none.
    pub finished: bool,
}

/// The first month whose images are kept; `None` where all are.
pub fn kept_since(definition: &Definition, now_us: i64) -> Option<Month> {
    let months = definition.archive.retain_months?;
    Month::of(now_us, definition.zone.rules())?.back(months)
}

/// The months before `since` with rows that have their data, oldest first.
pub fn old(state: &State, since: Month, only: Option<Month>) -> Vec<Month> {
    let wanted = |month: &Month| *month < since && only.is_none_or(|only| only == *month);
    state.files.keys().copied().filter(wanted).filter(|month| with_data(state, *month).next().is_some()).collect()
}

impl<O: Objects> Eraser<O> {
    /// What retention would erase, by the log alone. `None` where the definition keeps all.
    pub async fn plan_retention(&self, only: Option<Month>) -> Result<Option<Retention>, EraseError> {
        let Some(mut report) = self.retention() else { return Ok(None) };
        let log = LogStore::new(self.objects.clone(), self.host.clone());
        let state = log.read_to_head().await.map_err(CompactError::from)?;
        let months = old(&state, report.kept_since, only);
        for month in months.iter().take(MONTHS) {
            let told = report.months.entry(*month).or_default();
            for live in with_data(&state, *month) {
                told.rows += live.file.rows.saturating_sub(live.file.fingerprint.erased);
                told.files += 1;
                told.bytes += live.file.bytes;
            }
        }
        report.waiting = months.len().saturating_sub(MONTHS) as u64;
        report.finished = months.is_empty();
        Ok(Some(report))
    }

    /// Erases. `None` where the definition keeps all. Time running out is no error: the report then says that it has not finished.
    pub async fn retain(&self, only: Option<Month>, deadline: Deadline) -> Result<Option<Retention>, EraseError> {
        let Some(mut report) = self.retention() else { return Ok(None) };
        let within = self.until(deadline);
        let done = deadline.within(&*self.host, within.steps(only, &mut report)).await;
        match done.unwrap_or_else(|| Err(CompactError::from(ArchiveError::TimeIsUp).into())) {
            Ok(()) => report.finished = report.waiting == 0,
            Err(EraseError::Compact(CompactError::Archive(ArchiveError::TimeIsUp))) => {}
            Err(error) => return Err(error),
        }
        tracing::info!(
            months = report.months.len(),
            waiting = report.waiting,
            finished = report.finished,
            "retention run"
        );
        Ok(Some(report))
    }

    async fn steps(&self, only: Option<Month>, report: &mut Retention) -> Result<(), EraseError> {
        let log = LogStore::new(self.objects.clone(), self.host.clone());
        let mut state = log.read_to_head().await.map_err(CompactError::from)?;
        let rows = Rows::Before(report.kept_since);
        let months = old(&state, report.kept_since, only);
        report.waiting = months.len() as u64;
        for month in months {
            // One whose rows were erased before the log counted that takes no other one's turn.
            if report.months.len() >= MONTHS {
                break;
            }
            let life = self.begin();
            self.committer(&log, &life).finish(&mut state).await.map_err(CompactError::from)?;
            let mut told = EraseReport::default();
            let whole = self.month(month, &rows, &log, &mut state, &mut told).await;
            report.months.append(&mut told.months);
            if whole? {
                report.waiting -= 1;
            }
        }
        Ok(())
    }

    fn retention(&self) -> Option<Retention> {
        let kept_since = kept_since(&self.definition, self.host.now_us())?;
        Some(Retention { kept_since, months: BTreeMap::new(), waiting: 0, finished: false })
    }
}
