//! Whether an item's INSERT is missing from the archive. Pure.
//!
//! What was read of the table shows the item at one time; only the archived changes made up to [`MARGIN_US`] behind that time
//! are looked at, in their order. A backfilled INSERT is one of them, whenever it was planned.
//!
//! | changes up to then | the table has it | what is missing |
//! | --- | --- | --- |
//! | none | yes | its INSERT, with the content that the table has |
//! | none | no | nothing |
//! | some, none of them an INSERT | either | the INSERT of what its first one changed, with the content that it had before |
//! | the last one a REMOVE, by position and by time, made [`MARGIN_US`] and more before it was read | yes | the INSERT by which it came back, with the content that the table has |
//! | else | either | nothing |
//!
//! What it cannot tell: an item that came and went unseen; one that was deleted and made again unseen, which looks like a
//! change; a life that began and ended between two that were seen.

use recount_schemas::{EventKey, EventName, SequenceNumber};

use crate::audit::compare::MARGIN_US;
use crate::items::{Change, Order, Seen, State};
use crate::table::item::ItemHash;

/// An INSERT that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// Of an item without any archived change: as the table has it.
    Whole,
    /// Of an item captured from the middle of its life: as it was before the change with this event key.
    Before(EventKey),
    /// Of an item that came back behind this removal: as the table has it.
    Behind {
        /// The removal's sequence number.
        sequence: SequenceNumber,
        /// The removal's event key: what tells this life of the item from its others.
        removal: EventKey,
    },
}

/// What is kept of one item.
#[derive(Debug, Clone)]
pub struct Life {
    /// The hash of its key.
    pub hash: ItemHash,
    /// As the table has it.
    pub seen: Option<Seen>,
    /// When it was read; of an item that the table does not have, when the reading ended.
    pub read_us: i64,
    /// The canonical text of its key.
    pub item: String,
    inserted: bool,
    first: Option<Change>,
    last: Option<Change>,
    latest: Option<(i64, Order, State)>,
}

impl Life {
    /// Of an item with that hash; `ended_us` is when the reading of the table ended.
    pub fn new(hash: ItemHash, seen: Option<Seen>, ended_us: i64) -> Self {
        let read_us = seen.as_ref().map_or(ended_us, |seen| seen.read_us);
        let item = seen.as_ref().map_or_else(String::new, |seen| seen.item.clone());
        Self { hash, seen, read_us, item, inserted: false, first: None, last: None, latest: None }
    }

    /// Takes an archived change of it.
    pub fn take(&mut self, change: &Change) {
        if !is_before(change, self.read_us) {
            return;
        }
        if self.item.is_empty() {
            self.item.clone_from(&change.item);
        }
        self.inserted |= change.name == EventName::Insert;
        if self.first.as_ref().is_none_or(|first| change.order < first.order) {
            self.first = Some(change.clone());
        }
        if self.last.as_ref().is_none_or(|last| last.order <= change.order) {
            self.last = Some(change.clone());
        }
        let created = if change.backfilled { i64::MIN } else { change.created_us };
        if self.latest.as_ref().is_none_or(|(at, order, _)| (*at, order) <= (created, &change.order)) {
            self.latest = Some((created, change.order.clone(), change.state));
        }
    }

    /// What is missing; see the table at the top.
    pub fn gap(&self) -> Option<Gap> {
        let (Some(first), Some(last)) = (&self.first, &self.last) else {
            return self.seen.is_some().then_some(Gap::Whole);
        };
        if !self.inserted {
            return Some(Gap::Before(first.key));
        }
        let seen = self.seen.as_ref()?;
        let gone = last.name == EventName::Remove
            && self.latest.as_ref().is_some_and(|(.., state)| *state == State::Absent)
            && last.created_us < seen.read_us.saturating_sub(MARGIN_US);
        let sequence = last.order.sequence().filter(|_| gone)?;
        Some(Gap::Behind { sequence, removal: last.key })
    }
}

/// Whether a change may have been made before the item was read.
pub fn is_before(change: &Change, read_us: i64) -> bool {
    change.backfilled || change.created_us <= read_us.saturating_add(MARGIN_US)
}

#[cfg(test)]
mod tests {
    use super::*;
    use EventName::{Insert, Modify, Remove};
    use proptest::prelude::*;

    const READ: i64 = 1_793_500_000_000_000;
    const SECOND: i64 = 1_000_000;

    fn change(sequence: u64, seconds: i64, name: EventName) -> Change {
        Change {
            order: Order::captured(&sequence.to_string().parse().unwrap()),
            name,
            backfilled: false,
            created_us: READ + seconds * SECOND,
            key: EventKey::least_at(sequence as i64),
            state: if name == Remove { State::Absent } else { State::Unknown },
            group: None,
            month: "2026-11".parse().unwrap(),
            item: "{}".into(),
        }
    }

