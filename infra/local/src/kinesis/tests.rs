//! A test per rule, through the same JSON that goes over the wire.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::manual::ManualHost;

const START_MS: i64 = 1_760_000_000_123;
const HOUR: Duration = Duration::from_secs(3_600);

struct World {
    kinesis: Kinesis,
    host: Arc<ManualHost>,
}

impl World {
    fn new() -> Self {
        let host = ManualHost::new(START_MS, 1);
        Self { kinesis: Kinesis::memory(host.clone()).unwrap(), host }
    }

    fn with_stream(shards: u32) -> Self {
        let world = Self::new();
        world.ok("CreateStream", json!({ "StreamName": "s", "ShardCount": shards }));
        world
    }

    fn call(&self, operation: &str, body: Value) -> (u16, Value) {
        let answer = self.kinesis.handle(operation, body.to_string().as_bytes());
        let body = if answer.body.is_empty() { Value::Null } else { serde_json::from_slice(&answer.body).unwrap() };
        (answer.status, body)
    }

    #[track_caller]
    fn ok(&self, operation: &str, body: Value) -> Value {
        let (status, answer) = self.call(operation, body);
        assert_eq!(status, 200, "{operation}: {answer}");
        answer
    }

    /// The exception's name.
    #[track_caller]
    fn fault(&self, operation: &str, body: Value) -> String {
        let (status, answer) = self.call(operation, body);
        assert_eq!(status, 400, "{operation}: {answer}");
        assert!(answer["message"].is_string(), "{answer}");
        answer["__type"].as_str().unwrap().to_owned()
    }

    /// Puts one record; its shard and sequence number.
    #[track_caller]
    fn put(&self, key: &str, data: &[u8]) -> (String, String) {
        let answer =
            self.ok("PutRecord", json!({ "StreamName": "s", "PartitionKey": key, "Data": STANDARD.encode(data) }));
        (text(&answer["ShardId"]), text(&answer["SequenceNumber"]))
    }

    #[track_caller]
    fn iterator(&self, shard: &str, more: Value) -> String {
        let mut body = json!({ "StreamName": "s", "ShardId": shard });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        text(&self.ok("GetShardIterator", body)["ShardIterator"])
    }

    /// What a new reader of the given start gets in one call, as partition keys.
    #[track_caller]
    fn keys(&self, shard: &str, more: Value) -> Vec<String> {
        let page = self.ok("GetRecords", json!({ "ShardIterator": self.iterator(shard, more) }));
        page["Records"].as_array().unwrap().iter().map(|record| text(&record["PartitionKey"])).collect()
    }

