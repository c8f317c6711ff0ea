//! What a deployment is like, as far as it could be seen.

use recount_schemas::Month;

use super::policy::LogPolicy;
use crate::archive::finish::Shown;

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact<T> {
    /// It is so.
    Is(T),
    /// There is nothing to look at, or this endpoint does not offer it; why.
    Absent(String),
    /// It could not be seen: refused, or failed; why.
    Unseen(String),
}

impl<T> Fact<T> {
    /// What it is, where it was seen.
    pub fn seen(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Absent(_) | Self::Unseen(_) => None,
        }
    }
}

/// A destination of a table's changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The stream's ARN.
    pub stream: String,
    /// `ACTIVE`, `DISABLED`, `ENABLING`, …
    pub status: String,
    /// `MICROSECOND`, `MILLISECOND`; `None` where it does not say.
    pub precision: Option<String>,
}

/// A Kinesis stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Its ARN.
    pub arn: String,
    /// `ACTIVE`, …
    pub status: String,
    /// How long it keeps records, hours.
    pub retention_hours: u32,
}

/// An event source mapping. `None` where Lambda does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// `Enabled`, `Disabled`, …
    pub state: String,
    /// What it reads.
    pub source: String,
    /// The most seconds that a batch is gathered.
    pub window_seconds: Option<i32>,
    /// Whether failures are reported record by record.
    pub reports_failures: bool,
    /// Whether a batch that fails is halved.
    pub bisects: bool,
    /// How often a failed batch comes again; -1: for ever.
    pub retries: Option<i32>,
    /// Until which age, seconds; -1: any.
    pub record_age_seconds: Option<i32>,
    /// Batches of one shard at once.
    pub parallelization: Option<i32>,
    /// `TRIM_HORIZON`, `LATEST`, `AT_TIMESTAMP`.
    pub starts_at: String,
    /// Where what is given up goes.
    pub on_failure: Option<String>,
    /// How many filters it has.
    pub filters: usize,
    /// The seconds of its tumbling window.
    pub tumbling_seconds: Option<i32>,
}

/// An attribute of a key: its name and type, `S`, `N` or `B`.
pub type KeyPart = (String, String);

/// A table's own stream of changes, by which a relay goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableStream {
    /// Its ARN. A stream that is turned off and on again has another one.
    pub arn: String,
    /// `NEW_AND_OLD_IMAGES`, …
    pub view: String,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// `ACTIVE`, …
    pub status: String,
    /// Its key: partition key, then sort key if any.
    pub key: Vec<KeyPart>,
    /// Whether it can be restored to a moment.
    pub recovery: Fact<bool>,
    /// Its stream of changes, where it is on.
    pub stream: Option<TableStream>,
    /// The attribute by which items expire, if they do.
    pub expires_by: Fact<Option<String>>,
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketFacts {
    /// Whether it is there, and may be listed.
    pub lists: Fact<()>,
    /// Whether it keeps versions.
    pub versioned: Fact<bool>,
    /// Whether all public access is blocked.
    pub private: Fact<bool>,
    /// Prefixes whose present objects expire by age; the empty one is the whole bucket.
    pub expires: Fact<Vec<String>>,
    /// What its policy says of the log.
    pub policy: Fact<LogPolicy>,
}

/// A month of the archive and what readers by location are shown of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The month.
    pub month: Month,
    /// Its version by the log.
    pub version: u64,
    /// What its partition shows.
    pub shown: Option<Shown>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The source table's name.
    pub source_name: String,
    /// The source table's key, by the definition.
    pub source_key: Vec<String>,
    /// The definition's `ledger_days`.
    pub ledger_days: u16,
    /// The definition's hash.
    pub definition: String,
    /// The definitions' hashes of others: the totals table, the functions. `None`: it has none yet.
    pub definitions: Vec<(&'static str, Fact<Option<String>>)>,
    /// The source table.
    pub source: Fact<Table>,
    /// Where its changes go.
    pub destinations: Fact<Vec<Destination>>,
    /// The relay's mapping; `None` where the deployment has no relay.
    pub relay: Fact<Option<Mapping>>,
    /// The stream.
    pub stream: Fact<Stream>,
    /// The consumer's mapping.
    pub consumer: Fact<Mapping>,
    /// The table of totals.
    pub totals: Fact<Table>,
    /// The table of the ledger.
    pub ledger: Fact<Table>,
    /// The table of progress.
    pub progress: Fact<Table>,
    /// The bucket.
    pub bucket: BucketFacts,
    /// The number of entries of the archive's log.
    pub log: Fact<u64>,
    /// The months of the archive, where they have partitions.
    pub partitions: Fact<Vec<Placed>>,
    /// Our clock less DynamoDB's, ms; DynamoDB says whole seconds.
    pub clock_ms: Fact<i64>,
}
