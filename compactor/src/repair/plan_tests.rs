use super::*;
use crate::reconcile::diff::CellOutcome;
use crate::reconcile::finding::{Named, NamedEvent, Origin};
use crate::reconcile::standing::Head;
use crate::repair::expressions::Expressions;

fn definition() -> Definition {
    Definition::parse("[source]\ntable='t'\nkey=['a']\n[fold]\ngroup_by='g'\nsum=['bytes']", "recount.toml").unwrap()
}

fn delta(events: i64, bytes: i64) -> Delta {
    let bytes = recount_schemas::Amount::from_billionths(i128::from(bytes) * 1_000_000_000);
    Delta { events, sums: [bytes].into_iter().collect() }
}

fn found() -> Found {
    let cell = Cell { group: "acme".parse().unwrap(), month: "2026-11".parse().unwrap(), lane: 0 };
    let key = |n: i64| EventKey::new(1_790_000_000_000 + n, b"x").unwrap();
    let origin = Origin {
        event_id: "e-1".to_owned(),
        shard_id: "shardId-000000000000".parse().unwrap(),
        sequence_number: "7".parse().unwrap(),
        file: "f".to_owned(),
    };
    let event = |n, origin: Option<Origin>| NamedEvent {
        event_key: key(n),
        row: None,
        delta: origin.as_ref().map(|_| delta(1, 5)),
        origin,
    };
    let named = |event| Named { count: 1, events: vec![event] };
    let outcome = CellOutcome {
        expected: delta(5, 50),
        actual: delta(7, 45),
        correction: delta(-3, 0),
        unexplained: None,
        tally: crate::reconcile::coverage::Tally::default(),
        events: 5,
        findings: vec![
            Finding::about(Kind::Missing, &cell, named(event(1, Some(origin.clone()))), ""),
            Finding::about(Kind::Unbacked, &cell, named(event(2, None)), ""),
        ],
        cell,
    };
    let head = Head {
        present: true,
        number: delta(7, 45),
        epoch: 2,
        sealed: None,
        recent: 3,
        repair: Some("before".to_owned()),
        ahead: None,
        behind: false,
    };
    Found { head: Some(head), outcome, raise: None, raised: None }
}

