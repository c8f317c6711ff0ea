//! What must hold: at any moment ([`look`]), and at the end when everything has arrived ([`end`]).
//!
//! Looks go to the engines without a network in between and without a pause: each sees one moment of everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use arrow_array::{Array, BinaryArray, StringArray};
use aws_sdk_kinesis::operation::describe_stream_summary::DescribeStreamSummaryOutput;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt};
use recount_compactor::bucket::{Listing, Objects};
use recount_compactor::fsck;
use recount_compactor::log::names::parse_target;
use recount_compactor::log::state::State;
use recount_compactor::log::{Entry, LogStore};
use recount_compactor::recompute::recompute;
use recount_compactor::reconcile::Verdict;
use recount_compactor::rows::rebuild::Rebuilder;
use recount_compactor::rows::{self, rebuild};
use recount_consumer::cell::Look;
use recount_local::mapping::Item;
use recount_schemas::archive::column;
use recount_schemas::quarantine::{self, Quarantined};
use recount_schemas::{Cell, EventKey, Month, SequenceNumber, ShardId};

use crate::capture;
use crate::faults::Fault;
use crate::network::{OPERATOR, Put};
use crate::oracle::{Oracle, Pair, fits};
use crate::parts;
use crate::plan::LEDGER_DAYS;
use crate::verdicts;
use crate::world::{World, now_ms};

pub const DAY_MS: i64 = 86_400_000;
/// By how much a clock may be off, with some to spare.
pub const CLOCKS_OFF_MS: i64 = 2 * 3_600_000;

/// What earlier looks saw.
#[derive(Debug, Default)]
pub struct Memory {
    /// How many records had been put when the stream was made anew, each time.
    pub new_streams: Vec<usize>,
    /// When each life of the stream began, ms since 1970.
    pub lives: Vec<i64>,
    /// Every change that the table's stream ever had, by its place.
    pub changes: BTreeMap<u64, Item>,
    archived: BTreeSet<EventKey>,
    cells: BTreeMap<Cell, (u64, BTreeSet<EventKey>)>,
    progress: BTreeMap<(i64, ShardId), SequenceNumber>,
}

impl Memory {
    /// Of a stream whose first life began then, ms since 1970.
    pub fn new(created_ms: i64) -> Self {
        Self { lives: vec![created_ms], ..Self::default() }
    }
}

/// A cell at one moment.
pub struct Seen {
    look: Look,
    /// `recent` and the pages of earlier epochs.
    ledger: BTreeSet<EventKey>,
    too_old: BTreeSet<EventKey>,
}

impl Seen {
    /// Events and bytes, as the cell says.
    fn total(&self) -> Pair {
        (self.look.events, self.look.sums.first().map_or(0, |sum| sum.to_string().parse().unwrap()))
    }

    /// Whether it has the event, or has listed it as too old.
    pub fn settles(&self, key: &EventKey) -> bool {
        self.ledger.contains(key) || self.too_old.contains(key)
    }
}

/// All cells, as they are now.
pub async fn cells(world: &World) -> Result<BTreeMap<Cell, Seen>, String> {
    let totals = &world.admin.totals;
    let looks: Vec<(Cell, Look)> = totals.scan_cells().try_collect().await.map_err(|e| e.to_string())?;
    let mut cells = BTreeMap::new();
    for (cell, look) in looks {
        let mut ledger = look.recent.clone();
        let mut pages = totals.pages(&cell, EventKey::MIN);
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| e.to_string())?;
            if page.name.epoch < look.epoch {
                ledger.extend(page.keys);
            }
        }
        let mut listed = totals.too_old(&cell);
        let mut too_old = BTreeSet::new();
        while let Some(row) = listed.next().await {
            too_old.insert(row.map_err(|e| e.to_string())?.key);
        }
        cells.insert(cell, Seen { look, ledger, too_old });
    }
    Ok(cells)
}

/// What must hold always, holds now.
pub async fn look(world: &Arc<World>) {
    capture::note(world);
    world.engines.dynamo().maintain().unwrap();
    let oracle = world.oracle();
    let cells = match cells(world).await {
        Ok(cells) => cells,
        Err(error) => return world.violated(3, format!("a cell cannot be read: {error}")),
    };
    look_at_cells(world, &oracle, &cells);
    look_at_progress(world, &oracle, &cells).await;
    look_at_archive(world, &oracle).await;
}

