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
//! Records too large for the stream go to S3, and what S3 does decides what becomes of the records behind them:
//!
//! | quarantine | the others | why |
//! | --- | --- | --- |
//! | answers: kept | all are sent | |
//! | answers: refused | those before the refused record are sent | the mapping comes again with everything from that record on for as long as S3 refuses, and refusals are quick: each time those behind it would enter the stream once more, and take from its throughput |
//! | does not answer for [`PATIENCE`] | all are sent, while it may still answer | they are not to wait for S3; the mapping comes again with those behind it, but only after the requests to S3 have run out |
//!
//! In either case each record is settled or reported; a record sent twice is one that the consumer finds counted.
//!
//! The mapping needs `FunctionResponseTypes: [ReportBatchItemFailures]`: without it Lambda ignores the response, and records
//! that failed are lost (Lambda Developer Guide, "services-ddb-batchfailurereporting").

pub mod event;
pub mod outbox;
pub mod partition;
pub mod quarantine;

use std::time::Duration;

use aws_lambda_events::event::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use futures::future::{Either, join, select};
use recount_schemas::bugs::{self, Bug};
use recount_schemas::host::{Deadline, SharedHost};

use crate::stream::{Outgoing, Sender, Sending, within};
pub use event::RelayError;
use event::{Envelope, Record};
use outbox::Outbox;
use quarantine::Quarantine;

/// How long the records that the stream takes wait for the quarantine of those that it does not.
pub const PATIENCE: Duration = Duration::from_secs(2);

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
        let too_large = outbox.too_large();
        if too_large.is_empty() {
            self.sender.send_all(&records, &mut outbox, deadline).await;
        } else {
            let keeping = std::pin::pin!(self.keep_too_large(&records, &too_large, deadline));
            match select(keeping, self.host.sleep(PATIENCE)).await {
                Either::Left((kept, _)) => {
                    settle_too_large(&mut outbox, &too_large, kept);
                    self.sender.send_all(&records, &mut outbox, deadline).await;
                }
                Either::Right(((), keeping)) => {
                    let (kept, ()) = join(keeping, self.sender.send_all(&records, &mut outbox, deadline)).await;
                    settle_too_large(&mut outbox, &too_large, kept);
                }
            }
        }

        let mut response = DynamoDbEventResponse::default();
        let unsettled = outbox.unsettled().filter_map(|i| records.get(i)).min_by(|a, b| {
            let order = a.sequence.cmp(&b.sequence);
            if bugs::on(Bug::RelayReportsHighestUnsettled) { order.reverse() } else { order }
        });
        if let Some(record) = unsettled {
            let left = outbox.unsettled().count();
            tracing::warn!(records = records.len(), left, from = record.name, "records are left for a retry");
            let mut failure = DynamoDbBatchItemFailure::default();
            failure.item_identifier = Some(record.name.to_owned());
            response.batch_item_failures.push(failure);
        }
        Ok(response)
    }

    /// Puts the records at these places into quarantine, in their order, up to the first that S3 refuses: from there on all
    /// come again. Gives the number of those that are kept.
    async fn keep_too_large(&self, records: &[Record<'_>], places: &[usize], deadline: Deadline) -> usize {
        for (kept, i) in places.iter().enumerate() {
            let Some(record) = records.get(*i) else { return kept };
            let put = self.quarantine.put_too_large(record, self.record_limit, self.host.now_us());
            match within(&self.host, deadline, put).await {
                Some(Ok(())) => {
                    tracing::warn!(
                        bytes = record.bytes(),
                        sequence_number = record.name,
                        "quarantined a record too large for the stream"
                    );
                }
                Some(Err(error)) => {
                    let error = recount_schemas::causes(&error);
                    tracing::error!(error, sequence_number = record.name, "could not quarantine a record");
                    return kept;
                }
                None => return kept,
            }
        }
        places.len()
    }
}

/// Takes note that the first `kept` of the too large records are in quarantine, and the next is not.
fn settle_too_large(outbox: &mut Outbox, too_large: &[usize], kept: usize) {
    let kept = if bugs::on(Bug::RelayDropsTooLarge) { too_large.len() } else { kept };
    too_large.iter().take(kept).for_each(|i| outbox.quarantined(*i));
    if let Some(refused) = too_large.get(kept) {
        outbox.not_quarantined(*refused);
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
