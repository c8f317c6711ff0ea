//! Invariants 8 and 9 on planted damage: reconcile finds exactly it and names it, repair puts right exactly that, and what
//! comes afterwards, redelivery of everything first of all, is counted as if nothing had been.

mod bench;
mod plant;

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::AttributeValue;
use bench::{Added, Bench, Told, cell, told};
use recount_compactor::contributions::Scope;
use recount_compactor::reconcile::{Kind, Report, Verdict, reconcile};
use recount_compactor::repair::repair;
use recount_local::pipeline::Options;
use recount_schemas::items::PageName;
use recount_schemas::quarantine::{self, Quarantined};
use recount_schemas::verdict::{QuarantineCode, QuarantineReason};
use recount_schemas::{Cell, EventKey};

use crate::support::world::options;

const DAY_US: i64 = 86_400_000_000;

fn names(projects: usize) -> Vec<String> {
    (0..projects).map(|i| format!("p{i:02}")).collect()
}

/// A key that no event has, created now.
fn stranger(bench: &Bench, name: &str) -> EventKey {
    EventKey::new(bench.world.host.now_ms(), name.as_bytes()).unwrap()
}

/// What follows any repair: all records again, new ones, late ones, all of them again.
async fn assert_life_goes_on(bench: &mut Bench, projects: &[String]) {
    bench.redeliver().await;
    bench.assert_clean("after everything was delivered again").await;
    bench.feed(projects, 30).await;
    bench.redeliver().await;
    bench.feed(projects, 30).await;
    bench.assert_clean("after new events").await;
    let changes = bench.sent.clone();
    bench.world.put_changes(&changes).await;
    bench.world.pipeline.drained().await.unwrap();
    bench.assert_clean("after the source wrote everything once more").await;
}

/// Adds what must be told: one finding for each kind and cell.
fn expect(expected: &mut BTreeSet<Told>, (kind, cell, mut ids): Told) {
    if let Some(same) = expected.iter().find(|(k, c, _)| *k == kind && *c == cell).cloned() {
        expected.remove(&same);
        ids.extend(same.2);
    }
    expected.insert((kind, cell, ids));
}

