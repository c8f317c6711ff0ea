use proptest::prelude::*;
use recount_schemas::EventKey;

use super::*;
use crate::log::entry::{FORMAT, Fingerprint, Kind};
use crate::log::{Digest, Entry};
use crate::rows::testing::definition;

fn month(text: &str) -> Month {
    text.parse().unwrap()
}

fn uri(target: &str) -> String {
    format!("s3://b/{target}")
}

fn file(state: &State, month: Month, version: u64, rows: u64, bytes: i128) -> AddedFile {
    let file = crate::log::state::tests::file(state, &month.to_string(), rows, 0, version);
    let sums = [("measure_bytes".to_owned(), Amount::from_billionths(bytes))].into();
    AddedFile {
        first_group: Some("acme".into()),
        last_group: Some("zeta".into()),
        fingerprint: Fingerprint { sums, ..file.fingerprint },
        ..file
    }
}

/// What is read of such a file.
pub(crate) fn of_file(rows: u64, sums: SmallVec<[Amount; 2]>) -> OfFile {
    let key = EventKey::from_bytes([7; 16]);
    OfFile { rows, judged: rows, keys: Some((key, key)), groups: Some(("acme".into(), "zeta".into())), sums }
}

fn entry(state: &State, kind: Kind) -> Entry {
    Entry {
        format: FORMAT,
        n: state.next,
        kind,
        previous: state.head,
        at_ms: 5,
        definition: definition().hash().to_owned(),
        token: "ab".into(),
        origin: (kind == Kind::Addition).then(|| "redrive".into()),
        folded: None,
        base: state.next,
        stream: None,
        retention_hours: None,
        ranges: Vec::new(),
        seed: None,
        added: Vec::new(),
        removed: Vec::new(),
        versions: BTreeMap::new(),
    }
}

/// An entry that adds a file of so many rows to a month.
pub(crate) fn adds(state: &State, of: &str, rows: u64, bytes: i128) -> Entry {
    let of = month(of);
    Entry { added: vec![file(state, of, state.version(of), rows, bytes)], ..entry(state, Kind::Addition) }
}

/// An entry that makes one file of a month's files.
fn compacts(state: &State, of: &str) -> Entry {
    let of = month(of);
    let live: Vec<&AddedFile> = state.live().map(|live| &live.file).filter(|file| file.month == of).collect();
    let mut sum = Fingerprint::default();
    live.iter().for_each(|file| sum.add(&file.fingerprint).unwrap());
    let merged = AddedFile { rows: sum.rows, fingerprint: sum, ..file(state, of, state.next, 0, 0) };
    Entry {
        removed: live.iter().map(|file| file.target.clone()).collect(),
        versions: [(of, state.next)].into(),
        added: vec![merged],
        ..entry(state, Kind::Compaction)
    }
}

fn put(state: &State, entry: Entry) -> State {
    let mut next = state.clone();
    let digest = Digest::of(&entry.to_bytes().unwrap());
    next.apply(entry, digest).unwrap();
    next
}

/// Two files in October, one in November.
fn before() -> State {
    let mut state = State::default();
    for (of, rows, bytes) in [("2026-10", 3, 30), ("2026-10", 2, 20), ("2026-11", 4, 40)] {
        state = put(&state, adds(&state, of, rows, bytes));
    }
    state
}

/// What a query reads of a month in this state.
fn reads(read: &mut Read, state: &State, of: &str) {
    for live in state.files.get(&month(of)).into_iter().flat_map(BTreeMap::values) {
        let sums = live.file.fingerprint.sums.values().copied().collect();
        assert!(read.file(live.file.month, &uri(&live.file.target), of_file(live.file.rows, sums)));
    }
}

fn read(of: &[(&str, &State)]) -> Read {
    let mut read = Read::default();
    of.iter().for_each(|(month, state)| reads(&mut read, state, month));
    read
}

/// What is said of it, where the log goes through these states.
fn covered(read: &Read, only: Option<Month>, states: &[&State]) -> Result<u64, String> {
    let definition = definition();
    let mut cover = Cover::new(read, &definition, true, only, &uri, states[0]).unwrap();
    states[1..].iter().for_each(|state| cover.entry(state).unwrap());
    cover.entries(states.last().unwrap()).map_err(|wrong| wrong.join("\n"))
}

