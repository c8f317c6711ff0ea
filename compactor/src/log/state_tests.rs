use super::super::entry::{FORMAT, Fingerprint, MAX_BYTES, Seed, ShardRange};
use super::super::names;
use super::*;
use proptest::prelude::*;
use recount_schemas::EventKey;

pub(crate) fn stream() -> Stream {
    Stream { arn: "arn:aws:kinesis:us-east-1:0:stream/s".into(), created_ms: 1 }
}

pub(crate) fn range(shard: &str, from: Option<u64>, to: Option<u64>) -> ShardRange {
    let sequence = |n: Option<u64>| n.map(|n| n.to_string().parse().unwrap());
    let records = if from == to { 0 } else { 1 };
    ShardRange {
        shard: shard.parse().unwrap(),
        parents: vec![],
        from: sequence(from),
        to: sequence(to),
        closed: false,
        caught_up_ms: None,
        records,
        rows: records,
        duplicates: 0,
        conflicts: 0,
        quarantined: 0,
        lost: None,
    }
}

/// A file that the next entry may add to a month.
pub(crate) fn file(state: &State, month: &str, rows: u64, i: usize, version: u64) -> AddedFile {
    let key = EventKey::from_bytes([7; 16]);
    let month = month.parse().unwrap();
    AddedFile {
        source: names::staged(state.next, "ab", i),
        target: names::target(month, version, state.next, i),
        month,
        rows,
        bytes: 10,
        sha256: Digest::of(b"x"),
        first_key: key,
        last_key: key,
        first_group: None,
        last_group: None,
        fingerprint: Fingerprint { rows, hash: u128::from(rows), ..Default::default() },
    }
}

fn entry(state: &State, ranges: Vec<ShardRange>) -> Entry {
    let rows: u64 = ranges.iter().map(|range| range.rows).sum();
    let added = if rows > 0 {
        vec![file(state, "2026-11", rows, 0, state.version("2026-11".parse().unwrap()))]
    } else {
        vec![]
    };
    Entry {
        format: FORMAT,
        n: state.next,
        kind: Kind::Archive,
        previous: state.head,
        folded: None,
        at_ms: 5,
        definition: "d".into(),
        token: "ab".into(),
        origin: None,
        seed: None,
        base: state.next,
        stream: Some(stream()),
        retention_hours: Some(24),
        ranges,
        added,
        removed: vec![],
        versions: BTreeMap::new(),
    }
}

fn compaction(state: &State, month: &str) -> Entry {
    let month = month.parse().unwrap();
    let live: Vec<&LiveFile> = state.live().filter(|live| live.file.month == month).collect();
    let mut sum = Fingerprint::default();
    live.iter().for_each(|live| sum.add(&live.file.fingerprint).unwrap());
    let mut merged = file(state, "2026-11", sum.rows, 0, state.next);
    merged.fingerprint = sum;
    Entry {
        kind: Kind::Compaction,
        stream: None,
        retention_hours: None,
        removed: live.iter().map(|live| live.file.target.clone()).collect(),
        versions: BTreeMap::from([(month, state.next)]),
        added: vec![merged],
        ..entry(state, vec![])
    }
}

fn put(state: &mut State, entry: Entry) -> Result<(), LogError> {
    let bytes = entry.to_bytes().unwrap();
    assert_eq!(Entry::from_bytes(entry.n, &bytes).unwrap(), entry);
    state.apply(entry, Digest::of(&bytes))
}

