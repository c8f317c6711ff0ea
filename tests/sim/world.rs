//! One history: the engines, the parts and the network between them, from the first record to the last check.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::config::IdentityCache;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use recount_compactor::context::Context;
use recount_local::clients::Clients;
use recount_local::engines::{Engines, Options as EngineOptions, Storage};
use recount_local::inproc::InProcess;
use recount_local::io::BlockingWork;
use recount_local::mapping::streams::DynamoSource;
use recount_local::mapping::{Chaos, Checkpoints, Config, KinesisSource, Mapping, Source};
use recount_local::setup::setup;
use recount_producer::items::Scan;
use recount_producer::table::{Table, Write};
use recount_schemas::host::SharedHost;
use recount_schemas::{Definition, Settings};
use tokio::sync::watch;

use crate::capture;
use crate::checks;
use crate::clock::Clock;
use crate::faults::Fault;
use crate::network::{Client, MOST_REQUESTS, Network};
use crate::oracle::Oracle;
use crate::parts::{self, Lambda, Role};
use crate::plan::{Act, HOUR_US, MINUTE_US, Plan, SECOND_US, TableWrite, rng};
use crate::process::{Machine, Process, SdkTime};
use crate::source::Renamed;

/// How long after the last act everything that was sent has arrived, and everybody who stood still goes on.
const LATEST: u64 = 4 * HOUR_US;
/// How long it may then take until everything is counted and archived.
const LIVENESS: u64 = 6 * HOUR_US;
/// More time than any history takes.
const WATCHDOG: u64 = 60 * 24 * HOUR_US;

/// The longest that who writes waits before it tries again.
const PATIENCE: Duration = Duration::from_secs(300);

/// What did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's number; 0: liveness, or a part broke down.
    pub invariant: u8,
    pub at_us: u64,
    pub what: String,
}

/// What a history came to.
#[derive(Debug)]
pub struct Outcome {
    pub violations: Vec<Violation>,
    pub trace_hash: u64,
    pub trace: Vec<String>,
    pub virtual_us: u64,
    pub requests: u64,
    pub records: usize,
    pub struck: BTreeMap<Fault, u64>,
}

/// See the module.
pub struct World {
    pub plan: Plan,
    pub clock: Arc<Clock>,
    pub network: Arc<Network>,
    pub engines: Engines,
    pub settings: Settings,
    pub definition: Arc<Definition>,
    /// Looks and sets up without a network in between.
    pub admin: Context,
    pub clients: Clients,
    pub memory: Mutex<checks::Memory>,
    region: String,
    calm: AtomicBool,
    made: AtomicU64,
    state: Mutex<State>,
}

struct State {
    rng: fastrand::Rng,
    skew_us: i64,
    machines: Vec<Weak<Machine>>,
    violations: Vec<Violation>,
}

/// Regions are what the SDK tells its retry budgets apart by, so each history has its own: they would share one otherwise,
/// within this program.
static HISTORIES: AtomicU64 = AtomicU64::new(0);

fn sdk(
    client: impl aws_smithy_runtime_api::client::http::HttpClient + 'static,
    region: &str,
    time: SdkTime,
) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "simulation");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .identity_cache(IdentityCache::no_cache())
        .endpoint_url("http://127.0.0.1")
        .http_client(client)
        .time_source(time.clone())
        .sleep_impl(time)
        .build()
}

