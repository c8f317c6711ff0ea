//! The event source mapping: what AWS runs between a stream and a Lambda function.
//!
//! It polls each shard, calls the function with batches of records in the shape of a Lambda event, reads its answer by
//! the rules of partial batch responses, retries, bisects, gives up where told to, and remembers how far it came. At
//! least once: a record may be delivered again at any time, and after a stop or a kill it is. The rules come from
//! the Lambda Developer Guide (LDG), with the page's name beside each; everything that must hold "on top of Lambda" is proven on top of this.
//!
//! | file | what |
//! | --- | --- |
//! | `response` | what the function's answer means, pure |
//! | `batch` | what happens to a batch after its answer, pure |
//! | `config` | the mapping's parameters, with AWS's limits |
//! | `event` | the JSON that the function and the on-failure destination get |
//! | `source` | what a stream must offer; Kinesis |
//! | [`streams`] | DynamoDB Streams of the embedded DynamoDB |
//! | `checkpoint` | positions, durable |
//! | `chaos` | redelivery, lost answers and kills on demand |
//! | `runner` | shards in their order, batches in flight, stopping |
//! | `shard` | one shard from its position to its end |

mod batch;
mod chaos;
mod checkpoint;
mod config;
mod event;
mod response;
mod runner;
mod shard;
mod source;
pub mod streams;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_streams;

use async_trait::async_trait;
use bytes::Bytes;

pub use self::batch::{Condition, Next, Outcome, after};
pub use self::chaos::Chaos;
pub use self::checkpoint::Checkpoints;
pub use self::config::{Config, Starting};
pub use self::response::verdict;
pub use self::runner::{Lag, Mapping};
pub use self::source::{Item, KinesisSource, Listing, Page, ShardInfo, Source, SourceError};

/// A Lambda function.
#[async_trait]
pub trait Function: Send + Sync {
    /// Runs the function on one event, raw as Lambda hands it over; gives its raw answer.
    ///
    /// # Errors
    /// What Lambda would report instead of an answer. A panic counts as [`FunctionError::Failed`].
    async fn invoke(&self, payload: Bytes) -> Result<Vec<u8>, FunctionError>;
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FunctionError {
    /// The function ran and ended with an error, crashed, or ran out of time.
    #[error("the function failed: {0}")]
    Failed(String),
    /// The function was never started, as when its concurrency is used up. Not an attempt.
    #[error("the function was throttled")]
    Throttled,
}

/// Where batches go that are given up, as S3 destinations get them.
#[async_trait]
pub trait OnFailure: Send + Sync {
    /// Keeps one invocation record under a key of AWS's form.
    ///
    /// # Errors
    /// Any: the mapping tries again, with back-off, and does not move on before it has succeeded.
    async fn put(&self, key: &str, body: Bytes) -> Result<(), String>;
}

/// Why a mapping cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The parameters are outside what AWS takes.
    #[error("the event source mapping cannot be made: {0}")]
    Config(String),
    /// Positions could not be read or kept.
    #[error("the positions of the event source mapping could not be kept: {0}; check its file")]
    Checkpoint(#[from] rusqlite::Error),
    /// The source failed in a way that waiting does not heal.
    #[error("the source of the event source mapping failed: {0}")]
    Source(#[from] SourceError),
    /// A kill was asked for through [`Chaos::kill_before_checkpoint`].
    #[error("the event source mapping was killed before it kept its position, as asked")]
    Killed,
}
