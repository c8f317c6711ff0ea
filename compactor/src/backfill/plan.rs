//! A backfill's plan: which INSERTs are missing, with their contents, named by the hash of its own bytes. Pure.
//!
//! The plan is one object, `backfills/<hash>.json`; its items are in parts, `backfills/parts/<time>-<hash>.jsonl.gz`, each named
//! by the plan's time and its own SHA-256, which the plan holds: so the plan's hash names all of it. Parts are put first. They
//! hold whole items, and are deleted when the plan has been applied; the plan and its report stay.
//!
//! The creation time of all its rows is that of the plan, not of the items: the ledger of a cell reaches back only so many
//! days, and an event older than that could not be counted exactly once any more. The month in which an item counts is that
//! of its own time, as ever.

use std::io::{BufRead, BufReader, Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use recount_schemas::{Cell, Definition, Delta, Judged, QuarantineReason, SequenceNumber};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::table::item::{Item, encoded_twice, hash};
use crate::table::spool::MAX_LINE;

/// The format of plans that this code writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Where plans are.
pub const PREFIX: &str = "backfills/";
/// Where their parts are.
pub const PARTS: &str = "backfills/parts/";
/// The largest plan, in bytes.
pub const MAX_BYTES: u64 = 256 << 20;
/// Items of a part.
pub const PART_ITEMS: u64 = 20_000;
/// Bytes of a part's items, before they are packed.
pub const PART_BYTES: u64 = 48 << 20;

/// One INSERT that is missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Missing {
    /// The ID of its event: of the table, the item's key, and the life of the item that it begins.
    pub event_id: String,
    /// The canonical text of the item's key.
    pub item: String,
    /// The item's key, binary in base64 once.
    pub keys: Item,
    /// Its content, likewise.
    pub image: Item,
    /// The removal that it stands behind, for an item that came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<SequenceNumber>,
    /// When the item was read of the table, µs since 1970.
    pub read_us: i64,
}

/// The ID of the event by which that item came to be: the same in every plan, so that no two of them count it.
pub fn event_id(table: &str, item: &str, removal: Option<&str>) -> String {
    let text = json!([table, item, removal]).to_string();
    let digits = hash(text.as_bytes()).0.iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}")); // writing to a string cannot fail
        text
    });
    format!("backfill-{digits}")
}

impl Missing {
    /// The change record that capture would have brought, as Kinesis Data Streams for DynamoDB writes it, with a member
    /// `recount` that says where it comes from.
    pub fn record(&self, table: &str, created_us: i64, origin: &str) -> String {
        let image = |item: &Item| Value::Object(encoded_twice(item));
        json!({
            "awsRegion": null,
            "eventID": self.event_id,
            "eventName": "INSERT",
            "userIdentity": null,
            "recordFormat": "application/json",
            "tableName": table,
            "dynamodb": {
                "ApproximateCreationDateTime": created_us,
                "ApproximateCreationDateTimePrecision": "MICROSECOND",
                "Keys": image(&self.keys),
                "NewImage": image(&self.image),
            },
            "eventSource": "aws:dynamodb",
            "recount": { "origin": origin, "behind": self.behind },
        })
        .to_string()
    }
}

/// Judges a record that [`Missing::record`] made.
pub fn judge<'r>(definition: &Definition, record: &'r str, created_us: i64) -> Result<Judged<'r>, QuarantineReason> {
    definition.judge(record.as_bytes(), created_us)
}

/// A part of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartName {
    /// The SHA-256 of its bytes.
    pub sha256: String,
    /// How many items it has.
    pub items: u64,
}

/// What a plan adds to a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellSum {
    /// The cell.
    pub cell: Cell,
    /// What is added.
    pub add: Delta,
}

/// Items that cannot be counted, by the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// Why, as a record of the same content would be quarantined.
    pub reason: String,
    /// How many items.
    pub items: u64,
    /// Some of their keys.
    pub keys: Vec<String>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: u32,
    /// The hash of the definition whose totals these are.
    pub definition: String,
    /// How the table was read: `scan`, or an export's address.
    pub source: String,
    /// When its reading began and ended, µs since 1970.
    pub read_us: (i64, i64),
    /// The creation time of its rows, µs since 1970.
    pub created_us: i64,
    /// How many entries the log had when it was made: all of them were looked at.
    pub entries: u64,
    /// Items without any archived change.
    pub whole: u64,
    /// Items captured from the middle of their lives.
    pub before: u64,
    /// Items that came back behind an archived removal.
    pub behind: u64,
    /// Its items.
    pub parts: Vec<PartName>,
    /// What they come to.
    pub cells: Vec<CellSum>,
    /// Items that are missing but cannot be counted: they are not among its items.
    pub refused: Vec<Refused>,
}

