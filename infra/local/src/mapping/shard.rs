//! One shard: gather, call, act on the answer, keep the position; one batch in flight at a time.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::sync::watch;

use super::batch::{self, Condition, Next, Outcome};
use super::checkpoint::{Position, Reader};
use super::event::{self, GivenUp, MAX_PAYLOAD};
use super::response::verdict;
use super::runner::Shared;
use super::source::{Item, Page, ShardInfo, Source, SourceError};
use super::{Error, FunctionError};

/// How many times a window is cut to see whether the batch is full already.
const WINDOW_LOOKS: u32 = 16;

/// A read that failed waits as long as the fifth retry of a batch.
const READ_BACK_OFF: u32 = 5;

/// Works through one shard.
pub(super) struct Worker<S> {
    pub shared: Arc<Shared<S>>,
    pub reader: Reader,
    pub shard: ShardInfo,
    pub stop: watch::Receiver<bool>,
    pub changes: Option<watch::Receiver<u64>>,
    pub wakes: watch::Receiver<u64>,
}

/// A part of what was read that is delivered as one batch.
#[derive(Debug, Clone)]
struct Piece {
    /// Places in what was read.
    range: Range<usize>,
    /// Retries that count.
    retries: u32,
    /// Calls made in vain, for the back-off and the invocation record.
    calls: u32,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Stop,
}

