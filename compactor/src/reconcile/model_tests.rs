//! Reconcile and repair against a small world: cells by the consumer's rules, their pages, an archive, and damage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use recount_consumer::cell::Look;
use recount_schemas::{Amount, Cell, Definition, Delta, EventKey};

use super::super::finding::{Kind, Origin};
use super::super::look::Seen;
use super::super::standing::Standings;
use super::*;
use crate::bucket::Bucket;
use crate::contributions::Scope;
use crate::contributions::spill::Sorter;
use crate::reconcile::by_athena::tests::{answer, answered};
use crate::repair::applied::Settled;
use crate::repair::apply::{CellReport, Step};
use crate::repair::plan::{CellPlan, Plan};
use crate::rows::summary::summary_of;

const START_MS: i64 = 1_790_000_000_000;

fn definition() -> Arc<Definition> {
    let text = "[source]\ntable='t'\nkey=['a']\n[fold]\ngroup_by='g'\nsum=['bytes']";
    Arc::new(Definition::parse(text, "recount.toml").unwrap())
}

pub(super) fn cell(group: &str) -> Cell {
    Cell { group: group.parse().unwrap(), month: "2026-11".parse().unwrap(), lane: 0 }
}

pub(super) fn key(n: u32) -> EventKey {
    EventKey::new(START_MS + i64::from(n), &n.to_be_bytes()).unwrap()
}

pub(super) fn delta(events: i64, bytes: i64) -> Delta {
    Delta { events, sums: [Amount::from_billionths(i128::from(bytes) * 1_000_000_000)].into_iter().collect() }
}

/// The world: what DynamoDB and the archive hold.
#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) items: BTreeMap<Cell, Look>,
    pub(super) pages: BTreeMap<Cell, Vec<(u64, Vec<EventKey>)>>,
    listed: BTreeMap<Cell, BTreeSet<EventKey>>,
    pub(super) archive: Vec<Contribution>,
    pub(super) passed: u32,
    /// Keys below this are older than the ledger reaches back.
    pub(super) old: Option<EventKey>,
    pub(super) settled: Settled,
    /// Conflicting variants of archived events.
    variants: BTreeMap<VariantKey, Vec<(u16, Archived)>>,
    /// Items as a reconcile saw them that then took its time to read their pages.
    earlier: BTreeMap<Cell, Look>,
    /// The files of the archived events, in their order, that have a summary. What is in no such file is read by its rows.
    pub(super) files: Vec<std::ops::Range<usize>>,
    /// Whether Athena says what all the rows come to.
    pub(super) athena: bool,
}

impl World {
    /// Event `n` of `cell` stands in the stream at `n`, and is archived.
    pub(super) fn record(&mut self, cell: &Cell, n: u32) {
        let origin = Origin {
            event_id: format!("event-{n}"),
            shard_id: "shardId-000000000000".parse().unwrap(),
            sequence_number: n.to_string().parse().unwrap(),
            file: "file".to_owned(),
        };
        self.archive.push(Contribution { cell: cell.clone(), key: key(n), delta: Self::adds(n), origin });
    }

    /// Another content of event `n`, which would add this to `cell`.
    pub(super) fn vary(&mut self, cell: &Cell, n: u32, delta: Delta) {
        let origin = Origin {
            event_id: format!("event-{n}"),
            shard_id: "shardId-000000000000".parse().unwrap(),
            sequence_number: (u64::from(n) * 10 + 5).to_string().parse().unwrap(),
            file: "conflicts/file".to_owned(),
        };
        let variant = (cell.lane, Archived { delta, origin, variant: true });
        self.variants.entry((cell.month, cell.group.clone(), key(n))).or_default().push(variant);
    }

    pub(super) fn adds(n: u32) -> Delta {
        delta(1, i64::from(n % 7) + 100)
    }

