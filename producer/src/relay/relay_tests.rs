use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::SdkConfig;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use recount_schemas::change::Form;
use recount_schemas::quarantine::Quarantined;
use recount_schemas::{Change, QuarantineCode};
use serde_json::{Value, json};

use super::outbox::Limits;
use super::*;
use crate::loopback::{Answer, NEVER, Request, StillHost, serve};

const ARN: &str = "arn:aws:dynamodb:us-east-1:000000000000:table/scans/stream/2026-11-01T00:00:00.000";

fn record(sequence: u32, item: &str, padding: usize) -> String {
    format!(
        r#"{{"eventID":"e{sequence}","eventName":"INSERT","eventSourceARN":"{ARN}","dynamodb":{{"ApproximateCreationDateTime":1.76E9,
        "Keys":{{"scan_id":{{"S":"{item}"}}}},"NewImage":{{"scan_id":{{"S":"{item}"}},"p":{{"S":"{}"}}}},"SequenceNumber":"{sequence}"}}}}"#,
        "x".repeat(padding)
    )
}

fn event(records: &[String]) -> Vec<u8> {
    format!(r#"{{"Records":[{}]}}"#, records.join(",")).into_bytes()
}

fn relay(config: &SdkConfig, host: Arc<StillHost>) -> Relay {
    let s3 = aws_sdk_s3::config::Builder::from(config).force_path_style(true).build();
    let mut settings = RelaySettings::new("changes", "archive");
    settings.sending.attempts = 3;
    Relay::new(aws_sdk_kinesis::Client::new(config), aws_sdk_s3::Client::from_conf(s3), settings, host)
}

/// The records of a PutRecords: partition key and bytes.
fn entries(request: &Request) -> Vec<(String, Vec<u8>)> {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["StreamName"], "changes");
    let entry = |entry: &Value| {
        (entry["PartitionKey"].as_str().unwrap().to_owned(), STANDARD.decode(entry["Data"].as_str().unwrap()).unwrap())
    };
    body["Records"].as_array().unwrap().iter().map(entry).collect()
}

fn event_id(data: &[u8]) -> String {
    Change::decode(data).unwrap().event_id.into_owned()
}

