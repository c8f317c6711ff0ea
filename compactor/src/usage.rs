//! The live totals as the totals table has them: months and years, against the quota. Lanes are summed.

use std::collections::BTreeMap;

use futures::StreamExt;
use recount_consumer::totals::{Totals, TotalsError};
use recount_schemas::{Amount, Definition, Delta, Group, Month, Year};
use serde::{Deserialize, Serialize};

use crate::reconcile::finding::named_sums;

/// Totals by month and by year: also the shape in which `recompute` says what it found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// One line per group and month, in this order.
    pub months: Vec<MonthLine>,
    /// One line per group and year, in this order.
    pub years: Vec<YearLine>,
    /// Items of the totals that are not understood, with the reasons: their numbers are not among the lines. At most [`MAX_UNUSABLE`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unusable: Vec<String>,
}

/// Most items that are not understood of which the totals tell.
pub const MAX_UNUSABLE: usize = 1_000;

/// A group's month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonthLine {
    /// The group.
    pub group: Group,
    /// The month.
    pub month: Month,
    /// Events.
    pub events: i64,
    /// Sums, by attribute.
    pub sums: BTreeMap<String, Amount>,
    /// How many events the group may have in a month; `None`: as many as it likes.
    pub quota: Option<u64>,
}

/// A group's year.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct YearLine {
    /// The group.
    pub group: Group,
    /// The year.
    pub year: Year,
    /// Events.
    pub events: i64,
    /// Sums, by attribute.
    pub sums: BTreeMap<String, Amount>,
}

/// The totals could not be read.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// DynamoDB failed, or an item is not understood.
    #[error(transparent)]
    Totals(#[from] TotalsError),
    /// A sum is out of range.
    #[error("the sums of {group:?} {period} are out of range; reconcile will say which cell is damaged")]
    OutOfRange {
        /// The group.
        group: Group,
        /// The month or year.
        period: String,
    },
}

/// Totals as they are summed up: one entry per group and month.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totalled(pub BTreeMap<(Group, Month), Delta>);

impl Totalled {
    /// Adds to a group's month.
    pub fn add(&mut self, group: &Group, month: Month, delta: &Delta) -> Result<(), UsageError> {
        let out_of_range = || UsageError::OutOfRange { group: group.clone(), period: month.to_string() };
        match self.0.get_mut(&(group.clone(), month)) {
            Some(sum) => *sum = sum.checked_add(delta).ok_or_else(out_of_range)?,
            None => {
                self.0.insert((group.clone(), month), delta.clone());
            }
        }
        Ok(())
    }

    /// The same by year.
    pub fn years(&self) -> Result<BTreeMap<(Group, Year), Delta>, UsageError> {
        let mut years: BTreeMap<(Group, Year), Delta> = BTreeMap::new();
        for ((group, month), delta) in &self.0 {
            let year = month.year();
            let out_of_range = || UsageError::OutOfRange { group: group.clone(), period: year.to_string() };
            let sum = years.entry((group.clone(), year)).or_default();
            *sum = sum.checked_add(delta).ok_or_else(out_of_range)?;
        }
        Ok(years)
    }

    /// As lines.
    pub fn lines(&self, definition: &Definition) -> Result<Usage, UsageError> {
        let months = self.0.iter().map(|((group, month), delta)| MonthLine {
            group: group.clone(),
            month: *month,
            events: delta.events,
            sums: named_sums(definition, delta),
            quota: definition.quota.of(group.as_str()),
        });
        let years = self.years()?;
        let years = years.iter().map(|((group, year), delta)| YearLine {
            group: group.clone(),
            year: *year,
            events: delta.events,
            sums: named_sums(definition, delta),
        });
        Ok(Usage { months: months.collect(), years: years.collect(), unusable: Vec::new() })
    }
}

/// The live totals of one group, or of all; of one year, or of all. Memory: one entry per group and month.
pub async fn usage(totals: &Totals, group: Option<&Group>, year: Option<Year>) -> Result<Usage, UsageError> {
    let mut cells = match group {
        Some(group) => totals.group_cells(group),
        None => totals.scan_cells(),
    };
    let mut totalled = Totalled::default();
    let mut unusable = Vec::new();
    while let Some(item) = cells.next().await {
        let (cell, look) = match item {
            Ok(item) => item,
            Err(error) if error.is_unusable() && unusable.len() < MAX_UNUSABLE => {
                unusable.push(error.to_string());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if year.is_none_or(|year| year == cell.month.year()) {
            totalled.add(&cell.group, cell.month, &Delta { events: look.events, sums: look.sums })?;
        }
    }
    Ok(Usage { unusable, ..totalled.lines(totals.definition())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_summed_and_months_make_years() {
        let definition = Definition::parse(
            "[source]\ntable='t'\nkey=['a']\n[fold]\ngroup_by='g'\nsum=['bytes']\n[quota]\ndefault=5\ngroups={b=7}",
            "recount.toml",
        )
        .unwrap();
        let delta = |events, bytes: &str| Delta { events, sums: [bytes.parse().unwrap()].into_iter().collect() };
        let mut totalled = Totalled::default();
        for (group, month, delta) in [
            ("a", "2026-11", delta(1, "1.5")),
            ("b", "2026-12", delta(1, "1")),
            ("a", "2026-11", delta(2, "2.5")),
            ("a", "2026-12", delta(4, "10")),
            ("a", "2027-01", delta(8, "0")),
        ] {
            totalled.add(&group.parse().unwrap(), month.parse().unwrap(), &delta).unwrap();
        }
        insta::assert_snapshot!(serde_json::to_string_pretty(&totalled.lines(&definition).unwrap()).unwrap(), @r###"
        {
          "months": [
            {
              "group": "a",
              "month": "2026-11",
              "events": 3,
              "sums": {
                "bytes": "4"
              },
              "quota": 5
            },
            {
              "group": "a",
              "month": "2026-12",
              "events": 4,
              "sums": {
                "bytes": "10"
              },
              "quota": 5
            },
            {
              "group": "a",
              "month": "2027-01",
              "events": 8,
              "sums": {
                "bytes": "0"
              },
              "quota": 5
            },
            {
              "group": "b",
              "month": "2026-12",
              "events": 1,
              "sums": {
                "bytes": "1"
              },
              "quota": 7
            }
          ],
          "years": [
            {
              "group": "a",
              "year": "2026",
              "events": 7,
              "sums": {
                "bytes": "14"
              }
            },
            {
              "group": "a",
              "year": "2027",
              "events": 8,
              "sums": {
                "bytes": "0"
              }
            },
            {
              "group": "b",
              "year": "2026",
              "events": 1,
              "sums": {
                "bytes": "1"
              }
            }
          ]
        }
        "###);
    }
}
