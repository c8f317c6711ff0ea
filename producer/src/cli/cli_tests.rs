use std::collections::BTreeMap;
use std::path::Path;

use clap::CommandFactory;

use super::*;
use crate::drive::Driven;
use crate::load::LoadReport;
use crate::load::tally::Row;
use crate::scan::walk::FileError;
use crate::scan::{ScanReport, Tally};

fn help(path: &[&str]) -> String {
    let mut command = Cli::command();
    command.build();
    let mut at = &mut command;
    for name in path {
        at = at.find_subcommand_mut(name).unwrap();
    }
    at.render_help().to_string()
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn help_of_the_whole() {
    insta::assert_snapshot!(help(&[]), @"
    Puts scans into the source table, or change records straight into the stream

    Usage: producer [OPTIONS] <COMMAND>

    Commands:
      record  Insert a scan, or many alike
      scan    Insert a scan for each file below a directory
      load    Insert, update and delete many invented scans, the same from the same seed
      help    Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help (see more with '--help')
      -V, --version  Print version

    Everywhere:
          --format <FORMAT>    How to print the report: as a table, or as one line of JSON [default: table] [possible values: table, json]
          --definition <FILE>  The definition; it names the table and the time zone [default: recount.toml, if it is there] [env: RECOUNT_DEFINITION]
          --table <NAME>       The table, if not the definition's

    The AWS SDK's own variables apply: AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL and so on.

    Exit codes: 0 done; 1 done, with findings (files that could not be read, another item that was there already);
    2 not done, AWS or the way to it failed; 3 bad usage.

    Examples:
      producer record --project acme
      producer scan ./src --project-from top-dir --occurred-at mtime
      producer load --events 20000 --rate 500 --projects 50 --zipf 1.1 --months 3 --seed 7
      producer load --events 20000 --duplicates 0.02 --out-of-order 0.05 --into-stream
    ");
}

#[test]
fn help_of_record() {
    insta::assert_snapshot!(help(&["record"]), @"
    Insert a scan, or many alike

    Usage: producer record [OPTIONS] --project <PROJECT>

    Options:
          --project <PROJECT>  The project that pays for the scan
          --count <N>          How many scans [default: 1]
          --at <RFC3339>       When it was scanned, as 2026-11-30T23:59:59+08:00 [default: now]
          --file-name <NAME>   The file's name [default: by-hand.bin]
          --bytes <N>          The file's size in bytes [default: 0]
          --run <NAME>         What keys are made from; the same run again writes the same items [default: a new one]
      -h, --help               Print help (see more with '--help')

    Everywhere:
          --format <FORMAT>    How to print the report: as a table, or as one line of JSON [default: table] [possible values: table, json]
          --definition <FILE>  The definition; it names the table and the time zone [default: recount.toml, if it is there] [env: RECOUNT_DEFINITION]
          --table <NAME>       The table, if not the definition's
    ");
}

#[test]
fn help_of_scan() {
    insta::assert_snapshot!(help(&["scan"]), @"
    Insert a scan for each file below a directory

    Usage: producer scan [OPTIONS] --project-from <top-dir|NAME> --occurred-at <mtime|now> <DIR>

    Arguments:
      <DIR>  The directory. Symbolic links below it are not followed

    Options:
          --project-from <top-dir|NAME>  Whose the files are: `top-dir` for the directory just below DIR (DIR's own name for files that lie in none), or the name of one project for all
          --occurred-at <mtime|now>      When a file counts as scanned: when it was last modified, or now
          --run <NAME>                   What keys are made from, with each file's path; the same run again writes the same items [default: a new one]
          --readers <N>                  How many files are read at once [default: 4]
      -h, --help                         Print help (see more with '--help')

    Everywhere:
          --format <FORMAT>    How to print the report: as a table, or as one line of JSON [default: table] [possible values: table, json]
          --definition <FILE>  The definition; it names the table and the time zone [default: recount.toml, if it is there] [env: RECOUNT_DEFINITION]
          --table <NAME>       The table, if not the definition's
    ");
}

#[test]
fn help_of_load() {
    insta::assert_snapshot!(help(&["load"]), @"
    Insert, update and delete many invented scans, the same from the same seed

    Usage: producer load [OPTIONS]

    Options:
          --events <N>        Scans inserted; updates, deletes and duplicates come on top [default: 20000]
          --rate <R>          Operations per second [default: as fast as they are taken]
          --projects <P>      Projects [default: 20]
          --zipf <S>          Skew: the project of rank k gets a share in proportion to k^-S. 0: all alike [default: 1]
          --months <M>        Months, the last being that of --until [default: 3]
          --until <RFC3339>   The last moment of a scan, as 2026-11-30T23:59:59Z [default: now]
          --time-zone <ZONE>  The zone whose clocks end months, in the load and its tally [default: the definition's, else UTC]
          --seed <S>          What everything is drawn from, keys included: with the same seed, settings and --until come the same operations [default: a new one]
          --updates <F>       Updates of earlier items, for each insert: 0 to 1 [default: 0]
          --deletes <F>       Deletes of earlier items, for each insert: 0 to 1 [default: 0]
          --duplicates <F>    Change records written twice: 0 to 1. Only with --into-stream [default: 0]
          --out-of-order <F>  Change records written later than their turn: 0 to 1. Only with --into-stream [default: 0]
          --into-stream       Leave the table alone and write change records, as Kinesis Data Streams for DynamoDB writes them, to the stream
          --stream <NAME>     The stream [env: RECOUNT_STREAM] [default: recount-changes]
          --in-flight <N>     How many batches are on their way at once [default: 16]
      -h, --help              Print help (see more with '--help')

    Everywhere:
          --format <FORMAT>    How to print the report: as a table, or as one line of JSON [default: table] [possible values: table, json]
          --definition <FILE>  The definition; it names the table and the time zone [default: recount.toml, if it is there] [env: RECOUNT_DEFINITION]
          --table <NAME>       The table, if not the definition's
    ");
}

#[test]
fn what_is_said_is_understood_or_refused() {
    let parse = |line: &str| Cli::try_parse_from(line.split(' '));
    let Command::Scan(scan) = parse("producer scan . --project-from top-dir --occurred-at mtime").unwrap().command
    else {
        panic!()
    };
    assert_eq!((scan.project_from, scan.occurred_at), (ProjectFrom::TopDir, OccurredAt::Mtime));
    let Command::Record(record) = parse("producer record --project a --at 2026-11-30T23:59:59+08:00").unwrap().command
    else {
        panic!()
    };
    assert_eq!(record.at.unwrap().to_string(), "2026-11-30T15:59:59Z");
    for line in [
        "producer",
        "producer record",
        "producer record --project a --at yesterday",
        "producer record --project a --count 0",
        "producer scan . --project-from top-dir --occurred-at ctime",
        "producer load --rate 0",
        "producer load --time-zone Mars",
        "producer load --in-flight 0",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[tokio::test]
async fn what_cannot_be_done_as_asked_is_bad_usage() {
    let host = recount_schemas::host::SystemHost::shared();
    let dir = tempfile::tempdir().unwrap();
    let other_key = dir.path().join("other.toml");
    std::fs::write(&other_key, "[source]\ntable='t'\nkey=['id']\n[fold]\ngroup_by='g'\n").unwrap();
    let broken = dir.path().join("broken.toml");
    std::fs::write(&broken, "[source]\n").unwrap();
    let (other_key, broken) = (other_key.to_str().unwrap(), broken.to_str().unwrap());
    for (line, said) in [
        (format!("producer record --project a --definition {other_key}"), "scans have the key scan_id"),
        (format!("producer record --project a --definition {broken}"), "broken.toml:1"),
        ("producer record --project a --definition /nowhere".to_owned(), "cannot read /nowhere"),
        ("producer load --table t --duplicates 0.1".to_owned(), "they need --into-stream"),
        ("producer load --table t --into-stream --until 2100-01-01T00:00:00Z".to_owned(), "more than a day ahead"),
        ("producer load --table t --projects 0".to_owned(), "projects is 1 to"),
        ("producer scan /nowhere --table t --project-from p --occurred-at now".to_owned(), "is not a directory"),
    ] {
        let error = run::run(Cli::try_parse_from(line.split(' ')).unwrap(), &host).await.unwrap_err();
        assert_eq!(error.exit(), run::Exit::Usage, "{line}");
        assert!(error.to_string().contains(said), "{error}");
    }
    assert!(!Path::new("recount.toml").exists(), "the crate has no definition of its own");
}

#[test]
fn reports_as_tables() {
    let scan = ScanReport {
        dir: "src".into(),
        run: "r".into(),
        inserted: 3,
        bytes: 1_234,
        left_out: 1,
        failed: 1,
        errors: vec![FileError { path: "src/x".into(), error: "permission denied".into() }],
        projects: BTreeMap::from([
            ("acme".into(), Tally { files: 1, bytes: 34 }),
            ("zebra \"🦓\"".into(), Tally { files: 2, bytes: 1_200 }),
        ]),
        seconds: 0.25,
    };
    insta::assert_snapshot!(show::scan(&scan), @r#"
     project     files  bytes
     acme            1     34
     zebra "🦓"      2   1200

    3 files, 1,234 bytes below src in 0.2 s; 1 left out
    1 could not be read:
      src/x: permission denied
    "#);
    let row = Row {
        project: "project-0001".into(),
        month: "2026-11".into(),
        inserts: 9,
        inserted_bytes: 900,
        live: 8,
        live_bytes: 850,
    };
    let load = LoadReport {
        target: "stream",
        seed: 7,
        inserts: 9,
        updates: 2,
        deletes: 1,
        duplicates: 1,
        out_of_order: 0,
        driven: Driven { operations: 13, seconds: 0.5, rate: 26.0 },
        digest: "d".into(),
        tally: vec![row],
    };
    insta::assert_snapshot!(show::load(&load), @"
     project         month  inserts  their bytes  in the end  their bytes
     project-0001  2026-11        9          900           8          850

    9 inserts, 2 updates, 1 delete; 1 duplicate, 0 out of order
    13 into the stream in 0.5 s: 26 a second; seed 7
    ");
}
