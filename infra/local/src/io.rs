//! Where blocking work runs: on the blocking pool, or right here.
//!
//! The engines do blocking work (SQLite, files). A server wants it off its async threads. A simulation wants it in
//! the calling task: the order in which pool threads finish is not a function of the seed.

use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_blocking;

/// Threads of a blocking pool. The engines answer one request at a time each, so more threads only wait; and each keeps memory: the
/// allocator spreads threads over arenas, and an arena stays about as large as the largest requests that met in it.
///
/// No work in the pool may wait for other work of the pool, or a bound could stop both. One exception fits: the walk of a directory that
/// the demo scans, on one thread.
pub const POOL_THREADS: usize = 4;

/// A runtime whose blocking pool has at most [`POOL_THREADS`] threads.
///
/// # Errors
/// When the operating system gives it no threads or no poll.
pub fn runtime(mut builder: Builder) -> std::io::Result<Runtime> {
    builder.enable_all().max_blocking_threads(POOL_THREADS).build()
}

/// How an engine runs a piece of blocking work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BlockingWork {
    /// On tokio's blocking pool; the async threads stay free.
    #[default]
    Pool,
    /// In the calling task. Deterministic; for simulations on a current-thread runtime.
    Inline,
}

impl BlockingWork {
    /// Runs `work` and returns what it returned.
    ///
    /// # Errors
    /// When the pool lost the work: it panicked, or the runtime is shutting down.
    pub async fn run<T, F>(self, work: F) -> std::io::Result<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match self {
            BlockingWork::Inline => Ok(work()),
            BlockingWork::Pool => spawn_blocking(work).await.map_err(std::io::Error::other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, RwLock};

    #[test]
    fn much_work_makes_few_threads() {
        let started = Arc::new(AtomicUsize::new(0));
        let mut builder = Builder::new_current_thread();
        let count = Arc::clone(&started);
        builder.on_thread_start(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let runtime = runtime(builder).unwrap();
        let gate = Arc::new(RwLock::new(()));
        // Until all work is queued none of it ends, so no thread is idle and the pool makes as many as it may.
        let closed = gate.write().unwrap();
        for _ in 0..8 * POOL_THREADS {
            let gate = Arc::clone(&gate);
            runtime.spawn_blocking(move || drop(gate.read()));
        }
        drop(closed);
        drop(runtime); // waits for its threads
        assert_eq!(started.load(Ordering::SeqCst), POOL_THREADS);
    }
}
