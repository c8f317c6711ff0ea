//! DynamoDB Streams of the embedded DynamoDB as a source, with events in Lambda's shape.
//!
//! The engine has one shard for a table, for ever: resharding of DynamoDB Streams cannot be seen here. (Their 24 h
//! horizon is kept by [`crate::dynamo`].) Two of its habits are put right: it writes a record for a put that changes
//! nothing, which AWS does not (DDG streams), and it calls its region `dynoxide`. `SizeBytes` is its own: the length
//! of the JSON, not DynamoDB's item size.

use std::fmt;

use dynoxide::Database;
use dynoxide::actions::describe_stream::DescribeStreamRequest;
use dynoxide::actions::get_records::{GetRecordsRequest, Record};
use dynoxide::actions::get_shard_iterator::GetShardIteratorRequest;
use dynoxide::actions::list_streams::ListStreamsRequest;
use dynoxide::errors::DynoxideError;
use recount_schemas::host::SharedHost;
use serde_json::Value;
use tokio::sync::watch;

use super::config::Starting;
use super::source::{Item, Listing, Page, ShardInfo, Source, SourceError};
use crate::kinesis::{ACCOUNT, REGION};

/// The engine's numbers are made public by adding this: 21 digits, as on AWS.
const OFFSET: u128 = 100_000_000_000_000_000_000;
/// Records asked for at a time: an image can have 400 KB, so this bounds a read at 80 MB.
const PAGE: usize = 100;
const RETENTION_MS: i64 = 24 * 3_600_000;
/// Most records that a backlog counts.
const MOST_COUNTED: usize = 1_000;

/// The stream of one table.
#[derive(Clone)]
pub struct DynamoSource {
    db: Database,
    table: String,
    host: SharedHost,
    changes: Option<watch::Receiver<u64>>,
}

impl fmt::Debug for DynamoSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoSource").field("table", &self.table).finish_non_exhaustive()
    }
}

impl DynamoSource {
    /// The stream of that table; neither need exist yet.
    pub fn new(db: Database, table: impl Into<String>, host: SharedHost) -> Self {
        Self { db, table: table.into(), host, changes: None }
    }

    /// Looks for records when `changes` changes, and not only once a poll.
    #[must_use]
    pub fn woken_by(mut self, changes: watch::Receiver<u64>) -> Self {
        self.changes = Some(changes);
        self
    }

    /// The label of the stream, and the ARN by which the engine knows it.
    fn stream(&self) -> Result<(String, String), SourceError> {
        let request = ListStreamsRequest { table_name: Some(self.table.clone()), ..Default::default() };
        let streams = self.db.list_streams(request).map_err(failed)?.streams;
        let stream = streams.into_iter().next();
        let stream = stream.ok_or_else(|| SourceError::Gone(format!("the table {} has no stream", self.table)))?;
        Ok((stream.stream_label, stream.stream_arn))
    }

    fn arn(&self, label: &str) -> String {
        format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{}/stream/{label}", self.table)
    }

    fn records(&self, arn: &str, shard: &ShardInfo, from: u64, limit: usize) -> Result<Vec<Record>, SourceError> {
        let (kind, after) = match from.checked_sub(1) {
            None | Some(0) => ("TRIM_HORIZON", None),
            Some(last) => ("AFTER_SEQUENCE_NUMBER", Some((OFFSET + u128::from(last)).to_string())),
        };
        let request = GetShardIteratorRequest {
            stream_arn: arn.to_owned(),
            shard_id: shard.id.clone(),
            shard_iterator_type: kind.to_owned(),
            sequence_number: after,
        };
        let Some(iterator) = self.db.get_shard_iterator(request).map_err(failed)?.shard_iterator else {
            return Ok(Vec::new());
        };
        let request = GetRecordsRequest { shard_iterator: iterator, limit: Some(limit) };
        Ok(self.db.get_records(request).map_err(failed)?.records)
    }
}

fn failed(error: DynoxideError) -> SourceError {
    match error {
        DynoxideError::ResourceNotFoundException(why) => SourceError::Gone(why),
        other => SourceError::Passing(other.to_string()),
    }
}

fn position(record: &Record) -> Option<u64> {
    let number: u128 = record.dynamodb.sequence_number.parse().ok()?;
    u64::try_from(number.checked_sub(OFFSET)?).ok()
}

