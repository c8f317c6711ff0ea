//! Invariants 1, 5 and 6 of the archive against what a process, a network and S3 do to it: deaths at any request, lost
//! answers, refusals, two at once, one that sleeps through many commits; a stream made anew, and records trimmed unread.

mod flaky;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use flaky::{Fault, Flaky};
use futures::StreamExt;
use recount_compactor::archive::{Archiver, Kinesis, Limits, Until};
use recount_compactor::bucket::{Bucket, Objects};
use recount_compactor::context::Context;
use recount_compactor::contributions::Scope;
use recount_compactor::log::state::WINDOW;
use recount_compactor::log::{Digest, Entry, Kind, LogStore, State, names};
use recount_compactor::reconcile::{Kind as Finding, reconcile};
use recount_local::clients::Clients;
use recount_local::engines::{Engines, Options as EngineOptions};
use recount_local::manual::ManualHost;
use recount_schemas::host::{Deadline, Host, SharedHost, SystemHost};
use recount_schemas::{Definition, Settings};

use crate::support::records::{Change, lives};
use crate::support::world::{World, definition, options};

fn limits(page_records: i32) -> Limits {
    Limits { page_records, commit_bytes: 256 << 10, ..Limits::default().unpaced() }
}

fn archiver(world: &World, sdk: &SdkConfig, limits: Limits) -> Archiver {
    let bucket = Bucket::new(recount_local::client::s3(sdk), world.settings().bucket.as_str(), world.host.clone());
    let source = Kinesis::new(aws_sdk_kinesis::Client::new(sdk), world.settings().stream.as_str());
    Archiver::new(bucket, source, Arc::clone(&world.pipeline.context().definition), world.host.clone())
        .with_limits(limits)
}

async fn sdk(world: &World, fault: Fault) -> (SdkConfig, Flaky) {
    let flaky = Flaky::new(world.engines.door(), fault);
    let sdk = recount_local::client::in_process(world.engines.door()).await.into_builder();
    let retries = match fault {
        // Half of the failures meet our own code, half the SDK's retries.
        Fault::LoseAnswer(n) | Fault::Answer(n, ..) if n % 2 == 0 => RetryConfig::disabled(),
        _ => RetryConfig::standard().with_initial_backoff(Duration::from_millis(5)),
    };
    (sdk.http_client(flaky.clone()).retry_config(retries).build(), flaky)
}

async fn log(world: &World) -> (State, Vec<Entry>) {
    let (context, mut entries, mut previous) = (world.pipeline.context(), Vec::new(), None);
    let store = LogStore::new(context.bucket.clone(), context.host.clone());
    while let Some(bytes) = store.bytes_of(entries.len() as u64).await.unwrap() {
        let entry = Entry::from_bytes(entries.len() as u64, &bytes).unwrap();
        assert_eq!((entry.n, entry.previous), (entries.len() as u64, previous), "the chain");
        previous = Some(Digest::of(&bytes));
        entries.push(entry);
    }
    // Folding checks it all again: dense, chained, ranges that tile, targets that are new.
    (store.read_to_head().await.unwrap(), entries)
}

async fn names_under(world: &World, prefix: &str) -> Vec<String> {
    let bucket = &world.pipeline.context().bucket;
    let (mut listing, mut names) = (bucket.list(prefix), Vec::new());
    while let Some(page) = listing.next_page().await.unwrap() {
        names.extend(page.into_iter().map(|listed| listed.key));
    }
    names
}

