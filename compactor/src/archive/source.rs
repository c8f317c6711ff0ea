//! What a run needs of a stream.

use std::future::Future;

use bytes::Bytes;
use recount_schemas::{SequenceNumber, ShardId};

use crate::log::Stream;

/// A stream, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// Which life of it.
    pub stream: Stream,
    /// How long it keeps records, in hours.
    pub retention_hours: u32,
}

/// A shard, as ListShards names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedShard {
    /// Its identifier.
    pub id: ShardId,
    /// What it was split or merged from.
    pub parents: Vec<ShardId>,
    /// Whether it takes no more records.
    pub closed: bool,
}

/// Where reading begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record that is still there.
    Horizon,
    /// At this record.
    At(SequenceNumber),
    /// Behind this record.
    After(SequenceNumber),
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its sequence number.
    pub sequence: SequenceNumber,
    /// Its partition key.
    pub partition_key: String,
    /// When it arrived, µs since 1970.
    pub arrived_us: i64,
    /// Its bytes.
    pub data: Bytes,
}

impl Record {
    /// What it takes of a budget, in bytes.
    pub fn size(&self) -> u64 {
        (self.data.len() + self.partition_key.len() + 160) as u64
    }
}

/// The answer to one GetRecords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The records; none does not mean that there are no more.
    pub records: Vec<Record>,
    /// Where to go on; `None` at the end of a closed shard.
    pub next: Option<String>,
    /// How far the page is behind the tip, in ms; 0 at the tip.
    pub behind_ms: Option<i64>,
}

/// The stream failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The iterator is older than Kinesis keeps them (five minutes).
    #[error("the shard iterator has expired")]
    Expired,
    /// The shard or the stream is not there.
    #[error("{0}: not there")]
    NotThere(String),
    /// The position is none of the shard's, or is no longer kept.
    #[error("{0}: no such position")]
    NoSuchPosition(String),
    /// Too fast; later it may work.
    #[error("{0}: read too fast, also after retries")]
    Throttled(String),
    /// Any other failure.
    #[error("{action}: {why}")]
    Failed {
        /// What was tried.
        action: String,
        /// What Kinesis said.
        why: String,
    },
}

/// The operations on one stream that the archive is made of.
pub trait Source: Clone + Send + Sync + 'static {
    /// The stream as it is now.
    fn describe(&self) -> impl Future<Output = Result<Summary, SourceError>> + Send;

    /// All shards that still hold records or take them.
    fn shards(&self) -> impl Future<Output = Result<Vec<ListedShard>, SourceError>> + Send;

    /// An iterator, good for five minutes.
    fn open(&self, shard: &ShardId, start: &Start) -> impl Future<Output = Result<String, SourceError>> + Send;

    /// The next page of an iterator, at most `most` records.
    fn page(&self, iterator: &str, most: i32) -> impl Future<Output = Result<Page, SourceError>> + Send;
}
