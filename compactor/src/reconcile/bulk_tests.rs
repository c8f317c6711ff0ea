//! That neither the summaries nor Athena change a verdict: the same world compared with and without them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::tests::{World, cell, delta, key};
use super::{Bulks, Passed, Reader};
use crate::bucket::Objects;
use crate::bucket::memory::Memory;
use crate::contributions::Scope;
use crate::rows::testing::{NOVEMBER, definition, row};
use crate::rows::write;

/// What happens to a world before it is looked at.
#[derive(Debug, Clone)]
struct History {
    /// For each event of the stream, whether it is acme's.
    events: Vec<bool>,
    /// How many of them the consumer has counted, and how many it says that it has passed.
    counted: usize,
    passed: usize,
    /// Events below are older than the ledger reaches back; pages whose keys are all below `expired` are gone.
    old: usize,
    expired: usize,
    /// Where the files end; every third of them has no summary.
    cuts: Vec<usize>,
    damages: Vec<(u8, u32, i64)>,
}

fn histories() -> impl Strategy<Value = History> {
    let events = prop::collection::vec(any::<bool>(), 1..260);
    let at = || 0usize..300;
    let damages = prop::collection::vec((0u8..9, 0u32..300, -2i64..3), 0..3);
    let cuts = prop::collection::vec(at(), 0..5);
    // Mostly all is counted and passed, as it mostly is.
    let reached = || prop_oneof![3 => Just(300usize), 1 => at()];
    (events, reached(), reached(), prop_oneof![Just(0), Just(300), at()], at(), cuts, damages).prop_map(
        |(events, counted, passed, old, expired, mut cuts, damages)| {
            cuts.sort_unstable();
            let counted = counted.min(events.len());
            History { passed: passed.min(counted), counted, old, expired: expired.min(old), events, cuts, damages }
        },
    )
}

fn world(history: &History) -> World {
    let mut world = World::default();
    for (n, acme) in (0u32..).zip(&history.events) {
        let of = cell(if *acme { "acme" } else { "zeta" });
        world.record(&of, n);
        if (n as usize) < history.counted {
            world.count(&of, key(n), &World::adds(n));
        }
    }
    world.passed = (history.passed as u32).saturating_sub(1);
    world.old = (history.old > 0).then(|| key(history.old as u32));
    let expired = key(history.expired as u32);
    for pages in world.pages.values_mut() {
        pages.retain(|(_, keys)| keys.iter().any(|key| *key >= expired));
    }
    for (damage, n, off) in &history.damages {
        let of = cell(if n % 2 == 0 { "acme" } else { "zeta" });
        let lost = world.pages.get_mut(&of).filter(|pages| *damage == 5 && !pages.is_empty());
        if let Some(pages) = lost {
            pages.remove(*n as usize % pages.len());
        }
        let Some(item) = world.items.get_mut(&of) else { continue };
        match damage {
            0 => item.events += off,
            1 => World::add(item, &delta(0, *off)),
            2 => {
                item.recent.remove(&key(*n));
            }
            3 => {
                // A key of no event, or of another cell's, or of one that has left the ledger; counted or not.
                item.recent.insert(key(*n));
                item.events += off.signum().max(0);
            }
            4 => {
                world.items.remove(&of);
            }
            6 => item.sealed = None,
            7 => {
                // A plan took it out of the number, or only says so.
                item.events -= i64::from(*off > 0);
                world.settled.void.entry(of).or_default().insert(key(*n));
            }
            8 => {
                // The event came with two contents: of this cell or of another, and perhaps the second one was counted.
                let Some(acme) = history.events.get(*n as usize) else { continue };
                let own = cell(if *acme { "acme" } else { "zeta" });
                let varied = World::adds(*n).checked_add(&delta(0, *off)).unwrap();
                if of == own && *off > 0 {
                    World::add(item, &delta(0, *off));
                }
                world.vary(if *off == 0 { &of } else { &own }, *n, varied);
            }
            _ => {}
        }
    }
    world
}

