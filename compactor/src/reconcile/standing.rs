//! What DynamoDB says of the cells, on its way through the external sort: one entry per cell, one per key of its ledger or
//! of its too-old list, in the order (month, group, then the cells, then the keys).

use std::io;

use recount_schemas::{Cell, Delta, EventKey, Group, Month};
use serde::{Deserialize, Serialize};

use crate::contributions::order;
use crate::contributions::spill::{Sorted, Sorter};

/// A cell's item as it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Whether there is an item.
    pub present: bool,
    /// Its number; zero where there is none.
    pub number: Delta,
    /// Its epoch.
    pub epoch: u64,
    /// The greatest key that ever left its `recent`.
    pub sealed: Option<EventKey>,
    /// How many keys its `recent` holds.
    pub recent: usize,
    /// The last repair plan applied to it.
    pub repair: Option<String>,
    /// What would take all its pages into its ledger, where some were not when they had been read.
    pub ahead: Option<Raise>,
    /// Whether such pages are damage by themselves: see [`Raise`].
    pub behind: bool,
}

/// What an item must say again that was deleted, or lost its `sealed`.
///
/// A page of the item's own epoch is a sealing that goes on or broke off: all its keys are counted and in `recent`, and
/// it is nothing to worry about. A page of a later epoch, or any page of a cell without an item, says that the item was
/// deleted (and perhaps made anew by a writer). Such a cell must be raised above its old pages before it is put right.
/// Otherwise they would come into its ledger one by one as it is sealed again, and late duplicates of their keys would be taken
/// for counted.
///
/// A cell that was deleted, made anew from old records and sealed again may have its old pages in its ledger, and `sealed`
/// below keys on them ([`Mark::Exposed`]). Nobody looks for such a key on a page. And events older than the ledger reaches back may have no page any more;
/// that they are counted is known by `sealed` alone. So an item whose `sealed` is below a key on a page of its ledger, or below
/// an event that is taken as counted, would count a copy of it again: it is raised to the greatest of them.
///
/// To raise a cell is safe at any time and beside any writer: `epoch` and `sealed` only grow, by a write that fails if the epoch
/// moved, and a new epoch makes every writer that searched the pages before look again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raise {
    /// One above the greatest epoch of its pages, and above its own.
    pub epoch: u64,
    /// The greatest key on its pages and of the events taken as counted, or its own `sealed` if that is greater.
    pub sealed: EventKey,
}

impl Raise {
    /// What an item at `epoch` with `sealed` must become; `None` where it is there already.
    pub fn over(&self, epoch: u64, sealed: Option<EventKey>) -> Option<Self> {
        if epoch >= self.epoch && sealed >= Some(self.sealed) {
            return None;
        }
        let sealed = sealed.map_or(self.sealed, |sealed| sealed.max(self.sealed));
        Some(Self { epoch: self.epoch.max(epoch.saturating_add(1)), sealed })
    }
}

/// How a key stands in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// In the ledger: in `recent`, or on a page with an epoch below the item's.
    Kept,
    /// In the ledger, on a page only, and above `sealed`: no writer looks for it there. A key leaves `recent` only by a
    /// sealing, which raises `sealed` to it, so this is damage.
    Exposed,
    /// On a page with an epoch at or above the item's.
    Ahead,
    /// On the too-old list.
    Listed,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A cell.
    Cell(Cell, Head),
    /// A key of a cell.
    Key(Cell, EventKey, Mark),
}

impl Standing {
    /// Its month and group.
    pub fn unit(&self) -> (Month, &Group) {
        let (Self::Cell(cell, _) | Self::Key(cell, ..)) = self;
        (cell.month, &cell.group)
    }
}

/// Gives a cell's item to the sort.
pub fn push_head(sorter: &mut Sorter, cell: &Cell, head: &Head) -> io::Result<()> {
    let mut key = order::unit(cell.month, &cell.group);
    key.push(0);
    key.extend(cell.lane.to_be_bytes());
    sorter.push(key, serde_json::to_vec(head).map_err(io::Error::other)?)
}

/// Gives a key of a cell to the sort.
pub fn push_key(sorter: &mut Sorter, cell: &Cell, key: EventKey, mark: Mark) -> io::Result<()> {
    let mut bytes = order::unit(cell.month, &cell.group);
    bytes.push(1);
    bytes.extend(key.as_bytes());
    bytes.extend(cell.lane.to_be_bytes());
    bytes.push(match mark {
        Mark::Kept => 0,
        Mark::Ahead => 1,
        Mark::Listed => 2,
        Mark::Exposed => 3,
    });
    sorter.push(bytes, Vec::new())
}

/// The entries, in order.
#[derive(Debug)]
pub struct Standings(Sorted);

impl Standings {
    /// What was given to a sort.
    pub fn new(sorted: Sorted) -> Self {
        Self(sorted)
    }
}

impl Iterator for Standings {
    type Item = io::Result<Standing>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.0.next()?;
        let damaged = || io::Error::other("an entry of the temporary file is damaged");
        Some(entry.and_then(|(key, value)| decode(&key, &value).ok_or_else(damaged)))
    }
}

fn decode(bytes: &[u8], value: &[u8]) -> Option<Standing> {
    let (month, group, rest) = order::split_unit(bytes)?;
    match rest.split_first()? {
        (0, lane) => {
            let cell = Cell { group, month, lane: u16::from_be_bytes(lane.try_into().ok()?) };
            Some(Standing::Cell(cell, serde_json::from_slice(value).ok()?))
        }
        (1, rest) => {
            let (key, rest) = rest.split_at_checked(EventKey::LEN)?;
            let (lane, mark) = rest.split_at_checked(2)?;
            let mark = match mark {
                [0] => Mark::Kept,
                [1] => Mark::Ahead,
                [2] => Mark::Listed,
                [3] => Mark::Exposed,
                _ => return None,
            };
            let cell = Cell { group, month, lane: u16::from_be_bytes(lane.try_into().ok()?) };
            Some(Standing::Key(cell, EventKey::from_slice(key)?, mark))
        }
        _ => None,
    }
}
