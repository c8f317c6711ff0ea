//! Invariant 9 when a repair dies: cut off at each of its requests, before it is sent or when its answer is on the way, and then
//! made again by the same plan. And two repairs by one plan at once, among writers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use recount_compactor::context::Context;
use recount_compactor::contributions::Scope;
use recount_compactor::reconcile::Verdict;
use recount_compactor::repair::apply::Step;
use recount_compactor::repair::plan::Plan;
use recount_compactor::repair::proof::Proof;
use recount_compactor::repair::{repair, repair_by};
use recount_local::inproc::InProcess;
use recount_local::pipeline::Options;
use recount_schemas::Cell;
use recount_schemas::items::{PK, RECENT, SK, cell_sk};
use tokio::sync::Notify;

use crate::support::naive::{self, Scan};
use crate::support::records::{self, Change};
use crate::support::world::{World, definition, options};

/// 2026-11-10, in seconds.
const AT: i64 = 1_794_300_000;

/// A client that stops at one of its requests.
#[derive(Clone, Debug)]
struct Cut {
    inner: InProcess,
    made: Arc<AtomicUsize>,
    at: usize,
    /// Whether that request is still sent, and only its answer is never seen.
    sent: bool,
    reached: Arc<AtomicBool>,
    notify: Arc<Notify>,
}

impl HttpConnector for Cut {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let cut = self.clone();
        HttpConnectorFuture::new(async move {
            if cut.made.fetch_add(1, Ordering::SeqCst) != cut.at {
                return cut.inner.send(request).await;
            }
            // Before it is sent: on a busy machine the SDK may give the attempt up meanwhile.
            cut.reached.store(true, Ordering::SeqCst);
            if cut.sent {
                let _ = cut.inner.send(request).await;
            }
            cut.notify.notify_one();
            std::future::pending().await
        })
    }
}

impl HttpClient for Cut {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

fn cell(project: &str) -> Cell {
    Cell { group: project.parse().unwrap(), month: naive::month(AT).parse().unwrap(), lane: 0 }
}

fn changes(start_us: i64, projects: &[&str], from: i64, to: i64) -> Vec<Change> {
    let one = |(project, n): (&str, i64)| {
        let scan = Scan { project: project.to_owned(), at: AT + n, bytes: 1_000 + n };
        let id = format!("{project}-{n}");
        records::change(&format!("event-{id}"), &id, Some(&scan), None, start_us + n * 1_000_000)
    };
    (from..to).flat_map(|n| projects.iter().map(move |project| (*project, n))).map(one).collect()
}

async fn world() -> (World, Vec<Change>) {
    let world = World::start(&definition(""), Options { shards: 1, ..options() }).await;
    let all = changes(world.host.now_us() - 3_600_000_000, &["high", "short", "fine"], 0, 30);
    world.put_changes(&all).await;
    world.pipeline.drained().await.unwrap();
    (world, all)
}

async fn edit(world: &World, cell: &Cell, update: &str, values: &[(&str, AttributeValue)]) {
    let mut edit = world.pipeline.clients().dynamodb.update_item().table_name(&world.settings().totals);
    edit = edit.key(PK, AttributeValue::S(cell.group.to_string()));
    edit = edit.key(SK, AttributeValue::S(cell_sk(cell.month, 0))).update_expression(update);
    for (name, value) in values {
        edit = edit.expression_attribute_values(*name, value.clone());
    }
    edit.send().await.unwrap();
}

/// One number is too high by five; in another cell an event is lost, key and count.
async fn damage(world: &World) {
    edit(world, &cell("high"), "ADD events :n", &[(":n", AttributeValue::N("5".into()))]).await;
    let of = cell("short");
    let look = world.pipeline.context().totals.look(&of).await.unwrap().unwrap();
    let lost = *look.recent.first().unwrap();
    let lost = AttributeValue::Bs(vec![lost.as_bytes().to_vec().into()]);
    let one = AttributeValue::N("-1".into());
    edit(world, &of, &format!("ADD events :n DELETE {RECENT} :k"), &[(":n", one), (":k", lost)]).await;
}

/// Applies the plan with a client that stops at request `at`. Whether it came to it.
async fn cut_at(world: &World, plan: &Plan, at: usize, sent: bool) -> bool {
    let (reached, notify) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
    let client = Cut {
        inner: InProcess::new(world.engines.door().clone()),
        made: Arc::default(),
        at,
        sent,
        reached: Arc::clone(&reached),
        notify: Arc::clone(&notify),
    };
    let sdk = aws_config::defaults(BehaviorVersion::latest())
        .region(aws_config::Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url("http://127.0.0.1")
        .http_client(client)
        .load()
        .await;
    let whole = world.pipeline.context();
    let context = Context::new(&sdk, whole.settings.clone(), (*whole.definition).clone(), Arc::clone(&whole.host));
    let everything = Scope::all();
    let repairing = Box::pin(repair_by(&context, plan.clone(), &everything, true, &|_| {}));
    tokio::select! {
        done = repairing => {
            done.unwrap();
        }
        () = notify.notified() => {}
    }
    reached.load(Ordering::SeqCst)
}

async fn assert_right(world: &World, all: &[Change]) {
    assert_eq!(world.totals().await, naive::inserts(all.iter().filter_map(|change| change.new.as_ref())));
    assert_eq!(world.reconcile().await.verdict, Verdict::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_a_repair_that_is_cut_off_at_any_request_is_completed_by_the_same_plan() {
    let (world, all) = world().await;
    let context = world.pipeline.context();
    let mut at = 0;
    loop {
        damage(&world).await;
        let planned = repair(context, &Scope::all(), false, &|_| {}).await.unwrap();
        let plan = planned.plans[0].plan.clone();
        assert_eq!(plan.cells.len(), 2);
        let reached = cut_at(&world, &plan, at, at % 2 == 0).await;
        let report = repair_by(context, plan.clone(), &Scope::all(), true, &|_| {}).await.unwrap();
        assert!(report.is_done(), "cut at {at}: {:?}", report.applied);
        let proof = Proof::fetch(&context.bucket, &report.reports[0]).await.unwrap();
        assert_eq!((proof.plan.as_str(), proof.reconciled.verdict), (report.plans[0].hash.as_str(), Verdict::Clean));
        assert!(proof.cells.iter().all(|cell| cell.after.as_ref().is_some_and(|after| after.events == 30)));
        assert_right(&world, &all).await;
        if !reached {
            break;
        }
        // What comes behind the writes is the verifying reconcile.
        at += if at < 30 { 1 } else { 7 };
    }
    assert!(at > 10, "the repair made only {at} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_two_repairs_by_one_plan_at_once_among_writers_are_one() {
    let (world, mut all) = world().await;
    let context = world.pipeline.context();
    for round in 0..3 {
        damage(&world).await;
        let planned = repair(context, &Scope::all(), false, &|_| {}).await.unwrap();
        let plan = &planned.plans[0].plan;
        let fresh = changes(world.host.now_us(), &["high", "short"], 100 * (round + 1), 100 * (round + 1) + 20);
        let everything = Scope::all();
        let by = || repair_by(context, plan.clone(), &everything, true, &|_| {});
        let (first, second, ()) = tokio::join!(Box::pin(by()), Box::pin(by()), world.put_changes(&fresh));
        all.extend(fresh);
        for report in [first.unwrap(), second.unwrap()] {
            assert!(report.applied.iter().all(|cell| matches!(cell.number, Step::Done | Step::DoneBefore)));
        }
        world.pipeline.drained().await.unwrap();
        assert_right(&world, &all).await;
    }
}
