//! Putting an entry under the next number of the log, whoever else puts one at the same time.
//!
//! The last entry has been finished. Then:
//!
//! 1. Put the proposal as entry n = the number of entries.
//!
//!    | under that number stands | then |
//!    | --- | --- |
//!    | ours, byte for byte | 2 |
//!    | somebody else's | read on and finish it; a proposal that survives it goes under the next number, with new targets; else it is overtaken |
//!    | nobody can say | end: nothing is planned or tidied any more |
//!
//!    A number beyond the window of the proposal's uploads: it is too late.
//! 2. Finish it.
//!
//! What survives what:
//!
//! | proposal | archive entry, renewal | addition | compaction, erasure |
//! | --- | --- | --- | --- |
//! | archive, renewal | no: its ranges no longer begin where the log ends | no: its keys must be looked up again | yes: no key came or went |
//! | addition | no: its keys must be looked up again. Behind a renewal: yes | no: likewise | yes |
//! | compaction, erasure | yes: what came is carried over | yes | while all that it read is live |

pub mod addition;

pub use addition::Addition;

use bytes::Bytes;
use recount_schemas::bugs::{self, Bug};
use recount_schemas::host::SharedHost;

use crate::archive::ArchiveError;
use crate::archive::finish::{Catalog, finish};
use crate::archive::life::Life;
use crate::bucket::Objects;
use crate::log::entry::FORMAT;
use crate::log::state::window;
use crate::log::{Committed, Digest, Entry, Kind, LogStore, State, StoreError, check, store};

/// What is to be put: uploads and what they are, without the number and the targets, which the log's state gives.
pub trait Proposal: Sync {
    /// The number of entries that the log had when its uploads began.
    fn base(&self) -> u64;

    /// It as the entry that would come next. `header` has all that every entry has; kind, token, ranges and files are to be
    /// filled in.
    fn entry(&self, state: &State, header: Entry) -> Entry;

    /// Whether it may still be put, behind entries of these kinds that others put meanwhile. `state` has them already.
    fn survives(&self, others: &[Kind], state: &State) -> bool;
}

/// What became of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log under this number, and finished.
    Committed(u64),
    /// Others put what it does not survive.
    Overtaken,
    /// The log went beyond the window of its uploads.
    TooLate,
}

/// How a proposal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// What became of it.
    pub outcome: Outcome,
    /// The numbers that somebody else's entry got first.
    pub races: u64,
}

/// What proposals are put with.
#[derive(Debug)]
pub struct Committer<'c, O> {
    /// The bucket.
    pub objects: &'c O,
    /// The log in it.
    pub log: &'c LogStore<O>,
    /// The hash of the definition in use.
    pub definition: &'c str,
    /// Where months have a location that readers go by.
    pub catalog: Option<&'c dyn Catalog>,
    /// The time.
    pub host: &'c SharedHost,
    /// How long may be written.
    pub life: &'c Life,
}

impl<O: Objects> Committer<'_, O> {
    /// Puts the proposal. The last entry of `state` must have been finished; of what comes out, it has been again.
    pub async fn commit<P: Proposal>(&self, proposal: &P, state: &mut State) -> Result<Ended, ArchiveError> {
        let mut races = 0;
        loop {
            let n = state.next;
            if n >= proposal.base().saturating_add(window()) {
                return Ok(Ended { outcome: Outcome::TooLate, races });
            }
            let entry = proposal.entry(state, self.header(state, proposal.base()));
            check::follows(state, &entry)?;
            let bytes = Bytes::from(entry.to_bytes()?);
            let put = self.log.put(n, &bytes, || self.life.may_write()).await;
            if bugs::on(Bug::LostAnswerIsForgotten) && matches!(put, Err(StoreError::Undecided { .. })) {
                for file in &entry.added {
                    self.objects.delete(&file.source).await?;
                }
                return Ok(Ended { outcome: Outcome::TooLate, races });
            }
            if put? == Committed::Ours {
                state.apply(entry, Digest::of(&bytes))?;
                self.log.keep(state).await;
                self.finish(state).await?;
                return Ok(Ended { outcome: Outcome::Committed(n), races });
            }
            races += 1;
            let kinds = self.log.catch_up(state).await?;
            self.finish(state).await?;
            // Finishing may have read on: of what it came across, the kinds are not known.
            let known = state.next == n + kinds.len() as u64;
            if !known || !proposal.survives(&kinds, state) {
                return Ok(Ended { outcome: Outcome::Overtaken, races });
            }
        }
    }

    /// Finishes the last entry. Whatever others put comes by here before anything else is written, so this is where a log of
    /// another definition is refused.
    pub async fn finish(&self, state: &mut State) -> Result<(), ArchiveError> {
        self.check_definition(state)?;
        finish(self.objects, self.log, self.catalog, state, self.life).await?;
        self.check_definition(state)
    }

    /// What is live, and what was put last, must be this definition's.
    fn check_definition(&self, state: &State) -> Result<(), ArchiveError> {
        let last = state.last.iter().map(|entry| (entry.n, &entry.definition));
        let mut all = state.live().map(|live| (live.n, &live.definition)).chain(last);
        match all.find(|(_, found)| *found != self.definition) {
            Some((n, found)) => {
                Err(ArchiveError::OtherDefinition { n, found: found.clone(), ours: self.definition.to_owned() })
            }
            None => Ok(()),
        }
    }

    fn header(&self, state: &State, base: u64) -> Entry {
        Entry {
            format: FORMAT,
            n: state.next,
            kind: Kind::Renewal,
            previous: state.head,
            folded: store::folded(state).map(|text| Digest::of(text.get().as_bytes())),
            at_ms: self.host.now_ms(),
            definition: self.definition.to_owned(),
            token: String::new(),
            origin: None,
            base,
            stream: None,
            retention_hours: None,
            ranges: Vec::new(),
            seed: None,
            added: Vec::new(),
            removed: Vec::new(),
            versions: std::collections::BTreeMap::new(),
        }
    }
}

/// A new plan's token.
pub fn token(host: &SharedHost) -> String {
    format!("{:016x}{:016x}", host.random_u64(), host.random_u64())
}
