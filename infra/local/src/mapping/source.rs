//! What a mapping needs of a stream, and Kinesis as one.
//!
//! Calls are plain, not async: both sources are SQLite files in this process, where a read takes well under a
//! millisecond. A position is a number that grows along a shard; position p means "the records from p on".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::watch;

use super::config::Starting;
use super::event;
use crate::kinesis::{self, Kinesis};

/// Why a source did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Another try may succeed.
    #[error("{0}")]
    Passing(String),
    /// The stream or the shard is not there, or not any more.
    #[error("{0}")]
    Gone(String),
}

/// A stream's shards at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The stream's ARN.
    pub arn: String,
    /// Tells a stream from an earlier one of the same name.
    pub incarnation: String,
    /// All shards that still exist.
    pub shards: Vec<ShardInfo>,
}

/// A shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// How the source names it in reads.
    pub handle: i64,
    /// Its ID.
    pub id: String,
    /// IDs of its parents.
    pub parents: Vec<String>,
}

/// A record, with its part of the Lambda event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its position.
    pub position: u64,
    /// Its sequence number: what a partial batch response names.
    pub sequence_number: String,
    /// When it arrived: ms since 1970.
    pub arrival_ms: i64,
    /// Its element of `Records`, as JSON.
    pub json: Vec<u8>,
}

/// What one read gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Records in order.
    pub items: Vec<Item>,
    /// Where the next read goes on.
    pub next: u64,
    /// Whether more records are there already.
    pub more: bool,
    /// Whether the shard is closed and nothing is left.
    pub ended: bool,
}

/// A stream that a mapping can read.
pub trait Source: Send + Sync + 'static {
    /// Name of the member that describes a batch to the on-failure destination.
    const BATCH_INFO: &'static str;

    /// The stream and its shards now.
    ///
    /// # Errors
    /// When the stream is not there, or could not be read.
    fn list(&self) -> Result<Listing, SourceError>;

    /// The position at which reading begins.
    ///
    /// # Errors
    /// When the shard is gone, or could not be read.
    fn start(&self, shard: &ShardInfo, starting: Starting) -> Result<u64, SourceError>;

    /// Reads from a position on: at most `records` records, at least one if there is any, and not many more than
    /// `bytes` bytes of payload.
    ///
    /// # Errors
    /// When the shard is gone, or could not be read.
    fn read(&self, shard: &ShardInfo, from: u64, records: usize, bytes: usize) -> Result<Page, SourceError>;

    /// How many records lie at or after a position, and the age of the first in ms.
    ///
    /// # Errors
    /// When the shard is gone, or could not be read.
    fn backlog(&self, shard: &ShardInfo, from: u64) -> Result<(u64, i64), SourceError>;

    /// Records that arrived before this moment (ms since 1970) are not in the stream any more. Trimming may lag behind.
    ///
    /// # Errors
    /// When the stream is gone, or could not be read.
    fn horizon_ms(&self) -> Result<i64, SourceError>;

    /// Something that changes with every write, if the source has it.
    fn changes(&self) -> Option<watch::Receiver<u64>>;
}

/// A stream of the embedded Kinesis.
#[derive(Debug, Clone)]
pub struct KinesisSource {
    kinesis: Kinesis,
    stream: String,
}

impl KinesisSource {
    /// The stream of that name; it need not exist yet.
    pub fn new(kinesis: Kinesis, stream: impl Into<String>) -> Self {
        Self { kinesis, stream: stream.into() }
    }
}

impl From<kinesis::Error> for SourceError {
    fn from(error: kinesis::Error) -> Self {
        match error.code {
            "ResourceNotFoundException" => Self::Gone(error.to_string()),
            _ => Self::Passing(error.to_string()),
        }
    }
}

impl Source for KinesisSource {
    const BATCH_INFO: &'static str = "KinesisBatchInfo";

    fn list(&self) -> Result<Listing, SourceError> {
        let (stream, shards) = self.kinesis.shards(&self.stream)?;
        let shards = shards
            .into_iter()
            .map(|shard| ShardInfo {
                handle: shard.key,
                parents: shard.parents.iter().map(|number| kinesis::shard_id(*number)).collect(),
                id: shard.id,
            })
            .collect();
        Ok(Listing { arn: stream.arn, incarnation: stream.created_ms.to_string(), shards })
    }

    fn start(&self, shard: &ShardInfo, starting: Starting) -> Result<u64, SourceError> {
        Ok(match starting {
            Starting::TrimHorizon => 0,
            Starting::Latest => self.kinesis.index_at(shard.handle, i64::MAX)?,
            Starting::AtTimestamp(ms) => self.kinesis.index_at(shard.handle, ms)?,
        })
    }

    fn read(&self, shard: &ShardInfo, from: u64, records: usize, bytes: usize) -> Result<Page, SourceError> {
        let page = self.kinesis.read(shard.handle, from, records, bytes / 4 * 3)?;
        let arn = kinesis::stream_arn(&self.stream);
        let items = page
            .records
            .into_iter()
            .map(|record| Item {
                position: record.index,
                json: event::kinesis_record(&event::KinesisRecord {
                    shard_id: &shard.id,
                    stream_arn: &arn,
                    partition_key: &record.partition_key,
                    sequence_number: &record.sequence_number,
                    data: &STANDARD.encode(&record.data),
                    arrival_ms: record.arrival_ms,
                }),
                sequence_number: record.sequence_number,
                arrival_ms: record.arrival_ms,
            })
            .collect();
        Ok(Page { items, next: page.next, more: page.left > 0, ended: page.ended })
    }

    fn backlog(&self, shard: &ShardInfo, from: u64) -> Result<(u64, i64), SourceError> {
        Ok(self.kinesis.backlog(shard.handle, from)?)
    }

    fn horizon_ms(&self) -> Result<i64, SourceError> {
        Ok(self.kinesis.horizon_ms(&self.stream)?)
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.kinesis.changes())
    }
}
