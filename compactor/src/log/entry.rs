//! One entry of the log, as it is stored: JSON whose bytes are the same for the same entry.
//!
//! An entry names the stream that it read (the ARN and the creation time: a stream that was deleted and made anew repeats
//! shard ids and may repeat sequence numbers), per shard the range `(from, to]`, the files that it adds and removes, and
//! the SHA-256 of the entry before it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use recount_schemas::{Amount, EventKey, Home, Month, SequenceNumber, ShardId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::LogError;
use super::state::{Hole, StreamEnd, as_pairs};

/// The format of entries that this code writes, and the newest that it reads.
///
/// Format 2 added additions, erasures and seeds, [`Entry::origin`] and [`Fingerprint::counts`].
pub const FORMAT: u32 = 2;
/// The largest entry, in bytes. A commit of 256 MiB over a thousand shards and a hundred months stays far below.
pub const MAX_BYTES: u64 = 16 << 20;

/// SHA-256 of some bytes; in JSON 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// What a hasher that was fed piece by piece came to.
impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = "a SHA-256 is 64 lower-case hexadecimal digits";
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad);
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            let pair = text.get(2 * i..2 * i + 2).ok_or(bad)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It adds what was read from the stream.
    Archive,
    /// It only says again, for each shard, that it is read to its tip.
    Renewal,
    /// It replaces the files of months by fewer, with the same rows.
    Compaction,
    /// It adds rows that no reading of the stream brought: redriven or backfilled ones.
    Addition,
    /// It replaces the files of months by ones whose rows count the same and hold less personal data.
    Erasure,
    /// It begins the log of a set with all that another archive had, judged anew: see [`Seed`].
    Seed,
}

impl Kind {
    /// Whether it says how far shards have been read.
    pub const fn reads_shards(self) -> bool {
        matches!(self, Self::Archive | Self::Renewal)
    }

    /// Whether it replaces all files of months: it adds no event and takes none away.
    pub const fn replaces(self) -> bool {
        matches!(self, Self::Compaction | Self::Erasure)
    }
}

/// One life of a stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Its ARN.
    pub arn: String,
    /// When it was created, ms since 1970: a stream made anew under the same name is another one.
    pub created_ms: i64,
}

/// How far one shard was read by one entry: the records behind `from`, up to and with `to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRange {
    /// The shard.
    pub shard: ShardId,
    /// The shards that it was split or merged from, as ListShards named them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<ShardId>,
    /// The last record of the range before; `None`: from the shard's beginning.
    pub from: Option<SequenceNumber>,
    /// The last record of this range; the same as `from` where nothing was read.
    pub to: Option<SequenceNumber>,
    /// Whether the shard is closed and this is its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// A time at or after which nothing of the shard, or of its children, can have been written without being read: ms
    /// since 1970. `None` where no such time is known.
    pub caught_up_ms: Option<i64>,
    /// The records read = rows + duplicates + conflicts + quarantined.
    pub records: u64,
    /// Those that became rows of the files that this entry adds.
    pub rows: u64,
    /// Those whose event is archived already, or stands in this range before.
    pub duplicates: u64,
    /// Those with an archived event's key and another content: kept under `conflicts/`.
    pub conflicts: u64,
    /// Those that could not be judged: kept under `quarantine/`.
    pub quarantined: u64,
    /// That records may be missing between `from` and the first of this range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
}

/// A hole in what was read: the stream's retention may have passed over records that nobody had read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lost {
    /// The last record known to have been read before the hole.
    pub after: Option<SequenceNumber>,
    /// The first record read behind it.
    pub before: Option<SequenceNumber>,
    /// When the shard was last known to be read to its tip, ms since 1970.
    pub since_ms: Option<i64>,
    /// When the hole was found, ms since 1970.
    pub found_ms: i64,
}

/// The multiset of a file's rows, in a form that adds up: files with the same sum have the same rows.
///
/// The sums of hashes wrap. They are sums and no XOR: under XOR two copies of one row cancel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// The number of rows.
    pub rows: u64,
    /// The sum modulo 2¹²⁸ of 128 bits of BLAKE3 over each row's content hash and event key.
    #[serde(with = "hex128")]
    pub hash: u128,
    /// The sum modulo 2¹²⁸ of 128 bits of BLAKE3 over all of each row that a total depends on, see
    /// [`Counted`](crate::rows::Counted): an erasure changes `hash`, and never this. Absent in entries of format 1.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex128_if_any")]
    pub counts: Option<u128>,
    /// The sum of each measure's column.
    pub sums: BTreeMap<String, Amount>,
    /// How many rows are known to have lost their data: an erasure looks for no more in a file whose rows all have.
    #[serde(default, skip_serializing_if = "is_none")]
    pub erased: u64,
}

fn is_none(number: &u64) -> bool {
    *number == 0
}

