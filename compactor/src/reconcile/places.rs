//! In which row of its file a named event stands: looked up at the end, for what findings name only.

use std::collections::{BTreeMap, BTreeSet};

use recount_schemas::EventKey;

use super::finding::{Finding, RowPlace};
use crate::bucket::Objects;
use crate::contributions::ReadError;
use crate::log::State;
use crate::rows::lookup;

/// Fills in the rows. An event whose file is none of the log's, as a conflicting variant's, has none.
pub async fn fill<O: Objects>(objects: &O, state: &State, findings: &mut [Finding]) -> Result<(), ReadError> {
    let mut wanted: BTreeMap<String, BTreeSet<EventKey>> = BTreeMap::new();
    for event in findings.iter().flat_map(|finding| &finding.events) {
        if let Some(origin) = &event.origin {
            wanted.entry(origin.file.clone()).or_default().insert(event.event_key);
        }
    }
    let mut rows: BTreeMap<(&str, EventKey), RowPlace> = BTreeMap::new();
    for (file, keys) in &wanted {
        let Some(live) = state.find(file) else { continue };
        for (key, row_group, row_number) in lookup::places(objects, &live.file, keys).await? {
            rows.insert((file, key), RowPlace { row_group, row_number });
        }
    }
    for event in findings.iter_mut().flat_map(|finding| &mut finding.events) {
        let file = event.origin.as_ref().map(|origin| origin.file.as_str());
        event.row = file.and_then(|file| rows.get(&(file, event.event_key)).copied());
    }
    Ok(())
}