#[test]
fn a_missing_partition_cannot_pass_for_zero() {
    let log = before();
    assert_eq!(covered(&read(&[("2026-10", &log), ("2026-11", &log)]), None, &[&log]), Ok(3));
    let lacking = read(&[("2026-11", &log)]);
    insta::assert_snapshot!(covered(&lacking, None, &[&log]).unwrap_err(), @"2026-10 has 2 files with 5 rows in the log, and 0 files with 0 rows were read");
    // Also where the log goes on, in that month and elsewhere.
    let more = put(&log, adds(&log, "2026-10", 1, 1));
    let other = put(&more, adds(&more, "2026-12", 1, 1));
    assert!(covered(&lacking, None, &[&log, &more, &other]).unwrap_err().contains("2026-10"));
    // Only a month that was asked for must be there.
    assert_eq!(covered(&lacking, Some(month("2026-11")), &[&log, &more]), Ok(4));
    assert!(covered(&lacking, Some(month("2026-10")), &[&log]).is_err());
    // Of no log and no file nothing is wrong.
    assert_eq!(covered(&Read::default(), None, &[&State::default()]), Ok(0));
}

#[test]
fn other_files_or_rows_are_refused() {
    let log = before();
    let mut foreign = read(&[("2026-10", &log), ("2026-11", &log)]);
    foreign.file(month("2026-12"), "s3://b/events/x", of_file(1, SmallVec::new()));
    insta::assert_snapshot!(covered(&foreign, None, &[&log]).unwrap_err(), @"2026-12 has 0 files with 0 rows in the log, and 1 files with 1 rows were read");
    // As many files and rows, but another file; the same file with other rows.
    for (name, rows) in
        [("s3://b/old", 4), (uri(&log.files[&month("2026-11")].keys().next().unwrap().clone()).as_str(), 3)]
    {
        let mut other = read(&[("2026-10", &log)]);
        other.file(month("2026-11"), name, of_file(rows, SmallVec::from_slice(&[Amount::from_billionths(40)])));
        assert!(covered(&other, None, &[&log]).unwrap_err().contains("2026-11 has 1 files with 4 rows"), "{name}");
    }
}

#[test]
fn a_column_that_a_partition_lacks_cannot_pass_for_zero() {
    let log = before();
    let mut without = read(&[("2026-10", &log)]);
    let target = log.files[&month("2026-11")].keys().next().unwrap();
    without.file(month("2026-11"), &uri(target), of_file(4, SmallVec::from_slice(&[Amount::ZERO])));
    insta::assert_snapshot!(covered(&without, None, &[&log]).unwrap_err(), @"2026-11 comes to other sums of measure_bytes than the log has; its partition may have been made before the table had the column as it is now: `recount compact --confirm` gives partitions the columns of their table");
}