    /// The consumer's path.
    pub(super) fn count(&mut self, cell: &Cell, key: EventKey, adds: &Delta) -> bool {
        let on_page = self.pages.get(cell).is_some_and(|pages| pages.iter().any(|(_, keys)| keys.contains(&key)));
        let item = self.items.entry(cell.clone()).or_insert_with(|| Look { sums: delta(0, 0).sums, ..Look::default() });
        if item.recent.contains(&key) {
            return false;
        }
        if item.is_late(&key) && self.old.is_some_and(|old| key < old) {
            self.listed.entry(cell.clone()).or_default().insert(key);
            return false;
        }
        if item.is_late(&key) && on_page {
            return false;
        }
        Self::add(item, adds);
        item.recent.insert(key);
        if item.recent.len() >= 6 {
            let page: Vec<EventKey> = item.recent.iter().take(3).copied().collect();
            item.recent.retain(|key| !page.contains(key));
            item.sealed = item.sealed.max(page.iter().max().copied());
            self.pages.entry(cell.clone()).or_default().push((item.epoch, page));
            item.epoch += 1;
        }
        true
    }

    pub(super) fn add(item: &mut Look, adds: &Delta) {
        let sum = Delta { events: item.events, sums: item.sums.clone() }.checked_add(adds).unwrap();
        (item.events, item.sums) = (sum.events, sum.sums);
    }

    pub(super) async fn pass(
        &self,
        scope: Option<&BTreeSet<Cell>>,
        hints: BTreeMap<Cell, Delta>,
        by_rows: bool,
    ) -> Compared {
        let mut sorter = Sorter::with_buffer(1 << 20);
        let in_scope = |cell: &Cell| scope.is_none_or(|scope| scope.contains(cell));
        let cells: BTreeSet<Cell> = scope.cloned().unwrap_or_else(|| self.items.keys().cloned().collect());
        let sink = std::sync::Mutex::new(&mut sorter);
        for cell in cells {
            let look = self.earlier.get(&cell).or_else(|| self.items.get(&cell)).cloned();
            let closely = scope.is_some() || look.as_ref().is_some_and(|look| look.epoch > 0);
            let pages = self.pages.get(&cell).filter(|_| closely).cloned().unwrap_or_default();
            let listed = self.listed.get(&cell).cloned().unwrap_or_default();
            let again = self.items.get(&cell).map(|look| look.epoch);
            let mut seen = Seen::new(cell, look, &sink).unwrap();
            pages.iter().for_each(|(epoch, keys)| seen.page(*epoch, keys).unwrap());
            listed.into_iter().for_each(|key| seen.listed(key).unwrap());
            seen.done(again).unwrap();
        }
        let known = Known {
            passed: super::super::diff::Passed(
                [("shardId-000000000000".parse().unwrap(), self.passed.to_string().parse().unwrap())].into(),
            ),
            horizon: self.old,
            voided: self.settled.void.clone(),
            settled: self.settled.settled.clone(),
            variants: self.variants.clone(),
            hints,
            ..Known::default()
        };
        let files: &[std::ops::Range<usize>] = if by_rows { &[] } else { &self.files };
        let summaries = files.iter().map(|range| {
            let summary = summary_of(&definition(), &self.archive[range.clone()]).unwrap();
            let all = summary.reached.iter().all(|(shard, sequence)| known.passed.covers(shard, sequence));
            (summary, all)
        });
        let by_athena = self.athena && !by_rows;
        let bulks = if by_athena {
            let lines = answer(&definition(), &self.archive, self.old.unwrap_or(EventKey::MIN));
            Bulks::answered(answered(&definition(), &known.passed, &lines).unwrap()).unwrap()
        } else {
            Bulks::new(summaries.collect(), Scope::all())
        };
        let summed = |i: &usize| by_athena || files.iter().any(|range| range.contains(i));
        let rest = self.archive.iter().enumerate().filter(|(i, _)| !summed(i));
        let mut archive: Vec<Contribution> = rest.map(|(_, c)| c).filter(|c| in_scope(&c.cell)).cloned().collect();
        archive.sort_by_key(|c| (c.cell.month, c.cell.group.clone(), c.key));
        let contributions: Contributions<Bucket> = Contributions::Memory(archive.into_iter());
        let standings = Standings::new(sorter.finish().unwrap());
        compare(&definition(), &known, standings, bulks, contributions).await.unwrap()
    }

