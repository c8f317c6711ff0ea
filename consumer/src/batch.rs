//! A batch of records, before and after the I/O: pure.
//!
//! [`Batch::judge`] gives every record its verdict, or says which cells it adds to; the caller applies each cell once and hands
//! the answers back; then every record has its verdict, or counts as failed.
//!
//! A record adds to one cell, or to two (a MODIFY that moves an event). Its verdict, from what became of it in each:
//!
//! | in its cells | record |
//! | --- | --- |
//! | any failed | failed: it comes again, and the cell that has it says duplicate |
//! | none failed, any in an item that is not understood | unusable |
//! | none of these, any too old | too old |
//! | none of these, any applied | applied |
//! | all duplicates | duplicate |
//!
//! A key that stands in the batch more than once goes to its cell once. Its first record gets the cell's answer; the others are duplicates, or share its
//! failure or its age.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use recount_schemas::bugs::{self, Bug};
use recount_schemas::quarantine::{FORMAT, Quarantined};
use recount_schemas::{Cell, Definition, Effect, EventKey, QuarantineReason, SequenceNumber, ShardId, Verdict};
use smallvec::SmallVec;

use crate::envelope::{Envelope, EnvelopeError, Event};
use crate::totals::{Applied, Entry};

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The stream's name.
    pub stream: String,
    /// The shard.
    pub shard: ShardId,
    /// The sequence number.
    pub sequence: SequenceNumber,
}

/// What is to be added to one cell.
#[derive(Debug, Clone, PartialEq)]
pub struct CellWork {
    /// The cell.
    pub cell: Cell,
    /// The events, no key twice.
    pub entries: Vec<Entry>,
    /// The records of each key, by their places in the batch, ascending.
    records: BTreeMap<EventKey, SmallVec<[usize; 1]>>,
}

/// What became of a record in one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Applied,
    Duplicate,
    TooOld,
    Unusable,
    Failed,
}

#[derive(Debug)]
struct Record {
    position: Position,
    /// The verdict, where no cell has to be asked.
    judged: Option<Verdict>,
    parts: SmallVec<[Part; 2]>,
}

/// A batch of records.
#[derive(Debug, Default)]
pub struct Batch {
    records: Vec<Record>,
    /// When the newest record arrived, µs since 1970.
    pub newest_us: Option<i64>,
}

/// What has to be done for a batch.
#[derive(Debug, Default)]
pub struct Work {
    /// Cells to add to, in order.
    pub cells: Vec<CellWork>,
    /// Records to quarantine, with their places in the batch.
    pub quarantine: Vec<(usize, Quarantined)>,
}

impl Batch {
    /// Judges every record of an event.
    pub fn judge(event: &[u8], definition: &Definition) -> Result<(Self, Work), EnvelopeError> {
        let event = Event::parse(event)?;
        let (mut batch, mut work) = (Self::default(), Work::default());
        let mut cells: BTreeMap<Cell, CellWork> = BTreeMap::new();
        for (index, raw) in event.records.iter().enumerate() {
            let envelope = Envelope::parse(raw, index)?;
            batch.newest_us = batch.newest_us.max(Some(envelope.arrived_us));
            // A record's bytes live only until it is judged: what is kept is what it adds.
            let judged = envelope.decode().map_err(|reason| (reason, None)).and_then(|bytes| {
                match definition.judge(&bytes, envelope.arrived_us) {
                    Ok(judged) => Ok((judged.key, judged.effect)),
                    Err(reason) => Err((reason, Some(bytes))),
                }
            });
            let verdict = match judged {
                Ok((_, Effect::None(why))) => Some(Verdict::Ignored(why)),
                Ok((key, Effect::Adds(adds))) => {
                    for (cell, delta) in adds {
                        let at = cells.entry(cell).or_insert_with_key(|cell| CellWork {
                            cell: cell.clone(),
                            entries: Vec::new(),
                            records: BTreeMap::new(),
                        });
                        let records = at.records.entry(key).or_default();
                        if records.is_empty() {
                            at.entries.push(Entry { key, delta });
                        } else if bugs::on(Bug::FoldsDuplicates)
                            && let Some(entry) = at.entries.iter_mut().find(|entry| entry.key == key)
                        {
                            entry.delta = entry.delta.checked_add(&delta).unwrap_or(delta);
                        }
                        records.push(index);
                    }
                    None
                }
                Err((reason, bytes)) => {
                    work.quarantine.push((index, quarantined(&envelope, &reason, bytes)));
                    Some(Verdict::Quarantined(reason))
                }
            };
            let position =
                Position { stream: envelope.stream.into_owned(), shard: envelope.shard, sequence: envelope.sequence };
            batch.records.push(Record { position, judged: verdict, parts: SmallVec::new() });
        }
        work.cells = cells.into_values().collect();
        Ok((batch, work))
    }

