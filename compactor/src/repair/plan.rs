//! A plan: what is to be done to which cells, named by the hash of its own bytes. Pure.
//!
//! Per cell, in this order (see [`apply`](super::apply)):
//!
//! 1. The number: `counted + taken − number` is added. Consumers add a key and its delta in one write, so this difference
//!    stays the same while they run, and while missing events come in.
//! 2. Each missing event goes through the consumer's own path.
//! 3. Keys without an archived event, and keys of events that belong elsewhere, stay in the ledger; the plan declares them void.
//!
//! A cell that was deleted is behind its own pages ([`Raise`]). Its item must first have all of them in its ledger again:
//! `epoch` above theirs and `sealed` at their greatest key, in one write with the number; the plan is made from that ledger. This write
//! demands the item just as it was seen (absent, or the same epoch and the same size of `recent`, which is the same set),
//! since a writer may meanwhile count a key that stands on such a page. Where a writer was faster, the item is raised by
//! itself, which is right whatever writers do; from then on the difference is constant, and the next plan has it.
//!
//! No time stands in a plan: the same damage makes the same plan, and a plan that was applied is known by its name.

use recount_schemas::position::{SequenceNumber, ShardId};
use recount_schemas::{Cell, Definition, Delta, EventKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::reconcile::finding::{Finding, Kind};
use crate::reconcile::join::Found;
use crate::reconcile::standing::Raise;

/// The format of plans that this code writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Where plans and their reports are.
pub const PREFIX: &str = "plans/";
/// The largest plan, in bytes.
pub const MAX_BYTES: u64 = 256 << 20;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: u32,
    /// The hash of the definition whose totals these are.
    pub definition: String,
    /// The cells, sorted.
    pub cells: Vec<CellPlan>,
}

/// What is to be done to one cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellPlan {
    /// The cell.
    pub cell: Cell,
    /// The last plan that was applied to it when this one was made.
    pub seen: Option<String>,
    /// What is added to the number.
    pub add: Delta,
    /// For a cell behind its own pages, or one that lost its `sealed`: see [`Raise`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raise: Option<RaisePlan>,
    /// Archived events to be counted through the consumer's own path, by key.
    pub missing: Vec<MissingEvent>,
    /// Keys of the ledger that stand for no event of this cell, or for a conflict that was looked at: silent from then on.
    pub void: Vec<EventKey>,
    /// Events of the too-old list that `add` puts into the number.
    pub settled: Vec<EventKey>,
}

/// How a cell is raised, and what its item must be so that the number can go with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RaisePlan {
    /// Its new epoch and `sealed`.
    pub to: Raise,
    /// Its epoch as seen; `None` where there was no item.
    pub from_epoch: Option<u64>,
    /// The size of its `recent` as seen.
    pub recent: usize,
}

/// An archived event to be counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissingEvent {
    /// Its key.
    pub event_key: EventKey,
    /// Its event ID.
    pub event_id: String,
    /// The shard that it was archived from.
    pub shard_id: ShardId,
    /// Its sequence number there.
    pub sequence_number: SequenceNumber,
    /// What it adds to the cell.
    pub delta: Delta,
}

