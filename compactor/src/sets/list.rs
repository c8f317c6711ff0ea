//! All homes, and how far each of them is.

use std::collections::BTreeMap;

use recount_consumer::progress::Progress;
use recount_schemas::position::{SequenceNumber, ShardId};
use recount_schemas::set::PREFIX;
use recount_schemas::{Home, SetName};
use serde::{Deserialize, Serialize};

use super::home;
use super::switch::current;
use crate::bucket::{BucketError, Objects};
use crate::context::{Context, ContextError};
use crate::log::{LogStore, State, Stream};

/// Most sets that are listed.
pub const MAX_SETS: usize = 1_000;

/// One home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeLine {
    /// Which.
    pub home: Home,
    /// Whether readers go by it.
    pub current: bool,
    /// The hash of the definition that its archive was last written under; of a set, of the definition kept with it.
    pub definition: Option<String>,
    /// Its totals table.
    pub totals: String,
    /// The entries of its log.
    pub entries: u64,
    /// Its archived events.
    pub events: u64,
    /// Of a set: whether its totals hold what its archive was seeded with.
    pub loaded: bool,
    /// In how many shards its archive has read less than that of another home.
    pub archive_behind: u64,
    /// In how many shards its consumer has come less far than its archive.
    pub consumer_behind: u64,
    /// What could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// All homes, the base first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sets {
    /// They.
    pub sets: Vec<HomeLine>,
}

/// The names of all sets, also of those that were only begun. `root` is the base's bucket.
pub async fn names<O: Objects>(root: &O) -> Result<Vec<SetName>, BucketError> {
    let (mut names, mut after): (Vec<SetName>, Option<String>) = (Vec::new(), None);
    loop {
        let page = root.list_page(PREFIX, after.as_deref()).await?;
        let Some(listed) = page.first() else { return Ok(names) };
        after = Some(match SetName::of_object(&listed.key) {
            Some(name) => {
                // '0' comes right behind '/', so this is behind all that the set has, and before every other set.
                let behind = format!("{PREFIX}{name}0");
                names.push(name);
                behind
            }
            None => listed.key.clone(),
        });
        if names.len() >= MAX_SETS {
            tracing::warn!("there are more than {MAX_SETS} sets; the rest is not listed");
            return Ok(names);
        }
    }
}

/// How far a log has read each shard of each life of the stream.
type Ends = BTreeMap<(Stream, ShardId), SequenceNumber>;

fn ends(state: &State) -> Ends {
    let of = |(stream, end): (&Stream, &crate::log::state::StreamEnd)| {
        let shards = end.shards.iter().filter_map(|(shard, end)| Some((shard.clone(), end.to.clone()?)));
        shards.map(|(shard, to)| ((stream.clone(), shard), to)).collect::<Vec<_>>()
    };
    state.streams.iter().flat_map(of).collect()
}

/// How many of `all` are beyond what `reached` says.
fn behind(reached: &Ends, all: &Ends) -> u64 {
    all.iter().filter(|(shard, to)| reached.get(*shard).is_none_or(|reached| reached < *to)).count() as u64
}

/// Every home of the deployment that `context` is one of.
pub async fn list(context: &Context) -> Result<Sets, ContextError> {
    let root = context.root();
    let current = current(&root).await?.home;
    let mut homes = vec![Home::Base];
    homes.extend(names(&root).await.map_err(super::HomeError::from)?.into_iter().map(Home::Set));
    let (mut lines, mut reached) = (Vec::new(), Vec::new());
    for home in homes {
        let base = context.settings.base();
        let settings = home.set().map_or_else(|| base.clone(), |set| base.of_set(set));
        let mut line = HomeLine {
            current: home == current,
            home: home.clone(),
            definition: None,
            totals: settings.totals.clone(),
            entries: 0,
            events: 0,
            loaded: home == Home::Base,
            archive_behind: 0,
            consumer_behind: 0,
            error: None,
        };
        let objects = root.below(&settings.prefix());
        let look = async {
            let state = LogStore::new(objects.clone(), context.host.clone()).read_to_head().await?;
            line.entries = state.next;
            line.events = state.live().map(|live| live.file.rows).sum();
            line.definition = state.last.as_ref().map(|entry| entry.definition.clone());
            if let Some(set) = home.set() {
                let definition = home::definition(&objects, set).await?;
                line.definition = definition.map(|definition| definition.hash().to_owned());
                line.loaded = home::loaded(&objects, set).await?.is_some();
            }
            let ends = ends(&state);
            let progress = Progress::new(context.dynamo.clone(), &settings, context.host.clone());
            let mut passed = Ends::new();
            for stream in state.streams.keys() {
                let shards = progress.read(&settings.stream, stream.created_ms).await?;
                passed.extend(shards.into_iter().map(|(shard, to)| ((stream.clone(), shard), to)));
            }
            line.consumer_behind = behind(&passed, &ends);
            Ok::<Ends, ContextError>(ends)
        };
        let looked = look.await;
        let ends = looked.unwrap_or_else(|error| {
            line.error = Some(error.to_string());
            Ends::new()
        });
        reached.push(ends);
        lines.push(line);
    }
    let mut furthest = Ends::new();
    for (shard, to) in reached.iter().flatten() {
        let most = furthest.entry(shard.clone()).or_insert_with(|| to.clone());
        *most = to.max(most).clone();
    }
    for (line, ends) in lines.iter_mut().zip(&reached).filter(|(line, _)| line.entries > 0) {
        line.archive_behind = behind(ends, &furthest);
    }
    Ok(Sets { sets: lines })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::bucket::memory::Memory;

    #[tokio::test]
    async fn sets_are_told_by_their_objects() {
        let root = Memory::new();
        for key in [
            "sets/x",
            "sets/x/_log/0",
            "sets/x/recount.toml",
            "sets/x-y/recount.toml",
            "sets/x0/a",
            "sets/Wrong/a",
            "events/a",
        ] {
            root.put(key, Bytes::new()).await.unwrap();
        }
        let names: Vec<String> = names(&root).await.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["x-y", "x", "x0"]);
    }
}
