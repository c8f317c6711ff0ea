//! Every number that can be tuned, in one place, with the reason for its default.

use std::time::Duration;

/// The numbers of the cell protocol and of the I/O around it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tuning {
    /// The most keys whose absence one condition can name. Each costs a `contains` and an `OR`; DynamoDB allows 300
    /// operators and functions and 4,096 bytes in an expression. Default and greatest useful value: 96.
    pub named_keys: usize,
    /// `recent` is sealed by the writer that makes it reach this many keys, or a multiple of it.
    ///
    /// Default 52, so that a cell stays below 1 KB, one write unit: 52 keys of 16 bytes are 832; `pk` and `sk` with a group
    /// of 40 bytes 53; `v`, `events` and `epoch` 30; the name `recent` and 3 bytes of its set 9; `sealed` 22; a sum 20.
    /// That is 966 bytes, and 1,018 if DynamoDB should take one byte more per element, which it does not document.
    pub seal_at: usize,
    /// Sealing leaves in `recent` what was created less than this many ms before its greatest key, since records of these
    /// seconds may still be under way and would be late. Default 2,000.
    pub keep_ms: i64,
    /// … but at most so many keys. Default 13, a quarter of `seal_at`: then a page takes at least 39 keys off for its two
    /// write units, and an event that comes alone costs at most 1 + 2/39 ≈ 1.05 units.
    pub keep_keys: usize,
    /// With so many keys in `recent`, a writer seals before it adds, or fails. Default 16,000: with the 96 of the one
    /// write that passes it, some 260 KB of the 400 KB that an item may have.
    pub hard_limit: usize,
    /// The most keys of one write. Default 8,000.
    pub write_keys: usize,
    /// After so many refusals of a write that needs an unchanged `recent`, the keys go in portions of `named_keys`, which
    /// other writers do not disturb. Default 3.
    pub exact_refusals: u32,
    /// After so many refusals of one kind or another the cell counts as contended, and the attempt as failed. Default 40.
    pub refusals: u32,
    /// The ledger reaches back so many ms: a late key older than this is too old. From the definition's `ledger_days`.
    pub ledger_ms: i64,
    /// A page lives so many ms longer than the ledger reaches back, from the time it is put. A record may claim to be
    /// created up to a day after its arrival, so one of the two days is left for an attempt to end in. Default 2 days.
    pub page_slack_ms: i64,
    /// Our own attempts of one request, beyond those that the SDK makes itself. Default 8.
    pub attempts: u32,
    /// The longest first pause between attempts; it doubles each time, and the pause is drawn evenly from nothing to it.
    /// Default 50 ms.
    pub pause: Duration,
    /// The longest pause. Default 3 s.
    pub longest_pause: Duration,
}

impl Default for Tuning {
    /// For a ledger of 35 days, the definition's own default.
    fn default() -> Self {
        Self::new(35)
    }
}

/// One day, in ms.
pub const DAY_MS: i64 = 86_400_000;

impl Tuning {
    /// The defaults, for a ledger that reaches back `ledger_days` days.
    pub fn new(ledger_days: u16) -> Self {
        Self {
            named_keys: 96,
            seal_at: 52,
            keep_ms: 2_000,
            keep_keys: 13,
            hard_limit: 16_000,
            write_keys: 8_000,
            exact_refusals: 3,
            refusals: 40,
            ledger_ms: i64::from(ledger_days) * DAY_MS,
            page_slack_ms: 2 * DAY_MS,
            attempts: 8,
            pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(3),
        }
    }

    /// The longest pause before attempt `attempt` (from 1): the caller draws from nothing to it.
    pub fn pause_before(&self, attempt: u32) -> Duration {
        self.pause.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(self.longest_pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let tuning = Tuning::new(35);
        let pauses: Vec<_> = [1, 2, 3, 7, 8, u32::MAX].iter().map(|n| tuning.pause_before(*n).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 3_000, 3_000, 3_000]);
        assert_eq!(tuning.ledger_ms, 35 * DAY_MS);
    }
}
