//! The relay: DynamoDB Streams → Kinesis, as a Lambda function behind an event source mapping.
//!
//! - [`event`]: the function's event, decoded lazily: each record stays its own JSON text and is forwarded byte for byte.
//! - [`partition`]: the partition key: a hash of the item's key, so that one item stays on one shard.
//! - [`outbox`]: what is sent next, given what became of what was sent. Pure; the rules and their truth table are there.
//! - [`quarantine`]: where a record goes that is too large for the stream.
//!
//! What holds when [`Relay::handle`] returns:
//!
//! - Every record before the reported one is in the stream, or in quarantine; the mapping checkpoints no further.
//! - Records of one item entered the stream in their order, each at least once.
//! - The relay judges nothing: a record that the consumer will not understand is forwarded like any other, and quarantined
//!   there under its position in the stream.
//!
//! The mapping needs `FunctionResponseTypes: [ReportBatchItemFailures]`: without it Lambda ignores the response, and records
//! that failed are lost (Lambda Developer Guide, "services-ddb-batchfailurereporting").

pub mod event;
pub mod outbox;
pub mod partition;
pub mod quarantine;

use std::time::Duration;

use aws_lambda_events::event::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use aws_sdk_kinesis::error::DisplayErrorContext;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use futures::future::{Either, select};
use recount_schemas::host::{Deadline, SharedHost};

pub use event::RelayError;
use event::{Envelope, Record};
use outbox::{Limits, Outbox, Outcome};
use quarantine::Quarantine;

/// How the relay sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySettings {
    /// The Kinesis stream's name.
    pub stream: String,
    /// The bucket of the quarantine.
    pub bucket: String,
    /// What one request and one record may hold.
    pub limits: Limits,
    /// How often one record is sent before the relay gives up on it.
    pub attempts: u32,
    /// The back-off after the first refusal; it doubles with every further round of refusals. Full jitter.
    pub first_pause: Duration,
    /// The longest back-off.
    pub longest_pause: Duration,
}

impl RelaySettings {
    /// To `stream`, with a quarantine in `bucket`: up to 8 attempts, 50 ms to 2 s apart.
    pub fn new(stream: impl Into<String>, bucket: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
            bucket: bucket.into(),
            limits: Limits::default(),
            attempts: 8,
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(2),
        }
    }
}

/// Forwards change records from DynamoDB Streams to a Kinesis stream.
#[derive(Debug, Clone)]
pub struct Relay {
    kinesis: aws_sdk_kinesis::Client,
    quarantine: Quarantine,
    settings: RelaySettings,
    host: SharedHost,
}

impl Relay {
    /// A relay that sends by `kinesis` and keeps what does not fit by `s3`.
    pub fn new(
        kinesis: aws_sdk_kinesis::Client,
        s3: aws_sdk_s3::Client,
        settings: RelaySettings,
        host: SharedHost,
    ) -> Self {
        let quarantine = Quarantine::new(s3, settings.bucket.clone(), settings.stream.clone());
        Self { kinesis, quarantine, settings, host }
    }

    /// Forwards the records of one function event; answers within `deadline`.
    ///
    /// The response names no record if all are settled, else the lowest sequence number that is not: the mapping retries
    /// from there. An error fails the whole invocation: the event is none, or it has a record that no response could name.
    pub async fn handle(&self, event: &[u8], deadline: Deadline) -> Result<DynamoDbEventResponse, RelayError> {
        let envelope = Envelope::decode(event)?;
        let records = envelope.records()?;
        let mut outbox = Outbox::new(
            records.iter().map(|record| (record.partition_key.as_str(), record.bytes())),
            self.settings.limits,
            self.settings.attempts,
        );
        self.settle_too_large(&records, &mut outbox, deadline).await;
        self.send(&records, &mut outbox, deadline).await;

        let mut response = DynamoDbEventResponse::default();
        let unsettled = outbox.unsettled().filter_map(|i| records.get(i)).min_by(|a, b| a.sequence.cmp(&b.sequence));
        if let Some(record) = unsettled {
            let left = outbox.unsettled().count();
            tracing::warn!(records = records.len(), left, from = record.name, "records are left for a retry");
            let mut failure = DynamoDbBatchItemFailure::default();
            failure.item_identifier = Some(record.name.to_owned());
            response.batch_item_failures.push(failure);
        }
        Ok(response)
    }

