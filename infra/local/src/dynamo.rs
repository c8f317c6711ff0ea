//! DynamoDB and DynamoDB Streams: `dynoxide` in process, on `DIR/dynamodb.sqlite`.
//!
//! What is done around the engine, and why:
//!
//! * An **index on its stream records**, from a second connection. The engine takes each stream record's number from
//!   the maximum of the table's records, without an index: the cost of a write grows with every write before it.
//! * **`synchronous = NORMAL`**: with the write-ahead log, a killed process loses nothing; a power cut may lose the tail.
//! * **Trim**: stream records older than 24 hours go, as in AWS. Never a table's last one.
//! * **TTL**: the engine deletes expired items when told; [`Dynamo::maintain`] tells it.
//! * The **300 operators** limit of AWS ([`crate::expression`]). The 4 KB limit is the engine's own.
//! * **Shard IDs** of streams in the shape of AWS ([`crate::stream_shard`]).
//!
//! What it cannot do: one shard for ever, no throttling, no eventual consistency, no Kinesis destination.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dynoxide::actions::describe_stream::{DescribeStreamRequest, DescribeStreamResponse};
use dynoxide::actions::get_shard_iterator::{GetShardIteratorRequest, GetShardIteratorResponse};
use dynoxide::storage_backend::Clock;
use dynoxide::{Database, DynoxideError};
use recount_schemas::host::SharedHost;
use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{expression, stream_shard};

/// How long DynamoDB keeps stream records.
const STREAM_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Stream records trimmed in one transaction; it keeps writers out while it runs.
const TRIM_BATCH: usize = 2_000;

const INDEX: &str = "CREATE INDEX IF NOT EXISTS recount_stream_order \
     ON _stream_records (table_name, CAST(sequence_number AS INTEGER))";

const TRIM: &str = "DELETE FROM _stream_records WHERE id IN (
         SELECT r.id FROM _stream_records AS r
         WHERE r.created_at < ?1
           AND r.id < (SELECT MAX(l.id) FROM _stream_records AS l WHERE l.table_name = r.table_name)
         ORDER BY r.id LIMIT ?2)";

/// Why the engine did not open, or its upkeep failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DynamoError {
    /// The engine itself.
    #[error("dynamodb engine on {}: {source}", path.display())]
    Engine {
        /// The database.
        path: PathBuf,
        /// What it said.
        source: DynoxideError,
    },
    /// The second connection.
    #[error("second connection to {}: {source}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A path that SQLite cannot be given.
    #[error("{} is not UTF-8", .0.display())]
    Path(PathBuf),
}

/// The engine.
#[derive(Clone)]
pub struct Dynamo {
    database: Database,
    /// Absent: in memory.
    path: Option<Arc<Path>>,
    host: SharedHost,
}

impl fmt::Debug for Dynamo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dynamo").field("path", &self.path).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct HostClock(SharedHost);

impl Clock for HostClock {
    fn now_unix_secs(&self) -> u64 {
        u64::try_from(self.0.now_us().div_euclid(1_000_000)).unwrap_or(0)
    }

    fn now_unix_secs_f64(&self) -> f64 {
        self.0.now_us() as f64 / 1e6
    }
}

impl Dynamo {
    /// Opens or makes the database at `path`. Its clock is the machine's: the engine takes another one only in memory.
    ///
    /// # Errors
    /// When it cannot be opened, or is of another version.
    pub fn open(path: &Path, host: SharedHost) -> Result<Self, DynamoError> {
        let engine = |source| DynamoError::Engine { path: path.to_owned(), source };
        let text = path.to_str().ok_or_else(|| DynamoError::Path(path.to_owned()))?;
        let database = Database::new(text).map_err(engine)?;
        // This pair leaves synchronous = NORMAL behind, and is the only way to it from outside.
        database.enable_bulk_loading().map_err(engine)?;
        database.disable_bulk_loading().map_err(engine)?;
        let dynamo = Dynamo { database, path: Some(path.into()), host };
        if let Some(connection) = dynamo.second_connection()? {
            connection.execute_batch(INDEX).map_err(|source| DynamoError::Sqlite { path: path.to_owned(), source })?;
        }
        Ok(dynamo)
    }