/// The archive holds each of these events once and nothing else; log, files and staging are as they must be.
async fn assert_whole<'a>(world: &World, sent: impl IntoIterator<Item = &'a Change>, when: &str) -> Vec<Entry> {
    let (state, entries) = log(world).await;
    assert_tiled(&entries, when);
    // What is left in staging was never committed, and may yet be tidied: its plan's window is still open.
    let named: BTreeSet<&str> = entries.iter().flat_map(|e| &e.added).map(|file| file.source.as_str()).collect();
    for staged in names_under(world, names::STAGING).await {
        let base = names::staged_base(&staged).unwrap();
        assert!(!named.contains(staged.as_str()) && base + WINDOW > state.next, "{staged} {when}");
    }
    let mut live: Vec<String> = state.live().map(|live| live.file.target.clone()).collect();
    live.sort();
    assert_eq!(names_under(world, names::EVENTS).await, live, "files {when}");
    let mut stored: BTreeMap<String, u32> = BTreeMap::new();
    for live in state.live() {
        let bytes = world.pipeline.context().bucket.get(&live.file.target, 1 << 30).await.unwrap().unwrap();
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), (live.file.sha256, live.file.bytes), "{when}");
        let mut batches =
            Box::pin(recount_compactor::rows::read(&world.pipeline.context().bucket, &live.file, &["event_id"]));
        while let Some(batch) = batches.next().await {
            let batch = batch.unwrap();
            let ids = batch.column(0).as_any().downcast_ref::<arrow_array::StringArray>().unwrap();
            ids.iter().for_each(|id| *stored.entry(id.unwrap().to_owned()).or_default() += 1);
        }
    }
    let due: BTreeMap<String, u32> = sent.into_iter().map(|change| (change.event_id.clone(), 1)).collect();
    assert!(stored == due, "events {when}: {} stored, {} due", stored.len(), due.len());
    entries
}

/// Invariant 5: each range begins where the one before it in its shard ended.
fn assert_tiled(entries: &[Entry], when: &str) {
    let mut ends = BTreeMap::new();
    for entry in entries {
        for range in &entry.ranges {
            let shard = (entry.stream.clone(), range.shard.clone());
            let before = ends.insert(shard, (range.to.clone(), range.closed));
            assert_eq!(range.from, before.clone().and_then(|(to, _)| to), "{when}, entry {}", entry.n);
            assert!(!before.is_some_and(|(_, closed)| closed), "{when}: read on behind the end, entry {}", entry.n);
            assert_eq!(range.records, range.rows + range.duplicates + range.conflicts + range.quarantined, "{when}");
        }
    }
}

/// The process dies at its n-th request, for each n: before the request is sent, or when it has had its effect.
async fn deaths(fault: fn(u64) -> Fault) {
    let world = World::start(&definition(""), options()).await;
    let (mut sent, mut died) = (Vec::new(), 0);
    for n in 1..=60 {
        sent.extend(put(&world, n, 3).await);
        let (sdk, flaky) = sdk(&world, fault(n)).await;
        let archiver = archiver(&world, &sdk, limits(20));
        tokio::select! {
            ended = archiver.run(Until::Tip, Deadline::NONE) => assert!(ended.unwrap().reached_tip),
            // The future is dropped where it stands.
            () = flaky.struck() => died += 1,
        }
    }
    assert!(died > 30, "only {died} died");
    assert!(world.pipeline.archive().await.unwrap().reached_tip);
    assert_whole(&world, &sent, &format!("after deaths by {:?}", fault(0))).await;
    world.pipeline.drained().await.unwrap();
    assert_eq!(world.reconcile().await.findings, Vec::new());
}

/// Changes of items, made and put into the stream, with event IDs that no other seed gives.
async fn put(world: &World, seed: u64, items: usize) -> Vec<Change> {
    let changes = numbered(seed, items, world.host.now_us());
    world.put_changes(&changes).await;
    changes
}

