//! Archivers and compactors in one small world: a bucket and a stream in memory. What interleaves, crashes and gets lost is drawn
//! from a seed, and the scheduling is done here, so a failing seed is one history.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arrow_array::cast::AsArray;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use recount_schemas::archive::column;
use recount_schemas::host::{Deadline, Host};
use recount_schemas::{EventKey, Month};

use super::finish::{Catalog, Shown};
use super::memory_stream::MemoryStream;
use super::run::{Archiver, Until};
use super::{ArchiveError, ArchiveReport, Limits};
use crate::bucket::memory::{Fault, Memory};
use crate::compact::{CompactError, Compactor};
use crate::log::{Digest, Entry, LogStore, State, names};
use crate::rows::read;
use crate::rows::testing::{NOVEMBER, definition, record};
use crate::testing::{TestHost, pause};

pub(crate) type Run = Pin<Box<dyn Future<Output = ()>>>;

pub(crate) fn limits() -> Limits {
    Limits { commit_bytes: 1, page_records: 3, ..Limits::default().unpaced() }
}

pub(crate) fn archiver(
    objects: &Memory,
    stream: &MemoryStream,
    host: &Arc<TestHost>,
) -> Archiver<Memory, MemoryStream> {
    Archiver::new(objects.clone(), stream.clone(), Arc::new(definition()), host.clone()).with_limits(limits())
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..2_000_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("it does not end");
}

pub(crate) fn run(objects: &Memory, stream: &MemoryStream, host: &Arc<TestHost>) -> ArchiveReport {
    block_on(archiver(objects, stream, host).run(Until::Tip, Deadline::NONE)).unwrap()
}

/// The keys in all live files, with repetition, read from where the log says they are.
pub(crate) fn archived(objects: &Memory, state: &State) -> Vec<EventKey> {
    let mut keys = Vec::new();
    for live in state.live() {
        let batches: Vec<_> = block_on(read(objects, &live.file, &[column::EVENT_KEY]).try_collect()).unwrap();
        for batch in batches {
            let column = batch.column_by_name(column::EVENT_KEY).unwrap().as_binary::<i32>().clone();
            keys.extend(column.iter().map(|key| EventKey::from_slice(key.unwrap()).unwrap()));
        }
    }
    keys
}

pub(crate) fn state(objects: &Memory, host: &Arc<TestHost>) -> State {
    block_on(LogStore::new(objects.clone(), host.clone()).read_to_head()).unwrap()
}

/// What holds at every moment. Every entry but the last is published, so a listing shows whole commits in their order; a
/// removed file that was deleted never comes back; and the listing shows nothing that no entry named. `gone` remembers the
/// deleted ones.
pub(crate) fn check_listing(objects: &Memory, host: &Arc<TestHost>, gone: &mut BTreeSet<String>) {
    let state = state(objects, host);
    let shown: BTreeSet<String> = objects.keys(names::EVENTS).into_iter().collect();
    let last: BTreeSet<&str> =
        state.last.iter().flat_map(|entry| &entry.added).map(|file| file.target.as_str()).collect();
    for live in state.live().filter(|live| !last.contains(live.file.target.as_str())) {
        assert!(shown.contains(&live.file.target), "{} is not published, and the log has gone on", live.file.target);
    }
    let entries = (0..state.next).map(|n| Entry::from_bytes(n, &objects.bytes(&names::entry(n)).unwrap()).unwrap());
    let named: BTreeSet<String> = entries.flat_map(|entry| entry.added).map(|file| file.target).collect();
    assert!(shown.is_subset(&named), "no entry named {:?}", shown.difference(&named));
    assert!(shown.is_disjoint(gone), "deleted and back: {:?}", shown.intersection(gone));
    gone.extend(named.into_iter().filter(|target| state.find(target).is_none() && !shown.contains(target)));
}

