use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use recount_schemas::{Amount, Delta};
use smallvec::SmallVec;

use super::*;
use crate::athena::answer::line;
use crate::contributions::Contribution;
use crate::rows::testing::definition;

fn digits_of(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02X}")).collect()
}

/// What Athena answers of these events: the question, done by hand. All of them are of one file a month.
pub(crate) fn answer(definition: &Definition, events: &[Contribution], horizon: EventKey) -> Vec<Line> {
    #[derive(Default)]
    struct Group {
        keys: Vec<EventKey>,
        halves: [i128; 2],
        adds: Option<Delta>,
        reached: Option<String>,
        named: BTreeSet<String>,
    }
    let mut groups: BTreeMap<[Option<String>; 5], Group> = BTreeMap::new();
    for event in events {
        let Cell { group, month, lane } = &event.cell;
        let name = group;
        let month = Some(month.to_string());
        let file = Some(format!("s3://b/{}", month.as_deref().unwrap_or_default()));
        let shard = Some(event.origin.shard_id.to_string());
        for set in [
            [month.clone(), Some(digits_of(group.as_str())), Some(lane.to_string()), None, None],
            [month.clone(), None, None, file, None],
            [month, None, None, None, shard],
        ] {
            let group = groups.entry(set).or_default();
            group.keys.push(event.key);
            group.named.insert(digits_of(name.as_str()));
            group.halves.iter_mut().zip(halves(&event.key)).for_each(|(sum, half)| *sum += i128::from(half));
            let zero = || Delta::zero(definition.measures.len());
            group.adds = group.adds.take().unwrap_or_else(zero).checked_add(&event.delta);
            group.reached = group.reached.take().max(Some(event.origin.sequence_number.sortable()));
        }
    }
    let told = |(set, mut group): ([Option<String>; 5], Group)| {
        group.keys.sort_unstable();
        let number = Some(group.keys.len().to_string());
        let least = group.keys.first().map(|key| digits(*key));
        let named = set[2].is_some() && group.keys[0] < horizon;
        let greatest: Vec<String> = group.keys.iter().rev().take(TAIL).map(|key| digits(*key)).collect();
        let sums: Vec<_> = group.adds.iter().flat_map(|adds| &adds.sums).map(|sum| Some(sum.to_string())).collect();
        let mut line = set.to_vec();
        line.extend([number.clone(), number.clone()]);
        line.extend(group.halves.map(|half| Some(half.to_string())));
        let ends =
            |first: Option<String>, last: Option<String>| [first, last].map(|end| end.filter(|_| set[3].is_some()));
        line.extend([least.clone(), named.then(|| greatest.join(" ")), group.reached, number]);
        line.extend(ends(least, greatest.first().cloned()));
        line.extend(ends(group.named.first().cloned(), group.named.last().cloned()));
        line.extend(sums.iter().chain(&sums).cloned());
        line
    };
    groups.into_iter().map(told).collect()
}

/// The cells of these lines.
pub(crate) fn answered(definition: &Definition, passed: &Passed, lines: &[Line]) -> Result<Answered, AthenaError> {
    let (scope, mut read) = (Scope::all(), Read::default());
    let mut taking = Lines::new(definition, &scope, passed);
    lines.iter().try_for_each(|line| taking.take(line, &mut read))?;
    read.is_whole(Lines::KINDS)?;
    Ok(taking.finish()?)
}

