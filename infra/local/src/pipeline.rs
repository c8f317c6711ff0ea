//! The pipeline's parts, running against the engines: what Lambda and the scheduler do on AWS.
//!
//! ```text
//! source table's stream ─► relay ─► Kinesis ─► consumer        two event source mappings
//!                                      └─────► compactor       a schedule
//! ```
//!
//! The parts are the ones that are deployed; they reach the engines through the AWS SDK. Only the mappings read them directly, since
//! on AWS they are AWS's side.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use bytes::Bytes;
use recount_compactor::archive::{ArchiveError, ArchiveReport, Archiver, Kinesis as ArchiveSource, Limits, Until};
use recount_compactor::context::Context;
use recount_consumer::handler::{self, Consumer, HandlerError};
use recount_consumer::metrics::Metrics;
use recount_consumer::report::BatchReport;
use recount_producer::relay::{Relay, RelaySettings};
use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::{Definition, Settings};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clients::Clients;
use crate::engines::Engines;
use crate::faults::{Faults, Faulty};
use crate::io;
use crate::mapping::streams::DynamoSource;
use crate::mapping::{Chaos, Checkpoints, Config, Function, FunctionError, KinesisSource, Mapping, OnFailure};
use crate::setup::{SetupError, setup};

mod sets;

/// The definition of the first use, for when none is given.
pub const SCANS: &str = include_str!("../recount.toml");
/// Where batches are kept that a mapping gave up.
pub const ON_FAILURE: &str = "on-failure/";

/// How long a function may take for a batch: Lambda's timeout of a deployment.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long after a failure a mapping is started again.
const RESTART: Duration = Duration::from_secs(1);
/// How long a stopping pipeline waits for batches in flight. They are safe to cut: they come again.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the pipeline runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Shards of the stream, where it is made.
    pub shards: i32,
    /// Most records in a batch of the consumer.
    pub batch_size: usize,
    /// How long records are gathered for a batch of the consumer.
    pub window: Duration,
    /// How often a failing batch of the consumer is tried again before it is given up.
    pub retries: u32,
    /// How often the compactor archives; `None`: only when asked.
    pub archive_every: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: 2,
            batch_size: 1_000,
            window: Duration::from_millis(200),
            retries: 10,
            archive_every: Some(Duration::from_secs(5)),
        }
    }
}

