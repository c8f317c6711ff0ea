//! The whole pipeline in one process on one machine.
//!
//! | module | what it stands in for |
//! | --- | --- |
//! | [`kinesis`] | Kinesis Data Streams, on one SQLite file |
//! | [`manual`] | a clock that tests set by hand |

pub mod kinesis;
pub mod manual;
