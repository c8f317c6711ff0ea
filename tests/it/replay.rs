//! Archived changes back into a stream: byte for byte, in order per item, once, also when the replay is killed; and over to the
//! live stream without gap or overlap, across splits and merges.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Stdio};

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use recount_compactor::bucket::Objects;
use recount_compactor::context::Context;
use recount_compactor::replay::{Ask, Question, Report, replay};
use recount_local::pipeline::Options;
use recount_schemas::items::{PK, SK, ledger_pk};
use recount_schemas::{Cell, Change as Decoded};
use serde_json::Value;

use crate::support::checks::{self, Seed, Streamed};
use crate::support::naive::{self, Scan};
use crate::support::process::until;
use crate::support::records::{self, Change};
use crate::support::shell::Shell;
use crate::support::world::{World, definition, options};

const LIVE: &str = "recount-changes";
const INTO: &str = "mended";

/// A record of a stream.
#[derive(Clone, Debug)]
struct Found {
    partition_key: String,
    text: String,
}

impl Found {
    fn event_id(&self) -> String {
        Decoded::decode(self.text.as_bytes()).unwrap().event_id.to_string()
    }

    fn item(&self) -> String {
        item(&self.text)
    }
}

fn item(text: &str) -> String {
    let record: Value = serde_json::from_str(text).unwrap();
    record["dynamodb"]["Keys"]["scan_id"]["S"].as_str().unwrap().to_owned()
}

async fn make(kinesis: &Client, stream: &str, shards: i32) {
    kinesis.create_stream().stream_name(stream).shard_count(shards).send().await.unwrap();
    until("the stream is active", async || {
        let answer = kinesis.describe_stream_summary().stream_name(stream).send().await.unwrap();
        answer.stream_description_summary().unwrap().stream_status().as_str() == "ACTIVE"
    })
    .await;
}

/// Every record of a stream, shard by shard, each shard in its order.
async fn records_of(kinesis: &Client, stream: &str) -> Vec<Found> {
    let found =
        |record: Streamed| Found { partition_key: record.partition_key, text: String::from_utf8(record.data).unwrap() };
    checks::records_of(kinesis, stream).await.into_iter().map(found).collect()
}

async fn put(kinesis: &Client, stream: &str, changes: &[Change]) {
    for few in changes.chunks(100) {
        let entries = few.iter().map(|change| {
            let entry = PutRecordsRequestEntry::builder().partition_key(&change.partition_key);
            entry.data(Blob::new(change.json.as_bytes())).build().unwrap()
        });
        let request = kinesis.put_records().stream_name(stream).set_records(Some(entries.collect()));
        assert_eq!(request.send().await.unwrap().failed_record_count(), Some(0));
    }
}

/// What a target must hold: each change, as it was, in order per item. Duplicates may be there where a replay was killed: then
/// the first of each are in order. Returns how many there are.
fn assert_replayed(found: &[Found], sent: &[Change]) -> usize {
    let originals: BTreeMap<&str, &Change> = sent.iter().map(|change| (change.event_id.as_str(), change)).collect();
    let (mut firsts, mut seen): (BTreeMap<String, Vec<String>>, _) = (BTreeMap::new(), BTreeSet::new());
    let mut keys: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for record in found {
        let id = record.event_id();
        let original = originals[id.as_str()];
        assert_eq!(
            serde_json::from_str::<Value>(&record.text).unwrap(),
            serde_json::from_str::<Value>(&original.json).unwrap(),
            "equal as JSON"
        );
        let (is, was) = (Decoded::decode(record.text.as_bytes()), Decoded::decode(original.json.as_bytes()));
        assert_eq!(is.unwrap(), was.unwrap(), "images byte for byte");
        keys.entry(record.item()).or_default().insert(&record.partition_key);
        if seen.insert(id.clone()) {
            firsts.entry(record.item()).or_default().push(id);
        }
    }
    assert!(keys.values().all(|keys| keys.len() == 1), "an item has one partition key");
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for change in sent {
        expected.entry(item(&change.json)).or_default().push(change.event_id.clone());
    }
    assert_eq!(firsts, expected, "each item's changes in their order");
    found.len() - sent.len()
}

