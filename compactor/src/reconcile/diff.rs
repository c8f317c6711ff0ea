//! The comparison of one cell with the archive. Pure: what was read goes in, what is wrong comes out.
//!
//! The ledger L of a cell is `recent` plus every page with an epoch below the item's. Each key of the cell is judged by
//! itself ([`judge`]):
//!
//! | in L | archived for this cell | at or below progress | older than the ledger reaches | in quarantine | verdict |
//! | --- | --- | --- | --- | --- | --- |
//! | yes | yes | – | – | – | counted |
//! | yes | no | – | – | – | unmatched: **unbacked**, or **wrong cell** where the archive has the key elsewhere; silent once a plan voided it |
//! | no | yes | no | – | – | not yet |
//! | no | yes | yes | no | no | **missing** |
//! | no | yes | yes | no | yes | **quarantined** |
//! | no | yes | yes | yes | – | taken as counted |
//!
//! Sets are compared first, and only then the number, since an event lost and another counted twice would cancel. Then
//! `events` and every sum must equal *counted + taken* ([`CellDiff::conclude`]). A difference is explained in this order:
//!
//! 1. A taken event that is on the too-old list (or in quarantine) was perhaps not counted, and of a conflicting key
//!    another variant was perhaps counted: the choice that makes the difference vanish is the one that happened.
//!    The events so found are **too old** (or **quarantined**).
//! 2. Unmatched keys have counted something that nobody knows any more. Under `count = "inserts"` each counted one event
//!    or, if only the set was damaged, none; under `net` one more, one less, or none. A difference in events within
//!    that range is theirs, and they are the finding.
//! 3. Else the number is **damaged**: only the difference can be named. Where exactly one archived event of the cell adds
//!    just this difference, measures included, the caller names it: **doubled**. Without a measure any event of the cell
//!    would do, which is no evidence, so it stays damaged. So does a number that lacks some of many events on the too-old list,
//!    others of which were counted when they came first: beyond a bound of combinations, nobody looks for the ones that fit. Where the
//!    log says that events were lost before they were archived, one of these may be the difference, and its twin be named.
//!
//! The correction is always `counted + taken − number`. Consumers add a key and its delta in one write, so it stays the
//! same while they run.

use std::collections::BTreeMap;

use recount_schemas::position::{SequenceNumber, ShardId};
use recount_schemas::{Cell, Delta, EventKey};
use smallvec::SmallVec;

use super::coverage::Tally;
use super::finding::{Finding, Kind, Named, NamedEvent, Origin};

/// The most combinations tried when a difference is explained by choices.
const MAX_CHOICES_TRIED: u32 = 1 << 16;

/// What the archive says about a key in one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// What it adds to the cell.
    pub delta: Delta,
    /// Where it stands.
    pub origin: Origin,
    /// Whether it is a variant under `conflicts/` rather than a row.
    pub variant: bool,
}

/// What is known about one key in one cell.
#[derive(Debug, Clone, Copy)]
pub struct KeyFacts<'a> {
    /// The key.
    pub key: EventKey,
    /// Whether it is in the ledger.
    pub in_ledger: bool,
    /// Its archived contributions to this cell: the row first, then conflicting variants.
    pub archived: &'a [Archived],
    /// Whether one of them is at or below the consumer's progress.
    pub passed: bool,
    /// Whether it was created longer ago than the ledger reaches back.
    pub old: bool,
    /// Whether one of them is in the consumer's quarantine.
    pub quarantined: bool,
    /// Whether it is on the cell's too-old list, and no applied plan has put it into the number since.
    pub listed: bool,
    /// Whether an applied plan declared it void.
    pub voided: bool,
}

/// The verdict on one key: see the table at the top of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyVerdict {
    /// In the ledger and in the archive.
    Counted,
    /// In the ledger only.
    Unmatched,
    /// In the ledger only, as an applied plan says.
    Void,
    /// The consumer has not come to it.
    NotYet,
    /// Passed, and not counted.
    Missing,
    /// Passed, quarantined, and not counted.
    Quarantined,
    /// So old that its page may have expired: taken as counted.
    Taken,
    /// Neither here nor there.
    Absent,
}

