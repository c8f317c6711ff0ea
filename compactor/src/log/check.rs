//! What an entry must satisfy to follow a state. Pure.
//!
//! | rule | why |
//! | --- | --- |
//! | its number is the next, it holds the digest of the one before | the log is dense and nobody has rewritten it |
//! | it adds no shard range that does not begin where the last one ended, and none for a closed shard | ranges tile: nothing lost, nothing read twice |
//! | a shard begins only when its known parents are closed | order within a lineage, and no record between them overlooked |
//! | records = rows + duplicates + conflicts + quarantined, and all rows of what was read are in added files | nothing vanished on the way |
//! | only an archive entry and a renewal name a stream and ranges | what nobody read from the stream is in no range of it |
//! | only an addition, an erasure and a seed have an origin, and they must | rows that no range accounts for say where they come from |
//! | only a seed takes over how far shards were read, and only as entry 0 | nothing that this log read itself is forgotten |
//! | an archive entry or an addition adds one file to a month | a commit appears in a month at once |
//! | targets have the month, its version and the entry's number in their names | no two entries write one name |
//! | only a compaction and an erasure remove files: all live files of the months whose version they set to their own number | a version is whole |
//! | a compaction's rows are those it removes | invariant 7 |
//! | an erasure's rows count as those it removes: as many, the same sums, the same hash over all that a total depends on | no erasure changes a total |
//! | its texts and lists are within [`MAX_ARN`], [`MAX_ORIGIN`], [`MAX_PARENTS`], [`MAX_SUMS`], a group's length; no file is above [`MAX_FILE`] | a damaged entry costs no more than its bytes |
//! | its number is below base + [`WINDOW`](super::state::WINDOW) | older uploads are garbage and may be deleted |

use std::collections::{BTreeMap, BTreeSet};

use recount_schemas::bugs::{self, Bug};
use recount_schemas::fold::MAX_GROUP;
use recount_schemas::{Month, ShardId};

use super::entry::{AddedFile, Entry, FORMAT, Fingerprint, Kind, ShardRange};
use super::names;
use super::state::{ShardEnd, State, window};

/// The longest ARN, in bytes (IAM User Guide, "IAM and STS quotas": 2,048 for the longest of them).
pub const MAX_ARN: usize = 2_048;
/// The longest origin, in bytes.
pub const MAX_ORIGIN: usize = 200;
/// The most parents of a shard: it was split from one, or merged from two.
pub const MAX_PARENTS: usize = 2;
/// The most sums of a fingerprint: one for each measure.
pub const MAX_SUMS: usize = recount_schemas::definition::file::MAX_MEASURES;
/// The largest file, in bytes: what CopyObject copies (S3 API reference).
pub const MAX_FILE: u64 = 5 << 30;
/// The longest column's or definition's name in an entry: a measure's attribute has 64 bytes and a prefix, a hash has 64.
const MAX_NAME: usize = 80;

/// The log cannot be read on, or an entry cannot be put.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The entry's bytes are no entry.
    #[error("log entry {n} is malformed: {why}")]
    Malformed {
        /// The entry.
        n: u64,
        /// What is wrong.
        why: String,
    },
    /// The entry was written by a newer program.
    #[error("log entry {n} has format {format}, this program reads up to {FORMAT}: use a newer one")]
    Newer {
        /// The entry.
        n: u64,
        /// Its format.
        format: u32,
    },
    /// The entry is too large.
    #[error("log entry {n} has {bytes} bytes, more than an entry may have: make smaller commits")]
    TooLarge {
        /// The entry.
        n: u64,
        /// Its size.
        bytes: u64,
    },
    /// The entry does not follow the ones before it.
    #[error("log entry {n} does not follow: {why}; restore the entry that was there")]
    Broken {
        /// The entry.
        n: u64,
        /// Which rule it breaks.
        why: String,
    },
}

