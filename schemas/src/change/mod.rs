//! One change of the source table.
//!
//! A change travels in one of two forms, which [`decode`](Change::decode) tells apart by their members:
//!
//! | | Kinesis Data Streams for DynamoDB | DynamoDB Streams, forwarded by the relay |
//! | --- | --- | --- |
//! | told by | `recordFormat` or `tableName` | `eventSourceARN` |
//! | table | `tableName` | the part of `eventSourceARN` behind `:table/` |
//! | creation time | whole milliseconds or microseconds, see [`decode`] | seconds, perhaps with decimals |
//! | binary (`B`) | base64 twice (DynamoDB Developer Guide, "kds") | base64 once |
//! | user identity | `type`, `principalId` | the same; the Streams API itself writes `Type`, `PrincipalId` |
//!
//! Images stay the exact text that came; only the attributes that the definition names are ever parsed
//! ([`attribute`]). What is not understood of the envelope is kept ([`envelope`]).

pub mod attribute;
pub mod canonical;
pub mod decode;
pub mod envelope;
pub mod omit;

use std::borrow::Cow;

/// What happened to the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventName {
    /// It was created.
    Insert,
    /// It was changed.
    Modify,
    /// It was deleted.
    Remove,
}

impl EventName {
    /// As records spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Modify => "MODIFY",
            Self::Remove => "REMOVE",
        }
    }

    /// From a record's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "INSERT" => Some(Self::Insert),
            "MODIFY" => Some(Self::Modify),
            "REMOVE" => Some(Self::Remove),
            _ => None,
        }
    }
}

/// The two forms in which a change travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Kinesis Data Streams for DynamoDB.
    Kinesis,
    /// A DynamoDB Streams record, forwarded by the relay.
    Streams,
}

/// How finely the creation time is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    /// Whole seconds (DynamoDB Streams).
    Second,
    /// Milliseconds.
    Millisecond,
    /// Microseconds.
    Microsecond,
}

/// One change, as decoded; borrows from the record's bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Change<'a> {
    /// The form that it came in.
    pub form: Form,
    /// `eventID` inside the record. Not Lambda's outer `eventID`, which is shard:sequence and differs between duplicates
    /// that DynamoDB itself wrote. Of no promised shape.
    pub event_id: Cow<'a, str>,
    /// What happened.
    pub event_name: EventName,
    /// The table that the item is in.
    pub table: Cow<'a, str>,
    /// `ApproximateCreationDateTime` in microseconds since 1970.
    pub created_us: i64,
    /// How finely that is known.
    pub precision: Precision,
    /// The item's key, as the record's JSON text.
    pub keys: Option<&'a str>,
    /// The item after the change, as the record's JSON text. Absent for a REMOVE.
    pub new_image: Option<&'a str>,
    /// The item before the change, as the record's JSON text. Absent for an INSERT.
    pub old_image: Option<&'a str>,
    /// `userIdentity`, as the record's JSON text.
    pub user_identity: Option<&'a str>,
    /// Whether time to live deleted the item.
    pub ttl: bool,
}

impl Change<'_> {
    /// The creation time in milliseconds (floor): the leading part of the event key.
    pub fn created_ms(&self) -> i64 {
        self.created_us.div_euclid(1_000)
    }

    /// How the archive classes the change: `insert`, `modify`, `remove`, `ttl`.
    pub fn class(&self) -> &'static str {
        match self.event_name {
            EventName::Insert => "insert",
            EventName::Modify => "modify",
            EventName::Remove if self.ttl => "ttl",
            EventName::Remove => "remove",
        }
    }
}
