//! What no application should ever write, and what some day one does: each record gets one verdict, none is lost, and no
//! good record waits for a bad one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use recount_local::pipeline::{ON_FAILURE, Options};
use recount_schemas::QuarantineCode;
use recount_schemas::quarantine::Quarantined;
use serde_json::{Value, json};

use crate::support::checks::{self, Row, agree, objects, quarantined, streamed, tiles};
use crate::support::naive::{self, Scan, rfc3339};
use crate::support::records;
use crate::support::world::{World, definition, options};

/// The largest record of a stream as it is made: data and partition key (Kinesis API Reference, "PutRecords").
const MAX_RECORD: usize = 1 << 20;

/// The one verdict that a record must get.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Counted(Scan),
    Ignored(&'static str),
    Quarantined(QuarantineCode),
}

#[derive(Clone, Debug)]
struct Case {
    /// The partition key: by it the record is found again.
    name: String,
    data: Vec<u8>,
    verdict: Verdict,
}

/// 30 November 2026, 12:00 UTC.
const AT: i64 = 1_796_040_000;

fn scan(project: &str) -> Scan {
    Scan { project: project.to_owned(), at: AT, bytes: 7 }
}

/// An image with everything in its place.
fn image(project: &str) -> Value {
    json!({
        "scan_id": {"S": "x"}, "project_id": {"S": project}, "file_name": {"S": "f"},
        "bytes": {"N": "7"}, "scanned_at": {"S": rfc3339(AT)},
    })
}

/// The record of an insertion. `change` may spoil it.
fn insert(name: &str, created_us: i64, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut record = json!({
        "awsRegion": "us-east-1", "eventID": format!("id of {name}"), "eventName": "INSERT", "userIdentity": null,
        "recordFormat": "application/json", "tableName": "scans", "eventSource": "aws:dynamodb",
        "dynamodb": {
            "ApproximateCreationDateTime": created_us, "ApproximateCreationDateTimePrecision": "MICROSECOND",
            "Keys": {"scan_id": {"S": "x"}}, "NewImage": image("acme"), "SizeBytes": 100,
        },
    });
    change(&mut record);
    serde_json::to_vec(&record).unwrap()
}

fn without(object: &mut Value, member: &str) {
    object.as_object_mut().unwrap().remove(member).unwrap();
}

struct Cases {
    now_us: i64,
    all: Vec<Case>,
}

impl Cases {
    fn raw(&mut self, name: &str, data: impl Into<Vec<u8>>, verdict: Verdict) {
        self.all.push(Case { name: name.to_owned(), data: data.into(), verdict });
    }

    fn insert(&mut self, name: &str, verdict: Verdict, change: impl FnOnce(&mut Value)) {
        self.raw(name, insert(name, self.now_us, change), verdict);
    }

    fn bad(&mut self, name: &str, code: QuarantineCode, change: impl FnOnce(&mut Value)) {
        self.insert(name, Verdict::Quarantined(code), change);
    }

