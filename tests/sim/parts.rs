//! The parts, each run as AWS or an operator runs it: a function behind its mapping, a compactor on its schedule, a
//! command. Processes are made, die, stand still, and are made again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use recount_compactor::archive::{ArchiveError, ArchiveReport, Archiver, Kinesis as ArchiveSource, Limits, Until};
use recount_compactor::bucket::Bucket;
use recount_compactor::compact::{self, CompactError, Compactor};
use recount_compactor::context::Context;
use recount_compactor::contributions::Scope;
use recount_compactor::reconcile::reconcile;
use recount_compactor::repair::repair;
use recount_consumer::handler::{self, AttemptTimeouts, Clients, Consumer};
use recount_consumer::metrics::Metrics;
use recount_consumer::totals::Totals;
use recount_consumer::tuning::Tuning;
use recount_local::mapping::{Function, FunctionError};
use recount_producer::relay::{Relay, RelaySettings};
use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::{Definition, Settings};
use tokio::sync::oneshot;

use crate::bystanders;
use crate::faults::Fault;
use crate::network::OPERATOR;
use crate::plan::{LEDGER_DAYS, MINUTE_US, Risk};
use crate::process::{Doom, Process};
use crate::verdicts::judge;
use crate::world::World;

/// Lambda's timeout of a deployment.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The numbers of the cells: small, so that few events go through all that many would.
pub fn tuning(world: &World) -> Tuning {
    let plan = &world.plan;
    Tuning {
        seal_at: plan.seal_at,
        keep_keys: plan.keep_keys,
        named_keys: plan.named_keys,
        write_keys: plan.write_keys,
        hard_limit: plan.hard_limit,
        ..Tuning::new(LEDGER_DAYS as u16)
    }
}

/// Which function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Consumer,
    Relay,
}

enum Part {
    Consumer(Consumer),
    Relay(Relay),
}

/// A running instance of a function: it works on one batch at a time.
struct Environment {
    process: Arc<Process>,
    part: Part,
}

/// A function, with as many instances as are needed at once.
pub struct Lambda {
    world: Arc<World>,
    role: Role,
    idle: Mutex<Vec<Arc<Environment>>>,
}

impl Lambda {
    pub fn new(world: &Arc<World>, role: Role) -> Self {
        Self { world: Arc::clone(world), role, idle: Mutex::default() }
    }

    fn risk(&self) -> Risk {
        match self.role {
            Role::Consumer => self.world.plan.consumer,
            Role::Relay => self.world.plan.relay,
        }
    }

