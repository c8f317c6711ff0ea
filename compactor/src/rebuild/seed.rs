//! Seeding the archive of a set: all that another archive had read, judged anew, as the first entry of the set's log.
//!
//! What the other archive had read is its rows, its quarantine and its conflicts. Each record is put together again and judged
//! under the new definition ([`anew`](super::anew)): it becomes a row, or goes to the set's own quarantine or conflicts.
//!
//! One entry takes it all, and how far the shards were read with it. So there is no half-seeded archive: a crash before the entry
//! leaves uploads that nobody names, and the same command begins again; behind it, whoever comes finishes the entry, as any.
//! From there on the ordinary archiver reads the stream, from exactly where the other one stood.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::Int64Array;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use recount_schemas::archive::column;
use recount_schemas::host::Deadline;
use recount_schemas::quarantine::{self, Quarantined};
use recount_schemas::{EventKey, Month, QuarantineCode, QuarantineReason};
use serde::{Deserialize, Serialize};

use super::RebuildError;
use super::anew::{Anew, Judged, Rank};
use crate::archive::ArchiveError;
use crate::archive::life::Life;
use crate::archive::sort::write_aside;
use crate::bucket::{Bucket, Listing, Objects};
use crate::commit::{Committer, Outcome, Proposal, token};
use crate::context::Context;
use crate::contributions::ReadError;
use crate::log::{Digest, Entry, Kind, LogStore, Seed, State, names};
use crate::progress::{Says, Work};
use crate::rows::rebuild::{COLUMNS, Rebuilder};
use crate::rows::row::Place;
use crate::rows::{ArchivedRow, Written, read, write};

/// Bytes of records in a file of the new archive: what is held and sorted at a time.
const FILE_BYTES: usize = 64 << 20;
/// Objects of quarantine and conflicts that are held before they are written.
const ASIDE: usize = 256;
/// The largest object of quarantine or conflicts: a record of 10 MiB in base64, and what stands around it.
const MAX_OBJECT: u64 = 16 << 20;
/// How long seeding may take. The files that it reads are deleted no sooner than a day after they were removed.
const LONGEST: Duration = Duration::from_secs(20 * 3_600);

/// What seeding came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seeded {
    /// Whether the archive had been seeded before: then only the rows, the files and the months are known.
    pub before: bool,
    /// Rows of the new archive.
    pub rows: u64,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Its months.
    pub months: BTreeSet<Month>,
    /// Records whose event stands twice under the new definition's identity, with one content.
    pub duplicates: u64,
    /// Those with another content: kept under the set's `conflicts/`.
    pub conflicts: u64,
    /// Records that the new definition cannot judge: kept under the set's `quarantine/`.
    pub quarantined: u64,
    /// Records that the old definition could not judge, and the new one can.
    pub rescued: u64,
    /// Rows that no longer hold all of their change.
    pub incomplete: u64,
}

struct SeedPlan {
    token: String,
    seed: Seed,
    files: Vec<(String, Written)>,
}

impl Proposal for SeedPlan {
    fn base(&self) -> u64 {
        0
    }

    fn entry(&self, state: &State, header: Entry) -> Entry {
        let added = self.files.iter().enumerate().map(|(i, (source, written))| {
            let target = names::target(written.month, state.version(written.month), state.next, i);
            written.added(source.clone(), target)
        });
        Entry {
            kind: Kind::Seed,
            token: self.token.clone(),
            origin: Some(format!("rebuild from {}, {} entries", self.seed.from, self.seed.entries)),
            seed: Some(Box::new(self.seed.clone())),
            added: added.collect(),
            ..header
        }
    }

    fn survives(&self, _: &[Kind], _: &State) -> bool {
        false
    }
}

/// The first entry of a set's log, and its digest; `None` while there is none. It is an error if it is no seed.
pub async fn seed_of(target: &Context) -> Result<Option<(Entry, Digest)>, RebuildError> {
    let log = LogStore::new(target.bucket.clone(), target.host.clone());
    let Some(bytes) = log.bytes_of(0).await.map_err(ArchiveError::from)? else { return Ok(None) };
    let entry = Entry::from_bytes(0, &bytes).map_err(ArchiveError::from)?;
    if entry.kind != Kind::Seed || entry.definition != target.definition.hash() {
        return Err(RebuildError::NotASeed(target.home()));
    }
    Ok(Some((entry, Digest::of(&bytes))))
}

