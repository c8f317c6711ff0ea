//! What must hold at the end of a test, and the raw views of stream, archive and quarantine that it is held against.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::{Array, RecordBatch, StringArray};
use aws_sdk_kinesis::types::ShardIteratorType;
use futures::{StreamExt, TryStreamExt};
use recount_compactor::bucket::{Listing, Objects};
use recount_compactor::log::{Entry, LogStore, State};
use recount_compactor::recompute::recompute;
use recount_compactor::reconcile::Verdict;
use recount_compactor::rows;
use recount_consumer::cell::Look;
use recount_schemas::archive::column;
use recount_schemas::change::envelope;
use recount_schemas::quarantine::{self, Quarantined};
use recount_schemas::{Cell, EventKey, SequenceNumber, ShardId};

use super::naive::{self, Totals};
use super::world::{World, monthly, yearly};

/// Says the seed of a test that fails.
pub struct Seed(pub u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the failing seed is {}", self.0);
        }
    }
}

/// A record as it stands in the stream.
#[derive(Clone, Debug)]
pub struct Streamed {
    pub shard: ShardId,
    pub sequence: SequenceNumber,
    pub partition_key: String,
    pub data: Vec<u8>,
    pub arrived_us: i64,
}

impl Streamed {
    /// Its place.
    pub fn position(&self) -> Position {
        (self.shard.clone(), self.sequence.clone())
    }
}

/// A place in the stream.
pub type Position = (ShardId, SequenceNumber);

/// Every record of the stream, shard by shard, read with the SDK and by nothing of ours.
pub async fn streamed(world: &World) -> Vec<Streamed> {
    records_of(&world.pipeline.clients().kinesis, &world.settings().stream).await
}

/// The same of any stream.
pub async fn records_of(kinesis: &aws_sdk_kinesis::Client, stream: &str) -> Vec<Streamed> {
    let shards = kinesis.list_shards().stream_name(stream).send().await.unwrap();
    assert_eq!(shards.next_token(), None, "the tests' streams have few shards");
    let mut all = Vec::new();
    for shard in shards.shards() {
        let iterator = kinesis.get_shard_iterator().stream_name(stream).shard_id(shard.shard_id());
        let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.unwrap();
        let mut next = iterator.shard_iterator().map(str::to_owned);
        while let Some(iterator) = next {
            let answer = kinesis.get_records().shard_iterator(iterator).send().await.unwrap();
            next = answer.next_shard_iterator().map(str::to_owned);
            let tip = answer.millis_behind_latest() == Some(0) && answer.records().is_empty();
            all.extend(answer.records().iter().map(|record| Streamed {
                shard: shard.shard_id().parse().unwrap(),
                sequence: record.sequence_number().parse().unwrap(),
                partition_key: record.partition_key().unwrap_or_default().to_owned(),
                data: record.data().as_ref().to_vec(),
                arrived_us: (record.approximate_arrival_timestamp().unwrap().as_secs_f64() * 1e3).round() as i64
                    * 1_000,
            }));
            if tip {
                break;
            }
        }
    }
    all
}

/// A row of the archive.
#[derive(Clone, Debug)]
pub struct Row {
    pub position: Position,
    pub event_id: String,
    pub table: String,
    pub class: String,
    pub new_image: Option<String>,
    pub old_image: Option<String>,
    /// The record, made again from the row.
    pub record: String,
}

/// Every row of the archive's live files.
pub async fn rows(world: &World) -> Vec<Row> {
    let columns = [
        column::SHARD_ID,
        column::SEQUENCE_NUMBER,
        column::EVENT_ID,
        column::SOURCE_TABLE,
        column::CLASS,
        column::KEYS,
        column::NEW_IMAGE,
        column::OLD_IMAGE,
        column::ENVELOPE,
    ];
    let mut all = Vec::new();
    for live in log(world).await.live() {
        let mut batches = std::pin::pin!(rows::read(&world.pipeline.context().bucket, &live.file, &columns));
        while let Some(batch) = batches.next().await {
            let batch = batch.unwrap();
            all.extend((0..batch.num_rows()).map(|i| row(&batch, i)));
        }
    }
    all
}

