//! Which stream of a name it is: a re-created stream repeats shard ids and is another one, told by its creation time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use recount_schemas::host::{Deadline, SharedHost};

use crate::millis;
use crate::retry::{Caller, Meter};
use crate::tuning::Tuning;

/// For how long an answer is taken for true. DescribeStreamSummary allows 20 calls a second for the whole account. A stream
/// made anew within this time has its first batches' progress written to its predecessor: reconcile then takes their records for
/// still under way until the next batch, which is harmless.
const FRESH: Duration = Duration::from_secs(300);

/// One incarnation of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation {
    /// When it was created, ms since 1970.
    pub created_ms: i64,
    /// How long it keeps records, hours.
    pub retention_hours: u32,
}

/// The stream could not be described.
#[derive(Debug, thiserror::Error)]
#[error("describing stream {stream} failed: {detail}")]
pub struct StreamError {
    /// The stream.
    pub stream: String,
    /// The last answer.
    pub detail: String,
}

/// Describes streams, and remembers the answers for five minutes.
#[derive(Debug)]
pub struct Incarnations {
    kinesis: aws_sdk_kinesis::Client,
    host: SharedHost,
    tuning: Tuning,
    known: Mutex<BTreeMap<String, (Incarnation, Duration)>>,
}

impl Incarnations {
    /// None known yet.
    pub fn new(kinesis: aws_sdk_kinesis::Client, host: SharedHost) -> Self {
        Self { kinesis, host, tuning: Tuning::default(), known: Mutex::new(BTreeMap::new()) }
    }

    /// The incarnation of the stream called `name`.
    pub async fn of(&self, name: &str, deadline: Deadline, meter: &Meter) -> Result<Incarnation, StreamError> {
        if let Some(known) = self.remembered(name) {
            return Ok(known);
        }
        let failed = |detail: String| StreamError { stream: name.to_owned(), detail };
        let caller = Caller { host: self.host.as_ref(), tuning: &self.tuning, deadline, meter };
        let describe = self.kinesis.describe_stream_summary().stream_name(name);
        let answer = caller.call(|| describe.clone().send()).await.map_err(|failure| failed(failure.to_string()))?;
        let summary =
            answer.stream_description_summary().ok_or_else(|| failed("the answer has no summary".to_owned()))?;
        let created = millis::of_time(summary.stream_creation_timestamp());
        let incarnation = Incarnation {
            created_ms: created.ok_or_else(|| failed("its creation time is out of range".to_owned()))?,
            retention_hours: u32::try_from(summary.retention_period_hours()).unwrap_or_default(),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.to_owned(), (incarnation, self.host.monotonic()));
        Ok(incarnation)
    }

    fn remembered(&self, name: &str) -> Option<Incarnation> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (incarnation, at) = known.get(name)?;
        (self.host.monotonic().saturating_sub(*at) < FRESH).then_some(*incarnation)
    }
}
