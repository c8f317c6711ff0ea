use std::sync::Arc;

use futures::TryStreamExt;
use recount_schemas::Definition;
use serde_json::Value;

use super::*;
use crate::bucket::Objects;
use crate::bucket::memory::Memory;
use crate::log::AddedFile;
use crate::rows::row::Place;
use crate::rows::testing::{NOVEMBER, definition, record};
use crate::rows::{ArchivedRow, read, write};

const ARRIVED: i64 = NOVEMBER + 1_000_000;

fn row(definition: &Definition, record: &str, n: u64) -> ArchivedRow {
    let judged = definition.judge(record.as_bytes(), ARRIVED).unwrap();
    let place =
        Place { shard: "shardId-1".parse().unwrap(), sequence: n.to_string().parse().unwrap(), arrived_us: ARRIVED };
    ArchivedRow::new(definition, &judged, judged.change.content_hash().0, record, place)
}

/// Records of both forms, with what could be lost on the way: escapes, white space, unknown members, nulls, numbers.
fn records() -> Vec<String> {
    let plain = record("e1", Some("acme"), NOVEMBER, "1.50");
    let modify = plain.replace("\"e1\"", "\"e2\\u0041\\\"\"").replace("INSERT", "MODIFY").replace(
        "\"SizeBytes\":7",
        "\"OldImage\" : {\"scan_id\":{\"S\":\"\\u00e9\"},  \"x\":{\"BS\":[\"YQ==\"]}},\"SizeBytes\":7.0",
    );
    let nulls = plain.replace("\"e1\"", "\"e3\"").replace("\"SizeBytes\":7", "\"OldImage\":null,\"Later\":[1, {}]");
    let novel = plain.replace("\"e1\"", "\"e4\"").replacen('{', "{ \"nov\\u0065l\" : 1e400 ,\n", 1);
    let removal =
        plain.replace("\"e1\"", "\"e5\"").replace("INSERT", "REMOVE").replace("NewImage", "OldImage").replace(
            "\"userIdentity\":null",
            r#""userIdentity":{ "type":"Service","principalId":"dynamodb.amazonaws.com" }"#,
        );
    let other = plain.replace("\"e1\"", "\"e6\"").replace("\"tableName\":\"scans\"", "\"tableName\":\"other\"");
    let streams = r#"{"eventID":"7de3","eventName":"INSERT","eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":"us-west-2",
        "dynamodb":{"ApproximateCreationDateTime":1.793491200E9,"Keys":{"scan_id":{"S":"e7"}},"NewImage":{"scan_id":{"S":"e7"},
        "scanned_at":{"S":"2026-11-01T00:00:00Z"},"bytes":{"N":"7"},"project_id":{"S":"acme"}},"SequenceNumber":"4421584500000000017450439091",
        "SizeBytes":26,"StreamViewType":"NEW_AND_OLD_IMAGES"},"eventSourceARN":"arn:aws:dynamodb:us-west-2:111122223333:table/scans/stream/2026"}"#;
    vec![plain, modify, nulls, novel, removal, other, streams.to_owned()]
}

async fn stored(definition: &Definition, rows: Vec<ArchivedRow>) -> (Memory, AddedFile) {
    let written = write(definition, rows[0].month, rows).unwrap().unwrap();
    let objects = Memory::new();
    objects.put("source", written.bytes.clone()).await.unwrap();
    let file = written.added("source".into(), "events/month=2026-11/000000000000/000000000000-0.parquet".into());
    (objects, file)
}

async fn rebuilders(objects: &Memory, file: &AddedFile) -> Vec<Rebuilder> {
    let batches: Vec<_> = read(objects, file, &COLUMNS).try_collect().await.unwrap();
    batches.iter().map(|batch| Rebuilder::new(batch, Arc::from("f")).unwrap()).collect()
}

/// What holds of a JSON text with numbers beyond floats: they are compared as they are written.
fn json(text: &str) -> Value {
    serde_json::from_str(&text.replace("1e400", "\"1e400\"")).unwrap()
}

#[tokio::test]
async fn a_rebuilt_record_is_the_one_that_was_archived_and_makes_the_same_row_again() {
    let definition = definition();
    let records = records();
    let rows: Vec<ArchivedRow> = records.iter().zip(1..).map(|(record, n)| row(&definition, record, n)).collect();
    let (objects, file) = stored(&definition, rows.clone()).await;
    let mut seen = 0;
    for rebuilder in rebuilders(&objects, &file).await {
        for i in 0..rebuilder.len() {
            let rebuilt = rebuilder.rebuild(i).unwrap();
            let n: usize = rebuilt.sequence.as_str().parse().unwrap();
            let (original, row) = (&records[n - 1], &rows[n - 1]);
            let text = rebuilt.record.unwrap();
            assert_eq!(json(&text), json(original), "equal as JSON");
            assert_eq!(&self::row(&definition, &text, n as u64), row, "the same row again");
            let (was, is) = (Change::decode(original.as_bytes()).unwrap(), Change::decode(text.as_bytes()).unwrap());
            assert_eq!(is, was, "images, keys and user identity byte for byte");
            let outline = rebuilder.outline(i).unwrap();
            assert_eq!((outline.key, outline.event_id), (row.key, row.event_id.as_str()));
            assert_eq!(outline.group, row.group.as_ref().map(|group| group.as_str()));
            assert_eq!((outline.created_us, &rebuilt.shard), (row.created_us, &row.place.shard));
            seen += 1;
        }
    }
    assert_eq!(seen, records.len());
}

#[tokio::test]
async fn a_row_that_has_lost_something_of_its_change_gives_no_record() {
    let definition = definition();
    let whole = row(&definition, &records()[0], 1);
    let spoilt = [
        ArchivedRow { new_image: None, ..whole.clone() },
        ArchivedRow { keys: Some("{}".to_owned()), ..whole.clone() },
        ArchivedRow { envelope: "{}".to_owned(), ..whole.clone() },
        ArchivedRow { envelope: "not JSON".to_owned(), ..whole.clone() },
    ];
    for spoilt in spoilt {
        let (objects, file) = stored(&definition, vec![spoilt]).await;
        for rebuilder in rebuilders(&objects, &file).await {
            assert_eq!(rebuilder.rebuild(0).unwrap().record, None);
        }
    }
}
