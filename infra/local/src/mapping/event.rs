//! The JSON that goes out: Lambda events, and the records of batches that were given up.
//!
//! Shapes: LDG with-kinesis (event), LDG kinesis-on-failure-destination (invocation record of an S3 destination, which
//! carries the whole event as text in `payload`).

use jiff::Timestamp;
use recount_schemas::host::Host;
use serde::Serialize;
use serde_json::{Value, json};

use super::batch::Condition;
use super::source::Item;
use crate::kinesis::{ACCOUNT, REGION};

/// Most bytes of one event: 6 MB with base64 and all that surrounds it (KDG large-records).
pub(super) const MAX_PAYLOAD: usize = 6 << 20;

const HEAD: &[u8] = b"{\"Records\":[";
const TAIL: &[u8] = b"]}";

/// How many records from the front fit into one event; 0 if not even the first does.
pub(super) fn fitting(items: &[Item]) -> usize {
    let mut bytes = HEAD.len() + TAIL.len();
    items
        .iter()
        .take_while(|item| {
            bytes += item.json.len() + 1;
            bytes <= MAX_PAYLOAD
        })
        .count()
}

/// The event of these records.
pub(super) fn payload(items: &[Item]) -> Vec<u8> {
    let size: usize = items.iter().map(|item| item.json.len() + 1).sum();
    let mut event = Vec::with_capacity(size + HEAD.len() + TAIL.len());
    event.extend_from_slice(HEAD);
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            event.push(b',');
        }
        event.extend_from_slice(&item.json);
    }
    event.extend_from_slice(TAIL);
    event
}

/// What a Kinesis record's element of the event is made of.
pub(super) struct KinesisRecord<'a> {
    pub shard_id: &'a str,
    pub stream_arn: &'a str,
    pub partition_key: &'a str,
    pub sequence_number: &'a str,
    /// Base64.
    pub data: &'a str,
    pub arrival_ms: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inner<'a> {
    kinesis_schema_version: &'a str,
    partition_key: &'a str,
    sequence_number: &'a str,
    data: &'a str,
    approximate_arrival_timestamp: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outer<'a> {
    kinesis: Inner<'a>,
    event_source: &'a str,
    event_version: &'a str,
    #[serde(rename = "eventID")]
    event_id: String,
    event_name: &'a str,
    invoke_identity_arn: String,
    aws_region: &'a str,
    #[serde(rename = "eventSourceARN")]
    event_source_arn: &'a str,
}

/// One element of `Records`. There is no `encryptionType` in normal events (LDG with-kinesis, the sample event).
pub(super) fn kinesis_record(record: &KinesisRecord<'_>) -> Vec<u8> {
    let outer = Outer {
        kinesis: Inner {
            kinesis_schema_version: "1.0",
            partition_key: record.partition_key,
            sequence_number: record.sequence_number,
            data: record.data,
            approximate_arrival_timestamp: record.arrival_ms as f64 / 1_000.0,
        },
        event_source: "aws:kinesis",
        event_version: "1.0",
        event_id: format!("{}:{}", record.shard_id, record.sequence_number),
        event_name: "aws:kinesis:record",
        invoke_identity_arn: format!("arn:aws:iam::{ACCOUNT}:role/recount-local"),
        aws_region: REGION,
        event_source_arn: record.stream_arn,
    };
    // Text and a finite number cannot fail to be JSON.
    serde_json::to_vec(&outer).unwrap_or_default()
}

/// A batch that is given up.
pub(super) struct GivenUp<'a> {
    pub mapping: &'a str,
    pub batch_info: &'a str,
    pub stream_arn: &'a str,
    pub shard_id: &'a str,
    pub items: &'a [Item],
    pub condition: Condition,
    /// Calls made on this batch.
    pub invocations: u32,
}

