//! Compaction against a bucket in memory: every crash and every fault at each request, races with archivers and other
//! compactors, and what every reader sees at each moment.

use std::collections::BTreeSet;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use recount_schemas::Month;
use recount_schemas::host::{Deadline, Host};

use super::report::Outcome;
use super::{CompactError, CompactReport, Compactor, Limits, check_grace};
use crate::archive::finish::Catalog;
use crate::archive::shown::Shown;
use crate::archive::world::{Dice, Run, World, archived, block_on, state};
use crate::bucket::Objects;
use crate::bucket::memory::{Fault, Memory};
use crate::log::{Kind, LogStore, State, names};
use crate::rows::testing::definition;

const HOUR: Duration = Duration::from_secs(3_600);
const GRACE: Duration = Duration::from_secs(24 * 3_600);

fn compacted(world: &World, grace: Duration) -> CompactReport {
    block_on(world.compactor(&world.objects, grace).run(None, Deadline::NONE)).unwrap()
}

/// A world whose months have some files each.
fn world_of_files(world: World, seed: u64) -> (World, Dice) {
    let (mut world, mut dice) = (world, Dice(seed));
    world.stream.retention_hours = 8_760; // these tests let days pass
    for _ in 0..18 {
        world.produce(&mut dice);
    }
    world.run();
    world.check();
    (world, dice)
}

#[test]
fn invariant_7_many_files_become_one_with_the_same_rows() {
    let (mut world, mut dice) = world_of_files(World::new(), 1);
    let before = state(&world.objects, &world.host);
    let planned = block_on(world.compactor(&world.objects, GRACE).plan(None)).unwrap();
    assert_eq!(state(&world.objects, &world.host), before, "a plan changes nothing");
    let report = compacted(&world, GRACE);
    assert!(report.finished && report.months.len() >= 2, "{report:?}");
    for (month, told) in &report.months {
        assert!(matches!(told.outcome, Outcome::Compacted(_)) && told.into == 1, "{told:?}");
        assert_eq!((planned.months[month].files, planned.months[month].rows), (told.files, told.rows));
        assert_eq!(planned.months[month].outcome, Outcome::Planned);
    }
    let after = state(&world.objects, &world.host);
    assert!(after.files.values().all(|files| files.len() == 1));
    assert_eq!(archived(&world.objects, &after).len(), world.produced.len());
    assert_eq!((report.deleted, report.waiting), (0, before.live().count() as u64), "{report:?}");
    world.check();

    // A second run has nothing to do, not even once the grace is over but deleting.
    assert_eq!(compacted(&world, GRACE).months.len(), 0);
    world.host.pass(GRACE);
    let report = compacted(&world, GRACE);
    assert_eq!((report.months.len(), report.waiting), (0, 0));
    assert_eq!(report.deleted, before.live().count() as u64);
    world.check();
    (0..5).for_each(|_| world.produce(&mut dice));
    world.settle();
}

#[test]
fn a_month_is_left_alone_until_its_last_move_is_older_than_the_grace() {
    for world in [World::new(), World::located()] {
        let (mut world, mut dice) = world_of_files(world, 2);
        compacted(&world, GRACE);
        world.host.pass(23 * HOUR);
        (0..24).for_each(|_| world.produce(&mut dice));
        world.run();
        let report = compacted(&world, GRACE);
        assert!(report.months.values().all(|month| matches!(month.outcome, Outcome::NotDue(_))), "{report:?}");
        assert!(report.deleted == 0 && report.waiting > 0 && !report.months.is_empty(), "{report:?}");
        world.check();
        world.host.pass(HOUR);
        let again = compacted(&world, GRACE);
        assert!(again.months.values().all(|month| matches!(month.outcome, Outcome::Compacted(_))), "{again:?}");
        // What the first one removed does not wait for the grace of the second move: a month that is compacted
        // whenever it may be would keep everything.
        assert!(again.deleted == report.waiting && again.waiting > 0, "{again:?}");
        world.check();
        world.host.pass(GRACE);
        assert_eq!(compacted(&world, GRACE).deleted, again.waiting);
        world.settle();
    }
}

