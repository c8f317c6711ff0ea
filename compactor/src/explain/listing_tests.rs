use super::*;
use crate::reconcile::standing::Head;

fn cell(lane: u16) -> Cell {
    Cell { group: "acme".parse().unwrap(), month: "2026-11".parse().unwrap(), lane }
}

fn delta(events: i64) -> Delta {
    Delta { events, ..Delta::zero(0) }
}

fn key(n: u8) -> EventKey {
    EventKey::from_bytes([n; EventKey::LEN])
}

/// The horizon of the tests: keys below it are old.
const HORIZON: u8 = 10;

fn shard() -> ShardId {
    "shardId-0".parse().unwrap()
}

fn head(lane: u16, events: i64) -> io::Result<Standing> {
    let number = delta(events);
    let head =
        Head { present: true, number, epoch: 0, sealed: None, recent: 0, repair: None, ahead: None, behind: false };
    Ok(Standing::Cell(cell(lane), head))
}

fn marked(lane: u16, n: u8, mark: Mark) -> io::Result<Standing> {
    Ok(Standing::Key(cell(lane), key(n), mark))
}

/// An event of key `n`, whose sequence number is `n` too.
fn event(n: u8, lane: u16, adds: Option<i64>, elsewhere: bool) -> Sourced {
    let event = Event {
        event_id: format!("e{n}"),
        event_name: "INSERT".to_owned(),
        month: None,
        occurred_at: String::new(),
        created_at: String::new(),
        shard_id: shard(),
        sequence_number: n.to_string().parse().unwrap(),
        counted: false,
        why: String::new(),
        adds: adds.map(delta),
    };
    Ok((key(n), Kept { event, lane, elsewhere, told: None }))
}

/// What the tests vary of [`Known`]: sequence numbers that the consumer has passed up to, in quarantine, settled in lane 0.
#[derive(Default, Clone)]
struct Given {
    passed: u8,
    quarantined: Vec<u8>,
    settled: Vec<u8>,
}

type Told = (String, bool, String);

fn listed(
    given: &Given,
    standings: Vec<io::Result<Standing>>,
    events: Vec<Sourced>,
) -> Result<(Vec<Told>, Summary), ReconcileError> {
    let known = Known {
        group: &cell(0).group,
        month: cell(0).month,
        measures: 0,
        horizon: key(HORIZON),
        passed: &Passed([(shard(), given.passed.to_string().parse().unwrap())].into_iter().collect()),
        quarantined: &given.quarantined.iter().map(|n| (shard(), n.to_string().parse().unwrap())).collect(),
        settled: &[(cell(0), given.settled.iter().map(|n| key(*n)).collect())].into_iter().collect(),
    };
    let mut told = Vec::new();
    let summary = list(&known, standings.into_iter(), events.into_iter(), |event| {
        told.push((event.event_id, event.counted, event.why));
        Ok(())
    })?;
    Ok((told, summary))
}

#[test]
fn why_an_event_is_in_the_number_or_not() {
    let passed = Given { passed: 99, ..Given::default() };
    let quarantined = Given { quarantined: vec![5, 50], ..passed.clone() };
    let settled = Given { settled: vec![5], ..passed.clone() };
    let (old, young) = (5, 50);
    let row = |given: &Given, mark: Option<Mark>, n: u8, counted: bool, why: &str| {
        let standings = mark.map(|mark| marked(0, n, mark)).into_iter().collect();
        let (told, summary) = listed(given, standings, vec![event(n, 0, Some(1), false)]).unwrap();
        assert_eq!(told, [(format!("e{n}"), counted, why.to_owned())], "{mark:?} {n} {why}");
        assert_eq!((summary.archived, summary.counted, summary.unarchived), (1, u64::from(counted), 0));
    };
    // The ledger has it: nothing else matters.
    for given in [&Given::default(), &passed, &quarantined, &settled] {
        for n in [old, young] {
            row(given, Some(Mark::Kept), n, true, "counted");
            row(given, Some(Mark::Exposed), n, true, "counted");
        }
    }
    // The ledger does not have it; a page of a later epoch is not in it yet.
    for mark in [None, Some(Mark::Ahead)] {
        row(&Given::default(), mark, young, false, "not_yet");
        row(&Given::default(), mark, old, false, "not_yet");
        row(&passed, mark, young, false, "missing");
        row(&quarantined, mark, young, false, "quarantined");
        row(&passed, mark, old, true, "taken_as_counted");
        row(&quarantined, mark, old, true, "taken_as_counted");
    }
    row(&passed, None, HORIZON, false, "missing");
    row(&passed, None, HORIZON - 1, true, "taken_as_counted");
    // On the too-old list.
    row(&passed, Some(Mark::Listed), old, false, "too_old");
    row(&settled, Some(Mark::Listed), old, true, "taken_as_counted");
    row(&passed, Some(Mark::Listed), young, false, "missing");
}

