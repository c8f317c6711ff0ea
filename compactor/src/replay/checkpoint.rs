//! How far a replay is: kept before anything is sent, and after each window of records that the target acknowledged.
//!
//! It is a file, or an object `replays/<hash of the question>.json`. With it stands what the replay is pinned to: the positions up to
//! which the archive was read when it began. So a replay that goes on days later sends what it would have sent, although the
//! archive has grown, or was compacted, since. So does the life of the stream that it goes into: a stream that was deleted and made anew
//! has nothing of what was sent, whatever its name.
//!
//! What it says of itself is not taken on trust: it must agree with itself here, and with the archive's rows when it is taken up
//! ([`run`](super::run)).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use recount_schemas::{SequenceNumber, ShardId, bounded};
use serde::{Deserialize, Serialize};

use super::ReplayError;
use super::question::Question;
use crate::bucket::Objects;
use crate::log::{ShardEnd, State, Stream};

/// The format that this code writes, and the newest that it reads.
pub const FORMAT: u32 = 2;
/// Where checkpoints are kept in the bucket.
pub const PREFIX: &str = "replays/";
/// The largest checkpoint, in bytes: some 100,000 shards.
const MAX_BYTES: usize = 32 << 20;

/// Shards, and the last record of each.
pub type Reach = BTreeMap<ShardId, SequenceNumber>;

/// Which rows a pass over the archive sends: those up to `upto` and, in the first pass, those beside the stream; not those up to
/// `after`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// What was sent before; `None` in the first pass.
    pub after: Option<Reach>,
    /// How far the archive had been read.
    pub upto: Reach,
}

impl Round {
    /// Whether it has the row that stood there.
    pub fn has(&self, shard: &ShardId, sequence: &SequenceNumber) -> bool {
        if shard.is_beside_the_stream() {
            return self.after.is_none();
        }
        let within = |reach: &Reach| reach.get(shard).is_some_and(|to| sequence <= to);
        within(&self.upto) && !self.after.as_ref().is_some_and(within)
    }
}

/// Where the replay is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Phase {
    /// In the archive's rows.
    Archive {
        /// The [`SortKey`](super::order::SortKey) of the last row that was acknowledged, as hexadecimal digits.
        last: Option<String>,
        /// How many rows of this pass there are to send.
        rows: u64,
        /// How many of them have been.
        sent: u64,
    },
    /// In the live stream.
    Live,
    /// At its end.
    Done,
}

/// How far a replay is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// [`FORMAT`].
    pub format: u32,
    /// What was asked.
    pub question: Question,
    /// Where it is.
    pub phase: Phase,
    /// The pass over the archive that it makes, or made last.
    pub round: Round,
    /// How many passes over the archive it has made, this one among them.
    pub rounds: u32,
    /// The life of the live stream that `ends` are positions of.
    pub stream: Option<Stream>,
    /// How far each of its shards was archived and then forwarded.
    pub ends: BTreeMap<ShardId, ShardEnd>,
    /// Rows sent, in all passes.
    pub sent: u64,
    /// Records forwarded from the live stream.
    pub forwarded: u64,
    /// When the stream that it goes into was created, ms since 1970; `None` in a checkpoint of the first format, which did not say it.
    #[serde(default)]
    pub into_created_ms: Option<i64>,
    /// Rows of the passes that are through that could not be sent: part of their record was erased, or never kept.
    #[serde(default)]
    pub incomplete: u64,
    /// The event IDs of the first of them.
    #[serde(default)]
    pub incomplete_ids: Vec<String>,
}

impl Checkpoint {
    /// Of a replay into a stream of this creation time that begins with the archive as it is in `state`, and with `stream` for the
    /// live one.
    pub fn begin(question: Question, into_created_ms: i64, state: &State, stream: Option<Stream>) -> Self {
        let mut new = Self {
            format: FORMAT,
            question,
            phase: Phase::Archive { last: None, rows: 0, sent: 0 },
            round: Round { after: None, upto: Reach::new() },
            rounds: 0,
            stream: None,
            ends: BTreeMap::new(),
            sent: 0,
            forwarded: 0,
            into_created_ms: Some(into_created_ms),
            incomplete: 0,
            incomplete_ids: Vec::new(),
        };
        new.pin(None, state, stream);
        new
    }

