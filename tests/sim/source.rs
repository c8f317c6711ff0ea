//! The table's stream, with event IDs that the seed decides.
//!
//! The engine draws them at random. What a history does must not depend on that, and keys are made of them: each is
//! replaced by a hash of seed and sequence number before anybody sees it.

use recount_local::mapping::streams::DynamoSource;
use recount_local::mapping::{Item, Listing, Page, ShardInfo, Source, SourceError, Starting};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

/// See the module.
pub struct Renamed {
    pub inner: DynamoSource,
    pub seed: u64,
}

impl Renamed {
    fn rename(&self, item: Item) -> Item {
        let mut record: serde_json::Value = serde_json::from_slice(&item.json).unwrap();
        let hash = Sha256::digest(format!("{}/{}", self.seed, item.sequence_number));
        record["eventID"] = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>().into();
        // In order, too: the engine's maps are in any.
        Item { json: crate::network::canonical(&record).into_bytes(), ..item }
    }
}

impl Source for Renamed {
    const BATCH_INFO: &'static str = DynamoSource::BATCH_INFO;

    fn list(&self) -> Result<Listing, SourceError> {
        self.inner.list()
    }

    fn start(&self, shard: &ShardInfo, starting: Starting) -> Result<u64, SourceError> {
        self.inner.start(shard, starting)
    }

    fn read(&self, shard: &ShardInfo, from: u64, records: usize, bytes: usize) -> Result<Page, SourceError> {
        let page = self.inner.read(shard, from, records, bytes)?;
        Ok(Page { items: page.items.into_iter().map(|item| self.rename(item)).collect(), ..page })
    }

    fn backlog(&self, shard: &ShardInfo, from: u64) -> Result<(u64, i64), SourceError> {
        self.inner.backlog(shard, from)
    }

    fn horizon_ms(&self) -> Result<i64, SourceError> {
        self.inner.horizon_ms()
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        self.inner.changes()
    }
}