/// The record's element of the event; `None` for a change that changed nothing.
fn element(record: &Record, stream_arn: &str) -> Result<Option<Vec<u8>>, serde_json::Error> {
    let mut element = serde_json::to_value(record)?;
    let image = |name: &str| element.get("dynamodb").and_then(|change| change.get(name));
    if let ("MODIFY", Some(old), Some(new)) = (record.event_name.as_str(), image("OldImage"), image("NewImage"))
        && old == new
    {
        return Ok(None);
    }
    if let Some(map) = element.as_object_mut() {
        map.insert("awsRegion".into(), Value::from(REGION));
        map.insert("eventSourceARN".into(), Value::from(stream_arn));
    }
    serde_json::to_vec(&element).map(Some)
}

fn arrival_ms(record: &Record) -> i64 {
    (record.dynamodb.approximate_creation_date_time * 1_000.0) as i64
}

impl Source for DynamoSource {
    const BATCH_INFO: &'static str = "DDBStreamBatchInfo";

    fn list(&self) -> Result<Listing, SourceError> {
        let (label, arn) = self.stream()?;
        let request = DescribeStreamRequest { stream_arn: arn, ..Default::default() };
        let shards = self.db.describe_stream(request).map_err(failed)?.stream_description.shards;
        let shards =
            shards.into_iter().map(|shard| ShardInfo { handle: 0, id: shard.shard_id, parents: Vec::new() }).collect();
        Ok(Listing { arn: self.arn(&label), incarnation: label, shards })
    }

    /// DynamoDB Streams know no time to begin at (LDG with-ddb: `TRIM_HORIZON` or `LATEST`): the oldest record is
    /// taken then, which leaves nothing out.
    fn start(&self, shard: &ShardInfo, starting: Starting) -> Result<u64, SourceError> {
        match starting {
            Starting::TrimHorizon | Starting::AtTimestamp(_) => Ok(0),
            Starting::Latest => {
                let (_, arn) = self.stream()?;
                let request = DescribeStreamRequest { stream_arn: arn, ..Default::default() };
                let shards = self.db.describe_stream(request).map_err(failed)?.stream_description.shards;
                let last = shards
                    .into_iter()
                    .find(|found| found.shard_id == shard.id)
                    .and_then(|found| found.sequence_number_range.ending_sequence_number)
                    .and_then(|text| text.parse::<u128>().ok()?.checked_sub(OFFSET))
                    .and_then(|number| u64::try_from(number).ok());
                Ok(last.map_or(0, |last| last + 1))
            }
        }
    }

    fn read(&self, shard: &ShardInfo, from: u64, records: usize, bytes: usize) -> Result<Page, SourceError> {
        let (label, arn) = self.stream()?;
        let shown_arn = self.arn(&label);
        let mut page = Page { next: from, ..Page::default() };
        let mut size = 0usize;
        while page.items.len() < records && size < bytes {
            let limit = PAGE.min(records - page.items.len());
            let found = self.records(&arn, shard, page.next, limit)?;
            page.more = found.len() >= limit;
            for record in &found {
                let unreadable =
                    || SourceError::Passing(format!("a record of the stream of {} is damaged", self.table));
                let at = position(record).ok_or_else(unreadable)?;
                page.next = at + 1;
                let Some(json) = element(record, &shown_arn).map_err(|_| unreadable())? else { continue };
                size += json.len();
                page.items.push(Item {
                    position: at,
                    sequence_number: record.dynamodb.sequence_number.clone(),
                    arrival_ms: arrival_ms(record),
                    json,
                });
            }
            if !page.more {
                break;
            }
        }
        Ok(page)
    }

    /// Counts up to 1,000.
    fn backlog(&self, shard: &ShardInfo, from: u64) -> Result<(u64, i64), SourceError> {
        let (_, arn) = self.stream()?;
        let found = self.records(&arn, shard, from, MOST_COUNTED)?;
        let age = found.first().map_or(0, |first| self.host.now_ms().saturating_sub(arrival_ms(first)).max(1));
        Ok((found.len() as u64, age))
    }

    /// 24 hours (DDG streams).
    fn horizon_ms(&self) -> Result<i64, SourceError> {
        Ok(self.host.now_ms().saturating_sub(RETENTION_MS))
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        self.changes.clone()
    }
}
