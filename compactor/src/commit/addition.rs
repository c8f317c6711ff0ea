//! The entry that adds rows which nobody read from the stream: redriven or backfilled.

use super::Proposal;
use crate::log::{Entry, Kind, State, names};
use crate::rows::Written;

/// Uploaded files of rows, at most one of a month. Their keys were looked up in the archive as it was at `base`.
#[derive(Debug, Clone)]
pub struct Addition {
    /// The number of entries that the log had when its uploads began.
    pub base: u64,
    /// The token of its uploads.
    pub token: String,
    /// What its rows come from, as the log says it.
    pub origin: String,
    /// The uploads, and what they are.
    pub files: Vec<(String, Written)>,
}

impl Proposal for Addition {
    fn base(&self) -> u64 {
        self.base
    }

    fn entry(&self, state: &State, header: Entry) -> Entry {
        let n = state.next;
        let target = |written: &Written, i| names::target(written.month, state.version(written.month), n, i);
        let files = self.files.iter().enumerate();
        Entry {
            kind: Kind::Addition,
            token: self.token.clone(),
            origin: Some(self.origin.clone()),
            added: files.map(|(i, (source, written))| written.added(source.clone(), target(written, i))).collect(),
            ..header
        }
    }

    /// No key came or went by a renewal, a compaction or an erasure.
    fn survives(&self, others: &[Kind], _: &State) -> bool {
        others.iter().all(|kind| kind.replaces() || *kind == Kind::Renewal)
    }
}
