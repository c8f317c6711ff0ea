//! Reading: `GetShardIterator`, `GetRecords`, and the same for readers in this process.
//!
//! - An iterator is good for five minutes from its issue (BC:kinesis.GetShardIterator), by the engine's clock.
//! - A call returns at most 10,000 records and 10 MiB, and at least one record if there is any.
//! - `MillisBehindLatest` is the age of the next record not yet read, at least 1; it is 0 exactly when nothing is left
//!   to read. AWS measures from the tip in a way it does not describe; this keeps its promise that 0 means caught up.
//! - A closed shard that is read to its end has no `NextShardIterator`, and names its `ChildShards`.
//! - A position older than the trim horizon is the trim horizon (BC:kinesis, `AT_TIMESTAMP`; sequence numbers alike).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::Error;
use super::sequence::Sequence;
use super::store::{self, INDEX_END, Shard, Stream};
use super::{Kinesis, lineage, request};

const ITERATOR_LIFE_MS: i64 = 300_000;
const MAX_RECORDS: i64 = 10_000;
const MAX_BYTES: usize = 10 << 20;
const ITERATOR_VERSION: &str = "1";

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its index in the shard: grows by one from record to record.
    pub index: u64,
    /// Its sequence number, decimal.
    pub sequence_number: String,
    /// Partition key.
    pub partition_key: String,
    /// The data, as it was put.
    pub data: Vec<u8>,
    /// When it was taken in: ms since 1970.
    pub arrival_ms: i64,
}

/// What one read of a shard gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The records, in order.
    pub records: Vec<Record>,
    /// Where the next read goes on.
    pub next: u64,
    /// The age of the next unread record in ms, at least 1; 0 if there is none.
    pub millis_behind: i64,
    /// Records not read yet.
    pub left: u64,
    /// Whether the shard is closed and nothing is left to read.
    pub ended: bool,
}

/// A stream as readers in this process see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamView {
    /// Its ARN.
    pub arn: String,
    /// When it was made: ms since 1970. A stream of the same name made again has another.
    pub created_ms: i64,
}

/// A shard as readers in this process see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardView {
    /// What [`Kinesis::read`] takes; never used again for another shard.
    pub key: i64,
    /// Its number in the stream.
    pub number: u32,
    /// Its ID: `shardId-` and the number in twelve digits.
    pub id: String,
    /// Numbers of its parents: none, one (split) or two (merge).
    pub parents: Vec<u32>,
    /// Whether it takes no more records.
    pub closed: bool,
    /// Index of the next record to be written.
    pub next: u64,
}

impl Kinesis {
    /// A stream and all its shards that are not expired, in the order of their numbers.
    ///
    /// # Errors
    /// When there is no such stream, or the store failed.
    pub fn shards(&self, stream: &str) -> Result<(StreamView, Vec<ShardView>), Error> {
        self.transact(|db| {
            let stream = store::find_stream(db, stream)?.ok_or_else(|| Error::stream_not_found(stream))?;
            let shards = store::live_shards(db, &stream, self.now_ms())?;
            let views = shards
                .iter()
                .map(|shard| ShardView {
                    key: shard.key,
                    number: shard.number,
                    id: shard.id(),
                    parents: [shard.parent, shard.adjacent].into_iter().flatten().collect(),
                    closed: shard.closed_ms.is_some(),
                    next: shard.next,
                })
                .collect();
            Ok((StreamView { arn: stream.arn(), created_ms: stream.created_ms }, views))
        })
    }

    /// Reads a shard from the index `from` on: at most `max_records` records and `max_bytes` of data, but at least one
    /// record if there is any. Counts against the shard's limits as a `GetRecords` call.
    ///
    /// # Errors
    /// When the shard is gone, the call is throttled, or the store failed.
    pub fn read(&self, shard: i64, from: u64, max_records: usize, max_bytes: usize) -> Result<Page, Error> {
        self.transact(|db| {
            let gone = || Error::not_found(format!("the shard with key {shard} is gone"));
            let shard = store::shard_by_key(db, shard)?.ok_or_else(gone)?;
            let stream = store::stream_by_key(db, shard_stream(db, shard.key)?)?.ok_or_else(gone)?;
            self.page(db, &stream, &shard, from, max_records.max(1), max_bytes)
        })
    }

    /// Index of the first record of a shard that arrived at or after `ms` since 1970; behind the last if there is none.
    ///
    /// # Errors
    /// When the shard is gone or the store failed.
    pub fn index_at(&self, shard: i64, ms: i64) -> Result<u64, Error> {
        self.transact(|db| {
            let shard = store::shard_by_key(db, shard)?
                .ok_or_else(|| Error::not_found(format!("the shard with key {shard} is gone")))?;
            first_at(db, &shard, ms as f64 / 1_000.0)
        })
    }