/// Whether `entry` may follow `state`; see the table above.
pub fn follows(state: &State, entry: &Entry) -> Result<(), LogError> {
    let broken = |why: String| LogError::Broken { n: entry.n, why };
    if entry.format > FORMAT {
        return Err(LogError::Newer { n: entry.n, format: entry.format });
    }
    if entry.n != state.next || entry.n > names::MAX_NUMBER {
        return Err(broken(format!("number {} is expected", state.next)));
    }
    if entry.previous != state.head {
        return Err(broken("it does not hold the digest of the entry before it".into()));
    }
    if !names::is_token(&entry.token) {
        return Err(broken("its token is malformed".into()));
    }
    if entry.base > entry.n || entry.n >= entry.base.saturating_add(window()) {
        return Err(broken(format!("it was planned when the log had {} entries", entry.base)));
    }
    sizes(entry).map_err(|why| broken(why.into()))?;
    kind(entry).map_err(|why| broken(why.into()))?;
    ranges(state, entry).map_err(broken)?;
    removed(state, entry).map_err(broken)?;
    added(state, entry).map_err(broken)
}

/// An entry has what its kind has, and nothing else.
///
/// | kind | stream | ranges | files added | files removed | origin |
/// | --- | --- | --- | --- | --- | --- |
/// | archive | yes | some | any | none | none |
/// | renewal | yes | some | none | none | none |
/// | compaction | – | none | any | all of its months | none |
/// | addition | none | none | at least one | none | yes |
/// | erasure | none | none | any | all of its months | yes |
/// | seed | none | none | any | none | yes; also what it takes over, and number 0 |
fn kind(entry: &Entry) -> Result<(), &'static str> {
    if entry.kind.reads_shards() && entry.stream.is_none() {
        return Err("it names no stream");
    }
    match entry.kind {
        Kind::Compaction if !entry.ranges.is_empty() => return Err("a compaction reads no shard"),
        Kind::Addition | Kind::Erasure | Kind::Seed if !entry.ranges.is_empty() || entry.stream.is_some() => {
            return Err("an addition, an erasure or a seed reads no stream");
        }
        Kind::Seed if entry.n > 0 => return Err("a seed can only be the first entry"),
        Kind::Renewal if !entry.added.is_empty() => return Err("a renewal adds no file"),
        Kind::Addition if entry.added.is_empty() => return Err("an addition adds no file"),
        _ => {}
    }
    let removes = !entry.removed.is_empty() || !entry.versions.is_empty();
    if removes && !entry.kind.replaces() {
        return Err("only a compaction or an erasure removes files");
    }
    if entry.seed.is_some() != (entry.kind == Kind::Seed) {
        return Err("a seed, and nothing else, takes over how far shards were read");
    }
    let origin = entry.origin.as_deref();
    match (origin, matches!(entry.kind, Kind::Addition | Kind::Erasure | Kind::Seed)) {
        (None, false) => Ok(()),
        (None, true) => Err("it does not say where its rows come from"),
        (Some(_), false) => Err("only an addition, an erasure or a seed has an origin"),
        (Some(text), true) if text.trim().is_empty() || text.chars().any(char::is_control) => {
            Err("its origin is empty or no line of text")
        }
        (Some(_), true) => Ok(()),
    }
}

