use super::*;
use proptest::prelude::*;

fn cell() -> Cell {
    Cell { group: "acme".parse().unwrap(), month: "2026-11".parse().unwrap(), lane: 0 }
}

fn key(n: u8) -> EventKey {
    EventKey::new(1_790_000_000_000 + i64::from(n), &[n]).unwrap()
}

fn delta(events: i64, bytes: i64) -> Delta {
    let bytes = recount_schemas::Amount::from_billionths(i128::from(bytes) * 1_000_000_000);
    Delta { events, sums: SmallVec::from_iter([bytes]) }
}

fn archived(n: u8, bytes: i64) -> Archived {
    let origin = Origin {
        event_id: format!("event-{n}"),
        shard_id: "shardId-000000000000".parse().unwrap(),
        sequence_number: n.to_string().parse().unwrap(),
        file: "events/month=2026-11/000000000000/000000000000-0.parquet".to_owned(),
    };
    Archived { delta: delta(1, bytes), origin, variant: false }
}

fn facts(n: u8, archived: &[Archived]) -> KeyFacts<'_> {
    KeyFacts {
        key: key(n),
        in_ledger: true,
        archived,
        passed: true,
        old: false,
        quarantined: false,
        listed: false,
        voided: false,
    }
}

fn kinds(outcome: &CellOutcome) -> Vec<Kind> {
    outcome.findings.iter().map(|finding| finding.kind).collect()
}

#[test]
fn the_table_of_verdicts() {
    use KeyVerdict::*;
    let row = [archived(1, 5)];
    for (in_ledger, has_row, passed, old, quarantined, voided, verdict) in [
        (true, true, true, false, false, false, Counted),
        (true, true, false, false, false, false, Counted),
        (true, true, false, true, true, true, Counted),
        (true, false, false, false, false, false, Unmatched),
        (true, false, false, true, false, false, Unmatched),
        (true, false, false, false, false, true, Void),
        (false, true, false, false, false, false, NotYet),
        (false, true, false, true, true, false, NotYet),
        (false, true, true, false, false, false, Missing),
        (false, true, true, false, false, true, Missing),
        (false, true, true, false, true, false, Quarantined),
        (false, true, true, true, false, false, Taken),
        (false, true, true, true, true, false, Taken),
        (false, false, true, true, false, false, Absent),
    ] {
        let archived: &[Archived] = if has_row { &row } else { &[] };
        let facts = KeyFacts { in_ledger, passed, old, quarantined, voided, ..facts(1, archived) };
        assert_eq!(judge(&facts), verdict, "{facts:?}");
    }
}

