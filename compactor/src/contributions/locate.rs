//! Finding single event keys in the archive, whatever cell their events belong to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use recount_schemas::{Definition, EventKey};

use super::ReadError;
use super::columns::{Needs, Rows};
use super::reader::open;
use crate::bucket::Objects;
use crate::log::State;
use crate::reconcile::finding::Origin;

/// Where the events of these keys stand, as far as the archive has them. Reads of each file what its statistics leave over,
/// and of the files that hold one, the columns that say where.
pub async fn locate<O: Objects>(
    objects: &O,
    definition: &Definition,
    state: &State,
    keys: &BTreeSet<EventKey>,
) -> Result<BTreeMap<EventKey, Origin>, ReadError> {
    let mut located = BTreeMap::new();
    if keys.is_empty() {
        return Ok(located);
    }
    let columns = Needs { origin: true, content: false, times: false }.columns(definition);
    for live in state.live() {
        if crate::rows::lookup(objects, &live.file, keys).await?.is_empty() {
            continue;
        }
        let target: Arc<str> = Arc::from(live.file.target.as_str());
        let mut batches = open(objects, &live.file, &columns);
        while let Some(batch) = batches.next().await {
            let rows = Rows::new(&batch?, Arc::clone(&target), live.file.month, definition)?;
            for i in 0..rows.len() {
                let key = rows.key(i)?;
                if keys.contains(&key) {
                    located.insert(key, rows.origin(i)?);
                }
            }
        }
    }
    Ok(located)
}
