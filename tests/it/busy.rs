//! A pipeline that never rests: changes by both ways in, out of order and twice, batches delivered again, crashes, archive
//! runs on a schedule. Reconcile, asked again and again, finds nothing; readers of the archive see it grow, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{BinaryArray, RecordBatch};
use futures::StreamExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use recount_compactor::log::LogStore;
use recount_compactor::log::names::parse_target;
use recount_compactor::reconcile::Verdict;
use recount_local::pipeline::Options;
use recount_producer::drive::Pace;
use recount_producer::load::{LoadSettings, into_stream, into_table};
use recount_producer::stream::{Sender, Sending};
use recount_producer::table::Table;
use recount_schemas::Month;

use crate::support::world::{World, definition, options};

const RECONCILES: usize = 20;
const SEED: u64 = 77;
/// Between two looks of a reader, so that the machine is not all theirs.
const PAUSE: Duration = Duration::from_millis(500);

/// The keys of each month.
type Months = BTreeMap<Month, BTreeSet<Vec<u8>>>;

fn load(world: &World, seed: u64) -> LoadSettings {
    LoadSettings {
        seed,
        projects: 4,
        months: 2,
        updates: 0.2,
        deletes: 0.1,
        duplicates: 0.1,
        out_of_order: 0.2,
        ..LoadSettings::new(100, world.host.now_us())
    }
}

/// Changes straight into the stream, without end.
async fn into_the_stream(world: &World) -> Infallible {
    let (kinesis, stream) = (world.pipeline.clients().kinesis.clone(), &world.settings().stream);
    let sender = Sender::new(kinesis, stream, Sending::default(), Arc::clone(&world.host));
    for seed in SEED.. {
        let pace = Pace { rate: Some(24.0), lanes: 2 };
        into_stream(&sender, &load(world, seed), "scans", pace, &*world.host, &|_| {}).await.unwrap();
    }
    unreachable!("there is always another seed")
}

/// Items into the source table, whose stream the relay reads, without end.
async fn into_the_table(world: &World) -> Infallible {
    let table = Table::new(world.pipeline.clients().dynamodb.clone(), "scans", Arc::clone(&world.host));
    for seed in 1_000_000 + SEED.. {
        let pace = Pace { rate: Some(8.0), lanes: 2 };
        into_table(&table, &load(world, seed), pace, &*world.host, &|_| {}).await.unwrap();
    }
    unreachable!("there is always another seed")
}

/// What "at least once" allows, and crashes, without end.
async fn disorder(world: &World) -> Infallible {
    let mut rng = fastrand::Rng::with_seed(SEED);
    loop {
        world.host.sleep(Duration::from_millis(rng.u64(50..300))).await;
        match rng.u8(0..4) {
            0 => world.pipeline.chaos().rewind(&format!("shardId-{:012}", rng.u8(0..2)), rng.u64(1..300)),
            1 => world.pipeline.chaos().repeat(1),
            2 => world.pipeline.chaos().lose_answers(1),
            _ => world.pipeline.faults().crash_mid_batch(1),
        }
    }
}

fn keys(batch: &RecordBatch) -> impl Iterator<Item = Vec<u8>> {
    let keys = batch.column_by_name("event_key").unwrap().as_any().downcast_ref::<BinaryArray>().unwrap();
    keys.iter().map(|key| key.unwrap().to_vec()).collect::<Vec<_>>().into_iter()
}

fn collect(months: &mut Months, everywhere: &mut BTreeSet<Vec<u8>>, month: Month, batch: &RecordBatch, by: &str) {
    for key in keys(batch) {
        assert!(everywhere.insert(key.clone()), "an event key stands twice, {by}");
        months.entry(month).or_default().insert(key);
    }
}

fn assert_grown(before: &Months, now: &Months, by: &str) {
    for (month, keys) in before {
        assert!(now.get(month).is_some_and(|now| keys.is_subset(now)), "{month} lost events, {by}");
    }
}