/// The key and the body under which an S3 destination keeps a batch that was given up.
pub(super) fn invocation_record(given_up: &GivenUp<'_>, host: &dyn Host) -> (String, Vec<u8>) {
    let time = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or_default();
    let now = time(host.now_ms());
    let id = format!("{:016x}{:016x}", host.random_u64(), host.random_u64());
    let (first, last) = (given_up.items.first(), given_up.items.last());
    let sequence = |item: Option<&Item>| item.map(|item| item.sequence_number.clone());
    let arrival =
        |item: Option<&Item>| item.map(|item| time(item.arrival_ms).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string());
    let mut body = json!({
        "requestContext": {
            "requestId": id,
            "functionArn": format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{}", given_up.mapping),
            "condition": given_up.condition.as_str(),
            "approximateInvokeCount": given_up.invocations,
        },
        "responseContext": { "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled" },
        "version": "1.0",
        "timestamp": now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        "payload": String::from_utf8_lossy(&payload(given_up.items)),
    });
    let info: Value = json!({
        "shardId": given_up.shard_id,
        "startSequenceNumber": sequence(first),
        "endSequenceNumber": sequence(last),
        "approximateArrivalOfFirstRecord": arrival(first),
        "approximateArrivalOfLastRecord": arrival(last),
        "batchSize": given_up.items.len(),
        "streamArn": given_up.stream_arn,
    });
    if let Some(map) = body.as_object_mut() {
        map.insert(given_up.batch_info.to_owned(), info);
    }
    let key = format!(
        "aws/lambda/{}/{}/{}-{id}",
        given_up.mapping,
        given_up.shard_id,
        now.strftime("%Y/%m/%d/%Y-%m-%dT%H.%M.%S")
    );
    (key, body.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manual::ManualHost;

    fn item(json: &[u8]) -> Item {
        Item { position: 1, sequence_number: "1".into(), arrival_ms: 1_000, json: json.to_vec() }
    }

    #[test]
    fn a_record_looks_as_lambda_sends_it() {
        let record = kinesis_record(&KinesisRecord {
            shard_id: "shardId-000000000006",
            stream_arn: "arn:aws:kinesis:us-east-1:000000000000:stream/s",
            partition_key: "a \"quoted\" 😀",
            sequence_number: "49590338271490256608559692538361571095921575989136588898",
            data: "SGVsbG8=",
            arrival_ms: 1_545_084_650_987,
        });
        insta::assert_snapshot!(String::from_utf8(record).unwrap(), @r#"{"kinesis":{"kinesisSchemaVersion":"1.0","partitionKey":"a \"quoted\" 😀","sequenceNumber":"49590338271490256608559692538361571095921575989136588898","data":"SGVsbG8=","approximateArrivalTimestamp":1545084650.987},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":"shardId-000000000006:49590338271490256608559692538361571095921575989136588898","eventName":"aws:kinesis:record","invokeIdentityArn":"arn:aws:iam::000000000000:role/recount-local","awsRegion":"us-east-1","eventSourceARN":"arn:aws:kinesis:us-east-1:000000000000:stream/s"}"#);
    }

    #[test]
    fn an_event_is_at_most_six_megabytes() {
        let items = vec![item(&vec![b'x'; 1 << 20]); 8];
        let fits = fitting(&items);
        assert_eq!(fits, 5);
        assert!(payload(&items[..fits]).len() <= MAX_PAYLOAD);
        assert_eq!(fitting(&[item(&vec![b'x'; MAX_PAYLOAD])]), 0);
        let exact = [item(&vec![b'x'; MAX_PAYLOAD - HEAD.len() - TAIL.len() - 1])];
        assert_eq!(fitting(&exact), 1);
    }

    #[test]
    fn an_invocation_record_names_the_batch_and_carries_the_event() {
        let host = ManualHost::new(1_573_691_886_021, 1);
        let given_up = GivenUp {
            mapping: "recount",
            batch_info: "KinesisBatchInfo",
            stream_arn: "arn:s",
            shard_id: "shardId-000000000001",
            items: &[item(b"{\"a\":1}")],
            condition: Condition::RetryAttemptsExhausted,
            invocations: 3,
        };
        let (key, body) = invocation_record(&given_up, host.as_ref());
        assert!(key.starts_with("aws/lambda/recount/shardId-000000000001/2019/11/14/2019-11-14T00.38.06-"), "{key}");
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["requestContext"]["condition"], "RetryAttemptsExhausted");
        assert_eq!(body["requestContext"]["approximateInvokeCount"], 3);
        assert_eq!(body["timestamp"], "2019-11-14T00:38:06.021Z");
        assert_eq!(body["payload"], "{\"Records\":[{\"a\":1}]}");
        assert_eq!(
            body["KinesisBatchInfo"],
            json!({
                "shardId": "shardId-000000000001", "startSequenceNumber": "1", "endSequenceNumber": "1",
                "approximateArrivalOfFirstRecord": "1970-01-01T00:00:01.000Z",
                "approximateArrivalOfLastRecord": "1970-01-01T00:00:01.000Z", "batchSize": 1, "streamArn": "arn:s",
            })
        );
    }
}
