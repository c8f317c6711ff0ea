//! Invariant 10, held of every answered invocation of the consumer: a bad record delays no good one.
//!
//! A bad record is one that nobody can read, by the oracle. Of a batch that has some:
//!
//! | what struck the invocation | then, when its answer goes out |
//! | --- | --- |
//! | nothing at the tables, whatever became of quarantine | each good record is settled: in its cells' ledgers, or on their too-old lists |
//! | the same | nothing comes again from before the first bad record |
//! | nothing at all | nothing comes again, and the bad records are in quarantine |
//!
//! Struck is an invocation in which a fault befell a request, an answer took longer than [`SLOW_US`](crate::network::SLOW_US)
//! one way, or the process stood still. One that met so many other writers that it may have given up for their sake is not
//! held to this: then it is not the bad record that delays.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use recount_consumer::report::BatchReport;
use recount_schemas::quarantine;
use recount_schemas::{SequenceNumber, ShardId};
use serde_json::Value;

use crate::checks;
use crate::network::Put;
use crate::oracle::{self, Change};
use crate::process::Process;
use crate::world::World;

/// Refused updates that no invocation gives up a cell for: it does for one more of the same cell (`Tuning::refusals`).
const FEW_REFUSALS: u64 = 40;
/// An invocation that took longer may have come near its deadline, ms.
const LONG_MS: u64 = 30_000;

/// What had befallen a process when a batch was given to it.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    tables: u64,
    objects: u64,
    /// Whether it stood still already.
    stood: bool,
}

/// See [`Before`].
pub fn before(process: &Process) -> Before {
    let (tables, objects) = process.struck();
    Before { tables, objects, stood: process.stands() }
}

struct Record {
    shard: ShardId,
    sequence: SequenceNumber,
    /// `None`: nobody can read it.
    change: Option<Change>,
}

/// The records of a Lambda event.
fn records(world: &World, payload: &[u8]) -> Vec<Record> {
    let event: Value = serde_json::from_slice(payload).unwrap();
    let records = event["Records"].as_array().unwrap().iter().map(|record| {
        let (shard, sequence) = record["eventID"].as_str().unwrap().split_once(':').unwrap();
        let arrived = record["kinesis"]["approximateArrivalTimestamp"].as_f64().unwrap();
        let put = Put {
            shard: shard.to_owned(),
            sequence: sequence.to_owned(),
            data: STANDARD.decode(record["kinesis"]["data"].as_str().unwrap()).unwrap(),
            arrived_us: (arrived * 1e3).round() as i64 * 1_000,
        };
        let change = oracle::read(&put, world.plan.net, world.plan.lanes);
        Record { shard: put.shard.parse().unwrap(), sequence: put.sequence.parse().unwrap(), change }
    });
    records.collect()
}

/// An invocation has answered. See the module.
pub async fn held(
    world: &Arc<World>,
    process: &Process,
    before: Before,
    payload: &[u8],
    answer: Result<&BatchReport, &str>,
) {
    let (tables, objects) = process.struck();
    let (tables, objects) = (tables != before.tables, objects != before.objects);
    if tables || before.stood {
        return;
    }
    let records = records(world, payload);
    let Some(bad) = records.iter().find(|record| record.change.is_none()) else { return };
    let report = match answer {
        Ok(report) => report,
        Err(_) if objects => return,
        Err(why) => {
            return world
                .violated(10, format!("{} fails as a whole, with a bad record and no fault: {why}", process.name));
        }
    };
    // Where quarantine failed, it was tried till the deadline; the cells come before it.
    let long = report.duration_ms > LONG_MS && !objects;
    if report.retries > FEW_REFUSALS || report.failed_seals > 0 || long {
        return;
    }
    let cells = match checks::cells(world).await {
        Ok(cells) => cells,
        Err(error) => return world.violated(3, format!("a cell cannot be read: {error}")),
    };
    for record in &records {
        let Some(change) = &record.change else { continue };
        let waits = change.adds.keys().find(|cell| {
            let settled = cells.get(cell).is_some_and(|seen| seen.settles(&change.key));
            !settled && !checks::may_be_forgotten(world, &change.key)
        });
        if let Some(cell) = waits {
            let (at, bad) = (&record.sequence, &bad.sequence);
            world.violated(
                10,
                format!(
                    "{} had {at} beside {bad}, which nobody can read, and did not count it in {cell:?}",
                    process.name
                ),
            );
        }
    }
    let again = report.lowest_failed.values().min();
    match again {
        Some(again) if *again < bad.sequence || !objects => {
            let bad = &bad.sequence;
            world.violated(10, format!("{again} and all behind it come again, though only {bad} is bad"));
        }
        _ => {}
    }
    if !objects {
        let aside = checks::objects(world, quarantine::PREFIX).await;
        for record in records.iter().filter(|record| record.change.is_none()) {
            if !aside.contains_key(&quarantine::object_key(&record.shard, &record.sequence)) {
                world.violated(1, format!("{} was done with, and is not in quarantine", record.sequence));
            }
        }
    }
}