    /// An instance that is free, or a new one, which starts as it would after a deployment.
    async fn environment(&self) -> Result<Arc<Environment>, String> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(environment) = idle {
            return Ok(environment);
        }
        let world = &self.world;
        let process = world.process(if self.role == Role::Consumer { "consumer" } else { "relay" });
        let part = match self.role {
            Role::Consumer => {
                let consumer = consumer(world, &process, &world.definition);
                match process.run(consumer.start()).await {
                    Some(Ok(())) => Part::Consumer(consumer),
                    Some(Err(error)) => return Err(format!("init: {error}")),
                    None => return Err("init: died".to_owned()),
                }
            }
            Role::Relay => {
                let sdk = world.sdk(&process);
                let settings = RelaySettings::new(&world.settings.stream, &world.settings.bucket);
                let (kinesis, s3) =
                    (recount_producer::clients::kinesis(&sdk), recount_producer::clients::s3(&sdk, true));
                Part::Relay(Relay::new(kinesis, s3, settings, process.machine.clone()))
            }
        };
        Ok(Arc::new(Environment { process, part }))
    }

    /// Starts work on a batch, which goes on whatever becomes of who waits for it.
    fn start(&self, environment: &Arc<Environment>, payload: Bytes) -> oneshot::Receiver<Option<Answer>> {
        let (answer, answered) = oneshot::channel();
        let (world, environment) = (Arc::clone(&self.world), Arc::clone(environment));
        tokio::spawn(async move {
            let process = &environment.process;
            let host: SharedHost = process.machine.clone();
            let deadline = Deadline::after(&*host, TIMEOUT);
            let before = bystanders::before(process);
            let done = match &environment.part {
                Part::Consumer(consumer) => {
                    let done = process.run(consumer.process(&payload, deadline)).await;
                    let done = done.map(|done| done.map_err(|error| error.to_string()));
                    if let Some(done) = &done {
                        let answer = done.as_ref().map_err(String::as_str);
                        bystanders::held(&world, process, before, &payload, answer).await;
                    }
                    done.map(|done| {
                        done.and_then(|report| {
                            serde_json::to_vec(&handler::response(&report)).map_err(|e| e.to_string())
                        })
                    })
                }
                Part::Relay(relay) => process.run(relay.handle(&payload, deadline)).await.map(|done| {
                    let answer = done.map_err(|e| e.to_string())?;
                    serde_json::to_vec(&answer).map_err(|e| e.to_string())
                }),
            };
            let _ = answer.send(done);
        });
        answered
    }

    /// What is to happen to the instance while it works on a batch.
    fn fate(&self, process: &Arc<Process>) {
        let (world, risk) = (&self.world, self.risk());
        if world.is_calm() {
            return;
        }
        if world.draw() < risk.dies {
            world.note_fault(if self.role == Role::Consumer { Fault::ConsumerDies } else { Fault::RelayDies });
            let writes = world.draw() < 0.5;
            let n = (world.draw() * if writes { 6.0 } else { 14.0 }) as u64;
            process.doom(if world.draw() < 0.5 { Doom::Before(n) } else { Doom::After(n) }, writes);
        }
        world.maybe_freeze(process, risk.freezes, Duration::from_secs(2), 20 * MINUTE_US);
    }
}

type Answer = Result<Vec<u8>, String>;

#[async_trait]
impl Function for Lambda {
    async fn invoke(&self, payload: Bytes) -> Result<Vec<u8>, FunctionError> {
        let world = &self.world;
        // Who waits for the same thing is woken in an order that tokio draws for itself. From here on the order is the seed's.
        let mut hasher = DefaultHasher::new();
        (world.plan.seed, &payload).hash(&mut hasher);
        world.clock.sleep(Duration::from_micros(hasher.finish() % 50_000)).await;
        let off = world.plan.relay_off.filter(|_| self.role == Role::Relay);
        if off.is_some_and(|(from, to)| (from..to).contains(&world.clock.now())) {
            return Err(FunctionError::Failed("switched off".to_owned()));
        }
        let environment = self.environment().await.map_err(FunctionError::Failed)?;
        self.fate(&environment.process);
        if self.role == Role::Consumer && !world.is_calm() && world.draw() < world.plan.doubled_batches {
            world.note_fault(Fault::TwoConsumers);
            if let Ok(second) = self.environment().await {
                let waits = Duration::from_micros((world.draw() * 2_000_000.0) as u64);
                let started = self.start(&second, payload.clone());
                world.clock.sleep(waits).await;
                drop(started);
            }
        }
        let name = environment.process.name.clone();
        let answered = self.start(&environment, payload);
        let over = world.clock.sleep(TIMEOUT);
        let answer = tokio::select! {
            biased;
            answer = answered => answer.ok().flatten(),
            () = over => {
                world.trace(format!("{name}: out of time"));
                // Mostly it is killed; what it had begun may go on for a while.
                if world.draw() < 0.7 {
                    environment.process.kill();
                }
                return Err(FunctionError::Failed("out of time".to_owned()));
            }
        };
        match answer {
            None => Err(FunctionError::Failed("died".to_owned())),
            Some(answer) => {
                world.trace(format!(
                    "{name}: {}",
                    answer.as_ref().map_or_else(Clone::clone, |answer| String::from_utf8_lossy(answer).into_owned())
                ));
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(environment);
                answer.map_err(FunctionError::Failed)
            }
        }
    }
}

/// A consumer in a process.
pub fn consumer(world: &World, process: &Arc<Process>, definition: &Arc<Definition>) -> Consumer {
    let clients = Clients::new(&world.sdk(process));
    let host: SharedHost = process.machine.clone();
    let totals = Totals::new(clients.dynamo.clone(), &world.settings, Arc::clone(definition), Arc::clone(&host));
    Consumer::new(&clients, &world.settings, Arc::clone(definition), host, Metrics::none())
        .with_totals(totals.with_tuning(tuning(world)))
}

