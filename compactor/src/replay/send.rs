//! Windows of records into the stream, at a rate.
//!
//! A window is what is sent before the checkpoint is written again: at most [`WINDOW_RECORDS`] records and [`WINDOW_BYTES`], and
//! no more than a second's worth of the rate. Within it the relay's outbox sees to the order: one record of each partition key in a
//! request, a refused record before any later one of its key. The next window is begun when every record of this one was acknowledged.
//!
//! So an item that changed again and again travels one change a request, some 10 ms each, whatever the rate.

use std::time::Duration;

use recount_producer::relay::outbox::Limits;
use recount_producer::stream::{Outgoing, Sender, Sending};
use recount_schemas::host::{Deadline, SharedHost};

use super::ReplayError;

/// Most records of a window: four full requests.
pub const WINDOW_RECORDS: usize = 2_000;
/// Most bytes of a window, unless a single record has more.
pub const WINDOW_BYTES: usize = 8 << 20;
/// What a shard takes: 1,000 records and 1 MB a second (Kinesis Developer Guide, "quotas"). Half of it is left to others.
const SHARD_RECORDS: u64 = 500;
const SHARD_BYTES: u64 = 500_000;

/// A record on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// Its partition key.
    pub partition_key: String,
    /// Its bytes.
    pub data: Vec<u8>,
}

impl Parcel {
    /// What it counts against the limits of Kinesis, in bytes.
    pub fn size(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

impl Outgoing for Parcel {
    fn partition_key(&self) -> &str {
        &self.partition_key
    }

    fn data(&self) -> &[u8] {
        &self.data
    }
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Rate {
    /// Records a second.
    pub records: u64,
    /// Bytes a second.
    pub bytes: u64,
}

impl Rate {
    /// What was asked for, or half of what so many shards take.
    pub fn new(records: Option<u64>, bytes: Option<u64>, shards: u64) -> Self {
        let shards = shards.max(1);
        let or = |asked: Option<u64>, each: u64| asked.unwrap_or_else(|| shards.saturating_mul(each)).max(1);
        Self { records: or(records, SHARD_RECORDS), bytes: or(bytes, SHARD_BYTES) }
    }

    /// The time that so many records of so many bytes take.
    pub fn time(self, records: u64, bytes: u64) -> Duration {
        let seconds = (records as f64 / self.records as f64).max(bytes as f64 / self.bytes as f64);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// Sends windows at a rate.
pub struct Paced<'h> {
    sender: Sender,
    host: &'h SharedHost,
    rate: Rate,
    most: usize,
    /// When the next window is due, by the monotonic clock.
    due: Duration,
}

impl<'h> Paced<'h> {
    /// To `stream`, which takes records of at most `most` bytes with their partition keys.
    pub fn new(kinesis: aws_sdk_kinesis::Client, stream: &str, most: usize, rate: Rate, host: &'h SharedHost) -> Self {
        let limits = Limits { record_bytes: most, ..Limits::default() };
        let sending = Sending { limits, ..Sending::default() };
        let sender = Sender::new(kinesis, stream, sending, host.clone());
        Self { sender, host, rate, most, due: host.monotonic() }
    }

    /// An empty window.
    pub fn window(&self) -> Window {
        let records = usize::try_from(self.rate.records).unwrap_or(usize::MAX).min(WINDOW_RECORDS);
        let bytes = usize::try_from(self.rate.bytes).unwrap_or(usize::MAX).min(WINDOW_BYTES);
        Window { parcels: Vec::new(), held: 0, records, bytes }
    }

    /// Sends a window when it is due, and returns when every record of it was acknowledged.
    pub async fn send(&mut self, window: &Window) -> Result<(), ReplayError> {
        let parcels = &window.parcels;
        if parcels.is_empty() {
            return Ok(());
        }
        let mut outbox = self.sender.outbox(parcels);
        let too_large = outbox.too_large();
        if let Some(first) = too_large.first().and_then(|i| parcels.get(*i)) {
            return Err(ReplayError::TooLarge {
                count: too_large.len() as u64,
                stream: self.sender.stream().to_owned(),
                most: self.most,
                first: format!("one of {} bytes with partition key {:?}", first.size(), first.partition_key),
            });
        }
        let now = self.host.monotonic();
        if let Some(early) = self.due.checked_sub(now).filter(|early| !early.is_zero()) {
            self.host.sleep(early).await;
        }
        // A slow stretch is not made up for by a burst behind it.
        let time = self.rate.time(parcels.len() as u64, window.held as u64);
        self.due = self.due.max(now).saturating_add(time);
        self.sender.send_all(parcels, &mut outbox, Deadline::NONE).await;
        match outbox.unsettled().count() {
            0 => Ok(()),
            left => Err(ReplayError::Refused { stream: self.sender.stream().to_owned(), left, of: parcels.len() }),
        }
    }
}

/// Records that are sent before the checkpoint is written again, in their order.
#[derive(Debug)]
pub struct Window {
    parcels: Vec<Parcel>,
    held: usize,
    records: usize,
    bytes: usize,
}

impl Window {
    /// Whether this one does not fit any more.
    pub fn is_full_for(&self, parcel: &Parcel) -> bool {
        !self.parcels.is_empty()
            && (self.parcels.len() >= self.records || self.held.saturating_add(parcel.size()) > self.bytes)
    }

    /// Takes one more.
    pub fn push(&mut self, parcel: Parcel) {
        self.held = self.held.saturating_add(parcel.size());
        self.parcels.push(parcel);
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.parcels.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_what_was_asked_or_half_of_what_the_shards_take() {
        assert_eq!(Rate::new(None, None, 4), Rate { records: 2_000, bytes: 2_000_000 });
        assert_eq!(Rate::new(Some(10), Some(7), 4), Rate { records: 10, bytes: 7 });
        assert_eq!(Rate::new(Some(0), None, 0), Rate { records: 1, bytes: 500_000 });
        let rate = Rate { records: 100, bytes: 1_000 };
        assert_eq!(rate.time(200, 0), Duration::from_secs(2), "by records");
        assert_eq!(rate.time(200, 9_000), Duration::from_secs(9), "by bytes");
    }

    #[test]
    fn a_window_takes_one_record_whatever_its_size_and_then_what_fits() {
        let parcel = |bytes| Parcel { partition_key: String::new(), data: vec![0; bytes] };
        let mut window = Window { parcels: Vec::new(), held: 0, records: 3, bytes: 100 };
        assert!(!window.is_full_for(&parcel(1_000)));
        window.push(parcel(60));
        assert!(!window.is_full_for(&parcel(40)) && window.is_full_for(&parcel(41)));
        window.push(parcel(1));
        window.push(parcel(1));
        assert!(window.is_full_for(&parcel(0)));
    }
}
