//! Steps 2 to 4 of reconcile for the cells: each item (consistent, one moment), then, after it, its pages and its too-old
//! list. What is read goes into the external sort as it comes: of a ledger, memory holds `recent` and one answer of the query.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};
use recount_consumer::cell::Look;
use recount_consumer::totals::{Totals, TotalsError};
use recount_schemas::bugs::{self, Bug};
use recount_schemas::items::cell_of;
use recount_schemas::{Cell, Delta, EventKey};

use super::standing::{Head, Mark, Raise, push_head, push_key};
use crate::contributions::Scope;
use crate::contributions::spill::Sorter;

/// Cells whose ledgers are read at the same time.
const AT_ONCE: usize = 16;

/// The cells could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// DynamoDB failed, or an item is not understood.
    #[error(transparent)]
    Totals(#[from] TotalsError),
    /// Too many items are not understood: it is another table, perhaps.
    #[error("more than {MAX_UNUSABLE} items of the totals are not understood; is it the right table")]
    TooManyUnusable,
    /// The temporary file failed.
    #[error("sorting in the temporary directory failed: {0}")]
    Spill(#[from] io::Error),
}

/// Most items that are not understood of which a reading tells.
pub const MAX_UNUSABLE: usize = 10_000;

/// An item that is not understood. Others are read all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// The cell that cannot be compared; `None` for an item that is none of a cell.
    pub cell: Option<Cell>,
    /// Which item, and why.
    pub why: String,
}

impl Unusable {
    /// From an error that tells of such an item; any other error is given back. `cell`: whose ledger was read.
    fn of(error: LookError, cell: Option<Cell>) -> Result<Self, LookError> {
        match error {
            LookError::Totals(error) if error.is_unusable() => {
                let why = error.to_string();
                let TotalsError::Item { pk, sk, .. } = error else { return Ok(Self { cell, why }) };
                Ok(Self { cell: cell.or_else(|| cell_of(&pk, &sk)), why })
            }
            error => Err(error),
        }
    }
}

/// What a reading came to.
#[derive(Debug, Default)]
pub struct ReadCells {
    /// How many cells were read.
    pub cells: u64,
    /// The items that are not understood. What the sort has of their cells is not whole.
    pub unusable: Vec<Unusable>,
}

impl ReadCells {
    /// One cell was read, or its item is not understood.
    fn take(&mut self, read: Result<(), Unusable>) -> Result<(), LookError> {
        match read {
            Ok(()) => self.cells += 1,
            Err(_) if self.unusable.len() >= MAX_UNUSABLE => return Err(LookError::TooManyUnusable),
            Err(unusable) => self.unusable.push(unusable),
        }
        Ok(())
    }
}

/// The sort, shared by the cells that are being read.
pub type Sink<'a> = Mutex<&'a mut Sorter>;

/// One cell while it is read. Its keys go to the sort as they come; what stays is what its pages say together.
#[derive(Debug)]
pub struct Seen<'a, 's> {
    cell: Cell,
    head: Head,
    recent: BTreeSet<EventKey>,
    /// The greatest key that ever left `recent`, as far as seen.
    greatest: Option<EventKey>,
    /// The greatest epoch of its pages that is not below its own.
    newest: Option<u64>,
    sink: &'a Sink<'s>,
}

impl<'a, 's> Seen<'a, 's> {
    /// From one moment of an item; `None`: there was none.
    pub fn new(cell: Cell, look: Option<Look>, sink: &'a Sink<'s>) -> io::Result<Self> {
        let present = look.is_some();
        let Look { events, sums, recent, sealed, epoch, repair } = look.unwrap_or_default();
        let number = Delta { events, sums };
        let head = Head { present, number, epoch, sealed, recent: recent.len(), repair, ahead: None, behind: false };
        let seen = Self { cell, head, recent, greatest: sealed, newest: None, sink };
        seen.push(seen.recent.iter().map(|key| (*key, Mark::Kept)))?;
        Ok(seen)
    }

    /// One of its pages, read after the item.
    pub fn page(&mut self, epoch: u64, keys: &[EventKey]) -> io::Result<()> {
        let greatest = keys.iter().max().copied();
        self.greatest = self.greatest.max(greatest);
        let kept = epoch < self.head.epoch + u64::from(bugs::on(Bug::PageOfTheSameEpochCounts));
        if !kept {
            self.newest = self.newest.max(Some(epoch));
        }
        let (sealed, recent) = (self.head.sealed, &self.recent);
        let exposed = |key: &EventKey| sealed.is_none_or(|sealed| sealed < *key) && !recent.contains(key);
        self.push(keys.iter().map(|key| match (kept, exposed(key)) {
            (true, false) => (*key, Mark::Kept),
            (true, true) => (*key, Mark::Exposed),
            (false, _) => (*key, Mark::Ahead),
        }))
    }

