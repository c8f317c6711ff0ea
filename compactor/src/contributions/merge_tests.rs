use super::*;
use crate::rows::testing::definition;
use arrow_array::{ArrayRef, BinaryArray, StringArray};
use futures::stream;
use proptest::prelude::*;
use recount_schemas::archive::column;

/// A row of a file: its group and its key.
type Given = (Option<&'static str>, u8);

fn key(n: u8) -> EventKey {
    EventKey::from_bytes([n; EventKey::LEN])
}

fn batch(rows: &[Given]) -> RecordBatch {
    let texts = |text: &'static str| Arc::new(StringArray::from(vec![text; rows.len()])) as ArrayRef;
    let groups: StringArray = rows.iter().map(|(group, _)| *group).collect();
    let keys = BinaryArray::from_iter_values(rows.iter().map(|(_, n)| *key(*n).as_bytes()));
    RecordBatch::try_from_iter_with_nullable([
        (column::EVENT_KEY, Arc::new(keys) as ArrayRef, false),
        (column::EVENT_NAME, texts("INSERT"), false),
        (column::SOURCE_TABLE, texts("scans"), false),
        (column::GROUP_KEY, Arc::new(groups) as ArrayRef, true),
    ])
    .unwrap()
}

/// Merges files, each a list of batches.
fn merged(files: &[Vec<Vec<Given>>]) -> Merged {
    let file = |(n, batches): (usize, &Vec<Vec<Given>>)| {
        let batches: Vec<_> = batches.iter().map(|rows| Ok(batch(rows))).collect();
        (Arc::from(n.to_string()), stream::iter(batches).boxed())
    };
    Merged::new(Arc::new(definition()), "2026-11".parse().unwrap(), files.iter().enumerate().map(file).collect())
}

fn all(mut merged: Merged) -> Result<Vec<Row>, ReadError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        let mut rows = Vec::new();
        while let Some(row) = merged.next().await? {
            rows.push(row);
        }
        assert!(merged.next().await?.is_none(), "the end is the end");
        Ok(rows)
    })
}

/// Each row's group, key and file.
fn told(rows: &[Row]) -> Vec<(Option<String>, EventKey, String)> {
    rows.iter().map(|row| (row.group.as_deref().map(str::to_owned), row.key, row.rows.file.to_string())).collect()
}

#[test]
fn rows_of_all_batches_of_all_files_come_in_order() {
    let a = vec![vec![], vec![(None, 9), (Some("a"), 2)], vec![], vec![], vec![(Some("a"), 5), (Some("c"), 1)], vec![]];
    let b = vec![vec![(Some("a"), 1), (Some("a"), 5)], vec![(Some("b"), 0)]];
    let rows = all(merged(&[a, b, vec![], vec![vec![]]])).unwrap();
    let expected = [
        (None, 9, "0"),
        (Some("a"), 1, "1"),
        (Some("a"), 2, "0"),
        // A key that stands in two files: two equal neighbours.
        (Some("a"), 5, "0"),
        (Some("a"), 5, "1"),
        (Some("b"), 0, "1"),
        (Some("c"), 1, "0"),
    ];
    let expected = expected.map(|(group, n, file)| (group.map(str::to_owned), key(n), file.to_owned()));
    assert_eq!(told(&rows), expected);
    for row in &rows {
        assert_eq!((row.rows.group(row.index), row.rows.key(row.index).unwrap()), (row.group.as_deref(), row.key));
    }
}

#[test]
fn rows_of_one_group_share_its_text() {
    let rows =
        all(merged(&[vec![vec![(Some("a"), 1), (Some("a"), 2)], vec![(Some("a"), 3), (Some("b"), 4)]]])).unwrap();
    let groups: Vec<_> = rows.iter().flat_map(|row| &row.group).collect();
    assert!(Arc::ptr_eq(groups[0], groups[1]) && Arc::ptr_eq(groups[1], groups[2]), "no copy for each row");
    assert_eq!(&**groups[3], "b");
}

#[test]
fn a_file_out_of_order_is_damage() {
    for (batches, at) in [
        (vec![vec![(Some("a"), 2), (Some("a"), 1)]], 1),
        (vec![vec![(Some("a"), 2), (Some("a"), 2)]], 2),
        (vec![vec![(Some("a"), 2)], vec![(Some("a"), 2)]], 2),
        (vec![vec![(Some("b"), 1), (Some("a"), 3)]], 3),
        (vec![vec![(Some("a"), 1)], vec![(None, 4)]], 4),
    ] {
        match all(merged(&[vec![vec![(Some("a"), 0)]], batches.clone()])) {
            Err(ReadError::Unsorted { file, event_key }) => {
                assert_eq!((file.as_str(), event_key), ("1", key(at).to_string()), "{batches:?}");
            }
            other => panic!("{batches:?}: {other:?}"),
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let lost = || ReadError::Spill(std::io::Error::other("lost"));
    let batches = stream::iter(vec![Ok(batch(&[(Some("a"), 1)])), Err(lost())]).boxed();
    let merged = Merged::new(Arc::new(definition()), "2026-11".parse().unwrap(), vec![(Arc::from("f"), batches)]);
    assert!(matches!(all(merged), Err(ReadError::Spill(_))));
}

proptest! {
    /// Merging is sorting: however the rows are spread over files and batches.
    #[test]
    fn merged_files_are_their_rows_sorted(
        rows in prop::collection::btree_map(
            (prop::sample::select(vec![None, Some("a"), Some("b")]), any::<u8>()), (0usize..4, any::<bool>()), 0..40,
        ),
    ) {
        let mut files: Vec<Vec<Vec<Given>>> = vec![vec![vec![]]; 4];
        for (row, (file, cut)) in &rows {
            if *cut {
                files[*file].push(Vec::new());
            }
            files[*file].last_mut().unwrap().push(*row);
        }
        let found: Vec<(Option<String>, EventKey)> =
            told(&all(merged(&files)).unwrap()).into_iter().map(|(group, key, _)| (group, key)).collect();
        let expected: Vec<_> = rows.keys().map(|(group, n)| (group.map(str::to_owned), key(*n))).collect();
        prop_assert_eq!(found, expected);
    }
}
