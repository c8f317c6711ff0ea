//! Whether retention may have passed over records that nobody had read. Pure.
//!
//! Sequence numbers are not dense, so they cannot show a hole. Two things can show that there is none:
//!
//! | the record `from` can still be read | caught up within the retention | the range is |
//! | --- | --- | --- |
//! | yes | any | whole: records go in order, and what came after `from` goes after it |
//! | no, or there is no `from` | yes | whole: all that came since is younger than the retention |
//! | no, or there is no `from` | no, or not known | perhaps not: the entry says `lost` |
//!
//! *Caught up* is a time at or before which everything in the shard has been read. For a shard that was never read:
//!
//! | shard | caught up |
//! | --- | --- |
//! | without parents | when the stream was created |
//! | with parents that are in the log | the earliest of theirs: it began after each of them ended |
//! | with a parent that nobody ever read | not known, unless the stream itself is younger than the retention |
//!
//! A closed parent's time must therefore lie *before* its end, for its children have records from then on. So closing a
//! shard does not move its time to now: it stays where it was, or moves to the arrival of the shard's last record.

use recount_schemas::ShardId;
use recount_schemas::bugs::{self, Bug};

use super::source::ListedShard;
use crate::log::ShardEnd;

/// Arrival times and clocks are not exact: a time counts as within the retention only with this much to spare, in ms.
const MARGIN_MS: i64 = 10 * 60 * 1_000;

/// Whether nothing written since `caught_up_ms` can have been trimmed by `now_ms`.
pub fn within_retention(caught_up_ms: Option<i64>, retention_ms: i64, now_ms: i64) -> bool {
    caught_up_ms.is_some_and(|at| now_ms.saturating_sub(at) < retention_ms.saturating_sub(MARGIN_MS))
}

/// Whether a range that begins behind `from` is whole; see the table above.
pub fn is_whole(from_is_there: bool, caught_up_ms: Option<i64>, retention_ms: i64, now_ms: i64) -> bool {
    from_is_there || within_retention(caught_up_ms, retention_ms, now_ms) || bugs::on(Bug::LostRangeIsWhole)
}

/// When a shard was last known to be read to its tip; see the table above.
pub fn caught_up<'e>(
    shard: &ListedShard,
    stream_created_ms: i64,
    end: impl Fn(&ShardId) -> Option<&'e ShardEnd>,
) -> Option<i64> {
    let known = match end(&shard.id) {
        Some(end) => end.caught_up_ms,
        None => of_parents(shard, end),
    };
    // Nothing is older than the stream; for one that is young, that alone shows that nothing was trimmed.
    known.max(Some(stream_created_ms))
}

/// Since when a shard that was never read may hold records: the earliest time of its parents; `None` without parents, or where nobody
/// ever read one.
pub fn of_parents<'e>(shard: &ListedShard, end: impl Fn(&ShardId) -> Option<&'e ShardEnd>) -> Option<i64> {
    let times: Option<Vec<i64>> = shard.parents.iter().map(|p| end(p).and_then(|e| e.caught_up_ms)).collect();
    times.and_then(|times| times.into_iter().min())
}

/// The time to note for a shard after reading it.
///
/// | read to | time |
/// | --- | --- |
/// | its tip | when the page was asked for that said so |
/// | the end of a closed shard | as before, or the arrival of its last record |
/// | anywhere else | as before |
pub fn after_reading(
    before: Option<i64>,
    tip_ms: Option<i64>,
    closed: bool,
    last_arrival_ms: Option<i64>,
) -> Option<i64> {
    match (closed, tip_ms) {
        (true, _) => before.max(last_arrival_ms),
        (false, Some(tip)) => before.max(Some(tip)),
        (false, None) => before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;

    #[test]
    fn the_table_of_wholeness() {
        for (from_is_there, caught_up, whole) in [
            (true, None, true),
            (true, Some(0), true),
            (false, Some(9 * DAY), true),
            (false, Some(10 * DAY - 23 * HOUR), true),
            (false, Some(9 * DAY - 1), false),
            (false, Some(9 * DAY + MARGIN_MS), false),
            (false, Some(9 * DAY + MARGIN_MS + 1), true),
            (false, Some(0), false),
            (false, None, false),
        ] {
            let now = if caught_up == Some(9 * DAY) { 10 * DAY - HOUR } else { 10 * DAY };
            assert_eq!(is_whole(from_is_there, caught_up, DAY, now), whole, "{from_is_there} {caught_up:?}");
        }
    }

    #[test]
    fn a_child_begins_where_the_slower_parent_stood() {
        let id = |text: &str| text.parse::<ShardId>().unwrap();
        let end = |at| ShardEnd { to: None, closed: true, caught_up_ms: at };
        let ends = BTreeMap::from([(id("a"), end(Some(5))), (id("b"), end(Some(3))), (id("c"), end(None))]);
        let of = |shard: &str, parents: &[&str], created| {
            let parents = parents.iter().map(|p| id(p)).collect();
            caught_up(&ListedShard { id: id(shard), parents, closed: false }, created, |s| ends.get(s))
        };
        assert_eq!(of("a", &[], 1), Some(5));
        assert_eq!(of("x", &["a", "b"], 1), Some(3));
        assert_eq!(of("x", &["a", "c"], 1), Some(1));
        assert_eq!(of("x", &["gone"], 1), Some(1));
        assert_eq!(of("x", &[], 1), Some(1));
    }

    #[test]
    fn closing_a_shard_does_not_make_its_children_look_read() {
        assert_eq!(after_reading(Some(1), Some(9), false, Some(4)), Some(9));
        assert_eq!(after_reading(Some(1), Some(9), true, Some(4)), Some(4));
        assert_eq!(after_reading(Some(1), None, true, None), Some(1));
        assert_eq!(after_reading(Some(1), None, false, Some(4)), Some(1));
    }
}