/// Whether a key may have left the ledger: its page may have expired.
pub fn may_be_forgotten(world: &World, key: &EventKey) -> bool {
    key.created_ms() < now_ms(world) - LEDGER_DAYS * DAY_MS
}

fn look_at_cells(world: &World, oracle: &Oracle, cells: &BTreeMap<Cell, Seen>) {
    let known = oracle.cells();
    let nothing = BTreeSet::new();
    let mut memory = world.memory.lock().unwrap_or_else(PoisonError::into_inner);
    for (cell, seen) in cells {
        let known = known.get(cell).unwrap_or(&nothing);
        if let Some(stranger) = seen.ledger.difference(known).next() {
            world.violated(3, format!("the ledger of {cell:?} has {stranger}, which no record of this cell has"));
        }
        // What stands in the ledger is counted, and what is counted stands there, but for what it has forgotten.
        let counted = known.iter().filter_map(|key| {
            let mut adds = oracle.adds(key, cell);
            match (seen.ledger.contains(key), may_be_forgotten(world, key)) {
                (true, _) => {}
                (false, true) => adds.push((0, 0)),
                (false, false) => return None,
            }
            Some(adds)
        });
        if !fits(seen.total(), counted) {
            let (keys, total) = (seen.ledger.len(), seen.total());
            world.violated(2, format!("{cell:?} says {total:?}, but its ledger of {keys} keys comes to another sum"));
        }
        let (epoch, before) = memory.cells.get(cell).cloned().unwrap_or_default();
        if seen.look.epoch < epoch {
            world.violated(3, format!("the epoch of {cell:?} went back from {epoch} to {}", seen.look.epoch));
        }
        if let Some(gone) = before.difference(&seen.ledger).find(|key| !may_be_forgotten(world, key)) {
            world.violated(3, format!("{gone} has left the ledger of {cell:?}"));
        }
        memory.cells.insert(cell.clone(), (seen.look.epoch, seen.ledger.clone()));
    }
    if let Some(gone) = memory.cells.keys().find(|cell| !cells.contains_key(cell)) {
        world.violated(3, format!("{gone:?} is gone"));
    }
}

/// The index of the first record of the stream's life at each index; and of the life that is now.
pub fn life_of(world: &World, index: usize) -> usize {
    let memory = world.memory.lock().unwrap_or_else(PoisonError::into_inner);
    memory.new_streams.iter().filter(|at| **at <= index).count()
}

fn number(text: &str) -> SequenceNumber {
    text.parse().unwrap()
}

/// When a stream was created, ms since 1970.
pub fn created_ms(described: &DescribeStreamSummaryOutput) -> i64 {
    let created = *described.stream_description_summary().unwrap().stream_creation_timestamp();
    (created.as_secs_f64() * 1e3).round() as i64
}

/// Every record that progress has passed has its final verdict.
async fn look_at_progress(world: &World, oracle: &Oracle, cells: &BTreeMap<Cell, Seen>) {
    let stream = &world.settings.stream;
    let described = world.clients.kinesis.describe_stream_summary().stream_name(stream).send().await.unwrap();
    let created_ms = created_ms(&described);
    let progress = match world.admin.progress.read(stream, created_ms).await {
        Ok(progress) => progress,
        Err(error) => return world.violated(1, format!("progress cannot be read: {error}")),
    };
    let quarantined = objects(world, quarantine::PREFIX).await;
    let puts = world.network.puts();
    let life = life_of(world, puts.len());
    for (index, put) in puts.iter().enumerate() {
        let at = (put.shard.clone(), put.sequence.clone());
        let shard: ShardId = put.shard.parse().unwrap();
        let passed = progress.get(&shard).is_some_and(|passed| number(&put.sequence) <= *passed);
        if life_of(world, index) != life || !passed {
            continue;
        }
        let name = quarantine::object_key(&shard, &number(&put.sequence));
        if oracle.poison.contains(&at) && !quarantined.contains_key(&name) {
            world.violated(
                1,
                format!(
                    "progress passed {at:?}, which nobody can read and is not in quarantine: {}",
                    put.data.escape_ascii()
                ),
            );
        }
        let Some(key) = oracle.keys.get(&at) else { continue };
        for cell in oracle.changes[key].iter().take(1).flat_map(|change| change.adds.keys()) {
            let settled = cells.get(cell).is_some_and(|seen| seen.settles(key));
            if !settled && !may_be_forgotten(world, key) {
                world.violated(1, format!("progress passed {at:?}, but {key} is not counted in {cell:?}"));
            }
        }
    }
    let mut memory = world.memory.lock().unwrap_or_else(PoisonError::into_inner);
    for (shard, to) in progress {
        let before = memory.progress.insert((created_ms, shard.clone()), to.clone());
        if before.is_some_and(|before| to < before) {
            world.violated(1, format!("progress of {shard} went back"));
        }
    }
}

