//! Many invented scans: the same from the same settings, so that what was produced can be compared with what was counted.
//!
//! - [`zipf`]: which project: a few have most of the scans.
//! - [`plan`]: the operations: inserts, and updates and deletes of earlier items.
//! - [`changes`]: the same as change records, as Kinesis Data Streams for DynamoDB writes them, with duplicates and disorder.
//! - [`tally`]: the plain count of what was produced, made without the fold.
//! - [`run`]: the two targets, table and stream.

pub mod changes;
pub mod plan;
pub mod run;
pub mod tally;
pub mod zipf;

pub use plan::{Operation, Plan};
pub use run::{LoadError, LoadReport, into_stream, into_table};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// The most projects.
pub const MAX_PROJECTS: u32 = 1_000_000;
/// The most months.
pub const MAX_MONTHS: u32 = 120;

/// What to produce. All times come from `until_us`: the same settings give the same operations on any day.
#[derive(Debug, Clone)]
pub struct LoadSettings {
    /// Scans inserted.
    pub events: u64,
    /// Projects that they are spread over, 1 to [`MAX_PROJECTS`].
    pub projects: u32,
    /// How unevenly: the project of rank k gets a share in proportion to k^-zipf. 0: evenly.
    pub zipf: f64,
    /// Months that they are spread over, the last being that of `until_us`: 1 to [`MAX_MONTHS`].
    pub months: u32,
    /// The last moment of a scan, µs since 1970.
    pub until_us: i64,
    /// The zone whose clocks end months.
    pub zone: TimeZone,
    /// What all choices are drawn from.
    pub seed: u64,
    /// Updates of an earlier item, for each insert: 0 to 1.
    pub updates: f64,
    /// Deletes of an earlier item, for each insert: 0 to 1.
    pub deletes: f64,
    /// Change records written twice, of all: 0 to 1. Only into a stream.
    pub duplicates: f64,
    /// Change records written later than their turn, of all: 0 to 1. Only into a stream.
    pub out_of_order: f64,
}

/// Settings that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {rule}")]
pub struct BadSettings {
    setting: &'static str,
    rule: String,
}

impl LoadSettings {
    /// `events` inserts over 20 projects in the month of `until_us`, by the clocks of UTC.
    pub fn new(events: u64, until_us: i64) -> Self {
        Self {
            events,
            projects: 20,
            zipf: 1.0,
            months: 1,
            until_us,
            zone: TimeZone::UTC,
            seed: 1,
            updates: 0.0,
            deletes: 0.0,
            duplicates: 0.0,
            out_of_order: 0.0,
        }
    }

    /// Checks the settings and gives the span of time that scans are spread over, in µs: from the start of the first month
    /// to `until_us`.
    fn span(&self) -> Result<(i64, i64), BadSettings> {
        let bad = |setting, rule: String| Err(BadSettings { setting, rule });
        if !(1..=MAX_PROJECTS).contains(&self.projects) {
            return bad("projects", format!("is 1 to {MAX_PROJECTS}, not {}", self.projects));
        }
        if !(1..=MAX_MONTHS).contains(&self.months) {
            return bad("months", format!("is 1 to {MAX_MONTHS}, not {}", self.months));
        }
        if !(0.0..=10.0).contains(&self.zipf) {
            return bad("zipf", format!("is 0 to 10, not {}", self.zipf));
        }
        let shares = [
            ("updates", self.updates),
            ("deletes", self.deletes),
            ("duplicates", self.duplicates),
            ("out-of-order", self.out_of_order),
        ];
        for (setting, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return bad(setting, format!("is a share from 0 to 1, not {share}"));
            }
        }
        let first = || {
            let until = Timestamp::from_microsecond(self.until_us).ok()?.to_zoned(self.zone.clone());
            let month = until.date().first_of_month();
            let first = month.checked_sub((i64::from(self.months) - 1).months()).ok()?;
            // Where midnight does not exist or exists twice, any instant of that hour will do.
            let start = first.to_zoned(self.zone.clone()).ok()?.timestamp().as_microsecond();
            (start >= 0).then_some(start.min(self.until_us))
        };
        match first() {
            Some(first) => Ok((first, self.until_us)),
            None => bad("until", "and the months before it must lie after 1970".to_owned()),
        }
    }
}
