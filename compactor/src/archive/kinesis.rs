//! A stream over `aws-sdk-kinesis`.

use std::fmt;
use std::sync::Arc;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::types::ShardIteratorType;
use bytes::Bytes;
use recount_consumer::millis;
use recount_schemas::{SequenceNumber, ShardId};

use super::source::{ListedShard, Page, Record, Source, SourceError, Start, Summary};
use crate::log::Stream;

/// The most pages of ListShards (1,000 shards each) that are read.
const MAX_LIST_PAGES: usize = 200;

/// One stream. Cheap to clone.
#[derive(Clone)]
pub struct Kinesis {
    client: Client,
    name: Arc<str>,
}

impl fmt::Debug for Kinesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kinesis:{}", self.name)
    }
}

impl Kinesis {
    /// The stream called `name`. The client does the first retries.
    pub fn new(client: Client, name: impl Into<Arc<str>>) -> Self {
        Self { client, name: name.into() }
    }

    fn failed<E, R>(&self, action: &str, error: SdkError<E, R>) -> SourceError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: fmt::Debug,
        SdkError<E, R>: std::error::Error,
    {
        let what = format!("{action} of stream {}", self.name);
        match error.as_service_error().and_then(ProvideErrorMetadata::code) {
            Some("ExpiredIteratorException") => SourceError::Expired,
            Some("ResourceNotFoundException") => SourceError::NotThere(what),
            Some("InvalidArgumentException") => SourceError::NoSuchPosition(what),
            Some("ProvisionedThroughputExceededException" | "LimitExceededException" | "KMSThrottlingException") => {
                SourceError::Throttled(what)
            }
            _ => SourceError::Failed { action: what, why: recount_schemas::causes(&error) },
        }
    }

    fn odd(&self, action: &str, why: impl fmt::Display) -> SourceError {
        SourceError::Failed { action: format!("{action} of stream {}", self.name), why: why.to_string() }
    }

    fn shard(&self, text: &str) -> Result<ShardId, SourceError> {
        text.parse().map_err(|error| self.odd("ListShards", error))
    }

    fn record(&self, record: aws_sdk_kinesis::types::Record) -> Result<Record, SourceError> {
        let odd = |why: &dyn fmt::Display| self.odd("GetRecords", why);
        let sequence: SequenceNumber = record.sequence_number.parse().map_err(|error| odd(&error))?;
        // Every judge of the record takes its arrival for "now", in whole milliseconds as Lambda's events have it.
        let arrived = record.approximate_arrival_timestamp.ok_or_else(|| odd(&"a record without an arrival time"))?;
        let arrived_ms = millis::of_time(&arrived).ok_or_else(|| odd(&"an arrival time out of range"))?;
        Ok(Record {
            sequence,
            partition_key: record.partition_key.unwrap_or_default(),
            arrived_us: arrived_ms.saturating_mul(1_000),
            data: Bytes::from(record.data.into_inner()),
        })
    }
}

impl Source for Kinesis {
    async fn describe(&self) -> Result<Summary, SourceError> {
        let action = "DescribeStreamSummary";
        let answer = self.client.describe_stream_summary().stream_name(&*self.name).send().await;
        let answer = answer.map_err(|error| self.failed(action, error))?;
        let summary = answer.stream_description_summary.ok_or_else(|| self.odd(action, "an empty answer"))?;
        let created_ms = millis::of_time(&summary.stream_creation_timestamp);
        let created_ms = created_ms.ok_or_else(|| self.odd(action, "a creation time out of range"))?;
        Ok(Summary {
            name: self.name.to_string(),
            stream: Stream { arn: summary.stream_arn, created_ms },
            retention_hours: u32::try_from(summary.retention_period_hours).unwrap_or(0),
        })
    }

