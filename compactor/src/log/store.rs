//! Reading the log to its head, and putting the next entry.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use recount_schemas::bugs::{self, Bug};
use recount_schemas::host::SharedHost;
use serde::{Deserialize, Serialize};

use super::check::LogError;
use super::entry::{Digest, Entry, FORMAT, Kind, MAX_BYTES};
use super::names;
use super::state::State;
use crate::bucket::{BucketError, Listing, Objects, Put};

/// Every so many entries the folded log is kept beside the log.
const STATE_EVERY: u64 = 100;
/// The same in simulated histories that want it so.
const STATE_EVERY_SMALL: u64 = 4;
/// The largest folded log that is read, in bytes.
const MAX_STATE: u64 = 256 << 20;
/// How many entries are asked for at a time.
const AHEAD: u64 = 8;
/// How many folded logs are tried, from the newest, before the log is read from its beginning; older ones are deleted.
const STATE_TRIES: usize = 3;
/// How often an entry is put whose outcome is not known.
const PUT_TRIES: u32 = 8;
/// The longest pause before such a try.
const PUT_PAUSE: Duration = Duration::from_secs(5);

/// The log could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The log is damaged, or newer than this program.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Nobody can say whether the entry was put: no more may be planned by this run, nor anything tidied.
    #[error("whether log entry {n} was put cannot be known ({why}); the next run will find out")]
    Undecided {
        /// The entry.
        n: u64,
        /// The last failure.
        why: String,
    },
    /// The run has lived too long to write.
    #[error("the run's time is up; the next run goes on")]
    TimeIsUp,
}

/// Whose entry has the number now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// The one that was to be put, byte for byte.
    Ours,
    /// Another one; it has been applied to no state yet.
    Theirs,
}

/// The log in a bucket.
#[derive(Debug, Clone)]
pub struct LogStore<O> {
    objects: O,
    host: SharedHost,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    format: u32,
    /// The digest of the entry that the state was folded up to.
    entry: Digest,
    /// The digest of the state's text, so that a damaged one is not used.
    digest: Digest,
    state: Box<serde_json::value::RawValue>,
}

impl<O: Objects> LogStore<O> {
    /// The log in `objects`.
    pub fn new(objects: O, host: SharedHost) -> Self {
        Self { objects, host }
    }

    /// The log folded up to its head.
    pub async fn read_to_head(&self) -> Result<State, StoreError> {
        let mut state = self.kept().await?;
        self.catch_up(&mut state).await?;
        Ok(state)
    }

    /// The same without the folded logs: every entry is read, and every link of the chain is checked.
    pub async fn read_whole(&self) -> Result<State, StoreError> {
        let mut state = State::default();
        self.catch_up(&mut state).await?;
        Ok(state)
    }

    /// Applies the entries that were put since. Returns what they do.
    ///
    /// An entry that is missing is the end of the log only if none comes behind it; else the log is broken, and must not
    /// be written on: the hole's number would be given out again.
    pub async fn catch_up(&self, state: &mut State) -> Result<Vec<Kind>, StoreError> {
        self.follow(state, |_| {}).await
    }

    /// The same, which shows each state that the log went through.
    pub async fn follow(&self, state: &mut State, mut seen: impl FnMut(&State)) -> Result<Vec<Kind>, StoreError> {
        let mut kinds = Vec::new();
        loop {
            let batch = state.next..state.next + AHEAD;
            let mut entries = futures::stream::iter(batch.map(|n| self.bytes_of(n))).buffered(AHEAD as usize);
            while let Some(bytes) = entries.next().await {
                let bytes = match bytes? {
                    Some(bytes) => bytes,
                    None => match self.behind(state.next).await? {
                        Some(bytes) => bytes,
                        None => return Ok(kinds),
                    },
                };
                let entry = Entry::from_bytes(state.next, &bytes)?;
                kinds.push(entry.kind);
                state.apply(entry, Digest::of(&bytes))?;
                seen(state);
            }
        }
    }

    /// The bytes of entry `n`, which was not there a moment ago, if it was put meanwhile and others behind it.
    async fn behind(&self, n: u64) -> Result<Option<Bytes>, StoreError> {
        let name = names::entry(n);
        let later = self.objects.list_page(names::LOG, Some(&name)).await?;
        let Some(later) = later.into_iter().find(|listed| names::entry_number(&listed.key).is_some()) else {
            return Ok(None);
        };
        match self.bytes_of(n).await? {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(LogError::Broken { n, why: format!("it is not there, and {} is", later.key) }.into()),
        }
    }

    /// The bytes of entry `n`, if it has been put.
    pub async fn bytes_of(&self, n: u64) -> Result<Option<Bytes>, StoreError> {
        Ok(self.objects.get(&names::entry(n), MAX_BYTES).await?)
    }