/// The objects whose names begin so, with their sizes.
pub async fn objects(world: &World, prefix: &str) -> BTreeMap<String, u64> {
    let mut listing = Listing::new(&world.admin.bucket, prefix);
    let mut found = BTreeMap::new();
    while let Some(page) = listing.next_page().await.unwrap() {
        found.extend(page.into_iter().map(|listed| (listed.key, listed.meta.bytes)));
    }
    found
}

/// A row of the archive, as far as checks look at it.
struct Row {
    key: EventKey,
    shard: String,
    sequence: String,
}

async fn archived(world: &World, state: &State) -> Result<Vec<Row>, String> {
    let columns = [column::EVENT_KEY, column::SHARD_ID, column::SEQUENCE_NUMBER];
    let mut all = Vec::new();
    for live in state.live() {
        let mut batches = std::pin::pin!(rows::read(&world.admin.bucket, &live.file, &columns));
        let before = all.len();
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|e| e.to_string())?;
            let text = |name: &str, i: usize| {
                let column = batch.column_by_name(name).unwrap();
                column.as_any().downcast_ref::<StringArray>().unwrap().value(i).to_owned()
            };
            let keys = batch.column_by_name(column::EVENT_KEY).unwrap();
            let keys = keys.as_any().downcast_ref::<BinaryArray>().expect("binary keys");
            all.extend((0..batch.num_rows()).map(|i| Row {
                key: EventKey::from_slice(keys.value(i)).unwrap(),
                shard: text(column::SHARD_ID, i),
                sequence: text(column::SEQUENCE_NUMBER, i),
            }));
        }
        if (all.len() - before) as u64 != live.file.rows {
            return Err(format!("{} has other rows than the log says", live.file.target));
        }
    }
    Ok(all)
}

/// No event twice, nothing that no record is, nothing gone that was there, and no later commit of a month without the one
/// before it, by the log and by the names of the files.
async fn look_at_archive(world: &World, oracle: &Oracle) {
    let state = match world.admin.log().await {
        Ok(state) => state,
        Err(error) => return world.violated(5, format!("the log cannot be read: {error}")),
    };
    let rows = match archived(world, &state).await {
        Ok(rows) => rows,
        Err(error) => return world.violated(6, format!("the archive cannot be read: {error}")),
    };
    let mut keys = BTreeSet::new();
    for row in &rows {
        if !keys.insert(row.key) {
            world.violated(6, format!("the archive has {} twice", row.key));
        }
        if !oracle.changes.contains_key(&row.key) {
            world.violated(6, format!("the archive has {}, which no record has", row.key));
        }
    }
    // What the log says was quarantined is there, from the commit on.
    let quarantined = objects(world, quarantine::PREFIX).await;
    let lives: BTreeMap<i64, _> = state.streams.iter().map(|(stream, end)| (stream.created_ms, end)).collect();
    let lossy = world.may_lose();
    for (shard, sequence) in oracle.poison.iter().filter(|_| !lossy && lives.len() == 1) {
        let (shard, sequence): (ShardId, SequenceNumber) = (shard.parse().unwrap(), number(sequence));
        let read = lives.values().any(|end| end.shards.get(&shard).is_some_and(|end| end.to >= Some(sequence.clone())));
        if read && !quarantined.contains_key(&quarantine::object_key(&shard, &sequence)) {
            world.violated(1, format!("the log passed {shard} {sequence}, which nobody can read, and left it nowhere"));
        }
    }
    look_at_listing(world, &state).await;
    let mut memory = world.memory.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(gone) = memory.archived.difference(&keys).next() {
        world.violated(6, format!("{gone} has left the archive"));
    }
    memory.archived = keys;
}

