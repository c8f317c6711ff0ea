//! What the demo says.

use recount_compactor::cli::tables;
use recount_compactor::reconcile::Report as Reconciliation;
use recount_compactor::repair::Report as Repair;
use recount_compactor::usage::Usage;
use recount_schemas::Definition;
use recount_schemas::terminal::{plural, shown_message};
use serde::Serialize;

/// The most lines of totals that are shown.
const MOST_MONTHS: usize = 12;
const MOST_YEARS: usize = 5;

/// How to say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: one object, on the last line.
    Json,
}

/// The demo in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DemoReport {
    /// Scans recorded.
    pub produced: u64,
    /// Events that the consumer counted, by the totals in the end. Those that the repair counted are not among them.
    pub applied: u64,
    /// Records that the consumer knew for duplicates.
    pub duplicates: u64,
    /// Records that change no total.
    pub ignored: u64,
    /// Records that the consumer put into quarantine.
    pub quarantined: u64,
    /// Events in the archive, each once.
    pub archived: u64,
    /// Cells compared by the last reconcile.
    pub cells: u64,
    /// Findings after the incident.
    pub findings_before: u64,
    /// Findings after the repair.
    pub findings_after: u64,
    /// Whether the last reconcile was clean.
    pub clean: bool,
    /// Missing events that the repair counted.
    pub repaired_events: u64,
    /// Scans a second, from the first record to the last one archived.
    pub events_per_second: f64,
    /// What kept it from being faster.
    pub bounded_by: &'static str,
    /// The whole demo, in seconds.
    pub seconds: f64,
    /// Where the data is.
    pub data: String,
}

/// How long the first act took, and what of it.
pub(super) struct Rates {
    pub items: u64,
    pub record_seconds: f64,
    pub behind: u64,
    pub drain_seconds: f64,
    pub archived: u64,
    pub archive_seconds: f64,
}

impl Rates {
    /// Scans a second through everything.
    pub(super) fn overall(&self) -> f64 {
        per_second(self.items, self.record_seconds + self.drain_seconds + self.archive_seconds)
    }

    /// The part that the others waited for longest. The relay and the consumer run while scans are recorded, so they bound
    /// the rate only by what they still had to do when recording was over.
    pub(super) fn bound(&self) -> &'static str {
        if self.record_seconds >= self.drain_seconds && self.record_seconds >= self.archive_seconds {
            "recording: writes to the source table (one embedded DynamoDB, one SQLite writer)"
        } else if self.drain_seconds >= self.archive_seconds {
            "relay and consumer: they share the embedded engines and the processor with the recording"
        } else {
            "the archive run"
        }
    }
}

fn per_second(n: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { n as f64 / seconds } else { 0.0 }
}

/// Says it to people; to programs only at the end.
pub(super) struct Say(Format);

impl Say {
    pub(super) fn new(format: Format) -> Self {
        Self(format)
    }

    fn out(&self, text: &str) {
        if self.0 == Format::Table {
            println!("{}", shown_message(text.trim_end()));
        }
    }

    pub(super) fn act(&self, title: &str) {
        self.out(&format!("\n{title}\n"));
    }

    pub(super) fn line(&self, line: &str) {
        self.out(&format!("   - {line}"));
    }

    pub(super) fn totals(&self, usage: &Usage, definition: &Definition) {
        let mut months = usage.months.clone();
        months.sort_by_key(|line| std::cmp::Reverse(line.events));
        let mut years = usage.years.clone();
        years.sort_by_key(|line| std::cmp::Reverse(line.events));
        let (all_months, all_years) = (months.len(), years.len());
        months.truncate(MOST_MONTHS);
        years.truncate(MOST_YEARS);
        self.out(&format!(
            "The {} largest of {all_months} monthly totals, and the {} largest of {all_years} yearly ones:\n",
            months.len(),
            years.len()
        ));
        self.out(&tables::usage(&Usage { months, years, ..Usage::default() }, definition));
    }

    pub(super) fn rates(&self, rates: &Rates) {
        self.out(&format!(
            "\n{} recorded in {:.1} s ({:.0}/s); relay and consumer, {} behind by then, were done {:.1} s later;\n\
             {} archived in {:.1} s ({:.0}/s). Overall {:.0} scans/s, bounded by {}.",
            plural(rates.items, "scan"),
            rates.record_seconds,
            per_second(rates.items, rates.record_seconds),
            plural(rates.behind, "record"),
            rates.drain_seconds,
            plural(rates.archived, "change"),
            rates.archive_seconds,
            per_second(rates.archived, rates.archive_seconds),
            rates.overall(),
            rates.bound(),
        ));
    }

    pub(super) fn reconciliation(&self, report: &Reconciliation) {
        self.out(&tables::reconciliation(report));
    }

    pub(super) fn repair(&self, report: &Repair) {
        self.out(&tables::repair(report));
    }

    pub(super) fn end(&self, report: &DemoReport) {
        if self.0 == Format::Json {
            // Numbers and texts: this cannot fail, and a demo without its line shows at once.
            println!("{}", serde_json::to_string(report).unwrap_or_default());
            return;
        }
        let (data, seconds) = (&report.data, report.seconds);
        self.out(&format!(
            "\n{} recorded, {} counted by the consumer and {} by the repair, {} recognised, {} in quarantine, \
             {} archived, {seconds:.1} s.\n\n\
             Everything is in {data}. The archive is plain Parquet, for example for the DuckDB command line, from here:\n\n  \
             duckdb -c \"SELECT group_key, month, count(*) AS events, sum(measure_bytes) AS bytes FROM read_parquet('{data}/s3/recount-archive/events/*/*/*.parquet', \
             hive_partitioning = true) WHERE class = 'insert' GROUP BY ALL ORDER BY ALL\"\n\n\
             To go on with it:  recount-local serve --data {data}   (another demo empties it)",
            plural(report.produced, "scan"),
            report.applied,
            report.repaired_events,
            plural(report.duplicates, "duplicate"),
            plural(report.quarantined, "record"),
            plural(report.archived, "change"),
        ));
    }
}
