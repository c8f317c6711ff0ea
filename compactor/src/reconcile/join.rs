//! The comparison of all cells: a merge join of what DynamoDB says with what the archive says.
//!
//! Both come sorted by month and group, the keys in order, so that memory holds one key at a time and the sums of one
//! group's lanes; and of cells where something is wrong, what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use recount_schemas::definition::Count;
use recount_schemas::position::{SequenceNumber, ShardId};
use recount_schemas::{Cell, Definition, Delta, EventKey, Group, Month};

use super::bulk::{Bulk, Bulks};
use super::coverage::Tally;
use super::diff::{Archived, CellDiff, CellOutcome, KeyFacts, KeyVerdict, OutOfRange, Passed};
use super::finding::{Finding, Kind, MAX_NAMED, Named, NamedEvent, Origin};
use super::standing::{Head, Mark, Raise, Standing};
use crate::bucket::Objects;
use crate::contributions::reader::Reader;
use crate::contributions::{Contribution, ReadError};

/// Most events named in all findings of one comparison. It counts the rest.
pub const MAX_NAMED_IN_ALL: usize = 20 * MAX_NAMED;
/// Most keys without an archived event that are held.
pub const MAX_UNMATCHED: usize = 4_000_000;
/// Most cells with findings that are held.
pub const MAX_CELLS_FOUND: usize = 100_000;

/// Most cells that are held to be read by their rows. If there are more, the rows of all are read.
pub const MAX_SUSPECTS: usize = 500_000;

/// The comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The archive could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A sum is out of range.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// The temporary file failed.
    #[error("sorting in the temporary directory failed: {0}")]
    Spill(#[from] std::io::Error),
    /// One event key stands twice in the archive.
    #[error("the archive has event {key} twice, in {first} and in {second}; recompute names all such events")]
    Twice {
        /// The key.
        key: EventKey,
        /// A file that has it.
        first: String,
        /// Another.
        second: String,
    },
    /// More is wrong than can be held.
    #[error("more than {MAX_UNMATCHED} counted keys have no archived event: is this the right archive?")]
    TooMuch,
}

/// What the archive says, in the order (month, group, event key).
pub enum Contributions<'s, O> {
    /// From the bucket.
    Archive(Box<Reader<'s, O>>),
    /// From memory, for tests.
    Memory(std::vec::IntoIter<Contribution>),
}

impl<O: Objects> Contributions<'_, O> {
    async fn next(&mut self) -> Result<Option<Contribution>, ReadError> {
        match self {
            Self::Archive(reader) => reader.next().await,
            Self::Memory(contributions) => Ok(contributions.next()),
        }
    }
}

/// A conflicting variant's place among the contributions.
pub type VariantKey = (Month, Group, EventKey);

/// What the comparison must know beside the two streams.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The consumer's progress, read before the cells.
    pub passed: Passed,
    /// What is created before this is older than the ledger reaches back.
    pub horizon: Option<EventKey>,
    /// The positions of quarantined records.
    pub quarantined: BTreeSet<(ShardId, SequenceNumber)>,
    /// Keys that applied plans declared void.
    pub voided: BTreeMap<Cell, BTreeSet<EventKey>>,
    /// Too-old events that applied plans put into the number.
    pub settled: BTreeMap<Cell, BTreeSet<EventKey>>,
    /// Conflicting variants, with their lanes.
    pub variants: BTreeMap<VariantKey, Vec<(u16, Archived)>>,
    /// Differences found before: an event that adds just this is looked for.
    pub hints: BTreeMap<Cell, Delta>,
    /// How many archived events Athena said that cells have. An archive only grows: fewer of them is a contradiction.
    pub said: BTreeMap<Cell, u64>,
    /// Cells whose items are not understood: nothing is said of their events.
    pub unusable: BTreeSet<Cell>,
}

/// A cell with findings.
#[derive(Debug, Clone)]
pub struct Found {
    /// The item as it was seen; `None` where the scan saw none.
    pub head: Option<Head>,
    /// What is wrong.
    pub outcome: CellOutcome,
    /// How the item must be raised, where it must.
    pub raise: Option<Raise>,
    /// For a cell behind its own pages: what is wrong when it is raised.
    pub raised: Option<CellOutcome>,
}

