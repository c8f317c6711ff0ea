//! The steps of a writer that has keys to count in one cell.
//!
//! [`Applying::step`] says what to do next:
//!
//! | last look | least key to do | keys to do | step |
//! | --- | --- | --- | --- |
//! | – | – | none | [`Step::Done`] |
//! | none yet | – | up to 96 | update, [`Guard::Fast`]: no read before it |
//! | none yet | – | more | [`Step::Look`] |
//! | `recent` at the hard limit | – | any | [`Step::Seal`], then look again |
//! | seen | above `sealed` | up to 96, or disturbed before | update, [`Guard::Fast`] |
//! | seen | above `sealed` | more | update, [`Guard::Exact`] |
//! | seen, pages not searched since | late | any | [`Step::Search`] |
//! | seen, then pages searched | late | up to 96, or disturbed before | update, [`Guard::Late`] |
//! | seen, then pages searched | late | more | update, [`Guard::Exact`] |
//!
//! An update takes the least keys first, so that late ones go together; keys above `sealed` may go with them, since the guards
//! of a late write say more than those of a fast one.
//!
//! What each answer means, for each key still to do:
//!
//! | answer | key | verdict |
//! | --- | --- | --- |
//! | update done | in the update | applied |
//! | update done or refused, or a look: the item as it is now | in `recent` | duplicate |
//! | the same | late, and older than the ledger reaches back | too old |
//! | pages searched | on one of them | duplicate |
//! | otherwise | | still to do |

use std::collections::BTreeSet;

use recount_schemas::EventKey;
use recount_schemas::bugs::{self, Bug};

use super::{Look, Seal};
use crate::tuning::Tuning;

/// What an update's condition says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Guard {
    /// No key is in `recent`, and `sealed` is absent or below `least`.
    Fast {
        /// The least key of the update.
        least: EventKey,
    },
    /// No key is in `recent`, and the epoch is still this.
    Late {
        /// The epoch of the look after which the pages were searched.
        epoch: u64,
    },
    /// The epoch and the number of keys in `recent` are still these.
    Exact {
        /// The epoch of the look.
        epoch: u64,
        /// The size of `recent` in the look.
        size: usize,
    },
}

/// Keys to add to a cell, on a condition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Update {
    /// The keys, ascending, at least one.
    pub keys: Vec<EventKey>,
    /// The condition.
    pub guard: Guard,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Read the item, then [`Applying::saw`].
    Look,
    /// Search all pages from this key to the end, consistently, for [`Applying::todo`]; then [`Applying::searched`].
    Search {
        /// The least late key.
        from: EventKey,
    },
    /// Send the update, then [`Applying::applied`] or [`Applying::refused`].
    Update(Update),
    /// The cell is full: seal it, then [`Applying::saw`] what it is then.
    Seal(Seal),
    /// The cell is full and nothing can be sealed, or the cell was refused too often: give up, it may pass.
    GiveUp,
    /// Every key has its verdict.
    Done,
}

/// What became of each key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Outcome {
    /// Counted now.
    pub applied: Vec<EventKey>,
    /// In the ledger before.
    pub duplicates: Vec<EventKey>,
    /// Late, and older than the ledger reaches back: not counted.
    pub too_old: Vec<EventKey>,
}

/// A writer in the middle of its work on one cell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Applying {
    todo: BTreeSet<EventKey>,
    look: Option<Look>,
    /// The epoch at which the pages were searched for all of `todo`.
    searched: Option<u64>,
    outcome: Outcome,
    crossed: bool,
    refusals: u32,
    exact_refusals: u32,
}

impl Applying {
    /// Work on these keys, none of it done.
    pub fn new(keys: impl IntoIterator<Item = EventKey>) -> Self {
        Self {
            todo: keys.into_iter().collect(),
            look: None,
            searched: None,
            outcome: Outcome::default(),
            crossed: false,
            refusals: 0,
            exact_refusals: 0,
        }
    }

