//! What a deployment's template would make: tables, stream, bucket. Made where missing, left alone where there.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, StreamSpecification,
    StreamViewType,
};
use recount_consumer::tables;
use recount_schemas::host::SharedHost;
use recount_schemas::{Definition, Settings};

use crate::clients::Clients;

/// How long the local stream keeps its records, in hours: the seven days that a deployment asks for.
const RETENTION_HOURS: i32 = 168;

/// Something could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make {what} {name}: {cause}")]
pub struct SetupError {
    what: &'static str,
    name: String,
    cause: String,
}

/// One attribute of a key.
struct KeyPart<'a> {
    name: &'a str,
    kind: ScalarAttributeType,
    role: KeyType,
}

/// Makes whatever of the pipeline's things is missing. The source table's key attributes are strings.
///
/// # Errors
/// The first thing that could not be made.
pub async fn setup(
    clients: &Clients,
    definition: &Definition,
    settings: &Settings,
    shards: i32,
    host: &SharedHost,
) -> Result<(), SetupError> {
    let roles = [KeyType::Hash, KeyType::Range];
    let source: Vec<KeyPart<'_>> = definition
        .key
        .iter()
        .zip(roles)
        .map(|(name, role)| KeyPart { name, kind: ScalarAttributeType::S, role })
        .collect();
    source_table(clients, &definition.table, &source).await?;
    let made = tables::ensure(&clients.dynamodb, settings, host).await;
    made.map_err(|error| SetupError { what: "table", name: error.table, cause: error.why })?;
    stream(clients, &settings.stream, shards).await?;
    bucket(clients, &settings.bucket).await
}

async fn source_table(clients: &Clients, name: &str, key: &[KeyPart<'_>]) -> Result<(), SetupError> {
    let failed = |cause: String| SetupError { what: "table", name: name.to_owned(), cause };
    let mut request = clients.dynamodb.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
    for part in key {
        let attribute = AttributeDefinition::builder().attribute_name(part.name).attribute_type(part.kind.clone());
        let element = KeySchemaElement::builder().attribute_name(part.name).key_type(part.role.clone());
        request = request
            .attribute_definitions(attribute.build().map_err(|e| failed(e.to_string()))?)
            .key_schema(element.build().map_err(|e| failed(e.to_string()))?);
    }
    let images =
        StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::NewAndOldImages).build();
    request = request.stream_specification(images.map_err(|e| failed(e.to_string()))?);
    match request.send().await {
        Ok(_) => Ok(()),
        Err(e) if e.as_service_error().is_some_and(|e| e.is_resource_in_use_exception()) => Ok(()),
        Err(e) => Err(failed(explain(&e))),
    }
}

async fn stream(clients: &Clients, name: &str, shards: i32) -> Result<(), SetupError> {
    let failed = |cause: String| SetupError { what: "stream", name: name.to_owned(), cause };
    match clients.kinesis.create_stream().stream_name(name).shard_count(shards).send().await {
        Ok(_) => {}
        Err(e) if e.as_service_error().is_some_and(|e| e.is_resource_in_use_exception()) => {}
        Err(e) => return Err(failed(explain(&e))),
    }
    // Asked also of a stream that was there: whoever made it may have been killed before this.
    let described = clients.kinesis.describe_stream_summary().stream_name(name).send().await;
    let described = described.map_err(|e| failed(explain(&e)))?;
    let hours = described.stream_description_summary().map_or(0, |summary| summary.retention_period_hours());
    if hours >= RETENTION_HOURS {
        return Ok(());
    }
    let longer = clients.kinesis.increase_stream_retention_period().stream_name(name);
    longer.retention_period_hours(RETENTION_HOURS).send().await.map(drop).map_err(|e| failed(explain(&e)))
}

async fn bucket(clients: &Clients, name: &str) -> Result<(), SetupError> {
    match clients.s3.create_bucket().bucket(name).send().await {
        Ok(_) => Ok(()),
        Err(e)
            if e.as_service_error()
                .is_some_and(|e| e.is_bucket_already_owned_by_you() || e.is_bucket_already_exists()) =>
        {
            Ok(())
        }
        Err(e) => Err(SetupError { what: "bucket", name: name.to_owned(), cause: explain(&e) }),
    }
}

fn explain(error: &(impl std::error::Error + 'static)) -> String {
    recount_schemas::causes(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::{Engines, Options, Storage};
    use recount_schemas::host::SystemHost;

    #[tokio::test]
    async fn what_is_there_stays_and_a_short_retention_is_lengthened() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { storage: Storage::Memory, ..Options::default() };
        let engines = Engines::open(dir.path(), SystemHost::shared(), options).unwrap();
        let clients = Clients::new(&crate::client::in_process(engines.door()).await);
        let definition = Definition::parse(crate::pipeline::SCANS, "recount.toml").unwrap();
        let settings = Settings::default();
        // As after a kill between the two requests.
        clients.kinesis.create_stream().stream_name(&settings.stream).shard_count(3).send().await.unwrap();
        for _ in 0..2 {
            setup(&clients, &definition, &settings, 2, &SystemHost::shared()).await.unwrap();
            let described = clients.kinesis.describe_stream_summary().stream_name(&settings.stream).send().await;
            let summary = described.unwrap().stream_description_summary.unwrap();
            assert_eq!((summary.retention_period_hours(), summary.open_shard_count()), (RETENTION_HOURS, 3));
        }
    }
}
