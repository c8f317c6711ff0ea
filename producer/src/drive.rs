//! How many operations travel: in batches, several batches at once, at a rate, and in order for each item.
//!
//! Each item belongs to one of a few lanes, by the hash of its name; a lane has one batch on its way at a time. So two
//! operations on one item never overtake each other, whatever else is in flight. Memory holds at most two batches a lane.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{join, try_join_all};
use futures::{Stream, StreamExt};
use recount_schemas::host::Host;
use tokio::sync::mpsc;

/// The most lanes.
pub const MAX_LANES: usize = 256;

/// How far ahead of its rate the driver may be before it sleeps. It sends what it has gathered before it does.
const AHEAD: Duration = Duration::from_millis(20);

/// Where operations end.
pub trait Target: Sync {
    /// One operation.
    type Op: Send;
    /// Why a batch could not be carried out.
    type Error: Send;

    /// The most operations in a batch, at least 1.
    fn most(&self) -> usize;

    /// The item that an operation is on.
    fn item<'a>(&self, op: &'a Self::Op) -> &'a str;

    /// Whether a batch may hold only one operation on an item.
    fn distinct(&self) -> bool;

    /// Carries out a batch, with retries. Order within it need not be kept, except between operations on one item.
    fn send(&self, batch: Vec<Self::Op>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Operations per second; `None`: as fast as the target takes them.
    pub rate: Option<f64>,
    /// How many batches are on their way at once, 1 to [`MAX_LANES`].
    pub lanes: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rate: None, lanes: 16 }
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Driven {
    /// Operations carried out.
    pub operations: u64,
    /// The time that it took, in seconds.
    pub seconds: f64,
    /// Operations per second.
    pub rate: f64,
}

/// Carries out all of `ops`; stops at the first error. `progress` is told how many operations are done so far.
pub async fn drive<T: Target>(
    target: &T,
    ops: impl Stream<Item = T::Op>,
    pace: Pace,
    host: &dyn Host,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Driven, T::Error> {
    let started = host.monotonic();
    let lanes = pace.lanes.clamp(1, MAX_LANES);
    let done = AtomicU64::new(0);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..lanes).map(|_| mpsc::channel::<Vec<T::Op>>(1)).unzip();
    let done_so_far = &done;
    let send = receivers.into_iter().map(|mut batches| async move {
        while let Some(batch) = batches.recv().await {
            let operations = batch.len() as u64;
            target.send(batch).await?;
            progress(done_so_far.fetch_add(operations, Ordering::Relaxed) + operations);
        }
        Ok(())
    });
    let feed = async {
        let mut gathered: Vec<Lane<T>> = senders.into_iter().map(|to| Lane { to, batch: Vec::new() }).collect();
        let mut ops = std::pin::pin!(ops);
        let mut fed = 0u64;
        while let Some(op) = ops.next().await {
            if let Some(due) = pace.rate.and_then(|rate| Duration::try_from_secs_f64(fed as f64 / rate).ok()) {
                let elapsed = host.monotonic().saturating_sub(started);
                if due > elapsed + AHEAD {
                    for lane in &mut gathered {
                        lane.flush().await?;
                    }
                    host.sleep(due.saturating_sub(elapsed)).await;
                }
            }
            fed += 1;
            let lane = lane_of(target.item(&op), lanes);
            if let Some(lane) = gathered.get_mut(lane) {
                lane.push(target, op).await?;
            }
        }
        for lane in &mut gathered {
            lane.flush().await?;
        }
        Ok::<(), Closed>(())
    };
    // A lane that fails closes all: the feeder then stops with `Closed`, and the lane's error is the answer.
    let (sent, _) = join(try_join_all(send), feed).await;
    sent?;
    let seconds = host.monotonic().saturating_sub(started).as_secs_f64();
    let operations = done.into_inner();
    let rate = if seconds > 0.0 { operations as f64 / seconds } else { 0.0 };
    Ok(Driven { operations, seconds, rate })
}

/// A lane does not take batches any more.
struct Closed;

