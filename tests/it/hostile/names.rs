//! Hostile names through producer, pipeline and every command, each a process of its own: no report for people and no log
//! controls a terminal, a report for programs has every name as it is, and no name of an object leaves its prefix.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kinesis::primitives::Blob;
use recount_local::client;
use serde_json::{Value, json};

use crate::support::naive::rfc3339;
use crate::support::process::{Serve, binary, free_port, until};
use crate::support::world::definition;

/// In November 2026.
const AT: i64 = 1_795_000_000;

/// Names of groups, items, files and runs.
fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "\u{1b}[2J\u{1b}[31mred",
        "\u{1b}]8;;http://evil.example\u{1b}\\click\u{1b}]8;;\u{1b}\\",
        "\u{1b}]0;title\u{7}",
        "\u{9b}31m C1 \u{90}q\u{9c}",
        "back\u{8}\u{8}\u{8}space\rreturn\tTAB",
        "two\nlines\u{b}\u{c}\u{85}\u{2028}\u{2029}",
        "nul\0byte\u{7f}",
        "\u{202e}gpj.exe\u{202c} \u{2066}isolate\u{2069} \u{61c}",
        "zero\u{200b}\u{200d}\u{2060}\u{feff}width \u{ad}soft",
        "tag\u{e0041}\u{e007f} ",
        "<script>alert(1)</script><img src=x onerror=alert(1)>",
        "=cmd|' /C calc'!A0",
        "+1+1",
        "@SUM(1)",
        "-2+3",
        "\"quoted\", 'too';\\",
        "../../../../etc/passwd",
        "..",
        "/",
        "a/../b",
        "%2e%2e%2f%00",
        "recount#definition",
        "too-old#2026-11#0#x",
        "2026-11#0",
        "{}{:?}%s%n$(id)`id`",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("\u{1b}[1m\u{202e}".repeat(250)); // 1,750 bytes of at most 1,900
    names
}

/// An event ID with a name in it; at most 1,024 bytes are one.
fn event_id(i: usize, name: &str) -> String {
    format!("{i} {name}").chars().take(300).collect()
}

/// What must not reach a terminal.
fn controls(c: char) -> bool {
    c.is_control() && c != '\n'
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

fn assert_plain(bytes: &[u8], what: &str) {
    let text = std::str::from_utf8(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    if let Some((at, c)) = text.char_indices().find(|(_, c)| controls(*c)) {
        let around: String = text.chars().skip(at.saturating_sub(80)).take(160).collect();
        panic!("{what}: {c:?} in {around:?}");
    }
}

struct Shell {
    serve: Serve,
    data: PathBuf,
    dir: tempfile::TempDir,
}

impl Shell {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let toml = dir.path().join("ours.toml");
        fs::write(&toml, definition("")).unwrap();
        let data = dir.path().join("data");
        let log = fs::File::create(dir.path().join("log")).unwrap();
        Self { serve: Serve::start_logging(&data, free_port(), Some(&toml), &["--archive-every", "1"], log), data, dir }
    }

    /// Runs a binary with everything logged. What it says, whatever it is, controls no terminal.
    fn run(&self, name: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
        let output = Command::new(binary(name))
            .args(arguments)
            .current_dir(&self.data)
            .env("AWS_ENDPOINT_URL", self.serve.endpoint())
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "any")
            .env("AWS_SECRET_ACCESS_KEY", "thing")
            .env("RUST_LOG", "info,recount_producer=debug,recount_compactor=debug,recount_consumer=debug")
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        let what = format!("{name} {arguments:?} {environment:?}");
        assert_plain(&output.stderr, &format!("standard error of {what}"));
        if !arguments.contains(&"json") {
            assert_plain(&output.stdout, &format!("standard output of {what}"));
        }
        output
    }

    fn done(&self, name: &str, code: i32, arguments: &[&str]) -> String {
        let output = self.run(name, &[], arguments);
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{name} {arguments:?}: {out}\n{err}");
        out
    }

    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let arguments: Vec<_> = arguments.iter().copied().chain(["--format", "json"]).collect();
        serde_json::from_str(&self.done("recount", code, &arguments)).unwrap()
    }

    fn counted(&self) -> BTreeMap<String, i64> {
        let usage = self.json(0, &["usage"]);
        let months = usage["months"].as_array().unwrap().iter();
        let mut counted = BTreeMap::new();
        for line in months {
            *counted.entry(line["group"].as_str().unwrap().to_owned()).or_default() += line["events"].as_i64().unwrap();
        }
        counted
    }
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path)
            } else {
                found.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned())
            }
        }
    }
    found
}

