//! Sets beside the base, noticed and fed: what an operator deploys on AWS for each of them, a second event source mapping and a
//! second schedule.
//!
//! A set is fed once its totals are loaded (`recount rebuild --into NAME --confirm` says so in the bucket), from the oldest record of the
//! stream on: what its totals have already, its ledger knows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use recount_compactor::archive::{Archiver, Kinesis as ArchiveSource, Limits};
use recount_compactor::context::{Context, Given};
use recount_compactor::sets::{home, list};
use recount_schemas::{Home, SetName};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Feed, PipelineError, Tally, own_thread, schedule, spawn_mapping};
use crate::faults::Faults;

/// How often new sets are looked for.
const EVERY: Duration = Duration::from_secs(1);

/// Looks for sets, and feeds them.
pub(super) struct Watcher {
    pub(super) feed: Feed,
    /// The base.
    pub(super) context: Context,
}

impl Watcher {
    /// Until it is stopped, with all that it started.
    pub(super) async fn watch(self, mut stop: watch::Receiver<bool>) {
        let (mut fed, mut tasks) = (BTreeSet::new(), JoinSet::new());
        loop {
            let look = async {
                if let Err(error) = self.look(&mut fed, &mut tasks, &stop).await {
                    tracing::warn!(%error, "a set is not fed; it is tried again");
                }
                self.context.host.sleep(EVERY).await;
            };
            let mut stopped = stop.clone();
            tokio::select! {
                () = look => {}
                _ = stopped.wait_for(|stop| *stop) => break,
            }
        }
        let _ = stop.wait_for(|stop| *stop).await;
        while tasks.join_next().await.is_some() {}
    }

    /// Starts to feed the sets that are loaded and not fed yet.
    async fn look(
        &self,
        fed: &mut BTreeSet<SetName>,
        tasks: &mut JoinSet<()>,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), PipelineError> {
        let names = list::names(&self.context.root()).await.map_err(|error| PipelineError::Archive(error.into()))?;
        for name in names {
            if fed.contains(&name) {
                continue;
            }
            let objects = self.context.root().below(&name.prefix());
            let loaded = home::loaded(&objects, &name).await.map_err(recount_compactor::context::ContextError::from)?;
            if loaded.is_some() {
                self.start(&name, tasks, stop).await?;
                fed.insert(name);
            }
        }
        Ok(())
    }

    async fn start(
        &self,
        name: &SetName,
        tasks: &mut JoinSet<()>,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), PipelineError> {
        let (sdk, host) = (&self.context.sdk, Arc::clone(&self.context.host));
        let set = Home::Set(name.clone());
        let context = Context::open(sdk, &self.context.settings, &set, Given::File, Arc::clone(&host)).await?;
        let (settings, definition) = (&context.settings, &context.definition);
        let consumer = self.feed.consumer(settings, definition, &Tally::default(), &Faults::default()).await?;
        if let Some(every) = self.feed.options.archive_every {
            let source = ArchiveSource::new(context.kinesis.clone(), settings.stream.as_str());
            let archiver = Archiver::new(context.bucket.clone(), source, Arc::clone(definition), Arc::clone(&host))
                .with_limits(Limits::default().unpaced())
                .of_home(&set);
            let (stopped, host) = (stop.clone(), Arc::clone(&host));
            let thread = own_thread(move || schedule(archiver, every, host, stopped));
            tasks.spawn(thread.map_err(PipelineError::Thread)?);
        }
        spawn_mapping(tasks, "consumer of a set", consumer, host, stop.clone());
        tracing::info!(set = %name, "the stream feeds a set");
        Ok(())
    }
}
