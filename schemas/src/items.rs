//! The shapes of what stands in the totals, ledger and progress tables.
//!
//! **Totals**: one item per cell. Any client can read `events` and the sums.
//!
//! | attribute | type | what |
//! | --- | --- | --- |
//! | `pk` | S | the group |
//! | `sk` | S | `2026-11#0`: month, lane |
//! | `v` | N | format of the item |
//! | `events` | N | events counted |
//! | `sum_<attribute>` | N | one per measure |
//! | `recent` | BS | the keys counted since the last sealing (absent when empty: DynamoDB has no empty sets) |
//! | `sealed` | B | the greatest key that ever left `recent` |
//! | `epoch` | N | how often the cell was sealed; absent = 0 |
//! | `repair` | S | the last repair plan applied |
//!
//! The item `recount#definition` / `definition` holds the hash of the definition that made the totals.
//!
//! **Ledger**: `pk` (S) the cell, `sk` (B). A page: `sk` = greatest key ‖ epoch ‖ digest of its keys, so that its name is
//! unique to its content; `keys` (B) the packed keys; `v`; `expires` (N), epoch seconds, for DynamoDB's time to live. A late
//! record on the too-old list: `pk` = `too-old#` and the cell, `sk` = its key; it does not expire.
//!
//! **Progress**: `pk` (S) stream name, `@`, stream creation time in ms; `sk` (S) the shard; `sequence` (S) the greatest number at or below
//! which every record that was delivered has its final verdict (a record that the event source mapping gave up was not: it is
//! then found to be missing); `rank` (S) the same as a text that sorts.

use crate::bugs::{self, Bug};
use crate::event_key::EventKey;
use crate::fold::{Cell, Group};
use crate::period::Month;

/// The format of cells and pages that this code writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// Partition key of every table.
pub const PK: &str = "pk";
/// Sort key of every table.
pub const SK: &str = "sk";
/// Format of the item.
pub const VERSION: &str = "v";
/// Events counted.
pub const EVENTS: &str = "events";
/// Keys counted since the last sealing.
pub const RECENT: &str = "recent";
/// Greatest key that ever left `recent`.
pub const SEALED: &str = "sealed";
/// How often the cell was sealed.
pub const EPOCH: &str = "epoch";
/// Last repair plan applied.
pub const REPAIR: &str = "repair";
/// Packed keys of a page.
pub const KEYS: &str = "keys";
/// When an item may expire, epoch seconds.
pub const EXPIRES: &str = "expires";
/// Progress: the sequence number.
pub const SEQUENCE: &str = "sequence";
/// Progress: the sequence number as a text that sorts.
pub const RANK: &str = "rank";
/// Hash of the definition.
pub const HASH: &str = "hash";

/// `pk` of the item that holds the definition's hash.
pub const DEFINITION_PK: &str = "recount#definition";
/// `sk` of the item that holds the definition's hash. No month, so no cell.
pub const DEFINITION_SK: &str = "definition";

/// `sk` of a cell.
pub fn cell_sk(month: Month, lane: u16) -> String {
    format!("{month}#{lane}")
}

/// The cell that a totals item's keys name; `None` for an item that is no cell.
pub fn cell_of(pk: &str, sk: &str) -> Option<Cell> {
    let (month, lane) = sk.split_once('#')?;
    let plain = !lane.is_empty() && lane.bytes().all(|b| b.is_ascii_digit()) && (lane == "0" || !lane.starts_with('0'));
    let group: Group = pk.parse().ok()?;
    plain.then_some(())?;
    Some(Cell { group, month: month.parse().ok()?, lane: lane.parse().ok()? })
}

/// `pk` of a cell's pages. The group comes last, so no two cells share one.
pub fn ledger_pk(cell: &Cell) -> String {
    format!("{}#{}#{}", cell.month, cell.lane, cell.group)
}

/// `pk` of a cell's too-old list.
pub fn too_old_pk(cell: &Cell) -> String {
    format!("too-old#{}", ledger_pk(cell))
}

