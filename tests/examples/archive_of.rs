//! A whole archive of as many events as one likes, with the totals and the ledger that a consumer would have left: made in
//! minutes, to see what reading it costs.
//!
//! ```sh
//! cargo run --release -p recount-tests --example archive_of -- --events 5000000 --data DIR
//! cargo run --release -p recount-tests --example archive_of -- --data DIR --serve 4599
//! ```
//!
//! The events come out of a stream that exists only here, through the archiver itself: judged, looked up, written, committed to
//! the log, 256 MiB at a time. Groups by Zipf's law, two years evenly, nothing twice. The stream is a former life of the embedded one,
//! closed to its end, so that `recount` finds nothing to archive. The totals are written as items and pages: of the months that
//! the ledger reaches, all keys; of older ones, what an item keeps.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use bytes::Bytes;
use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use recount_compactor::archive::source::{ListedShard, Page, Record, SourceError, Start, Summary};
use recount_compactor::archive::{Archiver, Limits, Until};
use recount_compactor::context::Context;
use recount_compactor::log::Stream;
use recount_local::clients::Clients;
use recount_local::engines::{Engines, Options};
use recount_schemas::host::{Deadline, SystemHost};
use recount_schemas::items::{self, PageName, cell_sk, ledger_pk};
use recount_schemas::{Cell, Definition, EventKey, Month, SequenceNumber, Settings, ShardId};

const DEFINITION: &str = "[source]\ntable = \"scans\"\nkey = [\"scan_id\"]\n[fold]\ngroup_by = \"project_id\"\n\
                          occurred_at = \"scanned_at\"\nsum = [\"bytes\"]\n";
const SHARDS: u64 = 4;
const DAY_MS: i64 = 86_400_000;
/// Keys that an item keeps, and that a page takes: as the consumer's tuning has them.
const RECENT: usize = 26;
const ON_A_PAGE: usize = 39;

#[derive(Debug, Clone, Parser)]
struct Args {
    /// Where the engines keep their data.
    #[arg(long)]
    data: PathBuf,
    /// How many events to make.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// How many groups.
    #[arg(long, default_value_t = 2_000)]
    groups: usize,
    /// Over how many days.
    #[arg(long, default_value_t = 730)]
    days: i64,
    /// Serve what is there on this port instead.
    #[arg(long)]
    serve: Option<u16>,
}

/// The events, each a function of its number.
#[derive(Debug, Clone)]
struct Events {
    count: u64,
    start_ms: i64,
    span_ms: i64,
    weights: Arc<Vec<f64>>,
}

impl Events {
    fn new(args: &Args, now_ms: i64) -> Self {
        let mut sum = 0.0;
        let weight = |rank: usize| {
            sum += 1.0 / rank as f64;
            sum
        };
        let weights = Arc::new((1..=args.groups).map(weight).collect());
        let span_ms = args.days * DAY_MS;
        Self { count: args.events, start_ms: now_ms - 3_600_000 - span_ms, span_ms, weights }
    }

    fn created_us(&self, i: u64) -> i64 {
        let us = i128::from(self.span_ms) * 1_000 * i128::from(i) / i128::from(self.count.max(1));
        self.start_ms * 1_000 + us as i64
    }

    fn drawn(&self, i: u64) -> (usize, i64) {
        let mut rng = fastrand::Rng::with_seed(i ^ 0x5eed);
        let at = rng.f64() * self.weights.last().copied().unwrap_or(0.0);
        (self.weights.partition_point(|sum| *sum < at), rng.i64(1..5_000_000))
    }

    fn id(i: u64) -> String {
        format!("{:016x}{:016x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15), i)
    }

    fn sequence(i: u64) -> SequenceNumber {
        format!("4965{i:052}").parse().expect("56 digits")
    }

    fn record(&self, i: u64) -> Record {
        let ((group, bytes), us, id) = (self.drawn(i), self.created_us(i), Self::id(i));
        let at = jiff::Timestamp::from_microsecond(us).expect("within two years");
        let data = format!(
            r#"{{"awsRegion":"us-east-1","eventID":"{id}","eventName":"INSERT","userIdentity":null,"recordFormat":"application/json","tableName":"scans","dynamodb":{{"ApproximateCreationDateTime":{us},"Keys":{{"scan_id":{{"S":"s{i}"}}}},"NewImage":{{"scan_id":{{"S":"s{i}"}},"project_id":{{"S":"project-{group:05}"}},"scanned_at":{{"S":"{at}"}},"bytes":{{"N":"{bytes}"}}}},"SizeBytes":120,"ApproximateCreationDateTimePrecision":"MICROSECOND"}},"eventSource":"aws:dynamodb"}}"#
        );
        Record { sequence: Self::sequence(i), partition_key: format!("s{i}"), arrived_us: us, data: Bytes::from(data) }
    }
}

/// The stream that exists only here.
#[derive(Debug, Clone)]
struct Former {
    summary: Summary,
    events: Events,
}

fn shard(n: u64) -> ShardId {
    format!("shardId-{n:012}").parse().expect("a shard id")
}

impl recount_compactor::archive::source::Source for Former {
    async fn describe(&self) -> Result<Summary, SourceError> {
        Ok(self.summary.clone())
    }

