//! Every command of `recount` through its binary: exit codes, reports for programs and for people, filters, and what a
//! project's name can do to a terminal (nothing).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use recount_local::client;
use serde_json::{Value, json};

use crate::support::naive;
use crate::support::process::{self, Serve, binary, free_port, run, until};
use crate::support::world::definition;

/// Colours, a line end, a tag, a character that turns the direction of writing round, a quote.
const HOSTILE: &str = "evil \u{1b}[31m\n<script>alert(1)</script>\u{202e}\"";
const SHOWN: &str = "evil \\u{1b}[31m\\n<script>alert(1)</script>\\u{202e}\"";
/// In Berlin: November 2026, December 2025.
const NOVEMBER: i64 = 1_795_000_000;
const DECEMBER: i64 = 1_766_000_000;

struct Shell {
    serve: Serve,
    data: PathBuf,
    _dir: tempfile::TempDir,
}

impl Shell {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ours.toml");
        fs::write(&path, format!("{}[quota]\ndefault = 10\n", definition(""))).unwrap();
        let data = dir.path().join("data");
        Self { serve: Serve::start(&data, free_port(), Some(&path)), data, _dir: dir }
    }

    fn run(&self, code: i32, arguments: &[&str]) -> String {
        let output = run("recount", &self.serve.endpoint(), &self.data, arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "recount {arguments:?}: {out}\n{err}");
        assert_eq!(err, "", "recount {arguments:?}");
        out
    }

    /// A report for programs: the whole of standard output is one document.
    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let arguments: Vec<_> = arguments.iter().copied().chain(["--format", "json"]).collect();
        serde_json::from_str(&self.run(code, &arguments)).unwrap()
    }

    /// A report for people: nothing in it controls a terminal.
    fn table(&self, code: i32, arguments: &[&str]) -> String {
        let table = self.run(code, arguments);
        assert!(table.chars().all(|c| c == '\n' || (!c.is_control() && c != '\u{202e}')), "{table:?}");
        table
    }

    async fn dynamo(&self) -> Client {
        Client::new(&client::sdk_config(&self.serve.endpoint()).await)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().map(String::as_str).collect()
}

fn named(names: &str) -> BTreeSet<&str> {
    names.split(' ').collect()
}

async fn put(dynamo: &Client, id: &str, project: &str, at: i64, bytes: i64) {
    let item = dynamo.put_item().table_name("scans").item("scan_id", AttributeValue::S(id.to_owned()));
    item.item("project_id", AttributeValue::S(project.to_owned()))
        .item("bytes", AttributeValue::N(bytes.to_string()))
        .item("scanned_at", AttributeValue::S(naive::rfc3339(at)))
        .send()
        .await
        .unwrap();
}

/// Every item of the totals and of their ledger.
async fn stored(dynamo: &Client) -> Vec<BTreeMap<String, AttributeValue>> {
    let mut all = Vec::new();
    for table in ["recount-totals", "recount-ledger"] {
        let items = dynamo.scan().table_name(table).consistent_read(true).into_paginator().items().send();
        let items: Vec<_> = items.try_collect().await.unwrap();
        all.extend(items.into_iter().map(|item| item.into_iter().collect::<BTreeMap<_, _>>()));
    }
    all.sort_by_key(|item| format!("{:?}{:?}", item["pk"], item["sk"]));
    all
}

async fn add(dynamo: &Client, group: &str, attribute: &str, more: i64) {
    let update = dynamo.update_item().table_name("recount-totals").key("pk", AttributeValue::S(group.to_owned()));
    update
        .key("sk", AttributeValue::S("2026-11#0".to_owned()))
        .update_expression("ADD #a :more")
        .expression_attribute_names("#a", attribute)
        .expression_attribute_values(":more", AttributeValue::N(more.to_string()))
        .send()
        .await
        .unwrap();
}

