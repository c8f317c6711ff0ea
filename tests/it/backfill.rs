//! `recount backfill`: what was never captured comes in, once, whatever happens meanwhile.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use recount_schemas::items::{PK, SK, cell_sk};
use recount_schemas::quarantine::{self, Quarantined};
use recount_schemas::{QuarantineCode, QuarantineReason, Settings};
use serde_json::Value;

use crate::support::capture::{Capture, NOVEMBER, put};
use crate::support::naive::{self, Scan};
use crate::support::process::{command, until};

fn hash(report: &Value) -> String {
    report["plan"].as_str().unwrap().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The commands of the page, as they stand in its blocks.
fn commands(page: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/runbooks").join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("recount "));
    lines.map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

/// The scenario of `infra/runbooks/capture-was-off.md`, by the very commands that it has.
#[tokio::test(flavor = "multi_thread")]
async fn capture_was_off_for_an_hour() {
    let mut capture = Capture::start().await;
    capture.insert("before", 0..30).await;
    capture.captured().await;
    capture.lose("lost", 0..25).await;
    for n in 0..3 {
        capture.touch(&format!("lost-{n}")).await;
    }
    capture.delete("lost-2").await;
    capture.insert("after", 0..10).await;
    capture.captured().await;
    assert_ne!(capture.totals(), capture.expected());
    assert_eq!(capture.json(0, &["reconcile"])["verdict"], "clean", "nobody but an audit sees it");

    let (mut plan, mut ends) = (String::new(), Vec::new());
    for mut command in commands("capture-was-off.md") {
        for word in &mut command {
            match word.as_str() {
                "HASH" => word.clone_from(&plan),
                "120" => *word = "1".to_owned(),
                // The marks have shown that capture keeps up.
                "900" => *word = "0".to_owned(),
                _ => {}
            }
        }
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let output = capture.run(&[words.as_slice(), &["--format", "json"]].concat());
        let report = crate::support::process::json(&output);
        ends.push((command[0].clone(), output.status.code().unwrap()));
        match ends.len() {
            1 => assert_eq!(report["findings"].as_array().unwrap().len(), 25, "{report}"),
            2 => {
                assert_eq!((number(&report["never_captured"]), number(&report["insert_missing"])), (22, 3), "{report}");
                plan = hash(&report);
            }
            3 => assert_eq!((number(&report["applied"]["added"]), number(&report["applied"]["counted"])), (25, 25)),
            _ => {}
        }
    }
    let expected = [("audit", 1), ("backfill", 1), ("backfill", 0), ("reconcile", 0), ("audit", 0)];
    assert_eq!(ends, expected.map(|(command, code)| (command.to_owned(), code)));
    capture.agrees();

    // Again, and another one: nothing comes in twice.
    let again = capture.json(0, &["backfill", "--plan", &plan, "--confirm", "--settle", "0"]);
    assert_eq!(number(&again["applied"]["counted"]), 25, "what came of it then: {again}");
    let another = capture.json(0, &["backfill", "--confirm", "--settle", "0"]);
    assert_eq!(number(&another["items"]), 0, "{another}");
    capture.agrees();
    // The archive is sound with the new rows.
    assert_eq!(capture.json(0, &["fsck"])["verdict"], "clean");
    let recomputed = capture.json(0, &["recompute"]);
    assert_eq!(crate::support::process::months(&recomputed), capture.expected());
}

/// What was backfilled into one home after another was made is not in the other, and no reconcile of it sees that.
#[tokio::test(flavor = "multi_thread")]
async fn readers_do_not_leave_a_backfill_behind_unasked() {
    let mut capture = Capture::start().await;
    capture.insert("before", 0..10).await;
    capture.captured().await;
    capture.lose("lost", 0..5).await;
    let rebuild = |from: &str, to: &str| drop(capture.json(0, &["rebuild", "--set", from, "--into", to, "--confirm"]));
    let backfill = |home: &str| {
        let plan = hash(&capture.json(1, &["backfill", "--set", home]));
        let applied = capture.json(0, &["backfill", "--set", home, "--plan", &plan, "--confirm", "--settle", "0"]);
        assert_eq!(number(&applied["applied"]["counted"]), 5, "{applied}");
    };
    let switch = |code: i32, words: &[&str]| {
        let report = capture.json(code, &[&["switch", "--to"], words].concat());
        let missed = report["missed"]["additions"].as_array().cloned().unwrap_or_default();
        let missed = missed.iter().map(|one| (one["home"].as_str().unwrap().to_owned(), number(&one["events"])));
        (report["switched"] == true, missed.collect::<Vec<_>>(), report["missed"]["gone"].clone())
    };
    let of = |home: &str| vec![(home.to_owned(), 5)];
    let none = serde_json::json!([]);

    rebuild("base", "early");
    assert_eq!(switch(0, &["early"]), (false, vec![], Value::Null));
    backfill("base");
    assert_eq!(capture.json(0, &["reconcile", "--set", "early"])["verdict"], "clean");
    assert_eq!(switch(2, &["early", "--confirm"]), (false, of("base"), none.clone()));
    assert_eq!(capture.totals(), capture.expected(), "readers stay with the base");
    // Done there too, it is in both, which nobody but people can tell; on the way back it is the set that had its own.
    backfill("early");
    assert_eq!(switch(2, &["early"]), (false, of("base"), none.clone()));
    assert_eq!(switch(0, &["early", "--confirm", "--accept-missed"]), (true, of("base"), none.clone()));
    assert_eq!(capture.totals(), capture.expected());
    assert_eq!(switch(2, &["base", "--confirm"]), (false, of("early"), none.clone()));
    // A set of the set has what that one was brought, and the base has not.
    rebuild("early", "late");
    assert_eq!(switch(0, &["late", "--confirm"]), (true, vec![], Value::Null));
    assert_eq!(switch(2, &["base"]), (false, of("early"), none));
    // A set that is no more says nothing of what was brought into it.
    assert!(capture.delete_below("sets/early/").await > 0);
    assert_eq!(switch(2, &["base"]), (false, vec![], serde_json::json!(["early"])));
}

/// Events that are on their way while the plan is made and applied are counted once; so is an item in two plans, and one
/// that came back behind a removal.
#[tokio::test(flavor = "multi_thread")]
async fn invariant_2_no_event_and_its_backfill_both_count() {
    let mut capture = Capture::start().await;
    capture.insert("before", 0..10).await;
    capture.captured().await;
    capture.lose("lost", 0..40).await;
    capture.captured().await;

    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (dynamo, stop) = (capture.dynamo.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut written = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let n = written.len() as i64;
                let scan = Scan { project: format!("p{}", n % 3), at: NOVEMBER, bytes: n };
                put(&dynamo, &format!("live-{n}"), &scan).await;
                written.push((format!("live-{n}"), scan));
            }
            written
        })
    };
    let marks = |capture: &Capture| capture.totals();
    assert_ne!(marks(&capture), capture.expected());
    // Two plans of the same items, made while live events are between table and archive.
    let plans: Vec<String> = (0..2)
        .map(|_| {
            let report = tokio::task::block_in_place(|| capture.json(1, &["backfill"]));
            assert!(number(&report["items"]) >= 40, "{report}");
            hash(&report)
        })
        .collect();
    stop.store(true, Ordering::Relaxed);
    capture.inserted.extend(writer.await.unwrap());
    // What the plans saw is in the stream by now: the marks stand for `--settle`.
    capture.captured().await;
    let children: Vec<_> = plans
        .iter()
        .map(|plan| {
            let mut command = recount(&capture, &["backfill", "--plan", plan, "--confirm", "--settle", "0"]);
            command.args(["--format", "json"]).stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut added = 0;
    for child in children {
        let output = tokio::task::block_in_place(|| child.wait_with_output().unwrap());
        assert_eq!(output.status.code(), Some(0));
        added += number(&crate::support::process::json(&output)["applied"]["added"]);
    }
    assert_eq!(added, 40, "of two plans at once, each item is brought in by one");
    capture.agrees();
    assert_eq!(capture.audited(&[]), []);
}

fn recount(capture: &Capture, arguments: &[&str]) -> Command {
    let mut command = command("recount", &capture.serve.endpoint(), &capture.data);
    command.args(arguments);
    command
}

/// Killed while it counts, and at whatever moment before: the same plan goes on, and no event counts twice.
#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_a_backfill_that_is_killed_goes_on() {
    let mut capture = Capture::start().await;
    capture.lose("lost", 0..300).await;
    capture.captured().await;
    let report = capture.json(1, &["backfill"]);
    let plan = hash(&report);
    let apply = ["backfill", "--plan", plan.as_str(), "--confirm", "--settle", "0"];
    // At once, and a little later: before, or while, the rows go in.
    for pause in [0, 150, 400] {
        let mut child = recount(&capture, &apply).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // While it counts, slowly.
    let marks = capture.totals();
    if marks != capture.expected() {
        let slow = [apply.as_slice(), &["--events-per-second", "40"]].concat();
        let mut child = recount(&capture, &slow).stdout(Stdio::null()).spawn().unwrap();
        let totals = || capture.totals();
        until("something is counted", async || totals() != marks).await;
        child.kill().unwrap();
        child.wait().unwrap();
        assert_ne!(capture.totals(), capture.expected(), "it was killed in the middle");
    }
    let done = capture.json(0, &apply);
    let applied = &done["applied"];
    assert_eq!(number(&applied["added"]) + number(&applied["added_before"]), 300, "{done}");
    capture.agrees();
    assert_eq!(capture.audited(&[]), []);
}

/// An INSERT in quarantine would be counted by a redrive: its item is not backfilled, and counts once.
#[tokio::test(flavor = "multi_thread")]
async fn invariant_2_what_waits_in_quarantine_is_not_backfilled() {
    let mut capture = Capture::start().await;
    capture.insert("before", 0..2).await;
    capture.lose("lost", 0..3).await;
    capture.captured().await;
    let made = NOVEMBER * 1_000_000;
    let data = format!(
        r#"{{"eventID":"kept","eventName":"INSERT","tableName":"scans","recordFormat":"application/json","dynamodb":{{"ApproximateCreationDateTime":{made},"ApproximateCreationDateTimePrecision":"MICROSECOND","Keys":{{"scan_id":{{"S":"lost-0"}}}},"NewImage":{{"scan_id":{{"S":"lost-0"}},"project_id":{{"S":"p0"}},"bytes":{{"N":"10"}},"scanned_at":{{"S":"{}"}}}}}},"eventSource":"aws:dynamodb"}}"#,
        crate::support::naive::rfc3339(NOVEMBER)
    );
    let kept = Quarantined {
        format: quarantine::FORMAT,
        stream: "recount-changes".to_owned(),
        shard_id: "relay-0".parse().unwrap(),
        sequence_number: "7".parse().unwrap(),
        partition_key: "p".to_owned(),
        arrived_us: made,
        reason: QuarantineReason::new(QuarantineCode::TooLarge, "for the stream"),
        data: STANDARD.encode(data),
        raw: false,
    };
    let name = quarantine::object_key(&kept.shard_id, &kept.sequence_number);
    capture.put_object("recount-archive", &name, serde_json::to_vec(&kept).unwrap()).await;

    let report = capture.json(1, &["backfill", "--confirm", "--settle", "0"]);
    assert_eq!((number(&report["items"]), number(&report["applied"]["counted"])), (2, 2), "{report}");
    assert_eq!(number(&report["refused"][0]["items"]), 1, "{report}");
    capture.json(0, &["redrive", "--confirm"]);
    let report = capture.json(0, &["backfill", "--confirm", "--settle", "0"]);
    assert_eq!(number(&report["items"]), 0, "{report}");
    capture.agrees();
    assert_eq!(capture.audited(&[]), []);
}

/// A cell whose item nobody understands holds up no other cell's items; once it is mended, the same plan counts the rest.
#[tokio::test(flavor = "multi_thread")]
async fn invariant_10_a_cell_that_is_not_understood_is_passed_by() {
    let mut capture = Capture::start().await;
    capture.insert("before", 0..6).await;
    capture.captured().await;
    capture.lose("lost", 0..6).await;
    capture.captured().await;
    let plan = capture.json(1, &["backfill"]);
    assert_eq!(number(&plan["items"]), 6, "{plan}");
    let month = naive::month(NOVEMBER).parse().unwrap();
    let set = async |value: AttributeValue| {
        let update = capture.dynamo.update_item().table_name(Settings::default().totals);
        let update = update.key(PK, AttributeValue::S("p1".into())).key(SK, AttributeValue::S(cell_sk(month, 0)));
        let update = update.update_expression("SET events = :v").expression_attribute_values(":v", value);
        let update = update.return_values(ReturnValue::UpdatedOld).send().await.unwrap();
        update.attributes.unwrap().remove("events").unwrap()
    };
    let right = set(AttributeValue::S("many".into())).await;

    let apply = ["backfill", "--plan", &hash(&plan), "--confirm", "--settle", "0"];
    let done = capture.json(1, &apply);
    let applied = &done["applied"];
    assert_eq!((number(&applied["added"]), number(&applied["counted"]), number(&applied["uncounted"])), (6, 4, 2));
    let found = capture.json(1, &["reconcile"]);
    assert_eq!(found["findings"][0]["kind"], "unusable", "{found}");
    assert_eq!(found["findings"].as_array().unwrap().len(), 1, "the others are counted: {found}");

    set(right).await;
    let found = capture.json(1, &["reconcile"]);
    assert_eq!((&found["findings"][0]["kind"], &found["findings"][0]["group"]), (&"missing".into(), &"p1".into()));
    let done = capture.json(0, &apply);
    let applied = &done["applied"];
    assert_eq!((number(&applied["added"]), number(&applied["counted"])), (0, 2), "{done}");
    capture.agrees();
}

/// Between plan and application the archive is compacted: what the plan saw did not come since.
#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_behind_a_plan_takes_nothing_out_of_it() {
    let mut capture = Capture::start().await;
    capture.insert("before", 0..2).await;
    capture.captured().await;
    capture.json(0, &["archive"]);
    capture.lose("lost", 0..2).await;
    // Of this one a change is seen.
    capture.touch("lost-1").await;
    capture.captured().await;
    let plan = capture.json(1, &["backfill"]);
    assert_eq!((number(&plan["never_captured"]), number(&plan["insert_missing"])), (1, 1), "{plan}");
    let compacted = capture.json(0, &["compact", "--confirm"]);
    let rows = compacted["months"].as_object().unwrap().values().map(|month| number(&month["rows"]));
    assert!(rows.sum::<u64>() > 0, "{compacted}");
    let done = capture.json(0, &["backfill", "--plan", &hash(&plan), "--confirm", "--settle", "0"]);
    assert_eq!((number(&done["applied"]["counted"]), number(&done["applied"]["moved"])), (2, 0), "{done}");
    capture.agrees();
    assert_eq!(capture.audited(&[]), []);
}

