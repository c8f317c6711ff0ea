//! What a deployment costs a month, and what two other designs would that count the same events.
//!
//! - [`prices`]: the prices, each with its page.
//!
//! Events are INSERTs, spread evenly over a month of 30 days and over the projects. The source table itself is not in it: it is there
//! anyway. Nor is data transfer.
//!
//! **Write units of this design**, for batches that add k events to each of the cells they touch. A cell's item has about
//! 134 bytes and 16 for each key in `recent`, which holds 13 keys after a seal and is sealed at 52 (`consumer`'s `Tuning`). So a page
//! takes s = max(39, k) keys off, and until then there are s/k updates of the item:
//!
//! ```text
//! units(n) = ceil((134 + 16 n) / 1024)
//! per event = (s/k · units(13 + k) + units(s) + units(13 + s)) / s
//! ```
//!
//! and one unit per batch for progress. For one event per batch that is 1.051 (measured: 1.049), for a thousand in one cell 0.048
//! (measured: 0.048; `tests/examples/write_units.rs`). A batch of b events among P projects touches P · (1 − (1 − 1/P)^b) of them.
//!
//! **Reads** are a reconcile's, once a day: each cell's item, its pages, and both once more; a consumer reads pages only for keys that
//! come late (measured: 0.015 units an event where four shards feed one cell).
//!
//! **Noncurrent versions.** A month of A GB is compacted once a day, and each time all of it is copied into its new version's directory;
//! what stood there is deleted a day later, and stays for 30 days more as noncurrent versions. The day's versions grow from A/30 to A,
//! so at any moment those of the last 30 days are (1 + … + 30)/30 · A = 15.5 A. And what is uploaded is staged first, which leaves
//! each byte once for its commit, and once for each merge into a file of at least twice the size.
//!
//! **The naive design** adds one to an item for each event, and so counts a record twice that comes twice. **The marker design** puts a
//! marker per event, 99 of them in a transaction with one counter, at two units each: exact, but it cannot say what it lacks. Neither
//! has an archive.

pub mod prices;

use serde::{Deserialize, Serialize};

/// Seconds of a month of 30 days.
const MONTH_SECONDS: f64 = 30.0 * 86_400.0;
/// Bytes of a GB, as AWS bills it.
const GB: f64 = 1_073_741_824.0;
/// Days that pages of the ledger live: the default `ledger_days` and two.
const LEDGER_DAYS: f64 = 37.0;
/// Bytes of an invocation's event, in which records stand in base64 (Lambda quotas: 6 MB).
const PAYLOAD: f64 = 6.0 * 1_048_576.0;
/// Months of cells in the totals table: an assumption. Cells stay; a reconcile reads them all.
const CELL_MONTHS: f64 = 12.0;
/// Bytes of a cell's item with half of the keys that it may hold; and of a read unit.
const CELL_BYTES: f64 = 134.0 + 16.0 * 32.0;
const READ_BYTES: f64 = 4_096.0;
/// Read units of an event that the consumer counts, where it reads most.
const READ_LATE: f64 = 0.015;
/// A file that a compaction no longer merges is at least half as large: bytes.
const FILE_BYTES: f64 = 256.0 * 1_048_576.0;
/// Metrics of our own, alarms, dashboards: the template's.
const METRICS: f64 = 30.0;
const ALARMS: f64 = 22.0;
const DASHBOARDS: f64 = 1.0;
/// Bytes of an invocation's log: what Lambda writes itself, and the line of metrics of a batch or a run.
const LOG_OF_LAMBDA: f64 = 700.0;
const LOG_LINE: f64 = 1_900.0;
/// What logs are compressed to: an assumption.
const LOG_COMPRESSED: f64 = 0.15;
/// Updates under way at once in an invocation of the consumer.
const AT_ONCE: f64 = 16.0;
/// How long one takes, seconds: an assumption.
const UPDATE_SECONDS: f64 = 0.008;

/// What is counted, and how.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Events a month.
    pub events: u64,
    /// Projects that they are spread over.
    pub projects: u64,
    /// Bytes of an item of the source table.
    pub item_bytes: u64,
    /// Seconds that a batch is gathered.
    pub batch_window: u32,
    /// The most events of a batch.
    pub batch_size: u32,
    /// Whether the stream is on demand; else it has the shards that it needs.
    pub on_demand: bool,
    /// How many times as many events as on average a second has at the peak: what shards are made for.
    pub peak: f64,
    /// Archive runs a day.
    pub archive_runs: u32,
    /// MiB of memory of the consumer.
    pub consumer_mib: u32,
    /// MiB of memory of the compactor.
    pub compactor_mib: u32,
}

