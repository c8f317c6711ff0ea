//! Items of the totals, the ledger and the progress that something else wrote.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue as V;
use recount_compactor::contributions::Scope;
use recount_compactor::explain::explain;
use recount_compactor::reconcile::{Kind, ReconcileError, Verdict, reconcile};
use recount_compactor::repair::apply::Step;
use recount_compactor::repair::plan::{CellPlan, Plan};
use recount_compactor::repair::{repair, repair_by};
use recount_compactor::usage::usage;
use recount_local::pipeline::Options;
use recount_schemas::items::{cell_sk, ledger_pk, progress_pk};
use recount_schemas::{Cell, Delta, EventKey};

use crate::support::naive::{self, Scan};
use crate::support::records::{Change, change};
use crate::support::world::{World, definition, options};

/// An instant in November 2026.
const AT: i64 = 1_795_000_000;

fn n(text: &str) -> V {
    V::N(text.to_owned())
}

fn s(text: &str) -> V {
    V::S(text.to_owned())
}

fn b(bytes: &[u8]) -> V {
    V::B(Blob::new(bytes))
}

/// What a cell's item can have that we never write.
fn foreign() -> Vec<(&'static str, Vec<(&'static str, V)>)> {
    let many = "9".repeat(38);
    vec![
        ("events a text", vec![("events", s("7"))]),
        ("events a fraction", vec![("events", n("1.5"))]),
        ("events with 38 digits", vec![("events", n(&many))]),
        ("a sum a text", vec![("sum_bytes", s("7"))]),
        ("a sum beyond exactness", vec![("sum_bytes", n("1e-40"))]),
        ("a sum beyond 38 digits", vec![("sum_bytes", n("1e60"))]),
        ("recent a list", vec![("recent", V::L(vec![s("x")]))]),
        ("recent a set of texts", vec![("recent", V::Ss(vec!["x".to_owned()]))]),
        ("recent with a short key", vec![("recent", V::Bs(vec![Blob::new("abc")]))]),
        ("sealed a text", vec![("sealed", s("x"))]),
        ("sealed too short", vec![("sealed", b(b"abc"))]),
        ("epoch a text", vec![("epoch", s("x"))]),
        ("epoch negative", vec![("epoch", n("-1"))]),
        ("epoch beyond 64 bits", vec![("epoch", n(&many))]),
        ("repair a number", vec![("repair", n("1"))]),
        ("the format a text", vec![("v", s("one"))]),
        (
            "a list of everything",
            vec![("events", V::L(vec![])), ("recent", V::M(HashMap::new())), ("v", V::Null(true))],
        ),
    ]
}

fn cell(group: &str) -> Cell {
    Cell { group: group.parse().unwrap(), month: naive::month(AT).parse().unwrap(), lane: 0 }
}

async fn put(world: &World, table: &str, pk: &str, sk: V, attributes: &[(&str, V)]) {
    let mut put = world.pipeline.clients().dynamodb.put_item().table_name(table).item("pk", s(pk)).item("sk", sk);
    for (name, value) in attributes {
        put = put.item(*name, value.clone());
    }
    put.send().await.unwrap();
}

async fn delete(world: &World, table: &str, pk: &str, sk: V) {
    world
        .pipeline
        .clients()
        .dynamodb
        .delete_item()
        .table_name(table)
        .key("pk", s(pk))
        .key("sk", sk)
        .send()
        .await
        .unwrap();
}

async fn item(world: &World, group: &str) -> BTreeMap<String, V> {
    let sk = s(&cell_sk(cell(group).month, 0));
    let get = world.pipeline.clients().dynamodb.get_item().table_name(&world.settings().totals);
    let answer = get.key("pk", s(group)).key("sk", sk).consistent_read(true).send().await.unwrap();
    answer.item.unwrap_or_default().into_iter().collect()
}