struct Lane<T: Target> {
    to: mpsc::Sender<Vec<T::Op>>,
    batch: Vec<T::Op>,
}

impl<T: Target> Lane<T> {
    async fn push(&mut self, target: &T, op: T::Op) -> Result<(), Closed> {
        let again = |before: &T::Op| target.item(before) == target.item(&op);
        if target.distinct() && self.batch.iter().any(again) {
            self.flush().await?;
        }
        self.batch.push(op);
        if self.batch.len() >= target.most().max(1) { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Closed> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.to.send(std::mem::take(&mut self.batch)).await.map_err(|_| Closed)
    }
}

fn lane_of(item: &str, lanes: usize) -> usize {
    let hash = blake3::hash(item.as_bytes());
    let low = hash.as_bytes().iter().take(2).fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
    low % lanes.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loopback::StillHost;
    use proptest::prelude::*;
    use std::sync::Mutex;

    struct Kept {
        most: usize,
        distinct: bool,
        fail: bool,
        batches: Mutex<Vec<Vec<(String, usize)>>>,
    }

    impl Target for Kept {
        type Op = (String, usize);
        type Error = &'static str;

        fn most(&self) -> usize {
            self.most
        }

        fn item<'a>(&self, op: &'a Self::Op) -> &'a str {
            &op.0
        }

        fn distinct(&self) -> bool {
            self.distinct
        }

        async fn send(&self, batch: Vec<Self::Op>) -> Result<(), Self::Error> {
            tokio::task::yield_now().await;
            self.batches.lock().unwrap().push(batch);
            if self.fail { Err("down") } else { Ok(()) }
        }
    }

    fn run(target: &Kept, ops: &[u8], pace: Pace, host: &StillHost) -> Result<Driven, &'static str> {
        let ops: Vec<_> = ops.iter().enumerate().map(|(i, item)| (item.to_string(), i)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(drive(target, futures::stream::iter(ops), pace, host, &|_| {}))
    }

    fn kept(most: usize, distinct: bool, fail: bool) -> Kept {
        Kept { most, distinct, fail, batches: Mutex::default() }
    }

    proptest! {
        #[test]
        fn every_operation_arrives_once_and_each_item_keeps_its_order(
            ops in prop::collection::vec(0u8..6, 0..60), most in 1usize..5, lanes in 1usize..5, distinct in any::<bool>(),
        ) {
            let target = kept(most, distinct, false);
            let driven = run(&target, &ops, Pace { rate: None, lanes }, &StillHost::default()).unwrap();
            prop_assert_eq!(driven.operations, ops.len() as u64);
            let batches = target.batches.into_inner().unwrap();
            for batch in &batches {
                prop_assert!((1..=most).contains(&batch.len()));
                let items: std::collections::HashSet<_> = batch.iter().map(|(item, _)| item).collect();
                prop_assert!(!distinct || items.len() == batch.len());
            }
            for item in 0u8..6 {
                let arrived: Vec<usize> = batches.iter().flatten().filter(|op| op.0 == item.to_string()).map(|op| op.1).collect();
                let expected: Vec<usize> = (0..ops.len()).filter(|i| ops[*i] == item).collect();
                prop_assert_eq!(arrived, expected);
            }
        }
    }

    #[test]
    fn the_first_error_ends_it() {
        let target = kept(1, true, true);
        assert_eq!(run(&target, &[1; 1_000], Pace::default(), &StillHost::default()), Err("down"));
        assert_eq!(target.batches.lock().unwrap().len(), 1);
    }

    #[test]
    fn the_rate_is_kept_and_gathered_operations_do_not_wait_for_a_full_batch() {
        let host = StillHost::default();
        let target = kept(1_000, false, false);
        let driven = run(&target, &[7; 101], Pace { rate: Some(10.0), lanes: 1 }, &host).unwrap();
        assert!((driven.seconds - 10.0).abs() < 0.001, "{driven:?}");
        assert_eq!(target.batches.lock().unwrap().len(), 101, "one every tenth of a second");
    }
}
