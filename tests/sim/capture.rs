//! The table's changes on their way through its stream and the relay: all of them, though DynamoDB keeps its stream for a
//! day only. Each reaches the stream, in its item's order ([`relayed`]), and what does not is said by `audit` ([`audited`]).
//!
//! A mapping whose records expire goes on behind them in silence; nothing in the stream can show it. What can is the table
//! itself, held against the archive. Of each item, by the changes that were archived:
//!
//! | the table, and the archive by its last change | an INSERT among them | audit says |
//! | --- | --- | --- |
//! | the table has it, the archive has no change of it, or a REMOVE | – | `never_captured` |
//! | it has another content | – | `differs` |
//! | the table does not have it, the archive does | – | `deletion_missed` |
//! | both the same | no | `insert_missing` |
//! | both the same, or neither has ever had it | yes | nothing |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use recount_compactor::audit::{self, Kind, audit};
use recount_compactor::reconcile::Verdict;
use recount_compactor::table::Reading;
use recount_local::mapping::streams::DynamoSource;
use recount_local::mapping::{Item, Source};
use recount_schemas::EventKey;
use serde_json::Value;

use crate::faults::Fault;
use crate::network::{OPERATOR, Put};
use crate::oracle;
use crate::parts;
use crate::plan::HOUR_US;
use crate::source::Renamed;
use crate::world::World;

/// How long DynamoDB keeps a change in the table's stream (DynamoDB Developer Guide, Streams).
pub const KEPT_US: u64 = 24 * HOUR_US;
/// The longest that a relay which is not off may take for a change.
const RELAY_LATE_US: u64 = 12 * HOUR_US;
/// The longest pause of a mapping between two tries, with some to spare.
const BACK_OFF_US: u64 = HOUR_US;

/// Notes what is in the table's stream now. To be done before anything of it is dropped.
pub fn note(world: &World) {
    let host = Arc::clone(world.engines.kinesis().host());
    let source = DynamoSource::new(world.engines.dynamo().database().clone(), "scans", host);
    let source = Renamed { inner: source, seed: world.plan.seed };
    let mut memory = world.memory.lock().unwrap_or_else(PoisonError::into_inner);
    for shard in &source.list().unwrap().shards {
        let mut from = 0;
        loop {
            let page = source.read(shard, from, 1_000, 64 << 20).unwrap();
            from = page.next;
            memory.changes.extend(page.items.into_iter().map(|item| (item.position, item)));
            if !page.more {
                break;
            }
        }
    }
}

/// A change of an item of the table.
struct Change {
    id: String,
    item: String,
    key: EventKey,
    insert: bool,
    /// What the item is after it; `None`: gone.
    image: Option<Value>,
    made_us: i64,
}

fn change(world: &World, item: &Item) -> Change {
    let record: Value = serde_json::from_slice(&item.json).unwrap();
    let put = Put {
        shard: String::new(),
        sequence: String::new(),
        data: item.json.clone(),
        arrived_us: item.arrival_ms * 1_000,
    };
    let change = &record["dynamodb"];
    Change {
        id: record["eventID"].as_str().unwrap().to_owned(),
        item: change["Keys"]["scan_id"]["S"].as_str().unwrap().to_owned(),
        key: oracle::read(&put, world.plan.net, world.plan.lanes).unwrap().key,
        insert: record["eventName"] == "INSERT",
        image: change.get("NewImage").cloned(),
        made_us: put.arrived_us,
    }
}

fn changes(world: &World) -> Vec<Change> {
    let items: Vec<Item> = {
        let memory = world.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.changes.values().cloned().collect()
    };
    items.iter().map(|item| change(world, item)).collect()
}

/// Whether DynamoDB may have dropped the change before the relay came to it.
fn may_have_expired(world: &World, change: &Change) -> bool {
    let made = u64::try_from(change.made_us - world.plan.epoch_us).unwrap_or(0);
    world.plan.relay_off.is_some_and(|(from, to)| made + RELAY_LATE_US >= from && made + KEPT_US <= to + BACK_OFF_US)
}

/// Every change of the table is in the stream, and those of an item in their order.
pub fn relayed(world: &World) {
    note(world);
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    for (i, put) in world.network.puts().iter().enumerate() {
        let record: Value = serde_json::from_slice(&put.data).unwrap_or_default();
        if let Some(id) = record["eventID"].as_str() {
            first.entry(id.to_owned()).or_insert(i);
        }
    }
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for change in changes(world) {
        let (id, key) = (&change.id, &change.item);
        let Some(place) = first.get(id) else {
            if may_have_expired(world, &change) {
                world.note_fault(Fault::RelayOff);
            } else {
                world.violated(1, format!("the change {id} of {key} never reached the stream"));
            }
            continue;
        };
        if last.insert(key.clone(), *place).is_some_and(|before| before > *place) {
            world.violated(1, format!("the changes of {key} are in the stream in another order"));
        }
    }
}

/// What audit must say of an item with these changes: see the module.
fn due(changes: &[&Change], archived: &BTreeSet<EventKey>) -> Option<Kind> {
    let kept: Vec<&&Change> = changes.iter().filter(|change| archived.contains(&change.key)).collect();
    let table = changes.last().and_then(|change| change.image.as_ref());
    let archive = kept.last().and_then(|change| change.image.as_ref());
    match (table, archive) {
        (Some(_), None) => Some(Kind::NeverCaptured),
        (Some(table), Some(archive)) if table != archive => Some(Kind::Differs),
        (None, Some(_)) => Some(Kind::DeletionMissed),
        _ if !kept.is_empty() && !kept.iter().any(|change| change.insert) => Some(Kind::InsertMissing),
        _ => None,
    }
}

/// Audit names each item of the table that the archive lacks a part of, and no other. (Records that a history puts into the
/// stream itself are of items that the table never had; what it says of them is not looked at.)
pub async fn audited(world: &Arc<World>, archived: &BTreeSet<EventKey>) {
    let changes = changes(world);
    if changes.is_empty() {
        return;
    }
    let mut items: BTreeMap<&str, Vec<&Change>> = BTreeMap::new();
    for change in &changes {
        items.entry(&change.item).or_default().push(change);
    }
    let process = world.process(OPERATOR);
    let context = parts::context(world, &process);
    let reading = Reading { export: None, segments: 1, rate: None, consistent: true, work: None };
    let options = audit::Options { reading, settle: Duration::from_secs(60) };
    let report = match process.run(audit(&context, &options, &|_| {})).await {
        Some(Ok(report)) => report,
        Some(Err(error)) => return world.violated(8, format!("audit fails in a calm: {error}")),
        None => return world.violated(0, "audit died in a calm".to_owned()),
    };
    if report.verdict == Verdict::Undecided {
        return world.violated(8, format!("audit cannot decide in a calm: {:?}", report.undecided_because));
    }
    let named =
        report.findings.iter().map(|finding| (finding.key["scan_id"]["S"].as_str().unwrap_or_default(), finding));
    let found: BTreeMap<&str, Kind> =
        named.filter(|(item, _)| items.contains_key(item)).map(|(item, finding)| (item, finding.kind)).collect();
    for (item, changes) in items {
        let (due, said) = (due(&changes, archived), found.get(item).copied());
        if due != said {
            world.violated(8, format!("audit says {said:?} of {item}, and should say {due:?}"));
        }
    }
}
