//! Writing: `PutRecord` and `PutRecords`.
//!
//! - A record goes to the open shard whose range holds its hash key: the MD5 of its partition key as a 128-bit number,
//!   or its `ExplicitHashKey` (BC:kinesis.PutRecord).
//! - At most 500 records and 10 MiB a request; at most 1 MiB of data and partition key a record, which is what a stream
//!   allows until `UpdateMaxRecordSize` (KDG large-records). A request over a limit is refused as a whole.
//! - `PutRecords` answers record by record. Here a record fails only by throttling; its neighbours are kept.
//! - One transaction a request: what was answered is durable, and a record is never half there.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use rusqlite::{Connection, params};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::error::Error;
use super::store::{self, INDEX_END, Shard};
use super::{Kinesis, request};

const MAX_RECORDS: usize = 500;
const MAX_REQUEST_BYTES: usize = 10 << 20;
const MAX_RECORD_BYTES: usize = 1 << 20;
const MAX_PARTITION_KEY_CHARS: usize = 256;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PutRecord {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    data: Option<Blob>,
    partition_key: Option<String>,
    explicit_hash_key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PutRecords {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    records: Option<Vec<Entry>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    data: Option<Blob>,
    partition_key: Option<String>,
    explicit_hash_key: Option<String>,
}

/// A member that is bytes: base64 in JSON, decoded while the body is read.
#[derive(Debug)]
struct Blob(Vec<u8>);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64;

        impl Visitor<'_> for Base64 {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64 text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Blob, E> {
                STANDARD.decode(text).map(Blob).map_err(|cause| E::custom(format!("not base64: {cause}")))
            }
        }

        deserializer.deserialize_str(Base64)
    }
}

/// An entry that may be written.
struct Checked {
    hash_key: u128,
    partition_key: String,
    data: Vec<u8>,
}

