//! What happens to a batch after the function was called on it: pure, one call per answer.
//!
//! | outcome | batch | retries left | next |
//! | --- | --- | --- | --- |
//! | success | any | – | `Advance` |
//! | not invoked | any | – | `Retry` of all, nothing counted |
//! | partial from k | bisect, k > 0 | – | `Retry` from k, nothing counted: the cut is the bisection |
//! | partial from k | else | yes | `Retry` from k, one retry counted |
//! | partial from k | else | no | `Discard` from k |
//! | failed | bisect, two or more records | – | `Split` in halves, nothing counted |
//! | failed | else | yes | `Retry` of all, one retry counted |
//! | failed | else | no | `Discard` of all |
//!
//! "Bisecting doesn't consume the retry quota" (LDG invocation-eventsourcemapping); calls that never reached the
//! function do not either (LDG kinesis-on-failure-destination). Before each call, and so before each retry, records
//! above the maximum age are given up, and before each retry those that the stream has dropped meanwhile: [`too_old`].
//!
//! Where AWS is silent: (1) the halves of a batch inherit its count of retries; (2) what is retried after a partial
//! failure keeps the count, progress does not reset it; (3) a partial failure at the very first record with bisect on
//! is a plain retry, since there is nothing to cut off; (4) when retries run out, all that is left of the batch is
//! given up together.

use super::config::Config;

/// What a call on a batch came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All records are done.
    Success,
    /// Records before place `from` are done, all others count as failed.
    Partial {
        /// Place in the batch, from 0.
        from: usize,
    },
    /// All records count as failed.
    Failed {
        /// For the log.
        why: String,
    },
    /// The function was never started.
    NotInvoked,
}

/// Why records are given up, as the on-failure destination is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The maximum number of retries was used up.
    RetryAttemptsExhausted,
    /// The record was older than the maximum age. (The documents show no example with this; the word is ours.)
    RecordAgeExceeded,
    /// The record was retried until the stream itself dropped it. (AWS then moves on in silence: there is nothing left
    /// to point at. Here the destination still gets it; the word is ours.)
    RecordExpired,
    /// One record alone makes an event above 6 MB (KDG large-records; the word is ours).
    PayloadTooLarge,
}

impl Condition {
    /// The word in `requestContext.condition`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RetryAttemptsExhausted => "RetryAttemptsExhausted",
            Self::RecordAgeExceeded => "RecordAgeExceeded",
            Self::RecordExpired => "RecordExpired",
            Self::PayloadTooLarge => "PayloadTooLarge",
        }
    }
}

/// What to do next with a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The batch is done: the position moves behind it.
    Advance,
    /// The position moves to place `from`; what is left is one batch again, with this count of retries.
    Retry {
        /// Place in the batch, from 0.
        from: usize,
        /// Retries counted so far.
        retries: u32,
    },
    /// The records before `at` and those from it on become two batches, one after the other.
    Split {
        /// Place in the batch, from 1.
        at: usize,
        /// Retries counted so far, for both.
        retries: u32,
    },
    /// The position moves to `from`; what is left goes to the on-failure destination, then the position moves behind it.
    Discard {
        /// Place in the batch, from 0.
        from: usize,
        /// Why.
        condition: Condition,
    },
}

/// The table above. `records` is the size of the batch, `retries` what it has used up.
pub fn after(records: usize, retries: u32, outcome: &Outcome, config: &Config) -> Next {
    let (from, whole) = match outcome {
        Outcome::Success => return Next::Advance,
        Outcome::NotInvoked => return Next::Retry { from: 0, retries },
        // A place at or behind the end would mean that nothing failed.
        Outcome::Partial { from } if *from >= records => return Next::Advance,
        Outcome::Partial { from } => (*from, false),
        Outcome::Failed { .. } => (0, true),
    };
    if config.bisect && whole && records > 1 {
        return Next::Split { at: records / 2, retries };
    }
    if config.bisect && from > 0 {
        return Next::Retry { from, retries };
    }
    if config.max_retries.is_some_and(|most| retries >= most) {
        return Next::Discard { from, condition: Condition::RetryAttemptsExhausted };
    }
    Next::Retry { from, retries: retries.saturating_add(1) }
}

