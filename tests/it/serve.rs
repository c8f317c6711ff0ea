//! `recount-local serve` as a process: killed, stopped, started twice, started wrongly, and driven from Python.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use recount_local::client;
use sha2::{Digest, Sha256};

use crate::support::naive::{self, Scan};
use crate::support::process::{self, Serve, binary, free_port, json, run, until};
use crate::support::world::definition;

/// Runs `serve` that is expected to end by itself.
fn refused(dir: &Path, port: u16, options: &[&str]) -> Output {
    let mut command = Command::new(binary("recount-local"));
    command.args(["serve", "--port", &port.to_string(), "--data"]).arg(dir).args(options);
    command.env("NO_COLOR", "1").output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the clients did.
#[derive(Default)]
struct Written {
    /// Items whose put was answered.
    acknowledged: Mutex<BTreeMap<String, Scan>>,
    /// Items whose put failed: they may be there or not.
    doubtful: Mutex<BTreeMap<String, Scan>>,
    answers: AtomicU64,
    stop: AtomicBool,
}

/// Puts items until told to stop. A put that fails is tried again, or, every other time, left in doubt.
async fn client(dynamo: aws_sdk_dynamodb::Client, number: usize, written: Arc<Written>) {
    const ENDS: [i64; 3] = [1_793_487_600, 1_796_079_600, 1_798_758_000];
    let mut rng = fastrand::Rng::with_seed(number as u64);
    for i in 0.. {
        if written.stop.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("client-{number}-{i}");
        let scan = Scan {
            project: format!("project-{}", rng.u8(0..5)),
            at: ENDS[rng.usize(0..ENDS.len())] + rng.i64(-7_200..7_200),
            bytes: rng.i64(0..10_000),
        };
        loop {
            let put = dynamo
                .put_item()
                .table_name("scans")
                .item("scan_id", AttributeValue::S(id.clone()))
                .item("project_id", AttributeValue::S(scan.project.clone()))
                .item("bytes", AttributeValue::N(scan.bytes.to_string()))
                .item("scanned_at", AttributeValue::S(naive::rfc3339(scan.at)));
            if put.send().await.is_ok() {
                written.doubtful.lock().unwrap().remove(&id);
                written.acknowledged.lock().unwrap().insert(id, scan);
                written.answers.fetch_add(1, Ordering::Relaxed);
                break;
            }
            written.doubtful.lock().unwrap().insert(id.clone(), scan.clone());
            if rng.bool() {
                break;
            }
        }
    }
}

/// The keys of all items of the source table.
async fn source_keys(dynamo: &aws_sdk_dynamodb::Client) -> BTreeSet<String> {
    let items = dynamo.scan().table_name("scans").consistent_read(true).into_paginator().items().send();
    let items: Vec<_> = items.try_collect().await.unwrap();
    items.into_iter().map(|item| item["scan_id"].as_s().unwrap().clone()).collect()
}

/// Every file that an entry of the log added, by its staged name and its target; and the number of entries.
fn logged(bucket: &Path) -> (Vec<serde_json::Value>, u64) {
    let mut names: Vec<_> = fs::read_dir(bucket.join("_log")).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let mut added = Vec::new();
    for name in &names {
        let entry: serde_json::Value = serde_json::from_slice(&fs::read(name).unwrap()).unwrap();
        added.extend(entry["added"].as_array().into_iter().flatten().cloned());
    }
    (added, names.len() as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn invariants_1_2_and_6_hold_through_kill_9_at_random_moments() {
    const KILLS: u64 = 7;
    let dir = tempfile::tempdir().unwrap();
    let (data, port) = (dir.path().join("data"), free_port());
    let written_definition = dir.path().join("ours.toml");
    fs::write(&written_definition, definition("")).unwrap();
    let options = ["--archive-every", "1", "--shards", "3"];
    let mut serve = Serve::start_with(&data, port, Some(&written_definition), &options);
    let endpoint = serve.endpoint();
    let sdk = client::sdk_config(&endpoint).await;
    let dynamo = aws_sdk_dynamodb::Client::new(&sdk);

    let written = Arc::new(Written::default());
    let clients: Vec<_> =
        (0..4).map(|number| tokio::spawn(client(dynamo.clone(), number, Arc::clone(&written)))).collect();
    let mut rng = fastrand::Rng::with_seed(20_261_122);
    for kill in 0..KILLS {
        let (before, more) = (written.answers.load(Ordering::Relaxed), rng.u64(40..160));
        until("puts are answered", async || written.answers.load(Ordering::Relaxed) >= before + more).await;
        tokio::time::sleep(Duration::from_micros(rng.u64(0..400_000))).await;
        serve.kill_9();
        if kill % 3 == 2 {
            // Once more while it is still starting.
            let mut starting = Command::new(binary("recount-local"));
            starting.args(["serve", "--port", &port.to_string(), "--data"]).arg(&data).args(options);
            let mut starting = starting.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            tokio::time::sleep(Duration::from_micros(rng.u64(0..300_000))).await;
            starting.kill().unwrap();
            starting.wait().unwrap();
        }
        serve = Serve::start_with(&data, port, None, &options);
    }
    written.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }

    // What is in doubt is decided by the table itself.
    let there = source_keys(&dynamo).await;
    let mut expected = written.acknowledged.lock().unwrap().clone();
    assert!(expected.keys().all(|id| there.contains(id)), "an acknowledged item is lost");
    let doubtful = written.doubtful.lock().unwrap().clone();
    expected.extend(doubtful.into_iter().filter(|(id, _)| there.contains(id)));
    assert_eq!(expected.len(), there.len(), "the table has an item that nobody wrote");
    let totals = naive::inserts(expected.values());

    let dir = data.as_path();
    let all = |totals: &naive::Totals| totals.values().map(|total| total.0).sum::<i64>();
    until("all is counted", async || all(&process::usage(&endpoint, dir)) >= all(&totals)).await;
    assert_eq!(process::usage(&endpoint, dir), totals, "invariant 2");

    let archived = run("recount", &endpoint, dir, &["archive", "--format", "json"]);
    assert_eq!(
        (archived.status.code(), &json(&archived)["reached_tip"]),
        (Some(0), &true.into()),
        "{}",
        said(&archived)
    );
    let recomputed = run("recount", &endpoint, dir, &["recompute", "--format", "json"]);
    let report = json(&recomputed);
    assert_eq!(process::months(&report), totals, "invariant 1");
    assert_eq!((&report["rows"], &report["repeated"]), (&there.len().into(), &0.into()), "invariant 6");
    let reconciled = run("recount", &endpoint, dir, &["reconcile", "--format", "json"]);
    let report = json(&reconciled);
    assert_eq!((reconciled.status.code(), &report["findings"]), (Some(0), &serde_json::json!([])), "{report}");
    assert_eq!((&report["events"], &report["quarantined"]), (&there.len().into(), &0.into()));

    assert_eq!(serve.terminate().code(), Some(0));
    // Every file that was committed is where the log says, byte for byte, and its upload is gone. What a killed run uploaded and no
    // entry names waits for the log to pass it by.
    let bucket = dir.join("s3/recount-archive");
    let (added, entries) = logged(&bucket);
    assert!(!added.is_empty());
    let mut rows = 0;
    for file in &added {
        let bytes = fs::read(bucket.join(file["target"].as_str().unwrap())).unwrap();
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(file["sha256"], digest.as_str(), "{file}");
        assert!(!bucket.join(file["source"].as_str().unwrap()).exists(), "{file}");
        rows += file["rows"].as_u64().unwrap();
    }
    assert_eq!(rows, there.len() as u64);
    let staged = fs::read_dir(bucket.join("_staging")).into_iter().flatten();
    for plan in staged.map(|plan| plan.unwrap()).filter(|plan| fs::read_dir(plan.path()).unwrap().next().is_some()) {
        let begun: u64 = plan.file_name().to_str().unwrap().split('-').next().unwrap().parse().unwrap();
        assert!(begun + 64 > entries, "{plan:?} can never be committed and is still there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_keeps_everything_and_a_second_serve_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, port) = (dir.path().join("data"), free_port());
    let serve = Serve::start(&data, port, None);
    let endpoint = serve.endpoint();
    let recorded = run("producer", &endpoint, &data, &["record", "--project", "acme", "--count", "40"]);
    assert_eq!(recorded.status.code(), Some(0), "{}", said(&recorded));

    // The same directory at another port; another directory at the same port.
    let same_dir = refused(&data, free_port(), &[]);
    assert_eq!(same_dir.status.code(), Some(2));
    let expected = format!("is in use by process {}; stop it, or take another directory with --data", serve.pid());
    assert!(said(&same_dir).contains(&expected), "{}", said(&same_dir));
    let other = dir.path().join("other");
    let same_port = refused(&other, port, &[]);
    assert_eq!(same_port.status.code(), Some(2));
    assert!(said(&same_port).contains(&format!("cannot listen on 127.0.0.1:{port}")), "{}", said(&same_port));
    assert!(!other.exists(), "a refused start makes nothing");

    assert_eq!(serve.signal("INT").code(), Some(0));
    let serve = Serve::start(&data, port, None);
    let of = |usage: naive::Totals| usage.values().map(|total| total.0).sum::<i64>();
    until("all is counted", async || of(process::usage(&endpoint, &data)) >= 40).await;
    assert_eq!(of(process::usage(&endpoint, &data)), 40);
    assert_eq!(serve.signal("TERM").code(), Some(0));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hold_every_connection_leave_the_engines_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let (data, port) = (dir.path().join("data"), free_port());
    let serve = Serve::start_with_files(&data, port, 600);
    let sdk = client::sdk_config(&serve.endpoint()).await;
    let dynamo = aws_sdk_dynamodb::Client::new(&sdk);
    dynamo.list_tables().send().await.unwrap(); // this client's connection is there before the others
    let mut holder = process::python_command("hold.py", &[&port.to_string(), "600"]);
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "600\n");

    let put = dynamo.put_item().table_name("scans").item("scan_id", AttributeValue::S("a".into()));
    let put = put.item("project_id", AttributeValue::S("acme".into())).item("bytes", AttributeValue::N("1".into()));
    put.item("scanned_at", AttributeValue::S("2026-11-22T00:00:00Z".into())).send().await.unwrap();
    let log = data.join("s3/recount-archive/_log/000000000000.json");
    until("it is archived, by new files of its own", async || log.exists()).await;
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    assert_eq!(serve.terminate().code(), Some(0));
}

#[test]
fn what_is_wrong_with_a_definition_is_said_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wrong.toml");
    let data = dir.path().join("data");
    let good = definition("");
    let wrong = [
        (good.replace("time_zone = ", "timezone = "), 7, "timezone"),
        (good.replace("Europe/Berlin", "Europe/Atlantis"), 7, "Europe/Atlantis"),
        (format!("{good}count = \"often\"\n"), 10, "often"),
        (good.replace("[fold]", "[fold"), 4, "unclosed table"),
    ];
    for (text, line, what) in wrong {
        fs::write(&path, &text).unwrap();
        let output = refused(&data, free_port(), &["--definition", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        let place = format!("wrong.toml:{line}");
        assert!(said(&output).contains(&place) && said(&output).contains(what), "{place} {what}: {}", said(&output));
        assert!(!data.exists(), "a refused start makes nothing");
    }
    let nowhere = refused(&data, free_port(), &["--definition", "nowhere.toml"]);
    assert_eq!(nowhere.status.code(), Some(3));
    assert!(said(&nowhere).contains("nowhere.toml"), "{}", said(&nowhere));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_definition_on_the_same_directory_is_refused_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (data, port) = (dir.path().join("data"), free_port());
    let path = dir.path().join("ours.toml");
    fs::write(&path, definition("")).unwrap();
    assert_eq!(Serve::start(&data, port, Some(&path)).terminate().code(), Some(0));

    fs::write(&path, definition("").replace("project_id", "customer_id")).unwrap();
    let output = refused(&data, port, &["--definition", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("a changed definition needs a rebuild"), "{}", said(&output));

    // One that cannot be used at all claims nothing.
    let fresh = dir.path().join("fresh");
    fs::write(&path, definition("ledger_days = 5")).unwrap();
    let output = refused(&fresh, port, &["--definition", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("ledger_days = 5 is too short"), "{}", said(&output));
    fs::write(&path, definition("ledger_days = 12")).unwrap();
    assert_eq!(Serve::start(&fresh, port, Some(&path)).terminate().code(), Some(0));

    // A quota is no part of what is counted: it may change. And the refused definition has left no trace.
    assert_eq!(fs::read_to_string(data.join("recount.toml")).unwrap(), definition(""));
    fs::write(&path, format!("{}[quota]\ndefault = 7\n", definition(""))).unwrap();
    assert_eq!(Serve::start(&data, port, Some(&path)).terminate().code(), Some(0));
    assert_eq!(Serve::start(&data, port, None).terminate().code(), Some(0));
    assert!(fs::read_to_string(data.join("recount.toml")).unwrap().ends_with("default = 7\n"));
}

/// The local addresses, as the kernel writes them, of what a process listens on.
fn listens(pid: u32) -> Vec<String> {
    let sockets: BTreeSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|fd| Some(fs::read_link(fd.ok()?.path()).ok()?.to_str()?.to_owned()))
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            if fields[3] == "0A" && sockets.contains(&format!("socket:[{}]", fields[9])) {
                found.push(fields[1].to_owned());
            }
        }
    }
    found
}

#[cfg(target_os = "linux")]
#[test]
fn boto3_records_and_reads_totals_over_loopback_only() {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"), free_port(), None);
    let read = process::python("boto.py", &[&serve.endpoint()]);
    // 40 scans of the last second of November in Singapore, whose clocks are 8 hours ahead of UTC; 20 of the second after.
    let november: i64 = (0..60).filter(|i| i % 3 != 0).sum();
    let december: i64 = (0..60).filter(|i| i % 3 == 0).sum();
    let expected = serde_json::json!({"2026-11#0": [40, november], "2026-12#0": [20, december], "2027-01#0": [1, 60]});
    assert_eq!(read["months"], expected, "{read}");
    assert_eq!(read["streams"], serde_json::json!(["recount-changes"]));
    assert_eq!(read["buckets"], serde_json::json!(["recount-archive"]));
    assert_eq!(listens(serve.pid()), [format!("0100007F:{:04X}", serve.port)]);
}
