//! The mapping at work on an embedded stream; a test per rule.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::{Barrier, watch};

use super::*;
use crate::kinesis::Kinesis;
use crate::manual::ManualHost;

pub(super) const START_MS: i64 = 1_760_000_000_000;
const MIDDLE: &str = "170141183460469231731687303715884105728";
const SHARD_0: &str = "shardId-000000000000";

/// A record as a function sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    shard: String,
    sequence: String,
    key: String,
    data: String,
}

fn seen(payload: &[u8]) -> Vec<Seen> {
    let event: Value = serde_json::from_slice(payload).expect("an event");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let records = event["Records"].as_array().expect("records").iter();
    records
        .map(|record| Seen {
            shard: text(&record["eventID"]).split(':').next().unwrap().to_owned(),
            sequence: text(&record["kinesis"]["sequenceNumber"]),
            key: text(&record["kinesis"]["partitionKey"]),
            data: String::from_utf8(STANDARD.decode(text(&record["kinesis"]["data"])).unwrap()).unwrap(),
        })
        .collect()
}

type Behaviour = dyn Fn(usize, &[Seen]) -> Result<Vec<u8>, FunctionError> + Send + Sync;

/// A function that remembers what it was called with and answers by a rule.
struct Script {
    calls: Mutex<Vec<Vec<Seen>>>,
    rule: Box<Behaviour>,
}

impl Script {
    fn new(rule: impl Fn(usize, &[Seen]) -> Result<Vec<u8>, FunctionError> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { calls: Mutex::default(), rule: Box::new(rule) })
    }

    fn good() -> Arc<Self> {
        Self::new(|_, _| Ok(Vec::new()))
    }

    /// The data of the records of each call.
    fn calls(&self) -> Vec<Vec<String>> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|call| call.iter().map(|record| record.data.clone()).collect()).collect()
    }

    fn records(&self) -> Vec<Seen> {
        self.calls.lock().unwrap().concat()
    }
}

#[async_trait]
impl Function for Script {
    async fn invoke(&self, payload: Bytes) -> Result<Vec<u8>, FunctionError> {
        let records = seen(&payload);
        let call = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(records.clone());
            calls.len() - 1
        };
        (self.rule)(call, &records)
    }
}

pub(super) fn report(sequences: &[&str]) -> Result<Vec<u8>, FunctionError> {
    let items: Vec<_> = sequences.iter().map(|sequence| json!({ "itemIdentifier": sequence })).collect();
    Ok(json!({ "batchItemFailures": items }).to_string().into_bytes())
}

fn error() -> Result<Vec<u8>, FunctionError> {
    Err(FunctionError::Failed("test".into()))
}

/// An on-failure destination in memory, that first refuses a number of times.
#[derive(Default)]
struct Kept {
    refusals: AtomicUsize,
    bodies: Mutex<Vec<Value>>,
}

#[async_trait]
impl OnFailure for Kept {
    async fn put(&self, _key: &str, body: Bytes) -> Result<(), String> {
        if self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err("not now".into());
        }
        self.bodies.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
        Ok(())
    }
}

impl Kept {
    fn given_up(&self) -> Vec<Vec<String>> {
        let payload = |body: &Value| seen(body["payload"].as_str().unwrap().as_bytes());
        self.bodies
            .lock()
            .unwrap()
            .iter()
            .map(|body| payload(body).into_iter().map(|record| record.data).collect())
            .collect()
    }
}

struct World {
    kinesis: Kinesis,
    host: Arc<ManualHost>,
    checkpoints: Checkpoints,
    kept: Arc<Kept>,
}

impl World {
    fn new(shards: u32) -> Self {
        let host = ManualHost::new(START_MS, 1);
        let kinesis = Kinesis::memory(host.clone()).unwrap();
        let world = Self { kinesis, host, checkpoints: Checkpoints::memory().unwrap(), kept: Arc::default() };
        world.ask("CreateStream", json!({ "StreamName": "s", "ShardCount": shards }));
        world
    }

