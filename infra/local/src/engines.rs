//! All engines of one data directory, opened together.
//!
//! ```text
//! DIR/lock               held by the process that works on DIR
//! DIR/dynamodb.sqlite    tables and their streams
//! DIR/kinesis.sqlite     streams
//! DIR/s3/, DIR/s3-work/  objects
//! ```
//!
//! Everything that was answered is on disk when the answer leaves: a killed process loses nothing.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use recount_schemas::host::SharedHost;
use tokio::net::TcpListener;

use crate::door::{Door, JsonEngine};
use crate::dynamo::{Dynamo, DynamoError};
use crate::io::BlockingWork;
use crate::kinesis::{self, Kinesis};
use crate::s3::{self, StoreError};

/// Between two rounds of upkeep.
const UPKEEP: Duration = Duration::from_secs(10);

/// Where DynamoDB and Kinesis keep their data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// In the directory.
    #[default]
    Disk,
    /// In memory, on the host's clock; objects stay in the directory.
    Memory,
}

/// How to open the engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Where blocking work runs.
    pub work: BlockingWork,
    /// Where tables and streams are kept.
    pub storage: Storage,
}

/// Why the engines did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory cannot be made or locked.
    #[error("cannot use the data directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{} is in use by process {holder}; stop it, or take another directory with --data", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Its process ID, or `?`.
        holder: String,
    },
    /// DynamoDB.
    #[error(transparent)]
    Dynamo(#[from] DynamoError),
    /// Kinesis.
    #[error("kinesis engine: {0}")]
    Kinesis(String),
    /// S3.
    #[error("object store: {0}")]
    S3(#[from] StoreError),
}

/// The engines of one directory. Clones share them; the directory is free again when the last clone is gone.
#[derive(Clone, Debug)]
pub struct Engines {
    dynamo: Dynamo,
    kinesis: Kinesis,
    door: Door,
    host: SharedHost,
    work: BlockingWork,
    _lock: Arc<File>,
}

impl JsonEngine for Dynamo {
    fn handle(&self, operation: &str, body: &[u8]) -> (u16, Vec<u8>) {
        Dynamo::handle(self, operation, body)
    }
}

impl JsonEngine for Kinesis {
    fn handle(&self, operation: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let kinesis::Response { status, body } = Kinesis::handle(self, operation, body);
        (status, body)
    }
}

impl Engines {
    /// Opens or makes all engines of `dir` and locks it.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another process works on it; else what the engine in question says.
    pub fn open(dir: &Path, host: SharedHost, options: Options) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::Directory { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(unusable)?;
        let lock = lock(dir)?;
        let dynamo = match options.storage {
            Storage::Disk => Dynamo::open(&dir.join("dynamodb.sqlite"), Arc::clone(&host))?,
            Storage::Memory => Dynamo::in_memory(Arc::clone(&host))?,
        };
        let kinesis = match options.storage {
            Storage::Disk => Kinesis::open(&dir.join("kinesis.sqlite"), Arc::clone(&host)),
            Storage::Memory => Kinesis::memory(Arc::clone(&host)),
        };
        let kinesis = kinesis.map_err(|e| OpenError::Kinesis(e.to_string()))?;
        let s3 = s3::open(dir, Arc::clone(&host), options.work)?;
        let tables: Arc<dyn JsonEngine> = Arc::new(dynamo.clone());
        let streams: Arc<dyn JsonEngine> = Arc::new(kinesis.clone());
        let json = vec![
            ("DynamoDB_20120810", Arc::clone(&tables)),
            ("DynamoDBStreams_20120810", tables),
            ("Kinesis_20131202", streams),
        ];
        let door = Door::new(json, s3, Arc::clone(&host), options.work);
        Ok(Engines { dynamo, kinesis, door, host, work: options.work, _lock: Arc::new(lock) })
    }

    /// Takes the directory as [`Engines::open`] does, and nothing more: whoever gets it knows that nobody works on it.
    ///
    /// # Errors
    /// As [`Engines::open`].
    pub fn lock_only(dir: &Path) -> Result<impl Drop + use<>, OpenError> {
        lock(dir).map(Held)
    }

    /// DynamoDB.
    pub fn dynamo(&self) -> &Dynamo {
        &self.dynamo
    }

    /// Kinesis; event source mappings read it directly.
    pub fn kinesis(&self) -> &Kinesis {
        &self.kinesis
    }

    /// The front door, for requests without a socket.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Serves all engines on one listener until `shutdown` completes, and keeps up what AWS keeps up: expiry by TTL,
    /// retention of streams.
    ///
    /// # Errors
    /// As [`Door::serve`].
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        tokio::select! {
            served = self.door.serve(listener, shutdown) => served,
            never = self.upkeep() => match never {},
        }
    }

    async fn upkeep(&self) -> std::convert::Infallible {
        loop {
            self.host.sleep(UPKEEP).await;
            let dynamo = self.dynamo.clone();
            match self.work.run(move || dynamo.maintain()).await {
                Ok(Ok(done)) if done == Default::default() => {}
                Ok(Ok(done)) => tracing::debug!(done.expired, done.trimmed, "dynamodb upkeep"),
                Ok(Err(e)) => tracing::warn!(error = %e, "dynamodb upkeep failed; it is tried again"),
                Err(e) => tracing::warn!(error = %e, "dynamodb upkeep was lost; it is tried again"),
            }
        }
    }
}

/// A directory that is taken until this is dropped.
struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.unlock(); // closing the file would do as well
    }
}

/// Takes the directory for this process.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let unusable = |source| OpenError::Directory { path: dir.to_owned(), source };
    let path = dir.join("lock");
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder); // only to say who
            let holder = holder.trim().to_owned();
            let holder = if holder.is_empty() { "?".to_owned() } else { holder };
            return Err(OpenError::InUse { path: dir.to_owned(), holder });
        }
        Err(TryLockError::Error(e)) => return Err(unusable(e)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(unusable)?;
    Ok(file)
}