    /// An entry of its too-old list.
    pub fn listed(&self, key: EventKey) -> io::Result<()> {
        self.push([(key, Mark::Listed)])
    }

    /// Whether a page's epoch is not below the item's. A cell that is sealed while it is read has such pages: the item must be
    /// looked at again to tell.
    pub fn is_ahead(&self) -> bool {
        self.newest.is_some()
    }

    /// All was read. `again` is the item's epoch after the pages were read (`None`: there was no item); it matters only if
    /// [`Seen::is_ahead`].
    ///
    /// | the greatest epoch of a page | the item again | the cell |
    /// | --- | --- | --- |
    /// | below the item's | – | has all its pages |
    /// | at or above the item's | above that page's | was sealed meanwhile: nothing to raise |
    /// | the same | at that page's | is being sealed, or the sealing broke off; or it was deleted, which its missing keys tell |
    /// | the same | below that page's, or none | was deleted: behind |
    pub fn done(mut self, again: Option<u64>) -> io::Result<()> {
        if let Some(newest) = self.newest.filter(|newest| again.is_none_or(|again| again <= *newest)) {
            let sealed = self.greatest.unwrap_or(EventKey::MIN);
            self.head.ahead = Some(Raise { epoch: newest.saturating_add(1), sealed });
            self.head.behind = again.is_none_or(|again| again < newest);
        }
        push_head(&mut lock(self.sink), &self.cell, &self.head)
    }

    fn push(&self, keys: impl IntoIterator<Item = (EventKey, Mark)>) -> io::Result<()> {
        let mut sorter = lock(self.sink);
        keys.into_iter().try_for_each(|(key, mark)| push_key(&mut sorter, &self.cell, key, mark))
    }
}

