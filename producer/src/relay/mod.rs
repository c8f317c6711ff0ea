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

use aws_lambda_events::event::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use recount_schemas::host::{Deadline, SharedHost};

use crate::stream::{Outgoing, Sender, Sending, within};
pub use event::RelayError;
use event::{Envelope, Record};
use outbox::Outbox;
use quarantine::Quarantine;

/// Where the relay sends to, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySettings {
    /// The Kinesis stream's name.
    pub stream: String,
    /// The bucket of the quarantine.
    pub bucket: String,
    /// Sizes and retries.
    pub sending: Sending,
}

impl RelaySettings {
    /// To `stream`, with a quarantine in `bucket`.
    pub fn new(stream: impl Into<String>, bucket: impl Into<String>) -> Self {
        Self { stream: stream.into(), bucket: bucket.into(), sending: Sending::default() }
    }
}

/// Forwards change records from DynamoDB Streams to a Kinesis stream.
#[derive(Debug, Clone)]
pub struct Relay {
    sender: Sender,
    quarantine: Quarantine,
    record_limit: usize,
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
        Self {
            record_limit: settings.sending.limits.record_bytes,
            quarantine: Quarantine::new(s3, settings.bucket, settings.stream.clone()),
            sender: Sender::new(kinesis, settings.stream, settings.sending, host.clone()),
            host,
        }
    }

    /// Forwards the records of one function event; answers within `deadline`.
    ///
    /// The response names no record if all are settled, else the lowest sequence number that is not: the mapping retries
    /// from there. An error fails the whole invocation: the event is none, or it has a record that no response could name.
    pub async fn handle(&self, event: &[u8], deadline: Deadline) -> Result<DynamoDbEventResponse, RelayError> {
        let envelope = Envelope::decode(event)?;
        let records = envelope.records()?;
        let mut outbox = self.sender.outbox(&records);
        self.settle_too_large(&records, &mut outbox, deadline).await;
        self.sender.send_all(&records, &mut outbox, deadline).await;

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
            let put = self.quarantine.put_too_large(record, self.record_limit, self.host.now_us());
            match within(&self.host, deadline, put).await {
                Some(Ok(())) => {
                    tracing::warn!(
                        bytes = record.bytes(),
                        sequence_number = record.name,
                        "quarantined a record too large for the stream"
                    );
                    outbox.quarantined(i);
                }
                Some(Err(error)) => {
                    let error = recount_schemas::causes(&error);
                    tracing::error!(error, sequence_number = record.name, "could not quarantine a record");
                }
                None => return,
            }
        }
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
