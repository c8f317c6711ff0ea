//! What one change does to which total. The only place that says so: the consumer, the recount, the simulation and the
//! SQL views all go through [`Definition::effect`] or are tested against it.
//!
//! | `count` | change | effect |
//! | --- | --- | --- |
//! | `inserts` | INSERT | the cell of its new image: one event more, its measures added |
//! | `inserts` | MODIFY, REMOVE | none |
//! | `net` | INSERT | as above |
//! | `net` | MODIFY | the cell of its old image: less one event and its measures; the cell of its new image: plus. In one cell both meet, and what cancels is no effect |
//! | `net` | REMOVE | the cell of its old image: less one event and its measures |
//! | `net` | REMOVE by time to live | the same with `ttl_deletes = "subtract"`, else none |
//!
//! Deltas commute: the order of arrival never matters to the result. Nothing is ever derived from stored state, only from
//! the images in the same record.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::amount::Amount;
use crate::bugs::{self, Bug};
use crate::change::attribute::{Scalar, pick};
use crate::change::{Change, EventName};
use crate::definition::{Count, Definition, EpochUnit, OccurredAt};
use crate::event_key::EventKey;
use crate::period::Month;
use crate::verdict::{Ignored, QuarantineCode, QuarantineReason};

/// The most bytes of a group's name. A DynamoDB partition key has at most 2,048, and the ledger puts the month in front.
pub const MAX_GROUP: usize = 1_900;

/// No event time before 2000-01-01T00:00:00Z: a number of the wrong unit lands there. In µs.
const EARLIEST_OCCURRED_US: i64 = 946_684_800_000_000;
/// No event time more than ten years after the change was created. In µs.
const LATEST_AFTER_CREATED_US: i64 = 3_653 * 86_400_000_000;

/// The name of what is counted for: a project, a tenant. Not empty, at most [`MAX_GROUP`] bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(Arc<str>);

impl Group {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text cannot be a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a group has 1 to {MAX_GROUP} bytes, not {0}")]
pub struct NotAGroup(usize);

impl FromStr for Group {
    type Err = NotAGroup;

