//! The I/O of a batch, and the answer to Lambda.
//!
//! 1. Judge every record; fold what they add by cell ([`batch`](crate::batch)).
//! 2. Apply the cells, at most 16 at once, and write quarantine, at most 8 at once.
//! 3. Every record has its verdict now, or failed. Per shard, progress moves to the greatest sequence number below the lowest
//!    failed one.
//! 4. The answer names the lowest failed sequence number, and no other: Lambda takes the lowest for its checkpoint and sends
//!    everything from it on again (Lambda Developer Guide, "Configuring partial batch response"); what succeeded beyond it is then found to be a
//!    duplicate. The identifier is never empty, for that would mean that the whole batch failed.
//!
//! One bad record delays no good one: it goes to quarantine and the shard moves on. Nor does one bad item of the totals: the
//! events of a cell that is not understood are passed by, reported, and found missing by reconcile once the item is mended. A record whose quarantine cannot be written counts as
//! failed, so that nothing is lost.
//!
//! - [`start`]: what must hold before the first batch; the clients.
//! - [`incarnation`]: which stream of that name it is.

pub mod incarnation;
pub mod start;

use std::sync::Arc;

use aws_lambda_events::event::streams::KinesisEventResponse;
use futures::{StreamExt, stream};
use recount_schemas::bugs::{self, Bug};
use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::{Definition, Settings};
use tracing::{error, info, warn};

use crate::batch::{Batch, Work};
use crate::envelope::EnvelopeError;
use crate::metrics::Metrics;
use crate::progress::Progress;
use crate::quarantine::Quarantine;
use crate::report::BatchReport;
use crate::retry::Meter;
use crate::totals::{Totals, TotalsError};

pub use incarnation::{Incarnation, Incarnations, StreamError};
pub use start::{AttemptTimeouts, Clients};

/// How many cells are written at once.
const CELLS_AT_ONCE: usize = 16;
/// How many records are written to quarantine at once.
const QUARANTINE_AT_ONCE: usize = 8;

/// Why an invocation fails as a whole, or the consumer does not start.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The event cannot be understood.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The totals cannot be used.
    #[error(transparent)]
    Totals(#[from] TotalsError),
    /// The stream cannot be described.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A record could come again when the ledger has forgotten it.
    #[error(
        "ledger_days = {ledger_days} is too short for stream {stream}, which keeps records for {retention_hours} hours: \
         it must be more than the retention and 2 days; set it to {needed_days} or more"
    )]
    LedgerTooShort {
        /// The stream.
        stream: String,
        /// The definition's `ledger_days`.
        ledger_days: u16,
        /// How long the stream keeps records, hours.
        retention_hours: u32,
        /// What would do.
        needed_days: u32,
    },
}

/// The consumer: takes batches, keeps the totals.
#[derive(Debug)]
pub struct Consumer {
    definition: Arc<Definition>,
    totals: Totals,
    progress: Progress,
    quarantine: Quarantine,
    incarnations: Incarnations,
    metrics: Metrics,
    stream: String,
    host: SharedHost,
}

impl Consumer {
    /// A consumer; [`Consumer::start`] checks what must hold before its first batch.
    pub fn new(
        clients: &Clients,
        settings: &Settings,
        definition: Arc<Definition>,
        host: SharedHost,
        metrics: Metrics,
    ) -> Self {
        Self {
            totals: Totals::new(clients.dynamo.clone(), settings, definition.clone(), host.clone()),
            progress: Progress::new(clients.dynamo.clone(), settings, host.clone()),
            quarantine: Quarantine::new(clients.s3.clone(), settings, host.clone()),
            incarnations: Incarnations::new(clients.kinesis.clone(), host.clone()),
            stream: settings.stream.clone(),
            definition,
            metrics,
            host,
        }
    }

    /// The same over other totals, such as those with another tuning.
    pub fn with_totals(self, totals: Totals) -> Self {
        Self { totals, ..self }
    }

    /// Takes one Lambda event and answers it. An error means that the whole batch comes again.
    pub async fn handle(&self, event: &[u8], deadline: Deadline) -> Result<KinesisEventResponse, HandlerError> {
        let report = self.process(event, deadline).await?;
        if let Err(error) = self.metrics.emit(&report, self.host.now_us()) {
            error!(%error, "metrics");
        }
        Ok(response(&report))
    }