/// Splits and merges, one step at a time: 0 becomes 2 and 3; 3 and 1 become 4; 2 and 4 become 5.
async fn reshard(kinesis: &Client, step: usize) {
    let shard = |n: u32| format!("shardId-{n:012}");
    match step {
        0 => {
            let split = kinesis.split_shard().stream_name(LIVE).shard_to_split(shard(0));
            split.new_starting_hash_key((1u128 << 126).to_string()).send().await.unwrap();
        }
        1 => {
            let merge = kinesis.merge_shards().stream_name(LIVE).shard_to_merge(shard(3));
            merge.adjacent_shard_to_merge(shard(1)).send().await.unwrap();
        }
        _ => {
            let merge = kinesis.merge_shards().stream_name(LIVE).shard_to_merge(shard(2));
            merge.adjacent_shard_to_merge(shard(4)).send().await.unwrap();
        }
    }
}

/// A pipeline, and a stream to replay into.
async fn shell() -> Shell {
    let shell = Shell::start(Some(&definition("")), &[]).await;
    make(&shell.clients.kinesis, INTO, 3).await;
    shell
}

impl Shell {
    fn spawn(&self, arguments: &[&str]) -> Child {
        self.command("recount").args(arguments).stdout(Stdio::null()).spawn().unwrap()
    }

    async fn replayed(&self) -> Vec<Found> {
        records_of(&self.clients.kinesis, INTO).await
    }
}