fn lock<'g, 's>(sink: &'g Sink<'s>) -> MutexGuard<'g, &'s mut Sorter> {
    // Nothing panics in the sort; if it did, the entries that it has are still entries.
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a cell's pages and its too-old list, after its item.
///
/// A cell that was never sealed has no page and no late key. Unless it is looked at closely: it may have been deleted.
async fn read_cell(
    totals: &Totals,
    cell: Cell,
    look: Option<Look>,
    closely: bool,
    sink: &Sink<'_>,
) -> Result<(), LookError> {
    let pages = closely || look.as_ref().is_some_and(|look| look.sealed.is_some() || look.epoch > 0);
    let mut seen = Seen::new(cell.clone(), look, sink)?;
    let mut again = None;
    if pages {
        let mut read = totals.pages(&cell, EventKey::MIN);
        while let Some(page) = read.try_next().await? {
            seen.page(page.name.epoch, &page.keys)?;
        }
        drop(read);
        if seen.is_ahead() {
            again = totals.look(&cell).await?.map(|look| look.epoch);
        }
        let mut read = totals.too_old(&cell);
        while let Some(too_old) = read.try_next().await? {
            seen.listed(too_old.key)?;
        }
    }
    Ok(seen.done(again)?)
}

fn understood(read: Result<(), LookError>, cell: Option<Cell>) -> Result<Result<(), Unusable>, LookError> {
    match read {
        Ok(()) => Ok(Ok(())),
        Err(error) => Unusable::of(error, cell).map(Err),
    }
}

/// Reads the cells in `scope` into the sort. An item that is not understood holds up no other.
pub async fn read_cells(totals: &Totals, scope: &Scope, sorter: &mut Sorter) -> Result<ReadCells, LookError> {
    let mut done = ReadCells::default();
    let sink = &Mutex::new(sorter);
    match &scope.cells {
        Some(cells) => {
            let cells: &BTreeSet<Cell> = cells;
            let mut all = stream::iter(cells.iter().filter(|cell| scope.has(cell)).cloned())
                .map(|cell| async move {
                    let read = async {
                        let look = totals.look(&cell).await?;
                        read_cell(totals, cell.clone(), look, true, sink).await
                    };
                    understood(read.await, Some(cell.clone()))
                })
                .buffer_unordered(AT_ONCE);
            while let Some(read) = all.try_next().await? {
                done.take(read)?;
            }
        }
        None => {
            let items = match &scope.group {
                Some(group) => totals.group_cells(group),
                None => totals.scan_cells(),
            };
            let mut all = items
                .try_filter(|(cell, _)| std::future::ready(scope.has(cell)))
                .map(|item| async move {
                    match item {
                        Ok((cell, look)) => {
                            let read = read_cell(totals, cell.clone(), Some(look), false, sink).await;
                            understood(read, Some(cell))
                        }
                        Err(error) => understood(Err(error.into()), None),
                    }
                })
                .buffer_unordered(AT_ONCE);
            while let Some(read) = all.try_next().await? {
                // A cell beyond the scope is nobody's question.
                let asked = |unusable: &Unusable| unusable.cell.as_ref().is_none_or(|cell| scope.has(cell));
                if read.as_ref().err().is_none_or(asked) {
                    done.take(read)?;
                }
            }
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::super::standing::{Standing, Standings};
    use super::*;

    fn cell() -> Cell {
        Cell { group: "acme".parse().unwrap(), month: "2026-11".parse().unwrap(), lane: 0 }
    }

    fn key(ms: i64) -> EventKey {
        EventKey::least_at(ms)
    }

    /// The head of an item at `epoch` that has one page of epoch `page`, with the item again at `again`.
    fn head(epoch: Option<u64>, page: u64, again: Option<u64>) -> Head {
        let mut sorter = Sorter::new();
        let sink = Mutex::new(&mut sorter);
        let look = epoch.map(|epoch| Look { epoch, ..Look::default() });
        let mut seen = Seen::new(cell(), look, &sink).unwrap();
        seen.page(page, &[key(3), key(8)]).unwrap();
        seen.done(again).unwrap();
        match Standings::new(sorter.finish().unwrap()).next() {
            Some(Ok(Standing::Cell(_, head))) => head,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_cell_is_behind_only_if_it_still_is_after_its_pages_were_read() {
        for (epoch, page, again, raise, behind) in [
            (Some(3), 2, Some(3), None, false),
            (Some(3), 3, Some(4), None, false),
            (Some(3), 5, Some(6), None, false),
            (None, 0, Some(1), None, false),
            (Some(3), 3, Some(3), Some(4), false),
            (Some(3), 4, Some(4), Some(5), false),
            (None, 0, Some(0), Some(1), false),
            (Some(3), 5, Some(3), Some(6), true),
            (Some(3), 5, Some(4), Some(6), true),
            (Some(3), 3, None, Some(4), true),
            (None, 3, None, Some(4), true),
        ] {
            let head = head(epoch, page, again);
            let what = format!("{epoch:?} {page} {again:?}");
            assert_eq!(head.ahead, raise.map(|epoch| Raise { epoch, sealed: key(8) }), "{what}");
            assert_eq!(head.behind, behind, "{what}");
        }
    }

    #[test]
    fn a_key_above_sealed_must_be_in_recent() {
        let mut sorter = Sorter::new();
        let sink = Mutex::new(&mut sorter);
        let look = Look { recent: [key(9)].into(), sealed: Some(key(5)), epoch: 3, ..Look::default() };
        let mut seen = Seen::new(cell(), Some(look), &sink).unwrap();
        seen.page(0, &[key(5), key(7)]).unwrap();
        // A broken-off sealing whose key 9 stayed in `recent` is as it must be.
        seen.page(1, &[key(4), key(9)]).unwrap();
        seen.done(Some(3)).unwrap();
        let exposed = Standings::new(sorter.finish().unwrap()).filter_map(|standing| match standing.unwrap() {
            Standing::Key(_, key, Mark::Exposed) => Some(key),
            _ => None,
        });
        assert_eq!(exposed.collect::<Vec<_>>(), [key(7)]);
    }

    #[test]
    fn keys_go_to_the_sort_as_they_come() {
        let mut sorter = Sorter::with_buffer(10_000);
        let sink = Mutex::new(&mut sorter);
        let mut seen = Seen::new(cell(), Some(Look { epoch: 9, ..Look::default() }), &sink).unwrap();
        let mut pushed = 0;
        for page in 0..50 {
            let keys: Vec<EventKey> = (0..39).map(|n| key(page * 39 + n)).collect();
            seen.page(page.unsigned_abs() % 9, &keys).unwrap();
            pushed += keys.len();
            assert_eq!(lock(&sink).pushed(), pushed, "nothing of a page is held back");
        }
        seen.listed(key(1)).unwrap();
        assert_eq!(lock(&sink).pushed(), pushed + 1);
        seen.done(None).unwrap();
        assert_eq!(Standings::new(sorter.finish().unwrap()).count(), pushed + 2);
    }
}
