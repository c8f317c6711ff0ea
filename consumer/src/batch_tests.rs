use super::*;
use recount_schemas::{Ignored, QuarantineCode};

const DEFINITION: &str = r#"
[source]
table = "scans"
key = ["scan_id"]
[fold]
group_by = "project_id"
count = "net"
sum = ["bytes"]
"#;
const CREATED_MS: i64 = 1_795_350_000_000;

fn definition() -> Definition {
    Definition::parse(DEFINITION, "test").unwrap()
}

fn image(project: &str, bytes: u32) -> String {
    format!(r#"{{"scan_id":{{"S":"x"}},"project_id":{{"S":"{project}"}},"bytes":{{"N":"{bytes}"}}}}"#)
}

fn change(id: &str, name: &str, images: &str) -> String {
    format!(
        r#"{{"awsRegion":"r","eventID":"{id}","eventName":"{name}","userIdentity":null,"recordFormat":"application/json",
        "tableName":"scans","dynamodb":{{"ApproximateCreationDateTime":{CREATED_MS},"Keys":{{"scan_id":{{"S":"x"}}}},{images},"SizeBytes":1}},
        "eventSource":"aws:dynamodb"}}"#
    )
}

fn insert(id: &str, project: &str) -> String {
    change(id, "INSERT", &format!(r#""NewImage":{}"#, image(project, 5)))
}

fn record(shard: &str, sequence: &str, data: &str) -> String {
    format!(
        r#"{{"kinesis":{{"partitionKey":"p","sequenceNumber":"{sequence}","data":"{data}","approximateArrivalTimestamp":1795350001.5}},
        "eventID":"{shard}:{sequence}","eventSourceARN":"arn:aws:kinesis:r:1:stream/changes"}}"#
    )
}

