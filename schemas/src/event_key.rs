//! The identity of a change: 16 bytes that sort by creation time.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..6 | creation time in milliseconds since 1970 (floor), big-endian |
//! | 6..16 | the first 80 bits of BLAKE3 over the identity: the event ID, or the change itself |
//!
//! The identity is always hashed, since the leading bits of an ID need not be random. Because the key sorts by time, the
//! ledger and the archive look for a duplicate only where its time says that it can be.

use std::fmt;
use std::str::FromStr;

/// The largest creation time that a key can hold, in milliseconds (48 bits; the year 10889).
pub const MAX_CREATED_MS: u64 = (1 << 48) - 1;

/// The key of one change. Ordered as its bytes are: by creation time, then by hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey([u8; 16]);

impl EventKey {
    /// The number of bytes of a key.
    pub const LEN: usize = 16;
    /// Below every key.
    pub const MIN: Self = Self([0; 16]);
    /// Above every key.
    pub const MAX: Self = Self([0xff; 16]);

    /// The key of a change created at `created_ms` whose identity is `identity`. `None` where the time does not fit 48 bits.
    pub fn new(created_ms: i64, identity: &[u8]) -> Option<Self> {
        let ms = u64::try_from(created_ms).ok().filter(|ms| *ms <= MAX_CREATED_MS)?;
        let hash = blake3::hash(identity);
        let mut bytes = [0u8; 16];
        let (time, id) = bytes.split_at_mut(6);
        for (to, from) in time.iter_mut().zip(ms.to_be_bytes().into_iter().skip(2)) {
            *to = from;
        }
        for (to, from) in id.iter_mut().zip(hash.as_bytes()) {
            *to = *from;
        }
        Some(Self(bytes))
    }

    /// The least key that a change created at `created_ms` can have. Times outside 48 bits are clamped.
    pub fn least_at(created_ms: i64) -> Self {
        let ms = u64::try_from(created_ms).unwrap_or(0).min(MAX_CREATED_MS);
        Self((u128::from(ms) << 80).to_be_bytes())
    }

    /// A key from its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A key from a slice; `None` unless it has 16 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        <[u8; 16]>::try_from(bytes).ok().map(Self)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Its creation time, in milliseconds since 1970.
    pub fn created_ms(&self) -> i64 {
        (u128::from_be_bytes(self.0) >> 80) as i64
    }

    /// The lane of the key among `lanes` (a power of two): its low bits.
    pub fn lane(&self, lanes: u16) -> u16 {
        (u128::from_be_bytes(self.0) % u128::from(lanes.max(1))) as u16
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event key is 32 hexadecimal digits")]
pub struct NotAnEventKey;

impl FromStr for EventKey {
    type Err = NotAnEventKey;

    fn from_str(text: &str) -> Result<Self, NotAnEventKey> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotAnEventKey);
        }
        u128::from_str_radix(text, 16).map(|n| Self(n.to_be_bytes())).map_err(|_| NotAnEventKey)
    }
}

impl serde::Serialize for EventKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for EventKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_has_its_time_and_the_hash_of_its_identity() {
        let key = EventKey::new(0x0102_0304_0506, b"f89436e0").unwrap();
        assert_eq!(&key.as_bytes()[..6], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(&key.as_bytes()[6..], &blake3::hash(b"f89436e0").as_bytes()[..10]);
        assert_eq!(key.created_ms(), 0x0102_0304_0506);
    }

    #[test]
    fn a_time_that_does_not_fit_has_no_key() {
        assert_eq!(EventKey::new(-1, b"x"), None);
        assert_eq!(EventKey::new(1 << 48, b"x"), None);
        assert!(EventKey::new((1 << 48) - 1, b"x").is_some());
    }

    #[test]
    fn lanes_are_the_low_bits() {
        let key: EventKey = "000000000000000000000000000000eb".parse().unwrap();
        assert_eq!([1, 2, 4, 16, 256].map(|lanes| key.lane(lanes)), [0, 1, 3, 11, 235]);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", &"0".repeat(31), &"0".repeat(33), &format!("+{}", "0".repeat(31)), &"g".repeat(32)] {
            assert_eq!(text.parse::<EventKey>(), Err(NotAnEventKey), "{text}");
        }
    }

    proptest! {
        #[test]
        fn keys_sort_by_time_and_survive_their_text(a in 0i64..1 << 48, b in 0i64..1 << 48, id in any::<[u8; 4]>()) {
            let (x, y) = (EventKey::new(a, &id).unwrap(), EventKey::new(b, &id).unwrap());
            prop_assert_eq!(a.cmp(&b), x.cmp(&y));
            prop_assert_eq!(x.to_string().parse::<EventKey>().unwrap(), x);
            prop_assert!(EventKey::least_at(a) <= x);
            prop_assert!(a == 0 || EventKey::new(a - 1, &id).unwrap() < EventKey::least_at(a));
            prop_assert!(x.lane(8) < 8);
        }
    }
}
