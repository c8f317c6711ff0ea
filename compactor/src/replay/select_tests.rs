use proptest::prelude::*;

use super::*;
use crate::bucket::memory::Memory;
use crate::log::{AddedFile, Digest};
use crate::replay::checkpoint::Reach;
use crate::rows::row::Place;
use crate::rows::testing::{NOVEMBER, definition, record};
use crate::rows::{ArchivedRow, write};

/// The change of an item, in the form of DynamoDB Streams, with its number there.
fn change(item: u8, own: u64, at_us: i64) -> String {
    format!(
        r#"{{"eventID":"e-{item}-{own}","eventName":"INSERT","dynamodb":{{"ApproximateCreationDateTime":{},"Keys":{{"scan_id":{{"S":"{item}"}}}},"NewImage":{{"scan_id":{{"S":"{item}"}},"scanned_at":{{"S":"2026-11-02T00:00:00Z"}},"bytes":{{"N":"7"}},"project_id":{{"S":"g{}"}}}},"SequenceNumber":"{own:021}"}},"eventSourceARN":"arn:aws:dynamodb:r:1:table/scans/stream/x"}}"#,
        at_us as f64 / 1e6,
        item % 2,
    )
}

fn row(record: &str, shard: &str, sequence: u64) -> ArchivedRow {
    let definition = definition();
    let judged = definition.judge(record.as_bytes(), NOVEMBER + 86_400_000_000).unwrap();
    let place = Place {
        shard: shard.parse().unwrap(),
        sequence: sequence.to_string().parse().unwrap(),
        arrived_us: NOVEMBER + 86_400_000_000,
    };
    ArchivedRow::new(&definition, &judged, judged.change.content_hash().0, record, place)
}

/// The rows in files of `per_file`.
async fn stored(objects: &Memory, rows: Vec<ArchivedRow>, per_file: usize) -> Vec<AddedFile> {
    let mut files = Vec::new();
    for (n, rows) in rows.chunks(per_file).enumerate() {
        let written = write(&definition(), rows[0].month, rows.to_vec()).unwrap().unwrap();
        let source = format!("source-{n}");
        objects.put(&source, written.bytes.clone()).await.unwrap();
        files.push(written.added(source, format!("events/month=2026-11/000000000000/{n:012}-0.parquet")));
    }
    files
}

fn everything() -> (Question, Round) {
    let question = Question { from_us: None, to_us: None, group: None, into: "s".to_owned(), hand_over: false };
    let upto: Reach =
        ["s0", "s1", "s2"].map(|shard| (shard.parse().unwrap(), "99999999".parse().unwrap())).into_iter().collect();
    (question, Round { after: None, upto })
}

/// What a selection sends, in order: item and own number of each.
fn replayed(question: &Question, round: &Round, rows: Vec<ArchivedRow>, per_file: usize) -> Vec<(u8, u64)> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let objects = Memory::new();
        let files = stored(&objects, rows, per_file).await;
        let selection = Selection { question, round };
        let survey = selection.survey(&objects, &files, 1 << 20, EventKey::MIN, &|_| {}).await.unwrap();
        let records = selection.sorted(&objects, &files, &survey, &|_| {}).await.unwrap();
        let sent: Vec<_> = records
            .map(|record| {
                let (_, parcel) = record.unwrap();
                let text = String::from_utf8(parcel.data).unwrap();
                let id = Change::decode(text.as_bytes()).unwrap().event_id.to_string();
                let mut parts = id.split('-').skip(1);
                (parts.next().unwrap().parse().unwrap(), parts.next().unwrap().parse().unwrap())
            })
            .collect();
        assert_eq!((survey.rows, survey.incomplete), (sent.len() as u64, 0));
        sent
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Items change in some order; each change goes to a shard of its item, which may split on the way, or is too large for the
    /// stream and stands beside it. The archive has the rows in whatever files.
    #[test]
    fn each_items_changes_are_replayed_in_the_order_in_which_they_were_made(
        changes in prop::collection::vec((0u8..4, prop::bool::weighted(0.2)), 1..30),
        split in 0usize..30,
        per_file in 1usize..8,
        shuffle in any::<u64>(),
    ) {
        let mut rows = Vec::new();
        for (i, (item, stray)) in changes.iter().enumerate() {
            let own = i as u64 + 1;
            let record = change(*item, own, NOVEMBER);
            let (shard, sequence) = match (*stray, i < split) {
                (true, _) => (format!("relay-{item}-{own}"), own),
                (false, true) => ("s0".to_owned(), 1_000 + 7 * own),
                // Of the two children each has its items.
                (false, false) => (format!("s{}", 1 + item % 2), 1_000 + 7 * own),
            };
            rows.push(row(&record, &shard, sequence));
        }
        let mut rng = fastrand::Rng::with_seed(shuffle);
        rng.shuffle(&mut rows);
        let (question, round) = everything();
        let sent = replayed(&question, &round, rows, per_file);
        prop_assert_eq!(sent.len(), changes.len());
        for item in 0u8..4 {
            let of = |all: &mut dyn Iterator<Item = (u8, u64)>| -> Vec<u64> {
                all.filter(|(of, _)| *of == item).map(|(_, own)| own).collect()
            };
            let made = of(&mut changes.iter().zip(1u64..).map(|((item, _), own)| (*item, own)));
            prop_assert_eq!(of(&mut sent.iter().copied()), made, "item {}", item);
        }
    }
}

