//! The oracle: what the records of the stream come to, worked out the slow and obvious way. It shares no code with the
//! parts, but for the vocabulary: event keys, their lanes, cells.

use std::collections::{BTreeMap, BTreeSet};

use recount_schemas::{Cell, EventKey};
use serde_json::Value;

use crate::naive;
use crate::network::Put;

/// Events and bytes.
pub type Pair = (i64, i64);

/// What one readable record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: EventKey,
    pub event_id: String,
    /// What it adds to which cell.
    pub adds: BTreeMap<Cell, Pair>,
}

/// All records that were ever put, sorted out.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Each change with all the contents that its key came with.
    pub changes: BTreeMap<EventKey, Vec<Change>>,
    /// The records that nobody can read, by shard and sequence number.
    pub poison: BTreeSet<(String, String)>,
    /// What key each record has.
    pub keys: BTreeMap<(String, String), EventKey>,
}

fn image(image: &Value) -> Option<Option<(String, i64, i64)>> {
    if image.is_null() {
        return Some(None);
    }
    let project = image["project_id"]["S"].as_str()?.to_owned();
    let bytes: i64 = image["bytes"]["N"].as_str()?.parse().ok()?;
    let at: jiff::Timestamp = image["scanned_at"]["S"].as_str()?.parse().ok()?;
    Some(Some((project, at.as_second(), bytes)))
}

/// Reads a record; `None`: nobody can.
pub fn read(put: &Put, net: bool, lanes: u16) -> Option<Change> {
    let record: Value = serde_json::from_slice(&put.data).ok()?;
    let event_id = record["eventID"].as_str()?.to_owned();
    let name = record["eventName"].as_str()?;
    let change = &record["dynamodb"];
    // Times of our days: their size tells seconds, milliseconds and microseconds apart.
    let created = change["ApproximateCreationDateTime"].as_f64()?;
    let created_us = match created {
        c if c < 1e11 => (c * 1e6).round() as i64,
        c if c < 1e14 => c as i64 * 1_000,
        c => c as i64,
    };
    if created_us > put.arrived_us + 86_400_000_000 {
        return None;
    }
    let key = EventKey::new(created_us.div_euclid(1_000), event_id.as_bytes())?;
    let mut adds: BTreeMap<Cell, Pair> = BTreeMap::new();
    // What does not count need not be readable.
    let counted = [("NewImage", 1, net || name == "INSERT"), ("OldImage", -1, net)];
    for (member, sign, _) in counted.into_iter().filter(|(_, _, counts)| *counts) {
        let Some((project, at, bytes)) = image(&change[member])? else { continue };
        let cell = Cell { group: project.parse().ok()?, month: naive::month(at).parse().ok()?, lane: key.lane(lanes) };
        let pair = adds.entry(cell).or_default();
        *pair = (pair.0 + sign, pair.1 + sign * bytes);
    }
    Some(Change { key, event_id, adds })
}

impl Oracle {
    pub fn new<'a>(puts: impl IntoIterator<Item = &'a Put>, net: bool, lanes: u16) -> Self {
        let mut oracle = Self::default();
        for put in puts {
            let at = (put.shard.clone(), put.sequence.clone());
            match read(put, net, lanes) {
                Some(change) => {
                    oracle.keys.insert(at, change.key);
                    let known = oracle.changes.entry(change.key).or_default();
                    if !known.contains(&change) {
                        known.push(change);
                    }
                }
                None => {
                    oracle.poison.insert(at);
                }
            }
        }
        oracle
    }

    /// What a key can add to a cell: one pair for each content that it came with.
    pub fn adds(&self, key: &EventKey, cell: &Cell) -> Vec<Pair> {
        self.changes.get(key).into_iter().flatten().filter_map(|change| change.adds.get(cell).copied()).collect()
    }

    /// The keys that concern each cell.
    pub fn cells(&self) -> BTreeMap<Cell, BTreeSet<EventKey>> {
        let mut cells: BTreeMap<Cell, BTreeSet<EventKey>> = BTreeMap::new();
        for change in self.changes.values().flatten() {
            for cell in change.adds.keys() {
                cells.entry(cell.clone()).or_default().insert(change.key);
            }
        }
        cells
    }
}

/// Whether `total` can come from adding up one of the pairs of each list: exactly, where each has one, else between the
/// least and the greatest sums.
pub fn fits(total: Pair, all: impl IntoIterator<Item = Vec<Pair>>) -> bool {
    let (mut least, mut most) = ((0, 0), (0, 0));
    for pairs in all {
        let events = || pairs.iter().map(|pair| pair.0);
        let bytes = || pairs.iter().map(|pair| pair.1);
        least = (least.0 + events().min().unwrap_or(0), least.1 + bytes().min().unwrap_or(0));
        most = (most.0 + events().max().unwrap_or(0), most.1 + bytes().max().unwrap_or(0));
    }
    (least.0..=most.0).contains(&total.0) && (least.1..=most.1).contains(&total.1)
}
