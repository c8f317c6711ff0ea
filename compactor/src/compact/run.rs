//! A run: for each month that is due, choose, merge, prove, upload, put the entry; then delete what nobody reads any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use recount_schemas::bugs::{self, Bug};
use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::{Definition, Month};

use super::choose::{choose, uncounted};
use super::delete::{delete, removed, shown_since, written_since};
use super::merge::Merger;
use super::replace::Replacement;
use super::report::{CompactReport, MonthReport, Outcome};
use super::{CompactError, Limits};
use crate::archive::ArchiveError;
use crate::archive::finish::Catalog;
use crate::archive::life::Life;
use crate::archive::tidy::tidy;
use crate::bucket::{Bucket, Listed, Objects};
use crate::catalog::noted;
use crate::commit::{self, Committer, Ended};
use crate::log::state::window;
use crate::log::{AddedFile, Entry, Fingerprint, Kind, LogStore, State, names};
use crate::progress::{Says, Work};
use crate::rows::{Written, prove};

/// A merge is put at the latest when the log is so many entries before the end of its window: others may be faster.
const WINDOW_LEFT: u64 = 16;
/// The same where the window is small.
const WINDOW_LEFT_SMALL: u64 = 2;

/// Compacts an archive.
#[derive(Debug, Clone)]
pub struct Compactor<O = Bucket> {
    objects: O,
    definition: Arc<Definition>,
    host: SharedHost,
    limits: Limits,
    catalog: Option<Arc<dyn Catalog>>,
}

impl<O: Objects> Compactor<O> {
    /// A compactor with the limits of a deployment and without a catalog.
    pub fn new(objects: O, definition: Arc<Definition>, host: SharedHost) -> Self {
        Self { objects, definition, host, limits: Limits::default(), catalog: None }
    }

    /// The same with other limits. A run lives at most half the grace, if there is one: a run must be over when what
    /// it saw is deleted.
    pub fn with_limits(self, limits: Limits) -> Self {
        let life = if limits.grace.is_zero() { limits.life } else { limits.life.min(limits.grace / 2) };
        Self { limits: Limits { life, ..limits }, ..self }
    }

    /// The same with a catalog that is kept in step.
    pub fn with_catalog(self, catalog: Arc<dyn Catalog>) -> Self {
        Self { catalog: Some(catalog), ..self }
    }

    /// What a run would do now, of one month or of all. Nothing is written.
    pub async fn plan(&self, only: Option<Month>) -> Result<CompactReport, CompactError> {
        let log = LogStore::new(self.objects.clone(), self.host.clone());
        let state = log.read_to_head().await?;
        let mut report = CompactReport { finished: true, log_entries: state.next, ..CompactReport::default() };
        report.unknown_catalog = noted::unknown(&self.objects, self.catalog.as_deref()).await?;
        for month in months(&state, only) {
            let Removed { due, kept } = self.removed(&log, &state, month, &report).await?;
            let files = due.values().flatten();
            report.deleted += files.clone().count() as u64;
            report.deleted_bytes += files.map(|file| file.meta.bytes).sum::<u64>();
            report.waiting += count(&kept);
            if report.unknown_catalog.is_none() {
                let due = self.due(&log, &state, month, &kept).await?;
                self.plan_month(&state, month, due, &mut report);
            }
        }
        report.finished = report.deleted == 0 && report.months.values().all(|month| month.outcome != Outcome::Planned);
        Ok(report)
    }

    /// Runs, for one month or for all. Several runs at once are safe, and so are archivers beside them. Time running out is no
    /// error: the report then says that it has not finished.
    pub async fn run(&self, only: Option<Month>, deadline: Deadline) -> Result<CompactReport, CompactError> {
        self.run_telling(only, deadline, &|_| {}).await
    }

    /// The same, which says how far it is.
    pub async fn run_telling(
        &self,
        only: Option<Month>,
        deadline: Deadline,
        says: &Says<'_>,
    ) -> Result<CompactReport, CompactError> {
        let life = Life::begin(self.host.clone(), self.limits.life, deadline);
        let log = LogStore::new(self.objects.clone(), self.host.clone());
        let mut report = CompactReport { confirmed: true, ..CompactReport::default() };
        let steps = self.steps(only, &life, &log, &mut report, says);
        match deadline.within(&*self.host, steps).await.unwrap_or_else(|| Err(ArchiveError::TimeIsUp.into())) {
            Ok(()) => report.finished = true,
            Err(CompactError::Archive(ArchiveError::TimeIsUp)) => {}
            Err(error) => return Err(error),
        }
        let not_done = |month: &MonthReport| matches!(month.outcome, Outcome::NoTime | Outcome::TooLate);
        report.finished &= !report.months.values().any(not_done);
        tracing::info!(
            months = report.months.len(),
            deleted = report.deleted,
            waiting = report.waiting,
            races = report.races,
            finished = report.finished,
            "compaction run"
        );
        Ok(report)
    }

