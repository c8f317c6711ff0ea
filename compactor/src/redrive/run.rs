//! A redrive: everything in quarantine, judged again, and with `confirm` put through.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use recount_consumer::totals::{Applied, Entry, Totals, TotalsError};
use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::quarantine::redriven_key;
use recount_schemas::terminal::plural;
use recount_schemas::{Cell, Definition, EventKey, QuarantineCode, ShardId};
use serde::{Deserialize, Serialize};

use super::RedriveError;
use super::add::{Adder, Place};
use super::judge::{Ready, Stays, judge};
use super::listing::{Kept, Quarantine};
use crate::archive::Limits;
use crate::archive::finish::Catalog;
use crate::archive::life::Life;
use crate::bucket::Objects;
use crate::context::Context;
use crate::progress::{Says, Work};

/// What the rows of a redrive have for their origin in the log.
pub const ORIGIN: &str = "redrive";
/// The format of marks.
pub const FORMAT: u32 = 1;
/// Most records that go into the archive together: between its row and its count stand at most so many others.
const BATCH: usize = 500;
/// Most bytes of records that do.
const BATCH_BYTES: usize = 32 << 20;
/// Objects that are read, or marked, at a time.
const AT_ONCE: usize = 8;
/// Records that a report names, of those that stay.
const NAMED: usize = 100;
/// The largest object in quarantine: a record of 10 MiB in base64, and what stands around it.
const MAX_OBJECT: u64 = 16 << 20;

/// Which records, and whether anything is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ask {
    /// Only those quarantined for this reason.
    pub reason: Option<QuarantineCode>,
    /// Only those of this shard.
    pub shard: Option<ShardId>,
    /// Whether they are put through.
    pub confirm: bool,
}

/// A record that stays in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staying {
    /// Its object.
    pub object: String,
    /// Why it was quarantined; `unreadable` where the object does not say.
    pub was: String,
    /// Why it stays; `unreadable` where the object cannot be read, `unusable` where its cell's item is not understood.
    pub is: String,
    /// The same in words.
    pub detail: String,
}

/// How many stay, by why they were quarantined and why they stay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stayed {
    /// Why they were quarantined.
    pub was: String,
    /// Why they stay.
    pub is: String,
    /// How many.
    pub records: u64,
}

/// What a redrive did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether anything was done.
    pub confirmed: bool,
    /// Records in quarantine that were looked at.
    pub examined: u64,
    /// Records that were put through before.
    pub done_before: u64,
    /// Records that are understood now, by why they were quarantined.
    pub ready: BTreeMap<String, u64>,
    /// Records that stay.
    pub stays: Vec<Stayed>,
    /// The first of them.
    pub staying: Vec<Staying>,
    /// Records that got their row now.
    pub archived: u64,
    /// Records that had it before.
    pub archived_before: u64,
    /// Records that were counted now.
    pub counted: u64,
    /// Records that had been counted before.
    pub counted_before: u64,
    /// Records that add to no total, by the definition.
    pub ignored: u64,
    /// Records that are older than the ledger reaches back: on the too-old list, for `recount repair`.
    pub too_old: u64,
    /// Records whose event is archived with another content: kept under `conflicts/`.
    pub conflicting: u64,
    /// Objects under `quarantine/` whose names are no position: left alone.
    pub foreign: u64,
    /// Where none is of the reason and the shard that were asked for, how many records are in quarantine all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<u64>,
}

impl Report {
    /// How many are understood now.
    pub fn ready(&self) -> u64 {
        self.ready.values().sum()
    }

    /// How many stay.
    pub fn stayed(&self) -> u64 {
        self.stays.iter().map(|stayed| stayed.records).sum()
    }

    fn stay(&mut self, object: &str, stays: Stays) {
        let code = |reason: Option<recount_schemas::QuarantineReason>| {
            reason.map_or("unreadable", |reason| reason.code.as_str()).to_owned()
        };
        self.stay_as(object, code(stays.was), code(stays.is), stays.detail);
    }

    fn stay_as(&mut self, object: &str, was: String, is: String, detail: String) {
        match self.stays.iter_mut().find(|stayed| stayed.was == was && stayed.is == is) {
            Some(stayed) => stayed.records += 1,
            None => self.stays.push(Stayed { was: was.clone(), is: is.clone(), records: 1 }),
        }
        if self.staying.len() < NAMED {
            self.staying.push(Staying { object: object.to_owned(), was, is, detail });
        }
    }
}

