//! Sets of stream positions, as the ranges that make them up. Pure.
//!
//! Ranges that touch are joined, so a set of a thousand commits is one range per shard. Shards of several lives of a stream may have
//! one name; their sequence numbers begin with the time, so their ranges lie apart.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::Span;

/// Compares sequence numbers as texts of decimal digits without leading zeros: the longer one is the greater.
pub fn compare(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Whether a sequence number is above another one, or above none at all.
pub fn is_above(sequence: &str, other: Option<&str>) -> bool {
    other.is_none_or(|other| compare(sequence, other).is_gt())
}

/// One range `(from, to]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    from: Option<Box<str>>,
    to: Box<str>,
}

/// A set of positions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Positions(HashMap<Box<str>, Vec<Range>>);

impl Positions {
    /// The positions in these ranges.
    pub fn of<'a>(spans: impl IntoIterator<Item = &'a Span>) -> Self {
        let mut shards: HashMap<Box<str>, Vec<Range>> = HashMap::new();
        for span in spans {
            let from = span.from.as_ref().map(|from| from.as_str().into());
            let range = Range { from, to: span.to.as_str().into() };
            match shards.get_mut(span.shard.as_str()) {
                Some(ranges) => ranges.push(range),
                None => drop(shards.insert(span.shard.as_str().into(), vec![range])),
            }
        }
        for ranges in shards.values_mut() {
            ranges.sort_by(|a, b| compare(&a.to, &b.to));
            ranges.dedup_by(|next, before| {
                let touches = next.from.as_deref() == Some(&before.to);
                if touches {
                    before.to = std::mem::take(&mut next.to);
                }
                touches
            });
        }
        Self(shards)
    }

    /// Whether it has a position. A text that is no sequence number is in no set.
    pub fn has(&self, shard: &str, sequence: &str) -> bool {
        self.shard(shard).is_some_and(|shard| shard.has(sequence))
    }

    /// The ranges of a shard, to ask about many of its positions.
    pub fn shard(&self, shard: &str) -> Option<Shard<'_>> {
        self.0.get(shard).map(|ranges| Shard(ranges))
    }
}

/// The ranges of one shard, in their order.
#[derive(Debug, Clone, Copy)]
pub struct Shard<'a>(&'a [Range]);

impl Shard<'_> {
    /// Whether it has a sequence number.
    pub fn has(&self, sequence: &str) -> bool {
        let is_number = !sequence.is_empty()
            && sequence.bytes().all(|byte| byte.is_ascii_digit())
            && (sequence.len() == 1 || !sequence.starts_with('0'));
        let at = self.0.partition_point(|range| compare(&range.to, sequence).is_lt());
        is_number && self.0.get(at).is_some_and(|range| is_above(sequence, range.from.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(shard: &str, from: Option<u32>, to: u32) -> Span {
        Span {
            shard: shard.parse().unwrap(),
            from: from.map(|from| from.to_string().parse().unwrap()),
            to: to.to_string().parse().unwrap(),
            quarantined: 0,
            conflicts: 0,
        }
    }

    #[test]
    fn ranges_that_touch_are_one_and_what_is_no_number_is_in_none() {
        let positions = Positions::of(&[span("a", Some(9), 12), span("a", None, 9), span("a", Some(20), 100)]);
        assert_eq!(positions.0["a"].len(), 2);
        for (sequence, inside) in
            [("0", true), ("12", true), ("13", false), ("20", false), ("21", true), ("100", true), ("101", false)]
        {
            assert_eq!(positions.has("a", sequence), inside, "{sequence}");
        }
        for sequence in ["", "01", "1x", "-1", " 1"] {
            assert!(!positions.has("a", sequence), "{sequence:?}");
        }
        assert!(!positions.has("b", "1"));
    }

    proptest! {
        #[test]
        fn a_set_has_just_what_one_of_its_ranges_has(
            ranges in prop::collection::vec((any::<bool>(), 0u32..60, 1u32..9), 0..12), at in 0u32..80,
        ) {
            // Ranges of one shard never overlap in a log; touching ones do occur.
            let (mut end, mut spans) = (None::<u32>, Vec::new());
            for (touch, gap, length) in ranges {
                let from = end.map(|end: u32| if touch { end } else { end + gap });
                let to = from.unwrap_or(0) + length;
                spans.push(span("s", from, to));
                end = Some(to);
            }
            let inside = spans.iter().any(|span| span.has("s", &at.to_string()));
            spans.reverse();
            prop_assert_eq!(Positions::of(&spans).has("s", &at.to_string()), inside);
        }
    }
}
