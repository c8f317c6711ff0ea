//! `recount fsck`, `explain --as-of` and `why` through their binary, on an archive that real traffic made.
//!
//! Invariant 8 for the archive: undamaged it is clean; every kind of defect, planted one at a time, is named, and nothing else is.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use aws_config::SdkConfig;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_s3::primitives::ByteStream;
use recount_compactor::bucket::{Bucket, Objects};
use recount_compactor::log::{Entry, Kind, LogStore, State, names};
use recount_compactor::rows::row::Place;
use recount_compactor::rows::{self, ArchivedRow};
use recount_local::client;
use recount_schemas::host::SystemHost;
use recount_schemas::{Definition, Settings};
use serde_json::{Value, json};

use crate::support::naive::Scan;
use crate::support::process::{Serve, free_port, run};
use crate::support::records::{Change, change, lives};
use crate::support::world::definition;

/// An instant in November 2026.
const AT: i64 = 1_795_000_000;

struct Shell {
    serve: Serve,
    data: PathBuf,
    sdk: SdkConfig,
    definition: Definition,
    _dir: tempfile::TempDir,
}

impl Shell {
    /// A pipeline that archives only when it is told to.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ours.toml");
        fs::write(&path, definition("")).unwrap();
        let data = dir.path().join("data");
        let serve = Serve::start_with(&data, free_port(), Some(&path), &["--archive-every", "86400"]);
        let sdk = client::sdk_config(&serve.endpoint()).await;
        let definition = Definition::parse(&definition(""), "recount.toml").unwrap();
        Self { serve, data, sdk, definition, _dir: dir }
    }

    fn recount(&self, code: i32, arguments: &[&str]) -> Value {
        let arguments: Vec<_> = arguments.iter().copied().chain(["--format", "json"]).collect();
        let output = run("recount", &self.serve.endpoint(), &self.data, &arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "recount {arguments:?}: {out}\n{err}");
        serde_json::from_str(&out).unwrap()
    }

    /// What fsck finds, as (kind, object).
    fn found(&self, arguments: &[&str]) -> Vec<(String, String)> {
        let arguments: Vec<_> = ["fsck"].into_iter().chain(arguments.iter().copied()).collect();
        let arguments: Vec<_> = arguments.into_iter().chain(["--format", "json"]).collect();
        let output = run("recount", &self.serve.endpoint(), &self.data, &arguments);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let code = if findings.is_empty() { 0 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{report}");
        findings.iter().map(|finding| (text(&finding["kind"]), text(&finding["object"]))).collect()
    }

    fn bucket(&self) -> Bucket {
        Bucket::new(client::s3(&self.sdk), Settings::default().bucket.as_str(), SystemHost::shared())
    }

    async fn bytes(&self, key: &str) -> Vec<u8> {
        self.bucket().get(key, 64 << 20).await.unwrap().unwrap().to_vec()
    }

    async fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        let put = client::s3(&self.sdk).put_object().bucket(Settings::default().bucket).key(key);
        put.body(ByteStream::from(bytes.into())).send().await.unwrap();
    }

    async fn delete(&self, key: &str) {
        self.bucket().delete(key).await.unwrap();
    }

    async fn state(&self) -> State {
        LogStore::new(self.bucket(), SystemHost::shared()).read_whole().await.unwrap()
    }

    async fn send(&self, records: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let kinesis = aws_sdk_kinesis::Client::new(&self.sdk);
        for (key, data) in records {
            let put = kinesis.put_record().stream_name(Settings::default().stream).partition_key(key);
            put.data(Blob::new(data)).send().await.unwrap();
        }
    }

    /// Three commits: events of several months, duplicates, a record that nobody can judge, and an event with two contents.
    async fn traffic(&self) -> Vec<Change> {
        let now_us = SystemHost::shared().now_us();
        let mut changes = Vec::new();
        for round in 0..3u64 {
            let mut rng = fastrand::Rng::with_seed(round);
            let mut of_round = lives(&mut rng, 25, now_us, 60);
            for change in &mut of_round {
                let id = format!("{round}-{}", change.event_id);
                change.json = change.json.replace(&change.event_id, &id);
                change.event_id = id;
            }
            let records = |changes: &[Change]| -> Vec<(String, Vec<u8>)> {
                changes.iter().map(|c| (c.partition_key.clone(), c.json.clone().into_bytes())).collect()
            };
            self.send(records(&of_round)).await;
            self.send(records(&of_round[..3])).await;
            if round == 1 {
                let scan = Scan { project: "acme".into(), at: AT, bytes: 1 };
                let variant = Scan { bytes: 2, ..scan.clone() };
                let two = [
                    change("twice", "i", Some(&scan), None, now_us),
                    change("twice", "i", Some(&variant), None, now_us),
                ];
                self.send(records(&two)).await;
                self.send([("p".to_owned(), b"no record".to_vec())]).await;
                changes.push(two[0].clone());
            }
            assert_eq!(self.recount(0, &["archive"])["reached_tip"], true);
            changes.extend(of_round);
        }
        changes
    }
}

