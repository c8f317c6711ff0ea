//! Virtual time: a clock that stands still while anybody has something to do, and then jumps to the next timer.
//!
//! The runtime calls [`Clock::jump`] just before it would put its thread to sleep, which is when no task can go on. No
//! timer of tokio is used, and none could be: the runtime has no time driver, so whoever asks the machine's clock for a
//! timer panics.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// µs since the history began, and who waits for which moment.
#[derive(Debug, Default)]
pub struct Clock {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    now: u64,
    timers_made: u64,
    /// By moment, then in the order in which they were made.
    timers: BTreeMap<(u64, u64), Waker>,
    /// Wakes the runtime's own future.
    runtime: Option<Waker>,
}

impl Clock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// µs since the history began.
    pub fn now(&self) -> u64 {
        self.state().now
    }

    /// Goes to the next timer and wakes whoever waits for it. Nobody waits: the history stands still for ever, which the
    /// caller of [`run`] must rule out by a timer of its own.
    fn jump(&self) {
        let (next, runtime) = {
            let mut state = self.state();
            let next = state.timers.pop_first();
            if let Some(((at, _), _)) = &next {
                state.now = state.now.max(*at);
            }
            (next, state.runtime.clone())
        };
        let Some((_, waker)) = next else { return };
        waker.wake();
        // Whoever waited may be gone: then nothing can go on still, and the runtime must come here once more, not sleep.
        if let Some(runtime) = runtime {
            runtime.wake();
        }
    }

    /// Completes after `duration`.
    pub fn sleep(self: &Arc<Self>, duration: Duration) -> Sleep {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sleep_until(self.now().saturating_add(us))
    }

    /// Completes at `at`, µs since the history began.
    pub fn sleep_until(self: &Arc<Self>, at: u64) -> Sleep {
        Sleep { clock: Arc::clone(self), at, timer: None }
    }
}

/// See [`Clock::sleep`].
#[derive(Debug)]
pub struct Sleep {
    clock: Arc<Clock>,
    at: u64,
    timer: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let clock = Arc::clone(&self.clock);
        // The waker that was kept goes when the lock has: with it may go a task, and with the task its timers.
        let kept;
        {
            let mut state = clock.state();
            if state.now >= self.at {
                kept = self.timer.take().and_then(|timer| state.timers.remove(&(self.at, timer)));
                drop(state);
                drop(kept);
                return Poll::Ready(());
            }
            let timer = *self.timer.get_or_insert_with(|| {
                state.timers_made += 1;
                state.timers_made
            });
            kept = state.timers.insert((self.at, timer), cx.waker().clone());
        }
        drop(kept);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            let kept = self.clock.state().timers.remove(&(self.at, timer));
            drop(kept); // as above: not under the lock
        }
    }
}

/// Runs `history` on this thread, by this clock, to its end.
pub fn run<T>(clock: &Arc<Clock>, history: impl Future<Output = T>) -> T {
    let jumping = Arc::clone(clock);
    let runtime = tokio::runtime::Builder::new_current_thread().on_thread_park(move || jumping.jump()).build().unwrap();
    let mut history = pin!(history);
    let woken = poll_fn(|cx| {
        let kept = clock.state().runtime.replace(cx.waker().clone());
        drop(kept);
        history.as_mut().poll(cx)
    });
    tokio::task::LocalSet::new().block_on(&runtime, woken)
}
