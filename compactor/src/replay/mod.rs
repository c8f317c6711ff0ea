//! Archived changes back into a stream, in order per item; and from there over to the live stream, without gap or overlap.
//!
//! - [`question`]: what is to be replayed, as asked. Its hash names the replay.
//! - [`order`]: in which order, and why each item's changes are in theirs.
//! - [`select`]: the rows that are asked for, counted and sorted outside memory.
//! - [`checkpoint`]: how far a replay is, kept after each acknowledged window of records.
//! - [`send`]: windows of records into the stream, at a rate.
//! - [`live`]: the live stream from where the archive ends.
//! - [`run`]: all of it, and the report.
//!
//! What a replay promises:
//!
//! - A record in the target has the images, keys and user identity of the one that was archived, byte for byte, and all else of
//!   it as equal JSON: so it has the same event ID and the same event key, and a Recount that counts it twice counts it once.
//! - The changes of an item enter the target in the order in which they entered the stream that was archived; a later one never
//!   before an earlier one was acknowledged ([`outbox`](recount_producer::relay::outbox)).
//! - Nothing is left out but what the plan names. A replay that is killed is run again with the same question: it goes on behind the
//!   last window that was acknowledged and noted. At most that one window comes twice.
//! - Replayed, a record has a new sequence number and a new time of arrival, and its partition key is the relay's: a hash of the
//!   item's key. Capture by DynamoDB itself derives another one, which is not documented and which the archive does not keep; what
//!   matters is that all changes of one item have the same one.
//!
//! What it has not: records in quarantine, and the variants of conflicting changes. They are no rows of the archive.

pub mod checkpoint;
pub mod live;
pub mod order;
pub mod question;
pub mod run;
pub mod select;
pub mod send;

use recount_schemas::terminal::plural;

use crate::archive::ArchiveError;
use crate::archive::source::SourceError;
use crate::bucket::BucketError;
use crate::context::ContextError;
use crate::contributions::ReadError;

pub use question::{Question, When};
pub use run::{Ask, Report, replay};

/// A replay could not be made. What was sent stays; the same command goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// AWS, the definition, or the archive's log.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The archive could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The live stream could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The live stream could not be read on.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The temporary file failed.
    #[error("sorting in the temporary directory failed: {0}; TMPDIR names another directory")]
    Spill(#[from] std::io::Error),
    /// The target cannot be written to.
    #[error("stream {stream}: {why}")]
    Target {
        /// The stream.
        stream: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The target did not take all records of a window.
    #[error(
        "stream {stream} did not take {left} of {} after all tries; the same command goes on from here, with a \
         lower --rate perhaps",
        plural(*of as u64, "record")
    )]
    Refused {
        /// The stream.
        stream: String,
        /// How many are not known to be in it.
        left: usize,
        /// How many there were.
        of: usize,
    },
    /// Records that the target would refuse for their size.
    #[error(
        "{} larger than the {most} bytes that stream {stream} takes, the first is {first}; nothing more was sent. \
         Raise its limit (aws kinesis update-max-record-size) and run the same command again",
        plural(*count, "record")
    )]
    TooLarge {
        /// How many.
        count: u64,
        /// The target.
        stream: String,
        /// Its limit, with the partition key.
        most: usize,
        /// One of them.
        first: String,
    },
    /// The live stream is asked to be handed over into itself.
    #[error(
        "the live stream {0} cannot be handed over into itself: it would never end; name another stream with --into"
    )]
    IntoItself(String),
    /// What was typed makes no replay.
    #[error("{0}")]
    Question(String),
    /// The checkpoint is not that of this replay.
    #[error("checkpoint {name}: {why}")]
    Checkpoint {
        /// The file or object.
        name: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Where a consumer takes over is asked of a replay that is not through: it would lack what was not sent.
    #[error(
        "no replay by these options is done (checkpoint {checkpoint}), so no consumer can take over behind it; run it to its end with \
         --confirm first, then ask with the same --into, --from, --group and --checkpoint"
    )]
    NotDone {
        /// The file or object.
        checkpoint: String,
    },
    /// More than can be held.
    #[error("{what}: there are more than {most}; narrow the replay with --from, --to or --group")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// The live stream gives nothing, or is always ahead.
    #[error("the live stream cannot be handed over: {0}")]
    NoHandOver(String),
}
