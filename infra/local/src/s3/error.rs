//! What can go wrong in the store, by meaning, and the S3 error code that each becomes.

use std::io;
use std::path::PathBuf;

use s3s::{S3Error, S3ErrorCode};

/// Why the store refused, or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The name cannot be a bucket.
    #[error("`{0}` is no bucket name: 3 to 63 of a-z, 0-9, `-` and `.`, a letter or digit at both ends")]
    InvalidBucket(String),
    /// The key cannot be a file.
    #[error("key `{key}` cannot be a file: {why}")]
    InvalidKey {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `a` and `a/b` cannot both be files.
    #[error("key `{0}` cannot be a file next to the keys that are there: one name would be a file and a directory")]
    InTheWay(String),
    /// No such bucket.
    #[error("bucket `{0}` does not exist")]
    NoSuchBucket(String),
    /// The bucket is there already.
    #[error("bucket `{0}` exists")]
    BucketExists(String),
    /// The bucket holds objects.
    #[error("bucket `{0}` is not empty")]
    BucketNotEmpty(String),
    /// No object of that key.
    #[error("key `{0}` does not exist")]
    NoSuchKey(String),
    /// A condition of the request does not hold.
    #[error("the condition {0} does not hold")]
    PreconditionFailed(&'static str),
    /// The object is what the client has (a GET with `If-None-Match` or `If-Modified-Since`).
    #[error("not modified")]
    NotModified,
    /// The range lies outside of the object.
    #[error("the range lies outside of the object's {0} bytes")]
    InvalidRange(u64),
    /// The body is not what its checksum says.
    #[error("the body does not have the {0} that the request gives")]
    BadDigest(String),
    /// The body ended early, or its framing is broken.
    #[error("the body could not be read whole: {0}")]
    BrokenBody(String),
    /// The body is larger than AWS takes in one request.
    #[error("the body is larger than 5 GiB; upload it in parts")]
    TooLarge,
    /// An argument is malformed.
    #[error("{0}")]
    InvalidArgument(String),
    /// No such multipart upload for this bucket and key.
    #[error("multipart upload `{0}` does not exist for this key")]
    NoSuchUpload(String),
    /// A part named in the completion is missing or another one.
    #[error("part {0} was not uploaded, or has another ETag")]
    InvalidPart(i32),
    /// A part that is not the last is smaller than AWS takes.
    #[error("part {0} is smaller than 5 MiB and not the last")]
    PartTooSmall(i32),
    /// The parts of the completion are not in ascending order.
    #[error("the parts are not in ascending order")]
    InvalidPartOrder,
    /// User metadata was sent, and the file system cannot keep it.
    #[error("this file system has no extended attributes, so x-amz-meta-* headers cannot be kept")]
    NoMetadata,
    /// The file system failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl StoreError {
    /// Wraps an I/O error with what was tried on which file.
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| StoreError::Io { what, path, source }
    }
}

impl From<StoreError> for S3Error {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::InvalidBucket(_) => S3ErrorCode::InvalidBucketName,
            StoreError::InvalidKey { key, .. } if key.len() > 1_024 => S3ErrorCode::KeyTooLongError,
            StoreError::InvalidKey { .. } | StoreError::InTheWay(_) | StoreError::InvalidArgument(_) => {
                S3ErrorCode::InvalidArgument
            }
            StoreError::NoSuchBucket(_) => S3ErrorCode::NoSuchBucket,
            StoreError::BucketExists(_) => S3ErrorCode::BucketAlreadyOwnedByYou,
            StoreError::BucketNotEmpty(_) => S3ErrorCode::BucketNotEmpty,
            StoreError::NoSuchKey(_) => S3ErrorCode::NoSuchKey,
            StoreError::PreconditionFailed(_) => S3ErrorCode::PreconditionFailed,
            StoreError::NotModified => S3ErrorCode::NotModified,
            StoreError::InvalidRange(_) => S3ErrorCode::InvalidRange,
            StoreError::BadDigest(_) => S3ErrorCode::BadDigest,
            StoreError::BrokenBody(_) => S3ErrorCode::IncompleteBody,
            StoreError::TooLarge => S3ErrorCode::EntityTooLarge,
            StoreError::NoSuchUpload(_) => S3ErrorCode::NoSuchUpload,
            StoreError::InvalidPart(_) => S3ErrorCode::InvalidPart,
            StoreError::PartTooSmall(_) => S3ErrorCode::EntityTooSmall,
            StoreError::InvalidPartOrder => S3ErrorCode::InvalidPartOrder,
            StoreError::NoMetadata => S3ErrorCode::NotImplemented,
            StoreError::Io { .. } => S3ErrorCode::InternalError,
        };
        if matches!(error, StoreError::Io { .. }) {
            tracing::error!(%error, "the object store failed");
        }
        S3Error::with_message(code, error.to_string())
    }
}
