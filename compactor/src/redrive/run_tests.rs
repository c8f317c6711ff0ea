//! A redrive over a bucket in memory and cells in memory: cut at each request, with lost requests and lost answers, and beside
//! others that bring the same events.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt;
use recount_schemas::QuarantineReason;
use recount_schemas::quarantine::{FORMAT as QUARANTINE_FORMAT, Quarantined, object_key};
use recount_schemas::{Delta, SequenceNumber};

use super::*;
use crate::bucket::memory::{Fault, Memory};
use crate::log::{Kind, LogStore, State};
use crate::rows::testing::{NOVEMBER, definition, record};
use crate::testing::TestHost;

const NOW: i64 = NOVEMBER + 5_000_000_000;

/// Cells that count each key once. A call may fail before or behind what it does.
#[derive(Default)]
struct Cells {
    counted: Mutex<BTreeMap<Cell, BTreeMap<EventKey, Delta>>>,
    too_old: BTreeSet<EventKey>,
}

impl Counter for Cells {
    async fn count(&self, cell: &Cell, entries: &[Entry]) -> Result<Applied, TotalsError> {
        let mut cells = self.counted.lock().unwrap();
        let of_cell = cells.entry(cell.clone()).or_default();
        let mut applied = Applied::default();
        for entry in entries {
            if self.too_old.contains(&entry.key) {
                applied.too_old.push(entry.key);
            } else if of_cell.insert(entry.key, entry.delta.clone()).is_some() {
                applied.duplicates.push(entry.key);
            } else {
                applied.applied.push(entry.key);
            }
        }
        Ok(applied)
    }
}

impl Cells {
    fn keys(&self) -> Vec<EventKey> {
        self.counted.lock().unwrap().values().flat_map(|keys| keys.keys().copied().collect::<Vec<_>>()).collect()
    }
}

fn quarantined(sequence: u64, data: &str) -> Quarantined {
    Quarantined {
        format: QUARANTINE_FORMAT,
        stream: "changes".to_owned(),
        shard_id: if sequence.is_multiple_of(2) { "s0" } else { "relay-00-11" }.parse().unwrap(),
        sequence_number: sequence.to_string().parse().unwrap(),
        partition_key: "p".to_owned(),
        arrived_us: NOVEMBER + 1_000_000,
        reason: QuarantineReason::new(QuarantineCode::BadMeasure, "an older program said so"),
        data: STANDARD.encode(data),
        raw: false,
    }
}

fn put(objects: &Memory, kept: &Quarantined) {
    let key = object_key(&kept.shard_id, &kept.sequence_number);
    let bytes = Bytes::from(serde_json::to_vec(kept).unwrap());
    objects.objects.lock().unwrap().insert(key, bytes);
}

/// Five that are understood now, one of them twice, and two that are not.
fn world() -> Memory {
    let objects = Memory::new();
    let event = |id: &str, at: i64| record(id, Some(if at % 2 == 0 { "acme" } else { "zeta" }), NOVEMBER + at, "7");
    for (sequence, data) in [
        (1, event("a", 0)),
        (2, event("b", 1_000_001)),
        (3, event("c", 2_000_000)),
        (4, event("c", 2_000_000)),
        (5, event("d", 3).replace("INSERT", "MODIFY")),
        (6, "hello".to_owned()),
        (7, record("e", Some("acme"), NOVEMBER, "x")),
    ] {
        put(&objects, &quarantined(sequence, &data));
    }
    objects
}

fn host() -> SharedHost {
    Arc::new(TestHost::at(NOW, 1))
}

async fn run(objects: &Memory, cells: &Cells, ask: &Ask) -> Result<Report, RedriveError> {
    run_on(objects, cells, ask, host()).await
}

async fn run_on(objects: &Memory, cells: &Cells, ask: &Ask, host: SharedHost) -> Result<Report, RedriveError> {
    let definition = Arc::new(definition());
    let redriver = Redriver {
        objects,
        counter: cells,
        definition: &definition,
        stream: "changes",
        host: &host,
        limits: Limits::default(),
        catalog: None,
    };
    redriver.run(ask, &|_| {}).await
}