fn one(kind: &str, object: &str) -> Vec<(String, String)> {
    vec![(kind.to_owned(), object.to_owned())]
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_8_every_defect_of_the_archive_is_named_and_nothing_else_is() {
    let shell = Shell::start().await;
    assert_eq!(shell.found(&[]), [], "an archive without a commit");
    let changes = shell.traffic().await;
    let clean = shell.recount(0, &["fsck", "--deep"]);
    assert_eq!((&clean["verdict"], &clean["checked"]["rows"]), (&json!("clean"), &json!(changes.len())));
    assert_eq!((&clean["checked"]["quarantined"], &clean["checked"]["conflicts"]), (&json!(1), &json!(1)));

    let state = shell.state().await;
    let files: Vec<_> = state.live().map(|live| live.file.clone()).collect();
    let (file, other) = (&files[0], &files[1]);
    let bytes = shell.bytes(&file.target).await;

    // Objects: gone, changed, cut short, swapped, not yet published.
    shell.delete(&file.target).await;
    assert_eq!(shell.found(&[]), one("missing", &file.target));
    shell.put(&file.source, bytes.clone()).await;
    assert_eq!(shell.found(&[]), one("unpublished", &file.target));
    shell.delete(&file.source).await;
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    shell.put(&file.target, flipped).await;
    assert_eq!(shell.found(&[]), one("digest", &file.target));
    shell.put(&file.target, &bytes[..bytes.len() - 1]).await;
    assert_eq!(shell.found(&[]), one("size", &file.target));
    let of_other = shell.bytes(&other.target).await;
    shell.put(&file.target, of_other.clone()).await;
    shell.put(&other.target, bytes.clone()).await;
    let swapped: BTreeSet<String> = shell.found(&[]).into_iter().map(|(_, object)| object).collect();
    assert_eq!(swapped, [file.target.clone(), other.target.clone()].into());
    shell.put(&file.target, bytes).await;
    shell.put(&other.target, of_other).await;
    assert_eq!(shell.found(&[]), []);

    // Names that no entry gives.
    for name in
        ["events/month=2026-11/000000000000/000000000001-9.parquet", "_staging/odd", "_log/odd", "quarantine/odd"]
    {
        shell.put(name, "x").await;
        assert_eq!(shell.found(&[]), one("foreign", name));
        shell.delete(name).await;
    }

    // What is kept beside the archive.
    for (kind, prefix) in [("quarantine", "quarantine/"), ("conflict", "conflicts/")] {
        let listed = shell.bucket().list_page(prefix, None).await.unwrap().swap_remove(0).key;
        let kept = shell.bytes(&listed).await;
        shell.delete(&listed).await;
        let shard = listed.rsplit_once('/').unwrap().0;
        assert_eq!(shell.found(&[]), one(kind, &format!("{shard}/")));
        shell.put(&listed, "{}").await;
        assert_eq!(shell.found(&["--deep"]), one("aside", &listed));
        shell.put(&listed, kept).await;
    }

    // The log: an entry changed, taken out, replaced by none of ours, the last one cut off.
    let name = names::entry(1);
    let entry = shell.bytes(&name).await;
    let mut changed = Entry::from_bytes(1, &entry).unwrap();
    changed.at_ms += 1;
    shell.put(&name, changed.to_bytes().unwrap()).await;
    assert_eq!(shell.found(&[]), one("log_changed", &name));
    shell.put(&name, "{}").await;
    assert_eq!(shell.found(&[]), one("log_invalid", &name));
    shell.delete(&name).await;
    assert_eq!(shell.found(&[]), one("log_missing", &name));
    shell.put(&name, entry).await;
    let last = state.last.clone().unwrap();
    let (name, targets) = (names::entry(last.n), last.added.iter().map(|file| file.target.clone()));
    let entry = shell.bytes(&name).await;
    shell.delete(&name).await;
    let cut: BTreeSet<_> = shell.found(&[]).into_iter().collect();
    assert_eq!(cut, targets.map(|target| ("foreign".to_owned(), target)).collect());
    shell.put(&name, entry).await;
    assert_eq!(shell.found(&[]), []);

    // A second row of an archived event, by an entry and a file that are right in all else.
    let twin = changes.iter().find(|change| change.event_id == "twice").unwrap();
    let (name, target) = forge(&shell, &state, twin).await;
    assert_eq!(shell.found(&["--deep"]), one("repeated", &target));
    shell.delete(&name).await;
    shell.delete(&target).await;
    assert_eq!(shell.found(&["--deep"]), []);
}

/// An addition with one row of an event that is archived already, at a position that the log knows.
async fn forge(shell: &Shell, state: &State, change: &Change) -> (String, String) {
    let last = state.last.clone().unwrap();
    let range = last.ranges.iter().find(|range| range.records > 0).unwrap();
    let arrived_us = SystemHost::shared().now_us();
    let judged = shell.definition.judge(change.json.as_bytes(), arrived_us).unwrap();
    let place = Place { shard: range.shard.clone(), sequence: range.to.clone().unwrap(), arrived_us };
    let row = ArchivedRow::new(&shell.definition, &judged, judged.change.content_hash().0, &change.json, place);
    let month = row.month;
    let written = rows::write(&shell.definition, month, vec![row]).unwrap().unwrap();
    let n = state.next;
    let target = names::target(month, state.version(month), n, 0);
    let entry = Entry {
        n,
        kind: Kind::Addition,
        previous: state.head,
        origin: Some("redrive".to_owned()),
        base: n,
        stream: None,
        retention_hours: None,
        ranges: Vec::new(),
        added: vec![written.added(names::staged(n, "ab", 0), target.clone())],
        ..last
    };
    shell.put(&target, written.bytes.to_vec()).await;
    shell.put(&names::entry(n), entry.to_bytes().unwrap()).await;
    (names::entry(n), target)
}

#[tokio::test(flavor = "multi_thread")]
async fn fsck_repairs_an_unfinished_commit_and_given_up_uploads_and_nothing_without_being_told() {
    let shell = Shell::start().await;
    shell.traffic().await;
    let last = shell.state().await.last.unwrap();
    for file in &last.added {
        shell.put(&file.source, shell.bytes(&file.target).await).await;
        shell.delete(&file.target).await;
    }
    let unpublished: Vec<_> = last.added.iter().map(|file| ("unpublished".to_owned(), file.target.clone())).collect();
    let found = || shell.found(&["--repair"]);
    assert_eq!(found(), unpublished);
    let plan = shell.recount(1, &["fsck", "--repair"]);
    assert_eq!(plan["repair"].as_array().unwrap().len(), last.added.len());
    assert_eq!(found(), unpublished, "nothing was changed");
    let repaired = shell.recount(0, &["fsck", "--repair", "--confirm"]);
    assert_eq!((&repaired["repair"], &repaired["findings"]), (&plan["repair"], &json!([])));
    assert_eq!(shell.recount(0, &["fsck", "--repair", "--confirm"]).get("repair"), None);
    assert_eq!(shell.bucket().list_page(names::STAGING, None).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_explained_as_the_archive_had_it_and_an_event_tells_its_life() {
    let shell = Shell::start().await;
    let now_us = SystemHost::shared().now_us();
    let scan = |bytes| Scan { project: "acme".into(), at: AT, bytes };
    let mut heads = Vec::new();
    for round in 0..3i64 {
        let made: Vec<Change> = (0..4)
            .map(|i| {
                let id = format!("{round}-{i}");
                change(&id, &id, Some(&scan(10 * round + i)), None, now_us - round * 1_000 - i)
            })
            .collect();
        shell.send(made.iter().map(|c| (c.partition_key.clone(), c.json.clone().into_bytes()))).await;
        shell.recount(0, &["archive"]);
        heads.push(shell.state().await.next - 1);
    }
    let variant = change("0-0", "0-0", Some(&scan(77)), None, now_us);
    let elsewhere = change("x", "x", Some(&Scan { at: AT + 40 * 86_400, ..scan(5) }), None, now_us);
    let update = change("y", "0-1", Some(&scan(6)), Some(&scan(1)), now_us);
    let bad = ("p".to_owned(), br#"{"eventID":"bad"}"#.to_vec());
    let more = [variant, elsewhere, update].map(|c| (c.partition_key.clone(), c.json.into_bytes()));
    shell.send(more.into_iter().chain([bad])).await;
    shell.recount(0, &["archive"]);

    for (round, head) in (1i64..).zip(&heads) {
        let then = shell.recount(0, &["explain", "acme", "2026-11", "--as-of", &head.to_string()]);
        assert_eq!((&then["number"]["events"], &then["counted"]), (&json!(4 * round), &json!(4 * round)), "{then}");
        assert_eq!((&then["as_of"]["entry"], &then["undated"]), (&json!(head), &json!(0)));
        let at = then["as_of"]["at"].as_str().unwrap();
        assert_eq!(shell.recount(0, &["explain", "acme", "2026-11", "--as-of", at]), then);
    }
    // A compaction moves the rows to other files, and changes nothing that was.
    let thens =
        || heads.iter().map(|head| shell.recount(0, &["explain", "acme", "2026-11", "--as-of", &head.to_string()]));
    let before: Vec<Value> = thens().collect();
    assert_eq!(shell.found(&["--deep"]), []);
    shell.recount(0, &["compact", "--grace", "0", "--confirm"]);
    assert!(!shell.state().await.versions.is_empty(), "something was compacted");
    assert_eq!(shell.found(&["--deep"]), []);
    assert_eq!(thens().collect::<Vec<_>>(), before);
    for never in ["999999", "2020-01-01T00:00:00Z"] {
        let output =
            run("recount", &shell.serve.endpoint(), &shell.data, &["explain", "acme", "2026-11", "--as-of", never]);
        assert_eq!(output.status.code(), Some(3), "{never}");
    }

    let whys = |arguments: &[&str]| -> BTreeSet<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let report = shell.recount(0, arguments);
        let others = report["events"].as_array().unwrap().iter().filter(|event| event["counted"] == false);
        others.map(|event| (text(&event["event_id"]), text(&event["why"]))).collect()
    };
    let pair = |id: &str, why: &str| (id.to_owned(), why.to_owned());
    // Progress trails; until the consumer has passed them, events are not yet in the number.
    let settled = |found: BTreeSet<(String, String)>| -> BTreeSet<(String, String)> {
        found.into_iter().filter(|(_, why)| why != "not_yet").collect()
    };
    assert_eq!(settled(whys(&["explain", "acme", "2026-11"])), [pair("y", "adds_nothing")].into());
    let all = [pair("y", "adds_nothing"), pair("x", "other_month"), pair("0-0", "conflict_variant")];
    assert_eq!(settled(whys(&["explain", "acme", "2026-11", "--all"])), all.into());

    crate::support::process::until("all is counted", async || {
        shell.recount(0, &["explain", "acme", "2026-11"])["counted"] == json!(12)
    })
    .await;
    let life = shell.recount(0, &["why", "1-2"]);
    let event = &life["archived"][0];
    assert_eq!(
        (&event["read_by"]["entry"], &event["group"], &event["month"]),
        (&json!(heads[1]), &json!("acme"), &json!("2026-11"))
    );
    assert_eq!((&event["cells"][0]["counted"], &event["cells"][0]["ledger"]), (&json!(true), &json!("recent")));
    let at = event["created_at"].as_str().unwrap();
    let near = shell.recount(0, &["why", "1-2", "--at", at]);
    assert_eq!(near["archived"], life["archived"]);
    assert_eq!(shell.recount(1, &["why", "1-2", "--at", "2020-01-01T00:00:00Z"])["searched"]["files"], json!(0));
    let twice = shell.recount(0, &["why", "0-0"]);
    assert_eq!(
        (twice["archived"].as_array().unwrap().len(), &twice["kept"][0]["reason"]["code"]),
        (1, &json!("conflict"))
    );
    let kept = shell.recount(0, &["why", "bad"]);
    assert_eq!((&kept["archived"], kept["kept"].as_array().unwrap().len()), (&json!([]), 1));
    let update = shell.recount(0, &["why", "y"]);
    assert_eq!(update["archived"][0]["ignored"], json!("not_an_insert"));
    assert_eq!(shell.recount(1, &["why", "nobody"])["kept"], json!([]));
}
