use super::*;
use crate::bucket::memory::Memory;
use crate::contributions::reader::Reader;
use crate::contributions::{Contribution, Scope};
use crate::log::state::LiveFile;
use crate::rows::ArchivedRow;
use crate::rows::row::Place;
use crate::rows::testing::{NOVEMBER, definition, row};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use recount_schemas::{Cell, Delta};
use std::collections::BTreeMap;

/// A bucket with one file of each list of rows, and the log's state for it. Rows of one list have one month.
pub(crate) async fn archive(definition: &Definition, files: Vec<Vec<ArchivedRow>>) -> (Memory, State) {
    let (bucket, mut state) = (Memory::new(), State::default());
    for (i, rows) in files.into_iter().enumerate() {
        let month = rows[0].month;
        let written = crate::rows::write(definition, month, rows).unwrap().unwrap();
        let target = format!("events/month={month}/000000000000/{i:012}-0.parquet");
        bucket.put(&target, written.bytes.clone()).await.unwrap();
        let live = LiveFile {
            n: i as u64,
            definition: definition.hash().to_owned(),
            file: written.added("_staging/x".to_owned(), target.clone()),
        };
        state.files.entry(month).or_default().insert(target, live);
    }
    state.next = 1;
    (bucket, state)
}

fn insert(i: i64, group: &str) -> ArchivedRow {
    row(&format!("e{i}"), Some(group), NOVEMBER + i * 1_000, &(i * 3).to_string())
}

async fn fold(definition: Definition, files: Vec<Vec<ArchivedRow>>) -> (Report, Memory) {
    let (bucket, state) = archive(&definition, files).await;
    (recompute(&bucket, &Arc::new(definition), &state, &|_| {}).await.unwrap(), bucket)
}

#[tokio::test]
async fn totals_come_from_all_files_and_are_written_for_athena() {
    let files = vec![
        vec![insert(1, "acme"), insert(5, "zeta"), row("o", None, NOVEMBER, "1")],
        vec![insert(2, "acme"), insert(3, "acme")],
    ];
    let (report, bucket) = fold(definition(), files).await;
    let lines: Vec<(String, i64, String)> =
        report.totals.months.iter().map(|l| (l.group.to_string(), l.events, l.sums["bytes"].to_string())).collect();
    assert_eq!(lines, [("acme".to_owned(), 3, "18".to_owned()), ("zeta".to_owned(), 1, "15".to_owned())]);
    assert_eq!((report.rows, report.files, report.repeated, report.same_change_pairs), (5, 2, 0, 0));
    for (object, period) in [(write::MONTHLY, "2026-11"), (write::YEARLY, "2026")] {
        let bytes = bucket.bytes(object).unwrap();
        let mut reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
        let batch = reader.next().unwrap().unwrap();
        assert_eq!(batch.num_rows(), 2);
        let periods = batch.column_by_name("period").unwrap();
        let periods = periods.as_any().downcast_ref::<arrow_array::StringArray>().unwrap();
        assert_eq!(periods.value(0), period);
    }
}

#[tokio::test]
async fn a_key_that_stands_in_two_files_is_found_and_counted_once() {
    let (report, _) =
        fold(definition(), vec![vec![insert(1, "acme"), insert(2, "acme")], vec![insert(2, "acme")]]).await;
    assert_eq!((report.repeated, report.totals.months[0].events), (1, 2));
    assert!(!report.is_clean());
    assert!(report.repeated_events[0].file.ends_with("000000000001-0.parquet"));
}

#[tokio::test]
async fn one_change_under_two_event_ids_is_counted_as_a_pair() {
    let same = |id: &str| {
        let mut same = insert(7, "acme");
        same.event_id = id.to_owned();
        same.key = recount_schemas::EventKey::new(same.key.created_ms(), id.as_bytes()).unwrap();
        same
    };
    // Another change of the same moment is no pair with them.
    let mut other = same("c");
    other.content[0] ^= 1;
    let (report, _) = fold(definition(), vec![vec![same("a"), insert(1, "acme"), other], vec![same("b")]]).await;
    assert_eq!((report.same_change_pairs, report.totals.months[0].events), (1, 4));
}

#[tokio::test]
async fn many_files_go_through_the_external_sort_and_give_the_same() {
    let rows =
        || (0..i64::try_from(MAX_MERGED).unwrap() + 5).map(|i| insert(i, if i % 3 == 0 { "a b" } else { "acme" }));
    let (sorted, _) = fold(definition(), rows().map(|row| vec![row]).collect()).await;
    let (merged, _) = fold(definition(), vec![rows().collect()]).await;
    assert_eq!(sorted.totals, merged.totals);
}

#[tokio::test]
async fn rows_of_another_definition_are_refused() {
    let (bucket, state) = archive(&definition(), vec![vec![insert(1, "acme")]]).await;
    let other = Definition::parse("[source]\ntable='scans'\nkey=['scan_id']\n[fold]\ngroup_by='other'", "x").unwrap();
    let refused = recompute(&bucket, &Arc::new(other), &state, &|_| {}).await;
    assert!(matches!(refused, Err(RecomputeError::Read(ReadError::Definition { .. }))));
}