    /// An engine in memory on the host's clock. Streamed writes slow down as they add up: no second connection can
    /// reach its database to add the index.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn in_memory(host: SharedHost) -> Result<Self, DynamoError> {
        let clock = Arc::new(HostClock(Arc::clone(&host)));
        let database = Database::memory_with_clock(clock)
            .map_err(|source| DynamoError::Engine { path: ":memory:".into(), source })?;
        Ok(Dynamo { database, path: None, host })
    }

    /// The engine itself.
    pub fn database(&self) -> &Database {
        &self.database
    }

    fn second_connection(&self) -> Result<Option<Connection>, DynamoError> {
        let Some(path) = &self.path else { return Ok(None) };
        let sqlite = |source| DynamoError::Sqlite { path: path.to_path_buf(), source };
        let connection = Connection::open(path).map_err(sqlite)?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(sqlite)?;
        Ok(Some(connection))
    }

    /// One round of what AWS does by itself: expires items by TTL, trims stream records. Blocking.
    ///
    /// # Errors
    /// When the engine fails; the next round tries again.
    pub fn maintain(&self) -> Result<Maintained, DynamoError> {
        let path = || self.path.as_deref().unwrap_or(Path::new(":memory:")).to_owned();
        let expired = self.database.sweep_ttl().map_err(|source| DynamoError::Engine { path: path(), source })?;
        let mut trimmed = 0;
        if let Some(connection) = self.second_connection()? {
            let retention = i64::try_from(STREAM_RETENTION.as_secs()).unwrap_or(i64::MAX);
            let before = self.host.now_us().div_euclid(1_000_000).saturating_sub(retention);
            loop {
                let gone = connection
                    .execute(TRIM, rusqlite::params![before, TRIM_BATCH as i64])
                    .map_err(|source| DynamoError::Sqlite { path: path(), source })?;
                trimmed += gone;
                if gone < TRIM_BATCH {
                    break;
                }
            }
        }
        Ok(Maintained { expired, trimmed })
    }

    /// Answers one operation: HTTP status and JSON body. Blocking.
    pub fn handle(&self, operation: &str, body: &[u8]) -> (u16, Vec<u8>) {
        if let Some(message) = expression::excess(body) {
            let error = DynoxideError::ValidationException(message);
            return (error.status_code(), error.to_json().into_bytes());
        }
        match self.dispatch(operation, body) {
            None => {
                let message = format!("local mode has no operation {operation}");
                let kind = "com.amazon.coral.service#UnknownOperationException";
                (400, serde_json::json!({ "__type": kind, "message": message }).to_string().into_bytes())
            }
            Some(Ok(json)) => (200, json),
            Some(Err(error)) => {
                if error.status_code() >= 500 {
                    tracing::error!(operation, %error, "dynamodb engine failed");
                }
                (error.status_code(), error.to_json().into_bytes())
            }
        }
    }

    /// The engine's answer, or none for an operation that it does not have.
    fn dispatch(&self, operation: &str, body: &[u8]) -> Option<Result<Vec<u8>, DynoxideError>> {
        let db = &self.database;
        Some(match operation {
            "BatchGetItem" => answer(body, |r| db.batch_get_item(r)),
            "BatchWriteItem" => answer(body, |r| db.batch_write_item(r)),
            "CreateTable" => answer(body, |r| db.create_table(r)),
            "DeleteItem" => answer(body, |r| db.delete_item(r)),
            "DeleteTable" => answer(body, |r| db.delete_table(r)),
            "DescribeStream" => answer(body, |r| self.describe_stream(r)),
            "DescribeTable" => answer(body, |r| db.describe_table(r)),
            "DescribeTimeToLive" => answer(body, |r| db.describe_time_to_live(r)),
            "GetItem" => answer(body, |r| db.get_item(r)),
            "GetRecords" => answer(body, |r| db.get_records(r)),
            "GetShardIterator" => answer(body, |r| self.get_shard_iterator(r)),
            "ListStreams" => answer(body, |r| db.list_streams(r)),
            "ListTables" => answer(body, |r| db.list_tables(r)),
            "ListTagsOfResource" => answer(body, |r| db.list_tags_of_resource(r)),
            "PutItem" => answer(body, |r| db.put_item(r)),
            "Query" => answer(body, |r| db.query(r)),
            "Scan" => answer(body, |r| db.scan(r)),
            "TagResource" => answer(body, |r| db.tag_resource(r)),
            "TransactGetItems" => answer(body, |r| db.transact_get_items(r)),
            "TransactWriteItems" => answer(body, |r| db.transact_write_items(r)),
            "UntagResource" => answer(body, |r| db.untag_resource(r)),
            "UpdateItem" => answer(body, |r| db.update_item(r)),
            "UpdateTable" => answer(body, |r| db.update_table(r)),
            "UpdateTimeToLive" => answer(body, |r| db.update_time_to_live(r)),
            "ExecuteStatement" => answer(body, |r| db.execute_statement(r)),
            "ExecuteTransaction" => answer(body, |r| db.execute_transaction(r)),
            "BatchExecuteStatement" => answer(body, |r| db.batch_execute_statement(r)),
            _ => return None,
        })
    }

    fn describe_stream(&self, mut request: DescribeStreamRequest) -> Result<DescribeStreamResponse, DynoxideError> {
        let start = request.exclusive_start_shard_id.take();
        if let Some(shard) = &start {
            known_shard(&request.stream_arn, shard)?;
        }
        let mut response = self.database.describe_stream(request)?;
        let description = &mut response.stream_description;
        if start.is_some() {
            description.shards.clear(); // there is none after the one
        }
        for shard in &mut description.shards {
            shard.shard_id = stream_shard::public(&description.stream_arn);
        }
        Ok(response)
    }

    fn get_shard_iterator(
        &self,
        mut request: GetShardIteratorRequest,
    ) -> Result<GetShardIteratorResponse, DynoxideError> {
        request.shard_id = known_shard(&request.stream_arn, &request.shard_id)?;
        self.database.get_shard_iterator(request)
    }
}