/// The catalog of another deployment.
#[derive(Debug)]
struct Elsewhere;

impl Catalog for Elsewhere {
    fn name(&self) -> String {
        "Elsewhere".to_owned()
    }

    fn place<'c>(&'c self, _: &'c State, _: &'c BTreeSet<Month>) -> BoxFuture<'c, Result<(), String>> {
        Box::pin(ready(Ok(())))
    }

    fn shown(&self, _: Month) -> BoxFuture<'_, Result<Option<Shown>, String>> {
        Box::pin(ready(Ok(None)))
    }
}

/// The locations may still show what was removed: a run that cannot ask them would delete it by its age alone, and would leave another
/// copy of each month that nobody is shown.
#[test]
fn where_a_catalog_is_noted_a_run_that_does_not_keep_it_merges_and_deletes_nothing() {
    let (world, _) = world_of_files(World::located(), 9);
    assert!(world.objects.bytes(crate::catalog::noted::NAME).is_some(), "noted by whoever placed a month");
    let untold = |grace| {
        let limits = Limits { grace, ..Limits::default() };
        Compactor::new(world.objects.clone(), Arc::new(definition()), world.host.clone()).with_limits(limits)
    };
    let neither = |what: &str| {
        let before = state(&world.objects, &world.host);
        for grace in [GRACE, Duration::ZERO] {
            for run in [untold(grace), untold(grace).with_catalog(Arc::new(Elsewhere))] {
                for report in [block_on(run.plan(None)).unwrap(), block_on(run.run(None, Deadline::NONE)).unwrap()] {
                    assert_eq!((report.deleted, report.months.len()), (0, 0), "{what}: {report:?}");
                    assert_eq!(report.unknown_catalog.as_deref(), Some("Locations"), "{what}");
                }
            }
        }
        assert_eq!(state(&world.objects, &world.host), before, "{what}");
    };
    neither("nothing removed yet");
    let before = state(&world.objects, &world.host);
    assert_eq!(compacted(&world, GRACE).unknown_catalog, None);
    world.host.pass(2 * GRACE);
    neither("removed files that are due");
    assert!(before.live().all(|live| world.objects.bytes(&live.file.target).is_some()));
    assert_eq!(compacted(&world, GRACE).deleted, before.live().count() as u64);
}

#[test]
fn a_grace_shorter_than_a_query_is_refused_where_months_have_locations() {
    let world = World::located();
    let catalog = world.catalog.as_deref().map(|catalog| catalog as &dyn crate::archive::finish::Catalog);
    let error = check_grace(HOUR - Duration::from_secs(1), catalog, false).unwrap_err();
    insta::assert_snapshot!(error, @"a grace of 3599 s deletes files that queries may still read: months are found by Locations, and Athena lets a query run for 30 minutes or more; give --grace 1h or more, or --under-readers where queries may fail");
    assert!(crate::erase::EraseError::from(error).is_usage());
    for (grace, catalog, under_readers) in [(HOUR, catalog, false), (HOUR / 2, catalog, true), (HOUR / 2, None, false)]
    {
        check_grace(grace, catalog, under_readers).unwrap();
    }
}

