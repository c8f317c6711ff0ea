//! What the comparison does with each thing that it is told, cell by cell; [`tests`](super::tests) has whole worlds.

use recount_schemas::Amount;
use smallvec::smallvec;

use super::super::standing::{Standings, push_head, push_key};
use super::*;
use crate::bucket::Bucket;
use crate::contributions::spill::Sorter;

fn cell(group: &str) -> Cell {
    Cell { group: group.parse().unwrap(), month: "2026-11".parse().unwrap(), lane: 0 }
}

fn key(n: i64) -> EventKey {
    EventKey::least_at(1_790_000_000_000 + n)
}

fn delta(events: i64, bytes: i128) -> Delta {
    Delta { events, sums: smallvec![Amount::from_billionths(bytes)] }
}

/// Event `n` of a group: it stands in the stream at `n`, and adds one event of `n` bytes.
fn row(group: &str, n: i64) -> Contribution {
    let origin = Origin {
        event_id: format!("event-{n}"),
        shard_id: "shard".parse().unwrap(),
        sequence_number: n.to_string().parse().unwrap(),
        file: format!("file-{n}"),
    };
    Contribution { cell: cell(group), key: key(n), delta: delta(1, i128::from(n)), origin }
}

fn head(events: i64, bytes: i128) -> Head {
    Head {
        present: true,
        number: delta(events, bytes),
        epoch: 1,
        sealed: None,
        recent: 0,
        repair: None,
        ahead: None,
        behind: false,
    }
}

/// The consumer has passed everything up to 100.
fn known() -> Known {
    Known { passed: Passed([("shard".parse().unwrap(), "100".parse().unwrap())].into()), ..Known::default() }
}

type Marked<'a> = (&'a str, i64, Mark);

