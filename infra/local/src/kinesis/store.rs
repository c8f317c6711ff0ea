//! The tables, and the rows as the operations see them.
//!
//! A record's row number is its shard's key and its index in the shard in one integer: appending to a shard appends to
//! one place of one B-tree, and "from here on" is a range scan without an index.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::Error;
use super::sequence::{LAST_INDEX, Sequence};

/// Bits of the row number that hold the index: 10¹² records for a shard, 8 million shards for a file.
const INDEX_BITS: u32 = 40;
/// No shard has a record at or above this index.
pub(super) const INDEX_END: u64 = (1 << INDEX_BITS) - 1;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS stream(
  key INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  created_ms INTEGER NOT NULL,
  retention_h INTEGER NOT NULL,
  on_demand INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS tag(
  stream INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (stream, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shard(
  key INTEGER PRIMARY KEY AUTOINCREMENT,
  stream INTEGER NOT NULL,
  number INTEGER NOT NULL,
  parent INTEGER,
  adjacent INTEGER,
  low BLOB NOT NULL,
  high BLOB NOT NULL,
  created_s INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  next INTEGER NOT NULL DEFAULT 1,
  closed_ms INTEGER,
  UNIQUE (stream, number)
) STRICT;
CREATE TABLE IF NOT EXISTS record(
  row INTEGER PRIMARY KEY,
  arrival_ms INTEGER NOT NULL,
  partition_key TEXT NOT NULL,
  data BLOB NOT NULL
) STRICT;
-- The creation time given last, over all streams.
CREATE TABLE IF NOT EXISTS newest(only INTEGER PRIMARY KEY CHECK (only = 0), ms INTEGER NOT NULL) STRICT;
";

/// Readies a new or existing file.
pub(super) fn prepare(db: &Connection) -> Result<(), Error> {
    // A commit is in the log before it is acknowledged, so it survives the end of the process; NORMAL gives up only
    // the newest commits on a loss of power, and costs no fsync per request.
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    // 8 MiB: the last ten thousand records or so, and readers are rarely further behind the tip.
    db.pragma_update(None, "cache_size", -8_192)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.set_prepared_statement_cache_capacity(64);
    db.execute_batch(SCHEMA)?;
    Ok(())
}

/// A stream.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub key: i64,
    pub name: String,
    pub created_ms: i64,
    pub retention_h: i64,
    pub on_demand: bool,
}

impl Stream {
    pub(super) fn arn(&self) -> String {
        super::stream_arn(&self.name)
    }

    /// Records that arrived before this moment (ms since 1970) are gone.
    pub(super) fn horizon_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.retention_h.saturating_mul(3_600_000))
    }
}

/// A shard. Hash keys are inclusive at both ends.
#[derive(Debug, Clone)]
pub(super) struct Shard {
    pub key: i64,
    pub number: u32,
    pub parent: Option<u32>,
    pub adjacent: Option<u32>,
    pub low: u128,
    pub high: u128,
    pub created_s: u64,
    pub created_ms: i64,
    /// Index of the next record to be written.
    pub next: u64,
    pub closed_ms: Option<i64>,
}

impl Shard {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            key: row.get(0)?,
            number: row.get(1)?,
            parent: row.get(2)?,
            adjacent: row.get(3)?,
            low: u128::from_be_bytes(row.get(4)?),
            high: u128::from_be_bytes(row.get(5)?),
            created_s: row.get(6)?,
            created_ms: row.get(7)?,
            next: row.get(8)?,
            closed_ms: row.get(9)?,
        })
    }

    pub(super) fn id(&self) -> String {
        shard_id(self.number)
    }

    pub(super) fn sequence(&self, index: u64, arrival_ms: i64) -> Sequence {
        Sequence { created_s: self.created_s, shard: self.number, index, time_s: seconds(arrival_ms) }
    }

    pub(super) fn starting_sequence(&self) -> Sequence {
        Sequence { created_s: self.created_s, shard: self.number, index: 0, time_s: self.created_s }
    }

    pub(super) fn ending_sequence(&self) -> Option<Sequence> {
        self.closed_ms.map(|at| self.sequence(LAST_INDEX, at))
    }

    /// The row of the record at `index`.
    pub(super) fn row(&self, index: u64) -> i64 {
        row_of(self.key, index)
    }
}

