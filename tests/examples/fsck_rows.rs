//! How fast `recount fsck` reads: rows a second, by default and deep, over the embedded S3 on this machine's disk; and the most memory
//! that the process took.
//!
//! ```sh
//! cargo run --release -p recount-tests --example fsck_rows -- 4000000
//! ```
//!
//! Files of 500,000 rows in two months, 1,000 groups; the two months' keys are mixed, so that finding keys that stand twice is the
//! external sort's whole work.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use recount_compactor::bucket::{Bucket, Objects};
use recount_compactor::fsck::{Options, fsck};
use recount_compactor::log::entry::FORMAT;
use recount_compactor::log::{Digest, Entry, Kind, ShardRange, Stream, names};
use recount_compactor::rows::row::Place;
use recount_compactor::rows::{ArchivedRow, write};
use recount_local::clients::Clients;
use recount_local::engines::{Engines, Options as EngineOptions};
use recount_schemas::host::{SharedHost, SystemHost};
use recount_schemas::{Definition, Month, Settings};

/// Rows of a file.
const OF_FILE: u64 = 500_000;
/// 2026-11-01T00:00:00Z, in µs.
const NOVEMBER: i64 = 1_793_491_200_000_000;

const DEFINITION: &str = "[source]\ntable = \"scans\"\nkey = [\"scan_id\"]\n[fold]\ngroup_by = \"project_id\"\n\
                          occurred_at = \"scanned_at\"\nsum = [\"bytes\"]\n";

#[tokio::main]
async fn main() -> Result<()> {
    let rows: u64 = std::env::args().nth(1).map_or(Ok(2_000_000), |text| text.parse())?;
    let host: SharedHost = SystemHost::shared();
    let dir = tempfile::tempdir()?;
    let engines = Engines::open(dir.path(), Arc::clone(&host), EngineOptions::default())?;
    let sdk = recount_local::client::in_process(engines.door()).await;
    let (clients, settings) = (Clients::new(&sdk), Settings::default());
    let definition = Arc::new(Definition::parse(DEFINITION, "recount.toml")?);
    recount_local::setup::setup(&clients, &definition, &settings, 1, &host).await?;
    let bucket = Bucket::new(recount_local::client::s3(&sdk), settings.bucket.as_str(), Arc::clone(&host));

    let began = Instant::now();
    let (mut previous, mut from) = (None, 0);
    for n in 0..rows.div_ceil(OF_FILE) {
        let to = rows.min(from + OF_FILE);
        let entry = commit(&bucket, &definition, n, previous, from..to).await?;
        (previous, from) = (Some(entry), to);
    }
    println!("{rows} rows written in {:.1} s; peak {} MiB so far", began.elapsed().as_secs_f64(), peak_mib());

    for deep in [false, true] {
        let began = Instant::now();
        let report = fsck(&bucket, &host, &definition, None, Options { month: None, deep }, &|_| {}).await?;
        let seconds = began.elapsed().as_secs_f64();
        ensure!(report.findings.is_empty(), "{:?}", report.findings);
        ensure!(report.checked.rows == rows, "{} rows were checked", report.checked.rows);
        println!(
            "{}: {} rows, {} MiB in {seconds:.1} s: {:.0} rows/s; peak {} MiB",
            if deep { "deep" } else { "default" },
            report.checked.rows,
            report.checked.bytes >> 20,
            rows as f64 / seconds,
            peak_mib()
        );
    }
    Ok(())
}

/// One file and its entry; returns the entry's digest.
async fn commit(
    bucket: &Bucket,
    definition: &Definition,
    n: u64,
    previous: Option<Digest>,
    range: std::ops::Range<u64>,
) -> Result<Digest> {
    let month: Month = ["2026-11", "2026-12"][usize::try_from(n % 2)?].parse()?;
    let mut rows = Vec::new();
    for i in range.clone() {
        let record = record(i, month);
        let arrived_us = NOVEMBER + 40 * 86_400_000_000;
        let judged = definition.judge(record.as_bytes(), arrived_us).map_err(|reason| anyhow::anyhow!("{reason}"))?;
        let place = Place { shard: "shardId-000000000000".parse()?, sequence: sequence(i + 1)?, arrived_us };
        rows.push(ArchivedRow::new(definition, &judged, judged.change.content_hash().0, &record, place));
    }
    let count = range.end - range.start;
    let written = write(definition, month, rows)?.context("there are rows")?;
    let target = names::target(month, 0, n, 0);
    bucket.put(&target, written.bytes.clone()).await?;
    let read = ShardRange {
        shard: "shardId-000000000000".parse()?,
        parents: Vec::new(),
        from: (range.start > 0).then(|| sequence(range.start)).transpose()?,
        to: Some(sequence(range.end)?),
        closed: false,
        caught_up_ms: None,
        records: count,
        rows: count,
        duplicates: 0,
        conflicts: 0,
        quarantined: 0,
        lost: None,
    };
    let entry = Entry {
        format: FORMAT,
        n,
        kind: Kind::Archive,
        previous,
        at_ms: 0,
        definition: definition.hash().to_owned(),
        token: "ab".to_owned(),
        origin: None,
        seed: None,
        folded: None,
        base: n,
        stream: Some(Stream { arn: "arn:aws:kinesis:us-east-1:000000000000:stream/s".to_owned(), created_ms: 0 }),
        retention_hours: None,
        ranges: vec![read],
        added: vec![written.added(names::staged(n, "ab", 0), target)],
        removed: Vec::new(),
        versions: std::collections::BTreeMap::new(),
    };
    let bytes = entry.to_bytes()?;
    let digest = Digest::of(&bytes);
    bucket.put(&names::entry(n), bytes.into()).await?;
    Ok(digest)
}

/// As long as real ones are.
fn sequence(n: u64) -> Result<recount_schemas::SequenceNumber> {
    Ok(format!("4966{n:052}").parse()?)
}

fn record(i: u64, month: Month) -> String {
    let mut rng = fastrand::Rng::with_seed(i);
    let (id, group, bytes) = (format!("{:032x}", rng.u128(..)), rng.u32(0..1_000), rng.u32(..));
    let created_us = NOVEMBER + i64::from(rng.u32(..)) * 600;
    format!(
        r#"{{"awsRegion":"us-east-1","eventID":"{id}","eventName":"INSERT","userIdentity":null,"recordFormat":"application/json","tableName":"scans","dynamodb":{{"ApproximateCreationDateTime":{created_us},"Keys":{{"scan_id":{{"S":"scan-{i}"}}}},"NewImage":{{"scan_id":{{"S":"scan-{i}"}},"scanned_at":{{"S":"{month}-05T10:00:00Z"}},"bytes":{{"N":"{bytes}"}},"project_id":{{"S":"project-{group}"}},"path":{{"S":"/srv/data/{id}/object.bin"}}}},"SizeBytes":200,"ApproximateCreationDateTimePrecision":"MICROSECOND"}},"eventSource":"aws:dynamodb"}}"#
    )
}

/// The most memory that this process ever held, in MiB; 0 where the system does not say.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib >> 10)
}