fn confirm() -> Ask {
    Ask { confirm: true, ..Ask::default() }
}

async fn state(objects: &Memory) -> State {
    LogStore::new(objects.clone(), host()).read_to_head().await.unwrap()
}

/// What must hold at the end, whatever happened on the way: each event has one row, is counted once, and has its mark.
async fn assert_done(objects: &Memory, cells: &Cells) {
    let state = state(objects).await;
    let rows: u64 = state.live().map(|live| live.file.rows).sum();
    assert_eq!(rows, 4, "invariant 6: a row for each event");
    for live in state.live() {
        assert!(objects.bytes(&live.file.target).is_some(), "{} is published", live.file.target);
    }
    let keys = cells.keys();
    let distinct: BTreeSet<_> = keys.iter().collect();
    assert_eq!((keys.len(), distinct.len()), (3, 3), "invariant 2: each is counted once");
    assert_eq!(
        objects.keys("redriven/"),
        [
            "redriven/relay-00-11/1",
            "redriven/relay-00-11/3",
            "redriven/relay-00-11/5",
            "redriven/s0/2",
            "redriven/s0/4"
        ]
    );
    assert_eq!(objects.keys("quarantine/").len(), 7, "nothing leaves quarantine");
}

#[tokio::test]
async fn a_plan_changes_nothing_and_says_what_would_be_done() {
    let (objects, cells) = (world(), Cells::default());
    let before = objects.keys("");
    let report = run(&objects, &cells, &Ask::default()).await.unwrap();
    assert_eq!((report.examined, report.ready(), report.stayed(), report.done_before), (7, 5, 2, 0));
    let stays: Vec<_> = report.stays.iter().map(|s| (s.was.as_str(), s.is.as_str(), s.records)).collect();
    assert_eq!(stays, [("bad_measure", "bad_measure", 1), ("bad_measure", "not_a_change", 1)]);
    assert_eq!((objects.keys(""), cells.keys().len()), (before, 0));
    let only = Ask { shard: Some("s0".parse().unwrap()), ..Ask::default() };
    assert_eq!(run(&objects, &cells, &only).await.unwrap().examined, 3);
    let only = Ask { reason: Some(QuarantineCode::NoGroup), ..Ask::default() };
    assert_eq!(run(&objects, &cells, &only).await.unwrap().examined, 0);
}

#[tokio::test]
async fn what_is_understood_is_archived_counted_and_marked_and_a_second_run_finds_it_done() {
    let (objects, cells) = (world(), Cells::default());
    let report = run(&objects, &cells, &confirm()).await.unwrap();
    assert_eq!((report.archived, report.archived_before), (4, 1));
    assert_eq!((report.counted, report.counted_before, report.ignored, report.stayed()), (4, 0, 1, 2));
    assert_done(&objects, &cells).await;
    let last = state(&objects).await.last.unwrap();
    assert_eq!((last.kind, last.origin.as_deref(), last.ranges.len()), (Kind::Addition, Some("redrive"), 0));
    let mark: Mark = serde_json::from_slice(&objects.bytes("redriven/s0/2").unwrap()).unwrap();
    assert_eq!((mark.event_id.as_str(), mark.outcome.as_str(), mark.entry), ("b", "counted", Some(0)));

    let again = run(&objects, &cells, &confirm()).await.unwrap();
    assert_eq!((again.examined, again.done_before, again.ready(), again.stayed()), (2, 5, 0, 2));
    assert_eq!(state(&objects).await.next, 1, "no entry more");
    assert_done(&objects, &cells).await;
}

/// Runs with a fault at write `n`, then without: the end is the same. Whether there was such a write.
async fn cut(n: usize, fault: Option<Fault>) -> bool {
    let (objects, cells) = (world(), Cells::default());
    let writes = Arc::new(AtomicUsize::new(0));
    let counter = writes.clone();
    let faulty = objects.with_faults(move |action, key| {
        let here = counter.fetch_add(1, Ordering::SeqCst) == n;
        match fault {
            Some(fault) if here => fault,
            None if here => panic!("cut at {action} {key}"),
            _ => Fault::None,
        }
    });
    let first = std::panic::AssertUnwindSafe(run(&faulty, &cells, &confirm())).catch_unwind().await;
    if let Ok(Ok(_)) = first {
        assert_done(&objects, &cells).await;
    }
    run(&objects, &cells, &confirm()).await.unwrap();
    assert_done(&objects, &cells).await;
    writes.load(Ordering::SeqCst) > n
}