fn events(world: &World, groups: &[String], each: usize, round: &str) -> Vec<Change> {
    let now = world.host.now_us();
    let mut changes = Vec::new();
    for i in 0..each {
        for (g, group) in groups.iter().enumerate() {
            let scan = Scan { project: group.clone(), at: AT, bytes: 10 + i as i64 };
            let id = format!("{round}-{g}-{i}");
            changes.push(change(&id, &id, Some(&scan), None, now - i as i64 * 1_000));
        }
    }
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_10_an_item_that_is_not_understood_holds_up_no_other_cell() {
    let world = World::start(&definition(""), Options { retries: 2, ..options() }).await;
    let (totals, ledger) = (world.settings().totals.clone(), world.settings().ledger.clone());
    let context = world.pipeline.context();
    let foreign = foreign();
    let mut bad: Vec<String> = (0..foreign.len()).map(|i| format!("bad-{i:02}")).collect();
    for (group, (_, attributes)) in bad.iter().zip(&foreign) {
        put(&world, &totals, group, s(&cell_sk(cell(group).month, 0)), attributes).await;
    }
    // A cell that is as it must be, with a page that is none: its events come late, so that the pages are searched.
    bad.push("bad-page".to_owned());
    let page = (ledger_pk(&cell("bad-page")), b(&[0xff; 40]));
    let sealed = [("v", n("1")), ("epoch", n("1")), ("sealed", b(EventKey::MAX.as_bytes()))];
    put(&world, &totals, "bad-page", s(&cell_sk(cell("bad-page").month, 0)), &sealed).await;
    put(&world, &ledger, &page.0, page.1.clone(), &[("keys", s("none"))]).await;
    // And an item that is no cell.
    put(&world, &totals, "notes\u{1b}[2J", s("hello"), &[("text", s("somebody's"))]).await;

    let good: Vec<String> = ["acme", "globex", "initech"].map(str::to_owned).to_vec();
    let all: Vec<String> = bad.iter().chain(&good).cloned().collect();
    let sent = events(&world, &all, 3, "first");
    world.put_changes(&sent).await;
    world.pipeline.drained().await.unwrap();

    let tally = world.pipeline.tally();
    assert_eq!((tally.failed, tally.unusable, tally.applied), (0, 3 * bad.len() as u64, 9), "{tally:?}");
    let usage_said = usage(&context.totals, None, None).await.unwrap();
    let counted: BTreeMap<String, i64> =
        usage_said.months.iter().map(|line| (line.group.to_string(), line.events)).collect();
    for group in &good {
        assert_eq!(counted.get(group), Some(&3), "{group}");
    }
    // All that are not understood are told of, but for the cell whose page is the trouble.
    assert_eq!(usage_said.unusable.len(), bad.len() - 1 + 1, "{:?}", usage_said.unusable);
    for (group, (what, attributes)) in bad.iter().zip(&foreign) {
        let now = item(&world, group).await;
        for (name, value) in attributes {
            let kept = match (value, now.get(*name)) {
                // What can be added to was added to, with the keys, in one write: of a number the odd part is still there, of a
                // set the odd key.
                (V::N(_), Some(V::N(_))) if ["events", "sum_bytes"].contains(name) => true,
                (V::Bs(odd), Some(V::Bs(set))) => odd.iter().all(|key| set.contains(key)),
                (value, found) => found == Some(value),
            };
            assert!(kept, "{what}: {name} is {:?} now", now.get(*name));
        }
    }

    let expected: BTreeSet<Option<Cell>> = bad.iter().map(|group| Some(cell(group))).chain([None]).collect();
    for _ in 0..2 {
        let report = world.reconcile().await;
        assert_eq!(report.verdict, Verdict::Findings);
        let found: BTreeSet<Option<Cell>> = report.findings.iter().map(|finding| finding.cell()).collect();
        assert_eq!(found, expected);
        assert!(report.findings.iter().all(|finding| finding.kind == Kind::Unusable), "{:#?}", report.findings);
        assert_eq!(report.findings.len(), expected.len());
    }
    let one = Scope { group: Some("acme".parse().unwrap()), ..Scope::all() };
    assert_eq!(reconcile(context, &one, &|_| {}).await.unwrap().report.verdict, Verdict::Clean);
    let refused = explain(context, &"bad-00".parse().unwrap(), cell("bad-00").month, |_| Ok(())).await.unwrap_err();
    assert!(matches!(&refused, ReconcileError::Unusable(why) if why.contains("bad-00")), "{refused}");
    explain(context, &"acme".parse().unwrap(), cell("acme").month, |_| Ok(())).await.unwrap();

    // Repair makes no plan for them, and a plan from elsewhere does not touch them, nor do they hold up its other cells.
    let before: Vec<_> = futures::future::join_all(all.iter().map(|group| item(&world, group))).await;
    let repaired = repair(context, &Scope::all(), true, &|_| {}).await.unwrap();
    assert!(repaired.plans.is_empty() && repaired.applied.is_empty(), "{repaired:?}");
    let to_add = |group: &String| CellPlan {
        cell: cell(group),
        seen: None,
        add: Delta { events: 1, sums: ["1".parse().unwrap()].into_iter().collect() },
        raise: None,
        missing: Vec::new(),
        void: Vec::new(),
        settled: Vec::new(),
    };
    // The cell with the foreign page is understood by itself: its number could be repaired.
    let broken: Vec<&String> = bad.iter().filter(|group| *group != "bad-page").collect();
    let plan = Plan {
        format: 1,
        definition: context.definition.hash().to_owned(),
        cells: broken.iter().map(|group| to_add(group)).collect(),
    };
    let report = repair_by(context, plan, &Scope::all(), true, &|_| {}).await.unwrap();
    assert!(report.applied.iter().all(|cell| cell.number == Step::Unusable), "{:?}", report.applied);
    let after: Vec<_> = futures::future::join_all(all.iter().map(|group| item(&world, group))).await;
    assert_eq!(before, after);

    // Mended: what was passed by is missing, and repair counts it.
    for group in &broken {
        delete(&world, &totals, group, s(&cell_sk(cell(group).month, 0))).await;
    }
    delete(&world, &totals, "notes\u{1b}[2J", s("hello")).await;
    delete(&world, &ledger, &page.0, page.1).await;
    let report = world.reconcile().await;
    let missing: BTreeSet<(Kind, Option<Cell>, u64)> =
        report.findings.iter().map(|finding| (finding.kind, finding.cell(), finding.count)).collect();
    assert_eq!(missing, bad.iter().map(|group| (Kind::Missing, Some(cell(group)), 3)).collect());
    let repaired = repair(context, &Scope::all(), true, &|_| {}).await.unwrap();
    assert_eq!(repaired.reconciled.unwrap().verdict, Verdict::Clean);
    let due = all.iter().map(|group| ((group.clone(), naive::month(AT)), (3, 33))).collect::<naive::Totals>();
    assert_eq!(world.totals().await, due);
    world.put_changes(&sent).await;
    world.pipeline.drained().await.unwrap();
    assert_eq!(world.totals().await, due, "all of it delivered again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_beside_the_cells_is_refused_by_name() {
    let world = World::start(&definition(""), options()).await;
    let (totals, progress) = (world.settings().totals.clone(), world.settings().progress.clone());
    let context = world.pipeline.context();
    let groups = ["acme".to_owned()];
    world.put_changes(&events(&world, &groups, 2, "a")).await;
    world.pipeline.drained().await.unwrap();
    assert_eq!(world.reconcile().await.verdict, Verdict::Clean);

    // Progress decides what is missing: one that is not understood leaves it undecided.
    let summary = world.pipeline.clients().kinesis.describe_stream_summary().stream_name(&world.settings().stream);
    let summary = summary.send().await.unwrap();
    let created = summary.stream_description_summary().unwrap().stream_creation_timestamp();
    let created = recount_consumer::millis::of_time(created).unwrap();
    let pk = progress_pk(&world.settings().stream, created);
    for (sk, attributes) in [
        (s("../shard\u{1b}[1m"), vec![("sequence", s("1"))]),
        (s("shardId-000000000777"), vec![("sequence", n("1"))]),
        (s("shardId-000000000777"), vec![("sequence", s("-1"))]),
        (s("shardId-000000000777"), vec![("v", n("2"))]),
    ] {
        put(&world, &progress, &pk, sk.clone(), &attributes).await;
        let refused = reconcile(context, &Scope::all(), &|_| {}).await.unwrap_err().to_string();
        assert!(refused.contains("recount-progress") && refused.contains("shard"), "{refused}");
        delete(&world, &progress, &pk, sk).await;
    }
    assert_eq!(world.reconcile().await.verdict, Verdict::Clean);

    // Whose totals these are: another hash, none, or none that is a text.
    let definition_item = "recount#definition";
    for attributes in [vec![("hash", s("0000"))], vec![("hash", n("1"))], vec![], vec![("v", n("2")), ("hash", s("x"))]]
    {
        put(&world, &totals, definition_item, s("definition"), &attributes).await;
        let refused = reconcile(context, &Scope::all(), &|_| {}).await.unwrap_err().to_string();
        assert!(refused.contains("recount-totals"), "{refused}");
        assert!(context.totals.claim_definition().await.is_err());
        assert!(repair(context, &Scope::all(), true, &|_| {}).await.is_err());
    }
}
