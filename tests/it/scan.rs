//! `producer scan` of a real tree, held against a plain walk of the same tree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use aws_sdk_dynamodb::types::AttributeValue;
use recount_local::client;
use serde_json::Value;

use crate::support::naive::{self, Scan, Totals};
use crate::support::process::{self, Serve, free_port, run, until};
use crate::support::world::definition;

/// Ends of months in `naive::ZONE`, in seconds, UTC: of a winter, a summer and a year.
const ENDS: [i64; 3] = [1_793_487_600, 1_790_805_600, 1_798_758_000];

/// A tree of 60 files: nested, empty, oddly named, last modified around the ends of months.
fn tree(root: &Path) {
    let mut rng = fastrand::Rng::with_seed(3);
    let dirs: [&[u8]; 6] =
        [b"acme", b"acme/deep/er/still", b"globex \"quoted\"", "r\u{e9}sum\u{e9} \u{1f980}".as_bytes(), b"-rf", b""];
    for i in 0..60_usize {
        let dir = root.join(std::ffi::OsStr::from_bytes(dirs[i % dirs.len()]));
        fs::create_dir_all(&dir).unwrap();
        let name: Vec<u8> = match i % 10 {
            0 => format!(".hidden {i}").into_bytes(),
            1 => format!("new\nline {i}").into_bytes(),
            2 => [b"not utf-8 \xff\xfe ".as_slice(), i.to_string().as_bytes()].concat(),
            3 => format!("{i}%20&'\"$(false)`").into_bytes(),
            _ => format!("file-{i}.bin").into_bytes(),
        };
        let path = dir.join(std::ffi::OsStr::from_bytes(&name));
        let size = if i % 7 == 0 { 0 } else { rng.usize(1..200_000) };
        fs::write(&path, std::iter::repeat_with(|| rng.u8(..)).take(size).collect::<Vec<_>>()).unwrap();
        let at = ENDS[i % ENDS.len()] + rng.i64(-7_200..7_200);
        let at = UNIX_EPOCH + Duration::from_secs(u64::try_from(at).unwrap());
        File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
    }
}

/// Every regular file below `dir` that can be opened, with the name of the directory just below the root.
fn plain_walk(dir: &Path, top: Option<&str>, own: &str, into: &mut Vec<(PathBuf, Scan)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let about = fs::symlink_metadata(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if about.is_dir() {
            plain_walk(&path, Some(top.unwrap_or(&name)), own, into);
        } else if about.is_file() && File::open(&path).is_ok() {
            let at = about.modified().unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let project = top.unwrap_or(own).to_owned();
            into.push((
                path,
                Scan { project, at: i64::try_from(at).unwrap(), bytes: i64::try_from(about.len()).unwrap() },
            ));
        }
    }
}

/// All items of the source table.
async fn items(endpoint: &str) -> Vec<std::collections::HashMap<String, AttributeValue>> {
    let dynamo = aws_sdk_dynamodb::Client::new(&client::sdk_config(endpoint).await);
    dynamo.scan().table_name("scans").into_paginator().items().send().try_collect().await.unwrap()
}

