//! One rule for what an error of the AWS SDK means, and one way to try again.
//!
//! The SDK makes its own attempts first; what is here comes on top, is bounded by count and deadline, and covers what the
//! SDK does not try again (`TransactionConflictException` among it).
//!
//! | error | [`Class`] |
//! | --- | --- |
//! | `ConditionalCheckFailedException`; S3 `PreconditionFailed` | refused: an answer, not a failure |
//! | throttling and limits on rate, by their codes | may pass |
//! | conflicts with another writer: `TransactionConflictException`, `ReplicatedWriteConflictException`, S3 `ConditionalRequestConflict` | may pass |
//! | no answer in time, no connection, an answer that cannot be read | may pass |
//! | any answer with status 500 to 599 | may pass |
//! | expired credentials or tokens: the provider renews them | may pass |
//! | all else: bad request, no such table, no permission | permanent |

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use futures::future::{Either, select};
use recount_schemas::causes;
use recount_schemas::host::{Deadline, Host};

use crate::tuning::Tuning;

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The condition of a write did not hold.
    Refused,
    /// The same request may succeed later.
    MayPass,
    /// The same request fails again.
    Permanent,
}

/// Codes of errors that may pass, of DynamoDB, Kinesis and S3 (their API references, "Common errors" and per action).
const MAY_PASS: &[&str] = &[
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "Throttling",
    "ThrottledException",
    "RequestLimitExceeded",
    "LimitExceededException",
    "RequestThrottled",
    "TooManyRequestsException",
    "SlowDown",
    "TransactionConflictException",
    "TransactionInProgressException",
    "ReplicatedWriteConflictException",
    "ConditionalRequestConflict",
    "OperationAborted",
    "InternalServerError",
    "InternalError",
    "InternalFailure",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "RequestTimeout",
    "RequestTimeoutException",
    "ResourceInUseException",
    "ExpiredTokenException",
    "ExpiredToken",
    "RequestExpired",
];

/// What an error means: see the table at the top of this module.
pub fn classify<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Class {
    match error {
        SdkError::ConstructionFailure(_) => Class::Permanent,
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => Class::MayPass,
        SdkError::ServiceError(context) => {
            let status = context.raw().status().as_u16();
            classify_answer(context.err().code(), status)
        }
        _ => Class::Permanent,
    }
}

fn classify_answer(code: Option<&str>, status: u16) -> Class {
    match (code, status) {
        (Some("ConditionalCheckFailedException" | "PreconditionFailed"), _) | (_, 412) => Class::Refused,
        (Some(code), _) if MAY_PASS.contains(&code) => Class::MayPass,
        (_, 500..600 | 408 | 429) => Class::MayPass,
        _ => Class::Permanent,
    }
}

/// A request that got no good answer.
pub enum Failure<E> {
    /// The deadline passed.
    Deadline,
    /// The last answer.
    Sdk(Box<SdkError<E, HttpResponse>>),
}

impl<E: ProvideErrorMetadata> Failure<E> {
    /// What it means.
    pub fn class(&self) -> Class {
        match self {
            Self::Deadline => Class::MayPass,
            Self::Sdk(error) => classify(error),
        }
    }
}

impl<E: ProvideErrorMetadata> fmt::Display for Failure<E> {
    /// Short, and without what the request or the answer carried.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Sdk(error) = self else { return f.write_str("the deadline passed") };
        match error.as_ref() {
            SdkError::ServiceError(context) => {
                let (error, status) = (context.err(), context.raw().status().as_u16());
                write!(f, "{} (status {status})", error.code().unwrap_or("an answer without a code"))?;
                error.message().map_or(Ok(()), |message| write!(f, ": {message}"))
            }
            SdkError::TimeoutError(_) => f.write_str("no answer in time"),
            SdkError::DispatchFailure(failure) => {
                // By itself it says no more than "io error"; that the connection was refused stands in its causes.
                let cause = failure.as_connector_error().map(|error| causes(error));
                write!(f, "could not be sent: {}", cause.as_deref().unwrap_or("no connection"))
            }
            SdkError::ResponseError(_) => f.write_str("the answer could not be read"),
            _ => f.write_str("the request could not be made"),
        }
    }
}

