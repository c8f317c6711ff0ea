//! Rebuilding totals beside the old ones, through the binaries, while events flow.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use recount_local::client;
use serde_json::Value;

use crate::support::naive::{self, Totals};
use crate::support::process::{self, Serve, free_port, json, until};
use crate::support::records::{self, Change};
use crate::support::world::definition;

const STREAM: &str = "recount-changes";
const DAY_S: i64 = 86_400;
const DAY_US: i64 = 1_000_000 * DAY_S;

/// A served pipeline, and a directory in which `recount` runs.
struct Bench {
    dir: tempfile::TempDir,
    serve: Serve,
    kinesis: aws_sdk_kinesis::Client,
    dynamo: aws_sdk_dynamodb::Client,
}

impl Bench {
    async fn start(definition: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("recount.toml");
        std::fs::write(&file, definition).unwrap();
        let options = ["--shards", "1", "--archive-every", "1"];
        let serve = Serve::start_with(&dir.path().join("data"), free_port(), Some(&file), &options);
        let sdk = client::sdk_config(&serve.endpoint()).await;
        let (kinesis, dynamo) = (aws_sdk_kinesis::Client::new(&sdk), aws_sdk_dynamodb::Client::new(&sdk));
        Self { dir, serve, kinesis, dynamo }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn recount(&self, line: &str) -> Output {
        let words: Vec<&str> = line.split(' ').collect();
        process::run("recount", &self.serve.endpoint(), self.path(), &words)
    }

    /// What a command says as JSON; it must end with `code`.
    fn said(&self, line: &str, code: i32) -> Value {
        let output = self.recount(&format!("{line} --format json"));
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{line}\n{out}\n{err}");
        json(&output)
    }

    async fn put(&self, changes: &[Change]) {
        put(&self.kinesis, changes).await;
    }

    /// The live totals of a home.
    fn totals(&self, home: &str) -> Totals {
        let mut totals = process::months(&self.said(&format!("usage --set {home}"), 0));
        totals.retain(|_, total| *total != (0, 0));
        totals
    }

    /// Waits until a home's totals are these, and holds them against its archive.
    async fn comes_to(&self, home: &str, expected: &Totals) {
        until(&format!("the totals of {home}"), async || self.totals(home) == *expected).await;
        let report = self.said(&format!("reconcile --set {home}"), 0);
        assert_eq!(report["verdict"], "clean", "{report}");
    }

    /// Splits the one open shard in the middle, or merges the two open ones.
    async fn reshard(&self, split: bool) {
        let shards = self.kinesis.list_shards().stream_name(STREAM).send().await.unwrap();
        let open = shards.shards().iter().filter(|shard| {
            shard.sequence_number_range().is_some_and(|range| range.ending_sequence_number().is_none())
        });
        let open: Vec<&str> = open.map(|shard| shard.shard_id()).collect();
        match (split, open.as_slice()) {
            (true, [one]) => {
                let half = (1u128 << 127).to_string();
                let split = self.kinesis.split_shard().stream_name(STREAM).shard_to_split(*one);
                split.new_starting_hash_key(half).send().await.map(drop).unwrap();
            }
            (false, [a, b]) => {
                let merge = self.kinesis.merge_shards().stream_name(STREAM).shard_to_merge(*a);
                merge.adjacent_shard_to_merge(*b).send().await.map(drop).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn put(kinesis: &aws_sdk_kinesis::Client, changes: &[Change]) {
    for few in changes.chunks(100) {
        let entry = |change: &Change| {
            let entry = PutRecordsRequestEntry::builder().partition_key(&change.partition_key);
            entry.data(Blob::new(change.json.clone())).build().unwrap()
        };
        let records = few.iter().map(entry).collect();
        let answer = kinesis.put_records().stream_name(STREAM).set_records(Some(records)).send().await.unwrap();
        assert_eq!(answer.failed_record_count(), Some(0));
    }
}

fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// Changes that no ledger reaches any more, in the order of their creation; and changes of the last days in any order.
fn changes(seed: u64, items: usize) -> (Vec<Change>, Vec<Change>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut old = records::lives(&mut rng, items, now_us() - 45 * DAY_US, 10 * DAY_S);
    let created = |change: &Change| {
        let value: Value = serde_json::from_str(&change.json).unwrap();
        value["dynamodb"]["ApproximateCreationDateTime"].as_i64().unwrap()
    };
    old.sort_by_key(created);
    let young = renamed(records::lives(&mut rng, items, now_us(), 20 * DAY_S), "young");
    (old, young)
}

/// The same changes, of other items.
fn renamed(changes: Vec<Change>, prefix: &str) -> Vec<Change> {
    let renamed = |change: Change| {
        let id = format!("{prefix}-{}", change.partition_key);
        let event = format!("{prefix}-{}", change.event_id);
        let json = change.json.replace(&format!("\"{}\"", change.event_id), &format!("\"{event}\""));
        let json = json.replace(&format!("{{\"S\":\"{}\"}}", change.partition_key), &format!("{{\"S\":\"{id}\"}}"));
        Change { event_id: event, partition_key: id, json, ..change }
    };
    changes.into_iter().map(renamed).collect()
}

/// What insertions count by another group or in other months.
fn inserts<'a>(
    changes: impl IntoIterator<Item = &'a Change>,
    group: impl Fn(&Change) -> String,
    month: impl Fn(i64) -> String,
) -> Totals {
    let mut totals = Totals::new();
    for change in changes {
        let (Some(scan), None) = (&change.new, &change.old) else { continue };
        let total = totals.entry((group(change), month(scan.at))).or_default();
        total.0 += 1;
        total.1 += scan.bytes;
    }
    totals
}

fn project(change: &Change) -> String {
    change.new.as_ref().map(|scan| scan.project.clone()).unwrap_or_default()
}

fn utc(at: i64) -> String {
    naive::rfc3339(at)[..7].to_owned()
}

fn in_utc(definition: &str) -> String {
    definition.replace(naive::ZONE, "UTC")
}

fn naive_inserts(changes: &[Change]) -> Totals {
    inserts(changes, project, naive::month)
}

/// Puts changes a few at a time until told to stop, and gives all that it put.
async fn traffic(kinesis: aws_sdk_kinesis::Client, stop: Arc<AtomicBool>) -> Vec<Change> {
    let mut all = Vec::new();
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut rng = fastrand::Rng::with_seed(1_000 + round);
        let few = renamed(records::lives(&mut rng, 4, now_us(), 3 * DAY_S), &format!("live{round}"));
        put(&kinesis, &few).await;
        all.extend(few);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    all
}

/// Another time zone, while events flow and the stream is split and merged.
#[tokio::test(flavor = "multi_thread")]
async fn another_time_zone_while_events_flow_and_shards_come_and_go() {
    let bench = Bench::start(&definition("")).await;
    let (old, young) = changes(1, 150);
    bench.put(&old).await;
    bench.put(&young).await;
    let before: Vec<Change> = old.into_iter().chain(young).collect();
    bench.comes_to("base", &naive_inserts(&before)).await;
    let tokyo = bench.file("utc.toml", &in_utc(&definition("")));
    let tokyo = tokyo.to_str().unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let flowing = tokio::spawn(traffic(bench.kinesis.clone(), Arc::clone(&stop)));
    bench.reshard(true).await;
    // Nothing is changed without --confirm.
    let plan = bench.said(&format!("rebuild --definition {tokyo} --into utc"), 0);
    assert_eq!(plan["plan"]["differences"], serde_json::json!(["time_zone: Europe/Berlin becomes UTC"]));
    assert_eq!((&plan["confirmed"], &plan["plan"]["seeded"]), (&Value::Bool(false), &Value::Bool(false)));
    assert_eq!(plan["next"], serde_json::json!([format!("recount rebuild --definition {tokyo} --into utc --confirm")]));
    assert_eq!(bench.recount("usage --set utc").status.code(), Some(3), "there is no such set");
    let compared = bench.recount("rebuild --into utc --compare");
    assert_eq!(compared.status.code(), Some(3), "nothing to compare with is not equal");

    let done = bench.said(&format!("rebuild --definition {tokyo} --into utc --confirm"), 0);
    assert!(done["loaded"]["as_numbers"].as_u64().unwrap() > 0, "{done}");
    assert!(done["loaded"]["counted"].as_u64().unwrap() > 0, "{done}");
    assert_eq!(done["reconciled"]["verdict"], "clean", "{done}");
    bench.reshard(false).await;
    // The same once more does nothing.
    let again = bench.said("rebuild --into utc --confirm --compare", 0);
    assert_eq!((&again["seeded"]["before"], &again["loaded"]["before"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!((&again["repaired"], &again["comparison"]["level"]), (&Value::from(0), &Value::from("groups")));
    assert_eq!(again["comparison"]["differ"], 0, "{again}");
    let fed = async || bench.said("sets", 0)["sets"][1]["consumer_behind"] == 0;
    until("the set to be fed", fed).await;
    bench.reshard(true).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let after = flowing.await.unwrap();
    let all: Vec<Change> = before.into_iter().chain(after).collect();

    let expected = inserts(&all, project, utc);
    assert_ne!(expected, naive_inserts(&all), "the zones must matter");
    bench.comes_to("utc", &expected).await;
    bench.comes_to("base", &naive_inserts(&all)).await;

    // Readers go by it after a switch, and back.
    assert_eq!(process::usage(&bench.serve.endpoint(), bench.path()), naive_inserts(&all));
    assert_eq!(bench.said("switch --to utc", 0)["switched"], false);
    assert_eq!(bench.said("switch --to utc --confirm", 0)["switched"], true);
    assert_eq!(process::usage(&bench.serve.endpoint(), bench.path()), expected);
    assert_eq!(
        (&bench.said("usage", 0)["set"], &bench.said("usage --set base", 0)["set"]),
        (&"utc".into(), &Value::Null)
    );
    // The set knows its own definition; another one is refused.
    assert_eq!(bench.recount("usage --definition recount.toml").status.code(), Some(3));
    let line = bench.said("sets", 0)["sets"][1].clone();
    assert_eq!((&line["home"], &line["current"]), (&Value::from("utc"), &Value::Bool(true)), "{line}");
    assert_eq!(bench.said("fsck", 0)["findings"], serde_json::json!([]));
    assert_eq!(bench.said("switch --to base --confirm", 0)["switched"], true);
    assert_eq!(process::usage(&bench.serve.endpoint(), bench.path()), naive_inserts(&all));
    // A copy of an old event changes neither: too old for one, known to the other.
    bench.put(&all[..50]).await;
    bench.comes_to("utc", &expected).await;
}

/// A definition with a sum that the old one did not have, and one that counts the net.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_sum_and_net_counts() {
    let plain = definition("").replace("sum = [\"bytes\"]\n", "");
    let bench = Bench::start(&plain).await;
    let (old, young) = changes(2, 120);
    bench.put(&old).await;
    bench.put(&young[..young.len() / 2]).await;
    bench.file("sum.toml", &definition(""));
    bench.file("net.toml", &definition("count = \"net\""));
    let summed = bench.said("rebuild --definition sum.toml --into summed --confirm --compare", 0);
    assert_eq!((&summed["comparison"]["level"], &summed["comparison"]["differ"]), (&"months".into(), &0.into()));
    let net = bench.said("rebuild --definition net.toml --into net --confirm --compare", 0);
    assert_eq!(net["comparison"]["level"], "nothing");
    bench.put(&young[young.len() / 2..]).await;
    let all: Vec<Change> = old.into_iter().chain(young).collect();
    bench.comes_to("summed", &naive_inserts(&all)).await;
    bench.comes_to("net", &records::net(&all)).await;
    // One set from another.
    let again = bench.said("rebuild --set net --definition sum.toml --into again --confirm", 0);
    assert_eq!(again["plan"]["from"], "net");
    bench.comes_to("again", &naive_inserts(&all)).await;
    for name in ["../x", "Upper", "base", ""] {
        assert_eq!(bench.recount(&format!("rebuild --into={name}")).status.code(), Some(3), "{name}");
    }
    assert_eq!(bench.recount("rebuild --set net --into net").status.code(), Some(3));
    assert_eq!(bench.recount("rebuild --definition net.toml --into summed").status.code(), Some(3));
}

/// Another group: what only one of the definitions can judge is in the quarantine of the other.
#[tokio::test(flavor = "multi_thread")]
async fn another_group() {
    let bench = Bench::start(&definition("")).await;
    let (_, mut young) = changes(3, 60);
    // Two without the old group, one without the new one.
    let inserted: Vec<usize> = (0..young.len()).filter(|i| young[*i].old.is_none()).take(3).collect();
    let (name, id) = ("\"project_id\":{\"S\":", "\"scan_id\":{\"S\":");
    for i in &inserted[..2] {
        young[*i].json = young[*i].json.replace(name, "\"other_id\":{\"S\":");
    }
    let image =
        young[inserted[2]].json.replacen(id, "\u{1}", 1).replace(id, "\"other_id\":{\"S\":").replace('\u{1}', id);
    young[inserted[2]].json = image;
    bench.put(&young).await;
    let counted = |without: &[usize]| -> Vec<Change> {
        let kept = young.iter().enumerate().filter(|(i, _)| !without.contains(i));
        kept.map(|(_, change)| change.clone()).collect()
    };
    bench.comes_to("base", &naive_inserts(&counted(&inserted[..2]))).await;
    bench.file("item.toml", &definition("").replace("project_id", "scan_id"));
    let done = bench.said("rebuild --definition item.toml --into items --confirm --compare", 1);
    assert_eq!((&done["seeded"]["rescued"], &done["seeded"]["quarantined"]), (&2.into(), &1.into()), "{done}");
    assert_eq!(done["reconciled"]["verdict"], "clean", "{done}");
    assert_eq!((&done["comparison"]["level"], &done["comparison"]["differ"]), (&"all".into(), &1.into()), "{done}");
    let expected = inserts(&counted(&inserted[2..]), |change| change.partition_key.clone(), naive::month);
    bench.comes_to("items", &expected).await;
}

/// A lost totals table, and a rebuild that is killed again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_totals_table_by_a_rebuild_that_is_killed_again_and_again() {
    let bench = Bench::start(&definition("lanes = 2")).await;
    let (old, young) = changes(4, 200);
    bench.put(&old).await;
    bench.put(&young).await;
    let all: Vec<Change> = old.into_iter().chain(young).collect();
    bench.comes_to("base", &naive_inserts(&all)).await;
    bench.dynamo.delete_table().table_name("recount-totals").send().await.unwrap();
    let mut rng = fastrand::Rng::with_seed(9);
    for _ in 0..12 {
        let mut command = process::command("recount", &bench.serve.endpoint(), bench.path());
        command.args(["rebuild", "--into", "again", "--confirm", "--format", "json"]);
        let mut child =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(rng.u64(20..1_200))).await;
        let _ = child.kill();
        child.wait().unwrap();
    }
    let done = bench.said("rebuild --into again --confirm", 0);
    assert_eq!(done["reconciled"]["verdict"], "clean", "{done}");
    assert_eq!(done["plan"]["differences"], serde_json::json!([]));
    bench.comes_to("again", &naive_inserts(&all)).await;
    bench.said("switch --to again --confirm", 0);
    assert_eq!(process::usage(&bench.serve.endpoint(), bench.path()), naive_inserts(&all));
    assert_eq!(bench.recount("sets").status.code(), Some(0));
}
