//! The run.
//!
//! 1. Read the log to its head, refuse it if it is another definition's, and finish the last entry. Close, as lost, what a former life of the stream left open.
//! 2. Read the shards beyond the log.
//! 3. Tell rows from duplicates, conflicts and what cannot be judged; write the latter two beside the archive.
//! 4. Stage one file per month.
//! 5. Put the next entry: see [`commit`].
//! 6. Finish it, and go on from 2, until the tip or the end of the run's time.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use recount_schemas::bugs::{self, Bug};
use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::{Definition, Home, SetName, ShardId};

use super::finish::Catalog;
use super::gather::{Gathered, Gatherer, vanished};
use super::kinesis::Kinesis;
use super::life::Life;
use super::read::Reading;
use super::report::{ArchiveReport, ShardReport};
use super::sort::{sort, write_aside};
use super::source::{Source, Summary};
use super::tidy::tidy;
use super::{ArchiveError, Limits, MAX_COMMIT_BYTES};
use crate::bucket::{Bucket, Objects};
use crate::commit::{self, Committer, Ended, Outcome, Proposal};
use crate::log::state::Hole;
use crate::log::{Entry, Kind, LogStore, ShardRange, State, names};
use crate::rows::{RowsError, Written, write};

/// How far a run goes, if its time allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// To the tip of every shard that is there now.
    Tip,
    /// To the tip, but at most so many commits.
    Commits(u64),
}

/// Brings what is new in a stream into an archive.
#[derive(Debug, Clone)]
pub struct Archiver<O = Bucket, S = Kinesis> {
    objects: O,
    source: S,
    definition: Arc<Definition>,
    host: SharedHost,
    limits: Limits,
    catalog: Option<Arc<dyn Catalog>>,
    set: Option<SetName>,
}

/// What is to be committed: uploads and ranges, without the number and the targets.
struct Plan {
    kind: Kind,
    base: u64,
    token: String,
    summary: Summary,
    ranges: Vec<ShardRange>,
    files: Vec<(String, Written)>,
}

impl Proposal for Plan {
    fn base(&self) -> u64 {
        self.base
    }

    fn entry(&self, state: &State, header: Entry) -> Entry {
        let n = state.next;
        let added = self.files.iter().enumerate().map(|(i, (source, written))| {
            let target = names::target(written.month, state.version(written.month), n, i);
            written.added(source.clone(), target)
        });
        Entry {
            kind: self.kind,
            token: self.token.clone(),
            stream: Some(self.summary.stream.clone()),
            retention_hours: Some(self.summary.retention_hours),
            ranges: self.ranges.clone(),
            added: added.collect(),
            ..header
        }
    }

    fn survives(&self, others: &[Kind], _: &State) -> bool {
        others.iter().all(|kind| kind.replaces()) || bugs::on(Bug::RangesOverlap)
    }
}

impl<O: Objects, S: Source> Archiver<O, S> {
    /// An archiver with the limits of a deployment and without a catalog.
    pub fn new(objects: O, source: S, definition: Arc<Definition>, host: SharedHost) -> Self {
        Self { objects, source, definition, host, limits: Limits::default(), catalog: None, set: None }
    }

    /// The same with other limits; a commit has at most [`MAX_COMMIT_BYTES`].
    pub fn with_limits(self, limits: Limits) -> Self {
        let commit_bytes = limits.commit_bytes.min(MAX_COMMIT_BYTES);
        Self { limits: Limits { commit_bytes, ..limits }, ..self }
    }

    /// The same for a home. The archive of a set begins with a seed: without one it would lack what the stream has forgotten.
    pub fn of_home(self, home: &Home) -> Self {
        Self { set: home.set().cloned(), ..self }
    }

    /// The same with a catalog that is kept in step.
    pub fn with_catalog(self, catalog: Arc<dyn Catalog>) -> Self {
        Self { catalog: Some(catalog), ..self }
    }

