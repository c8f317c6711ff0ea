use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::bucket::Objects;
use crate::bucket::memory::Memory;
use crate::log::{AddedFile, Digest};
use crate::rows::reader::summary;
use crate::rows::testing::{NOVEMBER, definition, row};
use crate::rows::{ArchivedRow, RowsError, write};

fn rows(n: i64, groups: i64) -> Vec<ArchivedRow> {
    let group = |i: i64| format!("g{}", (i * i) % groups);
    (0..n).map(|i| row(&format!("event-{i}"), Some(&group(i)), NOVEMBER + i * 700_000, &format!("{i}"))).collect()
}

async fn stored(rows: Vec<ArchivedRow>) -> (Memory, AddedFile) {
    let objects = Memory::new();
    let written = write(&definition(), "2026-11".parse().unwrap(), rows).unwrap().unwrap();
    objects.put("target", written.bytes.clone()).await.unwrap();
    let file = written.added("source".into(), "target".into());
    (objects, file)
}

async fn read(objects: &Memory, file: &AddedFile) -> Result<Option<Summary>, RowsError> {
    summary(objects, file, 1).await
}

/// The same by counting.
fn counted(rows: &[ArchivedRow]) -> BTreeMap<String, (u64, i128, u128, BTreeSet<EventKey>)> {
    let mut cells: BTreeMap<String, (u64, i128, u128, BTreeSet<EventKey>)> = BTreeMap::new();
    for row in rows {
        let Some(group) = &row.group else { continue };
        let cell = cells.entry(group.to_string()).or_default();
        cell.0 += 1;
        cell.1 += row.measures[0].billionths();
        cell.2 = cell.2.wrapping_add(key_hash(&row.key));
        cell.3.insert(row.key);
    }
    cells
}

#[tokio::test]
async fn a_summary_says_what_the_rows_come_to() {
    let mut rows = rows(3_000, 23);
    rows.push(row("of another table", None, NOVEMBER, "5"));
    let (objects, file) = stored(rows.clone()).await;
    let summary = read(&objects, &file).await.unwrap().unwrap();
    assert_eq!(summary.reached.iter().map(|(shard, _)| shard.as_str()).collect::<Vec<_>>(), ["shardId-000000000000"]);
    let mut expected = counted(&rows);
    for cell in summary {
        let (n, sum, hash, keys) = expected.remove(cell.cell.group.as_str()).unwrap();
        assert_eq!((cell.rows, cell.adds.events, cell.hash), (n, n as i64, hash));
        assert_eq!(cell.adds.sums[0].billionths(), sum);
        assert_eq!(Some(&cell.least), keys.first());
        let tail: Vec<EventKey> = keys.iter().rev().take(TAIL).rev().copied().collect();
        assert_eq!(cell.tail, tail);
    }
    assert!(expected.is_empty(), "{:?}", expected.keys());
}

#[tokio::test]
async fn a_file_of_few_rows_or_of_as_many_cells_has_none() {
    for (n, groups) in [(255, 1), (400, 1_000_000)] {
        let (objects, file) = stored(rows(n, groups)).await;
        assert!(read(&objects, &file).await.unwrap().is_none(), "{n} rows, {groups} groups");
    }
    let (objects, file) = stored(rows(256, 1)).await;
    assert!(read(&objects, &file).await.unwrap().is_some());
}

#[tokio::test]
async fn a_summary_that_is_not_what_the_footer_names_is_not_used() {
    let (objects, mut file) = stored(rows(3_000, 23)).await;
    let bytes = objects.get("target", u64::MAX).await.unwrap().unwrap();
    let place = bytes.windows(12).position(|w| w == *b"\x01\x00\x00\x00\x01\x00\x14shard").unwrap();
    let mut altered = bytes.to_vec();
    altered[place + 200] ^= 1;
    file.sha256 = Digest::of(&altered);
    objects.put("target", Bytes::from(altered)).await.unwrap();
    assert!(read(&objects, &file).await.unwrap().is_none());
}

fn arbitrary() -> impl Strategy<Value = Vec<u8>> {
    let summarized = {
        let definition = definition();
        let mut summarizer = Summarizer::new(&definition, "2026-11".parse().unwrap());
        summarizer.rows = LEAST_ROWS;
        summarizer.reached.insert("shardId-000000000000".parse().unwrap(), "77".parse().unwrap());
        for n in 0..3u8 {
            let key = EventKey::new(i64::from(n), b"x").unwrap();
            let adds = Delta { events: 1, sums: [Amount::from_billionths(7)].into_iter().collect() };
            let building = Building { rows: 1, hash: key_hash(&key), adds, least: key, tail: [key].into() };
            let group: Group = format!("g{n}").parse().unwrap();
            summarizer.cells.insert(("2026-11".parse().unwrap(), group, 0), building);
        }
        summarizer.finish().unwrap()
    };
    let changed = (Just(summarized.clone()), 0..summarized.len(), any::<u8>(), 0..summarized.len());
    let changed = changed.prop_map(|(mut bytes, at, byte, length)| {
        bytes[at] = byte;
        bytes.truncate(bytes.len() - length.min(if byte.is_multiple_of(2) { 0 } else { length }));
        bytes
    });
    prop_oneof![Just(summarized), changed, prop::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic_and_what_is_read_is_in_order(bytes in arbitrary()) {
        if let Some(summary) = Summary::read(Bytes::from(bytes), 1) {
            let expected = summary.left;
            let cells: Vec<CellSummary> = summary.collect();
            prop_assert_eq!(cells.len(), expected as usize, "all that was looked through comes");
            let order = |c: &CellSummary| (c.cell.month, c.cell.group.clone(), c.cell.lane);
            prop_assert!(cells.is_sorted_by(|a, b| order(a) < order(b)));
        }
    }
}
