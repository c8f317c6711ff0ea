//! Uploads that can never be committed.
//!
//! A staged name says how many entries the log had when the upload began. Once the log is past the window from there, no
//! entry can name the upload any more, and those that do have been finished. Nothing is deleted by its age in time: a
//! plan may be slow.

use recount_schemas::bugs::{self, Bug};

use super::ArchiveError;
use super::life::Life;
use crate::bucket::{Listing, Objects};
use crate::log::names;
use crate::log::state::{State, window};

/// Whether an upload begun when the log had `base` entries can never be committed once the log has `entries`.
pub fn is_garbage(base: u64, entries: u64) -> bool {
    base.saturating_add(if bugs::on(Bug::TidiesTooEarly) { 1 } else { window() }) <= entries
}

/// Deletes the uploads that can never be committed. The last entry must have been finished. Returns how many.
pub async fn tidy<O: Objects>(objects: &O, state: &State, life: &Life) -> Result<u64, ArchiveError> {
    let mut deleted = 0;
    let mut listing = Listing::new(objects, names::STAGING);
    while let Some(page) = listing.next_page().await? {
        for listed in page {
            let Some(base) = names::staged_base(&listed.key) else { continue };
            if !is_garbage(base, state.next) {
                return Ok(deleted); // names sort by base: all that follow are younger
            }
            life.check()?;
            objects.delete(&listed.key).await?;
            deleted += 1;
        }
    }
    Ok(deleted)
}