    async fn shards(&self) -> Result<Vec<ListedShard>, SourceError> {
        Ok((0..SHARDS).map(|n| ListedShard { id: shard(n), parents: Vec::new(), closed: true }).collect())
    }

    async fn open(&self, of: &ShardId, start: &Start) -> Result<String, SourceError> {
        let number = |sequence: &SequenceNumber| sequence.as_str()[4..].parse::<u64>().expect("one of ours");
        let next = match start {
            Start::Horizon => (0..SHARDS).find(|n| shard(*n) == *of).expect("one of ours"),
            Start::At(sequence) => number(sequence),
            Start::After(sequence) => number(sequence) + SHARDS,
        };
        Ok(next.to_string())
    }

    async fn page(&self, iterator: &str, most: i32) -> Result<Page, SourceError> {
        let next: u64 = iterator.parse().expect("one of ours");
        let numbers = (next..self.events.count).step_by(SHARDS as usize).take(most.unsigned_abs() as usize);
        let records: Vec<Record> = numbers.map(|i| self.events.record(i)).collect();
        let after = next + SHARDS * records.len() as u64;
        let more = after < self.events.count;
        Ok(Page { records, next: more.then(|| after.to_string()), behind_ms: Some(0) })
    }
}

/// A cell as the consumer would have left it.
#[derive(Debug, Default)]
struct Live {
    events: i64,
    bytes: i64,
    recent: VecDeque<EventKey>,
    sealed: Option<EventKey>,
    page: Vec<EventKey>,
    epoch: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let host = SystemHost::shared();
    let engines = Engines::open(&args.data, Arc::clone(&host), Options::default())?;
    if let Some(port) = args.serve {
        let listener = recount_local::serve::listen(port).await?;
        println!("ready");
        return Ok(engines.serve(listener, recount_local::serve::stop_signal()?).await?);
    }
    std::fs::write(args.data.join("recount.toml"), DEFINITION)?;
    let sdk = recount_local::client::in_process(engines.door()).await;
    let clients = Clients::new(&sdk);
    let (definition, settings) = (Definition::parse(DEFINITION, "recount.toml")?, Settings::default());
    recount_local::setup::setup(&clients, &definition, &settings, 1, &host).await?;
    let context = Context::new(&sdk, settings, definition, Arc::clone(&host));
    context.totals.claim_definition().await?;

    let described = clients.kinesis.describe_stream_summary().stream_name(&context.settings.stream).send().await?;
    let arn = described.stream_description_summary().context("a summary")?.stream_arn().to_owned();
    let created_ms = host.now_ms() - 3_600_000;
    let events = Events::new(&args, host.now_ms());
    let name = context.settings.stream.clone();
    let summary = Summary { name: name.clone(), stream: Stream { arn, created_ms }, retention_hours: 8_760 };
    let limits = Limits { commit_bytes: 256 << 20, life: std::time::Duration::from_secs(86_400), ..Limits::default() };
    let former = Former { summary, events: events.clone() };
    let archiver = Archiver::new(context.bucket.clone(), former, Arc::clone(&context.definition), Arc::clone(&host));
    let report = archiver.with_limits(limits.unpaced()).run(Until::Tip, Deadline::NONE).await?;
    anyhow::ensure!(report.rows == args.events && report.lost.is_empty(), "{report:?}");
    println!("{} rows in {} commits, {} bytes", report.rows, report.commits, report.bytes);

