//! Totals are what the oracle counts: live, by month and year, and from the archive; and reconcile agrees.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use futures::StreamExt;
use recount_local::pipeline::Options;

use crate::support::checks::{Seed, agree, ledgers, log, rows, streamed, tiles};
use crate::support::naive::{self, Scan};
use crate::support::records::{self, Change};
use crate::support::world::{World, definition, options};

/// What is counted, and the oracle's word on it.
enum Count {
    Inserts,
    Net { ttl_subtracts: bool },
}

impl Count {
    fn fold(&self) -> &'static str {
        match self {
            Self::Inserts => "count = \"inserts\"\n",
            Self::Net { ttl_subtracts: false } => "count = \"net\"\nttl_deletes = \"ignore\"\n",
            Self::Net { ttl_subtracts: true } => "count = \"net\"\nttl_deletes = \"subtract\"\n",
        }
    }

    fn expected(&self, changes: &[Change]) -> naive::Totals {
        match self {
            Self::Inserts => inserted(changes),
            Self::Net { ttl_subtracts } => records::net(changes.iter().filter(|c| *ttl_subtracts || !is_ttl(c))),
        }
    }
}

fn inserted<'a>(changes: impl IntoIterator<Item = &'a Change>) -> naive::Totals {
    naive::inserts(changes.into_iter().filter(|c| c.old.is_none()).filter_map(|c| c.new.as_ref()))
}

fn is_ttl(change: &Change) -> bool {
    change.json.contains("dynamodb.amazonaws.com")
}

