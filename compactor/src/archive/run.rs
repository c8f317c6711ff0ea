//! The run.
//!
//! 1. Read the log to its head, refuse it if it is another definition's, and finish the last entry. Close, as lost, what a former life of the stream left open.
//! 2. Read the shards beyond the log.
//! 3. Tell rows from duplicates, conflicts and what cannot be judged; write the latter two beside the archive.
//! 4. Stage one file per month.
//! 5. Put the next entry:
//!
//!    | under that number stands | then |
//!    | --- | --- |
//!    | ours, byte for byte | 6 |
//!    | somebody's compaction | finish it; the same ranges and uploads go under the next number, with new targets |
//!    | somebody's archive entry | finish it; back to 2: our ranges no longer begin where the log ends |
//!    | nobody can say | end the run: nothing is planned or tidied any more |
//!
//!    A number beyond the window of the plan: the plan is thrown away.
//! 6. Finish it, and go on from 2, until the tip or the end of the run's time.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use recount_schemas::bugs::{self, Bug};
use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::{Definition, ShardId};

use super::finish::{Catalog, finish};
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
use crate::log::entry::FORMAT;
use crate::log::state::{Hole, WINDOW};
use crate::log::store;
use crate::log::{Committed, Digest, Entry, Kind, LogStore, ShardRange, State, StoreError, check, names};
use crate::rows::{Written, write};

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

/// What became of a plan.
enum Outcome {
    Committed,
    /// Somebody else read the shards on.
    Overtaken,
    /// The log went beyond the plan's window.
    TooLate,
}

impl<O: Objects, S: Source> Archiver<O, S> {
    /// An archiver with the limits of a deployment and without a catalog.
    pub fn new(objects: O, source: S, definition: Arc<Definition>, host: SharedHost) -> Self {
        Self { objects, source, definition, host, limits: Limits::default(), catalog: None }
    }

    /// The same with other limits; a commit has at most [`MAX_COMMIT_BYTES`].
    pub fn with_limits(self, limits: Limits) -> Self {
        let commit_bytes = limits.commit_bytes.min(MAX_COMMIT_BYTES);
        Self { limits: Limits { commit_bytes, ..limits }, ..self }
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
        let left = deadline.left(&*self.host);
        if left == Duration::MAX {
            return Ok(step.await);
        }
        tokio::select! {
            biased;
            done = step => Ok(done),
            () = self.host.sleep(left) => Err(ArchiveError::TimeIsUp),
        }
    }

