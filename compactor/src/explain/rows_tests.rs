use super::*;
use crate::bucket::memory::Memory;
use crate::explain::as_of::Moment;
use crate::history::Origins;
use crate::recompute::tests::{ItemState, archive, record};
use crate::rows::ArchivedRow;
use crate::rows::row::Place;
use crate::rows::testing::NOVEMBER;

fn definition(count: &str) -> Definition {
    let text = format!(
        "[source]\ntable='scans'\nkey=['scan_id']\n[fold]\ngroup_by='project_id'\noccurred_at='scanned_at'\nsum=['bytes']\ncount='{count}'"
    );
    Definition::parse(&text, "recount.toml").unwrap()
}

/// The row of the `n`-th change of an item between states of (group, month, bytes).
fn row(definition: &Definition, n: i64, old: ItemState, new: ItemState) -> ArchivedRow {
    let text = record(n, old, new, "scans", false);
    let arrived_us = NOVEMBER + 60_000_000;
    let judged = definition.judge(text.as_bytes(), arrived_us).unwrap();
    let place = Place { shard: "s".parse().unwrap(), sequence: n.to_string().parse().unwrap(), arrived_us };
    ArchivedRow::new(definition, &judged, judged.change.content_hash().0, &text, place)
}

/// Each event of group g0 in January 2026: its ID, what it adds, whether it adds elsewhere.
async fn told(
    bucket: &Memory,
    definition: &Definition,
    state: &State,
) -> Result<Vec<(String, Option<i64>, bool)>, ReadError> {
    let (group, month) = ("g0".parse().unwrap(), "2026-01".parse().unwrap());
    let listed = events(bucket, definition, &group, month, state, Wanted::default()).await?;
    assert_eq!(listed.undated, 0);
    let nets = definition.count != Count::Inserts;
    Ok(listed
        .finish()?
        .map(|it| it.unwrap().1)
        .inspect(|it| assert_eq!((&it.told, it.event.month.is_some()), (&None, it.event.event_id == "e5" && nets)))
        .map(|it| (it.event.event_id, it.event.adds.map(|it| it.events), it.elsewhere))
        .collect())
}

fn expected(events: &[(&str, Option<i64>)]) -> Vec<(String, Option<i64>, bool)> {
    events.iter().map(|(id, adds)| ((*id).to_owned(), *adds, false)).collect()
}

#[tokio::test]
async fn inserts_and_whatever_else_is_of_the_group_and_month() {
    let definition = definition("inserts");
    let row = |n, old, new| row(&definition, n, old, new);
    let (ours, theirs, later) = (Some((0, 0, 5)), Some((1, 0, 6)), Some((0, 1, 7)));
    let files = vec![
        vec![row(3, None, ours), row(1, None, ours), row(2, ours, ours), row(4, None, theirs), row(5, ours, None)],
        vec![row(6, None, theirs)],
        vec![row(7, None, later), row(8, ours, later)],
    ];
    let (bucket, state) = archive(&definition, files).await;
    let listed = expected(&[("e1", Some(1)), ("e2", None), ("e3", Some(1)), ("e5", None)]);
    assert_eq!(told(&bucket, &definition, &state).await.unwrap(), listed);
    // Files of other groups and months are not read at all; the one that holds them is.
    let targets: Vec<String> = state.files.values().flat_map(|of_month| of_month.keys().cloned()).collect();
    for target in &targets[1..] {
        bucket.delete(target).await.unwrap();
    }
    assert_eq!(told(&bucket, &definition, &state).await.unwrap(), listed);
    bucket.delete(&targets[0]).await.unwrap();
    assert!(told(&bucket, &definition, &state).await.is_err());
}

#[tokio::test]
async fn a_change_that_moves_an_item_is_an_event_of_both_cells() {
    let definition = definition("net");
    let row = |n, old, new| row(&definition, n, old, new);
    let (ours, theirs, later) = (Some((0, 0, 5)), Some((1, 0, 6)), Some((0, 1, 7)));
    let mut moved = row(7, None, theirs);
    moved.group = Some("g0".parse().unwrap());
    let files = vec![
        vec![row(1, None, ours), row(2, ours, ours), row(6, ours, None), moved],
        vec![row(3, ours, theirs), row(4, theirs, ours), row(8, None, theirs)],
        vec![row(5, ours, later), row(9, None, later)],
    ];
    let (bucket, state) = archive(&definition, files).await;
    let mut listed = expected(&[
        ("e1", Some(1)),
        ("e2", None),
        ("e3", Some(-1)),
        ("e4", Some(1)),
        ("e5", Some(-1)),
        ("e6", Some(-1)),
        ("e7", None),
    ]);
    // A row that says this group, and whose image adds to another's cell.
    listed[6].2 = true;
    assert_eq!(told(&bucket, &definition, &state).await.unwrap(), listed);
}

