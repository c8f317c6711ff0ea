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

#[test]
fn what_a_row_counts_is_hashed_and_nothing_else() {
    let hash = |row: &ArchivedRow| {
        let measures: Vec<_> = row.measures.iter().map(|amount| Some(amount.billionths())).collect();
        row.counted(&measures).hash()
    };
    let row = row("e", Some("acme"), NOVEMBER, "1");
    let changed = |change: &dyn Fn(&mut ArchivedRow)| {
        let mut other = row.clone();
        change(&mut other);
        hash(&other) != hash(&row)
    };
    let (cell, delta) = (Cell { group: "a".parse().unwrap(), month: row.month, lane: 0 }, Delta::zero(1));
    assert!(changed(&|r| r.key = EventKey::MAX) && changed(&|r| r.group = None) && changed(&|r| r.class = "ttl"));
    assert!(changed(&|r| r.event_name = EventName::Remove) && changed(&|r| r.table.push('x')));
    assert!(changed(&|r| r.occurred_us += 1) && changed(&|r| r.created_us += 1));
    assert!(changed(&|r| r.measures[0] = Amount::from_billionths(1)) && changed(&|r| r.measures.clear()));
    assert!(changed(&|r| r.contributions.push((cell.clone(), delta.clone()))));
    assert!(changed(&|r| (r.class, r.table) = ("inser", "tscans".to_owned())), "texts do not run together");
    let erased = |r: &mut ArchivedRow| {
        (r.keys, r.new_image, r.old_image, r.user_identity) = (None, None, None, None);
        (r.content, r.envelope, r.event_id) = ([0; 16], "{}".to_owned(), "x".to_owned());
    };
    assert!(!changed(&erased));
}
