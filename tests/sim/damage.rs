//! Somebody edits the totals: reconcile must tell which cells, and repair must put them right, whatever happens to it on
//! the way, and change nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use futures::TryStreamExt;
use recount_compactor::contributions::Scope;
use recount_compactor::reconcile::{Kind, Verdict, reconcile};
use recount_compactor::repair::plan::Plan;
use recount_compactor::repair::{repair, repair_by};
use recount_consumer::cell::Look;
use recount_schemas::Cell;
use recount_schemas::items::cell_sk;

use crate::checks;
use crate::faults::Fault;
use crate::network::OPERATOR;
use crate::oracle::{Oracle, Pair};
use crate::parts;
use crate::process::Doom;
use crate::world::{World, put};

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

/// One repair in a process of its own, which may die: by a plan of its own, or by one that others have, too.
async fn one(world: Arc<World>, plan: Option<Plan>) {
    let process = world.process(OPERATOR);
    if !world.is_calm() && world.draw() < 0.7 {
        let writes = world.draw() < 0.5;
        let n = world.draw() * if writes { 6.0 } else { 150.0 };
        process.doom(Doom::After(n as u64), writes);
    }
    let context = parts::context(&world, &process);
    let done = match plan {
        None => process.run(repair(&context, &Scope::all(), true, &|_| {})).await,
        Some(plan) => process.run(repair_by(&context, plan, &Scope::all(), true, &|_| {})).await,
    };
    let said =
        done.map(|done| done.map(|report| (report.plans.len(), report.applied.len())).map_err(|e| e.to_string()));
    world.trace(format!("{}: repair: {said:?}", process.name));
}

/// What all changes of a cell come to, where each has one content.
fn due(oracle: &Oracle) -> BTreeMap<Cell, Pair> {
    let mut due: BTreeMap<Cell, Pair> = BTreeMap::new();
    for change in oracle.changes.values().filter_map(|contents| contents.first()) {
        for (cell, (events, bytes)) in &change.adds {
            let pair = due.entry(cell.clone()).or_default();
            *pair = (pair.0 + events, pair.1 + bytes);
        }
    }
    due
}

/// What is wrong with each cell, by its number.
fn errors(totals: &BTreeMap<Cell, Pair>, due: &BTreeMap<Cell, Pair>) -> BTreeMap<Cell, Pair> {
    let cells: BTreeSet<&Cell> = totals.keys().chain(due.keys()).collect();
    let of = |cells: &BTreeMap<Cell, Pair>, cell: &Cell| cells.get(cell).copied().unwrap_or_default();
    let error = |cell: &Cell| {
        let ((events, bytes), (due_events, due_bytes)) = (of(totals, cell), of(due, cell));
        (events - due_events, bytes - due_bytes)
    };
    cells.into_iter().map(|cell| (cell.clone(), error(cell))).collect()
}

/// After repairs that died, came twice and met each other, each number is as it was, or right; or on the way, where an
/// event is to be counted again. Never is it wrong in another way: then something was applied twice.
fn part_way(world: &World, before: &BTreeMap<Cell, Pair>, after: &BTreeMap<Cell, Pair>) {
    for (cell, error) in after {
        let was = before.get(cell).copied().unwrap_or_default();
        // An event that was taken from the ledger: its number comes first, then the event.
        let on_the_way = was == (0, 0) && error.0.abs() <= 1;
        if *error != was && *error != (0, 0) && !on_the_way {
            world.violated(9, format!("{cell:?} was wrong by {was:?}, and repairs made it wrong by {error:?}"));
        }
    }
}

/// See the module.
pub async fn damage(world: &Arc<World>, oracle: &Oracle) {
    let damaged = plant(world).await;
    let process = world.process(OPERATOR);
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
    let plan = match repair(&context, &Scope::all(), false, &|_| {}).await {
        Ok(report) => report.plans.into_iter().next().map(|named| named.plan),
        Err(error) => return world.violated(9, format!("a plan cannot be made in a calm: {error}")),
    };
    let before = errors(&checks::totals(world).await, &due(oracle));
    // Several operators at once, in any weather, while events flow.
    world.set_calm(false);
    let mut at_once = tokio::task::JoinSet::new();
    let source = world.process("source");
    let (writer, records) = (Arc::clone(world), world.plan.more.clone());
    at_once.spawn_local(async move {
        for few in records.chunks(3) {
            put(&writer, &source, few.to_vec()).await;
            writer.clock.sleep(Duration::from_secs_f64(4.0 * writer.draw())).await;
        }
    });
    for _ in 0..3 {
        let plan = plan.clone().filter(|_| world.draw() < 0.5);
        at_once.spawn_local(one(Arc::clone(world), plan));
        world.clock.sleep(Duration::from_secs_f64(5.0 * world.draw())).await;
    }
    while at_once.join_next().await.is_some() {}
    world.set_calm(true);
    // What they sent may still be on its way, and what is in the stream is counted.
    world.clock.sleep(Duration::from_secs(2 * 3_600)).await;
    let oracle = world.oracle();
    let told_for_ever = world.has(Fault::Ancient) || world.has(Fault::Variant);
    if !told_for_ever {
        part_way(world, &before, &errors(&checks::totals(world).await, &due(&oracle)));
    }
    for round in 0..ROUNDS {
        let process = world.process(OPERATOR);
        let context = parts::context(world, &process);
        match repair(&context, &Scope::all(), true, &|_| {}).await {
            Ok(report) if report.plans.is_empty() => {
                let verdict = report.reconciled.as_ref().map(|report| report.verdict);
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
    checks::counted(world, &oracle).await;
}