fn limits(world: &World) -> Limits {
    let limits =
        Limits { commit_bytes: world.plan.commit_bytes, page_records: world.plan.page_records, ..Limits::default() };
    if world.plan.seed % 2 == 0 { limits.unpaced() } else { limits }
}

/// One run of the compactor in a process of its own.
pub async fn archive(world: &Arc<World>, process: &Arc<Process>) -> Option<Result<ArchiveReport, ArchiveError>> {
    archive_by(world, process, &world.definition).await
}

pub async fn archive_by(
    world: &Arc<World>,
    process: &Arc<Process>,
    definition: &Arc<Definition>,
) -> Option<Result<ArchiveReport, ArchiveError>> {
    let clients = Clients::within(&world.sdk(process), AttemptTimeouts::ARCHIVE);
    let host: SharedHost = process.machine.clone();
    let bucket = Bucket::new(clients.s3, world.settings.bucket.as_str(), Arc::clone(&host));
    let source = ArchiveSource::new(clients.kinesis, world.settings.stream.as_str());
    let archiver = Archiver::new(bucket, source, Arc::clone(definition), Arc::clone(&host)).with_limits(limits(world));
    let deadline = match world.is_calm() {
        true => Deadline::NONE,
        false => Deadline::after(&*host, Duration::from_secs(60 + (world.draw() * 840.0) as u64)),
    };
    process.run(archiver.run(Until::Tip, deadline)).await
}

/// The schedule of the compactor, for ever. Where there are two, both begin at about the same time.
pub async fn compactor(world: Arc<World>) {
    loop {
        let pause = world.plan.archive_every.mul_f64(0.5 + world.draw());
        world.clock.sleep(pause).await;
        let now = world.clock.now();
        if !world.is_calm() && world.plan.archive_pause.is_some_and(|(from, to)| (from..to).contains(&now)) {
            continue;
        }
        if world.has(Fault::TwoCompactors) && !world.is_calm() && world.draw() < 0.7 {
            world.note_fault(Fault::TwoCompactors);
            let (second, waits) = (Arc::clone(&world), Duration::from_secs_f64(world.draw() * world.draw()));
            tokio::task::spawn_local(async move {
                second.clock.sleep(waits).await;
                run_compactor(&second).await;
            });
        }
        if !world.is_calm() && world.draw() < world.plan.compacts {
            let times = if world.has(Fault::TwoCompactors) && world.draw() < 0.4 { 2 } else { 1 };
            for _ in 0..times {
                let (world, waits) = (Arc::clone(&world), Duration::from_secs_f64(2.0 * world.draw() * world.draw()));
                // Beside the archiver, which has uploads of its own on the way.
                tokio::task::spawn_local(async move {
                    world.clock.sleep(waits).await;
                    compact(&world).await;
                    if world.draw() < 0.5 {
                        run_compactor(&world).await;
                    }
                });
            }
        }
        run_compactor(&world).await;
    }
}

/// One compaction in a process of its own.
pub async fn compact(world: &Arc<World>) {
    let process = world.process("compaction");
    endanger(world, &process);
    let clients = Clients::within(&world.sdk(&process), AttemptTimeouts::ARCHIVE);
    let host: SharedHost = process.machine.clone();
    let bucket = Bucket::new(clients.s3, world.settings.bucket.as_str(), Arc::clone(&host));
    let limits = compact::Limits {
        file_bytes: world.plan.merged_bytes,
        inputs: world.plan.merged_inputs,
        grace: world.plan.grace,
        ..compact::Limits::default()
    };
    let compactor = Compactor::new(bucket, Arc::clone(&world.definition), Arc::clone(&host)).with_limits(limits);
    let deadline = match world.is_calm() {
        true => Deadline::NONE,
        false => Deadline::after(&*host, Duration::from_secs(60 + (world.draw() * 840.0) as u64)),
    };
    world.note_fault(Fault::Compaction);
    let done = process.run(compactor.run(None, deadline)).await;
    match &done {
        None => world.trace(format!("{}: died", process.name)),
        Some(Ok(report)) => world.trace(format!(
            "{}: {:?}, {} deleted, {} wait, races {}",
            process.name,
            report.months.iter().map(|(month, done)| (month.to_string(), done.outcome)).collect::<Vec<_>>(),
            report.deleted,
            report.waiting,
            report.races
        )),
        Some(Err(error)) => world.trace(format!("{}: {error}", process.name)),
    }
    match done {
        Some(Err(CompactError::Archive(error @ (ArchiveError::Log(_) | ArchiveError::Stuck { .. })))) => {
            world.violated(5, format!("a compaction says that the log is damaged: {error}"));
        }
        Some(Err(error @ (CompactError::Twice { .. } | CompactError::Differs { .. }))) => {
            world.violated(7, format!("a compaction says that the archive is damaged: {error}"));
        }
        _ => {}
    }
}

