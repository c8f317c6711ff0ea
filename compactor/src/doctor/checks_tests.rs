//! A deployment as the template makes it, and each single thing that can be wrong with it.

use super::*;
use crate::archive::finish::Shown;
use crate::doctor::Report;
use crate::doctor::facts::{BucketFacts, TableStream};
use crate::doctor::policy::LogPolicy;

const ARN: &str = "arn:aws:kinesis:eu-north-1:123456789012:stream/changes";

fn table(key: &[(&str, &str)], expires: Option<&str>) -> Fact<Table> {
    Fact::Is(Table {
        status: "ACTIVE".into(),
        key: key.iter().map(|(name, kind)| ((*name).into(), (*kind).into())).collect(),
        recovery: Fact::Is(true),
        stream: None,
        expires_by: Fact::Is(expires.map(str::to_owned)),
    })
}

fn enabled() -> Mapping {
    Mapping {
        state: "Enabled".into(),
        source: ARN.into(),
        window_seconds: Some(1),
        reports_failures: true,
        bisects: true,
        retries: Some(50),
        record_age_seconds: Some(518_400),
        parallelization: Some(1),
        starts_at: "TRIM_HORIZON".into(),
        on_failure: Some("arn:aws:s3:::archive".into()),
        filters: 0,
        tumbling_seconds: None,
    }
}

fn no<T>() -> Fact<T> {
    Fact::Absent("nothing there".into())
}

fn facts() -> Facts {
    let of = |hash: &str| Fact::Is(Some(hash.to_owned()));
    let destination =
        Destination { stream: ARN.into(), status: "ACTIVE".into(), precision: Some("MICROSECOND".into()) };
    let shown = Some(Shown::first(7, 1));
    Facts {
        source_name: "scans".into(),
        source_key: vec!["scan_id".into()],
        ledger_days: 35,
        definition: "d".into(),
        definitions: vec![("totals table", of("d")), ("consumer", of("d")), ("compactor", of("d"))],
        source: table(&[("scan_id", "S")], None),
        destinations: Fact::Is(vec![destination]),
        relay: Fact::Is(None),
        stream: Fact::Is(Stream { arn: ARN.into(), status: "ACTIVE".into(), retention_hours: 168 }),
        consumer: Fact::Is(enabled()),
        totals: table(&[("pk", "S"), ("sk", "S")], None),
        ledger: table(&[("pk", "S"), ("sk", "B")], Some("expires")),
        progress: table(&[("pk", "S"), ("sk", "S")], None),
        bucket: BucketFacts {
            lists: Fact::Is(()),
            versioned: Fact::Is(true),
            private: Fact::Is(true),
            expires: Fact::Is(vec!["athena/".into()]),
            policy: Fact::Is(LogPolicy { kept: true, append_only: true }),
        },
        log: Fact::Is(9),
        partitions: Fact::Is(vec![Placed { month: "2026-11".parse().unwrap(), version: 7, shown }]),
        clock_ms: Fact::Is(-900),
    }
}

/// What is not fine, and how.
fn wrong(facts: &Facts) -> Vec<(String, Outcome)> {
    let of = |check: Check| (check.outcome != Outcome::Fine).then_some((check.what, check.outcome));
    check(facts).into_iter().filter_map(of).collect()
}

fn changed<T>(fact: &mut Fact<T>, change: impl FnOnce(&mut T)) {
    match fact {
        Fact::Is(value) => change(value),
        _ => panic!("nothing to change"),
    }
}

#[test]
fn what_the_template_makes_is_fine() {
    assert_eq!(wrong(&facts()), []);
    assert_eq!(Report::new(check(&facts())).verdict, Outcome::Fine);
    assert!(check(&facts()).iter().all(|check| check.cure.is_empty()));
}

type Change = Box<dyn Fn(&mut Facts)>;

fn of<T: 'static>(get: fn(&mut Facts) -> &mut Fact<T>, change: impl Fn(&mut T) + 'static) -> Change {
    Box::new(move |facts| changed(get(facts), &change))
}

