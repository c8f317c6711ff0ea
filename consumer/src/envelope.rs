//! The event that Lambda hands over for a Kinesis stream: borrowed, and read record by record.
//!
//! The published event types decode the whole event at once, so that one record with bad base64 fails all of them before the handler runs.
//! Here each record stays a slice of the event until it is looked at, and only what is needed is read; members that we do not
//! know (`encryptionType`, `awsRegion`, what may come) are passed over.
//!
//! | defect | what follows |
//! | --- | --- |
//! | the event is not JSON with `Records`, or is larger than Lambda's events are ([`MAX_EVENT`], [`MAX_RECORDS`]) | the invocation fails |
//! | a record without a sequence number, shard, stream or arrival time: it cannot be named, or not be judged as every other reader judges it | the invocation fails |
//! | a record without data, or whose data is not base64 | quarantine |
//!
//! The members of a record: `kinesis.sequenceNumber`, `kinesis.partitionKey`, `kinesis.data` (base64),
//! `kinesis.approximateArrivalTimestamp` (seconds with fraction), `eventID` (`shard:sequence`), `eventSourceARN` (Lambda Developer Guide, "Using Lambda with Kinesis").

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use recount_schemas::{QuarantineCode, QuarantineReason, SequenceNumber, ShardId};

use crate::millis;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The largest event, in bytes. Lambda's own limit for a batch is 6 MB (Lambda Developer Guide, "Lambda quotas").
pub const MAX_EVENT: usize = 16 << 20;
/// The most records of an event: the largest batch that an event source mapping can be set to (the same, "Using Lambda with Kinesis").
pub const MAX_RECORDS: usize = 10_000;
/// The longest name of a stream (Kinesis API reference, CreateStream).
const MAX_STREAM: usize = 128;

/// The event, its records not yet read.
#[derive(Debug, Deserialize)]
pub struct Event<'a> {
    /// The records, in the order of the shard.
    #[serde(rename = "Records", borrow)]
    pub records: Vec<&'a RawValue>,
}

/// Why the whole invocation fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It is not a Kinesis event.
    #[error("the event is not a Kinesis event: {0}")]
    NotAnEvent(String),
    /// A record cannot be named or judged.
    #[error(
        "record {index} of the event has no usable {member}; it can neither be named in the answer nor passed over"
    )]
    Record {
        /// Its place in the event, from 0.
        index: usize,
        /// What is missing or malformed.
        member: &'static str,
    },
}

/// One record: where it stands, and its data, not yet decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<'a> {
    /// The stream's name.
    pub stream: Cow<'a, str>,
    /// The shard that it was read from.
    pub shard: ShardId,
    /// Its sequence number.
    pub sequence: SequenceNumber,
    /// Its partition key; empty where the stream distributes records by itself.
    pub partition_key: Cow<'a, str>,
    /// When it arrived in the stream, µs since 1970, in whole ms.
    pub arrived_us: i64,
    /// The text that should be base64; absent if there is no text.
    pub data: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(borrow)]
    kinesis: Option<&'a RawValue>,
    #[serde(rename = "eventID", borrow)]
    event_id: Option<&'a RawValue>,
    #[serde(rename = "eventSourceARN", borrow)]
    arn: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Inner<'a> {
    #[serde(borrow)]
    sequence_number: Option<&'a RawValue>,
    #[serde(borrow)]
    partition_key: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    approximate_arrival_timestamp: Option<&'a RawValue>,
}

impl<'a> Event<'a> {
    /// Splits the event into its records.
    pub fn parse(event: &'a [u8]) -> Result<Self, EnvelopeError> {
        if event.len() > MAX_EVENT {
            return Err(EnvelopeError::NotAnEvent(format!("it has {} bytes, at most {MAX_EVENT}", event.len())));
        }
        let event: Self =
            serde_json::from_slice(event).map_err(|error| EnvelopeError::NotAnEvent(error.to_string()))?;
        match event.records.len() {
            0..=MAX_RECORDS => Ok(event),
            more => Err(EnvelopeError::NotAnEvent(format!("it has {more} records, at most {MAX_RECORDS}"))),
        }
    }
}

