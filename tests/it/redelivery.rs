//! Records delivered again, in any order, cut, repetition and concurrency: no total changes.
//!
//! Most tests here hand Lambda events to consumers of their own. The pipeline's consumer then waits for a batch that never
//! fills, so that the tests alone decide what is delivered. The consumers seal early: with the deployed numbers a test
//! would need many thousands of events to get to pages and late keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::TryStreamExt;
use recount_compactor::recompute::recompute;
use recount_compactor::reconcile::{Kind, Verdict};
use recount_consumer::handler::{Clients, Consumer, response};
use recount_consumer::metrics::Metrics;
use recount_consumer::report::BatchReport;
use recount_consumer::totals::Totals;
use recount_consumer::tuning::{DAY_MS, Tuning};
use recount_local::pipeline::Options;
use recount_schemas::host::Deadline;
use recount_schemas::{Cell, EventKey};

use crate::support::checks::{Seed, Streamed, agree, ledgers, log, objects, streamed, tiles};
use crate::support::naive::{self, Scan};
use crate::support::records::{self, Change};
use crate::support::world::{World, definition, monthly, options};

/// The pipeline's own consumer gathers for five minutes, or for more records than a test has.
fn idle() -> Options {
    Options { batch_size: 10_000, window: Duration::from_secs(300), ..options() }
}

/// A consumer as Lambda would start one more of, but sealing early.
async fn consumer(world: &World) -> Consumer {
    let sdk = recount_local::client::in_process(world.engines.door()).await;
    let (clients, context) = (Clients::new(&sdk), world.pipeline.context());
    let definition = Arc::clone(&context.definition);
    let totals = Totals::new(clients.dynamo.clone(), world.settings(), Arc::clone(&definition), world.host.clone());
    let tuning = Tuning {
        named_keys: 4,
        seal_at: 6,
        keep_ms: 1_000,
        keep_keys: 2,
        hard_limit: 24,
        write_keys: 12,
        pause: Duration::from_millis(2),
        longest_pause: Duration::from_millis(50),
        ..totals.tuning().clone()
    };
    let consumer = Consumer::new(&clients, world.settings(), definition, world.host.clone(), Metrics::none());
    consumer.with_totals(totals.with_tuning(tuning))
}

/// A Lambda event (Lambda Developer Guide, "Using Lambda with Kinesis").
fn event(records: &[&Streamed]) -> Vec<u8> {
    let record = |record: &&Streamed| {
        serde_json::json!({
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": record.partition_key,
                "sequenceNumber": record.sequence.as_str(),
                "data": STANDARD.encode(&record.data),
                "approximateArrivalTimestamp": record.arrived_us as f64 / 1e6,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": format!("{}:{}", record.shard, record.sequence),
            "eventName": "aws:kinesis:record",
            "awsRegion": "us-east-1",
            "eventSourceARN": "arn:aws:kinesis:us-east-1:000000000000:stream/recount-changes",
        })
    };
    serde_json::to_vec(&serde_json::json!({ "Records": records.iter().map(record).collect::<Vec<_>>() })).unwrap()
}

/// Delivers a batch until no record of it is reported as failed, as a mapping would; the sum of all reports.
async fn deliver(consumer: &Consumer, records: &[&Streamed]) -> BatchReport {
    let (payload, mut sum) = (event(records), BatchReport::default());
    for _ in 0..100 {
        let report = consumer.process(&payload, Deadline::NONE).await.unwrap();
        assert_eq!(report.records, records.len() as u64);
        sum.add(&report);
        if response(&report).batch_item_failures.is_empty() {
            return sum;
        }
    }
    panic!("a batch was refused a hundred times: {sum:?}");
}

