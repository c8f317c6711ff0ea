//! Steps 2 to 4 of reconcile for the cells: each item (consistent, one moment), then, after it, its pages and its too-old
//! list. What is read goes into the external sort; memory holds the ledgers of the few cells that are being read.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use recount_consumer::cell::Look;
use recount_consumer::totals::{Totals, TotalsError};
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
    /// The temporary file failed.
    #[error("sorting in the temporary directory failed: {0}")]
    Spill(#[from] std::io::Error),
}

/// One cell as DynamoDB has it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The cell.
    pub cell: Cell,
    /// Its item.
    pub head: Head,
    /// Its keys.
    pub marks: Vec<(EventKey, Mark)>,
}

impl Seen {
    /// From one moment of an item (`None`: there was none), and what was read after it.
    pub fn new(
        cell: Cell,
        look: Option<Look>,
        pages: impl IntoIterator<Item = (u64, Vec<EventKey>)>,
        listed: impl IntoIterator<Item = EventKey>,
    ) -> Self {
        let present = look.is_some();
        let look = look.unwrap_or_default();
        let mut marks: Vec<(EventKey, Mark)> = look.recent.iter().map(|key| (*key, Mark::Kept)).collect();
        let (mut ahead, mut behind) = (None::<Raise>, false);
        let mut greatest = look.sealed;
        for (epoch, keys) in pages {
            greatest = greatest.max(keys.iter().max().copied());
            let mark = if epoch < look.epoch { Mark::Kept } else { Mark::Ahead };
            if mark == Mark::Ahead {
                behind |= !present || epoch > look.epoch;
                let above = epoch.saturating_add(1).max(ahead.map_or(0, |raise| raise.epoch));
                ahead = Some(Raise { epoch: above, sealed: EventKey::MIN });
            }
            marks.extend(keys.into_iter().map(|key| (key, mark)));
        }
        if let (Some(raise), Some(greatest)) = (&mut ahead, greatest) {
            raise.sealed = greatest;
        }
        marks.extend(listed.into_iter().map(|key| (key, Mark::Listed)));
        let number = Delta { events: look.events, sums: look.sums };
        let head =
            Head { present, number, epoch: look.epoch, recent: look.recent.len(), repair: look.repair, ahead, behind };
        Self { cell, head, marks }
    }

    /// Gives it to the sort.
    pub fn push(&self, sorter: &mut Sorter) -> std::io::Result<()> {
        push_head(sorter, &self.cell, &self.head)?;
        self.marks.iter().try_for_each(|(key, mark)| push_key(sorter, &self.cell, *key, *mark))
    }
}

/// Reads a cell's pages and its too-old list, after its item.
///
/// A cell that was never sealed has no page and no late key. Unless it is looked at closely: it may have been deleted.
async fn seen(totals: &Totals, cell: Cell, look: Option<Look>, closely: bool) -> Result<Seen, TotalsError> {
    let (mut pages, mut listed) = (Vec::new(), Vec::new());
    if closely || look.as_ref().is_some_and(|look| look.sealed.is_some() || look.epoch > 0) {
        let mut read = totals.pages(&cell, EventKey::MIN);
        while let Some(page) = read.try_next().await? {
            pages.push((page.name.epoch, page.keys));
        }
        drop(read);
        let mut read = totals.too_old(&cell);
        while let Some(too_old) = read.try_next().await? {
            listed.push(too_old.key);
        }
    }
    Ok(Seen::new(cell, look, pages, listed))
}

/// Reads the cells in `scope` into the sort. Returns how many there were.
pub async fn read_cells(totals: &Totals, scope: &Scope, sorter: &mut Sorter) -> Result<u64, LookError> {
    let mut count = 0;
    match &scope.cells {
        Some(cells) => {
            let cells: &BTreeSet<Cell> = cells;
            let mut all = stream::iter(cells.iter().filter(|cell| scope.has(cell)).cloned())
                .map(|cell| async move {
                    let look = totals.look(&cell).await?;
                    seen(totals, cell, look, true).await
                })
                .buffer_unordered(AT_ONCE);
            while let Some(seen) = all.try_next().await? {
                seen.push(sorter)?;
                count += 1;
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
                    let (cell, look) = item?;
                    seen(totals, cell, Some(look), false).await
                })
                .buffer_unordered(AT_ONCE);
            while let Some(seen) = all.try_next().await? {
                seen.push(sorter)?;
                count += 1;
            }
        }
    }
    Ok(count)
}