#[tokio::test]
async fn where_all_events_of_the_group_are_wanted_those_of_other_months_say_so() {
    let definition = definition("inserts");
    let row = |n, old, new| row(&definition, n, old, new);
    let (ours, theirs, later) = (Some((0, 0, 5)), Some((1, 0, 6)), Some((0, 1, 7)));
    let files = vec![vec![row(1, None, ours), row(2, None, theirs)], vec![row(3, None, later)]];
    let (bucket, state) = archive(&definition, files).await;
    let (group, month) = ("g0".parse().unwrap(), "2026-01".parse().unwrap());
    let wanted = Wanted { other_months: true, as_of: None };
    let listed = events(&bucket, &definition, &group, month, &state, wanted).await.unwrap();
    let told: Vec<_> = listed.finish().unwrap().map(|it| it.unwrap().1).collect();
    let told: Vec<_> = told.iter().map(|it| (it.event.event_id.as_str(), it.told.as_deref(), it.event.month)).collect();
    assert_eq!(told, [("e1", None, None), ("e3", Some("other_month"), Some("2026-02".parse().unwrap()))]);
}

#[tokio::test]
async fn at_a_moment_only_what_was_there_is_listed_and_what_cannot_be_dated_is_counted() {
    let definition = definition("inserts");
    let rows = [1, 2, 3].map(|n| row(&definition, n, None, Some((0, 0, 5))));
    let (bucket, state) = archive(&definition, vec![rows.to_vec()]).await;
    let target = state.files.values().flat_map(|of_month| of_month.keys()).next().unwrap().clone();
    let none = std::collections::BTreeSet::new();
    let listed = async |read: &[u64], brought: &[u64], n: u64| {
        // Entry 0 read shard a, entry 1 shard b; entry 2 brought rows.
        let mut history = crate::history::tests::told();
        let origins = Origins { read: read.iter().copied().collect(), brought: brought.iter().copied().collect() };
        history.origins.insert(target.clone(), Arc::new(origins));
        let as_of = AsOf::new(&history, Moment::Entry(n), &none).unwrap();
        let (group, month) = ("g0".parse().unwrap(), "2026-01".parse().unwrap());
        let wanted = Wanted { other_months: false, as_of: Some(&as_of) };
        let listed = events(&bucket, &definition, &group, month, &state, wanted).await.unwrap();
        (listed.undated, listed.finish().unwrap().count())
    };
    assert_eq!(listed(&[], &[2], 2).await, (0, 3), "they had been brought");
    assert_eq!(listed(&[], &[2], 1).await, (0, 0), "they came later");
    assert_eq!(listed(&[], &[0, 2], 1).await, (3, 0), "nobody can say");
}

#[tokio::test]
async fn an_event_says_where_and_when_it_was() {
    let definition = definition("inserts");
    let (bucket, state) = archive(&definition, vec![vec![row(&definition, 4, None, Some((0, 0, 5)))]]).await;
    let (group, month) = ("g0".parse().unwrap(), "2026-01".parse().unwrap());
    let listed = events(&bucket, &definition, &group, month, &state, Wanted::default()).await.unwrap();
    let mut events = listed.finish().unwrap();
    let (key, Kept { event, lane, .. }) = events.next().unwrap().unwrap();
    assert_eq!((key.created_ms(), lane), (NOVEMBER / 1_000 + 4, 0));
    assert_eq!(
        (event.occurred_at.as_str(), event.created_at.as_str()),
        ("2026-01-15T00:00:00Z", "2026-11-01T00:00:00.004Z")
    );
    assert_eq!((event.shard_id.as_str(), event.sequence_number.as_str()), ("s", "4"));
    assert!(!event.counted && event.why.is_empty());
}

#[test]
fn a_damaged_entry_is_an_error() {
    let damaged = |key: &[u8], value: &[u8]| decode(Ok((key.to_vec(), value.to_vec()))).is_err();
    assert!(damaged(&[0; 15], b"{}"));
    assert!(damaged(&[0; 16], b"{}"));
    assert!(decode(Err(io::Error::other("lost"))).is_err());
}
