//! The compactor as a Lambda, invoked by a schedule.
//!
//! Its event is `{"task":"archive"}`, or anything without a `task`, such as a schedule's own event; or `{"task":"compact"}`, which
//! wants a schedule of its own, once a day, and 2 GiB of memory. The answer is the run's report. The definition is a file named by `RECOUNT_DEFINITION`, or the text of one in `RECOUNT_DEFINITION_TOML`. Two
//! invocations at once are safe: a schedule delivers at least once.
//!
//! `RECOUNT_ARCHIVE_COMMIT_MIB` sets the most MiB of records in a commit (1 to 256, else 64: a commit is held in memory),
//! `RECOUNT_ARCHIVE_PACE=off` reads as fast as the stream gives, for a stream that nobody else reads.

use std::env;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aws_config::BehaviorVersion;
use lambda_runtime::{LambdaEvent, run, service_fn};
use recount_compactor::archive::{Archiver, Kinesis, Limits, MAX_COMMIT_BYTES, Until};
use recount_compactor::bucket::Bucket;
use recount_compactor::compact::Compactor;
use recount_consumer::handler::{AttemptTimeouts, Clients};
use recount_schemas::definition::file::MAX_FILE;
use recount_schemas::host::{Deadline, SharedHost, SystemHost};
use recount_schemas::{Definition, Settings, bounded};
use serde::Deserialize;

/// Kept back from the invocation's time, for the answer and the last log lines.
const MARGIN: Duration = Duration::from_secs(5);

#[derive(Debug, Default, Deserialize)]
struct Request {
    #[serde(default)]
    task: Task,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Task {
    #[default]
    Archive,
    Compact,
}

struct Tasks {
    archiver: Archiver,
    compactor: Compactor,
    host: SharedHost,
}

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().json().with_env_filter(filter).without_time().init();
    let tasks = tasks().await.map_err(|error| lambda_runtime::Error::from(format!("{error:#}")))?;
    run(service_fn(|event: LambdaEvent<Request>| handle(&tasks, event))).await
}

async fn handle(
    Tasks { archiver, compactor, host }: &Tasks,
    event: LambdaEvent<Request>,
) -> Result<serde_json::Value, lambda_runtime::Error> {
    let ends_ms = i64::try_from(event.context.deadline).unwrap_or(i64::MAX);
    let left = Duration::from_millis(u64::try_from(ends_ms.saturating_sub(host.now_ms())).unwrap_or(0));
    let deadline = Deadline::after(&**host, left.saturating_sub(MARGIN));
    match event.payload.task {
        Task::Archive => match archiver.run(Until::Tip, deadline).await {
            Ok(report) => Ok(serde_json::to_value(report)?),
            Err(error) => {
                tracing::error!(%error, "archive run failed");
                Err(error.into())
            }
        },
        Task::Compact => match compactor.run(None, deadline).await {
            Ok(report) => Ok(serde_json::to_value(report)?),
            Err(error) => {
                tracing::error!(%error, "compaction run failed");
                Err(error.into())
            }
        },
    }
}

async fn tasks() -> anyhow::Result<Tasks> {
    let settings = Settings::from_lookup(|name| env::var(name).ok());
    let definition = Arc::new(definition(&settings)?);
    let config = aws_config::defaults(BehaviorVersion::latest()).load().await;
    let clients = Clients::within(&config, AttemptTimeouts::ARCHIVE);
    let host = SystemHost::shared();
    let bucket = Bucket::new(clients.s3, settings.bucket, host.clone());
    let stream = Kinesis::new(clients.kinesis, settings.stream);
    let compactor = Compactor::new(bucket.clone(), definition.clone(), host.clone());
    let archiver = Archiver::new(bucket, stream, definition, host.clone()).with_limits(limits()?);
    Ok(Tasks { archiver, compactor, host })
}

fn limits() -> anyhow::Result<Limits> {
    let mut limits = match env::var("RECOUNT_ARCHIVE_PACE").as_deref() {
        Ok("off") => Limits::default().unpaced(),
        Ok("on" | "") | Err(_) => Limits::default(),
        Ok(other) => anyhow::bail!("RECOUNT_ARCHIVE_PACE is {other:?}; it can be on or off"),
    };
    if let Ok(text) = env::var("RECOUNT_ARCHIVE_COMMIT_MIB") {
        let mib = text.parse::<u64>().ok().filter(|mib| (1..=MAX_COMMIT_BYTES >> 20).contains(mib));
        let most = MAX_COMMIT_BYTES >> 20;
        limits.commit_bytes =
            mib.with_context(|| format!("RECOUNT_ARCHIVE_COMMIT_MIB is {text:?}; it can be 1 to {most}"))? << 20;
    }
    Ok(limits)
}

fn definition(settings: &Settings) -> anyhow::Result<Definition> {
    let (text, name) = match env::var("RECOUNT_DEFINITION_TOML") {
        Ok(text) if !text.is_empty() => (text, "RECOUNT_DEFINITION_TOML"),
        _ => {
            let path = settings.definition.as_str();
            let text = File::open(path).and_then(|file| bounded::text(file, MAX_FILE));
            let text = text.with_context(|| format!("reading the definition {path}"))?;
            (text, path)
        }
    };
    Ok(Definition::parse(&text, name)?)
}