    async fn steps(
        &self,
        until: Until,
        life: &Life,
        log: &LogStore<O>,
        state: &mut State,
        report: &mut ArchiveReport,
    ) -> Result<(), ArchiveError> {
        if !bugs::on(Bug::PreviousEntryIsNotFinished) {
            self.finish(log, state, life).await?;
        }
        self.close_former_lives(log, state, life, report).await?;
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
            let (reached_tip, now_at_tip) = (gathered.reached_tip, gathered.tips.clone());
            if gathered.readings.is_empty() {
                report.reached_tip = reached_tip;
                note_shards(state, &summary, report);
                if !reached_tip && life.may_read() {
                    // Nothing could be read though there is more: only a lack of time or of budget does that.
                    tracing::warn!("no shard could be read on");
                }
                break;
            }
            let plan = self.plan(summary.clone(), gathered, state, life).await?;
            match self.commit(plan, log, state, life, report).await? {
                Outcome::Committed => {
                    tips = now_at_tip;
                    report.reached_tip = reached_tip;
                    note_shards(state, &summary, report);
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

    /// What is live, and what was put last, must be this definition's.
    fn check_definition(&self, state: &State) -> Result<(), ArchiveError> {
        let ours = self.definition.hash();
        let last = state.last.iter().map(|entry| (entry.n, &entry.definition));
        let mut all = state.live().map(|live| (live.n, &live.definition)).chain(last);
        match all.find(|(_, found)| *found != ours) {
            Some((n, found)) => Err(ArchiveError::OtherDefinition { n, found: found.clone(), ours: ours.to_owned() }),
            None => Ok(()),
        }
    }

    /// A stream that was deleted and made anew: what its former life still held, nobody can read any more. Its open shards
    /// are closed, as lost.
    async fn close_former_lives(
        &self,
        log: &LogStore<O>,
        state: &mut State,
        life: &Life,
        report: &mut ArchiveReport,
    ) -> Result<(), ArchiveError> {
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
            self.commit(plan, log, state, life, report).await?;
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
        let token = format!("{:016x}{:016x}", self.host.random_u64(), self.host.random_u64());
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
        plan: Plan,
        log: &LogStore<O>,
        state: &mut State,
        life: &Life,
        report: &mut ArchiveReport,
    ) -> Result<Outcome, ArchiveError> {
        loop {
            let n = state.next;
            if n >= plan.base + WINDOW {
                return Ok(Outcome::TooLate);
            }
            let entry = self.entry(&plan, state);
            check::follows(state, &entry)?;
            let bytes = Bytes::from(entry.to_bytes()?);
            let put = log.put(n, &bytes, || life.may_write()).await;
            if bugs::on(Bug::LostAnswerIsForgotten) && matches!(put, Err(StoreError::Undecided { .. })) {
                for (source, _) in &plan.files {
                    self.objects.delete(source).await?;
                }
                return Ok(Outcome::TooLate);
            }
            if put? == Committed::Ours {
                note_commit(&plan, n, report);
                state.apply(entry, Digest::of(&bytes))?;
                log.keep(state).await;
                self.finish(log, state, life).await?;
                return Ok(Outcome::Committed);
            }
            report.races += 1;
            let kinds = log.catch_up(state).await?;
            self.finish(log, state, life).await?;
            let overtaken = kinds.iter().any(|kind| *kind != Kind::Compaction) && !bugs::on(Bug::RangesOverlap);
            if overtaken || state.next != n + kinds.len() as u64 {
                return Ok(Outcome::Overtaken);
            }
        }
    }

    /// The plan as the entry that would come next.
    fn entry(&self, plan: &Plan, state: &State) -> Entry {
        let n = state.next;
        let target = |written: &Written, i| names::target(written.month, state.version(written.month), n, i);
        let files = plan.files.iter().enumerate();
        Entry {
            format: FORMAT,
            n,
            kind: plan.kind,
            previous: state.head,
            folded: store::folded(state).map(|text| Digest::of(text.get().as_bytes())),
            at_ms: self.host.now_ms(),
            definition: self.definition.hash().to_owned(),
            token: plan.token.clone(),
            base: plan.base,
            stream: Some(plan.summary.stream.clone()),
            retention_hours: Some(plan.summary.retention_hours),
            ranges: plan.ranges.clone(),
            added: files.map(|(i, (source, written))| written.added(source.clone(), target(written, i))).collect(),
            removed: Vec::new(),
            versions: std::collections::BTreeMap::new(),
        }
    }

    /// Finishes the last entry. Whatever others put comes by here before anything else is written, so this is where a log of
    /// another definition is refused.
    async fn finish(&self, log: &LogStore<O>, state: &mut State, life: &Life) -> Result<(), ArchiveError> {
        self.check_definition(state)?;
        finish(&self.objects, log, self.catalog.as_deref(), state, life).await?;
        self.check_definition(state)
    }
}

fn note_commit(plan: &Plan, n: u64, report: &mut ArchiveReport) {
    match plan.kind {
        Kind::Renewal => report.renewals += 1,
        Kind::Archive | Kind::Compaction => report.commits += 1,
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

fn note_shards(state: &State, summary: &Summary, report: &mut ArchiveReport) {
    let ends = state.stream(&summary.stream).into_iter().flat_map(|end| &end.shards);
    let said = ends.map(|(shard, end)| {
        let report = ShardReport { to: end.to.clone(), closed: end.closed, caught_up_ms: end.caught_up_ms };
        (shard.clone(), report)
    });
    report.shards = said.collect();
}