/// What a reader by the names of the files sees of each month: no later commit without the one before it; and a version as a
/// whole, the new one, or else the one before it.
async fn look_at_listing(world: &World, state: &State) {
    let files = objects(world, "events/").await;
    let last = state.last.as_ref();
    let removed_by_last: BTreeSet<&str> = last.iter().flat_map(|entry| &entry.removed).map(String::as_str).collect();
    let mut months: BTreeMap<Month, BTreeSet<u64>> = BTreeMap::new();
    for name in files.keys() {
        let Some(target) = parse_target(name) else {
            world.violated(6, format!("{name} is no name of a file"));
            continue;
        };
        // What was removed may stay for the grace, or longer; it stands in the place of an earlier version.
        let left = target.version < state.version(target.month) && world.has(Fault::Compaction);
        if state.find(name).is_some() {
            months.entry(target.month).or_default().insert(target.n);
        } else if !left {
            world.violated(6, format!("{name} is no live file"));
        }
    }
    // Nobody puts an entry before the one before it is finished.
    let mut missing: BTreeSet<Month> = BTreeSet::new();
    for live in state.live().filter(|live| !files.contains_key(&live.file.target)) {
        if live.n + 1 < state.next {
            world.violated(6, format!("{} is not there, and the log went on", live.file.target));
        }
        missing.insert(live.file.month);
    }
    for month in last.iter().flat_map(|entry| entry.versions.keys()).filter(|month| missing.contains(month)) {
        let gone = removed_by_last.iter().find(|name| !files.contains_key(**name));
        if let Some(gone) = gone {
            world.violated(6, format!("{month} has no whole version: the new one is not there, and {gone} is gone"));
        }
    }
    for (month, seen) in months {
        let last = seen.last().copied().unwrap_or_default();
        let due: BTreeSet<u64> = state.files[&month].values().map(|live| live.n).filter(|n| *n <= last).collect();
        if seen != due {
            world.violated(6, format!("whoever lists {month} sees commits {seen:?}, of {due:?}"));
        }
    }
}

/// Everything has arrived: now totals, archive, log and reconcile must say what the oracle says.
pub async fn end(world: &Arc<World>) {
    if world.is_violated() {
        return;
    }
    for _ in 0..20 {
        let process = world.process("compactor");
        match parts::archive(world, &process).await {
            Some(Ok(report)) if report.reached_tip => break,
            Some(Ok(_)) => {}
            Some(Err(error)) => return world.violated(0, format!("the compactor fails in a calm: {error}")),
            None => return world.violated(0, "the compactor died in a calm".to_owned()),
        }
    }
    if world.has(Fault::Compaction) {
        parts::compact(world).await;
    }
    look(world).await;
    let oracle = world.oracle();
    let Ok(cells) = cells(world).await else { return };
    let Ok(state) = world.admin.log().await else { return };
    let Ok(rows) = archived(world, &state).await else { return };
    all_archived(world, &oracle, &state, &rows).await;
    tiles(world, &state, &rows).await;
    rebuilt(world, &state).await;
    checked(world).await;
    all_counted(world, &oracle, &cells);
    recounted(world, &oracle, &state, &rows).await;
    reconciled(world).await;
    capture::audited(world, &rows.iter().map(|row| row.key).collect()).await;
    // What was lost cannot be told from what is planted.
    if world.has(Fault::Damage) && state.lost.is_empty() && !world.is_violated() {
        crate::damage::damage(world, &oracle).await;
    }
}

/// Whether the log says, as it may, that a record is missing: the stream had dropped it when the hole was found, or the
/// stream itself was no more.
pub fn is_lost(world: &World, state: &State, put: &Put, index: usize) -> bool {
    let life = life_of(world, index);
    let lives = world.memory.lock().unwrap_or_else(PoisonError::into_inner).lives.clone();
    let mut holes = state.lost.iter().filter(|hole| hole.stream.created_ms == lives[life]);
    if life + 1 < lives.len() {
        // Nobody can say what a stream still held; but that it held something must be said, if it was ever read.
        return holes.next().is_some() || !state.streams.keys().any(|stream| stream.created_ms == lives[life]);
    }
    let kept_ms = i64::from(world.plan.retention_hours) * 3_600_000;
    holes.any(|hole| {
        hole.shard.as_str() == put.shard
            && hole.lost.after.as_ref().is_none_or(|after| number(&put.sequence) > *after)
            && hole.lost.before.as_ref().is_none_or(|before| number(&put.sequence) < *before)
            && put.arrived_us / 1_000 + kept_ms <= hole.lost.found_ms + CLOCKS_OFF_MS
    })
}