#[test]
fn each_thing_that_is_wrong_is_found_alone() {
    let mapping = |change: fn(&mut Mapping)| of(|facts| &mut facts.consumer, change);
    let cases: Vec<(&str, Change)> = vec![
        ("consumer mapping: state", mapping(|m| m.state = "Disabled".into())),
        ("consumer mapping: source", mapping(|m| m.source = format!("{ARN}-2"))),
        ("consumer mapping: batch window", mapping(|m| m.window_seconds = Some(0))),
        ("consumer mapping: batch window", mapping(|m| m.window_seconds = None)),
        ("consumer mapping: reports failures", mapping(|m| m.reports_failures = false)),
        ("consumer mapping: bisects", mapping(|m| m.bisects = false)),
        ("consumer mapping: retries", mapping(|m| m.retries = Some(-1))),
        ("consumer mapping: retries", mapping(|m| m.retries = None)),
        ("consumer mapping: record age", mapping(|m| m.record_age_seconds = Some(-1))),
        ("consumer mapping: record age", mapping(|m| m.record_age_seconds = Some(604_800))),
        ("consumer mapping: parallelization", mapping(|m| m.parallelization = Some(2))),
        ("consumer mapping: start", mapping(|m| m.starts_at = "LATEST".into())),
        ("consumer mapping: on-failure destination", mapping(|m| m.on_failure = None)),
        ("consumer mapping: filters", mapping(|m| m.filters = 1)),
        ("consumer mapping: tumbling window", mapping(|m| m.tumbling_seconds = Some(60))),
        ("source table: key", of(|f| &mut f.source, |t| t.key[0].0 = "id".into())),
        ("capture", of(|f| &mut f.destinations, |all| all.clear())),
        ("capture", of(|f| &mut f.destinations, |all| all[0].status = "DISABLED".into())),
        ("capture", of(|f| &mut f.destinations, |all| all[0].status = "ENABLING".into())),
        ("capture", of(|f| &mut f.destinations, |all| all[0].stream = "another".into())),
        ("capture", Box::new(|f| f.relay = Fact::Is(Some(enabled())))),
        ("capture: precision", of(|f| &mut f.destinations, |all| all[0].precision = Some("MILLISECOND".into()))),
        ("capture: precision", of(|f| &mut f.destinations, |all| all[0].precision = None)),
        ("stream: retention", Box::new(|f| f.ledger_days = 9)),
        ("totals table", of(|f| &mut f.totals, |t| t.status = "there is no table totals".into())),
        ("totals table: key", of(|f| &mut f.totals, |t| t.key[1].1 = "B".into())),
        ("totals table: expiry", of(|f| &mut f.totals, |t| t.expires_by = Fact::Is(Some("expires".into())))),
        ("ledger table: expiry", of(|f| &mut f.ledger, |t| t.expires_by = Fact::Is(None))),
        ("ledger table: key", of(|f| &mut f.ledger, |t| t.key[1].1 = "S".into())),
        ("progress table: recovery", of(|f| &mut f.progress, |t| t.recovery = Fact::Is(false))),
        ("bucket: versions", of(|f| &mut f.bucket.versioned, |on| *on = false)),
        ("bucket: public access", of(|f| &mut f.bucket.private, |on| *on = false)),
        ("bucket: expiry", of(|f| &mut f.bucket.expires, |all| all.push(String::new()))),
        ("bucket: expiry", of(|f| &mut f.bucket.expires, |all| all.push("events/month=2024".into()))),
        ("bucket: expiry", of(|f| &mut f.bucket.expires, |all| all.push("_".into()))),
        ("bucket: expiry", of(|f| &mut f.bucket.expires, |all| all.push("_switch/".into()))),
        ("bucket: deleting from the log", of(|f| &mut f.bucket.policy, |policy| policy.kept = false)),
        ("bucket: overwriting in the log", of(|f| &mut f.bucket.policy, |policy| policy.append_only = false)),
        ("bucket: expiry", of(|f| &mut f.bucket.expires, |all| all.push("backfills/parts/".into()))),
        ("partitions", of(|f| &mut f.partitions, |all| all[0].shown = None)),
        ("partitions", of(|f| &mut f.partitions, |all| all[0].version = 8)),
        ("definition: consumer", Box::new(|f| f.definitions[1].1 = Fact::Is(Some("e".into())))),
        ("clock", of(|f| &mut f.clock_ms, |ms| *ms = 61_000)),
        ("clock", of(|f| &mut f.clock_ms, |ms| *ms = -61_000)),
        ("stream", of(|f| &mut f.stream, |s| s.status = "DELETING".into())),
    ];
    for (i, (what, change)) in cases.iter().enumerate() {
        let mut facts = facts();
        change(&mut facts);
        assert_eq!(wrong(&facts), [((*what).to_owned(), Outcome::Wrong)], "case {i}");
        assert!(
            check(&facts).iter().all(|check| (check.outcome == Outcome::Fine) == check.cure.is_empty()),
            "case {i}"
        );
        assert_eq!(Report::new(check(&facts)).verdict, Outcome::Wrong);
    }
}

const TABLE_STREAM: &str = "arn:aws:dynamodb:eu-north-1:123456789012:table/scans/stream/2026-11-01T00:00:00.000";