fn numbered(seed: u64, items: usize, now_us: i64) -> Vec<Change> {
    let mut changes = lives(&mut fastrand::Rng::with_seed(seed), items, now_us, 60);
    for change in &mut changes {
        let id = format!("{seed}-{}", change.event_id);
        change.json = change.json.replace(&change.event_id, &id);
        change.event_id = id;
    }
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn invariants_1_5_and_6_a_process_that_dies_at_any_request() {
    deaths(Fault::DieBefore).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariants_1_5_and_6_a_process_that_dies_when_any_request_has_had_its_effect() {
    deaths(Fault::DieAfter).await;
}

/// Answers are lost, and S3 refuses: once for each request of a run, by each of its ways.
#[tokio::test(flavor = "multi_thread")]
async fn invariants_1_5_and_6_lost_answers_and_refusals() {
    let world = World::start(&definition(""), options()).await;
    let mut sent = put(&world, 500, 30).await;
    let faults =
        |n: u64| [Fault::LoseAnswer(n), Fault::Answer(n, 503, "SlowDown"), Fault::Answer(n, 500, "InternalError")];
    let mut seed = 1_000;
    for n in 1..=40 {
        seed += 1;
        sent.extend(put(&world, seed, 3).await);
        let (sdk, _flaky) = sdk(&world, faults(n)[n as usize % 3]).await;
        // What the run could not find out it says; the next one finds out.
        let _ = archiver(&world, &sdk, limits(30)).run(Until::Tip, Deadline::NONE).await;
    }
    // Conditional puts of the log: another request on the same name was under way; somebody is said to have been there.
    for fault in [Fault::Puts(409, "ConditionalRequestConflict"), Fault::Puts(412, "PreconditionFailed")] {
        seed += 1;
        sent.extend(put(&world, seed, 10).await);
        let (sdk, _flaky) = sdk(&world, fault).await;
        archiver(&world, &sdk, limits(30)).run(Until::Tip, Deadline::NONE).await.unwrap();
    }
    assert!(world.pipeline.archive().await.unwrap().reached_tip);
    assert_whole(&world, &sent, "after lost answers and refusals").await;
}

/// Two run at the same time, again and again; a third holds one request back until the others have committed many times.
#[tokio::test(flavor = "multi_thread")]
async fn invariants_5_and_6_two_at_once_and_one_that_wakes_up_late() {
    let world = World::start(&definition(""), options()).await;
    let (healthy, _) = sdk(&world, Fault::None).await;
    let mut sent = Vec::new();
    for n in 1..=6 {
        sent.extend(put(&world, n, 4).await);
        let (slow, flaky) = sdk(&world, Fault::Hold(6 * n)).await;
        let sleeper = archiver(&world, &slow, limits(25));
        let mut sleeper = Box::pin(sleeper.run(Until::Tip, Deadline::NONE));
        let ended = tokio::select! { () = flaky.struck() => None, ended = &mut sleeper => Some(ended) };
        for round in 0..2 {
            sent.extend(put(&world, 1_000 + 10 * n + round, 4).await);
            let (one, other) = (archiver(&world, &healthy, limits(10)), archiver(&world, &healthy, limits(15)));
            let (one, other) = tokio::join!(one.run(Until::Tip, Deadline::NONE), other.run(Until::Tip, Deadline::NONE));
            assert!(one.unwrap().reached_tip && other.unwrap().reached_tip);
        }
        flaky.release();
        let ended = match ended {
            Some(ended) => ended,
            None => sleeper.await,
        };
        ended.unwrap();
    }
    assert!(world.pipeline.archive().await.unwrap().reached_tip);
    assert_whole(&world, &sent, "after races").await;
}

/// A backlog much larger than a commit may be: several commits, none of them larger.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_committed_in_bounded_pieces() {
    let world = World::start(&definition(""), options()).await;
    let sent = put(&world, 7, 600).await;
    let (healthy, _) = sdk(&world, Fault::None).await;
    let report = archiver(&world, &healthy, limits(200)).run(Until::Tip, Deadline::NONE).await.unwrap();
    assert!(report.reached_tip && report.commits > 3, "{report:?}");
    let entries = assert_whole(&world, &sent, "after a backlog").await;
    let bytes: BTreeMap<&str, usize> =
        sent.iter().map(|change| (change.event_id.as_str(), change.json.len())).collect();
    let most = *bytes.values().max().unwrap() as u64;
    for entry in entries.iter().filter(|entry| entry.kind == Kind::Archive) {
        let records: u64 = entry.ranges.iter().map(|range| range.records).sum();
        assert!(records * most <= 256 << 10, "entry {} has {records} records of up to {most} bytes", entry.n);
    }
}

/// A stream that is deleted and made anew repeats shard ids. The old rows stay, the new ones are archived, and reconcile
/// knows both lives.
#[tokio::test(flavor = "multi_thread")]
async fn invariants_1_and_5_a_stream_made_anew() {
    let world = World::start(&definition(""), options()).await;
    let (kinesis, stream) = (&world.pipeline.clients().kinesis, &world.settings().stream);
    let mut sent = put(&world, 1, 40).await;
    world.pipeline.drained().await.unwrap();
    assert!(world.pipeline.archive().await.unwrap().reached_tip);
    for life in 2..4 {
        kinesis.delete_stream().stream_name(stream).send().await.unwrap();
        kinesis.create_stream().stream_name(stream).shard_count(2).send().await.unwrap();
        sent.extend(put(&world, life, 40).await);
        assert!(world.pipeline.archive().await.unwrap().reached_tip, "life {life}");
        let report = world.reconcile().await;
        // What the former life may have held beyond what was read, nobody can say any more: two open shards each time.
        let kinds: Vec<Finding> = report.findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, vec![Finding::Lost; 2 * (life as usize - 1)], "life {life}: {report:?}");
    }
    let entries = assert_whole(&world, &sent, "after the stream was made anew").await;
    let lives: BTreeSet<_> = entries.iter().filter_map(|entry| entry.stream.clone()).collect();
    assert_eq!(lives.len(), 3);
    let lost = entries.iter().flat_map(|entry| &entry.ranges).filter(|range| range.lost.is_some());
    assert!(lost.clone().all(|range| range.closed && range.records == 0) && lost.count() == 4);
}