    for n in 0..SHARDS.min(args.events) {
        let last = (0..args.events).rev().find(|i| i % SHARDS == n).context("a record of each shard")?;
        context.progress.advance(&name, created_ms, &shard(n), &Events::sequence(last)).await?;
    }
    write_totals(&context, &events, host.now_ms()).await
}

async fn write_totals(context: &Context, events: &Events, now_ms: i64) -> Result<()> {
    let lifetime_ms = (i64::from(context.definition.ledger_days) + 2) * DAY_MS;
    let utc = context.definition.zone.rules();
    let mut cells: BTreeMap<(Month, usize), Live> = BTreeMap::new();
    let mut writer = Writer { context, totals: Vec::new(), ledger: Vec::new(), written: 0 };
    for i in 0..events.count {
        let ((group, bytes), us) = (events.drawn(i), events.created_us(i));
        let key = EventKey::new(us.div_euclid(1_000), Events::id(i).as_bytes()).context("a key")?;
        let month = Month::of(us, utc).context("a month")?;
        let live = cells.entry((month, group)).or_default();
        (live.events, live.bytes) = (live.events + 1, live.bytes + bytes);
        live.recent.push_back(key);
        if live.recent.len() > RECENT {
            live.page.extend(live.recent.pop_front());
        }
        if live.page.len() == ON_A_PAGE {
            let page = std::mem::take(&mut live.page);
            live.sealed = page.last().copied();
            let expires_ms = us / 1_000 + lifetime_ms;
            if expires_ms > now_ms {
                let name = PageName::new(&page, live.epoch).context("a page")?;
                let cell = cell(month, group)?;
                writer.page(&cell, &name, &page, expires_ms / 1_000).await?;
            }
            live.epoch += 1;
        }
    }
    let count = cells.len();
    for ((month, group), mut live) in cells {
        // What has not filled a page is still in the item.
        let recent: Vec<EventKey> = live.page.drain(..).chain(live.recent.drain(..)).collect();
        writer.item(&cell(month, group)?, &live, &recent).await?;
    }
    writer.flush(true).await?;
    println!("{count} cells, {} items", writer.written);
    Ok(())
}

fn cell(month: Month, group: usize) -> Result<Cell> {
    Ok(Cell { group: format!("project-{group:05}").parse()?, month, lane: 0 })
}

/// Items on their way, 25 a request.
struct Writer<'c> {
    context: &'c Context,
    totals: Vec<WriteRequest>,
    ledger: Vec<WriteRequest>,
    written: usize,
}

impl Writer<'_> {
    async fn page(&mut self, cell: &Cell, name: &PageName, keys: &[EventKey], expires: i64) -> Result<()> {
        let item = [
            (items::PK, AttributeValue::S(ledger_pk(cell))),
            (items::SK, AttributeValue::B(Blob::new(name.to_bytes()))),
            (items::VERSION, AttributeValue::N(items::FORMAT.to_string())),
            (items::KEYS, AttributeValue::B(Blob::new(items::pack(keys)))),
            (items::EXPIRES, AttributeValue::N(expires.to_string())),
        ];
        self.ledger.push(put(item.into_iter().collect())?);
        self.flush(false).await
    }

    async fn item(&mut self, cell: &Cell, live: &Live, recent: &[EventKey]) -> Result<()> {
        let bytes = |key: &EventKey| Blob::new(key.as_bytes().to_vec());
        let measure = self.context.definition.measures.first().context("a measure")?.total.as_str();
        let mut item = BTreeMap::from([
            (items::PK, AttributeValue::S(cell.group.to_string())),
            (items::SK, AttributeValue::S(cell_sk(cell.month, cell.lane))),
            (items::VERSION, AttributeValue::N(items::FORMAT.to_string())),
            (items::EVENTS, AttributeValue::N(live.events.to_string())),
            (measure, AttributeValue::N(live.bytes.to_string())),
            (items::RECENT, AttributeValue::Bs(recent.iter().map(bytes).collect())),
        ]);
        if let Some(sealed) = &live.sealed {
            item.insert(items::SEALED, AttributeValue::B(bytes(sealed)));
            item.insert(items::EPOCH, AttributeValue::N(live.epoch.to_string()));
        }
        self.totals.push(put(item)?);
        self.flush(false).await
    }

    async fn flush(&mut self, all: bool) -> Result<()> {
        let least = if all { 1 } else { 400 };
        for (table, requests) in
            [(&self.context.settings.totals, &mut self.totals), (&self.context.settings.ledger, &mut self.ledger)]
        {
            if requests.len() < least {
                continue;
            }
            self.written += requests.len();
            let dynamo = &self.context.dynamo;
            stream::iter(requests.chunks(25).map(<[_]>::to_vec).collect::<Vec<_>>())
                .map(|some| async move {
                    let answer = dynamo.batch_write_item().request_items(table, some).send().await?;
                    let left = answer.unprocessed_items().is_some_and(|left| !left.is_empty());
                    anyhow::ensure!(!left, "items were left unwritten");
                    Ok(())
                })
                .buffer_unordered(4)
                .try_collect::<()>()
                .await?;
            requests.clear();
        }
        Ok(())
    }
}

fn put(item: BTreeMap<&str, AttributeValue>) -> Result<WriteRequest> {
    let item = item.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok(WriteRequest::builder().put_request(PutRequest::builder().set_item(Some(item)).build()?).build())
}
