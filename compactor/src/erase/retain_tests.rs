//! Retention against a bucket in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use recount_schemas::host::{Deadline, Host};
use recount_schemas::{Definition, Month};

use super::Eraser;
use super::retain::{MONTHS, kept_since, old};
use crate::archive::world::{World, archived, block_on, state};
use crate::bucket::Objects;
use crate::bucket::memory::Fault;
use crate::compact::Limits;
use crate::daily::{Daily, DailyReport};
use crate::log::{Digest, Entry, Fingerprint, Kind, LogStore, names};
use crate::rows::testing::{NOVEMBER, record};

const DAY: Duration = Duration::from_secs(86_400);

fn definition(months: u16) -> Arc<Definition> {
    let text = "[source]\ntable='scans'\nkey=['scan_id']\n[fold]\ngroup_by='project_id'\noccurred_at='scanned_at'\nsum=['bytes']";
    Arc::new(Definition::parse(&format!("{text}\n[archive]\nretain_months={months}"), "recount.toml").unwrap())
}

fn months(names: &[&str]) -> Vec<Month> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// A world in December with an event in each of these months, by how many days before November 1 they are.
fn world(days: &[i64]) -> World {
    let world = World::new();
    for (i, days) in days.iter().enumerate() {
        put(&world, &format!("e{i}"), *days);
    }
    world.run();
    world
}

fn put(world: &World, id: &str, days: i64) {
    let at = NOVEMBER - days * 86_400_000_000;
    world.stream.put(&world.stream.open_shards()[0], &record(id, Some("acme"), at, "7"));
}

fn daily(world: &World, keeps: u16, grace: Duration) -> Daily<crate::bucket::memory::Memory> {
    let limits = Limits { grace, ..Limits::default() };
    Daily::new(world.objects.clone(), definition(keeps), world.host.clone(), limits)
}

fn run(world: &World, keeps: u16, grace: Duration) -> DailyReport {
    block_on(daily(world, keeps, grace).run(None, Deadline::NONE)).unwrap()
}

fn sum(world: &World) -> Fingerprint {
    let mut all = Fingerprint::default();
    state(&world.objects, &world.host).live().for_each(|live| all.add(&live.file.fingerprint).unwrap());
    all
}

#[test]
fn a_month_goes_when_it_ended_so_many_months_ago() {
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_microsecond();
    let since = |keeps, text| kept_since(&definition(keeps), at(text)).unwrap().to_string();
    assert_eq!(since(1, "2026-11-20T00:00:00Z"), "2026-10");
    assert_eq!(since(1, "2026-10-31T23:59:59Z"), "2026-09");
    assert_eq!(since(1, "2026-01-01T00:00:00Z"), "2025-12");
    assert_eq!(since(12, "2026-11-20T00:00:00Z"), "2025-11");
    assert_eq!(since(1_200, "2026-11-20T00:00:00Z"), "1926-11");
}

#[test]
fn invariant_7_old_months_are_erased_a_few_a_run_and_count_as_before() {
    // The present month, the one before it, and five older ones.
    let world = world(&[-1, 10, 40, 70, 100, 130, 160]);
    let (before, now) = (sum(&world), state(&world.objects, &world.host));
    let since = kept_since(&definition(1), world.host.now_us()).unwrap();
    let due = old(&now, since, None);
    assert!(due.len() > MONTHS, "{due:?}");
    let plan = block_on(daily(&world, 1, Duration::ZERO).plan(None)).unwrap();
    let planned = plan.retention.unwrap();
    assert!(!plan.compaction.finished && planned.months.keys().eq(&due[..MONTHS]), "{planned:?}");
    assert_eq!(state(&world.objects, &world.host).next, now.next, "a plan changes nothing");
    let first = run(&world, 1, Duration::ZERO).retention.unwrap();
    assert_eq!((&first.months, first.finished), (&planned.months, false));
    assert_eq!(first.waiting, (due.len() - MONTHS) as u64);
    let second = run(&world, 1, Duration::ZERO);
    let told = second.retention.unwrap();
    assert!(told.months.keys().eq(&due[MONTHS..]) && told.finished && second.compaction.finished, "{told:?}");
    let after = state(&world.objects, &world.host);
    assert_eq!(after.last.as_ref().map(|entry| entry.kind), Some(Kind::Erasure));
    assert_eq!(after.last.as_ref().and_then(|entry| entry.origin.clone()), Some(format!("erase before {since}")));
    let sums = sum(&world);
    assert_eq!((sums.rows, sums.counts, &sums.sums), (before.rows, before.counts, &before.sums));
    assert_eq!(sums.erased, due.len() as u64);
    assert_eq!(archived(&world.objects, &after).len(), 7);
    assert!(old(&after, since, None).is_empty());

    // Again: nothing is written, and no file is even opened. Those of the last entry are looked at by whoever finishes it.
    for name in after.live().filter(|live| live.n + 1 < after.next).map(|live| &live.file.target) {
        world.objects.objects.lock().unwrap().insert(name.clone(), bytes::Bytes::from_static(b"not read"));
    }
    let before = world.objects.objects.lock().unwrap().clone();
    let eraser = Eraser::new(world.objects.clone(), definition(1), world.host.clone(), Duration::from_secs(900));
    let again = block_on(eraser.retain(None, Deadline::NONE)).unwrap().unwrap();
    assert!(again.finished && again.months.is_empty() && again.waiting == 0, "{again:?}");
    assert_eq!(*world.objects.objects.lock().unwrap(), before);
}