    /// Runs. Several runs at once are safe: the log decides whose commit counts. Time running out is no error; the
    /// report then says that the tip was not reached. Only where not even the log could be read in time there is nothing to
    /// report: [`ArchiveError::TimeIsUp`].
    pub async fn run(&self, until: Until, deadline: Deadline) -> Result<ArchiveReport, ArchiveError> {
        let life = Life::begin(self.host.clone(), self.limits.life, deadline);
        let log = LogStore::new(self.objects.clone(), self.host.clone());
        let mut report = ArchiveReport::default();
        let mut state = self.in_time(deadline, Box::pin(log.read_to_head())).await??;
        if let Some(set) = self.set.as_ref().filter(|_| state.next == 0) {
            return Err(ArchiveError::NotSeeded(set.clone()));
        }
        let steps = Box::pin(self.steps(until, &life, &log, &mut state, &mut report));
        match self.in_time(deadline, steps).await.flatten() {
            Ok(()) | Err(ArchiveError::TimeIsUp) => {}
            Err(error) => return Err(error),
        }
        report.log_entries = state.next;
        // A schedule runs often, and mostly nothing came.
        if report.records == 0 && report.reached_tip {
            tracing::debug!(entries = report.log_entries, "archive run: nothing came");
        } else {
            tracing::info!(
                commits = report.commits,
                records = report.records,
                rows = report.rows,
                duplicates = report.duplicates,
                conflicts = report.conflicts,
                quarantined = report.quarantined,
                holes = report.lost.len(),
                races = report.races,
                reached_tip = report.reached_tip,
                "archive run"
            );
        }
        Ok(report)
    }

    /// Waits for a step, but not beyond the deadline: a request may stay without an answer. A step that is left is a crash
    /// to the log, which the next run puts right.
    async fn in_time<T>(&self, deadline: Deadline, step: impl Future<Output = T>) -> Result<T, ArchiveError> {
        deadline.within(&*self.host, step).await.ok_or(ArchiveError::TimeIsUp)
    }

