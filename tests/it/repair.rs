//! Repair among writers, and of what has no page any more.

use aws_sdk_dynamodb::types::AttributeValue;
use recount_compactor::contributions::Scope;
use recount_compactor::reconcile::Verdict;
use recount_compactor::repair::apply::Step;
use recount_compactor::repair::{Report, fetch, repair, repair_by};
use recount_local::pipeline::Options;
use recount_schemas::Cell;
use recount_schemas::items::{PK, SK, cell_sk, ledger_pk};

use crate::support::naive::{self, Scan};
use crate::support::records::{self, Change};
use crate::support::world::{World, definition, options};

/// 2026-11-10, in seconds.
const AT: i64 = 1_794_300_000;
const DAY_US: i64 = 86_400_000_000;

fn cell() -> Cell {
    Cell { group: "acme".parse().unwrap(), month: naive::month(AT).parse().unwrap(), lane: 0 }
}

/// Insertions `from..to` of one cell, created a minute apart, the first at `start_us`.
fn changes(start_us: i64, from: i64, to: i64) -> Vec<Change> {
    let change = |n: i64| {
        let scan = Scan { project: "acme".to_owned(), at: AT + n, bytes: 1_000 + n };
        records::change(&format!("event-{n}"), &format!("item-{n}"), Some(&scan), None, start_us + n * 60_000_000)
    };
    (from..to).map(change).collect()
}

/// One shard, so that the records come in the order of their creation.
async fn world() -> World {
    World::start(&definition(""), Options { shards: 1, ..options() }).await
}

async fn feed(world: &World, changes: &[Change]) {
    // A few at a time, so that the cell is sealed often.
    for few in changes.chunks(30) {
        world.put_changes(few).await;
        world.pipeline.drained().await.unwrap();
    }
}

async fn delete_cell(world: &World) {
    let delete = world.pipeline.clients().dynamodb.delete_item().table_name(&world.settings().totals);
    let delete = delete.key(PK, AttributeValue::S(cell().group.to_string()));
    delete.key(SK, AttributeValue::S(cell_sk(cell().month, 0))).send().await.unwrap();
}

async fn delete_pages(world: &World) -> usize {
    let (dynamo, ledger) = (&world.pipeline.clients().dynamodb, &world.settings().ledger);
    let query = dynamo.query().table_name(ledger).consistent_read(true).key_condition_expression("pk = :pk");
    let pages = query.expression_attribute_values(":pk", AttributeValue::S(ledger_pk(&cell()))).send().await.unwrap();
    for page in pages.items() {
        let delete = dynamo.delete_item().table_name(ledger);
        delete.key(PK, page[PK].clone()).key(SK, page[SK].clone()).send().await.unwrap();
    }
    pages.count() as usize
}

async fn assert_counts(world: &World, changes: &[Change]) {
    assert_eq!(world.totals().await, naive::inserts(changes.iter().filter_map(|c| c.new.as_ref())));
    assert_eq!(world.reconcile().await.findings, []);
}

async fn run(world: &World, confirm: bool) -> Report {
    repair(world.pipeline.context(), &Scope::all(), confirm, &|_| {}).await.unwrap()
}

fn steps(report: &Report) -> Vec<Step> {
    report.applied.iter().map(|cell| cell.number).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_a_deleted_cell_that_is_written_to_is_raised_first_and_put_right_by_the_next_plan() {
    let world = world().await;
    let start = world.host.now_us() - DAY_US;
    let all = changes(start, 0, 400);
    feed(&world, &all[..200]).await;
    delete_cell(&world).await;
    feed(&world, &all[200..210]).await;

    let planned = run(&world, false).await;
    let plan = planned.plans[0].plan.clone();
    assert!(plan.cells[0].raise.is_some(), "{plan:?}");
    // Between look and write the cell gets new events, and old ones whose pages are not in its ledger.
    feed(&world, &all[210..230]).await;
    feed(&world, &all[..10]).await;
    let context = world.pipeline.context();
    let report = repair_by(context, plan.clone(), &Scope::all(), true, &|_| {}).await.unwrap();
    assert_eq!(steps(&report), [Step::Raised]);
    assert_eq!(report.reconciled.unwrap().verdict, Verdict::Findings, "the number is for the next plan");
    let shown = repair_by(context, plan, &Scope::all(), false, &|_| {}).await.unwrap();
    assert!(!shown.is_done());

    // The next plan is not disturbed by what comes, not even by a sealing.
    let planned = run(&world, false).await;
    assert_eq!(planned.plans[0].plan.cells[0].raise, None);
    let plan = fetch(context, &planned.plans[0].hash).await.unwrap();
    feed(&world, &all[230..400]).await;
    feed(&world, &all[100..130]).await;
    let report = repair_by(context, plan.clone(), &Scope::all(), true, &|_| {}).await.unwrap();
    assert_eq!(steps(&report), [Step::Done]);
    assert_eq!(report.reconciled.unwrap().verdict, Verdict::Clean);
    assert_counts(&world, &all).await;

    let again = repair_by(context, plan.clone(), &Scope::all(), true, &|_| {}).await.unwrap();
    assert_eq!(steps(&again), [Step::DoneBefore]);
    assert!(repair_by(context, plan, &Scope::all(), false, &|_| {}).await.unwrap().is_done());
    feed(&world, &all).await;
    assert_counts(&world, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_4_a_copy_of_an_old_event_changes_no_total_though_its_cell_and_pages_were_lost() {
    let world = world().await;
    let all = changes(world.host.now_us() - 60 * DAY_US, 0, 120);
    feed(&world, &all).await;
    assert_counts(&world, &all).await;
    delete_cell(&world).await;
    assert!(delete_pages(&world).await > 0);
    let report = run(&world, true).await;
    assert_eq!(steps(&report), [Step::Done]);
    assert_counts(&world, &all).await;
    for copy in [&all[119..], &all[60..61], &all[..1]] {
        feed(&world, copy).await;
    }
    assert_eq!(world.pipeline.tally().too_old, 3);
    assert_counts(&world, &all).await;
}