    /// Puts the records that the stream would refuse into quarantine, so that they hold up no other.
    async fn settle_too_large(&self, records: &[Record<'_>], outbox: &mut Outbox, deadline: Deadline) {
        for i in outbox.too_large() {
            let Some(record) = records.get(i) else { continue };
            let put = self.quarantine.put_too_large(record, self.settings.limits.record_bytes, self.host.now_us());
            match self.within(deadline, put).await {
                Some(Ok(())) => {
                    tracing::warn!(
                        bytes = record.bytes(),
                        sequence_number = record.name,
                        "quarantined a record too large for the stream"
                    );
                    outbox.quarantined(i);
                }
                Some(Err(error)) => {
                    let error = DisplayErrorContext(&error).to_string();
                    tracing::error!(error, sequence_number = record.name, "could not quarantine a record");
                }
                None => return,
            }
        }
    }

    /// Sends what the outbox hands out, until all is settled or given up, or the deadline passes.
    async fn send(&self, records: &[Record<'_>], outbox: &mut Outbox, deadline: Deadline) {
        let mut refused_rounds = 0u32;
        loop {
            let sent = outbox.next();
            if sent.is_empty() || deadline.passed(&*self.host) {
                return;
            }
            // A request cut off by the deadline may have been carried out; its records stay unsettled and come again.
            let Some(outcomes) = self.within(deadline, self.put(records, &sent)).await else { return };
            outbox.settle(&sent, &outcomes);
            if outcomes.contains(&Outcome::Refused) {
                let pause = self.settings.first_pause.saturating_mul(1 << refused_rounds.min(16));
                refused_rounds = refused_rounds.saturating_add(1);
                let pause = self.host.jitter(pause.min(self.settings.longest_pause));
                if pause >= deadline.left(&*self.host) {
                    return;
                }
                self.host.sleep(pause).await;
            } else {
                refused_rounds = 0;
            }
        }
    }

    /// One PutRecords: what became of each of the records `sent`, in that order. A request that failed as a whole refused
    /// each of them.
    async fn put(&self, records: &[Record<'_>], sent: &[usize]) -> Vec<Outcome> {
        let entries: Result<Vec<_>, _> = sent
            .iter()
            .filter_map(|i| records.get(*i))
            .map(|record| {
                PutRecordsRequestEntry::builder()
                    .partition_key(&record.partition_key)
                    .data(Blob::new(record.text.as_bytes()))
                    .build()
            })
            .collect();
        let refused = vec![Outcome::Refused; sent.len()];
        let Ok(entries) = entries else { return refused }; // both members are set, so this does not happen
        let request = self.kinesis.put_records().stream_name(&self.settings.stream).set_records(Some(entries));
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                let error = DisplayErrorContext(&error).to_string();
                tracing::warn!(error, stream = self.settings.stream, records = sent.len(), "PutRecords failed");
                return refused;
            }
        };
        // The answer has one entry for each record, in the order of the request (API reference, "PutRecords"). Whatever
        // has no sequence number is not known to be in the stream.
        let outcomes: Vec<Outcome> = answer
            .records()
            .iter()
            .map(|entry| match (entry.error_code(), entry.sequence_number()) {
                (None, Some(_)) => Outcome::Delivered,
                _ => Outcome::Refused,
            })
            .collect();
        if outcomes.len() != sent.len() {
            return refused;
        }
        if let Some(code) = answer.records().iter().find_map(|entry| entry.error_code()) {
            let refused = outcomes.iter().filter(|outcome| **outcome == Outcome::Refused).count();
            tracing::info!(refused, of = sent.len(), code, "PutRecords refused some records");
        }
        outcomes
    }

    /// The output of `work`, unless the deadline passes before.
    async fn within<T>(&self, deadline: Deadline, work: impl Future<Output = T>) -> Option<T> {
        if deadline == Deadline::NONE {
            return Some(work.await);
        }
        match select(Box::pin(work), self.host.sleep(deadline.left(&*self.host))).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
