//! The archive as it was when an entry of its log was the last one.
//!
//! Files are merged and replaced, so the rows of a commit do not stay in its file. Their positions stay:
//!
//! | the row | it was there at entry n if |
//! | --- | --- |
//! | was read from the stream: its position is in a range of an entry by which its file's rows came | that position was read by an entry up to n |
//! | was brought by another way, redriven or backfilled | the entry that brought it is n or before |
//!
//! Which entry brought a row is no longer known where files of several such entries were merged and n lies between them. Those rows
//! are counted as *undated*, and not listed.
//!
//! A redriven record stood at a position that an entry read, too, and counted as quarantined there. So in a file that has both kinds of rows, a
//! position that is in quarantine is taken for a redriven one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use recount_schemas::{SequenceNumber, ShardId};

use crate::history::{History, Origins, Positions};

/// A moment of the archive, as typed: the number of an entry, or a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Entry n is the last one.
    Entry(u64),
    /// The last entry that was made at or before this time, ms since 1970, is the last one.
    Time(i64),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Entry).map_err(|_| "the number of a log entry has at most 19 digits".into());
        }
        let time: jiff::Timestamp =
            text.parse().map_err(|_| "expected the number of a log entry, or a time as 2026-11-22T19:00:00Z")?;
        Ok(Self::Time(time.as_millisecond()))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(n) => write!(f, "log entry {n}"),
            Self::Time(ms) => match jiff::Timestamp::from_millisecond(*ms) {
                Ok(time) => write!(f, "{time}"),
                Err(_) => write!(f, "{ms} ms"),
            },
        }
    }
}

/// The archive had no such moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the archive's log has {entries} entries and none at {moment}; `recount fsck` says how many there are")]
pub struct NoSuchMoment {
    /// What was asked.
    pub moment: Moment,
    /// How many entries there are.
    pub entries: u64,
}

/// Whether a row was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Was {
    /// It was.
    There,
    /// It came later.
    Later,
    /// Nobody can say any more.
    Undated,
}

/// The archive at an entry.
#[derive(Debug)]
pub struct AsOf<'h> {
    history: &'h History,
    n: u64,
    read: Positions,
    quarantined: &'h BTreeSet<(ShardId, SequenceNumber)>,
    /// Of each file that has rows of both kinds: what its entries read.
    mixed: BTreeMap<&'h str, Positions>,
}

impl<'h> AsOf<'h> {
    /// The archive at a moment. `quarantined`: the positions of all kept records.
    pub fn new(
        history: &'h History,
        moment: Moment,
        quarantined: &'h BTreeSet<(ShardId, SequenceNumber)>,
    ) -> Result<Self, NoSuchMoment> {
        let n = match moment {
            Moment::Entry(n) => Some(n).filter(|n| *n < history.state.next),
            Moment::Time(ms) => history.as_of_ms(ms),
        };
        let n = n.ok_or(NoSuchMoment { moment, entries: history.state.next })?;
        let both = history.origins.iter().filter(|(_, of)| !of.read.is_empty() && !of.brought.is_empty());
        let mixed = both.map(|(target, of)| (target.as_str(), history.positions_of(&of.read))).collect();
        Ok(Self { history, n, read: history.positions_up_to(n), quarantined, mixed })
    }

    /// The last entry at that moment.
    pub fn entry(&self) -> u64 {
        self.n
    }

    /// When that entry was made, ms since 1970.
    pub fn at_ms(&self) -> Option<i64> {
        Some(self.history.entries.get(usize::try_from(self.n).ok()?)?.at_ms)
    }

    /// Whether a row of a live file was there.
    pub fn was(&self, target: &str, shard: &ShardId, sequence: &SequenceNumber) -> Was {
        let none = Origins::default();
        let origins = self.history.origins.get(target).map_or(&none, |origins| origins);
        let brought = match (origins.read.is_empty(), origins.brought.is_empty()) {
            (_, true) => false,
            (true, false) => true,
            (false, false) => {
                let read = self.mixed.get(target).is_some_and(|read| read.has(shard.as_str(), sequence.as_str()));
                !read || self.quarantined.contains(&(shard.clone(), sequence.clone()))
            }
        };
        if !brought {
            return match self.read.has(shard.as_str(), sequence.as_str()) {
                true => Was::There,
                false => Was::Later,
            };
        }
        let earlier = origins.brought.iter().filter(|n| **n <= self.n).count();
        match (earlier, origins.brought.len()) {
            (earlier, all) if earlier == all => Was::There,
            (0, _) => Was::Later,
            _ => Was::Undated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::tests::told;

    #[test]
    fn a_moment_is_a_number_or_a_time() {
        assert_eq!("17".parse(), Ok(Moment::Entry(17)));
        assert_eq!("1970-01-01T01:00:01+01:00".parse(), Ok(Moment::Time(1_000)));
        for wrong in ["", "yesterday", "-1", "99999999999999999999", "2026-11-22"] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rows_are_dated_by_their_positions_also_after_a_compaction() {
        // Entries 0 and 3 read shard a to 10 and 20, entry 1 shard b to 7; entry 2 brought a row; entry 4 merged the first three.
        let history = told();
        let none = BTreeSet::new();
        let (merged, later) = (
            crate::log::names::target("2026-11".parse().unwrap(), 4, 4, 0),
            crate::log::names::target("2026-11".parse().unwrap(), 4, 4, 1),
        );
        let was = |n: u64, target: &str, shard: &str, sequence: &str, quarantined: &BTreeSet<_>| {
            let as_of = AsOf::new(&history, Moment::Entry(n), quarantined).unwrap();
            as_of.was(target, &shard.parse().unwrap(), &sequence.parse().unwrap())
        };
        for (n, target, shard, sequence, expected) in [
            (0, &merged, "a", "10", Was::There),
            (0, &merged, "b", "7", Was::Later),
            (1, &merged, "b", "7", Was::There),
            (2, &later, "a", "11", Was::Later),
            (3, &later, "a", "11", Was::There),
            (4, &later, "a", "11", Was::There),
            // What none of the file's entries read was brought.
            (1, &merged, "backfill-0", "1", Was::Later),
            (2, &merged, "backfill-0", "1", Was::There),
            (1, &merged, "a", "15", Was::Later),
            (2, &merged, "a", "15", Was::There),
        ] {
            assert_eq!(was(n, target, shard, sequence, &none), expected, "{n} {target} {shard} {sequence}");
        }
        let quarantined = [("a".parse().unwrap(), "5".parse().unwrap())].into();
        assert_eq!(was(1, &merged, "a", "5", &quarantined), Was::Later, "redriven by entry 2");
        assert_eq!(was(2, &merged, "a", "5", &quarantined), Was::There);
    }

    #[test]
    fn a_moment_before_the_first_entry_or_behind_the_last_is_none() {
        let (history, none) = (told(), BTreeSet::new());
        for (moment, entry) in [
            (Moment::Entry(4), Some(4)),
            (Moment::Entry(5), None),
            (Moment::Time(999), None),
            (Moment::Time(1_015), Some(1)),
            (Moment::Time(i64::MAX), Some(4)),
        ] {
            assert_eq!(AsOf::new(&history, moment, &none).ok().map(|as_of| as_of.entry()), entry, "{moment}");
        }
        let error = AsOf::new(&history, Moment::Time(999), &none).unwrap_err().to_string();
        assert_eq!(
            error,
            "the archive's log has 5 entries and none at 1970-01-01T00:00:00.999Z; `recount fsck` says how many there are"
        );
    }
}
