//! Erasure against a bucket in memory.

use std::sync::Arc;
use std::time::Duration;

use recount_schemas::host::Deadline;

use super::{EraseReport, Eraser, ItemKey, Rows};
use crate::archive::world::{World, archived, block_on, state};
use crate::compact::{MonthReport, Outcome};
use crate::log::{Kind, names};
use crate::rows::testing::{NOVEMBER, definition, record};

fn item(id: &str) -> Rows {
    Rows::Item(ItemKey::parse(&[format!("scan_id={id}")], &definition()).unwrap())
}

fn erase(world: &World, rows: &Rows, at_once: bool) -> EraseReport {
    let life = Duration::from_secs(900);
    let eraser = Eraser::new(world.objects.clone(), Arc::new(definition()), world.host.clone(), life);
    let planned = block_on(eraser.plan(rows)).unwrap();
    let report = block_on(eraser.run(rows, at_once)).unwrap();
    assert_eq!((&planned.months, planned.kept_count), (&report.months, report.kept_count), "as planned");
    report
}

/// Whether any object of the bucket holds the text: Parquet pages are decompressed first.
fn holds(world: &World, text: &str) -> Vec<String> {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let in_file = |bytes: bytes::Bytes| {
        let batches = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
        let mut batches = batches.map(|batch| format!("{:?}", batch.unwrap()));
        batches.any(|batch| batch.contains(text))
    };
    let held = |name: &String| {
        let bytes = world.objects.bytes(name).unwrap();
        match name.ends_with(".parquet") {
            true => in_file(bytes),
            false => String::from_utf8_lossy(&bytes).contains(text),
        }
    };
    world.objects.keys("").into_iter().filter(held).collect()
}

