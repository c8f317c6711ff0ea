//! What the archive says of each item: its changes, in their order, beside what was read of the table.
//!
//! - [`change`]: one archived change as far as an item's history needs it, and the order of changes.
//! - [`read`]: the changes of the archive's files into an external sort by the item's key.
//! - [`unnamed`]: changes that do not say their item: erased ones.
//! - [`walk`]: table and archive side by side, item by item.

pub mod change;
pub mod read;
pub mod unnamed;
pub mod walk;

pub use change::{Change, Order, State};
pub use unnamed::Unnamed;
pub use walk::{Seen, Side, Walk};
