//! From a record's raw bytes to what it does, or to the reason why it cannot be counted.
//!
//! The consumer and the compactor both judge with this, and from nothing but the record: so they agree on every record,
//! whenever each of them sees it.

use crate::amount::Amount;
use crate::change::{Change, EventName, Precision};
use crate::definition::{Definition, Identity};
use crate::event_key::EventKey;
use crate::fold::{Effect, Group};
use crate::period::Month;
use crate::verdict::{QuarantineCode, QuarantineReason};

use smallvec::SmallVec;

/// No change before 2012-01-01T00:00:00Z, the month DynamoDB was launched. In µs.
const EARLIEST_CREATED_US: i64 = 1_325_376_000_000_000;
/// No change more than a day after its record arrived in the stream. In µs.
const LATEST_AFTER_ARRIVAL_US: i64 = 86_400_000_000;

/// A record that was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged<'a> {
    /// The change.
    pub change: Change<'a>,
    /// Its identity.
    pub key: EventKey,
    /// What it does to the totals.
    pub effect: Effect,
    /// Its row in the archive belongs to this group: that of the new image, or for a REMOVE of the old one. `None` where
    /// there is no such image or it cannot be read.
    pub group: Option<Group>,
    /// The event's time by the same image, else the creation time. µs since 1970.
    pub occurred_us: i64,
    /// The month of that time: the partition of its row in the archive.
    pub month: Month,
    /// The measures by the same image; empty where it cannot be read.
    pub measures: SmallVec<[Amount; 2]>,
}

impl Definition {
    /// Judges one record that arrived in the stream at `arrived_us` (µs since 1970).
    ///
    /// The arrival time stands for "now" in the bound on creation times: Kinesis stamps it, and it is the same for every
    /// reader of the record.
    pub fn judge<'a>(&self, record: &'a [u8], arrived_us: i64) -> Result<Judged<'a>, QuarantineReason> {
        let change = Change::decode(record)?;
        let latest = arrived_us.saturating_add(LATEST_AFTER_ARRIVAL_US);
        let out_of_range = || {
            let detail = "before 2012, or more than a day after the record arrived";
            QuarantineReason::new(QuarantineCode::CreationTimeOutOfRange, detail)
        };
        if !(EARLIEST_CREATED_US..=latest).contains(&change.created_us) {
            return Err(out_of_range());
        }
        let key = self.key_of(&change)?.ok_or_else(out_of_range)?;
        let effect = self.effect(&change, key)?;

        let image = match change.event_name {
            EventName::Remove => change.old_image,
            EventName::Insert | EventName::Modify => change.new_image,
        };
        let of_ours = change.table == self.table;
        let reading = image.filter(|_| of_ours).and_then(|image| self.read(image, change.created_us).ok());
        let (group, occurred_us, month, measures) = match reading {
            Some(reading) => (Some(reading.group), reading.occurred_us, reading.month, reading.measures),
            None => {
                let month = Month::of(change.created_us, self.zone.rules()).ok_or_else(out_of_range)?;
                (None, change.created_us, month, SmallVec::new())
            }
        };
        Ok(Judged { change, key, effect, group, occurred_us, month, measures })
    }

    /// The event key of a change; `None` where its creation time does not fit one.
    pub fn key_of(&self, change: &Change<'_>) -> Result<Option<EventKey>, QuarantineReason> {
        Ok(match self.identity {
            Identity::EventId => EventKey::new(change.created_ms(), change.event_id.as_bytes()),
            Identity::Change if change.precision < Precision::Microsecond && change.table == self.table => {
                let detail = "identity = \"change\" needs MICROSECOND creation times";
                return Err(QuarantineReason::new(QuarantineCode::NeedsMicroseconds, detail));
            }
            Identity::Change => EventKey::new(change.created_ms(), &change.content_hash().0),
        })
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
