//! Whole-system tests: the real parts, the real SDK, embedded engines. One binary, so that it is linked once.
//!
//! - [`support`]: an oracle that shares no code with what it checks, records from the lives of items, a pipeline in this
//!   process, processes of their own.

mod archive;
mod audit;
mod backfill;
mod bad_records;
mod bugs;
mod busy;
mod cli;
mod compact;
mod consumer_bug;
mod damage;
mod demo;
mod duckdb;
mod edited;
mod erase;
mod fsck;
mod hostile;
mod rebuild;
mod redelivery;
mod redrive;
mod repair;
mod repair_cut;
mod replay;
mod retain;
mod scan;
mod serve;
mod smoke;
mod support;
mod totals;
