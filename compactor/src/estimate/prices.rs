//! Prices of us-east-1 in US dollars, without taxes, free tiers and discounts, as of [`AS_OF`]. Each with the page that has it; look there
//! before you rely on a number.

/// When these were read.
pub const AS_OF: &str = "2026-11";
/// Hours of a month, as AWS's calculators count them.
pub const HOURS: f64 = 730.0;

/// A million write request units, on demand, standard table class. <https://aws.amazon.com/dynamodb/pricing/on-demand/>
pub const WRITE_UNITS: f64 = 0.625;
/// A million read request units, on demand: 4 KB each, read consistently. Same page.
pub const READ_UNITS: f64 = 0.125;
/// A GB of table and month. Same page.
pub const TABLE_GB: f64 = 0.25;
/// A GB of table with point-in-time recovery and month. Same page.
pub const RECOVERY_GB: f64 = 0.20;
/// A million change data capture units for Kinesis, one for each begun KB of the larger image. Same page.
pub const CAPTURE_UNITS: f64 = 0.10;

/// A stream on demand, an hour. <https://aws.amazon.com/kinesis/data-streams/pricing/>
pub const STREAM_HOUR: f64 = 0.04;
/// A GB written on demand, each record counted in whole KB. Same page.
pub const STREAM_IN_GB: f64 = 0.08;
/// A GB read on demand. Same page.
pub const STREAM_OUT_GB: f64 = 0.04;
/// A GB kept on demand beyond 24 hours, up to 7 days, and month. Same page.
pub const STREAM_KEPT_GB: f64 = 0.10;
/// A shard, an hour. Same page.
pub const SHARD_HOUR: f64 = 0.015;
/// What retention beyond 24 hours, up to 7 days, adds to it. Same page.
pub const SHARD_KEPT_HOUR: f64 = 0.02;
/// A million payload units of 25 KB put into shards. Same page.
pub const PUT_UNITS: f64 = 0.014;

/// A million requests. <https://aws.amazon.com/lambda/pricing/>
pub const REQUESTS: f64 = 0.20;
/// A GB of memory, a second, x86. Same page.
pub const GB_SECOND: f64 = 0.000_016_666_7;

/// A GB of S3 Standard and month, first 50 TB. <https://aws.amazon.com/s3/pricing/>
pub const OBJECT_GB: f64 = 0.023;
/// A million PUT, COPY and LIST requests. Same page.
pub const OBJECT_PUTS: f64 = 5.0;
/// A million GET and HEAD requests. Same page.
pub const OBJECT_GETS: f64 = 0.40;

/// A TB that Athena scans. <https://aws.amazon.com/athena/pricing/>
pub const SCANNED_TB: f64 = 5.0;
/// A million requests to Glue's catalog, beyond the first million of a month, which is free. <https://aws.amazon.com/glue/pricing/>
pub const CATALOG_REQUESTS: f64 = 1.0;

/// A metric of one's own, a month, of the first 10,000. <https://aws.amazon.com/cloudwatch/pricing/>
pub const METRIC: f64 = 0.30;
/// An alarm on one metric, a month. Same page.
pub const ALARM: f64 = 0.10;
/// A dashboard, a month. Same page.
pub const DASHBOARD: f64 = 3.0;
/// A GB of logs taken in, standard class, first 10 TB. Same page.
pub const LOGS_GB: f64 = 0.50;
/// A GB of logs kept, as compressed, and month. Same page.
pub const LOGS_KEPT_GB: f64 = 0.03;
