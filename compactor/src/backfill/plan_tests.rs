use super::*;
use crate::backfill::settled_us;
use crate::rows::testing::definition;
use crate::table::item::{Binary, item_hash, parse};
use recount_schemas::change::Change;

fn missing(id: &str) -> Missing {
    let image = format!(
        r#"{{"scan_id":{{"S":"{id}"}},"project_id":{{"S":"acme"}},"bytes":{{"N":"12"}},"scanned_at":{{"S":"2026-11-04T07:28:34Z"}},"raw":{{"B":"eHl6"}}}}"#
    );
    let image = parse(&image, Binary::Once).unwrap();
    let keys = Item::from_iter([("scan_id".to_owned(), image["scan_id"].clone())]);
    let item = Value::Object(keys.clone()).to_string();
    Missing { event_id: event_id("scans", &item, None), item, keys, image, behind: None, read_us: 7 }
}

fn plan(parts: Vec<PartName>) -> Plan {
    Plan {
        format: FORMAT,
        definition: definition().hash().to_owned(),
        source: "scan".into(),
        read_us: (1, 2),
        created_us: 3,
        entries: 4,
        whole: 1,
        before: 0,
        behind: 0,
        parts,
        cells: Vec::new(),
        refused: Vec::new(),
    }
}

#[test]
fn invariant_2_an_item_has_one_event_id_in_every_plan() {
    let key = r#"{"scan_id":{"S":"a"}}"#;
    insta::assert_snapshot!(event_id("scans", key, None), @"backfill-4c843e51d42b7531ae28e42601ae0fd4");
    assert_eq!(event_id("scans", key, None), event_id("scans", key, None));
    assert_ne!(event_id("scans", key, None), event_id("others", key, None));
    assert_ne!(event_id("scans", key, None), event_id("scans", key, Some("00")));
}

#[test]
fn a_record_reads_as_capture_would_have_brought_it() {
    let missing = Missing { behind: "12".parse().ok(), ..missing("a") };
    let text = missing.record("scans", 1_793_500_000_000_000, "backfill x");
    let change = Change::decode(text.as_bytes()).unwrap();
    assert_eq!((change.table.as_ref(), change.class(), change.created_us), ("scans", "insert", 1_793_500_000_000_000));
    let image = parse(change.new_image.unwrap(), Binary::Twice).unwrap();
    assert_eq!(item_hash(&image), item_hash(&missing.image));
    let envelope = recount_schemas::change::envelope::strip(&text).unwrap();
    let said = crate::items::change::Said::read(&envelope);
    assert_eq!((said.twice, said.behind), (true, "12".parse().ok()));
}

#[test]
fn a_plan_and_its_parts_are_named_by_what_they_hold() {
    let mut packer = Packer::default();
    let items = [missing("a"), missing("b")];
    for item in &items {
        assert!(!packer.push(item).unwrap());
    }
    let (name, bytes) = packer.finish().unwrap().unwrap();
    assert_eq!(unpack(&name, &bytes).unwrap(), items);
    assert!(Packer::default().finish().unwrap().is_none());
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(unpack(&name, &flipped).is_err());
    for items in [1, 3] {
        assert!(unpack(&PartName { items, ..name.clone() }, &bytes).is_err(), "{items}");
    }

    let plan = plan(vec![name]);
    let bytes = plan.to_bytes().unwrap();
    let hash = sha256(&bytes);
    assert_eq!(Plan::read(&hash, &bytes, &definition()).unwrap(), plan);
    assert!(matches!(Plan::read(&"0".repeat(64), &bytes, &definition()), Err(PlanError::Malformed { .. })));
    let newer = String::from_utf8(bytes).unwrap().replace(r#""format":1"#, r#""format":2"#).into_bytes();
    assert!(matches!(Plan::read(&sha256(&newer), &newer, &definition()), Err(PlanError::Newer { .. })));
    let other = Plan { definition: "x".into(), ..plan }.to_bytes().unwrap();
    assert!(matches!(Plan::read(&sha256(&other), &other, &definition()), Err(PlanError::OtherDefinition { .. })));
}

proptest::proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
        let _ = Plan::read(&sha256(&bytes), &bytes, &definition());
        let _ = unpack(&PartName { sha256: sha256(&bytes), items: 2 }, &bytes);
    }
}

#[test]
fn a_plan_that_brings_nothing_is_applied_at_once() {
    let part = PartName { sha256: "0".repeat(64), items: 1 };
    let (settle, read_us) = (std::time::Duration::from_secs(900), plan(vec![]).read_us.1);
    assert_eq!(settled_us(&plan(vec![part.clone()]), settle), Some(read_us + 900_000_000));
    assert_eq!(settled_us(&plan(vec![part]), std::time::Duration::MAX), Some(i64::MAX), "whatever was asked for");
    assert_eq!(settled_us(&plan(vec![]), settle), None);
}