    fn ids(&self, more: Value) -> Vec<String> {
        let mut body = json!({ "StreamName": "s" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.ok("ListShards", body)["Shards"].as_array().unwrap().iter().map(|shard| text(&shard["ShardId"])).collect()
    }
}

#[track_caller]
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

const SHARD_0: &str = "shardId-000000000000";
const SHARD_1: &str = "shardId-000000000001";
const SHARD_2: &str = "shardId-000000000002";
const MIDDLE: &str = "170141183460469231731687303715884105728";

#[test]
fn a_stream_is_described_with_its_creation_time() {
    let world = World::with_stream(2);
    let answer = world.ok("DescribeStreamSummary", json!({ "StreamName": "s" }));
    let summary = &answer["StreamDescriptionSummary"];
    assert_eq!(summary["StreamARN"], "arn:aws:kinesis:us-east-1:000000000000:stream/s");
    assert_eq!(summary["StreamStatus"], "ACTIVE");
    assert_eq!(summary["OpenShardCount"], 2);
    assert_eq!(summary["RetentionPeriodHours"], 24);
    assert_eq!(summary["StreamModeDetails"]["StreamMode"], "PROVISIONED");
    assert_eq!(summary["StreamCreationTimestamp"], 1_760_000_000.123);
    let by_arn = world.ok("DescribeStreamSummary", json!({ "StreamARN": summary["StreamARN"] }));
    assert_eq!(by_arn, answer);
}

#[test]
fn an_on_demand_stream_starts_with_four_shards() {
    let world = World::new();
    world.ok("CreateStream", json!({ "StreamName": "s", "StreamModeDetails": { "StreamMode": "ON_DEMAND" } }));
    assert_eq!(world.ids(json!({})).len(), 4);
    let summary = world.ok("DescribeStreamSummary", json!({ "StreamName": "s" }));
    assert_eq!(summary["StreamDescriptionSummary"]["StreamModeDetails"]["StreamMode"], "ON_DEMAND");
}

#[test]
fn describe_stream_and_list_streams_page() {
    let world = World::with_stream(3);
    let first = world.ok("DescribeStream", json!({ "StreamName": "s", "Limit": 2 }));
    assert_eq!(first["StreamDescription"]["HasMoreShards"], true);
    let last = &first["StreamDescription"]["Shards"][1]["ShardId"];
    let rest = world.ok("DescribeStream", json!({ "StreamName": "s", "ExclusiveStartShardId": last }));
    assert_eq!(rest["StreamDescription"]["HasMoreShards"], false);
    assert_eq!(rest["StreamDescription"]["Shards"][0]["ShardId"], SHARD_2);
    world.ok("CreateStream", json!({ "StreamName": "a", "ShardCount": 1 }));
    let names = world.ok("ListStreams", json!({ "Limit": 1 }));
    assert_eq!((&names["StreamNames"], &names["HasMoreStreams"]), (&json!(["a"]), &json!(true)));
    let names = world.ok("ListStreams", json!({ "NextToken": names["NextToken"] }));
    assert_eq!((&names["StreamNames"], &names["HasMoreStreams"]), (&json!(["s"]), &json!(false)));
}

#[test]
fn a_stream_made_again_repeats_shard_ids_under_a_new_creation_time() {
    let world = World::with_stream(1);
    let (_, old) = world.put("k", b"x");
    let iterator = world.iterator(SHARD_0, json!({ "ShardIteratorType": "TRIM_HORIZON" }));
    let created = |world: &World| {
        world.ok("DescribeStreamSummary", json!({ "StreamName": "s" }))["StreamDescriptionSummary"]
            ["StreamCreationTimestamp"]
            .as_f64()
            .unwrap()
    };
    let before = created(&world);
    world.ok("DeleteStream", json!({ "StreamName": "s" }));
    assert_eq!(world.fault("DescribeStream", json!({ "StreamName": "s" })), "ResourceNotFoundException");
    world.ok("CreateStream", json!({ "StreamName": "s", "ShardCount": 1 }));
    assert!(created(&world) > before, "also when the clock stood still");
    assert_eq!(world.ids(json!({})), [SHARD_0]);
    assert!(world.keys(SHARD_0, json!({ "ShardIteratorType": "TRIM_HORIZON" })).is_empty());
    assert_eq!(world.fault("GetRecords", json!({ "ShardIterator": iterator })), "ResourceNotFoundException");
    world.ok("DeleteStream", json!({ "StreamName": "s" }));
    world.host.advance(Duration::from_secs(2));
    world.ok("CreateStream", json!({ "StreamName": "s", "ShardCount": 1 }));
    let body = json!({ "StreamName": "s", "ShardId": SHARD_0, "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": old });
    assert_eq!(world.fault("GetShardIterator", body), "InvalidArgumentException");
}

#[test]
fn a_record_goes_where_the_md5_of_its_partition_key_says() {
    let world = World::with_stream(4);
    // MD5("a") = 0cc1…, MD5("b") = 92eb…, MD5("c") = 4a8a…, MD5("y") = 4152…, MD5("d") = 8277…, MD5("q") = 7694…
    for (key, shard) in [("a", 0), ("b", 2), ("c", 1), ("d", 2), ("q", 1)] {
        assert_eq!(world.put(key, b"x").0, format!("shardId-{shard:012}"), "{key}");
    }
    let explicit = |hash: &str| {
        world.ok("PutRecord", json!({ "StreamName": "s", "PartitionKey": "a", "ExplicitHashKey": hash, "Data": "" }))["ShardId"].clone()
    };
    assert_eq!(explicit("0"), SHARD_0);
    assert_eq!(explicit(MIDDLE), SHARD_2);
    assert_eq!(explicit(&u128::MAX.to_string()), "shardId-000000000003");
}

#[test]
fn sequence_numbers_have_56_digits_and_grow_also_when_the_clock_goes_back() {
    let world = World::with_stream(1);
    let (_, first) = world.put("k", b"1");
    world.host.set_us((START_MS - 3_600_000) * 1_000);
    let (_, second) = world.put("k", b"2");
    assert_eq!((first.len(), second.len()), (56, 56));
    assert!(second > first);
    assert!(first.starts_with("49"), "{first}");
}

#[test]
fn put_records_answers_for_each_record_and_keeps_their_order() {
    let world = World::with_stream(1);
    let records: Vec<_> = (0..500).map(|i| json!({ "PartitionKey": format!("{i}"), "Data": "eA==" })).collect();
    let answer = world.ok("PutRecords", json!({ "StreamName": "s", "Records": records }));
    assert_eq!(answer["FailedRecordCount"], 0);
    assert_eq!(answer["Records"].as_array().unwrap().len(), 500);
    let keys = world.keys(SHARD_0, json!({ "ShardIteratorType": "TRIM_HORIZON" }));
    assert_eq!(keys, (0..500).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[test]
fn put_records_over_a_limit_is_refused_as_a_whole() {
    let world = World::with_stream(1);
    let put = |records: Vec<Value>| world.fault("PutRecords", json!({ "StreamName": "s", "Records": records }));
    assert_eq!(put(vec![json!({ "PartitionKey": "k", "Data": "" }); 501]), "ValidationException");
    assert_eq!(put(vec![]), "ValidationException");
    let mebibyte = STANDARD.encode(vec![0; (1 << 20) - 1]);
    assert_eq!(put(vec![json!({ "PartitionKey": "k", "Data": mebibyte }); 11]), "InvalidArgumentException");
    let too_big = STANDARD.encode(vec![0; (1 << 20) + 1]);
    assert_eq!(put(vec![json!({ "PartitionKey": "k", "Data": too_big })]), "ValidationException");
    let with_key_too_big = STANDARD.encode(vec![0; 1 << 20]);
    assert_eq!(put(vec![json!({ "PartitionKey": "k", "Data": with_key_too_big })]), "InvalidArgumentException");
    assert_eq!(put(vec![json!({ "PartitionKey": "", "Data": "" })]), "ValidationException");
    assert_eq!(put(vec![json!({ "PartitionKey": "é".repeat(257), "Data": "" })]), "ValidationException");
    assert_eq!(put(vec![json!({ "PartitionKey": "k" })]), "ValidationException");
    assert_eq!(put(vec![json!({ "PartitionKey": "k", "Data": "no base64!" })]), "SerializationException");
    let ok = vec![json!({ "PartitionKey": "k", "Data": STANDARD.encode(vec![0; (1 << 20) - 1]) }); 10];
    assert_eq!(world.call("PutRecords", json!({ "StreamName": "s", "Records": ok })).0, 200, "just 10 MiB");
    assert_eq!(world.kinesis.shards("s").unwrap().1[0].next, 11, "what was refused left nothing");
}

#[test]
fn the_five_iterator_types_begin_where_they_should() {
    let world = World::with_stream(1);
    let (_, one) = world.put("one", b"");
    world.host.advance(Duration::from_millis(10));
    let (_, two) = world.put("two", b"");
    world.host.advance(Duration::from_millis(10));
    world.put("three", b"");
    let read = |more: Value| world.keys(SHARD_0, more);
    assert_eq!(read(json!({ "ShardIteratorType": "TRIM_HORIZON" })), ["one", "two", "three"]);
    assert_eq!(
        read(json!({ "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": two })),
        ["two", "three"]
    );
    assert_eq!(
        read(json!({ "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": one })),
        ["two", "three"]
    );
    let at = (START_MS + 10) as f64 / 1_000.0;
    assert_eq!(read(json!({ "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": at })), ["two", "three"]);
    assert_eq!(read(json!({ "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": at + 0.001 })), ["three"]);
    assert_eq!(read(json!({ "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 0 })), ["one", "two", "three"]);
    let latest = world.iterator(SHARD_0, json!({ "ShardIteratorType": "LATEST" }));
    world.put("four", b"");
    let page = world.ok("GetRecords", json!({ "ShardIterator": latest }));
    assert_eq!(page["Records"][0]["PartitionKey"], "four");
}

#[test]
fn an_iterator_asked_for_wrongly_is_refused() {
    let world = World::with_stream(2);
    let (shard, sequence) = world.put("a", b"");
    let fault = |mut body: Value| {
        body["StreamName"] = "s".into();
        world.fault("GetShardIterator", body)
    };
    let invalid = "InvalidArgumentException";
    assert_eq!(
        fault(json!({ "ShardId": shard, "ShardIteratorType": "LATEST", "StartingSequenceNumber": sequence })),
        invalid
    );
    assert_eq!(fault(json!({ "ShardId": shard, "ShardIteratorType": "AT_SEQUENCE_NUMBER" })), invalid);
    assert_eq!(fault(json!({ "ShardId": shard, "ShardIteratorType": "AT_TIMESTAMP" })), invalid);
    assert_eq!(fault(json!({ "ShardId": shard, "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 2e9 })), invalid);
    assert_eq!(
        fault(json!({ "ShardId": shard, "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "0" })),
        invalid
    );
    let other =
        json!({ "ShardId": SHARD_1, "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": sequence });
    assert_eq!(fault(other), invalid);
    assert_eq!(fault(json!({ "ShardId": shard, "ShardIteratorType": "NEWEST" })), "ValidationException");
    assert_eq!(fault(json!({ "ShardId": "shardId-9", "ShardIteratorType": "LATEST" })), "ResourceNotFoundException");
}

#[test]
fn an_iterator_expires_five_minutes_after_its_issue() {
    let world = World::with_stream(1);
    let iterator = world.iterator(SHARD_0, json!({ "ShardIteratorType": "TRIM_HORIZON" }));
    world.host.advance(Duration::from_secs(300));
    let next = world.ok("GetRecords", json!({ "ShardIterator": iterator }))["NextShardIterator"].clone();
    world.host.advance(Duration::from_millis(1));
    assert_eq!(world.fault("GetRecords", json!({ "ShardIterator": iterator })), "ExpiredIteratorException");
    world.ok("GetRecords", json!({ "ShardIterator": next }));
}

#[test]
fn get_records_stops_at_the_limit_and_at_ten_mebibytes() {
    let world = World::with_stream(1);
    let big = STANDARD.encode(vec![7; 1 << 19]);
    for _ in 0..3 {
        let records = vec![json!({ "PartitionKey": "k", "Data": big }); 10];
        world.ok("PutRecords", json!({ "StreamName": "s", "Records": records }));
    }
    let iterator = world.iterator(SHARD_0, json!({ "ShardIteratorType": "TRIM_HORIZON" }));
    let page = world.ok("GetRecords", json!({ "ShardIterator": iterator }));
    assert_eq!(page["Records"].as_array().unwrap().len(), 20);
    let page = world.ok("GetRecords", json!({ "ShardIterator": page["NextShardIterator"], "Limit": 3 }));
    assert_eq!(page["Records"].as_array().unwrap().len(), 3);
    assert_eq!(world.fault("GetRecords", json!({ "ShardIterator": iterator, "Limit": 10_001 })), "ValidationException");
    assert_eq!(world.fault("GetRecords", json!({ "ShardIterator": iterator, "Limit": 0 })), "ValidationException");
}

#[test]
fn get_records_returns_at_most_ten_thousand() {
    let world = World::with_stream(1);
    for _ in 0..21 {
        let records = vec![json!({ "PartitionKey": "k", "Data": "" }); 500];
        world.ok("PutRecords", json!({ "StreamName": "s", "Records": records }));
    }
    let iterator = world.iterator(SHARD_0, json!({ "ShardIteratorType": "TRIM_HORIZON" }));
    let page = world.ok("GetRecords", json!({ "ShardIterator": iterator }));
    assert_eq!(page["Records"].as_array().unwrap().len(), 10_000);
}

#[test]
fn millis_behind_latest_is_the_age_of_the_next_unread_record() {
    let world = World::with_stream(1);
    world.put("one", b"");
    world.host.advance(Duration::from_secs(7));
    world.put("two", b"");
    let read = |iterator: &Value| world.ok("GetRecords", json!({ "ShardIterator": iterator, "Limit": 1 }));
    let start = Value::from(world.iterator(SHARD_0, json!({ "ShardIteratorType": "TRIM_HORIZON" })));
    let page = read(&start);
    assert_eq!(page["MillisBehindLatest"], 1, "one record of this very millisecond is unread: not caught up");
    world.host.advance(Duration::from_secs(60));
    let page = read(&start);
    assert_eq!(page["MillisBehindLatest"], 60_000);
    let page = read(&page["NextShardIterator"]);
    assert_eq!(page["MillisBehindLatest"], 0);
    assert!(page["NextShardIterator"].is_string(), "an open shard never ends");
}

#[test]
fn arrival_is_in_seconds_with_milliseconds() {
    let world = World::with_stream(1);
    world.put("one", b"hello");
    let iterator = world.iterator(SHARD_0, json!({ "ShardIteratorType": "TRIM_HORIZON" }));
    let page = world.ok("GetRecords", json!({ "ShardIterator": iterator }));
    assert_eq!(page["Records"][0]["ApproximateArrivalTimestamp"], 1_760_000_000.123);
    assert_eq!(page["Records"][0]["Data"], "aGVsbG8=");
}

#[test]
fn a_split_closes_the_parent_and_opens_two_children() {
    let world = World::with_stream(1);
    let (_, before) = world.put("a", b"");
    world.put("b", b"");
    world.ok("SplitShard", json!({ "StreamName": "s", "ShardToSplit": SHARD_0, "NewStartingHashKey": MIDDLE }));
    let shards = world.ok("ListShards", json!({ "StreamName": "s" }))["Shards"].clone();
    assert!(shards[0]["SequenceNumberRange"]["EndingSequenceNumber"].is_string());
    for child in [1, 2] {
        assert_eq!(shards[child]["ParentShardId"], SHARD_0);
        assert_eq!(shards[child]["AdjacentParentShardId"], Value::Null);
        let start = text(&shards[child]["SequenceNumberRange"]["StartingSequenceNumber"]);
        assert!(start > text(&shards[0]["SequenceNumberRange"]["EndingSequenceNumber"]));
    }
    assert_eq!(shards[2]["HashKeyRange"]["StartingHashKey"], MIDDLE);
    let (shard, after) = world.put("a", b"");
    assert_eq!(shard, SHARD_1);
    assert!(after > before, "a child's numbers are greater than its parent's");

    let iterator = world.iterator(SHARD_0, json!({ "ShardIteratorType": "TRIM_HORIZON" }));
    let page = world.ok("GetRecords", json!({ "ShardIterator": iterator, "Limit": 1 }));
    assert!(page["NextShardIterator"].is_string());
    assert_eq!(page["ChildShards"], Value::Null);
    let page = world.ok("GetRecords", json!({ "ShardIterator": page["NextShardIterator"] }));
    assert_eq!(page["Records"].as_array().unwrap().len(), 1);
    assert_eq!(page["NextShardIterator"], Value::Null);
    assert_eq!(page["MillisBehindLatest"], 0);
    let children: Vec<_> =
        page["ChildShards"].as_array().unwrap().iter().map(|child| text(&child["ShardId"])).collect();
    assert_eq!(children, [SHARD_1, SHARD_2]);
    assert_eq!(page["ChildShards"][0]["ParentShards"], json!([SHARD_0]));
}

#[test]
fn a_merge_closes_two_neighbours_and_opens_one_child() {
    let world = World::with_stream(3);
    let merge = |a: &str, b: &str| json!({ "StreamName": "s", "ShardToMerge": a, "AdjacentShardToMerge": b });
    assert_eq!(world.fault("MergeShards", merge(SHARD_0, SHARD_2)), "InvalidArgumentException");
    world.ok("MergeShards", merge(SHARD_0, SHARD_1));
    assert_eq!(world.fault("MergeShards", merge(SHARD_0, SHARD_1)), "InvalidArgumentException");
    let shards = world.ok("ListShards", json!({ "StreamName": "s" }))["Shards"].clone();
    assert_eq!(shards[3]["ParentShardId"], SHARD_0);
    assert_eq!(shards[3]["AdjacentParentShardId"], SHARD_1);
    assert_eq!(shards[3]["HashKeyRange"]["EndingHashKey"], shards[1]["HashKeyRange"]["EndingHashKey"]);
    for parent in [SHARD_0, SHARD_1] {
        let iterator = world.iterator(parent, json!({ "ShardIteratorType": "LATEST" }));
        let page = world.ok("GetRecords", json!({ "ShardIterator": iterator }));
        assert_eq!(page["NextShardIterator"], Value::Null, "empty and closed is ended");
        assert_eq!(page["ChildShards"][0]["ParentShards"], json!([SHARD_0, SHARD_1]));
    }
}

#[test]
fn a_split_outside_the_shard_is_refused() {
    let world = World::with_stream(2);
    let split = |shard: &str, at: &str| {
        world.fault("SplitShard", json!({ "StreamName": "s", "ShardToSplit": shard, "NewStartingHashKey": at }))
    };
    assert_eq!(split(SHARD_0, "0"), "InvalidArgumentException");
    assert_eq!(split(SHARD_0, "1"), "InvalidArgumentException");
    assert_eq!(split(SHARD_0, MIDDLE), "InvalidArgumentException");
    assert_eq!(split(SHARD_0, "-5"), "ValidationException");
    assert_eq!(split("shardId-7", "5"), "ResourceNotFoundException");
}

#[test]
fn uniform_scaling_leaves_the_target_number_open() {
    let world = World::with_stream(3);
    let update =
        |target: u32| json!({ "StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING" });
    world.ok("UpdateShardCount", update(5));
    assert_eq!(world.ids(json!({ "ShardFilter": { "Type": "AT_LATEST" } })).len(), 5);
    world.ok("UpdateShardCount", update(3));
    assert_eq!(world.ids(json!({ "ShardFilter": { "Type": "AT_LATEST" } })).len(), 3);
    assert_eq!(world.fault("UpdateShardCount", update(7)), "LimitExceededException");
    assert_eq!(world.fault("UpdateShardCount", update(1)), "LimitExceededException");
}

#[test]
fn records_older_than_the_retention_are_gone() {
    let world = World::with_stream(1);
    let (_, one) = world.put("one", b"");
    world.host.advance(23 * HOUR);
    world.put("two", b"");
    world.host.advance(HOUR + Duration::from_millis(1));
    assert_eq!(world.keys(SHARD_0, json!({ "ShardIteratorType": "TRIM_HORIZON" })), ["two"]);
    for kind in ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"] {
        let from_trimmed = json!({ "ShardIteratorType": kind, "StartingSequenceNumber": one });
        assert_eq!(world.keys(SHARD_0, from_trimmed), ["two"], "a trimmed position is the trim horizon");
    }
    world.ok("IncreaseStreamRetentionPeriod", json!({ "StreamName": "s", "RetentionPeriodHours": 48 }));
    assert_eq!(world.keys(SHARD_0, json!({ "ShardIteratorType": "TRIM_HORIZON" })), ["two"], "what is gone stays gone");
    world.host.advance(23 * HOUR);
    assert_eq!(world.keys(SHARD_0, json!({ "ShardIteratorType": "TRIM_HORIZON" })), ["two"]);
}

#[test]
fn retention_goes_each_way_by_its_own_operation() {
    let world = World::with_stream(1);
    let body = |hours: i64| json!({ "StreamName": "s", "RetentionPeriodHours": hours });
    world.ok("IncreaseStreamRetentionPeriod", body(8_760));
    assert_eq!(world.fault("IncreaseStreamRetentionPeriod", body(48)), "InvalidArgumentException");
    assert_eq!(world.fault("IncreaseStreamRetentionPeriod", body(8_761)), "InvalidArgumentException");
    world.ok("DecreaseStreamRetentionPeriod", body(24));
    assert_eq!(world.fault("DecreaseStreamRetentionPeriod", body(23)), "InvalidArgumentException");
    assert_eq!(world.fault("DecreaseStreamRetentionPeriod", body(48)), "InvalidArgumentException");
}

#[test]
fn a_closed_shard_disappears_once_all_its_records_are_trimmed() {
    let world = World::with_stream(1);
    world.put("a", b"");
    world.host.advance(HOUR);
    world.ok("SplitShard", json!({ "StreamName": "s", "ShardToSplit": SHARD_0, "NewStartingHashKey": MIDDLE }));
    world.host.advance(24 * HOUR);
    assert_eq!(world.ids(json!({})), [SHARD_0, SHARD_1, SHARD_2]);
    world.host.advance(Duration::from_millis(1));
    assert_eq!(world.ids(json!({})), [SHARD_1, SHARD_2]);
    let body = json!({ "StreamName": "s", "ShardId": SHARD_0, "ShardIteratorType": "TRIM_HORIZON" });
    assert_eq!(world.fault("GetShardIterator", body), "ResourceNotFoundException");
    let parent = &world.ok("ListShards", json!({ "StreamName": "s" }))["Shards"][0]["ParentShardId"];
    assert_eq!(parent, SHARD_0, "its children still name it");
}

#[test]
fn list_shards_filters_and_pages() {
    let world = World::with_stream(1);
    world.host.advance(HOUR);
    world.ok("SplitShard", json!({ "StreamName": "s", "ShardToSplit": SHARD_0, "NewStartingHashKey": MIDDLE }));
    let filtered = |filter: Value| world.ids(json!({ "ShardFilter": filter }));
    assert_eq!(filtered(json!({ "Type": "FROM_TRIM_HORIZON" })), [SHARD_0, SHARD_1, SHARD_2]);
    assert_eq!(filtered(json!({ "Type": "AT_TRIM_HORIZON" })), [SHARD_0]);
    assert_eq!(filtered(json!({ "Type": "AT_LATEST" })), [SHARD_1, SHARD_2]);
    assert_eq!(filtered(json!({ "Type": "AFTER_SHARD_ID", "ShardId": SHARD_1 })), [SHARD_2]);
    let now = (START_MS + 3_600_000) as f64 / 1_000.0;
    assert_eq!(filtered(json!({ "Type": "AT_TIMESTAMP", "Timestamp": now - 1.0 })), [SHARD_0]);
    assert_eq!(filtered(json!({ "Type": "FROM_TIMESTAMP", "Timestamp": now + 1.0 })), [SHARD_1, SHARD_2]);
    assert_eq!(world.ids(json!({ "ExclusiveStartShardId": SHARD_0 })), [SHARD_1, SHARD_2]);
    let fault = |body: Value| world.fault("ListShards", body);
    assert_eq!(
        fault(json!({ "StreamName": "s", "ShardFilter": { "Type": "AT_TIMESTAMP" } })),
        "InvalidArgumentException"
    );
    assert_eq!(fault(json!({ "StreamName": "s", "ShardFilter": { "Type": "ALL" } })), "ValidationException");
    assert_eq!(fault(json!({})), "InvalidArgumentException");

    let first = world.ok("ListShards", json!({ "StreamName": "s", "MaxResults": 2 }));
    assert_eq!(first["Shards"].as_array().unwrap().len(), 2);
    let token = &first["NextToken"];
    let second = world.ok("ListShards", json!({ "NextToken": token }));
    assert_eq!(second["Shards"][0]["ShardId"], SHARD_2);
    assert_eq!(second["NextToken"], Value::Null);
    assert_eq!(fault(json!({ "NextToken": token, "StreamName": "s" })), "InvalidArgumentException");
    assert_eq!(fault(json!({ "NextToken": "x" })), "InvalidArgumentException");
    world.host.advance(Duration::from_secs(301));
    assert_eq!(fault(json!({ "NextToken": token })), "ExpiredNextTokenException");
}

#[test]
fn tags_are_kept() {
    let world = World::with_stream(1);
    world.ok("AddTagsToStream", json!({ "StreamName": "s", "Tags": { "a": "1", "b": "2" } }));
    world.ok("RemoveTagsFromStream", json!({ "StreamName": "s", "TagKeys": ["a"] }));
    let tags = world.ok("ListTagsForStream", json!({ "StreamName": "s" }));
    assert_eq!(tags, json!({ "Tags": [{ "Key": "b", "Value": "2" }], "HasMoreTags": false }));
}

#[test]
fn limits_refuse_records_one_by_one_and_calls_as_a_whole() {
    let host = ManualHost::new(START_MS, 1);
    let world = World { kinesis: Kinesis::memory_limited(host.clone(), Limits::PerShard).unwrap(), host };
    world.ok("CreateStream", json!({ "StreamName": "s", "ShardCount": 1 }));
    let put = || {
        let records = vec![json!({ "PartitionKey": "k", "Data": "" }); 400];
        world.ok("PutRecords", json!({ "StreamName": "s", "Records": records }))
    };
    assert_eq!(put()["FailedRecordCount"], 0);
    assert_eq!(put()["FailedRecordCount"], 0);
    let third = put();
    assert_eq!(third["FailedRecordCount"], 200);
    assert_eq!(third["Records"][399]["ErrorCode"], "ProvisionedThroughputExceededException");
    assert_eq!(
        world.fault("PutRecord", json!({ "StreamName": "s", "PartitionKey": "k", "Data": "" })),
        "ProvisionedThroughputExceededException"
    );
    let iterator = world.iterator(SHARD_0, json!({ "ShardIteratorType": "TRIM_HORIZON" }));
    for _ in 0..5 {
        world.ok("GetRecords", json!({ "ShardIterator": iterator }));
    }
    assert_eq!(
        world.fault("GetRecords", json!({ "ShardIterator": iterator })),
        "ProvisionedThroughputExceededException"
    );
    world.host.advance(Duration::from_secs(1));
    world.ok("GetRecords", json!({ "ShardIterator": iterator }));
    assert_eq!(put()["FailedRecordCount"], 0);
}

#[test]
fn what_was_answered_is_there_after_the_process_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kinesis.db");
    let host = ManualHost::new(START_MS, 1);
    let world = World { kinesis: Kinesis::open(&path, host.clone()).unwrap(), host };
    world.ok("CreateStream", json!({ "StreamName": "s", "ShardCount": 1 }));
    world.put("a", b"1");
    world.ok("SplitShard", json!({ "StreamName": "s", "ShardToSplit": SHARD_0, "NewStartingHashKey": MIDDLE }));
    let (shard, last) = world.put("a", b"2");
    let latest = world.iterator(&shard, json!({ "ShardIteratorType": "LATEST" }));
    // A kill runs no destructor: the files as they are now are what the next process finds.
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let again = World {
        kinesis: Kinesis::open(&copy.path().join("kinesis.db"), world.host.clone()).unwrap(),
        host: world.host.clone(),
    };
    assert_eq!(again.ids(json!({})), [SHARD_0, SHARD_1, SHARD_2]);
    assert_eq!(again.keys(SHARD_0, json!({ "ShardIteratorType": "TRIM_HORIZON" })), ["a"]);
    let (_, next) = again.put("a", b"3");
    assert!(next > last);
    let page = again.ok("GetRecords", json!({ "ShardIterator": latest }));
    assert_eq!(page["Records"].as_array().unwrap().len(), 1, "iterators survive too");
}

#[test]
fn wrong_types_unknown_members_and_unknown_operations() {
    let world = World::with_stream(1);
    assert_eq!(world.fault("DescribeStream", json!({ "StreamName": 7 })), "SerializationException");
    assert_eq!(
        world.fault("PutRecord", json!({ "StreamName": "s", "PartitionKey": "k", "Data": [1] })),
        "SerializationException"
    );
    assert_eq!(world.fault("CreateStream", json!({ "StreamName": "t", "ShardCount": "1" })), "SerializationException");
    assert_eq!(world.fault("CreateStream", json!({ "StreamName": "t" })), "ValidationException");
    assert_eq!(world.fault("CreateStream", json!({ "StreamName": "t", "ShardCount": 0 })), "ValidationException");
    assert_eq!(world.fault("CreateStream", json!({ "StreamName": "s", "ShardCount": 1 })), "ResourceInUseException");
    assert_eq!(world.fault("SubscribeToShard", json!({})), "UnknownOperationException");
    world.ok("DescribeStream", json!({ "StreamName": "s", "Unheard": { "of": [] } }));
    for body in [&b"{"[..], b"[]", b"null", b"\xFF\xFE", b"\xA1\x61\x61\x01", b"\"\\ud800\""] {
        let answer = world.kinesis.handle("DescribeStream", body);
        assert_eq!(answer.status, 400, "{body:?}");
        assert!(String::from_utf8_lossy(&answer.body).contains("SerializationException"), "{body:?}");
    }
}

const OPERATIONS: [&str; 17] = [
    "PutRecord",
    "PutRecords",
    "GetRecords",
    "GetShardIterator",
    "ListShards",
    "CreateStream",
    "DeleteStream",
    "DescribeStream",
    "DescribeStreamSummary",
    "ListStreams",
    "IncreaseStreamRetentionPeriod",
    "DecreaseStreamRetentionPeriod",
    "AddTagsToStream",
    "ListTagsForStream",
    "SplitShard",
    "MergeShards",
    "UpdateShardCount",
];

fn hostile_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("s")),
        Just(json!("shardId-000000000000")),
        Just(json!("170141183460469231731687303715884105728")),
        Just(json!("AT_TIMESTAMP")),
        Just(json!([{ "PartitionKey": "k", "Data": "" }])),
        Just(json!({ "Type": "AT_TIMESTAMP", "Timestamp": -1e300 })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn hostile_bodies_get_an_answer(
        operation in prop::sample::select(&OPERATIONS[..]),
        members in prop::collection::btree_map(
            prop::sample::select(&["StreamName", "StreamARN", "ShardId", "Limit", "ShardIterator", "ShardIteratorType",
                "Timestamp", "StartingSequenceNumber", "Records", "Data", "PartitionKey", "ExplicitHashKey", "ShardFilter",
                "NextToken", "ShardToSplit", "NewStartingHashKey", "ShardToMerge", "AdjacentShardToMerge", "MaxResults",
                "TargetShardCount", "ScalingType", "Tags", "ShardCount", "RetentionPeriodHours"][..]),
            hostile_value(), 0..8),
        raw in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let world = World::with_stream(1);
        let mut members: serde_json::Map<String, Value> =
            members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let answer = world.kinesis.handle(operation, &raw);
        prop_assert!(answer.status == 200 || answer.status == 400);
        members.entry("StreamName").or_insert("s".into());
        let (status, body) = world.call(operation, Value::Object(members));
        prop_assert!(status == 200 || status == 400, "{body}");
    }
}

#[test]
#[ignore = "a measurement: prints records per second"]
#[allow(clippy::disallowed_methods)]
fn speed_of_batches_of_a_hundred() {
    let dir = tempfile::tempdir().unwrap();
    let host = recount_schemas::host::SystemHost::shared();
    let kinesis = Kinesis::open(&dir.path().join("k.db"), host).unwrap();
    kinesis.handle("CreateStream", br#"{"StreamName":"s","ShardCount":4}"#);
    let records: Vec<_> =
        (0..100).map(|i| json!({ "PartitionKey": format!("key-{i}"), "Data": STANDARD.encode([b'x'; 200]) })).collect();
    let body = json!({ "StreamName": "s", "Records": records }).to_string();
    let start = std::time::Instant::now();
    for _ in 0..1_000 {
        assert_eq!(kinesis.handle("PutRecords", body.as_bytes()).status, 200);
    }
    println!("{:.0} records/s", 100_000.0 / start.elapsed().as_secs_f64());
}