/// Every other deletion becomes one by time to live.
fn with_ttl(mut changes: Vec<Change>) -> Vec<Change> {
    let service = r#""userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#;
    for change in changes.iter_mut().filter(|c| c.new.is_none()).step_by(2) {
        change.json = change.json.replace(r#""userIdentity":null"#, service);
    }
    changes
}

async fn lives_are_counted(seed: u64, count: Count, lanes: u16) {
    let _seed = Seed(seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = World::start(&definition(&format!("{}lanes = {lanes}", count.fold())), options()).await;
    let changes = with_ttl(records::lives(&mut rng, 250, world.host.now_us(), 3_600));
    assert!(changes.iter().any(is_ttl), "the lives must have expiries");
    // Two commits of the archive, so that months have several files.
    let (first, second) = changes.split_at(changes.len() / 3);
    world.put_changes(first).await;
    world.pipeline.archive().await.unwrap();
    world.put_changes(second).await;
    world.pipeline.drained().await.unwrap();

    let expected = count.expected(&changes);
    let years: std::collections::BTreeSet<_> = naive::years(&expected).into_keys().map(|(_, year)| year).collect();
    assert!(years.len() >= 3, "event times on both sides of the ends of years: {years:?}");
    agree(&world, &expected).await;
    assert_eq!(tiles(&world).await, 0);

    let tally = world.pipeline.tally();
    assert_eq!((tally.records, tally.duplicates, tally.failed), (changes.len() as u64, 0, 0));
    let ignored = tally.ignored.get("ttl_delete").copied().unwrap_or_default();
    let expiries = changes.iter().filter(|c| is_ttl(c)).count() as u64;
    assert_eq!(ignored, if matches!(count, Count::Net { ttl_subtracts: false }) { expiries } else { 0 });
    if matches!(count, Count::Inserts) {
        for (cell, (look, keys)) in ledgers(&world).await {
            assert_eq!(look.events, keys.len() as i64, "invariant 3: {cell:?}");
        }
    }
    let used: std::collections::BTreeSet<u16> = ledgers(&world).await.into_keys().map(|cell| cell.lane).collect();
    assert_eq!(used, (0..lanes).collect(), "every lane is used");
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_2_inserts_are_counted_once() {
    lives_are_counted(11, Count::Inserts, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_2_inserts_in_lanes_are_counted_once() {
    lives_are_counted(12, Count::Inserts, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_2_net_counting_follows_every_change() {
    lives_are_counted(13, Count::Net { ttl_subtracts: true }, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_2_net_counting_in_lanes_ignores_expiries_where_asked() {
    lives_are_counted(14, Count::Net { ttl_subtracts: false }, 4).await;
}

/// Copies of some changes, as DynamoDB would write them twice under another event ID.
fn again_under_other_ids(changes: &[Change]) -> Vec<Change> {
    let again = changes.iter().step_by(3).map(|change| {
        let event_id = format!("again-{}", change.event_id);
        let json = change.json.replace(&format!("\"{}\"", change.event_id), &format!("\"{event_id}\""));
        Change { event_id, json, ..change.clone() }
    });
    again.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_4_with_identity_change_another_event_id_changes_no_total() {
    let (seed, fold) = (21, "identity = \"change\"\ncount = \"net\"");
    let _seed = Seed(seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = World::start(&definition(fold), options()).await;
    let changes = records::lives(&mut rng, 150, world.host.now_us(), 600);
    let again = again_under_other_ids(&changes);
    let mut all: Vec<&Change> = changes.iter().chain(&again).collect();
    rng.shuffle(&mut all);
    world.put_changes(all).await;
    world.pipeline.drained().await.unwrap();
    agree(&world, &records::net(&changes)).await;
    assert_eq!(tiles(&world).await, again.len() as u64);
    assert_eq!(world.pipeline.tally().duplicates + no_effect(&world), again.len() as u64 + no_effects(&changes));
}

fn no_effect(world: &World) -> u64 {
    world.pipeline.tally().ignored.get("no_effect").copied().unwrap_or_default()
}

fn no_effects(changes: &[Change]) -> u64 {
    changes.iter().filter(|c| c.new == c.old).count() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_2_with_identity_event_id_another_event_id_is_another_event_and_the_archive_says_so() {
    let seed = 22;
    let _seed = Seed(seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = World::start(&definition(""), options()).await;
    let mut changes = records::lives(&mut rng, 100, world.host.now_us(), 600);
    changes.retain(|c| c.old.is_none());
    let again = again_under_other_ids(&changes);
    world.put_changes(changes.iter().chain(&again)).await;
    world.pipeline.drained().await.unwrap();
    agree(&world, &inserted(changes.iter().chain(&again))).await;

    let context = world.pipeline.context();
    let state = log(&world).await;
    let recounted = recount_compactor::recompute::recompute(&context.bucket, &context.definition, &state, &|_| {});
    assert_eq!(recounted.await.unwrap().same_change_pairs, again.len() as u64);
}

/// Items are put, changed and deleted in the source table, several at a time.
struct Table<'a> {
    world: &'a World,
}

impl Table<'_> {
    fn item(id: &str, scan: &Scan) -> HashMap<String, AttributeValue> {
        let text = |text: String| AttributeValue::S(text);
        HashMap::from([
            ("scan_id".to_owned(), text(id.to_owned())),
            ("project_id".to_owned(), text(scan.project.clone())),
            ("bytes".to_owned(), AttributeValue::N(scan.bytes.to_string())),
            ("scanned_at".to_owned(), text(naive::rfc3339(scan.at))),
        ])
    }

    async fn put(&self, id: &str, scan: &Scan) {
        let put = self.world.pipeline.clients().dynamodb.put_item().table_name("scans");
        put.set_item(Some(Self::item(id, scan))).send().await.unwrap();
    }

    async fn update(&self, id: &str, scan: &Scan) {
        let update = self.world.pipeline.clients().dynamodb.update_item().table_name("scans");
        let mut update = update
            .key("scan_id", AttributeValue::S(id.to_owned()))
            .update_expression("SET #project_id = :project_id, #bytes = :bytes, #scanned_at = :scanned_at");
        for (name, value) in Self::item(id, scan).into_iter().filter(|(name, _)| name != "scan_id") {
            update = update
                .expression_attribute_names(format!("#{name}"), name.clone())
                .expression_attribute_values(format!(":{name}"), value);
        }
        update.send().await.unwrap();
    }

    async fn delete(&self, id: &str) {
        let delete = self.world.pipeline.clients().dynamodb.delete_item().table_name("scans");
        delete.key("scan_id", AttributeValue::S(id.to_owned())).send().await.unwrap();
    }

    /// What the table holds, read by a scan.
    async fn held(&self) -> Vec<Scan> {
        let scan = self.world.pipeline.clients().dynamodb.scan().table_name("scans").consistent_read(true);
        let items: Vec<_> = scan.into_paginator().items().send().collect::<Result<_, _>>().await.unwrap();
        let of = |item: &HashMap<String, AttributeValue>| {
            Some(Scan {
                project: item.get("project_id")?.as_s().ok()?.clone(),
                at: item.get("scanned_at")?.as_s().ok()?.parse::<jiff::Timestamp>().ok()?.as_second(),
                bytes: item.get("bytes")?.as_n().ok()?.parse().ok()?,
            })
        };
        items.iter().map(|item| of(item).unwrap()).collect()
    }
}

/// Drives `items` items through the source table and returns what was inserted.
async fn live_in_the_table(world: &World, seed: u64, items: u64) -> Vec<Scan> {
    let lives = (0..items).map(|item| async move {
        let mut rng = fastrand::Rng::with_seed(seed * 1_000 + item);
        let (table, id) = (Table { world }, format!("item \"{item}\" 🦀"));
        // The states come from the same lives as elsewhere; what is done with them is drawn here.
        let states: Vec<Scan> =
            records::lives(&mut rng, 8, 1_796_000_000_000_000, 60).into_iter().filter_map(|c| c.new).collect();
        let (mut inserted, mut there) = (Vec::new(), false);
        for scan in &states {
            match (there, rng.u8(0..4)) {
                (false, _) => {
                    table.put(&id, scan).await;
                    inserted.push(scan.clone());
                    there = true;
                }
                (true, 0) => {
                    table.delete(&id).await;
                    there = false;
                }
                (true, 1) => table.update(&id, scan).await,
                (true, 2) => table.put(&id, scan).await,
                // The same state again: a write that changes nothing.
                (true, _) => {
                    table.update(&id, scan).await;
                    table.put(&id, scan).await;
                }
            }
        }
        inserted
    });
    let lives: Vec<_> = lives.collect();
    futures::stream::iter(lives).buffer_unordered(8).collect::<Vec<_>>().await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_2_net_totals_are_what_a_scan_of_the_source_table_finds() {
    let seed = 31;
    let _seed = Seed(seed);
    let world = World::start(&definition("count = \"net\"\nlanes = 2"), options()).await;
    live_in_the_table(&world, seed, 40).await;
    world.pipeline.drained().await.unwrap();
    let held = Table { world: &world }.held().await;
    assert!(held.len() > 10, "{}", held.len());
    agree(&world, &naive::inserts(&held)).await;
    tiles(&world).await;
    let classes: std::collections::BTreeSet<String> = rows(&world).await.into_iter().map(|row| row.class).collect();
    assert_eq!(classes, ["insert", "modify", "remove"].map(str::to_owned).into());
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_2_insert_totals_are_what_was_put_into_the_source_table() {
    let seed = 32;
    let _seed = Seed(seed);
    let world = World::start(&definition(""), options()).await;
    let inserted = live_in_the_table(&world, seed, 40).await;
    world.pipeline.drained().await.unwrap();
    agree(&world, &naive::inserts(&inserted)).await;
    tiles(&world).await;
}

/// Splits and merges in the middle of the stream's life. With `archiving`, the archive follows each step; without, one run
/// meets the whole lineage.
async fn resharded(seed: u64, archiving: bool) {
    let _seed = Seed(seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = World::start(&definition("count = \"net\""), Options { batch_size: 40, ..options() }).await;
    let changes = records::lives(&mut rng, 240, world.host.now_us(), 600);
    let (kinesis, stream) = (&world.pipeline.clients().kinesis, &world.settings().stream);
    let shard = |n: u32| format!("shardId-{n:012}");
    for (step, part) in changes.chunks(changes.len().div_ceil(4)).enumerate() {
        world.put_changes(part).await;
        match step {
            // Shard 0 has the lower half of the hashes: at a quarter of all it becomes 2 and 3.
            0 => {
                let split = kinesis.split_shard().stream_name(stream).shard_to_split(shard(0));
                split.new_starting_hash_key((1u128 << 126).to_string()).send().await.unwrap();
            }
            // 3 and 1 become 4: parents of different ages.
            1 => {
                let merge = kinesis.merge_shards().stream_name(stream).shard_to_merge(shard(3));
                merge.adjacent_shard_to_merge(shard(1)).send().await.unwrap();
            }
            // 2 and 4 become 5: all of the stream in one shard.
            2 => {
                let merge = kinesis.merge_shards().stream_name(stream).shard_to_merge(shard(2));
                merge.adjacent_shard_to_merge(shard(4)).send().await.unwrap();
            }
            _ => {}
        }
        if archiving {
            world.pipeline.archive().await.unwrap();
        }
    }
    // Redelivery across the ends of shards.
    for n in 0..6 {
        world.pipeline.chaos().rewind(&shard(n), 30);
    }
    world.pipeline.drained().await.unwrap();
    let used: std::collections::BTreeSet<_> = streamed(&world).await.into_iter().map(|record| record.shard).collect();
    assert_eq!(used.len(), 6, "every shard has had records");
    agree(&world, &records::net(&changes)).await;
    assert_eq!(tiles(&world).await, 0);
    assert!(world.pipeline.tally().duplicates > 0, "the rewinds delivered again");
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_5_ranges_tile_a_stream_that_is_split_and_merged() {
    resharded(41, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_5_ranges_tile_a_lineage_that_one_run_archives() {
    resharded(42, false).await;
}
