//! What others write: names that control terminals or leave their folder, items and objects that are none of ours, entries and
//! files that were changed. It is refused or reported, never followed, never written over, and holds up nothing else.
//!
//! - [`names`]: hostile names through every binary as a process.
//! - [`items`]: the tables. [`objects`]: the bucket.

mod items;
mod names;
mod objects;
