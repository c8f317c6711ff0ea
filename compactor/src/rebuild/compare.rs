//! Two archives held against each other, where their definitions should give equal numbers. Exact while events flow: both are
//! folded just so far as both have read the stream.
//!
//! | the definitions differ in | compared are |
//! | --- | --- |
//! | nothing that decides a cell, or only in sums, lanes, the ledger's days, the identity | groups' months, and the sums that both have |
//! | the time zone, or where the event's time stands | groups, over all months |
//! | the group | everything together |
//! | what counts (`count`, `ttl_deletes`), the table | nothing |
//!
//! A difference need not be an error: a record that only one definition can judge counts only there. It is named, and `explain` in
//! both homes tells why.

use std::collections::BTreeMap;
use std::sync::Arc;

use recount_schemas::position::{SequenceNumber, ShardId};
use recount_schemas::{Amount, Definition, Delta, Group, Home, Month};
use serde::{Deserialize, Serialize};

use super::RebuildError;
use crate::context::Context;
use crate::contributions::Scope;
use crate::contributions::reader::{Reader, live_files};
use crate::log::State;
use crate::progress::{Says, Work};

/// Most groups' months that are held.
pub const MAX_HELD: usize = 4_000_000;
/// Most differences that are listed.
pub const MAX_LISTED: usize = 1_000;

/// How finely two definitions can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Each group's month.
    Months,
    /// Each group.
    Groups,
    /// All together.
    All,
    /// Not at all.
    Nothing,
}

/// How finely two definitions can be compared: see the table above.
pub fn level(a: &Definition, b: &Definition) -> Level {
    if a.table != b.table || a.count != b.count {
        Level::Nothing
    } else if a.group_by != b.group_by {
        Level::All
    } else if a.zone.name() != b.zone.name() || a.occurred_at != b.occurred_at {
        Level::Groups
    } else {
        Level::Months
    }
}

/// What differs between two definitions, for people.
pub fn differences(a: &Definition, b: &Definition) -> Vec<String> {
    let sums = |definition: &Definition| -> Vec<String> {
        definition.measures.iter().map(|measure| measure.attribute.clone()).collect()
    };
    let parts = [
        ("table", format!("{:?}", a.table), format!("{:?}", b.table)),
        ("key", format!("{:?}", a.key), format!("{:?}", b.key)),
        ("group_by", format!("{:?}", a.group_by), format!("{:?}", b.group_by)),
        ("occurred_at", format!("{:?}", a.occurred_at), format!("{:?}", b.occurred_at)),
        ("time_zone", a.zone.name().to_owned(), b.zone.name().to_owned()),
        ("count", format!("{:?}", a.count), format!("{:?}", b.count)),
        ("sum", format!("{:?}", sums(a)), format!("{:?}", sums(b))),
        ("identity", format!("{:?}", a.identity), format!("{:?}", b.identity)),
        ("lanes", a.lanes.to_string(), b.lanes.to_string()),
        ("ledger_days", a.ledger_days.to_string(), b.ledger_days.to_string()),
    ];
    let differ = parts.into_iter().filter(|(_, a, b)| a != b);
    differ.map(|(name, a, b)| format!("{name}: {a} becomes {b}")).collect()
}

/// One number that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The group; absent where all are compared together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// The month; absent where all are compared together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month: Option<Month>,
    /// What the old archive gives: events, and the sums that both have.
    pub old: Numbers,
    /// What the new one gives.
    pub new: Numbers,
}

/// Events and sums by attribute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Events.
    pub events: i64,
    /// Sums.
    pub sums: BTreeMap<String, Amount>,
}

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The home of the old archive.
    pub old: Home,
    /// That of the new one.
    pub new: Home,
    /// What was compared.
    pub level: Level,
    /// How many numbers were.
    pub compared: u64,
    /// How many differ.
    pub differ: u64,
    /// The first [`MAX_LISTED`] of them.
    pub differences: Vec<Difference>,
}

/// How far both archives have read each shard.
type Reach = BTreeMap<ShardId, SequenceNumber>;

fn reach(state: &State) -> Reach {
    let mut reach = Reach::new();
    for (shard, end) in state.streams.values().flat_map(|end| &end.shards) {
        let Some(to) = &end.to else { continue };
        let most = reach.entry(shard.clone()).or_insert_with(|| to.clone());
        *most = to.max(most).clone();
    }
    reach
}

fn common(a: &Reach, b: &Reach) -> Reach {
    a.iter().filter_map(|(shard, to)| Some((shard.clone(), b.get(shard)?.min(to).clone()))).collect()
}

type Totals = BTreeMap<(Option<Group>, Option<Month>), Delta>;

