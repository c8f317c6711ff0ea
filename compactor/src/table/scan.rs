//! The table by a parallel Scan, at a bounded rate, from the checkpoints on.
//!
//! Each segment's pages go into its part of the spool, each with the time at which its answer came; the LastEvaluatedKey is
//! the checkpoint. A Scan shows no one moment: each page is of its own time, which is why every item bears one.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use futures::stream::{self, StreamExt, TryStreamExt};
use recount_consumer::retry::{Caller, Meter};
use recount_consumer::tuning::Tuning;
use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::terminal::plural;
use serde_json::Value;

use super::TableError;
use super::item::{from_sdk, key_for_sdk};
use super::pace::Pace;
use super::spool::{Part, Spool};
use crate::progress::{Says, Work};

/// Most segments.
pub const MAX_SEGMENTS: u16 = 64;

/// How a table is scanned.
#[derive(Debug)]
pub struct Scanner<'a> {
    /// The client.
    pub dynamo: &'a Client,
    /// The table.
    pub table: &'a str,
    /// Time and sleep.
    pub host: &'a SharedHost,
    /// Read units a second.
    pub pace: &'a Pace,
    /// Items of one page at most; `None`: 1 MB.
    pub limit: Option<i32>,
    /// Whether pages are read consistently, at twice the price.
    pub consistent: bool,
}

impl Scanner<'_> {
    /// Reads what the spool does not have yet. Gives the number of items that it has then.
    pub async fn scan(&self, spool: &Spool, says: &Says<'_>) -> Result<u64, TableError> {
        let segments = spool.header().parts;
        let items = AtomicU64::new(0);
        let read = |segment| {
            let items = &items;
            async move {
                let mut part = spool.resume(segment)?;
                items.fetch_add(part.items(), Ordering::Relaxed);
                while !part.is_done() {
                    let more = self.page(&mut part, segment, segments).await?;
                    let all = items.fetch_add(more, Ordering::Relaxed) + more;
                    says(Work::Step(&format!(
                        "reading table {}: {}, {:.0} read units",
                        self.table,
                        plural(all, "item"),
                        self.pace.units()
                    )));
                }
                Ok::<_, TableError>(())
            }
        };
        // At most MAX_SEGMENTS pages are held at a time.
        stream::iter((0..segments).map(read)).buffer_unordered(usize::from(MAX_SEGMENTS)).try_collect::<()>().await?;
        Ok(items.into_inner())
    }

    /// One page. Gives the number of its items.
    async fn page(&self, part: &mut Part, segment: u16, segments: u16) -> Result<u64, TableError> {
        self.pace.ready().await;
        let damaged = || TableError::Checkpoint { table: self.table.to_owned() };
        let start = match part.checkpoint() {
            Some(Value::Object(key)) => Some(key_for_sdk(key).ok_or_else(damaged)?),
            Some(_) => return Err(damaged()),
            None => None,
        };
        let scan = self
            .dynamo
            .scan()
            .table_name(self.table)
            .segment(i32::from(segment))
            .total_segments(i32::from(segments))
            .set_limit(self.limit)
            .consistent_read(self.consistent)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .set_exclusive_start_key(start);
        let (tuning, meter) = (Tuning::default(), Meter::default());
        let caller = Caller { host: self.host.as_ref(), tuning: &tuning, deadline: Deadline::NONE, meter: &meter };
        let page = caller.call(|| scan.clone().send()).await;
        let page = page.map_err(|failure| TableError::dynamo("scanning", self.table, &failure))?;
        let read_us = self.host.now_us();
        self.pace.used(page.consumed_capacity().and_then(|used| used.capacity_units()).unwrap_or(0.0));
        let unknown = || TableError::UnknownType { table: self.table.to_owned() };
        for item in page.items() {
            let item = from_sdk(item).ok_or_else(unknown)?;
            part.item(read_us, &Value::Object(item).to_string())?;
        }
        let next = match page.last_evaluated_key().filter(|key| !key.is_empty()) {
            Some(key) => Some(Value::Object(from_sdk(key).ok_or_else(unknown)?)),
            None => None,
        };
        part.close(next)?;
        Ok(page.items().len() as u64)
    }
}
