//! Kinesis Data Streams on one SQLite file: thin, durable, and honest about what AWS would answer.
//!
//! The part of the API that this workspace, the AWS CLI and boto3 use, over JSON 1.1, with the clock passed in. A
//! request that was answered is in the file: it survives `kill -9`. Rules are taken from the Kinesis Data Streams Developer Guide
//! (KDG) and the service model that botocore ships (BC), and are named where they are kept:
//!
//! | file | rule |
//! | --- | --- |
//! | `sequence` | 186-bit sequence numbers, growing within a shard and from parents to children |
//! | `lineage` | which shards a listing shows, children at a shard's end |
//! | `streams` | creating, deleting, describing; retention; tags |
//! | `reshard` | split, merge, uniform scaling; who is whose parent |
//! | `write` | placement by hash key, sizes, an answer per record |
//! | `read` | iterators and their expiry, pages, the end of a shard, `MillisBehindLatest` |
//! | `limits` | what a shard takes per second, if switched on |
//! | `store` | tables, trimming, expiry of shards |
//! | `request`, `error` | bodies in, exceptions out |
//!
//! # Where it is simpler than AWS
//!
//! - A stream is `ACTIVE` at once, and resharding is over when it is answered: there is no `CREATING` or `UPDATING`.
//! - `SequenceNumberForOrdering` is accepted and has nothing to add: writes to a shard are ordered anyhow.
//! - No enhanced fan-out, encryption, policies or enhanced monitoring (`UnknownOperationException`).
//! - An on-demand stream starts with four shards and does not split by itself.
//! - The last page of a closed shard has no `NextShardIterator`; AWS may send one more, empty page first.

mod error;
mod limits;
pub(crate) mod lineage;
mod read;
mod request;
mod reshard;
pub(crate) mod sequence;
mod store;
mod streams;
mod write;

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recount_schemas::host::SharedHost;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use serde_json::Value;
use tokio::sync::watch;

pub use self::error::Error;
pub use self::limits::Limits;
pub use self::read::{Page, Record, ShardView, StreamView};
pub(crate) use self::store::shard_id;

/// The account every ARN names.
pub const ACCOUNT: &str = "000000000000";
/// The region every ARN names.
pub const REGION: &str = "us-east-1";

/// The ARN of the stream of that name.
pub fn stream_arn(name: &str) -> String {
    format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{name}")
}

/// What goes back over HTTP, with `Content-Type: application/x-amz-json-1.1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// JSON, or nothing where the operation answers nothing.
    pub body: Vec<u8>,
}

/// The engine. A clone is the same engine.
#[derive(Debug, Clone)]
pub struct Kinesis {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    db: Mutex<Connection>,
    meter: Option<Mutex<limits::Meter>>,
    host: SharedHost,
    changes: watch::Sender<u64>,
}

impl Kinesis {
    /// Opens or makes the file at `path`; its directory must exist.
    ///
    /// # Errors
    /// When SQLite cannot open or prepare the file.
    pub fn open(path: &Path, host: SharedHost) -> Result<Self, Error> {
        Self::with_limits(Connection::open(path)?, host, Limits::Off)
    }

    /// The same, throttled as `limits` says.
    ///
    /// # Errors
    /// As [`Kinesis::open`].
    pub fn open_limited(path: &Path, host: SharedHost, limits: Limits) -> Result<Self, Error> {
        Self::with_limits(Connection::open(path)?, host, limits)
    }

    /// An engine that forgets everything when it is dropped.
    ///
    /// # Errors
    /// When SQLite cannot get the memory.
    pub fn memory(host: SharedHost) -> Result<Self, Error> {
        Self::with_limits(Connection::open_in_memory()?, host, Limits::Off)
    }

    /// The same as [`Kinesis::memory`], throttled as `limits` says.
    ///
    /// # Errors
    /// As [`Kinesis::memory`].
    pub fn memory_limited(host: SharedHost, limits: Limits) -> Result<Self, Error> {
        Self::with_limits(Connection::open_in_memory()?, host, limits)
    }

    fn with_limits(db: Connection, host: SharedHost, limits: Limits) -> Result<Self, Error> {
        store::prepare(&db)?;
        let meter = match limits {
            Limits::Off => None,
            Limits::PerShard => Some(Mutex::new(limits::Meter::default())),
        };
        Ok(Self { inner: Arc::new(Inner { db: Mutex::new(db), meter, host, changes: watch::channel(0).0 }) })
    }

    /// Answers a request. `operation` is what follows the dot in `X-Amz-Target: Kinesis_20131202.<operation>`, `body`
    /// the JSON 1.1 body. Every input has an answer; a fault is an answer with status 400 or 500.
    pub fn handle(&self, operation: &str, body: &[u8]) -> Response {
        match self.dispatch(operation, body) {
            Ok(Value::Null) => Response { status: 200, body: Vec::new() },
            Ok(answer) => match serde_json::to_vec(&answer) {
                Ok(body) => Response { status: 200, body },
                Err(cause) => Error { code: "InternalFailure", status: 500, message: cause.to_string() }.response(),
            },
            Err(error) => error.response(),
        }
    }

    fn dispatch(&self, operation: &str, body: &[u8]) -> Result<Value, Error> {
        match operation {
            "PutRecord" => write::put_record(self, request::parse(body)?),
            "PutRecords" => write::put_records(self, request::parse(body)?),
            "GetRecords" => read::get_records(self, request::parse(body)?),
            "GetShardIterator" => read::get_shard_iterator(self, request::parse(body)?),
            "ListShards" => streams::list_shards(self, request::parse(body)?),
            "CreateStream" => streams::create(self, request::parse(body)?),
            "DeleteStream" => streams::delete(self, request::parse(body)?),
            "DescribeStream" => streams::describe(self, request::parse(body)?),
            "DescribeStreamSummary" => streams::describe_summary(self, request::parse(body)?),
            "ListStreams" => streams::list(self, request::parse(body)?),
            "IncreaseStreamRetentionPeriod" => streams::retention(self, request::parse(body)?, streams::Way::Up),
            "DecreaseStreamRetentionPeriod" => streams::retention(self, request::parse(body)?, streams::Way::Down),
            "AddTagsToStream" => streams::add_tags(self, request::parse(body)?),
            "RemoveTagsFromStream" => streams::remove_tags(self, request::parse(body)?),
            "ListTagsForStream" => streams::list_tags(self, request::parse(body)?),
            "SplitShard" => reshard::split(self, request::parse(body)?),
            "MergeShards" => reshard::merge(self, request::parse(body)?),
            "UpdateShardCount" => reshard::update_shard_count(self, request::parse(body)?),
            other => Err(Error::unknown_operation(format!("the operation {other:.100} is not served here"))),
        }
    }

    /// A number that grows with every write, for readers that wait instead of polling.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// The clock the engine runs by.
    pub fn host(&self) -> &SharedHost {
        &self.inner.host
    }

    fn now_ms(&self) -> i64 {
        self.inner.host.now_ms()
    }

    fn meter(&self) -> Option<MutexGuard<'_, limits::Meter>> {
        self.inner.meter.as_ref().map(|meter| meter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `work` in one transaction: all of it is kept, or nothing. A panic inside rolls back, so a poisoned lock
    /// guards a sound connection.
    fn transact<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let mut db = self.inner.db.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    fn changed(&self) {
        self.inner.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}