/// Seeds the archive of `target` with what `source` has archived by now; nothing is done where that was done before.
///
/// Rows that no longer hold all of their change count as they always did under the definition that they were archived under;
/// under another one it cannot be known whether what is gone would count, so they stop the rebuild unless `accept_incomplete`.
pub async fn seed(
    source: &Context,
    target: &Context,
    accept_incomplete: bool,
    says: &Says<'_>,
) -> Result<Seeded, RebuildError> {
    let life = Life::begin(target.host.clone(), LONGEST, Deadline::NONE);
    let log = LogStore::new(target.bucket.clone(), target.host.clone());
    let committer = Committer {
        objects: &target.bucket,
        log: &log,
        definition: target.definition.hash(),
        catalog: target.catalog.as_deref(),
        host: &target.host,
        life: &life,
    };
    let mut state = log.read_to_head().await.map_err(ArchiveError::from)?;
    if let Some((entry, _)) = seed_of(target).await? {
        committer.finish(&mut state).await?;
        return Ok(before(&entry));
    }
    let old = source.log().await?;
    let seed = Seed {
        from: source.home(),
        entries: old.next,
        head: old.head,
        streams: old.streams.clone(),
        lost: old.lost.clone(),
    };
    let mut seeding = Seeding {
        target,
        life: &life,
        same: source.definition.hash() == target.definition.hash(),
        anew: Anew::new(Arc::clone(&target.definition)),
        aside: Vec::new(),
        seeded: Seeded::default(),
        unreadable: 0,
    };
    seeding.rows(source, &old, says).await?;
    if seeding.unreadable > 0 || (seeding.seeded.incomplete > 0 && !seeding.same && !accept_incomplete) {
        let (rows, unreadable) = (seeding.seeded.incomplete, seeding.unreadable);
        return Err(RebuildError::Incomplete { rows, unreadable });
    }
    says(Work::Step("judging quarantine and conflicts anew"));
    seeding.objects(&source.bucket, quarantine::PREFIX, Rank::Quarantine, &seed).await?;
    seeding.objects(&source.bucket, quarantine::CONFLICTS_PREFIX, Rank::Conflict, &seed).await?;

    let token = token(&target.host);
    let (files, seeded) = seeding.write(&token, says).await?;
    let plan = SeedPlan { token, seed, files };
    says(Work::Step("putting the first entry of the log"));
    match committer.commit(&plan, &mut state).await?.outcome {
        Outcome::Committed(_) => Ok(seeded),
        // Somebody else seeded it meanwhile; our uploads are tidied as any that nobody names.
        Outcome::Overtaken | Outcome::TooLate => match seed_of(target).await? {
            Some((entry, _)) => Ok(before(&entry)),
            None => Err(RebuildError::NotASeed(target.home())),
        },
    }
}

/// What an archive was seeded with, by its entry.
fn before(entry: &Entry) -> Seeded {
    Seeded {
        before: true,
        rows: entry.added.iter().map(|file| file.rows).sum(),
        files: entry.added.len() as u64,
        bytes: entry.added.iter().map(|file| file.bytes).sum(),
        months: entry.added.iter().map(|file| file.month).collect(),
        ..Seeded::default()
    }
}

struct Seeding<'a> {
    target: &'a Context,
    life: &'a Life,
    /// Whether both definitions count the same.
    same: bool,
    anew: Anew,
    aside: Vec<(String, Quarantined)>,
    seeded: Seeded,
    /// Rows that are no records any more.
    unreadable: u64,
}