    /// Takes one Lambda event and says what it came to.
    pub async fn process(&self, event: &[u8], deadline: Deadline) -> Result<BatchReport, HandlerError> {
        let began = self.host.monotonic();
        let meter = Meter::default();
        let (mut batch, work) = Batch::judge(event, &self.definition)?;
        self.apply(&mut batch, &work, deadline, &meter).await;
        self.write_quarantine(&mut batch, &work, deadline, &meter).await;

        let mut report = BatchReport { cells: work.cells.len() as u64, ..BatchReport::default() };
        for (position, verdict) in batch.verdicts() {
            if report.stream.is_empty() {
                report.stream.clone_from(&position.stream);
            }
            report.count(verdict.as_ref());
        }
        for ((stream, shard), reach) in batch.reaches() {
            if let Some(lowest) = reach.lowest_failed {
                let entry = report.lowest_failed.entry(shard.clone()).or_insert_with(|| lowest.clone());
                *entry = lowest.min(entry.clone());
            }
            let Some(done) = reach.done else { continue };
            let moved = async {
                let incarnation = self.incarnations.of(stream, deadline, &meter).await.map_err(|e| e.to_string())?;
                let created_ms = incarnation.created_ms;
                // The retention may have been raised since the start. Events that are too late for the ledger are listed, not
                // lost, so the shard goes on; whoever watches the logs must hear of it.
                let retention = incarnation.retention_hours;
                if let Err(error) = start::check_ledger(stream, self.definition.ledger_days, retention) {
                    error!(%error, "the ledger is too short");
                }
                let moved = self.progress.advance_metered(stream, created_ms, shard, &done, deadline, &meter).await;
                moved.map_err(|e| e.to_string())
            };
            if let Err(error) = moved.await {
                report.failed_progress += 1;
                warn!(stream, %shard, error, "progress could not be written; the shard's next batch moves it");
            }
        }
        if report.stream.is_empty() {
            report.stream.clone_from(&self.stream);
        }
        report.write_units = meter.write_units();
        report.read_units = meter.read_units();
        report.retries = meter.retries();
        report.seals = meter.seals();
        report.failed_seals = meter.failed_seals();
        report.lag_ms = batch.newest_us.map(|newest| (self.host.now_us() - newest).div_euclid(1_000));
        let took = self.host.monotonic().saturating_sub(began);
        report.duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        info!(
            stream = report.stream,
            records = report.records,
            applied = report.applied,
            duplicates = report.duplicates,
            failed = report.failed,
            duration_ms = report.duration_ms,
            "batch"
        );
        Ok(report)
    }

    async fn apply(&self, batch: &mut Batch, work: &Work, deadline: Deadline, meter: &Meter) {
        if bugs::on(Bug::BadRecordHoldsUpItsBatch) && !work.quarantine.is_empty() {
            return;
        }
        let cells: Vec<_> =
            work.cells
                .iter()
                .map(|cell| async move {
                    (cell, self.totals.apply_metered(&cell.cell, &cell.entries, deadline, meter).await)
                })
                .collect();
        let mut answers = stream::iter(cells).buffer_unordered(CELLS_AT_ONCE);
        while let Some((cell, answer)) = answers.next().await {
            match &answer {
                Ok(applied) if !applied.too_old.is_empty() => {
                    let events = applied.too_old.len();
                    warn!(month = %cell.cell.month, lane = cell.cell.lane, events, "events came too late to be counted");
                }
                Ok(_) => {}
                Err(error) if error.is_unusable() => {
                    let events = cell.entries.len();
                    error!(%error, events, "a cell's item is not understood; its events are passed by until it is mended");
                    batch.settle_unusable(cell);
                    continue;
                }
                Err(error) if error.may_pass() => warn!(%error, "a cell could not be applied; its records come again"),
                Err(error) => error!(%error, "a cell cannot be applied; its records come again until this is mended"),
            }
            batch.settle_cell(cell, answer.as_ref().ok());
        }
    }

    async fn write_quarantine(&self, batch: &mut Batch, work: &Work, deadline: Deadline, meter: &Meter) {
        let puts: Vec<_> = work
            .quarantine
            .iter()
            .map(|(index, record)| async move {
                (*index, record, self.quarantine.put_metered(record, deadline, meter).await)
            })
            .collect();
        let mut answers = stream::iter(puts).buffer_unordered(QUARANTINE_AT_ONCE);
        while let Some((index, record, answer)) = answers.next().await {
            match answer {
                Ok(_) => warn!(
                    shard = %record.shard_id,
                    sequence = %record.sequence_number,
                    code = record.reason.code.as_str(),
                    "a record was quarantined"
                ),
                Err(error) => {
                    warn!(%error, "a record could not be quarantined; it comes again");
                    if bugs::on(Bug::BadRecordTakesItsBatchAlong) {
                        batch.quarantine_failed(0);
                    }
                    if !bugs::on(Bug::FailedQuarantineIsDone) {
                        batch.quarantine_failed(index);
                    }
                }
            }
        }
    }
}

/// The answer to Lambda: the lowest failed sequence number, of each shard should there ever be several.
pub fn response(report: &BatchReport) -> KinesisEventResponse {
    let mut response = KinesisEventResponse::default();
    for lowest in report.lowest_failed.values().filter(|_| !bugs::on(Bug::ReportsNoFailure)) {
        response.add_failure(lowest.as_str());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch can be taken on any thread: this compiles.
    #[allow(dead_code)]
    fn a_batch_can_be_spawned(consumer: &Consumer, event: &[u8]) {
        fn is_send(_: &impl Send) {}
        is_send(&consumer.handle(event, Deadline::NONE));
    }

    #[test]
    fn the_answer_names_the_lowest_failed_record_and_never_an_empty_one() {
        let mut report = BatchReport::default();
        insta::assert_snapshot!(serde_json::to_string(&response(&report)).unwrap(), @r#"{"batchItemFailures":[]}"#);
        report.lowest_failed.insert(
            "shardId-0".parse().unwrap(),
            "49590338271490256608559692538361571095921575989136588898".parse().unwrap(),
        );
        insta::assert_snapshot!(serde_json::to_string(&response(&report)).unwrap(), @r#"{"batchItemFailures":[{"itemIdentifier":"49590338271490256608559692538361571095921575989136588898"}]}"#);
    }
}