    /// The keys that have no verdict yet.
    pub fn todo(&self) -> &BTreeSet<EventKey> {
        &self.todo
    }

    /// The verdicts so far.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// The verdicts.
    pub fn into_outcome(self) -> Outcome {
        self.outcome
    }

    /// How often an update was refused.
    pub fn refusals(&self) -> u32 {
        self.refusals
    }

    /// What to do next: see the table at the top of this module.
    pub fn step(&self, tuning: &Tuning) -> Step {
        let Some(least) = self.todo.first().copied() else {
            return Step::Done;
        };
        if self.refusals > tuning.refusals {
            return Step::GiveUp;
        }
        let few = self.todo.len() <= tuning.named_keys;
        let portion = |most: usize| self.todo.iter().take(most).copied().collect::<Vec<_>>();
        let Some(look) = &self.look else {
            return if few {
                Step::Update(Update { keys: portion(tuning.named_keys), guard: Guard::Fast { least } })
            } else {
                Step::Look
            };
        };
        let size = look.recent.len();
        let Some(room) = tuning.hard_limit.checked_sub(size).filter(|room| *room > 0) else {
            return Seal::plan(look, tuning).map_or(Step::GiveUp, Step::Seal);
        };
        let late = look.is_late(&least);
        let searched =
            self.searched == Some(look.epoch) || (self.searched.is_some() && bugs::on(Bug::SearchIsNotRepeated));
        if late && !searched {
            let greatest = self.todo.last().filter(|_| bugs::on(Bug::SearchFromTheGreatest));
            return Step::Search { from: greatest.copied().unwrap_or(least) };
        }
        let named = few || self.exact_refusals >= tuning.exact_refusals;
        Step::Update(match (named, late) {
            (true, false) => Update { keys: portion(tuning.named_keys), guard: Guard::Fast { least } },
            (true, true) => Update { keys: portion(tuning.named_keys), guard: Guard::Late { epoch: look.epoch } },
            (false, _) => {
                let keys = portion(tuning.write_keys.min(room));
                Update { keys, guard: Guard::Exact { epoch: look.epoch, size } }
            }
        })
    }

    /// The item was read. `now_ms` is the time before which the ledger's reach is taken.
    pub fn saw(&mut self, look: Look, now_ms: i64, tuning: &Tuning) {
        let oldest = now_ms.saturating_sub(tuning.ledger_ms);
        let Outcome { duplicates, too_old, .. } = &mut self.outcome;
        self.todo.retain(|key| {
            if look.recent.contains(key) {
                duplicates.push(*key);
                return false;
            }
            if look.is_late(key) && key.created_ms() < oldest && !bugs::on(Bug::TooOldIsCounted) {
                too_old.push(*key);
                return false;
            }
            true
        });
        self.look = Some(look);
    }

    /// The pages were searched, after the last look; `found` of the keys to do are on them.
    pub fn searched(&mut self, found: &BTreeSet<EventKey>) {
        let duplicates = &mut self.outcome.duplicates;
        self.todo.retain(|key| {
            let known = found.contains(key);
            if known {
                duplicates.push(*key);
            }
            !known
        });
        self.searched = self.look.as_ref().map(|look| look.epoch);
    }

    /// The update was done, and this is the item after it.
    pub fn applied(&mut self, update: &Update, after: Look, now_ms: i64, tuning: &Tuning) {
        for key in &update.keys {
            self.todo.remove(key);
        }
        self.outcome.applied.extend_from_slice(&update.keys);
        self.crossed |= Seal::is_due(after.recent.len().saturating_sub(update.keys.len()), after.recent.len(), tuning);
        self.saw(after, now_ms, tuning);
    }

    /// The update was refused, and this is the item at that moment.
    pub fn refused(&mut self, update: &Update, now: Look, now_ms: i64, tuning: &Tuning) {
        self.refusals += 1;
        if matches!(update.guard, Guard::Exact { .. }) {
            self.exact_refusals += 1;
        }
        self.saw(now, now_ms, tuning);
    }

