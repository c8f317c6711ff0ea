//! `recount audit`: what the archive lacks of the source table, by a Scan and by an export, with and without traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::capture::{Capture, NOVEMBER, put};
use crate::support::naive::Scan;

fn named(kind: &str, ids: &[&str]) -> Vec<(String, String)> {
    ids.iter().map(|id| (kind.to_owned(), (*id).to_owned())).collect()
}

/// Everything that can be lost while capture is off is found, by its kind, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn invariant_8_an_audit_names_exactly_what_was_lost() {
    let mut capture = Capture::start().await;
    capture.insert("kept", 0..20).await;
    capture.captured().await;
    assert_eq!(capture.audited(&[]), []);

    capture.capture(false).await;
    capture.insert("lost", 0..3).await;
    capture.touch("kept-3").await;
    capture.delete("kept-4").await;
    capture.capture(true).await;
    capture.touch("lost-1").await;
    capture.insert("after", 0..5).await;
    capture.delete("after-1").await;
    capture.captured().await;

    let mut expected = named("never_captured", &["lost-0", "lost-2"]);
    expected.extend(named("differs", &["kept-3"]));
    expected.extend(named("deletion_missed", &["kept-4"]));
    expected.extend(named("insert_missing", &["lost-1"]));
    expected.sort();
    assert_eq!(capture.audited(&["--segments", "3", "--rate", "500"]), expected);
    let export = capture.export("exports", 3, 120).await;
    assert_eq!(capture.audited(&["--export", &export]), expected);

    // Reconcile sees none of it: that is what an audit is for.
    assert_eq!(capture.json(0, &["reconcile"])["verdict"], "clean");
    let report = capture.json(1, &["audit", "--settle", "0"]);
    let last = &report["findings"].as_array().unwrap().iter().find(|f| f["kind"] == "deletion_missed").unwrap()["last"];
    assert_eq!(
        (&last["event_name"], last["shard_id"].as_str().unwrap().starts_with("shardId-")),
        (&"INSERT".into(), true)
    );
    let table = String::from_utf8(capture.run(&["audit", "--settle", "0"]).stdout).unwrap();
    assert!(table.contains("never_captured") && table.contains("5 findings"), "{table}");
}

/// While items come, change and go, an audit finds only what is lost.
#[tokio::test(flavor = "multi_thread")]
async fn invariant_8_traffic_is_no_finding() {
    let mut capture = Capture::start().await;
    capture.insert("kept", 0..20).await;
    capture.captured().await;
    capture.lose("lost", 0..2).await;

    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (dynamo, stop) = (capture.dynamo.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                let scan = Scan { project: "live".into(), at: NOVEMBER, bytes: n };
                put(&dynamo, &format!("live-{}", n % 40), &scan).await;
                if n % 7 == 3 {
                    let key = aws_sdk_dynamodb::types::AttributeValue::S(format!("live-{}", (n * 5) % 40));
                    dynamo.delete_item().table_name("scans").key("scan_id", key).send().await.unwrap();
                }
                n += 1;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
    };
    // The relay may lag behind on a busy machine: what is not captured within the time that is said would be a finding.
    let found = {
        let arguments = ["audit", "--settle", "15", "--format", "json"];
        let output = tokio::task::block_in_place(|| capture.run(&arguments));
        crate::support::process::json(&output)
    };
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let keys: Vec<&str> =
        found["findings"].as_array().unwrap().iter().map(|f| f["key"]["scan_id"]["S"].as_str().unwrap()).collect();
    assert_eq!(keys, ["lost-0", "lost-1"], "{found}");
}

/// What is no export, or a damaged one, is refused by name and nothing is said about the archive.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_damaged_or_of_another_kind_is_refused() {
    let mut capture = Capture::start().await;
    capture.insert("kept", 0..7).await;
    capture.captured().await;
    let export = capture.export("exports", 2, 120).await;
    assert_eq!(capture.audited(&["--export", &export]), []);
    let said = |code: i32, address: &str| {
        let output = capture.run(&["audit", "--export", address]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{error}");
        error
    };
    assert!(said(3, "s3://exports/nightly").contains("is no export"));
    assert!(said(3, "s3://exports/nightly/AWSDynamoDB/none").contains("it is not there; is the export complete"));

    let folder = export.strip_prefix("s3://exports/").unwrap();
    let (summary, file) = (format!("{folder}/manifest-summary.json"), format!("{folder}/data/file1.json.gz"));
    let text = String::from_utf8(capture.object("exports", &summary).await).unwrap();
    for (from, to, why) in [
        ("DYNAMODB_JSON", "ION", "in format ION"),
        ("FULL_EXPORT", "INCREMENTAL_EXPORT", "of type INCREMENTAL_EXPORT"),
        ("table/scans", "table/others", "of table \"others\""),
    ] {
        capture.put_object("exports", &summary, text.replace(from, to).into_bytes()).await;
        let error = said(3, &export);
        assert!(error.contains(why), "{error}");
    }
    capture.put_object("exports", &summary, text.into_bytes()).await;
    let mut bytes = capture.object("exports", &file).await;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    capture.put_object("exports", &file, bytes).await;
    for command in ["audit", "backfill"] {
        let output = capture.run(&[command, "--export", &export]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("file1.json.gz: its MD5 is not the one in the manifest"), "{error}");
    }
}
