//! What one shard takes per second, when the limits are switched on: the API reference of PutRecord and GetRecords.
//!
//! | | per shard | over it |
//! | --- | --- | --- |
//! | write | 1,000 records/s, 1 MiB/s | the record is refused, its neighbours in the request are not |
//! | read | 5 calls/s, 2 MiB/s | the call is refused |
//! | read | a call that returned n MiB | the next calls are refused for n ÷ 2 s: five seconds after 10 MiB |
//!
//! Seconds are counted from the first request after a pause; AWS does not say where its own begin.

use std::collections::HashMap;

/// Whether requests are throttled as AWS throttles them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Limits {
    /// Nothing is throttled.
    #[default]
    Off,
    /// Each shard takes and gives what a provisioned shard on AWS does.
    PerShard,
}

const WRITE_RECORDS: u64 = 1_000;
const WRITE_BYTES: u64 = 1 << 20;
const READ_CALLS: u64 = 5;
const READ_BYTES: u64 = 2 << 20;
const SECOND_MS: i64 = 1_000;

#[derive(Debug, Default, Clone, Copy)]
struct Window {
    start_ms: i64,
    end_ms: i64,
    count: u64,
    bytes: u64,
}

impl Window {
    fn at(&mut self, now_ms: i64) -> &mut Self {
        // Outside the window, also before it: a clock that went back must not block a shard for long.
        if now_ms >= self.end_ms || now_ms < self.start_ms {
            *self = Self { start_ms: now_ms, end_ms: now_ms.saturating_add(SECOND_MS), count: 0, bytes: 0 };
        }
        self
    }
}

/// The windows of all shards, by shard key. Not kept over a restart: the longest lasts five seconds.
#[derive(Debug, Default)]
pub(super) struct Meter {
    writes: HashMap<i64, Window>,
    reads: HashMap<i64, Window>,
}

impl Meter {
    /// Whether the shard takes one more record of this size now; if so it is counted.
    pub(super) fn admit_write(&mut self, shard: i64, bytes: u64, now_ms: i64) -> bool {
        let window = self.writes.entry(shard).or_default().at(now_ms);
        let fits = window.count < WRITE_RECORDS && window.bytes.saturating_add(bytes) <= WRITE_BYTES;
        if fits {
            window.count += 1;
            window.bytes += bytes;
        }
        fits
    }

    /// Whether the shard answers one more call now; if so it is counted.
    pub(super) fn admit_read(&mut self, shard: i64, now_ms: i64) -> bool {
        let window = self.reads.entry(shard).or_default().at(now_ms);
        let fits = window.count < READ_CALLS && window.bytes < READ_BYTES;
        if fits {
            window.count += 1;
        }
        fits
    }

    /// Counts what an admitted call returned.
    pub(super) fn returned(&mut self, shard: i64, bytes: u64, now_ms: i64) {
        let window = self.reads.entry(shard).or_default().at(now_ms);
        window.bytes = window.bytes.saturating_add(bytes);
        let seconds = i64::try_from(window.bytes.div_ceil(READ_BYTES)).unwrap_or(i64::MAX).max(1);
        window.end_ms = window.start_ms.saturating_add(seconds.saturating_mul(SECOND_MS));
    }

    /// Forgets the windows of shards that are gone.
    pub(super) fn forget(&mut self, shard: i64) {
        self.writes.remove(&shard);
        self.reads.remove(&shard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_takes_a_thousand_records_a_second() {
        let mut meter = Meter::default();
        assert_eq!((0..1_500).filter(|_| meter.admit_write(1, 10, 5_000)).count(), 1_000);
        assert!(meter.admit_write(2, 10, 5_000), "another shard has its own limit");
        assert!(!meter.admit_write(1, 10, 5_999));
        assert!(meter.admit_write(1, 10, 6_000));
    }

    #[test]
    fn a_shard_takes_a_mebibyte_a_second() {
        let mut meter = Meter::default();
        assert!(meter.admit_write(1, 1 << 20, 0));
        assert!(!meter.admit_write(1, 1, 0));
    }

    #[test]
    fn a_shard_answers_five_calls_a_second() {
        let mut meter = Meter::default();
        assert_eq!((0..9).filter(|_| meter.admit_read(1, 0)).count(), 5);
        assert!(meter.admit_read(1, 1_000));
    }

    #[test]
    fn ten_mebibytes_silence_a_shard_for_five_seconds() {
        let mut meter = Meter::default();
        assert!(meter.admit_read(1, 0));
        meter.returned(1, 10 << 20, 0);
        assert!(!meter.admit_read(1, 4_999));
        assert!(meter.admit_read(1, 5_000));
    }
}
