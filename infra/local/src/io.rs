//! Where blocking work runs: on the blocking pool, or right here.
//!
//! The engines do blocking work (SQLite, files). A server wants it off its async threads. A simulation wants it in
//! the calling task: the order in which pool threads finish is not a function of the seed.

use tokio::task::spawn_blocking;

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