    /// A cell was applied, or could not be.
    pub fn settle_cell(&mut self, work: &CellWork, applied: Option<&Applied>) {
        let set = |keys: Option<&Vec<EventKey>>| keys.into_iter().flatten().copied().collect::<BTreeSet<_>>();
        let (new, known, old) = (
            set(applied.map(|applied| &applied.applied)),
            set(applied.map(|applied| &applied.duplicates)),
            set(applied.map(|applied| &applied.too_old)),
        );
        for (key, records) in &work.records {
            for (nth, index) in records.iter().enumerate() {
                let part = match (new.contains(key), known.contains(key), old.contains(key)) {
                    (true, ..) if nth == 0 => Part::Applied,
                    (true, ..) | (_, true, _) => Part::Duplicate,
                    (_, _, true) => Part::TooOld,
                    _ if bugs::on(Bug::FailedCellIsDone) => Part::Duplicate,
                    _ => Part::Failed,
                };
                if let Some(record) = self.records.get_mut(*index) {
                    record.parts.push(part);
                }
            }
        }
    }

    /// A cell's item was not understood: its records are passed by, so that they hold up no other.
    pub fn settle_unusable(&mut self, work: &CellWork) {
        for index in work.records.values().flatten() {
            if let Some(record) = self.records.get_mut(*index) {
                record.parts.push(Part::Unusable);
            }
        }
    }

    /// The record at `index` could not be written to quarantine.
    pub fn quarantine_failed(&mut self, index: usize) {
        if let Some(record) = self.records.get_mut(index) {
            record.parts.push(Part::Failed);
        }
    }

    /// Every record with its verdict; none where it failed and has to come again.
    pub fn verdicts(&self) -> impl Iterator<Item = (&Position, Option<Verdict>)> {
        self.records.iter().map(|record| (&record.position, record.verdict()))
    }

    /// How far each shard of each stream came, as `(stream, shard)`.
    pub fn reaches(&self) -> BTreeMap<(&str, &ShardId), Reach> {
        let mut reaches: BTreeMap<(&str, &ShardId), Reach> = BTreeMap::new();
        for (position, _) in self.verdicts().filter(|(_, verdict)| verdict.is_none()) {
            let reach = reaches.entry((&position.stream, &position.shard)).or_default();
            let failed = position.sequence.clone();
            reach.lowest_failed = Some(match reach.lowest_failed.take() {
                Some(lowest) if bugs::on(Bug::ReportsHighestFailed) => lowest.max(failed),
                Some(lowest) => lowest.min(failed),
                None => failed,
            });
        }
        for (position, _) in self.verdicts() {
            let reach = reaches.entry((&position.stream, &position.shard)).or_default();
            let below = reach.lowest_failed.as_ref().is_none_or(|lowest| position.sequence < *lowest)
                || bugs::on(Bug::ProgressPassesAFailure);
            if below {
                reach.done = reach.done.take().max(Some(position.sequence.clone()));
            }
        }
        reaches
    }
}

/// How far a batch came in one shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// The lowest sequence number that failed: from it on, records come again.
    pub lowest_failed: Option<SequenceNumber>,
    /// The greatest sequence number below that: the shard's progress.
    pub done: Option<SequenceNumber>,
}

impl Record {
    fn verdict(&self) -> Option<Verdict> {
        let any = |part| self.parts.contains(&part);
        match &self.judged {
            _ if any(Part::Failed) => None,
            Some(verdict) => Some(verdict.clone()),
            // Of a move between two cells, the half that was not counted is what somebody must hear of.
            None if any(Part::Unusable) => Some(Verdict::Unusable),
            None if any(Part::TooOld) => Some(Verdict::TooOld),
            None if any(Part::Applied) => Some(Verdict::Applied),
            None if any(Part::Duplicate) => Some(Verdict::Duplicate),
            // No cell was asked: the caller did not come to it.
            None => None,
        }
    }
}

/// The object for quarantine: the record's bytes, or the text that should have been their base64.
fn quarantined(envelope: &Envelope<'_>, reason: &QuarantineReason, bytes: Option<Vec<u8>>) -> Quarantined {
    Quarantined {
        format: FORMAT,
        stream: envelope.stream.to_string(),
        shard_id: envelope.shard.clone(),
        sequence_number: envelope.sequence.clone(),
        partition_key: envelope.partition_key.to_string(),
        arrived_us: envelope.arrived_us,
        reason: reason.clone(),
        raw: bytes.is_none(),
        data: match bytes {
            Some(bytes) => STANDARD.encode(bytes),
            None => envelope.data.as_deref().unwrap_or_default().to_owned(),
        },
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
