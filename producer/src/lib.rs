//! Into the stream: what writes to the source table, and what carries its changes to Kinesis.
//!
//! - [`relay`]: DynamoDB Streams → Kinesis, for tables that do not use Kinesis Data Streams for DynamoDB.
//! - [`items`]: the shape of the first case's items: one for each file scanned.
//! - [`record`]: a few items by hand.
//! - [`scan`]: an item for each file of a directory.
//! - [`load`]: many invented items, or invented change records straight into the stream, the same from the same seed.
//! - [`drive`]: how many operations travel at once, in order per item, at a rate.
//! - [`table`], [`stream`]: where they end: the only modules, with the relay's quarantine, that send requests to AWS.
//! - [`clients`]: the AWS clients, with a limit on every attempt.
//! - [`cli`]: the command line of the binary `producer`.

pub mod cli;
pub mod clients;
pub mod drive;
pub mod items;
pub mod load;
pub mod record;
pub mod relay;
pub mod scan;
pub mod stream;
pub mod table;

#[cfg(test)]
mod loopback;
