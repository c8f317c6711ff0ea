//! Table and archive side by side, item by item: a merge of what an external sort has of both, by the hash of the item's key.
//!
//! Of an item the table's side comes first, then its changes in their order. Memory: what the visitor keeps of one item.

use std::io;

use super::change::{Change, Order};
use crate::contributions::spill::{Sorted, Sorter};
use crate::table::item::{ItemHash, hash};

/// An item as it was read of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The part of the spool that has it.
    pub part: u16,
    /// Where in it.
    pub offset: u64,
    /// When it was read, µs since 1970.
    pub read_us: i64,
    /// The hash of its content.
    pub image: ItemHash,
    /// The canonical text of its key.
    pub item: String,
}

const TABLE: u8 = 0;
const ARCHIVE: u8 = 1;

/// Puts an item of the table into the sort.
pub fn push_seen(sorter: &mut Sorter, seen: &Seen) -> io::Result<()> {
    let mut key = hash(seen.item.as_bytes()).0.to_vec();
    key.push(TABLE);
    let mut value = Vec::with_capacity(40 + seen.item.len());
    value.extend(seen.part.to_be_bytes());
    value.extend(seen.offset.to_be_bytes());
    value.extend(seen.read_us.to_be_bytes());
    value.extend(seen.image.0);
    value.extend(seen.item.as_bytes());
    sorter.push(key, value)
}

/// Puts an archived change into the sort.
pub fn push_change(sorter: &mut Sorter, change: &Change) -> io::Result<()> {
    let mut key = hash(change.item.as_bytes()).0.to_vec();
    key.push(ARCHIVE);
    key.extend(change.order.as_bytes());
    sorter.push(key, change.to_bytes())
}

fn seen_of(bytes: &[u8]) -> Option<Seen> {
    let (part, rest) = bytes.split_first_chunk::<2>()?;
    let (offset, rest) = rest.split_first_chunk::<8>()?;
    let (read_us, rest) = rest.split_first_chunk::<8>()?;
    let (image, item) = rest.split_first_chunk::<16>()?;
    Some(Seen {
        part: u16::from_be_bytes(*part),
        offset: u64::from_be_bytes(*offset),
        read_us: i64::from_be_bytes(*read_us),
        image: ItemHash(*image),
        item: std::str::from_utf8(item).ok()?.to_owned(),
    })
}

/// One side of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// The table has it.
    Table(Seen),
    /// The archive has a change of it.
    Change(Change),
}

/// The sides of all items, those of one item in a row.
#[derive(Debug)]
pub struct Walk {
    sorted: Sorted,
}

impl Walk {
    /// Over what was pushed.
    pub fn new(sorted: Sorted) -> Self {
        Self { sorted }
    }
}

impl Iterator for Walk {
    /// The hash of the item's key, and a side.
    type Item = io::Result<(ItemHash, Side)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = match self.sorted.next()? {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error)),
        };
        let damaged = || io::Error::other("an entry of the temporary file is damaged");
        let read = |(key, value): (Vec<u8>, Vec<u8>)| {
            let (item, rest) = key.split_first_chunk::<16>()?;
            let side = match rest.split_first()? {
                (&TABLE, _) => Side::Table(seen_of(&value)?),
                (_, order) => Side::Change(Change::from_bytes(Order::from_bytes(order), &value)?),
            };
            Some((ItemHash(*item), side))
        };
        Some(read(entry).ok_or_else(damaged))
    }
}