/// A log of the first format does not say what rows count. Also a month's only file is written anew, so that it does.
#[test]
fn a_file_whose_rows_were_not_counted_is_written_anew_once() {
    let mut world = World::new();
    let shard = world.stream.open_shards().remove(0);
    world.stream.put(&shard, &crate::rows::testing::record("e", Some("a"), crate::rows::testing::NOVEMBER, "7"));
    world.run();
    let mut log = state(&world.objects, &world.host);
    let name = names::entry(log.next - 1);
    let mut entry = log.last.clone().unwrap();
    assert_eq!(entry.added.len(), 1);
    entry.added[0].fingerprint.counts = None;
    block_on(world.objects.put(&name, entry.to_bytes().unwrap().into())).unwrap();
    let report = compacted(&world, Duration::ZERO);
    assert!(report.months.values().all(|month| matches!(month.outcome, Outcome::Compacted(_))), "{report:?}");
    log = state(&world.objects, &world.host);
    assert!(log.live().count() == 1 && log.live().all(|live| live.file.fingerprint.counts.is_some()));
    assert_eq!(compacted(&world, Duration::ZERO).months.len(), 0);
    world.host.pass(HOUR);
    world.check();
}

#[test]
fn a_month_can_be_compacted_alone() {
    let (mut world, _) = world_of_files(World::new(), 3);
    let month: Month = "2026-11".parse().unwrap();
    let report = block_on(world.compactor(&world.objects, GRACE).run(Some(month), Deadline::NONE)).unwrap();
    assert_eq!(report.months.keys().collect::<Vec<_>>(), [&month]);
    world.settle();
}

#[test]
fn a_large_merge_makes_several_files_and_fits_the_memory() {
    let (mut world, _) = world_of_files(World::new(), 4);
    let limits = Limits { grace: GRACE, inputs: 3, file_bytes: 40_000, ..Limits::default() };
    let compactor = Compactor::new(world.objects.clone(), Arc::new(definition()), world.host.clone());
    let report = block_on(compactor.with_limits(limits).run(None, Deadline::NONE)).unwrap();
    assert!(report.months.values().any(|month| month.into > 1), "{report:?}");
    world.settle();
    // One row in a file is the least that a limit can do.
    let (mut world, _) = world_of_files(World::new(), 4);
    let limits = Limits { grace: GRACE, file_bytes: 1 << 20, ..Limits::default() };
    let compactor = Compactor::new(world.objects.clone(), Arc::new(definition()), world.host.clone());
    assert!(!block_on(compactor.with_limits(limits).run(None, Deadline::NONE)).unwrap().months.is_empty());
    world.settle();
}

/// The rows of a file that is not what the log says never come into the archive under another name.
#[test]
fn invariant_7_a_merge_of_other_rows_is_refused() {
    let (world, _) = world_of_files(World::new(), 5);
    let of = |world: &World| state(&world.objects, &world.host);
    let log = of(&world);
    let files: Vec<_> = log.files.values().max_by_key(|files| files.len()).unwrap().values().collect();
    // Two files of as many rows change places: each is whole, and neither is the one that the log names.
    let (a, b) = files
        .iter()
        .flat_map(|a| files.iter().map(move |b| (a, b)))
        .find(|(a, b)| a.file.target < b.file.target && a.file.rows == b.file.rows)
        .unwrap();
    let bytes = |live: &crate::log::LiveFile| world.objects.bytes(&live.file.target).unwrap();
    let (of_a, of_b) = (bytes(a), bytes(b));
    let refused = |world: &World| {
        let before = of(world);
        let error = block_on(world.compactor(&world.objects, GRACE).run(None, Deadline::NONE)).unwrap_err();
        assert_eq!(of(world).next, before.next, "nothing was put: {error}");
    };
    block_on(world.objects.put(&a.file.target, of_b)).unwrap();
    refused(&world);
    // A log that says something else of a file's rows: made so by hand, with the chain of digests.
    block_on(world.objects.put(&a.file.target, of_a)).unwrap();
    let mut forged = of(&world);
    let month = a.file.month;
    forged.files.get_mut(&month).unwrap().get_mut(&a.file.target).unwrap().file.fingerprint.hash ^= 1;
    let compactor = world.compactor(&world.objects, GRACE);
    let mut report = CompactReport::default();
    let groups = compactor.plan_month(&forged, month, Ok(()), &mut report).unwrap();
    let log = LogStore::new(world.objects.clone(), world.host.clone());
    let life = crate::archive::life::Life::begin(world.host.clone(), HOUR, Deadline::NONE);
    let hash = definition().hash().to_owned();
    let host: recount_schemas::host::SharedHost = world.host.clone();
    let committer = crate::commit::Committer {
        objects: &world.objects,
        log: &log,
        definition: &hash,
        catalog: None,
        host: &host,
        life: &life,
    };
    let next = forged.next;
    let error = block_on(compactor.month(month, groups, &committer, &mut forged, &mut 0, &|_| {})).unwrap_err();
    assert!(matches!(error, CompactError::Differs { .. }), "{error}");
    assert!(error.to_string().contains("the hash over their content"), "{error}");
    assert_eq!(of(&world).next, next);
}