/// Retention passes over records that nobody had read: the entry says so, reconcile says so for ever, and the run goes on.
#[tokio::test(flavor = "multi_thread")]
async fn invariant_1_what_the_stream_dropped_unread_is_said_to_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let manual = ManualHost::new(SystemHost::new().now_ms(), 5);
    manual.auto_advance(true);
    let host: SharedHost = manual.clone();
    let engines = Engines::open(dir.path(), Arc::clone(&host), EngineOptions::default()).unwrap();
    let sdk = recount_local::client::in_process(engines.door()).await;
    let (clients, settings) = (Clients::new(&sdk), Settings::default());
    let definition = Definition::parse(&definition(""), "recount.toml").unwrap();
    recount_local::setup::setup(&clients, &definition, &settings, 1, &host).await.unwrap();
    let mut context = Context::new(&sdk, settings, definition, Arc::clone(&host));
    context.limits = context.limits.unpaced();

    let mut archived = 0;
    for (life, days, lost) in [(1, 0, 0), (2, 6, 0), (3, 5, 0), (4, 8, 1), (5, 1, 1)] {
        // Records that wait for so long, and one that is young.
        let wait = |changes: Vec<Change>| async {
            for change in changes {
                let put = clients.kinesis.put_record().stream_name(&context.settings.stream);
                let data = aws_sdk_kinesis::primitives::Blob::new(change.json);
                put.partition_key(change.partition_key).data(data).send().await.unwrap();
            }
        };
        let old = numbered(life, 5, host.now_us());
        let olds = old.len() as u64;
        wait(old).await;
        manual.advance(Duration::from_secs(days * 86_400));
        let young = numbered(life + 100, 5, host.now_us());
        archived += young.len() as u64 + if days < 7 { olds } else { 0 };
        wait(young).await;
        let report = context.archive().await.unwrap();
        assert!(report.reached_tip, "life {life}");
        let reconciled = reconcile(&context, &Scope::all(), &|_| {}).await.unwrap().report;
        let kinds: Vec<Finding> = reconciled.findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, vec![Finding::Lost; lost], "round {life}: {reconciled:?}");
        let log = context.log().await.unwrap();
        assert_eq!(log.live().map(|live| live.file.rows).sum::<u64>(), archived, "round {life}");
    }
}
