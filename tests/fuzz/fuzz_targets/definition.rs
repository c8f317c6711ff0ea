//! A definition's text. Laws: what is accepted is within its bounds, hashes as it did, and judges a record without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use recount_fuzz::ARRIVED_US;
use recount_schemas::Definition;
use recount_schemas::archive::{events_schema, totals_schema};
use recount_schemas::definition::file::MAX_MEASURES;

const RECORD: &str = r#"{"awsRegion":"us-east-1","eventID":"e","eventName":"MODIFY","recordFormat":"application/json","tableName":"scans","dynamodb":{"ApproximateCreationDateTime":1795305500000000,"Keys":{"scan_id":{"S":"a"}},"NewImage":{"scan_id":{"S":"a"},"project_id":{"S":"acme"},"scanned_at":{"S":"2026-11-21T23:59:59Z"},"t":{"N":"1795305500"},"bytes":{"N":"12.5"}},"OldImage":{"scan_id":{"S":"a"},"project_id":{"S":"b"},"t":{"S":"1795305500"}},"ApproximateCreationDateTimePrecision":"MICROSECOND"},"eventSource":"aws:dynamodb"}"#;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let definition = match Definition::parse(text, "recount.toml") {
        Ok(definition) => definition,
        Err(error) => {
            assert!(error.line >= 1 && error.line <= text.matches('\n').count() + 1, "{error}");
            return;
        }
    };
    assert_eq!(definition.hash(), Definition::parse(text, "another").expect("it was read before").hash());
    assert_eq!(definition.hash().len(), 64);
    assert!(definition.lanes.is_power_of_two() && definition.lanes <= 256);
    assert!((3..=3650).contains(&definition.ledger_days));
    assert!(definition.measures.len() <= MAX_MEASURES);
    assert!((1..=2).contains(&definition.key.len()));
    assert_eq!(events_schema(&definition).fields().len(), 18 + definition.measures.len());
    let totals = totals_schema(&definition);
    let mut names: Vec<&str> = totals.fields().iter().map(|field| field.name().as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 3 + definition.measures.len(), "{names:?}");
    let _ = definition.judge(RECORD.as_bytes(), ARRIVED_US);
    let _ = definition.quota.of("acme");
});
