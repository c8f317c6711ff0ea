//! The parameters of a mapping, with AWS's defaults and limits (LDG services-kinesis-parameters).

use std::time::Duration;

use super::Error;

/// Where reading begins in a shard that has no position yet and no parent that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Starting {
    /// At the oldest record. The default here; `LATEST` can miss events while a mapping is made (LDG services-kinesis-create).
    #[default]
    TrimHorizon,
    /// Behind the newest record.
    Latest,
    /// At the first record that arrived at or after this moment, ms since 1970.
    AtTimestamp(i64),
}

/// A mapping's parameters. The parallelization factor is 1 and cannot be changed: more would break the order of a shard.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the mapping: its positions stand under it, and it takes the place of the UUID.
    pub name: String,
    /// Most records in one call: 1 to 10,000. AWS's default: 100.
    pub batch_size: usize,
    /// How long records are gathered before a call: up to 300 s. AWS's default: 0.
    pub window: Duration,
    /// Whether a batch is halved when the function fails on it.
    pub bisect: bool,
    /// Most retries of a batch, 0 to 10,000; `None`: until its records expire.
    pub max_retries: Option<u32>,
    /// Records older than this are given up: 60 s to 7 days; `None`: never.
    pub max_record_age: Option<Duration>,
    /// Where reading begins.
    pub starting: Starting,
    /// `ReportBatchItemFailures`: whether the function's answer is read at all. Off on AWS by default, and on in every
    /// deployment of this workspace, so on here.
    pub report_failures: bool,
    /// The first wait before a retry; doubles from retry to retry, with full jitter. AWS does not say what it waits.
    pub backoff: Duration,
    /// The longest wait before a retry.
    pub backoff_most: Duration,
    /// How often a shard is looked at when nothing wakes the mapping: AWS polls once a second.
    pub poll: Duration,
    /// Most calls at a time, over all shards: the function's reserved concurrency.
    pub concurrency: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "recount".into(),
            batch_size: 100,
            window: Duration::ZERO,
            bisect: false,
            max_retries: None,
            max_record_age: None,
            starting: Starting::TrimHorizon,
            report_failures: true,
            backoff: Duration::from_millis(50),
            backoff_most: Duration::from_secs(10),
            poll: Duration::from_secs(1),
            concurrency: 16,
        }
    }
}

impl Config {
    /// Checks every parameter against AWS's limits.
    ///
    /// # Errors
    /// [`Error::Config`] names the parameter and its limits.
    pub fn check(&self) -> Result<(), Error> {
        let rule = |holds: bool, text: &str| if holds { Ok(()) } else { Err(Error::Config(text.to_owned())) };
        rule(!self.name.is_empty() && self.name.len() <= 128, "its name must have 1 to 128 bytes")?;
        rule((1..=10_000).contains(&self.batch_size), "the batch size must be 1 to 10,000")?;
        rule(self.window <= Duration::from_secs(300), "the batching window must be at most 300 s")?;
        rule(self.max_retries.is_none_or(|most| most <= 10_000), "there can be at most 10,000 retries")?;
        let (least, most) = (Duration::from_secs(60), Duration::from_secs(604_800));
        rule(
            self.max_record_age.is_none_or(|age| (least..=most).contains(&age)),
            "the maximum record age must be 60 s to 7 days",
        )?;
        rule(self.concurrency > 0, "the concurrency must be at least 1")?;
        rule(!self.poll.is_zero() && !self.backoff.is_zero(), "poll and back-off must be longer than nothing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_outside_the_limits_of_aws_are_refused() {
        assert!(Config::default().check().is_ok());
        let bad = [
            Config { batch_size: 0, ..Config::default() },
            Config { batch_size: 10_001, ..Config::default() },
            Config { window: Duration::from_secs(301), ..Config::default() },
            Config { max_retries: Some(10_001), ..Config::default() },
            Config { max_record_age: Some(Duration::from_secs(59)), ..Config::default() },
            Config { max_record_age: Some(Duration::from_secs(604_801)), ..Config::default() },
            Config { name: String::new(), ..Config::default() },
            Config { concurrency: 0, ..Config::default() },
        ];
        for config in bad {
            assert!(matches!(config.check(), Err(Error::Config(_))), "{config:?}");
        }
    }
}
