//! How long a run may write.
//!
//! Removed files are deleted after a grace, and readers hold file lists for as long: a run that slept through the grace
//! must not write any more. Its age is taken by the wall clock and by the monotonic clock, whichever has gone farther: the
//! one may be set back, the other may stand still while a Lambda is frozen.

use std::time::Duration;

use recount_schemas::host::{Deadline, SharedHost};

/// The longest time kept back for staging and committing what has been read.
const COMMIT_MARGIN: Duration = Duration::from_secs(60);

/// A run's time.
#[derive(Debug, Clone)]
pub struct Life {
    host: SharedHost,
    wall_us: i64,
    monotonic: Duration,
    limit: Duration,
    deadline: Deadline,
    margin: Duration,
}

impl Life {
    /// Begins now; ends after `limit`, or at the caller's deadline if that is sooner.
    pub fn begin(host: SharedHost, limit: Duration, deadline: Deadline) -> Self {
        let margin = COMMIT_MARGIN.min(limit.min(deadline.left(&*host)) / 4);
        let (wall_us, monotonic) = (host.now_us(), host.monotonic());
        Self { host, wall_us, monotonic, limit, deadline, margin }
    }

    /// The time left; zero when it is over.
    pub fn left(&self) -> Duration {
        let wall = Duration::from_micros(u64::try_from(self.host.now_us() - self.wall_us).unwrap_or(0));
        let age = wall.max(self.host.monotonic().saturating_sub(self.monotonic));
        self.limit.saturating_sub(age).min(self.deadline.left(&*self.host))
    }

    /// Whether a write may begin. Asked before every one.
    pub fn may_write(&self) -> bool {
        !self.left().is_zero()
    }

    /// Whether more may be read: what has been read must still be committed.
    pub fn may_read(&self) -> bool {
        self.left() > self.margin
    }

    /// [`may_write`](Self::may_write) as a result.
    pub fn check(&self) -> Result<(), super::ArchiveError> {
        if self.may_write() { Ok(()) } else { Err(super::ArchiveError::TimeIsUp) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use recount_schemas::host::{Host, Sleep};

    use super::*;
    use crate::testing::TestHost;

    #[test]
    fn reading_ends_before_writing_does() {
        let host = Arc::new(TestHost::default());
        let life =
            Life::begin(host.clone(), Duration::from_secs(900), Deadline::after(&*host, Duration::from_secs(100)));
        assert!(life.may_read() && life.may_write());
        host.pass(Duration::from_secs(80));
        assert!(!life.may_read() && life.may_write());
        host.pass(Duration::from_secs(20));
        assert!(!life.may_write());
    }

    /// A machine whose clocks go each by itself.
    #[derive(Debug, Default)]
    struct Clocks {
        wall_us: AtomicI64,
        monotonic_us: AtomicI64,
    }

    impl Host for Clocks {
        fn now_us(&self) -> i64 {
            self.wall_us.load(Ordering::SeqCst)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_micros(self.monotonic_us.load(Ordering::SeqCst) as u64)
        }

        fn random_u64(&self) -> u64 {
            0
        }

        fn sleep(&self, _: Duration) -> Sleep {
            Box::pin(std::future::ready(()))
        }
    }

    #[test]
    fn the_clock_that_went_farther_tells_the_age() {
        let host = Arc::new(Clocks::default());
        host.wall_us.store(1_790_000_000_000_000, Ordering::SeqCst);
        let life = Life::begin(host.clone(), Duration::from_secs(100), Deadline::NONE);
        host.monotonic_us.store(30_000_000, Ordering::SeqCst);
        assert_eq!(life.left(), Duration::from_secs(70));
        host.wall_us.fetch_add(40_000_000, Ordering::SeqCst);
        assert_eq!(life.left(), Duration::from_secs(60));
        host.wall_us.fetch_sub(90_000_000, Ordering::SeqCst);
        assert_eq!(life.left(), Duration::from_secs(70), "set back");
    }

    #[test]
    fn a_quarter_of_a_short_life_is_kept_for_the_commit() {
        let host = Arc::new(TestHost::default());
        let life = Life::begin(host.clone(), Duration::from_secs(100), Deadline::NONE);
        host.pass(Duration::from_micros(74_999_999));
        assert!(life.may_read());
        host.pass(Duration::from_micros(1));
        assert!(!life.may_read() && life.check().is_ok());
        host.pass(Duration::from_secs(25));
        assert!(matches!(life.check(), Err(super::super::ArchiveError::TimeIsUp)));
    }

    #[test]
    fn a_life_ends_also_without_a_deadline() {
        let host = Arc::new(TestHost::default());
        let life = Life::begin(host.clone(), Duration::from_secs(900), Deadline::NONE);
        host.pass(Duration::from_secs(899));
        assert!(life.may_write());
        host.pass(Duration::from_secs(1));
        assert!(!life.may_write());
    }
}
