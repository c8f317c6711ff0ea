//! The scenario of `infra/runbooks/consumer-had-a-bug.md`, by the very commands that it has: six hours of events around the end
//! of a month in Singapore, counted by the months of UTC. Once since the definition said so, once since the consumer's build did it
//! against its definition. The oracle knows Singapore by the rule itself: eight hours ahead of UTC, always.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use recount_local::client;
use recount_local::engines::{Engines, Options as EngineOptions};
use recount_local::pipeline::Pipeline;
use recount_schemas::definition::Zone;
use recount_schemas::host::SystemHost;
use recount_schemas::{Definition, Settings};
use serde_json::Value;

use crate::support::capture::put;
use crate::support::naive::{self, Scan, Totals};
use crate::support::process::{self, Serve, free_port, json, until, usage};
use crate::support::world::{definition, options};

const HOUR: i64 = 3_600;
/// 2026-11-30T16:00:00Z: the end of November in Singapore. In UTC it ends eight hours later.
const MIDNIGHT: i64 = 1_796_054_400;

fn right_definition() -> String {
    definition("").replace(naive::ZONE, "Asia/Singapore")
}

/// The scan with number `n`: one of 12 hours on either side of the month's end.
fn scan(n: i64) -> Scan {
    let project = ["acme", "globex"][usize::try_from(n % 2).unwrap()].to_owned();
    Scan { project, at: MIDNIGHT + (n * 7 % 25 - 12) * HOUR + n, bytes: 100 + n }
}

/// What scans come to where clocks are so many hours ahead of UTC.
fn counted(scans: &[Scan], ahead: i64) -> Totals {
    let mut totals = Totals::new();
    for scan in scans {
        let month = naive::rfc3339(scan.at + ahead * HOUR)[..7].to_owned();
        let total = totals.entry((scan.project.clone(), month)).or_default();
        total.0 += 1;
        total.1 += scan.bytes;
    }
    totals
}

/// Writes scans one by one until it is told to stop, from number `from` on; gives those that it wrote.
async fn application(dynamo: Client, from: i64, stop: Arc<AtomicBool>) -> Vec<Scan> {
    let mut written = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let n = from + written.len() as i64;
        put(&dynamo, &format!("scan-{n}"), &scan(n)).await;
        written.push(scan(n));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    written
}

async fn write(dynamo: &Client, numbers: std::ops::Range<i64>) -> Vec<Scan> {
    for n in numbers.clone() {
        put(dynamo, &format!("scan-{n}"), &scan(n)).await;
    }
    numbers.map(scan).collect()
}

/// The commands of one part of the page, in their order.
fn commands(part: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/runbooks/consumer-had-a-bug.md");
    let text = std::fs::read_to_string(page).unwrap();
    let part = text.split("\n## ").find(|text| text.starts_with(part)).unwrap();
    part.lines().filter_map(|line| line.strip_prefix("recount ")).map(ToOwned::to_owned).collect()
}

struct Shell {
    serve: Serve,
    data: PathBuf,
}

