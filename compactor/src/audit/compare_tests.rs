use super::*;
use proptest::prelude::*;
use recount_schemas::EventKey;

const READ: i64 = 1_793_500_000_000_000;
const SECOND: i64 = 1_000_000;

fn image(n: u8) -> ItemHash {
    ItemHash([n; 16])
}

fn seen(n: u8) -> Option<Seen> {
    Some(Seen { part: 0, offset: 0, read_us: READ, image: image(n), item: "{}".into() })
}

/// A change `seconds` from the reading; `state` 0 is a REMOVE.
fn change(sequence: u64, seconds: i64, name: EventName, state: u8) -> Change {
    Change {
        order: Order::captured(&sequence.to_string().parse().unwrap()),
        name,
        backfilled: false,
        created_us: READ + seconds * SECOND,
        key: EventKey::least_at(1),
        state: if state == 0 { State::Absent } else { State::Image(image(state)) },
        group: None,
        month: "2026-11".parse().unwrap(),
        item: "{}".into(),
    }
}

fn verdict(table: Option<Seen>, changes: &[Change]) -> Option<Kind> {
    let mut comparison = Comparison::new(image(9), table, (READ, READ));
    changes.iter().for_each(|change| comparison.take(change));
    comparison.verdict()
}

use EventName::{Insert, Modify, Remove};

#[test]
fn the_truth_table() {
    let long = -600;
    for (what, table, changes, expected) in [
        ("nothing anywhere is archived", seen(1), vec![], Some(Kind::NeverCaptured)),
        ("as it was inserted", seen(1), vec![change(1, long, Insert, 1)], None),
        ("a change is lost", seen(2), vec![change(1, long, Insert, 1)], Some(Kind::Differs)),
        ("a deletion is lost", None, vec![change(1, long, Insert, 1)], Some(Kind::DeletionMissed)),
        ("deleted", None, vec![change(1, long, Insert, 1), change(2, long, Remove, 0)], None),
        (
            "back again, unseen",
            seen(1),
            vec![change(1, long, Insert, 1), change(2, long, Remove, 0)],
            Some(Kind::NeverCaptured),
        ),
        ("inserted after it was read", None, vec![change(1, 600, Insert, 1)], None),
        ("changed after it was read", seen(1), vec![change(1, long, Insert, 1), change(2, 600, Modify, 2)], None),
        ("changed about when it was read", seen(1), vec![change(1, long, Insert, 1), change(2, -30, Modify, 2)], None),
        ("changed about when it was read", seen(2), vec![change(1, long, Insert, 1), change(2, 30, Modify, 2)], None),
        ("an old content", seen(1), vec![change(1, long, Insert, 1), change(2, -90, Modify, 2)], Some(Kind::Differs)),
        ("captured from the middle", seen(2), vec![change(2, long, Modify, 2)], Some(Kind::InsertMissing)),
        ("captured from its end", None, vec![change(2, long, Remove, 0)], Some(Kind::InsertMissing)),
        // Records of one item may come in another order than its changes were made.
        ("out of order", seen(2), vec![change(2, -300, Insert, 1), change(1, -200, Modify, 2)], None),
    ] {
        assert_eq!(verdict(table, &changes), expected, "{what}");
    }
}

#[test]
fn a_backfilled_insertion_comes_first_whenever_it_was_planned() {
    let mut backfilled = change(1, 600, Insert, 1);
    backfilled.backfilled = true;
    backfilled.order = Order::backfilled(None);
    assert_eq!(verdict(seen(1), &[backfilled.clone()]), None);
    assert_eq!(verdict(seen(2), &[change(7, -600, Modify, 2), backfilled.clone()]), None);
    assert_eq!(verdict(seen(1), &[change(7, -600, Modify, 2), backfilled.clone()]), Some(Kind::Differs));
    // Its own INSERT came after all, or another life of it began since.
    assert_eq!(verdict(seen(1), &[change(7, -600, Insert, 1), backfilled.clone()]), Some(Kind::CapturedTwice));
    assert_eq!(verdict(seen(1), &[change(7, 700, Insert, 1), backfilled.clone()]), None);
    // The item came back unseen after a removal, and that was backfilled.
    backfilled.order = Order::backfilled(Some(&"2".parse().unwrap()));
    let life = [change(1, -900, Insert, 3), change(2, -800, Remove, 0), backfilled];
    assert_eq!(verdict(seen(1), &life), None);
}

#[test]
fn what_the_archive_was_told_to_forget_is_no_difference() {
    let mut unknown = change(1, -600, Insert, 1);
    unknown.state = State::Unknown;
    assert_eq!(verdict(seen(7), &[unknown.clone()]), None);
    assert_eq!(verdict(None, &[unknown]), Some(Kind::DeletionMissed));
}