fn row(batch: &RecordBatch, i: usize) -> Row {
    let text = |name: &str| {
        let column = batch.column_by_name(name).unwrap().as_any().downcast_ref::<StringArray>().unwrap();
        (!column.is_null(i)).then(|| column.value(i).to_owned())
    };
    let (event_id, new_image, old_image) =
        (text(column::EVENT_ID).unwrap(), text(column::NEW_IMAGE), text(column::OLD_IMAGE));
    let record = envelope::restore(
        &text(column::ENVELOPE).unwrap(),
        &event_id,
        text(column::KEYS).as_deref(),
        new_image.as_deref(),
        old_image.as_deref(),
    );
    Row {
        position: (
            text(column::SHARD_ID).unwrap().parse().unwrap(),
            text(column::SEQUENCE_NUMBER).unwrap().parse().unwrap(),
        ),
        event_id,
        table: text(column::SOURCE_TABLE).unwrap(),
        class: text(column::CLASS).unwrap(),
        new_image,
        old_image,
        record: record.unwrap(),
    }
}

/// The archive's log, folded.
pub async fn log(world: &World) -> State {
    world.pipeline.context().log().await.unwrap()
}

/// Every object below a prefix of the bucket.
pub async fn objects(world: &World, prefix: &str) -> Vec<(String, Vec<u8>)> {
    let bucket = &world.pipeline.context().bucket;
    let mut listing = Listing::new(bucket, prefix);
    let mut all = Vec::new();
    while let Some(page) = listing.next_page().await.unwrap() {
        for listed in page {
            let bytes = bucket.get(&listed.key, 64 << 20).await.unwrap().unwrap();
            all.push((listed.key, bytes.to_vec()));
        }
    }
    all
}

/// Every object in quarantine, each under the name that its place gives it.
pub async fn quarantined(world: &World) -> Vec<Quarantined> {
    let objects = objects(world, quarantine::PREFIX).await;
    let read = objects.into_iter().map(|(key, bytes)| {
        let kept: Quarantined = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(quarantine::object_key(&kept.shard_id, &kept.sequence_number), key);
        kept
    });
    read.collect()
}

/// The keys in the ledger of every cell: `recent`, and the pages of earlier epochs.
///
/// Each key stands in one of them, with one exception: where two sealed a cell at once, both put a page of one epoch, and
/// one of these came to nothing. The keys of that one were all counted, so they stand in the other too, or in `recent`.
pub async fn ledgers(world: &World) -> BTreeMap<Cell, (Look, BTreeSet<EventKey>)> {
    let totals = &world.pipeline.context().totals;
    let cells: Vec<(Cell, Look)> = totals.scan_cells().try_collect().await.unwrap();
    let mut ledgers = BTreeMap::new();
    for (cell, look) in cells {
        let mut pages: Vec<_> = totals.pages(&cell, EventKey::MIN).try_collect().await.unwrap();
        pages.retain(|page| page.name.epoch < look.epoch);
        let (mut keys, mut twice) = (look.recent.clone(), BTreeSet::new());
        for key in pages.iter().flat_map(|page| &page.keys) {
            if !keys.insert(*key) {
                twice.insert(*key);
            }
        }
        for key in twice {
            let epochs = pages.iter().filter(|page| page.keys.contains(&key)).map(|page| page.name.epoch);
            let mut rivals = epochs.filter(|epoch| pages.iter().filter(|page| page.name.epoch == *epoch).count() > 1);
            assert!(rivals.next().is_some(), "{key} stands twice in the ledger of {cell:?}");
        }
        ledgers.insert(cell, (look, keys));
    }
    ledgers
}