#[test]
fn the_question_is_one_reading() {
    let mut definition = definition();
    definition.lanes = 4;
    let horizon = "0198abcd000000000000000000000000".parse().unwrap();
    insta::assert_snapshot!(question(&definition, &Scope::all(), horizon).unwrap(), @r#"
    SELECT
        month,
        to_hex(to_utf8(group_key)) AS named,
        lane,
        file,
        shard_id,
        count(*) AS archived,
        count(event) AS events,
        sum(CAST(from_big_endian_64(substr(hash, 1, 8)) AS decimal(38, 0))) AS high,
        sum(CAST(from_big_endian_64(substr(hash, 9, 8)) AS decimal(38, 0))) AS low,
        min(event) AS least,
        CASE WHEN lane IS NOT NULL AND min(event) < '0198ABCD000000000000000000000000' THEN array_join(max(older, 64), ' ') END AS greatest,
        max(reached) AS reached,
        count(CASE WHEN judged THEN 1 END) AS judged,
        CASE WHEN file IS NOT NULL THEN min(key_digits) END AS first_key,
        CASE WHEN file IS NOT NULL THEN max(key_digits) END AS last_key,
        CASE WHEN file IS NOT NULL THEN to_hex(to_utf8(min(any_group))) END AS first_group,
        CASE WHEN file IS NOT NULL THEN to_hex(to_utf8(max(any_group))) END AS last_group,
        sum(counted_bytes) AS sum_bytes,
        sum(measure_bytes) AS all_bytes
    FROM (
        SELECT
            month,
            file,
            shard_id,
            key_digits,
            group_key AS any_group,
            class IS NOT NULL AND source_table IS NOT NULL AS judged,
            CASE WHEN counts THEN group_key END AS group_key,
            CASE WHEN counts THEN bitwise_and(from_big_endian_64(substr(event_key, 9, 8)), 3) END AS lane,
            CASE WHEN counts THEN key_digits END AS event,
            CASE WHEN counts AND month <= '2025-09' THEN key_digits END AS older,
            CASE WHEN counts THEN sha256(event_key) END AS hash,
            CASE WHEN counts THEN lpad(CAST(length(sequence_number) AS varchar), 3, '0') || sequence_number END AS reached,
            CASE WHEN counts THEN measure_bytes END AS counted_bytes,
            measure_bytes
        FROM (
            SELECT
                *,
                "$path" AS file,
                to_hex(event_key) AS key_digits,
                class = 'insert' AND source_table = 'scans' AND group_key IS NOT NULL AS counts
            FROM events
        )
    )
    GROUP BY GROUPING SETS ((month, group_key, lane), (month, file), (month, shard_id))
    "#);
    // A group is asked for by what counts, since files are held against the log by all their rows; a month by its partition.
    let scope = Scope { group: Some("it's {tail}".parse().unwrap()), month: "2026-11".parse().ok(), cells: None };
    let asked = question(&definition, &scope, horizon).unwrap();
    assert!(asked.contains("group_key IS NOT NULL AND group_key = 'it''s {tail}' AS counts"), "{asked}");
    assert!(asked.contains("FROM events\n        WHERE month = '2026-11'\n"), "{asked}");
    let net = recount_schemas::definition::Count::Net { ttl_subtracts: true };
    definition.count = net;
    assert!(matches!(question(&definition, &scope, horizon), Err(AthenaError::Net)));
}

#[test]
fn halves_that_are_summed_apart_come_to_the_sum_of_the_hashes() {
    let keys: Vec<EventKey> = (0..200u8).map(|byte| EventKey::from_bytes([byte; 16])).collect();
    let (mut high, mut low, mut sum) = (0i128, 0i128, 0u128);
    for key in &keys {
        let [h, l] = halves(key);
        (high, low) = (high + i128::from(h), low + i128::from(l));
        sum = sum.wrapping_add(key_hash(key));
    }
    assert_eq!(joined(high, low), sum);
    assert!(keys.iter().any(|key| halves(key)[0] < 0) && keys.iter().any(|key| halves(key)[1] < 0));
    // sha256sum of sixteen zeros: 374708fff7719dd5979ec875d56cd228…
    let zeros = halves(&EventKey::from_bytes([0; 16]));
    assert_eq!(zeros, [0x3747_08ff_f771_9dd5, 0x979e_c875_d56c_d228_u64 as i64]);
}

fn cell_line(month: &str, group: &str, keys: &[&str], events: &str) -> Line {
    line(&[
        month,
        group,
        "0",
        "NULL",
        "NULL",
        events,
        events,
        "1",
        "-2",
        keys[0],
        &keys.join(" "),
        "0012",
        events,
        "NULL",
        "NULL",
        "NULL",
        "NULL",
        "5",
        "9",
    ])
}

#[test]
fn an_answer_is_read_exactly() {
    let definition = definition();
    let (a, b) = ("000000000001000000000000000000AA", "000000000002000000000000000000BB");
    let lines = [
        line(&[
            "2026-11",
            "7A657461",
            "0",
            "NULL",
            "NULL",
            "2",
            "2",
            "-1",
            "3",
            a,
            &format!("{b} {a}"),
            "0017",
            "2",
            "NULL",
            "NULL",
            "NULL",
            "NULL",
            "2.5",
            "2.5",
        ]),
        line(&[
            "2026-11", "61636D65", "0", "NULL", "NULL", "1", "1", "1", "-2", a, "NULL", "0017", "1", "NULL", "NULL",
            "NULL", "NULL", "NULL", "1",
        ]),
        line(&[
            "2026-11", "NULL", "NULL", "NULL", "NULL", "4", "0", "NULL", "NULL", "NULL", "NULL", "NULL", "4", "NULL",
            "NULL", "NULL", "NULL", "NULL", "8",
        ]),
        line(&[
            "2026-11", "NULL", "NULL", "s3://b/x", "NULL", "7", "3", "0", "1", a, "NULL", "0017", "7", a, b,
            "61636D65", "7A657461", "2.5", "11.5",
        ]),
        line(&[
            "2026-11", "NULL", "NULL", "NULL", "s0", "7", "3", "0", "1", a, "NULL", "0017", "7", "NULL", "NULL",
            "NULL", "NULL", "2.5", "11.5",
        ]),
    ];
    let told = |passed: &str| -> Vec<_> {
        let passed = Passed([("s0".parse().unwrap(), passed.parse().unwrap())].into());
        let bulks: Vec<Bulk> = answered(&definition, &passed, &lines).unwrap().map(Result::unwrap).collect();
        bulks
            .into_iter()
            .map(|bulk| {
                (
                    bulk.cell.group.to_string(),
                    bulk.rows,
                    bulk.adds.clone(),
                    bulk.is_counted(Some(EventKey::least_at(9))),
                )
            })
            .collect()
    };
    let delta =
        |events, billionths| Some(Delta { events, sums: SmallVec::from_slice(&[Amount::from_billionths(billionths)]) });
    // All are old: counted, if passed; of acme nothing is named, and nobody knows how old its events are.
    let expected = |counted| {
        [("acme".to_owned(), 1, delta(1, 0), false), ("zeta".to_owned(), 2, delta(2, 2_500_000_000), counted)]
    };
    assert_eq!(told("7"), expected(true));
    assert_eq!(told("6"), expected(false), "a number is no text: 6 is before 7");
    assert_eq!(told("10"), expected(true), "and 10 behind it");
}

#[test]
fn a_hostile_answer_is_an_error() {
    let (definition, passed) = (definition(), Passed::default());
    let (a, b) = ("000000000001000000000000000000AA", "000000000002000000000000000000BB");
    let good = cell_line("2026-11", "61636D65", &[a], "1");
    let file = line(&[
        "2026-11", "NULL", "NULL", "s3://b/x", "NULL", "1", "1", "1", "-2", a, "NULL", "0012", "1", a, b, "61636D65",
        "7A657461", "5", "9",
    ]);
    let shard = line(&[
        "2026-11", "NULL", "NULL", "NULL", "s0", "1", "1", "1", "-2", a, "NULL", "0012", "1", "NULL", "NULL", "NULL",
        "NULL", "5", "9",
    ]);
    answered(&definition, &passed, &[good.clone(), file.clone(), shard.clone()]).unwrap();
    // Lines that are missing, or too many.
    for lines in [
        vec![good.clone(), file.clone()],
        vec![good.clone(), shard.clone()],
        vec![file.clone(), shard.clone()],
        vec![good.clone(), good.clone(), file.clone(), shard.clone()],
        vec![good.clone(), file.clone(), file.clone(), shard.clone()],
    ] {
        assert!(matches!(answered(&definition, &passed, &lines), Err(AthenaError::Answer(_))), "{lines:?}");
    }
    let spoilt = |from: &Line, at: usize, text: &str| {
        let mut line = from.clone();
        line[at] = (text != "NULL").then(|| text.to_owned());
        line
    };
    let mut wrong: Vec<Line> = [
        (0, "NULL"),
        (0, "2026-13"),
        (1, ""),
        (1, "acme"),
        (1, "NULL"),
        (2, "NULL"),
        (2, "-1"),
        (2, "1"),
        (2, "65536"),
        (3, "s3://b/x"),
        (4, "s0"),
        (5, "NULL"),
        (5, "-1"),
        (5, "0"),
        (6, "NULL"),
        (6, "2"),
        (6, "0x1"),
        (6, "18446744073709551615"),
        (7, "NULL"),
        (7, "1.0"),
        (8, "NULL"),
        (8, "170141183460469231731687303715884105728"),
        (9, "NULL"),
        (9, "00"),
        (9, b),
        (10, "zz"),
        (10, &format!("{b} {a}")),
        (11, "012"),
        (11, "1"),
        (11, "é12"),
        (12, "NULL"),
        (13, "00"),
        (14, "zz"),
        (15, "6"),
        (15, "0x61"),
        (16, "FF"),
        (17, "NaN"),
        (17, "1e99"),
        (18, "x"),
    ]
    .into_iter()
    .map(|(at, text)| spoilt(&good, at, text))
    .collect();
    wrong.extend([spoilt(&shard, 4, "a/b"), spoilt(&shard, 11, "NULL"), spoilt(&file, 3, "NULL"), good[..18].to_vec()]);
    wrong.push(good.iter().cloned().chain([None]).collect());
    // More keys than there are events, or fewer, or more than a cell names.
    let two = cell_line("2026-11", "61636D65", &[a], "2");
    wrong.push(spoilt(&two, 10, a));
    wrong.push(spoilt(&cell_line("2026-11", "61636D65", &[a], "99"), 10, &[a; TAIL + 1].join(" ")));
    for line in wrong {
        let told = answered(&definition, &passed, std::slice::from_ref(&line));
        assert!(matches!(told, Err(AthenaError::Answer(_))), "{line:?}");
    }
    // A group, or a lane, of no event: what a partition without event keys has. Rows that count nowhere have neither.
    for (group, lane) in [("61636D65", "NULL"), ("61636D65", "0"), ("NULL", "0")] {
        let bare = ["1", "0", "NULL", "NULL", "NULL", "NULL", "NULL", "1", "NULL", "NULL", "NULL", "NULL", "NULL", "9"];
        let texts = [&["2026-11", group, lane, "NULL", "NULL"], bare.as_slice()].concat();
        let told = answered(&definition, &passed, &[line(&texts)]);
        assert!(told.unwrap_err().to_string().contains("a cell of no event"), "{group} {lane}");
    }
    // A month that nobody asked for, or a group.
    for scope in [
        Scope { month: "2026-10".parse().ok(), ..Scope::all() },
        Scope { group: Some("zeta".parse().unwrap()), ..Scope::all() },
    ] {
        let told = Lines::new(&definition, &scope, &passed).take(&good, &mut Read::default());
        assert!(matches!(told, Err(AthenaError::Answer(_))), "{scope:?}");
    }
}

#[test]
fn the_greatest_keys_may_come_in_any_order_or_not_at_all() {
    let (definition, passed) = (definition(), Passed([("s0".parse().unwrap(), "9".parse().unwrap())].into()));
    let (a, b) = ("000000000001000000000000000000AA", "000000000002000000000000000000BB");
    for (named, counted) in
        [(format!("{a} {b}"), true), (format!("{b} {a}"), true), ("NULL".into(), false), (String::new(), false)]
    {
        let mut of_cell = cell_line("2026-11", "61636D65", &[a], "2");
        of_cell[10] = (named != "NULL").then(|| named.clone());
        let mut of_shard = of_cell.clone();
        (of_shard[1], of_shard[2], of_shard[4], of_shard[10]) = (None, None, Some("s0".into()), None);
        let mut of_file = of_shard.clone();
        (of_file[3], of_file[4]) = (Some("s3://b/x".into()), None);
        let mut told = answered(&definition, &passed, &[of_cell, of_shard, of_file]).unwrap();
        // Both are older than the ledger reaches: counted only where they are named.
        assert_eq!(told.next().unwrap().unwrap().is_counted(Some(EventKey::least_at(9))), counted, "{named}");
    }
}

/// An event that occurs long after it was created is in a month whose keys are not named.
#[test]
fn an_old_event_of_a_late_month_is_for_the_rows_to_tell() {
    let horizon = EventKey::least_at(1_793_491_200_000); // 2026-11-01
    let asked = question(&definition(), &Scope::all(), horizon).unwrap();
    assert!(asked.contains("CASE WHEN counts AND month <= '2026-12' THEN key_digits END AS older"), "{asked}");
    let end = question(&definition(), &Scope::all(), EventKey::MAX).unwrap();
    assert!(end.contains("CASE WHEN counts THEN key_digits END AS older"), "{end}");
}

#[test]
fn a_key_that_stands_twice_is_for_the_rows_to_tell() {
    let (definition, passed) = (definition(), Passed::default());
    let a = "000000000001000000000000000000AA";
    let lines = [
        cell_line("2026-11", "61636D65", &[a, a], "2"),
        line(&[
            "2026-11", "NULL", "NULL", "s3://b/x", "NULL", "2", "2", "1", "-2", a, "NULL", "0012", "2", a, a,
            "61636D65", "7A657461", "5", "9",
        ]),
        line(&[
            "2026-11",
            "NULL",
            "NULL",
            "NULL",
            "backfill-x",
            "2",
            "2",
            "1",
            "-2",
            a,
            "NULL",
            "0012",
            "2",
            "NULL",
            "NULL",
            "NULL",
            "NULL",
            "5",
            "9",
        ]),
    ];
    let mut bulk = answered(&definition, &passed, &lines).unwrap().next().unwrap().unwrap();
    bulk.ledger(a.to_lowercase().parse().unwrap());
    assert!(!bulk.is_counted(Some(EventKey::least_at(9))));
}

proptest! {
    #[test]
    fn foreign_lines_never_panic(texts in prop::collection::vec(prop::option::of("[0-9A-Fa-f .é-]{0,40}|2026-11|s3://b/x"), 0..16)) {
        let _ = answered(&definition(), &Passed::default(), &[texts]);
    }
}
