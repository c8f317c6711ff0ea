//! The oracle: totals counted the slow and obvious way, with nothing of the code under test.
//!
//! It knows one zone, Berlin, by the rule itself (central European time, an hour ahead of UTC; two from the last Sunday of
//! March, 01:00 UTC, to the last Sunday of October, 01:00 UTC) and turns days into months by counting them off.

use std::collections::BTreeMap;

/// The name of the zone that the oracle knows.
pub const ZONE: &str = "Europe/Berlin";

const DAY: i64 = 86_400;

/// One state of an item, as the tests make them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    pub project: String,
    /// Seconds since 1970.
    pub at: i64,
    pub bytes: i64,
}

/// Project and month (`2026-11`) → events, bytes.
pub type Totals = BTreeMap<(String, String), (i64, i64)>;

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_in(year: i64, month: usize) -> i64 {
    [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]
}

/// Year, month, day of the month for a day since 1970.
fn civil(mut days: i64) -> (i64, usize, i64) {
    let (mut year, mut month) = (1970, 1);
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    while days >= days_in(year, month) {
        days -= days_in(year, month);
        month += 1;
    }
    (year, month, days + 1)
}

fn day_number(year: i64, month: usize, day: i64) -> i64 {
    let years: i64 = (1970..year).map(|y| if is_leap(y) { 366 } else { 365 }).sum();
    years + (1..month).map(|m| days_in(year, m)).sum::<i64>() + day - 1
}

/// 01:00 UTC on the last Sunday of a month.
fn last_sunday(year: i64, month: usize) -> i64 {
    let last = day_number(year, month, days_in(year, month));
    // Day 0 was a Thursday, so day 3 was a Sunday.
    (last - (last - 3).rem_euclid(7)) * DAY + 3_600
}

/// The month of an instant (seconds since 1970) in Berlin.
pub fn month(at: i64) -> String {
    let (year, ..) = civil(at.div_euclid(DAY));
    let summer = (last_sunday(year, 3)..last_sunday(year, 10)).contains(&at);
    let (year, month, _) = civil((at + if summer { 7_200 } else { 3_600 }).div_euclid(DAY));
    format!("{year:04}-{month:02}")
}

/// RFC 3339 in UTC.
pub fn rfc3339(at: i64) -> String {
    let (year, month, day) = civil(at.div_euclid(DAY));
    let s = at.rem_euclid(DAY);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", s / 3_600, s / 60 % 60, s % 60)
}

/// What the insertions count.
pub fn inserts<'a>(inserted: impl IntoIterator<Item = &'a Scan>) -> Totals {
    let mut totals = Totals::new();
    for scan in inserted {
        let total = totals.entry((scan.project.clone(), month(scan.at))).or_default();
        total.0 += 1;
        total.1 += scan.bytes;
    }
    totals
}

/// The totals of whole years.
pub fn years(months: &Totals) -> Totals {
    let mut years = Totals::new();
    for ((project, month), (events, bytes)) in months {
        let total = years.entry((project.clone(), month[..4].to_owned())).or_default();
        total.0 += events;
        total.1 += bytes;
    }
    years
}

#[test]
fn the_oracle_itself() {
    // Known instants, from a calendar.
    assert_eq!(rfc3339(1_796_040_000), "2026-11-30T12:00:00Z");
    assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
    assert_eq!(last_sunday(2026, 10), day_number(2026, 10, 25) * DAY + 3_600);
    assert_eq!(last_sunday(2026, 3), day_number(2026, 3, 29) * DAY + 3_600);
    assert_eq!(month(day_number(2026, 12, 31) * DAY + 23 * 3_600 - 1), "2026-12");
    assert_eq!(month(day_number(2026, 12, 31) * DAY + 23 * 3_600), "2027-01");
    assert_eq!(month(day_number(2026, 7, 31) * DAY + 22 * 3_600), "2026-08");
}