async fn try_compared(
    known: &Known,
    heads: &[(&str, Head)],
    marks: &[Marked<'_>],
    rows: Vec<Contribution>,
) -> Result<Compared, JoinError> {
    let text = "[source]\ntable='t'\nkey=['a']\n[fold]\ngroup_by='g'\nsum=['bytes']";
    let definition = Arc::new(Definition::parse(text, "recount.toml").unwrap());
    let mut sorter = Sorter::with_buffer(1 << 20);
    heads.iter().for_each(|(group, head)| push_head(&mut sorter, &cell(group), head).unwrap());
    marks.iter().for_each(|(group, n, mark)| push_key(&mut sorter, &cell(group), key(*n), *mark).unwrap());
    let standings = Standings::new(sorter.finish().unwrap());
    let rows: Contributions<Bucket> = Contributions::Memory(rows.into_iter());
    compare(&definition, known, standings, Bulks::default(), rows).await
}

async fn compared(known: &Known, heads: &[(&str, Head)], marks: &[Marked<'_>], rows: Vec<Contribution>) -> Compared {
    try_compared(known, heads, marks, rows).await.unwrap()
}

fn kinds(compared: &Compared) -> Vec<(String, Kind, Vec<String>)> {
    let findings = compared.found.iter().flat_map(|found| &found.outcome.findings);
    findings.map(|f| (f.group.as_ref().unwrap().to_string(), f.kind, f.event_ids.clone())).collect()
}

fn finding(group: &str, kind: Kind, events: &[i64]) -> (String, Kind, Vec<String>) {
    (group.to_owned(), kind, events.iter().map(|n| format!("event-{n}")).collect())
}

#[tokio::test]
async fn each_key_goes_to_its_own_cell_with_or_without_an_item() {
    // acme and mid have keys, but no items; zeta has both. The same keys stand in all of them.
    let kept = ["acme", "mid", "zeta"].map(|group| [(group, 1, Mark::Kept), (group, 2, Mark::Kept)]).concat();
    let rows = ["acme", "mid", "zeta"].map(|group| vec![row(group, 1), row(group, 2)]).concat();
    let all = compared(&known(), &[("zeta", head(2, 3))], &kept, rows).await;
    assert_eq!((all.cells, all.events, all.open.len()), (3, 6, 0));
    assert_eq!(kinds(&all), [finding("acme", Kind::Damaged, &[]), finding("mid", Kind::Damaged, &[])]);
}

#[tokio::test]
async fn fewer_events_than_were_said_are_told_of() {
    // acme has an item, mid has none; of nobody there is nothing at all.
    for (said, expected) in [
        (vec![("acme", 2), ("mid", 1)], None),
        (vec![("acme", 3), ("mid", 1)], Some(("acme", 3, 2))),
        (vec![("acme", 1), ("mid", 2)], Some(("mid", 2, 1))),
        (vec![("acme", 2), ("nobody", 1)], Some(("nobody", 1, 0))),
    ] {
        let said = said.into_iter().map(|(group, events)| (cell(group), events)).collect();
        let rows = vec![row("acme", 1), row("acme", 2), row("mid", 3)];
        let all = compared(&Known { said, ..known() }, &[("acme", head(0, 0))], &[], rows).await;
        let fewer = all.fewer.map(|fewer| (fewer.cell, fewer.said, fewer.read));
        assert_eq!(fewer, expected.map(|(group, said, read)| (cell(group), said, read)));
    }
}

#[tokio::test]
async fn a_row_that_stands_twice_is_named_with_its_files() {
    let mut again = row("acme", 1);
    again.origin.file = "another".to_owned();
    let error = try_compared(&known(), &[], &[], vec![row("acme", 1), again]).await.unwrap_err();
    let JoinError::Twice { key: twice, first, second } = error else { panic!("{error}") };
    assert_eq!((twice, first.as_str(), second.as_str()), (key(1), "file-1", "another"));
}

#[tokio::test]
async fn a_failed_read_ends_the_comparison() {
    let text = "[source]\ntable='t'\nkey=['a']\n[fold]\ngroup_by='g'\nsum=['bytes']";
    let definition = Arc::new(Definition::parse(text, "recount.toml").unwrap());
    for good in 0..3 {
        let mut standings: Vec<std::io::Result<Standing>> =
            vec![Ok(Standing::Cell(cell("acme"), head(1, 1))), Ok(Standing::Key(cell("acme"), key(1), Mark::Kept))];
        standings.truncate(good);
        standings.push(Err(std::io::Error::other("the disk is gone")));
        let rows: Contributions<Bucket> = Contributions::Memory(vec![row("acme", 1), row("acme", 2)].into_iter());
        let known = known();
        let compared = compare(&definition, &known, standings.into_iter(), Bulks::default(), rows);
        let error = compared.await.unwrap_err();
        assert!(error.to_string().contains("the disk is gone"), "{error}");
    }
}

#[tokio::test]
async fn conflicting_variants_stand_beside_the_row_of_their_own_key_and_cell() {
    let variant = |n: i64| (0, Archived { delta: delta(1, 500), origin: row("acme", n).origin, variant: true });
    let at = |group: &str, n: i64| (cell(group).month, cell(group).group, key(n));
    let known =
        Known { variants: [(at("acme", 2), vec![variant(2)]), (at("zeta", 1), vec![variant(1)])].into(), ..known() };
    let kept = [("acme", 1, Mark::Kept), ("acme", 2, Mark::Kept), ("zeta", 1, Mark::Kept), ("zeta", 2, Mark::Kept)];
    let rows = vec![row("acme", 1), row("acme", 2), row("zeta", 1), row("zeta", 2)];
    let all = compared(&known, &[("acme", head(2, 501)), ("zeta", head(2, 3))], &kept, rows).await;
    assert_eq!(kinds(&all), [finding("acme", Kind::Conflicting, &[2]), finding("zeta", Kind::Conflicting, &[1])]);
}

#[tokio::test]
async fn only_a_record_that_is_in_quarantine_is_found_there() {
    let position = |n: i64| (row("acme", n).origin.shard_id, row("acme", n).origin.sequence_number);
    let known = Known { quarantined: [position(1)].into(), ..known() };
    let all = compared(&known, &[], &[], vec![row("acme", 1), row("acme", 2)]).await;
    assert_eq!(kinds(&all), [finding("acme", Kind::Missing, &[2]), finding("acme", Kind::Quarantined, &[1])]);
}

#[tokio::test]
async fn what_is_old_is_taken_as_counted_and_too_old_only_if_it_is_listed_and_not_settled() {
    let found = async |marks: &[Marked<'_>], settled: &[i64], horizon: i64| {
        let settled = BTreeMap::from([(cell("acme"), settled.iter().map(|n| key(*n)).collect())]);
        let known = Known { horizon: Some(key(horizon)), settled, ..known() };
        let sealed = Head { sealed: Some(key(9)), ..head(1, 2) };
        kinds(&compared(&known, &[("acme", sealed)], marks, vec![row("acme", 1), row("acme", 2)]).await)
    };
    let short = [finding("acme", Kind::Damaged, &[])];
    assert_eq!(found(&[("acme", 1, Mark::Listed)], &[], 3).await, [finding("acme", Kind::TooOld, &[1])]);
    assert_eq!(found(&[], &[], 3).await, short, "on no list");
    assert_eq!(found(&[("acme", 1, Mark::Listed)], &[1], 3).await, short, "a plan has put it into the number");
    let young = [finding("acme", Kind::Missing, &[2]), finding("acme", Kind::Damaged, &[])];
    assert_eq!(found(&[], &[], 2).await, young, "an event at the horizon is not old");
}

#[tokio::test]
async fn sealed_is_raised_to_what_is_taken_as_counted_and_only_if_it_is_below() {
    let raise = async |sealed: Option<EventKey>| {
        let known = Known { horizon: Some(key(50)), ..known() };
        let damaged = Head { sealed, epoch: 4, ..head(7, 3) };
        let rows = vec![row("acme", 1), row("acme", 2)];
        compared(&known, &[("acme", damaged)], &[], rows).await.found.remove(0).raise
    };
    for below in [None, Some(key(1))] {
        assert_eq!(raise(below).await, Some(Raise { epoch: 5, sealed: key(2) }));
    }
    assert_eq!(raise(Some(key(2))).await, None);
    assert_eq!(raise(Some(key(3))).await, None);
}

#[tokio::test]
async fn a_page_that_is_ahead_is_damage_only_if_its_keys_are_missing_from_the_ledger() {
    let ahead = Raise { epoch: 6, sealed: key(2) };
    let raise = async |marks: &[Marked<'_>], passed: u32| {
        let known = Known {
            passed: Passed([("shard".parse().unwrap(), passed.to_string().parse().unwrap())].into()),
            ..known()
        };
        let head = Head { ahead: Some(ahead.clone()), ..head(9, 9) };
        let rows = vec![row("acme", 1), row("acme", 2), row("acme", 3)];
        compared(&known, &[("acme", head)], marks, rows).await.found.remove(0).raise
    };
    let page = [("acme", 1, Mark::Ahead), ("acme", 2, Mark::Ahead)];
    let kept = [("acme", 1, Mark::Kept), ("acme", 2, Mark::Kept), ("acme", 3, Mark::Kept)];
    assert_eq!(raise(&[&page[..], &kept[2..]].concat(), 100).await, Some(ahead.clone()), "the item was deleted");
    assert_eq!(raise(&[&page[..], &kept[..]].concat(), 100).await, None, "a sealing that goes on");
    assert_eq!(raise(&page, 0).await, None, "keys that come only now");
    assert_eq!(raise(&[&page[..], &kept[..2]].concat(), 100).await, None, "another event is missing");
}

#[tokio::test]
async fn an_event_counted_twice_is_named_only_if_its_measures_tell_it() {
    let found = async |hint: Delta, number: Head| {
        let known = Known { hints: [(cell("acme"), hint)].into(), ..known() };
        let kept = [("acme", 0, Mark::Kept), ("acme", 5, Mark::Kept)];
        compared(&known, &[("acme", number)], &kept, vec![row("acme", 0), row("acme", 5)]).await
    };
    let doubled = found(delta(1, 5), head(3, 10)).await;
    assert_eq!(kinds(&doubled), [finding("acme", Kind::Doubled, &[5])]);
    let numbers = &doubled.found[0].outcome.findings[0];
    assert_eq!((numbers.expected, numbers.actual), (2, 3));
    let without_bytes = found(delta(1, 0), head(3, 5)).await;
    assert_eq!(kinds(&without_bytes), [finding("acme", Kind::Damaged, &[])], "any event would do");
    let another = found(delta(1, 5), head(4, 15)).await;
    assert_eq!(kinds(&another), [finding("acme", Kind::Damaged, &[])], "the difference is another by now");
}

#[tokio::test]
async fn findings_are_bounded_and_all_are_counted() {
    let one = compared(&known(), &[("acme", head(1, 0))], &[], vec![]).await.found.remove(0);
    let mut all = Compared::default();
    for _ in 0..MAX_CELLS_FOUND + 2 {
        all.take(one.clone());
    }
    assert_eq!((all.found.len(), all.more_cells), (MAX_CELLS_FOUND, 2));
}
