use super::*;
use crate::rows::testing::{NOVEMBER, row};

#[test]
fn a_row_is_hashed_by_its_content_and_its_key() {
    let row = row("e", Some("acme"), NOVEMBER, "1");
    let together = [row.content, *row.key.as_bytes()].concat();
    let expected = u128::from_be_bytes(blake3::hash(&together).as_bytes()[..16].try_into().unwrap());
    assert_eq!(row.fingerprint(), expected);
    assert_eq!(row_hash(&row.content, row.key), expected);
}

#[test]
fn rows_are_ordered_by_group_and_then_by_key() {
    let sorted = [
        row("o", None, NOVEMBER + 9_000, "1"),
        row("e", Some("acme"), NOVEMBER + 5_000, "1"),
        row("f", Some("acme"), NOVEMBER + 6_000, "1"),
        row("g", Some("zeta"), NOVEMBER, "1"),
    ];
    for (i, a) in sorted.iter().enumerate() {
        for (j, b) in sorted.iter().enumerate() {
            assert_eq!(a.order(b), i.cmp(&j), "{} and {}", a.event_id, b.event_id);
        }
    }
}