fn event(records: &[(&str, &str, String)]) -> String {
    let records: Vec<_> =
        records.iter().map(|(shard, sequence, data)| record(shard, sequence, &STANDARD.encode(data))).collect();
    format!(r#"{{"Records":[{}]}}"#, records.join(","))
}

fn judge(event: &str) -> (Batch, Work) {
    Batch::judge(event.as_bytes(), &definition()).unwrap()
}

fn verdicts(batch: &Batch) -> Vec<Option<Verdict>> {
    batch.verdicts().map(|(_, verdict)| verdict).collect()
}

fn reach(batch: &Batch) -> Reach {
    let shard = "s-0".parse().unwrap();
    batch.reaches()[&("changes", &shard)].clone()
}

fn keys(work: &CellWork) -> Vec<EventKey> {
    work.entries.iter().map(|entry| entry.key).collect()
}

#[test]
fn records_are_folded_by_cell_and_a_repeated_key_goes_once() {
    let (mut batch, work) = judge(&event(&[
        ("s-0", "1", insert("a", "acme")),
        ("s-0", "2", insert("b", "acme")),
        ("s-0", "3", insert("a", "acme")),
        ("s-0", "4", insert("c", "other")),
    ]));
    assert_eq!(
        work.cells.iter().map(|work| (work.cell.group.as_str(), work.entries.len())).collect::<Vec<_>>(),
        [("acme", 2), ("other", 1)]
    );
    assert!(work.cells.iter().flat_map(|work| &work.entries).all(|entry| entry.delta.events == 1));
    let acme = Applied { applied: keys(&work.cells[0]), ..Applied::default() };
    batch.settle_cell(&work.cells[0], Some(&acme));
    batch.settle_cell(&work.cells[1], Some(&Applied { duplicates: keys(&work.cells[1]), ..Applied::default() }));
    use Verdict::{Applied as Counted, Duplicate};
    assert_eq!(verdicts(&batch), [Some(Counted), Some(Counted), Some(Duplicate), Some(Duplicate)]);
    assert_eq!(batch.newest_us, Some(1_795_350_001_500_000));
}

#[test]
fn invariant_10_a_bad_record_delays_no_good_one() {
    let good = record("s-0", "1", &STANDARD.encode(insert("a", "acme")));
    let junk = record("s-0", "2", "%%%");
    let odd = record("s-0", "3", &STANDARD.encode("{}"));
    let (mut batch, work) = judge(&format!(r#"{{"Records":[{good},{junk},{odd}]}}"#));
    assert_eq!(work.quarantine.len(), 2);
    let (index, bad) = &work.quarantine[0];
    assert_eq!((*index, bad.raw, bad.data.as_str(), bad.reason.code), (1, true, "%%%", QuarantineCode::BadBase64));
    let (_, odd) = &work.quarantine[1];
    assert_eq!((odd.raw, STANDARD.decode(&odd.data).unwrap()), (false, b"{}".to_vec()));
    batch.settle_cell(&work.cells[0], Some(&Applied { applied: keys(&work.cells[0]), ..Applied::default() }));
    let all = verdicts(&batch);
    assert_eq!(all[0], Some(Verdict::Applied));
    assert!(matches!(all[1], Some(Verdict::Quarantined(_))));
    let it = reach(&batch);
    assert_eq!((it.lowest_failed, it.done), (None, Some("3".parse().unwrap())));
    // Quarantine that cannot be written: the record comes again, so nothing is lost.
    batch.quarantine_failed(1);
    assert_eq!(verdicts(&batch)[1], None);
    let it = reach(&batch);
    assert_eq!((it.lowest_failed, it.done), (Some("2".parse().unwrap()), Some("1".parse().unwrap())));
}

#[test]
fn invariant_10_records_of_a_cell_that_is_not_understood_are_passed() {
    let images = format!(r#""NewImage":{},"OldImage":{}"#, image("new", 7), image("old", 5));
    let text = event(&[
        ("s-0", "1", insert("a", "new")),
        ("s-0", "2", change("m", "MODIFY", &images)),
        ("s-0", "3", insert("b", "good")),
    ]);
    let (mut batch, work) = judge(&text);
    for cell in &work.cells {
        match cell.cell.group.as_str() {
            "new" => batch.settle_unusable(cell),
            _ => batch.settle_cell(cell, Some(&Applied { applied: keys(cell), ..Applied::default() })),
        }
    }
    let unusable = Some(Verdict::Unusable);
    assert_eq!(verdicts(&batch), [unusable.clone(), unusable, Some(Verdict::Applied)]);
    let it = reach(&batch);
    assert_eq!((it.lowest_failed, it.done), (None, Some("3".parse().unwrap())), "the shard moves on");
}

#[test]
fn a_move_between_cells_is_applied_when_both_have_it() {
    let images = format!(r#""NewImage":{},"OldImage":{}"#, image("new", 7), image("old", 5));
    let text = event(&[("s-0", "1", change("m", "MODIFY", &images))]);
    let (_, work) = judge(&text);
    assert_eq!(work.cells.len(), 2);
    let done = |cell: &CellWork| Applied { applied: keys(cell), ..Applied::default() };
    let known = |cell: &CellWork| Applied { duplicates: keys(cell), ..Applied::default() };
    let old = |cell: &CellWork| Applied { too_old: keys(cell), ..Applied::default() };
    type Answer<'a> = Option<&'a dyn Fn(&CellWork) -> Applied>;
    let (done, known, old): (Answer<'_>, Answer<'_>, Answer<'_>) = (Some(&done), Some(&known), Some(&old));
    for (first, second, verdict) in [
        (done, done, Some(Verdict::Applied)),
        (done, known, Some(Verdict::Applied)),
        (known, known, Some(Verdict::Duplicate)),
        (known, old, Some(Verdict::TooOld)),
        (done, old, Some(Verdict::TooOld)),
        (done, None, None),
        (None, known, None),
    ] {
        let (mut batch, work) = judge(&text);
        for (cell, answer) in work.cells.iter().zip([first, second]) {
            batch.settle_cell(cell, answer.map(|answer| answer(cell)).as_ref());
        }
        assert_eq!(verdicts(&batch), [verdict]);
    }
}

#[test]
fn sequence_numbers_are_compared_as_numbers_and_shards_apart() {
    let (batch, work) = judge(&event(&[
        ("s-0", "100", insert("b", "acme")),
        ("s-0", "9", insert("a", "acme")),
        ("s-1", "50", change("t", "REMOVE", &format!(r#""OldImage":{}"#, image("acme", 1))).replace("scans", "others")),
        ("s-0", "10", insert("c", "acme")),
    ]));
    assert_eq!(work.cells.len(), 1);
    // No cell was applied: all of its records failed.
    let shards = ["s-0".parse().unwrap(), "s-1".parse().unwrap()];
    let reaches = batch.reaches();
    assert_eq!(reaches[&("changes", &shards[0])], Reach { lowest_failed: Some("9".parse().unwrap()), done: None });
    assert_eq!(reaches[&("changes", &shards[1])], Reach { lowest_failed: None, done: Some("50".parse().unwrap()) });
    assert_eq!(verdicts(&batch)[2], Some(Verdict::Ignored(Ignored::OtherTable)));
}

#[test]
fn an_event_without_records_is_fine() {
    let (batch, work) = judge(r#"{"Records":[]}"#);
    assert!(work.cells.is_empty() && batch.reaches().is_empty() && verdicts(&batch).is_empty());
}

#[cfg(feature = "bugs")]
#[test]
fn the_tests_of_a_batch_show_the_deliberate_bugs() {
    use recount_schemas::bugs::{Bug, within};
    let shows = |bug, test: fn()| assert!(std::panic::catch_unwind(|| within(bug, test)).is_err(), "{bug}");
    shows(Bug::FailedCellIsDone, a_move_between_cells_is_applied_when_both_have_it);
    shows(Bug::ReportsHighestFailed, sequence_numbers_are_compared_as_numbers_and_shards_apart);
    shows(Bug::ProgressPassesAFailure, invariant_10_a_bad_record_delays_no_good_one);
    shows(Bug::SequenceNumbersAsText, sequence_numbers_are_compared_as_numbers_and_shards_apart);
    shows(Bug::FoldsDuplicates, records_are_folded_by_cell_and_a_repeated_key_goes_once);
}