#[test]
fn invariant_6_an_event_that_stands_twice_is_not_merged() {
    let (world, _) = world_of_files(World::new(), 6);
    let log = state(&world.objects, &world.host);
    let file = &log.files.values().next().unwrap().values().next().unwrap().file;
    let again = crate::log::AddedFile { source: names::staged(0, "ab", 0), ..file.clone() };
    let life = crate::archive::life::Life::begin(world.host.clone(), HOUR, Deadline::NONE);
    let definition = Arc::new(definition());
    let files = [file.clone(), again];
    let limits = Limits::default();
    let mut merger = super::merge::Merger::new(&world.objects, &definition, file.month, &files, &limits, &life);
    assert!(matches!(block_on(merger.next_file()), Err(CompactError::Twice { .. })));
}

#[test]
fn names_that_no_entry_gave_out_stay() {
    let (world, _) = world_of_files(World::new(), 7);
    compacted(&world, Duration::ZERO);
    let month: Month = "2026-11".parse().unwrap();
    let foreign = [names::target(month, 0, 0, 77), names::month(month) + "000000000000/mine.parquet"];
    for name in &foreign {
        block_on(world.objects.put(name, bytes::Bytes::from_static(b"x"))).unwrap();
    }
    assert_eq!(compacted(&world, Duration::ZERO).deleted, 0);
    assert!(foreign.iter().all(|name| world.objects.bytes(name).is_some()));
}

/// What somebody put under the name of a file to come is replaced also where that file is taken over as it is.
#[test]
fn invariant_1_a_foreign_object_under_the_name_of_a_carried_file_is_replaced() {
    let (mut world, _) = world_of_files(World::new(), 8);
    let log = state(&world.objects, &world.host);
    for (month, n) in log.files.keys().flat_map(|month| (0..40).map(move |n| (*month, n))) {
        for i in 0..9 {
            let name = names::target(month, log.next + n, log.next + n, i);
            block_on(world.objects.put(&name, bytes::Bytes::from_static(b"PAR1 not ours"))).unwrap();
        }
    }
    world.host.pass(Duration::from_secs(60));
    // Of the fullest month one file is left over, and carried.
    let most = log.files.values().map(|files| files.len()).max().unwrap();
    let limits = Limits { inputs: most - 1, grace: Duration::ZERO, ..Limits::default() };
    let compactor = Compactor::new(world.objects.clone(), Arc::new(definition()), world.host.clone());
    block_on(compactor.with_limits(limits).run(None, Deadline::NONE)).unwrap();
    let after = state(&world.objects, &world.host);
    assert!(after.live().any(|live| !live.file.source.starts_with(names::STAGING)), "some were carried");
    assert_eq!(archived(&world.objects, &after).len(), world.produced.len());
    for live in after.live() {
        let bytes = world.objects.bytes(&live.file.target).unwrap();
        assert_eq!(crate::log::Digest::of(&bytes), live.file.sha256);
    }
    for name in world.objects.keys(names::EVENTS) {
        if after.find(&name).is_none() {
            block_on(world.objects.delete(&name)).unwrap();
        }
    }
    world.settle();
}

