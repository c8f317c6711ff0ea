//! Resharding: `SplitShard`, `MergeShards`, `UpdateShardCount`.
//!
//! | operation | parents, closed | children, opened |
//! | --- | --- | --- |
//! | split at h | low…high | low…h−1 and h…high, `ParentShardId` the one that was split |
//! | merge a, b | a: low…m, b: m+1…high | low…high, `ParentShardId` a, `AdjacentParentShardId` b |
//!
//! Parents are closed and children opened in one transaction, so hash keys are tiled by open shards at all times. A
//! child's creation time is set one second above all that came before it, which makes its sequence numbers greater
//! than its parents'.

use rusqlite::{Connection, params};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::Error;
use super::store::{self, NewShard, Shard, Stream, seconds};
use super::{Kinesis, request};

/// Most open shards one stream may have here: AWS's default quota is 20,000 for a whole account in us-east-1.
pub(super) const MAX_SHARDS: usize = 10_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SplitShard {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_to_split: Option<String>,
    new_starting_hash_key: Option<String>,
}

pub(super) fn split(kinesis: &Kinesis, input: SplitShard) -> Result<Value, Error> {
    let name = request::stream_name(input.stream_name, input.stream_arn)?;
    let id = request::required(input.shard_to_split, "shardToSplit")?;
    let text = request::required(input.new_starting_hash_key, "newStartingHashKey")?;
    let at = request::hash_key(&text, "NewStartingHashKey")?;
    kinesis.transact(|db| {
        let stream = store::find_stream(db, &name)?.ok_or_else(|| Error::stream_not_found(&name))?;
        let parent = open_shard(db, &stream, &id)?;
        // The bounds that AWS's own message states; a child of one hash key at the lower end is not allowed.
        if at <= parent.low.saturating_add(1) || at >= parent.high {
            return Err(Error::argument(format!(
                "NewStartingHashKey {at} used in SplitShard() on shard {} in stream {name} under account {} is not both \
                 greater than one plus the shard's StartingHashKey {} and less than the shard's EndingHashKey {}.",
                parent.id(),
                super::ACCOUNT,
                parent.low,
                parent.high
            )));
        }
        if store::open_shards(db, stream.key)?.len() >= MAX_SHARDS {
            return Err(Error::limit(format!("{name} has the most open shards a stream may have: {MAX_SHARDS}")));
        }
        split_at(db, &stream, &parent, at, kinesis.now_ms())
    })?;
    kinesis.changed();
    Ok(Value::Null)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct MergeShards {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    shard_to_merge: Option<String>,
    adjacent_shard_to_merge: Option<String>,
}

pub(super) fn merge(kinesis: &Kinesis, input: MergeShards) -> Result<Value, Error> {
    let name = request::stream_name(input.stream_name, input.stream_arn)?;
    let first = request::required(input.shard_to_merge, "shardToMerge")?;
    let second = request::required(input.adjacent_shard_to_merge, "adjacentShardToMerge")?;
    kinesis.transact(|db| {
        let stream = store::find_stream(db, &name)?.ok_or_else(|| Error::stream_not_found(&name))?;
        let (low, high) = (open_shard(db, &stream, &first)?, open_shard(db, &stream, &second)?);
        // In this order only: the adjacent shard lies above the one that is merged.
        if low.high.checked_add(1) != Some(high.low) {
            return Err(Error::argument(format!(
                "Shards {} and {} in stream {name} under account {} are not an adjacent pair of shards eligible for merging",
                low.id(),
                high.id(),
                super::ACCOUNT
            )));
        }
        merge_pair(db, &stream, &low, &high, kinesis.now_ms())
    })?;
    kinesis.changed();
    Ok(Value::Null)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct UpdateShardCount {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    target_shard_count: Option<i64>,
    scaling_type: Option<String>,
}

/// Uniform scaling: the target may be at most double and at least half of the open shards (BC:kinesis.UpdateShardCount).
/// Here it is reached by halving the widest shards, or merging the narrowest neighbours, one after the other; AWS ends
/// with equal ranges by way of more, shorter-lived shards.
pub(super) fn update_shard_count(kinesis: &Kinesis, input: UpdateShardCount) -> Result<Value, Error> {
    let name = request::stream_name(input.stream_name, input.stream_arn)?;
    let target = request::required(input.target_shard_count, "targetShardCount")?;
    let target = request::within(Some(target), 1, 100_000, 1, "targetShardCount")?;
    if request::required(input.scaling_type, "scalingType")? != "UNIFORM_SCALING" {
        return Err(Error::validation(
            "1 validation error detected: Value at 'scalingType' failed to satisfy constraint: \
             Member must satisfy enum value set: [UNIFORM_SCALING]",
        ));
    }
    let current = kinesis.transact(|db| {
        let stream = store::find_stream(db, &name)?.ok_or_else(|| Error::stream_not_found(&name))?;
        let current = store::open_shards(db, stream.key)?.len();
        if target > current * 2 || target < current.div_ceil(2) || target > MAX_SHARDS {
            return Err(Error::limit(format!(
                "UpdateShardCount cannot scale stream {name} from {current} to {target} shards: between half and double, \
                 and at most {MAX_SHARDS}"
            )));
        }
        for _ in 0..current.abs_diff(target) {
            let open = store::open_shards(db, stream.key)?;
            let now = kinesis.now_ms();
            if target > current {
                let Some(widest) = open.iter().max_by_key(|shard| (shard.high - shard.low, u32::MAX - shard.number)) else {
                    break;
                };
                let middle = widest.low + (widest.high - widest.low) / 2 + 1;
                split_at(db, &stream, widest, middle, now)?;
            } else {
                let pairs = open.iter().zip(open.iter().skip(1));
                let Some((low, high)) = pairs.min_by_key(|(low, high)| high.high - low.low) else { break };
                merge_pair(db, &stream, low, high, now)?;
            }
        }
        Ok(current)
    })?;
    kinesis.changed();
    Ok(json!({
        "StreamName": name,
        "StreamARN": super::stream_arn(&name),
        "CurrentShardCount": current,
        "TargetShardCount": target,
    }))
}

fn open_shard(db: &Connection, stream: &Stream, id: &str) -> Result<Shard, Error> {
    let found = match store::shard_number(id) {
        Some(number) => store::find_shard(db, stream.key, number)?,
        None => None,
    };
    let shard = found.ok_or_else(|| Error::shard_not_found(id, &stream.name))?;
    if shard.closed_ms.is_some() {
        return Err(Error::argument(format!(
            "Shard {id} in stream {} is closed: only an open one can be resharded",
            stream.name
        )));
    }
    Ok(shard)
}

fn split_at(db: &Connection, stream: &Stream, parent: &Shard, at: u128, now_ms: i64) -> Result<(), Error> {
    close(db, parent, now_ms)?;
    open_child(db, stream, (parent, None), parent.low, at - 1, now_ms)?;
    open_child(db, stream, (parent, None), at, parent.high, now_ms)
}

fn merge_pair(db: &Connection, stream: &Stream, low: &Shard, high: &Shard, now_ms: i64) -> Result<(), Error> {
    close(db, low, now_ms)?;
    close(db, high, now_ms)?;
    open_child(db, stream, (low, Some(high)), low.low, high.high, now_ms)
}

fn close(db: &Connection, shard: &Shard, now_ms: i64) -> Result<(), Error> {
    let closed_ms = now_ms.max(shard.created_ms);
    db.prepare_cached("UPDATE shard SET closed_ms = ?2 WHERE key = ?1")?.execute(params![shard.key, closed_ms])?;
    Ok(())
}

fn open_child(
    db: &Connection,
    stream: &Stream,
    (parent, adjacent): (&Shard, Option<&Shard>),
    low: u128,
    high: u128,
    now_ms: i64,
) -> Result<(), Error> {
    // Numbers are never used twice in a stream: the greatest one stands in the newest shard, which is open or was
    // closed by this very transaction, so it cannot have expired.
    let number: u32 = db
        .prepare_cached("SELECT COALESCE(MAX(number), -1) + 1 FROM shard WHERE stream = ?1")?
        .query_row([stream.key], |row| row.get(0))?;
    let parents_s = parent.created_s.max(adjacent.map_or(0, |shard| shard.created_s));
    let shard = NewShard {
        number,
        parent: Some(parent.number),
        adjacent: adjacent.map(|shard| shard.number),
        low,
        high,
        created_s: seconds(now_ms).max(parents_s) + 1,
        created_ms: now_ms.max(parent.created_ms),
    };
    store::insert_shard(db, stream.key, &shard)
}