    #[track_caller]
    fn ask(&self, operation: &str, body: Value) {
        let answer = self.kinesis.handle(operation, body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }

    #[track_caller]
    fn put(&self, key: &str, data: &str) {
        self.ask("PutRecord", json!({ "StreamName": "s", "PartitionKey": key, "Data": STANDARD.encode(data) }));
    }

    /// Puts records with the data 0, 1, … under one key.
    fn put_count(&self, count: usize) {
        (0..count).for_each(|i| self.put("k", &i.to_string()));
    }

    fn mapping(&self, function: Arc<dyn Function>, config: Config) -> Mapping<KinesisSource> {
        let config = Config { backoff: Duration::from_nanos(1), backoff_most: Duration::from_nanos(1), ..config };
        let source = KinesisSource::new(self.kinesis.clone(), "s");
        let sink: Arc<dyn OnFailure> = self.kept.clone();
        Mapping::new(source, function, config, self.checkpoints.clone(), self.host.clone(), Some(sink)).unwrap()
    }

    /// Runs a new mapping until nothing is left.
    async fn drain(&self, function: Arc<dyn Function>, config: Config) {
        drain(&self.mapping(function, config)).await;
    }
}

/// Fails a test that would hang; far above what any of them takes.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn drain<S: Source>(mapping: &Mapping<S>) {
    let (stop, stopped) = watch::channel(false);
    let run = tokio::spawn({
        let mapping = mapping.clone();
        async move { mapping.run(stopped).await }
    });
    tokio::time::timeout(PATIENCE, mapping.drained()).await.expect("drained in time").unwrap();
    stop.send_replace(true);
    run.await.unwrap().unwrap();
}

pub(super) fn batches(size: usize) -> Config {
    Config { batch_size: size, ..Config::default() }
}

fn text(values: &[&[&str]]) -> Vec<Vec<String>> {
    values.iter().map(|list| list.iter().map(|value| (*value).to_owned()).collect()).collect()
}

#[tokio::test]
async fn records_of_a_shard_are_delivered_in_order_in_batches_of_at_most_the_batch_size() {
    let world = World::new(1);
    world.put_count(5);
    let function = Script::good();
    world.drain(function.clone(), batches(2)).await;
    assert_eq!(function.calls(), text(&[&["0", "1"], &["2", "3"], &["4"]]));
}

#[tokio::test]
async fn success_moves_on_for_good() {
    let world = World::new(1);
    world.put_count(3);
    world.drain(Script::good(), batches(10)).await;
    world.put("k", "3");
    let again = Script::good();
    world.drain(again.clone(), batches(10)).await;
    assert_eq!(again.calls(), text(&[&["3"]]), "what was done is not delivered to the next run");
}

#[tokio::test]
async fn the_lowest_failed_sequence_number_is_the_checkpoint_and_all_from_it_on_is_retried() {
    let world = World::new(1);
    world.put_count(4);
    let function = Script::new(|call, records| match call {
        0 => report(&[&records[3].sequence, &records[1].sequence]),
        _ => Ok(b"{}".to_vec()),
    });
    world.drain(function.clone(), batches(10)).await;
    assert_eq!(function.calls(), text(&[&["0", "1", "2", "3"], &["1", "2", "3"]]), "2 had succeeded and comes again");
}