/// A cell of events 1 to 4 (bytes 10, 11, 10, 13), all counted, changed by `change`, with `actual` as its number.
fn outcome(actual: Delta, change: impl Fn(KeyFacts<'_>) -> KeyFacts<'_>) -> CellOutcome {
    let mut diff = CellDiff::new(cell(), Some(actual), 1, false);
    for (n, bytes) in [(1, 10), (2, 11), (3, 10), (4, 13)] {
        let archived = [archived(n, bytes)];
        diff.key(&change(facts(n, &archived)));
    }
    diff.conclude().unwrap()
}

#[test]
fn a_number_is_held_against_its_own_ledger() {
    assert_eq!(kinds(&outcome(delta(4, 44), |f| f)), []);
    let damaged = outcome(delta(7, 44), |f| f);
    assert_eq!(kinds(&damaged), [Kind::Damaged]);
    assert_eq!(damaged.correction, delta(-3, 0));
    assert_eq!(damaged.findings[0].detail, "the number differs from its own ledger by +3 events, sums 0");
    assert_eq!(kinds(&outcome(delta(4, 43), |f| f)), [Kind::Damaged], "a sum by itself");
}

#[test]
fn a_lost_event_is_missing_and_nothing_else() {
    let lost = outcome(delta(3, 33), |f| KeyFacts { in_ledger: f.key != key(2), ..f });
    assert_eq!(kinds(&lost), [Kind::Missing]);
    assert_eq!(lost.findings[0].event_ids, ["event-2"]);
    assert!(lost.correction.is_zero(), "the number is right for its ledger; the event comes by the consumer's path");
    assert_eq!((lost.findings[0].expected, lost.findings[0].actual), (4, 3));
}

#[test]
fn an_event_lost_and_another_counted_twice_do_not_cancel() {
    // Events 1 and 3 have the same bytes: number and sum are right, and still both damages show.
    let cancelled = outcome(delta(4, 44), |f| KeyFacts { in_ledger: f.key != key(1), ..f });
    assert_eq!(kinds(&cancelled), [Kind::Missing, Kind::Damaged]);
    assert_eq!(cancelled.correction, delta(-1, -10));
}

#[test]
fn an_invented_event_is_unbacked_and_nothing_else() {
    for (actual, expected) in [
        (delta(5, 51), vec![Kind::Unbacked]),
        (delta(4, 44), vec![Kind::Unbacked]),
        (delta(6, 51), vec![Kind::Unbacked, Kind::Damaged]),
        (delta(3, 44), vec![Kind::Unbacked, Kind::Damaged]),
    ] {
        let mut diff = CellDiff::new(cell(), Some(actual.clone()), 1, false);
        for (n, bytes) in [(1, 10), (2, 11), (3, 10), (4, 13)] {
            diff.key(&facts(n, &[archived(n, bytes)]));
        }
        diff.key(&facts(9, &[]));
        let outcome = diff.conclude().unwrap();
        assert_eq!(kinds(&outcome), expected, "{actual:?}");
        assert_eq!(outcome.findings[0].event_ids, [key(9).to_string()]);
        assert_eq!(outcome.correction, delta(4, 44).checked_add(&actual.negated()).unwrap());
    }
}

#[test]
fn a_too_old_event_is_one_only_where_the_number_is_short_by_it() {
    let of = |actual: Delta, listed: &'static [u8]| {
        outcome(actual, move |f| KeyFacts {
            in_ledger: false,
            old: true,
            listed: listed.iter().any(|n| key(*n) == f.key),
            ..f
        })
    };
    assert_eq!(kinds(&of(delta(4, 44), &[2])), [], "counted before its page expired; a late duplicate was listed");
    let short = of(delta(3, 33), &[2]);
    assert_eq!((kinds(&short), short.findings[0].event_ids.clone()), (vec![Kind::TooOld], vec!["event-2".to_owned()]));
    let one_of_two = of(delta(3, 31), &[2, 4]);
    assert_eq!(one_of_two.findings[0].event_ids, ["event-4"], "the measures tell which");
    assert_eq!(kinds(&of(delta(2, 20), &[2, 4])), [Kind::TooOld], "both");
    assert_eq!(kinds(&of(delta(2, 20), &[2])), [Kind::Damaged], "it does not explain the difference");
}

#[test]
fn a_conflicting_key_counts_the_variant_that_fits() {
    let other = Archived { delta: delta(1, 99), variant: true, ..archived(1, 0) };
    for (actual, expected) in [
        (delta(1, 10), vec![Kind::Conflicting]),
        (delta(1, 99), vec![Kind::Conflicting]),
        (delta(1, 50), vec![Kind::Conflicting, Kind::Damaged]),
    ] {
        let mut diff = CellDiff::new(cell(), Some(actual), 1, false);
        diff.key(&facts(1, &[archived(1, 10), other.clone()]));
        assert_eq!(kinds(&diff.conclude().unwrap()), expected);
    }
    let mut diff = CellDiff::new(cell(), Some(delta(1, 99)), 1, false);
    diff.key(&KeyFacts { voided: true, ..facts(1, &[archived(1, 10), other]) });
    assert_eq!(kinds(&diff.conclude().unwrap()), [], "looked at before");
}

#[test]
fn a_key_of_an_event_that_belongs_elsewhere() {
    let mut diff = CellDiff::new(cell(), Some(delta(1, 10)), 1, false);
    diff.key(&facts(9, &[]));
    diff.misplace(&[(key(9), archived(9, 10).origin)].into());
    let outcome = diff.conclude().unwrap();
    assert_eq!(kinds(&outcome), [Kind::WrongCell]);
    assert_eq!(outcome.findings[0].event_ids, ["event-9"]);
}

#[test]
fn named_events_are_bounded_and_all_are_counted() {
    let mut diff = CellDiff::new(cell(), None, 1, false);
    for n in 0..MAX_NAMED_TEST {
        let key = EventKey::new(1_790_000_000_000, &n.to_be_bytes()).unwrap();
        let archived = [archived(1, 1)];
        diff.key(&KeyFacts { key, in_ledger: false, ..facts(1, &archived) });
    }
    let outcome = diff.conclude().unwrap();
    let finding = &outcome.findings[0];
    assert_eq!((finding.count, finding.events.len()), (MAX_NAMED_TEST, super::super::finding::MAX_NAMED));
    assert_eq!(outcome.expected.events, MAX_NAMED_TEST as i64);
}