/// Compares two homes by their archives.
pub async fn compare(old: &Context, new: &Context, says: &Says<'_>) -> Result<Comparison, RebuildError> {
    let level = level(&old.definition, &new.definition);
    let (old_state, new_state) = (old.log().await?, new.log().await?);
    let reach = common(&reach(&old_state), &reach(&new_state));
    let common: Vec<&str> = old
        .definition
        .measures
        .iter()
        .map(|measure| measure.attribute.as_str())
        .filter(|attribute| new.definition.measures.iter().any(|measure| measure.attribute == *attribute))
        .collect();
    let mut report =
        Comparison { old: old.home(), new: new.home(), level, compared: 0, differ: 0, differences: Vec::new() };
    if level == Level::Nothing {
        return Ok(report);
    }
    says(Work::Step("folding the old archive"));
    let mut left = fold(old, &old_state, &reach, level, &common, says).await?;
    says(Work::Step("folding the new archive"));
    let right = fold(new, &new_state, &reach, level, &common, says).await?;
    let zero = || Delta::zero(common.len());
    let numbers = |delta: &Delta| Numbers {
        events: delta.events,
        sums: common.iter().zip(&delta.sums).map(|(attribute, sum)| ((*attribute).to_owned(), *sum)).collect(),
    };
    let both = right.into_iter().map(|(key, b)| {
        let a = left.remove(&key).unwrap_or_else(zero);
        (key, a, b)
    });
    let both: Vec<_> = both.collect();
    let only_left = left.into_iter().map(|(key, a)| (key, a, zero()));
    for ((group, month), a, b) in both.into_iter().chain(only_left) {
        report.compared += 1;
        if a != b {
            report.differ += 1;
            if report.differences.len() < MAX_LISTED {
                report.differences.push(Difference { group, month, old: numbers(&a), new: numbers(&b) });
            }
        }
    }
    report.differences.sort_by(|a, b| (&a.group, a.month).cmp(&(&b.group, b.month)));
    Ok(report)
}

async fn fold(
    context: &Context,
    state: &State,
    reach: &Reach,
    level: Level,
    common: &[&str],
    says: &Says<'_>,
) -> Result<Totals, RebuildError> {
    let files = live_files(state, &context.definition)?;
    let reader = Reader::new(context.bucket.clone(), Arc::clone(&context.definition), Scope::all(), files);
    let mut reader = reader.telling(says);
    let measures = &context.definition.measures;
    let places: Vec<usize> =
        common.iter().filter_map(|name| measures.iter().position(|measure| measure.attribute == *name)).collect();
    let mut totals = Totals::new();
    while let Some(found) = reader.next().await? {
        let shard = &found.origin.shard_id;
        let read = reach.get(shard).is_some_and(|to| found.origin.sequence_number <= *to);
        if !read && !shard.is_beside_the_stream() {
            continue;
        }
        let key = match level {
            Level::Months => (Some(found.cell.group.clone()), Some(found.cell.month)),
            Level::Groups => (Some(found.cell.group.clone()), None),
            Level::All | Level::Nothing => (None, None),
        };
        let sums = places.iter().map(|i| found.delta.sums.get(*i).copied().unwrap_or(Amount::ZERO)).collect();
        let delta = Delta { events: found.delta.events, sums };
        let sum = totals.entry(key).or_insert_with(|| Delta::zero(common.len()));
        *sum = sum.checked_add(&delta).ok_or_else(|| crate::reconcile::diff::OutOfRange(found.cell.clone()))?;
        if totals.len() > MAX_HELD {
            return Err(RebuildError::TooManyGroups);
        }
    }
    // What came to nothing is as if it had never been.
    totals.retain(|_, delta| !delta.is_zero());
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(fold: &str) -> Definition {
        let text = format!("[source]\ntable='t'\nkey=['k']\n[fold]\n{fold}\n");
        Definition::parse(&text, "x").unwrap()
    }

    #[test]
    fn what_can_be_compared_follows_from_what_differs() {
        let old = definition("group_by='g'\noccurred_at='t'\nsum=['b']");
        for (fold, expected, said) in [
            ("group_by='g'\noccurred_at='t'\nsum=['b']", Level::Months, ""),
            (
                "group_by='g'\noccurred_at='t'\nsum=['b','c']\nlanes=4",
                Level::Months,
                "sum: [\"b\"] becomes [\"b\", \"c\"]; lanes: 1 becomes 4",
            ),
            (
                "group_by='g'\noccurred_at='t'\ntime_zone='Asia/Tokyo'\nsum=['b']",
                Level::Groups,
                "time_zone: UTC becomes Asia/Tokyo",
            ),
            (
                "group_by='g'\nsum=['b']",
                Level::Groups,
                "occurred_at: Rfc3339 { attribute: \"t\" } becomes CreationTime",
            ),
            ("group_by='h'\noccurred_at='t'\nsum=['b']", Level::All, "group_by: \"g\" becomes \"h\""),
            (
                "group_by='g'\noccurred_at='t'\nsum=['b']\ncount='net'",
                Level::Nothing,
                "count: Inserts becomes Net { ttl_subtracts: false }",
            ),
        ] {
            let new = definition(fold);
            assert_eq!(level(&old, &new), expected, "{fold}");
            assert_eq!(differences(&old, &new).join("; "), said);
        }
    }
}