pub(super) fn row_of(shard: i64, index: u64) -> i64 {
    // The index is clamped below 2^40, so the conversion cannot fail.
    (shard << INDEX_BITS) | i64::try_from(index.min(INDEX_END)).unwrap_or(i64::MAX)
}

/// The index in a row number.
pub(super) fn index_of(row: i64) -> u64 {
    u64::try_from(row).unwrap_or(0) & INDEX_END
}

/// The shard's ID: `shardId-` and twelve digits.
pub(crate) fn shard_id(number: u32) -> String {
    format!("shardId-{number:012}")
}

/// The number in a shard ID; AWS takes `shardId-1` and `1` too.
pub(super) fn shard_number(id: &str) -> Option<u32> {
    let digits = id.strip_prefix("shardId-").unwrap_or(id);
    (digits.len() <= 12 && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}

/// Milliseconds since 1970 in whole seconds, never negative.
pub(super) fn seconds(ms: i64) -> u64 {
    u64::try_from(ms.div_euclid(1_000)).unwrap_or(0)
}

const SHARD_COLUMNS: &str = "key, number, parent, adjacent, low, high, created_s, created_ms, next, closed_ms";

pub(super) fn find_stream(db: &Connection, name: &str) -> Result<Option<Stream>, Error> {
    let mut query =
        db.prepare_cached("SELECT key, name, created_ms, retention_h, on_demand FROM stream WHERE name = ?1")?;
    Ok(query.query_row([name], stream_from_row).optional()?)
}

pub(super) fn stream_by_key(db: &Connection, key: i64) -> Result<Option<Stream>, Error> {
    let mut query =
        db.prepare_cached("SELECT key, name, created_ms, retention_h, on_demand FROM stream WHERE key = ?1")?;
    Ok(query.query_row([key], stream_from_row).optional()?)
}

fn stream_from_row(row: &Row<'_>) -> rusqlite::Result<Stream> {
    Ok(Stream {
        key: row.get(0)?,
        name: row.get(1)?,
        created_ms: row.get(2)?,
        retention_h: row.get(3)?,
        on_demand: row.get(4)?,
    })
}

/// All shards of a stream, by number, the expired ones among them.
pub(super) fn all_shards(db: &Connection, stream: i64) -> Result<Vec<Shard>, Error> {
    let sql = format!("SELECT {SHARD_COLUMNS} FROM shard WHERE stream = ?1 ORDER BY number");
    let mut query = db.prepare_cached(&sql)?;
    let rows = query.query_map([stream], Shard::from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The open shards of a stream, by hash key.
pub(super) fn open_shards(db: &Connection, stream: i64) -> Result<Vec<Shard>, Error> {
    let sql = format!("SELECT {SHARD_COLUMNS} FROM shard WHERE stream = ?1 AND closed_ms IS NULL ORDER BY low");
    let mut query = db.prepare_cached(&sql)?;
    let rows = query.query_map([stream], Shard::from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn find_shard(db: &Connection, stream: i64, number: u32) -> Result<Option<Shard>, Error> {
    let sql = format!("SELECT {SHARD_COLUMNS} FROM shard WHERE stream = ?1 AND number = ?2");
    Ok(db.prepare_cached(&sql)?.query_row(params![stream, number], Shard::from_row).optional()?)
}

pub(super) fn shard_by_key(db: &Connection, key: i64) -> Result<Option<Shard>, Error> {
    let sql = format!("SELECT {SHARD_COLUMNS} FROM shard WHERE key = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([key], Shard::from_row).optional()?)
}

/// What a new shard is made of; its key comes from the file.
pub(super) struct NewShard {
    pub number: u32,
    pub parent: Option<u32>,
    pub adjacent: Option<u32>,
    pub low: u128,
    pub high: u128,
    pub created_s: u64,
    pub created_ms: i64,
}

pub(super) fn insert_shard(db: &Connection, stream: i64, shard: &NewShard) -> Result<(), Error> {
    db.prepare_cached(
        "INSERT INTO shard(stream, number, parent, adjacent, low, high, created_s, created_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        stream,
        shard.number,
        shard.parent,
        shard.adjacent,
        shard.low.to_be_bytes(),
        shard.high.to_be_bytes(),
        shard.created_s,
        shard.created_ms,
    ])?;
    Ok(())
}

/// Deletes the records at the front of a shard that arrived before `horizon_ms`. Only the front is looked at: a shard
/// is trimmed in its order, also when a clock went back while it was written.
pub(super) fn trim(db: &Connection, shard: &Shard, horizon_ms: i64) -> Result<(), Error> {
    let (from, to) = (shard.row(0), shard.row(INDEX_END));
    let first: Option<i64> = db
        .prepare_cached("SELECT arrival_ms FROM record WHERE row >= ?1 AND row < ?2 ORDER BY row LIMIT 1")?
        .query_row([from, to], |row| row.get(0))
        .optional()?;
    if first.is_none_or(|arrival| arrival >= horizon_ms) {
        return Ok(());
    }
    let keep: Option<i64> = db
        .prepare_cached(
            "SELECT row FROM record WHERE row >= ?1 AND row < ?2 AND arrival_ms >= ?3 ORDER BY row LIMIT 1",
        )?
        .query_row([from, to, horizon_ms], |row| row.get(0))
        .optional()?;
    db.prepare_cached("DELETE FROM record WHERE row >= ?1 AND row < ?2")?.execute([from, keep.unwrap_or(to)])?;
    Ok(())
}

/// The shards that still exist: a closed one is gone once it was closed longer ago than the retention and its last
/// record is trimmed (KDG kinesis-using-sdk-java-after-resharding: the state EXPIRED). Expired ones are deleted.
pub(super) fn live_shards(db: &Connection, stream: &Stream, now_ms: i64) -> Result<Vec<Shard>, Error> {
    let horizon = stream.horizon_ms(now_ms);
    let mut live = Vec::new();
    for shard in all_shards(db, stream.key)? {
        if shard.closed_ms.is_some_and(|closed| closed < horizon) {
            trim(db, &shard, horizon)?;
            let left: bool = db
                .prepare_cached("SELECT EXISTS(SELECT 1 FROM record WHERE row >= ?1 AND row < ?2)")?
                .query_row([shard.row(0), shard.row(INDEX_END)], |row| row.get(0))?;
            if !left {
                db.prepare_cached("DELETE FROM shard WHERE key = ?1")?.execute([shard.key])?;
                continue;
            }
        }
        live.push(shard);
    }
    Ok(live)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_ids_are_read_as_aws_reads_them() {
        assert_eq!(shard_id(7), "shardId-000000000007");
        for text in ["shardId-000000000007", "shardId-7", "7"] {
            assert_eq!(shard_number(text), Some(7), "{text}");
        }
        for text in ["", "shardId-", "shardId--1", "shard-7", "shardId-9999999999999", "shardId-999999999999"] {
            assert_eq!(shard_number(text), None, "{text}");
        }
    }

    #[test]
    fn a_row_number_keeps_shard_and_index_apart() {
        assert!(row_of(1, INDEX_END) < row_of(2, 0));
        assert_eq!(index_of(row_of(5, 77)), 77);
        assert_eq!(row_of(1, u64::MAX), row_of(1, INDEX_END));
    }
}
