//! Months as partitions of the table `events` of a Glue database.
//!
//! For each month: read the partition, decide by [`step`], create or move it by one call, read it again. Glue has no conditional
//! update. So of two that read the same old version, the slower can set the location back to what it wanted, which is a version
//! that the month did have. Readers by location then see the month as after an earlier commit, until the next compaction run
//! moves what is behind, or the next commit in the month does. Nothing that they see is deleted before: files are deleted only
//! while the location shows the present version, and has shown newer ones than theirs for the grace; and a run that is slower than
//! the grace is dead.
//!
//! A partition is created with the columns and formats that its table has at that moment, and so it is at each move. One that has other
//! columns than its table gets these where it is, once a call: should Glue not give them back as they were put, no run is kept by it.
//! That writes location and parameters as they were read just before, so one that is overtaken in between sets them back as a late move
//! does, with the same end. Whoever sees a newer version than its own knows that it is late, and writes nothing.
//!
//! Requests that Glue throttles are sent again by the SDK, `ATTEMPTS` times in all; a month that somebody else changes at the same
//! time is looked at again, `LOOKS` times in all. After that the run fails, and the next one tries again: nobody puts the next entry
//! before this month is placed.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_glue::Client;
use aws_sdk_glue::types::{BatchUpdatePartitionRequestEntry, PartitionInput, StorageDescriptor};
use futures::future::BoxFuture;
use futures::stream::{StreamExt, TryStreamExt};
use recount_schemas::host::SharedHost;
use recount_schemas::{Month, causes};

use super::EVENTS_TABLE;
use super::partition::{Column, Partition, Step, made, moved, shown, step};
use crate::archive::finish::{Catalog, Shown};
use crate::log::State;

/// How often a request is sent.
const ATTEMPTS: u32 = 6;
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How often a month is looked at.
const LOOKS: u32 = 5;
/// How many months are placed at once: Glue's request rates are an account's, not ours alone.
const AT_ONCE: usize = 4;

/// A Glue database with the table `events`.
#[derive(Debug, Clone)]
pub struct Glue {
    client: Client,
    database: String,
    bucket: String,
    host: SharedHost,
}