/// The records in all ranges of the log, which tile each shard, parents before children: read from the entries as they
/// are, with no help of the code that checks them when they are put.
pub(crate) fn ranges(objects: &Memory, state: &State) -> u64 {
    let mut ends = BTreeMap::new();
    let mut records = 0;
    for n in 0..state.next {
        for range in Entry::from_bytes(n, &objects.bytes(&names::entry(n)).unwrap()).unwrap().ranges {
            let parents: Vec<_> = range.parents.iter().filter_map(|parent| ends.get(parent)).collect();
            assert_eq!(
                parents.len(),
                range.parents.len(),
                "invariant 5: {} has parents that were never read",
                range.shard
            );
            assert!(parents.iter().all(|(_, closed)| *closed), "invariant 5: {} is before its parents", range.shard);
            let (before, closed) = ends.insert(range.shard.clone(), (range.to, range.closed)).unwrap_or_default();
            assert!(before == range.from && !closed, "invariant 5: the ranges of {} do not tile", range.shard);
            records += range.records;
        }
    }
    records
}

/// A seed's random numbers.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

pub(crate) struct World {
    pub(crate) host: Arc<TestHost>,
    pub(crate) objects: Memory,
    pub(crate) stream: MemoryStream,
    /// Where months have a location, if they have.
    pub(crate) catalog: Option<Arc<Locations>>,
    pub(crate) produced: BTreeSet<EventKey>,
    records: Vec<String>,
    bad: u64,
    put: u64,
    gone: BTreeSet<String>,
    readers: Readers,
}

impl World {
    pub(crate) fn new() -> Self {
        let host = Arc::new(TestHost::at(NOVEMBER + 100_000_000_000, 7));
        let (objects, stream) = (Memory::with_clock(host.clone()), MemoryStream::new(host.clone()));
        Self {
            host,
            objects,
            stream,
            catalog: None,
            readers: Readers::default(),
            produced: BTreeSet::new(),
            records: Vec::new(),
            bad: 0,
            put: 0,
            gone: BTreeSet::new(),
        }
    }

    /// The same where months have locations.
    pub(crate) fn located() -> Self {
        let world = Self::new();
        let catalog = Some(Arc::new(Locations { host: world.host.clone(), shown: Mutex::default() }));
        Self { catalog, ..world }
    }

    /// An event of November, or of one of the months around it.
    pub(crate) fn produce(&mut self, dice: &mut Dice) {
        let shards = self.stream.open_shards();
        let shard = shards[dice.roll(shards.len() as u64) as usize].clone();
        let text = match dice.roll(8) {
            0 => {
                self.bad += 1;
                "no record".to_owned()
            }
            1 if !self.records.is_empty() => self.records[dice.roll(self.records.len() as u64) as usize].clone(),
            _ => {
                let id = format!("e{}", self.records.len());
                let created = NOVEMBER - dice.roll(3) as i64 * 86_400_000_000 * 14 + dice.roll(1_000_000) as i64;
                record(&id, Some(["a", "b"][dice.roll(2) as usize]), created, "2")
            }
        };
        let judged = definition().judge(text.as_bytes(), self.host.now_us());
        if judged.is_ok_and(|judged| self.produced.insert(judged.key)) {
            self.records.push(text.clone());
        }
        self.stream.put(&shard, &text);
        self.put += 1;
    }

    pub(crate) fn archiver(&self, objects: &Memory) -> Archiver<Memory, MemoryStream> {
        let archiver = archiver(objects, &self.stream, &self.host);
        match &self.catalog {
            Some(catalog) => archiver.with_catalog(catalog.clone()),
            None => archiver,
        }
    }

    pub(crate) fn compactor(&self, objects: &Memory, grace: Duration) -> Compactor<Memory> {
        let limits = crate::compact::Limits { grace, ..crate::compact::Limits::default() };
        let compactor = Compactor::new(objects.clone(), Arc::new(definition()), self.host.clone()).with_limits(limits);
        match &self.catalog {
            Some(catalog) => compactor.with_catalog(catalog.clone()),
            None => compactor,
        }
    }