const MAX_NAMED_TEST: u64 = super::super::finding::MAX_NAMED as u64 + 5;

#[test]
fn under_net_a_stranger_may_have_counted_one_more_or_one_less() {
    let found = |strangers: u8, actual: Delta| {
        let mut diff = CellDiff::new(cell(), Some(actual), 1, true);
        diff.key(&facts(1, &[archived(1, 10)]));
        for n in 0..strangers {
            diff.key(&facts(10 + n, &[]));
        }
        kinds(&diff.conclude().unwrap())
    };
    for (strangers, events, damaged) in
        [(1, 0, false), (1, 2, false), (1, -1, true), (1, 3, true), (2, -1, false), (2, 3, false)]
    {
        let mut expected = vec![Kind::Unbacked];
        expected.extend(damaged.then_some(Kind::Damaged));
        assert_eq!(found(strangers, delta(events, 7)), expected, "{strangers} {events}");
    }
    assert_eq!(found(0, delta(1, 7)), [Kind::Damaged], "a wrong sum, and no stranger to blame");
}

#[test]
fn a_number_that_kept_what_its_ledger_lost_says_so() {
    let lost = outcome(delta(4, 44), |f| KeyFacts { in_ledger: f.key != key(2), ..f });
    assert_eq!(kinds(&lost), [Kind::Missing, Kind::Damaged]);
    assert_eq!(
        lost.findings[1].detail,
        "the number differs from its own ledger by +1 event, sums 11: it still holds the missing events, whose keys its ledger has lost"
    );
    assert_eq!(in_words(&Delta { events: -1, sums: SmallVec::new() }), "-1 event");
    assert_eq!(in_words(&Delta { events: 0, sums: SmallVec::new() }), "+0 events");
}

#[test]
fn exposed_keys_are_damage_unless_the_number_is_found_damaged_anyway() {
    let mut sound = outcome(delta(4, 44), |f| f);
    sound.expose(0);
    assert_eq!(kinds(&sound), []);
    sound.expose(2);
    assert_eq!(kinds(&sound), [Kind::Damaged]);
    assert_eq!((sound.findings[0].expected, sound.findings[0].actual), (4, 4));
    assert!(sound.findings[0].detail.contains("below 2 events"), "{}", sound.findings[0].detail);
    let mut damaged = outcome(delta(5, 44), |f| f);
    damaged.expose(2);
    assert_eq!(kinds(&damaged), [Kind::Damaged], "one repair does for both");
}

#[test]
fn impossible_amounts_are_an_error() {
    let huge = || Delta { events: 1, sums: SmallVec::from_iter([recount_schemas::Amount::from_billionths(i128::MAX)]) };
    for in_ledger in [true, false] {
        let mut diff = CellDiff::new(cell(), None, 1, false);
        for n in 0..2 {
            diff.key(&KeyFacts { in_ledger, ..facts(n, &[Archived { delta: huge(), ..archived(n, 0) }]) });
        }
        assert_eq!(diff.conclude(), Err(OutOfRange(cell())));
    }
}

#[test]
fn a_difference_that_too_many_choices_might_explain_is_damage() {
    // Each of 40 listed events may have been left out; no choice of them makes a difference of half an event's bytes.
    let mut diff = CellDiff::new(cell(), Some(delta(39, 39 * 10 + 5)), 1, false);
    for n in 0..40 {
        diff.key(&KeyFacts { in_ledger: false, old: true, listed: true, ..facts(n, &[archived(n, 10)]) });
    }
    assert_eq!(diff.events(), 40);
    assert_eq!(kinds(&diff.conclude().unwrap()), [Kind::Damaged]);
}

#[test]
fn the_horizon_is_as_far_back_as_the_ledger() {
    assert_eq!(horizon(40 * 86_400_000, 35), EventKey::least_at(5 * 86_400_000));
    assert_eq!(horizon(0, 35), EventKey::MIN);
}

