//! What a month's location shows, and since when it shows nothing older. Pure.
//!
//! A version's directory may be deleted when the location has shown only newer versions for the grace. The time of the last move
//! does not say that: each move begins it anew, so a month that moves more often than once in the grace would keep all that it
//! ever removed, and what an erasure removed with it. So a location also says what it showed before, and since when.
//!
//! | the location showed | of version 3 it says |
//! | --- | --- |
//! | 3 since a, 5 since b, 9 since c | left at b |
//! | 5 since b, 9 since c | left at b, at the latest |
//! | 9 since c | left at c, at the latest |
//! | 3 since a | not left |
//!
//! What is forgotten makes the answer later, never earlier. So it is bounded by forgetting, such that a moment remains at every
//! age: see [`Shown::moved`].

/// Most earlier moves that a location remembers.
pub const MOST: usize = 10;

/// The oldest is forgotten where the next one is older, ms: longer than any grace in use. A longer one is only waited for
/// where a month is not moved meanwhile.
pub const HORIZON_MS: i64 = 30 * 86_400_000;

/// A move of a location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The version whose directory it then was.
    pub version: u64,
    /// When it was moved there, ms since 1970.
    pub at_ms: i64,
}

/// What a month's location shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The version whose directory it is.
    pub version: u64,
    /// When it was moved there, ms since 1970.
    pub moved_ms: i64,
    /// Earlier moves, oldest first: of ascending versions, each less than the present one, [`MOST`] at most.
    pub before: Vec<Move>,
}

impl Shown {
    /// A location that shows this version, and nothing is known of what it showed before.
    pub fn first(version: u64, moved_ms: i64) -> Self {
        Self { version, moved_ms, before: Vec::new() }
    }

    /// The location when it is moved to a newer version.
    ///
    /// Of more than [`MOST`] earlier moves one is forgotten: the oldest where the next one is older than [`HORIZON_MS`]; else
    /// the one whose neighbours are nearest to each other, by the ratio of their ages. So there are moves of every age, and what
    /// was removed waits for a small multiple of the grace at most, however often a month is moved.
    pub fn moved(self, version: u64, at_ms: i64) -> Self {
        let mut before = self.before;
        before.push(Move { version: self.version, at_ms: self.moved_ms });
        before.retain(|earlier| earlier.version < version);
        while before.len() > MOST {
            let forgotten = least(&before, at_ms);
            before.remove(forgotten);
        }
        Self { version, moved_ms: at_ms, before }
    }

    /// Since when the location shows only what is newer than this version, ms since 1970, at the latest; `None` where it does
    /// not.
    pub fn left(&self, version: u64) -> Option<i64> {
        let now = Move { version: self.version, at_ms: self.moved_ms };
        self.before.iter().chain([&now]).find(|shown| shown.version > version).map(|shown| shown.at_ms)
    }
}

/// The place of the move that is missed least.
fn least(moves: &[Move], now_ms: i64) -> usize {
    let age = |at_ms: i64| now_ms.saturating_sub(at_ms).max(1) as f64;
    let second_is_old = moves.get(1).is_some_and(|second| now_ms.saturating_sub(second.at_ms) > HORIZON_MS);
    if second_is_old {
        return 0;
    }
    let after = moves.iter().skip(2).map(|later| age(later.at_ms)).chain([1.0]);
    let ratios = moves.iter().zip(after).map(|(earlier, later)| age(earlier.at_ms) / later);
    ratios
        .enumerate()
        .min_by(|(_, a), (_, b)| a.total_cmp(b))
        .map_or(0, |(i, _)| i + 1)
        .min(moves.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;

    fn shown(moves: &[(u64, i64)]) -> Shown {
        let (first, rest) = moves.split_first().unwrap();
        rest.iter().fold(Shown::first(first.0, first.1), |shown, (version, at_ms)| shown.moved(*version, *at_ms))
    }

    #[test]
    fn a_version_is_left_when_a_newer_one_was_shown() {
        let all = [(3, 10), (5, 20), (9, 30)];
        for (moves, version, expected) in [
            (&all[..], 0, Some(10)),
            (&all[..], 3, Some(20)),
            (&all[..], 4, Some(20)),
            (&all[..], 5, Some(30)),
            (&all[..], 8, Some(30)),
            (&all[..], 9, None),
            (&all[..], 12, None),
            (&all[1..], 3, Some(20)),
            (&all[2..], 3, Some(30)),
            (&all[..1], 3, None),
        ] {
            assert_eq!(shown(moves).left(version), expected, "{moves:?} {version}");
        }
    }

    /// A location that is moved back, which only a race does, has not left what it shows again.
    #[test]
    fn what_is_shown_again_is_not_left() {
        let back = shown(&[(3, 10), (5, 20), (9, 30), (5, 40)]);
        assert_eq!((back.left(3), back.left(5), back.left(9)), (Some(40), None, None));
    }

    /// One move after the other, and a run that deletes what is due. The longest that anything waited.
    fn longest_wait(every_ms: i64, grace_ms: i64) -> i64 {
        let mut location = Shown::first(0, 0);
        let mut gone = 0;
        let mut longest = 0;
        for n in 1..=(120 * DAY / every_ms).min(20_000) {
            let now = n * every_ms;
            location = location.moved(n as u64, now);
            assert!(location.before.len() <= MOST, "bounded");
            // What version v removed: the directories below it.
            while location.left(gone).is_some_and(|left| left + grace_ms <= now) {
                // Version `gone` was left for the next one at this time.
                longest = longest.max(now - (gone as i64 + 1) * every_ms);
                gone += 1;
            }
            longest = longest.max(now - (gone as i64 + 1) * every_ms);
        }
        longest
    }

    #[test]
    fn a_month_that_is_moved_all_the_time_still_leaves_what_it_showed() {
        for (every, grace, most) in [
            (DAY, DAY, 2 * DAY),
            (DAY, 2 * DAY, 4 * DAY),
            (8 * HOUR, DAY, 3 * DAY),
            (HOUR, DAY, 4 * DAY),
            (HOUR / 6, DAY, 4 * DAY),
            (DAY, 7 * DAY, 21 * DAY),
        ] {
            let waited = longest_wait(every, grace);
            assert!(waited <= most, "every {every} ms, grace {grace} ms: {} h", waited / HOUR);
        }
    }

    proptest! {
        /// Deleting earlier than a location's whole past allows would take files from under a reader.
        #[test]
        fn what_is_forgotten_never_makes_it_earlier(gaps in prop::collection::vec((1_u64..4, 0_i64..100 * HOUR), 1..60)) {
            let mut all = vec![Move { version: 0, at_ms: 0 }];
            let mut location = Shown::first(0, 0);
            for (step, gap) in gaps {
                let last = all[all.len() - 1];
                let next = Move { version: last.version + step, at_ms: last.at_ms + gap };
                all.push(next);
                location = location.moved(next.version, next.at_ms);
                prop_assert!(location.before.len() <= MOST);
                prop_assert!(location.before.windows(2).all(|pair| pair[0].version < pair[1].version));
                for version in 0..=next.version + 1 {
                    let truth = all.iter().find(|shown| shown.version > version).map(|shown| shown.at_ms);
                    let said = location.left(version);
                    prop_assert_eq!(said.is_some(), truth.is_some());
                    prop_assert!(said >= truth);
                }
            }
        }
    }
}