/// A record of an insertion as it stands in the stream, with these texts in it.
fn record(event_id: &str, group: &str, now_us: i64) -> Vec<u8> {
    let image = json!({"scan_id": {"S": event_id}, "project_id": {"S": group}, "bytes": {"N": "1"}, "scanned_at": {"S": rfc3339(AT)}});
    let record = json!({
        "awsRegion": "us-east-1", "eventID": event_id, "eventName": "INSERT", "userIdentity": null,
        "recordFormat": "application/json", "tableName": "scans", "eventSource": "aws:dynamodb",
        "dynamodb": {
            "ApproximateCreationDateTime": now_us, "ApproximateCreationDateTimePrecision": "MICROSECOND",
            "Keys": {"scan_id": {"S": event_id}}, "NewImage": image, "SizeBytes": 100,
        },
    });
    serde_json::to_vec(&record).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_go_through_everything_and_control_nothing() {
    let shell = Shell::start();
    let names = names();
    let sdk = client::sdk_config(&shell.serve.endpoint()).await;
    let dynamo = aws_sdk_dynamodb::Client::new(&sdk);
    let kinesis = aws_sdk_kinesis::Client::new(&sdk);
    let mut due: BTreeMap<String, i64> = BTreeMap::new();

    // Into the table, as an application would; and as change records whose event IDs are hostile, too.
    let now = jiff::Timestamp::now().as_microsecond();
    for (i, name) in names.iter().enumerate() {
        let item = dynamo.put_item().table_name("scans").item("scan_id", AttributeValue::S(format!("{i}{name}")));
        let item =
            item.item("project_id", AttributeValue::S(name.clone())).item("bytes", AttributeValue::N("1".into()));
        item.item("scanned_at", AttributeValue::S(rfc3339(AT))).send().await.unwrap();
        let key: String = format!("{i}{name}").chars().take(60).collect();
        let put = kinesis.put_record().stream_name("recount-changes").partition_key(key);
        put.data(Blob::new(record(&event_id(i, name), name, now))).send().await.unwrap();
        // What cannot be judged goes to quarantine, under its place in the stream.
        let bad = kinesis.put_record().stream_name("recount-changes").partition_key("../../x\u{1b}[2J");
        bad.data(Blob::new(format!("{name} is no record"))).send().await.unwrap();
        *due.entry(name.clone()).or_default() += 2;
    }
    // By the producer. An argument cannot hold a NUL.
    for name in names.iter().filter(|name| !name.contains('\0')) {
        for format in ["table", "json"] {
            let project = format!("--project={name}");
            let (file, run) = (format!("--file-name={name}"), format!("--run={name}{format}"));
            let at = rfc3339(AT);
            let line = ["record", &project, &file, &run, "--at", &at, "--format", format];
            let output = shell.run("producer", &[], &line);
            match output.status.code() {
                Some(0) => *due.entry(name.clone()).or_default() += 1,
                code => assert_eq!(code, Some(3), "refused as bad usage: {name:?} {output:?}"),
            }
        }
    }
    // Folders and files on disk; a slash and a NUL cannot be in their names, and names are short there.
    let tree = shell.dir.path().join("tree");
    for name in names.iter().filter(|name| !name.contains(['/', '\0']) && *name != ".." && name.len() < 200) {
        fs::create_dir_all(tree.join(name)).unwrap();
        fs::write(tree.join(name).join(format!("file {name}")), "x").unwrap();
        *due.entry(name.clone()).or_default() += 1;
    }
    let scan = ["scan", tree.to_str().unwrap(), "--project-from", "top-dir", "--occurred-at", "now"];
    shell.done("producer", 0, &scan);
    let all: i64 = due.values().sum();
    until("everything is counted", async || shell.counted().values().sum::<i64>() >= all).await;
    assert_eq!(shell.counted(), due);

    for command in ["usage", "archive", "recompute", "reconcile", "repair", "files"] {
        shell.done("recount", 0, &[command]);
    }
    let recomputed = shell.json(0, &["recompute"]);
    let of = |report: &Value| -> BTreeSet<String> {
        report["months"].as_array().unwrap().iter().map(|line| line["group"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of(&recomputed), due.keys().cloned().collect());
    for (i, name) in names.iter().enumerate().filter(|(_, name)| !name.contains('\0')) {
        shell.done("recount", 0, &["usage", "--", name]);
        shell.done("recount", 0, &["explain", "--", name, "2026-11"]);
        let line = shell.done("recount", 0, &["explain", "--format", "json", "--", name, "2026-11"]);
        let explained: Value = serde_json::from_str(&line).unwrap();
        let ids: Vec<&str> =
            explained["events"].as_array().unwrap().iter().map(|e| e["event_id"].as_str().unwrap()).collect();
        assert_eq!(explained["group"], name.as_str());
        assert!(ids.contains(&event_id(i, name).as_str()), "{name:?}: {ids:?}");
    }

    // Damage, so that names stand in findings and plans.
    for name in &names {
        let update = dynamo.update_item().table_name("recount-totals").key("pk", AttributeValue::S(name.clone()));
        let update = update.key("sk", AttributeValue::S("2026-11#0".into())).update_expression("ADD events :one");
        update.expression_attribute_values(":one", AttributeValue::N("1".into())).send().await.unwrap();
    }
    shell.done("recount", 1, &["reconcile"]);
    let found = shell.json(1, &["reconcile"]);
    let groups: BTreeSet<&str> =
        found["findings"].as_array().unwrap().iter().map(|finding| finding["group"].as_str().unwrap()).collect();
    assert_eq!(groups, names.iter().map(String::as_str).collect());
    shell.done("recount", 1, &["repair"]);
    shell.done("recount", 0, &["repair", "--confirm"]);
    assert_eq!(shell.counted(), due);
    assert_eq!(shell.json(0, &["reconcile"])["verdict"], "clean");

    // What is asked wrongly, or names things that are not there.
    for name in names.iter().filter(|name| !name.contains('\0')).step_by(2) {
        for arguments in [
            ["explain", "acme", name.as_str()],
            ["usage", "--year", name],
            ["repair", "--plan", name],
            ["usage", "--definition", name],
            ["files", "--format", name],
        ] {
            let code = shell.run("recount", &[], &arguments).status.code();
            assert!(matches!(code, Some(2 | 3)), "{arguments:?}: {code:?}");
        }
        assert_eq!(shell.run("recount-local", &[], &["serve", "--port", name]).status.code(), Some(3));
        assert_eq!(shell.run("producer", &[], &["load", "--time-zone", name]).status.code(), Some(3));
    }
    for name in names.iter().filter(|name| !name.contains('\0')).step_by(5) {
        for variable in [
            "RECOUNT_TOTALS_TABLE",
            "RECOUNT_LEDGER_TABLE",
            "RECOUNT_PROGRESS_TABLE",
            "RECOUNT_STREAM",
            "RECOUNT_BUCKET",
        ] {
            shell.run("recount", &[(variable, name)], &["reconcile"]);
        }
        shell.run("producer", &[("AWS_REGION", name)], &["record", "--project", "x", "--table", name]);
        shell.run("recount", &[("AWS_ENDPOINT_URL", name)], &["usage"]);
    }

    // Objects: each under a name that we give, none outside.
    let bucket = shell.data.join("s3/recount-archive");
    for name in files(&bucket) {
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "/_-=.".contains(c)) && !name.contains("..");
        let known = [
            "_log/",
            "_state/",
            "_staging/",
            "events/month=",
            "quarantine/shardId-",
            "conflicts/shardId-",
            "plans/",
            "totals/",
            "findings/",
        ];
        assert!(plain && known.iter().any(|prefix| name.starts_with(prefix)), "{name:?}");
    }
    let quarantined = files(&bucket.join("quarantine")).len();
    assert_eq!(quarantined, names.len());
    traversal(&shell);
    let mut beside: Vec<_> = fs::read_dir(shell.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    beside.sort();
    assert_eq!(beside, ["data", "log", "ours.toml", "tree"]);

    let Shell { serve, dir, .. } = shell;
    assert!(serve.terminate().success());
    let log = fs::read(dir.path().join("log")).unwrap();
    assert!(!log.is_empty());
    assert_plain(&log, "the log of serve");
}

/// Keys that no client library would send, straight at the door.
fn traversal(shell: &Shell) {
    for path in [
        "/recount-archive/../../../../../../../../etc/passwd",
        "/recount-archive/%2e%2e/%2e%2e/ours.toml",
        "/recount-archive/..%2f..%2fours.toml",
        "/recount-archive/a/%2e%2e/%2e%2e/%2e%2e/ours.toml",
        "/../ours.toml",
        "/%2e%2e/ours.toml",
        "/..%2fours.toml",
        "/recount-archive/%00",
        "/recount-archive//etc/passwd",
        "/recount-archive/%ff%fe",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let mut door = TcpStream::connect(("127.0.0.1", shell.serve.port)).unwrap();
            let body = if method == "PUT" { "pwned" } else { "" };
            let (length, request) =
                (body.len(), format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"));
            door.write_all(format!("{request}content-length: {length}\r\n\r\n{body}").as_bytes()).unwrap();
            let mut answer = Vec::new();
            door.read_to_end(&mut answer).unwrap();
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
            assert!(!answer.contains("[fold]") && !answer.contains("root:"), "{method} {path}: {answer}");
            assert!(status.starts_with('4') || status.starts_with('5'), "{method} {path}: {answer}");
        }
    }
    assert!(fs::read_to_string(shell.dir.path().join("ours.toml")).unwrap().contains("[fold]"));
}