/// Late rows each day keep neither retention nor the deletion of what it replaced from its turn; a compaction keeps what
/// the log knows of erased rows.
#[test]
fn late_rows_are_erased_by_a_later_run_and_what_was_replaced_is_deleted() {
    let world = world(&[70]);
    let august: Month = months(&["2026-08"])[0];
    let mut deleted = 0;
    for day in 0..6 {
        let report = run(&world, 1, DAY);
        deleted += report.compaction.deleted;
        put(&world, &format!("late{day}"), 70);
        world.run();
        world.host.pass(DAY);
    }
    assert!(deleted >= 4, "{deleted}");
    world.host.pass(2 * DAY);
    run(&world, 1, DAY);
    let now = state(&world.objects, &world.host);
    assert!(now.files[&august].values().all(|live| live.file.fingerprint.erased == live.file.rows), "{now:?}");
    world.host.pass(2 * DAY);
    run(&world, 1, DAY);
    let now = state(&world.objects, &world.host);
    assert_eq!(now.files[&august].len(), 1, "compacted");
    let sums = sum(&world);
    assert_eq!((sums.erased, sums.rows), (7, 7));
}

/// Writes the log anew as it was before it counted the rows that have lost their data.
fn forget_what_is_erased(world: &World) {
    let log = LogStore::new(world.objects.clone(), world.host.clone());
    let mut previous = None;
    for n in 0.. {
        let Some(bytes) = block_on(log.bytes_of(n)).unwrap() else { break };
        let mut entry = Entry::from_bytes(n, &bytes).unwrap();
        (entry.previous, entry.folded) = (previous, None);
        entry.added.iter_mut().for_each(|file| file.fingerprint.erased = 0);
        let bytes = entry.to_bytes().unwrap();
        previous = Some(Digest::of(&bytes));
        block_on(world.objects.put(&names::entry(n), bytes.into())).unwrap();
    }
    for state in world.objects.keys(names::STATE) {
        block_on(world.objects.delete(&state)).unwrap();
    }
}

/// Months that were erased before the log counted that look as if they had data. A run that comes upon them goes on to others.
#[test]
fn months_that_are_erased_already_take_no_other_months_turn() {
    let world = world(&[40, 70, 100, 130, 160]);
    let since = kept_since(&definition(1), world.host.now_us()).unwrap();
    let due = old(&state(&world.objects, &world.host), since, None);
    assert!(due.len() > MONTHS, "{due:?}");
    run(&world, 1, Duration::ZERO);
    forget_what_is_erased(&world);
    let now = state(&world.objects, &world.host);
    assert_eq!(old(&now, since, None), due, "the log does not know that the first are erased");
    let told = run(&world, 1, Duration::ZERO).retention.unwrap();
    assert!(told.months.keys().eq(&due[MONTHS..]) && told.finished, "{told:?}");
    assert_eq!(run(&world, 1, Duration::ZERO).retention.unwrap().months, BTreeMap::new());
}

#[test]
fn a_run_without_time_erases_nothing_and_says_so() {
    let world = world(&[70]);
    let before = world.objects.keys("");
    let none = Deadline::after(&*world.host, Duration::ZERO);
    let report = block_on(daily(&world, 1, DAY).run(None, none)).unwrap();
    assert!(!report.compaction.finished && report.retention.unwrap().months.is_empty());
    assert_eq!(world.objects.keys(""), before);
    assert!(
        block_on(daily(&world, 1, DAY).run(Some(months(&["2026-11"])[0]), Deadline::NONE)).unwrap().compaction.finished
    );
    assert_eq!(world.objects.keys(""), before, "another month was asked for");
    let faults = world.objects.with_faults(|_, _| Fault::RequestLost);
    let keeps_all = Eraser::new(faults, Arc::new(crate::rows::testing::definition()), world.host.clone(), DAY);
    assert_eq!(block_on(keeps_all.retain(None, Deadline::NONE)).unwrap(), None);
}
