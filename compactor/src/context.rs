//! What the operator's commands work with: the definition, the clients, the totals and the archive. Made once, from the
//! environment; nothing reads the environment after that.

use std::fs::File;
use std::sync::Arc;

use aws_config::SdkConfig;
use recount_consumer::handler::{AttemptTimeouts, Clients};
use recount_consumer::millis;
use recount_consumer::progress::Progress;
use recount_consumer::totals::{Totals, TotalsError};
use recount_schemas::definition::DefinitionError;
use recount_schemas::definition::file::MAX_FILE;
use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::{Definition, Home, Settings, bounded};

use crate::archive::finish::Catalog;
use crate::archive::{ArchiveError, ArchiveReport, Archiver, Kinesis, Limits, Until};
use crate::bucket::Bucket;
use crate::catalog;
use crate::log::{LogStore, State, StoreError};
use crate::reconcile::diff::Passed;
use crate::sets::{HomeError, SwitchError, home};
use crate::stack::Stack;

/// The definition, the clients, the totals and the archive.
#[derive(Debug, Clone)]
pub struct Context {
    /// The names of things.
    pub settings: Settings,
    /// What is counted.
    pub definition: Arc<Definition>,
    /// Time, randomness and sleep.
    pub host: SharedHost,
    /// DynamoDB.
    pub dynamo: aws_sdk_dynamodb::Client,
    /// Kinesis.
    pub kinesis: aws_sdk_kinesis::Client,
    /// The archive's bucket.
    pub bucket: Bucket,
    /// The totals and their ledger.
    pub totals: Totals,
    /// The consumer's progress.
    pub progress: Progress,
    /// Where readers by location find the archive's months; `None` where nobody reads so.
    pub catalog: Option<Arc<dyn Catalog>>,
    /// The deployment's stack, where it was named.
    pub stack: Option<Stack>,
    /// The bounds of an archive run.
    pub limits: Limits,
    /// What the clients were made from.
    pub sdk: SdkConfig,
}

/// Most archive runs in a row on the way to the tip: a day of them.
const MAX_RUNS: u32 = 96;