impl World {
    async fn new(plan: Plan, clock: &Arc<Clock>, dir: &Path) -> Arc<Self> {
        let aws = Machine::new(clock, plan.epoch_us, plan.seed ^ 0xa5a5);
        let host: SharedHost = aws.clone();
        let options = EngineOptions { work: BlockingWork::Inline, storage: Storage::Memory };
        let engines = Engines::open(dir, Arc::clone(&host), options).unwrap();
        let direct = InProcess::new(engines.door().clone());
        let network = Network::new(direct.clone(), clock, Arc::clone(&aws), plan.weather.clone(), plan.seed ^ 0x11);
        let region = format!("sim-{}", HISTORIES.fetch_add(1, Ordering::Relaxed));
        let admin = sdk(direct, &region, SdkTime(Arc::clone(&aws)));
        let settings = parts::settings();
        let definition = Definition::parse(&plan.definition(), "recount.toml").unwrap();
        let clients = Clients::new(&admin);
        setup(&clients, &definition, &settings, plan.shards, &host).await.unwrap();
        keep_for(&clients, &settings.stream, plan.retention_hours).await;
        let created_ms = life(&clients, &settings.stream).await;
        let context = Context::new(&admin, settings.clone(), definition.clone(), aws.clone());
        let state = State { rng: rng(plan.seed, "world"), skew_us: 0, machines: Vec::new(), violations: Vec::new() };
        Arc::new(Self {
            clock: Arc::clone(clock),
            network,
            engines,
            settings,
            definition: Arc::new(definition),
            admin: context,
            clients,
            memory: Mutex::new(checks::Memory::new(created_ms)),
            region,
            calm: AtomicBool::new(false),
            made: AtomicU64::new(0),
            state: Mutex::new(state),
            plan,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.plan.faults.contains(&fault)
    }

    /// Whether the stream may have dropped what nobody had archived.
    pub fn may_lose(&self) -> bool {
        let kept_us = self.plan.retention_hours as u64 * HOUR_US;
        // No compactor can die so often in a shorter history.
        self.has(Fault::Trim) || self.has(Fault::NewStream) || self.clock.now() > 2 * kept_us
    }

    /// A number from 0 to 1.
    pub fn draw(&self) -> f64 {
        self.state().rng.f64()
    }

    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub fn set_calm(&self, calm: bool) {
        self.calm.store(calm, Ordering::Relaxed);
        self.network.calm_down(calm);
    }

    pub fn trace(&self, line: String) {
        self.network.trace.note(line);
    }

    pub fn note_fault(&self, fault: Fault) {
        self.network.note_fault(fault);
    }

    pub fn violated(&self, invariant: u8, what: String) {
        self.trace(format!("VIOLATION of {invariant}: {what}"));
        let violation = Violation { invariant, at_us: self.clock.now(), what };
        self.state().violations.push(violation);
    }

    pub fn is_violated(&self) -> bool {
        !self.state().violations.is_empty()
    }

    /// A new process, on a machine of its own.
    pub fn process(&self, role: &str) -> Arc<Process> {
        let n = self.made.fetch_add(1, Ordering::Relaxed);
        let machine = Machine::new(&self.clock, self.plan.epoch_us, self.plan.seed.wrapping_mul(31).wrapping_add(n));
        let mut state = self.state();
        if self.has(Fault::Skew) {
            let own = state.rng.i64(-2_000_000..2_000_000);
            machine.set_skew(if state.rng.bool() { state.skew_us } else { own });
        }
        state.machines.retain(|machine| machine.strong_count() > 0);
        state.machines.push(Arc::downgrade(&machine));
        Process::new(format!("{role}-{n}"), machine)
    }

    pub fn sdk(&self, process: &Arc<Process>) -> SdkConfig {
        let client = Client { network: Arc::clone(&self.network), process: Arc::clone(process) };
        sdk(client, &self.region, SdkTime(Arc::clone(&process.machine)))
    }

    /// Perhaps lets a process stand still, some time from now.
    pub fn maybe_freeze(self: &Arc<Self>, process: &Arc<Process>, risk: f64, within: Duration, most_us: u64) {
        if self.is_calm() || self.draw() >= risk {
            return;
        }
        let (clock, process, world) = (Arc::clone(&self.clock), Arc::clone(process), Arc::clone(self));
        let begins = within.mul_f64(self.draw());
        let lasts = Duration::from_micros((most_us as f64 * self.draw().powi(3)) as u64);
        let monotonic = self.draw() < 0.5;
        tokio::spawn(async move {
            clock.sleep(begins).await;
            if !world.is_calm() {
                world.note_fault(Fault::Freeze);
                world.trace(format!("{} stands still for {lasts:?}", process.name));
                process.freeze(lasts, monotonic);
            }
        });
    }

    /// All that the stream has ever been given.
    pub fn oracle(&self) -> Oracle {
        Oracle::new(&self.network.puts(), self.plan.net, self.plan.lanes)
    }
}

/// When the stream that is there now was created, ms since 1970.
async fn life(clients: &Clients, stream: &str) -> i64 {
    checks::created_ms(&clients.kinesis.describe_stream_summary().stream_name(stream).send().await.unwrap())
}

async fn keep_for(clients: &Clients, stream: &str, hours: i32) {
    let now = clients.kinesis.describe_stream_summary().stream_name(stream).send().await.unwrap();
    let now = now.stream_description_summary().unwrap().retention_period_hours();
    if now > hours {
        let less = clients.kinesis.decrease_stream_retention_period().stream_name(stream);
        less.retention_period_hours(hours).send().await.unwrap();
    }
    if now < hours {
        let more = clients.kinesis.increase_stream_retention_period().stream_name(stream);
        more.retention_period_hours(hours).send().await.unwrap();
    }
}

type Mappings = (Mapping<Renamed>, Mapping<KinesisSource>);

fn mappings(world: &Arc<World>) -> Mappings {
    let checkpoints = Checkpoints::memory().unwrap();
    let host = Arc::clone(world.engines.kinesis().host());
    // Both are woken when there is something to do; they need not look for it often.
    let poll = Duration::from_secs(600);
    let backoff_most = Duration::from_secs(60);
    let (wake, wakes) = watch::channel(0);
    let source = DynamoSource::new(world.engines.dynamo().database().clone(), "scans", Arc::clone(&host));
    let source = Renamed { inner: source.woken_by(wakes), seed: world.plan.seed };
    let relay = Mapping::new(
        source,
        Arc::new(Lambda::new(world, Role::Relay)),
        Config {
            name: "relay".into(),
            batch_size: 20,
            bisect: world.plan.bisect,
            poll,
            backoff_most,
            ..Config::default()
        },
        checkpoints.clone(),
        Arc::clone(&host),
        None,
    );
    let consumer = Mapping::new(
        KinesisSource::new(world.engines.kinesis().clone(), &world.settings.stream),
        Arc::new(Lambda::new(world, Role::Consumer)),
        Config {
            name: "consumer".into(),
            batch_size: world.plan.batch_size,
            window: world.plan.window,
            bisect: world.plan.bisect,
            poll,
            backoff_most,
            ..Config::default()
        },
        checkpoints,
        host,
        None,
    );
    // The application's writes wake the relay as DynamoDB's would.
    let clock = Arc::clone(&world.clock);
    tokio::spawn(async move {
        loop {
            clock.sleep(Duration::from_secs(120)).await;
            wake.send_modify(|n| *n += 1);
        }
    });
    (relay.unwrap(), consumer.unwrap())
}

fn run_mapping<S: Source>(world: &Arc<World>, mapping: &Mapping<S>, name: &'static str, stop: &watch::Sender<bool>) {
    let (world, mapping, stop) = (Arc::clone(world), mapping.clone(), stop.subscribe());
    tokio::spawn(async move {
        if let Err(error) = mapping.run(stop).await {
            world.violated(0, format!("the mapping of the {name} ended: {error}"));
        }
    });
}

/// Puts records into the stream, until all are in it. An answer that is lost puts them twice, as at every source.
pub async fn put(world: &World, producer: &Arc<Process>, records: Vec<(String, Vec<u8>)>) {
    let kinesis = recount_producer::clients::kinesis(&world.sdk(producer));
    let mut left: Vec<PutRecordsRequestEntry> = records
        .into_iter()
        .map(|(key, data)| PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data)).build().unwrap())
        .collect();
    let mut pause = Duration::from_secs(1);
    while !left.is_empty() {
        let request = kinesis.put_records().stream_name(&world.settings.stream).set_records(Some(left.clone()));
        match request.send().await {
            Ok(answer) => {
                let answers = answer.records().iter().zip(left);
                left = answers.filter(|(a, _)| a.error_code().is_some()).map(|(_, entry)| entry).collect();
            }
            Err(error) => world.trace(format!("{}: {}", producer.name, recount_schemas::causes(&error))),
        }
        if !left.is_empty() {
            world.clock.sleep(pause).await;
            pause = (pause * 2).min(PATIENCE);
        }
    }
}

