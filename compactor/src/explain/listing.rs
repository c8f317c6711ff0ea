//! What is said of each event: the ledger's keys and the archived events, both by key, joined. Pure.
//!
//! | the event | in the ledger | verdict of [`judge`] | counted | why |
//! | --- | --- | --- | --- | --- |
//! | adds to the cell | yes | counted | yes | `counted` |
//! | adds to the cell | no | taken, and on the too-old list | no | `too_old` |
//! | adds to the cell | no | taken | yes | `taken_as_counted` |
//! | adds to the cell | no | not yet, missing, quarantined | no | `not_yet`, `missing`, `quarantined` |
//! | adds to no cell | – | – | no | `adds_nothing` |
//! | adds to other cells | – | – | no | `counts_elsewhere` |
//! | is of another month, or a variant that was not archived | – | – | no | `other_month`, `conflict_variant` |
//!
//! An event of the too-old list that an applied plan has put into the number since is not on it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use recount_schemas::{Cell, Delta, EventKey, Group, Month, SequenceNumber, ShardId};

use super::rows::{Kept, Sourced};
use super::{Event, Summary};
use crate::reconcile::ReconcileError;
use crate::reconcile::diff::{Archived, KeyFacts, KeyVerdict, OutOfRange, Passed, judge};
use crate::reconcile::finding::Origin;
use crate::reconcile::standing::{Mark, Standing};

/// What must be known besides the ledger and the events.
pub(super) struct Known<'a> {
    pub(super) group: &'a Group,
    pub(super) month: Month,
    /// The number of the definition's measures.
    pub(super) measures: usize,
    /// What is created before this is older than the ledger reaches back.
    pub(super) horizon: EventKey,
    /// The consumer's progress.
    pub(super) passed: &'a Passed,
    /// The positions in the consumer's quarantine.
    pub(super) quarantined: &'a BTreeSet<(ShardId, SequenceNumber)>,
    /// Events of the too-old list that applied plans have put into the number.
    pub(super) settled: &'a BTreeMap<Cell, BTreeSet<EventKey>>,
}

/// The lanes whose ledger, and those whose too-old list, has a key.
#[derive(Default)]
struct Lanes {
    kept: BTreeSet<u16>,
    listed: BTreeSet<u16>,
}

/// Gives each event to `take` with what is to be said of it. `standings` are those of the group's month: its cells, then their
/// keys in order. `events` come in the order of their keys.
pub(super) fn list(
    known: &Known<'_>,
    standings: impl Iterator<Item = io::Result<Standing>>,
    events: impl Iterator<Item = Sourced>,
    mut take: impl FnMut(Event) -> Result<(), ReconcileError>,
) -> Result<Summary, ReconcileError> {
    let mut summary = Summary {
        group: known.group.clone(),
        month: known.month,
        number: Delta::zero(known.measures),
        archived: 0,
        counted: 0,
        unarchived: 0,
        as_of: None,
        undated: 0,
        void: 0,
    };
    let (mut standings, mut events) = (standings.peekable(), events.peekable());
    while let Some(standing) = standings.next_if(|standing| !matches!(standing, Ok(Standing::Key(..)))) {
        if let Standing::Cell(cell, head) = standing? {
            summary.number = summary.number.checked_add(&head.number).ok_or(OutOfRange(cell))?;
        }
    }
    loop {
        // What could not be read has no key: it is the next, and the end.
        let marked = standings.peek().map(|standing| match standing {
            Ok(Standing::Key(_, key, _)) => *key,
            Ok(Standing::Cell(..)) | Err(_) => EventKey::MIN,
        });
        let archived = events.peek().map(|event| event.as_ref().map_or(EventKey::MIN, |(key, _)| *key));
        let Some(key) = marked.into_iter().chain(archived).min() else { return Ok(summary) };
        let mut lanes = Lanes::default();
        while let Some(standing) =
            standings.next_if(|standing| !matches!(standing, Ok(Standing::Key(_, of, _)) if *of != key))
        {
            match standing? {
                Standing::Key(cell, _, Mark::Kept | Mark::Exposed) => lanes.kept.insert(cell.lane),
                Standing::Key(cell, _, Mark::Listed) => lanes.listed.insert(cell.lane),
                Standing::Key(_, _, Mark::Ahead) | Standing::Cell(..) => false,
            };
        }
        let mut matched = false;
        while let Some(event) = events.next_if(|event| !matches!(event, Ok((of, _)) if *of != key)) {
            let (_, Kept { mut event, lane, elsewhere, told }) = event?;
            matched |= event.adds.is_some() && told.is_none();
            (event.counted, event.why) = match (&event.adds, elsewhere) {
                _ if told.is_some() => (false, told.unwrap_or_default()),
                (Some(delta), _) => why(known, key, lane, delta, &event, &lanes),
                (None, true) => (false, "counts_elsewhere".to_owned()),
                (None, false) => (false, "adds_nothing".to_owned()),
            };
            summary.archived += 1;
            summary.counted += u64::from(event.counted);
            take(event)?;
        }
        summary.unarchived += u64::from(!matched && !lanes.kept.is_empty());
    }
}

/// Whether an event that adds `delta` to the cell of `lane` is in its number, and the token that says why.
fn why(known: &Known<'_>, key: EventKey, lane: u16, delta: &Delta, event: &Event, lanes: &Lanes) -> (bool, String) {
    let cell = Cell { group: known.group.clone(), month: known.month, lane };
    let position = (event.shard_id.clone(), event.sequence_number.clone());
    let origin = Origin {
        event_id: event.event_id.clone(),
        shard_id: event.shard_id.clone(),
        sequence_number: event.sequence_number.clone(),
        file: String::new(),
    };
    let settled = known.settled.get(&cell).is_some_and(|keys| keys.contains(&key));
    let listed = lanes.listed.contains(&lane) && !settled;
    let verdict = judge(&KeyFacts {
        key,
        in_ledger: lanes.kept.contains(&lane),
        archived: &[Archived { delta: delta.clone(), origin, variant: false }],
        passed: known.passed.covers(&event.shard_id, &event.sequence_number),
        old: key < known.horizon,
        quarantined: known.quarantined.contains(&position),
        listed,
        voided: false,
    });
    let (counted, token) = token(verdict, listed);
    (counted, token.to_owned())
}

/// Whether an archived event of this verdict is in the number, and the token that says why. `listed`: on the too-old list, and not settled.
pub(crate) fn token(verdict: KeyVerdict, listed: bool) -> (bool, &'static str) {
    match (verdict, listed) {
        (KeyVerdict::Counted, _) => (true, "counted"),
        (KeyVerdict::Taken, true) => (false, "too_old"),
        (KeyVerdict::Taken, false) => (true, "taken_as_counted"),
        (KeyVerdict::NotYet, _) => (false, "not_yet"),
        (KeyVerdict::Missing, _) => (false, "missing"),
        (KeyVerdict::Quarantined, _) => (false, "quarantined"),
        (KeyVerdict::Unmatched | KeyVerdict::Void | KeyVerdict::Absent, _) => (false, "adds_nothing"),
    }
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
