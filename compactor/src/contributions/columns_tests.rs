use super::*;
use crate::bucket::Objects;
use crate::bucket::memory::Memory;
use crate::rows::testing::{NOVEMBER, definition, row};
use crate::rows::{ArchivedRow, read, write};
use futures::TryStreamExt;

const ALL: Needs = Needs { origin: true, content: true, times: true };

/// What was written of these rows, as it is read.
fn written(rows: Vec<ArchivedRow>, needs: Needs) -> Rows {
    let (objects, definition, month) = (Memory::new(), definition(), "2026-11".parse().unwrap());
    let written = write(&definition, month, rows).unwrap().unwrap();
    let added = written.added("_staging/x".to_owned(), "events/x".to_owned());
    let columns = needs.columns(&definition);
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let batches: Vec<RecordBatch> = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        objects.put(&added.source, written.bytes.clone()).await.unwrap();
        read(&objects, &added, &columns).try_collect().await.unwrap()
    });
    Rows::new(&batches[0], Arc::from("events/x"), month, &definition).unwrap()
}

#[test]
fn a_row_is_read_as_it_was_written() {
    let mut acme = row("e", Some("acme"), NOVEMBER + 7_000, "1.5");
    acme.occurred_us += 3;
    let other = row("o", None, NOVEMBER + 9_000, "2");
    let rows = written(vec![acme.clone(), other.clone()], ALL);
    assert!(!rows.is_empty());
    assert_eq!(rows.len(), 2);
    for (i, row) in [&other, &acme].into_iter().enumerate() {
        assert_eq!(rows.key(i).unwrap(), row.key);
        assert_eq!(rows.group(i), row.group.as_ref().map(Group::as_str));
        assert_eq!(rows.content(i), Some(row.content));
        assert_eq!((rows.occurred_us(i), rows.created_us(i)), (Some(row.occurred_us), Some(row.created_us)));
        assert_eq!((rows.event_name(i), rows.table(i)), (Some("INSERT"), Some(row.table.as_str())));
        let origin = rows.origin(i).unwrap();
        assert_eq!((&origin.event_id, origin.file.as_str()), (&row.event_id, "events/x"));
        assert_eq!((origin.shard_id, origin.sequence_number), (row.place.shard.clone(), row.place.sequence.clone()));
    }
    assert_ne!(acme.occurred_us, acme.created_us);
    assert_eq!(rows.contributions(0, &definition()).unwrap().as_slice(), [], "another table");
    let contributions = rows.contributions(1, &definition()).unwrap();
    let [(cell, delta)] = contributions.as_slice() else { panic!("{contributions:?}") };
    assert_eq!((cell.group.as_str(), cell.month.to_string(), cell.lane), ("acme", "2026-11".to_owned(), 0));
    assert_eq!((delta.events, delta.sums[0].to_string()), (1, "1.5".to_owned()));
}

#[test]
fn what_was_not_asked_for_or_is_not_there_is_none() {
    let rows =
        written(vec![row("e", Some("acme"), NOVEMBER, "1")], Needs { origin: false, content: false, times: false });
    assert_eq!((rows.content(0), rows.occurred_us(0), rows.created_us(0)), (None, None, None));
    assert!(matches!(rows.origin(0), Err(ReadError::Column { column, .. }) if column == column::SHARD_ID));
    let rows = written(vec![row("e", Some("acme"), NOVEMBER, "1")], ALL);
    assert_eq!((rows.group(1), rows.content(1), rows.occurred_us(1), rows.table(1)), (None, None, None, None));
    assert!(matches!(rows.key(1), Err(ReadError::Row { .. })));
}

#[test]
fn a_batch_without_rows_is_empty() {
    let columns = [column::EVENT_KEY, column::EVENT_NAME, column::GROUP_KEY, column::SOURCE_TABLE].map(|name| {
        let array: arrow_array::ArrayRef = match name {
            column::EVENT_KEY => Arc::new(BinaryArray::from_iter_values([[0u8; 16]; 0])),
            _ => Arc::new(StringArray::from(Vec::<&str>::new())),
        };
        (name, array)
    });
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let rows = Rows::new(&batch, Arc::from("f"), "2026-11".parse().unwrap(), &definition()).unwrap();
    assert!(rows.is_empty());
    assert_eq!(rows.len(), 0);
    let lacking = batch.project(&[0, 1, 2]).unwrap();
    let refused = Rows::new(&lacking, Arc::from("f"), "2026-11".parse().unwrap(), &definition());
    assert!(matches!(refused, Err(ReadError::Column { column, .. }) if column == column::SOURCE_TABLE));
}

#[test]
fn a_null_is_no_empty_text() {
    let texts = StringArray::from(vec![Some(""), Some("a"), None]);
    assert_eq!([0, 1, 2, 3].map(|i| text(&texts, i)), [Some(""), Some("a"), None, None]);
    let arrays = BinaryArray::from_opt_vec(vec![Some(b""), None]);
    assert_eq!([0, 1, 2].map(|i| bytes(&arrays, i)), [Some(&b""[..]), None, None]);
}
