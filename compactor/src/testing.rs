//! A machine for tests: time moves only by sleeping, randomness is a seed's, and what goes to standard output is kept.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use recount_schemas::host::{Host, Sleep};

/// Lets others go on once. Unlike a runtime's yield it wakes at once, so that a test may do the scheduling itself.
pub(crate) async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|context| {
        if paused {
            return Poll::Ready(());
        }
        paused = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[derive(Debug)]
pub(crate) struct TestHost(Mutex<(i64, u64)>);

impl Default for TestHost {
    fn default() -> Self {
        Self::at(1_793_500_000_000_000, 1)
    }
}

impl TestHost {
    pub(crate) fn at(now_us: i64, seed: u64) -> Self {
        Self(Mutex::new((now_us, seed)))
    }

    pub(crate) fn pass(&self, duration: Duration) {
        self.0.lock().unwrap().0 += duration.as_micros() as i64;
    }
}

impl Host for TestHost {
    fn now_us(&self) -> i64 {
        self.0.lock().unwrap().0
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.now_us() as u64)
    }

    fn random_u64(&self) -> u64 {
        let mut inner = self.0.lock().unwrap();
        inner.1 = inner.1.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        inner.1 ^ (inner.1 >> 29)
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.pass(duration);
        Box::pin(pause())
    }
}

/// Takes what would go to standard output.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// What was written, each line one JSON document.
    pub(crate) fn parsed(&self) -> Vec<serde_json::Value> {
        self.0.lock().unwrap().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(parsed).collect()
    }
}

fn parsed(line: &[u8]) -> serde_json::Value {
    serde_json::from_slice(line).unwrap()
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