impl Glue {
    /// The database whose table `events` is over this bucket.
    pub fn new(sdk: &SdkConfig, database: &str, bucket: &str, host: SharedHost) -> Self {
        let config = aws_sdk_glue::config::Builder::from(sdk)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT).build());
        let client = Client::from_conf(config.build());
        Self { client, database: database.to_owned(), bucket: bucket.to_owned(), host }
    }

    /// The partition of a month, if there is one; `None` also where there is no table.
    async fn partition(&self, month: Month) -> Result<Option<Partition>, String> {
        let ask = self.client.get_partition().database_name(&self.database).table_name(EVENTS_TABLE);
        match ask.partition_values(month.to_string()).send().await {
            Ok(answer) => {
                let partition = answer.partition.unwrap_or_else(|| aws_sdk_glue::types::Partition::builder().build());
                let columns = partition.storage_descriptor.as_ref().map(columns).unwrap_or_default();
                let location = partition.storage_descriptor.and_then(|descriptor| descriptor.location);
                let parameters = partition.parameters.unwrap_or_default();
                Ok(Some(Partition { location: location.unwrap_or_default(), parameters, columns }))
            }
            Err(error) if error.as_service_error().is_some_and(|e| e.is_entity_not_found_exception()) => Ok(None),
            Err(error) => Err(self.failed("the partition of ", month, &causes(&error))),
        }
    }

    /// How the table's data is laid out.
    async fn descriptor(&self) -> Result<StorageDescriptor, String> {
        let (database, table) = (&self.database, EVENTS_TABLE);
        match self.client.get_table().database_name(database).name(table).send().await {
            Ok(answer) => answer.table.and_then(|table| table.storage_descriptor).ok_or_else(|| {
                format!("table {table} of Glue database {database} does not say how its data is laid out")
            }),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_entity_not_found_exception()) => Err(format!(
                "there is no table {table} in a Glue database {database}; correct RECOUNT_GLUE_DATABASE, or deploy the database and its tables"
            )),
            Err(error) => {
                Err(format!("table {table} of Glue database {database} could not be read: {}", causes(&error)))
            }
        }
    }

    /// Makes a month show a version, if it does not show it or a newer one; and have the columns of its table.
    async fn place_month(&self, month: Month, version: u64, table: &StorageDescriptor) -> Result<(), String> {
        let columns = columns(table);
        let mut renewed = false;
        for _ in 0..LOOKS {
            let partition = self.partition(month).await?;
            let to = match step(partition.as_ref(), &columns, &self.bucket, month, version) {
                Step::Leave => return Ok(()),
                Step::Renew if renewed => return Ok(()),
                Step::Renew => {
                    renewed = true;
                    partition.clone().unwrap_or_default()
                }
                Step::Create | Step::Move => {
                    let shown = moved(partition.as_ref(), &self.bucket, month, version, self.host.now_ms());
                    made(&self.bucket, month, &shown, &columns)
                }
            };
            let mut descriptor = table.clone();
            descriptor.location = Some(to.location);
            let input = PartitionInput::builder()
                .values(month.to_string())
                .storage_descriptor(descriptor)
                .set_parameters(Some(to.parameters))
                .build();
            match partition {
                None => self.create(month, input).await?,
                Some(_) => self.update(month, input).await?,
            }
        }
        Err(self.failed("", month, &format!("others moved its partition {LOOKS} times meanwhile")))
    }

    /// Creates a month's partition, unless somebody else did.
    async fn create(&self, month: Month, input: PartitionInput) -> Result<(), String> {
        let ask = self.client.create_partition().database_name(&self.database).table_name(EVENTS_TABLE);
        match ask.partition_input(input).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_already_exists_exception()) => Ok(()),
            Err(error) => Err(self.failed("creating the partition of ", month, &causes(&error))),
        }
    }

    /// Moves a month's partition. One that was changed or deleted meanwhile is looked at again.
    async fn update(&self, month: Month, input: PartitionInput) -> Result<(), String> {
        let failed = |why: &str| self.failed("moving the partition of ", month, why);
        let entry = BatchUpdatePartitionRequestEntry::builder()
            .partition_value_list(month.to_string())
            .partition_input(input)
            .build()
            .map_err(|error| failed(&error.to_string()))?;
        let ask = self.client.batch_update_partition().database_name(&self.database).table_name(EVENTS_TABLE);
        let answer = match ask.entries(entry).send().await {
            Ok(answer) => answer,
            Err(error) if error.as_service_error().is_some_and(|e| e.is_concurrent_modification_exception()) => {
                return Ok(());
            }
            Err(error) => return Err(failed(&causes(&error))),
        };
        for error in answer.errors() {
            let detail = error.error_detail();
            let code = detail.and_then(|detail| detail.error_code()).unwrap_or("no code");
            if !matches!(code, "EntityNotFoundException" | "ConcurrentModificationException") {
                let message = detail.and_then(|detail| detail.error_message()).unwrap_or_default();
                return Err(failed(&format!("{code}: {message}")));
            }
        }
        Ok(())
    }

    fn failed(&self, doing: &str, month: Month, why: &str) -> String {
        format!("{doing}{month} in table {EVENTS_TABLE} of Glue database {}: {why}", self.database)
    }
}

/// The columns of a table, or of a partition.
fn columns(descriptor: &StorageDescriptor) -> Vec<Column> {
    let column =
        |column: &aws_sdk_glue::types::Column| (column.name.clone(), column.r#type.clone().unwrap_or_default());
    descriptor.columns().iter().map(column).collect()
}

impl Catalog for Glue {
    fn name(&self) -> String {
        format!("Glue database {}", self.database)
    }

    fn place<'c>(&'c self, state: &'c State, months: &'c BTreeSet<Month>) -> BoxFuture<'c, Result<(), String>> {
        Box::pin(async move {
            if months.is_empty() {
                return Ok(());
            }
            let table = self.descriptor().await?;
            let place = |month: &Month| self.place_month(*month, state.version(*month), &table);
            let placing: Vec<_> = months.iter().map(place).collect();
            futures::stream::iter(placing).buffer_unordered(AT_ONCE).try_collect().await
        })
    }

    fn shown(&self, month: Month) -> BoxFuture<'_, Result<Option<Shown>, String>> {
        Box::pin(async move {
            let Some(partition) = self.partition(month).await? else {
                // A missing table is an error, not a missing partition.
                return self.descriptor().await.map(|_| None);
            };
            Ok(shown(&partition, &self.bucket, month))
        })
    }
}

#[cfg(test)]
#[path = "glue_tests.rs"]
mod tests;
