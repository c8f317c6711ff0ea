//! The entry that gives a month a new version: files written anew in the place of some, and copies of all others.

use std::collections::{BTreeMap, BTreeSet};

use recount_schemas::Month;

use crate::commit::Proposal;
use crate::log::{AddedFile, Entry, Kind, State, names};
use crate::rows::Written;

/// A month's files, some of them written anew.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// [`Kind::Compaction`], or [`Kind::Erasure`] with an origin.
    pub kind: Kind,
    /// What an erasure comes from.
    pub origin: Option<String>,
    /// The month.
    pub month: Month,
    /// The number of entries that the log had when its uploads began.
    pub base: u64,
    /// The token of its uploads.
    pub token: String,
    /// The targets of the files that were read.
    pub inputs: BTreeSet<String>,
    /// The uploads, and what they are.
    pub outputs: Vec<(String, Written)>,
}

impl Replacement {
    /// Whether all that was read is still live. A target has one life, so nothing else can stand there.
    pub fn stands(&self, state: &State) -> bool {
        self.inputs.iter().all(|target| state.find(target).is_some())
    }
}

impl Proposal for Replacement {
    fn base(&self) -> u64 {
        self.base
    }

    fn entry(&self, state: &State, header: Entry) -> Entry {
        let (n, month) = (state.next, self.month);
        let live = || state.files.get(&month).into_iter().flatten();
        let carried = live().filter(|(target, _)| !self.inputs.contains(*target));
        let written = self.outputs.iter().map(|(source, written)| written.added(source.clone(), String::new()));
        let carried = carried.map(|(target, live)| AddedFile { source: target.clone(), ..live.file.clone() });
        let named = |(i, file): (usize, AddedFile)| AddedFile { target: names::target(month, n, n, i), ..file };
        Entry {
            kind: self.kind,
            token: self.token.clone(),
            origin: self.origin.clone(),
            added: written.chain(carried).enumerate().map(named).collect(),
            removed: live().map(|(target, _)| target.clone()).collect(),
            versions: BTreeMap::from([(month, n)]),
            ..header
        }
    }

    fn survives(&self, _: &[Kind], state: &State) -> bool {
        self.stands(state)
    }
}
