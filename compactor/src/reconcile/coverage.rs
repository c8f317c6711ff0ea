//! How much of the archive is verified, as a number.
//!
//! An *event* is an event key that the archive or a ledger has in a cell. It is *verified* if it is archived, and in its
//! cell's ledger or older than that reaches back, and the cell's number is what its ledger says. Not verified are an event that
//! the consumer has not come to yet, one that is part of a finding, and every event of a cell whose number cannot be explained
//! or whose item is not understood. Keys that an applied plan declared void stand for no event and are left out.

use std::fmt;

use recount_schemas::EventKey;
use serde::{Deserialize, Serialize};

/// Events of one cell or of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Archived, or in the ledger.
    pub events: u64,
    /// Verified.
    pub verified: u64,
    /// The least key that is not verified.
    pub oldest_unverified: Option<EventKey>,
    /// The least key of all.
    oldest: Option<EventKey>,
}

impl Tally {
    /// So many verified events, the least of them `least`.
    pub fn verified(&mut self, events: u64, least: EventKey) {
        self.events = self.events.saturating_add(events);
        self.verified = self.verified.saturating_add(events);
        self.oldest = earlier(self.oldest, Some(least));
    }

    /// One event that is not.
    pub fn unverified(&mut self, key: EventKey) {
        self.events = self.events.saturating_add(1);
        self.oldest = earlier(self.oldest, Some(key));
        self.oldest_unverified = earlier(self.oldest_unverified, Some(key));
    }

    /// One that was taken for verified, and is not.
    pub fn is_not(&mut self, key: EventKey) {
        self.verified = self.verified.saturating_sub(1);
        self.oldest_unverified = earlier(self.oldest_unverified, Some(key));
    }

    /// The same events, none of them verified.
    pub fn none_verified(self) -> Self {
        Self { verified: 0, oldest_unverified: self.oldest, ..self }
    }

    /// With those of other cells.
    pub fn add(&mut self, other: Self) {
        self.events = self.events.saturating_add(other.events);
        self.verified = self.verified.saturating_add(other.verified);
        self.oldest = earlier(self.oldest, other.oldest);
        self.oldest_unverified = earlier(self.oldest_unverified, other.oldest_unverified);
    }

    /// What is reported at `now_ms`.
    pub fn at(self, now_ms: i64) -> Coverage {
        let created = self.oldest_unverified.map(|key| key.created_ms());
        Coverage {
            events: self.events,
            verified: self.verified,
            oldest_unverified_ms: created,
            oldest_unverified_age_s: created.map(|ms| u64::try_from(now_ms.saturating_sub(ms)).unwrap_or(0) / 1_000),
        }
    }
}

fn earlier(a: Option<EventKey>, b: Option<EventKey>) -> Option<EventKey> {
    [a, b].into_iter().flatten().min()
}

/// How much is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Coverage {
    /// Events that are archived or in a ledger.
    pub events: u64,
    /// Those that are verified.
    pub verified: u64,
    /// When the oldest of the others was created, ms since 1970; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_unverified_ms: Option<i64>,
    /// How long ago that was, in seconds; 0 for one of a clock ahead of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_unverified_age_s: Option<u64>,
}

impl Coverage {
    /// Verified of a hundred, rounded down to two decimals, so that 100 means all; 100 of nothing.
    pub fn percent(&self) -> f64 {
        if self.verified >= self.events {
            return 100.0;
        }
        let parts = u128::from(self.verified) * 10_000 / u128::from(self.events); // not 0: it is above `verified`
        parts as f64 / 100.0
    }
}

/// As `99.99 % of events verified, the oldest unverified is 14 min old`.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} % of events verified", self.percent())?;
        let Some(seconds) = self.oldest_unverified_age_s else { return Ok(()) };
        let (n, unit) = match seconds {
            0..120 => (seconds, "s"),
            120..7_200 => (seconds / 60, "min"),
            7_200..172_800 => (seconds / 3_600, "h"),
            _ => (seconds / 86_400, "days"),
        };
        write!(f, ", the oldest unverified is {n} {unit} old")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_in_words_never_says_all_of_what_is_not_all() {
        let now = 1_790_000_000_000;
        let said = |verified: u64, age_s: i64| {
            let mut tally = Tally::default();
            tally.verified(verified, EventKey::least_at(now - 500_000_000));
            tally.unverified(EventKey::least_at(now - age_s * 1_000));
            tally.at(now).to_string()
        };
        assert_eq!(said(9_999_999, 14 * 60), "99.99 % of events verified, the oldest unverified is 14 min old");
        assert_eq!(said(0, 3), "0.00 % of events verified, the oldest unverified is 3 s old");
        assert_eq!(said(1, 86_400 * 3), "50.00 % of events verified, the oldest unverified is 3 days old");
        assert_eq!(said(2, -5), "66.66 % of events verified, the oldest unverified is 0 s old");
        assert_eq!(Tally::default().at(now).to_string(), "100.00 % of events verified");
    }

    #[test]
    fn a_cell_that_does_not_fit_verifies_nothing() {
        let (mut tally, key) = (Tally::default(), EventKey::least_at);
        tally.verified(5, key(100));
        tally.unverified(key(200));
        tally.is_not(key(150));
        assert_eq!((tally.events, tally.verified, tally.oldest_unverified), (6, 4, Some(key(150))));
        let none = tally.none_verified();
        assert_eq!((none.events, none.verified, none.oldest_unverified), (6, 0, Some(key(100))));
        let mut all = Tally::default();
        all.add(tally);
        all.add(none);
        assert_eq!((all.events, all.verified, all.oldest_unverified), (12, 4, Some(key(100))));
    }
}
