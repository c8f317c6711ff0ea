//! Records that are kept beside the archive: what an item's lose.
//!
//! The object stays under its name: the log counts it, and no later delivery of the record may write it again. Its data and its
//! partition key go, and its reason says when: that is the audit line. A record that can not be read as one is taken for the
//! item's if it holds the values of its key anywhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use recount_schemas::QuarantineReason;
use recount_schemas::quarantine::{self, Quarantined};
use serde_json::Value;

use super::EraseError;
use super::select::ItemKey;
use crate::archive::life::Life;
use crate::bucket::{Listing, Objects};
use crate::compact::CompactError;

/// The largest kept record that is read, in bytes.
const MAX_OBJECT: u64 = 16 << 20;
/// The most names that are reported.
const MAX_NAMES: usize = 10_000;

/// The kept records of an item.
#[derive(Debug, Default)]
pub struct Kept {
    /// The names of their objects, at most so many as are reported.
    pub names: Vec<String>,
    /// How many there are.
    pub count: u64,
}

/// Finds the kept records of an item, and erases them where `confirmed`; with a life for each page of names, as there
/// may be many.
pub async fn erase<O: Objects>(
    objects: &O,
    key: &ItemKey,
    now: &str,
    confirmed: bool,
    begin: &(dyn Fn() -> Life + Sync),
) -> Result<Kept, EraseError> {
    let mut kept = Kept::default();
    for prefix in [quarantine::PREFIX, quarantine::CONFLICTS_PREFIX] {
        let mut listing = Listing::new(objects, prefix);
        while let Some(page) = listing.next_page().await.map_err(CompactError::from)? {
            let life = begin();
            for listed in page {
                if quarantine::position_of(&listed.key).is_none() {
                    continue;
                }
                let Some(bytes) = objects.get(&listed.key, MAX_OBJECT).await.map_err(CompactError::from)? else {
                    continue;
                };
                let malformed =
                    |why: serde_json::Error| EraseError::Aside { key: listed.key.clone(), why: why.to_string() };
                let record: Quarantined = serde_json::from_slice(&bytes).map_err(malformed)?;
                if !is_of(key, &record) {
                    continue;
                }
                if confirmed {
                    let erased = Bytes::from(serde_json::to_vec(&erased(record, now)).map_err(malformed)?);
                    life.check().map_err(CompactError::from)?;
                    objects.put(&listed.key, erased).await.map_err(CompactError::from)?;
                }
                kept.count += 1;
                if kept.names.len() < MAX_NAMES {
                    kept.names.push(listed.key);
                }
            }
        }
    }
    Ok(kept)
}

fn is_of(key: &ItemKey, kept: &Quarantined) -> bool {
    let bytes = match kept.raw {
        true => kept.data.clone().into_bytes(),
        false => STANDARD.decode(&kept.data).unwrap_or_else(|_| kept.data.clone().into_bytes()),
    };
    let Ok(record) = serde_json::from_slice::<Value>(&bytes) else { return key.may_be_in(&bytes) };
    let parts = ["Keys", "NewImage", "OldImage"].map(|name| record.get("dynamodb").and_then(|body| body.get(name)));
    match parts.iter().all(Option::is_none) {
        true => key.may_be_in(&bytes),
        false => parts.into_iter().flatten().any(|part| key.is_in_value(part)),
    }
}

fn erased(kept: Quarantined, now: &str) -> Quarantined {
    let reason = QuarantineReason::new(kept.reason.code, format_args!("its data was erased on {now}"));
    Quarantined { reason, partition_key: String::new(), data: String::new(), raw: false, ..kept }
}
