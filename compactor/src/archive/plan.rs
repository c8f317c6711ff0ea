//! Which shards can be read now. Pure.
//!
//! | the shard | its parents | can be read |
//! | --- | --- | --- |
//! | closed in the log | – | no: it has been read to its end |
//! | read already for this commit, or to its tip in this run | – | no |
//! | else | each is closed in the log, or was never read and is not listed | yes |
//! | else | one is listed or known, and not closed in the log | no: the parent comes first |
//!
//! A shard that the log knows, that is not closed there and is not listed any more, has *vanished*: it was closed and all
//! its records have expired. Unless the shard turns out to exist after all, its end is lost, and its children can be read.
//! So has one that the log never knew and that only a child, itself new to the log, still names as its parent: all of it is lost.

use std::collections::{BTreeMap, BTreeSet};

use recount_schemas::ShardId;
use recount_schemas::bugs::{self, Bug};

use super::source::ListedShard;
use crate::log::ShardEnd;

/// The shards that can be read now, in the order given.
pub fn ready<'a>(
    listed: &'a [ListedShard],
    ends: &BTreeMap<ShardId, ShardEnd>,
    done: &BTreeSet<ShardId>,
) -> Vec<&'a ListedShard> {
    let names: BTreeSet<&ShardId> = listed.iter().map(|shard| &shard.id).collect();
    let closed = |shard: &ShardId| ends.get(shard).is_some_and(|end| end.closed);
    let over = |parent: &ShardId| {
        closed(parent)
            || (!ends.contains_key(parent) && !names.contains(parent))
            || bugs::on(Bug::ChildrenBeforeParents)
    };
    listed.iter().filter(|s| !closed(&s.id) && !done.contains(&s.id) && s.parents.iter().all(over)).collect()
}

/// The shards that are not listed, and that the log knows as open, or not at all though a shard new to it names them as
/// its parents.
pub fn vanished(listed: &[ListedShard], ends: &BTreeMap<ShardId, ShardEnd>) -> BTreeSet<ShardId> {
    let names: BTreeSet<&ShardId> = listed.iter().map(|shard| &shard.id).collect();
    let open = ends.iter().filter(|(_, end)| !end.closed).map(|(id, _)| id);
    let new = listed.iter().filter(|shard| !ends.contains_key(&shard.id));
    let unread = new.flat_map(|shard| &shard.parents).filter(|parent| !ends.contains_key(parent));
    open.chain(unread).filter(|id| !names.contains(id)).cloned().collect()
}

/// The most bytes that one of `shards` shards may give to a commit of `commit_bytes`, so that none starves the others.
pub fn share(commit_bytes: u64, shards: usize) -> u64 {
    commit_bytes / (shards.max(1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: usize) -> ShardId {
        format!("s{n}").parse().unwrap()
    }

    fn listed(n: usize, parents: &[usize]) -> ListedShard {
        ListedShard { id: id(n), parents: parents.iter().map(|p| id(*p)).collect(), closed: false }
    }

    fn end(closed: bool) -> ShardEnd {
        ShardEnd { closed, ..ShardEnd::default() }
    }

    #[test]
    fn parents_come_first() {
        let shards = [listed(2, &[0, 1]), listed(0, &[]), listed(1, &[])];
        let names = |ends: &BTreeMap<_, _>| -> Vec<String> {
            ready(&shards, ends, &BTreeSet::new()).iter().map(|s| s.id.to_string()).collect()
        };
        let mut ends = BTreeMap::new();
        assert_eq!(names(&ends), ["s0", "s1"]);
        ends.insert(id(0), end(true));
        assert_eq!(names(&ends), ["s1"]);
        ends.insert(id(1), end(true));
        assert_eq!(names(&ends), ["s2"]);
    }

    #[test]
    fn a_parent_that_expired_unread_holds_nobody_back_but_a_known_one_does() {
        let shards = [listed(2, &[0])];
        let mut ends = BTreeMap::new();
        assert_eq!(ready(&shards, &ends, &BTreeSet::new()).len(), 1);
        ends.insert(id(0), end(false));
        assert_eq!(ready(&shards, &ends, &BTreeSet::new()).len(), 0);
        assert_eq!(vanished(&shards, &ends), [id(0)].into());
    }

    #[test]
    fn what_is_gone_is_known_from_the_log_or_from_a_child_that_is_new() {
        let shards = [listed(2, &[0, 1])];
        let mut ends = BTreeMap::from([(id(0), end(true)), (id(5), end(false))]);
        assert_eq!(vanished(&shards, &ends), [id(1), id(5)].into());
        // A child that was read already says nothing new of its parents.
        ends.insert(id(2), end(false));
        assert_eq!(vanished(&shards, &ends), [id(5)].into());
    }

    #[test]
    fn only_what_is_open_and_not_listed_has_vanished() {
        let shards = [listed(0, &[]), listed(1, &[])];
        let ends = [(0, false), (1, true), (2, false), (3, true)].map(|(n, closed)| (id(n), end(closed)));
        assert_eq!(vanished(&shards, &ends.into()), [id(2)].into());
    }

    #[test]
    fn shards_share_a_commit() {
        assert_eq!([0, 1, 3, 100].map(|shards| share(100, shards)), [100, 100, 33, 1]);
    }

    proptest! {
        /// Reading whatever is ready and closing it reads every shard once, each after its parents.
        #[test]
        fn every_shard_is_read_once_after_its_parents(parents in prop::collection::vec((any::<prop::sample::Index>(), 0usize..3), 1..20)) {
            let shards: Vec<ListedShard> = parents
                .iter()
                .enumerate()
                .map(|(n, (index, count))| listed(n, &(0..*count.min(&n)).map(|i| (index.index(n) + i) % n).collect::<Vec<_>>()))
                .collect();
            let mut ends: BTreeMap<ShardId, ShardEnd> = BTreeMap::new();
            while let Some(shard) = ready(&shards, &ends, &BTreeSet::new()).first() {
                for parent in &shard.parents {
                    prop_assert!(ends[parent].closed);
                }
                prop_assert!(ends.insert(shard.id.clone(), end(true)).is_none());
            }
            prop_assert_eq!(ends.len(), shards.len());
        }
    }
}