    async fn steps(
        &self,
        until: Until,
        life: &Life,
        log: &LogStore<O>,
        state: &mut State,
        report: &mut ArchiveReport,
    ) -> Result<(), ArchiveError> {
        let committer = Committer {
            objects: &self.objects,
            log,
            definition: self.definition.hash(),
            catalog: self.catalog.as_deref(),
            host: &self.host,
            life,
        };
        if !bugs::on(Bug::PreviousEntryIsNotFinished) {
            committer.finish(state).await?;
        }
        self.close_former_lives(&committer, state, report).await?;
        let mut tips: BTreeSet<ShardId> = BTreeSet::new();
        while life.may_read() && !matches!(until, Until::Commits(most) if report.commits >= most) {
            let summary = self.source.describe().await?;
            let gatherer = Gatherer { source: &self.source, host: &self.host, limits: &self.limits, life };
            let gathered = gatherer.gather(&summary, state, &tips).await?;
            // A stream made anew while it was read: whose records these are cannot be said.
            if self.source.describe().await?.stream != summary.stream {
                tips.clear();
                report.plans_dropped += 1;
                continue;
            }
            let (reached_tip, now_at_tip, unread) =
                (gathered.reached_tip, gathered.tips.clone(), gathered.unread.clone());
            if gathered.readings.is_empty() {
                report.reached_tip = reached_tip;
                note_shards(state, &summary, unread, report);
                if !reached_tip && life.may_read() {
                    // Nothing could be read though there is more: only a lack of time or of budget does that.
                    tracing::warn!("no shard could be read on");
                }
                break;
            }
            let plan = match self.plan(summary.clone(), gathered, state, life).await {
                Ok(plan) => plan,
                // A file that keys were looked up in was removed and deleted meanwhile. If the log did not go on, it is lost.
                Err(error @ ArchiveError::Rows(RowsError::Gone { .. })) => {
                    let known = state.next;
                    log.catch_up(state).await?;
                    if state.next == known {
                        return Err(error);
                    }
                    committer.finish(state).await?;
                    tips.clear();
                    report.plans_dropped += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match self.commit(&plan, &committer, state, report).await? {
                Outcome::Committed(_) => {
                    tips = now_at_tip;
                    report.reached_tip = reached_tip;
                    note_shards(state, &summary, unread, report);
                }
                Outcome::Overtaken => tips.clear(),
                Outcome::TooLate => {
                    tips.clear();
                    report.plans_dropped += 1;
                }
            }
            if report.reached_tip {
                break;
            }
        }
        report.tidied = tidy(&self.objects, state, life).await?;
        Ok(())
    }

    /// A stream that was deleted and made anew: what its former life still held, nobody can read any more. Its open shards
    /// are closed, as lost.
    async fn close_former_lives(
        &self,
        committer: &Committer<'_, O>,
        state: &mut State,
        report: &mut ArchiveReport,
    ) -> Result<(), ArchiveError> {
        let life = committer.life;
        let summary = self.source.describe().await?;
        // Each turn closes one former life, or finds that another run did.
        while life.may_write() {
            let now_ms = self.host.now_ms();
            let former = state.streams.iter().find_map(|(stream, end)| {
                let gone = stream.arn == summary.stream.arn && stream.created_ms < summary.stream.created_ms;
                let readings: Vec<Reading> = end
                    .shards
                    .iter()
                    .filter(|(_, end)| gone && !end.closed)
                    .map(|(shard, end)| vanished(shard.clone(), end, now_ms))
                    .collect();
                (!readings.is_empty()).then(|| (stream.clone(), readings))
            });
            let Some((stream, readings)) = former else { break };
            let gathered = Gathered { readings, ..Gathered::default() };
            let plan = self.plan(Summary { stream, ..summary.clone() }, gathered, state, life).await?;
            self.commit(&plan, committer, state, report).await?;
        }
        Ok(())
    }

    /// Steps 3 and 4: everything that comes before the entry.
    async fn plan(
        &self,
        summary: Summary,
        gathered: Gathered,
        state: &State,
        life: &Life,
    ) -> Result<Plan, ArchiveError> {
        let kind = if gathered.is_renewal() { Kind::Renewal } else { Kind::Archive };
        let base = state.next;
        let token = commit::token(&self.host);
        let sorted = sort(&self.objects, &self.definition, &summary.name, state, gathered.readings).await?;
        write_aside(&self.objects, sorted.aside, life).await?;
        let mut files = Vec::new();
        for (i, (month, rows)) in sorted.rows.into_iter().enumerate() {
            let Some(mut written) = write(&self.definition, month, rows)? else { continue };
            let source = names::staged(base, &token, i);
            life.check()?;
            let put = self.objects.put(&source, std::mem::take(&mut written.bytes)).await;
            if !bugs::on(Bug::FailedUploadIsCommitted) {
                put?;
            }
            files.push((source, written));
        }
        Ok(Plan { kind, base, token, summary, ranges: sorted.ranges, files })
    }

    /// Steps 5 and 6.
    async fn commit(
        &self,
        plan: &Plan,
        committer: &Committer<'_, O>,
        state: &mut State,
        report: &mut ArchiveReport,
    ) -> Result<Outcome, ArchiveError> {
        let Ended { outcome, races } = committer.commit(plan, state).await?;
        report.races += races;
        if let Outcome::Committed(n) = outcome {
            note_commit(plan, n, report);
        }
        Ok(outcome)
    }
}

fn note_commit(plan: &Plan, n: u64, report: &mut ArchiveReport) {
    match plan.kind {
        Kind::Renewal => report.renewals += 1,
        _ => report.commits += 1,
    }
    for range in &plan.ranges {
        report.records += range.records;
        report.rows += range.rows;
        report.duplicates += range.duplicates;
        report.conflicts += range.conflicts;
        report.quarantined += range.quarantined;
        if let Some(lost) = &range.lost {
            let (stream, shard) = (plan.summary.stream.clone(), range.shard.clone());
            report.lost.push(Hole { n, stream, shard, lost: lost.clone() });
        }
    }
    for (_, written) in &plan.files {
        report.files += 1;
        report.bytes += written.size;
        report.months.insert(written.month);
    }
}

fn note_shards(state: &State, summary: &Summary, unread: BTreeMap<ShardId, Option<i64>>, report: &mut ArchiveReport) {
    let unread = unread.into_iter().map(|(shard, caught_up_ms)| {
        let report = ShardReport { to: None, closed: false, caught_up_ms };
        (shard, report)
    });
    let ends = state.stream(&summary.stream).into_iter().flat_map(|end| &end.shards);
    let said = ends.map(|(shard, end)| {
        let report = ShardReport { to: end.to.clone(), closed: end.closed, caught_up_ms: end.caught_up_ms };
        (shard.clone(), report)
    });
    // What the log says of a shard counts, if another run has read it meanwhile.
    report.shards = unread.chain(said).collect();
}
