//! The function's event, as far as the relay must understand it: a list of records, and each record's name.
//!
//! `aws_lambda_events` is not used for decoding: it rebuilds each record from typed members (dropping unknown ones), reads
//! creation times as float seconds, and one record that does not fit its types fails the whole event.

use recount_schemas::SequenceNumber;
use recount_schemas::bugs::{self, Bug};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::partition;
use crate::stream::Outgoing;

/// The largest event, in bytes. Lambda's own limit for a batch is 6 MB (Lambda Developer Guide, "Lambda quotas").
pub const MAX_EVENT: usize = 16 << 20;
/// The most records of an event: the largest batch that an event source mapping can be set to (the same, "Using Lambda
/// with DynamoDB").
pub const MAX_RECORDS: usize = 10_000;

/// Why an invocation fails as a whole. The mapping then retries all of its records.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The event is not an object with a list of `Records`.
    #[error("the event is not that of a DynamoDB stream: expected an object with a list of Records")]
    NotAnEvent(#[source] serde_json::Error),
    /// The event is larger than any that Lambda makes.
    #[error(
        "the event has {bytes} bytes and {records} records, more than the {MAX_EVENT} or {MAX_RECORDS} of any event of Lambda"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// Its records, as far as they were counted.
        records: usize,
    },
    /// A record that could not be named as failed: no partial response can speak of it.
    #[error("record {index} of {count} has no usable dynamodb.SequenceNumber, so its failure could not be reported")]
    Unnamed {
        /// Its place in the event, from 0.
        index: usize,
        /// The number of records.
        count: usize,
        /// What is wrong with it.
        #[source]
        source: UnnamedCause,
    },
}

/// What is wrong with a record that cannot be named.
#[derive(Debug, thiserror::Error)]
pub enum UnnamedCause {
    /// It is not an object with a `dynamodb` object in it.
    #[error("it is not a stream record")]
    NotARecord(#[source] serde_json::Error),
    /// The number is missing or is no number.
    #[error(transparent)]
    NotANumber(#[from] recount_schemas::position::NotASequenceNumber),
}

/// The event: its records are not parsed yet.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    #[serde(borrow, rename = "Records")]
    records: Vec<&'a RawValue>,
}

/// One record: its text as it came, and what the relay needs of it.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// The record's JSON, byte for byte.
    pub text: &'a str,
    /// `dynamodb.SequenceNumber` as it came: the name by which a partial response speaks of the record.
    pub name: String,
    /// The same as a number.
    pub sequence: SequenceNumber,
    /// The table's stream, where the record says so.
    pub source_arn: String,
    /// Its partition key in the Kinesis stream.
    pub partition_key: String,
}

#[derive(Deserialize)]
struct Naming<'a> {
    #[serde(rename = "eventSourceARN", default)]
    source_arn: Option<String>,
    #[serde(borrow)]
    dynamodb: Body<'a>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(rename = "SequenceNumber", default)]
    sequence: Option<String>,
    #[serde(borrow, rename = "Keys", default)]
    keys: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    /// Finds the records of an event.
    pub fn decode(event: &'a [u8]) -> Result<Self, RelayError> {
        let too_large = |records| RelayError::TooLarge { bytes: event.len(), records };
        if event.len() > MAX_EVENT {
            return Err(too_large(0));
        }
        let envelope: Self = serde_json::from_slice(event).map_err(RelayError::NotAnEvent)?;
        match envelope.records.len() {
            0..=MAX_RECORDS => Ok(envelope),
            more => Err(too_large(more)),
        }
    }

    /// Names the records, in their order.
    pub fn records(&self) -> Result<Vec<Record<'a>>, RelayError> {
        let count = self.records.len();
        let named = |(index, raw): (usize, &&'a RawValue)| {
            Record::read(raw.get()).map_err(|source| RelayError::Unnamed { index, count, source })
        };
        let kept = |named: &Result<_, _>| named.is_ok() || !bugs::on(Bug::RelayDropsUnreadable);
        self.records.iter().enumerate().map(named).filter(kept).collect()
    }
}

