//! Keys of bytes that sort as (month, group) do, for the external sort.
//!
//! The month is its text. The group is its bytes with every 0 written as 0 255, closed by 0 0: so no group's key is the
//! beginning of another's, and bytes compare as the groups do.

use recount_schemas::{Group, Month};

/// The bytes of a month's text.
const MONTH: usize = 7;

/// The beginning of a key: the month and the group.
pub fn unit(month: Month, group: &Group) -> Vec<u8> {
    let mut bytes = month.to_string().into_bytes();
    push_text(&mut bytes, group.as_str());
    bytes.extend([0, 0]);
    bytes
}

/// Appends a text so that what is closed by 0 0 compares as the texts do.
pub fn push_text(to: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        to.push(byte);
        if byte == 0 {
            to.push(0xff);
        }
    }
}

/// Takes the month and the group off a key; what is left follows.
pub fn split_unit(bytes: &[u8]) -> Option<(Month, Group, &[u8])> {
    let (month, mut rest) = bytes.split_at_checked(MONTH)?;
    let mut group = Vec::new();
    loop {
        match rest {
            [0, 0, after @ ..] => {
                let group = String::from_utf8(group).ok()?;
                return Some((std::str::from_utf8(month).ok()?.parse().ok()?, group.parse().ok()?, after));
            }
            [0, 0xff, after @ ..] => {
                group.push(0);
                rest = after;
            }
            [byte, after @ ..] if *byte != 0 => {
                group.push(*byte);
                rest = after;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn units_sort_as_months_and_groups_do(a in "[\0-\u{3}é😀]{1,6}", b in "[\0-\u{3}é😀]{1,6}", m in 1u8..13, n in 1u8..13, rest in any::<[u8; 3]>()) {
            let (a, b): (Group, Group) = (a.parse().unwrap(), b.parse().unwrap());
            let (m, n) = (Month::new(2026, m).unwrap(), Month::new(2026, n).unwrap());
            prop_assert_eq!(unit(m, &a).cmp(&unit(n, &b)), (m, &a).cmp(&(n, &b)));
            let mut key = unit(m, &a);
            key.extend(rest);
            prop_assert_eq!(split_unit(&key), Some((m, a, rest.as_slice())));
        }

        #[test]
        fn a_zero_that_stands_for_nothing_is_refused(byte in 1u8..0xff) {
            let mut key = unit("2026-11".parse().unwrap(), &"ab".parse().unwrap());
            prop_assert!(split_unit(&key).is_some());
            key.splice(MONTH + 1..MONTH + 1, [0, byte]);
            prop_assert_eq!(split_unit(&key), None);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            let _ = split_unit(&bytes);
        }
    }
}