/// No text, list or file is larger than any that is written.
fn sizes(entry: &Entry) -> Result<(), &'static str> {
    if entry.definition.len() > MAX_NAME || entry.stream.as_ref().is_some_and(|stream| stream.arn.len() > MAX_ARN) {
        return Err("its definition's hash or its stream's ARN is too long");
    }
    if entry.origin.as_ref().is_some_and(|origin| origin.len() > MAX_ORIGIN) {
        return Err("its origin is too long");
    }
    if entry.ranges.iter().any(|range| range.parents.len() > MAX_PARENTS) {
        return Err("a shard has more than two parents");
    }
    if let Some(seed) = &entry.seed {
        let arns = seed.streams.keys().chain(seed.lost.iter().map(|hole| &hole.stream)).map(|stream| stream.arn.len());
        if arns.max().is_some_and(|longest| longest > MAX_ARN) {
            return Err("the ARN of a stream that it takes over is too long");
        }
    }
    for file in &entry.added {
        let groups = [&file.first_group, &file.last_group];
        if groups.into_iter().flatten().any(|group| group.len() > MAX_GROUP) {
            return Err("a file's group is too long");
        }
        let sums = &file.fingerprint.sums;
        if sums.len() > MAX_SUMS || sums.keys().any(|column| column.len() > MAX_NAME) {
            return Err("a file's fingerprint has too many sums");
        }
        if file.bytes > MAX_FILE {
            return Err("a file is larger than any that can be copied");
        }
    }
    Ok(())
}

/// The ranges tile, parents are read to their end before their children, and every record is accounted for.
fn ranges(state: &State, entry: &Entry) -> Result<(), String> {
    let known = entry.stream.as_ref().and_then(|stream| state.stream(stream)).map(|end| &end.shards);
    let mut here: BTreeMap<&ShardId, bool> = BTreeMap::new();
    let mut rows = 0u64;
    for range in &entry.ranges {
        let shard = &range.shard;
        if here.contains_key(shard) {
            return Err(format!("shard {shard} stands in it twice"));
        }
        continues(range, known.and_then(|shards| shards.get(shard)))?;
        for parent in &range.parents {
            // A parent that is in no entry is one that logs of earlier versions did not name: it had expired before anybody read it.
            let closed = here.get(parent).copied().or_else(|| known?.get(parent).map(|end| end.closed));
            if closed == Some(false) && !bugs::on(Bug::ChildrenBeforeParents) {
                return Err(format!("shard {shard} is read before its parent {parent} is closed"));
            }
        }
        let parts = [range.duplicates, range.conflicts, range.quarantined];
        let sum = parts.into_iter().try_fold(range.rows, u64::checked_add);
        if sum != Some(range.records) {
            return Err(format!("of the {} records of shard {shard} not all are accounted for", range.records));
        }
        rows = rows.checked_add(range.rows).ok_or("it has too many rows")?;
        here.insert(shard, range.closed);
    }
    let in_files = entry.added.iter().try_fold(0u64, |sum, file| sum.checked_add(file.rows));
    if entry.kind.reads_shards() && in_files != Some(rows) {
        return Err(format!("its ranges gave {rows} rows, its files have another number"));
    }
    Ok(())
}

/// | shard before | `from` must be | `to` |
/// | --- | --- | --- |
/// | never read | absent | beyond it if records were read, else absent |
/// | read to t | t | beyond t if records were read, else t |
/// | closed | – | refused |
fn continues(range: &ShardRange, before: Option<&ShardEnd>) -> Result<(), String> {
    let shard = &range.shard;
    if before.is_some_and(|end| end.closed) {
        return Err(format!("shard {shard} was closed before"));
    }
    if range.from.as_ref() != before.and_then(|end| end.to.as_ref()) && !bugs::on(Bug::RangesOverlap) {
        return Err(format!("the range of shard {shard} does not begin where the last one ended"));
    }
    // No number at all is below every number.
    let moved = range.to > range.from;
    if moved != (range.records > 0) || (!moved && range.from != range.to) {
        return Err(format!("the range of shard {shard} does not fit its {} records", range.records));
    }
    Ok(())
}