/// A cell while it is compared; held for longer if it has keys that no archived event has, so far.
#[derive(Debug, Clone)]
pub struct Open {
    head: Option<Head>,
    report: CellDiff,
    raised: Option<(Raise, CellDiff)>,
    /// Whether the item is behind its own pages, so that the raised comparison is the one to repair by.
    behind: bool,
    /// How many archived events stand on pages above `sealed`.
    exposed: u64,
    /// The greatest key that `sealed` must be at or above: of those, and of what is taken as counted.
    least_sealed: Option<EventKey>,
    hint: Hint,
}

impl Open {
    /// The cell.
    pub fn cell(&self) -> &Cell {
        self.report.cell()
    }

    /// How many archived events it has.
    pub fn events(&self) -> u64 {
        self.report.events()
    }

    /// The keys.
    pub fn unmatched(&self) -> impl Iterator<Item = EventKey> {
        let raised = self.raised.iter().flat_map(|(_, diff)| diff.unmatched());
        self.report.unmatched().iter().chain(raised).copied()
    }

    /// The archive has these keys, perhaps elsewhere.
    pub fn misplace(&mut self, located: &BTreeMap<EventKey, Origin>) {
        self.report.misplace(located);
        if let Some((_, diff)) = &mut self.raised {
            diff.misplace(located);
        }
    }

    /// The result for the cell.
    pub fn conclude(self) -> Result<Found, OutOfRange> {
        let mut outcome = self.report.conclude()?;
        self.hint.name_the_double(&mut outcome);
        outcome.expose(self.exposed);
        let head = self.head.as_ref();
        let (epoch, sealed) = head.map_or((0, None), |head| (head.epoch, head.sealed));
        // What must be known as counted by `sealed`, and is not. A higher epoch takes in the pages that are ahead, too.
        let short = self.least_sealed.filter(|key| sealed.is_none_or(|sealed| sealed < *key));
        let (raise, raised) = self.raised.filter(|_| self.behind || short.is_some()).unzip();
        let raised = raised.map(CellDiff::conclude).transpose()?;
        let raise = match raise {
            Some(Raise { epoch, sealed }) => Some(Raise { epoch, sealed: short.map_or(sealed, |key| key.max(sealed)) }),
            None => short.map(|sealed| Raise { epoch: epoch.saturating_add(1), sealed }),
        };
        Ok(Found { head: self.head, outcome, raise, raised })
    }
}

#[derive(Debug, Clone, Default)]
struct Hint {
    difference: Option<Delta>,
    matches: u64,
    first: Option<NamedEvent>,
}

impl Hint {
    fn see(&mut self, key: EventKey, archived: &Archived) {
        if self.difference.as_ref() == Some(&archived.delta) {
            self.matches = self.matches.saturating_add(1);
            let origin = Some(archived.origin.clone());
            let event = || NamedEvent { event_key: key, origin, row: None, delta: Some(archived.delta.clone()) };
            self.first.get_or_insert_with(event);
        }
    }

    /// Makes `damaged` of an outcome `doubled`, where one event and only one explains it.
    fn name_the_double(self, outcome: &mut CellOutcome) {
        let measured = outcome.unexplained.as_ref().is_some_and(|difference| {
            Some(difference) == self.difference.as_ref() && difference.sums.iter().any(|sum| sum.billionths() != 0)
        });
        let (true, 1, Some(event)) = (measured, self.matches, self.first) else { return };
        for finding in outcome.findings.iter_mut().filter(|finding| finding.kind == Kind::Damaged) {
            let named = Named { count: 1, events: vec![event.clone()] };
            let doubled = Finding::about(Kind::Doubled, &outcome.cell, named, Kind::Doubled.meaning());
            *finding = Finding { expected: finding.expected, actual: finding.actual, ..doubled };
        }
    }
}