    async fn steps(
        &self,
        only: Option<Month>,
        life: &Life,
        log: &LogStore<O>,
        report: &mut CompactReport,
        says: &Says<'_>,
    ) -> Result<(), CompactError> {
        let mut state = log.read_to_head().await?;
        let committer = Committer {
            objects: &self.objects,
            log,
            definition: self.definition.hash(),
            catalog: self.catalog.as_deref(),
            host: &self.host,
            life,
        };
        committer.finish(&mut state).await?;
        self.move_what_is_behind(&state, life).await?;
        report.unknown_catalog = noted::unknown(&self.objects, self.catalog.as_deref()).await?;
        if let Some(catalog) = &report.unknown_catalog {
            tracing::warn!("nothing is compacted: {}", noted::why_kept(catalog));
        }
        let compacted = if report.unknown_catalog.is_none() { months(&state, only) } else { Vec::new() };
        for month in compacted {
            // Before the month is compacted again: another copy of it is made then.
            let kept = self.delete_removed(log, &state, month, life, report).await?;
            let due = self.due(log, &state, month, &kept).await?;
            let Some(groups) = self.plan_month(&state, month, due, report) else { continue };
            says(Work::Step(&format!("compacting {month}")));
            says(Work::Of(groups.iter().flatten().map(|file| file.rows).sum(), "rows"));
            let (outcome, outputs) = self.month(month, groups, &committer, &mut state, &mut report.races, says).await?;
            if let Some(told) = report.months.get_mut(&month) {
                told.outcome = outcome;
                told.into = outputs.len() as u64;
                told.into_bytes = outputs.iter().sum();
            }
        }
        says(Work::Step("tidying"));
        for month in months(&state, only) {
            report.waiting += count(&self.delete_removed(log, &state, month, life, report).await?);
        }
        report.tidied = tidy(&self.objects, &state, life).await?;
        report.log_entries = state.next;
        Ok(())
    }

    /// Deletes the removed files of a month that are due. Returns those that are not.
    async fn delete_removed(
        &self,
        log: &LogStore<O>,
        state: &State,
        month: Month,
        life: &Life,
        report: &mut CompactReport,
    ) -> Result<ByVersion, CompactError> {
        let Removed { due, kept } = self.removed(log, state, month, report).await?;
        let gone = delete(&self.objects, due, life).await?;
        report.deleted += gone.files;
        report.deleted_bytes += gone.bytes;
        Ok(kept)
    }

    /// The removed files of a month: those that may be deleted now, and the others.
    ///
    /// Those of a version are due when newer ones only have been shown for the grace; without a catalog, when the next version
    /// has been there for the grace. An erasure makes a new version whenever it is asked to, and must not put off what an
    /// earlier one removed.
    async fn removed(
        &self,
        log: &LogStore<O>,
        state: &State,
        month: Month,
        report: &CompactReport,
    ) -> Result<Removed, CompactError> {
        let mut due = removed(&self.objects, log, state, month).await?;
        if report.unknown_catalog.is_some() {
            return Ok(Removed { due: ByVersion::new(), kept: due });
        }
        let versions: Vec<u64> = due.keys().copied().collect();
        let mut kept = ByVersion::new();
        if let Some(catalog) = self.catalog.as_deref().filter(|_| !due.is_empty()) {
            let shown = catalog.shown(month).await.map_err(ArchiveError::Catalog)?;
            // A location that is behind was set back, or is not moved yet: it may be on its way to anything.
            let shown = shown.filter(|shown| shown.version == state.version(month));
            let waits = |version: &&u64| self.wait(shown.as_ref().and_then(|shown| shown.left(**version))).is_err();
            if let Some(version) = versions.iter().find(waits) {
                kept = due.split_off(version);
            }
        } else if !self.limits.grace.is_zero() {
            let present = state.version(month);
            for (i, version) in versions.iter().enumerate() {
                let next = versions.get(i + 1).copied().unwrap_or(present);
                let since = match written_since(&self.objects, month, next).await? {
                    None if next != present => written_since(&self.objects, month, present).await?,
                    since => since,
                };
                if self.wait(since).is_err() {
                    kept = due.split_off(version);
                    break;
                }
            }
        }
        Ok(Removed { due, kept })
    }