impl<'a> Envelope<'a> {
    /// Reads the envelope of record `index`.
    pub fn parse(record: &'a RawValue, index: usize) -> Result<Self, EnvelopeError> {
        let no = |member| EnvelopeError::Record { index, member };
        let outer: Outer<'a> = serde_json::from_str(record.get()).map_err(|_| no("members"))?;
        let inner = outer.kinesis.ok_or_else(|| no("kinesis"))?;
        let inner: Inner<'a> = serde_json::from_str(inner.get()).map_err(|_| no("kinesis"))?;

        let sequence = text(inner.sequence_number).and_then(|text| text.parse().ok());
        let shard = text(outer.event_id).and_then(|id| id.rsplit_once(':')?.0.parse().ok());
        Ok(Self {
            sequence: sequence.ok_or_else(|| no("kinesis.sequenceNumber"))?,
            shard: shard.ok_or_else(|| no("eventID"))?,
            stream: text(outer.arn).and_then(stream_name).ok_or_else(|| no("eventSourceARN"))?,
            arrived_us: inner
                .approximate_arrival_timestamp
                .and_then(|seconds| millis::of_seconds(seconds.get())?.checked_mul(1_000))
                .ok_or_else(|| no("kinesis.approximateArrivalTimestamp"))?,
            partition_key: text(inner.partition_key).unwrap_or_default(),
            data: text(inner.data),
        })
    }

    /// The record's own bytes, or why there are none.
    pub fn decode(&self) -> Result<Vec<u8>, QuarantineReason> {
        let refuse = |detail: &str| QuarantineReason::new(QuarantineCode::BadBase64, detail);
        let data = self.data.as_deref().ok_or_else(|| refuse("the record has no data"))?;
        STANDARD.decode(data).map_err(|error| refuse(&format!("the record's data: {error}")))
    }
}

/// A JSON string, borrowed where it has no escapes.
fn text<'a>(value: Option<&'a RawValue>) -> Option<Cow<'a, str>> {
    let json = value?.get();
    let plain = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match plain {
        Some(text) if !text.contains('\\') => Some(Cow::Borrowed(text)),
        _ => serde_json::from_str::<String>(json).ok().map(Cow::Owned),
    }
}

