//! A pipeline in a process of its own whose capture can be turned off, and an application that goes on writing.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Output;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, StreamSpecification, StreamViewType};
use recount_local::client;
use recount_schemas::Settings;
use serde_json::Value;

use super::naive::{self, Scan, Totals};
use super::process::{Serve, free_port, json, run, until, usage};
use super::world::definition;

/// In Berlin: November 2026.
pub const NOVEMBER: i64 = 1_795_000_000;
/// The group of the marks that a test waits for.
const MARKS: &str = "marks";

/// The pipeline, and what its table should come to.
pub struct Capture {
    pub serve: Serve,
    pub data: PathBuf,
    pub dynamo: Client,
    pub s3: aws_sdk_s3::Client,
    /// All that was ever inserted, by ID.
    pub inserted: BTreeMap<String, Scan>,
    marks: u64,
    _dir: tempfile::TempDir,
}

impl Capture {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ours.toml");
        fs::write(&path, definition("")).unwrap();
        let data = dir.path().join("data");
        let serve = Serve::start(&data, free_port(), Some(&path));
        let sdk = client::sdk_config(&serve.endpoint()).await;
        let s3 = aws_sdk_s3::config::Builder::from(&sdk).force_path_style(true).build();
        let (dynamo, s3) = (Client::new(&sdk), aws_sdk_s3::Client::from_conf(s3));
        Self { serve, data, dynamo, s3, inserted: BTreeMap::new(), marks: 0, _dir: dir }
    }

    /// Inserts items with these IDs. Their groups and bytes follow from their numbers.
    pub async fn insert(&mut self, name: &str, numbers: std::ops::Range<i64>) {
        for n in numbers {
            let id = format!("{name}-{n}");
            let scan = Scan { project: format!("p{}", n % 3), at: NOVEMBER + n * 86_400, bytes: 10 + n };
            put(&self.dynamo, &id, &scan).await;
            self.inserted.insert(id, scan);
        }
    }

    /// Inserts while nothing is captured.
    pub async fn lose(&mut self, name: &str, numbers: std::ops::Range<i64>) {
        self.capture(false).await;
        self.insert(name, numbers).await;
        self.capture(true).await;
    }

    /// Changes an item in a way that no total depends on.
    pub async fn touch(&self, id: &str) {
        let update = self.dynamo.update_item().table_name("scans").key("scan_id", AttributeValue::S(id.to_owned()));
        let update = update.update_expression("SET verdict = :v");
        update.expression_attribute_values(":v", AttributeValue::S("looked".into())).send().await.unwrap();
    }

    pub async fn delete(&self, id: &str) {
        let delete = self.dynamo.delete_item().table_name("scans").key("scan_id", AttributeValue::S(id.to_owned()));
        delete.send().await.unwrap();
    }

    /// Turns capture off, or on again.
    pub async fn capture(&self, on: bool) {
        let mut stream = StreamSpecification::builder().stream_enabled(on);
        if on {
            stream = stream.stream_view_type(StreamViewType::NewAndOldImages);
        }
        let update = self.dynamo.update_table().table_name("scans");
        update.stream_specification(stream.build().unwrap()).send().await.unwrap();
    }

    /// Waits until everything written so far has been captured and counted. The relay sends batch after batch: behind a mark
    /// that is counted before the next one is written, all batches before are in the stream.
    pub async fn captured(&mut self) {
        for _ in 0..2 {
            let id = format!("mark-{}", self.marks);
            let scan = Scan { project: MARKS.into(), at: NOVEMBER, bytes: 0 };
            put(&self.dynamo, &id, &scan).await;
            self.inserted.insert(id, scan);
            self.marks += 1;
            let (endpoint, data, marks) = (self.serve.endpoint(), self.data.clone(), self.marks as i64);
            until("the mark is counted", async || {
                let totals = usage(&endpoint, &data);
                totals.get(&(MARKS.to_owned(), naive::month(NOVEMBER))).is_some_and(|total| total.0 >= marks)
            })
            .await;
        }
    }

    /// What the insertions count.
    pub fn expected(&self) -> Totals {
        naive::inserts(self.inserted.values())
    }

    /// The live totals.
    pub fn totals(&self) -> Totals {
        usage(&self.serve.endpoint(), &self.data)
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        run("recount", &self.serve.endpoint(), &self.data, arguments)
    }

    /// A report for programs, from a command that ends with `code`.
    pub fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--format", "json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {said}\n{}",
            String::from_utf8_lossy(&output.stdout)
        );
        json(&output)
    }

    /// What an audit finds: the kinds and IDs.
    pub fn audited(&self, arguments: &[&str]) -> Vec<(String, String)> {
        let arguments = [&["audit", "--settle", "1"], arguments].concat();
        let output = self.run(&[arguments.as_slice(), &["--format", "json"]].concat());
        let report = json(&output);
        let findings = report["findings"].as_array().unwrap().iter().map(|finding| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&finding["kind"]), text(&finding["key"]["scan_id"]["S"]))
        });
        let mut findings: Vec<_> = findings.collect();
        findings.sort();
        let code = if findings.is_empty() { 0 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{report}");
        findings
    }

    /// The totals are those of the insertions, and reconcile finds nothing.
    pub fn agrees(&self) {
        assert_eq!(self.totals(), self.expected());
        let report = self.json(0, &["reconcile"]);
        assert_eq!(report["verdict"], "clean", "{report}");
    }

    /// Writes the table as an export of DynamoDB would: the layout is that of the Developer Guide, "S3DataExport.Output".
    /// It says that it is of `ahead` seconds from now: what was just written then lies clearly before it.
    pub async fn export(&self, bucket: &str, files: usize, ahead: i64) -> String {
        let folder = "nightly/AWSDynamoDB/01693685827463-2d8752fd";
        let at = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + ahead).unwrap().to_string();
        let created = self.s3.create_bucket().bucket(bucket).send().await;
        assert!(created.is_ok(), "{created:?}");
        let items = self.dynamo.scan().table_name("scans").consistent_read(true).into_paginator().items().send();
        let items: Vec<_> = items.try_collect().await.unwrap();
        let mut manifest = String::new();
        for file in 0..files {
            let mut lines = String::new();
            let here: Vec<_> = items.iter().skip(file).step_by(files).collect();
            for item in &here {
                let item: serde_json::Map<String, Value> = item
                    .iter()
                    .map(|(name, value)| match value {
                        AttributeValue::S(text) => (name.clone(), serde_json::json!({"S": text})),
                        AttributeValue::N(number) => (name.clone(), serde_json::json!({"N": number})),
                        other => panic!("{other:?}"),
                    })
                    .collect();
                lines += &format!("{}\n", serde_json::json!({"Item": item}));
            }
            let bytes = gzipped(lines.as_bytes());
            let md5 = base64(&md5(&bytes));
            let key = format!("{folder}/data/file{file}.json.gz");
            manifest += &format!(
                "{}\n",
                serde_json::json!({"itemCount": here.len(), "md5Checksum": md5, "etag": "x-1", "dataFileS3Key": key})
            );
            self.put_object(bucket, &key, bytes).await;
        }
        let summary = serde_json::json!({
            "version": "2020-06-30", "tableArn": "arn:aws:dynamodb:us-east-1:000000000000:table/scans", "exportTime": at,
            "s3Bucket": bucket, "s3Prefix": "nightly", "manifestFilesS3Key": format!("{folder}/manifest-files.json"),
            "itemCount": items.len(), "outputFormat": "DYNAMODB_JSON", "exportType": "FULL_EXPORT",
        });
        self.put_object(bucket, &format!("{folder}/manifest-files.json"), manifest.into_bytes()).await;
        self.put_object(bucket, &format!("{folder}/manifest-summary.json"), summary.to_string().into_bytes()).await;
        format!("s3://{bucket}/{folder}")
    }

    pub async fn put_object(&self, bucket: &str, key: &str, bytes: Vec<u8>) {
        self.s3.put_object().bucket(bucket).key(key).body(bytes.into()).send().await.unwrap();
    }

    pub async fn object(&self, bucket: &str, key: &str) -> Vec<u8> {
        let answer = self.s3.get_object().bucket(bucket).key(key).send().await.unwrap();
        answer.body.collect().await.unwrap().to_vec()
    }

    /// Deletes all below a prefix of the archive's bucket; how many objects that were.
    pub async fn delete_below(&self, prefix: &str) -> usize {
        let bucket = &Settings::default().bucket;
        let mut deleted = 0;
        loop {
            let page = self.s3.list_objects_v2().bucket(bucket).prefix(prefix).send().await.unwrap();
            for object in page.contents() {
                self.s3.delete_object().bucket(bucket).key(object.key().unwrap()).send().await.unwrap();
            }
            deleted += page.contents().len();
            if page.contents().is_empty() {
                return deleted;
            }
        }
    }
}

/// Puts one item.
pub async fn put(dynamo: &Client, id: &str, scan: &Scan) {
    let put = dynamo.put_item().table_name("scans").item("scan_id", AttributeValue::S(id.to_owned()));
    put.item("project_id", AttributeValue::S(scan.project.clone()))
        .item("bytes", AttributeValue::N(scan.bytes.to_string()))
        .item("scanned_at", AttributeValue::S(naive::rfc3339(scan.at)))
        .send()
        .await
        .unwrap();
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

fn md5(bytes: &[u8]) -> Vec<u8> {
    use md5::Digest;
    md5::Md5::digest(bytes).to_vec()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
