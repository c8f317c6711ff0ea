use super::*;
use crate::athena::Asked;
use crate::reconcile::Coverage;
use crate::reconcile::finding::{Finding, Kind, Named, NamedEvent, Origin};
use recount_schemas::{Cell, EventKey};

fn event(n: i64, origin: bool) -> NamedEvent {
    let origin = origin.then(|| Origin {
        event_id: format!("f89436e0-{n}\u{1b}[2J"),
        shard_id: "shardId-000000000001".parse().unwrap(),
        sequence_number: "49654567890123456789012345678901234567890123456789012345".parse().unwrap(),
        file: "events/month=2026-11/000000000000/000000000003-0.parquet".to_owned(),
    });
    NamedEvent { event_key: EventKey::new(1_790_000_000_000 + n, b"x").unwrap(), origin, row: None, delta: None }
}

fn report() -> Reconciliation {
    let cell = Cell { group: "acme\u{202e}\n".parse().unwrap(), month: "2026-11".parse().unwrap(), lane: 0 };
    let named = |events: Vec<NamedEvent>| Named { count: events.len() as u64, events };
    let mut missing = Finding::about(Kind::Missing, &cell, named(vec![event(1, true)]), Kind::Missing.meaning());
    (missing.expected, missing.actual) = (1_234_567, 1_234_566);
    missing.expected_sums.insert("bytes".to_owned(), "12.5".parse().unwrap());
    missing.actual_sums.insert("bytes".to_owned(), "11".parse().unwrap());
    let mut unbacked = Finding::about(Kind::Unbacked, &cell, named(vec![event(2, false)]), Kind::Unbacked.meaning());
    (unbacked.expected, unbacked.actual) = (5, 6);
    Reconciliation {
        verdict: Verdict::Findings,
        undecided_because: None,
        cells: 12,
        events: 1_234_567,
        coverage: Some(Coverage {
            events: 1_234_568,
            verified: 1_234_566,
            oldest_unverified_ms: Some(1_790_000_000_001),
            oldest_unverified_age_s: Some(840),
        }),
        quarantined: 1,
        findings: vec![missing, unbacked],
        more_cells: 0,
        athena: None,
    }
}

