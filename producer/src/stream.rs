//! The Kinesis stream, by the AWS SDK: sends what an [`Outbox`] hands out until all is settled.

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use futures::future::{Either, select};
use recount_schemas::host::{Deadline, SharedHost};

use crate::drive::Target;
use crate::relay::outbox::{Limits, Outbox, Outcome};

/// How much a request holds, and how often it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sending {
    /// What one request and one record may hold.
    pub limits: Limits,
    /// How often one record is sent before it is given up.
    pub attempts: u32,
    /// The back-off after the first refusal; it doubles with every further round of refusals. Full jitter.
    pub first_pause: Duration,
    /// The longest back-off.
    pub longest_pause: Duration,
}

impl Default for Sending {
    /// Up to 8 attempts, 50 ms to 2 s apart.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            attempts: 8,
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(2),
        }
    }
}

/// A record on its way.
pub trait Outgoing: Sync {
    /// Its partition key.
    fn partition_key(&self) -> &str;
    /// Its bytes.
    fn data(&self) -> &[u8];
    /// What it counts against the limits of Kinesis: data (before base64) and partition key, in bytes.
    fn bytes(&self) -> usize {
        self.data().len() + self.partition_key().len()
    }
}

/// Sends records to one stream.
#[derive(Debug, Clone)]
pub struct Sender {
    kinesis: Client,
    stream: String,
    sending: Sending,
    host: SharedHost,
}

impl Sender {
    /// To the stream called `stream`.
    pub fn new(kinesis: Client, stream: impl Into<String>, sending: Sending, host: SharedHost) -> Self {
        Self { kinesis, stream: stream.into(), sending, host }
    }

    /// The stream's name.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// An outbox with these records.
    pub fn outbox<R: Outgoing>(&self, records: &[R]) -> Outbox {
        let entries = records.iter().map(|record| (record.partition_key(), record.bytes()));
        Outbox::new(entries, self.sending.limits, self.sending.attempts)
    }

    /// Sends what the outbox hands out, until all is settled or given up, or the deadline passes. What is left is
    /// [`unsettled`](Outbox::unsettled).
    pub async fn send_all<R: Outgoing>(&self, records: &[R], outbox: &mut Outbox, deadline: Deadline) {
        let mut refused_rounds = 0u32;
        loop {
            let sent = outbox.next();
            if sent.is_empty() || deadline.passed(&*self.host) {
                return;
            }
            // A request cut off by the deadline may have been carried out; its records stay unsettled and come again.
            let Some(outcomes) = within(&self.host, deadline, self.put(records, &sent)).await else { return };
            outbox.settle(&sent, &outcomes);
            if outcomes.contains(&Outcome::Refused) {
                let pause = self.sending.first_pause.saturating_mul(1 << refused_rounds.min(16));
                refused_rounds = refused_rounds.saturating_add(1);
                let pause = self.host.jitter(pause.min(self.sending.longest_pause));
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
    async fn put<R: Outgoing>(&self, records: &[R], sent: &[usize]) -> Vec<Outcome> {
        let entries: Result<Vec<_>, _> = sent
            .iter()
            .filter_map(|i| records.get(*i))
            .map(|record| {
                let data = Blob::new(record.data());
                PutRecordsRequestEntry::builder().partition_key(record.partition_key()).data(data).build()
            })
            .collect();
        let refused = vec![Outcome::Refused; sent.len()];
        let Ok(entries) = entries else { return refused }; // both members are set, so this does not happen
        let request = self.kinesis.put_records().stream_name(&self.stream).set_records(Some(entries));
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                let error = recount_schemas::causes(&error);
                tracing::warn!(error, stream = self.stream, records = sent.len(), "PutRecords failed");
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
}

/// The output of `work`, unless the deadline passes before.
pub async fn within<T>(host: &SharedHost, deadline: Deadline, work: impl Future<Output = T>) -> Option<T> {
    if deadline == Deadline::NONE {
        return Some(work.await);
    }
    match select(std::pin::pin!(work), host.sleep(deadline.left(&**host))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

/// A record of one's own making, on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// Its partition key; also what stays in order.
    pub partition_key: String,
    /// Its text.
    pub text: String,
}

impl Outgoing for Posted {
    fn partition_key(&self) -> &str {
        &self.partition_key
    }

    fn data(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// The stream did not take all records.
#[derive(Debug, thiserror::Error)]
#[error("stream {stream} did not take {left} of {of} records; the log says why")]
pub struct StreamError {
    /// The stream.
    pub stream: String,
    /// How many are not known to be in it.
    pub left: usize,
    /// How many there were.
    pub of: usize,
}

impl Target for Sender {
    type Op = Posted;
    type Error = StreamError;

    fn most(&self) -> usize {
        self.sending.limits.request_records
    }

    fn item<'a>(&self, op: &'a Posted) -> &'a str {
        &op.partition_key
    }

    /// The outbox sees to the order.
    fn distinct(&self) -> bool {
        false
    }

    async fn send(&self, batch: Vec<Posted>) -> Result<(), StreamError> {
        let mut outbox = self.outbox(&batch);
        self.send_all(&batch, &mut outbox, Deadline::NONE).await;
        match outbox.unsettled().count() {
            0 => Ok(()),
            left => Err(StreamError { stream: self.stream.clone(), left, of: batch.len() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loopback::{StillHost, serve};
    use std::sync::Arc;

    fn posted(i: usize) -> Posted {
        Posted { partition_key: format!("k{i}"), text: "{}".to_owned() }
    }

    #[tokio::test]
    async fn a_target_is_done_when_the_stream_has_all_records_and_an_error_else() {
        for (entry, expected) in [
            (r#"{"SequenceNumber":"1","ShardId":"s"}"#, Ok(())),
            (r#"{"ErrorCode":"InternalFailure"}"#, Err("stream changes did not take 1 of 1 records; the log says why")),
        ] {
            let (config, seen) = serve(move |_| (200, format!(r#"{{"Records":[{entry}]}}"#))).await;
            let host = Arc::new(StillHost::default());
            let sender = Sender::new(Client::new(&config), "changes", Sending::default(), host.clone());
            let sent = Target::send(&sender, vec![posted(1)]).await.map_err(|error| error.to_string());
            assert_eq!(sent, expected.map_err(str::to_owned));
            let tries = if sent.is_ok() { 1 } else { 8 };
            assert_eq!(seen.lock().unwrap().len(), tries, "as often as the settings say");
            assert!(host.slept().iter().all(|pause| *pause < Duration::from_secs(2)));
        }
    }

    #[tokio::test]
    async fn the_deadline_cuts_off_what_is_under_way() {
        let host: SharedHost = Arc::new(StillHost::default());
        let never = std::future::pending::<()>();
        // This host's sleeps are over at once: the deadline comes first.
        let deadline = Deadline::after(&*host, Duration::from_secs(1));
        assert_eq!(within(&host, deadline, never).await, None);
        assert_eq!(within(&host, Deadline::NONE, std::future::ready(7)).await, Some(7));
    }
}
