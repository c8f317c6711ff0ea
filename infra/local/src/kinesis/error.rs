//! What an operation answers when it cannot do what was asked: AWS's exception names over HTTP 400 and 500.

use serde_json::json;

use super::Response;

/// An exception of the Kinesis API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    /// The exception's name, as in `__type`.
    pub code: &'static str,
    /// HTTP status: 400 for the caller's faults and for throttling, 500 for ours.
    pub status: u16,
    /// What failed, on what.
    pub message: String,
}

impl Error {
    fn client(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, status: 400, message: message.into() }
    }

    /// A value that is well-formed but means nothing here.
    pub(super) fn argument(message: impl Into<String>) -> Self {
        Self::client("InvalidArgumentException", message)
    }

    /// A missing member, or one outside its declared limits.
    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self::client("ValidationException", message)
    }

    /// A body that is not JSON, or a member of the wrong type.
    pub(super) fn serialization(message: impl Into<String>) -> Self {
        Self::client("SerializationException", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::client("ResourceNotFoundException", message)
    }

    pub(super) fn in_use(message: impl Into<String>) -> Self {
        Self::client("ResourceInUseException", message)
    }

    pub(super) fn limit(message: impl Into<String>) -> Self {
        Self::client("LimitExceededException", message)
    }

    pub(super) fn throttled(message: impl Into<String>) -> Self {
        Self::client("ProvisionedThroughputExceededException", message)
    }

    pub(super) fn expired_iterator(message: impl Into<String>) -> Self {
        Self::client("ExpiredIteratorException", message)
    }

    pub(super) fn expired_token(message: impl Into<String>) -> Self {
        Self::client("ExpiredNextTokenException", message)
    }

    pub(super) fn unknown_operation(message: impl Into<String>) -> Self {
        Self::client("UnknownOperationException", message)
    }

    pub(super) fn stream_not_found(name: &str) -> Self {
        Self::not_found(format!("Stream {name} under account {} not found.", super::ACCOUNT))
    }

    pub(super) fn shard_not_found(shard: &str, stream: &str) -> Self {
        Self::not_found(format!("Could not find shard {shard} in stream {stream} under account {}.", super::ACCOUNT))
    }

    pub(super) fn response(&self) -> Response {
        let body = json!({ "__type": self.code, "message": self.message });
        Response { status: self.status, body: body.to_string().into_bytes() }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(cause: rusqlite::Error) -> Self {
        Self { code: "InternalFailure", status: 500, message: format!("the stream store failed: {cause}") }
    }
}
