//! One quarantined object as consumer and archiver would judge its record now. Pure.
//!
//! | the object | its record, by its own time of arrival | by the present time | it is |
//! | --- | --- | --- | --- |
//! | is none of ours, or newer, or has another position than its name | – | – | unreadable: it stays |
//! | holds what should have been base64 | still is none | – | it stays |
//! | else | understood | – | ready |
//! | else | created too far ahead of its arrival | understood | ready, with the present as its time of arrival |
//! | else | not understood | – | it stays, with the reason of now |

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use recount_schemas::quarantine::{self, Quarantined};
use recount_schemas::{Cell, Definition, Delta, Effect, EventKey, QuarantineCode, QuarantineReason};

use super::listing::Kept;
use crate::archive::source::Record;

/// A record that is understood now.
#[derive(Debug, Clone, PartialEq)]
pub struct Ready {
    /// Where it is kept.
    pub kept: Kept,
    /// Why it was quarantined.
    pub was: QuarantineReason,
    /// The record, with the arrival that it is judged by.
    pub record: Record,
    /// Its event ID.
    pub event_id: String,
    /// Its key.
    pub key: EventKey,
    /// What it adds; nothing where the definition ignores it.
    pub adds: Vec<(Cell, Delta)>,
}

/// A record that stays in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stays {
    /// Why it was quarantined; `None` where the object does not say.
    pub was: Option<QuarantineReason>,
    /// Why it stays; `None` where the object cannot be read.
    pub is: Option<QuarantineReason>,
    /// The same in words.
    pub detail: String,
}

/// Judges the bytes of an object.
pub fn judge(kept: Kept, bytes: &[u8], definition: &Definition, now_us: i64) -> Result<Ready, Box<Stays>> {
    let unreadable = |detail: String| Box::new(Stays { was: None, is: None, detail });
    let object: Quarantined = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
    if object.format > quarantine::FORMAT {
        return Err(unreadable(format!("it is of format {}, use a newer program", object.format)));
    }
    if (&object.shard_id, &object.sequence_number) != (&kept.shard, &kept.sequence) {
        return Err(unreadable("it says another position than its name".to_owned()));
    }
    let was = object.reason.clone();
    let stays =
        |is: QuarantineReason| Box::new(Stays { was: Some(was.clone()), detail: is.detail.clone(), is: Some(is) });
    // Where `raw` is set, these are the bytes that the consumer could not read.
    let data = STANDARD.decode(&object.data).map_err(|error| match object.raw {
        true => stays(QuarantineReason::new(QuarantineCode::BadBase64, error)),
        false => unreadable(error.to_string()),
    })?;
    let by_now =
        |reason: &QuarantineReason| reason.code == QuarantineCode::CreationTimeOutOfRange && object.arrived_us < now_us;
    let (judged, arrived_us) = match definition.judge(&data, object.arrived_us) {
        Err(reason) if by_now(&reason) => (definition.judge(&data, now_us), now_us),
        judged => (judged, object.arrived_us),
    };
    let judged = judged.map_err(stays)?;
    let (event_id, key) = (judged.change.event_id.to_string(), judged.key);
    let adds = match &judged.effect {
        Effect::Adds(adds) => adds.to_vec(),
        Effect::None(_) => Vec::new(),
    };
    drop(judged);
    let record =
        Record { sequence: object.sequence_number, partition_key: object.partition_key, arrived_us, data: data.into() };
    Ok(Ready { kept, was, record, event_id, key, adds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::{NOVEMBER, definition, record};

    const DAY: i64 = 86_400_000_000;

    fn kept() -> Kept {
        Kept {
            object: "quarantine/s0/7".to_owned(),
            shard: "s0".parse().unwrap(),
            sequence: "7".parse().unwrap(),
            done: false,
        }
    }

    fn object(data: &str, raw: bool) -> Quarantined {
        Quarantined {
            format: quarantine::FORMAT,
            stream: "changes".to_owned(),
            shard_id: "s0".parse().unwrap(),
            sequence_number: "7".parse().unwrap(),
            partition_key: "p".to_owned(),
            arrived_us: NOVEMBER,
            reason: QuarantineReason::new(QuarantineCode::NoGroup, "it was so"),
            data: if raw { data.to_owned() } else { STANDARD.encode(data) },
            raw,
        }
    }

    fn judged(object: &Quarantined, now_us: i64) -> Result<Ready, Box<Stays>> {
        judge(kept(), &serde_json::to_vec(object).unwrap(), &definition(), now_us)
    }

    #[test]
    fn what_is_understood_now_is_ready_with_what_it_adds() {
        let ready = judged(&object(&record("e", Some("acme"), NOVEMBER, "7"), false), NOVEMBER).unwrap();
        assert_eq!((ready.event_id.as_str(), ready.adds.len(), ready.was.code), ("e", 1, QuarantineCode::NoGroup));
        assert_eq!((ready.record.arrived_us, ready.record.partition_key.as_str()), (NOVEMBER, "p"));
        // A change that the definition ignores has a row, and adds nothing.
        let modify = record("e", Some("acme"), NOVEMBER, "7").replace("INSERT", "MODIFY");
        assert_eq!(judged(&object(&modify, false), NOVEMBER).unwrap().adds, []);
    }

    #[test]
    fn a_time_that_was_too_far_ahead_may_have_come() {
        let early = object(&record("e", Some("acme"), NOVEMBER + 3 * DAY, "7"), false);
        for (now, code) in [
            (NOVEMBER + DAY, Some(QuarantineCode::CreationTimeOutOfRange)),
            (NOVEMBER + 2 * DAY, None),
            (NOVEMBER - DAY, Some(QuarantineCode::CreationTimeOutOfRange)),
        ] {
            match judged(&early, now) {
                Ok(ready) => assert_eq!((ready.record.arrived_us, None), (now, code)),
                Err(stays) => assert_eq!(stays.is.map(|reason| reason.code), code),
            }
        }
        let ancient = object(&record("e", Some("acme"), 1_000_000, "7"), false);
        assert!(judged(&ancient, NOVEMBER + 400 * DAY).is_err(), "before DynamoDB");
    }

    #[test]
    fn what_is_still_not_understood_stays_with_the_reason_of_now() {
        let good = record("e", Some("acme"), NOVEMBER, "7");
        for (data, raw, code) in [
            ("hello".to_owned(), false, QuarantineCode::NotAChange),
            (good.replace("\"N\":\"7\"", "\"S\":\"x\""), false, QuarantineCode::BadMeasure),
            ("***".to_owned(), true, QuarantineCode::BadBase64),
            (STANDARD.encode("hello"), true, QuarantineCode::NotAChange),
        ] {
            let stays = judged(&object(&data, raw), NOVEMBER).unwrap_err();
            assert_eq!(stays.is.map(|reason| reason.code), Some(code), "{data}");
            assert_eq!(stays.was.map(|reason| reason.code), Some(QuarantineCode::NoGroup));
        }
    }

    #[test]
    fn an_object_that_is_none_of_ours_is_unreadable() {
        let good = record("e", Some("acme"), NOVEMBER, "7");
        for spoilt in [
            Quarantined { format: 99, ..object(&good, false) },
            Quarantined { shard_id: "s1".parse().unwrap(), ..object(&good, false) },
            Quarantined { data: "***".to_owned(), ..object(&good, false) },
        ] {
            assert_eq!(judged(&spoilt, NOVEMBER).unwrap_err().is, None);
        }
        assert_eq!(judge(kept(), b"{}", &definition(), NOVEMBER).unwrap_err().is, None);
    }
}
