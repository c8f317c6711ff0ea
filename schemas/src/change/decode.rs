//! From a record's bytes to a [`Change`].
//!
//! The creation time of the Kinesis form, by `ApproximateCreationDateTimePrecision`:
//!
//! | precision | value | read as |
//! | --- | --- | --- |
//! | `MICROSECOND` | any | microseconds |
//! | `MILLISECOND` | any | milliseconds |
//! | absent | below 10¹⁴ | milliseconds: no millisecond capture seen so far has the member |
//! | absent | 10¹⁴ or more | microseconds (10¹⁴ ms is the year 5138, 10¹⁴ µs is 1973) |
//! | anything else | any | refused |
//!
//! The precision of a live destination can be changed (`UpdateKinesisStreamingDestination`), so one stream can hold both.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Change, EventName, Form, Precision};
use crate::verdict::{QuarantineCode, QuarantineReason};

/// The largest record that is parsed at all, in bytes: the largest that a stream can be set to take
/// (`UpdateMaxRecordSize`, 10 MiB).
pub const MAX_RECORD: usize = 10 * 1024 * 1024;

/// The longest event ID, in bytes. Real ones have 32 to 36; findings, plans and the archive repeat it for every event.
pub const MAX_EVENT_ID: usize = 1_024;
/// The longest name of a table, in bytes (DynamoDB Developer Guide, "naming rules").
pub const MAX_TABLE: usize = 255;

const PLAUSIBLE_MS: i64 = 100_000_000_000_000;

/// A borrowed string, where it has no escapes. (`Option<Cow<str>>` on its own would always be copied.)
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A JSON object and nothing else: what is derived would also read a list of the members' values in their order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow, rename = "eventID")]
    event_id: Option<Text<'a>>,
    #[serde(borrow, rename = "eventName")]
    event_name: Option<Text<'a>>,
    #[serde(borrow, rename = "tableName")]
    table_name: Option<Text<'a>>,
    #[serde(borrow, rename = "recordFormat")]
    record_format: Option<&'a RawValue>,
    #[serde(borrow, rename = "eventSourceARN")]
    source_arn: Option<Text<'a>>,
    #[serde(borrow, rename = "userIdentity")]
    user_identity: Option<&'a RawValue>,
    #[serde(borrow)]
    dynamodb: Option<Object<Body<'a>>>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, rename = "ApproximateCreationDateTime")]
    created: Option<&'a RawValue>,
    #[serde(borrow, rename = "ApproximateCreationDateTimePrecision")]
    precision: Option<Text<'a>>,
    #[serde(borrow, rename = "Keys")]
    keys: Option<&'a RawValue>,
    #[serde(borrow, rename = "NewImage")]
    new_image: Option<&'a RawValue>,
    #[serde(borrow, rename = "OldImage")]
    old_image: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Identity<'a> {
    #[serde(borrow, default, alias = "Type", rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow, default, alias = "PrincipalId", rename = "principalId")]
    principal: Option<Text<'a>>,
}

impl<'a> Change<'a> {
    /// Decodes one record. Never panics; whatever cannot be understood is a reason for quarantine.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, QuarantineReason> {
        let not_a_change = |detail: &dyn std::fmt::Display| QuarantineReason::new(QuarantineCode::NotAChange, detail);
        if bytes.len() > MAX_RECORD {
            return Err(not_a_change(&format_args!("{} bytes, more than any record can have", bytes.len())));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| not_a_change(&e))?;
        let Object(record) = serde_json::from_str::<Object<Record<'a>>>(text).map_err(|e| not_a_change(&e))?;
        let Object(body) = record.dynamodb.ok_or_else(|| bad_member("dynamodb is missing"))?;

        let (form, table) = match (record.table_name, record.record_format, record.source_arn) {
            (Some(table), _, _) => (Form::Kinesis, table.0),
            (None, Some(_), _) => return Err(bad_member("tableName is missing")),
            (None, None, Some(arn)) => (Form::Streams, table_of(arn.0)?),
            (None, None, None) => return Err(bad_member("neither tableName nor eventSourceARN is there")),
        };
        if table.is_empty() {
            return Err(bad_member("the table's name is empty"));
        }
        if table.len() > MAX_TABLE {
            return Err(bad_member(format_args!("the table's name has {} bytes, at most {MAX_TABLE}", table.len())));
        }
        let event_id = record.event_id.ok_or_else(|| bad_member("eventID is missing"))?.0;
        if event_id.is_empty() {
            return Err(bad_member("eventID is empty"));
        }
        if event_id.len() > MAX_EVENT_ID {
            return Err(bad_member(format_args!("eventID has {} bytes, at most {MAX_EVENT_ID}", event_id.len())));
        }
        let event_name = record.event_name.ok_or_else(|| bad_member("eventName is missing"))?.0;
        let event_name = EventName::parse(&event_name)
            .ok_or_else(|| bad_member("eventName is none of INSERT, MODIFY and REMOVE"))?;
        let (created_us, precision) = created(form, body.created, body.precision)?;