#[tokio::test]
async fn cut_off_at_any_request_the_next_run_completes_it() {
    for fault in [None, Some(Fault::RequestLost), Some(Fault::AnswerLost)] {
        let mut n = 0;
        while cut(n, fault).await {
            n += 1;
        }
        assert!(n > 8, "only {n} writes");
    }
}

#[tokio::test]
async fn the_same_event_from_elsewhere_at_the_same_time_is_archived_and_counted_once() {
    // Two redrives at once, taking turns at every request.
    let (objects, cells) = (world(), Cells::default());
    let (one, two) = (confirm(), confirm());
    let other: SharedHost = Arc::new(TestHost::at(NOW, 2));
    let both = futures::future::join(run(&objects, &cells, &one), run_on(&objects, &cells, &two, other));
    let (first, second) = both.await;
    assert_eq!(first.unwrap().archived + second.unwrap().archived, 4);
    assert_done(&objects, &cells).await;
}

#[tokio::test]
async fn what_was_counted_before_is_not_counted_again_and_what_is_too_old_is_said() {
    let (objects, mut cells) = (world(), Cells::default());
    let definition = definition();
    let key = |id: &str, at: i64, group: &str| {
        let record = record(id, Some(group), NOVEMBER + at, "7");
        definition.judge(record.as_bytes(), NOW).unwrap().key
    };
    cells.too_old.insert(key("b", 1_000_001, "zeta"));
    let counted = Cell { group: "acme".parse().unwrap(), month: "2026-11".parse().unwrap(), lane: 0 };
    let entry = Entry { key: key("a", 0, "acme"), delta: Delta::zero(1) };
    cells.count(&counted, &[entry]).await.unwrap();
    let report = run(&objects, &cells, &confirm()).await.unwrap();
    assert_eq!((report.counted, report.counted_before, report.too_old), (2, 1, 1));
    let mark: Mark = serde_json::from_slice(&objects.bytes("redriven/s0/2").unwrap()).unwrap();
    assert_eq!(mark.outcome, "too_old");
}

#[tokio::test]
async fn another_content_under_an_archived_key_is_kept_as_a_conflict_and_not_counted() {
    let (objects, cells) = (world(), Cells::default());
    run(&objects, &cells, &confirm()).await.unwrap();
    let other = record("a", Some("acme"), NOVEMBER, "8");
    put(&objects, &quarantined(9, &other));
    let report = run(&objects, &cells, &confirm()).await.unwrap();
    assert_eq!((report.conflicting, report.archived, report.counted), (1, 0, 0));
    let sequence: SequenceNumber = "9".parse().unwrap();
    assert_eq!(objects.keys("conflicts/"), [format!("conflicts/relay-00-11/{sequence}")]);
    assert_eq!(cells.keys().len(), 3);
}

#[tokio::test]
async fn where_nothing_matches_it_is_said_how_many_there_are() {
    let (objects, cells) = (world(), Cells::default());
    let of_reason = |reason| Ask { reason: Some(reason), ..Ask::default() };
    let report = run(&objects, &cells, &of_reason(QuarantineCode::TooLarge)).await.unwrap();
    assert_eq!((report.examined, report.others), (0, Some(7)));
    let of_shard = Ask { shard: "elsewhere".parse().ok(), ..Ask::default() };
    let report = run(&objects, &cells, &of_shard).await.unwrap();
    assert_eq!((report.examined, report.others), (0, Some(7)));
    let report = run(&objects, &cells, &of_reason(QuarantineCode::BadMeasure)).await.unwrap();
    assert_eq!((report.examined, report.others), (7, None));
    assert_eq!(run(&Memory::new(), &cells, &Ask::default()).await.unwrap().others, None);
}