/// A plan cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// It does not read as a plan.
    #[error("{name} is not a plan: {why}")]
    Malformed {
        /// Where it was read from.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// There is none of this name.
    #[error(
        "there is no plan {hash} in {place}{}; `recount repair` makes one, and says its hash",
        if newest.is_empty() { ", nor any other".to_owned() } else { format!("; the newest there: {}", newest.join(", ")) }
    )]
    Absent {
        /// The hash that was asked for.
        hash: String,
        /// Where plans are.
        place: String,
        /// The hashes of the newest plans that are there.
        newest: Vec<String>,
    },
    /// It is not the plan that its name says: somebody changed it.
    #[error("{name} holds another plan: its content has the hash {found}; it was changed, make a new plan")]
    OtherContent {
        /// Where it was read from.
        name: String,
        /// The hash of what is there.
        found: String,
    },
    /// It is of a newer format.
    #[error("{name} is a plan of format {format}, this program reads up to {FORMAT}: use a newer one")]
    Newer {
        /// Where it was read from.
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

impl Plan {
    /// The plan for what was found. Cells without anything that repair can do are left out: a quarantined event needs a redrive.
    pub fn make(definition: &Definition, found: &[Found]) -> Self {
        let mut cells: Vec<CellPlan> = found.iter().filter_map(CellPlan::make).collect();
        cells.sort_by(|a, b| a.cell.cmp(&b.cell));
        Self { format: FORMAT, definition: definition.hash().to_owned(), cells }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Its canonical bytes: compact JSON with the members in the order of the type, nothing left to choice.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Its name: SHA-256 over its canonical bytes, 64 hexadecimal digits.
    pub fn hash(&self) -> Result<String, serde_json::Error> {
        use std::fmt::Write;
        let digest = Sha256::digest(self.to_bytes()?);
        Ok(digest.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        }))
    }

    /// Reads a plan for this definition. White space and the order of members do not matter: its name is that of its canonical bytes.
    pub fn read(name: &str, bytes: &[u8], definition: &Definition) -> Result<Self, PlanError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let malformed = |why: serde_json::Error| PlanError::Malformed { name: name.to_owned(), why: why.to_string() };
        let Format { format } = serde_json::from_slice(bytes).map_err(malformed)?;
        if format > FORMAT {
            return Err(PlanError::Newer { name: name.to_owned(), format });
        }
        let plan: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        if plan.definition != definition.hash() {
            let wanted = definition.hash().to_owned();
            return Err(PlanError::OtherDefinition { found: plan.definition, wanted });
        }
        match plan.flaw(definition) {
            Some(why) => Err(PlanError::Malformed { name: name.to_owned(), why }),
            None => Ok(plan),
        }
    }

    /// As [`Plan::read`], for a plan that was asked for by its hash: a content that has another one is refused.
    pub fn read_named(hash: &str, bytes: &[u8], definition: &Definition) -> Result<Self, PlanError> {
        let name = Self::object_key(hash);
        let plan = Self::read(&name, bytes, definition)?;
        let found = plan.hash().map_err(|why| PlanError::Malformed { name: name.clone(), why: why.to_string() })?;
        if found == hash { Ok(plan) } else { Err(PlanError::OtherContent { name, found }) }
    }

    /// What no plan of this definition has that we made: a plan can come from anywhere, and is applied as it stands.
    fn flaw(&self, definition: &Definition) -> Option<String> {
        let measures = definition.measures.len();
        if !self.cells.is_sorted_by(|a, b| a.cell < b.cell) {
            return Some("its cells are not sorted, or one stands in it twice".to_owned());
        }
        for cell in &self.cells {
            let named = format!("{:?} {} lane {}", cell.cell.group, cell.cell.month, cell.cell.lane);
            if cell.cell.lane >= definition.lanes {
                return Some(format!("{named} is beyond the definition's lanes"));
            }
            let deltas = std::iter::once(&cell.add).chain(cell.missing.iter().map(|missing| &missing.delta));
            if deltas.into_iter().any(|delta| delta.sums.len() != measures) {
                return Some(format!("what it adds to {named} does not have one sum for each measure"));
            }
            let mut keys: Vec<EventKey> = cell.missing.iter().map(|missing| missing.event_key).collect();
            keys.sort_unstable();
            if keys.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
                return Some(format!("it counts one event twice in {named}"));
            }
        }
        None
    }

    /// Where it is kept in the bucket.
    pub fn object_key(hash: &str) -> String {
        format!("{PREFIX}{hash}.json")
    }

    /// The hash in the name of a plan.
    pub fn named(key: &str) -> Option<&str> {
        let hash = key.strip_prefix(PREFIX)?.strip_suffix(".json")?;
        (hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit())).then_some(hash)
    }

    /// Where its report is kept.
    pub fn report_key(hash: &str) -> String {
        format!("{PREFIX}{hash}.report.json")
    }

    /// The hash in the name of a report.
    pub fn reported(key: &str) -> Option<&str> {
        let hash = key.strip_prefix(PREFIX)?.strip_suffix(".report.json")?;
        (hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit())).then_some(hash)
    }
}

impl CellPlan {
    fn make(found: &Found) -> Option<Self> {
        let outcome = found.raised.as_ref().unwrap_or(&found.outcome);
        let of = |kind: Kind| outcome.findings.iter().filter(move |finding| finding.kind == kind);
        let keys = |kinds: &[Kind]| {
            let findings = outcome.findings.iter().filter(|finding| kinds.contains(&finding.kind));
            let mut keys: Vec<EventKey> = findings.flat_map(|f| f.events.iter().map(|event| event.event_key)).collect();
            keys.sort_unstable();
            keys
        };
        let missing: Vec<MissingEvent> = of(Kind::Missing).flat_map(Self::missing).collect();
        let void = keys(&[Kind::Unbacked, Kind::WrongCell, Kind::Conflicting]);
        let settled = keys(&[Kind::TooOld]);
        let raise = found.raise.as_ref().map(|to| RaisePlan {
            to: to.clone(),
            from_epoch: found.head.as_ref().filter(|head| head.present).map(|head| head.epoch),
            recent: found.head.as_ref().map_or(0, |head| head.recent),
        });
        let add = outcome.correction.clone();
        if add.is_zero() && missing.is_empty() && void.is_empty() && settled.is_empty() && raise.is_none() {
            return None;
        }
        let seen = found.head.as_ref().and_then(|head| head.repair.clone());
        Some(Self { cell: outcome.cell.clone(), seen, add, raise, missing, void, settled })
    }

    fn missing(finding: &Finding) -> impl Iterator<Item = MissingEvent> {
        finding.events.iter().filter_map(|event| {
            let origin = event.origin.clone()?;
            Some(MissingEvent {
                event_key: event.event_key,
                event_id: origin.event_id,
                shard_id: origin.shard_id,
                sequence_number: origin.sequence_number,
                delta: event.delta.clone()?,
            })
        })
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