/// Every record is a row, aside, or a duplicate of a row, or the log says that it was lost.
async fn all_archived(world: &World, oracle: &Oracle, state: &State, rows: &[Row]) {
    if world.has(Fault::Trim) && !state.lost.is_empty() {
        world.note_fault(Fault::Trim);
    }
    let keys: BTreeSet<EventKey> = rows.iter().map(|row| row.key).collect();
    let quarantined = objects(world, quarantine::PREFIX).await;
    let conflicts = objects(world, quarantine::CONFLICTS_PREFIX).await;
    let places: BTreeSet<(&str, &str)> = rows.iter().map(|row| (row.shard.as_str(), row.sequence.as_str())).collect();
    let puts = world.network.puts();
    let mut variants: BTreeMap<EventKey, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for (index, put) in puts.iter().enumerate() {
        let at = (put.shard.clone(), put.sequence.clone());
        let (shard, sequence): (ShardId, SequenceNumber) = (put.shard.parse().unwrap(), number(&put.sequence));
        let kept = match oracle.keys.get(&at) {
            None => match quarantined.contains_key(&quarantine::object_key(&shard, &sequence)) {
                true => is_kept_whole(world, &shard, &sequence, put).await,
                false => false,
            },
            Some(key) => keys.contains(key),
        };
        if !kept && !is_lost(world, state, put, index) {
            world.violated(
                1,
                format!("record {at:?} is neither archived nor in quarantine, and nothing says that it is lost"),
            );
        }
        let is_aside = conflicts.contains_key(&quarantine::conflict_key(&shard, &sequence));
        if let Some(key) = oracle.keys.get(&at)
            && (is_aside || places.contains(&(put.shard.as_str(), put.sequence.as_str())))
        {
            variants.entry(*key).or_default().insert(put.data.clone());
        }
    }
    for (key, contents) in &oracle.changes {
        let kept = variants.get(key).map_or(0, BTreeSet::len);
        if keys.contains(key) && kept < contents.len() && !world.has(Fault::NewStream) && state.lost.is_empty() {
            world.violated(1, format!("{key} came with {} contents, of which {kept} are kept", contents.len()));
        }
    }
}

async fn is_kept_whole(world: &World, shard: &ShardId, sequence: &SequenceNumber, put: &Put) -> bool {
    let object = world.admin.bucket.get(&quarantine::object_key(shard, sequence), 8 << 20).await.unwrap().unwrap();
    let kept: Quarantined = serde_json::from_slice(&object).unwrap();
    STANDARD.decode(&kept.data).is_ok_and(|data| data == put.data)
}

/// The ranges of the log tile each shard, parents before children, and count what they hold.
async fn tiles(world: &World, state: &State, rows: &[Row]) {
    let store = LogStore::new(world.admin.bucket.clone(), world.admin.host.clone());
    let lossy = world.may_lose();
    let puts = world.network.puts();
    let streams = world.memory.lock().unwrap_or_else(PoisonError::into_inner).lives.clone();
    let mut ends: BTreeMap<(i64, ShardId), (Option<SequenceNumber>, bool)> = BTreeMap::new();
    let mut in_log = 0;
    for n in 0..state.next {
        let bytes = store.bytes_of(n).await.unwrap().unwrap_or_default();
        let Ok(entry) = Entry::from_bytes(n, &bytes) else {
            return world.violated(5, format!("entry {n} is unreadable"));
        };
        let created = entry.stream.as_ref().map_or(0, |stream| stream.created_ms);
        for range in entry.ranges {
            let (end, closed) = ends.get(&(created, range.shard.clone())).cloned().unwrap_or_default();
            if range.from != end || range.from > range.to || (closed && range.records > 0) {
                world.violated(5, format!("entry {n} does not begin where the log ends ({end:?}): {range:?}"));
            }
            if range.rows + range.duplicates + range.conflicts + range.quarantined != range.records {
                world.violated(5, format!("entry {n} does not add up: {range:?}"));
            }
            for parent in &range.parents {
                let open = ends.get(&(created, parent.clone())).is_some_and(|(_, closed)| !closed);
                if open && range.records > 0 {
                    world.violated(5, format!("entry {n} reads a child before its parent's end: {range:?}"));
                }
            }
            let inside = puts.iter().enumerate().filter(|(index, put)| {
                let at = number(&put.sequence);
                streams.get(life_of(world, *index)) == Some(&created)
                    && put.shard == range.shard.as_str()
                    && range.from.as_ref().is_none_or(|from| at > *from)
                    && range.to.as_ref().is_some_and(|to| at <= *to)
            });
            let inside = inside.count() as u64;
            if (!lossy && inside != range.records) || inside < range.records {
                world.violated(5, format!("entry {n} counts other records than the {inside} there are: {range:?}"));
            }
            in_log += range.rows;
            ends.insert((created, range.shard), (range.to, range.closed));
        }
    }
    if in_log != rows.len() as u64 {
        world.violated(5, format!("the log has {in_log} rows, its files {}", rows.len()));
    }
}

