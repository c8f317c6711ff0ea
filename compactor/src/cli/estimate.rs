//! `recount estimate`.

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;

use super::args::Format;
use super::commands::{CommandError, Exit, write};
use super::tables::{drawn, grouped, plural, table};
use crate::estimate::{Estimate, Line, Workload, estimate};

/// What can be typed behind `recount estimate`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(
    after_help = "Computes, asks nobody. Prices of us-east-1, without free tiers; the source table and data transfer are not in it. Events are spread
evenly over the projects, the dearest case: busy projects fold better. Beside this design:
an `ADD` per event, which counts a record twice that comes twice, and a marker per event in transactions. Neither has an archive.

Examples:
  recount estimate --events 100M --projects 1000
  recount estimate --events 10000000000 --projects 10000 --batch-window 10 --provisioned"
)]
pub struct EstimateArgs {
    /// Events a month: 250000, 250k, 1.5M, 10G, 1e9.
    #[arg(long, default_value = "1M", value_parser = |text: &str| number(text, 1_000_000_000_000_000))]
    pub events: u64,
    /// Projects (groups) that they are spread over, written likewise.
    #[arg(long, default_value = "100", value_parser = |text: &str| number(text, 1_000_000_000))]
    pub projects: u64,
    /// Bytes of an item of the source table.
    #[arg(long, value_name = "BYTES", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=409_600))]
    pub item_bytes: u64,
    /// Seconds that the consumer's batches are gathered.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=300))]
    pub batch_window: u32,
    /// The most records of a batch.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch_size: u32,
    /// Shards by number instead of a stream on demand.
    #[arg(long)]
    pub provisioned: bool,
    /// Events of the busiest second by those of an average one: what shards are made for.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub peak: u32,
}

/// A whole number from 1 to `most`, as people write large ones.
fn number(text: &str, most: u64) -> Result<u64, String> {
    let wrong = || format!("expected a number from 1 to {most}, such as 250000, 250k, 1.5M, 10G or 1e9");
    // A comma parts thousands, and nothing else: `1,5M` may be meant for 1.5M.
    let digits = |part: &str, least| (least..=3).contains(&part.len()) && part.chars().all(|c| c.is_ascii_digit());
    let parts_thousands = |(i, part)| digits(part, if i == 0 { 1 } else { 3 });
    if text.contains(',') && !text.split(',').enumerate().all(parts_thousands) {
        return Err(wrong());
    }
    let plain: String = text.chars().filter(|c| !matches!(c, ',' | '_')).collect();
    let exponent = match plain.chars().last() {
        Some('k' | 'K') => 3,
        Some('M') => 6,
        Some('G') => 9,
        _ => 0,
    };
    let digits = if exponent > 0 { plain.get(..plain.len() - 1).unwrap_or_default() } else { &plain };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(wrong());
    }
    let suffix = if exponent > 0 { format!("e{exponent}") } else { String::new() };
    let value: f64 = format!("{digits}{suffix}").parse().map_err(|_| wrong())?;
    // All numbers up to 2⁵³ that are whole are exact.
    match value.fract() == 0.0 && value >= 1.0 && value <= most as f64 {
        true => Ok(value as u64),
        false => Err(wrong()),
    }
}

/// Runs it.
pub fn run(args: &EstimateArgs, format: Format, out: &mut (dyn Write + Send)) -> Result<Exit, CommandError> {
    write(out, format, &of(args), shown)?;
    Ok(Exit::Clean)
}

fn of(args: &EstimateArgs) -> Estimate {
    estimate(Workload {
        events: args.events,
        projects: args.projects,
        item_bytes: args.item_bytes,
        batch_window: args.batch_window,
        batch_size: args.batch_size,
        on_demand: !args.provisioned,
        peak: f64::from(args.peak),
        ..Workload::default()
    })
}

fn dollars(amount: f64) -> String {
    // Whole dollars fit an i64 for every workload that the arguments allow.
    let cents = (amount * 100.0).round() as i64;
    format!("{}.{:02}", grouped(cents / 100), cents % 100)
}