impl Shell {
    /// What a command of the page says, as JSON where it says something on standard output, and how it ends.
    fn run(&self, line: &str) -> (i32, Value, String) {
        let words: Vec<&str> = line.split(' ').chain(["--format", "json"]).collect();
        let output = process::run("recount", &self.serve.endpoint(), &self.data, &words);
        let said = if output.stdout.is_empty() { Value::Null } else { json(&output) };
        (output.status.code().unwrap(), said, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn totals(&self) -> Totals {
        usage(&self.serve.endpoint(), &self.data)
    }

    async fn comes_to(&self, expected: &Totals) {
        until("the totals", async || self.totals() == *expected).await;
        assert_eq!(self.run("reconcile").1["verdict"], "clean");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_8_the_consumer_had_a_bug_in_its_definition() {
    let dir = tempfile::tempdir().unwrap();
    let (wrong, data) = (dir.path().join("wrong.toml"), dir.path().join("data"));
    std::fs::write(&wrong, right_definition().replace("Asia/Singapore", "UTC")).unwrap();
    let serve = Serve::start_with(&data, free_port(), Some(&wrong), &["--archive-every", "1"]);
    std::fs::write(data.join("right.toml"), right_definition()).unwrap();
    let dynamo = Client::new(&client::sdk_config(&serve.endpoint()).await);
    let shell = Shell { serve, data };
    let mut scans = write(&dynamo, 0..100).await;
    until("the six hours", async || shell.totals() == counted(&scans, 0)).await;

    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(application(dynamo.clone(), 100, Arc::clone(&stop)));
    let mut writing = Some(writing);
    let mut ends = Vec::new();
    for line in commands("The definition was wrong") {
        if line == "sets" {
            until("the set is fed", async || shell.run("sets").1["sets"][1]["consumer_behind"] == 0).await;
        }
        if line == "usage acme" && writing.is_some() {
            // A number can be held against the oracle's when nobody writes.
            stop.store(true, Ordering::Relaxed);
            scans.extend(writing.take().unwrap().await.unwrap());
            // How many came between two commands is the machine's affair.
            assert!(scans.len() > 100, "{}", scans.len());
            until("the totals by UTC", async || shell.totals() == counted(&scans, 0)).await;
            let in_set = async || process::months(&shell.run("--set right usage").1) == counted(&scans, 8);
            until("the totals by Singapore's clocks", in_set).await;
            assert_ne!(counted(&scans, 0), counted(&scans, 8));
        }
        let (code, said, error) = shell.run(&line);
        let acme = |ahead: i64| {
            let mut all = counted(&scans, ahead);
            all.retain(|(project, _), _| project == "acme");
            all
        };
        ends.push((line.clone(), code));
        match ends.len() {
            1 | 7 => assert_eq!(said["verdict"], "clean", "{said}"),
            2 => assert!(error.contains("holds the totals of definition"), "{error}"),
            3 => assert_eq!(said["plan"]["differences"], serde_json::json!(["time_zone: UTC becomes Asia/Singapore"])),
            4 => assert_eq!(said["reconciled"]["verdict"], "clean", "{said}"),
            6 => {
                let compared = &said["comparison"];
                assert_eq!((&compared["level"], &compared["differ"]), (&"groups".into(), &0.into()), "{said}");
            }
            8 => assert_eq!(process::months(&said), acme(0)),
            9 | 11 => assert_eq!(process::months(&said), acme(8)),
            10 | 12 | 13 => assert_eq!(said["switched"], true, "{said}"),
            _ => {}
        }
        match ends.len() {
            11 | 13 => assert_eq!(shell.totals(), counted(&scans, 8)),
            12 => assert_eq!(shell.totals(), counted(&scans, 0), "the old totals are as they were"),
            _ => {}
        }
    }
    let codes: Vec<i32> = ends.iter().map(|(_, code)| *code).collect();
    assert_eq!(codes, [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "{ends:?}");

    // Both go on being fed.
    scans.extend(write(&dynamo, 10_000..10_020).await);
    shell.comes_to(&counted(&scans, 8)).await;
    until("the old totals", async || process::months(&shell.run("--set base usage").1) == counted(&scans, 0)).await;
}

/// What a build leaves that is of the right definition, as its hash says, and all the same reads the zone as UTC: the consumer, and where
/// `archived` the compactor as well. Gives the scans that it counted.
async fn left_by_a_wrong_build(data: &Path, archived: bool) -> Vec<Scan> {
    let mut wrong = Definition::parse(&right_definition(), "recount.toml").unwrap();
    wrong.zone = Zone::named("UTC").unwrap();
    let host = SystemHost::shared();
    let engines = Engines::open(data, Arc::clone(&host), EngineOptions::default()).unwrap();
    let sdk = client::in_process(engines.door()).await;
    let (positions, names) = (data.join("positions.sqlite"), Settings::default());
    let pipeline = Pipeline::start(&engines, &sdk, &positions, names, wrong, host, &options()).await.unwrap();
    let scans = write(&pipeline.clients().dynamodb, 0..100).await;
    pipeline.drained().await.unwrap();
    if archived {
        pipeline.archive().await.unwrap();
    }
    pipeline.stop().await;
    scans
}

/// The right build, deployed where the wrong one was.
fn mended(dir: &Path) -> Shell {
    let (right, data) = (dir.join("right.toml"), dir.join("data"));
    std::fs::write(&right, right_definition()).unwrap();
    let serve = Serve::start_with(&data, free_port(), Some(&right), &["--archive-every", "1"]);
    Shell { serve, data }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariants_8_and_9_the_consumer_had_a_bug_in_its_build() {
    let dir = tempfile::tempdir().unwrap();
    let mut scans = left_by_a_wrong_build(&dir.path().join("data"), false).await;
    let shell = mended(dir.path());
    let dynamo = Client::new(&client::sdk_config(&shell.serve.endpoint()).await);
    assert_eq!(shell.totals(), counted(&scans, 0));
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(application(dynamo, 100, Arc::clone(&stop)));

    // In UTC an event of the first eight hours of a month is in the month before.
    let strayed = scans.iter().filter(|scan| (MIDNIGHT..MIDNIGHT + 8 * HOUR).contains(&scan.at)).count();
    assert!(strayed > 10, "{strayed}");
    let mut codes = Vec::new();
    for line in commands("The build counted wrongly") {
        let (code, said, _) = shell.run(&line);
        codes.push(code);
        if codes.len() == 1 {
            let found = said["findings"].as_array().unwrap();
            let events = |kind: &str, month: &str| -> usize {
                let of = found.iter().filter(|finding| finding["kind"] == kind && finding["month"] == month);
                of.map(|finding| finding["event_ids"].as_array().unwrap().len()).sum()
            };
            assert_eq!((events("wrong_cell", "2026-11"), events("missing", "2026-12")), (strayed, strayed), "{said}");
        }
    }
    assert_eq!(codes, [1, 1, 0, 0]);
    stop.store(true, Ordering::Relaxed);
    scans.extend(writing.await.unwrap());
    shell.comes_to(&counted(&scans, 8)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_consumer_had_a_bug_and_so_had_the_compactor() {
    let dir = tempfile::tempdir().unwrap();
    let mut scans = left_by_a_wrong_build(&dir.path().join("data"), true).await;
    let shell = mended(dir.path());
    let dynamo = Client::new(&client::sdk_config(&shell.serve.endpoint()).await);
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(application(dynamo, 100, Arc::clone(&stop)));
    let mut codes = Vec::new();
    for line in commands("The build of the compactor was wrong too") {
        let (code, said, _) = shell.run(&line);
        codes.push(code);
        match codes.len() {
            1 => assert_eq!(said["findings"], serde_json::json!([]), "both made the same mistake: {said}"),
            2 => {
                let found = said["findings"].as_array().unwrap();
                assert!(found.iter().all(|finding| finding["kind"] == "row"), "{said}");
                assert!(found[0]["detail"].as_str().unwrap().contains("its record gives another month"), "{said}");
            }
            _ => {}
        }
    }
    assert_eq!(codes, [0, 1, 0, 0, 0]);
    stop.store(true, Ordering::Relaxed);
    scans.extend(writing.await.unwrap());
    shell.comes_to(&counted(&scans, 8)).await;
}
