use std::collections::{BTreeMap, HashMap, HashSet};

use recount_schemas::change::{Form, Precision};
use recount_schemas::{Change, Definition, EventName};

use super::super::tally::Tally;
use super::*;

fn settings() -> LoadSettings {
    let until_us = "2026-04-10T22:30:00Z".parse::<jiff::Timestamp>().unwrap().as_microsecond();
    LoadSettings {
        updates: 0.3,
        deletes: 0.2,
        months: 4,
        zone: jiff::tz::TimeZone::get("Europe/Berlin").unwrap(),
        ..LoadSettings::new(700, until_us)
    }
}

fn created(written: &Written) -> i64 {
    Change::decode(written.record.text.as_bytes()).unwrap().created_us
}

#[test]
fn records_are_what_kinesis_data_streams_for_dynamodb_writes() {
    let settings = settings();
    let mut ids = HashSet::new();
    let mut last = 0;
    for written in Changes::new(&settings, "scans").unwrap() {
        let change = Change::decode(written.record.text.as_bytes()).unwrap();
        assert_eq!((change.form, change.table.as_ref()), (Form::Kinesis, "scans"));
        assert_eq!(change.precision, Precision::Microsecond);
        assert!(
            change.created_us > last && change.created_us <= settings.until_us,
            "in order, none later than the end"
        );
        last = change.created_us;
        let images = (change.new_image.is_some(), change.old_image.is_some());
        let expected = match change.event_name {
            EventName::Insert => (true, false),
            EventName::Modify => (true, true),
            EventName::Remove => (false, true),
        };
        assert_eq!(images, expected);
        assert_eq!(written.record.partition_key, partition::key("scans", change.keys.unwrap()));
        assert!(ids.insert(change.event_id.into_owned()));
    }
    assert!(ids.len() > 900);
}

#[test]
fn the_first_record() {
    let first = Changes::new(&LoadSettings { zipf: 0.0, projects: 1, ..settings() }, "scans").unwrap().next().unwrap();
    insta::assert_snapshot!(first.record.text, @r#"{"awsRegion":"us-east-1","dynamodb":{"ApproximateCreationDateTime":1775860199790076,"ApproximateCreationDateTimePrecision":"MICROSECOND","Keys":{"scan_id":{"S":"5165bad120ecc7ba72f99fe87eb6ec1b"}},"NewImage":{"bytes":{"N":"107035"},"file_name":{"S":"000000/data.bin"},"project_id":{"S":"project-0001"},"scan_id":{"S":"5165bad120ecc7ba72f99fe87eb6ec1b"},"scanned_at":{"S":"2026-01-26T05:50:35.654804Z"},"sha256":{"S":"b13d86b0c97af52a31c88b475661cd0496452744697821fdf6da5db7b7bda47c"},"verdict":{"S":"clean"}},"SizeBytes":252},"eventID":"846046be-37dd-b95d-6643-fa7653b4d006","eventName":"INSERT","eventSource":"aws:dynamodb","recordFormat":"application/json","tableName":"scans","userIdentity":null}"#);
}

#[test]
fn duplicates_repeat_a_record_word_for_word() {
    let plain: Vec<_> = Changes::new(&settings(), "scans").unwrap().filter_map(|written| written.operation).collect();
    let settings = LoadSettings { duplicates: 0.25, ..settings() };
    let mut before = HashSet::new();
    let (mut operations, mut duplicates) = (Vec::new(), 0);
    for written in Changes::new(&settings, "scans").unwrap() {
        match written.operation {
            Some(operation) => {
                operations.push(operation);
                assert!(before.insert(written.record.text));
            }
            None => {
                duplicates += 1;
                assert!(before.contains(&written.record.text));
            }
        }
    }
    assert_eq!(operations, plain, "duplicates change no operation");
    let share = f64::from(duplicates) / operations.len() as f64;
    assert!((share - 0.25).abs() < 0.05, "{share}");
}

#[test]
fn disorder_is_bounded_and_loses_nothing() {
    let ordered: Vec<_> = Changes::new(&settings(), "scans").unwrap().collect();
    let settings = LoadSettings { out_of_order: 0.2, ..settings() };
    let written: Vec<_> = Changes::new(&settings, "scans").unwrap().collect();
    assert_eq!(written.len(), ordered.len());
    let times: HashSet<_> = written.iter().map(created).collect();
    assert_eq!(times.len(), written.len());
    let descents = written.windows(2).filter(|two| created(&two[0]) > created(&two[1])).count();
    let held = written.iter().filter(|written| written.held_back).count();
    assert!(descents > 30 && held > 100, "{descents} {held}");
    let mut sorted: Vec<_> = written.iter().map(created).collect();
    sorted.sort_unstable();
    for (place, written) in written.iter().enumerate() {
        let turn = sorted.binary_search(&created(written)).unwrap();
        assert!(place.abs_diff(turn) <= 2 * HELD as usize, "{place} {turn}");
    }
}

const DEFINITION: &str = r#"
[source]
table = "scans"
key = ["scan_id"]
[fold]
group_by = "project_id"
occurred_at = "scanned_at"
time_zone = "Europe/Berlin"
sum = ["bytes"]
count = "inserts"
"#;

type Totals = BTreeMap<(String, String), (i64, i64)>;

/// Folds distinct records as the consumer would.
fn folded(definition: &str) -> Totals {
    let definition = Definition::parse(definition, "x").unwrap();
    let settings = LoadSettings { duplicates: 0.2, out_of_order: 0.2, ..settings() };
    let mut seen: HashMap<_, i64> = HashMap::new();
    let mut totals = Totals::new();
    for written in Changes::new(&settings, "scans").unwrap() {
        let judged = definition.judge(written.record.text.as_bytes(), settings.until_us).unwrap();
        let count = seen.entry(judged.key).or_default();
        *count += 1;
        if *count > 1 {
            continue;
        }
        for (cell, delta) in judged.effect.contributions() {
            let total = totals.entry((cell.group.as_str().to_owned(), cell.month.to_string())).or_default();
            total.0 += delta.events;
            total.1 += i64::try_from(delta.sums[0].billionths() / 1_000_000_000).unwrap();
        }
    }
    totals.retain(|_, total| *total != (0, 0));
    totals
}

#[test]
fn the_fold_of_the_records_is_the_plain_tally() {
    let mut tally = Tally::new(settings().zone);
    Changes::new(&settings(), "scans").unwrap().filter_map(|written| written.operation).for_each(|o| tally.add(&o));
    let rows = tally.rows();
    let months: HashSet<_> = rows.iter().map(|row| row.month.as_str()).collect();
    assert_eq!(months, HashSet::from(["2026-01", "2026-02", "2026-03", "2026-04"]));
    let mut inserts = Totals::new();
    let mut net = Totals::new();
    for row in rows {
        let at = (row.project, row.month);
        inserts.insert(at.clone(), (row.inserts, row.inserted_bytes));
        net.insert(at, (row.live, row.live_bytes));
    }
    inserts.retain(|_, total| *total != (0, 0));
    net.retain(|_, total| *total != (0, 0));
    assert_eq!(folded(DEFINITION), inserts);
    assert_eq!(folded(&DEFINITION.replace("\"inserts\"", "\"net\"")), net);
}
