//! The relay as a Lambda function: DynamoDB Streams → Kinesis.
//!
//! Reads `RECOUNT_STREAM`, `RECOUNT_BUCKET` and, for a stream whose records may be larger than 1 MiB,
//! `RECOUNT_MAX_RECORD_BYTES`.

use std::time::Duration;

use anyhow::Context;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use recount_producer::clients;
use recount_producer::relay::{Relay, RelaySettings};
use recount_schemas::Settings;
use recount_schemas::host::{Deadline, SystemHost};
use serde_json::value::RawValue;

/// What is kept back of the invocation's time to answer in.
const MARGIN: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    lambda_runtime::tracing::init_default_subscriber();
    let names = Settings::from_lookup(|name| std::env::var(name).ok());
    let mut settings = RelaySettings::new(names.stream, names.bucket);
    if let Ok(bytes) = std::env::var("RECOUNT_MAX_RECORD_BYTES") {
        settings.sending.limits.record_bytes =
            bytes.parse().context("RECOUNT_MAX_RECORD_BYTES is a number of bytes")?;
    }
    let config = aws_config::defaults(aws_config::BehaviorVersion::latest()).load().await;
    let own_s3_endpoint = std::env::var_os("AWS_ENDPOINT_URL_S3").is_some_and(|url| !url.is_empty());
    let host = SystemHost::shared();
    let s3 = clients::s3(&config, own_s3_endpoint);
    let relay = Relay::new(clients::kinesis(&config), s3, settings, host.clone());
    let (relay, host) = (&relay, &host);
    lambda_runtime::run(service_fn(|event: LambdaEvent<Box<RawValue>>| async move {
        let ends_ms = i64::try_from(event.context.deadline).unwrap_or(i64::MAX);
        let left = u64::try_from(ends_ms.saturating_sub(host.now_ms())).unwrap_or_default();
        let deadline = Deadline::after(&**host, Duration::from_millis(left).saturating_sub(MARGIN));
        relay.handle(event.payload.get().as_bytes(), deadline).await.map_err(|error| Diagnostic {
            error_type: "RelayError".to_owned(),
            error_message: format!("{:#}", anyhow::Error::new(error)),
        })
    }))
    .await
}
