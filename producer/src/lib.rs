//! Into the stream.
//!
//! - [`relay`]: DynamoDB Streams → Kinesis, for tables that do not use Kinesis Data Streams for DynamoDB.

pub mod relay;

#[cfg(test)]
mod loopback;