    fn from_str(text: &str) -> Result<Self, NotAGroup> {
        if text.is_empty() || text.len() > MAX_GROUP { Err(NotAGroup(text.len())) } else { Ok(Self(text.into())) }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl serde::Serialize for Group {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Group {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One item of the totals table: a group's month, in one lane.
///
/// The lane is the low bits of the event key. It spreads a hot group over several items; a reader sums the lanes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct Cell {
    /// The group.
    pub group: Group,
    /// The month, in the definition's time zone.
    pub month: Month,
    /// The lane, below the definition's `lanes`.
    pub lane: u16,
}

/// What is added to a cell.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Delta {
    /// Events; negative where a change takes some away.
    pub events: i64,
    /// One amount per measure of the definition, in its order.
    #[serde(with = "as_list")]
    pub sums: SmallVec<[Amount; 2]>,
}

mod as_list {
    use super::{Amount, SmallVec};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(sums: &[Amount], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(sums)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SmallVec<[Amount; 2]>, D::Error> {
        Vec::<Amount>::deserialize(deserializer).map(SmallVec::from_vec)
    }
}

impl Delta {
    /// Nothing, for `measures` measures.
    pub fn zero(measures: usize) -> Self {
        Self { events: 0, sums: SmallVec::from_elem(Amount::ZERO, measures) }
    }

    /// Whether it changes nothing.
    pub fn is_zero(&self) -> bool {
        self.events == 0 && self.sums.iter().all(|sum| *sum == Amount::ZERO)
    }

    /// The sum of both, or `None` beyond the range of the types. A delta without sums counts as zeros.
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        let events = self.events.checked_add(other.events)?;
        let at = |delta: &Self, i: usize| delta.sums.get(i).copied().unwrap_or(Amount::ZERO);
        let sums = (0..self.sums.len().max(other.sums.len()))
            .map(|i| at(self, i).checked_add(at(other, i)))
            .collect::<Option<_>>()?;
        Some(Self { events, sums })
    }

    /// What undoes it.
    pub fn negated(&self) -> Self {
        Self { events: -self.events, sums: self.sums.iter().map(|sum| sum.negated()).collect() }
    }
}

/// What a change does to the totals.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(clippy::large_enum_variant)] // nearly every change adds: no allocation for those
pub enum Effect {
    /// It adds to one cell, or to two where it moves an event between them.
    Adds(SmallVec<[(Cell, Delta); 2]>),
    /// It changes no total.
    None(Ignored),
}

impl Effect {
    /// What it adds to which cells; empty where it changes none.
    pub fn contributions(&self) -> &[(Cell, Delta)] {
        match self {
            Self::Adds(contributions) => contributions,
            Self::None(_) => &[],
        }
    }
}

/// What the definition reads of one image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The group.
    pub group: Group,
    /// The event's time, in µs since 1970.
    pub occurred_us: i64,
    /// Its month in the definition's time zone.
    pub month: Month,
    /// The measures, in the definition's order. An attribute that the item does not have is zero.
    pub measures: SmallVec<[Amount; 2]>,
}

impl Definition {
    /// Reads one image of a change created at `created_us`.
    pub fn read(&self, image: &str, created_us: i64) -> Result<Reading, QuarantineReason> {
        use QuarantineCode::{BadImage, BadMeasure, BadOccurredAt, NoGroup, OccurredAtOutOfRange};
        let mut names: SmallVec<[&str; 6]> = SmallVec::new();
        names.push(&self.group_by);
        names.push(self.occurred_at.attribute().unwrap_or_default());
        names.extend(self.measures.iter().map(|measure| measure.attribute.as_str()));
        let mut picked = pick(image, &names).map_err(|e| QuarantineReason::new(BadImage, e))?.into_iter();

        let group = match picked.next().flatten() {
            Some(Scalar::Text(text) | Scalar::Number(text)) => {
                text.parse::<Group>().map_err(|e| QuarantineReason::new(NoGroup, e))?
            }
            Some(_) => {
                let detail = format_args!("attribute {:?} is neither a string nor a number", self.group_by);
                return Err(QuarantineReason::new(NoGroup, detail));
            }
            None => {
                let detail = format_args!("the item has no attribute {:?}", self.group_by);
                return Err(QuarantineReason::new(NoGroup, detail));
            }
        };

        let time = picked.next().flatten();
        let occurred_us = match (&self.occurred_at, time) {
            (OccurredAt::CreationTime, _) => created_us,
            (at, None) => {
                let name = at.attribute().unwrap_or_default();
                return Err(QuarantineReason::new(BadOccurredAt, format_args!("the item has no attribute {name:?}")));
            }
            (at, Some(value)) => occurred(at, &value).map_err(|detail| QuarantineReason::new(BadOccurredAt, detail))?,
        };
        let out_of_range =
            || QuarantineReason::new(OccurredAtOutOfRange, "before 2000, or more than ten years after the change");
        let latest = created_us.saturating_add(LATEST_AFTER_CREATED_US);
        if !(EARLIEST_OCCURRED_US..=latest).contains(&occurred_us) {
            return Err(out_of_range());
        }
        let zone = if bugs::on(Bug::MonthInUtc) { &jiff::tz::TimeZone::UTC } else { self.zone.rules() };
        let month = Month::of(occurred_us, zone).ok_or_else(out_of_range)?;

        let mut measures = SmallVec::with_capacity(self.measures.len());
        for (measure, value) in self.measures.iter().zip(picked) {
            measures.push(match value {
                None | Some(Scalar::Null) => Amount::ZERO,
                Some(Scalar::Number(text)) => text.parse().map_err(|e| {
                    QuarantineReason::new(BadMeasure, format_args!("attribute {:?}: {e}", measure.attribute))
                })?,
                Some(_) => {
                    let detail = format_args!("attribute {:?} is not a number", measure.attribute);
                    return Err(QuarantineReason::new(BadMeasure, detail));
                }
            });
        }
        Ok(Reading { group, occurred_us, month, measures })
    }

