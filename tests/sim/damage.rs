//! Somebody edits the totals: reconcile must tell which cells, and repair must put them right, whatever happens to it on
//! the way, and change nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use futures::TryStreamExt;
use recount_compactor::contributions::Scope;
use recount_compactor::reconcile::{Kind, Verdict, reconcile};
use recount_compactor::repair::repair;
use recount_consumer::cell::Look;
use recount_schemas::Cell;
use recount_schemas::items::cell_sk;

use crate::checks;
use crate::faults::Fault;
use crate::oracle::Oracle;
use crate::parts;
use crate::process::Doom;
use crate::world::World;

/// Most rounds of repair until nothing is left to do.
const ROUNDS: usize = 6;

async fn edit(world: &World, cell: &Cell, expression: &str, value: AttributeValue) {
    let update = world.clients.dynamodb.update_item().table_name(&world.settings.totals);
    let update = update
        .key("pk", AttributeValue::S(cell.group.to_string()))
        .key("sk", AttributeValue::S(cell_sk(cell.month, cell.lane)))
        .update_expression(expression)
        .expression_attribute_values(":v", value);
    update.send().await.unwrap();
}

/// Plants damage in some cells and says in which.
async fn plant(world: &World) -> BTreeSet<Cell> {
    let mut cells: Vec<(Cell, Look)> = world.admin.totals.scan_cells().try_collect().await.unwrap();
    let mut damaged = BTreeSet::new();
    for _ in 0..3 {
        if cells.is_empty() {
            break;
        }
        let (cell, look) = cells.swap_remove((world.draw() * cells.len() as f64) as usize);
        let kind = (world.draw() * 4.0) as u8;
        let by = |most: f64| (1 + (world.draw() * most) as i64).to_string();
        // A key so old that its page might have expired is taken as counted: to take it away changes nothing.
        let fresh = look.recent.iter().find(|key| !checks::may_be_forgotten(world, key));
        match (kind, fresh) {
            (0, _) => edit(world, &cell, "ADD events :v", AttributeValue::N(by(9.0))).await,
            (1, _) => edit(world, &cell, "ADD events :v", AttributeValue::N(format!("-{}", by(9.0)))).await,
            (2, Some(key)) => {
                let keys = AttributeValue::Bs(vec![Blob::new(key.as_bytes().to_vec())]);
                edit(world, &cell, "DELETE recent :v", keys).await;
            }
            _ => edit(world, &cell, "ADD sum_bytes :v", AttributeValue::N(by(1e6))).await,
        }
        world.note_fault(Fault::Damage);
        world.trace(format!("damage {kind} in {cell:?}"));
        damaged.insert(cell);
    }
    damaged
}

/// One repair in a process of its own, which may die.
async fn one(world: Arc<World>) {
    let process = world.process("operator");
    if !world.is_calm() && world.draw() < 0.7 {
        let writes = world.draw() < 0.5;
        let n = world.draw() * if writes { 6.0 } else { 150.0 };
        process.doom(Doom::After(n as u64), writes);
    }
    let context = parts::context(&world, &process);
    let done = process.run(repair(&context, &Scope::all(), true, &|_| {})).await;
    let said =
        done.map(|done| done.map(|report| (report.plans.len(), report.applied.len())).map_err(|e| e.to_string()));
    world.trace(format!("{}: repair: {said:?}", process.name));
}

/// See the module.
pub async fn damage(world: &Arc<World>, oracle: &Oracle) {
    let damaged = plant(world).await;
    let process = world.process("operator");
    let context = parts::context(world, &process);
    match reconcile(&context, &Scope::all(), &|_| {}).await {
        Ok(reconciled) => {
            let findings = &reconciled.report.findings;
            // That a change came with two contents is told for ever, damage or not.
            let told = findings.iter().filter(|finding| finding.kind != Kind::Conflicting);
            let found: BTreeSet<Cell> = told.filter_map(|finding| finding.cell()).collect();
            // Where events may have come too late, a difference may be theirs.
            if !damaged.is_subset(&found) && !world.has(Fault::Ancient) {
                world.violated(8, format!("damage in {damaged:?}, but reconcile finds {findings:?}"));
            }
            if found.iter().any(|cell| !damaged.contains(cell)) && !world.has(Fault::Ancient) {
                world.violated(8, format!("damage in {damaged:?} alone, but reconcile finds {findings:?}"));
            }
        }
        Err(error) => return world.violated(8, format!("reconcile fails in a calm: {error}")),
    }
    // Several operators at once, in any weather.
    world.set_calm(false);
    let mut operators = tokio::task::JoinSet::new();
    for _ in 0..2 {
        operators.spawn_local(one(Arc::clone(world)));
        world.clock.sleep(Duration::from_secs_f64(5.0 * world.draw())).await;
    }
    while operators.join_next().await.is_some() {}
    world.set_calm(true);
    // What they sent may still be on its way.
    world.clock.sleep(Duration::from_secs(2 * 3_600)).await;
    for round in 0..ROUNDS {
        let process = world.process("operator");
        let context = parts::context(world, &process);
        match repair(&context, &Scope::all(), true, &|_| {}).await {
            Ok(report) if report.plans.is_empty() => {
                let verdict = report.reconciled.as_ref().map(|report| report.verdict);
                let told_for_ever = world.has(Fault::Ancient) || world.has(Fault::Variant);
                if verdict != Some(Verdict::Clean) && !told_for_ever {
                    world.violated(9, format!("repair has nothing to do, but all is not well: {report:?}"));
                }
                break;
            }
            Ok(report) if round + 1 == ROUNDS => {
                world.violated(9, format!("repair still finds work after {ROUNDS} rounds: {report:?}"));
            }
            Ok(_) => {}
            Err(error) => return world.violated(9, format!("repair fails in a calm: {error}")),
        }
    }
    checks::counted(world, oracle).await;
}