/// Writes the table as the application does: one write of an item after the other, each until it has succeeded.
async fn write_table(world: &World, producer: &Arc<Process>, mut writes: Vec<TableWrite>) {
    let dynamo = recount_producer::clients::dynamo(&world.sdk(producer));
    let table = Table::new(dynamo, "scans", producer.machine.clone());
    while !writes.is_empty() {
        let mut batch: Vec<Write> = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        let mut rest = Vec::new();
        for write in writes {
            let id = match &write {
                TableWrite::Put { id, .. } | TableWrite::Delete { id } => id.clone(),
            };
            if batch.len() == 25 || seen.contains(&id) {
                seen.push(id);
                rest.push(write);
                continue;
            }
            seen.push(id);
            batch.push(match write {
                TableWrite::Put { id, scan } => Write::Put(Scan {
                    file_name: format!("{id}.pdf"),
                    scan_id: id,
                    project_id: scan.project,
                    bytes: scan.bytes.unsigned_abs(),
                    sha256: "0".repeat(64),
                    verdict: "clean".to_owned(),
                    scanned_us: scan.at * 1_000_000,
                }),
                TableWrite::Delete { id } => Write::Delete(id),
            });
        }
        writes = rest;
        let mut pause = Duration::from_secs(5);
        while let Err(error) = table.write(&batch).await {
            world.trace(format!("{}: {}", producer.name, recount_schemas::causes(&error)));
            world.clock.sleep(pause).await;
            pause = (pause * 2).min(PATIENCE);
        }
    }
}

