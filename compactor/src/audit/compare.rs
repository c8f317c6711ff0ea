//! One item of the table against its archived changes. Pure.
//!
//! What was read of the table shows a moment (that of its page, or of the export); the archive has all changes, of which
//! only those up to that moment may be in it. The clocks differ, and a creation time may be known to the second only. So a
//! *window* of [`MARGIN_US`] lies around the moment, and the item may be in any state that it had within:
//!
//! | change | the state after it |
//! | --- | --- |
//! | the last one before the window, by position or by creation time | may be it |
//! | any within the window | may be it |
//! | behind the window | cannot be it |
//!
//! | the table has the item | among the states that may be | then |
//! | --- | --- | --- |
//! | yes | its content | as it must be |
//! | yes | contents, but not its own | `differs` |
//! | yes | no content | `never_captured` |
//! | no | absence | as it must be |
//! | no | no change before the window | as it must be; but by a Scan, which can look again, only if its first change was made after the reading began |
//! | no | contents only | `deletion_missed` |
//!
//! Of an item that is as it must be, all its changes are asked one thing more:
//!
//! | its changes | then |
//! | --- | --- |
//! | some, but no INSERT among them | `insert_missing`: a total lacks it |
//! | a backfilled INSERT before everything, and the first captured one is an INSERT made before that plan | `captured_twice`: a total has it twice |
//!
//! That is a suspicion. What is suspected is looked at again ([`Comparison::again`]): the item is read anew, then the archive
//! is brought to the tip. All changes that came before the first archiving are then in the first look, so the item's state is
//! that of its last one, or of any that came since.

use recount_schemas::EventName;
use serde::Serialize;

use crate::items::{Change, Order, Seen, State};
use crate::table::item::ItemHash;

/// How far clocks and the precision of creation times may be apart, µs.
pub const MARGIN_US: i64 = 60_000_000;
/// Most changes within a window that are told apart. An item with more is not compared: it would be by chance.
const MAX_WITHIN: usize = 32;

/// What is wrong with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The table has it, the archive has no content of it.
    NeverCaptured,
    /// Its last archived content is another than the table's.
    Differs,
    /// Its last archived change is no REMOVE, but the table does not have it.
    DeletionMissed,
    /// It has archived changes, but its INSERT is not among them.
    InsertMissing,
    /// It was backfilled, and its INSERT, made before that, was captured after all: it is counted twice.
    CapturedTwice,
    /// A change of it stands in quarantine: captured, but not counted.
    Quarantined,
}

impl Kind {
    /// Its token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NeverCaptured => "never_captured",
            Self::Differs => "differs",
            Self::DeletionMissed => "deletion_missed",
            Self::InsertMissing => "insert_missing",
            Self::CapturedTwice => "captured_twice",
            Self::Quarantined => "quarantined",
        }
    }

    /// What it means.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::NeverCaptured => "in the table, but the archive has no content of it",
            Self::Differs => "its last archived content is not the table's",
            Self::DeletionMissed => "not in the table, but its last archived change is no REMOVE",
            Self::InsertMissing => "changes of it are archived, but no INSERT",
            Self::CapturedTwice => "backfilled, and its INSERT was captured later: it is counted twice",
            Self::Quarantined => "a change of it is in quarantine",
        }
    }
}

/// What the comparison keeps of one item.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The hash of its key.
    pub hash: ItemHash,
    /// As the table has it.
    pub seen: Option<Seen>,
    now: Option<ItemHash>,
    window: (i64, i64),
    before: Last,
    /// The states within the window, or since the item was looked at again.
    within: Vec<State>,
    crowded: bool,
    inserted: bool,
    /// When the plan of its backfilled INSERT was made.
    backfilled_us: Option<i64>,
    first: Option<(Order, EventName, i64)>,
    /// Its last change by position.
    pub last: Option<Change>,
    latest: Last,
    since: Option<Option<Order>>,
    /// By a Scan, when it began.
    began_us: Option<i64>,
    earliest_us: Option<i64>,
}

/// The last change by position and the last by creation time.
#[derive(Debug, Clone, Default)]
struct Last {
    position: Option<(Order, State)>,
    created: Option<(i64, Order, State)>,
}

impl Last {
    fn take(&mut self, change: &Change) {
        if self.position.as_ref().is_none_or(|(order, _)| *order <= change.order) {
            self.position = Some((change.order.clone(), change.state));
        }
        let created = moment(change);
        if self.created.as_ref().is_none_or(|(at, order, _)| (*at, order) <= (created, &change.order)) {
            self.created = Some((created, change.order.clone(), change.state));
        }
    }

