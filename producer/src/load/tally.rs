//! The plain count of what was produced. Made without the fold that it is compared with: one addition an operation.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::plan::Operation;
use crate::items::Scan;

/// What one project has in one month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The project.
    pub project: String,
    /// The month, as `2026-11`.
    pub month: String,
    /// Items inserted: what `count = "inserts"` counts.
    pub inserts: i64,
    /// The sum of their bytes.
    pub inserted_bytes: i64,
    /// Items that are there in the end: what `count = "net"` counts.
    pub live: i64,
    /// The sum of their bytes.
    pub live_bytes: i64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    inserts: i64,
    inserted_bytes: i64,
    live: i64,
    live_bytes: i64,
}

/// Counts as operations pass.
#[derive(Debug)]
pub struct Tally {
    zone: TimeZone,
    rows: BTreeMap<(String, String), Counts>,
}

impl Tally {
    /// With months that end by the clocks of `zone`.
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, rows: BTreeMap::new() }
    }

    /// Counts one operation.
    pub fn add(&mut self, operation: &Operation) {
        match operation {
            Operation::Insert(scan) => {
                let counts = self.of(scan);
                counts.inserts += 1;
                counts.inserted_bytes += bytes(scan);
                counts.live += 1;
                counts.live_bytes += bytes(scan);
            }
            Operation::Update { old, new } => {
                self.take(old);
                let counts = self.of(new);
                counts.live += 1;
                counts.live_bytes += bytes(new);
            }
            Operation::Delete(old) => self.take(old),
        }
    }

    fn take(&mut self, old: &Scan) {
        let counts = self.of(old);
        counts.live -= 1;
        counts.live_bytes -= bytes(old);
    }

    fn of(&mut self, scan: &Scan) -> &mut Counts {
        let at = Timestamp::from_microsecond(scan.scanned_us).unwrap_or_default().to_zoned(self.zone.clone());
        self.rows.entry((scan.project_id.clone(), at.strftime("%Y-%m").to_string())).or_default()
    }

    /// The count so far, by project and month.
    pub fn rows(&self) -> Vec<Row> {
        let row = |((project, month), counts): (&(String, String), &Counts)| Row {
            project: project.clone(),
            month: month.clone(),
            inserts: counts.inserts,
            inserted_bytes: counts.inserted_bytes,
            live: counts.live,
            live_bytes: counts.live_bytes,
        };
        self.rows.iter().map(row).collect()
    }
}

fn bytes(scan: &Scan) -> i64 {
    i64::try_from(scan.bytes).unwrap_or(i64::MAX)
}