    fn backfilled(behind: Option<u64>) -> Change {
        let behind = behind.map(|n| n.to_string().parse().unwrap());
        Change { order: Order::backfilled(behind.as_ref()), backfilled: true, ..change(1, 9_999, Insert) }
    }

    fn gap(there: bool, changes: &[Change]) -> Option<Gap> {
        let seen = Seen { part: 0, offset: 0, read_us: READ, image: ItemHash([1; 16]), item: "{}".into() };
        let mut life = Life::new(ItemHash([0; 16]), there.then_some(seen), READ);
        changes.iter().for_each(|change| life.take(change));
        life.gap()
    }

    #[test]
    fn the_truth_table() {
        let before = |n| Some(Gap::Before(EventKey::least_at(n)));
        let behind =
            |n: i64| Some(Gap::Behind { sequence: n.to_string().parse().unwrap(), removal: EventKey::least_at(n) });
        for (what, there, changes, expected) in [
            ("never captured", true, vec![], Some(Gap::Whole)),
            ("never there", false, vec![], None),
            ("captured", true, vec![change(1, -600, Insert)], None),
            ("captured a moment ago", true, vec![change(1, 30, Insert)], None),
            (
                "read, then deleted and inserted again",
                true,
                vec![change(2, 600, Remove), change(3, 700, Insert)],
                Some(Gap::Whole),
            ),
            ("backfilled", true, vec![backfilled(None)], None),
            ("from the middle", true, vec![change(2, -600, Modify), change(3, -500, Modify)], before(2)),
            ("only its end", false, vec![change(2, -600, Remove)], before(2)),
            ("from the middle, backfilled", true, vec![backfilled(None), change(2, -600, Modify)], None),
            ("out of order", true, vec![change(2, -600, Modify), change(3, -601, Insert)], None),
            ("changed as it was read", true, vec![change(2, 20, Modify)], before(2)),
            ("back again unseen", true, vec![change(1, -900, Insert), change(2, -600, Remove)], behind(2)),
            (
                "back again, backfilled",
                true,
                vec![change(1, -900, Insert), change(2, -600, Remove), backfilled(Some(2))],
                None,
            ),
            ("deleted as it was read", true, vec![change(1, -900, Insert), change(2, -30, Remove)], None),
            ("deleted since", true, vec![change(1, -900, Insert), change(2, 300, Remove)], None),
            ("deleted", false, vec![change(1, -900, Insert), change(2, -600, Remove)], None),
            (
                "its removal came late",
                true,
                vec![change(1, -900, Insert), change(2, -500, Modify), change(3, -600, Remove)],
                None,
            ),
        ] {
            assert_eq!(gap(there, &changes), expected, "{what}");
        }
    }

    proptest! {
        /// An item that was captured from its first INSERT on has no gap, wherever it was read.
        #[test]
        fn invariant_2_what_was_captured_is_not_backfilled(steps in prop::collection::vec(any::<bool>(), 1..12), at in any::<prop::sample::Index>()) {
            let (mut there, mut changes, mut states) = (false, Vec::new(), vec![false]);
            for (i, delete) in steps.iter().enumerate() {
                let name = match (there, delete) {
                    (false, _) => Insert,
                    (true, true) => Remove,
                    (true, false) => Modify,
                };
                there = name != Remove;
                changes.push(change(i as u64 + 1, 0, name));
                states.push(there);
            }
            let at = at.index(states.len());
            for (i, change) in changes.iter_mut().enumerate() {
                change.created_us = READ + (i as i64 - at as i64) * 45 * SECOND + 20 * SECOND;
            }
            // One that was read before its first change was not there.
            prop_assert_eq!(gap(states[at], &changes), None);
        }

        /// What was found missing and is then backfilled is missing no more.
        #[test]
        fn invariant_9_a_gap_is_filled_once(names in prop::collection::vec(0usize..3, 0..6), there: bool) {
            let mut changes: Vec<Change> = names.iter().enumerate().map(|(i, name)| {
                change(i as u64 + 1, -1_000 + i as i64 * 100, [Insert, Modify, Remove][*name])
            }).collect();
            for _ in 0..3 {
                match gap(there, &changes) {
                    None => return Ok(()),
                    Some(Gap::Whole | Gap::Before(_)) => changes.push(backfilled(None)),
                    Some(Gap::Behind { sequence, .. }) => changes.push(backfilled(Some(sequence.as_str().parse().unwrap()))),
                }
            }
            prop_assert_eq!(gap(there, &changes), None);
        }
    }
}
