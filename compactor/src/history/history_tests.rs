use super::*;
use crate::log::entry::{FORMAT, Fingerprint, Kind};
use crate::log::{AddedFile, ShardRange};
use recount_schemas::EventKey;

fn month() -> Month {
    "2026-11".parse().unwrap()
}

fn file(history: &History, i: usize, rows: u64) -> AddedFile {
    let (state, key) = (&history.state, EventKey::from_bytes([7; 16]));
    AddedFile {
        source: names::staged(state.next, "ab", i),
        target: names::target(month(), state.version(month()), state.next, i),
        month: month(),
        rows,
        bytes: 10,
        sha256: Digest::of(b"x"),
        first_key: key,
        last_key: key,
        first_group: None,
        last_group: None,
        fingerprint: Fingerprint { rows, hash: u128::from(rows), ..Fingerprint::default() },
    }
}

fn entry(history: &History, kind: Kind) -> Entry {
    Entry {
        format: FORMAT,
        n: history.state.next,
        kind,
        previous: history.state.head,
        folded: None,
        at_ms: 1_000 + 10 * i64::try_from(history.state.next).unwrap(),
        definition: "d".into(),
        token: "ab".into(),
        origin: (kind == Kind::Addition).then(|| "redrive".to_owned()),
        seed: None,
        base: history.state.next,
        stream: (kind == Kind::Archive).then(|| Stream { arn: "arn".into(), created_ms: 1 }),
        retention_hours: None,
        ranges: Vec::new(),
        added: Vec::new(),
        removed: Vec::new(),
        versions: BTreeMap::new(),
    }
}

fn take(history: &mut History, entry: Entry) {
    let digest = Digest::of(&entry.to_bytes().unwrap());
    history.take(entry, digest, &|_| true).unwrap();
}

/// An entry that read `(from, to]` of a shard.
fn read(history: &mut History, shard: &str, from: Option<u64>, to: u64) {
    let mut next = entry(history, Kind::Archive);
    let sequence = |n: u64| n.to_string().parse().unwrap();
    next.ranges = vec![ShardRange {
        shard: shard.parse().unwrap(),
        parents: vec![],
        from: from.map(sequence),
        to: Some(sequence(to)),
        closed: false,
        caught_up_ms: None,
        records: 3,
        rows: 2,
        duplicates: 0,
        conflicts: 0,
        quarantined: 1,
        lost: None,
    }];
    next.added = vec![file(history, 0, 2)];
    take(history, next);
}

/// A compaction that merges all live files but the last one, which it takes over.
fn compact(history: &mut History) {
    let mut live: Vec<AddedFile> = history.state.live().map(|live| live.file.clone()).collect();
    let n = history.state.next;
    let removed = live.iter().map(|file| file.target.clone()).collect();
    let last = live.pop().unwrap();
    let mut merged = file(history, 0, 0);
    live.iter().for_each(|file| merged.fingerprint.add(&file.fingerprint).unwrap());
    merged.rows = merged.fingerprint.rows;
    merged.target = names::target(month(), n, n, 0);
    let taken_over = AddedFile { source: last.target.clone(), target: names::target(month(), n, n, 1), ..last.clone() };
    let versions = [(month(), n)].into();
    let added = vec![merged, taken_over];
    let compaction = Entry { removed, versions, added, ..entry(history, Kind::Compaction) };
    take(history, compaction);
}

pub(crate) fn told() -> History {
    let mut history = History::default();
    read(&mut history, "a", None, 10);
    read(&mut history, "b", None, 7);
    let added = vec![file(&history, 0, 1)];
    let addition = Entry { added, ..entry(&history, Kind::Addition) };
    take(&mut history, addition);
    read(&mut history, "a", Some(10), 20);
    compact(&mut history);
    history
}

#[test]
fn a_file_is_known_by_the_entries_that_brought_its_rows_also_after_a_compaction() {
    let history = told();
    let of = |i: usize| (*history.origins[&names::target(month(), 4, 4, i)]).clone();
    assert_eq!(of(0), Origins { read: [0, 1].into(), brought: [2].into() });
    assert_eq!(of(1), Origins { read: [3].into(), brought: [].into() });
    assert_eq!(history.origins.len(), 2);
    let first = names::target(month(), 0, 0, 0);
    assert_eq!((history.removed.len(), history.removed[&first].by, history.removed[&first].at_ms), (4, 4, 1_040));
    let merged = history.positions_of(&of(0).read);
    assert!(merged.has("a", "10") && merged.has("b", "7") && !merged.has("a", "11"));
}

#[test]
fn a_position_is_known_by_the_entry_that_read_it() {
    let history = told();
    let by = |shard: &str, sequence: &str| history.reader_of(shard, sequence).map(|(n, _)| n);
    assert_eq!(
        [by("a", "1"), by("a", "10"), by("a", "11"), by("b", "7"), by("b", "8")],
        [Some(0), Some(0), Some(3), Some(1), None]
    );
    for (n, sequence, there) in [(0, "10", true), (0, "11", false), (2, "11", false), (3, "11", true), (99, "20", true)]
    {
        assert_eq!(history.positions_up_to(n).has("a", sequence), there, "{n} {sequence}");
    }
}

#[test]
fn a_time_is_that_of_the_last_entry_made_by_then() {
    let history = told();
    assert_eq!(
        [999, 1_000, 1_019, 1_020, 9_000].map(|at| history.as_of_ms(at)),
        [None, Some(0), Some(1), Some(2), Some(4)]
    );
}

#[test]
fn an_entry_that_does_not_follow_changes_nothing() {
    let mut history = told();
    let before = history.state.clone();
    let bad = Entry { n: 99, ..entry(&history, Kind::Archive) };
    assert!(history.take(bad, Digest::of(b""), &|_| true).is_err());
    assert_eq!((history.state, history.entries.len(), history.origins.len()), (before, 5, 2));
}

#[test]
fn a_seed_has_read_all_that_it_takes_over() {
    use crate::log::state::StreamEnd;
    use crate::log::{Seed, ShardEnd};
    let mut history = History::default();
    let end = |to: &str| ShardEnd { to: Some(to.parse().unwrap()), ..ShardEnd::default() };
    let shards = BTreeMap::from([("s0".parse().unwrap(), end("9")), ("s1".parse().unwrap(), ShardEnd::default())]);
    let stream = Stream { arn: "arn".into(), created_ms: 1 };
    let seed = Seed {
        from: recount_schemas::Home::Base,
        entries: 5,
        head: None,
        streams: BTreeMap::from([(stream, StreamEnd { retention_hours: None, shards })]),
        lost: Vec::new(),
    };
    let entry = Entry { origin: Some("rebuild".into()), seed: Some(Box::new(seed)), ..entry(&history, Kind::Seed) };
    let digest = Digest::of(&entry.to_bytes().unwrap());
    history.take(entry, digest, &|_| false).unwrap();
    let read = history.positions_up_to(0);
    assert!(read.has("s0", "1") && read.has("s0", "9") && !read.has("s0", "10") && !read.has("s1", "1"));
    assert_eq!(history.reader_of("s0", "3").map(|(n, _)| n), Some(0));
}
