//! One archived change as far as an item's history needs it, and the order of an item's changes. Pure.
//!
//! All changes of an item go through one shard, and after a split or a merge through its child, whose sequence numbers are
//! greater; those of a stream made anew begin with a later time. So the order of an item's changes is that of their
//! sequence numbers. Kinesis Data Streams for DynamoDB does not promise that records of an item arrive in the order of
//! its changes (Developer Guide, "kds"); so whoever compares states also looks at the change that was created last.
//!
//! A backfilled insertion stands for one that was never captured. It comes before every captured change of its item, or,
//! where it says so, right behind the removal that ended the item's life before.

use std::collections::BTreeSet;

use recount_schemas::change::omit::Omitted;
use recount_schemas::{EventKey, EventName, Group, Month, SequenceNumber};
use serde::Deserialize;

use crate::table::item::{Binary, ItemHash};

/// Where a change stands among those of its item: bytes that sort so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order(Vec<u8>);

impl Order {
    /// A captured change.
    pub fn captured(sequence: &SequenceNumber) -> Self {
        let mut bytes = vec![1];
        bytes.extend(sequence.sortable().into_bytes());
        bytes.push(0);
        Self(bytes)
    }

    /// A backfilled insertion, behind that removal; before everything where there is none.
    pub fn backfilled(behind: Option<&SequenceNumber>) -> Self {
        let Some(sequence) = behind else { return Self(vec![0]) };
        let mut order = Self::captured(sequence);
        order.0.pop();
        order.0.push(1);
        order
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// From its bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The sequence number of a captured change.
    pub fn sequence(&self) -> Option<SequenceNumber> {
        let [1, _, _, _, digits @ .., 0] = self.0.as_slice() else { return None };
        std::str::from_utf8(digits).ok()?.parse().ok()
    }
}

/// What an item is after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not there.
    Absent,
    /// There, with this content.
    Image(ItemHash),
    /// There; its content was taken out of the archive, or the stream does not carry images.
    Unknown,
}

/// One archived change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place among the changes of its item.
    pub order: Order,
    /// What happened.
    pub name: EventName,
    /// Whether it was backfilled.
    pub backfilled: bool,
    /// When it was made, µs since 1970. Of a backfilled one, when its plan was made.
    pub created_us: i64,
    /// Its event key.
    pub key: EventKey,
    /// What the item is after it.
    pub state: State,
    /// The group of its row.
    pub group: Option<Group>,
    /// The month of its row.
    pub month: Month,
    /// The canonical text of the item's key.
    pub item: String,
}

impl Change {
    /// As a value for the sort; the order stands in the sort's key.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(96 + self.item.len());
        bytes.push(match self.name {
            EventName::Insert => 0,
            EventName::Modify => 1,
            EventName::Remove => 2,
        });
        bytes.push(u8::from(self.backfilled));
        bytes.extend(self.created_us.to_be_bytes());
        bytes.extend(self.key.as_bytes());
        let (kind, hash) = match self.state {
            State::Absent => (0, [0; 16]),
            State::Image(hash) => (1, hash.0),
            State::Unknown => (2, [0; 16]),
        };
        bytes.push(kind);
        bytes.extend(hash);
        bytes.extend(self.month.to_string().into_bytes());
        let group = self.group.as_ref().map_or("", Group::as_str);
        // A group has at most 1,900 bytes.
        bytes.extend(u16::try_from(group.len()).unwrap_or(0).to_be_bytes());
        bytes.extend(group.as_bytes());
        bytes.extend(self.item.as_bytes());
        bytes
    }

    /// Reads it back; `None` where the temporary file was damaged.
    pub fn from_bytes(order: Order, bytes: &[u8]) -> Option<Self> {
        let (name, rest) = bytes.split_first()?;
        let (backfilled, rest) = rest.split_first()?;
        let (created, rest) = rest.split_first_chunk::<8>()?;
        let (key, rest) = rest.split_first_chunk::<16>()?;
        let (kind, rest) = rest.split_first()?;
        let (hash, rest) = rest.split_first_chunk::<16>()?;
        let (month, rest) = rest.split_first_chunk::<7>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (group, item) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).ok();
        Some(Self {
            order,
            name: match name {
                0 => EventName::Insert,
                1 => EventName::Modify,
                _ => EventName::Remove,
            },
            backfilled: *backfilled == 1,
            created_us: i64::from_be_bytes(*created),
            key: EventKey::from_bytes(*key),
            state: match kind {
                0 => State::Absent,
                1 => State::Image(ItemHash(*hash)),
                _ => State::Unknown,
            },
            month: text(month)?.parse().ok()?,
            group: if group.is_empty() { None } else { Some(text(group)?.parse().ok()?) },
            item: text(item)?,
        })
    }
}