/// The surroundings of a command are not as they must be.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The definition could not be read.
    #[error("{path} could not be read: {source}; name the definition with --definition or RECOUNT_DEFINITION")]
    Unreadable {
        /// Its path.
        path: String,
        /// What happened.
        source: std::io::Error,
    },
    /// The definition is wrong.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// The totals are another definition's.
    #[error(
        "{table} holds the totals of definition {found}, not of this one ({ours}); use the definition that made them"
    )]
    OtherDefinition {
        /// The totals table.
        table: String,
        /// Its definition's hash.
        found: String,
        /// The hash of the definition in use.
        ours: String,
    },
    /// DynamoDB failed.
    #[error(transparent)]
    Totals(#[from] TotalsError),
    /// The archive's log could not be read.
    #[error(transparent)]
    Log(#[from] StoreError),
    /// What a set keeps of itself could not be read.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Which home is the current one could not be read.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The archiver failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The stream could not be described.
    #[error("stream {stream} could not be described: {why}")]
    Stream {
        /// Its name.
        stream: String,
        /// What happened.
        why: String,
    },
}

/// Where the definition of a home comes from.
#[derive(Debug, Clone)]
pub enum Given {
    /// The command line names it. A set's own must be the same.
    Named(Definition),
    /// A deployment has it for its base.
    Deployed(Definition),
    /// The file of the settings, for the base.
    File,
}

/// Reads a definition.
pub fn read_definition(path: &str) -> Result<Definition, ContextError> {
    let unreadable = |source| ContextError::Unreadable { path: path.to_owned(), source };
    let text = File::open(path).and_then(|file| bounded::text(file, MAX_FILE)).map_err(unreadable)?;
    Ok(Definition::parse(&text, path)?)
}

impl Context {
    /// Everything behind one configuration of the SDK.
    pub fn new(sdk: &SdkConfig, settings: Settings, definition: Definition, host: SharedHost) -> Self {
        let definition = Arc::new(definition);
        let Clients { dynamo, kinesis, s3 } = Clients::within(sdk, AttemptTimeouts::ARCHIVE);
        let bucket = Bucket::new(s3, settings.bucket.as_str(), host.clone()).below(&settings.prefix());
        let totals = Totals::new(dynamo.clone(), &settings, Arc::clone(&definition), host.clone());
        let progress = Progress::new(dynamo.clone(), &settings, host.clone());
        let catalog = catalog::of(sdk, &settings, &host);
        Self {
            settings,
            definition,
            host,
            dynamo,
            kinesis,
            bucket,
            totals,
            progress,
            catalog,
            stack: None,
            limits: Limits::default(),
            sdk: sdk.clone(),
        }
    }

    /// A home of the deployment whose base `base` names. The definition of a set is the one that is kept with it.
    pub async fn open(
        sdk: &SdkConfig,
        base: &Settings,
        home: &Home,
        given: Given,
        host: SharedHost,
    ) -> Result<Self, ContextError> {
        let Some(set) = home.set() else {
            let settings = base.base();
            let definition = match given {
                Given::Named(definition) | Given::Deployed(definition) => definition,
                Given::File => read_definition(&settings.definition)?,
            };
            return Ok(Self::new(sdk, settings, definition, host));
        };
        let settings = base.of_set(set);
        let Clients { s3, .. } = Clients::within(sdk, AttemptTimeouts::ARCHIVE);
        let bucket = Bucket::new(s3, settings.bucket.as_str(), host.clone()).below(&settings.prefix());
        let kept = home::definition(&bucket, set).await?.ok_or_else(|| HomeError::NoSuchSet(set.clone()))?;
        let definition = match given {
            Given::Named(given) => {
                home::same(set, &kept, &given)?;
                given
            }
            Given::Deployed(_) | Given::File => kept,
        };
        Ok(Self::new(sdk, settings, definition, host))
    }

    /// A home beside this one, with its definition.
    pub fn beside(&self, home: &Home, definition: Definition) -> Self {
        let base = self.settings.base();
        let settings = home.set().map_or_else(|| base.clone(), |set| base.of_set(set));
        Self { limits: self.limits, ..Self::new(&self.sdk, settings, definition, self.host.clone()) }
    }

    /// Which home this is.
    pub fn home(&self) -> Home {
        self.settings.set.clone().into()
    }

    /// The base's bucket, in which all homes are.
    pub fn root(&self) -> Bucket {
        self.bucket.below("")
    }

    /// The totals must be this definition's. Totals that nobody has claimed yet are empty, which is fine.
    pub async fn check_definition(&self) -> Result<(), ContextError> {
        match self.totals.read_definition_hash().await? {
            Some(found) if found != self.definition.hash() => {
                let (table, ours) = (self.settings.totals.clone(), self.definition.hash().to_owned());
                Err(ContextError::OtherDefinition { table, found, ours })
            }
            _ => Ok(()),
        }
    }

    /// The archive's log, folded to its head.
    pub async fn log(&self) -> Result<State, ContextError> {
        Ok(LogStore::new(self.bucket.clone(), self.host.clone()).read_to_head().await?)
    }

    /// The same by every entry from the first on, without the folded logs that are kept beside the log.
    pub async fn whole_log(&self) -> Result<State, ContextError> {
        Ok(LogStore::new(self.bucket.clone(), self.host.clone()).read_whole().await?)
    }

    /// What archives the stream.
    pub fn archiver(&self) -> Archiver {
        let source = Kinesis::new(self.kinesis.clone(), self.settings.stream.as_str());
        let archiver = Archiver::new(self.bucket.clone(), source, Arc::clone(&self.definition), self.host.clone());
        let archiver = archiver.with_limits(self.limits).of_home(&self.home());
        match &self.catalog {
            Some(catalog) => archiver.with_catalog(Arc::clone(catalog)),
            None => archiver,
        }
    }

    /// Archives to the tip of the stream. A run has a bounded life; the next one goes on where it stopped, as long as
    /// there is progress. The report is the sum of all runs.
    pub async fn archive(&self) -> Result<ArchiveReport, ContextError> {
        let archiver = self.archiver();
        let mut all = archiver.run(Until::Tip, Deadline::NONE).await?;
        let mut progressed = all.commits > 0;
        for _ in 1..MAX_RUNS {
            if all.reached_tip || !progressed {
                break;
            }
            let next = archiver.run(Until::Tip, Deadline::NONE).await?;
            progressed = next.commits > 0;
            all = sum(all, next);
        }
        Ok(all)
    }

    /// The consumer's progress on every life of the stream: the present one, and those that the archive knows.
    ///
    /// A stream that was deleted and made anew repeats shard ids, with greater sequence numbers since these begin with the time.
    /// What is at or below any of them has its verdict, or will never get one.
    pub async fn passed(&self) -> Result<Passed, ContextError> {
        let name = &self.settings.stream;
        let mut created: std::collections::BTreeSet<i64> =
            self.log().await?.streams.keys().map(|stream| stream.created_ms).collect();
        created.extend(self.created_ms().await?);
        let mut passed = Passed::default();
        for created_ms in created {
            for (shard, sequence) in self.progress.read(name, created_ms).await? {
                let known = passed.0.entry(shard).or_insert_with(|| sequence.clone());
                if *known < sequence {
                    *known = sequence;
                }
            }
        }
        Ok(passed)
    }

    /// When the stream was created, ms since 1970; `None` where there is no stream.
    async fn created_ms(&self) -> Result<Option<i64>, ContextError> {
        let stream = &self.settings.stream;
        let failed = |why: String| ContextError::Stream { stream: stream.clone(), why };
        match self.kinesis.describe_stream_summary().stream_name(stream).send().await {
            Ok(answer) => {
                let summary = answer.stream_description_summary();
                let created = summary.and_then(|summary| millis::of_time(summary.stream_creation_timestamp()));
                created.map(Some).ok_or_else(|| failed("it does not say when it was created".to_owned()))
            }
            Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception()) => Ok(None),
            Err(error) => Err(failed(recount_schemas::causes(&error))),
        }
    }
}

/// What two runs in a row did.
fn sum(first: ArchiveReport, second: ArchiveReport) -> ArchiveReport {
    ArchiveReport {
        commits: first.commits + second.commits,
        renewals: first.renewals + second.renewals,
        races: first.races + second.races,
        plans_dropped: first.plans_dropped + second.plans_dropped,
        records: first.records + second.records,
        rows: first.rows + second.rows,
        files: first.files + second.files,
        bytes: first.bytes + second.bytes,
        months: first.months.union(&second.months).copied().collect(),
        duplicates: first.duplicates + second.duplicates,
        conflicts: first.conflicts + second.conflicts,
        quarantined: first.quarantined + second.quarantined,
        lost: first.lost.into_iter().chain(second.lost).collect(),
        tidied: first.tidied + second.tidied,
        reached_tip: second.reached_tip,
        log_entries: second.log_entries,
        shards: second.shards,
    }
}