    /// All looks, as in `run`; with what they verified.
    pub(super) async fn looked(&self) -> (Vec<Found>, Tally) {
        let suspects = |compared: &Compared| -> BTreeSet<Cell> {
            let found = compared.found.iter().map(|found| &found.outcome.cell);
            found.chain(compared.open.iter().map(|open| open.cell())).chain(compared.suspects.keys()).cloned().collect()
        };
        let mut last = self.pass(None, BTreeMap::new(), false).await;
        let mut tally = last.tally;
        if !self.files.is_empty() && !suspects(&last).is_empty() {
            last = self.pass(Some(&suspects(&last)), BTreeMap::new(), true).await;
            tally.add(last.tally);
        }
        if suspects(&last).is_empty() {
            return (Vec::new(), tally);
        }
        let hints = last.found.iter().filter_map(|f| Some((f.outcome.cell.clone(), f.outcome.unexplained.clone()?)));
        let mut second = self.pass(Some(&suspects(&last)), hints.collect(), true).await;
        for mut open in std::mem::take(&mut second.open) {
            open.misplace(&self.archive.iter().map(|row| (row.key, row.origin.clone())).collect());
            second.take(open.conclude().unwrap());
        }
        tally.add(second.tally);
        second.found.iter().for_each(|found| tally.add(found.outcome.tally));
        (second.found, tally)
    }

    async fn reconcile(&self) -> Vec<Found> {
        self.looked().await.0
    }

    async fn kinds(&self) -> Vec<(String, Kind, Vec<String>)> {
        let found = self.reconcile().await;
        let findings = found.iter().flat_map(|found| &found.outcome.findings);
        findings.map(|f| (f.group.as_ref().unwrap().to_string(), f.kind, f.event_ids.clone())).collect()
    }

    fn repair_cell(&mut self, cell: &CellPlan, hash: &str) -> Step {
        let now = self.items.get(&cell.cell).cloned();
        let looked = now.clone().unwrap_or_else(|| Look { sums: delta(0, 0).sums, ..Look::default() });
        let as_seen = cell.raise.as_ref().is_none_or(|raise| match raise.from_epoch {
            None => now.is_none(),
            Some(epoch) => looked.epoch == epoch && looked.recent.len() == raise.recent,
        });
        let step = if looked.repair == cell.seen && as_seen {
            let mut item = looked;
            Self::add(&mut item, &cell.add);
            item.repair = Some(hash.to_owned());
            if let Some(raise) = &cell.raise {
                (item.epoch, item.sealed) = (raise.to.epoch, Some(raise.to.sealed));
            }
            self.items.insert(cell.cell.clone(), item);
            Step::Done
        } else if looked.repair.as_deref() == Some(hash) {
            Step::DoneBefore
        } else if let Some(raise) = &cell.raise {
            let mut item = looked;
            if let Some(to) = raise.to.over(item.epoch, item.sealed) {
                (item.epoch, item.sealed) = (to.epoch, Some(to.sealed));
            }
            self.items.insert(cell.cell.clone(), item);
            return Step::Raised;
        } else {
            return Step::Refused;
        };
        for event in &cell.missing {
            self.count(&cell.cell, event.event_key, &event.delta);
        }
        self.settled.add(&CellReport {
            void: cell.void.clone(),
            settled: cell.settled.clone(),
            ..CellReport::new(cell.cell.clone(), step)
        });
        step
    }

    fn apply(&mut self, plan: &Plan) -> Vec<Step> {
        let hash = plan.hash().unwrap();
        plan.cells.iter().map(|cell| self.repair_cell(cell, &hash)).collect()
    }

    async fn plan(&self) -> Plan {
        Plan::make(&definition(), &self.reconcile().await)
    }

    pub(super) fn item(&mut self, group: &str) -> &mut Look {
        self.items.get_mut(&cell(group)).unwrap()
    }
}

/// Two groups with `n` events each, all counted, sealed on the way.
fn world(n: u32) -> World {
    let mut world = World::default();
    for i in 0..2 * n {
        let cell = cell(if i % 2 == 0 { "acme" } else { "zeta" });
        world.record(&cell, i);
        world.count(&cell, key(i), &World::adds(i));
    }
    world.passed = 2 * n;
    world
}