/// What an envelope says that a history needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// Whether its images have binary values in base64 twice.
    pub twice: bool,
    /// Of a backfilled row, the removal that it stands behind.
    pub behind: Option<SequenceNumber>,
    /// The attributes that its images were archived without.
    pub lacks: BTreeSet<String>,
}

impl Said {
    /// Reads an envelope. A `tableName` tells the form of Kinesis Data Streams for DynamoDB.
    pub fn read(envelope: &str) -> Self {
        #[derive(Deserialize)]
        struct Envelope {
            #[serde(rename = "tableName")]
            table: Option<serde::de::IgnoredAny>,
            recount: Option<Ours>,
        }
        #[derive(Deserialize)]
        struct Ours {
            behind: Option<SequenceNumber>,
        }
        let lacks = || Omitted::read(envelope).map(|omitted| omitted.attributes).unwrap_or_default();
        match serde_json::from_str::<Envelope>(envelope) {
            Ok(read) => {
                let behind = read.recount.and_then(|ours| ours.behind);
                Self { twice: read.table.is_some(), behind, lacks: lacks() }
            }
            Err(_) => Self::default(),
        }
    }

    /// How its images have binary values.
    pub fn binary(&self) -> Binary {
        if self.twice { Binary::Twice } else { Binary::Once }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sequence(text: &str) -> SequenceNumber {
        text.parse().unwrap()
    }

    #[test]
    fn backfilled_changes_come_first_or_right_behind_their_removal() {
        let (nine, ten) = (sequence("9"), sequence("10"));
        let orders = [
            Order::backfilled(None),
            Order::captured(&nine),
            Order::backfilled(Some(&nine)),
            Order::captured(&ten),
            Order::backfilled(Some(&ten)),
            Order::captured(&sequence("49654567890123456789012345678901234567890123456789012345")),
        ];
        assert!(orders.is_sorted_by(|a, b| a < b), "{orders:?}");
        assert_eq!(orders[3].sequence(), Some(ten));
        assert_eq!((orders[0].sequence(), orders[2].sequence()), (None, None));
    }

    #[test]
    fn an_envelope_says_its_form_and_what_a_backfilled_row_stands_behind() {
        assert_eq!(Said::read(r#"{"eventSourceARN":"arn:x"}"#), Said::default());
        assert!(Said::read(r#"{"tableName":"scans","recordFormat":"application/json"}"#).twice);
        let said = Said::read(r#"{"tableName":"scans","recount":{"origin":"backfill x","behind":"12"}}"#);
        assert_eq!((said.twice, said.behind), (true, Some(sequence("12"))));
        for odd in ["", "[]", r#"{"recount":7}"#, r#"{"recount":{"behind":"x"}}"#] {
            assert_eq!(Said::read(odd), Said::default(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn a_change_survives_its_bytes(
            name in 0usize..3, backfilled: bool, created_us: i64, key: [u8; 16], state in 0usize..3, hash: [u8; 16],
            group in "[a-zé]{0,5}", item in "\\PC{0,20}", number in 0u64..,
        ) {
            let change = Change {
                order: Order::captured(&sequence(&number.to_string())),
                name: [EventName::Insert, EventName::Modify, EventName::Remove][name],
                backfilled,
                created_us,
                key: EventKey::from_bytes(key),
                state: [State::Absent, State::Image(ItemHash(hash)), State::Unknown][state],
                group: group.parse().ok(),
                month: "2026-11".parse().unwrap(),
                item,
            };
            prop_assert_eq!(Change::from_bytes(change.order.clone(), &change.to_bytes()), Some(change));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Change::from_bytes(Order::from_bytes(&bytes), &bytes);
            let _ = Order::from_bytes(&bytes).sequence();
        }
    }
}