impl<E: ProvideErrorMetadata> fmt::Debug for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<E: ProvideErrorMetadata> std::error::Error for Failure<E> {}

/// What requests cost. Shared by all that work on one batch.
#[derive(Debug, Default)]
pub struct Meter {
    milli_writes: AtomicU64,
    milli_reads: AtomicU64,
    retries: AtomicU64,
    seals: AtomicU64,
    failed_seals: AtomicU64,
}

impl Meter {
    /// DynamoDB's write units.
    pub fn write_units(&self) -> f64 {
        self.milli_writes.load(Ordering::Relaxed) as f64 / 1_000.0
    }

    /// DynamoDB's read units.
    pub fn read_units(&self) -> f64 {
        self.milli_reads.load(Ordering::Relaxed) as f64 / 1_000.0
    }

    /// Requests that were sent again by us, and updates of cells that were refused.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Cells that were sealed.
    pub fn seals(&self) -> u64 {
        self.seals.load(Ordering::Relaxed)
    }

    /// Cells that could not be sealed.
    pub fn failed_seals(&self) -> u64 {
        self.failed_seals.load(Ordering::Relaxed)
    }

    pub(crate) fn wrote(&self, units: f64) {
        self.milli_writes.fetch_add((units * 1_000.0) as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, units: f64) {
        self.milli_reads.fetch_add((units * 1_000.0) as u64, Ordering::Relaxed);
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sealed(&self, done: bool) {
        let counter = if done { &self.seals } else { &self.failed_seals };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What every request needs: time, limits, and whom to tell what it cost.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Time, randomness, sleep.
    pub host: &'a dyn Host,
    /// Limits.
    pub tuning: &'a Tuning,
    /// When to stop.
    pub deadline: Deadline,
    /// What it cost.
    pub meter: &'a Meter,
}

impl Caller<'_> {
    /// Sends a request until there is an answer that will not change, the attempts are used up, or the deadline passes.
    pub async fn call<T, E, F, Fut>(&self, mut send: F) -> Result<T, Failure<E>>
    where
        E: ProvideErrorMetadata,
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let mut attempt = 1;
        loop {
            let left = self.deadline.left(self.host);
            if left.is_zero() {
                return Err(Failure::Deadline);
            }
            let answer = if left == Duration::MAX {
                send().await
            } else {
                match select(pin!(send()), self.host.sleep(left)).await {
                    Either::Left((answer, _)) => answer,
                    Either::Right(_) => return Err(Failure::Deadline),
                }
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) if classify(&error) == Class::MayPass && attempt < self.tuning.attempts => {
                    self.meter.retried();
                    self.pause(attempt).await;
                    attempt += 1;
                }
                Err(error) => return Err(Failure::Sdk(Box::new(error))),
            }
        }
    }

