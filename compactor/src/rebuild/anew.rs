//! Records judged anew under another definition, and put into the order of the files that will hold them. Bounded memory.
//!
//! Each record goes through two external sorts. One, by event key, tells what stands twice: nothing says that two records with
//! different keys under the old definition have different keys under the new one, and an archive holds no key twice. The other
//! has the records themselves by (month, group, event key).
//!
//! Of records with one key the first by this order is a row; the others are duplicates where their content is its, else
//! conflicts:
//!
//! | rank | where it stood in the old archive |
//! | --- | --- |
//! | 0 | among the rows |
//! | 1 | in quarantine: the new definition can judge it |
//! | 2 | among the conflicts |

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use recount_schemas::{Definition, EventKey, QuarantineReason};

use crate::contributions::order;
use crate::contributions::spill::{Sorted, Sorter};
use crate::rows::ArchivedRow;
use crate::rows::row::Place;

/// Most records that are no rows, as their keys stand twice.
pub const MAX_DROPPED: usize = 4_000_000;

/// Where a record stood in the old archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Among the rows.
    Row,
    /// In quarantine.
    Quarantine,
    /// Among the conflicts.
    Conflict,
}

/// What identifies an event, where its record no longer does: personal data was erased from it.
pub type Identity = (EventKey, [u8; 16]);

/// Why a record whose key stands twice is no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Duplicate,
    Conflict,
}

/// Takes records in any order.
#[derive(Debug)]
pub struct Anew {
    definition: Arc<Definition>,
    by_key: Sorter,
    by_place: Sorter,
    taken: u64,
}

/// What a record became.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // nearly all are rows
pub enum Judged {
    /// A row of the new archive, and the size of its record in bytes.
    Row(ArchivedRow, usize),
    /// The key of a row, with another content: its key, its place and the record.
    Conflict(EventKey, Place, String),
}

impl Anew {
    /// Under this definition.
    pub fn new(definition: Arc<Definition>) -> Self {
        Self { definition, by_key: Sorter::new(), by_place: Sorter::new(), taken: 0 }
    }

    /// Takes one record. The reason comes back where the definition cannot judge it.
    pub fn take(
        &mut self,
        record: &str,
        place: &Place,
        rank: Rank,
        identity: Option<Identity>,
    ) -> io::Result<Result<(), QuarantineReason>> {
        let judged = match self.definition.judge(record.as_bytes(), place.arrived_us) {
            Ok(judged) => judged,
            Err(reason) => return Ok(Err(reason)),
        };
        let (key, content) = identity.unwrap_or_else(|| (judged.key, judged.change.content_hash().0));
        let ordinal = self.taken.to_be_bytes();
        self.taken += 1;
        let mut by_key = key.as_bytes().to_vec();
        by_key.push(rank as u8);
        by_key.extend(ordinal);
        self.by_key.push(by_key, content.to_vec())?;

        let mut by_place = judged.month.to_string().into_bytes();
        match &judged.group {
            None => by_place.push(0),
            Some(group) => {
                by_place.push(1);
                order::push_text(&mut by_place, group.as_str());
                by_place.extend([0, 0]);
            }
        }
        by_place.extend(key.as_bytes());
        by_place.extend(ordinal);
        self.by_place.push(by_place, Kept { key, content, place: place.clone(), record }.encode())?;
        Ok(Ok(()))
    }

    /// What all of them became, in the order (month, group, event key); and how many are duplicates.
    pub fn finish(self) -> io::Result<Judgements> {
        let (dropped, duplicates) = dropped(self.by_key.finish()?)?;
        Ok(Judgements { definition: self.definition, dropped, duplicates, sorted: self.by_place.finish()? })
    }
}

/// Which records are no rows, by their ordinals, and how many are duplicates.
fn dropped(sorted: Sorted) -> io::Result<(BTreeMap<u64, Fate>, u64)> {
    let (mut dropped, mut duplicates) = (BTreeMap::new(), 0);
    let mut first: Option<(Vec<u8>, Vec<u8>)> = None;
    for entry in sorted {
        let (mut key, content) = entry?;
        let rest = key.split_off(EventKey::LEN.min(key.len()));
        match &first {
            Some((same, kept)) if *same == key => {
                let ordinal = rest.get(1..).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
                let fate = if *kept == content { Fate::Duplicate } else { Fate::Conflict };
                duplicates += u64::from(fate == Fate::Duplicate);
                dropped.insert(ordinal.ok_or_else(damaged)?, fate);
                if dropped.len() > MAX_DROPPED {
                    let why =
                        format!("more than {MAX_DROPPED} records have keys that stand twice; is `identity` right?");
                    return Err(io::Error::other(why));
                }
            }
            _ => first = Some((key, content)),
        }
    }
    Ok((dropped, duplicates))
}

/// What all records became, in order.
#[derive(Debug)]
pub struct Judgements {
    definition: Arc<Definition>,
    dropped: BTreeMap<u64, Fate>,
    /// How many were duplicates.
    pub duplicates: u64,
    sorted: Sorted,
}

