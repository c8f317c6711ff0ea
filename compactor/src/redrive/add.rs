//! Rows into the archive that no reading of the stream brought: by an entry of the kind
//! [`Addition`](crate::log::Kind::Addition), which names no shard and no range.
//!
//! Each record is looked up first: one whose event is archived already is a duplicate and gets no row; one with the key of an
//! archived event and another content is a conflict, and is kept under `conflicts/`. Whoever puts rows meanwhile may bring one of these
//! events: then they are looked up again.

use std::sync::Arc;

use bytes::Bytes;
use recount_schemas::host::SharedHost;
use recount_schemas::{Definition, ShardId};

use super::RedriveError;
use crate::archive::ArchiveError;
use crate::archive::finish::Catalog;
use crate::archive::life::Life;
use crate::archive::read::Reading;
use crate::archive::sort::{sort, write_aside};
use crate::archive::source::Record;
use crate::bucket::Objects;
use crate::commit::{Addition, Committer, Outcome, token};
use crate::log::{LogStore, names};
use crate::rows::write;

/// How often in a row others may be faster.
const TRIES: u32 = 30;

/// What became of a record on its way into the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It has its row since now, by this entry of the log.
    Added(u64),
    /// It had one before.
    Archived,
    /// An event with its key and another content has one.
    Conflicting,
    /// It cannot be judged any more.
    Unjudged,
}

/// Puts rows into an archive.
#[derive(Debug, Clone, Copy)]
pub struct Adder<'a, O> {
    /// The bucket.
    pub objects: &'a O,
    /// What is counted.
    pub definition: &'a Arc<Definition>,
    /// The stream's name, for what is kept under `conflicts/`.
    pub stream: &'a str,
    /// Where the rows come from.
    pub origin: &'a str,
    /// Where months have a location, if they have.
    pub catalog: Option<&'a dyn Catalog>,
    /// Time and randomness.
    pub host: &'a SharedHost,
}

impl<O: Objects> Adder<'_, O> {
    /// Puts the records that are not archived yet into the archive. What became of each, in their order.
    pub async fn add(&self, records: &[(ShardId, Record)], life: &Life) -> Result<Vec<Place>, RedriveError> {
        let log = LogStore::new(self.objects.clone(), self.host.clone());
        let mut state = log.read_to_head().await?;
        let committer = Committer {
            objects: self.objects,
            log: &log,
            definition: self.definition.hash(),
            catalog: self.catalog,
            host: self.host,
            life,
        };
        committer.finish(&mut state).await?;
        for _ in 0..TRIES {
            let readings = records.iter().map(|(shard, record)| reading(shard, record)).collect();
            let sorted = sort(self.objects, self.definition, self.stream, &state, readings).await?;
            write_aside(self.objects, sorted.aside, life).await?;
            let place = |n: u64| {
                let of = |range: &crate::log::ShardRange| match (range.rows, range.duplicates, range.conflicts) {
                    (1, ..) => Place::Added(n),
                    (_, 1, _) => Place::Archived,
                    (_, _, 1) => Place::Conflicting,
                    _ => Place::Unjudged,
                };
                sorted.ranges.iter().map(of).collect()
            };
            if sorted.rows.is_empty() {
                return Ok(place(0));
            }
            let base = state.next;
            let token = token(self.host);
            let mut files = Vec::new();
            for (i, (month, rows)) in sorted.rows.into_iter().enumerate() {
                let written = write(self.definition, month, rows).map_err(ArchiveError::from)?;
                let Some(mut written) = written else { continue };
                let source = names::staged(base, &token, i);
                life.check()?;
                self.objects.put(&source, std::mem::take(&mut written.bytes)).await?;
                files.push((source, written));
            }
            let addition = Addition { base, token, origin: self.origin.to_owned(), files };
            match committer.commit(&addition, &mut state).await?.outcome {
                Outcome::Committed(n) => return Ok(place(n)),
                // The uploads stay, as those of a crash do, until the log is past their window.
                Outcome::Overtaken | Outcome::TooLate => {}
            }
        }
        Err(RedriveError::Overtaken(TRIES))
    }
}

/// A record as the only one that was read of its shard.
fn reading(shard: &ShardId, record: &Record) -> Reading {
    Reading {
        shard: shard.clone(),
        parents: Vec::new(),
        from: None,
        records: vec![Record { data: Bytes::clone(&record.data), ..record.clone() }],
        closed: false,
        at_tip: false,
        caught_up_ms: None,
        lost: None,
        gave_up: None,
    }
}
