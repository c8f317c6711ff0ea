//! The whole pipeline in one process on one machine, behind one loopback port.
//!
//! Nothing here runs in production. These are stand-ins for what AWS gives: the engines behind one HTTP port that any
//! AWS SDK can talk to, and the same engines without a socket for simulations.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`engines`] | all engines of one data directory, opened together; start here |
//! | [`door`] | one port for all services, and the router behind it |
//! | [`inproc`] | the same router as an HTTP client of the AWS SDK, without a socket |
//! | [`client`], [`clients`] | SDK configuration that reaches either; a client of each service |
//! | [`dynamo`] | DynamoDB and its streams, embedded; [`expression`] and [`stream_shard`] are two of AWS's rules that the engine lacks |
//! | [`kinesis`] | Kinesis Data Streams, on one SQLite file |
//! | [`s3`] | objects as plain files below `DIR/s3/<bucket>/<key>`, with atomic conditional writes |
//! | [`mapping`] | the event source mapping between a stream and a Lambda function |
//! | [`setup`] | the tables, the stream and the bucket that a template would make |
//! | [`pipeline`] | relay, consumer and compactor, running against the engines; [`faults`] makes the consumer crash on demand |
//! | [`serve`], [`demo`] | the commands of `recount-local` |
//! | [`io`] | where blocking work runs |
//! | [`manual`] | a clock that tests set by hand |

pub mod client;
pub mod clients;
pub mod demo;
pub mod door;
pub mod dynamo;
pub mod engines;
pub mod expression;
pub mod faults;
pub mod inproc;
pub mod io;
pub mod kinesis;
pub mod manual;
pub mod mapping;
pub mod pipeline;
pub mod s3;
pub mod serve;
pub mod setup;
pub mod stream_shard;

#[cfg(test)]
mod tests;