fn known_shard(stream_arn: &str, shard: &str) -> Result<String, DynoxideError> {
    stream_shard::engine(stream_arn, shard).ok_or_else(|| {
        let message = format!("Requested resource not found: shard {shard} of stream {stream_arn}");
        DynoxideError::ResourceNotFoundException(message)
    })
}

/// What a round of upkeep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Maintained {
    /// Items expired by TTL.
    pub expired: usize,
    /// Stream records older than 24 hours removed.
    pub trimmed: usize,
}

fn answer<Q: DeserializeOwned, A: Serialize>(
    body: &[u8],
    call: impl FnOnce(Q) -> Result<A, DynoxideError>,
) -> Result<Vec<u8>, DynoxideError> {
    let request = serde_json::from_slice(body).map_err(|e| unreadable(&e))?;
    let response = call(request)?;
    serde_json::to_vec(&response).map_err(|e| DynoxideError::InternalServerError(e.to_string()))
}

/// The engine's request types say in a prefix of the message which error a bad request is.
fn unreadable(error: &serde_json::Error) -> DynoxideError {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    let validation = ["VALIDATION_REQUEST:", "VALIDATION_AS_READ:", "VALIDATION:"];
    let serialization = ["SERIALIZATION_AS_READ:", "SERIALIZATION:"];
    if let Some(message) = validation.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        return DynoxideError::ValidationException(message.to_owned());
    }
    if let Some(message) = serialization.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        return DynoxideError::SerializationException(message.to_owned());
    }
    let lacks = ["missing field", "unknown variant", "invalid type: null", "AttributeValue"];
    if lacks.iter().any(|lack| text.contains(lack)) {
        DynoxideError::ValidationException(text.to_owned())
    } else {
        DynoxideError::SerializationException(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use recount_schemas::host::SystemHost;
    use serde_json::{Value, json};

    fn call(dynamo: &Dynamo, operation: &str, body: Value) -> (u16, Value) {
        let (status, body) = dynamo.handle(operation, &serde_json::to_vec(&body).unwrap());
        (status, serde_json::from_slice(&body).unwrap())
    }

    fn streamed_table(dynamo: &Dynamo) {
        let (status, answer) = call(
            dynamo,
            "CreateTable",
            json!({"TableName": "scans", "BillingMode": "PAY_PER_REQUEST",
                "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
                "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"}}),
        );
        assert_eq!(status, 200, "{answer}");
    }

    #[test]
    fn the_number_of_a_stream_record_comes_from_the_index() {
        let dir = tempfile::tempdir().unwrap();
        let dynamo = Dynamo::open(&dir.path().join("d.sqlite"), SystemHost::shared()).unwrap();
        let connection = dynamo.second_connection().unwrap().unwrap();
        // The engine's own statement: see `next_stream_sequence_number` in its storage.
        let plan: Vec<String> = connection
            .prepare(
                "EXPLAIN QUERY PLAN SELECT COALESCE(MAX(CAST(sequence_number AS INTEGER)), 0) + 1 \
                 FROM _stream_records WHERE table_name = ?1",
            )
            .unwrap()
            .query_map(["scans"], |row| row.get::<_, String>(3))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert!(plan.iter().any(|step| step.contains("SEARCH") && step.contains("recount_stream_order")), "{plan:?}");
    }

    #[test]
    fn a_day_old_stream_record_is_trimmed_and_the_last_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let dynamo = Dynamo::open(&dir.path().join("d.sqlite"), SystemHost::shared()).unwrap();
        streamed_table(&dynamo);
        for n in 0..3 {
            let put = json!({"TableName": "scans", "Item": {"id": {"S": n.to_string()}}});
            assert_eq!(call(&dynamo, "PutItem", put).0, 200);
        }
        let connection = dynamo.second_connection().unwrap().unwrap();
        let count =
            || connection.query_row("SELECT COUNT(*) FROM _stream_records", [], |r| r.get::<_, i64>(0)).unwrap();
        assert_eq!((dynamo.maintain().unwrap().trimmed, count()), (0, 3));
        connection.execute("UPDATE _stream_records SET created_at = created_at - 90000", []).unwrap();
        assert_eq!((dynamo.maintain().unwrap().trimmed, count()), (2, 1));
    }

    #[test]
    fn bad_requests_get_the_error_of_aws() {
        let dynamo = Dynamo::in_memory(SystemHost::shared()).unwrap();
        streamed_table(&dynamo);
        let many = vec!["contains(a, :b)"; 160].join(" OR ");
        let table = [
            ("PutItem", json!({"TableName": "scans", "Item": {}}), "ValidationException"),
            ("PutItem", json!({"Item": {"id": {"S": "1"}}}), "ValidationException"),
            ("PutItem", json!({"TableName": 7, "Item": {"id": {"S": "1"}}}), "SerializationException"),
            ("PutItem", json!({"TableName": "scans", "Item": {"id": {"N": "x"}}}), "ValidationException"),
            ("GetItem", json!({"TableName": "nowhere", "Key": {"id": {"S": "1"}}}), "ResourceNotFoundException"),
            (
                "DeleteItem",
                json!({"TableName": "scans", "Key": {"id": {"S": "1"}}, "ConditionExpression": many,
                    "ExpressionAttributeValues": {":b": {"S": "x"}}}),
                "ValidationException",
            ),
            (
                "DeleteItem",
                json!({"TableName": "scans", "Key": {"id": {"S": "1"}},
                    "ConditionExpression": format!("a = :b{}", " ".repeat(4_091)),
                    "ExpressionAttributeValues": {":b": {"S": "x"}}}),
                "ValidationException",
            ),
            ("NoSuchOperation", json!({}), "UnknownOperationException"),
        ];
        for (operation, body, expected) in table {
            let (status, answer) = call(&dynamo, operation, body);
            let kind = answer["__type"].as_str().unwrap();
            assert!(status == 400 && kind.ends_with(expected), "{operation}: {status} {answer}");
            assert!(!answer.to_string().contains("VALIDATION"), "{answer}");
        }
        let (status, answer) = dynamo.handle("PutItem", b"not json");
        assert_eq!(status, 400, "{}", String::from_utf8_lossy(&answer));
    }
}