/// Every row gives back the record that was put, whatever was merged and copied since.
async fn rebuilt(world: &World, state: &State) {
    let puts = world.network.puts();
    let mut records: BTreeMap<(&str, &str), Vec<&[u8]>> = BTreeMap::new();
    for put in &puts {
        // A stream made anew repeats shards, and perhaps numbers.
        records.entry((&put.shard, &put.sequence)).or_default().push(&put.data);
    }
    for live in state.live() {
        let mut batches = std::pin::pin!(rows::read(&world.admin.bucket, &live.file, &rebuild::COLUMNS));
        while let Some(batch) = batches.next().await {
            let rows = Rebuilder::new(&batch.unwrap(), live.file.target.as_str().into()).unwrap();
            for i in 0..rows.len() {
                let row = rows.rebuild(i).unwrap();
                let text = row.record.unwrap_or_default();
                let record: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
                let put = records.get(&(row.shard.as_str(), row.sequence.as_str()));
                let same =
                    |data: &&&[u8]| serde_json::from_slice::<serde_json::Value>(data).is_ok_and(|put| put == record);
                if !put.is_some_and(|put| put.iter().any(|data| same(&data))) {
                    let at = (&row.shard, &row.sequence);
                    world
                        .violated(7, format!("{} has another record at {at:?} than was put: {text}", live.file.target));
                }
            }
        }
    }
}

/// The check of the archive finds nothing that it should not.
async fn checked(world: &World) {
    let options = fsck::Options { month: None, deep: true };
    match fsck::fsck(&world.admin.bucket, &world.admin.host, &world.definition, None, options, &|_| {}).await {
        Err(error) => world.violated(5, format!("fsck fails in a calm: {error}")),
        Ok(report) => {
            for finding in report.findings {
                let allowed = match finding.kind {
                    fsck::Kind::Lost => world.may_lose(),
                    // What a run that died left behind: removed files, and uploads that the log has not passed yet.
                    fsck::Kind::Leftover | fsck::Kind::Orphan => true,
                    _ => false,
                };
                if !allowed {
                    world.violated(5, format!("fsck finds, though nobody damaged anything: {finding:?}"));
                }
            }
        }
    }
}

/// Keys that may be missing from the totals: all their records were in streams that are no more.
fn excused(world: &World, oracle: &Oracle) -> BTreeSet<EventKey> {
    let now = life_of(world, usize::MAX);
    let mut excused: BTreeSet<EventKey> = oracle.changes.keys().copied().collect();
    for (index, put) in world.network.puts().iter().enumerate() {
        if life_of(world, index) == now
            && let Some(key) = oracle.keys.get(&(put.shard.clone(), put.sequence.clone()))
        {
            excused.remove(key);
        }
    }
    excused
}