    /// Begins another pass over the archive, behind everything that was sent.
    pub fn again(&mut self, state: &State, stream: Option<Stream>) {
        let mut after = self.round.upto.clone();
        let forwarded = self.ends.iter().filter_map(|(shard, end)| Some((shard.clone(), end.to.clone()?)));
        for (shard, to) in forwarded {
            raise(&mut after, shard, to);
        }
        self.phase = Phase::Archive { last: None, rows: 0, sent: 0 };
        self.pin(Some(after), state, stream);
    }

    /// What in it cannot be; `None` where it agrees with itself.
    fn contradiction(&self) -> Option<&'static str> {
        let first = self.rounds == 1;
        match &self.phase {
            _ if self.rounds == 0 || first != self.round.after.is_none() => Some("the number of its passes"),
            Phase::Archive { sent, rows, .. } if sent > rows => Some("more was sent than there was"),
            Phase::Archive { last: None, sent: 1.., .. } => Some("something was sent, and nothing was the last of it"),
            Phase::Archive { sent, .. } if self.sent < *sent || (first && self.sent != *sent) => {
                Some("what was sent in all is not what the passes sent")
            }
            Phase::Archive { .. } if first && self.forwarded > 0 => Some("the live stream came before the archive"),
            Phase::Live if !self.question.hand_over => Some("it is in the live stream, which was not asked for"),
            Phase::Done if self.question.hand_over => Some("it is at its end, and a hand-over has none"),
            _ => None,
        }
    }

    fn pin(&mut self, after: Option<Reach>, state: &State, stream: Option<Stream>) {
        let mut upto = Reach::new();
        // A stream made anew repeats shard ids, with greater numbers.
        let ends = state.streams.values().flat_map(|end| &end.shards);
        for (shard, to) in ends.filter_map(|(shard, end)| Some((shard.clone(), end.to.clone()?))) {
            raise(&mut upto, shard, to);
        }
        self.round = Round { after, upto };
        self.rounds += 1;
        let ends = stream.as_ref().and_then(|stream| state.stream(stream));
        self.ends = ends.map(|end| end.shards.clone()).unwrap_or_default();
        self.stream = stream;
    }
}

fn raise(reach: &mut Reach, shard: ShardId, to: SequenceNumber) {
    let known = reach.entry(shard).or_insert_with(|| to.clone());
    if *known < to {
        *known = to;
    }
}

/// Where a checkpoint is kept.
#[derive(Debug, Clone)]
pub enum Store<O> {
    /// In a file.
    File(PathBuf),
    /// In the bucket, under this name.
    Object(O, String),
}

impl<O: Objects> Store<O> {
    /// The file, or the object of that question.
    pub fn new(file: Option<PathBuf>, objects: O, question: &Question) -> Result<Self, ReplayError> {
        Ok(match file {
            Some(path) => Self::File(path),
            None => {
                let hash = question.hash().map_err(std::io::Error::other)?;
                Self::Object(objects, format!("{PREFIX}{hash}.json"))
            }
        })
    }