    /// Bytes that are no change record.
    fn no_changes(&mut self) {
        let good = insert("spoilt", self.now_us, |_| {});
        let not = Verdict::Quarantined(QuarantineCode::NotAChange);
        self.raw("no JSON", "hello, world", not.clone());
        self.raw("an empty object", "{}", Verdict::Quarantined(QuarantineCode::BadMember));
        self.raw("an array", "[]", not.clone());
        self.raw("null", "null", not.clone());
        self.raw("a record cut short", &good[..good.len() - 20], not.clone());
        self.raw("a record and more", [good.as_slice(), b"{}"].concat(), not.clone());
        let mut no_utf8 = good.clone();
        let at = no_utf8.windows(5).position(|w| w == b"acme\"").unwrap();
        no_utf8[at] = 0xff;
        self.raw("invalid UTF-8", no_utf8, not.clone());
        self.raw("endless nesting", "[".repeat(200_000), not.clone());
        let twice = String::from_utf8(good).unwrap().replacen('{', r#"{"eventName":"REMOVE","#, 1);
        self.raw("a member twice", twice, not.clone());
        // The members of a record in the order in which ours reads them, but in no object.
        let image = image("acme");
        let list = json!(["id", "INSERT", "scans", "x", null, null, {
            "ApproximateCreationDateTime": self.now_us, "ApproximateCreationDateTimePrecision": "MICROSECOND",
            "Keys": {"scan_id": {"S": "x"}}, "NewImage": image.clone(),
        }]);
        self.raw("a record as a list", list.to_string(), not.clone());
        let now_us = self.now_us;
        self.insert("a body as a list", not, |r| r["dynamodb"] = json!([now_us, "MICROSECOND", {}, image, null]));
    }

    /// Records whose members are wrong.
    fn bad_members(&mut self) {
        use QuarantineCode::{BadCreationTime, BadImage, BadMember, CreationTimeOutOfRange, NoImage};
        let now_us = self.now_us;
        let created = |us: Value| move |r: &mut Value| r["dynamodb"]["ApproximateCreationDateTime"] = us;
        let precision = |name: &'static str| {
            move |r: &mut Value| r["dynamodb"]["ApproximateCreationDateTimePrecision"] = json!(name)
        };
        self.bad("no event ID", BadMember, |r| without(r, "eventID"));
        self.bad("an unknown event name", BadMember, |r| r["eventName"] = json!("UPSERT"));
        self.bad("no table", BadMember, |r| without(r, "tableName"));
        self.bad("milliseconds called microseconds", CreationTimeOutOfRange, created(json!(now_us / 1_000)));
        self.bad("microseconds called milliseconds", CreationTimeOutOfRange, precision("MILLISECOND"));
        self.bad("two days ahead", CreationTimeOutOfRange, created(json!(now_us + 2 * 86_400_000_000)));
        self.bad("the end of 64 bits", CreationTimeOutOfRange, created(json!(i64::MAX)));
        self.bad("beyond 64 bits", CreationTimeOutOfRange, created(json!(u64::MAX)));
        self.bad("before the common era", CreationTimeOutOfRange, created(json!(i64::MIN)));
        self.bad("a creation time with decimals", BadCreationTime, created(json!(1.5)));
        self.bad("a creation time as text", BadCreationTime, created(json!("now")));
        self.bad("no creation time", BadCreationTime, |r| without(&mut r["dynamodb"], "ApproximateCreationDateTime"));
        self.bad("an unknown precision", BadCreationTime, precision("NANOSECOND"));
        self.bad("no image", NoImage, |r| without(&mut r["dynamodb"], "NewImage"));
        self.bad("an image that is null", NoImage, |r| r["dynamodb"]["NewImage"] = Value::Null);
        self.bad("an image that is text", BadImage, |r| r["dynamodb"]["NewImage"] = json!("{}"));
        self.bad("an image without types", BadImage, |r| r["dynamodb"]["NewImage"]["project_id"] = json!("acme"));
    }

    /// Items that the definition cannot read.
    fn bad_items(&mut self) {
        use QuarantineCode::{BadMeasure, BadOccurredAt, NoGroup, OccurredAtOutOfRange};
        let set =
            |attribute: &'static str, value: Value| move |r: &mut Value| r["dynamodb"]["NewImage"][attribute] = value;
        let at = |text: &str| set("scanned_at", json!({"S": text}));
        self.bad("no group", NoGroup, |r| without(&mut r["dynamodb"]["NewImage"], "project_id"));
        self.bad("a group of the wrong type", NoGroup, set("project_id", json!({"BOOL": true})));
        self.bad("an empty group", NoGroup, set("project_id", json!({"S": ""})));
        self.bad("a group too long", NoGroup, set("project_id", json!({"S": "g".repeat(1_901)})));
        self.bad("no event time", BadOccurredAt, |r| without(&mut r["dynamodb"]["NewImage"], "scanned_at"));
        self.bad("an event time that is none", BadOccurredAt, at("yesterday"));
        self.bad("an event time without offset", BadOccurredAt, at("2026-11-30T12:00:00"));
        self.bad("an event time that is a number", BadOccurredAt, set("scanned_at", json!({"N": "1796040000"})));
        self.bad("an event long ago", OccurredAtOutOfRange, at("1999-12-31T23:59:59Z"));
        self.bad("an event at the end of time", BadOccurredAt, at("9999-12-31T23:59:59Z"));
        self.bad("an event far ahead", OccurredAtOutOfRange, at("2100-01-01T00:00:00Z"));
        self.bad("a measure of 38 digits", BadMeasure, set("bytes", json!({"N": "9".repeat(38)})));
        self.bad("a measure of ten decimals", BadMeasure, set("bytes", json!({"N": "0.0000000001"})));
        self.bad("a measure that is text", BadMeasure, set("bytes", json!({"S": "7"})));
    }

