//! The live stream from where the archive ends.
//!
//! What the archive's last entry says of each shard is where reading begins: behind the last record that was archived, or at the
//! beginning of a shard that nobody has read; a parent to its end before its children. So nothing comes twice and nothing is
//! left out between the two, also where shards were split or merged meanwhile. It is the archiver's own reading
//! ([`gather`](crate::archive::gather)): where retention may have passed over records since, it says so, and the replay goes back to
//! the archive, which has them, for another pass.
//!
//! Records are forwarded byte for byte, duplicates among them, also those that nobody understands; only the partition key is the
//! replay's own, so that an item's changes stay in order across the hand-over.

use std::collections::{BTreeMap, BTreeSet};

use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::terminal::plural;
use recount_schemas::{Change, Definition, ShardId};

use super::ReplayError;
use super::checkpoint::{Checkpoint, Store};
use super::order::partition_key;
use super::question::Question;
use super::send::{Paced, Parcel};
use crate::archive::Limits;
use crate::archive::gather::Gatherer;
use crate::archive::life::Life;
use crate::archive::read::Reading;
use crate::archive::source::{Record, Source};
use crate::bucket::Objects;
use crate::log::state::StreamEnd;
use crate::log::{ShardEnd, State};
use crate::progress::{Says, Work};

/// What is read before it is forwarded, in bytes.
const AHEAD: u64 = 16 << 20;
/// How often in a row the stream may give neither records nor its tip.
const IDLE: u32 = 100;

/// How the forwarding ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// At the tip of every shard.
    AtTheTip,
    /// The stream may have dropped records behind a position, or was made anew.
    Gap,
}

/// What records are forwarded with.
pub struct Forwarder<'f, O, S> {
    /// The live stream.
    pub source: &'f S,
    /// By which a record's group is told.
    pub definition: &'f Definition,
    /// Time and sleep.
    pub host: &'f SharedHost,
    /// The pace of reading.
    pub limits: Limits,
    /// Where the checkpoint is kept.
    pub store: &'f Store<O>,
    /// Whether it goes on beyond the tip, for ever.
    pub follow: bool,
}

impl<O: Objects, S: Source> Forwarder<'_, O, S> {
    /// Forwards from the checkpoint's positions to the tip.
    pub async fn forward(
        &self,
        checkpoint: &mut Checkpoint,
        paced: &mut Paced<'_>,
        says: &Says<'_>,
    ) -> Result<Ended, ReplayError> {
        let limits = Limits { commit_bytes: AHEAD, ..self.limits };
        let (mut tips, mut idle): (BTreeSet<ShardId>, _) = (BTreeSet::new(), 0);
        loop {
            let summary = self.source.describe().await?;
            if checkpoint.stream.as_ref() != Some(&summary.stream) {
                return Ok(Ended::Gap);
            }
            let end = StreamEnd { retention_hours: None, shards: checkpoint.ends.clone() };
            let streams = BTreeMap::from([(summary.stream.clone(), end)]);
            let state = State { streams, ..State::default() };
            let life = Life::begin(self.host.clone(), limits.life, Deadline::NONE);
            let gatherer = Gatherer { source: self.source, host: self.host, limits: &limits, life: &life };
            let gathered = gatherer.gather(&summary, &state, &tips).await?;
            if self.source.describe().await?.stream != summary.stream {
                return Ok(Ended::Gap);
            }
            idle = if gathered.readings.is_empty() && !gathered.reached_tip { idle + 1 } else { 0 };
            if idle > IDLE {
                return Err(ReplayError::NoHandOver("its shards give neither records nor their tips".to_owned()));
            }
            for reading in gathered.readings {
                if reading.lost.is_some() {
                    return Ok(Ended::Gap);
                }
                self.shard(reading, checkpoint, paced).await?;
                says(Work::Step(&format!("{} forwarded from the live stream", plural(checkpoint.forwarded, "record"))));
            }
            tips = gathered.tips;
            if gathered.reached_tip {
                if !self.follow {
                    return Ok(Ended::AtTheTip);
                }
                tips.clear();
            }
            if gathered.reached_tip || idle > 0 {
                self.host.sleep(self.limits.page_pause).await;
            }
        }
    }

    /// Forwards what was read of one shard, and notes it.
    async fn shard(
        &self,
        reading: Reading,
        checkpoint: &mut Checkpoint,
        paced: &mut Paced<'_>,
    ) -> Result<(), ReplayError> {
        let whole = ShardEnd { to: reading.to(), closed: reading.closed, caught_up_ms: reading.caught_up_ms };
        let mut window = paced.window();
        let mut last = reading.from.clone();
        let before = checkpoint.ends.get(&reading.shard).and_then(|end| end.caught_up_ms);
        for record in &reading.records {
            let parcel = parcel(record);
            if window.is_full_for(&parcel) {
                paced.send(&window).await?;
                checkpoint.forwarded += window.len() as u64;
                let end = ShardEnd { to: last.clone(), closed: false, caught_up_ms: before };
                checkpoint.ends.insert(reading.shard.clone(), end);
                self.store.keep(checkpoint).await?;
                window = paced.window();
            }
            if wants(self.definition, &checkpoint.question, record) {
                window.push(parcel);
            }
            last = Some(record.sequence.clone());
        }
        paced.send(&window).await?;
        checkpoint.forwarded += window.len() as u64;
        checkpoint.ends.insert(reading.shard, whole);
        self.store.keep(checkpoint).await
    }
}

/// Whether a live record is asked for. Of one that cannot be judged nobody can say when it was made or whose it is: it is
/// forwarded, unless a group is asked for.
fn wants(definition: &Definition, question: &Question, record: &Record) -> bool {
    match definition.judge(&record.data, record.arrived_us) {
        Ok(judged) => question.wants(judged.change.created_us, judged.group.as_ref().map(|group| group.as_str())),
        Err(_) => question.group.is_none(),
    }
}

fn parcel(record: &Record) -> Parcel {
    let text = std::str::from_utf8(&record.data).unwrap_or_default();
    let partition_key = match Change::decode(&record.data) {
        Ok(change) => partition_key(&change, text),
        Err(_) => record.partition_key.clone(),
    };
    Parcel { partition_key, data: record.data.to_vec() }
}