/// Perhaps lets a run of the compactor die or stand still.
fn endanger(world: &Arc<World>, process: &Arc<Process>) {
    let risk = world.plan.compactor;
    if !world.is_calm() && world.draw() < risk.dies {
        world.note_fault(Fault::CompactorDies);
        // Most of what it asks is reading; what matters is mostly where it writes.
        let writes = world.draw() < 0.6;
        let n = (world.draw() * if writes { 10.0 } else { 40.0 }) as u64;
        process.doom(if world.draw() < 0.5 { Doom::Before(n) } else { Doom::After(n) }, writes);
    }
    world.maybe_freeze(process, risk.freezes, Duration::from_secs(20), 180 * MINUTE_US);
}

async fn run_compactor(world: &Arc<World>) {
    let process = world.process("compactor");
    endanger(world, &process);
    let done = archive(world, &process).await;
    world.trace(format!("{}: {}", process.name, said(done.as_ref())));
    if let Some(Err(error @ (ArchiveError::Log(_) | ArchiveError::Stuck { .. }))) = &done {
        world.violated(5, format!("a compactor says that the log is damaged: {error}"));
    }
}

fn said<E: std::fmt::Display>(done: Option<&Result<ArchiveReport, E>>) -> String {
    match done {
        None => "died".to_owned(),
        Some(Ok(report)) => format!(
            "{} commits, {} rows, {} duplicates, races {}, tip {}",
            report.commits, report.rows, report.duplicates, report.races, report.reached_tip
        ),
        Some(Err(error)) => error.to_string(),
    }
}

/// The operator's surroundings in a process.
pub fn context(world: &World, process: &Arc<Process>) -> Context {
    let definition = Definition::clone(&world.definition);
    let mut context = Context::new(&world.sdk(process), world.settings.clone(), definition, process.machine.clone());
    context.totals = context.totals.with_tuning(tuning(world));
    context.limits = limits(world);
    context
}

/// The operator reconciles, or repairs what nobody damaged, while everything goes on.
pub async fn operator(world: Arc<World>, repairs: bool) {
    let process = world.process(OPERATOR);
    if !world.is_calm() && world.draw() < world.plan.operator.dies {
        world.note_fault(Fault::OperatorDies);
        process.doom(Doom::After((world.draw() * 60.0) as u64), false);
    }
    world.maybe_freeze(&process, world.plan.operator.freezes, Duration::from_secs(20), 60 * MINUTE_US);
    let context = context(&world, &process);
    if !repairs {
        let done = process.run(reconcile(&context, &Scope::all(), &|_| {})).await;
        judge(&world, &process.name, done.as_ref()).await;
        return;
    }
    match process.run(repair(&context, &Scope::all(), true, &|_| {})).await {
        None => world.trace(format!("{}: died", process.name)),
        Some(Err(error)) => world.trace(format!("{}: {error}", process.name)),
        Some(Ok(report)) if report.plans.is_empty() => world.trace(format!("{}: nothing to repair", process.name)),
        Some(Ok(report)) => {
            world.violated(8, format!("{} repairs what nobody damaged: {:?}", process.name, report.plans));
        }
    }
}

/// The settings of a system under simulation.
pub fn settings() -> Settings {
    Settings::default()
}
