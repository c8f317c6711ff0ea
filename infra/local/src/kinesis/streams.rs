//! Streams themselves: making, deleting, describing and listing them, their shards, retention and tags.
//!
//! A stream made again under the same name has the same ARN and repeats its shard IDs; only its creation time tells it
//! apart, so that is made to grow from stream to stream even where the clock stands still.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::params;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::Error;
use super::lineage::{self, Filter, FilterInput};
use super::reshard::MAX_SHARDS;
use super::store::{self, NewShard, Stream, seconds};
use super::{Kinesis, request};

/// What an on-demand stream starts with (KDG how-do-i-size-a-stream: 4 MB/s).
const ON_DEMAND_SHARDS: usize = 4;
const MIN_RETENTION_H: i64 = 24;
const MAX_RETENTION_H: i64 = 8_760;
const TOKEN_LIFE_MS: i64 = 300_000;
const MAX_TAGS: usize = 50;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateStream {
    stream_name: Option<String>,
    shard_count: Option<i64>,
    stream_mode_details: Option<StreamModeDetails>,
    tags: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StreamModeDetails {
    stream_mode: Option<String>,
}

pub(super) fn create(kinesis: &Kinesis, input: CreateStream) -> Result<Value, Error> {
    let name = request::valid_name(request::required(input.stream_name, "streamName")?)?;
    let mode = match input.stream_mode_details {
        Some(details) => request::required(details.stream_mode, "streamModeDetails.streamMode")?,
        None => "PROVISIONED".to_owned(),
    };
    let (on_demand, count) = match mode.as_str() {
        "ON_DEMAND" => (true, ON_DEMAND_SHARDS),
        "PROVISIONED" => {
            let count = request::required(input.shard_count, "shardCount")?;
            (false, request::within(Some(count), 1, 100_000, 1, "shardCount")?)
        }
        other => {
            return Err(Error::validation(format!(
                "1 validation error detected: Value '{other:.100}' at 'streamModeDetails.streamMode' failed to satisfy \
                 constraint: Member must satisfy enum value set: [PROVISIONED, ON_DEMAND]"
            )));
        }
    };
    if count > MAX_SHARDS {
        return Err(Error::limit(format!("{count} shards are more than a stream may have here: {MAX_SHARDS}")));
    }
    let tags = check_tags(input.tags.unwrap_or_default())?;
    kinesis.transact(|db| {
        if store::find_stream(db, &name)?.is_some() {
            return Err(Error::in_use(format!("Stream {name} under account {} already exists.", super::ACCOUNT)));
        }
        let now = kinesis.now_ms();
        let created_ms: i64 = db.query_row(
            "INSERT INTO newest VALUES (0, ?1) ON CONFLICT DO UPDATE SET ms = MAX(ms + 1, ?1) RETURNING ms",
            [now],
            |row| row.get(0),
        )?;
        db.execute(
            "INSERT INTO stream(name, created_ms, retention_h, on_demand) VALUES (?1, ?2, ?3, ?4)",
            params![name, created_ms, MIN_RETENTION_H, on_demand],
        )?;
        let stream = db.last_insert_rowid();
        for number in 0..count {
            store::insert_shard(db, stream, &initial_shard(number, count, created_ms))?;
        }
        put_tags(db, stream, &tags)
    })?;
    kinesis.changed();
    Ok(Value::Null)
}

/// Equal shares of the 2^128 hash keys; the last takes the rest.
fn initial_shard(number: usize, count: usize, created_ms: i64) -> NewShard {
    let (n, count) = (number as u128, count.max(1) as u128);
    // floor(2^128 / count) within 128 bits. For one shard it wraps to 0, which nothing below uses.
    let share = (u128::MAX / count).wrapping_add(u128::from(u128::MAX % count == count - 1));
    let low = share.wrapping_mul(n);
    let high = if n + 1 == count { u128::MAX } else { low.wrapping_add(share - 1) };
    NewShard {
        number: u32::try_from(number).unwrap_or(u32::MAX),
        parent: None,
        adjacent: None,
        low,
        high,
        created_s: seconds(created_ms),
        created_ms,
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OneStream {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
}

pub(super) fn delete(kinesis: &Kinesis, input: OneStream) -> Result<Value, Error> {
    let name = request::stream_name(input.stream_name, input.stream_arn)?;
    kinesis.transact(|db| {
        let stream = store::find_stream(db, &name)?.ok_or_else(|| Error::stream_not_found(&name))?;
        for shard in store::all_shards(db, stream.key)? {
            db.prepare_cached("DELETE FROM record WHERE row >= ?1 AND row <= ?2")?
                .execute([shard.row(0), shard.row(store::INDEX_END)])?;
            if let Some(mut meter) = kinesis.meter() {
                meter.forget(shard.key);
            }
        }
        db.execute("DELETE FROM shard WHERE stream = ?1", [stream.key])?;
        db.execute("DELETE FROM tag WHERE stream = ?1", [stream.key])?;
        db.execute("DELETE FROM stream WHERE key = ?1", [stream.key])?;
        Ok(())
    })?;
    kinesis.changed();
    Ok(Value::Null)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DescribeStream {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    limit: Option<i64>,
    exclusive_start_shard_id: Option<String>,
}

pub(super) fn describe(kinesis: &Kinesis, input: DescribeStream) -> Result<Value, Error> {
    let name = request::stream_name(input.stream_name, input.stream_arn)?;
    let limit = request::within(input.limit, 1, 10_000, 100, "limit")?;
    let after = exclusive_start(input.exclusive_start_shard_id.as_deref())?;
    kinesis.transact(|db| {
        let stream = store::find_stream(db, &name)?.ok_or_else(|| Error::stream_not_found(&name))?;
        let shards = store::live_shards(db, &stream, kinesis.now_ms())?;
        let mut rest = shards.iter().filter(|shard| after.is_none_or(|after| shard.number > after));
        let shown: Vec<Value> = rest.by_ref().take(limit).map(lineage::describe).collect();
        let mut description = summary(&stream);
        if let Some(map) = description.as_object_mut() {
            map.insert("HasMoreShards".into(), rest.next().is_some().into());
            map.insert("Shards".into(), shown.into());
        }
        Ok(json!({ "StreamDescription": description }))
    })
}

pub(super) fn describe_summary(kinesis: &Kinesis, input: OneStream) -> Result<Value, Error> {
    let name = request::stream_name(input.stream_name, input.stream_arn)?;
    kinesis.transact(|db| {
        let stream = store::find_stream(db, &name)?.ok_or_else(|| Error::stream_not_found(&name))?;
        let open = store::open_shards(db, stream.key)?.len();
        let mut description = summary(&stream);
        if let Some(map) = description.as_object_mut() {
            map.insert("OpenShardCount".into(), open.into());
            map.insert("ConsumerCount".into(), 0.into());
        }
        Ok(json!({ "StreamDescriptionSummary": description }))
    })
}

fn mode(stream: &Stream) -> Value {
    json!({ "StreamMode": if stream.on_demand { "ON_DEMAND" } else { "PROVISIONED" } })
}

fn summary(stream: &Stream) -> Value {
    json!({
        "StreamName": stream.name,
        "StreamARN": stream.arn(),
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": mode(stream),
        "RetentionPeriodHours": stream.retention_h,
        "StreamCreationTimestamp": stream.created_ms as f64 / 1_000.0,
        "EnhancedMonitoring": [{ "ShardLevelMetrics": [] }],
        "EncryptionType": "NONE",
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListStreams {
    limit: Option<i64>,
    exclusive_start_stream_name: Option<String>,
    next_token: Option<String>,
}

pub(super) fn list(kinesis: &Kinesis, input: ListStreams) -> Result<Value, Error> {
    let limit = request::within(input.limit, 1, 10_000, 100, "limit")?;
    let after = match input.next_token {
        // The token is the last name shown; names stand in their own order, so it never expires.
        Some(token) => decode_text(&token).ok_or_else(|| Error::argument("Invalid NextToken."))?,
        None => input.exclusive_start_stream_name.unwrap_or_default(),
    };
    kinesis.transact(|db| {
        let mut query = db.prepare_cached(
            "SELECT key, name, created_ms, retention_h, on_demand FROM stream WHERE name > ?1 ORDER BY name LIMIT ?2",
        )?;
        let found = query
            .query_map(params![after, limit + 1], |row| {
                Ok(Stream {
                    key: row.get(0)?,
                    name: row.get(1)?,
                    created_ms: row.get(2)?,
                    retention_h: row.get(3)?,
                    on_demand: row.get(4)?,
                })
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let more = found.len() > limit;
        let shown: Vec<&Stream> = found.iter().take(limit).collect();
        let summaries: Vec<Value> = shown
            .iter()
            .map(|stream| {
                json!({
                    "StreamName": stream.name,
                    "StreamARN": stream.arn(),
                    "StreamStatus": "ACTIVE",
                    "StreamModeDetails": mode(stream),
                    "StreamCreationTimestamp": stream.created_ms as f64 / 1_000.0,
                })
            })
            .collect();
        let names: Vec<&str> = shown.iter().map(|stream| stream.name.as_str()).collect();
        let mut answer = json!({ "StreamNames": names, "HasMoreStreams": more, "StreamSummaries": summaries });
        if let (true, Some(last), Some(map)) = (more, names.last(), answer.as_object_mut()) {
            map.insert("NextToken".into(), URL_SAFE_NO_PAD.encode(last).into());
        }
        Ok(answer)
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListShards {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    next_token: Option<String>,
    exclusive_start_shard_id: Option<String>,
    max_results: Option<i64>,
    shard_filter: Option<FilterInput>,
    stream_creation_timestamp: Option<f64>,
}

/// What a `NextToken` of `ListShards` holds.
#[derive(Debug, Serialize, Deserialize)]
struct ShardToken {
    stream: i64,
    after: u32,
    filter: Option<FilterInput>,
    issued_ms: i64,
}

pub(super) fn list_shards(kinesis: &Kinesis, input: ListShards) -> Result<Value, Error> {
    // BC:kinesis.ListShards: 1,000 by default, up to 10,000.
    let limit = request::within(input.max_results, 1, 10_000, 1_000, "maxResults")?;
    let now = kinesis.now_ms();
    let (token, name) = match input.next_token {
        Some(token) => {
            if input.stream_name.is_some()
                || input.exclusive_start_shard_id.is_some()
                || input.stream_creation_timestamp.is_some()
                || input.shard_filter.is_some()
            {
                return Err(Error::argument("NextToken and StreamName cannot be provided together, nor may a filter."));
            }
            let token: ShardToken = decode_text(&token)
                .and_then(|text| serde_json::from_str(&text).ok())
                .ok_or_else(|| Error::argument("Invalid NextToken."))?;
            if now.saturating_sub(token.issued_ms) > TOKEN_LIFE_MS {
                return Err(Error::expired_token("NextToken is older than 300 seconds: list from the beginning."));
            }
            (Some(token), None)
        }
        None if input.stream_name.is_none() && input.stream_arn.is_none() => {
            return Err(Error::argument("Either NextToken or StreamName should be provided."));
        }
        None => (None, Some(request::stream_name(input.stream_name, input.stream_arn)?)),
    };
    let (after, given) = match token.as_ref() {
        Some(token) => (Some(token.after), token.filter.clone()),
        None => (exclusive_start(input.exclusive_start_shard_id.as_deref())?, input.shard_filter),
    };
    let filter = Filter::new(given.as_ref())?;
    kinesis.transact(|db| {
        let stream = match (&token, &name) {
            (Some(token), _) => store::stream_by_key(db, token.stream)?
                .ok_or_else(|| Error::not_found("the stream of this NextToken does not exist any more"))?,
            (None, name) => {
                let name = name.as_deref().unwrap_or_default();
                store::find_stream(db, name)?.ok_or_else(|| Error::stream_not_found(name))?
            }
        };
        // The creation time asked for must be this stream's: a re-created stream has another (BC:kinesis.ListShards).
        if input.stream_creation_timestamp.is_some_and(|at| (at - stream.created_ms as f64 / 1_000.0).abs() >= 1.0) {
            return Err(Error::stream_not_found(&stream.name));
        }
        let horizon = stream.horizon_ms(now).max(stream.created_ms);
        let shards = store::live_shards(db, &stream, now)?;
        let mut rest = shards
            .iter()
            .filter(|shard| after.is_none_or(|after| shard.number > after))
            .filter(|shard| filter.shows(shard, horizon))
            .peekable();
        let mut shown = Vec::new();
        let mut last = None;
        for shard in rest.by_ref().take(limit) {
            last = Some(shard.number);
            shown.push(lineage::describe(shard));
        }
        let mut answer = json!({ "Shards": shown });
        if let (Some(after), true, Some(map)) = (last, rest.peek().is_some(), answer.as_object_mut()) {
            let token = ShardToken { stream: stream.key, after, filter: given.clone(), issued_ms: now };
            let text = serde_json::to_string(&token).unwrap_or_default();
            map.insert("NextToken".into(), URL_SAFE_NO_PAD.encode(text).into());
        }
        Ok(answer)
    })
}

fn exclusive_start(id: Option<&str>) -> Result<Option<u32>, Error> {
    id.map(|id| store::shard_number(id).ok_or_else(|| Error::argument(format!("{id:.200} is not a shard ID."))))
        .transpose()
}

fn decode_text(token: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()
}

/// Whether a retention is to be made longer or shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Retention {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    retention_period_hours: Option<i64>,
}

/// 24 to 8,760 hours (KDG key-concepts). Each of the two operations goes one way only; staying where it is is allowed.
pub(super) fn retention(kinesis: &Kinesis, input: Retention, way: Way) -> Result<Value, Error> {
    let name = request::stream_name(input.stream_name, input.stream_arn)?;
    let hours = request::required(input.retention_period_hours, "retentionPeriodHours")?;
    if !(MIN_RETENTION_H..=MAX_RETENTION_H).contains(&hours) {
        return Err(Error::argument(format!(
            "A retention period is {MIN_RETENTION_H} to {MAX_RETENTION_H} hours. Requested were {hours}."
        )));
    }
    kinesis.transact(|db| {
        let stream = store::find_stream(db, &name)?.ok_or_else(|| Error::stream_not_found(&name))?;
        let wrong = match way {
            Way::Up => hours < stream.retention_h,
            Way::Down => hours > stream.retention_h,
        };
        if wrong {
            let (than, other) = if way == Way::Up { ("shorter", "Decrease") } else { ("longer", "Increase") };
            return Err(Error::argument(format!(
                "Requested retention period ({hours} hours) for stream {name} can not be {than} than existing retention \
                 period ({} hours). Use {other}RetentionPeriod API.",
                stream.retention_h
            )));
        }
        db.execute("UPDATE stream SET retention_h = ?2 WHERE key = ?1", params![stream.key, hours])?;
        // What a shorter retention drops is gone at once, and stays gone when it is made longer again.
        let horizon = Stream { retention_h: hours, ..stream.clone() }.horizon_ms(kinesis.now_ms());
        for shard in store::all_shards(db, stream.key)? {
            store::trim(db, &shard, horizon)?;
        }
        Ok(Value::Null)
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tags {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    tags: Option<BTreeMap<String, String>>,
    tag_keys: Option<Vec<String>>,
}

/// Keys of 1–128 characters, values of at most 256 (BC:kinesis.TagKey, TagValue).
fn check_tags(tags: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    let good =
        |(key, value): (&String, &String)| (1..=128).contains(&key.chars().count()) && value.chars().count() <= 256;
    if tags.len() > MAX_TAGS || !tags.iter().all(good) {
        return Err(Error::validation(format!(
            "1 validation error detected: Value at 'tags' failed to satisfy constraint: at most {MAX_TAGS} tags, keys of \
             1 to 128 characters, values of at most 256"
        )));
    }
    Ok(tags)
}

fn put_tags(db: &rusqlite::Connection, stream: i64, tags: &BTreeMap<String, String>) -> Result<(), Error> {
    let mut insert = db.prepare_cached("INSERT OR REPLACE INTO tag(stream, name, value) VALUES (?1, ?2, ?3)")?;
    for (key, value) in tags {
        insert.execute(params![stream, key, value])?;
    }
    let count: usize =
        db.prepare_cached("SELECT COUNT(*) FROM tag WHERE stream = ?1")?.query_row([stream], |row| row.get(0))?;
    if count > MAX_TAGS {
        return Err(Error::argument(format!("a stream has at most {MAX_TAGS} tags")));
    }
    Ok(())
}

pub(super) fn add_tags(kinesis: &Kinesis, input: Tags) -> Result<Value, Error> {
    let name = request::stream_name(input.stream_name, input.stream_arn)?;
    let tags = check_tags(request::required(input.tags, "tags")?)?;
    kinesis.transact(|db| {
        let stream = store::find_stream(db, &name)?.ok_or_else(|| Error::stream_not_found(&name))?;
        put_tags(db, stream.key, &tags)?;
        Ok(Value::Null)
    })
}

pub(super) fn remove_tags(kinesis: &Kinesis, input: Tags) -> Result<Value, Error> {
    let name = request::stream_name(input.stream_name, input.stream_arn)?;
    let keys = request::required(input.tag_keys, "tagKeys")?;
    kinesis.transact(|db| {
        let stream = store::find_stream(db, &name)?.ok_or_else(|| Error::stream_not_found(&name))?;
        for key in &keys {
            db.prepare_cached("DELETE FROM tag WHERE stream = ?1 AND name = ?2")?.execute(params![stream.key, key])?;
        }
        Ok(Value::Null)
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListTags {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    exclusive_start_tag_key: Option<String>,
    limit: Option<i64>,
}

pub(super) fn list_tags(kinesis: &Kinesis, input: ListTags) -> Result<Value, Error> {
    let name = request::stream_name(input.stream_name, input.stream_arn)?;
    let limit = request::within(input.limit, 1, 50, 50, "limit")?;
    let after = input.exclusive_start_tag_key.unwrap_or_default();
    kinesis.transact(|db| {
        let stream = store::find_stream(db, &name)?.ok_or_else(|| Error::stream_not_found(&name))?;
        let mut query =
            db.prepare_cached("SELECT name, value FROM tag WHERE stream = ?1 AND name > ?2 ORDER BY name LIMIT ?3")?;
        let mut tags = query
            .query_map(params![stream.key, after, limit + 1], |row| {
                Ok(json!({ "Key": row.get::<_, String>(0)?, "Value": row.get::<_, String>(1)? }))
            })?
            .collect::<rusqlite::Result<Vec<Value>>>()?;
        let more = tags.len() > limit;
        tags.truncate(limit);
        Ok(json!({ "Tags": tags, "HasMoreTags": more }))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_shards_of_a_new_stream_tile_the_hash_keys(count in 1usize..300) {
            let shards: Vec<_> = (0..count).map(|number| initial_shard(number, count, 0)).collect();
            prop_assert_eq!(shards[0].low, 0);
            prop_assert_eq!(shards[count - 1].high, u128::MAX);
            for (a, b) in shards.iter().zip(shards.iter().skip(1)) {
                prop_assert!(a.low <= a.high);
                prop_assert_eq!(a.high + 1, b.low);
            }
        }
    }
}
