//! Quarantined records through the path again: archived first, counted once, marked; and no longer quarantined for anybody.

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kinesis::primitives::Blob;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use recount_compactor::archive::life::Life;
use recount_compactor::archive::source::Record;
use recount_compactor::bucket::Objects;
use recount_compactor::reconcile::{Kind, Verdict};
use recount_compactor::redrive::add::{Adder, Place};
use recount_compactor::redrive::{Ask, redrive};
use recount_schemas::host::Deadline;
use recount_schemas::quarantine::{self, Quarantined};
use recount_schemas::{QuarantineCode, QuarantineReason};

use crate::support::naive::{self, Scan, Totals, rfc3339};
use crate::support::process::{until, usage};
use crate::support::records;
use crate::support::shell::Shell;
use crate::support::world::{World, definition, options};

/// 30 November 2026, 12:00 UTC.
const AT: i64 = 1_796_040_000;
const DAY_US: i64 = 86_400_000_000;

fn scan(n: i64) -> Scan {
    Scan { project: "acme".to_owned(), at: AT + n, bytes: 7 + n }
}

impl Shell {
    fn usage(&self) -> Totals {
        usage(&self.serve.endpoint(), &self.data)
    }

    async fn names(&self, prefix: &str) -> Vec<String> {
        let listed = self.clients.s3.list_objects_v2().bucket("recount-archive").prefix(prefix).send().await.unwrap();
        listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
    }

    async fn put_item(&self, id: &str, n: i64, file_name: String) {
        let item = self.clients.dynamodb.put_item().table_name("scans");
        item.item("scan_id", AttributeValue::S(id.to_owned()))
            .item("project_id", AttributeValue::S("acme".to_owned()))
            .item("bytes", AttributeValue::N((7 + n).to_string()))
            .item("scanned_at", AttributeValue::S(rfc3339(AT + n)))
            .item("file_name", AttributeValue::S(file_name))
            .send()
            .await
            .unwrap();
    }

    /// A record as it stands in quarantine when an older consumer did not understand it: at a place that was read, since a record
    /// that nobody understands stood there.
    async fn plant(&self, name: &str, data: &str, arrived_us: i64, code: QuarantineCode) {
        let put = self.clients.kinesis.put_record().stream_name("recount-changes").partition_key(name);
        let put = put.data(Blob::new("not a change")).send().await.unwrap();
        let kept = Quarantined {
            shard_id: put.shard_id().parse().unwrap(),
            ..kept(put.sequence_number(), data, arrived_us, code)
        };
        let key = quarantine::object_key(&kept.shard_id, &kept.sequence_number);
        until("it is in quarantine", async || self.names("quarantine/").await.contains(&key)).await;
        let body = serde_json::to_vec(&kept).unwrap();
        self.clients.s3.put_object().bucket("recount-archive").key(key).body(body.into()).send().await.unwrap();
    }
}

fn kept(sequence: &str, data: &str, arrived_us: i64, code: QuarantineCode) -> Quarantined {
    Quarantined {
        format: quarantine::FORMAT,
        stream: "recount-changes".to_owned(),
        shard_id: "shardId-000000000000".parse().unwrap(),
        sequence_number: sequence.parse().unwrap(),
        partition_key: "p".to_owned(),
        arrived_us,
        reason: QuarantineReason::new(code, "as it was then"),
        data: STANDARD.encode(data),
        raw: false,
    }
}

