//! What "at least once" allows, on demand: for tests, the simulation and the demo's incident.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Switches that make a mapping deliver again what it delivered before. A clone is the same set of switches.
#[derive(Debug, Clone)]
pub struct Chaos {
    state: Arc<Mutex<State>>,
    wake: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    rewinds: BTreeMap<String, u64>,
    repeats: u32,
    lost_answers: u32,
    kill: bool,
}

impl Default for Chaos {
    fn default() -> Self {
        Self { state: Arc::default(), wake: watch::channel(0).0 }
    }
}

impl Chaos {
    /// Delivers up to `records` records of a shard again, from the position it has when it gets there; also of a shard
    /// that is closed and done. A shard that the stream does not have is waited for.
    pub fn rewind(&self, shard_id: &str, records: u64) {
        *self.lock().rewinds.entry(shard_id.to_owned()).or_default() += records;
        self.wake.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Delivers each of the next `batches` batches once more after it succeeded, as after a lost position.
    pub fn repeat(&self, batches: u32) {
        self.lock().repeats += batches;
    }

    /// Loses the answers of the next `calls` calls: the function ran, the mapping takes it for failed.
    pub fn lose_answers(&self, calls: u32) {
        self.lock().lost_answers += calls;
    }

    /// Ends the mapping's run with [`super::Error::Killed`] after the next batch that succeeds, before its position is
    /// kept.
    pub fn kill_before_checkpoint(&self) {
        self.lock().kill = true;
    }

    /// Whether a rewind has not been taken up yet.
    pub(super) fn pending(&self) -> bool {
        !self.lock().rewinds.is_empty()
    }

    pub(super) fn take_rewind(&self, shard_id: &str) -> Option<u64> {
        self.lock().rewinds.remove(shard_id)
    }

    pub(super) fn take_repeat(&self) -> bool {
        let mut state = self.lock();
        let taken = state.repeats > 0;
        state.repeats = state.repeats.saturating_sub(1);
        taken
    }

    pub(super) fn take_lost_answer(&self) -> bool {
        let mut state = self.lock();
        let taken = state.lost_answers > 0;
        state.lost_answers = state.lost_answers.saturating_sub(1);
        taken
    }

    pub(super) fn take_kill(&self) -> bool {
        std::mem::take(&mut self.lock().kill)
    }

    pub(super) fn wakes(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