/// Plants a damage, says what must be found, repairs by plan, twice, and holds the result against the undamaged world.
async fn check(damage: impl Fn(&mut World), expected: &[(&str, Kind, &[u32])]) {
    let healthy = world(20);
    assert_eq!(healthy.kinds().await, []);
    let mut damaged = healthy.clone();
    damage(&mut damaged);
    let found = damaged.kinds().await;
    let named: Vec<(&str, Kind)> = found.iter().map(|(group, kind, _)| (group.as_str(), *kind)).collect();
    let wanted: Vec<(&str, Kind)> = expected.iter().map(|(group, kind, _)| (*group, *kind)).collect();
    assert_eq!(named, wanted, "found, and only that");
    for ((_, _, ids), (_, kind, events)) in found.iter().zip(expected) {
        let wanted: Vec<String> = events
            .iter()
            .map(|n| if *kind == Kind::Unbacked { key(*n).to_string() } else { format!("event-{n}") })
            .collect();
        assert_eq!(ids, &wanted);
    }
    let plan = damaged.plan().await;
    assert_eq!(damaged.plan().await.hash().unwrap(), plan.hash().unwrap(), "the same damage makes the same plan");
    assert!(damaged.apply(&plan).iter().all(|step| *step == Step::Done));
    assert_eq!(damaged.kinds().await, [], "clean after the repair");
    for (cell, healthy) in &healthy.items {
        let repaired = &damaged.items[cell];
        assert_eq!((repaired.events, &repaired.sums), (healthy.events, &healthy.sums));
    }
    let once: Vec<Look> = damaged.items.values().cloned().collect();
    assert!(damaged.apply(&plan).iter().all(|step| *step == Step::DoneBefore));
    assert_eq!(damaged.items.values().cloned().collect::<Vec<_>>(), once, "applying twice equals applying once");
    assert!(damaged.plan().await.is_empty());
}

#[tokio::test]
async fn invariants_8_and_9_a_number_that_is_too_high() {
    check(|world| world.item("acme").events += 7, &[("acme", Kind::Damaged, &[])]).await;
}

#[tokio::test]
async fn invariants_8_and_9_a_number_that_is_too_low() {
    check(|world| world.item("zeta").events -= 1, &[("zeta", Kind::Damaged, &[])]).await;
}

#[tokio::test]
async fn invariants_8_and_9_a_damaged_sum() {
    let damage = |world: &mut World| world.item("acme").sums = delta(0, 12).sums;
    check(damage, &[("acme", Kind::Damaged, &[])]).await;
}

#[tokio::test]
async fn invariants_8_and_9_an_event_counted_twice_that_can_be_told() {
    // Among the events of acme (even numbers below 40), only 12 has as many bytes as nobody else.
    let damage = |world: &mut World| {
        for row in world.archive.iter_mut().filter(|row| row.key == key(12)) {
            row.delta = delta(1, 5_000);
        }
        World::add(world.item("acme"), &delta(0, 5_000 - 105));
        World::add(world.item("acme"), &delta(1, 5_000));
    };
    let mut world = world(20);
    damage(&mut world);
    let found = world.kinds().await;
    assert_eq!(found, [("acme".to_owned(), Kind::Doubled, vec!["event-12".to_owned()])]);
    let plan = world.plan().await;
    world.apply(&plan);
    assert_eq!(world.kinds().await, []);
}

#[tokio::test]
async fn invariants_8_and_9_a_deleted_cell() {
    let all: Vec<u32> = (0..40).filter(|n| n % 2 == 0).collect();
    let delete = |world: &mut World| {
        world.items.remove(&cell("acme"));
    };
    check(delete, &[("acme", Kind::Missing, &all)]).await;
}

