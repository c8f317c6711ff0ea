//! Months and years in the definition's time zone.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;

/// A calendar month, as `2026-11`. Which instants belong to it depends on a time zone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: i16,
    month: u8,
}

/// A calendar year, as `2026`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Year(i16);

impl Month {
    /// The month that the instant `us` (microseconds since 1970, UTC) falls into, by the clocks of `zone`.
    /// `None` for instants that the calendar does not reach (before the year 1, after 9999).
    pub fn of(us: i64, zone: &TimeZone) -> Option<Self> {
        let instant = jiff::Timestamp::from_microsecond(us).ok()?;
        let date = zone.to_datetime(instant).date();
        Self::new(date.year(), u8::try_from(date.month()).ok()?)
    }

    /// The month `month` (1 to 12) of `year` (1 to 9999).
    pub fn new(year: i16, month: u8) -> Option<Self> {
        ((1..=9999).contains(&year) && (1..=12).contains(&month)).then_some(Self { year, month })
    }

    /// The year of the month.
    pub fn year(self) -> Year {
        Year(self.year)
    }

    /// The month after this one; `None` after 9999-12.
    pub fn next(self) -> Option<Self> {
        if self.month == 12 { Self::new(self.year.checked_add(1)?, 1) } else { Self::new(self.year, self.month + 1) }
    }

    /// The month so many before this one; `None` before 0001-01.
    pub fn back(self, months: u16) -> Option<Self> {
        let count = i32::from(self.year) * 12 + i32::from(self.month) - 1 - i32::from(months);
        Self::new(i16::try_from(count.div_euclid(12)).ok()?, u8::try_from(count.rem_euclid(12)).ok()? + 1)
    }

    /// The first instant of the month by the clocks of `zone`, in microseconds since 1970.
    pub fn start_us(self, zone: &TimeZone) -> Option<i64> {
        let first = Date::new(self.year, i8::try_from(self.month).ok()?, 1).ok()?;
        // `compatible`: where midnight does not exist, the month begins with the first instant after the gap; where it
        // exists twice, with the earlier one. A conversion from instant to month never asks this question.
        let start = zone.to_ambiguous_zoned(first.to_datetime(jiff::civil::Time::midnight())).compatible().ok()?;
        Some(start.timestamp().as_microsecond())
    }
}

impl Year {
    /// The year `year` (1 to 9999).
    pub fn new(year: i16) -> Option<Self> {
        (1..=9999).contains(&year).then_some(Self(year))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:04}-{:02}", self.year, self.month))
    }
}

impl fmt::Display for Year {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:04}", self.0))
    }
}

/// The text is not a month or a year.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: {text:?} (expected {like})")]
pub struct NotAPeriod {
    kind: &'static str,
    like: &'static str,
    text: String,
}

impl FromStr for Month {
    type Err = NotAPeriod;

    fn from_str(text: &str) -> Result<Self, NotAPeriod> {
        let parse = || {
            let (year, month) = text.split_once('-')?;
            if year.len() != 4 || month.len() != 2 || !text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
                return None;
            }
            Self::new(year.parse().ok()?, month.parse().ok()?)
        };
        parse().ok_or_else(|| NotAPeriod { kind: "month", like: "YYYY-MM", text: text.chars().take(40).collect() })
    }
}

impl FromStr for Year {
    type Err = NotAPeriod;

    fn from_str(text: &str) -> Result<Self, NotAPeriod> {
        let digits = text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok().and_then(Self::new)).flatten().ok_or_else(|| NotAPeriod {
            kind: "year",
            like: "YYYY",
            text: text.chars().take(40).collect(),
        })
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(Month);
as_text!(Year);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn month(instant: &str, zone: &str) -> String {
        let us = instant.parse::<jiff::Timestamp>().unwrap().as_microsecond();
        Month::of(us, &TimeZone::get(zone).unwrap()).unwrap().to_string()
    }

    #[test]
    fn a_month_ends_by_the_clocks_of_its_zone() {
        assert_eq!(month("2026-11-30T15:59:59.999999Z", "Asia/Singapore"), "2026-11");
        assert_eq!(month("2026-11-30T16:00:00Z", "Asia/Singapore"), "2026-12");
        assert_eq!(month("2026-01-01T04:59:59Z", "America/New_York"), "2025-12");
        assert_eq!(month("2026-01-01T05:00:00Z", "America/New_York"), "2026-01");
        // Summer time ends on 2026-10-25 in Berlin: by the end of the month its clocks are one hour ahead of UTC, not two.
        assert_eq!(month("2026-10-31T22:30:00Z", "Europe/Berlin"), "2026-10");
        assert_eq!(month("2026-10-31T23:00:00Z", "Europe/Berlin"), "2026-11");
        assert_eq!(month("2026-03-31T22:00:00Z", "Europe/Berlin"), "2026-04");
        // A quarter-hour zone.
        assert_eq!(month("2026-05-31T18:14:59Z", "Asia/Kathmandu"), "2026-05");
        assert_eq!(month("2026-05-31T18:15:00Z", "Asia/Kathmandu"), "2026-06");
    }

    #[test]
    fn absurd_instants_have_no_month() {
        assert_eq!(Month::of(i64::MAX, &TimeZone::UTC), None);
        assert_eq!(Month::of(i64::MIN, &TimeZone::UTC), None);
    }

    #[test]
    fn texts() {
        assert_eq!("2026-02".parse::<Month>().unwrap().to_string(), "2026-02");
        for text in ["2026-13", "2026-2", "26-02", "2026-00", "2026/02", "+026-02", ""] {
            assert!(text.parse::<Month>().is_err(), "{text}");
        }
        assert!("02026".parse::<Year>().is_err());
        assert_eq!("2026-02".parse::<Month>().unwrap().year().to_string(), "2026");
        assert_eq!("0800".parse::<Year>().unwrap().to_string(), "0800");
    }

    proptest! {
        #[test]
        fn an_instant_lies_between_the_start_of_its_month_and_of_the_next(us in 946_684_800_000_000i64..4_102_444_800_000_000,
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "Australia/Lord_Howe"])) {
            let zone = TimeZone::get(zone).unwrap();
            let month = Month::of(us, &zone).unwrap();
            prop_assert!(month.start_us(&zone).unwrap() <= us);
            prop_assert!(us < month.next().unwrap().start_us(&zone).unwrap());
        }
    }
}
