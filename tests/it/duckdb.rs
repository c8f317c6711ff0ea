//! The archive as a stranger reads it: DuckDB, by plain glob.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::naive::{self, Totals};
use crate::support::process::{self, Serve, free_port, run, until};

/// The columns as `recount_schemas::archive` documents them, in DuckDB's names of types.
const COLUMNS: [(&str, &str); 20] = [
    ("event_key", "BLOB"),
    ("event_id", "VARCHAR"),
    ("event_name", "VARCHAR"),
    ("class", "VARCHAR"),
    ("group_key", "VARCHAR"),
    ("occurred_at", "TIMESTAMP"),
    ("occurred_at_us", "BIGINT"),
    ("created_at_us", "BIGINT"),
    ("source_table", "VARCHAR"),
    ("shard_id", "VARCHAR"),
    ("sequence_number", "VARCHAR"),
    ("arrived_at_us", "BIGINT"),
    ("keys", "VARCHAR"),
    ("new_image", "VARCHAR"),
    ("old_image", "VARCHAR"),
    ("user_identity", "VARCHAR"),
    ("envelope", "VARCHAR"),
    ("content_hash", "BLOB"),
    ("measure_bytes", "DECIMAL(38,9)"),
    ("month", "VARCHAR"),
];

/// `{group: {period: [events, bytes]}}` as totals.
fn totals(counts: &Value) -> Totals {
    let mut totals = Totals::new();
    for (group, periods) in counts.as_object().unwrap() {
        for (period, line) in periods.as_object().unwrap() {
            let bytes = line[1].as_str().unwrap().parse().unwrap();
            totals.insert((group.clone(), period.clone()), (line[0].as_i64().unwrap(), bytes));
        }
    }
    totals
}

/// What `producer load --format json` says that it inserted.
fn tally(report: &Value, into: &mut Totals) {
    for row in report["tally"].as_array().unwrap() {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        let total = into.entry((text("project"), text("month"))).or_default();
        total.0 += row["inserts"].as_i64().unwrap();
        total.1 += row["inserted_bytes"].as_i64().unwrap();
    }
    into.retain(|_, total| *total != (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_6_duckdb_reads_from_the_archive_what_was_loaded_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let serve = Serve::start(&data, free_port(), None);
    let endpoint = serve.endpoint();
    let load = |arguments: &str| {
        let arguments: Vec<_> = arguments.split(' ').chain(["--format", "json"]).collect();
        let output = run("producer", &endpoint, &data, &arguments);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        process::json(&output)
    };
    let base = "load --projects 7 --months 3 --updates 0.3 --deletes 0.2";
    let table = load(&format!("{base} --events 700 --seed 11"));
    let stream = load(&format!("{base} --events 900 --seed 12 --into-stream --duplicates 0.2 --out-of-order 0.1"));
    assert!(stream["duplicates"].as_u64().unwrap() > 100, "{stream}");
    let mut expected = Totals::new();
    tally(&table, &mut expected);
    tally(&stream, &mut expected);
    assert_eq!(expected.values().map(|total| total.0).sum::<i64>(), 1_600);

    let of = |totals: &Totals| totals.values().map(|total| total.0).sum::<i64>();
    until("all is counted", async || of(&process::usage(&endpoint, &data)) >= 1_600).await;
    assert_eq!(process::usage(&endpoint, &data), expected);
    for command in ["archive", "recompute"] {
        let output = run("recount", &endpoint, &data, &[command]);
        assert_eq!(output.status.code(), Some(0), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(serve.terminate().success());

    let bucket = data.join("s3/recount-archive");
    let read = process::python("archive.py", &[bucket.to_str().unwrap(), "Asia/Singapore"]);
    assert_eq!(totals(&read["counts"]), expected);
    assert_eq!(totals(&read["monthly"]["counts"]), expected);
    assert_eq!(totals(&read["yearly"]["counts"]), naive::years(&expected));
    assert_eq!((&read["rows"], &read["rows"]), (&read["keys"], &read["ids"]), "an event key stands twice");
    let of = |name: &str| table[name].as_u64().unwrap() + stream[name].as_u64().unwrap();
    // A write that leaves an item as it is makes no change, and no row.
    let classes = json!({"insert": of("inserts"), "modify": of("updates"), "remove": of("deletes")});
    assert_eq!(read["classes"], classes);
    assert_eq!(read["wrong"], json!({"month": 0, "ms": 0, "group": 0, "bytes": 0}));
    let types: BTreeMap<&str, &str> =
        read["types"].as_object().unwrap().iter().map(|(name, kind)| (name.as_str(), kind.as_str().unwrap())).collect();
    assert_eq!(types, BTreeMap::from(COLUMNS));
    let columns =
        json!({"group_key": "VARCHAR", "period": "VARCHAR", "events": "BIGINT", "sum_bytes": "DECIMAL(38,9)"});
    assert_eq!((&read["monthly"]["types"], &read["yearly"]["types"]), (&columns, &columns));
}
