//! A [`Host`] whose clock only moves when told to, and whose randomness comes from a seed.
//!
//! For tests of anything that depends on time: retention, expiry, back-off, windows. A sleep completes when the clock
//! has been moved past its end; with [`ManualHost::auto_advance`] the clock jumps there by itself, so that code which
//! only waits for time never waits at all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use recount_schemas::host::{Host, Sleep};
use tokio::sync::watch;

/// A settable clock and a seeded generator.
#[derive(Debug)]
pub struct ManualHost {
    /// Wall clock, µs since 1970.
    wall_us: watch::Sender<i64>,
    /// Monotonic clock, µs: moves with [`ManualHost::advance`], not with [`ManualHost::set_us`].
    monotonic_us: watch::Sender<u64>,
    random: Mutex<u64>,
    auto: AtomicBool,
}

impl ManualHost {
    /// A host that stands still at `now_ms` (ms since 1970), with the generator at `seed`.
    pub fn new(now_ms: i64, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            wall_us: watch::channel(now_ms.saturating_mul(1_000)).0,
            monotonic_us: watch::channel(0).0,
            random: Mutex::new(seed),
            auto: AtomicBool::new(false),
        })
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.wall_us.send_modify(|now| *now = now.saturating_add(i64::try_from(us).unwrap_or(i64::MAX)));
        self.monotonic_us.send_modify(|now| *now = now.saturating_add(us));
    }

    /// Sets the wall clock (µs since 1970) without moving the monotonic one: a clock that was put right, or wrong.
    pub fn set_us(&self, us: i64) {
        self.wall_us.send_replace(us);
    }

    /// Whether a sleep moves the clock to its own end instead of waiting for somebody to move it.
    pub fn auto_advance(&self, on: bool) {
        self.auto.store(on, Ordering::SeqCst);
    }

    fn state(&self) -> MutexGuard<'_, u64> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host for ManualHost {
    fn now_us(&self) -> i64 {
        *self.wall_us.borrow()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(*self.monotonic_us.borrow())
    }

    /// SplitMix64: one 64-bit word of state, every seed good.
    fn random_u64(&self) -> u64 {
        let mut state = self.state();
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let mut clock = self.monotonic_us.subscribe();
        let end = self.monotonic().saturating_add(duration).as_micros();
        if self.auto.load(Ordering::SeqCst) {
            self.advance(duration);
        }
        Box::pin(async move {
            // The yield keeps a loop of sleeps from starving its neighbours on one thread.
            tokio::task::yield_now().await;
            // An error means that the host is gone: nobody can move the clock any more, so do not wait for it.
            let _ = clock.wait_for(|now| u128::from(*now) >= end).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_moves_only_when_told() {
        let host = ManualHost::new(1_000, 7);
        assert_eq!((host.now_ms(), host.monotonic()), (1_000, Duration::ZERO));
        host.advance(Duration::from_millis(5));
        assert_eq!((host.now_ms(), host.monotonic()), (1_005, Duration::from_millis(5)));
        host.set_us(0);
        assert_eq!((host.now_ms(), host.monotonic()), (0, Duration::from_millis(5)));
    }

    #[test]
    fn one_seed_is_one_sequence() {
        let (a, b) = (ManualHost::new(0, 42), ManualHost::new(9, 42));
        assert_eq!([a.random_u64(), a.random_u64()], [b.random_u64(), b.random_u64()]);
    }

    #[tokio::test]
    async fn a_sleep_ends_when_the_clock_passes_its_end() {
        let host = ManualHost::new(0, 1);
        let sleep = tokio::spawn(host.sleep(Duration::from_secs(60)));
        host.advance(Duration::from_secs(60));
        sleep.await.unwrap();
        host.auto_advance(true);
        host.sleep(Duration::from_secs(3_600)).await;
        assert_eq!(host.now_ms(), 3_660_000);
    }
}