        let ttl = match record.user_identity {
            Some(raw) if event_name == EventName::Remove => {
                let Object(identity) = serde_json::from_str::<Object<Identity<'_>>>(raw.get())
                    .map_err(|e| bad_member(format_args!("userIdentity: {e}")))?;
                let is = |text: Option<Text<'_>>, value: &str| text.is_some_and(|t| t.0 == value);
                is(identity.kind, "Service") && is(identity.principal, "dynamodb.amazonaws.com")
            }
            _ => false,
        };

        Ok(Self {
            form,
            event_id,
            event_name,
            table,
            created_us,
            precision,
            keys: body.keys.map(RawValue::get),
            new_image: body.new_image.map(RawValue::get),
            old_image: body.old_image.map(RawValue::get),
            user_identity: record.user_identity.map(RawValue::get),
            ttl,
        })
    }
}

fn bad_member(detail: impl std::fmt::Display) -> QuarantineReason {
    QuarantineReason::new(QuarantineCode::BadMember, detail)
}

/// The table's name in `arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL`.
fn table_of(arn: Cow<'_, str>) -> Result<Cow<'_, str>, QuarantineReason> {
    let name = |arn: &str| {
        let (_, rest) = arn.split_once(":table/")?;
        rest.split('/').next().map(str::len).map(|length| (arn.len() - rest.len(), length))
    };
    let (start, length) = name(&arn).ok_or_else(|| bad_member("eventSourceARN names no table"))?;
    Ok(match arn {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(start..start + length).unwrap_or_default()),
        Cow::Owned(text) => Cow::Owned(text.get(start..start + length).unwrap_or_default().to_owned()),
    })
}

