use super::*;
use crate::bucket::Objects;
use crate::bucket::memory::Memory;
use crate::rows::testing::{NOVEMBER, definition, row};
use crate::rows::{read, write};
use bytes::Bytes;
use futures::TryStreamExt;
use recount_schemas::archive::column;

async fn file(objects: &Memory, count: usize) -> (AddedFile, Vec<crate::rows::ArchivedRow>) {
    let rows: Vec<_> = (0..count)
        .map(|i| row(&format!("e{i}"), ["a", "b", "c"].get(i % 4).copied(), NOVEMBER + i as i64 * 1_000, "1.5"))
        .collect();
    let written = write(&definition(), "2026-11".parse().unwrap(), rows.clone()).unwrap().unwrap();
    let added = written
        .added("_staging/000000000000-ab/0".into(), "events/month=2026-11/000000000000/000000000000-0.parquet".into());
    objects.put(&added.source, written.bytes.clone()).await.unwrap();
    (added, rows)
}

#[tokio::test]
async fn a_file_gives_its_rows_back_sorted_by_group_and_key() {
    let objects = Memory::new();
    let (added, mut rows) = file(&objects, 9_000).await;
    let columns = [column::EVENT_KEY, column::GROUP_KEY, column::OCCURRED_AT_US, "measure_bytes"];
    let batches: Vec<RecordBatch> = read(&objects, &added, &columns).try_collect().await.unwrap();
    rows.sort_by(crate::rows::ArchivedRow::order);
    let keys: Vec<_> = batches
        .iter()
        .flat_map(|b| {
            b.column_by_name(column::EVENT_KEY).unwrap().as_binary::<i32>().iter().flatten().collect::<Vec<_>>()
        })
        .map(|key| EventKey::from_slice(key).unwrap())
        .collect();
    assert_eq!(keys, rows.iter().map(|row| row.key).collect::<Vec<_>>());
    assert_eq!(rows[0].group, None, "rows without a group come first");
    assert_eq!(added.rows, 9_000);
    assert_eq!(added.fingerprint.sums["measure_bytes"].to_string(), (2_250 * 3 * 3 / 2).to_string());
    assert_eq!((added.first_group.as_deref(), added.last_group.as_deref()), (Some("a"), Some("c")));
}

#[tokio::test]
async fn a_lookup_finds_just_the_keys_that_are_there() {
    let objects = Memory::new();
    let (added, rows) = file(&objects, 10_000).await;
    let absent = EventKey::new(NOVEMBER / 1_000 + 5, b"absent").unwrap();
    for sample in [vec![0], vec![9_999], vec![3, 4, 5, 5_000], (0..10_000).step_by(7).collect()] {
        let mut keys: BTreeSet<EventKey> = sample.iter().map(|i| rows[*i].key).collect();
        let expected: BTreeSet<Found> =
            sample.iter().map(|i| Found { key: rows[*i].key, content: rows[*i].content }).collect();
        keys.insert(absent);
        let found = lookup(&objects, &added, &keys).await.unwrap();
        assert_eq!(found.len(), sample.len());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    }
}

#[tokio::test]
async fn few_keys_read_few_pages() {
    let objects = Memory::new();
    let (added, rows) = file(&objects, 20_000).await;
    let opened = Opened::new(&objects, &added, PageIndexPolicy::Optional).await.unwrap();
    let wanted = wanted(&opened, &BTreeSet::from([rows[10_000].key])).unwrap();
    // One page for each of the four groups, and those three where a group ends and the next begins.
    assert!(wanted.rows.row_count() <= 7 * 1_024, "{} rows", wanted.rows.row_count());
    assert!(wanted.rows.row_count() > 0);
}

#[tokio::test]
async fn a_published_file_is_read_at_its_target_after_its_source_is_gone() {
    let objects = Memory::new();
    let (added, _) = file(&objects, 10).await;
    objects.copy(&added.source, &added.target).await.unwrap();
    objects.delete(&added.source).await.unwrap();
    let batches: Vec<RecordBatch> = read(&objects, &added, &[column::EVENT_ID]).try_collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 10);
    objects.delete(&added.target).await.unwrap();
    let gone: Result<Vec<RecordBatch>, _> = read(&objects, &added, &[column::EVENT_ID]).try_collect().await;
    assert!(matches!(gone, Err(RowsError::Gone { .. })));
}