fn refused(state: &State, change: impl FnOnce(&mut Entry), why: &str) {
    let mut next = entry(state, vec![range("s0", Some(2), Some(3))]);
    change(&mut next);
    let error = state.clone().apply(next, Digest::of(b"")).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

fn two_entries() -> State {
    let mut state = State::default();
    let first = entry(&state, vec![range("s0", None, Some(1))]);
    put(&mut state, first).unwrap();
    let second = entry(&state, vec![range("s0", Some(1), Some(2))]);
    put(&mut state, second).unwrap();
    state
}

#[test]
fn invariant_5_ranges_that_do_not_tile_are_refused() {
    let state = two_entries();
    refused(&state, |e| e.ranges[0] = range("s0", Some(1), Some(3)), "does not begin where the last one ended");
    refused(&state, |e| e.ranges[0] = range("s0", None, Some(3)), "does not begin where the last one ended");
    refused(&state, |e| e.ranges[0] = range("s0", Some(3), Some(4)), "does not begin where the last one ended");
    refused(&state, |e| e.ranges[0] = range("s1", Some(3), Some(4)), "does not begin where the last one ended");
    refused(&state, |e| e.ranges[0].to = Some("1".parse().unwrap()), "does not fit its 1 records");
    refused(&state, |e| e.ranges[0].to = None, "does not fit its 1 records");
    refused(&state, |e| e.ranges[0].records = 0, "does not fit its 0 records");
    for to in [None, Some(1)] {
        let backwards = ShardRange { records: 0, rows: 0, ..range("s0", Some(2), to) };
        refused(&state, |e| e.ranges[0] = backwards, "does not fit its 0 records");
    }
    refused(&state, |e| e.ranges[0].records = 2, "not all are accounted for");
    refused(&state, |e| e.ranges.push(range("s0", Some(3), Some(4))), "stands in it twice");
    refused(&state, |e| e.added.clear(), "its files have another number");
}

#[test]
fn an_entry_with_oversized_parts_is_refused() {
    let state = two_entries();
    let long = || "x".repeat(4_096);
    refused(&state, |e| e.definition = long(), "too long");
    refused(&state, |e| e.stream = Some(Stream { arn: long(), created_ms: 1 }), "too long");
    refused(&state, |e| e.ranges[0].parents = vec!["s9".parse().unwrap(); 3], "more than two parents");
    refused(&state, |e| e.added[0].last_group = Some(long()), "group is too long");
    let sums = |n: usize| (0..n).map(|i| (format!("measure_{i}"), Default::default())).collect();
    refused(&state, |e| e.added[0].fingerprint.sums = sums(9), "too many sums");
    refused(&state, |e| e.added[0].fingerprint.sums = BTreeMap::from([(long(), Default::default())]), "too many sums");
    refused(&state, |e| e.added[0].bytes = u64::MAX, "larger than any");
}

#[test]
fn parts_as_large_as_they_may_be_are_taken_and_no_larger() {
    use check::{MAX_ARN, MAX_FILE, MAX_SUMS};
    let state = two_entries();
    let largest = || {
        let mut next = entry(&state, vec![range("s0", Some(2), Some(3)), range("s1", None, None)]);
        let file = &mut next.added[0];
        next.definition = "d".repeat(80);
        file.bytes = MAX_FILE;
        file.first_group = Some("g".repeat(recount_schemas::fold::MAX_GROUP));
        file.last_group = file.first_group.clone();
        file.fingerprint.sums = (0..MAX_SUMS).map(|i| (format!("{i}{}", "c".repeat(79)), Default::default())).collect();
        next.ranges[1].parents = vec!["s8".parse().unwrap(), "s9".parse().unwrap()];
        next
    };
    state.clone().apply(largest(), Digest::of(b"")).unwrap();
    let too_large: [&dyn Fn(&mut Entry); 6] = [
        &|e| e.definition.push('d'),
        &|e| e.added[0].bytes += 1,
        &|e| e.added[0].first_group = Some("g".repeat(recount_schemas::fold::MAX_GROUP + 1)),
        &|e| {
            e.added[0].fingerprint.sums.insert("c".into(), Default::default());
        },
        &|e| e.added[0].fingerprint.sums = BTreeMap::from([("c".repeat(81), Default::default())]),
        &|e| e.ranges[1].parents.push("s7".parse().unwrap()),
    ];
    for (nth, change) in too_large.iter().enumerate() {
        let mut next = largest();
        change(&mut next);
        assert!(state.clone().apply(next, Digest::of(b"")).is_err(), "{nth}");
    }
    let arn = |length| {
        let mut next = entry(&state, vec![range("s0", None, Some(1))]);
        next.stream = Some(Stream { arn: "a".repeat(length), created_ms: 1 });
        state.clone().apply(next, Digest::of(b"")).is_ok()
    };
    assert!(arn(MAX_ARN) && !arn(MAX_ARN + 1));
}

#[test]
fn each_kind_of_entry_does_what_it_is_for() {
    let state = two_entries();
    refused(&state, |e| e.stream = None, "names no stream");
    refused(&state, |e| e.removed = vec![e.added[0].target.clone()], "only a compaction");
    refused(&state, |e| e.versions = BTreeMap::from([("2026-10".parse().unwrap(), 2)]), "only a compaction");
    let renewal = |change: &dyn Fn(&mut Entry)| {
        let mut next = entry(&state, vec![range("s0", Some(2), Some(2))]);
        next.kind = Kind::Renewal;
        change(&mut next);
        state.clone().apply(next, Digest::of(b"")).map_err(|error| error.to_string())
    };
    renewal(&|_| {}).unwrap();
    let added = file(&state, "2026-11", 1, 0, 0);
    for (change, why) in [
        (&(|e: &mut Entry| e.stream = None) as &dyn Fn(&mut Entry), "names no stream"),
        (&|e: &mut Entry| e.added = vec![added.clone()], "adds no file"),
        (&|e: &mut Entry| e.removed = vec![added.target.clone()], "only a compaction"),
        (&|e: &mut Entry| e.versions = BTreeMap::from([(added.month, 2)]), "only a compaction"),
    ] {
        let error = renewal(change).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn numbers_end_with_their_twelve_digits() {
    let fits = |n| {
        let state = State { next: n, ..State::default() };
        check::follows(&state, &entry(&state, vec![range("s0", None, None)])).is_ok()
    };
    assert!(fits(names::MAX_NUMBER) && !fits(names::MAX_NUMBER + 1));
}

#[test]
fn a_child_follows_its_closed_parents() {
    let mut state = two_entries();
    let child = || ShardRange { parents: vec!["s0".parse().unwrap()], ..range("s1", None, Some(9)) };
    refused(&state, |e| e.ranges[0] = child(), "before its parent s0 is closed");
    let closing = ShardRange { closed: true, ..range("s0", Some(2), Some(2)) };
    let both = entry(&state, vec![closing, child()]);
    put(&mut state, both).unwrap();
    refused(&state, |e| e.ranges[0] = range("s0", Some(2), Some(3)), "was closed before");
    let unknown = ShardRange { parents: vec!["s9".parse().unwrap()], ..range("s2", None, Some(1)) };
    let next = entry(&state, vec![unknown]);
    put(&mut state, next).unwrap();
}

#[test]
fn a_stream_made_anew_is_another_stream() {
    let mut state = two_entries();
    let mut next = entry(&state, vec![range("s0", None, Some(1))]);
    next.stream = Some(Stream { created_ms: 2, ..stream() });
    put(&mut state, next).unwrap();
    assert_eq!(state.streams.len(), 2);
}

#[test]
fn the_chain_is_checked() {
    let state = two_entries();
    refused(&state, |e| e.n = 3, "number 2 is expected");
    refused(&state, |e| e.n = 1, "number 2 is expected");
    refused(&state, |e| e.previous = Some(Digest::of(b"?")), "does not hold the digest");
    refused(&state, |e| e.previous = None, "does not hold the digest");
    refused(&state, |e| e.format = FORMAT + 1, "use a newer one");
    refused(&state, |e| e.token = "../x".into(), "token");
    refused(&state, |e| e.base = 3, "planned when the log had 3 entries");
}

#[test]
fn a_plan_older_than_the_window_is_refused() {
    let mut state = two_entries();
    state.next = WINDOW;
    let fits = |base| {
        let mut next = entry(&state, vec![range("s0", Some(2), Some(2))]);
        next.base = base;
        check::follows(&state, &next).is_ok()
    };
    assert!(!fits(0) && fits(1), "entry 64 is 64 beyond head 0, and 65 beyond an empty log");
}

#[test]
fn names_are_those_that_the_place_in_the_log_gives() {
    let state = two_entries();
    refused(&state, |e| e.added[0].target = "_log/000000000002.json".into(), "_log/000000000002.json is no target");
    refused(&state, |e| e.added[0].target = "é".repeat(9_999), &format!(": {} is no target", "é".repeat(120)));
    refused(&state, |e| e.added[0].source = "events/x".into(), "is not a source");
    refused(&state, |e| e.added[0].source = names::staged(0, "ab", 0), "is not a source");
    refused(&state, |e| e.added[0].target = names::target("2026-11".parse().unwrap(), 1, 2, 0), "is not a name for");
    refused(&state, |e| e.added[0].month = "2026-10".parse().unwrap(), "is not a name for");
    refused(&state, |e| e.added[0].fingerprint.rows = 9, "contradicts itself");
    refused(&state, |e| e.added[0].first_key = EventKey::MAX, "contradicts itself");
    refused(&state, |e| e.added[0].first_group = Some("a".into()), "contradicts itself");
    let empty = |e: &mut Entry| {
        let file = file(&two_entries(), "2026-10", 0, 1, 0);
        e.added.push(file);
    };
    refused(&state, empty, "contradicts itself");
    let twice = |e: &mut Entry| {
        let again = e.added[0].clone();
        e.ranges[0].rows = 2;
        e.ranges[0].records = 2;
        e.added.push(again);
    };
    refused(&state, twice, "is added twice");
    let one_source = |e: &mut Entry| {
        twice(e);
        e.added[1].target = names::target(e.added[1].month, 0, 2, 1);
    };
    refused(&state, one_source, "its source is used twice");
    let double = |e: &mut Entry| {
        let mut second = e.added[0].clone();
        second.target = names::target(second.month, 0, 2, 1);
        second.source = names::staged(2, "ab", 1);
        e.ranges[0].rows = 2;
        e.ranges[0].records = 2;
        e.added.push(second);
    };
    refused(&state, double, "gets two files");
}

#[test]
fn invariant_7_a_compaction_keeps_the_rows_and_takes_the_whole_month() {
    let mut state = two_entries();
    let broken = |change: &dyn Fn(&mut Entry)| {
        let mut next = compaction(&state, "2026-11");
        change(&mut next);
        state.clone().apply(next, Digest::of(b"")).unwrap_err().to_string()
    };
    assert!(broken(&|e| e.added[0].fingerprint.hash += 1).contains("are not those that it removes"));
    assert!(broken(&|e| drop(e.removed.pop())).contains("just the live files"));
    assert!(broken(&|e| e.removed[0] = names::target("2026-11".parse().unwrap(), 0, 9, 0)).contains("not live"));
    assert!(
        broken(&|e| e.versions = BTreeMap::from([("2026-11".parse().unwrap(), 1)])).contains("not the entry's number")
    );
    assert!(broken(&|e| e.removed[0] = e.removed[1].clone()).contains("removed twice"));
    assert!(broken(&|e| e.ranges = vec![range("s0", Some(2), Some(2))]).contains("reads no shard"));
    assert!(broken(&|e| e.added[0].source = "events/x".into()).contains("is not a source"));
    let elsewhere = |e: &mut Entry| e.added = vec![file(&state, "2026-10", 2, 0, 0)];
    assert!(broken(&elsewhere).contains("are not those that it removes"));
    // Two files may stay two: one is written anew, one is taken over as it is.
    let mut two = compaction(&state, "2026-11");
    let live: Vec<AddedFile> = state.live().map(|live| live.file.clone()).collect();
    two.added = live.clone();
    (two.added[0].source, two.added[0].target) = (names::staged(2, "ab", 0), names::target(live[0].month, 2, 2, 0));
    (two.added[1].source, two.added[1].target) = (live[1].target.clone(), names::target(live[1].month, 2, 2, 1));
    check::follows(&state, &two).unwrap();
    let next = compaction(&state, "2026-11");
    put(&mut state, next).unwrap();
    assert_eq!((state.live().count(), state.version("2026-11".parse().unwrap())), (1, 2));
    assert!(state.last_is_compaction() && !two_entries().last_is_compaction());
    // What is archived next goes into the new version; a removed file stays removed.
    let next = entry(&state, vec![range("s0", Some(2), Some(3))]);
    put(&mut state, next).unwrap();
    assert!(state.find("events/month=2026-11/000000000002/000000000003-0.parquet").is_some());
    assert!(state.find("events/month=2026-11/000000000000/000000000001-0.parquet").is_none());
}

fn addition(state: &State) -> Entry {
    let origin = Some("redrive".to_owned());
    let added = vec![file(state, "2026-10", 3, 0, state.version("2026-10".parse().unwrap()))];
    Entry { kind: Kind::Addition, stream: None, retention_hours: None, origin, added, ..entry(state, vec![]) }
}

#[test]
fn an_addition_brings_rows_that_no_range_accounts_for() {
    let mut state = two_entries();
    let broken = |change: &dyn Fn(&mut Entry)| {
        let mut next = addition(&state);
        change(&mut next);
        state.clone().apply(next, Digest::of(b"")).unwrap_err().to_string()
    };
    assert!(broken(&|e| e.ranges = vec![range("s0", Some(2), Some(3))]).contains("reads no stream"));
    assert!(broken(&|e| e.stream = Some(stream())).contains("reads no stream"));
    assert!(broken(&|e| e.added.clear()).contains("adds no file"));
    let live = state.live().next().unwrap().file.target.clone();
    assert!(broken(&|e| e.removed = vec![live.clone()]).contains("only a compaction or an erasure"));
    assert!(broken(&|e| e.versions = BTreeMap::from([(e.added[0].month, e.n)])).contains("only a compaction"));
    for origin in ["", " ", "two\nlines"] {
        assert!(broken(&|e| e.origin = Some(origin.to_owned())).contains("no line of text"), "{origin:?}");
    }
    assert!(broken(&|e| e.origin = None).contains("does not say where"));
    assert!(broken(&|e| e.origin = Some("x".repeat(check::MAX_ORIGIN + 1))).contains("origin is too long"));
    let second = |e: &mut Entry| e.added.push(file(&state, "2026-10", 1, 1, 0));
    assert!(broken(&second).contains("gets two files"));
    refused(&state, |e| e.origin = Some("x".into()), "only an addition, an erasure or a seed");
    let mut next = addition(&state);
    next.origin = Some("x".repeat(check::MAX_ORIGIN));
    put(&mut state, next).unwrap();
    let rows: u64 = state.live().map(|live| live.file.rows).sum();
    assert_eq!((rows, state.streams.len()), (5, 1));
}

#[test]
fn invariant_7_an_erasure_keeps_what_counts() {
    let mut state = two_entries();
    let erasure = |state: &State| {
        let mut next = compaction(state, "2026-11");
        (next.kind, next.origin) = (Kind::Erasure, Some("erase 0af1".to_owned()));
        next.added[0].fingerprint.hash ^= 1; // what was erased was part of the content
        next
    };
    let broken = |change: &dyn Fn(&mut Entry)| {
        let mut next = erasure(&state);
        change(&mut next);
        state.clone().apply(next, Digest::of(b"")).unwrap_err().to_string()
    };
    let differs = "do not count as those that it removes";
    assert!(broken(&|e| e.added[0].fingerprint.counts = Some(1)).contains(differs));
    assert!(broken(&|e| e.added[0].fingerprint.counts = None).contains(differs));
    assert!(broken(&|e| _ = e.added[0].fingerprint.sums.insert("x".into(), Default::default())).contains(differs));
    let fewer = |e: &mut Entry| (e.added[0].rows, e.added[0].fingerprint.rows) = (1, 1);
    assert!(broken(&fewer).contains(differs));
    assert!(broken(&|e| drop(e.removed.pop())).contains("just the live files"));
    assert!(broken(&|e| e.origin = None).contains("does not say where"));
    assert!(broken(&|e| e.kind = Kind::Compaction).contains("has an origin"));
    let as_compaction = |e: &mut Entry| (e.kind, e.origin) = (Kind::Compaction, None);
    assert!(broken(&as_compaction).contains("are not those that it removes"));
    // Of files written by format 1 nobody can say what they count.
    let mut older = State::default();
    let mut first = entry(&older, vec![range("s0", None, Some(1))]);
    first.added[0].fingerprint.counts = None;
    put(&mut older, first).unwrap();
    let unknown = older.clone().apply(erasure(&older), Digest::of(b"")).unwrap_err().to_string();
    assert!(unknown.contains(differs));
    let mut merged = compaction(&older, "2026-11");
    merged.added[0].fingerprint.counts = Some(9);
    put(&mut older, merged).unwrap();
    let mut erased = erasure(&older);
    erased.added[0].fingerprint.counts = Some(9);
    put(&mut older, erased).unwrap();

    let next = erasure(&state);
    put(&mut state, next).unwrap();
    assert_eq!((state.live().count(), state.version("2026-11".parse().unwrap())), (1, 2));
}

#[test]
fn entries_of_format_1_are_read() {
    let text = r#"{"format":1,"n":0,"kind":"archive","previous":null,"at_ms":5,"definition":"d","token":"ab","base":0,"stream":{"arn":"arn:aws:kinesis:us-east-1:0:stream/s","created_ms":1},"retention_hours":24,"ranges":[{"shard":"s0","from":null,"to":"7","caught_up_ms":4,"records":1,"rows":1,"duplicates":0,"conflicts":0,"quarantined":0}],"added":[{"source":"_staging/000000000000-ab/0","target":"events/month=2026-11/000000000000/000000000000-0.parquet","month":"2026-11","rows":1,"bytes":10,"sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","first_key":"07070707070707070707070707070707","last_key":"07070707070707070707070707070707","fingerprint":{"rows":1,"hash":"00000000000000000000000000000001","sums":{}}}]}"#;
    let entry = Entry::from_bytes(0, text.as_bytes()).unwrap();
    assert_eq!(entry.added[0].fingerprint.counts, None);
    assert_eq!(entry.to_bytes().unwrap(), text.as_bytes(), "an older entry keeps its bytes");
    State::default().apply(entry, Digest::of(b"")).unwrap();
}

#[test]
fn a_state_survives_its_json() {
    let mut state = two_entries();
    let next = compaction(&state, "2026-11");
    put(&mut state, next).unwrap();
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
}

#[test]
fn an_entry_reads_as_it_is_documented() {
    let mut state = State::default();
    let mut first = entry(&state, vec![range("shardId-000000000000", None, Some(7))]);
    first.ranges[0].caught_up_ms = Some(4);
    insta::assert_snapshot!(String::from_utf8(first.to_bytes().unwrap()).unwrap(), @r#"{"format":2,"n":0,"kind":"archive","previous":null,"at_ms":5,"definition":"d","token":"ab","base":0,"stream":{"arn":"arn:aws:kinesis:us-east-1:0:stream/s","created_ms":1},"retention_hours":24,"ranges":[{"shard":"shardId-000000000000","from":null,"to":"7","caught_up_ms":4,"records":1,"rows":1,"duplicates":0,"conflicts":0,"quarantined":0}],"added":[{"source":"_staging/000000000000-ab/0","target":"events/month=2026-11/000000000000/000000000000-0.parquet","month":"2026-11","rows":1,"bytes":10,"sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","first_key":"07070707070707070707070707070707","last_key":"07070707070707070707070707070707","fingerprint":{"rows":1,"hash":"00000000000000000000000000000001","counts":"00000000000000000000000000000000","sums":{}}}]}"#);
    put(&mut state, first).unwrap();
}

#[test]
fn a_newer_or_a_hostile_entry_is_an_error() {
    assert_eq!(Entry::from_bytes(3, br#"{"format":3,"new":[]}"#), Err(LogError::Newer { n: 3, format: 3 }));
    for text in ["", "[]", "{}", r#"{"format":-1}"#, r#"{"format":1}"#, r#"{"format":1,"n":18446744073709551616}"#] {
        assert!(matches!(Entry::from_bytes(3, text.as_bytes()), Err(LogError::Malformed { n: 3, .. })), "{text}");
    }
}

#[test]
fn digests_and_fingerprints_have_one_text() {
    let digest = Digest::of(b"x");
    let text = digest.to_string();
    assert_eq!(text.parse(), Ok(digest));
    for bad in ["", &text[..62], &text[..63], &format!("{text}00"), &text.to_uppercase(), &format!("+{}", &text[1..])] {
        assert!(bad.parse::<Digest>().is_err(), "{bad}");
    }
    let json = |hash: &str| format!(r#"{{"rows":1,"hash":"{hash}","sums":{{}}}}"#);
    let read = |hash: &str| serde_json::from_str::<Fingerprint>(&json(hash)).map(|print| print.hash).ok();
    assert_eq!(read("000000000000000000000000000000ff"), Some(255));
    for bad in ["", "ff", "000000000000000000000000000000FF", "+00000000000000000000000000000ff"] {
        assert_eq!(read(bad), None, "{bad}");
    }
    assert_eq!(read(&"0".repeat(33)), None);
}

#[test]
fn an_entrys_size_is_bounded() {
    let mut next = entry(&State::default(), vec![]);
    let rest = next.to_bytes().unwrap().len();
    next.definition = "d".repeat(usize::try_from(MAX_BYTES).unwrap() - rest + 1);
    let mut bytes = next.to_bytes().unwrap();
    assert_eq!(bytes.len() as u64, MAX_BYTES);
    assert_eq!(Entry::from_bytes(0, &bytes).as_ref(), Ok(&next));
    next.definition.push('d');
    let too_large = LogError::TooLarge { n: 0, bytes: MAX_BYTES + 1 };
    assert_eq!(next.to_bytes(), Err(too_large.clone()));
    bytes.push(b' ');
    assert_eq!(Entry::from_bytes(0, &bytes), Err(too_large));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Entry::from_bytes(0, &bytes);
    }

    /// Whatever single member of a valid entry is changed to whatever number or text, applying it never panics.
    #[test]
    fn no_member_makes_it_panic(member in 0usize..14, number in any::<i64>(), text in "[a-z0-9/_.=-]{0,40}") {
        let state = two_entries();
        let valid = serde_json::to_value(entry(&state, vec![range("s0", Some(2), Some(3))])).unwrap();
        for value in [serde_json::json!(number), serde_json::json!(text), serde_json::json!([text]), serde_json::Value::Null] {
            let mut changed = valid.clone();
            if let Some(slot) = changed.as_object_mut().unwrap().values_mut().nth(member) {
                *slot = value;
            }
            if let Ok(next) = Entry::from_bytes(2, changed.to_string().as_bytes()) {
                let _ = state.clone().apply(next, Digest::of(b""));
            }
        }
    }

    /// Invariant 5: any sequence of cuts of a shard is accepted in order, and each range is accepted only once.
    #[test]
    fn invariant_5_any_cut_tiles(cuts in prop::collection::btree_set(1u64..1_000, 1..12)) {
        let (mut state, mut from) = (State::default(), None);
        for to in cuts {
            let next = entry(&state, vec![range("s0", from, Some(to))]);
            let again = next.clone();
            put(&mut state, next).unwrap();
            let again = Entry { n: state.next, previous: state.head, ..again };
            let twice = state.clone().apply(again, Digest::of(b""));
            prop_assert!(twice.is_err());
            from = Some(to);
        }
    }
}

fn number(n: u64) -> SequenceNumber {
    n.to_string().parse().unwrap()
}

/// A log that takes over shard s0, read to 7 and closed, and s1 to 9.
fn seeded() -> Entry {
    let end = |to: u64, closed| ShardEnd { to: Some(number(to)), closed, caught_up_ms: Some(5) };
    let shards = BTreeMap::from([("s0".parse().unwrap(), end(7, true)), ("s1".parse().unwrap(), end(9, false))]);
    let lost = Lost { after: None, before: None, since_ms: None, found_ms: 3 };
    let hole = Hole { n: 40, stream: stream(), shard: "s0".parse().unwrap(), lost };
    let seed = Seed {
        from: recount_schemas::Home::Base,
        entries: 41,
        head: Some(Digest::of(b"40")),
        streams: BTreeMap::from([(stream(), StreamEnd { retention_hours: Some(24), shards })]),
        lost: vec![hole],
    };
    let state = State::default();
    Entry {
        kind: Kind::Seed,
        stream: None,
        retention_hours: None,
        origin: Some("rebuild from base".into()),
        seed: Some(Box::new(seed)),
        added: vec![file(&state, "2026-11", 3, 0, 0), file(&state, "2026-11", 2, 1, 0)],
        ..entry(&state, vec![])
    }
}

#[test]
fn a_seed_takes_over_how_far_shards_were_read_and_what_was_lost() {
    let mut state = State::default();
    put(&mut state, seeded()).unwrap();
    assert_eq!((state.live().count(), state.lost.len()), (2, 1));
    let kept: State = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
    assert_eq!(kept, state);
    // From there on it is read as any log is.
    let closed = entry(&state, vec![range("s0", Some(7), Some(8))]);
    assert!(state.clone().apply(closed, Digest::of(b"")).unwrap_err().to_string().contains("closed before"));
    let gap = entry(&state, vec![range("s1", Some(10), Some(12))]);
    assert!(state.clone().apply(gap, Digest::of(b"")).unwrap_err().to_string().contains("begin where the last"));
    let next = entry(&state, vec![range("s1", Some(9), Some(12))]);
    put(&mut state, next).unwrap();

    let seed = *seeded().seed.unwrap();
    let covers = |shard: &str, n| seed.covers(&shard.parse().unwrap(), &number(n));
    assert!(covers("s1", 9) && covers("s0", 1) && covers("backfill-0", 99));
    assert!(!covers("s1", 10) && !covers("s2", 1));
}

#[test]
fn only_the_first_entry_can_be_a_seed() {
    let state = two_entries();
    let second = Entry { n: 2, base: 2, previous: state.head, added: vec![], ..seeded() };
    assert!(state.clone().apply(second, Digest::of(b"")).unwrap_err().to_string().contains("only be the first"));
    let with = |change: fn(&mut Entry)| {
        let mut entry = seeded();
        change(&mut entry);
        State::default().apply(entry, Digest::of(b"")).unwrap_err().to_string()
    };
    assert!(with(|entry| entry.seed = None).contains("takes over"));
    assert!(with(|entry| entry.kind = Kind::Addition).contains("takes over"));
    assert!(with(|entry| entry.origin = None).contains("where its rows come from"));
    assert!(with(|entry| entry.stream = Some(stream())).contains("reads no stream"));
}