fn created(
    form: Form,
    value: Option<&RawValue>,
    precision: Option<Text<'_>>,
) -> Result<(i64, Precision), QuarantineReason> {
    let bad = |detail: &str| QuarantineReason::new(QuarantineCode::BadCreationTime, detail);
    let text = value.ok_or_else(|| bad("ApproximateCreationDateTime is missing"))?.get();
    let out_of_range =
        || QuarantineReason::new(QuarantineCode::CreationTimeOutOfRange, "it does not fit 64 bits of µs");
    if form == Form::Streams {
        let seconds: f64 = text.parse().map_err(|_| bad("ApproximateCreationDateTime is not a number"))?;
        let us = (seconds * 1e6).round();
        // So is infinity; JSON cannot say what is no number.
        if us.abs() >= 9e18 {
            return Err(out_of_range());
        }
        return Ok((us as i64, Precision::Second));
    }
    let number: i64 = match text.parse() {
        Ok(number) => number,
        Err(_) if !text.is_empty() && text.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit()) => {
            return Err(out_of_range());
        }
        Err(_) => return Err(bad("ApproximateCreationDateTime is not a whole number")),
    };
    let precision = match precision.as_ref().map(|text| text.0.as_ref()) {
        Some("MICROSECOND") => Precision::Microsecond,
        Some("MILLISECOND") => Precision::Millisecond,
        Some(_) => return Err(bad("ApproximateCreationDateTimePrecision is neither MILLISECOND nor MICROSECOND")),
        None if number < PLAUSIBLE_MS => Precision::Millisecond,
        None => Precision::Microsecond,
    };
    let us = match precision {
        Precision::Microsecond => Some(number),
        _ => number.checked_mul(1_000),
    };
    us.map(|us| (us, precision)).ok_or_else(out_of_range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINESIS: &str = r#"{"awsRegion":"us-east-2","eventID":"f89436e0-627d-4d37-9879-42f86249aa83","eventName":"INSERT",
        "userIdentity":null,"recordFormat":"application/json","tableName":"flight",
        "dynamodb":{"ApproximateCreationDateTime":1721011165891550,"Keys":{"pk":{"S":"a"}},
        "NewImage":{"pk":{"S":"a"},"n":{"N":"1"}},"SizeBytes":7,"ApproximateCreationDateTimePrecision":"MICROSECOND"},
        "eventSource":"aws:dynamodb"}"#;

    const STREAMS: &str = r#"{"eventID":"7de3041dd709b024af6f29e4fa13d34c","eventName":"REMOVE","eventVersion":"1.1",
        "eventSource":"aws:dynamodb","awsRegion":"us-west-2","dynamodb":{"ApproximateCreationDateTime":1.721011165E9,
        "Keys":{"pk":{"S":"a"}},"OldImage":{"pk":{"S":"a"}},"SequenceNumber":"4421584500000000017450439091",
        "SizeBytes":26,"StreamViewType":"NEW_AND_OLD_IMAGES"},"userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"},
        "eventSourceARN":"arn:aws:dynamodb:us-west-2:111122223333:table/scans/stream/2026-05-11T21:21:33.291"}"#;

    fn code(text: &str) -> QuarantineCode {
        Change::decode(text.as_bytes()).unwrap_err().code
    }

    #[test]
    fn the_kinesis_form() {
        let change = Change::decode(KINESIS.as_bytes()).unwrap();
        assert_eq!(change.form, Form::Kinesis);
        assert_eq!(change.event_id, "f89436e0-627d-4d37-9879-42f86249aa83");
        assert_eq!(change.table, "flight");
        assert_eq!((change.created_us, change.precision), (1_721_011_165_891_550, Precision::Microsecond));
        assert_eq!(change.new_image, Some(r#"{"pk":{"S":"a"},"n":{"N":"1"}}"#));
        assert_eq!((change.old_image, change.user_identity, change.ttl), (None, None, false));
        assert!(matches!(change.event_id, Cow::Borrowed(_)), "the hot path copies nothing");
    }

    #[test]
    fn the_streams_form_in_either_casing_of_the_identity() {
        for text in [STREAMS.to_owned(), STREAMS.replace("\"type\"", "\"Type\"").replace("principalId", "PrincipalId")]
        {
            let change = Change::decode(text.as_bytes()).unwrap();
            assert_eq!((change.form, change.table.as_ref()), (Form::Streams, "scans"));
            assert_eq!((change.created_us, change.precision), (1_721_011_165_000_000, Precision::Second));
            assert!(change.ttl);
            assert_eq!(change.class(), "ttl");
        }
    }

    #[test]
    fn a_user_delete_is_not_a_ttl_delete() {
        let by_user = STREAMS.replace("\"Service\"", "\"AssumedRole\"");
        assert_eq!(Change::decode(by_user.as_bytes()).unwrap().class(), "remove");
        let none = STREAMS.replace(r#"{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#, "null");
        assert_eq!(Change::decode(none.as_bytes()).unwrap().class(), "remove");
        let list = r#"["Service","dynamodb.amazonaws.com"]"#;
        let list = STREAMS.replace(r#"{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#, list);
        assert_eq!(code(&list), QuarantineCode::BadMember);
    }

    #[test]
    fn what_happened_is_read_as_it_is_spelt() {
        for name in ["INSERT", "MODIFY", "REMOVE"] {
            let text = KINESIS.replace("INSERT", name);
            assert_eq!(Change::decode(text.as_bytes()).unwrap().event_name.as_str(), name);
        }
    }

    #[test]
    fn only_a_deletion_asks_who_made_it() {
        for identity in [r#"{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#, r#"["of no known form"]"#] {
            let insert = STREAMS.replace("REMOVE", "INSERT");
            let insert = insert.replace(r#"{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#, identity);
            assert!(!Change::decode(insert.as_bytes()).unwrap().ttl);
        }
    }

    #[test]
    fn a_tables_name_is_found_in_an_escaped_arn_too() {
        let escaped = STREAMS.replace(":table/scans/", r":table\/scans\/");
        assert_eq!(Change::decode(escaped.as_bytes()).unwrap().table, "scans");
    }

    #[test]
    fn a_record_may_be_as_large_as_a_stream_can_take() {
        let padded = |length: usize| format!("{KINESIS}{}", " ".repeat(length - KINESIS.len()));
        assert!(Change::decode(padded(10 << 20).as_bytes()).is_ok());
        assert_eq!(code(&padded((10 << 20) + 1)), QuarantineCode::NotAChange);
    }

    #[test]
    fn seconds_that_do_not_fit_are_out_of_range() {
        for seconds in ["1e13", "-1e13", "1e18", "1e308"] {
            let text = STREAMS.replace("1.721011165E9", seconds);
            assert_eq!(code(&text), QuarantineCode::CreationTimeOutOfRange, "{seconds}");
        }
    }

    #[test]
    fn milliseconds_and_microseconds_in_one_stream() {
        for (value, precision, us) in [
            ("1721011165891", r#","ApproximateCreationDateTimePrecision":"MILLISECOND""#, 1_721_011_165_891_000),
            ("1721011165891", "", 1_721_011_165_891_000),
            ("1721011165891550", "", 1_721_011_165_891_550),
            ("99999999999999", "", 99_999_999_999_999_000),
            ("100000000000000", "", 100_000_000_000_000),
            ("1721011165891550", r#","ApproximateCreationDateTimePrecision":null"#, 1_721_011_165_891_550),
        ] {
            let text = KINESIS
                .replace("1721011165891550", value)
                .replace(r#","ApproximateCreationDateTimePrecision":"MICROSECOND""#, precision);
            assert_eq!(Change::decode(text.as_bytes()).unwrap().created_us, us, "{value} {precision}");
        }
    }

    #[test]
    fn each_defect_has_its_code() {
        use QuarantineCode::*;
        for (from, to, expected) in [
            (KINESIS, "not json", NotAChange),
            ("INSERT", "UPSERT", BadMember),
            (r#""eventID":"f89436e0-627d-4d37-9879-42f86249aa83","#, "", BadMember),
            ("f89436e0-627d-4d37-9879-42f86249aa83", "", BadMember),
            (r#""tableName":"flight","#, "", BadMember),
            (r#""ApproximateCreationDateTime":1721011165891550,"#, "", BadCreationTime),
            ("1721011165891550", "1.5", BadCreationTime),
            ("1721011165891550", "\"x\"", BadCreationTime),
            ("1721011165891550", "99999999999999999999999", CreationTimeOutOfRange),
            ("MICROSECOND", "NANOSECOND", BadCreationTime),
            (r#""eventName":"INSERT","#, r#""eventName":"INSERT","eventName":"MODIFY","#, NotAChange),
        ] {
            assert_eq!(code(&KINESIS.replace(from, to)), expected, "{from} -> {to}");
        }
        // A list of the members' values, in the order of this module's own types, is no record.
        let body = &KINESIS[KINESIS.find(r#"{"Approx"#).unwrap()..KINESIS.find(",\n        \"eventSource\"").unwrap()];
        assert_eq!(code(&format!(r#"["id","INSERT","scans","x",null,null,{body}]"#)), NotAChange);
        assert_eq!(
            code(&KINESIS.replace(body, r#"[1721011165891550,"MICROSECOND",{},{"n":{"N":"1"}},null]"#)),
            NotAChange
        );
        assert_eq!(Change::decode(&[0xff, 0xfe]).unwrap_err().code, NotAChange);
        assert_eq!(code(&"[".repeat(100_000)), NotAChange);
    }

    #[test]
    fn names_have_their_limits() {
        let id = "f89436e0-627d-4d37-9879-42f86249aa83";
        assert!(Change::decode(KINESIS.replace(id, &"x".repeat(MAX_EVENT_ID)).as_bytes()).is_ok());
        assert_eq!(code(&KINESIS.replace(id, &"x".repeat(MAX_EVENT_ID + 1))), QuarantineCode::BadMember);
        assert!(Change::decode(KINESIS.replace("flight", &"x".repeat(MAX_TABLE)).as_bytes()).is_ok());
        assert_eq!(code(&KINESIS.replace("flight", &"x".repeat(MAX_TABLE + 1))), QuarantineCode::BadMember);
        let long = vec![b' '; MAX_RECORD + 1];
        assert_eq!(Change::decode(&long).unwrap_err().code, QuarantineCode::NotAChange);
    }

    #[test]
    fn nesting_costs_no_stack() {
        let deep = format!(r#"{{"L":{}{}}}"#, "[".repeat(1 << 20), "]".repeat(1 << 20));
        let text = KINESIS.replace(r#"{"N":"1"}"#, &deep);
        let change = Change::decode(text.as_bytes()).unwrap();
        assert!(change.new_image.unwrap().len() > 2 << 20);
        change.content_hash();
    }

    proptest! {
        #[test]
        fn invariant_10_no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Change::decode(&bytes);
        }

        #[test]
        fn nor_does_a_damaged_record(at in 0usize..400, byte in any::<u8>(), streams in any::<bool>()) {
            let mut bytes = if streams { STREAMS } else { KINESIS }.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Change::decode(&bytes);
        }
    }
}