/// The lines of a list of findings or totals that say what interests here.
fn lines(list: &Value, names: &[&str]) -> Value {
    list.as_array()
        .unwrap()
        .iter()
        .map(|line| names.iter().map(|name| line[*name].clone()).collect::<Value>())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_on_a_pipeline_without_any_event() {
    let shell = Shell::start();
    assert_eq!(shell.json(0, &["usage"]), json!({"months": [], "years": []}));
    let archived = shell.json(0, &["archive"]);
    assert_eq!((&archived["rows"], &archived["files"], &archived["reached_tip"]), (&json!(0), &json!(0), &json!(true)));
    let recomputed = shell.json(0, &["recompute"]);
    assert_eq!((&recomputed["months"], &recomputed["rows"]), (&json!([]), &json!(0)));
    let reconciled = shell.json(0, &["reconcile"]);
    let coverage = json!({"events": 0, "verified": 0});
    assert_eq!(
        reconciled,
        json!({"verdict": "clean", "cells": 0, "events": 0, "quarantined": 0, "findings": [], "coverage": coverage})
    );
    for arguments in [["repair", "--format"].as_slice(), &["repair", "--confirm", "--format"]] {
        let report = shell.json(0, &arguments[..arguments.len() - 1]);
        assert_eq!((&report["plans"], &report["applied"]), (&json!([]), &json!([])));
    }
    let explained = shell.json(0, &["explain", "acme", "2026-11"]);
    assert_eq!((&explained["events"], &explained["number"]), (&json!([]), &json!({"events": 0, "sums": ["0"]})));
    assert_eq!(shell.json(0, &["files"]), json!({"files": []}));
    for command in ["usage", "archive", "recompute", "reconcile", "repair"] {
        assert_ne!(shell.table(0, &[command]), "", "{command}");
    }
    shell.table(0, &["explain", "acme", "2026-11"]);
    assert_eq!(shell.table(0, &["files"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_says_what_is_there_and_what_is_wrong() {
    let shell = Shell::start();
    let dynamo = shell.dynamo().await;
    for i in 0..12 {
        put(&dynamo, &format!("a{i}"), "acme", NOVEMBER + i, i).await;
    }
    for i in 0..5 {
        put(&dynamo, &format!("h{i}"), HOSTILE, NOVEMBER, 100).await;
    }
    for i in 0..2 {
        put(&dynamo, &format!("o{i}"), HOSTILE, DECEMBER, 7).await;
    }
    let events =
        |report: &Value| report["months"].as_array().unwrap().iter().map(|m| m["events"].as_i64().unwrap()).sum();
    until("all is counted", async || {
        let n: i64 = events(&shell.json(0, &["usage"]));
        n >= 19
    })
    .await;

    // Usage: its shape, and its filters.
    let usage = shell.json(0, &["usage"]);
    let sums = |n: i64| json!({"bytes": n.to_string()});
    let expected = json!({
        "months": [
            {"group": "acme", "month": "2026-11", "events": 12, "sums": sums(66), "quota": 10},
            {"group": HOSTILE, "month": "2025-12", "events": 2, "sums": sums(14), "quota": 10},
            {"group": HOSTILE, "month": "2026-11", "events": 5, "sums": sums(500), "quota": 10},
        ],
        "years": [
            {"group": "acme", "year": "2026", "events": 12, "sums": sums(66)},
            {"group": HOSTILE, "year": "2025", "events": 2, "sums": sums(14)},
            {"group": HOSTILE, "year": "2026", "events": 5, "sums": sums(500)},
        ],
    });
    assert_eq!(usage, expected);
    let of_group = shell.json(0, &["usage", HOSTILE]);
    assert_eq!(lines(&of_group["months"], &["month", "events"]), json!([["2025-12", 2], ["2026-11", 5]]));
    let of_year = shell.json(0, &["usage", HOSTILE, "--year", "2025"]);
    assert_eq!(of_year, json!({"months": [expected["months"][1]], "years": [expected["years"][1]]}));
    assert_eq!(shell.json(0, &["usage", "nobody"]), json!({"months": [], "years": []}));
    let table = shell.table(0, &["usage"]);
    assert!(table.contains(SHOWN) && table.contains("acme") && table.contains("120"), "{table}");

    // The archive, and what is made from it.
    let archived = shell.json(0, &["archive"]);
    let members = "commits renewals races plans_dropped records rows files bytes months duplicates conflicts quarantined \
                   lost tidied reached_tip log_entries shards";
    assert_eq!(keys(&archived), named(members));
    for shard in archived["shards"].as_object().unwrap().values() {
        assert_eq!(keys(shard), named("to closed caught_up_ms"));
    }
    shell.table(0, &["archive"]);
    let recomputed = shell.json(0, &["recompute"]);
    let members = "months years entries files rows repeated repeated_events same_change_pairs written";
    assert_eq!(keys(&recomputed), named(members));
    assert_eq!((&recomputed["months"], &recomputed["years"]), (&expected["months"], &expected["years"]));
    assert_eq!(recomputed["written"], json!(["totals/monthly/totals.parquet", "totals/yearly/totals.parquet"]));
    assert!(shell.table(0, &["recompute"]).contains(SHOWN));
    let files = shell.json(0, &["files"]);
    let listed = shell.table(0, &["files"]);
    assert_eq!(
        listed.lines().collect::<Vec<_>>(),
        files["files"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect::<Vec<_>>()
    );
    let of_month = shell.table(0, &["files", "--month", "2025-12"]);
    assert!(!of_month.is_empty() && of_month.lines().all(|name| name.contains("/month=2025-12/")), "{of_month}");
    for name in listed.lines() {
        let key = name.strip_prefix("s3://").unwrap();
        assert!(shell.data.join("s3").join(key).is_file(), "{name}");
    }

    // Explain.
    let explained = shell.json(0, &["explain", HOSTILE, "2026-11"]);
    assert_eq!(keys(&explained), named("group month events number archived counted unarchived void"));
    assert_eq!((&explained["group"], &explained["month"]), (&json!(HOSTILE), &json!("2026-11")));
    assert_eq!(
        (&explained["archived"], &explained["counted"], &explained["unarchived"]),
        (&json!(5), &json!(5), &json!(0))
    );
    assert_eq!(explained["number"], json!({"events": 5, "sums": ["500"]}));
    assert_eq!(explained["events"].as_array().unwrap().len(), 5);
    for event in explained["events"].as_array().unwrap() {
        assert_eq!(
            keys(event),
            named("event_id event_name occurred_at created_at shard_id sequence_number counted why adds")
        );
        assert_eq!((&event["counted"], &event["why"]), (&json!(true), &json!("counted")));
        assert_eq!(event["occurred_at"], json!(naive::rfc3339(NOVEMBER)));
    }
    assert!(shell.table(0, &["explain", HOSTILE, "2026-11"]).contains(SHOWN));
    let limited = shell.table(0, &["explain", "acme", "2026-11", "--limit", "3"]);
    assert!(limited.contains("… and 9 more events"), "{limited}");

    // Clean, then damaged by hand.
    let reconciled = shell.json(0, &["reconcile"]);
    let coverage = json!({"events": 19, "verified": 19});
    assert_eq!(
        reconciled,
        json!({"verdict": "clean", "cells": 3, "events": 19, "quarantined": 0, "findings": [], "coverage": coverage})
    );
    assert!(shell.table(0, &["repair"]).contains("nothing that a plan could repair"));
    let right = stored(&dynamo).await;
    add(&dynamo, "acme", "events", 7).await;
    add(&dynamo, HOSTILE, "sum_bytes", -1).await;
    let wrong = stored(&dynamo).await;
    let reconciled = shell.json(1, &["reconcile"]);
    assert_eq!((&reconciled["verdict"], &reconciled["cells"]), (&json!("findings"), &json!(3)));
    let seen = lines(&reconciled["findings"], &["kind", "group", "month", "lane", "expected", "actual"]);
    let acme = json!(["damaged", "acme", "2026-11", 0, 12, 19]);
    assert_eq!(seen, json!([acme, ["damaged", HOSTILE, "2026-11", 0, 5, 5]]));
    for finding in reconciled["findings"].as_array().unwrap() {
        let members = "kind group month lane expected actual expected_sums actual_sums count event_ids events detail";
        assert_eq!(keys(finding), named(members));
    }
    let sums = lines(&reconciled["findings"], &["expected_sums", "actual_sums"]);
    assert_eq!(sums[1], json!([{"bytes": "500"}, {"bytes": "499"}]));
    let table = shell.table(1, &["reconcile"]);
    assert!(table.contains(SHOWN) && table.contains("2 findings in 2 cells"), "{table}");
    let of_group = shell.json(1, &["reconcile", "--group", "acme"]);
    assert_eq!(lines(&of_group["findings"], &["group"]), json!([["acme"]]));
    assert_eq!(shell.json(0, &["reconcile", "--month", "2025-12"])["cells"], json!(1));
    // What is misspelt must not pass for clean.
    for misspelt in [["--group", "Acme"], ["--month", "2019-12"]] {
        let nothing = shell.json(2, &["reconcile", misspelt[0], misspelt[1]]);
        assert_eq!((&nothing["verdict"], &nothing["cells"]), (&json!("undecided"), &json!(0)), "{nothing}");
        assert!(nothing["undecided_because"].as_str().unwrap().contains(misspelt[1]), "{nothing}");
    }

    // A plan changes nothing; applied it puts right what it says, and a second time nothing.
    let planned = shell.json(1, &["repair"]);
    assert_eq!(keys(&planned), named("confirmed plans applied reconciled"));
    assert_eq!((&planned["confirmed"], &planned["applied"]), (&json!(false), &json!([])));
    let plan = &planned["plans"][0];
    assert_eq!(keys(plan), named("hash object format definition cells"));
    assert_eq!(plan["cells"].as_array().unwrap().len(), 2);
    for cell in plan["cells"].as_array().unwrap() {
        assert_eq!(keys(cell), named("cell seen add missing void settled"));
    }
    let (hash, object) = (plan["hash"].as_str().unwrap(), plan["object"].as_str().unwrap());
    let table = shell.table(1, &["repair"]);
    assert!(table.contains(SHOWN) && table.contains(hash) && table.contains("nothing was changed"), "{table}");
    assert!(shell.table(1, &["repair", "--plan", hash]).contains(SHOWN));
    let kept = shell.data.join("s3/recount-archive").join(object);
    let file = shell.data.join("plan.json");
    fs::copy(kept, &file).unwrap();
    assert!(shell.table(1, &["repair", "--plan", "plan.json"]).contains(hash));
    assert_eq!(stored(&dynamo).await, wrong, "invariant 9: without --confirm nothing is changed");

    let repaired = shell.json(0, &["repair", "--plan", hash, "--confirm"]);
    assert_eq!((&repaired["confirmed"], &repaired["reconciled"]["verdict"]), (&json!(true), &json!("clean")));
    assert_eq!(lines(&repaired["applied"], &["number"]), json!([["done"], ["done"]]));
    for cell in repaired["applied"].as_array().unwrap() {
        assert_eq!(keys(cell), named("cell number before after counted counted_before too_old void settled"));
    }
    assert_eq!(shell.json(0, &["usage"]), expected);
    let after = stored(&dynamo).await;
    let without_mark = |items: &[BTreeMap<String, AttributeValue>]| {
        items.iter().cloned().map(|mut item| (item.remove("repair"), item).1).collect::<Vec<_>>()
    };
    assert_eq!(without_mark(&after), right, "invariant 9: only what the plan says is changed");
    let again = shell.table(0, &["repair", "--plan", hash, "--confirm"]);
    assert!(again.contains("done before: 2"), "{again}");
    assert_eq!(shell.json(0, &["repair", "--confirm"])["plans"], json!([]));
    assert_eq!(stored(&dynamo).await, after, "invariant 9: a second time nothing is changed");

    // With another definition nothing is compared.
    let other = shell.data.join("other.toml");
    fs::write(&other, definition("").replace("Europe/Berlin", "Asia/Singapore")).unwrap();
    for command in [["usage"].as_slice(), &["reconcile"], &["repair", "--confirm"], &["explain", "acme", "2026-11"]] {
        let arguments: Vec<_> = command.iter().copied().chain(["--definition", "other.toml"]).collect();
        let output = run("recount", &shell.serve.endpoint(), &shell.data, &arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        assert!(text(&output.stderr).contains("holds the totals of definition"), "{}", text(&output.stderr));
    }
    for (contents, what) in [("not json", "plan.json"), ("{\"format\":99,\"definition\":\"\",\"cells\":[]}", "99")] {
        fs::write(&file, contents).unwrap();
        let output =
            run("recount", &shell.serve.endpoint(), &shell.data, &["repair", "--plan", "plan.json", "--confirm"]);
        assert_eq!(output.status.code(), Some(3), "{contents}");
        assert!(text(&output.stderr).contains(what), "{}", text(&output.stderr));
    }
    assert_eq!(stored(&dynamo).await, after);

    // On a terminal, without colour when that is asked for.
    let seen = process::python("terminal.py", &on_a_terminal(&shell, &["usage"]));
    let sent = seen["sent"].as_str().unwrap();
    assert_eq!(seen["code"], json!(0), "{sent}");
    assert!(sent.contains(SHOWN) && !sent.contains("\u{1b}[3") && !sent.contains("\u{202e}"), "{sent:?}");
    let seen = process::python("terminal.py", &on_a_terminal(&shell, &["explain", "acme"]));
    assert_eq!(seen["code"], json!(3));
    assert!(!seen["sent"].as_str().unwrap().contains('\u{1b}'), "{seen}");

    let recorded = run("producer", &shell.serve.endpoint(), &shell.data, &["record", "--project", HOSTILE]);
    assert_eq!(recorded.status.code(), Some(0));
    assert!(text(&recorded.stdout).contains(SHOWN), "{}", text(&recorded.stdout));
}

/// `env` with what `recount` needs, and the command.
fn on_a_terminal<'a>(shell: &Shell, arguments: &[&'a str]) -> Vec<&'a str> {
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let mut line = vec![
        "/usr/bin/env",
        "NO_COLOR=1",
        "AWS_REGION=us-east-1",
        "AWS_ACCESS_KEY_ID=any",
        "AWS_SECRET_ACCESS_KEY=thing",
        leak(format!("AWS_ENDPOINT_URL={}", shell.serve.endpoint())),
        leak(format!("RECOUNT_DEFINITION={}", shell.data.join("recount.toml").display())),
        leak(binary("recount").display().to_string()),
    ];
    line.extend(arguments);
    line
}

fn in_dir(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    // Nothing listens on port 1.
    let output = run("recount", "http://127.0.0.1:1", dir, arguments);
    (output.status.code(), text(&output.stderr))
}

#[test]
fn without_an_endpoint_nothing_is_decided() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("recount.toml"), definition("")).unwrap();
    let commands: [&[&str]; 8] = [
        &["usage"],
        &["archive"],
        &["recompute"],
        &["reconcile"],
        &["repair"],
        &["repair", "--confirm"],
        &["explain", "acme", "2026-11"],
        &["files"],
    ];
    std::thread::scope(|scope| {
        for arguments in commands {
            let dir = dir.path();
            scope.spawn(move || {
                let (code, said) = in_dir(dir, arguments);
                assert_eq!(code, Some(2), "{arguments:?}: {said}");
                assert!(
                    said.starts_with("error: ")
                        && said.contains("Connection refused")
                        && !said.contains("ConnectorError"),
                    "{arguments:?}: {said}"
                );
            });
        }
        for arguments in ["record --project acme", "scan . --project-from top-dir --occurred-at now", "load --events 5"]
        {
            let dir = dir.path();
            scope.spawn(move || {
                let output = run("producer", "http://127.0.0.1:1", dir, &arguments.split(' ').collect::<Vec<_>>());
                assert_eq!(output.status.code(), Some(2), "{arguments}: {}", text(&output.stderr));
            });
        }
    });
}

#[test]
fn what_was_asked_wrongly_is_bad_usage() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(in_dir(dir.path(), &["usage"]).0, Some(3), "there is no definition");
    assert!(in_dir(dir.path(), &["usage"]).1.contains("recount.toml could not be read"));
    fs::write(dir.path().join("recount.toml"), definition("")).unwrap();
    for line in [
        "",
        "mend",
        "usage --year 26",
        "usage --format xml",
        "explain acme",
        "explain acme 2026-13",
        "reconcile --month november",
        "repair --plan nowhere.json",
        "files --month 2026",
    ] {
        let (code, said) = in_dir(dir.path(), &line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(code, Some(3), "{line}: {said}");
        assert!(!said.is_empty());
    }
    fs::write(dir.path().join("bad.toml"), definition("lane = 4")).unwrap();
    let (code, said) = in_dir(dir.path(), &["reconcile", "--definition", "bad.toml"]);
    assert_eq!(code, Some(3));
    assert!(said.contains("bad.toml:9: ") && said.contains("lane"), "{said}");
}

#[test]
fn help_has_examples() {
    let help = |name: &str, arguments: &[&str]| -> String {
        let Output { status, stdout, .. } = Command::new(binary(name)).args(arguments).arg("--help").output().unwrap();
        assert_eq!(status.code(), Some(0), "{name} {arguments:?}");
        text(&stdout)
    };
    for (name, commands) in [
        ("recount", "usage archive recompute reconcile repair explain files"),
        ("producer", "record scan load"),
        ("recount-local", "serve demo"),
    ] {
        let whole = help(name, &[]);
        assert!(whole.contains("Example"), "{name}: {whole}");
        for command in commands.split(' ') {
            assert!(whole.contains(command), "{name}: {whole}");
            help(name, &[command]);
        }
    }
    for command in ["usage", "reconcile", "repair", "explain"] {
        assert!(help("recount", &[command]).contains("Example"), "{command}");
    }
    for (name, arguments) in [("recount-local", ["serve"]), ("recount-local", ["demo"])] {
        let text = help(name, &arguments);
        assert!(text.contains("Examples:") && text.contains("Exit codes"), "{text}");
    }
}

/// What local mode does not have, such as event source mappings, is said to be not checked, and nothing that it has is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn doctor_looks_at_what_is_there_and_says_what_is_not() {
    let shell = Shell::start();
    let report = shell.json(0, &["doctor"]);
    assert_eq!(report["verdict"], "fine");
    let of = |outcome: &str| -> BTreeSet<String> {
        let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["outcome"] == outcome);
        checks.map(|check| check["what"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((of("wrong"), of("undecided")), (BTreeSet::new(), BTreeSet::new()), "{report}");
    for what in [
        "source table: key",
        "stream: retention",
        "ledger table: expiry",
        "bucket",
        "definition: totals table",
        "clock",
    ] {
        assert!(of("fine").contains(what), "{what}: {report}");
    }
    for what in ["capture", "consumer mapping", "partitions", "definition: consumer"] {
        assert!(of("not_checked").contains(what), "{what}: {report}");
    }

    let dynamo = shell.dynamo().await;
    dynamo.delete_table().table_name("recount-progress").send().await.unwrap();
    let table = shell.table(1, &["doctor"]);
    assert!(table.contains("there is no table recount-progress"), "{table}");
    let unknown = run("recount", &shell.serve.endpoint(), &shell.data, &["--stack", "elsewhere", "doctor"]);
    assert!(matches!(unknown.status.code(), Some(2 | 3)), "{}", text(&unknown.stderr));
}