impl Checked {
    fn size(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

/// What became of one record.
enum Placed {
    Kept { shard: String, sequence: String },
    Throttled { shard: String },
}

pub(super) fn put_record(kinesis: &Kinesis, input: PutRecord) -> Result<Value, Error> {
    let name = request::stream_name(input.stream_name, input.stream_arn)?;
    let entry =
        Entry { data: input.data, partition_key: input.partition_key, explicit_hash_key: input.explicit_hash_key };
    let placed = place(kinesis, &name, vec![check(entry)?])?;
    match placed.into_iter().next() {
        Some(Placed::Kept { shard, sequence }) => Ok(json!({ "ShardId": shard, "SequenceNumber": sequence })),
        Some(Placed::Throttled { shard }) => Err(Error::throttled(throttled(&shard, &name))),
        None => Err(Error { code: "InternalFailure", status: 500, message: "the record was not placed".into() }),
    }
}

pub(super) fn put_records(kinesis: &Kinesis, input: PutRecords) -> Result<Value, Error> {
    let name = request::stream_name(input.stream_name, input.stream_arn)?;
    let entries = request::required(input.records, "records")?;
    if entries.is_empty() || entries.len() > MAX_RECORDS {
        return Err(Error::validation(format!(
            "1 validation error detected: Value '[{} records]' at 'records' failed to satisfy constraint: \
             Member must have length between 1 and {MAX_RECORDS}",
            entries.len()
        )));
    }
    let checked = entries.into_iter().map(check).collect::<Result<Vec<_>, _>>()?;
    let bytes: usize = checked.iter().map(Checked::size).sum();
    if bytes > MAX_REQUEST_BYTES {
        return Err(Error::argument(format!("Records size of {bytes} bytes exceeds the limit of 10 MiB a request.")));
    }
    let placed = place(kinesis, &name, checked)?;
    let failed = placed.iter().filter(|one| matches!(one, Placed::Throttled { .. })).count();
    let records: Vec<Value> = placed
        .into_iter()
        .map(|one| match one {
            Placed::Kept { shard, sequence } => json!({ "ShardId": shard, "SequenceNumber": sequence }),
            Placed::Throttled { shard } => json!({
                "ErrorCode": "ProvisionedThroughputExceededException",
                "ErrorMessage": throttled(&shard, &name),
            }),
        })
        .collect();
    Ok(json!({ "FailedRecordCount": failed, "Records": records }))
}

fn throttled(shard: &str, stream: &str) -> String {
    format!("Rate exceeded for shard {shard} in stream {stream} under account {}.", super::ACCOUNT)
}

fn check(entry: Entry) -> Result<Checked, Error> {
    let partition_key = request::required(entry.partition_key, "partitionKey")?;
    let characters = partition_key.chars().count();
    if characters == 0 || characters > MAX_PARTITION_KEY_CHARS {
        return Err(Error::validation(format!(
            "1 validation error detected: Value of {characters} characters at 'partitionKey' failed to satisfy \
             constraint: Member must have length between 1 and {MAX_PARTITION_KEY_CHARS}"
        )));
    }
    let Blob(data) = request::required(entry.data, "data")?;
    if data.len() > MAX_RECORD_BYTES {
        return Err(Error::validation(format!(
            "1 validation error detected: Value of {} bytes at 'data' failed to satisfy constraint: \
             Member must have length less than or equal to {MAX_RECORD_BYTES}",
            data.len()
        )));
    }
    let hash_key = match entry.explicit_hash_key {
        Some(text) => request::hash_key(&text, "ExplicitHashKey")?,
        None => u128::from_be_bytes(Md5::digest(partition_key.as_bytes()).into()),
    };
    let checked = Checked { hash_key, partition_key, data };
    if checked.size() > MAX_RECORD_BYTES {
        return Err(Error::argument(format!(
            "A record of {} bytes with its partition key exceeds the limit of {MAX_RECORD_BYTES}.",
            checked.size()
        )));
    }
    Ok(checked)
}

/// Appends the records in their order, in one transaction.
fn place(kinesis: &Kinesis, name: &str, records: Vec<Checked>) -> Result<Vec<Placed>, Error> {
    let placed = kinesis.transact(|db| {
        let now = kinesis.now_ms();
        let stream = store::find_stream(db, name)?.ok_or_else(|| Error::stream_not_found(name))?;
        let mut shards = store::open_shards(db, stream.key)?;
        let before: Vec<u64> = shards.iter().map(|shard| shard.next).collect();
        let mut meter = kinesis.meter();
        let mut placed = Vec::with_capacity(records.len());
        for record in &records {
            // Open shards tile the hash keys, in the order of their lower ends.
            let at = shards.partition_point(|shard| shard.high < record.hash_key);
            let shard = shards.get_mut(at).ok_or_else(|| Error::stream_not_found(name))?;
            let size = record.size() as u64;
            if meter.as_mut().is_some_and(|meter| !meter.admit_write(shard.key, size, now)) {
                placed.push(Placed::Throttled { shard: shard.id() });
                continue;
            }
            placed.push(append(db, shard, record, now)?);
        }
        for (shard, before) in shards.iter().zip(before) {
            if shard.next != before {
                db.prepare_cached("UPDATE shard SET next = ?2 WHERE key = ?1")?
                    .execute(params![shard.key, shard.next])?;
                store::trim(db, shard, stream.horizon_ms(now))?;
            }
        }
        Ok(placed)
    })?;
    kinesis.changed();
    Ok(placed)
}

fn append(db: &Connection, shard: &mut Shard, record: &Checked, now: i64) -> Result<Placed, Error> {
    if shard.next >= INDEX_END {
        return Err(Error::limit(format!("{} is full: split it", shard.id())));
    }
    let index = shard.next;
    db.prepare_cached("INSERT INTO record(row, arrival_ms, partition_key, data) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![shard.row(index), now, record.partition_key, record.data])?;
    shard.next += 1;
    Ok(Placed::Kept { shard: shard.id(), sequence: shard.sequence(index, now).to_string() })
}