    /// A month's location that is behind its version is moved, whoever should have done it.
    async fn move_what_is_behind(&self, state: &State, life: &Life) -> Result<(), CompactError> {
        if let Some(catalog) = &self.catalog {
            life.check()?;
            let months: BTreeSet<Month> = state.files.keys().copied().collect();
            catalog.place(state, &months).await.map_err(ArchiveError::Catalog)?;
        }
        Ok(())
    }

    /// Whether the month's last compaction has been shown for the grace, or there was none; else from when on it is, ms since 1970.
    /// `kept` are its removed files that stay: a compaction of which nothing is left is older than that.
    async fn due(
        &self,
        log: &LogStore<O>,
        state: &State,
        month: Month,
        kept: &ByVersion,
    ) -> Result<Result<(), i64>, CompactError> {
        if self.limits.grace.is_zero() && self.catalog.is_none() {
            return Ok(Ok(()));
        }
        let versions = [state.version(month)].into_iter().chain(kept.keys().rev().copied());
        for version in versions.filter(|version| *version > 0) {
            let bytes = log.bytes_of(version).await?;
            let entry = bytes.map(|bytes| Entry::from_bytes(version, &bytes)).transpose();
            let entry = entry.map_err(ArchiveError::from)?;
            if entry.is_none_or(|entry| entry.kind == Kind::Compaction) {
                let since = shown_since(&self.objects, self.catalog.as_deref(), state, month, version).await?;
                return Ok(self.wait(since));
            }
        }
        Ok(Ok(()))
    }

    /// Whether the grace from then is over; else when it is, ms since 1970.
    fn wait(&self, since_ms: Option<i64>) -> Result<(), i64> {
        let grace_ms = i64::try_from(self.limits.grace.as_millis()).unwrap_or(i64::MAX);
        let now_ms = self.host.now_ms();
        match since_ms {
            Some(since_ms) if since_ms.saturating_add(grace_ms) <= now_ms => Ok(()),
            since_ms => Err(since_ms.unwrap_or(now_ms).saturating_add(grace_ms)),
        }
    }

    /// What is to be merged of a month, noted in the report.
    pub(super) fn plan_month(
        &self,
        state: &State,
        month: Month,
        due: Result<(), i64>,
        report: &mut CompactReport,
    ) -> Option<Vec<Vec<AddedFile>>> {
        let live = state.files.get(&month)?;
        let mut groups = choose(live.values().map(|live| &live.file), &self.limits);
        groups.extend(uncounted(live.values().map(|live| &live.file), &groups));
        if groups.is_empty() {
            return None;
        }
        let all = || groups.iter().flatten();
        let outcome = due.map_or_else(Outcome::NotDue, |()| Outcome::Planned);
        let told = MonthReport {
            outcome,
            live: live.len() as u64,
            files: all().count() as u64,
            rows: all().map(|file| file.rows).sum(),
            bytes: all().map(|file| file.bytes).sum(),
            into: groups.len() as u64,
            into_bytes: 0,
        };
        report.months.insert(month, told);
        due.ok().map(|()| groups)
    }

