//! The run against a bucket and a stream in memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use recount_schemas::Month;
use recount_schemas::host::{Deadline, Host};

use super::source::SourceError;
use super::world::{Dice, Run, World, archived, archiver, block_on, limits, run, state};
use super::{ArchiveError, ArchiveReport, Archiver, Limits, Until};
use crate::bucket::Objects;
use crate::log::{Entry, names};
use crate::rows::testing::{NOVEMBER, definition, definition_of, record};

#[test]
fn a_run_archives_what_is_there_and_the_next_one_has_nothing_to_do() {
    let (mut world, mut dice) = (World::new(), Dice(1));
    (0..40).for_each(|_| world.produce(&mut dice));
    let report = run(&world.objects, &world.stream, &world.host);
    assert_eq!(report.records, report.rows + report.duplicates + report.conflicts + report.quarantined);
    assert_eq!((report.records, report.rows), (40, world.produced.len() as u64));
    assert!(report.reached_tip && report.commits > 5, "{report:?}");
    assert_eq!(world.objects.keys(names::STAGING), Vec::<String>::new());
    world.settle();
}

#[test]
fn a_conflicting_variant_is_kept_beside_the_archive() {
    let world = World::new();
    let shard = world.stream.open_shards().remove(0);
    let first = record("x", Some("a"), NOVEMBER, "1");
    world.stream.put(&shard, &first);
    assert_eq!(run(&world.objects, &world.stream, &world.host).rows, 1);
    world.stream.put(&shard, &record("x", Some("b"), NOVEMBER, "1"));
    world.stream.put(&shard, &first);
    let report = run(&world.objects, &world.stream, &world.host);
    assert_eq!((report.rows, report.duplicates, report.conflicts), (0, 1, 1));
    let kept = world.objects.keys("conflicts/");
    assert_eq!(kept, ["conflicts/s0/6"]);
    let kept: recount_schemas::quarantine::Quarantined =
        serde_json::from_slice(&world.objects.bytes(&kept[0]).unwrap()).unwrap();
    assert_eq!(kept.reason.code, recount_schemas::QuarantineCode::Conflict);
}

#[test]
fn shards_split_and_merge_and_nothing_is_lost() {
    let (mut world, mut dice) = (World::new(), Dice(3));
    for round in 0..6 {
        (0..7).for_each(|_| world.produce(&mut dice));
        let open = world.stream.open_shards();
        match open.as_slice() {
            [one, other, ..] if round % 2 == 1 => world.stream.merge(one, other),
            [one, ..] => world.stream.split(one),
            [] => {}
        }
    }
    (0..7).for_each(|_| world.produce(&mut dice));
    world.settle();
    let state = state(&world.objects, &world.host);
    let ends = &state.streams.values().next().unwrap().shards;
    assert!(ends.values().filter(|end| end.closed).count() >= 8, "empty shards are closed too");
}

#[test]
fn a_quiet_shard_is_renewed_hourly_and_not_more_often() {
    let world = World::new();
    let renewals = |hours: f64| {
        world.host.pass(Duration::from_secs_f64(hours * 3_600.0));
        run(&world.objects, &world.stream, &world.host).renewals
    };
    assert_eq!([renewals(0.0), renewals(0.5), renewals(0.6), renewals(0.9), renewals(30.0)], [1, 0, 1, 0, 0]);
    // Thirty hours passed unseen, longer than the retention: what may have come and gone is named.
    assert_eq!(state(&world.objects, &world.host).lost.len(), 1);
}

#[test]
fn records_that_expired_unread_are_named_and_those_that_remain_are_archived() {
    let (mut world, mut dice) = (World::new(), Dice(4));
    let shard = world.stream.open_shards().remove(0);
    world.produce(&mut dice);
    run(&world.objects, &world.stream, &world.host);
    // The last record read is still there after a day less an hour, so the range is whole though nobody looked meanwhile.
    world.host.pass(Duration::from_secs(23 * 3_600));
    let at = world.host.now_us();
    world.stream.put(&shard, &record("late", Some("a"), at, "1"));
    assert_eq!(run(&world.objects, &world.stream, &world.host).lost, vec![]);
    // Two days in which records came and expired.
    world.stream.put(&shard, &record("gone", Some("a"), at, "1"));
    world.host.pass(Duration::from_secs(48 * 3_600));
    let at = world.host.now_us();
    let sequence = world.stream.put(&shard, &record("after", Some("a"), at, "1"));
    let report = run(&world.objects, &world.stream, &world.host);
    assert_eq!(report.lost.len(), 1);
    assert_eq!(report.lost[0].lost.before.as_ref(), Some(&sequence));
    assert!(report.lost[0].lost.after.is_some() && report.lost[0].lost.since_ms.is_some());
    assert_eq!((report.rows, report.reached_tip), (1, true));
}