#[test]
fn what_is_known_of_one_lane_says_nothing_of_another() {
    let given = Given { passed: 99, settled: vec![5], ..Given::default() };
    let standings = vec![marked(1, 5, Mark::Listed), marked(0, 50, Mark::Kept)];
    let events = vec![event(5, 1, Some(1), false), event(50, 1, Some(1), false)];
    let (told, _) = listed(&given, standings, events).unwrap();
    let expected = [("e5", false, "too_old"), ("e50", false, "missing")];
    assert_eq!(told, expected.map(|(id, counted, why)| (id.to_owned(), counted, why.to_owned())));
}

#[test]
fn the_number_is_that_of_all_lanes_and_keys_without_an_event_are_counted() {
    let given = Given { passed: 99, ..Given::default() };
    let standings = vec![
        head(0, 2),
        head(1, 40),
        // In the ledger, and no event of the archive has it.
        marked(0, 20, Mark::Kept),
        marked(0, 25, Mark::Kept),
        marked(0, 30, Mark::Kept),
        // An event has it, but adds nothing here.
        marked(0, 40, Mark::Kept),
        // Not in the ledger.
        marked(0, 60, Mark::Ahead),
        marked(0, 61, Mark::Listed),
        marked(1, 70, Mark::Exposed),
    ];
    let events = vec![
        event(10, 0, Some(1), false),
        event(30, 0, Some(1), false),
        event(40, 0, None, false),
        event(41, 0, None, true),
        event(80, 1, Some(-1), false),
    ];
    let (told, summary) = listed(&given, standings, events).unwrap();
    let expected = [
        ("e10", false, "missing"),
        ("e30", true, "counted"),
        ("e40", false, "adds_nothing"),
        ("e41", false, "counts_elsewhere"),
        ("e80", false, "missing"),
    ];
    assert_eq!(told, expected.map(|(id, counted, why)| (id.to_owned(), counted, why.to_owned())));
    assert_eq!(summary.number, delta(42));
    assert_eq!((summary.archived, summary.counted, summary.unarchived), (5, 1, 4), "20, 25, 40 and 70");
}

#[test]
fn what_cannot_be_read_ends_the_listing() {
    let lost = || io::Error::other("lost");
    let given = Given::default();
    for standings in [vec![Err(lost())], vec![head(0, 1), Err(lost())], vec![marked(0, 20, Mark::Kept), Err(lost())]] {
        assert!(listed(&given, standings, vec![event(20, 0, Some(1), false)]).is_err());
    }
    assert!(listed(&given, vec![marked(0, 20, Mark::Kept)], vec![Err(lost())]).is_err());
    let beyond = listed(&given, vec![head(0, i64::MAX), head(1, 1)], vec![]);
    assert!(matches!(beyond, Err(ReconcileError::OutOfRange(OutOfRange(of))) if of == cell(1)));
    let known = |take: &mut dyn FnMut() -> Result<(), ReconcileError>| {
        let known = Known {
            group: &cell(0).group,
            month: cell(0).month,
            measures: 0,
            horizon: key(HORIZON),
            passed: &Passed::default(),
            quarantined: &BTreeSet::new(),
            settled: &BTreeMap::new(),
        };
        list(&known, std::iter::empty(), [event(20, 0, Some(1), false)].into_iter(), |_| take())
    };
    assert!(known(&mut || Err(lost().into())).is_err(), "the reader has gone");
}
