//! The whole stream: which shards are worked through, in which order.
//!
//! A shard is started when all its parents are done or have expired, so that the records of one key are delivered in
//! order across a reshard (KDG kinesis-using-sdk-java-after-resharding). `Config::starting` decides only for the shards
//! that exist when the mapping first sees the stream; a later shard begins with its first record.

use std::collections::HashSet;
use std::sync::Arc;

use recount_schemas::host::SharedHost;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::chaos::Chaos;
use super::checkpoint::{Checkpoints, Position, Reader};
use super::shard::{Worker, changed};
use super::source::{Listing, ShardInfo, Source, SourceError};
use super::{Config, Error, Function, OnFailure};

/// An event source mapping. A clone is the same mapping.
pub struct Mapping<S> {
    shared: Arc<Shared<S>>,
}

impl<S> Clone for Mapping<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// What all shards share.
pub(super) struct Shared<S> {
    pub source: S,
    pub function: Arc<dyn Function>,
    pub config: Config,
    pub checkpoints: Checkpoints,
    pub host: SharedHost,
    pub on_failure: Option<Arc<dyn OnFailure>>,
    pub chaos: Chaos,
    pub progress: watch::Sender<u64>,
    pub slots: Semaphore,
}

/// How far a mapping is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Records that are not done, over all shards.
    pub records: u64,
    /// Age of the oldest of them in ms: Lambda's `IteratorAge`.
    pub millis: i64,
}