#[test]
fn a_shard_that_expired_whole_is_closed_as_lost_and_its_children_are_read() {
    let (mut world, mut dice) = (World::new(), Dice(5));
    world.produce(&mut dice);
    run(&world.objects, &world.stream, &world.host);
    let parent = world.stream.open_shards().remove(0);
    world.stream.split(&parent);
    world.host.pass(Duration::from_secs(30 * 3_600));
    let child = world.stream.open_shards().remove(0);
    let at = world.host.now_us();
    world.stream.put(&child, &record("child", Some("a"), at, "1"));
    let report = run(&world.objects, &world.stream, &world.host);
    assert_eq!((report.rows, report.reached_tip), (1, true));
    assert_eq!(report.lost.iter().map(|hole| hole.shard.to_string()).collect::<Vec<_>>(), ["s0", "s1", "s2"]);
}

/// A shard that came and went between two runs: only its children, split off in their turn, still name it.
#[test]
fn a_shard_that_nobody_ever_saw_is_lost_by_its_own_name() {
    let (mut world, mut dice) = (World::new(), Dice(7));
    world.produce(&mut dice);
    run(&world.objects, &world.stream, &world.host);
    let eldest = world.stream.open_shards().remove(0);
    world.stream.split(&eldest);
    let parent = world.stream.open_shards().remove(0);
    let at = world.host.now_us();
    world.stream.put(&parent, &record("gone", Some("a"), at, "1"));
    world.stream.split(&parent);
    world.host.pass(Duration::from_secs(30 * 3_600));
    let report = run(&world.objects, &world.stream, &world.host);
    assert!(report.lost.iter().any(|hole| hole.shard == parent), "{parent} in {:?}", report.lost);
    assert!(report.lost.iter().all(|hole| hole.lost.since_ms.is_some()), "{:?}", report.lost);
    // It is said once.
    assert_eq!(run(&world.objects, &world.stream, &world.host).lost, vec![]);
}

#[test]
fn a_stream_made_anew_begins_anew() {
    let (mut world, mut dice) = (World::new(), Dice(6));
    (0..5).for_each(|_| world.produce(&mut dice));
    run(&world.objects, &world.stream, &world.host);
    world.host.pass(Duration::from_secs(60));
    world.stream.recreate();
    (0..5).for_each(|_| world.produce(&mut dice));
    run(&world.objects, &world.stream, &world.host);
    let state = state(&world.objects, &world.host);
    assert_eq!(state.streams.len(), 2);
    // Whether the former life held more than was read, nobody can say any more.
    let (former, now) = (state.streams.keys().next().unwrap(), state.streams.keys().last().unwrap());
    assert_eq!(state.lost.iter().map(|hole| &hole.stream).collect::<Vec<_>>(), [former]);
    assert!(!state.streams[now].shards.values().any(|end| end.closed));
    assert_eq!(archived(&world.objects, &state).len(), world.produced.len());
}

#[test]
fn what_a_former_life_still_held_is_named_once() {
    let (mut world, mut dice) = (World::new(), Dice(12));
    let first = world.stream.open_shards().remove(0);
    (0..3).for_each(|_| world.produce(&mut dice));
    run(&world.objects, &world.stream, &world.host);
    let read = state(&world.objects, &world.host).streams.values().next().unwrap().shards[&first].to.clone();
    // Records that nobody read go down with the stream.
    let at = world.host.now_us();
    (0..3).for_each(|n| drop(world.stream.put(&first, &record(&format!("unread{n}"), Some("a"), at, "1"))));
    world.host.pass(Duration::from_secs(60));
    world.stream.recreate();
    world.produce(&mut dice);
    let lost: Vec<usize> = (0..3).map(|_| run(&world.objects, &world.stream, &world.host).lost.len()).collect();
    assert_eq!(lost, [1, 0, 0]);
    let state = state(&world.objects, &world.host);
    let hole = &state.lost[0];
    assert_eq!((state.lost.len(), &hole.shard, &hole.lost.after, &hole.lost.before), (1, &first, &read, &None));
    assert_eq!(&hole.stream, state.streams.keys().next().unwrap());
    assert_eq!(archived(&world.objects, &state).len(), world.produced.len());
}

