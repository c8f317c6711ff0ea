//! The times that Kinesis gives, as whole milliseconds, the same for everybody who reads them.
//!
//! Kinesis keeps a record's arrival and a stream's creation in ms and sends them as seconds with a fraction. Lambda's events
//! hold that as decimal text; the SDK makes a binary fraction of it, which is often a little less (…650.987 becomes
//! …650.986999988 s), so cutting it off would give another millisecond than the event does. Both are rounded to the nearest.

use aws_sdk_kinesis::primitives::DateTime;
use recount_schemas::Amount;

/// The nearest millisecond since 1970 of a time as the SDK gives it; `None` where it does not fit.
pub fn of_time(time: &DateTime) -> Option<i64> {
    let part = (i64::from(time.subsec_nanos()) + 500_000) / 1_000_000;
    time.secs().checked_mul(1_000)?.checked_add(part)
}

/// The nearest millisecond since 1970 of seconds with a fraction, as JSON writes numbers; `None` where it is none or does not
/// fit.
pub fn of_seconds(seconds: &str) -> Option<i64> {
    // Exact by decimals; a text with more than nine of them came from a float, and is read as one.
    let exact = seconds.parse::<Amount>().ok();
    let exact = exact.map(|seconds| seconds.billionths().saturating_add(500_000).div_euclid(1_000_000));
    let ms = exact.or_else(|| {
        let ms = seconds.parse::<f64>().ok()? * 1e3;
        ms.is_finite().then_some(ms.round() as i128)
    })?;
    i64::try_from(ms).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_the_nearest_millisecond() {
        for (text, ms) in [
            ("1545084650.987", Some(1_545_084_650_987)),
            ("1.545084650987E9", Some(1_545_084_650_987)),
            ("1545084650", Some(1_545_084_650_000)),
            ("1545084650.9870000000001", Some(1_545_084_650_987)),
            ("1545084650.98699998855590820", Some(1_545_084_650_987)),
            ("1e300", None),
            ("null", None),
        ] {
            assert_eq!(of_seconds(text), ms, "{text}");
        }
        let cut = DateTime::from_secs_f64(1_545_084_650.987);
        assert_eq!((cut.to_millis().unwrap(), of_time(&cut)), (1_545_084_650_986, Some(1_545_084_650_987)));
        assert_eq!(of_time(&DateTime::from_secs_and_nanos(1, 999_999_999)), Some(2_000));
        assert_eq!(of_time(&DateTime::from_secs(i64::MAX)), None);
    }

    proptest! {
        /// Up to the year 2100: Lambda's text, however written, and the SDK's time are the same millisecond.
        #[test]
        fn an_event_and_the_sdk_give_the_same_millisecond(ms in 0i64..4_102_444_800_000) {
            let seconds = ms as f64 / 1e3;
            prop_assert_eq!(of_time(&DateTime::from_secs_f64(seconds)), Some(ms));
            for text in [format!("{}.{:03}", ms / 1_000, ms % 1_000), format!("{seconds}"), format!("{seconds:E}"), format!("{seconds:.20}")] {
                prop_assert_eq!(of_seconds(&text), Some(ms), "{}", text);
            }
        }
    }
}