impl<'a> Record<'a> {
    fn read(text: &'a str) -> Result<Self, UnnamedCause> {
        let naming: Naming<'a> = serde_json::from_str(text).map_err(UnnamedCause::NotARecord)?;
        let name = naming.dynamodb.sequence.unwrap_or_default();
        // Local engines write leading zeros; as a name the number stays as it came.
        let digits = match name.trim_start_matches('0') {
            "" if !name.is_empty() => "0",
            digits => digits,
        };
        let sequence = digits.parse()?;
        let source_arn = naming.source_arn.unwrap_or_default();
        // A record without keys cannot be DynamoDB's own. It is forwarded all the same: the consumer has a verdict for it.
        let partition_key = match naming.dynamodb.keys {
            Some(keys) => partition::key(partition::table_of(&source_arn), keys.get()),
            None => partition::key(partition::table_of(&source_arn), text),
        };
        Ok(Self { text, name, sequence, source_arn, partition_key })
    }
}

impl Outgoing for Record<'_> {
    fn partition_key(&self) -> &str {
        &self.partition_key
    }

    fn data(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Record<'_>, UnnamedCause> {
        Record::read(text)
    }

    #[test]
    fn a_record_keeps_its_bytes_and_its_name() {
        let event = r#" {"Records":[ {"eventID":"a",  "novel": 1.50,"eventSourceARN":"arn:aws:dynamodb:r:1:table/scans/stream/x",
            "dynamodb":{"Keys":{"scan_id":{"S":"é\u0041"}},"SequenceNumber":"000000000000000000012"}} ]}"#;
        let envelope = Envelope::decode(event.as_bytes()).unwrap();
        let records = envelope.records().unwrap();
        let record = &records[0];
        assert!(event.contains(record.text) && record.text.starts_with(r#"{"eventID":"a",  "novel": 1.50"#));
        assert_eq!((record.name.as_str(), record.sequence.as_str()), ("000000000000000000012", "12"));
        assert_eq!(record.partition_key, partition::key("scans", r#"{"scan_id":{"S":"éA"}}"#));
        assert_eq!(record.bytes(), record.text.len() + 32);
    }

    #[test]
    fn what_cannot_be_named_fails_the_invocation() {
        for record in [
            "1",
            "{}",
            r#"{"dynamodb":{}}"#,
            r#"{"dynamodb":{"SequenceNumber":""}}"#,
            r#"{"dynamodb":{"SequenceNumber":7}}"#,
            r#"{"dynamodb":{"SequenceNumber":"-7"}}"#,
            r#"{"dynamodb":{"SequenceNumber":"49x"}}"#,
        ] {
            let event = format!(r#"{{"Records":[{{"dynamodb":{{"SequenceNumber":"7"}}}},{record}]}}"#);
            let envelope = Envelope::decode(event.as_bytes()).unwrap();
            assert!(matches!(envelope.records(), Err(RelayError::Unnamed { index: 1, count: 2, .. })), "{record}");
        }
        for event in ["", "[]", "{}", r#"{"Records":{}}"#, r#"{"Records":[}"#] {
            assert!(matches!(Envelope::decode(event.as_bytes()), Err(RelayError::NotAnEvent(_))), "{event}");
        }
    }

    #[cfg(feature = "bugs")]
    #[test]
    fn a_deliberate_bug_that_drops_them_is_noticed() {
        let dropped = || bugs::within(Bug::RelayDropsUnreadable, what_cannot_be_named_fails_the_invocation);
        assert!(std::panic::catch_unwind(dropped).is_err());
    }

    #[test]
    fn an_event_has_its_limits() {
        let event = |records: usize| format!(r#"{{"Records":[{}]}}"#, vec!["0"; records].join(","));
        assert!(Envelope::decode(event(MAX_RECORDS).as_bytes()).is_ok());
        let refused = |event: &str| matches!(Envelope::decode(event.as_bytes()), Err(RelayError::TooLarge { .. }));
        assert!(refused(&event(MAX_RECORDS + 1)) && refused(&" ".repeat(MAX_EVENT + 1)));
    }

    #[test]
    fn invariant_10_a_record_that_nobody_understands_is_still_forwarded() {
        let record = read(r#"{"dynamodb":{"SequenceNumber":"0","Keys":[1]},"eventSourceARN":"odd"}"#).unwrap();
        assert_eq!((record.name.as_str(), record.partition_key.len()), ("0", 32));
    }

    proptest! {
        #[test]
        fn invariant_10_no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(envelope) = Envelope::decode(&bytes) {
                let _ = envelope.records();
            }
        }
    }
}
