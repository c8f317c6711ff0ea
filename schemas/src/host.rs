//! What a part takes from the machine it runs on: the time, random numbers, and sleep.
//!
//! Nothing else in the workspace may ask for them (`clippy.toml` forbids the ambient calls), so that a test or a
//! simulation can hand in its own [`Host`] and make one seed mean one history.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A sleep that has been started; it owns all it needs.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// Time, randomness and sleep, passed in.
pub trait Host: Send + Sync + fmt::Debug {
    /// Wall-clock time: microseconds since 1970-01-01T00:00:00Z. May jump.
    fn now_us(&self) -> i64;

    /// Time since an arbitrary moment in the past. Never goes back.
    fn monotonic(&self) -> Duration;

    /// 64 random bits. Not for secrets.
    fn random_u64(&self) -> u64;

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> Sleep;

    /// Wall-clock time in milliseconds (floor).
    fn now_ms(&self) -> i64 {
        self.now_us().div_euclid(1_000)
    }

    /// A duration drawn evenly from `[0, most)`: full jitter for a back-off.
    fn jitter(&self, most: Duration) -> Duration {
        let unit = (self.random_u64() >> 11) as f64 / (1u64 << 53) as f64;
        most.mul_f64(unit)
    }
}

/// A [`Host`] as the parts hold it.
pub type SharedHost = Arc<dyn Host>;

/// A moment by a host's monotonic clock after which no new work is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Option<Duration>);

impl Deadline {
    /// There is none.
    pub const NONE: Self = Self(None);

    /// In `duration` from now.
    pub fn after(host: &dyn Host, duration: Duration) -> Self {
        Self(host.monotonic().checked_add(duration))
    }

    /// The time left; zero when it has passed, [`Duration::MAX`] where there is none.
    pub fn left(self, host: &dyn Host) -> Duration {
        self.0.map_or(Duration::MAX, |at| at.saturating_sub(host.monotonic()))
    }

    /// Whether it has passed.
    pub fn passed(self, host: &dyn Host) -> bool {
        self.left(host).is_zero()
    }

    /// What `work` comes to, if it ends before this; else `None`, and it is dropped where it stands: to what it wrote to, that is
    /// a crash. Work that ends at the same moment has ended. For what waits for others' answers, which may never come.
    pub async fn within<T>(self, host: &dyn Host, work: impl Future<Output = T>) -> Option<T> {
        // Boxed: work of many layers would else make one future nested deeper than the compiler goes.
        let mut work = Box::pin(work);
        let left = self.left(host);
        if left == Duration::MAX {
            return Some(work.await);
        }
        let mut passed = host.sleep(left);
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => passed.as_mut().poll(context).map(|()| None),
        })
        .await
    }

    /// The same, earlier by `margin`: for what must be done after the work.
    pub fn less(self, margin: Duration) -> Self {
        Self(self.0.map(|at| at.saturating_sub(margin)))
    }
}

/// The real machine.
#[derive(Debug, Clone, Copy)]
pub struct SystemHost {
    started: Instant,
}

impl SystemHost {
    /// A handle to the machine's own clock, randomness and timer.
    #[allow(clippy::disallowed_methods)] // the one place that may ask the machine
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// The same, shared, as the parts take it.
    pub fn shared() -> SharedHost {
        Arc::new(Self::new())
    }
}

impl Default for SystemHost {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(clippy::disallowed_methods)] // the one place that may ask the machine
impl Host for SystemHost {
    fn now_us(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        }
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn random_u64(&self) -> u64 {
        fastrand::u64(..)
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::{Context, Waker};

    /// A clock that is set by hand.
    #[derive(Debug, Default)]
    struct ByHand(Arc<AtomicU64>);

    impl Host for ByHand {
        fn now_us(&self) -> i64 {
            self.monotonic().as_micros() as i64
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        fn random_u64(&self) -> u64 {
            0
        }

        fn sleep(&self, duration: Duration) -> Sleep {
            let (now, until) = (Arc::clone(&self.0), self.monotonic() + duration);
            let over = move || Duration::from_secs(now.load(Ordering::Relaxed)) >= until;
            Box::pin(poll_fn(move |_| if over() { Poll::Ready(()) } else { Poll::Pending }))
        }
    }

    #[test]
    fn work_ends_or_is_left_when_the_time_is_up() {
        let host = ByHand::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut polled = |work: &mut Pin<Box<dyn Future<Output = Option<u8>> + '_>>| work.as_mut().poll(&mut context);
        let soon = Deadline::after(&host, Duration::from_secs(3));
        let mut unanswered: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(soon.within(&host, pending::<u8>()));
        let mut without: Pin<Box<dyn Future<Output = _> + '_>> =
            Box::pin(Deadline::NONE.within(&host, pending::<u8>()));
        let mut done: Pin<Box<dyn Future<Output = _> + '_>> = Box::pin(soon.within(&host, ready(7)));
        assert_eq!((polled(&mut unanswered), polled(&mut without)), (Poll::Pending, Poll::Pending));
        host.0.store(2, Ordering::Relaxed);
        assert_eq!(polled(&mut unanswered), Poll::Pending);
        host.0.store(3, Ordering::Relaxed);
        assert_eq!((polled(&mut unanswered), polled(&mut without)), (Poll::Ready(None), Poll::Pending));
        assert_eq!(polled(&mut done), Poll::Ready(Some(7)), "what has ended has ended, also when the time is up");
    }
}