/// Reads by the log, without end.
async fn reader_by_log(world: &World, looks: &mut usize) -> Infallible {
    let context = world.pipeline.context();
    let store = LogStore::new(context.bucket.clone(), context.host.clone());
    let mut before = Months::new();
    loop {
        let state = store.read_to_head().await.unwrap();
        let (mut now, mut everywhere) = (Months::new(), BTreeSet::new());
        for live in state.live() {
            let mut batches = Box::pin(recount_compactor::rows::read(&context.bucket, &live.file, &["event_key"]));
            let mut rows = 0;
            while let Some(batch) = batches.next().await {
                let batch = batch.unwrap();
                rows += batch.num_rows() as u64;
                collect(&mut now, &mut everywhere, live.file.month, &batch, "by the log");
            }
            assert_eq!(rows, live.file.rows);
        }
        assert_grown(&before, &now, "by the log");
        (before, *looks) = (now, *looks + 1);
        world.host.sleep(PAUSE).await;
    }
}

/// The Parquet files that a plain glob finds.
fn glob(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let entries = |path: &Path| -> Vec<_> {
        std::fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    };
    for file in entries(&root.join("events")).iter().flat_map(|m| entries(m)).flat_map(|v| entries(&v)) {
        if file.extension().is_some_and(|extension| extension == "parquet") {
            found.push(file.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
    found
}

/// Reads by plain glob, without end.
async fn reader_by_glob(world: &World, looks: &mut usize) -> Infallible {
    let context = world.pipeline.context();
    let store = LogStore::new(context.bucket.clone(), context.host.clone());
    let root = world.dir.path().join("s3").join(&world.settings().bucket);
    let mut before = Months::new();
    loop {
        let files = glob(&root);
        let (mut now, mut everywhere) = (Months::new(), BTreeSet::new());
        let mut seen: BTreeMap<Month, BTreeSet<u64>> = BTreeMap::new();
        for name in &files {
            let target = parse_target(name).unwrap_or_else(|| panic!("{name} is no file of events"));
            assert!(seen.entry(target.month).or_default().insert(target.n), "two files of one commit in a month");
            let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(root.join(name)).unwrap());
            for batch in reader.unwrap().build().unwrap() {
                collect(&mut now, &mut everywhere, target.month, &batch.unwrap(), "by plain glob");
            }
            tokio::task::yield_now().await;
        }
        assert_grown(&before, &now, "by plain glob");
        // No later commit of a month without the ones before it.
        let state = store.read_to_head().await.unwrap();
        for (month, seen) in &seen {
            let last = *seen.last().unwrap();
            let due: BTreeSet<u64> = state.files[month].values().map(|live| live.n).filter(|n| *n <= last).collect();
            assert_eq!(seen, &due, "{month}");
        }
        (before, *looks) = (now, *looks + 1);
        world.host.sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_8_reconcile_on_a_busy_clean_pipeline_finds_nothing() {
    let options = Options { archive_every: Some(Duration::from_secs(1)), ..options() };
    let world = World::start(&definition(""), options).await;
    let (mut by_log, mut by_glob, mut events) = (0, 0, Vec::new());
    let reconciles = async {
        for i in 0..RECONCILES {
            let report = world.reconcile().await;
            // Undecided would mean that the archive did not reach the tip, for which there is no reason here.
            assert_eq!((report.verdict, &report.findings), (Verdict::Clean, &Vec::new()), "reconcile {i}, seed {SEED}");
            events.push(report.events);
        }
    };
    tokio::select! {
        () = reconciles => {}
        never = into_the_stream(&world) => match never {},
        never = into_the_table(&world) => match never {},
        never = disorder(&world) => match never {},
        never = reader_by_log(&world, &mut by_log) => match never {},
        never = reader_by_glob(&world, &mut by_glob) => match never {},
    }
    assert!(by_log > 0 && by_glob > 0, "the readers read: {by_log} {by_glob}");
    assert!(events.is_sorted() && events.last() > events.first(), "changes came all the while: {events:?}");
    world.pipeline.drained().await.unwrap();
    let tally = world.pipeline.tally();
    let report = world.reconcile().await;
    assert_eq!((report.verdict, report.findings), (Verdict::Clean, Vec::new()), "at the end, seed {SEED}: {tally:?}");
}