/// One kind of damage to each cell, all at once.
async fn every_kind_of_damage(seed: u64, net: bool, lanes: u16) {
    let mut bench = Bench::start(seed, net, lanes).await;
    // Seventeen cells to damage, and a project that nothing happens to. Each cell is sealed once or more.
    let lanes = usize::from(lanes);
    let projects = names(17_usize.div_ceil(lanes) + 1);
    bench.feed(&projects, 34 * lanes).await;
    bench.feed(&projects, 34 * lanes).await;
    let of = |i: usize| cell(&projects[i / lanes], (i % lanes) as u16);

    // Events that the consumer crashes on until the mapping gives them up.
    let now = bench.world.host.now_us();
    let victims: Vec<_> = (0..2).map(|_| bench.make(&projects[0], now)).collect();
    bench.world.pipeline.faults().break_on(victims.iter().map(|change| change.event_id.clone()));
    bench.send(victims.clone()).await;
    bench.world.pipeline.faults().break_on([]);
    // An event that comes later than the ledger reaches back, to a cell that has been sealed.
    let old = now - 40 * DAY_US;
    let late = loop {
        let change = bench.make(&projects[1 / lanes], old);
        let holds = |adds: &BTreeMap<EventKey, Added>| adds.values().any(|added| added.event_id == change.event_id);
        let cells: Vec<&Cell> = bench.account.iter().filter(|(_, adds)| holds(adds)).map(|(cell, _)| cell).collect();
        if cells == [&of(1)] {
            break change;
        }
        // It falls into another lane, or concerns another cell too: it is not sent.
        bench.forget(&change);
    };
    bench.send(vec![late.clone()]).await;
    // The shards go on, so that the consumer's progress passes what was given up.
    bench.feed(&projects[projects.len() - 1..], 20).await;

    let mut expected: BTreeSet<Told> = BTreeSet::new();
    for victim in &victims {
        for (cell, adds) in &bench.account {
            if adds.values().any(|added| added.event_id == victim.event_id) {
                expect(&mut expected, told(Kind::Missing, cell, [victim.event_id.as_str()]));
            }
        }
    }
    expect(&mut expected, told(Kind::TooOld, &of(1), [late.event_id.as_str()]));

    bench.add(&of(2), 3, 0).await;
    expect(&mut expected, told(Kind::Damaged, &of(2), []));
    bench.add(&of(3), -2, 0).await;
    expect(&mut expected, told(Kind::Damaged, &of(3), []));
    bench.add(&of(4), 0, 5).await;
    expect(&mut expected, told(Kind::Damaged, &of(4), []));
    bench.edit(&of(5), "REMOVE sum_bytes", &[]).await;
    expect(&mut expected, told(Kind::Damaged, &of(5), []));

    let all: Vec<EventKey> = bench.account[&of(6)].keys().copied().collect();
    assert!(!bench.pages(&of(6)).await.is_empty(), "the cell was sealed");
    bench.delete(&of(6)).await;
    expect(&mut expected, told(Kind::Missing, &of(6), bench.ids(&of(6), &all)));

    let invented = stranger(&bench, "nobody");
    bench.invent(&of(7), &invented, 1, 77).await;
    expect(&mut expected, told(Kind::Unbacked, &of(7), [invented.to_string().as_str()]));

    let (key, added) = bench.recent(&of(8)).await;
    bench.lose(&of(8), &key, added.events, added.bytes).await;
    expect(&mut expected, told(Kind::Missing, &of(8), [added.event_id.as_str()]));

    let (key, added) = bench.recent(&of(9)).await;
    bench.lose(&of(9), &key, 0, 0).await;
    expect(&mut expected, told(Kind::Missing, &of(9), [added.event_id.as_str()]));
    expect(&mut expected, told(Kind::Damaged, &of(9), []));

    let page = bench.page(&of(10)).await;
    bench.delete_page(&of(10), &page.name).await;
    expect(&mut expected, told(Kind::Missing, &of(10), bench.ids(&of(10), &page.keys)));
    expect(&mut expected, told(Kind::Damaged, &of(10), []));

    let (page, invented) = (bench.page(&of(11)).await, stranger(&bench, "on a page"));
    let keys = [page.keys.as_slice(), &[invented]].concat();
    bench.delete_page(&of(11), &page.name).await;
    bench.put_page(&of(11), &PageName::new(&keys, page.name.epoch).unwrap(), &keys).await;
    expect(&mut expected, told(Kind::Unbacked, &of(11), [invented.to_string().as_str()]));

    let elsewhere = bench.account[&of(13)].iter().find(|(key, _)| !bench.account[&of(12)].contains_key(key));
    let (key, added) = elsewhere.map(|(key, added)| (*key, added.clone())).unwrap();
    bench.invent(&of(12), &key, 1, added.bytes).await;
    expect(&mut expected, told(Kind::WrongCell, &of(12), [added.event_id.as_str()]));

    let (_, added) = bench.recent(&of(14)).await;
    bench.add(&of(14), added.events, added.bytes).await;
    expect(&mut expected, told(Kind::Doubled, &of(14), [added.event_id.as_str()]));

    bench.edit(&of(16), "REMOVE sealed", &[]).await;
    expect(&mut expected, told(Kind::Damaged, &of(16), []));

    // A record that an older consumer put into quarantine, and that can be judged.
    let (key, refused) = bench.recent(&of(15)).await;
    bench.lose(&of(15), &key, refused.events, refused.bytes).await;
    let told_first = bench.world.reconcile().await;
    let origin = told_first
        .findings
        .iter()
        .flat_map(|f| &f.events)
        .find(|event| event.event_key == key && event.origin.is_some());
    quarantine_it(&bench, origin.unwrap().origin.as_ref().unwrap()).await;
    expect(&mut expected, told(Kind::Quarantined, &of(15), [refused.event_id.as_str()]));

    let report = bench.assert_told(&expected, "with every kind of damage").await;
    // But how long ago a thing was.
    let ageless = |mut report: Report| {
        report.coverage.iter_mut().for_each(|coverage| coverage.oldest_unverified_age_s = None);
        report
    };
    let again = bench.world.reconcile().await;
    assert_eq!(ageless(report), ageless(again), "looking changes nothing, seed {seed}");

    let damaged: BTreeSet<Cell> = expected.iter().map(|(_, cell, _)| cell.clone()).collect();
    let left = expected.into_iter().filter(|(kind, ..)| *kind == Kind::Quarantined).collect();
    bench.assert_repaired(&damaged, &left, "of every kind of damage").await;
    assert_life_goes_on(&mut bench, &projects).await;
}

