//! Archived changes that do not say which item they are about: erased ones, which keep only what totals depend on.
//!
//! An item of the table whose INSERT was erased looks as if it had never been captured. So it is asked whether an INSERT that
//! does not say its item could be its own: one of its group at its time, or, where there are too many to tell them apart, one
//! of its group's month. Whoever could be erased is neither a finding nor brought in again.

use std::collections::{BTreeSet, HashSet};

use recount_schemas::{Group, Month};

use crate::table::item::{ItemHash, hash};

/// Most of them that are told apart by their times.
const MAX_TIMES: usize = 2_000_000;
/// Most months of groups.
const MAX_MONTHS: usize = 200_000;

/// The changes that do not say their item.
#[derive(Debug, Default)]
pub struct Unnamed {
    /// How many there are.
    pub changes: u64,
    times: HashSet<ItemHash>,
    months: BTreeSet<(Group, Month)>,
    too_many_times: bool,
    too_many_months: bool,
}

fn time_of(group: &Group, occurred_us: i64) -> ItemHash {
    let mut bytes = occurred_us.to_be_bytes().to_vec();
    bytes.extend(group.as_str().as_bytes());
    hash(&bytes)
}

impl Unnamed {
    /// Takes one. `insert`: where it is an INSERT with a group, that, its month and the event's time.
    pub fn take(&mut self, insert: Option<(Group, Month, i64)>) {
        self.changes += 1;
        let Some((group, month, occurred_us)) = insert else { return };
        if self.times.len() < MAX_TIMES {
            self.times.insert(time_of(&group, occurred_us));
        } else {
            self.too_many_times = true;
        }
        if self.months.len() < MAX_MONTHS {
            self.months.insert((group, month));
        } else {
            self.too_many_months = true;
        }
    }

    /// Whether there are more than are told apart at all: then any item may be one of them.
    pub fn is_too_many(&self) -> bool {
        self.too_many_months
    }

    /// Whether one of them may be the INSERT of an item of that group and month; and of that time, where it is known.
    pub fn may_be(&self, group: &Group, month: Month, occurred_us: Option<i64>) -> bool {
        let in_month = self.too_many_months || self.months.contains(&(group.clone(), month));
        in_month && occurred_us.is_none_or(|us| self.too_many_times || self.times.contains(&time_of(group, us)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_may_be_erased_only_if_an_insertion_of_its_group_and_time_is() {
        let (acme, other): (Group, Group) = ("acme".parse().unwrap(), "other".parse().unwrap());
        let (november, december) = ("2026-11".parse().unwrap(), "2026-12".parse().unwrap());
        let mut unnamed = Unnamed::default();
        assert!(!unnamed.may_be(&acme, november, None));
        unnamed.take(Some((acme.clone(), november, 7)));
        unnamed.take(None);
        assert_eq!(unnamed.changes, 2);
        for (group, month, us, expected) in [
            (&acme, november, Some(7), true),
            (&acme, november, None, true),
            (&acme, november, Some(8), false),
            (&acme, december, Some(7), false),
            (&other, november, Some(7), false),
        ] {
            assert_eq!(unnamed.may_be(group, month, us), expected, "{group} {month} {us:?}");
        }
        unnamed.too_many_times = true;
        assert!(unnamed.may_be(&acme, november, Some(8)) && !unnamed.may_be(&other, november, Some(8)));
    }
}
