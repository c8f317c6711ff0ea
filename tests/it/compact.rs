//! `recount compact` through its binary: what it plans, what it does, and that every reader counts the same before, between and after.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::process::{self, until};
use crate::support::shell::Shell;

impl Shell {
    /// The live files, as paths.
    fn files(&self) -> BTreeSet<String> {
        let bucket = self.data.join("s3/recount-archive");
        let files = self.recount(0, "files")["files"].as_array().unwrap().clone();
        let path = |name: &Value| name.as_str().unwrap().replace("s3://recount-archive", bucket.to_str().unwrap());
        files.iter().map(path).collect()
    }

    /// What DuckDB counts: rows and keys of the live files, and of all that a glob sees.
    fn counted(&self) -> Value {
        let files: Vec<String> = self.files().into_iter().collect();
        let bucket = self.data.join("s3/recount-archive");
        process::python("files.py", &[bucket.to_str().unwrap(), &json!(files).to_string()])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_7_every_reader_counts_the_same_before_and_after_a_compaction() {
    let shell = Shell::quiet(None).await;
    let mut sent = 0;
    for seed in 1..=4 {
        let line = format!(
            "load --projects 5 --months 2 --events 120 --updates 0.2 --duplicates 0.1 --into-stream --seed {seed}"
        );
        sent += shell.tool("producer", 0, &line.split(' ').collect::<Vec<_>>())["inserts"].as_i64().unwrap();
        shell.recount(0, "archive");
    }
    let usage = |shell: &Shell| shell.recount(0, "usage")["months"].clone();
    let events = |months: &Value| months.as_array().unwrap().iter().map(|m| m["events"].as_i64().unwrap()).sum::<i64>();
    until("all is counted", async || events(&usage(&shell)) >= sent).await;
    let (before, rows) = (shell.files(), shell.counted());
    assert!(before.len() >= 8 && rows["listed"] == rows["glob"] && rows["listed"][0] == rows["listed"][1], "{rows}");

    // The plan says what it would do, and does nothing.
    let plan = shell.recount(1, "compact --grace 1h");
    assert_eq!((&plan["confirmed"], &plan["finished"]), (&json!(false), &json!(false)));
    let planned: u64 = plan["months"].as_object().unwrap().values().map(|month| month["files"].as_u64().unwrap()).sum();
    assert_eq!(planned, before.len() as u64);
    assert_eq!(shell.files(), before);

    // One month alone, kept for a while: by the list nothing changes, by a glob events show twice, and none is missing.
    let month = plan["months"].as_object().unwrap().keys().next().unwrap().clone();
    let done = shell.recount(0, &format!("compact --month {month} --grace 1h --confirm"));
    assert_eq!(done["months"].as_object().unwrap().keys().collect::<Vec<_>>(), [&month]);
    assert!(done["deleted"] == 0 && done["waiting"].as_u64().unwrap() > 0, "{done}");
    let between = shell.counted();
    assert_eq!((&between["listed"], &between["glob"][1]), (&rows["listed"], &rows["glob"][1]));
    assert!(between["glob"][0].as_u64() > rows["glob"][0].as_u64(), "{between}");
    let waits = shell.recount(0, "compact --month 2026-01 --grace 1h --confirm");
    assert_eq!(waits["months"], json!({}));

    // All, at once.
    let done = shell.recount(0, "compact --grace 0 --confirm");
    assert!(done["waiting"] == 0 && done["deleted"].as_u64().unwrap() == before.len() as u64, "{done}");
    let after = shell.files();
    assert_eq!(
        after.len(),
        shell.recount(0, "recompute")["months"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["month"].to_string())
            .collect::<BTreeSet<_>>()
            .len()
    );
    assert!(after.is_disjoint(&before));
    let compacted = shell.counted();
    assert_eq!((&compacted["listed"], &compacted["glob"]), (&rows["listed"], &rows["glob"]));
    assert!(before.iter().all(|file| !std::path::Path::new(file).exists()));

    // Whoever reads the archive says what it said before; and what comes then goes into the new version.
    assert_eq!(shell.recount(0, "recompute")["months"], usage(&shell));
    assert_eq!(shell.recount(0, "reconcile")["verdict"], "clean");
    assert_eq!(shell.recount(0, "fsck --deep")["verdict"], "clean");
    let again = shell.recount(0, "compact --grace 0 --confirm");
    assert_eq!((&again["months"], &again["deleted"]), (&json!({}), &json!(0)));
    shell.tool(
        "producer",
        0,
        &"load --projects 5 --months 2 --events 50 --into-stream --seed 9".split(' ').collect::<Vec<_>>(),
    );
    shell.recount(0, "archive");
    assert_eq!(shell.recount(0, "reconcile")["verdict"], "clean");
    let more = shell.counted();
    assert_eq!(more["listed"], more["glob"]);
    assert!(more["listed"][0].as_u64() > rows["listed"][0].as_u64());
    assert!(shell.serve.terminate().success());
}
