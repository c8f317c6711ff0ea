//! Numbers that a plan would lower though the archive may have lost their events. Pure.
//!
//! A number above its archived events was miscounted; or the events were real, were counted, and fell into a hole that the
//! stream's retention left in the archive (a `lost` finding). Nothing that is left can tell which. So such a cell is withheld
//! unless the operator accepts that events may be taken out of a number that did happen.
//!
//! | the plan | withheld if |
//! | --- | --- |
//! | lowers nothing | never |
//! | declares keys void | one of them was created while the hole came about: a key says when |
//! | lowers a number without naming a key, or by more events than it names keys | the definition has no time of the event, and the cell's month meets the hole's time; or it has one, and then any month may |

use recount_schemas::definition::OccurredAt;
use recount_schemas::{Amount, Cell, Definition, Month};
use serde::{Deserialize, Serialize};

use super::plan::{CellPlan, Plan};
use crate::log::state::Hole;

/// How long before its arrival in the stream a change may have been made: DynamoDB Streams keeps 24 hours, and clocks differ.
const SLACK_MS: i64 = 2 * 86_400_000;

/// A cell that is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withheld {
    /// The cell.
    pub cell: Cell,
    /// By how many events its number would change.
    pub events: i64,
    /// The entry of the archive's log that found the hole.
    pub log_entry: u64,
    /// Why, in words.
    pub why: String,
}

/// The cells of a plan that a hole may explain.
pub fn withheld(plan: &Plan, holes: &[Hole], definition: &Definition) -> Vec<Withheld> {
    let of = |cell: &CellPlan| {
        let hole = holes.iter().find(|hole| may_explain(hole, cell, definition))?;
        let why = format!(
            "its number would go from what was counted to what is archived, by {}; log entry {} says that records of shard {} may \
             be lost from the archive, and these may be among them",
            crate::reconcile::diff::in_words(&cell.add),
            hole.n,
            hole.shard
        );
        Some(Withheld { cell: cell.cell.clone(), events: cell.add.events, log_entry: hole.n, why })
    };
    plan.cells.iter().filter_map(of).collect()
}

fn may_explain(hole: &Hole, cell: &CellPlan, definition: &Definition) -> bool {
    let lowers = cell.add.events < 0 || cell.add.sums.iter().any(|sum| *sum < Amount::ZERO);
    let from = hole.lost.since_ms.map_or(i64::MIN, |ms| ms.saturating_sub(SLACK_MS));
    let to = hole.lost.found_ms.saturating_add(SLACK_MS);
    if !lowers {
        return false;
    }
    let named = i64::try_from(cell.void.len()).unwrap_or(i64::MAX);
    if cell.void.iter().any(|key| (from..=to).contains(&key.created_ms())) {
        return true;
    }
    // A key has counted one event at most. What goes beyond the keys names nobody, as where there is no key at all.
    if named > 0 && cell.add.events >= -named {
        return false;
    }
    if definition.occurred_at != OccurredAt::CreationTime {
        return true;
    }
    let month = |ms: i64| Month::of(ms.saturating_mul(1_000), definition.zone.rules());
    let begun = month(from).is_none_or(|first| first <= cell.cell.month);
    begun && month(to).is_none_or(|last| cell.cell.month <= last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Stream;
    use crate::log::entry::Lost;
    use recount_schemas::{Delta, EventKey};

    /// 2026-11-15T00:00:00Z.
    const NOVEMBER: i64 = 1_794_700_800_000;
    const DAY: i64 = 86_400_000;

    fn definition(fold: &str) -> Definition {
        let text = format!("[source]\ntable='t'\nkey=['a']\n[fold]\ngroup_by='g'\n{fold}");
        Definition::parse(&text, "recount.toml").unwrap()
    }

    fn hole() -> Hole {
        Hole {
            n: 7,
            stream: Stream { arn: "arn".into(), created_ms: 1 },
            shard: "shardId-000000000001".parse().unwrap(),
            lost: Lost { after: None, before: None, since_ms: Some(NOVEMBER - DAY), found_ms: NOVEMBER },
        }
    }

    fn is_withheld(month: &str, add: i64, void: &[i64], fold: &str) -> bool {
        let definition = definition(fold);
        let cell = CellPlan {
            cell: Cell { group: "acme".parse().unwrap(), month: month.parse().unwrap(), lane: 0 },
            seen: None,
            add: Delta { events: add, ..Delta::zero(0) },
            raise: None,
            missing: Vec::new(),
            void: void.iter().map(|ms| EventKey::least_at(*ms)).collect(),
            settled: Vec::new(),
        };
        let plan = Plan { format: 1, definition: definition.hash().to_owned(), cells: vec![cell] };
        !withheld(&plan, &[hole()], &definition).is_empty()
    }

    #[test]
    fn what_a_hole_may_explain_is_withheld() {
        let own_time = "occurred_at='t'";
        for (month, add, void, fold, expected) in [
            ("2026-11", -1, &[][..], "", true),
            ("2026-11", 1, &[], "", false),
            ("2026-11", 0, &[NOVEMBER], "", false),
            ("2026-10", -1, &[], "", false),
            ("2026-12", -1, &[], "", false),
            ("2026-10", -1, &[], own_time, true),
            ("2026-11", -1, &[NOVEMBER - 3_600_000], "", true),
            ("2026-10", -1, &[NOVEMBER - 2 * DAY], own_time, true),
            ("2026-11", -1, &[NOVEMBER - 9 * DAY, NOVEMBER + 9 * DAY], own_time, false),
            ("2026-11", -2, &[NOVEMBER - 9 * DAY, NOVEMBER + 9 * DAY], own_time, false),
            ("2026-11", -3, &[NOVEMBER - 9 * DAY, NOVEMBER + 9 * DAY], own_time, true),
            ("2026-11", -3, &[NOVEMBER - 9 * DAY], "", true),
            ("2026-09", -3, &[NOVEMBER - 9 * DAY], "", false),
        ] {
            assert_eq!(is_withheld(month, add, void, fold), expected, "{month} {add} {void:?} {fold}");
        }
    }
}
