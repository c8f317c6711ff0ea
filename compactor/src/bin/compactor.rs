//! The compactor as a Lambda, invoked by a schedule.
//!
//! Its event is `{"task":"archive"}`, or anything without a `task`, such as a schedule's own event; or `{"task":"compact"}`, the
//! daily work of retention and compaction, which wants a schedule of its own, once a day, and 2 GiB of memory. The answer is the run's report. `{"task":"reconcile"}` holds all totals against the archive, keeps what it finds under `findings/`, and writes one line of
//! metrics; the answer is its report with the first of its findings. `{"task":"recompute"}` recounts the archive into the tables below
//! `totals/`; the answer is its report without the totals. What does not end in the invocation's time is undecided. The definition is given as `recount_schemas::definition::given` says. Two
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
use lambda_runtime::{Diagnostic, LambdaEvent, run, service_fn};
use recount_compactor::archive::{self, Archiver, Limits, MAX_COMMIT_BYTES, Until};
use recount_compactor::catalog::noted;
use recount_compactor::compact;
use recount_compactor::context::Context;
use recount_compactor::contributions::Scope;
use recount_compactor::daily::Daily;
use recount_compactor::progress::Work;
use recount_compactor::recompute;
use recount_compactor::reconcile::{Report, metrics, reconcile};
use recount_consumer::metrics::Metrics;
use recount_schemas::Settings;
use recount_schemas::definition::given;
use recount_schemas::host::{Deadline, SystemHost};
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
    Recompute,
    Reconcile,
}

/// Most findings of an answer, and most events of each: an answer has at most 6 MB (Lambda quotas). The table has all.
const ANSWERED: usize = 100;

struct Parts {
    archiver: Archiver,
    daily: Daily,
    context: Context,
    metrics: Metrics,
}

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().json().with_env_filter(filter).without_time().init();
    let parts = parts().await.map_err(|error| lambda_runtime::Error::from(format!("{error:#}")))?;
    // Boxed: the layouts of all tasks in one future would be nested deeper than the compiler goes.
    run(service_fn(|event: LambdaEvent<Request>| {
        let task = event.payload.task;
        let handled = Box::pin(handle(&parts, event));
        async move { handled.await.map_err(|error| diagnostic(task, &error)) }
    }))
    .await
}

/// What Lambda shows of an error, under a type that says which task failed.
fn diagnostic(task: Task, error: &lambda_runtime::Error) -> Diagnostic {
    Diagnostic { error_type: format!("recount.{task:?}"), error_message: error.to_string() }
}

async fn handle(parts: &Parts, event: LambdaEvent<Request>) -> Result<serde_json::Value, lambda_runtime::Error> {
    let host = &parts.context.host;
    let ends_ms = i64::try_from(event.context.deadline).unwrap_or(i64::MAX);
    let left = Duration::from_millis(u64::try_from(ends_ms.saturating_sub(host.now_ms())).unwrap_or(0));
    let left = left.saturating_sub(MARGIN);
    match event.payload.task {
        Task::Archive => {
            let report = parts.archiver.run(Until::Tip, Deadline::after(&**host, left)).await;
            let report = report.inspect_err(|error| tracing::error!(%error, "archive run failed"))?;
            let stream = &parts.context.settings.stream;
            if let Err(error) = archive::metrics::emit(&parts.metrics, stream, &report, host.now_ms()) {
                tracing::warn!(%error, "no metrics of this run");
            }
            Ok(serde_json::to_value(report)?)
        }
        Task::Compact => {
            let report = parts.daily.run(None, Deadline::after(&**host, left)).await;
            let report = report.inspect_err(|error| tracing::error!(%error, "daily run failed"))?;
            // An error, so that the alarm on errors tells somebody: else the archive is never compacted again.
            if let Some(catalog) = &report.compaction.unknown_catalog {
                return Err(format!("nothing is compacted: {}", noted::why_kept(catalog)).into());
            }
            Ok(serde_json::to_value(report)?)
        }
        Task::Recompute => {
            let says = |work: Work<'_>| logged(work, "recompute");
            let report = in_time(parts, left, recompute::of_now(&parts.context, &says)).await;
            let report = report.inspect_err(|error| tracing::error!(%error, "recompute failed"))?;
            Ok(without_totals(serde_json::to_value(clean(report)?)?))
        }
        Task::Reconcile => {
            let report = reconciled(parts, left).await;
            let emitted =
                metrics::emit(&parts.metrics, &parts.context.settings.stream, report.as_ref().ok(), host.now_ms());
            if let Err(error) = emitted {
                tracing::warn!(%error, "no metrics of this reconcile");
            }
            let report = report.inspect_err(|error| tracing::error!(%error, "reconcile failed"))?;
            Ok(serde_json::to_value(answered(report))?)
        }
    }
}

