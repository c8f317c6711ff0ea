//! The operations of a load, one after the other, all drawn from one seed.
//!
//! After each insert, with the given chances, an update and a delete of an earlier item. An update changes the verdict (half of
//! them), the size (three in ten) or the project (two in ten), so that net counting has something to do. The items that may
//! still be changed are a sample of bounded size.

use serde::Serialize;

use super::zipf::Zipf;
use super::{BadSettings, LoadSettings};
use crate::items::{Scan, hex, scan_id};

/// The most items that are kept for later updates and deletes.
const MAX_KEPT: usize = 10_000;

/// One operation on the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Operation {
    /// A new item.
    Insert(Scan),
    /// An item changed.
    Update {
        /// As it was.
        old: Scan,
        /// As it is now.
        new: Scan,
    },
    /// An item deleted.
    Delete(Scan),
}

/// The operations of a load.
#[derive(Debug, Clone)]
pub struct Plan {
    settings: LoadSettings,
    span: (i64, i64),
    run: String,
    projects: Zipf,
    random: fastrand::Rng,
    inserted: u64,
    kept: Vec<Scan>,
    /// What follows the last insert.
    due: Vec<Operation>,
}

impl Plan {
    /// The plan of a load. Its keys depend on the seed alone, so a load repeated writes the same items.
    pub fn new(settings: &LoadSettings) -> Result<Self, BadSettings> {
        Ok(Self {
            span: settings.span()?,
            run: format!("load {}", settings.seed),
            projects: Zipf::new(settings.projects, settings.zipf),
            random: fastrand::Rng::with_seed(settings.seed),
            settings: settings.clone(),
            inserted: 0,
            kept: Vec::new(),
            due: Vec::new(),
        })
    }

    fn project(&mut self) -> String {
        format!("project-{:04}", self.projects.draw(&mut self.random) + 1)
    }

    fn bytes(&mut self) -> u64 {
        let magnitude = self.random.u32(0..28);
        self.random.u64(0..(2u64 << magnitude))
    }

    fn insert(&mut self) -> Scan {
        let digest: [u8; 32] = std::array::from_fn(|_| self.random.u8(..));
        let kind = match self.random.u32(0..100) {
            0 => "🦀 \"quoted\".bin",
            1..20 => "report.pdf",
            20..60 => "main.rs",
            _ => "data.bin",
        };
        let scan = Scan {
            scan_id: scan_id(&self.run, &self.inserted.to_be_bytes()),
            project_id: self.project(),
            file_name: format!("{:06}/{kind}", self.inserted),
            bytes: self.bytes(),
            sha256: hex(&digest),
            verdict: if self.random.u32(0..50) == 0 { "infected" } else { "clean" }.to_owned(),
            scanned_us: self.random.i64(self.span.0..=self.span.1),
        };
        self.inserted += 1;
        if self.kept.len() < MAX_KEPT {
            self.kept.push(scan.clone());
        } else {
            let place = self.random.usize(0..self.kept.len());
            if let Some(kept) = self.kept.get_mut(place) {
                *kept = scan.clone();
            }
        }
        scan
    }

    fn update(&mut self) -> Option<Operation> {
        if self.kept.is_empty() {
            return None;
        }
        let place = self.random.usize(0..self.kept.len());
        let old = self.kept.get(place)?.clone();
        let mut new = old.clone();
        match self.random.u32(0..10) {
            0..5 => new.verdict = format!("clean, looked at again at {}", self.inserted),
            5..8 => new.bytes = self.bytes(),
            _ => new.project_id = self.project(),
        }
        // DynamoDB writes no change record for a write that changes nothing.
        if new == old {
            return None;
        }
        *self.kept.get_mut(place)? = new.clone();
        Some(Operation::Update { old, new })
    }

    fn delete(&mut self) -> Option<Operation> {
        if self.kept.is_empty() {
            return None;
        }
        let place = self.random.usize(0..self.kept.len());
        Some(Operation::Delete(self.kept.swap_remove(place)))
    }
}

