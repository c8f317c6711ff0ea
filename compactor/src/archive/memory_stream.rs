//! A stream in memory for the protocol's tests: shards that split, records that expire, pages that are empty for no reason.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use recount_schemas::host::Host;
use recount_schemas::{SequenceNumber, ShardId};

use super::source::{ListedShard, Page, Record, Source, SourceError, Start, Summary};
use crate::log::Stream;
use crate::testing::{TestHost, pause};

#[derive(Debug, Default)]
struct Shard {
    parents: Vec<ShardId>,
    records: Vec<Record>,
    closed_us: Option<i64>,
}

#[derive(Debug, Default)]
struct Inner {
    created_ms: i64,
    sequence: u64,
    pages: u64,
    shards: BTreeMap<ShardId, Shard>,
    throttled: BTreeMap<ShardId, u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct MemoryStream {
    host: Arc<TestHost>,
    inner: Arc<Mutex<Inner>>,
    pub(crate) retention_hours: u32,
}

impl MemoryStream {
    pub(crate) fn new(host: Arc<TestHost>) -> Self {
        let mut inner = Inner { created_ms: host.now_ms(), ..Inner::default() };
        inner.shards.insert("s0".parse().unwrap(), Shard::default());
        Self { host, inner: Arc::new(Mutex::new(inner)), retention_hours: 24 }
    }

    /// The open shards.
    pub(crate) fn open_shards(&self) -> Vec<ShardId> {
        let inner = self.inner.lock().unwrap();
        inner.shards.iter().filter(|(_, shard)| shard.closed_us.is_none()).map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn put(&self, shard: &ShardId, data: &str) -> SequenceNumber {
        let mut inner = self.inner.lock().unwrap();
        inner.sequence += 3;
        let sequence: SequenceNumber = inner.sequence.to_string().parse().unwrap();
        let record = Record {
            sequence: sequence.clone(),
            partition_key: "p".into(),
            arrived_us: self.host.now_us(),
            data: Bytes::copy_from_slice(data.as_bytes()),
        };
        inner.shards.get_mut(shard).unwrap().records.push(record);
        sequence
    }

    pub(crate) fn split(&self, shard: &ShardId) {
        let mut inner = self.inner.lock().unwrap();
        inner.shards.get_mut(shard).unwrap().closed_us = Some(self.host.now_us());
        for _ in 0..2 {
            let child = format!("s{}", inner.shards.len()).parse().unwrap();
            inner.shards.insert(child, Shard { parents: vec![shard.clone()], ..Shard::default() });
        }
    }

    pub(crate) fn merge(&self, one: &ShardId, other: &ShardId) {
        let mut inner = self.inner.lock().unwrap();
        for parent in [one, other] {
            inner.shards.get_mut(parent).unwrap().closed_us = Some(self.host.now_us());
        }
        let child = format!("s{}", inner.shards.len()).parse().unwrap();
        inner.shards.insert(child, Shard { parents: vec![one.clone(), other.clone()], ..Shard::default() });
    }

    /// Deletes the stream and makes it anew under its name.
    pub(crate) fn recreate(&self) {
        let mut inner = self.inner.lock().unwrap();
        *inner = Inner { created_ms: self.host.now_ms(), ..Inner::default() };
        inner.shards.insert("s0".parse().unwrap(), Shard::default());
    }

    /// From now on a shard gives so many pages more, and refuses every other.
    pub(crate) fn throttle(&self, shard: &ShardId, pages: u64) {
        self.inner.lock().unwrap().throttled.insert(shard.clone(), pages);
    }

    fn horizon_us(&self) -> i64 {
        self.host.now_us() - i64::from(self.retention_hours) * 3_600_000_000
    }
}

impl Source for MemoryStream {
    async fn describe(&self) -> Result<Summary, SourceError> {
        pause().await;
        let created_ms = self.inner.lock().unwrap().created_ms;
        let stream = Stream { arn: "arn:aws:kinesis:us-east-1:0:stream/s".into(), created_ms };
        Ok(Summary { name: "s".into(), stream, retention_hours: self.retention_hours })
    }

    async fn shards(&self) -> Result<Vec<ListedShard>, SourceError> {
        pause().await;
        let horizon = self.horizon_us();
        let inner = self.inner.lock().unwrap();
        let listed = inner.shards.iter().filter(|(_, shard)| shard.closed_us.is_none_or(|closed| closed >= horizon));
        let listed = listed.map(|(id, shard)| ListedShard {
            id: id.clone(),
            parents: shard.parents.clone(),
            closed: shard.closed_us.is_some(),
        });
        Ok(listed.collect())
    }

    async fn open(&self, shard: &ShardId, start: &Start) -> Result<String, SourceError> {
        pause().await;
        let horizon = self.horizon_us();
        let inner = self.inner.lock().unwrap();
        let found = inner.shards.get(shard).filter(|s| s.closed_us.is_none_or(|closed| closed >= horizon));
        let found = found.ok_or_else(|| SourceError::NotThere(shard.to_string()))?;
        let at = match start {
            Start::Horizon => 0,
            Start::At(sequence) => found.records.partition_point(|r| r.sequence < *sequence),
            Start::After(sequence) => found.records.partition_point(|r| r.sequence <= *sequence),
        };
        Ok(format!("{shard}|{at}|{}", self.host.now_ms()))
    }

    async fn page(&self, iterator: &str, most: i32) -> Result<Page, SourceError> {
        pause().await;
        let horizon = self.horizon_us();
        let mut inner = self.inner.lock().unwrap();
        let mut parts = iterator.split('|');
        let (shard, at, issued) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        if self.host.now_ms() - issued.parse::<i64>().unwrap() > 300_000 {
            return Err(SourceError::Expired);
        }
        match inner.throttled.get_mut(&shard.parse::<ShardId>().unwrap()) {
            Some(0) => return Err(SourceError::Throttled(shard.into())),
            Some(left) => *left -= 1,
            None => {}
        }
        inner.pages += 1;
        let next = |at: usize| Some(format!("{shard}|{at}|{}", self.host.now_ms()));
        let at: usize = at.parse().unwrap();
        if inner.pages.is_multiple_of(5) {
            return Ok(Page { records: vec![], next: next(at), behind_ms: Some(1_000) });
        }
        let found = inner.shards.get(&shard.parse().unwrap()).ok_or_else(|| SourceError::NotThere(shard.into()))?;
        let at = at.max(found.records.partition_point(|r| r.arrived_us < horizon)).min(found.records.len());
        let records: Vec<Record> = found.records[at..].iter().take(most as usize).cloned().collect();
        let end = at + records.len();
        let over = end == found.records.len();
        let next = if over && found.closed_us.is_some() { None } else { next(end) };
        Ok(Page { records, next, behind_ms: Some(if over { 0 } else { 5_000 }) })
    }
}