mod hex128_if_any {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    struct Hex(#[serde(with = "super::hex128")] u128);

    pub(super) fn serialize<S: Serializer>(value: &Option<u128>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::hex128::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u128>, D::Error> {
        Hex::deserialize(deserializer).map(|hex| Some(hex.0))
    }
}

mod hex128 {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let digits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let value = digits.then(|| u128::from_str_radix(&text, 16).ok()).flatten();
        value.ok_or_else(|| serde::de::Error::custom("expected 32 lower-case hexadecimal digits"))
    }
}

/// The multiset without rows.
impl Default for Fingerprint {
    fn default() -> Self {
        Self { rows: 0, hash: 0, counts: Some(0), sums: BTreeMap::new(), erased: 0 }
    }
}

impl Fingerprint {
    /// Adds another one to this. `None` where a sum does not fit 128 bits: no archive of real measures gets there.
    pub fn add(&mut self, other: &Self) -> Option<()> {
        self.rows = self.rows.checked_add(other.rows)?;
        self.erased = self.erased.checked_add(other.erased)?;
        self.hash = self.hash.wrapping_add(other.hash);
        self.counts = self.counts.zip(other.counts).map(|(all, more)| all.wrapping_add(more));
        for (column, sum) in &other.sums {
            let all = self.sums.entry(column.clone()).or_default();
            *all = all.checked_add(*sum)?;
        }
        Some(())
    }
}

/// A file that an entry adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddedFile {
    /// Where it was uploaded; for a file that a compaction takes over as it is, where it was live.
    pub source: String,
    /// Where readers find it.
    pub target: String,
    /// Its month.
    pub month: Month,
    /// Its rows.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its bytes.
    pub sha256: Digest,
    /// The least event key in it.
    pub first_key: EventKey,
    /// The greatest event key in it.
    pub last_key: EventKey,
    /// The least group in it; absent where all its rows are without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_group: Option<String>,
    /// The greatest group in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_group: Option<String>,
    /// Its rows as a multiset.
    pub fingerprint: Fingerprint,
}

/// What the log of a set takes over from the archive that its rows came from. The set's archive then reads each shard on
/// from where that one stood, as if it had read it itself up to there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// The home of that archive.
    pub from: Home,
    /// The number of its log's entries.
    pub entries: u64,
    /// The SHA-256 of the last of them.
    pub head: Option<Digest>,
    /// How far it had read the shards.
    #[serde(with = "as_pairs")]
    pub streams: BTreeMap<Stream, StreamEnd>,
    /// Every hole that it knew. Their entries are of its log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Hole>,
}

impl Seed {
    /// Whether a record at this place had been read when the log was taken over. What stands beside the stream was: nobody
    /// will read it later.
    pub fn covers(&self, shard: &ShardId, sequence: &SequenceNumber) -> bool {
        let read = |end: &StreamEnd| end.shards.get(shard).is_some_and(|end| Some(sequence) <= end.to.as_ref());
        shard.is_beside_the_stream() || self.streams.values().any(read)
    }
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// [`FORMAT`].
    pub format: u32,
    /// Its number; the log is dense from 0.
    pub n: u64,
    /// What it does.
    pub kind: Kind,
    /// The SHA-256 of the entry before it; `None` for entry 0.
    pub previous: Option<Digest>,
    /// When it was made, ms since 1970, by the clock of who made it.
    pub at_ms: i64,
    /// The hash of the definition that its rows were made under.
    pub definition: String,
    /// The plan's token, new for each plan: lower-case hexadecimal digits.
    pub token: String,
    /// Of an addition, an erasure or a seed: what it comes from, such as `redrive`, `backfill <plan hash>` or `retention`. It holds no
    /// personal data: an entry is never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The SHA-256 of the log folded up to the entry before, in the entry behind each hundredth: what is kept under `_state/` is
    /// used only if it has this digest. So whoever can write there, but not into the log, cannot change what anybody reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folded: Option<Digest>,
    /// The number of entries that the log had when this plan's uploads began: no upload is committed under a number
    /// beyond `base` + [`WINDOW`](super::state::WINDOW).
    pub base: u64,
    /// The stream that it read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    /// The stream's retention when it was read, in hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_hours: Option<u32>,
    /// What it read of each shard, parents before their children.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<ShardRange>,
    /// Of a seed: what it takes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Box<Seed>>,
    /// The files that it adds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<AddedFile>,
    /// The targets of the live files that it removes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// The months that get a new version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<Month, u64>,
}

impl Entry {
    /// Its bytes: the same for the same entry, since members stand in the order of the type and maps are sorted.
    pub fn to_bytes(&self) -> Result<Vec<u8>, LogError> {
        let bytes = serde_json::to_vec(self).map_err(|e| LogError::Malformed { n: self.n, why: e.to_string() })?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(LogError::TooLarge { n: self.n, bytes: bytes.len() as u64 });
        }
        Ok(bytes)
    }

    /// Reads the bytes of entry `n`.
    pub fn from_bytes(n: u64, bytes: &[u8]) -> Result<Self, LogError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let malformed = |why: serde_json::Error| LogError::Malformed { n, why: why.to_string() };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(LogError::TooLarge { n, bytes: bytes.len() as u64 });
        }
        let Format { format } = serde_json::from_slice(bytes).map_err(malformed)?;
        if format > FORMAT {
            return Err(LogError::Newer { n, format });
        }
        serde_json::from_slice(bytes).map_err(malformed)
    }
}