fn relayed() -> Facts {
    let mut facts = facts();
    facts.destinations = Fact::Is(Vec::new());
    let (source, record_age_seconds) = (TABLE_STREAM.to_owned(), Some(79_200));
    facts.relay = Fact::Is(Some(Mapping { source, record_age_seconds, ..enabled() }));
    let stream = TableStream { arn: TABLE_STREAM.into(), view: "NEW_AND_OLD_IMAGES".into() };
    changed(&mut facts.source, |table| table.stream = Some(stream));
    facts
}

#[test]
fn a_relay_is_a_capture_and_its_mapping_is_checked() {
    assert_eq!(wrong(&relayed()), []);
    let mapping = |change: fn(&mut Mapping)| {
        of(|facts| &mut facts.relay, move |mapping: &mut Option<Mapping>| change(mapping.as_mut().unwrap()))
    };
    let source = |change: fn(&mut Option<TableStream>)| {
        of(|facts| &mut facts.source, move |t: &mut Table| change(&mut t.stream))
    };
    let cases: Vec<(&str, Change)> = vec![
        ("relay mapping: retries", mapping(|m| m.retries = Some(-1))),
        // DynamoDB Streams keep changes for a day, whatever the Kinesis stream does.
        ("relay mapping: record age", mapping(|m| m.record_age_seconds = Some(86_400))),
        // The table's stream was turned off and on again, or only off: the mapping is enabled and reads nothing.
        ("relay mapping: source", source(|s| s.as_mut().unwrap().arn.push('1'))),
        ("relay mapping: source", source(|s| *s = None)),
        ("relay mapping: view", source(|s| s.as_mut().unwrap().view = "NEW_IMAGE".into())),
    ];
    for (what, change) in cases {
        let mut facts = relayed();
        change(&mut facts);
        assert_eq!(wrong(&facts), [(what.to_owned(), Outcome::Wrong)]);
    }
}

/// Both ways at once count everything twice: whoever saw one of them only does not know.
#[test]
fn one_way_of_capture_is_not_the_only_one_until_the_other_was_looked_at() {
    for (relay, outcome) in [(no(), Outcome::NotChecked), (Fact::Unseen("denied".into()), Outcome::Undecided)] {
        let facts = Facts { relay, ..facts() };
        assert_eq!(wrong(&facts), [("capture: no relay beside it".to_owned(), outcome)]);
        // And one that is not seen may be the only one.
        let none = Facts { destinations: Fact::Is(Vec::new()), ..facts };
        assert_eq!(wrong(&none), [("capture".to_owned(), outcome)]);
    }
    for (destinations, outcome) in [(no(), Outcome::NotChecked), (Fact::Unseen("denied".into()), Outcome::Undecided)] {
        let facts = Facts { destinations, ..relayed() };
        assert_eq!(wrong(&facts), [("capture: no destination beside it".to_owned(), outcome)]);
    }
}

#[test]
fn what_is_not_there_is_not_checked_and_what_is_refused_is_undecided() {
    let mut facts = facts();
    (facts.consumer, facts.partitions, facts.destinations) = (no(), no(), no());
    changed(&mut facts.totals, |table| table.recovery = no());
    facts.definitions[0].1 = Fact::Is(None);
    let names = ["capture", "consumer mapping", "totals table: recovery", "partitions", "definition: totals table"];
    let expected: Vec<_> = names.iter().map(|name| ((*name).to_owned(), Outcome::NotChecked)).collect();
    assert_eq!(wrong(&facts), expected);
    assert_eq!(Report::new(check(&facts)).verdict, Outcome::Fine);

    facts.ledger = Fact::Unseen("AccessDeniedException".into());
    assert!(wrong(&facts).contains(&("ledger table".to_owned(), Outcome::Undecided)));
    assert_eq!(Report::new(check(&facts)).verdict, Outcome::Undecided);
    // What is wrong comes first: it is wrong whatever else there is to see.
    facts.clock_ms = Fact::Is(1_000_000);
    assert_eq!(Report::new(check(&facts)).verdict, Outcome::Wrong);
    assert_eq!(Report::new(Vec::new()).verdict, Outcome::Undecided);
}

#[test]
fn a_policy_that_may_not_be_read_is_undecided() {
    let mut facts = facts();
    facts.bucket.policy = Fact::Unseen("AccessDenied".into());
    assert_eq!(wrong(&facts), [("bucket: policy".to_owned(), Outcome::Undecided)]);
    facts.bucket.policy = Fact::Is(LogPolicy::default());
    let found = check(&facts).into_iter().filter(|check| check.outcome == Outcome::Wrong).map(|check| check.cure);
    assert_eq!(found.collect::<Vec<_>>().len(), 2, "there is no policy");
}