/// The mark of a record that was put through: what was done, for whoever asks later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// [`FORMAT`].
    pub format: u32,
    /// The object in quarantine.
    pub object: String,
    /// The record's event ID.
    pub event_id: String,
    /// Its event key.
    pub event_key: EventKey,
    /// When it was put through, ms since 1970.
    pub at_ms: i64,
    /// The log's entry that brought its row; `None` where it was archived before, or conflicts.
    pub entry: Option<u64>,
    /// `counted`, `counted_before`, `ignored`, `too_old` or `conflicting`.
    pub outcome: String,
    /// The cells that it adds to.
    pub cells: Vec<Cell>,
    /// The program's version.
    pub version: String,
}

/// Where events are counted.
pub trait Counter: Sync {
    /// Counts events in one cell, each once, however often it is given.
    fn count(&self, cell: &Cell, entries: &[Entry]) -> impl Future<Output = Result<Applied, TotalsError>> + Send;
}

impl Counter for Totals {
    async fn count(&self, cell: &Cell, entries: &[Entry]) -> Result<Applied, TotalsError> {
        self.apply(cell, entries, Deadline::NONE).await
    }
}

/// Shows what a redrive would do and, with `confirm`, does it.
pub async fn redrive(context: &Context, ask: &Ask, says: &Says<'_>) -> Result<Report, RedriveError> {
    context.check_definition().await?;
    let redriver = Redriver {
        objects: &context.bucket,
        counter: &context.totals,
        definition: &context.definition,
        stream: &context.settings.stream,
        host: &context.host,
        limits: context.limits,
        catalog: context.catalog.as_deref(),
    };
    redriver.run(ask, says).await
}

/// What a redrive is made with.
pub(super) struct Redriver<'r, O, C> {
    pub(super) objects: &'r O,
    pub(super) counter: &'r C,
    pub(super) definition: &'r Arc<Definition>,
    pub(super) stream: &'r str,
    pub(super) host: &'r SharedHost,
    pub(super) limits: Limits,
    pub(super) catalog: Option<&'r dyn Catalog>,
}

/// What became of a record in one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Count {
    /// It was there.
    Before,
    /// It was added.
    Now,
    /// It is older than the ledger.
    TooOld,
    /// The cell's item is not understood.
    Unusable,
}