#[tokio::test]
async fn invariants_8_and_9_a_deleted_cell_that_a_writer_made_anew() {
    let mut world = world(20);
    world.items.remove(&cell("acme"));
    for n in 40..50 {
        world.record(&cell("acme"), n);
        world.count(&cell("acme"), key(n), &World::adds(n));
    }
    world.passed = 50;
    assert!(world.kinds().await.iter().any(|(_, kind, _)| *kind == Kind::Missing));
    for _ in 0..3 {
        let plan = world.plan().await;
        world.apply(&plan);
    }
    assert_eq!(world.kinds().await, []);
    assert_eq!(world.items[&cell("acme")].events, 30);
    assert!(
        world.items[&cell("acme")].epoch > world.pages[&cell("acme")].iter().map(|(epoch, _)| *epoch).max().unwrap()
    );
}

/// The next `count` events of acme, from `n` on, recorded and counted.
fn more(world: &mut World, n: u32, count: u32) {
    for n in n..n + count {
        world.record(&cell("acme"), n);
        assert!(world.count(&cell("acme"), key(n), &World::adds(n)));
    }
}

/// Late events of acme were counted, and sealed, between the reading of its item and that of its pages: at both looks.
fn sealed_while_it_is_read() -> World {
    let mut world = world(20);
    world.passed = 39;
    world.earlier = world.items.clone();
    for (late, at) in [1, 3, 5, 7].into_iter().zip(40..) {
        world.record(&cell("acme"), at);
        world.archive.last_mut().unwrap().key = key(late);
        assert!(world.count(&cell("acme"), key(late), &World::adds(at)));
    }
    let epoch = world.earlier[&cell("acme")].epoch;
    assert!(world.pages[&cell("acme")].iter().any(|(of, keys)| *of == epoch && keys.contains(&key(1))));
    world
}

#[tokio::test]
async fn invariant_8_what_was_sealed_since_the_item_was_read_is_not_its_ledger_yet() {
    assert_eq!(sealed_while_it_is_read().kinds().await, []);
}

/// In a simulated history both looks must come upon it, which they hardly do.
#[cfg(feature = "bugs")]
#[test]
fn a_page_of_the_items_own_epoch_that_counts_is_found() {
    use recount_schemas::bugs::{Bug, within};
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let found = within(Bug::PageOfTheSameEpochCounts, || runtime.block_on(sealed_while_it_is_read().kinds()));
    assert!(!found.is_empty());
}

#[tokio::test]
async fn invariant_9_a_busy_cell_that_was_sealed_between_look_and_pages_can_be_repaired() {
    let mut world = world(20);
    world.item("acme").events += 7;
    world.earlier = world.items.clone();
    let before = world.item("acme").epoch;
    more(&mut world, 40, 8);
    assert!(world.item("acme").epoch >= before + 2);
    let plan = world.plan().await;
    assert_eq!(plan.cells.iter().map(|cell| cell.raise.clone()).collect::<Vec<_>>(), [None], "it is not behind");
    more(&mut world, 48, 8);
    assert_eq!(world.apply(&plan), [Step::Done]);
    world.earlier.clear();
    world.passed = 56;
    assert_eq!(world.kinds().await, []);
    assert_eq!(world.item("acme").events, 36);
}

#[tokio::test]
async fn invariant_9_a_deleted_cell_that_never_rests_can_be_repaired() {
    let mut world = world(20);
    world.items.remove(&cell("acme"));
    more(&mut world, 40, 2);
    world.passed = 42;
    let plan = world.plan().await;
    assert!(plan.cells[0].raise.is_some());
    // A new event comes, and an old one again, whose page is not yet in the ledger; then a sealing.
    more(&mut world, 42, 1);
    let again = world.pages[&cell("acme")].last().unwrap().1[0];
    world.count(&cell("acme"), again, &World::adds(0));
    more(&mut world, 43, 4);
    assert_eq!(world.apply(&plan), [Step::Raised]);
    let raised = world.items.clone();
    assert_eq!(world.apply(&plan), [Step::Raised], "a second time changes nothing");
    assert_eq!(world.items, raised);
    // From now on every event of a page is known.
    for key in world.pages[&cell("acme")].iter().flat_map(|(_, keys)| keys).copied().collect::<Vec<_>>() {
        assert!(!world.count(&cell("acme"), key, &World::adds(0)));
    }
    world.passed = 47;
    let plan = world.plan().await;
    more(&mut world, 47, 9);
    assert_eq!(world.apply(&plan), [Step::Done], "it was written to again, and it does not matter");
    world.passed = 56;
    let plan = world.plan().await;
    world.apply(&plan);
    assert_eq!(world.kinds().await, []);
    assert_eq!(world.item("acme").events, 36);
}

