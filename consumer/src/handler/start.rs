//! What must hold before the first batch, and the clients.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use recount_schemas::definition::least_ledger_days;
use recount_schemas::host::Deadline;

use super::{Consumer, HandlerError};
use crate::retry::Meter;

/// How long one attempt of a request may take. The SDK itself sets no limit, and a request without an answer would hold whoever
/// waits for it until its own time is over, or for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptTimeouts {
    /// DynamoDB and Kinesis.
    pub request: Duration,
    /// S3, with the whole body.
    pub object: Duration,
}

impl AttemptTimeouts {
    /// Of the consumer: its records are small, and a batch waits.
    pub const CONSUMER: Self = Self { request: Duration::from_secs(5), object: Duration::from_secs(20) };
    /// Of the archive and its readers: a page of Kinesis has up to 10 MB, a staged file up to some hundred MB.
    pub const ARCHIVE: Self = Self { request: Duration::from_secs(20), object: Duration::from_secs(60) };
}

/// The AWS clients of the consumer, and of everything else that works with its tables and its bucket.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Totals, ledger, progress.
    pub dynamo: aws_sdk_dynamodb::Client,
    /// The stream's description.
    pub kinesis: aws_sdk_kinesis::Client,
    /// Quarantine.
    pub s3: aws_sdk_s3::Client,
}

impl Clients {
    /// Clients by the SDK's own configuration, with the consumer's limit on every attempt.
    pub fn new(config: &SdkConfig) -> Self {
        Self::within(config, AttemptTimeouts::CONSUMER)
    }

    /// Clients by the SDK's own configuration, with these limits on every attempt.
    pub fn within(config: &SdkConfig, timeouts: AttemptTimeouts) -> Self {
        let within = |most| TimeoutConfig::builder().operation_attempt_timeout(most).build();
        let dynamo = aws_sdk_dynamodb::config::Builder::from(config).timeout_config(within(timeouts.request)).build();
        let kinesis = aws_sdk_kinesis::config::Builder::from(config).timeout_config(within(timeouts.request)).build();
        // A host name per bucket works on AWS only; another endpoint takes the bucket in the path.
        let path_style = config.endpoint_url().is_some();
        let s3 = aws_sdk_s3::config::Builder::from(config).timeout_config(within(timeouts.object));
        let s3 = s3.force_path_style(path_style);
        Self {
            dynamo: aws_sdk_dynamodb::Client::from_conf(dynamo),
            kinesis: aws_sdk_kinesis::Client::from_conf(kinesis),
            s3: aws_sdk_s3::Client::from_conf(s3.build()),
        }
    }
}

impl Consumer {
    /// Checks what must hold before the first batch: the totals are those of our definition, and the ledger reaches back
    /// further than a record can come again.
    pub async fn start(&self) -> Result<(), HandlerError> {
        let incarnation = self.incarnations.of(&self.stream, Deadline::NONE, &Meter::default()).await?;
        check_ledger(&self.stream, self.definition.ledger_days, incarnation.retention_hours)?;
        // Last: a definition that cannot be used claims nothing, so that its corrected form can.
        Ok(self.totals.claim_definition().await?)
    }
}

/// `ledger_days` must go with the stream's retention.
pub(super) fn check_ledger(stream: &str, ledger_days: u16, retention_hours: u32) -> Result<(), HandlerError> {
    let needed_days = least_ledger_days(retention_hours);
    if u32::from(ledger_days) >= needed_days {
        return Ok(());
    }
    Err(HandlerError::LedgerTooShort { stream: stream.to_owned(), ledger_days, retention_hours, needed_days })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_must_reach_back_further_than_the_stream() {
        assert!(check_ledger("s", 35, 24).is_ok());
        assert!(check_ledger("s", 4, 24).is_ok());
        assert!(check_ledger("s", 35, 33 * 24 - 1).is_ok());
        insta::assert_snapshot!(check_ledger("changes", 35, 33 * 24).unwrap_err(), @"ledger_days = 35 is too short for stream changes, which keeps records for 792 hours: it must be more than the retention and 2 days; set it to 36 or more");
        assert!(matches!(check_ledger("s", 3, 25), Err(HandlerError::LedgerTooShort { needed_days: 4, .. })));
        assert!(matches!(check_ledger("s", 35, u32::MAX), Err(HandlerError::LedgerTooShort { .. })));
    }
}