/// The cases that heal, through the binary: what was too large for the stream and stands in the relay's quarantine; a creation time that was
/// too far ahead and has come; what an older program did not understand. And one that does not.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_understood_by_now_is_counted_once_and_is_quarantined_no_more() {
    let shell = Shell::start(Some(&definition("")), &[]).await;
    let now_us = recount_schemas::host::SystemHost::shared().now_us();
    // In JSON each of these characters takes six bytes: 1.2 MB, more than the stream takes of a record.
    shell.put_item("large", 0, "\u{1}".repeat(200_000)).await;
    shell.put_item("small", 1, "f".to_owned()).await;
    let early = records::change("early", "item-early", Some(&scan(2)), None, now_us - DAY_US);
    shell.plant("early", &early.json, now_us - 3 * DAY_US, QuarantineCode::CreationTimeOutOfRange).await;
    let misread = records::change("misread", "item-misread", Some(&scan(3)), None, now_us - 3 * DAY_US);
    shell.plant("misread", &misread.json, now_us - 3 * DAY_US, QuarantineCode::BadMeasure).await;
    shell.plant("hello", "hello, world", now_us, QuarantineCode::NotAChange).await;
    until("relay and consumer are done", async || {
        shell.names("quarantine/relay-").await.len() == 1 && shell.usage().values().any(|(events, _)| *events == 1)
    })
    .await;
    let reconciled = shell.run(0, &["reconcile"]);
    assert_eq!(reconciled["quarantined"].as_u64(), Some(4), "{reconciled}");

    let plan = shell.run(1, &["redrive"]);
    assert_eq!(plan["ready"], serde_json::json!({"too_large": 1, "creation_time_out_of_range": 1, "bad_measure": 1}));
    assert_eq!(plan["stays"], serde_json::json!([{"was": "not_a_change", "is": "not_a_change", "records": 1}]));
    assert!(shell.names("redriven/").await.is_empty(), "nothing is done without --confirm");
    let only = shell.run(0, &["redrive", "--reason", "bad_measure", "--confirm"]);
    assert_eq!((only["examined"].as_u64(), only["counted"].as_u64()), (Some(1), Some(1)), "{only}");
    let done = shell.run(1, &["redrive", "--confirm"]);
    assert_eq!(
        (done["counted"].as_u64(), done["archived"].as_u64(), done["done_before"].as_u64()),
        (Some(2), Some(2), Some(1))
    );

    let expected = naive::inserts(&[scan(0), scan(1), scan(2), scan(3)]);
    assert_eq!(shell.usage(), expected);
    let reconciled = shell.run(0, &["reconcile"]);
    assert_eq!(reconciled["quarantined"].as_u64(), Some(1), "only what is not understood: {reconciled}");
    shell.run(0, &["fsck"]);
    let recounted = shell.run(0, &["recompute"]);
    assert_eq!(recounted["months"][0]["events"].as_u64(), Some(4), "{recounted}");
    let again = shell.run(1, &["redrive", "--confirm"]);
    assert_eq!((again["examined"].as_u64(), again["done_before"].as_u64()), (Some(1), Some(3)), "{again}");
    assert_eq!(shell.names("quarantine/").await.len(), 4, "nothing leaves quarantine");

    // The source delivers one of them once more: it is known, to the consumer and to the archive.
    let put = shell.clients.kinesis.put_record().stream_name("recount-changes").partition_key("p");
    put.data(Blob::new(misread.json.as_bytes())).send().await.unwrap();
    shell.put_item("last", 4, "f".to_owned()).await;
    let expected = naive::inserts(&[scan(0), scan(1), scan(2), scan(3), scan(4)]);
    until("the consumer is done", async || shell.usage() == expected).await;
    assert_eq!(shell.run(0, &["reconcile"])["quarantined"].as_u64(), Some(1));
}

/// A redrive that dies between the row and the count: until the next one, reconcile says of the event what it is.
#[tokio::test(flavor = "multi_thread")]
async fn invariant_8_what_is_archived_and_not_yet_counted_is_a_finding_until_the_redrive_goes_on() {
    let world = World::start(&definition(""), options()).await;
    let now_us = world.host.now_us();
    let before: Vec<_> = (0..40)
        .map(|n| records::change(&format!("e{n}"), &format!("i{n}"), Some(&scan(n)), None, now_us - DAY_US + n))
        .collect();
    world.put_changes(&before).await;
    world.pipeline.drained().await.unwrap();
    let misread = records::change("misread", "item", Some(&scan(50)), None, now_us - DAY_US);
    let object = kept("12", &misread.json, now_us - DAY_US, QuarantineCode::BadMeasure);
    let context = world.pipeline.context();
    let key = quarantine::object_key(&object.shard_id, &object.sequence_number);
    context.bucket.put(&key, serde_json::to_vec(&object).unwrap().into()).await.unwrap();
    assert_eq!(world.reconcile().await.verdict, Verdict::Clean);

    let adder = Adder {
        objects: &context.bucket,
        definition: &context.definition,
        stream: "recount-changes",
        origin: "redrive",
        catalog: None,
        host: &context.host,
    };
    let record = Record {
        sequence: object.sequence_number.clone(),
        partition_key: "p".to_owned(),
        arrived_us: object.arrived_us,
        data: misread.json.clone().into(),
    };
    let life = Life::begin(context.host.clone(), context.limits.life, Deadline::NONE);
    let places = adder.add(&[(object.shard_id.clone(), record)], &life).await.unwrap();
    assert!(matches!(places[..], [Place::Added(_)]), "{places:?}");
    let findings = world.reconcile().await.findings;
    assert_eq!(findings.iter().map(|finding| finding.kind).collect::<Vec<_>>(), [Kind::Quarantined]);
    assert_eq!(findings[0].event_ids, ["misread"]);

    let report = redrive(context, &Ask { confirm: true, ..Ask::default() }, &|_| {}).await.unwrap();
    assert_eq!((report.archived_before, report.archived, report.counted), (1, 0, 1));
    let reconciled = world.reconcile().await;
    assert_eq!((reconciled.findings, reconciled.quarantined), (Vec::new(), 0));
    let scans: Vec<Scan> = (0..40).chain([50]).map(scan).collect();
    assert_eq!(world.totals().await, naive::inserts(&scans));
}