    async fn shards(&self) -> Result<Vec<ListedShard>, SourceError> {
        let action = "ListShards";
        let (mut shards, mut token) = (Vec::new(), None);
        for _ in 0..MAX_LIST_PAGES {
            // The stream's name goes with the first page only (API reference, ListShards).
            let name = token.is_none().then(|| self.name.to_string());
            let answer = self.client.list_shards().set_stream_name(name).set_next_token(token).send().await;
            let answer = answer.map_err(|error| self.failed(action, error))?;
            for shard in answer.shards.unwrap_or_default() {
                let parents = [shard.parent_shard_id, shard.adjacent_parent_shard_id].into_iter().flatten();
                shards.push(ListedShard {
                    id: self.shard(&shard.shard_id)?,
                    parents: parents.map(|parent| self.shard(&parent)).collect::<Result<_, _>>()?,
                    closed: shard.sequence_number_range.is_some_and(|range| range.ending_sequence_number.is_some()),
                });
            }
            token = answer.next_token;
            if token.is_none() {
                return Ok(shards);
            }
        }
        Err(self.odd(action, format_args!("more than {MAX_LIST_PAGES} pages")))
    }

    async fn open(&self, shard: &ShardId, start: &Start) -> Result<String, SourceError> {
        let action = format!("GetShardIterator for shard {shard}");
        let (kind, sequence) = match start {
            Start::Horizon => (ShardIteratorType::TrimHorizon, None),
            Start::At(sequence) => (ShardIteratorType::AtSequenceNumber, Some(sequence.to_string())),
            Start::After(sequence) => (ShardIteratorType::AfterSequenceNumber, Some(sequence.to_string())),
        };
        let open = self.client.get_shard_iterator().stream_name(&*self.name).shard_id(shard.as_str());
        let answer = open.shard_iterator_type(kind).set_starting_sequence_number(sequence).send().await;
        let answer = answer.map_err(|error| self.failed(&action, error))?;
        answer.shard_iterator.ok_or_else(|| self.odd(&action, "an empty answer"))
    }

    async fn page(&self, iterator: &str, most: i32) -> Result<Page, SourceError> {
        let answer = self.client.get_records().shard_iterator(iterator).limit(most.clamp(1, 10_000)).send().await;
        let answer = answer.map_err(|error| self.failed("GetRecords", error))?;
        let records = answer.records.into_iter().map(|record| self.record(record)).collect::<Result<_, _>>()?;
        Ok(Page { records, next: answer.next_shard_iterator, behind_ms: answer.millis_behind_latest })
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_kinesis::primitives::{Blob, DateTime};
    use proptest::prelude::*;
    use recount_consumer::envelope::Envelope;

    use super::*;

    proptest! {
        /// Up to the year 2100: the consumer and the archive judge a record by the same arrival.
        #[test]
        fn the_consumer_and_the_archive_agree_when_a_record_arrived(ms in 0i64..4_102_444_800_000) {
            let config = aws_sdk_kinesis::Config::builder().behavior_version(aws_config::BehaviorVersion::latest());
            let stream = Kinesis::new(Client::from_conf(config.build()), "changes");
            // As the SDK reads the answer of GetRecords: seconds as a binary fraction.
            let arrived = DateTime::from_secs_f64(ms as f64 / 1e3);
            let record = aws_sdk_kinesis::types::Record::builder().sequence_number("7").partition_key("p");
            let record = record.data(Blob::new("x")).approximate_arrival_timestamp(arrived).build().unwrap();
            let archived = stream.record(record).unwrap();

            let event = format!(
                r#"{{"kinesis":{{"partitionKey":"p","sequenceNumber":"7","data":"eA==","approximateArrivalTimestamp":{}.{:03}}},
                "eventID":"shardId-000000000000:7","eventSourceARN":"arn:aws:kinesis:eu-west-1:1:stream/changes"}}"#,
                ms / 1_000,
                ms % 1_000
            );
            let consumed = Envelope::parse(serde_json::from_str(&event).unwrap(), 0).unwrap();
            prop_assert_eq!((archived.arrived_us, consumed.arrived_us), (ms * 1_000, ms * 1_000));
        }
    }
}