/// The files of a world, all but every third with a summary.
fn files(history: &History) -> Vec<std::ops::Range<usize>> {
    let n = history.events.len();
    let ends = history.cuts.iter().map(|cut| *cut.min(&n)).chain([n]);
    let starts = std::iter::once(0).chain(history.cuts.iter().map(|cut| *cut.min(&n)));
    let ranges = starts.zip(ends).map(|(start, end)| start..end);
    ranges.enumerate().filter(|(i, range)| i % 3 != 1 && !range.is_empty()).map(|(_, range)| range).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn invariant_8_neither_summaries_nor_athena_change_a_verdict(history in histories()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut world = world(&history);
        let (found, tally) = runtime.block_on(world.looked());
        world.files = files(&history);
        let (summed, summed_tally) = runtime.block_on(world.looked());
        let told = |found: Vec<super::Found>| -> Vec<_> {
            found.into_iter().map(|found| (found.head, found.outcome, found.raise)).collect()
        };
        prop_assert_eq!(told(found.clone()), told(summed));
        prop_assert_eq!(tally, summed_tally);
        world.athena = true;
        let (answered, answered_tally) = runtime.block_on(world.looked());
        prop_assert_eq!(told(found), told(answered));
        prop_assert_eq!(tally, answered_tally);
    }
}

/// Of a month whose pages have expired the item still holds keys: those must be known by name, or every old cell would be read.
#[tokio::test]
async fn a_clean_month_needs_no_rows_also_when_its_pages_have_expired() {
    let fresh = History {
        events: vec![true; 200],
        counted: 200,
        passed: 200,
        old: 0,
        expired: 0,
        cuts: vec![],
        damages: vec![],
    };
    for (what, history, settled) in [
        ("fresh", fresh.clone(), true),
        ("expired", History { old: 300, expired: 300, ..fresh.clone() }, true),
        ("expiring", History { old: 100, expired: 100, ..fresh.clone() }, false),
        ("not passed", History { old: 300, expired: 300, passed: 199, ..fresh }, false),
    ] {
        for athena in [false, true] {
            let mut world = world(&history);
            (world.files, world.athena) = (files(&history), athena);
            let compared = world.pass(None, std::collections::BTreeMap::new(), false).await;
            assert_eq!((compared.suspects.is_empty(), compared.events), (settled, 200), "{what}, Athena: {athena}");
            assert!(compared.found.is_empty() && compared.open.is_empty(), "{what}");
        }
    }
}

/// What a file of a clean archive costs: the bytes that are read of it by its summary, and by its rows. (One of at most 1 MiB is
/// read in one request altogether, either way.)
async fn cost(rows: usize, groups: usize) -> (u64, u64) {
    let (objects, definition) = (Memory::new(), Arc::new(definition()));
    let month = "2026-11".parse().unwrap();
    // IDs that compress as little as real ones do.
    let id = |n: usize| blake3::hash(&n.to_be_bytes()).to_hex()[..32].to_owned();
    let made = |n: usize| row(&id(n), Some(&format!("group-{}", n % groups)), NOVEMBER + n as i64, "7");
    let written = write(&definition, month, (0..rows).map(made).collect()).unwrap().unwrap();
    objects.put("file", written.bytes.clone()).await.unwrap();
    let files = || vec![(month, vec![written.added("staged".to_owned(), "file".to_owned())])];
    let read = || {
        let bytes = Arc::new(AtomicU64::new(0));
        let sum = Arc::clone(&bytes);
        let counted = objects.with_reads(move |_, more| {
            sum.fetch_add(more, Ordering::Relaxed);
        });
        (counted, bytes)
    };
    let (by_summary, of_summary) = read();
    let passed = Passed::default();
    let (mut bulks, rest) =
        Bulks::read(&by_summary, &definition, &Scope::all(), &passed, files(), &|_| {}).await.unwrap();
    assert!(rest.iter().all(|(_, files)| files.is_empty()));
    let summed = std::iter::from_fn(|| bulks.pop().unwrap()).map(|bulk| bulk.rows).sum::<u64>();
    assert_eq!(summed, rows as u64);
    let (by_rows, of_rows) = read();
    let mut reader = Reader::new(by_rows, Arc::clone(&definition), Scope::all(), files());
    let mut found = 0;
    while reader.next().await.unwrap().is_some() {
        found += 1;
    }
    assert_eq!(found, rows);
    (of_summary.load(Ordering::Relaxed), of_rows.load(Ordering::Relaxed))
}

/// `infra/runbooks/reconcile.md` has what this prints.
#[tokio::test]
async fn a_clean_archive_is_read_by_a_small_part() {
    for (rows, groups) in [(20_000, 10), (20_000, 100)] {
        let (of_summary, of_rows) = cost(rows, groups).await;
        let ratio = of_rows as f64 / of_summary as f64;
        eprintln!(
            "{rows} rows of {groups} cells: {of_summary} bytes by the summary, {of_rows} by the rows, 1 : {ratio:.1}"
        );
        assert!(of_summary < of_rows, "{rows} rows of {groups} cells");
    }
}