/// How many records at the front of a batch are given up before the call, and why: those that the stream has dropped,
/// if there are any, else those above the maximum age. `horizon_ms` is where the stream begins now.
pub fn too_old(
    arrivals_ms: impl Iterator<Item = i64> + Clone,
    config: &Config,
    now_ms: i64,
    horizon_ms: i64,
) -> Option<(usize, Condition)> {
    let expired = arrivals_ms.clone().take_while(|arrival| *arrival < horizon_ms).count();
    if expired > 0 {
        return Some((expired, Condition::RecordExpired));
    }
    let age = i64::try_from(config.max_record_age?.as_millis()).unwrap_or(i64::MAX);
    let old = arrivals_ms.take_while(|arrival| now_ms.saturating_sub(*arrival) > age).count();
    (old > 0).then_some((old, Condition::RecordAgeExceeded))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn config(bisect: bool, max_retries: Option<u32>) -> Config {
        Config { bisect, max_retries, ..Config::default() }
    }

    fn failed() -> Outcome {
        Outcome::Failed { why: "test".into() }
    }

    #[test]
    fn success_advances() {
        assert_eq!(after(3, 5, &Outcome::Success, &config(true, Some(0))), Next::Advance);
    }

    #[test]
    fn a_call_that_was_never_made_is_no_attempt() {
        assert_eq!(after(3, 2, &Outcome::NotInvoked, &config(false, Some(2))), Next::Retry { from: 0, retries: 2 });
    }

    #[test]
    fn a_function_error_retries_the_whole_batch_and_counts() {
        assert_eq!(after(3, 1, &failed(), &config(false, None)), Next::Retry { from: 0, retries: 2 });
    }

    #[test]
    fn a_function_error_with_bisect_halves_the_batch_and_does_not_count() {
        assert_eq!(after(5, 1, &failed(), &config(true, Some(1))), Next::Split { at: 2, retries: 1 });
        assert_eq!(after(1, 1, &failed(), &config(true, Some(9))), Next::Retry { from: 0, retries: 2 });
    }

    #[test]
    fn a_partial_failure_retries_from_the_lowest_failed_record() {
        assert_eq!(
            after(5, 0, &Outcome::Partial { from: 3 }, &config(false, None)),
            Next::Retry { from: 3, retries: 1 }
        );
    }

    #[test]
    fn a_partial_failure_with_bisect_is_cut_there_and_does_not_count() {
        let cut = Outcome::Partial { from: 3 };
        assert_eq!(after(5, 1, &cut, &config(true, Some(1))), Next::Retry { from: 3, retries: 1 });
        let nothing_to_cut = Outcome::Partial { from: 0 };
        assert_eq!(after(5, 0, &nothing_to_cut, &config(true, Some(1))), Next::Retry { from: 0, retries: 1 });
    }

    #[test]
    fn when_the_retries_are_used_up_what_is_left_is_given_up() {
        let condition = Condition::RetryAttemptsExhausted;
        assert_eq!(after(5, 2, &failed(), &config(false, Some(2))), Next::Discard { from: 0, condition });
        let partial = Outcome::Partial { from: 4 };
        assert_eq!(after(5, 2, &partial, &config(false, Some(2))), Next::Discard { from: 4, condition });
        assert_eq!(after(1, 0, &failed(), &config(true, Some(0))), Next::Discard { from: 0, condition });
    }

    #[test]
    fn a_failure_behind_the_end_is_none() {
        for from in [5, 6] {
            assert_eq!(after(5, 0, &Outcome::Partial { from }, &config(false, Some(0))), Next::Advance);
        }
    }

    #[test]
    fn a_batch_is_split_until_its_records_are_alone() {
        assert_eq!(after(2, 0, &failed(), &config(true, Some(0))), Next::Split { at: 1, retries: 0 });
        assert_eq!(after(9, 3, &failed(), &config(true, Some(0))), Next::Split { at: 4, retries: 3 });
    }

    #[test]
    fn the_destination_is_told_why() {
        let words = [
            Condition::RetryAttemptsExhausted,
            Condition::RecordAgeExceeded,
            Condition::RecordExpired,
            Condition::PayloadTooLarge,
        ];
        let expected = ["RetryAttemptsExhausted", "RecordAgeExceeded", "RecordExpired", "PayloadTooLarge"];
        assert_eq!(words.map(Condition::as_str), expected);
    }

    #[test]
    fn records_above_the_maximum_age_are_given_up_from_the_front() {
        let config = Config { max_record_age: Some(Duration::from_secs(60)), ..Config::default() };
        let arrivals = || [0, 1, 40_000].into_iter();
        assert_eq!(too_old(arrivals(), &config, 60_001, i64::MIN), Some((1, Condition::RecordAgeExceeded)));
        assert_eq!(too_old(arrivals(), &config, 60_000, i64::MIN), None, "just the maximum age");
        assert_eq!(too_old(arrivals(), &Config::default(), i64::MAX, i64::MIN), None);
    }

    #[test]
    fn records_that_the_stream_dropped_are_given_up_first() {
        let config = Config { max_record_age: Some(Duration::from_secs(60)), ..Config::default() };
        let arrivals = [0, 1, 40_000].into_iter();
        assert_eq!(too_old(arrivals, &config, 60_002, 1), Some((1, Condition::RecordExpired)));
    }

    proptest! {
        /// Whatever fails, a bounded batch ends: each record is done or given up after finitely many calls.
        #[test]
        fn a_bounded_batch_ends(records in 1usize..60, bisect: bool, most in 0u32..4, seed: u64) {
            let config = config(bisect, Some(most));
            let mut work = vec![(records, 0u32)];
            let (mut settled, mut calls, mut random) = (0usize, 0usize, seed);
            while let Some((len, retries)) = work.pop() {
                calls += 1;
                prop_assert!(calls < 10_000);
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let outcome = match random >> 62 {
                    0 => Outcome::Success,
                    1 => Outcome::Partial { from: (random >> 20) as usize % len },
                    _ => Outcome::Failed { why: String::new() },
                };
                match after(len, retries, &outcome, &config) {
                    Next::Advance | Next::Discard { .. } => settled += len,
                    Next::Retry { from, retries } => {
                        settled += from;
                        work.push((len - from, retries));
                    }
                    Next::Split { at, retries } => {
                        prop_assert!(at > 0 && at < len);
                        work.push((len - at, retries));
                        work.push((at, retries));
                    }
                }
            }
            prop_assert_eq!(settled, records);
        }
    }
}