async fn reconciled(parts: &Parts, left: Duration) -> Result<Report, lambda_runtime::Error> {
    let says = |work: Work<'_>| logged(work, "reconcile");
    let everything = Scope::all();
    Ok(in_time(parts, left, reconcile(&parts.context, &everything, &says)).await?.report)
}

/// What a task comes to, if it ends in the invocation's time.
async fn in_time<T, E: Into<lambda_runtime::Error>>(
    parts: &Parts,
    left: Duration,
    task: impl Future<Output = Result<T, E>>,
) -> Result<T, lambda_runtime::Error> {
    let host = &*parts.context.host;
    match Deadline::after(host, left).within(host, task).await {
        Some(done) => done.map_err(Into::into),
        None => Err("the invocation's time is up; give it more, or do this by `recount`".into()),
    }
}

/// An archive in which event keys stand twice is an error of the task, as it is of `recount recompute`: of an answer nobody would be
/// told. The totals are written by then, and count each once.
fn clean(report: recompute::Report) -> Result<recompute::Report, lambda_runtime::Error> {
    if report.is_clean() {
        return Ok(report);
    }
    let repeated = report.repeated;
    tracing::error!(repeated, "event keys stand twice in the archive");
    Err(format!("{repeated} rows of the archive have an event key that stood before; run recount fsck").into())
}

/// The totals are in their tables: an answer has no room for those of many groups.
fn without_totals(mut report: serde_json::Value) -> serde_json::Value {
    if let Some(members) = report.as_object_mut() {
        members.retain(|name, _| name != "months" && name != "years");
    }
    report
}

/// As much of a report as an answer may have.
fn answered(mut report: Report) -> Report {
    report.findings.truncate(ANSWERED);
    for finding in &mut report.findings {
        finding.events.truncate(ANSWERED);
        finding.event_ids.truncate(ANSWERED);
    }
    report
}

async fn parts() -> anyhow::Result<Parts> {
    let settings = Settings::deployed(|name| env::var(name).ok())?;
    let definition = given::deployed(|name| env::var(name).ok(), &settings.definition, |path| File::open(path))?;
    let config = aws_config::defaults(BehaviorVersion::latest()).load().await;
    let limits = limits()?;
    let context = Context { limits, ..Context::new(&config, settings, definition, SystemHost::shared()) };
    let (definition, host) = (Arc::clone(&context.definition), context.host.clone());
    let bounds = compact::Limits::default();
    let daily = Daily::new(context.bucket.clone(), Arc::clone(&definition), host, bounds)
        .with_catalog(context.catalog.as_ref());
    let archiver = context.archiver();
    Ok(Parts { archiver, daily, context, metrics: Metrics::stdout() })
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

/// The log has the steps, not the counts.
fn logged(work: Work<'_>, task: &str) {
    if let Work::Step(step) | Work::Wait(step) = work {
        tracing::info!(step, "{task}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_which_task_failed() {
        let shown = diagnostic(Task::Archive, &lambda_runtime::Error::from("no stream"));
        assert_eq!((shown.error_type.as_str(), shown.error_message.as_str()), ("recount.Archive", "no stream"));
    }

    #[test]
    fn an_archive_with_repeated_keys_is_an_error_of_the_task() {
        let report = |repeated: u64| {
            let json = serde_json::json!({
                "entries": 1, "files": 1, "rows": 3, "repeated": repeated, "repeated_events": [], "same_change_pairs": 0,
                "written": [], "months": [], "years": [],
            });
            serde_json::from_value::<recompute::Report>(json).unwrap()
        };
        assert_eq!(clean(report(0)).unwrap(), report(0));
        let error = diagnostic(Task::Recompute, &clean(report(2)).unwrap_err());
        assert_eq!(error.error_type, "recount.Recompute");
        assert_eq!(error.error_message, "2 rows of the archive have an event key that stood before; run recount fsck");
    }
}