impl<S: Source> Mapping<S> {
    /// A mapping from a source to a function. It does nothing before [`Mapping::run`].
    ///
    /// # Errors
    /// [`Error::Config`] when a parameter is outside AWS's limits.
    pub fn new(
        source: S,
        function: Arc<dyn Function>,
        config: Config,
        checkpoints: Checkpoints,
        host: SharedHost,
        on_failure: Option<Arc<dyn OnFailure>>,
    ) -> Result<Self, Error> {
        config.check()?;
        let slots = Semaphore::new(config.concurrency.min(Semaphore::MAX_PERMITS));
        let shared = Shared {
            source,
            function,
            config,
            checkpoints,
            host,
            on_failure,
            chaos: Chaos::default(),
            progress: watch::channel(0).0,
            slots,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The switches for redelivery.
    pub fn chaos(&self) -> &Chaos {
        &self.shared.chaos
    }

    /// Runs until `stop` becomes true (or its sender is dropped): batches in flight are finished and their positions
    /// kept. At most one run of a mapping may be going at a time.
    ///
    /// # Errors
    /// When positions cannot be kept, or a kill was asked for; every other fault is waited out.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) -> Result<(), Error> {
        let mut workers = JoinSet::new();
        let mut running = HashSet::new();
        let mut changes = self.shared.source.changes();
        let mut wakes = self.shared.chaos.wakes();
        while !*stop.borrow() {
            if let Some(changes) = &mut changes {
                changes.borrow_and_update();
            }
            wakes.borrow_and_update();
            match self.startable() {
                Ok((reader, shards)) => {
                    for shard in shards {
                        let key = (reader.clone(), shard.id.clone());
                        if running.insert(key.clone()) {
                            let worker = Worker {
                                shared: Arc::clone(&self.shared),
                                reader: reader.clone(),
                                shard,
                                stop: stop.clone(),
                                changes: self.shared.source.changes(),
                                wakes: self.shared.chaos.wakes(),
                            };
                            workers.spawn(async move { (key, worker.run().await) });
                        }
                    }
                }
                Err(Error::Source(error)) => tracing::debug!(%error, "the stream was not listed"),
                Err(error) => return Err(error),
            }
            // New shards come up when a shard ends, which wakes this loop. Only while none is read can they come
            // otherwise.
            let watched = changes.as_mut().filter(|_| workers.is_empty());
            let sleep = self.shared.host.sleep(self.shared.config.poll);
            tokio::select! {
                biased; // one history is one order
                asked = stop.wait_for(|stop| *stop) => if asked.is_err() { break },
                Some(ended) = workers.join_next() => {
                    // Workers catch the panics of functions; one of their own would be a bug, and ends the run.
                    let (key, result) = ended.map_err(|cause| SourceError::Passing(format!("a worker ended: {cause}")))?;
                    running.remove(&key);
                    result?;
                }
                () = changed(watched) => {}
                _ = wakes.changed() => {}
                () = sleep => {}
            }
        }
        while let Some(ended) = workers.join_next().await {
            if let Ok((_, result)) = ended {
                result?;
            }
        }
        Ok(())
    }

    /// How far the mapping is behind, by its kept positions: what is in flight counts as not done. Before its first run
    /// everything does, wherever it will begin.
    ///
    /// # Errors
    /// When the stream or the positions cannot be read.
    pub fn lag(&self) -> Result<Lag, Error> {
        let listing = self.shared.source.list()?;
        let reader = self.reader(&listing);
        let mut lag = Lag::default();
        for shard in &listing.shards {
            let position = self.shared.checkpoints.get(&reader, &shard.id)?.unwrap_or_default();
            if position.done {
                continue;
            }
            let (records, millis) = match self.shared.source.backlog(shard, position.next) {
                Ok(backlog) => backlog,
                Err(SourceError::Gone(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            lag.records = lag.records.saturating_add(records);
            lag.millis = lag.millis.max(millis);
        }
        Ok(lag)
    }

    /// Waits until everything that is in the stream is done, rewinds included. Somebody must be running the mapping.
    ///
    /// # Errors
    /// As [`Mapping::lag`].
    pub async fn drained(&self) -> Result<(), Error> {
        let mut progress = self.shared.progress.subscribe();
        loop {
            progress.borrow_and_update();
            if !self.shared.chaos.pending() && self.lag()?.records == 0 {
                return Ok(());
            }
            // The sender lives as long as `self`.
            let _ = progress.changed().await;
        }
    }

    fn progressed(&self) {
        self.shared.progress.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn reader(&self, listing: &Listing) -> Reader {
        Reader {
            mapping: self.shared.config.name.clone(),
            arn: listing.arn.clone(),
            incarnation: listing.incarnation.clone(),
        }
    }

    /// The shards that are not done and whose parents are.
    fn startable(&self) -> Result<(Reader, Vec<ShardInfo>), Error> {
        let listing = self.shared.source.list()?;
        let reader = self.reader(&listing);
        let checkpoints = &self.shared.checkpoints;
        if !checkpoints.knows(&reader)? {
            let mut positions = Vec::new();
            for shard in &listing.shards {
                let next = self.shared.source.start(shard, self.shared.config.starting)?;
                positions.push((shard.id.as_str(), Position { next, done: false }));
            }
            checkpoints.put(&reader, &positions)?;
            self.progressed();
        }
        let mut done = HashSet::new();
        for shard in &listing.shards {
            let Some(position) = checkpoints.get(&reader, &shard.id)?.filter(|position| position.done) else {
                continue;
            };
            match self.shared.chaos.take_rewind(&shard.id) {
                Some(records) => {
                    let next = position.next.saturating_sub(records);
                    checkpoints.put(&reader, &[(&shard.id, Position { next, done: false })])?;
                    self.progressed();
                }
                None => {
                    done.insert(shard.id.as_str());
                }
            }
        }
        let listed: HashSet<&str> = listing.shards.iter().map(|shard| shard.id.as_str()).collect();
        let ready = |shard: &&ShardInfo| {
            let over = |parent: &String| done.contains(parent.as_str()) || !listed.contains(parent.as_str());
            !done.contains(shard.id.as_str()) && shard.parents.iter().all(over)
        };
        let shards = listing.shards.iter().filter(ready).cloned().collect();
        Ok((reader, shards))
    }
}