/// A plan cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is none of that name.
    #[error("there is no {0} in the bucket; `recount backfill` makes a plan and says its hash")]
    Missing(String),
    /// It does not read as a plan.
    #[error("{name} is damaged: {why}; make a new plan")]
    Malformed {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// It is of a newer format.
    #[error("{name} is a plan of format {format}, this program reads up to {FORMAT}: use a newer one")]
    Newer {
        /// Its name.
        name: String,
        /// Its format.
        format: u32,
    },
    /// It is for other totals.
    #[error("the plan is for definition {found}, not for this one ({wanted})")]
    OtherDefinition {
        /// Its definition.
        found: String,
        /// The definition in use.
        wanted: String,
    },
}

/// SHA-256 as 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    crate::log::Digest::of(bytes).to_string()
}

impl Plan {
    /// How many items it adds.
    pub fn items(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.items))
    }

    /// Its canonical bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads the plan called `hash`.
    pub fn read(hash: &str, bytes: &[u8], definition: &Definition) -> Result<Self, PlanError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let name = object_key(hash);
        let malformed = |why: String| PlanError::Malformed { name: name.clone(), why };
        if sha256(bytes) != hash {
            return Err(malformed("its content has another hash".to_owned()));
        }
        let Format { format } = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        if format > FORMAT {
            return Err(PlanError::Newer { name, format });
        }
        let plan: Self = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        if plan.definition != definition.hash() {
            let wanted = definition.hash().to_owned();
            return Err(PlanError::OtherDefinition { found: plan.definition, wanted });
        }
        Ok(plan)
    }
}

/// Where the plan called `hash` is.
pub fn object_key(hash: &str) -> String {
    format!("{PREFIX}{hash}.json")
}

/// Where the report of the plan called `hash` is, once it has been applied.
pub fn report_key(hash: &str) -> String {
    format!("{PREFIX}{hash}.report.json")
}

/// Where a part of a plan of that time is.
pub fn part_key(created_us: i64, part: &PartName) -> String {
    format!("{PARTS}{created_us}-{}.jsonl.gz", part.sha256)
}

/// The shard of the rows of the plan called `hash`.
pub fn shard(hash: &str) -> String {
    format!("backfill-{}", hash.get(..16).unwrap_or(hash))
}

/// The origin of the entries of the plan called `hash`.
pub fn origin(hash: &str) -> String {
    format!("backfill {hash}")
}

/// Packs items as a part, as they come.
#[derive(Debug)]
pub struct Packer {
    to: GzEncoder<Vec<u8>>,
    items: u64,
    bytes: u64,
}

impl Default for Packer {
    fn default() -> Self {
        Self { to: GzEncoder::new(Vec::new(), Compression::fast()), items: 0, bytes: 0 }
    }
}

impl Packer {
    /// Takes an item. Whether the part is full then.
    pub fn push(&mut self, missing: &Missing) -> std::io::Result<bool> {
        let mut line = serde_json::to_vec(missing)?;
        line.push(b'\n');
        self.to.write_all(&line)?;
        self.items += 1;
        self.bytes += line.len() as u64;
        Ok(self.items >= PART_ITEMS || self.bytes >= PART_BYTES)
    }

    /// The part and its name; `None` without any item.
    pub fn finish(self) -> std::io::Result<Option<(PartName, Vec<u8>)>> {
        if self.items == 0 {
            return Ok(None);
        }
        let bytes = self.to.finish()?;
        Ok(Some((PartName { sha256: sha256(&bytes), items: self.items }, bytes)))
    }
}

/// The items of a part.
pub fn unpack(name: &PartName, bytes: &[u8]) -> Result<Vec<Missing>, PlanError> {
    let malformed = |why: String| PlanError::Malformed { name: format!("part {}", name.sha256), why };
    if Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>() != name.sha256 {
        return Err(malformed("its content has another hash".to_owned()));
    }
    let mut lines = BufReader::new(GzDecoder::new(bytes));
    let (mut items, mut line, mut total) = (Vec::new(), Vec::new(), 0u64);
    loop {
        line.clear();
        let read = lines.by_ref().take(2 * MAX_LINE).read_until(b'\n', &mut line);
        let read = read.map_err(|e| malformed(e.to_string()))? as u64;
        if read == 0 {
            break;
        }
        total += read;
        if total > PART_BYTES + 2 * MAX_LINE || items.len() as u64 >= name.items {
            return Err(malformed("it has more than its name says".to_owned()));
        }
        items.push(serde_json::from_slice(&line).map_err(|e| malformed(e.to_string()))?);
    }
    if items.len() as u64 != name.items {
        return Err(malformed(format!("it has {} items, not {}", items.len(), name.items)));
    }
    Ok(items)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
