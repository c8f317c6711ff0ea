//! What goes wrong: the failures that a pipeline of streams meets, one after the other, and an edit by hand.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use futures::TryStreamExt;
use recount_producer::drive::Pace;
use recount_producer::load::{LoadSettings, Operation, Plan, into_table};
use recount_producer::table::Table;
use recount_schemas::host::SharedHost;
use recount_schemas::items;
use recount_schemas::terminal::{plural, shown};

use super::DemoError;
use crate::pipeline::Pipeline;

/// Scans recorded while the consumer crashes, and again when it is mended.
const SCANS: u64 = 200;
/// Scans on which the broken consumer crashes until the mapping gives them up.
const GIVEN_UP: usize = 3;
/// Records delivered again, of each shard.
const REWOUND: u64 = 500;
/// Records that the source writes twice.
const DOUBLED: usize = 50;
/// What somebody adds to a counter.
const EDITED: i64 = 7;

/// What was staged.
pub(super) struct Incident {
    /// Scans recorded meanwhile.
    pub items: u64,
}

/// Stages the incident and waits until the pipeline has taken all of it.
pub(super) async fn stage(
    pipeline: &Pipeline,
    host: &SharedHost,
    seed: u64,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Incident, DemoError> {
    let mut items = 0;
    pipeline.faults().crash_mid_batch(2);
    items += record(pipeline, host, seed.wrapping_add(1), SCANS).await?;
    pipeline.drained().await?;
    let crashes = pipeline.faults().crashed();
    say(&format!(
        "the consumer crashed {}, in the middle of a batch of {SCANS} new scans; the batches came again",
        plural(u64::from(crashes), "time"),
    ));

    let shards = shards(pipeline).await?;
    for shard in &shards {
        pipeline.chaos().rewind(shard, REWOUND);
    }
    pipeline.drained().await?;
    say(&format!("the last {REWOUND} records of each of {} shards were delivered again", shards.len()));

    let doubled = double(pipeline, &shards).await?;
    say(&format!("the source wrote {doubled} records a second time, under new sequence numbers"));

    put(pipeline, vec![entry("broken", b"{\"eventID\": \"no change".to_vec())?]).await?;
    pipeline.drained().await?;
    say("a record that cannot be decoded arrived");

    let unlucky = unlucky(host, seed.wrapping_add(2))?;
    pipeline.faults().break_on(unlucky);
    items += record(pipeline, host, seed.wrapping_add(2), SCANS).await?;
    pipeline.drained().await?;
    pipeline.faults().break_on([]);
    say(&format!("a defect: the consumer crashed on {GIVEN_UP} scans until the event source mapping gave them up"));

    // Life goes on; what is behind the given-up records moves the progress past them.
    items += record(pipeline, host, seed.wrapping_add(3), SCANS).await?;
    pipeline.drained().await?;

    let edited = edit(pipeline).await?;
    say(&format!("somebody added {EDITED} to the counter of {edited} by hand"));
    Ok(Incident { items })
}

fn settings(host: &SharedHost, seed: u64, events: u64) -> LoadSettings {
    LoadSettings { seed, projects: 5, ..LoadSettings::new(events, host.now_us()) }
}

async fn record(pipeline: &Pipeline, host: &SharedHost, seed: u64, events: u64) -> Result<u64, DemoError> {
    let name = &pipeline.context().definition.table;
    let table = Table::new(pipeline.clients().dynamodb.clone(), name, Arc::clone(host));
    let report = into_table(&table, &settings(host, seed, events), Pace::default(), &**host, &|_| {}).await?;
    Ok(report.inserts)
}

/// The keys of some scans that the load of this seed is going to record.
fn unlucky(host: &SharedHost, seed: u64) -> Result<Vec<String>, DemoError> {
    let plan = Plan::new(&settings(host, seed, SCANS)).map_err(staging)?;
    let inserted = plan.filter_map(|operation| match operation {
        Operation::Insert(scan) => Some(scan.scan_id),
        _ => None,
    });
    Ok(inserted.step_by(SCANS as usize / GIVEN_UP).take(GIVEN_UP).collect())
}

async fn shards(pipeline: &Pipeline) -> Result<Vec<String>, DemoError> {
    let request = pipeline.clients().kinesis.list_shards().stream_name(&pipeline.context().settings.stream);
    let answer = request.send().await.map_err(aws)?;
    Ok(answer.shards().iter().map(|shard| shard.shard_id().to_owned()).collect())
}

/// Puts records of the stream into it once more, byte for byte.
async fn double(pipeline: &Pipeline, shards: &[String]) -> Result<usize, DemoError> {
    let (kinesis, stream) = (&pipeline.clients().kinesis, &pipeline.context().settings.stream);
    let mut entries = Vec::new();
    for shard in shards {
        let iterator = kinesis.get_shard_iterator().stream_name(stream).shard_id(shard);
        let iterator = iterator.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await.map_err(aws)?;
        let page = kinesis.get_records().set_shard_iterator(iterator.shard_iterator).limit(DOUBLED as i32);
        for record in page.send().await.map_err(aws)?.records() {
            entries.push(entry(record.partition_key().unwrap_or_default(), record.data().as_ref().to_vec())?);
        }
    }
    entries.truncate(DOUBLED);
    let doubled = entries.len();
    if doubled > 0 {
        put(pipeline, entries).await?;
        pipeline.drained().await?;
    }
    Ok(doubled)
}

fn entry(partition_key: &str, data: Vec<u8>) -> Result<PutRecordsRequestEntry, DemoError> {
    let entry = PutRecordsRequestEntry::builder().partition_key(partition_key).data(Blob::new(data));
    entry.build().map_err(staging)
}

async fn put(pipeline: &Pipeline, entries: Vec<PutRecordsRequestEntry>) -> Result<(), DemoError> {
    let request = pipeline.clients().kinesis.put_records().stream_name(&pipeline.context().settings.stream);
    let answer = request.set_records(Some(entries)).send().await.map_err(aws)?;
    match answer.failed_record_count() {
        None | Some(0) => Ok(()),
        Some(failed) => Err(DemoError::Incident(format!("the stream refused {failed} records"))),
    }
}

/// Adds to the counter of the fullest cell, past the consumer.
async fn edit(pipeline: &Pipeline) -> Result<String, DemoError> {
    let context = pipeline.context();
    let cells = context.totals.scan_cells();
    let fullest = cells.try_fold(None, |fullest: Option<(_, i64)>, (cell, look)| async move {
        Ok(match fullest {
            Some((_, events)) if events >= look.events => fullest,
            _ => Some((cell, look.events)),
        })
    });
    let Some((cell, _)) = fullest.await.map_err(staging)? else {
        return Err(DemoError::Incident("there is no counter to edit".to_owned()));
    };
    let update = pipeline.clients().dynamodb.update_item().table_name(&context.settings.totals);
    update
        .key(items::PK, AttributeValue::S(cell.group.to_string()))
        .key(items::SK, AttributeValue::S(items::cell_sk(cell.month, cell.lane)))
        .update_expression("ADD #events :more")
        .expression_attribute_names("#events", items::EVENTS)
        .expression_attribute_values(":more", AttributeValue::N(EDITED.to_string()))
        .send()
        .await
        .map_err(aws)?;
    Ok(format!("{} {}", shown(cell.group.as_str()), cell.month))
}

fn aws(error: impl std::error::Error + 'static) -> DemoError {
    DemoError::Incident(recount_schemas::causes(&error))
}

fn staging(error: impl std::fmt::Display) -> DemoError {
    DemoError::Incident(error.to_string())
}
