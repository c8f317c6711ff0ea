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
    /// Scans that are in the table as given.
    pub inserted: u64,
    /// Whether another scan of that key was there already (only told for one scan).
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
    use crate::loopback::{StillHost, serve};
    use sha2::{Digest, Sha256};
    use std::sync::Arc;

    async fn recorded(count: u64, status: u16, body: &'static str) -> (RecordReport, Vec<String>) {
        let (config, seen) = serve(move |_| (status, body.to_owned())).await;
        let host = Arc::new(StillHost::default());
        let table = Table::new(aws_sdk_dynamodb::Client::new(&config), "scans", host.clone());
        let settings = RecordSettings {
            project: "acme".into(),
            count,
            at_us: 0,
            file_name: "f".into(),
            bytes: 7,
            run: "r".into(),
        };
        let report = record(&table, &settings, &*host).await.unwrap();
        let seen = seen.lock().unwrap();
        let body = |request: &crate::loopback::Request| String::from_utf8_lossy(&request.body).into_owned();
        (report, seen.iter().map(body).collect())
    }

    #[tokio::test]
    async fn one_scan_is_put_only_if_it_is_not_there() {
        let (report, bodies) = recorded(1, 200, "{}").await;
        assert_eq!((report.inserted, report.existed, bodies.len()), (1, false, 1));
        assert!(bodies[0].contains("attribute_not_exists(scan_id)") && bodies[0].contains(&report.scan_ids[0]));
        let refusal = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"}"#;
        let (again, _) = recorded(1, 400, refusal).await;
        assert_eq!((again.inserted, again.existed), (0, true));
        assert_eq!(again.scan_ids, report.scan_ids, "the same run writes the same item");
    }

    #[tokio::test]
    async fn many_scans_go_in_batches_and_each_has_its_key() {
        let (report, bodies) = recorded(120, 200, "{}").await;
        assert_eq!((report.inserted, report.scan_ids.len()), (120, 100));
        let all = bodies.concat();
        assert_eq!(all.matches("PutRequest").count(), 120);
        assert!(report.scan_ids.iter().all(|id| all.matches(id.as_str()).count() == 1));
    }

    #[test]
    fn the_digest_of_nothing() {
        assert_eq!(crate::items::hex(&Sha256::digest(b"")), EMPTY_SHA256);
    }
}
