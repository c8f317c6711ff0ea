//! The mapping on DynamoDB Streams of the embedded engine.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dynoxide::Database;
use dynoxide::storage_backend::ManualClock;
use serde_json::{Value, json};

use super::streams::DynamoSource;
use super::tests::{START_MS, batches, drain, report};
use super::*;
use crate::manual::ManualHost;

struct Table {
    db: Database,
    host: Arc<ManualHost>,
    checkpoints: Checkpoints,
}

impl Table {
    fn new() -> Self {
        let db = Database::memory_with_clock(Arc::new(ManualClock::new(1_760_000_000))).unwrap();
        let table =
            Self { db, host: ManualHost::new(START_MS + 3_000, 1), checkpoints: Checkpoints::memory().unwrap() };
        let create = json!({
            "TableName": "scans",
            "AttributeDefinitions": [{ "AttributeName": "id", "AttributeType": "S" }],
            "KeySchema": [{ "AttributeName": "id", "KeyType": "HASH" }],
            "BillingMode": "PAY_PER_REQUEST",
            "StreamSpecification": { "StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES" },
        });
        table.db.create_table(serde_json::from_value(create).unwrap()).unwrap();
        table
    }

    fn put(&self, id: &str, bytes: u64) {
        let put = json!({ "TableName": "scans", "Item": { "id": { "S": id }, "bytes": { "N": bytes.to_string() } } });
        self.db.put_item(serde_json::from_value(put).unwrap()).unwrap();
    }

    fn delete(&self, id: &str) {
        let delete = json!({ "TableName": "scans", "Key": { "id": { "S": id } } });
        self.db.delete_item(serde_json::from_value(delete).unwrap()).unwrap();
    }

    fn mapping(&self, function: Arc<dyn Function>, config: Config) -> Mapping<DynamoSource> {
        let source = DynamoSource::new(self.db.clone(), "scans", self.host.clone());
        Mapping::new(source, function, config, self.checkpoints.clone(), self.host.clone(), None).unwrap()
    }
}

/// Keeps the raw events.
#[derive(Default)]
struct Events(Mutex<Vec<Value>>);

#[async_trait]
impl Function for Events {
    async fn invoke(&self, payload: Bytes) -> Result<Vec<u8>, FunctionError> {
        let event: Value = serde_json::from_slice(&payload).unwrap();
        self.0.lock().unwrap().extend(event["Records"].as_array().unwrap().clone());
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn changes_come_in_the_shape_of_a_dynamodb_streams_event() {
    let table = Table::new();
    table.put("a", 1);
    table.put("a", 2);
    table.delete("a");
    let events = Arc::new(Events::default());
    drain(&table.mapping(events.clone(), Config::default())).await;
    let events = events.0.lock().unwrap();
    let names: Vec<_> = events.iter().map(|event| event["eventName"].as_str().unwrap()).collect();
    assert_eq!(names, ["INSERT", "MODIFY", "REMOVE"]);
    let modify = &events[1];
    assert_eq!(modify["eventVersion"], "1.1");
    assert_eq!(modify["eventSource"], "aws:dynamodb");
    assert_eq!(modify["awsRegion"], "us-east-1");
    let arn = modify["eventSourceARN"].as_str().unwrap();
    assert!(arn.starts_with("arn:aws:dynamodb:us-east-1:000000000000:table/scans/stream/"), "{arn}");
    let change = &modify["dynamodb"];
    assert_eq!(change["Keys"], json!({ "id": { "S": "a" } }));
    assert_eq!(change["OldImage"]["bytes"], json!({ "N": "1" }));
    assert_eq!(change["NewImage"]["bytes"], json!({ "N": "2" }));
    assert_eq!(change["StreamViewType"], "NEW_AND_OLD_IMAGES");
    assert_eq!(change["ApproximateCreationDateTime"], json!(1_760_000_000.0));
    assert_eq!(change["SequenceNumber"].as_str().unwrap().len(), 21);
    assert!(change["SizeBytes"].is_u64());
    assert!(events[0]["dynamodb"].get("OldImage").is_none() && events[2]["dynamodb"].get("NewImage").is_none());
}

#[tokio::test]
async fn a_put_that_changes_nothing_is_not_delivered() {
    let table = Table::new();
    table.put("a", 1);
    (0..250).for_each(|_| table.put("a", 1));
    table.put("b", 1);
    let events = Arc::new(Events::default());
    let mapping = table.mapping(events.clone(), Config::default());
    drain(&mapping).await;
    let keys: Vec<_> =
        events.0.lock().unwrap().iter().map(|event| event["dynamodb"]["Keys"]["id"]["S"].clone()).collect();
    assert_eq!(keys, ["a", "b"]);
}

#[tokio::test]
async fn each_change_is_delivered_once_per_position_and_retried_from_the_failed_one() {
    let table = Table::new();
    (0..150).for_each(|i| table.put(&i.to_string(), 1));
    struct FailOnce(Mutex<Vec<String>>, Mutex<bool>);
    #[async_trait]
    impl Function for FailOnce {
        async fn invoke(&self, payload: Bytes) -> Result<Vec<u8>, FunctionError> {
            let event: Value = serde_json::from_slice(&payload).unwrap();
            let numbers: Vec<String> = event["Records"]
                .as_array()
                .unwrap()
                .iter()
                .map(|record| record["dynamodb"]["SequenceNumber"].as_str().unwrap().to_owned())
                .collect();
            self.0.lock().unwrap().extend(numbers.clone());
            match std::mem::replace(&mut *self.1.lock().unwrap(), true) {
                false => report(&[&numbers[100]]),
                true => Ok(Vec::new()),
            }
        }
    }
    let function = Arc::new(FailOnce(Mutex::default(), Mutex::new(false)));
    let config = Config { backoff: Duration::from_nanos(1), ..batches(1_000) };
    let mapping = table.mapping(function.clone(), config.clone());
    assert_eq!(mapping.lag().unwrap(), Lag { records: 150, millis: 3_000 });
    drain(&mapping).await;
    let first = function.0.lock().unwrap().clone();
    assert_eq!(first.len(), 200);
    assert_eq!(first[100..150], first[150..]);
    table.put("late", 1);
    drain(&table.mapping(function.clone(), config)).await;
    assert_eq!(function.0.lock().unwrap().len(), 201, "a new run goes on where the last one stopped");
}