/// Answers a PutRecords; `refuse` sees each record's event ID and how often it came before.
fn put_records(request: &Request, seen: &Mutex<Vec<String>>, refuse: impl Fn(&str, usize) -> bool) -> Answer {
    let mut seen = seen.lock().unwrap();
    let mut failed = 0;
    let results: Vec<Value> = entries(request)
        .iter()
        .map(|(_, data)| {
            let id = event_id(data);
            let before = seen.iter().filter(|other| **other == id).count();
            seen.push(id.clone());
            if refuse(&id, before) {
                failed += 1;
                json!({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"})
            } else {
                json!({"SequenceNumber": "1", "ShardId": "shardId-000000000000"})
            }
        })
        .collect();
    (200, json!({"FailedRecordCount": failed, "Records": results}).to_string())
}

fn failures(response: &DynamoDbEventResponse) -> Vec<Option<String>> {
    response.batch_item_failures.iter().map(|failure| failure.item_identifier.clone()).collect()
}

#[tokio::test]
async fn a_refused_record_is_sent_again_before_any_later_one_of_its_item() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let tried = order.clone();
    let (config, _) = serve(move |request| put_records(request, &tried, |id, before| id == "e1" && before < 2)).await;
    let host = Arc::new(StillHost::default());
    let records = [record(1, "a", 0), record(2, "a", 0), record(3, "b", 0)];
    let response = relay(&config, host.clone()).handle(&event(&records), Deadline::NONE).await.unwrap();
    assert_eq!(failures(&response), []);
    assert_eq!(*order.lock().unwrap(), ["e1", "e3", "e1", "e1", "e2"]);
    assert_eq!(host.slept().len(), 2, "one pause after each refusal");
    assert!(host.slept()[0] < Duration::from_millis(50) && host.slept()[1] < Duration::from_millis(100));
}

#[tokio::test]
async fn records_are_forwarded_byte_for_byte_in_full_requests() {
    let (config, seen) = serve(|request| put_records(request, &Mutex::default(), |_, _| false)).await;
    let records: Vec<String> = (1..=1_001).map(|i| record(i, &format!("item-{i}"), 0)).collect();
    let response = relay(&config, Arc::default()).handle(&event(&records), Deadline::NONE).await.unwrap();
    assert_eq!(failures(&response), []);
    let requests: Vec<Vec<(String, Vec<u8>)>> = seen.lock().unwrap().iter().map(entries).collect();
    assert_eq!(requests.iter().map(Vec::len).collect::<Vec<_>>(), [500, 500, 1]);
    for ((key, data), record) in requests.iter().flatten().zip(&records) {
        assert_eq!(data, record.as_bytes());
        let change = Change::decode(data).unwrap();
        assert_eq!((change.form, change.table.as_ref()), (Form::Streams, "scans"));
        assert_eq!(*key, partition::key("scans", change.keys.unwrap()));
    }
}

#[tokio::test]
async fn a_record_given_up_is_reported_and_nothing_beyond_it_is_sent() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let tried = order.clone();
    let (config, _) = serve(move |request| put_records(request, &tried, |id, _| id == "e2")).await;
    let records = [record(1, "a", 0), record(2, "b", 0), record(3, "b", 0)];
    let response = relay(&config, Arc::default()).handle(&event(&records), Deadline::NONE).await.unwrap();
    assert_eq!(failures(&response), [Some("2".to_owned())]);
    assert_eq!(*order.lock().unwrap(), ["e1", "e2", "e2", "e2"]);
    assert_eq!(serde_json::to_string(&response).unwrap(), r#"{"batchItemFailures":[{"itemIdentifier":"2"}]}"#);
}

#[tokio::test]
async fn a_stream_that_is_down_or_answers_nonsense_delivers_nothing() {
    for body in [r#"{"__type":"ResourceNotFoundException"}"#, r#"{"Records":[]}"#, r#"{"Records":[{}]}"#, "{"] {
        let status = if body.contains("__type") { 400 } else { 200 };
        let (config, seen) = serve(move |_| (status, body.to_owned())).await;
        let response =
            relay(&config, Arc::default()).handle(&event(&[record(7, "a", 0)]), Deadline::NONE).await.unwrap();
        assert_eq!(failures(&response), [Some("7".to_owned())], "{body}");
        assert_eq!(seen.lock().unwrap().len(), 3, "{body}");
    }
}

/// A record whose bytes and partition key together are as many as the limit, and `more`.
fn sized(sequence: u32, more: usize) -> String {
    let empty = record(sequence, "big", 0).len() + partition::LEN;
    record(sequence, "big", Limits::default().record_bytes + more - empty)
}

#[tokio::test]
async fn invariant_1_the_largest_record_is_sent_and_one_more_byte_goes_to_quarantine() {
    for (status, reported, expected) in [
        (200, vec![], ["e1", "e3"].as_slice()),
        (412, vec![], &["e1", "e3"]),
        (500, vec![Some("2".to_owned())], &["e1"]),
    ] {
        let (config, seen) = serve(move |request| match request.line.starts_with("PUT") {
            true => (status, String::new()),
            false => put_records(request, &Mutex::default(), |_, _| false),
        })
        .await;
        let records = [sized(1, 0), sized(2, 1), record(3, "c", 0)];
        let host = Arc::new(StillHost::patient(PATIENCE));
        let response = relay(&config, host).handle(&event(&records), Deadline::NONE).await.unwrap();
        assert_eq!(failures(&response), reported, "quarantine answered {status}");

        let seen = seen.lock().unwrap();
        let sent: Vec<String> = seen[1..].iter().flat_map(entries).map(|(_, data)| event_id(&data)).collect();
        assert_eq!(sent, expected, "the batch goes on, unless all from the second record will come again");
        let put = &seen[0];
        assert!(put.line.starts_with("PUT /archive/quarantine/relay-") && put.line.contains("/2?"), "{}", put.line);
        assert!(put.head.contains("if-none-match: *"));
        let kept: Quarantined = serde_json::from_slice(&put.body).unwrap();
        assert_eq!((kept.reason.code, kept.sequence_number.as_str()), (QuarantineCode::TooLarge, "2"));
        assert_eq!(STANDARD.decode(kept.data).unwrap(), records[1].as_bytes());
    }
}

/// A store that keeps its promise of `If-None-Match: *`.
fn put_if_absent(request: &Request, objects: &Mutex<HashMap<String, Vec<u8>>>) -> Answer {
    assert!(request.line.starts_with("PUT /archive/quarantine/") && request.head.contains("if-none-match: *"));
    let name = request.line.split(['?', ' ']).nth(1).unwrap().to_owned();
    let mut objects = objects.lock().unwrap();
    if objects.contains_key(&name) {
        return (412, String::new());
    }
    objects.insert(name, request.body.clone());
    (200, String::new())
}

#[tokio::test]
async fn invariant_1_records_of_two_shards_with_one_number_are_both_kept_and_each_once() {
    let objects = Arc::new(Mutex::new(HashMap::new()));
    let store = objects.clone();
    let (config, _) = serve(move |request| put_if_absent(request, &store)).await;
    let records = [record(7, "a", 1 << 20), record(7, "b", 1 << 20)];
    for record in records.iter().chain(&records) {
        let event = event(std::slice::from_ref(record));
        let response = relay(&config, Arc::default()).handle(&event, Deadline::NONE).await.unwrap();
        assert_eq!(failures(&response), []);
    }
    let objects = objects.lock().unwrap();
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for (name, body) in &*objects {
        let object: Quarantined = serde_json::from_slice(body).unwrap();
        let position = recount_schemas::quarantine::position_of(name.trim_start_matches("/archive/")).unwrap();
        assert_eq!(position, (object.shard_id, object.sequence_number), "the name gives the position back");
        kept.push(STANDARD.decode(object.data).unwrap());
    }
    kept.sort();
    assert_eq!(kept, records.map(String::into_bytes));
}

#[tokio::test]
#[allow(clippy::disallowed_methods)] // the guard against a test that never ends
async fn invariant_10_an_s3_that_hangs_holds_up_no_good_record() {
    let (good, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let (config, _) = serve(move |request| {
        if request.line.starts_with("PUT") {
            return (NEVER, String::new());
        }
        for (_, data) in entries(request) {
            good.send(event_id(&data)).unwrap();
        }
        put_records(request, &Mutex::default(), |_, _| false)
    })
    .await;
    let relay = relay(&config, Arc::default());
    let records = [record(1, "a", 0), record(2, "b", 1 << 20), record(3, "c", 0)];
    let event = event(&records);
    let good = async { [arrived.recv().await.unwrap(), arrived.recv().await.unwrap()] };
    let race = async {
        tokio::select! {
            biased;
            good = good => good,
            response = relay.handle(&event, Deadline::NONE) => panic!("S3 did not answer: {response:?}"),
        }
    };
    let good = tokio::time::timeout(Duration::from_secs(30), race).await.expect("the good records were not sent");
    assert_eq!(good, ["e1", "e3"]);
}

#[tokio::test]
async fn past_the_deadline_nothing_is_begun_and_all_is_reported() {
    let (config, seen) = serve(|_| (500, String::new())).await;
    let host = Arc::new(StillHost::default());
    let deadline = Deadline::after(&*host, Duration::ZERO);
    let records = [record(20, "a", 0), record(9, "b", 0)];
    let response = relay(&config, host).handle(&event(&records), deadline).await.unwrap();
    assert_eq!(failures(&response), [Some("9".to_owned())], "the lowest number, not the first");
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_empty_event_is_done() {
    let (config, _) = serve(|_| (500, String::new())).await;
    let relay = relay(&config, Arc::default());
    // On another thread, as an event source mapping may run it.
    let response = tokio::spawn(async move { relay.handle(br#"{"Records":[]}"#, Deadline::NONE).await });
    let response = response.await.unwrap().unwrap();
    assert_eq!(failures(&response), []);
}

#[cfg(feature = "bugs")]
#[test]
fn the_tests_of_the_relay_show_the_deliberate_bugs() {
    use recount_schemas::bugs::{Bug, within};
    let shows = |bug, test: fn()| assert!(std::panic::catch_unwind(|| within(bug, test)).is_err(), "{bug}");
    shows(Bug::RefusedPutIsDelivered, a_refused_record_is_sent_again_before_any_later_one_of_its_item);
    shows(Bug::RelayReportsHighestUnsettled, past_the_deadline_nothing_is_begun_and_all_is_reported);
    shows(Bug::RelayDropsTooLarge, invariant_1_the_largest_record_is_sent_and_one_more_byte_goes_to_quarantine);
    shows(Bug::SequenceNumbersAsText, past_the_deadline_nothing_is_begun_and_all_is_reported);
}