#[test]
fn a_reconciliation_for_people() {
    insta::assert_snapshot!(reconciliation(&report()), @r###"
    ─────────────────────────────────────────────────────────────────────────────────
     finding    group            month     lane     expected      actual      effect
    ═════════════════════════════════════════════════════════════════════════════════
     missing    acme\u{202e}\n   2026-11   0       1,234,567   1,234,566   1 too few
                                                  bytes 12.5    bytes 11
     unbacked   acme\u{202e}\n   2026-11   0
    ─────────────────────────────────────────────────────────────────────────────────

    missing acme\u{202e}\n 2026-11: 1 event: archived and passed by the consumer, but not counted
      f89436e0-1\u{1b}[2J in shardId-000000000001 at 49654567890123456789012345678901234567890123456789012345
    unbacked acme\u{202e}\n 2026-11: 1 event: counted, but no archived event has this key
      01a0c4506c023ae7d805f6789a6402ac

    2 findings in 1 cell (12 cells, 1,234,567 archived events compared; 1 record in quarantine)
    99.99 % of events verified, the oldest unverified is 14 min old
    "###);
    let asked = Asked { query: "0f\u{1b}".into(), scanned_bytes: 33_000, files: 1, rows: 1_234_567, entries: 9 };
    let by_athena = Reconciliation { athena: Some(ByAthena { asked, cells_read: 2 }), ..report() };
    insta::assert_snapshot!(reconciliation(&by_athena).lines().last().unwrap(), @r"Athena read 1 file with 1,234,567 rows (33,000 bytes scanned, query 0f\u{1b}); the events of 2 cells were read here");
    let clean = Reconciliation { verdict: Verdict::Clean, findings: vec![], ..report() };
    insta::assert_snapshot!(reconciliation(&clean), @r"
    clean: every total equals its archived events (12 cells, 1,234,567 archived events compared; 1 record in quarantine)
    99.99 % of events verified, the oldest unverified is 14 min old
    ");
}

#[test]
fn what_is_not_understood_has_no_number() {
    let cell = Cell { group: "acme".parse().unwrap(), month: "2026-11".parse().unwrap(), lane: 2 };
    let unusable = Finding::about(Kind::Unusable, &cell, Named::default(), Kind::Unusable.meaning());
    let lost = Finding::about_none(Kind::Lost, "stream s may have dropped records".to_owned());
    let text = reconciliation(&Reconciliation { findings: vec![lost, unusable], coverage: None, ..report() });
    insta::assert_snapshot!(text, @r"
    ────────────────────────────────────────────────────────────────
     finding    group   month     lane   expected   actual   effect
    ════════════════════════════════════════════════════════════════
     lost       -       -         -             -        -        -
     unusable   acme    2026-11   2             -        -        -
    ────────────────────────────────────────────────────────────────

    lost: stream s may have dropped records
    unusable acme 2026-11 lane 2: an item that is not understood; mend or delete it, then repair

    2 findings in 1 cell (12 cells, 1,234,567 archived events compared; 1 record in quarantine)
    ");
}

#[test]
fn what_is_in_quarantine_is_named_by_its_object() {
    let record = crate::reconcile::evidence::ListedRecord {
        object: "quarantine/shardId-000000000001/4965".to_owned(),
        shard_id: "shardId-000000000001".parse().unwrap(),
        sequence_number: "4965".parse().unwrap(),
        arrived_us: Some(1_790_000_000_000_000),
        reason: "not_a_change: \u{1b}[2J".to_owned(),
    };
    let unread = crate::reconcile::evidence::ListedRecord { arrived_us: None, ..record.clone() };
    insta::assert_snapshot!(quarantined(&Quarantine { records: vec![record, unread], more: 1 }), @r"
    ───────────────────────────────────────────────────────────────────────────────────────
     arrived                object                                 why
    ═══════════════════════════════════════════════════════════════════════════════════════
     2026-09-21T14:13:20Z   quarantine/shardId-000000000001/4965   not_a_change: \u{1b}[2J
     -                      quarantine/shardId-000000000001/4965   not_a_change: \u{1b}[2J
    ───────────────────────────────────────────────────────────────────────────────────────

    3 records in quarantine, 1 of them not listed
    ");
}

#[test]
fn a_reconciliation_for_programs() {
    let text = serde_json::to_string_pretty(&report()).unwrap().replace('\u{202e}', "<RLO>");
    insta::assert_snapshot!(text, @r###"
    {
      "verdict": "findings",
      "cells": 12,
      "events": 1234567,
      "coverage": {
        "events": 1234568,
        "verified": 1234566,
        "oldest_unverified_ms": 1790000000001,
        "oldest_unverified_age_s": 840
      },
      "quarantined": 1,
      "findings": [
        {
          "kind": "missing",
          "group": "acme<RLO>\n",
          "month": "2026-11",
          "lane": 0,
          "expected": 1234567,
          "actual": 1234566,
          "expected_sums": {
            "bytes": "12.5"
          },
          "actual_sums": {
            "bytes": "11"
          },
          "count": 1,
          "event_ids": [
            "f89436e0-1\u001b[2J"
          ],
          "events": [
            {
              "event_key": "01a0c4506c013ae7d805f6789a6402ac",
              "event_id": "f89436e0-1\u001b[2J",
              "shard_id": "shardId-000000000001",
              "sequence_number": "49654567890123456789012345678901234567890123456789012345",
              "file": "events/month=2026-11/000000000000/000000000003-0.parquet",
              "delta": null
            }
          ],
          "detail": "archived and passed by the consumer, but not counted"
        },
        {
          "kind": "unbacked",
          "group": "acme<RLO>\n",
          "month": "2026-11",
          "lane": 0,
          "expected": 5,
          "actual": 6,
          "count": 1,
          "event_ids": [
            "01a0c4506c023ae7d805f6789a6402ac"
          ],
          "events": [
            {
              "event_key": "01a0c4506c023ae7d805f6789a6402ac",
              "delta": null
            }
          ],
          "detail": "counted, but no archived event has this key"
        }
      ]
    }
    "###);
}

#[test]
fn no_table_controls_a_terminal() {
    let text = reconciliation(&report());
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    assert!(!text.contains('\u{202e}'));
}

#[test]
fn numbers_are_grouped() {
    let shown: Vec<String> = [0, 7, -999, 1_000, -1_234_567, i64::MIN].into_iter().map(grouped).collect();
    assert_eq!(shown, ["0", "7", "-999", "1,000", "-1,234,567", "-9,223,372,036,854,775,808"]);
}

#[test]
fn a_group_without_any_event_is_said_to_have_none() {
    let group: Group = "no\u{1b}such".parse().unwrap();
    let said = no_totals(Some(&group), Year::new(2026)) + &no_totals(None, None);
    insta::assert_snapshot!(said, @r"
    no event of group no\u{1b}such has been counted in 2026; `recount usage` lists the groups that have any
    no event has been counted
    ");
    let summary = |unarchived| Summary {
        group: "acme".parse().unwrap(),
        month: "2026-11".parse().unwrap(),
        number: Delta::zero(1),
        archived: 0,
        counted: 0,
        unarchived,
        void: 0,
        as_of: None,
        undated: 0,
    };
    insta::assert_snapshot!(explanation(&summary(0), &[]), @"no event of group acme in 2026-11: none is archived and none is counted; `recount usage` lists the groups and months that have any");
    assert!(explanation(&summary(1), &[]).contains("1 key of the ledger not archived"));
}
