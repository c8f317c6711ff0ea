//! `[archive]` in the definition, through the binaries: what is omitted never reaches the archive, what is old loses its images, and
//! nobody counts otherwise.

use std::fs;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use recount_local::client;
use serde_json::{Value, json};

use crate::support::naive;
use crate::support::process::{self, Serve, free_port, run, until};
use crate::support::world::definition;

#[tokio::test(flavor = "multi_thread")]
async fn invariant_7_omitted_attributes_never_arrive_and_old_months_lose_their_images() {
    let dir = tempfile::tempdir().unwrap();
    let (data, ours) = (dir.path().join("data"), dir.path().join("ours.toml"));
    let archive = "[archive]\nomit = [\"mail\"]\nretain_months = 1\n";
    fs::write(&ours, format!("{}{archive}", definition(""))).unwrap();
    let serve = Serve::start_with(&data, free_port(), Some(&ours), &["--archive-every", "86400"]);
    let recount = |code: i32, line: &str| -> Value {
        let arguments: Vec<&str> = line.split(' ').chain(["--format", "json"]).collect();
        let output = run("recount", &serve.endpoint(), &data, &arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "recount {line}: {out} {err}");
        process::json(&output)
    };
    let bucket = data.join("s3/recount-archive");
    let rows_of = |text: &str| process::python("holds.py", &[bucket.to_str().unwrap(), text]).as_u64().unwrap();

    let dynamo = Client::new(&client::sdk_config(&serve.endpoint()).await);
    // Five old months, each more than a run does at a time together, and now.
    let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs());
    let now = now.unwrap();
    for i in 0..12 {
        let at = if i % 6 == 5 { now } else { 1_590_000_000 + (i % 6) * 31 * 86_400 };
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let put = dynamo.put_item().table_name("scans").item("scan_id", text(&format!("scan-{i}")));
        let put = put.item("project_id", text("acme")).item("scanned_at", text(&naive::rfc3339(at)));
        let put = put.item("bytes", AttributeValue::N("5".to_owned())).item("path", text(&format!("/files/{i}")));
        put.item("mail", text(&format!("{i}@example.org"))).send().await.unwrap();
    }
    let events = || -> i64 {
        recount(0, "usage")["months"].as_array().unwrap().iter().map(|m| m["events"].as_i64().unwrap()).sum()
    };
    until("all is counted", async || events() >= 12).await;
    recount(0, "archive");
    assert_eq!((rows_of("example.org"), rows_of("/files/")), (0, 12));
    assert_eq!(recount(0, "fsck --deep")["verdict"], "clean");
    assert_eq!(recount(0, "audit --settle 0")["verdict"], "clean");
    let (usage, before) = (recount(0, "usage"), recount(0, "recompute"));

    // The plan is of some months; two runs do them all, and a third one has nothing to do.
    let plan = recount(1, "compact --grace 0");
    assert_eq!((plan["retention"]["months"].as_object().unwrap().len(), &plan["retention"]["waiting"]), (3, &json!(2)));
    let first = recount(2, "compact --grace 0 --confirm");
    assert_eq!(first["retention"]["months"], plan["retention"]["months"]);
    assert_eq!(rows_of("/files/"), 6);
    let second = recount(0, "compact --grace 0 --confirm");
    assert_eq!(second["retention"]["months"].as_object().unwrap().len(), 2);
    assert_eq!(rows_of("/files/"), 2, "those of this month");
    let third = recount(0, "compact --grace 0 --confirm");
    assert_eq!(
        (&third["retention"]["months"], &third["months"], &third["deleted"]),
        (&json!({}), &json!({}), &json!(0))
    );

    assert_eq!(recount(0, "usage"), usage);
    assert_eq!(recount(0, "recompute")["months"], before["months"]);
    assert_eq!(recount(0, "reconcile")["verdict"], "clean");
    assert_eq!(recount(0, "fsck --deep")["verdict"], "clean");
    assert!(serve.terminate().success());
}