/// A cell of which less is archived than was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fewer {
    /// The cell, as it was named.
    pub cell: Cell,
    /// How many archived events it was said to have.
    pub said: u64,
    /// How many were read.
    pub read: u64,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Compared {
    /// How many cells were compared.
    pub cells: u64,
    /// How many archived contributions were.
    pub events: u64,
    /// Cells with findings, in the order (month, group, lane).
    pub found: Vec<Found>,
    /// Cells with unmatched keys, which are not concluded yet.
    pub open: Vec<Open>,
    /// How many cells with findings were not kept, for want of room.
    pub more_cells: u64,
    /// Cells about which `bulks` alone say nothing: their rows must be read. With each, how many rows `bulks` said it has.
    pub suspects: BTreeMap<Cell, u64>,
    /// How many such cells were not kept, for want of room.
    pub more_suspects: u64,
    /// The first cell found with fewer archived events than [`Known::said`].
    pub fewer: Option<Fewer>,
    /// The events of the cells that are in none of these lists.
    pub tally: Tally,
    named: usize,
    unmatched: usize,
}

impl Compared {
    fn suspect(&mut self, cell: Cell, rows: u64) {
        if self.suspects.len() < MAX_SUSPECTS {
            self.suspects.insert(cell, rows);
        } else {
            self.more_suspects += 1;
        }
    }

    /// So many archived events of a cell were read.
    fn read(&mut self, known: &Known, cell: &Cell, read: u64) {
        if let Some(said) = known.said.get(cell).copied().filter(|said| read < *said) {
            self.fewer.get_or_insert_with(|| Fewer { cell: cell.clone(), said, read });
        }
    }

    /// Takes a concluded cell, if anything is wrong with it.
    pub fn take(&mut self, mut found: Found) {
        if found.outcome.findings.is_empty() {
            self.tally.add(found.outcome.tally);
            return;
        }
        let outcomes = std::iter::once(&mut found.outcome).chain(found.raised.as_mut());
        for finding in outcomes.flat_map(|outcome| &mut outcome.findings) {
            let room = MAX_NAMED_IN_ALL.saturating_sub(self.named);
            finding.events.truncate(room);
            finding.event_ids.truncate(room);
            self.named = self.named.saturating_add(finding.events.len());
        }
        if self.found.len() < MAX_CELLS_FOUND {
            self.found.push(found);
        } else {
            self.more_cells += 1;
            self.tally.add(found.outcome.tally);
        }
    }
}

