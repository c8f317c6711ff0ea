use super::*;
use crate::fold::Effect;
use crate::verdict::Ignored;

const ARRIVED: i64 = 1_796_040_001_000_000;

fn definition(extra: &str) -> Definition {
    let text = format!(
        "[source]\ntable='scans'\nkey=['scan_id']\n[fold]\ngroup_by='project_id'\noccurred_at='scanned_at'\nsum=['bytes']\n{extra}"
    );
    Definition::parse(&text, "recount.toml").unwrap()
}

fn record(name: &str, new: &str, old: &str) -> String {
    format!(
        r#"{{"awsRegion":"us-east-1","eventID":"e1","eventName":"{name}","userIdentity":null,"recordFormat":"application/json",
        "tableName":"scans","dynamodb":{{"ApproximateCreationDateTime":1796040000000000,"Keys":{{"scan_id":{{"S":"1"}}}},
        "NewImage":{new},"OldImage":{old},"SizeBytes":1,"ApproximateCreationDateTimePrecision":"MICROSECOND"}},"eventSource":"aws:dynamodb"}}"#
    )
}

const IMAGE: &str = r#"{"project_id":{"S":"acme"},"scanned_at":{"S":"2026-10-31T23:00:00Z"},"bytes":{"N":"5"}}"#;

#[test]
fn a_row_belongs_to_the_image_that_it_shows() {
    let definition = definition("");
    let insert = record("INSERT", IMAGE, "null");
    let judged = definition.judge(insert.as_bytes(), ARRIVED).unwrap();
    assert_eq!((judged.group.unwrap().as_str(), judged.month.to_string().as_str()), ("acme", "2026-10"));
    assert_eq!(judged.key, EventKey::new(1_796_040_000_000, b"e1").unwrap());
    assert_eq!(judged.effect.contributions().len(), 1);

    let remove = record("REMOVE", "null", IMAGE);
    let judged = definition.judge(remove.as_bytes(), ARRIVED).unwrap();
    assert_eq!((judged.group.is_some(), judged.month.to_string().as_str()), (true, "2026-10"));
    assert_eq!(judged.effect, Effect::None(Ignored::NotAnInsert));

    let modify = record("MODIFY", "{}", "{}");
    let judged = definition.judge(modify.as_bytes(), ARRIVED).unwrap();
    assert_eq!((judged.group, judged.month.to_string().as_str()), (None, "2026-11"), "the creation time stands in");
}

#[test]
fn creation_times_are_bounded_by_the_arrival_of_the_record() {
    let definition = definition("");
    let any = record("MODIFY", "{}", "{}");
    for (created, arrived, fine) in [
        ("1796040000000000", ARRIVED, true),
        ("1796126401000000", ARRIVED, true),
        ("1796126401000001", ARRIVED, false),
        ("1325376000000000", ARRIVED, true),
        ("1796040000000000", ARRIVED - 2 * LATEST_AFTER_ARRIVAL_US, false),
        ("1325375999999999", ARRIVED, false),
        ("-5", ARRIVED, false),
        ("9223372036854775807", ARRIVED, false),
    ] {
        let text = any.replace("1796040000000000", created);
        let result = definition.judge(text.as_bytes(), arrived);
        assert_eq!(
            result.map_err(|e| e.code).err(),
            (!fine).then_some(QuarantineCode::CreationTimeOutOfRange),
            "{created}"
        );
    }
}

#[test]
fn identity_by_change_ignores_the_event_id_and_needs_microseconds() {
    let by_change = definition("identity='change'");
    let a = record("INSERT", IMAGE, "null");
    let b = a.replace("\"e1\"", "\"e2\"");
    let key = |definition: &Definition, text: &str| definition.judge(text.as_bytes(), ARRIVED).unwrap().key;
    assert_eq!(key(&by_change, &a), key(&by_change, &b));
    assert_ne!(key(&definition(""), &a), key(&definition(""), &b));
    let coarse = a.replace("1796040000000000", "1796040000000").replace("MICROSECOND", "MILLISECOND");
    let code = by_change.judge(coarse.as_bytes(), ARRIVED).unwrap_err().code;
    assert_eq!(code, QuarantineCode::NeedsMicroseconds);
}