    /// The bucket as one run sees it: of its writes, some fail.
    pub(crate) fn lossy(&self, dice: &mut Dice, lossy: bool) -> Memory {
        let dice = Mutex::new(Dice(dice.roll(u64::MAX >> 33)));
        self.objects.with_faults(move |_, _| match dice.lock().unwrap().roll(if lossy { 16 } else { 1_000_000 }) {
            1 => Fault::AnswerLost,
            2 => Fault::RequestLost,
            3 => Fault::Late,
            _ => Fault::None,
        })
    }

    pub(crate) fn archive(&self, dice: &mut Dice, lossy: bool) -> Run {
        let archiver = self.archiver(&self.lossy(dice, lossy));
        Box::pin(async move {
            match archiver.run(Until::Tip, Deadline::NONE).await {
                // What a lost answer may do to a run; everything else is a violation.
                Ok(_) | Err(ArchiveError::Bucket(_) | ArchiveError::Undecided { .. } | ArchiveError::TimeIsUp) => {}
                Err(error) => panic!("{error}"),
            }
        })
    }

    pub(crate) fn compact(&self, dice: &mut Dice, lossy: bool, grace: Duration) -> Run {
        let compactor = self.compactor(&self.lossy(dice, lossy), grace);
        Box::pin(async move {
            match compactor.run(None, Deadline::NONE).await {
                Ok(_) => {}
                Err(CompactError::Archive(ArchiveError::Bucket(error))) if error.is_unsure() => {}
                Err(CompactError::Archive(ArchiveError::Undecided { .. } | ArchiveError::TimeIsUp)) => {}
                Err(error) => panic!("{error}"),
            }
        })
    }

    /// What holds at every moment, of the listing and for every reader.
    pub(crate) fn check(&mut self) {
        check_listing(&self.objects, &self.host, &mut self.gone);
        self.readers.check(&self.objects, &state(&self.objects, &self.host), self.catalog.as_deref());
    }

    /// Archives to the tip without faults.
    pub(crate) fn run(&self) -> ArchiveReport {
        block_on(self.archiver(&self.objects).run(Until::Tip, Deadline::NONE)).unwrap()
    }

    /// Brings everything to its end without faults, and checks the archive.
    pub(crate) fn settle(&mut self) {
        while self.objects.land(0) {}
        self.run();
        let report = self.run();
        assert!(report.reached_tip, "{report:?}");
        assert_eq!(report.commits, 0, "nothing was left over");
        let state = state(&self.objects, &self.host);
        let keys = archived(&self.objects, &state);
        assert_eq!(keys.len(), self.produced.len(), "invariants 1 and 6: each event once");
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), self.produced, "invariants 1 and 6: no other events");
        assert_eq!(
            self.objects.keys("quarantine/").len() as u64,
            self.bad,
            "invariant 1: what cannot be judged is kept"
        );
        assert_eq!(self.objects.keys("conflicts/"), Vec::<String>::new());
        assert_eq!(state.lost, vec![]);
        assert_eq!(ranges(&self.objects, &state), self.put, "invariant 5: each record is in one range");
        for live in state.live() {
            assert!(self.objects.bytes(&live.file.target).is_some(), "{} is published", live.file.target);
        }
        let staged = state.last.iter().flat_map(|entry| &entry.added).map(|file| &file.source);
        assert!(staged.filter(|source| source.starts_with(names::STAGING)).all(|s| self.objects.bytes(s).is_none()));
        self.check();
    }
}

/// Months' locations as Glue keeps them: without conditional updates, so between the look and the move others may move.
#[derive(Debug)]
pub(crate) struct Locations {
    host: Arc<TestHost>,
    pub(crate) shown: Mutex<BTreeMap<Month, Shown>>,
}

impl Catalog for Locations {
    fn name(&self) -> String {
        "Locations".to_owned()
    }