#[test]
fn progress_is_by_shard() {
    let shard: ShardId = "a".parse().unwrap();
    let passed = Passed([(shard.clone(), "10".parse().unwrap())].into_iter().collect());
    assert!(passed.covers(&shard, &"9".parse().unwrap()));
    assert!(passed.covers(&shard, &"10".parse().unwrap()));
    assert!(!passed.covers(&shard, &"11".parse().unwrap()));
    assert!(!passed.covers(&"b".parse().unwrap(), &"1".parse().unwrap()));
}

proptest! {
    /// Against set arithmetic written down directly.
    #[test]
    fn invariant_8_what_is_found_is_what_the_sets_say(
        keys in prop::collection::vec((any::<[bool; 6]>(), 1i64..4), 1..7),
        off in -2i64..3,
        bytes_off in -2i64..3,
    ) {
        let (mut due, mut missing, mut unbacked, mut short) = ((0, 0), vec![], vec![], vec![]);
        for (n, ([in_ledger, row, passed, old, listed, voided], bytes)) in keys.iter().enumerate() {
            match (in_ledger, row) {
                (true, true) => due = (due.0 + 1, due.1 + bytes),
                (true, false) if !voided => unbacked.push(key(n as u8)),
                (false, true) if *passed && *old => {
                    due = (due.0 + 1, due.1 + bytes);
                    if *listed { short.push((n, *bytes)) }
                }
                (false, true) if *passed => missing.push(key(n as u8)),
                _ => {}
            }
        }
        let actual = (due.0 + off, due.1 + bytes_off);
        let mut diff = CellDiff::new(cell(), Some(delta(actual.0, actual.1)), 1, false);
        for (n, ([in_ledger, row, passed, old, listed, voided], bytes)) in keys.iter().enumerate() {
            let archived = [archived(n as u8, *bytes)];
            let archived: &[Archived] = if *row { &archived } else { &[] };
            diff.key(&KeyFacts { in_ledger: *in_ledger, passed: *passed, old: *old, listed: *listed, voided: *voided, ..facts(n as u8, archived) });
        }
        let outcome = diff.conclude().unwrap();
        let named = |kind: Kind| -> Vec<EventKey> {
            outcome.findings.iter().filter(|f| f.kind == kind).flat_map(|f| f.events.iter().map(|e| e.event_key)).collect()
        };
        prop_assert_eq!(named(Kind::Missing), missing);
        prop_assert_eq!(named(Kind::Unbacked), unbacked.clone());
        prop_assert_eq!(outcome.correction, delta(-off, -bytes_off));
        // Which subsets of the listed events would make the number short by just what it is.
        let explained = (0..1u32 << short.len()).any(|set| {
            let chosen = short.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1);
            let (n, bytes) = chosen.fold((0, 0), |(n, sum), (_, (_, bytes))| (n + 1, sum + bytes));
            (off, bytes_off) == (-n, -bytes)
        });
        let theirs = (1..=unbacked.len() as i64).contains(&off);
        let damaged = outcome.findings.iter().any(|f| f.kind == Kind::Damaged);
        prop_assert_eq!(damaged, !explained && !theirs);
        let too_old: Vec<i64> = named(Kind::TooOld).iter().map(|k| keys[(0..keys.len()).find(|n| key(*n as u8) == *k).unwrap()].1).collect();
        if explained {
            prop_assert_eq!((too_old.len() as i64, too_old.iter().sum::<i64>()), (-off, -bytes_off));
        } else {
            prop_assert!(too_old.is_empty());
        }
    }
}

#[test]
fn many_keys_that_belong_elsewhere_are_named_in_one_pass_and_counted_beyond_their_names() {
    const MANY: i64 = 300_000;
    let key = |n: i64| EventKey::least_at(1_790_000_000_000 + n);
    let mut diff = CellDiff::new(cell(), Some(delta(MANY - 1, 10)), 1, false);
    for n in 0..MANY {
        diff.key(&KeyFacts { key: key(n), ..facts(1, &[]) });
    }
    diff.misplace(&(1..MANY).map(|n| (key(n), archived(1, 5).origin)).collect());
    assert_eq!(diff.unmatched(), [key(0)]);
    let outcome = diff.conclude().unwrap();
    assert_eq!(kinds(&outcome), [Kind::Unbacked, Kind::WrongCell], "the number is theirs, so it is not damaged");
    let wrong = &outcome.findings[1];
    assert_eq!((wrong.count, wrong.events.len()), (MANY as u64 - 1, super::super::finding::MAX_NAMED));
    assert_eq!(wrong.events[0].event_key, key(1));
}