    /// Puts `bytes` as entry `n` and finds out whose entry has that number then.
    ///
    /// | answer | what stands under `n` | outcome |
    /// | --- | --- | --- |
    /// | created | – | ours |
    /// | exists, or none | the same bytes | ours: an answer was lost on the way |
    /// | exists, or none | other bytes | theirs |
    /// | none | nothing | the same bytes again |
    ///
    /// `may_write` is asked before every put; where it says no, the number is left as it is.
    pub async fn put(&self, n: u64, bytes: &Bytes, may_write: impl Fn() -> bool) -> Result<Committed, StoreError> {
        let mut unsure = None;
        for attempt in 0..PUT_TRIES {
            if !may_write() {
                return Err(match unsure {
                    Some(why) => StoreError::Undecided { n, why },
                    None => StoreError::TimeIsUp,
                });
            }
            let answer = self.objects.put_if_absent(&names::entry(n), bytes.clone()).await;
            match answer {
                Ok(Put::Created) => return Ok(Committed::Ours),
                Err(error) if !error.is_unsure() && unsure.is_none() => return Err(error.into()),
                Ok(Put::Exists) if bugs::on(Bug::AnyEntryIsOurs) => return Ok(Committed::Ours),
                Err(error) if bugs::on(Bug::LostAnswerIsForgotten) => {
                    return Err(StoreError::Undecided { n, why: error.to_string() });
                }
                Ok(Put::Exists) => {}
                Err(error) => unsure = Some(error.to_string()),
            }
            match self.bytes_of(n).await {
                Ok(Some(found)) if found == *bytes => return Ok(Committed::Ours),
                Ok(Some(_)) => return Ok(Committed::Theirs),
                Ok(None) => {}
                Err(error) => unsure = Some(error.to_string()),
            }
            let pause = PUT_PAUSE.min(Duration::from_millis(50 << attempt));
            self.host.sleep(self.host.jitter(pause)).await;
        }
        let why = unsure.unwrap_or_else(|| "it is said to be there, and cannot be read".into());
        Err(StoreError::Undecided { n, why })
    }

    /// Keeps the folded log beside the log, where its head is the hundredth entry of a hundred. A cache: it may fail.
    pub async fn keep(&self, state: &State) {
        let kept = || {
            let (n, text) = (state.next.checked_sub(1)?, folded(state)?);
            let (entry, digest) = (state.head?, Digest::of(text.get().as_bytes()));
            Some((n, serde_json::to_vec(&Kept { format: FORMAT, entry, digest, state: text }).ok()?))
        };
        let Some((n, bytes)) = kept() else { return };
        if let Err(error) = self.objects.put(&names::state(n), Bytes::from(bytes)).await {
            tracing::warn!(%error, "the folded log was not kept; reading the log takes longer");
            return;
        }
        if let Err(error) = self.drop_older(n).await {
            tracing::warn!(%error, "older folded logs were not deleted; the next one that is kept deletes them");
        }
    }

    /// Deletes all folded logs up to `n` but the newest that are ever tried.
    async fn drop_older(&self, n: u64) -> Result<(), BucketError> {
        let mut numbers = self.kept_numbers().await?;
        numbers.retain(|number| *number <= n);
        for number in numbers.iter().rev().skip(STATE_TRIES) {
            self.objects.delete(&names::state(*number)).await?;
        }
        Ok(())
    }

    /// The numbers of the folded logs, in their order.
    async fn kept_numbers(&self) -> Result<Vec<u64>, BucketError> {
        let mut numbers = Vec::new();
        let mut listing = Listing::new(&self.objects, names::STATE);
        while let Some(page) = listing.next_page().await? {
            numbers.extend(page.iter().filter_map(|listed| names::state_number(&listed.key)));
        }
        Ok(numbers)
    }

    /// The newest folded log that the log vouches for, or the empty one.
    async fn kept(&self) -> Result<State, StoreError> {
        for n in self.kept_numbers().await?.into_iter().rev().take(STATE_TRIES) {
            // The newest one may wait for the entry that vouches for it; the one before it does as well.
            let Some(next) = self.bytes_of(n.saturating_add(1)).await? else { continue };
            if let Some(state) = self.kept_at(n, &next).await? {
                return Ok(state);
            }
            tracing::warn!(n, "the folded log is not the one that the log vouches for, and is not used");
        }
        Ok(State::default())
    }

    /// Whether the log folded up to entry `n` is kept in another format than the present one: it is never read again.
    pub async fn is_outdated(&self, n: u64) -> Result<bool, StoreError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let bytes = match self.objects.get(&names::state(n), MAX_STATE).await {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(BucketError::TooLarge { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        Ok(serde_json::from_slice::<Format>(&bytes).is_ok_and(|kept| kept.format != FORMAT))
    }

    /// The log folded up to entry `n`, if the log vouches for what is kept of it. It is used if entry `n` is the one that it was folded up to, and the `next` one says
    /// that it is this text.
    pub async fn kept_at(&self, n: u64, next: &[u8]) -> Result<Option<State>, StoreError> {
        let bytes = match self.objects.get(&names::state(n), MAX_STATE).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) | Err(BucketError::TooLarge { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(entry) = self.bytes_of(n).await?.map(|bytes| Digest::of(&bytes)) else { return Ok(None) };
        let Ok(next) = Entry::from_bytes(n.saturating_add(1), next) else { return Ok(None) };
        let Ok(kept) = serde_json::from_slice::<Kept>(&bytes) else { return Ok(None) };
        let text = kept.state.get();
        let digest = Digest::of(text.as_bytes());
        let fits = kept.format == FORMAT && kept.entry == entry && kept.digest == digest;
        let vouched = next.n == n.saturating_add(1) && next.previous == Some(entry) && next.folded == Some(digest);
        let state = serde_json::from_str::<State>(text).ok().filter(|_| fits && vouched);
        Ok(state.filter(|state| state.next == next.n && state.head == Some(entry)))
    }
}

/// The folded log as it is kept, where its head is the hundredth entry of a hundred.
pub fn folded(state: &State) -> Option<Box<serde_json::value::RawValue>> {
    state.next.checked_sub(1).filter(|n| *n > 0 && n % bugs::number(STATE_EVERY, STATE_EVERY_SMALL) == 0)?;
    serde_json::value::to_raw_value(state).ok()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