#[test]
fn a_run_without_time_writes_nothing_and_says_so() {
    let (mut world, mut dice) = (World::new(), Dice(7));
    world.produce(&mut dice);
    let none = Deadline::after(&*world.host, Duration::ZERO);
    let ended = block_on(archiver(&world.objects, &world.stream, &world.host).run(Until::Tip, none));
    assert!(matches!(ended, Err(ArchiveError::TimeIsUp)), "{ended:?}");
    assert_eq!(world.objects.keys(""), Vec::<String>::new());
}

#[test]
fn uploads_that_can_never_be_committed_are_deleted() {
    let (mut world, mut dice) = (World::new(), Dice(8));
    let orphan = names::staged(0, "ab", 0);
    block_on(world.objects.put(&orphan, bytes::Bytes::from_static(b"x"))).unwrap();
    for n in 0..64 {
        assert_eq!(world.objects.keys(names::STAGING).len(), 1, "entry {n} could still name it");
        while state(&world.objects, &world.host).next <= n {
            world.produce(&mut dice);
            block_on(archiver(&world.objects, &world.stream, &world.host).run(Until::Commits(1), Deadline::NONE))
                .unwrap();
        }
    }
    assert_eq!(world.objects.keys(names::STAGING), Vec::<String>::new());
}

#[test]
fn a_throttled_shard_does_not_hold_up_the_others() {
    let (mut world, mut dice) = (World::new(), Dice(11));
    let first = world.stream.open_shards().remove(0);
    world.stream.split(&first);
    run(&world.objects, &world.stream, &world.host);
    let open = world.stream.open_shards();
    (0..30).for_each(|_| world.produce(&mut dice));
    let limits = Limits { commit_bytes: 1 << 30, ..limits() };
    let run_once = |world: &World| {
        block_on(
            archiver(&world.objects, &world.stream, &world.host).with_limits(limits).run(Until::Tip, Deadline::NONE),
        )
    };
    let to = |report: &ArchiveReport, shard| report.shards[shard].to.clone();

    // One shard gives two pages and no more; the other one is read to its tip. What was read counts.
    world.stream.throttle(&open[0], 2);
    let report = run_once(&world).unwrap();
    assert!(report.records > 6 && report.records < 30 && !report.reached_tip, "{report:?}");
    assert!(to(&report, &open[0]).is_some() && to(&report, &open[1]).is_some(), "{report:?}");
    assert!(!report.shards[&open[0]].closed);

    // One gives nothing, the other has nothing: that is no failure of the run.
    world.stream.throttle(&open[0], 0);
    let report = run_once(&world).unwrap();
    assert_eq!((report.records, report.reached_tip), (0, false));

    // No shard gives anything: the run fails, and the archive stands as it stood.
    open.iter().for_each(|shard| world.stream.throttle(shard, 0));
    let before = world.objects.keys("");
    assert!(matches!(run_once(&world), Err(ArchiveError::Source(SourceError::Throttled(_)))));
    assert_eq!(world.objects.keys(""), before);

    open.iter().for_each(|shard| world.stream.throttle(shard, u64::MAX));
    world.settle();
}