    /// Its name.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Object(_, key) => key.clone(),
        }
    }

    fn bad(&self, why: impl std::fmt::Display) -> ReplayError {
        ReplayError::Checkpoint { name: self.name(), why: why.to_string() }
    }

    /// The checkpoint, if there is one; it must be of this question.
    pub async fn read(&self, question: &Question) -> Result<Option<Checkpoint>, ReplayError> {
        let bytes = match self {
            Self::Object(objects, key) => objects.get(key, MAX_BYTES as u64).await?,
            Self::File(path) => match File::open(path) {
                Ok(file) => Some(Bytes::from(bounded::bytes(file, MAX_BYTES).map_err(|error| self.bad(error))?)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(self.bad(error)),
            },
        };
        let Some(bytes) = bytes else { return Ok(None) };
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(&bytes).map_err(|error| self.bad(error))?;
        if format > FORMAT {
            return Err(self.bad(format_args!("it has format {format}, this program reads up to {FORMAT}")));
        }
        let kept: Checkpoint = serde_json::from_slice(&bytes).map_err(|error| self.bad(error))?;
        if kept.question != *question {
            return Err(self.bad("it is another replay's; name another file, or ask the same"));
        }
        if let Some(what) = kept.contradiction() {
            return Err(
                self.bad(format_args!("it contradicts itself ({what}); it was changed. Delete it to begin anew"))
            );
        }
        Ok(Some(kept))
    }

    /// Keeps it. A file is replaced as a whole: a crash leaves the one before.
    pub async fn keep(&self, checkpoint: &Checkpoint) -> Result<(), ReplayError> {
        let bytes = serde_json::to_vec(checkpoint).map_err(std::io::Error::other)?;
        match self {
            Self::Object(objects, key) => Ok(objects.put(key, Bytes::from(bytes)).await?),
            Self::File(path) => {
                let write = || {
                    let mut beside = path.clone().into_os_string();
                    beside.push(".new");
                    let mut file = File::create(&beside)?;
                    file.write_all(&bytes)?;
                    file.sync_data()?;
                    std::fs::rename(&beside, path)
                };
                write().map_err(|error| self.bad(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::memory::Memory;
    use crate::log::state::StreamEnd;

    fn shard(text: &str) -> ShardId {
        text.parse().unwrap()
    }

    fn number(n: u64) -> SequenceNumber {
        n.to_string().parse().unwrap()
    }

    fn stream(created_ms: i64) -> Stream {
        Stream { arn: "arn".to_owned(), created_ms }
    }

    /// A shard: its name, its last record, whether it is closed.
    type End = (&'static str, u64, bool);

    fn state(lives: &[(i64, &[End])]) -> State {
        let mut state = State::default();
        for (created_ms, shards) in lives {
            let end = |(name, to, closed): &End| {
                (shard(name), ShardEnd { to: Some(number(*to)), closed: *closed, caught_up_ms: None })
            };
            let end = StreamEnd { retention_hours: None, shards: shards.iter().map(end).collect() };
            state.streams.insert(stream(*created_ms), end);
        }
        state
    }

    fn question() -> Question {
        Question { from_us: None, to_us: None, group: None, into: "s".to_owned(), hand_over: true }
    }

    #[test]
    fn a_pass_has_what_the_archive_had_and_was_not_sent_before() {
        let before = state(&[(1, &[("a", 9, true)]), (2, &[("a", 20, false), ("b", 5, false)])]);
        let mut checkpoint = Checkpoint::begin(question(), 5, &before, Some(stream(2)));
        let has = |checkpoint: &Checkpoint, name: &str, n| checkpoint.round.has(&shard(name), &number(n));
        for (name, n, expected) in
            [("a", 1, true), ("a", 20, true), ("a", 21, false), ("b", 5, true), ("c", 1, false), ("relay-1", 9, true)]
        {
            assert_eq!(has(&checkpoint, name, n), expected, "{name} {n}");
        }
        assert_eq!(checkpoint.ends.len(), 2, "positions are those of the stream's present life");
        // The live stream was forwarded to 30 on one shard; then a pass over the archive follows.
        checkpoint.ends.get_mut(&shard("a")).unwrap().to = Some(number(30));
        let now = state(&[(2, &[("a", 50, false), ("b", 8, true), ("c", 60, false)])]);
        checkpoint.again(&now, Some(stream(2)));
        assert_eq!(checkpoint.rounds, 2);
        for (name, n, expected) in [
            ("a", 30, false),
            ("a", 31, true),
            ("a", 50, true),
            ("a", 51, false),
            ("b", 5, false),
            ("b", 6, true),
            ("c", 1, true),
            ("relay-1", 9, false),
        ] {
            assert_eq!(has(&checkpoint, name, n), expected, "{name} {n}");
        }
    }

    #[tokio::test]
    async fn it_is_kept_and_read_again_and_only_by_the_same_question() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Memory::new();
        let state = state(&[(1, &[("a", 9, true)])]);
        for store in [
            Store::new(Some(dir.path().join("c.json")), objects.clone(), &question()).unwrap(),
            Store::new(None, objects.clone(), &question()).unwrap(),
        ] {
            assert_eq!(store.read(&question()).await.unwrap(), None);
            let mut checkpoint = Checkpoint::begin(question(), 5, &state, None);
            store.keep(&checkpoint).await.unwrap();
            checkpoint.phase = Phase::Archive { last: Some("00ff".to_owned()), rows: 3, sent: 2 };
            checkpoint.sent = 2;
            store.keep(&checkpoint).await.unwrap();
            assert_eq!(store.read(&question()).await.unwrap(), Some(checkpoint));
            let other = Question { into: "t".to_owned(), ..question() };
            let error = store.read(&other).await.unwrap_err();
            assert!(
                error.to_string().ends_with("it is another replay's; name another file, or ask the same"),
                "{error}"
            );
        }
        assert_eq!(objects.keys("replays/").len(), 1);
        for spoilt in ["", "{}", r#"{"format":99}"#, r#"{"format":2}"#] {
            std::fs::write(dir.path().join("c.json"), spoilt).unwrap();
            let store = Store::new(Some(dir.path().join("c.json")), objects.clone(), &question()).unwrap();
            assert!(matches!(store.read(&question()).await, Err(ReplayError::Checkpoint { .. })), "{spoilt}");
        }
    }

    #[tokio::test]
    async fn one_that_was_changed_is_refused() {
        let objects = Memory::new();
        let store = Store::new(None, objects.clone(), &question()).unwrap();
        let archived = |last: Option<&str>, rows, sent| Phase::Archive { last: last.map(str::to_owned), rows, sent };
        let begun = Checkpoint::begin(question(), 5, &state(&[(1, &[("a", 9, true)])]), None);
        let half = Checkpoint { phase: archived(Some("00"), 3, 2), sent: 2, ..begun.clone() };
        let again = Round { after: Some(Reach::new()), upto: Reach::new() };
        for (checkpoint, good) in [
            (begun.clone(), true),
            (half.clone(), true),
            (Checkpoint { phase: Phase::Live, sent: 3, forwarded: 7, ..begun.clone() }, true),
            (Checkpoint { rounds: 2, round: again.clone(), sent: 9, forwarded: 7, ..half.clone() }, true),
            (Checkpoint { phase: archived(None, 3, 3), sent: 3, ..begun.clone() }, false),
            (Checkpoint { phase: archived(Some("00"), 3, 4), sent: 4, ..begun.clone() }, false),
            (Checkpoint { sent: 3, ..half.clone() }, false),
            (Checkpoint { forwarded: 1, ..half.clone() }, false),
            (Checkpoint { rounds: 0, ..half.clone() }, false),
            (Checkpoint { rounds: 2, ..half.clone() }, false),
            (Checkpoint { round: again.clone(), ..half.clone() }, false),
            (Checkpoint { rounds: 2, round: again, sent: 1, ..half }, false),
            (Checkpoint { phase: Phase::Done, ..begun }, false),
        ] {
            store.keep(&checkpoint).await.unwrap();
            let read = store.read(&question()).await;
            assert_eq!(read.is_ok(), good, "{checkpoint:?}: {read:?}");
            if let Err(error) = read {
                assert!(error.to_string().contains("it contradicts itself"), "{error}");
            }
        }
    }
}