/// The name in `arn:aws:kinesis:region:account:stream/NAME`, also where `/consumer/…` follows (enhanced fan-out).
fn stream_name(arn: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let cut = |arn: &str| {
        let at = arn.find(":stream/")? + ":stream/".len();
        let name = arn.get(at..)?;
        let end = name.find('/').map_or(arn.len(), |slash| at + slash);
        (1..=MAX_STREAM).contains(&(end - at)).then_some(at..end)
    };
    let range = cut(&arn)?;
    match arn {
        Cow::Borrowed(arn) => arn.get(range).map(Cow::Borrowed),
        Cow::Owned(arn) => arn.get(range).map(|name| Cow::Owned(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/changes";

    fn record(kinesis: &str) -> String {
        format!(
            r#"{{"kinesis":{kinesis},"eventSource":"aws:kinesis","eventVersion":"1.0","eventID":"shardId-000000000006:4959",
            "eventName":"aws:kinesis:record","invokeIdentityArn":"x","awsRegion":"us-east-1","eventSourceARN":"{ARN}","novel":[{{}}]}}"#
        )
    }

    fn parse(record: &str) -> Result<Envelope<'_>, EnvelopeError> {
        Envelope::parse(serde_json::from_str(record).unwrap(), 3)
    }

    const GOOD: &str = r#"{"kinesisSchemaVersion":"1.0","partitionKey":"p","sequenceNumber":"4959","data":"aGVsbG8=",
        "approximateArrivalTimestamp":1545084650.987,"encryptionType":"NEW-KIND"}"#;

    #[test]
    fn a_record_as_lambda_gives_it() {
        let text = record(GOOD);
        let it = parse(&text).unwrap();
        assert_eq!(
            (it.stream.as_ref(), it.shard.as_str(), it.sequence.as_str()),
            ("changes", "shardId-000000000006", "4959")
        );
        assert_eq!((it.partition_key.as_ref(), it.arrived_us), ("p", 1_545_084_650_987_000));
        assert_eq!(it.decode().unwrap(), b"hello");
        assert!(matches!(it.data, Some(Cow::Borrowed(_))), "no copy");
    }

    #[test]
    fn records_are_read_one_by_one() {
        let event = format!(r#"{{"Records":[{},7,{}]}}"#, record(GOOD), record(GOOD));
        let event = Event::parse(event.as_bytes()).unwrap();
        assert_eq!(event.records.len(), 3);
        assert!(Envelope::parse(event.records[1], 1).is_err());
        assert!(Envelope::parse(event.records[2], 2).is_ok());
        assert!(matches!(Event::parse(b"{}"), Err(EnvelopeError::NotAnEvent(_))));
        assert!(matches!(Event::parse(b"\xff"), Err(EnvelopeError::NotAnEvent(_))));
    }

    #[test]
    fn an_event_has_its_limits() {
        let event = |records: usize| format!(r#"{{"Records":[{}]}}"#, vec!["0"; records].join(","));
        assert_eq!(Event::parse(event(MAX_RECORDS).as_bytes()).unwrap().records.len(), MAX_RECORDS);
        assert!(matches!(Event::parse(event(MAX_RECORDS + 1).as_bytes()), Err(EnvelopeError::NotAnEvent(_))));
        let padded = format!("{}{}", event(1), " ".repeat(MAX_EVENT));
        assert!(matches!(Event::parse(padded.as_bytes()), Err(EnvelopeError::NotAnEvent(_))));
    }

    #[test]
    fn data_that_is_not_base64_is_a_verdict_not_a_failure() {
        for data in [r#""%%%""#, r#""aGVsbG8""#, "null", "7", r#""é""#, "{}"] {
            let text = record(&GOOD.replace(r#""aGVsbG8=""#, data));
            let it = parse(&text).unwrap();
            assert_eq!(it.decode().unwrap_err().code, QuarantineCode::BadBase64, "{data}");
        }
        let escaped = record(&GOOD.replace("aGVsbG8=", r"aGVsbG8\u003d"));
        assert_eq!(parse(&escaped).unwrap().decode().unwrap(), b"hello");
    }

    #[test]
    fn a_record_that_cannot_be_named_fails_the_invocation() {
        for (from, to, member) in [
            (r#""4959""#, r#""""#, "kinesis.sequenceNumber"),
            (r#""4959""#, "4959", "kinesis.sequenceNumber"),
            ("sequenceNumber", "sequence", "kinesis.sequenceNumber"),
            ("1545084650.987", r#""today""#, "kinesis.approximateArrivalTimestamp"),
        ] {
            let text = record(&GOOD.replace(from, to));
            assert_eq!(parse(&text), Err(EnvelopeError::Record { index: 3, member }));
        }
        let text = record(GOOD).replace("shardId-000000000006:", "");
        assert_eq!(parse(&text), Err(EnvelopeError::Record { index: 3, member: "eventID" }));
        let text = record(GOOD).replace(":stream/", ":table/");
        assert_eq!(parse(&text), Err(EnvelopeError::Record { index: 3, member: "eventSourceARN" }));
        assert_eq!(parse("{}"), Err(EnvelopeError::Record { index: 3, member: "kinesis" }));
    }

    #[test]
    fn names_of_streams() {
        for (arn, name) in [
            (ARN, Some("changes")),
            ("arn:aws:kinesis:eu-west-1:1:stream/changes/consumer/fast:1570000000", Some("changes")),
            ("arn:aws:kinesis:eu-west-1:1:stream/", None),
            (&format!("arn:aws:kinesis:eu-west-1:1:stream/{}", "s".repeat(129)), None),
            ("changes", None),
        ] {
            assert_eq!(stream_name(Cow::Borrowed(arn)).as_deref(), name, "{arn}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>, text in "\\PC{0,80}") {
            let _ = Event::parse(&bytes);
            let hostile = format!(r#"{{"Records":[{}]}}"#, record(&serde_json::to_string(&text).unwrap()));
            if let Ok(event) = Event::parse(hostile.as_bytes()) {
                let _ = Envelope::parse(event.records[0], 0);
            }
            let _ = millis::of_seconds(&text);
            let _ = stream_name(Cow::Borrowed(&text));
        }
    }
}