/// `pk` of a stream's progress. The creation time tells a re-created stream, which repeats shard ids, from the old one.
pub fn progress_pk(stream: &str, created_ms: i64) -> String {
    format!("{stream}@{created_ms}")
}

/// The name of a page within its cell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageName {
    /// The greatest key on the page.
    pub greatest: EventKey,
    /// The epoch at which it was put: it belongs to the ledger from the next epoch on.
    pub epoch: u64,
    /// Digest of its keys.
    pub digest: [u8; 16],
}

impl PageName {
    /// The number of bytes of a page's `sk`.
    pub const LEN: usize = 40;

    /// The name of a page with these keys (sorted, at least one), put at `epoch`.
    pub fn new(keys: &[EventKey], epoch: u64) -> Option<Self> {
        let greatest = *keys.iter().max()?;
        let mut digest = [0; 16];
        let named = if bugs::on(Bug::PageNamesCollide) { &[][..] } else { keys };
        for (to, from) in digest.iter_mut().zip(blake3::hash(&pack(named)).as_bytes()) {
            *to = *from;
        }
        Some(Self { greatest, epoch, digest })
    }

    /// As `sk`. Sorts by the greatest key first: a page that can hold a key `k` has an `sk` at or above `k`'s bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.extend_from_slice(self.greatest.as_bytes());
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.digest);
        bytes
    }

    /// From `sk`; `None` unless it has the shape of a name.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (greatest, rest) = bytes.split_at_checked(EventKey::LEN)?;
        let (epoch, digest) = rest.split_at_checked(8)?;
        Some(Self {
            greatest: EventKey::from_slice(greatest)?,
            epoch: u64::from_be_bytes(epoch.try_into().ok()?),
            digest: digest.try_into().ok()?,
        })
    }
}

/// Keys one after the other, as a page holds them.
pub fn pack(keys: &[EventKey]) -> Vec<u8> {
    keys.iter().flat_map(|key| *key.as_bytes()).collect()
}

/// The keys of a page; `None` unless the length is a multiple of a key's.
pub fn unpack(bytes: &[u8]) -> Option<Vec<EventKey>> {
    let chunks = bytes.chunks_exact(EventKey::LEN);
    if !chunks.remainder().is_empty() {
        return None;
    }
    chunks.map(EventKey::from_slice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(ms: i64) -> EventKey {
        EventKey::new(ms, &ms.to_be_bytes()).unwrap()
    }

    #[test]
    fn a_cells_keys_name_it() {
        let cell = Cell { group: "a#b\"é".parse().unwrap(), month: "2026-11".parse().unwrap(), lane: 12 };
        assert_eq!(cell_of(cell.group.as_str(), &cell_sk(cell.month, cell.lane)), Some(cell.clone()));
        assert_eq!(ledger_pk(&cell), "2026-11#12#a#b\"é");
        assert_eq!(too_old_pk(&cell), "too-old#2026-11#12#a#b\"é");
        assert_eq!(progress_pk("changes", 17), "changes@17");
        for sk in ["definition", "2026-11", "2026-11#", "2026-11#01", "2026-11#+1", "2026-11#x", "2026-11#70000"] {
            assert_eq!(cell_of("acme", sk), None, "{sk}");
        }
    }

    #[test]
    fn a_page_sorts_at_or_above_every_key_that_it_holds() {
        let keys = [key(5), key(9), key(7)];
        let name = PageName::new(&keys, 3).unwrap();
        let bytes = name.to_bytes();
        assert_eq!(bytes.len(), PageName::LEN);
        assert!(keys.iter().all(|key| bytes.as_slice() >= key.as_bytes().as_slice()));
        assert_eq!(PageName::from_bytes(&bytes), Some(name));
        assert_eq!(PageName::from_bytes(&bytes[1..]), None);
        assert_ne!(PageName::new(&keys[..2], 3).unwrap().to_bytes(), bytes);
        assert_eq!(PageName::new(&[], 3), None);
    }

    #[test]
    fn packed_keys() {
        let keys = [key(1), key(2)];
        assert_eq!(unpack(&pack(&keys)), Some(keys.to_vec()));
        assert_eq!(unpack(&pack(&keys)[1..]), None);
    }
}