/// Its parent is read to its end, all other shards to their tips: it is what the archive is behind by.
#[test]
fn a_child_of_which_nothing_was_read_is_behind_since_its_parent_was_read() {
    let (mut world, mut dice) = (World::new(), Dice(13));
    let first = world.stream.open_shards().remove(0);
    world.stream.split(&first);
    (0..6).for_each(|_| world.produce(&mut dice));
    run(&world.objects, &world.stream, &world.host);
    let before = world.stream.open_shards();
    world.stream.split(&before[0]);
    let open = world.stream.open_shards();
    let children: Vec<_> = open.iter().filter(|shard| !before.contains(shard)).collect();
    world.host.pass(Duration::from_secs(2 * 3_600));
    children.iter().for_each(|shard| world.stream.throttle(shard, 0));
    let report = run(&world.objects, &world.stream, &world.host);
    assert!(report.shards[&before[0]].closed && !report.reached_tip, "{report:?}");
    assert!(children.iter().all(|shard| report.shards[*shard].to.is_none()), "{report:?}");
    let lag = crate::archive::metrics::lag_seconds(&report, world.host.now_ms());
    assert!(lag.is_some_and(|lag| lag >= 2 * 3_600), "{lag:?} {report:?}");

    children.iter().for_each(|shard| world.stream.throttle(shard, u64::MAX));
    let report = run(&world.objects, &world.stream, &world.host);
    assert_eq!(crate::archive::metrics::lag_seconds(&report, world.host.now_ms()), Some(0));
    world.settle();
}

#[test]
fn an_archive_of_another_definition_is_refused_before_anything_is_put() {
    let (mut world, mut dice) = (World::new(), Dice(9));
    world.produce(&mut dice);
    let other = definition_of("other");
    let as_other = |world: &World| {
        let archiver =
            Archiver::new(world.objects.clone(), world.stream.clone(), Arc::new(other.clone()), world.host.clone());
        block_on(archiver.with_limits(limits()).run(Until::Tip, Deadline::NONE))
    };
    // A renewal alone says whose the log is.
    let empty = World::new();
    run(&empty.objects, &empty.stream, &empty.host);
    run(&world.objects, &world.stream, &world.host);
    for world in [&mut world, &mut { empty }] {
        (0..4).for_each(|_| world.produce(&mut dice));
        let before = world.objects.objects.lock().unwrap().clone();
        let refused = as_other(world).unwrap_err();
        let (ours, hash) = (other.hash().to_owned(), definition().hash().to_owned());
        assert!(
            matches!(&refused, ArchiveError::OtherDefinition { found, ours: o, .. } if *found == hash && *o == ours)
        );
        assert_eq!(*world.objects.objects.lock().unwrap(), before, "nothing was put");
        world.settle();
    }
}

/// Two runs of different definitions at once: one of them gets the log, the other one gets nothing into it.
#[test]
fn of_two_definitions_that_race_one_is_refused() {
    let mut steps = 0;
    loop {
        let (mut world, mut dice) = (World::new(), Dice(10));
        (0..6).for_each(|_| world.produce(&mut dice));
        let of = |definition| {
            let archiver =
                Archiver::new(world.objects.clone(), world.stream.clone(), Arc::new(definition), world.host.clone());
            archiver.with_limits(limits())
        };
        let (ours, other) = (of(definition()), of(definition_of("other")));
        let mut first = Box::pin(ours.run(Until::Tip, Deadline::NONE));
        let mut context = Context::from_waker(Waker::noop());
        if (0..steps).any(|_| first.as_mut().poll(&mut context).is_ready()) {
            break; // it was done before the second one began
        }
        let second = block_on(other.run(Until::Tip, Deadline::NONE));
        let first = block_on(first);
        assert!(first.is_ok() != second.is_ok(), "after {steps} steps: {first:?} {second:?}");
        let refused = first.err().or(second.err());
        assert!(matches!(refused, Some(ArchiveError::OtherDefinition { .. })), "after {steps} steps: {refused:?}");
        let log = state(&world.objects, &world.host);
        let entries = (0..log.next).map(|n| Entry::from_bytes(n, &world.objects.bytes(&names::entry(n)).unwrap()));
        let of: BTreeSet<String> = entries.map(|entry| entry.unwrap().definition).collect();
        assert_eq!(of.len(), 1, "after {steps} steps");
        steps += 1;
    }
    assert!(steps > 20);
}

