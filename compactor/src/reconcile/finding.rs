//! What reconcile says is wrong: kinds by their tokens, and the events by name.

use std::collections::BTreeMap;

use recount_schemas::position::{SequenceNumber, ShardId};
use recount_schemas::{Amount, Cell, Definition, Delta, EventKey, Group, Month};
use serde::{Deserialize, Serialize};

/// The most events that one finding names. It counts the rest.
pub const MAX_NAMED: usize = 10_000;

/// The kinds of findings. The tokens are a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An archived event that the consumer passed is not in the cell's ledger.
    Missing,
    /// One event, which can be named, stands in the number once more than in the ledger.
    Doubled,
    /// The number differs from its own ledger; only the difference can be named.
    Damaged,
    /// The ledger has a key that no archived event has.
    Unbacked,
    /// One event key came with different contents.
    Conflicting,
    /// The ledger has the key of an event that belongs to another cell, or to none.
    WrongCell,
    /// An archived event that the consumer put into quarantine and that nobody counted since.
    Quarantined,
    /// An event that came later than the ledger reaches back; it is on the too-old list and not in the number.
    TooOld,
    /// An item of the totals or of their ledger was written by something else, or damaged, and is not understood.
    Unusable,
    /// The stream dropped records before they were archived.
    Lost,
}

impl Kind {
    /// Its token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Doubled => "doubled",
            Self::Damaged => "damaged",
            Self::Unbacked => "unbacked",
            Self::Conflicting => "conflicting",
            Self::WrongCell => "wrong_cell",
            Self::Quarantined => "quarantined",
            Self::TooOld => "too_old",
            Self::Unusable => "unusable",
            Self::Lost => "lost",
        }
    }

    /// One sentence for the reader.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Missing => "archived and passed by the consumer, but not counted",
            Self::Doubled => "counted once more than its ledger says",
            Self::Damaged => "the number differs from its own ledger",
            Self::Unbacked => "counted, but no archived event has this key",
            Self::Conflicting => "one event key came with different contents",
            Self::WrongCell => "counted here, but the event belongs elsewhere",
            Self::Quarantined => "in the consumer's quarantine, not counted",
            Self::TooOld => "came later than the ledger reaches back, not counted",
            Self::Unusable => "an item that is not understood; mend or delete it, then repair",
            Self::Lost => "dropped by the stream before it was archived",
        }
    }
}

/// Where an archived event stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The record's event ID.
    pub event_id: String,
    /// The shard that it was archived from.
    pub shard_id: ShardId,
    /// Its sequence number there.
    pub sequence_number: SequenceNumber,
    /// The object that holds its row, or for a conflicting variant the record itself.
    pub file: String,
}

/// An event that a finding names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedEvent {
    /// Its key.
    pub event_key: EventKey,
    /// Where it stands in the archive; `None` for a key that the archive does not have.
    #[serde(flatten)]
    pub origin: Option<Origin>,
    /// Its row in that file, where it is looked up: see [`places`](super::places).
    #[serde(flatten)]
    pub row: Option<RowPlace>,
    /// What it adds to the cell; `None` where nothing says so.
    pub delta: Option<Delta>,
}

/// A row in a Parquet file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowPlace {
    /// The row group, from 0.
    pub row_group: u32,
    /// The row, from 0, through all row groups.
    pub row_number: u64,
}

impl NamedEvent {
    /// The event ID; for a key that the archive does not have, the key in hexadecimal.
    pub fn id(&self) -> String {
        self.origin.as_ref().map_or_else(|| self.event_key.to_string(), |origin| origin.event_id.clone())
    }
}

/// One thing that is wrong in one cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What is wrong.
    pub kind: Kind,
    /// The cell's group; `None` for what concerns no cell.
    pub group: Option<Group>,
    /// The cell's month; `None` for what concerns no cell.
    pub month: Option<Month>,
    /// The cell's lane; `None` for what concerns no cell.
    pub lane: Option<u16>,
    /// The events that the cell would have if nothing were wrong.
    pub expected: i64,
    /// The events that it has.
    pub actual: i64,
    /// The sums that it would have, by attribute.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expected_sums: BTreeMap<String, Amount>,
    /// The sums that it has, by attribute.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub actual_sums: BTreeMap<String, Amount>,
    /// How many events it concerns; 0 where they cannot be told.
    pub count: u64,
    /// Their IDs, at most [`MAX_NAMED`]. A key that the archive does not have stands in hexadecimal.
    pub event_ids: Vec<String>,
    /// The same events, and where they stand.
    pub events: Vec<NamedEvent>,
    /// What was seen, in words.
    pub detail: String,
}

/// Sums by attribute.
pub fn named_sums(definition: &Definition, delta: &Delta) -> BTreeMap<String, Amount> {
    let sums = definition.measures.iter().enumerate();
    sums.map(|(i, measure)| (measure.attribute.clone(), delta.sums.get(i).copied().unwrap_or(Amount::ZERO))).collect()
}

impl Finding {
    /// A finding about a cell.
    pub fn about(kind: Kind, cell: &Cell, events: Named, detail: impl Into<String>) -> Self {
        let Named { count, events } = events;
        Self {
            kind,
            group: Some(cell.group.clone()),
            month: Some(cell.month),
            lane: Some(cell.lane),
            expected: 0,
            actual: 0,
            expected_sums: BTreeMap::new(),
            actual_sums: BTreeMap::new(),
            count,
            event_ids: events.iter().map(NamedEvent::id).collect(),
            events,
            detail: detail.into(),
        }
    }

    /// A finding about no cell.
    pub fn about_none(kind: Kind, detail: String) -> Self {
        Self {
            kind,
            group: None,
            month: None,
            lane: None,
            expected: 0,
            actual: 0,
            expected_sums: BTreeMap::new(),
            actual_sums: BTreeMap::new(),
            count: 0,
            event_ids: Vec::new(),
            events: Vec::new(),
            detail,
        }
    }

    /// The cell that it concerns.
    pub fn cell(&self) -> Option<Cell> {
        Some(Cell { group: self.group.clone()?, month: self.month?, lane: self.lane? })
    }
}

/// Events named up to a bound and counted beyond it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// How many there are.
    pub count: u64,
    /// The first [`MAX_NAMED`].
    pub events: Vec<NamedEvent>,
}

impl Named {
    /// One more.
    pub fn push(&mut self, event: NamedEvent) {
        self.count = self.count.saturating_add(1);
        if self.events.len() < MAX_NAMED {
            self.events.push(event);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_bear_the_names_of_their_attributes() {
        let text = "[source]\ntable='t'\nkey=['a']\n[fold]\ngroup_by='g'\nsum=['bytes', 'pages']";
        let definition = Definition::parse(text, "recount.toml").unwrap();
        let delta = Delta { events: 1, sums: [Amount::from_billionths(5)].into_iter().collect() };
        let named = named_sums(&definition, &delta);
        assert_eq!(
            named,
            [("bytes".to_owned(), Amount::from_billionths(5)), ("pages".to_owned(), Amount::ZERO)].into(),
            "a sum that is not there is zero"
        );
    }

    #[test]
    fn a_finding_knows_its_cell() {
        let cell = Cell { group: "acme".parse().unwrap(), month: "2026-11".parse().unwrap(), lane: 3 };
        assert_eq!(Finding::about(Kind::Damaged, &cell, Named::default(), "").cell(), Some(cell));
    }
}