impl Seeding<'_> {
    /// Takes every row of the live files.
    async fn rows(&mut self, source: &Context, old: &State, says: &Says<'_>) -> Result<(), RebuildError> {
        let columns: Vec<&str> = COLUMNS.into_iter().chain([column::ARRIVED_AT_US]).collect();
        says(Work::Step("judging all rows anew"));
        says(Work::Of(old.live().map(|live| live.file.rows).sum(), "rows"));
        for live in old.live() {
            let file: Arc<str> = Arc::from(live.file.target.as_str());
            let mut batches = std::pin::pin!(read(&source.bucket, &live.file, &columns));
            while let Some(batch) = batches.next().await {
                let batch = batch.map_err(ReadError::from)?;
                let rows = Rebuilder::new(&batch, Arc::clone(&file))?;
                let arrived = batch.column_by_name(column::ARRIVED_AT_US);
                let arrived = arrived.and_then(|array| array.as_any().downcast_ref::<Int64Array>()).cloned();
                let no_column =
                    || ReadError::Column { file: file.to_string(), column: column::ARRIVED_AT_US.to_owned() };
                let arrived = arrived.ok_or_else(no_column)?;
                says(Work::Done(rows.len() as u64));
                for i in 0..rows.len() {
                    let arrived_us = arrived.values().get(i).copied().unwrap_or_default();
                    self.row(&rows, i, arrived_us).await?;
                }
            }
        }
        Ok(())
    }

    async fn row(&mut self, rows: &Rebuilder, i: usize, arrived_us: i64) -> Result<(), RebuildError> {
        let rebuilt = rows.rebuild(i)?;
        let place = Place { shard: rebuilt.shard, sequence: rebuilt.sequence, arrived_us };
        if let Some(record) = rebuilt.record {
            return self.record(&record, &place, Rank::Row, None).await;
        }
        self.seeded.incomplete += 1;
        let (remains, content) = rows.remains(i)?;
        let Some(record) = remains else {
            self.unreadable += 1;
            return Ok(());
        };
        // What identifies the event may be gone from it: it stays what it was.
        let identity: (EventKey, [u8; 16]) = (rows.outline(i)?.key, content);
        self.record(&record, &place, Rank::Row, Some(identity)).await
    }

    async fn record(
        &mut self,
        record: &str,
        place: &Place,
        rank: Rank,
        identity: Option<(EventKey, [u8; 16])>,
    ) -> Result<(), RebuildError> {
        match self.anew.take(record, place, rank, identity)? {
            Ok(()) => self.seeded.rescued += u64::from(rank == Rank::Quarantine),
            Err(reason) => {
                let kept = self.quarantined(place, reason, STANDARD.encode(record));
                self.put_aside(quarantine::object_key(&place.shard, &place.sequence), kept).await?;
                self.seeded.quarantined += 1;
            }
        }
        Ok(())
    }

    /// Takes what stands beside the rows, as far as the archive had read the stream.
    async fn objects(&mut self, bucket: &Bucket, prefix: &str, rank: Rank, seed: &Seed) -> Result<(), RebuildError> {
        let mut listing = Listing::new(bucket, prefix);
        while let Some(page) = listing.next_page().await? {
            for listed in page {
                let Some((shard, sequence)) = quarantine::position_of(&listed.key) else { continue };
                if !seed.covers(&shard, &sequence) {
                    continue;
                }
                let Some(bytes) = bucket.get(&listed.key, MAX_OBJECT).await? else { continue };
                let malformed = |why: String| RebuildError::Object { key: listed.key.clone(), why };
                let kept: Quarantined = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
                if kept.format > quarantine::FORMAT {
                    return Err(malformed(format!("it is of format {}", kept.format)));
                }
                let record = match kept.raw {
                    true => None,
                    false => Some(STANDARD.decode(&kept.data).map_err(|error| malformed(error.to_string()))?),
                };
                let place = Place { shard, sequence, arrived_us: kept.arrived_us };
                match record.as_deref().map(std::str::from_utf8) {
                    Some(Ok(record)) => self.record(record, &place, rank, None).await?,
                    // No definition can judge it.
                    Some(Err(_)) | None => {
                        self.put_aside(quarantine::object_key(&place.shard, &place.sequence), kept).await?;
                        self.seeded.quarantined += 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes all rows into files of the new archive, staged.
    async fn write(mut self, token: &str, says: &Says<'_>) -> Result<(Vec<(String, Written)>, Seeded), RebuildError> {
        says(Work::Step("sorting"));
        let anew = std::mem::replace(&mut self.anew, Anew::new(Arc::clone(&self.target.definition)));
        let judgements = anew.finish()?;
        self.seeded.duplicates = judgements.duplicates;
        let mut files = Vec::new();
        let (mut rows, mut bytes): (Vec<ArchivedRow>, usize) = (Vec::new(), 0);
        for judged in judgements {
            match judged? {
                Judged::Row(row, size) => {
                    let month = rows.first().map(|first| first.month);
                    if month.is_some_and(|month| month != row.month) || bytes >= FILE_BYTES {
                        says(Work::Step(&format!("writing {}", rows.first().map_or(row.month, |first| first.month))));
                        self.file(std::mem::take(&mut rows), token, &mut files).await?;
                        bytes = 0;
                    }
                    bytes = bytes.saturating_add(size);
                    rows.push(row);
                }
                Judged::Conflict(key, place, record) => {
                    let detail = format_args!("event key {key} is archived with another content");
                    let reason = QuarantineReason::new(QuarantineCode::Conflict, detail);
                    let kept = self.quarantined(&place, reason, STANDARD.encode(&record));
                    self.put_aside(quarantine::conflict_key(&place.shard, &place.sequence), kept).await?;
                    self.seeded.conflicts += 1;
                }
            }
        }
        self.file(rows, token, &mut files).await?;
        self.flush().await?;
        Ok((files, self.seeded))
    }

    async fn file(
        &mut self,
        rows: Vec<ArchivedRow>,
        token: &str,
        files: &mut Vec<(String, Written)>,
    ) -> Result<(), RebuildError> {
        let Some(month) = rows.first().map(|row| row.month) else { return Ok(()) };
        let Some(mut written) = write(&self.target.definition, month, rows).map_err(ReadError::from)? else {
            return Ok(());
        };
        let source = names::staged(0, token, files.len());
        self.life.check()?;
        self.target.bucket.put(&source, std::mem::take(&mut written.bytes)).await?;
        self.seeded.rows += written.fingerprint.rows;
        self.seeded.files += 1;
        self.seeded.bytes += written.size;
        self.seeded.months.insert(month);
        files.push((source, written));
        Ok(())
    }

    fn quarantined(&self, place: &Place, reason: QuarantineReason, data: String) -> Quarantined {
        Quarantined {
            format: quarantine::FORMAT,
            stream: self.target.settings.stream.clone(),
            shard_id: place.shard.clone(),
            sequence_number: place.sequence.clone(),
            // A row does not keep it.
            partition_key: String::new(),
            arrived_us: place.arrived_us,
            reason,
            data,
            raw: false,
        }
    }

    async fn put_aside(&mut self, name: String, kept: Quarantined) -> Result<(), RebuildError> {
        self.aside.push((name, kept));
        if self.aside.len() >= ASIDE {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), RebuildError> {
        Ok(write_aside(&self.target.bucket, std::mem::take(&mut self.aside), self.life).await?)
    }
}