async fn reshard(world: &World, split: bool, pick: u64) {
    let (kinesis, stream) = (&world.clients.kinesis, &world.settings.stream);
    let listed = kinesis.list_shards().stream_name(stream).send().await.unwrap();
    let open = listed
        .shards()
        .iter()
        .filter(|shard| shard.sequence_number_range().is_some_and(|range| range.ending_sequence_number().is_none()));
    let mut open: Vec<(u128, u128, String)> = open
        .map(|shard| {
            let range = shard.hash_key_range().unwrap();
            let number = |text: &str| text.parse().unwrap();
            (number(range.starting_hash_key()), number(range.ending_hash_key()), shard.shard_id().to_owned())
        })
        .collect();
    open.sort();
    let at = pick as usize % open.len();
    world.note_fault(Fault::Reshard);
    if split && open.len() < 8 {
        let (low, high, id) = &open[at];
        let middle = low + (high - low) / 2;
        let request = kinesis.split_shard().stream_name(stream).shard_to_split(id);
        let done = request.new_starting_hash_key(middle.to_string()).send().await;
        world.trace(format!("split {id}: {}", done.is_ok()));
    } else if open.len() > 1 {
        let (one, other) = (&open[at.min(open.len() - 2)], &open[at.min(open.len() - 2) + 1]);
        let request = kinesis.merge_shards().stream_name(stream).shard_to_merge(&one.2);
        let done = request.adjacent_shard_to_merge(&other.2).send().await;
        world.trace(format!("merge {} and {}: {}", one.2, other.2, done.is_ok()));
    }
}

async fn redeliver(world: &World, chaos: &Chaos, pick: u64, records: u64, repeats: u32, lost_answers: u32) {
    world.note_fault(Fault::Redelivery);
    let listed = world.clients.kinesis.list_shards().stream_name(&world.settings.stream).send().await.unwrap();
    let shards = listed.shards();
    let shard = shards[pick as usize % shards.len()].shard_id();
    world.trace(format!("redeliver {records} of {shard}, {repeats} batches twice, {lost_answers} answers lost"));
    chaos.rewind(shard, records);
    chaos.repeat(repeats);
    chaos.lose_answers(lost_answers);
}

async fn new_stream(world: &World) {
    let (kinesis, stream) = (&world.clients.kinesis, &world.settings.stream);
    world.note_fault(Fault::NewStream);
    world.trace("the stream is deleted and made anew".to_owned());
    kinesis.delete_stream().stream_name(stream).send().await.unwrap();
    kinesis.create_stream().stream_name(stream).shard_count(world.plan.shards).send().await.unwrap();
    keep_for(&world.clients, stream, world.plan.retention_hours).await;
    let created_ms = life(&world.clients, stream).await;
    let mut memory = world.memory.lock().unwrap_or_else(PoisonError::into_inner);
    memory.new_streams.push(world.network.puts().len());
    memory.lives.push(created_ms);
}

/// Parts with another definition must refuse to work, and change nothing.
async fn other_definition(world: &Arc<World>) {
    world.note_fault(Fault::OtherDefinition);
    let text = world.plan.definition().replace("project_id", "file_name");
    let other = Arc::new(Definition::parse(&text, "recount.toml").unwrap());
    let log = world.admin.log().await.unwrap();
    let (claimed, begun) = (world.admin.totals.read_definition_hash().await.unwrap().is_some(), log.last.is_some());
    if claimed {
        let process = world.process("other-consumer");
        if let Some(Ok(())) = process.run(parts::consumer(world, &process, &other).start()).await {
            world.violated(2, "a consumer starts with another definition".to_owned());
        }
    }
    if begun {
        let process = world.process("other-compactor");
        let done = parts::archive_by(world, &process, &other).await;
        if let Some(Ok(report)) = done
            && report.commits > 0
        {
            world.violated(6, format!("a compactor commits under another definition: {report:?}"));
        }
    }
}

