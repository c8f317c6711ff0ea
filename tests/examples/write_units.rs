//! What a counted event costs, in DynamoDB write units as `ConsumedCapacity` reports them: four workloads, the real totals
//! store, the AWS SDK, the embedded DynamoDB in memory. Beside it what a plain `ADD` per event consumes, which is not
//! idempotent, measured in the same run.
//!
//! ```sh
//! cargo run --release -p recount-tests --example write_units
//! ```
//!
//! Keys are a millisecond apart, one writer, one counter per project and month, no duplicates; a cell of one measure.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
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
}

const WORKLOADS: [Workload; 4] = [
    Workload { name: "one hot project, batches of 1,000", projects: 1, zipf: None, batch: 1_000, events: 200_000 },
    Workload {
        name: "10,000 projects, Zipf, batches of 1,000",
        projects: 10_000,
        zipf: Some(1.05),
        batch: 1_000,
        events: 200_000,
    },
    Workload { name: "100,000 projects, uniform", projects: 100_000, zipf: None, batch: 1_000, events: 200_000 },
    Workload { name: "one event per batch", projects: 20, zipf: None, batch: 1, events: 20_000 },
];

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

async fn run(workload: &Workload) -> Result<(f64, f64)> {
    let dir = tempfile::tempdir()?;
    let host = SystemHost::shared();
    let options = Options { storage: Storage::Memory, ..Options::default() };
    let engines = Engines::open(dir.path(), Arc::clone(&host), options)?;
    let clients = Clients::new(&recount_local::client::in_process(engines.door()).await);
    let definition = Arc::new(Definition::parse(recount_local::pipeline::SCANS, "recount.toml")?);
    let settings = Settings::default();
    recount_local::setup::setup(&clients, &definition, &settings, 1).await?;
    let totals = Totals::new(clients.dynamodb.clone(), &settings, Arc::clone(&definition), Arc::clone(&host));

    let mut rng = fastrand::Rng::with_seed(7);
    let draw = sampler(workload);
    let start = host.now_ms();
    let (mut units, mut sent) = (0.0, 0);
    while sent < workload.events {
        let mut cells: BTreeMap<Cell, Vec<Entry>> = BTreeMap::new();
        for i in sent..(sent + workload.batch).min(workload.events) {
            let cell =
                Cell { group: format!("project-{}", draw(&mut rng)).parse()?, month: "2026-11".parse()?, lane: 0 };
            let key = EventKey::new(start + i as i64, &i.to_be_bytes()).expect("now fits a key");
            let delta = Delta {
                events: 1,
                sums: [Amount::from_billionths(1_000_000_000 * i128::from(rng.u16(..)))].into_iter().collect(),
            };
            cells.entry(cell).or_default().push(Entry { key, delta });
        }
        sent += workload.batch;
        units += stream::iter(&cells)
            .map(|(cell, entries)| totals.apply(cell, entries, Deadline::NONE))
            .buffer_unordered(CONCURRENCY)
            .map_ok(|applied| applied.write_units)
            .try_fold(0.0, |sum, units| async move { Ok(sum + units) })
            .await?;
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
    Ok((units / events, naive / f64::from(naive_events)))
}

#[tokio::main]
async fn main() -> Result<()> {
    println!("| workload | events | write units per event | a plain ADD, not idempotent |\n| --- | --- | --- | --- |");
    for workload in &WORKLOADS {
        let (units, naive) = run(workload).await?;
        println!("| {} | {} | {units:.3} | {naive:.2} |", workload.name, workload.events);
    }
    Ok(())
}