    /// What a change of the definition's table does to the totals: see the table at the top of this module.
    /// An error is the reason for which the record is quarantined.
    pub fn effect(&self, change: &Change<'_>, key: EventKey) -> Result<Effect, QuarantineReason> {
        if change.table != self.table {
            return Ok(Effect::None(Ignored::OtherTable));
        }
        let (new, old) = match (self.count, change.event_name) {
            (Count::Inserts, EventName::Insert) => (Some(change.new_image), None),
            (Count::Inserts, _) => return Ok(Effect::None(Ignored::NotAnInsert)),
            (Count::Net { ttl_subtracts: false }, EventName::Remove) if change.ttl => {
                return Ok(Effect::None(Ignored::TtlDelete));
            }
            (Count::Net { .. }, EventName::Insert) => (Some(change.new_image), None),
            (Count::Net { .. }, EventName::Modify) => (Some(change.new_image), Some(change.old_image)),
            (Count::Net { .. }, EventName::Remove) => (None, Some(change.old_image)),
        };
        let contribution = |image: Option<Option<&str>>, which: &str| {
            let Some(image) = image else { return Ok(None) };
            let image = image.ok_or_else(|| {
                let detail = format_args!(
                    "{} without its {which} image; the stream must carry both",
                    change.event_name.as_str()
                );
                QuarantineReason::new(QuarantineCode::NoImage, detail)
            })?;
            self.read(image, change.created_us).map(|reading| {
                let cell = Cell { group: reading.group, month: reading.month, lane: key.lane(self.lanes) };
                Some((cell, Delta { events: 1, sums: reading.measures }))
            })
        };
        let new = contribution(new, "new")?;
        let old = contribution(old, "old")?.map(|(cell, delta)| (cell, delta.negated()));
        let mut adds: SmallVec<[(Cell, Delta); 2]> = SmallVec::new();
        match (new, old) {
            (Some((to, plus)), Some((from, minus))) if to == from => {
                let delta = plus.checked_add(&minus).ok_or_else(|| {
                    QuarantineReason::new(QuarantineCode::BadMeasure, "the difference of the measures is out of range")
                })?;
                if !delta.is_zero() {
                    adds.push((to, delta));
                }
            }
            (new, old) => adds.extend(old.into_iter().chain(new)),
        }
        Ok(if adds.is_empty() { Effect::None(Ignored::NoEffect) } else { Effect::Adds(adds) })
    }
}

/// An event's time, in µs.
fn occurred(at: &OccurredAt, value: &Scalar<'_>) -> Result<i64, String> {
    match (at, value) {
        (OccurredAt::Rfc3339 { attribute }, Scalar::Text(text)) => text
            .parse::<jiff::Timestamp>()
            .map(|time| time.as_microsecond())
            .map_err(|_| format!("attribute {attribute:?} is not an RFC 3339 time with an offset")),
        (OccurredAt::Epoch { attribute, unit }, Scalar::Number(text) | Scalar::Text(text)) => {
            let number: Amount = text.parse().map_err(|e| format!("attribute {attribute:?}: {e}"))?;
            // An amount counts billionths of the unit.
            let billionths_per_us = match unit {
                EpochUnit::Seconds => 1_000,
                EpochUnit::Milliseconds => 1_000_000,
                EpochUnit::Microseconds => 1_000_000_000,
            };
            let us = number.billionths().div_euclid(billionths_per_us);
            // What does not fit is out of the range that the caller allows, on either side.
            Ok(i64::try_from(us).unwrap_or(i64::MIN))
        }
        _ => Err(format!("attribute {:?} has the wrong type", at.attribute().unwrap_or_default())),
    }
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
