//! How far each shard is done: the greatest sequence number at or below which every record that Lambda delivered has its
//! final verdict. A record that the event source mapping gave up was never settled; the next batch passes it, and reconcile
//! then says that it is missing. With a parallelization factor above 1, batches of one shard would pass each other, and
//! progress would say more than is true: the factor must be 1.
//!
//! One item per shard of one incarnation of a stream. It only grows: the write is conditional on `rank`, a text that sorts as
//! the number does. A refused write is fine, somebody is further.
//!
//! Progress that could not be written is no failure of its batch: it then says less than is true, which costs reconcile
//! nothing but that these records count as still under way, and the shard's next batch moves it.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure as OnRefusal,
};
use recount_schemas::bugs::{self, Bug};
use recount_schemas::host::{Deadline, SharedHost};
use recount_schemas::items::{FORMAT, PK, RANK, SEQUENCE, SK, VERSION, progress_pk};
use recount_schemas::{SequenceNumber, Settings, ShardId};

use crate::expressions::number;
use crate::retry::{Caller, Failure, Meter};
use crate::totals::item::{Item, check_format, names};
use crate::totals::{ItemError, TotalsError};
use crate::tuning::Tuning;

/// The progress table.
#[derive(Debug, Clone)]
pub struct Progress {
    dynamo: aws_sdk_dynamodb::Client,
    table: String,
    host: SharedHost,
    tuning: Tuning,
}

impl Progress {
    /// The table that `settings` names.
    pub fn new(dynamo: aws_sdk_dynamodb::Client, settings: &Settings, host: SharedHost) -> Self {
        Self { dynamo, table: settings.progress.clone(), host, tuning: Tuning::default() }
    }

    /// Moves a shard's progress to `sequence`, unless it is there or beyond. Whether it moved.
    ///
    /// `created_ms` is when the stream was created, ms since 1970: it tells a re-created stream from the one before it.
    pub async fn advance(
        &self,
        stream: &str,
        created_ms: i64,
        shard: &ShardId,
        sequence: &SequenceNumber,
    ) -> Result<bool, TotalsError> {
        self.advance_metered(stream, created_ms, shard, sequence, Deadline::NONE, &Meter::default()).await
    }

    /// As [`Progress::advance`], within a deadline, and with the costs told to `meter`.
    pub async fn advance_metered(
        &self,
        stream: &str,
        created_ms: i64,
        shard: &ShardId,
        sequence: &SequenceNumber,
        deadline: Deadline,
        meter: &Meter,
    ) -> Result<bool, TotalsError> {
        let caller = Caller { host: self.host.as_ref(), tuning: &self.tuning, deadline, meter };
        let pk = progress_pk(stream, created_ms);
        let update = self
            .dynamo
            .update_item()
            .table_name(&self.table)
            .key(PK, AttributeValue::S(pk.clone()))
            .key(SK, AttributeValue::S(shard.to_string()))
            .update_expression("SET #v = if_not_exists(#v, :v), #sequence = :sequence, #rank = :rank")
            .condition_expression(if bugs::on(Bug::ProgressGoesBack) {
                "(attribute_not_exists(#v) OR #v <= :v)"
            } else {
                "(attribute_not_exists(#v) OR #v <= :v) AND (attribute_not_exists(#rank) OR #rank < :rank)"
            })
            .expression_attribute_names("#v", VERSION)
            .expression_attribute_names("#sequence", SEQUENCE)
            .expression_attribute_names("#rank", RANK)
            .expression_attribute_values(":v", number(FORMAT))
            .expression_attribute_values(":sequence", AttributeValue::S(sequence.to_string()))
            .expression_attribute_values(":rank", AttributeValue::S(sequence.sortable()))
            .return_values_on_condition_check_failure(OnRefusal::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match caller.call(|| update.clone().send()).await {
            Ok(answer) => {
                let consumed = answer.consumed_capacity().and_then(|consumed| consumed.capacity_units());
                meter.wrote(consumed.unwrap_or_default());
                Ok(true)
            }
            Err(failure) => match refused(&failure) {
                Some(item) => {
                    meter.wrote(1.0);
                    check_format(&item).map_err(|why| self.unusable(&item, why))?;
                    Ok(false)
                }
                None => {
                    Err(TotalsError::request(format!("moving the progress of {shard} in {}", self.table), &failure))
                }
            },
        }
    }

    /// The progress of every shard that has any; a consistent read.
    pub async fn read(&self, stream: &str, created_ms: i64) -> Result<BTreeMap<ShardId, SequenceNumber>, TotalsError> {
        let meter = Meter::default();
        let caller = Caller { host: self.host.as_ref(), tuning: &self.tuning, deadline: Deadline::NONE, meter: &meter };
        let mut progress = BTreeMap::new();
        let mut from: Option<Item> = None;
        loop {
            let query = self
                .dynamo
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .key_condition_expression("#pk = :pk")
                .expression_attribute_names("#pk", PK)
                .expression_attribute_values(":pk", AttributeValue::S(progress_pk(stream, created_ms)))
                .set_exclusive_start_key(from.take());
            let answer = caller
                .call(|| query.clone().send())
                .await
                .map_err(|failure| TotalsError::request(format!("reading {}", self.table), &failure))?;
            for item in answer.items() {
                let (shard, sequence) = row(item).map_err(|why| self.unusable(item, why))?;
                progress.insert(shard, sequence);
            }
            match answer.last_evaluated_key.filter(|key| !key.is_empty()) {
                Some(key) => from = Some(key),
                None => return Ok(progress),
            }
        }
    }

    fn unusable(&self, item: &Item, why: ItemError) -> TotalsError {
        let (pk, sk) = names(item);
        TotalsError::Item { table: self.table.clone(), pk, sk, why }
    }
}

fn row(item: &Item) -> Result<(ShardId, SequenceNumber), ItemError> {
    check_format(item)?;
    let text = |name: &str| item.get(name).and_then(|value| value.as_s().ok());
    let wrong = |name: &str, expected| ItemError::Attribute { attribute: name.to_owned(), expected };
    let shard = text(SK).and_then(|text| text.parse().ok()).ok_or_else(|| wrong(SK, "a shard id"))?;
    let sequence: Option<SequenceNumber> = text(SEQUENCE).and_then(|text| text.parse().ok());
    Ok((shard, sequence.ok_or_else(|| wrong(SEQUENCE, "a sequence number"))?))
}

/// The item that refused a write, if it was refused.
fn refused(failure: &Failure<UpdateItemError>) -> Option<Item> {
    let Failure::Sdk(error) = failure else { return None };
    match error.as_service_error()? {
        UpdateItemError::ConditionalCheckFailedException(refused) => Some(refused.item().cloned().unwrap_or_default()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_or_refused() {
        let item = |sequence: AttributeValue| {
            Item::from([(SK.to_owned(), AttributeValue::S("shardId-0".into())), (SEQUENCE.to_owned(), sequence)])
        };
        let (shard, sequence) = row(&item(AttributeValue::S("42".into()))).unwrap();
        assert_eq!((shard.as_str(), sequence.as_str()), ("shardId-0", "42"));
        assert!(row(&item(number(42))).is_err());
        assert!(row(&Item::new()).is_err());
        let newer = Item::from([(VERSION.to_owned(), number(FORMAT + 1))]);
        assert_eq!(row(&newer), Err(ItemError::Newer(u64::from(FORMAT) + 1)));
    }
}
