//! What is counted: the definition, read from `recount.toml`.
//!
//! The [`file`](mod@file) gives texts, and [`given`] where a deployed part has it from; what is here has been checked, so that no other code asks again. The [`hash`](Definition::hash)
//! stands beside the totals: any change but one of the quotas, or of what the archive keeps of images, makes other totals, hence a
//! rebuild, never an edit in place.

pub mod file;
pub mod given;

use std::collections::BTreeMap;
use std::fmt;

use jiff::tz::TimeZone;

pub use file::DefinitionError;

/// What is counted, per which group, and how.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The table whose changes are counted.
    pub table: String,
    /// The attributes of the table's primary key: partition key, then sort key if any.
    pub key: Vec<String>,
    /// The attribute whose value is the group.
    pub group_by: String,
    /// Where an event's own time stands.
    pub occurred_at: OccurredAt,
    /// The time zone whose clocks end months and years.
    pub zone: Zone,
    /// Which changes count.
    pub count: Count,
    /// The attributes that are summed, in the order of the file.
    pub measures: Vec<Measure>,
    /// What identifies a change.
    pub identity: Identity,
    /// Over how many items a cell is spread: a power of two, 1 to 256.
    pub lanes: u16,
    /// How many days back the ledger of counted keys reaches.
    pub ledger_days: u16,
    /// How many events a group may have in a month.
    pub quota: Quota,
    /// What the archive keeps of images.
    pub archive: Archive,
    hash: String,
}

/// The least `ledger_days` for a stream that keeps records for so many hours: more than that and two days, one for creation
/// times that are ahead of the arrival, one for an attempt to end in. With fewer a record could come again when its key is forgotten.
pub const fn least_ledger_days(retention_hours: u32) -> u32 {
    retention_hours.saturating_add(48) / 24 + 1
}

/// Where an event's own time stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OccurredAt {
    /// Nowhere: the creation time of the change is the event's time.
    CreationTime,
    /// In an attribute, as RFC 3339 text with an offset.
    Rfc3339 {
        /// The attribute.
        attribute: String,
    },
    /// In an attribute, as a number since 1970 (N, or S holding digits).
    Epoch {
        /// The attribute.
        attribute: String,
        /// What the number counts.
        unit: EpochUnit,
    },
}

impl OccurredAt {
    /// The attribute, if there is one.
    pub fn attribute(&self) -> Option<&str> {
        match self {
            Self::CreationTime => None,
            Self::Rfc3339 { attribute } | Self::Epoch { attribute, .. } => Some(attribute),
        }
    }
}

/// What an epoch attribute counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub enum EpochUnit {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
}

/// A time zone by its IANA name, with its rules from the database that is built in.
#[derive(Clone)]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

impl Zone {
    /// The zone called `name`; `None` where the database has none.
    pub fn named(name: &str) -> Option<Self> {
        let rules = TimeZone::get(name).ok()?;
        // The database's own spelling, so that `europe/berlin` and `Europe/Berlin` hash alike.
        Some(Self { name: rules.iana_name().unwrap_or(name).to_owned(), rules })
    }

    /// Its IANA name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its rules.
    pub fn rules(&self) -> &TimeZone {
        &self.rules
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Which changes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// An INSERT counts one; MODIFY and REMOVE count nothing.
    Inserts,
    /// Every change counts what its new image counts less what its old image counted.
    Net {
        /// Whether a deletion by time to live subtracts, as any other does.
        ttl_subtracts: bool,
    },
}

/// An attribute that is summed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// The attribute.
    pub attribute: String,
    /// Its column in the archive: `measure_` and the attribute in lower case, other characters than `a-z0-9_` as `_`.
    pub column: String,
    /// Its attribute in a totals item: `sum_` and the attribute as it is.
    pub total: String,
}

/// What identifies a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub enum Identity {
    /// The record's own event ID.
    #[serde(rename = "event_id")]
    EventId,
    /// The change itself: table, keys, event name, creation time in microseconds, images.
    #[serde(rename = "change")]
    Change,
}

/// How many events a group may have in a month.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quota {
    /// For groups that are not named.
    pub default: Option<u64>,
    /// For named groups.
    pub groups: BTreeMap<String, u64>,
}

/// What the archive keeps of images: no total depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archive {
    /// The top-level attributes that are left out of archived images, sorted. None of them is part of the key, the group, the time
    /// or a measure.
    pub omit: Vec<String>,
    /// The images of the present month, and of so many before it, are kept; those of older months are erased. `None` keeps all.
    pub retain_months: Option<u16>,
}

impl Quota {
    /// The quota of a group, if it has one.
    pub fn of(&self, group: &str) -> Option<u64> {
        self.groups.get(group).copied().or(self.default)
    }
}

impl Definition {
    /// The version of the rules by which a definition makes totals; part of the hash.
    pub const RULES: u32 = 1;

    /// BLAKE3 over everything that decides what the totals are, as 64 hexadecimal digits: all but the quotas and what the archive
    /// keeps of images. The ledger's days are among it: pages expire by the days in force when they were put, so a longer ledger would take for uncounted
    /// what it has only forgotten.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    fn seal(mut self) -> Self {
        // JSON quotes and escapes, so no two definitions have one text. The words are those of the file, not of this
        // code: renaming a type here must not make every deployment's totals somebody else's.
        let occurred_at = match &self.occurred_at {
            OccurredAt::CreationTime => serde_json::json!(null),
            OccurredAt::Rfc3339 { attribute } => serde_json::json!(attribute),
            OccurredAt::Epoch { attribute, unit } => {
                let unit = match unit {
                    EpochUnit::Seconds => "s",
                    EpochUnit::Milliseconds => "ms",
                    EpochUnit::Microseconds => "us",
                };
                serde_json::json!({ "attribute": attribute, "unit": unit })
            }
        };
        let (count, ttl) = match self.count {
            Count::Inserts => ("inserts", "ignore"),
            Count::Net { ttl_subtracts: false } => ("net", "ignore"),
            Count::Net { ttl_subtracts: true } => ("net", "subtract"),
        };
        let identity = match self.identity {
            Identity::EventId => "event_id",
            Identity::Change => "change",
        };
        let text = serde_json::json!([
            "recount definition",
            Self::RULES,
            self.table,
            self.key,
            self.group_by,
            occurred_at,
            self.zone.name(),
            count,
            ttl,
            self.measures.iter().map(|measure| &measure.attribute).collect::<Vec<_>>(),
            identity,
            self.lanes,
            self.ledger_days,
        ]);
        self.hash = blake3::hash(text.to_string().as_bytes()).to_hex().to_string();
        self
    }
}