/// A change of an item between states of (group, month, bytes), as a record.
pub(crate) fn record(n: i64, old: ItemState, new: ItemState, table: &str, ttl: bool) -> String {
    let image = |name: &str, state: ItemState| {
        state.map_or_else(String::new, |(group, month, bytes)| {
            format!(
                r#""{name}":{{"scan_id":{{"S":"i"}},"project_id":{{"S":"g{group}"}},"scanned_at":{{"S":"2026-{:02}-15T00:00:00Z"}},"bytes":{{"N":"{bytes}"}}}},"#,
                month + 1
            )
        })
    };
    let name = match (old, new) {
        (None, _) => "INSERT",
        (Some(_), Some(_)) => "MODIFY",
        (Some(_), None) => "REMOVE",
    };
    let user = if ttl { r#"{"type":"Service","principalId":"dynamodb.amazonaws.com"}"# } else { "null" };
    let created = NOVEMBER + n * 1_000;
    format!(
        r#"{{"awsRegion":"r","eventID":"e{n}","eventName":"{name}","userIdentity":{user},"recordFormat":"application/json","tableName":"{table}","dynamodb":{{"ApproximateCreationDateTime":{created},"Keys":{{"scan_id":{{"S":"i"}}}},{}{}"SizeBytes":7,"ApproximateCreationDateTimePrecision":"MICROSECOND"}},"eventSource":"aws:dynamodb"}}"#,
        image("NewImage", new),
        image("OldImage", old),
    )
}

/// An item's group, month and bytes.
pub(crate) type ItemState = Option<(u8, u8, i64)>;

fn states() -> impl Strategy<Value = (ItemState, ItemState)> {
    let state = || (0u8..3, 0u8..3, -9i64..9);
    prop_oneof![
        state().prop_map(|new| (None, Some(new))),
        (state(), state()).prop_map(|(old, new)| (Some(old), Some(new))),
        state().prop_map(|old| (Some(old), None)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What the archive's columns give is what the definition's own fold gives for the records, whichever way they count;
    /// and contributions come out in the order of the cells.
    #[test]
    fn rows_add_what_their_records_add(
        changes in prop::collection::vec((states(), any::<bool>(), any::<bool>()), 1..30),
        net in any::<bool>(),
        lanes in prop::sample::select(vec![1, 4]),
    ) {
        let count = if net { "net" } else { "inserts" };
        let text = format!("[source]\ntable='scans'\nkey=['scan_id']\n[fold]\ngroup_by='project_id'\noccurred_at='scanned_at'\nsum=['bytes']\ntime_zone='Asia/Singapore'\ncount='{count}'\nlanes={lanes}");
        let definition = Definition::parse(&text, "recount.toml").unwrap();
        let mut expected: BTreeMap<Cell, Delta> = BTreeMap::new();
        let mut rows: BTreeMap<Month, Vec<ArchivedRow>> = BTreeMap::new();
        for (n, ((old, new), other, ttl)) in changes.into_iter().enumerate() {
            let text = record(n as i64, old, new, if other { "other" } else { "scans" }, ttl && new.is_none());
            let arrived_us = NOVEMBER + 60_000_000;
            let judged = definition.judge(text.as_bytes(), arrived_us).unwrap();
            for (cell, delta) in judged.effect.contributions() {
                let sum = expected.entry(cell.clone()).or_insert_with(|| Delta::zero(1));
                *sum = sum.checked_add(delta).unwrap();
            }
            let place = Place { shard: "s".parse().unwrap(), sequence: n.to_string().parse().unwrap(), arrived_us };
            rows.entry(judged.month).or_default().push(ArchivedRow::new(&definition, &judged, judged.change.content_hash().0, &text, place));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (added, report) = runtime.block_on(async {
            let (bucket, state) = archive(&definition, rows.into_values().collect()).await;
            let definition = Arc::new(definition);
            let files = live_files(&state, &definition).unwrap();
            let mut reader = Reader::new(bucket.clone(), Arc::clone(&definition), Scope::all(), files);
            let mut added: Vec<Contribution> = Vec::new();
            while let Some(contribution) = reader.next().await.unwrap() {
                added.push(contribution);
            }
            (added, recompute(&bucket, &definition, &state, &|_| {}).await.unwrap())
        });
        let order = |c: &Contribution| (c.cell.month, c.cell.group.clone(), c.key);
        prop_assert!(added.windows(2).all(|pair| order(&pair[0]) <= order(&pair[1])));
        let mut found: BTreeMap<Cell, Delta> = BTreeMap::new();
        for Contribution { cell, delta, .. } in added {
            let sum = found.entry(cell).or_insert_with(|| Delta::zero(1));
            *sum = sum.checked_add(&delta).unwrap();
        }
        prop_assert_eq!(&found, &expected);
        let mut months: BTreeMap<(String, Month), i64> = BTreeMap::new();
        for (cell, delta) in &expected {
            *months.entry((cell.group.to_string(), cell.month)).or_default() += delta.events;
        }
        let folded: BTreeMap<(String, Month), i64> =
            report.totals.months.iter().map(|line| ((line.group.to_string(), line.month), line.events)).collect();
        prop_assert_eq!(folded, months);
        prop_assert_eq!(report.repeated, 0);
    }
}