/// What an export has comes in as by a Scan. What was read into a directory is answered by once: the next run reads the table anew.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_and_a_scan_in_a_directory_bring_the_same() {
    let mut capture = Capture::start().await;
    capture.lose("lost", 0..9).await;
    capture.captured().await;
    let work = capture.data.join("work");
    let kept = ["backfill", "--work", work.to_str().unwrap(), "--segments", "2"];
    let first = capture.json(1, &kept);
    assert_eq!(number(&first["items"]), 9, "{first}");
    capture.lose("later", 0..1).await;
    capture.captured().await;
    let second = capture.json(1, &kept);
    assert_eq!(number(&second["items"]), 10, "{second}");
    let audit = ["--work", work.to_str().unwrap()];
    assert_eq!(capture.audited(&audit).len(), 10);
    let export = capture.export("exports", 1, 0).await;
    let report = capture.json(0, &["backfill", "--export", &export, "--confirm", "--settle", "0"]);
    assert_eq!((number(&report["items"]), number(&report["applied"]["counted"])), (10, 10), "{report}");
    assert_eq!(capture.audited(&audit), []);
    capture.agrees();
    // A plan from before finds them there.
    let late = capture.json(0, &["backfill", "--plan", &hash(&first), "--confirm", "--settle", "0"]);
    assert_eq!((number(&late["applied"]["added"]), number(&late["applied"]["backfilled"])), (0, 9), "{late}");
    capture.agrees();
}