/// Judges one key.
pub fn judge(facts: &KeyFacts<'_>) -> KeyVerdict {
    match (facts.in_ledger, !facts.archived.is_empty()) {
        (true, true) => KeyVerdict::Counted,
        (true, false) if facts.voided => KeyVerdict::Void,
        (true, false) => KeyVerdict::Unmatched,
        (false, false) => KeyVerdict::Absent,
        (false, true) if !facts.passed => KeyVerdict::NotYet,
        (false, true) if facts.old => KeyVerdict::Taken,
        (false, true) if facts.quarantined => KeyVerdict::Quarantined,
        (false, true) => KeyVerdict::Missing,
    }
}

/// A sum went beyond 38 digits, which no sum of bounded measures can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the sums of {:?} {} are out of range; the archive or the cell holds an impossible amount", .0.group, .0.month)]
pub struct OutOfRange(pub Cell);

/// Something that may or may not have gone into the number.
#[derive(Debug, Clone)]
struct Choice {
    /// What the number has instead, less what it has by default.
    difference: Delta,
    /// The finding if it happened; a conflict's variant is none of its own.
    short: Option<(Kind, NamedEvent)>,
}

/// The comparison of one cell as its keys come by.
#[derive(Debug, Clone)]
pub struct CellDiff {
    cell: Cell,
    nets: bool,
    actual: Delta,
    /// The sum over counted and taken.
    due: Delta,
    missing_delta: Delta,
    events: u64,
    missing: Named,
    quarantined: Named,
    conflicting: Named,
    wrong: Named,
    unmatched: Vec<EventKey>,
    choices: Vec<Choice>,
    overflow: bool,
    tally: Tally,
}

