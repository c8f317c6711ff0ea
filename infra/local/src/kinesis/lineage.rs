//! Which shards a listing shows: pure rules over when each shard was made and closed.
//!
//! | filter (BC:kinesis.ShardFilter) | shows |
//! | --- | --- |
//! | none, `FROM_TRIM_HORIZON` | every shard that is not expired |
//! | `AT_TRIM_HORIZON` | those open at the trim horizon |
//! | `AT_LATEST` | those open now |
//! | `AT_TIMESTAMP` t | made at or before t, and closed at or after t or open |
//! | `FROM_TIMESTAMP` t | closed at or after t, or open |
//! | `AFTER_SHARD_ID` s | those after s |
//!
//! A time before the trim horizon means the trim horizon. The horizon of a stream younger than its retention is the
//! moment it was made.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::Error;
use super::request;
use super::store::{Shard, shard_id, shard_number};

/// `ShardFilter` as it stands in a request.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct FilterInput {
    r#type: Option<String>,
    shard_id: Option<String>,
    timestamp: Option<f64>,
}

/// A checked filter. Times are ms since 1970.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Filter {
    FromTrimHorizon,
    AtTrimHorizon,
    AtLatest,
    AtTimestamp(f64),
    FromTimestamp(f64),
    After(u32),
}

impl Filter {
    pub(super) fn new(input: Option<&FilterInput>) -> Result<Self, Error> {
        let Some(input) = input else { return Ok(Self::FromTrimHorizon) };
        let kind = request::required(input.r#type.as_deref(), "shardFilter.type")?;
        let time = || {
            let time = input
                .timestamp
                .ok_or_else(|| Error::argument(format!("Timestamp must be specified when ShardFilter is {kind}.")))?;
            if time.is_finite() && time >= 0.0 {
                Ok(time * 1_000.0)
            } else {
                Err(Error::argument("Timestamp must be seconds since 1970."))
            }
        };
        match kind {
            "FROM_TRIM_HORIZON" => Ok(Self::FromTrimHorizon),
            "AT_TRIM_HORIZON" => Ok(Self::AtTrimHorizon),
            "AT_LATEST" => Ok(Self::AtLatest),
            "AT_TIMESTAMP" => Ok(Self::AtTimestamp(time()?)),
            "FROM_TIMESTAMP" => Ok(Self::FromTimestamp(time()?)),
            "AFTER_SHARD_ID" => {
                let id = input
                    .shard_id
                    .as_deref()
                    .ok_or_else(|| Error::argument("ShardId must be specified when ShardFilter is AFTER_SHARD_ID."))?;
                Ok(Self::After(
                    shard_number(id).ok_or_else(|| Error::argument(format!("{id:.200} is not a shard ID.")))?,
                ))
            }
            other => Err(Error::validation(format!(
                "1 validation error detected: Value '{other:.100}' at 'shardFilter.type' failed to satisfy constraint: \
                 Member must satisfy enum value set: [AFTER_SHARD_ID, AT_TRIM_HORIZON, FROM_TRIM_HORIZON, AT_LATEST, \
                 AT_TIMESTAMP, FROM_TIMESTAMP]"
            ))),
        }
    }

    /// Whether a shard that is not expired is shown. `horizon_ms` as in the module's note.
    pub(super) fn shows(self, shard: &Shard, horizon_ms: i64) -> bool {
        let closed_before = |ms: f64| shard.closed_ms.is_some_and(|closed| (closed as f64) < ms);
        let horizon = horizon_ms as f64;
        match self {
            Self::FromTrimHorizon => true,
            Self::AtLatest => shard.closed_ms.is_none(),
            Self::After(number) => shard.number > number,
            Self::AtTrimHorizon => shard.created_ms as f64 <= horizon && !closed_before(horizon),
            Self::AtTimestamp(ms) => {
                let ms = ms.max(horizon);
                shard.created_ms as f64 <= ms && !closed_before(ms)
            }
            Self::FromTimestamp(ms) => !closed_before(ms.max(horizon)),
        }
    }
}

/// A shard as listings show it.
pub(super) fn describe(shard: &Shard) -> Value {
    let mut shown = json!({
        "ShardId": shard.id(),
        "HashKeyRange": { "StartingHashKey": shard.low.to_string(), "EndingHashKey": shard.high.to_string() },
        "SequenceNumberRange": { "StartingSequenceNumber": shard.starting_sequence().to_string() },
    });
    if let Some(map) = shown.as_object_mut() {
        if let Some(parent) = shard.parent {
            map.insert("ParentShardId".into(), shard_id(parent).into());
        }
        if let Some(adjacent) = shard.adjacent {
            map.insert("AdjacentParentShardId".into(), shard_id(adjacent).into());
        }
        if let (Some(end), Some(range)) =
            (shard.ending_sequence(), map.get_mut("SequenceNumberRange").and_then(Value::as_object_mut))
        {
            range.insert("EndingSequenceNumber".into(), end.to_string().into());
        }
    }
    shown
}

/// A closed shard's children as `GetRecords` names them at its end.
pub(super) fn children(shard: &Shard, all: &[Shard]) -> Vec<Value> {
    all.iter()
        .filter(|child| child.parent == Some(shard.number) || child.adjacent == Some(shard.number))
        .map(|child| {
            let parents: Vec<_> = [child.parent, child.adjacent].into_iter().flatten().map(shard_id).collect();
            json!({
                "ShardId": child.id(),
                "ParentShards": parents,
                "HashKeyRange": { "StartingHashKey": child.low.to_string(), "EndingHashKey": child.high.to_string() },
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(number: u32, created_ms: i64, closed_ms: Option<i64>) -> Shard {
        Shard {
            key: i64::from(number),
            number,
            parent: None,
            adjacent: None,
            low: 0,
            high: 0,
            created_s: 0,
            created_ms,
            next: 1,
            closed_ms,
        }
    }

    #[test]
    fn each_filter_shows_what_its_row_in_the_table_says() {
        // Shard 0 lived from 100 to 200, 1 from 200 to 300, 2 is open since 300; the horizon is at 150.
        let shards = [shard(0, 100, Some(200)), shard(1, 200, Some(300)), shard(2, 300, None)];
        let shown = |filter: Filter| -> Vec<u32> {
            shards.iter().filter(|shard| filter.shows(shard, 150)).map(|shard| shard.number).collect()
        };
        assert_eq!(shown(Filter::FromTrimHorizon), [0, 1, 2]);
        assert_eq!(shown(Filter::AtTrimHorizon), [0]);
        assert_eq!(shown(Filter::AtLatest), [2]);
        assert_eq!(shown(Filter::AtTimestamp(250.0)), [1]);
        assert_eq!(shown(Filter::AtTimestamp(200.0)), [0, 1], "both ends belong to the shard");
        assert_eq!(shown(Filter::AtTimestamp(1.0)), [0], "before the horizon is the horizon");
        assert_eq!(shown(Filter::FromTimestamp(250.0)), [1, 2]);
        assert_eq!(shown(Filter::FromTimestamp(400.0)), [2]);
        assert_eq!(shown(Filter::After(0)), [1, 2]);
    }
}