/// Compares all cells. `bulks` is what is said of the rows that are not among the contributions.
pub async fn compare<O: Objects>(
    definition: &Arc<Definition>,
    known: &Known,
    standings: impl Iterator<Item = std::io::Result<Standing>>,
    mut bulks: Bulks,
    mut contributions: Contributions<'_, O>,
) -> Result<Compared, JoinError> {
    let mut compared = Compared::default();
    let mut unread: BTreeSet<&Cell> = known.said.keys().collect();
    let mut standings = standings.peekable();
    let mut variants = known.variants.iter().peekable();
    let mut next = contributions.next().await?;
    loop {
        let standing_unit = match standings.peek() {
            Some(Ok(standing)) => Some(standing.unit()),
            Some(Err(_)) => {
                standings.next().transpose()?;
                continue;
            }
            None => None,
        };
        let contribution_unit = next.as_ref().map(|contribution| (contribution.cell.month, &contribution.cell.group));
        let variant_unit = variants.peek().map(|((month, group, _), _)| (*month, group));
        let least = [standing_unit, contribution_unit, variant_unit, bulks.unit()].into_iter().flatten().min();
        let Some((month, group)) = least.map(|(month, group)| (month, group.clone())) else { break };

        let mut unit = Unit { definition, known, month, group, lanes: BTreeMap::new(), bulks: BTreeMap::new() };
        while bulks.unit().is_some_and(|next| unit.is_at(next)) {
            unit.bulks.extend(bulks.pop()?.map(|bulk| (bulk.cell.lane, bulk)));
        }
        // The items of the lanes come first.
        while let Some(Ok(Standing::Cell(..))) = standings.peek()
            && standings.peek().and_then(|s| s.as_ref().ok()).is_some_and(|s| unit.is_at(s.unit()))
        {
            if let Some(Ok(Standing::Cell(cell, head))) = standings.next() {
                unit.item(cell, head);
            }
        }
        loop {
            let marked = match standings.peek() {
                Some(Ok(Standing::Key(cell, key, _))) if unit.is_at((cell.month, &cell.group)) => Some(*key),
                // An error among them is found when the next unit is looked for.
                _ => None,
            };
            let added =
                next.as_ref().filter(|next| unit.is_at((next.cell.month, &next.cell.group))).map(|next| next.key);
            let varied = variants.peek().filter(|((m, g, _), _)| unit.is_at((*m, g))).map(|((_, _, key), _)| *key);
            let Some(key) = [marked, added, varied].into_iter().flatten().min() else { break };

            let mut at: BTreeMap<u16, KeyAt> = BTreeMap::new();
            while let Some(Ok(Standing::Key(cell, of, mark))) = standings.peek()
                && *of == key
                && unit.is_at((cell.month, &cell.group))
            {
                let at = at.entry(cell.lane).or_default();
                match mark {
                    Mark::Kept => at.kept = true,
                    Mark::Exposed => (at.kept, at.exposed) = (true, true),
                    Mark::Ahead => at.ahead = true,
                    Mark::Listed => at.listed = true,
                }
                standings.next();
            }
            while let Some(contribution) =
                next.take_if(|next| next.key == key && unit.is_at((next.cell.month, &next.cell.group)))
            {
                let at = at.entry(contribution.cell.lane).or_default();
                if let Some(first) = at.archived.first() {
                    let (first, second) = (first.origin.file.clone(), contribution.origin.file);
                    return Err(JoinError::Twice { key, first, second });
                }
                let Contribution { delta, origin, .. } = contribution;
                at.archived.push(Archived { delta, origin, variant: false });
                next = contributions.next().await?;
            }
            while let Some((_, found)) = variants.next_if(|((m, g, of), _)| *of == key && unit.is_at((*m, g))) {
                for (lane, variant) in found {
                    at.entry(*lane).or_default().archived.push(variant.clone());
                }
            }
            for (lane, at) in at {
                unit.key(lane, key, &at);
            }
        }
        for open in unit.lanes.values() {
            unread.remove(open.cell());
        }
        unit.finish(&mut compared)?;
    }
    unread.into_iter().for_each(|cell| compared.read(known, cell, 0));
    Ok(compared)
}

#[derive(Default)]
struct KeyAt {
    kept: bool,
    exposed: bool,
    ahead: bool,
    listed: bool,
    archived: Vec<Archived>,
}

/// One group's month.
struct Unit<'a> {
    definition: &'a Definition,
    known: &'a Known,
    month: Month,
    group: Group,
    lanes: BTreeMap<u16, Open>,
    bulks: BTreeMap<u16, Bulk>,
}

