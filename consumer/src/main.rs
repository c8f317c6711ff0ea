//! The consumer as a Lambda function on a Kinesis stream.
//!
//! Environment: the names in `recount_schemas::settings`, and the definition as `recount_schemas::definition::given` says.
//! Logs as Lambda's logging controls say (`AWS_LAMBDA_LOG_FORMAT`, `AWS_LAMBDA_LOG_LEVEL`).
//!
//! A panic in the handler is caught by the runtime, logged, and answered as an error of the invocation: the batch comes again.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use aws_config::BehaviorVersion;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use recount_consumer::handler::{Clients, Consumer, HandlerError};
use recount_consumer::metrics::Metrics;
use recount_schemas::Settings;
use recount_schemas::definition::given;
use recount_schemas::host::{Deadline, SystemHost};
use serde_json::value::RawValue;
use tracing::error;

/// What is kept of an invocation's time for its answer.
const MARGIN: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    lambda_runtime::tracing::init_default_subscriber();
    let consumer = match start().await {
        Ok(consumer) => Arc::new(consumer),
        Err(error) => {
            error!(error = format!("{error:#}"), "the consumer does not start");
            return Err(error.into());
        }
    };
    let host = SystemHost::shared();
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let (consumer, host) = (consumer.clone(), host.clone());
        async move {
            // Clocks by the wall: the runtime gives the deadline as one.
            let left = time_to_work(event.context.deadline, host.now_ms());
            let deadline = Deadline::after(host.as_ref(), left);
            consumer
                .handle(event.payload.get().as_bytes(), deadline)
                .await
                .inspect_err(|error| error!(%error, "the whole batch fails and comes again"))
                .map_err(diagnostic)
        }
    }))
    .await
}

async fn start() -> anyhow::Result<Consumer> {
    let lookup = |name: &str| std::env::var(name).ok();
    let settings = Settings::deployed(lookup)?;
    let definition = Arc::new(given::deployed(lookup, &settings.definition, |path| File::open(path))?);
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let clients = Clients::new(&config);
    let consumer = Consumer::new(&clients, &settings, definition, SystemHost::shared(), Metrics::stdout());
    consumer.start().await?;
    Ok(consumer)
}

/// What Lambda shows of an error, under a type that can be told from others.
fn diagnostic(error: HandlerError) -> Diagnostic {
    let error_type = match error {
        HandlerError::Envelope(_) => "recount.Envelope",
        HandlerError::Totals(_) => "recount.Totals",
        HandlerError::Stream(_) | HandlerError::LedgerTooShort { .. } => "recount.Stream",
    };
    Diagnostic { error_type: error_type.to_owned(), error_message: error.to_string() }
}

/// The time until `deadline_ms` (ms since 1970), less the margin, or less half of it where it is short.
fn time_to_work(deadline_ms: u64, now_ms: i64) -> Duration {
    let left = Duration::from_millis(deadline_ms.saturating_sub(u64::try_from(now_ms).unwrap_or_default()));
    left.saturating_sub(MARGIN.min(left / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_margin_stays_for_the_answer() {
        assert_eq!(time_to_work(100_000, 40_000), Duration::from_secs(58));
        assert_eq!(time_to_work(43_000, 40_000), Duration::from_millis(1_500));
        assert_eq!(time_to_work(1, 40_000), Duration::ZERO);
    }
}
