//! What an audit says.

use recount_schemas::{Group, Month, SequenceNumber, ShardId};
use serde::Serialize;
use serde_json::Value;

use super::compare::Kind;
use crate::reconcile::Verdict;
use crate::table::Source;

/// Most findings that are named.
pub const MAX_FINDINGS: usize = 100_000;

/// One item that is not in the archive as it is in the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub kind: Kind,
    /// The item's key, as DynamoDB JSON.
    pub key: Value,
    /// Its group, by its last archived change or else by the table.
    pub group: Option<Group>,
    /// Its month, likewise.
    pub month: Option<Month>,
    /// Its last archived change.
    pub last: Option<LastChange>,
    /// In words.
    pub detail: String,
}

/// The last archived change of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastChange {
    /// The record's event ID.
    pub event_id: String,
    /// INSERT, MODIFY or REMOVE.
    pub event_name: String,
    /// When it was made.
    pub created_at: String,
    /// The shard that it was read from.
    pub shard_id: ShardId,
    /// Where in it.
    pub sequence_number: SequenceNumber,
}

/// Items of a group's month, as the table and as the archive has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The group.
    pub group: Group,
    /// The month of the items' own times.
    pub month: Month,
    /// Items in the table.
    pub in_table: u64,
    /// Items that are there by their last archived change.
    pub in_archive: u64,
}

/// The report of an audit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// Why nothing can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undecided_because: Option<String>,
    /// How the table was read.
    pub table: Source,
    /// How many archived changes were compared.
    pub changes: u64,
    /// How many items have archived changes.
    pub archived_items: u64,
    /// How many items were suspects at the first look, and were looked at again.
    pub looked_at_again: u64,
    /// Archived changes whose item cannot be told: they have neither keys nor an image, most since they were erased.
    #[serde(skip_serializing_if = "is_zero")]
    pub without_key: u64,
    /// Items that would be findings, but for an erased INSERT that may be theirs.
    #[serde(skip_serializing_if = "is_zero")]
    pub may_be_erased: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Suspects that were not looked at again, for want of room: repeat the audit when the findings are dealt with.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: u64,
    /// The months of the findings, counted on both sides.
    pub counts: Vec<Count>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature that serde asks for
fn is_zero(n: &u64) -> bool {
    *n == 0
}
