//! Against a small Glue of our own, which knows no conditions either.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::catalog::partition::{BEFORE, MOVED_AT, VERSION};
use crate::testing::TestHost;
use crate::testing_aws::{Asked, refused, sdk};

#[derive(Debug, Default)]
struct Held {
    tables: BTreeMap<String, Value>,
    partitions: BTreeMap<String, Value>,
    /// What the next requests for an operation come to, before it does anything.
    first: BTreeMap<&'static str, Vec<Box<dyn Before>>>,
    asked: Vec<String>,
}

trait Before: std::fmt::Debug + Send {
    fn happens(&self, held: &mut Held) -> Option<(u16, String)>;
}

#[derive(Debug)]
struct Refuses(&'static str);

impl Before for Refuses {
    fn happens(&self, _: &mut Held) -> Option<(u16, String)> {
        Some(refused(self.0))
    }
}

/// Somebody else makes the month show this version.
#[derive(Debug)]
struct Another(u64);

impl Before for Another {
    fn happens(&self, held: &mut Held) -> Option<(u16, String)> {
        held.partitions.insert("2026-11".to_owned(), partition(self.0));
        None
    }
}

fn month() -> Month {
    "2026-11".parse().unwrap()
}

fn partition(version: u64) -> Value {
    json!({
        "Values": ["2026-11"],
        "StorageDescriptor": { "Location": format!("s3://archive/events/month=2026-11/{version:012}/") },
        "Parameters": { VERSION: version.to_string(), MOVED_AT: "5" },
    })
}

fn answer(held: &mut Held, asked: &Asked) -> (u16, String) {
    let operation = asked.operation().to_owned();
    held.asked.push(operation.clone());
    let next = held.first.get_mut(operation.as_str()).filter(|queue| !queue.is_empty()).map(|queue| queue.remove(0));
    if let Some(answer) = next.and_then(|before| before.happens(held)) {
        return answer;
    }
    let body = asked.json();
    let table = body["Name"].as_str().or(body["TableName"].as_str()).unwrap_or_default();
    assert_eq!(body["DatabaseName"], "lake");
    let value = |value: &Value| value[0].as_str().unwrap().to_owned();
    match operation.as_str() {
        "GetTable" => match held.tables.get(table) {
            Some(table) => (200, json!({ "Table": table }).to_string()),
            None => refused("EntityNotFoundException"),
        },
        "GetPartition" => match held.partitions.get(&value(&body["PartitionValues"])) {
            Some(partition) => (200, json!({ "Partition": partition }).to_string()),
            None => refused("EntityNotFoundException"),
        },
        "CreatePartition" => {
            let input = &body["PartitionInput"];
            let name = value(&input["Values"]);
            if held.partitions.contains_key(&name) {
                return refused("AlreadyExistsException");
            }
            held.partitions.insert(name, input.clone());
            (200, "{}".to_owned())
        }
        "BatchUpdatePartition" => {
            let entry = &body["Entries"][0];
            let name = value(&entry["PartitionValueList"]);
            let errors = match held.partitions.get_mut(&name) {
                Some(partition) => {
                    *partition = entry["PartitionInput"].clone();
                    json!([])
                }
                None => {
                    json!([{ "PartitionValueList": [name], "ErrorDetail": { "ErrorCode": "EntityNotFoundException" } }])
                }
            };
            (200, json!({ "Errors": errors }).to_string())
        }
        _ => refused("UnknownOperationException"),
    }
}

struct Lake {
    held: Arc<Mutex<Held>>,
    glue: Glue,
}

impl Lake {
    fn new() -> Self {
        let descriptor = json!({
            "Location": "s3://archive/events/",
            "Columns": [{ "Name": "event_id", "Type": "string" }],
            "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            "SerdeInfo": { "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe" },
        });
        let tables = [("events".to_owned(), json!({ "Name": "events", "StorageDescriptor": descriptor }))].into();
        let held = Arc::new(Mutex::new(Held { tables, ..Held::default() }));
        let of = Arc::clone(&held);
        let sdk = sdk(move |asked| answer(&mut of.lock().unwrap(), &asked));
        let host: SharedHost = Arc::new(TestHost::at(1_800_000_000_000_000, 1));
        Self { held, glue: Glue::new(&sdk, "lake", "archive", host) }
    }

    fn first(&self, operation: &'static str, before: impl Before + 'static) {
        self.held.lock().unwrap().first.entry(operation).or_default().push(Box::new(before));
    }

    fn partition(&self) -> Value {
        self.held.lock().unwrap().partitions["2026-11"].clone()
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.held.lock().unwrap().asked)
    }

    async fn place(&self, version: u64) -> Result<(), String> {
        let state = State { versions: [(month(), version)].into(), ..State::default() };
        self.glue.place(&state, &[month()].into()).await
    }

    async fn version(&self) -> Option<u64> {
        self.glue.shown(month()).await.unwrap().map(|shown| shown.version)
    }
}