/// What is removed is live, and is all that is live in the months that get a new version.
fn removed(state: &State, entry: &Entry) -> Result<(), String> {
    let mut gone: BTreeSet<&str> = BTreeSet::new();
    for target in &entry.removed {
        if state.find(target).is_none() {
            return Err(format!("{} is removed, but it is not live", shortened(target)));
        }
        if !gone.insert(target) {
            return Err(format!("{target} is removed twice"));
        }
    }
    for (month, version) in &entry.versions {
        if *version != entry.n {
            return Err(format!("month {month} gets version {version}, not the entry's number"));
        }
    }
    let of = |month: &Month| state.files.get(month).into_iter().flat_map(BTreeMap::keys);
    let all: BTreeSet<&str> = entry.versions.keys().flat_map(of).map(String::as_str).collect();
    if gone != all {
        return Err("it does not remove just the live files of the months that get a new version".into());
    }
    if entry.kind.replaces() {
        let mut change: BTreeMap<Month, (Fingerprint, Fingerprint)> = BTreeMap::new();
        let too_large = || "its sums do not fit".to_owned();
        for file in gone.iter().filter_map(|target| state.find(target)).map(|live| &live.file) {
            change.entry(file.month).or_default().0.add(&file.fingerprint).ok_or_else(too_large)?;
        }
        for file in &entry.added {
            change.entry(file.month).or_default().1.add(&file.fingerprint).ok_or_else(too_large)?;
        }
        let erases = entry.kind == Kind::Erasure;
        let kept = |before: &Fingerprint, after: &Fingerprint| match erases {
            true => count_the_same(before, after),
            false => are_the_same(before, after),
        };
        if let Some((month, _)) = change.iter().find(|(_, (before, after))| !kept(before, after)) {
            let what = if erases { "do not count as those" } else { "are not those" };
            return Err(format!("the rows of month {month} {what} that it removes"));
        }
    }
    Ok(())
}

/// Whether these are the same rows. Files of format 1 do not say what their rows count; one that is written anew does.
fn are_the_same(before: &Fingerprint, after: &Fingerprint) -> bool {
    let counts = before.counts.is_none() || before.counts == after.counts;
    counts && (before.rows, before.hash, &before.sums) == (after.rows, after.hash, &after.sums)
}

/// Whether these rows give every total the same, though they may have lost what no total depends on. Of files of format 1
/// this cannot be said: they must be compacted before anything is erased from them.
fn count_the_same(before: &Fingerprint, after: &Fingerprint) -> bool {
    before.counts.is_some() && (before.rows, before.counts, &before.sums) == (after.rows, after.counts, &after.sums)
}

/// What is added has the names that its place in the log gives it.
fn added(state: &State, entry: &Entry) -> Result<(), String> {
    let (mut targets, mut sources, mut months) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for file in &entry.added {
        let AddedFile { source, target, month, .. } = file;
        let name = names::parse_target(target).ok_or_else(|| format!("{} is no target", shortened(target)))?;
        let version = entry.versions.get(month).copied().unwrap_or_else(|| state.version(*month));
        if name != (names::Target { month: *month, version, n: entry.n }) {
            return Err(format!("{target} is not a name for month {month}, version {version}, entry {}", entry.n));
        }
        let taken_over = entry.kind.replaces() && entry.removed.contains(source);
        if !taken_over && names::staged_base(source) != Some(entry.base) {
            return Err(format!("{} is not a source of a plan with base {}", shortened(source), entry.base));
        }
        if !targets.insert(target) || !sources.insert(source) {
            return Err(format!("{target} is added twice, or its source is used twice"));
        }
        if !months.insert(month) && !entry.kind.replaces() && entry.kind != Kind::Seed {
            return Err(format!("month {month} gets two files"));
        }
        if entry.kind.replaces() && !entry.versions.contains_key(month) {
            return Err(format!("month {month} gets a file but no version"));
        }
        let ordered = file.first_key <= file.last_key && file.first_group <= file.last_group;
        if file.rows == 0 || file.rows != file.fingerprint.rows || file.fingerprint.erased > file.rows || !ordered {
            return Err(format!("what it says about {target} contradicts itself"));
        }
    }
    Ok(())
}

fn shortened(name: &str) -> String {
    name.chars().take(120).collect()
}