#[tokio::test]
async fn another_file_than_the_log_says_is_an_error() {
    let objects = Memory::new();
    // A small one by its SHA-256, though it is a file of ours with as many rows.
    let (added, _) = file(&objects, 10).await;
    let (other, _) = file(&objects, 11).await;
    let swapped = AddedFile { source: other.source, target: other.target, bytes: other.bytes, ..added };
    let batches: Result<Vec<RecordBatch>, _> = read(&objects, &swapped, &[column::EVENT_ID]).try_collect().await;
    let error = batches.unwrap_err();
    assert!(matches!(&error, RowsError::Damaged { why, .. } if why.contains("SHA-256")), "{error}");
    // A large one by its size, and by the month in its footer.
    let (added, _) = file(&objects, 60_000).await;
    assert!(added.bytes > 1 << 20, "{} bytes", added.bytes);
    let larger = [objects.bytes(&added.source).unwrap().as_ref(), b"more"].concat();
    let november = added.month;
    for (bytes, month, what) in [
        (Bytes::from(larger), november, "bytes"),
        (objects.bytes(&added.source).unwrap(), "2025-01".parse().unwrap(), "2025-01"),
    ] {
        objects.put(&added.source, bytes).await.unwrap();
        let file = AddedFile { month, ..added.clone() };
        let batches: Result<Vec<RecordBatch>, _> = read(&objects, &file, &[column::EVENT_ID]).try_collect().await;
        let error = batches.unwrap_err();
        assert!(matches!(&error, RowsError::Damaged { why, .. } if why.contains(what)), "{error}");
        objects.put(&added.source, Bytes::from_static(b"")).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_parquet_file_is_an_error() {
    let objects = Memory::new();
    let (mut added, _) = file(&objects, 10).await;
    let bytes = objects.bytes(&added.source).unwrap();
    for damaged in [bytes.slice(..bytes.len() - 8), Bytes::from_static(b"PAR1"), Bytes::from(vec![0u8; bytes.len()])] {
        added.bytes = damaged.len() as u64;
        objects.put(&added.source, damaged).await.unwrap();
        let read: Result<Vec<RecordBatch>, _> = read(&objects, &added, &[column::EVENT_ID]).try_collect().await;
        assert!(read.is_err());
    }
}

/// Puts other bytes, with a log that names them: the digest is no help against who writes both.
async fn forged(objects: &Memory, added: &mut AddedFile, bytes: Vec<u8>) {
    (added.bytes, added.sha256) = (bytes.len() as u64, crate::log::Digest::of(&bytes));
    objects.put(&added.source, bytes.into()).await.unwrap();
}

async fn read_all(objects: &Memory, added: &AddedFile) -> Result<usize, RowsError> {
    let columns = [column::EVENT_KEY, column::GROUP_KEY, column::ENVELOPE, "measure_bytes"];
    let batches: Vec<RecordBatch> = read(objects, added, &columns).try_collect().await?;
    Ok(batches.iter().map(RecordBatch::num_rows).sum())
}

#[tokio::test]
async fn a_page_is_not_given_the_memory_that_it_claims() {
    let objects = Memory::new();
    let (mut added, _) = file(&objects, 100).await;
    let opened = Opened::new(&objects, &added, PageIndexPolicy::Skip).await.unwrap();
    let place = opened.metadata().parquet_schema().columns().iter().position(|c| c.name() == column::ENVELOPE).unwrap();
    let (start, length) = opened.footer().row_group(0).column(place).byte_range();
    let header = crate::rows::testing::page_header(i64::from(i32::MAX), length as i64 - 100, 100);
    let mut bytes = objects.bytes(&added.source).unwrap().to_vec();
    bytes[start as usize..start as usize + header.len()].copy_from_slice(&header);
    forged(&objects, &mut added, bytes).await;
    let refused = read_all(&objects, &added).await.unwrap_err().to_string();
    assert!(refused.contains("claims more bytes than a page may have"), "{refused}");
}

#[tokio::test]
async fn a_damaged_file_is_an_error_or_rows_and_nothing_else() {
    let objects = Memory::new();
    let (mut added, rows) = file(&objects, 12).await;
    let whole = objects.bytes(&added.source).unwrap();
    let keys: BTreeSet<EventKey> = rows.iter().map(|row| row.key).collect();
    for at in (0..whole.len()).step_by(7) {
        for byte in [0x00, 0x7f, 0xff] {
            let mut bytes = whole.to_vec();
            bytes[at] = byte;
            forged(&objects, &mut added, bytes).await;
            assert!(
                read_all(&objects, &added).await.is_ok_and(|rows| rows == 12)
                    || read_all(&objects, &added).await.is_err()
            );
            let _ = lookup(&objects, &added, &keys).await;
        }
    }
}

#[tokio::test]
async fn a_dictionary_is_no_way_around_the_bounds() {
    let (long, rows) = ("x".repeat(8 << 20), 50);
    let mut texts = arrow_array::builder::StringDictionaryBuilder::<arrow_array::types::Int32Type>::new();
    (0..rows).for_each(|_| texts.append_value(&long));
    let batch =
        RecordBatch::try_from_iter([(column::ENVELOPE, std::sync::Arc::new(texts.finish()) as ArrayRef)]).unwrap();
    let said = parquet::file::metadata::KeyValue::new(crate::rows::metadata::FORMAT.to_owned(), "1".to_owned());
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_key_value_metadata(Some(vec![said]))
        .set_dictionary_page_size_limit(1 << 30)
        .build();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    let bytes = writer.into_inner().unwrap();
    let objects = Memory::new();
    let (mut added, _) = file(&objects, 10).await;
    added.rows = rows;
    forged(&objects, &mut added, bytes).await;
    assert!(added.bytes < 10 << 20, "400 MiB of texts in {} bytes", added.bytes);
    let read: Result<Vec<RecordBatch>, _> = read(&objects, &added, &[column::ENVELOPE]).try_collect().await;
    let refused = read.unwrap_err().to_string();
    assert!(refused.contains("as texts 419430400"), "{refused}");
}

#[test]
fn a_key_may_be_between_bounds_that_a_writer_cut_short() {
    let key = |first: u8, rest: u8| {
        let mut bytes = [rest; EventKey::LEN];
        bytes[0] = first;
        EventKey::from_bytes(bytes)
    };
    let five = key(5, 7);
    let keys = BTreeSet::from([five]);
    let (below, exact, above) = (key(5, 6), *five.as_bytes(), key(5, 8));
    for (least, greatest, expected) in [
        (None, None, true),
        (Some(&exact[..]), Some(&exact[..]), true),
        (Some(below.as_bytes()), Some(above.as_bytes()), true),
        (Some(above.as_bytes()), None, false),
        (None, Some(below.as_bytes()), false),
        // The first byte of a bound says no more than that.
        (Some(&[5][..]), Some(&[5][..]), true),
        (Some(&[6][..]), None, false),
        (None, Some(&[4][..]), false),
        // No writer makes such bounds, and nothing lies between them.
        (Some(above.as_bytes()), Some(below.as_bytes()), false),
    ] {
        assert_eq!(may_hold(&keys, least, greatest), expected, "{least:?} to {greatest:?}");
    }
}

#[test]
fn pages_cover_their_row_group_or_are_damage() {
    assert_eq!(page_rows(&[0, 4, 4, 9], 10), Some(vec![0..4, 4..4, 4..9, 9..10]));
    assert_eq!(page_rows(&[0, 10], 10), Some(vec![0..10, 10..10]));
    for damaged in [&[][..], &[1], &[0, 5, 4], &[0, 11]] {
        assert_eq!(page_rows(damaged, 10), None, "{damaged:?}");
    }
}

#[test]
fn a_bound_is_there_or_not() {
    let bounds: ArrayRef = std::sync::Arc::new(arrow_array::BinaryArray::from_opt_vec(vec![Some(b"a"), None]));
    assert_eq!([0, 1, 2].map(|at| bound(&bounds, at)), [Some(&b"a"[..]), None, None]);
    let other: ArrayRef = std::sync::Arc::new(arrow_array::Int64Array::from(vec![1]));
    assert_eq!(bound(&other, 0), None);
}

#[test]
fn a_row_without_its_key_or_its_hash_is_damage() {
    let read = |key: &[u8], content: Option<&[u8]>| {
        let column = |value| std::sync::Arc::new(arrow_array::BinaryArray::from_opt_vec(vec![value])) as ArrayRef;
        let batch = [(EVENT_KEY, column(Some(key)), true), (CONTENT_HASH, column(content), true)];
        keys_of("f", &RecordBatch::try_from_iter_with_nullable(batch).unwrap())
    };
    assert_eq!(read(&[1; 16], Some(&[2; 16])).unwrap(), [(EventKey::from_bytes([1; 16]), [2; 16])]);
    for (key, content) in [(&[1; 15][..], Some(&[2; 16][..])), (&[1; 16], Some(&[2; 17])), (&[1; 16], None)] {
        let refused = read(key, content).unwrap_err().to_string();
        assert!(refused.contains("not 16 bytes"), "{refused}");
    }
    let batch = [(EVENT_KEY, std::sync::Arc::new(arrow_array::Int64Array::from(vec![1])) as ArrayRef)];
    let refused = keys_of("f", &RecordBatch::try_from_iter(batch).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("another type"), "{refused}");
}

#[tokio::test]
async fn keys_are_found_in_each_row_group_and_the_others_are_not_read() {
    use parquet::file::properties::{EnabledStatistics, WriterProperties};

    let key = |i: u32| EventKey::from_bytes((u128::from(i) << 8).to_be_bytes());
    let column =
        |bytes: Vec<[u8; 16]>| std::sync::Arc::new(arrow_array::BinaryArray::from_iter_values(bytes)) as ArrayRef;
    let batch = RecordBatch::try_from_iter([
        (EVENT_KEY, column((0..90).map(|i| *key(i).as_bytes()).collect())),
        (CONTENT_HASH, column((0..90).map(|i| [i; 16]).collect())),
    ])
    .unwrap();
    for statistics in [EnabledStatistics::Page, EnabledStatistics::Chunk] {
        let said = parquet::file::metadata::KeyValue::new(crate::rows::metadata::FORMAT.to_owned(), "1".to_owned());
        let properties = WriterProperties::builder()
            .set_key_value_metadata(Some(vec![said]))
            .set_max_row_group_row_count(Some(30))
            .set_data_page_row_count_limit(10)
            .set_write_batch_size(10)
            .set_statistics_enabled(statistics)
            .set_offset_index_disabled(statistics == EnabledStatistics::Chunk)
            .build();
        let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        let bytes = writer.into_inner().unwrap();
        let objects = Memory::new();
        let (mut added, _) = file(&objects, 10).await;
        (added.bytes, added.rows, added.first_key, added.last_key) = (bytes.len() as u64, 90, key(0), key(89));
        added.sha256 = crate::log::Digest::of(&bytes);
        objects.put(&added.source, bytes.into()).await.unwrap();
        let opened = Opened::new(&objects, &added, PageIndexPolicy::Optional).await.unwrap();
        // Places of keys; the row groups with them; how many rows are read, by pages of ten or by row groups of thirty.
        for (places, row_groups, pages) in [
            (vec![45], vec![1], 1),
            (vec![0, 29], vec![0], 2),
            (vec![35, 89], vec![1, 2], 2),
            (vec![5, 65, 66], vec![0, 2], 2),
            ((0..90).collect(), vec![0, 1, 2], 9),
        ] {
            let keys: BTreeSet<EventKey> = places.iter().map(|i| key(*i)).collect();
            let wanted = wanted(&opened, &keys).unwrap();
            let rows = if statistics == EnabledStatistics::Page { pages * 10 } else { row_groups.len() * 30 };
            assert_eq!((wanted.row_groups, wanted.rows.row_count()), (row_groups, rows), "{places:?}");
            let found = lookup(&objects, &added, &keys).await.unwrap();
            let found: Vec<(EventKey, u8)> = found.iter().map(|found| (found.key, found.content[0])).collect();
            assert_eq!(found, places.iter().map(|i| (key(*i), *i as u8)).collect::<Vec<_>>());
        }
        let between = EventKey::from_bytes((u128::from(45u32) << 8 | 1).to_be_bytes());
        assert_eq!(lookup(&objects, &added, &BTreeSet::from([between])).await.unwrap(), []);
        let beyond = BTreeSet::from([EventKey::MAX]);
        objects.delete(&added.source).await.unwrap();
        assert_eq!(lookup(&objects, &added, &beyond).await.unwrap(), [], "the log says enough");
    }
}