    /// How many records of a shard lie at or after `from`, and the age of the first of them in ms. Not counted against
    /// the shard's limits.
    ///
    /// # Errors
    /// When the shard is gone or the store failed.
    pub fn backlog(&self, shard: i64, from: u64) -> Result<(u64, i64), Error> {
        self.transact(|db| {
            let gone = || Error::not_found(format!("the shard with key {shard} is gone"));
            let shard = store::shard_by_key(db, shard)?.ok_or_else(gone)?;
            let stream = store::stream_by_key(db, shard_stream(db, shard.key)?)?.ok_or_else(gone)?;
            let now = self.now_ms();
            store::trim(db, &shard, stream.horizon_ms(now))?;
            let first: Option<(i64, i64)> = db
                .prepare_cached("SELECT row, arrival_ms FROM record WHERE row >= ?1 AND row < ?2 ORDER BY row LIMIT 1")?
                .query_row([shard.row(from), shard.row(INDEX_END)], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            // Indexes are dense from the trim horizon on, so the difference is the number of records.
            Ok(first.map_or((0, 0), |(row, arrival)| {
                (shard.next.saturating_sub(store::index_of(row)), now.saturating_sub(arrival).max(1))
            }))
        })
    }

    /// Records of a stream that arrived before this moment (ms since 1970) are gone.
    ///
    /// # Errors
    /// When there is no such stream, or the store failed.
    pub fn horizon_ms(&self, stream: &str) -> Result<i64, Error> {
        self.transact(|db| {
            let stream = store::find_stream(db, stream)?.ok_or_else(|| Error::stream_not_found(stream))?;
            Ok(stream.horizon_ms(self.now_ms()))
        })
    }

    fn page(
        &self,
        db: &Connection,
        stream: &Stream,
        shard: &Shard,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Page, Error> {
        let now = self.now_ms();
        if self.meter().is_some_and(|mut meter| !meter.admit_read(shard.key, now)) {
            return Err(Error::throttled(format!(
                "Rate exceeded for shard {} in stream {} under account {}.",
                shard.id(),
                stream.name,
                super::ACCOUNT
            )));
        }
        store::trim(db, shard, stream.horizon_ms(now))?;
        let mut query = db.prepare_cached(
            "SELECT row, arrival_ms, partition_key, data FROM record WHERE row >= ?1 AND row < ?2 ORDER BY row LIMIT ?3",
        )?;
        // One row more than asked for: its arrival says how far behind the page ends.
        let limit = i64::try_from(max_records).unwrap_or(i64::MAX).saturating_add(1);
        let mut rows = query.query(params![shard.row(from), shard.row(INDEX_END), limit])?;
        let mut records: Vec<Record> = Vec::new();
        let mut bytes = 0usize;
        let mut next = from;
        let mut unread = None;
        while let Some(row) = rows.next()? {
            let index = store::index_of(row.get(0)?);
            let arrival_ms: i64 = row.get(1)?;
            let data = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
            let full = records.len() >= max_records || bytes.saturating_add(data.len()) > max_bytes;
            if full && !records.is_empty() {
                unread = Some((index, arrival_ms));
                break;
            }
            bytes += data.len();
            next = index + 1;
            records.push(Record {
                index,
                sequence_number: shard.sequence(index, arrival_ms).to_string(),
                partition_key: row.get(2)?,
                data: data.to_vec(),
                arrival_ms,
            });
        }
        if let Some(mut meter) = self.meter() {
            meter.returned(shard.key, bytes as u64, now);
        }
        Ok(Page {
            next,
            millis_behind: unread.map_or(0, |(_, arrival)| now.saturating_sub(arrival).max(1)),
            left: unread.map_or(0, |(index, _)| shard.next.saturating_sub(index)),
            ended: shard.closed_ms.is_some() && unread.is_none(),
            records,
        })
    }
}

fn shard_stream(db: &Connection, shard: i64) -> Result<i64, Error> {
    Ok(db.prepare_cached("SELECT stream FROM shard WHERE key = ?1")?.query_row([shard], |row| row.get(0))?)
}

/// First index whose arrival, as it is served in seconds, is at or after `seconds`.
fn first_at(db: &Connection, shard: &Shard, seconds: f64) -> Result<u64, Error> {
    let row: Option<i64> = db
        .prepare_cached(
            "SELECT row FROM record WHERE row >= ?1 AND row < ?2 AND arrival_ms / 1000.0 >= ?3 ORDER BY row LIMIT 1",
        )?
        .query_row(params![shard.row(0), shard.row(INDEX_END), seconds], |row| row.get(0))
        .optional()?;
    Ok(row.map_or(shard.next, store::index_of))
}

/// A position in a shard, and when it was handed out.
#[derive(Debug, PartialEq, Eq)]
struct Iterator {
    stream: i64,
    shard: i64,
    index: u64,
    issued_ms: i64,
}

impl Iterator {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD
            .encode(format!("{ITERATOR_VERSION}:{}:{}:{}:{}", self.stream, self.shard, self.index, self.issued_ms))
    }

    fn decode(text: &str) -> Option<Self> {
        if text.len() > 512 {
            return None;
        }
        let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut parts = plain.split(':');
        if parts.next()? != ITERATOR_VERSION {
            return None;
        }
        let decoded = Self {
            stream: parts.next()?.parse().ok()?,
            shard: parts.next()?.parse().ok()?,
            index: parts.next()?.parse().ok()?,
            issued_ms: parts.next()?.parse().ok()?,
        };
        (parts.next().is_none() && decoded.stream > 0 && decoded.shard > 0).then_some(decoded)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GetShardIterator {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_id: Option<String>,
    shard_iterator_type: Option<String>,
    starting_sequence_number: Option<String>,
    timestamp: Option<f64>,
}

pub(super) fn get_shard_iterator(kinesis: &Kinesis, input: GetShardIterator) -> Result<Value, Error> {
    let name = request::stream_name(input.stream_name, input.stream_arn)?;
    let id = request::required(input.shard_id, "shardId")?;
    let kind = request::required(input.shard_iterator_type, "shardIteratorType")?;
    let start = Start::new(&kind, input.starting_sequence_number.as_deref(), input.timestamp)?;
    kinesis.transact(|db| {
        let now = kinesis.now_ms();
        let stream = store::find_stream(db, &name)?.ok_or_else(|| Error::stream_not_found(&name))?;
        let shard = match store::shard_number(&id) {
            Some(number) => store::find_shard(db, stream.key, number)?,
            None => None,
        };
        let shard = shard.ok_or_else(|| Error::shard_not_found(&id, &name))?;
        store::trim(db, &shard, stream.horizon_ms(now))?;
        let index = match start {
            Start::TrimHorizon => 0,
            Start::Latest => shard.next,
            Start::At(text) => position(text, &shard, &name)?,
            Start::After(text) => position(text, &shard, &name)?.saturating_add(1),
            Start::Timestamp(seconds) => {
                if seconds * 1_000.0 > now as f64 {
                    return Err(Error::argument(format!(
                        "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
                         timestampInMillis: {}, currentTimestampInMillis: {now}",
                        seconds * 1_000.0
                    )));
                }
                first_at(db, &shard, seconds)?
            }
        };
        let iterator = Iterator { stream: stream.key, shard: shard.key, index, issued_ms: now };
        Ok(json!({ "ShardIterator": iterator.encode() }))
    })
}

/// Where an iterator begins; the rules about what may stand beside the type are those of BC:kinesis.GetShardIterator.
enum Start<'a> {
    TrimHorizon,
    Latest,
    At(&'a str),
    After(&'a str),
    Timestamp(f64),
}

impl<'a> Start<'a> {
    fn new(kind: &str, sequence: Option<&'a str>, timestamp: Option<f64>) -> Result<Self, Error> {
        match (kind, sequence, timestamp) {
            ("TRIM_HORIZON", None, _) => Ok(Self::TrimHorizon),
            ("LATEST", None, _) => Ok(Self::Latest),
            ("AT_SEQUENCE_NUMBER", Some(text), _) => Ok(Self::At(text)),
            ("AFTER_SEQUENCE_NUMBER", Some(text), _) => Ok(Self::After(text)),
            ("AT_TIMESTAMP", None, Some(seconds)) if seconds.is_finite() && seconds >= 0.0 => {
                Ok(Self::Timestamp(seconds))
            }
            ("AT_TIMESTAMP", None, _) => Err(Error::argument(
                "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP, as seconds since 1970.",
            )),
            ("TRIM_HORIZON" | "LATEST" | "AT_TIMESTAMP" | "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER", ..) => {
                let given = if sequence.is_some() { "a" } else { "no" };
                Err(Error::argument(format!(
                    "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber \
                     or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {kind} and {given} \
                     StartingSequenceNumber."
                )))
            }
            _ => Err(Error::validation(format!(
                "1 validation error detected: Value '{kind:.100}' at 'shardIteratorType' failed to satisfy constraint: \
                 Member must satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, \
                 TRIM_HORIZON]"
            ))),
        }
    }
}

/// The index a sequence number stands for in this shard. One of another shard, or of an earlier stream of the same
/// name, is refused as on AWS.
fn position(text: &str, shard: &Shard, stream: &str) -> Result<u64, Error> {
    let invalid = |why: &str| {
        Error::argument(format!(
            "StartingSequenceNumber {text:.130} used in GetShardIterator on shard {} in stream {stream} under account {} \
             is invalid{why}",
            shard.id(),
            super::ACCOUNT
        ))
    };
    let sequence = Sequence::parse(text).ok_or_else(|| invalid("."))?;
    if sequence.shard != shard.number {
        return Err(Error::argument(format!(
            "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to a shard with {}",
            store::shard_id(sequence.shard),
            shard.id()
        )));
    }
    if sequence.created_s != shard.created_s {
        return Err(invalid(" because it did not come from this stream."));
    }
    Ok(sequence.index.min(INDEX_END))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GetRecords {
    shard_iterator: Option<String>,
    limit: Option<i64>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
}

pub(super) fn get_records(kinesis: &Kinesis, input: GetRecords) -> Result<Value, Error> {
    let text = request::required(input.shard_iterator, "shardIterator")?;
    let limit = request::within(input.limit, 1, MAX_RECORDS, MAX_RECORDS, "limit")?;
    let named = match input.stream_arn {
        Some(arn) => Some(request::stream_name(None, Some(arn))?),
        None => None,
    };
    let iterator = Iterator::decode(&text).ok_or_else(|| Error::argument("Invalid ShardIterator."))?;
    let now = kinesis.now_ms();
    if now.saturating_sub(iterator.issued_ms) > ITERATOR_LIFE_MS {
        return Err(Error::expired_iterator(format!(
            "Iterator expired. The iterator was created at time {} while right now it is {now} which is further in \
             the future than the tolerated delay of {ITERATOR_LIFE_MS} milliseconds.",
            iterator.issued_ms
        )));
    }
    let (page, shard, children) = kinesis.transact(|db| {
        let gone = || Error::not_found("the stream or shard of this iterator does not exist any more");
        let stream = store::stream_by_key(db, iterator.stream)?.ok_or_else(gone)?;
        if named.is_some_and(|name| name != stream.name) {
            return Err(Error::argument(format!(
                "the iterator is not one of the stream in StreamARN, but of {}",
                stream.name
            )));
        }
        let shard = store::shard_by_key(db, iterator.shard)?.ok_or_else(gone)?;
        if shard_stream(db, shard.key)? != stream.key {
            return Err(Error::argument("Invalid ShardIterator."));
        }
        let page = kinesis.page(db, &stream, &shard, iterator.index, limit, MAX_BYTES)?;
        let children = match page.ended {
            true => lineage::children(&shard, &store::all_shards(db, stream.key)?),
            false => Vec::new(),
        };
        Ok((page, shard, children))
    })?;
    let next = (!page.ended)
        .then(|| Iterator { stream: iterator.stream, shard: shard.key, index: page.next, issued_ms: now }.encode());
    let records: Vec<Value> = page
        .records
        .into_iter()
        .map(|record| {
            json!({
                "SequenceNumber": record.sequence_number,
                "ApproximateArrivalTimestamp": record.arrival_ms as f64 / 1_000.0,
                "Data": STANDARD.encode(record.data),
                "PartitionKey": record.partition_key,
            })
        })
        .collect();
    let mut answer = json!({ "Records": records, "NextShardIterator": next, "MillisBehindLatest": page.millis_behind });
    if let (true, Some(map)) = (page.ended, answer.as_object_mut()) {
        map.insert("ChildShards".into(), children.into());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iterator_is_read_back_and_nothing_else_is() {
        let iterator = Iterator { stream: 1, shard: 2, index: 3, issued_ms: 4 };
        assert_eq!(Iterator::decode(&iterator.encode()), Some(iterator));
        for text in [
            "",
            "x",
            "AAAA",
            &"A".repeat(600),
            &URL_SAFE_NO_PAD.encode("1:1:1:1:1:1"),
            &URL_SAFE_NO_PAD.encode("1:-1:1:1:1"),
        ] {
            assert_eq!(Iterator::decode(text), None, "{text}");
        }
    }
}