fn secret(id: &str, at: i64) -> String {
    record(id, Some("acme"), at, "7")
        .replace(r#""userIdentity":null"#, &format!(r#""userIdentity":{{"principalId":"of-{id}"}}"#))
}

#[test]
fn invariant_7_an_items_rows_lose_its_data_and_count_as_before() {
    let world = World::new();
    let shard = world.stream.open_shards().remove(0);
    for (i, id) in ["person-1", "other-2", "person-1", "other-3"].iter().enumerate() {
        // Each change of an item has an event ID of its own.
        let text = secret(id, NOVEMBER + i as i64 * 1_000)
            .replace(&format!(r#""eventID":"{id}""#), &format!(r#""eventID":"e{i}""#));
        world.stream.put(&shard, &text);
        world.run();
    }
    let before = state(&world.objects, &world.host);
    let sum = |state: &crate::log::State| {
        let mut all = crate::log::Fingerprint::default();
        state.live().for_each(|live| all.add(&live.file.fingerprint).unwrap());
        (all.rows, all.counts, all.sums)
    };
    assert!(!holds(&world, "person-1").is_empty());
    let report = erase(&world, &item("person-1"), true);
    assert!(report.finished && report.waiting == 0 && report.deleted > 0, "{report:?}");
    assert_eq!(report.months.values().map(|month| (month.rows, month.files)).collect::<Vec<_>>(), [(2, 2)]);
    let after = state(&world.objects, &world.host);
    assert_eq!(sum(&after), sum(&before), "no total changes");
    assert_eq!(archived(&world.objects, &after).len(), 4);
    assert_eq!(
        after.last.as_ref().map(|entry| (entry.kind, entry.origin.as_deref())),
        Some((Kind::Erasure, Some("erase")))
    );
    assert_eq!(holds(&world, "person-1"), Vec::<String>::new());
    assert!(!holds(&world, "other-2").is_empty() && !holds(&world, "of-other-3").is_empty());

    // Again: nothing is left. What comes again with an erased key is a duplicate, and its data comes to nobody.
    assert_eq!(erase(&world, &item("person-1"), true).months.len(), 0);
    let again = secret("person-1", NOVEMBER).replace(r#""eventID":"person-1""#, r#""eventID":"e0""#);
    world.stream.put(&shard, &again);
    world.stream.put(&shard, &again.replace(r#"{"N":"7"}"#, r#"{"N":"8"}"#));
    let report = world.run();
    assert_eq!((report.duplicates, report.conflicts, report.rows), (2, 0, 0));
    assert_eq!(holds(&world, "person-1"), Vec::<String>::new());

    // A compaction keeps erased rows as they are.
    block_on(world.compactor(&world.objects, Duration::ZERO).run(None, Deadline::NONE)).unwrap();
    assert_eq!(sum(&state(&world.objects, &world.host)), sum(&before));
}

/// An erasure moves its month's location. What an earlier one removed does not begin to wait anew with each of them.
#[test]
fn erasing_more_often_than_once_in_the_grace_still_deletes_what_was_removed() {
    const DAY: Duration = Duration::from_secs(86_400);
    let world = World::located();
    let catalog = world.catalog.clone().unwrap();
    let shard = world.stream.open_shards().remove(0);
    for i in 0..9 {
        let id = format!("person-{i}");
        let text = secret(&id, NOVEMBER + i).replace(&format!(r#""eventID":"{id}""#), &format!(r#""eventID":"e{i}""#));
        world.stream.put(&shard, &text);
    }
    world.run();
    for i in 0..9 {
        let eraser = Eraser::new(world.objects.clone(), Arc::new(definition()), world.host.clone(), DAY / 24);
        let eraser = eraser.with_catalog(Some(catalog.clone()));
        let report = block_on(eraser.run(&item(&format!("person-{i}")), false)).unwrap();
        assert!(report.finished && report.waiting > 0, "{report:?}");
        world.host.pass(DAY / 24 * 23);
        block_on(world.compactor(&world.objects, DAY).run(None, Deadline::NONE)).unwrap();
        // Each is held by what the erasure before the next one left, so two erasures later it is nowhere.
        for gone in 0..i {
            assert_eq!(holds(&world, &format!("person-{gone}")), Vec::<String>::new(), "after {i}");
        }
        assert!(!holds(&world, &format!("person-{i}")).is_empty(), "the grace is kept");
    }
}

#[test]
fn kept_records_of_an_item_lose_their_data_and_stay_where_they_are() {
    let world = World::new();
    let shard = world.stream.open_shards().remove(0);
    world.stream.put(&shard, &secret("person-1", NOVEMBER));
    world.stream.put(&shard, &secret("person-1", NOVEMBER).replace(r#"{"N":"7"}"#, r#"{"N":"8"}"#));
    world.stream.put(&shard, &secret("person-1", NOVEMBER + 1).replace(r#""bytes":{"N":"7"}"#, r#""bytes":{"S":"x"}"#));
    world.stream.put(&shard, "no record of person-1 at all");
    world.stream.put(&shard, "no record of another");
    world.run();
    let kept = || [world.objects.keys("quarantine/"), world.objects.keys("conflicts/")].concat();
    assert_eq!(kept().len(), 4);
    let names = kept();
    let report = erase(&world, &item("person-1"), true);
    assert_eq!((report.kept_count, report.kept.len()), (3, 3), "{report:?}");
    assert_eq!(kept(), names);
    for name in &report.kept {
        let kept: recount_schemas::quarantine::Quarantined =
            serde_json::from_slice(&world.objects.bytes(name).unwrap()).unwrap();
        assert!(kept.data.is_empty() && kept.reason.to_string().contains("erased on"), "{kept:?}");
    }
    assert_eq!(erase(&world, &item("person-1"), true).kept_count, 0);
    let (definition, scope) = (definition(), Default::default());
    let variants = crate::reconcile::evidence::variants(&world.objects, &definition, &scope);
    assert!(block_on(variants).unwrap().is_empty(), "an erased conflict says nothing");
}

#[test]
fn months_before_one_lose_all_their_data() {
    let world = World::new();
    let shard = world.stream.open_shards().remove(0);
    for (id, at) in
        [("old-1", NOVEMBER - 40 * 86_400_000_000), ("old-2", NOVEMBER - 86_400_000_000), ("new-1", NOVEMBER)]
    {
        world.stream.put(&shard, &secret(id, at));
    }
    world.run();
    let report = erase(&world, &Rows::Before("2026-11".parse().unwrap()), false);
    assert_eq!(report.months.len(), 2);
    assert_eq!((report.deleted, report.waiting), (0, 2));
    let log = state(&world.objects, &world.host);
    assert_eq!(archived(&world.objects, &log).len(), 3);
    block_on(world.compactor(&world.objects, Duration::ZERO).run(None, Deadline::NONE)).unwrap();
    // Event IDs stay; what said who it was is gone.
    assert_eq!(holds(&world, "of-old"), Vec::<String>::new());
    assert_eq!(holds(&world, "of-new-1").len(), 1);
    assert!(world.objects.keys(names::STAGING).is_empty());
}

/// Under `net` the images decide what a row counts: they keep the attributes that do, and nothing else.
#[tokio::test]
async fn under_net_the_images_keep_what_counts() {
    use super::strip::{chosen, strip};
    use crate::rows::row::Place;
    use crate::rows::{ArchivedRow, prove, write};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let text = "[source]\ntable='scans'\nkey=['scan_id']\n[fold]\ngroup_by='project_id'\noccurred_at='scanned_at'\nsum=['bytes']\ncount='net'";
    let definition = recount_schemas::Definition::parse(text, "recount.toml").unwrap();
    let text = secret("person-1", NOVEMBER);
    let judged = definition.judge(text.as_bytes(), NOVEMBER + 1_000_000).unwrap();
    let place = Place { shard: "s".parse().unwrap(), sequence: "1".parse().unwrap(), arrived_us: NOVEMBER + 1_000_000 };
    let row = ArchivedRow::new(&definition, &judged, judged.change.content_hash().0, &text, place);
    let written = write(&definition, row.month, vec![row]).unwrap().unwrap();
    let batch = ParquetRecordBatchReaderBuilder::try_new(written.bytes.clone()).unwrap().build().unwrap().next();
    let batch = batch.unwrap().unwrap();
    let rows = Rows::Item(ItemKey::parse(&["scan_id=person-1".to_owned()], &definition).unwrap());
    let mask = chosen(&batch, &rows, &definition, "f").unwrap();
    let stripped = strip(&batch, &mask, &definition, "f").unwrap();
    let shown = format!("{stripped:?}");
    assert!(!shown.contains("scan_id") && shown.contains("project_id") && shown.contains("scanned_at"), "{shown}");
    let mut writer = crate::rows::FileWriter::new(&definition, written.month).unwrap();
    writer.write(&stripped).unwrap();
    let erased = prove(&definition, written.month, writer.finish().unwrap()).unwrap();
    assert_eq!(
        (erased.fingerprint.counts, &erased.fingerprint.sums),
        (written.fingerprint.counts, &written.fingerprint.sums)
    );
    assert_ne!(erased.fingerprint.hash, written.fingerprint.hash);
    assert!(!chosen(&stripped, &rows, &definition, "f").unwrap()[0], "it is erased once");
}

/// Somebody asks each day. What an erasure replaced is deleted after its own grace, and not after the last one's.
#[test]
fn what_one_erasure_replaced_does_not_wait_for_the_next_ones_grace() {
    const GRACE: Duration = Duration::from_secs(24 * 3_600);
    let world = World::new();
    let shard = world.stream.open_shards().remove(0);
    for i in 0..5 {
        world.stream.put(&shard, &secret(&format!("person-{i}"), NOVEMBER));
    }
    world.run();
    for i in 0..4 {
        let report = erase(&world, &item(&format!("person-{i}")), false);
        assert!(report.finished && report.waiting > 0 && report.uploads == 0, "{report:?}");
        world.host.pass(Duration::from_secs(20 * 3_600));
        let compacted = block_on(world.compactor(&world.objects, GRACE).run(None, Deadline::NONE)).unwrap();
        assert_eq!((compacted.deleted > 0, compacted.waiting > 0), (i > 0, true), "day {i}");
    }
    assert_eq!(holds(&world, "of-person-2"), Vec::<String>::new());
    assert!(!holds(&world, "of-person-3").is_empty(), "its grace is not over");
}

/// An erasure makes a new version of the month, and so would keep it from its turn for ever.
#[test]
fn a_month_in_which_something_is_erased_each_day_is_compacted_all_the_same() {
    const GRACE: Duration = Duration::from_secs(24 * 3_600);
    for world in [World::new(), World::located()] {
        let shard = world.stream.open_shards().remove(0);
        let catalog = world.catalog.clone().map(|catalog| catalog as Arc<dyn crate::archive::finish::Catalog>);
        let eraser = Eraser::new(world.objects.clone(), Arc::new(definition()), world.host.clone(), GRACE / 2);
        let eraser = eraser.with_catalog(catalog);
        let (mut compacted, mut deleted) = (0, 0);
        for day in 0..6 {
            for i in 0..3 {
                world.stream.put(&shard, &secret(&format!("person-{day}-{i}"), NOVEMBER));
                world.run();
            }
            assert!(block_on(eraser.run(&item(&format!("person-{day}-1")), false)).unwrap().finished);
            world.host.pass(Duration::from_secs(12 * 3_600));
            let report = block_on(world.compactor(&world.objects, GRACE).run(None, Deadline::NONE)).unwrap();
            let done = |month: &MonthReport| matches!(month.outcome, Outcome::Compacted(_));
            compacted += report.months.values().filter(|month| done(month)).count();
            deleted += report.deleted;
            world.host.pass(Duration::from_secs(12 * 3_600));
        }
        assert_eq!(compacted, 6, "once a day");
        assert!(deleted > 0);
        let files: Vec<usize> = state(&world.objects, &world.host).files.values().map(|files| files.len()).collect();
        assert_eq!(files, [1], "18 commits, and a few erasures, in one file");
        assert_eq!(holds(&world, "of-person-1-1"), Vec::<String>::new());
    }
}

/// Where a catalog is noted, a run that was not told of it cannot know what a location shows.
#[test]
fn nothing_is_deleted_at_once_where_a_catalog_is_noted_that_the_run_was_not_told_of() {
    let world = World::located();
    let shard = world.stream.open_shards().remove(0);
    world.stream.put(&shard, &secret("person-1", NOVEMBER));
    world.run();
    let report = erase(&world, &item("person-1"), true);
    assert_eq!((report.deleted, report.waiting), (0, 1));
    assert_eq!(report.unknown_catalog.as_deref(), Some("Locations"));
}

/// What may be written in is no bound on what must be read: a large archive is looked through in one run.
#[test]
fn looking_for_the_rows_takes_no_time_from_writing_them() {
    let world = World::new();
    let shard = world.stream.open_shards().remove(0);
    let (before, day) = (NOVEMBER - 40 * 86_400_000_000, 86_400_000_000);
    for at in [before, NOVEMBER - day, NOVEMBER] {
        world
            .stream
            .put(&shard, &secret("person-1", at).replace(r#""eventID":"person-1""#, &format!(r#""eventID":"{at}""#)));
    }
    world.run();
    world.stream.put(&shard, "no record of person-1");
    world.run();
    // Each reading of a file takes a third of the time.
    let host = world.host.clone();
    let slow = world.objects.with_reads(move |key, _| {
        if key.ends_with(".parquet") {
            host.pass(Duration::from_secs(300));
        }
    });
    let eraser = Eraser::new(slow, Arc::new(definition()), world.host.clone(), Duration::from_secs(900));
    let report = block_on(eraser.run(&item("person-1"), true)).unwrap();
    assert!(report.finished && report.months.len() == 3 && report.kept_count == 1, "{report:?}");
    assert_eq!(holds(&world, "of-person-1"), Vec::<String>::new());
}

/// What is no part of the archive and may hold the data is told: uploads that nobody committed, items of plans.
#[test]
fn what_may_hold_the_data_elsewhere_is_told() {
    let world = World::new();
    let shard = world.stream.open_shards().remove(0);
    world.stream.put(&shard, &secret("person-1", NOVEMBER));
    world.run();
    for name in [names::staged(1, "ab", 0), "backfills/parts/1-ab.jsonl.gz".to_owned()] {
        block_on(crate::bucket::Objects::put(&world.objects, &name, bytes::Bytes::from_static(b"x"))).unwrap();
    }
    let report = erase(&world, &item("person-1"), true);
    assert_eq!((report.finished, report.uploads, report.parts), (true, 1, 1));
}

/// An object that is no kept record is an error, and keeps nothing of the archive from being erased.
#[test]
fn what_is_no_kept_record_does_not_keep_the_replaced_files() {
    let world = World::new();
    let shard = world.stream.open_shards().remove(0);
    world.stream.put(&shard, &secret("person-1", NOVEMBER));
    world.run();
    let foreign = format!("quarantine/{shard}/7");
    block_on(crate::bucket::Objects::put(&world.objects, &foreign, bytes::Bytes::from_static(b"?"))).unwrap();
    let eraser =
        Eraser::new(world.objects.clone(), Arc::new(definition()), world.host.clone(), Duration::from_secs(900));
    let error = block_on(eraser.run(&item("person-1"), true)).unwrap_err();
    assert!(error.to_string().contains(&foreign), "{error}");
    assert_eq!(holds(&world, "of-person-1"), Vec::<String>::new());
}

/// An erasure that is cut at each of its writes, before it is done or just after: the same command completes it.
#[test]
fn invariant_7_an_erasure_that_is_killed_at_any_write_is_completed_by_the_same_command() {
    use crate::bucket::memory::Fault;
    use std::sync::Mutex;
    use std::task::Waker;
    let made = || {
        let world = World::new();
        let shard = world.stream.open_shards().remove(0);
        for (i, id) in ["person-1", "other-2", "person-1", "person-1"].iter().enumerate() {
            let at = NOVEMBER - (i as i64 % 2) * 40 * 86_400_000_000 + i as i64;
            let text = secret(id, at).replace(&format!(r#""eventID":"{id}""#), &format!(r#""eventID":"e{i}""#));
            world.stream.put(&shard, &text);
        }
        world.stream.put(&shard, "no record of person-1 at all");
        world.run();
        world
    };
    let sum = |world: &World| {
        let state = state(&world.objects, &world.host);
        let mut all = crate::log::Fingerprint::default();
        state.live().for_each(|live| all.add(&live.file.fingerprint).unwrap());
        let mut keys = archived(&world.objects, &state);
        keys.sort();
        (all.rows, all.counts, all.sums, keys)
    };
    let mut cuts = Vec::new();
    for fault in [Fault::RequestLost, Fault::AnswerLost, Fault::Late] {
        let mut nth = 0;
        loop {
            let mut world = made();
            let before = sum(&world);
            let met = Arc::new(Mutex::new(0));
            let count = met.clone();
            let objects = world.objects.with_faults(move |_, _| {
                let mut count = count.lock().unwrap();
                *count += 1;
                if *count > nth { fault } else { Fault::None }
            });
            let life = Duration::from_secs(900);
            let eraser = Eraser::new(objects, Arc::new(definition()), world.host.clone(), life);
            let rows = item("person-1");
            let mut run = Box::pin(eraser.run(&rows, true));
            let mut context = std::task::Context::from_waker(Waker::noop());
            // It ends, or it dies where it meets its first fault: its request is on the way, and nobody waits for the answer.
            let mut whole = false;
            while *met.lock().unwrap() <= nth && !whole {
                whole = run.as_mut().poll(&mut context).is_ready();
            }
            drop(run);
            if whole && *met.lock().unwrap() <= nth {
                break;
            }
            world.check();
            assert_eq!(sum(&world), before, "{fault:?} at write {nth}");
            // What was on the way lands now, before the same command, or after it.
            let early = nth % 2 == 0;
            while early && world.objects.land(0) {}
            let report = block_on(
                Eraser::new(world.objects.clone(), Arc::new(definition()), world.host.clone(), life).run(&rows, true),
            );
            assert!(report.unwrap().finished, "{fault:?} at write {nth}");
            let late = world.objects.land(0);
            assert_eq!(sum(&world), before, "{fault:?} at write {nth}");
            if late {
                // An upload or a copy that came after all: the next compaction and erasure delete it.
                world.host.pass(life);
                erase(&world, &item("person-1"), true);
            }
            let left: Vec<String> =
                holds(&world, "person-1").into_iter().filter(|name| !name.starts_with(names::STAGING)).collect();
            assert_eq!(left, Vec::<String>::new(), "{fault:?} at write {nth}");
            nth += 1;
        }
        cuts.push(nth);
    }
    assert!(cuts.iter().all(|cuts| *cuts >= 10), "{cuts:?}");
}
