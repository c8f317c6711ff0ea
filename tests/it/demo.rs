//! `recount-local demo`, as a user runs it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::process::binary;

fn demo(data: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(binary("recount-local"));
    command.args(["demo", "--data"]).arg(data).args(options).env("NO_COLOR", "1").output().unwrap()
}

fn last_line(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// What holds of every demo.
fn check(report: &serde_json::Value) {
    let n = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name}: {report}"));
    assert!(n("findings_before") >= 2, "{report}");
    assert_eq!((n("findings_after"), &report["clean"]), (0, &true.into()));
    // Each scan is one insertion: counted by the consumer, or by the repair; and archived.
    assert_eq!(n("applied") + n("repaired_events"), n("produced"), "{report}");
    assert_eq!(n("archived"), n("produced"), "{report}");
    assert!(n("duplicates") > 0 && n("repaired_events") > 0 && n("cells") > 0, "{report}");
    assert_eq!(n("quarantined"), 1, "{report}");
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn invariant_8_and_9_the_demo_damages_names_and_repairs_and_can_be_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let report = last_line(&demo(&data, &["--events", "2000", "--projects", "6", "--format", "json"]));
    check(&report);
    assert!(report["produced"].as_u64().unwrap() > 2_000);

    // Again in its own directory, now with the files of a directory, and for people.
    let tree = dir.path().join("tree");
    for (project, files) in [("acme", 30), ("\u{1b}[31mred", 3)] {
        fs::create_dir_all(tree.join(project)).unwrap();
        (0..files).for_each(|i| fs::write(tree.join(project).join(i.to_string()), "x").unwrap());
    }
    let output = demo(&data, &["--scan", tree.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("clean: every total equals its archived events"), "{text}");
    assert!(text.contains("\\u{1b}[31mred"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn the_demo_of_a_directory_counts_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("acme/deep")).unwrap();
    (0..25).for_each(|i| fs::write(tree.join("acme/deep").join(i.to_string()), "x").unwrap());
    let data = dir.path().join("data");
    let report = last_line(&demo(&data, &["--scan", tree.to_str().unwrap(), "--format", "json"]));
    check(&report);
    // The incident records 600 scans of its own.
    assert_eq!(report["produced"], 625, "{report}");
}

/// All files below `dir`, with their contents.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { contents(&path) } else { [(path.clone(), fs::read(path).unwrap())].into() })
        .collect()
}

#[test]
fn a_demo_touches_nobody_elses_directory() {
    let dir = tempfile::tempdir().unwrap();
    let theirs = dir.path().join("theirs");
    fs::create_dir_all(theirs.join("photos")).unwrap();
    fs::write(theirs.join("photos/one.jpg"), "one").unwrap();
    fs::write(theirs.join("recount.toml"), "mine").unwrap();
    let before = contents(&theirs);
    let output = demo(&theirs, &["--events", "10", "--format", "json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("is not empty and no demo made it; take another directory with --data"), "{said}");
    assert_eq!(contents(&theirs), before);

    // What is to be scanned is looked at before anything is made.
    let data = dir.path().join("data");
    let output = demo(&data, &["--scan", dir.path().join("nowhere").to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("nowhere") && !data.exists(), "{said}");
    let output = demo(&theirs.join("photos/one.jpg"), &["--events", "10"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(contents(&theirs), before);
}