impl<S: Source> Worker<S> {
    /// Until the shard is done, gone, or the mapping stops.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        let kept = self.shared.checkpoints.get(&self.reader, &self.shard.id)?;
        let mut next = kept.unwrap_or_default().next;
        loop {
            if self.stopping() {
                return Ok(());
            }
            if let Some(records) = self.shared.chaos.take_rewind(&self.shard.id) {
                next = next.saturating_sub(records);
                self.keep(next, false)?;
            }
            if let Some(changes) = &mut self.changes {
                changes.borrow_and_update();
            }
            self.wakes.borrow_and_update();
            let page = match self.gather(next).await {
                Ok(Some(page)) => page,
                Ok(None) => return Ok(()),
                Err(SourceError::Gone(why)) => {
                    tracing::warn!(shard = %self.shard.id, why, "the shard is gone");
                    self.idle(self.shared.config.poll).await;
                    return Ok(());
                }
                Err(SourceError::Passing(why)) => {
                    tracing::debug!(shard = %self.shard.id, why, "the shard was not read");
                    // Throttling, as a rule. Not `idle`: a write must not make the next try come at once.
                    self.back_off(READ_BACK_OFF).await;
                    continue;
                }
            };
            if page.items.is_empty() {
                if page.ended {
                    match self.shared.chaos.take_rewind(&self.shard.id) {
                        None => return self.keep(page.next, true),
                        Some(records) => next = next.saturating_sub(records),
                    }
                } else if page.next == next {
                    self.idle(self.shared.config.poll).await;
                    continue;
                } else {
                    // A page can be empty and still move on, where a source leaves records out.
                    next = page.next;
                }
                self.keep(next, false)?;
                continue;
            }
            if self.deliver(&page.items).await? == Flow::Stop {
                return Ok(());
            }
            next = page.next;
            self.keep(next, false)?;
        }
    }

    /// Reads a batch: full, or all there is when the window since its first record is over. `None` when stopped.
    async fn gather(&mut self, from: u64) -> Result<Option<Page>, SourceError> {
        let (size, window) = (self.shared.config.batch_size, self.shared.config.window);
        let page = self.read(from)?;
        if window.is_zero() || page.items.is_empty() || page.items.len() >= size || page.more || page.ended {
            return Ok(Some(page));
        }
        drop(page);
        let begun = self.shared.host.monotonic();
        loop {
            // A look now and then costs less than one at every write.
            let sleep = self.shared.host.sleep(window / WINDOW_LOOKS);
            tokio::select! {
                biased; // one history is one order
                _ = self.stop.wait_for(|stop| *stop) => return Ok(None),
                () = sleep => {}
            }
            let gone_by = self.shared.host.monotonic().saturating_sub(begun);
            if gone_by >= window || self.shared.source.backlog(&self.shard, from)?.0 >= size as u64 {
                return self.read(from).map(Some);
            }
        }
    }

    fn read(&self, from: u64) -> Result<Page, SourceError> {
        self.shared.source.read(&self.shard, from, self.shared.config.batch_size, MAX_PAYLOAD)
    }

    /// Delivers records until each is done or given up, in order.
    async fn deliver(&mut self, items: &[Item]) -> Result<Flow, Error> {
        let mut work = VecDeque::from([Piece { range: 0..items.len(), retries: 0, calls: 0 }]);
        while let Some(piece) = work.pop_front() {
            if self.stopping() {
                return Ok(Flow::Stop);
            }
            let Some(records) = items.get(piece.range.clone()).filter(|records| !records.is_empty()) else { continue };
            let cut = |at: usize| {
                let at = piece.range.start + at;
                (
                    Piece { range: piece.range.start..at, ..piece.clone() },
                    Piece { range: at..piece.range.end, ..piece.clone() },
                )
            };
            let now = self.shared.host.now_ms();
            // What was just read is not older than the stream. A stream that cannot be asked drops nothing.
            let horizon = match piece.calls {
                0 => i64::MIN,
                _ => self.shared.source.horizon_ms().unwrap_or(i64::MIN),
            };
            let arrivals = records.iter().map(|item| item.arrival_ms);
            if let Some((old, condition)) = batch::too_old(arrivals, &self.shared.config, now, horizon) {
                let (gone, rest) = cut(old);
                if self.give_up(items, gone, condition).await? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
                work.push_front(rest);
                continue;
            }
            let fits = event::fitting(records);
            if fits == 0 {
                let (gone, rest) = cut(1);
                if self.give_up(items, gone, Condition::PayloadTooLarge).await? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
                work.push_front(rest);
                continue;
            }
            if fits < records.len() {
                let (first, rest) = cut(fits);
                work.push_front(rest);
                work.push_front(first);
                continue;
            }

            let outcome = self.call(records).await;
            let calls = piece.calls.saturating_add(1);
            match batch::after(records.len(), piece.retries, &outcome, &self.shared.config) {
                Next::Advance => {
                    if self.shared.chaos.take_kill() {
                        return Err(Error::Killed);
                    }
                    if self.shared.chaos.take_repeat() {
                        work.push_front(piece);
                        continue;
                    }
                    self.done_before(items, piece.range.end)?;
                }
                Next::Retry { from, retries } => {
                    let (_, rest) = cut(from);
                    self.done_before(items, rest.range.start)?;
                    work.push_front(Piece { retries, calls, ..rest });
                    if self.back_off(calls).await == Flow::Stop {
                        return Ok(Flow::Stop);
                    }
                }
                Next::Split { at, retries } => {
                    let (first, second) = cut(at);
                    work.push_front(Piece { retries, calls: 0, ..second });
                    work.push_front(Piece { retries, calls: 0, ..first });
                }
                Next::Discard { from, condition } => {
                    let (_, rest) = cut(from);
                    self.done_before(items, rest.range.start)?;
                    if self.give_up(items, Piece { calls, ..rest }, condition).await? == Flow::Stop {
                        return Ok(Flow::Stop);
                    }
                }
            }
        }
        Ok(Flow::On)
    }

    /// Calls the function on one batch. A panic in it is a crash of the function, not of the mapping.
    async fn call(&self, records: &[Item]) -> Outcome {
        let payload = Bytes::from(event::payload(records));
        // The semaphore is never closed; were it, the call would go ahead without its slot.
        let _slot = self.shared.slots.acquire().await;
        let answer = AssertUnwindSafe(self.shared.function.invoke(payload)).catch_unwind().await;
        if self.shared.chaos.take_lost_answer() {
            return Outcome::Failed { why: "the answer was lost, as asked".into() };
        }
        let outcome = match answer {
            Ok(Ok(_)) if !self.shared.config.report_failures => Outcome::Success,
            Ok(Ok(answer)) => verdict(&answer, records.iter().map(|item| item.sequence_number.as_str())),
            Ok(Err(FunctionError::Throttled)) => Outcome::NotInvoked,
            Ok(Err(FunctionError::Failed(why))) => Outcome::Failed { why },
            Err(_) => Outcome::Failed { why: "the function crashed".into() },
        };
        if let Outcome::Failed { why } = &outcome {
            tracing::warn!(shard = %self.shard.id, records = records.len(), why, "the function failed on a batch");
        }
        outcome
    }

    /// Hands a piece to the on-failure destination, however long that takes, and moves behind it. Without a destination
    /// the records are dropped, as on AWS.
    async fn give_up(&mut self, items: &[Item], piece: Piece, condition: Condition) -> Result<Flow, Error> {
        let records = items.get(piece.range.clone()).unwrap_or_default();
        tracing::warn!(
            shard = %self.shard.id, records = records.len(), condition = condition.as_str(), "records are given up"
        );
        if let Some(sink) = self.shared.on_failure.clone() {
            let given_up = GivenUp {
                mapping: &self.reader.mapping,
                batch_info: S::BATCH_INFO,
                stream_arn: &self.reader.arn,
                shard_id: &self.shard.id,
                items: records,
                condition,
                invocations: piece.calls,
            };
            let (key, body) = event::invocation_record(&given_up, self.shared.host.as_ref());
            let body = Bytes::from(body);
            let mut tries = 0u32;
            while let Err(why) = sink.put(&key, body.clone()).await {
                tries = tries.saturating_add(1);
                tracing::error!(shard = %self.shard.id, why, "the on-failure destination took nothing");
                if self.back_off(tries).await == Flow::Stop {
                    return Ok(Flow::Stop);
                }
            }
        }
        self.done_before(items, piece.range.end)?;
        Ok(Flow::On)
    }

    /// The position moves behind the record before `place`.
    fn done_before(&self, items: &[Item], place: usize) -> Result<(), Error> {
        match place.checked_sub(1).and_then(|last| items.get(last)) {
            Some(last) => self.keep(last.position.saturating_add(1), false),
            None => Ok(()),
        }
    }

    fn keep(&self, next: u64, done: bool) -> Result<(), Error> {
        self.shared.checkpoints.put(&self.reader, &[(&self.shard.id, Position { next, done })])?;
        self.shared.progress.send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    /// Exponential, with full jitter, bounded.
    async fn back_off(&mut self, tries: u32) -> Flow {
        let config = &self.shared.config;
        let factor = 2u32.saturating_pow(tries.saturating_sub(1).min(20));
        let most = config.backoff.saturating_mul(factor).min(config.backoff_most);
        let wait = self.shared.host.jitter(most);
        let sleep = self.shared.host.sleep(wait);
        tokio::select! {
            biased; // one history is one order
            _ = self.stop.wait_for(|stop| *stop) => Flow::Stop,
            () = sleep => Flow::On,
        }
    }

    /// Until something may have changed, or `most` is over.
    async fn idle(&mut self, most: Duration) {
        let sleep = self.shared.host.sleep(most);
        tokio::select! {
            biased; // one history is one order
            _ = self.stop.wait_for(|stop| *stop) => {}
            () = changed(self.changes.as_mut()) => {}
            () = changed(Some(&mut self.wakes)) => {}
            () = sleep => {}
        }
    }

    fn stopping(&self) -> bool {
        // Whoever drops the sender can never ask for a stop any more, and has none to wait for.
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }
}

/// Completes at the next change; never where there is nothing that could change.
pub(super) async fn changed(changes: Option<&mut watch::Receiver<u64>>) {
    if let Some(changes) = changes
        && changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
