//! What happened, in order: a hash over all of it, and the lines themselves, to be read after a violation.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::Clock;

/// Most lines that are kept.
const KEPT: usize = 200_000;

/// See the module.
#[derive(Debug)]
pub struct Trace {
    clock: Arc<Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    hasher: DefaultHasher,
    lines: Vec<(u64, String)>,
    count: u64,
}

impl Trace {
    pub fn new(clock: &Arc<Clock>) -> Self {
        Self { clock: Arc::clone(clock), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a line.
    pub fn note(&self, line: String) {
        let now = self.clock.now();
        let mut state = self.state();
        (now, &line).hash(&mut state.hasher);
        state.count += 1;
        if state.lines.len() < KEPT {
            state.lines.push((now, line));
        }
    }

    /// A hash of all lines and their times.
    pub fn hash(&self) -> u64 {
        self.state().hasher.finish()
    }

    /// The lines, with the time since the history began.
    pub fn lines(&self) -> Vec<String> {
        self.state().lines.iter().map(|(at, line)| format!("{} {line}", time(*at))).collect()
    }
}

/// `1d 02:03:04.567890`
pub fn time(us: u64) -> String {
    let s = us / 1_000_000;
    format!("{}d {:02}:{:02}:{:02}.{:06}", s / 86_400, s / 3_600 % 24, s / 60 % 60, s % 60, us % 1_000_000)
}
