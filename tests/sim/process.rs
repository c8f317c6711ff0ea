//! A process of the system under test: what it has of a machine, and how it dies or stands still.
//!
//! A process is killed at any of its awaits: its future is dropped there, and nothing of it runs any more. It can stand
//! still, as a frozen Lambda or a paused machine does: nothing of it runs until it is let go, and then everything that was
//! due meanwhile is due at once. What it had sent is on its way in both cases.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use aws_smithy_async::rt::sleep::{AsyncSleep, Sleep as SdkSleep};
use aws_smithy_async::time::TimeSource;
use recount_schemas::host::{Host, Sleep};

use crate::clock::Clock;

/// Time, randomness and sleep of one process.
#[derive(Debug)]
pub struct Machine {
    clock: Arc<Clock>,
    /// What the clock showed when the history began, µs since 1970.
    epoch_us: i64,
    /// How far this machine's clock is off, µs. It may change at any time.
    skew_us: AtomicI64,
    /// For how long the monotonic clock has stood still, µs.
    stood_us: AtomicU64,
    random: Mutex<fastrand::Rng>,
}

impl Machine {
    pub fn new(clock: &Arc<Clock>, epoch_us: i64, seed: u64) -> Arc<Self> {
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        let (skew_us, stood_us) = (AtomicI64::new(0), AtomicU64::new(0));
        Arc::new(Self { clock: Arc::clone(clock), epoch_us, skew_us, stood_us, random })
    }

    /// From now on this machine's clock is so far off.
    pub fn set_skew(&self, us: i64) {
        self.skew_us.store(us, Ordering::Relaxed);
    }
}

impl Host for Machine {
    fn now_us(&self) -> i64 {
        self.epoch_us + self.clock.now() as i64 + self.skew_us.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.clock.now().saturating_sub(self.stood_us.load(Ordering::Relaxed)))
    }

    fn random_u64(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).u64(..)
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(self.clock.sleep(duration))
    }
}

/// The same machine, as the SDK asks for it. The SDK signs by a right clock, as it corrects its own by AWS's answers.
#[derive(Debug, Clone)]
pub struct SdkTime(pub Arc<Machine>);

impl TimeSource for SdkTime {
    fn now(&self) -> std::time::SystemTime {
        let us = self.0.epoch_us + self.0.clock.now() as i64;
        std::time::UNIX_EPOCH + Duration::from_micros(us.max(0) as u64)
    }
}

impl AsyncSleep for SdkTime {
    fn sleep(&self, duration: Duration) -> SdkSleep {
        SdkSleep::new(self.0.clock.sleep(duration))
    }
}

/// At which of its requests, or of those among them that write, a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doom {
    /// When it is about to send it.
    Before(u64),
    /// When it has had its effect, before its answer.
    After(u64),
}

/// A process.
#[derive(Debug)]
pub struct Process {
    pub name: String,
    pub machine: Arc<Machine>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    dead: bool,
    frozen_until: u64,
    sent: u64,
    written: u64,
    /// And whether only requests that write are counted.
    doom: Option<(Doom, bool)>,
    /// How often something befell its requests: those about tables and streams, those about objects.
    struck: (u64, u64),
    waker: Option<Waker>,
}

impl Process {
    pub fn new(name: String, machine: Arc<Machine>) -> Arc<Self> {
        Arc::new(Self { name, machine, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn kill(&self) {
        let waker = {
            let mut state = self.state();
            state.dead = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Dies at one of its next requests, counted from 0; `writes`: of those that write.
    pub fn doom(&self, doom: Doom, writes: bool) {
        let mut state = self.state();
        let before = if writes { state.written } else { state.sent };
        let doom = match doom {
            Doom::Before(n) => Doom::Before(before + n),
            Doom::After(n) => Doom::After(before + n),
        };
        state.doom = Some((doom, writes));
    }

    /// Stands still from now on. `monotonic`: whether its monotonic clock does, too.
    pub fn freeze(&self, duration: Duration, monotonic: bool) {
        let (now, us) = (self.machine.clock.now(), duration.as_micros() as u64);
        let mut state = self.state();
        // Who stands still already stands still for longer, if at all.
        let begins = state.frozen_until.max(now);
        state.frozen_until = begins.max(now + us);
        state.struck = (state.struck.0 + 1, state.struck.1 + 1);
        if monotonic {
            self.machine.stood_us.fetch_add(state.frozen_until - begins, Ordering::Relaxed);
        }
    }

    /// Something befell a request of it; `objects`: one to S3.
    pub fn strike(&self, objects: bool) {
        let mut state = self.state();
        if objects {
            state.struck.1 += 1;
        } else {
            state.struck.0 += 1;
        }
    }

    /// How often something befell its requests: those about tables and streams, those about objects.
    pub fn struck(&self) -> (u64, u64) {
        self.state().struck
    }

    /// Whether it stands still now.
    pub fn stands(&self) -> bool {
        self.machine.clock.now() < self.state().frozen_until
    }

    /// Counts a request. What the process is to suffer at it.
    pub fn sends(&self, writes: bool) -> Option<Doom> {
        let mut state = self.state();
        let (sent, written) = (state.sent, state.written);
        state.sent += 1;
        state.written += u64::from(writes);
        let (doom, of_writes) = state.doom.filter(|(_, of_writes)| writes || !of_writes)?;
        let n = if of_writes { written } else { sent };
        matches!(doom, Doom::Before(at) | Doom::After(at) if at == n).then_some(doom)
    }

    /// Runs `work` in this process; `None` if it died. One piece of work at a time.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut thaw = None;
        poll_fn(|cx| {
            let (kept, frozen_until) = {
                let mut state = self.state();
                if state.dead {
                    return Poll::Ready(None);
                }
                (state.waker.replace(cx.waker().clone()), state.frozen_until)
            };
            drop(kept); // not under the lock: a task may go with it
            if self.machine.clock.now() < frozen_until {
                let sleep = thaw.insert(Box::pin(self.machine.clock.sleep_until(frozen_until)));
                // Not yet: the clock stands before that moment.
                let _ = sleep.as_mut().poll(cx);
                return Poll::Pending;
            }
            work.as_mut().poll(cx).map(Some)
        })
        .await
    }
}