impl Iterator for Judgements {
    type Item = io::Result<Judged>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = self.sorted.next()?;
            match entry.and_then(|(key, value)| self.judged(&key, &value)) {
                Ok(None) => {}
                Ok(Some(judged)) => return Some(Ok(judged)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Judgements {
    fn judged(&self, key: &[u8], value: &[u8]) -> io::Result<Option<Judged>> {
        let ordinal = key.len().checked_sub(8).and_then(|at| key.get(at..)).and_then(|bytes| bytes.try_into().ok());
        let ordinal = u64::from_be_bytes(ordinal.ok_or_else(damaged)?);
        let Kept { key, content, place, record } = Kept::decode(value).ok_or_else(damaged)?;
        match self.dropped.get(&ordinal) {
            Some(Fate::Duplicate) => return Ok(None),
            Some(Fate::Conflict) => return Ok(Some(Judged::Conflict(key, place, record.to_owned()))),
            None => {}
        }
        // It was judged before, and judging depends on nothing else.
        let judged = self.definition.judge(record.as_bytes(), place.arrived_us).map_err(|_| damaged())?;
        let row = ArchivedRow::new(&self.definition, &judged, content, record, place);
        Ok(Some(Judged::Row(ArchivedRow { key, ..row }, record.len())))
    }
}

fn damaged() -> io::Error {
    io::Error::other("an entry of the temporary file is damaged")
}

/// A record in the temporary file.
struct Kept<'r> {
    key: EventKey,
    content: [u8; 16],
    place: Place,
    record: &'r str,
}

impl<'r> Kept<'r> {
    fn encode(&self) -> Vec<u8> {
        let (shard, sequence) = (self.place.shard.as_str(), self.place.sequence.as_str());
        let mut bytes = Vec::with_capacity(48 + shard.len() + sequence.len() + self.record.len());
        bytes.extend(self.key.as_bytes());
        bytes.extend(self.content);
        bytes.extend(self.place.arrived_us.to_be_bytes());
        for text in [shard, sequence] {
            // Both have at most 129 bytes.
            bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            bytes.extend(text.bytes());
        }
        bytes.extend(self.record.bytes());
        bytes
    }

    fn decode(bytes: &'r [u8]) -> Option<Self> {
        fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
            let (length, rest) = bytes.split_first()?;
            let (text, rest) = rest.split_at_checked(usize::from(*length))?;
            Some((std::str::from_utf8(text).ok()?, rest))
        }
        let (key, rest) = bytes.split_at_checked(EventKey::LEN)?;
        let (content, rest) = rest.split_at_checked(16)?;
        let (arrived, rest) = rest.split_at_checked(8)?;
        let (shard, rest) = text(rest)?;
        let (sequence, record) = text(rest)?;
        let place = Place {
            shard: shard.parse().ok()?,
            sequence: sequence.parse().ok()?,
            arrived_us: i64::from_be_bytes(arrived.try_into().ok()?),
        };
        let (key, content) = (EventKey::from_slice(key)?, content.try_into().ok()?);
        Some(Self { key, content, place, record: std::str::from_utf8(record).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::{NOVEMBER, definition, definition_of, record};

    fn place(n: u64) -> Place {
        let (shard, sequence) = ("shardId-0".parse().unwrap(), n.to_string().parse().unwrap());
        Place { shard, sequence, arrived_us: NOVEMBER + 1_000_000 }
    }

    fn all(judgements: Judgements) -> (Vec<String>, u64) {
        let duplicates = judgements.duplicates;
        let said = judgements.map(|judged| match judged.unwrap() {
            Judged::Row(row, _) => {
                let group = row.group.as_ref().map_or("-", |group| group.as_str());
                format!("{} {group} {} at {}", row.month, row.event_id, row.place.sequence)
            }
            Judged::Conflict(_, place, _) => format!("conflict at {}", place.sequence),
        });
        (said.collect(), duplicates)
    }

    #[test]
    fn records_come_out_judged_anew_in_the_order_of_the_files() {
        let mut anew = Anew::new(Arc::new(definition()));
        let mut take = |text: &str, n, rank| anew.take(text, &place(n), rank, None).unwrap();
        let other = |text: &str| text.replace("\"tableName\":\"scans\"", "\"tableName\":\"other\"");
        take(&record("f", Some("b"), NOVEMBER + 5, "1"), 1, Rank::Row).unwrap();
        take(&record("e", Some("b"), NOVEMBER, "1"), 2, Rank::Row).unwrap();
        take(&record("g", Some("a"), NOVEMBER, "1"), 3, Rank::Row).unwrap();
        take(&record("h", Some("a"), NOVEMBER - 1_000_000, "1"), 4, Rank::Row).unwrap();
        take(&other(&record("i", None, NOVEMBER, "1")), 5, Rank::Row).unwrap();
        // One that was in quarantine and is a row's by now; another variant of a row; one that nobody can judge.
        take(&record("e", Some("b"), NOVEMBER, "1"), 6, Rank::Quarantine).unwrap();
        take(&record("g", Some("a"), NOVEMBER, "2"), 7, Rank::Conflict).unwrap();
        assert!(take(&record("k", None, NOVEMBER, "1"), 8, Rank::Row).is_err());
        let (rows, duplicates) = all(anew.finish().unwrap());
        assert_eq!(duplicates, 1);
        assert_eq!(
            rows,
            [
                "2026-10 a h at 4",
                "2026-11 - i at 5",
                "2026-11 a g at 3",
                "conflict at 7",
                "2026-11 b e at 2",
                "2026-11 b f at 1"
            ]
        );
    }

    #[test]
    fn a_row_keeps_the_key_that_it_is_given() {
        let mut anew = Anew::new(Arc::new(definition_of("scan_id")));
        let identity = (EventKey::least_at(7), [9; 16]);
        anew.take(&record("e", None, NOVEMBER, "1"), &place(1), Rank::Row, Some(identity)).unwrap().unwrap();
        match anew.finish().unwrap().next().unwrap().unwrap() {
            Judged::Row(row, bytes) => assert_eq!((row.key, row.content, bytes > 100), (identity.0, identity.1, true)),
            other => panic!("{other:?}"),
        }
    }
}