/// Also where all sums are 0, or there is no measure.
#[test]
fn columns_that_decide_what_counts_cannot_be_lacking() {
    let log = before();
    let mut november = Read::default();
    reads(&mut november, &log, "2026-11");
    let (name, had) =
        november.files[&month("2026-11")].iter().next().map(|(name, had)| (name.clone(), had.clone())).unwrap();
    let covered_with = |has: OfFile| {
        let mut read = read(&[("2026-10", &log)]);
        read.file(month("2026-11"), &name, has);
        covered(&read, None, &[&log])
    };
    covered_with(had.clone()).unwrap();
    let mut told = Vec::new();
    for has in [
        OfFile { judged: 0, ..had.clone() },
        OfFile { judged: had.rows - 1, ..had.clone() },
        OfFile { groups: None, ..had.clone() },
        OfFile { groups: Some(("acme".into(), "acme".into())), ..had.clone() },
        OfFile { keys: None, ..had.clone() },
        OfFile { keys: Some((EventKey::MIN, had.keys.unwrap().1)), ..had.clone() },
        OfFile { groups: None, judged: 0, ..had },
    ] {
        let wrong = covered_with(has).unwrap_err();
        told.push(wrong.split(" than ").next().unwrap().to_owned());
    }
    insta::assert_snapshot!(told.join("\n"), @"
    2026-11 comes to other rows with class and source_table
    2026-11 comes to other rows with class and source_table
    2026-11 comes to other ends of group_key
    2026-11 comes to other ends of group_key
    2026-11 comes to other ends of event_key
    2026-11 comes to other ends of event_key
    2026-11 comes to other rows with class and source_table, ends of group_key
    ");
}

#[test]
fn each_month_is_as_in_one_state_from_before_to_after() {
    let log = before();
    let more = put(&log, adds(&log, "2026-11", 1, 1));
    let other = put(&more, adds(&more, "2026-10", 1, 1));
    let merged = put(&other, compacts(&other, "2026-10"));
    let new = put(&merged, adds(&merged, "2026-12", 1, 1));
    let states = [&log, &more, &other, &merged, &new];
    for (october, november, december, entries) in [
        (&log, &log, &log, 3),
        (&new, &new, &new, 7),
        // November is behind the log, October is not: no single state has both.
        (&merged, &log, &log, 3),
        (&other, &more, &log, 5),
        (&log, &more, &new, 4),
    ] {
        let read = read(&[("2026-10", october), ("2026-11", november), ("2026-12", december)]);
        assert_eq!(covered(&read, None, &states), Ok(entries));
    }
    // From before the question, or from after the answer.
    let early = read(&[("2026-10", &log), ("2026-11", &log)]);
    assert!(covered(&early, None, &[&more, &other]).unwrap_err().starts_with("2026-11"));
    let late = read(&[("2026-10", &log), ("2026-11", &more)]);
    assert!(covered(&late, None, &[&log]).unwrap_err().starts_with("2026-11"));
    // Files of two states: some of what a compaction removed, and what it made of them.
    let mut torn = read(&[("2026-11", &new), ("2026-12", &new), ("2026-10", &merged)]);
    let removed = log.files[&month("2026-10")].values().next().unwrap();
    torn.file(month("2026-10"), &uri(&removed.file.target), of_file(removed.file.rows, SmallVec::new()));
    assert!(covered(&torn, None, &states).unwrap_err().starts_with("2026-10"));
}

#[test]
fn rows_of_another_definition_are_refused_in_any_state() {
    let log = before();
    let foreign = put(&log, Entry { definition: "another".into(), ..adds(&log, "2026-11", 1, 1) });
    let definition = definition();
    let read = read(&[("2026-10", &log), ("2026-11", &log)]);
    assert!(matches!(Cover::new(&read, &definition, true, None, &uri, &foreign), Err(ReadError::Definition { .. })));
    let mut cover = Cover::new(&read, &definition, true, None, &uri, &log).unwrap();
    assert!(matches!(cover.entry(&foreign), Err(ReadError::Definition { .. })));
}

#[test]
fn a_line_that_was_lost_shows() {
    let log = before();
    let mut read = read(&[("2026-10", &log), ("2026-11", &log)]);
    for (of, rows) in [("2026-10", 3), ("2026-10", 2), ("2026-11", 3)] {
        read.others("group", month(of), rows);
    }
    insta::assert_snapshot!(read.is_whole(&["group"]).unwrap_err(), @"Athena's answer has 4 rows of 2026-11 by file and 3 by group");
    read.others("group", month("2026-11"), 1);
    read.is_whole(&["group"]).unwrap();
    assert!(read.is_whole(&["group", "shard"]).is_err());
}

const MONTHS: [&str; 3] = ["2026-10", "2026-11", "2026-12"];

proptest! {
    /// Whatever the log went through: an answer of one state a month is about it, and one with anything else is not.
    #[test]
    fn only_what_the_log_had_is_covered(
        steps in prop::collection::vec((0usize..3, 0u8..4), 1..12),
        first in 0usize..12,
        picks in prop::collection::vec(0usize..12, 3),
        spoilt in 0usize..3,
        how in 0u8..4,
    ) {
        let mut states = vec![State::default()];
        for (of, what) in steps {
            let last = states.last().unwrap();
            let live = last.files.contains_key(&month(MONTHS[of]));
            let rows = last.next + 1;
            let entry = if what == 0 && live { compacts(last, MONTHS[of]) } else { adds(last, MONTHS[of], rows, i128::from(rows)) };
            states.push(put(last, entry));
        }
        let first = first % states.len();
        let seen: Vec<&State> = states[first..].iter().collect();
        let of: Vec<(&str, &State)> = MONTHS.iter().zip(&picks).map(|(of, pick)| (*of, seen[pick % seen.len()])).collect();
        let read = read(&of);
        let entries = covered(&read, None, &seen);
        prop_assert!(entries.as_ref().is_ok_and(|n| (seen[0].next..=seen[seen.len() - 1].next).contains(n)), "{entries:?}");

        let mut wrong = read.clone();
        let files = wrong.files.entry(month(MONTHS[spoilt])).or_default();
        let name = files.keys().next().cloned();
        match (how, name) {
            (0, Some(name)) => drop(files.remove(&name)),
            (1, Some(name)) => files.get_mut(&name).unwrap().rows += 1,
            (2, Some(name)) => files.get_mut(&name).unwrap().sums[0] = Amount::from_billionths(-1),
            _ => drop(files.insert("s3://b/foreign".into(), OfFile::default())),
        }
        let had = |state: &&State| {
            let mut of_month = Read::default();
            reads(&mut of_month, state, MONTHS[spoilt]);
            of_month.files.get(&month(MONTHS[spoilt])).cloned().unwrap_or_default() == wrong.files[&month(MONTHS[spoilt])]
        };
        prop_assert_eq!(covered(&wrong, None, &seen).is_ok(), seen.iter().any(had));
    }
}