#[test]
fn a_plan_and_its_name_are_stable() {
    let plan = Plan::make(&definition(), &[found()]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&plan).unwrap(), @r###"
    {
      "format": 1,
      "definition": "f220248ab59b3d0902ea6eb2da6cfa369dffaf4166ff079a78bc354a91af1328",
      "cells": [
        {
          "cell": {
            "group": "acme",
            "month": "2026-11",
            "lane": 0
          },
          "seen": "before",
          "add": {
            "events": -3,
            "sums": [
              "0"
            ]
          },
          "missing": [
            {
              "event_key": "01a0c4506c013ae7d805f6789a6402ac",
              "event_id": "e-1",
              "shard_id": "shardId-000000000000",
              "sequence_number": "7",
              "delta": {
                "events": 1,
                "sums": [
                  "5"
                ]
              }
            }
          ],
          "void": [
            "01a0c4506c023ae7d805f6789a6402ac"
          ],
          "settled": []
        }
      ]
    }
    "###);
    insta::assert_snapshot!(plan.hash().unwrap(), @r###"6da717a373695b94e229f9a4d9039ad2bc4539d22b38d6dd49b48291a29c6d72"###);
    let spaced = serde_json::to_vec_pretty(&plan).unwrap();
    let read = Plan::read("plan.json", &spaced, &definition()).unwrap();
    assert_eq!(read.hash().unwrap(), plan.hash().unwrap(), "white space does not matter");
}

#[test]
fn a_plan_of_a_newer_program_or_of_other_totals_is_refused() {
    let other = Definition::parse("[source]\ntable='u'\nkey=['a']\n[fold]\ngroup_by='g'", "recount.toml").unwrap();
    let plan = Plan::make(&definition(), &[found()]);
    let bytes = plan.to_bytes().unwrap();
    assert!(matches!(Plan::read("p", &bytes, &other), Err(PlanError::OtherDefinition { .. })));
    let newer = Plan { format: 2, ..plan }.to_bytes().unwrap();
    assert!(matches!(Plan::read("p", &newer, &definition()), Err(PlanError::Newer { format: 2, .. })));
    for hostile in
        ["", "{}", "[1]", "{\"format\":1}", "{\"format\":1,\"definition\":\"\",\"cells\":[],\"more\":1}", "\u{0}"]
    {
        assert!(
            matches!(Plan::read("p", hostile.as_bytes(), &definition()), Err(PlanError::Malformed { .. })),
            "{hostile}"
        );
    }
}

#[test]
fn invariant_9_a_plan_asked_for_by_its_hash_must_have_it() {
    let plan = Plan::make(&definition(), &[found()]);
    let (hash, bytes) = (plan.hash().unwrap(), plan.to_bytes().unwrap());
    assert_eq!(Plan::read_named(&hash, &bytes, &definition()).unwrap(), plan);
    let text = String::from_utf8(bytes).unwrap();
    let tampered = text.replace("\"events\":-3", "\"events\":1000000");
    assert_ne!(tampered, text);
    let refused = Plan::read_named(&hash, tampered.as_bytes(), &definition()).unwrap_err();
    assert!(matches!(refused, PlanError::OtherContent { .. }), "{refused}");
}

#[test]
fn a_plan_that_no_program_of_ours_made_is_refused() {
    let made = Plan::make(&definition(), &[found()]);
    let spoiled = |spoil: &dyn Fn(&mut Plan)| {
        let mut plan = made.clone();
        spoil(&mut plan);
        Plan::read("p", &plan.to_bytes().unwrap(), &definition())
    };
    assert!(spoiled(&|_| {}).is_ok());
    let spoils: [&dyn Fn(&mut Plan); 5] = [
        &|plan| plan.cells.push(plan.cells[0].clone()),
        &|plan| plan.cells[0].cell.lane = 1,
        &|plan| plan.cells[0].add.sums.clear(),
        &|plan| plan.cells[0].missing[0].delta.sums.push(Default::default()),
        &|plan| {
            let again = plan.cells[0].missing[0].clone();
            plan.cells[0].missing.push(again);
        },
    ];
    for (i, spoil) in spoils.into_iter().enumerate() {
        assert!(matches!(spoiled(spoil), Err(PlanError::Malformed { .. })), "{i}");
    }
}

#[test]
fn a_report_is_known_by_its_name() {
    let hash = "0".repeat(64);
    assert_eq!(Plan::reported(&Plan::report_key(&hash)), Some(hash.as_str()));
    assert_eq!(Plan::reported(&Plan::object_key(&hash)), None);
    assert_eq!(Plan::object_key(&hash), format!("plans/{hash}.json"));
    for bad in ["a".repeat(63), "a".repeat(65), "g".repeat(64)] {
        assert_eq!(Plan::reported(&Plan::report_key(&bad)), None, "{bad}");
    }
    assert_eq!(Plan::reported("plans/x.report.json"), None);
}

#[test]
fn the_update_that_begins_a_repair() {
    let plan = Plan::make(&definition(), &[found()]);
    let text = |cell: &CellPlan| {
        let it = Expressions::correct(cell, "the-plan", &definition());
        format!("{}\nIF {}", it.update, it.condition)
    };
    let plain = plan.cells[0].clone();
    insta::assert_snapshot!(text(&plain), @r###"
    SET #v = if_not_exists(#v, :v), #p = :plan ADD #e :d, #m0 :m0
    IF (attribute_not_exists(#v) OR #v <= :v) AND #p = :seen
    "###);
    let to = Raise { epoch: 6, sealed: EventKey::MAX };
    let absent = CellPlan {
        seen: None,
        raise: Some(RaisePlan { to: to.clone(), from_epoch: None, recent: 0 }),
        ..plain.clone()
    };
    insta::assert_snapshot!(text(&absent), @r###"
    SET #v = if_not_exists(#v, :v), #p = :plan, #epoch = :epoch, #s = :sealed ADD #e :d, #m0 :m0
    IF (attribute_not_exists(#v) OR #v <= :v) AND attribute_not_exists(#p) AND attribute_not_exists(#pk)
    "###);
    let behind = CellPlan { raise: Some(RaisePlan { to, from_epoch: Some(2), recent: 3 }), ..plain };
    insta::assert_snapshot!(text(&behind), @r###"
    SET #v = if_not_exists(#v, :v), #p = :plan, #epoch = :epoch, #s = :sealed ADD #e :d, #m0 :m0
    IF (attribute_not_exists(#v) OR #v <= :v) AND #p = :seen AND #epoch = :was AND size(#r) = :size
    "###);
}

#[test]
fn the_update_that_raises_a_cell_by_itself() {
    let to = Raise { epoch: 6, sealed: EventKey::MAX };
    let text = |it: Expressions| format!("{}\nIF {}", it.update, it.condition);
    insta::assert_snapshot!(text(Expressions::raise(&to, 2)), @r###"
    SET #v = if_not_exists(#v, :v), #epoch = :epoch, #s = :sealed
    IF (attribute_not_exists(#v) OR #v <= :v) AND #epoch = :was
    "###);
    insta::assert_snapshot!(text(Expressions::raise(&to, 0)), @r###"
    SET #v = if_not_exists(#v, :v), #epoch = :epoch, #s = :sealed
    IF (attribute_not_exists(#v) OR #v <= :v) AND attribute_not_exists(#epoch)
    "###);
    let keys = |it: Expressions| {
        let mut keys: Vec<String> = it.values.into_keys().collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(Expressions::raise(&to, 2)), [":epoch", ":sealed", ":v", ":was"]);
    assert_eq!(keys(Expressions::raise(&to, 0)), [":epoch", ":sealed", ":v"], "an unused value is an error");
}

#[test]
fn a_raise_only_ever_goes_up() {
    let low = EventKey::least_at(1);
    let to = Raise { epoch: 6, sealed: EventKey::least_at(2) };
    assert_eq!(to.over(0, None), Some(to.clone()));
    assert_eq!(to.over(5, Some(low)), Some(to.clone()));
    assert_eq!(to.over(5, Some(EventKey::MAX)), Some(Raise { sealed: EventKey::MAX, ..to.clone() }));
    assert_eq!(to.over(6, Some(to.sealed)), None);
    // A `sealed` that is raised comes with a new epoch: writers that searched the pages look again.
    assert_eq!(to.over(6, Some(low)), Some(Raise { epoch: 7, ..to.clone() }));
    assert_eq!(to.over(9, None), Some(Raise { epoch: 10, ..to.clone() }));
}

#[test]
fn what_repair_cannot_do_makes_no_plan() {
    let mut found = found();
    found.outcome.correction = delta(0, 0);
    found.outcome.findings.retain(|finding| finding.kind == Kind::Missing);
    found.outcome.findings[0].kind = Kind::Quarantined;
    assert!(Plan::make(&definition(), &[found.clone()]).is_empty(), "a quarantined event needs a redrive");
    found.outcome.findings[0].kind = Kind::Missing;
    assert!(!Plan::make(&definition(), &[found]).is_empty());
}

#[test]
fn each_thing_to_do_is_enough_for_a_plan() {
    let whole = found();
    let findings = |kinds: &[Kind]| -> Vec<Finding> {
        let finding = |kind: &Kind| Finding { kind: *kind, ..whole.outcome.findings[0].clone() };
        kinds.iter().map(finding).collect()
    };
    let to = Raise { epoch: 6, sealed: EventKey::MAX };
    for (correction, kinds, raise, expected) in [
        (delta(0, 0), vec![], None, None),
        (delta(1, 0), vec![], None, Some((0, 0, 0))),
        (delta(0, 1), vec![], None, Some((0, 0, 0))),
        (delta(0, 0), vec![Kind::Missing], None, Some((1, 0, 0))),
        (delta(0, 0), vec![Kind::Unbacked], None, Some((0, 1, 0))),
        (delta(0, 0), vec![Kind::WrongCell, Kind::Conflicting], None, Some((0, 2, 0))),
        (delta(0, 0), vec![Kind::TooOld], None, Some((0, 0, 1))),
        (delta(0, 0), vec![], Some(to.clone()), Some((0, 0, 0))),
        (delta(0, 0), vec![Kind::Quarantined, Kind::Damaged], None, None),
    ] {
        let mut found = found();
        found.outcome.correction = correction.clone();
        found.outcome.findings = findings(&kinds);
        found.raise = raise.clone();
        let plan = Plan::make(&definition(), &[found]);
        let done = plan.cells.first().map(|cell| (cell.missing.len(), cell.void.len(), cell.settled.len()));
        assert_eq!(done, expected, "{correction:?} {kinds:?} {raise:?}");
        assert_eq!(
            plan.cells.first().map(|cell| (&cell.add, cell.raise.is_some())),
            expected.map(|_| (&correction, raise.is_some()))
        );
    }
}

#[test]
fn a_plan_for_all_that_one_comparison_names_can_be_read_again() {
    use crate::reconcile::join::{MAX_CELLS_FOUND, MAX_NAMED_IN_ALL};
    let size = |found: &[Found]| Plan::make(&definition(), found).to_bytes().unwrap().len();
    let mut one = found();
    one.outcome.cell.group = "g".repeat(500).parse().unwrap();
    one.outcome.findings.retain(|finding| finding.kind == Kind::Missing);
    let mut two = one.clone();
    let events = &mut two.outcome.findings[0].events;
    events.push(events[0].clone());
    let (cell, event) = (size(&[one.clone(), one.clone()]) - size(&[one.clone()]), size(&[two]) - size(&[one]));
    assert!((cell * MAX_CELLS_FOUND + event * MAX_NAMED_IN_ALL) as u64 <= MAX_BYTES);
}