/// The pipeline does not start, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A set that is to be fed.
    #[error(transparent)]
    Set(#[from] recount_compactor::context::ContextError),
    /// Its tables, stream or bucket cannot be made.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The consumer refuses to start.
    #[error(transparent)]
    Consumer(#[from] HandlerError),
    /// A mapping.
    #[error(transparent)]
    Mapping(#[from] crate::mapping::Error),
    /// The mappings' positions.
    #[error("the mappings' positions cannot be opened: {0}")]
    Checkpoints(#[from] rusqlite::Error),
    /// The archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The compactor's thread.
    #[error("the compactor's thread cannot be started: {0}")]
    Thread(std::io::Error),
}

/// The running pipeline.
pub struct Pipeline {
    context: Context,
    clients: Clients,
    relay: Mapping<DynamoSource>,
    consumer: Mapping<KinesisSource>,
    archiver: Archiver,
    tally: Tally,
    faults: Faults,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// What the consumer's batches came to, added up.
#[derive(Debug, Clone, Default)]
struct Tally(Arc<Mutex<BatchReport>>);

impl Tally {
    fn add(&self, report: &BatchReport) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(report);
    }

    fn read(&self) -> BatchReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct RelayFunction {
    relay: Relay,
    host: SharedHost,
}

#[async_trait]
impl Function for RelayFunction {
    async fn invoke(&self, payload: Bytes) -> Result<Vec<u8>, FunctionError> {
        let deadline = Deadline::after(&*self.host, TIMEOUT);
        let answer = self.relay.handle(&payload, deadline).await.map_err(|e| FunctionError::Failed(e.to_string()))?;
        serde_json::to_vec(&answer).map_err(|e| FunctionError::Failed(e.to_string()))
    }
}

struct ConsumerFunction {
    consumer: Consumer,
    tally: Tally,
    host: SharedHost,
}

#[async_trait]
impl Function for ConsumerFunction {
    async fn invoke(&self, payload: Bytes) -> Result<Vec<u8>, FunctionError> {
        let deadline = Deadline::after(&*self.host, TIMEOUT);
        let report =
            self.consumer.process(&payload, deadline).await.map_err(|e| FunctionError::Failed(e.to_string()))?;
        self.tally.add(&report);
        serde_json::to_vec(&handler::response(&report)).map_err(|e| FunctionError::Failed(e.to_string()))
    }
}

/// What feeds one home: the base, or a set.
#[derive(Clone)]
struct Feed {
    kinesis: crate::kinesis::Kinesis,
    sdk: SdkConfig,
    s3: aws_sdk_s3::Client,
    checkpoints: Checkpoints,
    host: SharedHost,
    options: Options,
}

impl Feed {
    /// The mapping that feeds the totals which `settings` names. Its positions are its own.
    async fn consumer(
        &self,
        settings: &Settings,
        definition: &Arc<Definition>,
        tally: &Tally,
        faults: &Faults,
    ) -> Result<Mapping<KinesisSource>, PipelineError> {
        let (clients, host) = (handler::Clients::new(&self.sdk), Arc::clone(&self.host));
        let consumer = Consumer::new(&clients, settings, Arc::clone(definition), host, Metrics::none());
        consumer.start().await?;
        let function = ConsumerFunction { consumer, tally: tally.clone(), host: Arc::clone(&self.host) };
        let set = settings.set.as_ref().map(|set| format!("-{set}")).unwrap_or_default();
        Ok(Mapping::new(
            KinesisSource::new(self.kinesis.clone(), &settings.stream),
            Arc::new(Faulty::new(function, faults.clone())),
            Config {
                name: format!("consumer{set}"),
                batch_size: self.options.batch_size,
                window: self.options.window,
                bisect: true,
                max_retries: Some(self.options.retries),
                ..Config::default()
            },
            self.checkpoints.clone(),
            Arc::clone(&self.host),
            Some(Arc::new(FailureBucket {
                s3: self.s3.clone(),
                bucket: settings.bucket.clone(),
                prefix: settings.prefix(),
            })),
        )?)
    }
}

struct FailureBucket {
    s3: aws_sdk_s3::Client,
    bucket: String,
    prefix: String,
}

#[async_trait]
impl OnFailure for FailureBucket {
    async fn put(&self, key: &str, body: Bytes) -> Result<(), String> {
        let put = self
            .s3
            .put_object()
            .bucket(&self.bucket)
            .key(format!("{}{ON_FAILURE}{key}", self.prefix))
            .body(body.into());
        put.send().await.map(drop).map_err(|e| recount_schemas::causes(&e))
    }
}

impl Pipeline {
    /// Makes what is missing and starts the parts. `positions` is the file in which the mappings keep how far they are.
    ///
    /// # Errors
    /// When something cannot be made, or the totals are another definition's.
    pub async fn start(
        engines: &Engines,
        sdk: &SdkConfig,
        positions: &Path,
        settings: Settings,
        definition: Definition,
        host: SharedHost,
        options: &Options,
    ) -> Result<Self, PipelineError> {
        let clients = Clients::new(sdk);
        setup(&clients, &definition, &settings, options.shards, &host).await?;
        let context = Context::new(sdk, settings, definition, Arc::clone(&host));
        let definition = Arc::clone(&context.definition);
        let settings = &context.settings;
        let checkpoints = Checkpoints::open(positions)?;

        let relay = Relay::new(
            recount_producer::clients::kinesis(sdk),
            recount_producer::clients::s3(sdk, true),
            RelaySettings::new(&settings.stream, &settings.bucket),
            Arc::clone(&host),
        );
        let relay = Mapping::new(
            DynamoSource::new(engines.dynamo().database().clone(), &definition.table, Arc::clone(&host)),
            Arc::new(RelayFunction { relay, host: Arc::clone(&host) }),
            Config { name: "relay".into(), batch_size: 1_000, poll: Duration::from_millis(50), ..Config::default() },
            checkpoints.clone(),
            Arc::clone(&host),
            None,
        )?;

        let (tally, faults) = (Tally::default(), Faults::default());
        let feed = Feed {
            kinesis: engines.kinesis().clone(),
            sdk: sdk.clone(),
            s3: clients.s3.clone(),
            checkpoints,
            host: Arc::clone(&host),
            options: options.clone(),
        };
        let consumer = feed.consumer(settings, &definition, &tally, &faults).await?;

        let archiver = Archiver::new(
            context.bucket.clone(),
            ArchiveSource::new(clients.kinesis.clone(), settings.stream.as_str()),
            definition,
            Arc::clone(&host),
        )
        .with_limits(Limits::default().unpaced());
        let sets = sets::Watcher { feed, context: context.clone() };

        let stop = watch::channel(false).0;
        let mut tasks = JoinSet::new();
        spawn_mapping(&mut tasks, "relay", relay.clone(), Arc::clone(&host), stop.subscribe());
        spawn_mapping(&mut tasks, "consumer", consumer.clone(), Arc::clone(&host), stop.subscribe());
        let stopped = stop.subscribe();
        tasks.spawn(async move { sets.watch(stopped).await });
        if let Some(every) = options.archive_every {
            let (archiver, stopped) = (archiver.clone(), stop.subscribe());
            let thread = own_thread(move || schedule(archiver, every, host, stopped));
            tasks.spawn(thread.map_err(PipelineError::Thread)?);
        }
        Ok(Self { context, clients, relay, consumer, archiver, tally, faults, stop, tasks })
    }

    /// What the commands of `recount` work with.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The SDK's clients.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Redelivery on demand, between the stream and the consumer.
    pub fn chaos(&self) -> &Chaos {
        self.consumer.chaos()
    }

    /// Crashes of the consumer on demand.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What the consumer's batches have come to since the start.
    pub fn tally(&self) -> BatchReport {
        self.tally.read()
    }

    /// Waits until every change made so far has gone through relay and consumer.
    ///
    /// # Errors
    /// When a mapping cannot say how far it is.
    pub async fn drained(&self) -> Result<(), PipelineError> {
        self.relay.drained().await?;
        Ok(self.consumer.drained().await?)
    }

    /// How many records the consumer is behind.
    ///
    /// # Errors
    /// When the mapping cannot say how far it is.
    pub fn behind(&self) -> Result<u64, PipelineError> {
        Ok(self.consumer.lag()?.records)
    }

    /// Archives to the tip, now.
    ///
    /// # Errors
    /// What the archiver says.
    pub async fn archive(&self) -> Result<ArchiveReport, PipelineError> {
        Ok(self.archiver.run(Until::Tip, Deadline::NONE).await?)
    }

    /// Stops: batches in flight are finished if that takes no more than a few seconds, and come again if not.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let patience = self.context.host.sleep(PATIENCE);
        tokio::select! {
            () = async { while self.tasks.join_next().await.is_some() {} } => {}
            () = patience => tracing::warn!("parts were still busy; what was in flight comes again"),
        }
    }
}

/// Runs a mapping until it is stopped. What ends it otherwise (its file could not be written, say) is waited out and it is
/// started again, from the positions that it kept; only a kill that was asked for is final.
fn spawn_mapping<S: crate::mapping::Source + 'static>(
    tasks: &mut JoinSet<()>,
    name: &'static str,
    mapping: Mapping<S>,
    host: SharedHost,
    stop: watch::Receiver<bool>,
) {
    tasks.spawn(async move {
        while let Err(error) = mapping.run(stop.clone()).await {
            tracing::error!(%error, name, "the mapping ended");
            if matches!(error, crate::mapping::Error::Killed) || *stop.borrow() {
                return;
            }
            host.sleep(RESTART).await;
        }
    });
}

/// Runs a future on a thread of its own, as the compactor is a process of its own: sorting and compressing then hold up
/// no batch. Completes when the thread is done.
fn own_thread<F: Future<Output = ()>>(
    make: impl FnOnce() -> F + Send + 'static,
) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let (done, ended) = tokio::sync::oneshot::channel::<()>();
    let runtime = io::runtime(Builder::new_current_thread())?;
    std::thread::Builder::new().name("compactor".to_owned()).spawn(move || {
        runtime.block_on(make());
        drop(done);
    })?;
    Ok(async { drop(ended.await) })
}

/// Archives to the tip, again and again.
async fn schedule(archiver: Archiver, every: Duration, host: SharedHost, mut stop: watch::Receiver<bool>) {
    loop {
        let round = async {
            host.sleep(every).await;
            match archiver.run(Until::Tip, Deadline::NONE).await {
                Ok(report) => tracing::debug!(rows = report.rows, "archived"),
                Err(error) => tracing::warn!(%error, "archiving failed; the next round goes on"),
            }
        };
        // A run that is cut leaves what the next one finishes: that is what its log is for.
        tokio::select! {
            () = round => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
