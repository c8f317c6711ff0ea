//! Recount's vocabulary: pure, without I/O. Every other crate speaks in these words.
//!
//! From a stream record to a total, in reading order:
//!
//! - [`change`]: one change of the source table, decoded from either form in which it travels.
//! - [`event_key`]: the 16 bytes that identify a change, everywhere.
//! - [`position`]: where a record stands in a stream: shard and sequence number.
//! - [`definition`]: what is counted, read from `recount.toml`.
//! - [`fold`]: what one change does to which total. The only place that says so.
//! - [`judge`]: from raw bytes to that answer, or to the reason why there is none.
//! - [`verdict`]: what became of a record, and why a record is quarantined or ignored.
//! - [`amount`], [`period`]: exact sums; months and years in the definition's time zone.
//! - [`items`], [`quarantine`], [`archive`]: the shapes of what is stored in DynamoDB, in S3, in Parquet.
//! - [`settings`]: the names of tables, stream and bucket, from the environment. [`set`]: those of a second home beside the first.
//! - [`host`]: time, randomness and sleep, passed in. [`causes`](mod@causes): an error in one line.
//! - [`terminal`]: text from outside on its way to a terminal. [`bounded`]: text out of a file, up to a limit.
//! - [`bugs`]: deliberate bugs by which tests prove that they can fail; constants in a normal build.

pub mod amount;
pub mod archive;
pub mod bounded;
pub mod bugs;
pub mod causes;
pub mod change;
pub mod definition;
pub mod event_key;
pub mod fold;
pub mod host;
pub mod items;
pub mod judge;
pub mod period;
pub mod position;
pub mod quarantine;
pub mod set;
pub mod settings;
pub mod terminal;
pub mod verdict;

pub use amount::Amount;
pub use causes::causes;
pub use change::{Change, EventName};
pub use definition::Definition;
pub use event_key::EventKey;
pub use fold::{Cell, Delta, Effect, Group};
pub use judge::Judged;
pub use period::{Month, Year};
pub use position::{SequenceNumber, ShardId};
pub use set::{Home, SetName};
pub use settings::Settings;
pub use verdict::{Ignored, QuarantineCode, QuarantineReason, Verdict};
