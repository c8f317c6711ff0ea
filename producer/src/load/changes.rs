//! The operations of a load as change records, as Kinesis Data Streams for DynamoDB would write them: for driving the consumer
//! without a table.
//!
//! Every record has an event ID and a creation time of its own, in µs, rising with the operations and ending at the load's
//! last moment. What DynamoDB is known to do to a stream can be asked for (DynamoDB Developer Guide, "kds"):
//!
//! - **Duplicates**: a record of the last thousand is written again, word for word, as a further record.
//! - **Disorder**: a record is held back for up to a hundred places.
//!
//! Several batches on their way at once add a little disorder between items, asked for or not; changes of one item stay in
//! the order in which they are written here.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::plan::{Operation, Plan};
use super::{BadSettings, LoadSettings};
use crate::items::{KEY, Scan};
use crate::relay::partition;
use crate::stream::Posted;

/// How many records back a duplicate may repeat.
const REMEMBERED: usize = 1_000;
/// How many places a record may be held back.
const HELD: u64 = 100;
/// The mean distance of creation times.
const STEP_US: i64 = 100;

/// A change record, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The record.
    pub record: Posted,
    /// Its operation; `None` for a duplicate.
    pub operation: Option<Operation>,
    /// Whether it is written later than its turn.
    pub held_back: bool,
}

/// The change records of a load.
#[derive(Debug)]
pub struct Changes {
    plan: Plan,
    table: String,
    random: fastrand::Rng,
    duplicates: f64,
    out_of_order: f64,
    created_us: i64,
    turn: u64,
    /// Records that wait for their place.
    held: BTreeMap<(u64, u64), Written>,
    remembered: VecDeque<Posted>,
    due: Option<Written>,
}

impl Changes {
    /// The change records of a load into the table called `table`.
    pub fn new(settings: &LoadSettings, table: &str) -> Result<Self, BadSettings> {
        let plan = Plan::new(settings)?;
        // Room for every operation below the last moment, which is that of an insert, an update and a delete each.
        let room = i64::try_from(settings.events).unwrap_or(i64::MAX).saturating_mul(3 * STEP_US);
        Ok(Self {
            plan,
            table: table.to_owned(),
            // Other draws than the plan's: with and without duplicates the operations are the same.
            random: fastrand::Rng::with_seed(!settings.seed),
            duplicates: settings.duplicates,
            out_of_order: settings.out_of_order,
            created_us: settings.until_us.saturating_sub(room).max(0),
            turn: 0,
            held: BTreeMap::new(),
            remembered: VecDeque::new(),
            due: None,
        })
    }

    fn write(&mut self, operation: Operation) -> Written {
        self.created_us = self.created_us.saturating_add(self.random.i64(1..STEP_US));
        let id: [u16; 8] = std::array::from_fn(|_| self.random.u16(..));
        let [a, b, c, d, e, f, g, h] = id;
        let event_id = format!("{a:04x}{b:04x}-{c:04x}-{d:04x}-{e:04x}-{f:04x}{g:04x}{h:04x}");
        let record = change(&operation, &self.table, &event_id, self.created_us);
        Written { record, operation: Some(operation), held_back: false }
    }

    /// The record whose turn it is: one that was held back until now, else the next of the plan.
    fn next_in_turn(&mut self) -> Option<Written> {
        loop {
            let waiting = self.held.first_key_value().map(|((turn, _), _)| *turn);
            if waiting.is_some_and(|turn| turn <= self.turn) {
                return self.held.pop_first().map(|(_, written)| written);
            }
            let Some(operation) = self.plan.next() else {
                return self.held.pop_first().map(|(_, written)| written);
            };
            let mut written = self.write(operation);
            self.turn += 1;
            if self.random.f64() >= self.out_of_order {
                return Some(written);
            }
            written.held_back = true;
            let until = self.turn + self.random.u64(1..=HELD);
            self.held.insert((until, self.turn), written);
        }
    }
}

impl Iterator for Changes {
    type Item = Written;

    fn next(&mut self) -> Option<Written> {
        if let Some(written) = self.due.take() {
            return Some(written);
        }
        let written = self.next_in_turn()?;
        if self.remembered.len() == REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(written.record.clone());
        if self.random.f64() < self.duplicates {
            let place = self.random.usize(0..self.remembered.len());
            let again = |record: &Posted| Written { record: record.clone(), operation: None, held_back: false };
            self.due = self.remembered.get(place).map(again);
        }
        Some(written)
    }
}

/// One change record.
fn change(operation: &Operation, table: &str, event_id: &str, created_us: i64) -> Posted {
    let (name, new, old) = match operation {
        Operation::Insert(new) => ("INSERT", Some(new), None),
        Operation::Update { old, new } => ("MODIFY", Some(new), Some(old)),
        Operation::Delete(old) => ("REMOVE", None, Some(old)),
    };
    let of = new.or(old);
    let keys = json!({KEY: {"S": of.map(|scan| scan.scan_id.as_str())}});
    let size = of.map_or(0, Scan::key_size) + new.map_or(0, Scan::size) + old.map_or(0, Scan::size);
    let mut body = json!({
        "ApproximateCreationDateTime": created_us,
        "ApproximateCreationDateTimePrecision": "MICROSECOND",
        "Keys": keys,
        "SizeBytes": size,
    });
    if let Value::Object(body) = &mut body {
        body.extend(new.map(|scan| ("NewImage".to_owned(), scan.image())));
        body.extend(old.map(|scan| ("OldImage".to_owned(), scan.image())));
    }
    let record = json!({
        "awsRegion": "us-east-1",
        "eventID": event_id,
        "eventName": name,
        "userIdentity": null,
        "recordFormat": "application/json",
        "tableName": table,
        "dynamodb": body,
        "eventSource": "aws:dynamodb",
    });
    Posted { partition_key: partition::key(table, &keys.to_string()), text: record.to_string() }
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