/// Live totals, the archive folded, and reconcile all say what the oracle says. Archives to the tip first.
pub async fn agree(world: &World, expected: &Totals) {
    let archived = world.pipeline.archive().await.unwrap();
    assert!(archived.reached_tip, "{archived:?}");
    let mut years = naive::years(expected);
    years.retain(|_, total| *total != (0, 0));

    let live = world.usage().await;
    assert_eq!(&monthly(&live), expected, "the live totals by month");
    assert_eq!(yearly(&live), years, "the live totals by year");

    let context = world.pipeline.context();
    let recounted = recompute(&context.bucket, &context.definition, &log(world).await, &|_| {}).await.unwrap();
    assert_eq!(&monthly(&recounted.totals), expected, "the archive folded, by month");
    assert_eq!(yearly(&recounted.totals), years, "the archive folded, by year");
    assert_eq!(recounted.repeated, 0, "{:?}", recounted.repeated_events);

    let report = world.reconcile().await;
    assert_eq!((report.verdict, &report.findings), (Verdict::Clean, &Vec::new()), "{:?}", report.undecided_because);
}

/// Invariants 1 and 5, for a stream that was archived to its tip. The log's ranges tile each shard without gap or overlap,
/// parents end before their children begin, each range counts the records that the stream has in it, and every record of
/// the stream is a row, in quarantine, in conflict, or a duplicate of a row. Returns how many duplicates there are.
pub async fn tiles(world: &World) -> u64 {
    let context = world.pipeline.context();
    let store = LogStore::new(context.bucket.clone(), world.host.clone());
    let streamed = streamed(world).await;
    let (mut ends, mut closed) = (BTreeMap::<ShardId, SequenceNumber>::new(), BTreeSet::new());
    let (mut rows, mut duplicates) = (0, 0);
    for n in 0.. {
        let Some(bytes) = store.bytes_of(n).await.unwrap() else { break };
        let entry = Entry::from_bytes(n, &bytes).unwrap();
        for range in entry.ranges {
            assert_eq!(range.from.as_ref(), ends.get(&range.shard), "entry {n}: {range:?}");
            assert!(range.from <= range.to && range.lost.is_none(), "entry {n}: {range:?}");
            assert!(!closed.contains(&range.shard), "entry {n} reads a shard that was at its end: {range:?}");
            for parent in &range.parents {
                assert!(closed.contains(parent) || range.records == 0, "entry {n}: {range:?} before its parent's end");
            }
            let inside = streamed.iter().filter(|record| {
                let (at, to) = (Some(&record.sequence), range.to.as_ref());
                record.shard == range.shard && range.from.as_ref() < at && at <= to
            });
            assert_eq!(inside.count() as u64, range.records, "entry {n}: {range:?}");
            let sum = range.rows + range.duplicates + range.conflicts + range.quarantined;
            assert_eq!(sum, range.records, "entry {n}: {range:?}");
            (rows, duplicates) = (rows + range.rows, duplicates + range.duplicates);
            ends.extend(range.to.map(|to| (range.shard.clone(), to)));
            if range.closed {
                closed.insert(range.shard);
            }
        }
    }
    for record in &streamed {
        assert!(ends.get(&record.shard) >= Some(&record.sequence), "{:?} was not archived", record.position());
    }
    let archived = self::rows(world).await;
    let named: BTreeSet<Position> = archived.iter().map(|row| row.position.clone()).collect();
    let aside = [quarantine::PREFIX, quarantine::CONFLICTS_PREFIX];
    let mut kept = BTreeSet::new();
    for prefix in aside {
        kept.extend(objects(world, prefix).await.iter().filter_map(|(key, _)| quarantine::position_of(key)));
    }
    assert_eq!((archived.len() as u64, named.len()), (rows, archived.len()), "rows of the files and of the log");
    let left = streamed.iter().map(Streamed::position).filter(|at| !named.contains(at) && !kept.contains(at));
    assert_eq!(left.count() as u64, duplicates, "records that are neither rows nor kept aside are duplicates");
    assert!(named.is_disjoint(&kept), "a record has one verdict");
    duplicates
}