#[test]
fn a_scan_that_does_not_show_what_was_just_inserted_looks_again() {
    for (seconds, expected) in [(-30, Some(Kind::DeletionMissed)), (30, None)] {
        let insert = [change(1, seconds, Insert, 1)];
        assert_eq!(verdict(None, &insert), None, "an export cannot tell");
        let mut comparison = Comparison::new(image(9), None, (READ, READ)).by_a_scan(READ);
        comparison.take(&insert[0]);
        assert_eq!(comparison.verdict(), expected);
        comparison.again(Some(image(1)));
        assert_eq!(comparison.verdict(), None);
        comparison.again(None);
        assert_eq!(comparison.verdict(), Some(Kind::DeletionMissed));
        comparison.take(&change(2, 31, Remove, 0));
        assert_eq!(comparison.verdict(), None);
    }
}

#[test]
fn a_second_look_takes_what_came_since() {
    let mut comparison = Comparison::new(image(9), seen(2), (READ, READ));
    comparison.take(&change(1, -600, Insert, 1));
    assert_eq!(comparison.verdict(), Some(Kind::Differs));
    comparison.again(Some(image(3)));
    assert_eq!(comparison.verdict(), Some(Kind::Differs));
    // A file that was written anew brings what was known already.
    comparison.take(&change(1, -600, Insert, 1));
    assert_eq!(comparison.verdict(), Some(Kind::Differs));
    comparison.take(&change(2, -5, Modify, 2));
    comparison.take(&change(3, 5, Modify, 3));
    comparison.take(&change(4, 6, Remove, 0));
    assert_eq!(comparison.verdict(), None);
    comparison.again(Some(image(3)));
    assert_eq!(comparison.verdict(), Some(Kind::NeverCaptured), "its last archived change is a removal");
    comparison.again(None);
    assert_eq!(comparison.verdict(), None);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Put(u8),
    Delete,
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![(1u8..5).prop_map(Step::Put), Just(Step::Delete), Just(Step::Wait)];
    prop::collection::vec(step, 0..14)
}

/// The item's life: its changes (a step is 25 seconds), and what it is after each step.
fn live(steps: &[Step]) -> (Vec<(usize, Change)>, Vec<Option<u8>>) {
    let (mut changes, mut states, mut now) = (Vec::new(), vec![None], None);
    for (i, step) in steps.iter().enumerate() {
        let (name, next) = match (step, now) {
            (Step::Put(n), None) => (Insert, Some(*n)),
            (Step::Put(n), Some(_)) => (Modify, Some(*n)),
            (Step::Delete, Some(_)) => (Remove, None),
            _ => {
                states.push(now);
                continue;
            }
        };
        now = next;
        changes.push((i, change(i as u64 + 1, 0, name, next.unwrap_or(0))));
        states.push(now);
    }
    (changes, states)
}

proptest! {
    /// Invariant 8, for the table: of an item that was captured whole, wherever in its life it was read, nothing is said.
    #[test]
    fn invariant_8_what_was_captured_whole_is_never_a_suspect(steps in steps(), at in any::<prop::sample::Index>()) {
        let (changes, states) = live(&steps);
        let at = at.index(states.len());
        let table = states[at].and_then(seen);
        let mut comparison = Comparison::new(image(9), table, (READ, READ));
        for (i, change) in &changes {
            let mut change = change.clone();
            // The reading stands between step `at - 1` and step `at`.
            change.created_us = READ + (*i as i64 - at as i64) * 25 * SECOND + 12 * SECOND;
            comparison.take(&change);
        }
        prop_assert_eq!(comparison.verdict(), None);
    }

    /// And whatever came long before the reading and left a trace is found: the last change lost, or all of them.
    #[test]
    fn the_loss_of_the_last_change_is_found(steps in steps()) {
        let (changes, states) = live(&steps);
        let Some((_, last)) = changes.last() else { return Ok(()) };
        let table = states.last().copied().flatten().and_then(seen);
        let mut comparison = Comparison::new(image(9), table, (READ, READ));
        let kept = &changes[..changes.len() - 1];
        for (i, change) in kept {
            let mut change = change.clone();
            change.created_us = READ + (*i as i64 - 100) * 25 * SECOND;
            comparison.take(&change);
        }
        // A content that is there again, as it was, leaves no trace; nor does an item that came and went.
        let before = kept.last().map_or(State::Absent, |(_, change)| change.state);
        if before != last.state {
            prop_assert!(comparison.verdict().is_some());
        }
    }

    #[test]
    fn the_order_of_taking_does_not_matter(steps in steps(), at in any::<prop::sample::Index>(), seed in any::<prop::sample::Index>()) {
        let (changes, states) = live(&steps);
        let at = at.index(states.len());
        let mut taken: Vec<Change> = changes.into_iter().map(|(i, change)| {
            Change { created_us: READ + (i as i64 - at as i64) * 25 * SECOND, ..change }
        }).collect();
        let table = states.get(seed.index(states.len())).copied().flatten().and_then(seen);
        let forward = verdict(table.clone(), &taken);
        taken.reverse();
        let twice: Vec<Change> = taken.iter().chain(&taken).cloned().collect();
        prop_assert_eq!(verdict(table, &twice), forward);
    }
}