pub fn all_counted_now(
    world: &World,
    oracle: &Oracle,
    seen: &BTreeMap<Cell, (Pair, BTreeSet<EventKey>, BTreeSet<EventKey>)>,
) {
    let excused = excused(world, oracle);
    for (cell, known) in oracle.cells() {
        let nothing = ((0, 0), BTreeSet::new(), BTreeSet::new());
        let (total, ledger, too_old) = seen.get(&cell).unwrap_or(&nothing);
        let mut adds = Vec::new();
        for key in &known {
            let mut pairs = oracle.adds(key, &cell);
            // Of contents that do not agree, the one that counted may concern another cell.
            let elsewhere = oracle.changes[key].iter().any(|change| !change.adds.contains_key(&cell));
            if too_old.contains(key) || (excused.contains(key) && !ledger.contains(key)) || elsewhere {
                pairs.push((0, 0));
            } else if !ledger.contains(key) && !may_be_forgotten(world, key) {
                world.violated(1, format!("{key} is not counted in {cell:?}"));
            }
            adds.push(pairs);
        }
        if !fits(*total, adds) {
            world
                .violated(2, format!("{cell:?} says {total:?}, which is not what its {} changes come to", known.len()));
        }
    }
}

fn all_counted(world: &World, oracle: &Oracle, cells: &BTreeMap<Cell, Seen>) {
    let seen = cells
        .iter()
        .map(|(cell, seen)| (cell.clone(), (seen.total(), seen.ledger.clone(), seen.too_old.clone())))
        .collect();
    all_counted_now(world, oracle, &seen);
}

/// What each cell says now.
pub async fn totals(world: &World) -> BTreeMap<Cell, Pair> {
    cells(world).await.unwrap().into_iter().map(|(cell, seen)| (cell, seen.total())).collect()
}

/// The same from outside this module: cells as they are now.
pub async fn counted(world: &World, oracle: &Oracle) {
    match cells(world).await {
        Ok(cells) => all_counted(world, oracle, &cells),
        Err(error) => world.violated(3, format!("a cell cannot be read: {error}")),
    }
}

/// The archive folded gives what its changes come to.
async fn recounted(world: &World, oracle: &Oracle, state: &State, rows: &[Row]) {
    let report = match recompute(&world.admin.bucket, &world.definition, state, &|_| {}).await {
        Ok(report) => report,
        Err(error) => return world.violated(6, format!("the archive cannot be recounted: {error}")),
    };
    if report.repeated != 0 {
        world.violated(6, format!("recompute finds {} events twice", report.repeated));
    }
    let mut due: BTreeMap<(String, String), Vec<Vec<Pair>>> = BTreeMap::new();
    for row in rows {
        let Some(contents) = oracle.changes.get(&row.key) else { continue };
        let cells: BTreeSet<&Cell> = contents.iter().flat_map(|change| change.adds.keys()).collect();
        for cell in cells {
            let mut pairs = oracle.adds(&row.key, cell);
            if contents.iter().any(|change| !change.adds.contains_key(cell)) {
                pairs.push((0, 0));
            }
            due.entry((cell.group.to_string(), cell.month.to_string())).or_default().push(pairs);
        }
    }
    for line in &report.totals.months {
        let bytes = line.sums.get("bytes").map_or(0, |sum| sum.to_string().parse().unwrap());
        let pairs = due.remove(&(line.group.to_string(), line.month.to_string())).unwrap_or_default();
        if !fits((line.events, bytes), pairs) {
            world.violated(6, format!("recompute says {} and {bytes} of {} {}", line.events, line.group, line.month));
        }
    }
    if let Some((left, pairs)) = due.into_iter().find(|(_, pairs)| !fits((0, 0), pairs.clone())) {
        world.violated(6, format!("recompute leaves {left:?} out, with {} events", pairs.len()));
    }
}

/// Reconcile has nothing to say.
async fn reconciled(world: &Arc<World>) {
    let process = world.process(OPERATOR);
    let context = parts::context(world, &process);
    let scope = recount_compactor::contributions::Scope::all();
    let done = process.run(recount_compactor::reconcile::reconcile(&context, &scope, &|_| {})).await;
    let verdict = verdicts::judge(world, &process.name, done.as_ref()).await;
    match verdict {
        Some(Verdict::Clean) => {}
        Some(Verdict::Findings) => {} // judged one by one
        _ => {
            let why = done.map(|done| done.map(|done| done.report.undecided_because).map_err(|e| e.to_string()));
            world.violated(8, format!("reconcile cannot decide in a calm: {why:?}"));
        }
    }
}
