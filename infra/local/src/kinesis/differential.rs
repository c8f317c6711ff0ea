//! The engine against an independent one: both get the same requests, and must mean the same by their answers.
//!
//! `ferrokinesis` keeps no injected clock and has faults of its own, so what is compared is: which exception, where a
//! record was placed, the order in which shards give records back, the lineage, and that a closed shard ends. What is
//! known to differ, and is left out of the comparison:
//!
//! | what | `ferrokinesis` 0.7 | here |
//! | --- | --- | --- |
//! | `MillisBehindLatest` of an open shard | always 0 | the age of the next unread record |
//! | size of a page | 10,000 records | and 10 MiB |
//! | `ShardFilter` | passed over | kept |
//! | `ChildShards` | never there | at the end of a closed shard |
//! | last page of a closed shard | has an iterator to one more, empty page | has none |
//! | `ApproximateArrivalTimestamp` | whole seconds | milliseconds |
//! | on-demand `CreateStream` | demands a `ShardCount` | does not |
//! | splitting or merging a closed shard | done again | `InvalidArgumentException` |
//! | sequence number of another layout | sometimes HTTP 500 | `InvalidArgumentException` |
//! | a stream whose name is missing | `ValidationException` | `InvalidArgumentException`, since an ARN would do |

use bytes::Bytes;
use ferrokinesis::store::StoreOptions;
use http_body_util::{BodyExt as _, Full};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use proptest::prelude::*;
use recount_schemas::host::SystemHost;
use serde_json::{Value, json};

use super::*;

/// One request of the random sequence. Shards are meant by their place among those known by then.
#[derive(Debug, Clone)]
enum Step {
    Put { key: String, hash: Option<u128> },
    PutMany { keys: Vec<u8>, bad: bool },
    Split { shard: usize, share: u8 },
    Merge { first: usize, second: usize },
    Retention { hours: i64, up: bool },
    Fault(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => ("[a-z]{1,3}", prop::option::of(any::<u128>())).prop_map(|(key, hash)| Step::Put { key, hash }),
        6 => (prop::collection::vec(any::<u8>(), 1..20), prop::bool::weighted(0.1))
            .prop_map(|(keys, bad)| Step::PutMany { keys, bad }),
        2 => (0usize..6, any::<u8>()).prop_map(|(shard, share)| Step::Split { shard, share }),
        2 => (0usize..6, 0usize..6).prop_map(|(first, second)| Step::Merge { first, second }),
        1 => (20i64..60, any::<bool>()).prop_map(|(hours, up)| Step::Retention { hours, up }),
        2 => (0u8..12).prop_map(Step::Fault),
    ]
}

/// A request that both must refuse alike.
fn fault(number: u8) -> (&'static str, Value) {
    let s = "s";
    match number {
        0 => ("DescribeStream", json!({ "StreamName": "missing" })),
        1 => ("PutRecord", json!({ "StreamName": "missing", "PartitionKey": "k", "Data": "" })),
        2 => ("CreateStream", json!({ "StreamName": s, "ShardCount": 1 })),
        3 => ("CreateStream", json!({ "StreamName": "bad name", "ShardCount": 1 })),
        4 => ("CreateStream", json!({ "StreamName": "t", "ShardCount": 0 })),
        5 => ("PutRecord", json!({ "StreamName": s, "PartitionKey": "k", "Data": 7 })),
        6 => ("PutRecord", json!({ "StreamName": s, "PartitionKey": "", "Data": "" })),
        7 => ("GetRecords", json!({ "ShardIterator": "nonsense" })),
        8 => ("GetShardIterator", json!({ "StreamName": s, "ShardId": "shardId-999", "ShardIteratorType": "LATEST" })),
        9 => {
            ("GetShardIterator", json!({ "StreamName": s, "ShardId": "0", "ShardIteratorType": "AT_SEQUENCE_NUMBER" }))
        }
        10 => ("ListShards", json!({})),
        _ => ("SplitShard", json!({ "StreamName": s, "ShardToSplit": "shardId-999", "NewStartingHashKey": "5" })),
    }
}

#[derive(Debug, Default)]
struct Known {
    /// Shards in their order: ID, lowest and highest hash key, whether open.
    shards: Vec<(String, u128, u128, bool)>,
}

impl Known {
    fn open(&self, place: usize) -> &(String, u128, u128, bool) {
        let open: Vec<_> = self.shards.iter().filter(|shard| shard.3).collect();
        open[place % open.len()]
    }
}

/// A listing without its sequence numbers and times, which cannot agree.
fn lineage_of(listing: &Value) -> Value {
    let shards = listing["Shards"].as_array().expect("shards");
    shards
        .iter()
        .map(|shard| {
            json!({
                "id": shard["ShardId"], "range": shard["HashKeyRange"], "parent": shard["ParentShardId"],
                "adjacent": shard["AdjacentParentShardId"],
                "closed": shard["SequenceNumberRange"]["EndingSequenceNumber"].is_string(),
            })
        })
        .collect()
}

fn known(lineage: &Value) -> Known {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse().ok()).expect("a hash key");
    let shards = lineage.as_array().expect("a list").iter().map(|shard| {
        let range = &shard["range"];
        (
            shard["id"].as_str().expect("an ID").to_owned(),
            number(&range["StartingHashKey"]),
            number(&range["EndingHashKey"]),
            shard["closed"] == false,
        )
    });
    Known { shards: shards.collect() }
}

