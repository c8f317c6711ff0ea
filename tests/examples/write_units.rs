//! What a counted event costs, in DynamoDB write units as `ConsumedCapacity` reports them: four workloads, the real totals
//! store, the AWS SDK, the embedded DynamoDB in memory. Beside it what a plain `ADD` per event consumes, which is not
//! idempotent, measured in the same run.
//!
//! ```sh
//! cargo run --release -p recount-tests --example write_units
//! ```
//!
//! Keys are a millisecond apart, one counter per project and month, no duplicates, a cell of one measure; one writer, but for
//! the last workload: there four shards feed one cell at once, each batch is late against the others', and reads pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use futures::{StreamExt, TryStreamExt, stream};
use recount_consumer::totals::{Entry, Totals};
use recount_local::clients::Clients;
use recount_local::engines::{Engines, Options, Storage};
use recount_schemas::host::{Deadline, SystemHost};
use recount_schemas::{Amount, Cell, Definition, Delta, EventKey, Settings};

/// Requests in flight.
const CONCURRENCY: usize = 8;

struct Workload {
    name: &'static str,
    projects: usize,
    zipf: Option<f64>,
    batch: usize,
    events: usize,
    /// Batches that are applied at once.
    writers: usize,
}

const WORKLOADS: [Workload; 5] = [
    workload("one hot project, batches of 1,000", 1, None, 1_000, 200_000, 1),
    workload("10,000 projects, Zipf, batches of 1,000", 10_000, Some(1.05), 1_000, 50_000, 1),
    workload("100,000 projects, uniform, batches of 1,000", 100_000, None, 1_000, 20_000, 1),
    workload("one event per batch", 20, None, 1, 10_000, 1),
    workload("one hot project, batches of 250 from four shards at once", 1, None, 250, 50_000, 4),
];

const fn workload(
    name: &'static str,
    projects: usize,
    zipf: Option<f64>,
    batch: usize,
    events: usize,
    writers: usize,
) -> Workload {
    Workload { name, projects, zipf, batch, events, writers }
}

/// Draws a project: by rank with weight 1/rank^s, or evenly.
fn sampler(workload: &Workload) -> impl Fn(&mut fastrand::Rng) -> usize {
    let mut sums = Vec::new();
    if let Some(s) = workload.zipf {
        let mut sum = 0.0;
        for rank in 1..=workload.projects {
            sum += (rank as f64).powf(-s);
            sums.push(sum);
        }
    }
    let projects = workload.projects;
    move |rng| match sums.last() {
        Some(total) => {
            let at = rng.f64() * total;
            sums.partition_point(|sum| *sum < at)
        }
        None => rng.usize(0..projects),
    }
}

/// Units per event: written, read, and written by a plain ADD.
async fn run(workload: &Workload) -> Result<(f64, f64, f64)> {
    let dir = tempfile::tempdir()?;
    let host = SystemHost::shared();
    let options = Options { storage: Storage::Memory, ..Options::default() };
    let engines = Engines::open(dir.path(), Arc::clone(&host), options)?;
    let clients = Clients::new(&recount_local::client::in_process(engines.door()).await);
    let definition = Arc::new(Definition::parse(recount_local::pipeline::SCANS, "recount.toml")?);
    let settings = Settings::default();
    recount_local::setup::setup(&clients, &definition, &settings, 1, &host).await?;
    let totals = Totals::new(clients.dynamodb.clone(), &settings, Arc::clone(&definition), Arc::clone(&host));

    let mut rng = fastrand::Rng::with_seed(7);
    let draw = sampler(workload);
    let start = host.now_ms();
    let (mut written, mut read, mut sent) = (0.0, 0.0, 0);
    while sent < workload.events {
        // The events of one stretch of time, dealt out to the writers as shards would: each has some of every moment.
        let mut batches: Vec<BTreeMap<Cell, Vec<Entry>>> = vec![BTreeMap::new(); workload.writers];
        let all = workload.batch * workload.writers;
        for i in sent..(sent + all).min(workload.events) {
            let cell =
                Cell { group: format!("project-{}", draw(&mut rng)).parse()?, month: "2026-11".parse()?, lane: 0 };
            let key = EventKey::new(start + i as i64, &i.to_be_bytes()).context("now does not fit a key")?;
            let bytes = Amount::from_billionths(1_000_000_000 * i128::from(rng.u16(..)));
            let delta = Delta { events: 1, sums: [bytes].into_iter().collect() };
            let batch = batches.get_mut(i % workload.writers).context("a writer for each")?;
            batch.entry(cell).or_default().push(Entry { key, delta });
        }
        sent += all;
        let work = batches.iter().flatten().map(|(cell, entries)| totals.apply(cell, entries, Deadline::NONE));
        let units = stream::iter(work)
            .buffer_unordered(CONCURRENCY)
            .try_fold(
                (0.0, 0.0),
                |(w, r), applied| async move { Ok((w + applied.write_units, r + applied.read_units)) },
            )
            .await?;
        (written, read) = (written + units.0, read + units.1);
    }
    let events = workload.events as f64;

    // The usual Lambda: one unconditional ADD per event.
    let naive_events = 2_000;
    let mut naive = 0.0;
    for _ in 0..naive_events {
        let answer = clients
            .dynamodb
            .update_item()
            .table_name(&settings.totals)
            .key("pk", AttributeValue::S(format!("naive-{}", draw(&mut rng))))
            .key("sk", AttributeValue::S("2026-11".into()))
            .update_expression("ADD #n :one, #b :bytes")
            .expression_attribute_names("#n", "events")
            .expression_attribute_names("#b", "sum_bytes")
            .expression_attribute_values(":one", AttributeValue::N("1".into()))
            .expression_attribute_values(":bytes", AttributeValue::N(rng.u16(..).to_string()))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await?;
        naive += answer.consumed_capacity().and_then(|c| c.capacity_units()).unwrap_or_default();
    }
    Ok((written / events, read / events, naive / f64::from(naive_events)))
}

#[tokio::main]
async fn main() -> Result<()> {
    println!(
        "| workload | events | write units per event | read units per event | write units of a plain ADD, not idempotent |"
    );
    println!("| --- | --- | --- | --- | --- |");
    for workload in &WORKLOADS {
        let (written, read, naive) = run(workload).await?;
        println!("| {} | {} | {written:.3} | {read:.3} | {naive:.2} |", workload.name, workload.events);
    }
    Ok(())
}