    /// The last look.
    #[cfg(test)]
    pub(super) fn look(&self) -> Option<&Look> {
        self.look.as_ref()
    }

    /// Forgets what no step depends on any more, so that a search through states knows equal ones.
    #[cfg(test)]
    pub(super) fn forget(&mut self) {
        self.outcome = Outcome::default();
        self.crossed = false;
        self.refusals = 0;
        self.exact_refusals = self.exact_refusals.min(2);
        if let Some(look) = &mut self.look {
            look.events = 0;
        }
    }

    /// What to seal now that the keys have their verdicts: this writer made `recent` reach the limit or a multiple of it.
    pub fn seal(&self, tuning: &Tuning) -> Option<Seal> {
        self.look.as_ref().filter(|_| self.crossed).and_then(|look| Seal::plan(look, tuning))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(ms: i64) -> EventKey {
        EventKey::least_at(ms)
    }

    fn keys(range: std::ops::Range<i64>) -> Vec<EventKey> {
        range.map(key).collect()
    }

    fn tuning() -> Tuning {
        Tuning::new(1)
    }

    fn guard(step: Step) -> (usize, Guard) {
        match step {
            Step::Update(update) => (update.keys.len(), update.guard),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_to_do_is_done() {
        assert_eq!(Applying::new([]).step(&tuning()), Step::Done);
    }

    #[test]
    fn up_to_96_keys_go_without_a_read() {
        let work = Applying::new(keys(10..106));
        assert_eq!(guard(work.step(&tuning())), (96, Guard::Fast { least: key(10) }));
        assert_eq!(Applying::new(keys(10..107)).step(&tuning()), Step::Look);
    }

    #[test]
    fn more_keys_need_an_unchanged_recent_until_others_disturb_too_often() {
        let tuning = tuning();
        let mut work = Applying::new(keys(10..210));
        let look = Look { recent: [key(1)].into(), epoch: 4, sealed: Some(key(0)), ..Look::default() };
        work.saw(look.clone(), 0, &tuning);
        for _ in 0..tuning.exact_refusals {
            let Step::Update(update) = work.step(&tuning) else { panic!() };
            assert_eq!((update.keys.len(), &update.guard), (200, &Guard::Exact { epoch: 4, size: 1 }));
            work.refused(&update, look.clone(), 0, &tuning);
        }
        assert_eq!(guard(work.step(&tuning)), (96, Guard::Fast { least: key(10) }));
    }

    #[test]
    fn keys_get_their_verdicts_from_the_item_and_the_pages() {
        let tuning = tuning();
        let day = crate::tuning::DAY_MS;
        let (old, paged, late, known, new) = (key(5), key(day + 50), key(day + 60), key(day + 70), key(day + 90));
        let mut work = Applying::new([old, paged, late, known, new]);
        let Step::Update(update) = work.step(&tuning) else { panic!() };
        let look = Look { recent: [known].into(), sealed: Some(key(day + 80)), epoch: 2, ..Look::default() };
        work.refused(&update, look, day + 100, &tuning);
        assert_eq!((&work.outcome().duplicates, &work.outcome().too_old), (&vec![known], &vec![old]));
        assert_eq!(work.todo(), &[paged, late, new].into());
        assert_eq!(work.step(&tuning), Step::Search { from: paged });
        work.searched(&[paged].into());
        let Step::Update(update) = work.step(&tuning) else { panic!() };
        assert_eq!(update, Update { keys: vec![late, new], guard: Guard::Late { epoch: 2 } });
        let after =
            Look { recent: [known, late, new].into(), sealed: Some(key(day + 80)), epoch: 2, ..Look::default() };
        work.applied(&update, after, day + 100, &tuning);
        assert_eq!(work.step(&tuning), Step::Done);
        assert_eq!(work.seal(&tuning), None);
        let outcome = work.into_outcome();
        assert_eq!((outcome.applied, outcome.duplicates), (vec![late, new], vec![known, paged]));
    }

    #[test]
    fn another_epoch_makes_the_search_worthless() {
        let tuning = tuning();
        let mut work = Applying::new([key(1)]);
        work.saw(Look { sealed: Some(key(3)), epoch: 1, ..Look::default() }, 0, &tuning);
        work.searched(&BTreeSet::new());
        let Step::Update(update) = work.step(&tuning) else { panic!() };
        work.refused(&update, Look { sealed: Some(key(4)), epoch: 2, ..Look::default() }, 0, &tuning);
        assert_eq!(work.step(&tuning), Step::Search { from: key(1) });
    }

    #[test]
    fn a_full_cell_is_sealed_before_more_is_added() {
        let tuning = Tuning { hard_limit: 100, ..tuning() };
        let mut work = Applying::new(keys(20_000..20_200));
        work.saw(Look { recent: keys(0..90).into_iter().collect(), ..Look::default() }, 0, &tuning);
        assert_eq!(guard(work.step(&tuning)).0, 10, "only what there is room for");
        work.saw(Look { recent: keys(0..100).into_iter().collect(), ..Look::default() }, 0, &tuning);
        let Step::Seal(seal) = work.step(&tuning) else { panic!() };
        assert_eq!(seal.keys.len(), 87);
    }

    #[test]
    fn a_writer_gives_up_after_too_many_refusals() {
        let tuning = tuning();
        let mut work = Applying::new([key(1)]);
        for _ in 0..=tuning.refusals {
            let Step::Update(update) = work.step(&tuning) else { panic!() };
            work.refused(&update, Look::default(), 0, &tuning);
        }
        assert_eq!(work.step(&tuning), Step::GiveUp);
        assert_eq!(work.refusals(), tuning.refusals + 1);
    }

    #[test]
    fn who_makes_recent_reach_the_limit_seals_and_nobody_else() {
        let tuning = tuning();
        let grown = |before: i64, now: i64| {
            let mut work = Applying::new(keys(10_000 + before..10_000 + now));
            let Step::Update(update) = work.step(&tuning) else { panic!() };
            let recent = (0..before).chain(10_000 + before..10_000 + now).map(key).collect();
            work.applied(&update, Look { recent, ..Look::default() }, 0, &tuning);
            work.seal(&tuning)
        };
        assert_eq!(grown(50, 51), None);
        assert_eq!(grown(51, 52).map(|seal| seal.keys.len()), Some(51), "the new key is of the last seconds");
        assert_eq!(grown(52, 53), None);
    }

    #[test]
    fn an_exact_update_takes_the_place_of_many_when_pages_were_searched() {
        let tuning = tuning();
        let mut work = Applying::new(keys(10..210));
        work.saw(Look { sealed: Some(key(15)), epoch: 4, ..Look::default() }, 0, &tuning);
        assert_eq!(work.step(&tuning), Step::Search { from: key(10) });
        work.searched(&BTreeSet::new());
        assert_eq!(guard(work.step(&tuning)), (200, Guard::Exact { epoch: 4, size: 0 }));
    }

    #[test]
    fn a_late_key_is_too_old_only_beyond_the_reach_of_the_ledger() {
        let tuning = tuning();
        let sealed = Look { sealed: Some(key(90)), ..Look::default() };
        let mut work = Applying::new([key(49), key(50), key(51)]);
        work.saw(sealed, tuning.ledger_ms + 50, &tuning);
        assert_eq!(work.outcome().too_old, [key(49)]);
        let mut work = Applying::new([key(49)]);
        work.saw(Look { sealed: Some(key(48)), ..Look::default() }, tuning.ledger_ms + 50, &tuning);
        assert_eq!(work.outcome().too_old, [], "old, but above what was sealed: `recent` would have it");
    }
}
