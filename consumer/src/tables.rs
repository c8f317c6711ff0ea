//! The tables of totals, ledger and progress: their shapes, and making those that are missing.
//!
//! A deployment's template makes them; local mode and a rebuild into a set make them by this.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableStatus,
    TimeToLiveSpecification,
};
use recount_schemas::host::SharedHost;
use recount_schemas::{Settings, causes, items};
use std::time::Duration;

/// How often a table is asked for until it is ready: ten minutes.
const LOOKS: u32 = 300;
/// How long is waited between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// A table is not there and could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table {table} could not be made: {why}")]
pub struct TableError {
    /// The table.
    pub table: String,
    /// What happened.
    pub why: String,
}

/// One table: string `pk`, and `sk`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Its name.
    pub name: String,
    /// The type of `sk`.
    pub sort: ScalarAttributeType,
    /// Whether its items expire by [`items::EXPIRES`].
    pub expires: bool,
}

/// The three tables.
pub fn shapes(settings: &Settings) -> [Shape; 3] {
    let shape = |name: &str, sort, expires| Shape { name: name.to_owned(), sort, expires };
    [
        shape(&settings.totals, ScalarAttributeType::S, false),
        shape(&settings.ledger, ScalarAttributeType::B, true),
        shape(&settings.progress, ScalarAttributeType::S, false),
    ]
}

/// Whether a table is there.
pub async fn exists(dynamo: &Client, table: &str) -> Result<bool, TableError> {
    match dynamo.describe_table().table_name(table).send().await {
        Ok(_) => Ok(true),
        Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception()) => Ok(false),
        Err(error) => Err(TableError { table: table.to_owned(), why: causes(&error) }),
    }
}

/// Makes those of the three tables that are missing, and waits until they can be used.
pub async fn ensure(dynamo: &Client, settings: &Settings, host: &SharedHost) -> Result<(), TableError> {
    for shape in shapes(settings) {
        let failed = |why: String| TableError { table: shape.name.clone(), why };
        if !exists(dynamo, &shape.name).await? {
            create(dynamo, &shape).await.map_err(failed)?;
        }
        ready(dynamo, &shape.name, host).await.map_err(failed)?;
        if shape.expires {
            expire(dynamo, &shape.name).await.map_err(failed)?;
        }
    }
    Ok(())
}

async fn create(dynamo: &Client, shape: &Shape) -> Result<(), String> {
    let mut request = dynamo.create_table().table_name(&shape.name).billing_mode(BillingMode::PayPerRequest);
    let parts = [(items::PK, ScalarAttributeType::S, KeyType::Hash), (items::SK, shape.sort.clone(), KeyType::Range)];
    for (name, kind, role) in parts {
        let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build();
        let element = KeySchemaElement::builder().attribute_name(name).key_type(role).build();
        request = request
            .attribute_definitions(attribute.map_err(|error| error.to_string())?)
            .key_schema(element.map_err(|error| error.to_string())?);
    }
    match request.send().await {
        Ok(_) => Ok(()),
        // Somebody else makes it at the same time.
        Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_in_use_exception()) => Ok(()),
        Err(error) => Err(causes(&error)),
    }
}

/// Waits until a table can be written.
async fn ready(dynamo: &Client, table: &str, host: &SharedHost) -> Result<(), String> {
    for _ in 0..LOOKS {
        let described = dynamo.describe_table().table_name(table).send().await.map_err(|error| causes(&error))?;
        let status = described.table().and_then(|table| table.table_status());
        if matches!(status, Some(TableStatus::Active | TableStatus::Updating)) {
            return Ok(());
        }
        host.sleep(PAUSE).await;
    }
    Err("it is not ready after ten minutes; look at it, then run this again".to_owned())
}

async fn expire(dynamo: &Client, table: &str) -> Result<(), String> {
    let described = dynamo.describe_time_to_live().table_name(table).send().await.map_err(|error| causes(&error))?;
    if described.time_to_live_description().and_then(|ttl| ttl.attribute_name()).is_some() {
        return Ok(()); // enabling it twice is an error
    }
    let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name(items::EXPIRES).build();
    let request = dynamo.update_time_to_live().table_name(table);
    let request = request.time_to_live_specification(ttl.map_err(|error| error.to_string())?);
    request.send().await.map(drop).map_err(|error| causes(&error))
}