fn skew(world: &World, us: i64) {
    world.note_fault(Fault::Skew);
    world.trace(format!("clocks jump to {us} µs off"));
    let mut state = world.state();
    state.skew_us = us;
    for (i, machine) in state.machines.iter().filter_map(Weak::upgrade).enumerate() {
        if i % 2 == 0 {
            machine.set_skew(us);
        }
    }
}

async fn live(world: &Arc<World>) {
    let (relay, consumer) = mappings(world);
    let stop = watch::channel(false).0;
    run_mapping(world, &relay, "relay", &stop);
    run_mapping(world, &consumer, "consumer", &stop);
    tokio::task::spawn_local(parts::compactor(Arc::clone(world)));
    let mut writers = tokio::task::JoinSet::new();
    for (at, act) in world.plan.acts.clone() {
        world.clock.sleep_until(at).await;
        if world.is_violated() {
            return;
        }
        match act {
            Act::Stream(records) => {
                let (world, producer) = (Arc::clone(world), world.process("source"));
                writers.spawn_local(async move { put(&world, &producer, records).await });
            }
            Act::Table(writes) => {
                let (world, producer) = (Arc::clone(world), world.process("application"));
                writers.spawn_local(async move { write_table(&world, &producer, writes).await });
            }
            Act::Reshard { split, pick } => reshard(world, split, pick).await,
            Act::Redeliver { pick, records, repeats, lost_answers } => {
                redeliver(world, consumer.chaos(), pick, records, repeats, lost_answers).await;
            }
            Act::Reconcile => drop(tokio::task::spawn_local(parts::operator(Arc::clone(world), false))),
            Act::Repair => drop(tokio::task::spawn_local(parts::operator(Arc::clone(world), true))),
            Act::OtherDefinition => other_definition(world).await,
            Act::Skew(us) => skew(world, us),
            Act::Look => checks::look(world).await,
            Act::NewStream => new_stream(world).await,
        }
    }
    world.clock.sleep_until(world.plan.end_us).await;
    world.trace("nothing goes wrong any more".to_owned());
    world.set_calm(true);
    skew_off(world);
    while writers.join_next().await.is_some() {}
    world.clock.sleep(Duration::from_micros(LATEST)).await;

    let until = world.clock.now() + LIVENESS;
    loop {
        let lag = (relay.lag().map(|lag| lag.records), consumer.lag().map(|lag| lag.records));
        if let (Ok(0), Ok(0)) = lag {
            break;
        }
        if world.clock.now() > until {
            world.violated(0, format!("not everything is counted after {} h of calm: {lag:?}", LIVENESS / HOUR_US));
            return;
        }
        world.clock.sleep(Duration::from_micros(30 * SECOND_US)).await;
    }
    // Batches that were counted as done may still be worked on a second time.
    world.clock.sleep(Duration::from_micros(2 * MINUTE_US)).await;
    checks::look(world).await;
    capture::relayed(world);
    checks::end(world).await;
    stop.send_replace(true);
}

fn skew_off(world: &World) {
    let mut state = world.state();
    state.skew_us = 0;
    state.machines.iter().filter_map(Weak::upgrade).for_each(|machine| machine.set_skew(0));
}

/// Where objects are kept: in memory, where the machine has such a place.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// Lives through a history.
pub fn history(plan: Plan) -> Outcome {
    #[cfg(feature = "bugs")]
    recount_schemas::bugs::make_small(plan.small);
    fastrand::seed(plan.seed); // the SDK draws the jitter of its retries from the thread's generator
    let clock = Arc::new(Clock::default());
    let dir = tempfile::Builder::new().prefix("recount-sim-").tempdir_in(scratch()).unwrap();
    crate::clock::run(&clock, async {
        let world = World::new(plan, &clock, dir.path()).await;
        let watchdog = clock.sleep(Duration::from_micros(WATCHDOG));
        tokio::select! {
            biased;
            () = live(&world) => {}
            () = watchdog => world.violated(0, "the history does not end".to_owned()),
        }
        if world.network.requests() > MOST_REQUESTS {
            world.violated(0, format!("more than {MOST_REQUESTS} requests: something turns in a circle"));
        }
        Outcome {
            violations: world.state().violations.clone(),
            trace_hash: world.network.trace.hash(),
            trace: world.network.trace.lines(),
            virtual_us: clock.now(),
            requests: world.network.requests(),
            records: world.network.puts().len(),
            struck: world.network.struck(),
        }
    })
}

/// Time as the plan counts it, by the engines' clock.
pub fn now_ms(world: &World) -> i64 {
    world.engines.kinesis().host().now_ms()
}