/// A report for people.
fn shown(estimate: &Estimate) -> String {
    let mut text = String::new();
    let w = &estimate.workload;
    let row = |line: &Line, shown: fn(f64) -> String| {
        [line.what.clone(), shown(line.recount), shown(line.naive), shown(line.marker)]
    };
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{} a month of {}, items of {}, batches of {:.1} events for {:.1} cells, {} at the peak",
        plural(w.events, "event"),
        plural(w.projects, "project"),
        plural(w.item_bytes, "byte"),
        estimate.events_per_batch,
        estimate.cells_per_batch,
        plural(estimate.shards, "shard"),
    );
    let mut rows = table(&["US dollars a month", "recount", "ADD per event", "markers"].map(str::to_owned), 1);
    for line in estimate.lines.iter().chain([&estimate.total]) {
        rows.add_row(row(line, dollars));
    }
    rows.add_row(row(&estimate.write_units, |units| format!("{units:.3}")));
    let _ = writeln!(text, "{}\n", drawn(&rows));
    let _ = writeln!(
        text,
        "A month adds {:.1} GB to the archive; it is paid for each month that it is kept. Noncurrent versions, {:.1} GB, are those of a daily\n\
         compaction and of uploads, kept for 30 days; with StagingVersionDays=0, the default, uploads' versions are kept for ever: {:.1} GB\n\
         more each month. One recount of a month by Athena: {} dollars; one reconcile: {}.",
        estimate.archive_gb,
        estimate.noncurrent_gb,
        estimate.noncurrent_gb - 15.5 * estimate.archive_gb,
        dollars(estimate.athena_recount),
        dollars(estimate.athena_reconcile),
    );
    let _ = writeln!(
        text,
        "Prices of us-east-1, {}, without free tiers. Events are spread evenly, the dearest case.",
        estimate.prices_as_of
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown_of(events: u64, projects: u64, batch_window: u32) -> String {
        let args = EstimateArgs {
            events,
            projects,
            item_bytes: 500,
            batch_window,
            batch_size: 1_000,
            provisioned: false,
            peak: 3,
        };
        shown(&of(&args))
    }

    #[test]
    fn a_million_events() {
        insta::assert_snapshot!(shown_of(1_000_000, 100, 1), @r"
        1,000,000 events a month of 100 projects, items of 500 bytes, batches of 1.0 events for 1.0 cells, 1 shard at the peak
        ────────────────────────────────────────────────────────────────────
         US dollars a month               recount   ADD per event   markers
        ════════════════════════════════════════════════════════════════════
         DynamoDB writes                     1.28            0.63      2.50
         DynamoDB reads                      0.04            0.00      0.00
         DynamoDB storage and recovery       0.01            0.00      0.09
         Change capture                      0.10            0.10      0.10
         Kinesis                            29.54           29.43     29.43
         Lambda: consumer                    0.25            0.25      0.25
         Lambda: compactor                   0.58            0.00      0.00
         S3: a month's archive               0.01            0.00      0.00
         S3: noncurrent versions             0.17            0.00      0.00
         S3: requests                        0.30            0.00      0.00
         Glue                                0.00            0.00      0.00
         CloudWatch: metrics and alarms     14.20            0.00      0.00
         CloudWatch: logs                    1.23            0.33      0.33
         Total                              47.70           30.73     32.70
         Write units per event              2.051           1.000     4.000
        ────────────────────────────────────────────────────────────────────

        A month adds 0.3 GB to the archive; it is paid for each month that it is kept. Noncurrent versions, 7.4 GB, are those of a daily
        compaction and of uploads, kept for 30 days; with StagingVersionDays=0, the default, uploads' versions are kept for ever: 2.2 GB
        more each month. One recount of a month by Athena: 0.00 dollars; one reconcile: 0.00.
        Prices of us-east-1, 2026-11, without free tiers. Events are spread evenly, the dearest case.
        ");
    }

    #[test]
    fn a_hundred_million_events() {
        insta::assert_snapshot!(shown_of(100_000_000, 1_000, 1), @r"
        100,000,000 events a month of 1,000 projects, items of 500 bytes, batches of 9.6 events for 9.6 cells, 1 shard at the peak
        ────────────────────────────────────────────────────────────────────
         US dollars a month               recount   ADD per event   markers
        ════════════════════════════════════════════════════════════════════
         DynamoDB writes                    71.92           62.50    249.46
         DynamoDB reads                      2.25            0.00      0.00
         DynamoDB storage and recovery       0.88            0.00      9.30
         Change capture                     10.00           10.00     10.00
         Kinesis                            63.53           52.09     52.09
         Lambda: consumer                    2.98            2.94      2.98
         Lambda: compactor                   0.66            0.00      0.00
         S3: a month's archive               0.77            0.00      0.00
         S3: noncurrent versions            13.49            0.00      0.00
         S3: requests                        0.37            0.00      0.00
         Glue                                0.00            0.00      0.00
         CloudWatch: metrics and alarms     14.20            0.00      0.00
         CloudWatch: logs                   12.68            3.41      3.41
         Total                             193.73          130.94    327.24
         Write units per event              1.151           1.000     3.991
        ────────────────────────────────────────────────────────────────────

        A month adds 33.5 GB to the archive; it is paid for each month that it is kept. Noncurrent versions, 586.7 GB, are those of a daily
        compaction and of uploads, kept for 30 days; with StagingVersionDays=0, the default, uploads' versions are kept for ever: 67.1 GB
        more each month. One recount of a month by Athena: 0.00 dollars; one reconcile: 0.02.
        Prices of us-east-1, 2026-11, without free tiers. Events are spread evenly, the dearest case.
        ");
    }

    #[test]
    fn ten_billion_events() {
        insta::assert_snapshot!(shown_of(10_000_000_000, 10_000, 5), @r"
        10,000,000,000 events a month of 10,000 projects, items of 500 bytes, batches of 1000.0 events for 951.7 cells, 14 shards at the peak
        ────────────────────────────────────────────────────────────────────────
         US dollars a month                 recount   ADD per event     markers
        ════════════════════════════════════════════════════════════════════════
         DynamoDB writes                   6,274.71        6,250.00   24,395.89
         DynamoDB reads                      212.13            0.00        0.00
         DynamoDB storage and recovery        87.87            0.00      930.39
         Change capture                    1,000.00        1,000.00    1,000.00
         Kinesis                           3,462.43        2,318.02    2,318.02
         Lambda: consumer                     47.70           45.75       44.19
         Lambda: compactor                     9.24            0.00        0.00
         S3: a month's archive                77.11            0.00        0.00
         S3: noncurrent versions           1,349.49            0.00        0.00
         S3: requests                          7.66            0.00        0.00
         Glue                                  0.00            0.00        0.00
         CloudWatch: metrics and alarms       14.20            0.00        0.00
         CloudWatch: logs                     12.23            3.29        3.29
         Total                            12,554.77        9,617.06   28,691.78
         Write units per event                1.004           1.000       3.903
        ────────────────────────────────────────────────────────────────────────

        A month adds 3352.8 GB to the archive; it is paid for each month that it is kept. Noncurrent versions, 58673.3 GB, are those of a daily
        compaction and of uploads, kept for 30 days; with StagingVersionDays=0, the default, uploads' versions are kept for ever: 6705.5 GB
        more each month. One recount of a month by Athena: 0.36 dollars; one reconcile: 1.55.
        Prices of us-east-1, 2026-11, without free tiers. Events are spread evenly, the dearest case.
        ");
    }

    #[test]
    fn large_numbers_are_written_as_people_write_them() {
        for (text, expected) in [
            ("1", 1),
            ("250000", 250_000),
            ("250,000", 250_000),
            ("250_000", 250_000),
            ("250k", 250_000),
            ("1.5M", 1_500_000),
            ("1e6", 1_000_000),
            ("10G", 10_000_000_000),
            ("1000000000000000", 1_000_000_000_000_000),
        ] {
            assert_eq!(number(text, 1_000_000_000_000_000), Ok(expected), "{text}");
        }
        for wrong in [
            "", "0", "-1", "1.5", "1e", "M", "1e16", "1MM", "1m", "inf", "nan", "+1", "0x10", "1e-3k", "１", "1,5M",
            "1,000k", "1000,000", ",1", "1,",
        ] {
            assert!(number(wrong, 1_000_000_000_000_000).is_err(), "{wrong}");
        }
        insta::assert_snapshot!(number("many", 10).unwrap_err(), @"expected a number from 1 to 10, such as 250000, 250k, 1.5M, 10G or 1e9");
    }
}