    fn states(&self) -> impl Iterator<Item = State> {
        let position = self.position.as_ref().map(|(_, state)| *state);
        position.into_iter().chain(self.created.as_ref().map(|(_, _, state)| *state))
    }
}

/// A backfilled change stands for one before everything that was captured, whenever its plan was made.
fn moment(change: &Change) -> i64 {
    if change.backfilled { i64::MIN } else { change.created_us }
}

impl Comparison {
    /// Of an item with that hash. `read` are the moments that the whole reading shows: an item that the table does not have
    /// may have been missed at any of them.
    pub fn new(hash: ItemHash, seen: Option<Seen>, read: (i64, i64)) -> Self {
        let (from, to) = seen.as_ref().map_or(read, |seen| (seen.read_us, seen.read_us));
        Self {
            hash,
            now: seen.as_ref().map(|seen| seen.image),
            seen,
            window: (from.saturating_sub(MARGIN_US), to.saturating_add(MARGIN_US)),
            before: Last::default(),
            within: Vec::new(),
            crowded: false,
            inserted: false,
            backfilled_us: None,
            first: None,
            last: None,
            latest: Last::default(),
            since: None,
            began_us: None,
            earliest_us: None,
        }
    }

    /// The same, by a Scan that began then: what it does not show can be read again.
    pub fn by_a_scan(self, began_us: i64) -> Self {
        Self { began_us: Some(began_us), ..self }
    }

    /// The canonical text of its key.
    pub fn item(&self) -> &str {
        let seen = self.seen.as_ref().map(|seen| seen.item.as_str());
        seen.or(self.last.as_ref().map(|last| last.item.as_str())).unwrap_or_default()
    }

    /// Takes an archived change of it, in any order, and any number of times.
    pub fn take(&mut self, change: &Change) {
        self.inserted |= change.name == EventName::Insert;
        if change.order == Order::backfilled(None) {
            self.backfilled_us = Some(change.created_us);
        } else if self.first.as_ref().is_none_or(|(order, ..)| change.order < *order) {
            self.first = Some((change.order.clone(), change.name, change.created_us));
        }
        self.latest.take(change);
        self.earliest_us = Some(self.earliest_us.map_or(moment(change), |at| at.min(moment(change))));
        if self.last.as_ref().is_none_or(|last| last.order <= change.order) {
            self.last = Some(change.clone());
        }
        match &self.since {
            // It was known when the item was read again.
            Some(Some(known)) if change.order <= *known => {}
            Some(_) => self.within(change.state),
            None if moment(change) < self.window.0 => self.before.take(change),
            None if moment(change) <= self.window.1 => self.within(change.state),
            None => {}
        }
    }

    fn within(&mut self, state: State) {
        if self.within.contains(&state) {
            return;
        }
        if self.within.len() >= MAX_WITHIN {
            self.crowded = true;
        } else {
            self.within.push(state);
        }
    }

    /// From here on it is compared as it is now, `now`, which was read after all that it has taken was archived.
    pub fn again(&mut self, now: Option<ItemHash>) {
        self.now = now;
        self.before = self.latest.clone();
        self.within.clear();
        self.crowded = false;
        self.since = Some(self.last.as_ref().map(|last| last.order.clone()));
    }

    /// Whether the table has it, as far as it was read last.
    pub fn is_there(&self) -> bool {
        self.now.is_some()
    }

    /// Whether it has a change of before the Scan began, which should therefore have shown it.
    fn was_there(&self) -> bool {
        self.began_us.zip(self.earliest_us).is_some_and(|(began, earliest)| earliest <= began)
    }

    /// What is wrong with it; see the table at the top.
    pub fn verdict(&self) -> Option<Kind> {
        let states = || self.before.states().chain(self.within.iter().copied());
        let wrong = match self.now {
            _ if self.crowded => None,
            Some(now) if states().any(|state| state == State::Image(now) || state == State::Unknown) => None,
            Some(_) if states().any(|state| matches!(state, State::Image(_))) => Some(Kind::Differs),
            Some(_) => Some(Kind::NeverCaptured),
            None if states().any(|state| state == State::Absent) => None,
            None if self.before.position.is_none() && !self.was_there() => None,
            None => Some(Kind::DeletionMissed),
        };
        let lacks = self.last.is_some() && !self.inserted;
        let planned = self.backfilled_us.zip(self.first.as_ref());
        let twice = planned.is_some_and(|(at, (_, name, created))| *name == EventName::Insert && *created <= at);
        wrong.or(lacks.then_some(Kind::InsertMissing)).or(twice.then_some(Kind::CapturedTwice))
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