    /// Merges a month's groups and puts the entry. Gives the sizes of the files that were made.
    pub(super) async fn month(
        &self,
        month: Month,
        groups: Vec<Vec<AddedFile>>,
        committer: &Committer<'_, O>,
        state: &mut State,
        races: &mut u64,
        says: &Says<'_>,
    ) -> Result<(Outcome, Vec<u64>), CompactError> {
        let mut replacement = Replacement {
            kind: Kind::Compaction,
            origin: None,
            month,
            base: state.next,
            token: commit::token(&self.host),
            inputs: BTreeSet::new(),
            outputs: Vec::new(),
        };
        let left = bugs::number(WINDOW_LEFT, WINDOW_LEFT_SMALL);
        let mut all_merged = true;
        for group in groups {
            // What is merged is committed while there is time for it; the rest of the month waits for another run.
            if !committer.life.may_read() || state.next + left >= replacement.base + window() {
                all_merged = false;
                break;
            }
            let merged = self.merge(&group, &replacement, committer.life).await;
            // Others went on meanwhile. What they replaced is not merged any more.
            committer.log.catch_up(state).await?;
            committer.finish(state).await?;
            let gone = group.iter().any(|file| state.find(&file.target).is_none()) || !replacement.stands(state);
            match merged {
                _ if gone => return Ok((Outcome::Overtaken, Vec::new())),
                Err(CompactError::Archive(ArchiveError::TimeIsUp)) => {
                    all_merged = false;
                    break;
                }
                Err(error) => return Err(error),
                Ok(outputs) => {
                    says(Work::Done(group.iter().map(|file| file.rows).sum()));
                    replacement.outputs.extend(outputs);
                    replacement.inputs.extend(group.into_iter().map(|file| file.target));
                }
            }
        }
        if replacement.outputs.is_empty() {
            return Ok((if all_merged { Outcome::Overtaken } else { Outcome::NoTime }, Vec::new()));
        }
        let Ended { outcome, races: lost } = committer.commit(&replacement, state).await?;
        *races += lost;
        let sizes = replacement.outputs.iter().map(|(_, written)| written.size).collect();
        Ok(match outcome {
            commit::Outcome::Committed(n) => (Outcome::Compacted(n), sizes),
            commit::Outcome::Overtaken => (Outcome::Overtaken, Vec::new()),
            commit::Outcome::TooLate => (Outcome::TooLate, Vec::new()),
        })
    }

    /// Merges one group: each file is proven and uploaded before the next one is made.
    async fn merge(
        &self,
        group: &[AddedFile],
        replacement: &Replacement,
        life: &Life,
    ) -> Result<Vec<(String, Written)>, CompactError> {
        let month = replacement.month;
        let mut merger = Merger::new(&self.objects, &self.definition, month, group, &self.limits, life);
        let (mut outputs, mut after) = (Vec::new(), Fingerprint::default());
        while let Some(bytes) = merger.next_file().await? {
            let mut written = prove(&self.definition, month, bytes)?;
            add(&mut after, &written.fingerprint, month)?;
            let source = names::staged(replacement.base, &replacement.token, replacement.outputs.len() + outputs.len());
            life.check()?;
            self.objects.put(&source, std::mem::take(&mut written.bytes)).await?;
            outputs.push((source, written));
        }
        let mut before = Fingerprint::default();
        for file in group {
            add(&mut before, &file.fingerprint, month)?;
        }
        if bugs::on(Bug::MergeIsNotProven)
            && let [(_, only)] = outputs.as_mut_slice()
        {
            only.fingerprint = before;
            return Ok(outputs);
        }
        match difference(&before, &after) {
            None => Ok(outputs),
            Some(what) => Err(CompactError::Differs { month, what }),
        }
    }
}

/// Removed files of a month by version, oldest first.
type ByVersion = BTreeMap<u64, Vec<Listed>>;

/// The removed files of a month.
struct Removed {
    /// Those that may be deleted now.
    due: ByVersion,
    /// The others.
    kept: ByVersion,
}

fn count(files: &ByVersion) -> u64 {
    files.values().map(Vec::len).sum::<usize>() as u64
}

/// The months that are looked at.
fn months(state: &State, only: Option<Month>) -> Vec<Month> {
    state.files.keys().copied().filter(|month| only.is_none_or(|only| only == *month)).collect()
}

pub(crate) fn add(to: &mut Fingerprint, print: &Fingerprint, month: Month) -> Result<(), CompactError> {
    let too_large = || CompactError::Differs { month, what: "their sums do not fit 38 digits".to_owned() };
    to.add(print).ok_or_else(too_large)
}

/// How the rows written differ from those that the log says were read. Of files of the log's first format it does not say
/// what their rows count.
fn difference(before: &Fingerprint, after: &Fingerprint) -> Option<String> {
    if before.rows != after.rows {
        return Some(format!("{} rows instead of {}", after.rows, before.rows));
    }
    if before.sums != after.sums {
        return Some("a measure's sum".to_owned());
    }
    if before.hash != after.hash {
        return Some("the hash over their content".to_owned());
    }
    let counted = before.counts.is_none() || before.counts == after.counts;
    (!counted).then(|| "the hash over what they count".to_owned())
}