/// A run that dies at each step, and after it another one; and one each of whose writes, in turn, is lost, loses its answer,
/// or lands late.
#[test]
fn invariants_6_7_hold_wherever_a_compaction_dies() {
    for located in [false, true] {
        let made = || world_of_files(if located { World::located() } else { World::new() }, 9);
        let grace = if located { GRACE } else { Duration::ZERO };
        let mut context = Context::from_waker(Waker::noop());
        let mut steps = 0;
        loop {
            let (mut world, mut dice) = made();
            let mut run = world.compact(&mut dice, false, grace);
            let ended = (0..steps).any(|_| run.as_mut().poll(&mut context).is_ready());
            drop(run);
            world.check();
            finish(&mut world, &mut dice, grace);
            if ended {
                break;
            }
            steps += 5;
        }
        assert!(steps > 60, "{steps}");
        for fault in [Fault::AnswerLost, Fault::RequestLost, Fault::Late] {
            let mut nth = 0;
            loop {
                let (mut world, mut dice) = made();
                let met = Arc::new(Mutex::new(0));
                let count = met.clone();
                let objects = world.objects.with_faults(move |_, _| {
                    let mut count = count.lock().unwrap();
                    *count += 1;
                    if *count == nth + 1 { fault } else { Fault::None }
                });
                let outcome = block_on(world.compactor(&objects, grace).run(None, Deadline::NONE));
                let all = *met.lock().unwrap();
                assert!(outcome.is_ok() || all > nth, "{outcome:?}");
                world.check();
                if nth % 2 == 0 {
                    world.objects.land(0);
                    world.check();
                }
                finish(&mut world, &mut dice, grace);
                if all <= nth {
                    break;
                }
                nth += 1;
            }
            assert!(nth > 10, "{nth}");
        }
    }
}

/// More events, another compaction, the grace over: nothing is left of what happened.
fn finish(world: &mut World, dice: &mut Dice, grace: Duration) {
    (0..4).for_each(|_| world.produce(dice));
    world.run();
    world.check();
    world.host.pass(grace);
    compacted(world, grace);
    world.check();
    while world.objects.land(0) {}
    world.check();
    world.host.pass(grace);
    compacted(world, grace);
    let log = state(&world.objects, &world.host);
    let listed = world.objects.keys(names::EVENTS);
    assert_eq!(listed.len(), log.live().count(), "every removed file is deleted: {listed:?}");
    world.settle();
}

/// Two compactors and archivers at once, which crash, stall, lose answers, and are late.
fn history(seed: u64) -> usize {
    let (located, lossy) = (seed.is_multiple_of(3), seed.is_multiple_of(2));
    let grace = if located { 2 * HOUR } else { Duration::ZERO };
    let mut dice = Dice(seed);
    let (mut world, _) = world_of_files(if located { World::located() } else { World::new() }, seed);
    let mut runs: Vec<(i64, Run)> = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    let mut shown = Default::default();
    for _ in 0..60 {
        let now_ms = world.host.now_ms();
        match dice.roll(10) {
            0 | 1 => (0..=dice.roll(4)).for_each(|_| world.produce(&mut dice)),
            2 | 3 if runs.len() < 4 => runs.push((now_ms, world.archive(&mut dice, lossy))),
            4..=6 if runs.len() < 4 => runs.push((now_ms, world.compact(&mut dice, lossy, grace))),
            7 if !runs.is_empty() => drop(runs.swap_remove(dice.roll(runs.len() as u64) as usize)),
            8 => {
                world.host.pass(Duration::from_secs(dice.roll(if located { 5_000 } else { 60 })));
                // What is older than any run may be, the platform has ended.
                let oldest = world.host.now_ms() - 15 * 60 * 1_000;
                runs.retain(|(begun_ms, _)| *begun_ms > oldest || !located);
            }
            _ => drop(world.objects.land(dice.roll(4) as usize)),
        }
        for _ in 0..dice.roll(120) {
            if runs.is_empty() {
                break;
            }
            let at = dice.roll(runs.len() as u64) as usize;
            if runs[at].1.as_mut().poll(&mut context).is_ready() {
                drop(runs.swap_remove(at));
            }
        }
        let now = (world.objects.keys(names::LOG), world.objects.keys(names::EVENTS));
        if now != shown {
            world.check();
            shown = now;
        }
    }
    world.run();
    runs.into_iter().for_each(|(_, run)| block_on(run));
    world.check();
    let log = state(&world.objects, &world.host);
    let entry = |n: u64| crate::log::Entry::from_bytes(n, &world.objects.bytes(&names::entry(n)).unwrap()).unwrap();
    let compactions = (0..log.next).filter(|n| entry(*n).kind == Kind::Compaction).count();
    finish(&mut world, &mut dice, grace.max(Duration::from_secs(1)));
    compactions
}