/// A world where all events are older than the ledger reaches back and acme has lost its pages.
fn expired() -> World {
    let mut world = world(20);
    world.old = Some(key(100));
    world.pages.remove(&cell("acme"));
    world
}

#[tokio::test]
async fn invariant_2_an_old_event_counts_once_though_its_cell_and_pages_are_gone() {
    let lost_item: fn(&mut World) = |world| {
        world.items.remove(&cell("acme"));
    };
    let begun_anew: fn(&mut World) = |world| {
        world.items.remove(&cell("acme"));
        more(world, 200, 1);
        world.passed = 201;
    };
    let lost_sealed: fn(&mut World) = |world| {
        let item = world.item("acme");
        (item.sealed, item.events) = (None, item.events + 3);
    };
    for damage in [lost_item, begun_anew, lost_sealed] {
        let mut world = expired();
        damage(&mut world);
        let plan = world.plan().await;
        assert_eq!(world.apply(&plan), [Step::Done]);
        assert_eq!(world.kinds().await, []);
        let repaired = world.items[&cell("acme")].clone();
        assert!(repaired.events >= 20 && repaired.epoch >= 1, "{repaired:?}");
        for n in (0..40).filter(|n| n % 2 == 0) {
            assert!(!world.count(&cell("acme"), key(n), &World::adds(n)), "a copy of event {n}");
        }
        assert_eq!(world.items[&cell("acme")], repaired);
        assert!(!world.listed[&cell("acme")].is_empty(), "they are too old");
        assert_eq!(world.kinds().await, []);
        assert!(world.plan().await.is_empty());
    }
}

#[tokio::test]
async fn invariant_4_a_repaired_cell_knows_the_keys_on_its_pages_though_its_sealed_was_lost() {
    for (sealed, off) in [(None, 3), (Some(key(0)), 3), (None, 0), (Some(key(0)), 0)] {
        let mut world = world(20);
        let item = world.item("acme");
        (item.sealed, item.events) = (sealed, item.events - off);
        assert_eq!(world.kinds().await, [("acme".to_owned(), Kind::Damaged, Vec::new())]);
        let plan = world.plan().await;
        assert_eq!(world.apply(&plan), [Step::Done]);
        let repaired = world.items[&cell("acme")].clone();
        assert_eq!(repaired.events, 20);
        for n in (0..40).rev().filter(|n| n % 2 == 0) {
            assert!(!world.count(&cell("acme"), key(n), &World::adds(n)), "a copy of event {n}");
        }
        assert_eq!(world.items[&cell("acme")], repaired);
        assert_eq!(world.kinds().await, []);
    }
}

#[tokio::test]
async fn invariants_8_and_9_an_invented_event() {
    let damage = |world: &mut World| {
        let item = world.item("acme");
        item.recent.insert(key(900));
        item.events += 1;
    };
    check(damage, &[("acme", Kind::Unbacked, &[900])]).await;
}

#[tokio::test]
async fn invariants_8_and_9_a_lost_event() {
    let damage = |world: &mut World| {
        let item = world.item("zeta");
        let lost = *item.recent.last().unwrap();
        item.recent.remove(&lost);
        World::add(item, &World::adds(39).negated());
    };
    check(damage, &[("zeta", Kind::Missing, &[39])]).await;
}

#[tokio::test]
async fn invariants_8_and_9_a_lost_page() {
    let damage = |world: &mut World| {
        world.pages.get_mut(&cell("acme")).unwrap().remove(1);
    };
    // The number still has them, its ledger does not: so the number is above its ledger, and they are to be counted again.
    check(damage, &[("acme", Kind::Missing, &[6, 8, 10]), ("acme", Kind::Damaged, &[])]).await;
}

