//! The log of the archive: what is in it, in which order it came there. Every view of the archive follows the log.
//!
//! - [`names`]: the names of objects, made and checked in one place.
//! - [`entry`]: one entry, as it is stored.
//! - [`state`]: the log folded up: what is live, and how far each shard has been read. Pure.
//! - [`check`]: what an entry must satisfy to follow a state. Pure.
//! - [`store`]: reading the log to its head, and putting the next entry.

pub mod check;
pub mod entry;
pub mod names;
pub mod state;
pub mod store;

pub use check::LogError;
pub use entry::{AddedFile, Digest, Entry, Fingerprint, Kind, Lost, Seed, ShardRange, Stream};
pub use state::{LiveFile, ShardEnd, State};
pub use store::{Committed, LogStore, StoreError};