async fn quarantine_it(bench: &Bench, origin: &recount_compactor::reconcile::finding::Origin) {
    let record = Quarantined {
        format: quarantine::FORMAT,
        stream: bench.world.settings().stream.clone(),
        shard_id: origin.shard_id.clone(),
        sequence_number: origin.sequence_number.clone(),
        partition_key: "x".into(),
        arrived_us: bench.world.host.now_us(),
        reason: QuarantineReason::new(QuarantineCode::NoGroup, "an older consumer thought so"),
        data: String::new(),
        raw: false,
    };
    let name = quarantine::object_key(&origin.shard_id, &origin.sequence_number);
    let put = bench.world.pipeline.clients().s3.put_object().bucket(&bench.world.settings().bucket).key(name);
    put.body(serde_json::to_vec(&record).unwrap().into()).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn invariants_8_and_9_every_kind_of_damage_at_once() {
    every_kind_of_damage(11, false, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariants_8_and_9_every_kind_of_damage_under_net_counting() {
    every_kind_of_damage(12, true, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariants_8_and_9_every_kind_of_damage_in_lanes() {
    every_kind_of_damage(13, false, 4).await;
}

/// Several kinds in one cell, and two damaged cells of one group.
#[tokio::test(flavor = "multi_thread")]
async fn invariants_8_and_9_damage_upon_damage() {
    let mut bench = Bench::start(21, false, 2).await;
    let projects = names(3);
    bench.feed(&projects, 100).await;
    bench.feed(&projects, 100).await;
    let (first, second) = (cell("p00", 0), cell("p00", 1));

    // The first: a page is lost, an event too, one is invented, one belongs elsewhere, and somebody adds a thousand.
    let page = bench.page(&first).await;
    bench.delete_page(&first, &page.name).await;
    let (key, lost) = bench.recent(&first).await;
    bench.lose(&first, &key, 1, lost.bytes).await;
    let invented = stranger(&bench, "invented");
    bench.invent(&first, &invented, 1, 5).await;
    let (other, misplaced) = bench.recent(&second).await;
    bench.invent(&first, &other, 1, misplaced.bytes).await;
    bench.add(&first, 1_000, 0).await;
    let missing: Vec<EventKey> = page.keys.iter().copied().chain([key]).collect();

    // The second: the item is gone, and has been begun anew by new events, of which one is lost.
    let before: Vec<EventKey> = bench.account[&second].keys().copied().collect();
    bench.delete(&second).await;
    bench.feed(&projects, 10).await;
    let fresh = bench.look(&second).await.recent;
    let gone = *fresh.first().unwrap();
    let added = bench.account[&second][&gone].clone();
    bench.lose(&second, &gone, 1, added.bytes).await;
    let missing_there: Vec<EventKey> = before.into_iter().chain([gone]).collect();

    let expected = BTreeSet::from([
        told(Kind::Missing, &first, bench.ids(&first, &missing)),
        told(Kind::Unbacked, &first, [invented.to_string().as_str()]),
        told(Kind::WrongCell, &first, [misplaced.event_id.as_str()]),
        told(Kind::Damaged, &first, []),
        told(Kind::Missing, &second, bench.ids(&second, &missing_there)),
    ]);
    bench.assert_told(&expected, "with damage upon damage").await;
    bench.assert_repaired(&BTreeSet::from([first, second]), &BTreeSet::new(), "of damage upon damage").await;
    assert_life_goes_on(&mut bench, &projects).await;
}

/// What cannot be read is neither used nor changed, and is called by its name.
#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_items_that_are_not_understood_are_refused() {
    let mut bench = Bench::start(31, false, 1).await;
    let projects = names(2);
    bench.feed(&projects, 120).await;
    let (damaged, held) = (cell("p00", 0), bench.due(&cell("p00", 0)));
    bench.assert_clean("before").await;

    let text = |text: &str| AttributeValue::S(text.to_owned());
    let number = |n: i64| AttributeValue::N(n.to_string());
    for (name, garbage, whole) in [
        ("events", text("many"), number(held.0)),
        ("sum_bytes", text("12"), number(held.1)),
        ("events", number(1).clone(), number(held.0)),
        ("v", number(2), number(1)),
    ] {
        bench.edit(&damaged, &format!("SET {name} = :x"), &[(":x", garbage.clone())]).await;
        if name == "events" && garbage == number(1) {
            // A number is a number: that is damage, and can be repaired.
            bench.assert_told(&BTreeSet::from([told(Kind::Damaged, &damaged, [])]), "with another number").await;
        } else {
            assert_refused(&bench, &["p00", "2026-11#0", if name == "v" { "newer" } else { name }]).await;
        }
        bench.edit(&damaged, &format!("SET {name} = :x"), &[(":x", whole)]).await;
        bench.assert_clean("when put back").await;
    }

    for (pk, sk, attributes, says) in [
        ("p00", "settings", vec![("colour", text("red"))], vec!["p00", "settings", "not a cell"]),
        ("p00", "2026-13#0", vec![("events", number(1))], vec!["p00", "2026-13#0", "not a cell"]),
        ("other", "2026-11#0", vec![("events", number(1)), ("v", number(9))], vec!["other", "2026-11#0", "newer"]),
    ] {
        bench.put_foreign(pk, sk, &attributes).await;
        assert_refused(&bench, &says).await;
        bench.delete_foreign(pk, sk).await;
    }

    // A page whose keys are not those that its name stands for.
    let page = bench.page(&damaged).await;
    let keys = [page.keys.as_slice(), &[stranger(&bench, "x")]].concat();
    bench.put_page(&damaged, &page.name, &keys).await;
    assert_refused(&bench, &["2026-11#0#p00", "page"]).await;
    bench.put_page(&damaged, &page.name, &page.keys).await;
    assert_life_goes_on(&mut bench, &projects).await;
}

/// An item of a newer format stops reconcile and repair; any other is the one finding. Both say why, and nothing changes.
async fn assert_refused(bench: &Bench, says: &[&str]) {
    let (before, context) = (bench.tables().await, bench.world.pipeline.context());
    let reconciled = reconcile(context, &Scope::all(), &|_| {}).await.map(|r| r.report).map_err(|e| e.to_string());
    let repaired = repair(context, &Scope::all(), true, &|_| {}).await.map_err(|e| e.to_string());
    let repaired = repaired.map(|report| {
        assert!(report.plans.is_empty() && report.applied.is_empty(), "{report:?}");
        report.reconciled.unwrap()
    });
    for report in [reconciled, repaired] {
        assert_eq!(report.is_err(), says.contains(&"newer"), "{report:?}");
        let why = report.map_or_else(
            |why| why,
            |report| {
                let kinds: Vec<Kind> = report.findings.iter().map(|finding| finding.kind).collect();
                assert_eq!((report.verdict, kinds), (Verdict::Findings, vec![Kind::Unusable]));
                report.findings[0].detail.clone()
            },
        );
        assert!(says.iter().all(|part| why.contains(part)), "{why:?} does not say {says:?}");
    }
    assert_eq!(bench.tables().await, before);
}

/// A deleted cell that writers have begun anew from old records, sealed again, so that the old pages are in its ledger
/// once more: keys on them are above its `sealed`.
#[tokio::test(flavor = "multi_thread")]
async fn invariant_4_a_deleted_cell_begun_anew_counts_nothing_twice_after_its_repair() {
    for (seed, again) in [(41, 60), (42, 20), (43, 89), (44, 0)] {
        let mut bench = Bench::with(seed, false, 1, Options { shards: 1, ..options() }).await;
        let projects = names(2);
        let deleted = cell("p00", 0);
        bench.feed(&projects[..1], 90).await;
        bench.feed(&projects[1..], 90).await;
        assert!(!bench.pages(&deleted).await.is_empty());
        bench.delete(&deleted).await;
        // The source writes the oldest of them once more.
        let oldest: BTreeSet<&str> =
            bench.account[&deleted].values().take(again).map(|added| added.event_id.as_str()).collect();
        let changes: Vec<_> =
            bench.sent.iter().filter(|change| oldest.contains(change.event_id.as_str())).cloned().collect();
        bench.world.put_changes(&changes).await;
        bench.world.pipeline.drained().await.unwrap();
        let report = bench.world.reconcile().await;
        assert!(!report.findings.is_empty(), "seed {seed}");
        assert!(report.findings.iter().all(|f| f.cell().as_ref() == Some(&deleted)), "seed {seed}: {report:?}");
        bench.assert_repaired(&BTreeSet::from([deleted.clone()]), &BTreeSet::new(), "of a cell begun anew").await;
        // Its events once more, the latest first, a few at a time: no batch is helped by older keys in it.
        let latest: Vec<&str> = bench.account[&deleted].values().rev().map(|added| added.event_id.as_str()).collect();
        for few in latest.chunks(9) {
            let changes = bench.sent.iter().filter(|change| few.contains(&change.event_id.as_str()));
            bench.world.put_changes(changes).await;
            bench.world.pipeline.drained().await.unwrap();
        }
        bench.assert_clean("after its events came a few at a time").await;
        assert_life_goes_on(&mut bench, &projects).await;
    }
}

/// Records come again, and new ones, while the repair is under way.
#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_repair_among_writers() {
    let mut bench = Bench::start(51, true, 1).await;
    let projects = names(4);
    bench.feed(&projects, 80).await;
    bench.feed(&projects, 80).await;
    for round in 0..3 {
        bench.delete(&cell("p00", 0)).await;
        bench.add(&cell("p01", 0), 4, 1).await;
        let page = bench.page(&cell("p02", 0)).await;
        bench.delete_page(&cell("p02", 0), &page.name).await;
        let now = bench.world.host.now_us();
        let fresh: Vec<_> = (0..80).map(|i| bench.make(&projects[i % 4], now)).collect();
        bench.rewind().await;
        let (_, ()) = tokio::join!(bench.repair(), bench.world.put_changes(&fresh));
        bench.sent.extend(fresh);
        bench.world.pipeline.drained().await.unwrap();
        bench.repair().await;
        bench.assert_clean(&format!("after round {round} of a repair among writers")).await;
        bench.redeliver().await;
        bench.assert_clean(&format!("after redelivery in round {round}")).await;
    }
    assert_life_goes_on(&mut bench, &projects).await;
}