    fn place<'c>(&'c self, state: &'c State, months: &'c BTreeSet<Month>) -> BoxFuture<'c, Result<(), String>> {
        Box::pin(async move {
            for month in months {
                pause().await;
                let shown = self.shown.lock().unwrap().get(month).cloned();
                let version = state.version(*month);
                if shown.as_ref().is_none_or(|shown| shown.version < version) {
                    pause().await;
                    let now_ms = self.host.now_ms();
                    let moved = shown.map_or(Shown::first(version, now_ms), |shown| shown.moved(version, now_ms));
                    self.shown.lock().unwrap().insert(*month, moved);
                }
            }
            Ok(())
        })
    }

    fn shown(&self, month: Month) -> BoxFuture<'_, Result<Option<Shown>, String>> {
        Box::pin(async move { Ok(self.shown.lock().unwrap().get(&month).cloned()) })
    }
}

/// Invariants 6 and 7 as readers see them, by the log, by location, by a glob: each month as after some commit, each event
/// once, never going back. A glob may see an event twice until what a compaction removed is deleted.
#[derive(Default)]
struct Readers {
    keys: BTreeMap<Digest, Vec<EventKey>>,
    seen: BTreeMap<(&'static str, Month), BTreeSet<EventKey>>,
}

impl Readers {
    fn keys(&mut self, bytes: &bytes::Bytes) -> Vec<EventKey> {
        let read = || {
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap().build().unwrap();
            let mut keys = Vec::new();
            for batch in reader {
                let column = batch.unwrap().column_by_name(column::EVENT_KEY).unwrap().as_binary::<i32>().clone();
                keys.extend(column.iter().map(|key| EventKey::from_slice(key.unwrap()).unwrap()));
            }
            keys
        };
        self.keys.entry(Digest::of(bytes)).or_insert_with(read).clone()
    }

    fn check(&mut self, objects: &Memory, state: &State, catalog: Option<&Locations>) {
        // How many rows a month had after each commit.
        let mut counts: BTreeMap<Month, (u64, BTreeSet<u64>)> = BTreeMap::new();
        for n in 0..state.next {
            let entry = Entry::from_bytes(n, &objects.bytes(&names::entry(n)).unwrap()).unwrap();
            for file in entry.added.iter().filter(|_| !entry.kind.replaces()) {
                let (now, counts) = counts.entry(file.month).or_default();
                *now += file.rows;
                counts.insert(*now);
            }
        }
        for (month, (now, counts)) in &counts {
            let mut by_log = Vec::new();
            for live in state.files[month].values() {
                let bytes = objects.bytes(&live.file.target).or_else(|| objects.bytes(&live.file.source));
                let bytes = bytes.unwrap_or_else(|| panic!("by log: {} is nowhere", live.file.target));
                assert_eq!(Digest::of(&bytes), live.file.sha256, "by log: {} is another file", live.file.target);
                by_log.extend(self.keys(&bytes));
            }
            assert_eq!(by_log.len() as u64, *now, "by log: {month} has not the rows that were committed");
            self.see("log", *month, by_log, true, counts);

            let mut by_glob = Vec::new();
            for name in objects.keys(&names::month(*month)) {
                by_glob.extend(self.keys(&objects.bytes(&name).unwrap()));
            }
            let moved = state.version(*month) > 0;
            self.see("glob", *month, by_glob, !moved, counts);

            let shown = catalog.and_then(|catalog| catalog.shown.lock().unwrap().get(month).cloned());
            let Some(shown) = shown else { continue };
            let mut by_location = Vec::new();
            for name in objects.keys(&names::version(*month, shown.version)) {
                by_location.extend(self.keys(&objects.bytes(&name).unwrap()));
            }
            self.see("location", *month, by_location, true, counts);
        }
    }

    fn see(&mut self, by: &'static str, month: Month, keys: Vec<EventKey>, once: bool, counts: &BTreeSet<u64>) {
        let rows = keys.len();
        let keys: BTreeSet<EventKey> = keys.into_iter().collect();
        assert!(!once || keys.len() == rows, "invariant 6, by {by}: an event of {month} twice");
        let whole = keys.is_empty() || counts.contains(&(keys.len() as u64));
        assert!(whole, "invariant 6, by {by}: {month} has {} events, which no commit gave it", keys.len());
        let seen = self.seen.entry((by, month)).or_default();
        assert!(seen.is_subset(&keys), "invariant 7, by {by}: {month} went back");
        *seen = keys;
    }
}
