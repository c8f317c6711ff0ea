//! Rows for tests.

use recount_schemas::Definition;

use super::row::{ArchivedRow, Place};

pub(crate) fn definition() -> Definition {
    definition_of("project_id")
}

/// The same, grouped by another attribute.
pub(crate) fn definition_of(group_by: &str) -> Definition {
    let text = format!(
        "[source]\ntable='scans'\nkey=['scan_id']\n[fold]\ngroup_by='{group_by}'\noccurred_at='scanned_at'\nsum=['bytes']"
    );
    Definition::parse(&text, "recount.toml").unwrap()
}

/// A record of an insert: `created_us` after 2012, `bytes` as a number's text.
pub(crate) fn record(id: &str, group: Option<&str>, created_us: i64, bytes: &str) -> String {
    let at = recount_time(created_us);
    let group = group.map(|g| format!(r#","project_id":{{"S":"{g}"}}"#)).unwrap_or_default();
    format!(
        r#"{{"awsRegion":"us-east-1","eventID":"{id}","eventName":"INSERT","userIdentity":null,"recordFormat":"application/json","tableName":"scans","dynamodb":{{"ApproximateCreationDateTime":{created_us},"Keys":{{"scan_id":{{"S":"{id}"}}}},"NewImage":{{"scan_id":{{"S":"{id}"}},"scanned_at":{{"S":"{at}"}},"bytes":{{"N":"{bytes}"}}{group}}},"SizeBytes":7,"ApproximateCreationDateTimePrecision":"MICROSECOND"}},"eventSource":"aws:dynamodb"}}"#
    )
}

fn recount_time(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).unwrap().to_string()
}

pub(crate) fn row(id: &str, group: Option<&str>, created_us: i64, bytes: &str) -> ArchivedRow {
    let definition = definition();
    // A record without its group is no event of ours under this definition: another table's.
    let record = match group {
        Some(_) => record(id, group, created_us, bytes),
        None => record(id, None, created_us, bytes).replace("\"tableName\":\"scans\"", "\"tableName\":\"other\""),
    };
    let judged = definition.judge(record.as_bytes(), created_us + 1_000_000).unwrap();
    let place = Place {
        shard: "shardId-000000000000".parse().unwrap(),
        sequence: "49600000000000000000000000000000000000000000000000000001".parse().unwrap(),
        arrived_us: created_us + 1_000_000,
    };
    ArchivedRow::new(&definition, &judged, judged.change.content_hash().0, &record, place)
}

/// 2026-11-01T00:00:00Z in µs.
pub(crate) const NOVEMBER: i64 = 1_793_491_200_000_000;

/// A page header with these sizes and values: of a data page, PLAIN, levels as RLE.
pub(crate) fn page_header(decompressed: i64, stored: i64, values: i64) -> Vec<u8> {
    let number = |value: i64| {
        let mut left = ((value << 1) ^ (value >> 63)) as u64;
        let mut out = Vec::new();
        while left >= 0x80 {
            out.push(left as u8 | 0x80);
            left >>= 7;
        }
        out.push(left as u8);
        out
    };
    let mut bytes = vec![0x15, 0, 0x15];
    bytes.extend(number(decompressed));
    bytes.push(0x15);
    bytes.extend(number(stored));
    bytes.extend([0x2c, 0x15]);
    bytes.extend(number(values));
    bytes.extend([0x15, 0, 0x15, 6, 0x15, 6, 0, 0]);
    bytes
}
