//! What can go wrong with an object.

use std::ops::Range;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use recount_schemas::causes;

/// An operation on an object failed. A write may have happened all the same, unless the error is
/// [`Refused`](Self::Refused).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// There is no such object.
    #[error("s3://{bucket}/{key} is not there")]
    Missing {
        /// The bucket.
        bucket: String,
        /// The object's name.
        key: String,
    },
    /// The object has more bytes than the caller takes.
    #[error("s3://{bucket}/{key} has more than {most} bytes, the most that this object may have")]
    TooLarge {
        /// The bucket.
        bucket: String,
        /// The object's name.
        key: String,
        /// The limit in bytes.
        most: u64,
    },
    /// The object does not have these bytes.
    #[error("s3://{bucket}/{key} does not have the bytes {} to {}: it is shorter than the log says", range.start, range.end)]
    Short {
        /// The bucket.
        bucket: String,
        /// The object's name.
        key: String,
        /// The bytes asked for.
        range: Range<u64>,
    },
    /// S3 refused: credentials, permissions, no such bucket, a malformed request. Nothing was written; trying again is no use.
    #[error("{action} s3://{bucket}/{key} was refused: {why}")]
    Refused {
        /// The operation.
        action: &'static str,
        /// The bucket.
        bucket: String,
        /// The object's name, or the prefix.
        key: String,
        /// What S3 said.
        why: String,
    },
    /// No answer, or one that promises nothing: a write may or may not have happened.
    #[error("{action} s3://{bucket}/{key} has no sure outcome: {why}")]
    Unsure {
        /// The operation.
        action: &'static str,
        /// The bucket.
        bucket: String,
        /// The object's name, or the prefix.
        key: String,
        /// What happened.
        why: String,
    },
}

impl BucketError {
    /// Whether the same request may yet succeed, or may already have.
    pub fn is_unsure(&self) -> bool {
        matches!(self, Self::Unsure { .. })
    }

    /// Whether the object is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// The HTTP status and the error code of a failed request, if there was an answer.
pub(super) fn status_and_code<E: ProvideErrorMetadata>(
    error: &SdkError<E, aws_sdk_s3::config::http::HttpResponse>,
) -> (Option<u16>, Option<&str>) {
    let status = error.raw_response().map(|response| response.status().as_u16());
    (status, error.as_service_error().and_then(ProvideErrorMetadata::code))
}

/// A failed request by its meaning: an answer in the 400s (but a timeout, a conflict or throttling) is a refusal.
pub(super) fn failed<E>(
    action: &'static str,
    bucket: &str,
    key: &str,
    error: SdkError<E, aws_sdk_s3::config::http::HttpResponse>,
) -> BucketError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    SdkError<E, aws_sdk_s3::config::http::HttpResponse>: std::error::Error,
{
    let (status, code) = status_and_code(&error);
    let missing_key = code == Some("NoSuchKey");
    let passing_code =
        matches!(code, Some("RequestTimeout" | "SlowDown" | "ThrottlingException" | "RequestTimeTooSkewed"));
    let refused = matches!(status, Some(400..=499)) && !matches!(status, Some(408 | 409 | 429)) && !passing_code;
    let unsent = matches!(error, SdkError::ConstructionFailure(_));
    let (bucket, key, why) = (bucket.to_owned(), key.to_owned(), causes(&error));
    if missing_key {
        BucketError::Missing { bucket, key }
    } else if refused || unsent {
        BucketError::Refused { action, bucket, key, why }
    } else {
        BucketError::Unsure { action, bucket, key, why }
    }
}