impl Default for Workload {
    /// The template's defaults, a million events and a hundred projects.
    fn default() -> Self {
        Self {
            events: 1_000_000,
            projects: 100,
            item_bytes: 500,
            batch_window: 1,
            batch_size: 1_000,
            on_demand: true,
            peak: 3.0,
            archive_runs: 288,
            consumer_mib: 512,
            compactor_mib: 2_048,
        }
    }
}

/// One thing that is paid for: US dollars a month in each of the designs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// What it is.
    pub what: String,
    /// This design.
    pub recount: f64,
    /// An `ADD` per event.
    pub naive: f64,
    /// A marker per event.
    pub marker: f64,
}

/// An estimate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Of this.
    pub workload: Workload,
    /// The month of the prices.
    pub prices_as_of: String,
    /// Shards that the peak needs.
    pub shards: u64,
    /// Events of a batch.
    pub events_per_batch: f64,
    /// Cells that a batch touches.
    pub cells_per_batch: f64,
    /// Write units per event in each of the designs.
    pub write_units: Line,
    /// What is paid for.
    pub lines: Vec<Line>,
    /// The sum.
    pub total: Line,
    /// GB that a month adds to the archive.
    pub archive_gb: f64,
    /// GB of noncurrent versions beside it, where all expire after 30 days.
    pub noncurrent_gb: f64,
    /// What one recount of that month by Athena costs: it reads the columns that it asks for.
    pub athena_recount: f64,
    /// What one reconcile of that month by Athena costs.
    pub athena_reconcile: f64,
}

/// Bytes of a row that a recount by Athena scans: group, class, table, a measure. In the archive of `tests/aws/test_queries.py` they are 6.8.
const RECOUNT_BYTES: f64 = 8.0;
/// The same of a reconcile: event key, sequence number and shard as well. There they are 33.
const RECONCILE_BYTES: f64 = 34.0;

/// Write units of an item with so many keys.
fn units(keys: f64) -> f64 {
    ((134.0 + 16.0 * keys) / 1024.0).ceil()
}

/// Write units per event of this design, without progress, for k events of a cell in a batch.
fn write_units(k: f64) -> f64 {
    let sealed = k.max(39.0);
    (sealed / k * units(13.0 + k) + units(sealed) + units(13.0 + sealed)) / sealed
}

/// How many of `projects` a batch of so many events touches.
fn touched(projects: f64, batch: f64) -> f64 {
    (projects * (1.0 - (1.0 - 1.0 / projects).powf(batch))).clamp(1.0, batch)
}

