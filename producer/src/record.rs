//! A few scans by hand: one by a conditional PutItem, more in batches.

use recount_schemas::host::Host;
use serde::Serialize;

use crate::drive::{Pace, drive};
use crate::items::{Scan, scan_id};
use crate::table::{Table, TableError, Write};

/// The most ids that a report lists.
const LISTED: u64 = 100;

/// What to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSettings {
    /// The project of each scan.
    pub project: String,
    /// How many scans.
    pub count: u64,
    /// When they were scanned, µs since 1970.
    pub at_us: i64,
    /// The file's name.
    pub file_name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// What keys are made from, with the number of the scan: the same run again writes the same items.
    pub run: String,
}

/// What was recorded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecordReport {
    /// The table.
    pub table: String,
    /// The project.
    pub project: String,
    /// What keys were made from.
    pub run: String,
    /// Scans written.
    pub inserted: u64,
    /// Whether the scan was there already (only told for one scan).
    pub existed: bool,
    /// The keys of the first of them, at most 100.
    pub scan_ids: Vec<String>,
    /// The time that it took, in seconds.
    pub seconds: f64,
}

/// The scan of number `i` (from 0). No file stands behind it, so its digest is that of nothing.
fn scan(settings: &RecordSettings, i: u64) -> Scan {
    Scan {
        scan_id: scan_id(&settings.run, &i.to_be_bytes()),
        project_id: settings.project.clone(),
        file_name: settings.file_name.clone(),
        bytes: settings.bytes,
        sha256: EMPTY_SHA256.to_owned(),
        verdict: "clean".to_owned(),
        scanned_us: settings.at_us,
    }
}

/// SHA-256 of no bytes.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Inserts the scans that `settings` describes.
pub async fn record(table: &Table, settings: &RecordSettings, host: &dyn Host) -> Result<RecordReport, TableError> {
    let started = host.monotonic();
    let mut existed = false;
    if settings.count == 1 {
        existed = !table.insert(&scan(settings, 0)).await?;
    } else {
        let writes = futures::stream::iter((0..settings.count).map(|i| Write::Put(scan(settings, i))));
        drive(table, writes, Pace::default(), host, &|_| {}).await?;
    }
    Ok(RecordReport {
        table: table.name().to_owned(),
        project: settings.project.clone(),
        run: settings.run.clone(),
        inserted: if existed { 0 } else { settings.count },
        existed,
        scan_ids: (0..settings.count.min(LISTED)).map(|i| scan(settings, i).scan_id).collect(),
        seconds: host.monotonic().saturating_sub(started).as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_digest_of_nothing() {
        assert_eq!(crate::items::hex(&Sha256::digest(b"")), EMPTY_SHA256);
    }
}