#[tokio::test]
async fn a_month_gets_its_partition_by_one_call_and_moves_by_one() {
    let lake = Lake::new();
    assert_eq!(lake.glue.shown(month()).await, Ok(None));
    lake.asked();
    lake.place(0).await.unwrap();
    assert_eq!(lake.asked(), ["GetTable", "GetPartition", "CreatePartition", "GetPartition"]);
    let made = lake.partition();
    assert_eq!(made["StorageDescriptor"]["Location"], "s3://archive/events/month=2026-11/000000000000/");
    assert_eq!(made["StorageDescriptor"]["Columns"][0]["Name"], "event_id");
    assert_eq!(made["Parameters"], json!({ VERSION: "0", MOVED_AT: "1800000000000" }));
    assert_eq!(lake.glue.shown(month()).await, Ok(Some(Shown::first(0, 1_800_000_000_000))));

    lake.asked();
    lake.place(7).await.unwrap();
    assert_eq!(lake.asked(), ["GetTable", "GetPartition", "BatchUpdatePartition", "GetPartition"]);
    assert_eq!(lake.partition()["StorageDescriptor"]["Location"], "s3://archive/events/month=2026-11/000000000007/");
    assert_eq!(lake.version().await, Some(7));
    // The move says what was shown before, and since when.
    assert_eq!(lake.partition()["Parameters"][BEFORE], "0@1800000000000");
    assert_eq!(lake.glue.shown(month()).await.unwrap().and_then(|shown| shown.left(0)), Some(1_800_000_000_000));
}

#[tokio::test]
async fn a_late_writer_does_not_move_a_month_back() {
    let lake = Lake::new();
    lake.place(7).await.unwrap();
    lake.asked();
    lake.place(3).await.unwrap();
    assert_eq!((lake.asked(), lake.version().await), (vec!["GetTable".to_owned(), "GetPartition".to_owned()], Some(7)));
}

#[tokio::test]
async fn who_was_overtaken_looks_again() {
    // Between the look and the creation somebody else creates it: older, newer.
    for (theirs, expected) in [(0, 4), (9, 9)] {
        let lake = Lake::new();
        lake.first("CreatePartition", Another(theirs));
        lake.place(4).await.unwrap();
        assert_eq!(lake.version().await, Some(expected), "{theirs}");
    }
    // Somebody changes it at the same time, and Glue says so.
    let lake = Lake::new();
    lake.place(1).await.unwrap();
    lake.first("BatchUpdatePartition", Refuses("ConcurrentModificationException"));
    lake.place(4).await.unwrap();
    assert_eq!(lake.version().await, Some(4));
}

/// Glue has no condition: the slower of two that saw the same sets it back. Then it shows no version that the log gives, so nothing
/// is deleted, and whoever comes next moves it on.
#[tokio::test]
async fn what_a_race_sets_back_the_next_run_moves_on() {
    let lake = Lake::new();
    lake.place(1).await.unwrap();
    lake.first("BatchUpdatePartition", Another(7));
    lake.place(4).await.unwrap();
    assert_eq!(lake.version().await, Some(4));
    lake.place(7).await.unwrap();
    assert_eq!(lake.version().await, Some(7));
}

