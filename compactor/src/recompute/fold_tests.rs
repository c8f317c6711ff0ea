use super::*;
use proptest::prelude::*;

const MONTH: &str = "2026-11";

fn fold() -> Fold {
    let mut fold = Fold::new(0);
    fold.begin(MONTH.parse().unwrap());
    fold
}

/// A key of the first millisecond after `ms`, told from others by `n`.
fn key(ms: i64, n: u32) -> EventKey {
    EventKey::new(1_793_491_200_000 + ms, &n.to_be_bytes()).unwrap()
}

fn content(n: u32) -> Option<[u8; 16]> {
    Some(u128::from(n).to_be_bytes())
}

/// Gives a row that counts one event to its group's cell.
fn give(fold: &mut Fold, group: &str, key: EventKey, content: Option<[u8; 16]>) {
    let cell = Cell { group: group.parse().unwrap(), month: fold.month.unwrap(), lane: 0 };
    let contributions = [(cell, Delta { events: 1, ..Delta::zero(0) })];
    let (group, file) = (Some(group), &Arc::from("f"));
    fold.row(&FoldRow { group, key, content, file, contributions: &contributions }).unwrap();
}

#[test]
fn a_key_is_repeated_only_within_its_own_group() {
    let mut fold = fold();
    for (group, key) in [("a", key(0, 1)), ("a", key(0, 1)), ("b", key(0, 1)), ("b", key(0, 1)), ("b", key(0, 2))] {
        give(&mut fold, group, key, None);
    }
    fold.begin("2026-12".parse().unwrap());
    give(&mut fold, "b", key(0, 2), None);
    let folded = fold.finish().unwrap();
    let named: Vec<_> = folded.repeated_events.iter().map(|it| (it.group.as_deref().unwrap(), it.event_key)).collect();
    assert_eq!(named, [("a", key(0, 1)), ("b", key(0, 1))]);
    let totals: Vec<(&str, i64)> =
        folded.totals.0.iter().map(|((group, _), sum)| (group.as_str(), sum.events)).collect();
    assert_eq!((folded.repeated, totals), (2, vec![("a", 1), ("b", 2), ("b", 1)]));
}

#[test]
fn all_repeated_events_are_counted_and_the_first_thousand_are_named() {
    let mut fold = fold();
    for _ in 0..=MAX_REPEATED + 1 {
        give(&mut fold, "a", key(0, 1), None);
    }
    let folded = fold.finish().unwrap();
    assert_eq!((folded.repeated, folded.repeated_events.len()), (MAX_REPEATED as u64 + 1, MAX_REPEATED));
}

#[test]
fn equal_contents_are_pairs_within_one_group_and_millisecond() {
    let pairs = |rows: &[(&str, i64, u32)]| {
        let mut fold = fold();
        for (n, (group, ms, of)) in rows.iter().enumerate() {
            give(&mut fold, group, key(*ms, n as u32), content(*of));
        }
        fold.finish().unwrap().same_change_pairs
    };
    assert_eq!(pairs(&[("a", 0, 7), ("a", 0, 8), ("a", 0, 7)]), 1);
    assert_eq!(pairs(&[("a", 0, 7), ("a", 0, 7), ("a", 0, 7)]), 3, "each two of three are a pair");
    assert_eq!(pairs(&[("a", 0, 7), ("a", 1, 7)]), 0, "another millisecond");
    assert_eq!(pairs(&[("a", 0, 7), ("b", 0, 7)]), 0, "another group");
}

#[test]
fn no_more_than_the_window_are_held_against_each_other() {
    let window = WINDOW as u32;
    let mut fold = fold();
    for (i, n) in (0..=window).chain([window - 1, window]).enumerate() {
        give(&mut fold, "a", key(0, i as u32), content(n));
    }
    assert_eq!(
        fold.finish().unwrap().same_change_pairs,
        1,
        "the last of the window has its pair, the one behind it none"
    );
}

proptest! {
    /// Entries of the external sort come in the order of the files, whatever the groups are called, and are read as written.
    #[test]
    fn entries_sort_as_rows_do(
        rows in prop::collection::vec((prop::option::of("[\\x00\\x01a\u{ff}]{0,3}"), any::<[u8; 16]>(), any::<Option<[u8; 16]>>()), 2..12),
    ) {
        let file: Arc<str> = Arc::from("f");
        let mut entries: Vec<_> = rows.iter().map(|(group, key, content)| {
            let (group, key) = (group.as_deref(), EventKey::from_bytes(*key));
            encode(&FoldRow { group, key, content: *content, file: &file, contributions: &[] }).unwrap()
        }).collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let decoded: Vec<OwnedRow> = entries.iter().map(|(key, value)| decode(key, value).unwrap()).collect();
        let read: Vec<_> = decoded.iter().map(|row| (row.group.clone(), *row.key.as_bytes(), row.content)).collect();
        let mut expected = rows;
        expected.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        prop_assert_eq!(read, expected);
    }
}

#[test]
fn an_entry_that_is_too_short_is_damage() {
    let file = Arc::from("f");
    let row = FoldRow { group: None, key: key(0, 1), content: None, file: &file, contributions: &[] };
    let (bytes, value) = encode(&row).unwrap();
    assert_eq!(decode(&bytes, &value).unwrap().key, row.key);
    assert!(decode(&bytes[..EventKey::LEN - 1], &value).is_err());
    assert!(decode(&bytes, b"{").is_err());
}
