//! The second look: the suspects' items, read anew and consistently, and the quarantine.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnConsumedCapacity};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use recount_consumer::retry::{Caller, Meter};
use recount_consumer::tuning::Tuning;
use recount_schemas::change::Form;
use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::quarantine::Quarantined;
use recount_schemas::terminal::plural;
use recount_schemas::{Definition, QuarantineCode, QuarantineReason, change};

use crate::bucket::{BucketError, Objects};
use crate::items::read::without;
use crate::redrive::judge::judge;
use crate::redrive::listing::Quarantine;
use crate::table::TableError;
use crate::table::item::{Binary, Item, ItemHash, from_sdk, hash, item_hash, key_for_sdk, key_text, parse};
use crate::table::pace::Pace;

/// Keys of one BatchGetItem (API reference).
const AT_ONCE: usize = 100;
/// How often what DynamoDB leaves unprocessed is asked for again.
const TRIES: u32 = 20;
/// Most quarantined records that are read.
const MAX_QUARANTINED: usize = 20_000;
/// The largest such object.
const MAX_OBJECT: u64 = 16 << 20;

/// Reads items by their keys.
#[derive(Debug)]
pub struct Items<'a> {
    /// The client.
    pub dynamo: &'a Client,
    /// The definition, which names the table and its key.
    pub definition: &'a Definition,
    /// Attributes that are not compared.
    pub omitted: &'a [String],
    /// Time and sleep.
    pub host: &'a SharedHost,
    /// Read units a second.
    pub pace: &'a Pace,
}

impl Items<'_> {
    /// The present content of those of these items that are there, by the hashes of their keys. `keys` are canonical texts.
    pub async fn read(&self, keys: &[&str]) -> Result<BTreeMap<ItemHash, ItemHash>, TableError> {
        let mut found = BTreeMap::new();
        for chunk in keys.chunks(AT_ONCE) {
            self.batch(chunk, &mut found).await?;
        }
        Ok(found)
    }

    async fn batch(&self, keys: &[&str], found: &mut BTreeMap<ItemHash, ItemHash>) -> Result<(), TableError> {
        let table = self.definition.table.as_str();
        let failed = |why: String| TableError::Dynamo { action: "reading items of", table: table.to_owned(), why };
        let parsed = |text: &&str| parse(text, Binary::Once).as_ref().and_then(key_for_sdk);
        let mut wanted: Vec<_> = keys.iter().filter_map(parsed).collect();
        let (tuning, meter) = (Tuning::default(), Meter::default());
        let caller = Caller { host: self.host.as_ref(), tuning: &tuning, deadline: Deadline::NONE, meter: &meter };
        for attempt in 1..=TRIES {
            if wanted.is_empty() {
                return Ok(());
            }
            self.pace.ready().await;
            let request = KeysAndAttributes::builder().set_keys(Some(wanted)).consistent_read(true).build();
            let request = request.map_err(|e| failed(e.to_string()))?;
            let get = self.dynamo.batch_get_item().request_items(table, request);
            let get = get.return_consumed_capacity(ReturnConsumedCapacity::Total);
            let answer = caller.call(|| get.clone().send()).await;
            let answer = answer.map_err(|failure| TableError::dynamo("reading items of", table, &failure))?;
            self.pace.used(answer.consumed_capacity().iter().filter_map(|used| used.capacity_units()).sum());
            let items = answer.responses().and_then(|tables| tables.get(table)).map_or(&[][..], Vec::as_slice);
            for item in items {
                let item = from_sdk(item).ok_or_else(|| TableError::UnknownType { table: table.to_owned() })?;
                if let Some(key) = key_text(&self.definition.key, &item) {
                    found.insert(hash(key.as_bytes()), item_hash(&without(item, self.omitted)));
                }
            }
            let left = answer.unprocessed_keys().and_then(|tables| tables.get(table));
            wanted = left.map_or_else(Vec::new, |left| left.keys().to_vec());
            if !wanted.is_empty() {
                caller.pause(attempt).await;
            }
        }
        let left = plural(wanted.len() as u64, "key");
        Err(failed(format!("{left} not processed in {TRIES} tries; it is throttled: lower --rate")))
    }
}

/// A record that stands in quarantine and was not put through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Why it is there.
    pub reason: String,
    /// Whether a redrive would count it, now or when its time has come.
    pub may_count: bool,
}