/// The result for one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellOutcome {
    /// The cell.
    pub cell: Cell,
    /// What it would hold if nothing were wrong.
    pub expected: Delta,
    /// What it holds.
    pub actual: Delta,
    /// What must be added to the number so that it equals its ledger: `counted + taken − number`.
    pub correction: Delta,
    /// What is left of the difference when all that can be explained is explained; `None` where nothing is left.
    pub unexplained: Option<Delta>,
    /// How many archived events went into the comparison.
    pub events: u64,
    /// How many events are verified.
    pub tally: Tally,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl CellDiff {
    /// A cell whose item holds `actual` (`None`: there is no item). `nets` under `count = "net"`.
    pub fn new(cell: Cell, actual: Option<Delta>, measures: usize, nets: bool) -> Self {
        let zero = Delta::zero(measures);
        Self {
            cell,
            nets,
            actual: actual.unwrap_or_else(|| zero.clone()),
            due: zero.clone(),
            missing_delta: zero,
            events: 0,
            missing: Named::default(),
            quarantined: Named::default(),
            conflicting: Named::default(),
            wrong: Named::default(),
            unmatched: Vec::new(),
            choices: Vec::new(),
            overflow: false,
            tally: Tally::default(),
        }
    }

    /// Takes one key. Each key comes once.
    pub fn key(&mut self, facts: &KeyFacts<'_>) -> KeyVerdict {
        let verdict = judge(facts);
        match verdict {
            KeyVerdict::Counted | KeyVerdict::Taken => self.tally.verified(1, facts.key),
            KeyVerdict::NotYet | KeyVerdict::Missing | KeyVerdict::Quarantined | KeyVerdict::Unmatched => {
                self.tally.unverified(facts.key);
            }
            KeyVerdict::Void | KeyVerdict::Absent => {}
        }
        if verdict == KeyVerdict::Unmatched {
            self.unmatched.push(facts.key);
        }
        let Some(first) = facts.archived.first() else { return verdict };
        self.events = self.events.saturating_add(1);
        let event = || NamedEvent {
            event_key: facts.key,
            origin: Some(first.origin.clone()),
            row: None,
            delta: Some(first.delta.clone()),
        };
        match verdict {
            KeyVerdict::Counted | KeyVerdict::Taken => self.add_due(&first.delta),
            KeyVerdict::Missing => {
                self.missing.push(event());
                self.add_missing(&first.delta);
            }
            KeyVerdict::Quarantined => {
                self.quarantined.push(event());
                self.add_missing(&first.delta);
            }
            KeyVerdict::NotYet | KeyVerdict::Unmatched | KeyVerdict::Void | KeyVerdict::Absent => {}
        }
        if verdict == KeyVerdict::Taken && (facts.listed || facts.quarantined) {
            let kind = if facts.listed { Kind::TooOld } else { Kind::Quarantined };
            self.choices.push(Choice { difference: first.delta.negated(), short: Some((kind, event())) });
        }
        if facts.archived.iter().any(|archived| archived.variant) {
            if !facts.voided {
                self.conflicting.push(event());
            }
            if matches!(verdict, KeyVerdict::Counted | KeyVerdict::Taken) {
                for other in facts.archived.iter().skip(1) {
                    if let Some(difference) = other.delta.checked_add(&first.delta.negated()) {
                        self.choices.push(Choice { difference, short: None });
                    }
                }
            }
        }
        verdict
    }

    /// Takes so many archived events that are counted or taken as counted, and come to `adds`; the least key is `least`.
    pub fn bulk(&mut self, rows: u64, adds: &Delta, least: EventKey) {
        self.events = self.events.saturating_add(rows);
        self.tally.verified(rows, least);
        self.add_due(adds);
    }

    /// The cell.
    pub fn cell(&self) -> &Cell {
        &self.cell
    }

    /// Its events while nothing is known of its number.
    pub fn tally(&self) -> Tally {
        self.tally.none_verified()
    }

    /// How many archived events have come by.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Keys of the ledger without an archived contribution, so far.
    pub fn unmatched(&self) -> &[EventKey] {
        &self.unmatched
    }

    /// The archive has these keys. Those of them that are unmatched it has, then, for other cells.
    pub fn misplace(&mut self, located: &BTreeMap<EventKey, Origin>) {
        let wrong = &mut self.wrong;
        self.unmatched.retain(|key| {
            let Some(origin) = located.get(key) else { return true };
            wrong.push(NamedEvent { event_key: *key, origin: Some(origin.clone()), row: None, delta: None });
            false
        });
    }

    /// Compares the number with its ledger, and says all that is wrong.
    pub fn conclude(mut self) -> Result<CellOutcome, OutOfRange> {
        let out_of_range = || OutOfRange(self.cell.clone());
        if self.overflow {
            return Err(out_of_range());
        }
        let correction = self.due.checked_add(&self.actual.negated()).ok_or_else(out_of_range)?;
        let expected = self.due.checked_add(&self.missing_delta).ok_or_else(out_of_range)?;
        let difference = correction.negated();

        let mut too_old = Named::default();
        let mut unexplained = None;
        match explain(&difference, &self.choices) {
            Some(chosen) => {
                for index in chosen {
                    let short = self.choices.get(index).and_then(|choice| choice.short.clone());
                    if let Some((_, event)) = &short {
                        self.tally.is_not(event.event_key);
                    }
                    match short {
                        Some((Kind::TooOld, event)) => too_old.push(event),
                        Some((_, event)) => self.quarantined.push(event),
                        None => {}
                    }
                }
            }
            None => {
                // Counted, not named: names are bounded.
                let strangers = (self.unmatched.len() as u64).saturating_add(self.wrong.count);
                if !may_be_theirs(&difference, strangers, self.nets) {
                    unexplained = Some(difference);
                }
            }
        }
        let mut unbacked = Named::default();
        for key in &self.unmatched {
            unbacked.push(NamedEvent { event_key: *key, origin: None, row: None, delta: None });
        }
        let mut findings = Vec::new();
        for (kind, named) in [
            (Kind::Missing, self.missing),
            (Kind::Unbacked, unbacked),
            (Kind::Conflicting, self.conflicting),
            (Kind::WrongCell, self.wrong),
            (Kind::Quarantined, self.quarantined),
            (Kind::TooOld, too_old),
        ] {
            if !named.is_empty() {
                findings.push(Finding::about(kind, &self.cell, named, kind.meaning()));
            }
        }
        if let Some(difference) = &unexplained {
            let kept = *difference == self.missing_delta;
            let also = if kept { ": it still holds the missing events, whose keys its ledger has lost" } else { "" };
            let detail = format!("the number differs from its own ledger by {}{also}", in_words(difference));
            findings.push(Finding::about(Kind::Damaged, &self.cell, Named::default(), detail));
        }
        for finding in &mut findings {
            (finding.expected, finding.actual) = (expected.events, self.actual.events);
        }
        let tally = if unexplained.is_some() { self.tally.none_verified() } else { self.tally };
        Ok(CellOutcome {
            cell: self.cell,
            expected,
            actual: self.actual,
            correction,
            unexplained,
            events: self.events,
            tally,
            findings,
        })
    }

    fn add_due(&mut self, delta: &Delta) {
        match self.due.checked_add(delta) {
            Some(sum) => self.due = sum,
            None => self.overflow = true,
        }
    }

    fn add_missing(&mut self, delta: &Delta) {
        match self.missing_delta.checked_add(delta) {
            Some(sum) => self.missing_delta = sum,
            None => self.overflow = true,
        }
    }
}

