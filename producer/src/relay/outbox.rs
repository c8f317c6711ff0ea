//! What is sent next, given what became of what was sent. Pure.
//!
//! The law, for whatever pattern of refusals: nothing is skipped, each record is delivered at least once or reported, and the
//! first deliveries of the records with one partition key happen in their order.
//!
//! PutRecords promises no order within a request and can refuse any of its records (API reference, "PutRecords"). So:
//!
//! 1. A request holds at most one record of each partition key: the first that is not settled. Two in one request could see
//!    the first refused and the second taken.
//! 2. A refused record is sent again before any later one of its key.
//! 3. A record refused `attempts` times is given up, and so is a too large one that quarantine refused. The mapping will send
//!    everything from it on once more, so no record at or beyond it is sent any more: that would only make duplicates.
//!    Records before it still are, so that the checkpoint gets as far as it can.
//!
//! | record | its predecessor of the same key | before the first record given up | sent next? |
//! | --- | --- | --- | --- |
//! | waiting | none, delivered or quarantined | yes | yes, if the request has room |
//! | waiting | waiting | yes | no: rules 1 and 2 |
//! | waiting | any | no | no: rule 3; reported |
//! | delivered, quarantined | any | any | no: settled |
//! | too large, not quarantined | any | any | no: reported |
//!
//! A too large record never enters the stream, so it holds up no later record of its key. While quarantine has not answered it
//! holds up nothing.
//!
//! The price of rule 1: an item that is changed again and again travels one change a request. At some 10 ms a request that is
//! 100 changes of one item a second, far beyond what one should write to one item for long.

use std::collections::{BTreeSet, HashMap};

use recount_schemas::bugs::{self, Bug};

/// What a request and a record may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records in a request: at most 500 (API reference, "PutRecords").
    pub request_records: usize,
    /// Bytes in a request, partition keys included: at most 10 MiB; 5 MiB until 2025-10, and in older local engines.
    /// A record that is larger by itself travels alone.
    pub request_bytes: usize,
    /// Bytes of a record, its partition key included: at most what the stream is set to, 1 MiB unless `UpdateMaxRecordSize`
    /// raised it (10 MiB at the most).
    pub record_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { request_records: 500, request_bytes: 5 << 20, record_bytes: 1 << 20 }
    }
}

/// What became of one record of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the stream.
    Delivered,
    /// It is not, as far as anybody knows.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    TooLarge,
    Settled,
}

#[derive(Debug)]
struct Entry {
    bytes: usize,
    state: State,
    attempts: u32,
    /// The next record with the same partition key.
    follower: Option<usize>,
}

/// The records of one invocation, by their place in the event.
#[derive(Debug)]
pub struct Outbox {
    entries: Vec<Entry>,
    /// The first unsettled record of each partition key.
    ready: BTreeSet<usize>,
    /// Records from here on are not sent any more: the first that was given up, or the end.
    horizon: usize,
    limits: Limits,
    attempts: u32,
}

impl Outbox {
    /// For records in their order, each with its partition key and its size in bytes (see [`Limits::record_bytes`]).
    /// A record is given up when it has been refused `attempts` times.
    pub fn new<'a>(records: impl IntoIterator<Item = (&'a str, usize)>, limits: Limits, attempts: u32) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        let mut ready = BTreeSet::new();
        let mut last_of_key: HashMap<&str, usize> = HashMap::new();
        for (i, (key, bytes)) in records.into_iter().enumerate() {
            let fits = bytes <= limits.record_bytes;
            let state = if fits { State::Waiting } else { State::TooLarge };
            entries.push(Entry { bytes, state, attempts: 0, follower: None });
            if fits {
                match last_of_key.insert(key, i).and_then(|before| entries.get_mut(before)) {
                    Some(before) => before.follower = Some(i),
                    None => _ = ready.insert(i),
                }
            }
        }
        let horizon = entries.len();
        Self { entries, ready, horizon, limits, attempts }
    }

    /// The records that the stream would refuse for their size.
    pub fn too_large(&self) -> Vec<usize> {
        (0..).zip(&self.entries).filter(|(_, entry)| entry.state == State::TooLarge).map(|(i, _)| i).collect()
    }

    /// A too large record is safe elsewhere.
    pub fn quarantined(&mut self, i: usize) {
        if let Some(entry) = self.entries.get_mut(i).filter(|entry| entry.state == State::TooLarge) {
            entry.state = State::Settled;
        }
    }

    /// A too large record could not be made safe elsewhere: given up.
    pub fn not_quarantined(&mut self, i: usize) {
        if self.entries.get(i).is_some_and(|entry| entry.state == State::TooLarge) {
            self.horizon = self.horizon.min(i);
        }
    }

    /// The records of the next request, in their order. Empty when there is nothing more to send: all is settled, or what is
    /// not will be reported.
    pub fn next(&self) -> Vec<usize> {
        let mut request = Vec::new();
        let mut room = self.limits.request_bytes;
        for i in self.ready.range(..self.horizon).copied() {
            let Some(entry) = self.entries.get(i) else { continue };
            if request.len() == self.limits.request_records.max(1) || (entry.bytes > room && !request.is_empty()) {
                break;
            }
            room = room.saturating_sub(entry.bytes);
            request.push(i);
        }
        request
    }

    /// Takes note of what became of a request.
    pub fn settle(&mut self, sent: &[usize], outcomes: &[Outcome]) {
        for (i, outcome) in sent.iter().copied().zip(outcomes) {
            let Some(entry) = self.entries.get_mut(i).filter(|_| self.ready.contains(&i)) else { continue };
            let outcome = if bugs::on(Bug::RefusedPutIsDelivered) { &Outcome::Delivered } else { outcome };
            match outcome {
                Outcome::Delivered => {
                    entry.state = State::Settled;
                    self.ready.remove(&i);
                    self.ready.extend(entry.follower);
                }
                Outcome::Refused => {
                    entry.attempts = entry.attempts.saturating_add(1);
                    if entry.attempts >= self.attempts {
                        self.horizon = self.horizon.min(i);
                    }
                }
            }
        }
    }

    /// The records that are neither in the stream nor in quarantine, in their order.
    pub fn unsettled(&self) -> impl Iterator<Item = usize> {
        (0..).zip(&self.entries).filter(|(_, entry)| entry.state != State::Settled).map(|(i, _)| i)
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
