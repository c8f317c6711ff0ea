use proptest::prelude::*;

use super::*;
use crate::change::{Form, Precision};

const CREATED: i64 = 1_796_040_000_000_000; // 2026-11-30T12:00:00Z

fn definition(fold: &str) -> Definition {
    let text = format!("[source]\ntable='scans'\nkey=['scan_id']\n[fold]\ngroup_by='project_id'\n{fold}");
    Definition::parse(&text, "recount.toml").unwrap()
}

fn change<'a>(name: EventName, new: Option<&'a str>, old: Option<&'a str>) -> Change<'a> {
    Change {
        form: Form::Kinesis,
        event_id: "e".into(),
        event_name: name,
        table: "scans".into(),
        created_us: CREATED,
        precision: Precision::Microsecond,
        keys: None,
        new_image: new,
        old_image: old,
        user_identity: None,
        ttl: false,
    }
}

fn item(project: &str, at: &str, bytes: &str) -> String {
    format!(r#"{{"project_id":{{"S":"{project}"}},"scanned_at":{{"S":"{at}"}},"bytes":{{"N":"{bytes}"}}}}"#)
}

fn shown(effect: &Effect) -> String {
    match effect {
        Effect::None(why) => why.code().to_owned(),
        Effect::Adds(adds) => adds
            .iter()
            .map(|(cell, delta)| format!("{} {} {:+} {:?}", cell.group, cell.month, delta.events, delta.sums))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

const FOLD: &str = "occurred_at='scanned_at'\nsum=['bytes']\ntime_zone='Asia/Singapore'\n";

#[test]
fn the_table_of_effects() {
    let (a, moved, grown) = (
        item("acme", "2026-11-30T15:59:59Z", "5"),
        item("acme", "2026-11-30T16:00:00Z", "5"),
        item("acme", "2026-11-30T15:00:00Z", "7.5"),
    );
    let net = format!("{FOLD}count='net'");
    let net_ttl = format!("{net}\nttl_deletes='subtract'");
    let by_ttl = |c: Change<'static>| Change { ttl: true, ..c };
    let (a, moved, grown): (&'static str, &'static str, &'static str) = (a.leak(), moved.leak(), grown.leak());
    let rows = [
        (FOLD, change(EventName::Insert, Some(a), None)),
        (FOLD, change(EventName::Modify, Some(moved), Some(a))),
        (FOLD, change(EventName::Remove, None, Some(a))),
        (&net, change(EventName::Insert, Some(a), None)),
        (&net, change(EventName::Modify, Some(moved), Some(a))),
        (&net, change(EventName::Modify, Some(grown), Some(a))),
        (&net, change(EventName::Modify, Some(a), Some(a))),
        (&net, change(EventName::Remove, None, Some(a))),
        (&net, by_ttl(change(EventName::Remove, None, Some(a)))),
        (&net_ttl, by_ttl(change(EventName::Remove, None, Some(a)))),
        (FOLD, Change { table: "users".into(), ..change(EventName::Insert, Some(a), None) }),
    ];
    let effects: Vec<String> =
        rows.iter().map(|(fold, change)| shown(&definition(fold).effect(change, EventKey::MIN).unwrap())).collect();
    insta::assert_snapshot!(effects.join("\n"), @r"
    acme 2026-11 +1 [5]
    not_an_insert
    not_an_insert
    acme 2026-11 +1 [5]
    acme 2026-11 -1 [-5], acme 2026-12 +1 [5]
    acme 2026-11 +0 [2.5]
    no_effect
    acme 2026-11 -1 [-5]
    ttl_delete
    acme 2026-11 -1 [-5]
    other_table
    ");
}

#[test]
fn event_times_in_every_form() {
    for (fold, value, us) in [
        ("occurred_at='t'", r#"{"S":"2026-11-30T23:59:59.5+08:00"}"#, 1_796_054_399_500_000),
        ("occurred_at={attribute='t',unit='s'}", r#"{"N":"1796054399.25"}"#, 1_796_054_399_250_000),
        ("occurred_at={attribute='t',unit='ms'}", r#"{"N":"1796054399250"}"#, 1_796_054_399_250_000),
        ("occurred_at={attribute='t',unit='us'}", r#"{"S":"1796054399250001"}"#, 1_796_054_399_250_001),
        ("", r#"{"S":"ignored"}"#, CREATED),
    ] {
        let image = format!(r#"{{"project_id":{{"N":"7"}},"t":{value}}}"#);
        assert_eq!(definition(fold).read(&image, CREATED).unwrap().occurred_us, us, "{fold}");
    }
}

#[test]
fn each_defect_of_an_image_has_its_code() {
    use QuarantineCode::*;
    let good = item("acme", "2026-11-30T15:59:59Z", "5");
    for (from, to, code) in [
        ("project_id", "other", NoGroup),
        (r#""S":"acme""#, r#""S":"""#, NoGroup),
        (r#""S":"acme""#, r#""BOOL":true"#, NoGroup),
        ("scanned_at", "other", BadOccurredAt),
        ("2026-11-30T15:59:59Z", "2026-11-30 15:59", BadOccurredAt),
        ("2026-11-30T15:59:59Z", "1999-12-31T23:59:59Z", OccurredAtOutOfRange),
        ("2026-11-30T15:59:59Z", "2036-12-31T23:59:59Z", OccurredAtOutOfRange),
        (r#""N":"5""#, r#""N":"12345678901234567890123456789012345678""#, BadMeasure),
        (r#""N":"5""#, r#""S":"5""#, BadMeasure),
        (r#"{"project_id""#, r#"["project_id""#, BadImage),
    ] {
        let image = good.replace(from, to);
        assert_eq!(definition(FOLD).read(&image, CREATED).unwrap_err().code, code, "{image}");
    }
    let absurd = r#"{"project_id":{"S":"a"},"t":{"N":"1796054399250"}}"#;
    let as_seconds = definition("occurred_at={attribute='t',unit='s'}");
    assert_eq!(
        as_seconds.read(absurd, CREATED).unwrap_err().code,
        OccurredAtOutOfRange,
        "milliseconds read as seconds"
    );
}

#[test]
fn a_counted_change_without_its_image_is_refused_not_ignored() {
    for (fold, name) in
        [(FOLD, EventName::Insert), ("count='net'", EventName::Modify), ("count='net'", EventName::Remove)]
    {
        let error = definition(fold).effect(&change(name, None, None), EventKey::MIN).unwrap_err();
        assert_eq!(error.code, QuarantineCode::NoImage);
    }
}

#[test]
fn groups_may_have_any_character_and_a_missing_measure_is_zero() {
    let image = r#"{"project_id":{"S":"\"quo,te'd\" \ud83e\udd80\n#"},"scanned_at":{"S":"2026-11-30T15:59:59Z"}}"#;
    let reading = definition(FOLD).read(image, CREATED).unwrap();
    assert_eq!(reading.group.as_str(), "\"quo,te'd\" 🦀\n#");
    assert_eq!(reading.measures.as_slice(), &[Amount::ZERO]);
}

#[test]
fn a_group_has_a_name_of_bounded_length() {
    let long = "é".repeat(MAX_GROUP / 2);
    assert_eq!(long.parse::<Group>().unwrap().as_str(), long);
    assert_eq!(format!("{long}x").parse::<Group>(), Err(NotAGroup(MAX_GROUP + 1)));
    assert_eq!(format!("{long}{long}").parse::<Group>(), Err(NotAGroup(2 * MAX_GROUP)));
    assert_eq!("".parse::<Group>(), Err(NotAGroup(0)));
}

#[test]
fn a_delta_survives_its_json() {
    for measures in [0, 1, 3] {
        let sums = (0..measures).map(|n| Amount::from_billionths(-5 * n)).collect();
        let delta = Delta { events: -2, sums };
        assert_eq!(serde_json::from_str::<Delta>(&serde_json::to_string(&delta).unwrap()).unwrap(), delta);
    }
    assert_eq!(Delta::zero(2).sums.as_slice(), &[Amount::ZERO; 2]);
}

#[test]
fn event_times_have_their_bounds_to_the_microsecond() {
    let as_us = definition("occurred_at={attribute='t',unit='us'}");
    let fits = |us: i64| as_us.read(&format!(r#"{{"project_id":{{"S":"a"}},"t":{{"N":"{us}"}}}}"#), CREATED).is_ok();
    let year_2000 = 946_684_800_000_000;
    assert!(fits(year_2000) && !fits(year_2000 - 1));
    let ten_years = 3_653 * 24 * 60 * 60 * 1_000_000;
    assert!(fits(CREATED + ten_years) && !fits(CREATED + ten_years + 1));
}

#[test]
fn a_time_beyond_every_calendar_is_out_of_range() {
    let as_seconds = definition("occurred_at={attribute='t',unit='s'}");
    for (number, created) in [("1E+19", CREATED), ("1E+19", i64::MAX), ("-1E+19", CREATED)] {
        let image = format!(r#"{{"project_id":{{"S":"a"}},"t":{{"N":"{number}"}}}}"#);
        let code = as_seconds.read(&image, created).unwrap_err().code;
        assert_eq!(code, QuarantineCode::OccurredAtOutOfRange, "{number} {created}");
    }
}

proptest! {
    /// Net counting: whatever happens to an item, the sum of the effects is what its last image counts.
    #[test]
    fn the_effects_of_an_items_life_add_up_to_its_last_image(
        states in prop::collection::vec(prop::option::of((0u8..3, 0u8..3, 0u32..100)), 1..12),
        lanes in prop::sample::select(vec![1u16, 4]),
    ) {
        let definition = definition(&format!("{FOLD}count='net'\nlanes={lanes}"));
        let images: Vec<Option<String>> = states.iter().map(|state| state.map(|(project, month, bytes)|
            item(&format!("p{project}"), &format!("2026-0{}-15T00:00:00Z", month + 1), &bytes.to_string()))).collect();
        let mut totals = std::collections::BTreeMap::new();
        let mut before: Option<&String> = None;
        for (i, after) in images.iter().enumerate() {
            let name = match (before, after) {
                (None, None) => continue,
                (None, Some(_)) => EventName::Insert,
                (Some(_), Some(_)) => EventName::Modify,
                (Some(_), None) => EventName::Remove,
            };
            let key = EventKey::new(CREATED / 1000, &i.to_be_bytes()).unwrap();
            let change = change(name, after.as_deref(), before.map(String::as_str));
            for (cell, delta) in definition.effect(&change, key).unwrap().contributions() {
                let total = totals.entry((cell.group.clone(), cell.month)).or_insert_with(|| Delta::zero(1));
                *total = total.checked_add(delta).unwrap();
            }
            before = after.as_ref();
        }
        totals.retain(|_, delta| !delta.is_zero());
        let expected = before.map(|image| definition.read(image, CREATED).unwrap());
        let expected: std::collections::BTreeMap<_, _> = expected
            .map(|reading| ((reading.group, reading.month), Delta { events: 1, sums: reading.measures })).into_iter().collect();
        prop_assert_eq!(totals, expected);
    }
}
