//! Read units bounded by a rate: what was used is paid by waiting before the next request.
//!
//! A page costs up to 128 units (1 MB, eventually consistent) and says so only afterwards, so within a second more than the
//! rate can be used; over the whole it is never exceeded by more than the pages in flight.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use recount_schemas::host::SharedHost;

/// The pace of requests that share a rate.
#[derive(Debug)]
pub struct Pace {
    host: SharedHost,
    per_second: Option<f64>,
    state: Mutex<(Duration, f64)>,
}

impl Pace {
    /// At most `per_second` units a second; without a bound where absent.
    pub fn new(host: SharedHost, per_second: Option<f64>) -> Self {
        let state = Mutex::new((host.monotonic(), 0.0));
        Self { host, per_second: per_second.filter(|rate| *rate > 0.0), state }
    }

    /// Waits until what was used so far is paid.
    pub async fn ready(&self) {
        if self.per_second.is_none() {
            return;
        }
        let free = self.state.lock().unwrap_or_else(PoisonError::into_inner).0;
        let wait = free.saturating_sub(self.host.monotonic());
        if !wait.is_zero() {
            self.host.sleep(wait).await;
        }
    }

    /// So many units were used.
    pub fn used(&self, units: f64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += units;
        if let Some(rate) = self.per_second {
            let seconds = (units / rate).clamp(0.0, 3_600.0);
            state.0 = state.0.max(self.host.monotonic()) + Duration::from_secs_f64(seconds);
        }
    }

    /// All that was used.
    pub fn units(&self) -> f64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestHost;
    use std::sync::Arc;

    #[tokio::test]
    async fn units_take_their_time() {
        let host = Arc::new(TestHost::default());
        let pace = Pace::new(host.clone(), Some(10.0));
        let began = recount_schemas::host::Host::monotonic(&*host);
        for _ in 0..5 {
            pace.ready().await;
            pace.used(20.0);
        }
        pace.ready().await;
        let took = recount_schemas::host::Host::monotonic(&*host) - began;
        assert_eq!((took.as_secs(), pace.units() as u64), (10, 100));
        let free = Pace::new(host.clone(), None);
        free.used(1e9);
        let before = recount_schemas::host::Host::monotonic(&*host);
        free.ready().await;
        assert_eq!(recount_schemas::host::Host::monotonic(&*host), before);
    }
}