/// Every record, one to three times, in any order, in batches of any size.
fn cuts<'a>(rng: &mut fastrand::Rng, records: &'a [Streamed]) -> Vec<Vec<&'a Streamed>> {
    let mut all: Vec<&Streamed> = records.iter().flat_map(|record| vec![record; rng.usize(1..=3)]).collect();
    rng.shuffle(&mut all);
    let mut batches = Vec::new();
    while !all.is_empty() {
        batches.push(all.split_off(all.len() - rng.usize(1..=60).min(all.len())));
    }
    batches
}

/// The keys that each cell's ledger must have in the end.
fn keys(world: &World, records: &[Streamed]) -> BTreeMap<Cell, BTreeSet<EventKey>> {
    let mut keys = BTreeMap::<Cell, BTreeSet<EventKey>>::new();
    for record in records {
        let judged = world.pipeline.context().definition.judge(&record.data, record.arrived_us).unwrap();
        for (cell, _) in judged.effect.contributions() {
            keys.entry(cell.clone()).or_default().insert(judged.key);
        }
    }
    keys
}

/// How many pages hold a key below the greatest of an earlier page: keys that came late and were looked up.
async fn late_pages(world: &World) -> usize {
    let totals = &world.pipeline.context().totals;
    let mut late = 0;
    for (cell, (look, _)) in ledgers(world).await {
        let pages: Vec<_> = totals.pages(&cell, EventKey::MIN).try_collect().await.unwrap();
        let pages: Vec<_> = pages.iter().filter(|page| page.name.epoch < look.epoch).collect();
        let overlaps = |page: &&&recount_consumer::totals::Page| {
            let least = page.keys.iter().min();
            pages.iter().any(|earlier| earlier.name.epoch < page.name.epoch && Some(&earlier.name.greatest) > least)
        };
        late += pages.iter().filter(overlaps).count();
    }
    late
}

/// After the deliveries: the totals, the ledger, the archive, and one more delivery of everything in order.
async fn end(world: &World, expected: &naive::Totals, records: &[Streamed]) {
    let expected_keys = keys(world, records);
    let found: BTreeMap<Cell, BTreeSet<EventKey>> =
        ledgers(world).await.into_iter().map(|(cell, (_, keys))| (cell, keys)).collect();
    assert_eq!(found, expected_keys, "each counted key stands in its cell's ledger, and no other");
    assert_eq!(&world.totals().await, expected);

    // Most keys are on pages by now: only looking there tells that they were counted.
    let again = deliver(&consumer(world).await, &records.iter().collect::<Vec<_>>()).await;
    assert_eq!((again.applied, again.too_old, again.failed), (0, 0, 0), "{again:?}");
    agree(world, expected).await;
    tiles(world).await;
}

/// Creation times over six hours: in random order most keys are far below what was sealed when they come.
const SPREAD_S: i64 = 6 * 3_600;