/// Estimates.
pub fn estimate(workload: Workload) -> Estimate {
    use prices::*;
    let w = workload;
    let events = w.events as f64;
    let millions = events / 1e6;
    let per_second = events / MONTH_SECONDS;
    // A record has both spellings of names and types, and an envelope of some 450 bytes: an assumption.
    let record = 450.0 + 1.5 * w.item_bytes as f64;
    let shards = (per_second * w.peak / 1_000.0).max(per_second * w.peak * record / 1_048_576.0).ceil().max(1.0);
    // A stream on demand begins with four.
    let lanes = if w.on_demand { shards.max(4.0) } else { shards };
    let most = f64::from(w.batch_size).min((PAYLOAD / (record * 4.0 / 3.0)).floor()).max(1.0);
    let batch = (per_second / lanes * f64::from(w.batch_window)).clamp(1.0, most);
    let cells = touched(w.projects.max(1) as f64, batch);
    let k = batch / cells;
    let batches = events / batch;

    let ours = write_units(k) + 1.0 / batch;
    let marker = 2.0 + 2.0 * (k / 99.0).ceil() / k;
    let writes = |units: f64| units * millions * WRITE_UNITS;
    let ledger_gb = events / 30.0 * LEDGER_DAYS * 17.0 / GB;
    // A marker: its keys and time, with the 100 bytes that DynamoDB counts for each item beside its data.
    let marker_gb = events / 30.0 * LEDGER_DAYS * 180.0 / GB;
    let stored = |gb: f64| gb * (TABLE_GB + RECOVERY_GB);
    let capture = millions * (w.item_bytes as f64 / 1_024.0).ceil() * CAPTURE_UNITS;
    let in_gb = events * (record / 1_024.0).ceil() * 1_024.0 / GB;
    let puts = millions * (record / 25_600.0).ceil() * PUT_UNITS;
    let stream = |readers: f64, kept: bool| match w.on_demand {
        true => {
            let kept = if kept { in_gb * 6.0 / 30.0 * STREAM_KEPT_GB } else { 0.0 };
            STREAM_HOUR * HOURS + in_gb * (STREAM_IN_GB + readers * STREAM_OUT_GB) + kept
        }
        false => shards * HOURS * (SHARD_HOUR + if kept { SHARD_KEPT_HOUR } else { 0.0 }) + puts,
    };
    let seconds = |updates: f64| 0.005 + updates / AT_ONCE * UPDATE_SECONDS + batch * 0.000_02;
    let consumer = |updates: f64| {
        let gb_seconds = batches * seconds(updates) * f64::from(w.consumer_mib) / 1_024.0;
        batches / 1e6 * REQUESTS + gb_seconds * GB_SECOND
    };
    let runs = f64::from(w.archive_runs) * 30.0;
    // A run takes two seconds, and one for each 50,000 records; the day's work reads and writes the month's rows some three times.
    let run_seconds = runs * 2.0 + events / 50_000.0 + 3.0 * events / 500_000.0;
    let compactor = runs / 1e6 * REQUESTS + run_seconds * f64::from(w.compactor_mib) / 1_024.0 * GB_SECOND;
    // Compressed: keys and hashes that do not compress, and a quarter of the rest.
    let archive_gb = events * (60.0 + 0.25 * record) / GB;
    // Staged, put, copied, and the log's entry: only of runs that found something. And a day's compaction copies the month's files.
    let commits = runs.min(events) + events * record / (64.0 * 1_048_576.0);
    let copied = 15.5 * archive_gb * GB / FILE_BYTES;
    let objects = (commits * 5.0 + copied) / 1e6 * OBJECT_PUTS + (commits + runs + copied) * 12.0 / 1e6 * OBJECT_GETS;
    // Each byte is merged as often as a day's file must double to be left alone, or to have all of the month in it.
    let merges = 1.0 + (FILE_BYTES / (archive_gb * GB / 30.0)).clamp(1.0, 30.0).log2();
    let noncurrent_gb = archive_gb * (15.5 + 1.0 + merges);
    let cell_count = (w.projects.max(1) as f64 * CELL_MONTHS).min(events);
    let reconcile = cell_count * (CELL_BYTES / READ_BYTES + 3.0) + events / 30.0 * LEDGER_DAYS * 17.0 / READ_BYTES;
    let reads = (30.0 * reconcile + READ_LATE * events) / 1e6 * READ_UNITS;
    let logs = |invocations: f64, lines: f64| {
        let gb = (invocations * LOG_OF_LAMBDA + lines * LOG_LINE) / GB;
        gb * (LOGS_GB + LOG_COMPRESSED * LOGS_KEPT_GB)
    };
    let watched = METRICS * METRIC + ALARMS * ALARM + DASHBOARDS * DASHBOARD;
    let catalog = ((2.0 * (commits + runs) + 1_000.0) / 1e6 - 1.0).max(0.0) * CATALOG_REQUESTS;

    let line =
        |what: &str, recount: f64, naive: f64, marker: f64| Line { what: what.to_owned(), recount, naive, marker };
    let lines = vec![
        line("DynamoDB writes", writes(ours), writes(1.0), writes(marker)),
        line("DynamoDB reads", reads, 0.0, 0.0),
        line("DynamoDB storage and recovery", stored(ledger_gb), 0.0, stored(marker_gb)),
        line("Change capture", capture, capture, capture),
        line("Kinesis", stream(2.0, true), stream(1.0, false), stream(1.0, false)),
        line("Lambda: consumer", consumer(cells * 1.1), consumer(batch), consumer((batch / 99.0).ceil() + cells)),
        line("Lambda: compactor", compactor, 0.0, 0.0),
        line("S3: a month's archive", archive_gb * OBJECT_GB, 0.0, 0.0),
        line("S3: noncurrent versions", noncurrent_gb * OBJECT_GB, 0.0, 0.0),
        line("S3: requests", objects, 0.0, 0.0),
        line("Glue", catalog, 0.0, 0.0),
        line("CloudWatch: metrics and alarms", watched, 0.0, 0.0),
        line("CloudWatch: logs", logs(batches + runs, batches + runs), logs(batches, 0.0), logs(batches, 0.0)),
    ];
    let scanned = |bytes: f64| (events * bytes / GB / 1_024.0).max(10.0 / 1_048_576.0) * SCANNED_TB;
    let sum = |of: fn(&Line) -> f64| lines.iter().map(of).sum::<f64>();
    let total = line("Total", sum(|line| line.recount), sum(|line| line.naive), sum(|line| line.marker));
    Estimate {
        workload,
        prices_as_of: AS_OF.to_owned(),
        shards: shards as u64,
        events_per_batch: batch,
        cells_per_batch: cells,
        write_units: line("Write units per event", ours, 1.0, marker),
        lines,
        total,
        archive_gb,
        noncurrent_gb,
        athena_recount: scanned(RECOUNT_BYTES),
        athena_reconcile: scanned(RECONCILE_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formula_gives_what_was_measured() {
        for (k, measured) in [(1.0, 1.049), (1_000.0, 0.048)] {
            assert!((write_units(k) - measured).abs() < 0.01, "{k}: {}", write_units(k));
        }
        // The paper figure of markers: 2.0 for one hot project, 4.0 for all different.
        let marker = |k: f64| 2.0 + 2.0 * (k / 99.0_f64).ceil() / k;
        assert!((marker(1_000.0) - 2.0).abs() < 0.03 && marker(1.0) == 4.0);
    }

    #[test]
    fn a_batch_touches_no_more_cells_than_it_has_events_or_projects() {
        for (projects, batch) in [(1.0, 1.0), (1.0, 1e4), (1e6, 1.0), (1e6, 1e4), (100.0, 1e3)] {
            let cells = touched(projects, batch);
            assert!((1.0..=batch.min(projects) + 1e-6).contains(&cells), "{projects}, {batch}: {cells}");
        }
    }

    /// A month of A GB, day by day: what each day's compaction leaves, kept for 30 days. Counted here without the sum of the series.
    #[test]
    fn noncurrent_versions_are_those_of_thirty_compactions() {
        let of = estimate(Workload { events: 10_000_000_000, ..Workload::default() });
        let (mut left, months) = (Vec::new(), 4);
        for day in 1..=30 * months {
            let month_so_far = f64::from((day - 1) % 30 + 1) / 30.0;
            left.push(month_so_far * of.archive_gb);
        }
        let held: f64 = left.iter().rev().take(30).sum();
        // A day's files are larger than what is merged: each byte is staged for its commit and for one merge.
        assert!((of.noncurrent_gb - held - 2.0 * of.archive_gb).abs() < 1e-6 * held, "{} {held}", of.noncurrent_gb);
        let small = estimate(Workload::default());
        let times = small.noncurrent_gb / small.archive_gb;
        assert!((15.5 + 2.0..15.5 + 2.0 + 5.0).contains(&times), "{times}");
    }

    /// Items of 400 KB: seven records of them fill an invocation's event, whatever the batch size allows.
    #[test]
    fn a_batch_is_no_larger_than_an_invocation_takes() {
        let large = Workload { events: 10_000_000_000, item_bytes: 409_600, batch_window: 300, ..Workload::default() };
        assert_eq!(estimate(large).events_per_batch, 7.0);
        assert_eq!(estimate(Workload { item_bytes: 500, ..large }).events_per_batch, 1_000.0);
    }

    #[test]
    fn more_events_or_a_shorter_window_never_cost_less() {
        let total = |w: Workload| estimate(w).total.recount;
        let mut before = 0.0;
        for exponent in 4..=11 {
            let now = total(Workload { events: 10_u64.pow(exponent), ..Workload::default() });
            assert!(now > before && now.is_finite(), "10^{exponent}: {now}");
            before = now;
        }
        let busy = Workload { events: 1_000_000_000, ..Workload::default() };
        assert!(total(Workload { batch_window: 10, ..busy }) < total(busy));
        for w in [
            Workload { events: 0, ..busy },
            Workload { projects: 0, item_bytes: 0, batch_window: 0, peak: 0.0, ..busy },
        ] {
            assert!(total(w).is_finite());
        }
    }
}