fn sha256sum(path: &Path) -> String {
    // From standard input: with a name that has to be escaped, sha256sum writes the digest in another way.
    let output = Command::new("sha256sum").stdin(File::open(path).unwrap()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scanned_tree_is_counted_as_a_plain_walk_counts_it() {
    let dir = tempfile::tempdir().unwrap();
    let (data, root) = (dir.path().join("data"), dir.path().join("the tree"));
    fs::create_dir(&root).unwrap();
    tree(&root);
    // What is left out: links. What cannot be read: a file (but by root), and what lies too deep.
    symlink(root.join("acme"), root.join("link to a directory")).unwrap();
    symlink("/etc/passwd", root.join("acme/link to a file")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    let secret = root.join("acme/secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    let unreadable = u64::from(File::open(&secret).is_err());
    let mut files = Vec::new();
    plain_walk(&root, None, "the tree", &mut files);
    assert_eq!(files.len() as u64, 61 - unreadable);
    let too_deep: PathBuf = std::iter::repeat_n("d", 130).collect();
    fs::create_dir_all(root.join(too_deep)).unwrap();

    let written_definition = dir.path().join("ours.toml");
    fs::write(&written_definition, definition("")).unwrap();
    let serve = Serve::start(&data, free_port(), Some(&written_definition));
    let endpoint = serve.endpoint();
    let arguments =
        ["scan", root.to_str().unwrap(), "--project-from", "top-dir", "--occurred-at", "mtime", "--run", "one"];
    let as_json: Vec<_> = arguments.iter().copied().chain(["--format", "json"]).collect();
    let output = run("producer", &endpoint, &data, &as_json);
    let report = process::json(&output);
    assert_eq!(output.status.code(), Some(1), "what could not be read is a finding: {report}");
    assert_eq!(
        (&report["inserted"], &report["left_out"], &report["failed"]),
        (&files.len().into(), &3.into(), &(1 + unreadable).into()),
        "{report}"
    );
    let errors: Vec<_> = report["errors"].as_array().unwrap().iter().map(|e| e["error"].as_str().unwrap()).collect();
    assert!(errors.iter().any(|error| error.contains("deeper than 128 directories")), "{report}");
    let expected = naive::inserts(files.iter().map(|(_, scan)| scan));
    let mut projects: BTreeMap<&str, (u64, i64)> = BTreeMap::new();
    for (_, scan) in &files {
        let tally = projects.entry(&scan.project).or_default();
        *tally = (tally.0 + 1, tally.1 + scan.bytes);
    }
    let told = report["projects"].as_object().unwrap().iter();
    let told = told.map(|(name, t)| (name.as_str(), (t["files"].as_u64().unwrap(), t["bytes"].as_i64().unwrap())));
    assert_eq!(told.collect::<BTreeMap<_, _>>(), projects);

    let events = |totals: &Totals| totals.values().map(|total| total.0).sum::<i64>();
    let all = i64::try_from(files.len()).unwrap();
    until("all is counted", async || events(&process::usage(&endpoint, &data)) >= all).await;
    assert_eq!(process::usage(&endpoint, &data), expected);

    // The items say what the files are.
    let items = items(&endpoint).await;
    let digest_of = |name: &str| {
        let of = |item: &&std::collections::HashMap<String, AttributeValue>| item["file_name"].as_s().unwrap() == name;
        items.iter().find(of).map(|item| item["sha256"].as_s().unwrap().clone())
    };
    let utf8 = files.iter().filter_map(|(path, _)| Some((path, path.strip_prefix(&root).unwrap().to_str()?)));
    let mut compared = 0;
    for (path, name) in utf8.step_by(6) {
        assert_eq!(digest_of(name), Some(sha256sum(path)), "{name:?}");
        compared += 1;
    }
    assert!(compared >= 8);
    assert!(items.iter().any(|item| item["file_name"].as_s().unwrap().contains("not utf-8 \\xff\\xfe")));

    // The same run again writes the same items; the table that people read has no raw line end from a file's name.
    let output = run("producer", &endpoint, &data, &arguments);
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(table.contains("globex \"quoted\"") && table.contains("could not be read"), "{table}");
    let now = [
        "scan",
        root.join("-rf").to_str().unwrap(),
        "--project-from",
        "all of it",
        "--occurred-at",
        "now",
        "--format",
        "json",
    ]
    .map(str::to_owned);
    let before = jiff::Timestamp::now().as_second();
    let output = run("producer", &endpoint, &data, &now.each_ref().map(String::as_str));
    let after = jiff::Timestamp::now().as_second();
    let report = process::json(&output);
    assert_eq!((output.status.code(), &report["inserted"]), (Some(0), &Value::from(10)), "{report}");
    until("the second scan is counted", async || events(&process::usage(&endpoint, &data)) >= all + 10).await;
    let totals = process::usage(&endpoint, &data);
    let bytes = report["bytes"].as_i64().unwrap();
    let of_now: Totals = totals.iter().filter(|(of, _)| of.0 == "all of it").map(|(of, n)| (of.clone(), *n)).collect();
    let months = [before, after].map(naive::month);
    assert!(of_now.keys().all(|(_, month)| months.contains(month)), "{of_now:?}");
    let sum = of_now.values().fold((0, 0), |sum, total| (sum.0 + total.0, sum.1 + total.1));
    assert_eq!(sum, (10, bytes));
    let without: Totals = totals.into_iter().filter(|(of, _)| of.0 != "all of it").collect();
    assert_eq!(without, expected);
}

#[test]
fn what_cannot_be_scanned_is_bad_usage() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("recount.toml"), definition("")).unwrap();
    let endpoint = "http://127.0.0.1:1";
    for arguments in [
        "scan nowhere --project-from top-dir --occurred-at mtime",
        "scan recount.toml --project-from top-dir --occurred-at mtime",
        "scan . --project-from top-dir --occurred-at yesterday",
        "scan . --occurred-at mtime",
    ] {
        let output = run("producer", endpoint, dir.path(), &arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(3), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stderr.is_empty());
    }
}