/// Archivers and compactors that race, crash, and lose answers, at every storage operation.
fn history(seed: u64) {
    let (mut world, mut dice) = (World::new(), Dice(seed));
    let mut runs: Vec<Run> = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    let mut shown = Default::default();
    for _ in 0..60 {
        match dice.roll(10) {
            0..=2 => (0..=dice.roll(4)).for_each(|_| world.produce(&mut dice)),
            3 => {
                let open = world.stream.open_shards();
                if open.len() < 4 {
                    world.stream.split(&open[dice.roll(open.len() as u64) as usize]);
                } else {
                    world.stream.merge(&open[0], &open[1]);
                }
            }
            4 | 5 if runs.len() < 3 => runs.push(world.archive(&mut dice, seed.is_multiple_of(2))),
            6 if runs.len() < 3 => runs.push(world.compact(&mut dice, seed.is_multiple_of(2), Duration::ZERO)),
            7 if !runs.is_empty() => drop(runs.swap_remove(dice.roll(runs.len() as u64) as usize)), // it crashes here
            8 => world.host.pass(Duration::from_secs(dice.roll(60))),
            _ => drop(world.objects.land(dice.roll(4) as usize)),
        }
        // Everybody goes on some steps, in any order.
        for _ in 0..dice.roll(60) {
            if runs.is_empty() {
                break;
            }
            let at = dice.roll(runs.len() as u64) as usize;
            if runs[at].as_mut().poll(&mut context).is_ready() {
                drop(runs.swap_remove(at));
            }
        }
        let now = (world.objects.keys(names::LOG), world.objects.keys(names::EVENTS));
        if now != shown {
            world.check();
            shown = now;
        }
    }
    // Those that were only slow go on beside a fresh run.
    run(&world.objects, &world.stream, &world.host);
    runs.into_iter().for_each(block_on);
    world.settle();
}

#[test]
fn invariants_1_5_6_hold_whatever_races_crashes_and_gets_lost() {
    for seed in 0..12 {
        let outcome = std::panic::catch_unwind(|| history(seed));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

/// Prints which history shows each: `-- --nocapture`.
#[cfg(feature = "bugs")]
#[test]
fn invariants_1_5_6_show_the_deliberate_bugs() {
    use recount_schemas::bugs::{Bug, within};
    let shown = |bug, test: &dyn Fn()| {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| within(bug, test))).err()?;
        let text = panic.downcast_ref::<String>().cloned();
        Some(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    };
    for bug in [
        Bug::PreviousEntryIsNotFinished,
        Bug::FailedUploadIsCommitted,
        Bug::ChildrenBeforeParents,
        Bug::AnyEntryIsOurs,
        Bug::LostAnswerIsForgotten,
        Bug::FailedCopyIsDone,
        Bug::UploadDeletedBeforeCopy,
        Bug::DedupesOnlyWithinACommit,
        Bug::TallySkipsDuplicates,
        Bug::UndecodableIsSkipped,
        Bug::RangeSkipsARecord,
        Bug::EmptyPageIsTheTip,
        Bug::RangesOverlap,
        Bug::SequenceNumbersAsText,
    ] {
        let found = (0..60).find_map(|seed| Some((seed, shown(bug, &|| history(seed))?)));
        let Some((seed, text)) = found else { panic!("{bug} stays hidden") };
        println!("{bug}: seed {seed}: {text}");
    }
    assert!(shown(Bug::ConflictIsADuplicate, &a_conflicting_variant_is_kept_beside_the_archive).is_some());
    let expired = &records_that_expired_unread_are_named_and_those_that_remain_are_archived;
    assert!(shown(Bug::LostRangeIsWhole, expired).is_some());
}

/// Whoever guesses the name of a file to come and puts an object there would have had it taken for the published file, and
/// the only upload deleted.
#[test]
fn invariant_1_a_foreign_object_under_a_target_is_replaced_by_the_file() {
    let mut world = World::new();
    let mut dice = Dice(3);
    for _ in 0..20 {
        world.produce(&mut dice);
    }
    let months: [Month; 3] = ["2026-09", "2026-10", "2026-11"].map(|month| month.parse().unwrap());
    for (month, n) in months.iter().flat_map(|month| (0..40).map(move |n| (*month, n))) {
        let foreign = bytes::Bytes::from_static(b"PAR1 not ours");
        block_on(world.objects.put(&names::target(month, 0, n, 0), foreign)).unwrap();
    }
    assert!(run(&world.objects, &world.stream, &world.host).rows > 0);
    let state = state(&world.objects, &world.host);
    let keys = archived(&world.objects, &state);
    assert_eq!(keys.len(), world.produced.len());
    assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), world.produced);
}
