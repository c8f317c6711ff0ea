//! Sequence numbers in the layout of live AWS streams: 186 bits, 56 decimal digits, starting `49…` in our time.
//!
//! They do not fit a `u128` (live ones have 56 digits), and whoever tries must find out here and not in production. As 47
//! hexadecimal digits, the most significant first:
//!
//! ```text
//! 2 ccccccccc x iiiiiiiiiiiiiiii 00 ttttttttt ssssssss 2
//! │ │         │ │                │  │         │        └ version of the layout
//! │ │         │ │                │  │         └ number of the shard
//! │ │         │ │                │  └ time of the record, s
//! │ │         │ │                └ always 0 here
//! │ │         │ └ index of the record in its shard
//! │ │         └ last digit of the shard's number
//! │ └ time at which the shard was made, s
//! └ leading digit
//! ```
//!
//! The index stands above the time, so a clock that goes back cannot make a number smaller than the one before it. A
//! child is given a creation time above its parents', so its numbers are greater than theirs.

use std::fmt;

/// Above every index a record can have: the ending number of a closed shard.
pub(crate) const LAST_INDEX: u64 = 0x7FFF_FFFF_FFFF_FFFF;

/// Seconds are kept in nine hexadecimal digits.
const MAX_SECONDS: u64 = (1 << 36) - 1;
const TEN_19: u128 = 10_000_000_000_000_000_000;

/// The parts of a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// When its shard was made: seconds since 1970.
    pub created_s: u64,
    /// Number of its shard in the stream.
    pub shard: u32,
    /// Index in the shard; the first record has 1, the shard's own starting number 0.
    pub index: u64,
    /// When it was written: seconds since 1970.
    pub time_s: u64,
}

impl Sequence {
    fn limbs(self) -> [u64; 3] {
        let (created, time) = (self.created_s.min(MAX_SECONDS), self.time_s.min(MAX_SECONDS));
        let shard = u64::from(self.shard);
        let high = (2 << 56) | (created << 20) | ((shard & 0xF) << 16) | (self.index >> 48);
        let low = (u128::from(self.index) << 80) | (u128::from(time) << 36) | (u128::from(shard) << 4) | 2;
        [high, (low >> 64) as u64, low as u64]
    }

    /// Reads a decimal sequence number of this layout; `None` for anything else, whatever its length.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() != 56 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let mut limbs = [0u64; 3];
        for digit in text.bytes() {
            let mut carry = u128::from(digit - b'0');
            for limb in limbs.iter_mut().rev() {
                let wide = u128::from(*limb) * 10 + carry;
                *limb = wide as u64;
                carry = wide >> 64;
            }
            if carry != 0 {
                return None;
            }
        }
        let [high, middle, last] = limbs;
        let low = (u128::from(middle) << 64) | u128::from(last);
        let shard = u32::try_from((low >> 4) & 0xFFFF_FFFF).ok()?;
        let parsed = Self {
            created_s: (high >> 20) & MAX_SECONDS,
            shard,
            index: ((high & 0xFFFF) << 48) | ((low >> 80) as u64),
            time_s: ((low >> 36) as u64) & MAX_SECONDS,
        };
        (parsed.index <= LAST_INDEX && parsed.limbs() == limbs).then_some(parsed)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut limbs = self.limbs();
        let mut groups = [0u128; 3];
        for group in groups.iter_mut().rev() {
            let mut rest = 0u128;
            for limb in &mut limbs {
                let wide = (rest << 64) | u128::from(*limb);
                *limb = (wide / TEN_19) as u64;
                rest = wide % TEN_19;
            }
            *group = rest;
        }
        let [first, second, third] = groups;
        write!(f, "{first}{second:019}{third:019}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_of_a_live_stream_is_read_and_written_back() {
        // From the AWS documentation of the Lambda event for Kinesis, where it stands beside shardId-000000000006.
        let text = "49590338271490256608559692538361571095921575989136588898";
        let parsed = Sequence::parse(text).unwrap();
        assert_eq!(parsed.shard, 6);
        assert_eq!(parsed.to_string(), text);
        // The record's approximateArrivalTimestamp on that page is 1545084650.987.
        assert_eq!(parsed.time_s, 1_545_084_650);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "0", "-1", "4959033827149025660855969253836157109592157598913658889", &"9".repeat(56)] {
            assert_eq!(Sequence::parse(text), None, "{text}");
        }
        assert_eq!(Sequence::parse(&"9".repeat(129)), None);
        assert_eq!(Sequence::parse("4959033827149025660855969253836157109592157598913658889x"), None);
    }

    proptest! {
        #[test]
        fn text_and_parts_agree(created_s in 0..=MAX_SECONDS, shard: u32, index in 0..=LAST_INDEX, time_s in 0..=MAX_SECONDS) {
            let sequence = Sequence { created_s, shard, index, time_s };
            let text = sequence.to_string();
            prop_assert_eq!(text.len(), 56);
            prop_assert_eq!(Sequence::parse(&text), Some(sequence));
        }

        #[test]
        fn a_later_index_is_a_greater_number_whatever_the_clock_says(
            created_s in 0..=MAX_SECONDS, shard: u32, index in 0..LAST_INDEX, a in 0..=MAX_SECONDS, b in 0..=MAX_SECONDS
        ) {
            let earlier = Sequence { created_s, shard, index, time_s: a }.to_string();
            let later = Sequence { created_s, shard, index: index + 1, time_s: b }.to_string();
            prop_assert!(earlier < later);
        }

        #[test]
        fn hostile_text_never_panics(text in ".{0,140}") {
            let _ = Sequence::parse(&text);
        }
    }
}
