//! When a cell is sealed, and what leaves it.
//!
//! Sealing is housekeeping: it keeps the item small, so that a write costs little. It can be left out, done twice, or break
//! off in the middle, and no total changes.

use std::collections::BTreeSet;

use recount_schemas::EventKey;
use recount_schemas::bugs::{self, Bug};
use recount_schemas::items::PageName;

use super::Look;
use crate::tuning::Tuning;

/// Keys that are to leave `recent`: first the page is put, then the flip is sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Seal {
    /// The page's keys, ascending, at least one.
    pub keys: Vec<EventKey>,
    /// `sealed` after the flip: the greatest key that ever left `recent`.
    pub sealed: EventKey,
    /// The epoch in which the keys were seen in `recent`; the flip is for this epoch only.
    pub epoch: u64,
}

impl Seal {
    /// Whether the writer that made `recent` grow from `before` keys to `after` is the one to seal: it reached the limit, or
    /// a multiple of it. So one writer seals, not every one; and if it does not come to it, another does soon.
    pub fn is_due(before: usize, after: usize, tuning: &Tuning) -> bool {
        let limit = tuning.seal_at.max(1);
        after / limit > before / limit
    }

    /// What to seal: all but the keys of the last moments, of which some stay in for those that are still under way.
    pub fn plan(look: &Look, tuning: &Tuning) -> Option<Self> {
        let greatest = look.recent.last()?;
        let since = EventKey::least_at(greatest.created_ms().saturating_sub(tuning.keep_ms).saturating_add(1));
        let young = look.recent.range(since..).count();
        let kept = young.min(tuning.keep_keys);
        Self::of(look, look.recent.iter().take(look.recent.len().saturating_sub(kept)).copied().collect())
    }

    /// Seals these keys of `look.recent`; `None` if there are none, or one that is not in it.
    pub fn of(look: &Look, keys: BTreeSet<EventKey>) -> Option<Self> {
        let greatest = *keys.last()?;
        let sealed = match look.sealed {
            Some(before) if bugs::on(Bug::SealedIsNotRaised) => before,
            Some(before) if !bugs::on(Bug::SealedGoesBack) => before.max(greatest),
            _ => greatest,
        };
        keys.is_subset(&look.recent).then(|| Self { sealed, epoch: look.epoch, keys: keys.into_iter().collect() })
    }

    /// What the page holds: all keys that leave.
    pub fn page(&self) -> &[EventKey] {
        match self.keys.split_first() {
            Some((_, rest)) if bugs::on(Bug::PageMissesAKey) && !rest.is_empty() => rest,
            _ => &self.keys,
        }
    }

    /// The page's name, unique to its contents.
    pub fn page_name(&self) -> Option<PageName> {
        PageName::new(self.page(), self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(ms: impl IntoIterator<Item = i64>) -> Look {
        Look { recent: ms.into_iter().map(EventKey::least_at).collect(), epoch: 7, ..Look::default() }
    }

    #[test]
    fn the_writer_that_reaches_the_limit_or_a_multiple_seals() {
        let tuning = Tuning::new(35);
        for (before, after, due) in
            [(0, 51, false), (51, 52, true), (52, 53, false), (52, 103, false), (60, 104, true), (0, 1_000, true)]
        {
            assert_eq!(Seal::is_due(before, after, &tuning), due, "{before} {after}");
        }
    }

    #[test]
    fn the_last_seconds_stay_in() {
        let tuning = Tuning::new(35);
        let seal = Seal::plan(&look([10, 20, 7_999, 8_000, 8_001, 10_000]), &tuning).unwrap();
        assert_eq!(seal.keys, [10, 20, 7_999, 8_000].map(EventKey::least_at), "8,001 to 10,000 are the last 2 s");
        assert_eq!((seal.sealed, seal.epoch), (EventKey::least_at(8_000), 7));
        assert_eq!(seal.page_name(), PageName::new(&seal.keys, 7));
    }

    #[test]
    fn but_not_more_than_so_many_of_them() {
        let tuning = Tuning::new(35);
        assert_eq!(Seal::plan(&look(0..52), &tuning).unwrap().keys.len(), 39);
        assert_eq!(Seal::plan(&look(0..5), &tuning), None, "nothing old enough");
        assert_eq!(Seal::plan(&look([]), &tuning), None);
    }

    #[test]
    fn sealed_never_goes_back() {
        let mut look = look([1, 2]);
        look.sealed = Some(EventKey::least_at(9));
        assert_eq!(Seal::of(&look, look.recent.clone()).unwrap().sealed, EventKey::least_at(9));
        assert_eq!(Seal::of(&look, [EventKey::least_at(3)].into()), None);
        look.sealed = Some(EventKey::least_at(1));
        assert_eq!(Seal::of(&look, look.recent.clone()).unwrap().sealed, EventKey::least_at(2));
    }

    /// Write units per event of one cell that gets its events one by one, `gap_ms` apart: one for the event, two for a sealing
    /// (page and flip, all below 1 KB).
    fn cost_of_single_events(gap_ms: i64) -> f64 {
        let tuning = Tuning::new(35);
        let (events, mut writes) = (10_000, 0);
        let mut look = Look::default();
        for i in 0..events {
            let before = look.recent.len();
            look.recent.insert(EventKey::least_at(i * gap_ms));
            writes += 1;
            if Seal::is_due(before, look.recent.len(), &tuning) {
                let seal = Seal::plan(&look, &tuning).unwrap();
                look.recent.retain(|key| !seal.keys.contains(key));
                writes += 2;
            }
            assert!(look.recent.len() < tuning.seal_at, "the item stays below 1 KB");
        }
        f64::from(writes) / events as f64
    }

    #[test]
    fn an_event_that_comes_alone_costs_little_more_than_one_unit() {
        assert!(cost_of_single_events(10_000) < 1.041, "slow: one key stays in");
        assert!(cost_of_single_events(10) < 1.052, "fast: a quarter stays in");
    }
}
