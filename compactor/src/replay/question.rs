//! What is to be replayed, as asked.
//!
//! `from` and `to` are times of creation, as DynamoDB gives them (`ApproximateCreationDateTime`): from the first on, before the
//! second. They are not the event's own time, by which totals are made, and not the time of arrival: an incident is told
//! by when changes were made.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use recount_schemas::{Group, Month};
use serde::{Deserialize, Serialize};

use crate::log::Digest;

/// A replay, as asked. How fast it goes and where its checkpoint is are no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Only changes created at or after this, µs since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_us: Option<i64>,
    /// Only changes created before this, µs since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_us: Option<i64>,
    /// Only changes whose row is of this group: that of the new image, of a removal that of the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// The stream that the records go into.
    pub into: String,
    /// Whether the live stream follows.
    #[serde(default)]
    pub hand_over: bool,
}

impl Question {
    /// The replay's name: the hash of the question. The same question is the same replay, and goes on where it stopped.
    pub fn hash(&self) -> Result<Digest, serde_json::Error> {
        Ok(Digest::of(&serde_json::to_vec(self)?))
    }

    /// Whether a change of this creation time and group is asked for.
    pub fn wants(&self, created_us: i64, group: Option<&str>) -> bool {
        self.from_us.is_none_or(|from| from <= created_us)
            && self.to_us.is_none_or(|to| created_us < to)
            && self.group.as_ref().is_none_or(|wanted| group == Some(wanted.as_str()))
    }
}

/// A time as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// `2026-11-22T08:00:00Z`: an instant.
    Instant(Timestamp),
    /// `2026-11-22`: the beginning of the day, by the definition's time zone.
    Day(Date),
    /// `2026-11`: the beginning of the month, by the definition's time zone.
    Month(Month),
}

impl When {
    /// The instant, µs since 1970, by the clocks of `zone`.
    pub fn us(self, zone: &TimeZone) -> Option<i64> {
        match self {
            Self::Instant(instant) => Some(instant.as_microsecond()),
            // `compatible`: where midnight does not exist, the day begins with the first instant after the gap.
            Self::Day(day) => {
                let start =
                    zone.to_ambiguous_zoned(day.to_datetime(jiff::civil::Time::midnight())).compatible().ok()?;
                Some(start.timestamp().as_microsecond())
            }
            Self::Month(month) => month.start_us(zone),
        }
    }
}

/// The text is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time: {0:?} (expected 2026-11-22T08:00:00Z, 2026-11-22 or 2026-11)")]
pub struct NotATime(String);

impl FromStr for When {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let month = || text.parse().ok().map(Self::Month);
        // The library also reads a time within a date's text; a day is ten characters.
        let day = || (text.len() == 10).then(|| text.parse().ok().map(Self::Day)).flatten();
        let instant = || text.parse().ok().map(Self::Instant);
        month().or_else(day).or_else(instant).ok_or_else(|| NotATime(text.chars().take(40).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> Option<i64> {
        let zone = TimeZone::get("Asia/Singapore").unwrap();
        text.parse::<When>().ok()?.us(&zone)
    }

    #[test]
    fn days_and_months_begin_by_the_definitions_clocks() {
        let midnight = us("2026-10-31T16:00:00Z");
        assert!(midnight.is_some());
        for text in ["2026-11", "2026-11-01", "2026-11-01T00:00:00+08:00", "2026-10-31T16:00:00Z"] {
            assert_eq!(us(text), midnight, "{text}");
        }
        for text in ["", "2026", "2026-13", "2026-11-31", "2026-11-01T00:00:00", "yesterday", "1793491200"] {
            assert_eq!(us(text), None, "{text}");
        }
    }

    #[test]
    fn a_question_asks_from_the_first_time_on_and_before_the_second() {
        let question = Question {
            from_us: Some(10),
            to_us: Some(20),
            group: Some("acme".parse().unwrap()),
            into: "s".to_owned(),
            hand_over: false,
        };
        for (created, group, wanted) in [
            (9, Some("acme"), false),
            (10, Some("acme"), true),
            (19, Some("acme"), true),
            (20, Some("acme"), false),
            (15, Some("acm"), false),
            (15, None, false),
        ] {
            assert_eq!(question.wants(created, group), wanted, "{created} {group:?}");
        }
        let all = Question { from_us: None, to_us: None, group: None, ..question.clone() };
        assert!(all.wants(i64::MIN, None) && all.wants(i64::MAX, Some("x")));
        assert_ne!(all.hash().unwrap(), question.hash().unwrap());
        let text = serde_json::to_string(&question).unwrap();
        assert_eq!(serde_json::from_str::<Question>(&text).unwrap(), question);
    }
}