#[test]
fn invariants_1_5_6_7_hold_whatever_races_crashes_and_is_late() {
    let mut compactions = 0;
    for seed in 0..16 {
        let outcome = std::panic::catch_unwind(|| history(seed));
        compactions += outcome.unwrap_or_else(|_| panic!("seed {seed}"));
    }
    assert!(compactions > 16, "{compactions}");
}

/// Of two compactors that merge the same files one wins; an archiver's commit between is carried over.
#[test]
fn invariant_7_a_merge_that_was_overtaken_is_dropped_and_one_beside_a_commit_goes_on() {
    let (mut dropped, mut carried) = (0, 0);
    for steps in (0..400).step_by(2) {
        let (mut world, mut dice) = world_of_files(World::new(), 10);
        let mut context = Context::from_waker(Waker::noop());
        let compactor = world.compactor(&world.objects, GRACE);
        let mut first = Box::pin(compactor.run(None, Deadline::NONE));
        if (0..steps).any(|_| first.as_mut().poll(&mut context).is_ready()) {
            break;
        }
        let other = steps % 4 == 0;
        if other {
            compacted(&world, GRACE);
        } else {
            (0..9).for_each(|_| world.produce(&mut dice));
            world.run();
        }
        let report = block_on(first).unwrap();
        let overtaken = report.months.values().any(|month| month.outcome == Outcome::Overtaken);
        dropped += usize::from(overtaken);
        assert!(other || !overtaken, "an archive entry overtakes no compaction: {report:?}");
        let log = state(&world.objects, &world.host);
        let of = |n: u64| {
            let bytes = world.objects.bytes(&names::entry(n)).unwrap();
            crate::log::Entry::from_bytes(n, &bytes).unwrap()
        };
        let entries: Vec<_> = (0..log.next).map(of).collect();
        let uploads =
            |entry: &crate::log::Entry| entry.added.iter().filter(|f| f.source.starts_with(names::STAGING)).count();
        carried += entries.iter().filter(|e| e.kind == Kind::Compaction && uploads(e) < e.added.len()).count();
        world.check();
        world.settle();
    }
    assert!(dropped > 3 && carried > 3, "{dropped} dropped, {carried} carried");
}

/// The same bucket, each of whose objects is never there: what a run without time does.
#[test]
fn a_run_without_time_changes_nothing_and_says_so() {
    let (world, _) = world_of_files(World::new(), 11);
    let before = world.objects.keys("");
    let none = Deadline::after(&*world.host, Duration::ZERO);
    let report = block_on(world.compactor(&world.objects, GRACE).run(None, none)).unwrap();
    assert!(!report.finished && report.months.is_empty());
    assert_eq!(world.objects.keys(""), before);
    let empty = Memory::new();
    let report = block_on(world.compactor(&empty, GRACE).run(None, Deadline::NONE)).unwrap();
    assert_eq!((report.finished, report.log_entries, empty.keys("").len()), (true, 0, 0));
}