    /// Unusual, and good.
    fn unusual(&mut self) {
        for project in [
            "quo\"ted",
            "back\\slash",
            "new\nline\ttab",
            "../../etc/passwd",
            "a/b//c",
            "month=2026-11",
            "%2e%2e%2f",
            "🦀👩‍👩‍👧‍👦",
            "e\u{301}\u{202e}",
            "nul\u{0}byte",
            " ",
            "recount#definition",
            "too-old#2026-11#0#acme",
            "<script>",
        ] {
            let name = format!("project {project:?}");
            let set = |r: &mut Value| {
                r["dynamodb"]["NewImage"] = image(project);
                r["dynamodb"]["NewImage"]["file_name"] = json!({"S": format!("../{project}\n🦀.pdf")});
            };
            self.insert(&name, Verdict::Counted(scan(project)), set);
        }
        self.insert("the longest group", Verdict::Counted(scan(&"ü".repeat(950))), |r| {
            r["dynamodb"]["NewImage"] = image(&"ü".repeat(950));
        });
        self.insert("numbers of 38 digits", Verdict::Counted(scan("acme")), |r| {
            r["dynamodb"]["NewImage"]["wide"] = json!({"N": "12345678901234567890123456789012345678"});
            r["dynamodb"]["NewImage"]["tiny"] = json!({"NS": ["-1.2345678901234567890123456789012345678E-130"]});
        });
        self.insert("members that nobody knows", Verdict::Counted(scan("acme")), |r| {
            r["novel"] = json!({"deep": [1, 2.5, "é", null], "eventID": "not the event's"});
            r["dynamodb"]["Later"] = json!({"NewImage": true});
        });
        let deep = format!(r#"{}{{"S":"x"}}{}"#, r#"{"L":["#.repeat(5_000), "]}".repeat(5_000));
        let good = String::from_utf8(insert("deep nesting", self.now_us, |_| {})).unwrap();
        let deep = good.replace(r#""file_name":{"S":"f"}"#, &format!(r#""file_name":{deep}"#));
        assert_ne!(deep, good);
        self.raw("deep nesting", deep, Verdict::Counted(scan("acme")));
        let half = r#""file_name":{"S":"half a pair \ud83e"}"#;
        let half = good.replace("deep nesting", "half a pair").replace(r#""file_name":{"S":"f"}"#, half);
        self.raw("half a pair", half, Verdict::Counted(scan("acme")));
        // As the relay forwards it: seconds, and the table in the stream's ARN.
        let now_s = self.now_us / 1_000_000;
        self.insert("a record of the other form", Verdict::Counted(scan("acme")), |r| {
            without(r, "tableName");
            without(r, "recordFormat");
            without(&mut r["dynamodb"], "ApproximateCreationDateTimePrecision");
            r["dynamodb"]["ApproximateCreationDateTime"] = json!(now_s);
            r["eventSourceARN"] =
                json!("arn:aws:dynamodb:us-east-1:000000000000:table/scans/stream/2026-11-01T00:00:00.000");
        });
        for (name, fill) in [("the largest record", "a"), ("the largest record, of escapes", "\\u0007")] {
            let empty = insert(name, self.now_us, |r| r["dynamodb"]["NewImage"]["file_name"] = json!({"S": "@@"}));
            let room = MAX_RECORD - name.len() - empty.len() + 2;
            let fill = fill.repeat(room / fill.len()) + &"b".repeat(room % fill.len());
            let data = String::from_utf8(empty).unwrap().replace("@@", &fill);
            assert_eq!(data.len() + name.len(), MAX_RECORD);
            self.raw(name, data, Verdict::Counted(scan("acme")));
        }
    }

    /// Understood, and of no effect.
    fn ignored(&mut self) {
        self.insert("another table", Verdict::Ignored("other_table"), |r| {
            r["tableName"] = json!("users");
            r["dynamodb"]["NewImage"] = json!({"user": {"S": "x"}});
        });
        self.insert("a change", Verdict::Ignored("not_an_insert"), |r| {
            r["eventName"] = json!("MODIFY");
            r["dynamodb"]["OldImage"] = image("acme");
        });
        self.insert("an expiry", Verdict::Ignored("not_an_insert"), |r| {
            r["eventName"] = json!("REMOVE");
            r["userIdentity"] = json!({"type": "Service", "principalId": "dynamodb.amazonaws.com"});
            r["dynamodb"]["OldImage"] = r["dynamodb"]["NewImage"].clone();
            without(&mut r["dynamodb"], "NewImage");
        });
        // Where nothing is counted nothing is asked of an image, and still its row must be made.
        self.insert("a deletion that tells nothing", Verdict::Ignored("not_an_insert"), |r| {
            r["eventName"] = json!("REMOVE");
            without(&mut r["dynamodb"], "NewImage");
        });
    }
}

/// All of them, with a good record before, between and after.
fn cases(now_us: i64) -> Vec<Case> {
    let mut cases = Cases { now_us, all: Vec::new() };
    cases.no_changes();
    cases.bad_members();
    cases.bad_items();
    cases.unusual();
    cases.ignored();
    let mut all = Vec::new();
    for (n, case) in cases.all.into_iter().enumerate() {
        all.push(good(n, now_us));
        all.push(case);
    }
    all.push(good(all.len(), now_us));
    let names: BTreeSet<&str> = all.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), all.len(), "each case has a name of its own");
    all
}

fn good(n: usize, now_us: i64) -> Case {
    let scan = Scan { project: "good".to_owned(), at: AT, bytes: n as i64 };
    let change = records::change(&format!("good-{n}"), &format!("good-{n}"), Some(&scan), None, now_us);
    Case { name: change.partition_key, data: change.json.into_bytes(), verdict: Verdict::Counted(scan) }
}

fn counted(cases: &[Case]) -> naive::Totals {
    naive::inserts(cases.iter().filter_map(|case| match &case.verdict {
        Verdict::Counted(scan) => Some(scan),
        _ => None,
    }))
}

async fn put(world: &World, cases: &[Case]) {
    // Ten of the largest fit one request.
    for cases in cases.chunks(9) {
        world.put(cases.iter().map(|case| (case.name.clone(), case.data.clone()))).await;
    }
}

/// Quarantine by partition key.
fn by_name(kept: Vec<Quarantined>) -> BTreeMap<String, Quarantined> {
    kept.into_iter().map(|kept| (kept.partition_key.clone(), kept)).collect()
}

/// Each case's verdict as the bucket tells it: its object in quarantine, or its row; and its bytes.
async fn check_bucket(world: &World, cases: &[Case]) {
    let mut kept = by_name(quarantined(world).await);
    let names: BTreeMap<_, String> =
        streamed(world).await.into_iter().map(|record| (record.position(), record.partition_key)).collect();
    let mut rows: BTreeMap<String, Row> =
        checks::rows(world).await.into_iter().map(|row| (names[&row.position].clone(), row)).collect();
    for case in cases {
        match &case.verdict {
            Verdict::Quarantined(code) => {
                let kept = kept.remove(&case.name).unwrap_or_else(|| panic!("{} is not in quarantine", case.name));
                assert_eq!(kept.reason.code, *code, "{}: {}", case.name, kept.reason);
                assert_eq!(
                    (kept.raw, STANDARD.decode(&kept.data).unwrap()),
                    (false, case.data.clone()),
                    "{}",
                    case.name
                );
            }
            Verdict::Counted(_) | Verdict::Ignored(_) => {
                let row = rows.remove(&case.name).unwrap_or_else(|| panic!("{} is not in the archive", case.name));
                check_row(case, &row);
            }
        }
    }
    assert!(kept.is_empty() && rows.is_empty(), "only these: {:?} {:?}", kept.keys(), rows.keys());
}

fn check_row(case: &Case, row: &Row) {
    let text = std::str::from_utf8(&case.data).unwrap();
    for image in [&row.new_image, &row.old_image].into_iter().flatten() {
        assert!(text.contains(image.as_str()), "{}: an image is kept byte for byte", case.name);
    }
    assert_eq!(text.contains(r#""NewImage":{"#), row.new_image.is_some(), "{}", case.name);
    assert_eq!(text.contains(r#""OldImage":{"#), row.old_image.is_some(), "{}", case.name);
    assert_eq!(row.record.len(), text.len(), "{}: the restored record has the same bytes in another order", case.name);
    // Not everything that is JSON by its grammar can be compared as values: nesting, and half a surrogate pair.
    if !["deep nesting", "half a pair"].contains(&case.name.as_str()) {
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(value(&row.record), value(text), "{}", case.name);
    }
    if case.name == "an expiry" {
        assert_eq!(row.class, "ttl");
    }
    if case.name == "another table" {
        assert_eq!(row.table, "users");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_10_a_bad_record_delays_no_good_one() {
    let world = World::start(&definition(""), Options { shards: 1, batch_size: 20, ..options() }).await;
    let cases = cases(world.host.now_us());
    put(&world, &cases).await;
    world.pipeline.drained().await.unwrap();

    // One verdict for each record from its first delivery: nothing failed, nothing came again, nothing was given up.
    let tally = world.pipeline.tally();
    let (mut applied, mut ignored, mut bad) = (0, BTreeMap::new(), BTreeMap::new());
    for case in &cases {
        match &case.verdict {
            Verdict::Counted(_) => applied += 1,
            Verdict::Ignored(code) => *ignored.entry(*code).or_default() += 1,
            Verdict::Quarantined(code) => *bad.entry(*code).or_default() += 1,
        }
    }
    assert_eq!((tally.records, tally.applied), (cases.len() as u64, applied), "{tally:?}");
    assert_eq!((&tally.ignored, &tally.quarantined), (&ignored, &bad));
    assert_eq!((tally.duplicates, tally.too_old, tally.failed), (0, 0, 0));
    assert!(objects(&world, ON_FAILURE).await.is_empty());
    assert_eq!(world.totals().await, counted(&cases));

    agree(&world, &counted(&cases)).await;
    assert_eq!(tiles(&world).await, 0);
    check_bucket(&world, &cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_1_nothing_lost_and_both_readers_judge_alike() {
    // The archive comes first; the consumer has not seen a record yet.
    let waiting = Options { batch_size: 10_000, window: Duration::from_secs(300), ..options() };
    let world = World::start(&definition("count = \"inserts\"\nlanes = 2"), waiting).await;
    let cases = cases(world.host.now_us());
    put(&world, &cases).await;
    let archived = world.pipeline.archive().await.unwrap();
    let bad = cases.iter().filter(|case| matches!(case.verdict, Verdict::Quarantined(_))).count() as u64;
    assert_eq!(world.pipeline.tally().records, 0, "the consumer waits");
    assert_eq!((archived.records, archived.quarantined), (cases.len() as u64, bad));
    assert_eq!((archived.rows, archived.duplicates, archived.conflicts), (cases.len() as u64 - bad, 0, 0));
    check_bucket(&world, &cases).await;
    assert_eq!(tiles(&world).await, 0);
}

fn item(id: &str, project: &str, name: &str) -> std::collections::HashMap<String, AttributeValue> {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    std::collections::HashMap::from([
        ("scan_id".to_owned(), text(id)),
        ("project_id".to_owned(), text(project)),
        ("file_name".to_owned(), text(name)),
        ("bytes".to_owned(), AttributeValue::N("7".to_owned())),
        ("scanned_at".to_owned(), text(&rfc3339(AT))),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_1_a_change_too_large_for_the_stream_is_kept_by_the_relay() {
    let world = World::start(&definition(""), options()).await;
    let put = async |id: &str, project: &str, name: &str| {
        let put = world.pipeline.clients().dynamodb.put_item().table_name("scans");
        put.set_item(Some(item(id, project, name))).send().await.unwrap();
    };
    // Within DynamoDB's 400 KB, but each quote is two bytes of JSON: one image fits a record of 1 MiB, two do not.
    let (before, after) = ("\"".repeat(390_000), "\\".repeat(390_000));
    let controls = "\u{1}".repeat(390_000);
    put("first", "good", "f").await;
    put("large", "acme", &before).await;
    put("second", "good", "f").await;
    put("large", "acme", &after).await;
    put("third", "good", "f").await;
    // Six bytes of JSON each: even one image does not fit.
    put("huge", "globex", &controls).await;
    put("large", "acme", "small again").await;
    put("fourth", "good", "f").await;
    world.pipeline.drained().await.unwrap();

    let inserted: Vec<Scan> = ["good", "good", "good", "good", "acme"].into_iter().map(scan).collect();
    agree(&world, &naive::inserts(&inserted)).await;
    tiles(&world).await;
    assert_eq!(checks::rows(&world).await.len(), 6, "five insertions, and the change back to small");

    let kept = quarantined(&world).await;
    let codes: Vec<QuarantineCode> = kept.iter().map(|kept| kept.reason.code).collect();
    assert_eq!(codes, [QuarantineCode::TooLarge; 2]);
    let mut seen = BTreeSet::new();
    for kept in kept {
        assert!(kept.shard_id.as_str().starts_with("relay-"), "{}", kept.shard_id);
        let record: Value = serde_json::from_slice(&STANDARD.decode(&kept.data).unwrap()).unwrap();
        let name = |image: &str| record["dynamodb"][image]["file_name"]["S"].as_str().map(str::to_owned);
        match record["eventName"].as_str() {
            Some("MODIFY") => {
                assert_eq!((name("OldImage"), name("NewImage")), (Some(before.clone()), Some(after.clone())));
            }
            Some("INSERT") => assert_eq!((name("OldImage"), name("NewImage")), (None, Some(controls.clone()))),
            other => panic!("{other:?}"),
        }
        seen.insert(record["eventName"].to_string());
    }
    assert_eq!(seen.len(), 2);
}