impl<O: Objects, C: Counter> Redriver<'_, O, C> {
    pub(super) async fn run(&self, ask: &Ask, says: &Says<'_>) -> Result<Report, RedriveError> {
        let mut report = Report { confirmed: ask.confirm, ..Report::default() };
        let prefixes = Quarantine::<O>::prefixes(ask.shard.as_ref());
        let mut quarantine = Quarantine::new(self.objects, &prefixes);
        let (mut batch, mut held, mut ended) = (Vec::new(), 0, false);
        while !ended {
            let mut asked = Vec::with_capacity(AT_ONCE);
            while asked.len() < AT_ONCE && !ended {
                match quarantine.next().await? {
                    Some(kept) if kept.done => report.done_before += 1,
                    Some(kept) => asked.push(kept),
                    None => ended = true,
                }
            }
            for judged in self.judged(asked).await? {
                let (object, judged) = judged;
                let was = match &judged {
                    Ok(ready) => Some(ready.was.code),
                    Err(stays) => stays.was.as_ref().map(|reason| reason.code),
                };
                if ask.reason.is_some() && was != ask.reason {
                    continue;
                }
                report.examined += 1;
                match judged {
                    Ok(ready) => {
                        *report.ready.entry(ready.was.code.as_str().to_owned()).or_default() += 1;
                        held += ready.record.data.len();
                        if ask.confirm {
                            batch.push(ready);
                        }
                    }
                    Err(stays) => report.stay(&object, *stays),
                }
            }
            if batch.len() >= BATCH || held >= BATCH_BYTES || ended {
                self.put_through(std::mem::take(&mut batch), &mut report).await?;
                held = 0;
            }
            says(Work::Step(&format!(
                "{} in quarantine looked at, {} put through before",
                plural(report.examined, "record"),
                report.done_before
            )));
        }
        report.foreign = quarantine.foreign;
        report.stays.sort();
        if report.examined == 0 && (ask.reason.is_some() || ask.shard.is_some()) {
            report.others = Some(self.waiting().await?);
        }
        Ok(report)
    }

    /// How many records are in quarantine, and not put through.
    async fn waiting(&self) -> Result<u64, RedriveError> {
        let prefixes = Quarantine::<O>::prefixes(None);
        let (mut quarantine, mut waiting) = (Quarantine::new(self.objects, &prefixes), 0);
        while let Some(kept) = quarantine.next().await? {
            waiting += u64::from(!kept.done);
        }
        Ok(waiting)
    }

    /// Reads and judges some objects.
    async fn judged(&self, kept: Vec<Kept>) -> Result<Vec<(String, Result<Ready, Box<Stays>>)>, RedriveError> {
        let judge_one = |kept: Kept| async move {
            let object = kept.object.clone();
            let judged = match self.objects.get(&object, MAX_OBJECT).await {
                Ok(Some(bytes)) => judge(kept, &bytes, self.definition, self.host.now_us()),
                Ok(None) => return Ok(None), // somebody deleted it meanwhile
                Err(error @ crate::bucket::BucketError::TooLarge { .. }) => {
                    Err(Box::new(Stays { was: None, is: None, detail: error.to_string() }))
                }
                Err(error) => return Err(RedriveError::from(error)),
            };
            Ok(Some((object, judged)))
        };
        let read = futures::stream::iter(kept).map(judge_one).buffered(AT_ONCE);
        Ok(read.try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
    }

    /// The three steps, for some records: rows, counts, marks.
    async fn put_through(&self, ready: Vec<Ready>, report: &mut Report) -> Result<(), RedriveError> {
        if ready.is_empty() {
            return Ok(());
        }
        let life = Life::begin(self.host.clone(), self.limits.life, Deadline::NONE);
        let (definition, stream, host, catalog) = (self.definition, self.stream, self.host, self.catalog);
        let adder = Adder { objects: self.objects, definition, stream, origin: ORIGIN, host, catalog };
        let records: Vec<_> = ready.iter().map(|ready| (ready.kept.shard.clone(), ready.record.clone())).collect();
        let places = adder.add(&records, &life).await?;

        // A conflicting variant is not counted: reconcile has it from `conflicts/`.
        let placed = || ready.iter().zip(&places).filter(|(_, place)| **place != Place::Conflicting);
        let mut cells: BTreeMap<&Cell, Vec<Entry>> = BTreeMap::new();
        for (ready, _) in placed() {
            for (cell, delta) in &ready.adds {
                cells.entry(cell).or_default().push(Entry { key: ready.key, delta: delta.clone() });
            }
        }
        let mut counts: BTreeMap<(&Cell, EventKey), Count> = BTreeMap::new();
        for (cell, entries) in &cells {
            let applied = match self.counter.count(cell, entries).await {
                Ok(applied) => applied,
                Err(error) if error.is_unusable() => {
                    tracing::warn!(%error, "a cell's item is not understood; its records stay in quarantine");
                    counts.extend(entries.iter().map(|entry| ((*cell, entry.key), Count::Unusable)));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            // A key that stands among them twice is in two of these lists: what was done with it counts.
            for (keys, count) in [
                (&applied.duplicates, Count::Before),
                (&applied.applied, Count::Now),
                (&applied.too_old, Count::TooOld),
            ] {
                counts.extend(keys.iter().map(|key| ((*cell, *key), count)));
            }
        }
        let mut marks = Vec::with_capacity(ready.len());
        for (ready, place) in ready.iter().zip(&places) {
            let of_cells = ready.adds.iter().filter_map(|(cell, _)| counts.get(&(cell, ready.key)));
            let outcome = match (place, of_cells.max()) {
                (Place::Unjudged, _) => None, // what was judged is judged again alike
                (Place::Conflicting, _) => Some("conflicting"),
                (_, Some(Count::Unusable)) => None,
                (_, Some(Count::TooOld)) => Some("too_old"),
                (_, Some(Count::Now)) => Some("counted"),
                (_, Some(Count::Before)) => Some("counted_before"),
                (_, None) => Some("ignored"),
            };
            match place {
                Place::Added(_) => report.archived += 1,
                Place::Archived => report.archived_before += 1,
                Place::Conflicting | Place::Unjudged => {}
            }
            let Some(outcome) = outcome else {
                let detail =
                    "its cell's item is not understood; mend or delete the item, see recount reconcile".to_owned();
                report.stay_as(&ready.kept.object, ready.was.code.as_str().to_owned(), "unusable".to_owned(), detail);
                continue;
            };
            match outcome {
                "conflicting" => report.conflicting += 1,
                "too_old" => report.too_old += 1,
                "counted" => report.counted += 1,
                "counted_before" => report.counted_before += 1,
                _ => report.ignored += 1,
            }
            let entry = match place {
                Place::Added(n) => Some(*n),
                _ => None,
            };
            marks.push((redriven_key(&ready.kept.shard, &ready.kept.sequence), self.mark(ready, entry, outcome)));
        }
        futures::stream::iter(marks)
            .map(|(name, mark)| async move {
                let bytes = Bytes::from(serde_json::to_vec(&mark)?);
                self.objects.put_if_absent(&name, bytes).await?;
                Ok::<(), RedriveError>(())
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    fn mark(&self, ready: &Ready, entry: Option<u64>, outcome: &str) -> Mark {
        Mark {
            format: FORMAT,
            object: ready.kept.object.clone(),
            event_id: ready.event_id.clone(),
            event_key: ready.key,
            at_ms: self.host.now_ms(),
            entry,
            outcome: outcome.to_owned(),
            cells: ready.adds.iter().map(|(cell, _)| cell.clone()).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