/// An item came, went, and came back while nobody captured it: its backfilled row must not be sent before it went.
#[test]
fn a_backfilled_row_is_sent_right_behind_the_removal_that_it_names() {
    let backfilled = |own: u64, behind: &str| {
        let ours = format!(r#""recount":{{"origin":"backfill x","behind":{behind}}},"eventSourceARN""#);
        change(1, own, NOVEMBER).replace(r#","SequenceNumber":"#, r#","Unused":"#).replace(r#""eventSourceARN""#, &ours)
    };
    let rows = [
        row(&backfilled(1, "null"), "backfill-00", 2),
        row(&change(1, 2, NOVEMBER), "s0", 100),
        row(&change(1, 3, NOVEMBER), "s0", 1_000),
        row(&backfilled(4, r#""1000""#), "backfill-00", 1),
        row(&change(1, 5, NOVEMBER), "s1", 1_001),
    ];
    let (question, round) = everything();
    for per_file in [1, 5] {
        let sent = replayed(&question, &round, rows.iter().rev().cloned().collect(), per_file);
        assert_eq!(sent, [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]);
    }
}

#[test]
fn only_what_is_asked_for_is_sent() {
    let rows = || -> Vec<ArchivedRow> {
        let second = |n: u64| NOVEMBER + n as i64 * 1_000_000;
        (1..=6).map(|n| row(&change(n as u8, n, second(n)), if n == 6 { "s9" } else { "s0" }, n)).collect()
    };
    let sent = |question: &Question, round: &Round| -> Vec<u64> {
        replayed(question, round, rows(), 2).into_iter().map(|(_, own)| own).collect()
    };
    let (all, round) = everything();
    assert_eq!(sent(&all, &round), [1, 2, 3, 4, 5], "what the replay did not begin with is not in it");
    let times = Question { from_us: Some(NOVEMBER + 2_000_000), to_us: Some(NOVEMBER + 5_000_000), ..all.clone() };
    assert_eq!(sent(&times, &round), [2, 3, 4], "from the one time on, before the other");
    let group = Question { group: Some("g1".parse().unwrap()), ..all.clone() };
    assert_eq!(sent(&group, &round), [1, 3, 5]);
    let after = Some(Reach::from([("s0".parse().unwrap(), "3".parse().unwrap())]));
    assert_eq!(sent(&all, &Round { after, ..round }), [4, 5], "not what was sent before");
}

#[tokio::test]
async fn the_plan_counts_what_cannot_be_sent_and_what_is_old() {
    let whole = row(&record("a", Some("acme"), NOVEMBER, "1"), "s0", 1);
    let erased = ArchivedRow { new_image: None, ..row(&record("b", Some("zeta"), NOVEMBER + 9_000, "1"), "s0", 2) };
    let objects = Memory::new();
    let files = stored(&objects, vec![whole, erased], 1).await;
    let (question, round) = everything();
    let selection = Selection { question: &question, round: &round };
    let survey = selection.survey(&objects, &files, 100, EventKey::MAX, &|_| {}).await.unwrap();
    assert_eq!((survey.rows, survey.groups, survey.old), (1, 1, 1));
    assert_eq!((survey.incomplete, survey.incomplete_ids), (1, vec!["b".to_owned()]));
    assert_eq!((survey.too_large, survey.too_large_id.as_deref()), (1, Some("a")));
    assert_eq!(survey.created_us, Some((NOVEMBER, NOVEMBER)));
}

#[test]
fn a_file_is_left_out_only_if_none_of_its_rows_can_be_asked_for() {
    let key = |us: i64| EventKey::new(us.div_euclid(1_000), b"x").unwrap();
    let file = AddedFile {
        source: String::new(),
        target: "events/month=2026-11/000000000000/000000000000-0.parquet".to_owned(),
        month: "2026-11".parse().unwrap(),
        rows: 1,
        bytes: 1,
        sha256: Digest::of(b""),
        first_key: key(NOVEMBER),
        last_key: key(NOVEMBER + 5_000_000),
        first_group: Some("b".to_owned()),
        last_group: Some("d".to_owned()),
        fingerprint: crate::log::Fingerprint::default(),
    };
    let mut state = State::default();
    let live = crate::log::LiveFile { n: 0, definition: String::new(), file: file.clone() };
    state.files.entry(file.month).or_default().insert(file.target.clone(), live);
    let (all, round) = everything();
    for (from, to, group, expected) in [
        (None, None, None, true),
        (Some(NOVEMBER + 5_000_000), None, None, true),
        (Some(NOVEMBER + 5_001_000), None, None, false),
        (None, Some(NOVEMBER + 1), None, true),
        (None, Some(NOVEMBER - 1_000_000), None, false),
        (None, None, Some("c"), true),
        (None, None, Some("a"), false),
    ] {
        let group = group.map(|text: &str| text.parse().unwrap());
        let question = Question { from_us: from, to_us: to, group, ..all.clone() };
        let files = Selection { question: &question, round: &round }.files(&state);
        assert_eq!(files.len(), usize::from(expected), "{question:?}");
    }
}