#[tokio::test]
async fn an_identifier_that_cannot_be_used_fails_the_whole_batch() {
    let world = World::new(1);
    world.put_count(2);
    let function = Script::new(|call, _| match call {
        0 => report(&[""]),
        1 => Ok(br#"{"batchItemFailures":[{"itemIdentifier":null}]}"#.to_vec()),
        2 => Ok(br#"{"batchItemFailures":[{"item":"1"}]}"#.to_vec()),
        3 => report(&["12345"]),
        _ => Ok(b"null".to_vec()),
    });
    world.drain(function.clone(), batches(10)).await;
    assert_eq!(function.calls(), vec![vec!["0".to_owned(), "1".to_owned()]; 5]);
}

#[tokio::test]
async fn without_report_batch_item_failures_the_answer_is_not_read() {
    let world = World::new(1);
    world.put_count(2);
    let function = Script::new(|_, records| report(&[&records[0].sequence]));
    world.drain(function.clone(), Config { report_failures: false, ..Config::default() }).await;
    assert_eq!(function.calls().len(), 1);
}

#[tokio::test]
async fn a_function_error_or_a_crash_retries_the_whole_batch() {
    let world = World::new(1);
    world.put_count(2);
    let function = Script::new(|call, _| match call {
        0 => error(),
        1 => panic!("a crash of the function, as the test wants it"),
        _ => Ok(Vec::new()),
    });
    world.drain(function.clone(), batches(10)).await;
    assert_eq!(function.calls(), vec![vec!["0".to_owned(), "1".to_owned()]; 3]);
}

#[tokio::test]
async fn bisecting_finds_the_bad_record_and_keeps_the_order() {
    let world = World::new(1);
    world.put_count(8);
    let function = Script::new(
        |_, records| if records.iter().any(|record| record.data == "5") { error() } else { Ok(Vec::new()) },
    );
    world.drain(function.clone(), Config { bisect: true, max_retries: Some(1), ..Config::default() }).await;
    let expected = text(&[
        &["0", "1", "2", "3", "4", "5", "6", "7"],
        &["0", "1", "2", "3"],
        &["4", "5", "6", "7"],
        &["4", "5"],
        &["4"],
        &["5"],
        &["5"],
        &["6", "7"],
    ]);
    assert_eq!(function.calls(), expected, "halving took no retry from the record alone");
    assert_eq!(world.kept.given_up(), text(&[&["5"]]));
}

#[tokio::test]
async fn with_bisect_a_partial_failure_is_cut_at_the_returned_sequence_number() {
    let world = World::new(1);
    world.put_count(6);
    let function = Script::new(|_, records| match records.iter().find(|record| record.data == "4") {
        Some(bad) if records.len() > 1 && records[0].data != "4" => report(&[&bad.sequence]),
        Some(_) => error(),
        None => Ok(Vec::new()),
    });
    world.drain(function.clone(), Config { bisect: true, max_retries: Some(0), ..Config::default() }).await;
    let expected = text(&[&["0", "1", "2", "3", "4", "5"], &["4", "5"], &["4"], &["5"]]);
    assert_eq!(function.calls(), expected);
    assert_eq!(world.kept.given_up(), text(&[&["4"]]));
}

#[tokio::test]
async fn when_retries_are_exhausted_the_batch_goes_to_the_destination_and_the_shard_moves_on() {
    let world = World::new(1);
    world.put_count(3);
    let function = Script::new(|_, records| if records[0].data == "0" { error() } else { Ok(Vec::new()) });
    world.drain(function.clone(), Config { max_retries: Some(2), ..batches(2) }).await;
    assert_eq!(function.calls(), text(&[&["0", "1"], &["0", "1"], &["0", "1"], &["2"]]));
    assert_eq!(world.kept.given_up(), text(&[&["0", "1"]]));
    let body = world.kept.bodies.lock().unwrap()[0].clone();
    assert_eq!(body["requestContext"]["condition"], "RetryAttemptsExhausted");
    assert_eq!(body["requestContext"]["approximateInvokeCount"], 3);
    assert_eq!(body["KinesisBatchInfo"]["batchSize"], 2);
    assert_eq!(body["KinesisBatchInfo"]["shardId"], SHARD_0);
}

#[tokio::test]
async fn a_destination_that_refuses_is_asked_again_before_the_shard_moves_on() {
    let world = World::new(1);
    world.put_count(1);
    world.kept.refusals.store(3, Ordering::SeqCst);
    world.drain(Script::new(|_, _| error()), Config { max_retries: Some(0), ..Config::default() }).await;
    assert_eq!(world.kept.given_up(), text(&[&["0"]]));
}

#[tokio::test]
async fn throttled_calls_are_no_attempts() {
    let world = World::new(1);
    world.put_count(1);
    let function = Script::new(|call, _| if call < 5 { Err(FunctionError::Throttled) } else { Ok(Vec::new()) });
    world.drain(function.clone(), Config { max_retries: Some(0), ..Config::default() }).await;
    assert_eq!(function.calls().len(), 6);
    assert!(world.kept.given_up().is_empty());
}

#[tokio::test]
async fn records_above_the_maximum_age_are_given_up_unseen() {
    let world = World::new(1);
    world.put("k", "old");
    world.host.advance(Duration::from_secs(61));
    world.put("k", "new");
    let function = Script::good();
    world.drain(function.clone(), Config { max_record_age: Some(Duration::from_secs(60)), ..Config::default() }).await;
    assert_eq!(function.calls(), text(&[&["new"]]));
    assert_eq!(world.kept.given_up(), text(&[&["old"]]));
    assert_eq!(world.kept.bodies.lock().unwrap()[0]["requestContext"]["condition"], "RecordAgeExceeded");
}

#[tokio::test]
async fn a_bad_record_blocks_its_shard_until_the_stream_drops_it() {
    let world = World::new(1);
    world.put("k", "bad");
    let host = world.host.clone();
    let function = Script::new(move |call, records| {
        if call == 9 {
            host.advance(Duration::from_secs(24 * 3_600 + 1));
        }
        if records.iter().any(|record| record.data == "bad") { error() } else { Ok(Vec::new()) }
    });
    world.host.advance(Duration::from_secs(1));
    world.drain(function.clone(), Config::default()).await;
    assert_eq!(function.calls().len(), 10, "with the defaults nothing else ends it");
    assert_eq!(world.kept.given_up(), text(&[&["bad"]]));
    world.put("k", "good");
    world.drain(function.clone(), Config::default()).await;
    assert_eq!(function.calls()[10..], text(&[&["good"]]));
}

#[tokio::test]
async fn a_throttled_shard_is_read_again_later() {
    let mut world = World::new(1);
    world.kinesis = Kinesis::memory_limited(world.host.clone(), crate::kinesis::Limits::PerShard).unwrap();
    world.ask("CreateStream", json!({ "StreamName": "s", "ShardCount": 1 }));
    world.put_count(20);
    let host = world.host.clone();
    let function = Script::new(move |_, _| {
        host.advance(Duration::from_millis(50));
        Ok(Vec::new())
    });
    world.host.auto_advance(true);
    world.drain(function.clone(), batches(1)).await;
    assert_eq!(function.calls().concat().len(), 20);
}

#[tokio::test]
async fn an_event_holds_at_most_six_megabytes() {
    let world = World::new(1);
    let big = "x".repeat((1 << 20) - 1);
    for _ in 0..9 {
        world.put("k", &big);
    }
    let largest = Arc::new(AtomicUsize::new(0));
    struct Measure(Arc<AtomicUsize>, Arc<AtomicUsize>);
    #[async_trait]
    impl Function for Measure {
        async fn invoke(&self, payload: Bytes) -> Result<Vec<u8>, FunctionError> {
            self.0.fetch_max(payload.len(), Ordering::SeqCst);
            self.1.fetch_add(seen(&payload).len(), Ordering::SeqCst);
            Ok(Vec::new())
        }
    }
    let count = Arc::new(AtomicUsize::new(0));
    world.drain(Arc::new(Measure(largest.clone(), count.clone())), batches(100)).await;
    assert_eq!(count.load(Ordering::SeqCst), 9);
    let largest = largest.load(Ordering::SeqCst);
    assert!((5 << 20..=6 << 20).contains(&largest), "{largest}");
}

#[tokio::test]
async fn parents_are_done_before_their_children_begin() {
    let world = World::new(2);
    let keys = ["a", "b", "c", "d", "e"];
    let put = |round: usize| keys.iter().for_each(|key| world.put(key, &round.to_string()));
    put(0);
    world.ask("SplitShard", json!({ "StreamName": "s", "ShardToSplit": SHARD_0, "NewStartingHashKey": "85070591730234615865843651857942052864" }));
    put(1);
    world.ask("MergeShards", json!({ "StreamName": "s", "ShardToMerge": "shardId-000000000003", "AdjacentShardToMerge": "shardId-000000000001" }));
    put(2);
    let failed = AtomicUsize::new(0);
    let function = Script::new(move |_, _| match failed.fetch_add(1, Ordering::SeqCst) % 2 {
        0 => error(),
        _ => Ok(Vec::new()),
    });
    let mapping = world.mapping(function.clone(), batches(1));
    drain(&mapping).await;
    let mut rounds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in function.records() {
        rounds.entry(record.key).or_default().push(record.data);
    }
    for (key, mut rounds) in rounds {
        rounds.dedup();
        assert_eq!(rounds, ["0", "1", "2"], "key {key} in its order across split and merge");
    }
    assert_eq!(mapping.lag().unwrap(), Lag::default());
}

#[tokio::test]
async fn shards_go_side_by_side_with_one_batch_each_in_flight() {
    let world = World::new(2);
    for i in 0..6 {
        world.put("a", &i.to_string());
        world.put("b", &i.to_string());
    }
    struct Meeting {
        both: Barrier,
        inside: Mutex<Vec<String>>,
    }
    #[async_trait]
    impl Function for Meeting {
        async fn invoke(&self, payload: Bytes) -> Result<Vec<u8>, FunctionError> {
            let shard = seen(&payload)[0].shard.clone();
            {
                let mut inside = self.inside.lock().unwrap();
                assert!(!inside.contains(&shard), "two batches of {shard} at a time");
                inside.push(shard.clone());
            }
            // Nobody gets past this unless both shards are being called.
            self.both.wait().await;
            self.inside.lock().unwrap().retain(|other| *other != shard);
            Ok(Vec::new())
        }
    }
    world.drain(Arc::new(Meeting { both: Barrier::new(2), inside: Mutex::default() }), batches(2)).await;
}

#[tokio::test]
async fn a_kill_between_call_and_checkpoint_delivers_again() {
    let world = World::new(1);
    world.put_count(2);
    let first = Script::good();
    let mapping = world.mapping(first.clone(), batches(1));
    mapping.chaos().kill_before_checkpoint();
    let (_stop, stopped) = watch::channel(false);
    assert!(matches!(mapping.run(stopped).await, Err(Error::Killed)));
    assert_eq!(first.calls(), text(&[&["0"]]));
    let second = Script::good();
    world.drain(second.clone(), batches(1)).await;
    assert_eq!(second.calls(), text(&[&["0"], &["1"]]));
}

#[tokio::test]
async fn a_lost_answer_delivers_again() {
    let world = World::new(1);
    world.put_count(1);
    let function = Script::good();
    let mapping = world.mapping(function.clone(), batches(1));
    mapping.chaos().lose_answers(2);
    drain(&mapping).await;
    assert_eq!(function.calls(), text(&[&["0"], &["0"], &["0"]]));
}

#[tokio::test]
async fn batches_are_repeated_and_ranges_rewound_on_demand() {
    let world = World::new(1);
    world.put_count(3);
    let function = Script::good();
    let mapping = world.mapping(function.clone(), batches(3));
    mapping.chaos().repeat(1);
    drain(&mapping).await;
    assert_eq!(function.calls(), text(&[&["0", "1", "2"], &["0", "1", "2"]]));
    mapping.chaos().rewind(SHARD_0, 2);
    drain(&mapping).await;
    assert_eq!(function.calls()[2..], text(&[&["1", "2"]]));
    // Also when the shard was closed and done.
    world.ask("SplitShard", json!({ "StreamName": "s", "ShardToSplit": SHARD_0, "NewStartingHashKey": MIDDLE }));
    drain(&mapping).await;
    mapping.chaos().rewind(SHARD_0, 1);
    drain(&mapping).await;
    assert_eq!(function.calls()[3..], text(&[&["2"]]));
}

#[tokio::test]
async fn starting_at_latest_skips_what_was_there_and_nothing_of_later_shards() {
    let world = World::new(1);
    world.put("k", "before");
    let function = Script::good();
    let config = Config { starting: Starting::Latest, ..Config::default() };
    world.drain(function.clone(), config.clone()).await;
    world.put("k", "after");
    world.ask("SplitShard", json!({ "StreamName": "s", "ShardToSplit": SHARD_0, "NewStartingHashKey": MIDDLE }));
    world.put("k", "child");
    world.drain(function.clone(), config).await;
    assert_eq!(function.calls(), text(&[&["after"], &["child"]]));
}

#[tokio::test]
async fn starting_at_a_time_begins_with_the_first_record_of_it() {
    let world = World::new(1);
    world.put("k", "before");
    world.host.advance(Duration::from_secs(5));
    world.put("k", "then");
    let function = Script::good();
    let config = Config { starting: Starting::AtTimestamp(START_MS + 5_000), ..Config::default() };
    world.drain(function.clone(), config).await;
    assert_eq!(function.calls(), text(&[&["then"]]));
}

#[tokio::test]
async fn a_stream_made_again_is_read_from_its_beginning() {
    let world = World::new(1);
    world.put_count(2);
    let function = Script::good();
    world.drain(function.clone(), Config::default()).await;
    world.ask("DeleteStream", json!({ "StreamName": "s" }));
    world.ask("CreateStream", json!({ "StreamName": "s", "ShardCount": 1 }));
    world.put("k", "new");
    world.drain(function.clone(), Config::default()).await;
    assert_eq!(function.calls(), text(&[&["0", "1"], &["new"]]));
}

#[tokio::test]
async fn a_window_gathers_until_it_is_over_or_the_batch_is_full() {
    let world = World::new(1);
    let (called, mut calls) = watch::channel(0usize);
    let function = Script::new(move |_, _| {
        called.send_modify(|count| *count += 1);
        Ok(Vec::new())
    });
    let mapping = world.mapping(function.clone(), Config { window: Duration::from_secs(16), ..batches(3) });
    let (stop, stopped) = watch::channel(false);
    let run = tokio::spawn({
        let mapping = mapping.clone();
        async move { mapping.run(stopped).await }
    });
    let settle = async || {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    world.put("k", "0");
    settle().await;
    for _ in 0..15 {
        world.host.advance(Duration::from_secs(1));
        settle().await;
    }
    assert!(function.calls().is_empty(), "one second of the window is left");
    world.put("k", "1");
    world.host.advance(Duration::from_secs(1));
    calls.wait_for(|count| *count == 1).await.unwrap();
    assert_eq!(function.calls(), text(&[&["0", "1"]]));
    world.put_count(3);
    calls.wait_for(|count| *count == 2).await.unwrap();
    assert_eq!(function.calls()[1..], text(&[&["0", "1", "2"]]), "a full batch waits for nothing");
    stop.send_replace(true);
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn lag_counts_what_is_not_done() {
    let world = World::new(1);
    let mapping = world.mapping(Script::good(), Config::default());
    world.put_count(4);
    world.host.advance(Duration::from_secs(9));
    assert_eq!(mapping.lag().unwrap(), Lag { records: 4, millis: 9_000 });
    drain(&mapping).await;
    assert_eq!(mapping.lag().unwrap(), Lag::default());
}

#[tokio::test]
async fn positions_survive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("positions.db");
    let mut world = World::new(1);
    world.checkpoints = Checkpoints::open(&path).unwrap();
    world.put_count(2);
    world.drain(Script::good(), Config::default()).await;
    world.checkpoints = Checkpoints::open(&path).unwrap();
    world.put("k", "2");
    let function = Script::good();
    world.drain(function.clone(), Config::default()).await;
    assert_eq!(function.calls(), text(&[&["2"]]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// At least once, in order: whatever the function does and whatever is lost, every record succeeds in the end, and
    /// no record of a shard is delivered for the first time before an earlier one.
    #[test]
    fn every_record_is_delivered_at_least_once_and_first_in_order(
        records in 1usize..60, size in 1usize..20, bisect: bool, seed: u64, repeats in 0u32..5, lost in 0u32..5
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new(2);
            (0..records).for_each(|i| world.put(&i.to_string(), &i.to_string()));
            let random = Mutex::new(seed);
            let succeeded: Arc<Mutex<Vec<String>>> = Arc::default();
            let function = Script::new({
                let succeeded = succeeded.clone();
                move |_, batch| {
                    let mut random = random.lock().unwrap();
                    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let place = (*random >> 33) as usize % batch.len();
                    let (good, answer) = match *random >> 61 {
                        0 => (0, error()),
                        1 => (0, Err(FunctionError::Throttled)),
                        2 => (place, report(&[&batch[place].sequence])),
                        _ => (batch.len(), Ok(Vec::new())),
                    };
                    succeeded.lock().unwrap().extend(batch[..good].iter().map(|record| record.sequence.clone()));
                    answer
                }
            });
            let mapping = world.mapping(function.clone(), Config { bisect, ..batches(size) });
            mapping.chaos().repeat(repeats);
            mapping.chaos().lose_answers(lost);
            drain(&mapping).await;
            let mut first: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for record in function.records() {
                let list = first.entry(record.shard).or_default();
                if !list.contains(&record.sequence) {
                    list.push(record.sequence);
                }
            }
            let delivered: usize = first.values().map(Vec::len).sum();
            prop_assert_eq!(delivered, records);
            let succeeded = succeeded.lock().unwrap();
            for list in first.values() {
                prop_assert!(list.is_sorted(), "56 digits each, so text order is number order");
                prop_assert!(list.iter().all(|sequence| succeeded.contains(sequence)));
            }
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: prints records per second"]
#[allow(clippy::disallowed_methods)]
async fn speed_of_delivery() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(1);
    world.kinesis = Kinesis::open(&dir.path().join("k.db"), world.host.clone()).unwrap();
    world.checkpoints = Checkpoints::open(&dir.path().join("p.db")).unwrap();
    world.ask("CreateStream", json!({ "StreamName": "s", "ShardCount": 4 }));
    let records: Vec<_> =
        (0..500).map(|i| json!({ "PartitionKey": i.to_string(), "Data": STANDARD.encode([b'x'; 600]) })).collect();
    for _ in 0..200 {
        world.ask("PutRecords", json!({ "StreamName": "s", "Records": records }));
    }
    struct Nothing;
    #[async_trait]
    impl Function for Nothing {
        async fn invoke(&self, _: Bytes) -> Result<Vec<u8>, FunctionError> {
            Ok(Vec::new())
        }
    }
    let start = std::time::Instant::now();
    world.drain(Arc::new(Nothing), batches(1_000)).await;
    println!("{:.0} records/s", 100_000.0 / start.elapsed().as_secs_f64());
}