#[tokio::test]
async fn invariants_8_and_9_an_event_counted_in_another_cell() {
    let damage = |world: &mut World| {
        world.count(&cell("acme"), key(39), &World::adds(39));
    };
    check(damage, &[("acme", Kind::WrongCell, &[39])]).await;
}

#[tokio::test]
async fn invariant_8_a_too_old_event_is_named_and_put_into_the_number() {
    let mut world = world(20);
    // Everything before 30 is old; its pages may have expired. Event 100 came too late.
    world.old = Some(key(30));
    world.pages.clear();
    let late = EventKey::new(START_MS - 5, b"late").unwrap();
    world.record(&cell("acme"), 100);
    if let Some(row) = world.archive.last_mut() {
        row.key = late;
        row.origin.sequence_number = "39".parse().unwrap();
    }
    world.listed.entry(cell("acme")).or_default().insert(late);
    assert_eq!(world.kinds().await, [("acme".to_owned(), Kind::TooOld, vec!["event-100".to_owned()])]);
    let plan = world.plan().await;
    world.apply(&plan);
    assert_eq!(world.kinds().await, []);
    assert_eq!(world.items[&cell("acme")].events, 21);
}

#[tokio::test]
async fn a_plan_that_another_one_overtook_is_refused() {
    let mut world = world(20);
    world.item("acme").events += 7;
    let first = world.plan().await;
    let mut second = first.clone();
    second.cells[0].add.events = -3;
    assert_eq!(world.apply(&second), [Step::Done]);
    assert_eq!(world.apply(&first), [Step::Refused]);
    let plan = world.plan().await;
    world.apply(&plan);
    assert_eq!(world.kinds().await, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Records come, consumers lag and repeat, cells seal: at no moment is anything found.
    #[test]
    fn invariant_8_nothing_is_found_while_events_flow(
        steps in prop::collection::vec((0u32..40, any::<bool>(), any::<bool>()), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut world = World::default();
        let mut stream: Vec<(Cell, u32)> = Vec::new();
        for (n, first, again) in steps {
            let of = cell(if first { "acme" } else { "zeta" });
            stream.push((of.clone(), stream.len() as u32));
            let at = stream.len() as u32 - 1;
            world.record(&of, at);
            // The consumer takes everything up to somewhere, some of it twice, and perhaps has not said so yet.
            let to = stream.len().min(n as usize + 1);
            for (cell, n) in &stream[..to] {
                world.count(cell, key(*n), &World::adds(*n));
            }
            if again {
                world.passed = world.passed.max(to as u32 - 1);
            }
            prop_assert_eq!(runtime.block_on(world.kinds()), vec![]);
        }
    }

    /// Any few damages to a settled world, together: repaired in at most three rounds, and the same as before.
    #[test]
    fn invariant_9_repair_of_any_damages_ends_clean_and_right(
        damages in prop::collection::vec((0u8..6, 0u32..40, -3i64..4), 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let healthy = world(20);
        let mut world = healthy.clone();
        for (damage, n, off) in damages {
            let of = cell(if n % 2 == 0 { "acme" } else { "zeta" });
            let pages = world.pages.entry(of.clone()).or_default();
            let lost_page = (damage == 5 && !pages.is_empty()).then(|| pages.remove(n as usize % pages.len()));
            let Some(item) = world.items.get_mut(&of) else { continue };
            match damage {
                0 => item.events += off,
                1 => World::add(item, &delta(0, off)),
                2 => { item.recent.remove(&key(n)); }
                3 => { item.recent.insert(key(1_000 + n)); item.events += 1; }
                4 => { world.items.remove(&of); }
                _ => { let _ = lost_page; }
            }
        }
        for _ in 0..3 {
            let plan = runtime.block_on(world.plan());
            world.apply(&plan);
        }
        prop_assert_eq!(runtime.block_on(world.kinds()), vec![]);
        for (cell, healthy) in &healthy.items {
            let repaired = &world.items[cell];
            prop_assert_eq!((repaired.events, &repaired.sums), (healthy.events, &healthy.sums));
        }
    }
}