fn request_of(step: &Step, known: &Known) -> (&'static str, Value) {
    let (a, b) = ("StreamName", "s");
    match step {
        Step::Put { key, hash: None } => ("PutRecord", json!({ a: b, "PartitionKey": key, "Data": "eA==" })),
        Step::Put { key, hash: Some(hash) } => {
            ("PutRecord", json!({ a: b, "PartitionKey": key, "ExplicitHashKey": hash.to_string(), "Data": "eA==" }))
        }
        Step::PutMany { keys, bad } => {
            let mut records: Vec<_> =
                keys.iter().map(|key| json!({ "PartitionKey": key.to_string(), "Data": "eHg=" })).collect();
            if *bad {
                records.push(json!({ "PartitionKey": "x".repeat(257), "Data": "" }));
            }
            ("PutRecords", json!({ a: b, "Records": records }))
        }
        Step::Split { shard, share } => {
            let (id, low, high, _) = known.open(*shard);
            // Share 0 is the lower end itself, which both must refuse.
            let at = low + (high - low) / 256 * u128::from(*share);
            ("SplitShard", json!({ a: b, "ShardToSplit": id, "NewStartingHashKey": at.to_string() }))
        }
        Step::Merge { first, second } => {
            let (one, two) = (&known.open(*first).0, &known.open(*second).0);
            ("MergeShards", json!({ a: b, "ShardToMerge": one, "AdjacentShardToMerge": two }))
        }
        Step::Retention { hours, up: true } => {
            ("IncreaseStreamRetentionPeriod", json!({ a: b, "RetentionPeriodHours": hours }))
        }
        Step::Retention { hours, up: false } => {
            ("DecreaseStreamRetentionPeriod", json!({ a: b, "RetentionPeriodHours": hours }))
        }
        Step::Fault(number) => fault(*number),
    }
}

/// What of an answer must agree.
fn essence((status, answer): &(u16, Value)) -> Value {
    if *status != 200 {
        return json!({ "status": status, "exception": answer["__type"] });
    }
    let records = answer["Records"].as_array();
    json!({
        "shard": answer["ShardId"],
        "failed": answer["FailedRecordCount"],
        "shards": records.map(|all| all.iter().map(|record| record["ShardId"].clone()).collect::<Vec<_>>()),
    })
}

async fn compare(first: u32, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let ours = Kinesis::memory(SystemHost::shared()).expect("an engine in memory");
    let options = StoreOptions {
        create_stream_ms: 0,
        delete_stream_ms: 0,
        update_stream_ms: 0,
        shard_limit: 1_000,
        ..StoreOptions::default()
    };
    let (app, _store) = ferrokinesis::create_app(options);
    let service = TowerToHyperService::new(app);
    let theirs = async |operation: &str, body: &Value| -> (u16, Value) {
        let request = http::Request::post("/")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
            .header("x-amz-date", "20260101T000000Z")
            .header("authorization", "AWS4-HMAC-SHA256 Credential=a, Signature=b, SignedHeaders=c")
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("a request");
        let answer = service.call(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    };
    let both = async |operation: &str, body: &Value| {
        let answer = ours.handle(operation, body.to_string().as_bytes());
        let here = (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null));
        (here, theirs(operation, body).await)
    };

    // Theirs changes shards in a task of its own; every change is over before the next request.
    let settled = async || {
        for _ in 0..10_000 {
            let (_, answer) = theirs("DescribeStreamSummary", &json!({ "StreamName": "s" })).await;
            if answer["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE" {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("the stream did not become active");
    };

    both("CreateStream", &json!({ "StreamName": "s", "ShardCount": first })).await;
    settled().await;
    for step in &steps {
        let (here, there) = both("ListShards", &json!({ "StreamName": "s" })).await;
        let lineage = lineage_of(&here.1);
        prop_assert_eq!(&lineage, &lineage_of(&there.1), "before {:?}", step);
        let (operation, body) = request_of(step, &known(&lineage));
        let (here, there) = both(operation, &body).await;
        settled().await;
        prop_assert_eq!(essence(&here), essence(&there), "{:?}\nours: {}\ntheirs: {}", step, here.1, there.1);
    }

    let listing: Value =
        serde_json::from_slice(&ours.handle("ListShards", br#"{"StreamName":"s"}"#).body).expect("JSON");
    for shard in listing["Shards"].as_array().expect("shards") {
        let id = shard["ShardId"].as_str().expect("an ID");
        let start = json!({ "StreamName": "s", "ShardId": id, "ShardIteratorType": "TRIM_HORIZON" });
        let (here, there) = both("GetShardIterator", &start).await;
        let closed = shard["SequenceNumberRange"]["EndingSequenceNumber"].is_string();
        let here = drain(
            async |body| {
                let answer = ours.handle("GetRecords", body.to_string().as_bytes());
                serde_json::from_slice(&answer.body).unwrap_or(Value::Null)
            },
            &here.1,
            closed,
        )
        .await;
        let there = drain(async |body| theirs("GetRecords", &body).await.1, &there.1, closed).await;
        prop_assert_eq!(here, there, "shard {}", id);
    }
    Ok(())
}

/// Reads a shard to its end, three records at a time: a closed one until it has no iterator, an open one until a page
/// is empty. Gives the partition keys in order.
async fn drain(get: impl AsyncFn(Value) -> Value, start: &Value, closed: bool) -> Vec<String> {
    let mut iterator = start["ShardIterator"].clone();
    let mut keys = Vec::new();
    while iterator.is_string() {
        let page = get(json!({ "ShardIterator": iterator, "Limit": 3 })).await;
        let records = page["Records"].as_array().expect("records");
        keys.extend(records.iter().map(|record| record["PartitionKey"].to_string()));
        if records.is_empty() && !closed {
            break;
        }
        iterator = page["NextShardIterator"].clone();
    }
    keys
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn both_engines_mean_the_same(first in 1u32..5, steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(compare(first, steps))?;
    }
}