fn effective(records: &[Streamed], world: &World) -> u64 {
    let effects = records.iter().map(|record| {
        let judged = world.pipeline.context().definition.judge(&record.data, record.arrived_us).unwrap();
        judged.effect.contributions().is_empty()
    });
    effects.filter(|none| !none).count() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_4_redelivery_in_any_order_changes_no_total() {
    for (seed, fold) in [(51, "count = \"inserts\""), (52, "count = \"net\"\nlanes = 2")] {
        let _seed = Seed(seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        let world = World::start(&definition(fold), idle()).await;
        let changes = records::lives(&mut rng, 160, world.host.now_us(), SPREAD_S);
        world.put_changes(&changes).await;
        let records = streamed(&world).await;
        let (consumer, mut sum) = (consumer(&world).await, BatchReport::default());
        for batch in cuts(&mut rng, &records) {
            sum.add(&deliver(&consumer, &batch).await);
        }
        assert_eq!(sum.applied, effective(&records, &world), "each change is applied by exactly one delivery");
        let expected = match fold.contains("net") {
            true => records::net(&changes),
            false => inserted(&changes),
        };
        assert!(sum.seals > 0 && sum.read_units > 0.0, "cells were sealed, items and pages were read: {sum:?}");
        assert!(late_pages(&world).await > 0, "late keys were looked up, and counted");
        end(&world, &expected, &records).await;
    }
}

fn inserted<'a>(changes: impl IntoIterator<Item = &'a Change>) -> naive::Totals {
    naive::inserts(changes.into_iter().filter(|c| c.old.is_none()).filter_map(|c| c.new.as_ref()))
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_4_eight_consumers_on_the_same_records_change_no_total() {
    let seed = 61;
    let _seed = Seed(seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = World::start(&definition("count = \"net\""), idle()).await;
    let mut changes = records::lives(&mut rng, 300, world.host.now_us(), SPREAD_S);
    changes.truncate(160);
    world.put_changes(&changes).await;
    let records = Arc::new(streamed(&world).await);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (consumer, records, mut rng) = (consumer(&world).await, Arc::clone(&records), rng.fork());
        tasks.spawn(async move {
            let mut sum = BatchReport::default();
            for batch in cuts(&mut rng, &records) {
                sum.add(&deliver(&consumer, &batch).await);
            }
            sum
        });
    }
    let mut sum = BatchReport::default();
    while let Some(done) = tasks.join_next().await {
        sum.add(&done.unwrap());
    }
    assert!(sum.seals > 0 && sum.read_units > 0.0, "cells were sealed and read: {sum:?}");
    end(&world, &records::net(&changes), &records).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_4_crashes_lost_answers_and_rewinds_change_no_total() {
    for seed in 71..74 {
        let _seed = Seed(seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        let options = Options { batch_size: rng.usize(5..40), shards: rng.i32(1..4), ..options() };
        let (shards, net) = (options.shards, rng.bool());
        let count = if net { "count = \"net\"" } else { "count = \"inserts\"" };
        let world = World::start(&definition(count), options).await;
        let changes = records::lives(&mut rng, 100, world.host.now_us(), SPREAD_S);
        let (chaos, faults) = (world.pipeline.chaos(), world.pipeline.faults());
        let mut crashes = 0;
        for part in changes.chunks(changes.len().div_ceil(4)) {
            chaos.repeat(rng.u32(0..4));
            chaos.lose_answers(rng.u32(0..3));
            crashes += 1;
            faults.crash_mid_batch(1);
            world.put_changes(part).await;
            for shard in 0..shards {
                chaos.rewind(&format!("shardId-{shard:012}"), rng.u64(0..80));
            }
        }
        world.pipeline.drained().await.unwrap();
        let expected = if net { records::net(&changes) } else { inserted(&changes) };
        agree(&world, &expected).await;
        assert_eq!(tiles(&world).await, 0, "the stream itself has no duplicates");
        let tally = world.pipeline.tally();
        assert!(tally.records > changes.len() as u64 && tally.duplicates > 0, "{tally:?}");
        assert!(faults.crashed() > 0 && faults.crashed() <= crashes, "{}", faults.crashed());
        assert!(objects(&world, recount_local::pipeline::ON_FAILURE).await.is_empty(), "no batch was given up");
    }
}

/// Insertions into one cell of `project`, created at these ages, in ms before now.
fn aged(world: &World, project: &str, ages_ms: impl IntoIterator<Item = i64>) -> Vec<Change> {
    let now_us = world.host.now_us();
    let scan = |bytes| Scan { project: project.to_owned(), at: 1_796_000_000, bytes };
    let change = |age_ms: i64| {
        let id = format!("{project}-{age_ms}");
        records::change(&id, &id, Some(&scan(age_ms % 1_000 + 1)), None, now_us - age_ms * 1_000)
    };
    ages_ms.into_iter().map(change).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn late_events_are_counted_as_far_as_the_ledger_reaches_and_listed_beyond() {
    const HOUR_MS: i64 = 3_600_000;
    // Seven times `seal_at`: the cells are sealed whatever the cuts.
    let young = || (0..42).map(|n| n * 10_000);
    let world = World::start(&definition("ledger_days = 35"), idle()).await;
    let consumer = consumer(&world).await;
    let fresh = aged(&world, "acme", young());
    // In order of age, also the least inside and the first outside of what the ledger reaches.
    let late = aged(&world, "acme", [3 * HOUR_MS, 5 * HOUR_MS, 20 * DAY_MS, 35 * DAY_MS - HOUR_MS]);
    let too_old = aged(&world, "acme", [35 * DAY_MS + HOUR_MS, 40 * DAY_MS, 41 * DAY_MS]);
    let old_and_first = aged(&world, "globex", [40 * DAY_MS, 50 * DAY_MS]);
    let after_it = aged(&world, "globex", young());
    let all: Vec<Change> =
        [&fresh, &late, &too_old, &old_and_first, &after_it].into_iter().flatten().cloned().collect();
    world.put_changes(&all).await;
    let records = streamed(&world).await;
    let of = |changes: &[Change]| -> Vec<&Streamed> {
        let ids: BTreeSet<&str> = changes.iter().map(|c| c.partition_key.as_str()).collect();
        records.iter().filter(|record| ids.contains(record.partition_key.as_str())).collect()
    };
    let verdicts = async |changes: &[Change]| {
        let mut sum = BatchReport::default();
        for batch in of(changes).chunks(5) {
            sum.add(&deliver(&consumer, batch).await);
        }
        (sum.applied, sum.duplicates, sum.too_old)
    };
    assert_eq!(verdicts(&fresh).await, (42, 0, 0));
    assert_eq!(verdicts(&too_old).await, (0, 0, 3));
    assert_eq!(verdicts(&late).await, (4, 0, 0));
    assert_eq!(verdicts(&late).await, (0, 4, 0));
    assert_eq!(verdicts(&too_old).await, (0, 0, 3), "and again, with nothing changed");
    // Where nothing was sealed yet, age alone refuses nothing: what was counted is all in `recent`.
    assert_eq!(verdicts(&old_and_first).await, (2, 0, 0));
    assert_eq!(verdicts(&old_and_first).await, (0, 2, 0));
    assert_eq!(verdicts(&after_it).await, (42, 0, 0));
    // Counted, sealed away, delivered again: its page may be gone, so it is not looked for. The number stays.
    assert_eq!(verdicts(&old_and_first).await, (0, 0, 2));

    let expected = inserted([&fresh, &late, &old_and_first, &after_it].into_iter().flatten());
    assert_eq!(world.totals().await, expected);
    let totals = &world.pipeline.context().totals;
    let mut listed = BTreeMap::new();
    for (cell, (look, keys)) in ledgers(&world).await {
        assert_eq!(look.events, keys.len() as i64, "{cell:?}");
        let entries: Vec<_> = totals.too_old(&cell).try_collect().await.unwrap();
        assert!(entries.iter().all(|entry| entry.delta.events == 1));
        listed.insert(cell.group.to_string(), entries.len());
    }
    assert_eq!(listed, [("acme".to_owned(), 3), ("globex".to_owned(), 2)].into());

    // Reconcile names those that the number lacks, and not those that were counted before they were listed.
    let report = world.reconcile().await;
    assert_eq!((report.verdict, report.findings.len()), (Verdict::Findings, 1), "{:?}", report.findings);
    let finding = &report.findings[0];
    let named: BTreeSet<&str> = finding.event_ids.iter().map(String::as_str).collect();
    assert_eq!(finding.kind, Kind::TooOld);
    assert_eq!(named, too_old.iter().map(|c| c.event_id.as_str()).collect());
    assert_eq!((finding.expected, finding.actual), (42 + 4 + 3, 42 + 4));

    // The archive has them all, whatever their age.
    let context = world.pipeline.context();
    let recounted = recompute(&context.bucket, &context.definition, &log(&world).await, &|_| {}).await.unwrap();
    assert_eq!(monthly(&recounted.totals), inserted(&all));
}