fn kill_9(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_changes_come_back_as_they_were_in_order_and_only_once() {
    let _seed = Seed(71);
    let mut rng = fastrand::Rng::with_seed(71);
    let shell = shell().await;
    let now_us = recount_schemas::host::SystemHost::shared().now_us();
    let changes = records::lives(&mut rng, 80, now_us, 600);
    for (step, part) in changes.chunks(changes.len().div_ceil(4)).enumerate() {
        put(&shell.clients.kinesis, LIVE, part).await;
        if step < 3 {
            reshard(&shell.clients.kinesis, step).await;
        }
    }
    // Duplicates that the source writes are archived once, and replayed once.
    put(&shell.clients.kinesis, LIVE, &changes[..20]).await;
    shell.run(0, &["archive"]);

    let all = ["replay", "--into", INTO];
    let plan = shell.run(0, &all);
    assert_eq!((plan["events"].as_u64(), plan["sent"].as_u64()), (Some(changes.len() as u64), Some(0)), "{plan}");
    assert!(shell.replayed().await.is_empty(), "nothing is sent without --confirm");
    let report = shell.run(0, &[&all[..], &["--confirm"]].concat());
    assert_eq!((report["finished"].as_bool(), report["sent"].as_u64()), (Some(true), Some(changes.len() as u64)));
    assert_eq!(assert_replayed(&shell.replayed().await, &changes), 0);
    // The same question is the same replay: it is done.
    let again = shell.run(0, &[&all[..], &["--confirm"]].concat());
    assert_eq!((again["resumed"].as_bool(), again["finished"].as_bool()), (Some(true), Some(true)));
    assert_eq!(shell.replayed().await.len(), changes.len());

    // A part of it, by group and by time of creation.
    let mut created: Vec<i64> =
        changes.iter().map(|change| Decoded::decode(change.json.as_bytes()).unwrap().created_us).collect();
    created.sort_unstable();
    let (from, to) = (created[created.len() / 4], created[created.len() / 2]);
    let wanted: Vec<Change> = changes
        .iter()
        .filter(|change| {
            let image = change.new.as_ref().or(change.old.as_ref()).unwrap();
            let created = Decoded::decode(change.json.as_bytes()).unwrap().created_us;
            image.project == "acme" && (from..to).contains(&created)
        })
        .cloned()
        .collect();
    make(&shell.clients.kinesis, "part", 1).await;
    let time = |us: i64| jiff_text(us);
    let (from, to) = (time(from), time(to));
    let checkpoint = shell.data.join("checkpoint.json");
    let checkpoint = checkpoint.to_str().unwrap();
    let part = [
        "replay",
        "--into",
        "part",
        "--group",
        "acme",
        "--from",
        &from,
        "--to",
        &to,
        "--checkpoint",
        checkpoint,
        "--confirm",
    ];
    assert_eq!(shell.run(0, &part)["events"].as_u64(), Some(wanted.len() as u64));
    assert!(!wanted.is_empty());
    assert_eq!(assert_replayed(&records_of(&shell.clients.kinesis, "part").await, &wanted), 0);

    // Where somebody else's consumer takes over: behind the last record of each shard.
    let positions = shell.run(0, &["replay", "--into", INTO, "--positions"]);
    assert_eq!(positions["shards"].as_object().unwrap().len(), 6, "{positions}");
    for (shard, position) in positions["shards"].as_object().unwrap() {
        assert_eq!(position["closed"].as_bool().unwrap(), shard != "shardId-000000000005", "{positions}");
        assert!(position["sequence_number"].is_string(), "{positions}");
    }
    for (code, arguments, says) in [
        (3, &["replay", "--into", LIVE, "--hand-over"][..], "handed over into itself"),
        (3, &["replay", "--into", INTO, "--from", "2026-11-02", "--to", "2026-11-01"], "--from is not before --to"),
        (3, &["replay", "--into", INTO, "--checkpoint", checkpoint], "it is another replay's"),
        (2, &["replay", "--into", "nowhere"], "it is not there; make it first"),
        (2, &["replay", "--into", INTO, "--group", "acme", "--positions"], "no replay by these options is done"),
    ] {
        let said = shell.run(code, arguments);
        assert!(said.as_str().unwrap().contains(says), "{said}");
    }
}

/// RFC 3339 with microseconds.
fn jiff_text(us: i64) -> String {
    let whole = naive::rfc3339(us.div_euclid(1_000_000));
    whole.replace('Z', &format!(".{:06}Z", us.rem_euclid(1_000_000)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_goes_on_behind_what_was_acknowledged() {
    let _seed = Seed(72);
    let mut rng = fastrand::Rng::with_seed(72);
    let shell = shell().await;
    let now_us = recount_schemas::host::SystemHost::shared().now_us();
    let changes = records::lives(&mut rng, 300, now_us, 600);
    put(&shell.clients.kinesis, LIVE, &changes).await;
    shell.run(0, &["archive"]);
    // A window has a second's worth: at most so many records come twice for each kill.
    let rate = 60;
    let slow = ["replay", "--into", INTO, "--confirm", "--rate", "60"];
    for round in 1..=3 {
        let child = shell.spawn(&slow);
        until("the replay has gone on", async || shell.replayed().await.len() >= round * 100).await;
        kill_9(child);
    }
    let report = shell.run(0, &["replay", "--into", INTO, "--confirm", "--rate", "5000"]);
    assert_eq!((report["finished"].as_bool(), report["resumed"].as_bool()), (Some(true), Some(true)));
    let twice = assert_replayed(&shell.replayed().await, &changes);
    assert!(twice <= 3 * rate, "{twice} records came twice");

    // Over to the live stream, followed; killed there too.
    let follow = ["replay", "--into", "live-copy", "--hand-over", "--follow", "--confirm"];
    make(&shell.clients.kinesis, "live-copy", 2).await;
    let more = records::lives(&mut fastrand::Rng::with_seed(73), 60, now_us, 600);
    let rename = |change: &Change, n: usize| {
        let (from, to) = (item(&change.json), format!("{}-{n}", item(&change.json)));
        Change {
            event_id: format!("{n}/{}", change.event_id),
            json: change.json.replace(&change.event_id, &format!("{n}/{}", change.event_id)).replace(&from, &to),
            ..change.clone()
        }
    };
    let copied = async || records_of(&shell.clients.kinesis, "live-copy").await;
    let mut sent = changes.clone();
    for n in 0..3 {
        let child = shell.spawn(&follow);
        let before = sent.len();
        until("the archive is through", async || copied().await.len() >= before).await;
        let part: Vec<Change> = more.iter().map(|change| rename(change, n)).collect();
        put(&shell.clients.kinesis, LIVE, &part).await;
        reshard(&shell.clients.kinesis, n).await;
        until("some of it is forwarded", async || copied().await.len() > before).await;
        kill_9(child);
        sent.extend(part);
    }
    let report = shell.run(0, &["replay", "--into", "live-copy", "--hand-over", "--confirm"]);
    assert_eq!(report["finished"].as_bool(), Some(true));
    assert_replayed(&copied().await, &sent);
}

/// What a checkpoint says is held against the stream that it goes into, against itself, and against the archive.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_believed_only_where_it_is_true() {
    let shell = shell().await;
    let now_us = recount_schemas::host::SystemHost::shared().now_us();
    let changes = records::lives(&mut fastrand::Rng::with_seed(75), 40, now_us, 600);
    put(&shell.clients.kinesis, LIVE, &changes).await;
    shell.run(0, &["archive"]);
    let file = shell.data.join("checkpoint.json");
    let replay = ["replay", "--into", INTO, "--confirm", "--checkpoint", file.to_str().unwrap()];
    shell.run(0, &replay);
    let kept = |change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(&file, value.to_string()).unwrap();
    };
    let (whole, all) = (std::fs::read(&file).unwrap(), changes.len());
    let place = "00".repeat(8);
    for (phase, sent, says) in [
        // Somebody would have all of it taken for sent, or half of it.
        (serde_json::json!({"archive": {"last": null, "rows": all, "sent": all}}), all, "it contradicts itself"),
        (serde_json::json!({"archive": {"last": place, "rows": all, "sent": all}}), all, "0 stand before its place"),
        (serde_json::json!({"archive": {"last": "ff", "rows": all, "sent": 3}}), 3, "it says that 3 records were sent"),
        (serde_json::json!({"archive": {"last": place, "rows": all + 1, "sent": 0}}), 0, "it had"),
        (serde_json::json!("live"), all, "which was not asked for"),
    ] {
        kept(&|value| (value["phase"], value["sent"]) = (phase.clone(), sent.into()));
        let said = shell.run(3, &replay);
        assert!(said.as_str().unwrap().contains(says), "{phase}: {said}");
        std::fs::write(&file, &whole).unwrap();
    }
    assert_eq!(shell.replayed().await.len(), all, "nothing of that sent anything");

    // A stream of that name that has nothing of it.
    shell.clients.kinesis.delete_stream().stream_name(INTO).send().await.unwrap();
    until("the stream is gone", async || {
        shell.clients.kinesis.describe_stream_summary().stream_name(INTO).send().await.is_err()
    })
    .await;
    make(&shell.clients.kinesis, INTO, 1).await;
    let said = shell.run(3, &replay);
    assert!(said.as_str().unwrap().contains("was deleted and made anew since"), "{said}");
    std::fs::remove_file(&file).unwrap();
    shell.run(0, &replay);
    assert_eq!(assert_replayed(&shell.replayed().await, &changes), 0);
}

/// Changes that cannot be put together again are told of by every run, not only by the one that came upon them.
#[tokio::test(flavor = "multi_thread")]
async fn a_finished_replay_says_again_what_it_could_not_send() {
    let shell = shell().await;
    let now_us = recount_schemas::host::SystemHost::shared().now_us();
    let changes = records::lives(&mut fastrand::Rng::with_seed(76), 30, now_us, 600);
    put(&shell.clients.kinesis, LIVE, &changes).await;
    shell.run(0, &["archive"]);
    let erased = item(&changes[0].json);
    let lost = changes.iter().filter(|change| item(&change.json) == erased).count() as u64;
    shell.run(0, &["erase", &format!("scan_id={erased}"), "--confirm", "--grace", "0"]);
    for resumed in [false, true, true] {
        let report = shell.run(1, &["replay", "--into", INTO, "--confirm"]);
        assert_eq!((&report["resumed"], &report["finished"]), (&resumed.into(), &true.into()), "{report}");
        assert_eq!(report["incomplete"].as_u64(), Some(lost), "{report}");
        assert_eq!(report["incomplete_ids"].as_array().unwrap().len() as u64, lost, "{report}");
        assert_eq!(report["sent"].as_u64(), Some(changes.len() as u64 - lost), "{report}");
    }
}

async fn unpaced(world: &World) -> Context {
    let mut context = world.pipeline.context().clone();
    context.limits = context.limits.unpaced();
    context
}

async fn hand_over(context: &Context) -> Report {
    let question = Question { from_us: None, to_us: None, group: None, into: INTO.to_owned(), hand_over: true };
    let ask = Ask {
        question,
        rate: Some(100_000),
        bytes_per_second: Some(1 << 30),
        checkpoint: None,
        follow: false,
        confirm: true,
    };
    replay(context, &ask, &|_| {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_has_neither_gap_nor_overlap_across_splits_and_merges() {
    let _seed = Seed(74);
    let mut rng = fastrand::Rng::with_seed(74);
    let world = World::start(&definition(""), options()).await;
    let kinesis = world.pipeline.clients().kinesis.clone();
    make(&kinesis, INTO, 2).await;
    let context = unpaced(&world).await;
    let changes = records::lives(&mut rng, 200, world.host.now_us(), 600);
    let parts: Vec<&[Change]> = changes.chunks(changes.len().div_ceil(5)).collect();
    let upto = |n: usize| parts[..=n].concat();
    let copied = async || records_of(&kinesis, INTO).await;

    // Some is archived, some is not: the archive goes to the tip first.
    put(&kinesis, LIVE, parts[0]).await;
    world.pipeline.archive().await.unwrap();
    put(&kinesis, LIVE, parts[1]).await;
    reshard(&kinesis, 0).await;
    let report = hand_over(&context).await;
    assert_eq!((report.sent, report.forwarded), (upto(1).len() as u64, 0));
    assert_eq!(assert_replayed(&copied().await, &upto(1)), 0);

    // From then on the live stream, over a merge in the middle.
    put(&kinesis, LIVE, parts[2]).await;
    reshard(&kinesis, 1).await;
    put(&kinesis, LIVE, parts[3]).await;
    // What the archive does meanwhile is not sent again.
    world.pipeline.archive().await.unwrap();
    let live = (parts[2].len() + parts[3].len()) as u64;
    let report = hand_over(&context).await;
    assert_eq!((report.sent, report.forwarded, report.finished), (upto(1).len() as u64, live, true));
    assert_eq!(assert_replayed(&copied().await, &upto(3)), 0);

    // Where the stream is not the one that was read, the archive has what lies between.
    let key = report.checkpoint.clone();
    let kept = context.bucket.get(&key, 1 << 20).await.unwrap().unwrap();
    let mut kept: Value = serde_json::from_slice(&kept).unwrap();
    kept["stream"]["created_ms"] = Value::from(1);
    context.bucket.put(&key, serde_json::to_vec(&kept).unwrap().into()).await.unwrap();
    put(&kinesis, LIVE, parts[4]).await;
    reshard(&kinesis, 2).await;
    let report = hand_over(&context).await;
    assert_eq!((report.sent, report.forwarded), ((upto(1).len() + parts[4].len()) as u64, live));
    assert_eq!(assert_replayed(&copied().await, &upto(4)), 0);
    // And nothing is left.
    let report = hand_over(&context).await;
    assert_eq!(report.sent + report.forwarded, changes.len() as u64);
    assert_eq!(assert_replayed(&copied().await, &changes), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_4_a_replay_into_the_live_stream_changes_no_total_and_is_no_finding() {
    const DAY_US: i64 = 86_400_000_000;
    const AT: i64 = 1_794_300_000;
    let world = World::start(&definition(""), Options { shards: 1, ..options() }).await;
    let start = world.host.now_us();
    // Most are older than the ledger reaches back, and what it had of them is gone; the others are of today.
    let changes: Vec<Change> = (0..160)
        .map(|n| {
            let scan = Scan { project: "acme".to_owned(), at: AT + n, bytes: 1_000 + n };
            let created = if n < 120 { start - 60 * DAY_US + n * 60_000_000 } else { start - n * 1_000_000 };
            records::change(&format!("event-{n}"), &format!("item-{n}"), Some(&scan), None, created)
        })
        .collect();
    for few in changes.chunks(30) {
        world.put_changes(few).await;
        world.pipeline.drained().await.unwrap();
    }
    let cell = Cell { group: "acme".parse().unwrap(), month: naive::month(AT).parse().unwrap(), lane: 0 };
    let (dynamo, ledger) = (&world.pipeline.clients().dynamodb, &world.settings().ledger);
    let query = dynamo.query().table_name(ledger).consistent_read(true).key_condition_expression("pk = :pk");
    let pages = query.expression_attribute_values(":pk", AttributeValue::S(ledger_pk(&cell))).send().await.unwrap();
    assert!(pages.count() > 1);
    // The first pages have the oldest events; as after their expiry.
    for page in pages.items().iter().take(pages.items().len() - 1) {
        let delete = dynamo.delete_item().table_name(ledger);
        delete.key(PK, page[PK].clone()).key(SK, page[SK].clone()).send().await.unwrap();
    }
    let expected = naive::inserts(changes.iter().filter_map(|change| change.new.as_ref()));
    assert_eq!(world.totals().await, expected);
    assert_eq!(world.reconcile().await.findings, []);

    let question = Question { from_us: None, to_us: None, group: None, into: LIVE.to_owned(), hand_over: false };
    let ask =
        Ask { question, rate: Some(10_000), bytes_per_second: None, checkpoint: None, follow: false, confirm: false };
    let context = unpaced(&world).await;
    let plan = replay(&context, &ask, &|_| {}).await.unwrap();
    assert_eq!((plan.events, plan.warnings.len()), (160, 2), "{:?}", plan.warnings);
    assert!(
        plan.warnings[1].starts_with("120 changes older than the ledger reaches back (35 days)"),
        "{:?}",
        plan.warnings
    );
    let report = replay(&context, &Ask { confirm: true, ..ask }, &|_| {}).await.unwrap();
    assert_eq!((report.sent, report.finished), (160, true));
    world.pipeline.drained().await.unwrap();

    let tally = world.pipeline.tally();
    assert!(tally.too_old > 0, "{tally:?}");
    assert_eq!((tally.records, tally.applied), (320, 160));
    assert_eq!(world.totals().await, expected, "no total has changed");
    let archived = world.pipeline.archive().await.unwrap();
    assert_eq!(world.reconcile().await.findings, [], "events that are counted are no finding: {archived:?}");
}