/// The items, by the hashes of their keys, of which a record waits in quarantine. Only records that say their item are told;
/// `None` where there are too many to look at.
pub async fn quarantined<O: Objects>(
    objects: &O,
    definition: &Definition,
    now_us: i64,
) -> Result<Option<BTreeMap<ItemHash, Waiting>>, BucketError> {
    let (mut found, mut seen) = (BTreeMap::<ItemHash, Waiting>::new(), 0);
    let prefixes = Quarantine::<O>::prefixes(None);
    let mut quarantine = Quarantine::new(objects, &prefixes);
    while let Some(kept) = quarantine.next().await? {
        if kept.done {
            continue;
        }
        seen += 1;
        if seen > MAX_QUARANTINED {
            return Ok(None);
        }
        let Some(bytes) = objects.get(&kept.object, MAX_OBJECT).await? else { continue };
        let Ok(object) = serde_json::from_slice::<Quarantined>(&bytes) else { continue };
        let Ok(data) = STANDARD.decode(&object.data) else { continue };
        let early = |is: &QuarantineReason| is.code == QuarantineCode::CreationTimeOutOfRange;
        let may_count = match judge(kept, &bytes, definition, now_us) {
            Ok(_) => true,
            Err(stays) => stays.is.as_ref().is_some_and(early),
        };
        for item in items_of(&data, definition) {
            let may_count = may_count || found.get(&item).is_some_and(|before| before.may_count);
            found.insert(item, Waiting { reason: object.reason.to_string(), may_count });
        }
    }
    Ok(Some(found))
}

/// The item that a record is about, by its keys or by either image.
fn items_of(data: &[u8], definition: &Definition) -> BTreeSet<ItemHash> {
    let Ok(change) = change::Change::decode(data) else { return BTreeSet::new() };
    if change.table != definition.table {
        return BTreeSet::new();
    }
    let binary = if change.form == Form::Kinesis { Binary::Twice } else { Binary::Once };
    let texts = [change.keys, change.new_image, change.old_image];
    let key = |item: Item| key_text(&definition.key, &item).map(|text| hash(text.as_bytes()));
    texts.into_iter().flatten().filter_map(|text| parse(text, binary)).filter_map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::memory::Memory;
    use crate::rows::testing::{NOVEMBER, definition, record};
    use recount_schemas::quarantine::{FORMAT, object_key, redriven_key};

    const DAY: i64 = 86_400_000_000;

    #[tokio::test]
    async fn a_record_waits_until_it_was_put_through_and_may_count_where_it_is_understood() {
        let objects = Memory::new();
        let bad = record("bad", Some("acme"), NOVEMBER, "x");
        let keep = async |n: u64, data: &str| {
            let kept = Quarantined {
                format: FORMAT,
                stream: "changes".to_owned(),
                shard_id: "s".parse().unwrap(),
                sequence_number: n.to_string().parse().unwrap(),
                partition_key: "p".to_owned(),
                arrived_us: NOVEMBER,
                reason: QuarantineReason::new(QuarantineCode::TooLarge, "it was"),
                data: STANDARD.encode(data),
                raw: false,
            };
            let name = object_key(&kept.shard_id, &kept.sequence_number);
            objects.put(&name, serde_json::to_vec(&kept).unwrap().into()).await.unwrap();
        };
        keep(1, &record("good", Some("acme"), NOVEMBER, "7")).await;
        keep(2, &bad).await;
        keep(3, &record("early", Some("acme"), NOVEMBER + 9 * DAY, "7")).await;
        keep(4, &record("done", Some("acme"), NOVEMBER, "7")).await;
        keep(5, "hello").await;
        let mark = redriven_key(&"s".parse().unwrap(), &"4".parse().unwrap());
        objects.put(&mark, "{}".into()).await.unwrap();
        objects.put("quarantine/README", "{}".into()).await.unwrap();
        let found = quarantined(&objects, &definition(), NOVEMBER).await.unwrap().unwrap();
        let of = |id: &str| {
            let item = hash(format!(r#"{{"scan_id":{{"S":"{id}"}}}}"#).as_bytes());
            found.get(&item).map(|waiting| waiting.may_count)
        };
        assert_eq!((of("good"), of("bad"), of("early"), of("done")), (Some(true), Some(false), Some(true), None));
        assert_eq!(found.len(), 3);
    }
}
