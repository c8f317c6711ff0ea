//! The protocol of one cell: exactly once for the price of at least once. Pure: no I/O, no clock, no SDK.
//!
//! A cell is one item of the totals table; [`Look`] is what one moment of it shows. **The ledger of a cell at epoch `e` is
//! `recent` plus every page with an epoch below `e`**; a key is counted if and only if it is in the ledger.
//!
//! Three writes exist, each one conditional update of one item, and one unconditional put. Every one of them may be sent
//! again, arrive late, or be made by two at once:
//!
//! | write | does | if |
//! | --- | --- | --- |
//! | [`Guard::Fast`] | adds keys and their sums | none of the keys in `recent`, and `sealed` absent or below the least of them; `recent` below the hard limit |
//! | [`Guard::Late`] | the same | none of the keys in `recent`, and `epoch` as it was before the pages were searched; `recent` below the hard limit |
//! | [`Guard::Exact`] | the same | `epoch` and the size of `recent` as they were when the keys were checked against it |
//! | page | puts a page, named by its contents and the epoch | – |
//! | flip ([`Seal`]) | takes the page's keys out of `recent`, raises `sealed` to the greatest key that ever left, `epoch` + 1 | `epoch` as it was when the page's keys were seen in `recent` |
//!
//! Why each part is needed:
//!
//! - `recent` only grows within an epoch, so an equal size is the same set ([`Guard::Exact`]), and keys that were seen in it are
//!   still in it (flip).
//! - All keys that ever left `recent` are at or below `sealed`, so a key above it can only be in `recent` ([`Guard::Fast`]). That needs the greatest
//!   ever, and the least key of the write.
//! - A key at or below `sealed` may be on a page; pages come to the ledger only by a flip, and each flip raises the epoch. So a search after the look
//!   and an unchanged epoch at the write are enough ([`Guard::Late`]).
//! - The page is put before the flip: there is no moment in which a key is in neither. A crash between leaves an orphan page, all of whose keys are counted.
//! - A page expires later than the ledger reaches back, by more than any attempt takes; a late key older than the ledger reaches back is never
//!   counted, since its page may be gone.
//!
//! Each of these was left out in turn, and the tests of this module find each time what goes wrong.
//!
//! - [`apply`]: the steps of a writer, [`Applying`].
//! - [`seal`]: when to seal and what, [`Seal`].

pub mod apply;
#[cfg(test)]
mod model;
#[cfg(test)]
mod model_tests;
pub mod seal;

use std::collections::BTreeSet;

use recount_schemas::{Amount, EventKey};
use smallvec::SmallVec;

pub use apply::{Applying, Guard, Outcome, Step, Update};
pub use seal::Seal;

/// What one moment of a cell's item shows. An absent item is [`Look::default`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Look {
    /// Events counted.
    pub events: i64,
    /// The sums, in the order of the definition's measures.
    pub sums: SmallVec<[Amount; 2]>,
    /// The keys counted since the last sealing that were not sealed by it.
    pub recent: BTreeSet<EventKey>,
    /// The greatest key that ever left `recent`.
    pub sealed: Option<EventKey>,
    /// How often the cell was sealed.
    pub epoch: u64,
    /// The last repair plan applied.
    pub repair: Option<String>,
}

impl Look {
    /// Whether a key that is not in `recent` can be on a page.
    pub fn is_late(&self, key: &EventKey) -> bool {
        self.sealed.is_some_and(|sealed| *key <= sealed)
    }
}