    /// Waits with full jitter before attempt `attempt + 1`, not past the deadline.
    pub async fn pause(&self, attempt: u32) {
        let pause = self.host.jitter(self.tuning.pause_before(attempt));
        self.host.sleep(pause.min(self.deadline.left(self.host))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_classes() {
        for (code, status, class) in [
            (Some("ConditionalCheckFailedException"), 400, Class::Refused),
            (Some("PreconditionFailed"), 412, Class::Refused),
            (Some("ProvisionedThroughputExceededException"), 400, Class::MayPass),
            (Some("ThrottlingException"), 400, Class::MayPass),
            (Some("TransactionConflictException"), 400, Class::MayPass),
            (Some("ConditionalRequestConflict"), 409, Class::MayPass),
            (Some("SlowDown"), 503, Class::MayPass),
            (Some("SomethingNew"), 500, Class::MayPass),
            (None, 502, Class::MayPass),
            (Some("ValidationException"), 400, Class::Permanent),
            (Some("ResourceNotFoundException"), 400, Class::Permanent),
            (Some("AccessDeniedException"), 400, Class::Permanent),
            (None, 404, Class::Permanent),
        ] {
            assert_eq!(classify_answer(code, status), class, "{code:?} {status}");
        }
    }

    use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
    use recount_schemas::host::Sleep;
    use std::sync::{Arc, Mutex};

    /// A host whose time passes only by sleeping, and whose jitter is always (nearly) the most.
    #[derive(Debug, Default, Clone)]
    struct Sleeper(Arc<Mutex<Duration>>);

    impl Host for Sleeper {
        fn now_us(&self) -> i64 {
            0
        }

        fn monotonic(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn random_u64(&self) -> u64 {
            u64::MAX
        }

        fn sleep(&self, duration: Duration) -> Sleep {
            let time = self.0.clone();
            Box::pin(async move { *time.lock().unwrap() += duration })
        }
    }

    type Answer = Result<u32, SdkError<UpdateItemError, HttpResponse>>;

    #[allow(clippy::result_large_err)] // the SDK's own type
    fn timeout() -> Answer {
        Err(SdkError::timeout_error("no answer"))
    }

    /// The outcome, the number of requests, the time that passed.
    async fn run(
        deadline: Option<Duration>,
        mut answer: impl FnMut(u32) -> Option<Answer>,
    ) -> (Result<u32, Failure<UpdateItemError>>, u32, Duration) {
        let (host, tuning, meter) = (Sleeper::default(), Tuning::default(), Meter::default());
        let deadline = deadline.map_or(Deadline::NONE, |after| Deadline::after(&host, after));
        let caller = Caller { host: &host, tuning: &tuning, deadline, meter: &meter };
        let mut sent = 0;
        let outcome = caller
            .call(|| {
                sent += 1;
                let answer = answer(sent);
                async move {
                    match answer {
                        Some(answer) => answer,
                        None => std::future::pending().await,
                    }
                }
            })
            .await;
        (outcome, sent, host.monotonic())
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_with_growing_pauses() {
        let (outcome, sent, took) = run(None, |n| Some(if n < 4 { timeout() } else { Ok(7) })).await;
        assert_eq!((outcome.unwrap(), sent), (7, 4));
        assert!(took > Duration::from_millis(340) && took <= Duration::from_millis(350), "50 + 100 + 200: {took:?}");
    }

    #[tokio::test]
    async fn attempts_are_bounded_by_number_and_by_time() {
        let (outcome, sent, _) = run(None, |_| Some(timeout())).await;
        assert!(matches!(outcome, Err(Failure::Sdk(_))));
        assert_eq!(sent, Tuning::default().attempts);
        let (outcome, sent, took) = run(Some(Duration::from_millis(120)), |_| Some(timeout())).await;
        assert!(matches!(outcome, Err(Failure::Deadline)));
        assert_eq!((sent, took), (2, Duration::from_millis(120)));
    }

    #[tokio::test]
    async fn a_request_without_an_answer_ends_at_the_deadline() {
        let (outcome, sent, took) = run(Some(Duration::from_secs(9)), |_| None).await;
        assert!(matches!(outcome, Err(Failure::Deadline)));
        assert_eq!((sent, took), (1, Duration::from_secs(9)));
        let (outcome, sent, _) = run(Some(Duration::ZERO), |_| None).await;
        assert!(matches!(outcome, Err(Failure::Deadline)));
        assert_eq!(sent, 0, "nothing is begun after the deadline");
    }

    #[tokio::test]
    async fn what_cannot_pass_is_not_tried_again() {
        let (outcome, sent, _) = run(None, |_| Some(Err(SdkError::construction_failure("bad")))).await;
        assert_eq!((outcome.unwrap_err().to_string().as_str(), sent), ("the request could not be made", 1));
    }
}