impl CellOutcome {
    /// Says that so many events of the ledger would be counted again if they came again, as they are above `sealed`. Where
    /// the number is found damaged already, the same repair does for both.
    pub fn expose(&mut self, events: u64) {
        if events == 0 || self.findings.iter().any(|finding| matches!(finding.kind, Kind::Damaged | Kind::Doubled)) {
            return;
        }
        let detail =
            format!("`sealed` is below {events} events on its pages: if they came again they would be counted again");
        let finding = Finding::about(Kind::Damaged, &self.cell, Named::default(), detail);
        let (expected, actual) = (self.expected.events, self.actual.events);
        self.findings.push(Finding { expected, actual, ..finding });
    }
}

/// A difference for people: `+3 events, sums -12.5, 0`.
pub fn in_words(delta: &Delta) -> String {
    let events = format!("{:+} {}", delta.events, if delta.events.abs() == 1 { "event" } else { "events" });
    if delta.sums.is_empty() {
        return events;
    }
    let sums: Vec<String> = delta.sums.iter().map(ToString::to_string).collect();
    format!("{events}, sums {}", sums.join(", "))
}

/// Whether a difference can be what `strangers` unmatched keys counted.
fn may_be_theirs(difference: &Delta, strangers: u64, nets: bool) -> bool {
    let most = i64::try_from(strangers).unwrap_or(i64::MAX);
    match (strangers, nets) {
        (0, _) => false,
        (_, false) => (1..=most).contains(&difference.events),
        (_, true) => (-most..=most).contains(&difference.events),
    }
}

/// The choices that add up to `difference`: none, all that make the number short, or the first combination found.
fn explain(difference: &Delta, choices: &[Choice]) -> Option<Vec<usize>> {
    if difference.is_zero() {
        return Some(Vec::new());
    }
    let short: Vec<usize> =
        choices.iter().enumerate().filter(|(_, choice)| choice.short.is_some()).map(|(i, _)| i).collect();
    let sum = short
        .iter()
        .filter_map(|i| choices.get(*i))
        .try_fold(Delta::zero(difference.sums.len()), |sum, choice| sum.checked_add(&choice.difference));
    if sum.as_ref() == Some(difference) {
        return Some(short);
    }
    // Depth first, so that the memory is that of one combination; the number of steps is bounded.
    let mut stack: Vec<(usize, Delta, SmallVec<[usize; 8]>)> = vec![(0, difference.clone(), SmallVec::new())];
    for _ in 0..MAX_CHOICES_TRIED {
        let (index, rest, taken) = stack.pop()?;
        if rest.is_zero() {
            return Some(taken.to_vec());
        }
        let Some(choice) = choices.get(index) else { continue };
        stack.push((index + 1, rest.clone(), taken.clone()));
        if let Some(less) = rest.checked_add(&choice.difference.negated()) {
            let mut with = taken;
            with.push(index);
            stack.push((index + 1, less, with));
        }
    }
    None
}

/// Up to where the consumer has a final verdict on every record, by shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed(pub BTreeMap<ShardId, SequenceNumber>);

impl Passed {
    /// Whether a record is at or below the progress of its shard. A shard without progress has passed nothing. A place beside
    /// the stream has no progress, and no consumer will ever come to it: what stands there and is not counted is missing.
    pub fn covers(&self, shard: &ShardId, sequence: &SequenceNumber) -> bool {
        shard.is_beside_the_stream() || self.0.get(shard).is_some_and(|passed| sequence <= passed)
    }
}

/// The least key that is not yet out of the ledger's reach at `now_ms`: what is created before is old.
pub fn horizon(now_ms: i64, ledger_days: u16) -> EventKey {
    EventKey::least_at(now_ms.saturating_sub(i64::from(ledger_days) * 86_400_000))
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