impl Iterator for Plan {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        if let Some(operation) = self.due.pop() {
            return Some(operation);
        }
        if self.inserted >= self.settings.events {
            return None;
        }
        let scan = self.insert();
        let (update, delete) = (self.random.f64(), self.random.f64());
        // The last in is the first out: the update, if any, comes before the delete.
        let mut due = Vec::new();
        if update < self.settings.updates {
            due.extend(self.update());
        }
        if delete < self.settings.deletes {
            due.extend(self.delete());
        }
        due.reverse();
        self.due = due;
        Some(Operation::Insert(scan))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn settings() -> LoadSettings {
        let until_us = "2026-11-20T12:00:00Z".parse::<jiff::Timestamp>().unwrap().as_microsecond();
        LoadSettings { updates: 0.4, deletes: 0.2, months: 3, ..LoadSettings::new(1_000, until_us) }
    }

    fn digest(settings: &LoadSettings) -> String {
        let operations: Vec<_> = Plan::new(settings).unwrap().collect();
        blake3::hash(&serde_json::to_vec(&operations).unwrap()).to_hex().to_string()
    }

    #[test]
    fn a_seed_means_one_plan() {
        assert_eq!(digest(&settings()), digest(&settings()));
        assert_ne!(digest(&settings()), digest(&LoadSettings { seed: 2, ..settings() }));
    }

    #[test]
    fn every_operation_is_on_an_item_as_it_then_is() {
        let mut table: HashMap<String, Scan> = HashMap::new();
        let mut counts = [0u64; 3];
        for operation in Plan::new(&settings()).unwrap() {
            match operation {
                Operation::Insert(scan) => {
                    counts[0] += 1;
                    assert_eq!(table.insert(scan.scan_id.clone(), scan), None);
                }
                Operation::Update { old, new } => {
                    counts[1] += 1;
                    assert_ne!(old, new);
                    assert_eq!(table.insert(new.scan_id.clone(), new), Some(old));
                }
                Operation::Delete(old) => {
                    counts[2] += 1;
                    assert_eq!(table.remove(&old.scan_id), Some(old));
                }
            }
        }
        assert_eq!(counts[0], 1_000);
        assert!((300..450).contains(&counts[1]) && (150..250).contains(&counts[2]), "{counts:?}");
    }

    #[test]
    fn times_fill_the_months() {
        let zone = jiff::tz::TimeZone::get("America/New_York").unwrap();
        let settings = LoadSettings { zone: zone.clone(), updates: 0.0, deletes: 0.0, ..settings() };
        let mut months: HashMap<String, u32> = HashMap::new();
        for operation in Plan::new(&settings).unwrap() {
            let Operation::Insert(scan) = operation else { panic!() };
            assert!(scan.scanned_us <= settings.until_us);
            let at = jiff::Timestamp::from_microsecond(scan.scanned_us).unwrap().to_zoned(zone.clone());
            *months.entry(at.strftime("%Y-%m").to_string()).or_default() += 1;
        }
        let mut names: Vec<_> = months.into_keys().collect();
        names.sort();
        assert_eq!(names, ["2026-09", "2026-10", "2026-11"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let error = |settings: LoadSettings| Plan::new(&settings).unwrap_err().to_string();
        let errors = [
            error(LoadSettings { projects: 0, ..settings() }),
            error(LoadSettings { months: 121, ..settings() }),
            error(LoadSettings { zipf: f64::NAN, ..settings() }),
            error(LoadSettings { updates: 1.5, ..settings() }),
            error(LoadSettings { until_us: 0, ..settings() }),
            error(LoadSettings { until_us: i64::MAX, ..settings() }),
        ];
        insta::assert_snapshot!(errors.join("\n"), @"
        projects is 1 to 1000000, not 0
        months is 1 to 120, not 121
        zipf is 0 to 10, not NaN
        updates is a share from 0 to 1, not 1.5
        until and the months before it must lie after 1970
        until and the months before it must lie after 1970
        ");
    }
}