impl Unit<'_> {
    fn is_at(&self, unit: (Month, &Group)) -> bool {
        unit == (self.month, &self.group)
    }

    fn diff(&self, cell: Cell, number: Option<Delta>) -> CellDiff {
        let nets = matches!(self.definition.count, Count::Net { .. });
        CellDiff::new(cell, number, self.definition.measures.len(), nets)
    }

    fn hint(&self, cell: &Cell) -> Hint {
        Hint { difference: self.known.hints.get(cell).cloned(), ..Hint::default() }
    }

    /// Of a lane, where nobody saw an item.
    fn no_item(&self, cell: Cell) -> Open {
        let (report, hint) = (self.diff(cell.clone(), None), self.hint(&cell));
        Open { head: None, report, raised: None, behind: false, exposed: 0, least_sealed: None, hint }
    }

    fn item(&mut self, cell: Cell, head: Head) {
        let report = self.diff(cell.clone(), Some(head.number.clone()));
        let raised = head.ahead.clone().map(|raise| (raise, self.diff(cell.clone(), Some(head.number.clone()))));
        let (behind, hint) = (head.behind, self.hint(&cell));
        self.lanes
            .insert(cell.lane, Open { head: Some(head), report, raised, behind, exposed: 0, least_sealed: None, hint });
    }

    fn key(&mut self, lane: u16, key: EventKey, at: &KeyAt) {
        let cell = Cell { group: self.group.clone(), month: self.month, lane };
        let known = self.known;
        if let Some(bulk) = self.bulks.get_mut(&lane) {
            if at.ahead || at.exposed || at.archived.iter().any(|archived| archived.variant) {
                bulk.odd();
            }
            // Of the files that are summed up, or of none.
            if at.archived.is_empty() {
                if at.kept {
                    bulk.ledger(key);
                }
                return;
            }
        }
        let among = |sets: &BTreeMap<Cell, BTreeSet<EventKey>>| sets.get(&cell).is_some_and(|keys| keys.contains(&key));
        let stands = |test: &dyn Fn(&Archived) -> bool| at.archived.iter().any(test);
        let facts = KeyFacts {
            key,
            in_ledger: at.kept,
            archived: &at.archived,
            passed: stands(&|a| known.passed.covers(&a.origin.shard_id, &a.origin.sequence_number)),
            old: known.horizon.is_some_and(|horizon| key < horizon),
            quarantined: !known.quarantined.is_empty()
                && stands(&|a| {
                    known.quarantined.contains(&(a.origin.shard_id.clone(), a.origin.sequence_number.clone()))
                }),
            listed: at.listed && !among(&known.settled),
            voided: among(&known.voided),
        };
        if !self.lanes.contains_key(&lane) {
            self.lanes.insert(lane, self.no_item(cell.clone()));
        }
        let Some(lane) = self.lanes.get_mut(&lane) else { return };
        let verdict = lane.report.key(&facts);
        if matches!(verdict, KeyVerdict::Counted | KeyVerdict::Taken)
            && let Some(first) = at.archived.first()
        {
            lane.hint.see(key, first);
        }
        let exposed = at.exposed && verdict == KeyVerdict::Counted;
        lane.exposed += u64::from(exposed);
        if exposed || verdict == KeyVerdict::Taken {
            lane.least_sealed = lane.least_sealed.max(Some(key));
        }
        // In an undamaged cell every key of such a page is counted.
        lane.behind |= at.ahead && verdict == KeyVerdict::Missing;
        if let Some((_, raised)) = &mut lane.raised {
            raised.key(&KeyFacts { in_ledger: at.kept || at.ahead, ..facts });
        }
    }

    fn finish(mut self, compared: &mut Compared) -> Result<(), JoinError> {
        let known = self.known;
        for (lane, bulk) in std::mem::take(&mut self.bulks) {
            let mut open = self.lanes.remove(&lane).unwrap_or_else(|| self.no_item(bulk.cell.clone()));
            let ours = [&known.voided, &known.settled].iter().any(|sets| sets.contains_key(&bulk.cell));
            let ahead = open.head.as_ref().is_some_and(|head| head.behind || head.ahead.is_some());
            let adds = bulk.adds.as_ref().filter(|_| bulk.is_counted(known.horizon) && !ours && !ahead);
            match adds {
                Some(adds) => open.report.bulk(bulk.rows, adds, bulk.least),
                None if known.unusable.contains(&bulk.cell) => {
                    open.report.bulk(bulk.rows, &Delta::default(), bulk.least);
                }
                None => {
                    compared.cells += 1;
                    let events = open.report.events().saturating_add(bulk.rows);
                    compared.events = compared.events.saturating_add(events);
                    compared.suspect(bulk.cell, bulk.rows);
                    continue;
                }
            }
            self.lanes.insert(lane, open);
        }
        for open in self.lanes.into_values() {
            compared.read(known, open.cell(), open.report.events());
            if known.unusable.contains(open.cell()) {
                compared.tally.add(open.report.tally());
                continue;
            }
            compared.cells += 1;
            compared.events = compared.events.saturating_add(open.report.events());
            let unmatched = open.unmatched().count();
            if unmatched == 0 {
                compared.take(open.conclude()?);
                continue;
            }
            compared.unmatched = compared.unmatched.saturating_add(unmatched);
            if compared.unmatched > MAX_UNMATCHED {
                return Err(JoinError::TooMuch);
            }
            compared.open.push(open);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "bulk_tests.rs"]
mod bulk_tests;
#[cfg(test)]
#[path = "join_tests.rs"]
mod join_tests;
#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