#[tokio::test]
async fn throttling_is_waited_out_and_others_do_not_keep_a_run_for_ever() {
    let lake = Lake::new();
    lake.first("GetPartition", Refuses("ThrottlingException"));
    lake.place(1).await.unwrap();
    for _ in 0..20 {
        lake.first("BatchUpdatePartition", Refuses("ConcurrentModificationException"));
    }
    insta::assert_snapshot!(lake.place(2).await.unwrap_err(), @"2026-11 in table events of Glue database lake: others moved its partition 5 times meanwhile");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_said_not_taken_for_an_empty_one() {
    let lake = Lake::new();
    lake.held.lock().unwrap().tables.clear();
    let absent = lake.place(0).await.unwrap_err();
    insta::assert_snapshot!(absent, @"there is no table events in a Glue database lake; correct RECOUNT_GLUE_DATABASE, or deploy the database and its tables");
    assert_eq!(lake.glue.shown(month()).await.unwrap_err(), absent);

    let lake = Lake::new();
    lake.first("GetPartition", Refuses("AccessDeniedException"));
    let said = lake.place(0).await.unwrap_err();
    assert!(said.contains("2026-11 in table events of Glue database lake") && said.contains("AccessDenied"), "{said}");
}

#[tokio::test]
async fn a_partition_by_somebody_else_is_put_right() {
    let lake = Lake::new();
    let by_hand =
        json!({ "Values": ["2026-11"], "StorageDescriptor": { "Location": "s3://archive/events/month=2026-11/" } });
    lake.held.lock().unwrap().partitions.insert("2026-11".to_owned(), by_hand);
    assert_eq!(lake.version().await, None);
    lake.place(2).await.unwrap();
    assert_eq!(lake.version().await, Some(2));
}

/// The table got the column of a measure, or another type of it, after the partition was made.
#[tokio::test]
async fn a_partition_gets_the_columns_of_its_table_where_it_is() {
    let lake = Lake::new();
    lake.place(3).await.unwrap();
    lake.place(7).await.unwrap();
    let before = lake.partition();
    let column = json!({ "Name": "measure_bytes", "Type": "decimal(38,9)" });
    let columns = json!([{ "Name": "event_id", "Type": "string" }, column]);
    lake.held.lock().unwrap().tables.get_mut("events").unwrap()["StorageDescriptor"]["Columns"] = columns.clone();
    lake.asked();
    // Not by a late writer: what it writes back would be what it read, and others may be moving the month on.
    lake.place(3).await.unwrap();
    assert_eq!(lake.asked(), ["GetTable", "GetPartition"]);
    assert_eq!(lake.partition(), before);
    lake.place(7).await.unwrap();
    assert_eq!(lake.asked(), ["GetTable", "GetPartition", "BatchUpdatePartition", "GetPartition"]);
    let after = lake.partition();
    assert_eq!(after["StorageDescriptor"]["Columns"], columns);
    assert_eq!(after["StorageDescriptor"]["Location"], before["StorageDescriptor"]["Location"]);
    assert_eq!(after["Parameters"], before["Parameters"]);
    lake.place(7).await.unwrap();
    assert_eq!(lake.asked(), ["GetTable", "GetPartition"]);
}

/// As after a late move: whoever comes next moves the month on.
#[tokio::test]
async fn columns_that_are_given_while_the_month_moves_set_it_back_until_the_next_run() {
    let lake = Lake::new();
    lake.held.lock().unwrap().partitions.insert("2026-11".to_owned(), partition(3));
    lake.first("BatchUpdatePartition", Another(7));
    lake.place(3).await.unwrap();
    assert_eq!(lake.version().await, Some(3));
    lake.place(7).await.unwrap();
    assert_eq!(lake.version().await, Some(7));
}

/// A catalog that gives columns back otherwise than they were put keeps nobody.
#[tokio::test]
async fn columns_are_given_once_a_call() {
    let lake = Lake::new();
    lake.held.lock().unwrap().partitions.insert("2026-11".to_owned(), partition(3));
    lake.first("BatchUpdatePartition", Refuses("ConcurrentModificationException"));
    lake.place(3).await.unwrap();
    assert_eq!(lake.asked(), ["GetTable", "GetPartition", "BatchUpdatePartition", "GetPartition"]);
    assert_eq!(lake.version().await, Some(3));
}
