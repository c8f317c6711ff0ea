//! The objects under `quarantine/` that have no mark yet.
//!
//! Objects and marks have the same names behind their prefixes, so both listings come in the same order and are held against each other
//! as they come: memory is a page of each, however much is in quarantine.

use recount_schemas::quarantine::{self, REDRIVEN_PREFIX};
use recount_schemas::{SequenceNumber, ShardId};

use crate::bucket::{BucketError, Listed, Listing, Objects};

/// An object under `quarantine/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub object: String,
    /// The shard in it.
    pub shard: ShardId,
    /// The sequence number in it.
    pub sequence: SequenceNumber,
    /// Whether a redrive has put it through.
    pub done: bool,
}

/// Quarantined records, in the order of their names.
#[derive(Debug)]
pub struct Quarantine<'a, O> {
    objects: Names<'a, O>,
    marks: Names<'a, O>,
    mark: Option<String>,
    /// Objects whose names are no position: put there by somebody else.
    pub foreign: u64,
}

/// The names below a prefix, one by one, without it.
#[derive(Debug)]
struct Names<'a, O> {
    listing: Listing<'a, O>,
    prefix: &'static str,
    page: std::vec::IntoIter<Listed>,
}

impl<O: Objects> Names<'_, O> {
    async fn next(&mut self) -> Result<Option<String>, BucketError> {
        loop {
            if let Some(listed) = self.page.next() {
                let name = listed.key.strip_prefix(self.prefix).map(str::to_owned);
                match name {
                    Some(name) => return Ok(Some(name)),
                    None => continue,
                }
            }
            match self.listing.next_page().await? {
                Some(page) => self.page = page.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

impl<'a, O: Objects> Quarantine<'a, O> {
    /// All of them, or those below `prefixes`: `quarantine/…` and `redriven/…` of one shard.
    pub fn new(objects: &'a O, prefixes: &'a (String, String)) -> Self {
        let names = |listing, prefix| Names { listing, prefix, page: Vec::new().into_iter() };
        Self {
            objects: names(Listing::new(objects, &prefixes.0), quarantine::PREFIX),
            marks: names(Listing::new(objects, &prefixes.1), REDRIVEN_PREFIX),
            mark: None,
            foreign: 0,
        }
    }

    /// The prefixes of one shard, or of all.
    pub fn prefixes(shard: Option<&ShardId>) -> (String, String) {
        let below = |prefix: &str| shard.map_or_else(|| prefix.to_owned(), |shard| format!("{prefix}{shard}/"));
        (below(quarantine::PREFIX), below(REDRIVEN_PREFIX))
    }

    /// The next one.
    pub async fn next(&mut self) -> Result<Option<Kept>, BucketError> {
        while let Some(name) = self.objects.next().await? {
            let object = format!("{}{name}", quarantine::PREFIX);
            let Some((shard, sequence)) = quarantine::position_of(&object) else {
                self.foreign += 1;
                continue;
            };
            while self.mark.as_ref().is_none_or(|mark| *mark < name) {
                match self.marks.next().await? {
                    Some(mark) => self.mark = Some(mark),
                    None => break,
                }
            }
            let done = self.mark.as_ref() == Some(&name);
            return Ok(Some(Kept { object, shard, sequence, done }));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::bucket::memory::Memory;

    proptest! {
        #[test]
        fn a_record_is_done_where_it_has_its_mark(
            kept in prop::collection::btree_set((0u8..4, 0u16..200), 0..30),
            marked in prop::collection::btree_set((0u8..4, 0u16..200), 0..30),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let objects = Memory::new();
                for (prefix, all) in [(quarantine::PREFIX, &kept), (REDRIVEN_PREFIX, &marked)] {
                    for (shard, n) in all {
                        objects.put(&format!("{prefix}s{shard}/{n}"), Bytes::new()).await.unwrap();
                    }
                }
                objects.put("quarantine/README", Bytes::new()).await.unwrap();
                for only in [None, Some(2u8)] {
                    let shard = only.map(|n| format!("s{n}").parse().unwrap());
                    let prefixes = Quarantine::<Memory>::prefixes(shard.as_ref());
                    let mut quarantine = Quarantine::new(&objects, &prefixes);
                    let mut seen = BTreeSet::new();
                    while let Some(kept) = quarantine.next().await.unwrap() {
                        let at = (kept.shard.as_str()[1..].parse().unwrap(), kept.sequence.as_str().parse().unwrap());
                        assert_eq!(kept.done, marked.contains(&at), "{kept:?}");
                        assert!(seen.insert(at));
                    }
                    let wanted = kept.iter().filter(|(shard, _)| only.is_none_or(|only| only == *shard));
                    assert_eq!(seen, wanted.copied().collect());
                    assert_eq!(quarantine.foreign, u64::from(only.is_none()));
                }
            });
        }
    }
}
