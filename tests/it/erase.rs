//! `recount erase` through its binary: an item's data is gone from what the bucket holds, and no total changes.

use std::fs;
use std::path::{Path, PathBuf};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;

use crate::support::naive;
use crate::support::process::{self, until};
use crate::support::shell::Shell;

impl Shell {
    /// What DuckDB finds of the item in all rows of all files.
    fn rows_of(&self, id: &str) -> u64 {
        let bucket = self.data.join("s3/recount-archive");
        process::python("holds.py", &[bucket.to_str().unwrap(), id]).as_u64().unwrap()
    }
}

async fn put(dynamo: &Client, id: &str, at: i64) {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let item = dynamo.put_item().table_name("scans").item("scan_id", text(id)).item("project_id", text("acme"));
    let item = item.item("bytes", AttributeValue::N("5".to_owned())).item("scanned_at", text(&naive::rfc3339(at)));
    item.item("mail", text(&format!("{id}@example.org"))).send().await.unwrap();
}

fn texts_below(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(texts_below(&path, text));
        } else if fs::read(&path).unwrap().windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_7_an_erased_item_is_gone_and_counts_as_before() {
    let shell = Shell::quiet(None).await;
    let dynamo = shell.clients.dynamodb.clone();
    let (november, december) = (1_795_000_000, 1_766_000_000);
    for i in 0..6 {
        put(&dynamo, &format!("person-{i}"), if i % 2 == 0 { november } else { december }).await;
    }
    dynamo.delete_item().table_name("scans").key("scan_id", AttributeValue::S("person-2".into())).send().await.unwrap();
    let events = |shell: &Shell| -> i64 {
        shell.recount(0, "usage")["months"].as_array().unwrap().iter().map(|m| m["events"].as_i64().unwrap()).sum()
    };
    until("all is counted", async || events(&shell) >= 6).await;
    shell.recount(0, "archive");
    let (usage, before) = (shell.recount(0, "usage"), shell.recount(0, "recompute"));
    assert!(shell.rows_of("person-2") >= 2, "the insert and the removal");

    // The plan names what it found, and changes nothing.
    let plan = shell.recount(1, "erase scan_id=person-2");
    let rows: u64 = plan["months"].as_object().unwrap().values().map(|month| month["rows"].as_u64().unwrap()).sum();
    assert_eq!((rows, &plan["finished"]), (shell.rows_of("person-2"), &json!(false)));
    let done = shell.recount(0, "erase scan_id=person-2 --grace 0 --confirm");
    assert_eq!((&done["months"], &done["waiting"]), (&plan["months"], &json!(0)));
    assert!(done["deleted"].as_u64().unwrap() > 0);
    assert_eq!(shell.rows_of("person-2"), 0);
    assert!(shell.rows_of("person-4") > 0);
    let bucket = shell.data.join("s3/recount-archive");
    assert_eq!(texts_below(&bucket, "person-2"), Vec::<PathBuf>::new());

    // Nobody counts otherwise, and the archive is what its log says, down to each record that is left.
    assert_eq!(shell.recount(0, "usage"), usage);
    let after = shell.recount(0, "recompute");
    assert_eq!((&after["months"], &after["rows"]), (&before["months"], &before["rows"]));
    assert_eq!(shell.recount(0, "reconcile")["verdict"], "clean");
    assert_eq!(shell.recount(0, "fsck --deep")["verdict"], "clean");
    assert_eq!(shell.recount(0, "erase scan_id=person-2")["months"], json!({}));

    // All of a year, as retention would.
    shell.recount(0, "erase --before 2026-01 --grace 0 --confirm");
    assert_eq!((shell.rows_of("person-1"), shell.rows_of("person-5")), (0, 0));
    assert!(shell.rows_of("person-0") > 0);
    assert_eq!(shell.recount(0, "recompute")["months"], before["months"]);
    assert_eq!(shell.recount(0, "reconcile")["verdict"], "clean");

    // What is no key is said to be none.
    for wrong in ["erase person-2", "erase id=person-2", "erase scan_id=a scan_id=b", "erase"] {
        shell.recount(3, wrong);
    }
    assert!(shell.serve.terminate().success());
}
