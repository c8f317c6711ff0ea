//! A load into the table, or straight into the stream.

use std::sync::{Mutex, PoisonError};

use recount_schemas::host::Host;
use serde::Serialize;

use super::changes::Changes;
use super::plan::{Operation, Plan};
use super::tally::{Row, Tally};
use super::{BadSettings, LoadSettings};
use crate::drive::{Driven, Pace, Target, drive};
use crate::stream::Posted;
use crate::table::Write;

/// What a load produced.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadReport {
    /// `table` or `stream`.
    pub target: &'static str,
    /// The seed.
    pub seed: u64,
    /// Items inserted.
    pub inserts: u64,
    /// Items changed.
    pub updates: u64,
    /// Items deleted.
    pub deletes: u64,
    /// Change records written twice.
    pub duplicates: u64,
    /// Change records written later than their turn.
    pub out_of_order: u64,
    /// How many operations or records, how fast.
    #[serde(flatten)]
    pub driven: Driven,
    /// BLAKE3 over the operations, in their order: the same settings give the same.
    pub digest: String,
    /// What there is to count, by project and month.
    pub tally: Vec<Row>,
}

/// Why a load ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E> {
    /// The settings cannot be.
    #[error(transparent)]
    Settings(#[from] BadSettings),
    /// The table or the stream did not take it.
    #[error(transparent)]
    Target(E),
}

/// Writes a load to a table. Duplicates and disorder are the stream's, so those settings do nothing here.
pub async fn into_table<T: Target<Op = Write>>(
    target: &T,
    settings: &LoadSettings,
    pace: Pace,
    host: &dyn Host,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<LoadReport, LoadError<T::Error>> {
    let produced = Mutex::new(Produced::new(settings));
    let writes = Plan::new(settings)?.map(|operation| {
        lock(&produced).add(&operation);
        match operation {
            Operation::Insert(scan) | Operation::Update { new: scan, .. } => Write::Put(scan),
            Operation::Delete(scan) => Write::Delete(scan.scan_id),
        }
    });
    let driven = drive(target, futures::stream::iter(writes), pace, host, progress).await.map_err(LoadError::Target)?;
    Ok(finish(produced, "table", settings, driven))
}

/// Writes a load as change records of the table called `table` straight into a stream.
pub async fn into_stream<T: Target<Op = Posted>>(
    target: &T,
    settings: &LoadSettings,
    table: &str,
    pace: Pace,
    host: &dyn Host,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<LoadReport, LoadError<T::Error>> {
    let produced = Mutex::new(Produced::new(settings));
    let records = Changes::new(settings, table)?.map(|written| {
        let mut produced = lock(&produced);
        match &written.operation {
            Some(operation) => produced.add(operation),
            None => produced.duplicates += 1,
        }
        produced.out_of_order += u64::from(written.held_back);
        written.record
    });
    let driven =
        drive(target, futures::stream::iter(records), pace, host, progress).await.map_err(LoadError::Target)?;
    Ok(finish(produced, "stream", settings, driven))
}

struct Produced {
    inserts: u64,
    updates: u64,
    deletes: u64,
    duplicates: u64,
    out_of_order: u64,
    tally: Tally,
    hasher: blake3::Hasher,
}

impl Produced {
    fn new(settings: &LoadSettings) -> Self {
        Self {
            inserts: 0,
            updates: 0,
            deletes: 0,
            duplicates: 0,
            out_of_order: 0,
            tally: Tally::new(settings.zone.clone()),
            hasher: blake3::Hasher::new(),
        }
    }

    fn add(&mut self, operation: &Operation) {
        match operation {
            Operation::Insert(_) => self.inserts += 1,
            Operation::Update { .. } => self.updates += 1,
            Operation::Delete(_) => self.deletes += 1,
        }
        self.tally.add(operation);
        // An operation is texts and numbers, and a hasher takes all that is written: neither fails.
        let _ = serde_json::to_writer(&mut self.hasher, operation);
    }
}

fn lock(produced: &Mutex<Produced>) -> std::sync::MutexGuard<'_, Produced> {
    produced.lock().unwrap_or_else(PoisonError::into_inner)
}

fn finish(produced: Mutex<Produced>, target: &'static str, settings: &LoadSettings, driven: Driven) -> LoadReport {
    let produced = produced.into_inner().unwrap_or_else(PoisonError::into_inner);
    LoadReport {
        target,
        seed: settings.seed,
        inserts: produced.inserts,
        updates: produced.updates,
        deletes: produced.deletes,
        duplicates: produced.duplicates,
        out_of_order: produced.out_of_order,
        driven,
        digest: produced.hasher.finalize().to_hex().to_string(),
        tally: produced.tally.rows(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::items::Scan;
    use crate::loopback::StillHost;
    use std::collections::{BTreeMap, HashMap};

    /// A table that is a map, and remembers what was ever inserted.
    #[derive(Default)]
    struct Map(Mutex<(HashMap<String, Scan>, Vec<Scan>)>);

    impl Target for Map {
        type Op = Write;
        type Error = std::convert::Infallible;

        fn most(&self) -> usize {
            25
        }

        fn item<'a>(&self, op: &'a Write) -> &'a str {
            match op {
                Write::Put(scan) => &scan.scan_id,
                Write::Delete(scan_id) => scan_id,
            }
        }

        fn distinct(&self) -> bool {
            true
        }

        async fn send(&self, batch: Vec<Write>) -> Result<(), Self::Error> {
            tokio::task::yield_now().await;
            let mut map = self.0.lock().unwrap();
            for write in batch {
                match write {
                    Write::Put(scan) => {
                        if map.0.insert(scan.scan_id.clone(), scan.clone()).is_none() {
                            map.1.push(scan);
                        }
                    }
                    Write::Delete(scan_id) => assert!(map.0.remove(&scan_id).is_some(), "a delete before its insert"),
                }
            }
            Ok(())
        }
    }

    fn counted<'a>(scans: impl Iterator<Item = &'a Scan>) -> BTreeMap<(String, String), (i64, i64)> {
        let mut counts = BTreeMap::new();
        for scan in scans {
            let month = scan.scanned_at()[..7].to_owned();
            let count: &mut (i64, i64) = counts.entry((scan.project_id.clone(), month)).or_default();
            *count = (count.0 + 1, count.1 + scan.bytes as i64);
        }
        counts
    }

    #[tokio::test]
    async fn the_tally_is_what_the_table_then_holds() {
        let until_us = "2026-11-20T12:00:00Z".parse::<jiff::Timestamp>().unwrap().as_microsecond();
        let settings = LoadSettings { updates: 0.5, deletes: 0.3, months: 3, ..LoadSettings::new(2_000, until_us) };
        let (map, host) = (Map::default(), StillHost::default());
        let report = into_table(&map, &settings, Pace::default(), &host, &|_| {}).await.unwrap();
        assert_eq!(report.driven.operations, report.inserts + report.updates + report.deletes);
        let (live, inserted) = map.0.into_inner().unwrap();
        let rows = |pick: fn(&Row) -> (i64, i64)| {
            let rows = report.tally.iter().map(|row| ((row.project.clone(), row.month.clone()), pick(row)));
            rows.filter(|(_, counts)| *counts != (0, 0)).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(counted(inserted.iter()), rows(|row| (row.inserts, row.inserted_bytes)));
        assert_eq!(counted(live.values()), rows(|row| (row.live, row.live_bytes)));

        let again = into_table(&Map::default(), &settings, Pace::default(), &host, &|_| {}).await.unwrap();
        assert_eq!(report.digest, again.digest);
        assert_eq!(report.tally, again.tally);
    }
}
